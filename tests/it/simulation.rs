//! Whole histories from a seed: several hosts back up, forget, tag, prune, repair, copy and read in one store, stop in the middle of
//! it for hours, crash at any call, get errors, lost replies and flipped bits, and have clocks years apart; in some histories stored
//! bytes rot. After each step that can hurt, what was reported as saved and not forgotten must come back, to the byte.
//!
//! `HISTORIES=100000 cargo test --release --test it simulation` runs more of them, `SEED` another series, `HISTORY` one of a series.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use snap_backup::backend::{Area, Backend, Call, Fault, Faulty, Memory, Operation, Place};
use snap_backup::error::{Error, Result, StorageErrorKind};
use snap_backup::id::SnapshotId;
use snap_backup::ops::backup::BackupOptions;
use snap_backup::ops::copy::{CopyOptions, copy};
use snap_backup::ops::forget::{self, Choice, ForgetOptions};
use snap_backup::ops::prune::{MaxUnused, PruneOptions, prune};
use snap_backup::ops::repair::{Mode, PacksOptions, SnapshotsOptions, repair_index, repair_packs, repair_snapshots};
use snap_backup::ops::tag::{TagChange, tag};
use snap_backup::progress::Silent;
use snap_backup::repo::{Repository, SnapshotFilter, Stored};
use snap_backup::world::World;

use crate::support::*;

/// Histories that a test run tries.
const HISTORIES: u64 = 12;
const STEPS_MIN: u64 = 50;
const STEPS_MAX: u64 = 200;
/// Operations inside operations.
const DEPTH_MAX: u64 = 2;
const HOUR: i64 = 3600;
/// Seconds that packs stay condemned.
const GRACE: Duration = Duration::from_secs(20 * 3600);

/// What is known of a snapshot that was reported as saved.
#[derive(Clone)]
struct Known {
    bytes: Arc<Vec<u8>>,
    /// Stored bytes that it needs have rotted: it may be gone, but never be wrong.
    hurt: bool,
}

/// What all hosts see, and what only the observer knows.
struct State {
    random: Rng,
    /// Seconds since 1970, by the observer's clock.
    now: i64,
    truth: BTreeMap<SnapshotId, Known>,
    forgotten: BTreeSet<SnapshotId>,
    streams: Vec<Vec<u8>>,
    log: Vec<String>,
    /// Somebody may rely on packs being there that a prune without grace deletes under it.
    rot: bool,
}

struct History {
    seed: u64,
    store: Memory,
    second: Memory,
    /// Seconds by which each host's clock is wrong, and where its index is.
    hosts: Vec<(i64, Option<tempfile::TempDir>)>,
    state: Mutex<State>,
    drawn: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    BackUp,
    Forget,
    Tag,
    Prune,
    PruneAlone,
    RepairIndex,
    RepairPacks,
    RepairSnapshots,
    Copy,
    Read,
    Rot,
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
    Fails(u64),
    ReplyLost(u64),
    BitFlips(u64),
    /// It stops before this call while others go on.
    Pauses(u64),
}

impl History {
    fn new(seed: u64) -> Arc<Self> {
        let mut random = Rng::new(seed);
        let skews = [0, 0, 0, 2 * HOUR, -3 * 24 * HOUR, 400 * 24 * HOUR, -900 * 24 * HOUR];
        let count = 2 + random.below(3);
        let host = |random: &mut Rng| {
            let cache = (random.below(4) == 0).then(|| tempfile::tempdir().unwrap());
            (skews[random.below(skews.len() as u64) as usize], cache)
        };
        let hosts = (0..count).map(|_| host(&mut random)).collect();
        let rot = random.below(4) == 0;
        let streams = (0..1 + random.below(3)).map(|stream| fresh(&mut random, stream)).collect();
        let state = State { random, now: FAR, truth: BTreeMap::new(), forgotten: BTreeSet::new(), streams, log: Vec::new(), rot };
        let history = Self { seed, store: Memory::new(), second: Memory::new(), hosts, state: Mutex::new(state), drawn: AtomicU64::new(0) };
        Repository::create(Arc::new(history.store.clone()), opening(history.world(0), None), "test").unwrap();
        Repository::create(Arc::new(history.second.clone()), opening(history.world(1), None), "test").unwrap();
        Arc::new(history)
    }

