//! Frames: the chunk table, where a frame lies in its pack, and the base of a delta frame. A frame's box holds nothing but its
//! compressed bytes; what is said of it stands in its pack's footer and in an index segment, which are different files.
//!
//! A frame's id is the keyed hash of its chunk table, so the table is verified by the id and the chunks by the table.
//! A thinned frame keeps its table and id and leaves dead chunks out; its bitmap says which are there.
//! A delta frame's base is a list of runs of old chunks, each with the new chunk it stands for; a base never lies in a delta frame.

use super::codec::{Reader, Write};
use super::envelope::Kind;
use super::{FormatError, Result};
use crate::id::{ChunkId, FrameId, RepositoryId};
use crate::limits::*;

/// How the bytes of a frame are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    Stored = 0,
    Zstd = 1,
    /// Copies from the base with new bytes between them: of delta frames only.
    Patch = 2,
}

impl Codec {
    pub fn from_byte(byte: u8) -> Result<Self> {
        match byte {
            0 => Ok(Self::Stored),
            1 => Ok(Self::Zstd),
            2 => Ok(Self::Patch),
            _ => Err(FormatError::Unknown { what: "codec", value: byte.into() }),
        }
    }
}

pub(super) const FLAG_DELTA: u8 = 1;
pub(super) const FLAG_THINNED: u8 = 2;

/// The ids and lengths of a frame's chunks, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChunkTable {
    ids: Vec<ChunkId>,
    lens: Vec<u32>,
}

impl ChunkTable {
    /// Of as many lengths as ids, each within the limits.
    pub(super) fn from_parts(ids: Vec<ChunkId>, lens: Vec<u32>) -> Self {
        assert_eq!(ids.len(), lens.len());
        Self { ids, lens }
    }

    pub fn push(&mut self, id: ChunkId, len: usize) {
        assert!(len > 0 && len <= CHUNK_BYTES_MAX, "a chunk of {len} bytes");
        self.ids.push(id);
        self.lens.push(len as u32);
    }

    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub fn ids(&self) -> &[ChunkId] {
        &self.ids
    }

    /// Length in bytes of each chunk.
    pub fn lens(&self) -> &[u32] {
        &self.lens
    }

    /// Plain bytes of all chunks together.
    pub fn plain_len(&self) -> usize {
        self.lens.iter().map(|&len| len as usize).sum()
    }

    /// `count`, then the ids, then the lengths as varints. The frame id is the keyed hash of these bytes.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.put_varint(self.len() as u64);
        for id in &self.ids {
            bytes.put_bytes(&id.0);
        }
        for &len in &self.lens {
            bytes.put_varint(len.into());
        }
    }

    pub fn decode(reader: &mut Reader) -> Result<Self> {
        let count = reader.count(17, "number of chunks")?;
        if count == 0 || count > FRAME_CHUNKS_MAX {
            return Err(reader.malformed("number of chunks"));
        }
        let ids = reader.bytes(count * ChunkId::LEN, "chunk ids")?;
        let ids = ids.as_chunks::<{ ChunkId::LEN }>().0.iter().map(|id| ChunkId(*id)).collect();
        let mut lens = Vec::with_capacity(count);
        let mut plain = 0;
        for _ in 0..count {
            let len = reader.length(CHUNK_BYTES_MAX, "length of a chunk")?;
            plain += len;
            if len == 0 || plain > FRAME_BYTES_MAX {
                return Err(reader.malformed("length of a chunk"));
            }
            lens.push(len as u32);
        }
        Ok(Self { ids, lens })
    }
}

/// Which chunks of a thinned frame are there; a set bit means present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present(Vec<u8>);

impl Present {
    /// From one flag a chunk.
    pub fn from_flags(flags: impl ExactSizeIterator<Item = bool>) -> Self {
        let mut bits = vec![0u8; flags.len().div_ceil(8)];
        for (i, present) in flags.enumerate() {
            bits[i / 8] |= u8::from(present) << (i % 8);
        }
        Self(bits)
    }

    pub fn has(&self, ordinal: usize) -> bool {
        self.0.get(ordinal / 8).is_some_and(|bits| bits >> (ordinal % 8) & 1 == 1)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn decode(reader: &mut Reader, chunks: usize) -> Result<Self> {
        let bits = reader.bytes(chunks.div_ceil(8), "bitmap of present chunks")?.to_vec();
        let spare = bits.len() * 8 - chunks;
        if bits.last().is_some_and(|last| spare > 0 && last >> (8 - spare) != 0) {
            return Err(reader.malformed("bitmap of present chunks"));
        }
        Ok(Self(bits))
    }
}

/// A run of old chunks in the base of a delta frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseRun {
    /// The new chunk at which this run begins to stand for what is new; never decreases.
    pub at: u32,
    pub frame: FrameId,
    pub first: u32,
    pub count: u32,
}

