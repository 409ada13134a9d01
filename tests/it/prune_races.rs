//! Prunes beside whatever else takes something away or refers to what is there, with collectors that stop in the middle: what a second
//! look at the protocol by somebody who wants to break it came up with.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use snap_backup::backend::{Area, Fault, Faulty, Memory, Operation, Place};
use snap_backup::compression::Level;
use snap_backup::error::{Error, Result, StorageErrorKind};
use snap_backup::format::record::{Condemned, Record};
use snap_backup::id::{FrameId, ObjectName, SnapshotId};
use snap_backup::ops::copy::{CopyOptions, copy};
use snap_backup::ops::prune::{MaxUnused, PruneOptions, prune};
use snap_backup::ops::repair::{PacksOptions, repair_packs};
use snap_backup::ops::tag::{TagChange, tag};
use snap_backup::progress::Silent;
use snap_backup::repo::records::{Records, Rigour, publish};
use snap_backup::repo::{Move, Mover, Ordinals, Repository};

use crate::prune::*;
use crate::support::*;

type Truth = Vec<(SnapshotId, Vec<u8>)>;

/// A prune that dies at some call: for the others it is one that stops for hours.
fn prune_that_dies(bench: &Bench, memory: &Memory, at: u64, options: &PruneOptions) {
    let store = Faulty::at(memory.clone(), at, Fault::Crash);
    drop(bench.try_open_on(Arc::new(store)).and_then(|repository| prune(&repository, options, &Silent)));
}

fn calls_of(bench: &Bench, memory: &Memory, act: impl Fn(&Repository)) -> u64 {
    let state = memory.snapshot();
    let store = Arc::new(Faulty::new(memory.clone(), |_| None));
    act(&bench.try_open_on(store.clone()).unwrap());
    memory.restore(state);
    store.calls()
}

/// Every snapshot in the list restores, and the ones that must be there are.
fn all_restore(bench: &Bench, truth: &[(SnapshotId, Vec<u8>)], known: &[Vec<u8>], case: &str) {
    let (found, unreadable) = bench.open().snapshots().unwrap();
    assert!(unreadable.is_empty(), "{case}");
    for stored in &found {
        let bytes = bench.without_cache().dump(&stored.id.hex()).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert!(known.contains(&bytes), "{case}");
    }
    for (id, bytes) in truth {
        assert!(bench.without_cache().dump(&id.hex()).unwrap() == *bytes, "{case}");
    }
}

/// A backup that began before packs were condemned comes to rely on them, rightly.
fn needed_again() -> (Bench, Memory, Truth) {
    let mut scene = Scene::new(51, &nights_of(3, 150_000));
    let wanted = scene.truth[1].1.clone();
    scene.forget(&[0, 1]);
    let (other, did) = (scene.bench.over(Arc::new(scene.memory.clone())), Arc::new(AtomicBool::new(false)));
    let is_done = did.clone();
    let store = Faulty::new(scene.memory.clone(), move |call| {
        if call.operation == Operation::Put && call.area == Area::Snapshots && !is_done.swap(true, Ordering::SeqCst) {
            assert!(run(&other, &thorough(NIGHT)).unwrap().packs_condemned > 0);
        }
        None
    });
    let saved = save(&scene.bench.try_open_on(Arc::new(store)).unwrap(), &wanted, &options()).unwrap().snapshot.unwrap();
    assert!(did.load(Ordering::SeqCst));
    scene.truth.push((saved, wanted));
    scene.judge("what is only announced may be relied on by who began before");
    (scene.bench, scene.memory, scene.truth)
}

