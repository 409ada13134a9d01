//! What a folder has beyond what every store promises: temporary and foreign files, a full or read-only medium,
//! and folders that are made half-way.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::super::{Area, Backend, Place};
use super::{Local, kind_of, shards, top_folders};
use crate::error::StorageErrorKind;
use crate::id::{ObjectName, SlotId};

fn pack(number: u8) -> Place {
    Place::pack(ObjectName([number; 32]))
}

fn made(root: &Path) -> Local {
    let store = Local::new(root.to_path_buf());
    store.create_areas().unwrap();
    store
}

fn names_in(folder: impl AsRef<Path>) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn no_temporary_file_remains_and_only_the_owner_may_look() {
    for make in [Local::new, Local::without_rename] {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("repository");
        let store = make(root.clone());
        store.create_areas().unwrap();
        store.put(&pack(1), b"one").unwrap();
        store.put(&pack(1), b"two").unwrap_err();
        assert_eq!(names_in(root.join("tmp")), [""; 0]);
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(root.join(pack(1).path())), 0o600);
        assert_eq!(fs::metadata(root.join(pack(1).path())).unwrap().nlink(), 1);
        for folder in ["", "packs", "packs/00", "packs/ff", "keys", "index", "snapshots", "records", "tmp"] {
            assert_eq!(mode(root.join(folder)), 0o700, "{folder}");
        }
        assert_eq!(names_in(root.join("packs")).len(), 256);
    }
}

#[test]
fn foreign_files_are_left_out_of_listings_and_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let store = made(root.path());
    let at = |path: &str| root.path().join(path);
    let name = pack(0xab).name;
    let foreign = [
        "README".into(),
        "manifest.bak".into(),
        format!("keys/{name}"),
        format!("packs/{name}"),
        format!("packs/00/{name}"),
        format!("packs/ab/{}", name.to_uppercase()),
        format!("packs/ab/{name}.tmp"),
        format!("packs/ab/{}", &name[1..]),
        "packs/ab/.nfs0001".into(),
        format!("snapshots/{}", SlotId([1; 16]).hex()),
        "tmp/00112233445566778899aabbccddeeff.tmp".into(),
    ];
    for path in &foreign {
        fs::write(at(path), b"foreign").unwrap();
    }
    fs::create_dir(at(&format!("packs/cd/{}", pack(0xcd).name))).unwrap();
    symlink("/etc/hostname", at(&format!("packs/ef/{}", pack(0xef).name))).unwrap();
    for area in Area::ALL {
        assert_eq!(store.list(area).unwrap(), [], "{area:?}");
        assert!(store.list_names(area).unwrap().is_empty(), "{area:?}");
    }
    store.put(&pack(0xab), b"ours").unwrap();
    assert_eq!(store.list(Area::Packs).unwrap().len(), 1);
    for path in &foreign {
        assert_eq!(fs::read(at(path)).unwrap(), b"foreign");
    }
}

#[test]
fn only_regular_files_are_read_and_links_are_not_followed() {
    let root = tempfile::tempdir().unwrap();
    let store = made(root.path());
    let at = |number: u8| root.path().join(pack(number).path());
    symlink("/etc/hostname", at(1)).unwrap();
    fs::create_dir(at(2)).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, at(3), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    for number in 1..=3 {
        assert_eq!(store.get(&pack(number), 100).unwrap_err().kind, StorageErrorKind::Other, "{number}");
        store.read_at(&pack(number), 0, &mut [0]).unwrap_err();
        assert_eq!(store.put(&pack(number), b"new").unwrap_err().kind, StorageErrorKind::Exists);
    }
}

