//! How `snap` does with tens of millions of chunks: `cargo bench --bench scale -- --chunks 50000000`.
//!
//! Makes a repository out of nothing (index segments as backups write them, packs that are only lengths, snapshots), and lets fresh
//! processes work with it, so that each says what memory it took at most. Prints a table in Markdown and removes what it made. Only
//! the streams backed up in between are real. Five million chunks, the default, take about a minute; disk: about 100 bytes a chunk.

mod dice;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use dice::Dice;
use rayon::prelude::*;
use snap_backup::backend::{Area, Backend, Local, Place};
use snap_backup::compression::{Compressor, Level, Texture};
use snap_backup::crypto::{Keys, Sealer, Secret};
use snap_backup::format::codec::Write as _;
use snap_backup::format::envelope::{Kind, object_associated_data};
use snap_backup::format::frame::{ChunkTable, Codec, FrameRecord};
use snap_backup::format::pack::FRAMES_START;
use snap_backup::format::recipe::{Recipe, Run};
use snap_backup::format::report::{self, Did, Report, Step, Stream};
use snap_backup::format::segment::{PackRecord, Segment};
use snap_backup::format::snapshot::{RecipeText, Snapshot};
use snap_backup::id::{ChunkId, FrameId, ObjectName};
use snap_backup::index::{Index, Scope, Shelter};
use snap_backup::limits::CHECKPOINT_CHUNKS;
use snap_backup::ops::backup::{BackupOptions, Input, backup};
use snap_backup::progress::Silent;
use snap_backup::repo::{Opening, Repository};
use snap_backup::world::World;

/// Frames in a pack, as text that shrinks to a quarter has them.
const FRAMES_A_PACK: usize = 64;
const LOOKUPS: u64 = 1_000_000;
/// Chunks that are looked up and then stored.
const CLAIMS: u64 = 1_000_000;
const KEY: [u8; 64] = [b'5'; 64];

#[derive(Parser, Clone)]
struct Options {
    /// Chunks in the repository.
    #[arg(long, default_value_t = 5_000_000)]
    chunks: u64,
    /// Packs listed; those that no segment names are only there to be listed.
    #[arg(long, default_value_t = 60_000)]
    packs: u64,
    #[arg(long, default_value_t = 10_000)]
    snapshots: u64,
    /// Reports of runs.
    #[arg(long, default_value_t = 10_000)]
    reports: u64,
    /// MiB of the real stream.
    #[arg(long, default_value_t = 256)]
    stream: u64,
    /// An empty folder to work in; by default a new one in the folder for temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Leave everything there.
    #[arg(long)]
    keep: bool,
    /// What cargo passes, but not to test that it can be built.
    #[arg(long, hide = true)]
    bench: bool,
    /// Names of other benches.
    #[arg(hide = true)]
    wanted: Vec<String>,
    /// What this process is to do.
    #[arg(long, hide = true)]
    phase: Option<String>,
}

fn main() {
    let options = Options::parse();
    match (&options.phase, &options.dir) {
        (Some(phase), Some(dir)) => Stage { options: options.clone(), dir: dir.clone() }.run(phase),
        _ if options.bench && (options.wanted.is_empty() || options.wanted.iter().any(|name| name == "scale")) => conduct(&options),
        _ => {}
    }
}

/// Runs all phases, each in a process of its own.
fn conduct(options: &Options) {
    let own = tempfile::tempdir().unwrap();
    let dir = options.dir.clone().unwrap_or_else(|| own.path().to_path_buf());
    fs::create_dir_all(&dir).unwrap();
    println!("| {} chunks | |\n| --- | --: |", options.chunks);
    for phase in [
        "make",
        "rebuild",
        "open",
        "present",
        "absent",
        "claim",
        "crash",
        "open again",
        "forget",
        "night 0",
        "night 0 again",
        "night 1",
        "no cache",
        "browse",
    ] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        for (flag, number) in
            [("chunks", options.chunks), ("packs", options.packs), ("snapshots", options.snapshots), ("reports", options.reports)]
        {
            command.arg(format!("--{flag}={number}"));
        }
        command.arg(format!("--stream={}", options.stream)).arg("--dir").arg(&dir).arg("--phase").arg(phase);
        let start = Instant::now();
        assert!(command.status().unwrap().success(), "{phase}");
        eprintln!("{phase}: {:.1} s", start.elapsed().as_secs_f64());
    }
    if !options.keep {
        for part in ["r", "cache"] {
            fs::remove_dir_all(dir.join(part)).unwrap();
        }
    }
}

