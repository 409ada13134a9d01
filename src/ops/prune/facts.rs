//! What is stored: every pack, every copy of every frame, and which segments say so. From segments, and from the footers of packs that no
//! segment lists; never from this host's index.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use crate::backend::{Area, Place};
use crate::error::{Error, Result, StorageErrorKind};
use crate::format::envelope::Kind;
use crate::format::frame::{Base, FrameRecord};
use crate::format::segment::PackRecord;
use crate::id::ObjectName;
use crate::repo::{Marks, Ordinals, Repository};

/// What the store has of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// With the size it should have.
    Sound,
    /// With another size.
    Unsound,
    Gone,
}

/// A pack that the store or a segment has.
#[derive(Clone, Debug)]
pub struct Pack {
    pub name: ObjectName,
    pub kind: Kind,
    pub size: u64,
    pub state: State,
    /// A segment lists it.
    pub listed: bool,
    /// It was there before the snapshots were listed.
    pub settled: bool,
    /// Its frames, in the order they lie in it.
    pub copies: Range<usize>,
}

/// Chunks of another frame, by its number.
pub type BaseChunks = (u32, Ordinals);

/// A frame in a pack.
#[derive(Clone, Debug)]
pub struct Copy {
    pub frame: u32,
    pub stored_len: u32,
    /// Chunks that are there.
    pub chunks: u16,
    /// What it is based on, if it is a delta.
    pub base: Option<Box<[BaseChunks]>>,
    /// Its base is not all there: nobody can read it.
    pub baseless: bool,
    /// Which chunks are there, if not all.
    pub thinned: Option<Box<Ordinals>>,
}

impl Copy {
    fn of(record: &FrameRecord, marks: &mut Marks) -> Self {
        let present = Ordinals::present_in(record);
        Self {
            frame: marks.number(&record.id),
            stored_len: record.stored_len,
            chunks: present.count() as u16,
            base: record.base.as_ref().map(|base| base_chunks(base, marks)),
            baseless: false,
            thinned: record.present.is_some().then(|| Box::new(present)),
        }
    }

    pub fn is_delta(&self) -> bool {
        self.base.is_some()
    }

    /// How many of the wanted chunks it has.
    pub fn has(&self, wanted: &Ordinals) -> u32 {
        self.thinned.as_ref().map_or(wanted.count(), |present| wanted.count_in(present))
    }

    fn present(&self) -> Ordinals {
        self.thinned.as_deref().cloned().unwrap_or_else(|| {
            let mut all = Ordinals::default();
            all.add(0, self.chunks.into());
            all
        })
    }

    /// Whether it alone gives all that is needed of its frame.
    pub fn meets(&self, marks: &Marks) -> bool {
        let mark = marks.get(self.frame);
        let has_all = match &self.thinned {
            Some(present) => mark.is_met_by(present, self.is_delta()),
            None => !self.is_delta() || mark.base.is_none(),
        };
        has_all && !self.baseless
    }
}

fn base_chunks(base: &Base, marks: &mut Marks) -> Box<[BaseChunks]> {
    let mut chunks: Vec<BaseChunks> = Vec::new();
    for run in &base.0 {
        let frame = marks.number(&run.frame);
        let at = chunks.iter().position(|(known, _)| *known == frame).unwrap_or_else(|| {
            chunks.push((frame, Ordinals::default()));
            chunks.len() - 1
        });
        chunks[at].1.add(run.first, run.count);
    }
    chunks.into()
}

/// An index segment.
#[derive(Clone, Debug)]
pub struct SegmentFacts {
    pub size: u64,
    pub replaces: Vec<ObjectName>,
    /// Numbers of its packs.
    pub packs: Vec<u32>,
}

/// All of it.
#[derive(Default)]
pub struct Facts {
    pub packs: Vec<Pack>,
    pub copies: Vec<Copy>,
    pub segments: BTreeMap<ObjectName, SegmentFacts>,
    /// Packs whose footers cannot be read and that no segment lists.
    pub unreadable: BTreeMap<ObjectName, String>,
    numbers: HashMap<ObjectName, u32>,
}

impl Facts {
    pub fn number(&self, pack: &ObjectName) -> Option<u32> {
        self.numbers.get(pack).copied()
    }

    pub fn pack(&self, number: u32) -> &Pack {
        &self.packs[number as usize]
    }

    /// A pack's frames.
    pub fn copies_of(&self, pack: u32) -> &[Copy] {
        &self.copies[self.pack(pack).copies.clone()]
    }

    /// Packs that are in the store, by number.
    pub fn there(&self) -> impl Iterator<Item = (u32, &Pack)> {
        (0..).zip(&self.packs).filter(|(_, pack)| pack.state != State::Gone)
    }

