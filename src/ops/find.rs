//! Find: the paths of many snapshots that match patterns.
//!
//! A damaged catalog does not end the search: what can be read of it is searched, and the rest reported.

use std::sync::Arc;

use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::format::entry::{Entry, Node, Time};
use crate::ops::browse::below;
use crate::progress::{Problem, Progress, Stage};
use crate::repo::{CatalogReader, Repository, Selection};
use crate::source::Names;

/// What to look for.
pub struct FindOptions {
    pub names: Names,
    /// Modified at this time or later.
    pub oldest: Option<Timestamp>,
    /// Modified at this time or earlier.
    pub newest: Option<Timestamp>,
}

/// What was searched.
#[derive(Clone, Debug, Default)]
pub struct FindReport {
    pub snapshots: u64,
    pub matches: u64,
    /// The first thing that kept a part from being searched.
    pub trouble: Option<Arc<Error>>,
}

/// Calls `each` for every match in these snapshots, each below the selection's path, in the order given and in path order.
pub fn find(
    repository: &Repository,
    selections: &[Selection],
    options: &FindOptions,
    each: &mut dyn FnMut(&Selection, &Entry) -> Result<()>,
    progress: &dyn Progress,
) -> Result<FindReport> {
    progress.stage(Stage::Planning, None, None);
    let mut report = FindReport::default();
    for selection in selections {
        report.snapshots += 1;
        let mut met = false;
        for entry in CatalogReader::open_at(repository, &selection.stored.snapshot, &selection.path)? {
            if progress.interrupted() {
                return Err(Error::Interrupted);
            }
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    progress.problem(&Problem::new(format!("snapshot {}", selection.stored.id.short()), &error));
                    report.trouble.get_or_insert(Arc::new(error));
                    continue;
                }
            };
            match below(&entry.path, &selection.path) {
                None if met => break,
                None => continue,
                Some(_) => met = true,
            }
            if options.fits(&entry) {
                report.matches += 1;
                each(selection, &entry)?;
            }
        }
    }
    Ok(report)
}

impl FindOptions {
    fn fits(&self, entry: &Entry) -> bool {
        let time = nanoseconds(entry.meta.mtime);
        self.oldest.is_none_or(|oldest| time >= oldest.as_nanosecond())
            && self.newest.is_none_or(|newest| time <= newest.as_nanosecond())
            && self.names.matches(&entry.path, matches!(entry.node, Node::Folder))
    }
}

fn nanoseconds(time: Time) -> i128 {
    i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos)
}
