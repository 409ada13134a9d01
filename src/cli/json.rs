//! Snapshots and entries as JSON, with restic's field names where the meaning is the same.

use serde_json::{Value, json};

use crate::error::show_bytes;
use crate::format::entry::{Entry, Flaw, Node, Time};
use crate::format::snapshot::{SourceKind, Totals};
use crate::repo::Stored;

/// A snapshot as one object.
pub fn snapshot(stored: &Stored) -> Value {
    let snapshot = &stored.snapshot;
    let mut summary = totals(&snapshot.totals);
    summary["backup_start"] = json!(snapshot.started());
    summary["total_duration"] = json!(snapshot.seconds);
    let mut value = json!({
        "id": stored.id,
        "short_id": stored.id.short(),
        "time": snapshot.time,
        "hostname": snapshot.host,
        "username": snapshot.user,
        "name": snapshot.name,
        "tags": snapshot.tags,
        "paths": snapshot.paths,
        "source": match snapshot.source {
            SourceKind::Stream => "stream",
            SourceKind::Tree => "tree",
            SourceKind::Other => "other",
        },
        "complete": snapshot.is_complete(),
        "program_version": snapshot.program,
        "summary": summary,
    });
    if !snapshot.dumps.is_empty() {
        value["dumps"] = json!(snapshot.dumps);
    }
    if let Some(parent) = snapshot.parent {
        value["parent"] = json!(parent);
    }
    if let Some(original) = snapshot.original {
        value["original"] = json!(original);
    }
    value
}

/// The counts of a backup.
pub fn totals(totals: &Totals) -> Value {
    json!({
        "files_new": totals.files_new,
        "files_changed": totals.files_changed,
        "files_unmodified": totals.files_unmodified,
        "files_incomplete": totals.flawed,
        "total_files_processed": totals.files,
        "total_dirs_processed": totals.folders,
        "total_bytes_processed": totals.bytes,
        "data_added": totals.bytes_new,
        "data_added_packed": totals.bytes_stored,
    })
}

/// An entry of a snapshot as one object.
pub fn node(entry: &Entry) -> Value {
    let mut path = vec![b'/'];
    path.extend_from_slice(&entry.path);
    let meta = &entry.meta;
    let mut value = json!({
        "message_type": "node",
        "path": text(&path),
        "type": entry.node.name(),
        "size": entry.size(),
        "mode": meta.mode,
        "permissions": super::show::mode(entry),
        "mtime": time(meta.mtime),
        "uid": meta.uid,
        "gid": meta.gid,
        "user": text(&meta.user),
        "group": text(&meta.group),
    });
    exact_path(&mut value, &path);
    match &entry.node {
        Node::Symlink { target } | Node::HardLink { target } => value["linktarget"] = text(target).into(),
        Node::CharDevice { device } | Node::BlockDevice { device } => value["device"] = json!(device),
        // With holes the hash is not the whole file's.
        Node::File { content: Some(content) } if content.holes.is_empty() => value["blake3"] = json!(content.hash),
        _ => {}
    }
    match entry.flaw {
        Flaw::None => {}
        Flaw::Unreadable => value["flaw"] = "unreadable".into(),
        Flaw::Changed => value["flaw"] = "changed".into(),
    }
    value
}

/// Adds the bytes of a path that is not text.
pub fn exact_path(value: &mut Value, path: &[u8]) {
    if std::str::from_utf8(path).is_err() {
        value["path_hex"] = path.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
    }
}

/// Exact where the bytes are text, else with the others escaped.
pub fn text(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| show_bytes(bytes), str::to_owned)
}

/// A file's time, if a calendar has it.
pub fn time(time: Time) -> Option<jiff::Timestamp> {
    let nanos = i32::try_from(time.nanos).ok()?;
    jiff::Timestamp::new(time.seconds, nanos).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_have_exact_paths() {
        let entry = |path: &[u8]| Entry { path: path.to_vec(), flaw: Flaw::None, meta: Default::default(), node: Node::Folder };
        let value = node(&entry("a\nü".as_bytes()));
        assert_eq!((&value["path"], &value["type"]), (&json!("/a\nü"), &json!("dir")));
        assert_eq!(value.get("path_hex"), None);
        let value = node(&entry(b"a\xff"));
        assert_eq!((&value["path"], &value["path_hex"]), (&json!("/a\\xff"), &json!("2f61ff")));
    }

    #[test]
    fn impossible_times_are_left_out() {
        assert_eq!(time(Time { seconds: 0, nanos: 5 }).unwrap().as_nanosecond(), 5);
        assert_eq!(time(Time { seconds: i64::MAX, nanos: 0 }), None);
    }
}
