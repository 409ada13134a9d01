//! `snap prune`.

use std::time::Duration;

use serde_json::{Value, json};

use super::context::Context;
use super::exit::{self, Outcome};
use super::report::{Channel, Reporter};
use super::{output, show, unlock, witness};
use crate::error::{Error, Result};
use crate::format::report::{self, Did, Report};
use crate::ops::prune::{Figures, MaxUnused, PruneOptions, PruneReport, prepare};
use crate::repo::Repository;

/// Free the space of what no snapshot needs any more
///
/// Which snapshots to keep is chosen by snap forget (in borg, prune does that); prune frees what is left over. It may run beside
/// backups and restores, and may be interrupted at any time. What is to go is first condemned, and deleted by the first prune after
/// a grace: so a nightly prune deletes what the night before condemned. Packs that are needed in part are rewritten when too much
/// of the repository would stay unused. Anything damaged or unknown ends it before it deletes.
#[derive(clap::Args)]
#[command(after_long_help = exit::help(EXAMPLES, exit::OPENING))]
pub struct Args {
    /// Change nothing, and say what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// How much may stay unused: 5%, 1G, or unlimited (rewrites nothing)
    #[arg(long, value_name = "LIMIT", default_value = "5%", value_parser = parse_max_unused)]
    max_unused: MaxUnused,
    /// Rewrite at most so much of what is stored, like 10G
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_repack_size: Option<u64>,
    /// How long packs stay condemned before they are deleted, like 12h or 2d; 20h if not given. Longer than a backup takes
    #[arg(long, value_name = "TIME", value_parser = parse_grace)]
    grace: Option<Duration>,
    /// Delete at once, and trust that nothing else uses the repository now; works even when the disk is full to the last byte
    #[arg(long)]
    exclusive: bool,
    /// Go on although snapshots are gone that were neither forgotten nor removed by snap
    #[arg(long)]
    allow_missing_snapshots: bool,
    #[command(flatten)]
    keep: KeepArgs,
}

/// What other programs' prune takes.
#[derive(clap::Args)]
struct KeepArgs {
    #[arg(long, short = 'l', hide = true)]
    keep_last: Option<String>,
    #[arg(long, hide = true)]
    keep_secondly: Option<String>,
    #[arg(long, hide = true)]
    keep_minutely: Option<String>,
    #[arg(long, short = 'H', hide = true)]
    keep_hourly: Option<String>,
    #[arg(long, short = 'd', hide = true)]
    keep_daily: Option<String>,
    #[arg(long, short = 'w', hide = true)]
    keep_weekly: Option<String>,
    #[arg(long, short = 'm', hide = true)]
    keep_monthly: Option<String>,
    #[arg(long, short = 'y', hide = true)]
    keep_yearly: Option<String>,
    #[arg(long, hide = true)]
    keep_within: Option<String>,
    #[arg(long, hide = true)]
    keep_tag: Option<String>,
}

const EXAMPLES: &str = "
  snap prune
  snap prune --dry-run
  snap prune --max-unused 1G --max-repack-size 20G
  snap prune --exclusive";

impl KeepArgs {
    fn given(&self) -> Option<&'static str> {
        [
            ("--keep-last", &self.keep_last),
            ("--keep-secondly", &self.keep_secondly),
            ("--keep-minutely", &self.keep_minutely),
            ("--keep-hourly", &self.keep_hourly),
            ("--keep-daily", &self.keep_daily),
            ("--keep-weekly", &self.keep_weekly),
            ("--keep-monthly", &self.keep_monthly),
            ("--keep-yearly", &self.keep_yearly),
            ("--keep-within", &self.keep_within),
            ("--keep-tag", &self.keep_tag),
        ]
        .into_iter()
        .find_map(|(name, value)| value.as_ref().map(|_| name))
    }
}

impl Args {
    pub fn run(self, context: &Context) -> Result<Outcome> {
        if let Some(flag) = self.keep.given() {
            let why = "snap prune frees the space of what is forgotten and does not choose snapshots";
            return Err(Error::Usage(format!("{flag}: {why}; snap forget {flag} … does, and with --prune frees their space too")));
        }
        let options = PruneOptions {
            dry_run: self.dry_run,
            max_unused: self.max_unused,
            max_repack: self.max_repack_size,
            grace: grace(self.grace, self.exclusive)?,
            exclusive: self.exclusive,
            missing_snapshots_ok: self.allow_missing_snapshots,
            ..PruneOptions::new(unlock::host())
        };
        let repository = unlock::open(context)?;
        witness::require(context, &repository)?;
        run(context, &repository, &options)
    }
}

