//! What `tables` keeps in a database, in maps: for an index that has no place for files and ends with its process. Nothing is started or
//! written for the little that such an index often holds. Rows of chunks are in runs here too.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;

use super::home::Home;
use super::run::Row;
use super::shelf::{Change, Shelf};
use super::tables::key_of;
use super::{ChunkLocation, FrameLocation, IndexError, IndexedPack, Result, Scope};
use crate::format::segment::{PackRecord, Segment};
use crate::id::{ChunkId, FrameId, ObjectName};

/// A frame in a pack, and its short number.
struct Place {
    location: FrameLocation,
    frame: u32,
}

pub struct Maps {
    segments: BTreeMap<ObjectName, Scope>,
    packs: BTreeMap<u32, (IndexedPack, Scope)>,
    numbers: HashMap<ObjectName, u32>,
    /// By frame id and pack number.
    frames: BTreeMap<(FrameId, u32), Place>,
    ids: BTreeMap<u32, FrameId>,
    shelf: Shelf,
}

impl Default for Maps {
    fn default() -> Self {
        let shelf = Shelf::empty(Home::Memory);
        Self {
            segments: BTreeMap::new(),
            packs: BTreeMap::new(),
            numbers: HashMap::new(),
            frames: BTreeMap::new(),
            ids: BTreeMap::new(),
            shelf,
        }
    }
}

impl Maps {
    pub fn verify(&self) -> Result<()> {
        self.shelf.verify().map_err(failed)
    }

    pub fn merged(&self) -> Vec<(ObjectName, Scope)> {
        self.segments.iter().map(|(name, scope)| (*name, *scope)).collect()
    }

    /// An error leaves what it was told half-way: whoever meets one starts over.
    pub fn merge(&mut self, segments: &[(ObjectName, Segment)], scope: Scope) -> Result<()> {
        let mut rows = Vec::new();
        for (name, segment) in segments {
            segment.packs.iter().for_each(|pack| self.merge_pack(pack, scope, &mut rows));
            let done = self.segments.entry(*name).or_insert(scope);
            *done = scope.max(*done);
        }
        self.add(rows)
    }

    pub fn merge_packs(&mut self, packs: &[PackRecord]) -> Result<()> {
        let mut rows = Vec::new();
        packs.iter().for_each(|pack| self.merge_pack(pack, Scope::Chunks, &mut rows));
        self.add(rows)
    }

    /// Adds a pack, its frames, and to `rows` its chunks. What was merged before is passed over: packs never change.
    fn merge_pack(&mut self, pack: &PackRecord, scope: Scope, rows: &mut Vec<Row>) {
        let next = self.packs.last_key_value().map_or(0, |(last, _)| last + 1);
        let number = *self.numbers.entry(pack.name).or_insert(next);
        if self.packs.get(&number).is_some_and(|(_, done)| *done >= scope) {
            return;
        }
        self.packs.insert(number, (IndexedPack { number, name: pack.name, kind: pack.kind, size: pack.size }, scope));
        for record in &pack.frames {
            let known = self.places(&record.id).next().map(|place| place.frame);
            let frame = known.unwrap_or_else(|| {
                let next = self.ids.last_key_value().map_or(0, |(last, _)| last + 1);
                self.ids.insert(next, record.id);
                next
            });
            let location = FrameLocation { pack: number, offset: record.offset, stored_len: record.stored_len, info: record.seal_info() };
            self.frames.insert((record.id, number), Place { location, frame });
            if scope >= Scope::Chunks {
                let there = record.table.ids().iter().enumerate().filter(|(ordinal, _)| record.has(*ordinal));
                rows.extend(there.map(|(ordinal, id)| Row { key: key_of(id), frame, ordinal: ordinal as u16 }));
            }
        }
    }

    fn add(&mut self, rows: Vec<Row>) -> Result<()> {
        let change = self.shelf.add(rows).map_err(failed)?;
        self.apply(change);
        Ok(())
    }

    fn apply(&mut self, change: Option<Change>) {
        change.into_iter().for_each(|change| self.shelf.apply(change));
    }

    pub fn remove(&mut self, segments: &[ObjectName], packs: &HashSet<ObjectName>) -> Result<()> {
        self.segments.retain(|name, _| !segments.contains(name));
        let gone: HashSet<u32> = packs.iter().filter_map(|name| self.numbers.remove(name)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        self.packs.retain(|number, _| !gone.contains(number));
        let mut lost = Vec::new();
        self.frames.retain(|(id, pack), place| {
            let stays = !gone.contains(pack);
            lost.extend((!stays).then_some((*id, place.frame)));
            stays
        });
        let mut dead = HashSet::new();
        for (id, frame) in lost {
            if self.places(&id).next().is_none() {
                self.ids.remove(&frame);
                dead.insert(frame);
            }
        }
        if !dead.is_empty() {
            let change = self.shelf.retain(&|row| !dead.contains(&row.frame)).map_err(failed)?;
            self.apply(Some(change));
        }
        Ok(())
    }

    fn places(&self, id: &FrameId) -> impl Iterator<Item = &Place> {
        self.frames.range((*id, 0)..=(*id, u32::MAX)).map(|(_, place)| place)
    }

    pub fn frame(&self, id: &FrameId) -> Vec<FrameLocation> {
        self.places(id).map(|place| place.location.clone()).collect()
    }

    pub fn chunk(&self, id: &ChunkId) -> Result<Vec<ChunkLocation>> {
        let rows = self.shelf.find(key_of(id)).map_err(failed)?;
        let place = |row: Row| Some(ChunkLocation { frame: *self.ids.get(&row.frame)?, ordinal: row.ordinal.into() });
        Ok(rows.into_iter().filter_map(place).collect())
    }

    pub fn pack(&self, number: u32) -> Option<IndexedPack> {
        self.packs.get(&number).map(|(pack, _)| pack.clone())
    }

    pub fn packs(&self) -> Vec<IndexedPack> {
        self.packs.values().map(|(pack, _)| pack.clone()).collect()
    }
}

fn failed(error: io::Error) -> IndexError {
    IndexError(error.to_string())
}
