//! Bits flip in memory between any two stages of a backup: what was hashed is what is stored, or nothing is; what goes wrong after the
//! last look, `check` names. Older snapshots are whole and the next backup is good, whatever happened.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::backend::{Memory, MemoryState};
use crate::crypto::Secret;
use crate::ops::check::{ReadData, check};
use crate::ops::dump::dump;
use crate::progress::Silent;
use crate::repo::{Flip, Opening, Stage};
use crate::world::World;

/// Visits of a stage in which bits are flipped, and how many bits in each.
const VISITS: u64 = 8;
const BITS: u64 = 5;

/// A stage, and whether what is flipped after it is noticed before anything refers to it.
const STAGES: [(Stage, bool); 9] = [
    (Stage::Hashed, true),
    (Stage::Carried, true),
    (Stage::Base, true),
    (Stage::Gathered, true),
    (Stage::Compressed, true),
    (Stage::Sealed, true),
    (Stage::Opened, true),
    (Stage::Packed, true),
    (Stage::Object, false),
];

fn opening() -> Opening {
    let drawn = AtomicU64::new(0);
    let world = World::new(
        || Timestamp::from_second(2_500_000_000).unwrap(),
        move |bytes| {
            blake3::Hasher::new().update(&drawn.fetch_add(1, Ordering::SeqCst).to_le_bytes()).finalize_xof().fill(bytes);
        },
    );
    Opening { secret: Secret::KeyFile(vec![b'k'; 32]), cache: None, world }
}

fn open(state: &MemoryState) -> (Repository, Memory) {
    let memory = Memory::new();
    memory.restore(state.clone());
    (Repository::open(Arc::new(memory.clone()), opening()).unwrap(), memory)
}

fn save(repository: &Repository, bytes: &[u8]) -> Result<BackupReport> {
    let reader = Box::new(std::io::Cursor::new(bytes.to_vec()));
    // On one thread: a flip is planned for the thread that plans it.
    let options = BackupOptions { threads: 1, slab_bytes: 256 << 10, ..BackupOptions::new("host") };
    backup(repository, Input::Reader { name: "db".into(), reader }, &options, &Silent)
}

fn read(repository: &Repository, which: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    dump(repository, &repository.select(which, &SnapshotFilter::default())?, &mut bytes, &Silent)?;
    Ok(bytes)
}

fn is_clean(repository: &Repository) -> bool {
    check(repository, ReadData::All, &Silent).is_ok_and(|report| report.findings.is_empty() && report.affected.is_empty())
}

fn rows(from: u32, to: u32) -> Vec<u8> {
    (from..to).flat_map(|i| format!("INSERT INTO t VALUES ({i}, {}, 'row');\n", i.wrapping_mul(2_654_435_761)).into_bytes()).collect()
}

#[test]
fn a_bit_that_flips_in_memory_is_never_saved_unseen() {
    let (old, mut noise) = (rows(0, 20_000), vec![0; 1_500_000]);
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    // Of every kind: stored as it is, compressed, against something older, and known.
    let mut edited = old.clone();
    edited.iter_mut().step_by(9_973).for_each(|byte| *byte ^= 1);
    let new = [&noise, &old[..300_000], &edited[300_000..], &rows(20_000, 30_000)].concat();
    let memory = Memory::new();
    let repository = Repository::create(Arc::new(memory.clone()), opening(), "test").unwrap();
    let first = save(&repository, &old).unwrap().snapshot.unwrap().hex();
    let before = memory.snapshot();
    let deltas = save(&open(&before).0, &new).unwrap().cost.delta_frames;

    // For each stage, how many flips were caught at once, harmless, found by check, and neither.
    let mut told: BTreeMap<String, [u64; 4]> = BTreeMap::new();
    let mut fewer_deltas = false;
    for (stage, is_caught) in STAGES {
        for flip in (0..VISITS).flat_map(|visit| {
            (0..BITS).map(move |i| Flip { stage, visit, bit: (visit * BITS + i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40 })
        }) {
            let (repository, memory) = open(&before);
            let (saved, happened) = flip.during(|| save(&repository, &new));
            if !happened {
                continue;
            }
            let [caught, harmless, found, lost] = told.entry(format!("{stage:?}")).or_default();
            let (repository, _) = open(&memory.snapshot());
            match &saved {
                Err(Error::ReadBack(_)) => {
                    *caught += 1;
                    assert!(is_clean(&repository), "{flip:?}");
                }
                Err(error) => panic!("{flip:?}: {error}"),
                Ok(report) => {
                    fewer_deltas |= stage == Stage::Base && report.cost.delta_frames < deltas;
                    let came_back = read(&repository, &report.snapshot.unwrap().hex());
                    assert!(came_back.as_ref().is_ok_and(|bytes| *bytes == new) || came_back.is_err(), "{flip:?}: other bytes came back");
                    match (came_back.is_ok(), is_clean(&repository)) {
                        (true, true) => *harmless += 1,
                        (_, false) => *found += 1,
                        (false, true) => *lost += 1,
                    }
                    let checked = check(&repository, ReadData::All, &Silent).map(|report| report.findings);
                    let is_good = came_back.is_ok() && is_clean(&repository);
                    assert!(!is_caught || is_good, "{flip:?} was saved: {:?}, {checked:?}", came_back.err());
                }
            }
            assert!(read(&repository, &first).unwrap() == old, "{flip:?}: the older snapshot");
            let again = save(&repository, &new).unwrap_or_else(|error| panic!("{flip:?}: the next backup: {error}"));
            assert!(read(&repository, &again.snapshot.unwrap().hex()).unwrap() == new, "{flip:?}: the next backup");
        }
    }
    assert!(told.values().all(|counts| counts[3] == 0), "lost, and check does not say so: {told:?}");
    assert!(told.len() == STAGES.len() && told.values().all(|counts| counts.iter().sum::<u64>() > 4), "{told:?}");
    // What was made against a base with a flip in it seldom tells when it is read: it is not kept at all.
    assert!(fewer_deltas);
    // What does harm unless it is noticed, was.
    assert!(told.iter().all(|(stage, counts)| counts[0] + counts[2] > 4 || stage == "Base"), "{told:?}");
}
