//! What is known of a repository: read from the store, as far as this host does not remember it.

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
            let areas = [Area::Packs, Area::Segments, Area::Snapshots, Area::Records, Area::Reports, Area::Keys];
            areas.map(|area| repository.backend().list(area))
        },
    );
    let ((snapshots, unreadable), (reports, reports_unreadable)) = (snapshots?, reports?);
    let [packs, others @ ..] = listed;
    let packs = packs?;
    let mut stored_bytes: u64 = packs.iter().map(|pack| pack.size).sum();
    for area in others {
        stored_bytes += area?.iter().map(|object| object.size).sum::<u64>();
    }
    let packs = packs.into_iter().filter_map(|pack| Some((pack.name.parse::<ObjectName>().ok()?, pack.size)));
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
