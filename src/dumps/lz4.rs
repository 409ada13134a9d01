//! LZ4 frames: blocks that begin with their length, and a length of zero at the end. They are followed and not unpacked.

use super::bytes::{Gather, little, skip};
use super::{Parser, complete, incomplete, unknown};
use crate::format::dump::Dump;

const MAGIC: u64 = 0x184d_2204;
const SKIPPABLE: std::ops::RangeInclusive<u64> = 0x184d_2a50..=0x184d_2a5f;

#[derive(Default)]
pub struct Lz4 {
    state: State,
    gather: Gather,
    block_checksum: u64,
    content_checksum: u64,
    frames: u64,
}

#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    Magic,
    SkipLength,
    Flags,
    /// Bytes of the header that do not matter here.
    Header(u64),
    BlockLength,
    Block(u64),
    Checksum(u64),
    Skip(u64),
    Broken,
    NotKnown,
}

impl Lz4 {
    fn take(&mut self, len: usize, input: &mut &[u8]) -> Option<u64> {
        self.gather.fill(len, input).then_some(())?;
        let value = little(self.gather.bytes());
        self.gather.clear();
        Some(value)
    }

    fn frame_ended(&mut self) -> State {
        self.frames += 1;
        State::Magic
    }

    fn step(&mut self, input: &mut &[u8]) -> Option<State> {
        Some(match self.state {
            State::Magic => match self.take(4, input)? {
                MAGIC => State::Flags,
                magic if SKIPPABLE.contains(&magic) => State::SkipLength,
                _ => State::Broken,
            },
            State::SkipLength => State::Skip(self.take(4, input)?),
            State::Flags => {
                let flags = self.take(2, input)? & 0xff;
                if flags >> 6 != 1 {
                    return Some(State::NotKnown);
                }
                let checksum = |bit: u64| if flags & bit != 0 { 4 } else { 0 };
                self.block_checksum = checksum(0x10);
                self.content_checksum = checksum(4);
                // The content's length, a dictionary's number, the header's checksum.
                State::Header(if flags & 8 != 0 { 8 } else { 0 } + checksum(1) + 1)
            }
            State::Header(mut left) => match skip(&mut left, input) {
                true => State::BlockLength,
                false => State::Header(left),
            },
            State::BlockLength => match self.take(4, input)? & 0x7fff_ffff {
                0 if self.content_checksum > 0 => State::Checksum(self.content_checksum),
                0 => self.frame_ended(),
                len if len > 4 << 20 => State::Broken,
                len => State::Block(len + self.block_checksum),
            },
            State::Block(mut left) => match skip(&mut left, input) {
                true => State::BlockLength,
                false => State::Block(left),
            },
            State::Checksum(mut left) => match skip(&mut left, input) {
                true => self.frame_ended(),
                false => State::Checksum(left),
            },
            State::Skip(mut left) => match left == 0 || skip(&mut left, input) {
                true => State::Magic,
                false => State::Skip(left),
            },
            State::Broken | State::NotKnown => {
                *input = &[];
                return None;
            }
        })
    }
}

impl Parser for Lz4 {
    fn feed(&mut self, bytes: &[u8]) {
        let mut input = bytes;
        while !input.is_empty() {
            if let Some(state) = self.step(&mut input) {
                self.state = state;
            }
        }
        if let State::Skip(0) = self.state {
            self.state = State::Magic;
        }
    }

    fn finish(&mut self) -> Dump {
        let judged = match self.state {
            State::Magic if self.frames > 0 && self.gather.is_empty() => complete(),
            State::Broken => incomplete("it is damaged: where a frame or block should begin there is none"),
            State::NotKnown => unknown("it is of a version that is not known here"),
            _ => incomplete("it ends in the middle of an LZ4 frame"),
        };
        Dump { compression: "lz4".into(), ..judged }
    }
}
