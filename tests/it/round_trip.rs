//! What goes in comes out: streams and trees through backup, dump and restore, and what they cost to store.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use snap_backup::backend::{Area, Local};
use snap_backup::error::Error;
use snap_backup::format::entry::{Entry, Flaw, Node};
use snap_backup::format::recipe::Recipe;
use snap_backup::limits::*;
use snap_backup::ops::backup::{BackupOptions, BackupReport, Input, backup};
use snap_backup::ops::browse;
use snap_backup::ops::restore::{Overwrite, RestoreOptions};
use snap_backup::ops::stats::stats;
use snap_backup::progress::Silent;
use snap_backup::repo::{Repository, SnapshotFilter};
use snap_backup::source::FilterRules;

use crate::support::*;

/// Backs up `versions` one after another and reads each of them back; returns what each cost.
fn check(versions: &[&[u8]]) -> Vec<BackupReport> {
    let (bench, _) = Bench::in_memory(1);
    check_on(&bench, versions)
}

fn check_on(bench: &Bench, versions: &[&[u8]]) -> Vec<BackupReport> {
    let options = BackupOptions { allow_empty: true, ..options() };
    let reports: Vec<_> = versions.iter().map(|bytes| save(&bench.open(), bytes, &options).unwrap()).collect();
    for (report, bytes) in reports.iter().zip(versions) {
        let read = bench.dump(&report.snapshot.unwrap().hex()).unwrap();
        assert!(read == *bytes, "{} bytes in, {} other bytes out", bytes.len(), read.len());
        assert_eq!((report.totals.bytes, report.totals.files, report.totals.flawed), (bytes.len() as u64, 1, 0));
    }
    assert_clean(&bench.open());
    reports
}

/// The entries of a snapshot.
fn entries(repository: &Repository, which: &str) -> Vec<Entry> {
    let mut found = Vec::new();
    let each = &mut |entry: &Entry| {
        found.push(entry.clone());
        Ok(())
    };
    browse::list(repository, &select(repository, which), true, each).unwrap();
    found
}

fn recipe(repository: &Repository, which: &str) -> Recipe {
    match &entries(repository, which)[0].node {
        Node::File { content: Some(content) } => content.recipe.clone(),
        other => panic!("{other:?}"),
    }
}

fn edited(bytes: &[u8], at: usize, take: usize, put: &[u8]) -> Vec<u8> {
    [&bytes[..at], put, &bytes[at + take..]].concat()
}

#[test]
fn streams_of_every_awkward_length() {
    let edges = [0, 1, 2, CHUNK_BYTES_MIN, CHUNK_BYTES_AVG, CHUNK_BYTES_MAX, FRAME_BYTES_TARGET, FRAME_BYTES_MAX];
    let mut lens: Vec<usize> = edges.iter().flat_map(|edge| [edge.saturating_sub(1), *edge, edge + 1]).collect();
    lens.push(2 * CHUNK_BYTES_MAX);
    lens.dedup();
    for bytes in [noise(1, FRAME_BYTES_MAX + 1), lines(1, FRAME_BYTES_MAX + 1), vec![0; FRAME_BYTES_MAX + 1]] {
        let versions: Vec<&[u8]> = lens.iter().map(|len| &bytes[..*len]).collect();
        check(&versions);
    }
}

#[test]
fn streams_about_as_long_as_a_slab() {
    let bytes = noise(2, 2 * SLAB_BYTES + 1);
    for len in [SLAB_BYTES - 1, SLAB_BYTES, SLAB_BYTES + 1, 2 * SLAB_BYTES, 2 * SLAB_BYTES + 1] {
        check(&[&bytes[..len]]);
    }
}

#[test]
fn twenty_megabytes_without_order() {
    let bytes = noise(3, 20_000_000);
    let reports = check(&[&bytes]);
    let stored = reports[0].totals.bytes_stored;
    assert!((20_000_000..20_200_000).contains(&stored), "{stored}");
    assert!(reports[0].cost.packs >= 2, "more than one pack of data");
}

#[test]
fn zeros_take_next_to_nothing() {
    let reports = check(&[&vec![0; 20_000_000], &vec![0; 30_000_001]]);
    assert!(reports[0].totals.bytes_stored < 4096, "{:?}", reports[0].cost);
    assert!(reports[1].totals.bytes_stored < 4096, "{:?}", reports[1].cost);
    assert!(reports[1].totals.bytes_new <= 1 << 17, "{:?}", reports[1].totals);
}

