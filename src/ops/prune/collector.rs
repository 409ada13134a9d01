//! A collection under way: what it knows, looking again, condemning, and deleting.
//!
//! The argument, which FORMAT.md (21) has in full: packs are deleted only after a final record names them. Whoever publishes one, or
//! finds one that another left, then looks again at records, snapshots and packs, and gives every frame that is still needed another
//! place before a pack goes. A final record is never taken back, so it does not matter who deletes, how often, or how late.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::facts::{Facts, State};
use super::plan::Condemned;
use super::{PruneOptions, PruneReport};
use crate::backend::{Area, Place};
use crate::error::{Error, Result, StorageErrorKind};
use crate::format::record::{self, Record};
use crate::id::{ObjectName, SnapshotId};
use crate::limits::*;
use crate::ops::go_on;
use crate::progress::{Problem, Progress, Stage};
use crate::repo::records::{Records, Rigour, publish, remove, reread};
use crate::repo::{Marks, Ordinals, Repository, is_not_found};

pub struct Collector<'a> {
    pub repository: &'a Repository,
    pub options: PruneOptions,
    pub progress: &'a dyn Progress,
    pub records: Records,
    pub marks: Marks,
    pub facts: Facts,
    /// Snapshots that are marked.
    snapshots: HashSet<SnapshotId>,
    /// Frames that were read well in this run: pack and frame.
    pub verified: HashSet<(u32, u32)>,
    /// Packs that were announced and will be condemned no more. Never one that is doomed.
    pub leaving: BTreeSet<u32>,
    /// Packs that were announced and stay so, because somebody is still writing their like.
    pub busy: HashSet<u32>,
    pub report: PruneReport,
}

impl<'a> Collector<'a> {
    /// Reads everything that decides. Whatever cannot be read, or is not known, is an error.
    pub fn survey(repository: &'a Repository, options: PruneOptions, progress: &'a dyn Progress) -> Result<Self> {
        progress.stage(Stage::Planning, None, None);
        let mut collector = Self {
            repository,
            options,
            progress,
            records: Records::read(repository, Rigour::Strict)?,
            marks: Marks::default(),
            facts: Facts::default(),
            snapshots: HashSet::new(),
            verified: HashSet::new(),
            leaving: BTreeSet::new(),
            busy: HashSet::new(),
            report: PruneReport::default(),
        };
        // Listed before the snapshots are: what comes later may be a backup's that has none yet.
        let settled = repository.locator()?.list(Area::Packs)?.into_iter().map(|(name, _)| name).collect();
        collector.see_snapshots()?;
        collector.refresh()?;
        collector.facts.settle(&settled);
        collector.report.snapshots = collector.snapshots.len() as u64;
        for (name, why) in &collector.facts.unreadable {
            progress.problem(&Problem::new(format!("pack {name}"), format!("It is in no index segment and is left alone: {why}")));
        }
        Ok(collector)
    }

    /// Marks what the snapshots need that are not marked yet. A snapshot that was there at the end of the last collection, or earlier in
    /// this one, and is not now must have been forgotten: a listing that leaves it out says nothing of what is needed.
    fn see_snapshots(&mut self) -> Result<()> {
        let listed = self.mark_snapshots()?;
        if self.missing_snapshot(&listed).is_some() {
            // It may have been forgotten since records were read.
            self.records = Records::read(self.repository, Rigour::Strict)?;
        }
        match self.missing_snapshot(&listed) {
            Some(id) if !self.options.missing_snapshots_ok => Err(Error::damaged(
                format!("snapshot {id}"),
                "it was there before, is gone, and was not forgotten; nothing more is deleted. Bring it back from a copy of the \
                 repository, or say --allow-missing-snapshots if it was removed on purpose",
            )),
            _ => Ok(()),
        }
    }

    fn missing_snapshot(&self, listed: &BTreeSet<SnapshotId>) -> Option<SnapshotId> {
        let last = self.records.epochs.iter().max_by_key(|(_, epoch)| epoch.epoch).map(|(_, epoch)| &epoch.snapshots);
        let mut known = last.into_iter().flatten().chain(&self.snapshots);
        known.find(|id| !listed.contains(*id) && !self.records.forgotten.contains(*id)).copied()
    }

