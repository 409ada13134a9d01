//! Repair: whatever was damaged, and wherever a repair was cut short, nothing that could be restored before cannot be restored after;
//! then the repository is clean, and backups go on.

use std::collections::BTreeSet;
use std::sync::Arc;

use snap_backup::backend::{Area, Call, Fault, Faulty, Memory, Operation, Place};
use snap_backup::error::{Error, Result, StorageErrorKind};
use snap_backup::format::entry::{Flaw, Node};
use snap_backup::format::segment::PackRecord;
use snap_backup::id::ObjectName;
use snap_backup::ops::backup::{BackupOptions, Input, backup};
use snap_backup::ops::browse;
use snap_backup::ops::check::{ReadData, Remedy, check};
use snap_backup::ops::dump::dump;
use snap_backup::ops::repair::{
    Mode, PacksOptions, PacksReport, SnapshotsOptions, SnapshotsReport, repair_index, repair_packs, repair_snapshots,
};
use snap_backup::progress::Silent;
use snap_backup::repo::{Repository, Selection};

use crate::damage::{Victim, all, make_newer};
use crate::support::*;

/// Path and content of every file that some snapshot brings back.
fn restorable(repository: &Repository) -> BTreeSet<(Vec<u8>, Vec<u8>)> {
    let mut found = BTreeSet::new();
    for stored in repository.snapshots().unwrap().0 {
        let mut paths = Vec::new();
        let selection = Selection { stored, path: Vec::new() };
        // Behind damage in the list of files others may follow.
        let catalog = snap_backup::repo::CatalogReader::open(repository, &selection.stored.snapshot).unwrap();
        for entry in catalog.filter_map(|entry| entry.ok()) {
            if let Node::File { content: Some(_) } = entry.node {
                paths.push(entry.path);
            }
        }
        for path in paths {
            let mut bytes = Vec::new();
            let selection = Selection { path: path.clone(), ..selection.clone() };
            if dump(repository, &selection, &mut bytes, &Silent).is_ok() {
                found.insert((path, bytes));
            }
        }
    }
    found
}

fn packs(read_data: bool) -> PacksOptions {
    PacksOptions { read_data, ..PacksOptions::default() }
}

fn cut(repository: &Repository, mode: Mode) -> Result<SnapshotsReport> {
    repair_snapshots(repository, &SnapshotsOptions { host: "host".into(), mode, ..SnapshotsOptions::default() }, &Silent)
}

/// All three steps.
fn repair(repository: &Repository) -> Result<PacksReport> {
    repair_index(repository, Mode::Act, &Silent)?;
    let report = repair_packs(repository, &packs(true), &Silent)?;
    cut(repository, Mode::Act)?;
    Ok(report)
}

fn complaints(repository: &Repository) -> Vec<String> {
    let report = check_all(repository).unwrap();
    let affected = report.affected.iter().map(|affected| format!("{affected:?}"));
    report.findings.iter().map(|finding| format!("{finding:?}")).chain(affected).collect()
}

/// Repairs a damaged repository, and says what is wrong with how that went.
fn judge(victim: &Victim, damage: &dyn Fn(&Memory)) -> std::result::Result<(), String> {
    let (bench, memory) = victim.bench();
    damage(&memory);
    let Ok(repository) = bench.try_open_on(bench.store.clone()) else { return Ok(()) };
    let before = restorable(&repository);
    // By another process than the one that looked.
    repair(&bench.open()).map_err(|error| format!("the repair failed: {error}"))?;
    judge_repaired(victim, &bench, &before)
}

fn judge_repaired(victim: &Victim, bench: &Bench, before: &BTreeSet<(Vec<u8>, Vec<u8>)>) -> std::result::Result<(), String> {
    let repository = bench.open();
    let after = restorable(&repository);
    if let Some((path, _)) = before.difference(&after).next() {
        return Err(format!("{} could be restored before and cannot now", path.escape_ascii()));
    }
    let complaints = complaints(&repository);
    if !complaints.is_empty() {
        return Err(format!("afterwards: {complaints:?}"));
    }
    let report = save(&bench.open(), &victim.edited, &options()).map_err(|error| format!("the next backup: {error}"))?;
    match bench.dump(&report.snapshot.unwrap().hex()) {
        Ok(bytes) if bytes == victim.edited => {}
        other => return Err(format!("the next backup does not come back: {:?}", other.map(|bytes| bytes.len()))),
    }
    save_tree(&bench.open(), victim.tree.path(), &options()).map_err(|error| format!("the next backup of the tree: {error}"))?;
    let complaints = self::complaints(&bench.open());
    if complaints.is_empty() { Ok(()) } else { Err(format!("after the next backup: {complaints:?}")) }
}

fn stored_objects(victim: &Victim) -> Vec<Place> {
    victim.places.iter().filter(|place| !matches!(place.area, Area::Top | Area::Keys)).cloned().collect()
}

