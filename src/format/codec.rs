//! Reading and writing fixed-width little-endian integers, LEB128 varints and byte strings.
//!
//! Every read is checked against what is left. Varints are at most ten bytes and must be minimal,
//! so that a value has one encoding.

use super::{FormatError, Result};

/// Takes fields off the front of a byte slice.
#[derive(Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes taken so far.
    pub fn position(&self) -> usize {
        self.at
    }

    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// An error at the current position.
    pub fn malformed(&self, what: &'static str) -> FormatError {
        FormatError::Malformed { what, at: self.at }
    }

    pub fn bytes(&mut self, len: usize, what: &'static str) -> Result<&'a [u8]> {
        if len > self.remaining() {
            return Err(self.malformed(what));
        }
        let taken = &self.bytes[self.at..self.at + len];
        self.at += len;
        Ok(taken)
    }

    pub fn array<const LEN: usize>(&mut self, what: &'static str) -> Result<[u8; LEN]> {
        let mut array = [0; LEN];
        array.copy_from_slice(self.bytes(LEN, what)?);
        Ok(array)
    }

    pub fn u8(&mut self, what: &'static str) -> Result<u8> {
        Ok(self.array::<1>(what)?[0])
    }

    pub fn u16(&mut self, what: &'static str) -> Result<u16> {
        self.array(what).map(u16::from_le_bytes)
    }

    pub fn u32(&mut self, what: &'static str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, what: &'static str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    pub fn varint(&mut self, what: &'static str) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 || byte == 0 && shift > 0 {
                return Err(self.malformed(what));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.malformed(what))
    }

    /// A zigzag-coded signed varint.
    pub fn signed(&mut self, what: &'static str) -> Result<i64> {
        let value = self.varint(what)?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A varint that must be at most `max`.
    pub fn length(&mut self, max: usize, what: &'static str) -> Result<usize> {
        let value = self.varint(what)?;
        match usize::try_from(value) {
            Ok(len) if len <= max => Ok(len),
            _ => Err(self.malformed(what)),
        }
    }

    /// A count of items that take at least `item_bytes_min` bytes each, so that no count can ask for more memory than its bytes.
    pub fn count(&mut self, item_bytes_min: usize, what: &'static str) -> Result<usize> {
        let max = self.remaining() / item_bytes_min.max(1);
        self.length(max, what)
    }

    /// A length and as many bytes.
    pub fn string(&mut self, max: usize, what: &'static str) -> Result<&'a [u8]> {
        let len = self.length(max, what)?;
        self.bytes(len, what)
    }

    /// Nothing may be left.
    pub fn finish(self) -> Result<()> {
        match self.remaining() {
            0 => Ok(()),
            _ => Err(self.malformed("unexpected bytes")),
        }
    }

    /// All that is left.
    pub fn rest(self) -> &'a [u8] {
        &self.bytes[self.at..]
    }
}

/// Appends fields to a byte vector.
pub trait Write {
    fn put_u8(&mut self, value: u8);
    fn put_u16(&mut self, value: u16);
    fn put_u32(&mut self, value: u32);
    fn put_u64(&mut self, value: u64);
    fn put_varint(&mut self, value: u64);
    fn put_signed(&mut self, value: i64);
    fn put_bytes(&mut self, bytes: &[u8]);
    /// A length and the bytes.
    fn put_string(&mut self, bytes: &[u8]);
}

impl Write for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }

    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }

    fn put_signed(&mut self, value: i64) {
        self.put_varint((value << 1) as u64 ^ (value >> 63) as u64);
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn put_string(&mut self, bytes: &[u8]) {
        self.put_varint(bytes.len() as u64);
        self.put_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_and_have_one_encoding() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            bytes.put_varint(value);
            assert_eq!(Reader::new(&bytes).varint("v").unwrap(), value);
        }
        for value in [0, -1, 1, i64::MIN, i64::MAX] {
            let mut bytes = Vec::new();
            bytes.put_signed(value);
            assert_eq!(Reader::new(&bytes).signed("v").unwrap(), value);
        }
        for wrong in [&[0x80][..], &[0x80, 0], &[0xff; 10], &[0xff; 11], &[]] {
            assert!(Reader::new(wrong).varint("v").is_err(), "{wrong:?}");
        }
    }
}