    /// Marks what the snapshots need that are not marked yet, and returns those that are listed. One that goes away meanwhile may have got
    /// another name: then they are listed again.
    fn mark_snapshots(&mut self) -> Result<BTreeSet<SnapshotId>> {
        let mut listed = BTreeSet::new();
        let mut vanished = true;
        while std::mem::take(&mut vanished) {
            listed = self.repository.locator()?.list(Area::Snapshots)?.into_iter().map(|(id, _)| id).collect();
            // Else a power cut could bring back one that was removed, when what it needs is gone.
            self.repository.backend().settle(Area::Snapshots)?;
            for &id in &listed {
                if self.snapshots.contains(&id) {
                    continue;
                }
                go_on(self.progress)?;
                match self.repository.snapshot(id) {
                    Err(error) if is_not_found(&error) => vanished = true,
                    Err(error) => return Err(error),
                    Ok(stored) => {
                        let progress = self.progress;
                        match self.marks.add_snapshot(self.repository, &stored.snapshot, &|| go_on(progress)) {
                            // It was forgotten or withdrawn meanwhile, and another collector was faster than we.
                            Err(error) if error.is_damage() && self.is_gone(id) => vanished = true,
                            result => {
                                result?;
                                self.snapshots.insert(id);
                            }
                        }
                    }
                }
            }
        }
        Ok(listed)
    }

    fn is_gone(&self, snapshot: SnapshotId) -> bool {
        self.repository.backend().forget_cached(&Place::snapshot(snapshot));
        self.repository.snapshot(snapshot).is_err_and(|error| is_not_found(&error))
    }

    pub fn refresh(&mut self) -> Result<()> {
        let progress = self.progress;
        self.facts.refresh(self.repository, &mut self.marks, &|| go_on(progress))
    }

    /// Reads records, snapshots and packs again.
    fn look(&mut self) -> Result<()> {
        self.records = Records::read(self.repository, Rigour::Strict)?;
        self.see_snapshots()?;
        self.refresh()
    }

    /// Which of the packs that are there are condemned.
    pub fn condemned(&self) -> Condemned {
        let numbers = |is_final: bool| {
            let records = self.records.condemned.iter().filter(move |(_, record)| record.is_final == is_final);
            records.flat_map(|(_, record)| &record.packs).filter_map(|name| self.facts.number(name))
        };
        Condemned { doomed: numbers(true).collect(), announced: numbers(false).collect() }
    }

    /// The announced records whose grace is over. Their time only says how long the others had: nothing is safe because of it.
    pub fn due(&self) -> Vec<(ObjectName, record::Condemned)> {
        let now = self.repository.world().now();
        // A time far ahead is a clock that was wrong, and must not make us wait for it.
        let is_due = |record: &record::Condemned| now.duration_since(record.time).unsigned_abs() >= self.options.grace;
        self.records.condemned.iter().filter(|(_, record)| !record.is_final && is_due(record)).cloned().collect()
    }

    /// Sorts the packs whose grace is over and returns those to be doomed. Those of which most has come to be needed are noted as
    /// leaving, and those whose like somebody is still writing as busy.
    pub fn sort_due(&mut self, due: &[(ObjectName, record::Condemned)]) -> Result<Vec<u32>> {
        let mut packs: HashSet<u32> = due.iter().flat_map(|(_, record)| &record.packs).filter_map(|name| self.facts.number(name)).collect();
        packs.retain(|&pack| self.facts.pack(pack).state != State::Gone);
        let condemned = self.condemned();
        packs.retain(|pack| !condemned.doomed.contains(pack));
        let barred = Condemned { announced: condemned.announced.union(&packs).copied().collect(), ..condemned };
        let unmet: HashSet<u32> =
            self.needs(&packs, &barred).into_iter().filter(|need| need.survivors.is_empty()).map(|need| need.frame).collect();
        let stored = |pack: u32, wanted: &dyn Fn(u32) -> bool| -> u64 {
            self.facts.copies_of(pack).iter().filter(|copy| wanted(copy.frame)).map(|copy| u64::from(copy.stored_len)).sum()
        };
        let mostly_needed = |pack: u32| 2 * stored(pack, &|frame| unmet.contains(&frame)) > stored(pack, &|_| true);
        let leaving: BTreeSet<u32> =
            packs.iter().copied().filter(|&pack| mostly_needed(pack) && !self.is_orphaned(pack, &barred)).collect();
        packs.retain(|pack| !leaving.contains(pack));
        self.leaving = leaving;
        self.busy = if self.options.exclusive { HashSet::new() } else { self.still_written(&packs, due)? };
        let mut ripe: Vec<u32> = packs.difference(&self.busy).copied().collect();
        ripe.sort_unstable();
        Ok(ripe)
    }

