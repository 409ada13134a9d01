//! Removing snapshots, because others stay.
//!
//! A snapshot goes because rules keep another one, because the same one stands there with other tags, or because what is left of it does.
//! If somebody else takes that away at the same time, for the sake of what goes here, both are gone. So a removal writes its record
//! first, and then looks whether all that was to stay is listed, and named by no record that came since it was decided. Of two that
//! remove what the other counts on, whoever looks last sees the other's record and stops, with nothing gone on this side; both may.
//! What a record named before that may be going this very moment, or may have been brought back long ago. Nobody can tell, so nothing goes
//! because of it.

use std::collections::{BTreeSet, HashSet};

use crate::backend::Area;
use crate::error::{Error, Result};
use crate::format::record::Record;
use crate::id::{ObjectName, SnapshotId};
use crate::limits::*;
use crate::ops::go_on;
use crate::progress::Progress;
use crate::repo::{Repository, is_not_found};

/// The records there were when it was decided what stays. What they name was not counted on.
pub struct Seen(HashSet<ObjectName>);

impl Seen {
    /// To be taken before snapshots are listed.
    pub fn now(repository: &Repository) -> Result<Self> {
        Ok(Self(repository.record_names()?.into_iter().collect()))
    }
}

/// Why snapshots go, and for what.
pub struct Removal<'a> {
    pub reason: &'a str,
    pub host: &'a str,
    /// If any of these is going too, nothing goes.
    pub stays: &'a [SnapshotId],
    pub seen: &'a Seen,
}

impl Removal<'_> {
    /// Removes snapshots, each after a record that names it.
    pub fn carry_out(&self, repository: &Repository, ids: &[SnapshotId], progress: &dyn Progress) -> Result<()> {
        for batch in ids.chunks(FORGET_BATCH) {
            go_on(progress)?;
            self.announce(repository, batch)?;
            for id in batch {
                go_on(progress)?;
                repository.remove_snapshot(*id)?;
            }
        }
        Ok(())
    }

    /// Says that these are going. After this they can.
    pub fn announce(&self, repository: &Repository, ids: &[SnapshotId]) -> Result<()> {
        let (time, host, reason) = (repository.world().now(), self.host.into(), self.reason.into());
        repository.save_record(&Record::Forget { time, host, snapshots: ids.to_vec(), reason })?;
        match self.going(repository)? {
            None => Ok(()),
            Some(id) => {
                let id = id.short();
                Err(Error::Conflict(format!("Snapshot {id}, which was to stay, is being removed by somebody else; run the command again")))
            }
        }
    }

    /// One of those that were to stay and is going, or gone.
    fn going(&self, repository: &Repository) -> Result<Option<SnapshotId>> {
        if self.stays.is_empty() {
            return Ok(None);
        }
        let listed: HashSet<String> = repository.backend().list_names(Area::Snapshots)?.into_iter().collect();
        let mut forgotten = BTreeSet::new();
        for name in repository.record_names()?.into_iter().filter(|name| !self.seen.0.contains(name)) {
            match repository.record(name) {
                Ok(Record::Forget { snapshots, .. }) => forgotten.extend(snapshots),
                Ok(_) => {}
                // A collection's, which has ended.
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.stays.iter().find(|id| !listed.contains(&id.hex()) || forgotten.contains(*id)).copied())
    }
}
