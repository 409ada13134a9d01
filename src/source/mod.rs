//! Where bytes come from: a stream, a command's output, or files and folders.
//!
//! A source fills slabs: it lays the bytes of one stream, or of many small files, end to end, and says in events what they are.
//! It runs on a thread of its own, ahead of the pipeline, and knows nothing of repositories.
//! Entries come in path order, but for streams that are read at once. What cannot be read is an event and not an error; an error ends the backup.

mod abreast;
mod command;
mod fed;
mod file;
mod filter;
mod folder;
mod links;
mod patterns;
mod roots;
mod session;
mod several;
mod started;
mod stat;
mod stream;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tree;
mod xattrs;

use std::ops::Range;

pub use abreast::{AbreastSource, OpenStreams, Streams};
pub use command::{CommandLine, CommandSource, SECRET_PREFIXES, SecretVariables, Setting, bare_command, how_it_ended, run_command};
pub use fed::Fed;
pub use filter::{Filter, FilterRules};
pub use patterns::{Case, Includes, Names, parse_exclude_file};
pub use session::Session;
pub use several::{Member, MemberSource, SeveralSource, Tally};
pub use started::{Kept, Sink};
pub use stream::{Patience, StreamSource, span, stream_meta};
pub use tree::{TreeOptions, TreeSource};

use crate::error;
use crate::format::content::{Content, Hole};
use crate::format::entry::{Entry, Flaw};
use crate::limits::*;
use crate::progress::Problem;

/// What lies in a slab, or has no bytes, in path order.
#[derive(Debug)]
pub enum Event {
    /// An entry without bytes to read: a folder, a link, a device; a file that could not be opened; or a file whose content is known.
    Entry { entry: Entry, known: bool },
    /// A file or stream begins; its bytes follow, here and perhaps in later slabs.
    Start { entry: Entry },
    /// The next bytes of the file that began last: a range of [`Slab::bytes`]. Holes are left out.
    Bytes { range: Range<usize> },
    /// The file ended. `Flaw::Changed`: what was read is the content, and may never have been the file at any one time.
    /// `Flaw::Unreadable`: what was read is not the file; the consumer drops it and stores the entry without content.
    End {
        flaw: Flaw,
        /// Length of the file, holes included.
        size: u64,
        holes: Vec<Hole>,
    },
    /// A path was passed over or is flawed.
    Problem(Problem),
}

/// Some input, worked on at a time.
#[derive(Debug)]
pub struct Slab {
    /// The first [`Slab::HEADROOM`] bytes are free for what was left over of the slab before. Always at full length, so that
    /// reading never has to clear memory first; what lies outside the events' ranges means nothing.
    pub bytes: Vec<u8>,
    pub events: Vec<Event>,
    /// Which of several streams that are read at once it is of; 0 for all that comes in path order.
    pub lane: u32,
    /// Where the next bytes go.
    filled: usize,
}

impl Slab {
    /// Room for the unfinished chunk of the slab before.
    pub const HEADROOM: usize = CHUNK_BYTES_MAX;

    /// An empty slab for `capacity` bytes of input.
    pub fn new(capacity: usize) -> Self {
        Self { bytes: vec![0; Self::HEADROOM + capacity], events: Vec::new(), lane: 0, filled: Self::HEADROOM }
    }

    /// Empties it for use again.
    pub fn clear(&mut self) {
        self.filled = Self::HEADROOM;
        self.lane = 0;
        self.events.clear();
    }

    /// Bytes of input laid into it.
    pub fn input_bytes(&self) -> u64 {
        let len = |event: &Event| if let Event::Bytes { range } = event { range.len() as u64 } else { 0 };
        self.events.iter().map(len).sum()
    }

    /// Bytes that may still be added.
    pub fn room(&self) -> usize {
        self.bytes.len() - self.filled
    }

    /// Whether it should be handed on.
    pub fn is_full(&self) -> bool {
        self.room() == 0 || self.events.len() >= SLAB_EVENTS_MAX
    }

    /// Reads once into the free room, at most `len` bytes, adds the event for what came, and returns how many bytes that were.
    ///
    /// Bytes that touch the event before are joined to it.
    pub fn read_from<E>(&mut self, len: usize, read: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<usize, E> {
        let start = self.filled;
        let end = start + len.min(self.room());
        let count = read(&mut self.bytes[start..end])?;
        assert!(count <= end - start, "a reader returned more than its buffer holds");
        self.filled += count;
        match self.events.last_mut() {
            _ if count == 0 => {}
            Some(Event::Bytes { range }) if range.end == start => range.end = self.filled,
            _ => self.events.push(Event::Bytes { range: start..self.filled }),
        }
        Ok(count)
    }
}

/// Whether a source has more to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    Yes,
    No,
}

/// Delivers entries and their bytes, in path order.
pub trait Source: Send {
    /// Fills a cleared slab. `No` with the last one, which may be empty.
    fn fill(&mut self, slab: &mut Slab) -> error::Result<More>;
}

/// Asked for each regular file before it is read: its content, if it is known not to have changed.
/// Called in path order, with an entry whose metadata (but no content, and no extended attributes) is filled in.
/// If it answers, the source emits `Event::Entry { entry, known: true }` with the answer as its node and the answered extended attributes.
pub type Lookup = Box<dyn FnMut(&Entry, u64) -> Option<KnownFile> + Send>;

/// What the parent snapshot knows of an unchanged file.
#[derive(Clone, Debug)]
pub struct KnownFile {
    pub content: Content,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}
