//! Index segments: what some packs hold, sealed and immutable. All segments together are the index.
//!
//! A segment may say which older segments it replaces; those are ignored wherever both are seen.

use super::codec::{Reader, Write};
use super::envelope::Kind;
use super::frame::{Codec, FrameRecord, SealInfo, is_known_flags};
use super::pack::FRAMES_START;
use super::{FormatError, Result};
use crate::id::{FrameId, ObjectName};
use crate::limits::*;

/// Where a frame is and how to open it. Its chunk table is in its box, and again in its pack's footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameEntry {
    pub info: SealInfo,
    /// Where its box begins in the pack; not stored, frames lie end to end.
    pub offset: u64,
    pub stored_len: u32,
    /// Chunks in its table.
    pub chunks: u32,
}

impl FrameEntry {
    pub fn of(record: &FrameRecord) -> Self {
        Self { info: record.seal_info(), offset: record.offset, stored_len: record.stored_len, chunks: record.table.len() as u32 }
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.put_bytes(&self.info.id.0);
        bytes.put_varint(self.stored_len.into());
        bytes.put_u8(self.info.codec as u8);
        bytes.put_u8(self.info.flags);
        bytes.put_varint(self.info.plain_len.into());
        bytes.put_varint(self.chunks.into());
    }

    fn decode(reader: &mut Reader, offset: u64) -> Result<Self> {
        let id = FrameId(reader.array("frame id")?);
        let stored_len = reader.length(FRAME_STORED_BYTES_MAX, "stored length of a frame")? as u32;
        let codec = Codec::from_byte(reader.u8("codec")?)?;
        let flags = reader.u8("flags of a frame")?;
        if !is_known_flags(flags) {
            return Err(FormatError::Unknown { what: "flags of a frame", value: flags.into() });
        }
        let plain_len = reader.length(FRAME_BYTES_MAX, "plain length of a frame")? as u32;
        let chunks = reader.length(FRAME_CHUNKS_MAX, "chunks of a frame")? as u32;
        Ok(Self { info: SealInfo { id, codec, flags, plain_len }, offset, stored_len, chunks })
    }
}

/// A pack and its frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackRecord {
    pub name: ObjectName,
    /// [`Kind::DataPack`] or [`Kind::CatalogPack`].
    pub kind: Kind,
    /// Stored bytes.
    pub size: u64,
    pub frames: Vec<FrameEntry>,
}

/// The contents of an index segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    pub replaces: Vec<ObjectName>,
    pub packs: Vec<PackRecord>,
}

impl Segment {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.put_varint(self.replaces.len() as u64);
        for name in &self.replaces {
            bytes.put_bytes(&name.0);
        }
        bytes.put_varint(self.packs.len() as u64);
        for pack in &self.packs {
            bytes.put_bytes(&pack.name.0);
            bytes.put_u8(pack.kind as u8);
            bytes.put_u64(pack.size);
            bytes.put_varint(pack.frames.len() as u64);
            pack.frames.iter().for_each(|frame| frame.encode(&mut bytes));
        }
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let count = reader.count(ObjectName::LEN, "number of replaced segments")?;
        let mut replaces = Vec::with_capacity(count);
        for _ in 0..count {
            replaces.push(ObjectName(reader.array("replaced segment")?));
        }
        let count = reader.count(42, "number of packs")?;
        let mut packs = Vec::with_capacity(count);
        for _ in 0..count {
            let name = ObjectName(reader.array("name of a pack")?);
            let kind = Kind::from_byte(reader.u8("kind of a pack")?)?;
            if !matches!(kind, Kind::DataPack | Kind::CatalogPack) {
                return Err(reader.malformed("kind of a pack"));
            }
            let size = reader.u64("size of a pack")?;
            packs.push(PackRecord { name, kind, size, frames: decode_frames(&mut reader)? });
        }
        reader.finish()?;
        Ok(Self { replaces, packs })
    }
}

fn decode_frames(reader: &mut Reader) -> Result<Vec<FrameEntry>> {
    let count = reader.count(37, "number of frames")?;
    let mut frames = Vec::with_capacity(count);
    let mut offset = FRAMES_START;
    for _ in 0..count {
        let frame = FrameEntry::decode(reader, offset)?;
        offset += u64::from(frame.stored_len);
        frames.push(frame);
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::super::frame::tests::sample;
    use super::*;

    #[test]
    fn segments_round_trip_and_every_prefix_fails_cleanly() {
        let first = sample(FRAMES_START, 3);
        let frames = vec![FrameEntry::of(&first), FrameEntry::of(&sample(first.end(), 0))];
        let pack = PackRecord { name: ObjectName([1; 32]), kind: Kind::DataPack, size: 12345, frames };
        let segment = Segment { replaces: vec![ObjectName([2; 32])], packs: vec![pack] };
        let bytes = segment.encode();
        assert_eq!(Segment::decode(&bytes).unwrap(), segment);
        for len in 0..bytes.len() {
            assert!(Segment::decode(&bytes[..len]).is_err());
        }
    }
}
