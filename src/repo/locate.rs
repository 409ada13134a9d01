//! Where frames and chunks are: this host's index brought up to date, and the packs' own sealed footers as the truth behind it.
//!
//! The index is a hint. Before a backup relies on a stored chunk, its frame's record is taken from the footer of a pack that the
//! store lists now, and the chunk must stand in that record. Footers are kept in a bounded cache.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use lru::LruCache;

use super::{objects, pack};
use crate::backend::{Area, Backend, Place};
use crate::crypto::Keys;
use crate::error::{Error, Result, StorageErrorKind};
use crate::format::codec::Reader;
use crate::format::envelope::{HEADER_BYTES, Header, Kind, footer_associated_data};
use crate::format::frame::FrameRecord;
use crate::format::pack::{TRAILER_BYTES, decode_trailer};
use crate::format::recipe::Run;
use crate::format::segment::{PackRecord, Segment};
use crate::id::{ChunkId, FrameId, ObjectName, RepositoryId};
use crate::index::{ChunkLocation, FrameLocation, Index, IndexError, IndexedPack, Scope, Shelter};
use crate::limits::*;

/// Listings of segments for one refresh.
const RELISTINGS_MAX: usize = 5;
/// Packs missing from a listing that are asked for by name.
const ASKED_FOR_MAX: usize = 64;

/// What a pack holds.
pub struct Contents {
    pub frames: Vec<Arc<FrameRecord>>,
    by_id: HashMap<FrameId, usize>,
    /// Read from the pack itself, and not from an index segment because that failed.
    genuine: bool,
}

impl Contents {
    fn new(frames: Vec<FrameRecord>, genuine: bool) -> Self {
        let frames: Vec<_> = frames.into_iter().map(Arc::new).collect();
        let by_id = frames.iter().enumerate().map(|(i, frame)| (frame.id, i)).collect();
        Self { frames, by_id, genuine }
    }

    pub fn frame(&self, id: &FrameId) -> Option<&Arc<FrameRecord>> {
        self.by_id.get(id).map(|&i| &self.frames[i])
    }

