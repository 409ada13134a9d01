//! Diff: what changed from one snapshot, or folder in it, to another.
//!
//! The two catalogs are read side by side in path order, so nothing of them is kept. No file is read: equal content has equal hashes.
//! What the snapshots do not share is reckoned from the recipes of what changed, see [`usage`].

mod usage;

use crate::error::{Error, Result, show_bytes};
use crate::format::content::Content;
use crate::format::entry::{Entry, Meta, Node, path_order};
use crate::ops::browse::below;
use crate::progress::{Progress, Stage};
use crate::repo::{CatalogReader, Repository, Selection};
use usage::Usage;

/// How to compare.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiffOptions {
    /// Tell of changed metadata too.
    pub metadata: bool,
}

/// How an entry changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    Added,
    Removed,
    /// What the file holds, or where the link leads.
    Modified,
    /// That, while all that says when it was changed is as before: the medium may have done it.
    Rotten,
    /// It is another kind of thing.
    Type,
    Metadata,
}

impl Mark {
    pub fn text(self) -> &'static str {
        match self {
            Self::Added => "+",
            Self::Removed => "-",
            Self::Modified => "M",
            Self::Rotten => "M?",
            Self::Type => "T",
            Self::Metadata => "U",
        }
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Below the folder that is compared, without a slash at either end.
    pub path: Vec<u8>,
    /// Afterwards, or before if it is gone.
    pub is_folder: bool,
    pub mark: Mark,
}

/// What is on one side only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub files: u64,
    pub folders: u64,
    pub others: u64,
    /// Plain bytes of chunks that only this side has.
    pub bytes: u64,
    /// About what they take in the store.
    pub stored_bytes: u64,
}

impl Tally {
    fn count(&mut self, node: &Node) {
        match node {
            Node::File { .. } | Node::HardLink { .. } => self.files += 1,
            Node::Folder => self.folders += 1,
            _ => self.others += 1,
        }
    }
}

/// All changes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiffReport {
    pub changed_files: u64,
    pub added: Tally,
    pub removed: Tally,
}

/// Calls `each` for every change from one selection to the other, in path order.
pub fn diff(
    repository: &Repository,
    from: &Selection,
    to: &Selection,
    options: DiffOptions,
    each: &mut dyn FnMut(&Change) -> Result<()>,
    progress: &dyn Progress,
) -> Result<DiffReport> {
    progress.stage(Stage::Planning, None, None);
    let is_whole = from.path.is_empty() && to.path.is_empty();
    if is_whole && from.stored.snapshot.catalog == to.stored.snapshot.catalog {
        return Ok(DiffReport::default());
    }
    let mut run = Run { repository, sides: [from, to], options, usage: Usage::default(), report: DiffReport::default() };
    run.compare_all(each, progress)?;
    let Run { usage, mut report, .. } = run;
    let [removed, added] = usage.reckon(repository, [from, to], progress)?;
    (report.removed.bytes, report.removed.stored_bytes) = removed;
    (report.added.bytes, report.added.stored_bytes) = added;
    Ok(report)
}

/// A comparison under way.
struct Run<'a> {
    repository: &'a Repository,
    sides: [&'a Selection; 2],
    options: DiffOptions,
    usage: Usage,
    report: DiffReport,
}

