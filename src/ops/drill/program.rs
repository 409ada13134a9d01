//! Programs of a drill: bytes in, words out, and nothing of the surroundings that could lead to a server in production.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::error::{Error, Result};
use crate::limits::*;
use crate::source::{CommandLine, Fed, Kept, bare_command};

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
        self.feed(line, 0, |_| Ok(())).map(|((), said)| said)
    }

    /// Runs a program, and gives it the `size` bytes that `write` writes as its standard input.
    pub fn feed<T>(&self, line: &[String], size: u64, write: impl FnOnce(&mut Fed) -> Result<T>) -> Result<(T, Said)> {
        let [program, args @ ..] = line else { return Err(Error::Usage("A command of a drill is empty".into())) };
        let line = CommandLine { program: program.into(), args: args.iter().map(Into::into).collect() };
        let mut command = bare_command(&line, &PRODUCTION_PREFIXES);
        command.current_dir(self.folder).envs(self.variables.iter().map(|(name, value)| (name, value)));
        let said = Kept::default();
        let keep = said.sink(DRILL_ANSWER_BYTES_MAX);
        let outcome = Fed::start(command, Some(keep), Some(Box::new(|_| {})), self.interrupted.clone())?.give(size, write)?;
        let said = std::mem::take(&mut *said.lock());
        Ok((outcome, String::from_utf8_lossy(&said).into_owned()))
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
