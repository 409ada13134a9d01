//! Drills: restores into private servers of the real programs, where these are installed, and what happens when they go wrong.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::cli::{Scene, stderr};

fn sample(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples").join(name)).unwrap()
}

/// Whether a program is there; if not, says loudly what is not tried.
fn is_there(program: &str, what: &str) -> bool {
    let script = format!("PATH=$PATH:/usr/sbin; command -v {program} || ls /usr/lib/postgresql/*/bin/{program}");
    let found = Command::new("bash").args(["-c", &script]).output().unwrap().status.success();
    if !found {
        eprintln!("SKIPPED: drills of {what}: there is no {program}");
    }
    found
}

/// The drill's account as JSON, and what is left in the scratch folder.
fn drill(scene: &Scene, args: &[&str], code: i32) -> Value {
    // Where a server's own user may go, and sockets have short names.
    let scratch = tempfile::Builder::new().prefix("snap").tempdir_in("/tmp").unwrap();
    fs::set_permissions(scratch.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    let place = scratch.path().to_str().unwrap();
    let output = scene.check(&[&["drill", "--json", "--scratch", place], args].concat(), code);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "nothing is left behind");
    let said = String::from_utf8_lossy(&output.stdout);
    let last = said.lines().rfind(|line| line.contains("\"summary\"")).unwrap_or_else(|| panic!("{}", stderr(&output)));
    serde_json::from_str(last).unwrap()
}

/// Backs up a sample, tries it out, and compares what was counted.
fn try_sample(sample_name: &str, stream: &str, answer: &str) {
    let scene = Scene::ready();
    let bytes = sample(sample_name);
    scene.feed(&["backup", "--stdin", "--stdin-filename", stream], &bytes, 0);
    let report = drill(&scene, &[stream], 0);
    let drill = &report["did"]["drill"];
    assert_eq!((report["outcome"].as_str(), drill["bytes"].as_u64()), (Some("good"), Some(bytes.len() as u64)), "{report}");
    assert_eq!(drill["contents"][0]["hash"], blake3::hash(&bytes).to_hex().as_str());
    let check = &drill["checks"][0];
    assert_eq!((check["passed"].as_bool(), check["answer"].as_str()), (Some(true), Some(answer)), "{report}");
    assert!(drill["seconds_to_first_byte"].as_f64().unwrap() > 0.0 && drill["seconds_to_ready"].as_f64().unwrap() > 0.0);
    assert_eq!(drill["steps"].as_array().unwrap().last().unwrap()["name"], "down");
}

#[test]
fn postgres_comes_back() {
    if is_there("initdb", "PostgreSQL") {
        try_sample("pg_dump.sql", "shop.sql", "4 tables with 38 rows");
        try_sample("pg_dump-z0.custom", "shop.dump", "4 tables with 38 rows");
        try_sample("pg_dumpall.sql", "all.sql", "4 tables with 38 rows");
    }
}

#[test]
fn mariadb_comes_back() {
    if is_there("mariadbd", "MariaDB") {
        try_sample("mariadb-dump.sql", "shop.sql", "3 tables with 29 rows");
    }
}

#[test]
fn redis_comes_back() {
    if is_there("redis-server", "Redis") {
        try_sample("redis.rdb", "cache.rdb", "1 table with 23 rows");
        try_sample("redis-diskless.rdb", "cache.rdb", "1 table with 23 rows");
    }
}

