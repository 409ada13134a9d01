//! Slabs of input become entries with recipes: cut, hash in parallel, then known or new, in order.
//!
//! Where a stream was steady so far, the next slab is first hashed at the lengths expected by its cursor; if a hash differs, the
//! rest of the slab is cut. Both ways give the same chunks: the same start and the same bytes end at the same cut. What stands where it
//! stood in the older version is not hashed once more for the hash of the whole.

use std::collections::HashMap;
use std::ops::Range;

use rayon::prelude::*;

use super::catalog::PendingEntry;
use super::cursor::Cursor;
use super::leaves::Recalled;
use super::stages::{Stage, between};
use super::stream::Stream;
use super::writer::Writer;
use crate::crypto::LeafHasher;
use crate::error::{Error, Result};
use crate::format::content::Hole;
use crate::format::entry::{Entry, Flaw};
use crate::format::envelope::Kind;
use crate::format::recipe::Recipe;
use crate::id::{ChunkId, ContentHash};
use crate::source::{Event, Slab};

/// What came of an event.
pub enum Ingested {
    /// An entry to be added to the catalog, in order.
    Entry(Box<PendingEntry>),
    Problem(crate::progress::Problem),
}

/// A file or stream in the middle of being read.
struct OpenFile {
    entry: Entry,
    stream: Stream,
    hash: FileHash,
    /// Bytes of it that were read so far.
    bytes: u64,
    /// The older version's hash.
    older: Option<ContentHash>,
    /// For how many runs leaves of the hash may have been handed on.
    leaf_age: u8,
}

/// The older version of a content.
#[derive(Clone)]
pub struct OlderContent {
    pub recipe: Recipe,
    pub hash: ContentHash,
    pub size: u64,
}

/// What is left of the slab before: the start of a chunk. It may wait long for the rest of it, so its hash waits beside it.
#[derive(Default)]
struct Carry {
    bytes: Vec<u8>,
    hash: Option<blake3::Hash>,
}

impl Carry {
    fn keep(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.hash = (!bytes.is_empty()).then(|| blake3::hash(bytes));
    }

    /// Puts the bytes before those of the next slab, and says where they begin.
    fn put_before(&mut self, slab: &mut Slab) -> Result<usize> {
        between(Stage::Carried, &mut self.bytes);
        let start = Slab::HEADROOM - self.bytes.len();
        let place = &mut slab.bytes[start..Slab::HEADROOM];
        place.copy_from_slice(&self.bytes);
        self.bytes.clear();
        match self.hash.take().is_none_or(|hash| blake3::hash(place) == hash) {
            true => Ok(start),
            false => Err(Error::ReadBack("what was read".into())),
        }
    }
}

/// What a file's bytes hash to: of a whole one, or so far.
enum FileHash {
    Whole(ContentHash),
    SoFar(Box<LeafHasher>),
}

/// Consecutive bytes of one file in a slab.
struct Part {
    range: Range<usize>,
    /// The file begins here.
    begins: Option<Entry>,
    /// The file ends here.
    ends: Option<(Flaw, u64, Vec<Hole>)>,
    pieces: Vec<Piece>,
    /// Of a file that begins here.
    hash: Option<FileHash>,
}

struct Piece {
    range: Range<usize>,
    id: ChunkId,
}

enum Step {
    Part(Box<Part>),
    Done(Ingested),
}

/// Takes slabs, one after another, of one source.
pub struct Ingest<F> {
    lane: u32,
    open: Option<OpenFile>,
    carry: Carry,
    /// The same of streams in other lanes.
    parked: HashMap<u32, (OpenFile, Carry)>,
    /// The older version of a path's content.
    older: F,
    /// Where the last file left off in old frames, if it had no older version but was found there.
    trail: Option<Cursor>,
}

impl<F: FnMut(&[u8]) -> Option<OlderContent>> Ingest<F> {
    pub fn new(older: F) -> Self {
        Self { lane: 0, open: None, carry: Carry::default(), parked: HashMap::new(), older, trail: None }
    }

    /// Works through a slab and returns what came of its events, in order.
    pub fn slab(&mut self, writer: &mut Writer, slab: &mut Slab) -> Result<Vec<Ingested>> {
        self.change_lane(writer, slab.lane);
        let steps = self.lay_out(slab)?;
        let mut done = Vec::new();
        let mut parts: Vec<Step> = steps;
        self.cut_and_hash(writer, &mut parts, &slab.bytes)?;
        between(Stage::Hashed, &mut slab.bytes[Slab::HEADROOM..]);
        for step in parts {
            match step {
                Step::Done(ingested) => done.push(ingested),
                Step::Part(part) => done.extend(self.accept(writer, *part, &slab.bytes)?.map(|entry| Ingested::Entry(Box::new(entry)))),
            }
        }
        writer.check()?;
        Ok(done)
    }

