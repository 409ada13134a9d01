//! Removals of snapshots beside others, and snapshots that nobody must see: what is taken away because something else stays, while that
//! is taken away too.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::tz::TimeZone;
use snap_backup::backend::{Area, Backend, Fault, Faulty, Operation, Place};
use snap_backup::error::{Error, Result, StorageErrorKind};
use snap_backup::format::record::{Condemned, Record};
use snap_backup::id::{ObjectName, SnapshotId};
use snap_backup::ops::backup::BackupOptions;
use snap_backup::ops::forget::{Choice, ForgetOptions, execute, plan};
use snap_backup::ops::prune::prune;
use snap_backup::ops::repair::{PacksOptions, repair_packs};
use snap_backup::ops::tag::{TagChange, tag};
use snap_backup::progress::Silent;
use snap_backup::repo::records::publish;
use snap_backup::repo::{Repository, SnapshotFilter};
use snap_backup::retention::{Age, Count, GroupBy, Period, Policy, Rule};

use crate::prune::*;
use crate::support::*;

fn all_but_the_last() -> ForgetOptions {
    let policy = Policy::new([Rule::Count(Period::Each, Count::Number(1))], Age::default());
    let choice = Choice::Policy { policy, group_by: GroupBy::default() };
    ForgetOptions { choice, filter: SnapshotFilter::default(), zone: TimeZone::UTC }
}

fn forget_all_but_the_last(repository: &Repository) -> Result<()> {
    execute(repository, &plan(repository, &all_but_the_last(), &Silent)?, "other", &Silent)
}

fn forget_by_name(repository: &Repository, which: &str) -> Result<()> {
    let choice = Choice::Named { selectors: vec![which.into()], allow_last: false };
    let options = ForgetOptions { choice, filter: SnapshotFilter::default(), zone: TimeZone::UTC };
    execute(repository, &plan(repository, &options, &Silent)?, "h", &Silent)
}

fn retag_all(repository: &Repository) -> Result<()> {
    let change = TagChange::Set(vec!["new".into()]);
    tag(repository, repository.snapshots()?.0, &change, "h", &Silent).map(|_| ())
}

/// Runs `act` with `other` at each of its calls in turn; then the newest bytes must still be there. Returns how often `act` stopped.
fn side_by_side(seed: u64, act: impl Fn(&Repository) -> Result<()>, other: fn(&Repository) -> Result<()>) -> usize {
    let (bench, memory) = Bench::in_memory(seed);
    let time = |day: i64| Some(jiff::Timestamp::from_second(1_700_000_000 + day * 86_400).unwrap());
    let versions: Vec<Vec<u8>> = (0..3).map(|number| lines(number, 3000)).collect();
    for (day, bytes) in versions.iter().enumerate() {
        save(&bench.open(), bytes, &BackupOptions { time: time(day as i64), ..options() }).unwrap();
    }
    let before = memory.snapshot();
    let mut stopped = 0;
    for number in 0.. {
        memory.restore(before.clone());
        let theirs = bench.over(Arc::new(memory.clone()));
        let (store, did) = at_call(memory.clone(), number, move || match other(&theirs.open()) {
            Ok(()) | Err(Error::Conflict(_) | Error::Refused { .. } | Error::NotFound(_)) => {}
            Err(error) => panic!("{error}"),
        });
        let outcome = act(&bench.try_open_on(store).unwrap());
        if !did.load(Ordering::SeqCst) {
            break;
        }
        match &outcome {
            Ok(()) | Err(Error::Conflict(_) | Error::Refused { .. } | Error::NotFound(_)) => {}
            Err(Error::Storage(error)) if error.kind == StorageErrorKind::NotFound => {}
            other => panic!("call {number}: {other:?}"),
        }
        stopped += usize::from(outcome.is_err());
        assert!(bench.dump("latest").unwrap() == versions[2], "the newest is gone: call {number}, {outcome:?}");
    }
    stopped
}

/// While tags change, a snapshot stands there twice. Rules that keep one of the two must not meet with the removal of the other.
#[test]
fn tags_change_while_rules_remove() {
    // Which of the two the rules keep depends on their ids.
    let stopped: usize = (70..76).map(|seed| side_by_side(seed, retag_all, forget_all_but_the_last)).sum();
    assert!(stopped > 0, "never did both see each other");
}

#[test]
fn rules_remove_while_tags_change() {
    for seed in 80..84 {
        side_by_side(seed, forget_all_but_the_last, retag_all);
    }
}

