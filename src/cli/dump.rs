//! `snap dump`.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;

use serde_json::json;

use super::context::Context;
use super::exit::{self, Outcome};
use super::report::{Channel, Reporter};
use super::select::{FilterArgs, select};
use super::{output, show, unlock};
use crate::error::{Error, Result, show_bytes};
use crate::ops::dump::dump;

/// Write one file or dump of a snapshot to standard output
///
/// Every byte is verified before it is written. If stored data is damaged, writing stops there with exit code 20: do not use
/// what came until then as if it were the whole. Without a path, the snapshot must hold a single file, as those of streams
/// do. Run under "set -o pipefail" so that a failure is not lost in a pipe.
#[derive(clap::Args)]
#[command(after_long_help = exit::help(EXAMPLES, exit::OPENING))]
pub struct Args {
    /// Snapshot: latest, latest~2 (two before it), or the first digits of an id
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    snapshot: OsString,
    /// File in the snapshot
    path: Option<OsString>,
    #[command(flatten)]
    filter: FilterArgs,
}

const EXAMPLES: &str = "
  snap dump latest > mydb.sql
  snap dump --name mydb.sql latest | psql mydb
  snap dump 40dc1520 /etc/fstab
  snap dump latest~7:/mydb.sql | pg_restore -l";

impl Args {
    pub fn run(self, context: &Context) -> Result<Outcome> {
        let repository = unlock::open(context)?;
        let selection = select(&repository, &self.snapshot, self.path.as_ref(), &self.filter.filter())?;
        // Not through the standard library's buffer, which looks for line ends.
        let stdout = std::io::stdout().as_fd().try_clone_to_owned();
        let mut stdout = File::from(stdout.map_err(|error| Error::file("open", "standard output", error))?);
        let reporter = Reporter::start(context, Channel::Stderr);
        let report = dump(&repository, &selection, &mut stdout, &reporter)?;
        drop(reporter);
        let (path, bytes) = (show_bytes(&report.path), report.bytes);
        if context.options.json {
            let summary = json!({
                "message_type": "summary",
                "snapshot_id": selection.stored.id,
                "path": format!("/{path}"),
                "total_bytes": bytes,
                "blake3": report.hash,
                "seconds_elapsed": report.seconds,
            });
            output::complain_as_is(&format!("{summary}\n"));
        } else if context.options.verbose > 0 {
            let speed = show::rate(bytes, report.seconds);
            output::complain_as_is(&format!("{path}: {} in {} ({speed})\n", show::size(bytes), show::duration(report.seconds)));
            output::complain_as_is(&format!("blake3 {}\n", report.hash));
        }
        Ok(Outcome::Done)
    }
}
