//! Every object of a small repository deleted, cut short, flipped and swapped: nothing panics, `check` tells, and what is read back
//! is right or an error.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use snap_backup::backend::{Area, Backend, Fault, Faulty, Memory, MemoryState, Operation, Place};
use snap_backup::crypto::Secret;
use snap_backup::error::{Error, Result};
use snap_backup::format::entry::{Entry, Node, is_restart};
use snap_backup::id::SnapshotId;
use snap_backup::ops::browse;
use snap_backup::ops::dump::dump;
use snap_backup::ops::restore::{RestoreOptions, restore};
use snap_backup::ops::stats::stats;
use snap_backup::progress::Silent;
use snap_backup::repo::{Opening, Repository, Selection};

use crate::support::*;

const SEED: u64 = 41;

/// A small repository and what it holds: a stream, the same edited (with delta frames), and a tree.
pub struct Victim {
    pub bench: Bench,
    pub state: MemoryState,
    pub places: Vec<Place>,
    pub truth: BTreeMap<(SnapshotId, Vec<u8>), Vec<u8>>,
    pub stream: Vec<u8>,
    pub edited: Vec<u8>,
    pub tree: tempfile::TempDir,
}

impl Victim {
    pub fn new() -> Self {
        let (bench, memory) = Bench::in_memory(SEED);
        let stream = [noise(1, 60_000), lines(1, 60_000)].concat();
        let mut edited = stream.clone();
        edited[40_000..40_010].copy_from_slice(b"other-text");
        edited.splice(90_000..90_000, lines(3, 100));
        bench.save(&stream);
        let report = bench.save(&edited);
        assert!(report.cost.delta_frames > 0, "{:?}", report.cost);
        let tree = tempfile::tempdir().unwrap();
        for (name, bytes) in [("a", noise(4, 9_000)), ("b", b"small".to_vec()), ("c", lines(5, 30_000)), ("e", Vec::new())] {
            fs::write(tree.path().join(name), bytes).unwrap();
        }
        // A name at which the catalog restarts, so that its table of paths is not empty.
        let below = |name: &str| tree.path().join(name).as_os_str().as_bytes()[1..].to_vec();
        let restart = (0..).map(|number| format!("r{number}")).find(|name| is_restart(&below(name))).unwrap();
        fs::write(tree.path().join(restart), b"restart").unwrap();
        // The stream's own bytes too: files of different snapshots share frames.
        fs::write(tree.path().join("d"), &stream[..50_000]).unwrap();
        save_tree(&bench.open(), tree.path(), &options()).unwrap();
        let repository = bench.open();
        assert_clean(&repository);
        let mut truth = BTreeMap::new();
        for stored in repository.snapshots().unwrap().0 {
            let selection = Selection { stored, path: Vec::new() };
            let each = &mut |entry: &Entry| {
                if let Node::File { .. } = &entry.node {
                    truth.insert((selection.stored.id, entry.path.clone()), Vec::new());
                }
                Ok(())
            };
            browse::list(&repository, &selection, true, each).unwrap();
        }
        for ((id, path), bytes) in &mut truth {
            let selection = Selection { stored: repository.snapshot(*id).unwrap(), path: path.clone() };
            dump(&repository, &selection, bytes, &Silent).unwrap();
        }
        assert_eq!(truth.len(), 8);
        Self { bench, state: memory.snapshot(), places: memory.places(), truth, stream, edited, tree }
    }

    pub fn bench(&self) -> (Bench, Memory) {
        let memory = Memory::new();
        memory.restore(self.state.clone());
        (self.bench.over(Arc::new(memory.clone())), memory)
    }

    pub fn damaged(&self, damage: &dyn Fn(&Memory)) -> (Bench, Memory) {
        let (bench, memory) = self.bench();
        damage(&memory);
        (bench, memory)
    }

    pub fn bytes(&self, place: &Place) -> Vec<u8> {
        self.bench().1.remove(place).unwrap()
    }

