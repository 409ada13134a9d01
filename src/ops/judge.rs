//! Judges dumps while a backup reads them: on the thread that reads ahead, which has time to spare.
//!
//! A file that looks unchanged is not read, so its verdict is that of the snapshot before.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::dumps::{Folder, Judge, demand_overall, unexpected};
use crate::error::{Result, show_bytes};
use crate::format::dump::{Dump, Verdict};
use crate::format::entry::{Entry, Flaw, Node, path_order};
use crate::format::snapshot::{Snapshot, SourceKind};
use crate::limits::*;
use crate::source::{Event, More, Slab, Source};

/// What a stream should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Expect {
    /// Dumps are recognised, and judged.
    #[default]
    Anything,
    /// Nothing is judged.
    Nothing,
    /// Anything but a dump of this format, or one of its forms, is incomplete.
    Format(String),
}

/// A dump's path, for people, and what would make the next one cost less.
pub type Advice = (String, &'static str);

/// The dumps of one backup with their verdicts, and how to make them cheaper.
pub type Judgement = (Vec<Dump>, Vec<Advice>);

/// The verdicts of one backup.
pub(super) struct Verdicts {
    found: Arc<Mutex<Found>>,
    expect: Expect,
    kind: SourceKind,
    /// Of several sources, the paths of the streams; of those below a folder, the folder with a slash.
    streams: Vec<Vec<u8>>,
    /// Of unchanged files, by path.
    older: HashMap<String, Dump>,
}

impl Verdicts {
    pub fn new(expect: &Expect, kind: SourceKind, streams: &[Vec<u8>], older: Option<&Snapshot>) -> Self {
        let dumps = older.filter(|_| kind != SourceKind::Stream).map(|older| older.dumps.clone()).unwrap_or_default();
        let older = dumps.into_iter().map(|dump| (dump.path.clone(), dump)).collect();
        Self { found: Arc::default(), expect: expect.clone(), kind, streams: streams.to_vec(), older }
    }

    /// The same source, watched.
    pub fn watch(&self, source: Box<dyn Source>) -> Box<dyn Source> {
        if self.expect == Expect::Nothing {
            return source;
        }
        Box::new(Watched {
            source,
            found: self.found.clone(),
            expect: self.expect.clone(),
            kind: self.kind,
            streams: self.streams.clone(),
            older: self.older.clone(),
            open: HashMap::new(),
            folders: Vec::new(),
        })
    }

    /// All of them, in path order but for folders, which come when their last file was seen.
    pub fn finish(self) -> Judgement {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let mut dumps = std::mem::take(&mut found.dumps);
        if found.out_of_order {
            dumps.sort_by(|a, b| path_order(a.path.as_bytes(), b.path.as_bytes()));
        }
        demand_overall(&mut dumps);
        (dumps, std::mem::take(&mut found.advice))
    }
}

/// As many verdicts as a snapshot tells of.
#[derive(Default)]
struct Found {
    dumps: Vec<Dump>,
    tables: usize,
    advice: Vec<Advice>,
    /// Some were read at once.
    out_of_order: bool,
}

impl Found {
    fn advise(&mut self, path: &str, advice: &[&'static str]) {
        if self.advice.len() < SNAPSHOT_DUMPS_MAX {
            self.advice.extend(advice.iter().map(|advice| (path.to_owned(), *advice)));
        }
    }

    fn push(&mut self, mut dump: Dump) {
        // A longer one is cut: then it is not found again the next night, and the file is not judged until it changes.
        let end = (0..=DUMP_PATH_BYTES_MAX.min(dump.path.len())).rev().find(|at| dump.path.is_char_boundary(*at));
        dump.path.truncate(end.unwrap_or(0));
        dump.tables.truncate(SNAPSHOT_TABLES_MAX - self.tables);
        if self.dumps.len() >= SNAPSHOT_DUMPS_MAX {
            // Bad news matters most.
            let spare = self.dumps.iter().rposition(|dump| dump.verdict != Verdict::Incomplete);
            let Some(spare) = spare.filter(|_| dump.verdict == Verdict::Incomplete) else { return };
            self.tables -= self.dumps.remove(spare).tables.len();
        }
        self.tables += dump.tables.len();
        self.dumps.push(dump);
    }
}

/// A source whose bytes are judged as they come.
struct Watched {
    source: Box<dyn Source>,
    found: Arc<Mutex<Found>>,
    expect: Expect,
    kind: SourceKind,
    streams: Vec<Vec<u8>>,
    older: HashMap<String, Dump>,
    /// The file that began last, in each lane.
    open: HashMap<u32, (Vec<u8>, Judge)>,
    /// The folder that was seen last, and those above it of which files were seen, the innermost last.
    folders: Vec<(Vec<u8>, Folder)>,
}

impl Source for Watched {
    fn fill(&mut self, slab: &mut Slab) -> Result<More> {
        let more = self.source.fill(slab)?;
        for event in &slab.events {
            self.see(event, slab);
        }
        if more == More::No {
            while self.leave() {}
        }
        Ok(more)
    }
}

impl Watched {
    fn see(&mut self, event: &Event, slab: &Slab) {
        match event {
            Event::Start { entry } => {
                let is_stream = self.is_stream(&entry.path);
                let judge = if is_stream { Judge::stream(&entry.path) } else { Judge::file(&entry.path) };
                self.open.insert(slab.lane, (entry.path.clone(), judge));
            }
            Event::Bytes { range } => {
                if let Some((_, judge)) = self.open.get_mut(&slab.lane).filter(|(_, judge)| judge.is_listening()) {
                    judge.feed(&slab.bytes[range.clone()]);
                }
            }
            Event::End { flaw, size, holes } => {
                // What was not read, or has holes, cannot be judged by its bytes.
                let open = self.open.remove(&slab.lane).filter(|_| *flaw != Flaw::Unreadable && holes.is_empty());
                if slab.lane > 0 {
                    self.found.lock().unwrap_or_else(PoisonError::into_inner).out_of_order = true;
                }
                if let Some((path, judge)) = open {
                    self.ended(&path, judge, *size);
                }
            }
            Event::Entry { entry, known: true } => self.unchanged(entry),
            Event::Entry { .. } | Event::Problem(_) => {}
        }
    }

    fn is_stream(&self, path: &[u8]) -> bool {
        match self.kind {
            SourceKind::Tree => false,
            SourceKind::Job => self.streams.iter().any(|stream| stream == path || stream.ends_with(b"/") && path.starts_with(stream)),
            _ => true,
        }
    }

    fn ended(&mut self, path: &[u8], judge: Judge, size: u64) {
        let judged = judge.finish();
        if let Some(judged) = judged.as_ref().filter(|judged| !judged.advice.is_empty()) {
            self.found.lock().unwrap_or_else(PoisonError::into_inner).advise(&judged.dump.path, &judged.advice);
        }
        if self.is_stream(path) {
            let mut dump = judged.map(|judged| judged.dump);
            if let Expect::Format(expected) = &self.expect
                && !dump.as_ref().is_some_and(|dump| is_form_of(dump, expected))
            {
                dump = Some(unexpected(dump, path, expected));
            }
            return dump.into_iter().for_each(|dump| self.push(dump));
        }
        let name = show_bytes(file_name(path));
        match judged {
            None => self.enter(path).add_unjudged(&name, size),
            Some(judged) => {
                if let Some(judged) = self.enter(path).add(&name, judged) {
                    self.push(judged.dump);
                }
            }
        }
        self.notice_journal(path, size);
    }

    /// A file that was not read.
    fn unchanged(&mut self, entry: &Entry) {
        let Node::File { content: Some(content) } = &entry.node else { return };
        let known = if self.older.is_empty() { None } else { self.older.remove(&show_bytes(&entry.path)) };
        match known {
            None => self.enter(&entry.path).add_unjudged(&show_bytes(file_name(&entry.path)), content.size),
            Some(dump) => {
                if let Some(dump) = self.enter(&entry.path).add_known(dump, content.size) {
                    self.push(dump);
                }
            }
        }
        self.notice_journal(&entry.path, content.size);
    }

    /// The folder of a file. Those that were left for it are judged; one above it is not left yet: more of its files may come.
    fn enter(&mut self, path: &[u8]) -> &mut Folder {
        let folder = &path[..path.len() - file_name(path).len()];
        while self.folders.last().is_some_and(|(open, _)| !folder.starts_with(open)) {
            self.leave();
        }
        if self.folders.last().is_none_or(|(open, _)| open != folder) {
            self.folders.push((folder.to_vec(), Folder::default()));
        }
        let (_, folder) = self.folders.last_mut().expect("it was pushed if it was not there");
        folder
    }

    /// Judges the innermost folder; false if there is none.
    fn leave(&mut self) -> bool {
        let Some((_, left)) = self.folders.pop() else { return false };
        left.finish().into_iter().for_each(|dump| self.push(dump));
        true
    }

    /// What SQLite has not put into its database yet lies in a file beside it.
    fn notice_journal(&mut self, path: &[u8], size: u64) {
        let Some(database) = path.strip_suffix(b"-wal").or(path.strip_suffix(b"-journal")).filter(|_| size > 0) else { return };
        let database = show_bytes(database);
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |dump: &&mut Dump| dump.path == database && dump.format == "sqlite" && dump.verdict == Verdict::Complete;
        if let Some(dump) = found.dumps.iter_mut().rfind(is_it) {
            (dump.verdict, dump.why) = (Verdict::Unknown, "a journal lies beside it: it was in use".into());
        }
    }

    fn push(&self, dump: Dump) {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).push(dump);
    }
}

/// Whether a dump is of the format, or of one of its forms: `pg_dump custom` is one of `pg_dump`.
fn is_form_of(dump: &Dump, expected: &str) -> bool {
    dump.format.strip_prefix(expected).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_tells_of_so_many_dumps_and_of_all_bad_ones() {
        let mut found = Found::default();
        let tables = vec![Default::default(); 7];
        let dump = |verdict| Dump { verdict, tables: tables.clone(), ..Dump::default() };
        (0..SNAPSHOT_DUMPS_MAX).for_each(|_| found.push(dump(Verdict::Complete)));
        (0..SNAPSHOT_DUMPS_MAX + 5).for_each(|_| found.push(dump(Verdict::Incomplete)));
        found.push(dump(Verdict::Complete));
        assert_eq!(found.dumps.len(), SNAPSHOT_DUMPS_MAX);
        assert!(found.dumps.iter().all(|dump| dump.verdict == Verdict::Incomplete));
        (0..2000).for_each(|_| found.push(dump(Verdict::Incomplete)));
        found = Found::default();
        found.push(Dump { path: "ä".repeat(4096), ..Dump::default() });
        assert_eq!(found.dumps[0].path.len(), 4096);
        let mut many = Found::default();
        (0..3).for_each(|_| many.push(Dump { tables: vec![Default::default(); 4000], ..Dump::default() }));
        assert_eq!(many.dumps.iter().map(|dump| dump.tables.len()).collect::<Vec<_>>(), [4000, 4000, 2000]);
    }

    #[test]
    fn a_format_has_forms() {
        let dump = Dump { format: "pg_dump custom".into(), ..Dump::default() };
        assert!(is_form_of(&dump, "pg_dump") && !is_form_of(&dump, "pg_dumpall") && !is_form_of(&dump, "redis"));
        let dump = Dump { format: "pg_dumpall".into(), ..Dump::default() };
        assert!(!is_form_of(&dump, "pg_dump") && is_form_of(&dump, "pg_dumpall"));
    }
}
