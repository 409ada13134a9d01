//! Structure: key slots, index segments, packs and their sizes, footers against segments.

use std::collections::{BTreeMap, HashMap, HashSet};

use rayon::prelude::*;

use super::Run;
use crate::backend::Area;
use crate::error::{Error, Result};
use crate::format::segment::{FrameEntry, PackRecord};
use crate::id::{FrameId, ObjectName};
use crate::repo::Footer;

/// What the repository holds, as far as it is sound.
#[derive(Default)]
pub struct Inventory {
    /// Every pack in the store, by name, with its size.
    pub packs: BTreeMap<ObjectName, u64>,
    /// Chunks of every frame that some present pack holds.
    pub frames: HashMap<FrameId, u32>,
}

/// Checks structure and returns what is there.
pub fn check(run: &mut Run) -> Result<Inventory> {
    for (name, slot) in run.repository.slots()? {
        match slot {
            Ok(slot) if slot.repository == run.repository.id() => {}
            Ok(_) => run.report.notes.push(format!("key slot {name} belongs to another repository; an interrupted init leaves such slots")),
            Err(error) => run.finding(format!("key slot {name}"), why(&error)),
        }
    }
    let locator = run.repository.locator()?;
    let mut inventory = Inventory { packs: locator.list(Area::Packs)?.into_iter().collect(), frames: HashMap::new() };
    run.report.packs = inventory.packs.len() as u64;
    let mut seen = HashSet::new();
    for (name, _) in locator.list(Area::Segments)? {
        run.stop_if_interrupted()?;
        match locator.segment(name) {
            Ok(segment) => {
                let packs: Vec<PackRecord> = segment.packs.into_iter().filter(|pack| seen.insert(pack.name)).collect();
                check_packs(run, &mut inventory, &packs)?;
            }
            Err(error) => run.finding(format!("index segment {name}"), format!("{}; snap repair index makes it anew", why(&error))),
        }
    }
    let unlisted: Vec<_> = inventory.packs.iter().filter(|(name, _)| !seen.contains(*name)).map(|(name, size)| (*name, *size)).collect();
    for (name, size) in unlisted {
        check_unlisted(run, &mut inventory, name, size)?;
    }
    Ok(inventory)
}

fn check_packs(run: &mut Run, inventory: &mut Inventory, packs: &[PackRecord]) -> Result<()> {
    let locator = run.repository.locator()?;
    let footers: Vec<Result<Footer>> = packs.par_iter().map(|pack| locator.read_footer(pack.name, pack.size)).collect();
    for (pack, footer) in packs.iter().zip(footers) {
        let object = format!("pack {}", pack.name);
        run.report.frames += pack.frames.len() as u64;
        let sound = match (inventory.packs.get(&pack.name), footer) {
            (None, _) => {
                run.finding(object, "It is gone, but the index lists it");
                false
            }
            (Some(&size), _) if size != pack.size => {
                run.finding(object, format!("It has {size} bytes and not {}", pack.size));
                false
            }
            (Some(_), Err(error)) => {
                run.finding(object, why(&error));
                true
            }
            (Some(_), Ok(footer)) => {
                let entries: Vec<FrameEntry> = footer.frames.iter().map(|frame| FrameEntry::of(frame)).collect();
                if footer.header.kind != pack.kind || entries != pack.frames {
                    run.finding(object, "Its footer and the index disagree on what it holds");
                }
                true
            }
        };
        for frame in &pack.frames {
            match sound {
                true => drop(inventory.frames.insert(frame.info.id, frame.chunks)),
                false => drop(run.suspects.insert(frame.info.id)),
            }
        }
    }
    Ok(())
}

/// A pack without a segment: an interrupted backup left it, or its segment is damaged or gone.
fn check_unlisted(run: &mut Run, inventory: &mut Inventory, name: ObjectName, size: u64) -> Result<()> {
    match run.repository.locator()?.read_footer(name, size) {
        Ok(footer) => {
            run.report.frames += footer.frames.len() as u64;
            inventory.frames.extend(footer.frames.iter().map(|frame| (frame.id, frame.table.len() as u32)));
            run.report.notes.push(format!("pack {name} is in no index segment; an interrupted backup leaves such packs"));
        }
        Err(error) => run.finding(format!("pack {name}"), why(&error)),
    }
    Ok(())
}

/// Why an object is damaged, without repeating which it is.
pub fn why(error: &Error) -> String {
    match error {
        Error::Damaged { why, .. } | Error::Unsupported { why, .. } => why.clone(),
        other => other.to_string(),
    }
}
