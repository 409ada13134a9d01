//! The index against a simple list of what it was told, through random histories and damage.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::PathBuf;

use super::*;
use crate::format::frame::{ChunkTable, Codec, FrameRecord, Present};
use crate::format::pack::FRAMES_START;

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.roll() % limit as u64) as usize
    }

    fn bytes<const LEN: usize>(&mut self) -> [u8; LEN] {
        std::array::from_fn(|_| self.roll() as u8)
    }
}

const REPOSITORY: RepositoryId = RepositoryId([7; 16]);

/// An index in a folder, and what it was told.
struct Scene {
    folder: tempfile::TempDir,
    dice: Dice,
    segments: HashSet<ObjectName>,
    packs: HashMap<ObjectName, Vec<FrameRecord>>,
}

impl Scene {
    fn new(seed: u64) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), dice: Dice(seed), segments: HashSet::new(), packs: HashMap::new() }
    }

    fn shelter(&self) -> Shelter {
        Shelter { cache: Some(self.folder.path().join("cache")), scratch: None }
    }

    fn open(&self) -> Index {
        Index::open(self.shelter(), REPOSITORY)
    }

    fn files(&self, end: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder.path().join("cache").join(REPOSITORY.hex())).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.to_str().unwrap().ends_with(end)).collect();
        files.sort();
        files
    }

    /// A frame of new chunks, of chunks that are elsewhere too, or one that is elsewhere as it is.
    fn frame(&mut self, offset: u64) -> FrameRecord {
        let mut known: Vec<&FrameRecord> = self.packs.values().flatten().collect();
        known.sort_by_key(|frame| frame.id);
        let any = (!known.is_empty()).then(|| known[self.dice.below(known.len())].clone());
        let kind = self.dice.below(10);
        if let Some(any) = any.clone().filter(|_| kind == 0) {
            return FrameRecord { offset, ..any };
        }
        let mut table = ChunkTable::default();
        for _ in 0..self.dice.below(30) + 1 {
            table.push(ChunkId(self.dice.bytes()), 4096);
        }
        if let Some(any) = any.filter(|_| kind == 1) {
            any.table.ids().iter().for_each(|id| table.push(*id, 4096));
        }
        let flags: Vec<bool> = (0..table.len()).map(|_| self.dice.below(5) > 0).collect();
        let present = (kind == 2).then(|| Present::from_flags(flags.into_iter()));
        FrameRecord { id: FrameId(self.dice.bytes()), offset, stored_len: 777, codec: Codec::Zstd, table, present, base: None }
    }

    fn segment(&mut self) -> (ObjectName, Segment) {
        let mut packs = Vec::new();
        for _ in 0..self.dice.below(4) + 1 {
            let mut frames: Vec<FrameRecord> = Vec::new();
            for _ in 0..self.dice.below(15) {
                let frame = self.frame(frames.last().map_or(FRAMES_START, FrameRecord::end));
                // A pack holds a frame once.
                if frames.iter().all(|other| other.id != frame.id) {
                    frames.push(frame);
                }
            }
            let name = ObjectName(self.dice.bytes());
            self.packs.insert(name, frames.clone());
            packs.push(PackRecord { name, kind: Kind::DataPack, size: 9999, frames });
        }
        let name = ObjectName(self.dice.bytes());
        self.segments.insert(name);
        (name, Segment { replaces: Vec::new(), packs })
    }

    /// What the index answers is an error, or right for all that is there. Says whether there was an error.
    fn judge(&self, index: &Index, case: &str) -> bool {
        let mut failed = false;
        for frame in self.packs.values().flatten() {
            for (ordinal, id) in frame.table.ids().iter().enumerate().filter(|(ordinal, _)| frame.has(*ordinal)) {
                match index.chunk(id) {
                    Ok(places) => {
                        let place = ChunkLocation { frame: frame.id, ordinal: ordinal as u32 };
                        assert!(places.contains(&place), "{case}: {id} is not found in {}", frame.id);
                    }
                    Err(_) => failed = true,
                }
            }
        }
        failed
    }
}

