//! `snap drill`.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::context::Context;
use super::exit::{self, Outcome};
use super::report::{Channel, Reporter};
use super::{evidence, notices, output, settings, show, unlock};
use crate::config::{Config, Drill as Plan, Job};
use crate::error::{Error, Result};
use crate::format::report::{Did, Drill, Outcome as Went, Report};
use crate::ops::drill::{Ending, Subject, drill};
use crate::repo::{Repository, SnapshotFilter, Stored};
use crate::world::World;

/// Try out a restore: bring the newest snapshot back into a place made for it, and ask it questions
///
/// Dumps are loaded into a private server that is made for the drill and taken away afterwards: PostgreSQL, MariaDB, Redis or
/// SQLite, if it is installed here, or whatever the commands of the job's drill make. Files are restored into a folder. Then
/// the rows of every table are compared with what was counted at the backup, and the job's own questions are asked. The
/// account of it is kept in the repository, and can be written as a report.
///
/// Works on any machine that has the repository, its key and snap.toml; nothing of production is needed or touched. Without
/// snap.toml, give the names of snapshots as jobs.
#[derive(clap::Args)]
#[command(after_long_help = exit::help(EXAMPLES, exit::DRILL))]
pub struct Args {
    /// Jobs to try out [default: all jobs in snap.toml that have a drill, or all if none has]
    #[arg(value_name = "JOB")]
    jobs: Vec<String>,
    /// Snapshot to take [default: the newest good one of the job]
    #[arg(long, value_name = "SNAPSHOT")]
    snapshot: Option<String>,
    /// Write the account into a file: .md, .html or .json; may be repeated
    #[arg(long, value_name = "FILE")]
    report: Vec<PathBuf>,
    /// Folder in which the places are made [default: TMPDIR, or /var/tmp]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Leave the folder of the restored data for a look (servers are stopped)
    #[arg(long)]
    keep: bool,
    /// Keep no account in the repository
    #[arg(long)]
    no_record: bool,
}

const EXAMPLES: &str = "
  snap drill
  snap drill orders --report /var/lib/drills/orders.html
  snap drill orders.sql --snapshot latest~7 --keep";

/// A job to try out.
struct Wanted {
    name: String,
    plan: Plan,
    streams: Vec<String>,
    seconds_allowed: Option<f64>,
    /// Whether it stands in snap.toml; else its name may be a slip.
    is_known: bool,
}

impl Wanted {
    /// The account of a drill of it, before anything is done.
    fn account(&self) -> Drill {
        Drill { job: self.name.clone(), seconds_allowed: self.seconds_allowed, ..Drill::default() }
    }
}

impl Args {
    pub fn run(self, context: &Context) -> Result<Outcome> {
        let wanted = self.wanted(settings::complete(context)?)?;
        for path in &self.report {
            // Before anything is done that would go unreported.
            evidence::check_name(path)?;
        }
        let repository = match unlock::open(context) {
            Ok(repository) => repository,
            Err(error) => {
                self.not_begun(context, &wanted, &error);
                return Err(error);
            }
        };
        let mut reports = Vec::new();
        let mut is_interrupted = false;
        for wanted in &wanted {
            // Whatever happens to one, the others are not to wait for it.
            let (report, error) = self.try_out(context, &repository, wanted);
            is_interrupted = matches!(error, Some(Error::Interrupted));
            tell(context, &report)?;
            reports.push(report);
            if is_interrupted {
                break;
            }
        }
        for path in &self.report {
            evidence::write(path, &reports)?;
        }
        match is_interrupted {
            true => Err(Error::Interrupted),
            // What went wrong was said with each.
            false => Ok(Outcome::Code(reports.iter().map(|report| report.exit_code).fold(0, exit::worse))),
        }
    }

