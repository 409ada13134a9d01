//! Reports in the store: what was done and how it went. Nobody removes anything by them, so a damaged one costs only itself.

use jiff::Timestamp;

use super::recall::{self, Memorable};
use super::{Repository, Unreadable};
use crate::backend::{Area, Place};
use crate::error::Result;
use crate::format::FormatError;
use crate::format::envelope::Kind;
use crate::format::report::Report;
use crate::id::ObjectName;

/// A report and its name.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredReport {
    pub id: ObjectName,
    pub report: Report,
}

impl Memorable for Report {
    const KIND: Kind = Kind::Report;
    const AREA: Area = Area::Reports;

    /// Those of a kind that only a later version knows are passed over.
    fn parse(body: &[u8]) -> crate::format::Result<Option<Self>> {
        match Report::decode(body) {
            Err(FormatError::Newer(_)) => Ok(None),
            report => report.map(Some),
        }
    }

    fn time(&self) -> Timestamp {
        self.time
    }
}

impl Repository {
    /// Stores a report.
    pub fn save_report(&self, report: &Report) -> Result<ObjectName> {
        self.save_report_body(&report.encode())
    }

    /// Stores a report of another repository as it is, with all that this version does not know.
    pub(crate) fn save_report_body(&self, body: &[u8]) -> Result<ObjectName> {
        let stored = self.seal_object(Kind::Report, body)?;
        let name = ObjectName::of(&stored);
        self.backend.put(&Place::report(name), &stored)?;
        Ok(name)
    }

    /// Every report that can be read, oldest first, and what went wrong with the others. All are read from the store.
    pub fn reports(&self) -> Result<(Vec<StoredReport>, Vec<Unreadable>)> {
        recall::all(self).map(stored)
    }

    /// The same with their bodies.
    pub(crate) fn report_bodies(&self) -> Result<recall::WithBodies<Report>> {
        recall::bodies(self)
    }

    /// The same without bodies, and what this host remembers is not read again.
    pub fn reports_at_hand(&self) -> Result<(Vec<StoredReport>, Vec<Unreadable>)> {
        recall::at_hand(self).map(stored)
    }
}

fn stored((found, unreadable): recall::Gathered<Report>) -> (Vec<StoredReport>, Vec<Unreadable>) {
    (found.into_iter().map(|(id, report)| StoredReport { id, report }).collect(), unreadable)
}
