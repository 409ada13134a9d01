//! Restore: decide for each entry, fetch what must be written, write, and give folders their metadata last.
//!
//! Deciding runs ahead with the fetching of frames; files that lie wholly in a batch of frames are written in parallel. A file
//! stands under its final name only when every chunk and its whole content have been verified. Links come after all files, so
//! that nothing is ever written through one.

mod plan;
mod task;
mod write;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::entry::{Entry, Node};
use crate::id::ContentHash;
use crate::progress::{Problem, Progress, Stage};
use crate::repo::{Repository, Selection};
use crate::target::{TargetOptions, TreeTarget};
use plan::{Chosen, Planner};
use write::{Done, Writers};

/// What to do with files that are there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// Compare contents; write what differs.
    #[default]
    Always,
    /// Trust size and modification time; write what differs in these.
    IfChanged,
    /// Leave what is there.
    Never,
}

/// How to restore.
#[derive(Clone, Debug, Default)]
pub struct RestoreOptions {
    /// Only paths that match one of these; all if empty.
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    pub overwrite: Overwrite,
    /// Write long runs of zeros as holes.
    pub sparse: bool,
    pub dry_run: bool,
    /// Read everything back from the disk and compare.
    pub verify: bool,
    /// Use the recorded ids of owners and not their names.
    pub numeric_ids: bool,
}

/// What a restore did.
#[derive(Clone, Debug, Default)]
pub struct RestoreReport {
    pub files_restored: u64,
    /// Files that were already as they should be.
    pub files_unchanged: u64,
    /// Files left alone because of `Overwrite::Never`.
    pub files_skipped: u64,
    pub folders: u64,
    pub others: u64,
    /// Plain bytes written.
    pub bytes_restored: u64,
    /// Plain bytes of all selected files.
    pub bytes_total: u64,
    pub files_verified: u64,
    /// Paths that could not be restored, or not wholly; each was reported.
    pub problems: u64,
    /// Of these, those whose stored bytes are damaged.
    pub damaged: u64,
    pub seconds: f64,
}

/// Patterns that match just these paths in a snapshot.
pub fn just_these(paths: &[Vec<u8>]) -> Vec<String> {
    let escape = |c: char| "*?[]{}\\!".contains(c).then_some('\\').into_iter().chain([c]);
    paths.iter().map(|path| format!("/{}", String::from_utf8_lossy(path).chars().flat_map(escape).collect::<String>())).collect()
}

/// Restores the selection into the folder `target`. With a path in the selection, that folder's contents (or that file) land in
/// `target` itself.
pub fn restore(
    repository: &Repository,
    selection: &Selection,
    target: &Path,
    options: &RestoreOptions,
    progress: &dyn Progress,
) -> Result<RestoreReport> {
    let begun = std::time::Instant::now();
    let chosen = Chosen::new(selection, options)?;
    progress.stage(Stage::Planning, None, None);
    let mut report = RestoreReport::default();
    count(repository, &chosen, &mut report)?;
    if options.dry_run {
        report.seconds = begun.elapsed().as_secs_f64();
        return Ok(report);
    }
    progress.stage(Stage::Restoring, Some(report.bytes_total), Some(report.files_restored));
    let target_options = TargetOptions { sparse: options.sparse, numeric_ids: options.numeric_ids, ..TargetOptions::for_this_process() };
    let target = TreeTarget::open(target, target_options, repository.world())?;
    let mut tally = Tally { report, progress };
    (tally.report.files_restored, tally.report.folders, tally.report.others) = (0, 0, 0);
    run(repository, &chosen, options, &target, &mut tally)?;
    if options.verify {
        verify(repository, &chosen, &target, &mut tally)?;
    }
    for problem in target.finish()? {
        tally.problem(&problem.subject.clone(), problem.message);
    }
    let mut report = tally.report;
    report.seconds = begun.elapsed().as_secs_f64();
    Ok(report)
}

/// The report under way.
struct Tally<'a> {
    report: RestoreReport,
    progress: &'a dyn Progress,
}

impl Tally<'_> {
    fn problem(&mut self, path: &[u8], message: impl ToString) {
        self.report.problems += 1;
        self.progress.problem(&Problem::new(path, message));
    }

    /// An error with one path: the operation goes on, unless nothing can.
    fn failed(&mut self, path: &[u8], error: Error) -> Result<()> {
        if matches!(error, Error::Interrupted) {
            return Err(error);
        }
        self.report.damaged += u64::from(error.is_damage());
        self.problem(path, chain(&error));
        Ok(())
    }
}

