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
use crate::ops::go_on;
use crate::repo::is_not_found;

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
    let mut inventory = Inventory { packs: locator.list(Area::Packs)?.into_iter().collect(), ..Inventory::default() };
    run.report.packs = inventory.packs.len() as u64;
    let mut listing = Listing::default();
    while let Some(name) = listing.next(run)? {
        go_on(run.progress)?;
        match locator.segment(name) {
            Ok(segment) => {
                listing.replaced.extend(segment.replaces);
                let (packs, seen): (Vec<PackRecord>, Vec<_>) = segment.packs.into_iter().partition(|pack| listing.seen.insert(pack.name));
                check_packs(run, &mut inventory, &mut listing, name, &packs)?;
                listing.say_again(name, &seen);
            }
            Err(error) if is_not_found(&error) => listing.vanished.extend([name]),
            Err(error) => run.trouble(format!("index segment {name}"), &error, Some(Remedy::Index)),
        }
    }
    check_gone(run, &listing)?;
    let seen = &listing.seen;
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

/// Segments, and packs that they list and the store has not.
#[derive(Default)]
struct Listing {
    /// To be looked at.
    waiting: Vec<ObjectName>,
    known: HashSet<ObjectName>,
    /// Segments that went away since they were listed.
    vanished: HashSet<ObjectName>,
    /// Segments that others say they replace.
    replaced: HashSet<ObjectName>,
    /// Packs that some segment lists.
    seen: HashSet<ObjectName>,
    gone: BTreeMap<ObjectName, Gone>,
}

/// A pack that is gone.
struct Gone {
    segments: Vec<ObjectName>,
    frames: Vec<FrameId>,
}

impl Listing {
    /// The next segment; lists them again at the start, and when some were replaced meanwhile.
    fn next(&mut self, run: &Run) -> Result<Option<ObjectName>> {
        if self.waiting.is_empty() && (self.known.is_empty() || !self.vanished.is_empty()) {
            self.replaced.extend(self.vanished.drain());
            let listed = run.repository.locator()?.list(Area::Segments)?;
            self.waiting = listed.into_iter().map(|(name, _)| name).filter(|name| self.known.insert(*name)).collect();
            self.waiting.reverse();
        }
        Ok(self.waiting.pop())
    }

    /// A segment lists packs that another listed before.
    fn say_again(&mut self, segment: ObjectName, packs: &[PackRecord]) {
        for pack in packs {
            if let Some(gone) = self.gone.get_mut(&pack.name) {
                gone.segments.push(segment);
            }
        }
    }
}

/// Packs that are gone are damage, but for those that a collection removed: they are condemned, or only segments that were replaced
/// list them.
fn check_gone(run: &mut Run, listing: &Listing) -> Result<()> {
    if listing.gone.is_empty() {
        return Ok(());
    }
    // Read now: a collection that began meanwhile has said so before it deleted anything.
    let condemned = condemned(run);
    for (name, gone) in &listing.gone {
        let is_replaced = gone.segments.iter().all(|segment| listing.replaced.contains(segment));
        if !is_replaced && !condemned.contains(name) {
            run.finding(format!("pack {name}"), "It is gone, but the index lists it", Some(Remedy::Pack(*name)));
            run.suspects.extend(&gone.frames);
        }
    }
    Ok(())
}

/// The packs that are condemned now; records that cannot be read are findings of their own.
pub fn condemned(run: &Run) -> HashSet<ObjectName> {
    run.repository.condemned_packs().unwrap_or_default()
}

fn check_packs(run: &mut Run, inventory: &mut Inventory, listing: &mut Listing, segment: ObjectName, packs: &[PackRecord]) -> Result<()> {
    let locator = run.repository.locator()?;
    let footers: Vec<_> = packs.par_iter().map(|pack| locator.read_footer(pack.name, pack.size)).collect();
    for (pack, footer) in packs.iter().zip(footers) {
        let object = format!("pack {}", pack.name);
        let repair = Some(Remedy::Pack(pack.name));
        run.report.frames += pack.frames.len() as u64;
        let there = match (inventory.packs.get(&pack.name), footer) {
            (_, Err(error)) if is_not_found(&error) => {
                let frames = pack.frames.iter().map(|frame| frame.id).collect();
                listing.gone.insert(pack.name, Gone { segments: vec![segment], frames });
                inventory.packs.remove(&pack.name);
                false
            }
            (Some(&size), _) if size != pack.size => {
                run.finding(object, format!("It has {size} bytes and not {}", pack.size), repair);
                false
            }
            (_, Err(error)) => {
                run.trouble(object, &error, repair);
                true
            }
            (known, Ok((header, contents))) => {
                if header.kind != pack.kind || !contents.frames.iter().map(|frame| &**frame).eq(&pack.frames) {
                    run.finding(object, "Its footer and the index disagree on what it holds", Some(Remedy::Index));
                }
                // Stored since packs were listed.
                if known.is_none() {
                    inventory.packs.insert(pack.name, pack.size);
                }
                true
            }
        };
        match there {
            true => pack.frames.iter().for_each(|frame| inventory.add(pack.name, frame)),
            false if listing.gone.contains_key(&pack.name) => {}
            false => run.suspects.extend(pack.frames.iter().map(|frame| frame.id)),
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
        // Removed since packs were listed.
        Err(error) if is_not_found(&error) => drop(inventory.packs.remove(&name)),
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
