//! What a target keeps of what it is given, and what it never does. Each case runs with both ways of walking.

mod hostile;
mod metadata;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::beneath::{Beneath, Walk};
use super::*;
use crate::error::Error;
use crate::format::entry::{Meta, Node, Time};
use crate::progress::Problem;
use crate::world::World;

const WALKS: [Walk; 2] = [Walk::Kernel, Walk::Names];

/// A temporary place with the target in `t` and something that must not be touched beside it.
struct Scene {
    place: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("t")).unwrap();
        fs::create_dir_all(place.path().join("outside/sub")).unwrap();
        fs::write(place.path().join("outside/secret"), "secret").unwrap();
        Self { place }
    }

    fn at(&self, path: impl AsRef<OsStr>) -> PathBuf {
        self.place.path().join("t").join(path.as_ref())
    }

    fn outside(&self) -> PathBuf {
        self.place.path().join("outside")
    }

    fn target(&self, walk: Walk) -> TreeTarget {
        self.target_with(walk, TargetOptions::for_this_process())
    }

    fn target_with(&self, walk: Walk, options: TargetOptions) -> TreeTarget {
        TreeTarget::new(Beneath::open(&self.at("")).unwrap().walking(walk), options, &World::system())
    }

    fn assert_outside_untouched(&self) {
        let mut names: Vec<_> = fs::read_dir(self.outside()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["secret", "sub"]);
        assert_eq!(fs::read_dir(self.outside().join("sub")).unwrap().count(), 0);
        assert_eq!(fs::read(self.outside().join("secret")).unwrap(), b"secret");
    }

    /// No temporary name is left anywhere.
    fn assert_clean(&self) {
        let mut folders = vec![self.at("")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap()) {
                assert!(!entry.file_name().as_bytes().starts_with(b".snap-restore-"), "{:?}", entry.path());
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                }
            }
        }
    }
}

fn meta(mode: u32) -> Meta {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Meta { mode, uid, gid, mtime: Time { seconds: 1_000_000_000, nanos: 123_456_789 }, ..Meta::default() }
}

fn write(target: &TreeTarget, path: &[u8], bytes: &[u8], meta: &Meta) -> crate::error::Result<()> {
    let file = target.create(path, bytes.len() as u64)?;
    file.write_at(0, bytes)?;
    file.commit(meta)
}

/// The whole message, with its cause.
fn message(error: &Error) -> String {
    format!("{error}: {}", std::error::Error::source(error).map(ToString::to_string).unwrap_or_default())
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: this test needs root");
    }
    root
}

/// Runs as a user without privileges, on a thread of its own.
fn as_nobody(act: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let (uid, gid) = (rustix::fs::Uid::from_raw(65534), rustix::fs::Gid::from_raw(65534));
            rustix::thread::set_thread_groups(&[gid]).unwrap();
            rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            act();
        });
        thread.join().unwrap();
    });
}

#[test]
fn every_kind_comes_back() {
    for walk in WALKS {
        let scene = Scene::new();
        let target = scene.target(walk);
        target.folder(b"d", &meta(0o1750)).unwrap();
        write(&target, b"d/file", b"content", &meta(0o640)).unwrap();
        write(&target, b"d/empty", b"", &meta(0o444)).unwrap();
        target.symlink(b"d/link", b"../nowhere", &meta(0o777)).unwrap();
        target.hard_link(b"d/other", b"d/file").unwrap();
        target.special(b"d/fifo", &Node::Fifo, &meta(0o606)).unwrap();
        target.special(b"d/socket", &Node::Socket, &meta(0o700)).unwrap();
        // Not described by anybody.
        write(&target, b"x/y/file", b"deep", &meta(0o600)).unwrap();
        assert_eq!(fs::metadata(scene.at("d")).unwrap().mode() & 0o7777, 0o700, "closed until the end");
        assert_eq!(target.finish().unwrap(), []);

        let stat = |path: &str| fs::symlink_metadata(scene.at(path)).unwrap();
        for (path, mode) in
            [("d", 0o1750), ("d/file", 0o640), ("d/empty", 0o444), ("d/link", 0o777), ("d/fifo", 0o606), ("d/socket", 0o700)]
        {
            assert_eq!(stat(path).mode() & 0o7777, mode, "{path}");
            assert_eq!((stat(path).mtime(), stat(path).mtime_nsec()), (1_000_000_000, 123_456_789), "{path}");
        }
        assert_eq!(fs::read(scene.at("d/other")).unwrap(), b"content");
        assert_eq!(stat("d/other").ino(), stat("d/file").ino());
        assert_eq!(fs::read_link(scene.at("d/link")).unwrap(), Path::new("../nowhere"));
        assert!(stat("d/fifo").file_type().is_fifo() && stat("d/socket").file_type().is_socket());
        assert_eq!((stat("x").mode() & 0o7777, stat("x/y").mode() & 0o7777), (0o755, 0o755));
        assert_eq!(fs::read(scene.at("x/y/file")).unwrap(), b"deep");
        scene.assert_clean();
    }
}