#[test]
fn a_drill_finds_what_a_server_finds() {
    if !is_there("sqlite3", "SQLite") {
        return;
    }
    let scene = Scene::ready();
    let bytes = sample("sqlite.db");
    scene.feed(&["backup", "--stdin", "--stdin-filename", "app.db"], &bytes, 0);
    assert_eq!(drill(&scene, &["app.db"], 0)["outcome"], "good");
    // Its size and head are right, so that only the program itself can tell.
    let mut damaged = bytes.clone();
    let end = damaged.len();
    damaged[end - 600..].fill(0xee);
    scene.feed(&["backup", "--stdin", "--stdin-filename", "app.db"], &damaged, 0);
    let report = drill(&scene, &["app.db"], 4);
    assert_eq!((report["outcome"].as_str(), report["exit_code"].as_u64()), (Some("failed"), Some(4)), "{report}");
    assert!(report["error"].as_str().unwrap().starts_with("load app.db: bash exited with code 1: "), "{report}");
    assert_eq!(drill(&scene, &["app.db", "--snapshot", "latest~1"], 0)["outcome"], "good");
    // Said once, and not as if a backup had failed.
    let said = stderr(&scene.check(&["drill", "app.db", "--scratch", "."], 4));
    assert_eq!(said.lines().filter(|line| line.contains("load app.db")).count(), 1, "{said}");
    assert!(!said.contains("no snapshot") && !said.contains("hint"), "{said}");
    // It was never ready.
    let audit = scene.check(&["audit", "--csv"], 0);
    let audit = String::from_utf8_lossy(&audit.stdout);
    let failed = audit.lines().find(|line| line.contains("drill,failed")).unwrap_or_else(|| panic!("{audit}"));
    assert!(!failed.contains("ready after"), "{failed}");
}

#[test]
fn files_are_restored_and_accounted_for() {
    let scene = Scene::ready();
    scene.write("data/a", b"alpha");
    scene.write("data/b/c", b"gamma");
    scene.check(&["backup", "data", "--name", "uploads"], 0);
    let report = drill(&scene, &["uploads"], 0);
    let lines: String =
        [(&b"alpha"[..], "data/a"), (b"gamma", "data/b/c")].map(|(bytes, path)| format!("{}  {path}\n", blake3::hash(bytes))).concat();
    let content = &report["did"]["drill"]["contents"][0];
    assert_eq!((content["path"].as_str(), content["bytes"].as_u64()), (Some("files"), Some(10)));
    assert_eq!(content["hash"], blake3::hash(lines.as_bytes()).to_hex().as_str());
    for name in ["account.md", "account.html", "account.json"] {
        drill(&scene, &["uploads", "--report", name], 0);
        assert!(fs::read_to_string(scene.at(name)).unwrap().contains("uploads"), "{name}");
    }
    let refused = scene.check(&["drill", "uploads", "--report", "account.pdf"], 2);
    assert!(stderr(&refused).contains(".md, .html or .json"));
}

#[test]
fn a_drill_needs_something_to_try_out() {
    let scene = Scene::ready();
    let output = scene.check(&["drill"], 2);
    assert!(stderr(&output).contains("no snap.toml with jobs"), "{}", stderr(&output));
    let output = scene.check(&["drill", "orders"], 1);
    assert!(stderr(&output).contains("No good snapshot of orders"), "{}", stderr(&output));
}

/// Variables that lead to a server in production are not there for what a drill runs.
#[test]
fn a_drill_does_not_see_production() {
    if !is_there("sqlite3", "SQLite") {
        return;
    }
    let scene = Scene::ready();
    scene.feed(&["backup", "--stdin", "--stdin-filename", "app.db"], &sample("sqlite.db"), 0);
    // A client in front of the real one that tells what it was given.
    let told = scene.at("told");
    let client = scene.write("bin/sqlite3", format!("#!/bin/sh\nenv >> {}\nexec /usr/bin/sqlite3 \"$@\"\n", told.display()).as_bytes());
    fs::set_permissions(&client, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = scene.snap(&["drill", "app.db"]);
    let path = format!("{}:/usr/bin:/bin", scene.at("bin").display());
    command.env("PATH", path).env("PGHOST", "production").env("MYSQL_PWD", "secret").env("HARMLESS", "1");
    crate::cli::expect(&mut command, 0);
    let told = fs::read_to_string(told).unwrap();
    assert!(told.contains("HARMLESS=1") && told.contains("SNAP_DRILL="), "{told}");
    for name in ["PGHOST", "MYSQL_PWD", "SNAP_PASSWORD", "SNAP_KEY_FILE"] {
        assert!(!told.contains(name), "{name} in {told}");
    }
}
