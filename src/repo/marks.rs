//! Marks: which chunks of which frames are needed, as one small bitmap a frame.
//!
//! A frame is known by a number while marks live. Up to 64 chunks, which is what nearly every frame has, take one word.

use std::collections::{HashMap, HashSet};

use super::Repository;
use super::entries::CatalogReader;
use super::reader::Reader;
use super::runs::Runs;
use crate::error::Result;
use crate::format::entry::{Entry, Node};
use crate::format::frame::FrameRecord;
use crate::format::recipe::{Recipe, Run};
use crate::format::snapshot::Snapshot;
use crate::id::FrameId;

/// A set of ordinals of chunks in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ordinals {
    Few(u64),
    Many(Box<Vec<u64>>),
}

impl Default for Ordinals {
    fn default() -> Self {
        Self::Few(0)
    }
}

impl Ordinals {
    fn words(&self) -> &[u64] {
        match self {
            Self::Few(word) => std::slice::from_ref(word),
            Self::Many(words) => words,
        }
    }

    fn words_mut(&mut self, count: usize) -> &mut [u64] {
        if let Self::Few(word) = self
            && count > 1
        {
            *self = Self::Many(Box::new(vec![*word]));
        }
        match self {
            Self::Few(word) => std::slice::from_mut(word),
            Self::Many(words) => {
                if words.len() < count {
                    words.resize(count, 0);
                }
                words
            }
        }
    }

    pub fn add(&mut self, first: u32, count: u32) {
        let (first, end) = (first as usize, (first + count) as usize);
        let words = self.words_mut(end.div_ceil(64));
        for (at, word) in words.iter_mut().enumerate().take(end.div_ceil(64)).skip(first / 64) {
            let low = if at == first / 64 { u64::MAX << (first % 64) } else { u64::MAX };
            let high = if (at + 1) * 64 > end { u64::MAX >> (64 - end % 64) } else { u64::MAX };
            *word |= low & high;
        }
    }

    pub fn join(&mut self, other: &Self) {
        let words = self.words_mut(other.words().len());
        words.iter_mut().zip(other.words()).for_each(|(word, other)| *word |= other);
    }

    pub fn has(&self, ordinal: usize) -> bool {
        self.words().get(ordinal / 64).is_some_and(|word| word >> (ordinal % 64) & 1 == 1)
    }

    pub fn is_empty(&self) -> bool {
        self.words().iter().all(|&word| word == 0)
    }

    pub fn count(&self) -> u32 {
        self.words().iter().map(|word| word.count_ones()).sum()
    }

    /// How many are in both.
    pub fn count_in(&self, other: &Self) -> u32 {
        self.words().iter().zip(other.words()).map(|(a, b)| (a & b).count_ones()).sum()
    }

    /// The chunks that a frame's record has.
    pub fn present_in(record: &FrameRecord) -> Self {
        let mut present = Self::default();
        match record.present {
            None => present.add(0, record.table.len() as u32),
            Some(_) => (0..record.table.len()).filter(|&i| record.has(i)).for_each(|i| present.add(i as u32, 1)),
        }
        present
    }
}

/// What is needed of one frame.
#[derive(Clone, Debug, Default)]
pub struct Mark {
    /// By recipes.
    pub used: Ordinals,
    /// By frames that are deltas against it: it takes a copy that is no delta.
    pub base: Option<Box<Ordinals>>,
}

impl Mark {
    pub fn is_needed(&self) -> bool {
        !self.used.is_empty() || self.base.is_some()
    }

    /// All chunks that are needed.
    pub fn needed(&self) -> Ordinals {
        let mut all = self.used.clone();
        if let Some(base) = &self.base {
            all.join(base);
        }
        all
    }

    /// Whether chunks, from a delta or not, are all that is needed.
    pub fn is_met_by(&self, present: &Ordinals, is_delta: bool) -> bool {
        let needed = self.needed();
        (!is_delta || self.base.is_none()) && needed.count_in(present) == needed.count()
    }
}

/// What is needed of every frame.
#[derive(Default)]
pub struct Marks {
    numbers: HashMap<FrameId, u32>,
    marks: Vec<Mark>,
    /// Hashes of catalogs that were followed: unchanged nights share theirs.
    followed: HashSet<blake3::Hash>,
}

impl Marks {
    /// The number of a frame, which it gets when it is first met.
    pub fn number(&mut self, id: &FrameId) -> u32 {
        let next = self.marks.len() as u32;
        let number = *self.numbers.entry(*id).or_insert(next);
        if number == next {
            self.marks.push(Mark::default());
        }
        number
    }

