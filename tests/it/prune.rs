//! Prune: what is forgotten goes, what is not restores bit for bit, whatever happens meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use snap_backup::backend::{Area, Backend, Calls, Counting, Faulty, Memory, Place};
use snap_backup::error::{Error, Result};
use snap_backup::format::record::Record;
use snap_backup::id::{ObjectName, SnapshotId};
use snap_backup::ops::prune::{MaxUnused, PruneOptions, PruneReport, prune};
use snap_backup::ops::repair::{Mode, repair_index};
use snap_backup::progress::Silent;
use snap_backup::repo::Repository;
use snap_backup::repo::records::{Records, Rigour, publish};

use crate::support::*;

/// Shorter than what the clock of a bench goes on from one opening to the next.
pub const NIGHT: Duration = Duration::from_secs(5000);

pub fn thorough(grace: Duration) -> PruneOptions {
    PruneOptions { max_unused: MaxUnused::Bytes(0), grace, ..PruneOptions::new("host") }
}

pub fn exclusive() -> PruneOptions {
    PruneOptions { exclusive: true, ..thorough(Duration::ZERO) }
}

pub fn run(bench: &Bench, options: &PruneOptions) -> Result<PruneReport> {
    prune(&bench.open(), options, &Silent)
}

/// Does something once, in the place of another host, before the call of that number.
pub fn at_call(inner: Memory, number: u64, act: impl Fn() + Send + Sync + 'static) -> (Arc<Faulty<Memory>>, Arc<AtomicBool>) {
    let done = Arc::new(AtomicBool::new(false));
    let is_done = done.clone();
    let store = Faulty::new(inner, move |call| {
        if call.number == number && !is_done.swap(true, Ordering::SeqCst) {
            elsewhere(&act);
        }
        None
    });
    (Arc::new(store), done)
}

/// Removes snapshots as `forget` does: a record of it first.
pub fn forget(repository: &Repository, snapshots: &[SnapshotId]) {
    let record =
        Record::Forget { time: repository.world().now(), host: "host".into(), snapshots: snapshots.to_vec(), reason: "test".into() };
    publish(repository, &record).unwrap();
    for id in snapshots {
        repository.backend().delete(&Place::snapshot(*id)).unwrap();
    }
}

pub fn packs(store: &dyn Backend) -> Vec<(String, u64)> {
    let mut listed: Vec<_> = store.list(Area::Packs).unwrap().into_iter().map(|listed| (listed.name, listed.size)).collect();
    listed.sort();
    listed
}

pub fn pack_bytes(store: &dyn Backend) -> u64 {
    packs(store).iter().map(|(_, size)| size).sum()
}

/// What packs take in a new repository that holds only these.
fn fresh_size(versions: &[&[u8]]) -> u64 {
    let (bench, memory) = Bench::in_memory(99);
    for bytes in versions {
        bench.save(bytes);
    }
    pack_bytes(&memory)
}

/// Every snapshot restores to the bytes it was made of, with and without an index, and a check finds nothing.
pub fn judge(bench: &Bench, truth: &[(SnapshotId, Vec<u8>)], case: &str) {
    let (found, unreadable) = bench.open().snapshots().unwrap();
    assert!(unreadable.is_empty(), "{case}");
    assert_eq!(found.len(), truth.len(), "{case}");
    for (id, bytes) in truth {
        assert!(bench.dump(&id.hex()).unwrap_or_else(|error| panic!("{case}: {error}")) == *bytes, "{case}");
        assert!(bench.without_cache().dump(&id.hex()).unwrap() == *bytes, "{case}");
    }
    assert_clean(&bench.open());
}

/// A dump that changes a little every night.
pub fn nights(count: usize) -> Vec<Vec<u8>> {
    nights_of(count, 1_200_000)
}

