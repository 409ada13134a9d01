//! `snap run`.

use std::sync::{Arc, Mutex, PoisonError};

use super::context::Context;
use super::exit::{self, Outcome};
use super::report::{Channel, Reporter};
use super::{backup, config_show, expect, fetch, notices, output, run_text, settings, unlock, witness};
use crate::config::{Config, Job, SecretFrom};
use crate::error::{Error, Result};
use crate::format::report::Report;
use crate::limits::HOOK_TIME;
use crate::ops::run::{Observer, RunOptions, not_begun, preview, run};
use crate::ops::status::{gather, judge, write_metrics};
use crate::repo::Repository;
use crate::source::Sink;
use crate::world::World;

/// Run jobs of the configuration: back up, check, forget, report
///
/// A job is what snap.toml says under [jobs.NAME]. All its streams and files make one snapshot, named like the job, or none: if a
/// command fails, says nothing for too long or gives no data, nothing is saved. A job that fails does not keep the others from
/// running; the exit code is the worst of all.
///
/// Each run leaves a report in the repository, also one that failed. snap status and snap serve read them.
#[derive(clap::Args)]
#[command(after_long_help = exit::help(EXAMPLES, exit::RUN))]
pub struct Args {
    /// Jobs to run [default: all, by name]
    #[arg(value_name = "JOB")]
    jobs: Vec<String>,
    /// Run nothing, and say what would be run and forgotten
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Name of this host in the snapshots [env: SNAP_HOST] [default: as configured, or the host's name]
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// How hard to compress [env: SNAP_COMPRESSION] [default: auto]
    #[arg(long, value_name = "LEVEL")]
    compression: Option<backup::Compression>,
}

const EXAMPLES: &str = "
  snap run
  snap run orders shop --dry-run
  snap --config /etc/snap/snap.toml run orders --json";

impl Args {
    pub fn run(self, context: &Context) -> Result<Outcome> {
        let config = match settings::require(context) {
            Ok(config) => config,
            Err(error) => {
                if !self.dry_run {
                    notices::mistaken(context, &error);
                }
                return Err(error);
            }
        };
        if !self.dry_run {
            notices::understood(context, config);
        }
        let jobs = pick(config, &self.jobs)?;
        let options = self.options(context, config)?;
        let repository = match unlock::open(context) {
            Ok(repository) => repository,
            Err(error) if self.dry_run => return Err(error),
            Err(error) => {
                // Nobody can keep the reports, but those who are to be told are.
                for job in &jobs {
                    let report = not_begun(&job.name, &options, World::system().now(), &error);
                    notices::ended(context, config, &report).iter().for_each(|warning| output::complain(&format!("warning: {warning}")));
                }
                return Err(error);
            }
        };
        witness::warn(context, &repository);
        let outcome = self.each(context, config, &jobs, &options, &repository);
        if !self.dry_run
            && let Err(error) = metrics(context, config, &repository)
        {
            output::complain(&format!("warning: the metrics were not written: {}", exit::message(&error)));
        }
        outcome
    }

    /// Runs one job after the other.
    fn each(&self, context: &Context, config: &Config, jobs: &[&Job], options: &RunOptions, repository: &Repository) -> Result<Outcome> {
        let mut worst = 0;
        for job in jobs {
            let reporter = Reporter::start(context, Channel::Stdout);
            if self.dry_run {
                let ahead = preview(repository, job, options, &reporter)?;
                drop(reporter);
                run_text::show_preview(context, job, &ahead)?;
                continue;
            }
            let ran =
                run(repository, job, options, &Onlooker { context, config, reporter: &reporter, untold: Mutex::default() }, &reporter);
            drop(reporter);
            run_text::show(context, job, &ran)?;
            worst = exit::worse(worst, ran.report.exit_code);
            if matches!(ran.error, Some(Error::Interrupted)) {
                return Err(Error::Interrupted);
            }
        }
        Ok(Outcome::Code(worst))
    }

    fn options(&self, context: &Context, config: &Config) -> Result<RunOptions> {
        let own = context.for_threads();
        Ok(RunOptions {
            host: unlock::configured_host(self.host.as_ref(), &context.environment, config)?,
            user: unlock::user(),
            state: witness::folder(&context.environment),
            zone: jiff::tz::TimeZone::system(),
            level: backup::compression(self.compression, &context.environment)?.into(),
            secrets: Arc::new(move |from: &SecretFrom| fetch::fetch(from, &own)),
            tell: |error| (exit::code(error), exit::message(error)),
            hook_time: HOOK_TIME,
            interrupted: context.signals.interrupted(),
        })
    }
}

/// Writes how everything stands now where the configuration wants it, unless that speaks of another repository.
fn metrics(context: &Context, config: &Config, repository: &Repository) -> Result<()> {
    let Some(path) = &config.repository.metrics_file else { return Ok(()) };
    if expect::configuration(context)?.is_none() {
        return Ok(());
    }
    let expectations = expect::expectations(context, None, false)?;
    write_metrics(path, &judge(&gather(repository)?, &expectations, repository.world().now()))
}

/// The jobs of these names, each once; all without names.
pub fn pick<'a>(config: &'a Config, names: &[String]) -> Result<Vec<&'a Job>> {
    if names.is_empty() {
        let file = crate::error::show(&config.file);
        return match config.jobs.is_empty() {
            true => Err(Error::Usage(format!("{file} has no jobs; snap config example shows some"))),
            false => Ok(config.jobs.values().collect()),
        };
    }
    let mut found: Vec<&Job> = Vec::new();
    for name in names {
        let job = config.jobs.get(name).ok_or_else(|| config_show::no_job(config, name))?;
        if !found.iter().any(|other| other.name == job.name) {
            found.push(job);
        }
    }
    Ok(found)
}

/// Shows what commands say, and tells whom the configuration names.
struct Onlooker<'a> {
    context: &'a Context,
    config: &'a Config,
    reporter: &'a Reporter,
    /// What could not be told at the beginning, for the report.
    untold: Mutex<Vec<String>>,
}

impl Observer for Onlooker<'_> {
    fn begun(&self, report: &Report) {
        *self.untold.lock().unwrap_or_else(PoisonError::into_inner) = notices::begun(self.context, self.config, report);
    }

    fn ended(&self, report: &Report) -> Vec<String> {
        let mut untold = std::mem::take(&mut *self.untold.lock().unwrap_or_else(PoisonError::into_inner));
        for warning in notices::ended(self.context, self.config, report) {
            if !untold.contains(&warning) {
                untold.push(warning);
            }
        }
        untold
    }

    fn said(&self, _name: &str) -> Sink {
        self.reporter.stderr_sink()
    }

    fn waiting(&self, job: &str) {
        if !self.context.options.quiet && !self.context.options.json {
            self.reporter.say_error(&format!("the job {job} is running on this host already; waiting for it to end\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn jobs_are_picked_by_name() {
        let text = b"[jobs.b]\ncommand = [\"x\"]\n[jobs.a]\ncommand = [\"x\"]\n";
        let config = crate::config::parse(text, Path::new("/snap.toml")).config;
        let names = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|name| name.to_string()).collect();
            pick(&config, &wanted).map(|jobs| jobs.iter().map(|job| job.name.clone()).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap(), ["a", "b"]);
        assert_eq!(names(&["b", "a", "b"]).unwrap(), ["b", "a"]);
        assert!(names(&["c"]).unwrap_err().to_string().ends_with("there is a, b"));
    }
}