    pub fn number_of(&self, id: &FrameId) -> Option<u32> {
        self.numbers.get(id).copied()
    }

    pub fn get(&self, number: u32) -> &Mark {
        &self.marks[number as usize]
    }

    pub fn of(&self, id: &FrameId) -> Option<&Mark> {
        self.number_of(id).map(|number| self.get(number))
    }

    /// Every frame and its number.
    pub fn frames(&self) -> impl Iterator<Item = (&FrameId, u32)> {
        self.numbers.iter().map(|(id, &number)| (id, number))
    }

    pub fn len(&self) -> usize {
        self.marks.len()
    }

    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Chunks that are needed as bases.
    pub fn base_count(&self) -> u64 {
        self.marks.iter().filter_map(|mark| mark.base.as_ref()).map(|base| u64::from(base.count())).sum()
    }

    /// Chunks that a recipe names.
    pub fn add_run(&mut self, run: &Run) {
        let number = self.number(&run.frame);
        self.marks[number as usize].used.add(run.first, run.count);
    }

    /// Chunks that a delta is based on.
    pub fn add_base(&mut self, number: u32, chunks: &Ordinals) {
        let base = &mut self.marks[number as usize].base;
        match base {
            Some(base) => base.join(chunks),
            None => *base = Some(Box::new(chunks.clone())),
        }
    }

    /// Follows a snapshot to everything it consists of. Anything that cannot be read is an error.
    pub fn add_snapshot(&mut self, repository: &Repository, snapshot: &Snapshot, check: &dyn Fn() -> Result<()>) -> Result<()> {
        let mut key = Vec::new();
        snapshot.catalog.0.encode(&mut key);
        snapshot.path_table.0.encode(&mut key);
        let key = blake3::hash(&key);
        if self.followed.contains(&key) {
            return Ok(());
        }
        let reader = repository.reader()?.clone();
        self.add_recipe(&reader, &snapshot.catalog.0)?;
        self.add_recipe(&reader, &snapshot.path_table.0)?;
        for entry in CatalogReader::open(repository, snapshot)? {
            if let Entry { node: Node::File { content: Some(content) }, .. } = entry? {
                self.add_recipe(&reader, &content.recipe)?;
            }
            check()?;
        }
        // Not before: one that could not be followed to its end must not stand for another.
        self.followed.insert(key);
        Ok(())
    }

    /// The runs of a recipe, and those of the recipes it is stored through.
    fn add_recipe(&mut self, reader: &std::sync::Arc<Reader>, recipe: &Recipe) -> Result<()> {
        recipe.runs.iter().for_each(|run| self.add_run(run));
        for depth in 1..=recipe.depth {
            let view = Recipe { depth, runs: recipe.runs.clone() };
            for run in Runs::new(reader.clone(), view) {
                self.add_run(&run?);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_are_a_set() {
        for (first, count) in [(0, 1), (0, 64), (63, 1), (63, 2), (64, 64), (5, 200), (4095, 1), (0, 4096)] {
            let mut set = Ordinals::default();
            set.add(first, count);
            assert_eq!(set.count(), count);
            for ordinal in 0..4200 {
                assert_eq!(set.has(ordinal), (first as usize..(first + count) as usize).contains(&ordinal), "{first} {count} {ordinal}");
            }
            let mut other = Ordinals::default();
            other.add(first + 1, 1);
            assert_eq!(set.count_in(&other), u32::from(count > 1));
            other.join(&set);
            assert_eq!(other.count(), if count > 1 { count } else { 2 });
        }
        assert!(Ordinals::default().is_empty());
    }

    #[test]
    fn a_base_takes_a_copy_that_is_no_delta() {
        let mut marks = Marks::default();
        let (frame, other) = (FrameId([1; 32]), FrameId([2; 32]));
        marks.add_run(&Run { frame, first: 2, count: 3 });
        let mut whole = Ordinals::default();
        whole.add(0, 9);
        assert!(marks.of(&frame).unwrap().is_met_by(&whole, true));
        let mut last = Ordinals::default();
        last.add(8, 1);
        for frame in [&frame, &other] {
            let number = marks.number(frame);
            marks.add_base(number, &last);
        }
        let mark = marks.of(&frame).unwrap();
        assert!(!mark.is_met_by(&whole, true) && mark.is_met_by(&whole, false));
        assert_eq!(mark.needed().count(), 4);
        assert!(marks.of(&other).unwrap().is_needed() && marks.of(&FrameId([3; 32])).is_none());
        let mut thinned = Ordinals::default();
        thinned.add(2, 3);
        assert!(!mark.is_met_by(&thinned, false));
    }
}