#[test]
fn the_same_stream_twice_costs_next_to_nothing() {
    let bytes = lines(4, 6 << 20);
    let (bench, _) = Bench::in_memory(1);
    let reports = check_on(&bench, &[&bytes, &bytes, &bytes]);
    for report in &reports[1..] {
        assert_eq!(report.totals.bytes_new, 0);
        assert!(report.unchanged && report.totals.bytes_stored < 4096, "{:?}", report.cost);
        assert_eq!(report.cost.data_bytes, 0);
    }
    let repository = bench.open();
    assert_eq!(recipe(&repository, "latest"), recipe(&repository, "latest~2"));
    assert_eq!(reports[1].parent, reports[0].snapshot);
}

#[test]
fn edits_in_the_middle_store_little() {
    let bytes = lines(5, 4 << 20);
    let versions = [
        edited(&bytes, 2_000_000, 0, b"one line more;\n"),
        edited(&bytes, 2_000_000, 100, b""),
        edited(&bytes, 2_000_000, 1, b"#"),
        edited(&bytes, 0, 0, b"-- a new head\n"),
        edited(&bytes, bytes.len(), 0, b"-- a new end\n"),
    ];
    for version in &versions {
        let reports = check(&[&bytes, version]);
        assert!(reports[1].totals.bytes_new < 3 * CHUNK_BYTES_MAX as u64, "{:?}", reports[1].totals);
        assert!(reports[1].totals.bytes_stored < 8192, "a delta against what was there: {:?}", reports[1].cost);
    }
}

#[test]
fn files_that_moved_and_changed_are_stored_as_deltas() {
    let (bench, _) = Bench::in_memory(41);
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("old");
    std::fs::create_dir(&old).unwrap();
    // Files of one chunk: an edited one shares no chunk with what it was.
    for i in 0..60 {
        std::fs::write(old.join(format!("{i:02}")), noise(i, 3500)).unwrap();
    }
    save_tree(&bench.open(), folder.path(), &options()).unwrap();
    std::fs::rename(&old, folder.path().join("new")).unwrap();
    for i in (5..60).step_by(6) {
        let mut bytes = noise(i, 3500);
        bytes[1000] ^= 1;
        std::fs::write(folder.path().join(format!("new/{i:02}")), bytes).unwrap();
    }
    let report = save_tree(&bench.open(), folder.path(), &options()).unwrap();
    assert_eq!(report.cost.bytes_new, 10 * 3500);
    assert!(report.cost.delta_frames > 0 && report.cost.data_bytes < 4000, "{:?}", report.cost);
    let target = tempfile::tempdir().unwrap();
    let (_, problems) = restore_to(&bench.open(), "latest", target.path(), &RestoreOptions::default());
    assert!(problems.is_empty());
    let back = target.path().join(folder.path().strip_prefix("/").unwrap()).join("new");
    assert_eq!(describe(&back), describe(&folder.path().join("new")));
}

#[test]
fn deltas_can_be_switched_off() {
    let bytes = noise(6, 1 << 20);
    let version = edited(&bytes, 500_000, 1, b"#");
    let (bench, _) = Bench::in_memory(1);
    bench.save(&bytes);
    let plain = save(&bench.open(), &version, &BackupOptions { delta: false, dry_run: true, ..options() }).unwrap();
    let delta = save(&bench.open(), &version, &options()).unwrap();
    assert!(plain.cost.delta_frames == 0 && delta.cost.delta_frames > 0, "{:?} {:?}", plain.cost, delta.cost);
    assert!(delta.cost.data_bytes * 4 < plain.cost.data_bytes, "{:?} {:?}", delta.cost, plain.cost);
    assert_eq!(bench.dump("latest").unwrap(), version);
}

/// A recipe with more runs than fit in a block is a stream of blocks itself.
#[test]
fn a_recipe_with_many_runs_is_a_stream_of_its_own() {
    let known = noise(7, 16 << 20);
    let fresh = noise(8, 16 << 20);
    let piece = 2 * CHUNK_BYTES_MAX / 5;
    let mixed: Vec<u8> = known.chunks(piece).zip(fresh.chunks(piece)).flat_map(|(a, b)| [a, b].concat()).collect();
    let (bench, _) = Bench::in_memory(1);
    let reports = check_on(&bench, &[&known, &mixed, &mixed, &edited(&mixed, 10_000_000, 5, b"other")]);
    let repository = bench.open();
    assert!(recipe(&repository, "latest~2").depth >= 1, "{:?}", recipe(&repository, "latest~2"));
    assert_eq!(recipe(&repository, "latest~2"), recipe(&repository, "latest~1"));
    assert!(reports[2].unchanged && reports[2].totals.bytes_stored < 4096, "{:?}", reports[2].cost);
    assert!(reports[3].totals.bytes_stored < 100_000, "{:?}", reports[3].cost);
}