    /// The records as a footer or segment lists them.
    pub fn to_records(&self) -> Vec<FrameRecord> {
        self.frames.iter().map(|frame| (**frame).clone()).collect()
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
    contents: Mutex<ContentsCache>,
    adopted: Mutex<bool>,
    /// Packs that were found gone.
    gone: Mutex<HashSet<ObjectName>>,
    /// The first object that could have held what was looked for, and that the store failed to give.
    passed_over: Mutex<Option<Error>>,
}

struct ContentsCache {
    packs: LruCache<ObjectName, Arc<Contents>>,
    chunks: usize,
}

impl Locator {
    /// Opens this host's index; `refresh` brings it up to date.
    pub fn open(backend: Arc<dyn Backend>, keys: Arc<Keys>, repository: RepositoryId, shelter: Shelter) -> Self {
        Self {
            backend,
            keys,
            repository,
            index: Mutex::new(Index::open(shelter, repository)),
            packs: Mutex::default(),
            contents: Mutex::new(ContentsCache { packs: LruCache::unbounded(), chunks: 0 }),
            adopted: Mutex::default(),
            gone: Mutex::default(),
            passed_over: Mutex::default(),
        }
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

    /// Merges what the index lacks of the store's segments, up to `scope`, and forgets what a collector removed.
    /// A segment that cannot be read is passed over: its packs' contents count as absent, which costs a backup bytes and loses nothing.
    pub fn refresh(&self, scope: Scope) -> Result<Vec<Error>> {
        let mut failures = 0;
        for attempt in 0.. {
            let listed: Vec<ObjectName> = self.backend.list_names(Area::Segments)?.iter().filter_map(|name| name.parse().ok()).collect();
            let merged = match self.merged(&listed, scope)? {
                Some(merged) => merged,
                None => self.start_over(),
            };
            let missing: Vec<_> = listed.iter().copied().filter(|name| merged.get(name).is_none_or(|&done| done < scope)).collect();
            match self.merge(&missing, scope) {
                // One that was listed is gone: another replaced it meanwhile.
                Ok(problems) if attempt < RELISTINGS_MAX && problems.iter().any(is_not_found) => {}
                Ok(problems) => return Ok(problems),
                Err(_) if failures == 0 => {
                    failures += 1;
                    self.start_over();
                }
                // A full disk, say. What cannot be kept must not be in the way of a backup or a restore.
                Err(_) if failures == 1 => {
                    failures += 1;
                    self.index().stand_alone();
                    self.forget_packs();
                }
                Err(error) => return Err(Error::Conflict(format!("{error}; is there space for temporary files?"))),
            }
        }
        unreachable!("it ends after some attempts")
    }

    /// The segments that the index has, if it is sound as far as `scope` needs it. Lets go of those that are no longer in the store,
    /// replaced by others, and of the packs that went with them.
    fn merged(&self, listed: &[ObjectName], scope: Scope) -> Result<Option<HashMap<ObjectName, Scope>>> {
        if scope >= Scope::Chunks && self.index().verify().is_err() {
            return Ok(None);
        }
        let wanted: HashSet<ObjectName> = listed.iter().copied().collect();
        let Ok(merged) = self.index_call(|index| index.merged()) else { return Ok(None) };
        let mut merged: HashMap<_, _> = merged.into_iter().collect();
        let vanished: Vec<ObjectName> = merged.keys().filter(|name| !wanted.contains(name)).copied().collect();
        if vanished.is_empty() {
            return Ok(Some(merged));
        }
        let there: HashSet<ObjectName> = self.list(Area::Packs)?.into_iter().map(|(name, _)| name).collect();
        let Ok(known) = self.index_call(|index| index.packs()) else { return Ok(None) };
        let mut gone: Vec<ObjectName> = known.into_iter().map(|pack| pack.name).filter(|name| !there.contains(name)).collect();
        if gone.len() <= ASKED_FOR_MAX {
            // A listing may lag behind.
            gone.retain(|name| self.is_gone(*name));
        }
        let removed = self.index_call(|index| index.remove(&vanished, &gone.into_iter().collect()));
        self.forget_packs();
        merged.retain(|name, _| wanted.contains(name));
        Ok(removed.is_ok().then_some(merged))
    }

    /// Forgets what this host's index was told by segments that turned out to be wrong.
    pub fn distrust_index(&self) {
        self.start_over();
    }

    fn index_call<T>(&self, call: impl FnOnce(&mut Index) -> std::result::Result<T, IndexError>) -> std::result::Result<T, IndexError> {
        call(&mut self.index())
    }

    fn is_gone(&self, pack: ObjectName) -> bool {
        let place = Place::pack(pack);
        self.backend.forget_cached(&place);
        self.backend.read_at(&place, 0, &mut [0]).is_err_and(|error| error.kind == StorageErrorKind::NotFound)
    }

    /// Packs that the index names are gone: perhaps a collector has put elsewhere what they held. Brings the index up to date, once for
    /// each of them.
    pub fn catch_up(&self, gone: &[ObjectName]) {
        // Held meanwhile, so that others who miss something wait for it.
        let mut known = self.gone.lock().expect("no panic holds it");
        let news = gone.iter().filter(|pack| known.insert(**pack)).count();
        if news > 0 {
            // Where that fails, the frame stays missed.
            let _ = self.refresh(Scope::Frames);
        }
    }

    /// Goes on without an object. One that the store fails to give may be sound: what was looked for in vain need not be lost then.
    pub fn pass_over(&self, error: Error) {
        if matches!(&error, Error::Storage(_)) && !error.is_damage() {
            self.passed_over.lock().expect("no panic holds it").get_or_insert(error);
        }
    }

    /// What was passed over and may be sound, if anything was.
    pub fn passed_over(&self) -> Option<Error> {
        self.passed_over.lock().expect("no panic holds it").take()
    }

    fn start_over(&self) -> HashMap<ObjectName, Scope> {
        self.index().start_over();
        self.forget_packs()
    }

    /// Lets go of packs by number: numbers change their meaning. Nothing is merged then.
    fn forget_packs(&self) -> HashMap<ObjectName, Scope> {
        self.packs.lock().expect("no panic holds it").clear();
        *self.adopted.lock().expect("no panic holds it") = false;
        HashMap::new()
    }

    /// Reads segments and merges them. The index is locked only while it is written.
    fn merge(&self, missing: &[ObjectName], scope: Scope) -> std::result::Result<Vec<Error>, IndexError> {
        let mut problems = Vec::new();
        let mut batch = Vec::new();
        let mut batch_chunks = 0;
        for name in missing {
            match self.segment(*name) {
                Ok(segment) => {
                    batch_chunks += segment.packs.iter().flat_map(|pack| &pack.frames).map(|frame| frame.table.len()).sum::<usize>();
                    batch.push((*name, segment));
                }
                Err(error) => problems.push(error),
            }
            if batch_chunks > INDEX_BATCH_CHUNKS {
                self.index().merge(&batch, scope)?;
                batch.clear();
                batch_chunks = 0;
            }
        }
        if !batch.is_empty() {
            self.index().merge(&batch, scope)?;
        }
        Ok(problems)
    }

    /// Tells the index of the packs that no readable segment lists, from their footers. Done once, when a frame is missed.
    pub fn adopt_unlisted(&self) {
        let mut adopted = self.adopted.lock().expect("no panic holds it");
        if std::mem::replace(&mut adopted, true) {
            return;
        }
        let known: HashSet<ObjectName> = self.index().packs().unwrap_or_default().into_iter().map(|pack| pack.name).collect();
        let (mut batch, mut batch_chunks) = (Vec::new(), 0);
        let listed = self.list(Area::Packs).map_err(|error| self.pass_over(error)).unwrap_or_default();
        let unlisted: Vec<(ObjectName, u64)> = listed.into_iter().filter(|(name, _)| !known.contains(name)).collect();
        if !unlisted.is_empty() {
            // Whoever put them may have died before they were durable. Where that cannot be made good, they can be read nevertheless.
            let _ = self.backend.settle(Area::Packs);
        }
        for (name, size) in unlisted {
            let Some((header, contents)) = self.readable_footer(name, size) else { continue };
            batch_chunks += contents.chunks();
            batch.push(PackRecord { name, kind: header.kind, size, frames: contents.to_records() });
            if batch_chunks > INDEX_BATCH_CHUNKS {
                // An index that fails here leaves the frame missed.
                let _ = self.index().merge_packs(&std::mem::take(&mut batch));
                batch_chunks = 0;
            }
        }
        let _ = self.index().merge_packs(&batch);
    }

    /// Tells the index of a segment just stored.
    pub fn add_segment(&self, name: ObjectName, segment: Segment) {
        // An index that fails here is found out and started over by the next process.
        let _ = self.index().merge(&[(name, segment)], Scope::Chunks);
    }

    /// Reads an index segment from the store.
    pub fn segment(&self, name: ObjectName) -> Result<Segment> {
        let place = Place::segment(name);
        objects::confirmed(&*self.backend, &place, || {
            let stored = self.backend.get(&place, SEGMENT_BYTES_MAX)?;
            objects::verify_name(&place, &stored)?;
            let (version, body) = objects::open_versioned(&self.keys, self.repository, Kind::Segment, &place, &stored)?;
            Segment::decode(version, &body).map_err(|error| error.of(&place))
        })
    }

    /// An index segment, if it can be read.
    pub fn readable_segment(&self, name: ObjectName) -> Option<Segment> {
        self.segment(name).map_err(|error| self.pass_over(error)).ok()
    }

    /// The names and sizes of an area's files.
    pub fn list(&self, area: Area) -> Result<Vec<(ObjectName, u64)>> {
        let listed = self.backend.list(area)?;
        Ok(listed.into_iter().filter_map(|listed| Some((listed.name.parse().ok()?, listed.size))).collect())
    }

    /// Where the index says a frame is: copies with all chunks first, and of those the plain ones.
    pub fn places(&self, id: &FrameId) -> Vec<(Arc<IndexedPack>, FrameLocation)> {
        let mut locations = self.index().frame(id).unwrap_or_default();
        locations.sort_by_key(|location| (location.info.is_thinned(), location.info.is_delta()));
        locations.into_iter().filter_map(|location| Some((self.pack(location.pack)?, location))).collect()
    }

    /// The record of a frame from the footer of a pack that is present; nothing if there is none. With `plain`, not of a delta copy.
    pub fn record(&self, id: &FrameId, presence: &Presence, plain: bool) -> Option<(Arc<IndexedPack>, Arc<FrameRecord>)> {
        let fits = |(pack, location): &(Arc<IndexedPack>, FrameLocation)| presence.has(pack) && !(plain && location.info.is_delta());
        self.places(id).into_iter().filter(fits).find_map(|(pack, _)| {
            let contents = self.contents(pack.name, pack.size).ok().filter(|contents| contents.genuine)?;
            let record = contents.frame(id).filter(|record| !(plain && record.is_delta()))?.clone();
            Some((pack, record))
        })
    }

    /// A frame's record, from the footer of one of its packs or, where that cannot be read, from an index segment.
    pub fn record_in(&self, pack: &IndexedPack, id: &FrameId) -> Result<Arc<FrameRecord>> {
        let contents = self.contents(pack.name, pack.size)?;
        let missing = || Error::damaged(format!("pack {}", pack.name), format!("frame {id} should be in it"));
        contents.frame(id).cloned().ok_or_else(missing)
    }

    /// Where the index says a chunk is.
    pub fn chunk(&self, id: &ChunkId) -> Vec<ChunkLocation> {
        self.index().chunk(id).unwrap_or_default()
    }

    /// Plain bytes of a run.
    pub fn run_len(&self, run: &Run) -> Result<u64> {
        let mut trouble = Error::damaged(format!("frame {}", run.frame), "no index segment lists it");
        for attempt in 0..2 {
            let mut gone = Vec::new();
            for (pack, _) in self.places(&run.frame) {
                match self.record_in(&pack, &run.frame) {
                    Err(error) => {
                        gone.extend(is_not_found(&error).then_some(pack.name));
                        trouble = error;
                    }
                    Ok(record) => match record.table.lens().get(run.first as usize..(run.first + run.count) as usize) {
                        Some(lens) => return Ok(lens.iter().map(|&len| u64::from(len)).sum()),
                        None => trouble = Error::damaged(format!("frame {}", run.frame), "it has fewer chunks than a recipe says"),
                    },
                }
            }
            if attempt > 0 || gone.is_empty() {
                break;
            }
            self.catch_up(&gone);
        }
        Err(trouble)
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

    /// What a pack of `size` stored bytes holds: from its footer or, where that cannot be read, from an index segment.
    fn contents(&self, name: ObjectName, size: u64) -> Result<Arc<Contents>> {
        if let Some(contents) = self.cached().packs.get(&name) {
            return Ok(contents.clone());
        }
        let contents = match self.read_footer(name, size) {
            Ok((_, contents)) => contents,
            Err(error) => self.listed_contents(name)?.ok_or(error)?,
        };
        let contents = Arc::new(contents);
        let mut cache = self.cached();
        cache.chunks += contents.chunks();
        if let Some(replaced) = cache.packs.put(name, contents.clone()) {
            cache.chunks -= replaced.chunks();
        }
        while cache.chunks > FOOTER_CACHE_CHUNKS && cache.packs.len() > 1 {
            let dropped = cache.packs.pop_lru().map_or(0, |(_, contents)| contents.chunks());
            cache.chunks -= dropped;
        }
        Ok(contents)
    }

    /// What the index segments say of a pack.
    pub fn listed_contents(&self, name: ObjectName) -> Result<Option<Contents>> {
        for (segment, _) in self.list(Area::Segments)? {
            let Some(segment) = self.readable_segment(segment) else { continue };
            if let Some(pack) = segment.packs.into_iter().find(|pack| pack.name == name) {
                return Ok(Some(Contents::new(pack.frames, false)));
            }
        }
        Ok(None)
    }

    fn cached(&self) -> MutexGuard<'_, ContentsCache> {
        self.contents.lock().expect("no panic holds the contents")
    }

    /// Reads a pack's header from the store.
    pub fn pack_header(&self, name: ObjectName) -> Result<Header> {
        let place = Place::pack(name);
        let mut head = [0; HEADER_BYTES];
        self.backend.read_at(&place, 0, &mut head)?;
        Header::decode(&mut Reader::new(&head)).map_err(|error| error.of(&place))
    }

    /// Reads a pack's footer from the store, past the cache.
    pub fn read_footer(&self, name: ObjectName, size: u64) -> Result<(Header, Contents)> {
        let place = Place::pack(name);
        objects::confirmed(&*self.backend, &place, || self.read_footer_once(&place, size))
    }

    /// A pack's header and footer, if they can be read.
    pub fn readable_footer(&self, name: ObjectName, size: u64) -> Option<(Header, Contents)> {
        self.read_footer(name, size).map_err(|error| self.pass_over(error)).ok()
    }

    fn read_footer_once(&self, place: &Place, size: u64) -> Result<(Header, Contents)> {
        let too_short = || Error::damaged(place, format!("{size} bytes are too few"));
        if size < (HEADER_BYTES + TRAILER_BYTES) as u64 || size > PACK_BYTES_MAX {
            return Err(too_short());
        }
        let mut head = [0; HEADER_BYTES];
        self.backend.read_at(place, 0, &mut head)?;
        let mut end = vec![0; FOOTER_READ_BYTES.min(size) as usize];
        self.backend.read_at(place, size - end.len() as u64, &mut end)?;
        let trailer = &end[end.len() - TRAILER_BYTES..];
        let footer_len = decode_trailer(trailer).map_err(|error| error.of(place))? as usize;
        let with_trailer = footer_len + TRAILER_BYTES;
        if footer_len > FOOTER_BYTES_MAX || (with_trailer + HEADER_BYTES) as u64 > size {
            return Err(Error::damaged(place, "its trailer points outside of it"));
        }
        if with_trailer > end.len() {
            end = vec![0; with_trailer];
            self.backend.read_at(place, size - with_trailer as u64, &mut end)?;
        }
        let sealed = &end[end.len() - with_trailer..end.len() - TRAILER_BYTES];
        self.open_footer(place, &head, size - with_trailer as u64, sealed)
    }

    /// Opens a footer that was read: `head` is the pack's header, `frames_end` where the footer begins.
    pub fn open_footer(&self, place: &Place, head: &[u8], frames_end: u64, sealed: &[u8]) -> Result<(Header, Contents)> {
        let header = Header::decode(&mut Reader::new(head)).map_err(|error| error.of(place))?;
        if header.repository != self.repository || !matches!(header.kind, Kind::DataPack | Kind::CatalogPack) {
            return Err(Error::damaged(place, "it is not a pack of this repository"));
        }
        let plain = self.keys.seal_key(header.kind, &header.salt).open(&footer_associated_data(&header, frames_end), sealed);
        let plain = plain.ok_or_else(|| Error::damaged(place, "the seal of its footer does not fit"))?;
        let frames = pack::decode_footer(header.version, &plain).map_err(|error| error.of(place))?;
        if frames.last().map_or(HEADER_BYTES as u64, |frame| frame.end()) != frames_end {
            return Err(Error::damaged(place, "its footer lists other frames than fit into it"));
        }
        Ok((header, Contents::new(frames, true)))
    }
}

/// Whether an error says that a file is not there.
pub fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::Storage(error) if error.kind == StorageErrorKind::NotFound)
}
