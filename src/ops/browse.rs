//! Looking into a repository: the entries of a snapshot, and single objects without their secrets.

use std::cmp::Ordering;

use serde_json::json;

use crate::backend::{Area, Place};
use crate::error::{Error, Result, show_bytes};
use crate::format::entry::{Entry, Node, path_order};
use crate::format::segment::Segment;
use crate::format::slot::Method;
use crate::format::snapshot::SourceKind;
use crate::id::ObjectName;
use crate::repo::{CatalogReader, Repository, Selection, SnapshotFilter, Stored};

/// Calls `each` for every entry at or below the selection's path, in path order; only the folder's own entries unless `recursive`.
/// A path that is not there is an error.
pub fn list(repository: &Repository, selection: &Selection, recursive: bool, each: &mut dyn FnMut(&Entry) -> Result<()>) -> Result<()> {
    let catalog = CatalogReader::open_at(repository, &selection.stored.snapshot, &selection.path)?;
    let mut met = selection.path.is_empty();
    for entry in catalog {
        let entry = entry?;
        let Some(below) = below(&entry.path, &selection.path) else {
            if met {
                break;
            }
            continue;
        };
        met = true;
        // A folder's own line is not one of its entries.
        let is_top = below.is_empty() && matches!(entry.node, Node::Folder);
        if recursive || !is_top && !below.contains(&b'/') {
            each(&entry)?;
        }
    }
    match met || selection.path.is_empty() {
        true => Ok(()),
        false => {
            let id = selection.stored.id.short();
            Err(Error::NotFound(format!("Snapshot {id} holds no {}; snap ls {id} shows what it holds", show_bytes(&selection.path))))
        }
    }
}

/// Paths of the streams in a snapshot, roles and the like first; and whether there are files besides. In a snapshot of files and
/// streams, those are streams that `names` says; a name with a slash at its end, all below that folder.
pub fn contents(repository: &Repository, stored: &Stored, names: &[String]) -> Result<(Vec<Vec<u8>>, bool)> {
    let all = stored.snapshot.source == SourceKind::Stream;
    let is_stream =
        |path: &[u8]| all || names.iter().any(|name| name.as_bytes() == path || name.ends_with('/') && path.starts_with(name.as_bytes()));
    let (mut streams, mut files) = (Vec::new(), false);
    let everything = Selection { stored: stored.clone(), path: Vec::new() };
    list(repository, &everything, true, &mut |entry| {
        match &entry.node {
            Node::File { .. } if is_stream(&entry.path) => streams.push(entry.path.clone()),
            Node::Folder => {}
            _ => files = true,
        }
        Ok(())
    })?;
    streams.sort_by_key(|path| !path.starts_with(b"globals"));
    Ok((streams, files))
}

/// Some entries of one folder.
#[derive(Debug, Default)]
pub struct Page {
    pub entries: Vec<Entry>,
    /// There are more behind the last of them.
    pub goes_on: bool,
}

/// Entries below one folder's entry after which the rest of that are jumped over.
const WORTH_A_JUMP: usize = 4096;

/// The entries of the folder that is selected, or the file itself, behind the name `after` and at most `max` of them. What lies deeper
/// is not read where there is much of it. `going_on` is asked now and then, and may end it with an error.
pub fn page(repository: &Repository, selection: &Selection, after: &[u8], max: usize, going_on: &dyn Fn() -> Result<()>) -> Result<Page> {
    let (snapshot, folder) = (&selection.stored.snapshot, &selection.path[..]);
    let mut behind = folder.to_vec();
    if !after.is_empty() {
        behind = inside(folder, after);
    }
    let mut catalog = CatalogReader::open_at(repository, snapshot, &behind)?;
    let mut page = Page::default();
    let (mut is_there, mut deeper) = (folder.is_empty() || !after.is_empty(), 0);
    while let Some(entry) = catalog.next() {
        let entry = entry?;
        going_on()?;
        let Some(name) = below(&entry.path, folder) else {
            match path_order(&entry.path, folder) {
                Ordering::Greater => break,
                _ => continue,
            }
        };
        is_there = true;
        let is_top = name.is_empty() && matches!(entry.node, Node::Folder);
        if let Some(slash) = name.iter().position(|byte| *byte == b'/') {
            deeper += 1;
            if deeper == WORTH_A_JUMP {
                // The smallest name behind all that lies in the folder.
                let next = [&name[..slash], &[0]].concat();
                catalog.skip_to(&inside(folder, &next))?;
            }
            continue;
        }
        if is_top || !after.is_empty() && name <= after {
            continue;
        }
        deeper = 0;
        if page.entries.len() == max {
            page.goes_on = true;
            break;
        }
        page.entries.push(entry);
    }
    match is_there {
        true => Ok(page),
        false => Err(Error::NotFound(format!("Snapshot {} holds no {}", selection.stored.id.short(), show_bytes(folder)))),
    }
}

