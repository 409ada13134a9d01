//! Pages about jobs: all of them, and one with its nights, sizes, runs, drills and snapshots.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::charts;
use super::html::{self, ago, badge, fact, link, text};
use super::reports;
use super::snapshots;
use super::state::View;
use crate::config::show_duration;
use crate::format::report::Outcome;
use crate::ops::status::{JobStatus, State, Status};
use crate::repo::StoredReport;
use crate::wording::{count, duration, size};

/// Nights in the line of a job on the first page, and weeks on its own.
const STRIP_DAYS: i32 = 30;
const CALENDAR_WEEKS: i32 = 26;
/// Bars of sizes.
const SIZES_MAX: usize = 120;
/// Runs and drills on the page of a job.
const RUNS_SHOWN: usize = 14;
const DRILLS_SHOWN: usize = 5;

fn today(status: &Status, zone: &TimeZone) -> Date {
    status.time.to_zoned(zone.clone()).date()
}

/// So many days ago.
fn since(status: &Status, days: i32) -> Timestamp {
    status.time - Duration::from_secs(days as u64 * 24 * 3600)
}

/// The first page: what is wrong, then every job, the worst first.
pub fn all(view: &View, zone: &TimeZone, page: usize) -> String {
    let status = &view.status;
    let missed = status.missed().count() as u64;
    let (title, class) = match missed {
        0 => ("All objectives are met".to_owned(), "good"),
        missed => (format!("{} missed", count(missed, "objective")), "bad"),
    };
    let mut body = format!("<h1>{} {title}</h1>", badge(class, if missed == 0 { "healthy" } else { "unhealthy" }));
    body.push_str(&store(status, zone));
    let (jobs, pages) = html::paged(status.jobs.iter().collect(), page, "/?page=");
    for job in jobs {
        let nights =
            charts::nights(&view.snapshots(&job.host, &job.job), &view.runs(&job.host, &job.job), zone, since(status, STRIP_DAYS + 2));
        let _ = write!(body, "<article class=\"card {}\">{}", class_of(job.state), head(job));
        body.push_str(&told(job));
        body.push_str(&facts(job, status, zone));
        body.push_str(&charts::strip(&nights, today(status, zone), STRIP_DAYS));
        body.push_str("</article>");
    }
    body.push_str(&pages);
    if status.jobs.is_empty() {
        body.push_str("<p>There is no snapshot yet, and no job in the configuration.</p>");
    }
    if status.other_streams > 0 {
        let others = count(status.other_streams, "more stream");
        let _ = write!(body, "<p class=\"note\">{others} in the repository that no job of the configuration names.</p>");
    }
    html::page(&title, &body)
}

fn class_of(state: State) -> &'static str {
    match state {
        State::Ok => "good",
        State::Warning => "warn",
        State::Missed => "bad",
    }
}

fn head(job: &JobStatus) -> String {
    let word = match job.state {
        State::Ok => "ok",
        State::Warning => "warning",
        State::Missed => "MISSED",
    };
    let (link, name) = (link(&job.host, &job.job), text(&job.job));
    let host = text(&job.host);
    format!(
        "<div class=\"head\"><h3><a href=\"{link}\">{name}</a></h3><span class=\"note\">{host}</span>{}</div>",
        badge(class_of(job.state), word)
    )
}

/// What is missed, and what should be looked at.
fn told(job: &JobStatus) -> String {
    let missed = job.missed.iter().map(|missed| ("bad", &missed.message));
    let lines = missed.chain(job.warnings.iter().map(|warning| ("warn", warning)));
    lines.map(|(class, message)| format!("<p class=\"say {class}\">{}</p>", text(message))).collect()
}

fn allowed(seconds: f64) -> String {
    format!(" <span class=\"note\">of {}</span>", show_duration(Duration::from_secs_f64(seconds)))
}