    /// A host's clock and randomness.
    fn world(&self, host: usize) -> World {
        let number = self.drawn.fetch_add(1, Ordering::SeqCst);
        let start = self.state.lock().unwrap().now + self.hosts[host].0;
        world(self.seed.wrapping_mul(1_000_003).wrapping_add(number), start)
    }

    fn open(&self, store: Arc<dyn Backend>, host: usize) -> Result<Repository> {
        let cache = self.hosts[host].1.as_ref().map(|folder| folder.path());
        Repository::open(store, opening(self.world(host), cache))
    }

    /// As a machine sees it that never was there before.
    fn stranger(&self) -> Repository {
        Repository::open(Arc::new(self.store.clone()), opening(self.world(0), None)).unwrap()
    }

    fn draw(&self, end: u64) -> u64 {
        self.state.lock().unwrap().random.below(end)
    }

    fn log(&self, text: String) {
        self.state.lock().unwrap().log.push(text);
    }

    fn trouble(&self, depth: u64) -> Trouble {
        // Early calls more often than late ones: all operations have these.
        let call = self.draw(1 << self.draw(8));
        match self.draw(20) {
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
            match trouble {
                Trouble::Crash { call: number, done: true } if call.number >= number => {
                    // The first change from there on is done, and everything behind it is not.
                    (seen.load(Ordering::SeqCst) || !changes)
                        .then_some(Fault::Crash)
                        .or_else(|| (!seen.swap(true, Ordering::SeqCst)).then_some(Fault::StoredThenError(StorageErrorKind::Other)))
                }
                Trouble::Crash { call: number, done: false } => (call.number >= number).then_some(Fault::Crash),
                Trouble::Fails(number) => (call.number == number).then_some(Fault::Error(StorageErrorKind::Transient)),
                Trouble::ReplyLost(number) if changes => {
                    (call.number == number).then_some(Fault::StoredThenError(StorageErrorKind::Transient))
                }
                Trouble::BitFlips(number) if reads => (call.number == number).then_some(Fault::FlipBit(number.wrapping_mul(7919))),
                Trouble::Pauses(number) if call.number >= number && !resumed.swap(true, Ordering::SeqCst) => {
                    history.log(format!("{:depth$}(meanwhile", "", depth = depth as usize * 2));
                    for _ in 0..1 + history.draw(3) {
                        history.step(depth + 1);
                    }
                    history.log(format!("{:depth$})", "", depth = depth as usize * 2));
                    None
                }
                _ => None,
            }
        };
        Arc::new(Faulty::new(self.store.clone(), plan))
    }

    fn step(self: &Arc<Self>, depth: u64) {
        let act = ACTS[self.draw(ACTS.len() as u64) as usize];
        let host = self.draw(self.hosts.len() as u64) as usize;
        let trouble = match act {
            Act::Rot | Act::Wait => Trouble::None,
            // It says itself that it is alone.
            Act::PruneAlone => match self.trouble(DEPTH_MAX) {
                Trouble::Pauses(_) => Trouble::None,
                trouble => trouble,
            },
            _ => self.trouble(depth),
        };
        if depth > 0 && matches!(act, Act::PruneAlone | Act::Rot) {
            return;
        }
        self.log(format!("{:depth$}host {host} {act:?} {trouble:?}", "", depth = depth as usize * 2));
        let store = self.troubled(trouble, depth);
        let outcome = self.open(store, host).and_then(|repository| self.perform(act, host, &repository));
        if let Err(error) = &outcome {
            self.log(format!("{:depth$}-> {error}", "", depth = depth as usize * 2));
            let is_calm = trouble == Trouble::None && depth == 0 && !self.state.lock().unwrap().rot;
            // Without trouble and alone nothing fails, but for what has nothing to do.
            let is_refusal = matches!(error, Error::NotFound(_) | Error::Usage(_) | Error::Refused { .. });
            let waits_for_prune = act == Act::Tag && matches!(error, Error::Conflict(_));
            assert!(!is_calm || is_refusal || waits_for_prune, "{error}");
        }
        self.state.lock().unwrap().now += 60 + self.draw_unlocked(20 * HOUR as u64) as i64;
    }

