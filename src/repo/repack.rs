//! Frames that are stored already go into new packs, and packs into new index segments: one after another, on one thread.
//!
//! What is written is read back from the store before anybody is told of it, so that whoever moves frames may let go of the old ones.
//! Which frames are moved, and what becomes of the old packs, is the operations' business.

use super::Repository;
use super::frames::Frame;
use super::packer::end_pack;
use crate::backend::Place;
use crate::compression::{Compressor, Decompressor, Level};
use crate::crypto::Sealer;
use crate::error::{Error, Result};
use crate::format::envelope::Kind;
use crate::format::frame::{Codec, FrameRecord, Present};
use crate::format::segment::{PackRecord, Segment};
use crate::id::{FrameId, ObjectName};
use crate::limits::*;

/// A pack that is being filled.
struct OpenPack {
    bytes: Vec<u8>,
    frames: Vec<FrameRecord>,
    chunks: usize,
}

/// Moves frames into new packs.
pub struct Repacker<'a> {
    repository: &'a Repository,
    data: (Sealer, Option<OpenPack>),
    catalog: (Sealer, Option<OpenPack>),
    compressor: Compressor,
    dry_run: bool,
    packs: Vec<PackRecord>,
}

impl<'a> Repacker<'a> {
    /// With `dry_run` everything is done but the storing.
    pub fn new(repository: &'a Repository, dry_run: bool) -> Result<Self> {
        let side = |kind| (repository.sealer(kind), None);
        let compressor = Compressor::new(Level::Auto).map_err(|error| Error::ReadBack(error.to_string()))?;
        let (data, catalog) = (side(Kind::DataPack), side(Kind::CatalogPack));
        Ok(Self { repository, data, catalog, compressor, dry_run, packs: Vec::new() })
    }

    /// Adds a frame as it is: its bytes, compressed as its record says, are sealed anew.
    pub fn add(&mut self, kind: Kind, record: &FrameRecord, compressed: &[u8]) -> Result<()> {
        let side = if kind == Kind::CatalogPack { &mut self.catalog } else { &mut self.data };
        let (sealer, open) = side;
        let associated_data = record.seal_info().associated_data(&self.repository.id(), kind);
        let sealed = sealer.seal(&associated_data, compressed);
        if sealer.open(&associated_data, &sealed).as_deref() != Some(compressed) {
            return Err(Error::ReadBack(format!("frame {}", record.id)));
        }
        let pack = open.get_or_insert_with(|| OpenPack { bytes: sealer.header().encode(), frames: Vec::new(), chunks: 0 });
        pack.frames.push(FrameRecord { offset: pack.bytes.len() as u64, stored_len: sealed.len() as u32, ..record.clone() });
        pack.chunks += record.table.len();
        pack.bytes.extend_from_slice(&sealed);
        match pack.bytes.len() >= PACK_BYTES_TARGET || pack.chunks >= CHECKPOINT_CHUNKS / 4 {
            true => self.close(kind),
            false => Ok(()),
        }
    }

    /// Adds the chunks of a frame that are at hand, without a base.
    pub fn add_plain(&mut self, kind: Kind, id: FrameId, frame: &Frame) -> Result<()> {
        let broken = |_| Error::ReadBack(format!("frame {id}"));
        let mut compressed = Vec::new();
        let codec = self.compressor.compress(frame.bytes(), &mut compressed).map_err(broken)?;
        let present = (!frame.is_whole()).then(|| Present::from_flags(frame.present()));
        let record = FrameRecord { id, offset: 0, stored_len: 0, codec, table: frame.table.clone(), present, base: None };
        if codec == Codec::Stored {
            return self.add(kind, &record, frame.bytes());
        }
        let back = Decompressor::default().decompress(codec, None, &compressed, frame.bytes().len()).map_err(broken)?;
        match back == frame.bytes() {
            true => self.add(kind, &record, &compressed),
            false => Err(Error::ReadBack(format!("frame {id}"))),
        }
    }

    fn close(&mut self, kind: Kind) -> Result<()> {
        let (sealer, open) = if kind == Kind::CatalogPack { &mut self.catalog } else { &mut self.data };
        let Some(OpenPack { mut bytes, frames, .. }) = open.take() else { return Ok(()) };
        end_pack(sealer, &mut bytes, &frames)?;
        let name = ObjectName::of(&bytes);
        self.packs.push(PackRecord { name, kind, size: bytes.len() as u64, frames });
        if self.dry_run {
            return Ok(());
        }
        self.repository.put_and_read_back(&Place::pack(name), &bytes)
    }

    /// Stores what is left; the packs written are in no segment yet.
    pub fn finish(mut self) -> Result<Vec<PackRecord>> {
        self.close(Kind::DataPack)?;
        self.close(Kind::CatalogPack)?;
        Ok(self.packs)
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
