//! Writing fetched runs into files, several files at a time.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rayon::prelude::*;

use super::task::{FileTask, Tag, groups};
use crate::crypto::ContentHasher;
use crate::error::{Error, Result, show_bytes};
use crate::format::content::Content;
use crate::format::entry::Node;
use crate::format::recipe::Run;
use crate::id::ContentHash;
use crate::progress::Progress;
use crate::repo::{Fetched, Frame, Repository, Selection};
use crate::target::{FileWriter, TreeTarget};

/// Lost ranges named in one message; `check` names them all.
const LOST_RANGES_SHOWN: usize = 8;

/// From so many bytes of a file on, one batch is hashed and written at the same time.
const SIDE_BY_SIDE_BYTES: usize = 1 << 20;

type Piece = (Run, std::result::Result<Arc<Frame>, Arc<Error>>);

/// A file that was written, or why not.
pub struct Done {
    pub path: Vec<u8>,
    pub outcome: Result<u64>,
}

/// A file that is being written.
struct OpenFile<'t> {
    task: Arc<FileTask>,
    /// None once something failed with the target.
    writer: Result<FileWriter<'t>>,
    hasher: ContentHasher,
    /// Where the next bytes go in the file, holes included.
    offset: u64,
    next_hole: usize,
    /// Bytes that were found.
    found: u64,
    /// Bytes of the file whose chunks are lost: offset, length, and why.
    lost: Vec<(u64, u64)>,
    why: String,
}

/// Writes batches of fetched runs.
pub struct Writers<'t> {
    target: &'t TreeTarget,
    progress: &'t dyn Progress,
    open: Option<OpenFile<'t>>,
}

impl<'t> Writers<'t> {
    pub fn new(target: &'t TreeTarget, progress: &'t dyn Progress) -> Self {
        Self { target, progress, open: None }
    }

    /// Writes what a batch holds and returns the files that ended in it.
    pub fn batch(&mut self, batch: Vec<Fetched<Tag>>) -> Vec<Done> {
        let pieces = batch.into_iter().map(|fetched| (fetched.tag, (fetched.run, fetched.frame))).collect();
        let mut groups = groups::<Piece>(pieces).into_iter().peekable();
        let mut done = Vec::new();
        if let Some(open) = self.open.take() {
            match groups.next_if(|(task, ..)| Arc::ptr_eq(task, &open.task)) {
                Some((_, pieces, ended)) => self.go_on(open, pieces, ended, &mut done),
                None => done.push(open.broken_off()),
            }
        }
        let rest: Vec<_> = groups.collect();
        let results: Vec<(OpenFile, bool)> = rest
            .into_par_iter()
            .map(|(task, pieces, ended)| {
                let mut open = OpenFile::new(self.target, task);
                open.write(&pieces, self.progress);
                (open, ended)
            })
            .collect();
        for (open, ended) in results {
            self.end(open, ended, &mut done);
        }
        done
    }

    /// The last file, if its recipe broke off.
    pub fn finish(self) -> Option<Done> {
        self.open.map(OpenFile::broken_off)
    }

    fn go_on(&mut self, mut open: OpenFile<'t>, pieces: Vec<Piece>, ended: bool, done: &mut Vec<Done>) {
        open.write(&pieces, self.progress);
        self.end(open, ended, done);
    }

    fn end(&mut self, open: OpenFile<'t>, ended: bool, done: &mut Vec<Done>) {
        match ended {
            true => done.push(Done { path: open.task.path.clone(), outcome: open.finish() }),
            false => self.open = Some(open),
        }
    }
}

impl<'t> OpenFile<'t> {
    fn new(target: &'t TreeTarget, task: Arc<FileTask>) -> Self {
        let writer = target.create(&task.path, task.content.size);
        Self { task, writer, hasher: ContentHasher::default(), offset: 0, next_hole: 0, found: 0, lost: Vec::new(), why: String::new() }
    }

    /// Places the pieces one after the other, then hashes and writes what they hold, side by side.
    fn write(&mut self, pieces: &[Piece], progress: &dyn Progress) {
        let before = self.offset;
        let mut spans = Vec::new();
        for (run, frame) in pieces {
            match frame {
                Ok(frame) => self.place_run(run, frame, &mut spans),
                Err(error) if error.is_damage() => {
                    // Without its table nobody knows how long the run was: all that follows is lost.
                    self.why = error.to_string();
                    self.lose(u64::MAX);
                }
                Err(error) if self.writer.is_ok() => self.writer = Err(error.again()),
                Err(_) => {}
            }
        }
        self.put(&spans);
        progress.bytes(self.offset - before);
    }

