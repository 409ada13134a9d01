//! Programs of a drill: bytes in, words out, and nothing of the surroundings that could lead to a server in production.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::{Error, Result};
use crate::limits::*;
use crate::source::{CommandLine, bare_command, how_it_ended};

/// Beginnings of names of variables that lead clients to a server, or open it. Programs of a drill get only those that `up` printed.
const PRODUCTION_PREFIXES: [&str; 8] = ["PG", "MYSQL", "MARIADB", "REDIS", "VALKEY", "MONGO", "DATABASE_URL", "SQLITE"];

/// What programs of a drill have in common.
pub struct Surroundings<'a> {
    /// They run in it.
    pub folder: &'a Path,
    pub variables: Vec<(String, String)>,
    pub interrupted: Arc<AtomicBool>,
}

/// What a program said on its standard output, in full up to a limit.
pub type Said = String;

impl Surroundings<'_> {
    /// Sets a variable for all programs to come.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.into(), value.into()));
    }

    /// Takes over what a program printed as `NAME=VALUE` lines.
    pub fn adopt(&mut self, said: &str) {
        for line in said.lines() {
            let Some((name, value)) = line.split_once('=') else { continue };
            let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
            if is_name {
                self.set(name, value);
            }
        }
    }

    /// Runs a program without input.
    pub fn run(&self, line: &[String]) -> Result<Said> {
        self.feed(line, |_| Ok(()))
    }

    /// Runs a program, and gives it what `write` writes as its standard input.
    pub fn feed(&self, line: &[String], write: impl FnOnce(&mut ChildStdin) -> Result<()>) -> Result<Said> {
        let [program, args @ ..] = line else { return Err(Error::Usage("A command of a drill is empty".into())) };
        let failed = |outcome: String, stderr_tail: Vec<u8>| Error::Command { program: program.clone(), outcome, stderr_tail };
        let line = CommandLine { program: program.into(), args: args.iter().map(Into::into).collect() };
        let mut command = bare_command(&line, &PRODUCTION_PREFIXES);
        command.current_dir(self.folder).stdin(Stdio::piped());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        let child = command.spawn().map_err(|error| failed(format!("could not be started: {error}"), Vec::new()))?;
        let mut running = Running { child, is_over: false };
        let stdout = keep(running.child.stdout.take().expect("standard output is piped"), Keep::Start);
        let stderr = keep(running.child.stderr.take().expect("standard error is piped"), Keep::End);
        let mut stdin = running.child.stdin.take().expect("standard input is piped");
        let written = write(&mut stdin);
        drop(stdin);
        // A program that ends before it has read all is to be judged by how it ended.
        if let Err(error) = written
            && !matches!(error, Error::OutputClosed)
        {
            return Err(error);
        }
        let status = loop {
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            match running.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                Err(error) => return Err(Error::file("wait for", program, error)),
            }
        };
        running.is_over = status.success();
        let (said, complained) = (stdout.take(), stderr.take());
        match status.success() {
            true => Ok(String::from_utf8_lossy(&said).into_owned()),
            false => Err(failed(how_it_ended(status), complained)),
        }
    }
}

/// A started program; ended with its descendants when dropped, unless it was successful: what `up` started stays.
struct Running {
    child: Child,
    is_over: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_over {
            let group = Pid::from_child(&self.child);
            let _ = kill_process_group(group, Signal::TERM);
            std::thread::sleep(Duration::from_millis(200));
            let _ = kill_process_group(group, Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Start,
    End,
}

/// A thread that reads a pipe to its end and keeps some of it.
struct Kept {
    kept: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

fn keep(mut pipe: impl Read + Send + 'static, which: Keep) -> Kept {
    let kept: Arc<Mutex<Vec<u8>>> = Arc::default();
    let shared = kept.clone();
    let thread = spawn(move || {
        let mut buffer = [0; 8 << 10];
        loop {
            let count = match pipe.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => return,
                Ok(count) => count,
            };
            let mut kept = shared.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend_from_slice(&buffer[..count]);
            match which {
                Keep::Start => kept.truncate(DRILL_ANSWER_BYTES_MAX),
                Keep::End => {
                    let surplus = kept.len().saturating_sub(STDERR_TAIL_BYTES);
                    kept.drain(..surplus);
                }
            }
        }
    });
    Kept { kept, thread }
}

impl Kept {
    /// What was read, once the program has ended. A server that it left behind may hold the pipe open: that is waited for only a little.
    fn take(self) -> Vec<u8> {
        let begun = Instant::now();
        while !self.thread.is_finished() && begun.elapsed() < Duration::from_millis(500) {
            std::thread::sleep(Duration::from_millis(2));
        }
        std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Counts what goes to a program, and notes when the first byte does.
pub struct Counted<'a, W> {
    pub inner: &'a mut W,
    pub first: &'a mut dyn FnMut(),
    pub bytes: u64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes == 0 {
            (self.first)();
        }
        let count = self.inner.write(bytes)?;
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
