//! Prune and everything that can come between: crashes, a full store, lost replies, wrong reads, other hosts at any moment, damage.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use snap_backup::backend::{Area, Backend, Call, Fault, Faulty, Listed, Memory, MemoryState, Operation, Place};
use snap_backup::compression::Level;
use snap_backup::error::{Error, Result, StorageError, StorageErrorKind};
use snap_backup::id::SnapshotId;
use snap_backup::limits::PACK_BYTES_TARGET;
use snap_backup::ops::prune::{PruneOptions, PruneReport, prune};
use snap_backup::ops::repair::{Mode, repair_index};
use snap_backup::progress::Silent;
use snap_backup::repo::{Move, Mover, Ordinals};

use crate::cli::wait_for;
use crate::prune::*;
use crate::support::*;

type Truth = Vec<(SnapshotId, Vec<u8>)>;

/// A repository in which something was forgotten, as it is before a prune.
struct Before {
    bench: Bench,
    state: MemoryState,
    truth: Truth,
    versions: Vec<Vec<u8>>,
}

impl Before {
    fn new() -> Self {
        let versions = nights_of(4, 150_000);
        let mut scene = Scene::new(31, &versions);
        scene.forget(&[0, 2]);
        Self { state: scene.memory.snapshot(), bench: scene.bench, truth: scene.truth, versions }
    }

    /// The same, after a prune condemned packs and before the next deletes them.
    fn announced() -> Self {
        let before = Self::new();
        let (bench, memory) = before.bench();
        assert!(run(&bench, &thorough(NIGHT)).unwrap().packs_condemned > 0);
        Self { state: memory.snapshot(), bench, ..before }
    }

    fn bench(&self) -> (Bench, Memory) {
        let memory = Memory::new();
        memory.restore(self.state.clone());
        (self.bench.over(Arc::new(memory.clone())), memory)
    }

    fn prune_over(&self, bench: &Bench, store: Arc<dyn Backend>, options: &PruneOptions) -> Result<PruneReport> {
        prune(&bench.try_open_on(store)?, options, &Silent)
    }

    fn calls(&self, options: &PruneOptions) -> u64 {
        let (bench, memory) = self.bench();
        let store = Arc::new(Faulty::new(memory, |_| None));
        self.prune_over(&bench, store.clone(), options).unwrap();
        store.calls()
    }

    /// The next prunes end well, and free what a prune without trouble frees.
    fn judge_next(&self, bench: &Bench, memory: &Memory, options: &PruneOptions, case: &str) {
        judge(bench, &self.truth, case);
        for _ in 0..3 {
            run(bench, options).unwrap_or_else(|error| panic!("{case}: the next prune: {error}"));
        }
        judge(bench, &self.truth, case);
        let (calm, calm_memory) = self.bench();
        for _ in 0..3 {
            run(&calm, options).unwrap();
        }
        let (after, expected) = (pack_bytes(memory), pack_bytes(&calm_memory));
        assert!(after <= expected + expected / 20, "{case}: {after} and not about {expected}");
    }
}

/// Runs with a fault at each call in turn.
fn sweep(before: &Before, options: &PruneOptions, fault: impl Fn(Operation) -> Option<Fault> + Copy + Send + Sync + 'static) -> u64 {
    let mut failed = 0;
    for number in 0..before.calls(options) + 2 {
        let (bench, memory) = before.bench();
        let store = Faulty::new(memory.clone(), move |call| if call.number == number { fault(call.operation) } else { None });
        let outcome = before.prune_over(&bench, Arc::new(store), options);
        failed += u64::from(outcome.is_err());
        before.judge_next(&bench, &memory, options, &format!("call {number}, {outcome:?}"));
    }
    failed
}

#[test]
fn a_crash_at_any_call_of_a_prune() {
    for options in [exclusive(), thorough(Duration::ZERO)] {
        assert!(sweep(&Before::new(), &options, |_| Some(Fault::Crash)) > 50);
    }
}

#[test]
fn a_crash_at_any_call_of_a_prune_that_condemns() {
    assert!(sweep(&Before::new(), &thorough(NIGHT), |_| Some(Fault::Crash)) > 30);
}

#[test]
fn a_crash_at_any_call_of_a_prune_that_deletes_what_was_condemned() {
    assert!(sweep(&Before::announced(), &thorough(NIGHT), |_| Some(Fault::Crash)) > 30);
}

