//! Snapshots in the store: listing, saving, and finding the one that is meant.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::Repository;
use super::recall::{self, Memorable, Unreadable};
use crate::backend::{Area, Place};
use crate::error::{Error, Result, StorageErrorKind};
use crate::format::envelope::Kind;
use crate::format::record::Record;
use crate::format::snapshot::{Snapshot, SourceKind, Substitute, with_tags};
use crate::id::{ObjectName, SnapshotId};
use crate::limits::*;

/// A snapshot and its id.
#[derive(Clone, Debug)]
pub struct Stored {
    pub id: SnapshotId,
    pub snapshot: Snapshot,
}

impl Stored {
    /// Its id, and that of what it took the place of or is a copy of: reports may tell of it by either.
    pub fn names(&self) -> impl Iterator<Item = SnapshotId> + use<> {
        [Some(self.id), self.snapshot.original].into_iter().flatten()
    }
}

impl Memorable for Snapshot {
    const KIND: Kind = Kind::Snapshot;
    const AREA: Area = Area::Snapshots;

    fn parse(body: &[u8]) -> crate::format::Result<Option<Self>> {
        Snapshot::decode(body).map(Some)
    }

    fn time(&self) -> Timestamp {
        self.time
    }
}

/// Which snapshots are looked at; an empty list lets all pass.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub hosts: Vec<String>,
    pub names: Vec<String>,
    /// A snapshot passes if it has all tags of any of these lists.
    pub tags: Vec<Vec<String>>,
    /// Only those of such sources.
    pub kind: Option<SourceKind>,
    /// `latest` may mean a snapshot of an incomplete dump.
    pub include_incomplete: bool,
}

impl Filter {
    pub fn accepts(&self, snapshot: &Snapshot) -> bool {
        let tagged = |tags: &Vec<String>| tags.iter().all(|tag| snapshot.tags.contains(tag));
        (self.hosts.is_empty() || self.hosts.contains(&snapshot.host))
            && (self.names.is_empty() || self.names.contains(&snapshot.name))
            && (self.tags.is_empty() || self.tags.iter().any(tagged))
            && self.kind.is_none_or(|kind| kind == snapshot.source)
    }
}

/// A snapshot and a path in it.
#[derive(Clone, Debug)]
pub struct Selection {
    pub stored: Stored,
    /// Relative, without a slash at its end; empty for everything.
    pub path: Vec<u8>,
}

impl Repository {
    /// Every snapshot that can be read, oldest first, and what went wrong with the others. All are read from the store.
    pub fn snapshots(&self) -> Result<(Vec<Stored>, Vec<Unreadable>)> {
        recall::all(self).map(stored)
    }

    /// The same, but what this host remembers is not read again: for finding snapshots, not for judging them.
    pub fn snapshots_at_hand(&self) -> Result<(Vec<Stored>, Vec<Unreadable>)> {
        recall::at_hand(self).map(stored)
    }

    /// The newest snapshot that fits, or the one `back` before it, if there are so many. No more are looked at than need be.
    pub fn newest(&self, mut back: usize, fits: impl Fn(&Stored) -> bool) -> Result<Option<Stored>> {
        let remembered = recall::load(self, Kind::Snapshot);
        let names = self.backend.list_names(Area::Snapshots)?;
        let there: BTreeSet<ObjectName> = names.iter().filter_map(|name| name.parse().ok()).collect();
        let others: Vec<SnapshotId> = there.iter().filter(|id| remembered.get(id).is_none()).copied().collect();
        if others.len() > recall::worth_writing(&remembered) {
            let mut newest_first = self.snapshots_at_hand()?.0.into_iter().rev();
            return Ok(newest_first.by_ref().filter(fits).nth(back));
        }
        let mut others: Vec<Stored> = others.into_iter().filter_map(|id| self.snapshot(id).ok()).collect();
        others.sort_by_key(age);
        let known = remembered.newest_first().filter(|(id, _)| there.contains(id));
        let mut known = known.filter_map(|(id, body)| Some(Stored { id, snapshot: Snapshot::decode(body).ok()? })).peekable();
        loop {
            let from_others = match (others.last(), known.peek()) {
                (Some(other), Some(known)) => age(other) > age(known),
                (other, _) => other.is_some(),
            };
            match if from_others { others.pop() } else { known.next() } {
                Some(stored) if !fits(&stored) => {}
                Some(stored) if back == 0 => return Ok(Some(stored)),
                Some(_) => back -= 1,
                None => return Ok(None),
            }
        }
    }

