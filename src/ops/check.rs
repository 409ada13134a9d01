//! Check: is everything there that snapshots refer to, and does every stored byte still fit its hashes?
//!
//! Goes on after the first finding, and says which snapshots, paths and byte ranges each one hurts.

mod affected;
mod data;
mod structure;

use std::collections::HashSet;

use crate::backend::{Area, Backend, Place};
use crate::error::{Error, Result};
use crate::format::report::{self, PackNames};
use crate::id::{FrameId, ObjectName, SnapshotId};
use crate::limits::*;
use crate::progress::{Problem, Progress, Stage};
use crate::repo::{Repository, stored_bytes};

/// How much of the stored data to read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum ReadData {
    /// Only structure: snapshots, catalogs, recipes, index segments, footers, sizes.
    #[default]
    None,
    All,
    /// The n-th of m parts; the parts together are everything.
    Part {
        number: u64,
        of: u64,
    },
    /// A random share of the packs, in percent.
    Percent(f64),
    /// Random packs of about so many bytes together.
    Bytes(u64),
    /// The packs that were longest unverified, as long as it lasts.
    Oldest(Budget),
}

/// What reading may cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    Bytes(u64),
    Time(std::time::Duration),
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// The object, like `pack 3f…` or `frame 12…`.
    pub object: String,
    pub problem: String,
    /// What helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repair: Option<Remedy>,
}

/// What helps against damage, in the order in which it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remedy {
    /// Make the index again from the packs.
    Index,
    /// Salvage a pack.
    Pack(ObjectName),
    /// Nothing brings it back, but perhaps a backup that meets the same data: cut it out.
    Snapshots,
}

impl Remedy {
    /// The command that does it.
    pub fn command(&self) -> String {
        match self {
            Self::Index => "snap repair index".into(),
            Self::Pack(name) => format!("snap repair packs {}", &name.hex()[..12]),
            Self::Snapshots => "snap repair snapshots".into(),
        }
    }
}

impl serde::Serialize for Remedy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.command())
    }
}

impl Finding {
    /// A pack that something is wrong with.
    pub fn of_pack(name: ObjectName, problem: impl ToString) -> Self {
        Self { object: format!("pack {name}"), problem: problem.to_string(), repair: Some(Remedy::Pack(name)) }
    }

    /// The pack that is to be repaired.
    fn pack(&self) -> Option<ObjectName> {
        match self.repair {
            Some(Remedy::Pack(name)) => Some(name),
            _ => None,
        }
    }

    /// An object of a newer version.
    pub fn left_alone(place: &Place, problem: impl ToString) -> Self {
        Self { object: place.to_string(), problem: problem.to_string(), repair: None }
    }
}

/// What a finding hurts.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Affected {
    pub snapshot: SnapshotId,
    /// Nothing if the catalog itself is hurt.
    #[serde(serialize_with = "as_text")]
    pub path: Vec<u8>,
    /// Bytes of the file that are lost: offset and length. The last may be longer than the file where lengths are lost too.
    pub ranges: Vec<(u64, u64)>,
}

fn as_text<S: serde::Serializer>(path: &[u8], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(path))
}

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    pub snapshots: u64,
    pub packs: u64,
    pub packs_read: u64,
    pub bytes_read: u64,
    /// Packs that were read whole and found good.
    pub verified: Vec<ObjectName>,
    /// Packs that were read and found damaged.
    pub hurt: Vec<ObjectName>,
    pub frames: u64,
    pub findings: Vec<Finding>,
    pub affected: Vec<Affected>,
    /// Objects that a newer version wrote, which this one cannot judge.
    pub unsupported: Vec<Finding>,
    /// Harmless oddities: packs no segment lists, leftovers.
    pub notes: Vec<String>,
    pub seconds: f64,
}

impl CheckReport {
    /// What to do about the findings, in this order.
    pub fn remedies(&self) -> Vec<Remedy> {
        let mut remedies: Vec<Remedy> = self.findings.iter().filter_map(|finding| finding.repair).collect();
        remedies.sort();
        remedies.dedup();
        remedies
    }

    /// What the ledger of verified packs is told.
    pub fn entry(&self) -> report::Check {
        report::Check {
            packs: PackNames::of(&self.verified),
            whole: self.packs_read == self.packs && self.verified.len() as u64 == self.packs && self.packs > 0,
            bytes_read: self.bytes_read,
            damaged: self.findings.len() as u64,
            hurt: PackNames::of(&self.hurt),
        }
    }
}