/// What rules keep is what the others may go for. Once that is gone, they stay.
#[test]
fn rules_remove_nothing_for_what_is_gone() {
    let (bench, memory) = Bench::in_memory(100);
    let ids: Vec<SnapshotId> = (0..3).map(|number| bench.save(&lines(number, 3000)).snapshot.unwrap()).collect();
    let repository = bench.open();
    let planned = plan(&repository, &all_but_the_last(), &Silent).unwrap();
    assert_eq!(planned.removed().count(), 2);
    forget(&bench.open(), &ids[2..]);
    let outcome = execute(&repository, &planned, "h", &Silent);
    assert!(matches!(outcome, Err(Error::Conflict(_))), "{outcome:?}");
    assert!(ids[..2].iter().all(|id| memory.places().contains(&Place::snapshot(*id))));
}

/// Two that each leave one, and not the same.
#[test]
fn the_last_ones_are_removed_from_both_sides() {
    let by_name = |repository: &Repository| {
        forget_by_name(repository, "latest~2")?;
        forget_by_name(repository, "latest~1")
    };
    side_by_side(90, by_name, |repository| forget_by_name(repository, "latest~1").and_then(|()| forget_by_name(repository, "latest~1")));
}

/// Removes the newest of three snapshots; when its record is to be written, somebody else writes one. Reads of that one are answered by
/// `fault`. Returns what came of it, and whether the newest is still there.
fn beside_a_new_record(seed: u64, record: fn(&[SnapshotId]) -> Record, fault: Option<StorageErrorKind>) -> (Result<()>, bool) {
    let (bench, memory) = Bench::in_memory(seed);
    let ids: Vec<SnapshotId> = (0..3).map(|number| bench.save(&lines(number, 3000)).snapshot.unwrap()).collect();
    let (theirs, newest) = (bench.over(Arc::new(memory.clone())), ids[2]);
    let their_record = Arc::new(OnceLock::new());
    let store = Faulty::new(memory.clone(), move |call| {
        if call.operation == Operation::Put && call.area == Area::Records && their_record.get().is_none() {
            elsewhere(|| their_record.set(publish(&theirs.open(), &record(&ids)).unwrap()).unwrap());
        }
        let is_theirs = their_record.get().is_some_and(|name: &ObjectName| call.place.is_some_and(|place| place.name == name.hex()));
        fault.filter(|_| is_theirs && call.operation == Operation::Get).map(Fault::Error)
    });
    let outcome = forget_by_name(&bench.try_open_on(Arc::new(store)).unwrap(), "latest");
    (outcome, memory.places().contains(&Place::snapshot(newest)))
}

/// Somebody else has said that what is to stay here will go, and sleeps before it goes.
#[test]
fn what_is_to_stay_was_announced_meanwhile() {
    let others = |ids: &[SnapshotId]| Record::Forget {
        time: jiff::Timestamp::UNIX_EPOCH,
        host: "other".into(),
        snapshots: ids[..2].to_vec(),
        reason: "test".into(),
    };
    let (outcome, is_there) = beside_a_new_record(97, others, None);
    assert!(matches!(outcome, Err(Error::Conflict(_))) && is_there, "{outcome:?}");
}

/// A record that cannot be read may name what is to stay. One that is gone names nothing any more.
#[test]
fn a_record_that_cannot_be_read_stops_a_removal() {
    let collection = |_: &[SnapshotId]| {
        let time = jiff::Timestamp::UNIX_EPOCH;
        Record::Condemned(Condemned { time, host: "h".into(), epoch: 1, packs: Vec::new(), is_final: false, segments: Vec::new() })
    };
    let (outcome, is_there) = beside_a_new_record(98, collection, Some(StorageErrorKind::Other));
    assert!(matches!(outcome, Err(Error::Storage(_))) && is_there, "{outcome:?}");
    for fault in [None, Some(StorageErrorKind::NotFound)] {
        let (outcome, is_there) = beside_a_new_record(99, collection, fault);
        assert!(outcome.is_ok() && !is_there, "{outcome:?}");
    }
}

/// What was taken away during a long run is found before anybody sees the snapshot.
#[test]
fn a_snapshot_that_lacks_something_is_never_seen() {
    let mut scene = Scene::new(91, &nights_of(3, 150_000));
    let wanted = scene.truth[1].1.clone();
    scene.forget(&[0, 1]);
    let (other, done) = (scene.bench.over(Arc::new(scene.memory.clone())), Arc::new(AtomicU64::new(0)));
    let count = done.clone();
    let store = Faulty::new(scene.memory.clone(), move |call| {
        // Its own segment: everything is stored but the snapshot.
        if call.operation == Operation::Put && call.area == Area::Segments && count.fetch_add(1, Ordering::SeqCst) == 0 {
            for _ in 0..2 {
                run(&other, &exclusive()).unwrap();
            }
        }
        assert!(call.operation != Operation::Put || call.area != Area::Snapshots, "it was to be seen");
        None
    });
    let repository = scene.bench.try_open_on(Arc::new(store)).unwrap();
    let both = [&wanted[..], &noise(1, 50_000)].concat();
    let outcome = save(&repository, &both, &options());
    assert!(done.load(Ordering::SeqCst) > 0);
    assert!(matches!(outcome, Err(Error::Conflict(_))), "{:?}", outcome.map(|report| report.snapshot));
    // The prune was told that nobody else was there, so packs are gone that a segment lists; no snapshot lacks anything.
    let (id, bytes) = &scene.truth[0];
    assert!(scene.bench.without_cache().dump(&id.hex()).unwrap() == *bytes);
    assert_eq!(scene.bench.open().snapshots().unwrap().0.len(), 1);
}

