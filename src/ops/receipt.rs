//! Receipts: which snapshots a store held at some time, kept outside of it, so that a store that was turned back, emptied, exchanged or
//! robbed of a snapshot is noticed.
//!
//! A store that shows an older state of itself is consistent: every seal fits, and nothing in it can tell. Only who saw the newer state
//! can. This host keeps a receipt for each repository, and a user may keep one on another machine. A snapshot that a receipt names must
//! still be listed, or a forget record must name it. (Mazières and Shasha, PODC'02, call the best
//! that can be had without a third party fork consistency.)

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::backend::Area;
use crate::error::{Error, Result, again, show};
use crate::format::record::Record;
use crate::id::{RepositoryId, SnapshotId};
use crate::replace;
use crate::repo::{Repository, Unreadable};

/// What a store held.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Receipt {
    pub repository: RepositoryId,
    /// Where it was.
    pub location: String,
    pub time: jiff::Timestamp,
    /// Collections that had ended.
    pub epoch: u64,
    pub snapshots: BTreeSet<SnapshotId>,
}

/// What speaks against a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Another repository is where the one of the receipt was.
    Exchanged { was: RepositoryId },
    /// Fewer collections have ended than before.
    TurnedBack { was: u64, is: u64 },
    /// Snapshots are gone that nobody forgot.
    Missing(Vec<SnapshotId>),
    /// It looks like one of these, but a record that may say otherwise cannot be read.
    Unread { record: String, why: String },
}

impl Doubt {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unread { .. } => "run snap check, which names what is damaged, and bring that record back from a copy of the repository",
            _ => "find out what happened to the store; if that is right, remove that file",
        }
    }
}

impl std::fmt::Display for Doubt {
    fn fmt(&self, to: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::Exchanged { was } => write!(to, "Another repository is here; the one before had the id {was}"),
            Self::TurnedBack { was, is } => {
                write!(to, "The store was turned back: {was} collections had ended in it, and now only {is}")
            }
            Self::Unread { record, why } => {
                let short = record.get(..8).unwrap_or(record);
                write!(to, "Whether the store was turned back cannot be told, because record {short} cannot be read: {why}")
            }
            Self::Missing(ids) => {
                let shown: Vec<String> = ids.iter().take(8).map(SnapshotId::short).collect();
                let more = if ids.len() > shown.len() { ", ..." } else { "" };
                write!(to, "{} that nobody forgot, gone from the store: {}{more}", count(ids.len()), shown.join(", "))
            }
        }
    }
}

fn absolute(location: &str) -> String {
    std::path::absolute(location).map_or_else(|_| location.to_owned(), |path| path.to_string_lossy().into_owned())
}

fn count(snapshots: usize) -> String {
    if snapshots == 1 { "1 snapshot".into() } else { format!("{snapshots} snapshots") }
}

impl Receipt {
    /// What the store holds now.
    pub fn of(repository: &Repository) -> Result<Self> {
        Ok(Self::with_records(repository)?.0)
    }

    /// And what was forgotten on purpose, and a record that cannot be read, if there is one.
    fn with_records(repository: &Repository) -> Result<(Self, BTreeSet<SnapshotId>, Option<Unreadable>)> {
        // Records after snapshots: what is forgotten meanwhile is on record before it goes.
        let listed = repository.backend().list_names(Area::Snapshots)?;
        let snapshots = listed.into_iter().filter_map(|name| name.parse().ok()).collect();
        let mut forgotten = BTreeSet::new();
        let mut epoch = 0;
        let (records, unreadable) = repository.records_by_name()?;
        for (_, record) in records {
            match record {
                Record::Epoch(ended) => epoch = epoch.max(ended.epoch),
                Record::Forget { snapshots, .. } => forgotten.extend(snapshots),
                Record::Condemned { .. } => {}
            }
        }
        let location = absolute(&repository.location());
        Ok((
            Self { repository: repository.id(), location, time: repository.world().now(), epoch, snapshots },
            forgotten,
            unreadable.into_iter().next(),
        ))
    }

