//! Decoded frames, and their memory, which is used again.

use std::sync::{Arc, Mutex};

use crate::format::envelope::Kind;
use crate::format::frame::{ChunkTable, FrameRecord};
use crate::format::recipe::Run;
use crate::limits::*;

/// A decoded frame.
pub struct Frame {
    pub(super) kind: Kind,
    /// Every chunk fits its id.
    pub(super) verified: bool,
    pub table: ChunkTable,
    /// Where each chunk begins in `bytes`; `None` for one that is not there.
    pub(super) starts: Vec<Option<u32>>,
    pub(super) bytes: Vec<u8>,
    /// Whether it was stored as a delta.
    pub delta: bool,
    /// What is wrong with it, where chunks had to be found elsewhere or are lost.
    pub damage: Option<String>,
    /// Its chunks were looked for everywhere: one that is not there is lost.
    pub(super) searched: bool,
    /// Takes the memory back.
    pub(super) spare: Arc<Spare>,
}

/// Memory of frames that are not needed any more, for the next ones: fresh pages cost a tenth of reading a frame.
#[derive(Default)]
pub struct Spare(Mutex<Vec<Vec<u8>>>);

/// As many as are decoded at a time on most machines.
const SPARE_FRAMES: usize = 16;

impl Spare {
    pub fn take(&self) -> Vec<u8> {
        self.0.lock().expect("no panic holds it").pop().unwrap_or_default()
    }

    fn give(&self, bytes: Vec<u8>) {
        let mut spare = self.0.lock().expect("no panic holds it");
        if spare.len() < SPARE_FRAMES && bytes.capacity() <= FRAME_BYTES_MAX {
            spare.push(bytes);
        }
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.spare.give(std::mem::take(&mut self.bytes));
    }
}

impl Frame {
    /// A chunk's bytes, or nothing if they are lost.
    pub fn chunk(&self, ordinal: usize) -> Option<&[u8]> {
        let start = (*self.starts.get(ordinal)?)? as usize;
        Some(&self.bytes[start..start + self.table.lens()[ordinal] as usize])
    }

    /// The bytes of neighbouring chunks, if all are there.
    pub fn chunks(&self, run: &Run) -> Option<&[u8]> {
        let (first, end) = (run.first as usize, (run.first + run.count) as usize);
        let lens = self.table.lens().get(first..end)?;
        if self.starts[first..end].iter().any(Option::is_none) {
            return None;
        }
        let start = self.starts[first]? as usize;
        let len: usize = lens.iter().map(|&len| len as usize).sum();
        Some(&self.bytes[start..start + len])
    }

    /// Whether all chunks of a run are there.
    pub fn has(&self, run: &Run) -> bool {
        let starts = self.starts.get(run.first as usize..(run.first + run.count) as usize);
        starts.is_some_and(|starts| starts.iter().all(Option::is_some))
    }

    /// Whether all chunks are there.
    pub fn is_whole(&self) -> bool {
        self.starts.iter().all(Option::is_some)
    }

    /// For each chunk whether it is there.
    pub fn present(&self) -> impl ExactSizeIterator<Item = bool> + '_ {
        self.starts.iter().map(Option::is_some)
    }

    /// The chunks that are there, end to end in table order.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn new(kind: Kind, record: &FrameRecord, bytes: Vec<u8>, spare: Arc<Spare>) -> Self {
        let (table, delta) = (record.table.clone(), record.is_delta());
        let mut at = 0;
        let place = |(i, &len): (usize, &u32)| {
            record.has(i).then(|| {
                let start = at;
                at += len;
                start
            })
        };
        let starts = table.lens().iter().enumerate().map(place).collect();
        Self { kind, verified: false, table, starts, bytes, delta, damage: None, searched: false, spare }
    }
}
