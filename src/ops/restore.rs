//! Restore: plan, then fetch and write. Everything is verified before it stands under its final name.

use std::path::Path;

use crate::error::Result;
use crate::progress::Progress;
use crate::repo::{Repository, Selection};

/// What to do with files that are there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// Compare contents; write what differs.
    #[default]
    Always,
    /// Trust size and modification time; write what differs in these.
    IfChanged,
    /// Leave what is there.
    Never,
}

/// How to restore.
#[derive(Clone, Debug, Default)]
pub struct RestoreOptions {
    /// Only paths that match one of these; all if empty.
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    pub overwrite: Overwrite,
    /// Write long runs of zeros as holes.
    pub sparse: bool,
    pub dry_run: bool,
    /// Read everything back from the disk and compare.
    pub verify: bool,
    /// Use the recorded ids of owners and not their names.
    pub numeric_ids: bool,
}

/// What a restore did.
#[derive(Clone, Debug, Default)]
pub struct RestoreReport {
    pub files_restored: u64,
    /// Files that were already as they should be.
    pub files_unchanged: u64,
    /// Files left alone because of `Overwrite::Never`.
    pub files_skipped: u64,
    pub folders: u64,
    pub others: u64,
    /// Plain bytes written.
    pub bytes_restored: u64,
    /// Plain bytes of all selected files.
    pub bytes_total: u64,
    pub files_verified: u64,
    /// Paths that could not be restored, or not wholly; each was reported.
    pub problems: u64,
    /// Of these, those whose stored bytes are damaged.
    pub damaged: u64,
    pub seconds: f64,
}

/// Restores the selection into the folder `target`. With a path in the selection, that folder's contents (or that file) land in
/// `target` itself.
pub fn restore(
    repository: &Repository,
    selection: &Selection,
    target: &Path,
    options: &RestoreOptions,
    progress: &dyn Progress,
) -> Result<RestoreReport> {
    let _ = (repository, selection, target, options, progress);
    todo!()
}
