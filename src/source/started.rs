//! A program that was started: waited for, listened to, and ended with all its descendants, in one way for all that we start.

use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, test_kill_process_group, waitid};

use super::stream::POLL_INTERVAL;
use crate::error::{Error, Result};
use crate::limits::*;

/// How long an unwanted program has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// Gets what a program writes to one of its outputs, as it comes. Called from a thread of its own.
pub type Sink = Box<dyn FnMut(&[u8]) + Send>;

/// What a program said, as far as it is kept.
#[derive(Clone, Default)]
pub struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    /// Keeps so many bytes of what comes, from the beginning on.
    pub fn sink(&self, max: usize) -> Sink {
        let kept = self.clone();
        Box::new(move |bytes| {
            let mut said = kept.lock();
            let room = max.saturating_sub(said.len());
            said.extend_from_slice(&bytes[..bytes.len().min(room)]);
        })
    }

    pub fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A started program, in a process group of its own.
///
/// Dropped before it ended with success, it is ended: SIGTERM, and after two seconds SIGKILL, to the whole group. What a successful one
/// left running stays.
pub(super) struct Started {
    pub child: Child,
    ears: Vec<Ear>,
    is_over: bool,
}

impl Started {
    /// The command must ask for a process group of its own.
    pub fn new(command: &mut Command) -> std::io::Result<Self> {
        Ok(Self { child: command.spawn()?, ears: Vec::new(), is_over: false })
    }

    /// Passes on what it writes to a pipe. The tail of the first one is what counts as its last words.
    pub fn listen(&mut self, pipe: impl Into<OwnedFd>, sink: Sink) {
        self.ears.push(Ear::start(pipe.into(), sink));
    }

    /// Waits for its end, and looks meanwhile whether it is to be waited for any longer.
    pub fn wait(&mut self, interrupted: &AtomicBool, mut look: impl FnMut(&Self) -> Result<()>) -> Result<ExitStatus> {
        let mut pause = Duration::from_millis(1);
        loop {
            if interrupted.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            match self.child.try_wait() {
                Ok(Some(status)) => {
                    self.is_over = status.success();
                    return Ok(status);
                }
                // It closed its output, or has read all of its input, and goes on for a while.
                Ok(None) => {
                    look(self)?;
                    std::thread::sleep(pause);
                }
                Err(error) => return Err(Error::file("wait for", "the command", error)),
            }
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Whether the system stopped it because it reads from the terminal, or sets it up, and is not in front.
    pub fn wants_terminal(&self) -> bool {
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let stopped = waitid(WaitId::Pid(Pid::from_child(&self.child)), options).ok().flatten();
        let signal = stopped.and_then(|status| status.stopping_signal());
        signal.is_some_and(|signal| signal == Signal::TTIN.as_raw() || signal == Signal::TTOU.as_raw())
    }

    /// All that it said is passed on; returns the end of it. To be called when it has ended.
    pub fn last_words(&mut self) -> Vec<u8> {
        let tails: Vec<Vec<u8>> = self.ears.drain(..).map(Ear::finish).collect();
        tails.into_iter().next().unwrap_or_default()
    }

    /// Ends it and its descendants, kindly at first.
    pub fn end(&mut self) {
        self.is_over = true;
        let group = Pid::from_child(&self.child);
        let _ = kill_process_group(group, Signal::TERM);
        // A stopped process would sleep through the other one.
        let _ = kill_process_group(group, Signal::CONT);
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            // The group has its number to itself as long as it has members, even after its leader is reaped.
            let is_reaped = !matches!(self.child.try_wait(), Ok(None));
            if is_reaped && test_kill_process_group(group).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
        // Those that are left are dying; a zombie that nobody reaps is not waited for.
        let deadline = Instant::now() + GRACE / 4;
        while Instant::now() < deadline && test_kill_process_group(group).is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if !self.is_over {
            self.end();
        }
        self.last_words();
    }
}

/// The thread that passes on what a program writes to a pipe.
struct Ear {
    thread: JoinHandle<Vec<u8>>,
    is_over: Arc<AtomicBool>,
}

impl Ear {
    fn start(pipe: OwnedFd, sink: Sink) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = is_over.clone();
        Self { thread: std::thread::spawn(move || pass_on(pipe, sink, &seen)), is_over }
    }

    /// Returns the end of what was said, once the program has exited.
    fn finish(self) -> Vec<u8> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// Copies until the pipe ends, or, when descendants of the finished program keep it open, until what it held is read.
fn pass_on(pipe: OwnedFd, mut sink: Sink, is_over: &AtomicBool) -> Vec<u8> {
    let mut tail = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    // More than a pipe holds, so that a chatty descendant cannot keep us here.
    let mut reads_left = 64;
    while reads_left > 0 {
        let was_over = is_over.load(Ordering::Relaxed);
        match rustix::event::poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&POLL_INTERVAL)) {
            Ok(0) if was_over => break,
            Ok(0) | Err(_) => continue,
            Ok(_) => {}
        }
        match rustix::io::read(&pipe, &mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                sink(&buffer[..count]);
                tail.extend_from_slice(&buffer[..count]);
                tail.drain(..tail.len().saturating_sub(STDERR_TAIL_BYTES));
            }
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => break,
        }
        reads_left -= u32::from(was_over);
    }
    tail
}
