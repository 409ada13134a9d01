//! Backup: open, read, ingest, catalog, snapshot.
//!
//! The snapshot is written only after the source ended well and all it refers to is durable. What cannot be read is reported, marked
//! in the catalog, and makes the snapshot incomplete; it is never silently left out.

#[cfg(test)]
mod flips;
mod known;
mod run;
mod several;

use std::cell::Cell;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use jiff::Timestamp;

use crate::compression::Level;
use crate::error::{Error, Result, show};
use crate::format::dump::Dump;
use crate::format::entry::{Entry, Meta, Time};
use crate::format::snapshot::{Part, Snapshot, SourceKind, Totals};
use crate::id::SnapshotId;
use crate::limits::*;
use crate::ops::judge::{Advice, Expect, Judgement, Verdicts};
use crate::ops::overheard::Overheard;
use crate::progress::{Progress, Stage};
use crate::repo::{CatalogWriter, Cost, Reliance, Repository, SnapshotFilter, Stored, Writer, WriterOptions, WrittenCatalog};
use crate::source::{CommandLine, CommandSource, Filter, Sink, Source, StreamSource, Tally, TreeOptions, TreeSource};
use crate::wording::PROGRAM;
pub(super) use known::Known;
pub(super) use run::Run;
pub use several::{CommandStream, CommandStreams, Member, MemberInput, OpenCommands, OpenStream};

/// What to back up.
pub enum Input {
    /// Bytes of an open file, pipe or socket.
    Descriptor { name: String, descriptor: OwnedFd },
    /// Bytes of any reader.
    Reader { name: String, reader: Box<dyn Read + Send> },
    /// What a command writes to its standard output.
    Command { name: String, line: CommandLine, stderr: Sink },
    /// Files and folders.
    Tree { roots: Vec<PathBuf>, filter: Filter, one_file_system: bool },
    /// Streams and trees that make one snapshot together, or none.
    Several(Vec<Member>),
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
    /// What the stream should be, and whether dumps are judged.
    pub expect: Expect,
    pub level: Level,
    pub delta: bool,
    /// Sealing threads; 0 for one a core, 1 for no others than the caller's.
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
            expect: Expect::Anything,
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
    /// Of several sources, what came of each, and how many seconds each took.
    pub parts: Vec<(Part, f64)>,
    /// The dumps among what was saved, and whether they are whole.
    pub dumps: Vec<Dump>,
    /// Lines that speak of an error, from the standard error of a command that ended with success.
    pub said: Vec<String>,
    /// How to make the dumps so that they cost less.
    pub advice: Vec<Advice>,
    /// The parent's plain bytes and dumps.
    pub before: Option<(u64, Vec<Dump>)>,
    /// What uncompressed dumps in this repository cost; known only where a compressed one was saved.
    pub plain_nights: Option<PlainNights>,
    pub cost: Cost,
    pub seconds: f64,
}

/// What streams of dumps that were not compressed cost so far, in each night after their first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlainNights {
    pub nights: u64,
    /// Plain bytes of all of them.
    pub bytes: u64,
    /// Of these, bytes that were new in their night.
    pub bytes_new: u64,
}