#[test]
fn versions_that_shuffle_what_is_there_store_nothing_new() {
    let bytes = noise(9, 4 << 20);
    let halves = [&bytes[2 << 20..], &bytes[..2 << 20]].concat();
    let twice = [&bytes[..], &bytes[..]].concat();
    let reports = check(&[&bytes, &halves, &twice, &bytes[1 << 20..3 << 20]]);
    for report in &reports[1..] {
        assert!(report.totals.bytes_new < 5 * CHUNK_BYTES_MAX as u64, "{:?}", report.totals);
    }
}

#[test]
fn an_empty_stream_is_refused_unless_it_is_allowed() {
    let (bench, memory) = Bench::in_memory(1);
    let before = memory.snapshot();
    assert!(matches!(save(&bench.open(), b"", &options()), Err(Error::EmptyStream { .. })));
    assert!(memory.snapshot() == before, "nothing was stored");
    let report = save(&bench.open(), b"", &BackupOptions { allow_empty: true, ..options() }).unwrap();
    assert!(report.snapshot.is_some());
    assert_eq!(bench.dump("latest").unwrap(), b"");
}

#[test]
fn a_source_that_fails_leaves_no_snapshot() {
    struct Failing(usize);
    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0 == 0 {
                return Err(std::io::Error::other("the disk is tired"));
            }
            let len = buffer.len().min(self.0);
            self.0 -= len;
            Ok(len)
        }
    }
    let (bench, memory) = Bench::in_memory(1);
    for len in [0, 1, 100_000, 9 << 20] {
        let input = Input::Reader { name: "db".into(), reader: Box::new(Failing(len)) };
        assert!(backup(&bench.open(), input, &options(), &Silent).is_err());
        assert!(memory.places().iter().all(|place| place.area != Area::Snapshots));
    }
    assert_clean(&bench.open());
    check_on(&bench, &[&vec![0; 9 << 20]]);
}

#[test]
fn a_dry_run_stores_nothing() {
    let (bench, memory) = Bench::in_memory(1);
    let bytes = lines(10, 1 << 20);
    bench.save(&bytes);
    let before = memory.snapshot();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), noise(1, 100_000)).unwrap();
    let dry = BackupOptions { dry_run: true, ..options() };
    let said = save(&bench.open(), &edited(&bytes, 1000, 0, &noise(2, 200_000)), &dry).unwrap();
    let tree = save_tree(&bench.open(), folder.path(), &dry).unwrap();
    assert!(memory.snapshot() == before, "nothing was stored");
    assert_eq!((said.snapshot, tree.snapshot), (None, None));
    assert!(said.totals.bytes_new >= 200_000 && tree.totals.bytes_new >= 100_000);
    assert!(said.cost.stored() > 200_000, "it says what would be stored: {:?}", said.cost);
}

#[test]
fn an_unchanged_stream_can_be_skipped() {
    let (bench, memory) = Bench::in_memory(1);
    let bytes = lines(11, 300_000);
    let skip = BackupOptions { skip_if_unchanged: true, ..options() };
    assert!(save(&bench.open(), &bytes, &skip).unwrap().snapshot.is_some());
    let before = memory.places().len();
    let report = save(&bench.open(), &bytes, &skip).unwrap();
    assert!(report.snapshot.is_none() && report.unchanged);
    // A catalog of the new time and its segment are left behind.
    assert!(report.cost.data_bytes == 0 && report.cost.stored() < 2048 && memory.places().len() <= before + 2, "{:?}", report.cost);
    assert!(save(&bench.open(), &bytes[1..], &skip).unwrap().snapshot.is_some());
}

#[test]
fn a_repository_in_a_folder_works_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::on(Arc::new(Local::new(folder.path().join("r"))), 1);
    let bytes = lines(12, 3 << 20);
    let reports = check_on(&bench, &[&bytes, &edited(&bytes, 1_000_000, 0, b"x"), b""]);
    assert!(reports[1].totals.bytes_stored < 8192);
    let figures = stats(&bench.open(), &Silent).unwrap();
    let on_disk: u64 = files_below(&folder.path().join("r")).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    let manifest = fs::metadata(folder.path().join("r/manifest")).unwrap().len();
    assert_eq!((figures.snapshots, figures.total_stored_size + manifest), (3, on_disk));
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files_below(&path)),
            false => found.push(path),
        }
    }
    found
}

