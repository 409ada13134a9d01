//! Snapshots: who, when, what, totals, and the recipes of the catalog and its table of paths; sealed, as JSON.
//!
//! Fields are only ever added. Recipes are hex of their binary form. Paths are shown as text (control characters and invalid UTF-8
//! escaped): the catalog has the exact bytes.

use super::codec::Reader;
use super::dump::{Dump, Verdict};
use super::recipe::Recipe;
use super::{FormatError, Result, from_json, to_json};
use crate::id::SnapshotId;

/// Counts of what a snapshot holds and what it cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Totals {
    pub files: u64,
    pub folders: u64,
    /// Everything else: links, devices, sockets, fifos.
    pub others: u64,
    /// Plain bytes of all files and streams, holes left out.
    pub bytes: u64,
    /// Plain bytes that were new to the repository.
    pub bytes_new: u64,
    /// Bytes this snapshot added to the store: packs and index segments.
    pub bytes_stored: u64,
    pub files_new: u64,
    pub files_changed: u64,
    pub files_unmodified: u64,
    /// Paths that could not be read, or changed while they were read.
    pub flawed: u64,
}

/// What was backed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    #[default]
    Stream,
    Tree,
    /// Streams and trees of a job.
    Job,
    /// A kind that this version does not know; its catalog reads like any other.
    #[serde(other)]
    Other,
}

/// The contents of a snapshot.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Snapshot {
    /// The moment it stands for: when the backup began, unless the user said otherwise.
    pub time: jiff::Timestamp,
    /// When the backup began, by the clock of its host.
    #[serde(default)]
    pub started: Option<jiff::Timestamp>,
    /// How long it took, in seconds.
    #[serde(default)]
    pub seconds: f64,
    pub host: String,
    #[serde(default)]
    pub user: String,
    /// The stream's name, or what the folders share; with the host the group it is compared and kept in.
    pub name: String,
    #[serde(default)]
    pub tags: Vec<String>,
    pub source: SourceKind,
    /// The paths that were asked for.
    #[serde(default)]
    pub paths: Vec<String>,
    #[serde(default)]
    pub parent: Option<SnapshotId>,
    /// The snapshot that this one took the place of, or is a copy of, perhaps from another repository; of several in a row the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<SnapshotId>,
    #[serde(default)]
    pub totals: Totals,
    /// Of a job, what came of each source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// The dumps among what was saved, and whether they are whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dumps: Vec<Dump>,
    /// The program that wrote it.
    #[serde(default)]
    pub program: String,
    pub catalog: RecipeText,
    /// Length of the catalog in bytes.
    pub catalog_len: u64,
    pub path_table: RecipeText,
    /// What a repair cut out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repaired: Option<Repaired>,
}

/// One source of a job, in the order of its configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Part {
    /// Of the stream, or the paths of files and folders with blanks between.
    pub name: String,
    pub bytes: u64,
    pub files: u64,
    /// What was expected of it and is not so, in sentences without a full stop.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unmet: Vec<String>,
}

impl Part {
    /// Whether the dump is this stream, or one of the streams of this database. An old dump in a folder is neither: paths of files and
    /// folders begin with a slash.
    pub fn gives(&self, dump: &Dump) -> bool {
        let is_below = |path: &str| path.strip_prefix(&self.name).is_some_and(|rest| rest.starts_with('/'));
        self.name.trim_start_matches('/') == dump.path || is_below(&dump.path)
    }
}

/// The bytes of a snapshot from which a repair cut something: all that `snapshot` says of what is left, and everything else as it
/// was, also what this version does not know.
pub fn with_repair(bytes: &[u8], snapshot: &Snapshot) -> Result<Vec<u8>> {
    let members = |bytes: &[u8]| from_json::<serde_json::Map<String, serde_json::Value>>(bytes);
    let mut repaired = members(bytes)?;
    let mut left = members(&snapshot.encode())?;
    for name in ["totals", "program", "catalog", "catalog_len", "path_table", "repaired"] {
        repaired.extend(left.remove_entry(name));
    }
    Ok(to_json(&repaired))
}

/// What a repair cut out of the snapshot that this one stands for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Repaired {
    pub original: crate::id::SnapshotId,
    pub time: jiff::Timestamp,
    #[serde(default)]
    pub lost: Vec<LostPath>,
    /// Lost paths that are not named.
    #[serde(default)]
    pub more: u64,
}

/// A path that lost something. For people: escaped, and empty where even the name is lost.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LostPath {
    pub path: String,
    /// Offset and length of lost bytes.
    #[serde(default)]
    pub ranges: Vec<(u64, u64)>,
    /// Lost ranges that are not named.
    #[serde(default)]
    pub more: u64,
}

impl Snapshot {
    pub fn encode(&self) -> Vec<u8> {
        to_json(self)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        from_json(bytes)
    }

