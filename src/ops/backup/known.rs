//! What the parent snapshot knows of the paths that are met.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::error::Result;
use crate::format::content::Content;
use crate::format::entry::{Entry, Flaw, Meta, Node, Time, path_order};
use crate::format::snapshot::SourceKind;
use crate::ops::browse;
use crate::repo::{CatalogReader, OlderContent, Repository, Stock, Stored};
use crate::source::KnownFile;

/// What the parent snapshot knows, met in path order from two sides: the source asks whether a file is unchanged, the pipeline where a
/// changed file's older bytes are.
pub struct Known {
    stock: Arc<Stock>,
    entries: Option<Mutex<ParentEntries>>,
    /// Files changed at or after this may change again within the same tick of the clock.
    settled_before: Time,
    force: bool,
    /// Older contents of paths that are read.
    older: Mutex<HashMap<Vec<u8>, Older>>,
}

/// What of the parent is of use.
pub enum Wanted<'a> {
    /// The one entry of a stream, whatever it was called then.
    OnlyStream,
    /// What lies at the same paths; streams are named, or their folder with a slash, files are asked for as they are met.
    Paths { streams: &'a [Vec<u8>] },
}

/// What a path's content was.
pub struct Older {
    pub content: OlderContent,
    /// For a stream that is backed up: of the entry it was.
    pub meta: Option<Meta>,
}

struct ParentEntries {
    catalog: std::iter::Peekable<CatalogReader>,
}

impl Known {
    pub fn new(repository: &Repository, stock: Arc<Stock>, parent: Option<&Stored>, wanted: Wanted, force: bool) -> Result<Arc<Self>> {
        let mut older = HashMap::new();
        let mut entries = None;
        if let Some(parent) = parent {
            let mut catalog = CatalogReader::open(repository, &parent.snapshot)?;
            match wanted {
                Wanted::OnlyStream => {
                    older.extend(catalog.next().and_then(Result::ok).and_then(|entry| Some((Vec::new(), Older::of(&entry)?))))
                }
                Wanted::Paths { streams } => {
                    for path in streams {
                        if let Some(folder) = path.strip_suffix(b"/") {
                            older.extend(contents_below(repository, parent, folder)?);
                            continue;
                        }
                        older.extend(entry_at(repository, parent, path)?.and_then(|entry| Some((path.clone(), Older::of(&entry)?))));
                    }
                    entries = Some(Mutex::new(ParentEntries { catalog: catalog.peekable() }));
                }
            }
        }
        // The coarsest clock of a file system in use (FAT) ticks every two seconds.
        let settled_before = Time { seconds: parent.map_or(i64::MIN, |parent| parent.snapshot.started().as_second() - 2), nanos: 0 };
        Ok(Arc::new(Self { stock, entries, settled_before, force, older: Mutex::new(older) }))
    }

    /// The parent's content of a file, if everything says that it has not changed since.
    pub fn unchanged(&self, entry: &Entry, size: u64) -> Option<KnownFile> {
        let old = self.entries.as_ref()?.lock().expect("no panic holds it").find(&entry.path)?;
        let Node::File { content: Some(content) } = &old.node else { return None };
        let same = old.flaw == Flaw::None
            && content.size == size
            && (old.meta.mtime, old.meta.ctime, old.meta.inode) == (entry.meta.mtime, entry.meta.ctime, entry.meta.inode)
            && entry.meta.mtime < self.settled_before
            && entry.meta.ctime < self.settled_before;
        // Unchanged is not enough: what it consists of must still be there.
        if same && !self.force && self.stock.covers(&content.recipe) {
            return Some(KnownFile { content: content.clone(), xattrs: old.meta.xattrs });
        }
        self.older.lock().expect("no panic holds it").insert(entry.path.clone(), Older::without_meta(content));
        None
    }