    fn wanted(&self, config: Option<&Config>) -> Result<Vec<Wanted>> {
        let jobs = config.map(|config| &config.jobs);
        let of_job = |name: &String| {
            let job = jobs.and_then(|jobs| jobs.get(name));
            Wanted {
                name: name.clone(),
                plan: job.and_then(|job| job.drill.clone()).unwrap_or_default(),
                streams: job.map(Job::streams).unwrap_or_default(),
                seconds_allowed: job.and_then(|job| job.objectives.max_restore_time).map(|time| time.as_secs_f64()),
                is_known: job.is_some(),
            }
        };
        if !self.jobs.is_empty() {
            return Ok(self.jobs.iter().map(of_job).collect());
        }
        let Some(jobs) = jobs.filter(|jobs| !jobs.is_empty()) else {
            return Err(Error::Usage(
                "No job to try out: there is no snap.toml with jobs; give the name of a stream, as snap snapshots shows it".into(),
            ));
        };
        let with_drill: Vec<&String> = jobs.values().filter(|job| job.drill.is_some()).map(|job| &job.name).collect();
        let all = if with_drill.is_empty() { jobs.keys().collect() } else { with_drill };
        Ok(all.into_iter().map(of_job).collect())
    }

    /// The repository cannot be opened, and keeps no account of it; but those who are to be told are.
    fn not_begun(&self, context: &Context, wanted: &[Wanted], error: &Error) {
        let report = |wanted: &Wanted| {
            let mut report = Report {
                outcome: Went::Failed,
                error: Some(exit::message(error)),
                exit_code: exit::code(error),
                ..Report::new(World::system().now(), unlock::host(), unlock::user(), Did::Drill(wanted.account()))
            };
            if wanted.is_known {
                announce(context, &mut report);
            }
            report
        };
        let reports: Vec<Report> = wanted.iter().map(report).collect();
        for path in &self.report {
            if let Err(error) = evidence::write(path, &reports) {
                output::complain(&format!("warning: {}", exit::message(&error)));
            }
        }
    }

    fn try_out(&self, context: &Context, repository: &Repository, wanted: &Wanted) -> (Report, Option<Error>) {
        let (time, begun) = (repository.world().now(), Instant::now());
        let (account, ending) = self.attempt(context, repository, wanted);
        // Who mistypes a name sees it at once; nobody else needs to know.
        let has_slipped = account.snapshot.is_none()
            && (self.snapshot.is_some() || !wanted.is_known)
            && matches!(ending, Ending::Failed(Error::NotFound(_) | Error::Usage(_)));
        let (outcome, error, failure) = match ending {
            Ending::Passed => (Went::Good, None, None),
            Ending::Missed(why) => (Went::Partial, Some(why), None),
            Ending::Failed(error) => (Went::Failed, Some(explain(&account, &error)), Some(error)),
        };
        let exit_code = failure.as_ref().map_or(if outcome == Went::Good { 0 } else { 30 }, exit::code);
        let mut report = Report {
            seconds: begun.elapsed().as_secs_f64(),
            outcome,
            error,
            exit_code,
            ..Report::new(time, unlock::host(), unlock::user(), Did::Drill(account))
        };
        if has_slipped {
            return (report, failure);
        }
        announce(context, &mut report);
        if !self.no_record
            && let Err(error) = repository.save_report(&report)
        {
            output::complain(&format!("warning: the account of the drill could not be kept in the repository: {}", exit::message(&error)));
        }
        (report, failure)
    }

    /// Brings it back and asks. What keeps a drill from beginning is how it ended, too.
    fn attempt(&self, context: &Context, repository: &Repository, wanted: &Wanted) -> (Drill, Ending) {
        let mut account = wanted.account();
        let stored = match self.choose(repository, &wanted.name) {
            Ok(stored) => stored,
            Err(error) => return (account, Ending::Failed(error)),
        };
        (account.snapshot, account.snapshot_time) = (Some(stored.id), Some(stored.snapshot.time));
        let folder = match Scratch::new(self.scratch.clone().unwrap_or_else(|| scratch(context)), repository, self.keep) {
            Ok(folder) => folder,
            Err(error) => return (account, Ending::Failed(error)),
        };
        let subject = Subject {
            job: &wanted.name,
            stored: &stored,
            plan: &wanted.plan,
            streams: &wanted.streams,
            seconds_allowed: wanted.seconds_allowed,
            folder: &folder.path,
            interrupted: context.signals.interrupted(),
        };
        let reporter = Reporter::start(context, Channel::Stdout);
        let tried = drill(repository, &subject, &reporter);
        drop(reporter);
        if self.keep && !context.options.quiet {
            output::complain_as_is(&format!("the restored data are in {}\n", crate::error::show(&folder.path)));
        }
        tried
    }

