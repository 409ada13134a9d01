//! The list of a pack's frames, as its footer and an index segment hold it.
//!
//! It is written column by column: what is alike stands together, so that what compresses does (the object it is part of is compressed
//! as a whole), and hashes, which nothing makes smaller, come last. Format version 1 had one record after the other; it is read as long
//! as there are packs and segments of it.

use std::collections::{HashMap, HashSet};

use super::codec::{Reader, Write};
use super::frame::{Base, BaseRun, ChunkTable, Codec, FLAG_DELTA, FLAG_THINNED, FrameRecord, Present, is_known_flags};
use super::pack::FRAMES_START;
use super::{FormatError, Result};
use crate::id::{ChunkId, FrameId};
use crate::limits::*;

/// Fewest bytes of a frame, and of a chunk, in a list.
const FRAME_BYTES_MIN: usize = 4 + FrameId::LEN + CHUNK_ENTRY_BYTES;
const CHUNK_ENTRY_BYTES: usize = LEN_PLANES + ChunkId::LEN;
/// Bytes of a chunk's length; all first bytes stand together, then all second ones, then all third ones.
const LEN_PLANES: usize = 3;

/// The list, in the newest layout.
pub fn encode_frames(frames: &[FrameRecord]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_varint(frames.len() as u64);
    for frame in frames {
        bytes.put_varint(frame.table.len() as u64);
    }
    for frame in frames {
        bytes.put_varint(frame.stored_len.into());
    }
    bytes.extend(frames.iter().map(|frame| frame.codec as u8));
    bytes.extend(frames.iter().map(FrameRecord::flags));
    for plane in 0..LEN_PLANES {
        let lens = frames.iter().flat_map(|frame| frame.table.lens());
        bytes.extend(lens.map(|len| len.to_le_bytes()[plane]));
    }
    for present in frames.iter().filter_map(|frame| frame.present.as_ref()) {
        bytes.put_bytes(present.as_bytes());
    }
    let bases = encode_bases(frames, &mut bytes);
    for id in frames.iter().map(|frame| frame.id).chain(bases) {
        bytes.put_bytes(&id.0);
    }
    for id in frames.iter().flat_map(|frame| frame.table.ids()) {
        bytes.put_bytes(&id.0);
    }
    bytes
}

/// Writes the runs of all bases, and returns the frames they are of, in order of first use.
fn encode_bases(frames: &[FrameRecord], bytes: &mut Vec<u8>) -> Vec<FrameId> {
    let mut known = HashMap::new();
    let mut order = Vec::new();
    let [mut at_steps, mut frame_steps, mut firsts, mut counts] = [(); 4].map(|()| Vec::new());
    let mut last = Place::default();
    for base in frames.iter().filter_map(|frame| frame.base.as_ref()) {
        bytes.put_varint(base.0.len() as u64);
        let mut at = 0;
        for run in &base.0 {
            let frame = *known.entry(run.frame).or_insert_with(|| {
                order.push(run.frame);
                order.len() - 1
            });
            at_steps.put_varint((run.at - at).into());
            frame_steps.put_signed(frame as i64 - last.frame as i64);
            firsts.put_signed(i64::from(run.first) - last.expected(frame));
            counts.put_varint(run.count.into());
            at = run.at;
            last = Place { frame, end: run.first + run.count };
        }
    }
    bytes.put_varint(order.len() as u64);
    for column in [at_steps, frame_steps, firsts, counts] {
        bytes.put_bytes(&column);
    }
    order
}

/// Where the last run of a base was.
#[derive(Clone, Copy, Default)]
struct Place {
    frame: usize,
    end: u32,
}

impl Place {
    /// Where a run of `frame` probably begins: where the last one ended, or else at the start.
    fn expected(self, frame: usize) -> i64 {
        if frame == self.frame { self.end.into() } else { 0 }
    }
}

/// Parses a list of frames that lie end to end from the start of a pack, in the layout of a format version.
pub fn decode_frames(version: u16, reader: &mut Reader) -> Result<Vec<FrameRecord>> {
    match version {
        1 => decode_records(reader),
        LIST_VERSION => decode_columns(reader),
        _ => Err(FormatError::Unknown { what: "format version", value: version.into() }),
    }
}

fn decode_records(reader: &mut Reader) -> Result<Vec<FrameRecord>> {
    let count = reader.count(53, "number of frames")?;
    let mut frames = Vec::with_capacity(count);
    let mut offset = FRAMES_START;
    for _ in 0..count {
        let frame = FrameRecord::decode(reader, offset)?;
        offset = frame.end();
        frames.push(frame);
    }
    Ok(frames)
}

