//! `snap check`.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::context::Context;
use super::exit::{self, Outcome};
use super::report::{Channel, Reporter};
use super::{json, output, show, unlock, witness};
use crate::config;
use crate::error::{Result, show as show_path, show_bytes};
use crate::format::report::{self, Did, Report};
use crate::ops::check::{Affected, Budget, CheckReport, Finding, ReadData, Remedy, check, check_keyless};
use crate::ops::receipt::{Doubt, Receipt};
use crate::progress::{Problem, Progress};
use crate::repo::Repository;

/// Look for damage in the repository
///
/// Verifies that everything the snapshots need is there. That is quick, and does not read the dumps themselves: --read-data
/// does, and --read-data-subset reads a part of them, say one seventh every night. Damage is listed with the snapshots, files
/// and byte ranges it hurts; what is not listed can be restored. Nothing is changed: snap repair does that, and check says which
/// commands help. What was verified is noted in a report in the repository, for snap status, snap audit, and --read-data-budget,
/// which goes on where it was longest ago.
#[derive(clap::Args)]
#[command(after_long_help = exit::help(EXAMPLES, exit::OPENING))]
pub struct Args {
    /// Read and verify all stored data
    #[arg(long, conflicts_with = "read_data_subset")]
    read_data: bool,
    /// Read and verify a part: 2/7 (the second of seven), 5% or 10G (chosen at random)
    #[arg(long, value_name = "PART", value_parser = parse_subset)]
    read_data_subset: Option<ReadData>,
    /// Read and verify what was verified longest ago, for so long (30s, 10m, 2h) or so many bytes (50G)
    #[arg(long, value_name = "BUDGET", value_parser = parse_budget, conflicts_with_all = ["read_data", "read_data_subset"])]
    read_data_budget: Option<Budget>,
    /// Compare every file of the repository with its name only; reads everything and needs no password
    #[arg(long, conflicts_with_all = ["read_data", "read_data_subset", "read_data_budget"])]
    keyless: bool,
    /// Compare with the snapshots that this file says were there, and write to it those that are there now; keep it on another machine
    #[arg(long, value_name = "FILE", conflicts_with = "keyless")]
    receipt: Option<PathBuf>,
}

const EXAMPLES: &str = "
  snap check
  snap check --read-data
  snap check --read-data-subset $(date +%u)/7
  snap check --read-data-budget 10m
  snap check --receipt /mnt/stick/snap-receipt.json
  snap check --keyless -r /mnt/copy-at-the-other-site";

impl Args {
    pub fn run(self, context: &Context) -> Result<Outcome> {
        let report = match self.keyless {
            true => {
                let store = unlock::store(context)?;
                unlock::require_manifest(&*store)?;
                check_keyless(&*store, &Reporter::start(context, Channel::Findings))?
            }
            false => {
                let repository = unlock::open(context)?;
                let begun = repository.world().now();
                let reporter = Reporter::start(context, Channel::Findings);
                let mut report = check(&repository, self.part(), &reporter)?;
                self.compare(context, &repository, &mut report, &reporter)?;
                note(&repository, &report, begun);
                report
            }
        };
        if context.options.json {
            print_json(&report)?;
        } else {
            print_text(&report, context)?;
        }
        Ok(match (report.findings.is_empty(), report.unsupported.is_empty()) {
            (true, true) => Outcome::Done,
            (true, false) => Outcome::Unjudged,
            (false, _) => Outcome::Damaged,
        })
    }

    /// Compares with what this host, and whoever keeps the receipt, saw before.
    fn compare(&self, context: &Context, repository: &Repository, report: &mut CheckReport, progress: &dyn Progress) -> Result<()> {
        let mut find = |doubt: Doubt, file: &Path| {
            let finding = Finding { object: "the store".into(), problem: format!("{doubt} (as {} says)", show_path(file)), repair: None };
            progress.problem(&Problem::new(&finding.object, &finding.problem));
            report.findings.push(finding);
        };
        if let Some(receipts) = witness::receipts(context) {
            receipts.compare(repository)?.into_iter().for_each(|(doubt, file)| find(doubt, &file));
        }
        let Some(file) = &self.receipt else { return Ok(()) };
        let next = match Receipt::load(file)? {
            Some(receipt) => {
                let (doubts, next) = receipt.compare(repository)?;
                doubts.into_iter().for_each(|doubt| find(doubt, file));
                next
            }
            None => Receipt::of(repository)?,
        };
        next.save(file)
    }

