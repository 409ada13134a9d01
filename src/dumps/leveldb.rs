//! LevelDB logs, in which Firestore and Datastore exports keep their documents and what belongs to an export.
//!
//! Blocks of 32 KiB hold records: a masked CRC-32C, a length, a kind (whole, first, middle, last), bytes. What is left of a block that
//! has no room for a header is zeros. A log that was cut between two records looks whole; which files belong to an export is said by its
//! metadata, whose records name them.

use std::collections::HashSet;

use super::bytes::{Gather, Search, little, skip};
use super::checksum::{self, Digest32};
use super::pg_archive::Wanted;
use super::{Parser, complete, incomplete, unknown};
use crate::format::dump::Dump;
use crate::limits::*;

const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;

pub struct LevelDbLog {
    state: State,
    gather: Gather,
    /// Bytes left in the block.
    room: usize,
    /// A record has begun and not ended.
    is_open: bool,
    records: u64,
    /// Names of outputs, in metadata.
    names: Option<Names>,
}

enum State {
    Header,
    Data { left: u64, kind: u8, wanted: u32, crc: Digest32 },
    Trailer(u64),
    Broken(&'static str),
}

/// Looks for `output-` and a number.
struct Names {
    search: Search,
    digits: Option<String>,
    found: HashSet<String>,
    /// There are more than are kept track of.
    is_full: bool,
    /// Those that were found, by number, known at the end.
    wanted: Vec<Wanted>,
}

/// Digits of a number that a file may be called by.
const DIGITS_MAX: usize = 20;

impl LevelDbLog {
    /// `lists_outputs`: whether this is metadata, whose records name the files of an export.
    pub fn new(lists_outputs: bool) -> Self {
        let names = lists_outputs.then(|| Names {
            search: Search::new(b"output-", b""),
            digits: None,
            found: HashSet::new(),
            is_full: false,
            wanted: Vec::new(),
        });
        Self { state: State::Header, gather: Gather::default(), room: BLOCK_BYTES, is_open: false, records: 0, names }
    }

    fn header(&mut self) -> State {
        let bytes = self.gather.bytes();
        let (stored, len, kind) = (little(&bytes[..4]), little(&bytes[4..6]), bytes[6]);
        self.room -= HEADER_BYTES;
        if len as usize > self.room || !(1..=4).contains(&kind) {
            return State::Broken("it is damaged: where a record should begin there is none");
        }
        // Whole and first ones begin a record, middle and last ones go on with it.
        if self.is_open == (kind <= 2) {
            return State::Broken("a record in it lacks its beginning or its end");
        }
        self.is_open = kind == 2 || kind == 3;
        let mut crc = checksum::castagnoli();
        crc.update(&[kind]);
        let unmasked = (stored as u32).wrapping_sub(0xa282_ead8).rotate_left(15);
        State::Data { left: len, kind, wanted: unmasked, crc }
    }

    fn step(&mut self, input: &mut &[u8]) -> Option<State> {
        match &mut self.state {
            State::Header if self.room < HEADER_BYTES => Some(State::Trailer(self.room as u64)),
            State::Header => {
                self.gather.fill(HEADER_BYTES, input).then_some(())?;
                let next = self.header();
                self.gather.clear();
                match next {
                    State::Data { left: 0, kind, wanted, crc } => Some(self.ended(kind, wanted, crc)),
                    next => Some(next),
                }
            }
            State::Data { left, kind, wanted, crc } => {
                let before = *input;
                let is_over = skip(left, input);
                let seen = &before[..before.len() - input.len()];
                crc.update(seen);
                self.room -= seen.len();
                if let Some(names) = &mut self.names {
                    names.look(seen);
                }
                let (kind, wanted, crc) = (*kind, *wanted, crc.clone());
                is_over.then(|| self.ended(kind, wanted, crc))
            }
            State::Trailer(left) => {
                let before = *input;
                let is_over = skip(left, input);
                let seen = &before[..before.len() - input.len()];
                if seen.iter().any(|byte| *byte != 0) {
                    return Some(State::Broken("it is damaged: where a block ends there are no zeros"));
                }
                is_over.then(|| {
                    self.room = BLOCK_BYTES;
                    State::Header
                })
            }
            State::Broken(_) => {
                *input = &[];
                None
            }
        }
    }

    fn ended(&mut self, kind: u8, wanted: u32, crc: Digest32) -> State {
        self.records += u64::from(kind == 1 || kind == 4);
        if let Some(names) = self.names.as_mut().filter(|_| !self.is_open) {
            names.record_ended();
        }
        if crc.finalize() != wanted {
            return State::Broken("a record in it does not fit its checksum");
        }
        State::Header
    }
}

impl Names {
    fn look(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            if let Some(digits) = &mut self.digits {
                let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                let room = DIGITS_MAX.saturating_sub(digits.len());
                digits.extend(rest[..count].iter().take(room).map(|byte| char::from(*byte)));
                rest = &rest[count..];
                if !rest.is_empty() {
                    self.record_ended();
                }
                continue;
            }
            let Some(end) = self.search.find(rest) else { return };
            self.digits = Some(String::new());
            rest = &rest[end..];
        }
    }

    fn record_ended(&mut self) {
        self.search = Search::new(b"output-", b"");
        let Some(digits) = self.digits.take() else { return };
        let name = format!("output-{digits}");
        if digits.is_empty() || self.found.contains(&name) {
            return;
        }
        match self.found.len() < DUMP_PARTS_MAX {
            true => drop(self.found.insert(name)),
            false => self.is_full = true,
        }
    }

    fn list(&mut self) {
        let mut names: Vec<String> = self.found.drain().collect();
        names.sort_unstable_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
        self.wanted = names.into_iter().map(|name| Wanted { name, table: String::new() }).collect();
    }
}

impl Parser for LevelDbLog {
    fn feed(&mut self, bytes: &[u8]) {
        let mut input = bytes;
        while !input.is_empty() {
            if let Some(state) = self.step(&mut input) {
                self.state = state;
            }
        }
    }

    fn finish(&mut self) -> Dump {
        if let Some(names) = &mut self.names {
            names.list();
        }
        let is_full = self.names.as_ref().is_some_and(|names| names.is_full);
        let judged = match &self.state {
            State::Broken(why) => incomplete(*why),
            State::Data { .. } => incomplete("it ends in the middle of a record"),
            State::Header if !self.gather.is_empty() || self.is_open => incomplete("it ends in the middle of a record"),
            _ if is_full => unknown("it names more outputs than are kept track of"),
            // The rest of a block may be left out at the end.
            State::Header | State::Trailer(_) => complete(),
        };
        Dump { rows: self.names.is_none().then_some(self.records), ..judged }
    }

    fn wanted(&self) -> Option<&[Wanted]> {
        self.names.as_ref().map(|names| &names.wanted[..])
    }
}