/// Acts on a store, and asserts that what a listing of an area showed was made to last before anything is changed of these: every listing
/// of snapshots, and one of packs, since only those that nobody listed matter. Returns how many changes there were.
fn lasts_before(changes: &'static [(Operation, Area)], area: Area, memory: &Memory, act: impl FnOnce(Arc<dyn Backend>)) -> u64 {
    let (seen, changed) = (Mutex::new(None), Arc::new(AtomicU64::new(0)));
    let count = changed.clone();
    let store = Faulty::new(memory.clone(), move |call| {
        let mut seen = seen.lock().unwrap();
        let is_new = call.operation == Operation::List && (area == Area::Snapshots || seen.is_none());
        if call.area == area && (is_new || call.operation == Operation::Settle) {
            *seen = Some(call.operation);
        }
        if changes.contains(&(call.operation, call.area)) {
            assert_eq!(*seen, Some(Operation::Settle), "{call:?}");
            count.fetch_add(1, Ordering::SeqCst);
        }
        None
    });
    act(Arc::new(store));
    changed.load(Ordering::SeqCst)
}

/// Else a power cut could bring back a snapshot whose removal was not durable, when what it needs is gone.
#[test]
fn what_snapshots_there_are_lasts_before_anything_is_deleted() {
    const CHANGES: &[(Operation, Area)] = &[(Operation::Delete, Area::Packs), (Operation::Delete, Area::Segments)];
    for options in [exclusive(), thorough(Duration::ZERO)] {
        let before = Before::new();
        let (bench, memory) = before.bench();
        let prune = |store| drop(before.prune_over(&bench, store, &options).unwrap());
        assert!(lasts_before(CHANGES, Area::Snapshots, &memory, prune) > 1);
    }
}

/// Else a power cut could take a pack of somebody who died before it was durable, when others rely on it.
#[test]
fn what_packs_there_are_lasts_before_they_are_relied_on() {
    let before = Before::new();
    let (bench, memory) = before.bench();
    let dies = |call: &Call| (call.operation == Operation::Put && call.area == Area::Segments).then_some(Fault::Crash);
    let dying = bench.try_open_on(Arc::new(Faulty::new(memory.clone(), dies))).unwrap();
    assert!(save(&dying, &noise(9, 300_000), &options()).is_err());
    const DELETIONS: &[(Operation, Area)] = &[(Operation::Delete, Area::Packs)];
    let prune = |store| drop(before.prune_over(&bench, store, &exclusive()).unwrap());
    assert!(lasts_before(DELETIONS, Area::Packs, &memory, prune) > 1);

    let unlisted = || {
        let (bench, memory) = before.bench();
        memory.places().iter().filter(|place| place.area == Area::Segments).for_each(|place| drop(memory.remove(place)));
        (bench, memory)
    };
    const LISTINGS: &[(Operation, Area)] = &[(Operation::Put, Area::Segments)];
    let (bench, memory) = unlisted();
    let repair = |store| drop(repair_index(&bench.try_open_on(store).unwrap(), Mode::Act, &Silent).unwrap());
    assert!(lasts_before(LISTINGS, Area::Packs, &memory, repair) > 0);
    judge(&bench, &before.truth, "after a repair");
    // A reader tells the index of them, on which a backup may rely.
    const READS: &[(Operation, Area)] = &[(Operation::ReadAt, Area::Packs)];
    let (bench, memory) = unlisted();
    let read = |store| assert!(read(&bench.without_cache().try_open_on(store).unwrap(), "latest").is_ok());
    assert!(lasts_before(READS, Area::Packs, &memory, read) > 0);
}

/// A crash, and another while the next prune goes on from there.
#[test]
fn a_crash_in_the_recovery_from_a_crash() {
    let mut random = Rng::new(seed("a_crash_in_the_recovery_from_a_crash"));
    for (before, options) in [(Before::new(), thorough(Duration::ZERO)), (Before::announced(), thorough(NIGHT))] {
        let calls = before.calls(&options);
        for first in 0..calls {
            let (bench, memory) = before.bench();
            let mut numbers = vec![first];
            for number in [first, random.below(calls), random.below(calls)] {
                let store = Faulty::at(memory.clone(), number, Fault::Crash);
                drop(before.prune_over(&bench, Arc::new(store), &options));
                numbers.push(number);
            }
            before.judge_next(&bench, &memory, &options, &format!("calls {numbers:?}"));
        }
    }
}

