//! A snapshot of another repository as a source: its catalog's entries, and the verified bytes of those that are not there yet.
//!
//! Frames are decoded in parallel, a batch ahead. What cannot be read is a problem with its path, and the entry is marked.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use crate::error::{Error, Result, StorageErrorKind};
use crate::format::content::{Content, Hole};
use crate::format::entry::{Entry, Flaw, Node};
use crate::format::recipe::Run;
use crate::id::FrameId;
use crate::limits::*;
use crate::ops::backup::Known;
use crate::progress::{Problem, Progress};
use crate::repo::{CatalogReader, Frame, Reader, Repository, Runs, Stored};
use crate::source::{Event, More, Slab, Source};

/// How many files came over whole, and how many paths did not.
#[derive(Default)]
pub struct Tally {
    pub whole: AtomicU64,
    pub lost: AtomicU64,
}

/// Reads a snapshot.
pub struct SnapshotSource<'a> {
    /// Before the paths in messages.
    id: String,
    catalog: CatalogReader,
    reader: Arc<Reader>,
    known: Arc<Known>,
    tally: Arc<Tally>,
    progress: &'a dyn Progress,
    /// What comes next, and the frames it takes.
    steps: VecDeque<Step>,
    frames: HashMap<FrameId, std::result::Result<Arc<Frame>, Arc<Error>>>,
    /// The rest of the last file in `steps`.
    runs: Option<Runs>,
    is_catalog_read: bool,
    /// The file whose bytes are being laid.
    open: Option<OpenFile>,
    /// Bytes of the first step's run that are laid already.
    laid: usize,
}

enum Step {
    Entry {
        entry: Box<Entry>,
        known: bool,
    },
    Start(Box<OpenFile>),
    Run(Run),
    /// The rest of the recipe cannot be read.
    Broken(String),
    End,
    Problem(Problem),
}

struct OpenFile {
    entry: Entry,
    size: u64,
    holes: Vec<Hole>,
    /// Bytes still to come.
    missing: u64,
    lost: Option<String>,
}

impl<'a> SnapshotSource<'a> {
    pub fn new(from: &Repository, stored: &Stored, known: Arc<Known>, tally: Arc<Tally>, progress: &'a dyn Progress) -> Result<Self> {
        Ok(Self {
            id: stored.id.short(),
            catalog: CatalogReader::open(from, &stored.snapshot)?,
            reader: from.reader()?.clone(),
            known,
            tally,
            progress,
            steps: VecDeque::new(),
            frames: HashMap::new(),
            runs: None,
            is_catalog_read: false,
            open: None,
            laid: 0,
        })
    }

    /// The next steps: as many as a batch of frames is good for.
    fn read_batch(&mut self) -> Result<()> {
        self.frames.clear();
        let mut wanted = Vec::new();
        while wanted.len() < FETCH_FRAMES && self.steps.len() < FRAME_CHUNKS_MAX && !self.is_catalog_read {
            match self.runs.as_mut().map(Iterator::next) {
                Some(Some(Ok(run))) => {
                    if !wanted.contains(&run.frame) {
                        wanted.push(run.frame);
                    }
                    self.steps.push_back(Step::Run(run));
                }
                Some(Some(Err(error))) => {
                    self.steps.push_back(Step::Broken(loss(error)?));
                    self.end_runs();
                }
                Some(None) => self.end_runs(),
                None => match self.catalog.next() {
                    Some(Ok(entry)) => self.begin(entry),
                    Some(Err(error)) => {
                        let message = format!("Its list of files is damaged, some are missing: {}", loss(error)?);
                        self.steps.push_back(Step::Problem(Problem::new(&self.id, message)));
                    }
                    None => self.is_catalog_read = true,
                },
            }
        }
        let read = |id| (id, self.reader.frame(&id).map_err(Arc::new));
        self.frames = wanted.into_par_iter().with_max_len(1).map(read).collect();
        Ok(())
    }

    fn end_runs(&mut self) {
        self.runs = None;
        self.steps.push_back(Step::End);
    }

