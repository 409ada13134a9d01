//! A history: the store, the hosts with their clocks, what goes wrong with an operation, and the order of events.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use snap_backup::backend::{Area, Backend, Call, Fault, Faulty, Memory, Operation, Place};
use snap_backup::error::{Error, Result, StorageErrorKind};
use snap_backup::format::manifest::ChunkerParameters;
use snap_backup::id::SnapshotId;
use snap_backup::repo::Repository;
use snap_backup::world::World;

use crate::support::*;

const STEPS_MIN: u64 = 50;
const STEPS_MAX: u64 = 200;
/// Operations inside operations.
const DEPTH_MAX: u64 = 2;
pub const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// A stream is no longer than that.
const STREAM_BYTES_MAX: usize = 12 << 10;

/// Every call to the store stands in the log; for one history.
static CALLS: LazyLock<bool> = LazyLock::new(|| std::env::var_os("CALLS").is_some());

/// What a history is like.
#[derive(Clone, Copy)]
pub enum Shape {
    /// Steps in any order.
    Steps,
    /// So many nights of five hosts.
    Nights(u64),
}

/// What is known of a snapshot that was reported as saved.
#[derive(Clone)]
pub struct Known {
    pub bytes: Arc<Vec<u8>>,
    /// Stored bytes that it needs have rotted: it may be gone, but never be wrong.
    pub hurt: bool,
}

/// What all hosts see, and what only the observer knows.
pub struct State {
    pub random: Rng,
    /// Seconds since 1970, by the observer's clock.
    pub now: i64,
    pub truth: BTreeMap<SnapshotId, Known>,
    /// Not looked at since they were saved.
    pub fresh: Vec<SnapshotId>,
    pub forgotten: BTreeSet<SnapshotId>,
    pub streams: Vec<Vec<u8>>,
    log: Vec<String>,
    /// Every call to the store so far.
    calls: blake3::Hasher,
    /// Stored bytes rot in this history, and nobody knows what relies on them.
    pub rot: bool,
    /// What whoever crashed did last, and nobody made durable since: in the order it was done.
    pub loose: Vec<Loose>,
}

/// A change that others see, and that a power cut may undo.
pub enum Loose {
    Put(Place),
    /// Also what was set aside.
    Deleted(Place, Vec<u8>),
}

impl Loose {
    pub fn place(&self) -> &Place {
        match self {
            Self::Put(place) | Self::Deleted(place, _) => place,
        }
    }
}

pub struct Host {
    /// Seconds by which its clock is wrong.
    skew: i64,
    /// Where its index is.
    cache: Option<tempfile::TempDir>,
}

pub struct History {
    seed: u64,
    shape: Shape,
    pub store: Memory,
    pub second: Memory,
    pub hosts: Vec<Host>,
    state: Mutex<State>,
    drawn: AtomicU64,
    /// Packs or segments were taken away since the last judgement.
    pub took: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    BackUp,
    Forget,
    /// All, or half of all.
    ForgetAll,
    ForgetByRules,
    Tag,
    Prune,
    PruneAtOnce,
    PruneAlone,
    RepairIndex,
    RepairPacks,
    RepairSnapshots,
    Copy,
    Read,
    Rot,
    PowerCut,
    Wait,
}

/// Each as often as it stands here.
const ACTS: &[Act] = &[
    Act::BackUp,
    Act::BackUp,
    Act::BackUp,
    Act::BackUp,
    Act::BackUp,
    Act::BackUp,
    Act::Forget,
    Act::Forget,
    Act::Forget,
    Act::Tag,
    Act::Prune,
    Act::Prune,
    Act::Prune,
    Act::Prune,
    Act::PruneAlone,
    Act::RepairIndex,
    Act::RepairPacks,
    Act::RepairSnapshots,
    Act::Copy,
    Act::Read,
    Act::Read,
    Act::Rot,
    Act::PowerCut,
    Act::Wait,
    Act::Wait,
];

/// What happens to one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    /// It ends at this call, which is done or not.
    Crash {
        call: u64,
        done: bool,
    },
    /// It ends in the first write from this call on, of which a store that breaks its promise shows a part.
    Tears {
        call: u64,
        bytes: usize,
    },
    Fails(u64),
    ReplyLost(u64),
    BitFlips(u64),
    /// It stops before this call while others go on.
    Pauses(u64),
}

