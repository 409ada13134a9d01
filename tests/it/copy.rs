//! Copies between repositories: everything comes over, once, verified; and what is damaged does not come over silently.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use snap_backup::backend::{Area, Backend, Fault, Faulty, Memory, Operation, Place};
use snap_backup::error::{Error, Result, StorageErrorKind};
use snap_backup::format::report::{Check, Did, Drill, Prune, Report, Run};
use snap_backup::ops::audit::audit;
use snap_backup::ops::backup::BackupOptions;
use snap_backup::ops::copy::{CopyOptions, CopyReport, Outcome, copy, missing};
use snap_backup::ops::status::{Expectations, gather, judge};
use snap_backup::progress::Silent;
use snap_backup::repo::{Repository, SnapshotFilter};

use crate::cli::{Scene, expect, stderr};
use crate::support::*;

const SEED: u64 = 171;

fn copy_options() -> CopyOptions {
    CopyOptions { threads: 2, ..CopyOptions::default() }
}

fn copy_all(from: &Repository, to: &Repository) -> CopyReport {
    copy(from, to, &copy_options(), &Silent, &mut |_, _| Ok(())).unwrap()
}

/// What became of each snapshot, in order.
fn fates(from: &Repository, to: &Repository, options: &CopyOptions) -> Vec<String> {
    let mut seen = Vec::new();
    copy(from, to, options, &Silent, &mut |_, outcome| {
        seen.push(match outcome {
            Outcome::Copied(copied) => format!("copied, {} lost", copied.lost),
            Outcome::There(_) => "there".into(),
            Outcome::Wanted => "wanted".into(),
            Outcome::Failed(error) => format!("failed: {error}"),
        });
        Ok(())
    })
    .unwrap();
    seen
}

fn stored_bytes(memory: &Memory) -> u64 {
    memory.places().iter().map(|place| memory.get(place, u64::MAX).unwrap().len() as u64).sum()
}

/// Nights of one stream, each a little different, and a tree.
fn nights(bench: &Bench) -> Vec<Vec<u8>> {
    let mut versions = Vec::new();
    let mut bytes = lines(1, 3_000_000);
    for night in 0..4u64 {
        versions.push(bytes.clone());
        let named = BackupOptions { tags: vec![format!("night{night}")], user: "me".into(), ..options() };
        save(&bench.open(), &bytes, &named).unwrap();
        for row in 0..60 {
            let at = (row * 50_000 + night as usize * 7_000) % (bytes.len() - 20);
            bytes[at..at + 10].copy_from_slice(format!("{:>10}", night * 1000 + row as u64).as_bytes());
        }
    }
    versions
}

fn same_but_ids(a: &Repository, b: &Repository) {
    let (a, b) = (a.snapshots().unwrap().0, b.snapshots().unwrap().0);
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(&b) {
        let (a_id, mut a, mut b) = (a.id, a.snapshot.clone(), b.snapshot.clone());
        assert_eq!(b.original, Some(a.original.unwrap_or(a_id)));
        assert_eq!((a.parent.is_some(), a.totals.bytes), (b.parent.is_some(), b.totals.bytes));
        for snapshot in [&mut a, &mut b] {
            (snapshot.parent, snapshot.original) = (None, None);
            (snapshot.totals.bytes_new, snapshot.totals.bytes_stored) = (0, 0);
            (snapshot.catalog, snapshot.path_table) = Default::default();
            snapshot.catalog_len = 0;
        }
        assert_eq!(a, b);
    }
}

