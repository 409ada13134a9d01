//! The way back: a dump into the command that loads it, and the commands that people are shown.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, test_kill_process_group};
use serde_json::Value;

use crate::cli::{Scene, expect, interrupt, is_ignored, stderr, wait_for};
use crate::support::noise;

pub fn sample_path(name: &str) -> String {
    format!("{}/tests/samples/{name}", env!("CARGO_MANIFEST_DIR"))
}

pub fn sample(name: &str) -> Vec<u8> {
    fs::read(sample_path(name)).unwrap()
}

/// `snap dump latest --to-command -- COMMAND...`
fn to_command(scene: &Scene, command: &[&str], code: i32) -> (Vec<u8>, String) {
    let output = scene.check(&[&["dump", "latest", "--to-command", "--"], command].concat(), code);
    let said = stderr(&output);
    (output.stdout, said)
}

/// A program of this name in the scene that keeps what it is given in the file `got`.
fn fake(scene: &Scene, name: &str) {
    scene.write(&format!("bin/{name}"), b"#!/bin/sh\necho started >&2\ncat >got\n");
    fs::set_permissions(scene.at(&format!("bin/{name}")), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_command_gets_the_whole_or_its_failure_is_told() {
    let scene = Scene::ready();
    // Less than a pipe holds, so that only what was left in it tells; and more.
    for bytes in [noise(1, 3000), noise(2, 6_000_000)] {
        scene.feed(&["backup", "--stdin"], &bytes, 0);
        assert!(to_command(&scene, &["cat"], 0).0 == bytes);
        for (script, expected) in [
            ("cat >/dev/null; exit 3", "snap: sh exited with code 3\n"),
            ("cat >/dev/null; kill -9 $$", "sh was killed by signal 9 (SIGKILL)\n"),
            ("exit 0", "ended with success, but had read only 0 of"),
            ("head -c 1000 >/dev/null", "ended with success, but had read only"),
            ("head -c 1000 >/dev/null; exit 7", "exited with code 7 when it had read"),
            ("exec <&-; sleep 0.3", "ended with success, but had read only 0 of"),
        ] {
            let said = to_command(&scene, &["sh", "-c", script], 4).1;
            assert!(said.contains(expected) && said.contains("hint: do not rely on what it did"), "{script}: {said}");
        }
        // One that is slow to begin is not given up.
        assert!(to_command(&scene, &["sh", "-c", "sleep 0.5; cat"], 0).0 == bytes);
        assert!(to_command(&scene, &["/no/such/program"], 4).1.contains("could not be started: No such file"));
    }
    scene.feed(&["backup", "--stdin", "--allow-empty"], b"", 0);
    assert_eq!(to_command(&scene, &["cat"], 0).0, b"");
    let environment = String::from_utf8(to_command(&scene, &["env"], 0).0).unwrap();
    assert!(environment.contains("SNAP_REPOSITORY") && !environment.contains("SNAP_KEY_FILE"), "{environment}");
    scene.check(&["dump", "latest", "--to-command"], 2);
    scene.check(&["dump", "latest", "--", "cat"], 2);
}

#[test]
fn a_program_that_cannot_load_it_is_named_before_it_starts() {
    let scene = Scene::ready();
    let bytes = sample("pg_dump.custom");
    scene.feed(&["backup", "--stdin", "--stdin-filename", "shop.dump"], &bytes, 0);
    fake(&scene, "psql");
    fake(&scene, "pg_restore");
    let said = to_command(&scene, &["bin/psql", "-d", "shop"], 0).1;
    let warning = "snap: warning: shop.dump is an archive by pg_dump -Fc, which psql does not read; to load it: pg_restore ";
    assert!(said.starts_with(warning) && said.ends_with("started\n"), "{said}");
    assert_eq!(to_command(&scene, &["bin/pg_restore"], 0).1, "started\n");
    assert!(fs::read(scene.at("got")).unwrap() == bytes);
    let output = scene.check(&["dump", "latest", "--json", "--to-command", "--", "bin/psql"], 0);
    let summary: Value = serde_json::from_str(stderr(&output).lines().last().unwrap()).unwrap();
    assert!(summary["warnings"][0].as_str().unwrap().contains("psql does not read") && summary["dump"]["format"] == "pg_dump custom");
    let said = stderr(&scene.check(&["dump", "latest", "-v"], 0));
    assert!(said.contains("to load it: pg_restore --exit-on-error -d DATABASE"), "{said}");

    scene.feed(&["backup", "--stdin", "--stdin-filename", "shop.dump"], &bytes[..3000], 4);
    let output = scene.check(&["dump", "latest", "--include-incomplete", "--to-command", "--", "cat"], 0);
    assert!(stderr(&output).contains("warning: shop.dump is INCOMPLETE"), "{}", stderr(&output));
}

#[test]
fn a_command_that_was_given_damage_is_ended_before_its_input_is() {
    let scene = Scene::ready();
    scene.feed(&["backup", "--stdin"], &noise(1, 3_000_000), 0);
    let mut folders = vec![scene.at("r/packs")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let mut bytes = fs::read(&path).unwrap();
            if bytes.len() > 100_000 {
                let at = bytes.len() * 2 / 3;
                bytes[at] ^= 1;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
                fs::write(&path, bytes).unwrap();
            }
        }
    }
    to_command(&scene, &["sh", "-c", "cat >got; echo all >committed"], 20);
    assert!(!scene.at("committed").exists(), "the command took the end of a part for the end of the whole");
}

#[test]
fn an_interrupted_dump_ends_its_command() {
    let scene = Scene::ready();
    if is_ignored(Signal::TERM) {
        eprintln!("SKIPPED: SIGTERM is ignored where this test runs");
        return;
    }
    // While it waits for the command's end, and while the command takes nothing.
    for len in [1000, 3_000_000] {
        scene.feed(&["backup", "--stdin"], &noise(1, len), 0);
        let _ = fs::remove_file(scene.at("pid"));
        let script = "echo $$ >pid.new; mv pid.new pid; sleep 1000 & sleep 1000; wait";
        let mut command = scene.snap(&["dump", "latest", "--to-command", "--", "sh", "-c", script]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for("the command's start", || scene.at("pid").exists());
        let group: i32 = fs::read_to_string(scene.at("pid")).unwrap().trim().parse().unwrap();
        interrupt(&child, Signal::TERM);
        assert_eq!(child.wait().unwrap().code(), Some(143));
        let group = Pid::from_raw(group).unwrap();
        wait_for("the end of the command's group", || test_kill_process_group(group).is_err());
    }
}

/// Runs what was printed as a shell of a person would, with `snap` and fakes of the servers' programs in the path.
fn run_line(scene: &Scene, line: &str) {
    let bin = Path::new(env!("CARGO_BIN_EXE_snap")).parent().unwrap().to_str().unwrap();
    let path = format!("{}:{bin}:/usr/local/bin:/usr/bin:/bin", scene.at("bin").display());
    let mut command = Command::new("sh");
    command.args(["-c", line]).env_clear().current_dir(scene.at("")).env("PATH", path);
    command.env("HOME", scene.at("")).env("SNAP_REPOSITORY", scene.at("r")).env("SNAP_KEY_FILE", scene.at("key"));
    expect(&mut command, 0);
}

#[test]
fn the_command_that_is_shown_works() {
    let scene = Scene::ready();
    for program in ["psql", "pg_restore", "mariadb"] {
        fake(&scene, program);
    }
    for (name, stream, program, unpack) in [
        ("pg_dump.sql", "it's odd.sql", "psql", "cat"),
        ("pg_dump.custom", "shop.dump", "pg_restore", "cat"),
        ("mariadb-dump.sql", "m.sql", "mariadb", "cat"),
        ("pg_dump.sql.gz", "p.sql.gz", "psql", "gunzip"),
        ("pg_dump.sql.xz", "p.sql.xz", "FILE", "unxz"),
        ("redis.rdb", "dump.rdb", "FILE", "cat"),
        ("sqlite.db", "app.db", "FILE", "cat"),
    ] {
        let bytes = sample(name);
        scene.feed(&["backup", "--stdin", "--stdin-filename", stream], &bytes, 0);
        // What is newer and not whole is passed over.
        scene.feed(&["backup", "--stdin", "--stdin-filename", stream, "--parent", "latest"], &bytes[..bytes.len() / 2], 4);
        let said = scene.text(&["restore", "--job", stream]);
        let line = said.lines().find(|line| line.starts_with("  snap dump")).unwrap_or_else(|| panic!("{said}")).trim();
        assert!(line.contains(program), "{said}");
        run_line(&scene, line);
        let got = if program == "FILE" { "FILE" } else { "got" };
        let unpacked = Command::new(unpack).stdin(fs::File::open(sample_path(name)).unwrap()).output();
        if let Ok(unpacked) = unpacked.inspect_err(|_| eprintln!("SKIPPED: loading {name}: there is no {unpack}")) {
            assert!(fs::read(scene.at(got)).unwrap() == unpacked.stdout, "{name}: {line}");
        }
        fs::remove_file(scene.at(got)).unwrap();
    }
    assert!(scene.text(&["snapshots", "-v"]).contains("            to load it: psql -X -1"));
    let said = scene.text(&["restore", "--job", "m.sql", "--json"]);
    let stream: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!((&stream["path"], &stream["dump"]["verdict"]), (&Value::from("/m.sql"), &Value::from("complete")));
    assert!(stream["command"].as_str().unwrap().contains("--to-command -- mariadb "), "{stream}");
}

#[test]
fn a_job_of_files_is_restored_by_its_name() {
    let scene = Scene::ready();
    scene.write("web/index.html", b"hello");
    scene.check(&["backup", "web", "--name", "web"], 0);
    scene.feed(&["backup", "--stdin", "--stdin-filename", "shop.sql"], &sample("pg_dump.sql"), 0);
    assert!(stderr(&scene.check(&["restore", "--job", "web"], 2)).contains("--target"));
    scene.check(&["restore", "--job", "web", "-t", "out"], 0);
    assert_eq!(fs::read(scene.at("out/web/index.html")).unwrap(), b"hello");
    scene.check(&["restore", "--job", "nobody", "-t", "out"], 1);
    scene.check(&["restore", "--job", "web", "latest", "-t", "out"], 2);
    scene.check(&["restore", "-t", "out"], 2);
    scene.check(&["restore", "latest"], 2);
    // A dump goes into its command and not to the disk.
    scene.check(&["restore", "--job", "shop.sql", "-t", "out"], 0);
    assert!(!scene.at("out/shop.sql").exists());
}
