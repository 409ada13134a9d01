//! Known or new? New chunks are gathered into frames; what is known is referred to.
//!
//! A frame's id is the hash of its chunk table, so it exists as soon as the frame is closed, before anything is compressed or stored.
//! Until then a recipe refers to the open frame through its slot. Everything here happens in order on one thread, so a recipe does
//! not depend on how many threads compress.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, OnceLock};

use crate::compression::Texture;
use crate::crypto::Keys;
use crate::error::Result;
use crate::format::envelope::Kind;
use crate::format::frame::{Base, BaseRun, ChunkTable};
use crate::id::{ChunkId, FrameId};
use crate::limits::*;

/// The id of a frame, once it is closed.
pub type FrameSlot = OnceLock<FrameId>;

/// A frame in a recipe that is being written.
#[derive(Clone, Debug)]
pub enum FrameRef {
    Stored(FrameId),
    Fresh(Arc<FrameSlot>),
}

impl FrameRef {
    /// The frame's id, unless it is still open.
    pub fn id(&self) -> Option<FrameId> {
        match self {
            Self::Stored(id) => Some(*id),
            Self::Fresh(slot) => slot.get().copied(),
        }
    }

    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Fresh(a), Self::Fresh(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.id().is_some() && a.id() == b.id(),
        }
    }
}

/// A closed frame on its way to be compressed and sealed.
pub struct FrameJob {
    pub kind: Kind,
    pub id: FrameId,
    pub table: ChunkTable,
    pub plain: Vec<u8>,
    /// Old chunks in whose place the new ones stand; may be empty.
    pub base: Base,
    /// Most of the base is not the last version, but what that was made against itself.
    pub drifts: bool,
    pub texture: Texture,
}

/// Memory of frames that were sealed, to be used for the next ones: fresh memory costs the kernel time to clear.
#[derive(Default)]
pub struct Spare(Mutex<Vec<Vec<u8>>>);

impl Spare {
    /// Frames whose memory is kept.
    const FRAMES: usize = 4;

    fn take(&self) -> Vec<u8> {
        let kept = self.0.lock().expect("no panic holds it").pop();
        kept.unwrap_or_else(|| Vec::with_capacity(FRAME_BYTES_MAX))
    }

    pub fn give(&self, mut plain: Vec<u8>) {
        let mut kept = self.0.lock().expect("no panic holds it");
        if kept.len() < Self::FRAMES && plain.capacity() >= FRAME_BYTES_MAX {
            plain.clear();
            kept.push(plain);
        }
    }
}

/// Takes closed frames: hands them to the sealers, or does their work at once.
pub type Jobs = Arc<dyn Fn(FrameJob) -> Result<()> + Send + Sync>;

struct OpenFrame {
    slot: Arc<FrameSlot>,
    table: ChunkTable,
    plain: Vec<u8>,
    base: Base,
    base_chunks: HashSet<(FrameId, u32)>,
    base_bytes: usize,
    /// Of these, those that stand in for what they were the base of.
    drift_bytes: usize,
    /// Another file began in the middle.
    mixed: bool,
}

/// Chunk ids are random already.
#[derive(Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 ^= u64::from_le_bytes(*first);
        }
    }

    fn write_usize(&mut self, _: usize) {}
}

/// A map by chunk id.
pub type ChunkMap<T> = HashMap<ChunkId, T, BuildHasherDefault<IdHasher>>;

/// Gathers the new chunks of one kind of pack.
pub struct Gather {
    kind: Kind,
    keys: Arc<Keys>,
    jobs: Jobs,
    spare: Arc<Spare>,
    open: Option<OpenFrame>,
    /// Chunks of this run that the index does not know yet.
    fresh: ChunkMap<(Arc<FrameSlot>, u32)>,
    pub bytes_new: u64,
}

impl Gather {
    pub fn new(kind: Kind, keys: Arc<Keys>, jobs: Jobs, spare: Arc<Spare>) -> Self {
        Self { kind, keys, jobs, spare, open: None, fresh: HashMap::default(), bytes_new: 0 }
    }

