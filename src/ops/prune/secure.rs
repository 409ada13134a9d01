//! Before packs go: every frame in them that is needed has another place, and was read well from there.
//!
//! What has none is moved, from whichever copy reads well. A frame of which no copy does keeps its packs from being deleted: damage is
//! never moved, and never made worse.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use rayon::prelude::*;

use super::collector::Collector;
use super::facts::State;
use super::plan::Condemned;
use crate::backend::Place;
use crate::error::Result;
use crate::format::frame::FrameRecord;
use crate::index::Scope;
use crate::limits::*;
use crate::ops::go_on;
use crate::progress::{Problem, Stage};
use crate::repo::{Contents, Move, Mover, Ordinals};

/// A frame that is needed and lies in a pack that is to go.
#[derive(Clone, Debug)]
pub struct Need {
    pub frame: u32,
    /// Packs to go that hold it.
    pub holders: Vec<u32>,
    /// Those of them with a copy that gives all that is needed, plain ones first.
    sources: Vec<u32>,
    /// Other packs with such a copy.
    pub survivors: Vec<u32>,
}

impl Collector<'_> {
    /// Marks what deltas need in packs that neither are condemned nor go with these, and in those of backups under way: a delta that
    /// nothing uses now must not become a trap for who comes to rely on it.
    pub fn protect(&mut self, packs: &HashSet<u32>, barred: &Condemned) {
        let kept = |pack: u32| self.leaving.contains(&pack) || self.busy.contains(&pack);
        let stays = |pack: u32| kept(pack) || !packs.contains(&pack) && !barred.has(pack);
        self.facts.mark_bases(&mut self.marks, &stays);
    }

    /// What of these packs is needed, in the order it lies in them. Condemned packs are no place to survive in.
    pub fn needs(&self, packs: &HashSet<u32>, barred: &Condemned) -> Vec<Need> {
        let mut needs: Vec<Need> = Vec::new();
        let mut by_frame: HashMap<u32, usize> = HashMap::new();
        let mut order: Vec<u32> = packs.iter().copied().collect();
        order.sort_unstable();
        for &pack in &order {
            for copy in self.facts.copies_of(pack).iter().filter(|copy| self.marks.get(copy.frame).is_needed()) {
                let at = *by_frame.entry(copy.frame).or_insert_with(|| {
                    needs.push(Need { frame: copy.frame, holders: Vec::new(), sources: Vec::new(), survivors: Vec::new() });
                    needs.len() - 1
                });
                let need = &mut needs[at];
                if need.holders.last() != Some(&pack) {
                    need.holders.push(pack);
                }
                if copy.meets(&self.marks) && !need.sources.contains(&pack) {
                    let place = if copy.is_delta() { need.sources.len() } else { 0 };
                    need.sources.insert(place, pack);
                }
            }
        }
        if needs.is_empty() {
            return needs;
        }
        let may_survive = |pack: u32| self.leaving.contains(&pack) || !packs.contains(&pack) && !barred.has(pack);
        for (pack, _) in self.facts.there().filter(|(number, pack)| pack.state == State::Sound && may_survive(*number)) {
            for copy in self.facts.copies_of(pack) {
                if let Some(&at) = by_frame.get(&copy.frame).filter(|_| copy.meets(&self.marks)) {
                    let survivors = &mut needs[at].survivors;
                    let place = if copy.is_delta() { survivors.len() } else { 0 };
                    survivors.insert(place, pack);
                }
            }
        }
        needs
    }

    /// Reads survivors from the medium; returns the needs for which none is good.
    pub fn verify(&mut self, needs: Vec<Need>) -> Result<Vec<Need>> {
        let mut unmet = Vec::new();
        let mut open: Vec<(Need, usize)> = needs.into_iter().map(|need| (need, 0)).collect();
        while !open.is_empty() {
            // Survivors of a round, pack by pack.
            let mut by_pack: BTreeMap<u32, Vec<(Need, usize)>> = BTreeMap::new();
            for (need, tried) in open.drain(..) {
                match need.survivors.get(tried) {
                    None => unmet.push(need),
                    Some(&pack) if self.verified.contains(&(pack, need.frame)) => {}
                    Some(&pack) => by_pack.entry(pack).or_default().push((need, tried)),
                }
            }
            for (pack, needs) in by_pack {
                go_on(self.progress)?;
                let frames: Vec<u32> = needs.iter().map(|(need, _)| need.frame).collect();
                let good = self.verify_in(pack, &frames)?;
                for ((need, tried), is_good) in needs.into_iter().zip(good) {
                    match is_good {
                        true => drop(self.verified.insert((pack, need.frame))),
                        false => open.push((need, tried + 1)),
                    }
                }
            }
        }
        unmet.sort_by_key(|need| (need.holders[0], need.frame));
        Ok(unmet)
    }

    /// Which of these frames a pack has, and can be read from it.
    fn verify_in(&self, pack: u32, frames: &[u32]) -> Result<Vec<bool>> {
        let (name, size) = (self.facts.pack(pack).name, self.facts.pack(pack).size);
        self.repository.backend().forget_cached(&Place::pack(name));
        let Ok((_, contents)) = self.repository.locator()?.read_footer(name, size) else { return Ok(vec![false; frames.len()]) };
        let records = self.records_by_number(&contents);
        let reader = self.repository.reader()?;
        let is_good = |frame: &u32| {
            let record = records.get(frame)?;
            let gives = self.marks.get(*frame).is_met_by(&Ordinals::present_in(record), record.is_delta());
            (gives && reader.verify_in(name, record).is_ok()).then_some(())
        };
        Ok(frames.par_iter().with_max_len(1).map(|frame| is_good(frame).is_some()).collect())
    }

    /// A pack's records by the number of their frame; of two of one frame, the better.
    fn records_by_number(&self, contents: &Contents) -> HashMap<u32, Arc<FrameRecord>> {
        let mut records: HashMap<u32, Arc<FrameRecord>> = HashMap::new();
        for record in &contents.frames {
            let Some(number) = self.marks.number_of(&record.id) else { continue };
            let is_better = |known: &Arc<FrameRecord>| {
                let rank = |record: &FrameRecord| {
                    let present = Ordinals::present_in(record);
                    (self.marks.get(number).is_met_by(&present, record.is_delta()), !record.is_delta(), present.count())
                };
                rank(record) > rank(known)
            };
            if records.get(&number).is_none_or(is_better) {
                records.insert(number, record.clone());
            }
        }
        records
    }

    /// Moves what is needed out of packs that are to go. Returns the packs that must stay, because something in them is needed and can
    /// neither be read well nor found elsewhere.
    pub fn move_out(&mut self, unmet: Vec<Need>, packs: &HashSet<u32>) -> Result<HashSet<u32>> {
        let repository = self.repository;
        let mut mover = Mover::start(repository, self.options.level)?;
        let stored_len = |need: &Need| {
            let source = need.sources.first().map(|&pack| self.facts.copies_of(pack));
            source.and_then(|copies| copies.iter().find(|copy| copy.frame == need.frame)).map_or(0, |copy| u64::from(copy.stored_len))
        };
        self.progress.stage(Stage::Rewriting, Some(unmet.iter().map(stored_len).sum()), None);
        let mut open: Vec<(Need, usize)> = unmet.into_iter().map(|need| (need, 0)).collect();
        let mut reasons: HashMap<u32, String> = HashMap::new();
        while !open.is_empty() {
            let mut by_pack: Vec<(u32, Vec<(Need, usize)>)> = Vec::new();
            for (need, tried) in open.drain(..) {
                let Some(&pack) = need.sources.get(tried) else { continue };
                match by_pack.last_mut() {
                    Some((last, needs)) if *last == pack => needs.push((need, tried)),
                    _ => by_pack.push((pack, vec![(need, tried)])),
                }
            }
            for (pack, needs) in by_pack {
                for part in needs.chunks(4 * FETCH_FRAMES) {
                    go_on(self.progress)?;
                    let failed = self.move_from(&mut mover, pack, part)?;
                    for (at, why) in failed {
                        reasons.insert(part[at].0.frame, why);
                        open.push((part[at].0.clone(), part[at].1 + 1));
                    }
                }
            }
        }
        let stored = mover.finish()?;
        self.report.bytes_written += stored.iter().map(|pack| pack.size).sum::<u64>();
        self.report.packs_written += stored.len() as u64;
        self.repository.save_segments(stored, Vec::new())?;
        // Deltas are read through the index: it must know where their bases are now.
        self.repository.locator()?.refresh(Scope::Frames)?;
        self.refresh()?;
        let unmet = self.verify(self.needs(packs, &self.condemned()))?;
        for need in &unmet {
            let why = reasons.get(&need.frame).map_or("it was not found whole", String::as_str);
            for &pack in &need.holders {
                let pack = format!("pack {}", self.facts.pack(pack).name);
                self.progress.problem(&Problem::new(&pack, format!("It is kept as it is, because something in it is damaged: {why}")));
                self.report.damaged.insert(pack);
            }
        }
        Ok(unmet.iter().flat_map(|need| &need.holders).copied().collect())
    }

    /// Moves frames from one pack; returns those that could not be, and why.
    fn move_from(&mut self, mover: &mut Mover, pack: u32, needs: &[(Need, usize)]) -> Result<Vec<(usize, String)>> {
        let (name, size) = (self.facts.pack(pack).name, self.facts.pack(pack).size);
        let locator = self.repository.locator()?;
        let contents = match locator.read_footer(name, size) {
            Ok((_, contents)) => Some(contents),
            // The frames themselves are verified in any case.
            Err(_) => locator.listed_contents(name)?,
        };
        let records = contents.map(|contents| self.records_by_number(&contents)).unwrap_or_default();
        let mut failed = Vec::new();
        let mut moves = Vec::new();
        let mut of_move = Vec::new();
        for (at, (need, _)) in needs.iter().enumerate() {
            match records.get(&need.frame) {
                Some(record) => {
                    moves.push(Move { pack: name, record: record.clone(), keep: self.marks.get(need.frame).needed() });
                    of_move.push(at);
                }
                None => failed.push((at, "its pack does not hold it as the index says".into())),
            }
        }
        let outcomes = mover.take(&moves)?;
        for ((at, moved), outcome) in of_move.into_iter().zip(&moves).zip(outcomes) {
            self.progress.bytes(moved.record.stored_len.into());
            match outcome {
                Ok(()) => {
                    self.report.frames_moved += 1;
                    let lost = Ordinals::present_in(&moved.record).count() > moved.keep.count_in(&Ordinals::present_in(&moved.record));
                    self.report.frames_thinned += u64::from(lost);
                }
                Err(error) => failed.push((at, error.to_string())),
            }
        }
        Ok(failed)
    }
}
