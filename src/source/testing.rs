//! What the tests of sources share: running one to its end, and folders to walk.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::format::entry::{Node, path_order};

/// An entry with what the events around it said.
#[derive(Debug)]
pub(super) struct Found {
    pub entry: Entry,
    pub bytes: Vec<u8>,
    pub size: u64,
    pub holes: Vec<Hole>,
    pub known: bool,
    pub problems: Vec<Problem>,
}

/// Runs a source to its end with slabs of some capacity, and checks the order of events and entries.
pub(super) fn drain(source: &mut dyn Source, capacity: usize) -> error::Result<Vec<Found>> {
    drain_with(source, capacity, |_| {})
}

pub(super) fn drain_with(source: &mut dyn Source, capacity: usize, mut after: impl FnMut(&Slab)) -> error::Result<Vec<Found>> {
    let mut found: Vec<Found> = Vec::new();
    let mut open = false;
    let mut slab = Slab::new(capacity);
    loop {
        slab.clear();
        let more = source.fill(&mut slab)?;
        let mut next = Slab::HEADROOM;
        for event in &slab.events {
            match event {
                Event::Entry { entry, .. } | Event::Start { entry } => {
                    assert!(!open, "an entry begins in another");
                    open = matches!(event, Event::Start { .. });
                    let known = matches!(event, Event::Entry { known: true, .. });
                    let (size, entry) = (entry.size(), entry.clone());
                    found.push(Found { entry, bytes: Vec::new(), size, holes: Vec::new(), known, problems: Vec::new() });
                }
                Event::Bytes { range } => {
                    assert!(open && range.start == next && !range.is_empty(), "bytes lie end to end");
                    next = range.end;
                    found.last_mut().unwrap().bytes.extend_from_slice(&slab.bytes[range.clone()]);
                }
                Event::End { flaw, size, holes } => {
                    assert!(open, "the end of nothing");
                    open = false;
                    let last = found.last_mut().unwrap();
                    (last.size, last.holes, last.entry.flaw) = (*size, holes.clone(), *flaw);
                }
                Event::Problem(problem) => match found.last_mut() {
                    Some(last) => last.problems.push(problem.clone()),
                    None => found.push(Found { problems: vec![problem.clone()], ..nothing() }),
                },
            }
        }
        after(&slab);
        if more == More::No {
            break;
        }
    }
    assert!(!open, "a file without an end");
    found.retain(|found| !found.entry.path.is_empty() || !found.problems.is_empty());
    for pair in found.windows(2) {
        let [a, b] = pair else { unreachable!() };
        assert_eq!(path_order(&a.entry.path, &b.entry.path), std::cmp::Ordering::Less, "{:?} {:?}", a.entry, b.entry);
    }
    Ok(found)
}

/// A place for problems that come before the first entry.
fn nothing() -> Found {
    let entry = Entry { path: Vec::new(), flaw: Flaw::None, meta: Default::default(), node: Node::Folder };
    Found { entry, bytes: Vec::new(), size: 0, holes: Vec::new(), known: false, problems: Vec::new() }
}

/// A line for each entry: kind, path, size, flaw, and `!` for each problem told behind it.
pub(super) fn summary(found: &[Found]) -> Vec<String> {
    let line = |found: &Found| {
        let path = crate::error::show_bytes(&found.entry.path);
        let problems = if found.problems.is_empty() { String::new() } else { " !".repeat(found.problems.len()) };
        format!("{} {path} {} {:?}{problems}", found.entry.node.letter(), found.size, found.entry.flaw)
    };
    found.iter().map(line).collect()
}

/// A folder that is walked with "." standing at the top of the catalog.
pub(super) struct Tree {
    pub temp: tempfile::TempDir,
}

impl Tree {
    /// Names that end with a slash are folders, others files that hold their own names.
    pub fn new(names: &[&str]) -> Self {
        let tree = Self { temp: tempfile::tempdir().unwrap() };
        for name in names {
            match name.strip_suffix('/') {
                Some(folder) => fs::create_dir_all(tree.at(folder)).unwrap(),
                None => tree.file(name, name.as_bytes()),
            }
        }
        tree
    }

    pub fn at(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.temp.path().join(Path::new(name.as_ref()))
    }

    pub fn file(&self, name: &str, bytes: &[u8]) {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub fn source(&self, options: TreeOptions, lookup: Lookup) -> TreeSource {
        TreeSource::new(vec![self.temp.path().into()], options, lookup, Arc::default()).unwrap()
    }

    /// Walks, and takes the folder's own path off the entries.
    pub fn walk(&self, options: TreeOptions) -> Vec<Found> {
        self.below(drain(&mut self.source(options, Box::new(|_, _| None)), 1 << 20).unwrap())
    }

    pub fn below(&self, mut found: Vec<Found>) -> Vec<Found> {
        let prefix = self.temp.path().as_os_str().as_bytes();
        found.retain_mut(|found| {
            // The stored path has no slash in front, so that what is left begins behind one.
            found.entry.path = found.entry.path.get(prefix.len()..).unwrap_or_default().to_vec();
            if let Node::HardLink { target } = &mut found.entry.node {
                target.drain(..prefix.len());
            }
            !found.entry.path.is_empty()
        });
        found
    }
}