/// A collector lets packs stay that are needed again, and counts what lies in them as kept. Meanwhile another dooms these very packs and
/// stops: then they are no place to keep anything in.
#[test]
fn what_one_collector_lets_stay_another_dooms() {
    let (bench, memory, truth) = needed_again();
    let state = memory.snapshot();
    let options = thorough(NIGHT);
    let calls = calls_of(&bench, &memory, |repository| drop(prune(repository, &options, &Silent).unwrap()));
    for number in 0..calls {
        memory.restore(state.clone());
        let other = bench.over(Arc::new(memory.clone()));
        let (store, _) = at_call(memory.clone(), number, move || {
            let repository = other.open();
            let records = Records::read(&repository, Rigour::Strict).unwrap();
            let packs: Vec<ObjectName> = records.condemned().into_iter().collect();
            let (time, epoch) = (repository.world().now(), records.last_epoch() + 1);
            let host = "another".into();
            if !packs.is_empty() {
                publish(&repository, &Record::Condemned(Condemned { time, host, epoch, packs, is_final: true, segments: vec![] })).unwrap();
            }
        });
        let case = format!("call {number}");
        prune(&bench.try_open_on(store).unwrap(), &options, &Silent).unwrap_or_else(|error| panic!("{case}: {error}"));
        judge(&bench, &truth, &case);
        for _ in 0..2 {
            run(&bench, &options).unwrap();
        }
        judge(&bench, &truth, &format!("{case}, and later"));
    }
}

/// A collector that dies at any call, while another is at work: pairs of moments, some of them by chance.
#[test]
fn a_collector_that_stops_in_the_middle_of_another() {
    let mut random = Rng::new(seed("a_collector_that_stops_in_the_middle_of_another"));
    let (bench, memory, truth) = needed_again();
    let state = memory.snapshot();
    let options = thorough(NIGHT);
    let calls = calls_of(&bench, &memory, |repository| drop(prune(repository, &options, &Silent).unwrap()));
    for outer in 0..calls {
        memory.restore(state.clone());
        let inner = random.below(calls);
        let other = bench.over(Arc::new(memory.clone()));
        let (theirs, at_once) = (memory.clone(), thorough(if random.below(2) == 0 { NIGHT } else { Duration::ZERO }));
        let (store, _) = at_call(memory.clone(), outer, move || prune_that_dies(&other, &theirs, inner, &at_once));
        let case = format!("call {outer}, the other dies at {inner}");
        let outcome = prune(&bench.try_open_on(store).unwrap(), &options, &Silent);
        assert!(outcome.is_ok(), "{case}: {outcome:?}");
        judge(&bench, &truth, &case);
        for _ in 0..2 {
            run(&bench, &options).unwrap();
        }
        judge(&bench, &truth, &format!("{case}, and later"));
    }
}

/// Every frame that is a delta finds all it is based on in plain copies.
fn assert_no_traps(bench: &Bench, case: &str) -> usize {
    let repository = bench.open();
    let locator = repository.locator().unwrap();
    let mut frames = Vec::new();
    for (pack, size) in locator.list(Area::Packs).unwrap() {
        frames.extend(locator.read_footer(pack, size).unwrap().1.frames);
    }
    let mut plain: HashMap<FrameId, Ordinals> = HashMap::new();
    for record in frames.iter().filter(|record| !record.is_delta()) {
        plain.entry(record.id).or_default().join(&Ordinals::present_in(record));
    }
    for run in frames.iter().filter_map(|record| record.base.as_ref()).flat_map(|base| &base.0) {
        let there = plain.get(&run.frame).unwrap_or_else(|| panic!("{case}: a base is gone"));
        assert!((run.first..run.first + run.count).all(|ordinal| there.has(ordinal as usize)), "{case}: a base is thinned");
    }
    frames.iter().filter(|record| record.is_delta()).count()
}

