//! Reading a snapshot back: every chunk, and the hash of every whole file, as a restore would.

use std::sync::Arc;

use crate::crypto::ContentHasher;
use crate::error::{Error, Result, show_bytes};
use crate::format::content::Content;
use crate::format::entry::Node;
use crate::id::SnapshotId;
use crate::index::Scope;
use crate::progress::{Progress, Stage};
use crate::repo::{CatalogReader, Repository, Runs, Wanted};

/// A file that is being read.
struct File {
    path: Vec<u8>,
    content: Content,
}

/// Reads all files and streams of a snapshot. The first damage is an error.
pub fn snapshot(repository: &Repository, id: SnapshotId, progress: &dyn Progress) -> Result<()> {
    // What was just written has its place in the index by now.
    repository.locator_up_to(Scope::Frames)?;
    let snapshot = repository.snapshot(id)?.snapshot;
    progress.stage(Stage::CheckingData, Some(snapshot.totals.bytes), Some(snapshot.totals.files));
    let reader = repository.reader()?.clone();
    let source = reader.clone();
    let files = CatalogReader::open(repository, &snapshot)?.filter_map(|entry| match entry {
        Ok(entry) => match entry.node {
            Node::File { content: Some(content) } => Some(Ok(Arc::new(File { path: entry.path, content }))),
            _ => None,
        },
        Err(error) => Some(Err(error)),
    });
    let wanted = files.flat_map(move |file| -> Box<dyn Iterator<Item = Result<Wanted<Arc<File>>>> + Send> {
        match file {
            Ok(file) => {
                let runs = Runs::new(source.clone(), file.content.recipe.clone());
                Box::new(runs.map(move |run| Ok(Wanted { tag: file.clone(), run: run? })))
            }
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    });
    let mut reading: Option<Reading> = None;
    reader.fetch(wanted, |batch| {
        for fetched in batch {
            if progress.interrupted() {
                return Err(Error::Interrupted);
            }
            let lost = |why: String| Error::damaged(show_bytes(&fetched.tag.path), why);
            let bytes = fetched.bytes(lost)?;
            if !reading.as_ref().is_some_and(|reading| Arc::ptr_eq(&reading.file, &fetched.tag)) {
                reading.take().map_or(Ok(()), |done| done.finish(progress))?;
            }
            let reading = reading.get_or_insert_with(|| Reading { file: fetched.tag.clone(), hasher: ContentHasher::default() });
            reading.hasher.update(bytes);
            progress.bytes(bytes.len() as u64);
        }
        Ok(())
    })?;
    reading.map_or(Ok(()), |done| done.finish(progress))
}

struct Reading {
    file: Arc<File>,
    hasher: ContentHasher,
}

impl Reading {
    fn finish(self, progress: &dyn Progress) -> Result<()> {
        progress.files(1);
        match self.hasher.finish() == self.file.content.hash {
            true => Ok(()),
            false => Err(Error::damaged(show_bytes(&self.file.path), "the hash of its whole content does not fit")),
        }
    }
}
