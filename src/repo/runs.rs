//! Recipes as streams: their runs, however deep they are, and the bytes of our own streams (catalogs, tables, long recipes).

use std::sync::Arc;

use super::reader::Reader;
use crate::error::{Error, Result};
use crate::format::codec::Reader as Fields;
use crate::format::recipe::{BLOCK_BYTES_MAX, Recipe, Run, decode_block};

/// The bytes of a recipe, one after another, without reading ahead: for catalogs and long recipes.
pub struct ByteStream {
    reader: Arc<Reader>,
    runs: Box<Runs>,
    buffer: Vec<u8>,
    at: usize,
    ended: bool,
}

impl ByteStream {
    pub fn new(reader: Arc<Reader>, recipe: Recipe) -> Self {
        let runs = Box::new(Runs::new(reader.clone(), recipe));
        Self { reader, runs, buffer: Vec::new(), at: 0, ended: false }
    }

    /// What is at hand after making sure that it is at least `want` bytes, or all there is.
    pub fn peek(&mut self, want: usize) -> Result<&[u8]> {
        while self.buffer.len() - self.at < want && !self.ended {
            self.buffer.drain(..self.at);
            self.at = 0;
            match self.runs.next().transpose()? {
                None => self.ended = true,
                Some(run) => {
                    let frame = self.reader.frame_with(&run)?;
                    let lost = || Error::damaged(format!("frame {}", run.frame), "chunks of a catalog or recipe are lost");
                    self.buffer.extend_from_slice(frame.chunks(&run).ok_or_else(lost)?);
                }
            }
        }
        Ok(&self.buffer[self.at..])
    }

    /// What was read and not consumed.
    pub fn at_hand(&self) -> &[u8] {
        &self.buffer[self.at..]
    }

    /// Moves past bytes that were peeked at.
    pub fn consume(&mut self, len: usize) {
        assert!(len <= self.buffer.len() - self.at);
        self.at += len;
    }

    /// Moves to `offset` bytes from the start of a fresh stream, without reading what lies before.
    pub fn skip(&mut self, mut offset: u64) -> Result<()> {
        while offset > 0 {
            let Some(run) = self.runs.next().transpose()? else { return Ok(()) };
            let len = self.reader.locator().run_len(&run)?;
            if len > offset {
                let frame = self.reader.frame_with(&run)?;
                let lost = || Error::damaged(format!("frame {}", run.frame), "chunks of a catalog or recipe are lost");
                self.buffer.extend_from_slice(frame.chunks(&run).ok_or_else(lost)?);
                self.at = offset as usize;
                return Ok(());
            }
            offset -= len;
        }
        Ok(())
    }

    /// All of it, up to `bytes_max`.
    pub fn read_all(mut self, bytes_max: usize) -> Result<Vec<u8>> {
        let bytes = self.peek(bytes_max + 1)?.to_vec();
        match bytes.len() > bytes_max {
            true => Err(Error::damaged("a catalog or recipe", "it is longer than it may be")),
            false => Ok(bytes),
        }
    }
}

/// The runs of a recipe, however deep it is.
pub struct Runs {
    current: std::vec::IntoIter<Run>,
    blocks: Option<ByteStream>,
}

impl Runs {
    pub fn new(reader: Arc<Reader>, recipe: Recipe) -> Self {
        let (direct, deeper) = match recipe.depth {
            0 => (recipe.runs, None),
            depth => (Vec::new(), Some(Recipe { depth: depth - 1, runs: recipe.runs })),
        };
        Self { current: direct.into_iter(), blocks: deeper.map(|recipe| ByteStream::new(reader, recipe)) }
    }

    fn next_block(&mut self) -> Result<Option<Vec<Run>>> {
        let Some(blocks) = &mut self.blocks else { return Ok(None) };
        let bytes = blocks.peek(BLOCK_BYTES_MAX)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let mut fields = Fields::new(bytes);
        let runs = decode_block(&mut fields).map_err(|error| error.of("a recipe"))?;
        let len = fields.position();
        blocks.consume(len);
        Ok(Some(runs))
    }
}

impl Iterator for Runs {
    type Item = Result<Run>;

    fn next(&mut self) -> Option<Result<Run>> {
        loop {
            if let Some(run) = self.current.next() {
                return Some(Ok(run));
            }
            match self.next_block() {
                Ok(Some(runs)) => self.current = runs.into_iter(),
                Ok(None) => return None,
                Err(error) => {
                    self.blocks = None;
                    return Some(Err(error));
                }
            }
        }
    }
}
