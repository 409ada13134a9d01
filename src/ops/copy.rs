//! Copy: snapshots of one repository into another, oldest first, through the same ingest as any backup.
//!
//! The two need not share keys, so chunk ids and cuts differ: content is decoded and verified, cut anew, and only what the target lacks is
//! stored. A file that the copy before has with the same content hash is taken from there, unread. Before a copy becomes visible, its
//! catalog is compared with the original, entry by entry, with content hashes that were computed anew. A copy names its original,
//! so that it is made once; a run that was cut short goes on with the next.

mod reports;
mod source;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::compression::Level;
use crate::error::{Error, Result, show_bytes};
use crate::format::entry::{Entry, Flaw, Node};
use crate::format::snapshot::{RecipeText, Snapshot, Substitute};
use crate::id::SnapshotId;
use crate::limits::*;
use crate::ops::backup::{Known, Run, commit, is_same};
use crate::progress::{Problem, Progress, Stage};
use crate::repo::{CatalogReader, CatalogWriter, Cost, Repository, SnapshotFilter, Stored, Writer, WriterOptions};
use source::{SnapshotSource, Tally};

/// What to copy, and how.
pub struct CopyOptions {
    /// Which snapshots, as `snap` selects one; all that pass the filter if empty.
    pub which: Vec<String>,
    pub filter: SnapshotFilter,
    /// Copy what can be read of damaged snapshots, marked as incomplete.
    pub salvage: bool,
    /// Only say what would be copied.
    pub dry_run: bool,
    pub level: Level,
    pub delta: bool,
    /// Sealing threads; 0 for one a core, 1 for no others than the caller's.
    pub threads: usize,
    /// Bytes worked on at a time; only tests change it.
    pub slab_bytes: usize,
    pub interrupted: Arc<AtomicBool>,
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self {
            which: Vec::new(),
            filter: SnapshotFilter::default(),
            salvage: false,
            dry_run: false,
            level: Level::Auto,
            delta: true,
            threads: 0,
            slab_bytes: SLAB_BYTES,
            interrupted: Arc::default(),
        }
    }
}

/// What became of a snapshot.
#[derive(Debug)]
pub enum Outcome {
    Copied(Copied),
    /// A copy of it is there already.
    There(SnapshotId),
    /// A dry run would copy it.
    Wanted,
    /// It is damaged or cannot be understood, and nothing of it is visible in the target.
    Failed(Error),
}

/// A copy that was made.
#[derive(Clone, Debug)]
pub struct Copied {
    pub id: SnapshotId,
    /// Paths whose content could not be read.
    pub lost: u64,
    pub cost: Cost,
}

/// What a copy of snapshots did.
#[derive(Clone, Debug, Default)]
pub struct CopyReport {
    pub copied: u64,
    pub there: u64,
    pub wanted: u64,
    pub failed: u64,
    /// Of the failed, those that need a newer version.
    pub unsupported: u64,
    /// Copies that lack something.
    pub partial: u64,
    /// Snapshots whose records cannot be read.
    pub unreadable: u64,
    /// Reports of runs and drills that were copied, or would be.
    pub reports: u64,
    /// Reports that cannot be read.
    pub reports_unreadable: u64,
    /// Plain bytes of all snapshots that were copied, or would be.
    pub bytes: u64,
    pub bytes_new: u64,
    pub bytes_stored: u64,
    pub seconds: f64,
}

