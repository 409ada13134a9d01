//! Reading frames: from recipes to verified bytes.
//!
//! A frame is opened and decompressed, and every chunk of it verified before it is handed on. Every place of a frame is tried; if
//! all fail, it is put together from others (`salvage`).

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, TryLockError};

use lru::LruCache;

use super::frames::{Frame, Spare};
use super::locate::{Locator, is_not_found};
use crate::backend::Place;
use crate::compression::{Decompressor, decompress};
use crate::crypto::SealKey;
use crate::error::{Error, Result};
use crate::format::envelope::Kind;
use crate::format::frame::{Base, ChunkTable, FrameRecord};
use crate::format::recipe::Run;
use crate::id::{ChunkId, FrameId, ObjectName};
use crate::index::IndexedPack;
use crate::limits::*;

/// Which copies of a frame are read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Copies {
    All,
    Plain,
}

/// Which chunks of a frame are verified.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verify {
    All,
    /// None yet: whoever hands them on does it.
    Later,
}

/// Which bases will do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Bases {
    /// Good plain copies only: what is written against them can be read again.
    Good,
    /// Also what can be put together from elsewhere.
    Any,
}

thread_local! {
    // Memory that is used again for each frame a thread reads.
    /// What is sealed. Whoever reads a frame takes it out, since a base may have to be read meanwhile.
    static SEALED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    /// The chunks of a base.
    static PREFIX: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static DECOMPRESSOR: RefCell<Decompressor> = RefCell::default();
}

pub(super) type Shelf = Mutex<LruCache<FrameId, Arc<Mutex<Option<Arc<Frame>>>>>>;

