//! From the chunks of one stream to its recipe, and byte streams of our own (catalogs, long recipes) on the same road.

use std::collections::{HashSet, VecDeque};

use super::cursor::{Cursor, OldChunk};
use super::gather::FrameRef;
use super::writer::Writer;
use crate::error::Result;
use crate::format::envelope::Kind;
use crate::format::frame::BaseRun;
use crate::format::recipe::{Recipe, Run, encode_block};
use crate::id::{ChunkId, FrameId};
use crate::limits::*;

/// A run whose frame may still be open.
#[derive(Clone, Debug)]
struct OpenRun {
    frame: FrameRef,
    first: u32,
    count: u32,
}

impl OpenRun {
    fn close(&self) -> Option<Run> {
        self.frame.id().map(|frame| Run { frame, first: self.first, count: self.count })
    }
}

/// A recipe that is complete but may refer to open frames.
#[derive(Debug)]
pub struct OpenRecipe {
    depth: u8,
    runs: VecDeque<OpenRun>,
}

impl OpenRecipe {
    /// The recipe, once all its frames are closed.
    pub fn close(&self) -> Option<Recipe> {
        // The last run closes last, mostly: a cheap "no" first.
        self.runs.back().is_none_or(|run| run.frame.id().is_some()).then_some(())?;
        let runs = self.runs.iter().map(OpenRun::close).collect::<Option<_>>()?;
        Some(Recipe { depth: self.depth, runs })
    }
}

/// New chunks for each known one that may be stored once more.
const NEW_FOR_ONE_AGAIN: u64 = 2;

/// New chunks since the last known one.
struct Gap {
    frame: FrameRef,
    ordinal: u32,
    /// Lengths in bytes.
    lens: Vec<usize>,
}

impl Gap {
    /// For each old chunk, which of the new chunks stands where its middle stood, if both stretches were equally long.
    fn places(&self, old: &[OldChunk]) -> Vec<u32> {
        let total_new: usize = self.lens.iter().sum();
        let total_old: usize = old.iter().map(OldChunk::len).sum();
        let mut before = 0;
        let mut place = 0;
        let mut end = self.lens[0];
        let place_of = |chunk: &OldChunk| {
            let middle = (before + chunk.len() / 2) as u64 * total_new as u64 / total_old as u64;
            before += chunk.len();
            while end as u64 <= middle && place + 1 < self.lens.len() {
                place += 1;
                end += self.lens[place];
            }
            self.ordinal + place as u32
        };
        old.iter().map(place_of).collect()
    }
}

/// What old chunks that stand side by side are as a base, as runs. Those that live in delta frames are stood in for by what these were
/// made against, of which neighbours share much; so that this does not grow from version to version, only the middle is kept, of about
/// twice the number of chunks.
fn stand_ins(old: &[OldChunk]) -> Vec<(FrameId, u32, u32)> {
    let mut seen = HashSet::new();
    let all = old.iter().flat_map(OldChunk::as_base).flat_map(|(frame, first, count)| (first..first + count).map(move |i| (frame, i)));
    let chunks: Vec<(FrameId, u32)> = all.filter(|chunk| seen.insert(*chunk)).collect();
    let beyond = chunks.len().saturating_sub(2 * old.len() + 1);
    let kept = &chunks[beyond / 2..chunks.len() - beyond.div_ceil(2)];
    let runs = kept.chunk_by(|a, b| a.0 == b.0 && a.1 + 1 == b.1);
    runs.map(|run| (run[0].0, run[0].1, run.len() as u32)).collect()
}

/// The chunks of one stream, in order.
pub struct Stream {
    kind: Kind,
    cursor: Option<Cursor>,
    gap: Option<Gap>,
    runs: VecDeque<OpenRun>,
    spilled: Option<Box<MetaStream>>,
    /// The older version's recipe, if it is deep: where the recipe's own stream is expected.
    older_recipe: Option<Recipe>,
    /// New chunks that no chunk stored once more was set against yet.
    credit: u64,
    /// Every chunk since the last slab's start was the one expected.
    pub steady: bool,
}

impl Stream {
    /// A stream that may resemble an older one; without one, `trail` is where the file before it left off in old frames.
    pub fn new(writer: &Writer, kind: Kind, older: Option<&Recipe>, trail: Option<Cursor>) -> Self {
        let cursor = older.map(|recipe| Cursor::along_recipe(writer.stock().clone(), recipe.clone())).or(trail);
        let deeper = older.filter(|recipe| recipe.depth > 0).map(|recipe| Recipe { depth: recipe.depth - 1, runs: recipe.runs.clone() });
        Self { kind, credit: 0, steady: cursor.is_some(), cursor, gap: None, runs: VecDeque::new(), spilled: None, older_recipe: deeper }
    }

    /// The chunks expected next.
    pub fn expected(&mut self) -> impl Iterator<Item = &OldChunk> {
        self.cursor.iter_mut().flat_map(Cursor::expected)
    }