#[test]
fn a_lost_reply_or_a_failure_of_any_call_of_a_prune() {
    let lost = |operation| match operation {
        Operation::Put | Operation::Delete => Some(Fault::StoredThenError(StorageErrorKind::Transient)),
        _ => Some(Fault::Error(StorageErrorKind::Transient)),
    };
    sweep(&Before::new(), &thorough(Duration::ZERO), lost);
    sweep(&Before::announced(), &thorough(NIGHT), lost);
}

/// A bit that is wrong on its way to us once.
#[test]
fn a_read_with_a_flipped_bit_in_a_prune() {
    sweep(&Before::new(), &thorough(Duration::ZERO), |operation| match operation {
        Operation::Get | Operation::ReadAt => Some(Fault::FlipBit(977)),
        _ => None,
    });
}

/// A listing that shows only a part of what is there. Snapshots that are left out are missed, because the last prune saw them.
#[test]
fn a_listing_that_is_cut_short_in_a_prune() {
    let mut before = Before::new();
    let (bench, memory) = before.bench();
    run(&bench, &thorough(Duration::from_secs(1_000_000))).unwrap();
    (before.bench, before.state) = (bench, memory.snapshot());
    for left in 0..2 {
        for number in 0..before.calls(&thorough(Duration::ZERO)) {
            let (bench, memory) = before.bench();
            let store = Faulty::new(memory.clone(), move |call| {
                let is_cut = call.number == number && call.operation == Operation::List && call.area == Area::Snapshots;
                is_cut.then_some(Fault::Truncate(left))
            });
            drop(before.prune_over(&bench, Arc::new(store), &thorough(Duration::ZERO)));
            before.judge_next(&bench, &memory, &thorough(Duration::ZERO), &format!("{left} left by call {number}"));
        }
    }
}

#[test]
fn a_store_that_fills_up_at_any_write_of_a_prune() {
    for (before, options) in
        [(Before::new(), thorough(Duration::ZERO)), (Before::announced(), thorough(NIGHT)), (Before::new(), exclusive())]
    {
        for put in 0.. {
            let (bench, memory) = before.bench();
            let count = AtomicU64::new(0);
            let store = Faulty::new(memory.clone(), move |call| {
                let full = call.operation == Operation::Put && count.fetch_add(1, Ordering::SeqCst) >= put;
                full.then_some(Fault::Error(StorageErrorKind::Full))
            });
            let outcome = before.prune_over(&bench, Arc::new(store), &options);
            let case = format!("full at write {put}");
            for (id, bytes) in &before.truth {
                assert!(bench.dump(&id.hex()).unwrap() == *bytes, "{case}");
            }
            // Without even a record, a check says that packs are gone, until there is room again.
            if !options.exclusive {
                assert_clean(&bench.open());
            }
            match outcome {
                Ok(_) => break,
                Err(Error::Storage(error)) => assert_eq!(error.kind, StorageErrorKind::Full, "{case}"),
                Err(error) => panic!("{case}: {error}"),
            }
            run(&bench, &options).unwrap();
            before.judge_next(&bench, &memory, &options, &case);
        }
    }
}

/// A store of a certain size.
struct Bounded {
    inner: Memory,
    free: Mutex<u64>,
}

impl Backend for Bounded {
    fn put(&self, place: &Place, bytes: &[u8]) -> snap_backup::backend::Result<()> {
        let mut free = self.free.lock().unwrap();
        if bytes.len() as u64 > *free {
            let source = std::io::Error::from_raw_os_error(28);
            return Err(StorageError {
                kind: StorageErrorKind::Full,
                action: "write",
                object: place.to_string(),
                location: "x".into(),
                source,
            });
        }
        self.inner.put(place, bytes)?;
        *free -= bytes.len() as u64;
        Ok(())
    }

    fn get(&self, place: &Place, bytes_max: u64) -> snap_backup::backend::Result<Vec<u8>> {
        self.inner.get(place, bytes_max)
    }

    fn read_at(&self, place: &Place, offset: u64, buffer: &mut [u8]) -> snap_backup::backend::Result<()> {
        self.inner.read_at(place, offset, buffer)
    }

    fn list(&self, area: Area) -> snap_backup::backend::Result<Vec<Listed>> {
        self.inner.list(area)
    }