/// What a backup leaves that failed because a prune took its parent: deltas without their bases. The next one stores the same frames whole,
/// and nothing is damaged.
#[test]
fn what_a_failed_backup_left_does_not_stop_a_prune() {
    let (bench, memory) = Bench::in_memory(95);
    let old = noise(1, 200_000);
    // In each chunk something is another.
    let new: Vec<u8> = old.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at % 1000 == 0)).collect();
    let first = bench.save(&old).snapshot.unwrap();
    let before = memory.snapshot();
    assert!(bench.save(&new).cost.delta_frames > 0);
    memory.restore(before);
    let (other, done) = (bench.over(Arc::new(memory.clone())), AtomicU64::new(0));
    let store = Faulty::new(memory.clone(), move |call| {
        if call.operation == Operation::Put && call.area == Area::Packs && done.fetch_add(1, Ordering::SeqCst) == 0 {
            elsewhere(|| {
                forget(&other.open(), &[first]);
                run(&other, &exclusive()).unwrap();
            });
        }
        None
    });
    let options = BackupOptions { threads: 1, ..options() };
    let outcome = save(&bench.try_open_on(Arc::new(store)).unwrap(), &new, &options);
    assert!(matches!(outcome, Err(Error::Conflict(_))), "{:?}", outcome.map(|report| report.snapshot));
    let left = packs(&memory).len();
    let whole = bench.save(&new);
    assert_eq!(whole.cost.delta_frames, 0);
    run(&bench, &exclusive()).unwrap();
    assert_eq!(packs(&memory).len(), left, "what was left is gone");
    judge(&bench, &[(whole.snapshot.unwrap(), new)], "after the prune");
}

/// A snapshot whose name was given, though the store said that it failed, was not looked at again: it is taken back.
#[test]
fn a_snapshot_that_is_there_in_spite_of_an_error_is_taken_back() {
    let (bench, memory) = Bench::in_memory(92);
    bench.save(&lines(1, 3000));
    let store = Faulty::new(memory.clone(), |call| {
        let is_snapshot = call.operation == Operation::Put && call.area == Area::Snapshots;
        is_snapshot.then_some(Fault::StoredThenError(StorageErrorKind::Transient))
    });
    let outcome = save(&bench.try_open_on(Arc::new(store)).unwrap(), &lines(2, 3000), &options());
    assert!(matches!(outcome, Err(Error::Storage(_))));
    assert_eq!(bench.open().snapshots().unwrap().0.len(), 1);
    let records = bench.open().records().unwrap();
    assert!(matches!(&records[..], [(_, Record::Forget { reason, .. })] if reason == "withdrawn"), "{records:?}");
    // Where not even that can be done, it is said.
    let store = Faulty::new(memory.clone(), |call| match (call.operation, call.area) {
        (Operation::Put, Area::Snapshots) => Some(Fault::StoredThenError(StorageErrorKind::Transient)),
        (Operation::Delete, _) => Some(Fault::Error(StorageErrorKind::Denied)),
        _ => None,
    });
    let outcome = save(&bench.try_open_on(Arc::new(store)).unwrap(), &lines(3, 3000), &options());
    let Err(Error::Conflict(said)) = outcome else { panic!("nothing was said") };
    let left = bench.open().snapshots().unwrap().0.into_iter().next_back().unwrap().id.short();
    assert!(said.contains(&left) && said.contains("could not be taken back"), "{said}");
}

