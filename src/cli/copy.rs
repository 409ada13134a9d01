//! `snap copy`.

use serde_json::{Value, json};

use super::backup::Compression;
use super::context::{Context, FromOptions};
use super::exit::{self, Outcome};
use super::report::{Channel, Reporter};
use super::select::FilterArgs;
use super::{output, show, unlock};
use crate::error::{Error, Result};
use crate::ops::copy::{CopyOptions, CopyReport, Outcome as Fate, copy};
use crate::repo::{Repository, Stored};

/// Copy snapshots from another repository into this one
///
/// The two need not have a password or key in common: what is copied is decoded, verified, and stored anew, and only what this
/// repository lacks takes space. Time, host, name, tags and totals stay; ids differ, and a copy names its original. Snapshots that
/// have a copy already are passed over, so that the command can be run every night, and again after it was interrupted.
/// The reports of runs and drills come along, so that snap status and snap audit say the same here.
///
/// A snapshot some of whose files are damaged is named and not copied, unless --salvage is given; the others are.
#[derive(clap::Args)]
#[command(after_long_help = exit::help(EXAMPLES, exit::OPENING))]
pub struct Args {
    /// Snapshots to copy: latest, or the first digits of an id [default: all]
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    from: FromOptions,
    #[command(flatten)]
    how: HowArgs,
    /// Only say what would be copied; reads no data
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// How to copy, for copy and rekey.
#[derive(clap::Args, Default)]
pub struct HowArgs {
    /// Copy what can be read of damaged snapshots; the copies are marked incomplete, and made again once the original is whole
    #[arg(long)]
    salvage: bool,
    /// How hard to compress [env: SNAP_COMPRESSION] [default: auto]
    #[arg(long, value_name = "LEVEL")]
    compression: Option<Compression>,
    /// Do not store what changed as a difference to older data
    #[arg(long)]
    no_delta: bool,
}

const EXAMPLES: &str = "
  snap copy -r /mnt/offsite --from-repo /srv/backup
  snap copy -r /mnt/offsite -p /root/offsite.password --from-repo /srv/backup --from-key-file /root/snap.key
  snap copy -r /mnt/offsite --from-repo /srv/backup --host db1 --tag weekly
  snap copy -r /mnt/offsite --from-repo /srv/backup latest --dry-run";

impl Args {
    pub fn run(self, context: &Context) -> Result<Outcome> {
        let options =
            CopyOptions { which: self.snapshots, filter: self.filter.filter(), dry_run: self.dry_run, ..self.how.options(context)? };
        let from = unlock::open_from(context, &self.from)?;
        let to = unlock::open(context)?;
        run(context, &from, &to, &options).map(|(outcome, _)| outcome)
    }
}

impl HowArgs {
    pub fn options(&self, context: &Context) -> Result<CopyOptions> {
        Ok(CopyOptions {
            salvage: self.salvage,
            level: super::backup::compression(self.compression, &context.environment)?.into(),
            delta: !self.no_delta,
            interrupted: context.signals.interrupted(),
            ..CopyOptions::default()
        })
    }
}

/// Copies, and tells of each snapshot and of all together.
pub fn run(context: &Context, from: &Repository, to: &Repository, options: &CopyOptions) -> Result<(Outcome, CopyReport)> {
    let reporter = Reporter::start(context, Channel::Stdout);
    let report = copy(from, to, options, &reporter, &mut |stored, fate| {
        if let Fate::Failed(error) = fate
            && !context.options.json
        {
            reporter.say_error(&format!("snap: {}\n", output::harmless(&exit::message(error))));
        }
        match context.options.json {
            true => output::print_json(&line_json(stored, fate)),
            false => match text(stored, fate, context.options.verbose) {
                Some(line) if !context.options.quiet => reporter.say(&line),
                _ => Ok(()),
            },
        }
    })?;
    drop(reporter);
    if context.options.json {
        output::print_json(&summary_json(&report, options.dry_run))?;
    } else if !context.options.quiet {
        output::print(&summary(&report, options.dry_run))?;
    }
    Ok((outcome(&report), report))
}

fn outcome(report: &CopyReport) -> Outcome {
    match report {
        _ if report.failed > report.unsupported || report.partial > 0 || report.unreadable + report.reports_unreadable > 0 => {
            Outcome::Damaged
        }
        _ if report.unsupported > 0 => Outcome::Unjudged,
        _ => Outcome::Done,
    }
}

fn name(stored: &Stored) -> String {
    let snapshot = &stored.snapshot;
    let (time, host, name) = (show::time(snapshot.time), output::harmless(&snapshot.host), output::harmless(&snapshot.name));
    format!("snapshot {} of {time} {host} {name}", stored.id.short())
}

fn text(stored: &Stored, fate: &Fate, verbose: u8) -> Option<String> {
    let name = name(stored);
    Some(match fate {
        Fate::Copied(copied) => {
            let (new, packed) = (show::size(copied.cost.bytes_new), show::size(copied.cost.stored()));
            let flag = if copied.lost > 0 { format!(", INCOMPLETE: {} missing", show::count(copied.lost, "path")) } else { String::new() };
            format!("{name} copied as {} ({new} new, stored as {packed}{flag})", copied.id.short())
        }
        Fate::There(id) if verbose > 0 => format!("{name} is there already as {}", id.short()),
        Fate::There(_) => return None,
        Fate::Wanted => format!("{name} would be copied ({})", show::size(stored.snapshot.totals.bytes)),
        Fate::Failed(_) => format!("{name} was NOT copied"),
    })
}

fn summary(report: &CopyReport, dry_run: bool) -> String {
    let count = |number| show::count(number, "snapshot");
    let mut lines = Vec::new();
    if report.there > 0 {
        lines.push(format!("there     {}", count(report.there)));
    }
    if report.failed + report.unreadable > 0 {
        lines.push(format!("failed    {}", count(report.failed + report.unreadable)));
    }
    if report.reports > 0 {
        lines.push(format!("reports   {} of runs and drills", report.reports));
    }
    if !dry_run {
        let (new, stored) = (show::size(report.bytes_new), show::size(report.bytes_stored));
        lines.push(format!("read      {} in {}", show::size(report.bytes), show::duration(report.seconds)));
        lines.push(format!("new       {new}, stored as {stored}"));
    }
    lines.push(match (dry_run, report.partial) {
        (true, _) => format!("dry run: {} would be copied", count(report.wanted)),
        (false, 0) => format!("{} copied", count(report.copied)),
        (false, partial) => format!("{} copied, {partial} of them incomplete", count(report.copied)),
    });
    lines.join("\n")
}

fn line_json(stored: &Stored, fate: &Fate) -> Value {
    let mut value = json!({ "message_type": "snapshot", "original": stored.id });
    let (action, copy) = match fate {
        Fate::Copied(copied) => ("copied", Some(copied.id)),
        Fate::There(id) => ("unchanged", Some(*id)),
        Fate::Wanted => ("would_copy", None),
        Fate::Failed(_) => ("failed", None),
    };
    value["action"] = action.into();
    if let Some(copy) = copy {
        value["snapshot_id"] = json!(copy);
    }
    match fate {
        Fate::Copied(copied) => {
            value["data_added"] = copied.cost.bytes_new.into();
            value["data_added_packed"] = copied.cost.stored().into();
            value["files_lost"] = copied.lost.into();
        }
        Fate::Failed(error) => value["message"] = exit::message(error).into(),
        Fate::There(_) | Fate::Wanted => {}
    }
    value
}

fn summary_json(report: &CopyReport, dry_run: bool) -> Value {
    json!({
        "message_type": "summary",
        "dry_run": dry_run,
        "snapshots_copied": if dry_run { report.wanted } else { report.copied },
        "snapshots_unchanged": report.there,
        "snapshots_failed": report.failed + report.unreadable,
        "snapshots_incomplete": report.partial,
        "reports_copied": report.reports,
        "reports_failed": report.reports_unreadable,
        "total_bytes_processed": report.bytes,
        "data_added": report.bytes_new,
        "data_added_packed": report.bytes_stored,
        "seconds_elapsed": report.seconds,
    })
}

/// Not all snapshots came over.
pub fn not_all(missing: usize) -> Error {
    let count = show::count(missing as u64, "snapshot");
    Error::damaged("the repository", format!("{count} of it could not be copied whole; keep it, and see above which"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_outweighs_what_cannot_be_judged() {
        let report =
            |failed, unsupported, partial, unreadable| CopyReport { failed, unsupported, partial, unreadable, ..CopyReport::default() };
        for (report, expected) in [
            (report(0, 0, 0, 0), Outcome::Done),
            (report(1, 1, 0, 0), Outcome::Unjudged),
            (report(2, 1, 0, 0), Outcome::Damaged),
            (report(0, 0, 1, 0), Outcome::Damaged),
            (report(0, 0, 0, 1), Outcome::Damaged),
        ] {
            assert_eq!(outcome(&report), expected, "{report:?}");
        }
    }

    #[test]
    fn the_summary_ends_with_the_count() {
        let report =
            CopyReport { copied: 2, there: 1, bytes: 2048, bytes_new: 1024, bytes_stored: 512, seconds: 1.0, ..CopyReport::default() };
        let expected = "there     1 snapshot\nread      2.00 KiB in 1.0 s\nnew       1.00 KiB, stored as 512 B\n2 snapshots copied";
        assert_eq!(summary(&report, false), expected);
        assert!(summary(&CopyReport { wanted: 3, ..report }, true).ends_with("dry run: 3 snapshots would be copied"));
    }
}