#[test]
fn what_is_there_is_found_after_any_history() {
    for seed in 0..6 {
        let mut scene = Scene::new(seed);
        let mut index = scene.open();
        for step in 0..20 {
            match scene.dice.below(10) {
                0 => {
                    drop(index);
                    index = scene.open();
                    index.verify().unwrap();
                    assert_eq!(index.merged().unwrap().len(), scene.segments.len());
                }
                1 | 2 if !scene.packs.is_empty() => {
                    let mut names: Vec<ObjectName> = scene.packs.keys().copied().collect();
                    names.sort();
                    let gone: HashSet<ObjectName> = names.into_iter().filter(|_| scene.dice.below(3) == 0).collect();
                    index.remove(&[], &gone).unwrap();
                    let lost: Vec<FrameRecord> = gone.iter().flat_map(|name| scene.packs.remove(name).unwrap()).collect();
                    let left: HashSet<FrameId> = scene.packs.values().flatten().map(|frame| frame.id).collect();
                    for frame in lost.iter().filter(|frame| !left.contains(&frame.id)) {
                        assert!(index.frame(&frame.id).unwrap().is_empty());
                        let places = frame.table.ids().iter().flat_map(|id| index.chunk(id).unwrap());
                        assert!(places.into_iter().all(|place| place.frame != frame.id), "seed {seed}, step {step}");
                    }
                }
                _ => {
                    let segments: Vec<_> = (0..scene.dice.below(3) + 1).map(|_| scene.segment()).collect();
                    index.merge(&segments, Scope::Frames).unwrap();
                    index.merge(&segments, Scope::Chunks).unwrap();
                }
            }
            assert!(!scene.judge(&index, &format!("seed {seed}, step {step}")));
            assert!(scene.files(".run").len() < 8);
        }
        let strangers = (0..10_000).filter(|_| !index.chunk(&ChunkId(scene.dice.bytes())).unwrap().is_empty()).count();
        assert_eq!(strangers, 0);
    }
}

/// The same segment again, or its packs in another one, as after they were put together, costs no rows.
#[test]
fn what_was_merged_is_not_merged_again() {
    let mut scene = Scene::new(1);
    let mut index = scene.open();
    let (name, segment) = scene.segment();
    index.merge(&[(name, segment.clone())], Scope::Chunks).unwrap();
    let before = scene.files(".run");
    index.merge(&[(name, segment.clone()), (ObjectName([1; 32]), segment)], Scope::Chunks).unwrap();
    assert_eq!(scene.files(".run"), before);
    index.remove(&[name], &HashSet::new()).unwrap();
    assert_eq!(index.merged().unwrap(), [(ObjectName([1; 32]), Scope::Chunks)]);
    assert!(!scene.judge(&index, "replaced"));
}

/// An index of some runs, a copy of all its files, and a later state.
fn worn() -> (Scene, HashMap<PathBuf, Vec<u8>>) {
    let mut scene = Scene::new(99);
    let mut index = scene.open();
    for count in [100, 15, 1] {
        let segments: Vec<_> = (0..count).map(|_| scene.segment()).collect();
        index.merge(&segments, Scope::Chunks).unwrap();
    }
    drop(index);
    assert_eq!(scene.files(".run").len(), 3);
    let state = scene.files("").into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    (scene, state)
}

impl Scene {
    /// Puts the files back, damages them, and sees what the index makes of it.
    fn suffer(&self, state: &HashMap<PathBuf, Vec<u8>>, case: &str, damage: impl FnOnce()) {
        self.files("").iter().for_each(|path| fs::remove_file(path).unwrap());
        state.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
        damage();
        let mut index = self.open();
        if index.merged().unwrap().is_empty() {
            // Started over: all will be merged again.
            assert!(self.files(".run").iter().all(|path| path.is_dir()), "{case}");
            return;
        }
        if index.verify().is_err() {
            index.start_over();
            assert!(index.merged().unwrap().is_empty(), "{case}");
            return;
        }
        if self.judge(&index, case) {
            drop(index);
            assert!(self.open().merged().unwrap().is_empty(), "{case}: the next process starts over");
        }
    }
}

#[test]
fn a_damaged_run_never_hides_a_chunk() {
    let (scene, state) = worn();
    let mut dice = Dice(5);
    let runs = scene.files(".run");
    for (number, run) in runs.iter().enumerate() {
        let sound = &state[run];
        for trial in 0..24 {
            let case = format!("run {number}, trial {trial}");
            scene.suffer(&state, &case, || {
                let mut bytes = sound.clone();
                let at = dice.below(bytes.len());
                match trial % 6 {
                    0 => bytes.truncate(at),
                    1 => bytes.extend([0; 4096]),
                    2 => bytes[at..].fill(0),
                    3 => {
                        let page = at / 4096 * 4096;
                        let end = bytes.len().min(page + 4096);
                        bytes[page..end].fill(0);
                    }
                    _ => bytes[at] ^= 1 << dice.below(8),
                }
                fs::write(run, bytes).unwrap();
            });
        }
        scene.suffer(&state, "deleted", || fs::remove_file(run).unwrap());
        scene.suffer(&state, "another's", || {
            fs::copy(&runs[(number + 1) % runs.len()], run).unwrap();
        });
        scene.suffer(&state, "a folder", || {
            fs::remove_file(run).unwrap();
            fs::create_dir(run).unwrap();
        });
        let _ = fs::remove_dir(run);
    }
}