    fn delete(&self, place: &Place) -> snap_backup::backend::Result<()> {
        let size = self.inner.list(place.area)?.into_iter().find(|listed| listed.name == place.name).map_or(0, |listed| listed.size);
        self.inner.delete(place)?;
        *self.free.lock().unwrap() += size;
        Ok(())
    }

    fn set_aside(&self, place: &Place) -> snap_backup::backend::Result<String> {
        self.inner.set_aside(place)
    }

    fn settle(&self, area: Area) -> snap_backup::backend::Result<()> {
        self.inner.settle(area)
    }

    fn location(&self) -> String {
        "a store that is full".into()
    }

    fn create_areas(&self) -> snap_backup::backend::Result<()> {
        self.inner.create_areas()
    }
}

/// The disk is full, which is when people prune.
#[test]
fn a_prune_of_a_full_store() {
    // Something of no use to anybody, besides what is forgotten in part.
    let mut scene = Scene::new(32, &nights_of(3, 150_000));
    scene.truth.push((scene.bench.save(&noise(77, 400_000)).snapshot.unwrap(), noise(77, 400_000)));
    scene.forget(&[0, 3]);
    let state = scene.memory.snapshot();
    let full = |free: u64| {
        let memory = Memory::new();
        memory.restore(state.clone());
        let store = Arc::new(Bounded { inner: memory.clone(), free: Mutex::new(free) });
        (scene.bench.over(store.clone()), memory, store)
    };
    // Not a byte.
    let (bench, memory, _) = full(0);
    let error = run(&bench, &thorough(Duration::ZERO)).unwrap_err();
    assert!(matches!(&error, Error::Storage(error) if error.kind == StorageErrorKind::Full), "{error}");
    assert!(error.to_string().contains("the list of packs to be deleted"), "{error}");
    assert!(memory.snapshot() == state, "nothing was done");
    let report = run(&bench, &exclusive()).unwrap();
    assert!(report.packs_deleted > 0 && report.segments_replaced > 0, "what is freed is used for the rest: {report:?}");
    judge(&bench, &scene.truth, "not a byte");
    // As little as the files of two snapshots took.
    let (bench, _, store) = full(1200);
    let report = run(&bench, &thorough(Duration::ZERO)).unwrap();
    assert!(report.packs_deleted > 0, "{report:?}");
    judge(&bench, &scene.truth, "a little");
    assert!(*store.free.lock().unwrap() > 300_000);
}

/// A whole prune between any two calls of a backup, after what the backup builds on was forgotten.
#[test]
fn a_prune_at_any_moment_of_a_backup() {
    let versions = nights_of(4, 150_000);
    for (graces, may_fail) in [(vec![Duration::ZERO], true), (vec![NIGHT], false), (vec![NIGHT, NIGHT], true)] {
        let (mut failed, mut saved) = (0, 0);
        for number in 0.. {
            let scene = Scene::new(33, &versions[..3]);
            let other = scene.bench.over(Arc::new(scene.memory.clone()));
            let forgotten = scene.truth[1].0;
            let graces = graces.clone();
            let (store, done) = at_call(scene.memory.clone(), number, move || {
                forget(&other.open(), &[forgotten]);
                graces.iter().for_each(|grace| drop(run(&other, &thorough(*grace)).unwrap()));
            });
            // It resembles most the one that is forgotten.
            let bytes = [&versions[1][..], &noise(8, 30_000)].concat();
            let repository = scene.bench.try_open_on(store).unwrap();
            let outcome =
                save(&repository, &bytes, &snap_backup::ops::backup::BackupOptions { parent: Some(forgotten.hex()), ..options() });
            if !done.load(Ordering::SeqCst) {
                break;
            }
            let mut truth: Truth = scene.truth.iter().filter(|(id, _)| *id != forgotten).cloned().collect();
            match outcome {
                Ok(report) => {
                    truth.push((report.snapshot.unwrap(), bytes));
                    saved += 1;
                }
                Err(Error::Conflict(_)) if may_fail => failed += 1,
                // Its parent was forgotten before it could be read.
                Err(Error::NotFound(_)) => {}
                Err(Error::Storage(error)) if error.kind == StorageErrorKind::NotFound => {}
                Err(error) => panic!("{graces:?}, call {number}: {error}", graces = truth.len()),
            }
            let case = format!("call {number}");
            judge(&scene.bench, &truth, &case);
            run(&scene.bench, &thorough(Duration::ZERO)).unwrap_or_else(|error| panic!("{case}: {error}"));
            judge(&scene.bench, &truth, &case);
        }
        println!("{saved} saved, {failed} had to be run again");
        assert!(saved > 10);
        assert_eq!(failed > 0, may_fail);
    }
}