/// Copies snapshots, tells of each as it is done, and then copies the reports that tell of them.
pub fn copy(
    from: &Repository,
    to: &Repository,
    options: &CopyOptions,
    progress: &dyn Progress,
    each: &mut dyn FnMut(&Stored, &Outcome) -> Result<()>,
) -> Result<CopyReport> {
    let begun = std::time::Instant::now();
    progress.stage(Stage::Opening, None, None);
    let mut report = CopyReport::default();
    let chosen = choose(from, options, progress, &mut report)?;
    let mut present = to.snapshots()?.0;
    let bytes = chosen.iter().filter(|stored| copy_of(&present, stored).is_none()).map(|stored| stored.snapshot.totals.bytes).sum();
    progress.stage(Stage::Copying, Some(bytes), None);
    for stored in &chosen {
        if progress.interrupted() || options.interrupted.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        let outcome = match copy_of(&present, stored) {
            Some(copy) => Outcome::There(copy.id),
            None if options.dry_run => Outcome::Wanted,
            None => Job { from, to, stored, present: &present, options, progress }.run()?,
        };
        if let Outcome::Copied(copied) = &outcome {
            present.push(to.snapshot(copied.id)?);
        }
        report.count(stored, &outcome);
        each(stored, &outcome)?;
    }
    reports::copy(from, to, &chosen, options, progress, &mut report)?;
    report.seconds = begun.elapsed().as_secs_f64();
    Ok(report)
}

/// The snapshots of `from` that have no whole copy in `to`.
pub fn missing(from: &Repository, to: &Repository) -> Result<Vec<SnapshotId>> {
    let present = to.snapshots()?.0;
    let all = from.snapshots()?.0;
    Ok(all.into_iter().filter(|stored| copy_of(&present, stored).is_none()).map(|stored| stored.id).collect())
}

impl CopyReport {
    fn count(&mut self, stored: &Stored, outcome: &Outcome) {
        match outcome {
            Outcome::There(_) => self.there += 1,
            Outcome::Wanted => {
                self.wanted += 1;
                self.bytes += stored.snapshot.totals.bytes;
            }
            Outcome::Failed(error) => {
                self.failed += 1;
                self.unsupported += u64::from(!error.is_damage());
            }
            Outcome::Copied(copied) => {
                self.copied += 1;
                self.partial += u64::from(copied.lost > 0);
                self.bytes += stored.snapshot.totals.bytes;
                self.bytes_new += copied.cost.bytes_new;
                self.bytes_stored += copied.cost.stored();
            }
        }
    }
}

/// The snapshots to copy, oldest first, so that each finds the one before it as something to build on.
fn choose(from: &Repository, options: &CopyOptions, progress: &dyn Progress, report: &mut CopyReport) -> Result<Vec<Stored>> {
    let mut chosen = Vec::new();
    if options.which.is_empty() {
        let (found, unreadable) = from.snapshots()?;
        for (name, error) in unreadable {
            report.unreadable += 1;
            progress.problem(&Problem::new(format!("snapshot {}", &name[..8.min(name.len())]), error));
        }
        chosen.extend(found.into_iter().filter(|stored| options.filter.accepts(&stored.snapshot)));
    }
    for text in &options.which {
        let selection = from.select(text, &options.filter)?;
        if !selection.path.is_empty() {
            return Err(Error::Usage(format!("{text} names a path; only whole snapshots are copied")));
        }
        chosen.push(selection.stored);
    }
    chosen.sort_by_key(|stored| (stored.snapshot.time, stored.id));
    chosen.dedup_by_key(|stored| stored.id);
    Ok(chosen)
}

/// The whole copy of a snapshot, if there is one. With other tags it counts as another snapshot, and so does a copy that lacks something.
fn copy_of<'p>(present: &'p [Stored], stored: &Stored) -> Option<&'p Stored> {
    let first = |stored: &Stored| stored.snapshot.original.unwrap_or(stored.id);
    let (snapshot, id) = (&stored.snapshot, first(stored));
    let key = |snapshot: &Snapshot| (snapshot.time, snapshot.totals.flawed, snapshot.totals.bytes, snapshot.totals.files);
    present.iter().find(|other| {
        let found = &other.snapshot;
        first(other) == id
            && key(found) == key(snapshot)
            && (&found.host, &found.name, &found.tags) == (&snapshot.host, &snapshot.name, &snapshot.tags)
    })
}

/// One snapshot to be copied.
struct Job<'a> {
    from: &'a Repository,
    to: &'a Repository,
    stored: &'a Stored,
    present: &'a [Stored],
    options: &'a CopyOptions,
    progress: &'a dyn Progress,
}

