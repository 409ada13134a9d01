//! How the program ends: the one place that turns errors into a message, a hint and an exit code.

use std::any::Any;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use serde_json::json;

use super::context::Context;
use super::output::{Cleaner, complain, complain_as_is, harmless, without_numbers};
use crate::error::{Error, Result, StorageErrorKind};

/// How a command that did its work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Some paths were not read or written.
    Incomplete,
    /// A dump is known not to be whole.
    IncompleteDump,
    /// Stored data is damaged.
    Damaged,
    /// Something a newer version wrote could not be judged.
    Unjudged,
    /// What was to be reached was not.
    Missed,
    /// What the worst of several runs ended with; all was said.
    Code(u8),
}

impl Outcome {
    fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Incomplete => 3,
            Self::IncompleteDump => 4,
            Self::Damaged => 20,
            Self::Unjudged => 1,
            Self::Missed => 30,
            Self::Code(code) => code,
        }
    }
}

/// What each exit code means.
const CODES: &[(u8, &str)] = &[
    (0, "success"),
    (1, "failure; nothing was committed"),
    (2, "wrong usage: an argument or variable is missing, unknown or in conflict"),
    (3, "done, but some files or folders could not be read or written"),
    (
        4,
        "a command failed: one that was captured (no snapshot was saved), or given data; or a dump is incomplete, and the snapshot says so",
    ),
    (10, "there is no repository at this place"),
    (11, "the repository changed meanwhile, or the job is running already; run the command again"),
    (12, "wrong password, key file or recovery words"),
    (20, "stored data is damaged or missing"),
    (30, "an objective is missed"),
    (130, "interrupted (129 by SIGHUP, 143 by SIGTERM)"),
];

/// Codes of making a repository.
pub const CREATING: &[u8] = &[0, 1, 2, 130];
/// Codes of every command that opens a repository.
pub const OPENING: &[u8] = &[0, 1, 2, 10, 11, 12, 20, 130];
/// Codes of commands that say how things stand.
pub const WATCHING: &[u8] = &[0, 1, 2, 10, 11, 12, 20, 30, 130];
/// Codes of commands that read or write files besides.
pub const WITH_FILES: &[u8] = &[0, 1, 2, 3, 10, 11, 12, 20, 130];
/// Codes of a backup.
pub const BACKUP: &[u8] = &[0, 1, 2, 3, 4, 10, 11, 12, 20, 130];
/// Codes of giving out one file, perhaps to a command.
pub const DUMP: &[u8] = &[0, 1, 2, 4, 10, 11, 12, 20, 130];
/// Codes of a drill.
pub const DRILL: &[u8] = &[0, 1, 2, 4, 10, 11, 12, 20, 30, 130];
/// Codes of runs of jobs.
pub const RUN: &[u8] = BACKUP;
/// Codes of commands that open nothing.
pub const SIMPLE: &[u8] = &[0, 1, 2];

/// The end of a command's help: examples and exit codes.
pub fn help(examples: &str, codes: &[u8]) -> String {
    let known = CODES.iter().filter(|(code, _)| codes.contains(code));
    let lines: Vec<String> = known.map(|(code, meaning)| format!("  {code:>3}  {meaning}")).collect();
    format!("Examples:\n{}\n\nExit codes:\n{}", examples.trim_matches('\n'), lines.join("\n"))
}

/// Ends after arguments that could not be understood, or after help.
pub fn of_parsing(error: &clap::Error) -> ExitCode {
    let code = error.exit_code();
    let wants_json = std::env::args_os().any(|arg| arg == "--json");
    if code != 0 && wants_json {
        let message = error.to_string();
        let message = message.trim_start_matches("error: ").split("\n\n").next().unwrap_or_default();
        complain_in_json(2, message, None);
    } else {
        let _ = error.print();
    }
    ExitCode::from(code as u8)
}

/// Ends after a command ran.
pub fn of_running(result: std::thread::Result<Result<Outcome>>, context: &Context) -> ExitCode {
    let error = match result {
        Ok(Ok(outcome)) => return ExitCode::from(outcome.code()),
        Ok(Err(error)) => error,
        Err(panic) => return of_panic(&*panic, context),
    };
    let code = match error {
        Error::Interrupted => context.signals.exit_code(),
        _ => code(&error),
    };
    if context.options.json {
        complain_in_json(code, &message(&error), stderr_tail(&error).as_deref());
    } else {
        complain_of(&error, "", context.options.quiet);
    }
    ExitCode::from(code)
}

