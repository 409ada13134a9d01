//! Key slots: adding, removing, changing. At every moment at least one known secret opens the repository.
//!
//! A new slot is durable and proven before an old one goes. The last sound slot is never removed, and the one that opened the
//! repository only where another is proven or the user insists. After a removal the slot that was to stay is looked at again, and put
//! back if another host has removed it meanwhile.

use crate::crypto::{Secret, open_slot};
use crate::error::{Error, Result, StorageErrorKind};
use crate::format::slot::SlotNote;
use crate::id::SlotId;
use crate::limits::*;
use crate::repo::{KeySlot, Repository};

/// What is said of a new slot.
#[derive(Clone, Debug, Default)]
pub struct Describe {
    /// By default what `by` says, or for a changed secret the label of the old slot.
    pub label: Option<String>,
    /// Who makes it and where, as `user@host`.
    pub by: String,
}

/// What a change of the secret did.
#[derive(Debug)]
pub struct ChangeReport {
    pub added: SlotId,
    pub removed: Vec<String>,
    /// Slots that the old secret still opens, and why they could not be removed.
    pub left: Vec<(String, Error)>,
}

/// Whether the slot that opened the repository may go although no other is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Current {
    Keep,
    Remove,
}

/// Adds a slot for a secret.
pub fn add(repository: &Repository, secret: &Secret, describe: &Describe) -> Result<SlotId> {
    repository.add_slot(secret, &note(repository, describe, None))
}

/// Says of the slot a new repository was made with what it is, for those who will open it with others.
pub fn describe_first(repository: &Repository) -> Result<()> {
    match repository.opened_by() {
        Some((id, note)) => repository.add_note(*id, note),
        None => Ok(()),
    }
}

/// Removes the slot whose id begins with `prefix` and returns its name.
pub fn remove(repository: &Repository, prefix: &str, current: Current) -> Result<String> {
    let slots = repository.key_slots()?;
    let target = find(&slots, prefix)?;
    if let Err(Error::Unsupported { what, why }) = &target.slot {
        return Err(Error::Unsupported { what: what.clone(), why: why.clone() });
    }
    let short = &target.name[..8];
    let others = slots.iter().filter(|slot| slot.name != target.name && slot.is_sound(repository.id())).count();
    if others == 0 {
        let why = "is the last one that can be expected to open this repository; add another first, with snap key add";
        return Err(Error::Usage(format!("Key slot {short} {why}")));
    }
    if target.is_current && current == Current::Keep {
        let why = "is the one that opened the repository just now; open it with another password or key file and remove this one then, \
                   which proves that the other one works, or say --force";
        return Err(Error::Usage(format!("Key slot {short} {why}")));
    }
    take(repository, &slots, target)?;
    Ok(target.name.clone())
}

/// Puts `new` in the place of `old`, the secret that opened the repository: first the new slot, then away with all that the old opens.
pub fn change(repository: &Repository, old: &Secret, new: &Secret, describe: &Describe) -> Result<ChangeReport> {
    let Some((_, opened)) = repository.opened_by() else {
        return Err(Error::Usage("The repository was opened with recovery words, not with a secret to change; use snap key add".into()));
    };
    if old == new {
        return Err(Error::Usage("The new password or key file is the same as the old one".into()));
    }
    let added = repository.add_slot(new, &note(repository, describe, Some(opened)))?;
    let mut report = ChangeReport { added, removed: Vec::new(), left: Vec::new() };
    for slot in repository.key_slots()? {
        let is_old = slot.is_current || slot.name != added.hex() && opens(&slot, repository, old);
        if is_old {
            match repository.remove_slot(&slot.name) {
                Ok(()) => report.removed.push(slot.name),
                Err(error) => report.left.push((slot.name, error)),
            }
        }
    }
    Ok(report)
}

fn note(repository: &Repository, describe: &Describe, older: Option<&SlotNote>) -> SlotNote {
    let label = describe.label.clone().or_else(|| older.map(|note| note.label.clone())).unwrap_or_else(|| describe.by.clone());
    SlotNote { label, created: repository.world().now(), by: describe.by.clone() }
}

/// The one slot whose name begins so.
fn find<'s>(slots: &'s [KeySlot], prefix: &str) -> Result<&'s KeySlot> {
    let fitting: Vec<&KeySlot> = slots.iter().filter(|slot| !prefix.is_empty() && slot.name.starts_with(prefix)).collect();
    match fitting[..] {
        [slot] => Ok(slot),
        [] => Err(Error::NotFound(format!("No key slot has an id that begins with {prefix}; snap key list shows all"))),
        _ => Err(Error::NotFound(format!("{} key slots have an id that begins with {prefix}; write more digits", fitting.len()))),
    }
}

/// A slot that does not open, for whatever reason, is not one to remove.
fn opens(slot: &KeySlot, repository: &Repository, secret: &Secret) -> bool {
    let own = slot.slot.as_ref().ok().filter(|own| own.repository == repository.id());
    own.is_some_and(|own| matches!(open_slot(own, secret), Ok(Some(_))))
}

/// Removes a slot, with an eye on the one that is to stay.
fn take(repository: &Repository, slots: &[KeySlot], target: &KeySlot) -> Result<()> {
    let backend = repository.backend();
    // Without the current one to stay, the removed one itself is what can be put back.
    let keeper = slots.iter().find(|slot| slot.is_current && slot.name != target.name);
    let saved = keeper.unwrap_or(target);
    let bytes = match backend.get(&saved.place(), RECORD_BYTES_MAX) {
        Ok(bytes) => Some(bytes),
        Err(error) if keeper.is_some() && error.kind == StorageErrorKind::NotFound => return Err(gone(saved, "nothing was removed")),
        Err(error) if keeper.is_some() => return Err(error.into()),
        // What cannot be read need not be put back.
        Err(_) => None,
    };
    repository.remove_slot(&target.name)?;
    let stays = |slot: &KeySlot| match keeper {
        Some(keeper) => slot.name == keeper.name,
        None => slot.is_sound(repository.id()),
    };
    if repository.key_slots()?.iter().any(stays) {
        return Ok(());
    }
    if let Some(bytes) = bytes {
        backend.put(&saved.place(), &bytes)?;
    }
    Err(gone(saved, "it was put back"))
}

fn gone(slot: &KeySlot, what: &str) -> Error {
    Error::Conflict(format!("Another host removed key slots at the same time, and {} would have been lost; {what}", &slot.name[..8]))
}