    /// Puts an unfinished stream aside and takes up another one.
    fn change_lane(&mut self, writer: &mut Writer, lane: u32) {
        if lane == self.lane {
            return;
        }
        if let Some(mut open) = self.open.take() {
            open.stream.pause(writer);
            self.parked.insert(self.lane, (open, std::mem::take(&mut self.carry)));
        }
        self.lane = lane;
        if let Some((open, carry)) = self.parked.remove(&lane) {
            (self.open, self.carry) = (Some(open), carry);
        }
    }

    /// Turns events into parts; puts the carried bytes before the slab's own.
    fn lay_out(&mut self, slab: &mut Slab) -> Result<Vec<Step>> {
        let carried = self.carry.put_before(slab)?;
        let mut steps = Vec::with_capacity(slab.events.len());
        let mut part = self.open.is_some().then(|| Part::at(carried..Slab::HEADROOM));
        for event in slab.events.drain(..) {
            match event {
                Event::Start { entry } => part = Some(Part { begins: Some(entry), ..Part::at(Slab::HEADROOM..Slab::HEADROOM) }),
                Event::Bytes { range } => {
                    let part = part.as_mut().expect("bytes belong to a file");
                    match part.range.is_empty() {
                        true => part.range = range,
                        false => {
                            assert_eq!(part.range.end, range.start, "a file's bytes lie end to end");
                            part.range.end = range.end;
                        }
                    }
                }
                Event::End { flaw, size, holes } => {
                    let part = part.take().expect("a file ends once");
                    steps.push(Step::Part(Box::new(Part { ends: Some((flaw, size, holes)), ..part })));
                }
                Event::Entry { entry, known } => steps.push(Step::Done(Ingested::Entry(Box::new(PendingEntry::whole(entry, known))))),
                Event::Problem(problem) => steps.push(Step::Done(Ingested::Problem(problem))),
            }
        }
        steps.extend(part.map(|part| Step::Part(Box::new(part))));
        Ok(steps)
    }

    fn cut_and_hash(&mut self, writer: &mut Writer, steps: &mut [Step], bytes: &[u8]) -> Result<()> {
        let mut parts: Vec<&mut Part> =
            steps.iter_mut().filter_map(|step| if let Step::Part(part) = step { Some(&mut **part) } else { None }).collect();
        let Self { open, carry, .. } = self;
        // Only the first part can be in the middle of a file, and only it can be long.
        let whole = open.as_mut().zip(parts.first_mut()).map(|(open, first)| open.expect_pieces(writer, first, bytes));
        let hash_whole = || whole.into_iter().for_each(|due| due.hasher.update(&bytes[due.range], due.same));
        let hash_chunks = || {
            for part in &mut parts {
                // Only the last part has something left.
                carry.keep(cut(writer, part, bytes));
            }
            let keys = writer.keys();
            let pieces: Vec<&mut Piece> = parts.iter_mut().flat_map(|part| part.unhashed()).collect();
            pieces.into_par_iter().with_min_len(4).for_each(|piece| piece.id = keys.chunk_id(Kind::DataPack, &bytes[piece.range.clone()]));
        };
        rayon::join(hash_whole, hash_chunks);
        parts.par_iter_mut().with_min_len(4).filter(|part| part.begins.is_some()).for_each(|part| {
            let bytes = &bytes[part.range.clone()];
            part.hash = Some(match part.ends {
                Some(_) => FileHash::Whole(ContentHash(*blake3::hash(bytes).as_bytes())),
                None => {
                    let mut hasher = Box::new(LeafHasher::new());
                    hasher.update(bytes, 0);
                    FileHash::SoFar(hasher)
                }
            });
        });
        Ok(())
    }

