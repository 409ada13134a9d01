//! Check: is everything there that snapshots refer to, and does every stored byte still fit its hashes?
//!
//! Goes on after the first finding, and says which snapshots, paths and byte ranges each one hurts.

use crate::backend::Backend;
use crate::error::Result;
use crate::id::SnapshotId;
use crate::progress::Progress;
use crate::repo::Repository;

/// How much of the stored data to read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum ReadData {
    /// Only structure: snapshots, catalogs, recipes, index segments, footers, sizes.
    #[default]
    None,
    All,
    /// The n-th of m parts; the parts together are everything.
    Part {
        number: u64,
        of: u64,
    },
    /// A random share of the packs, in percent.
    Percent(f64),
    /// Random packs of about so many bytes together.
    Bytes(u64),
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// The object, like `pack 3f…` or `frame 12…`.
    pub object: String,
    pub problem: String,
}

/// What a finding hurts.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Affected {
    pub snapshot: SnapshotId,
    /// Nothing if the catalog itself is hurt.
    #[serde(serialize_with = "as_text")]
    pub path: Vec<u8>,
    /// Bytes of the file that are lost: offset and length. The last may be longer than the file where lengths are lost too.
    pub ranges: Vec<(u64, u64)>,
}

fn as_text<S: serde::Serializer>(path: &[u8], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(path))
}

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    pub snapshots: u64,
    pub packs: u64,
    pub packs_read: u64,
    pub bytes_read: u64,
    pub frames: u64,
    pub findings: Vec<Finding>,
    pub affected: Vec<Affected>,
    /// Harmless oddities: packs no segment lists, leftovers.
    pub notes: Vec<String>,
    pub seconds: f64,
}

/// Checks a repository.
pub fn check(repository: &Repository, read_data: ReadData, progress: &dyn Progress) -> Result<CheckReport> {
    let _ = (repository, read_data, progress);
    todo!()
}

/// Checks every pack, segment, snapshot and record against its name, without a key.
pub fn check_keyless(backend: &dyn Backend, progress: &dyn Progress) -> Result<CheckReport> {
    let _ = (backend, progress);
    todo!()
}
