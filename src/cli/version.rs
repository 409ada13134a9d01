//! `snap version`.

use serde_json::json;

use super::context::Context;
use super::exit::{self, Outcome};
use super::output;
use crate::error::Result;
use crate::limits::{FORMAT_VERSION, LIST_VERSION};

/// Version of the program, and of the repositories it reads and writes.
pub const TEXT: &str = concat!(env!("CARGO_PKG_VERSION"), " (format 1, packs and index segments up to 2)");
const _: () = assert!(FORMAT_VERSION == 1 && LIST_VERSION == 2, "TEXT names the format");

/// Print the version of snap and of the format it reads and writes
#[derive(clap::Args)]
#[command(after_long_help = exit::help(EXAMPLES, exit::SIMPLE))]
pub struct Args {}

const EXAMPLES: &str = "
  snap version
  snap version --json";

impl Args {
    pub fn run(self, context: &Context) -> Result<Outcome> {
        match context.options.json {
            true => output::print_json(&json!({
                "message_type": "version",
                "version": env!("CARGO_PKG_VERSION"),
                "format": FORMAT_VERSION,
                "pack_format": LIST_VERSION,
                "os": std::env::consts::OS,
                "arch": std::env::consts::ARCH,
            }))?,
            false => output::print(&format!("snap {TEXT}"))?,
        }
        Ok(Outcome::Done)
    }
}
