//! What a collection would do: a pure function from what is stored and what is needed.
//!
//! Of several copies of a frame one is kept: one that gives all that is needed of it, rather no delta, rather where most is needed anyway.
//! Packs without a kept copy are removed; of the others those with the largest unused share are rewritten until what stays unused is
//! little enough; many small ones are merged.

use std::collections::{BTreeSet, HashSet};

use super::facts::{BaseChunks, Copy, Facts, Pack, State};
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

/// Makes the plan, and marks what deltas in packs that stay are based on.
pub fn plan(facts: &Facts, marks: &mut Marks, condemned: &Condemned, limits: &Limits) -> Result<Plan> {
    loop {
        let plan = plan_once(facts, marks, condemned, limits)?;
        let going: HashSet<u32> = plan.remove.iter().chain(&plan.rewrite).copied().collect();
        let stays = |pack: u32| !going.contains(&pack) && !condemned.has(pack);
        let before = marks.base_count();
        facts.mark_bases(marks, &stays);
        // What is needed only grows, so this ends.
        if marks.base_count() == before {
            return Ok(plan);
        }
    }
}

fn plan_once(facts: &Facts, marks: &Marks, condemned: &Condemned, limits: &Limits) -> Result<Plan> {
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
            let orphans = has_orphans(facts, marks, number);
            partly.push(Partly { number, size: pack.size, used, orphans });
        }
    }
    plan.rewrite = select(facts, &partly, plan.figures.used_size, limits);
    let rewritten: HashSet<u32> = plan.rewrite.iter().copied().collect();
    for Partly { number, size, used, .. } in partly.iter().filter(|partly| rewritten.contains(&partly.number)) {
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
    /// It has deltas that nothing uses, and that alone need something else.
    orphans: bool,
}

