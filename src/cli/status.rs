//! `snap status`.

use std::time::Duration;

use jiff::Timestamp;

use super::context::Context;
use super::exit::{self, Outcome};
use super::show::Column::{Left, Right};
use super::{expect, notices, output, show, unlock};
use crate::config;
use crate::error::{Error, Result};
use crate::ops::status::{JobStatus, State, Status, gather, health, judge, metrics};

/// Say whether every job is backed up as recently as it should be
///
/// The worst first. An objective that is missed ends with exit code 30, so that cron, systemd and monitoring notice. Jobs and their
/// objectives are those of the configuration (snap.toml); without one, every stream in the repository (host and name) should have
/// a good snapshot that is at most 26 hours old, or --max-age. Good means that everything could be read and no run found fault with it; snapshots from the future do not count.
/// An age counts from when the backup began, since that is how old the data is.
#[derive(clap::Args)]
#[command(after_long_help = exit::help(EXAMPLES, exit::WATCHING))]
pub struct Args {
    /// Only these jobs or streams
    #[arg(value_name = "JOB")]
    jobs: Vec<String>,
    /// Only those of this host; may be repeated
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// How old the newest good snapshot of a stream may be that no configuration names: 26h, 8d
    #[arg(long, value_name = "DURATION", value_parser = config::parse_duration)]
    max_age: Option<Duration>,
    /// Also streams in the repository that are no job of the configuration
    #[arg(short, long)]
    all: bool,
    /// Print metrics in Prometheus' text format
    #[arg(long, conflicts_with_all = ["health", "json"])]
    prometheus: bool,
    /// Print a small answer for health checks: lastBackup, status and backupAge
    #[arg(long)]
    health: bool,
    /// Tell whom [notify] of the configuration names of objectives that are missed, and of those that are met again
    #[arg(long, conflicts_with_all = ["jobs", "host", "all", "max_age"])]
    notify: bool,
}

const EXAMPLES: &str = "
  snap status
  snap status --max-age 8d weekly.sql
  snap status --health
  snap -q status --notify
  snap status --prometheus > /var/lib/prometheus/node-exporter/snap.prom
  snap status --json | jq -r '.jobs[] | select(.state == \"missed\") | .job'";

impl Args {
    pub fn run(self, context: &Context) -> Result<Outcome> {
        let expectations = expect::expectations(context, self.max_age, self.all);
        if let (true, Err(error)) = (self.notify, &expectations) {
            notices::mistaken(context, error);
        }
        let expectations = expectations?;
        let config = match self.notify {
            true => Some(expect::configuration(context)?.ok_or_else(nobody)?),
            false => None,
        };
        let judged = unlock::open(context).and_then(|repository| Ok(judge(&gather(&repository)?, &expectations, repository.world().now())));
        if let Some(config) = config {
            let untold = match &judged {
                Ok(status) => notices::judged(context, config, status),
                Err(Error::Interrupted) => Vec::new(),
                Err(error) => notices::blind(context, config, &exit::message(error)),
            };
            untold.iter().for_each(|warning| output::complain(&format!("warning: {warning}")));
        }
        let mut status = judged?;
        status.narrow(&self.jobs, &self.host)?;
        if self.prometheus {
            output::write_all(metrics(&status).as_bytes())?;
        } else if self.health {
            output::print_json(&health(&status))?;
        } else if context.options.json {
            output::print_json(&serde_json::to_value(&status).expect("a status is plain JSON"))?;
        } else if !context.options.quiet || !status.healthy {
            output::print(&text(&status))?;
        }
        Ok(match (status.repository.snapshots_unreadable, status.healthy) {
            (1.., _) => Outcome::Damaged,
            (0, false) => Outcome::Missed,
            (0, true) => Outcome::Done,
        })
    }
}

fn nobody() -> Error {
    Error::Usage("--notify tells whom [notify] in snap.toml names, and there is no configuration of this repository".into())
}