    /// When the backup began.
    pub fn started(&self) -> jiff::Timestamp {
        self.started.unwrap_or(self.time)
    }

    /// Why a file in it has no content.
    pub fn why_empty(&self) -> &'static str {
        match self.repaired {
            Some(_) => "its bytes are lost, or could not be read when the backup was made; what a repair saved is in NAME.damaged",
            None => "it could not be read when the backup was made",
        }
    }

    /// Whether all sources could be read and are as was expected, and no dump among them is known to be incomplete.
    pub fn is_complete(&self) -> bool {
        self.totals.flawed == 0 && self.is_as_expected() && !self.has_incomplete_dump()
    }

    /// Whether no source lacks what was expected of it.
    pub fn is_as_expected(&self) -> bool {
        self.parts.iter().all(|part| part.unmet.is_empty())
    }

    /// Whether a dump in it lacks something that a whole one has.
    pub fn has_incomplete_dump(&self) -> bool {
        self.dumps.iter().any(|dump| dump.verdict == Verdict::Incomplete)
    }

    /// Whether it may stand for the newest state of its source: not if it is, or has in it, a stream that is known to be incomplete, or
    /// lacks what was expected of it. A tree stays good, because one broken dump in it, perhaps an old one, says nothing of the other
    /// files.
    pub fn is_good(&self) -> bool {
        let is_stream = |dump: &Dump| match self.source {
            SourceKind::Tree => false,
            SourceKind::Job => self.parts.iter().any(|part| part.gives(dump)),
            _ => true,
        };
        self.is_as_expected() && !self.dumps.iter().any(|dump| dump.verdict == Verdict::Incomplete && is_stream(dump))
    }
}

/// The bytes of a snapshot with other tags. Everything else stays as it is, also what this version does not know.
///
/// `original` is noted, unless the snapshot took the place of another already.
pub fn with_tags(bytes: &[u8], tags: &[String], original: SnapshotId) -> Result<Vec<u8>> {
    let mut value: serde_json::Value = from_json(bytes)?;
    let members = value.as_object_mut().ok_or_else(|| FormatError::Json("a snapshot is no JSON object".into()))?;
    members.insert("tags".into(), tags.into());
    members.entry("original").or_insert_with(|| original.hex().into());
    let bytes = to_json(&value);
    Snapshot::decode(&bytes).map(|_| bytes)
}

/// What of a snapshot is its own in the repository that a copy goes to.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Substitute {
    pub parent: Option<SnapshotId>,
    pub original: SnapshotId,
    pub totals: Totals,
    pub catalog: RecipeText,
    pub catalog_len: u64,
    pub path_table: RecipeText,
}

impl Substitute {
    /// The body of a snapshot with these members in it; all others stay as they are, those that this version does not know too.
    pub fn into_body(&self, body: &[u8]) -> Result<Vec<u8>> {
        let mut value: serde_json::Value = from_json(body)?;
        let not_ours = || FormatError::Json("a snapshot is no JSON object".into());
        let members = value.as_object_mut().ok_or_else(not_ours)?;
        let own: serde_json::Value = from_json(&to_json(self))?;
        for (name, new) in own.as_object().ok_or_else(not_ours)? {
            match (members.get_mut(name), new) {
                // Totals that a later version counts are kept.
                (Some(serde_json::Value::Object(old)), serde_json::Value::Object(new)) => old.extend(new.clone()),
                _ => drop(members.insert(name.clone(), new.clone())),
            }
        }
        let body = to_json(&value);
        Snapshot::decode(&body).map(|_| body)
    }
}

/// A recipe inside JSON: hex of its binary form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecipeText(pub Recipe);

impl serde::Serialize for RecipeText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        self.0.encode(&mut bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&hex)
    }
}

