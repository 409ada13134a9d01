//! What is known, shared by all who ask, and read from the store no more often than every few seconds.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::format::report::{Did, Drill, Run};
use crate::ops::status::{Expectations, Facts, JobStatus, Status, gather, judge};
use crate::repo::{Repository, Stored, StoredReport};

/// How long what was read is good enough.
const FRESH: Duration = Duration::from_secs(5);
/// How long it may stand for what is, while it is being read anew.
const STALE: Duration = Duration::from_secs(60);

/// What was known at one time.
pub struct View {
    pub facts: Facts,
    pub status: Status,
    streams: BTreeMap<(String, String), Known>,
}

/// What is known of one stream, by place in the facts, oldest first.
#[derive(Default)]
struct Known {
    snapshots: Vec<usize>,
    runs: Vec<usize>,
    drills: Vec<usize>,
}

impl View {
    pub fn new(facts: Facts, status: Status) -> Self {
        let mut streams: BTreeMap<(String, String), Known> = BTreeMap::new();
        let mut owners = HashMap::new();
        for (at, stored) in facts.snapshots.iter().enumerate() {
            let stream = (stored.snapshot.host.clone(), stored.snapshot.name.clone());
            owners.extend(stored.names().map(|id| (id, stream.clone())));
            streams.entry(stream).or_default().snapshots.push(at);
        }
        for (at, stored) in facts.reports.iter().enumerate() {
            let own = |job: &String| (stored.report.host.clone(), job.clone());
            match &stored.report.did {
                Did::Run(run) => streams.entry(own(&run.job)).or_default().runs.push(at),
                Did::Drill(drill) => {
                    // It may have been tried out on another machine.
                    let owner = drill.snapshot.and_then(|id| owners.get(&id).cloned()).unwrap_or_else(|| own(&drill.job));
                    streams.entry(owner).or_default().drills.push(at);
                }
                Did::Check(_) | Did::Prune(_) => {}
            }
        }
        Self { facts, status, streams }
    }

    pub fn job(&self, host: &str, name: &str) -> Option<&JobStatus> {
        self.status.jobs.iter().find(|job| job.host == host && job.job == name)
    }

    fn of<'v, T>(&self, host: &str, name: &str, which: fn(&Known) -> &Vec<usize>, all: &'v [T]) -> Vec<&'v T> {
        let known = self.streams.get(&(host.to_owned(), name.to_owned()));
        known.map(|known| which(known).iter().map(|at| &all[*at]).collect()).unwrap_or_default()
    }

    pub fn snapshots(&self, host: &str, name: &str) -> Vec<&Stored> {
        self.of(host, name, |known| &known.snapshots, &self.facts.snapshots)
    }

    pub fn runs(&self, host: &str, name: &str) -> Vec<&StoredReport> {
        self.of(host, name, |known| &known.runs, &self.facts.reports)
    }

    pub fn drills(&self, host: &str, name: &str) -> Vec<&StoredReport> {
        self.of(host, name, |known| &known.drills, &self.facts.reports)
    }

    /// Snapshots whose ids begin so.
    pub fn by_prefix(&self, prefix: &str) -> Vec<&Stored> {
        let fits = |stored: &&Stored| stored.id.hex().starts_with(prefix);
        self.facts.snapshots.iter().filter(fits).collect()
    }
}

pub fn run_of(stored: &StoredReport) -> Option<&Run> {
    match &stored.report.did {
        Did::Run(run) => Some(run),
        _ => None,
    }
}

pub fn drill_of(stored: &StoredReport) -> Option<&Drill> {
    match &stored.report.did {
        Did::Drill(drill) => Some(drill),
        _ => None,
    }
}

/// What was read last, or what went wrong then.
type Read = std::result::Result<Arc<View>, String>;

/// Says what is expected now, and what is wrong with what says so.
pub type Expect = Box<dyn Fn() -> (Expectations, Option<String>) + Send + Sync>;

/// What is known now.
#[derive(Default)]
pub struct Watch {
    last: Mutex<Option<(Instant, Read)>>,
    /// Held by who reads.
    reading: Mutex<()>,
}

impl Watch {
    /// What is known; read anew if that was some time ago. While somebody else does that, what was known before.
    pub fn look(&self, repository: &Repository, expected: &Expect) -> Read {
        if let Some(read) = self.younger_than(FRESH) {
            return read;
        }
        let _reading = match self.reading.try_lock() {
            Ok(guard) => guard,
            Err(std::sync::TryLockError::Poisoned(guard)) => guard.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => match lock(&self.last).is_some() {
                true => return self.younger_than(STALE).unwrap_or_else(|| Err("The store does not answer".into())),
                // At the start everybody waits.
                false => lock(&self.reading),
            },
        };
        if let Some(read) = self.younger_than(FRESH) {
            return read;
        }
        let read = view(repository, expected).map(Arc::new).map_err(|error| error.to_string());
        *lock(&self.last) = Some((Instant::now(), read.clone()));
        read
    }

    fn younger_than(&self, age: Duration) -> Option<Read> {
        lock(&self.last).as_ref().filter(|(time, _)| time.elapsed() < age).map(|(_, read)| read.clone())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn view(repository: &Repository, expected: &Expect) -> Result<View> {
    let (expectations, trouble) = expected();
    let facts = gather(repository)?;
    let mut status = judge(&facts, &expectations, repository.world().now());
    status.repository.warnings.extend(trouble);
    Ok(View::new(facts, status))
}