#[test]
fn nights_of_a_stream_come_over_once_and_cost_what_changed() {
    let (source, source_memory) = Bench::in_memory(SEED);
    let versions = nights(&source);
    let (target, memory) = Bench::in_memory(SEED + 1);
    let report = copy_all(&source.open(), &target.open());
    assert_eq!((report.copied, report.there, report.failed), (4, 0, 0));
    same_but_ids(&source.open(), &target.open());
    let ids: Vec<String> = target.open().snapshots().unwrap().0.iter().map(|stored| stored.id.hex()).collect();
    for (id, version) in ids.iter().zip(&versions) {
        assert!(target.dump(id).unwrap() == *version);
    }
    assert_clean(&target.open());
    let (original, copy) = (stored_bytes(&source_memory), stored_bytes(&memory));
    assert!(copy < original * 11 / 10, "{copy} bytes for a copy of {original}");
    let new: u64 = source.open().snapshots().unwrap().0.iter().map(|stored| stored.snapshot.totals.bytes_new).sum();
    assert!(report.bytes_new < new * 11 / 10, "{} new for {new} of the original", report.bytes_new);

    // Again: nothing. One more night: that one.
    let before = memory.places();
    assert_eq!(copy_all(&source.open(), &target.open()).there, 4);
    assert_eq!(memory.places(), before);
    source.save(&versions[1]);
    let report = copy_all(&source.open(), &target.open());
    assert_eq!((report.copied, report.there), (1, 4));
    // And back: all are there.
    assert_eq!(copy_all(&target.open(), &source.open()).there, 5);
    assert!(missing(&source.open(), &target.open()).unwrap().is_empty());
}

#[test]
fn a_tree_comes_over_with_everything_and_unchanged_files_are_not_read() {
    let (source, memory) = Bench::in_memory(SEED);
    let tree = tempfile::tempdir().unwrap();
    let at = |name: &str| tree.path().join(name);
    for number in 0..300 {
        fs::create_dir_all(at(&format!("d{}", number % 7))).unwrap();
        fs::write(at(&format!("d{}/f{number}", number % 7)), noise(number, (number as usize * 131) % 40_000)).unwrap();
    }
    fs::write(at("big"), lines(5, 2_000_000)).unwrap();
    fs::write(at("empty"), b"").unwrap();
    fs::set_permissions(at("big"), fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("big", at("link")).unwrap();
    fs::hard_link(at("big"), at("other-name")).unwrap();
    let sparse = fs::File::create(at("sparse")).unwrap();
    sparse.set_len(10_000_000).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, &noise(3, 100_000), 5_000_000).unwrap();
    let _ = xattr::set(at("big"), "user.snap", b"value");
    save_tree(&source.open(), tree.path(), &options()).unwrap();
    fs::write(at("d1/f1"), b"changed").unwrap();
    fs::remove_file(at("d2/f2")).unwrap();
    save_tree(&source.open(), tree.path(), &options()).unwrap();

    let (target, _) = Bench::in_memory(SEED + 1);
    let counted = Arc::new(Faulty::new(memory, |_| None));
    let from = source.try_open_on(counted.clone()).unwrap();
    assert_eq!(fates(&from, &target.open(), &CopyOptions { which: vec!["latest~1".into()], ..copy_options() }), ["copied, 0 lost"]);
    let first = counted.calls();
    assert_eq!(fates(&from, &target.open(), &copy_options()), ["there", "copied, 0 lost"]);
    assert!(counted.calls() - first < first, "{first} calls for all, {} for what changed", counted.calls() - first);
    same_but_ids(&source.open(), &target.open());
    let restored = tempfile::tempdir().unwrap();
    let which = format!("latest:{}", tree.path().display());
    let (_, problems) = restore_to(&target.open(), &which, restored.path(), &Default::default());
    assert_eq!(problems, []);
    assert_eq!(describe(restored.path()), describe(tree.path()));
    assert_clean(&target.open());
}

