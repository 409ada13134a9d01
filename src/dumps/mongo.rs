//! What `mongodump --archive` writes, and single `.bson` files.
//!
//! An archive is a magic number, a header, a document about each collection, and a terminator; then segments: a document that names the
//! collection, documents of it, a terminator. A collection ends with a segment that says so and has the CRC-64 of all its documents.
//! Nothing marks the end of the file: it is whole if every collection that was announced has ended, and fits its checksum.
//! (Views and the like hold no documents, and older versions did not end them.)

use std::collections::HashMap;

use super::bytes::{Gather, Tables, little, skip, text};
use super::checksum::{self, Digest64};
use super::{Parser, complete, incomplete, unknown};
use crate::format::dump::Dump;
use crate::limits::*;

const TERMINATOR: u64 = 0xffff_ffff;
/// The server's own limit is 16 MiB, and some room for its own documents.
const DOCUMENT_BYTES_MAX: u64 = 64 << 20;
/// Headers are a few hundred bytes; of what is announced, options and indexes may be long.
const KEPT_BYTES_MAX: usize = 64 << 10;

#[derive(Default)]
pub struct MongoArchive {
    state: State,
    gather: Gather,
    /// The document that is read, if it is one that is looked into.
    kept: Vec<u8>,
    part: Part,
    version: String,
    server: String,
    /// In the order they were announced.
    order: Vec<String>,
    collections: HashMap<String, Collection>,
    current: String,
    /// The checksum of the current collection, taken out of the map while it runs.
    crc: Option<Digest64>,
    documents: u64,
    /// A collection began before another one had ended.
    has_turns: bool,
}

#[derive(Default)]
struct Collection {
    is_without_end: bool,
    has_ended: bool,
    crc: Option<Digest64>,
    documents: u64,
}

#[derive(Default)]
enum State {
    #[default]
    Magic,
    /// A document's length, or the terminator.
    Length,
    Document {
        left: u64,
    },
    Broken(String),
}

/// Where in the archive the next document belongs.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Header,
    Announced,
    Segment,
    Documents,
    /// Behind a segment that says that its collection has ended.
    Ended,
}

impl MongoArchive {
    fn step(&mut self, input: &mut &[u8]) -> Option<State> {
        match &mut self.state {
            State::Magic => {
                self.gather.fill(4, input).then_some(())?;
                self.gather.clear();
                Some(State::Length)
            }
            State::Length => {
                self.gather.fill(4, input).then_some(())?;
                let mut bytes = [0; 4];
                bytes.copy_from_slice(self.gather.bytes());
                self.gather.clear();
                let len = little(&bytes);
                if len == TERMINATOR {
                    return Some(self.terminator());
                }
                if !(5..=DOCUMENT_BYTES_MAX).contains(&len) {
                    return Some(State::Broken("it is damaged: where a document should begin there is none".into()));
                }
                match self.part {
                    Part::Documents => self.hash(&bytes),
                    Part::Ended => return Some(State::Broken(format!("{} goes on behind its end", self.current))),
                    _ => self.kept = bytes.to_vec(),
                }
                Some(State::Document { left: len - 4 })
            }
            State::Document { left } => {
                let before = *input;
                let is_over = skip(left, input);
                let seen = &before[..before.len() - input.len()];
                match self.part {
                    Part::Documents => self.hash(seen),
                    _ => {
                        let room = KEPT_BYTES_MAX.saturating_sub(self.kept.len());
                        self.kept.extend_from_slice(&seen[..seen.len().min(room)]);
                    }
                }
                is_over.then(|| self.document())
            }
            State::Broken(_) => {
                *input = &[];
                None
            }
        }
    }

    fn hash(&mut self, bytes: &[u8]) {
        if let Some(crc) = &mut self.crc {
            crc.update(bytes);
        }
    }

    fn terminator(&mut self) -> State {
        self.part = match self.part {
            Part::Announced | Part::Ended => Part::Segment,
            Part::Documents => {
                self.put_back();
                Part::Segment
            }
            Part::Header | Part::Segment => return State::Broken("it is damaged: a segment has no head".into()),
        };
        State::Length
    }

    fn put_back(&mut self) {
        if let Some(collection) = self.collections.get_mut(&self.current) {
            collection.crc = self.crc.take();
            collection.documents = self.documents;
        }
    }

    fn document(&mut self) -> State {
        let kept = std::mem::take(&mut self.kept);
        let document = Fields(&kept);
        match self.part {
            Part::Header => {
                self.version = document.text("tool_version").unwrap_or_default();
                self.server = document.text("server_version").unwrap_or_default();
                self.part = Part::Announced;
            }
            Part::Announced => {
                let kind = document.text("type").unwrap_or_default();
                let name = document.namespace();
                // Older versions do not tell the kind.
                let is_without_end = kind == "view" || kind == "timeseries" || kind.is_empty() && document.is_view();
                self.order.push(name.clone());
                self.collections.insert(name, Collection { is_without_end, ..Collection::default() });
            }
            Part::Segment => return self.segment(&document),
            Part::Documents => self.documents += 1,
            Part::Ended => {}
        }
        match self.order.len() > DUMP_PARTS_MAX {
            true => State::Broken(String::new()),
            false => State::Length,
        }
    }

