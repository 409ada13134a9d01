//! Reading frames: from recipes to verified bytes.
//!
//! A frame is opened, decompressed and every chunk of it verified before anything is handed on. Every place of a frame is tried; if
//! all fail, its chunks are looked for in other frames, and those that are nowhere are marked lost. Fetching is batch by batch: a
//! batch's frames are decoded in parallel on a thread of its own while the batch before is used; the order never changes.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, TryLockError};

use lru::LruCache;
use rayon::prelude::*;

use super::locate::{Locator, is_not_found};
use crate::backend::Place;
use crate::compression::Decompressor;
use crate::crypto::SealKey;
use crate::error::{Error, Result};
use crate::format::envelope::Kind;
use crate::format::frame::{Base, ChunkTable, FrameRecord};
use crate::format::recipe::Run;
use crate::id::{FrameId, ObjectName};
use crate::index::IndexedPack;
use crate::limits::*;

/// A decoded frame, every chunk verified.
#[derive(Clone)]
pub struct Frame {
    pub table: ChunkTable,
    /// Where each chunk begins in `bytes`; `None` for one that is not there.
    starts: Vec<Option<u32>>,
    bytes: Vec<u8>,
    /// Whether it was stored as a delta.
    pub delta: bool,
    /// What is wrong with it, where chunks had to be found elsewhere or are lost.
    pub damage: Option<String>,
}

impl Frame {
    /// A chunk's bytes, or nothing if they are lost.
    pub fn chunk(&self, ordinal: usize) -> Option<&[u8]> {
        let start = (*self.starts.get(ordinal)?)? as usize;
        Some(&self.bytes[start..start + self.table.lens()[ordinal] as usize])
    }

    /// The bytes of neighbouring chunks, if all are there.
    pub fn chunks(&self, run: &Run) -> Option<&[u8]> {
        let (first, end) = (run.first as usize, (run.first + run.count) as usize);
        let lens = self.table.lens().get(first..end)?;
        if self.starts[first..end].iter().any(Option::is_none) {
            return None;
        }
        let start = self.starts[first]? as usize;
        let len: usize = lens.iter().map(|&len| len as usize).sum();
        Some(&self.bytes[start..start + len])
    }

    fn is_whole(&self) -> bool {
        self.starts.iter().all(Option::is_some)
    }

    /// With the chunks that another copy of the frame has besides.
    fn join(self, other: &Self) -> Self {
        let mut bytes = Vec::with_capacity(self.bytes.len() + other.bytes.len());
        let place = |ordinal: usize| {
            let chunk = self.chunk(ordinal).or_else(|| other.chunk(ordinal))?;
            bytes.extend_from_slice(chunk);
            Some((bytes.len() - chunk.len()) as u32)
        };
        let starts = (0..self.table.len()).map(place).collect();
        Self { starts, bytes, ..self }
    }

    fn new(record: &FrameRecord, bytes: Vec<u8>) -> Self {
        let (table, delta) = (record.table.clone(), record.is_delta());
        let mut at = 0;
        let place = |(i, &len): (usize, &u32)| {
            record.has(i).then(|| {
                let start = at;
                at += len;
                start
            })
        };
        let starts = table.lens().iter().enumerate().map(place).collect();
        Self { table, starts, bytes, delta, damage: None }
    }
}

/// A run that somebody wants, and what for.
pub struct Wanted<T> {
    pub tag: T,
    pub run: Run,
}

/// A run and its frame; the error is shared by all runs of the frame.
pub struct Fetched<T> {
    pub tag: T,
    pub run: Run,
    pub frame: std::result::Result<Arc<Frame>, Arc<Error>>,
}

/// Which copies of a frame are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Copies {
    All,
    Plain,
}

/// Which bases will do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Bases {
    /// Good plain copies only: what is written against them can be read again.
    Good,
    /// Also what can be put together from elsewhere.
    Any,
}

type Shelf = Mutex<LruCache<FrameId, Arc<Mutex<Option<Arc<Frame>>>>>>;

/// Reads frames, and keeps the last ones decoded.
pub struct Reader {
    locator: Arc<Locator>,
    frames: Shelf,
    /// Bases have a shelf of their own, so that waiting for one never waits for a frame that waits for a base.
    bases: Shelf,
    pack_keys: Mutex<LruCache<ObjectName, Arc<(Kind, SealKey)>>>,
    hopeless: Mutex<HashMap<FrameId, Arc<Error>>>,
}

