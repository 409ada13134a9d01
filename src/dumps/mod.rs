//! Dumps known to be whole: a stream's format by its first bytes, and whether it has all that a whole one has, judged while the bytes
//! go by.
//!
//! One file a format, each a push parser: pieces of any size in, a verdict at the end. No I/O, no panic on any input, memory bounded by
//! the limits in `limits.rs` (about 256 KiB, and with zstd a window of up to 32 MiB; names of up to `DUMP_PARTS_MAX` parts). Nothing here
//! proves that a dump can be restored; what is proven is that its end was reached, and, where the format has checksums, that they fit.

mod bytes;
mod bzip2;
mod checksum;
mod folder;
mod gzip;
mod leveldb;
mod load;
mod lz4;
mod mongo;
mod mysql;
mod objects;
mod pg_archive;
mod postgres;
mod redis;
mod rows;
mod sqlite;
mod tar;
#[cfg(test)]
mod tests;
mod values;
mod xz;
mod zip;
mod zstd;

pub use folder::{Folder, demand_overall};
pub use load::{Loading, loading, mismatch, unpacking};
pub use pg_archive::Wanted;

use crate::format::dump::{Dump, Verdict};
use crate::limits::*;

/// Takes a format apart as its bytes come.
trait Parser: Send {
    /// The next bytes, never none.
    fn feed(&mut self, bytes: &[u8]);
    /// What is known at the end of the stream.
    fn finish(&mut self) -> Dump;
    /// Further files that belong to this one, known after `finish`.
    fn wanted(&self) -> Option<&[Wanted]> {
        None
    }
    /// How to make the next one so that it costs less, known after `finish`: flags that this one shows to be missing.
    fn advice(&self) -> Vec<&'static str> {
        Vec::new()
    }
}

fn complete() -> Dump {
    Dump { verdict: Verdict::Complete, ..Dump::default() }
}

fn incomplete(why: impl Into<String>) -> Dump {
    Dump { verdict: Verdict::Incomplete, why: why.into(), ..Dump::default() }
}

fn unknown(why: impl Into<String>) -> Dump {
    Dump { verdict: Verdict::Unknown, why: why.into(), ..Dump::default() }
}

/// A format, as far as the first bytes and the name tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    PgDump,
    PgDumpAll,
    PgDumpCustom,
    PgDumpFolder,
    PgDumpRows,
    /// The list of large objects in such a folder.
    PgDumpObjects,
    Mysqldump,
    MongoArchive,
    Bson,
    Redis,
    /// Documents of an export.
    FirestoreOutput,
    /// What belongs to an export.
    FirestoreMetadata,
    Sqlite,
    Tar,
    Gzip,
    Zip,
    Zstd,
    Lz4,
    Xz,
    Bzip2,
}

