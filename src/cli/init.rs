//! `snap init`.

use serde_json::json;

use super::context::Context;
use super::exit::{self, Outcome};
use super::{output, unlock};
use crate::error::Result;

/// Make a new repository
///
/// Makes a repository in an empty or missing folder. You choose how it is locked: with a password (from --password-file,
/// --password-command, SNAP_PASSWORD, or typed twice) or with a key file. With --key-file and no such file, a new one is
/// made. There is no way in without the password or key file, so keep a copy of it somewhere else.
#[derive(clap::Args)]
#[command(after_long_help = exit::help(EXAMPLES, exit::CREATING))]
pub struct Args {}

const EXAMPLES: &str = "
  snap init -r /srv/backup
  snap init -r /srv/backup --password-file /root/snap.password
  snap init -r /srv/backup --key-file /root/snap.key";

impl Args {
    pub fn run(self, context: &Context) -> Result<Outcome> {
        let repository = unlock::create(context)?;
        if context.options.json {
            let id = repository.id().hex();
            output::print_json(&json!({ "message_type": "initialized", "id": id, "repository": repository.location() }))?;
        } else if !context.options.quiet {
            let location = output::harmless(&repository.location());
            output::print(&format!("repository {} created at {location}", repository.id().short()))?;
            output::print("Keep the password or key file safe, and a copy elsewhere: without it nothing can be restored.")?;
            output::print("For the day it is lost: snap key export makes a recovery sheet to print.")?;
        }
        Ok(Outcome::Done)
    }
}
