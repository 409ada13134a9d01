//! Backup: open, read, ingest, catalog, snapshot.
//!
//! The snapshot is written only after the source ended well and all it refers to is durable. What cannot be read is reported, marked
//! in the catalog, and makes the snapshot incomplete; it is never silently left out.

use std::collections::HashMap;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use jiff::Timestamp;

use crate::compression::Level;
use crate::error::{Error, Result, show};
use crate::format::entry::{Entry, Flaw, Meta, Node, Time, path_order};
use crate::format::recipe::Recipe;
use crate::format::snapshot::{Snapshot, SourceKind, Totals};
use crate::id::{ContentHash, SnapshotId};
use crate::limits::*;
use crate::progress::{Progress, Stage};
use crate::repo::{
    CatalogReader, CatalogWriter, Cost, Ingest, Ingested, Repository, SnapshotFilter, Stock, Stored, Writer, WriterOptions, WrittenCatalog,
};
use crate::source::{CommandLine, CommandSource, Filter, KnownFile, More, Slab, Source, StderrSink, StreamSource, TreeOptions, TreeSource};

/// What to back up.
pub enum Input {
    /// Bytes of an open file, pipe or socket.
    Descriptor { name: String, descriptor: OwnedFd },
    /// Bytes of any reader.
    Reader { name: String, reader: Box<dyn Read + Send> },
    /// What a command writes to its standard output.
    Command { name: String, line: CommandLine, stderr: StderrSink },
    /// Files and folders.
    Tree { roots: Vec<PathBuf>, filter: Filter, one_file_system: bool },
}

/// How to back up.
pub struct BackupOptions {
    pub host: String,
    pub user: String,
    /// Name of the group this snapshot belongs to; by default the stream's name or the paths.
    pub name: Option<String>,
    pub tags: Vec<String>,
    /// By default the time the backup begins.
    pub time: Option<Timestamp>,
    /// The older version to compare with; by default the newest of the same host and name.
    pub parent: Option<String>,
    /// Read files even if they look unchanged.
    pub force: bool,
    pub dry_run: bool,
    pub skip_if_unchanged: bool,
    pub allow_empty: bool,
    pub level: Level,
    pub delta: bool,
    /// Sealing threads; 0 for one a core.
    pub threads: usize,
    /// Bytes worked on at a time; only tests change it.
    pub slab_bytes: usize,
    /// Set when the user asks to stop.
    pub interrupted: Arc<AtomicBool>,
}

impl BackupOptions {
    pub fn new(host: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            user: String::new(),
            name: None,
            tags: Vec::new(),
            time: None,
            parent: None,
            force: false,
            dry_run: false,
            skip_if_unchanged: false,
            allow_empty: false,
            level: Level::Auto,
            delta: true,
            threads: 0,
            slab_bytes: SLAB_BYTES,
            interrupted: Arc::default(),
        }
    }
}

/// What a backup did.
#[derive(Clone, Debug)]
pub struct BackupReport {
    /// Nothing in a dry run, or where nothing changed and that was asked to be skipped.
    pub snapshot: Option<SnapshotId>,
    pub parent: Option<SnapshotId>,
    /// The catalog is the same as the parent's.
    pub unchanged: bool,
    pub totals: Totals,
    pub cost: Cost,
    pub seconds: f64,
}

