//! Dump: one file or stream, in order, to a writer.
//!
//! Frames are read ahead and decoded in parallel; every chunk and the whole content are verified. A lost stretch stops the dump:
//! what follows it would land in the wrong place.

use std::io::Write;

use crate::error::Result;
use crate::id::ContentHash;
use crate::progress::Progress;
use crate::repo::{Repository, Selection};

/// What a dump did.
#[derive(Clone, Debug)]
pub struct DumpReport {
    pub path: Vec<u8>,
    pub bytes: u64,
    pub hash: ContentHash,
    pub seconds: f64,
}

/// Writes the file at the selection's path (or, without a path, the snapshot's only file) to `output`.
pub fn dump(repository: &Repository, selection: &Selection, output: &mut dyn Write, progress: &dyn Progress) -> Result<DumpReport> {
    let _ = (repository, selection, output, progress);
    todo!()
}
