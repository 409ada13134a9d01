//! Reports: what was done and how it went, for status, audit and evidence. Sealed, as JSON.
//!
//! Nothing is ever decided about deletion by a report, so one of a kind this build does not know is passed over. Fields are only
//! ever added.

use std::collections::BTreeMap;

use super::{FormatError, Result, from_json, to_json};
use crate::id::{ObjectName, SnapshotId};
use crate::wording::PROGRAM;

/// One report.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Report {
    /// When it began.
    pub time: jiff::Timestamp,
    /// How long it took.
    pub seconds: f64,
    pub host: String,
    #[serde(default)]
    pub user: String,
    /// The program that wrote it.
    #[serde(default)]
    pub program: String,
    pub outcome: Outcome,
    /// What went wrong, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The exit code that stands for it.
    #[serde(default)]
    pub exit_code: u8,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    pub did: Did,
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Good,
    /// Something was saved or found, and not all of it is as it should be.
    Partial,
    Failed,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Did {
    Run(Run),
    Drill(Drill),
    Check(Check),
    Prune(Prune),
}

/// One run of a job.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Run {
    pub job: String,
    /// What was saved, if anything.
    pub snapshot: Option<SnapshotId>,
    pub streams: Vec<Stream>,
    /// Plain bytes of the snapshot.
    pub bytes: u64,
    /// Bytes it added to the store.
    pub bytes_stored: u64,
    /// Steps in the order they were taken: `before`, `backup`, `verify`, `forget`, `prune`, `notify`.
    pub steps: Vec<Step>,
    /// Snapshots that were forgotten, and bytes freed.
    pub forgotten: u64,
    pub bytes_freed: u64,
}

/// A stream, or the files, of a run.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Stream {
    pub name: String,
    pub bytes: u64,
    pub seconds: f64,
    /// What its format says, as in the snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dump: Option<serde_json::Value>,
    /// The end of what its command said on standard error.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub said: String,
}

/// A step of a run or drill.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Step {
    pub name: String,
    pub seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A restore that was tried out.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Drill {
    pub job: String,
    pub snapshot: Option<SnapshotId>,
    /// Time of the snapshot.
    pub snapshot_time: Option<jiff::Timestamp>,
    /// Streams and files with their whole-content hashes.
    pub contents: Vec<DrilledContent>,
    pub bytes: u64,
    pub seconds_to_first_byte: f64,
    /// Until the restored data answered.
    pub seconds_to_ready: f64,
    /// What was allowed.
    pub seconds_allowed: Option<f64>,
    pub steps: Vec<Step>,
    pub checks: Vec<DrillCheck>,
}

/// What was restored in a drill.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct DrilledContent {
    pub path: String,
    pub bytes: u64,
    /// BLAKE3, hex.
    pub hash: String,
}

/// A question to restored data.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct DrillCheck {
    pub name: String,
    pub asked: String,
    pub expected: String,
    pub answer: String,
    pub passed: bool,
}

/// A check, and what it read: the ledger of what was verified when.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Check {
    /// Packs that were read whole and found good.
    pub packs: PackNames,
    /// Every pack there was is among them.
    pub whole: bool,
    pub bytes_read: u64,
    /// Damage that was found.
    pub damaged: u64,
    /// Packs that were read and found damaged. Who reads no data does not see that again.
    #[serde(skip_serializing_if = "PackNames::is_empty")]
    pub hurt: PackNames,
}

/// Packs by the first twelve digits of their names, so that thousands of them are a small report and a quick one to read.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct PackNames(String);

impl PackNames {
    const DIGITS: usize = 12;

