//! What a run would do, without doing anything of it.

use super::RunOptions;
use super::behind::forgetting;
use crate::config::Job;
use crate::error::Result;
use crate::ops::forget::{self, Plan};
use crate::progress::Progress;
use crate::repo::Repository;

/// What a run would do besides its commands and sources, which the job names.
pub struct Preview {
    /// What would be forgotten, if the new snapshot is not counted; nothing if the job never forgets.
    pub forget: Option<Plan>,
}

/// Looks ahead.
pub fn preview(repository: &Repository, job: &Job, options: &RunOptions, progress: &dyn Progress) -> Result<Preview> {
    let plan = || forget::plan(repository, &forgetting(job, options), progress);
    Ok(Preview { forget: if job.keep.is_empty() { None } else { Some(plan()?) } })
}