    /// The newest snapshot that is whole, of whatever host: this may be another one.
    fn choose(&self, repository: &Repository, job: &str) -> Result<Stored> {
        if let Some(text) = &self.snapshot {
            let filter = SnapshotFilter { names: vec![job.into()], ..SnapshotFilter::default() };
            return Ok(repository.select(text, &filter)?.stored);
        }
        let newest = repository.newest(0, |stored| stored.snapshot.name == job && stored.snapshot.is_complete())?;
        newest.ok_or_else(|| Error::NotFound(format!("No good snapshot of {job} to try out; snap snapshots shows what there is")))
    }
}

/// Tells whom the configuration names, and puts down who could not be told.
fn announce(context: &Context, report: &mut Report) {
    let Ok(Some(config)) = settings::complete(context) else { return };
    let untold = notices::ended(context, config, report);
    untold.iter().for_each(|warning| output::complain(&format!("warning: {warning}")));
    report.warnings.extend(untold);
}

/// The error and the step at which it came.
fn explain(account: &Drill, error: &Error) -> String {
    let failed = account.steps.iter().find_map(|step| Some((&step.name, step.error.as_ref()?)));
    failed.map_or_else(|| exit::message(error), |(step, why)| format!("{step}: {why}"))
}

fn tell(context: &Context, report: &Report) -> Result<()> {
    let Did::Drill(drill) = &report.did else { return Ok(()) };
    if context.options.json {
        let mut line = serde_json::to_value(report).expect("reports are plain JSON");
        line["message_type"] = "summary".into();
        return output::print_json(&line);
    }
    if !context.options.quiet {
        let mut lines = Vec::new();
        if let (Some(id), Some(time)) = (drill.snapshot, drill.snapshot_time) {
            lines.push(format!("drill of {} with snapshot {} of {}", drill.job, id.short(), show::time(time)));
        }
        for step in &drill.steps {
            let outcome = if step.error.is_some() { "failed" } else { "done" };
            lines.push(format!("  {:<40} {outcome:<7} {:>12}", step.name, show::duration(step.seconds)));
        }
        for check in &drill.checks {
            let outcome = if check.passed { "passed" } else { "FAILED" };
            lines.push(format!("  {:<40} {outcome:<7} {} (expected: {})", check.name, check.answer, check.expected));
        }
        let allowed = drill.seconds_allowed.map_or(String::new(), |seconds| format!(", {} are allowed", show::duration(seconds)));
        if drill.seconds_to_ready > 0.0 {
            let (size, first) = (show::size(drill.bytes), show::duration(drill.seconds_to_first_byte));
            lines.push(format!("  {size}, first byte after {first}, ready after {}{allowed}", show::duration(drill.seconds_to_ready)));
        }
        lines.push(format!("drill of {} {}", drill.job, evidence::word(report.outcome)));
        output::print(&lines.iter().map(|line| output::harmless(line)).collect::<Vec<_>>().join("\n"))?;
    }
    match &report.error {
        // The end of the program says so.
        Some(_) if report.exit_code == exit::code(&Error::Interrupted) => {}
        Some(error) if report.outcome == Went::Partial => output::complain(error),
        Some(error) => output::complain(&format!("The drill of {} failed: {error}", drill.job)),
        None => {}
    }
    Ok(())
}

fn scratch(context: &Context) -> PathBuf {
    // Not /tmp, which is often in memory.
    context.environment.path("TMPDIR").unwrap_or_else(|| "/var/tmp".into())
}

/// A new folder for one drill, gone when dropped unless it is to be kept.
struct Scratch {
    path: PathBuf,
    keep: bool,
}

impl Scratch {
    fn new(parent: PathBuf, repository: &Repository, keep: bool) -> Result<Self> {
        let number = u32::from_le_bytes(repository.world().random());
        let parent = std::path::absolute(&parent).map_err(|error| Error::file("find", &parent, error))?;
        let path = parent.join(format!("snap-drill-{number:08x}"));
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| Error::file("make", &path, error))?;
        Ok(Self { path, keep })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = remove(&self.path)
        {
            output::complain(&format!("warning: {} could not be removed: {error}", crate::error::show(&self.path)));
        }
    }
}

fn remove(folder: &Path) -> std::io::Result<()> {
    // A server that was just stopped may still be writing its last words.
    for _ in 0..20 {
        if std::fs::remove_dir_all(folder).is_ok() {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    std::fs::remove_dir_all(folder)
}
