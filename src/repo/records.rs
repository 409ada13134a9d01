//! The records of a repository: which packs are condemned, which snapshots were forgotten, which collection was the last.
//!
//! Writers pass over a damaged record, for one rotten file must not end all backups; whoever deletes stops at it. Both stop at one of a
//! kind they do not know.

use std::collections::HashSet;

use super::Repository;
use crate::backend::{Area, Place};
use crate::error::{Error, Result, StorageErrorKind};
use crate::format::FormatError;
use crate::format::envelope::Kind;
use crate::format::record::{Condemned, Epoch, Record};
use crate::id::{ObjectName, SnapshotId};
use crate::limits::*;

/// What a damaged record means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rigour {
    /// It is passed over.
    Lenient,
    /// It is an error.
    Strict,
}

/// A record's name and what it says.
pub type Named<T> = (ObjectName, T);

/// All records of one moment.
#[derive(Clone, Debug, Default)]
pub struct Records {
    pub condemned: Vec<Named<Condemned>>,
    pub epochs: Vec<Named<Epoch>>,
    pub forgotten: HashSet<SnapshotId>,
}

impl Records {
    /// Reads every record. One that vanishes between listing and reading means that a collection is just ending: all is read again.
    pub fn read(repository: &Repository, rigour: Rigour) -> Result<Self> {
        'again: loop {
            let mut records = Self::default();
            for listed in repository.backend.list(Area::Records)? {
                let Ok(name) = listed.name.parse::<ObjectName>() else { continue };
                match load(repository, name) {
                    Ok(record) => records.add(name, record),
                    Err(Error::Storage(error)) if error.kind == StorageErrorKind::NotFound => continue 'again,
                    Err(Error::Damaged { .. }) if rigour == Rigour::Lenient => {}
                    Err(error) => return Err(error),
                }
            }
            return Ok(records);
        }
    }

    fn add(&mut self, name: ObjectName, record: Record) {
        match record {
            Record::Condemned(condemned) => self.condemned.push((name, condemned)),
            Record::Epoch(epoch) => self.epochs.push((name, epoch)),
            Record::Forget { snapshots, .. } => self.forgotten.extend(snapshots),
        }
    }

    /// The packs that nobody may newly rely on.
    pub fn condemned(&self) -> HashSet<ObjectName> {
        self.condemned.iter().flat_map(|(_, condemned)| &condemned.packs).copied().collect()
    }

    /// The packs that may be deleted at any moment.
    pub fn doomed(&self) -> HashSet<ObjectName> {
        self.condemned.iter().filter(|(_, condemned)| condemned.is_final).flat_map(|(_, condemned)| &condemned.packs).copied().collect()
    }

    /// The highest number of any collection, ended or not.
    pub fn last_epoch(&self) -> u64 {
        let condemned = self.condemned.iter().map(|(_, condemned)| condemned.epoch);
        condemned.chain(self.epochs.iter().map(|(_, epoch)| epoch.epoch)).max().unwrap_or(0)
    }
}

impl Repository {
    /// The packs condemned by any collection: nobody may newly rely on them. A damaged record is passed over: collectors stop at one, so
    /// what it condemned is not deleted.
    pub fn condemned_packs(&self) -> Result<HashSet<ObjectName>> {
        Ok(Records::read(self, Rigour::Lenient)?.condemned())
    }
}

fn load(repository: &Repository, name: ObjectName) -> Result<Record> {
    let place = Place::record(name);
    let body = repository.read_object(Kind::Record, &place, RECORD_BYTES_MAX)?;
    Record::decode(&body).map_err(|error: FormatError| error.of(place))
}

/// Stores a record and reads it back from the store.
pub fn publish(repository: &Repository, record: &Record) -> Result<ObjectName> {
    let stored = repository.seal_object(Kind::Record, &record.encode())?;
    let name = ObjectName::of(&stored);
    let place = Place::record(name);
    repository.backend.put(&place, &stored)?;
    repository.backend.forget_cached(&place);
    match load(repository, name)? == *record {
        true => Ok(name),
        false => Err(Error::ReadBack(place.to_string())),
    }
}

/// Reads one record again, from the medium.
pub fn reread(repository: &Repository, name: ObjectName) -> Result<Record> {
    repository.backend.forget_cached(&Place::record(name));
    load(repository, name)
}

/// Removes a record; one that is gone already will do.
pub fn remove(repository: &Repository, name: ObjectName) -> Result<()> {
    match repository.backend.delete(&Place::record(name)) {
        Err(error) if error.kind != StorageErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
