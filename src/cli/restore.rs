//! `snap restore`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::{Value, json};

use super::context::Context;
use super::exit::{self, Outcome};
use super::report::{Channel, Reporter};
use super::select::{FilterArgs, select};
use super::{dumps, output, settings, show, unlock};
use crate::config::Job;
use crate::dumps::{Loading, loading};
use crate::error::{Error, Result, show as show_path, show_bytes};
use crate::format::dump::Dump;
use crate::id::SnapshotId;
use crate::ops::browse::contents;
use crate::ops::restore::{Overwrite, RestoreOptions, RestoreReport, just_these, restore};
use crate::ops::streams::{Whole, wholes};
use crate::repo::{Repository, Selection, SnapshotFilter, Stored};

/// Write a snapshot's files into a folder
///
/// With a path behind the snapshot, only that folder's content (or that file) is written, into the target itself. Files that
/// are there already are compared and written again only where they differ; files that are not in the snapshot stay. What
/// cannot be restored is reported and the rest goes on.
///
/// With --job, it is the newest good snapshot of that name. Its files are restored; a dump is not written to the disk, but the
/// command is shown that loads it back.
#[derive(clap::Args)]
#[command(after_long_help = exit::help(EXAMPLES, exit::WITH_FILES))]
pub struct Args {
    /// Snapshot: latest, latest~2 (two before it), or the first digits of an id; with a folder or file in it
    #[arg(value_name = "SNAPSHOT[:PATH]", required_unless_present = "job", conflicts_with = "job")]
    snapshot: Option<OsString>,
    /// Restore the newest good snapshot of this name: files into the target; of each dump, show the command that loads it
    #[arg(long, value_name = "NAME", conflicts_with = "name")]
    job: Option<String>,
    /// Folder to restore into; made if it is missing
    #[arg(short, long, value_name = "DIR", required_unless_present = "job")]
    target: Option<PathBuf>,
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
  snap restore latest --host db1 -t / --include /var/lib/app --verify
  snap restore --job mydb.sql";

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
        if let Some(job) = &self.job {
            return self.restore_job(context, &repository, job);
        }
        let selection = select(&repository, self.snapshot.as_deref().unwrap_or_default(), None, &self.filter.filter())?;
        self.restore_files(context, &repository, &selection, Vec::new())
    }

    /// Restores the files of a job, and says how its dumps are loaded.
    fn restore_job(&self, context: &Context, repository: &Repository, job: &str) -> Result<Outcome> {
        let filter = SnapshotFilter { names: vec![job.into()], ..self.filter.filter() };
        let selection = repository.select("latest", &filter)?;
        let names = settings::complete(context)?.and_then(|config| config.jobs.get(job)).map(Job::streams).unwrap_or_default();
        let (streams, has_files) = contents(repository, &selection.stored, &names)?;
        let outcome = match (has_files, &self.target) {
            (true, None) => return Err(Error::Usage(format!("{job} has files: say with --target DIR where they are to go"))),
            (true, Some(_)) => self.restore_files(context, repository, &selection, just_these(&streams))?,
            (false, _) => Outcome::Done,
        };
        let wholes = wholes(&selection.stored.snapshot, &streams);
        let ways: Vec<Way> = wholes.into_iter().map(|whole| Way::new(context, &selection.stored, whole)).collect();
        if context.options.json {
            for way in &ways {
                output::print_json(&way.json(&selection.stored))?;
            }
        } else {
            let (id, time) = (selection.stored.id.short(), show::time(selection.stored.snapshot.time));
            let mut lines: Vec<String> = ways.iter().flat_map(Way::lines).collect();
            if !lines.is_empty() {
                lines.insert(0, format!("dumps in snapshot {id} of {time}"));
                output::print(&lines.join("\n"))?;
            }
        }
        Ok(outcome)
    }

    fn restore_files(&self, context: &Context, repository: &Repository, selection: &Selection, without: Vec<String>) -> Result<Outcome> {
        let target = self.target.as_deref().unwrap_or_else(|| Path::new("."));
        let mut options = self.options();
        options.exclude.extend(without);
        let reporter = Reporter::start(context, Channel::Stdout);
        let report = restore(repository, selection, target, &options, &reporter)?;
        drop(reporter);
        let id = selection.stored.id;
        if context.options.json {
            print_json(&report, id, options.dry_run)?;
        } else if !context.options.quiet {
            output::print(&text(&report, &options))?;
            let (id, target) = (id.short(), show_path(target));
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

/// How a stream gets back to where it came from.
struct Way {
    path: String,
    dump: Option<Dump>,
    /// The command that loads it.
    command: String,
    /// What there is to do besides.
    note: &'static str,
}

impl Way {
    fn new(context: &Context, stored: &Stored, whole: Whole) -> Self {
        let (path, dump) = (show_bytes(&whole.path), whole.dump);
        let loading = dump.as_ref().and_then(loading);
        let repository = context.options.repo.as_ref().map(|repo| format!(" -r {}", quoted(&show_path(repo)))).unwrap_or_default();
        let source = format!("snap dump{repository} {}", quoted(&format!("{}:/{path}", stored.id.short())));
        let (command, note) = match &loading {
            None => (format!("{source} > FILE"), "of no known format"),
            Some(Loading { command, note }) if command.is_empty() => (format!("{source} > FILE"), *note),
            // Only a shell can run several programs; it must not lose the failure of one.
            Some(Loading { command, note }) if command.contains('|') => {
                (format!("{source} --to-command -- bash -o pipefail -c {}", quoted(command)), *note)
            }
            // Nothing but unpacked.
            Some(Loading { command, note }) if command.ends_with(" -dc") => (format!("{source} --to-command -- {command} > FILE"), *note),
            Some(Loading { command, note }) => (format!("{source} --to-command -- {command}"), *note),
        };
        Self { path, dump, command, note }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![match &self.dump {
            Some(dump) => dumps::describe(dump),
            None => output::harmless(&self.path),
        }];
        lines.push(format!("  {}", output::harmless(&self.command)));
        lines.extend((!self.note.is_empty()).then(|| format!("  ({})", self.note)));
        lines
    }

    fn json(&self, stored: &Stored) -> Value {
        json!({
            "message_type": "stream",
            "snapshot_id": stored.id,
            "path": format!("/{}", self.path),
            "dump": self.dump,
            "command": self.command,
            "note": self.note,
        })
    }
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=+,@%".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.into(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
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