    /// Opens, checks and reads a damaged repository; says what is wrong with how it behaved.
    pub fn judge(&self, expected: Expected, damage: &dyn Fn(&Memory)) -> std::result::Result<(), String> {
        let (bench, _) = self.damaged(damage);
        let outcome = catch_unwind(AssertUnwindSafe(|| self.judge_open(&bench, expected)));
        outcome.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(ToString::to_string));
            Err(format!("it panicked: {}", text.unwrap_or_default()))
        })
    }

    fn judge_open(&self, bench: &Bench, expected: Expected) -> std::result::Result<(), String> {
        let repository = match bench.try_open_on(bench.store.clone()) {
            Ok(repository) => repository,
            Err(error) => return judge_error(&error),
        };
        let report = check_all(&repository).map_err(|error| format!("check gave up: {error}"))?;
        let _ = stats(&repository, &Silent);
        let mut lost = BTreeMap::new();
        let mut gone = BTreeSet::new();
        for ((id, path), bytes) in &self.truth {
            match read_path(&repository, *id, path) {
                Ok(found) if found == *bytes => {}
                Ok(found) => return Err(format!("{} wrong bytes came out of {}", found.len(), path.escape_ascii())),
                Err(error) => {
                    judge_error(&error)?;
                    if repository.snapshot(*id).is_err() {
                        gone.insert(*id);
                    }
                    lost.insert((*id, path.clone()), error.to_string());
                }
            }
        }
        let told = |id: &SnapshotId, path: &[u8]| {
            report.affected.iter().any(|affected| affected.snapshot == *id && (affected.path == path || affected.path.is_empty()))
        };
        let quiet = matches!(expected, Expected::Quiet);
        for ((id, path), error) in &lost {
            // A snapshot that is no longer listed cannot be missed.
            if !(told(id, path) || quiet && gone.contains(id)) {
                return Err(format!("{} cannot be read ({error}) and check does not say so: {:?}", path.escape_ascii(), report.findings));
            }
        }
        for affected in &report.affected {
            let is_lost = lost.keys().any(|(id, path)| *id == affected.snapshot && (*path == affected.path || affected.path.is_empty()));
            let whole_catalog = affected.path.is_empty();
            if !is_lost && !whole_catalog {
                return Err(format!("check says that {} is lost, but it is not", affected.path.escape_ascii()));
            }
        }
        match (expected, report.findings.is_empty()) {
            (Expected::Told, true) => Err("check found nothing".into()),
            (Expected::Quiet, false) => Err(format!("check found what should be harmless: {:?}", report.findings)),
            _ => Ok(()),
        }
    }
}

/// What check says of a damage.
#[derive(Clone, Copy)]
pub enum Expected {
    Told,
    /// It cannot be seen, or does no harm.
    Quiet,
    Either,
}

/// Damage must be called damage.
pub fn judge_error(error: &Error) -> std::result::Result<(), String> {
    match error {
        Error::Damaged { .. } | Error::Unsupported { .. } | Error::WrongKey | Error::NoRepository { .. } | Error::NotFound(_) => Ok(()),
        error if error.is_damage() => Ok(()),
        error => Err(format!("an odd error: {error}")),
    }
}

fn read_path(repository: &Repository, id: SnapshotId, path: &[u8]) -> Result<Vec<u8>> {
    let selection = Selection { stored: repository.snapshot(id)?, path: path.to_vec() };
    let mut bytes = Vec::new();
    dump(repository, &selection, &mut bytes, &Silent)?;
    Ok(bytes)
}