#[test]
fn snapshots_are_chosen_as_everywhere() {
    let (source, _) = Bench::in_memory(SEED);
    nights(&source);
    save(&source.open(), b"x", &BackupOptions { name: Some("other".into()), ..options() }).unwrap();
    let (target, memory) = Bench::in_memory(SEED + 1);
    let with = |which: &[&str], tags: &[&str], dry_run| CopyOptions {
        which: which.iter().map(|text| text.to_string()).collect(),
        filter: SnapshotFilter { tags: tags.iter().map(|tag| vec![tag.to_string()]).collect(), ..SnapshotFilter::default() },
        dry_run,
        ..copy_options()
    };
    let before = memory.places();
    assert_eq!(fates(&source.open(), &target.open(), &with(&[], &[], true)), ["wanted"; 5]);
    assert_eq!(memory.places(), before, "a dry run stores nothing");
    assert_eq!(fates(&source.open(), &target.open(), &with(&[], &["night2"], false)), ["copied, 0 lost"]);
    assert_eq!(fates(&source.open(), &target.open(), &with(&["latest", "latest"], &[], false)), ["copied, 0 lost"]);
    // Older ones that come later are put against the nearest.
    assert_eq!(fates(&source.open(), &target.open(), &with(&[], &[], false)).iter().filter(|fate| *fate == "there").count(), 2);
    same_but_ids_by_time(&source.open(), &target.open());
    let wrong = |which: &str| copy(&source.open(), &target.open(), &with(&[which], &[], false), &Silent, &mut |_, _| Ok(())).unwrap_err();
    assert!(matches!(wrong("latest:/db"), Error::Usage(_)) && matches!(wrong("latest~9"), Error::NotFound(_)));
}

fn same_but_ids_by_time(a: &Repository, b: &Repository) {
    let of = |repository: &Repository| -> Vec<_> {
        repository
            .snapshots()
            .unwrap()
            .0
            .into_iter()
            .map(|stored| (stored.snapshot.time, stored.snapshot.tags, stored.snapshot.name))
            .collect()
    };
    assert_eq!(of(a), of(b));
}

/// A clone of the folder has the same keys, and a copy of a copy knows the first original.
#[test]
fn clones_and_chains() {
    let (source, source_memory) = Bench::in_memory(SEED);
    let bytes = lines(1, 500_000);
    source.save(&bytes);
    let clone_memory = Memory::new();
    clone_memory.restore(source_memory.snapshot());
    let clone = source.over(Arc::new(clone_memory));
    let changed = [&bytes[..], b"and more"].concat();
    source.save(&changed);
    assert_eq!(fates(&source.open(), &clone.open(), &copy_options()), ["there", "copied, 0 lost"]);
    assert!(clone.dump("latest").unwrap() == changed);
    let (third, _) = Bench::in_memory(SEED + 2);
    copy_all(&clone.open(), &third.open());
    let originals = |bench: &Bench| -> Vec<_> {
        bench.open().snapshots().unwrap().0.into_iter().map(|stored| stored.snapshot.original.unwrap_or(stored.id)).collect()
    };
    assert_eq!(originals(&third), originals(&source));
    assert_eq!(copy_all(&source.open(), &third.open()).there, 2);
}