    /// Not while the state is locked by the same expression.
    fn draw_unlocked(&self, end: u64) -> u64 {
        // Of its own: the clock must not depend on how threads draw.
        let number = self.drawn.fetch_add(1, Ordering::SeqCst);
        Rng::new(self.seed ^ number).below(end)
    }

    fn perform(&self, act: Act, host: usize, repository: &Repository) -> Result<()> {
        let name = format!("host{host}");
        let pick = |state: &mut State| -> Option<SnapshotId> {
            let count = state.truth.len() as u64;
            let at = state.random.below(count) as usize;
            state.truth.keys().nth(at).copied()
        };
        match act {
            Act::BackUp => self.back_up(&name, repository),
            Act::Forget => {
                let ids: BTreeSet<SnapshotId> = {
                    let mut state = self.state.lock().unwrap();
                    let count = 1 + state.random.below(3);
                    (0..count).filter_map(|_| pick(&mut state)).collect()
                };
                if ids.is_empty() {
                    return Ok(());
                }
                let selectors = ids.iter().map(|id| id.hex()).collect();
                let choice = Choice::Named { selectors, allow_last: true };
                let options = ForgetOptions { choice, filter: SnapshotFilter::default(), zone: jiff::tz::TimeZone::UTC };
                let plan = forget::plan(repository, &options, &Silent)?;
                {
                    let mut state = self.state.lock().unwrap();
                    for stored in plan.removed() {
                        state.forgotten.insert(stored.id);
                        state.truth.remove(&stored.id);
                    }
                }
                forget::execute(repository, &plan, &name, &Silent)
            }
            Act::Tag => {
                let Some(id) = pick(&mut self.state.lock().unwrap()) else { return Ok(()) };
                self.tag(id, &name, repository)
            }
            Act::Prune | Act::PruneAlone => {
                let exclusive = act == Act::PruneAlone;
                let max_unused = if self.draw(2) == 0 { MaxUnused::Bytes(0) } else { MaxUnused::Percent(5.0) };
                let grace = if exclusive || self.draw(3) == 0 { Duration::ZERO } else { GRACE };
                prune(repository, &PruneOptions { max_unused, grace, exclusive, ..PruneOptions::new(name) }, &Silent).map(drop)
            }
            Act::RepairIndex => repair_index(repository, Mode::Act, &Silent).map(drop),
            Act::RepairPacks => repair_packs(repository, &PacksOptions { read_data: true, ..PacksOptions::default() }, &Silent).map(drop),
            Act::RepairSnapshots => {
                let options = SnapshotsOptions { host: name, ..SnapshotsOptions::default() };
                let report = repair_snapshots(repository, &options, &Silent)?;
                let mut state = self.state.lock().unwrap();
                for cut in report.cut {
                    let known = state.truth.remove(&cut.original);
                    assert!(known.is_none_or(|known| known.hurt), "a sound snapshot was cut: {:?}", cut.lost);
                    state.forgotten.insert(cut.original);
                }
                Ok(())
            }
            Act::Copy => self.copy(repository),
            Act::Read => {
                let Some(id) = pick(&mut self.state.lock().unwrap()) else { return Ok(()) };
                let Some(known) = self.state.lock().unwrap().truth.get(&id).cloned() else { return Ok(()) };
                let bytes = read(repository, &id.hex())?;
                assert!(bytes == *known.bytes, "{id} came back wrong");
                Ok(())
            }
            Act::Rot => {
                self.rot();
                Ok(())
            }
            Act::Wait => {
                self.state.lock().unwrap().now += 30 * HOUR;
                Ok(())
            }
        }
    }