#[test]
fn what_can_be_restored_is_never_less_after_a_repair() {
    let victim = Victim::new();
    let mut rng = Rng::new(seed("repair"));
    let mut trials: Vec<(Place, &str, usize)> = Vec::new();
    for place in stored_objects(&victim) {
        let len = victim.bytes(&place).len();
        trials.push((place.clone(), "gone", 0));
        let lens = [0, 30, 58, len / 4, len / 2, len - 300.min(len), len - 20, len - 1];
        trials.extend(lens.map(|len| (place.clone(), "cut", len)));
        trials.extend([0, 5, 7, 20, 24, 26, 57, len - 13, len - 3].map(|at| (place.clone(), "flip", at)));
        trials.extend((0..8).map(|_| (place.clone(), "flip", rng.below(len as u64) as usize)));
        trials.extend((0..2).map(|_| (place.clone(), "zeros", rng.below(len as u64) as usize)));
    }
    all(&trials, |(place, how, at)| {
        judge(&victim, &|memory| match *how {
            "gone" => drop(memory.remove(place)),
            "cut" => memory.edit(place, |bytes| bytes.truncate(*at)),
            "flip" => memory.edit(place, |bytes| bytes[*at] ^= 1 << (at % 8)),
            _ => memory.edit(place, |bytes| {
                let end = bytes.len().min(at + 4096);
                bytes[*at..end].fill(0);
            }),
        })
    });
}

/// Several objects at once: chosen by a seed, each deleted, cut or flipped.
#[test]
fn many_objects_damaged_at_once() {
    let victim = Victim::new();
    let seed = seed("many");
    let places = stored_objects(&victim);
    let trials: Vec<u64> = (0..40).collect();
    all(&trials, |trial| {
        judge(&victim, &|memory| {
            let mut rng = Rng::new(seed + trial);
            for place in places.iter().filter(|place| place.area != Area::Snapshots) {
                let len = victim.bytes(place).len() as u64;
                match rng.below(6) {
                    0 => drop(memory.remove(place)),
                    1 => memory.edit(place, |bytes| bytes.truncate(rng.below(len) as usize)),
                    2 | 3 => memory.edit(place, |bytes| bytes[rng.below(len) as usize] ^= 1),
                    _ => {}
                }
            }
        })
    });
}

/// A pack and all that could say what it held.
#[test]
fn a_pack_of_which_nothing_is_known_is_set_aside() {
    let victim = Victim::new();
    let of = |area| victim.places.iter().filter(move |place| place.area == area);
    let trials: Vec<&Place> = of(Area::Packs).collect();
    all(&trials, |pack| {
        judge(&victim, &|memory| {
            of(Area::Segments).for_each(|place| drop(memory.remove(place)));
            memory.edit(pack, |bytes| {
                let end = bytes.len() - 20;
                bytes[end] ^= 1;
            });
        })
    });
}

/// A damaged repository: a pack rotten inside, one gone, a segment cut short.
fn hurt(victim: &Victim, memory: &Memory) {
    let of = |area| victim.places.iter().filter(move |place| place.area == area);
    let (rotten, gone) = (of(Area::Packs).next().unwrap(), of(Area::Packs).next_back().unwrap());
    memory.edit(rotten, |bytes| bytes[200] ^= 1);
    memory.remove(gone);
    memory.edit(of(Area::Segments).next().unwrap(), |bytes| bytes.truncate(100));
}

/// The store dies at any call of a repair, and again at any call of the next one: the third ends well.
#[test]
fn a_crash_at_any_call_of_a_repair() {
    let victim = Victim::new();
    let lost_reply = |operation| match operation {
        Operation::Put | Operation::SetAside => Some(Fault::StoredThenError(StorageErrorKind::Transient)),
        _ => None,
    };
    let count = {
        let (bench, memory) = victim.bench();
        hurt(&victim, &memory);
        let store = Arc::new(Faulty::new(memory, |_| None));
        repair(&bench.try_open_on(store.clone()).unwrap()).unwrap();
        store.calls()
    };
    assert!(count > 100, "{count} calls");
    let before = {
        let (bench, memory) = victim.bench();
        hurt(&victim, &memory);
        restorable(&bench.open())
    };
    // Reads in between are many and alike; every write is tried.
    let trials: Vec<(bool, u64)> = (0..count).flat_map(|number| [(true, number), (false, number)]).collect();
    all(&trials, |(dies, number)| {
        let (bench, memory) = victim.bench();
        hurt(&victim, &memory);
        for _ in 0..2 {
            let (dies, number) = (*dies, *number);
            let is_write = |operation| matches!(operation, Operation::Put | Operation::SetAside);
            let store = Faulty::new(memory.clone(), move |call| match call.number == number {
                true if dies && (is_write(call.operation) || number % 7 == 0) => Some(Fault::Crash),
                true if !dies => lost_reply(call.operation),
                _ => None,
            });
            let outcome = bench.try_open_on(Arc::new(store)).and_then(|repository| repair(&repository));
            if outcome.is_ok() {
                break;
            }
            let after = restorable(&bench.open());
            if !before.is_subset(&after) {
                return Err("less can be restored after the crash".into());
            }
        }
        repair(&bench.open()).map_err(|error| format!("the repair after it: {error}"))?;
        judge_repaired(&victim, &bench, &before)
    });
}