    fn load_by_name(&self, name: &str) -> Result<Stored> {
        let id: ObjectName = name.parse().map_err(|_| Error::damaged(format!("snapshot {name}"), "its name is not a hash"))?;
        self.snapshot(id)
    }

    /// One snapshot.
    pub fn snapshot(&self, id: SnapshotId) -> Result<Stored> {
        let place = Place::snapshot(id);
        let body = self.read_object(Kind::Snapshot, &place, RECORD_BYTES_MAX)?;
        let snapshot = Snapshot::decode(&body).map_err(|error| error.of(&place))?;
        Ok(Stored { id, snapshot })
    }

    /// A snapshot's own body with some of it replaced, for a copy. What this version does not know stays.
    pub(crate) fn snapshot_with(&self, id: SnapshotId, substitute: &Substitute) -> Result<Vec<u8>> {
        let place = Place::snapshot(id);
        let body = self.read_object(Kind::Snapshot, &place, RECORD_BYTES_MAX)?;
        substitute.into_body(&body).map_err(|error| error.of(&place))
    }

    /// Stores a snapshot with this body; everything it refers to must be durable.
    pub(crate) fn save_snapshot(&self, body: &[u8], host: &str) -> Result<SnapshotId> {
        let stored = self.seal_object(Kind::Snapshot, body)?;
        let id = ObjectName::of(&stored);
        match self.backend.put(&Place::snapshot(id), &stored) {
            Ok(()) => Ok(id),
            Err(error) => Err(self.doubtful(id, host, error.into())),
        }
    }

    /// A snapshot that was to be stored, and an error: it may be there all the same, and nobody looked at it again. Then it is taken back.
    fn doubtful(&self, id: SnapshotId, host: &str, error: Error) -> Error {
        self.backend.forget_cached(&Place::snapshot(id));
        match self.backend.list_names(Area::Snapshots) {
            Ok(names) if !names.contains(&id.hex()) => error,
            _ => self.withdrawn(id, host, error),
        }
    }

    /// Takes back a snapshot of our own because of an error, and returns that; if this fails too, somebody must know.
    pub(crate) fn withdrawn(&self, id: SnapshotId, host: &str, error: Error) -> Error {
        match self.withdraw_snapshot(id, host) {
            Ok(()) => error,
            Err(trouble) => {
                let hint = format!("remove it with: snap forget --allow-remove-last {}", id.short());
                Error::Conflict(format!(
                    "{error}; snapshot {} must not be relied on and could not be taken back ({trouble}), {hint}",
                    id.short()
                ))
            }
        }
    }

    /// Takes back a snapshot of our own. Somebody may have seen it: so a record says first that it went on purpose.
    pub(crate) fn withdraw_snapshot(&self, id: SnapshotId, host: &str) -> Result<()> {
        let (time, reason) = (self.world().now(), "withdrawn".into());
        let record = self.save_record(&Record::Forget { time, host: host.into(), snapshots: vec![id], reason });
        // Without room for a record, too: a snapshot that lacks something is worse than one that is missed.
        self.remove_snapshot(id)?;
        record.map(drop)
    }

    /// Stores a snapshot once more, with other tags and so under another id, and reads it back.
    pub(crate) fn save_with_tags(&self, id: SnapshotId, tags: &[String], host: &str) -> Result<SnapshotId> {
        let place = Place::snapshot(id);
        let body = self.read_object(Kind::Snapshot, &place, RECORD_BYTES_MAX)?;
        let stored = self.seal_object(Kind::Snapshot, &with_tags(&body, tags, id).map_err(|error| error.of(&place))?)?;
        let new = ObjectName::of(&stored);
        match self.backend.put(&Place::snapshot(new), &stored) {
            Ok(()) => self.snapshot(new).map(|stored| stored.id).map_err(|error| self.withdrawn(new, host, error)),
            Err(error) => Err(self.doubtful(new, host, error.into())),
        }
    }

