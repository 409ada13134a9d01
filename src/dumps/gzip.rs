//! gzip: members, one after the other, each a deflated stream with CRC-32 and length behind it. What is in it is judged, too.

use flate2::{Decompress, FlushDecompress, Status};

use super::bytes::{Gather, little};
use super::checksum::{self, Digest32};
use super::{Inside, Judge, Parser, incomplete, unknown};
use crate::format::dump::Dump;

const OUTPUT_BYTES: usize = 64 << 10;
const HAS_CRC: u8 = 2;
const HAS_EXTRA: u8 = 4;
const HAS_NAME: u8 = 8;
const HAS_COMMENT: u8 = 16;

pub struct Gzip {
    state: State,
    gather: Gather,
    inflate: Decompress,
    output: Vec<u8>,
    crc: Digest32,
    len: u64,
    members: u64,
    inside: Inside,
}

#[derive(Clone, Copy)]
enum State {
    Header,
    /// What of the optional parts is still to come.
    ExtraLength(u8),
    Extra(u8, u16),
    Text(u8),
    HeaderCrc,
    Data,
    Trailer,
    /// Zeros behind the last member.
    Zeros,
    More,
    Broken(&'static str),
}

impl Gzip {
    pub fn new(judge: Judge) -> Self {
        Self {
            state: State::Header,
            gather: Gather::default(),
            inflate: Decompress::new(false),
            output: vec![0; OUTPUT_BYTES],
            crc: checksum::plain(),
            len: 0,
            members: 0,
            inside: Inside::new(judge),
        }
    }

    /// The next optional part of a header.
    fn optional(flags: u8) -> State {
        match flags {
            _ if flags & HAS_EXTRA != 0 => State::ExtraLength(flags & !HAS_EXTRA),
            _ if flags & HAS_NAME != 0 => State::Text(flags & !HAS_NAME),
            _ if flags & HAS_COMMENT != 0 => State::Text(flags & !HAS_COMMENT),
            _ if flags & HAS_CRC != 0 => State::HeaderCrc,
            _ => State::Data,
        }
    }

    fn step(&mut self, input: &mut &[u8]) -> Option<State> {
        match self.state {
            State::Header if self.gather.is_empty() && self.members > 0 && input[0] == 0 => Some(State::Zeros),
            State::Header => {
                let bytes = self.gather.take(10, input)?;
                match bytes[..3] == [0x1f, 0x8b, 8] && bytes[3] & 0xe0 == 0 {
                    true => Some(Self::optional(bytes[3])),
                    false if self.members > 0 => Some(State::More),
                    false => Some(State::Broken("its header makes no sense")),
                }
            }
            State::ExtraLength(flags) => {
                let bytes = self.gather.take(2, input)?;
                Some(State::Extra(flags, little(&bytes) as u16))
            }
            State::Extra(flags, len) => {
                self.gather.take(usize::from(len), input)?;
                Some(Self::optional(flags))
            }
            State::Text(flags) => {
                let end = memchr::memchr(0, input);
                *input = &input[end.map_or(input.len(), |at| at + 1)..];
                end.map(|_| Self::optional(flags))
            }
            State::HeaderCrc => self.gather.take(2, input).map(|_| State::Data),
            State::Data => self.inflate(input),
            State::Trailer => {
                let bytes = self.gather.take(8, input)?;
                let fits = little(&bytes[..4]) == u64::from(self.crc.clone().finalize()) && little(&bytes[4..]) == self.len & 0xffff_ffff;
                self.members += 1;
                self.inflate.reset(false);
                self.crc = checksum::plain();
                self.len = 0;
                Some(if fits { State::Header } else { State::Broken("what is in it does not fit its checksum") })
            }
            State::Zeros => {
                let is_padding = input.iter().all(|byte| *byte == 0);
                *input = &[];
                (!is_padding).then_some(State::More)
            }
            State::More | State::Broken(_) => {
                *input = &[];
                None
            }
        }
    }

    fn inflate(&mut self, input: &mut &[u8]) -> Option<State> {
        let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
        let status = self.inflate.decompress(input, &mut self.output, FlushDecompress::None);
        let read = (self.inflate.total_in() - read) as usize;
        let written = (self.inflate.total_out() - written) as usize;
        *input = &input[read..];
        let bytes = &self.output[..written];
        self.crc.update(bytes);
        self.len += written as u64;
        self.inside.feed(bytes);
        match status {
            Ok(Status::StreamEnd) => Some(State::Trailer),
            Err(_) => Some(State::Broken("it is damaged and cannot be unpacked")),
            Ok(_) if read == 0 && written == 0 && !input.is_empty() => Some(State::Broken("it is damaged and cannot be unpacked")),
            Ok(_) => None,
        }
    }
}

impl Parser for Gzip {
    fn feed(&mut self, bytes: &[u8]) {
        let mut input = bytes;
        while !input.is_empty() {
            if let Some(state) = self.step(&mut input) {
                self.state = state;
            }
        }
        // Optional parts without bytes, and what is unpacked already but had no room.
        while let State::Extra(flags, 0) = self.state {
            self.state = Self::optional(flags);
        }
    }

    fn finish(&mut self) -> Dump {
        // What had no room in the output before.
        while let State::Data = self.state {
            let before = self.inflate.total_out();
            if let Some(state) = self.inflate(&mut &[][..]) {
                self.state = state;
            }
            if self.inflate.total_out() == before {
                break;
            }
        }
        match self.state {
            State::Header if self.members > 0 && self.gather.is_empty() => self.inside.finish("gzip"),
            State::Zeros => self.inside.finish("gzip"),
            State::More => self.inside.doubt("gzip", unknown("something follows its end")),
            State::Broken(why) => self.inside.doubt("gzip", incomplete(why)),
            _ => self.inside.doubt("gzip", incomplete("it ends before the gzip stream does")),
        }
    }
}