impl Format {
    /// Recognises a format by the first [`DUMP_HEAD_BYTES`] and, where those do not tell, by the file's name.
    pub fn of(name: &[u8], head: &[u8]) -> Option<Self> {
        let file = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let begins = |text: &[u8]| head.starts_with(text);
        Some(match head {
            _ if begins(b"--\n-- PostgreSQL database dump\n") => Self::PgDump,
            _ if begins(b"--\n-- PostgreSQL database cluster dump\n") => Self::PgDumpAll,
            _ if begins(b"PGDMP") && file == b"toc.dat" => Self::PgDumpFolder,
            _ if begins(b"PGDMP") => Self::PgDumpCustom,
            _ if MYSQL_HEADS.iter().any(|text| begins(text)) => Self::Mysqldump,
            _ if begins(b"\x6d\xe2\x99\x81") => Self::MongoArchive,
            // A log of changes may begin as a database file does, and goes on as it likes.
            [b'R', b'E', b'D', b'I', b'S', version @ ..] if is_number(version.get(..4).unwrap_or_default()) && !file.ends_with(b".aof") => {
                Self::Redis
            }
            _ if begins(b"SQLite format 3\0") => Self::Sqlite,
            _ if begins(b"\x1f\x8b\x08") => Self::Gzip,
            _ if begins(b"PK\x03\x04") || begins(b"PK\x05\x06") => Self::Zip,
            _ if begins(b"\x28\xb5\x2f\xfd") => Self::Zstd,
            _ if begins(b"\x04\x22\x4d\x18") => Self::Lz4,
            _ if begins(b"\xfd7zXZ\x00") => Self::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..] => Self::Bzip2,
            [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, 0x50, 0x90, ..] => Self::Bzip2,
            _ if head.get(257..262) == Some(b"ustar") => Self::Tar,
            [a, b, c, d, _, ..] if file.ends_with(b".bson") && (5..64 << 20).contains(&u32::from_le_bytes([*a, *b, *c, *d])) => Self::Bson,
            _ if is_record(head) && file.strip_prefix(b"output-").is_some_and(is_number) => Self::FirestoreOutput,
            _ if is_record(head) && file.ends_with(b"export_metadata") => Self::FirestoreMetadata,
            _ if file.strip_suffix(b".dat").is_some_and(is_number) => Self::PgDumpRows,
            [b'0'..=b'9', ..] if file.starts_with(b"blobs") && file.ends_with(b".toc") => Self::PgDumpObjects,
            _ => return None,
        })
    }

    /// As it is called in a snapshot.
    pub fn name(self) -> &'static str {
        match self {
            Self::PgDump => "pg_dump",
            Self::PgDumpAll => "pg_dumpall",
            Self::PgDumpCustom => "pg_dump custom",
            Self::PgDumpFolder => "pg_dump directory",
            Self::PgDumpRows => "pg_dump rows",
            Self::PgDumpObjects => "pg_dump large objects",
            Self::Mysqldump => "mysqldump",
            Self::MongoArchive => "mongodump archive",
            Self::Bson => "bson",
            Self::Redis => "redis",
            Self::FirestoreOutput => "firestore output",
            Self::FirestoreMetadata => "firestore",
            Self::Sqlite => "sqlite",
            Self::Tar => "tar",
            Self::Gzip => "gzip",
            Self::Zip => "zip",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
        }
    }

    fn is_compressed(self) -> bool {
        matches!(self, Self::Gzip | Self::Zip | Self::Zstd | Self::Lz4 | Self::Xz | Self::Bzip2)
    }

    fn parser(self, name: &[u8]) -> Box<dyn Parser> {
        match self {
            Self::PgDump => Box::new(postgres::Postgres::new(false)),
            Self::PgDumpAll => Box::new(postgres::Postgres::new(true)),
            Self::PgDumpCustom | Self::PgDumpFolder => Box::new(pg_archive::PgArchive::default()),
            Self::PgDumpRows => Box::new(rows::Rows::default()),
            Self::PgDumpObjects => Box::new(objects::Objects::default()),
            Self::Mysqldump => Box::new(mysql::Mysql::default()),
            Self::MongoArchive => Box::new(mongo::MongoArchive::default()),
            Self::Bson => Box::new(mongo::Bson::default()),
            Self::Redis => Box::new(redis::Redis::default()),
            Self::FirestoreOutput => Box::new(leveldb::LevelDbLog::new(false)),
            Self::FirestoreMetadata => Box::new(leveldb::LevelDbLog::new(true)),
            Self::Sqlite => Box::new(sqlite::Sqlite::default()),
            Self::Tar => Box::new(tar::Tar::default()),
            Self::Gzip => Box::new(gzip::Gzip::new(Judge::inside(name))),
            Self::Zstd => Box::new(zstd::Zstd::new(Judge::inside(name))),
            Self::Zip => Box::new(zip::Zip::default()),
            Self::Lz4 => Box::new(lz4::Lz4::default()),
            Self::Xz => Box::new(xz::Xz::default()),
            Self::Bzip2 => Box::new(bzip2::Bzip2::default()),
        }
    }
}

