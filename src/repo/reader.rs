//! Reading frames: from recipes to verified bytes.
//!
//! A frame is opened and decompressed, and every chunk of it verified before it is handed on; for fetching (`fetch`), only those that are
//! wanted, since much may be read for a few of them, or for what was stored as a delta, which is verified itself. Every place of a frame
//! is tried; if all fail, it is put together from others (`salvage`).

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, TryLockError};

use lru::LruCache;

use super::locate::Locator;
use crate::backend::Place;
use crate::compression::Decompressor;
use crate::crypto::SealKey;
use crate::error::{Error, Result};
use crate::format::codec::Reader as Fields;
use crate::format::envelope::{HEADER_BYTES, Header, Kind};
use crate::format::frame::{Base, ChunkTable, FrameRecord};
use crate::format::recipe::Run;
use crate::id::{FrameId, ObjectName};
use crate::index::IndexedPack;
use crate::limits::*;

/// A decoded frame.
pub struct Frame {
    pub(super) kind: Kind,
    /// Every chunk fits its id.
    pub(super) verified: bool,
    pub table: ChunkTable,
    /// Where each chunk begins in `bytes`; `None` for one that is not there.
    pub(super) starts: Vec<Option<u32>>,
    pub(super) bytes: Vec<u8>,
    /// Whether it was stored as a delta.
    pub delta: bool,
    /// What is wrong with it, where chunks had to be found elsewhere or are lost.
    pub damage: Option<String>,
    /// Its chunks were looked for everywhere: one that is not there is lost.
    pub(super) searched: bool,
    /// Takes the memory back.
    pub(super) spare: Arc<Spare>,
}

/// Memory of frames that are not needed any more, for the next ones: fresh pages cost a tenth of reading a frame.
#[derive(Default)]
pub(super) struct Spare(Mutex<Vec<Vec<u8>>>);

/// As many as are decoded at a time on most machines.
const SPARE_FRAMES: usize = 16;

impl Spare {
    fn take(&self) -> Vec<u8> {
        self.0.lock().expect("no panic holds it").pop().unwrap_or_default()
    }

    fn give(&self, bytes: Vec<u8>) {
        let mut spare = self.0.lock().expect("no panic holds it");
        if spare.len() < SPARE_FRAMES && bytes.capacity() <= FRAME_BYTES_MAX {
            spare.push(bytes);
        }
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.spare.give(std::mem::take(&mut self.bytes));
    }
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

    /// Whether all chunks of a run are there.
    pub fn has(&self, run: &Run) -> bool {
        let starts = self.starts.get(run.first as usize..(run.first + run.count) as usize);
        starts.is_some_and(|starts| starts.iter().all(Option::is_some))
    }

    /// Whether all chunks are there.
    pub fn is_whole(&self) -> bool {
        self.starts.iter().all(Option::is_some)
    }

    /// For each chunk whether it is there.
    pub fn present(&self) -> impl ExactSizeIterator<Item = bool> + '_ {
        self.starts.iter().map(Option::is_some)
    }

    /// The chunks that are there, end to end in table order.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn new(kind: Kind, record: &FrameRecord, bytes: Vec<u8>, spare: Arc<Spare>) -> Self {
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
        Self { kind, verified: false, table, starts, bytes, delta, damage: None, searched: false, spare }
    }
}

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
    /// What was opened, and what decompresses it.
    static OPENED: RefCell<(Vec<u8>, Decompressor)> = RefCell::default();
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

    /// Tries every place where the index says a frame is; if that fails, also those that no segment lists.
    fn read_places(&self, id: &FrameId, copies: Copies, verify: Verify) -> Result<Frame> {
        let mut trouble = Error::damaged(format!("frame {id}"), "no index segment lists it");
        let mut tried = HashSet::new();
        for attempt in 0..2 {
            if attempt > 0 {
                self.locator.adopt_unlisted();
            }
            for (pack, location) in self.locator.places(id) {
                if copies == Copies::Plain && location.info.is_delta() || !tried.insert(pack.name) {
                    continue;
                }
                match self.read_listed(&pack, id, verify) {
                    Ok(frame) if copies == Copies::Plain && frame.delta => {}
                    Ok(frame) => return Ok(frame),
                    Err(error) => trouble = error,
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
        let place = Place::pack(name);
        let mut head = [0; HEADER_BYTES];
        self.locator.backend().read_at(&place, 0, &mut head)?;
        let header = Header::decode(&mut Fields::new(&head)).map_err(|error| error.of(&place))?;
        let key = Arc::new((header.kind, self.locator.keys().seal_key(header.kind, &header.salt)));
        self.pack_keys.lock().expect("no panic holds it").put(name, key.clone());
        Ok(key)
    }

    /// Opens a frame's box, decompresses it and verifies table and chunks. A base is never read from a delta copy.
    /// Where a base has no good plain copy, its chunks are looked for elsewhere.
    pub fn decode(&self, key: &(Kind, SealKey), record: &FrameRecord, sealed: &[u8]) -> Result<Frame> {
        self.open(key, record, sealed, Verify::All)
    }

    fn open(&self, key: &(Kind, SealKey), record: &FrameRecord, sealed: &[u8], verify: Verify) -> Result<Frame> {
        let damaged = |why: &str| Error::damaged(format!("frame {}", record.id), why);
        let (kind, key) = key;
        if self.locator.keys().frame_id(&record.table) != record.id {
            return Err(damaged("its chunk table does not fit its id"));
        }
        let prefix = record.base.as_ref().map(|base| self.prefix_with(base, Bases::Any, verify)).transpose()?;
        let mut bytes = self.spare.take();
        OPENED.with_borrow_mut(|(opened, decompressor)| {
            let associated_data = record.seal_info().associated_data(&self.locator.repository(), *kind);
            let compressed = key.open_into(&associated_data, sealed, opened);
            let compressed = compressed.ok_or_else(|| damaged("its seal does not fit its bytes"))?;
            let done = decompressor.decompress_into(record.codec, prefix.as_deref(), compressed, record.present_len(), &mut bytes);
            done.map_err(|error| damaged(&error.to_string()))
        })?;
        let mut frame = Frame::new(*kind, record, bytes, self.spare.clone());
        self.verify_lengths(&frame).map_err(damaged)?;
        if verify == Verify::All {
            frame.verified = self.fits(&frame, 0..frame.table.len());
            frame.verified.then_some(()).ok_or_else(|| damaged("a chunk does not fit its id"))?;
        }
        Ok(frame)
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

    /// The old chunks of a base, end to end, each once.
    pub fn prefix(&self, base: &Base, bases: Bases) -> Result<Vec<u8>> {
        self.prefix_with(base, bases, Verify::All)
    }

    fn prefix_with(&self, base: &Base, bases: Bases, verify: Verify) -> Result<Vec<u8>> {
        let mut prefix = Vec::new();
        let mut seen = HashSet::new();
        for run in &base.0 {
            let mut frame = self.base_frame(&run.frame, bases, verify)?;
            let wanted = Run { frame: run.frame, first: run.first, count: run.count };
            if bases == Bases::Any && !frame.has(&wanted) {
                frame = self.complete(&self.bases, &run.frame, frame, Copies::Plain)?;
            }
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