pub fn nights_of(count: usize, len: usize) -> Vec<Vec<u8>> {
    let mut dump = [lines(1, len), noise(2, len / 2)].concat();
    let mut random = Rng::new(5);
    let mut versions = vec![dump.clone()];
    for night in 1..count {
        for _ in 0..12 {
            let at = random.below(dump.len() as u64 - 40) as usize;
            dump.splice(at..at + 20, format!("night {night} {}", random.next()).into_bytes());
        }
        dump.extend_from_slice(&lines(100 + night as u64, len / 20));
        versions.push(dump.clone());
    }
    versions
}

pub struct Scene {
    pub bench: Bench,
    pub memory: Memory,
    pub truth: Vec<(SnapshotId, Vec<u8>)>,
}

impl Scene {
    pub fn new(seed: u64, versions: &[Vec<u8>]) -> Self {
        let (bench, memory) = Bench::in_memory(seed);
        let truth = versions.iter().map(|bytes| (bench.save(bytes).snapshot.unwrap(), bytes.clone())).collect();
        Self { bench, memory, truth }
    }

    /// Forgets some of the snapshots, by their place in the list.
    pub fn forget(&mut self, which: &[usize]) {
        let ids: Vec<SnapshotId> = which.iter().map(|&at| self.truth[at].0).collect();
        forget(&self.bench.open(), &ids);
        self.truth.retain(|(id, _)| !ids.contains(id));
    }

    pub fn judge(&self, case: &str) {
        judge(&self.bench, &self.truth, case);
    }
}

#[test]
fn what_is_forgotten_goes_and_the_rest_restores() {
    let versions = nights(6);
    let mut scene = Scene::new(1, &versions);
    let full = pack_bytes(&scene.memory);
    assert_eq!(run(&scene.bench, &exclusive()).unwrap().packs_deleted, 0, "nothing was forgotten");
    assert_eq!(pack_bytes(&scene.memory), full);
    for forgotten in [vec![0, 2], vec![0], vec![1]] {
        scene.forget(&forgotten);
        let before = pack_bytes(&scene.memory);
        let report = run(&scene.bench, &exclusive()).unwrap();
        scene.judge("after a prune");
        let after = pack_bytes(&scene.memory);
        println!("{before} -> {after}: {report:?}");
        assert!(after < before && report.frames_thinned > 0, "{before} {after}");
        // Once more changes nothing.
        let places = scene.memory.places().len();
        let again = run(&scene.bench, &exclusive()).unwrap();
        assert_eq!((again.packs_deleted, again.frames_moved, again.segments_replaced), (0, 0, 0), "{again:?}");
        assert!(scene.memory.places().len() <= places);
        scene.judge("after another prune");
    }
    // The deltas that are left need their bases, so it cannot be as little as a new repository takes.
    let left: Vec<&[u8]> = scene.truth.iter().map(|(_, bytes)| &bytes[..]).collect();
    let (after, fresh) = (pack_bytes(&scene.memory), fresh_size(&left));
    println!("{after} against {fresh} in a new repository");
    assert!(after < fresh + fresh / 4, "{after} {fresh}");
    scene.forget(&[0, 1]);
    run(&scene.bench, &exclusive()).unwrap();
    assert_eq!(packs(&scene.memory), []);
    assert_clean(&scene.bench.open());
    let id = scene.bench.save(&versions[0]).snapshot.unwrap();
    judge(&scene.bench, &[(id, versions[0].clone())], "a new life");
}

