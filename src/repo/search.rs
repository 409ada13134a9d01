//! Looking for frames in all that segments and footers say, and not in the index: slow, for when all else failed.

use std::collections::HashSet;
use std::sync::Arc;

use super::locate::Locator;
use crate::backend::Area;
use crate::error::Result;
use crate::format::frame::{ChunkTable, FrameRecord};
use crate::id::{ChunkId, FrameId};
use crate::index::IndexedPack;

/// Frames that hold some chunks, and the packs they lie in.
pub type Copies = Vec<(Arc<IndexedPack>, Arc<FrameRecord>)>;

impl Locator {
    /// Searches all segments and footers, and not the index, for a frame: its table, and every frame that holds one of its chunks.
    /// Slow: it reads all there is about packs. For when all else failed.
    pub fn search(&self, id: &FrameId) -> Result<Option<(ChunkTable, Copies)>> {
        let mut table = None;
        self.visit(&mut |_, record| {
            if record.id == *id {
                table = Some(record.table.clone());
            }
        })?;
        let Some(table) = table else { return Ok(None) };
        let copies = self.copies(&table.ids().iter().copied().collect())?;
        Ok(Some((table, copies)))
    }

    /// Every frame that any segment or footer says holds one of these chunks, plain ones first. As slow as `search`.
    pub fn copies(&self, chunks: &HashSet<ChunkId>) -> Result<Copies> {
        let mut copies = Vec::new();
        self.visit(&mut |pack, record| {
            if record.table.ids().iter().enumerate().any(|(i, id)| record.has(i) && chunks.contains(id)) {
                copies.push((pack.clone(), Arc::new(record.clone())));
            }
        })?;
        copies.sort_by_key(|(_, record)| record.is_delta());
        Ok(copies)
    }

    /// Calls for every frame that a readable segment lists, and then for those in footers of packs that no segment lists.
    pub fn visit(&self, call: &mut dyn FnMut(&Arc<IndexedPack>, &FrameRecord)) -> Result<()> {
        let mut seen = HashSet::new();
        for (name, _) in self.list(Area::Segments)? {
            let Some(segment) = self.readable_segment(name) else { continue };
            for pack in segment.packs {
                let known = Arc::new(IndexedPack { number: 0, name: pack.name, kind: pack.kind, size: pack.size });
                seen.insert(pack.name);
                pack.frames.iter().for_each(|record| call(&known, record));
            }
        }
        for (name, size) in self.list(Area::Packs)?.into_iter().filter(|(name, _)| !seen.contains(name)) {
            let Some((header, contents)) = self.readable_footer(name, size) else { continue };
            let known = Arc::new(IndexedPack { number: 0, name, kind: header.kind, size });
            contents.frames.iter().for_each(|record| call(&known, record));
        }
        Ok(())
    }
}