/// With the program's name, with the line that switches the client's sandbox on, and without comments.
const MYSQL_HEADS: [&[u8]; 7] = [
    b"-- MySQL dump ",
    b"-- MariaDB dump ",
    b"/*M!999999\\- ",
    b"/*!999999\\- ",
    b"\n/*!40101 SET @OLD_CHARACTER_SET_CLIENT",
    b"/*!40101 SET @OLD_CHARACTER_SET_CLIENT",
    b"/*!40101 SET @saved_cs_client",
];

fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

/// Whether a log may begin so: a length that a block has room for, and a record that is whole or the first part of one.
fn is_record(head: &[u8]) -> bool {
    matches!(head, [_, _, _, _, low, high, 1 | 2, ..] if u16::from_le_bytes([*low, *high]) <= (32 << 10) - 7)
}

/// Endings of compressed files.
const COMPRESSED: [&[u8]; 8] = [b".gz", b".tgz", b".zst", b".lz4", b".xz", b".bz2", b".zip", b".gzip"];

/// A name without the ending that says how the file is compressed.
fn unpacked_name(name: &[u8]) -> &[u8] {
    COMPRESSED.iter().find_map(|ending| name.strip_suffix(*ending)).unwrap_or(name)
}

/// Whether a file's name says that it holds a dump.
fn is_called_dump(name: &[u8]) -> bool {
    let file = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_ascii_lowercase();
    let file = unpacked_name(&file);
    let has = |text: &[u8]| memchr::memmem::find(file, text).is_some();
    let ends = [&b".sql"[..], b".bson", b".rdb", b".archive", b".dmp", b".bak", b".pgc"].iter().any(|ending| file.ends_with(ending));
    ends || has(b"dump") || has(b"backup")
}

/// Judges one stream or file.
pub struct Judge {
    name: Vec<u8>,
    scope: Scope,
    state: State,
    bytes: u64,
}

/// What is worth a verdict.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Stream,
    /// One of many files: only what is a database's dump, or called one.
    File,
    /// What was compressed is not unpacked twice.
    Inside,
}

enum State {
    /// Until there is enough to recognise it by.
    Head(Vec<u8>),
    Known(Format, Box<dyn Parser>),
    Other,
}

impl Judge {
    /// For a stream that somebody asked to save.
    pub fn stream(name: &[u8]) -> Self {
        Self::new(name, Scope::Stream)
    }

    /// For a file among others.
    pub fn file(name: &[u8]) -> Self {
        Self::new(name, Scope::File)
    }

    fn inside(name: &[u8]) -> Self {
        Self::new(unpacked_name(name), Scope::Inside)
    }

    fn new(name: &[u8], scope: Scope) -> Self {
        Self { name: name.to_vec(), scope, state: State::Head(Vec::new()), bytes: 0 }
    }

    /// The next bytes; pieces may be of any size.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        match &mut self.state {
            State::Other => {}
            State::Known(_, parser) if !bytes.is_empty() => parser.feed(bytes),
            State::Known(..) => {}
            State::Head(head) if head.len() + bytes.len() < DUMP_HEAD_BYTES => head.extend_from_slice(bytes),
            State::Head(head) => {
                let (first, rest) = bytes.split_at(DUMP_HEAD_BYTES.saturating_sub(head.len()).min(bytes.len()));
                head.extend_from_slice(first);
                self.recognise();
                if let (State::Known(_, parser), false) = (&mut self.state, rest.is_empty()) {
                    parser.feed(rest);
                }
            }
        }
    }

    /// Whether further bytes can still matter.
    pub fn is_listening(&self) -> bool {
        !matches!(self.state, State::Other)
    }

    fn recognise(&mut self) {
        let State::Head(head) = &self.state else { return };
        let format = Format::of(&self.name, head).filter(|format| match self.scope {
            Scope::Stream => !matches!(format, Format::PgDumpRows | Format::PgDumpObjects),
            Scope::File if format.is_compressed() => is_called_dump(&self.name) || is_rows(unpacked_name(&self.name)),
            Scope::File if *format == Format::Sqlite => is_called_dump(&self.name),
            Scope::File => true,
            Scope::Inside => !format.is_compressed(),
        });
        self.state = match format {
            None => State::Other,
            Some(format) => {
                let mut parser = format.parser(&self.name);
                if !head.is_empty() {
                    parser.feed(head);
                }
                State::Known(format, parser)
            }
        };
    }

    /// The verdict at the end of the stream; nothing if it is of no known format.
    pub fn finish(mut self) -> Option<Judged> {
        self.recognise();
        let State::Known(format, mut parser) = self.state else { return None };
        let found = parser.finish();
        let name = if found.format.is_empty() { format.name().into() } else { found.format.clone() };
        let is_listed = self.scope != Scope::File || name != "tar" || is_called_dump(&self.name);
        let (wanted, advice) = (parser.wanted().map(<[Wanted]>::to_vec), parser.advice());
        let dump = Dump { format: name, path: crate::error::show_bytes(&self.name), bytes: self.bytes, ..found };
        is_listed.then_some(Judged { dump, wanted, advice })
    }
}

