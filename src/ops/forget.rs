//! Forget: which snapshots go, by rules or by name, and then their removal.
//!
//! A plan is made first and can be shown. Carrying it out writes a record of what is removed on purpose, durable before the first
//! snapshot goes; so whoever finds a snapshot missing can tell. Cut short between the two, the same command finishes the work.
//! What stays belongs to the decision (`removal`).
//! Space is not freed here: what no snapshot needs any more stays in its packs until it is collected.

mod removal;

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::error::{Error, Result};
use crate::format::record::Record;
use crate::id::SnapshotId;
use crate::progress::{Progress, Stage};
use crate::repo::{Repository, SnapshotFilter, Stored, Unreadable};
use crate::retention::{Candidate, GroupBy, GroupKey, Moment, Policy, Reason, doubt, judge};
pub(super) use removal::{Removal, Seen};

/// What to forget.
pub struct ForgetOptions {
    pub choice: Choice,
    /// Others are neither looked at nor removed.
    pub filter: SnapshotFilter,
    /// Where days and weeks begin as they do here.
    pub zone: TimeZone,
}

/// How snapshots are chosen.
pub enum Choice {
    /// What the rules do not keep, group by group.
    Policy { policy: Policy, group_by: GroupBy },
    /// These.
    Named {
        selectors: Vec<String>,
        /// Also the last complete snapshot of a stream.
        allow_last: bool,
    },
}

/// A snapshot, and why it is kept; without a reason it goes.
#[derive(Clone, Debug)]
pub struct Member {
    pub stored: Stored,
    pub reasons: Vec<Reason>,
}

/// Snapshots that were looked at together, newest first.
#[derive(Clone, Debug)]
pub struct Group {
    /// Nothing in it if they were chosen by name.
    pub key: GroupKey,
    pub members: Vec<Member>,
}

/// A snapshot that was asked for and had been forgotten already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    pub id: SnapshotId,
    pub time: Timestamp,
}

/// What will be removed, and what will stay.
pub struct Plan {
    pub groups: Vec<Group>,
    pub gone: Vec<Gone>,
    /// Left alone, and not counted by any rule.
    pub unreadable: Vec<Unreadable>,
    reason: String,
    /// What the others may go for.
    stays: Vec<SnapshotId>,
    seen: Seen,
}

impl Plan {
    pub fn removed(&self) -> impl Iterator<Item = &Stored> {
        self.members().filter(|member| member.reasons.is_empty()).map(|member| &member.stored)
    }

    pub fn kept(&self) -> usize {
        self.members().filter(|member| !member.reasons.is_empty()).count()
    }

    fn members(&self) -> impl Iterator<Item = &Member> {
        self.groups.iter().flat_map(|group| &group.members)
    }
}

/// Decides what to forget. Nothing is changed.
pub fn plan(repository: &Repository, options: &ForgetOptions, progress: &dyn Progress) -> Result<Plan> {
    progress.stage(Stage::Planning, None, None);
    let seen = Seen::now(repository)?;
    // A record that cannot be understood may say that something must not be removed.
    let records: Vec<Record> = repository.records()?.into_iter().map(|(_, record)| record).collect();
    let forgotten: HashSet<SnapshotId> = records.iter().flat_map(Record::forgotten).copied().collect();
    let (found, unreadable) = repository.snapshots()?;
    match &options.choice {
        Choice::Policy { policy, group_by } => {
            let groups = plan_policy(repository, found, options, (policy, group_by), &forgotten)?;
            let shrinking = groups.iter().filter(|group| group.members.iter().any(|member| member.reasons.is_empty()));
            let kept = shrinking.flat_map(|group| &group.members).filter(|member| !member.reasons.is_empty());
            let kept = kept.filter(|member| !forgotten.contains(&member.stored.id));
            let stays = kept.map(|member| member.stored.id).collect();
            Ok(Plan { groups, gone: Vec::new(), unreadable, reason: policy.to_string(), stays, seen })
        }
        Choice::Named { selectors, allow_last } => {
            let (chosen, gone) = resolve(repository, selectors, &options.filter, &records)?;
            let stays = if *allow_last { Vec::new() } else { refuse_last(&found, &chosen, &forgotten)? };
            let members = chosen.into_iter().map(|stored| Member { stored, reasons: Vec::new() }).collect();
            let groups = vec![Group { key: GroupKey::default(), members }];
            Ok(Plan { groups, gone, unreadable, reason: "chosen by id".into(), stays, seen })
        }
    }
}

fn plan_policy(
    repository: &Repository,
    found: Vec<Stored>,
    options: &ForgetOptions,
    (policy, group_by): (&Policy, &GroupBy),
    forgotten: &HashSet<SnapshotId>,
) -> Result<Vec<Group>> {
    if policy.is_empty() {
        let hint = "say what to keep, as in --keep-daily 7 --keep-weekly 5, or name snapshots";
        return Err(Error::Usage(format!("No rule says what to keep, so nothing was removed; {hint}")));
    }
    let now = repository.world().now();
    let times = found.iter().map(|stored| (stream(stored), stored.snapshot.time));
    if let Some(doubt) = doubt(now, repository.manifest().created, times) {
        let hint = "set this machine's clock; if it is right, remove what is wrongly dated by its id: snap forget ID";
        return Err(Error::Refused { why: format!("Cannot go by rules of time: {doubt}"), hint });
    }
    let moment = Moment { now, zone: options.zone.clone() };
    let mut groups: BTreeMap<GroupKey, Vec<Stored>> = BTreeMap::new();
    for stored in found.into_iter().rev().filter(|stored| options.filter.accepts(&stored.snapshot)) {
        let snapshot = &stored.snapshot;
        let key = group_by.key(&snapshot.host, &snapshot.name, &snapshot.tags, &snapshot.paths);
        groups.entry(key).or_default().push(stored);
    }
    let decide = |(key, group): (GroupKey, Vec<Stored>)| {
        let reasons = judge_counting(&group, forgotten, |candidates| judge(candidates, policy, &moment));
        let members = group.into_iter().zip(reasons).map(|(stored, reasons)| Member { stored, reasons });
        Group { key, members: members.collect() }
    };
    Ok(groups.into_iter().map(decide).collect())
}