    fn back_up(&self, host: &str, repository: &Repository) -> Result<()> {
        let (bytes, name) = {
            let mut state = self.state.lock().unwrap();
            let State { random, streams, .. } = &mut *state;
            let at = random.below(streams.len() as u64) as usize;
            edit(&mut streams[at], random);
            (streams[at].clone(), format!("stream{at}"))
        };
        let options = BackupOptions { threads: 1, name: Some(name), ..BackupOptions::new(host) };
        let report = save(repository, &bytes, &options)?;
        let id = report.snapshot.expect("it is no dry run");
        // A backup relies on old chunks without reading them: if these have rotted unnoticed, a check finds that, and no backup.
        let has_rotted = self.state.lock().unwrap().rot;
        let hurt = has_rotted && read(&self.stranger(), &id.hex()).is_err();
        let mut state = self.state.lock().unwrap();
        // Others see it before we do, and may have forgotten it already.
        if !state.forgotten.contains(&id) {
            state.truth.insert(id, Known { bytes: Arc::new(bytes), hurt });
        }
        Ok(())
    }

    /// Afterwards there is the old one or the new one, and both at times.
    fn tag(&self, id: SnapshotId, host: &str, repository: &Repository) -> Result<()> {
        let chosen = repository.snapshot(id)?;
        let first = chosen.snapshot.original.unwrap_or(id);
        let Some(known) = self.state.lock().unwrap().truth.remove(&id) else { return Ok(()) };
        let tags = vec![format!("t{}", self.draw(100))];
        let outcome = tag(repository, vec![chosen], &TagChange::Set(tags), host, &Silent);
        let (there, _) = self.stranger().snapshots().unwrap();
        let mut state = self.state.lock().unwrap();
        if state.forgotten.contains(&id) {
            return outcome.map(drop);
        }
        // Whose tags were changed twice names the first.
        let forgotten = &state.forgotten;
        let is_heir = |stored: &&Stored| (stored.id == id || stored.snapshot.original == Some(first)) && !forgotten.contains(&stored.id);
        let heirs: Vec<SnapshotId> = there.iter().filter(is_heir).map(|stored| stored.id).collect();
        assert!(!heirs.is_empty() || state.rot, "neither {id} nor what took its place is there");
        for heir in heirs {
            // What a crash left of both is one too many, and not one too few.
            state.truth.entry(heir).or_insert(known.clone());
        }
        outcome.map(drop)
    }

    fn copy(&self, from: &Repository) -> Result<()> {
        let to = Repository::open(Arc::new(self.second.clone()), opening(self.world(0), None))?;
        let options = CopyOptions { threads: 1, ..CopyOptions::default() };
        copy(from, &to, &options, &Silent, &mut |_, _| Ok(()))?;
        let (copies, _) = to.snapshots()?;
        let truth = self.state.lock().unwrap().truth.clone();
        for copied in copies.iter().filter(|_| self.draw(4) == 0) {
            let Some(known) = copied.snapshot.original.and_then(|original| truth.get(&original)) else { continue };
            assert!(read(&to, &copied.id.hex())? == *known.bytes, "the copy {} is wrong", copied.id);
        }
        Ok(())
    }