    /// Brings everything up to date, and marks what used deltas are based on. Segments are read before packs are listed, so that a pack
    /// which a segment lists and the store does not is gone, and not yet to come.
    pub fn refresh(&mut self, repository: &Repository, marks: &mut Marks, check: &dyn Fn() -> Result<()>) -> Result<()> {
        while !self.read_segments(repository, marks, check)? {}
        // In order, so that what a faulty store does to a run can be repeated.
        let stored: BTreeMap<ObjectName, u64> = repository.locator()?.list(Area::Packs)?.into_iter().collect();
        let is_unlisted = |name: &ObjectName| !self.numbers.contains_key(name) && !self.unreadable.contains_key(name);
        let unlisted: Vec<(ObjectName, u64)> =
            stored.iter().map(|(&name, &size)| (name, size)).filter(|(name, _)| is_unlisted(name)).collect();
        if !unlisted.is_empty() {
            // Other copies may go because of what these hold, and whoever put them may have died before they were durable.
            repository.backend().settle(Area::Packs)?;
        }
        for pack in unlisted {
            self.read_unlisted(repository, marks, pack)?;
            check()?;
        }
        for pack in &mut self.packs {
            pack.state = match stored.get(&pack.name) {
                Some(&size) if size == pack.size => State::Sound,
                Some(_) => State::Unsound,
                None => State::Gone,
            };
        }
        self.unreadable.retain(|name, _| stored.contains_key(name));
        self.mark_used_bases(marks);
        Ok(())
    }

    /// Marks what deltas are based on that are used, but for those that have lost it: what a backup left that failed over a collection,
    /// say. These are no copies of their frames any more, and what they lack is nobody's need.
    pub fn mark_used_bases(&mut self, marks: &mut Marks) {
        self.find_baseless();
        for copy in self.there().flat_map(|(number, _)| self.copies_of(number)).filter(|copy| !copy.baseless) {
            if let Some(base) = copy.base.as_ref().filter(|_| !marks.get(copy.frame).used.is_empty()) {
                base.iter().for_each(|(frame, chunks)| marks.add_base(*frame, chunks));
            }
        }
    }

    fn find_baseless(&mut self) {
        let there = self.plain_chunks(self.copies.iter().filter_map(|copy| copy.base.as_ref()).flatten());
        let lacks = |(frame, chunks): &BaseChunks| chunks.count_in(&there[frame]) < chunks.count();
        for copy in &mut self.copies {
            copy.baseless = copy.base.as_ref().is_some_and(|base| base.iter().any(lacks));
        }
    }

