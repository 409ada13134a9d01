//! Packs: what can be read in damaged ones goes into new packs, what cannot is put together from wherever its chunks are.
//!
//! Order: new packs, a segment for them, a record that condemns the damaged packs, segments without them; all durable and read back;
//! then the damaged packs and the segments that list them are set aside, and the record goes. Of a frame that is lost its table
//! stays, in a copy without chunks: so it is known what is lost, backups store it again when they meet it, and a later repair puts
//! it back.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use rayon::prelude::*;

use super::patient::{Examined, Patient, examine, inspect, read_whole};
use super::rivals::condemn;
use super::{Mode, SetAside, Verdict, all_was_looked_at, set_aside, tell};
use crate::backend::{Area, Place};
use crate::compression::Level;
use crate::error::{Error, Result};
use crate::format::envelope::Kind;
use crate::format::frame::{ChunkTable, FrameRecord};
use crate::format::segment::{PackRecord, Segment};
use crate::id::{ChunkId, FrameId, ObjectName};
use crate::limits::*;
use crate::ops::check::{CheckReport, Finding, ReadData, check};
use crate::ops::go_on;
use crate::progress::{Progress, Silent, Stage};
use crate::repo::records::{self, Records, Rigour};
use crate::repo::{Frame, Health, Locator, Mover, Reader, Repository};

/// Which packs, and how.
#[derive(Clone, Debug, Default)]
pub struct PacksOptions {
    /// Names of packs, or their first digits; all that are damaged if empty.
    pub packs: Vec<String>,
    /// Read all packs to find damage inside of them.
    pub read_data: bool,
    /// For the record of what is taken away.
    pub host: String,
    pub mode: Mode,
}

/// What became of a damaged pack.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Treated {
    pub pack: ObjectName,
    pub problem: String,
    /// Frames it held, as far as that is known.
    pub frames: u64,
    /// Frames that were read well and moved, or have another good copy.
    pub saved: u64,
    /// Frames put together from other frames, all chunks of them.
    pub rebuilt: u64,
    /// Frames of which some chunks were found.
    pub partial: u64,
    /// Frames of which nothing was found.
    pub lost: u64,
    /// Where the pack is now; none if it was gone, or in a dry run.
    pub path: Option<String>,
}

/// What a repair of packs did, or would do.
#[derive(Clone, Debug, Default)]
pub struct PacksReport {
    /// Packs looked at.
    pub packs: u64,
    pub bytes_read: u64,
    pub treated: Vec<Treated>,
    /// Frames of other packs that miss chunks and got some of them back.
    pub mended: u64,
    pub packs_written: u64,
    pub bytes_written: u64,
    pub set_aside: Vec<SetAside>,
    /// Packs that the store fails to give: perhaps sound.
    pub unreadable: Vec<Finding>,
    pub unsupported: Vec<Finding>,
    /// What is still hurt after the repair; none in a dry run.
    pub left: Option<CheckReport>,
}

/// Salvages what damaged packs hold.
pub fn repair_packs(repository: &Repository, options: &PacksOptions, progress: &dyn Progress) -> Result<PacksReport> {
    let (locator, reader) = (repository.locator()?.clone(), repository.reader()?.clone());
    locator.adopt_unlisted();
    let records = Records::read(repository, Rigour::Lenient)?;
    let report = PacksReport::default();
    let (leaving, relied_on, broken) = (records.condemned(), HashSet::new(), Vec::new());
    let mut run = Run { repository, locator, reader, options, progress, report, leaving, relied_on, broken };
    let damaged = run.find(&records.doomed())?;
    let patients = run.listings(damaged)?;
    if !patients.is_empty() {
        run.leaving.extend(patients.iter().map(|patient| patient.name));
        run.treat(&patients)?;
    }
    if options.mode == Mode::Act {
        run.locator.refresh(crate::index::Scope::Frames)?;
        run.reader.start_over();
        let left = check(repository, ReadData::None, &Silent)?;
        let mended = options.packs.is_empty() && run.mend()?;
        run.report.left = Some(if mended { check(repository, ReadData::None, &Silent)? } else { left });
    }
    Ok(run.report)
}

