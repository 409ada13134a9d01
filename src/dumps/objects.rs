//! The list of large objects in a folder that `pg_dump -Fd` wrote: a line for each, its number and the name of its file.

use super::bytes::Line;
use super::pg_archive::Wanted;
use super::{Parser, complete, incomplete};
use crate::format::dump::Dump;
use crate::limits::*;

#[derive(Default)]
pub struct Objects {
    line: Line,
    /// The last line has begun and not ended.
    is_open: bool,
    wanted: Vec<Wanted>,
}

impl Parser for Objects {
    fn feed(&mut self, bytes: &[u8]) {
        let mut input = bytes;
        while !input.is_empty() {
            self.is_open = !self.line.fill(&mut input);
            if self.is_open {
                return;
            }
            let line = String::from_utf8_lossy(self.line.start());
            // One more than are kept track of, so that it is noticed.
            if let Some((_, name)) = line.split_once(' ').filter(|_| self.wanted.len() <= DUMP_PARTS_MAX) {
                self.wanted.push(Wanted { name: name.into(), table: String::new() });
            }
            drop(line);
            self.line.clear();
        }
    }

    fn finish(&mut self) -> Dump {
        if self.is_open { incomplete("it ends in the middle of a line") } else { complete() }
    }

    fn wanted(&self) -> Option<&[Wanted]> {
        Some(&self.wanted)
    }
}
