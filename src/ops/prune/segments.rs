//! Index segments that speak of packs that are gone are written anew without them, and many small ones are merged.
//!
//! A new segment repeats all that its predecessors say of packs that are there. It is read back and compared before they are deleted.

use std::collections::{HashMap, HashSet};

use super::collector::Collector;
use super::facts::State;
use crate::backend::Place;
use crate::error::{Error, Result, StorageErrorKind};
use crate::format::envelope::Kind;
use crate::format::segment::{PackRecord, Segment};
use crate::id::ObjectName;
use crate::limits::*;
use crate::ops::go_on;

/// Segments to be replaced together.
#[derive(Default)]
struct Group {
    segment: Segment,
    packs: HashSet<ObjectName>,
    bytes: usize,
}

impl Collector<'_> {
    /// Replaces segments as far as that is worth it.
    pub fn tidy_segments(&mut self) -> Result<()> {
        self.refresh()?;
        let mut gone: HashMap<u32, bool> = HashMap::new();
        for pack in self.facts.segments.values().flat_map(|segment| &segment.packs).copied() {
            if self.facts.pack(pack).state == State::Gone {
                gone.entry(pack).or_insert_with(|| self.facts.is_gone(self.repository, pack));
            }
        }
        let is_gone = |pack: &u32| gone.get(pack) == Some(&true);
        self.drop_replaced(&is_gone)?;
        let is_small = |size: u64| size < SMALL_SEGMENT_BYTES;
        let merges = self.facts.segments.values().filter(|segment| is_small(segment.size)).count() >= SMALL_SEGMENTS_MIN;
        let mut inputs: Vec<ObjectName> = Vec::new();
        for (name, segment) in &self.facts.segments {
            if segment.packs.iter().any(is_gone) || merges && is_small(segment.size) {
                inputs.push(*name);
            }
        }
        inputs.sort_unstable();
        let unlisted = self.unlisted()?;
        let mut group = Group::default();
        for pack in unlisted {
            group.add(pack);
        }
        for name in inputs {
            go_on(self.progress)?;
            let segment = match self.repository.locator()?.segment(name) {
                // Another collector replaced it.
                Err(Error::Storage(error)) if error.kind == StorageErrorKind::NotFound => continue,
                other => other?,
            };
            let stays = |pack: &PackRecord| self.facts.number(&pack.name).is_some_and(|number| !is_gone(&number));
            segment.packs.into_iter().filter(stays).for_each(|pack| group.add(pack));
            group.segment.replaces.push(name);
            if group.bytes >= SEGMENT_BYTES_TARGET {
                self.replace(std::mem::take(&mut group), &is_gone)?;
            }
        }
        self.replace(group, &is_gone)?;
        self.refresh()
    }

    /// Deletes segments that an interrupted run has replaced already.
    fn drop_replaced(&mut self, is_gone: &dyn Fn(&u32) -> bool) -> Result<()> {
        let replaced: HashSet<ObjectName> = self.facts.segments.values().flat_map(|segment| &segment.replaces).copied().collect();
        let mut leftovers: Vec<ObjectName> = self.facts.segments.keys().filter(|name| replaced.contains(*name)).copied().collect();
        leftovers.sort_unstable();
        let others = self.facts.segments.iter().filter(|(name, _)| !replaced.contains(*name));
        let said: HashSet<u32> = others.flat_map(|(_, segment)| &segment.packs).copied().collect();
        for name in leftovers {
            if self.facts.segments[&name].packs.iter().all(|pack| said.contains(pack) || is_gone(pack)) {
                self.delete_segment(name)?;
            }
        }
        Ok(())
    }

    /// What packs hold that are needed and stand in no segment.
    fn unlisted(&self) -> Result<Vec<PackRecord>> {
        let mut found = Vec::new();
        let condemned = self.condemned();
        for (number, pack) in self.facts.there().filter(|(number, pack)| !pack.listed && !condemned.has(*number)) {
            if !self.facts.copies_of(number).iter().any(|copy| self.marks.get(copy.frame).is_needed()) {
                continue;
            }
            let (header, contents) = self.repository.locator()?.read_footer(pack.name, pack.size)?;
            found.push(PackRecord { name: pack.name, kind: header.kind, size: pack.size, frames: contents.to_records() });
        }
        Ok(found)
    }

    /// Stores a group's segment, reads it back, and deletes those that it replaces.
    fn replace(&mut self, group: Group, is_gone: &dyn Fn(&u32) -> bool) -> Result<()> {
        let segment = group.segment;
        if !segment.packs.is_empty() {
            let stored = self.repository.seal_object(Kind::Segment, &segment.encode())?;
            let name = ObjectName::of(&stored);
            let place = Place::segment(name);
            self.repository.backend().put(&place, &stored)?;
            self.report.bytes_written += stored.len() as u64;
            self.repository.backend().forget_cached(&place);
            let read = self.repository.locator()?.segment(name)?;
            let said: HashSet<ObjectName> = read.packs.iter().map(|pack| pack.name).collect();
            let replaced = segment.replaces.iter().filter_map(|name| self.facts.segments.get(name)).flat_map(|facts| &facts.packs);
            let is_whole = replaced.filter(|pack| !is_gone(pack)).all(|&pack| said.contains(&self.facts.pack(pack).name));
            if read != segment || !is_whole {
                return Err(Error::ReadBack(place.to_string()));
            }
        }
        for name in segment.replaces {
            self.delete_segment(name)?;
            self.report.segments_replaced += 1;
        }
        Ok(())
    }

    fn delete_segment(&mut self, name: ObjectName) -> Result<()> {
        match self.repository.backend().delete(&Place::segment(name)) {
            Err(error) if error.kind != StorageErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        self.facts.segments.remove(&name);
        Ok(())
    }
}

impl Group {
    fn add(&mut self, pack: PackRecord) {
        if self.packs.insert(pack.name) {
            self.bytes += pack.frames.iter().map(|frame| 64 + 20 * frame.table.len()).sum::<usize>();
            self.segment.packs.push(pack);
        }
    }
}