#[test]
fn what_stands_there_is_found_and_replaced() {
    for walk in WALKS {
        let scene = Scene::new();
        let target = scene.target(walk);
        fs::write(scene.at("file"), "old").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", scene.at("link")).unwrap();
        fs::create_dir(scene.at("folder")).unwrap();
        target.special(b"fifo", &Node::Fifo, &meta(0o600)).unwrap();

        assert!(matches!(target.find(b"file").unwrap(), Some(Found::File { size: 3, links: 1, .. })));
        assert_eq!(target.find(b"link").unwrap(), Some(Found::Symlink));
        assert_eq!(target.find(b"folder").unwrap(), Some(Found::Folder));
        assert_eq!(target.find(b"fifo").unwrap(), Some(Found::Other));
        assert_eq!(target.find(b"none").unwrap(), None);
        assert_eq!(target.find(b"none/such").unwrap(), None);
        assert_eq!(std::io::read_to_string(target.open_existing(b"file").unwrap()).unwrap(), "old");
        for path in ["link", "folder", "fifo", "none"] {
            assert!(target.open_existing(path.as_bytes()).is_err(), "{path}");
        }

        for path in ["file", "link", "fifo"] {
            write(&target, path.as_bytes(), b"new", &meta(0o600)).unwrap();
            assert!(fs::symlink_metadata(scene.at(path)).unwrap().is_file());
            assert_eq!(fs::read(scene.at(path)).unwrap(), b"new");
        }
        let error = write(&target, b"folder", b"new", &meta(0o600)).unwrap_err();
        assert_eq!(message(&error), format!("Cannot replace {}: is a folder", scene.at("folder").display()));
        assert!(target.symlink(b"folder", b"x", &meta(0o777)).is_err());

        // A second name twice over: the kernel's rename does nothing then.
        target.hard_link(b"second", b"file").unwrap();
        target.hard_link(b"second", b"file").unwrap();
        assert_eq!(fs::metadata(scene.at("file")).unwrap().nlink(), 2);
        target.finish().unwrap();
        scene.assert_clean();
    }
}

#[test]
fn what_stands_where_a_folder_belongs_is_replaced_only_if_asked() {
    for walk in WALKS {
        let scene = Scene::new();
        let place = |name: &str| std::os::unix::fs::symlink(scene.outside(), scene.at(name)).unwrap();
        place("link");
        fs::write(scene.at("file"), "").unwrap();
        let target = scene.target(walk);
        let error = target.folder(b"link", &meta(0o755)).unwrap_err();
        assert!(message(&error).ends_with("t/link: is a symbolic link, which is not followed"), "{}", message(&error));
        let error = target.folder(b"file", &meta(0o755)).unwrap_err();
        assert!(message(&error).ends_with("t/file: is not a folder"), "{}", message(&error));
        let target = scene.target_with(walk, TargetOptions { replace: true, ..TargetOptions::for_this_process() });
        for path in ["link", "file"] {
            target.folder(path.as_bytes(), &meta(0o755)).unwrap();
            write(&target, format!("{path}/a").as_bytes(), b"new", &meta(0o600)).unwrap();
            assert!(fs::symlink_metadata(scene.at(path)).unwrap().is_dir());
        }
        target.finish().unwrap();
        scene.assert_outside_untouched();
    }
}

#[test]
fn a_dropped_writer_leaves_nothing() {
    let scene = Scene::new();
    let target = scene.target(Walk::Kernel);
    fs::write(scene.at("file"), "old").unwrap();
    let file = target.create(b"file", 3).unwrap();
    file.write_at(0, b"new").unwrap();
    assert!(file.write_at(1, b"new").is_err(), "beyond its size");
    assert_eq!(fs::read_dir(scene.at("")).unwrap().count(), 2);
    drop(file);
    assert_eq!(fs::read_dir(scene.at("")).unwrap().count(), 1);
    assert_eq!(fs::read(scene.at("file")).unwrap(), b"old");

    // Larger than any file system takes: the error names the file, and nothing is left.
    let error = target.create(b"huge", i64::MAX as u64).unwrap().commit(&meta(0o600)).unwrap_err();
    assert!(message(&error).starts_with(&format!("Cannot set the length of {}: File too large", scene.at("huge").display())));
    assert_eq!(fs::read_dir(scene.at("")).unwrap().count(), 1);
}