impl<'de> serde::Deserialize<'de> for RecipeText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        use serde::de::Error;
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let digits = text.as_bytes();
        if digits.len() % 2 != 0 {
            return Err(D::Error::custom("a recipe is not hex"));
        }
        let digit = |digit: u8| (digit as char).to_digit(16).map(|value| value as u8);
        let pairs = digits.as_chunks().0.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?));
        let bytes: Vec<u8> = pairs.collect::<Option<_>>().ok_or_else(|| D::Error::custom("a recipe is not hex"))?;
        let mut reader = Reader::new(&bytes);
        let recipe = Recipe::decode(&mut reader).map_err(D::Error::custom)?;
        reader.finish().map_err(D::Error::custom)?;
        Ok(Self(recipe))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ObjectName;

    #[test]
    fn a_repair_leaves_what_it_does_not_know() {
        let before = br#"{"time":"2026-11-21T02:00:00.123456789Z","host":"h","name":"n","source":"later","tags":["a"],"catalog":"000000",
            "catalog_len":7,"path_table":"000000","totals":{"files":1},"unknown":{"x":[1,null]}}"#;
        let mut snapshot = Snapshot::decode(before).unwrap();
        assert_eq!(snapshot.repaired, None);
        snapshot.catalog_len = 5;
        snapshot.host = "not this".into();
        let lost = vec![LostPath { path: "db".into(), ranges: vec![(1, 2)], more: 0 }];
        let repaired = Repaired { original: ObjectName([1; 32]), time: snapshot.time, lost, more: 3 };
        snapshot.repaired = Some(repaired.clone());
        let after = with_repair(before, &snapshot).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&after).unwrap();
        assert_eq!((&value["source"], &value["unknown"]["x"][0], &value["host"]), (&"later".into(), &1.into(), &"h".into()));
        let after = Snapshot::decode(&after).unwrap();
        assert_eq!((after.catalog_len, after.repaired), (5, Some(repaired)));
    }

    #[test]
    fn an_incomplete_stream_is_not_good_and_an_old_dump_among_files_is() {
        let dump = |path: &str, verdict| Dump { path: path.into(), verdict, ..Dump::default() };
        let is_good = |name: &str, path: &str| {
            let mut snapshot = Snapshot::decode(
                br#"{"time":"2026-11-21T02:00:00Z","host":"h","name":"n","source":"job","catalog":"000000","catalog_len":0,
                "path_table":"000000"}"#,
            )
            .unwrap();
            snapshot.parts = vec![Part { name: name.into(), ..Part::default() }];
            snapshot.dumps = vec![dump("orders/1-schema.sql", Verdict::Complete), dump(path, Verdict::Incomplete)];
            snapshot.is_good()
        };
        assert!(!is_good("orders", "orders"));
        assert!(!is_good("orders", "orders/2-data/public.users.sql"));
        assert!(is_good("orders", "orders2/2-data/public.users.sql"));
        assert!(is_good("/orders", "orders/2-data/public.users.sql"), "one among files");
        assert!(is_good("/srv /orders", "orders/old.sql"), "one among files");
    }

    #[test]
    fn other_tags_leave_everything_else_as_it_is() {
        let before = br#"{"time":"2026-11-21T02:00:00.123456789Z","host":"h","name":"n","source":"later","seconds":0.1,"tags":["a"],
            "parent":null,"totals":{"files":1,"later":18446744073709551615},"catalog":"000000","catalog_len":0,"path_table":"000000",
            "unknown":{"x":[1,null]}}"#;
        let first = with_tags(before, &["b".into(), "c".into()], ObjectName([1; 32])).unwrap();
        let value = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
        let mut expected = value(before);
        expected["tags"] = serde_json::json!(["b", "c"]);
        expected["original"] = "01".repeat(32).into();
        assert_eq!(value(&first), expected);
        // The very first is what is noted, however often tags change.
        let second = with_tags(&first, &[], ObjectName([2; 32])).unwrap();
        let second = Snapshot::decode(&second).unwrap();
        assert_eq!((second.original, second.tags.len()), (Some(ObjectName([1; 32])), 0));
        for wrong in [&b"[]"[..], b"{}", b"", b"{\"tags\":[]}"] {
            assert!(with_tags(wrong, &[], ObjectName([1; 32])).is_err());
        }
    }

    #[test]
    fn a_copy_keeps_what_is_not_its_own() {
        let body = br#"{"time":"2026-11-21T02:00:00.123456789Z","host":"h","name":"n","source":"later","seconds":0.1,"tags":["a"],
            "parent":null,"totals":{"files":1,"bytes_new":5,"later":18446744073709551615},"catalog":"000000","catalog_len":0,
            "path_table":"000000","unknown":{"x":[1,null]}}"#;
        let substitute = Substitute {
            parent: Some(ObjectName([1; 32])),
            original: ObjectName([2; 32]),
            totals: Totals { files: 1, bytes_new: 7, ..Totals::default() },
            catalog: RecipeText::default(),
            catalog_len: 9,
            path_table: RecipeText::default(),
        };
        let copy = substitute.into_body(body).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&copy).unwrap();
        assert_eq!((&value["source"], &value["unknown"]["x"][0], &value["tags"][0]), (&"later".into(), &1.into(), &"a".into()));
        assert_eq!((&value["totals"]["later"], &value["totals"]["bytes_new"]), (&u64::MAX.into(), &7.into()));
        let snapshot = Snapshot::decode(&copy).unwrap();
        assert_eq!((snapshot.parent, snapshot.original), (Some(ObjectName([1; 32])), Some(ObjectName([2; 32]))));
        assert_eq!((snapshot.catalog_len, snapshot.seconds, snapshot.time.subsec_nanosecond()), (9, 0.1, 123_456_789));
        for wrong in [&b"[]"[..], b"{}", b""] {
            assert!(substitute.into_body(wrong).is_err());
        }
    }
}
