//! The output of a command as one entry of a snapshot.
//!
//! There is no shell in between. The command runs in a process group of its own, so that the terminal's Ctrl-C reaches only
//! us and we can end it with all its descendants (but for those that left the group). It sees none of our secrets in its
//! environment. Its stream counts only when it exits with success, which is known only after the last byte: a failure is the
//! error of the last `fill`, and the backup must save nothing before it.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use rustix::process::Signal;
use zeroize::Zeroizing;

use super::several::of_stream;
use super::started::{Sink, Started};
use super::{More, Patience, Slab, Source, StreamSource};
use crate::error::{Error, Result, show_bytes};
use crate::format::entry::Meta;

/// Variables whose names begin so hold our secrets.
pub const SECRET_PREFIXES: [&[u8]; 6] =
    [b"SNAP_PASSWORD", b"SNAP_KEY", b"SNAP_NEW_PASSWORD", b"SNAP_NEW_KEY", b"SNAP_FROM_PASSWORD", b"SNAP_FROM_KEY"];

/// A program and what it is given; no shell sees it.
#[derive(Clone, Debug)]
pub struct CommandLine {
    pub program: OsString,
    pub args: Vec<OsString>,
}

/// Gives variables whose values are secrets. Asked once, just before the command is started.
pub type SecretVariables = Box<dyn FnOnce() -> Result<Vec<(String, Zeroizing<Vec<u8>>)>> + Send>;

/// What a command gets besides its line, and how long we wait for it.
#[derive(Default)]
pub struct Setting {
    /// Set beside what is inherited.
    pub variables: Vec<(String, String)>,
    pub secrets: Option<SecretVariables>,
    pub patience: Patience,
    /// What it finds on its standard input. Only for commands that are there for what they do; the others find nothing.
    pub input: Option<Vec<u8>>,
}

/// Runs a command, from the first `fill` on, and reads its standard output.
///
/// Dropped early, it ends the command: SIGTERM, and after two seconds SIGKILL, to the whole process group.
pub struct CommandSource {
    /// Until the command is started.
    waiting: Option<(Vec<u8>, Meta, Sink)>,
    /// What it is called in errors, in front of the program.
    called: Option<String>,
    line: CommandLine,
    setting: Setting,
    interrupted: Arc<AtomicBool>,
    running: Option<(Started, StreamSource)>,
}

impl CommandSource {
    /// The command's output as an entry `name`, which stops soon after `interrupted` becomes true.
    pub fn new(name: Vec<u8>, meta: Meta, line: CommandLine, stderr: Sink, interrupted: Arc<AtomicBool>) -> Self {
        Self { waiting: Some((name, meta, stderr)), called: None, line, setting: Setting::default(), interrupted, running: None }
    }

    /// The same with variables of its own, and an end to our patience.
    pub fn with_setting(self, setting: Setting) -> Self {
        Self { setting, ..self }
    }

    /// The same, and its errors say of which stream they are.
    pub fn named(self, name: String) -> Self {
        Self { called: Some(name), ..self }
    }

    fn fill_more(&mut self, slab: &mut Slab) -> Result<More> {
        if let Some((name, meta, stderr)) = self.waiting.take() {
            self.running = Some(self.start(name, meta, stderr)?);
        }
        let Some((started, mut output)) = self.running.take() else { return Ok(More::No) };
        match output.fill(slab) {
            Ok(More::Yes) => {
                self.running = Some((started, output));
                Ok(More::Yes)
            }
            Ok(More::No) => {
                finish(started, &self.line, &self.interrupted, &self.setting.patience)?;
                Ok(More::No)
            }
            Err(Error::TimedOut(outcome)) => Err(give_up(started, &self.line, outcome)),
            Err(error) => Err(error),
        }
    }