impl Run<'_> {
    fn compare_all(&mut self, each: &mut dyn FnMut(&Change) -> Result<()>, progress: &dyn Progress) -> Result<()> {
        let [mut from, mut to] = [Side::open(self.repository, self.sides[0])?, Side::open(self.repository, self.sides[1])?];
        let (mut old, mut new) = (from.next()?, to.next()?);
        loop {
            if progress.interrupted() {
                return Err(Error::Interrupted);
            }
            let order = match (&old, &new) {
                (None, None) => break,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((old, _)), Some((new, _))) => path_order(old, new),
            };
            let mut pair = (None, None);
            if order.is_le() {
                pair.0 = std::mem::replace(&mut old, from.next()?);
            }
            if order.is_ge() {
                pair.1 = std::mem::replace(&mut new, to.next()?);
            }
            let change = match pair {
                (Some((path, old)), Some((_, new))) => self.compare(path, &old, &new)?,
                (Some((path, old)), None) => Some(self.one_sided(path, &old, Mark::Removed)?),
                (None, Some((path, new))) => Some(self.one_sided(path, &new, Mark::Added)?),
                (None, None) => None,
            };
            change.iter().try_for_each(&mut *each)?;
        }
        Ok(())
    }

    fn one_sided(&mut self, path: Vec<u8>, entry: &Entry, mark: Mark) -> Result<Change> {
        let tally = if mark == Mark::Added { &mut self.report.added } else { &mut self.report.removed };
        tally.count(&entry.node);
        self.touch(entry)?;
        Ok(self.change(path, entry, mark))
    }

    fn compare(&mut self, path: Vec<u8>, old: &Entry, new: &Entry) -> Result<Option<Change>> {
        let mark = if kind(&old.node) != kind(&new.node) {
            self.report.removed.count(&old.node);
            self.report.added.count(&new.node);
            Mark::Type
        } else if self.is_modified(old, new)? {
            self.report.changed_files += 1;
            if is_untouched(old, new) { Mark::Rotten } else { Mark::Modified }
        } else if self.options.metadata && !path.is_empty() && has_other_metadata(&old.meta, &new.meta) {
            return Ok(Some(self.change(path, new, Mark::Metadata)));
        } else {
            return Ok(None);
        };
        self.touch(old)?;
        self.touch(new)?;
        Ok(Some(self.change(path, new, mark)))
    }

    /// A single file is called by its own name.
    fn change(&self, path: Vec<u8>, entry: &Entry, mark: Mark) -> Change {
        let path = if path.is_empty() { entry.path.clone() } else { path };
        Change { path, is_folder: matches!(entry.node, Node::Folder), mark }
    }

    fn touch(&mut self, entry: &Entry) -> Result<()> {
        match &entry.node {
            Node::File { content: Some(content) } => self.usage.touch(self.repository, &content.recipe),
            _ => Ok(()),
        }
    }

    fn is_modified(&self, old: &Entry, new: &Entry) -> Result<bool> {
        Ok(match (&old.node, &new.node) {
            // Where the file itself changed, it says so.
            (Node::HardLink { target: old }, Node::HardLink { target: new }) if old == new => false,
            (Node::File { .. } | Node::HardLink { .. }, _) => {
                let (old, new) = (self.content(0, &old.node)?, self.content(1, &new.node)?);
                let essence = |content: &Content| (content.size, content.hash, content.holes.clone());
                old.as_ref().map(essence) != new.as_ref().map(essence)
            }
            (old, new) => old != new,
        })
    }

    /// What a file, or the one that a hard link is another name of, holds.
    fn content(&self, side: usize, node: &Node) -> Result<Option<Content>> {
        let target = match node {
            Node::File { content } => return Ok(content.clone()),
            Node::HardLink { target } => target,
            _ => return Ok(None),
        };
        for entry in CatalogReader::open_at(self.repository, &self.sides[side].stored.snapshot, target)? {
            let entry = entry?;
            match (path_order(&entry.path, target), entry.node) {
                (std::cmp::Ordering::Less, _) => {}
                (std::cmp::Ordering::Equal, Node::File { content }) => return Ok(content),
                _ => break,
            }
        }
        Err(Error::damaged("a catalog", format!("a hard link leads to {}, which is no file", show_bytes(target))))
    }
}

/// Files and their other names are the same kind of thing.
fn kind(node: &Node) -> &'static str {
    match node {
        Node::HardLink { .. } => "file",
        node => node.name(),
    }
}

/// Metadata that a restore brings back.
fn has_other_metadata(old: &Meta, new: &Meta) -> bool {
    let essence = |meta: &Meta| Meta { ctime: Default::default(), inode: 0, ..meta.clone() };
    essence(old) != essence(new)
}

/// Nothing says that a file was written to. Streams have no inode, and so nothing that could say it.
fn is_untouched(old: &Entry, new: &Entry) -> bool {
    old.meta.inode != 0 && old.meta == new.meta && old.size() == new.size()
}

/// One catalog from the selected folder on.
struct Side<'a> {
    catalog: CatalogReader,
    selection: &'a Selection,
    met: bool,
    ended: bool,
}

impl<'a> Side<'a> {
    fn open(repository: &Repository, selection: &'a Selection) -> Result<Self> {
        let catalog = CatalogReader::open_at(repository, &selection.stored.snapshot, &selection.path)?;
        Ok(Self { catalog, selection, met: selection.path.is_empty(), ended: false })
    }

    /// The next entry, and its path below the selection.
    fn next(&mut self) -> Result<Option<(Vec<u8>, Entry)>> {
        while !self.ended {
            let Some(entry) = self.catalog.next().transpose()? else { break };
            match below(&entry.path, &self.selection.path) {
                Some(path) => {
                    self.met = true;
                    return Ok(Some((path.to_vec(), entry)));
                }
                None => self.ended = self.met,
            }
        }
        self.ended = true;
        let (id, path) = (self.selection.stored.id.short(), show_bytes(&self.selection.path));
        match self.met {
            true => Ok(None),
            false => Err(Error::NotFound(format!("Snapshot {id} holds no {path}; snap ls {id} shows what it holds"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::entry::{Flaw, Time};

    #[test]
    fn times_and_attributes_tell_rot_from_a_change() {
        let meta = Meta { mode: 0o644, inode: 7, mtime: Time { seconds: 5, nanos: 6 }, ..Meta::default() };
        let entry = |meta: &Meta| Entry { path: b"a".to_vec(), flaw: Flaw::None, meta: meta.clone(), node: Node::Fifo };
        let check = |change: fn(&mut Meta), rotten: bool, other_metadata: bool| {
            let mut changed = meta.clone();
            change(&mut changed);
            assert_eq!(is_untouched(&entry(&meta), &entry(&changed)), rotten, "{changed:?}");
            assert_eq!(has_other_metadata(&meta, &changed), other_metadata, "{changed:?}");
        };
        check(|_| {}, true, false);
        check(|meta| meta.ctime.nanos = 1, false, false);
        check(|meta| meta.inode = 8, false, false);
        check(|meta| meta.mtime.nanos = 1, false, true);
        check(|meta| meta.xattrs.push((b"user.a".to_vec(), Vec::new())), false, true);
        let stream = entry(&Meta::default());
        assert!(!is_untouched(&stream, &stream));
    }
}
