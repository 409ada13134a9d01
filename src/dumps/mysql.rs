//! What `mysqldump` and `mariadb-dump` write.
//!
//! A whole dump ends with a comment that says so, unless comments were switched off (`--compact`, `--skip-comments`): then nothing
//! tells. Newlines in values are escaped, so a comment stands at the beginning of a line only where the program wrote it, or in the body
//! of a stored routine.

use super::bytes::{Line, Search, Tables, Tail, text, word};
use super::values::Rows;
use super::{Parser, complete, incomplete, unknown};
use crate::format::dump::{Dump, Verdict};
use crate::limits::*;

pub struct Mysql {
    search: Search,
    line: Line,
    is_in_comment: bool,
    head: Head,
    /// A dump began before the one before it had ended.
    overlaps: bool,
    tail: Tail,
    tables: Tables,
    /// A table whose definition was seen, and not yet its rows.
    defined: Option<String>,
    /// The table whose rows go by.
    data: Option<(String, Rows)>,
    /// The database that tables belong to, where there may be several.
    database: String,
    producer: &'static str,
    version: String,
    server: String,
    /// While the definition of a table goes by: what in it matters for the order of its rows.
    structure: Option<Structure>,
    is_unordered: bool,
    is_ordered: bool,
    has_date: bool,
}

/// How far the head of a dump was seen that has not ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Head {
    None,
    /// The program's name.
    Program,
    /// The server's version, a few lines behind it.
    Server,
}

/// What a table's definition says of the order in which its rows come.
struct Structure {
    /// Engines that give rows in the order they lie in, and not in that of a key.
    heaps: [Search; 2],
    keys: [Search; 2],
    is_heap: bool,
    has_key: bool,
}

impl Structure {
    fn new() -> Self {
        let searches = |needles: [&'static [u8]; 2]| needles.map(|needle| Search::new(needle, b""));
        Self {
            heaps: searches([b"\n) ENGINE=MyISAM", b"\n) ENGINE=Aria"]),
            keys: searches([b"\n  PRIMARY KEY (", b"\n  UNIQUE KEY `"]),
            is_heap: false,
            has_key: false,
        }
    }

    fn see(&mut self, bytes: &[u8]) {
        self.is_heap |= self.heaps.iter_mut().any(|search| search.find(bytes).is_some());
        self.has_key |= self.keys.iter_mut().any(|search| search.find(bytes).is_some());
    }
}

fn search() -> Search {
    Search::new(b"\n-- ", b"\n")
}

impl Default for Mysql {
    fn default() -> Self {
        Self {
            search: search(),
            line: Line::default(),
            is_in_comment: false,
            head: Head::None,
            overlaps: false,
            tail: Tail::new(DUMP_TAIL_BYTES),
            tables: Tables::default(),
            defined: None,
            data: None,
            database: String::new(),
            producer: "",
            version: String::new(),
            server: String::new(),
            structure: None,
            is_unordered: false,
            is_ordered: false,
            has_date: false,
        }
    }
}

impl Mysql {
    fn comment(&mut self) {
        let line = self.line.start();
        let goes_on = line.starts_with(b"ORDER BY:") || line.starts_with(b"WHERE:");
        match &mut self.data {
            Some((_, rows)) if goes_on => rows.feed(b"\n"),
            _ => self.end_data(),
        }
        let line = self.line.start();
        if let Some(structure) = self.structure.take() {
            self.is_unordered |= structure.is_heap && structure.has_key;
        }
        if let Some(rest) = line.strip_prefix(b"MySQL dump ") {
            (self.producer, self.version) = ("mysqldump", text(version(rest)));
            self.begins(Head::Program);
        } else if let Some(rest) = line.strip_prefix(b"MariaDB dump ") {
            (self.producer, self.version) = ("mariadb-dump", text(version(rest)));
            self.begins(Head::Program);
        } else if let Some(version) = line.strip_prefix(b"Server version\t") {
            self.server = text(word(version));
            self.begins(Head::Server);
        } else if line.starts_with(b"Dump completed") {
            self.head = Head::None;
        } else if let Some(name) = line.strip_prefix(b"Current Database: ") {
            self.database = format!("{}.", unquoted(name));
        } else if let Some(name) = line.strip_prefix(b"Table structure for table ") {
            let name = format!("{}{}", self.database, unquoted(name));
            if let Some(without_rows) = self.defined.replace(name) {
                self.tables.add(&without_rows, None);
            }
            self.structure = Some(Structure::new());
        } else if let Some(name) = line.strip_prefix(b"Dumping data for table ") {
            let name = format!("{}{}", self.database, unquoted(name));
            if let Some(without_rows) = self.defined.take().filter(|defined| *defined != name) {
                self.tables.add(&without_rows, None);
            }
            self.data = Some((name, Rows::new()));
        } else if line.starts_with(b"ORDER BY:") {
            self.is_ordered = true;
        }
    }

