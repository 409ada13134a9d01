//! The same bytes give the same recipe, however they arrive: slab sizes and threads decide nothing. The same tree comes back.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use snap_backup::format::content::Content;
use snap_backup::format::entry::{Entry, Node};
use snap_backup::format::recipe::Recipe;
use snap_backup::ops::backup::{BackupOptions, Input, backup};
use snap_backup::ops::browse;
use snap_backup::ops::restore::RestoreOptions;
use snap_backup::progress::Silent;

use crate::support::*;

/// What a snapshot refers to: the recipe of its catalog, and that of its first file.
#[derive(Debug, PartialEq)]
struct Outcome {
    catalog: Recipe,
    content: Option<Content>,
    stored: u64,
}

/// Backs up versions of a stream into a repository with fixed keys.
fn outcomes(versions: &[Vec<u8>], slab_bytes: usize, threads: usize) -> Vec<Outcome> {
    let (bench, _) = Bench::in_memory(99);
    let options = BackupOptions { slab_bytes, threads, allow_empty: true, ..options() };
    let one = |bytes: &Vec<u8>| {
        let repository = bench.open();
        // The catalog holds the time of the stream, so that must not differ either.
        let options = BackupOptions { time: Some(jiff::Timestamp::from_second(FAR).unwrap()), ..copy(&options) };
        let report = save(&repository, bytes, &options).unwrap();
        assert!(bench.dump(&report.snapshot.unwrap().hex()).unwrap() == *bytes);
        let stored = repository.snapshot(report.snapshot.unwrap()).unwrap();
        let selection = snap_backup::repo::Selection { stored, path: Vec::new() };
        let mut content = None;
        let each = &mut |entry: &Entry| {
            if let Node::File { content: found } = &entry.node {
                content = found.clone();
            }
            Ok(())
        };
        browse::list(&repository, &selection, true, each).unwrap();
        Outcome { catalog: selection.stored.snapshot.catalog.0, content, stored: report.totals.bytes_new }
    };
    versions.iter().map(one).collect()
}

fn copy(options: &BackupOptions) -> BackupOptions {
    BackupOptions {
        slab_bytes: options.slab_bytes,
        threads: options.threads,
        allow_empty: options.allow_empty,
        ..BackupOptions::new(options.host.clone())
    }
}

/// Some bytes, and versions of them that were edited, shuffled and cut.
fn history(random: &mut Rng) -> Vec<Vec<u8>> {
    let len = match random.below(4) {
        0 => random.below(10_000),
        1 => random.below(300_000),
        _ => random.below(3_000_000),
    } as usize;
    let seed = random.next();
    let mut bytes = match random.below(4) {
        0 => noise(seed, len),
        1 => vec![0; len],
        2 => [noise(seed, len / 2), vec![7; len / 4], lines(seed, len / 4)].concat(),
        _ => lines(seed, len),
    };
    let mut versions = vec![bytes.clone()];
    for _ in 0..1 + random.below(3) {
        for _ in 0..1 + random.below(4) {
            let at = random.below(bytes.len() as u64 + 1) as usize;
            let take = (random.below(60_000) as usize).min(bytes.len() - at);
            let seed = random.next();
            match random.below(5) {
                0 => drop(bytes.drain(at..at + take)),
                1 => drop(bytes.splice(at..at, noise(seed, take))),
                2 => drop(bytes.splice(at..at + take, lines(seed, take / 2))),
                3 => bytes.rotate_left(at),
                _ => bytes.extend_from_within(at..at + take),
            }
        }
        versions.push(bytes.clone());
    }
    versions
}

#[test]
fn slabs_and_threads_decide_nothing() {
    let seed = seed("slabs_and_threads_decide_nothing");
    let mut random = Rng::new(seed);
    for round in 0..12 {
        let versions = history(&mut random);
        let lens: Vec<usize> = versions.iter().map(Vec::len).collect();
        let expected = outcomes(&versions, 4 << 20, 1);
        for _ in 0..3 {
            let slab_bytes = match random.below(3) {
                0 => 4096 + random.below(4096),
                1 => 100_000 + random.below(100_000),
                _ => 4096 << random.below(11),
            } as usize;
            let threads = 1 + random.below(4) as usize;
            let found = outcomes(&versions, slab_bytes, threads);
            assert!(
                found == expected,
                "round {round}: slabs of {slab_bytes}, {threads} threads, versions of {lens:?}: {found:?}\n\n{expected:?}"
            );
        }
    }
}

#[test]
fn a_tree_gives_one_catalog_whatever_the_slabs() {
    let seed = seed("a_tree_gives_one_catalog_whatever_the_slabs");
    let mut random = Rng::new(seed);
    for _ in 0..3 {
        let folder = random_tree(&mut random, 40);
        let catalog = |slab_bytes, threads| {
            let (bench, _) = Bench::in_memory(99);
            let options = BackupOptions { slab_bytes, threads, ..options() };
            save_tree(&bench.open(), folder.path(), &options).unwrap();
            let repository = bench.open();
            let selection = select(&repository, "latest");
            let mut entries = Vec::new();
            let each = &mut |entry: &Entry| {
                // Not the folder of temporary folders, which other tests change.
                if entry.path.starts_with(&folder.path().as_os_str().as_bytes()[1..]) {
                    entries.push(entry.clone());
                }
                Ok(())
            };
            browse::list(&repository, &selection, true, each).unwrap();
            entries
        };
        let expected = catalog(4 << 20, 1);
        for slab_bytes in [4096, 10_000 + random.below(1000) as usize, 1 << 20] {
            let found = catalog(slab_bytes, 1 + random.below(4) as usize);
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(found, expected, "slabs of {slab_bytes}");
            }
        }
    }
}