    /// Of frames that are bases, the chunks that sound packs have in copies that are no deltas.
    fn plain_chunks<'a>(&self, bases: impl Iterator<Item = &'a BaseChunks>) -> HashMap<u32, Ordinals> {
        let mut there: HashMap<u32, Ordinals> = bases.map(|(frame, _)| (*frame, Ordinals::default())).collect();
        if there.is_empty() {
            return there;
        }
        for (number, _) in self.there().filter(|(_, pack)| pack.state == State::Sound) {
            for copy in self.copies_of(number).iter().filter(|copy| !copy.is_delta()) {
                if let Some(there) = there.get_mut(&copy.frame) {
                    there.join(&copy.present());
                }
            }
        }
        there
    }

    /// Marks what all deltas are based on that lie in packs that stay. For a writer may come to rely on a delta that nothing uses, and
    /// version 0.1.0 looks only whether the frames of its base are there, and not whether all chunks are. What is lost already is left
    /// out: it is nobody's need.
    pub fn mark_bases(&self, marks: &mut Marks, stays: &dyn Fn(u32) -> bool) {
        let staying = || self.there().filter(|(number, _)| stays(*number)).flat_map(|(number, _)| self.copies_of(number));
        let bases = || staying().filter(|copy| marks.get(copy.frame).used.is_empty()).filter_map(|copy| copy.base.as_ref()).flatten();
        let there = self.plain_chunks(bases());
        let wanted: Vec<BaseChunks> = bases().filter(|(frame, chunks)| chunks.count_in(&there[frame]) == chunks.count()).cloned().collect();
        wanted.iter().for_each(|(frame, chunks)| marks.add_base(*frame, chunks));
    }

    /// Says that the packs there are now were there before the snapshots were listed.
    pub fn settle(&mut self, names: &HashSet<ObjectName>) {
        self.packs.iter_mut().for_each(|pack| pack.settled = names.contains(&pack.name));
    }

    /// Reads the segments that are not known yet. Says whether none vanished meanwhile.
    fn read_segments(&mut self, repository: &Repository, marks: &mut Marks, check: &dyn Fn() -> Result<()>) -> Result<bool> {
        let locator = repository.locator()?;
        let listed = locator.list(Area::Segments)?;
        let names: HashSet<ObjectName> = listed.iter().map(|(name, _)| *name).collect();
        self.segments.retain(|name, _| names.contains(name));
        for (name, size) in listed {
            if self.segments.contains_key(&name) {
                continue;
            }
            check()?;
            let segment = match locator.segment(name) {
                // Another collector replaced it.
                Err(Error::Storage(error)) if error.kind == StorageErrorKind::NotFound => return Ok(false),
                other => other?,
            };
            let packs = segment.packs.iter().map(|pack| self.add(pack, marks, true)).collect();
            self.segments.insert(name, SegmentFacts { size, replaces: segment.replaces, packs });
        }
        let mut is_listed = vec![false; self.packs.len()];
        self.segments.values().flat_map(|segment| &segment.packs).for_each(|&pack| is_listed[pack as usize] = true);
        self.packs.iter_mut().zip(is_listed).for_each(|(pack, is_listed)| pack.listed = is_listed);
        Ok(true)
    }

    fn read_unlisted(&mut self, repository: &Repository, marks: &mut Marks, (name, size): (ObjectName, u64)) -> Result<()> {
        match repository.locator()?.read_footer(name, size) {
            Ok((header, contents)) => {
                self.add(&PackRecord { name, kind: header.kind, size, frames: contents.to_records() }, marks, false);
            }
            Err(Error::Storage(error)) if error.kind == StorageErrorKind::NotFound => {}
            Err(error @ Error::Damaged { .. }) => drop(self.unreadable.insert(name, error.to_string())),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Adds a pack, unless it is known. Only tests call it from elsewhere.
    pub fn add(&mut self, pack: &PackRecord, marks: &mut Marks, listed: bool) -> u32 {
        if let Some(&number) = self.numbers.get(&pack.name) {
            return number;
        }
        let number = self.packs.len() as u32;
        let start = self.copies.len();
        self.copies.extend(pack.frames.iter().map(|record| Copy::of(record, marks)));
        let copies = start..self.copies.len();
        let PackRecord { name, kind, size, .. } = *pack;
        self.packs.push(Pack { name, kind, size, state: State::Sound, listed, settled: false, copies });
        self.numbers.insert(name, number);
        number
    }

    /// Whether a pack is not in the store, asked by name, because a listing may lag behind.
    pub fn is_gone(&self, repository: &Repository, pack: u32) -> bool {
        let place = Place::pack(self.pack(pack).name);
        let backend = repository.backend();
        backend.forget_cached(&place);
        let read = backend.read_at(&place, 0, &mut [0]);
        self.pack(pack).state == State::Gone && read.is_err_and(|error| error.kind == StorageErrorKind::NotFound)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::super::testing::{CHUNKS, Scene, only, whole};
    use super::*;
    use crate::backend::{Backend, Call, Fault, Faulty, Memory, Operation};
    use crate::crypto::Secret;
    use crate::format::frame::BaseRun;
    use crate::id::FrameId;
    use crate::repo::Opening;
    use crate::world::World;

    fn chunks(range: Range<u32>) -> Ordinals {
        let mut chunks = Ordinals::default();
        chunks.add(range.start, range.end - range.start);
        chunks
    }

    /// A frame of which these chunks are there, based on chunks of others.
    fn frame(number: u8, there: Range<u32>, base: &[(u8, Range<u32>)]) -> FrameRecord {
        let present = (there != (0..CHUNKS)).then(|| only(there));
        let run = |(frame, range): &(u8, Range<u32>)| BaseRun {
            at: 0,
            frame: FrameId([*frame; 32]),
            first: range.start,
            count: range.end - range.start,
        };
        let base = (!base.is_empty()).then(|| Base(base.iter().map(run).collect()));
        FrameRecord { present, base, ..whole(number) }
    }

    impl Scene {
        /// Chunks of a frame that are marked as a base.
        fn based_on(&self, frame: u8) -> Option<Ordinals> {
            self.marks.of(&FrameId([frame; 32])).and_then(|mark| mark.base.as_deref().cloned())
        }
    }

    /// What is said of a base may stand in several runs, and its chunks in several plain copies of it.
    #[test]
    fn a_base_is_there_if_plain_copies_give_all_of_it() {
        let mut scene = Scene::default();
        let delta = scene.pack(vec![frame(1, 0..6, &[(2, 0..2), (3, 1..3), (2, 3..5)])]);
        scene.needs(1, 0, 6);
        let is_read = |scene: &mut Scene| {
            scene.facts.mark_used_bases(&mut scene.marks);
            scene.facts.copies_of(delta)[0].meets(&scene.marks)
        };
        assert!(!is_read(&mut scene));
        scene.pack(vec![frame(3, 0..6, &[]), frame(2, 0..4, &[])]);
        assert!(!is_read(&mut scene), "the last chunk is not there");
        scene.pack(vec![frame(2, 0..6, &[(3, 0..1)])]);
        assert!(!is_read(&mut scene), "not in a plain copy");
        assert_eq!(scene.based_on(2), None, "what is lost is nobody's need");
        let last = scene.pack(vec![frame(2, 4..6, &[])]);
        for state in [State::Unsound, State::Gone] {
            scene.facts.packs[last as usize].state = state;
            assert!(!is_read(&mut scene), "{state:?}");
        }
        scene.facts.packs[last as usize].state = State::Sound;
        assert!(is_read(&mut scene));
        let mut both = chunks(0..2);
        both.join(&chunks(3..5));
        assert_eq!((scene.based_on(2), scene.based_on(3)), (Some(both), Some(chunks(1..3))));
    }

    /// Of deltas that nothing uses, those in packs that stay keep what is there of their bases.
    #[test]
    fn only_what_stays_keeps_its_base() {
        let mut scene = Scene::default();
        scene.pack(vec![frame(2, 0..6, &[]), frame(3, 0..3, &[]), frame(4, 0..6, &[]), frame(5, 0..6, &[])]);
        let stays = scene.pack(vec![frame(1, 0..6, &[(2, 0..2), (3, 1..4)]), frame(6, 0..6, &[(4, 0..6)])]);
        scene.pack(vec![frame(7, 0..6, &[(5, 0..6)])]);
        let gone = scene.pack(vec![frame(8, 0..6, &[(5, 0..6)])]);
        scene.facts.packs[gone as usize].state = State::Gone;
        scene.needs(6, 2, 1);
        scene.facts.mark_bases(&mut scene.marks, &|pack| pack == stays || pack == gone);
        assert_eq!([2, 3, 4, 5].map(|frame| scene.based_on(frame)), [Some(chunks(0..2)), None, None, None]);
        // What is used keeps it wherever it is.
        scene.facts.mark_used_bases(&mut scene.marks);
        assert_eq!(scene.based_on(4), Some(chunks(0..6)));
    }

    /// Neither a segment nor a listing that lags behind decides what is gone.
    #[test]
    fn a_pack_is_what_the_store_has_of_it() {
        let (memory, trouble) = (Memory::new(), Arc::new(Mutex::new(None)));
        let told = trouble.clone();
        let plan = move |call: &Call| (*told.lock().unwrap()).filter(|_| call.operation == Operation::ReadAt).map(Fault::Error);
        let opening = Opening { secret: Secret::KeyFile(vec![7; 32]), cache: None, world: World::system() };
        let repository = Repository::create(Arc::new(Faulty::new(memory.clone(), plan)), opening, "test").unwrap();
        let (name, mut scene) = (|number: u8| ObjectName([number; 32]), Scene::default());
        let put = |number: u8, size: usize| memory.put(&Place::pack(name(number)), &vec![0; size]).unwrap();
        let refresh = |scene: &mut Scene| scene.facts.refresh(&repository, &mut scene.marks, &|| Ok(()));
        let packs = [1, 2, 3].map(|number| scene.pack(vec![frame(number, 0..6, &[])]));
        put(1, 6500);
        put(2, 6499);
        refresh(&mut scene).unwrap();
        assert_eq!(packs.map(|pack| scene.facts.pack(pack).state), [State::Sound, State::Unsound, State::Gone]);
        assert_eq!(packs.map(|pack| scene.facts.is_gone(&repository, pack)), [false, false, true]);
        put(3, 6500);
        memory.delete(&Place::pack(name(1))).unwrap();
        assert_eq!(packs.map(|pack| scene.facts.is_gone(&repository, pack)), [false; 3]);
        // One that no segment lists: it may be gone before it is read, but nothing is decided without what it may hold.
        put(9, 6500);
        for (kind, is_ok) in [(StorageErrorKind::NotFound, true), (StorageErrorKind::Other, false)] {
            *trouble.lock().unwrap() = Some(kind);
            assert_eq!(refresh(&mut scene).is_ok(), is_ok);
            assert!(scene.facts.unreadable.is_empty());
        }
        *trouble.lock().unwrap() = None;
        refresh(&mut scene).unwrap();
        assert!(scene.facts.unreadable.keys().eq([&name(9)]) && scene.facts.number(&name(9)).is_none());
        memory.delete(&Place::pack(name(9))).unwrap();
        refresh(&mut scene).unwrap();
        assert!(scene.facts.unreadable.is_empty());
    }
}