#[test]
fn snapshots_are_found_by_what_people_write() {
    let (bench, _) = Bench::in_memory(1);
    let repository = bench.open();
    let mut ids = Vec::new();
    for (number, host) in [(0, "a"), (1, "b"), (2, "a"), (3, "b")] {
        let tags = if number < 2 { vec!["old".to_owned(), "x".to_owned()] } else { vec!["new".to_owned()] };
        let options = BackupOptions { tags, name: Some(format!("n{}", number % 3)), ..BackupOptions::new(host) };
        ids.push(save(&repository, &noise(number, 1000), &options).unwrap().snapshot.unwrap());
    }
    let found = |text: &str, filter: &SnapshotFilter| repository.select(text, filter).ok().map(|found| found.stored.id);
    let all = SnapshotFilter::default();
    assert_eq!(found("latest", &all), Some(ids[3]));
    assert_eq!(found("latest~0", &all), Some(ids[3]));
    assert_eq!(found("latest~3", &all), Some(ids[0]));
    assert_eq!(found("latest~4", &all), None);
    assert_eq!(found("latest~", &all), None);
    assert_eq!(found("latestx", &all), None);
    assert_eq!(found("", &all), None);
    for id in &ids {
        assert_eq!(found(&id.hex(), &all), Some(*id));
        assert_eq!(found(&id.hex()[..12], &all), Some(*id));
        assert_eq!(repository.select(&format!("{}:/a/b/", id.short()), &all).unwrap().path, b"a/b");
    }
    let hosts = SnapshotFilter { hosts: vec!["a".into()], ..all.clone() };
    assert_eq!((found("latest", &hosts), found("latest~1", &hosts), found("latest~2", &hosts)), (Some(ids[2]), Some(ids[0]), None));
    let tags = |lists: &[&[&str]]| SnapshotFilter {
        tags: lists.iter().map(|list| list.iter().map(|tag| tag.to_string()).collect()).collect(),
        ..all.clone()
    };
    assert_eq!(found("latest", &tags(&[&["old", "x"]])), Some(ids[1]));
    assert_eq!(found("latest", &tags(&[&["old", "new"]])), None);
    assert_eq!(found("latest", &tags(&[&["old"], &["new"]])), Some(ids[3]));
    assert_eq!(found("latest", &SnapshotFilter { names: vec!["n1".into()], ..all }), Some(ids[1]));
}

/// A parent is a shortcut and nothing more.
#[test]
fn a_damaged_or_missing_parent_costs_only_time() {
    let (bench, memory) = Bench::in_memory(1);
    let bytes = lines(13, 500_000);
    bench.save(&bytes);
    let packs: Vec<_> = memory.places().into_iter().filter(|place| place.area == Area::Packs).collect();
    for pack in packs {
        memory.edit(&pack, |bytes| bytes.truncate(100));
    }
    bench.save(&bytes);
    assert_eq!(bench.dump("latest").unwrap(), bytes);

    let (bench, memory) = Bench::in_memory(1);
    let folder = scene();
    save_tree(&bench.open(), folder.path(), &options()).unwrap();
    for pack in memory.places().into_iter().filter(|place| place.area == Area::Packs) {
        memory.remove(&pack);
    }
    let report = save_tree(&bench.open(), folder.path(), &options()).unwrap();
    assert_eq!(report.totals.files_unmodified, 0, "what is gone is read again");
    check_restored(&bench, folder.path());
}

// Trees.