/// A delta that no snapshot needs, in a pack that stays because of something else: nothing of what it is based on is thinned away, for a
/// backup may come to rely on it, and version 0.1.0 looks only whether the frame of a base is there.
#[test]
fn what_a_dead_delta_that_stays_is_based_on_is_not_thinned() {
    let (bench, memory) = Bench::in_memory(52);
    let base = lines(1, 1_500_000);
    let mut changed = base.clone();
    for at in (0..changed.len() - 10).step_by(30_000) {
        changed[at..at + 4].copy_from_slice(b"####");
    }
    let ballast = noise(9, 5_000_000);
    let save = |bytes: &[u8]| bench.save(bytes).snapshot.unwrap();
    let first = save(&base);
    let both = [&changed[..], &ballast].concat();
    let report = bench.save(&both);
    assert!(report.cost.delta_frames > 0, "or the test tests nothing");
    // A part of the base, so that its frames are needed in part; and the ballast.
    let (part, rest) = (base[..400_000].to_vec(), ballast.clone());
    let truth = vec![(save(&part), part), (save(&rest), rest)];
    forget(&bench.open(), &[first, report.snapshot.unwrap()]);
    // Packs of the base may be rewritten, that with the delta is too large for it.
    let options = PruneOptions { max_repack: Some(3_000_000), ..exclusive() };
    let pruned = run(&bench, &options).unwrap();
    assert!(pruned.frames_moved > 0, "{pruned:?}");
    judge(&bench, &truth, "pruned");
    assert!(assert_no_traps(&bench, "pruned") > 0, "the delta is there yet");
    // What relies on it restores.
    let again = bench.save(&both);
    assert!(again.totals.bytes_new < 1_000_000, "{:?}", again.totals);
    let truth = [truth, vec![(again.snapshot.unwrap(), both)]].concat();
    judge(&bench, &truth, "relied on");
    // Where it may be rewritten, all that goes.
    forget(&bench.open(), &[truth[2].0]);
    let before = pack_bytes(&memory);
    run(&bench, &PruneOptions { max_unused: MaxUnused::Bytes(0), ..exclusive() }).unwrap();
    judge(&bench, &truth[..2], "rewritten");
    assert!(pack_bytes(&memory) < before);
    assert_no_traps(&bench, "rewritten");
}

/// Every prune of many leaves each delta that is still there with all that it is based on, but for those that are condemned.
#[test]
fn no_prune_leaves_a_trap() {
    for seed in 0..4 {
        let mut random = Rng::new(seed);
        let mut scene = Scene::new(60 + seed, &nights_of(6, 300_000));
        while scene.truth.len() > 1 {
            let victim = random.below(scene.truth.len() as u64) as usize;
            scene.forget(&[victim]);
            let room = if random.below(2) == 0 { None } else { Some(200_000 + random.below(400_000)) };
            run(&scene.bench, &PruneOptions { max_repack: room, ..exclusive() }).unwrap();
            assert_no_traps(&scene.bench, &format!("seed {seed}, {} left", scene.truth.len()));
            scene.judge("no trap");
        }
    }
}

/// All frames twice, and a frame rotten in the largest of those packs that a prune keeps.
fn doubled_and_rotten(seed: u64) -> (Scene, Place) {
    let scene = Scene::new(seed, &nights_of(3, 150_000));
    let repository = scene.bench.open();
    let locator = repository.locator().unwrap();
    let mut originals = locator.list(Area::Packs).unwrap();
    originals.sort_by_key(|(name, size)| (std::cmp::Reverse(*size), *name));
    let mut mover = Mover::start(&repository, Level::Auto).unwrap();
    for (pack, size) in &originals {
        let frames = locator.read_footer(*pack, *size).unwrap().1.frames;
        let moves: Vec<Move> = frames.into_iter().map(|record| Move { pack: *pack, keep: Ordinals::present_in(&record), record }).collect();
        assert!(mover.take(&moves).unwrap().iter().all(Result::is_ok));
    }
    let stored = mover.finish().unwrap();
    repository.save_segments(stored, Vec::new()).unwrap();
    let state = scene.memory.snapshot();
    run(&scene.bench, &exclusive()).unwrap();
    let kept = locator.list(Area::Packs).unwrap();
    scene.memory.restore(state);
    let (pack, size) = kept.into_iter().max_by_key(|(name, size)| (*size, *name)).unwrap();
    let record = locator.read_footer(pack, size).unwrap().1.frames[0].clone();
    let place = Place::pack(pack);
    scene.memory.edit(&place, |bytes| bytes[record.offset as usize + 60] ^= 1);
    (scene, place)
}

fn repair(repository: &Repository) -> Result<()> {
    repair_packs(repository, &PacksOptions { read_data: true, ..PacksOptions::default() }, &Silent).map(drop)
}

