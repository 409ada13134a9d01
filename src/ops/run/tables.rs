//! A database of PostgreSQL as several streams at once: who holds its state, and which streams there are.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::FetchSecret;
use super::hooks::command_line;
use super::said::Said;
use super::secrets::{Secrets, secrets_of};
use crate::config::{HOLD, INDEXES_STREAM, Portion, SCHEMA_STREAM, StreamCommand, Tables, list_tables, table_stream};
use crate::error::{Error, Result};
use crate::limits::*;
use crate::ops::backup::{CommandStream, CommandStreams};
use crate::source::{CommandLine, Patience, Session, Setting};

/// Behind every answer; no line of one looks so.
const END: &str = "(end)\n";

/// What it takes to find out about the streams of a database, and to make them.
pub(super) struct Opening {
    pub tables: Tables,
    pub patience: Patience,
    pub secrets: FetchSecret,
    pub said: Arc<Said>,
    pub interrupted: Arc<AtomicBool>,
}

/// A table with a stream of its own.
struct Table {
    /// For pg_dump.
    pattern: OsString,
    stream: String,
}

impl Opening {
    /// Takes hold of the state of the database, and lists its tables in it.
    pub fn open(self) -> Result<CommandStreams> {
        let holder = &self.tables.holder;
        let secrets = secrets_of(holder, &self.secrets, &self.said)?;
        let setting = self.setting(holder, secrets.clone());
        let mut session = Session::start(&command_line(&holder.line)?, setting, self.said.sink(), self.interrupted.clone())?;
        let end = format!("SELECT '{}';\n", END.trim_end());
        let state = session.ask(&format!("{HOLD}{end}"), END)?;
        let state = String::from_utf8(state).ok().map(|state| state.trim().to_owned()).filter(|state| is_state(state));
        let Some(state) = state else { return Err(self.strange("no id of a snapshot")) };
        let listed = session.ask(&format!("{}{end}", list_tables()), END)?;
        let tables = own_streams(&listed).ok_or_else(|| self.strange("no list of tables"))?;
        let patterns: Vec<OsString> = tables.iter().map(|table| table.pattern.clone()).collect();
        let stream = |name: &str, portion| {
            let line = self.tables.line(&state, portion);
            let Some((program, args)) = line.split_first() else { return Err(Error::Usage("A command is empty".into())) };
            let line = CommandLine { program: program.clone(), args: args.to_vec() };
            Ok(CommandStream { name: name.into(), line, setting: self.setting(&self.tables.dump, secrets.clone()) })
        };
        // What may take longest is begun first.
        let mut list = vec![stream(SCHEMA_STREAM, Portion::Schema(&patterns))?];
        for table in &tables {
            list.push(stream(&table.stream, Portion::Table(&table.pattern))?);
        }
        list.push(stream(INDEXES_STREAM, Portion::Indexes)?);
        Ok(CommandStreams { list, guard: Box::new(session) })
    }

    fn setting(&self, command: &StreamCommand, secrets: Secrets) -> Setting {
        let secrets: crate::source::SecretVariables = Box::new(move || Ok(secrets));
        Setting { variables: command.variables.clone(), secrets: Some(secrets), patience: self.patience, input: None }
    }

    fn strange(&self, what: &str) -> Error {
        let program = self.tables.holder.line.first().cloned().unwrap_or_default();
        Error::Command { program, outcome: format!("answered with {what}"), stderr_tail: Vec::new() }
    }
}

/// As PostgreSQL writes them; it becomes part of an argument.
fn is_state(state: &str) -> bool {
    !state.is_empty() && state.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// The tables of a list that have streams of their own. Nothing, if it is no such list. What is left out is in the first stream.
fn own_streams(listed: &[u8]) -> Option<Vec<Table>> {
    let text = std::str::from_utf8(listed).ok()?;
    let mut tables = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ').map(unhex);
        let (pattern, schema, name) = (words.next()??, words.next()??, words.next()??);
        if words.next().is_some() {
            return None;
        }
        let (Ok(schema), Ok(name)) = (String::from_utf8(schema), String::from_utf8(name)) else { continue };
        let Some(stream) = table_stream(&schema, &name) else { continue };
        tables.push(Table { pattern: OsString::from_vec(pattern), stream });
    }
    tables.truncate(TABLE_STREAMS_MAX);
    Some(tables)
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::try_from(digit(pair[0])? * 16 + digit(*pair.get(1)?)?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    fn hex(text: &str) -> String {
        text.bytes().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn lists_of_tables_are_read_and_nothing_else() {
        let row = |schema: &str, name: &str| format!("{} {} {}\n", hex(&format!("\"{schema}\".\"{name}\"")), hex(schema), hex(name));
        let tables = own_streams(format!("{}{}", row("public", "a b"), row("s", "t\n")).as_bytes()).unwrap();
        let found: Vec<(&[u8], &str)> = tables.iter().map(|table| (table.pattern.as_bytes(), &*table.stream)).collect();
        assert_eq!(found, [(&b"\"public\".\"a b\""[..], "2-data/public.a%20b.sql"), (b"\"s\".\"t\n\"", "2-data/s.t%0A.sql")]);
        assert_eq!(own_streams(b"").unwrap().len(), 0);
        // A name that makes no file name, and too many tables, are left to the first stream.
        assert_eq!(own_streams(row("s", &"'".repeat(99)).as_bytes()).unwrap().len(), 0);
        let many: String = (0..TABLE_STREAMS_MAX + 9).map(|number| row("s", &number.to_string())).collect();
        assert_eq!(own_streams(many.as_bytes()).unwrap().len(), TABLE_STREAMS_MAX);
        for strange in ["no hex here", "61 62", "61 62 63 64", "61 62 6", "\u{e9}1 62 63"] {
            assert!(own_streams(strange.as_bytes()).is_none(), "{strange}");
        }
        assert!(is_state("00000003-0000001B-1") && !is_state("") && !is_state("a b") && !is_state("a\nb"));
    }
}