/// A folder with every kind of thing in it.
fn scene() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["docs/deep/er", "empty", "sp ace", "-dash"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    fs::write(at("docs/text"), lines(20, 300_000)).unwrap();
    fs::write(at("docs/noise"), noise(20, 70_000)).unwrap();
    fs::write(at("docs/deep/er/x"), b"x").unwrap();
    fs::write(at("docs/nothing"), b"").unwrap();
    fs::write(at("docs-not"), b"sorted behind docs/, though - is before /").unwrap();
    fs::hard_link(at("docs/noise"), at("sp ace/again")).unwrap();
    std::os::unix::fs::symlink("../docs/text", at("sp ace/link")).unwrap();
    std::os::unix::fs::symlink("no where\n", at("broken")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, at("fifo"), rustix::fs::Mode::from_raw_mode(0o640)).unwrap();
    drop(std::os::unix::net::UnixListener::bind(at("socket")).unwrap());
    let names: [&[u8]; 6] = [b"\xff\xfe not text", b"new\nline", b"esc\x1b[2J", "\u{202e}txt".as_bytes(), b"*?[x]\\", &[b'n'; 255]];
    for name in names {
        fs::write(folder.path().join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
    }
    let mut sparse = fs::File::create(at("sparse")).unwrap();
    sparse.write_all(b"head").unwrap();
    sparse.seek(SeekFrom::Start(5 << 20)).unwrap();
    sparse.write_all(&noise(21, 10_000)).unwrap();
    sparse.set_len(9 << 20).unwrap();
    fs::File::create(at("hole")).unwrap().set_len(1 << 20).unwrap();
    if xattr::set(at("docs/text"), "user.color", b"\x00blue\xff").is_err() {
        eprintln!("SKIPPED in part: no extended attributes in the temporary folder");
    }
    let _ = xattr::set(at("docs"), "user.empty", b"");
    for (name, mode) in [("docs/text", 0o4755), ("docs/noise", 0o400), ("docs/deep", 0o1777), ("empty", 0o500), ("docs/deep/er/x", 0o2644)]
    {
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for (name, seconds, nanos) in
        [("docs/text", 1, 999_999_999), ("docs/noise", -86_400 * 400, 5), ("broken", 3_000_000_000, 0), ("empty", 12, 0), ("docs", 77, 7)]
    {
        set_mtime(&at(name), seconds, nanos);
    }
    folder
}

/// The path under which a snapshot has a folder.
fn inside(folder: &Path) -> String {
    format!("latest:{}", folder.display())
}

/// Restores the newest snapshot's copy of a folder and compares.
fn check_restored(bench: &Bench, folder: &Path) {
    let target = tempfile::tempdir().unwrap();
    for sparse in [false, true] {
        let target = target.path().join(format!("t{sparse}"));
        let options = RestoreOptions { verify: true, sparse, ..RestoreOptions::default() };
        let (report, problems) = restore_to(&bench.open(), &inside(folder), &target, &options);
        assert_eq!(problems, [], "sparse {sparse}");
        assert_eq!(describe(&target), describe(folder), "sparse {sparse}");
        assert_eq!(report.files_verified, report.files_restored);
    }
}

#[test]
fn a_tree_of_everything_comes_back() {
    let (bench, _) = Bench::in_memory(1);
    let folder = scene();
    let report = save_tree(&bench.open(), folder.path(), &options()).unwrap();
    assert_eq!(report.totals.flawed, 0);
    assert!(report.totals.bytes < 500_000, "holes are not read: {:?}", report.totals);
    check_restored(&bench, folder.path());
    assert_clean(&bench.open());
    let restored = tempfile::tempdir().unwrap();
    restore_to(&bench.open(), &inside(folder.path()), restored.path(), &RestoreOptions::default());
    let blocks = |path: &Path| fs::metadata(path.join("sparse")).unwrap().blocks();
    assert!(blocks(restored.path()) < 200, "holes come back as holes: {} blocks", blocks(restored.path()));
    let (one, other) =
        (fs::metadata(restored.path().join("docs/noise")).unwrap(), fs::metadata(restored.path().join("sp ace/again")).unwrap());
    assert_eq!(one.ino(), other.ino());
}

#[test]
fn an_unchanged_tree_is_not_read_again() {
    let (bench, _) = Bench::in_memory(1);
    let folder = scene();
    let first = save_tree(&bench.open(), folder.path(), &options()).unwrap();
    let second = save_tree(&bench.open(), folder.path(), &options()).unwrap();
    assert_eq!(second.totals.files, first.totals.files);
    assert_eq!(second.totals.files_unmodified, second.totals.files, "{:?}", second.totals);
    // Other tests change the folder of temporary folders, which the snapshot knows too.
    assert!(second.cost.data_bytes == 0 && second.cost.stored() < 2048, "{:?}", second.cost);
    check_restored(&bench, folder.path());

    let forced = save_tree(&bench.open(), folder.path(), &BackupOptions { force: true, ..options() }).unwrap();
    let below = |which: &str| {
        let entries = entries(&bench.open(), which).into_iter();
        entries.filter(|entry| entry.path.starts_with(&folder.path().as_os_str().as_bytes()[1..])).collect::<Vec<_>>()
    };
    assert_eq!(below("latest"), below("latest~1"));
    assert_eq!(forced.totals.bytes_new, 0);
    assert_eq!(bytes_read(&bench.open(), folder.path(), &BackupOptions { force: true, ..options() }), forced.totals.bytes);
    assert_eq!(bytes_read(&bench.open(), folder.path(), &options()), 0);

    fs::write(folder.path().join("docs/deep/er/x"), b"another").unwrap();
    let third = save_tree(&bench.open(), folder.path(), &options()).unwrap();
    assert_eq!(third.totals.files_unmodified, third.totals.files - 1);
    assert!(!third.unchanged && third.cost.stored() < 8192, "{:?}", third.cost);
    check_restored(&bench, folder.path());
}

/// A file that changes within the tick of the clock in which it was read keeps its times and size: it must be read again.
#[test]
fn a_file_changed_within_the_tick_of_its_backup_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let (fresh, settled) = (folder.path().join("fresh"), folder.path().join("settled"));
    let (bench, _) = Bench::in_memory(1);
    let now = jiff::Timestamp::now().as_second();
    let at = |start: i64| Repository::open(bench.store.clone(), opening(world(start as u64, start), None)).unwrap();
    fs::write(&fresh, b"before").unwrap();
    fs::write(&settled, b"before").unwrap();
    set_mtime(&settled, now - 1000, 0);
    assert_eq!(bytes_read(&at(now), folder.path(), &options()), 12);
    // The first backup ran when both had just been written (their ctime cannot be set back): neither is trusted.
    assert_eq!(bytes_read(&at(now + 100), folder.path(), &options()), 12);
    // The second began long after.
    assert_eq!(bytes_read(&at(now + 200), folder.path(), &options()), 0);
    // The same size and modification time: the change of the inode gives it away.
    let stat = fs::metadata(&settled).unwrap();
    fs::write(&settled, b"after!").unwrap();
    set_mtime(&settled, stat.mtime(), stat.mtime_nsec());
    assert_eq!(bytes_read(&at(now + 300), folder.path(), &options()), 6);
    assert_eq!(read(&at(now + 400), &format!("latest:{}", settled.display())).unwrap(), b"after!");
    // Replaced by another file with the same times and size.
    fs::write(folder.path().join("new"), b"AFTER!").unwrap();
    set_mtime(&folder.path().join("new"), stat.mtime(), stat.mtime_nsec());
    fs::rename(folder.path().join("new"), &settled).unwrap();
    save_tree(&at(now + 500), folder.path(), &options()).unwrap();
    assert_eq!(read(&at(now + 600), &format!("latest:{}", settled.display())).unwrap(), b"AFTER!");
}

/// Progress that acts when it hears of the first bytes of a tree.
struct Meddler<F: Fn() + Sync>(std::sync::Once, F, Heard);

impl<F: Fn() + Sync> snap_backup::progress::Progress for Meddler<F> {
    fn files(&self, _count: u64) {
        self.0.call_once(&self.1);
    }

    fn problem(&self, problem: &snap_backup::progress::Problem) {
        self.2.problem(problem);
    }
}

#[test]
fn files_that_change_or_vanish_while_they_are_read_are_told() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("a")).unwrap();
    // Enough to read that the end is far off when the first file is done.
    fs::write(folder.path().join("b"), noise(31, 40 << 20)).unwrap();
    fs::create_dir(folder.path().join("c")).unwrap();
    fs::write(folder.path().join("c/vanishes"), b"soon gone").unwrap();
    fs::write(folder.path().join("c/stays"), b"stays").unwrap();
    let (bench, _) = Bench::in_memory(1);
    let (growing, vanishing) = (folder.path().join("b"), folder.path().join("c/vanishes"));
    let meddle = || {
        fs::OpenOptions::new().append(true).open(&growing).unwrap().write_all(b"more").unwrap();
        fs::remove_file(&vanishing).unwrap();
    };
    let meddler = Meddler(std::sync::Once::new(), meddle, Heard::default());
    let input = tree(&[folder.path()], FilterRules::default());
    let report = backup(&bench.open(), input, &options(), &meddler).unwrap();
    let repository = bench.open();
    let entries = entries(&repository, "latest");
    let big = entries.iter().find(|entry| entry.path.ends_with(b"/b")).unwrap();
    assert_eq!(big.flaw, Flaw::Changed, "{:?}", meddler.2.problems());
    assert!(report.totals.flawed >= 1 && !select(&repository, "latest").stored.snapshot.is_complete());
    assert!(!meddler.2.problems().is_empty());
    assert!(entries.iter().any(|entry| entry.path.ends_with(b"/c/stays")));
    // A file that changed while it was read is never taken for unchanged.
    let next = save_tree(&repository, folder.path(), &options()).unwrap();
    assert_eq!((next.totals.flawed, next.totals.files_unmodified), (0, 1), "{:?}", next.totals);
    check_restored(&bench, folder.path());
}

