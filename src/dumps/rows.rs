//! A table's file in a folder that `pg_dump -Fd` wrote: rows, then `\.` and two empty lines, unless it holds something else.

use super::bytes::Tail;
use super::{Parser, complete, unknown};
use crate::format::dump::Dump;

const END: &[u8] = b"\\.\n\n\n";

pub struct Rows {
    newlines: u64,
    tail: Tail,
}

impl Default for Rows {
    fn default() -> Self {
        Self { newlines: 0, tail: Tail::new(END.len() + 1) }
    }
}

impl Parser for Rows {
    fn feed(&mut self, bytes: &[u8]) {
        self.newlines += memchr::memchr_iter(b'\n', bytes).count() as u64;
        self.tail.push(bytes);
    }

    fn finish(&mut self) -> Dump {
        let tail = self.tail.get();
        let before = tail.strip_suffix(END);
        match before.is_some_and(|before| before.last().is_none_or(|byte| *byte == b'\n')) {
            true => Dump { rows: Some(self.newlines.saturating_sub(3)), ..complete() },
            false => unknown("it does not end as the rows of a table do"),
        }
    }
}
