//! Runs: which chunk is in which frame, as rows in order in a file that is written once.
//!
//! ```text
//! filter, in blocks | pages of rows, each behind its checksum | the key of each page's first row
//! ```
//!
//! A row's key is the first half of a chunk's id. Chunks are many, and where they are is looked up far more often for new ones, which
//! are not there, than for others. So a question reads one block of the filter, and a page only if the filter says "maybe". Nothing
//! stays in memory but 8 bytes a page; the kernel keeps the rest at hand while it has room.
//!
//! What is known of a run besides its bytes stands in the database. Filter and first keys are hashed before anything is asked, and a
//! page's checksum is made with the run's tag and the page's number: bytes of another run, another time or a torn write are found out.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};

use super::filter::{self, BLOCK_BYTES, Block};
use crate::format::codec::{Reader, Write};

const PAGE_BYTES: usize = 4096;
const CHECK_BYTES: usize = 8;
const ROW_BYTES: usize = 14;
const PAGE_ROWS: u64 = ((PAGE_BYTES - CHECK_BYTES) / ROW_BYTES) as u64;
/// Bytes read or written at once when a run is passed from start to end.
const STRETCH_BYTES: usize = 256 << 10;

pub type Tag = [u8; 16];

/// Where a chunk is; in the order in which rows stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// The first half of the chunk's id.
    pub key: u64,
    pub frame: u32,
    pub ordinal: u16,
}

impl Row {
    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.put_bytes(&self.key.to_be_bytes());
        bytes.put_u32(self.frame);
        bytes.put_u16(self.ordinal);
    }

    fn decode(bytes: &[u8]) -> Self {
        let (key, rest) = bytes.split_at(8);
        let (frame, ordinal) = rest.split_at(4);
        Self {
            key: u64::from_be_bytes(key.try_into().expect("eight bytes")),
            frame: u32::from_le_bytes(frame.try_into().expect("four bytes")),
            ordinal: u16::from_le_bytes(ordinal.try_into().expect("two bytes")),
        }
    }
}

/// What the database says of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Random; also in the file's name.
    pub tag: Tag,
    pub rows: u64,
    pub blocks: u64,
    /// Of the filter and the first keys.
    digest: [u8; 32],
}

impl Shape {
    pub const BYTES: usize = 48;

    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = Vec::with_capacity(Self::BYTES);
        bytes.put_u64(self.rows);
        bytes.put_u64(self.blocks);
        bytes.put_bytes(&self.digest);
        bytes.try_into().expect("48 bytes")
    }

    pub fn decode(tag: Tag, bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let rows = reader.u64("rows").ok()?;
        let blocks = reader.u64("blocks").ok()?;
        // So that no sum below overflows, whatever a damaged database says.
        let sane = (1..1 << 48).contains(&rows) && (1..1 << 48).contains(&blocks);
        sane.then_some(Self { tag, rows, blocks, digest: reader.array("digest").ok()? })
    }

    fn pages(&self) -> u64 {
        self.rows.div_ceil(PAGE_ROWS)
    }

    fn pages_start(&self) -> u64 {
        self.blocks * BLOCK_BYTES as u64
    }

    fn keys_start(&self) -> u64 {
        self.pages_start() + self.pages() * PAGE_BYTES as u64
    }

    /// Length of the file.
    fn len(&self) -> u64 {
        self.keys_start() + self.pages() * 8
    }

    fn rows_in(&self, page: u64) -> usize {
        (self.rows - page * PAGE_ROWS).min(PAGE_ROWS) as usize
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is not what was written")
}

fn checksum(tag: &Tag, page: u64, rows: &[u8]) -> [u8; CHECK_BYTES] {
    let mut key = [0; 32];
    key[..16].copy_from_slice(tag);
    key[16..24].copy_from_slice(&page.to_le_bytes());
    *blake3::keyed_hash(&key, rows).as_bytes().first_chunk().expect("a hash is longer")
}

fn rows_of(page: &[u8]) -> &[[u8; ROW_BYTES]] {
    page[CHECK_BYTES..].as_chunks().0
}

/// A run that can be asked.
pub struct Run {
    file: File,
    shape: Shape,
    /// The key of each page's first row, once they and the filter were found sound.
    first_keys: OnceLock<Vec<u64>>,
}