    fn part(&self) -> ReadData {
        match (self.read_data, self.read_data_budget) {
            (true, _) => ReadData::All,
            (false, Some(budget)) => ReadData::Oldest(budget),
            (false, None) => self.read_data_subset.unwrap_or_default(),
        }
    }
}

/// Leaves a report of what was verified. Where it cannot be stored, on a medium that is read-only, say, the check is as good.
fn note(repository: &Repository, found: &CheckReport, begun: jiff::Timestamp) {
    let problems = found.findings.len() as u64;
    let (outcome, exit_code) = match (problems, found.unsupported.is_empty()) {
        (0, true) => (report::Outcome::Good, 0),
        (0, false) => (report::Outcome::Partial, 1),
        _ => (report::Outcome::Failed, 20),
    };
    let unsupported = found.unsupported.iter().map(|finding| format!("{}: {}", finding.object, finding.problem));
    let report = Report {
        seconds: found.seconds,
        outcome,
        error: (problems > 0).then(|| format!("{} found", show::count(problems, "problem"))),
        exit_code,
        warnings: unsupported.take(WARNINGS_KEPT).collect(),
        ..Report::new(begun, unlock::host(), unlock::user(), Did::Check(found.entry()))
    };
    if let Err(error) = repository.save_report(&report) {
        output::complain(&format!("What was verified could not be noted in the repository: {}", exit::message(&error)));
    }
}

/// Of a check, in its report.
const WARNINGS_KEPT: usize = 16;

fn parse_budget(text: &str) -> std::result::Result<Budget, String> {
    // Small letters, so that 10m is minutes and 10M is mebibytes, as everywhere.
    let is_time = text.ends_with(['s', 'm', 'h', 'd']) || text.ends_with("min");
    let budget = match is_time {
        true => config::parse_duration(text).ok().map(Budget::Time),
        false => show::parse_size(text).map(Budget::Bytes),
    };
    budget.ok_or_else(|| "write a time like 30s, 10m or 2h, or a size like 50G".into())
}

fn parse_subset(text: &str) -> std::result::Result<ReadData, String> {
    let part = if let Some((number, of)) = text.split_once('/') {
        let (number, of) = (number.parse().ok(), of.parse().ok());
        number.zip(of).filter(|(number, of)| (1..=*of).contains(number)).map(|(number, of)| ReadData::Part { number, of })
    } else if let Some(percent) = text.strip_suffix('%') {
        percent.parse().ok().filter(|percent| *percent > 0.0 && *percent <= 100.0).map(ReadData::Percent)
    } else {
        show::parse_size(text).map(ReadData::Bytes)
    };
    part.ok_or_else(|| "write 2/7, 5% or 10G".into())
}

fn print_json(report: &CheckReport) -> Result<()> {
    output::print_json(&json!({
        "message_type": "summary",
        "num_errors": report.findings.len(),
        "findings": report.findings,
        "unsupported": report.unsupported,
        "affected": report.affected.iter().map(affected_json).collect::<Vec<_>>(),
        "notes": report.notes,
        "next": commands(report),
        "snapshots": report.snapshots,
        "packs": report.packs,
        "packs_read": report.packs_read,
        "frames": report.frames,
        "bytes_read": report.bytes_read,
        "seconds_elapsed": report.seconds,
    }))
}

/// Ranges are pairs of offset and length; without a path the snapshot's list of files is hurt.
pub fn affected_json(affected: &Affected) -> serde_json::Value {
    let path = (!affected.path.is_empty()).then(|| format!("/{}", json::text(&affected.path)));
    json!({ "snapshot": affected.snapshot, "path": path, "ranges": affected.ranges })
}

/// What is said after the findings, which were said as they came.
fn print_text(report: &CheckReport, context: &Context) -> Result<()> {
    if !report.affected.is_empty() {
        output::print("lost:")?;
    }
    for affected in &report.affected {
        output::print(&format!("  {}", lost(affected)))?;
    }
    if context.options.quiet {
        return Ok(());
    }
    for note in &report.notes {
        output::print(&format!("note: {}", output::harmless(note)))?;
    }
    next_steps(report)?;
    let read = match report.packs_read {
        0 => String::new(),
        packs => format!(", read {} ({})", show::count(packs, "pack"), show::size(report.bytes_read)),
    };
    let (snapshots, packs) = (show::count(report.snapshots, "snapshot"), show::count(report.packs, "pack"));
    output::print(&format!("checked {snapshots} and {packs}{read} in {}", show::duration(report.seconds)))?;
    output::print(&match report.findings.len() {
        0 if !report.unsupported.is_empty() => {
            format!("{} could not be checked by this version", show::count(report.unsupported.len() as u64, "object"))
        }
        0 => "no errors were found".into(),
        number => format!("{} found", show::count(number as u64, "problem")),
    })
}

