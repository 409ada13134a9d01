//! What a collection would do: a pure function from what is stored and what is needed.
//!
//! Of several copies of a frame one is kept: one that gives all that is needed of it, rather no delta, rather where most is needed anyway.
//! Packs without a kept copy are removed; of the others those with the largest unused share are rewritten until what stays unused is
//! little enough; many small ones are merged.

use std::collections::HashSet;

use super::facts::{Copy, Facts, Pack, State};
use crate::error::{Error, Result};
use crate::limits::*;
use crate::repo::Marks;

/// How much may stay unused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MaxUnused {
    /// Nothing is rewritten.
    Unlimited,
    Bytes(u64),
    /// Of what is stored afterwards.
    Percent(f64),
}

/// How far to go.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_unused: MaxUnused,
    /// Bytes of packs that may be rewritten.
    pub max_repack: Option<u64>,
}

/// Packs that are on their way out already.
#[derive(Clone, Debug, Default)]
pub struct Condemned {
    /// To be deleted for certain.
    pub doomed: HashSet<u32>,
    /// Condemned, and not yet for certain.
    pub announced: HashSet<u32>,
}

impl Condemned {
    pub fn has(&self, pack: u32) -> bool {
        self.doomed.contains(&pack) || self.announced.contains(&pack)
    }
}

/// What is to be done.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Packs nobody needs.
    pub remove: Vec<u32>,
    /// Packs whose needed frames are moved elsewhere.
    pub rewrite: Vec<u32>,
    pub figures: Figures,
}

/// The plan in figures; sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Figures {
    pub total_packs: u64,
    pub total_size: u64,
    /// Needed by snapshots, as far as can be told without rewriting.
    pub used_size: u64,
    /// Not needed, in packs that have something needed too.
    pub unused_size: u64,
    pub remove_packs: u64,
    pub remove_size: u64,
    pub rewrite_packs: u64,
    pub rewrite_size: u64,
    /// Of what is rewritten, how much goes.
    pub rewrite_gain: u64,
    pub thin_frames: u64,
    /// Condemned by earlier collections.
    pub condemned_packs: u64,
    pub condemned_size: u64,
    /// When all of that is deleted.
    pub size_after: u64,
    pub unused_after: u64,
}

/// Makes the plan.
pub fn plan(facts: &Facts, marks: &Marks, condemned: &Condemned, limits: &Limits) -> Result<Plan> {
    let kept = choose(facts, marks, condemned)?;
    let mut plan = Plan::default();
    let mut partly = Vec::new();
    for (number, pack) in facts.there() {
        let figures = &mut plan.figures;
        figures.total_packs += 1;
        figures.total_size += pack.size;
        let of_pack = &kept.packs[number as usize];
        if condemned.has(number) {
            figures.condemned_packs += 1;
            figures.condemned_size += pack.size;
        } else if of_pack.frames == 0 && !kept.pinned.contains(&number) {
            if pack.settled {
                figures.remove_packs += 1;
                figures.remove_size += pack.size;
                plan.remove.push(number);
            }
        } else if kept.pinned.contains(&number) || pack.state == State::Unsound {
            figures.used_size += pack.size;
        } else {
            let used = of_pack.bytes(pack, facts.copies_of(number));
            figures.used_size += used;
            figures.unused_size += pack.size - used;
            partly.push(Partly { number, size: pack.size, used });
        }
    }
    plan.rewrite = select(facts, &partly, plan.figures.used_size, limits);
    let rewritten: HashSet<u32> = plan.rewrite.iter().copied().collect();
    for Partly { number, size, used } in partly.iter().filter(|partly| rewritten.contains(&partly.number)) {
        plan.figures.rewrite_packs += 1;
        plan.figures.rewrite_size += size;
        plan.figures.rewrite_gain += size - used;
        plan.figures.thin_frames += kept.packs[*number as usize].partly;
    }
    let figures = &mut plan.figures;
    figures.unused_after = figures.unused_size - figures.rewrite_gain;
    figures.size_after = figures.total_size - figures.remove_size - figures.condemned_size - figures.rewrite_gain;
    Ok(plan)
}

