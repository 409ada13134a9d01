//! Tag: gives snapshots other tags. Since what is stored never changes, each is written anew under another id, durable and read back
//! before the old one goes with a record of its own. Catalogs and data are not touched; time, host and everything else stay.
//!
//! The new snapshot depends on old packs as one of a backup does. It names just what the old one names, and while a collector sees
//! that, nothing of it goes. But somebody else may forget the old one before the new one is visible, and a collector that looks in
//! between sees neither. So this keeps to the writer's part of the deletion protocol, in the short form: while packs are condemned for
//! good nothing is written, and if any pack was condemned meanwhile, or a collection ended, what was written is withdrawn before the old
//! snapshots are touched. Rules may meanwhile keep the old one and remove the new: then the old one stays (`forget::removal`). Packs that were only announced before are not in the way, or tags could hardly ever be changed: before they
//! are deleted there must be another record, which is noticed, and the collector looks for snapshots again after that one.

use crate::error::{Error, Result};
use crate::id::SnapshotId;
use crate::ops::forget::{Removal, Seen};
use crate::progress::{Progress, Stage};
use crate::repo::records::{Records, Rigour};
use crate::repo::{Repository, Stored};

/// How tags change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagChange {
    /// These and no others.
    Set(Vec<String>),
    /// First added, then removed.
    Edit { add: Vec<String>, remove: Vec<String> },
}

impl TagChange {
    /// The tags afterwards, each once.
    fn apply(&self, tags: &[String]) -> Vec<String> {
        let (kept, added, removed) = match self {
            Self::Set(tags) => (&[][..], tags, &Vec::new()),
            Self::Edit { add, remove } => (tags, add, remove),
        };
        let mut after: Vec<String> = Vec::new();
        for tag in kept.iter().chain(added) {
            if !after.contains(tag) && !removed.contains(tag) {
                after.push(tag.clone());
            }
        }
        after
    }
}

/// A snapshot that has other tags now, and so another id.
#[derive(Clone, Debug)]
pub struct Retagged {
    pub old: Stored,
    pub new: SnapshotId,
    pub tags: Vec<String>,
}

/// What changed, and how many were as they should be.
#[derive(Clone, Debug, Default)]
pub struct TagReport {
    pub changed: Vec<Retagged>,
    pub unchanged: usize,
}

/// Changes the tags of these snapshots.
pub fn tag(repository: &Repository, chosen: Vec<Stored>, change: &TagChange, host: &str, progress: &dyn Progress) -> Result<TagReport> {
    progress.stage(Stage::Planning, None, None);
    let before = repository.collections()?;
    if before.under_way {
        return Err(Error::Conflict("Packs are being deleted, or that was cut short; let snap prune end first".into()));
    }
    let mut report = TagReport::default();
    let mut written = Vec::new();
    let seen = Seen::now(repository)?;
    let forgotten = Records::read(repository, Rigour::Strict)?.forgotten;
    let (present, _) = repository.snapshots()?;
    for old in chosen {
        let tags = change.apply(&old.snapshot.tags);
        if tags == old.snapshot.tags {
            report.unchanged += 1;
            continue;
        }
        // A run that was cut short may have written it already.
        let will_stay = |other: &&Stored| !forgotten.contains(&other.id);
        let new = match present.iter().filter(will_stay).find(|other| is_successor(other, &old, &tags)) {
            Some(other) => other.id,
            None if progress.interrupted() => return give_up(repository, &written, host, Error::Interrupted),
            None => match repository.save_with_tags(old.id, &tags, host) {
                Ok(id) => {
                    written.push(id);
                    id
                }
                Err(error) => return give_up(repository, &written, host, error),
            },
        };
        report.changed.push(Retagged { old, new, tags });
    }
    if report.changed.is_empty() {
        return Ok(report);
    }
    match repository.collections() {
        Ok(after) if after == before => {}
        Ok(_) => {
            return give_up(repository, &written, host, Error::Conflict("Packs were collected meanwhile; run the command again".into()));
        }
        Err(error) => return give_up(repository, &written, host, error),
    }
    let old: Vec<SnapshotId> = report.changed.iter().map(|changed| changed.old.id).collect();
    let new: Vec<SnapshotId> = report.changed.iter().map(|changed| changed.new).collect();
    let removal = Removal { reason: "replaced by snapshots with other tags", host, stays: &new, seen: &seen };
    removal.carry_out(repository, &old, progress)?;
    Ok(report)
}

/// Whether `other` is what `old` becomes with these tags.
fn is_successor(other: &Stored, old: &Stored, tags: &[String]) -> bool {
    let mut expected = old.snapshot.clone();
    expected.tags = tags.to_vec();
    expected.original = Some(old.snapshot.original.unwrap_or(old.id));
    // A fraction may lose its last bit on the way through JSON.
    expected.seconds = other.snapshot.seconds;
    other.id != old.id && other.snapshot == expected
}

/// Withdraws what was written: the old snapshots are all still there.
fn give_up(repository: &Repository, written: &[SnapshotId], host: &str, error: Error) -> Result<TagReport> {
    Err(written.iter().fold(error, |error, id| repository.withdrawn(*id, host, error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_added_before_others_are_removed() {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let edit = |add, remove| TagChange::Edit { add: list(add), remove: list(remove) };
        for (change, before, after) in [
            (edit("c a", ""), "a b", "a b c"),
            (edit("c", "c a"), "a b", "b"),
            (edit("", "x"), "a b", "a b"),
            (TagChange::Set(list("x y x")), "a b", "x y"),
            (TagChange::Set(list("")), "a b", ""),
        ] {
            assert_eq!(change.apply(&list(before)), list(after), "{change:?}");
        }
    }
}