    /// Takes the next chunk: refers to it where it is known, gathers it where it is new.
    pub fn accept(&mut self, writer: &mut Writer, id: ChunkId, bytes: &[u8]) -> Result<()> {
        let (frame, ordinal) = match self.known(writer, &id) {
            Some(place) => place,
            None => self.add_new(writer, id, bytes),
        };
        self.push(frame, ordinal);
        if writer.gather(self.kind).is_full() {
            self.settle_gap(writer, None);
            writer.gather(self.kind).close()?;
        }
        if self.runs.len() > 2 * RECIPE_BLOCK_RUNS {
            if self.runs.len() > RECIPE_RUNS_WAITING_MAX {
                self.settle_gap(writer, None);
                writer.gather(self.kind).close()?;
            }
            self.spill(writer, false)?;
        }
        Ok(())
    }

    fn known(&mut self, writer: &mut Writer, id: &ChunkId) -> Option<(FrameRef, u32)> {
        if let Some(distance) = self.cursor.as_mut().and_then(|cursor| cursor.find(id)) {
            if self.gathers_again(writer, id, distance) {
                self.steady = false;
                return None;
            }
            self.steady &= distance == 0 && self.gap.is_none();
            self.settle_gap(writer, Some(distance));
            let old = self.cursor.as_mut().and_then(|cursor| cursor.advance(1).pop())?;
            writer.stock().rely_on(old.pack);
            return Some((FrameRef::Stored(old.record.id), old.ordinal));
        }
        self.steady = false;
        if let Some(place) = writer.gather(self.kind).fresh(id) {
            self.settle_gap(writer, None);
            return Some(place);
        }
        let (pack, record, ordinal) = writer.stock().chunk(id)?;
        self.settle_gap(writer, None);
        writer.stock().rely_on(pack);
        let follow = match &mut self.cursor {
            None => true,
            Some(cursor) => !cursor.has_recipe() || cursor.is_spent(),
        };
        if follow {
            self.cursor = Some(Cursor::along_frame(writer.stock().clone(), &record, pack, ordinal));
        }
        Some((FrameRef::Stored(record.id), ordinal))
    }

    /// Whether a known chunk is stored once more, because it is scattered: as a delta against itself that costs next to nothing, and
    /// without it later versions would be read from ever more frames. For each such chunk, two new ones must have come before, so
    /// that a stream that hardly changes stays as it is.
    fn gathers_again(&mut self, writer: &mut Writer, id: &ChunkId, distance: i64) -> bool {
        if self.credit <= NEW_FOR_ONE_AGAIN || !writer.options().delta || writer.gather(self.kind).fresh(id).is_some() {
            return false;
        }
        let Some(chunk) = self.cursor.as_mut().and_then(|cursor| cursor.scattered(distance)) else { return false };
        let bases = chunk.as_base();
        let again = !bases.is_empty() && bases.iter().all(|(frame, first, count)| writer.stock().has_base(frame, *first, *count));
        // It is counted as new in its turn.
        self.credit -= if again { NEW_FOR_ONE_AGAIN + 1 } else { 0 };
        again
    }

    fn add_new(&mut self, writer: &mut Writer, id: ChunkId, bytes: &[u8]) -> (FrameRef, u32) {
        self.credit += 1;
        let (frame, ordinal) = writer.gather(self.kind).add(id, bytes);
        match &mut self.gap {
            Some(gap) if gap.frame.is(&frame) => gap.lens.push(bytes.len()),
            gap => *gap = Some(Gap { frame: frame.clone(), ordinal, lens: vec![bytes.len()] }),
        }
        (frame, ordinal)
    }

    /// Ends a stretch of new chunks: the old chunks in its place become a base. `distance` says where the next known chunk is; without
    /// it, or if that lies behind, as many old chunks are taken as there are new ones.
    fn settle_gap(&mut self, writer: &mut Writer, distance: Option<i64>) {
        let gap = self.gap.take();
        let Some(cursor) = &mut self.cursor else { return };
        let count = gap.as_ref().map_or(0, |gap| gap.lens.len());
        let old = match distance {
            Some(ahead @ 0..) => cursor.advance(ahead as usize),
            Some(back) => cursor.go_back(back.unsigned_abs(), count),
            None => cursor.advance(count),
        };
        let Some(gap) = gap.filter(|_| writer.options().delta) else { return };
        let places = gap.places(&old);
        let mut rest = &old[..];
        for stood in places.chunk_by(PartialEq::eq) {
            let (here, later) = rest.split_at(stood.len());
            rest = later;
            let bytes = here.iter().map(OldChunk::len).sum::<usize>() / here.len();
            let drifts = here.iter().any(|old| old.record.is_delta());
            for (frame, first, count) in stand_ins(here) {
                if writer.stock().has_base(&frame, first, count) {
                    // A stand-in's chunks are about as long as the chunk they stand for.
                    writer.gather(self.kind).add_base(&gap.frame, BaseRun { at: stood[0], frame, first, count }, bytes, drifts);
                }
            }
        }
    }

