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
                self.0.iter().map(|byte| format!("{byte:02x}")).collect()
            }

            /// The first eight hex digits, for people.
            pub fn short(&self) -> String {
                self.0[..4].iter().map(|byte| format!("{byte:02x}")).collect()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.short())
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

fn parse_hex<const LEN: usize>(text: &str) -> Result<[u8; LEN], NotHex> {
    let wrong = || NotHex { expected: LEN * 2 };
    let digits = text.as_bytes();
    if digits.len() != LEN * 2 {
        return Err(wrong());
    }
    let mut bytes = [0u8; LEN];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |d: u8| match d {
            b'0'..=b'9' => Ok(d - b'0'),
            b'a'..=b'f' => Ok(d - b'a' + 10),
            _ => Err(wrong()),
        };
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_refuses_everything_else() {
        let id = ChunkId(*b"0123456789abcdef");
        assert_eq!(id.hex().parse::<ChunkId>().unwrap(), id);
        for wrong in ["", "00", &"g".repeat(32), &"A".repeat(32), &"é".repeat(16)] {
            assert!(wrong.parse::<ChunkId>().is_err(), "{wrong}");
        }
    }
}