    /// The busy packs that are there.
    pub fn busy(&self) -> Vec<u32> {
        let mut busy: Vec<u32> = self.busy.iter().copied().filter(|&pack| self.facts.pack(pack).state != State::Gone).collect();
        busy.sort_unstable();
        busy
    }

    /// Whether a pack has a delta whose base is nowhere but in doomed packs: nobody may come to rely on it.
    fn is_orphaned(&self, pack: u32, condemned: &Condemned) -> bool {
        let mut wanted: HashMap<u32, Ordinals> = HashMap::new();
        for (frame, chunks) in self.facts.copies_of(pack).iter().filter_map(|copy| copy.base.as_ref()).flatten() {
            wanted.entry(*frame).or_default().join(chunks);
        }
        let remains = |pack: &u32| !condemned.doomed.contains(pack) && self.facts.pack(*pack).state == State::Sound;
        for (pack, _) in self.facts.there().filter(|(pack, _)| remains(pack)) {
            for copy in self.facts.copies_of(pack).iter().filter(|copy| !copy.is_delta()) {
                if wanted.get(&copy.frame).is_some_and(|chunks| copy.has(chunks) == chunks.count()) {
                    wanted.remove(&copy.frame);
                }
            }
        }
        !wanted.is_empty()
    }

    /// Packs that were leaving, but whose deltas have lost their base to somebody else's collection meanwhile.
    pub fn orphans(&mut self) -> Result<Vec<u32>> {
        if self.leaving.is_empty() {
            return Ok(Vec::new());
        }
        self.look()?;
        let condemned = self.condemned();
        Ok(self.leaving.iter().copied().filter(|&pack| self.is_orphaned(pack, &condemned)).collect())
    }

    /// Packs whose writer has stored more, which nothing needs yet either, since they were condemned: a long backup is under way. All
    /// that a process writes has one salt for each kind of pack.
    fn still_written(&self, ripe: &HashSet<u32>, due: &[(ObjectName, record::Condemned)]) -> Result<HashSet<u32>> {
        let known: HashSet<ObjectName> = due.iter().flat_map(|(_, record)| &record.segments).copied().collect();
        let old: HashSet<u32> =
            self.facts.segments.iter().filter(|(name, _)| known.contains(name)).flat_map(|(_, facts)| &facts.packs).copied().collect();
        let condemned = self.condemned();
        let is_needed = |pack: u32| self.facts.copies_of(pack).iter().any(|copy| self.marks.get(copy.frame).is_needed());
        let is_news = |pack: u32| !old.contains(&pack) && !condemned.has(pack) && !is_needed(pack);
        let mut salts = HashSet::new();
        for (pack, _) in self.facts.there().filter(|(pack, _)| is_news(*pack)) {
            salts.extend(self.salt(pack)?);
        }
        let mut busy = HashSet::new();
        let ripe: BTreeSet<u32> = ripe.iter().copied().collect();
        for pack in ripe.into_iter().filter(|_| !salts.is_empty()) {
            if self.salt(pack)?.is_some_and(|salt| salts.contains(&salt)) {
                busy.insert(pack);
            }
        }
        Ok(busy)
    }