#[test]
fn a_missing_folder_is_damage_and_not_an_empty_list() {
    let root = tempfile::tempdir().unwrap();
    let store = made(root.path());
    fs::remove_dir(root.path().join("packs/7f")).unwrap();
    let error = store.list(Area::Packs).unwrap_err();
    assert_eq!((error.kind, error.source.to_string().contains("packs/7f")), (StorageErrorKind::Other, true), "{}", error.source);
    let error = store.put(&pack(0x7f), b"new").unwrap_err();
    assert_eq!((error.kind, error.source.to_string().contains("packs/7f")), (StorageErrorKind::Other, true), "{}", error.source);
    assert_eq!(names_in(root.path().join("tmp")), [""; 0]);
    fs::remove_dir_all(root.path().join("packs")).unwrap();
    fs::remove_dir(root.path().join("snapshots")).unwrap();
    for area in [Area::Packs, Area::Snapshots] {
        let error = store.list(area).unwrap_err();
        assert_eq!((error.kind, error.to_string().contains(area.folder())), (StorageErrorKind::NotFound, true), "{error}");
        assert_eq!(store.list_names(area).unwrap_err().kind, StorageErrorKind::NotFound);
    }
}

/// Packs stay open for ranges; listings and whole reads must still say what is on the medium.
#[test]
fn packs_kept_open_do_not_hide_what_others_do() {
    let root = tempfile::tempdir().unwrap();
    let (store, other) = (made(root.path()), Local::new(root.path().to_path_buf()));
    let read = || {
        let mut buffer = [0; 3];
        store.read_at(&pack(1), 0, &mut buffer).map(|()| buffer)
    };
    store.put(&pack(1), b"one").unwrap();
    read().unwrap();
    other.delete(&pack(1)).unwrap();
    assert_eq!(store.list(Area::Packs).unwrap(), []);
    assert_eq!(store.get(&pack(1), 3).unwrap_err().kind, StorageErrorKind::NotFound);
    other.put(&pack(1), b"longer").unwrap();
    assert_eq!(store.get(&pack(1), 9).unwrap(), b"longer");
    store.forget_cached(&pack(1));
    assert_eq!(&read().unwrap(), b"lon");

    for number in 2..200 {
        store.put(&pack(number), b"three").unwrap();
        store.read_at(&pack(number), 0, &mut [0]).unwrap();
    }
    assert_eq!(store.open_packs().len(), 64);
}

#[test]
fn a_file_that_shrinks_is_short() {
    let root = tempfile::tempdir().unwrap();
    let store = made(root.path());
    store.put(&pack(1), &[7; 5000]).unwrap();
    let mut buffer = vec![0; 5000];
    store.read_at(&pack(1), 0, &mut buffer).unwrap();
    fs::OpenOptions::new().write(true).open(root.path().join(pack(1).path())).unwrap().set_len(4000).unwrap();
    let error = store.read_at(&pack(1), 0, &mut buffer).unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Short);
    assert_eq!(store.get(&pack(1), 5000).unwrap().len(), 4000);
}

#[test]
fn a_folder_that_cannot_be_settled_is_named() {
    let root = tempfile::tempdir().unwrap();
    let store = made(root.path());
    store.settle(Area::Packs).unwrap();
    fs::remove_dir(root.path().join("packs/7f")).unwrap();
    let error = store.settle(Area::Packs).unwrap_err();
    assert!(error.to_string().contains("folder packs/7f"), "{error}");
    store.settle(Area::Snapshots).unwrap();
}

#[test]
fn areas_are_made_again_after_any_crash_half_way() {
    let order: Vec<String> = top_folders().map(String::from).chain(shards().map(|shard| format!("packs/{shard}"))).collect();
    let parent = tempfile::tempdir().unwrap();
    for made_before in [0, 1, 3, 6, 7, 100, order.len()] {
        let root = parent.path().join(made_before.to_string());
        fs::create_dir(&root).unwrap();
        for folder in &order[..made_before] {
            fs::create_dir(root.join(folder)).unwrap();
        }
        let store = made(&root);
        store.put(&pack(0xff), b"pack").unwrap();
        assert_eq!(names_in(&root), ["index", "keys", "packs", "records", "snapshots", "tmp"]);
    }
}

