//! The judgement: facts, expectations and the time make a status.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::config::show_duration;
use crate::format::dump::Verdict;
use crate::format::report::{Did, Drill, Outcome, Report, Run};
use crate::format::snapshot::Snapshot;
use crate::limits::*;
use crate::ops::ledger::Ledger;
use crate::retention;
use crate::wording::{count, duration, size};

/// Good snapshots before the last that say what size is usual.
const USUAL: usize = 7;
/// By how much a snapshot may be smaller than usual before somebody should look.
const SHRINK_NOTED: f64 = -0.5;
/// How much of the quota may be used before somebody should look.
const QUOTA_NOTED: f64 = 0.9;

/// Host and name.
type Stream<'a> = (&'a str, &'a str);

/// Judges a repository at a time.
pub fn judge(facts: &Facts, expectations: &Expectations, now: Timestamp) -> Status {
    let horizon = retention::horizon(now);
    let streams = facts.snapshots.iter().map(|stored| (stream(stored), stored.snapshot.time));
    let doubt = retention::doubt(now, facts.created, streams).map(|doubt| doubt.to_string());
    let mut known: BTreeMap<Stream, Known> = BTreeMap::new();
    for stored in &facts.snapshots {
        known.entry(stream(stored)).or_default().snapshots.push(stored);
    }
    let mut view = View { facts, now, horizon, doubt, faults: HashMap::new(), whole_check: None, restore_rate: None };
    view.sort_reports(&mut known);
    let expected: BTreeMap<Stream, &Expected> = expectations.jobs.iter().map(|job| ((job.host.as_str(), job.job.as_str()), job)).collect();
    let none = Known::default();
    let mut jobs = Vec::new();
    for job in &expectations.jobs {
        let known = known.get(&(job.host.as_str(), job.job.as_str())).unwrap_or(&none);
        jobs.push(view.job(job, true, known));
    }
    let others: Vec<_> = known.iter().filter(|(stream, _)| !expected.contains_key(*stream)).collect();
    let shown = expectations.others || expectations.jobs.is_empty();
    if shown {
        for ((host, name), known) in &others {
            let objectives = expectations.objectives.clone();
            let stream = Expected { host: (*host).into(), job: (*name).into(), tier: Tier::default(), objectives };
            jobs.push(view.job(&stream, false, known));
        }
    }
    jobs.sort_by(|a, b| {
        let key = |job: &JobStatus| (Reverse(job.state), job.tier);
        let older = b.age.unwrap_or(f64::MAX).total_cmp(&a.age.unwrap_or(f64::MAX));
        key(a).cmp(&key(b)).then(older).then_with(|| (&a.job, &a.host).cmp(&(&b.job, &b.host)))
    });
    let repository = view.store(expectations.quota);
    Status {
        time: now,
        healthy: jobs.iter().all(|job| job.missed.is_empty()) && repository.missed.is_empty(),
        jobs,
        other_streams: if shown { 0 } else { others.len() as u64 },
        repository,
    }
}

fn stream(stored: &Stored) -> Stream<'_> {
    (&stored.snapshot.host, &stored.snapshot.name)
}

/// As it is written in a configuration.
fn span(seconds: f64) -> String {
    show_duration(Duration::from_secs_f64(seconds))
}

fn secs(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// What is known of one stream, each list oldest first.
#[derive(Default)]
struct Known<'a> {
    snapshots: Vec<&'a Stored>,
    runs: Vec<(&'a Report, &'a Run)>,
    drills: Vec<(&'a Report, &'a Drill)>,
}

/// What is known of the whole.
struct View<'a> {
    facts: &'a Facts,
    now: Timestamp,
    horizon: Timestamp,
    /// Why the clock cannot be right.
    doubt: Option<String>,
    /// Snapshots that a run found fault with.
    faults: HashMap<SnapshotId, &'a Report>,
    /// The last check that read everything and found it good.
    whole_check: Option<Timestamp>,
    /// Bytes a second, as drills measured it.
    restore_rate: Option<f64>,
}

