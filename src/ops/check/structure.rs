//! Structure: key slots, index segments, packs and their sizes, footers against segments.

use std::collections::{BTreeMap, HashMap, HashSet};

use rayon::prelude::*;

use super::{Remedy, Run, remedy};
use crate::backend::{Area, Place};
use crate::error::{Error, Result};
use crate::format::envelope::Kind;
use crate::format::frame::FrameRecord;
use crate::format::record::Record;
use crate::format::segment::PackRecord;
use crate::id::{FrameId, ObjectName};
use crate::limits::*;

/// What the repository holds, as far as it is sound.
#[derive(Default)]
pub struct Inventory {
    /// Every pack in the store, by name, with its size.
    pub packs: BTreeMap<ObjectName, u64>,
    /// Every frame that some present pack holds.
    pub frames: HashMap<FrameId, Held>,
    /// Delta frames and what they are based on.
    bases: Vec<(FrameId, Vec<FrameId>)>,
    /// Packs that hold delta frames.
    pub with_deltas: HashSet<ObjectName>,
}

/// A frame in a present pack.
pub struct Held {
    pub chunks: u32,
    /// There is a copy with all chunks that needs no base.
    plain: bool,
    /// There is a copy with all chunks.
    pub whole: bool,
}

impl Inventory {
    fn add(&mut self, pack: ObjectName, record: &FrameRecord) {
        let held = self.frames.entry(record.id).or_insert(Held { chunks: record.table.len() as u32, plain: false, whole: false });
        held.plain |= !record.is_delta() && record.present.is_none();
        held.whole |= record.present.is_none();
        if let Some(base) = &record.base {
            self.with_deltas.insert(pack);
            let mut frames: Vec<FrameId> = base.0.iter().map(|run| run.frame).collect();
            frames.sort_unstable();
            frames.dedup();
            self.bases.push((record.id, frames));
        }
    }
}

/// Checks structure and returns what is there.
pub fn check(run: &mut Run) -> Result<Inventory> {
    for (name, slot) in run.repository.slots()? {
        match slot {
            Ok(slot) if slot.repository == run.repository.id() => {}
            Ok(_) => run.report.notes.push(format!("key slot {name} belongs to another repository; an interrupted init leaves such slots")),
            Err(error) => run.trouble(format!("key slot {name}"), &error, None),
        }
    }
    for slot in run.repository.key_slots()? {
        if let Some(error) = slot.note_trouble {
            run.trouble(format!("note on key slot {}", slot.name), &error, None);
        }
    }
    check_records(run)?;
    let locator = run.repository.locator()?;
    // Segments first, for a backup beside this stores a pack and then the segment that lists it.
    let names: Vec<ObjectName> = locator.list(Area::Segments)?.into_iter().map(|(name, _)| name).collect();
    let mut inventory = Inventory { packs: locator.list(Area::Packs)?.into_iter().collect(), ..Inventory::default() };
    run.report.packs = inventory.packs.len() as u64;
    let mut seen = HashSet::new();
    for name in names {
        run.stop_if_interrupted()?;
        match locator.segment(name) {
            Ok(segment) => {
                let packs: Vec<PackRecord> = segment.packs.into_iter().filter(|pack| seen.insert(pack.name)).collect();
                check_packs(run, &mut inventory, &packs)?;
            }
            Err(error) => run.trouble(format!("index segment {name}"), &error, Some(Remedy::Index)),
        }
    }
    let unlisted: Vec<_> = inventory.packs.iter().filter(|(name, _)| !seen.contains(*name)).map(|(name, size)| (*name, *size)).collect();
    for (name, size) in unlisted {
        check_unlisted(run, &mut inventory, name, size)?;
    }
    // One whose base lacks chunks may need just these: it is looked at itself.
    let sound = |base: &FrameId| inventory.frames.get(base).is_some_and(|held| held.plain) && !run.suspects.contains(base);
    let baseless: Vec<FrameId> = inventory.bases.iter().filter(|(_, bases)| !bases.iter().all(sound)).map(|(id, _)| *id).collect();
    run.suspects.extend(baseless);
    Ok(inventory)
}

fn check_records(run: &mut Run) -> Result<()> {
    for listed in run.repository.backend().list(Area::Records)? {
        let place = Place { area: Area::Records, name: listed.name };
        let record = run.repository.read_object(Kind::Record, &place, RECORD_BYTES_MAX);
        let record = record.and_then(|body| Record::decode(&body).map_err(|error| error.of(&place)));
        if let Err(error) = record {
            run.trouble(&place, &error, remedy(&place));
        }
    }
    for (name, error) in run.repository.reports()?.1 {
        run.trouble(format!("report {name}"), &error, None);
    }
    Ok(())
}

fn check_packs(run: &mut Run, inventory: &mut Inventory, packs: &[PackRecord]) -> Result<()> {
    let locator = run.repository.locator()?;
    let footers: Vec<_> = packs.par_iter().map(|pack| locator.read_footer(pack.name, pack.size)).collect();
    for (pack, footer) in packs.iter().zip(footers) {
        let object = format!("pack {}", pack.name);
        let repair = Some(Remedy::Pack(pack.name));
        run.report.frames += pack.frames.len() as u64;
        let there = match (inventory.packs.get(&pack.name), footer) {
            (None, _) => {
                run.finding(object, "It is gone, but the index lists it", repair);
                false
            }
            (Some(&size), _) if size != pack.size => {
                run.finding(object, format!("It has {size} bytes and not {}", pack.size), repair);
                false
            }
            (Some(_), Err(error)) => {
                run.trouble(object, &error, repair);
                true
            }
            (Some(_), Ok((header, contents))) => {
                if header.kind != pack.kind || !contents.frames.iter().map(|frame| &**frame).eq(&pack.frames) {
                    run.finding(object, "Its footer and the index disagree on what it holds", Some(Remedy::Index));
                }
                true
            }
        };
        for frame in &pack.frames {
            match there {
                true => inventory.add(pack.name, frame),
                false => drop(run.suspects.insert(frame.id)),
            }
        }
    }
    Ok(())
}

/// A pack without a segment: an interrupted backup left it, or its segment is damaged or gone.
fn check_unlisted(run: &mut Run, inventory: &mut Inventory, name: ObjectName, size: u64) -> Result<()> {
    match run.repository.locator()?.read_footer(name, size) {
        Ok((_, contents)) => {
            run.report.frames += contents.frames.len() as u64;
            contents.frames.iter().for_each(|frame| inventory.add(name, frame));
            let note = "an interrupted backup leaves such packs; snap repair index lists it";
            run.report.notes.push(format!("pack {name} is in no index segment; {note}"));
        }
        Err(error) => run.trouble(format!("pack {name}"), &error, Some(Remedy::Pack(name))),
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
