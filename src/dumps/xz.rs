//! xz: streams of blocks of LZMA2, an index and a footer. Its pieces say how long they are, so they are followed without unpacking;
//! checksums of headers, index and footer are verified, and that the index says what was there.

use super::bytes::{Gather, little, skip};
use super::checksum::{self, Digest32};
use super::{Parser, complete, incomplete};
use crate::format::dump::Dump;

const MAGIC: &[u8] = b"\xfd7zXZ\x00";

#[derive(Default)]
pub struct Xz {
    state: State,
    gather: Gather,
    flags: [u8; 2],
    /// Bytes of the checksum behind each block.
    check_bytes: u64,
    /// Of the block: header and LZMA2 data.
    block_bytes: u64,
    blocks: u64,
    index: Option<Digest32>,
    index_bytes: u64,
    varint: u64,
    varint_shift: u32,
    numbers_left: u64,
    streams: u64,
}

#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    Header,
    /// A block's header begins with its length, the index with a zero.
    BlockOrIndex,
    BlockHeader(usize),
    Control,
    Chunk(u64),
    BlockEnd(u64),
    IndexCount,
    IndexNumber,
    IndexEnd(usize),
    Footer,
    /// Behind a stream: padding of four zeros, or another stream.
    Between,
    Broken(&'static str),
}

const NO_BLOCK: State = State::Broken("it is damaged: where a block should begin there is none");

fn crc32(bytes: &[u8]) -> u64 {
    let mut crc = checksum::plain();
    crc.update(bytes);
    u64::from(crc.finalize())
}

impl Xz {
    fn step(&mut self, input: &mut &[u8]) -> Option<State> {
        Some(match self.state {
            State::Header => {
                let bytes = self.gather.take(12, input)?;
                self.header(&bytes)
            }
            State::BlockOrIndex => match self.gather.take(1, input)?[0] {
                0 => {
                    let mut crc = checksum::plain();
                    crc.update(&[0]);
                    (self.index, self.index_bytes) = (Some(crc), 1);
                    State::IndexCount
                }
                len => {
                    self.gather.fill(1, &mut &[len][..]);
                    State::BlockHeader((usize::from(len) + 1) * 4)
                }
            },
            State::BlockHeader(len) => {
                let bytes = self.gather.take(len, input)?;
                self.block_bytes = len as u64;
                match crc32(&bytes[..len - 4]) == little(&bytes[len - 4..]) {
                    true => State::Control,
                    false => NO_BLOCK,
                }
            }
            State::Control => self.control(input)?,
            State::Chunk(mut left) => match skip(&mut left, input) {
                true => State::Control,
                false => State::Chunk(left),
            },
            State::BlockEnd(mut left) => match skip(&mut left, input) {
                true => State::BlockOrIndex,
                false => State::BlockEnd(left),
            },
            State::IndexCount => {
                let count = self.varint(input)?;
                self.numbers_left = count.saturating_mul(2);
                match count == self.blocks {
                    true => self.index_goes_on(),
                    false => State::Broken("its index does not fit its blocks"),
                }
            }
            State::IndexNumber => {
                self.varint(input)?;
                self.numbers_left -= 1;
                self.index_goes_on()
            }
            State::IndexEnd(padding) => {
                let bytes = self.gather.take(padding + 4, input)?;
                let mut crc = self.index.take()?;
                crc.update(&bytes[..padding]);
                self.index_bytes += bytes.len() as u64;
                match u64::from(crc.finalize()) == little(&bytes[padding..]) {
                    true => State::Footer,
                    false => State::Broken("its index does not fit its checksum"),
                }
            }
            State::Footer => {
                let bytes = self.gather.take(12, input)?;
                let backward = (little(&bytes[4..8]) + 1) * 4;
                let fits = crc32(&bytes[4..10]) == little(&bytes[..4]) && backward == self.index_bytes && bytes[8..10] == self.flags;
                self.streams += 1;
                match fits && bytes.ends_with(b"YZ") {
                    true => State::Between,
                    false => State::Broken("its last bytes are not those of an xz file"),
                }
            }
            State::Between => {
                let bytes = self.gather.take(4, input)?;
                match bytes[..] {
                    [0, 0, 0, 0] => State::Between,
                    _ if MAGIC.starts_with(&bytes) => {
                        self.gather.fill(4, &mut &bytes[..]);
                        self.blocks = 0;
                        State::Header
                    }
                    _ => State::Broken("something follows its end"),
                }
            }
            State::Broken(_) => {
                *input = &[];
                return None;
            }
        })
    }

    fn header(&mut self, bytes: &[u8]) -> State {
        let flags = [bytes[6], bytes[7]];
        if !bytes.starts_with(MAGIC) || flags[0] != 0 || flags[1] > 15 || crc32(&flags) != little(&bytes[8..]) {
            return State::Broken("its header makes no sense");
        }
        self.flags = flags;
        self.check_bytes = [0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64][usize::from(flags[1])];
        State::BlockOrIndex
    }

    /// What begins a piece of LZMA2: the end of the block, bytes as they are, or compressed ones.
    fn control(&mut self, input: &mut &[u8]) -> Option<State> {
        let control = match self.gather.bytes().first() {
            Some(control) => *control,
            None => *input.first()?,
        };
        let len = match control {
            0 => 1,
            1 | 2 => 3,
            3..=0x7f => return Some(NO_BLOCK),
            0x80..=0xbf => 5,
            _ => 6,
        };
        let bytes = self.gather.take(len, input)?;
        let big = |at: usize| u64::from(bytes[at]) << 8 | u64::from(bytes[at + 1]);
        let chunk = match control {
            0 => {
                self.blocks += 1;
                let padding = (self.block_bytes + 1).next_multiple_of(4) - (self.block_bytes + 1);
                return Some(State::BlockEnd(padding + self.check_bytes));
            }
            1 | 2 => big(1) + 1,
            _ => big(3) + 1,
        };
        self.block_bytes += len as u64 + chunk;
        Some(State::Chunk(chunk))
    }

    /// A number of the index.
    fn varint(&mut self, input: &mut &[u8]) -> Option<u64> {
        while let Some((byte, rest)) = input.split_first() {
            *input = rest;
            if let Some(crc) = &mut self.index {
                crc.update(&[*byte]);
            }
            self.index_bytes += 1;
            self.varint |= u64::from(byte & 0x7f).checked_shl(self.varint_shift).unwrap_or(0);
            self.varint_shift += 7;
            if byte & 0x80 == 0 || self.varint_shift > 63 {
                self.varint_shift = 0;
                return Some(std::mem::take(&mut self.varint));
            }
        }
        None
    }

    fn index_goes_on(&self) -> State {
        match self.numbers_left {
            0 => State::IndexEnd((self.index_bytes.next_multiple_of(4) - self.index_bytes) as usize),
            _ => State::IndexNumber,
        }
    }
}

impl Parser for Xz {
    fn feed(&mut self, bytes: &[u8]) {
        let mut input = bytes;
        while !input.is_empty() {
            if let Some(state) = self.step(&mut input) {
                self.state = state;
            }
        }
        if let State::BlockEnd(0) = self.state {
            self.state = State::BlockOrIndex;
        }
    }

    fn finish(&mut self) -> Dump {
        let judged = match self.state {
            State::Between if self.gather.is_empty() => complete(),
            State::Broken(why) => incomplete(why),
            _ => incomplete("it ends before the xz stream does"),
        };
        Dump { compression: "xz".into(), ..judged }
    }
}