impl<'a> View<'a> {
    /// Gives each stream its reports. Those from the future are left out.
    fn sort_reports(&mut self, known: &mut BTreeMap<Stream<'a>, Known<'a>>) {
        let owners = self.facts.snapshots.iter().flat_map(|stored| stored.names().map(|id| (id, stream(stored))));
        let owners: HashMap<SnapshotId, Stream> = owners.collect();
        let (mut bytes, mut seconds) = (0, 0.0);
        for report in self.facts.reports.iter().map(|stored| &stored.report).filter(|report| report.time <= self.horizon) {
            match &report.did {
                Did::Run(run) => {
                    self.faults.extend(run.snapshot.filter(|_| found_fault(report, run)).map(|id| (id, report)));
                    known.entry((&report.host, &run.job)).or_default().runs.push((report, run));
                }
                Did::Drill(drill) => {
                    if report.outcome == Outcome::Good {
                        bytes += drill.bytes;
                        seconds += drill.seconds_to_ready;
                    }
                    // It may have been tried out on another machine.
                    let owner = drill.snapshot.and_then(|id| owners.get(&id).copied()).unwrap_or((&report.host, &drill.job));
                    known.entry(owner).or_default().drills.push((report, drill));
                }
                Did::Check(check) if check.whole && report.outcome == Outcome::Good => {
                    self.whole_check = self.whole_check.max(Some(report.time));
                }
                Did::Check(_) | Did::Prune(_) => {}
            }
        }
        self.restore_rate = (bytes > 0 && seconds > 0.0).then(|| bytes as f64 / seconds);
    }

    fn age(&self, time: Timestamp) -> f64 {
        self.now.duration_since(time).as_secs_f64().max(0.0)
    }

    fn ago(&self, time: Timestamp) -> String {
        format!("{} ago", duration(self.age(time)))
    }

