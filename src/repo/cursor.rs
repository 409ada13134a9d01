//! The cursor: where the bytes of a stream are expected to lie already.
//!
//! It runs along the recipe of the older version, or, where there is none, along the frame in which the last known chunk lies, and
//! keeps a window of the old chunks ahead. Only a chunk's hash decides that it is known; the cursor says where to look first, how
//! long the next chunk was, and which old chunks stood where new ones stand now.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::gather::ChunkMap;
use super::runs::Runs;
use super::stock::Stock;
use crate::format::frame::{BaseRun, FrameRecord};
use crate::format::recipe::{Recipe, Run};
use crate::id::{ChunkId, FrameId, ObjectName};
use crate::limits::FRAME_BYTES_TARGET;

/// Old chunks kept ahead, and as many behind: about 16 MiB of input each.
const WINDOW_CHUNKS: usize = 768;
/// A frame of which less than one in so many chunks is in the window may count as scattered.
const SCATTERED_SHARE: usize = 3;
/// Chunks after which frames are counted again.
const JUDGE_CHUNKS: u64 = 64;
/// How far from what is expected one match alone may move the cursor.
const LEAP_CHUNKS: i64 = 64;

/// An old chunk.
#[derive(Clone)]
pub struct OldChunk {
    pub record: Arc<FrameRecord>,
    pub pack: ObjectName,
    pub ordinal: u32,
    /// Where it begins in the older version, if that is known.
    pub at: Option<u64>,
}

impl OldChunk {
    pub fn id(&self) -> ChunkId {
        self.record.table.ids()[self.ordinal as usize]
    }

    pub fn len(&self) -> usize {
        self.record.table.lens()[self.ordinal as usize] as usize
    }

    /// Itself as a base, or, because it lives in a delta frame, what that frame was made against in its place.
    pub fn as_base(&self) -> Vec<(FrameId, u32, u32)> {
        let Some(base) = &self.record.base else { return vec![(self.record.id, self.ordinal, 1)] };
        let at = base.0.iter().map(|run| run.at).take_while(|&at| at <= self.ordinal).last();
        let same = |run: &&BaseRun| Some(run.at) == at;
        base.0.iter().filter(same).map(|run| (run.frame, run.first, run.count)).collect()
    }
}

/// Where the runs come from.
enum Track {
    /// The recipe of an older version. Its last chunk may have ended because the file did.
    Recipe(Box<Runs>),
    /// The rest of one frame.
    Frame,
}

/// Runs along what is expected.
pub struct Cursor {
    stock: Arc<Stock>,
    track: Track,
    window: VecDeque<OldChunk>,
    /// Position of the window's first chunk.
    start: u64,
    /// Position of the chunk expected next. What lies before it in the window was passed, perhaps too soon.
    at: u64,
    /// Where the chunk after the window's last begins in the older version.
    end: Option<u64>,
    by_id: ChunkMap<u64>,
    /// How many chunks of each frame are in the window, and how many bytes the window has.
    uses: HashMap<FrameId, usize>,
    bytes: u64,
    /// Frames with fewer chunks than this in the window are too many, as of `judged`.
    few: usize,
    judged: Option<u64>,
    /// The last frame met, because neighbouring runs often share it.
    last: Option<(Arc<FrameRecord>, ObjectName)>,
    /// A match too far away to follow alone.
    leap: Option<u64>,
    ended: bool,
}

impl Cursor {
    /// A cursor along an older recipe.
    pub fn along_recipe(stock: Arc<Stock>, recipe: Recipe) -> Self {
        let runs = Runs::new(stock.reader().clone(), recipe);
        Self::new(stock, Track::Recipe(Box::new(runs)))
    }

    /// A cursor along the frame of a known chunk, from the chunk after it on.
    pub fn along_frame(stock: Arc<Stock>, record: &Arc<FrameRecord>, pack: ObjectName, ordinal: u32) -> Self {
        let mut cursor = Self::new(stock, Track::Frame);
        let count = record.table.len() as u32 - ordinal - 1;
        cursor.push_run(record, pack, &Run { frame: record.id, first: ordinal + 1, count });
        cursor.ended = true;
        cursor
    }

    fn new(stock: Arc<Stock>, track: Track) -> Self {
        Self {
            end: matches!(track, Track::Recipe(_)).then_some(0),
            stock,
            track,
            window: VecDeque::new(),
            start: 0,
            at: 0,
            by_id: ChunkMap::default(),
            uses: HashMap::new(),
            bytes: 0,
            few: 0,
            judged: None,
            last: None,
            leap: None,
            ended: false,
        }
    }

    /// Whether it runs along an older version, and not only along a frame.
    pub fn has_recipe(&self) -> bool {
        matches!(self.track, Track::Recipe(_))
    }

    /// Whether nothing is expected any more.
    pub fn is_spent(&mut self) -> bool {
        self.next().is_none()
    }

    /// The chunks expected next, as far as they are sure to be cuts of FastCDC: not the one that ended an older file.
    pub fn expected(&mut self) -> impl Iterator<Item = &OldChunk> {
        self.fill();
        let ahead = self.window.len() - self.passed();
        let sure = match self.track {
            Track::Recipe(_) if self.ended => ahead.saturating_sub(1),
            Track::Recipe(_) => ahead,
            Track::Frame => 0,
        };
        self.window.iter().skip(self.passed()).take(sure)
    }

