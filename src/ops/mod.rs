//! What can be done with a repository: functions of the repository, options and progress that return a report.
//!
//! Nothing here prints or asks. What goes wrong with one path or object is reported as a problem and the rest goes on.

pub mod audit;
pub mod backup;
pub mod browse;
pub mod check;
pub mod copy;
pub mod diff;
pub mod drill;
pub mod dump;
pub mod find;
pub mod forget;
pub mod judge;
pub mod keys;
pub mod ledger;
mod overheard;
pub mod prune;
pub mod receipt;
pub mod repair;
pub mod restore;
pub mod run;
pub mod stats;
pub mod status;
pub mod streams;
pub mod tag;

use crate::error::{Error, Result};
use crate::progress::Progress;

/// Fails if the user asked to stop.
fn go_on(progress: &dyn Progress) -> Result<()> {
    if progress.interrupted() { Err(Error::Interrupted) } else { Ok(()) }
}
