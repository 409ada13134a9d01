//! Progress: a bar on a terminal, a JSON line a second with --json, problems always, nothing else with -q.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::context::Context;
use super::output::{self, Cleaner};
use crate::error::{Result, show, show_bytes};
use crate::progress::{Problem, Progress, Stage};
use crate::source::Sink;

const JSON_INTERVAL: Duration = Duration::from_secs(1);
const BAR_INTERVAL: Duration = Duration::from_millis(100);
/// Where an expected amount is not known.
const UNKNOWN: u64 = u64::MAX;

/// Where JSON lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    Stdout,
    /// Standard output, and problems too without JSON: they are what was asked for.
    Findings,
    /// Standard output holds data.
    Stderr,
}

/// Reports one operation, until it is dropped.
pub struct Reporter {
    shared: Arc<Shared>,
    ticker: Option<JoinHandle<()>>,
}

struct Shared {
    channel: Channel,
    json: bool,
    bar: Option<ProgressBar>,
    verbose: u8,
    quiet: bool,
    begun: Instant,
    bytes: AtomicU64,
    bytes_expected: AtomicU64,
    files: AtomicU64,
    files_expected: AtomicU64,
    problems: AtomicU64,
    interrupted: Arc<AtomicBool>,
    ended: Mutex<bool>,
    end: Condvar,
}

impl Reporter {
    pub fn start(context: &Context, channel: Channel) -> Self {
        let options = &context.options;
        // Data on a terminal and a bar would write over each other.
        let shares_terminal = channel == Channel::Stderr && std::io::stdout().is_terminal();
        let wants_bar = !options.json && !options.quiet && std::io::stderr().is_terminal() && !shares_terminal;
        let shared = Arc::new(Shared {
            channel,
            json: options.json,
            bar: wants_bar.then(new_bar),
            verbose: options.verbose,
            quiet: options.quiet,
            begun: Instant::now(),
            bytes: AtomicU64::new(0),
            bytes_expected: AtomicU64::new(UNKNOWN),
            files: AtomicU64::new(0),
            files_expected: AtomicU64::new(UNKNOWN),
            problems: AtomicU64::new(0),
            interrupted: context.signals.interrupted(),
            ended: Mutex::new(false),
            end: Condvar::new(),
        });
        let wants_status = options.json && !options.quiet && channel != Channel::Stderr;
        let ticker = wants_status.then(|| {
            let shared = shared.clone();
            std::thread::spawn(move || shared.tick())
        });
        Self { shared, ticker }
    }