    /// Compares with what the store holds now. Returns what speaks against it, and the receipt to be kept from now on: what is missing
    /// stays in it, so that it is said until somebody removes the receipt.
    pub fn compare(&self, repository: &Repository) -> Result<(Vec<Doubt>, Self)> {
        let (mut now, forgotten, unreadable) = Self::with_records(repository)?;
        if self.repository != now.repository {
            return Ok((vec![Doubt::Exchanged { was: self.repository }], self.clone()));
        }
        let mut doubts = Vec::new();
        if now.epoch < self.epoch {
            doubts.push(Doubt::TurnedBack { was: self.epoch, is: now.epoch });
            now.epoch = self.epoch;
        }
        let missing: Vec<SnapshotId> = self.snapshots.difference(&now.snapshots).filter(|id| !forgotten.contains(id)).copied().collect();
        if !missing.is_empty() {
            now.snapshots.extend(&missing);
            doubts.push(Doubt::Missing(missing));
        }
        // What cannot be read may say that all is well.
        if let (false, Some((record, error))) = (doubts.is_empty(), unreadable) {
            doubts = vec![Doubt::Unread { record, why: error.to_string() }];
        }
        Ok((doubts, now))
    }

    /// Reads a receipt; nothing if there is no such file.
    pub fn load(path: &Path) -> Result<Option<Self>> {
        let text = match std::fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            result => result.map_err(|error| Error::file("read", path, error))?,
        };
        let receipt = serde_json::from_slice(&text);
        receipt.map(Some).map_err(|error| Error::Usage(format!("{} is not a receipt of snap: {error}", show(path))))
    }

    /// Writes it, as a whole or not at all.
    pub fn save(&self, path: &Path) -> Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let failed = |error| Error::file("write", path, error);
        again(|| std::fs::create_dir_all(folder)).map_err(failed)?;
        let mut text = serde_json::to_vec_pretty(self).expect("a receipt is plain JSON");
        text.push(b'\n');
        replace::durably(path, 0o666, &text).map_err(failed)
    }
}

/// The receipts that one host keeps, a file for each repository.
pub struct Receipts {
    folder: PathBuf,
}

impl Receipts {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where the receipt of a repository is.
    pub fn file(&self, repository: RepositoryId) -> PathBuf {
        self.folder.join(format!("{repository}.json"))
    }

    /// Compares a repository with what this host saw of it, and of whatever was at its place before. Returns what speaks against it, each
    /// with the file that says so.
    pub fn compare(&self, repository: &Repository) -> Result<Vec<(Doubt, PathBuf)>> {
        let own = self.file(repository.id());
        let mut doubts = Vec::new();
        match Receipt::load(&own)? {
            Some(receipt) => {
                let (found, _) = receipt.compare(repository)?;
                doubts.extend(found.into_iter().map(|doubt| (doubt, own.clone())));
            }
            None => doubts.extend(self.exchanged(repository)),
        }
        Ok(doubts)
    }

    /// Fails if anything speaks against a repository: for who removes something.
    pub fn require(&self, repository: &Repository) -> Result<()> {
        match self.compare(repository)?.into_iter().next() {
            None => Ok(()),
            Some((doubt, file)) => Err(Error::Refused { why: format!("{doubt} (as {} says)", show(&file)), hint: doubt.hint() }),
        }
    }

    /// A receipt of another repository at the same place, where there is none of this one.
    fn exchanged(&self, repository: &Repository) -> Option<(Doubt, PathBuf)> {
        let location = absolute(&repository.location());
        let files = std::fs::read_dir(&self.folder).ok()?.flatten().map(|entry| entry.path());
        let receipts = files.filter_map(|path| Some((Receipt::load(&path).ok()??, path)));
        let was = receipts.filter(|(receipt, _)| receipt.location == location && receipt.repository != repository.id());
        was.map(|(receipt, path)| (Doubt::Exchanged { was: receipt.repository }, path)).next()
    }

    /// Notes what a repository holds now; what is missing stays noted.
    pub fn note(&self, repository: &Repository) -> Result<()> {
        let path = self.file(repository.id());
        let receipt = match Receipt::load(&path)? {
            Some(receipt) => receipt.compare(repository)?.1,
            None => Receipt::of(repository)?,
        };
        receipt.save(&path)
    }
}