/// The old chunks a delta frame is compressed against, in the order of the zstd prefix; one named twice is in the prefix once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base(pub Vec<BaseRun>);

impl Base {
    /// The distinct frames, then the runs as `(at - at before, index of the frame, first, count)`.
    fn decode(reader: &mut Reader, chunks: usize) -> Result<Self> {
        let count = reader.count(FrameId::LEN, "frames of the base")?;
        let mut frames = Vec::with_capacity(count);
        for _ in 0..count {
            frames.push(FrameId(reader.array("frame of the base")?));
        }
        let count = reader.count(4, "runs of the base")?;
        if count == 0 || count > DELTA_BASE_RUNS_MAX {
            return Err(reader.malformed("runs of the base"));
        }
        let mut runs = Vec::with_capacity(count);
        let mut at = 0u32;
        for _ in 0..count {
            at += reader.length(chunks, "place of a run of the base")? as u32;
            if at as usize >= chunks {
                return Err(reader.malformed("place of a run of the base"));
            }
            let index = reader.length(frames.len(), "frame of a run of the base")?;
            let Some(&frame) = frames.get(index) else {
                return Err(reader.malformed("frame of a run of the base"));
            };
            let first = reader.length(FRAME_CHUNKS_MAX, "first chunk of a run of the base")?;
            let count = reader.length(FRAME_CHUNKS_MAX - first, "count of a run of the base")?;
            if count == 0 {
                return Err(reader.malformed("count of a run of the base"));
            }
            runs.push(BaseRun { at, frame, first: first as u32, count: count as u32 });
        }
        Ok(Self(runs))
    }
}

impl Base {
    /// What of it stands in for these chunks: for each, the runs with the largest `at` not above it.
    pub fn for_chunks(&self, mut is_wanted: impl FnMut(usize) -> bool, chunks: usize) -> Self {
        let mut wanted = std::collections::HashSet::new();
        let mut next = 0;
        let mut at = None;
        for chunk in 0..chunks {
            while self.0.get(next).is_some_and(|run| run.at as usize <= chunk) {
                at = Some(self.0[next].at);
                next += 1;
            }
            if is_wanted(chunk) {
                wanted.extend(at);
            }
        }
        Self(self.0.iter().filter(|run| wanted.contains(&run.at)).copied().collect())
    }
}

/// All that is said of a frame besides its bytes: in the pack's footer, and in an index segment again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameRecord {
    pub id: FrameId,
    /// Where its box begins in the pack; not stored, frames lie end to end.
    pub offset: u64,
    /// Length of its box.
    pub stored_len: u32,
    pub codec: Codec,
    pub table: ChunkTable,
    pub present: Option<Present>,
    pub base: Option<Base>,
}

impl FrameRecord {
    pub fn is_delta(&self) -> bool {
        self.base.is_some()
    }

    pub fn has(&self, ordinal: usize) -> bool {
        ordinal < self.table.len() && self.present.as_ref().is_none_or(|present| present.has(ordinal))
    }

    /// Plain bytes of the chunks that are there.
    pub fn present_len(&self) -> usize {
        let lens = self.table.lens().iter().enumerate();
        lens.filter(|(i, _)| self.has(*i)).map(|(_, &len)| len as usize).sum()
    }

    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.stored_len)
    }

    pub fn seal_info(&self) -> SealInfo {
        SealInfo { id: self.id, codec: self.codec, flags: self.flags(), plain_len: self.present_len() as u32 }
    }

    pub(super) fn flags(&self) -> u8 {
        let delta = if self.base.is_some() { FLAG_DELTA } else { 0 };
        delta | if self.present.is_some() { FLAG_THINNED } else { 0 }
    }

    /// Parses one as format version 1 has it: all of a frame in one place.
    pub(super) fn decode(reader: &mut Reader, offset: u64) -> Result<Self> {
        let id = FrameId(reader.array("frame id")?);
        let stored_len = reader.length(FRAME_STORED_BYTES_MAX, "stored length of a frame")? as u32;
        let codec = match Codec::from_byte(reader.u8("codec")?)? {
            Codec::Patch => return Err(reader.malformed("codec")),
            codec => codec,
        };
        let flags = reader.u8("flags of a frame")?;
        let (table, present, base) = decode_shape(reader, flags)?;
        Ok(Self { id, offset, stored_len, codec, table, present, base })
    }
}

/// Whether this build knows all flags of a frame.
pub fn is_known_flags(flags: u8) -> bool {
    flags & !(FLAG_DELTA | FLAG_THINNED) == 0
}

