//! Stores: a place where a repository's files lie. One small trait that suits a folder and an object store alike.
//!
//! A file is created whole or not at all, is durable when `put` returns, and is never overwritten. Stores know nothing of
//! snapshots, keys or formats. Counting and faults are wrappers over any store.

#[cfg(test)]
mod conformance;
mod count;
mod fault;
mod local;
mod memory;

use std::fmt;
use std::time::Duration;

pub use count::{Calls, Counting};
pub use fault::{Call, Fault, Faulty, Operation};
pub use local::Local;
pub use memory::{Memory, MemoryState};

use crate::error::StorageError;
use crate::id::{ObjectName, SlotId};

/// What the calls on a store return.
pub type Result<T> = std::result::Result<T, StorageError>;

/// A folder of the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Area {
    /// Holds the one file `manifest`.
    Top,
    Keys,
    Packs,
    Segments,
    Snapshots,
    Records,
    /// What is said of key slots; in the same folder as these.
    KeyNotes,
    /// What was done and how it went; in the same folder as records.
    Reports,
}

impl Area {
    pub const ALL: [Self; 8] =
        [Self::Top, Self::Keys, Self::Packs, Self::Segments, Self::Snapshots, Self::Records, Self::KeyNotes, Self::Reports];

    /// The folder's name; empty for the top.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Top => "",
            Self::Keys | Self::KeyNotes => "keys",
            Self::Packs => "packs",
            Self::Segments => "index",
            Self::Snapshots => "snapshots",
            Self::Records | Self::Reports => "records",
        }
    }

    /// What one file in it is called in messages.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Top => "file",
            Self::Keys => "key slot",
            Self::Packs => "pack",
            Self::Segments => "index segment",
            Self::Snapshots => "snapshot",
            Self::Records => "record",
            Self::KeyNotes => "note on key slot",
            Self::Reports => "report",
        }
    }

    /// Whether this is a name that a `Place` constructor makes here. Listings show no other.
    pub fn holds(self, name: &str) -> bool {
        let hex = |name: &str, len: usize| name.len() == len && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match self {
            Self::Top => name == "manifest",
            Self::Keys => hex(name, SlotId::LEN * 2),
            Self::KeyNotes => name.strip_suffix(NOTE_SUFFIX).is_some_and(|slot| hex(slot, SlotId::LEN * 2)),
            Self::Reports => name.strip_suffix(REPORT_SUFFIX).is_some_and(|object| hex(object, ObjectName::LEN * 2)),
            _ => hex(name, ObjectName::LEN * 2),
        }
    }
}

/// What the name of the note on a key slot has behind the slot's own.
const NOTE_SUFFIX: &str = ".note";
/// What the name of a report has behind the hash of its bytes.
const REPORT_SUFFIX: &str = ".report";

/// The name of one file of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub area: Area,
    pub name: String,
}

impl Place {
    pub fn manifest() -> Self {
        Self { area: Area::Top, name: "manifest".into() }
    }

    pub fn key(id: SlotId) -> Self {
        Self { area: Area::Keys, name: id.hex() }
    }

    /// The note on the key slot stored under this name.
    pub fn key_note(slot: &str) -> Self {
        Self { area: Area::KeyNotes, name: format!("{slot}{NOTE_SUFFIX}") }
    }

    pub fn pack(name: ObjectName) -> Self {
        Self { area: Area::Packs, name: name.hex() }
    }

    pub fn segment(name: ObjectName) -> Self {
        Self { area: Area::Segments, name: name.hex() }
    }

    pub fn snapshot(name: ObjectName) -> Self {
        Self { area: Area::Snapshots, name: name.hex() }
    }

    pub fn record(name: ObjectName) -> Self {
        Self { area: Area::Records, name: name.hex() }
    }

    pub fn report(name: ObjectName) -> Self {
        Self { area: Area::Reports, name: format!("{}{REPORT_SUFFIX}", name.hex()) }
    }

    /// The hash an object is named by; nothing for the manifest, key slots and notes on these, which have other names.
    pub fn hash(&self) -> Option<ObjectName> {
        match self.area {
            Area::Top | Area::Keys | Area::KeyNotes => None,
            Area::Reports => self.name.strip_suffix(REPORT_SUFFIX)?.parse().ok(),
            _ => self.name.parse().ok(),
        }
    }