    /// Bytes in the store are no longer what they were; what that hurts is found out at once.
    fn rot(&self) {
        if !self.state.lock().unwrap().rot {
            return;
        }
        let places: Vec<Place> =
            self.store.places().into_iter().filter(|place| matches!(place.area, Area::Packs | Area::Segments)).collect();
        if places.is_empty() {
            return;
        }
        let place = &places[self.draw(places.len() as u64) as usize];
        let bit = self.draw(1 << 30);
        match self.draw(3) {
            0 => drop(self.store.remove(place)),
            1 => self.store.edit(place, |bytes| bytes.truncate(bit as usize % bytes.len())),
            _ => self.store.edit(place, |bytes| {
                let at = bit as usize % bytes.len();
                bytes[at] ^= 1 << (bit % 8);
            }),
        }
        self.log(format!("rotten: {place}"));
        let truth = self.state.lock().unwrap().truth.clone();
        let stranger = self.stranger();
        for (id, known) in truth {
            let is_whole = read(&stranger, &id.hex()).is_ok_and(|bytes| bytes == *known.bytes);
            if let Some(known) = self.state.lock().unwrap().truth.get_mut(&id) {
                known.hurt |= !is_whole;
            }
        }
    }

    /// What was saved comes back.
    fn judge(&self, all: bool) {
        let truth = self.state.lock().unwrap().truth.clone();
        let stranger = self.stranger();
        for (id, known) in &truth {
            if !all && self.draw(truth.len() as u64) > 2 {
                continue;
            }
            match read(&stranger, &id.hex()) {
                Ok(bytes) => assert!(bytes == *known.bytes, "{id} came back wrong"),
                Err(error) => assert!(known.hurt, "{id} does not come back: {error}"),
            }
        }
        if all && !self.state.lock().unwrap().rot {
            let report = check_all(&stranger).unwrap();
            assert!(report.affected.is_empty(), "{:?} {:?}", report.affected, report.findings);
        }
    }

    fn run(self: &Arc<Self>) -> u64 {
        let steps = STEPS_MIN + self.draw(STEPS_MAX - STEPS_MIN);
        for step in 0..steps {
            self.step(0);
            self.judge(step % 8 == 0 || step + 1 == steps);
        }
        steps
    }
}

/// Some KB of lines and noise.
fn fresh(random: &mut Rng, stream: u64) -> Vec<u8> {
    let seed = random.next();
    let size = 10 + random.below(8);
    let len = 1 + random.below(1 << size) as usize;
    if (seed ^ stream).is_multiple_of(4) { noise(seed, len) } else { lines(seed, len) }
}

/// Another night.
fn edit(bytes: &mut Vec<u8>, random: &mut Rng) {
    match random.below(12) {
        0 => *bytes = fresh(random, 0),
        1 => bytes.truncate(1 + random.below(bytes.len() as u64) as usize),
        2 => {}
        3..6 => bytes.extend(lines(random.next(), 1 + random.below(5000) as usize)),
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
    bytes.truncate(160 << 10);
}

fn run(seed: u64) -> u64 {
    let history = History::new(seed);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| history.run()));
    outcome.unwrap_or_else(|panic| {
        let log = match history.state.lock() {
            Ok(state) => state.log.clone(),
            Err(poisoned) => poisoned.into_inner().log.clone(),
        };
        println!("{}", log.join("\n"));
        println!("repeat it with HISTORY={seed} cargo test --test it simulation");
        std::panic::resume_unwind(panic)
    })
}

#[test]
fn histories_of_many_hosts_lose_nothing() {
    if let Ok(text) = std::env::var("HISTORY") {
        run(text.parse().expect("HISTORY is a number"));
        return;
    }
    let count = std::env::var("HISTORIES").map_or(HISTORIES, |text| text.parse().expect("HISTORIES is a number"));
    let mut seeds = Rng::new(seed("histories of many hosts"));
    let (begun, mut steps) = (std::time::Instant::now(), 0);
    for _ in 0..count {
        steps += run(seeds.next() >> 16);
    }
    println!("{count} histories, {steps} steps, {:.1} s", begun.elapsed().as_secs_f64());
}

/// Histories that once failed.
#[test]
fn histories_that_failed_once() {
    for seed in [] {
        run(seed);
    }
}

/// So that the time is used for something.
#[test]
fn clocks_of_a_history_go_on() {
    let history = History::new(1);
    let before: Timestamp = history.world(0).now();
    history.state.lock().unwrap().now += HOUR;
    assert!(history.world(0).now() > before);
}
