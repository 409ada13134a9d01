//! A program that is given a stream.
//!
//! What it was given counts only if it has read all of it and ends with success. If we fail, it is ended before its input is: the end
//! of half a dump must not look like the end of the whole.

use std::ffi::OsStr;
use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;

use super::how_it_ended;
use super::started::{Sink, Started};
use crate::error::{Error, Result, show_bytes};
use crate::limits::*;

/// How often a program that takes nothing is looked after.
const LOOK_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// A started program and its standard input, which is written without being blocked by it.
pub struct Fed {
    /// Dropped, and so ended, before its input.
    pub(super) started: Started,
    program: String,
    /// Its standard input, until that has ended.
    pipe: Option<PipeWriter>,
    /// The same pipe's other end, to see what was left in it. Because of it a write waits where it would fail otherwise.
    rest: PipeReader,
    written: u64,
    interrupted: Arc<AtomicBool>,
}

impl Fed {
    /// Starts the program. An output nobody listens to is the same as ours.
    pub fn start(mut command: Command, stdout: Option<Sink>, stderr: Option<Sink>, interrupted: Arc<AtomicBool>) -> Result<Self> {
        let program = program(command.get_program());
        let failed = |error: io::Error| failure(&program, format!("could not be started: {error}"), Vec::new());
        let (rest, pipe) = io::pipe().map_err(failed)?;
        // A large pipe saves switches between the two processes; a small one works too.
        let _ = rustix::pipe::fcntl_setpipe_size(&pipe, PIPE_BYTES);
        rustix::fs::fcntl_setfl(&pipe, OFlags::NONBLOCK).map_err(|error| failed(error.into()))?;
        let output = |sink: &Option<Sink>| if sink.is_some() { Stdio::piped() } else { Stdio::inherit() };
        command.stdin(rest.try_clone().map_err(failed)?).stdout(output(&stdout)).stderr(output(&stderr));
        let mut started = Started::new(&mut command).map_err(failed)?;
        if let (Some(pipe), Some(sink)) = (started.child.stderr.take(), stderr) {
            started.listen(pipe, sink);
        }
        if let (Some(pipe), Some(sink)) = (started.child.stdout.take(), stdout) {
            started.listen(pipe, sink);
        }
        Ok(Self { started, program, pipe: Some(pipe), rest, written: 0, interrupted })
    }

    /// Gives it the `size` bytes that `write` writes, waits for its end, and judges it.
    pub fn give<T>(mut self, size: u64, write: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        match write(&mut self) {
            Ok(outcome) => self.finish(size).map(|()| outcome),
            // It takes no more; why, its end tells.
            Err(Error::OutputClosed) => Err(self.finish(size).err().unwrap_or(Error::OutputClosed)),
            Err(error) => Err(error),
        }
    }

    /// Ends its input.
    pub(super) fn close(&mut self) {
        drop(self.pipe.take());
    }

    fn finish(mut self, size: u64) -> Result<()> {
        if self.written == size {
            self.close();
        }
        let program = self.program.clone();
        let status = self.started.wait(&self.interrupted, |started| match started.wants_terminal() {
            false => Ok(()),
            true => {
                let outcome = "wants to ask something on the terminal, which it cannot from here; give it passwords in another way";
                Err(failure(&program, outcome.into(), Vec::new()))
            }
        })?;
        let unread = rustix::io::ioctl_fionread(&self.rest).unwrap_or(0);
        let read = self.written.saturating_sub(unread);
        let last_words = self.started.last_words();
        let outcome = match (status.success(), read == size) {
            (true, true) => return Ok(()),
            (false, true) => how_it_ended(status),
            (false, false) => format!("{} when it had read {read} of {size} bytes", how_it_ended(status)),
            (true, false) => format!("ended with success, but had read only {read} of {size} bytes"),
        };
        Err(failure(&self.program, outcome, last_words))
    }
}

fn program(name: &OsStr) -> String {
    show_bytes(name.as_bytes())
}

