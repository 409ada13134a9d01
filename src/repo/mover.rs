//! The one mover of frames: what is stored already goes into new packs, and packs into new index segments, one after another.
//!
//! A frame that does not open, decompress and fit all its ids is not moved. One that loses nothing keeps its compressed bytes and is only
//! sealed anew. One that loses chunks (it is thinned) is compressed again, against that part of its base that stands for what is left.
//! Packs and segments are read back from the store before anybody is told of them, so that whoever moves frames may let go of the old
//! ones. Which frames are moved, and what becomes of the old packs, is the operations' business.

use std::sync::Arc;

use rayon::prelude::*;

use super::Repository;
use super::frames::Frame;
use super::marks::Ordinals;
use super::pack::{OpenPack, SealedPack};
use super::reader::{Bases, Reader};
use crate::backend::Place;
use crate::compression::{CompressionError, Compressor, Level, Texture, decompress};
use crate::crypto::Sealer;
use crate::error::{Error, Result};
use crate::format::envelope::Kind;
use crate::format::frame::{Base, Codec, FrameRecord, Present};
use crate::format::segment::{PackRecord, Segment};
use crate::id::{FrameId, ObjectName};
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
    repository: &'a Repository,
    reader: Arc<Reader>,
    data: (Sealer, Option<OpenPack>),
    catalog: (Sealer, Option<OpenPack>),
    level: Level,
    dry_run: bool,
    packs: Vec<PackRecord>,
}

impl<'a> Mover<'a> {
    pub fn start(repository: &'a Repository, level: Level) -> Result<Self> {
        let side = |kind| (repository.sealer(kind), None);
        let (data, catalog) = (side(Kind::DataPack), side(Kind::CatalogPack));
        Ok(Self { repository, reader: repository.reader()?.clone(), data, catalog, level, dry_run: false, packs: Vec::new() })
    }

    /// Does everything but the storing.
    pub fn dry_run(self, dry_run: bool) -> Self {
        Self { dry_run, ..self }
    }

    /// Moves frames, in order. What could not be verified, or not be read, is not moved: for each frame, how that went. An error means
    /// that new packs cannot be stored.
    pub fn take(&mut self, moves: &[Move]) -> Result<Vec<Result<()>>> {
        let mut outcomes = Vec::with_capacity(moves.len());
        for batch in moves.chunks(FETCH_FRAMES) {
            let lifted: Vec<Result<Lifted>> = batch.par_iter().with_max_len(1).map(|frame| self.lift(frame)).collect();
            for result in lifted {
                outcomes.push(match result {
                    Ok((kind, record, compressed)) => Ok(self.add(kind, &record, &compressed)?),
                    Err(error) => Err(error),
                });
            }
        }
        Ok(outcomes)
    }

    /// Adds the chunks of a frame that are at hand, without a base.
    pub fn add_plain(&mut self, kind: Kind, id: FrameId, frame: &Frame) -> Result<()> {
        let broken = |_| Error::ReadBack(format!("frame {id}"));
        let (codec, base, compressed) = self.compress(frame.bytes(), Base::default()).map_err(broken)?;
        let present = (!frame.is_whole()).then(|| Present::from_flags(frame.present()));
        let record = FrameRecord { id, offset: 0, stored_len: 0, codec, table: frame.table.clone(), present, base };
        self.add(kind, &record, &compressed)
    }