/// A whole backup between any two calls of a prune: of what the prune is about to delete.
#[test]
fn a_backup_at_any_moment_of_a_prune() {
    for (before, options) in
        [(Before::new(), thorough(Duration::ZERO)), (Before::announced(), thorough(NIGHT)), (Before::new(), thorough(NIGHT))]
    {
        for number in 0..before.calls(&options) {
            let (bench, memory) = before.bench();
            let other = bench.over(Arc::new(memory.clone()));
            let bytes = [&before.versions[0][..], &noise(9, 20_000)].concat();
            let (saved, backed_up) = (Arc::new(Mutex::new(None)), bytes.clone());
            let report = saved.clone();
            let (store, done) = at_call(memory.clone(), number, move || {
                *report.lock().unwrap() = Some(other.save(&backed_up).snapshot.unwrap());
            });
            let outcome = before.prune_over(&bench, store, &options);
            let case = format!("call {number}, {outcome:?}");
            assert!(outcome.is_ok() || matches!(outcome, Err(Error::Conflict(_))), "{case}");
            assert!(done.load(Ordering::SeqCst));
            let mut truth = before.truth.clone();
            truth.push((saved.lock().unwrap().unwrap(), bytes));
            judge(&bench, &truth, &case);
            run(&bench, &options).unwrap_or_else(|error| panic!("{case}: {error}"));
            judge(&bench, &truth, &case);
        }
    }
}

/// Two collectors: a whole second one between any two calls of the first.
#[test]
fn a_prune_at_any_moment_of_a_prune() {
    for (before, options) in [(Before::new(), thorough(Duration::ZERO)), (Before::announced(), thorough(NIGHT))] {
        for number in 0..before.calls(&options) {
            let (bench, memory) = before.bench();
            let (other, theirs) = (bench.over(Arc::new(memory.clone())), options.clone());
            let (store, _) = at_call(memory.clone(), number, move || drop(run(&other, &theirs).unwrap()));
            let outcome = before.prune_over(&bench, store, &options);
            let case = format!("call {number}, {outcome:?}");
            assert!(outcome.is_ok(), "{case}");
            before.judge_next(&bench, &memory, &options, &case);
        }
    }
}

/// A restore that meets vanished packs finds what was moved.
#[test]
fn a_prune_at_any_moment_of_a_restore() {
    let before = Before::new();
    for number in 0.. {
        let (bench, memory) = before.bench();
        let other = bench.over(Arc::new(memory.clone()));
        let (store, done) = at_call(memory.clone(), number, move || {
            let report = run(&other, &exclusive()).unwrap();
            assert!(report.packs_deleted > 0);
        });
        let repository = bench.try_open_on(store.clone()).unwrap();
        for (id, bytes) in before.truth.iter().rev() {
            let found = read(&repository, &id.hex()).unwrap_or_else(|error| panic!("call {number}: {error}"));
            assert!(found == *bytes, "call {number}");
        }
        let report = check_all(&bench.try_open_on(store).unwrap()).unwrap();
        assert_eq!(report.findings, [], "a check beside a prune, call {number}");
        if !done.load(Ordering::SeqCst) {
            break;
        }
    }
}

/// Many things at random moments, over and over.
#[test]
fn nights_with_everything_at_once() {
    let seed = seed("nights_with_everything_at_once");
    for round in 0..12 {
        let mut random = Rng::new(seed + round);
        let versions = nights_of(6, 100_000);
        let (bench, memory) = Bench::in_memory(seed + round);
        let mut truth: Truth = Vec::new();
        for (night, version) in versions.iter().enumerate() {
            let (other, at) = (bench.over(Arc::new(memory.clone())), random.below(120));
            let grace = if random.below(2) == 0 { Duration::ZERO } else { NIGHT };
            let victims: Vec<SnapshotId> = truth.iter().map(|(id, _)| *id).filter(|_| random.below(3) == 0).collect();
            let gone = victims.clone();
            let (store, done) = at_call(memory.clone(), at, move || {
                if !gone.is_empty() {
                    forget(&other.open(), &gone);
                }
                drop(run(&other, &thorough(grace)).unwrap());
            });
            let outcome = bench.try_open_on(store).and_then(|repository| save(&repository, version, &options()));
            if done.load(Ordering::SeqCst) {
                truth.retain(|(id, _)| !victims.contains(id));
            }
            if let Ok(report) = outcome {
                truth.push((report.snapshot.unwrap(), versions[night].clone()));
            }
            // Somebody dies in the middle of a prune.
            let store = Faulty::at(memory.clone(), random.below(150), Fault::Crash);
            drop(bench.try_open_on(Arc::new(store)).and_then(|repository| prune(&repository, &thorough(grace), &Silent)));
            judge(&bench, &truth, &format!("round {round}, night {night}"));
        }
    }
}

