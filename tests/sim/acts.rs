//! What a host does in one step, and what the observer learns of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use snap_backup::backend::{Area, Place};
use snap_backup::error::Result;
use snap_backup::id::SnapshotId;
use snap_backup::ops::backup::BackupOptions;
use snap_backup::ops::copy::{CopyOptions, copy};
use snap_backup::ops::forget::{self, Choice, ForgetOptions};
use snap_backup::ops::prune::{MaxUnused, PruneOptions, prune};
use snap_backup::ops::repair::{Mode, PacksOptions, SnapshotsOptions, repair_index, repair_packs, repair_snapshots};
use snap_backup::ops::tag::{TagChange, tag};
use snap_backup::progress::Silent;
use snap_backup::repo::{Repository, SnapshotFilter, Stored};
use snap_backup::retention::{Age, Count, GroupBy, Period, Policy, Rule};

use crate::history::{Act, HOUR, History, Known, State, edit};
use crate::support::*;

/// How long packs stay condemned.
const GRACE: Duration = Duration::from_secs(20 * 3600);

impl History {
    pub fn perform(&self, act: Act, host: usize, repository: &Repository) -> Result<()> {
        let name = format!("host{host}");
        match act {
            Act::BackUp => self.back_up(host, &name, repository),
            Act::Forget | Act::ForgetAll => {
                let ids: BTreeSet<SnapshotId> = match act {
                    Act::Forget => (0..1 + self.draw(3)).filter_map(|_| self.pick()).collect(),
                    _ => {
                        let some = self.draw(2);
                        let all: Vec<SnapshotId> = self.state().truth.keys().copied().collect();
                        all.into_iter().filter(|_| some == 0 || self.draw(2) == 0).collect()
                    }
                };
                if ids.is_empty() {
                    return Ok(());
                }
                let selectors = ids.iter().map(|id| id.hex()).collect();
                self.forget(Choice::Named { selectors, allow_last: true }, SnapshotFilter::default(), &name, repository)
            }
            Act::ForgetByRules => {
                let rules = [(Period::Day, 5), (Period::Week, 3), (Period::Month, 3)];
                let rules = rules.map(|(period, count)| Rule::Count(period, Count::Number(count)));
                let choice = Choice::Policy { policy: Policy::new(rules, Age::default()), group_by: GroupBy::default() };
                self.forget(choice, SnapshotFilter::default(), &name, repository)
            }
            Act::Tag => match self.pick() {
                Some(id) => self.tag(id, &name, repository),
                None => Ok(()),
            },
            Act::Prune | Act::PruneAtOnce | Act::PruneAlone => {
                let exclusive = act == Act::PruneAlone;
                let max_unused = if self.draw(2) == 0 { MaxUnused::Bytes(0) } else { MaxUnused::Percent(5.0) };
                let grace = if act != Act::Prune || self.draw(3) == 0 { Duration::ZERO } else { GRACE };
                prune(repository, &PruneOptions { max_unused, grace, exclusive, ..PruneOptions::new(name) }, &Silent).map(drop)
            }
            Act::RepairIndex => repair_index(repository, Mode::Act, &Silent).map(drop),
            Act::RepairPacks => repair_packs(repository, &PacksOptions { read_data: true, ..PacksOptions::default() }, &Silent).map(drop),
            Act::RepairSnapshots => {
                let options = SnapshotsOptions { host: name, ..SnapshotsOptions::default() };
                let report = repair_snapshots(repository, &options, &Silent)?;
                let mut state = self.state();
                for cut in report.cut {
                    let known = state.truth.remove(&cut.original);
                    assert!(known.is_none_or(|known| known.hurt), "a sound snapshot was cut: {:?}", cut.lost);
                    state.forgotten.insert(cut.original);
                }
                Ok(())
            }
            Act::Copy => self.copy(repository),
            Act::Read => {
                let Some(id) = self.pick() else { return Ok(()) };
                let Some(known) = self.state().truth.get(&id).cloned() else { return Ok(()) };
                let bytes = read(repository, &id.hex())?;
                assert!(bytes == *known.bytes, "{id} came back wrong");
                Ok(())
            }
            Act::Rot => {
                self.rot();
                Ok(())
            }
            Act::PowerCut => {
                self.cut_power();
                Ok(())
            }
            Act::Wait => {
                self.wait(30 * HOUR);
                Ok(())
            }
        }
    }

    fn pick(&self) -> Option<SnapshotId> {
        let mut state = self.state();
        let count = state.truth.len() as u64;
        let at = state.random.below(count) as usize;
        state.truth.keys().nth(at).copied()
    }