    /// The head of a segment: of which collection, and whether that ends.
    fn segment(&mut self, head: &Fields) -> State {
        let before = std::mem::replace(&mut self.current, head.namespace());
        let is_open = |collection: &Collection| !collection.has_ended && !collection.is_without_end;
        self.has_turns |= before != self.current && self.collections.get(&before).is_some_and(is_open);
        if !self.collections.contains_key(&self.current) {
            // The collection behind one of time series was not announced by versions before 100.
            self.order.push(self.current.clone());
        }
        let collection = self.collections.entry(self.current.clone()).or_default();
        if collection.has_ended {
            return State::Broken(format!("{} goes on behind its end", self.current));
        }
        let crc = collection.crc.take().unwrap_or_else(checksum::ecma);
        if head.value("EOF", 8) != Some(&[1]) {
            self.crc = Some(crc);
            self.documents = collection.documents;
            self.part = Part::Documents;
            return State::Length;
        }
        collection.has_ended = true;
        self.part = Part::Ended;
        match head.value("CRC", 18).map(little) == Some(crc.finalize()) {
            true => State::Length,
            false => State::Broken(format!("{} does not fit its checksum", self.current)),
        }
    }

    fn judge(&self) -> Dump {
        match &self.state {
            State::Broken(why) if why.is_empty() => return unknown("it has more collections than are kept track of"),
            State::Broken(why) => return incomplete(why.clone()),
            State::Length if self.part == Part::Segment && self.gather.is_empty() => {}
            _ => return incomplete("it ends in the middle of a collection, or of what announces them"),
        }
        let open =
            |name: &&String| self.collections.get(*name).is_some_and(|collection| !collection.has_ended && !collection.is_without_end);
        match self.order.iter().find(open) {
            Some(name) => incomplete(format!("collection {} has no end", super::bytes::short(name))),
            None => complete(),
        }
    }
}

/// A BSON document's fields; only those of its first level are looked at.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn namespace(&self) -> String {
        let (database, collection) = (self.text("db").unwrap_or_default(), self.text("collection").unwrap_or_default());
        if database.is_empty() { collection } else { format!("{database}.{collection}") }
    }

    /// Whether its metadata, which is JSON, is that of a view.
    fn is_view(&self) -> bool {
        let metadata = self.value("metadata", 2).and_then(|value| value.get(4..value.len() - 1));
        let metadata: Option<serde_json::Value> = metadata.and_then(|metadata| serde_json::from_slice(metadata).ok());
        metadata.is_some_and(|metadata| metadata["options"]["viewOn"].is_string())
    }

    fn text(&self, name: &str) -> Option<String> {
        self.value(name, 2).map(|value| text(value.get(4..value.len() - 1).unwrap_or_default()))
    }

    /// The bytes of a field of the given type; nothing if there is none, or if a field of a type that is not known comes before it.
    fn value(&self, name: &str, kind: u8) -> Option<&'a [u8]> {
        let mut rest = self.0.get(4..)?;
        loop {
            let (found, after) = rest.split_first()?;
            let end = memchr::memchr(0, after)?;
            let (field, after) = (&after[..end], &after[end + 1..]);
            let size = |at: usize| after.get(at..at + 4).map(little).and_then(|size| usize::try_from(size).ok());
            let len = match found {
                // Double, time, timestamp, 64-bit number.
                1 | 9 | 17 | 18 => 8,
                2 => size(0)?.checked_add(4)?,
                3 | 4 => size(0)?,
                8 => 1,
                10 => 0,
                16 => 4,
                _ => return None,
            };
            let (value, after) = after.split_at_checked(len)?;
            if field == name.as_bytes() && *found == kind && (kind != 2 || len >= 5) {
                return Some(value);
            }
            rest = after;
        }
    }
}

impl Parser for MongoArchive {
    fn feed(&mut self, bytes: &[u8]) {
        let mut input = bytes;
        while !input.is_empty() {
            if let Some(state) = self.step(&mut input) {
                self.state = state;
            }
        }
    }

    fn finish(&mut self) -> Dump {
        // Behind a segment that says so, the current collection has ended, and others have their numbers already.
        if self.part == Part::Documents {
            self.put_back();
        }
        let mut tables = Tables::default();
        for name in &self.order {
            if let Some(collection) = self.collections.get(name).filter(|collection| !collection.is_without_end) {
                tables.add(name, Some(collection.documents));
            }
        }
        Dump {
            producer: "mongodump".into(),
            version: std::mem::take(&mut self.version),
            server: std::mem::take(&mut self.server),
            rows: tables.rows(),
            table_count: tables.count,
            tables: tables.list,
            ..self.judge()
        }
    }

    fn advice(&self) -> Vec<&'static str> {
        match self.has_turns {
            true => vec!["mongodump --numParallelCollections=1: collections came in turns, in another order each night"],
            false => Vec::new(),
        }
    }
}

/// Documents one after the other. One that was cut between two of them looks whole.
#[derive(Default)]
pub struct Bson {
    gather: Gather,
    left: u64,
    documents: u64,
    is_broken: bool,
}

impl Parser for Bson {
    fn feed(&mut self, bytes: &[u8]) {
        let mut input = bytes;
        while !input.is_empty() && !self.is_broken {
            if self.left > 0 {
                self.documents += u64::from(skip(&mut self.left, &mut input));
            } else if self.gather.fill(4, &mut input) {
                let len = little(self.gather.bytes());
                self.gather.clear();
                self.is_broken = !(5..=DOCUMENT_BYTES_MAX).contains(&len);
                self.left = len.saturating_sub(4);
            }
        }
    }

    fn finish(&mut self) -> Dump {
        let judged = match (self.is_broken, self.left == 0 && self.gather.is_empty()) {
            (true, _) => incomplete("it is damaged: where a document should begin there is none"),
            (_, false) => incomplete("it ends in the middle of a document"),
            _ => complete(),
        };
        Dump { producer: "mongodump".into(), rows: Some(self.documents), ..judged }
    }
}
