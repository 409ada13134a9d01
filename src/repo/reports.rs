//! Reports in the store: what was done and how it went. Nobody removes anything by them, so a damaged one costs only itself.

use std::collections::HashSet;

use rayon::prelude::*;

use super::recall::{self, Bodies};
use super::{Repository, Unreadable};
use crate::backend::{Area, Place};
use crate::error::{Error, Result, StorageErrorKind};
use crate::format::FormatError;
use crate::format::envelope::Kind;
use crate::format::report::Report;
use crate::id::ObjectName;
use crate::limits::*;

/// A report and its name.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredReport {
    pub id: ObjectName,
    pub report: Report,
}

impl Repository {
    /// Stores a report.
    pub fn save_report(&self, report: &Report) -> Result<ObjectName> {
        let stored = self.seal_object(Kind::Report, &report.encode())?;
        let name = ObjectName::of(&stored);
        self.backend.put(&Place::report(name), &stored)?;
        Ok(name)
    }

    /// Every report that can be read, oldest first, and what went wrong with the others. Those of a kind that only a later version
    /// knows are left out. What this host remembers is not read again.
    pub fn reports(&self) -> Result<(Vec<StoredReport>, Vec<Unreadable>)> {
        let remembered = recall::load(self, Kind::Report);
        let names: Vec<String> = self.backend.list_names(Area::Reports)?;
        let load = |name: &String| -> Result<(ObjectName, Vec<u8>, bool)> {
            let place = Place { area: Area::Reports, name: name.clone() };
            let id = place.hash().ok_or_else(|| Error::damaged(&place, "its name is not a hash"))?;
            match remembered.get(&id) {
                Some(body) => Ok((id, body.to_vec(), true)),
                None => Ok((id, self.read_object(Kind::Report, &place, RECORD_BYTES_MAX)?, false)),
            }
        };
        let loaded: Vec<_> = names.par_iter().map(load).collect();
        let (mut found, mut unreadable, mut bodies, mut read) = (Vec::new(), Vec::new(), Bodies::new(), 0);
        for (name, loaded) in names.iter().zip(loaded) {
            let decoded = loaded.and_then(|(id, body, known)| {
                read += usize::from(!known);
                let report = Report::decode(&body);
                bodies.insert(id, body);
                match report {
                    Ok(report) => Ok(Some(StoredReport { id, report })),
                    Err(FormatError::Newer(_)) => Ok(None),
                    Err(error) => Err(error.of(format!("report {name}"))),
                }
            });
            match decoded {
                Ok(report) => found.extend(report),
                Err(Error::Storage(error)) if error.kind == StorageErrorKind::NotFound => {}
                Err(error) => unreadable.push((name.clone(), error)),
            }
        }
        found.sort_by_key(|stored: &StoredReport| (stored.report.time, stored.id));
        let there: HashSet<&ObjectName> = bodies.keys().collect();
        let gone = remembered.newest_first().filter(|(name, _)| !there.contains(name)).count();
        if read + gone > SNAPSHOTS_READ_AGAIN + remembered.len() / 32 {
            recall::store(self, Kind::Report, bodies.iter().map(|(name, body)| (*name, &body[..])));
        }
        Ok((found, unreadable))
    }
}