impl Reader {
    pub fn new(locator: Arc<Locator>) -> Self {
        let shelf = |bytes: usize| Mutex::new(LruCache::new((bytes / FRAME_BYTES_TARGET).try_into().expect("at least one frame")));
        Self {
            locator,
            frames: shelf(FRAME_CACHE_BYTES),
            bases: shelf(FRAME_CACHE_BYTES),
            pack_keys: Mutex::new(LruCache::new(1024.try_into().expect("not zero"))),
            hopeless: Mutex::default(),
        }
    }

    pub fn locator(&self) -> &Arc<Locator> {
        &self.locator
    }

    /// A frame, decoded once while it stays in the cache.
    pub fn frame(&self, id: &FrameId) -> Result<Arc<Frame>> {
        let slot = self.slot(&self.frames, id);
        let mut slot = slot.lock().expect("no panic holds it");
        if let Some(frame) = &*slot {
            return Ok(frame.clone());
        }
        let frame = match ready(&self.bases, id) {
            Some(frame) => frame,
            None => Arc::new(self.read(id)?),
        };
        *slot = Some(frame.clone());
        Ok(frame)
    }

    /// A frame to be the base of a delta: never read from a delta copy, so decoding is one step deep.
    fn base_frame(&self, id: &FrameId, bases: Bases) -> Result<Arc<Frame>> {
        if let Some(frame) = ready(&self.frames, id).filter(|frame| !frame.delta) {
            return Ok(frame);
        }
        let slot = self.slot(&self.bases, id);
        let mut slot = slot.lock().expect("no panic holds it");
        if let Some(frame) = slot.as_ref().filter(|frame| bases == Bases::Any || frame.damage.is_none()) {
            return Ok(frame.clone());
        }
        let frame = match (self.read_places(id, Copies::Plain), bases) {
            (Err(trouble), Bases::Any) => self.salvage(id, trouble, Copies::Plain)?,
            (result, _) => result?,
        };
        let frame = Arc::new(frame);
        *slot = Some(frame.clone());
        Ok(frame)
    }

    fn slot(&self, shelf: &Shelf, id: &FrameId) -> Arc<Mutex<Option<Arc<Frame>>>> {
        shelf.lock().expect("no panic holds it").get_or_insert(*id, Default::default).clone()
    }

    fn read(&self, id: &FrameId) -> Result<Frame> {
        self.read_places(id, Copies::All).or_else(|trouble| self.salvage(id, trouble, Copies::All))
    }

    /// Tries every place where the index says a frame is; if that fails, also those of segments that came since, and those that no
    /// segment lists.
    fn read_places(&self, id: &FrameId, copies: Copies) -> Result<Frame> {
        let mut trouble = Error::damaged(format!("frame {id}"), "no index segment lists it");
        let mut tried = HashSet::new();
        let mut gone = Vec::new();
        let mut thinned: Option<Frame> = None;
        for attempt in 0..3 {
            match attempt {
                1 if gone.is_empty() => continue,
                1 => self.locator.catch_up(&gone),
                2 => self.locator.adopt_unlisted(),
                _ => {}
            }
            for (pack, location) in self.locator.places(id) {
                if copies == Copies::Plain && location.info.is_delta() || !tried.insert(pack.name) {
                    continue;
                }
                match self.read_listed(&pack, id) {
                    Ok(frame) if copies == Copies::Plain && frame.delta => {}
                    Ok(frame) if frame.is_whole() => return Ok(frame),
                    // What this copy lacks another may have.
                    Ok(frame) => thinned = Some(thinned.take().map_or_else(|| frame.clone(), |known| known.join(&frame))),
                    Err(error) => {
                        gone.extend(is_not_found(&error).then_some(pack.name));
                        trouble = error;
                    }
                }
            }
            if !trouble.is_damage() || thinned.is_some() && gone.is_empty() {
                break;
            }
        }
        thinned.ok_or(trouble)
    }

    /// Reads a frame from a pack.
    pub fn read_from(&self, pack: &IndexedPack, record: &FrameRecord) -> Result<Frame> {
        let place = Place::pack(pack.name);
        let key = self.pack_key(pack.name)?;
        let mut sealed = vec![0; record.stored_len as usize];
        self.locator.backend().read_at(&place, record.offset, &mut sealed)?;
        let decoded = self.decode(&key, record, &sealed).or_else(|_| {
            // Perhaps it was only the way here: once more, from the medium.
            self.locator.backend().forget_cached(&place);
            self.locator.backend().read_at(&place, record.offset, &mut sealed)?;
            self.decode(&key, record, &sealed)
        });
        decoded.map_err(|error| match error {
            Error::Damaged { what, why } => Error::Damaged { what: format!("{what} in {place}"), why },
            other => other,
        })
    }

