//! The ledger: when each pack was last read whole and found good, or damaged. Made from the reports of checks.
//!
//! It decides what is read next and what is said about the store, and nothing else: a pack that is in it may have rotted since.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::format::report::{Did, PackNames};
use crate::id::ObjectName;
use crate::repo::StoredReport;
use crate::retention;

/// When each pack was last read, and how it was found.
#[derive(Default)]
pub struct Ledger {
    verified: HashMap<u64, Timestamp>,
    hurt: HashMap<u64, Timestamp>,
}

impl Ledger {
    /// From reports in any order. Those from the future do not count: what they name would not be read until then.
    pub fn of(reports: &[StoredReport], now: Timestamp) -> Self {
        let horizon = retention::horizon(now);
        let mut ledger = Self::default();
        for report in reports.iter().map(|stored| &stored.report).filter(|report| report.time <= horizon) {
            let Did::Check(check) = &report.did else { continue };
            for (found, packs) in [(&mut ledger.verified, &check.packs), (&mut ledger.hurt, &check.hurt)] {
                for pack in packs.keys() {
                    let last = found.entry(pack).or_insert(report.time);
                    *last = report.time.max(*last);
                }
            }
        }
        ledger
    }

    /// When a pack was last found good; nothing if it never was.
    pub fn verified(&self, pack: &ObjectName) -> Option<Timestamp> {
        self.verified.get(&PackNames::key(pack)).copied()
    }

    /// When a pack was last found damaged, if nobody has read it since and found it good.
    pub fn hurt(&self, pack: &ObjectName) -> Option<Timestamp> {
        let hurt = self.hurt.get(&PackNames::key(pack)).copied()?;
        self.verified(pack).is_none_or(|good| good <= hurt).then_some(hurt)
    }
}
