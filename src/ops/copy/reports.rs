//! Reports go along with the snapshots they tell of, as they are, and each once.
//!
//! Only those of runs and drills: what a check or a prune did, it did to another store.

use std::collections::HashSet;

use super::{CopyOptions, CopyReport};
use crate::error::{Error, Result};
use crate::format::report::{Did, Report};
use crate::id::SnapshotId;
use crate::progress::{Problem, Progress};
use crate::repo::{Repository, Stored};

/// Copies the reports that go along with the chosen snapshots.
pub fn copy(
    from: &Repository,
    to: &Repository,
    chosen: &[Stored],
    options: &CopyOptions,
    progress: &dyn Progress,
    done: &mut CopyReport,
) -> Result<()> {
    let ids = chosen.iter().flat_map(Stored::names).collect();
    let (found, unreadable) = from.report_bodies()?;
    // Where snapshots are named, nobody asked for all there is.
    for (name, error) in unreadable.into_iter().filter(|_| options.which.is_empty()) {
        done.reports_unreadable += 1;
        progress.problem(&Problem::new(format!("report {name}"), error));
    }
    let found: Vec<Vec<u8>> = found.into_iter().filter(|(report, _)| goes_along(report, &ids, options)).map(|(_, body)| body).collect();
    if found.is_empty() {
        return Ok(());
    }
    let mut there: HashSet<blake3::Hash> = to.report_bodies()?.0.iter().map(|(_, body)| blake3::hash(body)).collect();
    for body in found {
        if progress.interrupted() {
            return Err(Error::Interrupted);
        }
        if there.insert(blake3::hash(&body)) {
            if !options.dry_run {
                to.save_report_body(&body)?;
            }
            done.reports += 1;
        }
    }
    Ok(())
}

/// Whether a report tells of a chosen snapshot, or, where all of some hosts and names are chosen, of what was tried there.
fn goes_along(report: &Report, ids: &HashSet<SnapshotId>, options: &CopyOptions) -> bool {
    let (job, snapshot) = match &report.did {
        Did::Run(run) => (&run.job, run.snapshot),
        Did::Drill(drill) => (&drill.job, drill.snapshot),
        Did::Check(_) | Did::Prune(_) => return false,
    };
    let filter = &options.filter;
    let of_all = options.which.is_empty() && filter.tags.is_empty();
    let fits = |wanted: &[String], name: &String| wanted.is_empty() || wanted.contains(name);
    snapshot.is_some_and(|id| ids.contains(&id)) || of_all && fits(&filter.hosts, &report.host) && fits(&filter.names, job)
}