/// An error with its causes.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// What is selected, and how much it is.
fn count(repository: &Repository, chosen: &Chosen, report: &mut RestoreReport) -> Result<()> {
    let mut found = chosen.selection.path.is_empty();
    for entry in chosen.entries(repository)? {
        let Ok((entry, place)) = entry else { continue };
        found = true;
        match &entry.node {
            Node::File { .. } => {
                report.files_restored += 1;
                report.bytes_total += entry.size();
            }
            Node::Folder if place.is_empty() => {}
            Node::Folder => report.folders += 1,
            _ => report.others += 1,
        }
    }
    match found {
        true => Ok(()),
        false => {
            let id = chosen.selection.stored.id.short();
            let path = crate::error::show_bytes(&chosen.selection.path);
            Err(Error::NotFound(format!("Snapshot {id} holds no {path}; snap ls {id} shows what it holds")))
        }
    }
}

fn run(repository: &Repository, chosen: &Chosen, options: &RestoreOptions, target: &TreeTarget, tally: &mut Tally) -> Result<()> {
    let planner = Arc::new(Planner::new(repository, chosen, options.overwrite, target, tally.progress));
    let mut writers = Writers::new(target, tally.progress);
    let mut told = HashSet::new();
    let reader = repository.reader()?;
    let wanted = planner.clone().wanted()?;
    reader.fetch(wanted, |batch| {
        if tally.progress.interrupted() {
            return Err(Error::Interrupted);
        }
        writers.batch(batch).into_iter().try_for_each(|done| finished(done, &planner, tally, &mut told))
    })?;
    writers.finish().into_iter().try_for_each(|done| finished(done, &planner, tally, &mut told))?;
    let later = planner.finish(&mut tally.report);
    for (path, error) in later.problems.into_iter().filter(|(path, _)| !told.contains(path)) {
        tally.failed(&path, error)?;
    }
    let linker = Linker { repository, chosen, target, overwrite: options.overwrite, foreign: &later.foreign };
    for (path, entry) in later.links {
        match linker.make(&path, &entry) {
            Ok(Made::Yes) => tally.report.others += 1,
            Ok(Made::LeftAlone) => tally.report.files_skipped += 1,
            Err(error) => tally.failed(&path, error)?,
        }
    }
    Ok(())
}

/// Counts a file that was written, or tells why it was not; the paths told of are kept.
fn finished(done: Done, planner: &Planner, tally: &mut Tally, told: &mut HashSet<Vec<u8>>) -> Result<()> {
    match done.outcome {
        Ok(bytes) => {
            tally.report.files_restored += 1;
            tally.report.bytes_restored += bytes;
            tally.progress.files(1);
            Ok(())
        }
        Err(error) => {
            planner.foreign(&done.path);
            tally.failed(&done.path, error)?;
            told.insert(done.path);
            Ok(())
        }
    }
}

/// Whether a link or device was made.
enum Made {
    Yes,
    LeftAlone,
}

/// Makes what comes after the files: links and devices.
struct Linker<'a> {
    repository: &'a Repository,
    chosen: &'a Chosen,
    target: &'a TreeTarget,
    overwrite: Overwrite,
    foreign: &'a HashSet<Vec<u8>>,
}

impl Linker<'_> {
    /// Makes one. A hard link becomes a file of its own where the file it means was not selected, or is not what the snapshot holds.
    fn make(&self, path: &[u8], entry: &Entry) -> Result<Made> {
        if self.overwrite == Overwrite::Never && self.target.find(path)?.is_some() {
            return Ok(Made::LeftAlone);
        }
        match &entry.node {
            Node::Symlink { target: text } => self.target.symlink(path, text, &entry.meta)?,
            Node::HardLink { target: other } => match self.chosen.place(other, false).filter(|other| !self.foreign.contains(other)) {
                Some(other) => self.target.hard_link(path, &other)?,
                None => write::lone_file(self.repository, &self.chosen.selection, other, self.target, path)?,
            },
            _ => self.target.special(path, &entry.node, &entry.meta)?,
        }
        Ok(Made::Yes)
    }
}

/// Reads every selected file back from the disk and compares its hash.
fn verify(repository: &Repository, chosen: &Chosen, target: &TreeTarget, tally: &mut Tally) -> Result<()> {
    tally.progress.stage(Stage::CheckingData, Some(tally.report.bytes_total), None);
    for entry in chosen.entries(repository)? {
        let Ok((entry, path)) = entry else { continue };
        let Node::File { content: Some(content) } = &entry.node else { continue };
        if tally.progress.interrupted() {
            return Err(Error::Interrupted);
        }
        let hash = write::hash_existing(target, &path, content, write::From::Medium);
        match hash {
            Ok(Some(hash)) if hash == content.hash => tally.report.files_verified += 1,
            Ok(hash) => tally.problem(&path, mismatch(hash, content.hash)),
            Err(error) => tally.failed(&path, error)?,
        }
        tally.progress.bytes(content.size);
    }
    Ok(())
}

fn mismatch(found: Option<ContentHash>, expected: ContentHash) -> String {
    match found {
        Some(found) => format!("It does not read back as it was written: its BLAKE3 is {found} and not {expected}"),
        None => "It does not read back as it was written: it is too short, or has bytes where the snapshot has a hole".into(),
    }
}
