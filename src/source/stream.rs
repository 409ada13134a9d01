//! One stream of bytes, such as standard input, as one entry of a snapshot.
//!
//! Slabs are filled to the brim unless the stream ends, so that a slow writer's small pieces cost nothing downstream.
//! A file descriptor is polled, so that an interrupt is noticed while nothing comes. A failed read ends the backup: half a
//! stream is worth nothing.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::stat::Owners;
use super::{Event, More, Slab, Source};
use crate::error::{Error, Result};
use crate::format::entry::{Entry, Flaw, Meta, Node, Time};
use crate::limits::PIPE_BYTES;

/// How long a wait for input may take before the interrupt flag is looked at again.
pub(super) const POLL_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Reads one stream to its end.
pub struct StreamSource {
    entry: Entry,
    is_started: bool,
    size: u64,
    input: Input,
}

enum Input {
    Reader(Box<dyn Read + Send>),
    Fd { fd: OwnedFd, interrupted: Arc<AtomicBool>, patience: Patience },
}

/// How long something may take, and how long it may say nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    /// When it must have ended, and how long that was from the beginning.
    pub until: Option<(Instant, Duration)>,
    /// The longest wait for bytes. What we ourselves need to work on them does not count.
    pub stall: Option<Duration>,
}

impl Patience {
    /// Fails when a wait that began at `since` has lasted long enough. The error is the rest of a sentence.
    pub(super) fn check(&self, since: Instant) -> Result<()> {
        if let Some((_, total)) = self.until.filter(|(end, _)| Instant::now() >= *end) {
            return Err(Error::TimedOut(format!("had not ended after {} (timeout), and was stopped", span(total))));
        }
        match self.stall.filter(|stall| since.elapsed() >= *stall) {
            Some(stall) => Err(Error::TimedOut(format!("said nothing for {} (stall timeout), and was stopped", span(stall)))),
            None => Ok(()),
        }
    }
}

/// A time as somebody would write it.
pub fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds if time.subsec_nanos() > 0 => format!("{} s", seconds as f64 + f64::from(time.subsec_millis()) / 1000.0),
        seconds if seconds > 0 && seconds % 3600 == 0 => format!("{} h", seconds / 3600),
        seconds if seconds > 0 && seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

/// Metadata of a stream saved at `time`: private to the user who runs this process.
pub fn stream_meta(time: Time) -> Meta {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let mut owners = Owners::default();
    Meta { mode: 0o600, uid, gid, user: owners.user(uid), group: owners.group(gid), mtime: time, ..Meta::default() }
}

impl StreamSource {
    /// A stream out of any reader; `name` is the path of its entry.
    pub fn new(name: Vec<u8>, reader: Box<dyn Read + Send>, meta: Meta) -> Self {
        Self::with(name, meta, Input::Reader(reader))
    }

    /// A stream out of a pipe, terminal, socket or file, which stops soon after `interrupted` becomes true.
    pub fn from_fd(name: Vec<u8>, fd: OwnedFd, meta: Meta, interrupted: Arc<AtomicBool>) -> Self {
        // A large pipe saves switches between the two processes; a small one works too, and so does what is no pipe.
        let _ = rustix::pipe::fcntl_setpipe_size(&fd, PIPE_BYTES);
        Self::with(name, meta, Input::Fd { fd, interrupted, patience: Patience::default() })
    }

    /// The same, but it does not wait for ever.
    pub fn with_patience(mut self, given: Patience) -> Self {
        if let Input::Fd { patience, .. } = &mut self.input {
            *patience = given;
        }
        self
    }

    fn with(name: Vec<u8>, meta: Meta, input: Input) -> Self {
        let entry = Entry { path: name, flaw: Flaw::None, meta, node: Node::File { content: None } };
        Self { entry, is_started: false, size: 0, input }
    }
}

impl Source for StreamSource {
    fn fill(&mut self, slab: &mut Slab) -> Result<More> {
        if !self.is_started {
            self.is_started = true;
            slab.events.push(Event::Start { entry: self.entry.clone() });
        }
        while slab.room() > 0 {
            let count = match &mut self.input {
                Input::Reader(reader) => slab.read_from(usize::MAX, |bytes| reader.read(bytes)),
                Input::Fd { fd, interrupted, patience } => {
                    wait_until_readable(rustix::fd::AsFd::as_fd(fd), interrupted, patience)?;
                    slab.read_from(usize::MAX, |bytes| Ok(rustix::io::read(fd, bytes)?))
                }
            };
            match count {
                Ok(0) => {
                    slab.events.push(Event::End { flaw: Flaw::None, size: self.size, holes: Vec::new() });
                    return Ok(More::No);
                }
                Ok(count) => self.size += count as u64,
                // Would block: somebody else took what poll had announced.
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                Err(error) => return Err(Error::file("read", Path::new(OsStr::from_bytes(&self.entry.path)), error)),
            }
        }
        Ok(More::Yes)
    }
}

