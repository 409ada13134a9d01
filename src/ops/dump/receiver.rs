//! A dump into a command that loads it.
//!
//! There is no shell in between; the command runs in a process group of its own and sees none of our secrets. What it was given counts
//! only if it has read all of it and ends with success. If we fail, it is ended before its input is: the end of half a dump must not
//! look like the end of the whole.

use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, test_kill_process_group, waitid};

use super::{DumpReport, Found, write};
use crate::error::{Error, Result, show_bytes};
use crate::limits::*;
use crate::progress::Progress;
use crate::repo::Repository;
use crate::source::{CommandLine, bare_command, how_it_ended};

/// How often a command that takes nothing is looked after.
const LOOK_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// How long an unwanted command has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// Runs a command with a file or stream of a snapshot on its standard input.
pub fn dump_to_command(
    repository: &Repository,
    found: &Found,
    line: &CommandLine,
    interrupted: Arc<AtomicBool>,
    progress: &dyn Progress,
) -> Result<DumpReport> {
    let mut receiver = Receiver::start(line, interrupted)?;
    match write(repository, found, &mut receiver, progress) {
        Ok(report) => receiver.finish(found.size()).map(|()| report),
        // It takes no more; why, its end tells.
        Err(Error::OutputClosed) => Err(receiver.finish(found.size()).err().unwrap_or(Error::OutputClosed)),
        Err(error) => Err(error),
    }
}

/// A command that is given a stream.
struct Receiver {
    child: Child,
    program: String,
    /// Its standard input, until that has ended.
    pipe: Option<PipeWriter>,
    /// The same pipe's other end, to see what was left in it. Because of it a write waits where it would fail otherwise.
    rest: PipeReader,
    written: u64,
    interrupted: Arc<AtomicBool>,
    is_over: bool,
}

impl Receiver {
    fn start(line: &CommandLine, interrupted: Arc<AtomicBool>) -> Result<Self> {
        let program = show_bytes(line.program.as_bytes());
        let failed = |error: io::Error| Error::Receiver { program: program.clone(), outcome: format!("could not be started: {error}") };
        let (rest, pipe) = io::pipe().map_err(failed)?;
        // A large pipe saves switches between the two processes; a small one works too.
        let _ = rustix::pipe::fcntl_setpipe_size(&pipe, PIPE_BYTES);
        rustix::fs::fcntl_setfl(&pipe, OFlags::NONBLOCK).map_err(|error| failed(error.into()))?;
        let stdin = rest.try_clone().map_err(failed)?;
        let child = bare_command(line, &[]).stdin(stdin).stdout(Stdio::inherit()).stderr(Stdio::inherit()).spawn().map_err(failed)?;
        Ok(Self { child, program, pipe: Some(pipe), rest, written: 0, interrupted, is_over: false })
    }

    fn failure(&self, outcome: String) -> Error {
        Error::Receiver { program: self.program.clone(), outcome }
    }

    /// Ends its input, waits for its end, and judges it.
    fn finish(mut self, size: u64) -> Result<()> {
        if self.written == size {
            drop(self.pipe.take());
        }
        let status = self.wait()?;
        self.is_over = true;
        let unread = rustix::io::ioctl_fionread(&self.rest).unwrap_or(0);
        let read = self.written.saturating_sub(unread);
        match (status.success(), read == size) {
            (true, true) => Ok(()),
            (false, true) => Err(self.failure(how_it_ended(status))),
            (false, false) => Err(self.failure(format!("{} when it had read {read} of {size} bytes", how_it_ended(status)))),
            (true, false) => Err(self.failure(format!("ended with success, but had read only {read} of {size} bytes"))),
        }
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        let mut pause = Duration::from_millis(1);
        loop {
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            match self.child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if self.wants_terminal() => {
                    let outcome = "wants to ask something on the terminal, which it cannot from here; give it passwords in another way";
                    return Err(self.failure(outcome.into()));
                }
                Ok(None) => std::thread::sleep(pause),
                Err(error) => return Err(Error::file("wait for", "the command", error)),
            }
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Whether the system stopped it because it reads from the terminal, or sets it up, and is not in front.
    fn wants_terminal(&self) -> bool {
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let stopped = waitid(WaitId::Pid(Pid::from_child(&self.child)), options).ok().flatten();
        let signal = stopped.and_then(|status| status.stopping_signal());
        signal.is_some_and(|signal| signal == Signal::TTIN.as_raw() || signal == Signal::TTOU.as_raw())
    }

    /// Ends the command and its descendants, kindly at first.
    fn end(&mut self) {
        let group = Pid::from_child(&self.child);
        let _ = kill_process_group(group, Signal::TERM);
        // A stopped process would sleep through the other one.
        let _ = kill_process_group(group, Signal::CONT);
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            let is_reaped = !matches!(self.child.try_wait(), Ok(None));
            if is_reaped && test_kill_process_group(group).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Write for Receiver {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(pipe) = &self.pipe else { return Err(io::ErrorKind::BrokenPipe.into()) };
        loop {
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            match rustix::event::poll(&mut [PollFd::new(pipe, PollFlags::OUT)], Some(&LOOK_INTERVAL)) {
                Ok(0) if matches!(self.child.try_wait(), Ok(Some(_))) || self.wants_terminal() => {
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

impl Drop for Receiver {
    fn drop(&mut self) {
        if !self.is_over {
            // Its input has not ended yet, unless all of it was written.
            self.end();
        }
    }
}
