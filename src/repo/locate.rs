//! Where frames and chunks are: this host's index brought up to date, and the packs' own sealed footers as the truth behind it.
//!
//! The index is a hint. Before a backup relies on a stored chunk, its frame's record is taken from the footer of a pack that the
//! store lists now, and the chunk must stand in that record. Footers are kept in a bounded cache.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use lru::LruCache;

use super::objects;
use crate::backend::{Area, Backend, Place};
use crate::crypto::Keys;
use crate::error::{Error, Result};
use crate::format::codec::Reader;
use crate::format::envelope::{HEADER_BYTES, Header, Kind, footer_associated_data};
use crate::format::frame::{ChunkTable, FrameRecord};
use crate::format::pack::{TRAILER_BYTES, decode_frames, decode_trailer};
use crate::format::recipe::Run;
use crate::format::segment::{PackRecord, Segment};
use crate::id::{ChunkId, FrameId, ObjectName, RepositoryId};
use crate::index::{FrameLocation, Index, IndexError, IndexedPack, Scope};
use crate::limits::*;

/// A pack's footer, opened.
pub struct Footer {
    pub header: Header,
    pub frames: Vec<Arc<FrameRecord>>,
    by_id: HashMap<FrameId, usize>,
}

impl Footer {
    pub fn frame(&self, id: &FrameId) -> Option<&Arc<FrameRecord>> {
        self.by_id.get(id).map(|&i| &self.frames[i])
    }

    fn chunks(&self) -> usize {
        self.frames.iter().map(|frame| frame.table.len()).sum()
    }
}

/// The packs a backup may build on: those in the store, of the right size, and not condemned.
pub struct Presence {
    packs: HashMap<ObjectName, u64>,
}

impl Presence {
    pub fn new(listed: impl IntoIterator<Item = (ObjectName, u64)>, condemned: &HashSet<ObjectName>) -> Self {
        Self { packs: listed.into_iter().filter(|(name, _)| !condemned.contains(name)).collect() }
    }

    /// A pack was stored.
    pub fn add(&mut self, name: ObjectName, size: u64) {
        self.packs.insert(name, size);
    }

    fn has(&self, pack: &IndexedPack) -> bool {
        self.packs.get(&pack.name) == Some(&pack.size)
    }
}

/// Finds frames and chunks.
pub struct Locator {
    backend: Arc<dyn Backend>,
    keys: Arc<Keys>,
    repository: RepositoryId,
    index: Mutex<Index>,
    packs: Mutex<HashMap<u32, Arc<IndexedPack>>>,
    footers: Mutex<FooterCache>,
}

struct FooterCache {
    footers: LruCache<ObjectName, Arc<Footer>>,
    chunks: usize,
}

impl Locator {
    /// Opens this host's index and merges the segments it lacks.
    pub fn open(backend: Arc<dyn Backend>, keys: Arc<Keys>, repository: RepositoryId, cache: Option<&Path>) -> Result<Self> {
        let locator = Self {
            backend,
            keys,
            repository,
            index: Mutex::new(Index::open(cache, repository)),
            packs: Mutex::default(),
            footers: Mutex::new(FooterCache { footers: LruCache::unbounded(), chunks: 0 }),
        };
        locator.refresh(Scope::Frames)?;
        Ok(locator)
    }

    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    pub fn repository(&self) -> RepositoryId {
        self.repository
    }

    /// Merges what the index lacks of the store's segments, up to `scope`.
    /// A segment that cannot be read is passed over: its packs' contents count as absent, which costs a backup bytes and loses nothing.
    pub fn refresh(&self, scope: Scope) -> Result<Vec<Error>> {
        let listed = self.list(Area::Segments)?;
        let wanted: HashSet<ObjectName> = listed.iter().map(|(name, _)| *name).collect();
        let mut index = self.index();
        let mut merged: HashMap<_, _> = index.merged().unwrap_or_default().into_iter().collect();
        if merged.keys().any(|name| !wanted.contains(name)) || index.merged().is_err() {
            index.start_over();
            self.packs.lock().expect("no panic holds it").clear();
            merged.clear();
        }
        let missing: Vec<_> = listed.into_iter().filter(|(name, _)| merged.get(name).is_none_or(|&done| done < scope)).collect();
        match self.merge_missing(&index, &missing, scope) {
            Ok(problems) => Ok(problems),
            Err(MergeError::Index(_)) => {
                index.start_over();
                let listed = self.list(Area::Segments)?;
                self.merge_missing(&index, &listed, scope).map_err(|error| match error {
                    MergeError::Index(error) => Error::Conflict(format!("{error}; remove the cache folder")),
                })
            }
        }
    }