    /// Plain bytes worked on in the last stage.
    pub fn bytes_done(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Prints a line to standard output without disturbing the bar.
    pub fn say(&self, line: &str) -> Result<()> {
        let mut outcome = Ok(());
        self.shared.without_bar(|| outcome = output::print(line));
        outcome
    }

    /// Prints to standard error without disturbing the bar.
    pub fn say_error(&self, text: &str) {
        self.shared.above_bar(text);
    }

    /// Passes on what a command says, harmless for a terminal; not with --json or -q.
    pub fn stderr_sink(&self) -> Sink {
        let shared = self.shared.clone();
        let mut cleaner = Cleaner::default();
        match shared.json || shared.quiet {
            true => Box::new(|_| {}),
            false => Box::new(move |piece| shared.above_bar(&cleaner.clean(piece))),
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        *self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.end.notify_all();
        if let Some(ticker) = self.ticker.take() {
            let _ = ticker.join();
        }
        if let Some(bar) = &self.shared.bar {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Reporter {
    fn stage(&self, stage: Stage, bytes: Option<u64>, files: Option<u64>) {
        let shared = &self.shared;
        shared.bytes.store(0, Ordering::Relaxed);
        shared.files.store(0, Ordering::Relaxed);
        shared.bytes_expected.store(bytes.unwrap_or(UNKNOWN), Ordering::Relaxed);
        shared.files_expected.store(files.unwrap_or(UNKNOWN), Ordering::Relaxed);
        if let Some(bar) = &shared.bar {
            bar.reset();
            match bytes {
                Some(bytes) => bar.set_length(bytes),
                None => bar.unset_length(),
            }
            bar.set_style(style(bytes.is_some()));
            bar.set_prefix(name(stage));
            bar.set_message("");
        }
    }

    fn bytes(&self, count: u64) {
        self.shared.bytes.fetch_add(count, Ordering::Relaxed);
        if let Some(bar) = &self.shared.bar {
            bar.inc(count);
        }
    }

    fn files(&self, count: u64) {
        self.shared.files.fetch_add(count, Ordering::Relaxed);
    }

    fn at(&self, path: &Path) {
        let shared = &self.shared;
        if let Some(bar) = &shared.bar {
            bar.set_message(show(path));
        }
        match shared.json {
            _ if shared.verbose < 2 => {}
            true => shared.json_line(&json!({ "message_type": "verbose_status", "action": "at", "item": show(path) })),
            false => shared.above_bar(&format!("{}\n", show(path))),
        }
    }

    fn problem(&self, problem: &Problem) {
        let shared = &self.shared;
        shared.problems.fetch_add(1, Ordering::Relaxed);
        let (item, message) = (show_bytes(&problem.subject), output::without_numbers(&problem.message));
        let line = format!("{item}: {}", output::harmless(&message));
        match shared.channel {
            _ if shared.json => shared.json_line(&json!({ "message_type": "error", "item": item, "message": message })),
            // The summary, which comes last, will see it too if nobody listens.
            Channel::Findings => shared.without_bar(|| drop(output::print(&line))),
            _ => shared.above_bar(&format!("snap: {line}\n")),
        }
    }

    fn interrupted(&self) -> bool {
        self.shared.interrupted.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// A status line a second until the end.
    fn tick(&self) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let waited = self.end.wait_timeout_while(ended, JSON_INTERVAL, |ended| !*ended);
            (ended, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if *ended {
                return;
            }
            self.json_line(&self.status());
        }
    }

    fn status(&self) -> serde_json::Value {
        let known = |value: &AtomicU64| Some(value.load(Ordering::Relaxed)).filter(|value| *value != UNKNOWN);
        let bytes = self.bytes.load(Ordering::Relaxed);
        let mut status = json!({
            "message_type": "status",
            "seconds_elapsed": self.begun.elapsed().as_secs(),
            "bytes_done": bytes,
            "files_done": self.files.load(Ordering::Relaxed),
            "error_count": self.problems.load(Ordering::Relaxed),
        });
        if let Some(expected) = known(&self.bytes_expected) {
            status["total_bytes"] = expected.into();
            status["percent_done"] = json!(if expected == 0 { 1.0 } else { (bytes as f64 / expected as f64).min(1.0) });
        }
        if let Some(expected) = known(&self.files_expected) {
            status["total_files"] = expected.into();
        }
        status
    }

    /// Nobody can be told if it fails; the summary, which comes last, will see it too.
    fn json_line(&self, value: &serde_json::Value) {
        match self.channel {
            Channel::Stderr => output::complain_as_is(&format!("{value}\n")),
            _ => drop(output::print_json(value)),
        }
    }

    /// Prints to standard error without disturbing the bar.
    fn above_bar(&self, text: &str) {
        self.without_bar(|| {
            let mut stderr = std::io::stderr().lock();
            let _ = stderr.write_all(text.as_bytes());
            // The bar begins its own line.
            if self.bar.is_some() && !text.ends_with('\n') {
                let _ = stderr.write_all(b"\n");
            }
        });
    }

    fn without_bar(&self, print: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

fn new_bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_style(style(false));
    bar.set_prefix(name(Stage::Opening));
    bar.enable_steady_tick(BAR_INTERVAL);
    bar
}

fn style(is_length_known: bool) -> ProgressStyle {
    let template = match is_length_known {
        true => "{prefix} [{wide_bar}] {percent:>3}% {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} left",
        false => "{spinner} {prefix} {binary_bytes} in {elapsed} ({binary_bytes_per_sec}) {wide_msg}",
    };
    ProgressStyle::with_template(template).expect("the template is well-formed").progress_chars("=> ")
}

fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Opening => "opening",
        Stage::BackingUp => "backing up",
        Stage::Planning => "planning",
        Stage::Copying => "copying",
        Stage::Restoring => "restoring",
        Stage::Rewriting => "rewriting",
        Stage::Deleting => "deleting",
        Stage::CheckingStructure => "checking structure",
        Stage::CheckingData => "checking data",
        Stage::Repairing => "repairing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::context::{Environment, Options};
    use crate::cli::signals::Signals;

    #[test]
    fn status_says_what_is_known() {
        let context = Context::new(Options::default(), Environment::of(&[]), Signals::watch());
        let reporter = Reporter::start(&context, Channel::Stdout);
        reporter.bytes(5);
        assert_eq!(reporter.shared.status().get("percent_done"), None);
        reporter.stage(Stage::Restoring, Some(200), Some(3));
        reporter.bytes(50);
        reporter.files(1);
        let status = reporter.shared.status();
        assert_eq!((&status["percent_done"], &status["bytes_done"], &status["total_bytes"]), (&json!(0.25), &json!(50), &json!(200)));
        assert_eq!((&status["files_done"], &status["total_files"]), (&json!(1), &json!(3)));
    }

    #[test]
    fn styles_are_well_formed() {
        style(true);
        style(false);
    }
}