/// Checks a repository.
pub fn check(repository: &Repository, read_data: ReadData, progress: &dyn Progress) -> Result<CheckReport> {
    let begun = std::time::Instant::now();
    progress.stage(Stage::CheckingStructure, None, None);
    let mut run = Run { repository, progress, report: CheckReport::default(), suspects: HashSet::new() };
    // Against the order in which a backup writes: what comes meanwhile is then not missed but not seen.
    let snapshots = repository.snapshots()?;
    let stock = structure::check(&mut run)?;
    if read_data != ReadData::None {
        data::check(&mut run, &stock, read_data)?;
    }
    progress.stage(Stage::CheckingStructure, None, None);
    affected::check(&mut run, &stock, snapshots)?;
    let mut report = run.report;
    report.seconds = begun.elapsed().as_secs_f64();
    Ok(report)
}

/// A check under way.
struct Run<'a> {
    repository: &'a Repository,
    progress: &'a dyn Progress,
    report: CheckReport,
    /// Frames of which a copy is damaged or missing.
    suspects: HashSet<FrameId>,
}

impl Run<'_> {
    fn finding(&mut self, object: impl ToString, problem: impl ToString, repair: Option<Remedy>) {
        find(&mut self.report, self.progress, Finding { object: object.to_string(), problem: problem.to_string(), repair });
    }

    /// An object that could not be read: damaged, or only unknown to this version.
    fn trouble(&mut self, object: impl ToString, error: &Error, repair: Option<Remedy>) {
        let why = structure::why(error);
        match error {
            // What looks like a newer version may be a byte that is wrong.
            Error::Unsupported { .. } if self.is_rotten(repair) => self.finding(object, "Its bytes do not fit its name", repair),
            Error::Unsupported { .. } => {
                let problem = format!("It cannot be checked, because it needs a newer snap: {why}");
                self.progress.problem(&Problem::new(object.to_string(), &problem));
                self.report.unsupported.push(Finding { object: object.to_string(), problem, repair: None });
            }
            _ => self.finding(object, why, repair),
        }
    }

    fn is_rotten(&self, repair: Option<Remedy>) -> bool {
        let Some(Remedy::Pack(name)) = repair else { return false };
        let stored = self.repository.backend().get(&Place::pack(name), PACK_BYTES_MAX);
        stored.is_ok_and(|stored| ObjectName::of(&stored) != name)
    }
}

fn find(report: &mut CheckReport, progress: &dyn Progress, finding: Finding) {
    if !report.findings.contains(&finding) {
        progress.problem(&Problem::new(&finding.object, &finding.problem));
        report.findings.push(finding);
    }
}

/// What helps against damage of a whole object.
fn remedy(place: &Place) -> Option<Remedy> {
    match place.area {
        Area::Packs => place.name.parse().ok().map(Remedy::Pack),
        Area::Segments | Area::Records => Some(Remedy::Index),
        Area::Snapshots => Some(Remedy::Snapshots),
        Area::Top | Area::Keys | Area::KeyNotes | Area::Reports => None,
    }
}

/// Checks every pack, segment, snapshot, record and report against its name, without a key.
pub fn check_keyless(backend: &dyn Backend, progress: &dyn Progress) -> Result<CheckReport> {
    let begun = std::time::Instant::now();
    let mut report = CheckReport::default();
    let mut places = Vec::new();
    for area in [Area::Snapshots, Area::Segments, Area::Records, Area::Reports, Area::Packs] {
        places.extend(backend.list(area)?.into_iter().map(|listed| (Place { area, name: listed.name }, listed.size)));
    }
    let whole = |place: &Place, problem| Finding { object: place.to_string(), problem, repair: remedy(place) };
    progress.stage(Stage::CheckingData, Some(places.iter().map(|(_, size)| size).sum()), Some(places.len() as u64));
    for (place, size) in places {
        if progress.interrupted() {
            return Err(Error::Interrupted);
        }
        match place.area {
            Area::Packs => report.packs += 1,
            Area::Snapshots => report.snapshots += 1,
            _ => {}
        }
        backend.forget_cached(&place);
        match stored_bytes(backend, &place, SEGMENT_BYTES_MAX) {
            Ok(stored) if place.hash() == Some(ObjectName::of(&stored)) => report.packs_read += u64::from(place.area == Area::Packs),
            Ok(_) => find(&mut report, progress, whole(&place, "Its bytes do not fit its name".into())),
            Err(error) => find(&mut report, progress, whole(&place, error.to_string())),
        }
        report.bytes_read += size;
        progress.bytes(size);
        progress.files(1);
    }
    report.seconds = begun.elapsed().as_secs_f64();
    Ok(report)
}