/// A page of an older run of the same length at the same place: its checksum is its own.
#[test]
fn pages_of_another_time_are_found_out() {
    let (scene, state) = worn();
    let run = &scene.files(".run")[0];
    let mut index = scene.open();
    index.start_over();
    let mut again = Scene::new(99);
    let mut other = again.open();
    for count in [100, 15, 1] {
        let segments: Vec<_> = (0..count).map(|_| again.segment()).collect();
        other.merge(&segments, Scope::Chunks).unwrap();
    }
    drop((index, other));
    // The same rows under other tags: filters are the same, so only checksums can tell.
    let twin = again.files(".run").into_iter().find(|path| fs::metadata(path).unwrap().len() == state[run].len() as u64).unwrap();
    scene.suffer(&state, "twin", || {
        fs::copy(&twin, run).unwrap();
    });
    let index = scene.open();
    assert!(index.merged().unwrap().is_empty(), "the twin was found out");
}

#[test]
fn files_of_different_times_do_no_harm() {
    let (mut scene, older) = worn();
    let mut index = scene.open();
    let told = scene.packs.clone();
    for _ in 0..30 {
        let segment = scene.segment();
        index.merge(&[segment], Scope::Chunks).unwrap();
    }
    drop(index);
    let newer: HashMap<PathBuf, Vec<u8>> = scene.files("").into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    let database = scene.files(".redb").remove(0);
    // The new database with none but old runs.
    scene.suffer(&older, "newer database", || fs::write(&database, &newer[&database]).unwrap());
    // The old database beside new runs: what was merged then has to be found.
    scene.packs = told;
    scene.suffer(&newer, "older database", || fs::write(&database, &older[&database]).unwrap());
    let mixed = older.iter().chain(&newer).map(|(path, bytes)| (path.clone(), bytes.clone())).collect();
    scene.suffer(&mixed, "both", || fs::write(&database, &older[&database]).unwrap());
    assert_eq!(scene.files(".run").len(), 3, "runs of no database are swept");
}

/// Died between writing a run and the database, or started over.
#[test]
fn runs_of_nobody_are_swept_but_those_of_other_lanes() {
    let (scene, _) = worn();
    let folder = scene.folder.path().join("cache").join(REPOSITORY.hex());
    let (ours, others) = (folder.join("index-0.00.run"), folder.join("index-1.00.run"));
    fs::write(&ours, b"x").unwrap();
    fs::write(&others, b"x").unwrap();
    let index = scene.open();
    assert!(!ours.exists() && others.exists());
    assert!(!scene.judge(&index, "swept"));
}

#[test]
fn without_a_folder_nothing_is_left_behind() {
    let mut scene = Scene::new(3);
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("file");
    fs::write(&file, b"").unwrap();
    for scratch_folder in [Some(scratch.path()), None, Some(file.as_path())] {
        let shelter = Shelter { cache: Some(file.clone()), scratch: scratch_folder.map(Path::to_path_buf) };
        let mut index = Index::open(shelter, REPOSITORY);
        scene.packs.clear();
        for _ in 0..5 {
            let segment = scene.segment();
            index.merge(&[segment], Scope::Chunks).unwrap();
            index.verify().unwrap();
            assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
        }
        assert!(!scene.judge(&index, "passing"));
    }
}

/// A folder that cannot be written to any more must not be in the way.
#[test]
fn an_index_can_go_on_alone() {
    let mut scene = Scene::new(4);
    let mut index = scene.open();
    let (first, second) = (scene.segment(), scene.segment());
    index.merge(std::slice::from_ref(&first), Scope::Chunks).unwrap();
    fs::remove_dir_all(scene.folder.path().join("cache")).unwrap();
    assert!(index.merge(std::slice::from_ref(&second), Scope::Chunks).is_err());
    assert_eq!(index.merged().unwrap().len(), 1, "nothing of what failed was kept");
    index.stand_alone();
    assert!(index.merged().unwrap().is_empty());
    index.merge(&[first, second], Scope::Chunks).unwrap();
    assert!(!scene.judge(&index, "alone"));
}

/// Rows of one key may fill pages.
#[test]
fn many_places_of_one_chunk_are_all_found() {
    let scene = Scene::new(8);
    let mut index = scene.open();
    let mut frames: Vec<FrameRecord> = Vec::new();
    for number in 0..1000u32 {
        let mut table = ChunkTable::default();
        let mut other = [0x55; 16];
        other[8..12].copy_from_slice(&number.to_le_bytes());
        [[0x44; 16], [0x55; 16], other, [0x66; 16]].into_iter().for_each(|id| table.push(ChunkId(id), 5000));
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_le_bytes());
        let offset = frames.last().map_or(FRAMES_START, FrameRecord::end);
        frames.push(FrameRecord { id: FrameId(id), offset, stored_len: 9, codec: Codec::Zstd, table, present: None, base: None });
    }
    let pack = PackRecord { name: ObjectName([1; 32]), kind: Kind::DataPack, size: 99, frames };
    index.merge_packs(&[pack]).unwrap();
    for (id, count) in [(0x44, 1000), (0x55, 2000), (0x66, 1000), (0x33, 0), (0x45, 0), (0x77, 0)] {
        assert_eq!(index.chunk(&ChunkId([id; 16])).unwrap().len(), count, "{id:x}");
    }
}