    fn fault(&self, stored: &Stored) -> Option<&'a Report> {
        stored.names().find_map(|id| self.faults.get(&id)).copied()
    }

    fn is_good(&self, stored: &Stored) -> bool {
        let snapshot = &stored.snapshot;
        snapshot.totals.flawed == 0
            && snapshot.is_as_expected()
            && snapshot.is_good()
            && snapshot.repaired.is_none()
            && self.fault(stored).is_none()
    }

    fn job(&self, expected: &Expected, configured: bool, known: &Known) -> JobStatus {
        let objectives = &expected.objectives;
        let believed = |stored: &&&Stored| self.doubt.is_some() || stored.snapshot.time <= self.horizon;
        let good: Vec<&Stored> = known.snapshots.iter().rev().filter(believed).filter(|stored| self.is_good(stored)).copied().collect();
        let last_good = good.first().map(|stored| LastGood {
            snapshot_id: stored.id,
            time: stored.snapshot.time,
            seconds: stored.snapshot.seconds,
            total_bytes: stored.snapshot.totals.bytes,
            data_added_packed: stored.snapshot.totals.bytes_stored,
        });
        let drill = known.drills.last();
        let passed = known.drills.iter().rev().find(|(report, _)| report.outcome == Outcome::Good);
        let mut job = JobStatus {
            job: expected.job.clone(),
            host: expected.host.clone(),
            tier: expected.tier,
            configured,
            state: State::Ok,
            missed: Vec::new(),
            warnings: Vec::new(),
            age: last_good.as_ref().filter(|_| self.doubt.is_none()).map(|last| self.age(last.time)),
            max_age: secs(objectives.max_age),
            last_try: self.last_try(known),
            last_verified: self.last_verified(known, last_good.is_some()),
            max_verify_age: objectives.max_verify_age.map(secs),
            last_drill: drill.map(|(report, drill)| LastDrill {
                time: report.time,
                outcome: report.outcome,
                error: report.error.clone(),
                snapshot_id: drill.snapshot,
                seconds_to_ready: drill.seconds_to_ready,
            }),
            last_good_drill: passed.map(|(report, _)| report.time),
            max_drill_age: objectives.max_drill_age.map(secs),
            restore: self.restore_time(passed.map(|(_, drill)| *drill), last_good.as_ref()),
            max_restore_time: objectives.max_restore_time.map(secs),
            size_change: size_change(&good),
            snapshots: known.snapshots.len() as u64,
            snapshots_in_future: known.snapshots.iter().filter(|stored| stored.snapshot.time > self.horizon).count() as u64,
            last_good,
        };
        self.judge(&mut job);
        self.note(&mut job, known);
        job.state = match (job.missed.is_empty(), job.warnings.is_empty()) {
            (false, _) => State::Missed,
            (true, false) => State::Warning,
            (true, true) => State::Ok,
        };
        job
    }

    fn last_try(&self, known: &Known) -> Option<LastTry> {
        let run = known.runs.last().map(|(report, _)| LastTry {
            time: report.time,
            seconds: report.seconds,
            outcome: report.outcome,
            exit_code: report.exit_code,
            error: report.error.clone(),
        });
        let told = |id: SnapshotId| known.runs.iter().rev().any(|(_, run)| run.snapshot == Some(id));
        let newest = known.snapshots.iter().rev().find(|stored| stored.snapshot.started() <= self.horizon);
        let newest = newest.filter(|stored| !stored.names().any(told));
        let saved = newest.map(|stored| {
            let snapshot = &stored.snapshot;
            let flaw = flaw(snapshot);
            LastTry {
                time: snapshot.started(),
                seconds: snapshot.seconds,
                outcome: if flaw.is_none() { Outcome::Good } else { Outcome::Partial },
                exit_code: flaw.as_ref().map_or(0, |(code, _)| *code),
                error: flaw.map(|(_, why)| why),
            }
        });
        match (run, saved) {
            (Some(run), Some(saved)) if saved.time > run.time => Some(saved),
            (run, saved) => run.or(saved),
        }
    }

    fn last_verified(&self, known: &Known, has_good: bool) -> Option<Timestamp> {
        let read_back = |(report, run): &&(&Report, &Run)| {
            let good = run.steps.iter().any(|step| step.name == "verify" && step.error.is_none());
            good && run.snapshot.is_some() && report.outcome != Outcome::Failed
        };
        let own = known.runs.iter().rev().find(read_back).map(|(report, _)| report.time);
        let drilled = known.drills.iter().rev().find(|(report, _)| report.outcome == Outcome::Good).map(|(report, _)| report.time);
        own.max(drilled).max(self.whole_check.filter(|_| has_good))
    }

    fn restore_time(&self, drill: Option<&Drill>, last: Option<&LastGood>) -> Option<RestoreTime> {
        if let Some(drill) = drill {
            return Some(RestoreTime { seconds: drill.seconds_to_ready, measured: true });
        }
        let rate = self.restore_rate.unwrap_or(RESTORE_BYTES_A_SECOND as f64);
        last.map(|last| RestoreTime { seconds: last.total_bytes as f64 / rate, measured: false })
    }

    /// Compares with the objectives.
    fn judge(&self, job: &mut JobStatus) {
        let mut miss = |objective, message| job.missed.push(Missed { objective, message });
        if let Some(doubt) = &self.doubt {
            return miss(Objective::Clock, format!("nothing can be judged: {doubt}"));
        }
        match job.age {
            None => miss(Objective::MaxAge, "there is no good snapshot".into()),
            Some(age) if age > job.max_age => {
                let allowed = span(job.max_age);
                miss(Objective::MaxAge, format!("the newest good snapshot is {} old; {allowed} are allowed", duration(age)));
            }
            Some(_) => {}
        }
        let aged = |last: Option<Timestamp>, max: Option<f64>, never: &str, what: &str| {
            let max = max?;
            match last {
                None => Some(never.to_owned()),
                Some(last) if self.age(last) > max => Some(format!("{what} {}; {} are allowed", self.ago(last), span(max))),
                Some(_) => None,
            }
        };
        if let Some(message) = aged(job.last_verified, job.max_verify_age, "it was never verified", "it was last verified") {
            miss(Objective::MaxVerifyAge, message);
        }
        if let Some(message) = aged(job.last_good_drill, job.max_drill_age, "no drill has passed yet", "the last drill that passed was") {
            miss(Objective::MaxDrillAge, message);
        }
        if let (Some(restore), Some(max)) = (job.restore, job.max_restore_time)
            && restore.seconds > max
        {
            let (takes, max) = (duration(restore.seconds), span(max));
            match restore.measured {
                true => miss(Objective::MaxRestoreTime, format!("a restore took {takes}; {max} are allowed")),
                false => job.warnings.push(format!("a restore is estimated to take {takes}; {max} are allowed; a drill would tell")),
            }
        }
    }

    /// What should be looked at besides.
    fn note(&self, job: &mut JobStatus, known: &Known) {
        let since_good = |time: Timestamp| job.last_good.as_ref().is_none_or(|last| time > last.time);
        if let Some(last) = job.last_try.as_ref().filter(|last| last.outcome != Outcome::Good) {
            let how = if last.outcome == Outcome::Failed { "failed" } else { "was incomplete" };
            let why = last.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            job.warnings.push(format!("the last try, {}, {how}{why}", self.ago(last.time)));
        } else if let Some((stored, report)) = known.snapshots.last().and_then(|stored| Some((stored, self.fault(stored)?)))
            && since_good(stored.snapshot.time)
        {
            let why = report.error.as_deref().unwrap_or("its run failed");
            job.warnings.push(format!("snapshot {} does not count as good: {why}", stored.id.short()));
        }
        if let Some(stored) = known.snapshots.last().filter(|stored| stored.snapshot.repaired.is_some())
            && since_good(stored.snapshot.time)
        {
            job.warnings.push(format!("snapshot {} does not count as good: a repair cut out what was lost", stored.id.short()));
        }
        if let Some(drill) = job.last_drill.as_ref().filter(|drill| drill.outcome != Outcome::Good) {
            let why = drill.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            job.warnings.push(format!("the last drill, {}, did not pass{why}", self.ago(drill.time)));
        }
        if job.snapshots_in_future > 0 && self.doubt.is_none() {
            let future = count(job.snapshots_in_future, "snapshot");
            job.warnings.push(format!("{future} from the future, not counted: some clock is or was wrong"));
        }
        if let Some(change) = job.size_change.filter(|change| *change <= SHRINK_NOTED) {
            job.warnings.push(format!("the last good snapshot is {:.0} % smaller than usual", -change * 100.0));
        }
    }

    fn store(&self, quota: Option<u64>) -> StoreStatus {
        let facts = self.facts;
        let ledger = Ledger::of(&facts.reports, self.now);
        let verified: Vec<(Timestamp, u64)> = facts.packs.iter().filter_map(|(name, size)| Some((ledger.verified(name)?, *size))).collect();
        let checks = facts.reports.iter().rev().filter(|stored| stored.report.time <= self.horizon);
        let last_check = checks.filter_map(|stored| match &stored.report.did {
            Did::Check(check) => Some(LastCheck { time: stored.report.time, outcome: stored.report.outcome, whole: check.whole }),
            _ => None,
        });
        let mut store = StoreStatus {
            snapshots: facts.snapshots.len() as u64,
            snapshots_unreadable: facts.snapshots_unreadable,
            packs: facts.packs.len() as u64,
            stored_bytes: facts.stored_bytes,
            quota,
            verified_bytes: verified.iter().map(|(_, size)| size).sum(),
            packs_bytes: facts.packs.iter().map(|(_, size)| size).sum(),
            oldest_verified: verified.iter().map(|(time, _)| *time).min(),
            last_check: last_check.into_iter().next(),
            ..StoreStatus::default()
        };
        if facts.snapshots.is_empty() {
            store.missed.push(Missed { objective: Objective::MaxAge, message: "there is no snapshot at all".into() });
        }
        if let Some(doubt) = &self.doubt {
            store.missed.push(Missed { objective: Objective::Clock, message: format!("nothing can be judged: {doubt}") });
        }
        if let Some(quota) = quota {
            let used = format!("{} of {} are used", size(facts.stored_bytes), size(quota));
            match facts.stored_bytes as f64 / quota as f64 {
                share if share > 1.0 => store.missed.push(Missed { objective: Objective::Quota, message: used }),
                share if share >= QUOTA_NOTED => store.warnings.push(used),
                _ => {}
            }
        }
        let unreadable = |number, noun| (number > 0).then(|| format!("{} cannot be read; snap check says more", count(number, noun)));
        if let Some(message) = unreadable(facts.snapshots_unreadable, "snapshot") {
            store.missed.push(Missed { objective: Objective::Damage, message });
        }
        store.warnings.extend(unreadable(facts.reports_unreadable, "report"));
        // A check that reads none of these packs finds nothing wrong with them.
        let hurt: Vec<Timestamp> = facts.packs.iter().filter_map(|(name, _)| ledger.hurt(name)).collect();
        let found_damage = store.last_check.as_ref().filter(|check| check.outcome == Outcome::Failed);
        let message = match (found_damage, hurt.iter().max()) {
            (Some(check), None) => Some(format!("the last check, {}, found damage; snap check says more", self.ago(check.time))),
            (Some(check), Some(_)) => {
                Some(format!("the last check, {}, found damage; snap check --read-data says more", self.ago(check.time)))
            }
            (None, Some(last)) => {
                let (packs, ago) = (count(hurt.len() as u64, "pack"), self.ago(*last));
                Some(format!("a check, {ago}, found {packs} damaged, and none has found them good since; snap check --read-data says more"))
            }
            (None, None) => None,
        };
        store.missed.extend(message.map(|message| Missed { objective: Objective::Damage, message }));
        store.state = Some(match (store.missed.is_empty(), store.warnings.is_empty()) {
            (false, _) => State::Missed,
            (true, false) => State::Warning,
            (true, true) => State::Ok,
        });
        store
    }
}