    fn put(&mut self, spans: &[(u64, &[u8])]) {
        let (hasher, Ok(writer)) = (&mut self.hasher, &mut self.writer) else { return };
        let written = if spans.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() < SIDE_BY_SIDE_BYTES {
            spans.iter().try_for_each(|(offset, bytes)| {
                hasher.update(bytes);
                writer.write_at(*offset, bytes)
            })
        } else {
            // One thread writes: a file lets only one in at a time.
            let hash = || spans.iter().for_each(|(_, bytes)| hasher.update(bytes));
            rayon::join(hash, || spans.iter().try_for_each(|(offset, bytes)| writer.write_at(*offset, bytes))).1
        };
        match written {
            Ok(()) => writer.write_back(),
            Err(error) => self.writer = Err(error),
        }
    }

    fn place_run<'f>(&mut self, run: &Run, frame: &'f Frame, spans: &mut Vec<(u64, &'f [u8])>) {
        if let Some(bytes) = frame.chunks(run) {
            return self.place(bytes, spans);
        }
        for ordinal in run.first..run.first + run.count {
            match (frame.chunk(ordinal as usize), frame.table.lens().get(ordinal as usize)) {
                (Some(bytes), _) => self.place(bytes, spans),
                (None, len) => {
                    self.why =
                        frame.damage.clone().unwrap_or_else(|| format!("frame {} holds fewer chunks than its recipe says", run.frame));
                    self.lose(len.map_or(0, |&len| len.into()).max(1));
                }
            }
        }
    }

    /// Says where bytes go: behind what came before, around holes.
    fn place<'f>(&mut self, mut bytes: &'f [u8], spans: &mut Vec<(u64, &'f [u8])>) {
        while !bytes.is_empty() {
            let room = self.pass_holes();
            let (now, later) = bytes.split_at(bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            if now.is_empty() {
                self.why = "its recipe gives more bytes than the file has".into();
                return self.lost.push((self.offset, 1));
            }
            spans.push((self.offset, now));
            self.found += now.len() as u64;
            self.offset += now.len() as u64;
            bytes = later;
        }
    }

    /// Moves over holes and returns how many bytes there are before the next one.
    fn pass_holes(&mut self) -> u64 {
        let holes = &self.task.content.holes;
        while let Some(hole) = holes.get(self.next_hole).filter(|hole| hole.offset == self.offset) {
            self.offset += hole.len;
            self.next_hole += 1;
        }
        holes.get(self.next_hole).map_or(self.task.content.size, |hole| hole.offset).saturating_sub(self.offset)
    }

    /// Passes bytes that are lost: `len`, or all that the file has left.
    fn lose(&mut self, mut len: u64) {
        while len > 0 {
            let now = self.pass_holes().min(len);
            if now == 0 {
                return;
            }
            match self.lost.last_mut() {
                Some((offset, known)) if *offset + *known == self.offset => *known += now,
                _ => self.lost.push((self.offset, now)),
            }
            self.offset += now;
            len -= now;
        }
    }

    /// A file of which nothing more will come.
    fn broken_off(mut self) -> Done {
        self.why = "the rest of its recipe is lost".into();
        self.lose(u64::MAX);
        Done { path: self.task.path.clone(), outcome: self.finish() }
    }

    /// Verifies the whole and gives the file its name. What is left of a damaged one stands beside it.
    fn finish(self) -> Result<u64> {
        let writer = self.writer?;
        let hash = self.hasher.finish();
        if !self.lost.is_empty() {
            let shown = self.lost.iter().take(LOST_RANGES_SHOWN).map(|(offset, len)| format!("{offset}-{}", offset + len - 1));
            let more = match self.lost.len().saturating_sub(LOST_RANGES_SHOWN) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let ranges = shown.collect::<Vec<_>>().join(", ");
            let what = format!("bytes {ranges}{more} are lost");
            let kept = match self.found {
                0 => "nothing of it was restored".into(),
                _ => format!("{}, with zeros in their place", keep(writer, &self.task)?),
            };
            return Err(Error::damaged("It", format!("{what}; {kept}: {}", self.why)));
        }
        if hash != self.task.content.hash {
            let kept = keep(writer, &self.task)?;
            return Err(Error::damaged("It", format!("the hash of its whole content does not fit; {kept}")));
        }
        writer.commit(&self.task.meta)?;
        Ok(self.task.content.size)
    }
}

/// Leaves what was written of a damaged file beside its name, in place of nothing else; says where.
fn keep(writer: FileWriter, task: &FileTask) -> Result<String> {
    let path = writer.commit_beside(b".damaged", &task.meta)?;
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    Ok(format!("what is left is in {}", show_bytes(name)))
}

/// A file without bytes of its own.
pub fn empty_file(target: &TreeTarget, task: &FileTask) -> Result<()> {
    if task.content.hash.0 != *blake3::hash(b"").as_bytes() || task.content.stored_len() != 0 {
        return Err(Error::damaged("It", "it should have bytes, but its recipe is empty"));
    }
    target.create(&task.path, task.content.size)?.commit(&task.meta)
}

/// Writes the file that a hard link means where its first name was not selected.
pub fn lone_file(repository: &Repository, selection: &Selection, first: &[u8], target: &TreeTarget, path: &[u8]) -> Result<()> {
    let selection = Selection { stored: selection.stored.clone(), path: first.to_vec() };
    let mut found = None;
    crate::ops::browse::list(repository, &selection, true, &mut |entry| {
        found = Some(entry.clone());
        Ok(())
    })?;
    let Some(crate::format::entry::Entry { meta, node: Node::File { content: Some(content) }, .. }) = found else {
        return Err(Error::NotFound(format!("{} has no bytes in this snapshot", show_bytes(first))));
    };
    let task = Arc::new(FileTask { path: path.to_vec(), meta, content });
    if task.content.recipe.runs.is_empty() {
        return empty_file(target, &task);
    }
    let reader = repository.reader()?;
    let mut open = OpenFile::new(target, task.clone());
    let runs = crate::repo::Runs::new(reader.clone(), task.content.recipe.clone());
    reader.fetch(runs.map(|run| run.map(|run| crate::repo::Wanted { tag: (), run })), |batch| {
        let pieces: Vec<Piece> = batch.into_iter().map(|fetched| (fetched.run, fetched.frame)).collect();
        open.write(&pieces, &crate::progress::Silent);
        Ok(())
    })?;
    open.finish().map(drop)
}

/// Where a file is read back from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum From {
    Cache,
    Medium,
}