fn pack_records(repository: &Repository) -> Vec<PackRecord> {
    let locator = repository.locator().unwrap();
    let segments = locator.list(Area::Segments).unwrap();
    segments.into_iter().flat_map(|(name, _)| locator.segment(name).unwrap().packs).collect()
}

/// Data packs of a repository, with what they hold.
fn data_packs(repository: &Repository) -> Vec<PackRecord> {
    let is_data = |pack: &PackRecord| format!("{:?}", pack.kind) == "DataPack";
    pack_records(repository).into_iter().filter(is_data).collect()
}

/// The story of a rotten frame: a check finds it, a repair makes its loss known, the next backup stores again what it meets, and
/// another repair puts that back into older snapshots. Nothing has to be cut.
#[test]
fn a_backup_heals() {
    let (bench, memory) = Bench::in_memory(5);
    let old = [noise(1, 3_000_000), lines(2, 2_000_000)].concat();
    // One thread, so that frames lie in order and the second is not the first of the stream: that one's first chunk ends up as part of
    // another below, where something stands before it, and would be lost.
    save(&bench.open(), &old, &BackupOptions { threads: 1, ..options() }).unwrap();
    let packs_of = data_packs(&bench.open());
    let frame = &packs_of[0].frames[1];
    memory.edit(&Place::pack(packs_of[0].name), |bytes| bytes[frame.offset as usize + 100] ^= 1);

    let found = check_all(&bench.open()).unwrap();
    assert_eq!(found.remedies()[0], Remedy::Pack(packs_of[0].name), "{:?}", found.findings);
    let lost = found.affected[0].ranges.clone();
    assert_eq!(lost.iter().map(|(_, len)| len).sum::<u64>(), frame.table.plain_len() as u64);
    assert!(bench.dump("latest").is_err());

    let report =
        repair_packs(&bench.open(), &PacksOptions { packs: vec![packs_of[0].name.hex()[..12].into()], ..packs(false) }, &Silent).unwrap();
    assert_eq!((report.treated.len(), report.treated[0].lost, report.treated[0].saved), (1, 1, packs_of[0].frames.len() as u64 - 1));
    assert_eq!(report.left.as_ref().unwrap().affected[0].ranges, lost, "what is lost is known to the byte");
    assert_eq!(memory.aside().len(), 2, "the pack and the segment that listed it: {:?}", memory.aside().keys());

    // With something new before it, so that what is stored again is framed in another way.
    let new = [&noise(3, 300_000), &old[..]].concat();
    let again = bench.save(&new).totals.bytes_new;
    let expected = 300_000 + frame.table.plain_len() as u64;
    assert!((expected..expected + 300_000).contains(&again), "what is lost is stored again, and hardly more: {again} and not {expected}");
    assert!(bench.dump("latest").unwrap() == new);
    assert!(bench.dump("latest~1").unwrap() == old, "also the older snapshot");
    let report = repair_packs(&bench.open(), &packs(false), &Silent).unwrap();
    assert_eq!((report.treated.len(), report.mended), (0, 1));
    assert_clean(&bench.open());
    let report = repair_packs(&bench.open(), &packs(true), &Silent).unwrap();
    assert_eq!((report.treated.len(), report.mended, report.packs_written), (0, 0, 0), "nothing is left to do");
    let report = cut(&bench.open(), Mode::Act).unwrap();
    assert_eq!((report.cut.len(), report.set_aside.len()), (0, 0));
}

/// A difference whose base has lost the very chunks it needs is not relied on by the next backup.
#[test]
fn a_backup_does_not_rely_on_differences_to_what_is_lost() {
    let (bench, memory) = Bench::in_memory(6);
    let old = lines(1, 3_000_000);
    bench.save(&old);
    let bases = data_packs(&bench.open());
    let mut new = old.clone();
    for at in (0..new.len()).step_by(50_000) {
        new[at..at + 4].copy_from_slice(b"####");
    }
    assert!(bench.save(&new).cost.delta_frames > 0);
    for frame in &bases[0].frames {
        memory.edit(&Place::pack(bases[0].name), |bytes| bytes[frame.offset as usize + 50] ^= 1);
    }
    let report = repair_packs(&bench.open(), &packs(true), &Silent).unwrap();
    assert_eq!(report.treated[0].saved, 0, "{:?}", report.treated);
    assert!(bench.dump("latest").is_err(), "or the test tests nothing");
    bench.save(&new);
    assert!(bench.dump("latest").unwrap() == new);
    bench.save(&old);
    repair_packs(&bench.open(), &packs(false), &Silent).unwrap();
    assert_clean(&bench.open());
    for (stored, bytes) in bench.open().snapshots().unwrap().0.iter().zip([&old, &new, &new, &old]) {
        assert!(bench.dump(&stored.id.hex()).unwrap() == *bytes, "{}", stored.id);
    }
}