/// Prunes, and says what was done.
pub fn run(context: &Context, repository: &Repository, options: &PruneOptions) -> Result<Outcome> {
    let (is_json, is_silent) = (context.options.json, context.options.quiet);
    let reporter = Reporter::start(context, Channel::Stdout);
    let prepared = prepare(repository, options, &reporter)?;
    if !is_json && !is_silent {
        reporter.say(&plan_text(prepared.figures()))?;
    }
    let begun = repository.world().now();
    let report = if options.dry_run { prepared.report() } else { prepared.run()? };
    drop(reporter);
    if !options.dry_run {
        note(repository, &report, begun);
        witness::note(context, repository);
    }
    if is_json {
        output::print_json(&report_json(&report, options.dry_run))?;
    } else if !is_silent {
        output::print(&report_text(&report, options))?;
    }
    Ok(if report.damaged.is_empty() { Outcome::Done } else { Outcome::Damaged })
}

/// Leaves a report of what was done. Where it cannot be stored, on a disk that is full, say, the prune is as good.
fn note(repository: &Repository, done: &PruneReport, begun: jiff::Timestamp) {
    let is_sound = done.damaged.is_empty();
    let did =
        Did::Prune(report::Prune { packs_deleted: done.packs_deleted, bytes_freed: done.bytes_deleted, bytes_moved: done.bytes_written });
    let report = Report {
        seconds: done.seconds,
        outcome: if is_sound { report::Outcome::Good } else { report::Outcome::Partial },
        error: (!is_sound).then(|| format!("{} left as they are, because of damage", show::count(done.damaged.len() as u64, "object"))),
        exit_code: if is_sound { 0 } else { 20 },
        ..Report::new(begun, unlock::host(), unlock::user(), did)
    };
    if let Err(error) = repository.save_report(&report) {
        output::complain(&format!("What was done could not be noted in the repository: {}", exit::message(&error)));
    }
}

fn parse_max_unused(text: &str) -> std::result::Result<MaxUnused, String> {
    let limit = match text.strip_suffix('%') {
        _ if text == "unlimited" => Some(MaxUnused::Unlimited),
        Some(percent) => percent.parse().ok().filter(|percent| (0.0..=100.0).contains(percent)).map(MaxUnused::Percent),
        None if text == "0" => Some(MaxUnused::Bytes(0)),
        None => show::parse_size(text).map(MaxUnused::Bytes),
    };
    limit.ok_or_else(|| "write 5%, 1G or unlimited".into())
}

fn parse_size(text: &str) -> std::result::Result<u64, String> {
    show::parse_size(text).ok_or_else(|| "write 500M or 10G".into())
}

/// How long packs stay condemned. Without any time no backup beside it could keep what it builds on, and no restore could find it.
fn grace(given: Option<Duration>, exclusive: bool) -> Result<Duration> {
    match given {
        Some(grace) if grace.is_zero() && !exclusive => {
            Err(Error::Usage("--grace 0 deletes what a backup or restore may be using; if nothing else is running, say --exclusive".into()))
        }
        Some(grace) if !grace.is_zero() && exclusive => {
            Err(Error::Usage("--exclusive deletes at once, so there is no --grace to wait for; leave one of them out".into()))
        }
        given => Ok(given.unwrap_or(if exclusive { Duration::ZERO } else { PruneOptions::GRACE })),
    }
}

/// Reads `0`, `90m`, `20h`, `1d12h`.
fn parse_grace(text: &str) -> std::result::Result<Duration, String> {
    let wrong = || String::from("write 20h, 90m, 2d, or 0");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = match rest.as_bytes()[digits] {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            b'w' => 604_800,
            _ => return Err(wrong()),
        };
        seconds = number.checked_mul(unit).and_then(|part| seconds.checked_add(part)).ok_or_else(wrong)?;
        rest = &rest[digits + 1..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(Duration::from_secs(seconds)) }
}

/// The plan as a table.
fn plan_text(figures: &Figures) -> String {
    let row = |name: &str, packs: Option<u64>, size: u64| {
        vec![name.to_owned(), packs.map_or_else(String::new, |packs| packs.to_string()), show::size(size)]
    };
    let mut rows = vec![
        row("stored", Some(figures.total_packs), figures.total_size),
        row("  needed", None, figures.used_size),
        row("  unused, in packs that are needed in part", None, figures.unused_size),
        row("to delete", Some(figures.remove_packs), figures.remove_size),
    ];
    if figures.condemned_packs > 0 {
        rows.push(row("condemned by an earlier prune", Some(figures.condemned_packs), figures.condemned_size));
    }
    rows.push(row("to rewrite", Some(figures.rewrite_packs), figures.rewrite_size));
    if figures.rewrite_packs > 0 {
        rows.push(row("  of which goes", None, figures.rewrite_gain));
    }
    rows.push(row("afterwards", None, figures.size_after));
    rows.push(row("  of which is unused", None, figures.unused_after));
    show::table(&[show::Column::Left("Plan"), show::Column::Right("Packs"), show::Column::Right("Size")], &rows)
}

