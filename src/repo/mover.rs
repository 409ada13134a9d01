//! Moving frames from pack to pack, verified: a frame that does not open, decompress and fit all its ids is not moved.
//!
//! A frame that loses nothing keeps its compressed bytes and is only sealed anew. One that loses chunks (it is thinned) is compressed
//! again, against that part of its base that stands for what is left. Packs are read back before anybody is told of them.

use std::sync::Arc;

use rayon::prelude::*;

use super::Repository;
use super::marks::Ordinals;
use super::reader::{Bases, Reader};
use super::repack::Repacker;
use crate::compression::{CompressionError, Compressor, Decompressor, Level};
use crate::error::{Error, Result};
use crate::format::envelope::Kind;
use crate::format::frame::{Base, Codec, FrameRecord, Present};
use crate::format::segment::PackRecord;
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

/// A frame on its way: its pack's kind, its record, and its compressed bytes.
type Lifted = (Kind, FrameRecord, Vec<u8>);

/// Moves frames into new packs. What it takes them from is left as it is.
pub struct Mover<'a> {
    repacker: Repacker<'a>,
    reader: Arc<Reader>,
    level: Level,
}

impl<'a> Mover<'a> {
    pub fn start(repository: &'a Repository, level: Level) -> Result<Self> {
        Ok(Self { repacker: Repacker::new(repository, false)?, reader: repository.reader()?.clone(), level })
    }

    /// Moves frames, in order. What could not be verified, or not be read, is not moved: for each frame, how that went. An error means
    /// that new packs cannot be stored.
    pub fn add(&mut self, moves: &[Move]) -> Result<Vec<Result<()>>> {
        let mut outcomes = Vec::with_capacity(moves.len());
        for batch in moves.chunks(FETCH_FRAMES) {
            let lifted: Vec<Result<Lifted>> = batch.par_iter().with_max_len(1).map(|frame| self.lift(frame)).collect();
            for result in lifted {
                outcomes.push(match result {
                    Ok((kind, record, compressed)) => Ok(self.repacker.add(kind, &record, &compressed)?),
                    Err(error) => Err(error),
                });
            }
        }
        Ok(outcomes)
    }

    /// Reads and verifies a frame, without what is not kept of it.
    fn lift(&self, frame: &Move) -> Result<Lifted> {
        let record = &*frame.record;
        let (kind, decoded, compressed) = self.reader.read_exact(frame.pack, record)?;
        let kept: Vec<bool> = (0..record.table.len()).map(|i| record.has(i) && frame.keep.has(i)).collect();
        if (0..record.table.len()).all(|i| kept[i] == record.has(i)) {
            return Ok((kind, record.clone(), compressed));
        }
        let chunks = (0..kept.len()).filter(|&i| kept[i]).filter_map(|i| decoded.chunk(i));
        let plain = chunks.collect::<Vec<_>>().concat();
        let base = record.base.as_ref().map_or_else(Base::default, |base| base.for_chunks(|i| kept[i], kept.len()));
        let broken = |_| Error::ReadBack(format!("frame {}", record.id));
        let (codec, base, compressed) = self.compress(&plain, base).map_err(broken)?;
        let present = Some(Present::from_flags(kept.into_iter()));
        Ok((kind, FrameRecord { codec, present, base, ..record.clone() }, compressed))
    }

    /// Against the base if that is clearly smaller, else alone, else as it is; decompressed again and compared.
    fn compress(&self, plain: &[u8], base: Base) -> std::result::Result<(Codec, Option<Base>, Vec<u8>), CompressionError> {
        let mut compressor = Compressor::new(self.level)?;
        let mut alone = Vec::new();
        let codec = compressor.compress(plain, &mut alone)?;
        if codec == Codec::Stored {
            alone = plain.to_vec();
        }
        let prefix = if base.0.is_empty() { None } else { self.reader.prefix(&base, Bases::Good).ok() };
        let mut delta = Vec::new();
        if let Some(prefix) = &prefix {
            compressor.compress_delta(prefix, plain, &mut delta)?;
        }
        let is_smaller = prefix.is_some() && delta.len() * 10 < alone.len() * 9;
        let (codec, base, prefix, compressed) = match is_smaller {
            true => (Codec::Zstd, Some(base), prefix, delta),
            false => (codec, None, None, alone),
        };
        match Decompressor::default().decompress(codec, prefix.as_deref(), &compressed, plain.len())? == plain {
            true => Ok((codec, base, compressed)),
            false => Err(CompressionError::wrong()),
        }
    }

    /// Stores what is left. The packs are in no segment yet.
    pub fn finish(self) -> Result<Vec<PackRecord>> {
        self.repacker.finish()
    }
}

impl Reader {
    /// Whether a frame in a pack is what its record says; read from the medium if the pack was dropped from caches before.
    pub fn verify_in(&self, pack: ObjectName, record: &FrameRecord) -> Result<()> {
        self.read_exact(pack, record).map(drop)
    }
}