/// The same data in several packs, some of them rotten: the good one serves, and a repair keeps it.
#[test]
fn one_good_copy_of_several_is_enough() {
    let (bench, memory) = Bench::in_memory(7);
    let bytes = noise(1, 1_500_000);
    // Two backups side by side do not see each other's packs.
    let start = memory.snapshot();
    let copies: Vec<Vec<(Place, Vec<u8>)>> = (0..3)
        .map(|_| {
            memory.restore(start.clone());
            bench.save(&bytes);
            memory
                .places()
                .into_iter()
                .filter(|place| !matches!(place.area, Area::Top | Area::Keys))
                .map(|place| (place.clone(), memory.remove(&place).unwrap()))
                .collect()
        })
        .collect();
    for good in 0..3 {
        memory.restore(start.clone());
        for (number, objects) in copies.iter().enumerate() {
            for (place, bytes) in objects {
                let mut bytes = bytes.clone();
                if number != good && place.area == Area::Packs && bytes.len() > 1_000_000 {
                    for at in [1000, 1_200_000] {
                        bytes[at] ^= 1;
                    }
                }
                memory.insert(place.clone(), bytes);
            }
        }
        assert!(bench.dump("latest").unwrap() == bytes);
        let report = repair(&bench.open()).unwrap();
        assert_eq!((report.treated.len(), report.packs_written), (2, 0), "all is in the good one: {:?}", report.treated);
        assert_clean(&bench.open());
        assert!(bench.dump("latest").unwrap() == bytes);
        assert_eq!(bench.open().snapshots().unwrap().0.len(), 3);
    }
}

/// Objects under names that are not theirs: all is put where it belongs.
#[test]
fn what_has_a_wrong_name_gets_its_own() {
    let victim = Victim::new();
    let before = restorable(&victim.bench().0.open());
    all(&stored_objects(&victim), |place| {
        let (bench, memory) = victim.bench();
        let other = Place { area: place.area, name: place.name.chars().rev().collect() };
        memory.insert(other, memory.remove(place).unwrap());
        repair(&bench.open()).map_err(|error| error.to_string())?;
        judge_repaired(&victim, &bench, &before)
    });
}

/// Segments that lie: split, repeated, of wrong sizes, with frames that are not there or overlap.
#[test]
fn an_index_that_lies_is_made_again() {
    for lie in ["twice", "size", "kind", "fewer", "beyond", "foreign frame", "no such pack"] {
        let (bench, memory) = Bench::in_memory(8);
        let bytes = [noise(1, 2_500_000), lines(1, 1_000_000)].concat();
        bench.save(&bytes);
        let repository = bench.open();
        let truth = pack_records(&repository);
        let mut records = truth.clone();
        let frames = &mut records[0].frames;
        match lie {
            "twice" => records.extend(truth.clone()),
            "size" => records[0].size += 1,
            "kind" => {
                let (a, b) = (records[0].kind, records[1].kind);
                assert_ne!(a, b);
                (records[0].kind, records[1].kind) = (b, a);
            }
            "fewer" => drop(frames.pop()),
            "beyond" => frames.last_mut().unwrap().stored_len = 7 << 20,
            "foreign frame" => frames[0] = truth[1].frames[0].clone(),
            _ => records.push(PackRecord { name: ObjectName([7; 32]), ..truth[0].clone() }),
        }
        for place in memory.places().iter().filter(|place| place.area == Area::Segments) {
            memory.remove(place);
        }
        bench.open().save_segments(records, Vec::new()).unwrap();
        assert!(bench.dump("latest").is_ok_and(|found| found == bytes) || ["fewer", "foreign frame"].contains(&lie), "{lie}");
        let report = check_all(&bench.open()).unwrap();
        assert_eq!(report.findings.is_empty(), lie == "twice", "{lie}: {:?}", report.findings);
        repair(&bench.open()).unwrap();
        assert_clean(&bench.open());
        assert!(bench.dump("latest").unwrap() == bytes, "{lie}");
        assert_eq!(pack_records(&bench.open()).iter().map(|pack| pack.name).collect::<BTreeSet<_>>().len(), truth.len(), "{lie}");
    }
}