fn report_text(report: &PruneReport, options: &PruneOptions) -> String {
    if options.dry_run {
        return "dry run: nothing was changed".into();
    }
    let packs = |count: u64| show::count(count, "pack");
    let mut lines = Vec::new();
    if report.temporary_files > 0 {
        lines.push(format!(
            "removed   {} of writes that were cut short, {}",
            show::count(report.temporary_files, "file"),
            show::size(report.temporary_bytes)
        ));
    }
    lines.push(match report.packs_deleted {
        0 => "deleted   nothing".into(),
        count => format!("deleted   {}, {}", packs(count), show::size(report.bytes_deleted)),
    });
    if report.frames_moved > 0 {
        let frames = show::count(report.frames_moved, "frame");
        lines.push(format!("rewrote   {frames}, {} of them made smaller, as {}", report.frames_thinned, packs(report.packs_written)));
    }
    if report.packs_condemned > 0 {
        let grace = show::duration(options.grace.as_secs_f64());
        let when = if options.grace.is_zero() { "the next prune".into() } else { format!("the first prune after {grace}") };
        lines.push(format!("condemned {}, {}: to be deleted by {when}", packs(report.packs_condemned), show::size(report.bytes_condemned)));
    }
    if !report.damaged.is_empty() {
        lines.push(format!(
            "kept      {} as it is, because of damage; snap check --read-data says what it hurts",
            packs(report.damaged.len() as u64)
        ));
    }
    lines.join("\n")
}

fn report_json(report: &PruneReport, dry_run: bool) -> Value {
    let mut value = serde_json::to_value(report.figures).expect("figures are plain JSON");
    value["message_type"] = "summary".into();
    value["dry_run"] = dry_run.into();
    value["snapshots"] = report.snapshots.into();
    value["packs_deleted"] = report.packs_deleted.into();
    value["bytes_deleted"] = report.bytes_deleted.into();
    value["packs_written"] = report.packs_written.into();
    value["bytes_written"] = report.bytes_written.into();
    value["frames_moved"] = report.frames_moved.into();
    value["frames_thinned"] = report.frames_thinned.into();
    value["segments_replaced"] = report.segments_replaced.into();
    value["packs_condemned"] = report.packs_condemned.into();
    value["bytes_condemned"] = report.bytes_condemned.into();
    value["temporary_files"] = report.temporary_files.into();
    value["temporary_bytes"] = report.temporary_bytes.into();
    value["damaged"] = json!(report.damaged);
    value["seconds_elapsed"] = json!(report.seconds);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_times_are_read() {
        for (text, expected) in [
            ("5%", Some(MaxUnused::Percent(5.0))),
            ("0", Some(MaxUnused::Bytes(0))),
            ("1G", Some(MaxUnused::Bytes(1 << 30))),
            ("unlimited", Some(MaxUnused::Unlimited)),
            ("101%", None),
            ("-1%", None),
            ("NaN%", None),
            ("much", None),
        ] {
            assert_eq!(parse_max_unused(text).ok(), expected, "{text}");
        }
        for (text, seconds) in [
            ("0", Some(0)),
            ("20h", Some(72_000)),
            ("1d12h", Some(129_600)),
            ("90m", Some(5400)),
            ("5", None),
            ("", None),
            ("h", None),
            ("1y", None),
        ] {
            assert_eq!(parse_grace(text).ok().map(|grace| grace.as_secs()), seconds, "{text}");
        }
        assert!(parse_grace("99999999999999999999d").is_err());
        let hour = Duration::from_secs(3600);
        for (given, exclusive, expected) in [
            (None, false, Some(PruneOptions::GRACE)),
            (None, true, Some(Duration::ZERO)),
            (Some(hour), false, Some(hour)),
            (Some(hour), true, None),
            (Some(Duration::ZERO), false, None),
            (Some(Duration::ZERO), true, Some(Duration::ZERO)),
        ] {
            assert_eq!(grace(given, exclusive).ok(), expected, "{given:?} {exclusive}");
        }
    }

    #[test]
    fn the_plan_is_a_table() {
        let figures = Figures {
            total_packs: 12,
            total_size: 3 << 20,
            remove_packs: 2,
            remove_size: 1 << 20,
            size_after: 2 << 20,
            ..Figures::default()
        };
        let text = plan_text(&figures);
        assert!(text.contains("stored") && text.contains("to delete") && text.contains("2.00 MiB"), "{text}");
        assert!(!text.contains("condemned") && !text.contains("of which goes"), "{text}");
    }

    #[test]
    fn what_was_done_is_said() {
        let options = PruneOptions::new("h");
        let report = PruneReport { packs_condemned: 3, bytes_condemned: 1 << 20, ..PruneReport::default() };
        let text = report_text(&report, &options);
        assert_eq!(text, "deleted   nothing\ncondemned 3 packs, 1.00 MiB: to be deleted by the first prune after 20 h 00 min");
        let dry = PruneOptions { dry_run: true, ..options };
        assert_eq!(report_text(&report, &dry), "dry run: nothing was changed");
        assert_eq!(report_json(&report, true)["packs_condemned"], json!(3));
    }
}