/// A repair takes a damaged pack away because others hold what is good in it, and a prune takes those because the damaged one does: one of
/// both must notice.
#[test]
fn a_prune_at_any_moment_of_a_repair() {
    let mut random = Rng::new(seed("a_prune_at_any_moment_of_a_repair"));
    let (scene, _) = doubled_and_rotten(53);
    let state = scene.memory.snapshot();
    let at_once = thorough(Duration::ZERO);
    let calls = calls_of(&scene.bench, &scene.memory, |repository| repair(repository).unwrap());
    let of_prune = calls_of(&scene.bench, &scene.memory, |repository| drop(prune(repository, &at_once, &Silent).unwrap()));
    let mut conflicts = 0;
    for number in 0..calls {
        // Some end well, and some die where they delete.
        let dies_at = [u64::MAX, random.below(of_prune), of_prune / 2 + random.below(of_prune / 2)][number as usize % 3];
        {
            scene.memory.restore(state.clone());
            let (other, memory, options) = (scene.bench.over(Arc::new(scene.memory.clone())), scene.memory.clone(), at_once.clone());
            let (store, _) = at_call(scene.memory.clone(), number, move || prune_that_dies(&other, &memory, dies_at, &options));
            let outcome = repair(&scene.bench.try_open_on(store).unwrap());
            let case = format!("call {number}, the prune dies at {dies_at}: {outcome:?}");
            match &outcome {
                Ok(()) => {}
                Err(Error::Conflict(_)) => conflicts += 1,
                Err(Error::Storage(error)) if error.kind == StorageErrorKind::NotFound => {}
                Err(error) => panic!("{case}: {error}"),
            }
            for (id, bytes) in &scene.truth {
                assert!(scene.bench.dump(&id.hex()).is_ok_and(|found| found == *bytes), "{case}");
            }
            // Both again, one after the other: then all is clean.
            repair(&scene.bench.open()).unwrap_or_else(|error| panic!("{case}: {error}"));
            for _ in 0..2 {
                run(&scene.bench, &at_once).unwrap_or_else(|error| panic!("{case}: {error}"));
            }
            scene.judge(&case);
        }
    }
    assert!(conflicts > 0, "a prune deletes just what a repair relies on, or the test tests nothing");
}

#[test]
fn a_repair_at_any_moment_of_a_prune() {
    let (scene, _) = doubled_and_rotten(54);
    let state = scene.memory.snapshot();
    let at_once = thorough(Duration::ZERO);
    for number in 0..calls_of(&scene.bench, &scene.memory, |repository| drop(prune(repository, &at_once, &Silent).unwrap())) {
        scene.memory.restore(state.clone());
        let other = scene.bench.over(Arc::new(scene.memory.clone()));
        let (store, _) = at_call(scene.memory.clone(), number, move || {
            let outcome = repair(&other.open());
            assert!(outcome.is_ok() || matches!(outcome, Err(Error::Conflict(_))), "{outcome:?}");
        });
        let outcome = prune(&scene.bench.try_open_on(store).unwrap(), &at_once, &Silent);
        let case = format!("call {number}, {outcome:?}");
        for (id, bytes) in &scene.truth {
            assert!(scene.bench.dump(&id.hex()).is_ok_and(|found| found == *bytes), "{case}");
        }
        repair(&scene.bench.open()).unwrap_or_else(|error| panic!("{case}: {error}"));
        for _ in 0..2 {
            run(&scene.bench, &at_once).unwrap_or_else(|error| panic!("{case}: {error}"));
        }
        scene.judge(&case);
    }
}

