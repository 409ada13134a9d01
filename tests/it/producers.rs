//! Programs that make dumps and do not come to their end: whatever way they fail, nothing of it is ever called good.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cli::{Scene, stderr, wait_for};
use crate::loading::{sample, sample_path};
use crate::support::{Rng, seed};

/// A sample, and how much of its beginning tells what it is.
const SAMPLES: &[(&str, usize)] = &[
    ("pg_dump.sql", 100),
    ("pg_dumpall.sql", 100),
    ("pg_dump.custom", 100),
    ("pg_dump-z0.custom", 100),
    ("mariadb-dump.sql", 100),
    ("redis.rdb", 20),
    ("pg_dump.sql.gz", 20),
    ("pg_dump.sql.zst", 20),
    ("sqlite.db", 100),
];

/// At the end of a sample: of a closing line all but the date may be missing.
const CLOSING: usize = 50;

fn listed(scene: &Scene) -> Vec<Value> {
    serde_json::from_str(&scene.text(&["snapshots", "--json"])).unwrap()
}

/// Nothing that was saved counts as good.
fn nothing_is_good(scene: &Scene) {
    for snapshot in listed(scene) {
        assert_eq!((snapshot["complete"].as_bool(), &snapshot["dumps"][0]["verdict"]), (Some(false), &"incomplete".into()), "{snapshot}");
    }
    let said = stderr(&scene.check(&["dump", "latest"], 1));
    assert!(said.contains("No snapshot matches"), "{said}");
    scene.check(&["restore", "--job", "shop", "-t", "out"], 1);
}

fn captured(scene: &Scene, script: &str, code: i32) -> String {
    stderr(&scene.check(&["backup", "--stdin-from-command", "--stdin-filename", "shop", "--", "sh", "-c", script], code))
}

#[test]
fn a_producer_killed_at_any_moment() {
    let mut rng = Rng::new(seed("killed producers"));
    let scene = Scene::ready();
    for &(name, head) in SAMPLES {
        let (path, bytes) = (sample_path(name), sample(name));
        for _ in 0..2 {
            let len = head as u64 + rng.below((bytes.len() - head - CLOSING) as u64);
            println!("{name}: {len} bytes");
            let said = captured(&scene, &format!("head -c {len} {path}; kill -9 $$"), 4);
            assert!(said.contains("was killed by signal 9 (SIGKILL), no snapshot was saved"), "{said}");
            assert_eq!(scene.count(), 0);
        }
    }
    // In a pipe nobody hears of it, but the dump itself tells.
    for &(name, head) in SAMPLES {
        let bytes = sample(name);
        let len = head + rng.below((bytes.len() - head - CLOSING) as u64) as usize;
        println!("{name}: {len} bytes");
        let said = stderr(&scene.feed(&["backup", "--stdin", "--stdin-filename", "shop"], &bytes[..len], 4));
        assert!(said.contains("shop is INCOMPLETE"), "{said}");
    }
    assert_eq!(scene.count(), SAMPLES.len());
    nothing_is_good(&scene);
}