    /// Path below the repository, with `/`. Packs are spread over 256 folders by the first two digits of their name.
    pub fn path(&self) -> String {
        match self.area {
            Area::Top => self.name.clone(),
            Area::Packs => format!("packs/{}/{}", &self.name.get(..2).unwrap_or("00"), self.name),
            area => format!("{}/{}", area.folder(), self.name),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.area {
            Area::Top => write!(f, "{}", self.name),
            area => write!(f, "{} {}", area.noun(), self.name),
        }
    }
}

/// The folder of what was set aside. It is not part of the repository: nothing in it is ever read.
const ASIDE_FOLDER: &str = "aside";

/// The name of a file that is set aside; `number` tells apart files that had one name after another.
fn name_aside(place: &Place, number: u32) -> String {
    let noun = place.area.noun().replace(' ', "-");
    match number {
        0 => format!("{noun}-{}", place.name),
        number => format!("{noun}-{}.{number}", place.name),
    }
}

/// A file in a listing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    pub name: String,
    /// Stored bytes.
    pub size: u64,
}

/// What a write that was cut short left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    pub name: String,
    /// Stored bytes.
    pub size: u64,
    /// Since it was last written to, by the store's own clock; zero where that cannot be told.
    pub age: Duration,
}

/// A store.
pub trait Backend: Send + Sync {
    /// Creates a file with these bytes: durable, whole or not at all. `Exists` if there is one of that name, which is then
    /// as durable as if this call had made it. After any other error the file may be there nevertheless, but whole.
    fn put(&self, place: &Place, bytes: &[u8]) -> Result<()>;

    /// All bytes of a file of at most `bytes_max`.
    fn get(&self, place: &Place, bytes_max: u64) -> Result<Vec<u8>>;

    /// Fills `buffer` with the bytes from `offset` on, or fails with `Short`.
    fn read_at(&self, place: &Place, offset: u64, buffer: &mut [u8]) -> Result<()>;

    /// Every file in an area, in no order. An area that does not exist is an error, not an empty list.
    /// Temporary and foreign files (names that no `Place` constructor makes) are left out.
    fn list(&self, area: Area) -> Result<Vec<Listed>>;

    /// The names of what `list` shows, for areas of many small files: some stores have them sooner than the sizes.
    fn list_names(&self, area: Area) -> Result<Vec<String>> {
        Ok(self.list(area)?.into_iter().map(|listed| listed.name).collect())
    }

    /// Removes a file.
    fn delete(&self, place: &Place) -> Result<()>;

    /// Takes a file out of its area and keeps it, whatever its bytes are: it lies in `aside/` from then on, under a name that says what
    /// it was. Returns the path it has there. At any moment the file is in one of both places.
    fn set_aside(&self, place: &Place) -> Result<String>;

    /// Makes it last which files an area has, as a listing showed it: whoever put or removed one may have died before it was durable.
    fn settle(&self, area: Area) -> Result<()>;

    /// Where the store is, for people.
    fn location(&self) -> String;

    /// Makes the areas of a new repository. Fails with `Exists` where anything else is in the way; areas and key slots
    /// that an `init` cut short left behind are not.
    fn create_areas(&self) -> Result<()>;

    /// Asks that the next read of a file comes from the medium and not from a cache of this machine.
    fn forget_cached(&self, _place: &Place) {}

    /// Temporary files: of writes that were cut short, and of those that are under way.
    fn leftovers(&self) -> Result<Vec<Leftover>> {
        Ok(Vec::new())
    }

    /// Removes a temporary file. A write that is under way with it fails, and leaves nothing else.
    fn remove_leftover(&self, _name: &str) -> Result<()> {
        Ok(())
    }
}

macro_rules! forward_to_inner {
    ($($pointer:ty),*) => {$(
        impl<B: Backend + ?Sized> Backend for $pointer {
            fn put(&self, place: &Place, bytes: &[u8]) -> Result<()> {
                (**self).put(place, bytes)
            }

            fn get(&self, place: &Place, bytes_max: u64) -> Result<Vec<u8>> {
                (**self).get(place, bytes_max)
            }

            fn read_at(&self, place: &Place, offset: u64, buffer: &mut [u8]) -> Result<()> {
                (**self).read_at(place, offset, buffer)
            }

            fn list(&self, area: Area) -> Result<Vec<Listed>> {
                (**self).list(area)
            }

            fn list_names(&self, area: Area) -> Result<Vec<String>> {
                (**self).list_names(area)
            }

            fn delete(&self, place: &Place) -> Result<()> {
                (**self).delete(place)
            }

            fn set_aside(&self, place: &Place) -> Result<String> {
                (**self).set_aside(place)
            }

            fn settle(&self, area: Area) -> Result<()> {
                (**self).settle(area)
            }

            fn location(&self) -> String {
                (**self).location()
            }

            fn create_areas(&self) -> Result<()> {
                (**self).create_areas()
            }

            fn forget_cached(&self, place: &Place) {
                (**self).forget_cached(place);
            }

            fn leftovers(&self) -> Result<Vec<Leftover>> {
                (**self).leftovers()
            }

            fn remove_leftover(&self, name: &str) -> Result<()> {
                (**self).remove_leftover(name)
            }
        }
    )*};
}

// So that wrappers nest and stores can be shared.
forward_to_inner!(std::sync::Arc<B>, Box<B>);
