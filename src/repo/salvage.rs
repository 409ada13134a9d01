//! Frames that cannot be read where they lie, or not all of them: their chunks are looked for in all other frames.
//!
//! What is in none is marked as not there, and is lost.

use std::sync::Arc;

use super::frames::Frame;
use super::reader::{Copies, Reader, Shelf};
use crate::error::{Error, Result};
use crate::format::envelope::Kind;
use crate::format::frame::{ChunkTable, FrameRecord};
use crate::format::recipe::Run;
use crate::id::FrameId;
use crate::index::IndexedPack;

impl Reader {
    /// The frames that had to be put together from others so far, found whole or not.
    pub fn salvaged(&self) -> Vec<FrameId> {
        self.salvaged.lock().expect("no panic holds it").iter().copied().collect()
    }

    /// A frame with these of its chunks, wherever they are stored; one that is not there then is lost.
    pub fn frame_with(&self, run: &Run) -> Result<Arc<Frame>> {
        let frame = self.frame(&run.frame)?;
        match frame.has(run) {
            true => Ok(frame),
            false => self.complete(&self.frames, &run.frame, frame, Copies::All),
        }
    }

    /// A frame that was read with chunks left out, and those that other frames have of them.
    pub(super) fn complete(&self, shelf: &Shelf, id: &FrameId, frame: Arc<Frame>, from: Copies) -> Result<Arc<Frame>> {
        let slot = self.slot(shelf, id);
        let mut slot = slot.lock().expect("no panic holds it");
        if let Some(searched) = [Some(&frame), slot.as_ref()].into_iter().flatten().find(|frame| frame.searched) {
            return Ok(searched.clone());
        }
        let trouble = Error::damaged(format!("frame {id}"), "some of its chunks are lost");
        let complete = Arc::new(self.salvage(id, trouble, from)?);
        *slot = Some(complete.clone());
        Ok(complete)
    }

    /// Puts a frame together from chunks stored in other frames; what is nowhere is lost.
    pub(super) fn salvage(&self, id: &FrameId, trouble: Error, from: Copies) -> Result<Frame> {
        if !trouble.is_damage() {
            return Err(trouble);
        }
        if let Some(known) = self.hopeless.lock().expect("no panic holds it").get(id) {
            return Err(Error::damaged(format!("frame {id}"), known));
        }
        let copies = self.locator().search(id)?;
        let Some((table, elsewhere)) = copies else {
            let known = Arc::new(trouble);
            self.hopeless.lock().expect("no panic holds it").insert(*id, known.clone());
            return Err(Error::damaged(format!("frame {id}"), known));
        };
        self.salvaged.lock().expect("no panic holds it").insert(*id);
        let elsewhere = elsewhere.iter().filter(|(_, record)| from == Copies::All || !record.is_delta());
        let mut frame = self.put_together(table, elsewhere);
        frame.damage = Some(trouble.to_string());
        Ok(frame)
    }

    /// A frame from the chunks that other frames have of it.
    pub fn put_together<'c>(&self, table: ChunkTable, elsewhere: impl Iterator<Item = &'c (Arc<IndexedPack>, Arc<FrameRecord>)>) -> Frame {
        let mut starts = vec![None; table.len()];
        let mut bytes = Vec::new();
        for (pack, record) in elsewhere {
            if starts.iter().all(Option::is_some) {
                break;
            }
            let Ok(frame) = self.read_from(pack, record).map_err(|error| self.locator().pass_over(error)) else { continue };
            for (ordinal, chunk_id) in table.ids().iter().enumerate().filter(|(ordinal, _)| starts[*ordinal].is_none()).collect::<Vec<_>>()
            {
                let found = frame.table.ids().iter().position(|id| id == chunk_id).and_then(|i| frame.chunk(i));
                if let Some(chunk) = found {
                    starts[ordinal] = Some(bytes.len() as u32);
                    bytes.extend_from_slice(chunk);
                }
            }
        }
        // `chunks` hands out neighbours as one slice, so they are laid in order.
        let mut ordered = Vec::with_capacity(bytes.len());
        for (ordinal, start) in starts.iter_mut().enumerate() {
            if let Some(old) = *start {
                *start = Some(ordered.len() as u32);
                ordered.extend_from_slice(&bytes[old as usize..old as usize + table.lens()[ordinal] as usize]);
            }
        }
        let spare = self.spare.clone();
        let kind = Kind::DataPack;
        Frame { kind, verified: true, table, starts, bytes: ordered, delta: false, damage: None, searched: true, spare }
    }
}
