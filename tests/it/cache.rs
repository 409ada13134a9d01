//! This host's index is a cache and only ever a hint: whatever happens to its file, backups and restores stay right.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use snap_backup::backend::{Area, Counting, Memory, Place};
use snap_backup::format::report::{Did, Report, Run};
use snap_backup::limits::{INDEX_LANES, LEAVES_CONTENT_BYTES_MIN, LEAVES_CONTENTS_MAX, READ_AGAIN};
use snap_backup::ops::backup::BackupOptions;
use snap_backup::repo::Stored;

use crate::support::*;

/// A repository with two versions of a stream, whose index is in a folder.
struct Scene {
    bench: Bench,
    memory: Memory,
    folder: tempfile::TempDir,
    old: Vec<u8>,
    new: Vec<u8>,
}

impl Scene {
    fn new(seed: u64) -> Self {
        let (mut bench, memory) = Bench::in_memory(seed);
        let folder = tempfile::tempdir().unwrap();
        bench.cache = Some(folder.path().to_path_buf());
        let old = [noise(seed, 200_000), lines(seed, 200_000)].concat();
        let mut new = old.clone();
        new.splice(100_000..100_000, noise(seed + 1, 50_000));
        let scene = Self { bench, memory, folder, old, new };
        scene.bench.save(&scene.old);
        scene
    }

    fn index(&self) -> PathBuf {
        self.lanes().into_iter().find(|path| path.ends_with("index-0.redb")).expect("an index was written")
    }

    fn lanes(&self) -> Vec<PathBuf> {
        let home = fs::read_dir(self.folder.path()).unwrap().next().unwrap().unwrap().path();
        let mut files: Vec<_> = fs::read_dir(home).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    /// Where the rows of chunks are.
    fn run(&self) -> PathBuf {
        self.lanes().into_iter().find(|path| path.to_str().unwrap().ends_with(".run")).expect("a run was written")
    }

    fn state(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.lanes().into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    fn put_back(&self, state: &[(PathBuf, Vec<u8>)]) {
        self.lanes().iter().for_each(|path| fs::remove_file(path).unwrap());
        state.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    }

    /// Everything works, and nothing was believed that is not so.
    fn judge(&self, case: &str) {
        let first = self.bench.open().snapshots().unwrap().0[0].id.hex();
        assert!(self.bench.dump(&first).unwrap() == self.old, "{case}");
        for bytes in [&self.new, &self.old] {
            self.bench.save(bytes);
            assert!(self.bench.dump("latest").unwrap() == *bytes, "{case}");
        }
        assert_clean(&self.bench.open());
        // Another host, without any cache, sees the same.
        let other = self.bench.without_cache();
        assert!(other.dump("latest~1").unwrap() == self.new && other.dump("latest").unwrap() == self.old, "{case}");
    }
}

fn check(case: &str, damage: impl FnOnce(&Scene, &Path)) {
    let scene = Scene::new(3);
    damage(&scene, &scene.index());
    scene.judge(case);
}

#[test]
fn an_index_that_is_damaged_is_made_anew() {
    check("deleted", |_, file| fs::remove_file(file).unwrap());
    check("folder deleted", |scene, _| fs::remove_dir_all(scene.folder.path()).unwrap());
    check("empty", |_, file| fs::write(file, b"").unwrap());
    check("noise", |_, file| fs::write(file, noise(1, 100_000)).unwrap());
    check("zeros", |_, file| fs::write(file, vec![0; fs::metadata(file).unwrap().len() as usize]).unwrap());
    check("a folder in its place", |_, file| {
        fs::remove_file(file).unwrap();
        fs::create_dir(file).unwrap();
    });
    check("a dangling link in its place", |_, file| {
        fs::remove_file(file).unwrap();
        std::os::unix::fs::symlink("/no/such/file", file).unwrap();
    });
    check("the cache folder is a file", |scene, _| {
        fs::remove_dir_all(scene.folder.path()).unwrap();
        fs::write(scene.folder.path(), b"").unwrap();
    });
    for part in [1, 2, 3, 5, 7, 9] {
        check("cut short", |_, file| {
            let len = fs::metadata(file).unwrap().len();
            fs::OpenOptions::new().write(true).open(file).unwrap().set_len(len * part / 10).unwrap();
        });
    }
    check("longer", |_, file| {
        let bytes = [fs::read(file).unwrap(), vec![0xff; 5000]].concat();
        fs::write(file, bytes).unwrap();
    });
}

/// What is remembered of the hash of a large content: whatever comes of it, the hash is that of the bytes, or they would not come back.
#[test]
fn the_hash_of_a_large_stream_is_that_of_its_bytes_whatever_is_remembered_of_it() {
    let (mut bench, _) = Bench::in_memory(5);
    let folder = tempfile::tempdir().unwrap();
    bench.cache = Some(folder.path().to_path_buf());
    let remembered = || {
        let home = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let mut files: Vec<PathBuf> = fs::read_dir(home.join("leaves")).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    };
    let keep = |bytes: &[u8], case: &str| {
        bench.save(bytes);
        assert!(bench.dump("latest").unwrap() == bytes, "{case}");
        assert_eq!(remembered().len(), usize::from(bytes.len() as u64 >= LEAVES_CONTENT_BYTES_MIN), "{case}");
    };
    let mut bytes = noise(1, LEAVES_CONTENT_BYTES_MIN as usize + 5_000_000);
    let (middle, len) = (bytes.len() / 2, bytes.len());
    keep(&bytes, "first");
    let first = remembered();
    keep(&bytes, "the same again");
    assert_eq!(remembered(), first);
    bytes[middle..middle + 3].fill(7);
    keep(&bytes, "three bytes in the middle");
    assert_ne!(remembered(), first);
    bytes.splice(middle - 9_000_000..middle - 9_000_000, [1, 2, 3]);
    keep(&bytes, "a little longer from somewhere on");
    bytes.remove(middle - 9_000_000);
    keep(&bytes, "a little shorter");
    bytes.truncate(len - 100_000);
    keep(&bytes, "a shorter end");
    bytes.extend(noise(2, 400_000));
    keep(&bytes, "another end");
    bytes.truncate(LEAVES_CONTENT_BYTES_MIN as usize);
    keep(&bytes, "an end where a leaf ends");

    let file = || remembered().pop().unwrap();
    let good = fs::read(file()).unwrap();
    let damage: [(&str, Vec<u8>); 4] = [
        ("empty", Vec::new()),
        ("cut short", good[..good.len() - 1].to_vec()),
        ("zeros", vec![0; good.len()]),
        ("a flipped bit", good.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == good.len() / 2)).collect()),
    ];
    for (case, damaged) in damage {
        fs::write(file(), &damaged).unwrap();
        bytes[middle] ^= 1;
        let older = file();
        keep(&bytes, case);
        assert!(!older.exists() && fs::read(file()).unwrap().len() == good.len(), "{case}");
    }
    let older = fs::read(file()).unwrap();
    bytes[middle] ^= 1;
    keep(&bytes, "one more");
    fs::write(file(), older).unwrap();
    bytes[middle + 20_000_000] ^= 1;
    keep(&bytes, "that of another content in its place");
}