#[test]
fn a_folder_with_anything_else_in_it_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    for (number, strange) in
        ["notes.txt", "manifest", "packs/zz", "packs/00/x", "index/x", "snapshots/x", "records/x"].into_iter().enumerate()
    {
        let root = parent.path().join(number.to_string());
        fs::create_dir_all(root.join(strange).parent().unwrap()).unwrap();
        fs::write(root.join(strange), b"").unwrap();
        let error = Local::new(root.clone()).create_areas().unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Exists);
        assert_eq!(error.source.to_string(), format!("the folder is not empty: it holds {strange}"));
        assert!(!root.join("tmp").exists(), "nothing was made in it");
    }
    fs::write(parent.path().join("file"), b"").unwrap();
    Local::new(parent.path().join("file")).create_areas().unwrap_err();
    let error = Local::new(parent.path().join("no/such")).create_areas().unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Other, "a disk that is not mounted is not made up for");
    assert!(error.source.to_string().contains("/no does not exist; make it, or mount what belongs there"), "{}", error.source);
}

#[test]
fn errors_of_the_system_are_told_apart() {
    use rustix::io::Errno;
    for (errno, kind) in [
        (Errno::NOENT, StorageErrorKind::NotFound),
        (Errno::EXIST, StorageErrorKind::Exists),
        (Errno::ACCESS, StorageErrorKind::Denied),
        (Errno::PERM, StorageErrorKind::Denied),
        (Errno::ROFS, StorageErrorKind::Denied),
        (Errno::NOSPC, StorageErrorKind::Full),
        (Errno::DQUOT, StorageErrorKind::Full),
        (Errno::FBIG, StorageErrorKind::Full),
        (Errno::AGAIN, StorageErrorKind::Transient),
        (Errno::TIMEDOUT, StorageErrorKind::Transient),
        (Errno::STALE, StorageErrorKind::Transient),
        (Errno::IO, StorageErrorKind::Other),
    ] {
        assert_eq!(kind_of(&errno.into()), kind, "{errno}");
    }
}

/// A file system of its own that is unmounted at the end; none where this user or machine cannot mount.
struct Mounted {
    folder: tempfile::TempDir,
}

impl Mounted {
    fn tmpfs(options: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let status = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", options, "snap-test"]).arg(folder.path()).status();
        if status.is_ok_and(|status| status.success()) {
            return Some(Self { folder });
        }
        // Past the test harness, which keeps what a passing test prints to itself.
        let _ = std::io::stderr().write_all(b"SKIPPED: cannot mount a tmpfs here, so a full or read-only medium is not tested\n");
        None
    }

    fn remount(&self, options: &str) {
        let status = std::process::Command::new("mount").args(["-o", options]).arg(self.folder.path()).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}

#[test]
fn a_full_medium_says_so_leaves_nothing_and_works_again_with_space() {
    let Some(disk) = Mounted::tmpfs("size=2m") else { return };
    let root = disk.folder.path().join("repository");
    let store = made(&root);
    store.put(&pack(1), &[1; 1 << 20]).unwrap();
    assert_eq!(store.put(&pack(2), &[2; 2 << 20]).unwrap_err().kind, StorageErrorKind::Full);
    assert_eq!(names_in(root.join("tmp")), [""; 0]);
    assert_eq!(store.list(Area::Packs).unwrap().len(), 1);
    store.put(&pack(3), &[3; 1000]).expect("the space of the failed one is free again");
    store.delete(&pack(1)).expect("deleting needs no space");
    store.put(&pack(2), &[2; 3 << 19]).unwrap();
}

#[test]
fn a_read_only_medium_denies_writes_and_serves_reads() {
    let Some(disk) = Mounted::tmpfs("size=2m") else { return };
    let store = made(&disk.folder.path().join("repository"));
    store.put(&pack(1), b"one").unwrap();
    disk.remount("remount,ro");
    assert_eq!(store.put(&pack(2), b"two").unwrap_err().kind, StorageErrorKind::Denied);
    assert_eq!(store.delete(&pack(1)).unwrap_err().kind, StorageErrorKind::Denied);
    assert_eq!(Local::new(disk.folder.path().join("new")).create_areas().unwrap_err().kind, StorageErrorKind::Denied);
    assert_eq!(store.get(&pack(1), 3).unwrap(), b"one");
    disk.remount("remount,rw");
    store.put(&pack(2), b"two").unwrap();
}