/// A bit that is wrong once on its way is not damage: neither a check nor a repair takes it for that.
#[test]
fn a_read_that_goes_wrong_once_is_no_damage() {
    let victim = Victim::new();
    let calls = |read_data| {
        let (bench, memory) = victim.bench();
        let store = Arc::new(Faulty::new(memory, |_| None));
        let repository = bench.try_open_on(store.clone()).unwrap();
        let opened = store.calls();
        check(&repository, read_data, &Silent).unwrap();
        (opened, store.calls())
    };
    let (opened, all_calls) = calls(ReadData::All);
    let trials: Vec<u64> = (opened..all_calls).collect();
    let flipping = |memory: Memory, number| {
        Faulty::new(memory, move |call| {
            let reads = matches!(call.operation, Operation::Get | Operation::ReadAt);
            (reads && call.number == number).then_some(Fault::FlipBit(977))
        })
    };
    let noted = std::sync::atomic::AtomicU64::new(0);
    all(&trials, |number| {
        let (bench, memory) = victim.bench();
        let repository = bench.try_open_on(Arc::new(flipping(memory.clone(), *number))).map_err(|error| error.to_string())?;
        let report = check_all(&repository).map_err(|error| error.to_string())?;
        if report.notes.iter().any(|note| note.contains("wrongly once")) {
            noted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
        if !report.findings.is_empty() || !report.affected.is_empty() || !report.unsupported.is_empty() {
            return Err(format!("a check says {:?} {:?}", report.findings, report.unsupported));
        }
        let repository = bench.try_open_on(Arc::new(flipping(memory.clone(), *number))).map_err(|error| error.to_string())?;
        repair(&repository).map_err(|error| error.to_string())?;
        if memory.aside().is_empty() { Ok(()) } else { Err(format!("a repair set aside {:?}", memory.aside().keys())) }
    });
    assert!(noted.into_inner() > 0, "it is told that a pack was read wrongly");
}

/// What the store fails to give for a moment, or gives with a wrong bit, while damage is being repaired, is not taken for lost: a repair that
/// missed something takes nothing away, and the next one brings back all there is.
#[test]
fn a_read_that_goes_wrong_loses_nothing_of_damaged_packs() {
    let victim = Victim::new();
    // What is in them is known from an index segment only.
    let hurt = |memory: &Memory| {
        for pack in victim.places.iter().filter(|place| place.area == Area::Packs) {
            memory.edit(pack, |bytes| bytes.truncate(bytes.len() - 20));
        }
    };
    let (bench, memory) = victim.bench();
    hurt(&memory);
    let store = Arc::new(Faulty::new(memory, |_| None));
    repair(&bench.try_open_on(store.clone()).unwrap()).unwrap();
    let all_there_is = restorable(&bench.open());
    assert!(all_there_is.len() > 3);
    let faults =
        |number: u64| [Fault::FlipBit(number.wrapping_mul(7919)), Fault::Error(StorageErrorKind::Transient)].map(|fault| (number, fault));
    let trials: Vec<(u64, Fault)> = (0..store.calls()).flat_map(faults).collect();
    let refused = std::sync::atomic::AtomicU64::new(0);
    all(&trials, |&(number, fault)| {
        let (bench, memory) = victim.bench();
        hurt(&memory);
        let fault = move |call: &Call| match fault {
            // What fails once is tried again.
            Fault::Error(_) => (number..number + 2).contains(&call.number).then_some(fault),
            _ => (call.number == number && matches!(call.operation, Operation::Get | Operation::ReadAt)).then_some(fault),
        };
        let outcome = bench.try_open_on(Arc::new(Faulty::new(memory, fault))).and_then(|repository| repair(&repository));
        if matches!(outcome, Err(Error::Refused { .. })) {
            refused.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
        repair(&bench.open()).map_err(|error| format!("the repair after it: {error}"))?;
        match restorable(&bench.open()) == all_there_is {
            true => Ok(()),
            false => Err("less can be restored after it".into()),
        }
    });
    assert!(refused.into_inner() > 0, "no repair was stopped");
}

/// Nor is a read that fails once.
#[test]
fn a_read_that_fails_once_is_no_damage_to_a_check() {
    let victim = Victim::new();
    let (bench, memory) = victim.bench();
    let store = Arc::new(Faulty::new(memory, |_| None));
    check(&bench.try_open_on(store.clone()).unwrap(), ReadData::All, &Silent).unwrap();
    let trials: Vec<u64> = (0..store.calls()).collect();
    all(&trials, |&number| {
        let (bench, memory) = victim.bench();
        let fails = move |call: &Call| (call.number == number).then_some(Fault::Error(StorageErrorKind::Transient));
        let repository = match bench.try_open_on(Arc::new(Faulty::new(memory, fails))) {
            Err(Error::Storage(_)) => return Ok(()),
            opened => opened.map_err(|error| error.to_string())?,
        };
        match check_all(&repository) {
            Err(Error::Storage(_)) => Ok(()),
            Ok(report) if report.affected.is_empty() && report.findings.is_empty() => Ok(()),
            Ok(report) => Err(format!("a check says {:?} {:?}", report.findings, report.affected)),
            Err(error) => Err(error.to_string()),
        }
    });
}

/// Damage in the store is found although this host's cache knows better.
#[test]
fn a_cache_does_not_hide_damage() {
    let folder = tempfile::tempdir().unwrap();
    let (mut bench, memory) = Bench::in_memory(9);
    bench.cache = Some(folder.path().to_path_buf());
    let bytes = noise(1, 1_500_000);
    bench.save(&bytes);
    assert!(bench.dump("latest").unwrap() == bytes);
    let pack = data_packs(&bench.open())[0].clone();
    memory.edit(&Place::pack(pack.name), |bytes| bytes[5000] ^= 1);
    assert!(!check_all(&bench.open()).unwrap().findings.is_empty());
    let report = repair_packs(&bench.open(), &packs(true), &Silent).unwrap();
    assert_eq!(report.treated.len(), 1);
    // The cache of a host that was not there for the repair, too.
    let again = bench.save(&bytes);
    assert_eq!(again.totals.bytes_new, pack.frames[0].table.plain_len() as u64);
    assert!(bench.dump("latest").unwrap() == bytes);
}

/// One object of nothing at all does not keep any command from working, nor a repair.
#[test]
fn one_empty_object_stops_nothing() {
    let victim = Victim::new();
    all(&stored_objects(&victim), |place| {
        let (bench, memory) = victim.bench();
        memory.edit(place, Vec::clear);
        let report = save(&bench.open(), &victim.stream, &options()).map_err(|error| format!("backup: {error}"))?;
        match bench.dump(&report.snapshot.unwrap().hex()) {
            Ok(bytes) if bytes == victim.stream => {}
            _ => return Err("the backup does not come back".into()),
        }
        snap_backup::ops::stats::stats(&bench.open(), &Silent).map_err(|error| format!("stats: {error}"))?;
        repair(&bench.open()).map_err(|error| format!("repair: {error}"))?;
        let complaints = complaints(&bench.open());
        if complaints.is_empty() { Ok(()) } else { Err(format!("{complaints:?}")) }
    });
}

/// What a newer version wrote is left where it is.
#[test]
fn a_repair_leaves_alone_what_is_newer() {
    let victim = Victim::new();
    all(&stored_objects(&victim), |place| {
        let (bench, memory) = victim.bench();
        let mut bytes = memory.remove(place).unwrap();
        make_newer(&mut bytes);
        let newer = Place { area: place.area, name: ObjectName::of(&bytes).hex() };
        memory.insert(newer.clone(), bytes);
        let mode = Mode::Act;
        let index = repair_index(&bench.open(), mode, &Silent).map_err(|error| error.to_string())?;
        let packs = repair_packs(&bench.open(), &packs(true), &Silent).map_err(|error| error.to_string())?;
        let snapshots = cut(&bench.open(), mode).map_err(|error| error.to_string())?;
        let told = [index.unsupported, packs.unsupported, snapshots.unsupported].concat();
        if !memory.places().contains(&newer) {
            return Err("it was set aside".into());
        }
        if told.iter().any(|finding| finding.object == newer.to_string()) { Ok(()) } else { Err(format!("nobody told: {told:?}")) }
    });
}

/// What is beyond help is cut out: what is left of the file stands beside its name, and nothing takes it for the whole.
#[test]
fn what_is_left_of_a_damaged_file_is_kept() {
    let (bench, memory) = Bench::in_memory(10);
    let bytes = noise(1, 5_000_000);
    let first = bench.save(&bytes).snapshot.unwrap();
    let pack = data_packs(&bench.open())[0].clone();
    let frame = &pack.frames[2];
    memory.edit(&Place::pack(pack.name), |bytes| bytes[frame.offset as usize] ^= 1);
    repair_packs(&bench.open(), &packs(true), &Silent).unwrap();

    let looked = cut(&bench.open(), Mode::Look).unwrap();
    assert_eq!((looked.cut.len(), looked.cut[0].snapshot), (1, None));
    assert_eq!(bench.open().snapshots().unwrap().0.len(), 1, "a dry run changes nothing");
    let report = cut(&bench.open(), Mode::Act).unwrap();
    let done = &report.cut[0];
    assert_eq!(done.lost[0].ranges, looked.cut[0].lost[0].ranges);
    let [(offset, len)] = done.lost[0].ranges[..] else { panic!("{:?}", done.lost) };
    assert_eq!(len, frame.table.plain_len() as u64);
    assert_clean(&bench.open());

    let repository = bench.open();
    let (found, _) = repository.snapshots().unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].id, done.snapshot.unwrap());
    let repaired = found[0].snapshot.repaired.as_ref().unwrap();
    assert_eq!((repaired.original, &repaired.lost[0].path[..], &repaired.lost[0].ranges), (first, "db", &vec![(offset, len)]));
    assert!(!found[0].snapshot.is_complete());
    let mut entries = Vec::new();
    browse::list(&repository, &select(&repository, "latest"), true, &mut |entry| {
        entries.push(entry.clone());
        Ok(())
    })
    .unwrap();
    assert_eq!(entries.iter().map(|entry| &entry.path[..]).collect::<Vec<_>>(), [&b"db"[..], b"db.damaged"]);
    assert_eq!((&entries[0].node, entries[0].flaw), (&Node::File { content: None }, Flaw::Unreadable));
    // Nobody gets a dump with a hole without asking for it.
    assert!(matches!(bench.dump("latest"), Err(Error::Usage(_))));
    let mut expected = bytes.clone();
    expected[offset as usize..(offset + len) as usize].fill(0);
    assert!(bench.dump("latest:db.damaged").unwrap() == expected);
    // The next backup is whole, and costs what was lost only.
    let again = bench.save(&bytes);
    assert_eq!(again.totals.bytes_new, len);
    assert!(bench.dump("latest").unwrap() == bytes);
    assert_clean(&bench.open());
}

