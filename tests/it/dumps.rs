//! Dumps through a whole backup: judged while they stream, marked in the snapshot, passed over by `latest`.

use std::fs;
use std::path::{Path, PathBuf};

use snap_backup::format::dump::{Dump, Verdict};
use snap_backup::ops::backup::{BackupOptions, backup};
use snap_backup::ops::judge::Expect;
use snap_backup::progress::Silent;
use snap_backup::repo::{Repository, SnapshotFilter};
use snap_backup::source::FilterRules;

use crate::support::*;

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples")
}

fn sample(name: &str) -> Vec<u8> {
    fs::read(samples().join(name)).unwrap()
}

/// The verdicts in the snapshot that `which` means.
fn verdicts(repository: &Repository, which: &str) -> Vec<(String, Verdict)> {
    let dumps = select(repository, which).stored.snapshot.dumps;
    dumps.into_iter().map(|dump| (dump.path.rsplit('/').next().unwrap().to_owned(), dump.verdict)).collect()
}

#[test]
fn a_dump_is_judged_whatever_the_slabs() {
    let (bench, _) = Bench::in_memory(1);
    let repository = bench.open();
    let bytes = sample("pg_dump.sql");
    let mut first: Option<Dump> = None;
    for slab_bytes in [1, 1000, 4 << 20] {
        for len in [bytes.len(), bytes.len() / 2] {
            let options = BackupOptions { slab_bytes: slab_bytes.max(64), ..options() };
            let report = save(&repository, &bytes[..len], &options).unwrap();
            let [dump] = &report.dumps[..] else { panic!("{:?}", report.dumps) };
            let stored = repository.snapshot(report.snapshot.unwrap()).unwrap().snapshot;
            assert_eq!((&stored.dumps, dump.bytes), (&report.dumps, len as u64));
            assert_eq!(stored.is_good(), len == bytes.len());
            if len == bytes.len() {
                assert_eq!((dump.verdict, dump.rows), (Verdict::Complete, Some(38)));
                assert_eq!(first.get_or_insert_with(|| dump.clone()), dump);
            }
        }
    }
}

#[test]
fn latest_passes_over_incomplete_dumps() {
    let (bench, _) = Bench::in_memory(2);
    let repository = bench.open();
    let bytes = sample("pg_dump.sql");
    let cut = save(&repository, &bytes[..9000], &options()).unwrap().snapshot.unwrap();
    let filter = SnapshotFilter::default();
    let error = repository.select("latest", &filter).unwrap_err().to_string();
    assert!(error.contains("No snapshot matches; one with an incomplete dump is passed over"), "{error}");
    let whole = save(&repository, &bytes, &options()).unwrap();
    // With nothing better, the next one is compared with an incomplete one.
    assert_eq!(whole.parent, Some(cut));
    let whole = whole.snapshot.unwrap();
    let cut_again = save(&repository, &bytes[..12_000], &options()).unwrap();
    let last = save(&repository, &bytes, &options()).unwrap();
    assert_eq!((cut_again.parent, last.parent, last.unchanged), (Some(whole), Some(whole), true));
    let id = |which: &str, filter: &SnapshotFilter| repository.select(which, filter).unwrap().stored.id;
    let all = SnapshotFilter { include_incomplete: true, ..SnapshotFilter::default() };
    assert_eq!((id("latest", &filter), id("latest~1", &filter)), (last.snapshot.unwrap(), whole));
    assert_eq!((id("latest~1", &all), id("latest~3", &all)), (cut_again.snapshot.unwrap(), cut));
    // Its id always reaches it, and what came is there.
    assert_eq!(read(&repository, &cut.hex()).unwrap(), &bytes[..9000]);
    assert_clean(&repository);
}

