//! Index segments: what some packs hold, sealed and immutable. All segments together are the index.
//!
//! A segment may say which older segments it replaces; those may be ignored where both are seen.

use super::Result;
use super::codec::{Reader, Write};
use super::envelope::Kind;
use super::frame::FrameRecord;
use super::list::{decode_frames, encode_frames};
use crate::id::ObjectName;

/// A pack and its frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackRecord {
    pub name: ObjectName,
    /// [`Kind::DataPack`] or [`Kind::CatalogPack`].
    pub kind: Kind,
    /// Stored bytes.
    pub size: u64,
    pub frames: Vec<FrameRecord>,
}

/// The contents of an index segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    pub replaces: Vec<ObjectName>,
    pub packs: Vec<PackRecord>,
}

impl Segment {
    /// Its body, in the newest layout.
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
            bytes.put_bytes(&encode_frames(&pack.frames));
        }
        bytes
    }

    /// Parses a body in the layout of a format version.
    pub fn decode(version: u16, bytes: &[u8]) -> Result<Self> {
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
            packs.push(PackRecord { name, kind, size, frames: decode_frames(version, &mut reader)? });
        }
        reader.finish()?;
        Ok(Self { replaces, packs })
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::tests::sample;
    use super::super::pack::FRAMES_START;
    use super::*;
    use crate::limits::LIST_VERSION;

    #[test]
    fn segments_round_trip_and_every_prefix_fails_cleanly() {
        let frames = vec![sample(FRAMES_START, 3)];
        let pack = PackRecord { name: ObjectName([1; 32]), kind: Kind::DataPack, size: 12345, frames };
        let segment = Segment { replaces: vec![ObjectName([2; 32])], packs: vec![pack] };
        let bytes = segment.encode();
        assert_eq!(Segment::decode(LIST_VERSION, &bytes).unwrap(), segment);
        for len in 0..bytes.len() {
            assert!(Segment::decode(LIST_VERSION, &bytes[..len]).is_err());
        }
    }
}
