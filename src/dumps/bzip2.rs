//! bzip2: a stream of bits, at whose end stand a magic number of 48 bits and a checksum, at any bit; then up to seven zeros.

use super::bytes::Tail;
use super::{Parser, complete, incomplete};
use crate::format::dump::Dump;

const END_MAGIC: u128 = 0x1772_4538_5090;
const MAGIC_BITS: u32 = 48;
const CHECKSUM_BITS: u32 = 32;

pub struct Bzip2 {
    tail: Tail,
}

impl Default for Bzip2 {
    fn default() -> Self {
        Self { tail: Tail::new(11) }
    }
}

impl Parser for Bzip2 {
    fn feed(&mut self, bytes: &[u8]) {
        self.tail.push(bytes);
    }

    fn finish(&mut self) -> Dump {
        let tail = self.tail.get();
        let bits = tail.iter().fold(0u128, |bits, byte| bits << 8 | u128::from(*byte));
        let ends = |padding: u32| {
            let rest = bits >> padding;
            rest << padding == bits && (rest >> CHECKSUM_BITS) & ((1 << MAGIC_BITS) - 1) == END_MAGIC
        };
        let judged = match (0..8).any(ends) {
            true => complete(),
            false => incomplete("the mark at its end is missing"),
        };
        Dump { compression: "bzip2".into(), ..judged }
    }
}