#[test]
fn only_so_many_large_contents_are_remembered() {
    let (mut bench, _) = Bench::in_memory(6);
    let folder = tempfile::tempdir().unwrap();
    bench.cache = Some(folder.path().to_path_buf());
    bench.save(&noise(1, LEAVES_CONTENT_BYTES_MIN as usize));
    let leaves = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path().join("leaves");
    let names = || fs::read_dir(&leaves).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    let first = names();
    for i in 0..LEAVES_CONTENTS_MAX + 5 {
        fs::write(leaves.join(format!("{i}")), b"").unwrap();
        set_mtime(&leaves.join(format!("{i}")), 1000 + i as i64, 0);
    }
    bench.save(&noise(2, LEAVES_CONTENT_BYTES_MIN as usize));
    let left = names();
    assert_eq!(left.len(), LEAVES_CONTENTS_MAX);
    assert!(!left.contains(&first[0]) && !left.contains(&"5".into()) && left.contains(&"6".into()), "{left:?}");
}

#[test]
fn rows_of_chunks_that_are_damaged_are_made_anew() {
    let check = |case: &str, damage: &dyn Fn(&Path, Vec<u8>)| {
        let scene = Scene::new(3);
        damage(&scene.run(), fs::read(scene.run()).unwrap());
        // Without an older version to go by, only the index knows that nothing is new.
        let options = BackupOptions { name: Some("other".into()), ..options() };
        let cost = save(&scene.bench.open(), &scene.old, &options).unwrap().cost;
        assert_eq!(cost.data_bytes, 0, "{case}: {cost:?}");
        assert!(scene.bench.dump("latest").unwrap() == scene.old, "{case}");
        scene.judge(case);
    };
    check("deleted", &|file, _| fs::remove_file(file).unwrap());
    check("empty", &|file, _| fs::write(file, b"").unwrap());
    check("zeros", &|file, bytes| fs::write(file, vec![0; bytes.len()]).unwrap());
    check("noise", &|file, bytes| fs::write(file, noise(1, bytes.len())).unwrap());
    check("cut short", &|file, bytes| fs::write(file, &bytes[..bytes.len() / 2]).unwrap());
    check("no filter", &|file, mut bytes| {
        bytes[..64].fill(0);
        fs::write(file, bytes).unwrap();
    });
}

