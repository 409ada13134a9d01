//! Reads one regular file into slabs, and says at its end whether it stood still.
//!
//! A file is read as far as its size was when it was opened, so that one that grows as we read comes to an end. Files of
//! size 0 are read until nothing comes, since those in `/proc` do not know their size. Files that occupy less than their
//! size are asked for their holes, which are not read.

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Advice, SeekFrom, fadvise, seek};
use rustix::io::{Errno, Result, pread, read};

use super::Slab;
use super::stat::Stat;
use crate::format::content::Hole;
use crate::format::entry::Flaw;

/// Size from which the system is told that we read from beginning to end.
const ADVISE_BYTES: u64 = 8 << 20;
/// First read of a file that says it is empty.
const EMPTY_READ_BYTES: usize = 4 << 10;
/// Holes told apart in one file; behind them it is read as if it had none.
const HOLES_MAX: usize = 1 << 20;

/// A file from its start to its end.
pub(super) struct OpenFile {
    fd: OwnedFd,
    before: Stat,
    layout: Layout,
    position: u64,
    /// Where the data that `position` is in ends.
    data_end: u64,
    holes: Vec<Hole>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    Dense,
    Sparse,
    /// It says it is empty.
    Unsized,
}

/// What is known at the end of a file.
pub(super) struct Outcome {
    pub flaw: Flaw,
    pub size: u64,
    pub holes: Vec<Hole>,
}

/// Whether there is more to read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Read,
    Ended,
}

impl OpenFile {
    /// An open file, at its start, and its metadata as of now.
    pub fn new(fd: OwnedFd, before: Stat) -> Self {
        let layout = match before.size {
            0 => Layout::Unsized,
            size if before.allocated < size => Layout::Sparse,
            _ => Layout::Dense,
        };
        if before.size >= ADVISE_BYTES && layout == Layout::Dense {
            // Only an advice.
            let _ = fadvise(&fd, 0, None, Advice::Sequential);
        }
        Self { fd, before, layout, position: 0, data_end: 0, holes: Vec::new() }
    }

    /// Reads once. The slab has room.
    pub fn step(&mut self, slab: &mut Slab) -> Result<Step> {
        if self.layout == Layout::Sparse && self.position == self.data_end && !self.find_data()? {
            return Ok(Step::Ended);
        }
        let left = match self.layout {
            Layout::Dense => self.before.size - self.position,
            Layout::Sparse => self.data_end - self.position,
            Layout::Unsized if self.position == 0 => EMPTY_READ_BYTES as u64,
            Layout::Unsized => u64::MAX,
        };
        if left == 0 {
            return Ok(Step::Ended);
        }
        let len = usize::try_from(left).unwrap_or(usize::MAX);
        let count = slab.read_from(len, |bytes| match self.layout {
            Layout::Sparse => pread(&self.fd, bytes, self.position),
            Layout::Dense | Layout::Unsized => read(&self.fd, bytes),
        });
        match count {
            Ok(0) => Ok(Step::Ended),
            Ok(count) => {
                self.position += count as u64;
                // Most files end here, without another read that finds nothing.
                let is_whole = self.layout != Layout::Unsized && self.position == self.before.size;
                Ok(if is_whole { Step::Ended } else { Step::Read })
            }
            Err(Errno::INTR) => Ok(Step::Read),
            Err(error) => Err(error),
        }
    }

    /// Compares with the metadata at the start.
    pub fn finish(self) -> Result<Outcome> {
        let after = Stat::of(self.fd.as_fd())?;
        let flaw = if self.before.is_changed(&after) { Flaw::Changed } else { Flaw::None };
        Ok(Outcome { flaw, size: self.position, holes: self.holes })
    }

    /// Goes to the next data, past a hole. False at the end of the file.
    fn find_data(&mut self) -> Result<bool> {
        let size = self.before.size;
        let data = match seek(&self.fd, SeekFrom::Data(self.position)) {
            Ok(data) => data.min(size),
            // No data behind here: a hole up to the end, wherever that is by now.
            Err(Errno::NXIO) => size.min(Stat::of(self.fd.as_fd())?.size).max(self.position),
            Err(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS) if self.position == 0 => {
                self.layout = Layout::Dense;
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        if data > self.position {
            self.holes.push(Hole { offset: self.position, len: data - self.position });
            self.position = data;
        }
        self.data_end = match seek(&self.fd, SeekFrom::Hole(self.position)) {
            Ok(hole) if hole > self.position && self.holes.len() < HOLES_MAX => hole.min(size),
            Ok(_) | Err(_) => size,
        };
        Ok(self.position < size && self.data_end > self.position)
    }
}