    fn salt(&self, pack: u32) -> Result<Option<[u8; 32]>> {
        let pack = self.facts.pack(pack);
        match self.repository.locator()?.pack_header(pack.name) {
            Ok(header) => Ok(Some(header.salt)),
            // It cannot be told: then it does not count.
            Err(error) if error.is_damage() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Dooms packs, looks again, and deletes all that are doomed and not needed any more; what is, is moved first. Called without packs it
    /// goes on with those that earlier runs left.
    pub fn collect(&mut self, packs: &[u32]) -> Result<()> {
        let condemned = self.condemned();
        let mut rest: Vec<u32> = packs.iter().filter(|pack| !condemned.doomed.contains(pack)).copied().collect();
        loop {
            let (doomed, unwritten) = self.doom(&rest)?;
            rest.drain(..doomed);
            self.collect_doomed(&unwritten)?;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    fn collect_doomed(&mut self, unwritten: &[u32]) -> Result<()> {
        self.look()?;
        let mut barred = self.condemned();
        barred.doomed.extend(unwritten);
        // Another collector may have doomed what this one would let stay: then it is no place to survive in.
        self.leaving.retain(|pack| !barred.doomed.contains(pack));
        self.busy.retain(|pack| !barred.doomed.contains(pack));
        let doomed: HashSet<u32> = barred.doomed.iter().filter(|&&pack| self.facts.pack(pack).state != State::Gone).copied().collect();
        if doomed.is_empty() {
            return Ok(());
        }
        self.protect(&doomed, &barred);
        // What needs no room goes first.
        let unmet = self.verify(self.needs(&doomed, &barred))?;
        let busy: HashSet<u32> = unmet.iter().flat_map(|need| &need.holders).copied().collect();
        self.delete(doomed.difference(&busy).copied().collect(), unwritten)?;
        if !unmet.is_empty() {
            let kept = self.move_out(unmet, &busy)?;
            self.delete(busy.difference(&kept).copied().collect(), unwritten)?;
        }
        Ok(())
    }

    /// Publishes final records: for how many packs, in the order they are given. Where there is no room for the names of all, as many as
    /// fit. Where there is none at all, and nobody else is writing, it does without; then the packs are returned too.
    fn doom(&mut self, packs: &[u32]) -> Result<(usize, Vec<u32>)> {
        let mut count = packs.len();
        loop {
            match self.condemn(&packs[..count], true) {
                Err(Error::Storage(error)) if error.kind == StorageErrorKind::Full && count > 1 => count /= 2,
                Err(Error::Storage(error)) if error.kind == StorageErrorKind::Full && self.options.exclusive => {
                    return Ok((packs.len(), packs.to_vec()));
                }
                other => return other.map(|()| (count, Vec::new())),
            }
        }
    }

    /// Publishes condemned records and reads them back.
    pub fn condemn(&mut self, packs: &[u32], is_final: bool) -> Result<()> {
        let mut segments: Vec<ObjectName> = if is_final { Vec::new() } else { self.facts.segments.keys().copied().collect() };
        segments.sort_unstable();
        for part in packs.chunks(CONDEMNED_PACKS_MAX) {
            let record = record::Condemned {
                time: self.repository.world().now(),
                host: self.options.host.clone(),
                epoch: self.records.last_epoch() + 1,
                packs: part.iter().map(|&pack| self.facts.pack(pack).name).collect(),
                is_final,
                segments: segments.clone(),
            };
            match publish(self.repository, &Record::Condemned(record.clone())) {
                Ok(name) => self.records.condemned.push((name, record)),
                // Another collector was done with it before we had looked at it again.
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(named_full(error, "the list of packs to be deleted")),
            }
        }
        Ok(())
    }

    /// Deletes packs, after their final records were read once more: what writers cannot read they do not heed. `unwritten` packs have
    /// none.
    fn delete(&mut self, packs: HashSet<u32>, unwritten: &[u32]) -> Result<()> {
        let mut sure: HashSet<u32> = unwritten.iter().copied().collect();
        for (name, record) in self.records.condemned.iter().filter(|(_, record)| record.is_final) {
            let named: Vec<u32> =
                record.packs.iter().filter_map(|name| self.facts.number(name)).filter(|pack| packs.contains(pack)).collect();
            if named.is_empty() {
                continue;
            }
            match reread(self.repository, *name) {
                Ok(_) => sure.extend(named),
                // Another collector has ended it: then all its packs are gone.
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let mut packs: Vec<u32> = packs.into_iter().filter(|pack| sure.contains(pack)).collect();
        packs.sort_unstable();
        let bytes = packs.iter().map(|&pack| self.facts.pack(pack).size).sum();
        self.progress.stage(Stage::Deleting, Some(bytes), Some(packs.len() as u64));
        for pack in packs {
            go_on(self.progress)?;
            let (name, size) = (self.facts.pack(pack).name, self.facts.pack(pack).size);
            match self.repository.backend().delete(&Place::pack(name)) {
                // Another collector was faster.
                Err(error) if error.kind == StorageErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
                Ok(()) => {
                    self.report.packs_deleted += 1;
                    self.report.bytes_deleted += size;
                }
            }
            self.facts.packs[pack as usize].state = State::Gone;
            self.progress.bytes(size);
            self.progress.files(1);
        }
        Ok(())
    }

    /// Removes announced records that are done with.
    pub fn withdraw(&mut self, records: &[(ObjectName, record::Condemned)]) -> Result<()> {
        for (name, _) in records {
            remove(self.repository, *name)?;
            self.records.condemned.retain(|(known, _)| known != name);
        }
        Ok(())
    }

    /// The final records of which no pack is in the store.
    pub fn finished(&self) -> Vec<ObjectName> {
        let is_there = |name: &ObjectName| self.facts.number(name).is_some_and(|pack| self.facts.pack(pack).state != State::Gone);
        let finals = self.records.condemned.iter().filter(|(_, record)| record.is_final);
        finals.filter(|(_, record)| !record.packs.iter().any(is_there)).map(|(name, _)| *name).collect()
    }

    /// Ends the collection: an epoch record, and the removal of final records whose packs were gone when this run began. Others stay
    /// until the next run, for whoever is just looking for one of their packs.
    pub fn conclude(&mut self, finished: &[ObjectName]) -> Result<()> {
        let present: HashSet<SnapshotId> = self.repository.locator()?.list(Area::Snapshots)?.into_iter().map(|(name, _)| name).collect();
        // One that goes unseen is missed by the next collection.
        let is_known =
            |id: &&SnapshotId| present.contains(*id) || !self.options.missing_snapshots_ok && !self.records.forgotten.contains(*id);
        let mut snapshots: Vec<SnapshotId> = self.snapshots.iter().filter(is_known).copied().collect();
        snapshots.sort_unstable();
        let spoken_of: HashSet<u32> = self.facts.segments.values().flat_map(|segment| &segment.packs).copied().collect();
        let lingers = |name: &ObjectName| self.facts.number(name).is_some_and(|pack| spoken_of.contains(&pack));
        let ended = |(name, record): &&(ObjectName, record::Condemned)| finished.contains(name) && !record.packs.iter().any(lingers);
        let ended: Vec<ObjectName> = self.records.condemned.iter().filter(ended).map(|(name, _)| *name).collect();
        let newest = self.records.epochs.iter().map(|(_, epoch)| epoch).max_by_key(|epoch| epoch.epoch);
        let last = self.records.last_epoch();
        // No final record goes without a higher number: who looks for either notices that packs were deleted.
        if !ended.is_empty() || newest.is_none_or(|newest| newest.epoch < last || newest.snapshots != snapshots) {
            let number = last.max(newest.map_or(0, |newest| newest.epoch) + 1);
            let time = self.repository.world().now();
            let epoch = record::Epoch { time, host: self.options.host.clone(), epoch: number, snapshots };
            match publish(self.repository, &Record::Epoch(epoch)) {
                // Another collector ended meanwhile, and has put a record of its own in its place.
                Err(error) if is_not_found(&error) => {}
                other => drop(other?),
            }
            for (name, _) in &self.records.epochs {
                remove(self.repository, *name)?;
            }
        }
        for name in ended {
            remove(self.repository, name)?;
        }
        Ok(())
    }
}

/// A full store's error, with what there was no room for.
fn named_full(error: Error, what: &str) -> Error {
    match error {
        Error::Storage(mut error) if error.kind == StorageErrorKind::Full => {
            error.object = what.into();
            Error::Storage(error)
        }
        other => other,
    }
}