/// Faults at each call of either side: what is listed in the target is whole, and the next run brings the rest.
#[test]
fn a_copy_can_be_cut_short_anywhere() {
    let (source, source_memory) = Bench::in_memory(SEED);
    let first = lines(1, 400_000);
    let second = [&first[..100_000], &noise(2, 50_000), &first[120_000..]].concat();
    source.save(&first);
    source.save(&second);
    let (target, target_memory) = Bench::in_memory(SEED + 1);
    let empty = target_memory.snapshot();
    let judge = |memory: &Memory, case: &str| {
        let bench = target.over(Arc::new(memory.clone()));
        for stored in bench.open().snapshots().unwrap().0 {
            let bytes = bench.dump(&stored.id.hex()).unwrap();
            assert!(bytes == first || bytes == second, "{case}");
        }
        assert_clean(&bench.open());
        let report = copy_all(&source.open(), &bench.open());
        assert_eq!(report.copied + report.there, 2, "{case}");
        assert!(missing(&source.open(), &bench.open()).unwrap().is_empty());
        assert!(bench.dump("latest").unwrap() == second && bench.dump("latest~1").unwrap() == first, "{case}");
        assert_eq!(bench.open().snapshots().unwrap().0.len(), 2, "{case}");
        assert_clean(&bench.open());
    };
    let run = |from: Arc<dyn Backend>, to: Arc<dyn Backend>| -> Result<CopyReport> {
        copy(&source.try_open_on(from)?, &target.try_open_on(to)?, &copy_options(), &Silent, &mut |_, _| Ok(()))
    };
    let mut failed = 0;
    for side in ["from", "to"] {
        for fault in [Fault::Crash, Fault::Error(StorageErrorKind::Transient)] {
            for number in 0.. {
                let memory = Memory::new();
                memory.restore(empty.clone());
                let inner = if side == "from" { source_memory.clone() } else { memory.clone() };
                let faulty = Arc::new(Faulty::at(inner, number, fault));
                let outcome = match side {
                    "from" => run(faulty.clone(), Arc::new(memory.clone())),
                    _ => run(Arc::new(source_memory.clone()), faulty.clone()),
                };
                failed += u64::from(outcome.is_err());
                judge(&memory, &format!("{side} {fault:?} at call {number}"));
                // Threads read in changing order, so a run may make some calls less.
                if faulty.calls() <= number {
                    break;
                }
            }
        }
    }
    assert!(failed > 20, "{failed}");
}

/// A collection that begins while a copy runs: the copy is withdrawn and not left to rot.
#[test]
fn a_copy_that_relies_on_what_goes_is_withdrawn() {
    let (source, _) = Bench::in_memory(SEED);
    source.save(&noise(1, 100_000));
    let (_, target_memory) = Bench::in_memory(SEED + 1);
    let target = Bench::in_memory(SEED + 1).0.over(Arc::new(target_memory.clone()));
    let other_host = target_memory.clone();
    let store = Faulty::new(target_memory.clone(), move |call| {
        if call.operation == Operation::Put && call.area == Area::Snapshots {
            other_host.places().into_iter().filter(|place| place.area == Area::Packs).for_each(|place| drop(other_host.remove(&place)));
        }
        None
    });
    let to = target.try_open_on(Arc::new(store)).unwrap();
    let error = copy(&source.open(), &to, &copy_options(), &Silent, &mut |_, _| Ok(())).unwrap_err();
    assert!(matches!(error, Error::Conflict(_)), "{error}");
    assert_eq!(target.open().snapshots().unwrap().0.len(), 0);
}