/// Tags change while somebody forgets the snapshot and a prune deletes what only it needed: whole, or dying at some call.
#[test]
fn a_prune_at_any_moment_of_a_change_of_tags() {
    let mut random = Rng::new(seed("a_prune_at_any_moment_of_a_change_of_tags"));
    let scene = Scene::new(55, &nights_of(3, 150_000));
    let known: Vec<Vec<u8>> = scene.truth.iter().map(|(_, bytes)| bytes.clone()).collect();
    let state = scene.memory.snapshot();
    let victim = scene.truth[1].0;
    let truth: Truth = scene.truth.iter().filter(|(id, _)| *id != victim).cloned().collect();
    let retag = |repository: &Repository| {
        let chosen = repository.snapshots()?.0.into_iter().filter(|stored| stored.id == victim).collect();
        tag(repository, chosen, &TagChange::Set(vec!["kept".into()]), "h", &Silent).map(drop)
    };
    let calls = calls_of(&scene.bench, &scene.memory, |repository| retag(repository).unwrap());
    let at_once = thorough(Duration::ZERO);
    let mut refused = 0;
    for number in 0..calls {
        for dies_at in [u64::MAX, random.below(150)] {
            scene.memory.restore(state.clone());
            let (other, memory, options) = (scene.bench.over(Arc::new(scene.memory.clone())), scene.memory.clone(), at_once.clone());
            let (store, _) = at_call(scene.memory.clone(), number, move || {
                if other.open().snapshots().unwrap().0.iter().any(|stored| stored.id == victim) {
                    forget(&other.open(), &[victim]);
                }
                prune_that_dies(&other, &memory, dies_at, &options);
            });
            let outcome = retag(&scene.bench.try_open_on(store).unwrap());
            refused += u64::from(outcome.is_err());
            let case = format!("call {number}, the prune dies at {dies_at}: {outcome:?}");
            all_restore(&scene.bench, &truth, &known, &case);
            run(&scene.bench, &at_once).unwrap_or_else(|error| panic!("{case}: {error}"));
            all_restore(&scene.bench, &truth, &known, &format!("{case}, pruned again"));
        }
    }
    assert!(refused > 0, "or the test tests nothing");
}

/// A copy between two stores, of which one is pruned at any moment. What the copy builds on there was forgotten.
#[test]
fn a_prune_at_any_moment_of_a_copy() {
    let versions = nights_of(3, 150_000);
    let source = Scene::new(56, &versions);
    let (source_state, at_once) = (source.memory.snapshot(), thorough(Duration::ZERO));
    let copy_options = CopyOptions { threads: 2, ..CopyOptions::default() };
    for prunes_source in [false, true] {
        let mut target = Scene::new(57, &versions[..2]);
        target.forget(&[0, 1]);
        let target_state = target.memory.snapshot();
        let mut is_over = false;
        for number in (0..).step_by(3) {
            if std::mem::take(&mut is_over) {
                break;
            }
            source.memory.restore(source_state.clone());
            target.memory.restore(target_state.clone());
            let memory = if prunes_source { source.memory.clone() } else { target.memory.clone() };
            let bench = if prunes_source { &source.bench } else { &target.bench };
            let (other, options) = (bench.over(Arc::new(memory.clone())), at_once.clone());
            let forgotten = prunes_source.then(|| source.truth[0].0);
            let (store, done) = at_call(memory, number, move || {
                forgotten.into_iter().for_each(|id| forget(&other.open(), &[id]));
                run(&other, &options).unwrap();
            });
            let pruned = bench.try_open_on(store).unwrap();
            let beside = if prunes_source { target.bench.open() } else { source.bench.open() };
            let (from, to) = if prunes_source { (&pruned, &beside) } else { (&beside, &pruned) };
            let outcome = copy(from, to, &copy_options, &Silent, &mut |_, _| Ok(()));
            let case = format!("call {number}, source {prunes_source}: {:?}", outcome.as_ref().err());
            match &outcome {
                Ok(_) | Err(Error::Conflict(_) | Error::NotFound(_)) => {}
                // The snapshot that was forgotten, or what only it needed.
                Err(_) if prunes_source => {}
                Err(_) => panic!("{case}"),
            }
            all_restore(&target.bench, &[], &versions, &case);
            run(&target.bench, &at_once).unwrap_or_else(|error| panic!("{case}: {error}"));
            all_restore(&target.bench, &[], &versions, &case);
            is_over = !done.load(Ordering::SeqCst);
        }
    }
}

