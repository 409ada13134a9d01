//! Repair: what can be read is brought together again; what cannot is set aside and named.
//!
//! Three steps, each of use alone and in this order: the index from the packs, the packs from all copies of their chunks, and
//! last the snapshots, from which only what is beyond help is cut. Repair adds and sets aside and never deletes: nothing that
//! could be restored before cannot be restored after. New objects are durable and read back before old ones are moved, so a
//! repair that is cut short at any moment can be run again.

mod files;
mod index;
mod packs;
mod patient;
mod rivals;
mod snapshots;

pub use index::{IndexReport, repair_index};
pub use packs::{PacksOptions, PacksReport, Treated, repair_packs};
pub use snapshots::{Cut, SnapshotsOptions, SnapshotsReport, repair_snapshots};

use crate::backend::Place;
use crate::error::{Error, Result, StorageErrorKind};
use crate::progress::{Problem, Progress};
use crate::repo::Repository;

/// An object that was taken out of the repository and kept.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SetAside {
    pub object: String,
    pub problem: String,
    /// Where it is now, below the repository; none in a dry run.
    pub path: Option<String>,
}

/// Does a repair only look?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Say what would be done.
    Look,
    #[default]
    Act,
}

/// Takes an object out of the repository. One that is gone meanwhile, or was moved by another run, is fine.
fn set_aside(repository: &Repository, place: &Place, problem: String, mode: Mode) -> Result<SetAside> {
    let path = match mode {
        Mode::Look => None,
        Mode::Act => match repository.backend().set_aside(place) {
            Ok(path) => Some(path),
            Err(error) if error.kind == StorageErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        },
    };
    Ok(SetAside { object: place.to_string(), problem, path })
}

/// What became of reading an object twice: a read that goes wrong once is no damage.
enum Verdict<T> {
    Sound(T),
    /// Its bytes are wrong.
    Damaged(String),
    /// There is none.
    Gone,
    /// Of a newer version: not ours to judge.
    Newer(String),
}

/// Reads an object, and once more from the medium before it is called damaged. A store that fails is an error: what it holds may
/// be sound.
fn judge<T>(repository: &Repository, place: &Place, read: impl Fn() -> Result<T>) -> Result<Verdict<T>> {
    let again = || {
        repository.backend().forget_cached(place);
        read()
    };
    match read().or_else(|error| if matches!(error, Error::Unsupported { .. }) { Err(error) } else { again() }) {
        Ok(value) => Ok(Verdict::Sound(value)),
        Err(Error::Damaged { why, .. }) => Ok(Verdict::Damaged(why)),
        Err(Error::Unsupported { why, .. }) => Ok(Verdict::Newer(why)),
        Err(Error::Storage(error)) if error.kind == StorageErrorKind::NotFound => Ok(Verdict::Gone),
        Err(Error::Storage(error)) if error.kind == StorageErrorKind::Short => Ok(Verdict::Damaged(error.source.to_string())),
        Err(error) => Err(error),
    }
}

/// Stops before something is taken away for what could not be found, if there is a place that could not be looked at.
fn all_was_looked_at(repository: &Repository) -> Result<()> {
    let Some(error) = repository.locator()?.passed_over() else { return Ok(()) };
    let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(" ({cause})"));
    let why = format!("{error}{cause}, and what is missed may be there");
    Err(Error::Refused { why, hint: "run the repair again; if that fails too, copy the repository to a sound disk and repair it there" })
}

fn tell(progress: &dyn Progress, object: impl ToString, problem: impl ToString) {
    progress.problem(&Problem::new(object.to_string(), problem));
}