/// A restore leaves what is left of a damaged file beside its name, and puts it in place of nothing.
#[test]
fn a_restore_keeps_what_is_left_of_a_damaged_file() {
    let (bench, memory) = Bench::in_memory(13);
    let bytes = noise(1, 5_000_000);
    bench.save(&bytes);
    let pack = data_packs(&bench.open())[0].clone();
    let frame = &pack.frames[1];
    memory.edit(&Place::pack(pack.name), |bytes| bytes[frame.offset as usize] ^= 1);
    let ranges = check_all(&bench.open()).unwrap().affected[0].ranges.clone();
    let [(offset, len)] = ranges[..] else { panic!("{ranges:?}") };
    let mut expected = bytes.clone();
    expected[offset as usize..(offset + len) as usize].fill(0);

    let target = tempfile::tempdir().unwrap();
    std::fs::write(target.path().join("db"), b"what was there").unwrap();
    for name in ["db.damaged", "db.damaged+"] {
        let (report, problems) = restore_to(&bench.open(), "latest", target.path(), &Default::default());
        assert_eq!((report.damaged, report.problems, report.files_restored), (1, 1, 0));
        let range = format!("bytes {offset}-{} are lost", offset + len - 1);
        assert!(problems[0].subject == b"db" && problems[0].message.contains(&range) && problems[0].message.contains(name), "{problems:?}");
        assert!(std::fs::read(target.path().join(name)).unwrap() == expected, "{name}");
        assert_eq!(std::fs::read(target.path().join("db")).unwrap(), b"what was there");
    }
    // Of nothing, nothing is kept.
    for frame in &pack.frames {
        memory.edit(&Place::pack(pack.name), |bytes| bytes[frame.offset as usize + 1] ^= 1);
    }
    let target = tempfile::tempdir().unwrap();
    let (report, problems) = restore_to(&bench.open(), "latest", target.path(), &Default::default());
    assert!(report.damaged == 1 && problems[0].message.contains("nothing of it was restored"), "{problems:?}");
    assert_eq!(std::fs::read_dir(target.path()).unwrap().count(), 0);
}

