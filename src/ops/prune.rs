//! Prune: what no snapshot needs any more is deleted; what packs still hold of use is moved together.
//!
//! ```text
//! survey -> plan -> delete what earlier runs condemned -> rewrite -> condemn -> (grace) -> ...
//! ```
//!
//! Deleting comes before anything that needs room. Any object that cannot be read, or is not known, ends a run before it deletes.
//! Safety does not depend on clocks or on being alone; `collector` has the argument.

mod collector;
mod facts;
mod plan;
mod secure;
mod segments;
#[cfg(test)]
mod testing;

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

pub use plan::{Figures, Limits, MaxUnused};

use crate::compression::Level;
use crate::error::{Result, StorageErrorKind};
use crate::limits::*;
use crate::progress::{Progress, Stage};
use crate::repo::Repository;
use collector::Collector;

/// How to prune.
#[derive(Clone, Debug)]
pub struct PruneOptions {
    pub host: String,
    pub dry_run: bool,
    pub max_unused: MaxUnused,
    /// Bytes of packs that may be rewritten.
    pub max_repack: Option<u64>,
    /// How long packs stay condemned before they are deleted.
    pub grace: Duration,
    /// Nobody else writes to the repository or restores from it: no grace for anybody.
    pub exclusive: bool,
    /// Snapshots may be missing that were there at the last prune.
    pub missing_snapshots_ok: bool,
    pub level: Level,
}

impl PruneOptions {
    /// A little less than a day, so that every night deletes what the night before condemned.
    pub const GRACE: Duration = Duration::from_secs(20 * 3600);

    pub fn new(host: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            dry_run: false,
            max_unused: MaxUnused::Percent(5.0),
            max_repack: None,
            grace: Self::GRACE,
            exclusive: false,
            missing_snapshots_ok: false,
            level: Level::Auto,
        }
    }
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct PruneReport {
    pub figures: Figures,
    pub snapshots: u64,
    pub packs_deleted: u64,
    pub bytes_deleted: u64,
    pub packs_written: u64,
    /// Packs, and segments.
    pub bytes_written: u64,
    pub frames_moved: u64,
    pub frames_thinned: u64,
    pub segments_replaced: u64,
    /// Condemned by this run, to be deleted by a later one.
    pub packs_condemned: u64,
    pub bytes_condemned: u64,
    /// Leftovers of writes that were cut short.
    pub temporary_files: u64,
    pub temporary_bytes: u64,
    /// Objects with damage, which were left as they are.
    pub damaged: BTreeSet<String>,
    pub seconds: f64,
}

/// Prunes a repository.
pub fn prune(repository: &Repository, options: &PruneOptions, progress: &dyn Progress) -> Result<PruneReport> {
    let prepared = prepare(repository, options, progress)?;
    if options.dry_run { Ok(prepared.report()) } else { prepared.run() }
}

/// Finds out what there is to do, and changes nothing.
pub fn prepare<'a>(repository: &'a Repository, options: &PruneOptions, progress: &'a dyn Progress) -> Result<Prepared<'a>> {
    let begun = std::time::Instant::now();
    progress.stage(Stage::Opening, None, None);
    let options = PruneOptions { grace: if options.exclusive { Duration::ZERO } else { options.grace }, ..options.clone() };
    let limits = Limits { max_unused: options.max_unused, max_repack: options.max_repack };
    let mut collector = Collector::survey(repository, options, progress)?;
    let condemned = collector.condemned();
    let plan = plan::plan(&collector.facts, &mut collector.marks, &condemned, &limits)?;
    collector.report.figures = plan.figures;
    Ok(Prepared { collector, plan, begun })
}

/// A collection that is planned.
pub struct Prepared<'a> {
    collector: Collector<'a>,
    plan: plan::Plan,
    begun: std::time::Instant,
}

impl Prepared<'_> {
    pub fn figures(&self) -> &Figures {
        &self.plan.figures
    }

    /// What a dry run reports.
    pub fn report(self) -> PruneReport {
        PruneReport { seconds: self.begun.elapsed().as_secs_f64(), ..self.collector.report }
    }

    /// Does it.
    pub fn run(mut self) -> Result<PruneReport> {
        act(&mut self.collector, std::mem::take(&mut self.plan))?;
        Ok(self.report())
    }
}

fn act(collector: &mut Collector, plan: plan::Plan) -> Result<()> {
    let finished = collector.finished();
    sweep(collector)?;
    // A pack that no segment lists may be a running backup's: it has a grace in any case.
    let is_listed = |pack: &u32| collector.facts.pack(*pack).listed || collector.options.exclusive;
    let at_once = collector.options.grace.is_zero();
    let (now, later): (Vec<u32>, Vec<u32>) = plan.remove.into_iter().partition(|pack| at_once && is_listed(pack));

    let due = collector.due();
    let ripe = collector.sort_due(&due)?;
    collector.collect(&[ripe, now].concat())?;
    // Without a gap: whoever reads the records finds the busy ones condemned.
    let busy = collector.busy();
    collector.condemn(&busy, false)?;
    collector.withdraw(&due)?;
    let orphans = collector.orphans()?;

    let rewrite: HashSet<u32> = plan.rewrite.into_iter().collect();
    let emptied = empty(collector, &rewrite)?;
    let mut condemn = [later, orphans].concat();
    match at_once {
        true => collector.collect(&emptied)?,
        false => condemn.extend(emptied),
    }
    collector.tidy_segments()?;
    let known = collector.condemned();
    condemn.retain(|&pack| !known.has(pack) && collector.facts.pack(pack).state != facts::State::Gone);
    collector.report.packs_condemned = condemn.len() as u64;
    collector.report.bytes_condemned = condemn.iter().map(|&pack| collector.facts.pack(pack).size).sum();
    collector.condemn(&condemn, false)?;
    collector.conclude(&finished)
}

/// Removes what writes that were cut short left behind.
fn sweep(collector: &mut Collector) -> Result<()> {
    let backend = collector.repository.backend();
    for leftover in backend.leftovers()? {
        if collector.options.exclusive || leftover.age >= LEFTOVER_AGE {
            match backend.remove_leftover(&leftover.name) {
                Err(error) if error.kind != StorageErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
            collector.report.temporary_files += 1;
            collector.report.temporary_bytes += leftover.size;
        }
    }
    Ok(())
}

/// Moves what is needed out of packs that are to be rewritten. Returns those that can go.
fn empty(collector: &mut Collector, packs: &HashSet<u32>) -> Result<Vec<u32>> {
    let condemned = collector.condemned();
    collector.protect(packs, &condemned);
    let unmet = collector.verify(collector.needs(packs, &condemned))?;
    let kept = if unmet.is_empty() { HashSet::new() } else { collector.move_out(unmet, packs)? };
    let mut emptied: Vec<u32> = packs.difference(&kept).copied().collect();
    emptied.sort_unstable();
    Ok(emptied)
}