/// Damage is never moved: what restored before a prune restores after it, and the damaged pack stays.
#[test]
fn a_damaged_pack_is_kept_as_it_is() {
    let before = Before::new();
    let (_, memory) = before.bench();
    let mut kept = 0;
    for (name, size) in packs(&memory) {
        for at in [60, size / 3, size / 2, size - 200] {
            let (bench, memory) = before.bench();
            let place = Place { area: Area::Packs, name: name.clone() };
            memory.edit(&place, |bytes| bytes[at as usize] ^= 4);
            let restorable = |bench: &Bench| -> Vec<bool> {
                let dump = |(id, bytes): &(SnapshotId, Vec<u8>)| bench.dump(&id.hex()).is_ok_and(|found| found == *bytes);
                before.truth.iter().map(dump).collect()
            };
            let was = restorable(&bench);
            match run(&bench, &thorough(Duration::ZERO)) {
                Ok(report) => {
                    assert_eq!(restorable(&bench), was, "pack {name} at {at}: {report:?}");
                    if !report.damaged.is_empty() {
                        kept += 1;
                        assert!(packs(&memory).iter().any(|(there, _)| *there == name), "it is kept");
                        // Again, with the same outcome.
                        run(&bench, &thorough(Duration::ZERO)).unwrap();
                        assert_eq!(restorable(&bench), was);
                    }
                }
                Err(error) => {
                    assert!(matches!(error, Error::Damaged { .. }), "{error}");
                    assert_eq!(restorable(&bench), was);
                }
            }
        }
    }
    assert!(kept > 0);
}

fn copy_of_every_frame(bench: &Bench) {
    let repository = bench.open();
    let locator = repository.locator().unwrap();
    let mut mover = Mover::start(&repository, Level::Auto).unwrap();
    let mut packs = locator.list(Area::Packs).unwrap();
    packs.sort();
    for (pack, size) in packs {
        let frames = locator.read_footer(pack, size).unwrap().1.frames;
        let moves: Vec<Move> = frames.into_iter().map(|record| Move { pack, keep: Ordinals::present_in(&record), record }).collect();
        assert!(mover.take(&moves).unwrap().iter().all(Result::is_ok));
    }
    let stored = mover.finish().unwrap();
    repository.save_segments(stored, Vec::new()).unwrap();
}

/// Of two copies of a frame one goes, and never the good one. Copied once more with the copies, a pack has frames twice.
#[test]
fn of_two_copies_the_good_one_stays() {
    for times in 1..=2 {
        let scene = Scene::new(34, &nights_of(3, 150_000));
        let once = pack_bytes(&scene.memory);
        let originals: Vec<String> = packs(&scene.memory).into_iter().map(|(name, _)| name).collect();
        (0..times).for_each(|_| copy_of_every_frame(&scene.bench));
        let state = scene.memory.snapshot();
        assert!(2 * pack_bytes(&scene.memory) > 3 * times * once);
        run(&scene.bench, &exclusive()).unwrap();
        assert!(pack_bytes(&scene.memory) < once + once / 10);
        scene.judge("one copy is left");
        scene.memory.restore(state.clone());
        for (name, size) in packs(&scene.memory) {
            for at in [60, size / 2] {
                scene.memory.restore(state.clone());
                let place = Place { area: Area::Packs, name: name.clone() };
                scene.memory.edit(&place, |bytes| bytes[at as usize] ^= 4);
                run(&scene.bench, &exclusive()).unwrap();
                for (id, bytes) in &scene.truth {
                    let is_original = originals.contains(&name);
                    assert!(scene.bench.dump(&id.hex()).unwrap() == *bytes, "pack {name} at {at}, original: {is_original}");
                }
            }
        }
    }
}