/// Backs up.
pub fn backup(repository: &Repository, input: Input, options: &BackupOptions, progress: &dyn Progress) -> Result<BackupReport> {
    let begun = std::time::Instant::now();
    progress.stage(Stage::Opening, None, None);
    let started = repository.world().now();
    let subject = Subject::of(&input, options);
    let parent = find_parent(repository, &subject, options)?;
    let writer_options = WriterOptions { level: options.level, delta: options.delta, dry_run: options.dry_run, threads: options.threads };
    let mut writer = Writer::start(repository, writer_options)?;
    progress.stage(Stage::BackingUp, None, None);

    let known = Known::new(repository, writer.stock().clone(), parent.as_ref(), subject.kind, options)?;
    let older = parent.as_ref().map(|parent| &parent.snapshot);
    let job = Job { input, known: &known, started, options, older, progress };
    let (written, mut totals) = match job.run(&mut writer, &subject) {
        Ok(done) => done,
        // A thread that failed hangs up on the others: its own reason is the one to tell.
        Err(error) => return Err(writer.first_failure(error)),
    };
    let (cost, reliance) = writer.finish()?;
    totals.bytes_new = cost.bytes_new;
    totals.bytes_stored = cost.stored();

    let unchanged = older.is_some_and(|older| is_same(&written, older));
    let mut report = BackupReport {
        snapshot: None,
        parent: parent.as_ref().map(|parent| parent.id),
        unchanged,
        totals,
        cost,
        seconds: begun.elapsed().as_secs_f64(),
    };
    if options.dry_run || unchanged && options.skip_if_unchanged {
        return Ok(report);
    }
    let (catalog_len, (catalog, path_table)) = (written.len, written.texts());
    let snapshot = Snapshot {
        time: options.time.unwrap_or(started),
        started: Some(started),
        seconds: report.seconds,
        host: options.host.clone(),
        user: options.user.clone(),
        name: subject.name,
        tags: options.tags.clone(),
        source: subject.kind,
        paths: subject.paths,
        parent: report.parent,
        totals: report.totals.clone(),
        program: concat!("snap ", env!("CARGO_PKG_VERSION")).into(),
        catalog,
        catalog_len,
        path_table,
    };
    if progress.interrupted() {
        return Err(Error::Interrupted);
    }
    let id = repository.save_snapshot(&snapshot)?;
    if let Err(error) = reliance.verify(repository, &snapshot) {
        repository.withdraw_snapshot(id)?;
        return Err(error);
    }
    report.snapshot = Some(id);
    report.seconds = begun.elapsed().as_secs_f64();
    Ok(report)
}

/// The work of one backup before anything is durable.
struct Job<'a> {
    input: Input,
    known: &'a Arc<Known>,
    started: Timestamp,
    options: &'a BackupOptions,
    older: Option<&'a Snapshot>,
    progress: &'a dyn Progress,
}

impl Job<'_> {
    fn run(self, writer: &mut Writer, subject: &Subject) -> Result<(WrittenCatalog, Totals)> {
        let stop = Arc::new(AtomicBool::new(false));
        let source = open_source(self.input, self.known, self.started, self.options, stop.clone())?;
        let catalog = CatalogWriter::new(writer, self.older);
        let mut run = Run { catalog, writer, known: self.known, totals: Totals::default(), progress: self.progress };
        run.work(source, self.options, &stop)?;
        let Run { catalog, totals, .. } = run;
        if totals.bytes == 0 && subject.kind == SourceKind::Stream && !self.options.allow_empty {
            return Err(Error::EmptyStream { name: subject.name.clone() });
        }
        Ok((catalog.finish(writer)?, totals))
    }
}

/// What a snapshot is of.
struct Subject {
    name: String,
    kind: SourceKind,
    paths: Vec<String>,
}

impl Subject {
    fn of(input: &Input, options: &BackupOptions) -> Self {
        let (default, kind, paths) = match input {
            Input::Descriptor { name, .. } | Input::Reader { name, .. } | Input::Command { name, .. } => {
                (name.clone(), SourceKind::Stream, vec![name.clone()])
            }
            Input::Tree { roots, .. } => {
                let mut paths: Vec<String> =
                    roots.iter().map(|root| show(&std::path::absolute(root).unwrap_or_else(|_| root.clone()))).collect();
                paths.sort();
                paths.dedup();
                (paths.join(" "), SourceKind::Tree, paths)
            }
        };
        Self { name: options.name.clone().unwrap_or(default), kind, paths }
    }
}

fn find_parent(repository: &Repository, subject: &Subject, options: &BackupOptions) -> Result<Option<Stored>> {
    if let Some(text) = &options.parent {
        return Ok(Some(repository.select(text, &SnapshotFilter::default())?.stored));
    }
    let filter = SnapshotFilter { hosts: vec![options.host.clone()], names: vec![subject.name.clone()], tags: Vec::new() };
    let fits = |stored: &Stored| filter.accepts(&stored.snapshot) && stored.snapshot.source == subject.kind;
    Ok(repository.snapshots()?.0.into_iter().rfind(fits))
}

fn is_same(written: &WrittenCatalog, older: &Snapshot) -> bool {
    written.catalog == older.catalog.0 && written.len == older.catalog_len
}

/// What the parent snapshot knows, met in path order from two sides: the source asks whether a file is unchanged, the pipeline where a
/// changed file's older bytes are.
struct Known {
    stock: Arc<Stock>,
    entries: Option<Mutex<ParentEntries>>,
    /// Files changed at or after this may change again within the same tick of the clock.
    settled_before: Time,
    force: bool,
    /// Older contents of paths that are read.
    older: Mutex<HashMap<Vec<u8>, Older>>,
}