    /// Adds a frame as it is: its bytes, compressed as its record says, are sealed anew. They were verified by whoever has them.
    pub fn add(&mut self, kind: Kind, record: &FrameRecord, compressed: &[u8]) -> Result<()> {
        let side = if kind == Kind::CatalogPack { &mut self.catalog } else { &mut self.data };
        let (sealer, open) = side;
        let associated_data = record.seal_info().associated_data(&self.repository.id(), kind);
        let sealed = sealer.seal(&associated_data, compressed);
        if sealer.open(&associated_data, &sealed).as_deref() != Some(compressed) {
            return Err(Error::ReadBack(format!("frame {}", record.id)));
        }
        let pack = open.get_or_insert_with(|| OpenPack::new(sealer, Vec::new()));
        pack.add(record.clone(), &sealed);
        if pack.is_full() { self.close(kind) } else { Ok(()) }
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
        let codec = compressor.compress(Texture::Mixed, plain, &mut alone)?;
        if codec == Codec::Stored {
            alone = plain.to_vec();
        }
        let prefix = if base.0.is_empty() { None } else { self.reader.prefix(&base, Bases::Good).ok() };
        let mut delta = Vec::new();
        let delta_codec = prefix.as_ref().map(|prefix| compressor.compress_delta(prefix, plain, &mut delta)).transpose()?;
        let (codec, base, prefix, compressed) = match delta_codec.filter(|_| delta.len() * 10 < alone.len() * 9) {
            Some(codec) => (codec, Some(base), prefix, delta),
            None => (codec, None, None, alone),
        };
        match decompress(codec, prefix.as_deref(), &compressed, plain.len())? == plain {
            true => Ok((codec, base, compressed)),
            false => Err(CompressionError::wrong()),
        }
    }

    fn close(&mut self, kind: Kind) -> Result<()> {
        let (sealer, open) = if kind == Kind::CatalogPack { &mut self.catalog } else { &mut self.data };
        let Some(pack) = open.take() else { return Ok(()) };
        let SealedPack { name, bytes, frames } = pack.end(sealer)?;
        self.packs.push(PackRecord { name, kind, size: bytes.len() as u64, frames });
        if self.dry_run {
            return Ok(());
        }
        self.repository.put_and_read_back(&Place::pack(name), &bytes)
    }

    /// Stores what is left. The packs are in no segment yet.
    pub fn finish(mut self) -> Result<Vec<PackRecord>> {
        self.close(Kind::DataPack)?;
        self.close(Kind::CatalogPack)?;
        Ok(self.packs)
    }
}

impl Reader {
    /// Whether a frame in a pack is what its record says; read from the medium if the pack was dropped from caches before.
    pub fn verify_in(&self, pack: ObjectName, record: &FrameRecord) -> Result<()> {
        self.read_exact(pack, record).map(drop)
    }
}

impl Repository {
    /// Stores segments that list these packs, as many as it takes, and returns their names.
    pub fn save_segments(&self, packs: Vec<PackRecord>, replaces: Vec<ObjectName>) -> Result<Vec<ObjectName>> {
        let mut names = Vec::new();
        let mut chunks = 0;
        let mut batch = Vec::new();
        for pack in packs {
            chunks += pack.frames.iter().map(|frame| frame.table.len()).sum::<usize>();
            batch.push(pack);
            if chunks >= CHECKPOINT_CHUNKS {
                names.push(self.save_segment(&Segment { replaces: Vec::new(), packs: std::mem::take(&mut batch) })?);
                chunks = 0;
            }
        }
        // The last one says what all of them together replace: when it is seen, so are the others.
        if !batch.is_empty() || !replaces.is_empty() {
            names.push(self.save_segment(&Segment { replaces, packs: batch })?);
        }
        Ok(names)
    }

    fn save_segment(&self, segment: &Segment) -> Result<ObjectName> {
        let stored = self.seal_object(Kind::Segment, &segment.encode())?;
        let name = ObjectName::of(&stored);
        self.put_and_read_back(&Place::segment(name), &stored)?;
        Ok(name)
    }

    /// Stores an object and reads it from the store again.
    fn put_and_read_back(&self, place: &Place, bytes: &[u8]) -> Result<()> {
        self.backend.put(place, bytes)?;
        self.backend.forget_cached(place);
        match self.backend.get(place, bytes.len() as u64)? == bytes {
            true => Ok(()),
            false => Err(Error::damaged(place, "the store gives it back with other bytes than were written just now")),
        }
    }
}
