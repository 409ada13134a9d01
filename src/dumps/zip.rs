//! zip: at the end stands a record that says where the central directory is, and how long the comment behind it.

use super::bytes::{Tail, little};
use super::{Parser, complete, incomplete};
use crate::format::dump::Dump;

const RECORD_BYTES: usize = 22;
const COMMENT_BYTES_MAX: usize = 0xffff;
const MAGIC: &[u8] = b"PK\x05\x06";
/// In place of a number that stands in the larger record of large files.
const ELSEWHERE: u64 = 0xffff_ffff;

pub struct Zip {
    tail: Tail,
    bytes: u64,
}

impl Default for Zip {
    fn default() -> Self {
        Self { tail: Tail::new(RECORD_BYTES + COMMENT_BYTES_MAX), bytes: 0 }
    }
}

impl Zip {
    fn ends(&self) -> bool {
        let tail = self.tail.get();
        let start = self.bytes - tail.len() as u64;
        memchr::memmem::find_iter(tail, MAGIC).any(|at| {
            let Some(record) = tail.get(at..at + RECORD_BYTES) else { return false };
            let (len, offset, comment) = (little(&record[12..16]), little(&record[16..20]), little(&record[20..22]));
            let fits = len == ELSEWHERE || offset == ELSEWHERE || offset + len <= start + at as u64;
            fits && at + RECORD_BYTES + comment as usize == tail.len()
        })
    }
}

impl Parser for Zip {
    fn feed(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.tail.push(bytes);
    }

    fn finish(&mut self) -> Dump {
        let judged = match self.ends() {
            true => complete(),
            false => incomplete("the end of its central directory is missing"),
        };
        Dump { compression: "zip".into(), ..judged }
    }
}