    /// For a copy: content comes from another repository, and only that it is the same counts, not when a file was touched.
    pub fn for_copy(repository: &Repository, stock: Arc<Stock>, parent: Option<&Stored>) -> Result<Arc<Self>> {
        let entries = match parent {
            Some(parent) => Some(Mutex::new(ParentEntries { catalog: CatalogReader::open(repository, &parent.snapshot)?.peekable() })),
            None => None,
        };
        let mut older = HashMap::new();
        if let Some(parent) = parent.filter(|parent| parent.snapshot.source == SourceKind::Stream) {
            let entry = CatalogReader::open(repository, &parent.snapshot)?.next();
            let found = entry.and_then(Result::ok).and_then(|entry| Some(Older { meta: None, ..Older::of(&entry)? }));
            older.extend(found.map(|found| (Vec::new(), found)));
        }
        let settled_before = Time { seconds: i64::MIN, nanos: 0 };
        Ok(Arc::new(Self { stock, entries, settled_before, force: false, older: Mutex::new(older) }))
    }

    /// The parent's content of a path, if it is that which another repository has there.
    pub fn same(&self, path: &[u8], content: &Content) -> Option<Content> {
        let old = self.entries.as_ref()?.lock().expect("no panic holds it").find(path)?;
        let Node::File { content: Some(known) } = &old.node else { return None };
        let same = (known.hash, known.size, &known.holes) == (content.hash, content.size, &content.holes);
        if same && self.stock.covers(&known.recipe) {
            return Some(known.clone());
        }
        let older = Older::without_meta(known);
        self.older.lock().expect("no panic holds it").insert(path.to_vec(), older);
        None
    }

    /// Where the older bytes of a path that is read are.
    pub fn older(&self, path: &[u8]) -> Option<OlderContent> {
        let older = self.older.lock().expect("no panic holds it");
        older.get(path).or_else(|| older.get(&[][..])).map(|older| older.content.clone())
    }

    /// What the content of a path that was read had been; asked once.
    pub fn take_older(&self, path: &[u8]) -> Option<Older> {
        let mut older = self.older.lock().expect("no panic holds it");
        older.remove(path).or_else(|| older.remove(&[][..]))
    }
}

/// The parent's entry of a path. A damaged parent only costs time.
fn entry_at(repository: &Repository, parent: &Stored, path: &[u8]) -> Result<Option<Entry>> {
    let catalog = CatalogReader::open_at(repository, &parent.snapshot, path)?;
    Ok(ParentEntries { catalog: catalog.peekable() }.find(path))
}

/// What lay below a folder of streams.
fn contents_below(repository: &Repository, parent: &Stored, folder: &[u8]) -> Result<Vec<(Vec<u8>, Older)>> {
    let is_below = |entry: &Entry| browse::below(&entry.path, folder).is_some();
    let catalog = CatalogReader::open_at(repository, &parent.snapshot, folder)?.filter_map(Result::ok);
    let before = |entry: &Entry| path_order(&entry.path, folder).is_lt();
    let own = catalog.skip_while(before).take_while(is_below);
    Ok(own.filter_map(|entry| Some((entry.path.clone(), Older::of(&entry)?))).collect())
}

impl ParentEntries {
    fn find(&mut self, path: &[u8]) -> Option<Entry> {
        loop {
            match self.catalog.peek()? {
                // A damaged parent only costs time: the files are read.
                Err(_) => drop(self.catalog.next()),
                Ok(entry) => match path_order(&entry.path, path) {
                    std::cmp::Ordering::Less => drop(self.catalog.next()),
                    std::cmp::Ordering::Equal => return self.catalog.next()?.ok(),
                    std::cmp::Ordering::Greater => return None,
                },
            }
        }
    }
}

impl Older {
    fn of(entry: &Entry) -> Option<Self> {
        match &entry.node {
            Node::File { content: Some(content) } => Some(Self { meta: Some(entry.meta.clone()), ..Self::without_meta(content) }),
            _ => None,
        }
    }

    fn without_meta(content: &Content) -> Self {
        let content = OlderContent { recipe: content.recipe.clone(), hash: content.hash, size: content.size };
        Self { content, meta: None }
    }
}
