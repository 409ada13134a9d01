//! Audit: who backed up, forgot, pruned, checked and drilled, when, and how it went. From snapshots, records and reports, all of them
//! sealed: none can be made or altered without the key. Whoever can write to the store can remove some, though; receipts notice that of
//! snapshots.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};

use crate::error::Result;
use crate::format::record::{Condemned, Epoch, Record};
use crate::format::report::{Did, Drill, Outcome, Report, Run};
use crate::id::{ObjectName, SnapshotId};
use crate::ops::status::flaw;
use crate::repo::{Repository, Stored, StoredReport, Unreadable};
use crate::wording::{count, duration, size};

/// Between the end of a collection and the report of it.
const PRUNE_SLACK: SignedDuration = SignedDuration::from_mins(10);

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Backup,
    Forget,
    Prune,
    Check,
    Drill,
}

impl Action {
    pub fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Forget => "forget",
            Self::Prune => "prune",
            Self::Check => "check",
            Self::Drill => "drill",
        }
    }
}

/// What an event is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    Snapshot,
    Record,
    Report,
}

/// Something that was done.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Event {
    pub time: Timestamp,
    pub action: Action,
    #[serde(rename = "hostname")]
    pub host: String,
    /// Empty where it is not known.
    #[serde(rename = "username")]
    pub user: String,
    /// The job or stream; empty for what concerns the whole repository.
    pub job: String,
    pub outcome: Outcome,
    pub exit_code: u8,
    pub snapshots: Vec<SnapshotId>,
    /// Plain bytes of a backup or drill, bytes read by a check, bytes freed by a prune.
    pub bytes: u64,
    pub seconds: f64,
    pub detail: String,
    pub evidence: Evidence,
    /// The name of the object in the store that says so.
    pub object: ObjectName,
    #[serde(rename = "program_version")]
    pub program: String,
}