/// Files, links to them, and names that are taken already.
#[test]
fn damaged_files_of_a_tree_are_cut_out() {
    let tree = tempfile::tempdir().unwrap();
    let below = |name: &str| tree.path().join(name);
    for (name, seed) in [("a", 1), ("b", 2), ("b.damaged", 3), ("b-c", 4), ("z", 5)] {
        std::fs::write(below(name), noise(seed, 1_100_000)).unwrap();
    }
    std::fs::hard_link(below("b"), below("b-link")).unwrap();
    std::fs::create_dir(below("c")).unwrap();
    std::fs::hard_link(below("b"), below("c/link")).unwrap();
    std::fs::write(below("c/whole"), b"whole").unwrap();
    let (bench, memory) = Bench::in_memory(11);
    save_tree(&bench.open(), tree.path(), &options()).unwrap();
    let before = restorable(&bench.open());
    let repository = bench.open();
    let packs_of = data_packs(&repository);
    // The frame in which the middle of `b` lies.
    let selection = select(&repository, &format!("latest:{}", below("b").display()));
    let mut run = None;
    browse::list(&repository, &selection, true, &mut |entry| {
        if let Node::File { content: Some(content) } = &entry.node {
            run = content.recipe.runs.first().copied();
        }
        Ok(())
    })
    .unwrap();
    let frame = packs_of.iter().flat_map(|pack| pack.frames.iter().map(move |frame| (pack.name, frame)));
    let (pack, frame) = frame.into_iter().find(|(_, frame)| frame.id == run.unwrap().frame).unwrap();
    memory.edit(&Place::pack(pack), |bytes| bytes[frame.offset as usize + 7] ^= 1);
    let still = restorable(&bench.open());
    assert!(still.len() < before.len());
    repair(&bench.open()).unwrap();
    let after = restorable(&bench.open());
    assert!(still.is_subset(&after));
    assert_clean(&bench.open());
    let target = tempfile::tempdir().unwrap();
    let repository = bench.open();
    let (report, problems) = restore_to(&repository, &format!("latest:{}", tree.path().display()), target.path(), &Default::default());
    assert!(report.damaged == 0 && problems.len() >= 3, "{problems:?}");
    let left = std::fs::read(target.path().join("b.damaged+")).unwrap();
    assert_eq!(left.len(), 1_100_000);
    for name in ["b-link.damaged", "c/link.damaged"] {
        assert!(std::fs::read(target.path().join(name)).unwrap() == left, "{name}");
    }
    assert!(std::fs::read(target.path().join("b.damaged")).unwrap() == noise(3, 1_100_000));
    assert!(!target.path().join("b").exists());
    assert!(std::fs::read(target.path().join("c/whole")).unwrap() == b"whole");
}

