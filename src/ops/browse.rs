//! Looking into a repository: the entries of a snapshot, and single objects without their secrets.

use crate::error::Result;
use crate::format::entry::Entry;
use crate::repo::{Repository, Selection};

/// Calls `each` for every entry at or below the selection's path, in path order; only the folder's own entries unless `recursive`.
pub fn list(repository: &Repository, selection: &Selection, recursive: bool, each: &mut dyn FnMut(&Entry) -> Result<()>) -> Result<()> {
    let _ = (repository, selection, recursive, each);
    todo!()
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
    let _ = (repository, object);
    todo!()
}
