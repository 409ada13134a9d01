//! Whether what was saved comes back: all of it after something was taken away, else what is new and a few others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use snap_backup::backend::{Area, Backend};
use snap_backup::id::SnapshotId;

use crate::history::History;
use crate::support::*;

impl History {
    /// After a step: looks at what it can have hurt.
    pub fn judge(&self) {
        let fresh = std::mem::take(&mut self.state().fresh);
        if self.took.swap(false, Ordering::SeqCst) {
            return self.judge_all();
        }
        let some: Vec<SnapshotId> = {
            let mut state = self.state();
            let random = state.random.below(u64::MAX) as usize;
            let count = state.truth.len().max(1);
            let any = state.truth.keys().nth(random % count).copied();
            fresh.into_iter().filter(|id| state.truth.contains_key(id)).chain(any).collect()
        };
        self.all_are_listed();
        self.restore(&some);
    }

    pub fn judge_all(&self) {
        let all: Vec<SnapshotId> = self.state().truth.keys().copied().collect();
        self.restore(&all);
    }

    /// To take a snapshot away hurts nothing but itself.
    fn all_are_listed(&self) {
        let listed: BTreeSet<String> = self.store.list(Area::Snapshots).unwrap().into_iter().map(|listed| listed.name).collect();
        for (id, known) in &self.state().truth {
            assert!(known.hurt || listed.contains(&id.hex()), "{id} is gone");
        }
    }

    fn restore(&self, ids: &[SnapshotId]) {
        if ids.is_empty() {
            return;
        }
        let stranger = self.stranger();
        for id in ids {
            let known = self.state().truth[id].clone();
            match read(&stranger, &id.hex()) {
                Ok(bytes) => assert!(bytes == *known.bytes, "{id} came back wrong"),
                Err(error) => assert!(known.hurt, "{id} does not come back: {error}"),
            }
        }
    }

    /// The program's own check finds nothing that is not so.
    pub fn check(self: &Arc<Self>) {
        if !self.state().rot {
            let report = check_all(&self.stranger()).unwrap();
            assert!(report.affected.is_empty(), "{:?} {:?}", report.affected, report.findings);
        }
    }
}
