//! Snapshots: what is beyond help is cut out of a new one, and the old one is set aside.
//!
//! Of a file with lost bytes, `NAME.damaged` holds what is left, with holes in place of what is not; under its own name it stands
//! as a file without content, so that nobody takes the rest for the whole. The new snapshot says what was cut. What can still
//! be read, in whatever roundabout way, is never cut.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::files::salvage;
use super::{Mode, SetAside, Verdict, all_was_looked_at, judge, set_aside, tell};
use crate::backend::{Area, Place};
use crate::compression::Level;
use crate::error::{Error, Result, StorageErrorKind, show_bytes};
use crate::format::content::Content;
use crate::format::entry::{Entry, Flaw, Node, path_order};
use crate::format::envelope::Kind;
use crate::format::snapshot::{LostPath, Repaired, Snapshot, Totals, with_repair};
use crate::id::SnapshotId;
use crate::limits::*;
use crate::ops::backup::commit;
use crate::ops::check::{Affected, Finding, ReadData, check};
use crate::ops::forget::{Removal, Seen};
use crate::ops::go_on;
use crate::progress::{Progress, Silent, Stage};
use crate::repo::records::{Records, Rigour};
use crate::repo::{CatalogReader, CatalogWriter, PendingEntry, Repository, Stored, Writer, WriterOptions};
use crate::wording::PROGRAM;

/// Lost paths, and lost ranges of each, that a snapshot names.
const LOST_NAMED_MAX: usize = 1000;

/// A snapshot from which something was cut.
#[derive(Clone, Debug)]
pub struct Cut {
    pub original: SnapshotId,
    /// The new one; none in a dry run, or if nothing is left.
    pub snapshot: Option<SnapshotId>,
    /// What was lost; a path without a name stands for entries of which not even that is known.
    pub lost: Vec<Affected>,
}

/// What a repair of snapshots did, or would do.
#[derive(Clone, Debug, Default)]
pub struct SnapshotsReport {
    pub snapshots: u64,
    pub cut: Vec<Cut>,
    pub set_aside: Vec<SetAside>,
    pub unsupported: Vec<Finding>,
}

/// Which snapshots, and how.
#[derive(Clone, Debug, Default)]
pub struct SnapshotsOptions {
    /// By an id's first digits or `latest`; all if empty.
    pub snapshots: Vec<String>,
    /// For the record of what was taken away.
    pub host: String,
    pub mode: Mode,
}

/// Cuts what is beyond help out of snapshots.
pub fn repair_snapshots(repository: &Repository, options: &SnapshotsOptions, progress: &dyn Progress) -> Result<SnapshotsReport> {
    progress.stage(Stage::CheckingStructure, None, None);
    let seen = Seen::now(repository)?;
    let mut run = Run { repository, options, progress, seen, report: SnapshotsReport::default() };
    let chosen = run.choose(&options.snapshots)?;
    let mut hurt: BTreeMap<SnapshotId, Vec<Affected>> = BTreeMap::new();
    for affected in check(repository, ReadData::None, &Silent)?.affected {
        hurt.entry(affected.snapshot).or_default().push(affected);
    }
    let forgotten = Records::read(repository, Rigour::Lenient)?.forgotten;
    let mut standing: HashMap<SnapshotId, Vec<(SnapshotId, Repaired)>> = HashMap::new();
    for stored in repository.snapshots()?.0.into_iter().filter(|stored| !forgotten.contains(&stored.id)) {
        if let Some(repaired) = stored.snapshot.repaired {
            standing.entry(repaired.original).or_default().push((stored.id, repaired));
        }
    }
    progress.stage(Stage::Repairing, None, Some(chosen.len() as u64));
    for id in chosen {
        go_on(progress)?;
        let lost = hurt.remove(&id).unwrap_or_default();
        let others = standing.remove(&id).unwrap_or_default();
        let stand_in = others.into_iter().find(|(_, repaired)| has_no_less(repaired, &lost)).map(|(id, _)| id);
        run.look_at(id, lost, stand_in)?;
        progress.files(1);
    }
    Ok(run.report)
}