fn decode_columns(reader: &mut Reader) -> Result<Vec<FrameRecord>> {
    let frames = reader.count(FRAME_BYTES_MIN, "number of frames")?;
    let sizes: Vec<usize> = column(frames, || match reader.length(FRAME_CHUNKS_MAX, "number of chunks")? {
        0 => Err(reader.malformed("number of chunks")),
        size => Ok(size),
    })?;
    let stored_lens: Vec<u32> = column(frames, || Ok(reader.length(FRAME_STORED_BYTES_MAX, "stored length of a frame")? as u32))?;
    let codecs: Vec<Codec> = column(frames, || Codec::from_byte(reader.u8("codec")?))?;
    let flags: Vec<u8> = column(frames, || reader.u8("flags of a frame"))?;
    if let Some(unknown) = flags.iter().find(|flags| !is_known_flags(**flags)) {
        return Err(FormatError::Unknown { what: "flags of a frame", value: (*unknown).into() });
    }
    if codecs.iter().zip(&flags).any(|(codec, flags)| *codec == Codec::Patch && flags & FLAG_DELTA == 0) {
        return Err(reader.malformed("codec"));
    }
    let chunks: usize = sizes.iter().sum();
    let lens = decode_lens(reader, &sizes, chunks)?;
    let flagged = |flag: u8| sizes.iter().zip(&flags).map(move |(&size, &flags)| (flags & flag != 0).then_some(size));
    let presents: Vec<Option<Present>> =
        flagged(FLAG_THINNED).map(|size| size.map(|size| Present::decode(reader, size)).transpose()).collect::<Result<_>>()?;
    let runs: Vec<Option<(usize, usize)>> =
        flagged(FLAG_DELTA).map(|size| size.map(|size| Ok((size, decode_run_count(reader)?))).transpose()).collect::<Result<_>>()?;
    let (bases, base_frames) = decode_bases(reader, &runs)?;
    let ids: Vec<FrameId> = column(frames, || Ok(FrameId(reader.array("frame id")?)))?;
    let base_ids: Vec<FrameId> = column(base_frames, || Ok(FrameId(reader.array("frame of a base")?)))?;
    if base_ids.iter().collect::<HashSet<_>>().len() < base_frames {
        return Err(reader.malformed("frame of a base"));
    }
    let chunk_ids = reader.bytes(chunks.saturating_mul(ChunkId::LEN), "chunk ids")?.as_chunks::<{ ChunkId::LEN }>().0;

    let mut list = Vec::with_capacity(frames);
    let (mut offset, mut first) = (FRAMES_START, 0);
    for (i, (present, base)) in presents.into_iter().zip(bases).enumerate() {
        let end = first + sizes[i];
        let table = ChunkTable::from_parts(chunk_ids[first..end].iter().map(|id| ChunkId(*id)).collect(), lens[first..end].to_vec());
        let named = |run: RawRun| BaseRun { at: run.at, frame: base_ids[run.frame], first: run.first, count: run.count };
        let base = base.map(|runs| Base(runs.into_iter().map(named).collect()));
        let record = FrameRecord { id: ids[i], offset, stored_len: stored_lens[i], codec: codecs[i], table, present, base };
        offset = record.end();
        first = end;
        list.push(record);
    }
    Ok(list)
}

fn column<T>(count: usize, mut next: impl FnMut() -> Result<T>) -> Result<Vec<T>> {
    (0..count).map(|_| next()).collect()
}

/// The lengths of all chunks, of which each frame has as many as `sizes` says.
fn decode_lens(reader: &mut Reader, sizes: &[usize], chunks: usize) -> Result<Vec<u32>> {
    let planes = reader.bytes(chunks.saturating_mul(LEN_PLANES), "lengths of chunks")?;
    let byte = |plane: usize, i: usize| u32::from(planes[plane * chunks + i]) << (8 * plane);
    let lens: Vec<u32> = (0..chunks).map(|i| (0..LEN_PLANES).map(|plane| byte(plane, i)).sum()).collect();
    let mut rest = &lens[..];
    for &size in sizes {
        let (own, others) = rest.split_at(size);
        let plain: usize = own.iter().map(|&len| len as usize).sum();
        if own.iter().any(|&len| len == 0 || len as usize > CHUNK_BYTES_MAX) || plain > FRAME_BYTES_MAX {
            return Err(reader.malformed("lengths of chunks"));
        }
        rest = others;
    }
    Ok(lens)
}

