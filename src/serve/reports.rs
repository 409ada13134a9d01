//! Runs and drills, with all that is known of how they went.

use std::fmt::Write as _;

use jiff::tz::TimeZone;

use super::html::{self, badge, fact, link, text};
use super::state::{View, drill_of, run_of};
use crate::format::report::{Drill, Step};
use crate::id::SnapshotId;
use crate::repo::StoredReport;
use crate::wording::{count, duration, size};

/// Streams and steps of one report that are shown.
const LINES_MAX: usize = 100;

/// All runs, the newest first.
pub fn all_runs(view: &View, zone: &TimeZone, page: usize) -> String {
    let found: Vec<&StoredReport> = view.facts.reports.iter().rev().filter(|stored| run_of(stored).is_some()).collect();
    let (shown, pages) = html::paged(found, page, "/runs?page=");
    html::page("Runs", &format!("<h1>Runs</h1>{}{pages}", runs(&shown, zone, true)))
}

/// All drills, the newest first.
pub fn all_drills(view: &View, zone: &TimeZone, page: usize) -> String {
    let found: Vec<&StoredReport> = view.facts.reports.iter().rev().filter(|stored| drill_of(stored).is_some()).collect();
    let (shown, pages) = html::paged(found, page, "/drills?page=");
    html::page("Drills", &format!("<h1>Drills</h1>{}{pages}", drills(&shown, zone)))
}

/// Runs in a table, with the job's name if there are several jobs.
pub fn runs(reports: &[&StoredReport], zone: &TimeZone, of_many: bool) -> String {
    if reports.is_empty() {
        return "<p class=\"note\">No run left a report: snap run does, snap backup does not.</p>".into();
    }
    let mut rows = String::new();
    for stored in reports {
        let (Some(run), report) = (run_of(stored), &stored.report) else { continue };
        let name = match of_many {
            true => format!(
                "<td><a href=\"{}\">{}</a> <span class=\"note\">{}</span></td>",
                link(&report.host, &run.job),
                text(&run.job),
                text(&report.host)
            ),
            false => String::new(),
        };
        let (bytes, stored_bytes) = (size(run.bytes), size(run.bytes_stored));
        let _ = write!(
            rows,
            "<tr><td>{}</td>{name}<td>{}</td><td class=\"num\" data-is=\"took\">{}</td><td class=\"num far\">{bytes}</td>\
             <td class=\"num far\">{stored_bytes}</td><td class=\"rest\">{}</td></tr>",
            html::time(report.time, zone),
            html::outcome(report.outcome),
            duration(report.seconds),
            run_details(stored),
        );
    }
    let name = if of_many { "<th>Job</th>" } else { "" };
    format!(
        "<div class=\"wide\"><table><tr><th>Begun</th>{name}<th>Outcome</th><th class=\"num\">Took</th><th class=\"num far\">Size</th>\
         <th class=\"num far\">Stored</th><th></th></tr>{rows}</table></div>"
    )
}

/// The error of a run, and behind a click what else is known.
fn run_details(stored: &StoredReport) -> String {
    let (Some(run), report) = (run_of(stored), &stored.report) else { return String::new() };
    let mut out = String::new();
    if let Some(error) = &report.error {
        let _ = write!(out, "<p class=\"say bad\">{}</p>", text(error));
    }
    for warning in report.warnings.iter().take(LINES_MAX) {
        let _ = write!(out, "<p class=\"say warn\">{}</p>", text(warning));
    }
    let mut more = steps(&run.steps);
    for stream in run.streams.iter().take(LINES_MAX) {
        let _ = write!(more, "<p>{}: {} in {}</p>", text(&stream.name), size(stream.bytes), duration(stream.seconds));
        if !stream.said.is_empty() {
            let said: Vec<String> = stream.said.lines().map(text).collect();
            let _ = write!(more, "<pre>{}</pre>", said.join("\n"));
        }
    }
    more.push_str(&saved(run.snapshot));
    if run.forgotten > 0 {
        let _ = write!(more, "<p>{} forgotten, {} freed</p>", count(run.forgotten, "snapshot"), size(run.bytes_freed));
    }
    if !more.is_empty() {
        let _ = write!(out, "<details><summary>more</summary>{more}</details>");
    }
    out
}

