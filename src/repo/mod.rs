//! The repository: what a store of sealed objects means. Reading and writing of frames, catalogs and snapshots.
//!
//! Truth is in the store. Order on writing is packs, then index segment, then snapshot, each durable before the next.
//! Deciding what to back up, restore, check or delete is the operations' business.

mod catalog;
mod cursor;
mod entries;
mod fetch;
mod frames;
mod gather;
mod health;
mod ingest;
mod keyring;
mod leaves;
mod locate;
mod marks;
mod mover;
mod notes;
mod objects;
mod pack;
mod packer;
mod reader;
mod recall;
pub mod records;
mod reports;
mod runs;
mod salvage;
mod sealers;
mod search;
mod snapshots;
mod stages;
mod stock;
mod stream;
mod writer;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

pub use catalog::{CatalogWriter, PendingEntry, WrittenCatalog};
pub use entries::CatalogReader;
pub use fetch::{Fetched, Wanted};
pub use frames::Frame;
pub use health::Health;
pub use ingest::{Ingest, Ingested, OlderContent};
pub use keyring::KeySlot;
pub use locate::{Contents, Locator, Presence, is_not_found};
pub use marks::{Mark, Marks, Ordinals};
pub use mover::{Move, Mover};
pub use objects::stored_bytes;
pub use reader::{Bases, Reader};
pub use recall::Unreadable;
pub use records::Collections;
pub use reports::StoredReport;
pub use runs::Runs;
pub use search::Copies;
pub use snapshots::{Filter as SnapshotFilter, Selection, Stored};
#[cfg(test)]
pub(crate) use stages::{Flip, Stage};
pub use stock::Stock;
pub use stream::RecipeWriter;
pub use writer::{Cost, Reliance, Writer, WriterOptions};

use keyring::Unlocked;

use crate::backend::{Backend, Place};
use crate::chunking::Cutter;
use crate::crypto::{Keys, MasterKey, Sealer, Secret, create_slot};
use crate::error::{Error, Result, StorageErrorKind};
use crate::format::envelope::Kind;
use crate::format::manifest::{ChunkerParameters, Manifest};
use crate::format::record::Record;
use crate::format::slot::SlotNote;
use crate::id::{ObjectName, RepositoryId, SlotId};
use crate::index::{Scope, Shelter};
use crate::limits::*;
use crate::world::World;

/// An open repository.
pub struct Repository {
    backend: Arc<dyn Backend>,
    master: MasterKey,
    opened_by: Option<(SlotId, SlotNote)>,
    keys: Arc<Keys>,
    manifest: Manifest,
    /// For those who write.
    cutter: OnceLock<Arc<Cutter>>,
    world: Arc<World>,
    cache: Option<PathBuf>,
    locator: OnceLock<Arc<Locator>>,
    /// Records that were read well.
    recalled: Mutex<HashMap<ObjectName, Record>>,
    reader: OnceLock<Arc<Reader>>,
}

/// What opening needs besides the store.
pub struct Opening {
    pub secret: Secret,
    /// Folder for this host's index; without one it lasts no longer than this process.
    pub cache: Option<PathBuf>,
    pub world: World,
}

impl Repository {
    /// Makes a new repository in an empty place: areas, key slot, then the manifest, which makes it one.
    pub fn create(backend: Arc<dyn Backend>, opening: Opening, label: &str) -> Result<Self> {
        Self::create_cut(backend, opening, label, ChunkerParameters::default())
    }

    /// The same with chunks of other sizes than usual.
    pub fn create_cut(backend: Arc<dyn Backend>, opening: Opening, label: &str, chunker: ChunkerParameters) -> Result<Self> {
        let location = backend.location();
        if backend.get(&Place::manifest(), RECORD_BYTES_MAX).is_ok() {
            return Err(Error::AlreadyThere { location, what: "a repository" });
        }
        backend.create_areas()?;
        let world = Arc::new(opening.world);
        let id = RepositoryId(world.random());
        let master = MasterKey::new(world.random());
        let note = SlotNote { label: label.into(), created: world.now(), ..SlotNote::default() };
        let slot = create_slot(&master, &opening.secret, id, &note, &world)?;
        backend.put(&Place::key(slot.id), &slot.encode())?;
        let unlocked = Unlocked { master, by: Some((slot.id, note)) };
        let keys = Arc::new(Keys::derive(&unlocked.master));
        let created = world.now();
        let manifest = Manifest { version: FORMAT_VERSION, repository: id, created, chunker, features: Vec::new() };
        let body = manifest.encode();
        // No other sizes than whoever opens it takes.
        Manifest::decode(&body).map_err(|error| error.of("manifest"))?;
        let entropy = world.clone();
        let sealer = Sealer::new(keys.clone(), Kind::Manifest, id, Arc::new(move || entropy.random()));
        backend.put(&Place::manifest(), &objects::seal(&sealer, &body)?)?;
        Ok(Self::assemble(backend, Opened { unlocked, keys, manifest }, world, opening.cache))
    }