/// Says what went wrong and what helps. What a command said is shown if it was not passed on as it came.
pub fn complain_of(error: &Error, subject: &str, was_silent: bool) {
    complain(&format!("{subject}{}", message(error)));
    if was_silent {
        stderr_tail(error).iter().flat_map(|tail| tail.lines()).for_each(|line| complain_as_is(&format!("  | {line}\n")));
    }
    if let Some(hint) = hint(error) {
        complain_as_is(&format!("  hint: {hint}\n"));
    }
}

/// The exit code that stands for an error.
pub fn code(error: &Error) -> u8 {
    match error {
        error if error.is_damage() => 20,
        Error::Usage(_) => 2,
        Error::Command { .. } | Error::Receiver { .. } => 4,
        Error::NoRepository { .. } => 10,
        Error::Conflict(_) => 11,
        Error::WrongKey | Error::WrongWords(_) => 12,
        Error::Interrupted => 130,
        _ => 1,
    }
}

/// Of two exit codes the one that says more.
pub fn worse(a: u8, b: u8) -> u8 {
    let rank = |code: u8| match code {
        0 => 0,
        30 => 1,
        3 => 2,
        11 => 3,
        2 => 4,
        1 => 5,
        4 => 6,
        10 => 7,
        12 => 8,
        20 => 9,
        _ => 10,
    };
    if rank(b) > rank(a) { b } else { a }
}

/// The message and its causes on one line.
pub fn message(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let why = error.to_string();
        if !text.ends_with(&why) {
            text.push_str(": ");
            text.push_str(&why);
        }
        cause = error.source();
    }
    without_numbers(&text)
}

fn hint(error: &Error) -> Option<&'static str> {
    Some(match error {
        Error::NoRepository { .. } => "snap init -r DIR makes one; if there was one, is the disk mounted?",
        Error::AlreadyThere { .. } => "snap snapshots -r DIR shows what an existing repository holds",
        Error::WrongKey => "a repository made with a key file opens with --key-file, one made with a password with the password",
        Error::WrongWords(_) => {
            "compare the words with the sheet, one by one, and the sheet's repository id with that of snap cat manifest"
        }
        Error::Damaged { .. } => "snap check says what else is damaged and which snapshots it hurts",
        Error::Unsupported { .. } => "snap version shows what this build reads; install a newer one",
        Error::Conflict(_) => "run the command again",
        Error::ReadBack(_) => "test the memory (memtest86+) before you trust this machine; nothing was committed",
        Error::Refused { hint, .. } => hint,
        Error::Receiver { .. } => "do not rely on what it did with the data; look at what it said, and give it the whole again",
        Error::EmptyStream { .. } => "what gives nothing has mostly failed; if it is right, snap backup --allow-empty saves it",
        Error::Command { outcome, .. } if outcome.starts_with("could not be started") => "is it installed, and in the PATH of this user?",
        Error::Command { stderr_tail, .. } if stderr_tail.is_empty() => "the command said nothing on standard error; run it by hand",
        Error::Storage(error) => match error.kind {
            StorageErrorKind::Full => {
                "free some space or raise the quota; snap prune --exclusive deletes what no snapshot needs without writing anything first"
            }
            StorageErrorKind::Denied => "check the owner and the permissions of the repository, and whether it is mounted read-only",
            StorageErrorKind::NotFound | StorageErrorKind::Short => "snap check says what else is missing and which snapshots it hurts",
            StorageErrorKind::Transient => "run the command again",
            StorageErrorKind::Exists | StorageErrorKind::Other => return None,
        },
        _ => return None,
    })
}

/// The last lines a failed command said.
fn stderr_tail(error: &Error) -> Option<String> {
    let (Error::Command { stderr_tail, .. } | Error::Receiver { stderr_tail, .. }) = error else { return None };
    let text = Cleaner::default().clean(stderr_tail);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(10)..];
    (!last.is_empty()).then(|| last.join("\n"))
}

fn complain_in_json(code: u8, message: &str, stderr: Option<&str>) {
    let mut value = json!({ "message_type": "exit_error", "code": code, "message": message });
    if let Some(stderr) = stderr {
        value["stderr"] = stderr.into();
    }
    complain_as_is(&format!("{value}\n"));
}