/// Loses packs of the source one by one.
#[test]
fn what_is_damaged_is_named_and_not_copied_silently() {
    let (source, source_memory) = Bench::in_memory(SEED);
    let tree = tempfile::tempdir().unwrap();
    for number in 0..3 {
        fs::write(tree.path().join(format!("f{number}")), noise(number, 30_000)).unwrap();
    }
    save_tree(&source.open(), tree.path(), &options()).unwrap();
    let good = source_memory.places();
    fs::write(tree.path().join("f3"), noise(9, 200_000)).unwrap();
    save_tree(&source.open(), tree.path(), &options()).unwrap();
    // The pack with nothing but the new file's bytes.
    let new: Vec<Place> = source_memory.places().into_iter().filter(|place| place.area == Area::Packs && !good.contains(place)).collect();
    let lost = new.into_iter().max_by_key(|place| source_memory.get(place, u64::MAX).unwrap().len()).unwrap();
    let saved = source_memory.remove(&lost).unwrap();

    let (target, _) = Bench::in_memory(SEED + 1);
    let heard = Heard::default();
    let mut seen = Vec::new();
    let report = copy(&source.open(), &target.open(), &copy_options(), &heard, &mut |_, outcome| {
        seen.push(matches!(outcome, Outcome::Copied(_)));
        Ok(())
    });
    let report = report.unwrap();
    assert_eq!((seen, report.copied, report.failed, report.unsupported), (vec![true, false], 1, 1, 0));
    let problems: Vec<String> = heard.problems().iter().map(|problem| String::from_utf8_lossy(&problem.subject).into_owned()).collect();
    assert!(problems.len() == 1 && problems[0].ends_with("/f3"), "{problems:?}");
    assert_eq!(target.open().snapshots().unwrap().0.len(), 1);

    // What is left of it, when asked for: marked, and made once only.
    let salvage = CopyOptions { salvage: true, ..copy_options() };
    assert_eq!(fates(&source.open(), &target.open(), &salvage), ["there", "copied, 1 lost"]);
    assert_eq!(fates(&source.open(), &target.open(), &salvage), ["there", "there"]);
    let partial = target.open().snapshots().unwrap().0.pop().unwrap();
    assert!(!partial.snapshot.is_complete() && partial.snapshot.totals.flawed == 1);
    assert_eq!(missing(&source.open(), &target.open()).unwrap().len(), 1, "a copy that lacks something does not count");
    let restored = tempfile::tempdir().unwrap();
    let (_, problems) = restore_to(&target.open(), &format!("latest:{}", tree.path().display()), restored.path(), &Default::default());
    assert_eq!(problems.len(), 1);
    assert!(fs::read(restored.path().join("f1")).unwrap() == noise(1, 30_000) && !restored.path().join("f3").exists());
    assert_clean(&target.open());

    // The pack is found again: now it comes over whole.
    source_memory.insert(lost, saved);
    assert_eq!(fates(&source.open(), &target.open(), &copy_options()), ["there", "copied, 0 lost"]);
    assert!(missing(&source.open(), &target.open()).unwrap().is_empty());
}

/// What runs and drills told of comes along, once, as it is; what was done to the store itself does not.
#[test]
fn reports_of_runs_and_drills_come_along() {
    let ((source, memory), (target, _)) = (Bench::in_memory(SEED), Bench::in_memory(SEED + 1));
    let name = |name: &str| BackupOptions { name: Some(name.into()), ..options() };
    let saved = ["a", "b"].map(|job| save(&source.open(), job.as_bytes(), &name(job)).unwrap().snapshot.unwrap());
    let store = |bench: &Bench, seconds: f64, did: Did| {
        let repository = bench.open();
        let time = repository.world().now();
        let report = Report { seconds, ..Report::new(time, "host".into(), "u".into(), did) };
        repository.save_report(&report).unwrap();
        report
    };
    let run = |job: &str, snapshot| Did::Run(Run { job: job.into(), snapshot, ..Run::default() });
    let told = [
        store(&source, 1.0, run("a", Some(saved[0]))),
        store(&source, 2.0, run("b", Some(saved[1]))),
        store(&source, 3.0, run("b", None)),
        store(&source, 4.0, Did::Drill(Drill { job: "a".into(), snapshot: Some(saved[0]), ..Drill::default() })),
    ];
    store(&source, 5.0, Did::Check(Check { whole: true, ..Check::default() }));
    store(&source, 6.0, Did::Prune(Prune::default()));
    let there = |bench: &Bench| bench.open().reports().unwrap().0.into_iter().map(|stored| stored.report).collect::<Vec<_>>();
    let with = |which: &[&str], names: &[&str], dry_run: bool| {
        let texts = |list: &[&str]| list.iter().map(|text| text.to_string()).collect::<Vec<_>>();
        let filter = SnapshotFilter { names: texts(names), ..SnapshotFilter::default() };
        let options = CopyOptions { which: texts(which), filter, dry_run, ..copy_options() };
        copy(&source.open(), &target.open(), &options, &Silent, &mut |_, _| Ok(())).unwrap().reports
    };
    assert_eq!((with(&[], &[], true), there(&target).len()), (4, 0));
    assert_eq!(with(&[&saved[1].hex()], &[], false), 1);
    assert_eq!(there(&target), told[1..2]);
    assert_eq!(with(&[], &["a"], false), 2);
    assert_eq!((with(&[], &[], false), with(&[], &[], false)), (1, 0));
    assert_eq!(there(&target), told);
    assert_eq!(copy_all(&target.open(), &source.open()).reports, 0, "what comes back is known");

    // They are told of copies as they are of the originals.
    let facts = gather(&target.open()).unwrap();
    let status = judge(&facts, &Expectations::default(), told[3].time);
    assert!(status.jobs.iter().all(|job| job.last_try.is_some()), "{status:?}");
    let audit = audit(&target.open(), None, None).unwrap();
    assert_eq!(audit.events.len(), told.len(), "a run and its snapshot are one event: {:?}", audit.events);

    let damaged = memory.places().into_iter().find(|place| place.area == Area::Reports).unwrap();
    let mut bytes = memory.remove(&damaged).unwrap();
    bytes[100] ^= 1;
    memory.insert(damaged, bytes);
    let (fresh, _) = Bench::in_memory(SEED + 2);
    let report = copy_all(&source.open(), &fresh.open());
    assert_eq!((report.reports_unreadable, report.copied), (1, 2));
    assert!(there(&fresh).len() >= 3);
}

