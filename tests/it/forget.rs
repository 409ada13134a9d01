//! Removing snapshots and changing their tags: as people do it, and when the store dies at any call of it.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::tz::TimeZone;
use serde_json::Value;
use snap_backup::backend::{Area, Fault, Faulty, Memory, Operation, Place};
use snap_backup::error::{Error, Result, StorageErrorKind};
use snap_backup::format::record::Record;
use snap_backup::id::{ObjectName, SnapshotId};
use snap_backup::ops::backup::BackupOptions;
use snap_backup::ops::check::{ReadData, check};
use snap_backup::ops::forget::{Choice, ForgetOptions, execute, plan};
use snap_backup::ops::tag::{TagChange, tag};
use snap_backup::progress::Silent;
use snap_backup::repo::{Repository, SnapshotFilter, Stored};
use snap_backup::retention::{Age, Count, GroupBy, Period, Policy, Rule};

use crate::cli::{Scene, stderr};
use crate::support::*;

/// Backs up a stream that is to be from that day, and returns its id.
fn save_on(scene: &Scene, name: &str, day: &str, more: &[&str]) -> String {
    let time = if day.contains('T') { day.to_owned() } else { format!("{day}T02:00:00Z") };
    let args = [&["backup", "--stdin", "--stdin-filename", name, "--time", &time, "--host", "h", "--json"], more].concat();
    let output = scene.feed(&args, format!("{name} {day}").as_bytes(), 0);
    let text = String::from_utf8(output.stdout).unwrap();
    let summary: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    summary["snapshot_id"].as_str().unwrap().to_owned()
}

fn list(scene: &Scene) -> Vec<Value> {
    let listed: Value = serde_json::from_str(&scene.text(&["snapshots", "--json"])).unwrap();
    listed.as_array().unwrap().clone()
}

fn days(scene: &Scene, name: &str) -> Vec<String> {
    let of_name = list(scene).into_iter().filter(|snapshot| snapshot["name"] == name);
    of_name.map(|snapshot| snapshot["time"].as_str().unwrap()[..10].to_owned()).collect()
}

fn files(scene: &Scene, folder: &str) -> usize {
    fs::read_dir(scene.at("r").join(folder)).unwrap().count()
}

#[test]
fn rules_remove_what_none_of_them_picks() {
    let scene = Scene::ready();
    for day in ["2026-01-01", "2026-01-02", "2026-01-03"] {
        save_on(&scene, "a", &format!("{day}T03:00:00Z"), &[]);
        save_on(&scene, "b", day, &["--tag", "x,y"]);
    }
    let said = scene.text(&["forget", "--keep-last", "1", "-n"]);
    assert!(said.contains("dry run: 4 snapshots would be removed, 2 snapshots kept"), "{said}");
    assert!(said.contains("host h, name a: keep 1, remove 2") && said.contains("last snapshot"), "{said}");
    assert_eq!((scene.count(), files(&scene, "records")), (6, 0));

    let said: Value = serde_json::from_str(&scene.text(&["forget", "--keep-last", "1", "--name", "a", "--json"])).unwrap();
    assert_eq!((&said[0]["host"], &said[0]["name"], &said[0]["tags"]), (&"h".into(), &"a".into(), &Value::Null));
    assert_eq!((said[0]["keep"].as_array().unwrap().len(), said[0]["remove"].as_array().unwrap().len()), (1, 2));
    assert_eq!(said[0]["reasons"][0]["matches"][0], "last snapshot");
    assert_eq!(said[0]["reasons"][0]["snapshot"]["id"], said[0]["keep"][0]["id"]);
    assert_eq!((days(&scene, "a").join(" "), days(&scene, "b").len()), ("2026-01-03".into(), 3));
    assert_eq!(files(&scene, "records"), 1);

    // Twice is once; nothing removed leaves no record.
    let said = scene.text(&["forget", "--keep-last", "1", "--name", "a"]);
    assert!(said.ends_with("0 snapshots removed, 1 snapshot kept\n"), "{said}");
    assert_eq!(files(&scene, "records"), 1);

    scene.text(&["forget", "--keep-tag", "x,y", "--group-by", ""]);
    assert_eq!(scene.count(), 4, "the newest of all is kept beside what has the tags, and a is in the group");
    scene.text(&["forget", "--keep-last", "1", "--group-by", "host", "-q"]);
    assert_eq!(scene.count(), 1);
    scene.check(&["check", "--read-data"], 0);
    assert_eq!(scene.check(&["dump", "latest"], 0).stdout, b"a 2026-01-03T03:00:00Z");
}

