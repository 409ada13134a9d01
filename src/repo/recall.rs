//! What this host remembers of snapshots and of reports, so that thousands of small files are not read from the store for every command.
//!
//! One file each in the cache folder, sealed like what it holds. An object's name is the hash of its bytes, so what is remembered under a
//! name stays true; which snapshots there are, only the store says. `check` reads the store.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::PathBuf;

use jiff::Timestamp;
use rayon::prelude::*;

use super::{Repository, notes};
use crate::backend::{Area, Place};
use crate::error::{Error, Result, StorageErrorKind};
use crate::format;
use crate::format::codec::{Reader, Write};
use crate::format::envelope::Kind;
use crate::id::ObjectName;
use crate::limits::*;

/// What there are thousands of, each in a small object of its own.
pub trait Memorable: Sized + Send {
    const KIND: Kind;
    const AREA: Area;

    /// From an object's body; nothing if it is one that this version passes over.
    fn parse(body: &[u8]) -> format::Result<Option<Self>>;

    /// What they are in the order of.
    fn time(&self) -> Timestamp;
}

/// The name of an object that cannot be read, and why.
pub type Unreadable = (String, Error);

/// All that can be read of one kind, oldest first, and what went wrong with the others.
pub type Gathered<T> = (Vec<(ObjectName, T)>, Vec<Unreadable>);

/// The same with their bodies, in the place of names.
pub type WithBodies<T> = (Vec<(T, Vec<u8>)>, Vec<Unreadable>);

/// All of a kind, read from the store.
pub fn all<T: Memorable>(repository: &Repository) -> Result<Gathered<T>> {
    Ok(gather(repository, &Remembered::default())?.known())
}

/// The same, but what this host remembers is not read again: for finding things, not for judging them.
pub fn at_hand<T: Memorable>(repository: &Repository) -> Result<Gathered<T>> {
    let remembered = load(repository, T::KIND);
    let heap: Heap<T> = gather(repository, &remembered)?;
    let there: HashSet<&ObjectName> = heap.found.iter().map(|(name, _)| name).collect();
    let gone = remembered.newest_first().filter(|(name, _)| !there.contains(name)).count();
    if heap.read.len() + gone > worth_writing(&remembered) {
        let body = |name| heap.read.get(name).map(Vec::as_slice).or_else(|| remembered.get(name));
        store(repository, T::KIND, heap.found.iter().filter_map(|(name, _)| Some((*name, body(name)?))));
    }
    Ok(heap.known())
}

/// All of a kind with their bodies, read from the store.
pub fn bodies<T: Memorable>(repository: &Repository) -> Result<WithBodies<T>> {
    let Heap { found, unreadable, mut read } = gather(repository, &Remembered::default())?;
    let found = found.into_iter().filter_map(|(name, what)| Some((what?, read.remove(&name)?)));
    Ok((found.collect(), unreadable))
}

/// With so many changes what is remembered is written anew; that takes longer than reading a few small objects.
pub fn worth_writing(remembered: &Remembered) -> usize {
    READ_AGAIN + remembered.len() / 32
}

struct Heap<T> {
    /// Oldest first; without what is passed over.
    found: Vec<(ObjectName, Option<T>)>,
    unreadable: Vec<Unreadable>,
    /// The bodies that had to be read.
    read: HashMap<ObjectName, Vec<u8>>,
}

impl<T> Heap<T> {
    fn known(self) -> Gathered<T> {
        let known = self.found.into_iter().filter_map(|(name, what)| Some((name, what?)));
        (known.collect(), self.unreadable)
    }
}

fn gather<T: Memorable>(repository: &Repository, remembered: &Remembered) -> Result<Heap<T>> {
    let names = repository.backend.list_names(T::AREA)?;
    let load = |name: String| {
        let place = Place { area: T::AREA, name };
        let loaded = place.hash().ok_or_else(|| Error::damaged(&place, "its name is not a hash")).and_then(|hash| {
            // What is remembered and cannot be understood is no reason to doubt the store.
            if let Some(Ok(what)) = remembered.get(&hash).map(T::parse) {
                return Ok((hash, what, None));
            }
            let body = repository.read_object(T::KIND, &place, RECORD_BYTES_MAX)?;
            let what = T::parse(&body).map_err(|error| error.of(&place))?;
            Ok((hash, what, Some(body)))
        });
        (place.name, loaded)
    };
    // A few are read one after the other, so that what a faulty store does to a run can be repeated.
    let loaded: Vec<_> = match names.len() > READ_AGAIN {
        true => names.into_par_iter().map(load).collect(),
        false => names.into_iter().map(load).collect(),
    };
    let mut heap = Heap { found: Vec::with_capacity(loaded.len()), unreadable: Vec::new(), read: HashMap::new() };
    for (name, loaded) in loaded {
        match loaded {
            Ok((hash, what, body)) => {
                heap.read.extend(body.map(|body| (hash, body)));
                heap.found.push((hash, what));
            }
            // Removed between listing and reading.
            Err(Error::Storage(error)) if error.kind == StorageErrorKind::NotFound => {}
            Err(error) => heap.unreadable.push((name, error)),
        }
    }
    heap.found.sort_by_cached_key(|(name, what)| (what.as_ref().map(T::time), *name));
    heap.unreadable.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(heap)
}

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
    read(repository, kind).unwrap_or_default()
}

/// Remembers these and no others, the oldest first. Where that fails, they are read from the store again.
fn store<'a>(repository: &Repository, kind: Kind, bodies: impl Iterator<Item = (ObjectName, &'a [u8])>) {
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
    let _ = notes::write(&file, &repository.sealer(kind), purpose(kind), &plain);
}

fn file(repository: &Repository, kind: Kind) -> Option<PathBuf> {
    let name = if kind == Kind::Report { "reports" } else { "snapshots" };
    Some(notes::folder(repository)?.join(name))
}

fn purpose(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::Report => b"snap1 reports of a host",
        _ => b"snap1 snapshots of a host",
    }
}

fn read(repository: &Repository, kind: Kind) -> Option<Remembered> {
    let place = (repository.id(), kind);
    let plain = notes::read(&file(repository, kind)?, repository.keys(), place, purpose(kind), RECALL_BYTES_MAX)?;
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backend::Memory;
    use crate::crypto::Secret;
    use crate::format::report::{Did, Report, Run};
    use crate::repo::Opening;
    use crate::world::World;

    #[test]
    fn what_is_remembered_and_cannot_be_understood_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Some(folder.path().to_path_buf());
        let opening = Opening { secret: Secret::KeyFile(vec![7; 32]), cache, world: World::system() };
        let repository = Repository::create(Arc::new(Memory::default()), opening, "test").unwrap();
        let report = Report::new(repository.world().now(), "h".into(), "u".into(), Did::Run(Run::default()));
        let name = repository.save_report(&report).unwrap();
        let body = report.encode();
        for (remembered, seconds) in [(&body[..], 0.0), (b"{\"time\":1", 0.0), (&Report { seconds: 2.0, ..report.clone() }.encode(), 2.0)] {
            store(&repository, Kind::Report, [(name, remembered)].into_iter());
            let (found, unreadable) = at_hand::<Report>(&repository).unwrap();
            assert_eq!((found.len(), unreadable.len(), found[0].1.seconds), (1, 0, seconds), "what can be understood is believed");
        }
    }
}
