//! Catalogs are read in order, or from any path on. A reader that meets damage goes on at the next row of the table of paths behind it.

use std::sync::Arc;

use super::Repository;
use super::reader::Reader;
use super::runs::ByteStream;
use crate::error::{Error, Result};
use crate::format::codec::Reader as Fields;
use crate::format::entry::{Entry, PathRow, decode_entry, decode_rows, path_order};
use crate::format::recipe::Recipe;
use crate::format::snapshot::Snapshot;
use crate::limits::*;

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
