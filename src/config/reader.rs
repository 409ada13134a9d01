//! Walks a parsed TOML document, and collects every complaint with its place instead of stopping at the first.
//!
//! Whoever reads a table asks for each key it knows, then calls [`Table::finish`], which complains about all the others. What is wrong
//! counts as not there, so that reading goes on. No complaint ever holds a value that might be a secret.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::findings::{Complaint, Mention, Mentioned, Severity};
use super::suggest;
use super::values;

/// The document, and what was found in it so far.
pub(super) struct Reader<'a> {
    places: &'a Places<'a>,
    /// Where relative paths begin.
    folder: &'a Path,
    found: RefCell<Found>,
}

/// What was found in a document.
#[derive(Default)]
pub(super) struct Found {
    /// About a value or key.
    pub complaints: Vec<Complaint>,
    /// About a table as a whole, often about what is not in it.
    pub of_tables: Vec<Complaint>,
    pub mentions: Vec<Mention>,
    /// Every key that is known, by kind of table.
    pub keys: BTreeSet<(&'static str, &'static str)>,
}

impl<'a> Reader<'a> {
    pub fn new(places: &'a Places<'a>, folder: &'a Path) -> Self {
        Self { places, folder, found: RefCell::default() }
    }

    pub fn finish(self) -> Found {
        self.found.into_inner()
    }

    pub fn errors(&self) -> usize {
        let found = self.found.borrow();
        let all = found.complaints.iter().chain(&found.of_tables);
        all.filter(|complaint| complaint.severity == Severity::Error).count()
    }

    pub fn complain(&self, at: usize, text: impl Into<String>) {
        let complaint = self.complaint(at, Severity::Error, text.into());
        self.found.borrow_mut().complaints.push(complaint);
    }

    fn complaint(&self, at: usize, severity: Severity, text: String) -> Complaint {
        let (line, column) = self.places.of(at);
        Complaint { line, column, severity, text }
    }

    pub fn mention(&self, at: usize, what: Mentioned) {
        let (line, column) = self.places.of(at);
        self.found.borrow_mut().mentions.push(Mention { line, column, what });
    }
}

/// Lines of a text.
pub(super) struct Places<'a> {
    text: &'a str,
    /// Where each line begins.
    starts: Vec<usize>,
}

impl<'a> Places<'a> {
    pub fn new(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// Line and column of a byte, both counted from 1, columns in characters.
    pub fn of(&self, at: usize) -> (usize, usize) {
        let mut at = at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        let line = self.starts.partition_point(|start| *start <= at);
        let before = &self.text[self.starts[line - 1]..at];
        (line, before.chars().count() + 1)
    }

    /// The text of a line.
    pub fn line(&self, line: usize) -> &'a str {
        let rest = self.starts.get(line - 1).map_or("", |start| &self.text[*start..]);
        rest.split('\n').next().unwrap_or_default()
    }
}

/// A table, and which keys of it are known.
pub(super) struct Table<'a> {
    pub reader: &'a Reader<'a>,
    /// What the table is called in the manual, such as `jobs.NAME`.
    kind: &'static str,
    /// As in the file, such as `jobs.orders`.
    pub name: String,
    table: &'a DeTable<'a>,
    pub at: usize,
    asked: RefCell<Vec<&'static str>>,
}

/// A value, and the key it stands behind.
#[derive(Clone)]
pub(super) struct Value<'a> {
    pub reader: &'a Reader<'a>,
    pub key: String,
    value: &'a DeValue<'a>,
    pub at: usize,
    pub key_at: usize,
}

impl<'a> Table<'a> {
    pub fn new(reader: &'a Reader<'a>, kind: &'static str, name: String, table: &'a DeTable<'a>, at: usize) -> Self {
        Self { reader, kind, name, table, at, asked: RefCell::default() }
    }

    /// What stands behind the key; it is known from now on.
    pub fn get(&self, key: &'static str) -> Option<Value<'a>> {
        let is_new = !self.asked.borrow().contains(&key);
        if is_new {
            self.asked.borrow_mut().push(key);
            self.reader.found.borrow_mut().keys.insert((self.kind, key));
        }
        let (name, value) = self.table.get_key_value(key)?;
        Some(self.value(key, name.span(), value))
    }

    fn value(&self, key: &str, name: Range<usize>, value: &'a toml::Spanned<DeValue<'a>>) -> Value<'a> {
        Value { reader: self.reader, key: key.to_owned(), value: value.get_ref(), at: value.span().start, key_at: name.start }
    }

    /// All of a table whose keys are the user's own names.
    pub fn entries(&self) -> Vec<(&'a str, Value<'a>)> {
        let entries = self.table.iter().map(|(name, value)| (&**name.get_ref(), self.value(name.get_ref(), name.span(), value)));
        let mut entries: Vec<(&'a str, Value<'a>)> = entries.collect();
        entries.sort_by_key(|(_, value)| value.key_at);
        entries
    }

