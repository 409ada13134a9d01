//! Judgements by made-up facts and clocks.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::format::report::{Check, Did, Drill, PackNames, Report, Run, Step};
use crate::format::snapshot::{Part, Snapshot, SourceKind, Totals};

const NOW: &str = "2026-11-21T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

/// So many hours before now.
fn hours(ago: f64) -> Timestamp {
    now() - SignedDuration::from_secs_f64(ago * 3600.0)
}

fn id(number: u8) -> ObjectName {
    ObjectName([number; 32])
}

fn snapshot(number: u8, name: &str, ago: f64, bytes: u64) -> Stored {
    let snapshot = Snapshot {
        time: hours(ago),
        started: None,
        seconds: 60.0,
        host: "db1".into(),
        user: String::new(),
        name: name.into(),
        tags: Vec::new(),
        source: SourceKind::Stream,
        paths: Vec::new(),
        parent: None,
        original: None,
        dumps: Vec::new(),
        totals: Totals { files: 1, bytes, bytes_stored: bytes / 10, ..Totals::default() },
        program: String::new(),
        catalog: Default::default(),
        catalog_len: 0,
        path_table: Default::default(),
        repaired: None,
        parts: Vec::new(),
    };
    Stored { id: id(number), snapshot }
}

fn report(ago: f64, outcome: Outcome, did: Did) -> StoredReport {
    let report = Report {
        time: hours(ago),
        seconds: 60.0,
        host: "db1".into(),
        user: String::new(),
        program: String::new(),
        outcome,
        error: (outcome != Outcome::Good).then(|| "it broke".into()),
        exit_code: if outcome == Outcome::Good { 0 } else { 1 },
        warnings: Vec::new(),
        did,
    };
    StoredReport { id: id(200), report }
}

fn run(job: &str, saved: Option<u8>, steps: &[(&str, bool)]) -> Did {
    let step = |(name, good): &(&str, bool)| Step { name: (*name).into(), seconds: 1.0, error: (!good).then(|| "it broke".into()) };
    Did::Run(Run { job: job.into(), snapshot: saved.map(id), steps: steps.iter().map(step).collect(), ..Run::default() })
}

fn facts(mut snapshots: Vec<Stored>, mut reports: Vec<StoredReport>) -> Facts {
    snapshots.sort_by_key(|stored| stored.snapshot.time);
    reports.sort_by_key(|stored| stored.report.time);
    Facts { snapshots, reports, created: hours(20_000.0), ..Facts::default() }
}

fn judged(facts: &Facts) -> Status {
    judge(facts, &Expectations::default(), now())
}

/// Of the only stream: its state, and what was said.
fn only(facts: &Facts) -> (State, String) {
    let status = judged(facts);
    assert_eq!(status.jobs.len(), 1);
    let job = &status.jobs[0];
    let said: Vec<&str> = job.missed.iter().map(|missed| missed.message.as_str()).chain(job.warnings.iter().map(String::as_str)).collect();
    assert!(job.age.is_none_or(|age| age >= 0.0));
    (job.state, said.join("; "))
}

#[test]
fn ages_meet_the_objective_to_the_second() {
    for (ago, state) in [(0.0, State::Ok), (26.0, State::Ok), (26.001, State::Missed), (500.0, State::Missed)] {
        let (found, said) = only(&facts(vec![snapshot(1, "orders", ago, 100)], vec![]));
        assert_eq!(found, state, "{ago}: {said}");
        assert_eq!(said.contains("is allowed") || said.contains("are allowed"), state == State::Missed, "{said}");
    }
}

