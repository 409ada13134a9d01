//! What a run does when the snapshot is safe: read back, forget, clean up. It may fail without undoing that.

use super::{Course, RunOptions, blank, verify};
use crate::config::Job;
use crate::error::{Error, Result};
use crate::format::report::{Did, Outcome, Report};
use crate::format::snapshot::SourceKind;
use crate::ops::check::{self, Budget, ReadData};
use crate::ops::forget::{self, Choice, ForgetOptions};
use crate::ops::prune::{PruneOptions, prune};
use crate::ops::receipt::Receipts;
use crate::repo::{Repository, SnapshotFilter};
use crate::retention::GroupBy;

impl Course<'_> {
    pub(super) fn verify(&mut self) -> Result<()> {
        let wanted = self.job.verify;
        let Some(snapshot) = self.run.snapshot else { return Ok(()) };
        if wanted.snapshot {
            self.step_behind("verify", |course| verify::snapshot(course.repository, snapshot, &course.progress))?;
        }
        match wanted.budget {
            // A step of its own: it says nothing of this snapshot.
            Some(bytes) => self.step_behind("verify store", |course| course.verify_some(bytes)),
            None => Ok(()),
        }
    }

    /// Reads so many bytes of packs that were longest unverified, and notes in the ledger what was found.
    fn verify_some(&self, bytes: u64) -> Result<()> {
        let time = self.repository.world().now();
        let found = check::check(self.repository, ReadData::Oldest(Budget::Bytes(bytes)), &self.progress)?;
        let trouble = found.findings.first().map(|finding| Error::damaged(&finding.object, &finding.problem));
        let (outcome, exit_code) = if trouble.is_some() { (Outcome::Failed, 20) } else { (Outcome::Good, 0) };
        let error = trouble.as_ref().map(|error| (self.options.tell)(error).1);
        let report = Report {
            seconds: found.seconds,
            outcome,
            error,
            exit_code,
            did: Did::Check(found.entry()),
            ..blank(&self.job.name, self.options, time)
        };
        self.repository.save_report(&report)?;
        trouble.map_or(Ok(()), Err)
    }

    pub(super) fn forget(&mut self) -> Result<()> {
        if self.job.keep.is_empty() {
            return Ok(());
        }
        self.step_behind("forget", |course| {
            let options = course.options;
            require_trust(course.repository, options)?;
            let plan = forget::plan(course.repository, &forgetting(course.job, options), &course.progress)?;
            for (name, error) in &plan.unreadable {
                let (_, message) = (options.tell)(error);
                course.warn(format!("snapshot {}: {message}; it is kept", &name[..name.len().min(8)]));
            }
            forget::execute(course.repository, &plan, &options.host, &course.progress)?;
            course.run.forgotten = plan.removed().count() as u64;
            Ok(())
        })
    }

    /// Frees what an earlier run condemned, and condemns what is of no use any more.
    pub(super) fn prune(&mut self) -> Result<()> {
        let Some(budget) = self.job.prune else { return Ok(()) };
        self.step_behind("prune", |course| {
            require_trust(course.repository, course.options)?;
            let options = PruneOptions { max_repack: budget.max_repack, ..PruneOptions::new(&course.options.host) };
            let report = prune(course.repository, &options, &course.progress)?;
            course.run.bytes_freed = report.bytes_deleted;
            match report.damaged.first() {
                None => Ok(()),
                Some(object) => Err(Error::damaged(object, "what it holds is left as it is")),
            }
        })
    }

    /// Does something behind the backup that may fail without undoing it.
    fn step_behind(&mut self, name: &str, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        match self.step(name, work) {
            Err(error @ Error::Interrupted) => Err(error),
            Err(error) => {
                let (code, message) = (self.options.tell)(&error);
                self.is_doubtful |= code == 20;
                // Codes 1 and 2 say that nothing was saved.
                self.trouble(if code <= 2 { 3 } else { code }, format!("{name}: {message}"));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

/// What of a job is forgotten: its own snapshots of this host.
pub(super) fn forgetting(job: &Job, options: &RunOptions) -> ForgetOptions {
    let filter = SnapshotFilter {
        hosts: vec![options.host.clone()],
        names: vec![job.name.clone()],
        kind: Some(SourceKind::Job),
        ..SnapshotFilter::default()
    };
    let choice = Choice::Policy { policy: job.keep.clone(), group_by: GroupBy::default() };
    ForgetOptions { choice, filter, zone: options.zone.clone() }
}

/// Fails if this host saw more in the store than there is now.
fn require_trust(repository: &Repository, options: &RunOptions) -> Result<()> {
    options.state.clone().map_or(Ok(()), |state| Receipts::new(state).require(repository))
}
