//! `snap config`.

use super::context::Context;
use super::exit::{self, Outcome};
use super::{config_check, config_show, output};
use crate::config::EXAMPLE;
use crate::error::Result;

/// Look at the configuration file
///
/// snap.toml says where the repository is and how it is unlocked, which jobs there are, what is expected of them, and whom to tell.
/// It is looked for at --config or SNAP_CONFIG, then as ./snap.toml, ~/.config/snap/snap.toml and /etc/snap/snap.toml; the first there
/// is counts. Its repository serves all commands; flags and variables go before it.
#[derive(clap::Args)]
#[command(after_long_help = exit::help(EXAMPLES, exit::SIMPLE))]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Say what is wrong with it, everything at once, with line and column
    ///
    /// Looks also at what the file speaks of: that files of secrets are there and private, and programs in the PATH. Runs nothing, but for what
    /// fetches addresses and passwords and the notify command with --notify.
    Check {
        /// Send a test message to everybody in [notify], and say for each whether it arrived
        #[arg(long)]
        notify: bool,
    },
    /// Print a whole configuration with comments, to begin with
    Example,
    /// Print what is in force: the repository, and for each job the commands as they will be run
    Show {
        /// Only this one
        #[arg(value_name = "JOB")]
        job: Option<String>,
    },
}

const EXAMPLES: &str = "
  snap config example > /etc/snap/snap.toml
  snap config check
  snap config check --notify
  snap --config ./new.toml config check
  snap config show
  snap config show orders --json";

impl Args {
    pub fn run(self, context: &Context) -> Result<Outcome> {
        match self.command {
            Command::Check { notify } => config_check::run(context, notify)?,
            Command::Example => output::write_all(EXAMPLE.as_bytes())?,
            Command::Show { job } => config_show::run(context, job.as_deref())?,
        }
        Ok(Outcome::Done)
    }
}
