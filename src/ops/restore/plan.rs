//! What is selected, and what each entry needs: nothing, a folder, bytes, or to come last.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use super::task::{FileTask, Tag};
use super::write::{From, hash_existing};
use super::{Overwrite, RestoreOptions, RestoreReport};
use crate::error::{Error, Result};
use crate::format::entry::{Entry, Node};
use crate::ops::browse;
use crate::progress::Progress;
use crate::repo::{CatalogReader, Repository, Runs, Selection, Wanted};
use crate::source::{Filter, FilterRules, Includes};
use crate::target::{Found, TreeTarget};

/// The selected entries, and where they go.
pub struct Chosen {
    pub selection: Selection,
    exclude: Filter,
    include: Option<Includes>,
}

impl Chosen {
    pub fn new(selection: &Selection, options: &RestoreOptions) -> Result<Self> {
        let exclude = Filter::new(&FilterRules { excludes: options.exclude.clone(), ..FilterRules::default() })?;
        let include = (!options.include.is_empty()).then(|| Includes::new(&options.include)).transpose()?;
        Ok(Self { selection: selection.clone(), exclude, include })
    }

    /// Where an entry goes below the target; nothing if it is not selected, empty for the target itself.
    pub fn place(&self, path: &[u8], is_folder: bool) -> Option<Vec<u8>> {
        let below = browse::below(path, &self.selection.path)?;
        let included = self.include.as_ref().is_none_or(|include| include.matches(path, is_folder));
        if self.exclude.excludes(path, is_folder) || !included {
            return None;
        }
        match (below, is_folder) {
            // The selection is this very file: it keeps its name.
            ([], false) => path.rsplit(|byte| *byte == b'/').next().map(<[u8]>::to_vec),
            (below, _) => Some(below.to_vec()),
        }
    }

    /// The selected entries in path order, each with its place. Damage in the catalog is an error in its turn.
    pub fn entries<'a>(&'a self, repository: &Repository) -> Result<impl Iterator<Item = Result<(Entry, Vec<u8>)>> + Send + 'a> {
        let catalog = CatalogReader::open_at(repository, &self.selection.stored.snapshot, &self.selection.path)?;
        Ok(catalog.filter_map(move |entry| match entry {
            Ok(entry) => {
                let place = self.place(&entry.path, matches!(entry.node, Node::Folder))?;
                Some(Ok((entry, place)))
            }
            Err(error) => Some(Err(error)),
        }))
    }
}

/// What comes after the files, and what went wrong while deciding.
#[derive(Default)]
pub struct Later {
    /// Files that were left alone or could not be restored: nothing may be linked to them.
    pub foreign: HashSet<Vec<u8>>,
    pub links: Vec<(Vec<u8>, Entry)>,
    pub problems: Vec<(Vec<u8>, Error)>,
}

/// Decides, entry by entry, on the fetching thread.
pub struct Planner<'a> {
    repository: &'a Repository,
    chosen: &'a Chosen,
    overwrite: Overwrite,
    target: &'a TreeTarget,
    progress: &'a dyn Progress,
    later: Mutex<(Later, RestoreReport)>,
}

impl<'a> Planner<'a> {
    pub fn new(
        repository: &'a Repository,
        chosen: &'a Chosen,
        overwrite: Overwrite,
        target: &'a TreeTarget,
        progress: &'a dyn Progress,
    ) -> Self {
        Self { repository, chosen, overwrite, target, progress, later: Mutex::default() }
    }

