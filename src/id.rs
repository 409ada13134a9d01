//! The identities of stored things: fixed-width bytes, shown in lower-case hex.
//!
//! A type a kind of id, so that none can stand in for another. What the bytes mean is said in `docs/FORMAT.md`.

use std::fmt;
use std::str::FromStr;

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Full lower-case hex.
            pub fn hex(&self) -> String {
                text(&digits(&self.0)).into()
            }

            /// The first eight hex digits, for people.
            pub fn short(&self) -> String {
                text(&digits(&self.0)[..4]).into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(text(&digits(&self.0)))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(text(&digits(&self.0)[..4]))
            }
        }

        impl FromStr for $name {
            type Err = NotHex;

            fn from_str(text: &str) -> Result<Self, NotHex> {
                parse_hex(text).map(Self)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id_type!(
    /// A chunk: keyed BLAKE3 of its plain bytes, cut to 128 bits.
    ChunkId,
    16
);
id_type!(
    /// A frame: keyed BLAKE3-256 of its chunk table.
    FrameId,
    32
);
id_type!(
    /// A stored object: unkeyed BLAKE3-256 of its bytes as stored, which is also its file name.
    ObjectName,
    32
);
id_type!(
    /// A repository: random, made at `init`, never changed.
    RepositoryId,
    16
);
id_type!(
    /// A key slot: random, also its file name.
    SlotId,
    16
);
id_type!(
    /// Plain BLAKE3-256 of a file's or stream's bytes, as `b3sum` prints it.
    ContentHash,
    32
);

/// The snapshot id is the name of its object.
pub type SnapshotId = ObjectName;

/// A text that is not the hex form of an id.
#[derive(Debug, thiserror::Error)]
#[error("Not {expected} lower-case hex digits")]
pub struct NotHex {
    expected: usize,
}

impl ObjectName {
    /// The name of an object with these stored bytes.
    pub fn of(stored: &[u8]) -> Self {
        if stored.len() >= 1 << 20 {
            let mut hasher = blake3::Hasher::new();
            hasher.update_rayon(stored);
            Self(*hasher.finalize().as_bytes())
        } else {
            Self(*blake3::hash(stored).as_bytes())
        }
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// What each byte is worth as a digit; 16 if it is none.
const VALUES: [u8; 256] = {
    let mut values = [16; 256];
    let mut value = 0;
    while value < 16 {
        values[DIGITS[value] as usize] = value as u8;
        value += 1;
    }
    values
};

/// The hex digits of each byte. Every file of a store is named so, and every listing read: it must cost nothing.
fn digits<const LEN: usize>(bytes: &[u8; LEN]) -> [[u8; 2]; LEN] {
    let mut digits = [[0; 2]; LEN];
    for (pair, byte) in digits.iter_mut().zip(bytes) {
        *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    }
    digits
}

fn text(digits: &[[u8; 2]]) -> &str {
    std::str::from_utf8(digits.as_flattened()).expect("digits are text")
}

fn parse_hex<const LEN: usize>(text: &str) -> Result<[u8; LEN], NotHex> {
    let mut bytes = [0; LEN];
    let mut is_hex = text.len() == LEN * 2;
    for (byte, [high, low]) in bytes.iter_mut().zip(text.as_bytes().as_chunks().0) {
        let (high, low) = (VALUES[usize::from(*high)], VALUES[usize::from(*low)]);
        is_hex &= high < 16 && low < 16;
        *byte = high << 4 | low;
    }
    is_hex.then_some(bytes).ok_or(NotHex { expected: LEN * 2 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_refuses_everything_else() {
        let id = ChunkId(*b"0123456789abcdef");
        assert_eq!(id.hex().parse::<ChunkId>().unwrap(), id);
        let id = ChunkId(std::array::from_fn(|at| at as u8 * 0x11));
        assert_eq!((id.hex(), id.short()), ("00112233445566778899aabbccddeeff".into(), "00112233".into()));
        assert_eq!((id.to_string(), "00112233445566778899aabbccddeeff".parse().unwrap()), (id.hex(), id));
        for wrong in ["", "00", &"g".repeat(32), &"A".repeat(32), &"é".repeat(16)] {
            assert!(wrong.parse::<ChunkId>().is_err(), "{wrong}");
        }
    }
}