    /// Known or new, for a part's chunks; its entry if the file ends.
    fn accept(&mut self, writer: &mut Writer, part: Part, bytes: &[u8]) -> Result<Option<PendingEntry>> {
        if let Some(entry) = part.begins {
            let older = (self.older)(&entry.path);
            writer.gather(Kind::DataPack).begin_file();
            let stream = Stream::new(writer, Kind::DataPack, older.as_ref().map(|older| &older.recipe), self.trail.take());
            let mut hash = part.hash.expect("hashed with its chunks");
            let mut leaf_age = 0;
            if let (FileHash::SoFar(hasher), Some(leaves), Some(older)) = (&mut hash, writer.leaves(), &older) {
                let recalled = leaves.recall(older.hash, older.size);
                leaf_age = recalled.as_ref().map_or(0, |recalled| recalled.age + 1);
                hasher.compare_with(recalled.map(|recalled| recalled.leaves));
            }
            self.open =
                Some(OpenFile { entry, stream, hash, bytes: part.range.len() as u64, older: older.map(|older| older.hash), leaf_age });
        }
        let open = self.open.as_mut().expect("a part belongs to a file");
        open.stream.steady = true;
        for piece in part.pieces {
            open.stream.accept(writer, piece.id, &bytes[piece.range]).map_err(|error| writer.first_failure(error))?;
        }
        let Some((flaw, size, holes)) = part.ends else { return Ok(None) };
        let open = self.open.take().expect("just used");
        let hash = match open.hash {
            FileHash::Whole(hash) => hash,
            FileHash::SoFar(hasher) => {
                let (hash, leaves) = hasher.finish();
                if let (Some(cache), Some(leaves)) = (writer.leaves(), leaves) {
                    cache.remember(hash, open.bytes, &Recalled { leaves, age: open.leaf_age }, open.older);
                }
                hash
            }
        };
        let (recipe, trail) = open.stream.finish(writer).map_err(|error| writer.first_failure(error))?;
        self.trail = trail;
        Ok(Some(PendingEntry::read(Entry { flaw, ..open.entry }, size, hash, holes, recipe, open.bytes)))
    }
}

impl Part {
    fn at(range: Range<usize>) -> Self {
        Self { range, begins: None, ends: None, pieces: Vec::new(), hash: None }
    }

    fn unhashed(&mut self) -> impl Iterator<Item = &mut Piece> {
        self.pieces.iter_mut().filter(|piece| piece.id == UNHASHED)
    }

    /// Where the part's bytes that are in no piece yet begin.
    fn uncut(&self) -> usize {
        self.pieces.last().map_or(self.range.start, |piece| piece.range.end)
    }
}

const UNHASHED: ChunkId = ChunkId([0; ChunkId::LEN]);

/// Bytes of a slab that are due for the hash of the whole.
struct Due<'o> {
    hasher: &'o mut LeafHasher,
    range: Range<usize>,
    /// So many of them stand where they stood in the older version.
    same: usize,
}

impl OpenFile {
    /// Hashes a steady stream at the lengths its cursor expects, and keeps what comes out as expected.
    fn expect_pieces(&mut self, writer: &Writer, part: &mut Part, bytes: &[u8]) -> Due<'_> {
        let FileHash::SoFar(hasher) = &mut self.hash else { unreachable!("a file that goes on is hashed so far") };
        let place = self.bytes - (Slab::HEADROOM - part.range.start) as u64;
        self.bytes += (part.range.end - Slab::HEADROOM) as u64;
        let mut at = part.range.start;
        let mut pieces = Vec::new();
        let mut waits = false;
        let expected = self.stream.steady.then(|| self.stream.expected());
        for chunk in expected.into_iter().flatten() {
            let range = at..at + chunk.len();
            // A chunk longer than what is left is looked at with the next slab.
            waits = range.end > part.range.end;
            if waits {
                break;
            }
            at = range.end;
            pieces.push((chunk.at == Some(place + (range.start - part.range.start) as u64), Piece { range, id: chunk.id() }));
        }
        let keys = writer.keys();
        let is_wrong = |(_, piece): &(bool, Piece)| keys.chunk_id(Kind::DataPack, &bytes[piece.range.clone()]) != piece.id;
        if let Some(wrong) = pieces.par_iter().with_min_len(8).position_first(is_wrong) {
            pieces.truncate(wrong);
            waits = false;
        }
        let same = pieces.iter().take_while(|(same, _)| *same).last().map_or(part.range.start, |(_, piece)| piece.range.end);
        part.pieces = pieces.into_iter().map(|(_, piece)| piece).collect();
        // What waits for the rest of its chunk may turn out to be known.
        let end = if waits && part.ends.is_none() { part.uncut() } else { part.range.end };
        let start = part.range.start + (hasher.taken() - place) as usize;
        Due { hasher, range: start..end.max(start), same: same.saturating_sub(start) }
    }
}

/// Cuts the rest of a part and returns what must wait for more bytes.
fn cut<'b>(writer: &Writer, part: &mut Part, bytes: &'b [u8]) -> &'b [u8] {
    let cutter = writer.cutter();
    let mut at = part.uncut();
    let end = part.range.end;
    while at < end && (part.ends.is_some() || end - at >= cutter.max()) {
        let len = cutter.cut(&bytes[at..end]);
        part.pieces.push(Piece { range: at..at + len, id: UNHASHED });
        at += len;
    }
    &bytes[at..end]
}
