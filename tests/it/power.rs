//! The power fails after any call of the real program: what was not synced by then is gone, or half of it, or all but the names.
//!
//! A run is watched once. From its calls comes a model of the disk that keeps two states apart: what a reader sees, and what a sync has
//! made safe, file contents and names in folders each for themselves. A file's sync does not keep its name, a folder's sync keeps
//! no contents, and a name that moves from one folder to another is safe when both were synced. After every call the disk is made as
//! it may be found after a cut there, and the judge looks at it. That is harsher than real file systems, which keep more than they promise.
//!
//! This host's cache is left as it was at the end of the run, ahead of what the store lost, or is lost as a whole, by turns.
//!
//! By default some calls of each command, which a seed chooses; `POWER_STRIDE=1`, or `--ignored`, tries every one.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::libc::EIO;

use crate::damage::all;
use crate::proof::*;
use crate::support::*;
use crate::sweep::{lose, watched};
use crate::trace::{self, Call, Order, Watcher, What};

/// Calls of each command after which the power fails by default.
const TRIALS: u64 = 3;

type Bytes = Arc<Vec<u8>>;

#[derive(Clone)]
enum Node {
    Folder,
    File {
        /// As a reader sees it.
        now: Bytes,
        /// As the last sync left it.
        kept: Bytes,
    },
}

/// What is on a disk, and what of it is safe.
#[derive(Clone, Default)]
struct Disk {
    nodes: Vec<Node>,
    now: BTreeMap<PathBuf, usize>,
    kept: BTreeMap<PathBuf, usize>,
}

impl Disk {
    /// All there is below a folder, safe.
    fn of(root: &Path) -> Self {
        let mut disk = Self::default();
        disk.add(root, root);
        disk.kept = disk.now.clone();
        disk
    }

    fn add(&mut self, root: &Path, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_path_buf();
            if is_cache(&name) {
                continue;
            }
            if path.is_dir() {
                self.put(name, Node::Folder);
                self.add(root, &path);
            } else {
                let bytes = Arc::new(fs::read(&path).unwrap());
                self.put(name, Node::File { now: bytes.clone(), kept: bytes });
            }
        }
    }

    fn put(&mut self, name: PathBuf, node: Node) {
        self.now.insert(name, self.nodes.len());
        self.nodes.push(node);
    }

    /// Looks again at a file's bytes; with `is_safe`, after a sync.
    fn look(&mut self, name: &Path, path: &Path, is_safe: bool) {
        let Some(Node::File { now, kept }) = self.now.get(name).map(|at| &mut self.nodes[*at]) else { return };
        let Ok(bytes) = fs::read(path) else { return };
        *now = Arc::new(bytes);
        if is_safe {
            *kept = now.clone();
        }
    }

    /// The names in a folder are safe, and those that are gone stay gone.
    fn keep_names(&mut self, folder: &Path) {
        let is_in = |name: &Path| name.parent() == Some(folder);
        self.kept.retain(|name, _| !is_in(name));
        self.kept.extend(self.now.iter().filter(|(name, _)| is_in(name)).map(|(name, at)| (name.clone(), *at)));
    }

    fn keep_all(&mut self) {
        self.kept = self.now.clone();
        for node in &mut self.nodes {
            if let Node::File { now, kept } = node {
                *kept = now.clone();
            }
        }
    }
}

/// What is left after a cut.
#[derive(Clone, Copy, Debug)]
enum Left {
    /// Only what is safe.
    Safe,
    /// All names, but of contents only what is safe.
    Names,
    /// Of names and contents what chance left; of contents perhaps the beginning.
    Some,
}

