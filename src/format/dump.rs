//! What is known of a dump that a snapshot holds: its kind, who wrote it, and whether it is whole. Part of the snapshot's JSON.

/// Whether a dump is whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It has all that its format says a whole one has.
    Complete,
    /// Something that a whole one has is missing or wrong.
    Incomplete,
    /// The format does not tell; or a verdict that only a later version knows.
    #[default]
    #[serde(other)]
    Unknown,
}

/// A table, collection or database in a dump.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Table {
    pub name: String,
    /// Rows or documents, where they are cheap to count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
}

/// A dump and the verdict on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Dump {
    /// Path in the snapshot, for people: what is not text is escaped.
    pub path: String,
    /// Like `pg_dump`.
    pub format: String,
    /// How it was compressed by whoever wrote it, like `gzip`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub compression: String,
    /// The program that wrote it, where its head says so.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub producer: String,
    /// That program's version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Version of the server it came from.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub server: String,
    pub verdict: Verdict,
    /// What is missing or wrong, or why nothing can be said.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// Bytes of the dump.
    pub bytes: u64,
    /// The first of its tables, in the order of the dump.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<Table>,
    /// How many tables there are in all.
    #[serde(skip_serializing_if = "is_zero")]
    pub table_count: u64,
    /// Rows of all tables, if each was counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_version_says_is_unknown() {
        let dump: Dump = serde_json::from_str(r#"{"path":"a","format":"x","verdict":"excellent","mood":3}"#).unwrap();
        assert_eq!((dump.verdict, dump.path.as_str()), (Verdict::Unknown, "a"));
        let table = Table { name: "t".into(), rows: Some(3) };
        let whole = Dump { verdict: Verdict::Complete, tables: vec![table], table_count: 1, rows: Some(3), ..dump };
        let text = serde_json::to_string(&whole).unwrap();
        assert_eq!(serde_json::from_str::<Dump>(&text).unwrap(), whole);
        assert!(text.contains(r#""verdict":"complete""#) && !text.contains("why"), "{text}");
    }
}