/// Backs up.
pub fn backup(repository: &Repository, input: Input, options: &BackupOptions, progress: &dyn Progress) -> Result<BackupReport> {
    let begun = repository.world().elapsed();
    let seconds = || repository.world().elapsed().saturating_sub(begun).as_secs_f64();
    progress.stage(Stage::Opening, None, None);
    let started = repository.world().now();
    let subject = Subject::of(&input, options);
    let parent = find_parent(repository, &subject, options)?;
    let writer_options = WriterOptions { level: options.level, delta: options.delta, dry_run: options.dry_run, threads: options.threads };
    let mut writer = Writer::start(repository, writer_options)?;
    progress.stage(Stage::BackingUp, None, None);

    let known = Known::new(repository, writer.stock().clone(), parent.as_ref(), subject.wanted(), options.force)?;
    let older = parent.as_ref().map(|parent| &parent.snapshot);
    let expected = several::expectations(&input);
    let overheard = Overheard::default();
    let input = several::overhear(input, &overheard);
    let job = Job { input, known: &known, started, options, older, progress };
    let Done { written, mut totals, judgement: (dumps, advice), tallies } = match job.run(&mut writer, &subject) {
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
        parts: several::judge(repository, &expected, &tallies, &dumps, &subject.filter(options))?,
        dumps,
        said: overheard.lines(),
        advice,
        plain_nights: None,
        before: older.map(|older| (older.totals.bytes, older.dumps.clone())),
        cost,
        seconds: seconds(),
    };
    if subject.kind == SourceKind::Stream && report.dumps.iter().any(|dump| !dump.compression.is_empty()) {
        report.plain_nights = plain_nights(repository);
    }
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
        original: None,
        totals: report.totals.clone(),
        parts: report.parts.iter().map(|(part, _)| part.clone()).collect(),
        dumps: report.dumps.clone(),
        program: PROGRAM.into(),
        catalog,
        catalog_len,
        path_table,
        repaired: None,
    };
    if progress.interrupted() {
        return Err(Error::Interrupted);
    }
    report.snapshot = Some(commit(repository, &snapshot.encode(), &reliance)?);
    report.seconds = seconds();
    Ok(report)
}

/// Makes a snapshot visible if what it relies on is still there; takes it back if that was removed just then.
///
/// Only the second look is needed for what the snapshot promises. The first one finds what went during a long run, so that nobody sees a
/// snapshot, and a process that dies leaves none, that was never whole.
pub(super) fn commit(repository: &Repository, body: &[u8], reliance: &Reliance) -> Result<SnapshotId> {
    reliance.verify(repository, body)?;
    let host = Snapshot::decode(body).map(|snapshot| snapshot.host).unwrap_or_default();
    let id = repository.save_snapshot(body, &host)?;
    reliance.verify(repository, body).map_err(|error| repository.withdrawn(id, &host, error))?;
    Ok(id)
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

/// What came of it.
struct Done {
    written: WrittenCatalog,
    totals: Totals,
    judgement: Judgement,
    /// Of several sources.
    tallies: Vec<Tally>,
}

impl Job<'_> {
    fn run(self, writer: &mut Writer, subject: &Subject) -> Result<Done> {
        let stop = Arc::new(AtomicBool::new(false));
        let (source, tallies) = open_source(self.input, self.known, self.started, self.options, stop.clone())?;
        let verdicts = Verdicts::new(&self.options.expect, subject.kind, &subject.streams, self.older);
        let source = verdicts.watch(source);
        let catalog = CatalogWriter::new(writer, self.older);
        let mut run = Run { catalog, writer, known: self.known, totals: Totals::default(), progress: self.progress, held: Vec::new() };
        run.work(source, self.options.slab_bytes, &self.options.interrupted, &stop)?;
        let Run { catalog, totals, .. } = run;
        if totals.bytes == 0 && subject.kind == SourceKind::Stream && !self.options.allow_empty {
            return Err(Error::EmptyStream { name: subject.name.clone() });
        }
        let tallies = tallies.map(|tallies| std::mem::take(&mut *tallies.lock().expect("nobody else is left")));
        let written = catalog.finish(writer)?;
        Ok(Done { written, totals, judgement: verdicts.finish(), tallies: tallies.unwrap_or_default() })
    }
}

/// Only for a warning: what cannot be read does not count.
fn plain_nights(repository: &Repository) -> Option<PlainNights> {
    let (found, _) = repository.snapshots_at_hand().ok()?;
    let mut sum = PlainNights::default();
    for snapshot in found.iter().map(|stored| &stored.snapshot) {
        let is_plain = matches!(&snapshot.dumps[..], [dump] if dump.compression.is_empty());
        if is_plain && snapshot.source == SourceKind::Stream && snapshot.parent.is_some() && snapshot.is_good() {
            sum.nights += 1;
            sum.bytes += snapshot.totals.bytes;
            sum.bytes_new += snapshot.totals.bytes_new;
        }
    }
    (sum.bytes > 0).then_some(sum)
}

/// What a snapshot is of.
struct Subject {
    name: String,
    kind: SourceKind,
    paths: Vec<String>,
    /// Paths of several streams.
    streams: Vec<Vec<u8>>,
}