/// A stream of which nothing can be read makes no snapshot, whatever was asked for.
#[test]
fn a_lost_stream_is_not_copied() {
    let (source, memory) = Bench::in_memory(SEED);
    source.save(&noise(1, 3_000_000));
    let packs = memory.places().into_iter().filter(|place| place.area == Area::Packs);
    let largest = packs.max_by_key(|place| memory.get(place, u64::MAX).unwrap().len()).unwrap();
    memory.edit(&largest, |bytes| bytes[1_500_000] ^= 1);
    let (target, _) = Bench::in_memory(SEED + 1);
    for salvage in [false, true] {
        let fates = fates(&source.open(), &target.open(), &CopyOptions { salvage, ..copy_options() });
        assert!(fates[0].starts_with("failed: ") && fates[0].contains("1 of its paths"), "{fates:?}");
    }
    assert!(target.open().snapshots().unwrap().0.is_empty());
    // A snapshot record that is damaged is counted, and keeps nothing else.
    source.save(&lines(1, 1000));
    let record = memory.places().into_iter().filter(|place| place.area == Area::Snapshots).find(|place| {
        let id = source.open().snapshots().unwrap().0[0].id.hex();
        place.name == id
    });
    memory.edit(&record.unwrap(), |bytes| bytes[80] ^= 1);
    let report = copy_all(&source.open(), &target.open());
    assert_eq!((report.copied, report.unreadable), (1, 1));
}

