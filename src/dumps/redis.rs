//! A Redis database file (RDB).
//!
//! A whole one ends with opcode 255 and the CRC-64 of everything before it. A server that sends its file without storing it first
//! (`redis-cli --rdb` from a diskless master) writes a random mark of 40 bytes behind that. Where the server's checksums are switched
//! off there are zeros in its place, and nothing tells: values may look like that too.

use super::bytes::{Tables, little, text};
use super::checksum::{self, Digest64};
use super::{Parser, complete, incomplete, unknown};
use crate::format::dump::Dump;
use crate::limits::*;

const MARK_BYTES: usize = 40;
const CRC_BYTES: usize = 8;
/// What may not be hashed until more comes: the opcode is hashed, checksum and mark are not.
const HELD_BYTES: usize = 1 + CRC_BYTES + MARK_BYTES;

pub struct Redis {
    head: Vec<u8>,
    /// Of all but the bytes held.
    crc: Digest64,
    /// The last bytes.
    held: Vec<u8>,
}

impl Default for Redis {
    fn default() -> Self {
        let crc = checksum::redis();
        Self { head: Vec::new(), crc, held: Vec::new() }
    }
}

impl Redis {
    fn judge(&self) -> Dump {
        let end = &self.held;
        let version: u32 =
            std::str::from_utf8(self.head.get(5..9).unwrap_or_default()).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        if version < 5 {
            return unknown("files of this old version have no checksum");
        }
        for mark in [0, MARK_BYTES] {
            let Some(at) = end.len().checked_sub(mark + CRC_BYTES).filter(|at| *at > 0) else { continue };
            let is_mark = end[at + CRC_BYTES..].iter().all(u8::is_ascii_hexdigit);
            let mut crc = self.crc.clone();
            crc.update(&end[..at]);
            let stored = little(&end[at..at + CRC_BYTES]);
            if end[at - 1] == 0xff && is_mark && stored == crc.finalize() {
                return complete();
            }
            if end[at - 1] == 0xff && is_mark && stored == 0 {
                return unknown("its checksum is switched off (rdbchecksum no)");
            }
        }
        incomplete("the checksum at its end is missing or does not fit")
    }

    /// The server's version, and the number of keys of the first database.
    fn describe(&self) -> (String, Tables) {
        let (mut version, mut tables) = (String::new(), Tables::default());
        let mut rest = self.head.get(9..).unwrap_or_default();
        while let [opcode @ (0xf5 | 0xfa), after @ ..] = rest {
            let Some((name, after)) = string(after) else { return (version, tables) };
            // A library of functions is one string; whatever else is said of the file has a name and a value.
            if *opcode == 0xf5 {
                rest = after;
                continue;
            }
            let Some((value, after)) = string(after) else { return (version, tables) };
            if name == b"redis-ver" || name == b"valkey-ver" {
                version = text(value);
            }
            rest = after;
        }
        if let [0xfe, after @ ..] = rest
            && let Some((database, [0xfb, after @ ..])) = length(after)
            && let Some((keys, _)) = length(after)
        {
            tables.add(&format!("db{database}"), Some(keys));
        }
        (version, tables)
    }
}

/// A length in its 6-, 14-, 32- or 64-bit form, and what follows it.
fn length(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let number = |len: usize| rest.split_at_checked(len).map(|(bytes, rest)| (bytes.iter().fold(0, |v, b| v << 8 | u64::from(*b)), rest));
    match first >> 6 {
        0 => Some((u64::from(first & 63), rest)),
        1 => rest.split_first().map(|(low, rest)| (u64::from(first & 63) << 8 | u64::from(*low), rest)),
        2 if *first == 0x80 => number(4),
        2 if *first == 0x81 => number(8),
        _ => None,
    }
}

/// A string's bytes as they are stored (perhaps compressed), or those of a small number in its place, and what follows.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    match bytes.first()? {
        0xc0 => bytes[1..].split_at_checked(1),
        0xc1 => bytes[1..].split_at_checked(2),
        0xc2 => bytes[1..].split_at_checked(4),
        0xc3 => {
            let (packed, rest) = length(&bytes[1..])?;
            let (_, rest) = length(rest)?;
            rest.split_at_checked(usize::try_from(packed).ok()?)
        }
        _ => {
            let (len, rest) = length(bytes)?;
            rest.split_at_checked(usize::try_from(len).ok()?)
        }
    }
}

impl Parser for Redis {
    fn feed(&mut self, bytes: &[u8]) {
        let room = REDIS_HEAD_BYTES.saturating_sub(self.head.len());
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        // Of what was held and what came, all but the last bytes is hashed.
        let sure = (self.held.len() + bytes.len()).saturating_sub(HELD_BYTES);
        let of_held = sure.min(self.held.len());
        self.crc.update(&self.held[..of_held]);
        self.held.drain(..of_held);
        let of_new = sure - of_held;
        self.crc.update(&bytes[..of_new]);
        self.held.extend_from_slice(&bytes[of_new..]);
    }

    fn finish(&mut self) -> Dump {
        let (server, tables) = self.describe();
        // How many keys further databases have is not at the beginning.
        Dump { producer: "redis".into(), server, table_count: tables.count, tables: tables.list, ..self.judge() }
    }
}