    fn begin(&mut self, mut entry: Entry) {
        let node = std::mem::replace(&mut entry.node, Node::File { content: None });
        let Node::File { content: Some(content) } = node else {
            entry.node = node;
            return self.steps.push_back(Step::Entry { entry: Box::new(entry), known: false });
        };
        if let Some(same) = self.known.same(&entry.path, &content) {
            entry.node = Node::File { content: Some(same) };
            return self.steps.push_back(Step::Entry { entry: Box::new(entry), known: true });
        }
        let missing = content.stored_len();
        let Content { size, holes, recipe, .. } = content;
        self.steps.push_back(Step::Start(Box::new(OpenFile { entry, size, holes, missing, lost: None })));
        self.runs = Some(Runs::new(self.reader.clone(), recipe));
    }

    fn take(&mut self, step: Step, slab: &mut Slab) -> Result<()> {
        match step {
            Step::Entry { entry, known } => {
                if let (true, Node::File { content: Some(content) }) = (known, &entry.node) {
                    self.tally.whole.fetch_add(1, Ordering::Relaxed);
                    self.progress.bytes(content.stored_len());
                }
                slab.events.push(Event::Entry { entry: *entry, known });
            }
            Step::Start(file) => {
                slab.events.push(Event::Start { entry: file.entry.clone() });
                self.open = Some(*file);
            }
            Step::Run(run) => self.lay(run, slab)?,
            Step::Broken(why) => self.lose(why),
            Step::End => self.end(slab),
            Step::Problem(problem) => {
                self.tally.lost.fetch_add(1, Ordering::Relaxed);
                slab.events.push(Event::Problem(problem));
            }
        }
        Ok(())
    }

    /// Lays as much of a run's bytes as there is room for; what is left becomes the next step again.
    fn lay(&mut self, run: Run, slab: &mut Slab) -> Result<()> {
        let file = self.open.as_mut().expect("a run belongs to a file");
        if file.lost.is_some() {
            return Ok(());
        }
        let frame = match &self.frames[&run.frame] {
            Ok(frame) => frame,
            Err(error) => {
                let why = loss(error.again())?;
                self.lose(why);
                return Ok(());
            }
        };
        let Some(bytes) = frame.chunks(&run) else {
            let why = frame.damage.clone().unwrap_or_else(|| "some of its chunks are not there".into());
            self.lose(why);
            return Ok(());
        };
        let rest = &bytes[self.laid..];
        let copied = slab.read_from(rest.len(), |room| {
            room.copy_from_slice(&rest[..room.len()]);
            Ok::<_, Error>(room.len())
        })?;
        file.missing = file.missing.wrapping_sub(copied as u64);
        self.laid += copied;
        match self.laid == bytes.len() {
            true => self.laid = 0,
            false => self.steps.push_front(Step::Run(run)),
        }
        Ok(())
    }

    fn lose(&mut self, why: String) {
        self.laid = 0;
        self.open.as_mut().expect("a loss belongs to a file").lost.get_or_insert(why);
    }

    fn end(&mut self, slab: &mut Slab) {
        let file = self.open.take().expect("a file ends once");
        let lost = file.lost.or_else(|| (file.missing != 0).then(|| "its recipe gives another number of bytes than it has".into()));
        let Some(why) = lost else {
            self.tally.whole.fetch_add(1, Ordering::Relaxed);
            return slab.events.push(Event::End { flaw: file.entry.flaw, size: file.size, holes: file.holes });
        };
        self.tally.lost.fetch_add(1, Ordering::Relaxed);
        let subject = [self.id.as_bytes(), b":/", &file.entry.path].concat();
        slab.events.push(Event::Problem(Problem::new(subject, format!("Cannot be read: {why}"))));
        slab.events.push(Event::End { flaw: Flaw::Unreadable, size: 0, holes: Vec::new() });
    }
}

impl Source for SnapshotSource<'_> {
    fn fill(&mut self, slab: &mut Slab) -> Result<More> {
        while !slab.is_full() {
            match self.steps.pop_front() {
                Some(step) => self.take(step, slab)?,
                None if self.is_catalog_read => return Ok(More::No),
                None => self.read_batch()?,
            }
        }
        Ok(More::Yes)
    }
}

/// Why bytes are lost; an error that says nothing of the bytes themselves ends the copy. A medium that cannot be read has lost them.
fn loss(error: Error) -> Result<String> {
    let is_medium = matches!(&error, Error::Storage(error) if error.kind == StorageErrorKind::Other);
    match error.is_damage() || is_medium {
        true => Ok(error.to_string()),
        false => Err(error),
    }
}