    fn read_listed(&self, pack: &IndexedPack, id: &FrameId) -> Result<Frame> {
        let record = self.locator.record_in(pack, id)?;
        self.read_from(pack, &record)
    }

    fn pack_key(&self, name: ObjectName) -> Result<Arc<(Kind, SealKey)>> {
        if let Some(key) = self.pack_keys.lock().expect("no panic holds it").get(&name) {
            return Ok(key.clone());
        }
        let header = self.locator.pack_header(name)?;
        let key = Arc::new((header.kind, self.locator.keys().seal_key(header.kind, &header.salt)));
        self.pack_keys.lock().expect("no panic holds it").put(name, key.clone());
        Ok(key)
    }

    /// Opens a frame's box, decompresses it and verifies table and chunks. A base is never read from a delta copy.
    /// Where a base has no good plain copy, its chunks are looked for elsewhere.
    pub fn decode(&self, key: &(Kind, SealKey), record: &FrameRecord, sealed: &[u8]) -> Result<Frame> {
        self.open_box(key, record, sealed, Bases::Any).map(|(frame, _)| frame)
    }

    /// A frame as it lies in a pack, with what is in its box. For moving it: its base must be good, and nothing is looked for elsewhere.
    pub(super) fn read_exact(&self, pack: ObjectName, record: &FrameRecord) -> Result<(Kind, Frame, Vec<u8>)> {
        let place = Place::pack(pack);
        let key = self.pack_key(pack)?;
        let mut sealed = vec![0; record.stored_len as usize];
        self.locator.backend().read_at(&place, record.offset, &mut sealed)?;
        let opened = self.open_box(&key, record, &sealed, Bases::Good).or_else(|_| {
            self.locator.backend().forget_cached(&place);
            self.locator.backend().read_at(&place, record.offset, &mut sealed)?;
            self.open_box(&key, record, &sealed, Bases::Good)
        });
        opened.map(|(frame, payload)| (key.0, frame, payload))
    }

    /// The decoded frame, and its bytes as the codec left them.
    fn open_box(&self, key: &(Kind, SealKey), record: &FrameRecord, sealed: &[u8], bases: Bases) -> Result<(Frame, Vec<u8>)> {
        let damaged = |why: &str| Error::damaged(format!("frame {}", record.id), why);
        let (kind, key) = key;
        let compressed = key.open(&record.seal_info().associated_data(&self.locator.repository(), *kind), sealed);
        let compressed = compressed.ok_or_else(|| damaged("its seal does not fit its bytes"))?;
        if self.locator.keys().frame_id(&record.table) != record.id {
            return Err(damaged("its chunk table does not fit its id"));
        }
        let prefix = record.base.as_ref().map(|base| self.prefix(base, bases)).transpose()?;
        let bytes = Decompressor::default()
            .decompress(record.codec, prefix.as_deref(), &compressed, record.present_len())
            .map_err(|error| damaged(&error.to_string()))?;
        let frame = Frame::new(record, bytes);
        self.verify(&frame, *kind).map_err(damaged)?;
        Ok((frame, compressed))
    }