#[test]
fn an_index_with_a_flipped_bit_in_any_page_does_no_harm() {
    let seed = seed("an_index_with_a_flipped_bit_in_any_page_does_no_harm");
    let mut random = Rng::new(seed);
    let scene = Scene::new(4);
    let (state, sound) = (scene.memory.snapshot(), scene.state());
    let mut trials: Vec<(usize, usize)> = Vec::new();
    for (file, (_, bytes)) in sound.iter().enumerate() {
        let pages = bytes.chunks(4096).enumerate().filter(|(_, page)| page.iter().any(|byte| *byte != 0));
        for (number, page) in pages {
            // Where there is something, not in the empty middle of a page.
            let used: Vec<usize> = (0..page.len()).filter(|at| page[*at] != 0).collect();
            for _ in 0..3 {
                trials.push((file, number * 4096 + used[random.below(used.len() as u64) as usize]));
            }
        }
    }
    println!("{} flips in {} files", trials.len(), sound.len());
    for (file, at) in trials {
        let mut files = sound.clone();
        files[file].1[at] ^= 1 << random.below(8);
        scene.put_back(&files);
        scene.memory.restore(state.clone());
        let read = scene.bench.dump("latest").unwrap_or_else(|error| panic!("flip at {at}: {error}"));
        assert!(read == scene.old, "flip at {at}");
        scene.bench.save(&scene.new);
        assert!(scene.bench.dump("latest").unwrap() == scene.new, "flip at {at}");
        assert!(scene.bench.without_cache().dump("latest").unwrap() == scene.new, "flip at {at}");
    }
}

#[test]
fn an_index_of_another_time_or_place_does_no_harm() {
    check("another repository's", |_, file| {
        let other = Scene::new(5);
        fs::copy(other.index(), file).unwrap();
    });
    // A copy from before the last backup, as a restored home folder has.
    let scene = Scene::new(3);
    let older = fs::read(scene.index()).unwrap();
    scene.bench.save(&scene.new);
    let newer = fs::read(scene.index()).unwrap();
    fs::write(scene.index(), &older).unwrap();
    scene.judge("older");
    let scene = Scene::new(3);
    let older = scene.state();
    scene.bench.save(&scene.new);
    scene.put_back(&older);
    scene.judge("older as a whole");
    // The store went back to before the last backup, the index did not.
    let scene = Scene::new(3);
    let state = scene.memory.snapshot();
    scene.bench.save(&scene.new);
    scene.memory.restore(state);
    scene.judge("newer than the store");
    drop(newer);
}

/// The index says a chunk is stored, the store has lost its pack: it is stored again.
#[test]
fn a_pack_deleted_behind_our_back_is_stored_again() {
    let scene = Scene::new(6);
    let packs = |memory: &Memory| memory.places().into_iter().filter(|place| place.area == Area::Packs).collect::<Vec<_>>();
    for pack in packs(&scene.memory) {
        let state = scene.memory.snapshot();
        scene.memory.remove(&pack);
        let report = scene.bench.save(&scene.old);
        assert!(report.cost.packs > 0, "{:?}", report.cost);
        assert!(scene.bench.dump("latest").unwrap() == scene.old);
        assert!(scene.bench.without_cache().dump("latest").unwrap() == scene.old);
        scene.memory.restore(state);
    }
    for pack in packs(&scene.memory) {
        scene.memory.remove(&pack);
    }
    scene.bench.save(&scene.old);
    assert!(scene.bench.dump("latest").unwrap() == scene.old);
}

/// The same with a segment: what only it listed is found by the packs' footers, or stored again.
#[test]
fn a_segment_deleted_behind_our_back_does_no_harm() {
    let scene = Scene::new(7);
    let segments: Vec<_> = scene.memory.places().into_iter().filter(|place| place.area == Area::Segments).collect();
    for segment in &segments {
        scene.memory.remove(segment);
    }
    scene.judge("segment deleted");
}