#[test]
fn threads_share_a_target() {
    for walk in WALKS {
        let scene = Scene::new();
        let target = scene.target(walk);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let target = &target;
                scope.spawn(move || {
                    for index in 0..200 {
                        let path = format!("d{}/e{}/f{thread}-{index}", index % 20, index % 7);
                        let file = target.create(path.as_bytes(), 1).unwrap();
                        target.folder(format!("d{}", index % 20).as_bytes(), &meta(0o711)).unwrap();
                        file.write_at(0, b"x").unwrap();
                        file.commit(&meta(0o600)).unwrap();
                    }
                });
            }
        });
        assert_eq!(target.finish().unwrap(), []);
        for index in 0..200 {
            let folder = scene.at(format!("d{}", index % 20));
            assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o7777, 0o711);
            let folder = folder.join(format!("e{}", index % 7));
            assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o7777, 0o755);
            assert!((0..4).all(|thread| folder.join(format!("f{thread}-{index}")).exists()));
        }
        scene.assert_clean();
    }
}

#[test]
fn zeros_and_what_is_not_written_become_holes() {
    const MIB: usize = 1 << 20;
    let scene = Scene::new();
    let mut bytes = vec![0u8; 4 * MIB + 100];
    bytes[MIB..MIB + 10_000].fill(7);
    bytes[3 * MIB + 5] = 1;
    for sparse in [false, true] {
        let target = scene.target_with(Walk::Kernel, TargetOptions { sparse, ..TargetOptions::for_this_process() });
        let file = target.create(b"file", bytes.len() as u64 + 2 * MIB as u64).unwrap();
        // Pieces that do not end at blocks.
        for (index, piece) in bytes.chunks(100_001).enumerate() {
            file.write_at(index as u64 * 100_001, piece).unwrap();
        }
        file.commit(&meta(0o600)).unwrap();
        target.finish().unwrap();
        let mut expected = bytes.clone();
        expected.resize(bytes.len() + 2 * MIB, 0);
        assert!(fs::read(scene.at("file")).unwrap() == expected);
        let stored = fs::metadata(scene.at("file")).unwrap().blocks() as usize * 512;
        assert!(if sparse { stored < MIB } else { (4 * MIB..5 * MIB).contains(&stored) }, "{sparse} {stored}");
    }
}

#[test]
fn any_bytes_make_a_name_and_any_length_a_path() {
    for walk in WALKS {
        let scene = Scene::new();
        let target = scene.target(walk);
        for name in [&b"new\nline"[..], b"\xff\xfe", b"-rf *", &[b'n'; 255]] {
            write(&target, name, name, &meta(0o600)).unwrap();
            assert_eq!(fs::read(scene.at(OsStr::from_bytes(name))).unwrap(), name);
        }
        assert!(write(&target, &[b'n'; 256], b"", &meta(0o600)).is_err());

        let deep = vec!["d".repeat(200); 60].join("/");
        for depth in 1..=60 {
            target.folder(&deep.as_bytes()[..depth * 201 - 1], &meta(0o500)).unwrap();
        }
        let file = format!("{deep}/file");
        write(&target, file.as_bytes(), b"deep", &meta(0o600)).unwrap();
        write(&target, format!("x/{deep}/file").as_bytes(), b"deep", &meta(0o600)).unwrap();
        assert_eq!(target.finish().unwrap(), []);

        // Longer than its cache of open folders.
        let target = scene.target(walk);
        for path in [file.clone(), format!("x/{file}")] {
            assert!(matches!(target.find(path.as_bytes()).unwrap(), Some(Found::File { size: 4, .. })));
            assert_eq!(std::io::read_to_string(target.open_existing(path.as_bytes()).unwrap()).unwrap(), "deep");
        }
    }
}

/// Not a test of behaviour; run it by name with `--ignored --nocapture`.
#[test]
#[ignore]
fn cost_of_small_files() {
    for walk in WALKS {
        let scene = Scene::new();
        let target = scene.target(walk);
        let start = std::time::Instant::now();
        let count = 40_000;
        for index in 0..count {
            if index % 50 == 0 {
                target.folder(format!("some/where/d{:04}", index / 50).as_bytes(), &meta(0o755)).unwrap();
            }
            let path = format!("some/where/d{:04}/file{index}", index / 50);
            write(&target, path.as_bytes(), &[7; 1500], &meta(0o644)).unwrap();
        }
        let files = start.elapsed();
        target.finish().unwrap();
        println!("{walk:?}: {:.1} us a file, finish {:?}", files.as_micros() as f64 / f64::from(count), start.elapsed() - files);
    }
}