#[test]
fn what_is_not_good_does_not_count() {
    let old = || snapshot(1, "orders", 40.0, 100);
    let fresh = || snapshot(2, "orders", 2.0, 100);
    assert_eq!(only(&facts(vec![old(), fresh()], vec![])).0, State::Ok);
    // Some of it could not be read.
    let mut flawed = fresh();
    flawed.snapshot.totals.flawed = 1;
    let (state, said) = only(&facts(vec![old(), flawed], vec![]));
    assert_eq!(state, State::Missed);
    assert!(said.contains("was incomplete: 1 file could not be read"), "{said}");
    // Its dump ends too early. In a tree, that says nothing of the other files.
    let dump = crate::format::dump::Dump {
        path: "orders".into(),
        verdict: crate::format::dump::Verdict::Incomplete,
        why: "its last line is missing".into(),
        ..Default::default()
    };
    let mut cut = fresh();
    cut.snapshot.dumps.push(dump);
    let (state, said) = only(&facts(vec![old(), cut.clone()], vec![]));
    assert_eq!(state, State::Missed);
    assert!(said.contains("the dump orders is incomplete: its last line is missing"), "{said}");
    cut.snapshot.source = SourceKind::Tree;
    assert_eq!(only(&facts(vec![old(), cut], vec![])).0, State::Warning);
    // A source of it is not what was expected.
    let mut unmet = fresh();
    let why = vec!["orders has 1 B, less than 1 MiB".to_owned()];
    unmet.snapshot.parts = vec![Part { name: "orders".into(), unmet: why, ..Part::default() }];
    let (state, said) = only(&facts(vec![old(), unmet], vec![]));
    assert_eq!(state, State::Missed);
    assert!(said.contains("was incomplete: orders has 1 B, less than 1 MiB"), "{said}");
    // A repair cut something out.
    let mut repaired = fresh();
    repaired.snapshot.repaired = Some(crate::format::snapshot::Repaired { original: id(9), time: now(), lost: Vec::new(), more: 0 });
    let (state, said) = only(&facts(vec![old(), repaired], vec![]));
    assert_eq!((state, said.contains("repair")), (State::Missed, true), "{said}");
    // Its run found fault with it: also under the id it has with other tags.
    let mut tagged = snapshot(3, "orders", 2.0, 100);
    tagged.snapshot.original = Some(id(2));
    for stored in [fresh(), tagged] {
        for (outcome, steps, state) in [
            (Outcome::Failed, &[][..], State::Missed),
            (Outcome::Partial, &[("backup", true), ("verify", false)], State::Missed),
            (Outcome::Partial, &[("backup", true), ("verify", true), ("prune", false)], State::Warning),
            (Outcome::Failed, &[("backup", true), ("verify", true), ("verify store", false)], State::Warning),
            (Outcome::Failed, &[("backup", true), ("prune", false)], State::Warning),
            (Outcome::Failed, &[("backup", true), ("verify", false), ("verify store", false)], State::Missed),
            (Outcome::Good, &[("backup", true), ("verify", true)], State::Ok),
        ] {
            let reports = vec![report(2.1, outcome, run("orders", Some(2), steps))];
            let (found, said) = only(&facts(vec![old(), stored.clone()], reports));
            assert_eq!(found, state, "{steps:?}: {said}");
        }
    }
}

#[test]
fn a_job_that_never_succeeded_is_seen() {
    let (state, said) = only(&facts(vec![], vec![report(3.0, Outcome::Failed, run("orders", None, &[]))]));
    assert_eq!((state, said.as_str()), (State::Missed, "there is no good snapshot; the last try, 3 h 00 min ago, failed: it broke"));
    let expected = Expected { host: "db1".into(), job: "new".into(), tier: Tier::Critical, objectives: Objectives::default() };
    let expectations = Expectations { jobs: vec![expected], ..Expectations::default() };
    let status = judge(&facts(vec![snapshot(1, "orders", 1.0, 5)], vec![]), &expectations, now());
    assert_eq!((status.jobs.len(), status.other_streams, status.healthy), (1, 1, false));
    let status = judge(&Facts { created: hours(1.0), ..Facts::default() }, &Expectations::default(), now());
    assert!(!status.healthy && status.oldest_good().is_none());
}

#[test]
fn a_failure_after_a_good_snapshot_is_a_warning_and_ends_with_the_next() {
    let failed = |ago| report(ago, Outcome::Failed, run("orders", None, &[]));
    let (state, said) = only(&facts(vec![snapshot(1, "orders", 10.0, 5)], vec![failed(2.0)]));
    assert_eq!((state, said.as_str()), (State::Warning, "the last try, 2 h 00 min ago, failed: it broke"));
    assert_eq!(only(&facts(vec![snapshot(1, "orders", 1.0, 5)], vec![failed(2.0)])).0, State::Ok);
    let good = report(1.0, Outcome::Good, run("orders", Some(1), &[]));
    assert_eq!(only(&facts(vec![snapshot(1, "orders", 0.99, 5)], vec![failed(2.0), good])).0, State::Ok);
}