    pub fn is_there(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    pub fn complain(&self, text: impl Into<String>) {
        let complaint = self.reader.complaint(self.at, Severity::Error, text.into());
        self.reader.found.borrow_mut().of_tables.push(complaint);
    }

    pub fn warn(&self, text: impl Into<String>) {
        let complaint = self.reader.complaint(self.at, Severity::Warning, text.into());
        self.reader.found.borrow_mut().of_tables.push(complaint);
    }

    /// Complains about every key that nobody asked for.
    pub fn finish(&self) {
        let asked = self.asked.borrow();
        for (key, value) in self.entries() {
            if !asked.contains(&key) {
                let advice = suggest::advice(key, &asked);
                self.reader.complain(value.key_at, format!("unknown key {}{}{advice}", quoted(key), self.in_place()));
            }
        }
    }

    fn in_place(&self) -> String {
        if self.name.is_empty() { String::new() } else { format!(" in {}", self.name) }
    }

    pub fn text(&self, key: &'static str) -> Option<String> {
        self.get(key)?.text().map(str::to_owned)
    }

    pub fn flag(&self, key: &'static str) -> Option<bool> {
        self.get(key)?.flag()
    }

    pub fn duration(&self, key: &'static str) -> Option<Duration> {
        self.get(key)?.duration()
    }

    pub fn size(&self, key: &'static str) -> Option<u64> {
        self.get(key)?.size()
    }

    pub fn path(&self, key: &'static str) -> Option<PathBuf> {
        self.get(key)?.path()
    }

    pub fn texts(&self, key: &'static str) -> Option<Vec<String>> {
        self.get(key)?.texts()
    }

    pub fn command(&self, key: &'static str) -> Option<Vec<String>> {
        self.get(key)?.command()
    }

    pub fn table(&self, key: &'static str, kind: &'static str) -> Option<Table<'a>> {
        self.get(key)?.table(kind, &self.below(key))
    }

    /// `[[tables]]`, or one `[table]`.
    pub fn tables(&self, key: &'static str, kind: &'static str) -> Vec<Table<'a>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let name = self.below(key);
        match value.value {
            DeValue::Array(_) => value.items().iter().filter_map(|item| item.table(kind, &name)).collect(),
            _ => value.table(kind, &name).into_iter().collect(),
        }
    }

    /// The name of a table in this one.
    pub fn below(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let value = self.get(key)?;
        let text = value.text()?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice);
        if found.is_none() {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            value.complain(format!("write {}, not {}", any_of(&words), quoted(text)));
        }
        found
    }
}

impl<'a> Value<'a> {
    pub fn complain(&self, text: impl AsRef<str>) {
        self.reader.complain(self.at, format!("{}: {}", self.key, text.as_ref()));
    }