fn decode_run_count(reader: &mut Reader) -> Result<usize> {
    match reader.length(DELTA_BASE_RUNS_MAX, "runs of a base")? {
        0 => Err(reader.malformed("runs of a base")),
        count => Ok(count),
    }
}

/// A run of a base, whose frame is named by its place among the frames of all bases.
struct RawRun {
    at: u32,
    frame: usize,
    first: u32,
    count: u32,
}

/// The runs of all bases, each given as the number of chunks of its frame and its number of runs, and how many frames they are of.
fn decode_bases(reader: &mut Reader, bases: &[Option<(usize, usize)>]) -> Result<(Vec<Option<Vec<RawRun>>>, usize)> {
    let frames = reader.count(FrameId::LEN, "frames of bases")?;
    let runs: usize = bases.iter().flatten().map(|(_, runs)| runs).sum();
    // Four columns, of a byte at least for each.
    if runs > reader.remaining() / 4 {
        return Err(reader.malformed("runs of a base"));
    }
    let at_steps: Vec<usize> = column(runs, || reader.length(FRAME_CHUNKS_MAX, "place of a run of a base"))?;
    let frame_steps: Vec<i64> = column(runs, || reader.signed("frame of a run of a base"))?;
    let firsts: Vec<i64> = column(runs, || reader.signed("first chunk of a run of a base"))?;
    let counts: Vec<usize> = column(runs, || reader.length(FRAME_CHUNKS_MAX, "count of a run of a base"))?;

    let mut last = Place::default();
    // Frames that runs have named so far: in order, so that a list has one encoding.
    let mut named = 0;
    let mut next = 0;
    let mut decode_base = |(chunks, runs): (usize, usize)| {
        let mut at = 0;
        let mut decoded = Vec::with_capacity(runs);
        for i in next..next + runs {
            at += at_steps[i];
            let frame = (last.frame as i64).checked_add(frame_steps[i]).and_then(|frame| usize::try_from(frame).ok());
            let frame = frame.filter(|&frame| frame <= named).ok_or_else(|| reader.malformed("frame of a run of a base"))?;
            named = named.max(frame + 1);
            let first = last.expected(frame).checked_add(firsts[i]).and_then(|first| usize::try_from(first).ok());
            let end = first.and_then(|first| first.checked_add(counts[i])).filter(|&end| end <= FRAME_CHUNKS_MAX);
            let (Some(first), Some(end), true, true) = (first, end, counts[i] > 0, at < chunks) else {
                return Err(reader.malformed("run of a base"));
            };
            decoded.push(RawRun { at: at as u32, frame, first: first as u32, count: counts[i] as u32 });
            last = Place { frame, end: end as u32 };
        }
        next += runs;
        Ok(decoded)
    };
    let decoded = bases.iter().map(|base| base.map(&mut decode_base).transpose()).collect::<Result<_>>()?;
    if named == frames { Ok((decoded, frames)) } else { Err(reader.malformed("frames of bases")) }
}

#[cfg(test)]
mod tests {
    use super::super::frame::tests::{encode_records, sample};
    use super::*;

    fn samples() -> Vec<FrameRecord> {
        let mut frames: Vec<FrameRecord> = Vec::new();
        for seed in [0, 3, 2, 1, 2] {
            frames.push(sample(frames.last().map_or(FRAMES_START, FrameRecord::end), seed));
        }
        frames
    }

    #[test]
    fn lists_round_trip_in_both_layouts_and_every_prefix_fails_cleanly() {
        for frames in [samples(), vec![sample(FRAMES_START, 2)], Vec::new()] {
            for (version, bytes) in [(FORMAT_VERSION, encode_records(&frames)), (LIST_VERSION, encode_frames(&frames))] {
                let mut reader = Reader::new(&bytes);
                assert_eq!(decode_frames(version, &mut reader).unwrap(), frames);
                reader.finish().unwrap();
                for len in 0..bytes.len() {
                    assert!(decode_frames(version, &mut Reader::new(&bytes[..len])).is_err(), "{version}: {len}");
                }
            }
        }
        assert!(matches!(decode_frames(LIST_VERSION + 1, &mut Reader::new(&[0])), Err(FormatError::Unknown { .. })));
    }