#[test]
fn no_rule_removes_nothing() {
    let scene = Scene::ready();
    save_on(&scene, "a", "2026-01-01", &[]);
    save_on(&scene, "a", "2026-01-02", &[]);
    for args in [&["forget"][..], &["forget", "--keep-daily", "0"], &["forget", "--keep-min-age", "1d"], &["forget", "--keep-tag", ","]] {
        let said = stderr(&scene.check(args, 2));
        assert!(said.contains("--keep-daily 7"), "{said}");
    }
    scene.check(&["forget", "latest", "--keep-last", "1"], 2);
    assert_eq!(scene.count(), 2);
}

#[test]
fn named_snapshots_go_but_not_the_last_one_by_mistake() {
    let scene = Scene::ready();
    let ids: Vec<String> = ["2026-01-01", "2026-01-02", "2026-01-03"].iter().map(|day| save_on(&scene, "a", day, &[])).collect();
    save_on(&scene, "b", "2026-01-01", &[]);
    scene.check(&["forget", "--name", "a", "latest:/a"], 2);
    scene.check(&["forget", "abcdef01"], 1);
    scene.check(&["forget", &ids[0][..8], "no-id"], 2);
    assert_eq!(scene.count(), 4, "all or none");
    let said = scene.text(&["forget", "--name", "a", "latest~1", &ids[1]]);
    assert!(said.contains(&ids[1][..8]) && said.ends_with("1 snapshot removed\n"), "{said}");
    assert_eq!(days(&scene, "a").join(" "), "2026-01-01 2026-01-03");

    // What a run before has removed is no error, so that a list of ids can be given again.
    let said = scene.text(&["forget", &ids[1], &ids[0][..8]]);
    assert!(said.contains(&format!("snapshot {} was forgotten already", &ids[1][..8])), "{said}");
    assert_eq!(days(&scene, "a").join(" "), "2026-01-03");

    let said = stderr(&scene.check(&["forget", &ids[2]], 1));
    assert!(said.contains("last complete one of a") && said.contains("--allow-remove-last"), "{said}");
    assert_eq!(scene.count(), 2);
    scene.check(&["forget", &ids[2], "--allow-remove-last"], 0);
    assert_eq!((scene.count(), days(&scene, "b").len()), (1, 1));
}

/// A night on which half could not be read must not push out the last good one.
#[test]
fn incomplete_snapshots_do_not_count_as_good() {
    let scene = Scene::ready();
    scene.write("data/a", b"a");
    let backup = |time: &str, code| {
        let args = ["backup", "--name", "files", "--host", "h", "--time", time, "data", if code == 3 { "missing" } else { "data" }];
        scene.check(&args, code);
    };
    backup("2026-01-01T02:00:00Z", 0);
    backup("2026-01-02T02:00:00Z", 0);
    backup("2026-01-03T02:00:00Z", 3);
    backup("2026-01-04T02:00:00Z", 3);
    let said = scene.text(&["forget", "--keep-last", "1"]);
    assert!(said.contains("last complete snapshot") && said.contains("last snapshot (incomplete)"), "{said}");
    assert_eq!(days(&scene, "files").join(" "), "2026-01-02 2026-01-04");
    let good = list(&scene)[0]["id"].as_str().unwrap().to_owned();
    scene.check(&["forget", &good], 1);
    scene.check(&["forget", "latest"], 0);
    assert_eq!(days(&scene, "files").join(" "), "2026-01-02");
}

#[test]
fn a_clock_that_is_wrong_removes_nothing() {
    let scene = Scene::ready();
    for day in ["2026-01-01", "2026-01-02", "2226-01-01"] {
        save_on(&scene, "a", day, &[]);
    }
    let said = scene.text(&["forget", "--keep-last", "1"]);
    assert!(said.contains("in the future"), "{said}");
    assert_eq!(days(&scene, "a").join(" "), "2026-01-02 2226-01-01");
    save_on(&scene, "b", "2226-01-01", &[]);
    let said = stderr(&scene.check(&["forget", "--keep-last", "1"], 1));
    assert!(said.contains("clock") && said.contains("nothing was removed"), "{said}");
    // Once it is removed by its id, rules work again.
    scene.check(&["forget", "latest", "--name", "b", "--allow-remove-last"], 0);
    scene.check(&["forget", "--keep-last", "1"], 0);

    // Before the repository was made.
    let (bench, _) = Bench::in_memory(5);
    save_at(&bench.open(), 1, "h");
    let early = Repository::open(bench.store.clone(), opening(world(9, FAR - 100_000), None)).unwrap();
    let error = plan(&early, &keep_last(1), &Silent).err().unwrap();
    assert!(matches!(&error, Error::Refused { why, .. } if why.contains("repository was made")), "{error}");
}

