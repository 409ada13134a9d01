//! What the parsers share to take streams apart that come in pieces of any size.

use memchr::memmem::Finder;

use crate::format::dump::Table;
use crate::limits::*;

/// Collects a few bytes across pieces.
#[derive(Default)]
pub struct Gather(Vec<u8>);

impl Gather {
    /// Takes off `input` what is missing of `len` bytes; true once they are all there.
    pub fn fill(&mut self, len: usize, input: &mut &[u8]) -> bool {
        let count = len.saturating_sub(self.0.len()).min(input.len());
        self.0.extend_from_slice(&input[..count]);
        *input = &input[count..];
        self.0.len() >= len
    }

    /// The same, and hands these bytes on.
    pub fn take(&mut self, len: usize, input: &mut &[u8]) -> Option<Vec<u8>> {
        self.fill(len, input).then(|| {
            let bytes = self.0.clone();
            self.0.clear();
            bytes
        })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Passes over up to `left` bytes; true once they are all passed.
pub fn skip(left: &mut u64, input: &mut &[u8]) -> bool {
    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    *left -= count as u64;
    *input = &input[count..];
    *left == 0
}

/// Looks for a text that may lie across pieces.
pub struct Search {
    finder: Finder<'static>,
    /// The last bytes seen, fewer than the text has.
    last: Vec<u8>,
}

impl Search {
    /// Looks for `needle` in what follows `before`.
    pub fn new(needle: &'static [u8], before: &[u8]) -> Self {
        let mut search = Self { finder: Finder::new(needle), last: Vec::new() };
        search.remember(before);
        search
    }

    /// Where the text ends in `bytes`, if it does. What is behind that was not looked at, and is not remembered.
    pub fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        let len = self.finder.needle().len();
        if !self.last.is_empty() {
            let kept = self.last.len();
            self.last.extend_from_slice(&bytes[..bytes.len().min(len - 1)]);
            let found = self.finder.find(&self.last);
            self.last.truncate(kept);
            if let Some(at) = found {
                self.last.clear();
                return Some(at + len - kept);
            }
        }
        if let Some(at) = self.finder.find(bytes) {
            self.last.clear();
            return Some(at + len);
        }
        self.remember(bytes);
        None
    }

    fn remember(&mut self, bytes: &[u8]) {
        let max = self.finder.needle().len() - 1;
        self.last.extend_from_slice(&bytes[bytes.len().saturating_sub(max)..]);
        let excess = self.last.len().saturating_sub(max);
        self.last.drain(..excess);
    }
}

/// The last bytes of a stream.
pub struct Tail {
    bytes: Vec<u8>,
    max: usize,
}

impl Tail {
    pub fn new(max: usize) -> Self {
        Self { bytes: Vec::new(), max }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(self.max)..];
        // Twice the room, so that small pieces do not move everything each time.
        if self.bytes.len() + bytes.len() > 2 * self.max {
            let keep = self.max - bytes.len();
            let excess = self.bytes.len().saturating_sub(keep);
            self.bytes.drain(..excess);
        }
        self.bytes.extend_from_slice(bytes);
    }

    pub fn get(&self) -> &[u8] {
        &self.bytes[self.bytes.len().saturating_sub(self.max)..]
    }
}

/// A line, of which a long one's beginning and end are kept.
#[derive(Default)]
pub struct Line {
    start: Vec<u8>,
    end: Vec<u8>,
}

impl Line {
    const START_MAX: usize = 1024;
    const END_MAX: usize = 16;

    /// Takes bytes off `input` up to the line's end; true if that is there.
    pub fn fill(&mut self, input: &mut &[u8]) -> bool {
        let newline = memchr::memchr(b'\n', input);
        let part = &input[..newline.unwrap_or(input.len())];
        self.start.extend_from_slice(&part[..part.len().min(Self::START_MAX - self.start.len())]);
        self.end.extend_from_slice(&part[part.len().saturating_sub(Self::END_MAX)..]);
        let excess = self.end.len().saturating_sub(Self::END_MAX);
        self.end.drain(..excess);
        *input = &input[newline.map_or(input.len(), |at| at + 1)..];
        newline.is_some()
    }

    pub fn start(&self) -> &[u8] {
        &self.start
    }

    /// The line's last bytes.
    pub fn end(&self) -> &[u8] {
        &self.end
    }

    pub fn clear(&mut self) {
        self.start.clear();
        self.end.clear();
    }
}

/// The tables of a dump: the first by name, all by number.
#[derive(Default)]
pub struct Tables {
    pub list: Vec<Table>,
    pub count: u64,
    rows: u64,
    uncounted: bool,
}

impl Tables {
    pub fn add(&mut self, name: &str, rows: Option<u64>) {
        self.count += 1;
        self.rows = self.rows.saturating_add(rows.unwrap_or(0));
        self.uncounted |= rows.is_none();
        if self.list.len() < DUMP_TABLES_MAX {
            self.list.push(Table { name: short(name), rows });
        }
    }

    /// Rows of all tables, if each was counted.
    pub fn rows(&self) -> Option<u64> {
        (self.count > 0 && !self.uncounted).then_some(self.rows)
    }
}

/// A name or version, cut to a length that suits a snapshot.
pub fn short(text: &str) -> String {
    let mut end = text.len().min(DUMP_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// Bytes as a short text.
pub fn text(bytes: &[u8]) -> String {
    short(&String::from_utf8_lossy(&bytes[..bytes.len().min(DUMP_TEXT_BYTES_MAX)]))
}

/// A little-endian number of up to eight bytes.
pub fn little(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Bytes up to the first blank or comma.
pub fn word(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| byte.is_ascii_whitespace() || *byte == b',');
    &bytes[..end.unwrap_or(bytes.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_across_any_pieces() {
        let bytes = b"ab\n\\a\n\\.\n\\.\nxy\n\\.\n";
        let expected = [9, 18];
        for size in 1..bytes.len() {
            let (mut search, mut found, mut at) = (Search::new(b"\n\\.\n", b""), Vec::new(), 0);
            for piece in bytes.chunks(size) {
                let mut rest = piece;
                while let Some(end) = search.find(rest) {
                    rest = &rest[end..];
                    found.push(at + piece.len() - rest.len());
                }
                at += piece.len();
            }
            assert_eq!(found, expected, "pieces of {size}");
        }
        assert_eq!(Search::new(b"\n-- ", b"x\n").find(b"-- "), Some(3));
    }

    #[test]
    fn tails_and_lines_are_bounded() {
        for size in [1, 3, 7, 50] {
            let (mut tail, mut line) = (Tail::new(5), Line::default());
            let bytes: Vec<u8> = (0..40).collect();
            bytes.chunks(size).for_each(|piece| tail.push(piece));
            assert_eq!(tail.get(), [35, 36, 37, 38, 39]);
            let long = [vec![b'a'; 5000], b"the end of a line\nmore".to_vec()].concat();
            let mut rest = &long[..];
            let mut done = false;
            while !done {
                let (mut piece, after) = rest.split_at(size.min(rest.len()));
                done = line.fill(&mut piece);
                rest = after;
            }
            assert_eq!((line.start().len(), line.end()), (1024, &b"he end of a line"[..]));
        }
    }
}