#[test]
fn what_cannot_be_read_is_told_and_the_rest_is_saved() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), b"a").unwrap();
    let (bench, _) = Bench::in_memory(1);
    let heard = Heard::default();
    let input = tree(&[folder.path(), Path::new("/does/not/exist")], FilterRules::default());
    let report = backup(&bench.open(), input, &options(), &heard).unwrap();
    assert_eq!((report.totals.flawed, report.totals.files), (1, 1));
    assert_eq!(heard.problems()[0].subject, b"/does/not/exist");
    let target = tempfile::tempdir().unwrap();
    let (restored, problems) = restore_to(&bench.open(), &inside(folder.path()), target.path(), &RestoreOptions::default());
    assert_eq!((restored.files_restored, problems.len()), (1, 0));
}

#[test]
fn backups_leave_out_what_they_are_told_to() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["keep/a.c", "keep/a.o", "keep/sub/b.o", "cache/CACHEDIR.TAG", "cache/x", "no/.nobackup", "no/y", "tmp"] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, if name.ends_with("TAG") { "Signature: 8a477f597d28d172789f06886806bc55\n" } else { name }).unwrap();
    }
    let check = |rules: FilterRules, expected: &[&str]| {
        let (bench, _) = Bench::in_memory(1);
        backup(&bench.open(), tree(&[folder.path()], rules), &options(), &Silent).unwrap();
        let prefix = folder.path().as_os_str().as_bytes().len();
        let files = entries(&bench.open(), "latest").into_iter().filter(|entry| matches!(entry.node, Node::File { .. }));
        let names: Vec<String> = files.map(|entry| String::from_utf8_lossy(&entry.path[prefix..]).into_owned()).collect();
        assert_eq!(names, expected);
    };
    let excludes = |list: &[&str]| FilterRules { excludes: list.iter().map(|text| text.to_string()).collect(), ..FilterRules::default() };
    let all = ["cache/CACHEDIR.TAG", "cache/x", "keep/a.c", "keep/a.o", "keep/sub/b.o", "no/.nobackup", "no/y", "tmp"];
    check(FilterRules::default(), &all);
    check(excludes(&["*.o", "tmp", "no", "cache"]), &["keep/a.c"]);
    check(excludes(&["*.o", "!b.o", "tmp/"]), &[&all[..3], &all[4..]].concat());
    let marked = FilterRules { exclude_caches: true, exclude_if_present: vec![".nobackup".into()], ..FilterRules::default() };
    check(marked, &["cache/CACHEDIR.TAG", "keep/a.c", "keep/a.o", "keep/sub/b.o", "no/.nobackup", "tmp"]);
}