#[test]
fn what_cannot_be_read_is_kept_and_said() {
    let scene = Scene::ready();
    let ids: Vec<String> = ["2026-01-01", "2026-01-02", "2026-01-03"].iter().map(|day| save_on(&scene, "a", day, &[])).collect();
    let path = scene.at("r/snapshots").join(&ids[0]);
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"SNAP").unwrap();
    let output = scene.check(&["forget", "--keep-last", "1"], 20);
    assert!(stderr(&output).contains(&format!("snapshot {}", &ids[0][..8])), "{}", stderr(&output));
    assert!(path.exists() && files(&scene, "snapshots") == 2, "the others were judged");

    // One that a newer version wrote is no damage; a newer record may say that nothing is to be removed.
    fs::remove_file(&path).unwrap();
    fs::remove_dir_all(scene.at(".local/state/snap")).unwrap();
    save_on(&scene, "a", "2026-01-04", &[]);
    let mut newer = fs::read(scene.at("r/snapshots").join(&ids[2])).unwrap();
    newer[4] = 2;
    let name = ObjectName::of(&newer).hex();
    fs::write(scene.at("r/snapshots").join(&name), &newer).unwrap();
    let output = scene.check(&["forget", "--keep-last", "1"], 0);
    assert!(stderr(&output).contains(&name[..8]), "{}", stderr(&output));
    assert_eq!(files(&scene, "snapshots"), 2);
    fs::write(scene.at("r/records").join(&name), &newer).unwrap();
    scene.check(&["forget", "--keep-last", "1"], 1);
    fs::remove_file(scene.at("r/records").join(&name)).unwrap();
    fs::write(scene.at("r/records").join(&name), b"rotten").unwrap();
    scene.check(&["forget", "--keep-last", "1"], 20);
}

#[test]
fn tags_change_and_all_else_stays() {
    let scene = Scene::ready();
    let first = save_on(&scene, "a", "2026-01-01", &["--tag", "old"]);
    save_on(&scene, "a", "2026-01-02", &[]);
    let before = list(&scene);
    let said = scene.text(&["tag", &first[..8], "--add", "x,y", "--remove", "old"]);
    assert!(said.contains(&format!("snapshot {} is now ", &first[..8])) && said.contains("tags x,y"), "{said}");
    let after = list(&scene);
    assert_eq!(after[0]["tags"], serde_json::json!(["x", "y"]));
    assert_eq!((after.len(), after[0]["original"].as_str()), (2, Some(first.as_str())));
    for field in ["time", "hostname", "username", "name", "paths", "source", "summary", "program_version"] {
        assert_eq!(after[0][field], before[0][field], "{field}");
    }
    assert_eq!(after[1], before[1]);
    assert_eq!(scene.check(&["dump", "latest~1"], 0).stdout, b"a 2026-01-01");
    scene.check(&["forget", &first, "-n"], 0);

    let lines = scene.text(&["tag", "--tag", "x", "--set", "", "--json"]);
    let changed: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!((&changed["old_snapshot_id"], &changed["message_type"]), (&after[0]["id"], &"changed".into()));
    let latest = list(&scene);
    assert_eq!((&latest[0]["tags"], latest[0]["original"].as_str()), (&serde_json::json!([]), Some(first.as_str())));
    assert!(scene.text(&["tag", "--all", "--set", ""]).ends_with("0 snapshots changed, 2 as before\n"));
    scene.check(&["tag", "--add", "x"], 2);
    scene.check(&["tag", "latest:/a", "--add", "x"], 2);
    scene.check(&["check", "--read-data"], 0);
}

fn keep_last(number: u32) -> ForgetOptions {
    let policy = Policy::new([Rule::Count(Period::Each, Count::Number(number))], Age::default());
    let choice = Choice::Policy { policy, group_by: GroupBy::default() };
    ForgetOptions { choice, filter: SnapshotFilter::default(), zone: TimeZone::UTC }
}