#[test]
fn packs_stay_condemned_for_a_while() {
    let mut scene = Scene::new(2, &nights(4));
    scene.forget(&[0, 1, 2]);
    let before = packs(&scene.memory);
    let first = run(&scene.bench, &thorough(NIGHT)).unwrap();
    assert!(first.packs_condemned > 0 && first.packs_deleted == 0, "{first:?}");
    assert!(packs(&scene.memory).len() >= before.len(), "nothing is deleted yet");
    scene.judge("condemned");
    // Before its time, nothing.
    let early = run(&scene.bench, &thorough(Duration::from_secs(1_000_000))).unwrap();
    assert_eq!((early.packs_deleted, early.packs_condemned, early.frames_moved), (0, 0, 0), "{early:?}");
    let second = run(&scene.bench, &thorough(NIGHT)).unwrap();
    assert_eq!((second.packs_deleted, second.packs_condemned), (first.packs_condemned, 0), "{second:?}");
    assert!(pack_bytes(&scene.memory) < before.iter().map(|(_, size)| size).sum());
    scene.judge("deleted");
    // The final record stays for one more run.
    let condemned = |bench: &Bench| Records::read(&bench.open(), Rigour::Strict).unwrap().condemned.len();
    assert_eq!(condemned(&scene.bench), 1);
    run(&scene.bench, &thorough(NIGHT)).unwrap();
    assert_eq!(condemned(&scene.bench), 0);
    assert_eq!(Records::read(&scene.bench.open(), Rigour::Strict).unwrap().epochs.len(), 1);
    scene.judge("concluded");
}

/// A backup that runs while packs are condemned may rely on them, and one that begins after stores anew what it needs of them.
#[test]
fn what_is_needed_again_is_kept_or_stored_anew() {
    let versions = nights(3);
    let mut scene = Scene::new(3, &versions);
    scene.forget(&[0, 1, 2]);
    let first = run(&scene.bench, &thorough(NIGHT)).unwrap();
    assert!(first.packs_condemned > 0);
    let report = scene.bench.save(&versions[1]);
    assert!(report.totals.bytes_new as usize > versions[1].len() / 2, "condemned packs count as absent: {:?}", report.totals);
    scene.truth.push((report.snapshot.unwrap(), versions[1].clone()));
    run(&scene.bench, &thorough(NIGHT)).unwrap();
    scene.judge("deleted");
}

#[test]
fn a_dry_run_changes_nothing_and_tells_what_would_happen() {
    let mut scene = Scene::new(4, &nights(4));
    scene.forget(&[1, 2]);
    let before = scene.memory.snapshot();
    let dry = run(&scene.bench, &PruneOptions { dry_run: true, ..exclusive() }).unwrap();
    assert!(scene.memory.snapshot() == before);
    let wet = run(&scene.bench, &exclusive()).unwrap();
    assert_eq!(dry.figures, wet.figures);
    let (said, after) = (dry.figures.size_after, pack_bytes(&scene.memory));
    println!("{said} said, {after} after");
    assert!(said.abs_diff(after) < after / 10, "{said} {after}");
}

#[test]
fn many_small_packs_and_segments_become_few() {
    let mut versions = Vec::new();
    let mut dump = lines(1, 300_000);
    for night in 0..24 {
        dump.extend_from_slice(&lines(50 + night, 20_000));
        versions.push(dump.clone());
    }
    let scene = Scene::new(5, &versions);
    let count = |area| scene.memory.places().iter().filter(|place| place.area == area).count();
    assert!(count(Area::Packs) >= 48 && count(Area::Segments) == 24);
    let report = run(&scene.bench, &thorough(NIGHT)).unwrap();
    assert_eq!(report.figures.rewrite_packs, 48, "{report:?}");
    run(&scene.bench, &thorough(NIGHT)).unwrap();
    scene.judge("merged");
    assert_eq!((count(Area::Packs), count(Area::Segments)), (2, 1));
    // With "unlimited" nothing is rewritten.
    let report = run(&scene.bench, &PruneOptions { max_unused: MaxUnused::Unlimited, ..exclusive() }).unwrap();
    assert_eq!((report.frames_moved, report.packs_deleted), (0, 0));
}

