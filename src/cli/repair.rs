//! `snap repair`.

use serde_json::json;

use super::check::{affected_json, lost, next_steps};
use super::context::Context;
use super::exit::{self, Outcome};
use super::report::{Channel, Reporter};
use super::{output, show, unlock};
use crate::error::Result;
use crate::id::ObjectName;
use crate::ops::check::{Affected, Finding};
use crate::ops::repair::{
    IndexReport, Mode, PacksOptions, PacksReport, SetAside, SnapshotsOptions, SnapshotsReport, Treated, repair_index, repair_packs,
    repair_snapshots,
};

/// Bring a damaged repository in order again
///
/// Three steps, in this order: `index`, `packs`, and, when nothing else can be brought back, `snapshots`. Nothing is ever
/// deleted: what is damaged is moved to the folder aside in the repository, and everything that could be restored before can
/// be restored after. Better repair a copy of the repository if the disk is failing. Between `packs` and `snapshots`, run
/// your backups: they store again what they meet of the lost data, and `snap repair packs` puts it back into old snapshots.
#[derive(clap::Args)]
#[command(after_long_help = exit::help(EXAMPLES, exit::OPENING), subcommand_required = true, arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Make the index again from the packs
    ///
    /// Lists packs that no readable index segment lists, and writes anew segments that are damaged, missing or wrong.
    /// Damaged segments and records are set aside. Needs nothing but the ends of the packs.
    #[command(after_long_help = exit::help("  snap repair index\n  snap repair index --dry-run", exit::OPENING))]
    Index(IndexArgs),
    /// Salvage what damaged packs hold
    ///
    /// Whatever can still be read in a damaged pack is verified and goes into a new pack; what cannot is put together from
    /// other places that hold the same data. Then the damaged pack is set aside, and backups store again what is lost.
    #[command(after_long_help = exit::help("  snap repair packs\n  snap repair packs --read-data\n  snap repair packs 3f2a11bc", exit::OPENING))]
    Packs(PacksArgs),
    /// Cut out of snapshots what is beyond help
    ///
    /// Writes a new snapshot without what is lost, and sets the old one aside. Of a file with lost bytes, NAME.damaged holds
    /// what is left, with zeros in place of the lost bytes; NAME itself is listed without content.
    #[command(after_long_help = exit::help("  snap repair snapshots --dry-run\n  snap repair snapshots 40dc1520", exit::OPENING))]
    Snapshots(SnapshotsArgs),
}

#[derive(clap::Args)]
struct IndexArgs {
    /// Only say what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
}

#[derive(clap::Args)]
struct PacksArgs {
    /// Packs, by the first digits of their names; without any, all that are found damaged
    packs: Vec<String>,
    /// Read all packs, to find damage inside of them too
    #[arg(long, conflicts_with = "packs")]
    read_data: bool,
    /// Only say what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
}

#[derive(clap::Args)]
struct SnapshotsArgs {
    /// Snapshots, by the first digits of their ids; without any, all that have lost something
    snapshots: Vec<String>,
    /// Only say what would be cut
    #[arg(short = 'n', long)]
    dry_run: bool,
}

const EXAMPLES: &str = "
  snap check --read-data
  snap repair index
  snap repair packs --read-data
  snap repair snapshots --dry-run";

impl Args {
    pub fn run(self, context: &Context) -> Result<Outcome> {
        match self.what {
            What::Index(args) => args.run(context),
            What::Packs(args) => args.run(context),
            What::Snapshots(args) => args.run(context),
        }
    }
}

fn mode(dry_run: bool) -> Mode {
    if dry_run { Mode::Look } else { Mode::Act }
}

/// How a repair ended that left something as it was.
fn outcome(is_damaged: bool, unsupported: &[Finding]) -> Outcome {
    match (is_damaged, unsupported.is_empty()) {
        (true, _) => Outcome::Damaged,
        (false, true) => Outcome::Done,
        (false, false) => Outcome::Unjudged,
    }
}

impl IndexArgs {
    fn run(self, context: &Context) -> Result<Outcome> {
        let repository = unlock::open(context)?;
        let report = repair_index(&repository, mode(self.dry_run), &Reporter::start(context, Channel::Findings))?;
        match context.options.json {
            true => output::print_json(&json!({
                "message_type": "summary",
                "dry_run": self.dry_run,
                "segments": report.segments,
                "segments_corrected": report.segments_corrected,
                "segments_written": report.segments_written,
                "packs_listed": report.packs_listed,
                "set_aside": report.set_aside,
                "unreadable": report.unreadable,
                "unsupported": report.unsupported,
            }))?,
            false => print_index(&report, self.dry_run, context)?,
        }
        Ok(outcome(!report.unreadable.is_empty() || self.dry_run && !report.set_aside.is_empty(), &report.unsupported))
    }
}

fn print_index(report: &IndexReport, dry_run: bool, context: &Context) -> Result<()> {
    print_aside(&report.set_aside, dry_run)?;
    if context.options.quiet {
        return Ok(());
    }
    let listed = report.packs_listed.len() as u64;
    let verb = if dry_run { "would be" } else { "were" };
    if listed > 0 {
        output::print(&format!("{} that no index segment listed {verb} listed", show::count(listed, "pack")))?;
    }
    if !report.unreadable.is_empty() {
        output::print("next: snap repair packs")?;
    }
    let is_fine = report.set_aside.is_empty() && listed == 0 && report.unreadable.is_empty();
    output::print(&match is_fine {
        true => format!("nothing to repair in {}", show::count(report.segments, "index segment")),
        false => format!("looked at {}", show::count(report.segments, "index segment")),
    })
}

