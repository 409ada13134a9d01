//! The index from the packs: segments for packs that none lists, in place of segments that are damaged, missing or wrong.
//!
//! A pack's own footer has the last word on what it holds. Packs that are gone or whose footers cannot be read stay as they are
//! listed: those are for the repair of packs.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use rayon::prelude::*;

use super::patient::read_whole;
use super::{Mode, SetAside, Verdict, judge, set_aside, tell};
use crate::backend::{Area, Place};
use crate::error::Result;
use crate::format::envelope::Kind;
use crate::format::record::Record;
use crate::format::segment::{PackRecord, Segment};
use crate::id::ObjectName;
use crate::limits::*;
use crate::ops::check::Finding;
use crate::ops::go_on;
use crate::progress::{Progress, Stage};
use crate::repo::Repository;

/// What a repair of the index did, or would do.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct IndexReport {
    /// Segments looked at.
    pub segments: u64,
    /// Packs that no sound segment listed and one does now.
    pub packs_listed: Vec<ObjectName>,
    /// Segments that said otherwise than their packs' footers.
    pub segments_corrected: u64,
    pub segments_written: u64,
    pub set_aside: Vec<SetAside>,
    /// Packs in no segment whose footers cannot be read.
    pub unreadable: Vec<Finding>,
    /// Objects of a newer version, left as they are.
    pub unsupported: Vec<Finding>,
}

/// Makes the index say again what the packs hold.
pub fn repair_index(repository: &Repository, mode: Mode, progress: &dyn Progress) -> Result<IndexReport> {
    progress.stage(Stage::CheckingStructure, None, None);
    let mut run = Run { repository, mode, progress, packs: BTreeMap::new(), report: IndexReport::default(), damaged: Vec::new() };
    run.packs = repository.locator()?.list(Area::Packs)?.into_iter().collect();
    let listed = run.segments()?;
    run.list_the_others(&listed)?;
    for (place, problem) in std::mem::take(&mut run.damaged) {
        run.report.set_aside.push(set_aside(repository, &place, problem, mode)?);
    }
    run.records()?;
    Ok(run.report)
}

/// A repair under way.
struct Run<'a> {
    repository: &'a Repository,
    mode: Mode,
    progress: &'a dyn Progress,
    packs: BTreeMap<ObjectName, u64>,
    report: IndexReport,
    /// To be set aside once all their packs are listed elsewhere.
    damaged: Vec<(Place, String)>,
}

