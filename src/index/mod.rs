//! This host's index: a redb file merged from the repository's index segments, to find frames and chunks quickly.
//!
//! It is a cache and only ever a hint. It may be deleted at any time; anything odd about it (another repository, another layout, any
//! error or panic of the database) makes it start over empty. What it says of a chunk is verified against a sealed pack footer before
//! a backup relies on it, and it never decides a deletion.
//!
//! redb locks its file for one process. So there are lanes: each process takes the first file nobody holds and brings it up to date;
//! with no folder or no free lane the index is built in memory.

mod tables;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::format::envelope::Kind;
use crate::format::frame::SealInfo;
use crate::format::segment::{PackRecord, Segment};
use crate::id::{ChunkId, FrameId, ObjectName, RepositoryId};
use crate::limits::*;
use tables::Tables;

/// The database failed or is not what it should be: drop it and start over.
#[derive(Debug, Default, thiserror::Error)]
#[error("Cannot use the index of this host: {0}")]
pub struct IndexError(String);

pub type Result<T> = std::result::Result<T, IndexError>;

/// What of a segment has been merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Where frames are: all that reading needs.
    Frames = 1,
    /// Also in which frame each chunk is: what a backup needs.
    Chunks = 2,
}

/// A pack the index knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexedPack {
    pub number: u32,
    pub name: ObjectName,
    pub kind: Kind,
    pub size: u64,
}

/// A place where a frame is said to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameLocation {
    pub pack: u32,
    pub offset: u64,
    pub stored_len: u32,
    pub info: SealInfo,
}

/// A place where a chunk is said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkLocation {
    pub frame: FrameId,
    pub ordinal: u32,
}

/// The index of one process.
pub struct Index {
    tables: Tables,
    home: Option<PathBuf>,
    repository: RepositoryId,
}

impl Index {
    /// Opens the first free lane in `home`, or an index in memory. Never fails: what cannot be used is started over.
    pub fn open(home: Option<&Path>, repository: RepositoryId) -> Self {
        let home = home.map(|home| home.join(repository.hex()));
        let tables = home.as_deref().and_then(|home| open_lane(home, repository)).unwrap_or_else(Tables::in_memory);
        Self { tables, home, repository }
    }

    /// Throws away what is there and begins anew, empty.
    pub fn start_over(&mut self) {
        self.tables.remove_file();
        let home = self.home.as_deref();
        self.tables = home.and_then(|home| open_lane(home, self.repository)).unwrap_or_else(Tables::in_memory);
    }

    /// The segments merged so far.
    pub fn merged(&self) -> Result<Vec<(ObjectName, Scope)>> {
        self.tables.merged()
    }

    /// Merges segments in one transaction.
    pub fn merge(&self, segments: &[(ObjectName, Segment)], scope: Scope) -> Result<()> {
        self.tables.merge(segments, scope)
    }

    /// Merges a pack that no readable segment lists.
    pub fn merge_pack(&self, pack: PackRecord) -> Result<()> {
        self.tables.merge_unnamed(&pack)
    }

    /// Forgets segments and packs that are no longer in the store.
    pub fn remove(&self, segments: &[ObjectName], packs: &HashSet<ObjectName>) -> Result<()> {
        self.tables.remove(segments, packs)
    }

    /// Every place where a frame is said to be.
    pub fn frame(&self, id: &FrameId) -> Result<Vec<FrameLocation>> {
        self.tables.frame(id)
    }

    /// A place where a chunk is said to be: the one merged last.
    pub fn chunk(&self, id: &ChunkId) -> Result<Option<ChunkLocation>> {
        self.tables.chunk(id)
    }

    /// A pack by its number in this index.
    pub fn pack(&self, number: u32) -> Result<Option<IndexedPack>> {
        self.tables.pack(number)
    }

    /// All packs.
    pub fn packs(&self) -> Result<Vec<IndexedPack>> {
        self.tables.packs()
    }
}

fn open_lane(home: &Path, repository: RepositoryId) -> Option<Tables> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(home).ok()?;
    (0..INDEX_LANES).find_map(|lane| {
        let file = home.join(format!("index-{lane}.redb"));
        match Tables::open(&file, repository) {
            tables::Opened::Ready(tables) => Some(tables),
            tables::Opened::Busy => None,
            tables::Opened::Unusable => {
                std::fs::remove_file(&file).ok()?;
                match Tables::open(&file, repository) {
                    tables::Opened::Ready(tables) => Some(tables),
                    _ => None,
                }
            }
        }
    })
}
