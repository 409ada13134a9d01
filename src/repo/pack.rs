//! A pack in memory, until it is stored.
//!
//! Sealed frames may wait here for seconds before a pack is full. Each was verified, and is hashed, as it comes in; at the end the
//! bytes must still have the hash of all of them, which is the pack's name, and so must the records.

use super::objects;
use super::stages::{Stage, between};
use crate::crypto::Sealer;
use crate::error::{Error, Result};
use crate::format::codec::Reader;
use crate::format::envelope::footer_associated_data;
use crate::format::frame::FrameRecord;
use crate::format::list::{decode_frames, encode_frames};
use crate::format::pack::{FRAMES_START, TRAILER_BYTES, encode_trailer};
use crate::id::ObjectName;
use crate::limits::*;

/// A pack that is being filled.
pub struct OpenPack {
    bytes: Vec<u8>,
    frames: Vec<FrameRecord>,
    chunks: usize,
    hasher: blake3::Hasher,
    /// Of the records, each as a list of its own.
    record_hasher: blake3::Hasher,
}

/// A pack with its footer.
pub struct SealedPack {
    pub name: ObjectName,
    pub bytes: Vec<u8>,
    pub frames: Vec<FrameRecord>,
}

impl OpenPack {
    /// An empty pack, in memory that is used again.
    pub fn new(sealer: &Sealer, mut memory: Vec<u8>) -> Self {
        memory.clear();
        let mut pack =
            Self { bytes: memory, frames: Vec::new(), chunks: 0, hasher: blake3::Hasher::new(), record_hasher: blake3::Hasher::new() };
        pack.append(&sealer.header().encode());
        pack
    }

    fn append(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends a frame's box, which has just been verified.
    pub fn add(&mut self, record: FrameRecord, sealed: &[u8]) {
        let record = FrameRecord { offset: self.bytes.len() as u64, stored_len: sealed.len() as u32, ..record };
        assert!(self.frames.last().map_or(FRAMES_START, FrameRecord::end) == record.offset);
        self.append(sealed);
        self.chunks += record.table.len();
        hash_record(&mut self.record_hasher, &record);
        self.frames.push(record);
    }

    pub fn is_full(&self) -> bool {
        self.bytes.len() >= PACK_BYTES_TARGET || self.chunks >= CHECKPOINT_CHUNKS / 4
    }

    /// Appends the footer and the trailer, and names the pack.
    pub fn end(mut self, sealer: &Sealer) -> Result<SealedPack> {
        between(Stage::Packed, &mut self.bytes);
        let list = encode_frames(&self.frames);
        let mut record_hasher = blake3::Hasher::new();
        self.frames.iter().for_each(|record| hash_record(&mut record_hasher, record));
        if record_hasher.finalize() != self.record_hasher.finalize() {
            return Err(Error::ReadBack("the list of frames of a pack".into()));
        }
        let read_back = || Error::ReadBack("the footer of a pack".into());
        let plain = objects::to_plain(&list).map_err(|_| read_back())?;
        let associated_data = footer_associated_data(sealer.header(), self.bytes.len() as u64);
        let sealed = sealer.seal(&associated_data, &plain);
        let opened = sealer.open(&associated_data, &sealed).and_then(|plain| objects::from_plain(&plain).ok());
        if opened.as_ref() != Some(&list) {
            return Err(read_back());
        }
        self.bytes.reserve(sealed.len() + TRAILER_BYTES);
        self.append(&sealed);
        self.append(&encode_trailer(sealed.len() as u32));
        let name = ObjectName(*self.hasher.finalize().as_bytes());
        match ObjectName::of(&self.bytes) == name {
            true => Ok(SealedPack { name, bytes: self.bytes, frames: self.frames }),
            false => Err(Error::ReadBack(format!("pack {name}"))),
        }
    }
}

/// The list in the plain text of a footer, of a pack of this format version.
pub(super) fn decode_footer(version: u16, plain: &[u8]) -> crate::format::Result<Vec<FrameRecord>> {
    let packed = if version == 1 { None } else { Some(objects::from_plain(plain)?) };
    let mut reader = Reader::new(packed.as_deref().unwrap_or(plain));
    let frames = decode_frames(version, &mut reader)?;
    reader.finish()?;
    Ok(frames)
}

fn hash_record(hasher: &mut blake3::Hasher, record: &FrameRecord) {
    hasher.update(&encode_frames(std::slice::from_ref(record)));
}