/// As a backup leaves them that died before it wrote a segment.
#[test]
fn packs_in_no_segment_that_are_needed_are_listed() {
    let mut scene = Scene::new(8, &nights_of(3, 150_000));
    scene.forget(&[1]);
    let unlisted = |scene: &Scene| repair_index(&scene.bench.open(), Mode::Look, &Silent).unwrap().packs_listed.len();
    assert_eq!(unlisted(&scene), 0);
    scene.memory.places().iter().filter(|place| place.area == Area::Segments).for_each(|place| drop(scene.memory.remove(place)));
    assert_eq!(unlisted(&scene), packs(&scene.memory).len());
    run(&scene.bench, &exclusive()).unwrap();
    assert_eq!(unlisted(&scene), 0);
    scene.judge("listed again");
}

#[test]
fn no_more_is_rewritten_than_was_allowed() {
    let mut scene = Scene::new(6, &nights(5));
    scene.forget(&[0, 1, 2]);
    let sizes = packs(&scene.memory);
    let limit = sizes.iter().map(|(_, size)| *size).max().unwrap();
    let report = run(&scene.bench, &PruneOptions { max_repack: Some(limit), ..exclusive() }).unwrap();
    assert!(report.figures.rewrite_size <= limit && report.figures.rewrite_packs > 0, "{report:?}");
    scene.judge("a part of it");
}

/// Objects that cannot be read, or are not known, end a prune before it deletes anything.
#[test]
fn a_prune_stops_at_what_it_cannot_read() {
    let mut scene = Scene::new(7, &nights(3));
    scene.forget(&[1]);
    let repository = scene.bench.open();
    let forgotten = Record::Forget { time: repository.world().now(), host: "h".into(), snapshots: vec![], reason: String::new() };
    publish(&repository, &forgotten).unwrap();
    let state = scene.memory.snapshot();
    for place in scene.memory.places() {
        if !matches!(place.area, Area::Snapshots | Area::Segments | Area::Records) {
            continue;
        }
        for len in [0, 40, 70] {
            scene.memory.restore(state.clone());
            scene.memory.edit(&place, |bytes| bytes.truncate(len));
            let before = packs(&scene.memory);
            let error = run(&scene.bench, &exclusive()).unwrap_err();
            assert!(matches!(&error, Error::Damaged { what, .. } if *what == place.to_string()), "{place}: {error}");
            assert_eq!(packs(&scene.memory), before, "{place}");
        }
    }
    // Written by a later version.
    for area in [Area::Snapshots, Area::Segments, Area::Records] {
        scene.memory.restore(state.clone());
        let place = scene.memory.places().into_iter().find(|place| place.area == area).unwrap();
        let mut bytes = scene.memory.remove(&place).unwrap();
        crate::damage::make_newer(&mut bytes);
        scene.memory.insert(Place { area, name: ObjectName::of(&bytes).hex() }, bytes);
        let error = run(&scene.bench, &exclusive()).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }
}

/// A snapshot that vanished without being forgotten: the store may have lost it, or show only a part of what it has.
#[test]
fn a_prune_stops_when_snapshots_are_missing() {
    let mut scene = Scene::new(8, &nights(3));
    run(&scene.bench, &exclusive()).unwrap();
    let state = scene.memory.snapshot();
    scene.memory.remove(&Place::snapshot(scene.truth[1].0));
    let error = run(&scene.bench, &exclusive()).unwrap_err();
    assert!(matches!(&error, Error::Damaged { what, .. } if what.contains(&scene.truth[1].0.hex())), "{error}");
    let allowed = PruneOptions { missing_snapshots_ok: true, ..exclusive() };
    assert!(run(&scene.bench, &allowed).unwrap().packs_deleted > 0);
    run(&scene.bench, &exclusive()).unwrap();
    scene.memory.restore(state);
    scene.forget(&[1]);
    run(&scene.bench, &exclusive()).unwrap();
    scene.judge("forgotten");
}

/// Reads and bytes of a prune over this store.
fn counted(bench: &Bench, store: &Counting<Memory>, options: &PruneOptions) -> (Calls, PruneReport) {
    let repository = bench.open();
    let before = store.calls();
    let report = prune(&repository, options, &Silent).unwrap();
    (store.calls() - before, report)
}

