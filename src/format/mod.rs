//! Stored things as bytes: pure functions between bytes and structs.
//!
//! No I/O and no panic on any input; every length is checked before it is believed or allocated.
//! One file for each stored thing, each with a fuzz target. `docs/FORMAT.md` is the byte-exact description.

pub mod codec;
pub mod content;
pub mod dump;
pub mod entry;
pub mod envelope;
pub mod frame;
pub mod list;
pub mod manifest;
pub mod pack;
pub mod recipe;
pub mod record;
pub mod report;
pub mod segment;
pub mod slot;
pub mod snapshot;

/// Bytes that are not what the format says, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The bytes break a rule of the format.
    #[error("{what} at byte {at}")]
    Malformed { what: &'static str, at: usize },
    /// The bytes may be right, but this build does not know how to read them.
    #[error("{what} {value} is not known to this version")]
    Unknown { what: &'static str, value: u64 },
    /// The document is sound, but uses something this build does not know.
    #[error("{0} is not known to this version")]
    Newer(String),
    /// A JSON document does not have the fields it must have.
    #[error("{0}")]
    Json(String),
}

impl FormatError {
    /// As an error about a stored object.
    pub fn of(self, what: impl ToString) -> crate::error::Error {
        use crate::error::Error;
        match self {
            Self::Unknown { .. } | Self::Newer(_) => Error::Unsupported { what: what.to_string(), why: self.to_string() },
            _ => Error::damaged(what, self),
        }
    }
}

/// What the format functions return.
pub type Result<T> = std::result::Result<T, FormatError>;

pub(crate) fn from_json<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| FormatError::Json(error.to_string()))
}

pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("structs with string keys always serialize")
}