#[test]
fn a_part_of_a_tree_is_restored() {
    let (bench, _) = Bench::in_memory(1);
    let folder = scene();
    save_tree(&bench.open(), folder.path(), &options()).unwrap();
    let check = |which: &str, include: &[&str], exclude: &[&str], expected: &[&str]| {
        let target = tempfile::tempdir().unwrap();
        let strings = |list: &[&str]| list.iter().map(|text| text.to_string()).collect();
        let options = RestoreOptions { include: strings(include), exclude: strings(exclude), ..RestoreOptions::default() };
        let which = format!("{}{which}", inside(folder.path()));
        let dry = RestoreOptions { dry_run: true, ..options.clone() };
        let (promised, _) = restore_to(&bench.open(), &which, target.path(), &dry);
        assert!(fs::read_dir(target.path()).unwrap().next().is_none(), "a dry run writes nothing");
        let (report, problems) = restore_to(&bench.open(), &which, target.path(), &options);
        assert_eq!(problems, []);
        let mut names: Vec<_> =
            files_below(target.path()).iter().map(|path| path.strip_prefix(target.path()).unwrap().display().to_string()).collect();
        names.sort();
        assert_eq!(names, expected, "{which} {include:?} {exclude:?}");
        assert_eq!((promised.files_restored, promised.bytes_total), (report.files_restored, report.bytes_total));
    };
    check("/docs", &[], &[], &["deep/er/x", "noise", "nothing", "text"]);
    check("/docs/deep/er", &[], &[], &["x"]);
    check("/docs/text", &[], &[], &["text"]);
    check("/docs", &["x", "nothing"], &[], &["deep/er/x", "nothing"]);
    check("/docs", &[], &["deep", "n*"], &["text"]);
    check("/empty", &[], &[], &[]);
    // The other name of a hard link whose file was not chosen is a file of its own.
    check("/sp ace", &["again"], &[], &["again"]);
    check("/sp ace/again", &[], &[], &["again"]);
    let repository = bench.open();
    let target = tempfile::tempdir().unwrap();
    let gone = select(&repository, "latest:no/such/path");
    let result = snap_backup::ops::restore::restore(&repository, &gone, target.path(), &RestoreOptions::default(), &Silent);
    assert!(matches!(result, Err(Error::NotFound(_))));
    assert!(matches!(read(&repository, "latest"), Err(Error::Usage(_))), "more than one file cannot be dumped");
    assert!(matches!(read(&repository, &format!("{}/docs", inside(folder.path()))), Err(Error::Usage(_))));
    let noise_again = read(&repository, &format!("{}/sp ace/again", inside(folder.path()))).unwrap();
    assert_eq!(noise_again, noise(20, 70_000));
    let sparse = read(&repository, &format!("{}/sparse", inside(folder.path()))).unwrap();
    assert!(sparse == fs::read(folder.path().join("sparse")).unwrap());
}