impl Run {
    /// A run in this file; fails if its length is not right. Its bytes are looked at later.
    pub fn open(file: File, shape: Shape) -> io::Result<Self> {
        let meta = file.metadata()?;
        match meta.is_file() && meta.len() == shape.len() {
            true => Ok(Self { file, shape, first_keys: OnceLock::new() }),
            false => Err(damaged()),
        }
    }

    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Reads the filter once and compares it with what was written.
    pub fn verify(&self) -> io::Result<()> {
        self.first_keys().map(drop)
    }

    fn first_keys(&self) -> io::Result<&[u64]> {
        if let Some(keys) = self.first_keys.get() {
            return Ok(keys);
        }
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; STRETCH_BYTES];
        let (mut at, end) = (0, self.shape.pages_start());
        while at < end {
            let part = &mut buffer[..(end - at).min(STRETCH_BYTES as u64) as usize];
            self.file.read_exact_at(part, at)?;
            hasher.update(part);
            at += part.len() as u64;
        }
        let mut keys = vec![0; self.shape.pages() as usize * 8];
        self.file.read_exact_at(&mut keys, self.shape.keys_start())?;
        hasher.update(&keys);
        if *hasher.finalize().as_bytes() != self.shape.digest {
            return Err(damaged());
        }
        let keys = keys.as_chunks().0.iter().map(|key| u64::from_be_bytes(*key)).collect();
        Ok(self.first_keys.get_or_init(|| keys))
    }

    /// Adds the rows of a key to `found`.
    pub fn find(&self, key: u64, found: &mut Vec<Row>) -> io::Result<()> {
        let first_keys = self.first_keys()?;
        let mut block: Block = [0; BLOCK_BYTES];
        self.file.read_exact_at(&mut block, filter::block_of(key, self.shape.blocks) * BLOCK_BYTES as u64)?;
        if !filter::may_hold(&block, key) {
            return Ok(());
        }
        // The rows of one key may go on over pages; the first may be the last of a page that begins with a lower key.
        let start = first_keys.partition_point(|first| *first < key).saturating_sub(1);
        let mut page = [0; PAGE_BYTES];
        let pages = (start as u64..).zip(&first_keys[start..]);
        for (number, _) in pages.take_while(|(_, first)| **first <= key) {
            self.read_pages(number, &mut page)?;
            let rows = &rows_of(&page)[..self.shape.rows_in(number)];
            let from = rows.partition_point(|row| row[..8] < key.to_be_bytes()[..]);
            found.extend(rows[from..].iter().map(|row| Row::decode(row)).take_while(|row| row.key == key));
        }
        Ok(())
    }

    /// Fills the buffer with pages from `first` on.
    fn read_pages(&self, first: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, self.shape.pages_start() + first * PAGE_BYTES as u64)?;
        for (number, page) in (first..).zip(buffer.chunks(PAGE_BYTES)) {
            if page[..CHECK_BYTES] != checksum(&self.shape.tag, number, &page[CHECK_BYTES..]) {
                return Err(damaged());
            }
        }
        Ok(())
    }
}

/// Passes the rows of a run in order.
pub struct Rows {
    run: Arc<Run>,
    buffer: Vec<u8>,
    /// Pages read so far.
    pages: u64,
    waiting: std::vec::IntoIter<Row>,
}

impl Rows {
    pub fn new(run: Arc<Run>) -> Self {
        Self { run, buffer: Vec::new(), pages: 0, waiting: Vec::new().into_iter() }
    }

    fn fill(&mut self) -> io::Result<()> {
        let shape = self.run.shape;
        let count = (shape.pages() - self.pages).min((STRETCH_BYTES / PAGE_BYTES) as u64);
        self.buffer.resize(count as usize * PAGE_BYTES, 0);
        self.run.read_pages(self.pages, &mut self.buffer)?;
        let pages = (self.pages..).zip(self.buffer.chunks(PAGE_BYTES));
        let rows = pages.flat_map(|(number, page)| rows_of(page)[..shape.rows_in(number)].iter().map(|row| Row::decode(row)));
        self.waiting = rows.collect::<Vec<_>>().into_iter();
        self.pages += count;
        Ok(())
    }
}