/// Whether a file's name is that of a table's rows in a folder of `pg_dump -Fd`.
fn is_rows(name: &[u8]) -> bool {
    let file = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    file.strip_suffix(b".dat").is_some_and(|stem| is_number(stem.strip_prefix(b"blob_").unwrap_or(stem)))
}

/// A verdict, and the files beside it that it depends on.
#[derive(Clone, Debug)]
pub struct Judged {
    pub dump: Dump,
    pub wanted: Option<Vec<Wanted>>,
    /// How to make the next one so that it costs less.
    pub advice: Vec<&'static str>,
}

/// What is in a compressed stream.
struct Inside {
    judge: Option<Judge>,
    /// Why it is not unpacked any more.
    gave_up: Option<&'static str>,
}

impl Inside {
    fn new(judge: Judge) -> Self {
        Self { judge: Some(judge), gave_up: None }
    }

    fn feed(&mut self, bytes: &[u8]) {
        if let Some(judge) = &mut self.judge {
            judge.feed(bytes);
        }
    }

    /// Nothing more will be unpacked.
    fn give_up(&mut self, why: &'static str) {
        (self.judge, self.gave_up) = (None, Some(why));
    }

    /// The verdict on a compressed stream that is whole: that on what is in it, where that is of a known format.
    fn finish(&mut self, compression: &str) -> Dump {
        let inner = self.judge.take().and_then(Judge::finish);
        let found = match (self.gave_up, inner) {
            (Some(why), _) => unknown(why),
            (None, Some(inner)) => inner.dump,
            (None, None) => complete(),
        };
        Dump { compression: compression.into(), ..found }
    }

    /// The verdict on one that is not whole.
    fn doubt(&mut self, compression: &str, outer: Dump) -> Dump {
        let inner = self.judge.take().and_then(Judge::finish);
        let found = inner.map(|inner| inner.dump).unwrap_or_default();
        Dump { compression: compression.into(), verdict: outer.verdict, why: outer.why, ..found }
    }
}

/// Marks a stream that should have been of another format.
pub fn unexpected(dump: Option<Dump>, name: &[u8], expected: &str) -> Dump {
    let found = dump.unwrap_or_else(|| Dump { path: crate::error::show_bytes(name), format: "unknown".into(), ..Dump::default() });
    let (verdict, why) = match found.format.as_str() {
        "unknown" => (Verdict::Incomplete, format!("it is no {expected}")),
        "lz4" | "xz" | "bzip2" | "zip" if found.verdict == Verdict::Complete => (Verdict::Unknown, "what is in it is not looked at".into()),
        "lz4" | "xz" | "bzip2" | "zip" => (found.verdict, found.why.clone()),
        // Cut before anything could be seen of what is in it, or not unpacked here: that says more.
        "gzip" | "zstd" if found.verdict == Verdict::Incomplete => (found.verdict, found.why.clone()),
        "zstd" if found.verdict == Verdict::Unknown => (found.verdict, found.why.clone()),
        other => (Verdict::Incomplete, format!("it is {other} and not {expected}")),
    };
    Dump { verdict, why, ..found }
}