/// Whether a run that saved something found fault with it. What steps behind it find in the rest of the store is told of the store.
fn found_fault(report: &Report, run: &Run) -> bool {
    let failed = |name: &str| run.steps.iter().any(|step| step.name == name && step.error.is_some());
    let is_elsewhere = ["verify store", "forget", "prune"].iter().any(|name| failed(name));
    failed("backup") || failed("verify") || report.outcome == Outcome::Failed && !is_elsewhere
}

/// What is wrong with a snapshot as it was made: exit code, and in words.
pub fn flaw(snapshot: &Snapshot) -> Option<(u8, String)> {
    let incomplete = snapshot.dumps.iter().find(|dump| dump.verdict == Verdict::Incomplete);
    if let Some(unmet) = snapshot.parts.iter().flat_map(|part| &part.unmet).next() {
        return Some((4, unmet.clone()));
    }
    match (incomplete, snapshot.totals.flawed) {
        (Some(dump), _) => Some((4, format!("the dump {} is incomplete: {}", dump.path, dump.why))),
        (None, 0) => None,
        (None, flawed) => Some((3, format!("{} could not be read", count(flawed, "file")))),
    }
}

/// How the newest good snapshot compares with the median of some before it.
fn size_change(good: &[&Stored]) -> Option<f64> {
    let (last, before) = good.split_first()?;
    let mut sizes: Vec<u64> = before.iter().take(USUAL).map(|stored| stored.snapshot.totals.bytes).collect();
    sizes.sort_unstable();
    let usual = *sizes.get(sizes.len() / 2)?;
    (usual > 0).then(|| last.snapshot.totals.bytes as f64 / usual as f64 - 1.0)
}
