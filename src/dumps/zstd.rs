//! Zstandard: frames of blocks, each of which says how long it is and whether it is the last. What is in it is judged, too, as long as
//! that takes no more than a window of 32 MiB.

use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::bytes::{Gather, little, skip};
use super::{Inside, Judge, Parser, incomplete};
use crate::format::dump::Dump;
use crate::limits::*;

const OUTPUT_BYTES: usize = 128 << 10;
const SKIPPABLE: std::ops::RangeInclusive<u64> = 0x184d_2a50..=0x184d_2a5f;
const MAGIC: u64 = 0xfd2f_b528;

pub struct Zstd {
    state: State,
    gather: Gather,
    has_checksum: bool,
    frames: u64,
    unpacker: Option<DCtx<'static>>,
    output: Vec<u8>,
    /// The bytes do not unpack, or not to what their checksum says.
    is_damaged: bool,
    inside: Inside,
}

#[derive(Clone, Copy)]
enum State {
    Magic,
    SkipLength,
    Descriptor,
    Header(usize),
    BlockHeader,
    Block { left: u64, is_last: bool },
    Checksum,
    Skip(u64),
    Broken,
}

impl Zstd {
    pub fn new(judge: Judge) -> Self {
        let mut unpacker = DCtx::try_create();
        if let Some(context) = &mut unpacker {
            // Only to bound memory: what does not unpack is still followed block by block.
            let _ = context.set_parameter(DParameter::WindowLogMax(DUMP_WINDOW_LOG_MAX));
        }
        let mut inside = Inside::new(judge);
        if unpacker.is_none() {
            inside.give_up("there was no memory to unpack it");
        }
        Self {
            state: State::Magic,
            gather: Gather::default(),
            has_checksum: false,
            frames: 0,
            unpacker,
            output: vec![0; OUTPUT_BYTES],
            is_damaged: false,
            inside,
        }
    }

    fn take(&mut self, len: usize, input: &mut &[u8]) -> Option<u64> {
        self.gather.fill(len, input).then_some(())?;
        let value = little(self.gather.bytes());
        self.gather.clear();
        Some(value)
    }

    fn step(&mut self, input: &mut &[u8]) -> Option<State> {
        match self.state {
            State::Magic => Some(match self.take(4, input)? {
                MAGIC => State::Descriptor,
                magic if SKIPPABLE.contains(&magic) => State::SkipLength,
                _ => State::Broken,
            }),
            State::SkipLength => Some(State::Skip(self.take(4, input)?)),
            State::Descriptor => {
                let byte = self.take(1, input)?;
                self.has_checksum = byte & 4 != 0;
                let is_single = byte & 0x20 != 0;
                let size = match byte >> 6 {
                    0 => usize::from(is_single),
                    1 => 2,
                    2 => 4,
                    _ => 8,
                };
                let dictionary = [0, 1, 2, 4][(byte & 3) as usize];
                Some(if byte & 8 != 0 { State::Broken } else { State::Header(size + dictionary + usize::from(!is_single)) })
            }
            State::Header(len) => {
                self.gather.fill(len, input).then_some(())?;
                self.gather.clear();
                Some(State::BlockHeader)
            }
            State::BlockHeader => {
                let header = self.take(3, input)?;
                let size = match (header >> 1) & 3 {
                    1 => 1,
                    3 => return Some(State::Broken),
                    _ => header >> 3,
                };
                Some(self.behind_block(size, header & 1 != 0))
            }
            State::Block { mut left, is_last } => match skip(&mut left, input) {
                true => Some(self.behind_block(0, is_last)),
                false => Some(State::Block { left, is_last }),
            },
            State::Checksum => {
                self.take(4, input)?;
                self.frames += 1;
                Some(State::Magic)
            }
            State::Skip(mut left) => match skip(&mut left, input) {
                true => Some(State::Magic),
                false => Some(State::Skip(left)),
            },
            State::Broken => {
                *input = &[];
                None
            }
        }
    }

    fn behind_block(&mut self, left: u64, is_last: bool) -> State {
        match (left, is_last) {
            (1.., _) => State::Block { left, is_last },
            (0, false) => State::BlockHeader,
            (0, true) if self.has_checksum => State::Checksum,
            (0, true) => {
                self.frames += 1;
                State::Magic
            }
        }
    }

    fn unpack(&mut self, bytes: &[u8]) {
        let Some(context) = &mut self.unpacker else { return };
        let mut input = InBuffer::around(bytes);
        loop {
            let mut output = OutBuffer::around(&mut self.output[..]);
            let result = context.decompress_stream(&mut output, &mut input);
            let written = output.pos();
            self.inside.feed(&self.output[..written]);
            match result {
                Ok(_) if input.pos() < bytes.len() || written == self.output.len() => {}
                Ok(_) => return,
                Err(code) => {
                    // A window that is too large, or a dictionary that is not here, is no damage.
                    let name = zstd_safe::get_error_name(code);
                    let is_beyond_us = ["memory", "ictionary", "upported"].iter().any(|word| name.contains(word));
                    self.is_damaged |= !is_beyond_us;
                    self.inside.give_up(match name.contains("memory") {
                        true => "its window is too large to be unpacked here (more than 32 MiB), so what is in it was not looked at",
                        false => "it needs what is not here to be unpacked (a dictionary), so what is in it was not looked at",
                    });
                    self.unpacker = None;
                    return;
                }
            }
        }
    }
}

impl Parser for Zstd {
    fn feed(&mut self, bytes: &[u8]) {
        self.unpack(bytes);
        let mut input = bytes;
        while !input.is_empty() {
            if let Some(state) = self.step(&mut input) {
                self.state = state;
            }
        }
        while let State::Header(0) | State::Skip(0) = self.state {
            self.state = if let State::Header(0) = self.state { State::BlockHeader } else { State::Magic };
        }
    }

    fn finish(&mut self) -> Dump {
        match self.state {
            State::Magic if self.frames > 0 && self.gather.is_empty() && !self.is_damaged => self.inside.finish("zstd"),
            State::Broken => self.inside.doubt("zstd", incomplete("it is damaged: where a frame or block should begin there is none")),
            _ if self.is_damaged => self.inside.doubt("zstd", incomplete("it is damaged and cannot be unpacked")),
            _ => self.inside.doubt("zstd", incomplete("it ends in the middle of a zstd frame")),
        }
    }
}