impl Disk {
    /// Makes the disk as it is found after a cut.
    fn make(&self, left: Left, rng: &mut Rng, target: &Path) {
        let names = match left {
            Left::Safe => self.kept.clone(),
            Left::Names => self.now.clone(),
            Left::Some => {
                let mut names = BTreeMap::new();
                for name in self.now.keys().chain(self.kept.keys()) {
                    let (now, kept) = (self.now.get(name), self.kept.get(name));
                    if let Some(at) = if now == kept || rng.below(2) == 0 { kept } else { now } {
                        names.insert(name.clone(), *at);
                    }
                }
                names
            }
        };
        // A folder's name comes before what is in it; without the folder that is lost.
        for (name, at) in
            names.iter().filter(|(name, _)| name.ancestors().skip(1).all(|above| above == Path::new("") || names.contains_key(above)))
        {
            let path = target.join(name);
            match &self.nodes[*at] {
                Node::Folder => fs::create_dir(path).unwrap(),
                Node::File { now, kept } => {
                    let bytes = match (left, rng.below(3)) {
                        (Left::Some, 0) => &now[..],
                        (Left::Some, 1) if kept != now => &now[..rng.below(now.len() as u64 + 1) as usize],
                        _ => &kept[..],
                    };
                    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
                    file.write_all(bytes).unwrap();
                }
            }
        }
    }
}

fn is_cache(name: &Path) -> bool {
    name.starts_with(".cache")
}

/// Keeps the disk as it is after every change. The sync of that number fails.
struct Recorder {
    root: PathBuf,
    disk: Disk,
    states: Vec<(Call, Disk)>,
    syncs: u64,
    failing: Option<u64>,
    /// Syncs of what this says are seen as if the program did not make them.
    forgotten: fn(&Path) -> bool,
}

impl Recorder {
    fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf(), disk: Disk::of(root), states: Vec::new(), syncs: 0, failing: None, forgotten: |_| false }
    }

    fn name(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).map(Path::to_path_buf).unwrap_or_default()
    }
}

impl Watcher for Recorder {
    fn before(&mut self, call: &Call) -> Order {
        if !matches!(call.what, What::Sync | What::SyncAll) || is_cache(&self.name(&call.path)) {
            return Order::Go;
        }
        self.syncs += 1;
        if self.failing != Some(self.syncs - 1) {
            return Order::Go;
        }
        lose(&call.path);
        Order::Fail(EIO)
    }

    fn after(&mut self, call: &Call) {
        let name = self.name(&call.path);
        let to = call.to.as_deref().map(|to| self.name(to));
        let is_forgotten = call.what == What::Sync && (self.forgotten)(&call.path);
        if is_forgotten || is_cache(&name) || !call.what.changes() || call.what == What::Describe {
            return;
        }
        let disk = &mut self.disk;
        match (call.what, to) {
            (What::Create, _) => {
                if !disk.now.contains_key(&name) {
                    disk.put(name, Node::File { now: Bytes::default(), kept: Bytes::default() });
                } else {
                    disk.look(&name, &call.path, false);
                }
            }
            (What::MakeFolder, _) => disk.put(name, Node::Folder),
            (What::Sync, _) if call.path.is_dir() => disk.keep_names(&name),
            (What::Sync, _) => disk.look(&name, &call.path, true),
            (What::SyncAll, _) => disk.keep_all(),
            (What::Rename, Some(to)) => {
                let at = disk.now.remove(&name).expect("what is renamed is known");
                disk.now.insert(to, at);
            }
            (What::Link, Some(to)) => {
                let at = disk.now[&name];
                disk.now.insert(to, at);
            }
            (What::Unlink, _) => drop(disk.now.remove(&name)),
            _ => disk.look(&name, &call.path, false),
        }
        self.states.push((call.clone(), disk.clone()));
    }
}

/// A run that was watched from its beginning to its end.
struct Watched {
    origin: Origin,
    _folder: tempfile::TempDir,
    site: Site,
    recorder: Recorder,
    code: Option<i32>,
}

impl Watched {
    fn new(subject: &'static Subject, failing: Option<u64>) -> Self {
        Self::with(subject, |recorder| recorder.failing = failing)
    }

    fn with(subject: &'static Subject, change: impl FnOnce(&mut Recorder)) -> Self {
        let origin = Origin::new(subject);
        let (_folder, site) = origin.site();
        let mut recorder = Recorder::new(&site.path);
        change(&mut recorder);
        let ran = watched(&origin, &site, &mut recorder);
        if recorder.failing.is_none() {
            assert_eq!(ran.code, Some(subject.again[0]), "{}: {}", subject.name, ran.said);
        }
        Self { origin, _folder, site, recorder, code: ran.code }
    }

