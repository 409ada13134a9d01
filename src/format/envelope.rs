//! The clear header of every sealed object, and the associated data that binds a box to its place.
//!
//! ```text
//!  0  magic      "SNAP"
//!  4  version    u16      2 for packs and segments, 1 for all else, and for old packs and segments
//!  6  kind       u8
//!  7  suite      u8        1 = XChaCha20-Poly1305 under a process's sub-key
//!  8  repository 16 bytes
//! 24  key length u16       suite 1: 32
//! 26  key block            suite 1: the 32-byte salt of the sub-key
//! ```
//!
//! Suite 2 (a random key sealed to a recipient, RFC 9180) is reserved: it fits the same header with a longer key block.

use super::codec::{Reader, Write};
use super::{FormatError, Result};
use crate::id::RepositoryId;
use crate::limits::{FORMAT_VERSION, LIST_VERSION};

const MAGIC: &[u8; 4] = b"SNAP";

/// Length of the header of suite 1.
pub const HEADER_BYTES: usize = 26 + 32;

/// What a stored object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    Manifest = 1,
    KeySlot = 2,
    /// A pack of frames of files and streams.
    DataPack = 3,
    /// A pack of frames of catalogs and long recipes.
    CatalogPack = 4,
    Segment = 5,
    Snapshot = 6,
    /// A condemned list, epoch or forget record.
    Record = 7,
    /// What is said of a key slot.
    KeyNote = 8,
    /// What was done and how it went.
    Report = 9,
}

impl Kind {
    pub fn from_byte(byte: u8) -> Result<Self> {
        Ok(match byte {
            1 => Self::Manifest,
            2 => Self::KeySlot,
            3 => Self::DataPack,
            4 => Self::CatalogPack,
            5 => Self::Segment,
            6 => Self::Snapshot,
            7 => Self::Record,
            8 => Self::KeyNote,
            9 => Self::Report,
            _ => return Err(FormatError::Unknown { what: "kind of object", value: byte.into() }),
        })
    }

    /// The newest format version of such an object, which is the one that is written.
    pub fn version(self) -> u16 {
        match self {
            Self::DataPack | Self::CatalogPack | Self::Segment => LIST_VERSION,
            _ => FORMAT_VERSION,
        }
    }
}

/// A parsed header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The format version of what follows.
    pub version: u16,
    pub kind: Kind,
    pub repository: RepositoryId,
    pub salt: [u8; 32],
}

impl Header {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.put_bytes(MAGIC);
        bytes.put_u16(self.version);
        bytes.put_u8(self.kind as u8);
        bytes.put_u8(1);
        bytes.put_bytes(&self.repository.0);
        bytes.put_u16(32);
        bytes.put_bytes(&self.salt);
        bytes
    }

    /// Parses a header and leaves the reader behind it.
    pub fn decode(reader: &mut Reader) -> Result<Self> {
        let (version, kind) = decode_start(reader)?;
        let suite = reader.u8("suite")?;
        let repository = RepositoryId(reader.array("repository id")?);
        let key_len = usize::from(reader.u16("length of the key block")?);
        if suite != 1 {
            return Err(FormatError::Unknown { what: "sealing suite", value: suite.into() });
        }
        if key_len != 32 {
            return Err(reader.malformed("length of the key block"));
        }
        Ok(Self { version, kind, repository, salt: reader.array("salt")? })
    }
}

/// Magic, version and kind: what every stored object begins with, key slots too.
pub fn decode_start(reader: &mut Reader) -> Result<(u16, Kind)> {
    if reader.bytes(4, "magic")? != MAGIC {
        return Err(FormatError::Malformed { what: "not an object of a snap repository", at: 0 });
    }
    let version = reader.u16("format version")?;
    let unknown = FormatError::Unknown { what: "format version", value: version.into() };
    if version == 0 {
        return Err(reader.malformed("format version"));
    }
    if version > LIST_VERSION {
        return Err(unknown);
    }
    let kind = Kind::from_byte(reader.u8("kind of object")?)?;
    if version > kind.version() { Err(unknown) } else { Ok((version, kind)) }
}

/// The start of a key slot's bytes.
pub fn encode_start(bytes: &mut Vec<u8>, kind: Kind) {
    bytes.put_bytes(MAGIC);
    bytes.put_u16(kind.version());
    bytes.put_u8(kind as u8);
}

/// Associated data of the one box of a manifest, segment, snapshot or record: its whole header.
pub fn object_associated_data(header: &Header) -> Vec<u8> {
    [b"snap1 object", &header.encode()[..]].concat()
}

/// Associated data of a pack's footer: its header, and where the footer lies.
pub fn footer_associated_data(header: &Header, frames_end: u64) -> Vec<u8> {
    let mut bytes = b"snap1 footer".to_vec();
    bytes.put_bytes(&header.encode());
    bytes.put_u64(frames_end);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trips_and_refuses_other_versions() {
        let header = |version, kind| Header { version, kind, repository: RepositoryId([7; 16]), salt: [9; 32] };
        let known = [(1, Kind::Snapshot), (1, Kind::DataPack), (2, Kind::DataPack), (2, Kind::CatalogPack), (2, Kind::Segment)];
        for header in known.map(|(version, kind)| header(version, kind)) {
            let bytes = header.encode();
            assert_eq!(bytes.len(), HEADER_BYTES);
            assert_eq!(Header::decode(&mut Reader::new(&bytes)).unwrap(), header);
        }
        for newer in [(2, Kind::Snapshot), (2, Kind::Manifest), (3, Kind::DataPack), (3, Kind::Segment)] {
            let bytes = header(newer.0, newer.1).encode();
            assert!(matches!(Header::decode(&mut Reader::new(&bytes)), Err(FormatError::Unknown { .. })));
        }
        let bytes = header(1, Kind::Snapshot).encode();
        let mut suite2 = bytes.clone();
        suite2[7] = 2;
        assert!(matches!(Header::decode(&mut Reader::new(&suite2)), Err(FormatError::Unknown { .. })));
        for len in 0..bytes.len() {
            assert!(Header::decode(&mut Reader::new(&bytes[..len])).is_err());
        }
    }
}
