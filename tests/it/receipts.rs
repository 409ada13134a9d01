//! A store that shows an older state of itself, or misses what nobody removed, is noticed by who saw the newer one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::cli::{Scene, stderr};

fn back_up(scene: &Scene, bytes: &[u8]) -> String {
    stderr(&scene.feed(&["backup", "--stdin", "--stdin-filename", "db.sql"], bytes, 0))
}

fn newest_file(folder: &Path) -> std::path::PathBuf {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    files.max_by_key(|entry| entry.metadata().unwrap().modified().unwrap()).unwrap().path()
}

fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-r").args([from, to]).status().unwrap();
    assert!(status.success());
}

/// What this host's receipts are kept in, under the home of a scene.
const STATE: &str = ".local/state/snap";

#[test]
fn a_snapshot_that_vanished_is_noticed() {
    let scene = Scene::ready();
    assert_eq!(back_up(&scene, b"one"), "");
    assert_eq!(back_up(&scene, b"two"), "");
    fs::remove_file(newest_file(&scene.at("r/snapshots"))).unwrap();
    // Backups warn, every night, and go on.
    for night in [b"three", b"four!"] {
        let said = back_up(&scene, night);
        assert!(said.contains("1 snapshot that nobody forgot"), "{said}");
    }
    let said = stderr(&scene.check(&["forget", "--keep-last", "1"], 1));
    assert!(said.contains("nothing was removed") && said.contains("remove that file"), "{said}");
    assert_eq!(scene.count(), 3);
    let said = stderr(&scene.check(&["prune", "--exclusive"], 1));
    assert!(said.contains("1 snapshot that nobody forgot"), "{said}");
    let output = scene.check(&["check"], 20);
    assert!(String::from_utf8_lossy(&output.stdout).contains("nobody forgot") || stderr(&output).contains("nobody forgot"));

    // Whoever knows about it removes the receipt.
    fs::remove_file(newest_file(&scene.at(STATE))).unwrap();
    assert_eq!(back_up(&scene, b"five"), "");
    scene.check(&["forget", "--keep-last", "1"], 0);
    scene.check(&["check"], 0);
}

#[test]
fn what_was_forgotten_on_purpose_is_not_missed() {
    let scene = Scene::ready();
    for bytes in [b"one", b"two", b"six"] {
        back_up(&scene, bytes);
    }
    scene.check(&["forget", "--keep-last", "1"], 0);
    assert_eq!(back_up(&scene, b"ten"), "");
    scene.check(&["check"], 0);
}

#[test]
fn a_store_that_was_turned_back_is_noticed() {
    let scene = Scene::ready();
    back_up(&scene, b"one");
    copy(&scene.at("r"), &scene.at("old"));
    back_up(&scene, b"two");
    fs::remove_dir_all(scene.at("r")).unwrap();
    copy(&scene.at("old"), &scene.at("r"));
    scene.check(&["check"], 20);
    assert!(back_up(&scene, b"three").contains("nobody forgot"));
}

/// A store that shows what it held before a prune: what is deleted from it now may be all that is left.
#[test]
fn a_store_that_was_turned_back_is_not_pruned() {
    let scene = Scene::ready();
    back_up(&scene, b"one");
    copy(&scene.at("r"), &scene.at("old"));
    scene.check(&["prune", "--exclusive", "-q"], 0);
    scene.check(&["prune", "--exclusive", "-q"], 0);
    fs::remove_dir_all(scene.at("r")).unwrap();
    copy(&scene.at("old"), &scene.at("r"));
    for args in [&["prune", "--exclusive"][..], &["prune", "-n"], &["forget", "--keep-last", "1", "--prune"]] {
        let said = stderr(&scene.check(args, 1));
        assert!(said.contains("The store was turned back"), "{said}");
    }
}

#[test]
fn a_repository_that_was_exchanged_is_noticed() {
    let scene = Scene::ready();
    back_up(&scene, b"one");
    fs::remove_dir_all(scene.at("r")).unwrap();
    scene.check(&["init", "-q"], 0);
    assert!(back_up(&scene, b"two").contains("Another repository is here"));
}

#[test]
fn a_receipt_can_be_kept_elsewhere() {
    let scene = Scene::ready();
    back_up(&scene, b"one");
    let receipt = scene.at("stick/receipt.json");
    let args = ["check", "--receipt", receipt.to_str().unwrap()];
    scene.check(&args, 0);
    back_up(&scene, b"two");
    scene.check(&args, 0);
    // Another machine has no receipt of its own.
    fs::remove_dir_all(scene.at(STATE)).unwrap();
    scene.check(&["check"], 0);
    fs::remove_file(newest_file(&scene.at("r/snapshots"))).unwrap();
    scene.check(&["check"], 0);
    scene.check(&args, 20);
    // It is said again until somebody removes the receipt.
    scene.check(&args, 20);
    fs::write(&receipt, "{}").unwrap();
    assert!(stderr(&scene.check(&args, 2)).contains("is not a receipt"));
}

/// The record that says how many collections have ended has rotted: that is no proof of a store that was turned back.
#[test]
fn a_record_that_cannot_be_read_is_no_proof() {
    let scene = Scene::ready();
    back_up(&scene, b"one");
    for _ in 0..2 {
        back_up(&scene, b"two");
        scene.check(&["forget", "--keep-last", "1", "-q"], 0);
        scene.check(&["prune", "--exclusive", "-q"], 0);
    }
    for record in fs::read_dir(scene.at("r/records")).unwrap().map(|entry| entry.unwrap().path()) {
        fs::set_permissions(&record, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&record, b"rotten").unwrap();
    }
    for args in [&["prune"][..], &["forget", "--keep-last", "1"]] {
        let said = stderr(&scene.check(args, 1));
        assert!(said.contains("cannot be told") && said.contains("snap check") && !said.contains("remove that file"), "{said}");
    }
    let said = back_up(&scene, b"three");
    assert!(said.contains("cannot be told") && !said.contains("nobody forgot"), "{said}");
}
