//! `snap completions`.

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use super::context::Context;
use super::exit::{self, Outcome};
use super::{Cli, output};
use crate::error::Result;

/// Print a script that completes snap's commands and options in a shell
#[derive(clap::Args)]
#[command(after_long_help = exit::help(EXAMPLES, exit::SIMPLE))]
pub struct Args {
    /// Shell the script is for
    shell: Shell,
}

const EXAMPLES: &str = "
  snap completions bash > /usr/share/bash-completion/completions/snap
  snap completions zsh > /usr/share/zsh/site-functions/_snap
  snap completions fish > ~/.config/fish/completions/snap.fish";

impl Args {
    pub fn run(self, _: &Context) -> Result<Outcome> {
        let mut script = Vec::new();
        generate(self.shell, &mut Cli::command(), "snap", &mut script);
        output::write_all(&script)?;
        Ok(Outcome::Done)
    }
}