/// A pack with something that is needed.
struct Partly {
    number: u32,
    size: u64,
    used: u64,
}

/// What is kept of a pack.
#[derive(Clone, Copy, Default)]
struct Kept {
    frames: u64,
    /// Stored bytes, by the share of chunks that are needed.
    stored: u64,
    /// Frames of which some chunks are not needed.
    partly: u64,
}

impl Kept {
    /// With its share of header, footer and trailer.
    fn bytes(&self, pack: &Pack, copies: &[Copy]) -> u64 {
        let boxes: u64 = copies.iter().map(|copy| u64::from(copy.stored_len)).sum();
        let around = pack.size.saturating_sub(boxes) * self.frames / copies.len().max(1) as u64;
        (self.stored + around).min(pack.size)
    }
}

struct Choice {
    packs: Vec<Kept>,
    /// Packs that stay as they are, because of a frame that no copy alone gives.
    pinned: HashSet<u32>,
}

/// Of what is needed, how many stored bytes a copy has.
fn needed_bytes(copy: &Copy, marks: &Marks) -> (u64, bool) {
    let has = copy.has(&marks.get(copy.frame).needed());
    let chunks = u64::from(copy.chunks.max(1));
    (u64::from(copy.stored_len) * u64::from(has) / chunks, has < u32::from(copy.chunks))
}

/// Chooses which copy of each frame is kept.
fn choose(facts: &Facts, marks: &Marks, condemned: &Condemned) -> Result<Choice> {
    let usable = |copy: &Copy| marks.get(copy.frame).is_needed() && copy.meets(marks);
    // By rank, the smaller the better: on its way out, delta, and how much of its pack is needed for nothing.
    let mut best: Vec<Option<(u8, bool, u64, u32)>> = vec![None; marks.len()];
    for (number, pack) in facts.there().filter(|(_, pack)| pack.state == State::Sound) {
        let copies = facts.copies_of(number);
        let needed: u64 = copies.iter().filter(|copy| usable(copy)).map(|copy| needed_bytes(copy, marks).0).sum();
        let waste = (pack.size.saturating_sub(needed)) * 1000 / pack.size.max(1);
        let tier = u8::from(condemned.announced.contains(&number)) + 2 * u8::from(condemned.doomed.contains(&number));
        for copy in copies.iter().filter(|copy| usable(copy)) {
            let rank = (tier, copy.is_delta, waste, number);
            let slot = &mut best[copy.frame as usize];
            *slot = Some(slot.map_or(rank, |known| known.min(rank)));
        }
    }
    let pinned = pin(facts, marks, &best)?;
    let mut packs = vec![Kept::default(); facts.packs.len()];
    for (number, _) in facts.there() {
        let mut seen = HashSet::new();
        for copy in facts.copies_of(number) {
            let is_best = best[copy.frame as usize].is_some_and(|(_, is_delta, _, pack)| pack == number && is_delta == copy.is_delta);
            // The same frame twice in one pack is kept once.
            if is_best && usable(copy) && seen.insert(copy.frame) {
                let (stored, is_partly) = needed_bytes(copy, marks);
                let kept = &mut packs[number as usize];
                kept.frames += 1;
                kept.stored += stored;
                kept.partly += u64::from(is_partly);
            }
        }
    }
    // A pack of the wrong size is left alone while it holds anything that is needed.
    let unsound = facts.there().filter(|(_, pack)| pack.state == State::Unsound);
    let holds_needed = |number: &u32| facts.copies_of(*number).iter().any(|copy| marks.get(copy.frame).is_needed());
    let pinned = pinned.into_iter().chain(unsound.map(|(number, _)| number).filter(holds_needed)).collect();
    Ok(Choice { packs, pinned })
}

