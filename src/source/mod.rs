//! Where bytes come from: a stream, a command's output, or files and folders.
//!
//! A source fills slabs: it lays the bytes of one stream, or of many small files, end to end, and says in events what they are.
//! It runs on a thread of its own, ahead of the pipeline, and knows nothing of repositories.
//! Entries come in path order. What cannot be read is an event and not an error; an error ends the backup.

mod command;
mod filter;
mod stream;
mod tree;

use std::ops::Range;

pub use command::CommandSource;
pub use filter::{Filter, FilterRules};
pub use stream::StreamSource;
pub use tree::{TreeOptions, TreeSource};

use crate::error::Result;
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
    /// The file ended.
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
    /// The first [`Slab::HEADROOM`] bytes are free for what was left over of the slab before.
    pub bytes: Vec<u8>,
    pub events: Vec<Event>,
    capacity: usize,
}

impl Slab {
    /// Room for the unfinished chunk of the slab before.
    pub const HEADROOM: usize = CHUNK_BYTES_MAX;

    /// An empty slab for `capacity` bytes of input.
    pub fn new(capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(Self::HEADROOM + capacity);
        bytes.resize(Self::HEADROOM, 0);
        Self { bytes, events: Vec::new(), capacity }
    }

    /// Empties it for use again.
    pub fn clear(&mut self) {
        self.bytes.truncate(Self::HEADROOM);
        self.events.clear();
    }

    /// Bytes that may still be added.
    pub fn room(&self) -> usize {
        (Self::HEADROOM + self.capacity).saturating_sub(self.bytes.len())
    }

    /// Whether it should be handed on.
    pub fn is_full(&self) -> bool {
        self.room() == 0 || self.events.len() >= SLAB_EVENTS_MAX
    }

    /// Reads once into the free room, at most `len` bytes, and returns how many came; the event is the caller's to add.
    pub fn read_from(&mut self, len: usize, read: impl FnOnce(&mut [u8]) -> std::io::Result<usize>) -> std::io::Result<Range<usize>> {
        let start = self.bytes.len();
        self.bytes.resize(start + len.min(self.room()), 0);
        let result = read(&mut self.bytes[start..]);
        self.bytes.truncate(start + *result.as_ref().unwrap_or(&0));
        result.map(|count| start..start + count)
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
    fn fill(&mut self, slab: &mut Slab) -> Result<More>;
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
