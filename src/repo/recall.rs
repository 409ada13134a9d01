//! What this host remembers of snapshots, so that thousands of small files are not read from the store for every command.
//!
//! One file in the cache folder, sealed like what it holds. A snapshot's name is the hash of its bytes, so what is remembered under a
//! name stays true; which snapshots there are, only the store says. `check` reads the store.

use std::collections::{HashMap, HashSet};
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

/// The bodies of snapshots that were read, by name.
pub type Bodies = HashMap<ObjectName, Vec<u8>>;

/// What a host remembers.
#[derive(Default)]
pub struct Remembered {
    plain: Vec<u8>,
    /// Where in `plain` the bodies are.
    places: HashMap<ObjectName, Range<usize>>,
}

impl Remembered {
    pub fn get(&self, name: &ObjectName) -> Option<&[u8]> {
        self.plain.get(self.places.get(name)?.clone())
    }

    pub fn names(&self) -> impl Iterator<Item = &ObjectName> {
        self.places.keys()
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }
}

/// What is remembered; nothing if there is no folder, or the file is not what was written.
pub fn load(repository: &Repository) -> Remembered {
    file(repository).and_then(|file| read(repository, &file)).unwrap_or_default()
}

/// Remembers what was read, and no more of what was remembered than is still `there`. Where that fails, it is read from the store again.
pub fn store(repository: &Repository, remembered: &Remembered, there: &HashSet<ObjectName>, read: &Bodies) {
    let Some(file) = file(repository) else { return };
    let mut plain = Vec::new();
    let old = remembered.names().filter(|name| there.contains(name)).filter_map(|name| Some((name, remembered.get(name)?)));
    for (name, body) in old.chain(read.iter().map(|(name, body)| (name, &body[..]))) {
        plain.put_bytes(&name.0);
        plain.put_varint(body.len() as u64);
        plain.put_bytes(body);
    }
    if plain.len() as u64 > RECALL_BYTES_MAX {
        return;
    }
    let sealer = repository.sealer(Kind::Snapshot);
    let mut bytes = sealer.header().encode();
    bytes.extend(sealer.seal(&associated_data(sealer.header()), &plain));
    // Renamed into place, so that other processes see one or the other.
    let temporary = file.with_extension(ObjectName::of(&bytes).short());
    if replace(&file, &temporary, &bytes).is_err() {
        let _ = fs::remove_file(&temporary);
    }
}

fn file(repository: &Repository) -> Option<PathBuf> {
    Some(repository.cache.as_ref()?.join(repository.id().hex()).join("snapshots"))
}

fn read(repository: &Repository, file: &Path) -> Option<Remembered> {
    let file = fs::File::open(file).ok()?;
    let len = file.metadata().ok()?.len();
    if len > RECALL_BYTES_MAX + 4096 {
        return None;
    }
    let mut bytes = Vec::with_capacity(len as usize + 1);
    file.take(len).read_to_end(&mut bytes).ok()?;
    let header = Header::decode(&mut Reader::new(bytes.get(..HEADER_BYTES)?)).ok()?;
    if header.repository != repository.id() {
        return None;
    }
    let key = repository.keys().seal_key(Kind::Snapshot, &header.salt);
    let plain = key.open(&associated_data(&header), &bytes[HEADER_BYTES..])?;
    let mut reader = Reader::new(&plain);
    let mut places = HashMap::new();
    while reader.remaining() > 0 {
        let name = ObjectName(reader.array("name").ok()?);
        let len = reader.length(RECORD_BYTES_MAX as usize, "length").ok()?;
        let start = reader.position();
        reader.bytes(len, "body").ok()?;
        places.insert(name, start..start + len);
    }
    Some(Remembered { plain, places })
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
    let mut bytes = b"snap1 snapshots of a host".to_vec();
    bytes.put_bytes(&header.encode());
    bytes
}
