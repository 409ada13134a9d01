//! Run: a job as it is configured, from its first hook to the report that stays.
//!
//! ```text
//! lock -> before -> backup (all sources, or nothing) -> after -> verify -> forget -> prune -> on_success | on_failure -> report
//! ```
//!
//! Whatever goes wrong, a run ends with a report. What fails before the snapshot is there fails the run, and nothing is published; what
//! fails behind it is told, and makes the run partial. Where the snapshot is not what was expected of it, nothing is forgotten either.

mod behind;
mod hooks;
mod limited;
mod lock;
mod members;
mod preview;
mod said;
mod secrets;
mod tables;
mod verify;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::compression::Level;
use crate::config::{FetchSecret, Job, What};
use crate::error::{Error, Result};
use crate::format::dump::Verdict;
use crate::format::report::{Did, Outcome, Report, Run, Step, Stream};
use crate::ops::backup::{BackupOptions, BackupReport, Input, backup};
use crate::ops::overheard::Overheard;
use crate::ops::receipt::Receipts;
use crate::ops::streams::dump_of;
use crate::progress::Progress;
use crate::repo::Repository;
use crate::source::{Patience, Sink};
use hooks::Hook;
use limited::Limited;
pub use preview::{Preview, preview};
use said::Said;

/// What is not of the job, but of this host and this run.
pub struct RunOptions {
    pub host: String,
    pub user: String,
    /// Folder of this host's state, for locks and receipts.
    pub state: Option<PathBuf>,
    /// Where days and weeks begin as they do here.
    pub zone: TimeZone,
    pub level: Level,
    pub secrets: FetchSecret,
    /// What a hook behind the backup may take where the job has no time-out.
    pub hook_time: Duration,
    /// The exit code and the message of an error.
    pub tell: fn(&Error) -> (u8, String),
    /// Set when the user asks to stop.
    pub interrupted: Arc<AtomicBool>,
}

/// Looks on at a run: shows it, and tells others.
pub trait Observer {
    /// It begins: it has its lock, and nothing was done.
    fn begun(&self, _report: &Report) {}
    /// It is over, but for the report, which is stored next. What is returned is added to its warnings.
    fn ended(&self, _report: &Report) -> Vec<String> {
        Vec::new()
    }
    /// Gets what the command of a stream or step says.
    fn said(&self, _name: &str) -> Sink {
        Box::new(|_| {})
    }
    /// The job is waiting for another run of it to end.
    fn waiting(&self, _job: &str) {}
}

/// What a run did.
pub struct Ran {
    pub report: Report,
    /// What made it fail.
    pub error: Option<Error>,
    pub backup: Option<BackupReport>,
}

/// A report of a run that is only beginning.
pub fn blank(job: &str, options: &RunOptions, time: Timestamp) -> Report {
    let run = Run { job: job.into(), ..Run::default() };
    Report::new(time, options.host.clone(), options.user.clone(), Did::Run(run))
}

/// The report of a run for which there was not even a repository.
pub fn not_begun(job: &str, options: &RunOptions, time: Timestamp, error: &Error) -> Report {
    let (exit_code, message) = (options.tell)(error);
    Report { outcome: Outcome::Failed, error: Some(message), exit_code, ..blank(job, options, time) }
}

/// Runs a job.
pub fn run(repository: &Repository, job: &Job, options: &RunOptions, observer: &dyn Observer, progress: &dyn Progress) -> Ran {
    let time = repository.world().now();
    let mut course = Course {
        repository,
        job,
        options,
        observer,
        progress: Limited { inner: progress, until: None },
        report: blank(&job.name, options, time),
        run: Run { job: job.name.clone(), ..Run::default() },
        begun: Instant::now(),
        said: Vec::new(),
        overheard: Overheard::default(),
        backup: None,
        trouble: None,
        is_doubtful: false,
        _lock: None,
    };
    let error = course.all().err();
    course.end(error)
}

/// A run under way.
struct Course<'a> {
    repository: &'a Repository,
    job: &'a Job,
    options: &'a RunOptions,
    observer: &'a dyn Observer,
    progress: Limited<'a>,
    report: Report,
    /// The report's own, until it is put there.
    run: Run,
    begun: Instant,
    /// What the commands of the streams say.
    said: Vec<Arc<Said>>,
    /// What of that sounds like trouble, with secrets blotted out.
    overheard: Overheard,
    backup: Option<BackupReport>,
    /// What went wrong after the snapshot was saved: the worst exit code, and the first thing there is to say.
    trouble: Option<(u8, String)>,
    /// What was saved is not what it should be: nothing older is to go.
    is_doubtful: bool,
    /// Held to the end.
    _lock: Option<lock::Lock>,
}

