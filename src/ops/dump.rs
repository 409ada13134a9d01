//! Dump: one file or stream, or those of a database, in order, to a writer.
//!
//! Frames are read ahead and decoded in parallel; every chunk and the whole content are verified. A lost stretch stops the dump:
//! what follows it would land in the wrong place.

mod receiver;

use std::io::{ErrorKind, Write};

use crate::crypto::ContentHasher;
use crate::error::{Error, Result, show_bytes};
use crate::format::content::Content;
use crate::format::dump::Dump;
use crate::format::entry::{Entry, Node};
use crate::id::ContentHash;
use crate::limits::*;
use crate::ops::{browse, streams};
use crate::progress::{Progress, Stage};
use crate::repo::{Repository, Runs, Selection, Wanted};
pub use receiver::dump_to_command;

/// What a dump did.
#[derive(Clone, Debug)]
pub struct DumpReport {
    pub path: Vec<u8>,
    pub bytes: u64,
    pub hash: ContentHash,
    pub seconds: f64,
}

/// Paths and what is there.
type Contents = Vec<(Vec<u8>, Content)>;

/// A file or stream in a snapshot, or the streams of a database one after the other.
pub struct Found {
    pub path: Vec<u8>,
    /// What is known of it as a dump.
    pub dump: Option<Dump>,
    contents: Contents,
}

impl Found {
    pub fn size(&self) -> u64 {
        self.contents.iter().map(|(_, content)| content.size).sum()
    }
}

/// The file at the selection's path, or, without a path, the snapshot's only file. The streams of a database that was dumped as several
/// at once are found by their folder.
pub fn find(repository: &Repository, selection: &Selection) -> Result<Found> {
    let dump_of = |path: &[u8]| streams::dump_of(&selection.stored.snapshot.dumps, path);
    if let Some((path, contents)) = find_database(repository, selection)? {
        return Ok(Found { dump: dump_of(&path), path, contents });
    }
    let (path, content) = find_file(repository, selection)?;
    Ok(Found { dump: dump_of(&path), contents: vec![(path.clone(), content)], path })
}

/// Folder and streams of a database, if they are all that is selected.
fn find_database(repository: &Repository, selection: &Selection) -> Result<Option<(Vec<u8>, Contents)>> {
    let mut contents = Vec::new();
    let mut is_other = false;
    let listed = browse::list(repository, selection, true, &mut |entry| {
        // So many are none of ours, and must not be kept.
        is_other |= entry.path == selection.path || contents.len() > TABLE_STREAMS_MAX + 2;
        match &entry.node {
            Node::File { content: Some(content) } if !is_other => contents.push((entry.path.clone(), content.clone())),
            Node::Folder => {}
            _ => is_other = true,
        }
        if is_other { Err(Error::OutputClosed) } else { Ok(()) }
    });
    match listed {
        Err(Error::OutputClosed) => return Ok(None),
        listed => listed?,
    }
    let paths: Vec<Vec<u8>> = contents.iter().map(|(path, _)| path.clone()).collect();
    let folder = streams::one_database(&paths).filter(|folder| selection.path.is_empty() || *folder == selection.path);
    Ok(folder.map(|folder| (folder, contents)))
}

/// Writes a file's bytes to `output`.
pub fn write(repository: &Repository, found: &Found, output: &mut dyn Write, progress: &dyn Progress) -> Result<DumpReport> {
    let begun = std::time::Instant::now();
    progress.stage(Stage::Restoring, Some(found.size()), Some(1));
    let hash = match &found.contents[..] {
        [(path, content)] => write_content(repository, path, content, output, progress)?,
        several => {
            let mut hashing = Hashing { inner: output, hasher: ContentHasher::default() };
            for (path, content) in several {
                write_content(repository, path, content, &mut hashing, progress)?;
            }
            hashing.hasher.finish()
        }
    };
    output.flush().map_err(closed)?;
    Ok(DumpReport { path: found.path.clone(), bytes: found.size(), hash, seconds: begun.elapsed().as_secs_f64() })
}

/// Writes the file at the selection's path (or, without a path, the snapshot's only file) to `output`.
pub fn dump(repository: &Repository, selection: &Selection, output: &mut dyn Write, progress: &dyn Progress) -> Result<DumpReport> {
    progress.stage(Stage::Opening, None, None);
    write(repository, &find(repository, selection)?, output, progress)
}

