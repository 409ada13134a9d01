//! `snap dump`.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;

use serde_json::json;

use super::context::Context;
use super::exit::{self, Outcome};
use super::report::{Channel, Reporter};
use super::select::{FilterArgs, select};
use super::{dumps, output, show, unlock};
use crate::error::{Error, Result, show_bytes};
use crate::format::dump::{Dump, Verdict};
use crate::limits::PIPE_BYTES;
use crate::ops::dump::{DumpReport, Found, dump_to_command, find, write};
use crate::repo::{Repository, Selection};
use crate::source::CommandLine;

/// Write one file or dump of a snapshot to standard output, or into a command
///
/// Every byte is verified before it is written. If stored data is damaged, writing stops there with exit code 20: do not use
/// what came until then as if it were the whole. Without a path, the snapshot must hold a single file, as those of streams
/// do.
///
/// With --to-command, the command behind -- gets it on its standard input. No shell is involved. If the command fails, or ends
/// before it has read all, the exit code is 4; if snap fails, the command is ended before its input is. In a pipe, both can be
/// lost: run pipes under "set -o pipefail". The command cannot ask for a password on the terminal.
#[derive(clap::Args)]
#[command(after_long_help = exit::help(EXAMPLES, exit::DUMP))]
pub struct Args {
    /// Snapshot: latest, latest~2 (two before it), or the first digits of an id
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    snapshot: OsString,
    /// File in the snapshot
    path: Option<OsString>,
    /// Run the command behind -- and write to its standard input
    #[arg(long, requires = "command")]
    to_command: bool,
    /// With --to-command: the command and its arguments
    #[arg(last = true, value_name = "COMMAND", requires = "to_command")]
    command: Vec<OsString>,
    #[command(flatten)]
    filter: FilterArgs,
}

const EXAMPLES: &str = "
  snap dump latest > mydb.sql
  snap dump --name mydb.sql latest --to-command -- psql -X -1 -v ON_ERROR_STOP=1 -d mydb
  snap dump 40dc1520 /etc/fstab
  snap dump latest~7:/mydb.dump | pg_restore -l";

impl Args {
    pub fn run(self, context: &Context) -> Result<Outcome> {
        let repository = unlock::open(context)?;
        let selection = select(&repository, &self.snapshot, self.path.as_ref(), &self.filter.filter())?;
        let found = find(&repository, &selection)?;
        let warnings = found.dump.as_ref().map_or_else(Vec::new, |dump| self.warnings(dump));
        if !context.options.json {
            warnings.iter().for_each(|warning| output::complain(&format!("warning: {warning}")));
        }
        let report = self.write(context, &repository, &found)?;
        tell(context, &selection, &found, &report, &warnings);
        Ok(Outcome::Done)
    }

    fn write(&self, context: &Context, repository: &Repository, found: &Found) -> Result<DumpReport> {
        if let [program, args @ ..] = &self.command[..] {
            let line = CommandLine { program: program.clone(), args: args.to_vec() };
            let reporter = Reporter::start(context, Channel::Stderr);
            return dump_to_command(repository, found, &line, context.signals.interrupted(), &reporter);
        }
        // Not through the standard library's buffer, which looks for line ends.
        let stdout = std::io::stdout().as_fd().try_clone_to_owned();
        let mut stdout = File::from(stdout.map_err(|error| Error::file("open", "standard output", error))?);
        // Whoever reads it, fewer switches between the two of us; what is no pipe stays as it is.
        let _ = rustix::pipe::fcntl_setpipe_size(&stdout, PIPE_BYTES);
        let reporter = Reporter::start(context, Channel::Stderr);
        write(repository, found, &mut stdout, &reporter)
    }

    /// What should be known before anything is loaded.
    fn warnings(&self, dump: &Dump) -> Vec<String> {
        let mut warnings = Vec::new();
        if dump.verdict == Verdict::Incomplete {
            warnings.push(format!("{} is INCOMPLETE: {}", dump.path, dump.why));
        }
        let line: Vec<&str> = self.command.iter().map(|word| word.to_str().unwrap_or_default()).collect();
        warnings.extend(crate::dumps::mismatch(dump, &line));
        warnings
    }
}

fn tell(context: &Context, selection: &Selection, found: &Found, report: &DumpReport, warnings: &[String]) {
    let (path, bytes) = (show_bytes(&report.path), report.bytes);
    if context.options.json {
        let mut summary = json!({
            "message_type": "summary",
            "snapshot_id": selection.stored.id,
            "path": format!("/{path}"),
            "total_bytes": bytes,
            "blake3": report.hash,
            "seconds_elapsed": report.seconds,
        });
        if let Some(dump) = &found.dump {
            summary["dump"] = json!(dump);
        }
        if !warnings.is_empty() {
            summary["warnings"] = json!(warnings);
        }
        output::complain_as_is(&format!("{summary}\n"));
    } else if context.options.verbose > 0 {
        let speed = show::rate(bytes, report.seconds);
        output::complain_as_is(&format!("{path}: {} in {} ({speed})\n", show::size(bytes), show::duration(report.seconds)));
        output::complain_as_is(&format!("blake3 {}\n", report.hash));
        if let Some(dump) = &found.dump {
            output::complain_as_is(&format!("{}\n", dumps::describe(dump)));
            dumps::how_to_load(dump).iter().for_each(|how| output::complain_as_is(&format!("to load it: {how}\n")));
        }
    }
}
