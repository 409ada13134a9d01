//! What `pg_dump` and `pg_dumpall` write as SQL.
//!
//! A whole dump ends with a comment that says so. Since rows may hold any text, the lines of each table are followed from `COPY` to
//! `\.`, and counted. Recent versions write `\restrict KEY` at the beginning and `\unrestrict KEY` behind the closing comment, or
//! before and after each database of a cluster.

use memchr::memmem;

use super::bytes::{Line, Search, Tables, Tail, text, word};
use super::{Parser, complete, incomplete, unknown};
use crate::format::dump::Dump;
use crate::limits::*;

/// What closes a dump, up to the `--` below it.
const CLOSING: &[u8] = b"\n-- PostgreSQL database dump complete\n";
const CLOSING_OF_CLUSTER: &[u8] = b"\n-- PostgreSQL database cluster dump complete\n";
/// How a database's dump begins. With the lines around it: a row may look like the one in the middle.
const OPENING: &[u8] = b"\n-- PostgreSQL database dump\n--\n\n";
/// Newlines are counted in pieces that fit the nearest cache.
const BLOCK_BYTES: usize = 32 << 10;
/// Lines between a table's heading and its rows.
const LINES_BEFORE_ROWS: u8 = 12;

pub struct Postgres {
    is_cluster: bool,
    place: Place,
    line: Line,
    tail: Tail,
    tables: Tables,
    /// The database of a cluster that tables belong to.
    database: String,
    version: String,
    server: String,
    /// A database's dump has begun and not ended.
    is_open: bool,
    /// The cluster's closing line was there, outside of rows.
    is_cluster_closed: bool,
    /// A database's dump began before the one before it had ended.
    overlaps: bool,
    /// What the last `\restrict` says.
    restrict: Option<Vec<u8>>,
}

/// Where in a dump we are.
enum Place {
    Outside(Search),
    Comment,
    /// Behind the first line of a database's dump, this many lines before its `\restrict` is given up.
    Opening(u8),
    /// Behind the heading of a table.
    Heading {
        table: String,
        lines_left: u8,
    },
    Rows {
        table: String,
        rows: u64,
        end: Search,
        /// Of a dump that begins here, because the one before was cut.
        opening: Box<Search>,
    },
}

fn outside() -> Place {
    Place::Outside(Search::new(b"\n-- ", b"\n"))
}

impl Postgres {
    pub fn new(is_cluster: bool) -> Self {
        Self {
            is_cluster,
            place: outside(),
            line: Line::default(),
            tail: Tail::new(DUMP_TAIL_BYTES),
            tables: Tables::default(),
            database: String::new(),
            version: String::new(),
            server: String::new(),
            is_open: false,
            is_cluster_closed: false,
            overlaps: false,
            restrict: None,
        }
    }

    /// What follows a line behind `-- `.
    fn comment(&mut self) -> Place {
        let line = self.line.start();
        if line == b"PostgreSQL database dump" {
            self.overlaps |= self.is_open;
            self.is_open = true;
            self.restrict = None;
            return Place::Opening(4);
        }
        if line == b"PostgreSQL database dump complete" {
            self.is_open = false;
        } else if line == b"PostgreSQL database cluster dump complete" {
            self.is_cluster_closed = true;
        } else if let Some(version) = line.strip_prefix(b"Dumped by pg_dump version ") {
            self.version = text(word(version));
        } else if let Some(version) = line.strip_prefix(b"Dumped from database version ") {
            self.server = text(word(version));
        } else if let Some(name) = line.strip_prefix(b"Database \"").and_then(|rest| rest.strip_suffix(b"\" dump")) {
            self.database = format!("{}.", text(name));
        } else if let Some(table) = heading(line) {
            return Place::Heading { table: format!("{}{table}", self.database), lines_left: LINES_BEFORE_ROWS };
        }
        outside()
    }

    /// What follows a line behind a table's heading.
    fn before_rows(&mut self, table: String, lines_left: u8) -> Place {
        let line = self.line.start();
        if line.starts_with(b"COPY ") && self.line.end().ends_with(b" FROM stdin;") {
            return Place::Rows { table, rows: 0, end: Search::new(b"\n\\.\n", b"\n"), opening: Box::new(Search::new(OPENING, b"\n")) };
        }
        let is_preparation = line.is_empty() || line == b"--" || line.starts_with(b"SET ") || line.starts_with(b"ALTER TABLE ");
        if lines_left > 0 && is_preparation {
            return Place::Heading { table, lines_left: lines_left - 1 };
        }
        // INSERT statements, which are not counted, or the next thing in the dump.
        self.tables.add(&table, None);
        match line.starts_with(b"-- ") {
            true => {
                let mut comment = &line[3..].to_vec()[..];
                self.line.clear();
                self.line.fill(&mut comment);
                self.comment()
            }
            false => outside(),
        }
    }