/// What the rules say of each snapshot of a group. What a record says was forgotten may go at any moment, or was brought back: nothing
/// else goes because of it, so each of these is judged as if it were the only one.
fn judge_counting(group: &[Stored], forgotten: &HashSet<SnapshotId>, judge: impl Fn(&[Candidate]) -> Vec<Vec<Reason>>) -> Vec<Vec<Reason>> {
    let judge_with = |doubtful: Option<SnapshotId>| {
        let counted = group.iter().filter(|stored| !forgotten.contains(&stored.id) || doubtful == Some(stored.id));
        let candidates: Vec<Candidate> = counted.map(candidate).collect();
        candidates.iter().map(|candidate| candidate.id).zip(judge(&candidates)).collect::<HashMap<_, _>>()
    };
    let mut certain = judge_with(None);
    let reasons = |stored: &Stored| match certain.remove(&stored.id) {
        Some(reasons) => reasons,
        None => judge_with(Some(stored.id)).remove(&stored.id).unwrap_or_default(),
    };
    group.iter().map(reasons).collect()
}

fn candidate(stored: &Stored) -> Candidate<'_> {
    let snapshot = &stored.snapshot;
    Candidate { id: stored.id, time: snapshot.time, tags: &snapshot.tags, complete: snapshot.is_complete() }
}

/// Snapshots of one host and name belong together.
fn stream(stored: &Stored) -> (&str, &str) {
    (&stored.snapshot.host, &stored.snapshot.name)
}

/// The snapshots that are meant, each once, and those that a run before has removed already.
fn resolve(repository: &Repository, selectors: &[String], filter: &SnapshotFilter, records: &[Record]) -> Result<(Vec<Stored>, Vec<Gone>)> {
    let mut chosen: Vec<Stored> = Vec::new();
    let mut gone = Vec::new();
    for text in selectors {
        match repository.select(text, filter) {
            Ok(selection) if !selection.path.is_empty() => {
                return Err(Error::Usage(format!("{text} names a path, but only whole snapshots can be forgotten")));
            }
            Ok(selection) if chosen.iter().any(|other| other.id == selection.stored.id) => {}
            Ok(selection) => chosen.push(selection.stored),
            Err(Error::NotFound(message)) => gone.push(forgotten(records, text).ok_or(Error::NotFound(message))?),
            Err(error) => return Err(error),
        }
    }
    Ok((chosen, gone))
}

/// The one snapshot whose id begins so that a record says was removed.
fn forgotten(records: &[Record], prefix: &str) -> Option<Gone> {
    let of_record = |record: &Record| match record {
        Record::Forget { time, snapshots, .. } => snapshots.iter().map(|&id| Gone { id, time: *time }).collect(),
        _ => Vec::new(),
    };
    let fits = |gone: &Gone| prefix.len() >= 8 && gone.id.hex().starts_with(prefix);
    let found: Vec<Gone> = records.iter().flat_map(of_record).filter(fits).collect();
    let first = found.first()?;
    found.iter().all(|gone| gone.id == first.id).then(|| first.clone())
}

/// Fails if a stream would lose its last complete snapshot, or, where none is complete, its last. Returns those that it is left with
/// instead.
fn refuse_last(all: &[Stored], chosen: &[Stored], forgotten: &HashSet<SnapshotId>) -> Result<Vec<SnapshotId>> {
    let going: HashSet<SnapshotId> = chosen.iter().map(|stored| stored.id).chain(forgotten.iter().copied()).collect();
    let mut stays = Vec::new();
    for candidate in chosen.iter().rev() {
        let left = || all.iter().rev().filter(|other| stream(other) == stream(candidate) && !going.contains(&other.id));
        let newest = left().find(|other| other.snapshot.is_complete());
        if let Some(other) = newest.or_else(|| left().next().filter(|_| !candidate.snapshot.is_complete())) {
            stays.push(other.id);
            continue;
        }
        let complete = if candidate.snapshot.is_complete() { "last complete" } else { "last" };
        let ((host, name), id) = (stream(candidate), candidate.id.short());
        let hint = "if it really is to go, say --allow-remove-last";
        return Err(Error::Refused { why: format!("Snapshot {id} is the {complete} one of {name} of host {host}"), hint });
    }
    Ok(stays)
}

/// Removes what the plan says.
pub fn execute(repository: &Repository, plan: &Plan, host: &str, progress: &dyn Progress) -> Result<()> {
    let ids: Vec<SnapshotId> = plan.removed().map(|stored| stored.id).collect();
    Removal { reason: &plan.reason, host, stays: &plan.stays, seen: &plan.seen }.carry_out(repository, &ids, progress)
}