fn save_at(repository: &Repository, number: i64, host: &str) -> SnapshotId {
    let time = jiff::Timestamp::from_second(1_700_000_000 + number * 86_400).unwrap();
    let options = BackupOptions { time: Some(time), tags: vec!["t".into()], ..BackupOptions { host: host.into(), ..options() } };
    save(repository, &lines(number as u64, 2000), &options).unwrap().snapshot.unwrap()
}

fn present(repository: &Repository) -> Vec<Stored> {
    let (found, unreadable) = repository.snapshots().unwrap();
    assert!(unreadable.is_empty());
    found
}

fn ids(found: &[Stored]) -> Vec<SnapshotId> {
    found.iter().map(|stored| stored.id).collect()
}

/// All snapshots that a record says were removed on purpose.
fn recorded(repository: &Repository) -> Vec<SnapshotId> {
    let of_record = |record| match record {
        Record::Forget { snapshots, .. } => snapshots,
        _ => Vec::new(),
    };
    repository.records().unwrap().into_iter().flat_map(|(_, record)| of_record(record)).collect()
}

fn forget_to_two(repository: &Repository) -> Result<()> {
    let plan = plan(repository, &keep_last(2), &Silent)?;
    execute(repository, &plan, "h", &Silent)
}

fn retag_all(repository: &Repository) -> Result<()> {
    let change = TagChange::Edit { add: vec!["new".into()], remove: vec!["t".into()] };
    tag(repository, repository.snapshots()?.0, &change, "h", &Silent).map(|_| ())
}

/// Faults at every call in turn. Whatever is gone afterwards stands in a record, nothing that should stay is gone, and the next run
/// brings everything to where one without a fault does.
fn sweep(run: fn(&Repository) -> Result<()>, fault: fn(Operation) -> Option<Fault>) {
    let (bench, memory) = Bench::in_memory(3);
    let saved: Vec<SnapshotId> = (0..5).map(|number| save_at(&bench.open(), number, "h")).collect();
    let before = memory.snapshot();
    let essence = |found: &[Stored]| found.iter().map(|stored| (stored.snapshot.time, stored.snapshot.tags.clone())).collect::<Vec<_>>();
    let expected = {
        run(&bench.open()).unwrap();
        essence(&present(&bench.open()))
    };
    let mut failed = 0;
    for number in 0.. {
        let memory = Memory::new();
        memory.restore(before.clone());
        let reached = Arc::new(AtomicBool::new(false));
        let seen = reached.clone();
        let store = Faulty::new(memory.clone(), move |call| {
            let hit = call.number == number;
            seen.fetch_or(hit, Ordering::SeqCst);
            if hit { fault(call.operation) } else { None }
        });
        let bench = bench.over(Arc::new(memory.clone()));
        let outcome = bench.try_open_on(Arc::new(store)).and_then(|repository| run(&repository));
        failed += usize::from(outcome.is_err());
        let case = format!("call {number}: {outcome:?}");
        let repository = bench.open();
        let (found, recorded) = (present(&repository), recorded(&repository));
        for id in saved.iter().filter(|id| !ids(&found).contains(id)) {
            assert!(recorded.contains(id), "{case}: {id} is gone without a record");
        }
        for (time, _) in &expected {
            assert!(found.iter().any(|stored| stored.snapshot.time == *time), "{case}: one of {time} is gone");
        }
        assert!(check(&repository, ReadData::None, &Silent).unwrap().findings.is_empty(), "{case}");
        run(&repository).unwrap_or_else(|error| panic!("{case}: the next run: {error}"));
        assert_eq!(essence(&present(&bench.open())), expected, "{case}");
        if !reached.load(Ordering::SeqCst) {
            break;
        }
    }
    assert!(failed > 5, "{failed}");
}

#[test]
fn a_crash_at_any_call_of_a_forget() {
    sweep(forget_to_two, |_| Some(Fault::Crash));
    sweep(forget_to_two, |operation| match operation {
        Operation::Put | Operation::Delete => Some(Fault::StoredThenError(StorageErrorKind::Transient)),
        _ => Some(Fault::Error(StorageErrorKind::Transient)),
    });
}