fn saved(snapshot: Option<SnapshotId>) -> String {
    snapshot.map(|id| format!("<p>Snapshot <a href=\"/snapshot/{}\"><code>{}</code></a></p>", id.hex(), id.short())).unwrap_or_default()
}

fn steps(steps: &[Step]) -> String {
    let line = |step: &Step| {
        let error = step.error.as_ref().map(|error| format!(" <span class=\"say bad\">{}</span>", text(error)));
        format!("<li>{}: {}{}</li>", text(&step.name), duration(step.seconds), error.unwrap_or_default())
    };
    match steps {
        [] => String::new(),
        steps => format!("<ul>{}</ul>", steps.iter().take(LINES_MAX).map(line).collect::<String>()),
    }
}

/// Drills with their evidence.
pub fn drills(reports: &[&StoredReport], zone: &TimeZone) -> String {
    if reports.is_empty() {
        return "<p class=\"note\">No restore was tried out yet: snap drill does.</p>".into();
    }
    reports.iter().filter_map(|stored| Some(drill(stored, drill_of(stored)?, zone))).collect()
}

fn drill(stored: &StoredReport, drill: &Drill, zone: &TimeZone) -> String {
    let report = &stored.report;
    let class = if report.outcome == crate::format::report::Outcome::Good { "good" } else { "bad" };
    let mut out = format!(
        "<article class=\"card {class}\"><div class=\"head\"><h3>{}</h3>{}<span class=\"note\">{} on {}</span></div>",
        text(&drill.job),
        html::outcome(report.outcome),
        html::time(report.time, zone),
        text(&report.host),
    );
    if let Some(error) = &report.error {
        let _ = write!(out, "<p class=\"say bad\">{}</p>", text(error));
    }
    let mut list = String::from("<dl>");
    let of = drill.snapshot.map(|id| format!("<a href=\"/snapshot/{}\"><code>{}</code></a>", id.hex(), id.short()));
    fact(&mut list, "Snapshot", &of.unwrap_or_default());
    fact(&mut list, "Of", &drill.snapshot_time.map(|time| html::time(time, zone)).unwrap_or_default());
    fact(&mut list, "Restored", &size(drill.bytes));
    fact(&mut list, "First byte", &duration(drill.seconds_to_first_byte));
    let limit = drill.seconds_allowed.map(|seconds| format!(" <span class=\"note\">of {}</span>", duration(seconds)));
    fact(&mut list, "Until it answered", &format!("{}{}", duration(drill.seconds_to_ready), limit.unwrap_or_default()));
    out.push_str(&list);
    out.push_str("</dl>");
    out.push_str(&checks(drill));
    let mut more = steps(&drill.steps);
    for content in drill.contents.iter().take(LINES_MAX) {
        let _ = write!(more, "<p>{}: {}, BLAKE3 <code>{}</code></p>", text(&content.path), size(content.bytes), text(&content.hash));
    }
    if !more.is_empty() {
        let _ = write!(out, "<details><summary>steps and contents</summary>{more}</details>");
    }
    out.push_str("</article>");
    out
}

/// What was asked of the restored data, and what it answered.
fn checks(drill: &Drill) -> String {
    if drill.checks.is_empty() {
        return String::new();
    }
    let row = |check: &crate::format::report::DrillCheck| {
        let passed = if check.passed { badge("good", "passed") } else { badge("bad", "failed") };
        let (name, asked) = (text(&check.name), text(&check.asked));
        format!(
            "<tr><td>{passed}</td><td class=\"wordy\">{name}<br><code>{asked}</code></td><td data-is=\"Answer\">{}</td>\
             <td data-is=\"Expected\">{}</td></tr>",
            text(&check.answer),
            text(&check.expected)
        )
    };
    let rows: String = drill.checks.iter().take(LINES_MAX).map(row).collect();
    format!("<div class=\"wide\"><table><tr><th></th><th>Question</th><th>Answer</th><th>Expected</th></tr>{rows}</table></div>")
}