/// A frame that cannot be read where it lies.
struct Broken {
    kind: Kind,
    id: FrameId,
    table: ChunkTable,
    /// A copy that others may be based on.
    is_plain: bool,
    /// Its bytes are good, but what they are based on is not there: compressed, with their record.
    baseless: Option<(FrameRecord, Vec<u8>)>,
    /// Number of its pack among those treated.
    treated: Option<usize>,
}

/// A repair under way.
struct Run<'a> {
    repository: &'a Repository,
    locator: Arc<Locator>,
    reader: Arc<Reader>,
    options: &'a PacksOptions,
    progress: &'a dyn Progress,
    report: PacksReport,
    /// Packs that do not count as copies: condemned, or to be set aside.
    leaving: HashSet<ObjectName>,
    /// Packs that hold what is taken away with the damaged ones.
    relied_on: HashSet<ObjectName>,
    broken: Vec<Broken>,
}

impl Run<'_> {
    /// The packs that are damaged, and why.
    fn find(&mut self, doomed: &HashSet<ObjectName>) -> Result<Vec<(ObjectName, String, bool)>> {
        self.progress.stage(Stage::CheckingStructure, None, None);
        let stored: BTreeMap<ObjectName, u64> = self.locator.list(Area::Packs)?.into_iter().collect();
        let (mut suspects, known) = self.suspects(&stored)?;
        let thorough = self.options.read_data || !self.options.packs.is_empty();
        if !self.options.packs.is_empty() {
            suspects = self.named(&known)?;
        } else if self.options.read_data {
            suspects.extend(stored.keys());
        }
        // One that is only announced may be what a repair that was cut short condemned. Who names a doomed one may have been told to by a
        // check: something in it is needed still, and whoever collects cannot read it.
        if self.options.packs.is_empty() {
            suspects.retain(|name| !doomed.contains(name));
        }
        self.report.packs = known.len() as u64;
        let bytes = suspects.iter().filter_map(|name| stored.get(name)).sum();
        self.progress.stage(Stage::CheckingData, Some(bytes), Some(suspects.len() as u64));
        let mut damaged = Vec::new();
        for name in suspects {
            go_on(self.progress)?;
            if let Some((why, is_gone)) = self.diagnose(name, thorough)? {
                tell(self.progress, Place::pack(name), &why);
                damaged.push((name, why, is_gone));
            }
            self.progress.bytes(stored.get(&name).copied().unwrap_or_default());
            self.progress.files(1);
        }
        Ok(damaged)
    }

    /// Packs that are gone, of another size than listed, or without a readable footer; and the names of all packs.
    fn suspects(&self, stored: &BTreeMap<ObjectName, u64>) -> Result<(BTreeSet<ObjectName>, BTreeSet<ObjectName>)> {
        let mut suspects = BTreeSet::new();
        let mut seen: BTreeSet<ObjectName> = BTreeSet::new();
        let replaced = self.replaced()?;
        for (name, _) in self.locator.list(Area::Segments)?.into_iter().filter(|(name, _)| !replaced.contains(name)) {
            go_on(self.progress)?;
            let Some(segment) = self.locator.readable_segment(name) else { continue };
            let sound = |pack: &PackRecord| stored.get(&pack.name) == Some(&pack.size) && self.has_footer(pack.name, pack.size);
            let wrong: Vec<ObjectName> = segment.packs.par_iter().filter(|pack| !sound(pack)).map(|pack| pack.name).collect();
            suspects.extend(wrong);
            seen.extend(segment.packs.iter().map(|pack| pack.name));
        }
        let unlisted = stored.iter().filter(|(name, _)| !seen.contains(*name));
        suspects.extend(unlisted.filter(|(name, size)| !self.has_footer(**name, **size)).map(|(name, _)| *name));
        seen.extend(stored.keys());
        Ok((suspects, seen))
    }

    fn has_footer(&self, name: ObjectName, size: u64) -> bool {
        self.locator.read_footer(name, size).is_ok()
    }

    /// Segments that another one repeats.
    fn replaced(&self) -> Result<HashSet<ObjectName>> {
        let mut replaced = HashSet::new();
        for (name, _) in self.locator.list(Area::Segments)? {
            replaced.extend(self.locator.readable_segment(name).map(|segment| segment.replaces).unwrap_or_default());
        }
        Ok(replaced)
    }

    /// The packs that the user named.
    fn named(&self, known: &BTreeSet<ObjectName>) -> Result<BTreeSet<ObjectName>> {
        let mut named = BTreeSet::new();
        for prefix in &self.options.packs {
            let fitting: Vec<&ObjectName> = known.iter().filter(|name| !prefix.is_empty() && name.hex().starts_with(prefix)).collect();
            match fitting[..] {
                [name] => named.insert(*name),
                [] => return Err(Error::NotFound(format!("No pack has a name that begins with {prefix}"))),
                _ => {
                    return Err(Error::NotFound(format!("{} packs have names that begin with {prefix}; write more digits", fitting.len())));
                }
            };
        }
        Ok(named)
    }

    /// What is wrong with a pack, and whether it is gone; nothing if it is sound, or not ours to judge.
    fn diagnose(&mut self, name: ObjectName, thorough: bool) -> Result<Option<(String, bool)>> {
        let verdict = match read_whole(self.repository, name) {
            Ok(Verdict::Sound(stored)) => {
                self.report.bytes_read += stored.len() as u64;
                inspect(self.repository, name, &stored, thorough)?
            }
            Ok(Verdict::Damaged(why)) => Verdict::Damaged(why),
            Ok(Verdict::Newer(why)) => Verdict::Newer(why),
            Ok(Verdict::Gone) => Verdict::Gone,
            // The medium fails, or the network: that says nothing of the bytes.
            Err(Error::Storage(error)) => {
                let problem = format!("{error}: {}; copy the repository to a sound disk, and repair it there", error.source);
                tell(self.progress, Place::pack(name), &problem);
                self.report.unreadable.push(Finding::of_pack(name, problem));
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        Ok(match verdict {
            Verdict::Sound(()) => None,
            Verdict::Damaged(why) => Some((why, false)),
            Verdict::Gone => Some(("it is gone".into(), true)),
            Verdict::Newer(problem) => {
                tell(self.progress, Place::pack(name), format!("It is left as it is, because it needs a newer snap: {problem}"));
                self.report.unsupported.push(Finding::left_alone(&Place::pack(name), problem));
                None
            }
        })
    }

    /// What segments say of the damaged packs.
    fn listings(&self, damaged: Vec<(ObjectName, String, bool)>) -> Result<Vec<Patient>> {
        let patient = |(name, why, is_gone)| Patient { name, why, is_gone, listed: None, segments: Vec::new() };
        let mut patients: BTreeMap<ObjectName, Patient> = damaged.into_iter().map(patient).map(|patient| (patient.name, patient)).collect();
        if patients.is_empty() {
            return Ok(Vec::new());
        }
        for (name, _) in self.locator.list(Area::Segments)? {
            let Some(segment) = self.locator.readable_segment(name) else { continue };
            for pack in segment.packs {
                if let Some(patient) = patients.get_mut(&pack.name) {
                    patient.segments.push(name);
                    patient.listed.get_or_insert(pack);
                }
            }
        }
        Ok(patients.into_values().collect())
    }

    fn treat(&mut self, patients: &[Patient]) -> Result<()> {
        self.progress.stage(Stage::Repairing, None, Some(patients.len() as u64));
        let mut mover = Mover::start(self.repository, Level::Auto)?.dry_run(self.options.mode == Mode::Look);
        for patient in patients {
            go_on(self.progress)?;
            self.move_out(patient, &mut mover)?;
            if self.broken.iter().map(|broken| broken.table.len()).sum::<usize>() > SALVAGED_CHUNKS_MAX {
                self.rebuild(&mut mover)?;
            }
            self.progress.files(1);
        }
        self.rebuild(&mut mover)?;
        self.list_new(mover)?;
        all_was_looked_at(self.repository)?;
        if self.options.mode == Mode::Look {
            return Ok(());
        }
        let going = patients.iter().filter(|patient| !patient.is_gone).map(|patient| patient.name).collect();
        let notice = condemn(self.repository, &self.options.host, going, &self.relied_on)?;
        let replaced = self.replace_segments(patients)?;
        for (number, patient) in patients.iter().enumerate().filter(|(_, patient)| !patient.is_gone) {
            let aside = set_aside(self.repository, &Place::pack(patient.name), patient.why.clone(), self.options.mode)?;
            self.report.treated[number].path = aside.path.clone();
            self.report.set_aside.push(aside);
        }
        for name in replaced {
            let why = "it lists a pack that is gone or set aside; another takes its place".into();
            let aside = set_aside(self.repository, &Place::segment(name), why, self.options.mode)?;
            self.report.set_aside.push(aside);
        }
        notice.map_or(Ok(()), |name| records::remove(self.repository, name))
    }

    /// Moves what can be read of a damaged pack, and notes what cannot.
    fn move_out(&mut self, patient: &Patient, mover: &mut Mover) -> Result<()> {
        let stored = match patient.is_gone {
            true => Vec::new(),
            false => self.repository.backend().get(&Place::pack(patient.name), PACK_BYTES_MAX)?,
        };
        let examined = examine(self.repository, patient, &stored)?;
        let (kind, frames) = examined.map_or((Kind::DataPack, Vec::new()), |Examined { kind, frames }| (kind, frames));
        let treated = Some(self.report.treated.len());
        let mut count = Treated {
            pack: patient.name,
            problem: patient.why.clone(),
            frames: frames.len() as u64,
            saved: 0,
            rebuilt: 0,
            partial: 0,
            lost: 0,
            path: None,
        };
        for (record, health) in frames {
            let (id, is_plain) = (record.id, !record.is_delta());
            let baseless = match health {
                Health::Good(compressed) => {
                    if !self.is_elsewhere(&id, is_plain, |i| record.has(i)) {
                        mover.add(kind, &record, &compressed)?;
                    }
                    count.saved += 1;
                    continue;
                }
                Health::Baseless(compressed) => Some((record.clone(), compressed)),
                Health::Broken => None,
            };
            self.broken.push(Broken { kind, id, table: record.table, is_plain, baseless, treated });
        }
        self.report.treated.push(count);
        Ok(())
    }

    /// Whether a copy of a frame in a pack that stays has these chunks; if so, the pack is relied on.
    fn is_elsewhere(&mut self, id: &FrameId, plain: bool, wanted: impl Fn(usize) -> bool) -> bool {
        let copy = self.elsewhere(id, plain).filter(|(_, copy)| covers(copy, wanted));
        copy.is_some_and(|(pack, _)| {
            self.relied_on.insert(pack);
            true
        })
    }

    /// The best copy of a frame in packs that stay.
    fn elsewhere(&self, id: &FrameId, plain: bool) -> Option<(ObjectName, Frame)> {
        let mut best: Option<(ObjectName, Frame)> = None;
        for (pack, location) in self.locator.places(id) {
            if self.leaving.contains(&pack.name) || plain && location.info.is_delta() {
                continue;
            }
            let Ok(frame) = self.locator.record_in(&pack, id).and_then(|record| self.reader.read_from(&pack, &record)) else { continue };
            if best.as_ref().is_none_or(|(_, best)| best.bytes().len() < frame.bytes().len()) {
                best = Some((pack.name, frame));
            }
            if best.as_ref().is_some_and(|(_, best)| best.is_whole()) {
                break;
            }
        }
        best
    }

    /// Puts broken frames together from whatever frames hold their chunks.
    fn rebuild(&mut self, mover: &mut Mover) -> Result<()> {
        let broken = std::mem::take(&mut self.broken);
        if broken.is_empty() {
            return Ok(());
        }
        let wanted: HashSet<ChunkId> = broken.iter().flat_map(|broken| broken.table.ids()).copied().collect();
        let copies = self.locator.copies(&wanted)?;
        let mut by_chunk: HashMap<ChunkId, Vec<usize>> = HashMap::new();
        for (number, (_, record)) in copies.iter().enumerate() {
            for id in record.table.ids().iter().filter(|id| wanted.contains(*id)) {
                by_chunk.entry(*id).or_default().push(number);
            }
        }
        for broken in broken {
            go_on(self.progress)?;
            let numbers: BTreeSet<usize> = broken.table.ids().iter().filter_map(|id| by_chunk.get(id)).flatten().copied().collect();
            let frame = self.reader.put_together(broken.table.clone(), numbers.iter().map(|number| &copies[*number]));
            self.place(broken, &frame, mover)?;
        }
        Ok(())
    }

    /// Stores what was found of a frame, unless a copy that stays has as much.
    fn place(&mut self, broken: Broken, frame: &Frame, mover: &mut Mover) -> Result<()> {
        let present: Vec<bool> = frame.present().collect();
        let is_empty = !present.contains(&true);
        // Of a frame without any chunk only the table is worth keeping, and once.
        let is_elsewhere = match is_empty {
            true => broken.treated.is_none() || self.locator.places(&broken.id).iter().any(|(pack, _)| !self.leaving.contains(&pack.name)),
            false => self.is_elsewhere(&broken.id, broken.is_plain, |i| present[i]),
        };
        let as_delta = || self.locator.places(&broken.id).iter().any(|(pack, at)| at.info.is_delta() && !self.leaving.contains(&pack.name));
        match &broken.baseless {
            // It may become readable again, when what it is based on is found.
            Some((record, compressed)) if !frame.is_whole() && !as_delta() => mover.add(broken.kind, record, compressed)?,
            _ if is_elsewhere => {}
            _ => mover.add_plain(broken.kind, broken.id, frame)?,
        }
        match broken.treated.map(|number| &mut self.report.treated[number]) {
            None => self.report.mended += u64::from(!is_elsewhere),
            Some(count) if frame.is_whole() => count.rebuilt += 1,
            Some(count) if is_empty => count.lost += 1,
            Some(count) => count.partial += 1,
        }
        Ok(())
    }

    /// Lists the packs just written.
    fn list_new(&mut self, mover: Mover) -> Result<()> {
        let packs = mover.finish()?;
        self.report.packs_written += packs.len() as u64;
        self.report.bytes_written += packs.iter().map(|pack| pack.size).sum::<u64>();
        self.relied_on.extend(packs.iter().map(|pack| pack.name));
        if self.options.mode == Mode::Act {
            self.repository.save_segments(packs, Vec::new())?;
        }
        Ok(())
    }

    /// Repeats the segments that list damaged packs without these, and returns the old ones.
    fn replace_segments(&self, patients: &[Patient]) -> Result<BTreeSet<ObjectName>> {
        let gone: HashSet<ObjectName> = patients.iter().map(|patient| patient.name).collect();
        let old: BTreeSet<ObjectName> = patients.iter().flat_map(|patient| &patient.segments).copied().collect();
        for name in &old {
            let Segment { packs, .. } = self.locator.segment(*name)?;
            let packs: Vec<PackRecord> = packs.into_iter().filter(|pack| !gone.contains(&pack.name)).collect();
            if !packs.is_empty() {
                self.repository.save_segments(packs, vec![*name])?;
            }
        }
        Ok(old)
    }

    /// Gives frames that snapshots need, and that miss chunks, what other frames have of these. Whether there were any.
    fn mend(&mut self) -> Result<bool> {
        let incomplete: HashSet<FrameId> = self.reader.salvaged().into_iter().collect();
        let mut found: BTreeMap<FrameId, Broken> = BTreeMap::new();
        self.locator.visit(&mut |pack, record| {
            if incomplete.contains(&record.id) {
                let broken = || Broken {
                    kind: pack.kind,
                    id: record.id,
                    table: record.table.clone(),
                    is_plain: true,
                    baseless: None,
                    treated: None,
                };
                found.entry(record.id).or_insert_with(broken);
            }
        })?;
        self.broken = found.into_values().collect();
        let mut mover = Mover::start(self.repository, Level::Auto)?;
        self.rebuild(&mut mover)?;
        self.list_new(mover)?;
        self.locator.refresh(crate::index::Scope::Frames)?;
        self.reader.start_over();
        Ok(self.report.mended > 0)
    }
}

/// Whether a copy has all wanted chunks.
fn covers(copy: &Frame, wanted: impl Fn(usize) -> bool) -> bool {
    copy.present().enumerate().all(|(i, is_there)| is_there || !wanted(i))
}
