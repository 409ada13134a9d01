//! Catalogs are written entry by entry as recipes close.
//!
//! An entry waits until the frames of its recipe are closed; when too many wait, the open frames are closed for them. The table of
//! paths is a stream of its own.

use std::collections::VecDeque;

use super::stream::{MetaStream, OpenRecipe};
use super::writer::Writer;
use crate::error::{Error, Result, show_bytes};
use crate::format::content::{Content, Encoding, Hole};
use crate::format::entry::{Entry, Flaw, Node, PathRow, encode_entry, encode_row, is_restart};
use crate::format::recipe::Recipe;
use crate::format::snapshot::{RecipeText, Snapshot};
use crate::id::ContentHash;
use crate::limits::*;

/// An entry on its way into the catalog.
pub struct PendingEntry {
    pub entry: Entry,
    /// Its content came from the older version, unread.
    pub known: bool,
    /// Plain bytes that were read for it.
    pub bytes_read: u64,
    content: Option<OpenContent>,
}

struct OpenContent {
    size: u64,
    hash: ContentHash,
    holes: Vec<Hole>,
    recipe: OpenRecipe,
}

impl PendingEntry {
    /// An entry that lacks nothing.
    pub fn whole(entry: Entry, known: bool) -> Self {
        Self { entry, known, bytes_read: 0, content: None }
    }

    /// A file that was read; without content if it could not be read to its end.
    pub fn read(entry: Entry, size: u64, hash: ContentHash, holes: Vec<Hole>, recipe: OpenRecipe, bytes_read: u64) -> Self {
        let content = (entry.flaw != Flaw::Unreadable).then_some(OpenContent { size, hash, holes, recipe });
        Self { entry, known: false, bytes_read, content }
    }

    /// Hash and length of content that was just read.
    pub fn content_hash(&self) -> Option<ContentHash> {
        self.content.as_ref().map(|content| content.hash)
    }

    fn close(&mut self) -> bool {
        let Some(open) = &self.content else { return true };
        let Some(recipe) = open.recipe.close() else { return false };
        let open = self.content.take().expect("just seen");
        let content = Content { encoding: Encoding::Plain, size: open.size, hash: open.hash, holes: open.holes, recipe };
        self.entry.node = Node::File { content: Some(content) };
        true
    }
}

/// The recipes of a finished catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WrittenCatalog {
    pub catalog: Recipe,
    pub len: u64,
    pub path_table: Recipe,
}

/// Writes a catalog.
pub struct CatalogWriter {
    stream: MetaStream,
    table: MetaStream,
    waiting: VecDeque<PendingEntry>,
    before: Vec<u8>,
    next_row: u64,
    buffer: Vec<u8>,
}

impl CatalogWriter {
    pub fn new(writer: &Writer, older: Option<&Snapshot>) -> Self {
        Self {
            stream: MetaStream::new(writer, older.map(|snapshot| &snapshot.catalog.0)),
            table: MetaStream::new(writer, older.map(|snapshot| &snapshot.path_table.0)),
            waiting: VecDeque::new(),
            before: Vec::new(),
            next_row: 0,
            buffer: Vec::new(),
        }
    }

    /// Adds the next entry in path order.
    pub fn add(&mut self, writer: &mut Writer, entry: PendingEntry) -> Result<()> {
        self.waiting.push_back(entry);
        self.write_closed(writer)?;
        if self.waiting.len() > ENTRIES_WAITING_MAX {
            writer.close_frames()?;
            self.write_closed(writer)?;
        }
        Ok(())
    }

    fn write_closed(&mut self, writer: &mut Writer) -> Result<()> {
        while self.waiting.front_mut().is_some_and(PendingEntry::close) {
            let entry = self.waiting.pop_front().expect("just seen").entry;
            if is_restart(&entry.path) && self.stream.len >= self.next_row {
                let row = PathRow { path: entry.path.clone(), offset: self.stream.len };
                self.buffer.clear();
                encode_row(&row, &mut self.buffer);
                self.table.push(writer, &self.buffer)?;
                self.next_row = row.offset + CATALOG_STRIDE_BYTES;
            }
            self.buffer.clear();
            encode_entry(&entry, &self.before, &mut self.buffer);
            if self.buffer.len() > ENTRY_BYTES_MAX {
                let path = std::path::PathBuf::from(show_bytes(&entry.path));
                let why = std::io::Error::other("its extended attributes and holes take more than a catalog entry can hold");
                return Err(Error::file("back up", path, why));
            }
            self.stream.push(writer, &self.buffer)?;
            self.before = entry.path;
        }
        Ok(())
    }

    pub fn finish(mut self, writer: &mut Writer) -> Result<WrittenCatalog> {
        writer.close_frames()?;
        self.write_closed(writer)?;
        assert!(self.waiting.is_empty(), "every frame is closed");
        let len = self.stream.len;
        let catalog = self.stream.finish(writer)?;
        let table = self.table.finish(writer)?;
        writer.close_frames()?;
        let closed = |recipe: OpenRecipe| recipe.close().expect("every frame is closed");
        Ok(WrittenCatalog { catalog: closed(catalog), len, path_table: closed(table) })
    }
}

impl WrittenCatalog {
    pub fn texts(self) -> (RecipeText, RecipeText) {
        (RecipeText(self.catalog), RecipeText(self.path_table))
    }
}