/// Reads frames, and keeps the last ones decoded.
pub struct Reader {
    locator: Arc<Locator>,
    pub(super) frames: Shelf,
    /// Bases have a shelf of their own, so that waiting for one never waits for a frame that waits for a base.
    bases: Shelf,
    pack_keys: Mutex<LruCache<ObjectName, Arc<(Kind, SealKey)>>>,
    pub(super) hopeless: Mutex<HashMap<FrameId, Arc<Error>>>,
    /// Frames that had to be put together from others.
    pub(super) salvaged: Mutex<BTreeSet<FrameId>>,
    pub(super) spare: Arc<Spare>,
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
            salvaged: Mutex::default(),
            spare: Arc::default(),
        }
    }

    /// Forgets what was read: packs have come or gone.
    pub fn start_over(&self) {
        self.frames.lock().expect("no panic holds it").clear();
        self.bases.lock().expect("no panic holds it").clear();
        self.hopeless.lock().expect("no panic holds it").clear();
        self.salvaged.lock().expect("no panic holds it").clear();
    }

    pub fn locator(&self) -> &Arc<Locator> {
        &self.locator
    }

    /// A frame, decoded once while it stays in the cache.
    pub fn frame(&self, id: &FrameId) -> Result<Arc<Frame>> {
        self.shelved(id, Verify::All)
    }

    pub(super) fn shelved(&self, id: &FrameId, verify: Verify) -> Result<Arc<Frame>> {
        let slot = self.slot(&self.frames, id);
        let mut slot = slot.lock().expect("no panic holds it");
        if let Some(frame) = slot.as_ref().filter(|frame| frame.verified || verify == Verify::Later) {
            return Ok(frame.clone());
        }
        let frame = match ready(&self.bases, id).filter(|frame| frame.verified || verify == Verify::Later) {
            Some(frame) => frame,
            None => Arc::new(self.read(id, verify)?),
        };
        *slot = Some(frame.clone());
        Ok(frame)
    }

    /// A frame to be the base of a delta: never read from a delta copy, so decoding is one step deep.
    fn base_frame(&self, id: &FrameId, bases: Bases, verify: Verify) -> Result<Arc<Frame>> {
        let will_do = |frame: &Arc<Frame>| {
            !frame.delta && (frame.verified || verify == Verify::Later) && (frame.damage.is_none() || bases == Bases::Any)
        };
        if let Some(frame) = ready(&self.frames, id).filter(will_do) {
            return Ok(frame);
        }
        let slot = self.slot(&self.bases, id);
        let mut slot = slot.lock().expect("no panic holds it");
        if let Some(frame) = slot.as_ref().filter(|frame| will_do(frame)) {
            return Ok(frame.clone());
        }
        let frame = match (self.read_places(id, Copies::Plain, verify), bases) {
            (Err(trouble), Bases::Any) => self.salvage(id, trouble, Copies::Plain)?,
            (result, _) => result?,
        };
        let frame = Arc::new(frame);
        *slot = Some(frame.clone());
        Ok(frame)
    }

    /// Keeps more decoded: what was stored over many nights is read from here and there, and restores use little else.
    pub(super) fn widen(&self) {
        let frames = |bytes: usize| (bytes / FRAME_BYTES_TARGET).try_into().expect("at least one frame");
        self.frames.lock().expect("no panic holds it").resize(frames(FETCH_CACHE_BYTES));
        self.bases.lock().expect("no panic holds it").resize(frames(FETCH_BASES_BYTES));
    }

    /// Keeps a frame that was read from a plain copy, for deltas that are based on it.
    pub fn keep_base(&self, id: FrameId, frame: Frame) {
        let slot = self.slot(&self.bases, &id);
        *slot.lock().expect("no panic holds it") = Some(Arc::new(frame));
    }

    pub(super) fn slot(&self, shelf: &Shelf, id: &FrameId) -> Arc<Mutex<Option<Arc<Frame>>>> {
        shelf.lock().expect("no panic holds it").get_or_insert(*id, Default::default).clone()
    }

    fn read(&self, id: &FrameId, verify: Verify) -> Result<Frame> {
        self.read_places(id, Copies::All, verify).or_else(|trouble| self.salvage(id, trouble, Copies::All))
    }

    /// Tries every place where the index says a frame is; if that fails, also those of segments that came since, and those that no
    /// segment lists.
    fn read_places(&self, id: &FrameId, copies: Copies, verify: Verify) -> Result<Frame> {
        let mut trouble = Error::damaged(format!("frame {id}"), "no index segment lists it");
        let mut tried = HashSet::new();
        let mut gone = Vec::new();
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
                match self.read_listed(&pack, id, verify) {
                    Ok(frame) if copies == Copies::Plain && frame.delta => {}
                    Ok(frame) => return Ok(frame),
                    Err(error) => {
                        gone.extend(is_not_found(&error).then_some(pack.name));
                        trouble = error;
                    }
                }
            }
            if !trouble.is_damage() {
                break;
            }
        }
        Err(trouble)
    }

    /// Reads a frame from a pack, and verifies every chunk of it.
    pub fn read_from(&self, pack: &IndexedPack, record: &FrameRecord) -> Result<Frame> {
        self.read_copy(pack, record, Verify::All)
    }

    fn read_copy(&self, pack: &IndexedPack, record: &FrameRecord, verify: Verify) -> Result<Frame> {
        let place = Place::pack(pack.name);
        let mut memory = SEALED.take();
        let len = record.stored_len as usize;
        memory.resize(memory.len().max(len), 0);
        let sealed = &mut memory[..len];
        let mut read = || {
            let key = self.pack_key(pack.name)?;
            self.locator.backend().read_at(&place, record.offset, sealed)?;
            self.open(&key, record, sealed, verify)
        };
        let decoded = read().or_else(|_| {
            // Perhaps it was only the way here: once more, from the medium.
            self.locator.backend().forget_cached(&place);
            self.pack_keys.lock().expect("no panic holds it").pop(&pack.name);
            read()
        });
        SEALED.set(memory);
        decoded.map_err(|error| match error {
            Error::Damaged { what, why } => Error::Damaged { what: format!("{what} in {place}"), why },
            other => other,
        })
    }

    fn read_listed(&self, pack: &IndexedPack, id: &FrameId, verify: Verify) -> Result<Frame> {
        let record = self.locator.record_in(pack, id)?;
        self.read_copy(pack, &record, verify)
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
        let mut memory = SEALED.take();
        memory.clear();
        memory.extend_from_slice(sealed);
        let frame = self.open(key, record, &mut memory, Verify::All);
        SEALED.set(memory);
        frame
    }

    /// As `decode`; of the box itself nothing is left.
    fn open(&self, key: &(Kind, SealKey), record: &FrameRecord, sealed: &mut [u8], verify: Verify) -> Result<Frame> {
        let damaged = |why: &str| Error::damaged(format!("frame {}", record.id), why);
        let (kind, key) = key;
        if self.locator.keys().frame_id(&record.table) != record.id {
            return Err(damaged("its chunk table does not fit its id"));
        }
        let mut memory = PREFIX.take();
        let prefix = match &record.base {
            Some(base) => {
                self.gather_prefix(base, Bases::Any, verify, &mut memory)?;
                Some(&memory[..])
            }
            None => None,
        };
        let mut bytes = self.spare.take();
        let associated_data = record.seal_info().associated_data(&self.locator.repository(), *kind);
        let compressed = key.open_in_place(&associated_data, sealed).ok_or_else(|| damaged("its seal does not fit its bytes"))?;
        DECOMPRESSOR
            .with_borrow_mut(|own| own.decompress_into(record.codec, prefix, compressed, record.present_len(), &mut bytes))
            .map_err(|error| damaged(&error.to_string()))?;
        PREFIX.set(memory);
        let mut frame = Frame::new(*kind, record, bytes, self.spare.clone());
        self.verify_lengths(&frame).map_err(damaged)?;
        if verify == Verify::All {
            frame.verified = self.fits(&frame, 0..frame.table.len());
            frame.verified.then_some(()).ok_or_else(|| damaged("a chunk does not fit its id"))?;
        }
        Ok(frame)
    }

    /// A frame as it lies in a pack, every chunk verified, with what is in its box. For moving it: what it is based on must be good, and
    /// nothing is looked for elsewhere.
    pub(super) fn read_exact(&self, pack: ObjectName, record: &FrameRecord) -> Result<(Kind, Frame, Vec<u8>)> {
        let place = Place::pack(pack);
        let mut sealed = vec![0; record.stored_len as usize];
        let mut read = || {
            let key = self.pack_key(pack)?;
            self.locator.backend().read_at(&place, record.offset, &mut sealed)?;
            self.open_exact(&key, record, &sealed)
        };
        read().or_else(|_| {
            // Perhaps it was only the way here: once more, from the medium.
            self.locator.backend().forget_cached(&place);
            self.pack_keys.lock().expect("no panic holds it").pop(&pack);
            read()
        })
    }

    fn open_exact(&self, key: &(Kind, SealKey), record: &FrameRecord, sealed: &[u8]) -> Result<(Kind, Frame, Vec<u8>)> {
        let damaged = |why: &str| Error::damaged(format!("frame {}", record.id), why);
        let (kind, key) = key;
        if self.locator.keys().frame_id(&record.table) != record.id {
            return Err(damaged("its chunk table does not fit its id"));
        }
        let payload = key.open(&record.seal_info().associated_data(&self.locator.repository(), *kind), sealed);
        let payload = payload.ok_or_else(|| damaged("its seal does not fit its bytes"))?;
        let prefix = record.base.as_ref().map(|base| self.prefix(base, Bases::Good)).transpose()?;
        let plain = decompress(record.codec, prefix.as_deref(), &payload, record.present_len());
        let frame = Frame::new(*kind, record, plain.map_err(|error| damaged(&error.to_string()))?, self.spare.clone());
        self.verify_lengths(&frame).map_err(damaged)?;
        match self.fits(&frame, 0..frame.table.len()) {
            true => Ok((*kind, frame, payload)),
            false => Err(damaged("a chunk does not fit its id")),
        }
    }

    fn verify_lengths(&self, frame: &Frame) -> std::result::Result<(), &'static str> {
        let present: usize = (0..frame.table.len()).filter_map(|i| frame.starts[i].map(|_| frame.table.lens()[i] as usize)).sum();
        if present != frame.bytes.len() {
            return Err("its chunks have other lengths than its bytes");
        }
        Ok(())
    }

    /// Whether chunks fit their ids; those that are not there do.
    pub(super) fn fits(&self, frame: &Frame, mut ordinals: Range<usize>) -> bool {
        let fits = |ordinal: usize, id| frame.chunk(ordinal).is_none_or(|bytes| self.locator.keys().chunk_id(frame.kind, bytes) == id);
        frame.verified || ordinals.all(|ordinal| frame.table.ids().get(ordinal).is_none_or(|id| fits(ordinal, *id)))
    }

    /// Stored bytes for each plain byte of the frames of a base.
    pub fn ratio(&self, base: &Base) -> f64 {
        let frames: HashSet<FrameId> = base.0.iter().map(|run| run.frame).collect();
        let plain = |id| self.locator.places(&id).into_iter().map(|(_, location)| location).find(|location| !location.info.is_delta());
        let lens =
            frames.into_iter().filter_map(plain).map(|location| (u64::from(location.stored_len), u64::from(location.info.plain_len)));
        let (stored, plain) = lens.fold((0, 0), |sum, lens| (sum.0 + lens.0, sum.1 + lens.1));
        if plain == 0 { 1.0 } else { stored as f64 / plain as f64 }
    }

    /// The old chunks of a base, end to end, each once.
    pub fn prefix(&self, base: &Base, bases: Bases) -> Result<Vec<u8>> {
        let mut prefix = Vec::new();
        self.gather_prefix(base, bases, Verify::All, &mut prefix)?;
        Ok(prefix)
    }

    /// As `prefix`, of good plain copies only, in place of what `prefix` holds. Returns the ids and lengths of its chunks: whoever makes
    /// something of it sees afterwards whether they fit.
    pub fn unverified_prefix(&self, base: &Base, prefix: &mut Vec<u8>) -> Result<ChunkTable> {
        let mut table = ChunkTable::default();
        prefix.clear();
        self.gather_chunks(base, Bases::Good, Verify::Later, |id, chunk| {
            table.push(id, chunk.len());
            prefix.extend_from_slice(chunk);
        })?;
        Ok(table)
    }

    fn gather_prefix(&self, base: &Base, bases: Bases, verify: Verify, prefix: &mut Vec<u8>) -> Result<()> {
        prefix.clear();
        self.gather_chunks(base, bases, verify, |_, chunk| prefix.extend_from_slice(chunk))
    }

    /// Hands on the old chunks of a base, each once.
    fn gather_chunks(&self, base: &Base, bases: Bases, verify: Verify, mut take: impl FnMut(ChunkId, &[u8])) -> Result<()> {
        let (mut seen, mut len) = (HashSet::new(), 0);
        for run in &base.0 {
            let mut frame = self.base_frame(&run.frame, bases, verify)?;
            let wanted = Run { frame: run.frame, first: run.first, count: run.count };
            if bases == Bases::Any && !frame.has(&wanted) {
                frame = self.complete(&self.bases, &run.frame, frame, Copies::Plain)?;
            }
            for ordinal in (run.first..run.first + run.count).filter(|&ordinal| seen.insert((run.frame, ordinal))) {
                let lost = || Error::damaged(format!("frame {}", run.frame), "a chunk of a base is not there");
                let chunk = frame.chunk(ordinal as usize).ok_or_else(lost)?;
                take(frame.table.ids()[ordinal as usize], chunk);
                len += chunk.len();
            }
            if len > DELTA_BASE_BYTES_MAX {
                return Err(Error::damaged(format!("frame {}", run.frame), "a base is beyond the limit"));
            }
        }
        Ok(())
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