#[test]
fn a_crash_at_any_call_of_a_tag() {
    sweep(retag_all, |_| Some(Fault::Crash));
    sweep(retag_all, |operation| match operation {
        Operation::Put | Operation::Delete => Some(Fault::StoredThenError(StorageErrorKind::Transient)),
        _ => Some(Fault::Error(StorageErrorKind::Transient)),
    });
}

/// Places of one area.
fn places(memory: &Memory, area: Area) -> Vec<Place> {
    memory.places().into_iter().filter(|place| place.area == area).collect()
}

/// A collection that begins or ends while tags change may not have seen the new snapshots.
#[test]
fn tags_do_not_change_while_packs_are_collected() {
    let (bench, memory) = Bench::in_memory(3);
    save_at(&bench.open(), 1, "h");
    let before = present(&bench.open());
    let time = jiff::Timestamp::UNIX_EPOCH;
    let pack = &places(&memory, Area::Packs)[0].name;
    let condemned =
        |is_final: &str| format!(r#"{{"record":"condemned","time":"{time}","host":"h","epoch":1,"packs":["{pack}"]{is_final}}}"#);
    let epoch = format!(r#"{{"record":"epoch","time":"{time}","host":"h","epoch":1}}"#);
    for (text, stands_in_the_way) in [(condemned(r#","final":true"#), true), (epoch, false), (condemned(""), false)] {
        // A record that appears with the new snapshot.
        let record = seal_record(&bench, &text);
        let other = memory.clone();
        let (place, bytes) = record.clone();
        let store = Faulty::new(memory.clone(), move |call| {
            if call.operation == Operation::Put && call.area == Area::Snapshots {
                other.insert(place.clone(), bytes.clone());
            }
            None
        });
        let error = retag_all(&bench.try_open_on(Arc::new(store)).unwrap()).unwrap_err();
        assert!(matches!(error, Error::Conflict(_)), "{error}");
        assert_eq!(ids(&present(&bench.open())), ids(&before), "the new one was withdrawn, and the old one is there");
        // One that is there already: only what may be deleted at any moment is in the way, or tags could hardly ever be changed.
        let state = memory.snapshot();
        match retag_all(&bench.open()) {
            Err(Error::Conflict(_)) if stands_in_the_way => {}
            other => assert!(!stands_in_the_way && other.is_ok(), "{text}: {other:?}"),
        }
        assert_eq!(ids(&present(&bench.open())) == ids(&before), stands_in_the_way);
        memory.restore(state);
        memory.remove(&record.0);
    }
    // What was withdrawn stands in a record, since somebody may have seen it.
    assert_eq!(recorded(&bench.open()).len(), 3);
    retag_all(&bench.open()).unwrap();
    assert_ne!(ids(&present(&bench.open())), ids(&before));
}

/// A record as another program of this repository would store it.
fn seal_record(bench: &Bench, text: &str) -> (Place, Vec<u8>) {
    let record = Record::decode(text.as_bytes()).unwrap();
    let repository = bench.open();
    let random = |seed: u8| Arc::new(move || [seed; 32]);
    let kind = snap_backup::format::envelope::Kind::Record;
    let sealer = snap_backup::crypto::Sealer::new(repository.keys().clone(), kind, repository.id(), random(7));
    let body = record.encode();
    let mut plain = vec![0];
    plain.extend_from_slice(&(body.len() as u64).to_le_bytes());
    plain.extend_from_slice(&body);
    let mut stored = sealer.header().encode();
    let sealed = sealer.seal(&snap_backup::format::envelope::object_associated_data(sealer.header()), &plain);
    stored.extend_from_slice(&sealed);
    (Place::record(ObjectName::of(&stored)), stored)
}

/// What version 0.1.0 does not know stays in a snapshot whose tags change; and it reads what this one writes.
#[test]
fn a_snapshot_with_other_tags_reads_as_before() {
    let (bench, _) = Bench::in_memory(3);
    let old = save_at(&bench.open(), 1, "h");
    retag_all(&bench.open()).unwrap();
    let found = present(&bench.open());
    assert_eq!((found[0].snapshot.original, found[0].snapshot.tags.join(",")), (Some(old), "new".into()));
    assert!(bench.dump("latest").unwrap() == lines(1, 2000));
    assert_eq!(recorded(&bench.open()), [old]);
    // The next backup of the stream still finds what it is compared with.
    let report = save(&bench.open(), &lines(1, 2000), &BackupOptions { host: "h".into(), ..options() }).unwrap();
    assert!(report.unchanged && report.parent == Some(found[0].id));
}
