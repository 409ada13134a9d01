//! Several sources, one after another, as the one source of a snapshot.
//!
//! A catalog is in path order, so the sources are: streams by their names, and the roots of trees between them. A source that fails
//! is the end of all; whose failure it was, the error says.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::roots::{Root, Roots, is_inside};
use super::{AbreastSource, Event, KnownFile, Lookup, More, OpenStreams, Slab, Source, TreeOptions, TreeSource};
use crate::error::{Error, Result, show_bytes};
use crate::format::entry::{Entry, path_order};

/// One of several sources.
pub struct Member {
    /// What it is called in messages and reports; of a stream, its path too.
    pub name: String,
    pub source: MemberSource,
}

/// Where a member's bytes come from.
pub enum MemberSource {
    /// A stream, by the path of its entry.
    Stream { path: Vec<u8>, source: Box<dyn Source>, may_be_empty: bool },
    /// Streams below a folder, several of them at once.
    Streams { folder: Vec<u8>, open: OpenStreams, at_once: usize },
    /// Files and folders.
    Tree { roots: Vec<PathBuf>, options: TreeOptions },
}

/// What came of a member.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Length of its files or stream, those that were not read again included.
    pub bytes: u64,
    pub files: u64,
    /// How long it was waited for.
    pub time: Duration,
}

/// Asks what the parent snapshot knows of a file; for the walks of several trees.
pub type SharedLookup = Arc<dyn Fn(&Entry, u64) -> Option<KnownFile> + Send + Sync>;

/// Runs sources one after another.
pub struct SeveralSource {
    parts: VecDeque<Part>,
    tallies: Arc<Mutex<Vec<Tally>>>,
}

/// A stream, or roots of one tree between which no other member's path lies.
struct Part {
    member: usize,
    /// Of a stream that must not be empty.
    is_needed: bool,
    name: String,
    source: Box<dyn Source>,
}

/// Where a member stands in the catalog.
struct Place {
    path: Vec<u8>,
    member: usize,
    root: Option<Root>,
}

impl SeveralSource {
    /// Puts the members into path order. Members that would stand in each other's way are an error.
    pub fn new(members: Vec<Member>, lookup: SharedLookup, interrupted: Arc<AtomicBool>) -> Result<Self> {
        let tallies = Arc::new(Mutex::new(vec![Tally::default(); members.len()]));
        let mut places = Vec::new();
        let mut opened: Vec<(String, Opened)> = Vec::new();
        for (member, Member { name, source }) in members.into_iter().enumerate() {
            match source {
                MemberSource::Stream { path, source, may_be_empty } => {
                    places.push(Place { path, member, root: None });
                    opened.push((name, Opened::Stream(Some(source), may_be_empty)));
                }
                MemberSource::Streams { folder, open, at_once } => {
                    places.push(Place { path: folder, member, root: None });
                    let source = Box::new(AbreastSource::new(open, at_once, interrupted.clone()));
                    opened.push((name, Opened::Stream(Some(source), false)));
                }
                MemberSource::Tree { roots, options } => {
                    let mut roots = Roots::new(&roots)?;
                    let list = std::mem::take(&mut roots.list);
                    places.extend(list.into_iter().map(|root| Place { path: root.path.clone(), member, root: Some(root) }));
                    opened.push((name, Opened::Tree(roots, options)));
                }
            }
        }
        places.sort_by(|a, b| path_order(&a.path, &b.path));
        refuse_collisions(&places, &opened)?;
        let mut parts = VecDeque::new();
        let mut before = Vec::new();
        for run in places.chunk_by(|a, b| a.member == b.member && a.root.is_some()) {
            let member = run[0].member;
            let (name, opened) = &mut opened[member];
            let (source, is_needed): (Box<dyn Source>, _) = match opened {
                Opened::Stream(source, may_be_empty) => (source.take().expect("a stream has one place"), !*may_be_empty),
                Opened::Tree(roots, options) => {
                    let list: Vec<Root> = run.iter().filter_map(|place| place.root.clone()).collect();
                    let last = list.last().map(|root| root.path.clone()).unwrap_or_default();
                    // What cannot be walked is told once.
                    let problems = std::mem::take(&mut roots.problems);
                    let roots = Roots { base: roots.base.clone(), list, devices: roots.devices.clone(), problems };
                    let lookup = lookup.clone();
                    let lookup: Lookup = Box::new(move |entry, size| lookup(entry, size));
                    let above = std::mem::replace(&mut before, last);
                    (Box::new(TreeSource::from_roots(roots, above, options.clone(), lookup, interrupted.clone())), false)
                }
            };
            parts.push_back(Part { member, is_needed, name: name.clone(), source });
        }
        Ok(Self { parts, tallies })
    }

    /// What comes of the members, in the order in which they were given.
    pub fn tallies(&self) -> Arc<Mutex<Vec<Tally>>> {
        self.tallies.clone()
    }
}