fn decode_shape(reader: &mut Reader, flags: u8) -> Result<(ChunkTable, Option<Present>, Option<Base>)> {
    if !is_known_flags(flags) {
        return Err(FormatError::Unknown { what: "flags of a frame", value: flags.into() });
    }
    let table = ChunkTable::decode(reader)?;
    let present = match flags & FLAG_THINNED {
        0 => None,
        _ => Some(Present::decode(reader, table.len())?),
    };
    let base = match flags & FLAG_DELTA {
        0 => None,
        _ => Some(Base::decode(reader, table.len())?),
    };
    Ok((table, present, base))
}

/// What a frame's box is bound to, besides its pack's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealInfo {
    pub id: FrameId,
    pub codec: Codec,
    pub flags: u8,
    /// Plain bytes of the chunks that are there.
    pub plain_len: u32,
}

impl SealInfo {
    pub fn is_delta(&self) -> bool {
        self.flags & FLAG_DELTA != 0
    }

    /// Whether some of its chunks are left out.
    pub fn is_thinned(&self) -> bool {
        self.flags & FLAG_THINNED != 0
    }

    pub fn associated_data(&self, repository: &RepositoryId, pack: Kind) -> Vec<u8> {
        let mut bytes = b"snap1 frame".to_vec();
        bytes.put_u8(1);
        bytes.put_bytes(&repository.0);
        bytes.put_u8(pack as u8);
        bytes.put_bytes(&self.id.0);
        bytes.put_u8(self.codec as u8);
        bytes.put_u8(self.flags);
        bytes.put_u32(self.plain_len);
        bytes
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample(offset: u64, seed: u8) -> FrameRecord {
        let mut table = ChunkTable::default();
        for i in 0..9 {
            table.push(ChunkId([seed ^ i; 16]), 1000 * (i as usize + 1));
        }
        let runs = [(0, 1, 3, 2), (0, 2, 0, 1), (4, 1, 9, 9)];
        let runs = runs.map(|(at, frame, first, count)| BaseRun { at, frame: FrameId([frame; 32]), first, count });
        FrameRecord {
            id: FrameId([seed; 32]),
            offset,
            stored_len: 777,
            codec: Codec::Zstd,
            table,
            present: (seed & 1 == 1).then(|| Present::from_flags((0..9).map(|i| i % 3 != 0))),
            base: (seed & 2 == 2).then(|| Base(runs.to_vec())),
        }
    }

    /// A list as format version 1 had it, which nobody writes any more.
    pub(crate) fn encode_records(frames: &[FrameRecord]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.put_varint(frames.len() as u64);
        for frame in frames {
            bytes.put_bytes(&frame.id.0);
            bytes.put_varint(frame.stored_len.into());
            bytes.put_u8(frame.codec as u8);
            bytes.put_u8(frame.flags());
            frame.table.encode(&mut bytes);
            if let Some(present) = &frame.present {
                bytes.put_bytes(&present.0);
            }
            if let Some(base) = &frame.base {
                encode_base(base, &mut bytes);
            }
        }
        bytes
    }

    fn encode_base(base: &Base, bytes: &mut Vec<u8>) {
        let mut frames: Vec<FrameId> = base.0.iter().map(|run| run.frame).collect();
        frames.dedup();
        bytes.put_varint(frames.len() as u64);
        frames.iter().for_each(|frame| bytes.put_bytes(&frame.0));
        bytes.put_varint(base.0.len() as u64);
        let mut at = 0;
        for run in &base.0 {
            let index = frames.iter().rposition(|id| *id == run.frame).unwrap();
            for value in [run.at - at, index as u32, run.first, run.count] {
                bytes.put_varint(value.into());
            }
            at = run.at;
        }
    }

    #[test]
    fn a_part_of_a_base_stands_in_for_some_chunks() {
        let base = sample(0, 2).base.unwrap();
        let part = |wanted: &[usize]| base.for_chunks(|chunk| wanted.contains(&chunk), 9).0;
        assert_eq!(part(&[3]), base.0[..2]);
        assert_eq!(part(&[4, 8]), base.0[2..]);
        assert_eq!(part(&[0, 5]), base.0);
        assert_eq!(part(&[]), []);
        let late = Base(base.0[2..].to_vec());
        assert_eq!(late.for_chunks(|chunk| chunk < 4, 9).0, [], "nothing stands for what is before the first");
    }

    #[test]
    fn a_thinned_frame_counts_only_what_is_there() {
        let record = sample(0, 1);
        assert!(!record.has(0) && record.has(1) && record.has(8) && !record.has(9));
        assert_eq!(record.present_len(), (2 + 3 + 5 + 6 + 8 + 9) * 1000);
    }
}
