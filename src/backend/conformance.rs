//! What every store promises, as one function; a new kind of store joins with a constructor.
//!
//! Each check begins with an empty store of its own. Names are made up, not hashes: stores do not look at contents.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Area, Backend, Counting, Faulty, Listed, Local, Memory, Place};
use crate::error::{StorageError, StorageErrorKind};
use crate::id::{ObjectName, SlotId};

pub fn conformance(make: impl Fn() -> Box<dyn Backend>) {
    let made = || {
        let store = make();
        store.create_areas().unwrap();
        store
    };
    areas_come_first(&*make());
    files_are_created_and_never_replaced(&*made());
    ranges_are_exact(&*made());
    sizes_are_limited(&*made());
    what_is_missing_is_said_to_be(&*made());
    listings_are_exact(&*made());
    sizes_from_nothing_to_many_megabytes(&*made());
    one_of_many_writers_wins(&*made());
    a_name_in_a_listing_stands_for_a_whole_file(&*made());
    what_is_set_aside_is_out_of_the_way(&*made());
    what_is_settled_stays_as_it_is(&*made());
}

/// One name in each area.
fn one_of_each(number: u8) -> Vec<Place> {
    let name = ObjectName([number; 32]);
    vec![
        Place::manifest(),
        Place::key(SlotId([number; 16])),
        Place::pack(name),
        Place::segment(name),
        Place::snapshot(name),
        Place::record(name),
    ]
}

fn pack(number: u8) -> Place {
    Place::pack(ObjectName([number; 32]))
}

#[track_caller]
fn fails<T: std::fmt::Debug>(outcome: super::Result<T>, kind: StorageErrorKind, names: &str) -> StorageError {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind, kind, "{error}: {}", error.source);
    assert!(error.to_string().contains(names), "{error} names no {names}");
    error
}

fn sorted(mut listed: Vec<Listed>) -> Vec<Listed> {
    listed.sort();
    listed
}

fn what_is_settled_stays_as_it_is(store: &dyn Backend) {
    one_of_each(1).iter().for_each(|place| store.put(place, b"bytes").unwrap());
    store.delete(&pack(1)).unwrap();
    let before = Area::ALL.map(|area| store.list_names(area).unwrap());
    Area::ALL.iter().for_each(|area| store.settle(*area).unwrap());
    assert_eq!(Area::ALL.map(|area| store.list_names(area).unwrap()), before);
}

/// The listing of an area, whose names are those that are listed alone.
fn listing(store: &dyn Backend, area: Area) -> Vec<Listed> {
    let listed = sorted(store.list(area).unwrap());
    let mut names = store.list_names(area).unwrap();
    names.sort();
    assert!(names.iter().eq(listed.iter().map(|listed| &listed.name)), "{area:?}: {names:?}");
    listed
}

fn areas_come_first(store: &dyn Backend) {
    for area in Area::ALL {
        fails(store.list(area), StorageErrorKind::NotFound, area.folder());
        fails(store.list_names(area), StorageErrorKind::NotFound, area.folder());
    }
    for place in one_of_each(1) {
        let kind = store.put(&place, b"early").unwrap_err().kind;
        assert_eq!(kind, StorageErrorKind::Other, "nothing asked for is missing, the store is");
    }
    store.create_areas().unwrap();
    store.create_areas().unwrap();
    store.put(&Place::key(SlotId([1; 16])), b"slot").unwrap();
    store.create_areas().expect("an init that was cut short can be run again");
    store.put(&Place::manifest(), b"manifest").unwrap();
    fails(store.create_areas(), StorageErrorKind::Exists, "a repository");
    store.delete(&Place::manifest()).unwrap();
    store.put(&pack(1), b"pack").unwrap();
    fails(store.create_areas(), StorageErrorKind::Exists, "a repository");
    assert_eq!(store.get(&pack(1), 9).unwrap(), b"pack");
}

fn files_are_created_and_never_replaced(store: &dyn Backend) {
    for place in one_of_each(0xab) {
        store.put(&place, place.area.noun().as_bytes()).unwrap();
        fails(store.put(&place, b"other"), StorageErrorKind::Exists, &place.to_string());
        fails(store.put(&place, b""), StorageErrorKind::Exists, &place.to_string());
    }
    for place in one_of_each(0xab) {
        assert_eq!(store.get(&place, 100).unwrap(), place.area.noun().as_bytes(), "one name in two areas is two files");
    }
}