enum Opened {
    Stream(Option<Box<dyn Source>>, bool),
    Tree(Roots, TreeOptions),
}

/// Fails where two members would give the same path, or one a folder where the other gives a file.
fn refuse_collisions(places: &[Place], opened: &[(String, Opened)]) -> Result<()> {
    let name = |place: &Place| show_bytes(opened[place.member].0.as_bytes());
    let bases: BTreeSet<bool> = opened
        .iter()
        .filter_map(|(_, opened)| if let Opened::Tree(roots, _) = opened { Some(roots.base.is_absolute()) } else { None })
        .collect();
    if bases.len() > 1 {
        return Err(Error::Usage("Some sources have absolute paths and some relative ones; write all of them absolute".into()));
    }
    let mut outer: Option<&Place> = None;
    for place in places {
        match outer.filter(|outer| outer.path == place.path || is_inside(&place.path, &outer.path)) {
            Some(outer) => {
                let (a, b) = (name(outer), name(place));
                let why = if outer.path == place.path { "both give" } else { "cannot stand in one snapshot: one lies in the other," };
                return Err(Error::Usage(format!("{a} and {b} {why} /{}; name them otherwise", show_bytes(&place.path))));
            }
            None => outer = Some(place),
        }
    }
    // A folder that holds both a tree and a stream would come too late for the stream.
    let top = |place: &Place| place.path.split(|byte| *byte == b'/').next().unwrap_or_default().to_vec();
    let tops: BTreeSet<Vec<u8>> = places.iter().filter(|place| place.root.is_some()).map(top).collect();
    match places.iter().find(|place| place.root.is_none() && tops.contains(&top(place))) {
        None => Ok(()),
        Some(stream) => {
            let (name, top) = (name(stream), show_bytes(&top(stream)));
            Err(Error::Usage(format!("The stream {name} would lie in the folder /{top}, of which files are saved; name it otherwise")))
        }
    }
}

impl Source for SeveralSource {
    fn fill(&mut self, slab: &mut Slab) -> Result<More> {
        let Some(part) = self.parts.front_mut() else { return Ok(More::No) };
        let begun = Instant::now();
        let more = part.source.fill(slab).map_err(|error| of_stream(&part.name, error))?;
        if part.is_needed
            && let Some(path) = empty_one(slab)
        {
            return Err(Error::EmptyStream { name: path.unwrap_or_else(|| part.name.clone()) });
        }
        let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = &mut tallies[part.member];
        tally.time += begun.elapsed();
        for event in &slab.events {
            tally.bytes += match event {
                Event::Entry { entry, .. } => entry.size(),
                Event::End { size, .. } => *size,
                _ => 0,
            };
            tally.files += u64::from(matches!(event, Event::End { .. } | Event::Entry { known: true, .. }));
        }
        if more == More::No {
            if part.is_needed && tally.bytes == 0 {
                return Err(Error::EmptyStream { name: part.name.clone() });
            }
            self.parts.pop_front();
        }
        Ok(if self.parts.is_empty() { More::No } else { More::Yes })
    }
}

/// Whether one of several streams that are read at once is without a byte (also of nothing a program says something), and its path, if
/// it began here, too.
fn empty_one(slab: &Slab) -> Option<Option<String>> {
    let end = slab.events.iter().position(|event| matches!(event, Event::End { size: 0, .. })).filter(|_| slab.lane > 0)?;
    let begun = slab.events[..end].iter().rev().find_map(|event| if let Event::Start { entry } = event { Some(entry) } else { None });
    Some(begun.map(|entry| show_bytes(&entry.path)))
}