    fn expected(&self, what: &str) {
        let is = match self.value {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.complain(format!("write {what}, not {is}"));
    }

    pub fn is_text(&self) -> bool {
        matches!(self.value, DeValue::String(_))
    }

    pub fn is_list(&self) -> bool {
        matches!(self.value, DeValue::Array(_))
    }

    pub fn is_table(&self) -> bool {
        matches!(self.value, DeValue::Table(_))
    }

    pub fn is_flag(&self) -> bool {
        matches!(self.value, DeValue::Boolean(_))
    }

    pub fn is_number(&self) -> bool {
        matches!(self.value, DeValue::Integer(_) | DeValue::Float(_))
    }

    /// A text that is not empty, without control characters.
    pub fn text(&self) -> Option<&'a str> {
        let DeValue::String(text) = self.value else {
            self.expected("a text in quotes");
            return None;
        };
        if text.is_empty() {
            self.complain("it is empty");
            return None;
        }
        // Line ends and tabs have their place in SQL and shell.
        if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
            self.complain("there is a control character in it");
            return None;
        }
        Some(text)
    }

    /// A text on one line that no program takes for an option.
    pub fn plain(&self) -> Option<String> {
        let text = self.text()?;
        if text.starts_with('-') || text.contains(['\n', '\t']) {
            self.complain("it must not begin with - or have line ends or tabs in it");
            return None;
        }
        Some(text.to_owned())
    }

    pub fn port(&self) -> Option<u16> {
        let port = u16::try_from(self.count()?).ok().filter(|port| *port > 0);
        if port.is_none() {
            self.complain("write a port from 1 to 65535");
        }
        port
    }

    pub fn flag(&self) -> Option<bool> {
        if !self.is_flag() {
            self.expected("true or false");
        }
        self.value.as_bool()
    }

    /// A whole number that is not negative.
    pub fn count(&self) -> Option<u64> {
        match self.value {
            DeValue::Integer(number) => {
                let value = u64::from_str_radix(number.as_str(), number.radix()).ok();
                if value.is_none() {
                    self.complain("write a number that is not negative, and not above 18446744073709551615");
                }
                value
            }
            _ => {
                self.expected("a whole number");
                None
            }
        }
    }

    pub fn number(&self) -> Option<f64> {
        let parsed = match self.value {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number as f64),
            DeValue::Float(number) => number.as_str().parse().ok(),
            _ => {
                self.expected("a number");
                return None;
            }
        };
        let finite = parsed.filter(|number| number.is_finite());
        if finite.is_none() {
            self.complain("write a number with at most 18 digits");
        }
        finite
    }

    /// A text that `parse` can read, or complains why not.
    pub fn parsed<T>(&self, example: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        if !self.is_text() {
            self.expected(example);
            return None;
        }
        let parsed = parse(self.text()?);
        parsed.map_err(|why| self.complain(why)).ok()
    }

    pub fn duration(&self) -> Option<Duration> {
        self.parsed("a length of time in quotes, such as \"90m\", \"26h\" or \"7d\"", values::parse_duration)
    }

    pub fn size(&self) -> Option<u64> {
        if self.is_number() {
            return self.count();
        }
        self.parsed("a size in quotes, such as \"500M\" or \"10G\"", |text| {
            values::parse_size(text).ok_or_else(|| "write a size such as \"500M\" or \"10G\" (units of 1024)".into())
        })
    }

    /// A path, made absolute by the folder the file lies in.
    pub fn path(&self) -> Option<PathBuf> {
        self.joined(self.text()?)
    }

    pub fn joined(&self, text: &str) -> Option<PathBuf> {
        if text.starts_with('~') {
            self.complain("~ means nothing here; write the whole path");
            return None;
        }
        Some(self.reader.folder.join(text))
    }

    pub fn items(&self) -> Vec<Value<'a>> {
        let DeValue::Array(array) = self.value else {
            self.expected("a list, as in [\"a\", \"b\"]");
            return Vec::new();
        };
        let item = |item: &'a toml::Spanned<DeValue<'a>>| {
            let at = item.span().start;
            Value { reader: self.reader, key: self.key.clone(), value: item.get_ref(), at, key_at: at }
        };
        array.iter().map(item).collect()
    }

    /// A list of texts; a single one needs no brackets.
    pub fn texts(&self) -> Option<Vec<String>> {
        if self.is_text() {
            return Some(vec![self.text()?.to_owned()]);
        }
        if !self.is_list() {
            self.expected("a list of texts, as in [\"a\", \"b\"]");
            return None;
        }
        Some(self.items().iter().filter_map(Value::text).map(str::to_owned).collect())
    }

    /// A program with its arguments, in which no password may stand.
    pub fn command(&self) -> Option<Vec<String>> {
        let line = self.line()?;
        values::refuse_secrets(&line).map_err(|why| self.complain(why)).ok()?;
        Some(line)
    }

    /// A program with its arguments, whatever they are.
    pub fn line(&self) -> Option<Vec<String>> {
        if !self.is_list() {
            let advice = if self.is_text() { "; for a shell write [\"bash\", \"-o\", \"pipefail\", \"-c\", \"...\"]" } else { "" };
            self.complain(format!("write a program and its arguments as a list, as in [\"/usr/bin/program\", \"argument\"]{advice}"));
            return None;
        }
        let items = self.items();
        let Some(first) = items.first() else {
            self.complain("there is no program in it");
            return None;
        };
        let mut line = vec![first.text()?.to_owned()];
        for item in &items[1..] {
            // An empty argument is one.
            match item.value {
                DeValue::String(text) if text.is_empty() => line.push(String::new()),
                _ => line.push(item.text()?.to_owned()),
            }
        }
        self.reader.mention(first.at, Mentioned::Program(line[0].clone()));
        Some(line)
    }

    pub fn table(&self, kind: &'static str, name: &str) -> Option<Table<'a>> {
        let DeValue::Table(table) = self.value else {
            self.expected(&format!("a table, as in [{name}] or {} = {{ ... }}", self.key));
            return None;
        };
        Some(Table::new(self.reader, kind, name.to_owned(), table, self.at))
    }
}

/// A name out of the file for a message: as it is if it is short and plain.
pub(super) fn quoted(text: &str) -> String {
    let shown = crate::error::show_bytes(text.as_bytes());
    match shown.char_indices().nth(60) {
        Some((end, _)) => format!("\"{}...\"", &shown[..end]),
        None => format!("\"{shown}\""),
    }
}

/// `a, b or c`
pub(super) fn any_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}