impl Job<'_> {
    fn run(&self) -> Result<Outcome> {
        let Self { to, stored, options, .. } = *self;
        let parent = self.parent();
        let writer_options = WriterOptions { level: options.level, delta: options.delta, dry_run: false, threads: options.threads };
        let mut writer = Writer::start(to, writer_options)?;
        let known = Known::for_copy(to, writer.stock().clone(), parent)?;
        let tally = Arc::new(Tally::default());
        let source = match SnapshotSource::new(self.from, stored, known.clone(), tally.clone(), self.progress) {
            Err(error) if error.is_damage() => return Ok(Outcome::Failed(error)),
            source => source?,
        };
        let catalog = CatalogWriter::new(&writer, parent.map(|parent| &parent.snapshot));
        let mut run =
            Run { catalog, writer: &mut writer, known: &known, totals: Default::default(), progress: self.progress, held: Vec::new() };
        let worked = run.work(Box::new(source), options.slab_bytes, &options.interrupted, &AtomicBool::new(false));
        let Run { catalog, .. } = run;
        match worked {
            Err(error @ Error::Unsupported { .. }) => return Ok(Outcome::Failed(error)),
            Err(error) => return Err(writer.first_failure(error)),
            Ok(()) => {}
        }
        let (lost, whole) = (tally.lost.load(Ordering::Relaxed), tally.whole.load(Ordering::Relaxed));
        // What was stored of it so far is of use to the next snapshots; dropping the writer lists it.
        if lost > 0 && (!options.salvage || whole == 0) {
            return Ok(Outcome::Failed(self.damaged(lost, whole)));
        }
        let written = catalog.finish(&mut writer).map_err(|error| writer.first_failure(error))?;
        let (cost, reliance) = writer.finish()?;
        if let Some(same) = self.present.iter().find(|other| self.is_copy(other) && is_same(&written, &other.snapshot)) {
            return Ok(Outcome::There(same.id));
        }
        let mut totals = stored.snapshot.totals.clone();
        (totals.bytes_new, totals.bytes_stored) = (cost.bytes_new, cost.stored());
        totals.flawed += lost;
        let substitute = Substitute {
            parent: parent.map(|parent| parent.id),
            original: stored.snapshot.original.unwrap_or(stored.id),
            totals,
            catalog_len: written.len,
            catalog: RecipeText(written.catalog),
            path_table: RecipeText(written.path_table),
        };
        let body = self.from.snapshot_with(stored.id, &substitute)?;
        let copy = Snapshot::decode(&body).map_err(|error| error.of("the copy"))?;
        if let Err(error) = self.compare(&copy, lost) {
            return if error.is_damage() { Ok(Outcome::Failed(error)) } else { Err(error) };
        }
        if self.progress.interrupted() {
            return Err(Error::Interrupted);
        }
        let id = commit(to, &body, &reliance)?;
        Ok(Outcome::Copied(Copied { id, lost, cost }))
    }

    /// The snapshot in the target that this one is most like: the last before it of the same host and name, or else the first behind.
    fn parent(&self) -> Option<&Stored> {
        let own = &self.stored.snapshot;
        let fits =
            |other: &&Stored| (&other.snapshot.host, &other.snapshot.name, other.snapshot.source) == (&own.host, &own.name, own.source);
        let before = self.present.iter().filter(fits).filter(|other| other.snapshot.time <= own.time);
        let behind = || self.present.iter().filter(fits).min_by_key(|other| other.snapshot.time);
        before.max_by_key(|other| other.snapshot.time).or_else(behind)
    }

    /// Whether a snapshot is a copy of this one, though perhaps not a whole one.
    fn is_copy(&self, other: &Stored) -> bool {
        other.snapshot.original == Some(self.stored.snapshot.original.unwrap_or(self.stored.id))
            && other.snapshot.tags == self.stored.snapshot.tags
    }

    fn damaged(&self, lost: u64, whole: u64) -> Error {
        let what = format!("snapshot {}", self.stored.id.short());
        let advice = match whole {
            0 => "nothing of it can be copied",
            _ => "it was not copied; --salvage copies the rest of it",
        };
        Error::damaged(what, format!("{lost} of its paths cannot be read, and {advice}"))
    }

    /// Whether the copy's catalog says what the original's says, but for recipes and for `lost` paths.
    fn compare(&self, copy: &Snapshot, lost: u64) -> Result<()> {
        let mut originals = CatalogReader::open(self.from, &self.stored.snapshot)?.filter(|entry| lost == 0 || entry.is_ok());
        let mut copies = CatalogReader::open(self.to, copy)?;
        let mut left = lost;
        loop {
            let (original, copy) = match (originals.next().transpose()?, copies.next().transpose()?) {
                (None, None) => return Ok(()),
                (Some(original), Some(copy)) => (original, copy),
                (Some(entry), None) | (None, Some(entry)) => return Err(self.differs(&entry, "it stands in one list of files only")),
            };
            if left > 0 && is_lost(&original, &copy) {
                left -= 1;
            } else if let Some(why) = difference(&original, &copy) {
                return Err(self.differs(&original, why));
            }
        }
    }

    fn differs(&self, entry: &Entry, why: &str) -> Error {
        Error::damaged(format!("{} in snapshot {}", show_bytes(&entry.path), self.stored.id.short()), why)
    }
}

