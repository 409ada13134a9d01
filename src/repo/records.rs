//! The records of a repository: which packs are condemned, which snapshots were forgotten, which collection was the last.
//!
//! Writers pass over a damaged record, for one rotten file must not end all backups; whoever deletes stops at it. Both stop at one of a
//! kind they do not know.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::locate::is_not_found;
use super::{Repository, Unreadable};
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

/// After so many looks in vain, a record that is listed all the same is a damaged one.
const PHANTOM_LOOKS: usize = 5;

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
    /// Reads every record.
    pub fn read(repository: &Repository, rigour: Rigour) -> Result<Self> {
        let mut records = Self::default();
        for (name, loaded) in repository.settled_records()? {
            match loaded {
                Err(Error::Damaged { .. }) if rigour == Rigour::Lenient => {}
                loaded => records.add(name, loaded?),
            }
        }
        Ok(records)
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

/// Where collections are: what a snapshot that names old data depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collections {
    /// Packs may be deleted at any moment: they are condemned for good, and there. Those that are only announced are not in the way, for
    /// a collector lists the snapshots once more after it has said that it is final.
    pub under_way: bool,
    /// The condemned records there are, final or not.
    condemned: BTreeSet<ObjectName>,
    /// The number of the last that ended.
    epoch: u64,
}

impl Repository {
    /// The packs condemned by any collection: nobody may newly rely on them. A damaged record is passed over: collectors stop at one, so
    /// what it condemned is not deleted.
    pub fn condemned_packs(&self) -> Result<HashSet<ObjectName>> {
        Ok(Records::read(self, Rigour::Lenient)?.condemned())
    }

    /// Where collections are now.
    pub fn collections(&self) -> Result<Collections> {
        let records = Records::read(self, Rigour::Strict)?;
        let doomed = records.doomed();
        let is_there = |(name, _): &(ObjectName, u64)| doomed.contains(name);
        Ok(Collections {
            under_way: !doomed.is_empty() && self.locator()?.list(Area::Packs)?.iter().any(is_there),
            condemned: records.condemned.iter().map(|(name, _)| *name).collect(),
            epoch: records.epochs.iter().map(|(_, epoch)| epoch.epoch).max().unwrap_or(0),
        })
    }

    /// All records with their names. One that cannot be read is an error.
    pub fn records(&self) -> Result<Vec<Named<Record>>> {
        self.settled_records()?.into_iter().map(|(name, loaded)| Ok((name, loaded?))).collect()
    }

    /// Every record that can be read with its name, and what went wrong with the others.
    pub fn records_by_name(&self) -> Result<(Vec<Named<Record>>, Vec<Unreadable>)> {
        let (mut found, mut unreadable) = (Vec::new(), Vec::new());
        for (name, loaded) in self.settled_records()? {
            match loaded {
                Ok(record) => found.push((name, record)),
                Err(error) => unreadable.push((name.hex(), error)),
            }
        }
        Ok((found, unreadable))
    }

    /// The records of one moment, and what went wrong with some. What was read well is not read again by the same process, since a record
    /// never changes.
    ///
    /// A listing may miss what comes and goes meanwhile: an epoch record that appears behind its reader, and then the one before that goes
    /// in front of it. So it is listed until two listings agree, and nothing vanished between them. What stays listed without being there
    /// does not keep anybody for ever.
    fn settled_records(&self) -> Result<Vec<Named<Result<Record>>>> {
        let mut names = self.record_names()?;
        let mut vanished: HashMap<ObjectName, usize> = HashMap::new();
        loop {
            let mut found = Vec::with_capacity(names.len());
            let mut changed = false;
            for &name in &names {
                match self.record(name) {
                    Err(error) if is_not_found(&error) => {
                        let times = vanished.entry(name).or_default();
                        *times += 1;
                        match *times < PHANTOM_LOOKS {
                            true => changed = true,
                            false => found.push((name, Err(Error::damaged(Place::record(name), "it is listed, but it is not there")))),
                        }
                    }
                    loaded => found.push((name, loaded)),
                }
            }
            let again = self.record_names()?;
            if again == names && !changed {
                self.recalled.lock().expect("no panic holds it").retain(|name, _| names.binary_search(name).is_ok());
                return Ok(found);
            }
            names = again;
        }
    }

    /// One record.
    pub(crate) fn record(&self, name: ObjectName) -> Result<Record> {
        if let Some(record) = self.recalled.lock().expect("no panic holds it").get(&name) {
            return Ok(record.clone());
        }
        let record = load(self, name)?;
        self.recalled.lock().expect("no panic holds it").insert(name, record.clone());
        Ok(record)
    }

    /// The names of all records, sorted.
    pub(crate) fn record_names(&self) -> Result<Vec<ObjectName>> {
        let mut names: Vec<ObjectName> = self.backend.list_names(Area::Records)?.iter().filter_map(|name| name.parse().ok()).collect();
        names.sort();
        Ok(names)
    }

    /// Stores a record.
    pub(crate) fn save_record(&self, record: &Record) -> Result<ObjectName> {
        let stored = self.seal_object(Kind::Record, &record.encode())?;
        let name = ObjectName::of(&stored);
        self.backend.put(&Place::record(name), &stored)?;
        Ok(name)
    }
}

fn load(repository: &Repository, name: ObjectName) -> Result<Record> {
    let place = Place::record(name);
    let body = repository.read_object(Kind::Record, &place, RECORD_BYTES_MAX)?;
    Record::decode(&body).map_err(|error: FormatError| error.of(place))
}

/// Stores a record and reads it back from the store.
pub fn publish(repository: &Repository, record: &Record) -> Result<ObjectName> {
    let name = repository.save_record(record)?;
    match reread(repository, name)? == *record {
        true => Ok(name),
        false => Err(Error::ReadBack(Place::record(name).to_string())),
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
