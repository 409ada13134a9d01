//! Whom a run tells of its beginning and end. The one place where notifications take hold of runs.

use super::context::Context;
use crate::config::Config;
use crate::format::report::Report;

/// A job begins.
pub fn begun(_context: &Context, _config: &Config, _report: &Report) {}

/// A job has ended, well or not; also one for which no repository could be opened. Returns what could not be told, for its report.
pub fn ended(_context: &Context, _config: &Config, _report: &Report) -> Vec<String> {
    Vec::new()
}
