//! Stats: what is stored, and what it would take without deduplication and compression.

use crate::error::Result;
use crate::progress::Progress;
use crate::repo::Repository;

/// Figures of a whole repository; sizes in bytes.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Stats {
    pub snapshots: u64,
    /// Plain bytes of all files of all snapshots.
    pub total_size: u64,
    pub total_file_count: u64,
    pub packs: u64,
    pub frames: u64,
    pub chunks: u64,
    /// Plain bytes of all stored chunks.
    pub total_uncompressed_size: u64,
    /// Bytes in the store.
    pub total_stored_size: u64,
    pub data_size: u64,
    pub catalog_size: u64,
    pub index_size: u64,
    pub delta_frames: u64,
    pub delta_plain_size: u64,
    pub delta_stored_size: u64,
    pub compression_ratio: f64,
}

/// Adds up a repository's figures from snapshots and index segments.
pub fn stats(repository: &Repository, progress: &dyn Progress) -> Result<Stats> {
    let _ = (repository, progress);
    todo!()
}