/// A store that fails to give a pack says nothing of its bytes: it stays.
#[test]
fn a_pack_that_the_disk_does_not_give_is_left_alone() {
    let (bench, memory) = Bench::in_memory(12);
    bench.save(&noise(1, 1_500_000));
    let pack = Place::pack(data_packs(&bench.open())[0].name);
    let broken = pack.clone();
    let store = Faulty::new(memory.clone(), move |call| {
        let reads = matches!(call.operation, Operation::Get | Operation::ReadAt) && call.place == Some(&broken);
        reads.then_some(Fault::Error(StorageErrorKind::Other))
    });
    let repository = bench.try_open_on(Arc::new(store)).unwrap();
    let report = repair_packs(&repository, &packs(true), &Silent).unwrap();
    assert_eq!((report.treated.len(), report.unreadable.len()), (0, 1), "{report:?}");
    assert!(memory.aside().is_empty() && memory.places().contains(&pack));
}

/// A dry run writes nothing and moves nothing, and says what a repair does.
#[test]
fn a_dry_run_only_looks() {
    let victim = Victim::new();
    let (bench, memory) = victim.bench();
    hurt(&victim, &memory);
    let state = memory.snapshot();
    let mode = Mode::Look;
    let index = repair_index(&bench.open(), mode, &Silent).unwrap();
    let look = repair_packs(&bench.open(), &PacksOptions { mode, ..packs(true) }, &Silent).unwrap();
    cut(&bench.open(), mode).unwrap();
    assert!(memory.snapshot() == state);
    assert!(index.set_aside.len() == 1 && !look.treated.is_empty());
    let act = repair_packs(&bench.open(), &packs(true), &Silent).unwrap();
    let counts = |report: &PacksReport| report.treated.iter().map(|pack| (pack.pack, pack.saved, pack.lost)).collect::<Vec<_>>();
    assert_eq!(counts(&look), counts(&act));
}

/// Backups run while a repair does: none refers to what is set aside, or it says so.
#[test]
fn a_backup_beside_a_repair_is_whole_or_fails() {
    let victim = Victim::new();
    let mut ended = [0, 0];
    for number in 0..60 {
        let (bench, memory) = victim.bench();
        let rotten = victim.places.iter().find(|place| place.area == Area::Packs).unwrap();
        memory.edit(rotten, |bytes| bytes[200] ^= 1);
        let other = bench.over(Arc::new(memory.clone()));
        let repaired = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let set = repaired.clone();
        let store = Faulty::new(memory.clone(), move |call| {
            if call.number == number {
                repair_packs(&other.open(), &packs(true), &Silent).unwrap();
                set.store(true, std::sync::atomic::Ordering::SeqCst);
            }
            None
        });
        let repository = bench.try_open_on(Arc::new(store)).unwrap();
        let reader = Box::new(std::io::Cursor::new(victim.edited.clone()));
        match backup(&repository, Input::Reader { name: "db".into(), reader }, &options(), &Silent) {
            Ok(report) => {
                ended[0] += 1;
                let bytes = bench.dump(&report.snapshot.unwrap().hex());
                let before = !repaired.load(std::sync::atomic::Ordering::SeqCst);
                assert!(before || bytes.is_ok_and(|bytes| bytes == victim.edited), "repair at call {number}");
            }
            Err(Error::Conflict(_)) => ended[1] += 1,
            Err(error) => panic!("repair at call {number}: {error}"),
        }
    }
    println!("{} saved, {} gave up", ended[0], ended[1]);
}