    pub fn of<'a>(names: impl IntoIterator<Item = &'a ObjectName>) -> Self {
        Self(names.into_iter().map(|name| name.hex()[..Self::DIGITS].to_owned()).collect())
    }

    /// What a pack goes by here.
    pub fn key(name: &ObjectName) -> u64 {
        name.0[..Self::DIGITS / 2].iter().fold(0, |key, byte| key << 8 | u64::from(*byte))
    }

    /// The packs. What is no name is left out.
    pub fn keys(&self) -> impl Iterator<Item = u64> {
        let digits = self.0.as_bytes().chunks_exact(Self::DIGITS);
        digits.filter_map(|digits| u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok())
    }

    pub fn len(&self) -> usize {
        self.0.len() / Self::DIGITS
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A clean-up.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Prune {
    pub packs_deleted: u64,
    pub bytes_freed: u64,
    pub bytes_moved: u64,
}

impl Report {
    /// A report of something that went well, as far as is known.
    pub fn new(time: jiff::Timestamp, host: String, user: String, did: Did) -> Self {
        let (outcome, program) = (Outcome::Good, PROGRAM.into());
        Self { time, seconds: 0.0, host, user, program, outcome, error: None, exit_code: 0, warnings: Vec::new(), did }
    }

    pub fn encode(&self) -> Vec<u8> {
        to_json(self)
    }

    /// Parses a report. One of a kind this build does not know is an error of its own.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        #[derive(serde::Deserialize)]
        struct Tag {
            did: BTreeMap<String, serde::de::IgnoredAny>,
        }
        from_json(bytes).or_else(|error| {
            let tag: Tag = from_json(bytes)?;
            let known = |kind: &String| matches!(kind.as_str(), "run" | "drill" | "check" | "prune");
            match tag.did.into_keys().find(|kind| !known(kind)) {
                Some(kind) => Err(FormatError::Newer(format!("report of a {kind}"))),
                None => Err(error),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_come_back_and_unknown_kinds_are_told_apart() {
        let run = Run { job: "orders".into(), bytes: 7, ..Run::default() };
        let report = Report {
            time: "2026-11-21T02:00:00Z".parse().unwrap(),
            seconds: 1.5,
            host: "h".into(),
            user: String::new(),
            program: String::new(),
            outcome: Outcome::Failed,
            error: Some("pg_dump exited with code 1".into()),
            exit_code: 4,
            warnings: Vec::new(),
            did: Did::Run(run),
        };
        assert_eq!(Report::decode(&report.encode()).unwrap(), report);
        let text = String::from_utf8(report.encode()).unwrap();
        assert!(matches!(Report::decode(text.replace("\"run\":", "\"dance\":").as_bytes()), Err(FormatError::Newer(_))));
        let more = text.replace("\"job\":", "\"later\":[1],\"job\":");
        assert_eq!(Report::decode(more.as_bytes()).unwrap(), report);
        assert!(Report::decode(b"{}").is_err());
    }

    #[test]
    fn checks_that_found_no_pack_hurt_are_written_as_they_always_were() {
        let mut check = Check { packs: PackNames::of(&[ObjectName([1; 32])]), ..Check::default() };
        let text = r#"{"packs":"010101010101","whole":false,"bytes_read":0,"damaged":0}"#;
        assert_eq!((serde_json::to_string(&check).unwrap().as_str(), serde_json::from_str(text).ok()), (text, Some(check.clone())));
        check.hurt = PackNames::of(&[ObjectName([2; 32])]);
        let text = text.replace("}", r#","hurt":"020202020202"}"#);
        assert_eq!((serde_json::to_string(&check).unwrap(), serde_json::from_str(&text).ok()), (text.clone(), Some(check)));
    }

    #[test]
    fn packs_are_known_by_the_beginnings_of_their_names() {
        let names = [ObjectName([0x01; 32]), ObjectName([0xfe; 32])];
        let packs = PackNames::of(&names);
        assert_eq!(serde_json::to_string(&packs).unwrap(), "\"010101010101fefefefefefe\"");
        assert_eq!((packs.len(), packs.keys().collect::<Vec<_>>()), (2, names.iter().map(PackNames::key).collect()));
        for odd in ["", "0101", "x10101010101", "ü1010101010é"] {
            assert_eq!(PackNames(odd.into()).keys().count(), 0, "{odd}");
        }
    }
}
