//! Dumps that are a folder of files: `pg_dump -Fd`, and the documents of a Firestore export. One file in it says which others there
//! must be.

use std::collections::HashMap;

use super::{Format, Judged, Wanted};
use crate::format::dump::{Dump, Verdict};
use crate::limits::*;

use super::bytes::Tables;

/// How the file is called that stands for an export as a whole, in a folder above the others.
const OVERALL: &str = "overall_export_metadata";

/// Marks exports that lack the file that stands for them as a whole.
pub fn demand_overall(dumps: &mut [Dump]) {
    let is_export = |dump: &Dump| dump.format == Format::FirestoreMetadata.name();
    let overall = |dump: &&Dump| is_export(dump) && dump.path.ends_with(OVERALL);
    let tops: Vec<String> =
        dumps.iter().filter(overall).map(|dump| dump.path[..dump.path.rfind('/').map_or(0, |at| at + 1)].to_owned()).collect();
    for dump in dumps.iter_mut().filter(|dump| is_export(dump) && dump.verdict == Verdict::Complete && !dump.path.ends_with(OVERALL)) {
        if !tops.iter().any(|top| dump.path.starts_with(top.as_str())) {
            (dump.verdict, dump.why) = (Verdict::Incomplete, "the file .overall_export_metadata is missing in the folders above".into());
        }
    }
}

/// What is known of the files of one folder.
#[derive(Default)]
pub struct Folder {
    files: Vec<File>,
    /// The file that lists the others.
    list: Option<Judged>,
    /// What lists of large objects name besides.
    objects: Vec<Wanted>,
    /// The verdict of an earlier time, and the length of the file that lists the others, which has not changed since.
    known: Option<(Dump, u64)>,
    is_too_large: bool,
}

struct File {
    name: String,
    verdict: Verdict,
    why: String,
    rows: Option<u64>,
    bytes: u64,
}

impl Folder {
    /// Takes a file that may be part of such a dump; gives back what is a dump of its own.
    pub fn add(&mut self, name: &str, judged: Judged) -> Option<Judged> {
        let format = judged.dump.format.as_str();
        if format == Format::PgDumpFolder.name() || format == Format::FirestoreMetadata.name() && !name.ends_with(OVERALL) {
            return self.list.replace(judged);
        }
        if format == Format::PgDumpObjects.name() {
            // The list itself must be whole, too.
            self.objects.push(Wanted { name: unpacked(name).into(), table: String::new() });
            self.objects.extend(judged.wanted.iter().flatten().cloned());
            self.is_too_large |= self.objects.len() > DUMP_PARTS_MAX;
        }
        let is_part = format == Format::PgDumpRows.name() || format == Format::FirestoreOutput.name() || is_part(name);
        if !is_part {
            return Some(judged);
        }
        let Dump { verdict, why, rows, bytes, .. } = judged.dump;
        self.push(File { name: name.into(), verdict, why, rows, bytes });
        None
    }

    /// Takes a file that was judged an earlier time and has not changed; gives back what is a dump of its own.
    pub fn add_known(&mut self, dump: Dump, bytes: u64) -> Option<Dump> {
        let is_list = dump.format == Format::PgDumpFolder.name() || dump.format == Format::FirestoreMetadata.name();
        if is_list && !dump.path.ends_with(OVERALL) {
            self.known = Some((dump, bytes));
            return None;
        }
        Some(dump)
    }

    /// Takes a file that was not judged.
    pub fn add_unjudged(&mut self, name: &str, bytes: u64) {
        if is_part(name) {
            self.push(File { name: name.into(), verdict: Verdict::Unknown, why: String::new(), rows: None, bytes });
        }
    }

    fn push(&mut self, file: File) {
        self.is_too_large |= self.files.len() >= DUMP_PARTS_MAX;
        if !self.is_too_large {
            self.files.push(file);
        }
    }

    /// The verdict on the folder, when all its files were seen.
    pub fn finish(self) -> Option<Dump> {
        let bytes = self.files.iter().map(|file| file.bytes).sum::<u64>();
        if let Some((dump, list_bytes)) = self.known {
            let is_same = dump.bytes == bytes + list_bytes;
            let changed = super::unknown("files of it changed since it was judged; --force reads all of it again");
            return Some(if is_same {
                dump
            } else {
                Dump { verdict: changed.verdict, why: changed.why, bytes: bytes + list_bytes, ..dump }
            });
        }
        let list = self.list?;
        let mut wanted = list.wanted.unwrap_or_default();
        let mut dump = list.dump;
        dump.bytes += bytes;
        if dump.verdict != Verdict::Complete {
            return Some(dump);
        }
        wanted.extend(self.objects);
        let (mut tables, mut missing, mut bad) = (Tables::default(), Vec::new(), Vec::new());
        let mut files = HashMap::new();
        for file in &self.files {
            files.entry(unpacked(&file.name)).or_insert(file);
        }
        for want in &wanted {
            let found = files.get(want.name.as_str()).copied();
            if !want.table.is_empty() {
                tables.add(&want.table, found.and_then(|file| file.rows));
            }
            match found {
                None => missing.push(want.name.as_str()),
                Some(file) if file.verdict == Verdict::Incomplete => bad.push((file.name.as_str(), file.why.as_str())),
                Some(file) if is_cut(want, file) => bad.push((file.name.as_str(), "it does not end as the rows of a table do")),
                Some(_) => {}
            }
        }
        (dump.rows, dump.table_count, dump.tables) = (tables.rows(), tables.count, tables.list);
        (dump.verdict, dump.why) = match (&missing[..], &bad[..]) {
            _ if self.is_too_large => (Verdict::Unknown, "it has more files than are kept track of".into()),
            ([], []) if wanted.is_empty() && dump.format == Format::FirestoreMetadata.name() => {
                (Verdict::Unknown, "its metadata names no outputs".into())
            }
            ([], []) => (Verdict::Complete, String::new()),
            ([first, ..], _) => (Verdict::Incomplete, format!("{} of its files missing, {first} the first", missing.len())),
            ([], [(name, why), ..]) => (Verdict::Incomplete, format!("{} of its files not whole; {name}: {why}", bad.len())),
        };
        Some(dump)
    }
}

/// Rows that could be looked at and do not end as they should.
fn is_cut(want: &Wanted, file: &File) -> bool {
    let was_read = file.name == want.name || file.name.ends_with(".gz") || file.name.ends_with(".zst");
    !want.table.is_empty() && was_read && file.rows.is_none() && !file.why.is_empty()
}

/// The name that the list calls a file by.
fn unpacked(name: &str) -> &str {
    [".gz", ".lz4", ".zst"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name)
}

/// Files that mean nothing by themselves.
fn is_part(name: &str) -> bool {
    let plain = unpacked(name);
    let stem = plain.strip_suffix(".dat").unwrap_or_default();
    let stem = stem.strip_prefix("blob_").unwrap_or(stem);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_output = name.strip_prefix("output-").is_some_and(is_number);
    is_number(stem) || is_output || plain.starts_with("blobs") && plain.ends_with(".toc")
}