    /// Cuts the power after a call. The run ended only after the last.
    fn cut(&self, number: usize, left: Left, seed: u64) -> Verdict {
        let Some((call, disk)) = self.recorder.states.get(number) else { return Ok(()) };
        let is_end = number + 1 == self.recorder.states.len();
        let folder = new_folder();
        let mut rng = Rng::new(seed + number as u64);
        disk.make(left, &mut rng, folder.path());
        if rng.below(2) == 0 && self.site.at(".cache").exists() {
            fs::create_dir_all(folder.path().join(".cache")).unwrap();
            copy_below(&self.site.at(".cache"), &folder.path().join(".cache"));
        }
        let site = Site { path: folder.path().to_path_buf() };
        let verdict = self.origin.judge(&site, self.code.filter(|_| is_end));
        verdict.map_err(|why| format!("{}, {left:?} after {:?} {}: {why}", self.origin.subject.name, call.what, call.path.display()))
    }
}

/// Cuts after every call, or some.
fn cuts(stride: Option<usize>) {
    if !trace::is_possible("power") {
        return;
    }
    let seed = seed("power");
    let mut total = 0;
    for subject in SUBJECTS {
        let watched = Watched::new(subject, None);
        let calls = watched.recorder.states.len();
        let stride = stride.unwrap_or(calls.div_ceil(TRIALS as usize)).max(1);
        let mut numbers: Vec<usize> = (seed as usize % stride..calls).step_by(stride).collect();
        numbers.extend(calls.checked_sub(1));
        let trials: Vec<(usize, Left)> =
            numbers.iter().flat_map(|at| [Left::Safe, Left::Names, Left::Some].map(|left| (*at, left))).collect();
        println!("{}: {calls} calls, {} cuts", subject.name, trials.len());
        total += trials.len();
        all(&trials, |(number, left)| watched.cut(*number, *left, seed));
    }
    println!("{total} cuts");
}

#[test]
fn the_power_fails_in_every_command() {
    cuts(std::env::var("POWER_STRIDE").ok().map(|text| text.parse().expect("POWER_STRIDE is a number")));
}

#[test]
#[ignore = "takes minutes: every call"]
fn the_power_fails_after_every_call() {
    cuts(Some(1));
}

/// A sync fails once, and the power fails when the program has ended. If it said that all is well, it is.
fn failing_syncs(stride: u64) {
    if !trace::is_possible("failing_syncs") {
        return;
    }
    let seed = seed("failing syncs");
    for subject in SUBJECTS {
        let syncs = Watched::new(subject, None).recorder.syncs;
        let numbers: Vec<u64> = (seed % stride.min(syncs)..syncs).step_by(stride as usize).collect();
        let ended_well = std::sync::atomic::AtomicU64::new(0);
        all(&numbers, |number| {
            let watched = Watched::new(subject, Some(*number));
            if watched.code != Some(0) {
                return Ok(());
            }
            ended_well.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            watched.cut(watched.recorder.states.len() - 1, Left::Safe, seed)
        });
        println!("{}: {syncs} syncs, {} failed, {} ended well", subject.name, numbers.len(), ended_well.into_inner());
    }
}

#[test]
#[ignore = "takes minutes: every sync"]
fn what_a_failed_sync_lost_is_never_called_saved() {
    failing_syncs(1);
}

/// A program that forgets to sync files, or folders, does not pass.
#[test]
fn who_does_not_sync_is_found_out() {
    if !trace::is_possible("who_does_not_sync_is_found_out") {
        return;
    }
    for forgotten in [Path::is_dir, Path::is_file] {
        let watched = Watched::with(&SUBJECTS[1], |recorder| recorder.forgotten = forgotten);
        let verdict = watched.cut(watched.recorder.states.len() - 1, Left::Safe, 1);
        assert!(verdict.is_err_and(|why| why.contains("it ended with 0, but")));
    }
}
