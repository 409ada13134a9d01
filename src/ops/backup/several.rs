//! Several sources in one snapshot: how they are opened, and whether what came is what was expected.

use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use super::known::Known;
use super::{BackupOptions, Input, shown_roots, stream_path};
use crate::config::Expect;
use crate::error::{Error, Result};
use crate::format::dump::Dump;
use crate::format::entry::{Entry, Meta, is_path};
use crate::format::snapshot::Part;
use crate::ops::overheard::Overheard;
use crate::repo::{Repository, SnapshotFilter};
use crate::source::{
    self, CommandLine, CommandSource, Filter, MemberSource, More, Setting, SeveralSource, Sink, Slab, Source, StreamSource, Streams, Tally,
    TreeOptions,
};

/// Opens a stream when its turn comes.
pub type OpenStream = Box<dyn FnOnce() -> Result<Box<dyn Read + Send>> + Send>;
pub(super) type Tallies = Arc<Mutex<Vec<Tally>>>;

/// One of several sources.
pub struct Member {
    /// Of the stream; not looked at for files and folders.
    pub name: String,
    pub input: MemberInput,
    pub expect: Expect,
}

/// Where a member's bytes come from.
pub enum MemberInput {
    /// What a command writes to its standard output.
    Command { line: CommandLine, setting: Setting, stderr: Sink },
    /// Bytes of a reader.
    Reader(OpenStream),
    /// What commands write that are known only when their turn comes, several at once. The member's name is that of their folder.
    Streams { open: OpenCommands, at_once: usize, stderr: Box<dyn Fn() -> Sink + Send> },
    /// Files and folders.
    Tree { roots: Vec<PathBuf>, filter: Filter, one_file_system: bool },
}

/// A command whose output is a stream; its name is the path below the folder.
pub struct CommandStream {
    pub name: String,
    pub line: CommandLine,
    pub setting: Setting,
}

/// Commands in the order in which they are to be started, and what has to be there until all have ended.
pub struct CommandStreams {
    pub list: Vec<CommandStream>,
    pub guard: Box<dyn Send>,
}

/// Finds out which commands there are.
pub type OpenCommands = Box<dyn FnOnce() -> Result<CommandStreams> + Send>;

impl Member {
    /// The path of its stream, if it is one and its name can be a path; of several the folder's, with a slash.
    pub(super) fn stream(&self) -> Option<Vec<u8>> {
        match self.input {
            MemberInput::Tree { .. } => None,
            MemberInput::Streams { .. } => stream_path(&self.name).ok().map(|path| [&path[..], b"/"].concat()),
            _ => stream_path(&self.name).ok(),
        }
    }

    /// What was asked for.
    pub(super) fn paths(&self) -> Vec<String> {
        match &self.input {
            MemberInput::Tree { roots, .. } => shown_roots(roots),
            _ => vec![self.name.clone()],
        }
    }

    fn shown(&self) -> String {
        self.paths().join(" ")
    }
}

/// What is expected of the members, by their names.
pub(super) fn expectations(input: &Input) -> Vec<(String, Expect)> {
    let Input::Several(members) = input else { return Vec::new() };
    members.iter().map(|member| (member.shown(), member.expect.clone())).collect()
}

/// The same with an ear to what its command says. Who gives several listens to them himself: these may get secrets, which have to be
/// blotted out first.
pub(super) fn overhear(input: Input, overheard: &Overheard) -> Input {
    match input {
        Input::Command { name, line, stderr } => Input::Command { name, line, stderr: overheard.listen(stderr) },
        other => other,
    }
}

/// The members as one source.
pub(super) fn open(
    members: Vec<Member>,
    known: &Arc<Known>,
    meta: &Meta,
    options: &BackupOptions,
    stop: Arc<AtomicBool>,
) -> Result<SeveralSource> {
    if members.is_empty() {
        return Err(Error::Usage("There is no source to back up".into()));
    }
    let mut opened = Vec::new();
    for member in members {
        let name = member.shown();
        let path = || stream_path(&member.name);
        let may_be_empty = options.allow_empty;
        let source = match member.input {
            MemberInput::Command { line, setting, stderr } => {
                let source = CommandSource::new(path()?, meta.clone(), line, stderr, stop.clone()).with_setting(setting);
                MemberSource::Stream { path: path()?, source: Box::new(source), may_be_empty }
            }
            MemberInput::Reader(open) => {
                let waiting = Some((path()?, meta.clone(), open));
                MemberSource::Stream { path: path()?, source: Box::new(LateStream { waiting, opened: None }), may_be_empty }
            }
            MemberInput::Streams { open, at_once, stderr } => {
                let (folder, meta, stop) = (path()?, meta.clone(), stop.clone());
                let open = Box::new({
                    let folder = folder.clone();
                    move || open().and_then(|streams| command_sources(streams, &folder, &meta, &*stderr, &stop))
                });
                MemberSource::Streams { folder, open, at_once }
            }
            MemberInput::Tree { roots, filter, one_file_system } => {
                MemberSource::Tree { roots, options: TreeOptions { filter, one_file_system, ..TreeOptions::default() } }
            }
        };
        opened.push(source::Member { name, source });
    }
    let known = known.clone();
    SeveralSource::new(opened, Arc::new(move |entry: &Entry, size| known.unchanged(entry, size)), stop)
}

