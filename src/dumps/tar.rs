//! tar files, and those of `pg_dump -Ft` among them.
//!
//! Headers of 512 bytes with a checksum, each followed by its member's bytes, padded; a whole one ends with two blocks of zeros. What
//! `pg_dump` writes begins with `toc.dat`, which lists the other members.

use std::collections::HashSet;

use super::bytes::{Gather, skip};
use super::pg_archive::PgArchive;
use super::{Parser, complete, incomplete, unknown};
use crate::format::dump::Dump;
use crate::limits::*;

const BLOCK_BYTES: usize = 512;
/// Bytes of an extended header that are looked at.
const EXTENDED_BYTES_MAX: usize = 64 << 10;

#[derive(Default)]
pub struct Tar {
    state: State,
    gather: Gather,
    /// The next member's size, from an extended header before it.
    size_ahead: Option<u64>,
    members: u64,
    contents: Option<PgArchive>,
    /// Names of members, where `toc.dat` says which there must be.
    names: HashSet<Vec<u8>>,
    ended: bool,
}

#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    Header,
    /// Further blocks of an old sparse file's map.
    SparseMap {
        size: u64,
    },
    Extended {
        left: u64,
        padding: u64,
    },
    Data {
        left: u64,
        padding: u64,
        is_contents: bool,
    },
    Padding(u64),
    /// One block of zeros was there.
    Ending,
    Broken,
    /// Something follows the end.
    More,
}

impl Tar {
    fn header(&mut self) -> State {
        let block = self.gather.bytes();
        if block.iter().all(|byte| *byte == 0) {
            return State::Ending;
        }
        let sum: u64 = block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) }).sum();
        let (Some(wanted), Some(size)) = (number(&block[148..156]), number(&block[124..136])) else { return State::Broken };
        if sum != wanted {
            return State::Broken;
        }
        let kind = block[156];
        let padding = |size: u64| size.next_multiple_of(BLOCK_BYTES as u64) - size;
        match kind {
            b'x' if size <= EXTENDED_BYTES_MAX as u64 => return State::Extended { left: size, padding: padding(size) },
            // Names for the next member, and what applies to all of them.
            b'g' | b'x' | b'L' | b'K' | b'X' => return data(size, false),
            _ => {}
        }
        self.members += 1;
        let size = match self.size_ahead.take() {
            Some(size) => size,
            // Links, devices, folders and the like have no bytes whatever their header says.
            None if matches!(kind, b'1'..=b'6') => 0,
            None => size,
        };
        if kind == b'S' && block[482] != 0 {
            return State::SparseMap { size };
        }
        let name = block[..100].split(|byte| *byte == 0).next().unwrap_or_default();
        let is_contents = self.members == 1 && name == b"toc.dat";
        if is_contents {
            self.contents = Some(PgArchive::default());
        } else if self.contents.is_some() && self.names.len() < DUMP_PARTS_MAX {
            self.names.insert(name.to_vec());
        }
        data(size, is_contents)
    }

    fn step(&mut self, input: &mut &[u8]) {
        self.state = match self.state {
            State::Header | State::Ending | State::SparseMap { .. } => {
                if !self.gather.fill(BLOCK_BYTES, input) {
                    return;
                }
                let next = match self.state {
                    State::SparseMap { size } if self.gather.bytes()[504] != 0 => State::SparseMap { size },
                    State::SparseMap { size } => data(size, false),
                    state => match (self.header(), state, self.ended) {
                        (State::Ending, State::Ending, _) => {
                            self.ended = true;
                            State::Ending
                        }
                        (_, _, true) => State::More,
                        // A lone block of zeros is no end.
                        (State::Ending, ..) => State::Ending,
                        (_, State::Ending, _) => State::Broken,
                        (next, ..) => next,
                    },
                };
                self.gather.clear();
                next
            }
            State::Extended { left, padding } => {
                if !self.gather.fill(left as usize, input) {
                    return;
                }
                self.size_ahead = extended_size(self.gather.bytes()).or(self.size_ahead);
                self.gather.clear();
                State::Padding(padding)
            }
            State::Data { mut left, padding, is_contents } => {
                let before = *input;
                let is_over = skip(&mut left, input);
                if let Some(contents) = self.contents.as_mut().filter(|_| is_contents) {
                    contents.feed(&before[..before.len() - input.len()]);
                }
                if is_over { State::Padding(padding) } else { State::Data { left, padding, is_contents } }
            }
            State::Padding(mut left) => match skip(&mut left, input) {
                true => State::Header,
                false => State::Padding(left),
            },
            state @ (State::Broken | State::More) => {
                *input = &[];
                state
            }
        };
    }

    fn judge(&self, missing: usize) -> Dump {
        match self.state {
            State::Broken => incomplete("it is damaged: where a member should begin there is none"),
            _ if !self.ended => incomplete("the two empty blocks at its end are missing"),
            State::More => unknown("something follows its end"),
            _ if missing > 0 => incomplete(format!("{missing} of the files that toc.dat lists are missing")),
            _ => complete(),
        }
    }
}

fn data(size: u64, is_contents: bool) -> State {
    let padding = size.checked_next_multiple_of(BLOCK_BYTES as u64).map(|whole| whole - size);
    padding.map_or(State::Broken, |padding| State::Data { left: size, padding, is_contents })
}

/// An octal number, or, with the first bit set, one to the base of 256.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let rest = field[1..].iter().try_fold(u64::from(field[0] & 0x3f), |value, byte| Some(value.checked_mul(256)? | u64::from(*byte)));
        return rest.filter(|value| *value < 1 << 62);
    }
    let digits = field.split(|byte| *byte == 0).next().unwrap_or_default().trim_ascii();
    digits.iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// The member's size in an extended header: records like `18 size=123456789\n`.
fn extended_size(records: &[u8]) -> Option<u64> {
    let mut rest = records;
    loop {
        let blank = rest.iter().position(|byte| *byte == b' ')?;
        let len: usize = std::str::from_utf8(&rest[..blank]).ok()?.parse().ok()?;
        let (record, after) = rest.split_at_checked(len.max(blank + 1))?;
        if let Some(size) = record[blank + 1..].strip_prefix(b"size=") {
            return std::str::from_utf8(size.trim_ascii_end()).ok()?.parse().ok().filter(|size| *size < 1 << 62);
        }
        rest = after;
    }
}

impl Parser for Tar {
    fn feed(&mut self, bytes: &[u8]) {
        let mut input = bytes;
        while !input.is_empty() {
            self.step(&mut input);
        }
        // Members and padding without bytes end without input.
        while matches!(self.state, State::Data { left: 0, .. } | State::Padding(0)) {
            self.step(&mut &[][..]);
        }
    }

    fn finish(&mut self) -> Dump {
        let Some(mut contents) = self.contents.take() else { return Dump { format: "tar".into(), ..self.judge(0) } };
        let listed = contents.finish();
        let wanted = contents.wanted().unwrap_or_default();
        let missing = wanted.iter().filter(|file| !self.names.contains(file.name.as_bytes())).count();
        let mut tables = super::bytes::Tables::default();
        wanted.iter().filter(|file| !file.table.is_empty()).for_each(|file| tables.add(&file.table, None));
        let judged = match listed.verdict {
            crate::format::dump::Verdict::Complete => self.judge(missing),
            _ => Dump { verdict: listed.verdict, why: listed.why.clone(), ..Dump::default() },
        };
        Dump {
            format: "pg_dump tar".into(),
            table_count: tables.count,
            tables: tables.list,
            compression: String::new(),
            verdict: judged.verdict,
            why: judged.why,
            ..listed
        }
    }
}