    /// Chunks of other streams come now, into the same frames.
    pub fn pause(&mut self, writer: &mut Writer) {
        self.settle_gap(writer, None);
    }

    fn push(&mut self, frame: FrameRef, ordinal: u32) {
        match self.runs.back_mut() {
            Some(last) if last.first + last.count == ordinal && last.frame.is(&frame) => last.count += 1,
            _ => self.runs.push_back(OpenRun { frame, first: ordinal, count: 1 }),
        }
    }

    /// Takes chunks that are stored already as they are.
    fn refer(&mut self, writer: &mut Writer, run: Run) -> Result<()> {
        for ordinal in run.first..run.first + run.count {
            self.push(FrameRef::Stored(run.frame), ordinal);
        }
        if self.runs.len() > 2 * RECIPE_BLOCK_RUNS { self.spill(writer, false) } else { Ok(()) }
    }

    /// Writes blocks of a long recipe to a stream of its own: as many as are full and closed, or all.
    fn spill(&mut self, writer: &mut Writer, all: bool) -> Result<()> {
        while self.runs.len() >= RECIPE_BLOCK_RUNS || all && !self.runs.is_empty() {
            let count = self.runs.len().min(RECIPE_BLOCK_RUNS);
            let Some(block) = self.runs.iter().take(count).map(OpenRun::close).collect::<Option<Vec<_>>>() else { return Ok(()) };
            self.runs.drain(..count);
            let mut bytes = Vec::new();
            encode_block(&block, &mut bytes);
            if self.spilled.is_none() {
                self.spilled = Some(Box::new(MetaStream::new(writer, self.older_recipe.as_ref())));
            }
            self.spilled.as_mut().expect("just made").push(writer, &bytes)?;
        }
        Ok(())
    }

    /// The stream ended. Also returns the cursor if it runs along old frames: files that were stored one after the other often still
    /// stand so when their folder was renamed.
    pub fn finish(mut self, writer: &mut Writer) -> Result<(OpenRecipe, Option<Cursor>)> {
        self.settle_gap(writer, None);
        let trail = self.cursor.take().filter(|cursor| !cursor.has_recipe());
        if self.spilled.is_none() && self.runs.len() <= RECIPE_BLOCK_RUNS {
            return Ok((OpenRecipe { depth: 0, runs: self.runs }, trail));
        }
        writer.gather(self.kind).close()?;
        self.spill(writer, true)?;
        let inner = self.spilled.expect("a long recipe was spilled").finish(writer)?;
        Ok((OpenRecipe { depth: inner.depth + 1, runs: inner.runs }, trail))
    }
}

/// Writes the recipe of something that consists of stored chunks.
pub struct RecipeWriter(Stream);

impl RecipeWriter {
    pub fn new(writer: &Writer) -> Self {
        Self(Stream::new(writer, Kind::DataPack, None, None))
    }

    pub fn push(&mut self, writer: &mut Writer, run: Run) -> Result<()> {
        self.0.refer(writer, run)
    }

    pub fn finish(self, writer: &mut Writer) -> Result<Recipe> {
        let (recipe, _) = self.0.finish(writer)?;
        writer.close_frames()?;
        Ok(recipe.close().expect("every frame is closed"))
    }
}

/// A byte stream of our own, kept in catalog packs.
pub struct MetaStream {
    stream: Stream,
    buffer: Vec<u8>,
    /// Bytes pushed so far.
    pub len: u64,
}

impl MetaStream {
    /// Bytes gathered before they are cut.
    const BUFFER_BYTES: usize = 4 * CHUNK_BYTES_MAX;

    pub fn new(writer: &Writer, older: Option<&Recipe>) -> Self {
        Self { stream: Stream::new(writer, Kind::CatalogPack, older, None), buffer: Vec::new(), len: 0 }
    }

    pub fn push(&mut self, writer: &mut Writer, bytes: &[u8]) -> Result<()> {
        self.len += bytes.len() as u64;
        self.buffer.extend_from_slice(bytes);
        match self.buffer.len() >= Self::BUFFER_BYTES {
            true => self.cut(writer, CHUNK_BYTES_MAX),
            false => Ok(()),
        }
    }

    /// Cuts and accepts chunks until fewer than `keep` bytes are left.
    fn cut(&mut self, writer: &mut Writer, keep: usize) -> Result<()> {
        let mut at = 0;
        while self.buffer.len() - at >= keep.max(1) {
            let rest = &self.buffer[at..];
            let chunk = &rest[..writer.cutter().cut(rest)];
            let id = writer.keys().chunk_id(Kind::CatalogPack, chunk);
            self.stream.accept(writer, id, chunk)?;
            at += chunk.len();
        }
        self.buffer.drain(..at);
        Ok(())
    }

    pub fn finish(mut self, writer: &mut Writer) -> Result<OpenRecipe> {
        self.cut(writer, 0)?;
        Ok(self.stream.finish(writer)?.0)
    }
}