impl Subject {
    fn of(input: &Input, options: &BackupOptions) -> Self {
        let mut streams = Vec::new();
        let (default, kind, paths) = match input {
            Input::Descriptor { name, .. } | Input::Reader { name, .. } | Input::Command { name, .. } => {
                (name.clone(), SourceKind::Stream, vec![name.clone()])
            }
            Input::Tree { roots, .. } => {
                let paths = shown_roots(roots);
                (paths.join(" "), SourceKind::Tree, paths)
            }
            Input::Several(members) => {
                streams.extend(members.iter().filter_map(Member::stream));
                let mut paths: Vec<String> = members.iter().flat_map(Member::paths).collect();
                paths.sort();
                (paths.join(" "), SourceKind::Job, paths)
            }
        };
        Self { name: options.name.clone().unwrap_or(default), kind, paths, streams }
    }

    /// What an older snapshot is asked for.
    fn wanted(&self) -> known::Wanted<'_> {
        match self.kind {
            SourceKind::Stream => known::Wanted::OnlyStream,
            _ => known::Wanted::Paths { streams: &self.streams },
        }
    }

    /// Lets snapshots of the same pass.
    fn filter(&self, options: &BackupOptions) -> SnapshotFilter {
        SnapshotFilter {
            hosts: vec![options.host.clone()],
            names: vec![self.name.clone()],
            kind: Some(self.kind),
            ..SnapshotFilter::default()
        }
    }
}

/// Paths for people, each once.
fn shown_roots(roots: &[PathBuf]) -> Vec<String> {
    let mut paths: Vec<String> = roots.iter().map(|root| show(&std::path::absolute(root).unwrap_or_else(|_| root.clone()))).collect();
    paths.sort();
    paths.dedup();
    paths
}

fn find_parent(repository: &Repository, subject: &Subject, options: &BackupOptions) -> Result<Option<Stored>> {
    if let Some(text) = &options.parent {
        return Ok(Some(repository.select(text, &SnapshotFilter::default())?.stored));
    }
    let filter = subject.filter(options);
    // An incomplete dump is compared with only if there is no better one.
    let spare = Cell::new(None);
    let is_good = |stored: &Stored| {
        if !stored.snapshot.is_good() {
            spare.set(spare.get().or(Some(stored.id)));
        }
        stored.snapshot.is_good()
    };
    match (repository.newest(0, |stored| filter.accepts(&stored.snapshot) && is_good(stored))?, spare.get()) {
        (None, Some(id)) => repository.snapshot(id).map(Some),
        (good, _) => Ok(good),
    }
}

pub(super) fn is_same(written: &WrittenCatalog, older: &Snapshot) -> bool {
    written.catalog == older.catalog.0 && written.len == older.catalog_len
}

fn open_source(
    input: Input,
    known: &Arc<Known>,
    started: Timestamp,
    options: &BackupOptions,
    stop: Arc<AtomicBool>,
) -> Result<(Box<dyn Source>, Option<several::Tallies>)> {
    let meta = || stream_meta(options.time.unwrap_or(started));
    let source: Box<dyn Source> = match input {
        Input::Descriptor { name, descriptor } => Box::new(StreamSource::from_fd(stream_path(&name)?, descriptor, meta(), stop)),
        Input::Reader { name, reader } => Box::new(StreamSource::new(stream_path(&name)?, reader, meta())),
        Input::Command { name, line, stderr } => Box::new(CommandSource::new(stream_path(&name)?, meta(), line, stderr, stop)),
        Input::Tree { roots, filter, one_file_system } => {
            let known = known.clone();
            let lookup = Box::new(move |entry: &Entry, size| known.unchanged(entry, size));
            Box::new(TreeSource::new(roots, TreeOptions { filter, one_file_system, ..TreeOptions::default() }, lookup, stop)?)
        }
        Input::Several(members) => {
            let source = several::open(members, known, &meta(), options, stop)?;
            let tallies = source.tallies();
            return Ok((Box::new(source), Some(tallies)));
        }
    };
    Ok((source, None))
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