/// What every prune must read, whatever there is to do: what is stored stands in the segments, and not for certain in this host's index,
/// which may decide no deletion; what is needed stands in the catalogs, and nowhere else. Segments are read twice here, since there is no
/// index of this host through which the catalogs are found; and for each pack of catalogs its end.
fn unavoidable(bench: &Bench, memory: &Memory) -> u64 {
    let sizes = |area| memory.list(area).unwrap().iter().map(|listed| listed.size).sum::<u64>();
    let catalogs = snap_backup::ops::stats::stats(&bench.open(), &Silent).unwrap().catalog_size;
    let ends = 66_000 * packs(memory).len() as u64;
    2 * sizes(Area::Segments) + 2 * sizes(Area::Snapshots) + 3 * sizes(Area::Records) + catalogs + ends
}

/// What a prune asks of the store grows with what it deletes and moves, besides the index and the catalogs, which it reads whole.
#[test]
fn what_a_prune_costs() {
    let mut scene = Scene::new(10, &nights_of(12, 500_000));
    let store = Arc::new(Counting::new(scene.memory.clone()));
    let over = scene.bench.over(store.clone());
    let at_once = thorough(Duration::ZERO);
    // The first merges the many small packs.
    assert!(counted(&over, &store, &at_once).1.packs_deleted > 20);
    counted(&over, &store, &at_once);
    // Nothing to do: no pack is read but those of catalogs, and nothing is written or deleted.
    let (idle, _) = counted(&over, &store, &at_once);
    println!("nothing to do: {idle:?}");
    assert!(idle.bytes_got < unavoidable(&scene.bench, &scene.memory), "{idle:?}");
    assert_eq!((idle.puts, idle.deletes), (0, 0), "{idle:?}");
    // One of twelve is forgotten.
    scene.forget(&[5]);
    let (busy, report) = counted(&over, &store, &at_once);
    println!("one forgotten: {busy:?}\n{report:?}");
    let moved = report.figures.rewrite_size + report.bytes_written;
    assert!(report.frames_moved > 0 && busy.bytes_got < 2 * unavoidable(&scene.bench, &scene.memory) + 4 * moved, "{busy:?} {report:?}");
    assert!(busy.bytes_put < 2 * moved + 20_000, "{busy:?}");
    scene.judge("counted");
}

/// A repository three times as large, of which the same is forgotten: the prune reads and writes hardly more.
#[test]
fn a_larger_repository_costs_a_prune_hardly_more() {
    let mut costs = Vec::new();
    for count in [4, 12] {
        // Each has packs of its own, large enough to stay as they are.
        let versions: Vec<Vec<u8>> = (0..count).map(|seed| noise(seed, 6 << 20)).collect();
        let mut scene = Scene::new(11, &versions);
        let store = Arc::new(Counting::new(scene.memory.clone()));
        let over = scene.bench.over(store.clone());
        counted(&over, &store, &thorough(Duration::ZERO));
        let size = pack_bytes(&scene.memory);
        scene.forget(&[1]);
        let (calls, report) = counted(&over, &store, &thorough(Duration::ZERO));
        println!("{size} bytes in {} packs: {calls:?}", packs(&scene.memory).len());
        assert!((6 << 20..7 << 20).contains(&report.bytes_deleted), "{report:?}");
        costs.push((size, calls));
        scene.judge("one of many");
    }
    let [(small_size, small), (large_size, large)] = costs[..] else { unreachable!() };
    let (grown, more) = (large_size - small_size, large.bytes_got.saturating_sub(small.bytes_got));
    // Segments, which tell of all packs, and the packs of catalogs: both are small, and rewritten when something in them goes.
    assert!(more < grown / 50, "{more} more bytes are read of {grown} more that are stored");
    assert!(large.bytes_put < small.bytes_put + grown / 200, "{small:?} {large:?}");
}
