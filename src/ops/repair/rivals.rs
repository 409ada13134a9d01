//! Before packs are set aside: nobody else is taking away what this repair relies on.
//!
//! Who takes packs away is a collector (FORMAT.md, 21), and others may be at work: a prune may hold that what it deletes is still in the
//! pack that is set aside here. So damaged packs are condemned first, and only then it is looked whether somebody else has condemned what
//! is relied on instead. A prune does both in the same order: one of the two sees the other.

use std::collections::HashSet;

use crate::backend::Area;
use crate::error::{Error, Result};
use crate::format::record::{Condemned, Record};
use crate::id::ObjectName;
use crate::repo::Repository;
use crate::repo::records::{Records, Rigour, publish, remove};

/// Says that packs are going, and makes sure that those relied on are not. Returns the record that says so, to be removed when they are
/// gone.
pub fn condemn(repository: &Repository, host: &str, packs: Vec<ObjectName>, relied_on: &HashSet<ObjectName>) -> Result<Option<ObjectName>> {
    if packs.is_empty() {
        return Ok(None);
    }
    let (time, epoch) = (repository.world().now(), Records::read(repository, Rigour::Lenient)?.last_epoch());
    let record = Condemned { time, host: host.into(), epoch, packs, is_final: false, segments: Vec::new() };
    let notice = publish(repository, &Record::Condemned(record))?;
    let rival = find_rival(repository, notice, relied_on);
    if let Ok(None) = rival {
        return Ok(Some(notice));
    }
    remove(repository, notice)?;
    let pack = rival?.map_or_else(String::new, |pack| pack.to_string());
    Err(Error::Conflict(format!("Pack {pack}, which holds what is to be kept, is being deleted; run the repair again")))
}

/// A pack that is relied on and that somebody else is about to take away, or has.
fn find_rival(repository: &Repository, own: ObjectName, relied_on: &HashSet<ObjectName>) -> Result<Option<ObjectName>> {
    let records = Records::read(repository, Rigour::Lenient)?;
    let others = records.condemned.iter().filter(|(name, _)| *name != own);
    let condemned: HashSet<ObjectName> = others.flat_map(|(_, record)| &record.packs).copied().collect();
    let there: HashSet<ObjectName> = repository.locator()?.list(Area::Packs)?.into_iter().map(|(name, _)| name).collect();
    Ok(relied_on.iter().find(|pack| condemned.contains(*pack) || !there.contains(*pack)).copied())
}