#[test]
fn what_a_stream_should_be_can_be_said() {
    let (bench, _) = Bench::in_memory(3);
    let repository = bench.open();
    let judge = |name: &str, expect: Expect| {
        let bytes = if name.is_empty() { b"ERROR: cannot connect".to_vec() } else { sample(name) };
        save(&repository, &bytes, &BackupOptions { expect, ..options() }).unwrap().dumps
    };
    let verdict = |name: &str, expected: &str| judge(name, Expect::Format(expected.into()))[0].verdict;
    assert_eq!(judge("", Expect::Anything), []);
    assert_eq!(verdict("", "pg_dump"), Verdict::Incomplete);
    assert_eq!(verdict("pg_dump.sql", "pg_dump"), Verdict::Complete);
    assert_eq!(verdict("pg_dump.custom", "pg_dump"), Verdict::Complete);
    assert_eq!(verdict("pg_dump.sql.gz", "pg_dump"), Verdict::Complete);
    assert_eq!(verdict("pg_dumpall.sql", "pg_dump"), Verdict::Incomplete);
    assert_eq!(verdict("redis.rdb", "mysqldump"), Verdict::Incomplete);
    assert_eq!(verdict("pg_dump.sql.xz", "pg_dump"), Verdict::Unknown);
    assert_eq!(judge("pg_dump.sql", Expect::Nothing), []);
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

#[test]
fn dumps_among_files_are_judged_and_remembered() {
    let (bench, _) = Bench::in_memory(4);
    let place = tempfile::tempdir().unwrap();
    let root = place.path();
    fs::create_dir(root.join("a")).unwrap();
    fs::write(root.join("a/whole.sql"), sample("pg_dump.sql")).unwrap();
    fs::write(root.join("a/cut.sql"), &sample("mariadb-dump.sql")[..3000]).unwrap();
    fs::write(root.join("a/notes.txt"), "-- nothing").unwrap();
    fs::write(root.join("b.sqlite.bak"), sample("sqlite.db")).unwrap();
    copy_folder(&samples().join("pg_dump.d"), &root.join("shop.d"));
    copy_folder(&samples().join("pg_dump-z0.d"), &root.join("shop0.d"));
    fs::remove_file(root.join("shop0.d/3358.dat")).unwrap();
    // A folder whose place is among its files, with another list.
    copy_folder(&samples().join("pg_dump-z0.d"), &root.join("shop.d/old"));
    let expected = [
        ("cut.sql", Verdict::Incomplete),
        ("whole.sql", Verdict::Complete),
        ("b.sqlite.bak", Verdict::Complete),
        ("toc.dat", Verdict::Complete),
        ("toc.dat", Verdict::Complete),
        ("toc.dat", Verdict::Incomplete),
    ]
    .map(|(name, verdict)| (name.to_owned(), verdict));
    save_tree(&bench.open(), root, &options()).unwrap();
    let repository = bench.open();
    assert_eq!(verdicts(&repository, "latest"), expected);
    let snapshot = select(&repository, "latest").stored.snapshot;
    assert!(snapshot.is_good() && !snapshot.is_complete());

    // Nothing is read the second time, and nothing forgotten.
    assert_eq!(bytes_read(&bench.open(), root, &options()), 0);
    let repository = bench.open();
    assert_eq!(verdicts(&repository, "latest"), expected);
    assert_eq!(select(&repository, "latest").stored.snapshot.dumps, snapshot.dumps);

    // A file that vanishes from a folder whose list is as before.
    fs::remove_file(root.join("shop.d/3357.dat.gz")).unwrap();
    fs::write(root.join("b.sqlite.bak-journal"), "x").unwrap();
    save_tree(&bench.open(), root, &options()).unwrap();
    let verdicts = verdicts(&bench.open(), "latest");
    let changed = [("b.sqlite.bak", Verdict::Unknown), ("toc.dat", Verdict::Complete), ("toc.dat", Verdict::Unknown)];
    assert_eq!(verdicts[2..5], changed.map(|(name, verdict)| (name.to_owned(), verdict)));

    let without = BackupOptions { expect: Expect::Nothing, ..options() };
    assert_eq!(save_tree(&bench.open(), root, &without).unwrap().dumps, []);
}

#[test]
fn files_with_holes_are_not_judged() {
    let (bench, _) = Bench::in_memory(5);
    let place = tempfile::tempdir().unwrap();
    let file = fs::File::create(place.path().join("a.sql")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &sample("pg_dump.sql")[..5000], 0).unwrap();
    file.set_len(10 << 20).unwrap();
    let report = backup(&bench.open(), tree(&[place.path()], FilterRules::default()), &options(), &Silent).unwrap();
    assert_eq!(report.dumps, []);
}

#[test]
fn snapshots_without_dumps_are_as_before() {
    let (bench, _) = Bench::in_memory(6);
    bench.save(b"just bytes");
    let text = String::from_utf8(select(&bench.open(), "latest").stored.snapshot.encode()).unwrap();
    assert!(!text.contains("dumps"), "{text}");
}