/// The commands that help against what was found, in their order.
fn commands(report: &CheckReport) -> Vec<String> {
    const PACKS_NAMED: usize = 8;
    let remedies = report.remedies();
    let packs: Vec<String> = remedies.iter().filter(|remedy| matches!(remedy, Remedy::Pack(_))).map(Remedy::command).collect();
    let mut commands = Vec::new();
    if remedies.contains(&Remedy::Index) {
        commands.push(Remedy::Index.command());
    }
    match packs.len() {
        0 => {}
        1..=PACKS_NAMED => {
            let names: Vec<&str> = packs.iter().filter_map(|command| command.rsplit(' ').next()).collect();
            commands.push(format!("snap repair packs {}", names.join(" ")));
        }
        _ => commands.push("snap repair packs --read-data".into()),
    }
    if remedies.contains(&Remedy::Snapshots) {
        commands.push(Remedy::Snapshots.command());
    }
    commands
}

/// Says what to run next.
pub fn next_steps(report: &CheckReport) -> Result<()> {
    for command in commands(report) {
        let when = match command.starts_with("snap repair snapshots") {
            true => " (after a new backup and snap repair packs: they may bring back what is lost)",
            false => "",
        };
        output::print(&format!("next: {command}{when}"))?;
    }
    Ok(())
}

pub fn lost(affected: &Affected) -> String {
    const RANGES_SHOWN: usize = 8;
    let snapshot = format!("snapshot {}", affected.snapshot.short());
    if affected.path.is_empty() {
        return format!("{snapshot}: its list of files");
    }
    let shown = affected.ranges.iter().take(RANGES_SHOWN);
    let ranges: Vec<String> = shown.map(|(offset, len)| format!("{offset}-{}", (offset + len).saturating_sub(1))).collect();
    let more = match affected.ranges.len().saturating_sub(RANGES_SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let bytes = if ranges.is_empty() { String::new() } else { format!(" bytes {}{more}", ranges.join(", ")) };
    format!("{snapshot}: /{}{bytes}", show_bytes(&affected.path))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::id::ObjectName;

    #[test]
    fn parts_are_read() {
        for (text, expected) in [
            ("1/7", Some(ReadData::Part { number: 1, of: 7 })),
            ("7/7", Some(ReadData::Part { number: 7, of: 7 })),
            ("0/7", None),
            ("8/7", None),
            ("5%", Some(ReadData::Percent(5.0))),
            ("2.5%", Some(ReadData::Percent(2.5))),
            ("0%", None),
            ("101%", None),
            ("NaN%", None),
            ("10G", Some(ReadData::Bytes(10 << 30))),
            ("x", None),
            ("/", None),
        ] {
            assert_eq!(parse_subset(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn budgets_are_times_in_small_letters_and_sizes_in_capitals() {
        for (text, expected) in [
            ("30s", Some(Budget::Time(Duration::from_secs(30)))),
            ("10m", Some(Budget::Time(Duration::from_secs(600)))),
            ("10min", Some(Budget::Time(Duration::from_secs(600)))),
            ("2h", Some(Budget::Time(Duration::from_secs(7200)))),
            ("10M", Some(Budget::Bytes(10 << 20))),
            ("50G", Some(Budget::Bytes(50 << 30))),
            ("1", Some(Budget::Bytes(1))),
            ("0s", None),
            ("-5G", None),
            ("10x", None),
            ("", None),
        ] {
            assert_eq!(parse_budget(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn losses_name_files_and_ranges() {
        let affected = |path: &[u8], ranges| lost(&Affected { snapshot: ObjectName([0x40; 32]), path: path.to_vec(), ranges });
        assert_eq!(affected(b"", vec![]), "snapshot 40404040: its list of files");
        assert_eq!(affected(b"db\n.sql", vec![(0, 10), (50, 1)]), "snapshot 40404040: /db\\n.sql bytes 0-9, 50-50");
        assert!(affected(b"x", vec![(0, 1); 9]).ends_with(" and 1 more"));
    }
}