    fn start(&mut self, name: Vec<u8>, meta: Meta, stderr: Sink) -> Result<(Started, StreamSource)> {
        let patience = self.setting.patience;
        let mut command = prepare(&self.line, &mut self.setting)?;
        let mut started = Started::new(&mut command).map_err(|error| not_started(&self.line, &error))?;
        let stdout = started.child.stdout.take().expect("standard output is piped");
        let pipe = started.child.stderr.take().expect("standard error is piped");
        started.listen(pipe, stderr);
        let output = StreamSource::from_fd(name, stdout.into(), meta, self.interrupted.clone()).with_patience(patience);
        Ok((started, output))
    }
}

impl Source for CommandSource {
    fn fill(&mut self, slab: &mut Slab) -> Result<More> {
        self.fill_more(slab).map_err(|error| match &self.called {
            Some(name) => of_stream(name, error),
            None => error,
        })
    }
}

/// Runs a command that is there for what it does. What it says, on both of its outputs, goes to `said`.
pub fn run_command(line: &CommandLine, mut setting: Setting, said: Sink, interrupted: &AtomicBool) -> Result<()> {
    let patience = setting.patience;
    let mut command = prepare(line, &mut setting)?;
    let no_pipe = |error| Error::file("make", "a pipe", error);
    let (reader, writer) = std::io::pipe().map_err(no_pipe)?;
    command.stdout(writer.try_clone().map_err(no_pipe)?).stderr(writer);
    let input = setting.input.take();
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut started = Started::new(&mut command).map_err(|error| not_started(line, &error))?;
    // It holds the writing ends, too.
    drop(command);
    if let (Some(bytes), Some(mut pipe)) = (input, started.child.stdin.take()) {
        // Whoever does not read it may end nevertheless.
        std::thread::spawn(move || pipe.write_all(&bytes));
    }
    started.listen(reader, said);
    finish(started, line, interrupted, &patience)
}

/// The command with all its variables, but for its outputs.
pub(super) fn prepare(line: &CommandLine, setting: &mut Setting) -> Result<Command> {
    let inherited = std::env::vars_os().map(|(name, _)| name);
    let mut command = command(line, inherited);
    command.envs(setting.variables.drain(..));
    if let Some(secrets) = setting.secrets.take() {
        for (name, value) in secrets()? {
            command.env(name, OsStr::from_bytes(&value));
        }
    }
    Ok(command)
}

fn not_started(line: &CommandLine, error: &std::io::Error) -> Error {
    failure(line, format!("could not be started: {error}"), Vec::new())
}

fn failure(line: &CommandLine, outcome: String, stderr_tail: Vec<u8>) -> Error {
    Error::Command { program: show_bytes(line.program.as_bytes()), outcome, stderr_tail }
}

/// The command without our secrets among the variables it inherits.
fn command(line: &CommandLine, variables: impl Iterator<Item = OsString>) -> Command {
    let mut command = Command::new(&line.program);
    command.args(&line.args).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let is_secret = |name: &OsString| SECRET_PREFIXES.iter().any(|prefix| name.as_bytes().starts_with(prefix));
    for name in variables.filter(is_secret) {
        command.env_remove(name);
    }
    command
}

/// A command that sees neither our secrets nor variables whose names begin in one of these ways; its input is empty, its outputs are pipes.
pub fn bare_command(line: &CommandLine, without: &[&str]) -> Command {
    let names = || std::env::vars_os().map(|(name, _)| name);
    let mut command = command(line, names());
    for name in names().filter(|name| without.iter().any(|prefix| name.as_bytes().starts_with(prefix.as_bytes()))) {
        command.env_remove(name);
    }
    command
}

/// How a failed command ended, as the rest of a sentence.
pub fn how_it_ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => match signal_name(signal) {
            Some(name) => format!("was killed by signal {signal} ({name})"),
            None => format!("was killed by signal {signal}"),
        },
        (None, None) => format!("ended with {status}"),
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    let names = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::USR2, "SIGUSR2"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::TERM, "SIGTERM"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::XFSZ, "SIGXFSZ"),
        (Signal::SYS, "SIGSYS"),
    ];
    names.iter().find(|(known, _)| known.as_raw() == signal).map(|(_, name)| *name)
}