/// Runs trials on all cores and tells of every one that went wrong.
pub fn all<T: Sync + std::fmt::Debug>(trials: &[T], judge: impl Fn(&T) -> std::result::Result<(), String> + Sync) {
    // On threads of our own: the library waits for work it gives to rayon's.
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, |count| count.get()) {
            scope.spawn(|| {
                while let Some(trial) = trials.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(why) = judge(trial) {
                        failures.lock().unwrap().push(format!("{trial:?}: {why}"));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    println!("{} trials", trials.len());
    assert!(failures.is_empty(), "{} of {} trials:\n{}", failures.len(), trials.len(), failures[..failures.len().min(20)].join("\n"));
}

#[test]
fn every_object_deleted() {
    let victim = Victim::new();
    all(&victim.places, |place| {
        let expected = match place.area {
            // All is found by the packs' footers; that a base is listed nowhere may be said.
            Area::Segments => Expected::Either,
            Area::Snapshots => Expected::Quiet,
            _ => Expected::Told,
        };
        victim.judge(expected, &|memory| drop(memory.remove(place)))
    });
}

#[test]
fn every_object_cut_short() {
    let victim = Victim::new();
    let mut trials = Vec::new();
    for place in &victim.places {
        let len = victim.bytes(place).len();
        let mut lens = BTreeSet::from([0, 1, 3, 4, 7, 8, 25, 26, 57, 58, 59, len / 3, len / 2]);
        lens.extend([1, 2, 8, 11, 12, 13, 16, 17, 40, 100].map(|less| len.saturating_sub(less)));
        trials.extend(lens.into_iter().filter(|short| *short < len).map(|short| (place.clone(), short)));
    }
    all(&trials, |(place, len)| victim.judge(Expected::Told, &|memory| memory.edit(place, |bytes| bytes.truncate(*len))));
}

#[test]
fn every_object_with_more_at_its_end() {
    let victim = Victim::new();
    all(&victim.places, |place| victim.judge(Expected::Told, &|memory| memory.edit(place, |bytes| bytes.extend_from_slice(&[0; 16]))));
}

#[test]
fn bits_of_every_object_flipped() {
    let victim = Victim::new();
    let mut trials = Vec::new();
    for place in &victim.places {
        let len = victim.bytes(place).len();
        let near_an_end = |at: &usize| *at < 70 || len - at < 40;
        let stride = (len / 120).max(1);
        let offsets = (0..len).filter(|at| near_an_end(at) || at % stride == 0);
        trials.extend(offsets.map(|at| (place.clone(), at, at % 8)));
    }
    all(&trials, |(place, at, bit)| {
        let expected = match place.area {
            // The manifest and the one key slot: opening fails, or it does not matter.
            Area::Top | Area::Keys => Expected::Either,
            _ => Expected::Told,
        };
        victim.judge(expected, &|memory| memory.edit(place, |bytes| bytes[*at] ^= 1 << bit))
    });
}

/// What is damaged on its way only is read again; only what the medium holds is called damaged.
#[test]
fn a_manifest_that_a_read_damages_is_read_again() {
    let (bench, memory) = Bench::in_memory(12);
    let bits = memory.get(&Place::manifest(), u64::MAX).unwrap().len() as u64 * 8;
    for bit in (0..bits).step_by(13) {
        let once = Faulty::at(memory.clone(), 0, Fault::FlipBit(bit));
        bench.try_open_on(Arc::new(once)).unwrap_or_else(|error| panic!("bit {bit}: {error}"));
        let always = Faulty::new(memory.clone(), move |call| {
            (call.place == Some(&Place::manifest()) && call.operation == Operation::Get).then_some(Fault::FlipBit(bit))
        });
        assert!(bench.try_open_on(Arc::new(always)).is_err(), "bit {bit}");
    }
}

#[test]
fn every_two_objects_of_a_kind_swapped() {
    let victim = Victim::new();
    let mut trials = Vec::new();
    for (number, a) in victim.places.iter().enumerate() {
        for b in &victim.places[number + 1..] {
            trials.push((a.clone(), b.clone()));
        }
    }
    all(&trials, |(a, b)| {
        victim.judge(Expected::Told, &|memory| {
            let (first, second) = (memory.remove(a).unwrap(), memory.remove(b).unwrap());
            memory.insert(a.clone(), second);
            memory.insert(b.clone(), first);
        })
    });
}

/// One object's bytes under another's name, and under a second name.
#[test]
fn objects_copied_over_others() {
    let victim = Victim::new();
    let mut trials = Vec::new();
    for a in &victim.places {
        trials.extend(victim.places.iter().filter(|b| *b != a).map(|b| (a.clone(), b.clone())));
    }
    all(&trials, |(from, to)| victim.judge(Expected::Told, &|memory| memory.insert(to.clone(), victim.bytes(from))));
}

/// Everything of another repository with the same secret, object by object.
#[test]
fn objects_of_another_repository() {
    let victim = Victim::new();
    let (other, foreign) = Bench::in_memory(SEED + 1);
    other.save(&victim.stream);
    let others = foreign.places();
    let trials: Vec<_> =
        victim.places.iter().flat_map(|a| others.iter().filter(|b| b.area == a.area).map(|b| (a.clone(), b.clone()))).collect();
    let bytes = |place: &Place| {
        let copy = Memory::new();
        copy.restore(foreign.snapshot());
        copy.remove(place).unwrap()
    };
    all(&trials, |(to, from)| victim.judge(Expected::Told, &|memory| memory.insert(to.clone(), bytes(from))));
    // Besides one's own: strange, and told.
    let trials: Vec<_> = others.iter().filter(|place| !matches!(place.area, Area::Top)).cloned().collect();
    all(&trials, |place| {
        // A key slot of another repository is what an interrupted init leaves behind.
        let expected = if place.area == Area::Keys { Expected::Quiet } else { Expected::Told };
        victim.judge(expected, &|memory| memory.insert(place.clone(), bytes(place)))
    });
}

/// A pack that is gone, cut short or has a bad footer does not count as stored.
#[test]
fn the_next_backup_stores_lost_packs_again() {
    let victim = Victim::new();
    let packs: Vec<&Place> = victim.places.iter().filter(|place| place.area == Area::Packs).collect();
    let mut trials: Vec<(&str, Vec<&Place>)> = Vec::new();
    for how in ["gone", "short", "empty", "footer"] {
        trials.extend(packs.iter().map(|pack| (how, vec![*pack])));
        trials.push((how, packs.clone()));
    }
    all(&trials, |(how, hurt)| {
        let (bench, memory) = victim.bench();
        for place in hurt {
            match *how {
                "gone" => drop(memory.remove(place)),
                "short" => memory.edit(place, |bytes| bytes.truncate(bytes.len() - 1)),
                "empty" => memory.edit(place, Vec::clear),
                _ => memory.edit(place, |bytes| {
                    let at = bytes.len() - 20;
                    bytes[at] ^= 4;
                }),
            }
        }
        let fail = |what: &str| Err(format!("{what} does not come back"));
        for bytes in [&victim.stream, &victim.edited] {
            let report = save(&bench.open(), bytes, &options()).map_err(|error| error.to_string())?;
            match bench.dump(&report.snapshot.unwrap().hex()) {
                Ok(found) if found == *bytes => {}
                Ok(_) => return Err("wrong bytes".into()),
                Err(error) => return fail(&format!("the stream: {error}")),
            }
        }
        save_tree(&bench.open(), victim.tree.path(), &options()).map_err(|error| error.to_string())?;
        let target = tempfile::tempdir().unwrap();
        let repository = bench.open();
        let selection = select(&repository, &format!("latest:{}", victim.tree.path().display()));
        let options = RestoreOptions { verify: true, ..RestoreOptions::default() };
        let report = restore(&repository, &selection, target.path(), &options, &Silent).map_err(|error| error.to_string())?;
        match report.problems == 0 && describe(target.path()) == describe(victim.tree.path()) {
            true => Ok(()),
            false => fail("the tree"),
        }
    });
}

/// A restore tells each file it could not bring back, and brings back the others.
#[test]
fn a_restore_of_damaged_data_brings_back_the_rest() {
    let victim = Victim::new();
    let mut trials = Vec::new();
    for place in victim.places.iter().filter(|place| place.area == Area::Packs) {
        let len = victim.bytes(place).len();
        trials.extend((0..10).map(|part| (place.clone(), len * part / 10)));
    }
    all(&trials, |(place, at)| {
        let (bench, _) = victim.damaged(&|memory| memory.edit(place, |bytes| bytes[*at] ^= 1));
        let repository = bench.open();
        for stored in repository.snapshots().unwrap().0 {
            let id = stored.id;
            let target = tempfile::tempdir().unwrap();
            let heard = Heard::default();
            let selection = Selection { stored, path: Vec::new() };
            let report = match restore(&repository, &selection, target.path(), &RestoreOptions::default(), &heard) {
                Ok(report) => report,
                Err(error) => {
                    judge_error(&error)?;
                    continue;
                }
            };
            let mut missing = 0;
            for ((_, path), bytes) in victim.truth.iter().filter(|((other, _), _)| *other == id) {
                match fs::read(target.path().join(std::ffi::OsStr::from_bytes(path))) {
                    Ok(found) if found == *bytes => {}
                    Ok(_) => return Err(format!("{} was restored wrong", path.escape_ascii())),
                    Err(_) => missing += 1,
                }
            }
            if missing > 0 && report.problems == 0 || missing == 0 && report.problems > 0 && report.damaged == 0 {
                return Err(format!("{missing} files are missing, {} problems: {:?}", report.problems, heard.problems()));
            }
        }
        Ok(())
    });
}

// Keys and versions.

fn open_with(bench: &Bench, secret: Secret) -> Result<Repository> {
    Repository::open(bench.store.clone(), Opening { secret, cache: None, world: world(1, FAR) })
}

#[test]
fn a_wrong_secret_is_called_so() {
    let (bench, _) = Bench::in_memory(1);
    assert!(matches!(open_with(&bench, Secret::KeyFile(vec![b'x'; 32])), Err(Error::WrongKey)));
    assert!(matches!(open_with(&bench, Secret::Password(vec![b'k'; 32])), Err(Error::WrongKey)));
    assert!(open_with(&bench, secret()).is_ok());
}

#[test]
fn a_damaged_slot_does_not_hide_a_good_one() {
    let (bench, memory) = Bench::in_memory(1);
    let slot = memory.places().into_iter().find(|place| place.area == Area::Keys).unwrap();
    let (_, other) = Bench::in_memory(2);
    let foreign = other.places().into_iter().find(|place| place.area == Area::Keys).unwrap();
    let trials: [(&str, Vec<u8>); 4] =
        [("foreign", other.remove(&foreign).unwrap()), ("empty", Vec::new()), ("noise", noise(1, 300)), ("long", vec![0; 1 << 20])];
    for (name, bytes) in trials {
        for digit in ['0', 'f'] {
            let place = Place { area: Area::Keys, name: digit.to_string().repeat(32) };
            memory.insert(place.clone(), bytes.clone());
            assert!(open_with(&bench, secret()).is_ok(), "{name}");
            memory.remove(&place);
        }
    }
    memory.edit(&slot, |bytes| bytes.truncate(50));
    assert!(matches!(open_with(&bench, secret()), Err(Error::Damaged { .. })));
    memory.remove(&slot);
    assert!(matches!(open_with(&bench, secret()), Err(Error::Damaged { .. })), "a repository without slots is damaged");
}

/// A slot that asks for the memory of a data centre is refused before a byte is allocated.
#[test]
fn a_slot_that_asks_for_too_much_is_refused() {
    let (bench, memory) = Bench::in_memory(1);
    let slot = memory.places().into_iter().find(|place| place.area == Area::Keys).unwrap();
    for (memory_kib, passes, lanes) in [(u32::MAX, 3, 4), (262_144, u32::MAX, 4), (262_144, 3, 1 << 24), (0, 0, 0), (8, 1, 1)] {
        memory.edit(&slot, |bytes| {
            bytes[7] = 1;
            for (at, number) in [(40, memory_kib), (44, passes), (48, lanes)] {
                bytes[at..at + 4].copy_from_slice(&u32::to_le_bytes(number));
            }
        });
        let error = open_with(&bench, Secret::Password(b"x".to_vec())).err().unwrap();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
    }
}

/// As if the next version of the format had written an object.
pub fn make_newer(stored: &mut [u8]) {
    stored[4] += 1;
}

/// What a newer version wrote is not damage.
#[test]
fn newer_formats_are_unsupported_and_not_damaged() {
    let victim = Victim::new();
    for place in &victim.places {
        let is_unsupported = |error: &Error| matches!(error, Error::Unsupported { .. });
        match place.area {
            Area::Top | Area::Keys => {
                let (bench, _) = victim.damaged(&|memory| memory.edit(place, |bytes| make_newer(bytes)));
                let error = open_with(&bench, secret()).err().unwrap();
                assert!(is_unsupported(&error), "{place}: {error}");
            }
            area => {
                // Its name is the hash of its bytes, as a newer program would have named it.
                let (bench, _) = victim.damaged(&|memory| {
                    let mut bytes = memory.remove(place).unwrap();
                    make_newer(&mut bytes);
                    memory.insert(Place { area, name: snap_backup::id::ObjectName::of(&bytes).hex() }, bytes);
                });
                let repository = open_with(&bench, secret()).unwrap();
                if area == Area::Snapshots {
                    let unreadable = repository.snapshots().unwrap().1;
                    assert!(is_unsupported(&unreadable[0].1), "{place}: {}", unreadable[0].1);
                }
                let report = check_all(&repository).unwrap();
                assert!(!report.findings.is_empty() || !report.unsupported.is_empty(), "{place}");
            }
        }
    }
}
