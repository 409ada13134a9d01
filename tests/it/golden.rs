//! A repository that an earlier build wrote must stay readable, and of use. `v1` is of snap 0.1.0, whose packs and segments have their
//! lists of frames in the first layout; `v2` has them in columns. `cargo test golden_write -- --ignored` writes the newest anew, which
//! only a change of the format's version may call for.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use snap_backup::backend::{Area, Backend, Listed, Local, Memory, Place};
use snap_backup::crypto::Secret;
use snap_backup::format::entry::{Entry, Node};
use snap_backup::id::SnapshotId;
use snap_backup::limits::LIST_VERSION;
use snap_backup::ops::backup::BackupOptions;
use snap_backup::ops::browse;
use snap_backup::ops::prune::prune;
use snap_backup::ops::repair::{Mode, repair_index};
use snap_backup::progress::Silent;
use snap_backup::repo::{Opening, Repository, Selection};

use crate::prune::{exclusive, forget};
use crate::support::*;

fn folder(version: u16) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/v{version}"))
}

/// What is committed besides the repository: the key, and a line for each file of each snapshot with its hash.
fn key(version: u16) -> Secret {
    Secret::KeyFile(fs::read(folder(version).join("key")).unwrap().trim_ascii().to_vec())
}

/// The committed files, in memory: empty folders are not kept by version control.
fn load(version: u16) -> (Memory, Repository) {
    let memory = Memory::new();
    memory.create_areas().unwrap();
    let mut count = 0;
    for (area, name, bytes) in files(&folder(version).join("repository")) {
        memory.insert(Place { area, name }, bytes);
        count += 1;
    }
    assert!(count > 5, "the golden repository is missing; git checkout tests/golden");
    let repository = open(&memory, version, 1);
    (memory, repository)
}

fn open(memory: &Memory, version: u16, seed: u64) -> Repository {
    let opening = Opening { secret: key(version), cache: None, world: world(seed, FAR + 86_400 * seed as i64) };
    Repository::open(Arc::new(memory.clone()), opening).unwrap()
}

fn files(top: &Path) -> Vec<(Area, String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![top.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let below = path.strip_prefix(top).unwrap().to_str().unwrap().to_owned();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let area = Area::ALL.into_iter().find(|area| Place { area: *area, name: name.clone() }.path() == below);
            found.push((area.unwrap_or_else(|| panic!("{below} is no place")), name, fs::read(&path).unwrap()));
        }
    }
    found
}

/// Every entry of every snapshot in a line.
fn contents(repository: &Repository) -> String {
    let mut text = String::new();
    for stored in repository.snapshots().unwrap().0 {
        let snapshot = &stored.snapshot;
        text.push_str(&format!("snapshot {} {} {} {} {:?}\n", stored.id, snapshot.time, snapshot.host, snapshot.name, snapshot.tags));
        let selection = Selection { stored, path: Vec::new() };
        let mut entries = Vec::new();
        let each = &mut |entry: &Entry| {
            entries.push(entry.clone());
            Ok(())
        };
        browse::list(repository, &selection, true, each).unwrap();
        for entry in entries {
            let path = entry.path.escape_ascii();
            let meta = &entry.meta;
            let what = match &entry.node {
                Node::File { .. } => {
                    let selection = Selection { path: entry.path.clone(), ..selection.clone() };
                    let mut bytes = Vec::new();
                    snap_backup::ops::dump::dump(repository, &selection, &mut bytes, &Silent).unwrap();
                    format!("{} {}", bytes.len(), blake3::hash(&bytes))
                }
                Node::Symlink { target } | Node::HardLink { target } => target.escape_ascii().to_string(),
                _ => String::new(),
            };
            text.push_str(&format!("{} {:o} {path} {what} {:?}\n", entry.node.letter(), meta.mode, meta.xattrs));
        }
    }
    text
}

#[test]
fn golden_reads() {
    for version in 1..=LIST_VERSION {
        let (memory, repository) = load(version);
        assert_clean(&repository);
        let expected = fs::read_to_string(folder(version).join("contents")).unwrap();
        assert_eq!(contents(&repository), expected);
        assert!(expected.lines().count() > 10);
        // The same bytes are found again: cutting, ids and keys are as they were.
        let bytes = stream();
        let repository = open(&memory, version, 8);
        let report = save(&repository, &bytes, &options()).unwrap();
        assert_eq!(report.totals.bytes_new, 0, "what was stored then is not found again");
        assert_eq!(read(&repository, "latest").unwrap(), bytes);
    }
}

/// Packs in which the list of frames is in each layout: first and second.
fn layouts(memory: &Memory) -> (usize, usize) {
    let packs = memory.list(Area::Packs).unwrap();
    let version = |listed: &Listed| memory.get(&Place { area: Area::Packs, name: listed.name.clone() }, u64::MAX).unwrap()[4];
    let old = packs.iter().filter(|listed| version(listed) == 1).count();
    (old, packs.len() - old)
}