impl PacksArgs {
    fn run(self, context: &Context) -> Result<Outcome> {
        let repository = unlock::open(context)?;
        let options = PacksOptions { packs: self.packs, read_data: self.read_data, host: unlock::host(), mode: mode(self.dry_run) };
        let report = repair_packs(&repository, &options, &Reporter::start(context, Channel::Findings))?;
        match context.options.json {
            true => print_packs_json(&report, self.dry_run)?,
            false => print_packs(&report, self.dry_run, context)?,
        }
        let is_left = match &report.left {
            Some(left) => !left.findings.is_empty(),
            None => !report.treated.is_empty(),
        };
        Ok(outcome(is_left || !report.unreadable.is_empty(), &report.unsupported))
    }
}

fn print_packs_json(report: &PacksReport, dry_run: bool) -> Result<()> {
    let affected = |affected: &[Affected]| affected.iter().map(affected_json).collect::<Vec<_>>();
    output::print_json(&json!({
        "message_type": "summary",
        "dry_run": dry_run,
        "packs": report.packs,
        "bytes_read": report.bytes_read,
        "repaired": report.treated,
        "frames_mended": report.mended,
        "packs_written": report.packs_written,
        "bytes_written": report.bytes_written,
        "set_aside": report.set_aside,
        "unreadable": report.unreadable,
        "unsupported": report.unsupported,
        "findings": report.left.as_ref().map(|left| &left.findings),
        "affected": report.left.as_ref().map(|left| affected(&left.affected)),
    }))
}

fn print_packs(report: &PacksReport, dry_run: bool, context: &Context) -> Result<()> {
    for treated in &report.treated {
        output::print(&treated_line(treated))?;
    }
    print_aside(&report.set_aside, dry_run)?;
    if context.options.quiet {
        return Ok(());
    }
    if report.mended > 0 {
        output::print(&format!("{} got back data that was stored again since", show::count(report.mended, "frame")))?;
    }
    if let Some(left) = &report.left {
        if !left.affected.is_empty() {
            output::print("still lost:")?;
        }
        for affected in &left.affected {
            output::print(&format!("  {}", lost(affected)))?;
        }
        next_steps(left)?;
    }
    let looked = format!("looked at {}", show::count(report.packs, "pack"));
    output::print(&match report.treated.len() as u64 {
        0 => format!("{looked}: none is damaged"),
        number if dry_run => format!("{looked}: {} would be repaired", number),
        number => format!("{looked}: {number} repaired, {} written", show::size(report.bytes_written)),
    })
}

fn treated_line(treated: &Treated) -> String {
    let parts =
        [(treated.saved, "good"), (treated.rebuilt, "put together from elsewhere"), (treated.partial, "in part"), (treated.lost, "lost")];
    let parts: Vec<String> = parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    let frames = match treated.frames {
        0 => "what it held is not known".into(),
        frames => format!("{}: {}", show::count(frames, "frame"), parts.join(", ")),
    };
    format!("pack {}: {frames}", short(&treated.pack))
}

fn short(name: &ObjectName) -> String {
    name.hex()[..12].into()
}

fn print_aside(set_aside: &[SetAside], dry_run: bool) -> Result<()> {
    for aside in set_aside {
        let line = match &aside.path {
            Some(path) => format!("{}: moved to {path}: {}", aside.object, aside.problem),
            None if dry_run => format!("{}: would be set aside: {}", aside.object, aside.problem),
            None => continue,
        };
        output::print(&output::harmless(&line))?;
    }
    Ok(())
}

impl SnapshotsArgs {
    fn run(self, context: &Context) -> Result<Outcome> {
        let repository = unlock::open(context)?;
        let options = SnapshotsOptions { snapshots: self.snapshots, host: unlock::host(), mode: mode(self.dry_run) };
        let report = repair_snapshots(&repository, &options, &Reporter::start(context, Channel::Findings))?;
        match context.options.json {
            true => print_snapshots_json(&report, self.dry_run)?,
            false => print_snapshots(&report, self.dry_run, context)?,
        }
        let would = self.dry_run && !report.set_aside.is_empty();
        Ok(outcome(would, &report.unsupported))
    }
}

fn print_snapshots_json(report: &SnapshotsReport, dry_run: bool) -> Result<()> {
    let cut = report.cut.iter().map(|cut| {
        json!({
            "original": cut.original,
            "snapshot_id": cut.snapshot,
            "lost": cut.lost.iter().map(affected_json).collect::<Vec<_>>(),
        })
    });
    output::print_json(&json!({
        "message_type": "summary",
        "dry_run": dry_run,
        "snapshots": report.snapshots,
        "repaired": cut.collect::<Vec<_>>(),
        "set_aside": report.set_aside,
        "unsupported": report.unsupported,
    }))
}

fn print_snapshots(report: &SnapshotsReport, dry_run: bool, context: &Context) -> Result<()> {
    for cut in &report.cut {
        for affected in &cut.lost {
            output::print(&format!("lost: {}", lost(affected)))?;
        }
    }
    print_aside(&report.set_aside, dry_run)?;
    if context.options.quiet {
        return Ok(());
    }
    for cut in &report.cut {
        let original = cut.original.short();
        output::print(&match cut.snapshot {
            Some(id) => format!("snapshot {} saved: what is left of {original}", id.short()),
            None if dry_run => format!("snapshot {original} would be repaired"),
            None => format!("snapshot {original}: nothing is left of it"),
        })?;
    }
    output::print(&match report.set_aside.len() {
        0 => format!("nothing to repair in {}", show::count(report.snapshots, "snapshot")),
        _ => format!("looked at {}", show::count(report.snapshots, "snapshot")),
    })
}
