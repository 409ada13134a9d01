//! Reading frames: from recipes to verified bytes.
//!
//! A frame is opened, decompressed and every chunk of it verified before anything is handed on. Every place of a frame is tried; if
//! all fail, its chunks are looked for in other frames, and those that are nowhere are marked lost. Fetching is batch by batch: a
//! batch's frames are decoded in parallel on a thread of its own while the batch before is used; the order never changes.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, TryLockError};

use lru::LruCache;
use rayon::prelude::*;

use super::locate::Locator;
use crate::backend::Place;
use crate::compression::Decompressor;
use crate::crypto::SealKey;
use crate::error::{Error, Result};
use crate::format::codec::Reader as Fields;
use crate::format::envelope::{HEADER_BYTES, Header, Kind};
use crate::format::frame::{Base, ChunkTable, FrameBox, Present, SealInfo, decode_box};
use crate::format::recipe::{BLOCK_BYTES_MAX, Recipe, Run, decode_block};
use crate::id::{FrameId, ObjectName};
use crate::index::{FrameLocation, IndexedPack};
use crate::limits::*;

/// A decoded frame, every chunk verified.
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

    fn new(table: ChunkTable, present: Option<&Present>, bytes: Vec<u8>, delta: bool) -> Self {
        let mut at = 0;
        let place = |(i, &len): (usize, &u32)| {
            present.is_none_or(|present| present.has(i)).then(|| {
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
        let frame = Arc::new(self.read(id)?);
        *slot = Some(frame.clone());
        Ok(frame)
    }

    /// A frame to be the base of a delta: never read from a delta copy, so decoding is one step deep.
    pub fn base_frame(&self, id: &FrameId) -> Result<Arc<Frame>> {
        if let Some(slot) = self.frames.lock().expect("no panic holds it").get(id).cloned() {
            match slot.try_lock() {
                Ok(slot) if slot.is_some() => return Ok(slot.clone().expect("just seen")),
                Ok(_) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Poisoned(_)) => unreachable!("no panic holds it"),
            }
        }
        let slot = self.slot(&self.bases, id);
        let mut slot = slot.lock().expect("no panic holds it");
        if let Some(frame) = &*slot {
            return Ok(frame.clone());
        }
        let mut trouble = Error::damaged(format!("frame {id}"), "it is a base and no plain copy of it is listed");
        for (pack, location) in self.locator.places(id).iter().filter(|(_, location)| !location.info.is_delta()) {
            match self.read_place(pack, location) {
                Ok(frame) => {
                    let frame = Arc::new(frame);
                    *slot = Some(frame.clone());
                    return Ok(frame);
                }
                Err(error) => trouble = error,
            }
        }
        Err(trouble)
    }

    fn slot(&self, shelf: &Shelf, id: &FrameId) -> Arc<Mutex<Option<Arc<Frame>>>> {
        shelf.lock().expect("no panic holds it").get_or_insert(*id, Default::default).clone()
    }

    fn read(&self, id: &FrameId) -> Result<Frame> {
        let mut trouble = Error::damaged(format!("frame {id}"), "no index segment lists it");
        for (pack, location) in self.locator.places(id) {
            match self.read_place(&pack, &location) {
                Ok(frame) => return Ok(frame),
                Err(error) => trouble = error,
            }
        }
        self.salvage(id, trouble)
    }

    /// Reads a frame where the index says it is.
    pub fn read_place(&self, pack: &IndexedPack, location: &FrameLocation) -> Result<Frame> {
        let place = Place::pack(pack.name);
        if location.stored_len as usize > FRAME_STORED_BYTES_MAX {
            return Err(Error::damaged(format!("frame {}", location.info.id), "its length is beyond the limit"));
        }
        let key = self.pack_key(pack.name)?;
        let mut sealed = vec![0; location.stored_len as usize];
        self.locator.backend().read_at(&place, location.offset, &mut sealed)?;
        self.decode(&key, &location.info, &sealed).map_err(|error| match error {
            Error::Damaged { what, why } => Error::Damaged { what: format!("{what} in {place}"), why },
            other => other,
        })
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

    /// Opens a frame's box, decompresses it and verifies table and chunks.
    pub fn decode(&self, key: &(Kind, SealKey), info: &SealInfo, sealed: &[u8]) -> Result<Frame> {
        let damaged = |why: &str| Error::damaged(format!("frame {}", info.id), why);
        let (kind, key) = key;
        let plain = key.open(&info.associated_data(&self.locator.repository(), *kind), sealed);
        let plain = plain.ok_or_else(|| damaged("its seal does not fit its bytes"))?;
        let FrameBox { table, present, base, compressed } =
            decode_box(&plain, info.flags).map_err(|error| error.of(format!("frame {}", info.id)))?;
        if self.locator.keys().frame_id(&table) != info.id {
            return Err(damaged("its chunk table does not fit its id"));
        }
        if info.plain_len as usize > FRAME_BYTES_MAX {
            return Err(damaged("its length is beyond the limit"));
        }
        let prefix = base.as_ref().map(|base| self.prefix(base)).transpose()?;
        let bytes = Decompressor::default()
            .decompress(info.codec, prefix.as_deref(), compressed, info.plain_len as usize)
            .map_err(|error| damaged(&error.to_string()))?;
        let frame = Frame::new(table, present.as_ref(), bytes, base.is_some());
        self.verify(&frame, *kind).map_err(damaged)?;
        Ok(frame)
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
    pub fn prefix(&self, base: &Base) -> Result<Vec<u8>> {
        let mut prefix = Vec::new();
        let mut seen = HashSet::new();
        for run in &base.0 {
            let frame = self.base_frame(&run.frame)?;
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
    fn salvage(&self, id: &FrameId, trouble: Error) -> Result<Frame> {
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
            let location =
                FrameLocation { pack: pack.number, offset: record.offset, stored_len: record.stored_len, info: record.seal_info() };
            let Ok(frame) = self.read_place(&pack, &location) else { continue };
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
        let mut ids: HashMap<FrameId, usize> = HashMap::new();
        let mut order = Vec::new();
        let mut batch = Vec::new();
        while ids.len() < FETCH_FRAMES && batch.len() < FRAME_CHUNKS_MAX {
            let Some(item) = wanted.next().transpose()? else { break };
            ids.entry(item.run.frame).or_insert_with(|| {
                order.push(item.run.frame);
                order.len() - 1
            });
            batch.push(item);
        }
        let frames: Vec<_> = order.par_iter().with_max_len(1).map(|id| self.frame(id).map_err(Arc::new)).collect();
        let fetched = |Wanted { tag, run }| Fetched { tag, run, frame: frames[ids[&run.frame]].clone() };
        Ok(batch.into_iter().map(fetched).collect())
    }
}

/// The bytes of a recipe, one after another, without reading ahead: for catalogs and long recipes.
pub struct ByteStream {
    reader: Arc<Reader>,
    runs: Box<Runs>,
    buffer: Vec<u8>,
    at: usize,
    ended: bool,
}

impl ByteStream {
    pub fn new(reader: Arc<Reader>, recipe: Recipe) -> Self {
        let runs = Box::new(Runs::new(reader.clone(), recipe));
        Self { reader, runs, buffer: Vec::new(), at: 0, ended: false }
    }

    /// What is at hand after making sure that it is at least `want` bytes, or all there is.
    pub fn peek(&mut self, want: usize) -> Result<&[u8]> {
        while self.buffer.len() - self.at < want && !self.ended {
            self.buffer.drain(..self.at);
            self.at = 0;
            match self.runs.next().transpose()? {
                None => self.ended = true,
                Some(run) => {
                    let frame = self.reader.frame(&run.frame)?;
                    let lost = || Error::damaged(format!("frame {}", run.frame), "chunks of a catalog or recipe are lost");
                    self.buffer.extend_from_slice(frame.chunks(&run).ok_or_else(lost)?);
                }
            }
        }
        Ok(&self.buffer[self.at..])
    }

    /// Moves past bytes that were peeked at.
    pub fn consume(&mut self, len: usize) {
        assert!(len <= self.buffer.len() - self.at);
        self.at += len;
    }

    /// Moves to `offset` bytes from the start of a fresh stream, without reading what lies before.
    pub fn skip(&mut self, mut offset: u64) -> Result<()> {
        while offset > 0 {
            let Some(run) = self.runs.next().transpose()? else { return Ok(()) };
            let len = self.reader.locator.run_len(&run)?;
            if len > offset {
                let frame = self.reader.frame(&run.frame)?;
                let lost = || Error::damaged(format!("frame {}", run.frame), "chunks of a catalog or recipe are lost");
                self.buffer.extend_from_slice(frame.chunks(&run).ok_or_else(lost)?);
                self.at = offset as usize;
                return Ok(());
            }
            offset -= len;
        }
        Ok(())
    }

    /// All of it, up to `bytes_max`.
    pub fn read_all(mut self, bytes_max: usize) -> Result<Vec<u8>> {
        let bytes = self.peek(bytes_max + 1)?.to_vec();
        match bytes.len() > bytes_max {
            true => Err(Error::damaged("a catalog or recipe", "it is longer than it may be")),
            false => Ok(bytes),
        }
    }
}

/// The runs of a recipe, however deep it is.
pub struct Runs {
    current: std::vec::IntoIter<Run>,
    blocks: Option<ByteStream>,
}

impl Runs {
    pub fn new(reader: Arc<Reader>, recipe: Recipe) -> Self {
        let (direct, deeper) = match recipe.depth {
            0 => (recipe.runs, None),
            depth => (Vec::new(), Some(Recipe { depth: depth - 1, runs: recipe.runs })),
        };
        Self { current: direct.into_iter(), blocks: deeper.map(|recipe| ByteStream::new(reader, recipe)) }
    }

    fn next_block(&mut self) -> Result<Option<Vec<Run>>> {
        let Some(blocks) = &mut self.blocks else { return Ok(None) };
        let bytes = blocks.peek(BLOCK_BYTES_MAX)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let mut fields = Fields::new(bytes);
        let runs = decode_block(&mut fields).map_err(|error| error.of("a recipe"))?;
        let len = fields.position();
        blocks.consume(len);
        Ok(Some(runs))
    }
}

impl Iterator for Runs {
    type Item = Result<Run>;

    fn next(&mut self) -> Option<Result<Run>> {
        loop {
            if let Some(run) = self.current.next() {
                return Some(Ok(run));
            }
            match self.next_block() {
                Ok(Some(runs)) => self.current = runs.into_iter(),
                Ok(None) => return None,
                Err(error) => {
                    self.blocks = None;
                    return Some(Err(error));
                }
            }
        }
    }
}