    /// The chunk expected next.
    pub fn next(&mut self) -> Option<&OldChunk> {
        if self.passed() == self.window.len() {
            self.fill();
        }
        self.window.get(self.passed())
    }

    /// How far from the expected chunk one with this id is, if it is near or confirms a leap: chunks ahead, or behind if negative.
    pub fn find(&mut self, id: &ChunkId) -> Option<i64> {
        if self.next().is_some_and(|next| next.id() == *id) {
            self.leap = None;
            return Some(0);
        }
        self.fill();
        let position = *self.by_id.get(id)?;
        let distance = position as i64 - self.at as i64;
        let fits = distance.abs() <= LEAP_CHUNKS || self.leap == Some(position);
        self.leap = (!fits).then_some(position + 1);
        fits.then_some(distance)
    }

    /// The chunk at `distance`, if it is scattered: it lies in a frame of which little is used around here, and there are more such
    /// frames than a reader should have to open. (Capping: Lillibridge, Eshghi and Bhagwat, FAST'13.)
    pub fn scattered(&mut self, distance: i64) -> Option<&OldChunk> {
        if !self.has_recipe() {
            return None;
        }
        if self.judged.is_none_or(|at| self.at.abs_diff(at) >= JUDGE_CHUNKS) {
            self.judge();
        }
        let chunk = self.window.get((self.passed() as i64 + distance) as usize)?;
        let used = self.uses.get(&chunk.record.id).copied().unwrap_or_default();
        (used < self.few && used * SCATTERED_SHARE < chunk.record.table.len()).then_some(chunk)
    }

    /// Finds how many chunks a frame must have in the window so that no more frames have as many than the window's bytes would fill.
    fn judge(&mut self) {
        self.judged = Some(self.at);
        let allowed = (self.bytes / FRAME_BYTES_TARGET as u64) as usize + 2;
        let mut uses: Vec<usize> = self.uses.values().copied().collect();
        self.few = match uses.len() <= allowed {
            true => 0,
            false => *uses.select_nth_unstable_by(allowed, |a, b| b.cmp(a)).1 + 1,
        };
    }

    /// Passes `count` chunks and returns them.
    pub fn advance(&mut self, count: usize) -> Vec<OldChunk> {
        self.fill();
        let passed: Vec<OldChunk> = self.window.iter().skip(self.passed()).take(count).cloned().collect();
        self.at += passed.len() as u64;
        passed
    }

    /// Goes back by `distance` chunks, and returns the `count` chunks before that place.
    pub fn go_back(&mut self, distance: u64, count: usize) -> Vec<OldChunk> {
        self.at = self.at.saturating_sub(distance).max(self.start);
        let before = self.passed();
        self.window.range(before.saturating_sub(count)..before).cloned().collect()
    }

    fn passed(&self) -> usize {
        (self.at - self.start) as usize
    }

    /// Keeps enough chunks ahead, and lets go of those long passed.
    fn fill(&mut self) {
        while self.window.len() - self.passed() < WINDOW_CHUNKS && !self.ended {
            let Track::Recipe(runs) = &mut self.track else { return };
            match runs.next() {
                Some(Ok(run)) => self.push(&run),
                // An unreadable older version only costs the cursor.
                Some(Err(_)) | None => self.ended = true,
            }
        }
        while self.passed() > WINDOW_CHUNKS {
            let gone = self.window.pop_front().expect("more were passed");
            let id = gone.id();
            if self.by_id.get(&id) == Some(&self.start) {
                self.by_id.remove(&id);
            }
            self.bytes -= gone.len() as u64;
            match self.uses.get_mut(&gone.record.id) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(self.uses.remove(&gone.record.id)),
            }
            self.start += 1;
        }
    }

    /// Adds a run's chunks, unless their frame cannot be relied on.
    fn push(&mut self, run: &Run) {
        let known = self.last.take().filter(|(record, _)| record.id == run.frame);
        let found = known.or_else(|| self.stock.frame(&run.frame).map(|(pack, record)| (record, pack)));
        match found {
            Some((record, pack)) => {
                self.push_run(&record, pack, run);
                self.last = Some((record, pack));
            }
            None => self.end = None,
        }
    }

    fn push_run(&mut self, record: &Arc<FrameRecord>, pack: ObjectName, run: &Run) {
        for ordinal in run.first..run.first + run.count {
            let at = self.end;
            let len = record.table.lens().get(ordinal as usize);
            self.end = at.zip(len).map(|(at, len)| at + u64::from(*len));
            if !record.has(ordinal as usize) {
                continue;
            }
            let position = self.start + self.window.len() as u64;
            let chunk = OldChunk { record: record.clone(), pack, ordinal, at };
            self.by_id.entry(chunk.id()).or_insert(position);
            self.bytes += chunk.len() as u64;
            *self.uses.entry(record.id).or_default() += 1;
            self.window.push_back(chunk);
        }
    }
}