/// What a path's content was.
struct Older {
    recipe: Recipe,
    hash: ContentHash,
    /// For a stream: of the entry it was.
    meta: Option<Meta>,
}

struct ParentEntries {
    catalog: std::iter::Peekable<CatalogReader>,
}

impl Known {
    fn new(
        repository: &Repository,
        stock: Arc<Stock>,
        parent: Option<&Stored>,
        kind: SourceKind,
        options: &BackupOptions,
    ) -> Result<Arc<Self>> {
        let mut older = HashMap::new();
        let mut entries = None;
        if let Some(parent) = parent {
            let mut catalog = CatalogReader::open(repository, &parent.snapshot)?;
            match kind {
                // The one entry of a stream; found whatever it was called then.
                SourceKind::Stream => {
                    older.extend(catalog.next().and_then(Result::ok).and_then(|entry| Some((Vec::new(), Older::of(&entry)?))))
                }
                _ => entries = Some(Mutex::new(ParentEntries { catalog: catalog.peekable() })),
            }
        }
        // The coarsest clock of a file system in use (FAT) ticks every two seconds.
        let settled_before = Time { seconds: parent.map_or(i64::MIN, |parent| parent.snapshot.started().as_second() - 2), nanos: 0 };
        Ok(Arc::new(Self { stock, entries, settled_before, force: options.force, older: Mutex::new(older) }))
    }

    /// The parent's content of a file, if everything says that it has not changed since.
    fn unchanged(&self, entry: &Entry, size: u64) -> Option<KnownFile> {
        let old = self.entries.as_ref()?.lock().expect("no panic holds it").find(&entry.path)?;
        let Node::File { content: Some(content) } = &old.node else { return None };
        let same = old.flaw == Flaw::None
            && content.size == size
            && (old.meta.mtime, old.meta.ctime, old.meta.inode) == (entry.meta.mtime, entry.meta.ctime, entry.meta.inode)
            && entry.meta.mtime < self.settled_before
            && entry.meta.ctime < self.settled_before;
        // Unchanged is not enough: what it consists of must still be there.
        if same && !self.force && self.stock.covers(&content.recipe) {
            return Some(KnownFile { content: content.clone(), xattrs: old.meta.xattrs });
        }
        self.older
            .lock()
            .expect("no panic holds it")
            .insert(entry.path.clone(), Older { recipe: content.recipe.clone(), hash: content.hash, meta: None });
        None
    }

    /// Where the older bytes of a path that is read are.
    fn older(&self, path: &[u8]) -> Option<Recipe> {
        let older = self.older.lock().expect("no panic holds it");
        older.get(path).or_else(|| older.get(&[][..])).map(|older| older.recipe.clone())
    }

    /// What the content of a path that was read had been; asked once.
    fn take_older(&self, path: &[u8]) -> Option<Older> {
        let mut older = self.older.lock().expect("no panic holds it");
        older.remove(path).or_else(|| older.remove(&[][..]))
    }
}

impl ParentEntries {
    fn find(&mut self, path: &[u8]) -> Option<Entry> {
        loop {
            match self.catalog.peek()? {
                // A damaged parent only costs time: the files are read.
                Err(_) => drop(self.catalog.next()),
                Ok(entry) => match path_order(&entry.path, path) {
                    std::cmp::Ordering::Less => drop(self.catalog.next()),
                    std::cmp::Ordering::Equal => return self.catalog.next()?.ok(),
                    std::cmp::Ordering::Greater => return None,
                },
            }
        }
    }
}

impl Older {
    fn of(entry: &Entry) -> Option<Self> {
        match &entry.node {
            Node::File { content: Some(content) } => {
                Some(Self { recipe: content.recipe.clone(), hash: content.hash, meta: Some(entry.meta.clone()) })
            }
            _ => None,
        }
    }
}

fn open_source(
    input: Input,
    known: &Arc<Known>,
    started: Timestamp,
    options: &BackupOptions,
    stop: Arc<AtomicBool>,
) -> Result<Box<dyn Source>> {
    let meta = || stream_meta(options.time.unwrap_or(started));
    Ok(match input {
        Input::Descriptor { name, descriptor } => Box::new(StreamSource::from_fd(stream_path(&name)?, descriptor, meta(), stop)),
        Input::Reader { name, reader } => Box::new(StreamSource::new(stream_path(&name)?, reader, meta())),
        Input::Command { name, line, stderr } => Box::new(CommandSource::new(stream_path(&name)?, meta(), line, stderr, stop)),
        Input::Tree { roots, filter, one_file_system } => {
            let known = known.clone();
            let lookup = Box::new(move |entry: &Entry, size| known.unchanged(entry, size));
            Box::new(TreeSource::new(roots, TreeOptions { filter, one_file_system, ..TreeOptions::default() }, lookup, stop)?)
        }
    })
}

