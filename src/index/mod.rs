//! This host's index, merged from the repository's index segments, to find frames and chunks quickly: a redb file and, since there are
//! tens of millions of them, rows of chunks in files beside it.
//!
//! It is a cache and only ever a hint. It may be deleted at any time; anything odd about it (another repository, another layout, a file
//! that is not what was written, any error or panic of the database) makes it start over empty. What it says of a chunk is verified
//! against a sealed pack footer before a backup relies on it, and it never decides a deletion.
//!
//! redb locks its file for one process. So there are lanes: each process takes the first file nobody holds and brings it up to date;
//! with no folder or no free lane the index is built in unnamed temporary files, or in memory, without redb, if there can be none.

mod filter;
mod home;
mod maps;
mod run;
mod shelf;
mod tables;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::format::envelope::Kind;
use crate::format::frame::SealInfo;
use crate::format::segment::{PackRecord, Segment};
use crate::id::{ChunkId, FrameId, ObjectName, RepositoryId};
use crate::limits::*;
use crate::replace;
use home::Home;
use maps::Maps;
use tables::{Opened, Tables};

/// The database failed or is not what it should be: drop it and start over.
#[derive(Debug, thiserror::Error)]
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

/// Where an index may be kept.
#[derive(Clone, Debug, Default)]
pub struct Shelter {
    /// Folder for what is kept from one run to the next.
    pub cache: Option<PathBuf>,
    /// Folder for temporary files, where there is no other.
    pub scratch: Option<PathBuf>,
}

/// In what an index is kept.
enum Kept {
    Database(Tables),
    Memory(Maps),
}

impl Kept {
    /// Keeps others, and later processes, from using it.
    fn discard(&self) {
        if let Self::Database(tables) = self {
            tables.discard();
        }
    }

    /// For this process alone: in a file of that folder, or, where there can be none, in memory.
    fn passing(folder: Option<&Path>, repository: RepositoryId) -> Self {
        let tables = folder.and_then(|folder| Tables::passing(folder, repository));
        tables.map_or_else(|| Self::Memory(Maps::default()), Self::Database)
    }
}

/// The index of one process.
pub struct Index {
    kept: Kept,
    shelter: Shelter,
    repository: RepositoryId,
    /// Damage was met, and the file removed so that later processes do not meet it.
    discarded: Cell<bool>,
}

impl Index {
    /// Opens the first free lane, or an index for this process alone. Never fails: what cannot be used is started over.
    pub fn open(shelter: Shelter, repository: RepositoryId) -> Self {
        let kept = open_kept(&shelter, repository);
        Self { kept, shelter, repository, discarded: Cell::new(false) }
    }

    /// Throws away what is there and begins anew, empty.
    pub fn start_over(&mut self) {
        self.kept.discard();
        self.kept = open_kept(&self.shelter, self.repository);
        self.discarded.set(false);
    }

    /// Begins anew, empty and for this process alone: where the folder cannot be written to, say.
    pub fn stand_alone(&mut self) {
        self.kept.discard();
        self.kept = Kept::passing(self.shelter.scratch.as_deref(), self.repository);
    }

    /// Fails if what says which chunks there are is not what was written.
    pub fn verify(&self) -> Result<()> {
        match &self.kept {
            Kept::Database(tables) => tables.verify(),
            Kept::Memory(maps) => maps.verify(),
        }
    }

    /// The segments merged so far.
    pub fn merged(&self) -> Result<Vec<(ObjectName, Scope)>> {
        match &self.kept {
            Kept::Database(tables) => tables.merged(),
            Kept::Memory(maps) => Ok(maps.merged()),
        }
    }

    /// Merges segments in one transaction.
    pub fn merge(&mut self, segments: &[(ObjectName, Segment)], scope: Scope) -> Result<()> {
        match &mut self.kept {
            Kept::Database(tables) => tables.merge(segments, scope),
            Kept::Memory(maps) => maps.merge(segments, scope),
        }
    }

    /// Merges packs that no readable segment lists.
    pub fn merge_packs(&mut self, packs: &[PackRecord]) -> Result<()> {
        match &mut self.kept {
            Kept::Database(tables) => tables.merge_packs(packs),
            Kept::Memory(maps) => maps.merge_packs(packs),
        }
    }

    /// Forgets segments, and packs with all that is only there.
    pub fn remove(&mut self, segments: &[ObjectName], packs: &HashSet<ObjectName>) -> Result<()> {
        match &mut self.kept {
            Kept::Database(tables) => tables.remove(segments, packs),
            Kept::Memory(maps) => maps.remove(segments, packs),
        }
    }

    /// Every place where a frame is said to be.
    pub fn frame(&self, id: &FrameId) -> Result<Vec<FrameLocation>> {
        match &self.kept {
            Kept::Database(tables) => tables.frame(id),
            Kept::Memory(maps) => Ok(maps.frame(id)),
        }
    }

    /// Every place where a chunk is said to be. Another chunk may be there: only half of the id is compared.
    pub fn chunk(&self, id: &ChunkId) -> Result<Vec<ChunkLocation>> {
        let found = match &self.kept {
            Kept::Database(tables) => tables.chunk(id),
            Kept::Memory(maps) => maps.chunk(id),
        };
        found.inspect_err(|_| {
            if !self.discarded.replace(true) {
                self.kept.discard();
            }
        })
    }

    /// A pack by its number in this index.
    pub fn pack(&self, number: u32) -> Result<Option<IndexedPack>> {
        match &self.kept {
            Kept::Database(tables) => tables.pack(number),
            Kept::Memory(maps) => Ok(maps.pack(number)),
        }
    }

    /// All packs.
    pub fn packs(&self) -> Result<Vec<IndexedPack>> {
        match &self.kept {
            Kept::Database(tables) => tables.packs(),
            Kept::Memory(maps) => Ok(maps.packs()),
        }
    }
}

fn open_kept(shelter: &Shelter, repository: RepositoryId) -> Kept {
    let home = shelter.cache.as_deref().map(|cache| cache.join(repository.hex()));
    let lane = home.and_then(|home| open_lane(&home, repository));
    lane.map_or_else(|| Kept::passing(shelter.scratch.as_deref(), repository), Kept::Database)
}

fn open_lane(folder: &Path, repository: RepositoryId) -> Option<Tables> {
    replace::make_folder(folder).ok()?;
    (0..INDEX_LANES).find_map(|lane| {
        let home = Home::Lane { folder: folder.into(), lane };
        match Tables::open(home.clone(), repository) {
            Opened::Ready(tables) => Some(tables),
            Opened::Busy => None,
            Opened::Unusable => {
                std::fs::remove_file(home.database()?).ok()?;
                match Tables::open(home, repository) {
                    Opened::Ready(tables) => Some(tables),
                    _ => None,
                }
            }
        }
    })
}

/// For names of files that nobody else has.
fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}
