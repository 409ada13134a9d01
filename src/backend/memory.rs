//! A store in memory, for tests and simulations. Clones share what it holds.
//!
//! Its state can be taken and put back (a crash, a cloned machine, a rollback), and its files damaged behind the back of
//! whoever uses it. Cheap to copy: files are shared until one is edited.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{ASIDE_FOLDER, Area, Backend, Listed, Place, Result, name_aside};
use crate::error::{StorageError, StorageErrorKind};

/// A store in memory.
#[derive(Clone, Default)]
pub struct Memory {
    state: Arc<Mutex<MemoryState>>,
}

/// Everything a store in memory holds at one moment.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct MemoryState {
    has_areas: bool,
    files: BTreeMap<Place, Arc<Vec<u8>>>,
    aside: BTreeMap<String, Arc<Vec<u8>>>,
}

impl Memory {
    /// A store without areas yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What it holds now.
    pub fn snapshot(&self) -> MemoryState {
        self.state().clone()
    }

    /// Makes it hold what it held then.
    pub fn restore(&self, state: MemoryState) {
        *self.state() = state;
    }

    /// Changes the bytes of a file, which must be there.
    pub fn edit(&self, place: &Place, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let bytes = state.files.get_mut(place).unwrap_or_else(|| panic!("no {place} to edit"));
        change(Arc::make_mut(bytes));
    }

    /// Takes a file away and returns its bytes.
    pub fn remove(&self, place: &Place) -> Option<Vec<u8>> {
        self.state().files.remove(place).map(Arc::unwrap_or_clone)
    }

    /// Puts a file there whatever it held before.
    pub fn insert(&self, place: Place, bytes: Vec<u8>) {
        self.state().files.insert(place, Arc::new(bytes));
    }

    /// The files that were set aside, by the names they have there.
    pub fn aside(&self) -> BTreeMap<String, Vec<u8>> {
        self.state().aside.iter().map(|(name, bytes)| (name.clone(), bytes.to_vec())).collect()
    }

    /// The name of every file, sorted.
    pub fn places(&self) -> Vec<Place> {
        self.state().files.keys().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, MemoryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, place: &Place) -> Result<Arc<Vec<u8>>> {
        self.state().files.get(place).cloned().ok_or_else(|| error(StorageErrorKind::NotFound, "read", place, "there is none"))
    }
}

impl Backend for Memory {
    fn put(&self, place: &Place, bytes: &[u8]) -> Result<()> {
        assert!(place.area.holds(&place.name), "{place:?} is no name of a stored file");
        let mut state = self.state();
        if !state.has_areas {
            return Err(error(StorageErrorKind::Other, "write", place, "its folder is missing"));
        }
        if state.files.contains_key(place) {
            return Err(error(StorageErrorKind::Exists, "write", place, "there is one already"));
        }
        state.files.insert(place.clone(), Arc::new(bytes.to_vec()));
        Ok(())
    }

    fn get(&self, place: &Place, bytes_max: u64) -> Result<Vec<u8>> {
        let bytes = self.file(place)?;
        if bytes.len() as u64 > bytes_max {
            let why = format!("it has {} bytes, which is larger than the {bytes_max} allowed", bytes.len());
            return Err(error(StorageErrorKind::Other, "read", place, &why));
        }
        Ok(bytes.to_vec())
    }

    fn read_at(&self, place: &Place, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let bytes = self.file(place)?;
        let range = usize::try_from(offset).ok().and_then(|start| Some(start..start.checked_add(buffer.len())?));
        match range.and_then(|range| bytes.get(range)) {
            Some(found) => {
                buffer.copy_from_slice(found);
                Ok(())
            }
            None => Err(error(StorageErrorKind::Short, "read", place, "it ends before the range does")),
        }
    }

    fn list(&self, area: Area) -> Result<Vec<Listed>> {
        let state = self.state();
        if !state.has_areas {
            return Err(error(StorageErrorKind::NotFound, "list", format!("folder {}", area.folder()), "there is none"));
        }
        let files = state.files.range(Place { area, name: String::new() }..).take_while(|(place, _)| place.area == area);
        Ok(files.map(|(place, bytes)| Listed { name: place.name.clone(), size: bytes.len() as u64 }).collect())
    }

    fn delete(&self, place: &Place) -> Result<()> {
        match self.state().files.remove(place) {
            Some(_) => Ok(()),
            None => Err(error(StorageErrorKind::NotFound, "delete", place, "there is none")),
        }
    }

    fn set_aside(&self, place: &Place) -> Result<String> {
        let mut state = self.state();
        let Some(bytes) = state.files.remove(place) else {
            return Err(error(StorageErrorKind::NotFound, "set aside", place, "there is none"));
        };
        let name = (0..).map(|number| name_aside(place, number)).find(|name| !state.aside.contains_key(name));
        let name = name.expect("numbers do not end");
        state.aside.insert(name.clone(), bytes);
        Ok(format!("{ASIDE_FOLDER}/{name}"))
    }

    fn settle(&self, _area: Area) -> Result<()> {
        Ok(())
    }

    fn location(&self) -> String {
        "memory".into()
    }

    fn create_areas(&self) -> Result<()> {
        let mut state = self.state();
        match state.files.keys().find(|place| !matches!(place.area, Area::Keys | Area::KeyNotes)) {
            Some(place) => Err(error(StorageErrorKind::Exists, "create", "a repository", &format!("it holds {place}"))),
            None => {
                state.has_areas = true;
                Ok(())
            }
        }
    }
}

fn error(kind: StorageErrorKind, action: &'static str, object: impl ToString, why: &str) -> StorageError {
    StorageError { kind, action, object: object.to_string(), location: "memory".into(), source: io::Error::other(why.to_owned()) }
}
