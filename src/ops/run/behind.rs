//! What a run does when the snapshot is safe: read back, forget, clean up. It may fail without undoing that.

use super::{Course, RunOptions, verify};
use crate::config::Job;
use crate::error::{Error, Result};
use crate::format::snapshot::SourceKind;
use crate::ops::check::{self, ReadData};
use crate::ops::forget::{self, Choice, ForgetOptions};
use crate::ops::receipt::Receipts;
use crate::progress::Progress;
use crate::repo::{Repository, SnapshotFilter};
use crate::retention::GroupBy;

impl Course<'_> {
    pub(super) fn verify(&mut self) -> Result<()> {
        let wanted = self.job.verify;
        let Some(snapshot) = self.run.snapshot.filter(|_| wanted.snapshot || wanted.budget.is_some()) else { return Ok(()) };
        self.step_behind("verify", |course| {
            if wanted.snapshot {
                verify::snapshot(course.repository, snapshot, &course.progress)?;
            }
            match wanted.budget {
                Some(bytes) => verify_some(course.repository, bytes, &course.progress),
                None => Ok(()),
            }
        })
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

    /// Nothing yet cleans up.
    pub(super) fn prune(&mut self) -> Result<()> {
        if self.job.prune.is_some() {
            self.warn("this build cannot prune; space is not freed".into());
        }
        Ok(())
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
    let Some(state) = &options.state else { return Ok(()) };
    match Receipts::new(state.clone()).compare(repository)?.into_iter().next() {
        None => Ok(()),
        Some((doubt, file)) => Err(Error::Refused {
            why: format!("{doubt} (as {} says)", crate::error::show(&file)),
            hint: "find out what happened to the store; if that is right, remove that file",
        }),
    }
}

/// Reads so many bytes of packs.
fn verify_some(repository: &Repository, bytes: u64, progress: &dyn Progress) -> Result<()> {
    let report = check::check(repository, ReadData::Bytes(bytes), progress)?;
    match report.findings.first() {
        None => Ok(()),
        Some(finding) => Err(Error::damaged(&finding.object, &finding.problem)),
    }
}
