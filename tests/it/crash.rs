//! The store dies, or is full, or loses a reply, at every call of `init` and of a backup. Afterwards everything older is whole, the
//! next backup works without manual steps, and `check` finds no damage.

use std::sync::Arc;

use snap_backup::backend::{Area, Backend, Fault, Faulty, Memory, MemoryState, Operation};
use snap_backup::error::{Error, Result, StorageErrorKind};
use snap_backup::id::SnapshotId;
use snap_backup::ops::backup::BackupReport;
use snap_backup::repo::Repository;

use crate::support::*;

/// A repository with one snapshot, and the bytes of the next.
struct Scene {
    bench: Bench,
    before: MemoryState,
    old: Vec<u8>,
    new: Vec<u8>,
    tree: tempfile::TempDir,
}

const SEED: u64 = 71;

impl Scene {
    fn new() -> Self {
        let (bench, memory) = Bench::in_memory(SEED);
        let old = lines(1, 400_000);
        bench.save(&old);
        let new = [&old[..200_000], &noise(2, 300_000), &old[200_000..]].concat();
        let tree = tempfile::tempdir().unwrap();
        for (name, bytes) in [("a", noise(4, 90_000)), ("b", b"small".to_vec()), ("c", old[..50_000].to_vec())] {
            std::fs::write(tree.path().join(name), bytes).unwrap();
        }
        Self { bench, before: memory.snapshot(), old, new, tree }
    }

    fn bench(&self) -> (Bench, Memory) {
        let memory = Memory::new();
        memory.restore(self.before.clone());
        (self.bench.over(Arc::new(memory.clone())), memory)
    }

    /// Opens and backs up over a store with faults.
    fn run(&self, bench: &Bench, what: What, store: Arc<dyn Backend>) -> Result<BackupReport> {
        let repository = bench.try_open_on(store)?;
        match what {
            What::Stream => save(&repository, &self.new, &options()),
            What::Tree => save_tree(&repository, self.tree.path(), &options()),
        }
    }

    /// Everything that must hold after a run that went wrong, or that only seems to have.
    fn judge(&self, bench: &Bench, what: What, outcome: &Result<BackupReport>, case: &str) {
        let repository = bench.open();
        let (found, unreadable) = repository.snapshots().unwrap();
        assert!(unreadable.is_empty(), "{case}: {unreadable:?}");
        assert!(bench.dump(&found[0].id.hex()).unwrap() == self.old, "{case}: the older snapshot");
        // A snapshot is whole, even one of a run that did not live to say so.
        for stored in &found[1..] {
            self.judge_snapshot(bench, what, stored.id, case);
        }
        if let Ok(report) = outcome {
            assert_eq!(found.last().unwrap().id, report.snapshot.unwrap(), "{case}");
        }
        assert_clean(&repository);
        let again = self.run(bench, what, bench.store.clone()).unwrap_or_else(|error| panic!("{case}: the next backup: {error}"));
        self.judge_snapshot(bench, what, again.snapshot.unwrap(), case);
        assert_clean(&bench.open());
    }

    fn judge_snapshot(&self, bench: &Bench, what: What, id: SnapshotId, case: &str) {
        match what {
            What::Stream => assert!(bench.dump(&id.hex()).unwrap() == self.new, "{case}"),
            What::Tree => {
                let target = tempfile::tempdir().unwrap();
                let which = format!("{id}:{}", self.tree.path().display());
                let (_, problems) = restore_to(&bench.open(), &which, target.path(), &Default::default());
                assert_eq!(problems, [], "{case}");
                assert_eq!(describe(target.path()), describe(self.tree.path()), "{case}");
            }
        }
    }

    /// How many calls a run without faults makes.
    fn calls(&self, what: What) -> u64 {
        let (bench, memory) = self.bench();
        let store = Arc::new(Faulty::new(memory, |_| None));
        self.run(&bench, what, store.clone()).unwrap();
        store.calls()
    }
}

#[derive(Clone, Copy, Debug)]
enum What {
    Stream,
    Tree,
}

/// Runs with a fault at each call in turn; the fault is chosen by what the call is.
fn sweep(what: What, fault: fn(Operation) -> Option<Fault>) -> u64 {
    let scene = Scene::new();
    let mut failed = 0;
    // Threads read in changing order, so a run may make some calls more.
    for number in 0..scene.calls(what) + 2 {
        let (bench, memory) = scene.bench();
        let store = Faulty::new(memory, move |call| if call.number == number { fault(call.operation) } else { None });
        let outcome = scene.run(&bench, what, Arc::new(store));
        failed += u64::from(outcome.is_err());
        scene.judge(&bench, what, &outcome, &format!("{what:?}, call {number}"));
    }
    failed
}

#[test]
fn a_crash_at_any_call_of_a_backup() {
    for what in [What::Stream, What::Tree] {
        let failed = sweep(what, |_| Some(Fault::Crash));
        assert!(failed > 5, "{failed}");
    }
}

#[test]
fn a_lost_reply_to_any_write_of_a_backup() {
    let failed = sweep(What::Stream, |operation| match operation {
        Operation::Put | Operation::Delete => Some(Fault::StoredThenError(StorageErrorKind::Transient)),
        _ => None,
    });
    println!("{failed} runs failed");
}

#[test]
fn a_read_that_fails_once() {
    sweep(What::Stream, |operation| match operation {
        Operation::Put => None,
        _ => Some(Fault::Error(StorageErrorKind::Transient)),
    });
}

/// A bit that is wrong on its way to us once must not end in the repository.
#[test]
fn a_read_with_a_flipped_bit() {
    sweep(What::Stream, |operation| match operation {
        Operation::Get | Operation::ReadAt => Some(Fault::FlipBit(977)),
        _ => None,
    });
}