/// A listing that leaves a snapshot out, in the middle of a prune, costs that snapshot nothing.
#[test]
fn a_snapshot_that_is_not_listed_for_once_is_missed() {
    let mut scene = Scene::new(93, &nights_of(4, 100_000));
    scene.forget(&[0]);
    run(&scene.bench, &exclusive()).unwrap();
    scene.forget(&[1]);
    let (before, options) = (scene.memory.snapshot(), exclusive());
    let mut stopped = 0;
    for number in 0.. {
        scene.memory.restore(before.clone());
        let hit = Arc::new(AtomicU64::new(0));
        let was_hit = hit.clone();
        let lists = Arc::new(AtomicU64::new(0));
        let store = Faulty::new(scene.memory.clone(), move |call| {
            let is_list = call.operation == Operation::List && call.area == Area::Snapshots;
            let is_it = is_list && lists.fetch_add(1, Ordering::SeqCst) == number;
            was_hit.fetch_add(u64::from(is_it), Ordering::SeqCst);
            is_it.then_some(Fault::Truncate(1))
        });
        let outcome = prune(&scene.bench.try_open_on(Arc::new(store)).unwrap(), &options, &Silent);
        if hit.load(Ordering::SeqCst) == 0 {
            break;
        }
        stopped += usize::from(outcome.is_err());
        scene.judge(&format!("listing {number}: {:?}", outcome.map(|report| report.packs_deleted)));
        run(&scene.bench, &options).unwrap();
        scene.judge(&format!("listing {number}, and later"));
    }
    assert!(stopped > 1, "{stopped}");
}

/// A snapshot that somebody takes away by hand while a prune runs is missed by the next at the latest.
#[test]
fn a_snapshot_that_is_taken_during_a_prune_is_missed() {
    let mut scene = Scene::new(94, &nights_of(3, 100_000));
    run(&scene.bench, &exclusive()).unwrap();
    scene.forget(&[0]);
    let (before, options, robbed) = (scene.memory.snapshot(), exclusive(), Place::snapshot(scene.truth[0].0));
    let body = scene.memory.get(&robbed, 1 << 20).unwrap();
    for number in 0.. {
        scene.memory.restore(before.clone());
        let (theirs, place) = (scene.memory.clone(), robbed.clone());
        let (store, did) = at_call(scene.memory.clone(), number, move || theirs.delete(&place).unwrap());
        let outcome = scene.bench.try_open_on(store).and_then(|repository| prune(&repository, &options, &Silent));
        if !did.load(Ordering::SeqCst) {
            break;
        }
        let again = run(&scene.bench, &options);
        assert!(matches!(again, Err(Error::Damaged { .. })), "call {number}: {:?}", outcome.map(|report| report.packs_deleted));
        scene.memory.put(&robbed, &body).unwrap();
        scene.judge(&format!("call {number}: it was brought back"));
    }
}

/// A record that is listed for ever without being there keeps no backup from its work, and nobody waiting.
#[test]
fn a_record_that_is_only_listed() {
    let (bench, memory) = Bench::in_memory(95);
    bench.save(&lines(1, 3000));
    let packs = Vec::new();
    let record = Condemned { time: jiff::Timestamp::UNIX_EPOCH, host: "h".into(), epoch: 1, packs, is_final: false, segments: vec![] };
    let phantom = Place::record(publish(&bench.open(), &Record::Condemned(record)).unwrap());
    let store = Faulty::new(memory.clone(), move |call| {
        let is_phantom = call.operation == Operation::Get && call.place == Some(&phantom);
        is_phantom.then_some(Fault::Error(StorageErrorKind::NotFound))
    });
    let repository = bench.try_open_on(Arc::new(store)).unwrap();
    save(&repository, &lines(2, 3000), &options()).unwrap();
    let outcome = repository.records().map(|records| records.len());
    assert!(matches!(outcome, Err(Error::Damaged { .. })), "{outcome:?}");
    assert!(prune(&repository, &thorough(Duration::ZERO), &Silent).is_err());
}

/// A pack that is being deleted, but holds what is needed and can only be read in part: prune leaves it, and whoever names it can save
/// the rest.
#[test]
fn a_doomed_pack_is_repaired_by_its_name() {
    let (bench, memory) = Bench::in_memory(96);
    bench.save(&noise(1, 3_000_000));
    let places = memory.places();
    let pack = places.iter().filter(|place| place.area == Area::Packs).max_by_key(|place| memory.get(place, 1 << 25).unwrap().len());
    let name = pack.unwrap().name.parse().unwrap();
    let record =
        Condemned { time: jiff::Timestamp::UNIX_EPOCH, host: "h".into(), epoch: 1, packs: vec![name], is_final: true, segments: vec![] };
    publish(&bench.open(), &Record::Condemned(record)).unwrap();
    memory.edit(&Place::pack(name), |bytes| bytes[500_000] ^= 1);
    let options = PacksOptions { packs: vec![name.hex()], ..PacksOptions::default() };
    let report = repair_packs(&bench.open(), &options, &Silent).unwrap();
    assert_eq!(report.treated.len(), 1);
    assert!(report.treated[0].saved > 0 && report.treated[0].lost == 1, "{:?}", report.treated);
}
