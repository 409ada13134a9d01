//! What was told, so that nobody hears the same every five minutes: a small file in this host's state for each configuration.
//!
//! Several processes use it at once (a run, a cron job), so it is read and written under a lock. A file that cannot be read counts as
//! empty and one that cannot be written is no obstacle: then something is told once more, which is better than not at all.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};

use super::Missing;
use crate::replace;

/// Kinds of keys of missed objectives begin so.
pub const MISSED: &str = "missed ";

/// What trouble is about: its kind, host and job; an empty job is the repository. Kept as one text, with line ends between.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    pub fn new(kind: &str, host: &str, job: &str) -> Self {
        Self(format!("{kind}\n{host}\n{job}"))
    }

    pub fn of_missing(missing: &Missing) -> Self {
        Self::new(&format!("{MISSED}{}", missing.objective), &missing.host, missing.job.as_deref().unwrap_or_default())
    }

    /// What was missed.
    pub fn to_missing(&self, trouble: &Trouble) -> Missing {
        let mut parts = self.0.splitn(3, '\n').map(str::to_owned);
        let kind = parts.next().unwrap_or_default();
        Missing {
            objective: kind.strip_prefix(MISSED).unwrap_or_default().to_owned(),
            host: parts.next().unwrap_or_default(),
            job: parts.next().filter(|job| !job.is_empty()),
            message: trouble.message.clone(),
        }
    }
}

/// Trouble that somebody was told of.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Trouble {
    pub since: Timestamp,
    /// When it was told last, for each way in which it showed: a job that fails by turns in two ways is no reason for a storm.
    pub told: BTreeMap<String, Timestamp>,
    /// What was told first.
    pub message: String,
}

/// Whether trouble is to be told.
#[derive(Debug, PartialEq)]
pub enum Known {
    ToldAlready,
    /// It is noted as told from now on. What was noted before, to be given back if nobody could be reached.
    ToTell(Option<Trouble>),
}

type Troubles = BTreeMap<String, Trouble>;

/// What was told.
pub struct Told {
    file: Option<PathBuf>,
}

impl Told {
    pub fn new(folder: Option<PathBuf>, config: &Path) -> Self {
        let config = std::path::absolute(config).unwrap_or_else(|_| config.to_owned());
        let name = blake3::hash(config.as_os_str().as_bytes()).to_hex();
        Self { file: folder.map(|folder| folder.join(format!("{}.told", &name[..16]))) }
    }

    /// Notes that trouble is told now, unless it need not be.
    pub fn take(&self, key: &Key, way: &str, message: &str, now: Timestamp, repeat: Duration) -> Known {
        // A nightly job that fails a little earlier than yesterday is told nevertheless.
        let repeat = repeat.mul_f64(0.875).as_secs_f64();
        self.change(|troubles| {
            let before = troubles.get(&key.0).cloned();
            if let Some(told) = before.as_ref().and_then(|trouble| trouble.told.get(way)) {
                let passed = now.duration_since(*told);
                // A clock that was set back would be silent for long.
                if !passed.is_negative() && passed.as_secs_f64() < repeat {
                    return Known::ToldAlready;
                }
            }
            let fresh = || Trouble { since: now, told: BTreeMap::new(), message: message.into() };
            let trouble = troubles.entry(key.0.clone()).or_insert_with(fresh);
            trouble.told.insert(way.into(), now);
            Known::ToTell(before)
        })
    }

    /// Nobody could be told: as it was before.
    pub fn give_back(&self, before: Vec<(Key, Option<Trouble>)>) {
        self.change(|troubles| {
            for (key, before) in before {
                match before {
                    Some(trouble) => drop(troubles.insert(key.0, trouble)),
                    None => drop(troubles.remove(&key.0)),
                }
            }
        });
    }

    /// Forgets trouble that is over; nothing if nobody was told.
    pub fn recover(&self, key: &Key) -> Option<Trouble> {
        self.change(|troubles| troubles.remove(&key.0))
    }

    /// Keys of these kinds.
    pub fn keys(&self, beginning: &str) -> Vec<Key> {
        self.change(|troubles| troubles.keys().filter(|key| key.starts_with(beginning)).cloned().map(Key).collect())
    }

    fn change<T>(&self, work: impl FnOnce(&mut Troubles) -> T) -> T {
        let Some(file) = &self.file else { return work(&mut Troubles::new()) };
        let _lock = lock(file);
        let mut troubles = read(file);
        let before = troubles.clone();
        let result = work(&mut troubles);
        if troubles != before {
            // If it fails, it is told once more.
            let _ = serde_json::to_vec_pretty(&troubles).map(|text| replace::durably(file, 0o600, &text));
        }
        result
    }
}

fn lock(file: &Path) -> Option<File> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(file.parent()?).ok()?;
    let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(file.with_extension("told.lock")).ok()?;
    flock(&lock, FlockOperation::LockExclusive).ok()?;
    Some(lock)
}

fn read(file: &Path) -> Troubles {
    fs::read(file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}
