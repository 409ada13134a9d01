//! The archives of `pg_dump`: one file (`-Fc`), and the table of contents of a folder (`-Fd`) or tar file (`-Ft`).
//!
//! A header, a table of contents with the SQL of each object, then, in one file, a block for each entry that has data: its kind and
//! number, pieces that begin with their length, and a length of zero. Nothing marks the end of the file, so it is whole when every entry
//! that has data has had its block, and the last one ended. Integers are a sign and a number of bytes that the header gives.

use std::collections::{HashMap, HashSet};

use super::bytes::{Gather, Tables, little, skip, text, word};
use super::{Parser, complete, incomplete, unknown};
use crate::format::dump::Dump;
use crate::limits::*;

const BLOCK_DATA: u8 = 1;
const BLOCK_LARGE_OBJECTS: u8 = 3;
/// Where an entry's data begins: nowhere, because it has none.
const OFFSET_NO_DATA: u8 = 3;
/// Behind the rows of a table: `\.` and two empty lines.
const LINES_BEHIND_ROWS: u64 = 3;

/// A file that a folder or tar file must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub name: String,
    /// The table whose rows it holds, ended by `\.`; empty for anything else.
    pub table: String,
}

pub struct PgArchive {
    state: State,
    fields: Fields,
    layout: Layout,
    is_tar: bool,
    /// Fields of the header and of an entry, in this version.
    head: Vec<Field>,
    list: Vec<Field>,
    compression: &'static str,
    version: String,
    server: String,
    entries_left: u64,
    entry: Entry,
    tables: Tables,
    /// Entries whose data has not come yet.
    missing: HashSet<i64>,
    /// Tables by entry.
    names: HashMap<i64, String>,
    /// Entries whose data is the rows of a table.
    copied: HashSet<i64>,
    wanted: Vec<Wanted>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    OneFile,
    Files,
}

enum State {
    Fixed,
    Head(usize),
    Entry(usize),
    /// Between blocks: the next byte is a block's kind, if there is one.
    Between,
    Number(u8),
    /// The number of a large object, 0 behind the last.
    LargeObject(Block),
    /// A piece's length.
    Length(Block),
    Piece(Block, u64),
    /// A table of contents alone, to its end.
    Listed,
    Broken(String),
    NotKnown(&'static str),
}

#[derive(Clone, Copy)]
struct Block {
    kind: u8,
    entry: i64,
    newlines: u64,
}

/// What is known of the entry that is being read.
#[derive(Default)]
struct Entry {
    id: i64,
    has_dumper: bool,
    tag: String,
    kind: String,
    namespace: String,
    is_copied: bool,
    has_data: bool,
    file: String,
}

/// Reads integers and texts that come in pieces.
struct Fields {
    int_bytes: usize,
    offset_bytes: usize,
    gather: Gather,
    /// What is left of a text.
    text_left: Option<u64>,
    text: Vec<u8>,
}

impl Fields {
    fn int(&mut self, input: &mut &[u8]) -> Option<i64> {
        self.gather.fill(1 + self.int_bytes, input).then_some(())?;
        let (sign, bytes) = self.gather.bytes().split_first()?;
        let value = i64::try_from(little(bytes)).unwrap_or(i64::MAX);
        let value = if *sign == 0 { value } else { -value };
        self.gather.clear();
        Some(value)
    }