impl Course<'_> {
    fn all(&mut self) -> Result<()> {
        let job = self.job;
        if self.options.state.is_none() && job.overlap == Default::default() {
            self.warn("there is no folder for this host's state: two runs of this job at once would not be noticed".into());
        }
        self._lock = lock::take(self.repository, job, self.options, self.observer, &self.progress)?;
        self.begun = Instant::now();
        self.progress.until = job.timeout.map(|total| (self.begun + total, total));
        self.observer.begun(&self.so_far());
        let saved = self.save();
        if job.hooks.after.is_some() {
            // Whatever happened: it undoes what was done before.
            self.after(Hook::After);
        }
        saved?;
        self.verify()?;
        if self.is_doubtful {
            if !job.keep.is_empty() {
                self.warn("nothing was forgotten, since this run did not go well".into());
            }
            return Ok(());
        }
        self.forget()?;
        self.prune()
    }

    /// Everything up to the snapshot.
    fn save(&mut self) -> Result<()> {
        if self.job.hooks.before.is_some() {
            self.step("before", |course| course.hook(Hook::Before))?;
        }
        for source in &self.job.sources {
            if let What::Files { before: Some(command), .. } = &source.what {
                let name = if command.name.is_empty() { "export" } else { &command.name };
                let said = self.listen(name);
                self.step(&format!("before {name}"), |course| {
                    let setting = secrets::setting(command, course.patience(None), course.options, &said);
                    hooks::run(name, &command.line, setting, said.sink(), &course.options.interrupted)
                })?;
            }
        }
        let report = self.step("backup", Self::back_up);
        self.note_streams(report.as_ref().ok());
        let report = report?;
        if report.totals.flawed > 0 {
            let paths = if report.totals.flawed == 1 { "path" } else { "paths" };
            self.trouble(3, format!("{} {paths} could not be read, or not wholly", report.totals.flawed));
        }
        let unmet: Vec<String> = report.parts.iter().flat_map(|(part, _)| part.unmet.clone()).collect();
        self.is_doubtful |= !unmet.is_empty();
        unmet.into_iter().for_each(|unmet| self.trouble(4, unmet));
        for dump in report.dumps.iter().filter(|dump| dump.verdict == Verdict::Incomplete) {
            // Of a file, perhaps an old one, it says nothing of this night.
            self.is_doubtful |= report.parts.iter().any(|(part, _)| part.gives(dump));
            self.trouble(4, format!("{} is INCOMPLETE: {}", dump.path, dump.why));
        }
        self.overheard.lines().iter().for_each(|line| self.warn(format!("a command said: {line}")));
        self.backup = Some(report);
        Ok(())
    }

    fn back_up(&mut self) -> Result<BackupReport> {
        let job = self.job;
        let mut members = Vec::new();
        for source in &job.sources {
            members.push(members::member(source, self)?);
        }
        let options = BackupOptions {
            user: self.options.user.clone(),
            name: Some(job.name.clone()),
            tags: job.tags.clone(),
            level: self.options.level,
            interrupted: self.options.interrupted.clone(),
            ..BackupOptions::new(&self.options.host)
        };
        backup(self.repository, Input::Several(members), &options, &self.progress)
    }

    /// Puts down what came of the streams, or what the commands said if nothing did.
    fn note_streams(&mut self, report: Option<&BackupReport>) {
        let said = |name: &str| self.said.iter().rev().find(|said| said.name == name).map(|said| said.tail()).unwrap_or_default();
        self.run.streams = match report {
            Some(report) => {
                let stream = |(part, time): &(crate::format::snapshot::Part, f64)| Stream {
                    name: part.name.clone(),
                    bytes: part.bytes,
                    seconds: rounded(*time),
                    dump: dump_of(&report.dumps, part.name.trim_start_matches('/').as_bytes()).map(|dump| serde_json::json!(dump)),
                    said: said(&part.name),
                };
                report.parts.iter().map(stream).collect()
            }
            None => {
                let names = self.said.iter().map(|said| said.name.clone());
                names.map(|name| Stream { said: said(&name), name, ..Stream::default() }).filter(|stream| !stream.said.is_empty()).collect()
            }
        };
        if let Some(report) = report {
            self.run.snapshot = report.snapshot;
            self.run.bytes = report.totals.bytes;
            self.run.bytes_stored = report.totals.bytes_stored;
        }
    }

    /// Judges, lets the hooks run, and stores the report.
    fn end(mut self, error: Option<Error>) -> Ran {
        let error = error.map(|error| self.progress.explain(error));
        let (outcome, exit_code, message) = match (&error, &self.trouble) {
            (Some(error), _) => {
                let (code, message) = (self.options.tell)(error);
                let outcome = if self.run.snapshot.is_some() { Outcome::Partial } else { Outcome::Failed };
                (outcome, code, Some(message))
            }
            (None, Some((20, message))) => (Outcome::Failed, 20, Some(message.clone())),
            (None, Some((code, message))) => (Outcome::Partial, *code, Some(message.clone())),
            (None, None) => (Outcome::Good, 0, None),
        };
        (self.report.outcome, self.report.exit_code, self.report.error) = (outcome, exit_code, message);
        self.after(if outcome == Outcome::Good { Hook::OnSuccess } else { Hook::OnFailure });
        if let Some(state) = &self.options.state
            && self.run.snapshot.is_some()
            && let Err(error) = Receipts::new(state.clone()).note(self.repository)
        {
            let (_, message) = (self.options.tell)(&error);
            self.warn(format!("What the repository holds now could not be noted on this host: {message}"));
        }
        let mut report = self.so_far();
        report.warnings.extend(self.observer.ended(&report));
        if let Err(error) = self.repository.save_report(&report) {
            let (code, message) = (self.options.tell)(&error);
            report.warnings.push(format!("The report of this run could not be stored: {message}"));
            if report.exit_code == 0 {
                (report.outcome, report.exit_code) = (Outcome::Partial, code.max(3));
            }
        }
        Ran { report, error, backup: self.backup }
    }

    fn step<T>(&mut self, name: &str, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.progress.interrupted() {
            return Err(self.progress.explain(Error::Interrupted));
        }
        let begun = Instant::now();
        let result = work(self).map_err(|error| self.tell_tail(self.progress.explain(error)));
        let error = result.as_ref().err().map(|error| (self.options.tell)(error).1);
        self.run.steps.push(Step { name: name.into(), seconds: seconds(begun), error });
        result
    }

    /// A hook behind the backup: its failure is a warning.
    fn after(&mut self, hook: Hook) {
        if hook.line(&self.job.hooks).is_none() {
            return;
        }
        let begun = Instant::now();
        let error = self.hook(hook).err().map(|error| match error {
            // Here, that does not mean that nothing was saved.
            Error::Command { program, outcome, .. } => format!("{program} {outcome}"),
            error => (self.options.tell)(&error).1,
        });
        if let Some(error) = &error {
            self.warn(error.clone());
        }
        self.run.steps.push(Step { name: hook.name().into(), seconds: seconds(begun), error });
    }

    fn hook(&mut self, hook: Hook) -> Result<()> {
        let Some(line) = hook.line(&self.job.hooks) else { return Ok(()) };
        let said = self.listen(hook.name());
        let patience = match hook {
            Hook::Before => self.patience(None),
            // It has the whole time for itself: what was stopped must be started again. But there is an end: report and messages wait.
            _ => {
                let total = self.job.timeout.unwrap_or(self.options.hook_time);
                Patience { until: Some((Instant::now() + total, total)), stall: None }
            }
        };
        // Whoever asks to stop does not mean that what was stopped shall stay so.
        let never = AtomicBool::new(false);
        let interrupted = if hook == Hook::Before { &*self.options.interrupted } else { &never };
        let setting = hooks::setting(&self.so_far(), patience);
        hooks::run(hook.name(), line, setting, said.sink(), interrupted)
    }

    fn patience(&self, stall: Option<Duration>) -> Patience {
        Patience { until: self.progress.until, stall }
    }

    /// Listens to a command, for the report and for whoever looks on.
    fn listen(&mut self, name: &str) -> Arc<Said> {
        self.listen_with(name, self.observer.said(name))
    }

    /// The same for a stream, of which also is told what it says and ends well nevertheless.
    fn listen_closely(&mut self, name: &str) -> Arc<Said> {
        // Behind the blotting: a warning goes further than the lines that somebody sees who looks on.
        self.listen_with(name, self.overheard.listen(self.observer.said(name)))
    }

    fn listen_with(&mut self, name: &str, next: Sink) -> Arc<Said> {
        let said = Arc::new(Said::new(name, next));
        self.said.push(said.clone());
        said
    }

    /// The error with what the failed command said, without secrets.
    fn tell_tail(&self, error: Error) -> Error {
        match error {
            Error::Command { program, outcome, .. } => {
                let said = self.said.iter().find(|said| program.strip_prefix(&*said.name).is_some_and(|rest| rest.starts_with(": ")));
                let stderr_tail = said.map(|said| said.tail().into_bytes()).unwrap_or_default();
                Error::Command { program, outcome, stderr_tail }
            }
            other => other,
        }
    }

    fn trouble(&mut self, code: u8, message: String) {
        let (code, first) = match self.trouble.take() {
            Some((before, first)) => {
                self.warn(message);
                (before.max(code), first)
            }
            None => (code, message),
        };
        self.trouble = Some((code, first));
    }

    fn warn(&mut self, warning: String) {
        self.report.warnings.push(warning);
    }

    fn so_far(&self) -> Report {
        Report { seconds: seconds(self.begun), did: Did::Run(self.run.clone()), ..self.report.clone() }
    }
}

/// Seconds since then, to the thousandth: what is stored is read back the same.
fn seconds(begun: Instant) -> f64 {
    rounded(begun.elapsed().as_secs_f64())
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}