#[test]
fn golden_lives_on() {
    let (memory, repository) = load(1);
    let (old, new) = layouts(&memory);
    assert!(old > 3 && new == 0);
    let expected = contents(&repository);
    // A difference to what lies in the old layout, beside it.
    let mut edited = stream();
    edited.splice(90_000..90_000, lines(104, 300));
    let report = save(&open(&memory, 1, 2), &edited, &options()).unwrap();
    assert!(report.cost.delta_frames > 0 && report.totals.bytes_new < edited.len() as u64);
    let (old, new) = layouts(&memory);
    assert!(old > 3 && new > 0);
    assert_clean(&open(&memory, 1, 3));
    assert_eq!(read(&open(&memory, 1, 3), "latest").unwrap(), edited);
    // Without segments, packs of both tell what they hold.
    for listed in memory.list(Area::Segments).unwrap() {
        memory.delete(&Place { area: Area::Segments, name: listed.name }).unwrap();
    }
    assert_eq!(read(&open(&memory, 1, 4), "latest").unwrap(), edited);
    repair_index(&open(&memory, 1, 5), Mode::Act, &Silent).unwrap();
    assert_clean(&open(&memory, 1, 5));
    // Of the streams only a part of the newest is kept: what it needs is moved, and the tree is as it was.
    let part = &edited[edited.len() / 3..][..edited.len() / 3];
    save(&open(&memory, 1, 6), part, &options()).unwrap();
    let snapshots: Vec<SnapshotId> = open(&memory, 1, 6).snapshots().unwrap().0.iter().map(|stored| stored.id).collect();
    let [first, second, _tree, third, _part] = snapshots[..] else { panic!("{snapshots:?}") };
    forget(&open(&memory, 1, 6), &[first, second, third]);
    let (old, new) = layouts(&memory);
    for seed in [7, 9] {
        prune(&open(&memory, 1, seed), &exclusive(), &Silent).unwrap();
    }
    let (left, made) = layouts(&memory);
    assert!(left > 0 && left < old && made > 0, "{left} of {old}, {made} and {new}");
    let repository = open(&memory, 1, 10);
    assert_clean(&repository);
    assert_eq!(read(&repository, "latest").unwrap(), part);
    let tree = &expected[expected.rfind("snapshot ").unwrap()..];
    assert!(contents(&repository).starts_with(tree));
}

fn stream() -> Vec<u8> {
    [noise(100, 20_000), lines(100, 60_000), vec![0; 300_000]].concat()
}

#[test]
#[ignore = "writes the golden repository anew"]
fn golden_write() {
    let golden = folder(LIST_VERSION);
    let _ = fs::remove_dir_all(&golden);
    fs::create_dir_all(&golden).unwrap();
    fs::write(golden.join("key"), format!("{}\n", "golden".repeat(8))).unwrap();
    let store = || Arc::new(Local::new(golden.join("repository")));
    Repository::create(store(), Opening { secret: key(LIST_VERSION), cache: None, world: world(7, 1_800_000_000) }, "golden").unwrap();
    let open = |number: u64| {
        let world = world(number, 1_800_000_000 + 86_400 * number as i64);
        Repository::open(store(), Opening { secret: key(LIST_VERSION), cache: None, world }).unwrap()
    };
    let mut edited = stream();
    edited.splice(50_000..50_000, lines(101, 200));
    edited[10] ^= 1;
    save(&open(11), &stream(), &options()).unwrap();
    let report = save(&open(12), &edited, &BackupOptions { tags: vec!["edited".into()], ..options() }).unwrap();
    assert!(report.cost.delta_frames > 0);
    let tree = tempfile::tempdir().unwrap();
    let at = |name: &str| tree.path().join(name);
    fs::create_dir_all(at("a/b")).unwrap();
    fs::write(at("a/b/file"), noise(102, 5000)).unwrap();
    fs::write(at("a/text"), lines(103, 5000)).unwrap();
    fs::write(at("empty"), b"").unwrap();
    fs::hard_link(at("a/text"), at("link")).unwrap();
    std::os::unix::fs::symlink("a/text", at("soft")).unwrap();
    let mut sparse = fs::File::create(at("sparse")).unwrap();
    std::io::Write::write_all(&mut sparse, b"head").unwrap();
    sparse.set_len(2 << 20).unwrap();
    let _ = xattr::set(at("empty"), "user.golden", b"\x00value");
    save_tree(&open(13), tree.path(), &options()).unwrap();
    // Empty folders cannot be committed anyway.
    fs::write(golden.join("contents"), contents(&open(14))).unwrap();
    let size: u64 = files(&golden.join("repository")).iter().map(|(_, _, bytes)| bytes.len() as u64).sum();
    assert!(size < 100_000, "{size} bytes");
}