    /// The first bytes of a text; `Some(None)` for one that is not there.
    fn text(&mut self, input: &mut &[u8]) -> Option<Option<Vec<u8>>> {
        let mut left = match self.text_left {
            Some(left) => left,
            None => match self.int(input)? {
                len @ 0.. => len as u64,
                _ => return Some(None),
            },
        };
        let room = DUMP_TEXT_BYTES_MAX - self.text.len();
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(room).min(input.len());
        self.text.extend_from_slice(&input[..count]);
        if skip(&mut left, input) {
            self.text_left = None;
            return Some(Some(std::mem::take(&mut self.text)));
        }
        self.text_left = Some(left);
        None
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Algorithm,
    Level,
    Number,
    Text,
    Server,
    Version,
    Count,
    Id,
    HasDumper,
    Tag,
    Kind,
    CopyStatement,
    Namespace,
    Dependencies,
    Offset,
    File,
}

/// The header behind its first bytes, for versions 1.10 to 1.16.
fn head_fields(minor: u8) -> Vec<Field> {
    let mut fields = vec![if minor >= 15 { Field::Algorithm } else { Field::Level }];
    fields.extend([Field::Number; 7]);
    fields.extend([Field::Text, Field::Server, Field::Version, Field::Count]);
    fields
}

fn entry_fields(minor: u8, layout: Layout) -> Vec<Field> {
    use Field::*;
    let mut fields = vec![Id, HasDumper, Text, Text, Tag, Kind];
    fields.extend((minor >= 11).then_some(Number));
    fields.extend([Text, Text, CopyStatement, Namespace, Text]);
    fields.extend((minor >= 14).then_some(Text));
    fields.extend((minor >= 16).then_some(Number));
    // The owner, and whether the table had OIDs.
    fields.extend([Text, Text, Dependencies]);
    fields.push(if layout == Layout::OneFile { Offset } else { File });
    fields
}

impl Default for PgArchive {
    fn default() -> Self {
        Self {
            state: State::Fixed,
            fields: Fields { int_bytes: 0, offset_bytes: 0, gather: Gather::default(), text_left: None, text: Vec::new() },
            layout: Layout::OneFile,
            is_tar: false,
            head: Vec::new(),
            list: Vec::new(),
            compression: "",
            version: String::new(),
            server: String::new(),
            entries_left: 0,
            entry: Entry::default(),
            tables: Tables::default(),
            missing: HashSet::new(),
            names: HashMap::new(),
            copied: HashSet::new(),
            wanted: Vec::new(),
        }
    }
}

impl PgArchive {
    fn fixed(&mut self, bytes: &[u8]) -> State {
        let [major, minor, _, int_bytes, offset_bytes, format] = bytes[5..11] else { unreachable!("eleven bytes were asked for") };
        if major != 1 || !(10..=16).contains(&minor) {
            return State::NotKnown("it is of a version that is not known here");
        }
        if !(1..=8).contains(&int_bytes) || offset_bytes > 16 {
            return State::Broken("its header makes no sense".into());
        }
        self.layout = match format {
            1 => Layout::OneFile,
            3 | 5 => Layout::Files,
            _ => return State::Broken("its header makes no sense".into()),
        };
        self.is_tar = format == 3;
        self.head = head_fields(minor);
        self.list = entry_fields(minor, self.layout);
        self.fields.int_bytes = usize::from(int_bytes);
        self.fields.offset_bytes = usize::from(offset_bytes);
        State::Head(0)
    }

    /// Reads one field of the header or of an entry; false if it is not all there.
    fn field(&mut self, field: Field, input: &mut &[u8]) -> Option<()> {
        let fields = &mut self.fields;
        match field {
            Field::Algorithm => {
                self.compression = match fields.gather.take(1, input)?[0] {
                    0 => "",
                    1 => "gzip",
                    2 => "lz4",
                    _ => "zstd",
                }
            }
            Field::Level => self.compression = if fields.int(input)? == 0 { "" } else { "gzip" },
            Field::Number => drop(fields.int(input)?),
            Field::Text => drop(fields.text(input)?),
            Field::Server => self.server = word_of(fields.text(input)?),
            Field::Version => self.version = word_of(fields.text(input)?),
            Field::Count => self.entries_left = fields.int(input)?.max(0) as u64,
            Field::Id => self.entry.id = fields.int(input)?,
            Field::HasDumper => self.entry.has_dumper = fields.int(input)? != 0,
            Field::Tag => self.entry.tag = text(&fields.text(input)?.unwrap_or_default()),
            Field::Kind => self.entry.kind = text(&fields.text(input)?.unwrap_or_default()),
            Field::CopyStatement => self.entry.is_copied = fields.text(input)?.is_some_and(|text| text.starts_with(b"COPY ")),
            Field::Namespace => self.entry.namespace = text(&fields.text(input)?.unwrap_or_default()),
            // A list of texts, the last of which is not there.
            Field::Dependencies => while fields.text(input)?.is_some() {},
            Field::Offset => self.entry.has_data = fields.gather.take(1 + fields.offset_bytes, input)?[0] != OFFSET_NO_DATA,
            Field::File => {
                self.entry.file = text(&fields.text(input)?.unwrap_or_default());
                self.entry.has_data = !self.entry.file.is_empty();
            }
        }
        Some(())
    }

    /// Notes the entry that was read, and says what comes next.
    fn entry_ended(&mut self) -> State {
        let entry = std::mem::take(&mut self.entry);
        self.entries_left -= 1;
        if entry.has_dumper && entry.has_data {
            let name = format!("{}.{}", entry.namespace, entry.tag);
            let table = if entry.kind == "TABLE DATA" { name } else { String::new() };
            match self.layout {
                // In tar files it goes by another name.
                Layout::Files if self.is_tar && entry.kind == "BLOBS" => {}
                Layout::Files => {
                    let table = if entry.is_copied { table } else { String::new() };
                    self.wanted.push(Wanted { name: entry.file, table });
                }
                Layout::OneFile => {
                    if !table.is_empty() {
                        self.names.insert(entry.id, table);
                    }
                    if entry.is_copied {
                        self.copied.insert(entry.id);
                    }
                    self.missing.insert(entry.id);
                }
            }
            if self.missing.len().max(self.wanted.len()) > DUMP_PARTS_MAX {
                return State::NotKnown("it has more entries than are kept track of");
            }
        }
        self.next_entry()
    }