#[test]
fn a_store_that_fills_up_at_any_write() {
    let scene = Scene::new();
    for what in [What::Stream, What::Tree] {
        let mut put = 0;
        loop {
            let (bench, memory) = scene.bench();
            let count = std::sync::atomic::AtomicU64::new(0);
            // Once full, full it stays.
            let store = Faulty::new(memory.clone(), move |call| {
                let full = call.operation == Operation::Put && count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) >= put;
                full.then_some(Fault::Error(StorageErrorKind::Full))
            });
            let snapshots = |memory: &Memory| memory.places().iter().filter(|place| place.area == Area::Snapshots).count();
            let outcome = scene.run(&bench, what, Arc::new(store));
            match &outcome {
                Ok(_) => break,
                Err(Error::Storage(error)) => assert_eq!(error.kind, StorageErrorKind::Full),
                Err(error) => panic!("write {put}: {error}"),
            }
            assert_eq!(snapshots(&memory), 1, "no snapshot is saved");
            scene.judge(&bench, what, &outcome, &format!("full at write {put}"));
            put += 1;
        }
        assert!(put >= 3, "packs, a segment, a snapshot: {put}");
    }
}

/// What was stored before the crash is used by the next run.
#[test]
fn a_second_try_goes_on_where_the_first_ended() {
    let (bench, memory) = Bench::in_memory(SEED);
    let bytes = noise(9, 40 << 20);
    let store = Faulty::new(memory, |call| {
        let is_last = call.operation == Operation::Put && call.area == Area::Snapshots;
        is_last.then_some(Fault::Error(StorageErrorKind::Full))
    });
    let repository = bench.try_open_on(Arc::new(store)).unwrap();
    assert!(save(&repository, &bytes, &options()).is_err());
    let report = bench.save(&bytes);
    assert_eq!(report.totals.bytes_new, 0, "{:?}", report.totals);
    assert!(bench.dump("latest").unwrap() == bytes);

    // A source that fails half-way: packs are listed in an index segment by then.
    struct Half(std::io::Cursor<Vec<u8>>, u64);
    impl std::io::Read for Half {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            match self.0.position() > self.1 {
                true => Err(std::io::Error::other("gone")),
                false => self.0.read(buffer),
            }
        }
    }
    let (bench, _) = Bench::in_memory(SEED);
    let reader = Box::new(Half(std::io::Cursor::new(bytes.clone()), 36 << 20));
    let input = snap_backup::ops::backup::Input::Reader { name: "db".into(), reader };
    assert!(snap_backup::ops::backup::backup(&bench.open(), input, &options(), &snap_backup::progress::Silent).is_err());
    let report = bench.save(&bytes);
    assert!(report.totals.bytes_new < 25 << 20, "some of it was stored: {:?}", report.totals);
    assert!(bench.dump("latest").unwrap() == bytes);
}

#[test]
fn a_crash_at_any_call_of_init() {
    for fault in [Fault::Crash, Fault::Error(StorageErrorKind::Full)] {
        let mut number = 0;
        loop {
            let memory = Memory::new();
            let store = Faulty::new(memory.clone(), move |call| (call.number == number).then_some(fault));
            let made = Repository::create(Arc::new(store), opening(world(1, FAR), None), "test");
            // The next try works, or there is a repository already.
            let open = || Repository::open(Arc::new(memory.clone()), opening(world(3, FAR), None));
            match Repository::create(Arc::new(memory.clone()), opening(world(2, FAR), None), "test") {
                Ok(_) => {}
                Err(Error::AlreadyThere { .. }) => {}
                Err(error) => panic!("{fault:?} at call {number}: {error}"),
            }
            let repository = open().unwrap_or_else(|error| panic!("{fault:?} at call {number}: {error}"));
            save(&repository, b"works", &options()).unwrap();
            assert_eq!(read(&repository, "latest").unwrap(), b"works");
            assert_clean(&repository);
            // Reading for a manifest may fail without harm.
            if made.is_ok() && number > 2 {
                break;
            }
            number += 1;
        }
        assert!(number >= 4, "{number} calls");
    }
}

/// A store on whose listing one can rely only later: the newest files are missing from it.
#[test]
fn a_listing_that_lags_costs_only_bytes() {
    let scene = Scene::new();
    for hidden in 1..4 {
        let (bench, memory) = scene.bench();
        bench.save(&scene.new);
        let store = Faulty::new(memory, move |call| {
            let lags = call.operation == Operation::List && matches!(call.area, Area::Packs | Area::Segments);
            lags.then_some(Fault::Truncate(hidden - 1))
        });
        let outcome = scene.run(&bench, What::Stream, Arc::new(store));
        let report = outcome.unwrap();
        scene.judge_snapshot(&bench, What::Stream, report.snapshot.unwrap(), "listing");
        assert_clean(&bench.open());
    }
}

/// A check listed the packs, then the index, then the snapshots; a backup that ended in between was called damage.
#[test]
fn a_backup_beside_a_check_is_no_damage() {
    let scene = Scene::new();
    for number in 0.. {
        let (bench, memory) = scene.bench();
        let (other, new) = (bench.clone(), scene.new.clone());
        let listings = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let count = listings.clone();
        let store = Faulty::new(memory, move |call| {
            if call.operation == Operation::List && count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == number {
                other.save(&new);
            }
            None
        });
        assert_clean(&bench.try_open_on(Arc::new(store)).unwrap());
        if listings.load(std::sync::atomic::Ordering::SeqCst) <= number {
            assert!(number > 3, "{number} listings");
            break;
        }
    }
}