#[test]
fn the_future_makes_nothing_healthy() {
    let ahead = |number| snapshot(number, "orders", -50.0, 5);
    let (state, said) = only(&facts(vec![snapshot(1, "orders", 40.0, 5), snapshot(2, "orders", 60.0, 5), ahead(3)], vec![]));
    assert_eq!(state, State::Missed);
    assert!(said.contains("1 d 16 h old") && said.contains("1 snapshot from the future"), "{said}");
    // Clocks of two machines differ a little.
    let status = judged(&facts(vec![snapshot(1, "orders", -0.1, 5)], vec![]));
    assert_eq!((status.healthy, status.jobs[0].age), (true, Some(0.0)));
    // A run from the future is not the last.
    let reports = vec![report(-50.0, Outcome::Failed, run("orders", None, &[]))];
    assert_eq!(only(&facts(vec![snapshot(1, "orders", 1.0, 5)], reports)).0, State::Ok);
}

#[test]
fn a_clock_that_cannot_be_right_judges_nothing() {
    let all = facts((1..9).map(|n| snapshot(n, "orders", f64::from(n), 5)).collect(), vec![]);
    for clock in ["2000-01-01T00:00:00Z", "2026-11-19T12:00:00Z"] {
        let status = judge(&all, &Expectations::default(), clock.parse().unwrap());
        let job = &status.jobs[0];
        assert_eq!((status.healthy, job.age, job.missed[0].objective), (false, None, Objective::Clock), "{clock}");
        assert_eq!(job.last_good.as_ref().unwrap().snapshot_id, id(1));
        assert!(job.missed[0].message.contains("clock"));
    }
    // Set forward: that looks like a long night, and is said as one.
    let status = judge(&all, &Expectations::default(), "2027-11-21T12:00:00Z".parse().unwrap());
    assert_eq!(status.jobs[0].missed[0].objective, Objective::MaxAge);
}

#[test]
fn verification_comes_from_runs_drills_and_whole_checks() {
    let stored = || vec![snapshot(1, "orders", 2.0, 5)];
    let check = |whole| Did::Check(Check { whole, packs: PackNames::of(&[id(7)]), ..Check::default() });
    let last = |reports| judged(&facts(stored(), reports)).jobs[0].last_verified;
    assert_eq!(last(vec![]), None);
    assert_eq!(last(vec![report(5.0, Outcome::Good, check(false))]), None);
    assert_eq!(last(vec![report(5.0, Outcome::Failed, check(true))]), None);
    assert_eq!(last(vec![report(5.0, Outcome::Good, check(true))]), Some(hours(5.0)));
    let read_back = |good| report(2.1, if good { Outcome::Good } else { Outcome::Failed }, run("orders", Some(1), &[("verify", good)]));
    assert_eq!(last(vec![read_back(true), report(5.0, Outcome::Good, check(true))]), Some(hours(2.1)));
    assert_eq!(last(vec![read_back(false)]), None);
    let drill = |outcome| report(1.0, outcome, Did::Drill(Drill { job: "orders".into(), snapshot: Some(id(1)), ..Drill::default() }));
    assert_eq!(last(vec![drill(Outcome::Good)]), Some(hours(1.0)));
    assert_eq!(last(vec![drill(Outcome::Failed)]), None);
}

#[test]
fn every_objective_can_be_missed() {
    let hour = |hours: u64| Some(Duration::from_secs(hours * 3600));
    let drill = Drill { job: "orders".into(), snapshot: Some(id(1)), bytes: 1000, seconds_to_ready: 500.0, ..Drill::default() };
    let all = facts(
        vec![snapshot(1, "orders", 30.0, 5)],
        vec![report(90.0, Outcome::Good, Did::Drill(drill.clone())), report(10.0, Outcome::Failed, Did::Drill(drill))],
    );
    let with = |objectives: Objectives| {
        let expected = Expected { host: "db1".into(), job: "orders".into(), tier: Tier::Important, objectives };
        judge(&all, &Expectations { jobs: vec![expected], ..Expectations::default() }, now())
    };
    let relaxed = || Objectives { max_age: Duration::from_secs(40 * 3600), ..Objectives::default() };
    for (objectives, missed) in [
        (Objectives::default(), Some(Objective::MaxAge)),
        (relaxed(), None),
        (Objectives { max_drill_age: hour(91), max_verify_age: hour(91), ..relaxed() }, None),
        (Objectives { max_drill_age: hour(89), ..relaxed() }, Some(Objective::MaxDrillAge)),
        (Objectives { max_verify_age: hour(89), ..relaxed() }, Some(Objective::MaxVerifyAge)),
        (Objectives { max_restore_time: Some(Duration::from_secs(501)), ..relaxed() }, None),
        (Objectives { max_restore_time: Some(Duration::from_secs(499)), ..relaxed() }, Some(Objective::MaxRestoreTime)),
    ] {
        let status = with(objectives.clone());
        let found: Vec<Objective> = status.missed().map(|(_, missed)| missed.objective).collect();
        assert_eq!(found, Vec::from_iter(missed), "{objectives:?}");
        assert_eq!(status.healthy, missed.is_none());
    }
    let job = &with(relaxed()).jobs[0];
    assert_eq!((job.state, job.last_good_drill), (State::Warning, Some(hours(90.0))));
    assert_eq!(job.restore, Some(RestoreTime { seconds: 500.0, measured: true }));
}