    fn back_up(&self, host: usize, name: &str, repository: &Repository) -> Result<()> {
        let (bytes, stream) = {
            let mut state = self.state();
            let State { random, streams, .. } = &mut *state;
            // With a stream for each, everybody has one that only he changes.
            let at = if streams.len() == self.hosts.len() { host } else { random.below(streams.len() as u64) as usize };
            edit(&mut streams[at], random);
            (streams[at].clone(), format!("stream{at}"))
        };
        let options = BackupOptions { threads: 1, slab_bytes: 16 << 10, name: Some(stream), ..BackupOptions::new(name) };
        let report = save(repository, &bytes, &options)?;
        let id = report.snapshot.expect("it is no dry run");
        // A backup relies on old chunks without reading them: if these have rotted unnoticed, a check finds that, and no backup.
        let has_rotted = self.state().rot;
        let hurt = has_rotted && !is_whole(&self.stranger(), id, &bytes);
        let mut state = self.state();
        // Others see it before we do, and may have forgotten it already.
        if !state.forgotten.contains(&id) {
            state.truth.insert(id, Known { bytes: Arc::new(bytes), hurt });
            state.fresh.push(id);
        }
        Ok(())
    }

    fn forget(&self, choice: Choice, filter: SnapshotFilter, host: &str, repository: &Repository) -> Result<()> {
        let options = ForgetOptions { choice, filter, zone: jiff::tz::TimeZone::UTC };
        let plan = forget::plan(repository, &options, &Silent)?;
        {
            let mut state = self.state();
            for stored in plan.removed() {
                state.forgotten.insert(stored.id);
                state.truth.remove(&stored.id);
            }
        }
        forget::execute(repository, &plan, host, &Silent)
    }

    /// Afterwards there is the old one or the new one, and both at times.
    fn tag(&self, id: SnapshotId, host: &str, repository: &Repository) -> Result<()> {
        let chosen = repository.snapshot(id)?;
        let first = chosen.snapshot.original.unwrap_or(id);
        let Some(known) = self.state().truth.remove(&id) else { return Ok(()) };
        let tags = vec![format!("t{}", self.draw(100))];
        let outcome = tag(repository, vec![chosen], &TagChange::Set(tags), host, &Silent);
        let (there, _) = self.stranger().snapshots().unwrap();
        let mut state = self.state();
        if state.forgotten.contains(&id) {
            return outcome.map(drop);
        }
        // Whose tags were changed twice names the first.
        let forgotten = &state.forgotten;
        let is_loose = |id: &SnapshotId| state.loose.iter().any(|loose| *loose.place() == Place::snapshot(*id));
        let is_heir = |stored: &&Stored| {
            let is_its = stored.id == id || stored.snapshot.original == Some(first);
            // What a power cut may take yet was not promised to anybody.
            is_its && !forgotten.contains(&stored.id) && !is_loose(&stored.id)
        };
        let heirs: Vec<SnapshotId> = there.iter().filter(is_heir).map(|stored| stored.id).collect();
        assert!(!heirs.is_empty() || state.rot, "neither {id} nor what took its place is there");
        for heir in heirs {
            // What a crash left of both is one too many, and not one too few.
            state.truth.entry(heir).or_insert(known.clone());
            state.fresh.push(heir);
        }
        outcome.map(drop)
    }

    fn copy(&self, from: &Repository) -> Result<()> {
        let to = Repository::open(Arc::new(self.second.clone()), opening(self.world(0), None))?;
        let options = CopyOptions { threads: 1, slab_bytes: 16 << 10, ..CopyOptions::default() };
        copy(from, &to, &options, &Silent, &mut |_, _| Ok(()))?;
        let (copies, _) = to.snapshots()?;
        let truth = self.state().truth.clone();
        for copied in copies.iter().filter(|_| self.draw(4) == 0) {
            let Some(known) = copied.snapshot.original.and_then(|original| truth.get(&original)) else { continue };
            assert!(read(&to, &copied.id.hex())? == *known.bytes, "the copy {} is wrong", copied.id);
        }
        Ok(())
    }

    /// Bytes in the store are no longer what they were; what that hurts is found out at once.
    fn rot(&self) {
        if !self.state().rot {
            return;
        }
        let places: Vec<Place> =
            self.store.places().into_iter().filter(|place| matches!(place.area, Area::Packs | Area::Segments)).collect();
        if places.is_empty() {
            return;
        }
        let place = &places[self.draw(places.len() as u64) as usize];
        let bit = self.draw(1 << 30);
        match self.draw(3) {
            0 => drop(self.store.remove(place)),
            1 => self.store.edit(place, |bytes| bytes.truncate(bit as usize % bytes.len().max(1))),
            _ => self.store.edit(place, |bytes| {
                // Of what was cut off before its first byte nothing is left to change.
                let at = bit as usize % bytes.len().max(1);
                bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << (bit % 8));
            }),
        }
        self.log(format!("rotten: {place}"));
        let truth = self.state().truth.clone();
        let stranger = self.stranger();
        for (id, known) in truth {
            let is_whole = is_whole(&stranger, id, &known.bytes);
            if let Some(known) = self.state().truth.get_mut(&id) {
                known.hurt |= !is_whole;
            }
        }
    }
}

/// Whether a snapshot comes back from what it refers to. What has to be put together from other frames may lie where nobody needs it, and
/// is gone when that is collected.
fn is_whole(repository: &Repository, id: SnapshotId, bytes: &[u8]) -> bool {
    let reader = repository.reader().unwrap();
    reader.start_over();
    match read(repository, &id.hex()) {
        Ok(found) => {
            assert!(found == bytes, "{id} came back wrong");
            reader.salvaged().is_empty()
        }
        Err(_) => false,
    }
}