/// Returns when a read would not block, be it for bytes, the end or an error; or with [`Error::Interrupted`] or [`Error::TimedOut`].
fn wait_until_readable(fd: BorrowedFd, interrupted: &AtomicBool, patience: &Patience) -> Result<()> {
    let since = Instant::now();
    loop {
        if interrupted.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        // Before every read: one that trickles for ever never lets a wait end.
        patience.check(since)?;
        match rustix::event::poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&POLL_INTERVAL)) {
            Ok(0) | Err(Errno::INTR) => {}
            // An error of poll itself shows again, with its name, in the read.
            Ok(_) | Err(_) => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::testing::{drain, summary};
    use super::*;

    /// Gives a byte at a time, with interruptions.
    struct Trickle(u32);

    impl Read for Trickle {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            self.0 += 1;
            match self.0 {
                count if count > 3000 => Ok(0),
                count if count % 3 == 0 => Err(io::ErrorKind::Interrupted.into()),
                count => {
                    bytes[0] = count as u8;
                    Ok(1)
                }
            }
        }
    }

    #[test]
    fn slabs_are_filled_in_spite_of_short_reads() {
        let mut source = StreamSource::new(b"db.sql".to_vec(), Box::new(Trickle(0)), Meta::default());
        let mut slab = Slab::new(1500);
        assert_eq!(source.fill(&mut slab).unwrap(), More::Yes);
        assert_eq!(slab.room(), 0);
        assert!(matches!(&slab.events[..], [Event::Start { .. }, Event::Bytes { .. }]), "{:?}", slab.events);
        slab.clear();
        assert_eq!(source.fill(&mut slab).unwrap(), More::No);
        assert!(matches!(&slab.events[..], [Event::Bytes { .. }, Event::End { flaw: Flaw::None, size: 2000, .. }]), "{:?}", slab.events);
    }

    #[test]
    fn an_empty_stream_has_a_start_and_an_end() {
        let mut source = StreamSource::new(b"x".to_vec(), Box::new(io::empty()), stream_meta(Time { seconds: 7, nanos: 0 }));
        let found = drain(&mut source, 4096).unwrap();
        assert_eq!(summary(&found), ["- x 0 None"]);
        assert_eq!(found[0].entry.meta.mode, 0o600);
        assert_eq!(found[0].entry.meta.mtime.seconds, 7);
    }

    #[test]
    fn pipes_files_and_broken_descriptors() {
        let (reader, mut writer) = io::pipe().unwrap();
        let sent: Vec<u8> = (0..300_000u32).map(|at| (at % 251) as u8).collect();
        let bytes = sent.clone();
        let thread = std::thread::spawn(move || writer.write_all(&bytes).unwrap());
        let mut source = StreamSource::from_fd(b"in".to_vec(), reader.into(), Meta::default(), Arc::default());
        assert!(drain(&mut source, 4096).unwrap()[0].bytes == sent);
        thread.join().unwrap();

        let file = tempfile::tempfile().unwrap();
        file.set_len(10_000).unwrap();
        let mut source = StreamSource::from_fd(b"in".to_vec(), file.into(), Meta::default(), Arc::default());
        assert_eq!(drain(&mut source, 4096).unwrap()[0].bytes, vec![0; 10_000]);

        let folder = std::fs::File::open("/").unwrap();
        let mut source = StreamSource::from_fd(b"in".to_vec(), folder.into(), Meta::default(), Arc::default());
        assert_eq!(drain(&mut source, 4096).unwrap_err().to_string(), "Cannot read in");
    }

    #[test]
    fn an_interrupt_is_noticed_while_nothing_comes() {
        let (reader, writer) = io::pipe().unwrap();
        let interrupted = Arc::new(AtomicBool::new(false));
        let mut source = StreamSource::from_fd(b"in".to_vec(), reader.into(), Meta::default(), interrupted.clone());
        let thread = std::thread::spawn(move || drain(&mut source, 4096));
        interrupted.store(true, Ordering::Relaxed);
        assert!(matches!(thread.join().unwrap(), Err(Error::Interrupted)));
        drop(writer);
    }
}
