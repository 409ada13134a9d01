//! What the tests share: repositories in memory with a clock and randomness of their own, seeded bytes, and short ways to back up
//! and to read back.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use snap_backup::backend::{Backend, Memory};
use snap_backup::crypto::Secret;
use snap_backup::error::Result;
use snap_backup::ops::backup::{BackupOptions, BackupReport, Input, backup};
use snap_backup::ops::check::{CheckReport, ReadData, check};
use snap_backup::ops::dump::dump;
use snap_backup::ops::restore::{RestoreOptions, RestoreReport, restore};
use snap_backup::progress::{Problem, Progress, Silent};
use snap_backup::repo::{Opening, Repository, Selection, SnapshotFilter};
use snap_backup::source::{Filter, FilterRules};
use snap_backup::world::World;

/// Later than any file a test makes, so that files count as settled.
pub const FAR: i64 = 2_500_000_000;

/// Bytes without any order.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new_derive_key("snap tests noise");
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// Lines like those of a database dump.
pub fn lines(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 64);
    let mut row = Rng::new(seed);
    let mut number = 0;
    while bytes.len() < len {
        number += 1;
        let (a, b) = (row.below(100_000), row.next());
        bytes.extend_from_slice(format!("INSERT INTO t VALUES ({number}, {a}, 'customer {b:x}');\n").as_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A small generator (SplitMix64): a test prints its seed and can be run again with it.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

/// Does something as another process would, on threads of its own: whoever is interrupted for it may be one of a pool whose other threads
/// wait for it.
pub fn elsewhere(act: impl FnOnce() + Send) {
    let done = std::thread::scope(|scope| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        scope.spawn(move || pool.install(act)).join()
    });
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// A seed, printed so that a failure can be repeated; `SEED` in the environment repeats it.
pub fn seed(test: &str) -> u64 {
    let seed = match std::env::var("SEED") {
        Ok(text) => text.parse().expect("SEED is a number"),
        Err(_) => Timestamp::now().as_nanosecond() as u64 % 1_000_000_000,
    };
    println!("{test}: SEED={seed}");
    seed
}

/// A world whose randomness comes from `seed` and whose clock begins at `start` and goes on ten seconds at every look.
pub fn world(seed: u64, start: i64) -> World {
    let drawn = AtomicU64::new(0);
    let clock = AtomicI64::new(start);
    World::new(
        move || Timestamp::from_second(clock.fetch_add(10, Ordering::SeqCst)).unwrap(),
        move |bytes| {
            let number = drawn.fetch_add(1, Ordering::SeqCst);
            let mut hasher = blake3::Hasher::new_derive_key("snap tests world");
            hasher.update(&seed.to_le_bytes()).update(&number.to_le_bytes());
            hasher.finalize_xof().fill(bytes);
        },
    )
}

pub fn secret() -> Secret {
    Secret::KeyFile(vec![b'k'; 32])
}

pub fn opening(world: World, cache: Option<&Path>) -> Opening {
    Opening { secret: secret(), cache: cache.map(Path::to_path_buf), world }
}

/// A store and how it is opened: with a later clock every time.
#[derive(Clone)]
pub struct Bench {
    pub store: Arc<dyn Backend>,
    pub seed: u64,
    pub cache: Option<PathBuf>,
    opened: Arc<AtomicI64>,
}

impl Bench {
    pub fn on(store: Arc<dyn Backend>, seed: u64) -> Self {
        let bench = Self { store, seed, cache: None, opened: Arc::default() };
        Repository::create(bench.store.clone(), opening(world(seed, FAR), None), "test").unwrap();
        bench
    }

    /// In memory; the same seed gives the same keys.
    pub fn in_memory(seed: u64) -> (Self, Memory) {
        let memory = Memory::new();
        (Self::on(Arc::new(memory.clone()), seed), memory)
    }

    /// The same over another store: later clocks, fresh randomness.
    pub fn over(&self, store: Arc<dyn Backend>) -> Self {
        let opened = Arc::new(AtomicI64::new(self.opened.load(Ordering::SeqCst) + 100));
        Self { store, opened, ..self.clone() }
    }

    /// The same as a host without a cache sees it.
    pub fn without_cache(&self) -> Self {
        Self { cache: None, ..self.clone() }
    }

    pub fn open(&self) -> Repository {
        self.try_open_on(self.store.clone()).unwrap()
    }

    pub fn try_open_on(&self, store: Arc<dyn Backend>) -> Result<Repository> {
        let times = self.opened.fetch_add(1, Ordering::SeqCst) + 1;
        let world = world(self.seed + 1000 * times as u64, FAR + 10_000 * times);
        Repository::open(store, opening(world, self.cache.as_deref()))
    }

    /// Backs up a stream called `db` and returns the report.
    pub fn save(&self, bytes: &[u8]) -> BackupReport {
        save(&self.open(), bytes, &options()).unwrap()
    }

    pub fn dump(&self, which: &str) -> Result<Vec<u8>> {
        read(&self.open(), which)
    }
}

pub fn options() -> BackupOptions {
    BackupOptions { threads: 2, ..BackupOptions::new("host") }
}

/// Backs up a stream called `db`.
pub fn save(repository: &Repository, bytes: &[u8], options: &BackupOptions) -> Result<BackupReport> {
    let reader = Box::new(std::io::Cursor::new(bytes.to_vec()));
    backup(repository, Input::Reader { name: "db".into(), reader }, options, &Silent)
}

pub fn tree(roots: &[&Path], rules: FilterRules) -> Input {
    let roots = roots.iter().map(|root| root.to_path_buf()).collect();
    Input::Tree { roots, filter: Filter::new(&rules).unwrap(), one_file_system: false }
}

pub fn save_tree(repository: &Repository, root: &Path, options: &BackupOptions) -> Result<BackupReport> {
    backup(repository, tree(&[root], FilterRules::default()), options, &Silent)
}

/// Backs up a folder and says how many bytes of it were read.
pub fn bytes_read(repository: &Repository, root: &Path, options: &BackupOptions) -> u64 {
    let heard = Heard::default();
    backup(repository, tree(&[root], FilterRules::default()), options, &heard).unwrap();
    heard.bytes.load(Ordering::SeqCst)
}

pub fn select(repository: &Repository, which: &str) -> Selection {
    repository.select(which, &SnapshotFilter::default()).unwrap()
}

/// The bytes of the file that `SNAPSHOT[:PATH]` names.
pub fn read(repository: &Repository, which: &str) -> Result<Vec<u8>> {
    let selection = repository.select(which, &SnapshotFilter::default())?;
    let mut bytes = Vec::new();
    let report = dump(repository, &selection, &mut bytes, &Silent)?;
    assert_eq!(report.bytes, bytes.len() as u64);
    assert_eq!(report.hash.0.len(), 32);
    Ok(bytes)
}

pub fn restore_to(repository: &Repository, which: &str, target: &Path, options: &RestoreOptions) -> (RestoreReport, Vec<Problem>) {
    let heard = Heard::default();
    let report = restore(repository, &select(repository, which), target, options, &heard).unwrap();
    (report, heard.problems())
}

/// A check of everything.
pub fn check_all(repository: &Repository) -> Result<CheckReport> {
    check(repository, ReadData::All, &Silent)
}

pub fn assert_clean(repository: &Repository) {
    let report = check_all(repository).unwrap();
    assert!(report.findings.is_empty() && report.affected.is_empty(), "{:?} {:?}", report.findings, report.affected);
}

/// Progress that keeps the problems and counts the bytes read.
#[derive(Default)]
pub struct Heard {
    pub bytes: AtomicU64,
    problems: Mutex<Vec<Problem>>,
}

impl Heard {
    pub fn problems(&self) -> Vec<Problem> {
        self.problems.lock().unwrap().clone()
    }
}

impl Progress for Heard {
    fn bytes(&self, count: u64) {
        self.bytes.fetch_add(count, Ordering::SeqCst);
    }

    fn problem(&self, problem: &Problem) {
        self.problems.lock().unwrap().push(problem.clone());
    }
}

/// Everything of a file that a restore brings back, in a line for each path below `root`. Times of folders too.
pub fn describe(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut inodes = Vec::new();
    describe_below(root, root, &mut inodes, &mut found);
    found.sort();
    found
}

fn describe_below(root: &Path, folder: &Path, inodes: &mut Vec<(u64, String)>, found: &mut Vec<String>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let stat = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
        let kind = stat.file_type();
        let what = if kind.is_file() {
            let bytes = fs::read(&path).unwrap();
            let first = inodes.iter().find(|(inode, _)| *inode == stat.ino()).map(|(_, name)| name.clone());
            let link = first.map(|first| format!(" = {first}")).unwrap_or_default();
            inodes.push((stat.ino(), name.clone()));
            format!("file {} {}{link}", bytes.len(), blake3::hash(&bytes))
        } else if kind.is_dir() {
            "dir".into()
        } else if kind.is_symlink() {
            format!("link {:?}", fs::read_link(&path).unwrap())
        } else if kind.is_fifo() {
            "fifo".into()
        } else if kind.is_socket() {
            "socket".into()
        } else {
            format!("device {}", stat.rdev())
        };
        let mut xattrs: Vec<String> = xattr::list(&path)
            .unwrap()
            .filter(|name| !name.as_bytes().starts_with(b"security."))
            .map(|name| format!("{name:?}={:?}", xattr::get(&path, &name).unwrap()))
            .collect();
        xattrs.sort();
        let (mode, owner) = (stat.mode() & 0o7777, (stat.uid(), stat.gid()));
        found.push(format!("{name}: {what} {mode:o} {owner:?} {}.{:09} {xattrs:?}", stat.mtime(), stat.mtime_nsec()));
        if kind.is_dir() {
            describe_below(root, &path, inodes, found);
        }
    }
}

/// Sets a path's modification time, without following links.
pub fn set_mtime(path: &Path, seconds: i64, nanos: i64) {
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}
