//! Snapshots in the store: listing, saving, and finding the one that is meant.

use super::Repository;
use crate::backend::{Area, Place};
use crate::error::{Error, Result, StorageErrorKind};
use crate::format::envelope::Kind;
use crate::format::snapshot::{Snapshot, Substitute, with_tags};
use crate::id::{ObjectName, SnapshotId};
use crate::limits::*;

/// A snapshot and its id.
#[derive(Clone, Debug)]
pub struct Stored {
    pub id: SnapshotId,
    pub snapshot: Snapshot,
}

/// The name of a snapshot that cannot be read, and why.
pub type Unreadable = (String, Error);

/// Which snapshots are looked at; an empty list lets all pass.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub hosts: Vec<String>,
    pub names: Vec<String>,
    /// A snapshot passes if it has all tags of any of these lists.
    pub tags: Vec<Vec<String>>,
    /// `latest` may mean a snapshot of an incomplete dump.
    pub include_incomplete: bool,
}

impl Filter {
    pub fn accepts(&self, snapshot: &Snapshot) -> bool {
        let tagged = |tags: &Vec<String>| tags.iter().all(|tag| snapshot.tags.contains(tag));
        (self.hosts.is_empty() || self.hosts.contains(&snapshot.host))
            && (self.names.is_empty() || self.names.contains(&snapshot.name))
            && (self.tags.is_empty() || self.tags.iter().any(tagged))
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
    /// Every snapshot that can be read, oldest first, and what went wrong with the others.
    pub fn snapshots(&self) -> Result<(Vec<Stored>, Vec<Unreadable>)> {
        let mut found = Vec::new();
        let mut unreadable = Vec::new();
        for listed in self.backend.list(Area::Snapshots)? {
            match self.load_by_name(&listed.name) {
                Ok(stored) => found.push(stored),
                // Removed between listing and reading.
                Err(Error::Storage(error)) if error.kind == StorageErrorKind::NotFound => {}
                Err(error) => unreadable.push((listed.name, error)),
            }
        }
        found.sort_by_key(|stored| (stored.snapshot.time, stored.id));
        unreadable.sort_by(|a, b| a.0.cmp(&b.0));
        Ok((found, unreadable))
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
    pub(crate) fn save_snapshot(&self, body: &[u8]) -> Result<SnapshotId> {
        let stored = self.seal_object(Kind::Snapshot, body)?;
        let id = ObjectName::of(&stored);
        self.backend.put(&Place::snapshot(id), &stored)?;
        Ok(id)
    }

    /// Takes back a snapshot of our own.
    pub(crate) fn withdraw_snapshot(&self, id: SnapshotId) -> Result<()> {
        Ok(self.backend.delete(&Place::snapshot(id))?)
    }

    /// Stores a snapshot once more, with other tags and so under another id, and reads it back.
    pub(crate) fn save_with_tags(&self, id: SnapshotId, tags: &[String]) -> Result<SnapshotId> {
        let place = Place::snapshot(id);
        let body = self.read_object(Kind::Snapshot, &place, RECORD_BYTES_MAX)?;
        let stored = self.seal_object(Kind::Snapshot, &with_tags(&body, tags, id).map_err(|error| error.of(&place))?)?;
        let new = ObjectName::of(&stored);
        self.backend.put(&Place::snapshot(new), &stored)?;
        match self.snapshot(new) {
            Ok(stored) => Ok(stored.id),
            Err(error) => {
                self.withdraw_snapshot(new)?;
                Err(error)
            }
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
        let (found, unreadable) = self.snapshots()?;
        let mut fitting: Vec<Stored> = found.into_iter().filter(|stored| filter.accepts(&stored.snapshot)).collect();
        let all = fitting.len();
        fitting.retain(|stored| filter.include_incomplete || stored.snapshot.is_good());
        let count = fitting.len();
        if back < count {
            return Ok(fitting.swap_remove(count - 1 - back));
        }
        let passed_over = match all - count {
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
        let listed = self.backend.list(Area::Snapshots)?;
        let fitting: Vec<&str> = listed.iter().map(|listed| listed.name.as_str()).filter(|name| name.starts_with(prefix)).collect();
        match fitting[..] {
            [name] => self.load_by_name(name),
            [] => Err(Error::NotFound(format!("No snapshot has an id that begins with {prefix}"))),
            _ => Err(Error::NotFound(format!("{} snapshots have an id that begins with {prefix}; write more digits", fitting.len()))),
        }
    }
}
