//! A dump into a command that loads it.
//!
//! There is no shell in between; the command runs in a process group of its own and sees none of our secrets.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::{DumpReport, Found, write};
use crate::error::Result;
use crate::progress::Progress;
use crate::repo::Repository;
use crate::source::{CommandLine, Fed, bare_command};

/// Runs a command with a file or stream of a snapshot on its standard input.
pub fn dump_to_command(
    repository: &Repository,
    found: &Found,
    line: &CommandLine,
    interrupted: Arc<AtomicBool>,
    progress: &dyn Progress,
) -> Result<DumpReport> {
    let command = Fed::start(bare_command(line, &[]), None, None, interrupted)?;
    command.give(found.size(), |pipe| write(repository, found, pipe, progress))
}
