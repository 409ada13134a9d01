//! Stats: what is stored, and what it would take without deduplication and compression.

use std::collections::HashSet;

use crate::backend::Area;
use crate::error::{Error, Result};
use crate::format::envelope::Kind;
use crate::id::ObjectName;
use crate::progress::{Problem, Progress, Stage};
use crate::repo::{Repository, is_not_found};

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
    /// `total_uncompressed_size` over the stored bytes of packs.
    pub compression_ratio: f64,
}

/// Adds up a repository's figures from snapshots and index segments.
pub fn stats(repository: &Repository, progress: &dyn Progress) -> Result<Stats> {
    progress.stage(Stage::Planning, None, None);
    let mut stats = Stats::default();
    let (snapshots, unreadable) = repository.snapshots()?;
    for (name, error) in unreadable {
        progress.problem(&Problem::new(format!("snapshot {name}"), error));
    }
    for stored in &snapshots {
        stats.snapshots += 1;
        stats.total_size += stored.snapshot.totals.bytes;
        stats.total_file_count += stored.snapshot.totals.files;
    }
    let locator = repository.locator()?;
    let mut seen = HashSet::new();
    let there: HashSet<ObjectName> = locator.list(Area::Packs)?.into_iter().map(|(name, _)| name).collect();
    for (name, size) in locator.list(Area::Segments)? {
        stats.index_size += size;
        if progress.interrupted() {
            return Err(Error::Interrupted);
        }
        match locator.segment(name) {
            Ok(segment) => {
                let packs = segment.packs.into_iter().filter(|pack| there.contains(&pack.name) && seen.insert(pack.name));
                packs.for_each(|pack| stats.add(&pack));
            }
            // A collection replaced it since.
            Err(error) if is_not_found(&error) => {}
            Err(error) => progress.problem(&Problem::new(format!("index segment {name}"), error)),
        }
    }
    let others = [Area::Snapshots, Area::Keys, Area::Records, Area::Reports];
    let others = others.into_iter().map(|area| repository.backend().list(area)).collect::<std::result::Result<Vec<_>, _>>()?;
    let others: u64 = others.iter().flatten().map(|listed| listed.size).sum();
    stats.total_stored_size = stats.data_size + stats.catalog_size + stats.index_size + others;
    stats.compression_ratio = stats.total_uncompressed_size as f64 / (stats.data_size + stats.catalog_size).max(1) as f64;
    Ok(stats)
}

impl Stats {
    fn add(&mut self, pack: &crate::format::segment::PackRecord) {
        self.packs += 1;
        match pack.kind {
            Kind::CatalogPack => self.catalog_size += pack.size,
            _ => self.data_size += pack.size,
        }
        for frame in &pack.frames {
            self.frames += 1;
            let plain_len = frame.present_len() as u64;
            self.chunks += frame.table.len() as u64;
            self.total_uncompressed_size += plain_len;
            if frame.is_delta() {
                self.delta_frames += 1;
                self.delta_plain_size += plain_len;
                self.delta_stored_size += u64::from(frame.stored_len);
            }
        }
    }
}
