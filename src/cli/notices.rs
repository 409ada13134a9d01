//! Whom to tell: of the beginning and end of a run, of a drill, and of what is missed. The one place where notifications take hold.

use std::sync::Arc;

use super::context::Context;
use super::{exit, fetch, output, settings, unlock, witness};
use crate::config::{Config, SecretFrom};
use crate::error::Error;
use crate::format::report::Report;
use crate::notify::{Attempt, Missing, Notifier};
use crate::ops::status::{Objective, Status};
use crate::world::World;

/// A job begins. Returns what could not be told.
pub fn begun(context: &Context, config: &Config, report: &Report) -> Vec<String> {
    notifier(context, config).begun(report)
}

/// A job or drill has ended, well or not; also one for which no repository could be opened. Returns what could not be told, for its report.
pub fn ended(context: &Context, config: &Config, report: &Report) -> Vec<String> {
    notifier(context, config).ended(report, World::system().now())
}

/// Tells of objectives that are missed, and of those that no longer are. The status must be that of all that is watched.
pub fn judged(context: &Context, config: &Config, status: &Status) -> Vec<String> {
    tell(&notifier(context, config), &host(context, config), status)
}

fn tell(notifier: &Notifier, host: &str, status: &Status) -> Vec<String> {
    // By a clock that cannot be right nothing else is told: what was missed may still be, and when it was told last cannot be said.
    let is_blind = status.missed().any(|(_, missed)| missed.objective == Objective::Clock);
    let told = status.missed().filter(|(_, missed)| !is_blind || missed.objective == Objective::Clock);
    let missing = told.map(|(job, missed)| Missing {
        host: job.map_or_else(|| host.to_owned(), |job| job.host.clone()),
        job: job.map(|job| job.job.clone()),
        objective: serde_json::to_value(missed.objective).ok().and_then(|word| Some(word.as_str()?.to_owned())).unwrap_or_default(),
        message: missed.message.clone(),
    });
    let missing: Vec<Missing> = missing.collect();
    if is_blind {
        return notifier.still_missed(&missing, status.time);
    }
    let watched: Vec<(&str, &str)> = status.jobs.iter().map(|job| (job.host.as_str(), job.job.as_str())).collect();
    notifier.missed(&missing, &watched, status.time)
}

/// Tells that nothing can be judged, since the repository cannot be opened or read.
pub fn blind(context: &Context, config: &Config, why: &str) -> Vec<String> {
    let message = format!("nothing can be judged: {why}");
    let missing = Missing { host: host(context, config), job: None, objective: "readable".into(), message };
    notifier(context, config).still_missed(&[missing], World::system().now())
}

/// The objective that the configuration is right.
const CONFIGURATION: &str = "configuration";

/// Tells that a mistake in the configuration keeps everything from being done, if it says rightly whom to tell.
pub fn mistaken(context: &Context, error: &Error) {
    let Ok(Some(parsed)) = settings::load(context) else { return };
    if !parsed.notify_is_good || parsed.errors().next().is_none() {
        return;
    }
    let message = format!("nothing is backed up or judged: {}", exit::message(error));
    let missing = Missing { host: host(context, &parsed.config), job: None, objective: CONFIGURATION.into(), message };
    complain(&notifier(context, &parsed.config).still_missed(&[missing], World::system().now()));
}

/// The configuration is right; if it was told that it is not, that is over.
pub fn understood(context: &Context, config: &Config) {
    complain(&notifier(context, config).met(CONFIGURATION, World::system().now()));
}

fn complain(untold: &[String]) {
    untold.iter().for_each(|warning| output::complain(&format!("warning: {warning}")));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Notify;
    use crate::ops::status::{Expectations, Expected, Facts, judge};

    fn job(host: &str, name: &str) -> Expected {
        Expected { host: host.into(), job: name.into(), tier: Default::default(), objectives: Default::default() }
    }

    /// What is told of an empty repository when somebody looks who expects these jobs: missed, well again, not watched any more.
    fn look(folder: &std::path::Path, jobs: &[Expected], time: &str) -> [bool; 3] {
        let file = folder.join("told");
        let words = ["sh", "-c", "cat >> \"$0\"", file.to_str().unwrap()].map(String::from);
        let fetch = Arc::new(|_: &SecretFrom| Err(Error::NotFound("no secret".into())));
        let notify = Notify { command: Some(words.to_vec()), ..Notify::default() };
        let notifier = Notifier::new(notify, fetch, Some(folder.join("state")), &folder.join("snap.toml"));
        let expectations = Expectations { jobs: jobs.to_vec(), ..Expectations::default() };
        let facts = Facts { created: "2026-01-01T00:00:00Z".parse().unwrap(), ..Facts::default() };
        let host = jobs.first().map_or("db1", |job| &job.host);
        assert!(tell(&notifier, host, &judge(&facts, &expectations, time.parse().unwrap())).is_empty());
        let told = std::fs::read_to_string(&file).unwrap_or_default();
        let _ = std::fs::remove_file(&file);
        ["missed", "recovered", "unwatched"].map(|event| told.contains(&format!("\"event\":\"{event}\"")))
    }

    #[test]
    fn nothing_is_well_again_by_a_clock_that_cannot_be_right() {
        let folder = tempfile::tempdir().unwrap();
        let look = |time: &str| look(folder.path(), &[job("db1", "orders")], time);
        assert_eq!(look("2026-02-01T00:00:00Z"), [true, false, false]);
        // That the clock is wrong is told, and nothing else.
        assert_eq!(look("1970-01-02T00:00:00Z"), [true, false, false]);
        // What was told before is known still, and only the clock is well again.
        assert_eq!(look("2026-02-01T01:00:00Z"), [false, true, false]);
    }

    #[test]
    fn nothing_is_well_again_because_nobody_looks_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let look = |jobs: &[Expected], hour| look(folder.path(), jobs, &format!("2026-02-01T{hour:02}:00:00Z"));
        assert_eq!(look(&[job("db1", "orders"), job("db1", "files")], 0), [true, false, false]);
        // Its job is gone from the configuration. That is told once.
        assert_eq!(look(&[job("db1", "orders")], 1), [false, false, true]);
        assert_eq!(look(&[job("db1", "orders")], 2), [false; 3]);
        // Renamed; and that it is of another host.
        assert_eq!(look(&[job("db1", "order")], 3), [true, false, true]);
        assert_eq!(look(&[job("db2", "order")], 4), [true, false, true]);
        assert_eq!(look(&[job("db2", "order")], 5), [false; 3]);
    }
}