/// What was done from one time to another.
#[derive(Debug, Default)]
pub struct AuditReport {
    /// Oldest first.
    pub events: Vec<Event>,
    /// What could not be read: kind, name, and why.
    pub unreadable: Vec<(&'static str, Unreadable)>,
}

/// Collects what was done, from `since` on, before `until`.
pub fn audit(repository: &Repository, since: Option<Timestamp>, until: Option<Timestamp>) -> Result<AuditReport> {
    // Read from the store: what is judged is what is there.
    let (snapshots, bad_snapshots) = repository.snapshots()?;
    let (records, bad_records) = repository.records_by_name()?;
    let (reports, bad_reports) = repository.reports()?;
    let mut events: Vec<Event> = reports.iter().map(of_report).collect();
    let told: HashSet<SnapshotId> = reports.iter().filter_map(|stored| saved(&stored.report)).collect();
    let is_told = |stored: &&Stored| !stored.names().any(|id| told.contains(&id));
    events.extend(snapshots.iter().filter(is_told).map(of_snapshot));
    let pruned: Vec<&Report> = reports.iter().map(|stored| &stored.report).filter(|report| matches!(report.did, Did::Prune(_))).collect();
    events.extend(records.iter().filter_map(|(name, record)| of_record(*name, record, &pruned)));
    events.retain(|event| since.is_none_or(|since| event.time >= since) && until.is_none_or(|until| event.time < until));
    events.sort_by_key(|event| (event.time, event.object));
    let unreadable = [("snapshot", bad_snapshots), ("record", bad_records), ("report", bad_reports)];
    let unreadable = unreadable.into_iter().flat_map(|(kind, found)| found.into_iter().map(move |one| (kind, one))).collect();
    Ok(AuditReport { events, unreadable })
}

fn saved(report: &Report) -> Option<SnapshotId> {
    match &report.did {
        Did::Run(run) => run.snapshot,
        _ => None,
    }
}

fn of_report(stored: &StoredReport) -> Event {
    let report = &stored.report;
    let mut event = Event {
        time: report.time,
        action: Action::Check,
        host: report.host.clone(),
        user: report.user.clone(),
        job: String::new(),
        outcome: report.outcome,
        exit_code: report.exit_code,
        snapshots: Vec::new(),
        bytes: 0,
        seconds: report.seconds,
        detail: String::new(),
        evidence: Evidence::Report,
        object: stored.id,
        program: report.program.clone(),
    };
    let mut said = match &report.did {
        Did::Run(run) => {
            (event.action, event.job, event.bytes) = (Action::Backup, run.job.clone(), run.bytes);
            event.snapshots.extend(run.snapshot);
            of_run(run)
        }
        Did::Drill(drill) => {
            (event.action, event.job, event.bytes) = (Action::Drill, drill.job.clone(), drill.bytes);
            event.snapshots.extend(drill.snapshot);
            of_drill(drill)
        }
        Did::Check(check) => {
            event.bytes = check.bytes_read;
            match (check.whole, check.packs.len() as u64) {
                (true, _) => vec!["everything was read".into()],
                (false, 0) => vec!["no data was read".into()],
                (false, packs) => vec![format!("{} read and found good", count(packs, "pack"))],
            }
        }
        Did::Prune(prune) => {
            (event.action, event.bytes) = (Action::Prune, prune.bytes_freed);
            vec![format!("{} deleted, {} moved", count(prune.packs_deleted, "pack"), size(prune.bytes_moved))]
        }
    };
    said.extend(report.error.clone());
    said.extend(report.warnings.first().map(|first| match report.warnings.len() {
        1 => format!("warning: {first}"),
        more => format!("{more} warnings, the first: {first}"),
    }));
    event.detail = said.join("; ");
    event
}

fn of_run(run: &Run) -> Vec<String> {
    let mut said = Vec::new();
    if run.snapshot.is_some() {
        said.push(format!("{} added to the store", size(run.bytes_stored)));
    }
    if run.steps.iter().any(|step| step.name == "verify" && step.error.is_none()) {
        said.push("read back".into());
    }
    if run.forgotten > 0 {
        said.push(format!("{} forgotten", count(run.forgotten, "snapshot")));
    }
    if run.bytes_freed > 0 {
        said.push(format!("{} freed", size(run.bytes_freed)));
    }
    said
}

fn of_drill(drill: &Drill) -> Vec<String> {
    let passed = drill.checks.iter().filter(|check| check.passed).count();
    let mut said = Vec::new();
    // One that failed before has no such time.
    if drill.seconds_to_ready > 0.0 {
        said.push(format!("ready after {}", duration(drill.seconds_to_ready)));
    }
    if !drill.checks.is_empty() {
        said.push(format!("{passed} of {} passed", count(drill.checks.len() as u64, "check")));
    }
    said
}

fn of_snapshot(stored: &Stored) -> Event {
    let snapshot = &stored.snapshot;
    let flaw = flaw(snapshot);
    let exit_code = flaw.as_ref().map_or(0, |(code, _)| *code);
    let mut said = vec![format!("{} added to the store", size(snapshot.totals.bytes_stored))];
    said.extend(flaw.map(|(_, why)| why));
    if snapshot.repaired.is_some() {
        said.push("a repair cut out what was lost".into());
    }
    if snapshot.original.is_some() {
        said.push("a copy, or with other tags than at first".into());
    }
    Event {
        time: snapshot.started(),
        action: Action::Backup,
        host: snapshot.host.clone(),
        user: snapshot.user.clone(),
        job: snapshot.name.clone(),
        outcome: if exit_code == 0 { Outcome::Good } else { Outcome::Partial },
        exit_code,
        snapshots: vec![stored.id],
        bytes: snapshot.totals.bytes,
        seconds: snapshot.seconds,
        detail: said.join("; "),
        evidence: Evidence::Snapshot,
        object: stored.id,
        program: snapshot.program.clone(),
    }
}

/// Nothing for the end of a collection that a report tells of.
fn of_record(name: ObjectName, record: &Record, pruned: &[&Report]) -> Option<Event> {
    let (time, host, action, snapshots, detail) = match record {
        Record::Forget { time, host, snapshots, reason } => {
            let forgotten = count(snapshots.len() as u64, "snapshot");
            (*time, host, Action::Forget, snapshots.clone(), format!("{forgotten}: {reason}"))
        }
        Record::Epoch(Epoch { time, host, epoch, .. }) => {
            let told = |report: &&Report| {
                let took = SignedDuration::try_from_secs_f64(report.seconds.max(0.0)).unwrap_or_default().saturating_add(PRUNE_SLACK);
                report.host == *host && *time >= report.time && time.duration_since(report.time) <= took
            };
            if pruned.iter().any(told) {
                return None;
            }
            (*time, host, Action::Prune, Vec::new(), format!("collection {epoch} ended"))
        }
        Record::Condemned(Condemned { time, host, epoch, packs, is_final, .. }) => {
            let condemned = count(packs.len() as u64, "pack");
            let when = if *is_final { "being deleted" } else { "to be deleted after a grace" };
            (*time, host, Action::Prune, Vec::new(), format!("collection {epoch}: {condemned} condemned, {when}"))
        }
    };
    Some(Event {
        time,
        action,
        host: host.clone(),
        user: String::new(),
        job: String::new(),
        outcome: Outcome::Good,
        exit_code: 0,
        snapshots,
        bytes: 0,
        seconds: 0.0,
        detail,
        evidence: Evidence::Record,
        object: name,
        program: String::new(),
    })
}