/// Waits for the end of a command, and judges it.
fn finish(mut started: Started, line: &CommandLine, interrupted: &AtomicBool, patience: &Patience) -> Result<()> {
    let since = Instant::now();
    let status = match started.wait(interrupted, |_| patience.check(since)) {
        Err(Error::TimedOut(outcome)) => return Err(give_up(started, line, outcome)),
        status => status?,
    };
    let stderr_tail = started.last_words();
    match status.success() {
        true => Ok(()),
        false => Err(failure(line, how_it_ended(status), stderr_tail)),
    }
}

/// Ends a command that took too long.
fn give_up(mut started: Started, line: &CommandLine, outcome: String) -> Error {
    started.end();
    failure(line, outcome, started.last_words())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use super::super::Event;
    use super::super::testing::{Found, drain, summary};
    use super::*;
    use crate::limits::STDERR_TAIL_BYTES;

    fn shell(script: &str) -> (CommandSource, Arc<Mutex<Vec<u8>>>, Arc<AtomicBool>) {
        let line = CommandLine { program: "sh".into(), args: vec!["-c".into(), script.into()] };
        let said = Arc::new(Mutex::new(Vec::new()));
        let sink = said.clone();
        let interrupted = Arc::new(AtomicBool::new(false));
        let stderr = Box::new(move |bytes: &[u8]| sink.lock().unwrap().extend_from_slice(bytes));
        (CommandSource::new(b"out".to_vec(), Meta::default(), line, stderr, interrupted.clone()), said, interrupted)
    }

    fn run(script: &str) -> Result<Vec<Found>> {
        drain(&mut shell(script).0, 4096)
    }

    fn is_alive(pid: &str) -> bool {
        // A zombie is dead; who reaps it is not our business.
        std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|stat| !stat.contains(") Z "))
    }

    #[test]
    fn output_and_errors_are_kept_apart() {
        let (mut source, said, _) = shell("echo warning >&2; seq 1 5000; cat");
        let found = drain(&mut source, 4096).unwrap();
        assert_eq!(summary(&found), ["- out 23893 None"]);
        assert!(found[0].bytes.ends_with(b"\n4999\n5000\n"));
        assert_eq!(*said.lock().unwrap(), b"warning\n");
    }

    #[test]
    fn failures_say_what_happened() {
        for (script, expected) in [
            ("echo half; exit 3", "sh exited with code 3, no snapshot was saved"),
            ("exec >&-; sleep 0.1; exit 1", "sh exited with code 1, no snapshot was saved"),
            ("echo half; kill -9 $$", "sh was killed by signal 9 (SIGKILL), no snapshot was saved"),
        ] {
            assert_eq!(run(script).unwrap_err().to_string(), expected);
        }
        let line = CommandLine { program: "/no-such\x1bprogram".into(), args: Vec::new() };
        let mut source = CommandSource::new(b"out".to_vec(), Meta::default(), line, Box::new(|_| {}), Arc::default());
        let message = drain(&mut source, 4096).unwrap_err().to_string();
        assert!(message.starts_with("/no-such\\u{1b}program could not be started: No such file"), "{message}");
    }

    #[test]
    fn the_end_of_what_it_said_is_kept() {
        let (mut source, said, _) = shell("seq 1 20000 >&2; echo last words >&2; exit 1");
        let Err(Error::Command { stderr_tail, .. }) = drain(&mut source, 4096) else { panic!() };
        assert_eq!(stderr_tail.len(), STDERR_TAIL_BYTES);
        assert!(stderr_tail.ends_with(b"20000\nlast words\n"));
        assert!(said.lock().unwrap().starts_with(b"1\n2\n3\n"));
    }

    #[test]
    fn a_descendant_that_keeps_standard_error_open_does_not_hold_us_up() {
        let (mut source, _, _) = shell("sleep 60 >&- & echo $!");
        let found = drain(&mut source, 4096).unwrap();
        let pid = String::from_utf8(found[0].bytes.clone()).unwrap();
        assert!(is_alive(&pid), "a successful command's children are left alone");
        let _ = Command::new("kill").arg(pid.trim()).status();
    }

    #[test]
    fn dropping_it_ends_the_command_and_its_descendants() {
        for script in [
            "sleep 60 & echo $! ........; wait",
            "echo $$ ........; kill -STOP $$",
            "sleep 60 & echo $! ........; exec sleep 60",
            "trap '' TERM; echo $$ ........; while :; do sleep 0.1; done",
        ] {
            let (mut source, _, _) = shell(script);
            let mut slab = Slab::new(8);
            assert_eq!(source.fill(&mut slab).unwrap(), More::Yes);
            let Some(Event::Bytes { range }) = slab.events.last() else { panic!("{:?}", slab.events) };
            let line = String::from_utf8(slab.bytes[range.clone()].to_vec()).unwrap();
            let pid = line.split(' ').next().unwrap();
            assert!(is_alive(pid), "{script}");
            drop(source);
            assert!(!is_alive(pid), "{script}");
        }
    }

    #[test]
    fn an_interrupt_ends_it() {
        let (mut source, _, interrupted) = shell("sleep 60");
        interrupted.store(true, Ordering::Relaxed);
        assert!(matches!(drain(&mut source, 4096), Err(Error::Interrupted)));
        let (mut source, _, interrupted) = shell("exec >&-; sleep 60");
        let thread = std::thread::spawn(move || drain(&mut source, 4096));
        interrupted.store(true, Ordering::Relaxed);
        assert!(matches!(thread.join().unwrap(), Err(Error::Interrupted)));
    }

    #[test]
    fn secrets_are_not_passed_on() {
        let line = CommandLine { program: "true".into(), args: Vec::new() };
        let names =
            ["SNAP_PASSWORD", "SNAP_PASSWORD_FILE", "PATH", "SNAP_KEY_FILE", "SNAP_REPOSITORY", "SNAP_NEW_PASSWORD", "SNAP_FROM_KEY_FILE"];
        let command = command(&line, names.iter().map(OsString::from));
        let removed: Vec<_> = command.get_envs().map(|(name, value)| (name.to_str().unwrap(), value)).collect();
        assert_eq!(
            removed,
            ["SNAP_FROM_KEY_FILE", "SNAP_KEY_FILE", "SNAP_NEW_PASSWORD", "SNAP_PASSWORD", "SNAP_PASSWORD_FILE"].map(|name| (name, None))
        );
    }

    fn patient(script: &str, setting: Setting) -> Result<Vec<Found>> {
        drain(&mut shell(script).0.with_setting(setting), 4096)
    }

    #[test]
    fn patience_has_an_end() {
        let time = Duration::from_secs(2);
        let stall = || Patience { stall: Some(time), until: None };
        let until = || Patience { until: Some((Instant::now() + time, time)), stall: None };
        for (script, patience, expected) in [
            ("echo no space left >&2; seq 1 10; sleep 60", stall(), "sh said nothing for 2 s (stall timeout), and was stopped"),
            ("echo no space left >&2; exec >&-; sleep 60", stall(), "sh said nothing for 2 s (stall timeout), and was stopped"),
            (
                "echo no space left >&2; while :; do echo x; sleep 0.05; done",
                until(),
                "sh had not ended after 2 s (timeout), and was stopped",
            ),
        ] {
            let patience = if patience.until.is_some() { until() } else { patience };
            let error = patient(script, Setting { patience, ..Setting::default() }).unwrap_err();
            assert!(error.to_string().starts_with(expected), "{script}: {error}");
            let Error::Command { stderr_tail, .. } = error else { panic!() };
            assert_eq!(stderr_tail, b"no space left\n", "{script}");
        }
        // Slow, but it goes on.
        let slow = Patience { stall: Some(Duration::from_secs(20)), until: None };
        assert_eq!(patient("echo a; sleep 0.3; echo b", Setting { patience: slow, ..Setting::default() }).unwrap()[0].bytes, b"a\nb\n");
    }

    #[test]
    fn a_command_that_took_too_long_is_ended_with_its_descendants() {
        let pid = tempfile::NamedTempFile::new().unwrap();
        let script = format!("trap '' TERM; sleep 60 & echo $! > {}; wait; sleep 60", pid.path().display());
        let patience = Patience { stall: Some(Duration::from_secs(2)), until: None };
        patient(&script, Setting { patience, ..Setting::default() }).unwrap_err();
        assert!(!is_alive(&std::fs::read_to_string(pid.path()).unwrap()));
    }

    #[test]
    fn variables_are_set_and_secrets_fetched_at_the_start() {
        let fetched = Arc::new(AtomicBool::new(false));
        let seen = fetched.clone();
        let secrets: SecretVariables = Box::new(move || {
            seen.store(true, Ordering::SeqCst);
            Ok(vec![("PGPASSWORD".into(), Zeroizing::new(b"x y\xff".to_vec()))])
        });
        let setting = Setting { variables: vec![("PGHOST".into(), "db".into())], secrets: Some(secrets), ..Setting::default() };
        let (source, _, _) = shell("printf '%s %s' \"$PGHOST\" \"$PGPASSWORD\"");
        let mut source = source.with_setting(setting);
        assert!(!fetched.load(Ordering::SeqCst));
        assert_eq!(drain(&mut source, 64).unwrap()[0].bytes, b"db x y\xff");
        // What cannot be fetched keeps it from being started.
        let secrets: SecretVariables = Box::new(|| Err(Error::NotFound("no such secret".into())));
        let file = tempfile::NamedTempFile::new().unwrap();
        let script = format!("echo started > {}", file.path().display());
        let error = patient(&script, Setting { secrets: Some(secrets), ..Setting::default() }).unwrap_err();
        assert!(error.to_string() == "no such secret" && std::fs::read(file.path()).unwrap().is_empty());
    }

    #[test]
    fn a_command_without_a_stream_is_waited_for_and_its_children_are_not() {
        let run = |script: &str, patience| {
            let said = Arc::new(Mutex::new(Vec::new()));
            let to = said.clone();
            let line = CommandLine { program: "sh".into(), args: vec!["-c".into(), script.into()] };
            let sink = Box::new(move |bytes: &[u8]| to.lock().unwrap().extend_from_slice(bytes));
            let result = run_command(&line, Setting { patience, ..Setting::default() }, sink, &AtomicBool::new(false));
            (result, std::mem::take(&mut *said.lock().unwrap()))
        };
        let (result, said) = run("echo out; echo err >&2; sleep 60 & echo $!", Patience::default());
        result.unwrap();
        let said = String::from_utf8(said).unwrap();
        assert!(said.starts_with("out\nerr\n"));
        let pid = said.lines().last().unwrap();
        assert!(is_alive(pid));
        let _ = Command::new("kill").arg(pid).status();
        let (result, _) = run("echo bad >&2; exit 7", Patience::default());
        assert!(
            matches!(result, Err(Error::Command { outcome, stderr_tail, .. }) if outcome == "exited with code 7" && stderr_tail == b"bad\n")
        );
        let total = Duration::from_millis(1500);
        let (result, _) = run("sleep 60", Patience { until: Some((Instant::now() + total, total)), stall: None });
        assert!(matches!(result, Err(Error::Command { outcome, .. }) if outcome.starts_with("had not ended after 1.5 s")));
    }
}