/// Says which stream it was.
pub(super) fn of_stream(name: &str, error: Error) -> Error {
    match error {
        Error::Command { program, outcome, stderr_tail } => {
            Error::Command { program: format!("{}: {program}", show_bytes(name.as_bytes())), outcome, stderr_tail }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::testing::{drain, summary};
    use super::super::{Filter, FilterRules, StreamSource, Streams};
    use super::*;
    use crate::format::entry::Meta;

    fn stream(name: &str, bytes: &'static [u8]) -> Member {
        let source = Box::new(StreamSource::new(name.into(), Box::new(bytes), Meta::default()));
        Member { name: name.into(), source: MemberSource::Stream { path: name.into(), source, may_be_empty: false } }
    }

    fn tree(roots: &[&std::path::Path], excludes: &[&str]) -> Member {
        let rules = FilterRules { excludes: excludes.iter().map(|text| text.to_string()).collect(), ..FilterRules::default() };
        let options = TreeOptions { filter: Filter::new(&rules).unwrap(), ..TreeOptions::default() };
        let roots = roots.iter().map(|root| root.to_path_buf()).collect();
        Member { name: "files".into(), source: MemberSource::Tree { roots, options } }
    }

    fn several(members: Vec<Member>) -> Result<SeveralSource> {
        SeveralSource::new(members, Arc::new(|_, _| None), Arc::default())
    }

    /// Folders with a file `f` in each.
    fn folders(names: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let temp = tempfile::tempdir().unwrap();
        let top = temp.path().canonicalize().unwrap();
        for name in names {
            fs::create_dir_all(top.join(name)).unwrap();
            fs::write(top.join(name).join("f"), name).unwrap();
        }
        (temp, top)
    }

    #[test]
    fn streams_and_trees_come_in_path_order() {
        let (_temp, top) = folders(&["a", "b/x", "b/y", "c"]);
        let at = |name: &str| top.join(name);
        // Two trees with other patterns take turns below one folder; streams lie before and behind all of them.
        let members = || {
            vec![
                stream("zz.sql", b"last"),
                tree(&[&at("c"), &at("a")], &["f"]),
                stream("a/deep.sql", b"deep"),
                tree(&[&at("b/y"), &at("b/x")], &[]),
                stream("0.sql", b"first"),
            ]
        };
        for capacity in [8, 4096] {
            let mut source = several(members()).unwrap();
            let tallies = source.tallies();
            // It checks the order, and that no path comes twice.
            let found = drain(&mut source, capacity).unwrap();
            let prefix = top.to_str().unwrap().trim_start_matches('/');
            let lines = summary(&found);
            let expected = |name: &str| lines.iter().position(|line| line.contains(name)).unwrap_or_else(|| panic!("{name} {lines:?}"));
            let order = ["0.sql", "a/deep.sql", &format!("{prefix}/a"), &format!("{prefix}/b/x/f"), &format!("{prefix}/b/y/f"), "zz.sql"];
            assert!(order.map(expected).is_sorted(), "{lines:?}");
            assert!(!lines.iter().any(|line| line.contains(&format!("{prefix}/a/f")) || line.contains(&format!("{prefix}/c/f"))));
            let bytes: Vec<(u64, u64)> = tallies.lock().unwrap().iter().map(|tally| (tally.bytes, tally.files)).collect();
            assert_eq!(bytes, [(4, 1), (0, 0), (4, 1), (6, 2), (5, 1)]);
        }
    }

    #[test]
    fn members_in_each_others_way_are_refused() {
        let (_temp, top) = folders(&["a/b", "c"]);
        let at = |name: &str| top.join(name);
        let first = top.iter().nth(1).unwrap().to_str().unwrap().to_owned();
        let below: &'static str = format!("{first}/x.sql").leak();
        for members in [
            vec![stream("x", b"1"), stream("x", b"2")],
            vec![stream("x", b"1"), stream("x/y", b"2")],
            vec![tree(&[&at("a")], &[]), tree(&[&at("a/b")], &[])],
            vec![tree(&[&at("a")], &[]), tree(&[&at("c"), &at("a")], &[])],
            vec![tree(&[&at("a")], &[]), stream(below, b"1")],
            vec![tree(&[&at("a")], &[]), stream(first.clone().leak(), b"1")],
            vec![tree(&[std::path::Path::new("/")], &[]), stream("x", b"1")],
            vec![tree(&[std::path::Path::new("src")], &[]), tree(&[&at("a")], &[])],
        ] {
            assert!(matches!(several(members), Err(Error::Usage(_))));
        }
        assert!(matches!(several(vec![tree(&[&at("missing")], &[])]), Err(Error::NotFound(_))));
    }

    #[test]
    fn an_empty_stream_is_an_error_that_names_it() {
        let error = drain(&mut several(vec![stream("a", b"x"), stream("b", b"")]).unwrap(), 64).unwrap_err();
        assert!(matches!(error, Error::EmptyStream { name } if name == "b"));
        // Of several at once, each has something to say.
        let streams = |contents: &'static [&'static [u8]]| {
            let one = |(number, bytes): (usize, &&'static [u8])| -> Box<dyn Source> {
                Box::new(StreamSource::new(format!("db/{number}").into(), Box::new(*bytes), Meta::default()))
            };
            let open = Box::new(move || Ok(Streams { list: contents.iter().enumerate().map(one).collect(), guard: Box::new(()) }));
            let source = MemberSource::Streams { folder: b"db".to_vec(), open, at_once: 1 };
            drain(&mut several(vec![Member { name: "db".into(), source }]).unwrap(), 64)
        };
        const WITH_AN_EMPTY_ONE: [&[&[u8]]; 2] = [&[b"x", b"", b"x"], &[b"x", b""]];
        for contents in WITH_AN_EMPTY_ONE {
            assert!(matches!(streams(contents), Err(Error::EmptyStream { name }) if name == "db/1"));
        }
        assert_eq!(streams(&[b"x", b"y"]).unwrap().len(), 2);
    }
}
