//! Several sources in one snapshot: how they are opened, and whether what came is what was expected.

use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use super::known::Known;
use super::{BackupOptions, shown_roots, stream_path};
use crate::config::Expect;
use crate::error::{Error, Result};
use crate::format::entry::{Entry, Meta};
use crate::format::snapshot::Part;
use crate::repo::{Repository, SnapshotFilter};
use crate::source::{
    self, CommandLine, CommandSource, Filter, MemberSource, More, Setting, SeveralSource, Slab, Source, StderrSink, StreamSource, Tally,
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
    Command { line: CommandLine, setting: Setting, stderr: StderrSink },
    /// Bytes of a reader.
    Reader(OpenStream),
    /// Files and folders.
    Tree { roots: Vec<PathBuf>, filter: Filter, one_file_system: bool },
}

impl Member {
    /// The path of its stream, if it is one and its name can be a path.
    pub(super) fn stream(&self) -> Option<Vec<u8>> {
        match self.input {
            MemberInput::Tree { .. } => None,
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
pub(super) fn expectations(input: &super::Input) -> Vec<(String, Expect)> {
    let super::Input::Several(members) = input else { return Vec::new() };
    members.iter().map(|member| (member.shown(), member.expect.clone())).collect()
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
            MemberInput::Tree { roots, filter, one_file_system } => {
                MemberSource::Tree { roots, options: TreeOptions { filter, one_file_system, ..TreeOptions::default() } }
            }
        };
        opened.push(source::Member { name, source });
    }
    let known = known.clone();
    SeveralSource::new(opened, Arc::new(move |entry: &Entry, size| known.unchanged(entry, size)), stop)
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
        let part = Part { name: name.clone(), bytes: tally.bytes, files: tally.files, unmet };
        Ok((part, tally.time.as_secs_f64()))
    };
    expected.iter().zip(tallies).map(judge).collect()
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
    fn shrinking_is_measured_against_what_was() {
        for (bytes, before, max, expected) in [(50, 100, 0.5, false), (49, 100, 0.5, true), (0, 0, 0.1, false), (200, 100, 0.0, false)] {
            assert_eq!(shrunk("x", bytes, before, max).is_some(), expected, "{bytes} {before}");
        }
    }
}
