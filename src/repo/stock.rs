//! What is stored already and may be relied on: frames in packs that the store lists, verified against those packs' footers.
//!
//! Everything taken from here is noted, so that the end of a run can prove it is still there.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, RwLock};

use lru::LruCache;

use super::locate::{Locator, Presence};
use super::reader::Reader;
use super::runs::Runs;
use crate::format::frame::{Base, FrameRecord};
use crate::format::recipe::{Recipe, Run};
use crate::id::{ChunkId, FrameId, ObjectName};

/// Frame records kept at hand.
const RECENT_FRAMES: usize = 256;

type Known = (ObjectName, Arc<FrameRecord>);

/// The stored frames a run may refer to.
pub struct Stock {
    locator: Arc<Locator>,
    reader: Arc<Reader>,
    presence: RwLock<Presence>,
    recent: Mutex<LruCache<FrameId, Known>>,
    reused: Mutex<HashSet<ObjectName>>,
}

impl Stock {
    pub fn new(locator: Arc<Locator>, reader: Arc<Reader>, presence: Presence) -> Self {
        let recent = Mutex::new(LruCache::new(RECENT_FRAMES.try_into().expect("not zero")));
        Self { locator, reader, presence: RwLock::new(presence), recent, reused: Mutex::default() }
    }

    /// The record of a frame and the pack it is in. A delta frame counts only with plain copies of all it is based on, and those
    /// packs are noted as relied on.
    pub fn frame(&self, id: &FrameId) -> Option<Known> {
        if let Some(known) = self.recent.lock().expect("no panic holds it").get(id) {
            return Some(known.clone());
        }
        let (pack, record) = self.locator.record(id, &self.presence.read().expect("no panic holds it"), false)?;
        if !record.base.as_ref().is_none_or(|base| self.has_chunks(base)) {
            return None;
        }
        let known = (pack.name, record);
        self.recent.lock().expect("no panic holds it").put(*id, known.clone());
        Some(known)
    }

    /// Whether plain copies in present packs hold all chunks of a base.
    fn has_chunks(&self, base: &Base) -> bool {
        let mut copies: HashMap<FrameId, Option<Arc<FrameRecord>>> = HashMap::new();
        base.0.iter().all(|run| {
            let copy = copies.entry(run.frame).or_insert_with(|| self.plain(&run.frame));
            copy.as_ref().is_some_and(|copy| (run.first..run.first + run.count).all(|ordinal| copy.has(ordinal as usize)))
        })
    }

    /// Whether chunks of a frame can be a base: a plain copy in a present pack has them, which is noted as relied on.
    pub fn has_base(&self, id: &FrameId, first: u32, count: u32) -> bool {
        self.plain(id).is_some_and(|copy| (first..first + count).all(|ordinal| copy.has(ordinal as usize)))
    }

    fn plain(&self, id: &FrameId) -> Option<Arc<FrameRecord>> {
        let known = self.recent.lock().expect("no panic holds it").get(id).cloned();
        let plain = known.filter(|(_, record)| !record.is_delta()).or_else(|| {
            let (pack, record) = self.locator.record(id, &self.presence.read().expect("no panic holds it"), true)?;
            Some((pack.name, record))
        });
        let (pack, record) = plain?;
        self.rely_on(pack);
        Some(record)
    }

    /// The frame that holds a chunk, its pack, and the chunk's place in it. The index only says where to look.
    pub fn chunk(&self, id: &ChunkId) -> Option<(ObjectName, Arc<FrameRecord>, u32)> {
        self.locator.chunk(id).into_iter().find_map(|location| {
            let (pack, record) = self.frame(&location.frame)?;
            let ordinal = location.ordinal as usize;
            let right = record.has(ordinal) && record.table.ids().get(ordinal) == Some(id);
            right.then_some((pack, record, location.ordinal))
        })
    }

    /// Whether all chunks of a recipe, and of the recipe itself if it is long, are there; if so they are noted as relied on.
    pub fn covers(&self, recipe: &Recipe) -> bool {
        let direct = recipe.runs.iter().all(|run| self.covers_run(run));
        if !direct || recipe.depth == 0 {
            return direct;
        }
        // The runs of the recipe one level below are what this one's bytes say.
        (1..=recipe.depth).all(|levels| {
            let view = Recipe { depth: levels, runs: recipe.runs.clone() };
            Runs::new(self.reader.clone(), view).all(|run| run.is_ok_and(|run| self.covers_run(&run)))
        })
    }

    fn covers_run(&self, run: &Run) -> bool {
        let Some((pack, record)) = self.frame(&run.frame) else { return false };
        let all = (run.first..run.first + run.count).all(|ordinal| record.has(ordinal as usize));
        if all {
            self.rely_on(pack);
        }
        all
    }

    /// Notes that the snapshot relies on a pack.
    pub fn rely_on(&self, pack: ObjectName) {
        self.reused.lock().expect("no panic holds it").insert(pack);
    }

    /// The packs relied on so far.
    pub fn relied_on(&self) -> HashSet<ObjectName> {
        self.reused.lock().expect("no panic holds it").clone()
    }

    /// A pack was stored.
    pub fn add_pack(&self, name: ObjectName, size: u64) {
        self.presence.write().expect("no panic holds it").add(name, size);
    }

    /// Reads the recipes of what is stored.
    pub fn reader(&self) -> &Arc<Reader> {
        &self.reader
    }
}
