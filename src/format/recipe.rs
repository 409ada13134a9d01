//! Recipes: what a file or stream consists of, as runs of chunks in frames.
//!
//! A block lists its distinct frames once and then its runs. A recipe of up to [`RECIPE_BLOCK_RUNS`] runs is one block where it
//! stands (depth 0). A longer one is a stream of such blocks, stored like any other stream in catalog packs; the recipe of *that*
//! stream then stands in its place, and the depth says how often to follow.

use super::Result;
use super::codec::{Reader, Write};
use crate::id::FrameId;
use crate::limits::*;

/// Some neighbouring chunks of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    pub frame: FrameId,
    /// Ordinal of the first chunk in the frame's table.
    pub first: u32,
    pub count: u32,
}

/// Where the bytes of a file or stream are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipe {
    /// 0: the runs are the bytes themselves. n: the runs are a stream of blocks of a recipe of depth n - 1.
    pub depth: u8,
    pub runs: Vec<Run>,
}

impl Recipe {
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.put_u8(self.depth);
        encode_block(&self.runs, bytes);
    }

    pub fn decode(reader: &mut Reader) -> Result<Self> {
        let depth = reader.u8("depth of a recipe")?;
        if depth > RECIPE_DEPTH_MAX {
            return Err(reader.malformed("depth of a recipe"));
        }
        let runs = decode_block(reader)?;
        if depth > 0 && runs.is_empty() {
            return Err(reader.malformed("an indirect recipe without runs"));
        }
        Ok(Self { depth, runs })
    }
}

/// One block: the distinct frames, then the runs as `(index of the frame, first, count)`.
pub fn encode_block(runs: &[Run], bytes: &mut Vec<u8>) {
    assert!(runs.len() <= RECIPE_BLOCK_RUNS);
    let mut frames: Vec<FrameId> = Vec::new();
    let mut coded = Vec::with_capacity(runs.len() * 4);
    for run in runs {
        let index = frames.iter().rposition(|id| *id == run.frame).unwrap_or_else(|| {
            frames.push(run.frame);
            frames.len() - 1
        });
        coded.put_varint(index as u64);
        coded.put_varint(run.first.into());
        coded.put_varint(run.count.into());
    }
    bytes.put_varint(frames.len() as u64);
    for frame in &frames {
        bytes.put_bytes(&frame.0);
    }
    bytes.put_varint(runs.len() as u64);
    bytes.put_bytes(&coded);
}

/// Parses one block and leaves the reader behind it.
pub fn decode_block(reader: &mut Reader) -> Result<Vec<Run>> {
    let count = reader.count(FrameId::LEN, "frames of a recipe")?;
    if count > RECIPE_BLOCK_RUNS {
        return Err(reader.malformed("frames of a recipe"));
    }
    let mut frames = Vec::with_capacity(count);
    for _ in 0..count {
        frames.push(FrameId(reader.array("frame of a recipe")?));
    }
    let count = reader.count(3, "runs of a recipe")?;
    if count > RECIPE_BLOCK_RUNS {
        return Err(reader.malformed("runs of a recipe"));
    }
    let mut runs = Vec::with_capacity(count);
    for _ in 0..count {
        let index = reader.length(RECIPE_BLOCK_RUNS, "frame of a run")?;
        let Some(&frame) = frames.get(index) else {
            return Err(reader.malformed("frame of a run"));
        };
        let first = reader.length(FRAME_CHUNKS_MAX, "first chunk of a run")?;
        let count = reader.length(FRAME_CHUNKS_MAX - first, "count of a run")?;
        if count == 0 {
            return Err(reader.malformed("count of a run"));
        }
        runs.push(Run { frame, first: first as u32, count: count as u32 });
    }
    Ok(runs)
}

/// The most bytes one block can take.
pub const BLOCK_BYTES_MAX: usize = 4 + RECIPE_BLOCK_RUNS * (FrameId::LEN + 6);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_round_trip_and_every_prefix_fails_cleanly() {
        let run = |frame, first, count| Run { frame: FrameId([frame; 32]), first, count };
        let recipe = Recipe { depth: 2, runs: vec![run(1, 0, 9), run(2, 5, 1), run(1, 300, 4000 - 300)] };
        let mut bytes = Vec::new();
        recipe.encode(&mut bytes);
        assert_eq!(Recipe::decode(&mut Reader::new(&bytes)).unwrap(), recipe);
        for len in 0..bytes.len() {
            assert!(Recipe::decode(&mut Reader::new(&bytes[..len])).is_err());
        }
    }
}