    /// The runs of all files to be written, in order.
    pub fn wanted(self: Arc<Self>) -> Result<impl Iterator<Item = Result<Wanted<Tag>>> + Send + 'a> {
        let reader = self.repository.reader()?.clone();
        let mut tasks = self.chosen.entries(self.repository)?;
        let mut current: Option<(Arc<FileTask>, std::iter::Peekable<Runs>)> = None;
        Ok(std::iter::from_fn(move || {
            loop {
                if let Some((task, runs)) = &mut current {
                    match runs.next() {
                        Some(Ok(run)) => {
                            let is_last = runs.peek().is_none();
                            return Some(Ok(Wanted { tag: Tag { task: task.clone(), is_last }, run }));
                        }
                        Some(Err(error)) => self.trouble(&task.path.clone(), error),
                        None => {}
                    }
                    current = None;
                }
                if self.progress.interrupted() {
                    return Some(Err(Error::Interrupted));
                }
                match tasks.next()? {
                    Ok((entry, path)) => {
                        let task = self.decide(entry, path);
                        current = task.map(|task| {
                            let runs = Runs::new(reader.clone(), task.content.recipe.clone()).peekable();
                            (Arc::new(task), runs)
                        });
                    }
                    Err(error) => self.trouble(b"", error),
                }
            }
        }))
    }

    /// What was kept for later; adds its counts to the report.
    pub fn finish(&self, report: &mut RestoreReport) -> Later {
        let (later, counted) = std::mem::take(&mut *self.later.lock().expect("no panic holds it"));
        report.folders += counted.folders;
        report.files_restored += counted.files_restored;
        report.files_unchanged += counted.files_unchanged;
        report.files_skipped += counted.files_skipped;
        later
    }

    /// Notes that what stands at a path is not what the snapshot holds.
    pub fn foreign(&self, path: &[u8]) {
        self.later.lock().expect("no panic holds it").0.foreign.insert(path.to_vec());
    }

    fn trouble(&self, path: &[u8], error: Error) {
        self.foreign(path);
        self.later.lock().expect("no panic holds it").0.problems.push((path.to_vec(), error));
    }

    fn tally(&self, count: impl FnOnce(&mut RestoreReport)) {
        count(&mut self.later.lock().expect("no panic holds it").1);
    }

    /// Does what needs no bytes; returns a file that must be written.
    fn decide(&self, entry: Entry, path: Vec<u8>) -> Option<FileTask> {
        let decided = match entry.node {
            // The chosen folder is the target itself, which keeps its own metadata.
            Node::Folder if path.is_empty() => Ok(None),
            Node::Folder => self.target.folder(&path, &entry.meta).map(|()| {
                self.tally(|report| report.folders += 1);
                None
            }),
            Node::File { content: Some(content) } => self.decide_file(FileTask { path: path.clone(), meta: entry.meta, content }),
            Node::File { content: None } => {
                Err(Error::NotFound(format!("Not restored: {}", self.chosen.selection.stored.snapshot.why_empty())))
            }
            _ => {
                self.later.lock().expect("no panic holds it").0.links.push((path.clone(), entry));
                Ok(None)
            }
        };
        decided.unwrap_or_else(|error| {
            self.trouble(&path, error);
            None
        })
    }

    fn decide_file(&self, task: FileTask) -> Result<Option<FileTask>> {
        if let Some(found) = self.target.find(&task.path)? {
            if self.overwrite == Overwrite::Never {
                self.foreign(&task.path);
                self.tally(|report| report.files_skipped += 1);
                return Ok(None);
            }
            if self.is_same(&task, &found)? {
                self.target.apply(&task.path, &task.meta)?;
                self.tally(|report| report.files_unchanged += 1);
                self.progress.bytes(task.content.size);
                return Ok(None);
            }
        }
        if task.content.recipe.runs.is_empty() {
            // No bytes at all, or holes only: nothing to fetch.
            super::write::empty_file(self.target, &task)?;
            self.tally(|report| report.files_restored += 1);
            return Ok(None);
        }
        Ok(Some(task))
    }

    fn is_same(&self, task: &FileTask, found: &Found) -> Result<bool> {
        let Found::File { size, mtime, links, .. } = found else { return Ok(false) };
        if *size != task.content.size || *links > 1 {
            return Ok(false);
        }
        if self.overwrite == Overwrite::IfChanged && *mtime == task.meta.mtime {
            return Ok(true);
        }
        // An unreadable file in the way is replaced.
        Ok(hash_existing(self.target, &task.path, &task.content, From::Cache).is_ok_and(|hash| hash == Some(task.content.hash)))
    }
}