    fn merge_missing(&self, index: &Index, missing: &[(ObjectName, u64)], scope: Scope) -> std::result::Result<Vec<Error>, MergeError> {
        let mut problems = Vec::new();
        let mut batch = Vec::new();
        let mut batch_chunks = 0;
        // A footer that cannot be read leaves its chunks unknown, which costs a backup bytes and loses nothing.
        let records = |pack: &PackRecord| self.read_footer(pack.name, pack.size).map(|footer| footer.frames).unwrap_or_default();
        for (name, _) in missing {
            match self.segment(*name) {
                Ok(segment) => {
                    batch_chunks += segment.packs.iter().flat_map(|pack| &pack.frames).map(|frame| frame.chunks as usize).sum::<usize>();
                    batch.push((*name, segment));
                }
                Err(error) => problems.push(error),
            }
            if batch_chunks > CHECKPOINT_CHUNKS {
                index.merge(&batch, scope, &records).map_err(MergeError::Index)?;
                batch.clear();
                batch_chunks = 0;
            }
        }
        if !batch.is_empty() {
            index.merge(&batch, scope, &records).map_err(MergeError::Index)?;
        }
        Ok(problems)
    }

    /// Tells the index of a segment just stored.
    pub fn add_segment(&self, name: ObjectName, segment: Segment, records: HashMap<ObjectName, Vec<Arc<FrameRecord>>>) {
        // An index that fails here is found out and started over by the next process.
        let records = |pack: &PackRecord| records.get(&pack.name).cloned().unwrap_or_default();
        let _ = self.index().merge(&[(name, segment)], Scope::Chunks, &records);
    }

    /// Reads an index segment from the store.
    pub fn segment(&self, name: ObjectName) -> Result<Segment> {
        let place = Place::segment(name);
        let stored = self.backend.get(&place, SEGMENT_BYTES_MAX)?;
        objects::verify_name(&place, &stored)?;
        let body = objects::open(&self.keys, self.repository, Kind::Segment, &place.to_string(), &stored)?;
        Segment::decode(&body).map_err(|error| error.of(place))
    }

    /// The names and sizes of an area's files.
    pub fn list(&self, area: Area) -> Result<Vec<(ObjectName, u64)>> {
        let listed = self.backend.list(area)?;
        Ok(listed.into_iter().filter_map(|listed| Some((listed.name.parse().ok()?, listed.size))).collect())
    }

    /// Where the index says a frame is, plain copies before delta ones.
    pub fn places(&self, id: &FrameId) -> Vec<(Arc<IndexedPack>, FrameLocation)> {
        let mut locations = self.index().frame(id).unwrap_or_default();
        locations.sort_by_key(|location| location.info.is_delta());
        locations.into_iter().filter_map(|location| Some((self.pack(location.pack)?, location))).collect()
    }

    /// The record of a frame from the footer of a pack that is present; nothing if there is none.
    pub fn record(&self, id: &FrameId, presence: &Presence) -> Option<(Arc<IndexedPack>, Arc<FrameRecord>)> {
        self.places(id).into_iter().filter(|(pack, _)| presence.has(pack)).find_map(|(pack, _)| {
            let footer = self.footer(pack.name, pack.size).ok()?;
            Some((pack, footer.frame(id)?.clone()))
        })
    }

    /// The record of the frame that holds a chunk, and the chunk's place in it; verified against the footer.
    pub fn chunk(&self, id: &ChunkId, presence: &Presence) -> Option<(Arc<IndexedPack>, Arc<FrameRecord>, u32)> {
        let location = self.index().chunk(id).ok()??;
        let (pack, record) = self.record(&location.frame, presence)?;
        let ordinal = location.ordinal as usize;
        let right = record.has(ordinal) && record.table.ids().get(ordinal) == Some(id);
        right.then_some((pack, record, location.ordinal))
    }

    /// Plain bytes of a run, from the table in a footer.
    pub fn run_len(&self, run: &Run) -> Result<u64> {
        let mut trouble = Error::damaged(format!("frame {}", run.frame), "no index segment lists it");
        for (pack, _) in self.places(&run.frame) {
            let footer = match self.footer(pack.name, pack.size) {
                Ok(footer) => footer,
                Err(error) => {
                    trouble = error;
                    continue;
                }
            };
            let lens =
                footer.frame(&run.frame).and_then(|record| record.table.lens().get(run.first as usize..(run.first + run.count) as usize));
            if let Some(lens) = lens {
                return Ok(lens.iter().map(|&len| u64::from(len)).sum());
            }
        }
        Err(trouble)
    }

    /// Searches all footers, and not the index, for a frame: its table, and every frame that holds one of its chunks.
    /// Slow: it reads the footers of the whole repository. For when all else failed.
    pub fn search(&self, id: &FrameId) -> Result<Option<Copies>> {
        let mut table = None;
        self.visit(&mut |_, record| {
            if record.id == *id {
                table = Some(record.table.clone());
            }
        })?;
        let Some(table) = table else { return Ok(None) };
        let chunks: HashSet<ChunkId> = table.ids().iter().copied().collect();
        let mut copies = Vec::new();
        self.visit(&mut |pack, record| {
            if record.table.ids().iter().any(|id| chunks.contains(id)) {
                copies.push((pack.clone(), Arc::new(record.clone())));
            }
        })?;
        copies.sort_by_key(|(_, record)| record.is_delta());
        Ok(Some((table, copies)))
    }

