//! What watches the nights: status, audit, and the ledger of what was verified.

use std::fs;

use serde_json::Value;

use crate::cli::Scene;
use crate::support::noise;

fn back_up(scene: &Scene, name: &str, bytes: &[u8], more: &[&str]) {
    let args = [&["-q", "backup", "--stdin", "--stdin-filename", name, "--host", "db1"], more].concat();
    scene.feed(&args, bytes, 0);
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

const OLD: &[&str] = &["--time", "2026-01-01 02:00:00"];

#[test]
fn status_says_what_is_late() {
    let scene = Scene::ready();
    let said = String::from_utf8(scene.check(&["status"], 30).stdout).unwrap();
    assert!(said.contains("there is no snapshot at all"), "{said}");
    back_up(&scene, "orders", b"one", &[]);
    back_up(&scene, "old.sql", b"two", OLD);
    let output = scene.check(&["status", "--json"], 30);
    let status = json(&output.stdout);
    assert_eq!((&status["healthy"], &status["jobs"][0]["job"]), (&false.into(), &"old.sql".into()));
    assert_eq!((&status["jobs"][0]["missed"][0]["objective"], &status["jobs"][1]["state"]), (&"max_age".into(), &"ok".into()));
    let text = String::from_utf8(scene.check(&["status"], 30).stdout).unwrap();
    assert!(text.contains("MISSED  old.sql") && text.contains("1 objective missed"), "{text}");
    // Narrowed, or with more patience.
    for args in [&["status", "orders"][..], &["status", "--max-age", "36000d"], &["status", "--prometheus", "orders"]] {
        scene.check(args, 0);
    }
    assert!(scene.check(&["-q", "status", "orders"], 0).stdout.is_empty());
    assert!(!scene.check(&["-q", "status"], 30).stdout.is_empty());
    scene.check(&["status", "no-such-job"], 1);
    let health = json(&scene.check(&["status", "--health"], 30).stdout);
    assert_eq!(health["status"], "unhealthy");
    assert!(health["missed"][0].as_str().unwrap().starts_with("old.sql on db1: "));
    let health = json(&scene.check(&["status", "--health", "orders"], 0).stdout);
    assert_eq!((&health["status"], &health["backupAge"]), (&"healthy".into(), &"0 minutes".into()));
    assert_eq!(health.as_object().unwrap().len(), 3);
    let text = scene.text(&["status", "--prometheus", "--max-age", "36000d"]);
    assert!(text.contains("snap_job_healthy{host=\"db1\",job=\"old.sql\"} 1\n") && text.ends_with('\n'), "{text}");
}

#[test]
fn jobs_of_the_configuration_have_their_own_objectives() {
    let scene = Scene::ready();
    let config = |text: &str| scene.write("snap.toml", format!("[repository]\npath = \"r\"\nhost = \"db1\"\n{text}").as_bytes());
    config(
        "[jobs.orders]\nfiles = [\"/etc/hostname\"]\n[jobs.orders.objectives]\nmax_age = \"1h\"\nmax_drill_age = \"7d\"\n\
         [jobs.patient]\nfiles = [\"/etc/hostname\"]\n[jobs.patient.objectives]\nmax_age = \"36000d\"\n",
    );
    back_up(&scene, "orders", b"one", &[]);
    back_up(&scene, "patient", b"two", OLD);
    back_up(&scene, "other", b"three", OLD);
    let status = json(&scene.check(&["status", "--json"], 30).stdout);
    let jobs: Vec<(&Value, &Value)> = status["jobs"].as_array().unwrap().iter().map(|job| (&job["job"], &job["state"])).collect();
    assert_eq!(jobs, [(&"orders".into(), &"missed".into()), (&"patient".into(), &"ok".into())]);
    assert_eq!((&status["jobs"][0]["missed"][0]["objective"], &status["other_streams"]), (&"max_drill_age".into(), &1.into()));
    scene.check(&["status", "patient"], 0);
    // Whatever a run here would be called counts.
    crate::cli::expect(scene.snap(&["status", "patient"]).env("SNAP_HOST", "elsewhere"), 30);
    assert_eq!(json(&scene.check(&["status", "--json", "--all"], 30).stdout)["jobs"].as_array().unwrap().len(), 3);
    // A mistake must not hide a job.
    config("[jobs.orders]\nfiles = [\"/etc/hostname\"]\nmaxage = 5\n");
    scene.check(&["status"], 2);
}

#[test]
fn an_unreadable_snapshot_is_said() {
    let scene = Scene::ready();
    back_up(&scene, "orders", b"one", &[]);
    back_up(&scene, "orders", b"two", &[]);
    let file = fs::read_dir(scene.at("r/snapshots")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::remove_file(&file).unwrap();
    fs::write(&file, bytes).unwrap();
    fs::remove_dir_all(scene.at(".cache")).unwrap();
    let output = scene.check(&["status"], 20);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("missed: 1 snapshot cannot be read") && said.ends_with("1 objective missed\n"), "{said}");
    scene.check(&["audit"], 20);
    // As cron does it.
    let told = scene.at("told");
    let notify = format!("[notify]\ncommand = [\"sh\", \"-c\", \"cat >> {}\"]\n", told.display());
    let job = "[jobs.orders]\ncommand = [\"echo\", \"one\"]\n";
    scene.write("snap.toml", format!("[repository]\npath = \"r\"\nhost = \"db1\"\n{job}{notify}").as_bytes());
    let said = String::from_utf8(scene.check(&["-q", "status", "--notify"], 20).stdout).unwrap();
    assert!(said.contains("missed: 1 snapshot cannot be read"), "{said}");
    let told: Value = json(&fs::read(told).unwrap());
    assert_eq!((&told["event"], &told["missed"][0]["objective"]), (&"missed".into(), &"damage".into()));
}

#[test]
fn audit_tells_who_did_what() {
    let scene = Scene::ready();
    back_up(&scene, "orders", b"one", OLD);
    back_up(&scene, "orders", b"two", &[]);
    scene.check(&["forget", "--keep-last", "1"], 0);
    scene.check(&["check", "--read-data"], 0);
    let audit = json(&scene.check(&["audit", "--json"], 0).stdout);
    let events = audit["events"].as_array().unwrap();
    let seen: Vec<_> = events.iter().map(|event| (event["action"].as_str().unwrap(), event["outcome"].as_str().unwrap())).collect();
    assert_eq!(seen, [("backup", "good"), ("forget", "good"), ("check", "good")]);
    assert_eq!(events[0]["job"], "orders");
    assert!(events[1]["detail"].as_str().unwrap().starts_with("1 snapshot: "));
    assert_eq!(events[2]["detail"], "everything was read");
    assert!(!events[2]["username"].as_str().unwrap().is_empty());
    let csv = scene.text(&["audit", "--csv", "--name", "orders"]);
    assert_eq!(csv.lines().count(), 2, "{csv}");
    assert!(scene.text(&["audit"]).ends_with("3 events\n"));
    assert!(scene.text(&["audit", "--since", "2100-01-01"]).contains("nothing is known"));
    assert_eq!(scene.text(&["audit", "--until", "2100-01-01", "--host", "db1"]).lines().last(), Some("1 event"));
    // Damage is on record.
    let pack = fs::read_dir(scene.at("r/packs")).unwrap().flat_map(|shard| fs::read_dir(shard.unwrap().path()).unwrap()).next();
    fs::remove_file(pack.unwrap().unwrap().path()).unwrap();
    scene.check(&["check"], 20);
    assert!(scene.text(&["audit"]).lines().rev().nth(1).unwrap().contains("check   failed"));
    let said = scene.check(&["status"], 30).stdout;
    assert!(String::from_utf8(said).unwrap().contains("found damage"));
}

/// The packs that the last check read and found good, and whether they were all.
fn verified(scene: &Scene, code: i32) -> (u64, bool, String) {
    let status = json(&scene.check(&["status", "--json"], code).stdout);
    let store = &status["repository"];
    let share = format!("{}/{}", store["verified_bytes"], store["packs_bytes"]);
    (store["verified_bytes"].as_u64().unwrap(), store["last_check"]["whole"].as_bool().unwrap(), share)
}

#[test]
fn a_budget_goes_on_where_it_was_longest_ago() {
    let scene = Scene::ready();
    for night in 0..4 {
        back_up(&scene, &format!("db{night}"), &noise(night, 100_000), &[]);
    }
    let all = json(&scene.check(&["check", "--json"], 0).stdout)["packs"].as_u64().unwrap();
    assert_eq!(verified(&scene, 0).0, 0);
    // The smallest budget is one pack.
    let mut last = 0;
    for _ in 0..all {
        let summary = json(&scene.check(&["-q", "check", "--json", "--read-data-budget", "1"], 0).stdout);
        assert_eq!(summary["packs_read"], 1);
        let (bytes, whole, share) = verified(&scene, 0);
        assert!(bytes > last && !whole, "{share}: the same pack was read twice");
        last = bytes;
    }
    let (bytes, _, share) = verified(&scene, 0);
    assert_eq!(share, format!("{bytes}/{bytes}"));
    // A new one comes first.
    back_up(&scene, "new", &noise(9, 100_000), &[]);
    scene.check(&["check", "--read-data-budget", "1"], 0);
    assert!(verified(&scene, 0).0 > bytes);
    let read = json(&scene.check(&["-q", "check", "--json", "--read-data-budget", "10m"], 0).stdout);
    assert_eq!((&read["packs_read"], verified(&scene, 0).1), (&read["packs"], true));
    scene.check(&["check", "--read-data"], 0);
    assert!(verified(&scene, 0).1);
}

#[test]
fn a_rotten_pack_is_not_in_the_ledger() {
    let scene = Scene::ready();
    back_up(&scene, "db", &noise(1, 3_000_000), &[]);
    let packs = fs::read_dir(scene.at("r/packs")).unwrap().flat_map(|shard| fs::read_dir(shard.unwrap().path()).unwrap());
    let large = packs.map(|pack| pack.unwrap()).max_by_key(|pack| pack.metadata().unwrap().len()).unwrap().path();
    let mut bytes = fs::read(&large).unwrap();
    bytes[1000] ^= 1;
    let write = |bytes: &[u8]| {
        fs::remove_file(&large).unwrap();
        fs::write(&large, bytes).unwrap();
    };
    write(&bytes);
    scene.check(&["check", "--read-data"], 20);
    let (share, whole, _) = verified(&scene, 30);
    assert!(share > 0 && share < bytes.len() as u64 && !whole);
    // Who does not read it finds nothing, and it is damaged still.
    scene.check(&["check"], 0);
    let said = String::from_utf8(scene.check(&["status"], 30).stdout).unwrap();
    assert!(said.contains("found 1 pack damaged"), "{said}");
    // It is read before what was never read, until it is good.
    back_up(&scene, "new", &noise(2, 100_000), &[]);
    scene.check(&["check", "--read-data-budget", "1"], 20);
    bytes[1000] ^= 1;
    write(&bytes);
    scene.check(&["check"], 0);
    scene.check(&["status"], 30);
    scene.check(&["check", "--read-data-budget", "1"], 0);
    scene.check(&["status"], 0);
}
