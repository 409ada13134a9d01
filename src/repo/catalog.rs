//! Catalogs: written entry by entry as recipes close, read in order or from any path on.
//!
//! An entry waits until the frames of its recipe are closed; when too many wait, the open frames are closed for them. The table of
//! paths is a stream of its own. A reader that meets damage goes on at the next row of the table behind it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Repository;
use super::reader::Reader;
use super::runs::ByteStream;
use super::stream::{MetaStream, OpenRecipe};
use super::writer::Writer;
use crate::error::{Error, Result, show_bytes};
use crate::format::codec::Reader as Fields;
use crate::format::content::{Content, Encoding, Hole};
use crate::format::entry::{Entry, Flaw, Node, PathRow, decode_entry, decode_rows, encode_entry, encode_row, is_restart, path_order};
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

/// Reads a catalog.
pub struct CatalogReader {
    reader: Arc<Reader>,
    catalog: Recipe,
    path_table: Recipe,
    len: u64,
    stream: ByteStream,
    offset: u64,
    before: Vec<u8>,
    failed: bool,
}

impl CatalogReader {
    pub fn open(repository: &Repository, snapshot: &Snapshot) -> Result<Self> {
        let reader = repository.reader()?.clone();
        let catalog = snapshot.catalog.0.clone();
        let stream = ByteStream::new(reader.clone(), catalog.clone());
        let path_table = snapshot.path_table.0.clone();
        Ok(Self { reader, catalog, path_table, len: snapshot.catalog_len, stream, offset: 0, before: Vec::new(), failed: false })
    }

    /// At the entry of a path, or at some entry before it.
    pub fn open_at(repository: &Repository, snapshot: &Snapshot, path: &[u8]) -> Result<Self> {
        let mut catalog = Self::open(repository, snapshot)?;
        match path.is_empty() || catalog.seek(path).is_ok() {
            true => Ok(catalog),
            // A damaged table of paths only costs time.
            false => Self::open(repository, snapshot),
        }
    }

    /// Moves to the last restart point at or before `path`; entries from there on follow.
    fn seek(&mut self, path: &[u8]) -> Result<()> {
        let rows = self.rows()?;
        let row = rows.iter().rev().find(|row| path_order(&row.path, path).is_le());
        self.move_to(row.map_or(0, |row| row.offset))
    }

    /// Moves on to the last restart point at or before `path`, if that lies ahead. A damaged table of paths only costs time.
    pub fn skip_to(&mut self, path: &[u8]) -> Result<()> {
        let rows = self.rows().unwrap_or_default();
        match rows.iter().rev().find(|row| path_order(&row.path, path).is_le()) {
            Some(row) if row.offset > self.offset => self.move_to(row.offset),
            _ => Ok(()),
        }
    }

    /// The table of paths.
    pub fn rows(&self) -> Result<Vec<PathRow>> {
        let bytes = ByteStream::new(self.reader.clone(), self.path_table.clone()).read_all(SEGMENT_BYTES_MAX as usize)?;
        decode_rows(&bytes).map_err(|error| error.of("a table of paths"))
    }

    fn move_to(&mut self, offset: u64) -> Result<()> {
        self.stream = ByteStream::new(self.reader.clone(), self.catalog.clone());
        self.stream.skip(offset)?;
        self.offset = offset;
        self.before.clear();
        Ok(())
    }

    fn read(&mut self) -> Result<Option<Entry>> {
        let mut want = 64 << 10;
        loop {
            let trouble = self.stream.peek(want).err();
            let bytes = self.stream.at_hand();
            if let Some(trouble) = trouble {
                // Entries before the damage are still whole.
                let mut fields = Fields::new(bytes);
                let Ok(entry) = decode_entry(&mut fields, &self.before) else { return Err(trouble) };
                let len = fields.position();
                return Ok(Some(self.pass(entry, len)));
            }
            if bytes.is_empty() {
                let all = self.offset == self.len;
                return if all { Ok(None) } else { Err(Error::damaged("a catalog", "it ends too early")) };
            }
            let mut fields = Fields::new(bytes);
            match decode_entry(&mut fields, &self.before) {
                Ok(entry) => {
                    let len = fields.position();
                    return Ok(Some(self.pass(entry, len)));
                }
                // Perhaps only cut off by the end of what is at hand.
                Err(_) if bytes.len() >= want && want < ENTRY_BYTES_MAX => want *= 4,
                Err(error) => return Err(error.of("a catalog")),
            }
        }
    }

    fn pass(&mut self, entry: Entry, len: usize) -> Entry {
        self.stream.consume(len);
        self.offset += len as u64;
        self.before.clone_from(&entry.path);
        entry
    }

    /// Goes on at the first row of the table of paths that lies behind the damage and can be read.
    fn pass_damage(&mut self) -> bool {
        let Ok(rows) = self.rows() else { return false };
        let damaged = self.offset;
        rows.into_iter().filter(|row| row.offset > damaged).any(|row| self.move_to(row.offset).is_ok())
    }
}

impl Iterator for CatalogReader {
    type Item = Result<Entry>;

    /// The next entry. After an error, reading goes on behind what is damaged, if there is anything.
    fn next(&mut self) -> Option<Result<Entry>> {
        if self.failed {
            return None;
        }
        match self.read() {
            Ok(entry) => entry.map(Ok),
            Err(error) => {
                self.failed = !self.pass_damage();
                Some(Err(error))
            }
        }
    }
}
