//! Moving frames from pack to pack, verified: a frame that does not open, decompress and fit all its ids is not moved.
//!
//! A frame that loses nothing keeps its compressed bytes and is only sealed anew. One that loses chunks (it is thinned) is compressed
//! again, against that part of its base that stands for what is left. Both are opened again and compared before they leave memory.

use std::collections::HashSet;
use std::sync::Arc;

use rayon::prelude::*;

use super::Repository;
use super::gather::FrameJob;
use super::marks::Ordinals;
use super::reader::Reader;
use super::writer::{Cost, Writer, WriterOptions};
use crate::error::{Error, Result};
use crate::format::envelope::Kind;
use crate::format::frame::{Base, FrameRecord, Present};
use crate::id::ObjectName;
use crate::limits::*;

/// A frame that is to be moved.
#[derive(Clone)]
pub struct Move {
    pub pack: ObjectName,
    pub record: Arc<FrameRecord>,
    /// Chunks that are kept, of those that are there.
    pub keep: Ordinals,
}

/// A frame on its way.
enum Lifted {
    /// As it is: its record and its sealed box.
    Whole(Kind, FrameRecord, Vec<u8>),
    Thinned(FrameJob),
}

/// Moves frames into new packs. What it takes them from is left as it is.
pub struct Mover {
    writer: Writer,
    reader: Arc<Reader>,
}

impl Mover {
    pub fn start(repository: &Repository, options: WriterOptions) -> Result<Self> {
        Ok(Self { writer: Writer::for_moving(repository, options)?, reader: repository.reader()?.clone() })
    }

    /// Moves frames, in order. What could not be verified, or not be read, is not moved: for each frame, how that went. An error means
    /// that new packs cannot be stored.
    pub fn add(&mut self, moves: &[Move]) -> Result<Vec<Result<()>>> {
        let mut outcomes = Vec::with_capacity(moves.len());
        for batch in moves.chunks(FETCH_FRAMES) {
            let lifted: Vec<Result<Lifted>> = batch.par_iter().with_max_len(1).map(|frame| self.lift(frame)).collect();
            for result in lifted {
                outcomes.push(match result {
                    Ok(lifted) => self.put_down(lifted).map(Ok).map_err(|error| self.writer.first_failure(error))?,
                    Err(error) => Err(error),
                });
            }
            self.writer.check()?;
        }
        Ok(outcomes)
    }

    /// Reads and verifies a frame, and gets it ready for another pack.
    fn lift(&self, frame: &Move) -> Result<Lifted> {
        let record = &*frame.record;
        let (kind, decoded, payload) = self.reader.read_exact(frame.pack, record)?;
        let kept: Vec<bool> = (0..record.table.len()).map(|i| record.has(i) && frame.keep.has(i)).collect();
        if (0..record.table.len()).any(|i| record.has(i) && !kept[i]) {
            let chunks = (0..kept.len()).filter(|&i| kept[i]).filter_map(|i| decoded.chunk(i));
            let plain = chunks.collect::<Vec<_>>().concat();
            let base = record.base.as_ref().map_or_else(Base::default, |base| base.for_chunks(|i| kept[i], kept.len()));
            let present = Some(Present::from_flags(kept.into_iter()));
            return Ok(Lifted::Thinned(FrameJob { kind, id: record.id, table: record.table.clone(), present, plain, base }));
        }
        let associated_data = record.seal_info().associated_data(&self.reader.locator().repository(), kind);
        let sealer = self.writer.packer().sealer(kind);
        let sealed = sealer.seal(&associated_data, &payload);
        if sealer.open(&associated_data, &sealed).as_ref() != Some(&payload) {
            return Err(Error::ReadBack(format!("frame {}", record.id)));
        }
        Ok(Lifted::Whole(kind, FrameRecord { stored_len: sealed.len() as u32, ..record.clone() }, sealed))
    }

    fn put_down(&self, lifted: Lifted) -> Result<()> {
        match lifted {
            Lifted::Whole(kind, record, sealed) => self.writer.packer().add(kind, record, sealed),
            Lifted::Thinned(job) => self.writer.seal(job),
        }
    }

    /// Waits until all is durable, packs and a segment that lists them, and returns the names of the packs.
    pub fn finish(self) -> Result<(Cost, HashSet<ObjectName>)> {
        let (cost, reliance) = self.writer.finish()?;
        Ok((cost, reliance.into_packs()))
    }
}

impl Reader {
    /// Whether a frame in a pack is what its record says; read from the medium if the pack was dropped from caches before.
    pub fn verify_in(&self, pack: ObjectName, record: &FrameRecord) -> Result<()> {
        self.read_exact(pack, record).map(drop)
    }
}