/// Reports are remembered like snapshots. One that is damaged costs only itself, and one of a kind nobody knows is passed over.
#[test]
fn reports_are_remembered_and_stand_alone() {
    let scene = Scene::new(9);
    let report = |number: u64| {
        let run = Run { job: format!("job-{number}"), ..Run::default() };
        let time = jiff::Timestamp::from_second(1_790_000_000 + number as i64).unwrap();
        Report::new(time, "h".into(), "u".into(), Did::Run(run))
    };
    let count = READ_AGAIN as u64 + 4;
    let names: Vec<_> = (0..count).rev().map(|number| scene.bench.open().save_report(&report(number)).unwrap()).collect();
    let reads = || {
        let store = Arc::new(Counting::new(scene.memory.clone()));
        let repository = scene.bench.try_open_on(store.clone()).unwrap();
        let before = store.calls().gets;
        let (found, unreadable) = repository.reports_at_hand().unwrap();
        (found, unreadable, store.calls().gets - before)
    };
    let (found, unreadable, gets) = reads();
    assert_eq!((found.len() as u64, unreadable.len(), gets), (count, 0, count));
    assert!(found.iter().enumerate().all(|(number, stored)| stored.report == report(number as u64)));
    assert_eq!(reads().2, 0, "they are remembered");

    let place = Place::report(names[3]);
    let mut bytes = scene.memory.remove(&place).unwrap();
    assert_eq!(reads().0.len() as u64, count - 1, "which there are, the store says");
    *bytes.last_mut().unwrap() ^= 1;
    scene.memory.insert(place.clone(), bytes);
    assert_eq!(reads().1.len(), 0, "it is remembered");
    let findings = check_all(&scene.bench.open()).unwrap().findings;
    assert!(findings.iter().any(|finding| finding.object.contains(&place.name)), "a check reads the store: {findings:?}");
    fs::remove_file(scene.lanes().into_iter().find(|path| path.ends_with("reports")).unwrap()).unwrap();
    let (found, unreadable, _) = reads();
    assert_eq!((found.len() as u64, &unreadable[0].0), (count - 1, &place.name));
    scene.bench.save(&scene.new);
    assert!(scene.bench.dump("latest").unwrap() == scene.new, "nothing else minds");
}

/// What a host remembers of snapshots spares reading them; which there are, the store says.
#[test]
fn snapshots_are_remembered_but_never_made_up() {
    let scene = Scene::new(8);
    for number in 0..READ_AGAIN as u64 + 4 {
        let options = BackupOptions { tags: vec![format!("secret-{number}")], ..options() };
        save(&scene.bench.open(), &scene.old[number as usize..], &options).unwrap();
    }
    let reads = || {
        let store = Arc::new(Counting::new(scene.memory.clone()));
        let repository = scene.bench.try_open_on(store.clone()).unwrap();
        let before = store.calls().gets;
        let at_hand = repository.snapshots_at_hand().unwrap();
        let gets = store.calls().gets - before;
        let truth = repository.snapshots().unwrap();
        let plain = |found: &[Stored]| found.iter().map(|stored| (stored.id, stored.snapshot.clone())).collect::<Vec<_>>();
        assert!(plain(&at_hand.0) == plain(&truth.0));
        for (back, stored) in truth.0.iter().rev().enumerate() {
            assert_eq!(repository.newest(back, |_| true).unwrap().unwrap().id, stored.id);
        }
        assert!(repository.newest(truth.0.len(), |_| true).unwrap().is_none());
        let third = &truth.0[2].snapshot.tags;
        assert_eq!(repository.newest(0, |stored| stored.snapshot.tags == *third).unwrap().unwrap().id, truth.0[2].id);
        assert_eq!(at_hand.1.len(), truth.1.len());
        gets
    };
    let count = scene.bench.open().snapshots().unwrap().0.len() as u64;
    reads();
    assert!(reads() <= READ_AGAIN as u64);
    let file = scene.lanes().into_iter().find(|path| path.ends_with("snapshots")).expect("they are remembered");
    let bytes = fs::read(&file).unwrap();
    assert!(!bytes.windows(6).any(|part| part == b"secret" || part == b"db.sql"), "the file is sealed");

    // One is gone, one is new.
    let first = scene.bench.open().snapshots().unwrap().0[0].id;
    scene.memory.remove(&Place::snapshot(first));
    scene.bench.save(&scene.new);
    assert!(reads() <= READ_AGAIN as u64);

    // Whatever is in the file, what is not believed is read.
    for at in (0..bytes.len()).step_by(bytes.len() / 20) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        for damaged in [&flipped[..], &bytes[..at]] {
            fs::write(&file, damaged).unwrap();
            assert_eq!(reads(), count, "at {at}");
            assert!(reads() <= READ_AGAIN as u64, "at {at}");
        }
    }
    // A damaged snapshot is found out by whoever asks the store.
    let remembered = scene.bench.open().snapshots().unwrap().0[3].id;
    scene.memory.insert(Place::snapshot(remembered), b"damaged".to_vec());
    let repository = scene.bench.open();
    assert_eq!(repository.snapshots().unwrap().1.len(), 1);
    assert_eq!(repository.snapshots_at_hand().unwrap().1.len(), 0);
}