/// Commands as sources of streams below a folder.
fn command_sources(
    streams: CommandStreams,
    folder: &[u8],
    meta: &Meta,
    stderr: &dyn Fn() -> Sink,
    stop: &Arc<AtomicBool>,
) -> Result<Streams> {
    let source = |CommandStream { name, line, setting }: CommandStream| {
        let path = [folder, b"/", name.as_bytes()].concat();
        if !is_path(&path) {
            return Err(Error::Usage(format!("{name} cannot be the name of a stream")));
        }
        let source = CommandSource::new(path, meta.clone(), line, stderr(), stop.clone()).with_setting(setting);
        Ok(Box::new(source.named(name)) as Box<dyn Source>)
    };
    Ok(Streams { list: streams.list.into_iter().map(source).collect::<Result<_>>()?, guard: streams.guard })
}

/// A stream that is opened by its first `fill`.
struct LateStream {
    waiting: Option<(Vec<u8>, Meta, OpenStream)>,
    opened: Option<StreamSource>,
}

impl Source for LateStream {
    fn fill(&mut self, slab: &mut Slab) -> Result<More> {
        if let Some((path, meta, open)) = self.waiting.take() {
            self.opened = Some(StreamSource::new(path, open()?, meta));
        }
        self.opened.as_mut().map_or(Ok(More::No), |stream| stream.fill(slab))
    }
}

/// What came of the members, and what of it was not expected. `filter` lets older snapshots of the same pass.
pub(super) fn judge(
    repository: &Repository,
    expected: &[(String, Expect)],
    tallies: &[Tally],
    dumps: &[Dump],
    filter: &SnapshotFilter,
) -> Result<Vec<(Part, f64)>> {
    let judge = |((name, expect), tally): (&(String, Expect), &Tally)| {
        let mut unmet = Vec::new();
        if let Some(min) = expect.min_size.filter(|min| tally.bytes < *min) {
            unmet.push(format!("{name} has {} bytes; at least {min} are expected", tally.bytes));
        }
        if let Some(max) = expect.max_shrink {
            unmet.extend(last_good(repository, name, filter)?.and_then(|before| shrunk(name, tally.bytes, before, max)));
        }
        unmet.extend(missing(name, expect, dumps));
        let part = Part { name: name.clone(), bytes: tally.bytes, files: tally.files, unmet };
        Ok((part, tally.time.as_secs_f64()))
    };
    expected.iter().zip(tallies).map(judge).collect()
}

