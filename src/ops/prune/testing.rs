//! What the tests of facts and plans share: frames and packs that are made up, and what is needed of them.

use std::ops::Range;

use super::facts::Facts;
use crate::format::envelope::Kind;
use crate::format::frame::{ChunkTable, Codec, FrameRecord, Present};
use crate::format::recipe::Run;
use crate::format::segment::PackRecord;
use crate::id::{ChunkId, FrameId, ObjectName};
use crate::repo::Marks;

/// Chunks of every frame.
pub const CHUNKS: u32 = 6;

/// A frame that is based on nothing, with all its chunks.
pub fn whole(number: u8) -> FrameRecord {
    let mut table = ChunkTable::default();
    (0..CHUNKS as u8).for_each(|chunk| table.push(ChunkId([number ^ chunk; 16]), 1000));
    FrameRecord { id: FrameId([number; 32]), offset: 0, stored_len: 6000, codec: Codec::Zstd, table, present: None, base: None }
}

/// Of a frame's chunks these and no others.
pub fn only(there: Range<u32>) -> Present {
    Present::from_flags((0..CHUNKS).map(|chunk| there.contains(&chunk)).collect::<Vec<_>>().into_iter())
}

/// A store, and what is needed of it.
#[derive(Default)]
pub struct Scene {
    pub facts: Facts,
    pub marks: Marks,
}

impl Scene {
    pub fn pack(&mut self, frames: Vec<FrameRecord>) -> u32 {
        let size = 500 + 6000 * frames.len() as u64;
        let name = ObjectName([self.facts.packs.len() as u8 + 1; 32]);
        let number = self.facts.add(&PackRecord { name, kind: Kind::DataPack, size, frames }, &mut self.marks, true);
        self.facts.packs[number as usize].settled = true;
        number
    }

    pub fn needs(&mut self, frame: u8, first: u32, count: u32) {
        self.marks.add_run(&Run { frame: FrameId([frame; 32]), first, count });
    }
}