/// The packs of frames that only several copies together give; an error if there is a frame that they do not give either.
fn pin(facts: &Facts, marks: &Marks, best: &[Option<(u8, bool, u64, u32)>]) -> Result<HashSet<u32>> {
    let unmet: HashSet<u32> =
        (0..marks.len() as u32).filter(|&frame| marks.get(frame).is_needed() && best[frame as usize].is_none()).collect();
    if unmet.is_empty() {
        return Ok(HashSet::new());
    }
    let mut pinned = HashSet::new();
    let mut given: std::collections::HashMap<u32, [crate::repo::Ordinals; 2]> = Default::default();
    for (number, pack) in facts.there().filter(|(_, pack)| pack.state == State::Sound) {
        for copy in facts.copies_of(number).iter().filter(|copy| unmet.contains(&copy.frame)) {
            pinned.insert(number);
            let [any, plain] = given.entry(copy.frame).or_default();
            let mut whole = crate::repo::Ordinals::default();
            whole.add(0, u32::from(copy.chunks));
            let present = copy.thinned.as_deref().unwrap_or(&whole);
            any.join(present);
            if !copy.is_delta {
                plain.join(present);
            }
        }
        debug_assert!(pack.state == State::Sound);
    }
    for &frame in &unmet {
        let mark = marks.get(frame);
        let is_given = given.get(&frame).is_some_and(|[any, plain]| {
            let used = mark.used.count_in(any) == mark.used.count();
            used && mark.base.as_ref().is_none_or(|base| base.count_in(plain) == base.count())
        });
        if !is_given {
            return Err(lost(facts, marks, frame));
        }
    }
    Ok(pinned)
}

/// A frame that a snapshot needs and no pack gives.
fn lost(facts: &Facts, marks: &Marks, frame: u32) -> Error {
    let id = marks.frames().find(|(_, number)| *number == frame).map_or_else(String::new, |(id, _)| id.hex());
    let holders = (0..).zip(&facts.packs).filter(|(number, _)| facts.copies_of(*number).iter().any(|copy| copy.frame == frame));
    let mut why: Vec<String> = holders
        .map(|(_, pack)| match pack.state {
            State::Sound => format!("pack {} lacks chunks of it", pack.name),
            State::Unsound => format!("pack {} has another size than it should", pack.name),
            State::Gone => format!("pack {} is gone", pack.name),
        })
        .collect();
    why.extend(facts.unreadable.iter().map(|(name, why)| format!("perhaps it is in pack {name}, but {why}")));
    if why.is_empty() {
        why.push("no pack holds it".into());
    }
    Error::damaged(format!("frame {id}, which a snapshot needs,"), format!("{}; nothing is deleted before this is mended", why.join(", ")))
}

/// Chooses which packs are rewritten.
fn select(facts: &Facts, partly: &[Partly], used: u64, limits: &Limits) -> Vec<u32> {
    let allowed = match limits.max_unused {
        MaxUnused::Unlimited => return Vec::new(),
        MaxUnused::Bytes(bytes) => bytes,
        MaxUnused::Percent(percent) if percent >= 100.0 => return Vec::new(),
        MaxUnused::Percent(percent) => (used as f64 * percent / (100.0 - percent)) as u64,
    };
    let mut unused: u64 = partly.iter().map(|partly| partly.size - partly.used).sum();
    let mut room = limits.max_repack.unwrap_or(u64::MAX);
    let mut chosen = HashSet::new();
    let mut take = |partly: &Partly| {
        let fits = partly.size <= room;
        if fits && chosen.insert(partly.number) {
            room -= partly.size;
        }
        fits
    };
    let mut by_waste: Vec<&Partly> = partly.iter().filter(|partly| partly.used < partly.size).collect();
    by_waste.sort_by_key(|partly| (std::cmp::Reverse((partly.size - partly.used) * 1_000_000 / partly.size), partly.number));
    for partly in by_waste {
        if unused <= allowed {
            break;
        }
        if take(partly) {
            unused -= partly.size - partly.used;
        }
    }
    for kind in [crate::format::envelope::Kind::DataPack, crate::format::envelope::Kind::CatalogPack] {
        let is_small = |partly: &&Partly| partly.size < SMALL_PACK_BYTES && facts.pack(partly.number).kind == kind;
        let small: Vec<&Partly> = partly.iter().filter(is_small).collect();
        if small.len() >= SMALL_PACKS_MIN {
            for partly in small {
                take(partly);
            }
        }
    }
    let mut chosen: Vec<u32> = chosen.into_iter().collect();
    chosen.sort_unstable();
    chosen
}
