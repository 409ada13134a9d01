//! What is told, in words and as JSON.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Missing;
use crate::config::WebhookForm;
use crate::error::show_bytes;
use crate::format::report::{Did, Outcome, Report};
use crate::wording::{count, duration, size};

/// What Discord takes in one message.
const DISCORD_CHARS_MAX: usize = 1900;
/// Warnings of a report that are told.
const WARNINGS_TOLD: usize = 5;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Started,
    Succeeded,
    Failed,
    Recovered,
    /// An objective is missed.
    Missed,
    /// Objectives were missed, and are judged no more.
    Unwatched,
    Test,
}

impl Event {
    pub fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Recovered => "recovered",
            Self::Missed => "missed",
            Self::Unwatched => "unwatched",
            Self::Test => "test",
        }
    }
}

/// A message to people and programs.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub event: Event,
    pub time: Timestamp,
    pub host: String,
    pub job: Option<String>,
    /// One line.
    pub title: String,
    /// Lines behind it; may be empty.
    pub text: String,
    /// When the trouble began that is over.
    pub since: Option<Timestamp>,
    /// The objectives it is about.
    pub missed: Vec<Missing>,
    /// For programs.
    pub report: Option<Value>,
}

impl Message {
    pub fn of_report(event: Event, report: &Report) -> Self {
        let (what, job, details) = match &report.did {
            Did::Run(run) => ("backup", run.job.clone(), run.snapshot.map(|id| format!("snapshot {}, {}", id.short(), size(run.bytes)))),
            Did::Drill(drill) => ("drill", drill.job.clone(), drill.snapshot.map(|id| format!("of snapshot {}", id.short()))),
            Did::Check(_) => ("check", String::new(), None),
            Did::Prune(_) => ("prune", String::new(), None),
        };
        let how = match event {
            Event::Started => "has begun",
            Event::Succeeded => "went well",
            Event::Recovered => "is well again",
            _ if report.outcome == Outcome::Partial => "did not go well in all",
            _ => "FAILED",
        };
        let mut lines: Vec<String> = report.error.iter().cloned().collect();
        lines.extend(details);
        if event != Event::Started {
            lines.push(format!("after {}, exit code {}", duration(report.seconds), report.exit_code));
        }
        lines.extend(report.warnings.iter().take(WARNINGS_TOLD).map(|warning| format!("warning: {warning}")));
        let lines: Vec<String> = lines.iter().map(|line| plain(line)).collect();
        Self {
            event,
            time: report.time,
            host: report.host.clone(),
            title: plain(&format!("{what} of {job} on {} {how}", report.host)),
            job: Some(job),
            text: lines.join("\n"),
            since: None,
            missed: Vec::new(),
            report: Some(summary(report)),
        }
    }

    /// Of objectives, at least one: missed, met again, or not watched any more.
    pub fn of_missing(event: Event, missing: &[Missing], now: Timestamp) -> Self {
        let whose = |one: &Missing| one.job.as_ref().map_or_else(|| "the repository".to_owned(), |job| format!("{job} on {}", one.host));
        let line = |one: &Missing| match event {
            Event::Recovered => format!("{} is well again; it was told: {}", whose(one), one.message),
            Event::Unwatched => {
                format!(
                    "{} is not watched any more, since it is no job here now; it was told, and may still be: {}",
                    whose(one),
                    one.message
                )
            }
            _ => format!("{}: {}", whose(one), one.message),
        };
        let lines: Vec<String> = missing.iter().map(|one| plain(&line(one))).collect();
        let all_of = |own: fn(&Missing) -> Option<String>| {
            let first = missing.first().and_then(own)?;
            missing.iter().all(|one| own(one).as_ref() == Some(&first)).then_some(first)
        };
        let (title, text) = match lines.as_slice() {
            [one] => (one.clone(), String::new()),
            lines => {
                let objectives = count(lines.len() as u64, "objective");
                let how = match event {
                    Event::Recovered => "met again",
                    Event::Unwatched => "not watched any more",
                    _ => "missed",
                };
                (format!("backups: {objectives} {how}"), lines.join("\n"))
            }
        };
        Self {
            event,
            time: now,
            host: all_of(|one| Some(one.host.clone())).unwrap_or_default(),
            job: all_of(|one| one.job.clone()),
            title,
            text,
            since: None,
            missed: missing.to_vec(),
            report: None,
        }
    }

    pub fn test(host: &str, now: Timestamp) -> Self {
        Self {
            event: Event::Test,
            time: now,
            host: host.into(),
            job: None,
            title: plain(&format!("snap on {host}: this is a test")),
            text: "If you read this, notifications work.".into(),
            since: None,
            missed: Vec::new(),
            report: None,
        }
    }

    /// Title and text.
    pub fn whole(&self) -> String {
        match self.text.is_empty() {
            true => self.title.clone(),
            false => format!("{}\n{}", self.title, self.text),
        }
    }

    pub fn to_json(&self) -> Value {
        json!({
            "event": self.event.name(),
            "time": self.time,
            "hostname": self.host,
            "job": self.job,
            "title": self.title,
            "text": self.text,
            "since": self.since,
            "missed": self.missed,
            "report": self.report,
        })
    }

    /// As a kind of webhook wants it.
    pub fn in_form(&self, form: WebhookForm) -> Value {
        let mark = match self.event {
            Event::Failed | Event::Missed => "\u{1f534} ",
            Event::Recovered | Event::Succeeded => "\u{1f7e2} ",
            Event::Unwatched => "\u{1f7e1} ",
            Event::Started | Event::Test => "",
        };
        match form {
            WebhookForm::Json => self.to_json(),
            // Its own three, and nothing that would call people or lead somewhere.
            WebhookForm::Slack => {
                let text = self.whole().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
                json!({ "text": format!("{mark}{text}") })
            }
            WebhookForm::Discord => {
                let text: String = format!("{mark}{}", self.whole()).chars().take(DISCORD_CHARS_MAX).collect();
                json!({ "content": text, "allowed_mentions": { "parse": [] } })
            }
        }
    }
}

/// Without control characters.
fn plain(text: &str) -> String {
    show_bytes(text.as_bytes())
}

/// What of a report leaves this machine: of what commands said only what stands in the error and the warnings, without the secrets they got.
fn summary(report: &Report) -> Value {
    let mut value = json!({
        "time": report.time,
        "seconds": report.seconds,
        "outcome": report.outcome,
        "exit_code": report.exit_code,
        "error": report.error,
        "warnings": report.warnings,
    });
    match &report.did {
        Did::Run(run) => {
            value["snapshot_id"] = json!(run.snapshot);
            value["total_bytes"] = json!(run.bytes);
            value["data_added_packed"] = json!(run.bytes_stored);
        }
        Did::Drill(drill) => {
            value["snapshot_id"] = json!(drill.snapshot);
            value["seconds_to_ready"] = json!(drill.seconds_to_ready);
        }
        Did::Check(_) | Did::Prune(_) => {}
    }
    value
}