    fn next_entry(&self) -> State {
        match (self.entries_left, self.layout) {
            (0, Layout::OneFile) => State::Between,
            (0, Layout::Files) => State::Listed,
            _ => State::Entry(0),
        }
    }

    /// Reads as much as one state takes; nothing if more bytes are needed.
    fn step(&mut self, input: &mut &[u8]) -> Option<State> {
        match self.state {
            State::Fixed => {
                let bytes = self.fields.gather.take(11, input)?;
                Some(self.fixed(&bytes))
            }
            State::Head(at) => {
                self.field(*self.head.get(at)?, input)?;
                Some(if at + 1 < self.head.len() { State::Head(at + 1) } else { self.next_entry() })
            }
            State::Entry(at) => {
                self.field(*self.list.get(at)?, input)?;
                Some(if at + 1 < self.list.len() { State::Entry(at + 1) } else { self.entry_ended() })
            }
            State::Between => match self.fields.gather.take(1, input)?[0] {
                kind @ (BLOCK_DATA | BLOCK_LARGE_OBJECTS) => Some(State::Number(kind)),
                _ => Some(State::Broken("what follows a table is not another one".into())),
            },
            State::Number(kind) => {
                let entry = self.fields.int(input)?;
                if !self.missing.remove(&entry) {
                    return Some(State::Broken("it has data that its table of contents does not list".into()));
                }
                let block = Block { kind, entry, newlines: 0 };
                Some(if kind == BLOCK_DATA { State::Length(block) } else { State::LargeObject(block) })
            }
            State::LargeObject(block) => Some(match self.fields.int(input)? {
                0 => State::Between,
                _ => State::Length(block),
            }),
            State::Length(block) => Some(match self.fields.int(input)? {
                0 if block.kind == BLOCK_DATA => {
                    self.block_ended(block);
                    State::Between
                }
                0 => State::LargeObject(block),
                len @ 1.. => State::Piece(block, len as u64),
                _ => State::Broken("a piece of it has a length below zero".into()),
            }),
            State::Piece(mut block, mut left) => {
                let before = *input;
                let is_over = skip(&mut left, input);
                if self.compression.is_empty() {
                    block.newlines += memchr::memchr_iter(b'\n', &before[..before.len() - input.len()]).count() as u64;
                }
                Some(if is_over { State::Length(block) } else { State::Piece(block, left) })
            }
            State::Listed => (!input.is_empty()).then(|| State::Broken("something follows its table of contents".into())),
            State::Broken(_) | State::NotKnown(_) => {
                *input = &[];
                None
            }
        }
    }

    fn block_ended(&mut self, block: Block) {
        let is_counted = self.compression.is_empty() && self.copied.contains(&block.entry);
        let rows = is_counted.then(|| block.newlines.saturating_sub(LINES_BEHIND_ROWS));
        if let Some(name) = self.names.remove(&block.entry) {
            self.tables.add(&name, rows);
        }
    }

    fn judge(&self) -> Dump {
        match &self.state {
            State::Broken(why) => incomplete(why.clone()),
            State::NotKnown(why) => unknown(*why),
            State::Listed => complete(),
            State::Between if self.missing.is_empty() && self.fields.gather.is_empty() => complete(),
            State::Between => incomplete(format!("the data of {} of its entries is missing", self.missing.len())),
            State::Fixed | State::Head(_) | State::Entry(_) => incomplete("it ends in its table of contents"),
            _ => incomplete("it ends in the middle of a table"),
        }
    }
}

fn word_of(field: Option<Vec<u8>>) -> String {
    text(word(&field.unwrap_or_default()))
}

impl Parser for PgArchive {
    fn feed(&mut self, bytes: &[u8]) {
        let mut input = bytes;
        while !input.is_empty() {
            match self.step(&mut input) {
                Some(state) => self.state = state,
                None => debug_assert!(input.is_empty()),
            }
        }
    }

    fn finish(&mut self) -> Dump {
        Dump {
            producer: "pg_dump".into(),
            compression: self.compression.into(),
            version: std::mem::take(&mut self.version),
            server: std::mem::take(&mut self.server),
            rows: self.tables.rows(),
            table_count: self.tables.count,
            tables: std::mem::take(&mut self.tables.list),
            ..self.judge()
        }
    }

    fn wanted(&self) -> Option<&[Wanted]> {
        matches!(self.state, State::Listed).then_some(&self.wanted)
    }
}