impl Run<'_> {
    /// Looks at every segment, and returns the packs in the store that sound ones list.
    fn segments(&mut self) -> Result<HashSet<ObjectName>> {
        let locator = self.repository.locator()?;
        let mut listings: Vec<(ObjectName, Vec<ObjectName>)> = Vec::new();
        let mut replaced: BTreeSet<ObjectName> = BTreeSet::new();
        let names: Vec<ObjectName> = locator.list(Area::Segments)?.into_iter().map(|(name, _)| name).collect();
        self.report.segments = names.len() as u64;
        for name in names {
            go_on(self.progress)?;
            let place = Place::segment(name);
            match judge(self.repository, &place, || locator.segment(name))? {
                Verdict::Sound(segment) => {
                    replaced.extend(&segment.replaces);
                    let segment = self.correct(name, segment)?;
                    listings.push((name, segment.packs.iter().map(|pack| pack.name).collect()));
                }
                Verdict::Gone => {}
                Verdict::Damaged(why) => {
                    tell(self.progress, &place, &why);
                    self.damaged.push((place, why));
                }
                Verdict::Newer(problem) => self.newer(&place, problem),
            }
        }
        // One that another repeats, left by a run that was cut short. What it says more than the others is of packs that are gone.
        let (repeated, live): (Vec<_>, Vec<_>) = listings.into_iter().partition(|(name, _)| replaced.contains(name));
        let listed: HashSet<ObjectName> = live.into_iter().flat_map(|(_, packs)| packs).collect();
        let mut all = listed.clone();
        for (name, packs) in repeated {
            match packs.iter().all(|pack| listed.contains(pack) || !self.packs.contains_key(pack)) {
                true => self.damaged.push((Place::segment(name), "another index segment replaces it".into())),
                false => all.extend(packs),
            }
        }
        Ok(all)
    }

    /// Compares a segment with the footers of its packs; where they disagree, another takes its place that says what they say.
    fn correct(&mut self, name: ObjectName, segment: Segment) -> Result<Segment> {
        let locator = self.repository.locator()?;
        let packs = &self.packs;
        let truth = |pack: &PackRecord| {
            let size = *packs.get(&pack.name)?;
            let (header, contents) = locator.read_footer(pack.name, size).ok()?;
            let truth = PackRecord { name: pack.name, kind: header.kind, size, frames: contents.to_records() };
            (truth != *pack).then_some(truth)
        };
        let corrections: Vec<Option<PackRecord>> = segment.packs.par_iter().map(truth).collect();
        if corrections.iter().all(Option::is_none) {
            return Ok(segment);
        }
        let corrected = corrections.into_iter().zip(segment.packs).map(|(truth, pack)| truth.unwrap_or(pack)).collect();
        self.report.segments_corrected += 1;
        let why = "it says otherwise than the footers of its packs";
        tell(self.progress, Place::segment(name), why);
        self.damaged.push((Place::segment(name), why.into()));
        let corrected = Segment { replaces: vec![name], packs: corrected };
        self.save(corrected.packs.clone(), corrected.replaces.clone())?;
        Ok(corrected)
    }

    fn save(&mut self, packs: Vec<PackRecord>, replaces: Vec<ObjectName>) -> Result<()> {
        if self.mode == Mode::Act && !(packs.is_empty() && replaces.is_empty()) {
            self.report.segments_written += self.repository.save_segments(packs, replaces)?.len() as u64;
            self.repository.locator()?.distrust_index();
        }
        Ok(())
    }

    /// Lists the packs that no sound segment lists. Condemned ones are about to be deleted and stay unlisted.
    fn list_the_others(&mut self, listed: &HashSet<ObjectName>) -> Result<()> {
        let condemned = self.repository.condemned_packs()?;
        let locator = self.repository.locator()?;
        let unlisted = |(name, _): &(&ObjectName, &u64)| !listed.contains(*name) && !condemned.contains(*name);
        let unlisted: Vec<(ObjectName, u64)> = self.packs.iter().filter(unlisted).map(|(name, size)| (*name, *size)).collect();
        if self.mode == Mode::Act && !unlisted.is_empty() {
            // Backups rely on what is listed, and whoever put these packs may have died before they were durable.
            self.repository.backend().settle(Area::Packs)?;
        }
        let mut batch: Vec<PackRecord> = Vec::new();
        let mut chunks = 0;
        for (name, size) in unlisted {
            go_on(self.progress)?;
            let place = Place::pack(name);
            match judge(self.repository, &place, || locator.read_footer(name, size))? {
                Verdict::Sound((header, contents)) => {
                    self.report.packs_listed.push(name);
                    let pack = PackRecord { name, kind: header.kind, size, frames: contents.to_records() };
                    chunks += pack.frames.iter().map(|frame| frame.table.len()).sum::<usize>();
                    batch.push(pack);
                }
                Verdict::Gone => {}
                Verdict::Damaged(why) => {
                    tell(self.progress, &place, &why);
                    self.report.unreadable.push(Finding::of_pack(name, why));
                }
                // Perhaps only damage that looks like a newer version.
                Verdict::Newer(problem) => match read_whole(self.repository, name)? {
                    Verdict::Sound(_) => self.newer(&place, problem),
                    _ => self.report.unreadable.push(Finding::of_pack(name, problem)),
                },
            }
            if chunks >= CHECKPOINT_CHUNKS {
                self.save(std::mem::take(&mut batch), Vec::new())?;
                chunks = 0;
            }
        }
        self.save(batch, Vec::new())
    }

    /// Damaged records, which would stop every collection.
    fn records(&mut self) -> Result<()> {
        for listed in self.repository.backend().list(Area::Records)? {
            let place = Place { area: Area::Records, name: listed.name };
            let read = || {
                let body = self.repository.read_object(Kind::Record, &place, RECORD_BYTES_MAX)?;
                Record::decode(&body).map_err(|error| error.of(&place))
            };
            match judge(self.repository, &place, read)? {
                Verdict::Sound(_) | Verdict::Gone => {}
                Verdict::Damaged(why) => {
                    tell(self.progress, &place, &why);
                    self.report.set_aside.push(set_aside(self.repository, &place, why, self.mode)?);
                }
                Verdict::Newer(problem) => self.newer(&place, problem),
            }
        }
        Ok(())
    }

    fn newer(&mut self, place: &Place, problem: String) {
        tell(self.progress, place, format!("It is left as it is, because it needs a newer snap: {problem}"));
        self.report.unsupported.push(Finding::left_alone(place, problem));
    }
}