#[test]
fn what_is_there_is_overwritten_as_asked() {
    let (bench, _) = Bench::in_memory(1);
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [("same", "same"), ("other", "right"), ("sly", "right"), ("missing", "right")] {
        fs::write(folder.path().join(name), bytes).unwrap();
        set_mtime(&folder.path().join(name), 1_000_000, 0);
    }
    save_tree(&bench.open(), folder.path(), &options()).unwrap();
    let check = |overwrite, expected: [&str; 4], counts: (u64, u64, u64)| {
        let target = tempfile::tempdir().unwrap();
        for (name, bytes, time) in [("same", "same", 5), ("other", "a longer one", 5), ("sly", "wrong", 1_000_000), ("foreign", "left", 5)]
        {
            fs::write(target.path().join(name), bytes).unwrap();
            set_mtime(&target.path().join(name), time, 0);
        }
        let options = RestoreOptions { overwrite, ..RestoreOptions::default() };
        let (report, problems) = restore_to(&bench.open(), &inside(folder.path()), target.path(), &options);
        assert_eq!(problems, []);
        let names = ["same", "other", "sly", "missing"];
        assert_eq!(names.map(|name| fs::read_to_string(target.path().join(name)).unwrap()), expected, "{overwrite:?}");
        assert_eq!(fs::read_to_string(target.path().join("foreign")).unwrap(), "left");
        assert_eq!((report.files_restored, report.files_unchanged, report.files_skipped), counts, "{overwrite:?}");
    };
    check(Overwrite::Always, ["same", "right", "right", "right"], (3, 1, 0));
    check(Overwrite::IfChanged, ["same", "right", "wrong", "right"], (2, 2, 0));
    check(Overwrite::Never, ["same", "a longer one", "wrong", "right"], (1, 0, 3));
}

/// Restoring over an older state: kinds change places, links are not followed.
#[test]
fn kinds_that_changed_are_replaced() {
    let (bench, _) = Bench::in_memory(1);
    let folder = scene();
    save_tree(&bench.open(), folder.path(), &options()).unwrap();
    let place = tempfile::tempdir().unwrap();
    let (target, outside) = (place.path().join("t"), place.path().join("outside"));
    fs::create_dir_all(&target).unwrap();
    fs::create_dir_all(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, target.join("empty")).unwrap();
    std::os::unix::fs::symlink(&outside, target.join("docs-not")).unwrap();
    fs::write(target.join("broken"), b"a file where a link should be").unwrap();
    fs::write(target.join("fifo"), b"a file where a fifo should be").unwrap();
    let (_, problems) = restore_to(&bench.open(), &inside(folder.path()), &target, &RestoreOptions::default());
    assert!(fs::read_dir(&outside).unwrap().next().is_none(), "nothing is written through a link");
    assert!(fs::symlink_metadata(target.join("docs-not")).unwrap().is_file());
    assert_eq!(fs::read_link(target.join("broken")).unwrap(), Path::new("no where\n"));
    println!("{problems:?}");
}