fn has_orphans(facts: &Facts, marks: &Marks, pack: u32) -> bool {
    let lacks = |(frame, chunks): &BaseChunks| chunks.count_in(&marks.get(*frame).needed()) < chunks.count();
    facts.copies_of(pack).iter().filter_map(|copy| copy.base.as_ref()).any(|base| base.iter().any(lacks))
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
            let rank = (tier, copy.is_delta(), waste, number);
            let slot = &mut best[copy.frame as usize];
            *slot = Some(slot.map_or(rank, |known| known.min(rank)));
        }
    }
    let pinned = pin(facts, marks, &best)?;
    let mut packs = vec![Kept::default(); facts.packs.len()];
    for (number, _) in facts.there() {
        let mut seen = HashSet::new();
        for copy in facts.copies_of(number) {
            let is_best = best[copy.frame as usize].is_some_and(|(_, is_delta, _, pack)| pack == number && is_delta == copy.is_delta());
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
    let unmet: BTreeSet<u32> =
        (0..marks.len() as u32).filter(|&frame| marks.get(frame).is_needed() && best[frame as usize].is_none()).collect();
    if unmet.is_empty() {
        return Ok(HashSet::new());
    }
    let mut pinned = HashSet::new();
    let mut given: std::collections::HashMap<u32, [crate::repo::Ordinals; 2]> = Default::default();
    for (number, pack) in facts.there().filter(|(_, pack)| pack.state == State::Sound) {
        for copy in facts.copies_of(number).iter().filter(|copy| unmet.contains(&copy.frame) && !copy.baseless) {
            pinned.insert(number);
            let [any, plain] = given.entry(copy.frame).or_default();
            let mut whole = crate::repo::Ordinals::default();
            whole.add(0, u32::from(copy.chunks));
            let present = copy.thinned.as_deref().unwrap_or(&whole);
            any.join(present);
            if !copy.is_delta() {
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
    let copy_in = |number: u32| facts.copies_of(number).iter().find(|copy| copy.frame == frame);
    let holders = (0..).zip(&facts.packs).filter_map(|(number, pack)| Some((copy_in(number)?, pack)));
    let mut why: Vec<String> = holders
        .map(|(copy, pack)| match pack.state {
            State::Sound if copy.baseless => format!("pack {} has only what changed since another frame, which is gone", pack.name),
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
    // Deltas that nothing uses hold on to much more than themselves.
    by_waste
        .sort_by_key(|partly| (!partly.orphans, std::cmp::Reverse((partly.size - partly.used) * 1_000_000 / partly.size), partly.number));
    for partly in by_waste {
        if unused <= allowed && !partly.orphans {
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::testing::{CHUNKS, Scene, only, whole};
    use super::*;
    use crate::format::envelope::Kind;
    use crate::format::frame::{Base, BaseRun, FrameRecord, Present};
    use crate::id::FrameId;

    /// A small generator (SplitMix64).
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) % end
        }
    }

    fn frame(number: u8, base: Option<u8>, present: Option<Present>) -> FrameRecord {
        let base = base.map(|frame| Base(vec![BaseRun { at: 0, frame: FrameId([frame; 32]), first: 1, count: 3 }]));
        FrameRecord { present, base, ..whole(number) }
    }

    impl Scene {
        fn plan(&mut self, max_unused: MaxUnused) -> Result<Plan> {
            self.facts.mark_used_bases(&mut self.marks);
            plan(&self.facts, &mut self.marks, &Condemned::default(), &Limits { max_unused, max_repack: None })
        }
    }

    #[test]
    fn packs_nobody_needs_are_removed_and_others_are_not() {
        let mut scene = Scene::default();
        let dead = scene.pack(vec![frame(1, None, None)]);
        let half = scene.pack(vec![frame(2, None, None), frame(3, None, None)]);
        let whole = scene.pack(vec![frame(4, None, None)]);
        scene.needs(2, 0, 3);
        scene.needs(4, 0, 6);
        let plan = scene.plan(MaxUnused::Percent(5.0)).unwrap();
        assert_eq!((plan.remove, plan.rewrite), (vec![dead], vec![half]));
        assert_eq!(plan.figures.thin_frames, 1);
        let plan = scene.plan(MaxUnused::Unlimited).unwrap();
        assert_eq!((plan.remove, plan.rewrite.len()), (vec![dead], 0));
        let plan = scene.plan(MaxUnused::Bytes(20_000)).unwrap();
        assert_eq!(plan.rewrite.len(), 0, "so much may stay unused");
        // A pack that came while the snapshots were listed may be a backup's that has none yet.
        scene.facts.packs[dead as usize].settled = false;
        assert!(scene.plan(MaxUnused::Bytes(0)).unwrap().remove.is_empty());
        let _ = whole;
    }

    /// The same frame twice in one pack: another program's prune removed it for that.
    #[test]
    fn a_frame_that_lies_twice_in_a_pack_is_kept() {
        let mut scene = Scene::default();
        scene.pack(vec![frame(1, None, None), frame(1, None, None)]);
        scene.needs(1, 0, 6);
        let plan = scene.plan(MaxUnused::Percent(90.0)).unwrap();
        assert_eq!((plan.remove.len(), plan.rewrite.len()), (0, 0));
        assert_eq!(scene.plan(MaxUnused::Bytes(0)).unwrap().rewrite, [0], "once is enough");
    }

    #[test]
    fn a_plain_copy_outlives_a_delta_one() {
        let mut scene = Scene::default();
        let base = scene.pack(vec![frame(1, None, None)]);
        let delta = scene.pack(vec![frame(2, Some(1), None)]);
        let plain = scene.pack(vec![frame(2, None, None)]);
        scene.needs(2, 0, 6);
        let plan = scene.plan(MaxUnused::Percent(100.0)).unwrap();
        assert_eq!(plan.remove, [delta]);
        // Without the plain copy the base is needed, though no recipe names it.
        scene.facts.packs[plain as usize].state = State::Gone;
        let plan = scene.plan(MaxUnused::Percent(100.0)).unwrap();
        assert!(plan.remove.is_empty());
        // A delta copy of the base does not do.
        scene.facts.packs[base as usize].state = State::Gone;
        scene.pack(vec![frame(1, Some(7), None), frame(7, None, None)]);
        let error = scene.plan(MaxUnused::Percent(100.0)).unwrap_err();
        assert!(matches!(&error, Error::Damaged { what, .. } if what.contains(&"01".repeat(32))), "{error}");
    }

    /// What a backup left that failed because its base was collected, and the same stored again whole: only the delta is broken.
    #[test]
    fn a_delta_without_its_base_is_no_copy_and_no_damage() {
        let mut scene = Scene::default();
        let base = scene.pack(vec![frame(1, None, None)]);
        let delta = scene.pack(vec![frame(2, Some(1), None)]);
        let plain = scene.pack(vec![frame(2, None, None)]);
        scene.facts.packs[base as usize].state = State::Gone;
        scene.needs(2, 0, 6);
        let plan = scene.plan(MaxUnused::Percent(100.0)).unwrap();
        assert_eq!((plan.remove, plan.rewrite), (vec![delta], vec![]));
        // Nor is it a place to survive in.
        let copies = scene.facts.copies_of(delta).iter().chain(scene.facts.copies_of(plain));
        assert_eq!(copies.map(|copy| copy.meets(&scene.marks)).collect::<Vec<_>>(), [false, true]);
        scene.facts.packs[plain as usize].state = State::Gone;
        let error = scene.plan(MaxUnused::Percent(100.0)).unwrap_err();
        assert!(matches!(&error, Error::Damaged { what, .. } if what.contains(&"02".repeat(32))), "{error}");
        assert!(error.to_string().contains("which is gone"), "{error}");
    }

    /// A writer may yet rely on a delta that nothing uses: as long as its pack stays, so does what it is based on.
    #[test]
    fn a_delta_that_stays_keeps_its_base() {
        let mut scene = Scene::default();
        let base = scene.pack(vec![frame(1, None, None)]);
        let mixed = scene.pack(vec![frame(2, Some(1), None), frame(3, None, None)]);
        scene.needs(3, 0, 6);
        let plan = scene.plan(MaxUnused::Unlimited).unwrap();
        assert_eq!((plan.remove, plan.rewrite), (vec![], vec![]), "rewriting is not allowed");
        let mut fresh = Scene::default();
        fresh.pack(vec![frame(1, None, None)]);
        fresh.pack(vec![frame(2, Some(1), None), frame(3, None, None)]);
        fresh.needs(3, 0, 6);
        let plan = fresh.plan(MaxUnused::Percent(99.0)).unwrap();
        assert_eq!((plan.remove, plan.rewrite), (vec![base], vec![mixed]), "it holds on to too much");
    }

    #[test]
    fn what_several_thinned_copies_give_together_stays() {
        let mut scene = Scene::default();
        let present = |from: u32, to: u32| Some(only(from..to));
        scene.pack(vec![frame(1, None, present(0, 4)), frame(2, None, None)]);
        scene.pack(vec![frame(1, None, present(2, 6))]);
        scene.needs(1, 1, 5);
        let plan = scene.plan(MaxUnused::Bytes(0)).unwrap();
        assert_eq!((plan.remove.len(), plan.rewrite.len()), (0, 0));
        scene.needs(1, 0, 6);
        scene.facts.packs[0].state = State::Unsound;
        let error = scene.plan(MaxUnused::Bytes(0)).unwrap_err();
        assert!(error.to_string().contains("has another size than it should"), "{error}");
        assert!(error.to_string().contains("lacks chunks of it"), "{error}");
    }

    fn limited(scene: &mut Scene, condemned: &Condemned, max_unused: MaxUnused, max_repack: Option<u64>) -> Plan {
        scene.facts.mark_used_bases(&mut scene.marks);
        plan(&scene.facts, &mut scene.marks, condemned, &Limits { max_unused, max_repack }).unwrap()
    }

    /// To the byte: of header and footer a frame has its share.
    #[test]
    fn figures_say_what_there_is_and_what_goes() {
        let mut scene = Scene::default();
        scene.pack(vec![frame(1, None, None), frame(2, None, None)]);
        let partly = scene.pack(vec![frame(3, None, None), frame(4, None, None), frame(11, None, None)]);
        let dead = scene.pack(vec![frame(5, None, None)]);
        let (doomed, announced) = (scene.pack(vec![frame(6, None, None)]), scene.pack(vec![frame(7, None, None)]));
        let unsound = scene.pack(vec![frame(1, None, None)]);
        let young = scene.pack(vec![frame(8, None, None)]);
        let gone = scene.pack(vec![frame(9, None, None)]);
        let broken = scene.pack(vec![frame(10, None, None)]);
        scene.facts.packs[unsound as usize].state = State::Unsound;
        scene.facts.packs[broken as usize].state = State::Unsound;
        scene.facts.packs[young as usize].settled = false;
        scene.facts.packs[gone as usize].state = State::Gone;
        (1..=2).for_each(|frame| scene.needs(frame, 0, CHUNKS));
        scene.needs(3, 1, 2);
        scene.needs(11, 0, CHUNKS);
        let condemned = Condemned { doomed: HashSet::from([doomed]), announced: HashSet::from([announced]) };
        let expected = Figures {
            total_packs: 8,
            total_size: 6 * 6500 + 12_500 + 18_500,
            used_size: 12_500 + 6500 + 8333,
            unused_size: 18_500 - 8333,
            remove_packs: 2,
            remove_size: 2 * 6500,
            rewrite_packs: 1,
            rewrite_size: 18_500,
            rewrite_gain: 18_500 - 8333,
            thin_frames: 1,
            condemned_packs: 2,
            condemned_size: 2 * 6500,
            size_after: 12_500 + 2 * 6500 + 8333,
            unused_after: 0,
        };
        let plan = limited(&mut scene, &condemned, MaxUnused::Bytes(0), None);
        assert_eq!((plan.remove, plan.rewrite), (vec![dead, broken], vec![partly]));
        assert_eq!(plan.figures, expected);
        let plan = limited(&mut scene, &condemned, MaxUnused::Unlimited, None);
        let stays = Figures {
            rewrite_packs: 0,
            rewrite_size: 0,
            rewrite_gain: 0,
            thin_frames: 0,
            size_after: expected.size_after + expected.unused_size,
            unused_after: expected.unused_size,
            ..expected
        };
        assert_eq!((plan.rewrite, plan.figures), (vec![], stays));
    }

    /// A copy on its way out, more so one that goes for certain, is kept only if there is no other.
    #[test]
    fn a_copy_that_stays_outlives_one_on_its_way_out() {
        let sets: [(&[u32], &[u32]); 3] = [(&[0], &[]), (&[], &[0]), (&[0], &[1])];
        for (doomed, announced) in sets {
            let mut scene = Scene::default();
            scene.pack(vec![frame(1, None, None)]);
            // Worse in every other way: a delta in a pack that nothing else needs.
            scene.pack(vec![frame(1, Some(2), None), frame(3, None, None), frame(4, None, None)]);
            scene.pack(vec![frame(2, None, None)]);
            scene.needs(1, 0, CHUNKS);
            let condemned = Condemned { doomed: doomed.iter().copied().collect(), announced: announced.iter().copied().collect() };
            let kept = choose(&scene.facts, &scene.marks, &condemned).unwrap();
            let frames: Vec<u64> = kept.packs.iter().map(|kept| kept.frames).collect();
            assert_eq!(frames, [0, 1, 0], "{doomed:?} are doomed, {announced:?} announced");
        }
    }

    #[test]
    fn of_equal_copies_the_one_in_the_fuller_pack_is_kept() {
        let mut scene = Scene::default();
        let wasteful = scene.pack(vec![frame(1, None, None), frame(2, None, None)]);
        // As much is unused in it, which is less of it.
        let fuller = scene.pack(vec![frame(1, None, None), frame(3, None, None), frame(4, None, None), frame(5, None, None)]);
        for number in [1, 3, 4] {
            scene.needs(number, 0, CHUNKS);
        }
        let plan = scene.plan(MaxUnused::Unlimited).unwrap();
        assert_eq!((plan.remove, plan.figures.used_size), (vec![wasteful], 18_000 + 375));
        assert_eq!(plan.figures.total_size - plan.figures.remove_size, scene.facts.pack(fuller).size);
    }

    /// Packs of four frames, of which the first has one that is needed, and each other one more than the one before.
    fn stepped() -> Scene {
        let mut scene = Scene::default();
        for pack in 0..4 {
            scene.pack((0..4).map(|at| frame(4 * pack + at, None, None)).collect());
            (0..=pack).for_each(|at| scene.needs(4 * pack + at, 0, CHUNKS));
        }
        scene
    }

    /// Used are 6125, 12,250, 18,375 and 24,500 bytes of 24,500 each.
    #[test]
    fn the_most_wasteful_packs_are_rewritten_until_little_enough_is_unused() {
        let mut scene = stepped();
        let rewritten = |scene: &mut Scene, max_unused, max_repack| limited(scene, &Condemned::default(), max_unused, max_repack).rewrite;
        for (allowed, packs) in [(0, 3), (6124, 3), (6125, 2), (18_374, 2), (18_375, 1), (36_749, 1), (36_750, 0)] {
            assert_eq!(rewritten(&mut scene, MaxUnused::Bytes(allowed), None), (0..packs).collect::<Vec<u32>>(), "{allowed}");
        }
        // Of what is stored afterwards: 61,250 bytes are used.
        for (percent, packs) in [(0.0, 3), (9.0, 3), (9.1, 2), (23.0, 2), (23.1, 1), (37.4, 1), (37.5, 0), (100.0, 0), (150.0, 0)] {
            assert_eq!(rewritten(&mut scene, MaxUnused::Percent(percent), None), (0..packs).collect::<Vec<u32>>(), "{percent} %");
        }
        for (room, packs) in [(24_499, 0), (24_500, 1), (48_999, 1), (49_000, 2), (73_499, 2), (73_500, 3)] {
            assert_eq!(rewritten(&mut scene, MaxUnused::Bytes(0), Some(room)), (0..packs).collect::<Vec<u32>>(), "{room}");
        }
    }

    /// Unused are 6250 bytes of 12,500, 18,188 of 48,500, 6125 of 24,500, and none of 6500.
    #[test]
    fn the_unused_share_of_a_pack_counts_and_not_its_size() {
        let mut scene = Scene::default();
        let mut next = 0;
        for (frames, needed) in [(2, 1), (8, 5), (4, 3), (1, 1)] {
            scene.pack((next..next + frames).map(|number| frame(number, None, None)).collect());
            (next..next + needed).for_each(|number| scene.needs(number, 0, CHUNKS));
            next += frames;
        }
        let mut rewritten = |allowed, room| limited(&mut scene, &Condemned::default(), MaxUnused::Bytes(allowed), room).rewrite;
        assert_eq!([24_313, 24_312, 6125].map(|allowed| rewritten(allowed, None)), [vec![0], vec![0, 1], vec![0, 1]]);
        // What does not fit leaves room for what does, and what is used as a whole stays.
        assert_eq!(rewritten(0, Some(45_000)), [0, 2]);
    }

    /// Deltas that nothing uses hold on to their bases: their packs come first, and are rewritten however little is unused.
    #[test]
    fn packs_with_deltas_nothing_uses_come_first() {
        let mut scene = Scene::default();
        scene.pack(vec![frame(1, None, None), frame(2, None, None)]);
        let wasteful = scene.pack((3..8).map(|number| frame(number, None, None)).collect());
        let orphans = scene.pack((8..12).map(|number| frame(number, (number == 11).then_some(2), None)).collect());
        for number in [1, 3, 8, 9, 10] {
            scene.needs(number, 0, CHUNKS);
        }
        let rewritten = |scene: &mut Scene, unused, room| limited(scene, &Condemned::default(), MaxUnused::Bytes(unused), room).rewrite;
        assert_eq!(rewritten(&mut scene, 1_000_000, None), [orphans]);
        assert_eq!(rewritten(&mut scene, 0, Some(33_000)), [orphans]);
        // What it is based on is needed anyway: then it holds on to nothing.
        scene.needs(2, 1, 3);
        assert!(rewritten(&mut scene, 1_000_000, None).is_empty());
        assert_eq!(rewritten(&mut scene, 0, Some(33_000)), [wasteful]);
    }

    #[test]
    fn many_small_packs_of_a_kind_are_merged() {
        let scene = |data: usize, catalog: usize, size: u64| {
            let mut scene = Scene::default();
            for at in 0..data + catalog {
                let number = scene.pack(vec![frame(at as u8, None, None)]) as usize;
                let kind = if at < data { Kind::DataPack } else { Kind::CatalogPack };
                (scene.facts.packs[number].kind, scene.facts.packs[number].size) = (kind, size);
                scene.needs(at as u8, 0, CHUNKS);
            }
            scene
        };
        let rewritten = |mut scene: Scene, room| limited(&mut scene, &Condemned::default(), MaxUnused::Percent(5.0), room).rewrite;
        let (few, many, small) = (SMALL_PACKS_MIN - 1, SMALL_PACKS_MIN, SMALL_PACK_BYTES - 1);
        // All that is around the boxes is the frames': nothing is unused.
        assert!(rewritten(scene(few, few, small), None).is_empty());
        assert_eq!(rewritten(scene(many, few, small), None), (0..many as u32).collect::<Vec<_>>());
        assert_eq!(rewritten(scene(few, many, small), None), (few as u32..(few + many) as u32).collect::<Vec<_>>());
        assert!(rewritten(scene(many, many, SMALL_PACK_BYTES), None).is_empty());
        assert_eq!(rewritten(scene(many, 0, small), Some(3 * small)), [0, 1, 2], "no more than may be moved");
    }

    /// Random stores: every frame that is needed and was given by one copy still is, by a pack that is neither removed nor condemned,
    /// and so is what every delta in a pack that stays is based on.
    #[test]
    fn nothing_needed_is_ever_removed() {
        for seed in 0..3000 {
            let mut random = Random(seed);
            let mut scene = Scene::default();
            let mut records: HashMap<u32, Vec<FrameRecord>> = HashMap::new();
            for _ in 0..1 + random.below(6) {
                let mut frames = Vec::new();
                for _ in 0..1 + random.below(4) {
                    let number = random.below(8) as u8;
                    // Bases have lower numbers and are plain.
                    let base = (number >= 4 && random.below(2) == 0).then(|| random.below(4) as u8);
                    let flags: Vec<bool> = (0..CHUNKS).map(|_| random.below(4) > 0).collect();
                    let present = (random.below(3) == 0).then(|| Present::from_flags(flags.into_iter()));
                    frames.push(frame(number, base, present));
                }
                let number = scene.pack(frames.clone());
                scene.facts.packs[number as usize].settled = random.below(8) > 0;
                records.insert(number, frames);
            }
            for _ in 0..random.below(5) {
                let first = random.below(CHUNKS.into()) as u32;
                scene.needs(random.below(8) as u8, first, 1 + random.below(u64::from(CHUNKS - first)) as u32);
            }
            let limit =
                [MaxUnused::Bytes(0), MaxUnused::Percent(5.0), MaxUnused::Percent(50.0), MaxUnused::Unlimited][random.below(4) as usize];
            let Ok(plan) = scene.plan(limit) else { continue };
            let removed: HashSet<u32> = plan.remove.iter().copied().collect();
            assert!(plan.rewrite.iter().all(|pack| !removed.contains(pack)), "seed {seed}");
            assert!(plan.figures.size_after <= plan.figures.total_size, "seed {seed}");
            let baseless = |pack: u32, at: usize| scene.facts.copies_of(pack)[at].baseless;
            let given_by = |by: &dyn Fn(&u32) -> bool, frame: &FrameId, chunks: &crate::repo::Ordinals, plain: bool| {
                let mut all = crate::repo::Ordinals::default();
                for (pack, frames) in records.iter().filter(|(pack, _)| by(pack)) {
                    for (at, record) in frames.iter().enumerate() {
                        if record.id == *frame && !(plain && record.is_delta()) && !baseless(*pack, at) {
                            all.join(&crate::repo::Ordinals::present_in(record));
                        }
                    }
                }
                chunks.count_in(&all) == chunks.count()
            };
            let given = |frame: &FrameId, chunks: &_, plain| given_by(&|pack| !removed.contains(pack), frame, chunks, plain);
            for (id, number) in scene.marks.frames() {
                let mark = scene.marks.get(number);
                assert!(given(id, &mark.used, false), "seed {seed}: frame {id:?}");
                assert!(mark.base.as_ref().is_none_or(|base| given(id, base, true)), "seed {seed}: base {id:?}");
            }
            let stays = |pack: &u32| !removed.contains(pack) && !plan.rewrite.contains(pack);
            for record in records.iter().filter(|(pack, _)| stays(pack)).flat_map(|(_, frames)| frames) {
                for run in record.base.iter().flat_map(|base| &base.0) {
                    let mut chunks = crate::repo::Ordinals::default();
                    chunks.add(run.first, run.count);
                    let was_there = given_by(&|_| true, &run.frame, &chunks, true);
                    assert!(!was_there || given(&run.frame, &chunks, true), "seed {seed}: base of {:?}", record.id);
                }
            }
        }
    }
}