    /// Calls for every frame in the footer of every pack that can be read.
    fn visit(&self, call: &mut dyn FnMut(&Arc<IndexedPack>, &FrameRecord)) -> Result<()> {
        for (name, size) in self.list(Area::Packs)? {
            let Ok(footer) = self.read_footer(name, size) else { continue };
            let known = Arc::new(IndexedPack { number: 0, name, kind: footer.header.kind, size });
            footer.frames.iter().for_each(|record| call(&known, record));
        }
        Ok(())
    }

    /// Whether the index holds nothing, so that nothing can be known.
    pub fn is_empty(&self) -> bool {
        self.index().merged().is_ok_and(|merged| merged.is_empty())
    }

    /// Every pack the index knows.
    pub fn packs(&self) -> Result<Vec<IndexedPack>> {
        self.index().packs().map_err(|error| Error::Conflict(error.to_string()))
    }

    fn pack(&self, number: u32) -> Option<Arc<IndexedPack>> {
        if let Some(pack) = self.packs.lock().expect("no panic holds it").get(&number) {
            return Some(pack.clone());
        }
        let pack = Arc::new(self.index().pack(number).ok()??);
        self.packs.lock().expect("no panic holds it").insert(number, pack.clone());
        Some(pack)
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().expect("no panic holds the index")
    }

    /// The footer of a pack of `size` stored bytes, from the cache or the store.
    pub fn footer(&self, name: ObjectName, size: u64) -> Result<Arc<Footer>> {
        if let Some(footer) = self.footers().footers.get(&name) {
            return Ok(footer.clone());
        }
        let footer = Arc::new(self.read_footer(name, size)?);
        let mut cache = self.footers();
        cache.chunks += footer.chunks();
        if let Some(replaced) = cache.footers.put(name, footer.clone()) {
            cache.chunks -= replaced.chunks();
        }
        while cache.chunks > FOOTER_CACHE_CHUNKS && cache.footers.len() > 1 {
            let dropped = cache.footers.pop_lru().map_or(0, |(_, footer)| footer.chunks());
            cache.chunks -= dropped;
        }
        Ok(footer)
    }

    fn footers(&self) -> MutexGuard<'_, FooterCache> {
        self.footers.lock().expect("no panic holds the footers")
    }

    /// Reads a pack's footer from the store, past the cache.
    pub fn read_footer(&self, name: ObjectName, size: u64) -> Result<Footer> {
        let place = Place::pack(name);
        let too_short = || Error::damaged(&place, format!("{size} bytes are too few"));
        if size < (HEADER_BYTES + TRAILER_BYTES) as u64 || size > PACK_BYTES_MAX {
            return Err(too_short());
        }
        let mut head = [0; HEADER_BYTES];
        self.backend.read_at(&place, 0, &mut head)?;
        let mut end = vec![0; FOOTER_READ_BYTES.min(size) as usize];
        self.backend.read_at(&place, size - end.len() as u64, &mut end)?;
        let trailer = &end[end.len() - TRAILER_BYTES..];
        let footer_len = decode_trailer(trailer).map_err(|error| error.of(&place))? as usize;
        let with_trailer = footer_len + TRAILER_BYTES;
        if footer_len > FOOTER_BYTES_MAX || (with_trailer + HEADER_BYTES) as u64 > size {
            return Err(Error::damaged(&place, "its trailer points outside of it"));
        }
        if with_trailer > end.len() {
            end = vec![0; with_trailer];
            self.backend.read_at(&place, size - with_trailer as u64, &mut end)?;
        }
        let sealed = &end[end.len() - with_trailer..end.len() - TRAILER_BYTES];
        self.open_footer(&place, &head, size - with_trailer as u64, sealed)
    }

    /// Opens a footer that was read: `head` is the pack's header, `frames_end` where the footer begins.
    pub fn open_footer(&self, place: &Place, head: &[u8], frames_end: u64, sealed: &[u8]) -> Result<Footer> {
        let header = Header::decode(&mut Reader::new(head)).map_err(|error| error.of(place))?;
        if header.repository != self.repository || !matches!(header.kind, Kind::DataPack | Kind::CatalogPack) {
            return Err(Error::damaged(place, "it is not a pack of this repository"));
        }
        let plain = self.keys.seal_key(header.kind, &header.salt).open(&footer_associated_data(&header, frames_end), sealed);
        let plain = plain.ok_or_else(|| Error::damaged(place, "the seal of its footer does not fit"))?;
        let mut reader = Reader::new(&plain);
        let frames = decode_frames(&mut reader).and_then(|frames| reader.finish().map(|()| frames));
        let frames: Vec<_> = frames.map_err(|error| error.of(place))?.into_iter().map(Arc::new).collect();
        if frames.last().map_or(HEADER_BYTES as u64, |frame| frame.end()) != frames_end {
            return Err(Error::damaged(place, "its footer lists other frames than fit into it"));
        }
        let by_id = frames.iter().enumerate().map(|(i, frame)| (frame.id, i)).collect();
        Ok(Footer { header, frames, by_id })
    }
}

/// A frame's table, and the frames (itself too) that hold any of its chunks, plain ones first.
pub type Copies = (ChunkTable, Vec<(Arc<IndexedPack>, Arc<FrameRecord>)>);

enum MergeError {
    Index(IndexError),
}