fn facts(job: &JobStatus, status: &Status, zone: &TimeZone) -> String {
    let limit = |seconds: Option<f64>| seconds.map(allowed).unwrap_or_default();
    let or_never = |time: Option<Timestamp>| time.map_or_else(|| "never".into(), |time| ago(status.time, time));
    let mut list = String::from("<dl>");
    let last = job.last_good.as_ref();
    fact(&mut list, "Last good", &last.map_or_else(|| "never".into(), |last| html::time(last.time, zone)));
    fact(&mut list, "Age", &job.age.map(|age| format!("{}{}", duration(age), allowed(job.max_age))).unwrap_or_default());
    let tried = job.last_try.as_ref();
    fact(&mut list, "Last try", &tried.map_or_else(|| "never".into(), |last| html::outcome(last.outcome)));
    fact(&mut list, "Verified", &format!("{}{}", or_never(job.last_verified), limit(job.max_verify_age)));
    let drilled = match &job.last_drill {
        Some(drill) if drill.outcome != Outcome::Good => format!("{} {}", html::outcome(drill.outcome), ago(status.time, drill.time)),
        drill => or_never(drill.as_ref().map(|drill| drill.time)),
    };
    fact(&mut list, "Drill", &format!("{drilled}{}", limit(job.max_drill_age)));
    let trend = job.size_change.map(|change| format!(" <span class=\"note\">{:+.0} %</span>", change * 100.0));
    let sized = last.map(|last| format!("{}{}", size(last.total_bytes), trend.unwrap_or_default()));
    fact(&mut list, "Size", &sized.unwrap_or_default());
    let restore = job.restore.map(|restore| {
        let about = if restore.measured { "" } else { "about " };
        format!("{about}{}{}", duration(restore.seconds), limit(job.max_restore_time))
    });
    fact(&mut list, "Restore", &restore.unwrap_or_default());
    list.push_str("</dl>");
    list
}

/// How the store stands.
fn store(status: &Status, zone: &TimeZone) -> String {
    let store = &status.repository;
    let class = match (store.missed.is_empty(), store.warnings.is_empty()) {
        (false, _) => "bad",
        (true, false) => "warn",
        (true, true) => "good",
    };
    let mut out = format!("<section class=\"card {class}\">");
    let missed = store.missed.iter().map(|missed| ("bad", &missed.message));
    for (class, message) in missed.chain(store.warnings.iter().map(|warning| ("warn", warning))) {
        let _ = write!(out, "<p class=\"say {class}\">{}</p>", text(message));
    }
    let mut list = String::from("<dl>");
    let quota = store.quota.map(|quota| format!(" <span class=\"note\">of {}</span>", size(quota))).unwrap_or_default();
    fact(&mut list, "Store", &format!("{}{quota}", size(store.stored_bytes)));
    fact(&mut list, "Snapshots", &store.snapshots.to_string());
    let share = 100.0 * store.verified_bytes as f64 / store.packs_bytes.max(1) as f64;
    let read = store.oldest_verified.map(|oldest| format!("{share:.0} %, the longest {}", ago(status.time, oldest)));
    fact(&mut list, "Read by checks", &read.unwrap_or_else(|| "never".into()));
    let checked = store.last_check.as_ref().map(|check| format!("{} {}", html::outcome(check.outcome), ago(status.time, check.time)));
    fact(&mut list, "Last check", &checked.unwrap_or_else(|| "never".into()));
    fact(&mut list, "As of", &html::time(status.time, zone));
    let _ = write!(out, "{list}</dl></section>");
    out
}

/// One job.
pub fn one(view: &View, job: &JobStatus, zone: &TimeZone) -> String {
    let status = &view.status;
    let (snapshots, runs) = (view.snapshots(&job.host, &job.job), view.runs(&job.host, &job.job));
    let drills = view.drills(&job.host, &job.job);
    let mut body = format!("<h1>{} <span class=\"note\">on {}</span></h1>", text(&job.job), text(&job.host));
    let _ = write!(body, "<article class=\"card {0}\">{1}{2}</article>", class_of(job.state), told(job), facts(job, status, zone));
    let nights = charts::nights(&snapshots, &runs, zone, since(status, CALENDAR_WEEKS * 7 + 2));
    let _ = write!(body, "<h2>Nights</h2>{}", charts::calendar(&nights, today(status, zone), CALENDAR_WEEKS));
    if !snapshots.is_empty() {
        let last = &snapshots[snapshots.len().saturating_sub(SIZES_MAX)..];
        let _ = write!(body, "<h2>Sizes</h2>{}", charts::sizes(last, zone));
    }
    let _ = write!(body, "<h2>Last runs</h2>{}", reports::runs(&last_of(&runs, RUNS_SHOWN), zone, false));
    let _ = write!(body, "<h2>Drills</h2>{}", reports::drills(&last_of(&drills, DRILLS_SHOWN), zone));
    let newest: Vec<_> = snapshots.iter().rev().take(RUNS_SHOWN).copied().collect();
    let _ = write!(body, "<h2>Snapshots</h2>{}", snapshots::table(&newest, zone, false));
    if snapshots.len() > RUNS_SHOWN {
        let _ = write!(body, "<p><a href=\"{}/snapshots\">All {} snapshots</a></p>", link(&job.host, &job.job), snapshots.len());
    }
    html::page(&job.job, &body)
}

/// The newest first.
fn last_of<'v>(reports: &[&'v StoredReport], max: usize) -> Vec<&'v StoredReport> {
    reports.iter().rev().take(max).copied().collect()
}
