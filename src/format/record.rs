//! Records of what was removed and by whom: sealed, as JSON, told apart by their `record` field.

use super::{FormatError, Result, from_json, to_json};
use crate::id::{ObjectName, SnapshotId};

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "record", rename_all = "lowercase")]
pub enum Record {
    /// Packs that a collector is about to delete; writers count their chunks as absent.
    Condemned(Condemned),
    /// A collection ended; the highest number is the repository's epoch.
    Epoch(Epoch),
    /// Snapshots that were removed on purpose.
    Forget { time: jiff::Timestamp, host: String, snapshots: Vec<SnapshotId>, reason: String },
}

/// A list of packs to be deleted.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Condemned {
    pub time: jiff::Timestamp,
    pub host: String,
    /// The collection this list belongs to.
    pub epoch: u64,
    pub packs: Vec<ObjectName>,
    /// Nothing takes these packs back any more: what of them is needed is copied before they are deleted.
    #[serde(default, rename = "final", skip_serializing_if = "std::ops::Not::not")]
    pub is_final: bool,
    /// The index segments there were: a pack in none of them came later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<ObjectName>,
}

/// The end of a collection.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Epoch {
    pub time: jiff::Timestamp,
    pub host: String,
    pub epoch: u64,
    /// The snapshots there were: one that is missing later must have been forgotten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<SnapshotId>,
}

impl Record {
    /// The snapshots that it says were removed on purpose.
    pub fn forgotten(&self) -> &[SnapshotId] {
        match self {
            Self::Forget { snapshots, .. } => snapshots,
            Self::Condemned(_) | Self::Epoch(_) => &[],
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = r#"{"record":"condemned","time":"2026-11-21T00:00:00Z","host":"h","epoch":3,"packs":[]}"#;

    /// What version 0.1.0 wrote reads, and what it does not know is left out where it says nothing.
    #[test]
    fn members_came_later() {
        let Ok(Record::Condemned(old)) = Record::decode(OLD.as_bytes()) else { panic!("it reads") };
        assert!(!old.is_final && old.segments.is_empty());
        assert_eq!(Record::Condemned(old.clone()).encode(), OLD.as_bytes());
        let doomed = Record::Condemned(Condemned { is_final: true, segments: vec![ObjectName([7; 32])], ..old });
        let text = String::from_utf8(doomed.encode()).unwrap();
        assert!(text.contains(r#""final":true,"segments":["0707"#), "{text}");
        assert_eq!(Record::decode(text.as_bytes()).unwrap(), doomed);
    }

    #[test]
    fn other_kinds_are_newer_and_not_damaged() {
        assert!(matches!(Record::decode(br#"{"record":"lease"}"#), Err(FormatError::Newer(_))));
        assert!(matches!(Record::decode(br#"{"record":"epoch"}"#), Err(FormatError::Json(_))));
    }
}