impl History {
    pub fn new(seed: u64, shape: Shape) -> Arc<Self> {
        let mut random = Rng::new(seed);
        let skews = [0, 0, 0, 2 * HOUR, -3 * DAY, 400 * DAY, -900 * DAY];
        let is_long = matches!(shape, Shape::Nights(_));
        let count = if is_long { 5 } else { 2 + random.below(3) };
        let host = |random: &mut Rng| {
            let cache = (random.below(4) == 0).then(folder);
            // Whoever forgets by rules looks at the clock, and in two years there is something to look at.
            let skews = if is_long { &skews[..4] } else { &skews[..] };
            Host { skew: skews[random.below(skews.len() as u64) as usize], cache }
        };
        let hosts = (0..count).map(|_| host(&mut random)).collect();
        let rot = random.below(4) == 0 && !is_long;
        let streams = if is_long { count } else { 1 + random.below(3) };
        let streams = (0..streams).map(|stream| fresh(&mut random, stream)).collect();
        let state = State {
            random,
            now: FAR,
            truth: BTreeMap::new(),
            fresh: Vec::new(),
            forgotten: BTreeSet::new(),
            streams,
            log: Vec::new(),
            calls: blake3::Hasher::new(),
            rot,
            loose: Vec::new(),
        };
        let history = Self {
            seed,
            shape,
            store: Memory::new(),
            second: Memory::new(),
            hosts,
            state: Mutex::new(state),
            drawn: AtomicU64::new(0),
            took: AtomicBool::new(false),
        };
        // Chunks so small that a few KB are many of them.
        let chunker = || ChunkerParameters { min: 256, avg: 512, max: 2048, ..ChunkerParameters::default() };
        for (store, host) in [(&history.store, 0), (&history.second, 1)] {
            Repository::create_cut(Arc::new(store.clone()), opening(history.world(host), None), "test", chunker()).unwrap();
        }
        Arc::new(history)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A host's clock and randomness.
    pub fn world(&self, host: usize) -> World {
        let number = self.drawn.fetch_add(1, Ordering::SeqCst);
        let start = self.state().now + self.hosts[host].skew;
        world(self.seed.wrapping_mul(1_000_003).wrapping_add(number), start)
    }

    pub fn open(&self, store: Arc<dyn Backend>, host: usize) -> Result<Repository> {
        let cache = self.hosts[host].cache.as_ref().map(|folder| folder.path());
        Repository::open(store, opening(self.world(host), cache))
    }

    /// As a machine sees it that never was there before.
    pub fn stranger(&self) -> Repository {
        Repository::open(Arc::new(self.store.clone()), opening(self.world(0), None)).unwrap()
    }

    pub fn draw(&self, end: u64) -> u64 {
        self.state().random.below(end)
    }

    pub fn wait(&self, seconds: i64) {
        self.state().now += seconds;
    }

    pub fn log(&self, text: String) {
        self.state().log.push(text);
    }

    pub fn log_so_far(&self) -> Vec<String> {
        self.state().log.clone()
    }

    /// Of all that was asked of the store.
    pub fn fingerprint(&self) -> [u8; 32] {
        *self.state().calls.finalize().as_bytes()
    }

    fn trouble(&self, depth: u64) -> Trouble {
        // Early calls more often than late ones: all operations have these.
        let call = self.draw(1 << self.draw(8));
        match self.draw(20) {
            0 if self.state().rot => Trouble::Tears { call, bytes: self.draw(2000) as usize },
            0..3 => Trouble::Crash { call, done: self.draw(2) == 0 },
            3 => Trouble::Fails(call),
            4 => Trouble::ReplyLost(call),
            5 => Trouble::BitFlips(call),
            6..12 if depth < DEPTH_MAX => Trouble::Pauses(call),
            _ => Trouble::None,
        }
    }

    /// The store as one operation finds it.
    fn troubled(self: &Arc<Self>, trouble: Trouble, depth: u64) -> Arc<dyn Backend> {
        let (history, resumed, seen) = (self.clone(), AtomicBool::new(false), AtomicBool::new(false));
        let plan = move |call: &Call| {
            let changes = matches!(call.operation, Operation::Put | Operation::Delete | Operation::SetAside);
            let reads = matches!(call.operation, Operation::Get | Operation::ReadAt);
            let fault = match trouble {
                Trouble::Crash { call: number, done: true } if call.number >= number => {
                    // The first change from there on is done, and everything behind it is not.
                    (seen.load(Ordering::SeqCst) || !changes)
                        .then_some(Fault::Crash)
                        .or_else(|| (!seen.swap(true, Ordering::SeqCst)).then_some(Fault::StoredThenError(StorageErrorKind::Other)))
                }
                Trouble::Tears { call: number, bytes } if call.number >= number => {
                    let tears = call.operation == Operation::Put && !seen.swap(true, Ordering::SeqCst);
                    match tears {
                        true => Some(Fault::TornThenError(bytes)),
                        // Reads on the way to it are answered.
                        false => seen.load(Ordering::SeqCst).then_some(Fault::Crash),
                    }
                }
                Trouble::Crash { call: number, done: false } => (call.number >= number).then_some(Fault::Crash),
                // What fails once is tried again.
                Trouble::Fails(number) => (number..number + 2).contains(&call.number).then_some(Fault::Error(StorageErrorKind::Transient)),
                Trouble::ReplyLost(number) if changes => {
                    (call.number == number).then_some(Fault::StoredThenError(StorageErrorKind::Transient))
                }
                Trouble::BitFlips(number) if reads => (call.number == number).then_some(Fault::FlipBit(number.wrapping_mul(7919))),
                Trouble::Pauses(number) if call.number >= number && !resumed.swap(true, Ordering::SeqCst) => {
                    history.log(format!("{:depth$}(meanwhile", "", depth = depth as usize * 2));
                    match if history.is_long() { 1 } else { history.draw(8) } {
                        // What whoever stopped relies on is needed by nobody any more, and deleted.
                        0 => history.raze(depth + 1),
                        _ => (0..1 + history.draw(3)).for_each(|_| history.step(depth + 1)),
                    }
                    history.log(format!("{:depth$})", "", depth = depth as usize * 2));
                    None
                }
                _ => None,
            };
            history.note(call, fault);
            fault
        };
        Arc::new(Faulty::new(self.store.clone(), plan))
    }

    /// Writes down a call to the store.
    fn note(&self, call: &Call, fault: Option<Fault>) {
        self.loosen(call, fault);
        let takes = matches!(call.operation, Operation::Delete | Operation::SetAside);
        if takes && matches!(call.area, Area::Packs | Area::Segments) {
            self.took.store(true, Ordering::SeqCst);
        }
        let name = call.place.map_or("", |place| &place.name);
        let mut state = self.state();
        state.calls.update(&[call.operation as u8, call.area as u8, fault.is_some().into()]).update(name.as_bytes());
        if *CALLS {
            state.log.push(format!("      {} {:?} {:?} {name} {fault:?}", call.number, call.operation, call.area));
        }
    }

    /// A change whose caller did not live to sync its folder is not durable until somebody syncs that folder.
    fn loosen(&self, call: &Call, fault: Option<Fault>) {
        if (call.operation, fault) == (Operation::Settle, None) {
            self.state().loose.retain(|loose| loose.place().area.folder() != call.area.folder());
        }
        let Some(place) = call.place else { return };
        let loose = match (call.operation, fault) {
            (Operation::Put, Some(Fault::StoredThenError(_))) => Some(Loose::Put(place.clone())),
            (Operation::Delete | Operation::SetAside, Some(Fault::StoredThenError(_))) => {
                self.store.get(place, u64::MAX).ok().map(|bytes| Loose::Deleted(place.clone(), bytes))
            }
            (Operation::Put | Operation::Delete | Operation::SetAside, None) => None,
            _ => return,
        };
        let there = self.store.get(place, u64::MAX).is_ok();
        let mut state = self.state();
        match loose {
            // Of what is there already nothing is put.
            Some(Loose::Put(_)) if there => {}
            Some(loose) => state.loose.push(loose),
            // What is not there is not deleted, and no folder synced for it.
            None if !there && call.operation != Operation::Put => {}
            None => state.loose.retain(|loose| folder_of(loose.place()) != folder_of(place)),
        }
    }

    /// The power of the store fails when nobody is at work.
    pub fn cut_power(&self) {
        let loose = std::mem::take(&mut self.state().loose);
        for change in loose.into_iter().rev() {
            if self.draw(2) == 0 {
                continue;
            }
            self.log(format!("undone: {}", change.place()));
            self.took.store(true, Ordering::SeqCst);
            match change {
                Loose::Put(place) => drop(self.store.remove(&place)),
                Loose::Deleted(place, bytes) => self.store.insert(place, bytes),
            }
        }
    }

    /// Some act of some host, and what goes wrong with it.
    pub fn step(self: &Arc<Self>, depth: u64) {
        let act = ACTS[self.draw(ACTS.len() as u64) as usize];
        let host = self.draw(self.hosts.len() as u64) as usize;
        if depth > 0 && matches!(act, Act::PruneAlone | Act::Rot | Act::PowerCut) {
            return;
        }
        self.act(act, host, depth);
        // Often it is the power that made it crash.
        if depth == 0 && self.draw(3) == 0 {
            self.cut_power();
        }
    }

    fn is_long(&self) -> bool {
        matches!(self.shape, Shape::Nights(_))
    }

    fn raze(self: &Arc<Self>, depth: u64) {
        for act in [Act::ForgetAll, Act::PruneAtOnce] {
            self.act(act, self.draw(self.hosts.len() as u64) as usize, depth);
        }
    }

    fn act(self: &Arc<Self>, act: Act, host: usize, depth: u64) {
        let trouble = match act {
            Act::Rot | Act::PowerCut | Act::Wait => Trouble::None,
            // It says itself that it is alone.
            Act::PruneAlone => match self.trouble(DEPTH_MAX) {
                Trouble::Pauses(_) => Trouble::None,
                trouble => trouble,
            },
            _ => self.trouble(depth),
        };
        self.log(format!("{:depth$}host {host} {act:?} {trouble:?}", "", depth = depth as usize * 2));
        let store = self.troubled(trouble, depth);
        let outcome = self.open(store, host).and_then(|repository| self.perform(act, host, &repository));
        if let Err(error) = &outcome {
            self.log(format!("{:depth$}-> {error}", "", depth = depth as usize * 2));
            let is_calm = trouble == Trouble::None && depth == 0 && !self.state().rot;
            // Without trouble and alone nothing fails, but for what has nothing to do.
            let is_refusal = matches!(error, Error::NotFound(_) | Error::Usage(_) | Error::Refused { .. });
            let waits_for_prune = act == Act::Tag && matches!(error, Error::Conflict(_));
            assert!(!is_calm || is_refusal || waits_for_prune, "{error}");
        }
        let calls = blake3::Hash::from(self.fingerprint()).to_hex();
        self.wait(if self.is_long() { 600 } else { 60 + self.draw(20 * HOUR as u64) as i64 });
        self.log(format!("{:depth$}= {}", "", &calls[..8], depth = depth as usize * 2));
    }

    pub fn run(self: &Arc<Self>) -> u64 {
        match self.shape {
            Shape::Steps => self.wander(),
            Shape::Nights(nights) => self.nights(nights),
        }
    }

    fn wander(self: &Arc<Self>) -> u64 {
        // Most are short: what goes wrong needs few steps, and the more a store holds the longer each takes.
        let steps = STEPS_MIN + self.draw(1 + self.draw(STEPS_MAX - STEPS_MIN));
        for step in 0..steps {
            self.step(0);
            self.judge();
            if step % 50 == 49 {
                self.check();
            }
        }
        self.judge_all();
        self.check();
        steps
    }

    fn nights(self: &Arc<Self>, nights: u64) -> u64 {
        let start = self.state().now;
        for night in 0..nights {
            let now = start + night as i64 * DAY;
            let mut state = self.state();
            state.now = state.now.max(now);
            drop(state);
            self.log(format!("night {night}"));
            let hosts = self.hosts.len();
            for host in 0..hosts {
                self.act(Act::BackUp, host, 0);
            }
            self.act(Act::ForgetByRules, night as usize % hosts, 0);
            match night % 7 {
                2 => self.act(Act::Prune, self.draw(hosts as u64) as usize, 0),
                5 => self.act(Act::Copy, self.draw(hosts as u64) as usize, 0),
                _ => {}
            }
            if self.draw(10) == 0 {
                self.step(0);
            }
            self.judge();
            if night % 91 == 90 {
                self.check();
            }
        }
        self.judge_all();
        self.check();
        nights
    }
}

/// The folder that is synced for a change to this file.
fn folder_of(place: &Place) -> String {
    place.path().rsplit_once('/').map(|(folder, _)| folder.to_owned()).unwrap_or_default()
}

/// Where nothing waits for a disk, if there is such a place.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// Some KB of lines and noise.
fn fresh(random: &mut Rng, stream: u64) -> Vec<u8> {
    let seed = random.next();
    let size = 8 + random.below(6);
    let len = 1 + random.below(1 << size) as usize;
    if (seed ^ stream).is_multiple_of(4) { noise(seed, len) } else { lines(seed, len) }
}

/// Another night.
pub fn edit(bytes: &mut Vec<u8>, random: &mut Rng) {
    match random.below(12) {
        0 => *bytes = fresh(random, 0),
        1 => bytes.truncate(1 + random.below(bytes.len() as u64) as usize),
        2 => {}
        3..6 => bytes.extend(lines(random.next(), 1 + random.below(1000) as usize)),
        _ => {
            for _ in 0..1 + random.below(4) {
                let at = random.below(bytes.len() as u64) as usize;
                let end = bytes.len().min(at + random.below(60) as usize);
                bytes.splice(at..end, format!("{:x}", random.next()).into_bytes());
            }
        }
    }
    if bytes.is_empty() {
        bytes.push(b'x');
    }
    bytes.truncate(STREAM_BYTES_MAX);
}