struct Run<'a> {
    repository: &'a Repository,
    options: &'a SnapshotsOptions,
    progress: &'a dyn Progress,
    seen: Seen,
    report: SnapshotsReport,
}

impl Run<'_> {
    fn choose(&self, which: &[String]) -> Result<BTreeSet<SnapshotId>> {
        let listed = self.repository.backend().list(Area::Snapshots)?;
        let all: BTreeSet<SnapshotId> = listed.iter().filter_map(|listed| listed.name.parse().ok()).collect();
        if which.is_empty() {
            return Ok(all);
        }
        let one = |text: &String| {
            let fitting: Vec<&SnapshotId> = all.iter().filter(|id| !text.is_empty() && id.hex().starts_with(text)).collect();
            match fitting[..] {
                [id] => Ok(*id),
                // Also of one that cannot be read, which no selector finds.
                _ => Ok(self.repository.select(text, &Default::default())?.stored.id),
            }
        };
        which.iter().map(one).collect()
    }

    fn look_at(&mut self, id: SnapshotId, lost: Vec<Affected>, stand_in: Option<SnapshotId>) -> Result<()> {
        self.report.snapshots += 1;
        let place = Place::snapshot(id);
        let stored = match judge(self.repository, &place, || self.repository.snapshot(id))? {
            Verdict::Gone => return Ok(()),
            Verdict::Sound(stored) => stored,
            Verdict::Newer(problem) => return self.newer(&place, problem),
            Verdict::Damaged(why) => {
                tell(self.progress, &place, &why);
                self.put_back(&place)?;
                return self.away(&place, why, None);
            }
        };
        let has_rows = match CatalogReader::open(self.repository, &stored.snapshot)?.rows() {
            Ok(_) => true,
            Err(error) if error.is_damage() => false,
            Err(Error::Unsupported { why, .. }) => return self.newer(&place, why),
            Err(error) => return Err(error),
        };
        if lost.is_empty() && has_rows {
            return Ok(());
        }
        if stand_in.is_some() {
            return self.away(&place, "a repaired snapshot stands in its place".into(), stand_in);
        }
        match self.cut(&stored, lost, has_rows) {
            Err(Error::Unsupported { why, .. }) => self.newer(&place, why),
            result => result,
        }
    }

    /// A snapshot that is whole and only has a wrong name gets its own.
    fn put_back(&mut self, place: &Place) -> Result<()> {
        let Ok(stored) = self.repository.backend().get(place, RECORD_BYTES_MAX) else { return Ok(()) };
        let right = Place::snapshot(SnapshotId::of(&stored));
        let is_whole = self.repository.open_object(Kind::Snapshot, &right, &stored).is_ok_and(|body| Snapshot::decode(&body).is_ok());
        if !is_whole || right == *place || self.options.mode == Mode::Look {
            return Ok(());
        }
        match self.repository.backend().put(&right, &stored) {
            Err(error) if error.kind != StorageErrorKind::Exists => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn newer(&mut self, place: &Place, problem: String) -> Result<()> {
        tell(self.progress, place, format!("It is left as it is, because it needs a newer snap: {problem}"));
        self.report.unsupported.push(Finding::left_alone(place, problem));
        Ok(())
    }

    /// Sets a snapshot aside, for which another one may stand.
    fn away(&mut self, place: &Place, why: String, stand_in: Option<SnapshotId>) -> Result<()> {
        let mode = self.options.mode;
        all_was_looked_at(self.repository)?;
        if let (Mode::Act, Ok(snapshot)) = (mode, place.name.parse()) {
            // So that nobody who collects takes it for lost in the listing.
            let reason = format!("set aside by a repair: {why}");
            let removal = Removal { reason: &reason, host: &self.options.host, stays: stand_in.as_slice(), seen: &self.seen };
            removal.announce(self.repository, &[snapshot])?;
        }
        let aside = set_aside(self.repository, place, why, mode)?;
        self.report.set_aside.push(aside);
        Ok(())
    }

    /// Writes a new snapshot of what is left.
    fn cut(&mut self, stored: &Stored, affected: Vec<Affected>, has_rows: bool) -> Result<()> {
        let place = Place::snapshot(stored.id);
        if self.options.mode == Mode::Look {
            self.report.cut.push(Cut { original: stored.id, snapshot: None, lost: affected });
            return self.away(&place, "something in it is lost".into(), None);
        }
        let options = WriterOptions { level: Level::Auto, delta: true, dry_run: false, threads: 1 };
        let mut writer = Writer::start(self.repository, options)?;
        let hurt: HashMap<Vec<u8>, ()> = affected.into_iter().map(|affected| (affected.path, ())).collect();
        let mut remains = Remains::new(self.repository, &writer, stored, hurt);
        let outcome = remains.gather(&mut writer, self.progress);
        outcome.map_err(|error| writer.first_failure(error))?;
        let Remains { catalog, totals, lost, entries, .. } = remains;
        if lost.is_empty() && has_rows {
            // All of it is there after all: what spoke against it was a read that went wrong once.
            return Ok(());
        }
        if entries == 0 {
            drop(writer);
            self.report.cut.push(Cut { original: stored.id, snapshot: None, lost });
            return self.away(&place, "nothing in it can be read".into(), None);
        }
        all_was_looked_at(self.repository)?;
        let written = catalog.finish(&mut writer).map_err(|error| writer.first_failure(error))?;
        let (_, reliance) = writer.finish()?;
        let (catalog_len, (catalog, path_table)) = (written.len, written.texts());
        let repaired = Some(note(self.repository, stored.id, &lost));
        let program = PROGRAM.into();
        let snapshot = Snapshot { totals, program, catalog, catalog_len, path_table, repaired, ..stored.snapshot.clone() };
        let body = self.repository.read_object(Kind::Snapshot, &place, RECORD_BYTES_MAX)?;
        let body = with_repair(&body, &snapshot).map_err(|error| error.of(&place))?;
        let id = commit(self.repository, &body, &reliance)?;
        self.report.cut.push(Cut { original: stored.id, snapshot: Some(id), lost });
        self.away(&place, "something in it is lost".into(), Some(id))
    }
}

/// Whether what was cut out of a snapshot when it was repaired is still lost, so that the repaired one has all that is left of it.
fn has_no_less(repaired: &Repaired, lost: &[Affected]) -> bool {
    let lost: HashMap<String, &[(u64, u64)]> = lost.iter().map(|lost| (show_bytes(&lost.path), &lost.ranges[..])).collect();
    let is_in = |&(at, len): &(u64, u64), ranges: &[(u64, u64)]| {
        ranges.iter().any(|(begin, extent)| *begin <= at && at.saturating_add(len) <= begin.saturating_add(*extent))
    };
    repaired.more == 0
        && repaired
            .lost
            .iter()
            .all(|cut| cut.more == 0 && lost.get(&cut.path).is_some_and(|ranges| cut.ranges.iter().all(|range| is_in(range, ranges))))
}

/// What the new snapshot says of the old one.
fn note(repository: &Repository, original: SnapshotId, lost: &[Affected]) -> Repaired {
    let named = lost.iter().take(LOST_NAMED_MAX).map(|lost| LostPath {
        path: show_bytes(&lost.path),
        ranges: lost.ranges.iter().take(LOST_NAMED_MAX).copied().collect(),
        more: lost.ranges.len().saturating_sub(LOST_NAMED_MAX) as u64,
    });
    let more = lost.len().saturating_sub(LOST_NAMED_MAX) as u64;
    Repaired { original, time: repository.world().now(), lost: named.collect(), more }
}

/// A path that sorts as in a catalog.
#[derive(PartialEq, Eq)]
struct InOrder(Vec<u8>);

impl PartialOrd for InOrder {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for InOrder {
    fn cmp(&self, other: &Self) -> Ordering {
        path_order(&self.0, &other.0)
    }
}

/// What is left of a snapshot.
struct Remains<'a> {
    repository: &'a Repository,
    stored: &'a Stored,
    /// Paths of files that lost something.
    hurt: HashMap<Vec<u8>, ()>,
    catalog: CatalogWriter,
    totals: Totals,
    entries: u64,
    lost: Vec<Affected>,
    /// What is left of damaged files, by the names they had; links to them become files of their own.
    left: HashMap<Vec<u8>, Option<Content>>,
    /// Entries that were given another name, until it is their turn.
    waiting: BTreeMap<InOrder, Entry>,
    has_gaps: bool,
}

impl<'a> Remains<'a> {
    fn new(repository: &'a Repository, writer: &Writer, stored: &'a Stored, hurt: HashMap<Vec<u8>, ()>) -> Self {
        let old = &stored.snapshot.totals;
        let totals = Totals { files: 0, folders: 0, others: 0, bytes: 0, ..old.clone() };
        Self {
            repository,
            stored,
            hurt,
            catalog: CatalogWriter::new(writer, Some(&stored.snapshot)),
            totals,
            entries: 0,
            lost: Vec::new(),
            left: HashMap::new(),
            waiting: BTreeMap::new(),
            has_gaps: false,
        }
    }

    /// Copies every entry that can be read, and what is left of damaged files.
    fn gather(&mut self, writer: &mut Writer, progress: &dyn Progress) -> Result<()> {
        for entry in CatalogReader::open(self.repository, &self.stored.snapshot)? {
            go_on(progress)?;
            match entry {
                Ok(entry) => self.take(writer, entry, progress)?,
                Err(error) if error.is_damage() => {
                    self.has_gaps = true;
                    self.lose(Vec::new(), Vec::new());
                }
                Err(error) => return Err(error),
            }
        }
        while let Some((_, entry)) = self.waiting.pop_first() {
            self.add(writer, entry)?;
        }
        Ok(())
    }

    fn take(&mut self, writer: &mut Writer, mut entry: Entry, progress: &dyn Progress) -> Result<()> {
        match &entry.node {
            Node::File { content: Some(content) } if self.hurt.contains_key(&entry.path) => {
                let left = salvage(self.repository, writer, content)?;
                if left.lost.is_empty() {
                    return self.in_turn(writer, entry);
                }
                tell(progress, show_bytes(&entry.path), lost_text(&left.lost));
                self.lose(entry.path.clone(), left.lost);
                self.split(&mut entry, left.content.as_ref());
                self.left.insert(entry.path.clone(), left.content);
            }
            Node::HardLink { target } => match self.left.get(target) {
                Some(left) => {
                    let left = left.clone();
                    self.lose(entry.path.clone(), Vec::new());
                    self.split(&mut entry, left.as_ref());
                }
                None if self.has_gaps && !self.is_there(target)? => {
                    self.lose(entry.path.clone(), Vec::new());
                    self.split(&mut entry, None);
                }
                None => {}
            },
            _ => {}
        }
        self.in_turn(writer, entry)
    }

    /// Leaves an entry without content, and puts what is left of it beside it.
    fn split(&mut self, entry: &mut Entry, left: Option<&Content>) {
        entry.node = Node::File { content: None };
        entry.flaw = Flaw::Unreadable;
        if let Some(content) = left {
            let path = [&entry.path[..], b".damaged"].concat();
            let beside = Entry { path, node: Node::File { content: Some(content.clone()) }, ..entry.clone() };
            self.wait(beside);
        }
    }

    fn wait(&mut self, mut entry: Entry) {
        while self.waiting.contains_key(&InOrder(entry.path.clone())) {
            entry.path.push(b'+');
        }
        self.waiting.insert(InOrder(entry.path.clone()), entry);
    }

    /// Adds an entry, and before it those whose turn it is. One of the same name as a renamed one keeps its name.
    fn in_turn(&mut self, writer: &mut Writer, entry: Entry) -> Result<()> {
        while let Some(first) = self.waiting.first_entry() {
            match path_order(&first.key().0, &entry.path) {
                Ordering::Less => {
                    let (_, earlier) = first.remove_entry();
                    self.add(writer, earlier)?;
                }
                Ordering::Equal => {
                    let (_, mut renamed) = first.remove_entry();
                    renamed.path.push(b'+');
                    self.wait(renamed);
                }
                Ordering::Greater => break,
            }
        }
        self.add(writer, entry)
    }

    fn add(&mut self, writer: &mut Writer, entry: Entry) -> Result<()> {
        let totals = &mut self.totals;
        match &entry.node {
            Node::File { content } => {
                totals.files += 1;
                totals.bytes += content.as_ref().map_or(0, Content::stored_len);
            }
            Node::Folder => totals.folders += 1,
            _ => totals.others += 1,
        }
        self.entries += 1;
        self.catalog.add(writer, PendingEntry::whole(entry, true))
    }

    fn lose(&mut self, path: Vec<u8>, ranges: Vec<(u64, u64)>) {
        self.totals.flawed += 1;
        self.lost.push(Affected { snapshot: self.stored.id, path, ranges });
    }

    /// Whether the file that a link means can still be found.
    fn is_there(&self, target: &[u8]) -> Result<bool> {
        let catalog = CatalogReader::open_at(self.repository, &self.stored.snapshot, target)?;
        let found = catalog.filter_map(Result::ok).find(|entry| path_order(&entry.path, target).is_ge());
        Ok(found.is_some_and(|entry| entry.path == target))
    }
}

fn lost_text(lost: &[(u64, u64)]) -> String {
    const RANGES_SHOWN: usize = 8;
    let ranges: Vec<String> = lost.iter().take(RANGES_SHOWN).map(|(offset, len)| format!("{offset}-{}", offset + len - 1)).collect();
    let more = match lost.len().saturating_sub(RANGES_SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("Bytes {}{more} are lost", ranges.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stand_in_must_have_all_that_is_left() {
        let id = SnapshotId::of(b"x");
        let lost = |of: &[(&str, &[(u64, u64)])]| -> Vec<Affected> {
            of.iter().map(|(path, ranges)| Affected { snapshot: id, path: path.as_bytes().to_vec(), ranges: ranges.to_vec() }).collect()
        };
        let repaired = |of: &[(&str, &[(u64, u64)])], more| {
            let lost = of.iter().map(|(path, ranges)| LostPath { path: (*path).into(), ranges: ranges.to_vec(), more: 0 }).collect();
            Repaired { original: id, time: jiff::Timestamp::UNIX_EPOCH, lost, more }
        };
        let cut = repaired(&[("a", &[(0, 10)]), ("b", &[(5, 5), (20, 1)])], 0);
        for (now, expected) in [
            (lost(&[("a", &[(0, 10)]), ("b", &[(5, 5), (20, 1)])]), true),
            (lost(&[("a", &[(0, 99)]), ("b", &[(0, 99)]), ("c", &[(0, 1)])]), true),
            (lost(&[("a", &[(0, 10)])]), false),
            (lost(&[("a", &[(0, 10)]), ("b", &[(5, 5)])]), false),
            (lost(&[("a", &[(0, 9)]), ("b", &[(0, 99)])]), false),
            (lost(&[]), false),
        ] {
            assert_eq!(has_no_less(&cut, &now), expected, "{now:?}");
        }
        assert!(!has_no_less(&repaired(&[], 1), &lost(&[("a", &[(0, 1)])])), "what is not named may be back");
    }
}