    /// A comment follows the rows of a table. They are not known if it stands in the middle of a statement.
    fn end_data(&mut self) {
        if let Some((name, rows)) = self.data.take() {
            self.tables.add(&name, rows.is_between_statements().then_some(rows.count));
        }
    }

    /// A line of a head. The first of a second dump may hang on what was cut of the one before, and be missed.
    fn begins(&mut self, line: Head) {
        self.overlaps |= self.head >= line;
        self.head = line;
    }

    fn judge(&mut self) -> Dump {
        let judged = self.judge_end();
        match judged.verdict {
            Verdict::Complete if self.overlaps => unknown("a second dump begins in it before the first one has ended"),
            _ => judged,
        }
    }

    fn judge_end(&mut self) -> Dump {
        let tail = self.tail.get();
        if self.producer.is_empty() {
            let last = tail.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
            return match last.starts_with(b"-") {
                // Where there are comments, the first one is the head.
                true => incomplete("it ends in the middle of its head"),
                false => unknown("its comments were switched off (--compact, --skip-comments), and with them the closing line"),
            };
        }
        let end = tail.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
        let tail = &tail[..end];
        let last = tail.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        let has_closing_before = || memchr::memmem::find(tail, b"\n-- Dump completed").is_some();
        let has_head_after = || {
            let head = |text: &[u8]| memchr::memmem::rfind(tail, text);
            head(b"\n-- MySQL dump ").max(head(b"\n-- MariaDB dump ")) > head(b"\n-- Dump completed")
        };
        match last.strip_prefix(b"-- Dump completed") {
            Some(b"") => complete(),
            Some(date) if date.strip_prefix(b" on ").is_some_and(is_date) => {
                self.has_date = true;
                complete()
            }
            Some(_) => incomplete("its last line is cut short"),
            None if has_closing_before() && !has_head_after() && !b"-- Dump completed".starts_with(last) => {
                unknown("something follows the closing line")
            }
            None => incomplete("its closing line is missing: -- Dump completed"),
        }
    }
}

/// `10.19  Distrib 10.11.6-MariaDB, for …`, `10.19-11.4.2-MariaDB, for …`, `10.13  Distrib 8.0.36, for …`.
fn version(rest: &[u8]) -> &[u8] {
    match memchr::memmem::find(rest, b"Distrib ") {
        Some(at) => word(&rest[at + 8..]),
        None => {
            let version = word(rest);
            version.strip_prefix(b"10.19-").unwrap_or(version)
        }
    }
}

/// A name without its backquotes.
fn unquoted(name: &[u8]) -> String {
    let inner = name.strip_prefix(b"`").and_then(|name| name.strip_suffix(b"`"));
    text(inner.unwrap_or(name)).replace("``", "`")
}

/// `2026-11-21 13:31:28`, the hour perhaps with a blank.
fn is_date(text: &[u8]) -> bool {
    let shape = |(at, byte): (usize, &u8)| match at {
        4 | 7 => *byte == b'-',
        10 => *byte == b' ',
        11 => *byte == b' ' || byte.is_ascii_digit(),
        13 | 16 => *byte == b':',
        _ => byte.is_ascii_digit(),
    };
    text.len() == 19 && text.iter().enumerate().all(shape)
}

impl Parser for Mysql {
    fn feed(&mut self, bytes: &[u8]) {
        self.tail.push(bytes);
        let mut input = bytes;
        while !input.is_empty() {
            if self.is_in_comment {
                if self.line.fill(&mut input) {
                    self.comment();
                    self.line.clear();
                    self.is_in_comment = false;
                    self.search = search();
                }
                continue;
            }
            let end = self.search.find(input);
            self.is_in_comment = end.is_some();
            let (seen, rest) = input.split_at(end.unwrap_or(input.len()));
            if let Some(structure) = &mut self.structure {
                structure.see(seen);
            }
            if let Some((_, rows)) = &mut self.data {
                rows.feed(seen);
            }
            input = rest;
        }
    }

    fn finish(&mut self) -> Dump {
        let verdict = self.judge();
        self.end_data();
        if let Some(without_rows) = self.defined.take() {
            self.tables.add(&without_rows, None);
        }
        Dump {
            rows: self.tables.rows(),
            producer: self.producer.into(),
            version: std::mem::take(&mut self.version),
            server: std::mem::take(&mut self.server),
            table_count: self.tables.count,
            tables: std::mem::take(&mut self.tables.list),
            ..verdict
        }
    }

    fn advice(&self) -> Vec<&'static str> {
        let mut advice = Vec::new();
        if self.has_date {
            advice.push("--skip-dump-date: without the date at its end, a dump of unchanged data is the same as the one before");
        }
        if self.is_unordered && !self.is_ordered {
            advice.push("--order-by-primary: rows of its MyISAM or Aria tables come in the order they lie in, which changes");
        }
        advice
    }
}
