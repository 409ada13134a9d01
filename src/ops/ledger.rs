//! The ledger: when each pack was last read whole and found good. Made from the reports of checks.
//!
//! It decides what is read next and what is said about the store, and nothing else: a pack that is in it may have rotted since.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::format::report::{Did, PackNames};
use crate::id::ObjectName;
use crate::repo::StoredReport;
use crate::retention;

/// When each pack was last read whole and found good.
#[derive(Default)]
pub struct Ledger {
    verified: HashMap<u64, Timestamp>,
}

impl Ledger {
    /// From reports in any order. Those from the future do not count: what they name would not be read until then.
    pub fn of(reports: &[StoredReport], now: Timestamp) -> Self {
        let horizon = retention::horizon(now);
        let mut verified: HashMap<u64, Timestamp> = HashMap::new();
        for report in reports.iter().map(|stored| &stored.report).filter(|report| report.time <= horizon) {
            let Did::Check(check) = &report.did else { continue };
            for pack in check.packs.keys() {
                let last = verified.entry(pack).or_insert(report.time);
                *last = report.time.max(*last);
            }
        }
        Self { verified }
    }

    /// When a pack was last found good; nothing if it never was.
    pub fn verified(&self, pack: &ObjectName) -> Option<Timestamp> {
        self.verified.get(&PackNames::key(pack)).copied()
    }
}
