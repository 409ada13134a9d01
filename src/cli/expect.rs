//! What is expected of the repository in use: by the configuration, if it speaks of this one, else of every stream in it.

use std::time::Duration;

use super::context::Context;
use super::{location, settings, unlock};
use crate::config::{Config, Objectives};
use crate::error::Result;
use crate::ops::status::{Expectations, Expected};

/// The configuration, if it is one of the repository in use. It must be right: a job that a mistake hides would be missed by nobody.
pub fn configuration(context: &Context) -> Result<Option<&Config>> {
    match location::configured(context)? {
        Some(_) => settings::require(context).map(Some),
        None => Ok(None),
    }
}

/// What is expected. `max_age` is that of streams that are no job.
pub fn expectations(context: &Context, max_age: Option<Duration>, others: bool) -> Result<Expectations> {
    let mut objectives = Objectives::default();
    objectives.max_age = max_age.unwrap_or(objectives.max_age);
    let mut expectations = Expectations { objectives, others, ..Expectations::default() };
    if let Some(config) = configuration(context)? {
        // Called as a run here would call it.
        expectations.jobs = jobs(config, &unlock::configured_host(None, &context.environment, config)?);
        expectations.quota = config.repository.quota;
    }
    Ok(expectations)
}

fn jobs(config: &Config, host: &str) -> Vec<Expected> {
    let job = |job: &crate::config::Job| Expected {
        host: host.into(),
        job: job.name.clone(),
        tier: job.tier,
        objectives: job.objectives.clone(),
    };
    config.jobs.values().map(job).collect()
}
