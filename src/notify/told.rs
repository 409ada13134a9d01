//! What was told, so that nobody hears the same every five minutes: a small file in this host's state for each configuration.
//!
//! It is noted when somebody was reached, and not before: a program that ends between the two tells it once more, which is better than
//! not at all. For the same reason a file that cannot be read counts as empty, and one that cannot be written is no obstacle. Several
//! processes use it at once (a run, a cron job), so it is read and written under a lock; if two find the same trouble, both may tell it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
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

/// What is to be noted when somebody was told.
pub enum Note {
    /// Trouble, in this way, and in these words.
    Trouble { key: Key, way: String, message: String },
    /// It is over.
    Over(Key),
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

    /// Whether trouble was told so lately that it need not be told again.
    pub fn is_told(&self, key: &Key, way: &str, now: Timestamp, repeat: Duration) -> bool {
        // A nightly job that fails a little earlier than yesterday is told nevertheless.
        let repeat = repeat.mul_f64(0.875).as_secs_f64();
        let told = self.find(key).and_then(|trouble| trouble.told.get(way).copied());
        // A clock that was set back would be silent for long.
        told.map(|told| now.duration_since(told)).is_some_and(|passed| !passed.is_negative() && passed.as_secs_f64() < repeat)
    }

    /// Trouble that somebody was told of and that is not over.
    pub fn find(&self, key: &Key) -> Option<Trouble> {
        self.change(|troubles| troubles.get(&key.0).cloned())
    }

    /// All of these kinds.
    pub fn all(&self, beginning: &str) -> Vec<(Key, Trouble)> {
        let own = |troubles: &mut Troubles| {
            let own = troubles.iter().filter(|(key, _)| key.starts_with(beginning));
            own.map(|(key, trouble)| (Key(key.clone()), trouble.clone())).collect()
        };
        self.change(own)
    }

    /// Notes what was told now.
    pub fn note(&self, notes: Vec<Note>, now: Timestamp) {
        self.change(|troubles| {
            for note in notes {
                match note {
                    Note::Trouble { key, way, message } => {
                        let fresh = || Trouble { since: now, told: BTreeMap::new(), message };
                        troubles.entry(key.0).or_insert_with(fresh).told.insert(way, now);
                    }
                    Note::Over(key) => drop(troubles.remove(&key.0)),
                }
            }
        });
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
    replace::make_folder(file.parent()?).ok()?;
    let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(file.with_extension("told.lock")).ok()?;
    flock(&lock, FlockOperation::LockExclusive).ok()?;
    Some(lock)
}

fn read(file: &Path) -> Troubles {
    fs::read(file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}
