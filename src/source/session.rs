//! A program that is asked and answers, for as long as it is needed: a client of a database that holds a transaction open.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::command::prepare;
use super::fed::Fed;
use super::started::{Kept, Sink};
use super::{CommandLine, Patience, Setting, how_it_ended};
use crate::error::{Error, Result, show_bytes};
use crate::limits::*;

/// How long it has to leave by itself when it is not needed any more.
const LEAVE: Duration = Duration::from_secs(1);

/// A started program. Dropped, its input ends, and then it itself.
pub struct Session {
    fed: Fed,
    program: String,
    said: Kept,
    patience: Patience,
    interrupted: Arc<AtomicBool>,
}

impl Session {
    pub fn start(line: &CommandLine, mut setting: Setting, stderr: Sink, interrupted: Arc<AtomicBool>) -> Result<Self> {
        let patience = setting.patience;
        let said = Kept::default();
        let keep = said.sink(SESSION_ANSWER_BYTES_MAX);
        let fed = Fed::start(prepare(line, &mut setting)?, Some(keep), Some(stderr), interrupted.clone()).map_err(of_command)?;
        Ok(Self { fed, program: show_bytes(line.program.as_bytes()), said, patience, interrupted })
    }

    /// Says something and waits for an answer that ends so; returns what comes before.
    pub fn ask(&mut self, question: &str, end: &str) -> Result<Vec<u8>> {
        if self.fed.write_all(question.as_bytes()).is_err() {
            return Err(self.failed());
        }
        let since = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            let has_ended = self.fed.started.has_ended();
            let mut said = self.said.lock();
            if let Some(answer) = said.strip_suffix(end.as_bytes()) {
                let answer = answer.to_vec();
                said.clear();
                return Ok(answer);
            }
            let is_full = said.len() == SESSION_ANSWER_BYTES_MAX;
            drop(said);
            if has_ended || is_full {
                return Err(self.failed());
            }
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            if let Err(Error::TimedOut(outcome)) = self.patience.check(since) {
                self.fed.started.end();
                return Err(self.failure(outcome));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// It has ended, or does not behave; then it is ended.
    fn failed(&mut self) -> Error {
        if self.interrupted.load(Ordering::Relaxed) {
            return Error::Interrupted;
        }
        let outcome = match self.fed.started.child.try_wait() {
            Ok(Some(status)) if status.success() => "ended before it was to".into(),
            Ok(Some(status)) => how_it_ended(status),
            _ => "gave an answer that is too long".into(),
        };
        self.fed.started.end();
        self.failure(outcome)
    }

    fn failure(&mut self, outcome: String) -> Error {
        Error::Command { program: self.program.clone(), outcome, stderr_tail: self.fed.started.last_words() }
    }
}

fn of_command(error: Error) -> Error {
    match error {
        Error::Receiver { program, outcome, stderr_tail } => Error::Command { program, outcome, stderr_tail },
        other => other,
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // So a server hears a farewell, and does not complain of a client that is gone.
        self.fed.close();
        let deadline = Instant::now() + LEAVE;
        while Instant::now() < deadline && !self.fed.started.has_ended() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(script: &str, patience: Patience) -> Session {
        let line = CommandLine { program: "sh".into(), args: vec!["-c".into(), script.into()] };
        Session::start(&line, Setting { patience, ..Setting::default() }, Box::new(|_| {}), Arc::default()).unwrap()
    }

    #[test]
    fn it_answers_until_its_input_ends() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let script = format!("while read a; do echo \"$a $a\"; echo end; done; echo left > {}", file.path().display());
        let mut session = session(&script, Patience::default());
        for word in ["one", "two"] {
            assert_eq!(session.ask(&format!("{word}\n"), "end\n").unwrap(), format!("{word} {word}\n").as_bytes());
        }
        drop(session);
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "left\n");
    }

    #[test]
    fn why_there_is_no_answer_is_told() {
        let time = Duration::from_millis(300);
        let patience = Patience { stall: Some(time), until: None };
        for (script, patience, expected) in [
            ("read a; echo bad >&2; exit 2", Patience::default(), "exited with code 2"),
            ("read a; echo bad >&2", Patience::default(), "ended before it was to"),
            ("echo bad >&2; sleep 60", patience, "said nothing for 0.3 s"),
        ] {
            let Err(Error::Command { outcome, stderr_tail, .. }) = session(script, patience).ask("x\n", "end\n") else {
                panic!("{script}")
            };
            assert!(outcome.starts_with(expected) && stderr_tail == b"bad\n", "{script}: {outcome}");
        }
    }
}
