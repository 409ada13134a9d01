//! What this host remembers of snapshots and of reports, so that thousands of small files are not read from the store for every command.
//!
//! One file each in the cache folder, sealed like what it holds. An object's name is the hash of its bytes, so what is remembered under a
//! name stays true; which snapshots there are, only the store says. `check` reads the store.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write as _};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Repository;
use crate::format::codec::{Reader, Write};
use crate::format::envelope::{HEADER_BYTES, Header, Kind};
use crate::id::ObjectName;
use crate::limits::*;

/// The bodies of objects that were read, by name.
pub type Bodies = HashMap<ObjectName, Vec<u8>>;

/// What a host remembers of one kind of object.
#[derive(Default)]
pub struct Remembered {
    plain: Vec<u8>,
    /// Names, and where in `plain` the bodies are; oldest first.
    entries: Vec<(ObjectName, Range<usize>)>,
    by_name: HashMap<ObjectName, usize>,
}

impl Remembered {
    pub fn get(&self, name: &ObjectName) -> Option<&[u8]> {
        let (_, place) = &self.entries[*self.by_name.get(name)?];
        self.plain.get(place.clone())
    }

    pub fn newest_first(&self) -> impl Iterator<Item = (ObjectName, &[u8])> {
        self.entries.iter().rev().map(|(name, place)| (*name, &self.plain[place.clone()]))
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

/// What is remembered; nothing if there is no folder, or the file is not what was written.
pub fn load(repository: &Repository, kind: Kind) -> Remembered {
    file(repository, kind).and_then(|file| read(repository, kind, &file)).unwrap_or_default()
}

/// Remembers these and no others, the oldest first. Where that fails, they are read from the store again.
pub fn store<'a>(repository: &Repository, kind: Kind, bodies: impl Iterator<Item = (ObjectName, &'a [u8])>) {
    let Some(file) = file(repository, kind) else { return };
    let mut plain = Vec::new();
    for (name, body) in bodies {
        plain.put_bytes(&name.0);
        plain.put_varint(body.len() as u64);
        plain.put_bytes(body);
    }
    if plain.len() as u64 > RECALL_BYTES_MAX {
        return;
    }
    let sealer = repository.sealer(kind);
    let mut bytes = sealer.header().encode();
    bytes.extend(sealer.seal(&associated_data(sealer.header()), &plain));
    // Renamed into place, so that other processes see one or the other.
    let temporary = file.with_extension(ObjectName::of(&bytes).short());
    if replace(&file, &temporary, &bytes).is_err() {
        let _ = fs::remove_file(&temporary);
    }
}

fn file(repository: &Repository, kind: Kind) -> Option<PathBuf> {
    let name = if kind == Kind::Report { "reports" } else { "snapshots" };
    Some(repository.cache.as_ref()?.join(repository.id().hex()).join(name))
}

fn read(repository: &Repository, kind: Kind, file: &Path) -> Option<Remembered> {
    let file = fs::File::open(file).ok()?;
    let len = file.metadata().ok()?.len();
    if len > RECALL_BYTES_MAX + 4096 {
        return None;
    }
    let mut bytes = Vec::with_capacity(len as usize + 1);
    file.take(len).read_to_end(&mut bytes).ok()?;
    let header = Header::decode(&mut Reader::new(bytes.get(..HEADER_BYTES)?)).ok()?;
    if header.repository != repository.id() || header.kind != kind {
        return None;
    }
    let key = repository.keys().seal_key(kind, &header.salt);
    let plain = key.open(&associated_data(&header), &bytes[HEADER_BYTES..])?;
    let mut reader = Reader::new(&plain);
    let mut entries = Vec::new();
    while reader.remaining() > 0 {
        let name = ObjectName(reader.array("name").ok()?);
        let len = reader.length(RECORD_BYTES_MAX as usize, "length").ok()?;
        let start = reader.position();
        reader.bytes(len, "body").ok()?;
        entries.push((name, start..start + len));
    }
    let by_name = entries.iter().enumerate().map(|(at, (name, _))| (*name, at)).collect();
    Some(Remembered { plain, entries, by_name })
}

fn replace(file: &Path, temporary: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = file.parent().expect("the file is in a folder");
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    new.write_all(bytes)?;
    fs::rename(temporary, file)
}

/// Not that of any object in a store: neither can stand in for the other.
fn associated_data(header: &Header) -> Vec<u8> {
    let mut bytes = match header.kind {
        Kind::Report => b"snap1 reports of a host".to_vec(),
        _ => b"snap1 snapshots of a host".to_vec(),
    };
    bytes.put_bytes(&header.encode());
    bytes
}