    fn verify(&self, frame: &Frame, kind: Kind) -> std::result::Result<(), &'static str> {
        let present: usize = (0..frame.table.len()).filter_map(|i| frame.starts[i].map(|_| frame.table.lens()[i] as usize)).sum();
        if present != frame.bytes.len() {
            return Err("its chunks have other lengths than its bytes");
        }
        for (i, id) in frame.table.ids().iter().enumerate() {
            if frame.chunk(i).is_some_and(|bytes| self.locator.keys().chunk_id(kind, bytes) != *id) {
                return Err("a chunk does not fit its id");
            }
        }
        Ok(())
    }

    /// The old chunks of a base, end to end, each once.
    pub fn prefix(&self, base: &Base, bases: Bases) -> Result<Vec<u8>> {
        let mut prefix = Vec::new();
        let mut seen = HashSet::new();
        for run in &base.0 {
            let frame = self.base_frame(&run.frame, bases)?;
            for ordinal in (run.first..run.first + run.count).filter(|&ordinal| seen.insert((run.frame, ordinal))) {
                let lost = || Error::damaged(format!("frame {}", run.frame), "a chunk of a base is not there");
                prefix.extend_from_slice(frame.chunk(ordinal as usize).ok_or_else(lost)?);
            }
            if prefix.len() > DELTA_BASE_BYTES_MAX {
                return Err(Error::damaged(format!("frame {}", run.frame), "a base is beyond the limit"));
            }
        }
        Ok(prefix)
    }

    /// Puts a frame together from chunks stored in other frames; what is nowhere is lost.
    fn salvage(&self, id: &FrameId, trouble: Error, from: Copies) -> Result<Frame> {
        if !trouble.is_damage() {
            return Err(trouble);
        }
        if let Some(known) = self.hopeless.lock().expect("no panic holds it").get(id) {
            return Err(Error::damaged(format!("frame {id}"), known));
        }
        let copies = self.locator.search(id)?;
        let Some((table, elsewhere)) = copies else {
            let known = Arc::new(trouble);
            self.hopeless.lock().expect("no panic holds it").insert(*id, known.clone());
            return Err(Error::damaged(format!("frame {id}"), known));
        };
        let mut starts = vec![None; table.len()];
        let mut bytes = Vec::new();
        for (pack, record) in elsewhere {
            if from == Copies::Plain && record.is_delta() {
                continue;
            }
            let Ok(frame) = self.read_from(&pack, &record) else { continue };
            for (ordinal, chunk_id) in table.ids().iter().enumerate().filter(|(ordinal, _)| starts[*ordinal].is_none()).collect::<Vec<_>>()
            {
                let found = frame.table.ids().iter().position(|id| id == chunk_id).and_then(|i| frame.chunk(i));
                if let Some(chunk) = found {
                    starts[ordinal] = Some(bytes.len() as u32);
                    bytes.extend_from_slice(chunk);
                }
            }
        }
        // `chunks` hands out neighbours as one slice, so they are laid in order.
        let mut ordered = Vec::with_capacity(bytes.len());
        for (ordinal, start) in starts.iter_mut().enumerate() {
            if let Some(old) = *start {
                *start = Some(ordered.len() as u32);
                ordered.extend_from_slice(&bytes[old as usize..old as usize + table.lens()[ordinal] as usize]);
            }
        }
        Ok(Frame { table, starts, bytes: ordered, delta: false, damage: Some(trouble.to_string()) })
    }

    /// Hands the wanted runs with their frames to `each`, in order, a batch at a time, reading ahead meanwhile.
    pub fn fetch<T: Send>(
        &self,
        wanted: impl Iterator<Item = Result<Wanted<T>>> + Send,
        mut each: impl FnMut(Vec<Fetched<T>>) -> Result<()>,
    ) -> Result<()> {
        std::thread::scope(|scope| {
            let (sender, receiver) = crossbeam_channel::bounded(1);
            scope.spawn(move || {
                let mut wanted = wanted.peekable();
                while wanted.peek().is_some() {
                    let batch = self.batch(&mut wanted);
                    let failed = batch.is_err();
                    if sender.send(batch).is_err() || failed {
                        return;
                    }
                }
            });
            for batch in receiver {
                each(batch?)?;
            }
            Ok(())
        })
    }

    fn batch<T>(&self, wanted: &mut impl Iterator<Item = Result<Wanted<T>>>) -> Result<Vec<Fetched<T>>> {
        let mut ids = HashSet::new();
        let mut order = Vec::new();
        let mut batch = Vec::new();
        while ids.len() < FETCH_FRAMES && batch.len() < FRAME_CHUNKS_MAX {
            let Some(item) = wanted.next().transpose()? else { break };
            if ids.insert(item.run.frame) {
                order.push(item.run.frame);
            }
            batch.push(item);
        }
        // Frames stored as deltas come after the others, which are likely to be their bases.
        let is_delta = |id: &FrameId| self.locator.places(id).first().is_some_and(|(_, location)| location.info.is_delta());
        let (deltas, plain): (Vec<FrameId>, Vec<FrameId>) = order.into_iter().partition(is_delta);
        let mut frames = HashMap::new();
        for group in [plain, deltas] {
            let read = |id| (id, self.frame(&id).map_err(Arc::new));
            frames.extend(group.into_par_iter().with_max_len(1).map(read).collect::<Vec<_>>());
        }
        let fetched = |Wanted { tag, run }| Fetched { tag, run, frame: frames[&run.frame].clone() };
        Ok(batch.into_iter().map(fetched).collect())
    }
}

/// A whole frame on a shelf, if it is there now. Never waits: a slot that is being filled may wait for another itself.
fn ready(shelf: &Shelf, id: &FrameId) -> Option<Arc<Frame>> {
    let slot = shelf.lock().expect("no panic holds it").get(id).cloned()?;
    let frame = match slot.try_lock() {
        Ok(slot) => slot.clone(),
        Err(TryLockError::WouldBlock) => None,
        Err(TryLockError::Poisoned(_)) => unreachable!("no panic holds it"),
    };
    frame.filter(|frame| frame.damage.is_none())
}