fn private(scene: &Scene, name: &str, text: &str) -> String {
    let path = scene.write(name, text.as_bytes());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[test]
fn copies_and_rekeys_from_the_command_line() {
    let scene = Scene::ready();
    scene.write("data/a", &noise(1, 50_000));
    scene.check(&["backup", "data", "--tag", "t"], 0);
    scene.feed(&["backup", "--stdin", "--stdin-filename", "db.sql"], &lines(1, 500_000), 0);
    let password = private(&scene, "password", "hunter2\n");
    let offsite = |args: &[&str], code| {
        let mut command = scene.bare(args);
        command.env("SNAP_REPOSITORY", scene.at("offsite")).env("SNAP_PASSWORD_FILE", &password);
        expect(&mut command, code)
    };
    offsite(&["init", "-q"], 0);
    let (from, key) = (scene.at("r"), scene.at("key"));
    let (from, key) = (from.to_str().unwrap(), key.to_str().unwrap());
    let base = ["copy", "--from-repo", from, "--from-key-file", key];
    let args = |more: &[&'static str]| -> Vec<&str> { base.iter().copied().chain(more.iter().copied()).collect() };
    let said = |output: std::process::Output| String::from_utf8(output.stdout).unwrap();
    assert!(said(offsite(&args(&["--dry-run"]), 0)).ends_with("dry run: 2 snapshots would be copied\n"));
    assert!(said(offsite(&args(&["--tag", "t"]), 0)).ends_with("1 snapshot copied\n"));
    let lines_said = said(offsite(&args(&["--json"]), 0));
    let found: Vec<Value> = lines_said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let actions: Vec<&Value> = found.iter().filter(|value| value["message_type"] == "snapshot").map(|value| &value["action"]).collect();
    assert_eq!(actions, ["unchanged", "copied"]);
    assert_eq!(found.last().unwrap()["snapshots_copied"], 1);
    assert!(offsite(&["dump", "latest"], 0).stdout == lines(1, 500_000));
    offsite(&["check", "--read-data"], 0);
    assert!(said(offsite(&args(&[]), 0)).contains("there     2 snapshots"));
    offsite(&["copy"], 2);
    offsite(&["copy", "--from-repo", from], 2);
    offsite(&["copy", "--from-repo", from, "--from-password-file", &password], 12);
    offsite(&["copy", "--from-repo", "/no/such", "--from-key-file", key], 10);

    // Rekey: a new place, new keys; again, it goes on.
    let rekey = ["rekey", "--to", "new", "--new-key-file", "newkey"];
    let text = scene.text(&rekey);
    assert!(text.contains("all 2 snapshots are in new, under a new key") && text.contains("What to do now"), "{text}");
    scene.check(&["backup", "data"], 0);
    assert!(scene.text(&rekey).contains("all 3 snapshots"));
    let new = |args: &[&str], code| {
        expect(scene.bare(args).env("SNAP_REPOSITORY", scene.at("new")).env("SNAP_KEY_FILE", scene.at("newkey")), code)
    };
    new(&["check", "--read-data"], 0);
    assert!(new(&["dump", "latest~1"], 0).stdout == lines(1, 500_000));
    expect(scene.bare(&["snapshots"]).env("SNAP_REPOSITORY", scene.at("new")).env("SNAP_KEY_FILE", key), 12);
    let output = scene.check(&["rekey", "--to", "r", "--new-key-file", "key"], 2);
    assert!(stderr(&output).contains("the same key"), "{}", stderr(&output));
    scene.check(&["rekey", "--to", "new", "--new-key-file", "wrong"], 1);
    scene.check(&["rekey"], 2);

    // Damage in the old one ends with 20, and the old one is to be kept.
    let pack = largest_pack(Path::new(from));
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&pack, bytes).unwrap();
    let output = scene.check(&["rekey", "--to", "third", "--new-key-file", "thirdkey"], 20);
    assert!(stderr(&output).contains("keep it"), "{}", stderr(&output));
}

fn largest_pack(repository: &Path) -> std::path::PathBuf {
    let shards = fs::read_dir(repository.join("packs")).unwrap().map(|entry| entry.unwrap().path());
    let packs = shards.flat_map(|shard| fs::read_dir(shard).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>());
    packs.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

/// A source whose key slots are gone.
#[test]
fn words_of_the_source_are_enough() {
    let (source, memory) = Bench::in_memory(SEED);
    source.save(b"precious");
    let words = source.open().master().words().as_bytes().to_vec();
    memory.places().into_iter().filter(|place| place.area == Area::Keys).for_each(|place| drop(memory.remove(&place)));
    let opening = snap_backup::repo::Opening { secret: snap_backup::crypto::Secret::Words(words), cache: None, world: world(5, FAR) };
    let from = Repository::open(Arc::new(memory), opening).unwrap();
    let (target, _) = Bench::in_memory(SEED + 1);
    assert_eq!(copy_all(&from, &target.open()).copied, 1);
    assert_eq!(target.dump("latest").unwrap(), b"precious");
}