    #[test]
    fn what_is_alike_is_written_once_and_stands_together() {
        let record = |i: u8| {
            let mut record = sample(0, 2);
            record.id = FrameId([i; 32]);
            let run = |at: u32| BaseRun { at, frame: FrameId([200 + i / 4; 32]), first: 9 * u32::from(i % 4) + at, count: 1 };
            record.base = Some(Base((0..9).map(run).collect()));
            record
        };
        let frames: Vec<FrameRecord> = (0..8).map(record).collect();
        let bytes = encode_frames(&frames);
        let hashes = 8 * 32 + 2 * 32 + 72 * 16;
        // A byte for the number of frames, five and the length of the box for each frame, three for a chunk, four for a run, one for the
        // number of frames in bases.
        assert_eq!(bytes.len(), 1 + 8 * 6 + 72 * 3 + 72 * 4 + 1 + hashes);
        let runs = &bytes[1 + 8 * 6 + 72 * 3 + 1..][..72 * 4];
        assert_eq!(runs.iter().filter(|byte| ![0, 1, 2].contains(*byte)).count(), 0, "every run is the one expected: {runs:?}");
    }

    #[test]
    fn the_smallest_frames_are_not_too_many_for_their_bytes() {
        let record = |i: u64| {
            let mut table = ChunkTable::default();
            table.push(ChunkId([7; 16]), 1);
            let offset = FRAMES_START + i;
            FrameRecord { id: FrameId([i as u8; 32]), offset, stored_len: 1, codec: Codec::Stored, table, present: None, base: None }
        };
        let frames: Vec<FrameRecord> = (0..100).map(record).collect();
        let bytes = encode_frames(&frames);
        assert_eq!(bytes.len(), 1 + 100 * FRAME_BYTES_MIN + 1);
        assert_eq!(decode_frames(LIST_VERSION, &mut Reader::new(&bytes)).unwrap(), frames);
    }

    #[test]
    fn frames_may_be_as_large_as_the_limits_and_no_larger() {
        let with = |lens: &[usize]| {
            let mut table = ChunkTable::default();
            lens.iter().for_each(|&len| table.push(ChunkId([7; 16]), len));
            let record = FrameRecord { table, present: None, base: None, ..sample(FRAMES_START, 0) };
            decode_frames(LIST_VERSION, &mut Reader::new(&encode_frames(&[record]))).map(|frames| frames[0].table.plain_len())
        };
        assert_eq!(with(&[CHUNK_BYTES_MAX; 9]).unwrap(), FRAME_BYTES_MAX);
        assert!(with(&[&[CHUNK_BYTES_MAX; 9][..], &[1]].concat()).is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        let frames = [sample(FRAMES_START, 2)];
        let good = encode_frames(&frames);
        // Number of frames, of chunks, length of the box (two), codec, flags; lengths; runs; frames; steps.
        let (lens, runs) = (6, 6 + 27);
        let with = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            decode_frames(LIST_VERSION, &mut Reader::new(&bytes))
        };
        assert!(with(0, 2).is_err(), "two frames");
        assert!(with(1, 0).is_err(), "no chunks");
        assert!(with(1, 8).is_err(), "fewer chunks");
        assert!(matches!(with(4, 9), Err(FormatError::Unknown { what: "codec", .. })));
        assert!(matches!(with(5, 9), Err(FormatError::Unknown { what: "flags of a frame", .. })));
        assert!(with(lens + 18, 3).is_err(), "a chunk beyond the limit");
        assert!(with(runs, 0).is_err(), "a delta without a base");
        assert_eq!(with(runs, 3).unwrap(), frames, "three runs, as there are");
        assert!(with(runs + 1, 1).is_err(), "a run of a frame that is not named");
        assert!(with(runs + 2, 9).is_err(), "a run beyond the last chunk");
        assert!(with(runs + 4, 9).is_err() && with(runs + 4, 8).is_ok(), "the last run beyond the last chunk");
        assert!(with(runs + 5, 1).is_err(), "before the first frame");
        assert!(with(runs + 8, 1).is_err(), "before the first chunk");
        assert!(with(runs + 11, 0).is_err(), "an empty run");
    }

    #[test]
    fn a_list_has_one_encoding() {
        let good = encode_frames(&[sample(FRAMES_START, 2)]);
        let (runs, chunk_ids) = (6 + 27, good.len() - 9 * 16);
        let refused = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            decode_frames(LIST_VERSION, &mut Reader::new(&bytes)).is_err()
        };
        assert!(!refused(&|_| {}));
        assert!(refused(&|bytes| bytes[runs + 5..runs + 8].copy_from_slice(&[2, 1, 0])), "the second frame before the first");
        assert!(refused(&|bytes| bytes.copy_within(chunk_ids - 64..chunk_ids - 32, chunk_ids - 32)), "a frame twice");
        let in_vain = |bytes: &mut Vec<u8>| {
            bytes[runs + 1] = 3;
            bytes.splice(chunk_ids..chunk_ids, [9; 32]);
        };
        assert!(refused(&in_vain), "a frame that no run names");
    }
}