fn ranges_are_exact(store: &dyn Backend) {
    let bytes: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    for place in [pack(1), Place::segment(ObjectName([1; 32]))] {
        store.put(&place, &bytes).unwrap();
        for offset in [0, 1, 4095, 4096, 9_998, 9_999, 10_000] {
            for len in [0, 1, 2, 4096, 10_000, 10_001] {
                let mut buffer = vec![0x55; len];
                let outcome = store.read_at(&place, offset as u64, &mut buffer);
                match bytes.get(offset..offset + len) {
                    Some(expected) => assert!(outcome.is_ok() && buffer == expected, "{len} at {offset}"),
                    None => drop(fails(outcome, StorageErrorKind::Short, &place.to_string())),
                }
            }
        }
        for offset in [10_001, 1 << 40, i64::MAX as u64, u64::MAX - 1, u64::MAX] {
            fails(store.read_at(&place, offset, &mut [0]), StorageErrorKind::Short, &place.to_string());
        }
        store.read_at(&place, 0, &mut vec![0; 10_000]).expect("a short range spoils nothing");
    }
}

/// Of every area, and several files of one name one after another.
fn what_is_set_aside_is_out_of_the_way(store: &dyn Backend) {
    for place in one_of_each(5) {
        let mut paths = Vec::new();
        for bytes in [&b"first"[..], b"second", b""] {
            store.put(&place, bytes).unwrap();
            assert_eq!(store.get(&place, 10).unwrap(), bytes);
            paths.push(store.set_aside(&place).unwrap());
            fails(store.get(&place, 10), StorageErrorKind::NotFound, &place.to_string());
            fails(store.read_at(&place, 0, &mut [0]), StorageErrorKind::NotFound, &place.to_string());
            assert_eq!(store.list(place.area).unwrap(), []);
        }
        assert!(paths.iter().all(|path| path.starts_with("aside/") && path.contains(&place.name)), "{paths:?}");
        paths.dedup();
        assert_eq!(paths.len(), 3);
        fails(store.set_aside(&place), StorageErrorKind::NotFound, &place.to_string());
    }
}

fn sizes_are_limited(store: &dyn Backend) {
    store.put(&pack(1), b"12345").unwrap();
    let error = fails(store.get(&pack(1), 4), StorageErrorKind::Other, &pack(1).to_string());
    assert!(error.source.to_string().contains("larger than the 4 allowed"), "{}", error.source);
    assert_eq!(store.get(&pack(1), 5).unwrap(), b"12345");
    assert_eq!(store.get(&pack(1), u64::MAX).unwrap(), b"12345");
}

fn what_is_missing_is_said_to_be(store: &dyn Backend) {
    for place in one_of_each(1) {
        let missing = || {
            fails(store.get(&place, 100), StorageErrorKind::NotFound, &place.to_string());
            fails(store.read_at(&place, 0, &mut [0]), StorageErrorKind::NotFound, &place.to_string());
            fails(store.delete(&place), StorageErrorKind::NotFound, &place.to_string());
            store.forget_cached(&place);
            assert_eq!(listing(store, place.area), []);
        };
        missing();
        store.put(&place, b"12").unwrap();
        store.forget_cached(&place);
        store.read_at(&place, 1, &mut [0]).unwrap();
        store.delete(&place).unwrap();
        missing();
        store.put(&place, b"345").expect("a name that was deleted can be used again");
        let mut buffer = [0; 3];
        store.read_at(&place, 0, &mut buffer).unwrap();
        assert_eq!(&buffer, b"345", "and nothing is left of the first");
        store.delete(&place).unwrap();
    }
}