/// Tables that are not there, or have too few or too many rows.
fn missing(name: &str, expect: &Expect, dumps: &[Dump]) -> Vec<String> {
    if expect.tables.is_empty() && expect.rows.is_empty() {
        return Vec::new();
    }
    // Of a stream its own, of folders all that lie in them.
    let roots: Vec<&str> = name.split(' ').map(|root| root.trim_matches('/')).collect();
    let is_own = |dump: &&Dump| {
        let lies_in = |root: &&str| dump.path.strip_prefix(*root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        dump.path == name.trim_start_matches('/') || roots.iter().any(lies_in)
    };
    let own: Vec<&Dump> = dumps.iter().filter(is_own).collect();
    let are_all_named = own.iter().all(|dump| dump.tables.len() as u64 == dump.table_count);
    let find = |wanted: &str| {
        let mut tables = own.iter().flat_map(|dump| &dump.tables);
        tables.find(|table| is_called(&table.name, wanted))
    };
    let mut unmet = Vec::new();
    for table in &expect.tables {
        match find(table) {
            Some(_) => {}
            None if own.is_empty() => unmet.push(format!("{name} is no dump whose tables can be told; {table} is expected in it")),
            None if are_all_named => unmet.push(format!("{name} has no table {table}")),
            None => unmet.push(format!("{name} has too many tables to tell whether {table} is among them")),
        }
    }
    for (table, (least, most)) in &expect.rows {
        match find(table).map(|table| table.rows) {
            None => unmet.push(format!("{name} has no table {table}, of which rows are expected")),
            Some(None) => unmet.push(format!("{name} is of a format in which the rows of {table} cannot be counted")),
            Some(Some(rows)) if least.is_some_and(|least| rows < least) => {
                unmet.push(format!("{table} in {name} has {rows} rows; at least {} are expected", least.unwrap_or(0)));
            }
            Some(Some(rows)) if most.is_some_and(|most| rows > most) => {
                unmet.push(format!("{table} in {name} has {rows} rows; at most {} are expected", most.unwrap_or(0)));
            }
            Some(Some(_)) => {}
        }
    }
    unmet
}

/// `public.orders` is called `orders`, too.
fn is_called(table: &str, wanted: &str) -> bool {
    table == wanted || table.rsplit_once('.').is_some_and(|(_, last)| last == wanted)
}

/// Bytes of a member in the newest snapshot in which it was as expected.
fn last_good(repository: &Repository, name: &str, filter: &SnapshotFilter) -> Result<Option<u64>> {
    let is_good = |part: &&Part| part.name == name && part.unmet.is_empty();
    let found =
        repository.newest(0, |stored| filter.accepts(&stored.snapshot) && stored.snapshot.parts.iter().any(|part| is_good(&part)))?;
    Ok(found.and_then(|stored| stored.snapshot.parts.iter().find(is_good).map(|part| part.bytes)))
}

fn shrunk(name: &str, bytes: u64, before: u64, max: f64) -> Option<String> {
    let lost = before.saturating_sub(bytes) as f64 / before.max(1) as f64;
    let (percent, allowed) = (100.0 * lost, 100.0 * max);
    let text = || {
        format!("{name} has {bytes} bytes, {percent:.0} % less than the last good one with {before}; at most {allowed:.0} % are allowed")
    };
    (lost > max).then(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_rows_are_looked_for() {
        let table = |name: &str, rows| crate::format::dump::Table { name: name.into(), rows };
        let tables = vec![table("public.orders", Some(10)), table("users", None)];
        let dump = Dump { path: "a.sql".into(), table_count: 2, tables, ..Dump::default() };
        let expect = |tables: &[&str], rows: &[(&str, Option<u64>, Option<u64>)]| Expect {
            tables: tables.iter().map(|name| name.to_string()).collect(),
            rows: rows.iter().map(|(name, least, most)| (name.to_string(), (*least, *most))).collect(),
            ..Expect::default()
        };
        for (expect, dumps, unmet) in [
            (expect(&["orders", "public.orders", "users"], &[]), vec![dump.clone()], 0),
            (expect(&["order"], &[]), vec![dump.clone()], 1),
            (expect(&["orders"], &[]), vec![], 1),
            (expect(&["orders"], &[]), vec![Dump { path: "b.sql".into(), ..dump.clone() }], 1),
            (expect(&["more"], &[]), vec![Dump { table_count: 5, ..dump.clone() }], 1),
            (expect(&[], &[("orders", Some(10), Some(10))]), vec![dump.clone()], 0),
            (expect(&[], &[("orders", Some(11), None), ("users", Some(1), None), ("none", None, Some(1))]), vec![dump.clone()], 3),
            (expect(&[], &[("orders", None, Some(9))]), vec![dump.clone()], 1),
        ] {
            assert_eq!(missing("a.sql", &expect, &dumps).len(), unmet, "{expect:?}");
        }
        // Of folders, what lies in them.
        let inside = Dump { path: "srv/export/users.bson".into(), ..dump };
        assert!(missing("/srv/export /srv/more", &expect(&["users"], &[]), std::slice::from_ref(&inside)).is_empty());
        assert_eq!(missing("/srv/exp", &expect(&["users"], &[]), &[inside]).len(), 1);
    }

    #[test]
    fn shrinking_is_measured_against_what_was() {
        for (bytes, before, max, expected) in [(50, 100, 0.5, false), (49, 100, 0.5, true), (0, 0, 0.1, false), (200, 100, 0.0, false)] {
            assert_eq!(shrunk("x", bytes, before, max).is_some(), expected, "{bytes} {before}");
        }
    }
}