fn row(what: &str, figure: impl std::fmt::Display) {
    println!("| {what} | {figure} |");
}

/// How long something took, and how much of that this thread was at work: on a busy machine, or a slow disk, that is less.
#[derive(Clone, Copy, Default)]
struct Took {
    wall: Duration,
    work: Duration,
}

impl Took {
    fn time(call: impl FnOnce()) -> Self {
        let (start, before) = (Instant::now(), at_work());
        call();
        Self { wall: start.elapsed(), work: at_work() - before }
    }

    fn add(&mut self, other: Self) {
        self.wall += other.wall;
        self.work += other.work;
    }
}

/// For how long the kernel had this thread at work.
fn at_work() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

fn seconds(what: &str, took: Took) {
    row(what, format!("{:.2} s (work: {:.2} s)", took.wall.as_secs_f64(), took.work.as_secs_f64()));
}

fn milliseconds(what: &str, took: Took) {
    row(what, format!("{:.1} ms (work: {:.1} ms)", took.wall.as_secs_f64() * 1000.0, took.work.as_secs_f64() * 1000.0));
}

fn rate(what: &str, count: u64, took: Took) {
    let rate = |time: Duration| count as f64 / time.as_secs_f64() / 1000.0;
    row(what, format!("{:.0} 000 /s (work: {:.0} 000 /s)", rate(took.wall), rate(took.work)));
}

fn megabytes(what: &str, bytes: u64) {
    row(what, format!("{:.0} MiB", bytes as f64 / 1048576.0));
}

/// The most memory this process has had.
fn memory(what: &str) {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    megabytes(&format!("{what}: memory at most"), kib * 1024);
}

fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| if entry.file_type().unwrap().is_dir() { bytes_below(&entry.path()) } else { entry.metadata().unwrap().len() })
        .sum()
}

fn id(number: u64) -> ChunkId {
    let mut dice = Dice(number << 20);
    ChunkId((u128::from(dice.roll()) << 64 | u128::from(dice.roll())).to_le_bytes())
}

