//! Records in the store: what was removed, and which packs are about to be.
//!
//! Whoever removes something reads all records first and stops at one that is damaged or of an unknown kind. Packs and segments are
//! a collector's business.

use super::{Repository, Unreadable};
use crate::backend::{Area, Place};
use crate::error::{Error, Result, StorageErrorKind};
use crate::format::envelope::Kind;
use crate::format::record::Record;
use crate::id::ObjectName;
use crate::limits::*;

/// A record's name, and the record.
pub type StoredRecord = (ObjectName, Record);

/// Where collections are: what a snapshot that names old data depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collections {
    /// Packs are condemned now.
    pub under_way: bool,
    /// The number of the last that ended.
    pub epoch: u64,
}

impl Collections {
    pub fn of(records: &[Record]) -> Self {
        let mut collections = Self::default();
        for record in records {
            match record {
                Record::Condemned { .. } => collections.under_way = true,
                Record::Epoch { epoch, .. } => collections.epoch = collections.epoch.max(*epoch),
                Record::Forget { .. } => {}
            }
        }
        collections
    }
}

impl Repository {
    /// All records. One that cannot be read is an error.
    ///
    /// A listing may miss what comes and goes meanwhile: an epoch record that appears behind its reader, and then the condemned record
    /// that goes in front of it. So it is listed until two listings agree.
    pub fn records(&self) -> Result<Vec<Record>> {
        let mut names = self.record_names()?;
        loop {
            let mut found = Vec::with_capacity(names.len());
            let mut changed = false;
            for &name in &names {
                match self.record(name) {
                    // The end of a collection: seen again below.
                    Err(Error::Storage(error)) if error.kind == StorageErrorKind::NotFound => changed = true,
                    record => found.push(record?),
                }
            }
            let again = self.record_names()?;
            if again == names && !changed {
                return Ok(found);
            }
            names = again;
        }
    }

    /// The records that can be read: enough for who removes nothing.
    pub fn readable_records(&self) -> Result<Vec<Record>> {
        Ok(self.record_names()?.into_iter().filter_map(|name| self.record(name).ok()).collect())
    }

    /// Every record that can be read with its name, and what went wrong with the others.
    pub fn records_by_name(&self) -> Result<(Vec<StoredRecord>, Vec<Unreadable>)> {
        let (mut found, mut unreadable) = (Vec::new(), Vec::new());
        for name in self.record_names()? {
            match self.record(name) {
                Ok(record) => found.push((name, record)),
                // The end of a collection.
                Err(Error::Storage(error)) if error.kind == StorageErrorKind::NotFound => {}
                Err(error) => unreadable.push((name.hex(), error)),
            }
        }
        Ok((found, unreadable))
    }

    fn record_names(&self) -> Result<Vec<ObjectName>> {
        let listed = self.backend.list(Area::Records)?;
        let mut names: Vec<ObjectName> = listed.into_iter().filter_map(|listed| listed.name.parse().ok()).collect();
        names.sort();
        Ok(names)
    }

    fn record(&self, name: ObjectName) -> Result<Record> {
        let place = Place::record(name);
        let body = self.read_object(Kind::Record, &place, RECORD_BYTES_MAX)?;
        Record::decode(&body).map_err(|error| error.of(&place))
    }

    /// Stores a record.
    pub(crate) fn save_record(&self, record: &Record) -> Result<ObjectName> {
        let stored = self.seal_object(Kind::Record, &record.encode())?;
        let name = ObjectName::of(&stored);
        self.backend.put(&Place::record(name), &stored)?;
        Ok(name)
    }
}