#[test]
fn a_producer_killed_from_outside_after_its_last_byte() {
    let scene = Scene::ready();
    let path = sample_path("pg_dump.sql");
    let script = format!("cat {path}; echo $$ >pid.new; mv pid.new pid; exec sleep 1000");
    let mut command = scene.snap(&["backup", "--stdin-from-command", "--stdin-filename", "shop", "--", "sh", "-c", &script]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("the dump's end", || scene.at("pid").exists());
    let pid: i32 = fs::read_to_string(scene.at("pid")).unwrap().trim().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert_eq!(scene.count(), 0);
    nothing_is_good(&scene);
}

#[test]
fn a_failure_behind_a_complete_end() {
    let scene = Scene::ready();
    for &(name, _) in SAMPLES {
        let said = captured(&scene, &format!("cat {}; exit 1", sample_path(name)), 4);
        assert!(said.contains("sh exited with code 1, no snapshot was saved"), "{said}");
    }
    // Its output is closed long before it fails.
    captured(&scene, &format!("cat {}; exec >&-; sleep 0.3; exit 1", sample_path("pg_dump.sql")), 4);
    assert_eq!(scene.count(), 0);
    nothing_is_good(&scene);
}

#[test]
fn nothing_printed_and_success() {
    let scene = Scene::ready();
    for script in ["exit 0", "false | cat", "cat /no/such/file 2>/dev/null | cat"] {
        assert!(captured(&scene, script, 1).contains("shop is empty, no snapshot was saved"), "{script}");
    }
    scene.feed(&["backup", "--stdin", "--stdin-filename", "shop"], b"", 1);
    assert_eq!(scene.count(), 0);
    // Asked for, it is saved; what it should be, it is not.
    scene.feed(&["backup", "--stdin", "--stdin-filename", "shop", "--allow-empty", "--expect", "pg_dump"], b"", 4);
    nothing_is_good(&scene);
}

#[test]
fn the_disk_that_a_dump_is_written_to_is_full() {
    let scene = Scene::ready();
    for name in ["pg_dump.sql", "pg_dump-z0.custom", "pg_dump.tar", "mariadb-dump.sql"] {
        let path = sample_path(name);
        // The program notices and says so.
        captured(&scene, &format!("cat {path} >/dev/full"), 4);
        assert_eq!(scene.count(), 0, "{name}");
    }
    for (at, name) in ["pg_dump.sql", "pg_dump-z0.custom", "pg_dump.tar", "pg_dump-inserts.sql"].into_iter().enumerate() {
        let path = sample_path(name);
        // A limit on files stands for the disk; the script passes on what there is, and ends well.
        captured(&scene, &format!("trap '' XFSZ; (ulimit -f 4; cat {path} >part 2>/dev/null); cat part"), 4);
        assert_eq!(scene.count(), at + 1, "{name}");
        let part = fs::metadata(scene.at("part")).unwrap().len();
        assert!(part > 0 && part < fs::metadata(&path).unwrap().len());
    }
    nothing_is_good(&scene);
    // The file itself among others.
    fs::rename(scene.at("part"), scene.at("shop.sql")).unwrap();
    let said = stderr(&scene.check(&["backup", "shop.sql"], 4));
    assert!(said.contains("shop.sql is INCOMPLETE"), "{said}");
}

/// SQLite's own program, which waits for more after what it is told.
struct Sqlite {
    child: std::process::Child,
}

impl Sqlite {
    fn tell(scene: &Scene, file: &str, text: &str) -> Self {
        let mut command = Command::new("sqlite3");
        let mut child = command.arg(file).current_dir(scene.at("")).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        writeln!(child.stdin.as_mut().unwrap(), "{text}\n.print heard").unwrap();
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "heard"));
        Self { child }
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

#[test]
fn a_database_file_of_sqlite() {
    if Command::new("sqlite3").arg("--version").output().is_err() {
        eprintln!("SKIPPED: backing up a database of SQLite: there is no sqlite3");
        return;
    }
    let mut rng = Rng::new(seed("sqlite"));
    let scene = Scene::ready();
    let rows = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 5000) insert into t select i, hex(randomblob(20)) from n;";
    fs::create_dir(scene.at("files")).unwrap();
    Sqlite::tell(&scene, "files/app-backup.db", &format!("create table t(a integer primary key, b text); {rows}")).end();
    let bytes = fs::read(scene.at("files/app-backup.db")).unwrap();
    let verdict = |scene: &Scene| listed(scene).last().unwrap()["dumps"][0]["verdict"].as_str().unwrap().to_owned();
    for _ in 0..8 {
        let len = 100 + rng.below(bytes.len() as u64 - 100) as usize;
        scene.feed(&["backup", "--stdin", "--stdin-filename", "shop"], &bytes[..len], 4);
    }
    nothing_is_good(&scene);
    scene.feed(&["backup", "--stdin", "--stdin-filename", "shop"], &bytes, 0);
    assert_eq!(verdict(&scene), "complete");
    scene.check(&["backup", "files"], 0);
    assert_eq!(verdict(&scene), "complete");

    // In use: what is committed lies in a file beside it.
    let user = Sqlite::tell(
        &scene,
        "files/app-backup.db",
        &format!("pragma journal_mode=wal; delete from t where a > 100; {rows}").replace("insert", "insert or replace"),
    );
    assert!(fs::metadata(scene.at("files/app-backup.db-wal")).unwrap().len() > 0);
    scene.check(&["backup", "files"], 0);
    assert_eq!(verdict(&scene), "unknown");
    // Its own copy is whole, meanwhile.
    let script = "sqlite3 files/app-backup.db \"vacuum into 'copy.db'\" && cat copy.db";
    scene.check(&["backup", "--stdin-from-command", "--stdin-filename", "shop", "--", "sh", "-c", script], 0);
    assert_eq!(verdict(&scene), "complete");
    user.end();
}