#[test]
fn a_restore_nobody_tried_is_estimated() {
    let restore = |reports| judged(&facts(vec![snapshot(1, "orders", 2.0, 200 << 20)], reports)).jobs[0].restore;
    assert_eq!(restore(vec![]), Some(RestoreTime { seconds: 2.0, measured: false }));
    // What drills of other jobs measured is a better guess.
    let drill = Drill { job: "other".into(), bytes: 10 << 20, seconds_to_ready: 10.0, ..Drill::default() };
    let reports = vec![report(1.0, Outcome::Good, Did::Drill(drill))];
    let status = judged(&facts(vec![snapshot(1, "orders", 2.0, 200 << 20)], reports));
    let orders = status.jobs.iter().find(|job| job.job == "orders").unwrap();
    assert_eq!(orders.restore, Some(RestoreTime { seconds: 200.0, measured: false }));
}

#[test]
fn sizes_are_compared_with_what_is_usual() {
    let with = |last: u64| {
        let mut snapshots: Vec<Stored> = (2..8).map(|n| snapshot(n, "orders", 24.0 * f64::from(n), 100)).collect();
        snapshots.push(snapshot(1, "orders", 1.0, last));
        facts(snapshots, vec![])
    };
    assert_eq!(judged(&with(110)).jobs[0].size_change.map(|change| (change * 100.0).round()), Some(10.0));
    let (state, said) = only(&with(40));
    assert_eq!((state, said.as_str()), (State::Warning, "the last good snapshot is 60 % smaller than usual"));
    assert_eq!(judged(&facts(vec![snapshot(1, "orders", 1.0, 5)], vec![])).jobs[0].size_change, None);
}

#[test]
fn the_worst_come_first() {
    let all = facts(
        vec![snapshot(1, "fine", 1.0, 5), snapshot(2, "late", 30.0, 5), snapshot(3, "later", 40.0, 5), snapshot(4, "warned", 3.0, 5)],
        vec![report(1.0, Outcome::Failed, run("warned", None, &[])), report(1.0, Outcome::Failed, run("never", None, &[]))],
    );
    let mut status = judged(&all);
    let names: Vec<&str> = status.jobs.iter().map(|job| job.job.as_str()).collect();
    assert_eq!(names, ["never", "later", "late", "warned", "fine"]);
    assert_eq!(status.oldest_good(), None);
    assert!(status.narrow(&["no".into()], &[]).is_err() && status.narrow(&[], &["db2".into()]).is_err());
    status.narrow(&["fine".into(), "warned".into()], &["db1".into()]).unwrap();
    assert_eq!((status.jobs.len(), status.healthy), (2, true));
    assert_eq!(status.oldest_good().unwrap().0, hours(3.0));
}