#[test]
fn any_tree_comes_back() {
    let seed = seed("any_tree_comes_back");
    let mut random = Rng::new(seed);
    for _ in 0..6 {
        let (bench, _) = Bench::in_memory(random.next() >> 1);
        let folder = random_tree(&mut random, 60);
        for _ in 0..2 {
            let slab_bytes = 4096 << random.below(8);
            let options = BackupOptions { slab_bytes, ..options() };
            save_tree(&bench.open(), folder.path(), &options).unwrap();
            let target = tempfile::tempdir().unwrap();
            let which = format!("latest:{}", folder.path().display());
            let (_, problems) =
                restore_to(&bench.open(), &which, target.path(), &RestoreOptions { verify: true, ..RestoreOptions::default() });
            assert_eq!(problems, []);
            assert_eq!(describe(target.path()), describe(folder.path()));
            change(&mut random, folder.path());
        }
        assert_clean(&bench.open());
    }
}

/// Names that have been trouble somewhere.
const NAMES: &[&[u8]] = &[
    b"a",
    b"b",
    b"A",
    b"a.b",
    b"a-b",
    b"a b",
    b" ",
    b"...",
    b".a",
    b"-",
    b"--help",
    b"~",
    b"*",
    b"\\",
    b"'",
    b"\"",
    b"\n",
    b"\x01",
    b"\x7f",
    b"\xc3\xa9",
    b"e\xcc\x81",
    b"\xff",
    b"\xed\xa0\x80",
    b"%2F",
    b"CON",
    b"latest",
    b"x:y",
    b"#",
    b"0",
];

fn random_name(random: &mut Rng) -> Vec<u8> {
    let mut name = NAMES[random.below(NAMES.len() as u64) as usize].to_vec();
    if random.below(3) == 0 {
        name.extend_from_slice(NAMES[random.below(NAMES.len() as u64) as usize]);
    }
    name
}

fn random_tree(random: &mut Rng, count: usize) -> tempfile::TempDir {
    let top = tempfile::tempdir().unwrap();
    let mut folders = vec![top.path().to_path_buf()];
    let mut files: Vec<PathBuf> = Vec::new();
    let mut made: BTreeSet<PathBuf> = BTreeSet::new();
    for _ in 0..count {
        let folder = folders[random.below(folders.len() as u64) as usize].clone();
        let path = folder.join(std::ffi::OsStr::from_bytes(&random_name(random)));
        if !made.insert(path.clone()) {
            continue;
        }
        match random.below(12) {
            0..=2 => {
                fs::create_dir(&path).unwrap();
                folders.push(path.clone());
            }
            3 => std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(&random_name(random)), &path).unwrap(),
            4 if !files.is_empty() => fs::hard_link(&files[random.below(files.len() as u64) as usize], &path).unwrap(),
            5 => fs::File::create(&path).unwrap().set_len(random.below(2_000_000)).unwrap(),
            _ => {
                fs::write(&path, random_bytes(random)).unwrap();
                files.push(path.clone());
            }
        }
        if !path.is_symlink() && !path.is_dir() {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o400 | random.below(0o1000) as u32)).unwrap();
        }
        set_mtime(&path, random.below(4_000_000_000) as i64 - 1_000_000_000, random.below(1_000_000_000) as i64);
    }
    top
}

fn random_bytes(random: &mut Rng) -> Vec<u8> {
    let len = match random.below(6) {
        0 => 0,
        1 => random.below(200_000),
        _ => random.below(5000),
    } as usize;
    let seed = random.below(20);
    if random.below(2) == 0 { noise(seed, len) } else { lines(seed, len) }
}

/// Some files get other bytes, some go, some are new.
fn change(random: &mut Rng, folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stat = fs::symlink_metadata(&path).unwrap();
        match random.below(4) {
            0 if stat.is_file() => fs::write(&path, random_bytes(random)).unwrap(),
            1 if !stat.is_dir() => fs::remove_file(&path).unwrap(),
            _ if stat.is_dir() => change(random, &path),
            _ => {}
        }
    }
    fs::write(folder.join("new"), random_bytes(random)).unwrap();
}

/// The first run cuts while the second follows what it expects: both find the same chunks.
#[test]
fn a_second_run_refers_to_what_the_first_stored() {
    let seed = seed("a_second_run_refers_to_what_the_first_stored");
    let mut random = Rng::new(seed);
    for _ in 0..6 {
        let versions = history(&mut random);
        let (bench, _) = Bench::in_memory(5);
        for bytes in versions.iter().filter(|bytes| !bytes.is_empty()) {
            bench.save(bytes);
            let input = Input::Reader { name: "db".into(), reader: Box::new(Trickle(bytes.clone(), 0, random.next())) };
            let again = backup(&bench.open(), input, &options(), &Silent).unwrap();
            assert_eq!((again.totals.bytes_new, again.unchanged), (0, true), "{} bytes", bytes.len());
        }
        assert_clean(&bench.open());
    }
}

/// Gives as many bytes at a time as it likes, like a pipe.
struct Trickle(Vec<u8>, usize, u64);

impl std::io::Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.2 = Rng::new(self.2).next();
        let len = (1 + self.2 as usize % 70_000).min(buffer.len()).min(self.0.len() - self.1);
        buffer[..len].copy_from_slice(&self.0[self.1..self.1 + len]);
        self.1 += len;
        Ok(len)
    }
}