fn inside(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

/// The rest of `path` behind the folder `top`; empty for `top` itself.
pub fn below<'p>(path: &'p [u8], top: &[u8]) -> Option<&'p [u8]> {
    if top.is_empty() {
        return Some(path);
    }
    let rest = path.strip_prefix(top)?;
    match rest {
        [] => Some(rest),
        [b'/', rest @ ..] => Some(rest),
        _ => None,
    }
}

/// An object to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    Manifest,
    /// By selector (`latest`, an id's beginning).
    Snapshot(String),
    /// By the beginning of its name.
    Segment(String),
    /// By the beginning of its id.
    KeySlot(String),
}

/// An object as JSON, without secrets.
pub fn show(repository: &Repository, object: &Object) -> Result<serde_json::Value> {
    let plain = |value: &dyn erased::ToJson| value.to_json();
    match object {
        Object::Manifest => Ok(plain(repository.manifest())),
        Object::Snapshot(text) => {
            let stored = repository.select(text, &SnapshotFilter::default())?.stored;
            let mut value = plain(&stored.snapshot);
            value["id"] = json!(stored.id);
            Ok(value)
        }
        Object::Segment(prefix) => {
            let name: ObjectName = one(repository, Area::Segments, prefix)?
                .parse()
                .map_err(|_| Error::damaged(format!("index segment {prefix}"), "its name is not a hash"))?;
            Ok(segment_json(name, &repository.locator()?.segment(name)?))
        }
        Object::KeySlot(prefix) => slot_json(repository, &one(repository, Area::Keys, prefix)?),
    }
}

/// Anything that serializes, as a JSON value.
mod erased {
    pub trait ToJson {
        fn to_json(&self) -> serde_json::Value;
    }

    impl<T: serde::Serialize> ToJson for T {
        fn to_json(&self) -> serde_json::Value {
            serde_json::to_value(self).expect("structs with string keys always serialize")
        }
    }
}

/// The one name in an area that begins with `prefix`.
fn one(repository: &Repository, area: Area, prefix: &str) -> Result<String> {
    let names = repository.backend().list(area)?.into_iter().map(|listed| listed.name);
    let fitting: Vec<String> = names.filter(|name| name.starts_with(prefix)).collect();
    let noun = area.noun();
    match &fitting[..] {
        [name] => Ok(name.clone()),
        [] => Err(Error::NotFound(format!("No {noun} has a name that begins with {prefix}"))),
        several => Err(Error::NotFound(format!("{} have names that begin with {prefix}: {}", several.len(), several.join(" ")))),
    }
}

fn segment_json(name: ObjectName, segment: &Segment) -> serde_json::Value {
    let packs = segment.packs.iter().map(|pack| {
        let frames = pack.frames.iter().map(|frame| {
            let chunks = frame.table.ids().iter().zip(frame.table.lens()).map(|(id, len)| json!({"id": id, "length": len}));
            json!({
                "id": frame.id, "offset": frame.offset, "stored_length": frame.stored_len, "plain_length": frame.present_len(),
                "codec": format!("{:?}", frame.codec).to_lowercase(), "delta": frame.is_delta(), "chunks": chunks.collect::<Vec<_>>(),
            })
        });
        json!({"name": pack.name, "kind": format!("{:?}", pack.kind), "size": pack.size, "frames": frames.collect::<Vec<_>>()})
    });
    json!({"name": name, "replaces": segment.replaces, "packs": packs.collect::<Vec<_>>()})
}

fn slot_json(repository: &Repository, name: &str) -> Result<serde_json::Value> {
    let slots = repository.slots()?;
    let (_, slot) = slots.into_iter().find(|(other, _)| other == name).ok_or_else(|| Error::NotFound(format!("No key slot {name}")))?;
    let slot = slot?;
    let method = match slot.method {
        Method::Password { memory_kib, passes, lanes } => {
            json!({"method": "argon2id", "memory_kib": memory_kib, "passes": passes, "lanes": lanes})
        }
        Method::KeyFile => json!({"method": "key file"}),
    };
    Ok(json!({"id": slot.id, "repository": slot.repository, "stretching": method, "place": Place::key(slot.id).path()}))
}
