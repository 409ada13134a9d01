//! `snap rekey`.

use std::ffi::OsString;

use serde_json::json;

use super::context::{Context, NewSecretOptions};
use super::copy::{self, HowArgs};
use super::exit::{self, Outcome};
use super::{output, show, unlock};
use crate::error::{Error, Result, show_bytes};
use crate::ops::copy::missing;

/// Copy all snapshots into a new repository with a new master key
///
/// For when a password, key file or recovery sheet got into wrong hands together with the repository: a master key cannot be
/// changed, and who has it can read all that it ever sealed. Makes the repository at --to (or goes on with one that an
/// earlier run made), copies every snapshot, verifies, and compares the counts. The old repository is not touched.
#[derive(clap::Args)]
#[command(after_long_help = exit::help(EXAMPLES, exit::OPENING))]
pub struct Args {
    /// Folder of the new repository
    #[arg(long, value_name = "DIR")]
    to: OsString,
    #[command(flatten)]
    new: NewSecretOptions,
    #[command(flatten)]
    how: HowArgs,
}

const EXAMPLES: &str = "
  snap rekey -r /srv/backup --to /srv/backup2
  snap rekey -r /srv/backup --to /srv/backup2 --new-key-file /root/snap2.key";

impl Args {
    pub fn run(self, context: &Context) -> Result<Outcome> {
        let options = self.how.options(context)?;
        let target = unlock::store_at(&self.to)?;
        let from = unlock::open(context)?;
        let to = unlock::open_or_create_in(context, target, &(&self.new).into())?;
        let shown = show_bytes(self.to.as_encoded_bytes());
        if to.master().is(from.master()) {
            return Err(Error::Usage(format!("{shown} is this repository, or a copy of it with the same key; choose an empty folder")));
        }
        let (outcome, report) = copy::run(context, &from, &to, &options)?;
        let missing = missing(&from, &to)?.len();
        if missing > 0 || report.unreadable > 0 {
            return Err(copy::not_all(missing + report.unreadable as usize));
        }
        let count = report.copied + report.there;
        if context.options.json {
            let (id, location) = (to.id(), to.location());
            output::print_json(&json!({ "message_type": "rekeyed", "id": id, "repository": location, "snapshots": count }))?;
        } else if !context.options.quiet {
            output::print(&format!("all {} are in {shown}, under a new key", show::count(count, "snapshot")))?;
            output::print(NEXT)?;
        }
        Ok(outcome)
    }
}

const NEXT: &str = "
What to do now:
  1. Run snap check --read-data on the new repository, and restore something from it.
  2. Let backups go there: change SNAP_REPOSITORY and the password or key file of each host.
  3. Run this command once more if a backup has gone to the old one meanwhile.
  4. Make a new recovery sheet (snap key export), and destroy the old one.
  5. Delete the old repository and its copies: whoever has its key can read what is in them.";