fn listings_are_exact(store: &dyn Backend) {
    for area in Area::ALL {
        assert_eq!(listing(store, area), [], "{area:?}");
    }
    for number in 0..=255u8 {
        store.put(&pack(number), &vec![0; usize::from(number)]).unwrap();
        if number < 3 {
            store.put(&Place::key(SlotId([number; 16])), b"slot").unwrap();
            store.put(&Place::snapshot(ObjectName([number; 32])), b"snapshot").unwrap();
        }
    }
    assert_eq!(listing(store, Area::Snapshots).len(), 3);
    store.put(&Place::manifest(), b"manifest").unwrap();
    let packs: Vec<_> = (0..=255u8).map(|number| Listed { name: pack(number).name, size: number.into() }).collect();
    assert_eq!(listing(store, Area::Packs), packs);
    let keys: Vec<_> = (0..3u8).map(|number| Listed { name: SlotId([number; 16]).hex(), size: 4 }).collect();
    assert_eq!(listing(store, Area::Keys), keys);
    assert_eq!(listing(store, Area::Top), [Listed { name: "manifest".into(), size: 8 }]);
    assert_eq!(listing(store, Area::Segments), []);
    store.delete(&pack(0x80)).unwrap();
    let left: Vec<_> = packs.into_iter().filter(|file| file.name != pack(0x80).name).collect();
    assert_eq!(listing(store, Area::Packs), left);
}

fn sizes_from_nothing_to_many_megabytes(store: &dyn Backend) {
    store.put(&pack(1), b"").unwrap();
    assert_eq!(store.get(&pack(1), 0).unwrap(), b"");
    store.read_at(&pack(1), 0, &mut []).unwrap();
    fails(store.read_at(&pack(1), 0, &mut [0]), StorageErrorKind::Short, "pack");

    let large: Vec<u8> = (0..5u32 << 20).flat_map(|word| word.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    store.put(&pack(2), &large).unwrap();
    assert!(store.get(&pack(2), large.len() as u64).unwrap() == large);
    let mut buffer = vec![0; 7 << 20];
    store.read_at(&pack(2), 13 << 20, &mut buffer).unwrap();
    assert!(buffer == large[13 << 20..]);
}

fn one_of_many_writers_wins(store: &dyn Backend) {
    for round in 0..10 {
        let barrier = Barrier::new(8);
        let contents = |writer: u8| vec![writer; 100_000];
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let write = |writer: u8| {
                barrier.wait();
                store.put(&pack(round), &contents(writer))
            };
            let writers: Vec<_> = (0..8).map(|writer| scope.spawn(move || write(writer))).collect();
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        let winners: Vec<u8> = (0..8).filter(|writer| outcomes[usize::from(*writer)].is_ok()).collect();
        assert_eq!(winners.len(), 1);
        assert!(store.get(&pack(round), 100_000).unwrap() == contents(winners[0]));
        for loser in outcomes.into_iter().filter(Result::is_err) {
            fails(loser, StorageErrorKind::Exists, "pack");
        }
    }
}

fn a_name_in_a_listing_stands_for_a_whole_file(store: &dyn Backend) {
    let contents = |number: u8| vec![number; 300_000];
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 0..40 {
                store.put(&pack(number), &contents(number)).unwrap();
            }
        });
        loop {
            let last = writer.is_finished();
            let listed = store.list(Area::Packs).unwrap();
            for file in &listed {
                assert_eq!(file.size, 300_000);
            }
            if let Some(file) = listed.last() {
                let place = Place { area: Area::Packs, name: file.name.clone() };
                let bytes = store.get(&place, 300_000).unwrap();
                assert!(bytes == contents(bytes[0]) && place == pack(bytes[0]));
            }
            if last {
                assert_eq!(listed.len(), 40);
                break;
            }
        }
    });
}

#[test]
fn memory() {
    conformance(|| Box::new(Memory::new()));
}

#[test]
fn folder() {
    let parent = tempfile::tempdir().unwrap();
    let count = AtomicU32::new(0);
    conformance(|| Box::new(Local::new(parent.path().join(count.fetch_add(1, Ordering::Relaxed).to_string()))));
}

#[test]
fn folder_that_can_only_link() {
    let parent = tempfile::tempdir().unwrap();
    let count = AtomicU32::new(0);
    conformance(|| Box::new(Local::without_rename(parent.path().join(count.fetch_add(1, Ordering::Relaxed).to_string()))));
}

#[test]
fn wrappers_without_a_fault() {
    conformance(|| Box::new(Counting::new(Faulty::new(std::sync::Arc::new(Memory::new()), |_| None))));
}