    /// Removes a snapshot on purpose; a record must name it already. One that is gone is no trouble.
    pub(crate) fn remove_snapshot(&self, id: SnapshotId) -> Result<()> {
        match self.backend.delete(&Place::snapshot(id)) {
            Err(error) if error.kind == StorageErrorKind::NotFound => Ok(()),
            result => Ok(result?),
        }
    }

    /// The snapshot that `latest`, `latest~2`, an id's beginning, or one of these with `:/a/path` behind it means.
    ///
    /// `latest` passes over dumps that are known to be incomplete, unless the filter includes them.
    pub fn select(&self, text: &str, filter: &Filter) -> Result<Selection> {
        let (which, path) = text.split_once(':').unwrap_or((text, ""));
        let path = path.trim_matches('/').as_bytes().to_vec();
        let stored = match which.strip_prefix("latest") {
            Some(back) => self.latest(back, filter)?,
            None => self.by_prefix(which)?,
        };
        Ok(Selection { stored, path })
    }

    fn latest(&self, back: &str, filter: &Filter) -> Result<Stored> {
        let wrong = || Error::Usage(format!("latest{back} means no snapshot; write latest, or latest~2 for the one two before it"));
        let back: usize = match back.strip_prefix('~') {
            None if back.is_empty() => 0,
            Some(number) => number.parse().map_err(|_| wrong())?,
            None => return Err(wrong()),
        };
        let fits = |stored: &Stored| filter.accepts(&stored.snapshot);
        let is_passed_over = |stored: &Stored| !filter.include_incomplete && !stored.snapshot.is_good();
        if let Some(stored) = self.newest(back, |stored| fits(stored) && !is_passed_over(stored))? {
            return Ok(stored);
        }
        let (found, unreadable) = self.snapshots_at_hand()?;
        let (passed_over, fitting): (Vec<_>, Vec<_>) =
            found.iter().filter(|stored| fits(stored)).partition(|stored| is_passed_over(stored));
        let count = fitting.len();
        let passed_over = match passed_over.len() {
            0 => String::new(),
            1 => "; one with an incomplete dump is passed over, take it by its id or with --include-incomplete".into(),
            more => format!("; {more} with incomplete dumps are passed over, take one by its id or with --include-incomplete"),
        };
        let damaged =
            if unreadable.is_empty() { String::new() } else { format!("; {} more cannot be read, run snap check", unreadable.len()) };
        Err(Error::NotFound(match count {
            0 => format!("No snapshot matches{passed_over}{damaged}"),
            1 => format!("Only one snapshot matches{passed_over}{damaged}"),
            _ => format!("Only {count} snapshots match{passed_over}{damaged}"),
        }))
    }

    fn by_prefix(&self, prefix: &str) -> Result<Stored> {
        let hex = !prefix.is_empty() && prefix.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        if !hex {
            return Err(Error::Usage(format!("{prefix} is not a snapshot; write latest, or the first digits of an id")));
        }
        let listed = self.backend.list_names(Area::Snapshots)?;
        let fitting: Vec<&str> = listed.iter().map(String::as_str).filter(|name| name.starts_with(prefix)).collect();
        match fitting[..] {
            [name] => self.load_by_name(name),
            [] => Err(Error::NotFound(format!("No snapshot has an id that begins with {prefix}"))),
            _ => Err(Error::NotFound(format!("{} snapshots have an id that begins with {prefix}; write more digits", fitting.len()))),
        }
    }
}

/// What snapshots are in the order of.
fn age(stored: &Stored) -> (Timestamp, SnapshotId) {
    (stored.snapshot.time, stored.id)
}

fn stored((found, unreadable): recall::Gathered<Snapshot>) -> (Vec<Stored>, Vec<Unreadable>) {
    (found.into_iter().map(|(id, snapshot)| Stored { id, snapshot }).collect(), unreadable)
}