/// Whether the copy has a file without content where the original has some.
fn is_lost(original: &Entry, copy: &Entry) -> bool {
    original.path == copy.path
        && original.meta == copy.meta
        && copy.flaw == Flaw::Unreadable
        && matches!((&original.node, &copy.node), (Node::File { content: Some(_) }, Node::File { content: None }))
}

/// What differs between two entries that should be the same but for the recipe.
fn difference(original: &Entry, copy: &Entry) -> Option<&'static str> {
    if original.path != copy.path {
        return Some("it stands in one list of files only");
    }
    if (original.flaw, &original.meta) != (copy.flaw, &copy.meta) {
        return Some("its metadata did not come over");
    }
    match (&original.node, &copy.node) {
        (Node::File { content: Some(a) }, Node::File { content: Some(b) }) => {
            let fits = (a.hash, a.size, &a.holes, a.encoding) == (b.hash, b.size, &b.holes, b.encoding);
            (!fits).then_some("the hash of its whole content does not fit")
        }
        (a, b) => (a != b).then_some("it is of another kind"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::content::{Content, Encoding, Hole};
    use crate::format::entry::Meta;
    use crate::format::recipe::Recipe;
    use crate::id::ContentHash;

    fn content() -> Content {
        let recipe = Recipe { depth: 0, runs: Vec::new() };
        Content { encoding: Encoding::Plain, size: 9, hash: ContentHash([1; 32]), holes: Vec::new(), recipe }
    }

    fn entry(content: Option<Content>) -> Entry {
        Entry { path: b"a/b".to_vec(), flaw: Flaw::None, meta: Meta::default(), node: Node::File { content } }
    }

    #[test]
    fn entries_differ_in_everything_but_the_recipe() {
        let own = entry(Some(content()));
        let other_recipe = Content { recipe: Recipe { depth: 1, runs: Vec::new() }, ..content() };
        assert_eq!(difference(&own, &entry(Some(other_recipe))), None);
        let hole = Hole { offset: 1, len: 2 };
        for (other, word) in [
            (entry(Some(Content { hash: ContentHash([2; 32]), ..content() })), "hash"),
            (entry(Some(Content { size: 8, ..content() })), "hash"),
            (entry(Some(Content { holes: vec![hole], ..content() })), "hash"),
            (entry(None), "kind"),
            (Entry { node: Node::Folder, ..own.clone() }, "kind"),
            (Entry { path: b"a".to_vec(), ..own.clone() }, "list"),
            (Entry { flaw: Flaw::Changed, ..own.clone() }, "metadata"),
            (Entry { meta: Meta { uid: 1, ..Meta::default() }, ..own.clone() }, "metadata"),
        ] {
            assert!(difference(&own, &other).is_some_and(|why| why.contains(word)), "{other:?}");
            assert!(!is_lost(&own, &other));
        }
        assert!(is_lost(&own, &Entry { flaw: Flaw::Unreadable, ..entry(None) }));
    }
}
