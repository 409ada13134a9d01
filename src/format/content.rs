//! What a file's or stream's bytes are: length, whole-content hash, holes, and the recipe that brings them back.

use super::codec::{Reader, Write};
use super::recipe::Recipe;
use super::{FormatError, Result};
use crate::id::ContentHash;

/// How stored bytes relate to the file's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Encoding {
    /// The recipe gives the file's bytes.
    Plain = 0,
}

/// A stretch of a sparse file without bytes of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    pub offset: u64,
    pub len: u64,
}

/// The bytes of a file or stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub encoding: Encoding,
    /// Length of the file in bytes, holes included.
    pub size: u64,
    /// Plain BLAKE3 of the file's bytes without its holes (so of the whole file where it has none).
    pub hash: ContentHash,
    /// In order, apart, inside the file.
    pub holes: Vec<Hole>,
    pub recipe: Recipe,
}

impl Content {
    /// Bytes that the recipe gives.
    pub fn stored_len(&self) -> u64 {
        self.size - self.holes.iter().map(|hole| hole.len).sum::<u64>()
    }

    pub fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.put_u8(self.encoding as u8);
        bytes.put_varint(self.size);
        bytes.put_bytes(&self.hash.0);
        bytes.put_varint(self.holes.len() as u64);
        let mut end = 0;
        for hole in &self.holes {
            bytes.put_varint(hole.offset - end);
            bytes.put_varint(hole.len);
            end = hole.offset + hole.len;
        }
        self.recipe.encode(bytes);
    }

    pub fn decode(reader: &mut Reader) -> Result<Self> {
        let encoding = match reader.u8("encoding")? {
            0 => Encoding::Plain,
            other => return Err(FormatError::Unknown { what: "encoding of content", value: other.into() }),
        };
        let size = reader.varint("size")?;
        let hash = ContentHash(reader.array("content hash")?);
        let count = reader.count(2, "number of holes")?;
        let mut holes = Vec::with_capacity(count);
        let mut end = 0u64;
        for _ in 0..count {
            let gap = reader.varint("place of a hole")?;
            let len = reader.varint("length of a hole")?;
            let offset = end.checked_add(gap);
            let hole = offset.and_then(|offset| Some((offset, offset.checked_add(len)?)));
            match hole {
                Some((offset, hole_end)) if hole_end <= size && len > 0 => {
                    end = hole_end;
                    holes.push(Hole { offset, len });
                }
                _ => return Err(reader.malformed("place of a hole")),
            }
        }
        Ok(Self { encoding, size, hash, holes, recipe: Recipe::decode(reader)? })
    }
}