    /// Opens a repository with a password, a key file, or recovery words.
    pub fn open(backend: Arc<dyn Backend>, opening: Opening) -> Result<Self> {
        let sealed = stored_manifest(&*backend)?;
        let opened = open_manifest(&*backend, &opening.secret, &sealed).or_else(|error| {
            // Perhaps it was only the way here: whatever is said of it is said of what the medium holds.
            backend.forget_cached(&Place::manifest());
            match stored_manifest(&*backend) {
                Ok(again) if again != sealed => open_manifest(&*backend, &opening.secret, &again),
                _ => Err(error),
            }
        });
        Ok(Self::assemble(backend, opened?, Arc::new(opening.world), opening.cache))
    }

    fn assemble(backend: Arc<dyn Backend>, opened: Opened, world: Arc<World>, cache: Option<PathBuf>) -> Self {
        let Opened { unlocked: Unlocked { master, by: opened_by }, keys, manifest } = opened;
        let (cutter, locator, reader, recalled) = Default::default();
        Self { backend, master, opened_by, keys, manifest, cutter, world, cache, locator, recalled, reader }
    }

    pub fn id(&self) -> RepositoryId {
        self.manifest.repository
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    pub fn location(&self) -> String {
        self.backend.location()
    }

    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    fn cutter(&self) -> &Arc<Cutter> {
        self.cutter.get_or_init(|| Arc::new(Cutter::new(&self.manifest.chunker, self.keys.gear_table())))
    }

    /// A sealer for objects of one kind, with a salt of its own.
    pub(crate) fn sealer(&self, kind: Kind) -> Sealer {
        let world = self.world.clone();
        Sealer::new(self.keys.clone(), kind, self.id(), Arc::new(move || world.random()))
    }

    /// Seals and opens again: an object as it is to be stored.
    pub(crate) fn seal_object(&self, kind: Kind, body: &[u8]) -> Result<Vec<u8>> {
        objects::seal(&self.sealer(kind), body)
    }

    /// Reads and opens an object of one sealed box.
    pub fn read_object(&self, kind: Kind, place: &Place, bytes_max: u64) -> Result<Vec<u8>> {
        objects::confirmed(&*self.backend, place, || {
            let stored = self.backend.get(place, bytes_max)?;
            objects::verify_name(place, &stored)?;
            objects::open(&self.keys, self.id(), kind, place, &stored)
        })
    }

    /// Opens the stored bytes of an object of one sealed box.
    pub fn open_object(&self, kind: Kind, place: &Place, stored: &[u8]) -> Result<Vec<u8>> {
        objects::open(&self.keys, self.id(), kind, place, stored)
    }

    /// Where frames are; brought up to date at first use.
    pub fn locator(&self) -> Result<&Arc<Locator>> {
        match self.locator.get() {
            Some(locator) => Ok(locator),
            None => self.locator_up_to(Scope::Frames),
        }
    }

    /// Where frames, and chunks if the scope says so, are now.
    pub fn locator_up_to(&self, scope: Scope) -> Result<&Arc<Locator>> {
        let shelter = || Shelter { cache: self.cache.clone(), scratch: self.world.scratch().map(Path::to_path_buf) };
        let open = || Arc::new(Locator::open(self.backend.clone(), self.keys.clone(), self.id(), shelter()));
        let locator = self.locator.get().cloned().unwrap_or_else(open);
        locator.refresh(scope)?;
        Ok(self.locator.get_or_init(|| locator))
    }

    /// Reads frames.
    pub fn reader(&self) -> Result<&Arc<Reader>> {
        let locator = self.locator()?.clone();
        Ok(self.reader.get_or_init(|| Arc::new(Reader::new(locator))))
    }
}

fn stored_manifest(backend: &dyn Backend) -> Result<Vec<u8>> {
    backend.get(&Place::manifest(), RECORD_BYTES_MAX).map_err(|error| match error.kind {
        StorageErrorKind::NotFound => Error::NoRepository { location: backend.location() },
        _ => error.into(),
    })
}

/// What opening comes to.
struct Opened {
    unlocked: Unlocked,
    keys: Arc<Keys>,
    manifest: Manifest,
}

fn open_manifest(backend: &dyn Backend, secret: &Secret, sealed: &[u8]) -> Result<Opened> {
    let header = objects::header(sealed, Kind::Manifest, "manifest")?;
    let unlocked = keyring::unlock(backend, header.repository, secret)?;
    let keys = Arc::new(Keys::derive(&unlocked.master));
    let body = objects::open(&keys, header.repository, Kind::Manifest, "manifest", sealed).map_err(|error| match unlocked.by {
        None => keyring::judge_words(backend, header.repository, &keys, error),
        Some(_) => error,
    })?;
    let manifest = Manifest::decode(&body).map_err(|error| error.of("manifest"))?;
    match manifest.repository == header.repository {
        true => Ok(Opened { unlocked, keys, manifest }),
        false => Err(Error::damaged("manifest", "it names another repository")),
    }
}