/// The hash of a file's bytes without its recorded holes, as the target has it now; nothing if it is shorter, or has other bytes
/// than zero in a hole.
pub fn hash_existing(target: &TreeTarget, path: &[u8], content: &Content, from: From) -> Result<Option<ContentHash>> {
    let file = target.open_existing(path)?;
    let failed = |error| Error::file("read", std::path::PathBuf::from(show_bytes(path)), error);
    if from == From::Medium {
        // Best effort: what is dirty must be written before it can leave the cache.
        let _ = file.sync_data();
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    }
    let mut hasher = ContentHasher::default();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    let end = (content.size, content.size);
    for (hole, hole_end) in content.holes.iter().map(|hole| (hole.offset, hole.offset + hole.len)).chain([end]) {
        while at < hole {
            let want = buffer.len().min((hole - at) as usize);
            let count = file.read_at(&mut buffer[..want], at).map_err(failed)?;
            if count == 0 {
                return Ok(None);
            }
            hasher.update(&buffer[..count]);
            at += count as u64;
        }
        if !is_zero(&file, at, hole_end, &mut buffer).map_err(failed)? {
            return Ok(None);
        }
        at = hole_end;
    }
    Ok(Some(hasher.finish()))
}

/// Whether a stretch of a file reads as zeros; real holes are passed without reading.
fn is_zero(file: &std::fs::File, mut at: u64, end: u64, buffer: &mut [u8]) -> std::io::Result<bool> {
    while at < end {
        match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => at = data.max(at),
            Err(rustix::io::Errno::NXIO) => return Ok(true),
            // No such call on this file system: read it all.
            Err(_) => {}
        }
        if at >= end {
            return Ok(true);
        }
        let want = buffer.len().min((end - at) as usize);
        let count = file.read_at(&mut buffer[..want], at)?;
        if count == 0 || buffer[..count].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += count as u64;
    }
    Ok(true)
}