fn failure(program: &str, outcome: String, stderr_tail: Vec<u8>) -> Error {
    Error::Receiver { program: program.into(), outcome, stderr_tail }
}

impl Write for Fed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(pipe) = &self.pipe else { return Err(io::ErrorKind::BrokenPipe.into()) };
        loop {
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            match rustix::event::poll(&mut [PollFd::new(pipe, PollFlags::OUT)], Some(&LOOK_INTERVAL)) {
                Ok(0) if self.started.has_ended() || self.started.wants_terminal() => {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) | Err(_) => {}
            }
            match rustix::io::write(pipe, bytes) {
                Ok(count) => {
                    self.written += count as u64;
                    return Ok(count);
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::{CommandLine, bare_command};
    use super::*;

    fn shell(script: &str, interrupted: Arc<AtomicBool>) -> (Fed, Arc<Mutex<Vec<u8>>>) {
        let line = CommandLine { program: "sh".into(), args: vec!["-c".into(), script.into()] };
        let said = Arc::new(Mutex::new(Vec::new()));
        let to = said.clone();
        let stdout: Sink = Box::new(move |bytes| to.lock().unwrap().extend_from_slice(bytes));
        (Fed::start(bare_command(&line, &[]), Some(stdout), Some(Box::new(|_| {})), interrupted).unwrap(), said)
    }

    fn give(script: &str, bytes: &[u8]) -> (Result<()>, String) {
        let (fed, said) = shell(script, Arc::default());
        let result = fed.give(bytes.len() as u64, |pipe| pipe.write_all(bytes).map_err(|_| Error::OutputClosed));
        let said = String::from_utf8(said.lock().unwrap().clone()).unwrap();
        (result, said)
    }

    #[test]
    fn it_gets_all_and_is_heard() {
        let (result, said) = give("wc -c; echo warning >&2", &vec![b'x'; 5 << 20]);
        result.unwrap();
        assert_eq!(said.trim(), (5 << 20).to_string());
    }

    #[test]
    fn what_it_left_unread_is_told_with_its_last_words() {
        let large = vec![b'x'; 5 << 20];
        for (script, bytes, outcome, words) in [
            ("echo bad >&2; exit 7", &b""[..], "exited with code 7", "bad\n"),
            ("head -c 3 >/dev/null; echo bad >&2; exit 7", b"12345", "exited with code 7 when it had read ", "bad\n"),
            (":", b"12345", "ended with success, but had read only 0 of 5 bytes", ""),
            (":", &large, "ended with success, but had read only 0 of 5242880 bytes", ""),
        ] {
            let Err(Error::Receiver { outcome: said, stderr_tail, .. }) = give(script, bytes).0 else { panic!("{script}") };
            assert!(said.starts_with(outcome) && stderr_tail == words.as_bytes(), "{script}: {said}");
        }
    }

    /// A program that reads nothing must not keep us from ending, nor be told that its input is over.
    #[test]
    fn an_interruption_ends_it_in_the_middle_of_a_write() {
        let interrupted = Arc::new(AtomicBool::new(false));
        let file = tempfile::NamedTempFile::new().unwrap();
        let script =
            format!("trap 'echo ended >> {0}; exit 0' TERM; sleep 60 & wait; cat >/dev/null; echo read >> {0}", file.path().display());
        let (fed, _) = shell(&script, interrupted.clone());
        let result = fed.give(9 << 20, |pipe| {
            // The first mebibyte is in the pipe.
            pipe.write_all(&vec![b'x'; 1 << 20]).map_err(|_| Error::OutputClosed)?;
            interrupted.store(true, Ordering::Relaxed);
            pipe.write_all(&vec![b'x'; 8 << 20]).map_err(|_| Error::OutputClosed)
        });
        assert!(matches!(result, Err(Error::Interrupted)));
        assert!(!std::fs::read_to_string(file.path()).unwrap().contains("read"));
    }
}
