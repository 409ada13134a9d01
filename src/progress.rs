//! How an operation tells what it is doing, and learns that it should stop.
//!
//! The library calls, the caller shows: nothing here prints.

use std::path::Path;

/// What an operation reports while it runs. Called from several threads.
pub trait Progress: Sync {
    /// A new stage began; `bytes` and `files` are what it expects to do, where that is known.
    fn stage(&self, _stage: Stage, _bytes: Option<u64>, _files: Option<u64>) {}
    /// Plain bytes were worked on.
    fn bytes(&self, _count: u64) {}
    /// Files or streams were finished.
    fn files(&self, _count: u64) {}
    /// A path is being worked on.
    fn at(&self, _path: &Path) {}
    /// Something was passed over or went wrong, and the operation goes on.
    fn problem(&self, _problem: &Problem) {}
    /// Whether the user asked to stop.
    fn interrupted(&self) -> bool {
        false
    }
}

/// What an operation is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Opening the repository and bringing the index up to date.
    Opening,
    /// Reading sources and storing what is new.
    BackingUp,
    /// Finding out what to do.
    Planning,
    /// Copying snapshots.
    Copying,
    /// Writing files.
    Restoring,
    /// Moving what is needed out of packs that are to go.
    Rewriting,
    /// Deleting what nobody needs.
    Deleting,
    /// Checking objects against each other.
    CheckingStructure,
    /// Reading stored data.
    CheckingData,
    /// Bringing together what can be read.
    Repairing,
}

/// Something that went wrong with one path or object while the rest went on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The path, object or snapshot.
    pub subject: Vec<u8>,
    /// What happened, in a sentence without a full stop.
    pub message: String,
}

impl Problem {
    /// A problem with a path or object.
    pub fn new(subject: impl AsRef<[u8]>, message: impl ToString) -> Self {
        Self { subject: subject.as_ref().to_vec(), message: message.to_string() }
    }
}

/// Reports nothing and is never interrupted.
pub struct Silent;

impl Progress for Silent {}
