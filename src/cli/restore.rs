//! `snap restore`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::json;

use super::context::Context;
use super::exit::{self, Outcome};
use super::report::{Channel, Reporter};
use super::select::{FilterArgs, select};
use super::{output, show, unlock};
use crate::error::{Result, show as show_path};
use crate::id::SnapshotId;
use crate::ops::restore::{Overwrite, RestoreOptions, RestoreReport, restore};

/// Write a snapshot's files into a folder
///
/// With a path behind the snapshot, only that folder's content (or that file) is written, into the target itself. Files that
/// are there already are compared and written again only where they differ; files that are not in the snapshot stay. What
/// cannot be restored is reported and the rest goes on. A database dump is better piped with snap dump.
#[derive(clap::Args)]
#[command(after_long_help = exit::help(EXAMPLES, exit::WITH_FILES))]
pub struct Args {
    /// Snapshot: latest, latest~2 (two before it), or the first digits of an id; with a folder or file in it
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    snapshot: OsString,
    /// Folder to restore into; made if it is missing
    #[arg(short, long, value_name = "DIR")]
    target: PathBuf,
    /// Restore only paths that match the pattern; may be repeated
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// Leave out paths that match the pattern; may be repeated
    #[arg(short, long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// What to do with files that are there
    #[arg(long, value_name = "WHEN", default_value = "always")]
    overwrite: OverwriteArg,
    /// Write long runs of zeros as holes
    #[arg(long)]
    sparse: bool,
    /// Write nothing, and say what would be written
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Read everything back from the disk and compare
    #[arg(long)]
    verify: bool,
    /// Give files to the recorded numbers of user and group, not to their names
    #[arg(long)]
    numeric_ids: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

const EXAMPLES: &str = "
  snap restore latest --target /tmp/restored
  snap restore 40dc1520:/etc/nginx -t /etc/nginx --dry-run
  snap restore latest --host db1 -t / --include /var/lib/app --verify";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OverwriteArg {
    /// Compare contents, write what differs
    Always,
    /// Trust size and time, write what differs in these
    IfChanged,
    /// Leave them alone
    Never,
}

impl Args {
    pub fn run(self, context: &Context) -> Result<Outcome> {
        let repository = unlock::open(context)?;
        let selection = select(&repository, &self.snapshot, None, &self.filter.filter())?;
        let options = self.options();
        let reporter = Reporter::start(context, Channel::Stdout);
        let report = restore(&repository, &selection, &self.target, &options, &reporter)?;
        drop(reporter);
        let id = selection.stored.id;
        if context.options.json {
            print_json(&report, id, options.dry_run)?;
        } else if !context.options.quiet {
            output::print(&text(&report, &options))?;
            let (id, target) = (id.short(), show_path(&self.target));
            output::print(&match (options.dry_run, report.problems) {
                (true, _) => "dry run: nothing was written".into(),
                (false, 0) => format!("snapshot {id} restored to {target}"),
                (false, _) => format!("snapshot {id} restored in part to {target}"),
            })?;
        }
        if report.problems > 0 && !context.options.json {
            let paths = show::count(report.problems, "path");
            output::complain(&format!("{paths} could not be restored, or not wholly"));
        }
        Ok(match report {
            RestoreReport { damaged: 1.., .. } => Outcome::Damaged,
            RestoreReport { problems: 1.., .. } => Outcome::Incomplete,
            _ => Outcome::Done,
        })
    }

    fn options(&self) -> RestoreOptions {
        RestoreOptions {
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            overwrite: match self.overwrite {
                OverwriteArg::Always => Overwrite::Always,
                OverwriteArg::IfChanged => Overwrite::IfChanged,
                OverwriteArg::Never => Overwrite::Never,
            },
            sparse: self.sparse,
            dry_run: self.dry_run,
            verify: self.verify,
            numeric_ids: self.numeric_ids,
        }
    }
}

fn text(report: &RestoreReport, options: &RestoreOptions) -> String {
    let (size, files) = (show::size(report.bytes_restored), show::count(report.files_restored, "file"));
    let mut lines = vec![match options.dry_run {
        true => format!("to write  {files}"),
        false => format!(
            "written   {size} in {files}, {} ({})",
            show::duration(report.seconds),
            show::rate(report.bytes_restored, report.seconds)
        ),
    }];
    lines.push(format!("as before {}, {} left alone", show::count(report.files_unchanged, "file"), report.files_skipped));
    lines.push(format!("besides   {}, {}", show::count(report.folders, "folder"), show::count(report.others, "other")));
    if options.verify && !options.dry_run {
        lines.push(format!("verified  {}", show::count(report.files_verified, "file")));
    }
    lines.join("\n")
}

fn print_json(report: &RestoreReport, id: SnapshotId, dry_run: bool) -> Result<()> {
    output::print_json(&json!({
        "message_type": "summary",
        "snapshot_id": id,
        "dry_run": dry_run,
        "seconds_elapsed": report.seconds,
        "total_files": report.files_restored + report.files_unchanged + report.files_skipped,
        "files_restored": report.files_restored,
        "files_unchanged": report.files_unchanged,
        "files_skipped": report.files_skipped,
        "files_verified": report.files_verified,
        "folders": report.folders,
        "others": report.others,
        "total_bytes": report.bytes_total,
        "bytes_restored": report.bytes_restored,
        "error_count": report.problems,
        "damaged_count": report.damaged,
    }))
}