    /// The same, with what was counted before.
    pub fn with_total(self, bytes_new: u64) -> Self {
        Self { bytes_new, ..self }
    }

    /// A chunk that came earlier in this run.
    pub fn fresh(&self, id: &ChunkId) -> Option<(FrameRef, u32)> {
        self.fresh.get(id).map(|(slot, ordinal)| (FrameRef::Fresh(slot.clone()), *ordinal))
    }

    /// Lets go of chunks that the index knows by now.
    pub fn forget(&mut self, ids: &[ChunkId]) {
        ids.iter().for_each(|id| drop(self.fresh.remove(id)));
        if self.fresh.len() * 4 < self.fresh.capacity() {
            self.fresh.shrink_to(self.fresh.len() * 2);
        }
    }

    /// Adds a new chunk to the open frame.
    pub fn add(&mut self, id: ChunkId, bytes: &[u8]) -> (FrameRef, u32) {
        let open = self.open.get_or_insert_with(|| OpenFrame {
            slot: Arc::default(),
            table: ChunkTable::default(),
            plain: self.spare.take(),
            base: Base::default(),
            base_chunks: HashSet::new(),
            base_bytes: 0,
            drift_bytes: 0,
            mixed: false,
        });
        let ordinal = open.table.len() as u32;
        open.table.push(id, bytes.len());
        open.plain.extend_from_slice(bytes);
        self.bytes_new += bytes.len() as u64;
        self.fresh.insert(id, (open.slot.clone(), ordinal));
        (FrameRef::Fresh(open.slot.clone()), ordinal)
    }

    /// What is added from now on belongs to another file.
    pub fn begin_file(&mut self) {
        if let Some(open) = &mut self.open {
            open.mixed = true;
        }
    }

    /// Whether the open frame should be closed.
    pub fn is_full(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.plain.len() >= FRAME_BYTES_TARGET || open.table.len() >= FRAME_CHUNKS_MAX)
    }

    /// Says that from chunk `at` of the open frame on, new chunks stand where these old ones stood. Chunks named before are named
    /// again, so that a later version knows what each stood for, but are in the prefix once.
    /// Ignored if `frame` is not the open one any more. `bytes` is about what one chunk of the run is long; `drifts` if it stands in for
    /// what it was the base of.
    pub fn add_base(&mut self, frame: &FrameRef, run: BaseRun, bytes: usize, drifts: bool) {
        let Some(open) = &mut self.open else { return };
        let is_open = matches!(frame, FrameRef::Fresh(slot) if Arc::ptr_eq(slot, &open.slot));
        let runs = &mut open.base.0;
        let in_order = runs.last().is_none_or(|last| last.at <= run.at);
        if !is_open || !in_order || open.base_bytes >= DELTA_PREFIX_BYTES_TARGET || runs.len() >= DELTA_BASE_RUNS_MAX {
            return;
        }
        let fresh = (run.first..run.first + run.count).filter(|&ordinal| open.base_chunks.insert((run.frame, ordinal))).count();
        open.base_bytes += fresh * bytes;
        open.drift_bytes += if drifts { fresh * bytes } else { 0 };
        match runs.last_mut() {
            Some(last) if last.at == run.at && last.frame == run.frame && last.first + last.count == run.first => last.count += run.count,
            _ => runs.push(run),
        }
    }

    /// Closes the open frame, if there is one, and hands it on.
    pub fn close(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let id = self.keys.frame_id(&open.table);
        open.slot.set(id).expect("a frame is closed once");
        let drifts = open.drift_bytes * 2 > open.base_bytes;
        // What has an older version is little, and read again and again: there, bytes count.
        let is_even = !open.mixed && open.base.0.is_empty() && self.kind == Kind::DataPack;
        let texture = if is_even { Texture::Even } else { Texture::Mixed };
        let job = FrameJob { kind: self.kind, id, table: open.table, plain: open.plain, base: open.base, drifts, texture };
        (self.jobs)(job)
    }
}