/// A frame stored twice, once as a delta: the plain copy stays, and then nothing needs the base.
#[test]
fn of_a_delta_and_a_plain_copy_the_plain_one_stays() {
    let versions = nights_of(2, 400_000);
    let scene = Scene::new(35, &versions[..1]);
    let (other, bytes) = (scene.bench.over(Arc::new(scene.memory.clone())), versions[1].clone());
    let twin = Arc::new(Mutex::new(None));
    let saved = twin.clone();
    let is_done = AtomicBool::new(false);
    let store = Faulty::new(scene.memory.clone(), move |call| {
        if call.operation == Operation::Put && !is_done.swap(true, Ordering::SeqCst) {
            *saved.lock().unwrap() = Some(other.save(&bytes));
        }
        None
    });
    let plain = snap_backup::ops::backup::BackupOptions { delta: false, ..options() };
    let report = save(&scene.bench.try_open_on(Arc::new(store)).unwrap(), &versions[1], &plain).unwrap();
    let delta = twin.lock().unwrap().take().unwrap();
    assert!(delta.cost.delta_frames > 0 && report.cost.delta_frames == 0, "the same data, stored in two ways");
    let mut truth = vec![(delta.snapshot.unwrap(), versions[1].clone()), (report.snapshot.unwrap(), versions[1].clone())];
    forget(&scene.bench.open(), &[scene.truth[0].0]);
    for _ in 0..2 {
        run(&scene.bench, &exclusive()).unwrap();
        judge(&scene.bench, &truth, "both");
    }
    let stats = snap_backup::ops::stats::stats(&scene.bench.open(), &Silent).unwrap();
    assert!(stats.delta_plain_size < 1000, "at most some catalog: {stats:?}");
    forget(&scene.bench.open(), &[truth.remove(0).0]);
    run(&scene.bench, &exclusive()).unwrap();
    judge(&scene.bench, &truth, "one");
}

/// A backup that takes longer than the grace goes on storing: prunes that run beside it leave its packs alone.
#[test]
fn a_backup_of_many_nights_is_not_undone() {
    struct Slow {
        bytes: std::io::Cursor<Vec<u8>>,
        bench: Bench,
        nights: Arc<AtomicU64>,
    }
    impl std::io::Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let before = self.bytes.position() / (20 << 20);
            let count = self.bytes.read(buffer)?;
            if self.bytes.position() / (20 << 20) > before {
                // What was read is on its way: all but a slab and what a frame and a pack are filled up with. Else, where threads starve,
                // a night would see nothing new of this backup, and take it for dead.
                let under_way = 6 << 20;
                let due = self.bytes.position().saturating_sub(under_way) as usize / (PACK_BYTES_TARGET + (1 << 20));
                wait_for("packs", || packs(&*self.bench.store).len() >= due);
                run(&self.bench, &thorough(NIGHT)).unwrap();
                self.nights.fetch_add(1, Ordering::SeqCst);
            }
            Ok(count)
        }
    }
    let (bench, memory) = Bench::in_memory(36);
    let (bytes, nights) = (noise(3, 100 << 20), Arc::new(AtomicU64::new(0)));
    let reader = Slow { bytes: std::io::Cursor::new(bytes.clone()), bench: bench.over(Arc::new(memory.clone())), nights: nights.clone() };
    let input = snap_backup::ops::backup::Input::Reader { name: "db".into(), reader: Box::new(reader) };
    let report = snap_backup::ops::backup::backup(&bench.open(), input, &options(), &Silent).unwrap();
    assert!(nights.load(Ordering::SeqCst) >= 4);
    judge(&bench, &[(report.snapshot.unwrap(), bytes)], "after five nights");
    // One that died is cleared away.
    let (bench, memory) = Bench::in_memory(37);
    let store =
        Faulty::new(memory.clone(), |call| (call.area == Area::Snapshots && call.operation == Operation::Put).then_some(Fault::Crash));
    save(&bench.try_open_on(Arc::new(store)).unwrap(), &noise(4, 1 << 20), &options()).unwrap_err();
    assert!(!packs(&memory).is_empty());
    run(&bench, &thorough(NIGHT)).unwrap();
    run(&bench, &thorough(NIGHT)).unwrap();
    assert_eq!(packs(&memory), []);
}