/// A collection of another host replaces segments and removes packs. The index forgets these, and is not made anew.
#[test]
fn an_index_follows_a_collection() {
    let mut scene = Scene::new(8);
    let mut bytes = scene.old.clone();
    for night in 0..20 {
        bytes.extend_from_slice(&noise(100 + night, 20_000));
        scene.bench.save(&bytes);
    }
    let snapshots = scene.bench.open().snapshots().unwrap().0;
    let other = scene.bench.without_cache();
    crate::prune::forget(&other.open(), &snapshots[..10].iter().map(|stored| stored.id).collect::<Vec<_>>());
    let report = crate::prune::run(&other, &crate::prune::exclusive()).unwrap();
    assert!(report.segments_replaced >= 20 && report.packs_deleted > 20, "{report:?}");
    let store = std::sync::Arc::new(snap_backup::backend::Counting::new(scene.memory.clone()));
    scene.bench = scene.bench.over(store.clone());
    let repository = scene.bench.open();
    repository.locator().unwrap();
    let calls = store.calls();
    println!("{calls:?}");
    // The manifest, the slot, and the segments that came instead.
    assert!(calls.gets <= 6, "{calls:?}");
    drop(repository);
    let report = scene.bench.save(&bytes);
    assert_eq!(report.totals.bytes_new, 0, "all is found where it is now");
    assert!(scene.bench.dump("latest").unwrap() == bytes);
    assert_clean(&scene.bench.open());
    // Most of it is gone: then it is made anew, and works as before.
    let all: Vec<_> = scene.bench.open().snapshots().unwrap().0.into_iter().map(|stored| stored.id).collect();
    crate::prune::forget(&other.open(), &all);
    crate::prune::run(&other, &crate::prune::exclusive()).unwrap();
    scene.bench.save(&scene.new);
    assert!(scene.bench.dump("latest").unwrap() == scene.new);
}

#[test]
fn processes_share_a_cache_folder() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let key = at("key");
    let snap = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_snap"));
        command.args(args).env_clear().env("SNAP_REPOSITORY", at("r")).env("SNAP_KEY_FILE", &key).env("SNAP_CACHE_DIR", at("cache"));
        command
    };
    assert!(snap(&["init", "-q"]).status().unwrap().success());
    let data: Vec<Vec<u8>> = (0..4).map(|number| [lines(1, 1_000_000), noise(number, 500_000)].concat()).collect();
    for round in 0..2 {
        let mut running = Vec::new();
        for (number, bytes) in data.iter().enumerate() {
            fs::write(at(&format!("in{number}")), &bytes[round * 1000..]).unwrap();
            let name = format!("db{number}");
            let mut command = snap(&["backup", "--stdin", "--stdin-filename", &name]);
            command.stdin(fs::File::open(at(&format!("in{number}"))).unwrap()).stdout(Stdio::null());
            running.push(command.spawn().unwrap());
        }
        for child in &mut running {
            assert!(child.wait().unwrap().success());
        }
        for (number, bytes) in data.iter().enumerate() {
            let found = snap(&["dump", "latest", "--name", &format!("db{number}")]).output().unwrap();
            assert!(found.stdout == bytes[round * 1000..], "db{number}: {}", String::from_utf8_lossy(&found.stderr));
        }
    }
    assert!(snap(&["check", "--read-data"]).stdout(Stdio::null()).status().unwrap().success());
    let home = fs::read_dir(at("cache")).unwrap().next().unwrap().unwrap().path();
    let lanes = fs::read_dir(home).unwrap().count();
    assert!((1..=INDEX_LANES).contains(&lanes), "{lanes} lanes");
}
