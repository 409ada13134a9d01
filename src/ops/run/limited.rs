//! An end to a run that takes too long.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::progress::{Problem, Progress, Stage};
use crate::source::span;

/// Progress that asks to stop when the time is over. A little late, so that a command that is waited for is the one to be blamed.
pub struct Limited<'a> {
    pub inner: &'a dyn Progress,
    pub until: Option<(Instant, Duration)>,
}

/// How much later than its commands the whole run is stopped.
const MARGIN: Duration = Duration::from_secs(3);

impl Limited<'_> {
    fn is_over(&self) -> bool {
        self.until.is_some_and(|(end, _)| Instant::now() >= end + MARGIN)
    }

    /// Says why it was interrupted, if not by the user.
    pub fn explain(&self, error: Error) -> Error {
        match (error, self.until) {
            (Error::Interrupted, Some((_, total))) if !self.inner.interrupted() && self.is_over() => {
                Error::TimedOut(format!("The job had not ended after {} (timeout), and was stopped", span(total)))
            }
            (error, _) => error,
        }
    }
}

impl Progress for Limited<'_> {
    fn stage(&self, stage: Stage, bytes: Option<u64>, files: Option<u64>) {
        self.inner.stage(stage, bytes, files);
    }
    fn bytes(&self, count: u64) {
        self.inner.bytes(count);
    }
    fn files(&self, count: u64) {
        self.inner.files(count);
    }
    fn at(&self, path: &Path) {
        self.inner.at(path);
    }
    fn problem(&self, problem: &Problem) {
        self.inner.problem(problem);
    }
    fn interrupted(&self) -> bool {
        self.inner.interrupted() || self.is_over()
    }
}
