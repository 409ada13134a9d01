//! SQLite databases: the header says how many pages there must be.

use super::{Parser, complete, incomplete, unknown};
use crate::format::dump::Dump;

const HEADER_BYTES: usize = 100;

#[derive(Default)]
pub struct Sqlite {
    header: Vec<u8>,
    bytes: u64,
}

impl Sqlite {
    fn judge(&self) -> Dump {
        if self.header.len() < HEADER_BYTES {
            return incomplete("it ends in its header");
        }
        let number = |at: usize| u32::from_be_bytes([self.header[at], self.header[at + 1], self.header[at + 2], self.header[at + 3]]);
        let page = match u16::from_be_bytes([self.header[16], self.header[17]]) {
            1 => 65536,
            size => u64::from(size),
        };
        if !page.is_power_of_two() || page < 512 {
            return incomplete("its header makes no sense");
        }
        let wanted = page * u64::from(number(28));
        // Old programs do not keep the number of pages up to date; then the two counters of changes differ.
        if number(28) == 0 || number(24) != number(92) {
            return match self.bytes % page {
                0 => unknown("its header does not say how long it must be"),
                _ => incomplete("it ends in the middle of a page"),
            };
        }
        match self.bytes.cmp(&wanted) {
            std::cmp::Ordering::Less => incomplete(format!("it has {} bytes and not {wanted}", self.bytes)),
            std::cmp::Ordering::Equal => complete(),
            std::cmp::Ordering::Greater => unknown("it is longer than its header says"),
        }
    }
}

impl Parser for Sqlite {
    fn feed(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        let room = HEADER_BYTES - self.header.len();
        self.header.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn finish(&mut self) -> Dump {
        self.judge()
    }
}