/// Panics so far: those the library catches itself, and the last one that got here.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());
const PANICS_KEPT: usize = 8;

/// Keeps panics from being printed where they happen: the library catches those of damaged index files.
pub fn record_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let text = text_of_panic(panic.payload());
        let place = panic.location().map(|place| format!(" ({}:{})", place.file(), place.line())).unwrap_or_default();
        let mut panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
        if panics.len() < PANICS_KEPT {
            panics.push(format!("{text}{place}"));
        }
    }));
}

fn of_panic(panic: &(dyn Any + Send), context: &Context) -> ExitCode {
    let panics = std::mem::take(&mut *PANICS.lock().unwrap_or_else(PoisonError::into_inner));
    let what = if panics.is_empty() { text_of_panic(panic).to_owned() } else { panics.join("; ") };
    let message = format!("Internal error: {what}; please report this");
    if context.options.json {
        complain_in_json(1, &message, None);
    } else {
        if std::io::stderr().is_terminal() {
            complain_as_is("\n");
        }
        complain_as_is(&format!("snap: {}\n", harmless(&message)));
    }
    ExitCode::from(1)
}

fn text_of_panic(payload: &dyn Any) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or(payload.downcast_ref::<&str>().copied()).unwrap_or("panic")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::error::StorageError;

    fn storage(kind: StorageErrorKind) -> Error {
        let source = io::Error::from_raw_os_error(28);
        StorageError { kind, action: "write", object: "pack 12".into(), location: "/r".into(), source }.into()
    }

    #[test]
    fn errors_have_their_codes() {
        for (error, expected) in [
            (Error::Usage("x".into()), 2),
            (Error::EmptyStream { name: "x".into() }, 1),
            (Error::Command { program: "x".into(), outcome: "failed".into(), stderr_tail: Vec::new() }, 4),
            (Error::Receiver { program: "x".into(), outcome: "failed".into(), stderr_tail: Vec::new() }, 4),
            (Error::NoRepository { location: "x".into() }, 10),
            (Error::WrongKey, 12),
            (Error::WrongWords("x".into()), 12),
            (Error::damaged("x", "y"), 20),
            (storage(StorageErrorKind::Short), 20),
            (storage(StorageErrorKind::Full), 1),
            (Error::OutputClosed, 1),
        ] {
            assert_eq!(code(&error), expected, "{error}");
            assert!(CODES.iter().any(|(known, _)| *known == expected));
        }
    }

    #[test]
    fn the_worst_exit_code_counts() {
        for (codes, worst) in [(&[0, 0][..], 0), (&[3, 0, 4, 1], 4), (&[1, 3], 1), (&[11, 3, 0], 11), (&[4, 20, 1], 20), (&[130, 20], 130)]
        {
            assert_eq!(codes.iter().fold(0, |a, b| worse(a, *b)), worst);
        }
    }

    #[test]
    fn messages_name_their_causes_once() {
        assert_eq!(message(&storage(StorageErrorKind::Full)), "Cannot write pack 12 in /r: No space left on device");
        let error = Error::Command { program: "x".into(), outcome: "failed: No (os error 2), or so".into(), stderr_tail: Vec::new() };
        assert_eq!(message(&error), "x failed: No, or so, no snapshot was saved");
        let error = Error::file("open", "/a\x1bb", io::Error::from_raw_os_error(2));
        assert_eq!(message(&error), "Cannot open /a\\u{1b}b: No such file or directory");
        assert_eq!(message(&Error::WrongKey), "Wrong password or key file");
    }

    #[test]
    fn only_the_end_of_what_a_command_said_is_shown() {
        let said: String = (1..=20).map(|line| format!("line {line}\n")).collect();
        let error = Error::Command { program: "x".into(), outcome: "failed".into(), stderr_tail: said.into() };
        let tail = stderr_tail(&error).unwrap();
        assert!(tail.starts_with("line 11\n") && tail.ends_with("line 20"));
        let error = Error::Receiver { program: "x".into(), outcome: "failed".into(), stderr_tail: b"why\n".to_vec() };
        assert_eq!(stderr_tail(&error).unwrap(), "why");
        assert_eq!(stderr_tail(&Error::WrongKey), None);
    }
}
