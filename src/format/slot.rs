//! Key slots: the master key, sealed under a password or a key file; and what is said of them.
//!
//! ```text
//!   0  magic "SNAP", version u16, kind u8 = 2
//!   7  method      u8      1 = password (Argon2id), 2 = key file
//!   8  repository  16
//!  24  slot        16
//!  40  memory KiB, passes, lanes   u32 each; 0 for a key file
//!  52  salt        32
//!  84  nonce       24
//! 108  length u16, sealed bytes (the master key, then a JSON note; with its tag)
//!      commitment  32      keyed BLAKE3 of all bytes before it, checked before the box is opened
//! ```

use super::codec::{Reader, Write};
use super::envelope::{Kind, decode_start, encode_start};
use super::{FormatError, Result, from_json, to_json};
use crate::id::{RepositoryId, SlotId};
use crate::limits::*;

/// How a slot's key is made from the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Argon2id of a password (RFC 9106).
    Password { memory_kib: u32, passes: u32, lanes: u32 },
    /// The contents of a key file, not stretched.
    KeyFile,
}

/// A key slot as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    pub method: Method,
    pub repository: RepositoryId,
    pub id: SlotId,
    pub salt: [u8; 32],
    pub nonce: [u8; 24],
    pub sealed: Vec<u8>,
    pub commitment: [u8; 32],
}

impl Slot {
    /// All bytes up to the nonce: the associated data of the box.
    pub fn encode_header(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256);
        encode_start(&mut bytes, Kind::KeySlot);
        let (method, numbers) = match self.method {
            Method::Password { memory_kib, passes, lanes } => (1, [memory_kib, passes, lanes]),
            Method::KeyFile => (2, [0; 3]),
        };
        bytes.put_u8(method);
        bytes.put_bytes(&self.repository.0);
        bytes.put_bytes(&self.id.0);
        for number in numbers {
            bytes.put_u32(number);
        }
        bytes.put_bytes(&self.salt);
        bytes
    }

    /// All bytes before the commitment: what it commits to.
    pub fn encode_committed(&self) -> Vec<u8> {
        let mut bytes = self.encode_header();
        bytes.put_bytes(&self.nonce);
        bytes.put_u16(self.sealed.len() as u16);
        bytes.put_bytes(&self.sealed);
        bytes
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.encode_committed();
        bytes.put_bytes(&self.commitment);
        bytes
    }

    /// Parses a slot and refuses stretching beyond the limits.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        if decode_start(&mut reader)?.1 != Kind::KeySlot {
            return Err(reader.malformed("kind of object"));
        }
        let method = reader.u8("method of a key slot")?;
        let repository = RepositoryId(reader.array("repository id")?);
        let id = SlotId(reader.array("slot id")?);
        let numbers = (reader.u32("memory")?, reader.u32("passes")?, reader.u32("lanes")?);
        let method = match (method, numbers) {
            (1, (memory_kib, passes, lanes)) => {
                let fine = (ARGON2_MEMORY_KIB_MIN..=ARGON2_MEMORY_KIB_MAX).contains(&memory_kib)
                    && (1..=ARGON2_PASSES_MAX).contains(&passes)
                    && (1..=ARGON2_LANES_MAX).contains(&lanes);
                if !fine {
                    return Err(reader.malformed("stretching parameters beyond the limits"));
                }
                Method::Password { memory_kib, passes, lanes }
            }
            (2, (0, 0, 0)) => Method::KeyFile,
            (2, _) => return Err(reader.malformed("stretching parameters of a key file")),
            (other, _) => return Err(FormatError::Unknown { what: "method of a key slot", value: other.into() }),
        };
        let salt = reader.array("salt")?;
        let nonce = reader.array("nonce")?;
        let len = reader.u16("length of the sealed key")?;
        let sealed = reader.bytes(len.into(), "sealed key")?.to_vec();
        let commitment = reader.array("commitment")?;
        reader.finish()?;
        Ok(Self { method, repository, id, salt, nonce, sealed, commitment })
    }
}

/// What is said of a slot: inside its box, where only its own secret shows it, and in a note beside it for all others.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SlotNote {
    #[serde(default)]
    pub label: String,
    #[serde(default)]
    pub created: jiff::Timestamp,
    /// Who made it and where, as `user@host`.
    #[serde(default)]
    pub by: String,
}

/// The note beside a slot. It names its slot, so that none can be put beside another.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KeyNote {
    pub slot: SlotId,
    #[serde(flatten)]
    pub note: SlotNote,
}

impl KeyNote {
    pub fn encode(&self) -> Vec<u8> {
        to_json(self)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        from_json(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_round_trip_and_bombs_are_refused() {
        let slot = |memory_kib| Slot {
            method: Method::Password { memory_kib, passes: 3, lanes: 4 },
            repository: RepositoryId([1; 16]),
            id: SlotId([2; 16]),
            salt: [3; 32],
            nonce: [4; 24],
            sealed: vec![5; 80],
            commitment: [6; 32],
        };
        let bytes = slot(256 << 10).encode();
        assert_eq!(Slot::decode(&bytes).unwrap(), slot(256 << 10));
        for len in 0..bytes.len() {
            assert!(Slot::decode(&bytes[..len]).is_err());
        }
        assert!(Slot::decode(&slot(ARGON2_MEMORY_KIB_MAX).encode()).is_ok());
        for memory_kib in [0, 1, ARGON2_MEMORY_KIB_MAX + 1, 4 << 20, u32::MAX] {
            assert!(Slot::decode(&slot(memory_kib).encode()).is_err());
        }
        for (passes, lanes) in [(0, 1), (17, 1), (u32::MAX, 1), (1, 0), (1, 17), (1, 1 << 24)] {
            let method = Method::Password { memory_kib: 256 << 10, passes, lanes };
            assert!(Slot::decode(&Slot { method, ..slot(0) }.encode()).is_err(), "{passes} {lanes}");
        }
    }

    #[test]
    fn notes_of_any_version_can_be_read() {
        let note = KeyNote { slot: SlotId([1; 16]), note: SlotNote { label: "laptop".into(), ..SlotNote::default() } };
        assert_eq!(KeyNote::decode(&note.encode()).unwrap(), note);
        let newer = format!(r#"{{"slot":"{}","colour":"blue"}}"#, note.slot);
        assert_eq!(KeyNote::decode(newer.as_bytes()).unwrap().note, SlotNote::default());
        assert!(KeyNote::decode(b"{}").is_err());
    }
}
