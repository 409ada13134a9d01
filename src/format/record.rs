//! Records of what was removed and by whom: sealed, as JSON, told apart by their `record` field.

use super::{FormatError, Result, from_json, to_json};
use crate::id::{ObjectName, SnapshotId};

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "record", rename_all = "lowercase")]
pub enum Record {
    /// Packs that a collector is about to delete; writers count their chunks as absent.
    Condemned {
        time: jiff::Timestamp,
        host: String,
        /// The collection this list belongs to.
        epoch: u64,
        packs: Vec<ObjectName>,
    },
    /// A collection ended; the highest number is the repository's epoch.
    Epoch { time: jiff::Timestamp, host: String, epoch: u64 },
    /// Snapshots that were removed on purpose.
    Forget { time: jiff::Timestamp, host: String, snapshots: Vec<SnapshotId>, reason: String },
}

impl Record {
    pub fn encode(&self) -> Vec<u8> {
        to_json(self)
    }

    /// Parses a record. One of a kind this build does not know is an error of its own: deleting code must stop at it.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        #[derive(serde::Deserialize)]
        struct Tag {
            record: String,
        }
        let tag: Tag = from_json(bytes)?;
        match tag.record.as_str() {
            "condemned" | "epoch" | "forget" => from_json(bytes),
            _ => Err(FormatError::Newer(format!("record {}", tag.record))),
        }
    }
}
