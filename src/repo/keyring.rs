//! Key slots in the store: opening with one, listing, adding, removing.
//!
//! A slot counts as made only after it was read back from the medium and opened. The note beside it says to holders of other secrets
//! what the slot is; it is written before the slot and removed after it, so that a visible slot has its note.

use super::{Repository, objects};
use crate::backend::{Area, Backend, Place};
use crate::crypto::{Keys, MasterKey, Recovery, Secret, create_slot, open_slot};
use crate::error::{Error, Result, StorageErrorKind};
use crate::format::envelope::Kind;
use crate::format::slot::{KeyNote, Method, Slot, SlotNote};
use crate::id::{RepositoryId, SlotId};
use crate::limits::*;

/// The master key, and how it was come by.
pub(super) struct Unlocked {
    pub master: MasterKey,
    /// None for recovery words.
    pub by: Option<(SlotId, SlotNote)>,
}

/// A key slot as it lies in the store.
pub struct KeySlot {
    /// Its file name, which is its id unless somebody moved it.
    pub name: String,
    pub slot: Result<Slot>,
    /// What is said of it, if anything is known.
    pub note: Option<SlotNote>,
    /// Why the note beside it cannot be read.
    pub note_trouble: Option<Error>,
    /// The repository was opened with it now.
    pub is_current: bool,
}

impl KeySlot {
    /// Whether its secret can be expected to open this repository.
    pub fn is_sound(&self, repository: RepositoryId) -> bool {
        self.slot.as_ref().is_ok_and(|slot| slot.repository == repository && slot.id.hex() == self.name)
    }

    pub fn place(&self) -> Place {
        Place { area: Area::Keys, name: self.name.clone() }
    }
}

impl Repository {
    /// The slot that opened the repository, and what it says of itself; none after recovery words.
    pub fn opened_by(&self) -> Option<&(SlotId, SlotNote)> {
        self.opened_by.as_ref()
    }

    /// The key that everything is derived from, for recovery sheets.
    pub fn master(&self) -> &MasterKey {
        &self.master
    }

    /// The key slots that are looked at when the repository is opened, readable or not.
    pub fn slots(&self) -> Result<Vec<(String, Result<Slot>)>> {
        slots(&*self.backend)
    }

    /// Every key slot with what is said of it, in order of their names.
    pub fn key_slots(&self) -> Result<Vec<KeySlot>> {
        let noted = self.backend.list(Area::KeyNotes)?;
        let found = names(&*self.backend)?.into_iter().map(|name| {
            let slot = read(&*self.backend, &name);
            let own = self.opened_by.as_ref().filter(|(id, _)| id.hex() == name);
            let place = Place::key_note(&name);
            let note = noted.iter().any(|listed| listed.name == place.name).then(|| self.read_note(&name, &place));
            let (beside, note_trouble) = match note {
                Some(Ok(note)) => (Some(note), None),
                Some(Err(error)) => (None, Some(error)),
                None => (None, None),
            };
            let note = beside.or_else(|| own.map(|(_, note)| note.clone()));
            KeySlot { name, slot, note, note_trouble, is_current: own.is_some() }
        });
        Ok(found.collect())
    }

    fn read_note(&self, name: &str, place: &Place) -> Result<SlotNote> {
        let body = self.read_object(Kind::KeyNote, place, RECORD_BYTES_MAX)?;
        let note = KeyNote::decode(&body).map_err(|error| error.of(place))?;
        match note.slot.hex() == name {
            true => Ok(note.note),
            false => Err(Error::damaged(place, "it speaks of another key slot")),
        }
    }

    /// Makes one more slot and proves that it opens.
    pub(crate) fn add_slot(&self, secret: &Secret, note: &SlotNote) -> Result<SlotId> {
        let full = || Error::Usage(format!("There are {KEY_SLOTS_MAX} key slots, and no more can be; remove one with snap key remove"));
        if names(&*self.backend)?.len() >= KEY_SLOTS_MAX {
            return Err(full());
        }
        let slot = create_slot(&self.master, secret, self.id(), note, &self.world)?;
        self.add_note(slot.id, note)?;
        self.backend.put(&Place::key(slot.id), &slot.encode())?;
        let proven = self.prove_slot(slot.id, secret);
        // Others may have added some meanwhile, and those behind the limit are not looked at.
        let outcome = proven.and_then(|()| if names(&*self.backend)?.len() > KEY_SLOTS_MAX { Err(full()) } else { Ok(()) });
        if let Err(error) = outcome {
            self.remove_slot(&slot.id.hex())?;
            return Err(error);
        }
        Ok(slot.id)
    }

    /// Says beside a slot what it is.
    pub(crate) fn add_note(&self, slot: SlotId, note: &SlotNote) -> Result<()> {
        let body = KeyNote { slot, note: note.clone() }.encode();
        Ok(self.backend.put(&Place::key_note(&slot.hex()), &self.seal_object(Kind::KeyNote, &body)?)?)
    }

