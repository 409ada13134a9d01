//! The status as Prometheus reads it: times and sizes rather than ages and judgements, so that a file that is no longer written tells.

use std::fmt::Write as _;
use std::path::Path;

use jiff::Timestamp;

use super::{JobStatus, Status};
use crate::error::{Error, Result};
use crate::format::report::Outcome;
use crate::replace;

/// A metric of each job: name, what it is, value.
type OfJob = (&'static str, &'static str, fn(&JobStatus) -> Option<f64>);
/// A metric of the repository.
type OfStore = (&'static str, &'static str, fn(&Status) -> Option<f64>);

const OF_JOBS: &[OfJob] = &[
    ("snap_job_healthy", "Whether all objectives of the job were met when this was written", |job| flag(job.missed.is_empty())),
    ("snap_job_warnings", "Things to look at that are no missed objective", |job| Some(job.warnings.len() as f64)),
    ("snap_job_last_good_timestamp_seconds", "When the newest good snapshot was begun; 0 if there is none", |job| {
        Some(job.last_good.as_ref().map_or(0.0, |last| unix(last.time)))
    }),
    ("snap_job_max_age_seconds", "How old the newest good snapshot may be", |job| Some(job.max_age)),
    ("snap_job_last_try_timestamp_seconds", "When the last run was begun", |job| job.last_try.as_ref().map(|last| unix(last.time))),
    ("snap_job_last_try_success", "Whether the last run was good", |job| {
        job.last_try.as_ref().and_then(|last| flag(last.outcome == Outcome::Good))
    }),
    ("snap_job_last_try_duration_seconds", "How long the last run took", |job| job.last_try.as_ref().map(|last| last.seconds)),
    ("snap_job_size_bytes", "Plain bytes of the newest good snapshot", |job| job.last_good.as_ref().map(|last| last.total_bytes as f64)),
    ("snap_job_added_bytes", "Bytes the newest good snapshot added to the store", |job| {
        job.last_good.as_ref().map(|last| last.data_added_packed as f64)
    }),
    ("snap_job_snapshots", "Snapshots of the job", |job| Some(job.snapshots as f64)),
    ("snap_job_snapshots_in_future", "Snapshots from the future, which do not count", |job| Some(job.snapshots_in_future as f64)),
    ("snap_job_last_verified_timestamp_seconds", "When its data was last read back and found good", |job| job.last_verified.map(unix)),
    ("snap_job_max_verify_age_seconds", "How long ago that may be", |job| job.max_verify_age),
    ("snap_job_last_drill_timestamp_seconds", "When a restore was last tried out", |job| {
        job.last_drill.as_ref().map(|drill| unix(drill.time))
    }),
    ("snap_job_last_drill_success", "Whether that passed", |job| {
        job.last_drill.as_ref().and_then(|drill| flag(drill.outcome == Outcome::Good))
    }),
    ("snap_job_last_good_drill_timestamp_seconds", "When a drill last passed", |job| job.last_good_drill.map(unix)),
    ("snap_job_max_drill_age_seconds", "How long ago that may be", |job| job.max_drill_age),
    ("snap_job_restore_seconds", "How long a restore takes", |job| job.restore.map(|restore| restore.seconds)),
    ("snap_job_restore_measured", "Whether a drill measured that, or it is estimated", |job| {
        job.restore.and_then(|restore| flag(restore.measured))
    }),
    ("snap_job_max_restore_seconds", "How long a restore may take", |job| job.max_restore_time),
];

const OF_STORE: &[OfStore] = &[
    ("snap_repository_healthy", "Whether all objectives were met when this was written", |status| flag(status.healthy)),
    ("snap_repository_missed_objectives", "Objectives that were missed", |status| Some(status.missed().count() as f64)),
    ("snap_repository_warnings", "Things to look at about the store", |status| Some(status.repository.warnings.len() as f64)),
    ("snap_repository_stored_bytes", "Bytes in the store", |status| Some(status.repository.stored_bytes as f64)),
    ("snap_repository_quota_bytes", "Bytes the store may take", |status| status.repository.quota.map(|quota| quota as f64)),
    ("snap_repository_snapshots", "Snapshots of all jobs", |status| Some(status.repository.snapshots as f64)),
    ("snap_repository_unreadable_snapshots", "Snapshots that cannot be read", |status| Some(status.repository.snapshots_unreadable as f64)),
    ("snap_repository_packs", "Packs in the store", |status| Some(status.repository.packs as f64)),
    ("snap_repository_packs_bytes", "Bytes of all packs", |status| Some(status.repository.packs_bytes as f64)),
    ("snap_repository_verified_bytes", "Bytes of packs that were read whole and found good at some time", |status| {
        Some(status.repository.verified_bytes as f64)
    }),
    ("snap_repository_oldest_verified_timestamp_seconds", "When, of these, the pack was read that was read longest ago", |status| {
        status.repository.oldest_verified.map(unix)
    }),
    ("snap_repository_last_check_timestamp_seconds", "When the last check was begun", |status| {
        status.repository.last_check.as_ref().map(|check| unix(check.time))
    }),
    ("snap_repository_last_check_success", "Whether that found no damage", |status| {
        status.repository.last_check.as_ref().and_then(|check| flag(check.outcome == Outcome::Good))
    }),
    ("snap_status_timestamp_seconds", "When this was written", |status| Some(unix(status.time))),
];

fn unix(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1000.0
}

fn flag(value: bool) -> Option<f64> {
    Some(f64::from(u8::from(value)))
}

/// The status in Prometheus' text format. All metrics are gauges.
pub fn metrics(status: &Status) -> String {
    let mut text = String::new();
    let mut add = |name: &str, help: &str, samples: Vec<(String, f64)>| {
        if samples.is_empty() {
            return;
        }
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    for (name, help, value) in OF_JOBS {
        let sample = |job: &JobStatus| Some((labels(job), value(job)?));
        add(name, help, status.jobs.iter().filter_map(sample).collect());
    }
    for (name, help, value) in OF_STORE {
        add(name, help, value(status).map(|value| (String::new(), value)).into_iter().collect());
    }
    text
}

fn labels(job: &JobStatus) -> String {
    format!("{{host=\"{}\",job=\"{}\"}}", escape(&job.host), escape(&job.job))
}

/// A label's value. Control characters have no business in one.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '"' => escaped.push_str("\\\""),
            '\n' => escaped.push_str("\\n"),
            c if c.is_control() => escaped.push('?'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Writes the metrics to a file, as a whole or not at all, for Prometheus' node exporter to read.
pub fn write_metrics(path: &Path, status: &Status) -> Result<()> {
    // Until the rename its name does not end in .prom, so the exporter passes it over.
    replace::durably(path, 0o644, metrics(status).as_bytes()).map_err(|error| Error::file("write", path, error))
}

/// Every metric there may be.
#[cfg(test)]
pub fn names() -> impl Iterator<Item = &'static str> {
    OF_JOBS.iter().map(|metric| metric.0).chain(OF_STORE.iter().map(|metric| metric.0))
}