impl Iterator for Rows {
    type Item = io::Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.waiting.len() == 0
            && self.pages < self.run.shape.pages()
            && let Err(error) = self.fill()
        {
            return Some(Err(error));
        }
        self.waiting.next().map(Ok)
    }
}

/// Bytes on their way to one place of a file after another.
struct Tail {
    at: u64,
    bytes: Vec<u8>,
}

impl Tail {
    fn at(at: u64) -> Self {
        Self { at, bytes: Vec::with_capacity(STRETCH_BYTES + PAGE_BYTES) }
    }

    fn put(&mut self, file: &File, bytes: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() >= STRETCH_BYTES { self.flush(file) } else { Ok(()) }
    }

    fn flush(&mut self, file: &File) -> io::Result<()> {
        file.write_all_at(&self.bytes, self.at)?;
        self.at += self.bytes.len() as u64;
        self.bytes.clear();
        Ok(())
    }
}

/// Writes a run.
pub struct RunWriter {
    file: File,
    shape: Shape,
    filter: Tail,
    /// The block that keys are added to, and its number.
    block: (Block, u64),
    hasher: blake3::Hasher,
    pages: Tail,
    /// Rows of the page being filled.
    page: Vec<u8>,
    first_keys: Vec<u8>,
}

impl RunWriter {
    /// A run of at most `rows_max` rows in an empty file.
    pub fn new(file: File, tag: Tag, rows_max: u64) -> Self {
        let shape = Shape { tag, rows: 0, blocks: filter::blocks_for(rows_max), digest: [0; 32] };
        Self {
            file,
            shape,
            filter: Tail::at(0),
            block: ([0; BLOCK_BYTES], 0),
            hasher: blake3::Hasher::new(),
            pages: Tail::at(shape.pages_start()),
            page: Vec::with_capacity(PAGE_BYTES),
            first_keys: Vec::new(),
        }
    }

    /// Adds the next row in order.
    pub fn push(&mut self, row: Row) -> io::Result<()> {
        let block = filter::block_of(row.key, self.shape.blocks);
        self.pass_blocks(block)?;
        filter::add(&mut self.block.0, row.key);
        if self.page.is_empty() {
            self.first_keys.put_bytes(&row.key.to_be_bytes());
        }
        row.encode(&mut self.page);
        self.shape.rows += 1;
        if self.shape.rows.is_multiple_of(PAGE_ROWS) { self.close_page() } else { Ok(()) }
    }

    fn pass_blocks(&mut self, until: u64) -> io::Result<()> {
        while self.block.1 < until {
            self.hasher.update(&self.block.0);
            self.filter.put(&self.file, &self.block.0)?;
            self.block = ([0; BLOCK_BYTES], self.block.1 + 1);
        }
        Ok(())
    }

    fn close_page(&mut self) -> io::Result<()> {
        self.page.resize(PAGE_BYTES - CHECK_BYTES, 0);
        let number = (self.shape.rows - 1) / PAGE_ROWS;
        self.pages.put(&self.file, &checksum(&self.shape.tag, number, &self.page))?;
        self.pages.put(&self.file, &self.page)?;
        self.page.clear();
        Ok(())
    }

    /// The finished run; durable if `sync`. Nothing if it has no rows.
    pub fn finish(mut self, sync: bool) -> io::Result<Option<Run>> {
        if self.shape.rows == 0 {
            return Ok(None);
        }
        if !self.page.is_empty() {
            self.close_page()?;
        }
        self.pass_blocks(self.shape.blocks)?;
        self.filter.flush(&self.file)?;
        self.hasher.update(&self.first_keys);
        self.shape.digest = *self.hasher.finalize().as_bytes();
        self.pages.put(&self.file, &self.first_keys)?;
        self.pages.flush(&self.file)?;
        if sync {
            self.file.sync_all()?;
        }
        let first_keys: Vec<u64> = self.first_keys.as_chunks().0.iter().map(|key| u64::from_be_bytes(*key)).collect();
        Ok(Some(Run { file: self.file, shape: self.shape, first_keys: OnceLock::from(first_keys) }))
    }
}