    /// What follows a line near the beginning of a database's dump.
    fn opening(&mut self, lines_left: u8) -> Place {
        let line = self.line.start();
        if let Some(key) = line.strip_prefix(b"\\restrict ") {
            self.restrict = Some(key.to_vec());
            return outside();
        }
        match lines_left > 0 && (line.is_empty() || line == b"--") {
            true => Place::Opening(lines_left - 1),
            false => outside(),
        }
    }

    fn step(&mut self, input: &mut &[u8]) {
        match &mut self.place {
            Place::Outside(search) => match search.find(input) {
                None => *input = &[],
                Some(end) => {
                    *input = &input[end..];
                    self.place = Place::Comment;
                }
            },
            Place::Rows { table, rows, end, opening } => {
                let block = &input[..input.len().min(BLOCK_BYTES)];
                let found = end.find(block);
                let seen = &block[..found.unwrap_or(block.len())];
                *rows += memchr::memchr_iter(b'\n', seen).count() as u64;
                self.overlaps |= opening.find(seen).is_some();
                *input = &input[seen.len()..];
                if found.is_some() {
                    // The line that ends the rows has a newline too.
                    self.tables.add(table, Some(*rows - 1));
                    self.place = outside();
                }
            }
            Place::Comment | Place::Opening(_) | Place::Heading { .. } => {
                if !self.line.fill(input) {
                    return;
                }
                self.place = match std::mem::replace(&mut self.place, Place::Comment) {
                    Place::Opening(lines_left) => self.opening(lines_left),
                    Place::Heading { table, lines_left } => self.before_rows(table, lines_left),
                    _ => self.comment(),
                };
                self.line.clear();
            }
        }
    }

    fn judge(&self) -> Dump {
        let tail = self.tail.get();
        if let Place::Rows { table, .. } = &self.place {
            return incomplete(format!("it ends in the middle of table {table}"));
        }
        let (closing, is_closed) = match self.is_cluster {
            true => (CLOSING_OF_CLUSTER, self.is_cluster_closed && !self.is_open),
            false => (CLOSING, !self.is_open),
        };
        let missing = || incomplete("its closing line is missing: -- PostgreSQL database dump complete");
        // A row may look like one, and does not count: the last one was outside of rows, even if it was cut off below its line.
        let last = memmem::rfind(tail, closing).filter(|_| is_closed);
        let Some(rest) = last.and_then(|at| tail[at + closing.len()..].strip_prefix(b"--")) else { return missing() };
        let mut lines = rest.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let wanted = self.restrict.as_ref().filter(|_| !self.is_cluster);
        let unrestrict = wanted.map(|key| [b"\\unrestrict ", &key[..]].concat());
        let (first, second) = (lines.next(), lines.next());
        match (&unrestrict, first, second) {
            _ if self.overlaps => unknown("a second dump begins in it before the first one has ended"),
            (None, None, _) => complete(),
            (None, Some(line), None) if line.starts_with(b"\\unrestrict ") => complete(),
            (Some(wanted), Some(line), None) if wanted == line => complete(),
            (Some(wanted), Some(line), None) if wanted.starts_with(line) => incomplete("its last line is cut short"),
            (Some(_), None, _) => incomplete("its last line is missing: \\unrestrict"),
            _ => unknown("something follows the closing line"),
        }
    }
}

/// The table that a heading announces, as a name in SQL would be without quotes.
fn heading(line: &[u8]) -> Option<String> {
    let line = line.strip_prefix(b"Data for Name: ")?;
    let at = memmem::find(line, b"; Type: TABLE DATA; Schema: ")?;
    let schema = &line[at + b"; Type: TABLE DATA; Schema: ".len()..];
    let end = memmem::find(schema, b"; Owner: ")?;
    Some(format!("{}.{}", text(&schema[..end]), text(&line[..at])))
}

impl Parser for Postgres {
    fn feed(&mut self, bytes: &[u8]) {
        self.tail.push(bytes);
        let mut input = bytes;
        while !input.is_empty() {
            self.step(&mut input);
        }
    }

    fn finish(&mut self) -> Dump {
        let producer = if self.is_cluster { "pg_dumpall" } else { "pg_dump" };
        Dump {
            producer: producer.into(),
            version: std::mem::take(&mut self.version),
            server: std::mem::take(&mut self.server),
            rows: self.tables.rows(),
            table_count: self.tables.count,
            tables: std::mem::take(&mut self.tables.list),
            ..self.judge()
        }
    }
}
