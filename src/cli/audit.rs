//! `snap audit`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::context::Context;
use super::exit::{self, Outcome};
use super::show::Column::{Left, Right};
use super::{output, show, unlock};
use crate::error::Result;
use crate::format::report;
use crate::ops::audit::{AuditReport, Event, audit};

/// Say who backed up, forgot, pruned, checked and drilled, and how it went
///
/// Oldest first, from what is sealed in the repository: snapshots, records of what was removed, and reports of runs, drills,
/// checks and clean-ups. None of these can be made or altered without the key. Who can write to the store can remove some;
/// snap check --receipt notices that of snapshots. Times are local in the table, and UTC in CSV and JSON.
#[derive(clap::Args)]
#[command(after_long_help = exit::help(EXAMPLES, exit::OPENING))]
pub struct Args {
    /// From this time on: 2026-01-01, "2026-11-21 02:00:00" (local) or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = show::parse_time)]
    since: Option<Timestamp>,
    /// Before this time
    #[arg(long, value_name = "TIME", value_parser = show::parse_time)]
    until: Option<Timestamp>,
    /// Only what this host did; may be repeated
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// Only what was done for this job or stream; may be repeated
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
    /// Print comma-separated values, with a line of headings
    #[arg(long)]
    csv: bool,
}

const EXAMPLES: &str = "
  snap audit --since 2026-01-01
  snap audit --since 2026-01-01 --until 2026-04-01 --csv > first-quarter.csv
  snap audit --json | jq '.events[] | select(.outcome != \"good\")'";

impl Args {
    pub fn run(self, context: &Context) -> Result<Outcome> {
        let repository = unlock::open(context)?;
        let mut found = audit(&repository, self.since, self.until)?;
        found.events.retain(|event| {
            (self.host.is_empty() || self.host.contains(&event.host)) && (self.name.is_empty() || self.name.contains(&event.job))
        });
        if self.csv {
            output::write_all(csv(&found).as_bytes())?;
        } else if context.options.json {
            output::print_json(&document(&found))?;
        } else {
            output::print(&table(&found))?;
        }
        for (kind, (name, error)) in &found.unreadable {
            output::complain(&format!("{kind} {}: {}", &name[..name.len().min(8)], exit::message(error)));
        }
        match found.unreadable.into_iter().next() {
            None => Ok(Outcome::Done),
            Some((_, (_, error))) if error.is_damage() => Ok(Outcome::Damaged),
            Some((_, (_, error))) => Err(error),
        }
    }
}

fn document(found: &AuditReport) -> Value {
    let unreadable =
        found.unreadable.iter().map(|(kind, (name, error))| json!({ "evidence": kind, "object": name, "message": exit::message(error) }));
    json!({ "events": found.events, "unreadable": unreadable.collect::<Vec<_>>() })
}

fn outcome(event: &Event) -> &'static str {
    match event.outcome {
        report::Outcome::Good => "good",
        report::Outcome::Partial => "partial",
        report::Outcome::Failed => "failed",
    }
}

fn who(event: &Event) -> String {
    match event.user.is_empty() {
        true => event.host.clone(),
        false => format!("{}@{}", event.user, event.host),
    }
}

fn table(found: &AuditReport) -> String {
    const SNAPSHOTS_SHOWN: usize = 3;
    let columns = [Left("Time"), Left("Action"), Left("Result"), Left("Job"), Left("Who"), Right("Size"), Left("Snapshot"), Left("Detail")];
    let row = |event: &Event| {
        let mut snapshots: Vec<String> = event.snapshots.iter().take(SNAPSHOTS_SHOWN).map(|id| id.short()).collect();
        if event.snapshots.len() > SNAPSHOTS_SHOWN {
            snapshots.push("...".into());
        }
        vec![
            show::time(event.time),
            event.action.name().into(),
            outcome(event).into(),
            output::harmless(&event.job),
            output::harmless(&who(event)),
            if event.bytes > 0 { show::size(event.bytes) } else { String::new() },
            snapshots.join(" "),
            output::harmless(&event.detail),
        ]
    };
    let rows: Vec<Vec<String>> = found.events.iter().map(row).collect();
    match rows.is_empty() {
        true => "nothing is known to have been done".into(),
        false => format!("{}\n{}", show::table(&columns, &rows), show::count(rows.len() as u64, "event")),
    }
}

/// As RFC 4180 has it.
fn csv(found: &AuditReport) -> String {
    let mut text = "time,action,outcome,exit_code,job,hostname,username,bytes,seconds,snapshots,detail,evidence,object\r\n".to_owned();
    for event in &found.events {
        let snapshots: Vec<String> = event.snapshots.iter().map(|id| id.hex()).collect();
        let evidence = format!("{:?}", event.evidence).to_lowercase();
        let cells = [
            event.time.to_string(),
            event.action.name().into(),
            outcome(event).into(),
            event.exit_code.to_string(),
            cell(&event.job),
            cell(&event.host),
            cell(&event.user),
            event.bytes.to_string(),
            format!("{:.3}", event.seconds),
            cell(&snapshots.join(" ")),
            cell(&event.detail),
            evidence,
            event.object.hex(),
        ];
        text.push_str(&cells.join(","));
        text.push_str("\r\n");
    }
    text
}

/// A text for a cell: quoted where it must be, without control characters, and never a formula for the program that opens it.
fn cell(text: &str) -> String {
    let mut text = output::harmless(text);
    if text.starts_with(['=', '+', '-', '@']) {
        text.insert(0, '\'');
    }
    match text.contains([',', '"']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_are_no_formulas() {
        for (text, expected) in [
            ("plain", "plain"),
            ("a, b", "\"a, b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("two\nlines", "two\\nlines"),
            ("=HYPERLINK(\"x\")", "\"'=HYPERLINK(\"\"x\"\")\""),
            ("-1", "'-1"),
        ] {
            assert_eq!(cell(text), expected);
        }
    }
}
