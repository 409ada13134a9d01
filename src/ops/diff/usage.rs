//! Which chunks two snapshots do not share, in the frames that changed entries refer to.
//!
//! Frames of changed, added and removed files are noted first. Then both catalogs are gone through once more, to see which chunks of
//! these frames each side uses anywhere: a file that only moved costs nothing. So memory grows with the frames of what changed, by
//! about 100 bytes a frame, and not with the snapshots.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::entry::Node;
use crate::format::frame::FrameRecord;
use crate::format::recipe::{Recipe, Run};
use crate::id::FrameId;
use crate::ops::browse::below;
use crate::progress::Progress;
use crate::repo::{CatalogReader, Repository, Runs, Selection};

/// Plain and stored bytes.
type Bytes = (u64, u64);

/// Frames of what changed, in the order they were met, so that neighbours in a pack are asked for together.
#[derive(Default)]
pub struct Usage {
    places: HashMap<FrameId, usize>,
    frames: Vec<FrameUse>,
}

struct FrameUse {
    id: FrameId,
    /// For each side the chunks it uses, a bit each.
    chunks: [Vec<u64>; 2],
}

impl Usage {
    /// Notes the frames of a recipe.
    pub fn touch(&mut self, repository: &Repository, recipe: &Recipe) -> Result<()> {
        for run in Runs::new(repository.reader()?.clone(), recipe.clone()) {
            let id = run?.frame;
            self.places.entry(id).or_insert_with(|| {
                self.frames.push(FrameUse { id, chunks: Default::default() });
                self.frames.len() - 1
            });
        }
        Ok(())
    }

    /// What only the first and what only the second side has.
    pub fn reckon(mut self, repository: &Repository, sides: [&Selection; 2], progress: &dyn Progress) -> Result<[Bytes; 2]> {
        let mut found = [(0, 0); 2];
        if self.frames.is_empty() {
            return Ok(found);
        }
        for (side, selection) in sides.into_iter().enumerate() {
            self.walk(repository, side, selection, progress)?;
        }
        for frame in self.frames.iter().filter(|frame| frame.differs()) {
            if progress.interrupted() {
                return Err(Error::Interrupted);
            }
            let record = record(repository, &frame.id)?;
            for (side, found) in found.iter_mut().enumerate() {
                let bytes = frame.bytes_of_one_side(side, &record);
                (found.0, found.1) = (found.0 + bytes.0, found.1 + bytes.1);
            }
        }
        Ok(found)
    }

    fn walk(&mut self, repository: &Repository, side: usize, selection: &Selection, progress: &dyn Progress) -> Result<()> {
        let mut met = false;
        for entry in CatalogReader::open_at(repository, &selection.stored.snapshot, &selection.path)? {
            if progress.interrupted() {
                return Err(Error::Interrupted);
            }
            let entry = entry?;
            match below(&entry.path, &selection.path) {
                None if met => break,
                None => continue,
                Some(_) => met = true,
            }
            let Node::File { content: Some(content) } = entry.node else { continue };
            for run in Runs::new(repository.reader()?.clone(), content.recipe) {
                let run = run?;
                if let Some(&place) = self.places.get(&run.frame) {
                    self.frames[place].mark(side, &run);
                }
            }
        }
        Ok(())
    }
}

impl FrameUse {
    fn mark(&mut self, side: usize, run: &Run) {
        let bits = &mut self.chunks[side];
        let end = (run.first + run.count) as usize;
        if bits.len() * 64 < end {
            bits.resize(end.div_ceil(64), 0);
        }
        (run.first as usize..end).for_each(|chunk| bits[chunk / 64] |= 1 << (chunk % 64));
    }

    fn uses(&self, side: usize, chunk: usize) -> bool {
        self.chunks[side].get(chunk / 64).is_some_and(|bits| bits >> (chunk % 64) & 1 == 1)
    }

    fn differs(&self) -> bool {
        self.chunks[0] != self.chunks[1]
    }

    /// Of chunks that one side uses and the other does not: their length, and their part in what the frame takes.
    fn bytes_of_one_side(&self, side: usize, record: &FrameRecord) -> Bytes {
        let only = |chunk: &usize| self.uses(side, *chunk) && !self.uses(1 - side, *chunk);
        let plain: u64 = (0..record.table.len()).filter(only).map(|chunk| u64::from(record.table.lens()[chunk])).sum();
        let all = (record.present_len() as u64).max(1);
        (plain, (u128::from(record.stored_len) * u128::from(plain) / u128::from(all)) as u64)
    }
}

/// What the store says of a frame.
fn record(repository: &Repository, id: &FrameId) -> Result<Arc<FrameRecord>> {
    let locator = repository.locator()?;
    let mut trouble = Error::damaged(format!("frame {id}"), "no index segment lists it");
    for (pack, _) in locator.places(id) {
        match locator.record_in(&pack, id) {
            Ok(record) => return Ok(record),
            Err(error) => trouble = error,
        }
    }
    Err(trouble)
}
