//! Status: is each job backed up as recently, verified and tried out as often, as somebody asked for?
//!
//! Facts (snapshots, reports, sizes) and expectations go in, a judgement comes out: [`judge`] knows no clock and no store. Reports only
//! inform: what can be restored is said by snapshots. A snapshot is good if all its sources could be read, no repair cut anything out of
//! it, and no run found fault with it. Ages count from when a backup began, since that is how old its data is.

mod gather;
mod health;
mod judge;
mod metrics;
#[cfg(test)]
mod tests;

use jiff::Timestamp;

pub use gather::gather;
pub use health::{health, rough};
pub use judge::{flaw, judge};
pub use metrics::{metrics, write_metrics};

use crate::config::{Objectives, Tier};
use crate::error::{Error, Result, show_bytes};
use crate::format::report::Outcome;
use crate::id::{ObjectName, SnapshotId};
use crate::repo::{Stored, StoredReport};

/// What is known of a repository.
#[derive(Default)]
pub struct Facts {
    /// Oldest first.
    pub snapshots: Vec<Stored>,
    pub snapshots_unreadable: u64,
    /// Oldest first.
    pub reports: Vec<StoredReport>,
    pub reports_unreadable: u64,
    /// Packs and their sizes.
    pub packs: Vec<(ObjectName, u64)>,
    /// Bytes of all that is stored.
    pub stored_bytes: u64,
    /// When the repository was made.
    pub created: Timestamp,
}

/// What is expected of a repository.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expectations {
    /// Without any, every stream in the repository is expected to be kept up.
    pub jobs: Vec<Expected>,
    /// Streams that are no job too.
    pub others: bool,
    /// For streams that are no job.
    pub objectives: Objectives,
    /// Bytes the repository may take.
    pub quota: Option<u64>,
}

/// A job that should be there.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    pub host: String,
    pub job: String,
    pub tier: Tier,
    pub objectives: Objectives,
}

/// How a job stands, the better the smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    /// All objectives are met, but something should be looked at.
    Warning,
    /// An objective is missed.
    Missed,
}

/// What is or was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    MaxAge,
    MaxVerifyAge,
    MaxDrillAge,
    MaxRestoreTime,
    Quota,
    /// The store lost or holds something that is wrong, as a check found, or a snapshot that cannot be read.
    Damage,
    /// Nothing can be judged by a clock that cannot be right.
    Clock,
}

/// An objective that is missed, and why, in words.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Missed {
    pub objective: Objective,
    pub message: String,
}

/// How a repository stands. Sizes are bytes, lengths of time seconds.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Status {
    pub time: Timestamp,
    /// No objective is missed.
    pub healthy: bool,
    /// Worst first.
    pub jobs: Vec<JobStatus>,
    /// Streams in the repository that are no job and were not looked at.
    pub other_streams: u64,
    pub repository: StoreStatus,
}

/// How a job, or a stream nobody configured, stands.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct JobStatus {
    pub job: String,
    #[serde(rename = "hostname")]
    pub host: String,
    pub tier: Tier,
    pub configured: bool,
    pub state: State,
    pub missed: Vec<Missed>,
    pub warnings: Vec<String>,
    pub last_good: Option<LastGood>,
    /// Never negative; none without a good snapshot, or where the clock cannot be right.
    pub age: Option<f64>,
    pub max_age: f64,
    pub last_try: Option<LastTry>,
    pub last_verified: Option<Timestamp>,
    pub max_verify_age: Option<f64>,
    pub last_drill: Option<LastDrill>,
    /// The last that passed.
    pub last_good_drill: Option<Timestamp>,
    pub max_drill_age: Option<f64>,
    pub restore: Option<RestoreTime>,
    pub max_restore_time: Option<f64>,
    /// By how much the last good snapshot is larger than those before it: 0.1 for a tenth.
    pub size_change: Option<f64>,
    pub snapshots: u64,
    pub snapshots_in_future: u64,
}

/// The newest good snapshot.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct LastGood {
    pub snapshot_id: SnapshotId,
    pub time: Timestamp,
    pub seconds: f64,
    pub total_bytes: u64,
    /// Bytes it added to the store.
    pub data_added_packed: u64,
}

/// The newest run, or, where runs leave no reports, the newest snapshot.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct LastTry {
    pub time: Timestamp,
    pub seconds: f64,
    pub outcome: Outcome,
    pub exit_code: u8,
    pub error: Option<String>,
}

/// The newest drill.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct LastDrill {
    pub time: Timestamp,
    pub outcome: Outcome,
    pub error: Option<String>,
    pub snapshot_id: Option<SnapshotId>,
    pub seconds_to_ready: f64,
}

/// How long a restore takes.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct RestoreTime {
    pub seconds: f64,
    /// By a drill of this job; otherwise estimated from its size.
    pub measured: bool,
}

/// How the store stands.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct StoreStatus {
    pub state: Option<State>,
    pub missed: Vec<Missed>,
    pub warnings: Vec<String>,
    pub snapshots: u64,
    pub snapshots_unreadable: u64,
    pub packs: u64,
    pub stored_bytes: u64,
    pub quota: Option<u64>,
    /// Bytes of packs that were read whole and found good at some time.
    pub verified_bytes: u64,
    pub packs_bytes: u64,
    /// When, of these packs, the one that was read longest ago was read.
    pub oldest_verified: Option<Timestamp>,
    pub last_check: Option<LastCheck>,
}

/// The newest check.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct LastCheck {
    pub time: Timestamp,
    pub outcome: Outcome,
    pub whole: bool,
}

impl Status {
    /// Leaves only these jobs, of these hosts; empty lists let all pass. One that is asked for must be there.
    pub fn narrow(&mut self, jobs: &[String], hosts: &[String]) -> Result<()> {
        if jobs.is_empty() && hosts.is_empty() {
            return Ok(());
        }
        let unknown =
            |what: &str, name: &String| Error::NotFound(format!("Nothing is known of the {what} {}", show_bytes(name.as_bytes())));
        if let Some(name) = jobs.iter().find(|name| self.jobs.iter().all(|job| job.job != **name)) {
            return Err(unknown("job", name));
        }
        if let Some(name) = hosts.iter().find(|name| self.jobs.iter().all(|job| job.host != **name)) {
            return Err(unknown("host", name));
        }
        self.jobs.retain(|job| (jobs.is_empty() || jobs.contains(&job.job)) && (hosts.is_empty() || hosts.contains(&job.host)));
        let healthy = self.missed().next().is_none();
        self.healthy = healthy;
        Ok(())
    }

    /// Every missed objective: the job, nothing for the store, and what is missed.
    pub fn missed(&self) -> impl Iterator<Item = (Option<&JobStatus>, &Missed)> {
        let jobs = self.jobs.iter().flat_map(|job| job.missed.iter().map(move |missed| (Some(job), missed)));
        jobs.chain(self.repository.missed.iter().map(|missed| (None, missed)))
    }

    /// The age that matters: of the job that is worst off. None if it has no good snapshot.
    pub fn oldest_good(&self) -> Option<(Timestamp, f64)> {
        let mut oldest = None;
        for job in &self.jobs {
            let (last, age) = (job.last_good.as_ref()?, job.age?);
            if oldest.is_none_or(|(_, older)| age > older) {
                oldest = Some((last.time, age));
            }
        }
        oldest
    }
}