fn text(status: &Status) -> String {
    let mut lines = Vec::new();
    if !status.jobs.is_empty() {
        lines.push(table(status));
        lines.push(String::new());
    }
    for job in &status.jobs {
        let told =
            job.missed.iter().map(|missed| ("missed", &missed.message)).chain(job.warnings.iter().map(|warning| ("warning", warning)));
        lines.extend(told.map(|(kind, message)| format!("{kind}: {} on {}: {message}", job.job, job.host)));
    }
    let store = &status.repository;
    lines.extend(store.missed.iter().map(|missed| format!("missed: {}", missed.message)));
    lines.extend(store.warnings.iter().map(|warning| format!("warning: {warning}")));
    lines.push(store_line(status));
    let missed = status.missed().count() as u64;
    lines.push(match (missed, status.other_streams) {
        (0, 0) => "all objectives are met".into(),
        (0, others) => format!("all objectives are met; {} in the repository that no job names", show::count(others, "more stream")),
        (missed, _) => format!("{} missed", show::count(missed, "objective")),
    });
    lines.iter().map(|line| line.split('\n').map(output::harmless).collect::<Vec<_>>().join("\n")).collect::<Vec<_>>().join("\n")
}

fn store_line(status: &Status) -> String {
    let store = &status.repository;
    let quota = store.quota.map(|quota| format!(" of {}", show::size(quota))).unwrap_or_default();
    let verified = match store.oldest_verified {
        None if store.packs == 0 => String::new(),
        None => "; no data was read by a check yet".into(),
        Some(oldest) => {
            let share = 100.0 * store.verified_bytes as f64 / store.packs_bytes.max(1) as f64;
            format!("; {share:.0} % of the data was read by checks, the longest ago {}", ago(status, oldest))
        }
    };
    format!("store: {}{quota} in {}{verified}", show::size(store.stored_bytes), show::count(store.snapshots, "snapshot"))
}

fn ago(status: &Status, time: Timestamp) -> String {
    format!("{} ago", show::duration(status.time.duration_since(time).as_secs_f64().max(0.0)))
}

fn table(status: &Status) -> String {
    let columns = [
        Left("State"),
        Left("Job"),
        Left("Host"),
        Left("Last good"),
        Right("Age"),
        Right("Allowed"),
        Left("Last try"),
        Left("Verified"),
        Left("Drill"),
        Right("Size"),
        Right("Trend"),
        Right("Restore"),
    ];
    let row = |job: &JobStatus| {
        let state = match job.state {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Missed => "MISSED",
        };
        let last = job.last_good.as_ref();
        let or_never = |time: Option<Timestamp>| time.map_or_else(|| "never".into(), |time| ago(status, time));
        let trend = job.size_change.map(|change| format!("{:+.0} %", change * 100.0));
        let restore = job.restore.map(|restore| {
            let about = if restore.measured { "" } else { "about " };
            format!("{about}{}", show::duration(restore.seconds))
        });
        vec![
            state.into(),
            output::harmless(&job.job),
            output::harmless(&job.host),
            last.map_or_else(|| "never".into(), |last| show::time(last.time)),
            job.age.map(show::duration).unwrap_or_default(),
            allowed(job.max_age),
            tried(job),
            or_never(job.last_verified),
            drilled(job, status),
            last.map(|last| show::size(last.total_bytes)).unwrap_or_default(),
            trend.unwrap_or_default(),
            restore.unwrap_or_default(),
        ]
    };
    let rows: Vec<Vec<String>> = status.jobs.iter().map(row).collect();
    show::table(&columns, &rows)
}

fn allowed(seconds: f64) -> String {
    config::show_duration(Duration::from_secs_f64(seconds))
}

fn tried(job: &JobStatus) -> String {
    use crate::format::report::Outcome;
    match job.last_try.as_ref().map(|last| last.outcome) {
        None => "never".into(),
        Some(Outcome::Good) => "good".into(),
        Some(Outcome::Partial) => "partial".into(),
        Some(Outcome::Failed) => "failed".into(),
    }
}

fn drilled(job: &JobStatus, status: &Status) -> String {
    use crate::format::report::Outcome;
    match &job.last_drill {
        None => "never".into(),
        Some(drill) if drill.outcome == Outcome::Good => ago(status, drill.time),
        Some(drill) => format!("failed {}", ago(status, drill.time)),
    }
}
