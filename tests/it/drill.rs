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

/// Each in its own, also where another one was loaded behind it.
#[test]
fn tables_of_several_databases_are_counted() {
    let scene = Scene::ready();
    let here = scene.at("").to_str().unwrap().trim_end_matches('/').to_owned();
    let mut jobs = format!("[repository]\npath = \"{here}/r\"\nkey_file = \"{here}/key\"\n");
    let kinds = [
        ("pg_dump.sql", "initdb", "PostgreSQL", "4 tables with 38 rows"),
        ("mariadb-dump.sql", "mariadbd", "MariaDB", "3 tables with 29 rows"),
    ];
    let kinds: Vec<_> = kinds.into_iter().filter(|(_, program, what, _)| is_there(program, what)).collect();
    for (number, (sample_name, ..)) in kinds.iter().enumerate() {
        let first = String::from_utf8(sample(sample_name)).unwrap();
        let second = first.replace("people", "others");
        jobs += &format!("[jobs.job{number}]\n");
        for (name, text) in [("first", first), ("second", second)] {
            let file = scene.write(&format!("{number}-{name}"), text.as_bytes());
            jobs += &format!("[[jobs.job{number}.source]]\nname = \"{name}.sql\"\ncommand = [\"cat\", \"{file}\"]\n");
        }
    }
    scene.write("snap.toml", jobs.as_bytes());
    fs::set_permissions(scene.at("snap.toml"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    for (number, (.., answer)) in kinds.iter().enumerate() {
        let job = format!("job{number}");
        scene.check(&["run", &job], 0);
        let report = drill(&scene, &[&job], 0);
        let checks = report["did"]["drill"]["checks"].as_array().unwrap();
        let said: Vec<_> = checks.iter().map(|check| (check["name"].as_str().unwrap(), check["answer"].as_str().unwrap())).collect();
        assert_eq!(said, [("tables of first.sql", *answer), ("tables of second.sql", *answer)], "{report}");
    }
}

/// Each is counted in its own file, also where another one of the same name was loaded behind it.
#[test]
fn several_databases_of_sqlite_are_counted() {
    if !is_there("sqlite3", "SQLite") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops/drill/places/sqlite.sh")).unwrap();
    let all = "SNAP_STREAM=a/x.db bash -euo pipefail -c \"$SCRIPT\" place up >/dev/null
        for folder in a b; do
          sqlite3 $folder.db 'create table t (n)' 'insert into t values (1)'
          [ $folder = b ] || sqlite3 $folder.db 'insert into t values (2)'
          SNAP_UNPACK=cat SNAP_STREAM=$folder/x.db bash -euo pipefail -c \"$SCRIPT\" place load <$folder.db | sed 's,.*/place/,,' >database
        done
        for folder in a b; do
          printf 't\\nu\\n' | SQLITE_DATABASE=$PWD/place/$(cat database) SNAP_STREAM=$folder/x.db bash -euo pipefail -c \"$SCRIPT\" place count
        done
        SQLITE_DATABASE=$PWD/place/$(cat database) SNAP_ASK='select count(*) from t' bash -euo pipefail -c \"$SCRIPT\" place ask";
    let output =
        Command::new("bash").args(["-euo", "pipefail", "-c", all]).current_dir(folder.path()).env("SCRIPT", script).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2\n-\n1\n-\n1\n", "{}", stderr(&output));
}

#[test]
fn a_second_dump_of_redis_is_not_taken_for_the_first() {
    if !is_there("redis-server", "Redis") {
        return;
    }
    let scene = Scene::ready();
    let here = scene.at("").to_str().unwrap().trim_end_matches('/').to_owned();
    let file = scene.write("dump", &sample("redis.rdb"));
    let mut job = format!("[repository]\npath = \"{here}/r\"\nkey_file = \"{here}/key\"\n[jobs.shop]\n");
    for name in ["a.rdb", "b.rdb"] {
        job += &format!("[[jobs.shop.source]]\nname = \"{name}\"\ncommand = [\"cat\", \"{file}\"]\n");
    }
    scene.write("snap.toml", job.as_bytes());
    fs::set_permissions(scene.at("snap.toml"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    scene.check(&["run"], 0);
    let report = drill(&scene, &["shop"], 4);
    assert!(report["error"].as_str().unwrap().contains("One drill takes one dump of Redis"), "{report}");
}

/// What an interrupt leaves running, nobody would ever stop.
#[test]
fn an_interrupted_drill_takes_its_place_away() {
    let scene = Scene::ready();
    let here = scene.at("").to_str().unwrap().trim_end_matches('/').to_owned();
    let job = "[jobs.a]\ncommand = [\"echo\", \"a\"]\n[jobs.a.drill]\nup = [\"true\"]\n\
               load = [\"sh\", \"-c\", \"cat; kill -TERM $PPID; exec sleep 60\"]\n";
    let down = format!("down = [\"sh\", \"-c\", \"sleep 0.1; touch {here}/down\"]\n");
    let check = "check = [{ name = \"x\", command = [\"true\"] }]\n";
    let config = format!("[repository]\npath = \"{here}/r\"\nkey_file = \"{here}/key\"\n{job}{down}{check}");
    scene.write("snap.toml", config.as_bytes());
    fs::set_permissions(scene.at("snap.toml"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    scene.check(&["run"], 0);
    let report = drill(&scene, &["a"], 143);
    assert!(scene.at("down").exists(), "{report}");
    let steps = report["did"]["drill"]["steps"].as_array().unwrap();
    assert!(steps.last().unwrap()["name"] == "down" && steps.last().unwrap()["error"].is_null(), "{report}");
}

#[test]
fn every_kind_of_dump_has_a_place() {
    if !is_there("redis-server", "Redis") || !is_there("sqlite3", "SQLite") {
        return;
    }
    let scene = Scene::ready();
    let here = scene.at("").to_str().unwrap().trim_end_matches('/').to_owned();
    let mut job = format!("[repository]\npath = \"{here}/r\"\nkey_file = \"{here}/key\"\n[jobs.shop]\n");
    for (name, bytes) in [("app.db", sample("sqlite.db")), ("cache.rdb", sample("redis.rdb")), ("cluster.yaml", b"a: b".to_vec())] {
        let file = scene.write(&format!("source-{name}"), &bytes);
        job += &format!("[[jobs.shop.source]]\nname = \"{name}\"\ncommand = [\"cat\", \"{file}\"]\n");
    }
    job += &format!("[[jobs.shop.source]]\nfiles = \"{}\"\n", scene.write("uploads/a", b"a"));
    job += "[[jobs.shop.drill.check]]\nname = \"rows\"\nsql = \"select count(*) from t\"\nequals = 2\n";
    job += "[[jobs.shop.drill.check]]\nname = \"keys\"\ncommand = [\"sh\", \"-c\", \"redis-cli -s $REDIS_SOCKET -n 3 get other\"]\nequals = \"database\"\n";
    scene.write("snap.toml", job.as_bytes());
    fs::set_permissions(scene.at("snap.toml"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    scene.check(&["run"], 0);
    let report = drill(&scene, &["shop"], 0);
    let drill = &report["did"]["drill"];
    let steps: Vec<_> = drill["steps"].as_array().unwrap().iter().map(|step| step["name"].as_str().unwrap()).collect();
    let loads = ["load app.db", "load cache.rdb", "load cluster.yaml", "restore files", "checks"];
    assert_eq!(steps, [&["up (sqlite)", "up (redis)"][..], &loads[..], &["down (redis)", "down"][..]].concat(), "{report}");
    let said: Vec<_> = drill["checks"].as_array().unwrap().iter().map(|check| check["answer"].as_str().unwrap()).collect();
    assert_eq!(said, ["1 table with 23 rows", "2", "database"], "{report}");
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
    // One that was never saved, or cannot be loaded, does not keep the others from being tried out, and is told of once.
    let here = scene.at("").to_str().unwrap().trim_end_matches('/').to_owned();
    let jobs = "[jobs.a]\ncommand = [\"false\"]\n[jobs.b]\ncommand = [\"echo\", \"b\"]\ndrill = { load = [\"false\"], up = [\"true\"], check = [{ name = \"x\", command = [\"true\"] }] }\n";
    let jobs = format!("[repository]\npath = \"{here}/r\"\nkey_file = \"{here}/key\"\n{jobs}[jobs.c]\ncommand = [\"echo\", \"c\"]\n");
    scene.write("snap.toml", jobs.as_bytes());
    fs::set_permissions(scene.at("snap.toml"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    scene.check(&["run"], 4);
    let output = scene.check(&["drill", "a", "b", "c", "--scratch", &here], 4);
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), stderr(&output));
    assert!(said.contains("drill of b failed\n") && said.contains("drill of c passed\n"), "{said}");
    assert!(
        complained.contains("No good snapshot of a ") && complained.contains("The drill of b failed: load echo: false "),
        "{complained}"
    );
    assert_eq!(complained.lines().count(), 2, "{complained}");
}

/// Whom the configuration names hears of a drill that could not even begin, and the account has it.
#[test]
fn a_drill_that_cannot_begin_is_a_failed_one() {
    let scene = Scene::ready();
    let here = scene.at("").to_str().unwrap().trim_end_matches('/').to_owned();
    let jobs = "[jobs.a]\ncommand = [\"echo\", \"a\"]\n[jobs.b]\ncommand = [\"echo\", \"b\"]\n";
    let notify = format!("[notify]\ncommand = [\"sh\", \"-c\", \"cat >> {here}/told; echo >> {here}/told\"]\n");
    let config = format!("[repository]\npath = \"{here}/r\"\nkey_file = \"{here}/key\"\n{jobs}{notify}");
    scene.write("snap.toml", config.as_bytes());
    fs::set_permissions(scene.at("snap.toml"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let told = || {
        let told = fs::read_to_string(scene.at("told")).unwrap_or_default();
        let _ = fs::remove_file(scene.at("told"));
        let events: Vec<Value> = told.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect();
        events.iter().map(|event| format!("{} {}", event["event"].as_str().unwrap(), event["job"].as_str().unwrap())).collect::<Vec<_>>()
    };
    let account = || -> Vec<String> {
        let reports: Vec<Value> = serde_json::from_slice(&fs::read(scene.at("account.json")).unwrap()).unwrap();
        reports.iter().map(|report| report["error"].as_str().unwrap_or("none").to_owned()).collect()
    };
    let drills = || {
        let audit = scene.check(&["audit", "--csv"], 0);
        String::from_utf8_lossy(&audit.stdout).matches("drill,failed").count()
    };
    scene.check(&["run", "b"], 0);
    scene.check(&["drill", "--scratch", "missing", "--report", "account.json"], 1);
    assert_eq!(told(), ["failed a", "failed b"]);
    let said = account();
    assert!(said.len() == 2 && said[0].contains("No good snapshot of a ") && said[1].contains("missing/snap-drill-"), "{said:?}");
    assert_eq!(drills(), 2);
    // A slip of whoever sits here is nobody else's business.
    scene.check(&["drill", "bb", "--report", "account.json"], 1);
    scene.check(&["drill", "b", "--snapshot", "none"], 2);
    assert!(told().is_empty() && drills() == 2 && account().len() == 1);
    fs::rename(scene.at("r"), scene.at("elsewhere")).unwrap();
    scene.check(&["drill", "--report", "account.json"], 10);
    assert_eq!((told(), account().len()), (vec!["failed a".to_owned(), "failed b".into()], 2));
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