    fn prove_slot(&self, id: SlotId, secret: &Secret) -> Result<()> {
        let place = Place::key(id);
        self.backend.forget_cached(&place);
        let opened = open_slot(&read(&*self.backend, &place.name)?, secret)?;
        match opened.is_some_and(|(master, _)| master.is(&self.master)) {
            true => Ok(()),
            false => Err(Error::ReadBack(format!("Key slot {id}"))),
        }
    }

    /// Removes a slot, whatever it is; one that is gone already is fine.
    pub(crate) fn remove_slot(&self, name: &str) -> Result<()> {
        for place in [Place { area: Area::Keys, name: name.into() }, Place::key_note(name)] {
            match self.backend.delete(&place) {
                Err(error) if error.kind != StorageErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Names of all slots, in order.
fn names(backend: &dyn Backend) -> Result<Vec<String>> {
    let mut names: Vec<String> = backend.list(Area::Keys)?.into_iter().map(|listed| listed.name).collect();
    names.sort();
    Ok(names)
}

fn read(backend: &dyn Backend, name: &str) -> Result<Slot> {
    let place = Place { area: Area::Keys, name: name.into() };
    objects::confirmed(backend, &place, || {
        let bytes = backend.get(&place, RECORD_BYTES_MAX)?;
        Slot::decode(&bytes).map_err(|error| error.of(&place))
    })
}

fn slots(backend: &dyn Backend) -> Result<Vec<(String, Result<Slot>)>> {
    let mut names = names(backend)?;
    names.truncate(KEY_SLOTS_MAX);
    Ok(names
        .into_iter()
        .map(|name| {
            let slot = read(backend, &name);
            (name, slot)
        })
        .collect())
}

/// The master key: of the first slot that the secret opens, or what recovery words say.
pub(super) fn unlock(backend: &dyn Backend, repository: RepositoryId, secret: &Secret) -> Result<Unlocked> {
    if let Secret::Words(text) = secret {
        return Ok(Unlocked { master: master_of(text, repository)?, by: None });
    }
    let mut trouble = None;
    let mut tried = false;
    let mut all = slots(backend)?;
    if all.is_empty() {
        return Err(Error::damaged("the repository", "it has no key slot; restore the folder keys from a copy, or use recovery words"));
    }
    // Cheap ones first, so that slots planted to cost much are not met before the right one.
    all.sort_by_key(|(_, slot)| slot.as_ref().map_or(0, |slot| cost(&slot.method)));
    for (_, slot) in all {
        // A damaged slot must not keep the others from being tried.
        match slot {
            Ok(slot) if slot.repository == repository => match open_slot(&slot, secret) {
                Ok(Some((master, note))) => return Ok(Unlocked { master, by: Some((slot.id, note)) }),
                Ok(None) => tried |= secret.fits(&slot.method),
                Err(error) => trouble = Some(error),
            },
            Ok(slot) => trouble = Some(Error::damaged(format!("key slot {}", slot.id), "it belongs to another repository")),
            Err(error) => trouble = Some(error),
        }
    }
    // A damaged slot is worth a word only if no sound one asked for this kind of secret.
    Err(trouble.filter(|_| !tried).unwrap_or(Error::WrongKey))
}

fn cost(method: &Method) -> u64 {
    match method {
        Method::Password { memory_kib, passes, .. } => u64::from(*memory_kib) * u64::from(*passes),
        Method::KeyFile => 0,
    }
}

fn master_of(text: &[u8], repository: RepositoryId) -> Result<MasterKey> {
    let wrong = |why: &dyn std::fmt::Display| Error::WrongWords(why.to_string());
    let text = std::str::from_utf8(text).map_err(|_| wrong(&"The recovery words are not text"))?;
    let recovery = Recovery::parse(text).map_err(|error| wrong(&error))?;
    match recovery.repository {
        Some(other) if other != repository => {
            Err(wrong(&format!("The recovery words are those of repository {} and not of {}", other.short(), repository.short())))
        }
        _ => Ok(recovery.master),
    }
}

/// Why the manifest does not open with recovery words: the words are another repository's, unless they open something else here.
pub(super) fn judge_words(backend: &dyn Backend, repository: RepositoryId, keys: &Keys, damage: Error) -> Error {
    let opens = |area: Area, kind: Kind| {
        let listed = backend.list(area).unwrap_or_default();
        listed.into_iter().take(3).any(|listed| {
            let place = Place { area, name: listed.name };
            let stored = backend.get(&place, RECORD_BYTES_MAX);
            stored.is_ok_and(|stored| objects::open(keys, repository, kind, "", &stored).is_ok())
        })
    };
    match opens(Area::Snapshots, Kind::Snapshot) || opens(Area::Segments, Kind::Segment) {
        true => damage,
        false => Error::WrongWords(format!("The recovery words fit together, but are not those of repository {}", repository.short())),
    }
}