/// A snapshot that a prune saw, and that its writer then took back, was not lost: the next prune does not stop because of it.
#[test]
fn what_was_withdrawn_is_not_missed() {
    let scene = Scene::new(58, &nights_of(2, 100_000));
    let (other, is_visible) = (scene.bench.over(Arc::new(scene.memory.clone())), AtomicBool::new(false));
    let seen = Arc::new(AtomicU64::new(0));
    let number = seen.clone();
    let store = Faulty::new(scene.memory.clone(), move |call| {
        let is_snapshot = call.area == Area::Snapshots && call.operation == Operation::Put;
        if is_snapshot || !is_visible.load(Ordering::SeqCst) || call.operation != Operation::List || call.area != Area::Packs {
            is_visible.fetch_or(is_snapshot, Ordering::SeqCst);
            return None;
        }
        // The last look of a backup fails, after a prune has seen its snapshot.
        is_visible.store(false, Ordering::SeqCst);
        number.store(run(&other, &thorough(Duration::ZERO)).unwrap().snapshots, Ordering::SeqCst);
        Some(Fault::Error(StorageErrorKind::Transient))
    });
    save(&scene.bench.try_open_on(Arc::new(store)).unwrap(), &lines(7, 50_000), &options()).unwrap_err();
    assert_eq!(seen.load(Ordering::SeqCst), 3, "or the test tests nothing");
    scene.judge("withdrawn");
    run(&scene.bench, &thorough(Duration::ZERO)).unwrap();
    scene.judge("pruned");
}

/// Whoever looks for final records or for the number of the last collection sees that something was deleted, however many collectors
/// ended meanwhile: no final record goes without a higher number.
#[test]
fn no_final_record_goes_without_a_higher_number() {
    let scene = Scene::new(59, &nights_of(3, 150_000));
    type Moment = (u64, HashSet<ObjectName>);
    let look = |bench: &Bench| -> Moment {
        let records = Records::read(&bench.open(), Rigour::Strict).unwrap();
        let finals = records.condemned.iter().filter(|(_, record)| record.is_final).map(|(name, _)| *name).collect();
        (records.epochs.iter().map(|(_, epoch)| epoch.epoch).max().unwrap_or(0), finals)
    };
    // What is to be seen before every change of the records.
    let history: Arc<Mutex<Vec<Moment>>> = Arc::default();
    let watched = |bench: &Bench, memory: &Memory| {
        let (eye, history) = (bench.over(Arc::new(memory.clone())), history.clone());
        Faulty::new(memory.clone(), move |call| {
            if call.area == Area::Records && matches!(call.operation, Operation::Put | Operation::Delete) {
                history.lock().unwrap().push(look(&eye));
            }
            None
        })
    };
    let at_once = thorough(Duration::ZERO);
    let state = scene.memory.snapshot();
    for number in 0..90 {
        scene.memory.restore(state.clone());
        history.lock().unwrap().clear();
        forget(&scene.bench.open(), &[scene.truth[0].0, scene.truth[1].0]);
        // One collector in the middle of another: both may say the same number.
        let (other, inner, options) = (scene.bench.clone(), Arc::new(watched(&scene.bench, &scene.memory)), at_once.clone());
        let act = move || drop(prune(&other.try_open_on(inner.clone()).unwrap(), &options, &Silent).unwrap());
        let (done, outer) = (AtomicBool::new(false), watched(&scene.bench, &scene.memory));
        let outer = Faulty::new(outer, move |call| {
            if call.number == number && !done.swap(true, Ordering::SeqCst) {
                elsewhere(&act);
            }
            None
        });
        prune(&scene.bench.try_open_on(Arc::new(outer)).unwrap(), &at_once, &Silent).unwrap();
        for _ in 0..2 {
            let store = Arc::new(watched(&scene.bench, &scene.memory));
            prune(&scene.bench.try_open_on(store).unwrap(), &at_once, &Silent).unwrap();
        }
        history.lock().unwrap().push(look(&scene.bench));
        // Of each final record, the number when it was not there yet.
        let mut before: HashMap<ObjectName, u64> = HashMap::new();
        let mut last = 0;
        for (epoch, finals) in history.lock().unwrap().iter() {
            for (name, number_before) in &before {
                let is_noticed = finals.contains(name) || epoch > number_before;
                assert!(is_noticed, "call {number}: a final record came and went, and the number is still {epoch}");
            }
            for name in finals {
                before.entry(*name).or_insert(last);
            }
            last = *epoch;
        }
        assert!(!before.is_empty(), "call {number}: or the test tests nothing");
    }
}