fn name(number: u64) -> ObjectName {
    ObjectName(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

/// What a backup of new chunks with these numbers lists.
fn segment(keys: &Keys, numbers: std::ops::Range<u64>) -> Segment {
    let mut dice = Dice(numbers.start);
    let mut first = numbers.start;
    let mut packs: Vec<PackRecord> = Vec::new();
    while first < numbers.end {
        let end = (first + 40 + dice.below(41)).min(numbers.end);
        let mut table = ChunkTable::default();
        (first..end).for_each(|number| table.push(id(number), 4096 + dice.below(9_000) as usize));
        let full = packs.last().is_none_or(|pack| pack.frames.len() == FRAMES_A_PACK);
        if full {
            packs.push(PackRecord { name: name(first), kind: Kind::DataPack, size: 0, frames: Vec::new() });
        }
        let pack = packs.last_mut().unwrap();
        let offset = pack.frames.last().map_or(FRAMES_START, FrameRecord::end);
        let id = keys.frame_id(&table);
        pack.frames.push(FrameRecord { id, offset, stored_len: 256 << 10, codec: Codec::Zstd, table, present: None, base: None });
        pack.size = (256 << 10) * (pack.frames.len() as u64 + 1);
        first = end;
    }
    Segment { replaces: Vec::new(), packs }
}

/// The stored bytes of an object.
fn sealed(sealer: &Sealer, body: &[u8]) -> Vec<u8> {
    let mut compressed = Vec::new();
    let codec = Compressor::new(Level::Auto).unwrap().compress(Texture::Mixed, body, &mut compressed).unwrap();
    let mut plain = vec![codec as u8];
    plain.put_u64(body.len() as u64);
    plain.put_bytes(if codec == Codec::Zstd { &compressed } else { body });
    let mut stored = sealer.header().encode();
    stored.extend(sealer.seal(&object_associated_data(sealer.header()), &plain));
    stored
}

fn snapshot(number: u64) -> Snapshot {
    let runs = (0..3).map(|run| Run { frame: FrameId(name(number ^ run).0), first: 0, count: 9 }).collect();
    let text = serde_json::json!({
        "time": jiff::Timestamp::from_second(1_600_000_000 + 3600 * number as i64).unwrap(),
        "started": "2026-11-21T01:00:00.123456789Z",
        "seconds": 12.5,
        "host": format!("host{}", number % 20),
        "user": "backup",
        "name": format!("db{}.sql", number % 7),
        "tags": ["nightly"],
        "source": "stream",
        "parent": name(number),
        "totals": { "files": 1, "bytes": 1_u64 << 40, "bytes_new": 1_u64 << 30, "bytes_stored": 1_u64 << 28, "files_changed": 1 },
        "program": "snap",
        "catalog": RecipeText(Recipe { depth: 0, runs }),
        "catalog_len": 200,
        "path_table": RecipeText::default(),
    });
    Snapshot::decode(text.to_string().as_bytes()).unwrap()
}

/// What a run that made the snapshot of this number leaves.
fn report(number: u64) -> Report {
    let of = snapshot(number);
    let stream = Stream { name: of.name.clone(), bytes: of.totals.bytes, seconds: 12.0, said: "pg_dump: done".into(), ..Stream::default() };
    let step = |name: &str| Step { name: name.into(), seconds: 4.0, error: None };
    let run = report::Run {
        job: of.name,
        snapshot: Some(name(number)),
        streams: vec![stream],
        bytes: of.totals.bytes,
        bytes_stored: of.totals.bytes_stored,
        steps: ["before", "backup", "verify", "forget", "prune", "notify"].map(step).into(),
        forgotten: 1,
        bytes_freed: 1 << 28,
    };
    Report {
        time: of.time,
        seconds: 24.0,
        host: of.host,
        user: of.user,
        program: of.program,
        outcome: report::Outcome::Good,
        error: None,
        exit_code: 0,
        warnings: Vec::new(),
        did: Did::Run(run),
    }
}

/// Rows of text, one in a hundred of them another every night.
struct Rows {
    night: u64,
    row: u64,
    left: u64,
    line: io::Cursor<Vec<u8>>,
}

impl Read for Rows {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.line.position() == self.line.get_ref().len() as u64 {
            if self.left == 0 {
                return Ok(0);
            }
            self.row += 1;
            let mut dice = Dice(self.row << 16);
            let version = if dice.roll().is_multiple_of(100) { self.night } else { 0 };
            let words: Vec<String> = (0..6).map(|_| format!("{:x}", dice.roll().wrapping_add(version))).collect();
            let line = format!("{}\t{}\t{}\n", self.row, words.join(" "), "x".repeat(dice.below(90) as usize)).into_bytes();
            self.left = self.left.saturating_sub(line.len() as u64);
            self.line = io::Cursor::new(line);
        }
        self.line.read(buffer)
    }
}

struct Stage {
    options: Options,
    dir: PathBuf,
}

impl Stage {
    fn run(&self, phase: &str) {
        match phase {
            "make" => self.make(),
            "rebuild" => self.rebuild(),
            "open" => self.open_index(),
            "present" => self.lookups("Lookup of a chunk that is there", 0, self.options.chunks, true),
            "absent" => self.lookups("Lookup of one that is not", 1 << 40, 1 << 30, false),
            "claim" => self.claim(),
            "crash" => self.crash(),
            "open again" => milliseconds("Opening the index after a crash", Took::time(|| drop(self.index()))),
            "forget" => {
                // What was claimed is in no store.
                let repository = self.repository(true);
                let took = Took::time(|| assert!(repository.locator_up_to(Scope::Chunks).is_ok()));
                seconds("Forgetting 1 000 000 chunks whose packs are gone", took);
                memory("Forgetting");
            }
            "night 0" => self.night("First backup of a stream", 0),
            "night 0 again" => self.night("The same again", 0),
            "night 1" => self.night("The next night, one row in a hundred changed", 1),
            "no cache" => self.no_cache(),
            "browse" => self.browse(),
            other => panic!("{other}"),
        }
    }

    fn store(&self) -> PathBuf {
        self.dir.join("r")
    }

    fn cache(&self) -> PathBuf {
        self.dir.join("cache")
    }

    fn opening(&self, cache: bool) -> Opening {
        Opening {
            secret: Secret::KeyFile(KEY.to_vec()),
            cache: cache.then(|| self.cache()),
            world: World::system().with_scratch(self.dir.clone()),
        }
    }

    fn repository(&self, cache: bool) -> Repository {
        Repository::open(Arc::new(Local::new(self.store())), self.opening(cache)).unwrap()
    }

    fn write(&self, place: &Place, bytes: &[u8]) {
        fs::write(self.store().join(place.path()), bytes).unwrap();
    }

    fn make(&self) {
        let repository = Repository::create(Arc::new(Local::new(self.store())), self.opening(false), "bench").unwrap();
        let sealer = |kind| {
            let world = World::system();
            Sealer::new(repository.keys().clone(), kind, repository.id(), Arc::new(move || world.random()))
        };
        let (segments, snapshots, reports) = (sealer(Kind::Segment), sealer(Kind::Snapshot), sealer(Kind::Report));
        let size = CHECKPOINT_CHUNKS as u64;
        (0..self.options.chunks.div_ceil(size)).into_par_iter().for_each(|number| {
            let segment = segment(repository.keys(), number * size..((number + 1) * size).min(self.options.chunks));
            for pack in &segment.packs {
                let file = File::create(self.store().join(Place::pack(pack.name).path())).unwrap();
                file.set_len(pack.size).unwrap();
            }
            let stored = sealed(&segments, &segment.encode());
            self.write(&Place::segment(ObjectName::of(&stored)), &stored);
        });
        let packs = repository.backend().list(Area::Packs).unwrap().len() as u64;
        (packs..self.options.packs).into_par_iter().for_each(|number| {
            let file = File::create(self.store().join(Place::pack(name(1 << 50 | number)).path())).unwrap();
            file.set_len(16 << 20).unwrap();
        });
        (0..self.options.snapshots).into_par_iter().for_each(|number| {
            let stored = sealed(&snapshots, &snapshot(number).encode());
            self.write(&Place::snapshot(ObjectName::of(&stored)), &stored);
        });
        (0..self.options.reports).into_par_iter().for_each(|number| {
            let stored = sealed(&reports, &report(number).encode());
            self.write(&Place::report(ObjectName::of(&stored)), &stored);
        });
        megabytes("Index segments in the repository", bytes_below(&self.store().join("index")));
    }

    fn rebuild(&self) {
        let rebuild = |scope| {
            let repository = self.repository(true);
            Took::time(|| assert!(repository.locator_up_to(scope).is_ok()))
        };
        seconds("Index made anew, as for reading", rebuild(Scope::Frames));
        fs::remove_dir_all(self.cache()).unwrap();
        let took = rebuild(Scope::Chunks);
        seconds("Index made anew, as for a backup", took);
        rate("… chunks", self.options.chunks, took);
        let segments = fs::read_dir(self.store().join("index")).unwrap().count();
        assert_eq!(self.index().merged().unwrap().len(), segments);
        megabytes("Index of this host", bytes_below(&self.cache()));
        memory("Making the index");
    }

    fn index(&self) -> Index {
        Index::open(self.shelter(), self.repository(true).id())
    }

    fn shelter(&self) -> Shelter {
        Shelter { cache: Some(self.cache()), scratch: None }
    }

    fn open_index(&self) {
        let id = self.repository(true).id();
        milliseconds("Opening the index", Took::time(|| drop(Index::open(self.shelter(), id))));
        for (scope, whom) in [(Scope::Frames, "reading"), (Scope::Chunks, "a backup")] {
            let repository = self.repository(true);
            let took = Took::time(|| assert!(repository.locator_up_to(scope).is_ok()));
            milliseconds(&format!("Opening it, and seeing that it is up to date, for {whom}"), took);
        }
        memory("Opening");
    }

    fn lookups(&self, what: &str, first: u64, span: u64, found: bool) {
        let index = self.index();
        let mut dice = Dice(3);
        let mut run = |count| {
            for _ in 0..count {
                let place = index.chunk(&id(first + dice.below(span))).unwrap();
                assert_eq!(!place.is_empty(), found);
            }
        };
        run(LOOKUPS / 10);
        rate(what, LOOKUPS, Took::time(|| run(LOOKUPS)));
        memory("Lookups");
    }

    /// As a writer does: every chunk is looked up, taken as new, and after enough of them the index hears of a segment.
    fn claim(&self) {
        let repository = self.repository(true);
        let mut index = self.index();
        let mut fresh = HashMap::new();
        let (mut asking, mut merging, mut most, mut segments) = (Took::default(), Took::default(), Took::default(), 0);
        let mut from = self.options.chunks;
        while from < self.options.chunks + CLAIMS {
            let numbers = from..from + CHECKPOINT_CHUNKS as u64;
            from = numbers.end;
            asking.add(Took::time(|| {
                for number in numbers.clone() {
                    assert!(index.chunk(&id(number)).unwrap().is_empty());
                    fresh.insert(id(number), number);
                }
            }));
            let segment = (name(from), segment(repository.keys(), numbers));
            let took = Took::time(|| index.merge(std::slice::from_ref(&segment), Scope::Chunks).unwrap());
            merging.add(took);
            most = if took.work > most.work { took } else { most };
            segments += 1;
            fresh.clear();
        }
        let count = from - self.options.chunks;
        rate("Claims: lookup, then taken as new", count, asking);
        let mut both = asking;
        both.add(merging);
        rate("… with all that merges segments of 65 536", count, both);
        milliseconds("… one segment merged, on average", Took { wall: merging.wall / segments, work: merging.work / segments });
        milliseconds("… at most", most);
        memory("Claims");
        milliseconds("Closing the index", Took::time(|| drop(index)));
    }

    fn crash(&self) {
        let mut index = self.index();
        let first = 1 << 41;
        let segment = segment(self.repository(true).keys(), first..first + CHECKPOINT_CHUNKS as u64);
        index.merge(&[(name(first), segment)], Scope::Chunks).unwrap();
        // Without closing anything.
        std::process::exit(0);
    }

    fn night(&self, what: &str, night: u64) {
        let repository = self.repository(true);
        repository.locator_up_to(Scope::Chunks).unwrap();
        let bytes = self.options.stream << 20;
        let rows = Rows { night, row: 0, left: bytes, line: io::Cursor::default() };
        let input = Input::Reader { name: "db.sql".into(), reader: Box::new(rows) };
        let start = Instant::now();
        let report = backup(&repository, input, &BackupOptions::new("bench"), &Silent).unwrap();
        let time = start.elapsed();
        assert!(report.snapshot.is_some());
        let new = report.cost.bytes_new as f64 / 1048576.0;
        row(what, format!("{:.0} MiB/s, {new:.0} MiB new", self.options.stream as f64 / time.as_secs_f64()));
        memory("Backup");
    }

    fn no_cache(&self) {
        let repository = self.repository(false);
        seconds("No cache folder: index for a backup", Took::time(|| assert!(repository.locator_up_to(Scope::Chunks).is_ok())));
        memory("No cache folder");
    }

    fn browse(&self) {
        let best = |what: &str, run: &mut dyn FnMut()| {
            let times = (0..5).map(|_| Took::time(&mut *run));
            milliseconds(what, times.min_by_key(|took| took.wall).unwrap());
        };
        best("Opening the repository with a key file", &mut || drop(self.repository(true)));
        let repository = self.repository(true);
        for area in [Area::Packs, Area::Segments, Area::Snapshots] {
            let count = repository.backend().list(area).unwrap().len();
            best(&format!("Listing {count} files of {}", area.folder()), &mut || drop(repository.backend().list(area).unwrap()));
        }
        best("All snapshots, from the store", &mut || assert!(repository.snapshots().unwrap().0.len() as u64 > self.options.snapshots));
        best("All snapshots, as this host remembers them", &mut || drop(repository.snapshots_at_hand().unwrap()));
        let key = self.dir.join("key");
        fs::write(&key, KEY).unwrap();
        fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        best("All reports, as this host remembers them", &mut || drop(repository.reports_at_hand().unwrap()));
        for arguments in [&["snapshots"][..], &["ls", "latest"], &["dump", "latest", "--quiet"], &["status", "--max-age", "36000d"]] {
            best(&format!("`snap {}`, the whole program", arguments.join(" ")), &mut || {
                let mut command = Command::new(env!("CARGO_BIN_EXE_snap"));
                command.args(arguments).env("SNAP_REPOSITORY", self.store()).env("SNAP_CACHE_DIR", self.cache());
                command.env("SNAP_KEY_FILE", &key).env("SNAP_STATE_DIR", self.dir.join("state")).stdout(std::process::Stdio::null());
                assert!(command.status().unwrap().success());
            });
        }
        memory("Browsing");
    }
}