#[test]
fn the_store_is_judged_too() {
    let check = |ago, number| report(ago, Outcome::Good, Did::Check(Check { packs: PackNames::of(&[id(number)]), ..Check::default() }));
    let mut all = facts(vec![snapshot(1, "orders", 1.0, 5)], vec![check(50.0, 7), check(10.0, 8), check(9.0, 7), check(8.0, 99)]);
    all.packs = vec![(id(7), 100), (id(8), 10), (id(9), 1)];
    all.stored_bytes = 111;
    for (quota, state) in [(None, State::Ok), (Some(1000), State::Ok), (Some(120), State::Warning), (Some(110), State::Missed)] {
        let status = judge(&all, &Expectations { quota, ..Expectations::default() }, now());
        let store = &status.repository;
        assert_eq!((store.state, status.healthy), (Some(state), state != State::Missed), "{quota:?}");
        assert_eq!((store.verified_bytes, store.packs_bytes, store.oldest_verified), (110, 111, Some(hours(10.0))));
    }
    let found = report(1.0, Outcome::Failed, Did::Check(Check::default()));
    let damaged = judged(&Facts { reports: vec![found], ..facts(vec![snapshot(1, "orders", 1.0, 5)], vec![]) });
    assert_eq!((damaged.jobs[0].state, damaged.healthy), (State::Ok, false));
    assert_eq!(damaged.repository.missed[0].objective, Objective::Damage);
    // Rot is not over because somebody looked elsewhere, but when its pack is found good, or is gone.
    let rot = Check { packs: PackNames::of(&[id(7)]), hurt: PackNames::of(&[id(8)]), ..Check::default() };
    let rot = || report(6.0, Outcome::Failed, Did::Check(rot.clone()));
    let elsewhere = || report(4.0, Outcome::Good, Did::Check(Check::default()));
    for (reports, is_over) in [
        (vec![rot()], false),
        (vec![rot(), elsewhere()], false),
        (vec![check(10.0, 8), rot(), elsewhere(), check(3.0, 7)], false),
        (vec![rot(), elsewhere(), check(3.0, 8)], true),
        (vec![rot(), check(3.0, 8), elsewhere()], true),
    ] {
        let mut found = Facts { packs: all.packs.clone(), ..facts(vec![snapshot(1, "orders", 1.0, 5)], reports) };
        let missed = judged(&found).repository.missed;
        assert_eq!(missed.iter().map(|missed| missed.objective).collect::<Vec<_>>(), vec![Objective::Damage; usize::from(!is_over)]);
        found.packs.retain(|(name, _)| *name != id(8));
        assert_eq!(judged(&found).healthy, found.reports.len() > 1, "{missed:?}");
    }
    all.snapshots_unreadable = 2;
    let status = judged(&all);
    let unreadable = Missed { objective: Objective::Damage, message: "2 snapshots cannot be read; snap check says more".into() };
    assert_eq!((&status.repository.missed, status.healthy), (&vec![unreadable.clone()], false));
    let health = health(&status);
    assert_eq!((&health["status"], &health["missed"][0]), (&"unhealthy".into(), &unreadable.message.into()));
    assert!(metrics(&status).contains("snap_repository_missed_objectives 1\n"));
    // A report that is lost says less, but harms nobody's data.
    all = Facts { snapshots_unreadable: 0, reports_unreadable: 1, ..all };
    assert_eq!((judged(&all).repository.state, judged(&all).healthy), (Some(State::Warning), true));
}

#[test]
fn metrics_are_what_prometheus_reads() {
    let mut all = facts(vec![snapshot(1, "a\"b\\c\nd", 1.0, 5)], vec![]);
    all.stored_bytes = 5;
    let text = metrics(&judged(&all));
    assert!(text.contains("# TYPE snap_job_healthy gauge\nsnap_job_healthy{host=\"db1\",job=\"a\\\"b\\\\c\\nd\"} 1\n"), "{text}");
    let last = hours(1.0).as_second();
    assert!(text.contains(&format!("snap_job_last_good_timestamp_seconds{{host=\"db1\",job=\"a\\\"b\\\\c\\nd\"}} {last}\n")), "{text}");
    assert!(text.contains("snap_repository_stored_bytes 5\n") && !text.contains("quota"), "{text}");
    let never = metrics(&judged(&facts(vec![], vec![report(1.0, Outcome::Failed, run("x", None, &[]))])));
    assert!(never.contains("snap_job_last_good_timestamp_seconds{host=\"db1\",job=\"x\"} 0\n"), "{never}");
    let manual = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/MANUAL.md")).unwrap();
    for name in metrics::names() {
        assert!(manual.contains(&format!("`{name}`")), "the manual does not name {name}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("snap.prom");
    for _ in 0..2 {
        write_metrics(&file, &judged(&all)).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(write_metrics(&folder.path().join("none/x"), &judged(&all)).is_err());
}