fn stream_meta(time: Timestamp) -> Meta {
    let mtime = Time { seconds: time.as_second(), nanos: 0 };
    crate::source::stream_meta(mtime)
}

/// The path of a stream's one entry.
fn stream_path(name: &str) -> Result<Vec<u8>> {
    let path = std::path::Path::new(name).as_os_str().as_bytes();
    let path: Vec<u8> = path.iter().copied().skip_while(|byte| *byte == b'/').collect();
    match crate::format::entry::is_path(&path) {
        true => Ok(path),
        false => Err(Error::Usage(format!("{name} cannot be the name of a stream; write a file name like db.sql"))),
    }
}

/// A backup under way.
struct Run<'a> {
    writer: &'a mut Writer,
    catalog: CatalogWriter,
    known: &'a Known,
    totals: Totals,
    progress: &'a dyn Progress,
}

impl Run<'_> {
    /// Takes slab after slab from the source, which reads ahead on a thread of its own until it ends or `stop` is set.
    fn work(&mut self, mut source: Box<dyn Source>, options: &BackupOptions, stop: &AtomicBool) -> Result<()> {
        std::thread::scope(|scope| {
            let (filled, slabs) = bounded::<Result<(Slab, More)>>(1);
            let (spent, empty) = bounded(3);
            for _ in 0..3 {
                spent.send(Slab::new(options.slab_bytes)).expect("there is room");
            }
            scope.spawn(move || read_ahead(&mut *source, &empty, &filled));
            let result = self.take_slabs(&slabs, &spent, options);
            // A source that waits for bytes must not keep a failure waiting.
            stop.store(true, Ordering::Relaxed);
            result
        })
    }

    fn take_slabs(&mut self, slabs: &Receiver<Result<(Slab, More)>>, spent: &Sender<Slab>, options: &BackupOptions) -> Result<()> {
        let known = self.known;
        let mut ingest = Ingest::new(|path: &[u8]| known.older(path));
        loop {
            if self.progress.interrupted() || options.interrupted.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            self.writer.check()?;
            let (mut slab, more) = match slabs.recv_timeout(Duration::from_millis(200)) {
                Ok(slab) => slab?,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => unreachable!("the last slab says so"),
            };
            let bytes = slab.input_bytes();
            let done = ingest.slab(self.writer, &mut slab)?;
            self.progress.bytes(bytes);
            for ingested in done {
                self.take(ingested)?;
            }
            // The reader may have ended already.
            let _ = spent.send(slab);
            if more == More::No {
                return Ok(());
            }
        }
    }

    fn take(&mut self, ingested: Ingested) -> Result<()> {
        let mut pending = match ingested {
            Ingested::Problem(problem) => {
                self.totals.flawed += 1;
                self.progress.problem(&problem);
                return Ok(());
            }
            Ingested::Entry(pending) => pending,
        };
        let totals = &mut self.totals;
        match &pending.entry.node {
            Node::File { content } => {
                totals.files += 1;
                totals.bytes += content.as_ref().map_or(pending.bytes_read, |content| content.stored_len());
                match self.known.take_older(&pending.entry.path) {
                    _ if pending.known => totals.files_unmodified += 1,
                    None => totals.files_new += 1,
                    Some(older) if Some(older.hash) == pending.content_hash() => {
                        totals.files_unmodified += 1;
                        // The same bytes keep their time, so that an unchanged stream has an unchanged catalog.
                        pending.entry.meta = older.meta.unwrap_or(pending.entry.meta);
                    }
                    Some(_) => totals.files_changed += 1,
                }
            }
            Node::Folder => totals.folders += 1,
            _ => totals.others += 1,
        }
        self.progress.files(1);
        self.catalog.add(self.writer, *pending)
    }
}

fn read_ahead(source: &mut dyn Source, empty: &Receiver<Slab>, filled: &Sender<Result<(Slab, More)>>) {
    for mut slab in empty {
        slab.clear();
        let result = source.fill(&mut slab);
        let last = !matches!(result, Ok(More::Yes));
        if filled.send(result.map(|more| (slab, more))).is_err() || last {
            return;
        }
    }
}
