//! Whom to tell: of the beginning and end of a run, of a drill, and of what is missed. The one place where notifications take hold.

use std::sync::Arc;

use super::context::Context;
use super::{fetch, unlock, witness};
use crate::config::{Config, SecretFrom};
use crate::format::report::Report;
use crate::notify::{Attempt, Missing, Notifier};
use crate::ops::status::Status;
use crate::world::World;

/// A job begins. Returns what could not be told.
pub fn begun(context: &Context, config: &Config, report: &Report) -> Vec<String> {
    notifier(context, config).begun(report)
}

/// A job or drill has ended, well or not; also one for which no repository could be opened. Returns what could not be told, for its report.
pub fn ended(context: &Context, config: &Config, report: &Report) -> Vec<String> {
    notifier(context, config).ended(report, World::system().now())
}

/// Tells of objectives that are missed, and of those that no longer are. The status must be that of the whole repository.
pub fn judged(context: &Context, config: &Config, status: &Status) -> Vec<String> {
    let host = host(context, config);
    let missing = status.missed().map(|(job, missed)| Missing {
        host: job.map_or_else(|| host.clone(), |job| job.host.clone()),
        job: job.map(|job| job.job.clone()),
        objective: serde_json::to_value(missed.objective).ok().and_then(|word| Some(word.as_str()?.to_owned())).unwrap_or_default(),
        message: missed.message.clone(),
    });
    notifier(context, config).missed(&missing.collect::<Vec<_>>(), status.time)
}

/// Tells that nothing can be judged, since the repository cannot be opened or read.
pub fn blind(context: &Context, config: &Config, why: &str) -> Vec<String> {
    let message = format!("nothing can be judged: {why}");
    let missing = Missing { host: host(context, config), job: None, objective: "readable".into(), message };
    notifier(context, config).still_missed(&[missing], World::system().now())
}

/// Sends a message to everybody who is configured.
pub fn test(context: &Context, config: &Config) -> Vec<Attempt> {
    notifier(context, config).test(&host(context, config), World::system().now())
}

fn host(context: &Context, config: &Config) -> String {
    unlock::configured_host(None, &context.environment, config).unwrap_or_else(|_| unlock::host())
}

fn notifier(context: &Context, config: &Config) -> Notifier {
    let own = context.for_threads();
    let fetch = Arc::new(move |from: &SecretFrom| fetch::fetch(from, &own));
    Notifier::new(config.notify.clone(), fetch, witness::folder(&context.environment), &config.file)
}