/// The file that is meant: at the path, or the only one there is.
fn find_file(repository: &Repository, selection: &Selection) -> Result<(Vec<u8>, Content)> {
    let mut found: Option<Entry> = None;
    let id = selection.stored.id.short();
    let several = || {
        let hint = format!("write the path behind the snapshot, as in snap dump {id} a/file");
        Error::Usage(format!("Snapshot {id} holds more than one file; {hint}"))
    };
    browse::list(repository, selection, true, &mut |entry| {
        match (&entry.node, selection.path.is_empty()) {
            (Node::Folder, true) => {}
            (_, false) if entry.path != selection.path => {}
            _ if found.is_some() => return Err(several()),
            _ => found = Some(entry.clone()),
        }
        Ok(())
    })?;
    let entry = found.ok_or_else(|| Error::NotFound(format!("Snapshot {id} holds no file {}", show_bytes(&selection.path))))?;
    let shown = show_bytes(&entry.path);
    match entry.node {
        Node::File { content: Some(content) } => Ok((entry.path, content)),
        Node::File { content: None } => {
            let why = selection.stored.snapshot.why_empty();
            Err(Error::NotFound(format!("{shown} has no content in snapshot {id}: {why}")))
        }
        Node::HardLink { target } => find_file(repository, &Selection { stored: selection.stored.clone(), path: target }),
        node => Err(Error::Usage(format!("{shown} is a {} and has no bytes to dump; snap restore brings it back", node.name()))),
    }
}

fn write_content(
    repository: &Repository,
    path: &[u8],
    content: &Content,
    output: &mut dyn Write,
    progress: &dyn Progress,
) -> Result<ContentHash> {
    let reader = repository.reader()?;
    let runs = Runs::new(reader.clone(), content.recipe.clone());
    let wanted = runs.map(|run| run.map(|run| Wanted { tag: (), run }));
    let mut hasher = ContentHasher::default();
    let mut sparse = SparseWriter { content, output, at: 0, next_hole: 0 };
    reader.fetch(wanted, |batch| {
        for fetched in batch {
            if progress.interrupted() {
                return Err(Error::Interrupted);
            }
            let lost = |why: String| {
                let what = format!("{} from byte {} on", show_bytes(path), sparse.at);
                Error::damaged(what, format!("{why}; {} bytes before it were written", sparse.at))
            };
            let bytes = fetched.bytes(lost)?;
            hasher.update(bytes);
            sparse.write(bytes)?;
            progress.bytes(bytes.len() as u64);
        }
        Ok(())
    })?;
    sparse.finish()?;
    let hash = hasher.finish();
    match hash == content.hash {
        true => Ok(hash),
        false => Err(Error::damaged(show_bytes(path), "the hash of its whole content does not fit")),
    }
}

/// Hashes what several streams are together.
struct Hashing<'a> {
    inner: &'a mut dyn Write,
    hasher: ContentHasher,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// Writes a file's bytes with zeros for its holes.
struct SparseWriter<'a> {
    content: &'a Content,
    output: &'a mut dyn Write,
    at: u64,
    next_hole: usize,
}

impl SparseWriter<'_> {
    fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            self.fill_hole()?;
            let until = self.content.holes.get(self.next_hole).map_or(u64::MAX, |hole| hole.offset - self.at);
            let (now, later) = bytes.split_at(bytes.len().min(usize::try_from(until).unwrap_or(usize::MAX)));
            self.output.write_all(now).map_err(closed)?;
            self.at += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    fn fill_hole(&mut self) -> Result<()> {
        while let Some(hole) = self.content.holes.get(self.next_hole).filter(|hole| hole.offset == self.at) {
            let copied = std::io::copy(&mut std::io::Read::take(std::io::repeat(0), hole.len), &mut self.output);
            self.at += copied.map_err(closed)?;
            self.next_hole += 1;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.fill_hole()?;
        match self.at == self.content.size {
            true => Ok(()),
            false => Err(Error::damaged("its recipe", format!("it gives {} bytes and not {}", self.at, self.content.size))),
        }
    }
}

fn closed(error: std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::BrokenPipe => Error::OutputClosed,
        _ => Error::file("write to", "standard output", error),
    }
}
