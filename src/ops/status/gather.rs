//! What is known of a repository: read from the store, as far as this host does not remember it.

use rayon::prelude::*;

use super::Facts;
use crate::backend::Area;
use crate::error::Result;
use crate::id::ObjectName;
use crate::repo::Repository;

/// Reads what there is to judge by.
pub fn gather(repository: &Repository) -> Result<Facts> {
    let ((snapshots, reports), listed) = rayon::join(
        || rayon::join(|| repository.snapshots_at_hand(), || repository.reports_at_hand()),
        || {
            // Packs first.
            let areas = [Area::Packs, Area::Segments, Area::Snapshots, Area::Records, Area::Reports, Area::Keys];
            areas.into_par_iter().map(|area| repository.backend().list(area)).collect::<Vec<_>>()
        },
    );
    let ((snapshots, unreadable), (reports, reports_unreadable)) = (snapshots?, reports?);
    let mut listed = listed.into_iter().collect::<std::result::Result<Vec<_>, _>>()?;
    let stored_bytes = listed.iter().flatten().map(|object| object.size).sum();
    let packs = listed.swap_remove(0).into_iter().filter_map(|pack| Some((pack.name.parse::<ObjectName>().ok()?, pack.size)));
    Ok(Facts {
        snapshots,
        snapshots_unreadable: unreadable.len() as u64,
        reports,
        reports_unreadable: reports_unreadable.len() as u64,
        packs: packs.collect(),
        stored_bytes,
        created: repository.manifest().created,
    })
}
