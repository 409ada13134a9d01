//! The repository: what a store of sealed objects means. Reading and writing of frames, catalogs and snapshots.
//!
//! Truth is in the store. Order on writing is packs, then index segment, then snapshot, each durable before the next.
//! Deciding what to back up, restore, check or delete is the operations' business.

mod catalog;
mod cursor;
mod gather;
mod ingest;
mod locate;
mod marks;
mod mover;
mod objects;
mod packer;
mod reader;
pub mod records;
mod runs;
mod sealers;
mod snapshots;
mod stock;
mod stream;
mod writer;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

pub use catalog::{CatalogReader, CatalogWriter, PendingEntry, WrittenCatalog};
pub use ingest::{Ingest, Ingested};
pub use locate::{Contents, Locator, Presence, is_not_found};
pub use marks::{Mark, Marks, Ordinals};
pub use mover::{Move, Mover};
pub use reader::{Fetched, Frame, Reader, Wanted};
pub use runs::Runs;
pub use snapshots::{Filter as SnapshotFilter, Selection, Stored};
pub use stock::Stock;
pub use writer::{Cost, Writer, WriterOptions};

use crate::backend::{Area, Backend, Place};
use crate::chunking::Cutter;
use crate::crypto::{Keys, MasterKey, Sealer, Secret, create_slot, open_slot};
use crate::error::{Error, Result, StorageErrorKind};
use crate::format::envelope::Kind;
use crate::format::manifest::{ChunkerParameters, Manifest};
use crate::format::slot::Slot;
use crate::id::RepositoryId;
use crate::limits::*;
use crate::world::World;

/// An open repository.
pub struct Repository {
    backend: Arc<dyn Backend>,
    keys: Arc<Keys>,
    manifest: Manifest,
    cutter: Arc<Cutter>,
    world: Arc<World>,
    cache: Option<PathBuf>,
    locator: OnceLock<Arc<Locator>>,
    reader: OnceLock<Arc<Reader>>,
}

/// What opening needs besides the store.
pub struct Opening {
    pub secret: Secret,
    /// Folder for this host's index; none keeps it in memory.
    pub cache: Option<PathBuf>,
    pub world: World,
}

impl Repository {
    /// Makes a new repository in an empty place: areas, key slot, then the manifest, which makes it one.
    pub fn create(backend: Arc<dyn Backend>, opening: Opening, label: &str) -> Result<Self> {
        let location = backend.location();
        if backend.get(&Place::manifest(), RECORD_BYTES_MAX).is_ok() {
            return Err(Error::AlreadyThere { location, what: "a repository" });
        }
        backend.create_areas()?;
        let world = Arc::new(opening.world);
        let id = RepositoryId(world.random());
        let master = MasterKey::new(world.random());
        let slot = create_slot(&master, &opening.secret, id, label, &world)?;
        backend.put(&Place::key(slot.id), &slot.encode())?;
        let keys = Arc::new(Keys::derive(&master));
        let created = world.now();
        let manifest =
            Manifest { version: FORMAT_VERSION, repository: id, created, chunker: ChunkerParameters::default(), features: Vec::new() };
        let entropy = world.clone();
        let sealer = Sealer::new(keys.clone(), Kind::Manifest, id, Arc::new(move || entropy.random()));
        backend.put(&Place::manifest(), &objects::seal(&sealer, &manifest.encode())?)?;
        Ok(Self::assemble(backend, keys, manifest, world, opening.cache))
    }

    /// Opens a repository with a password or key file.
    pub fn open(backend: Arc<dyn Backend>, opening: Opening) -> Result<Self> {
        let sealed = backend.get(&Place::manifest(), RECORD_BYTES_MAX).map_err(|error| match error.kind {
            StorageErrorKind::NotFound => Error::NoRepository { location: backend.location() },
            _ => error.into(),
        })?;
        let header = objects::header(&sealed, Kind::Manifest, "manifest")?;
        let keys = Arc::new(Keys::derive(&unlock(&*backend, header.repository, &opening.secret)?));
        let body = objects::open(&keys, header.repository, Kind::Manifest, "manifest", &sealed)?;
        let manifest = Manifest::decode(&body).map_err(|error| error.of("manifest"))?;
        if manifest.repository != header.repository {
            return Err(Error::damaged("manifest", "it names another repository"));
        }
        Ok(Self::assemble(backend, keys, manifest, Arc::new(opening.world), opening.cache))
    }

    fn assemble(backend: Arc<dyn Backend>, keys: Arc<Keys>, manifest: Manifest, world: Arc<World>, cache: Option<PathBuf>) -> Self {
        let cutter = Arc::new(Cutter::new(&manifest.chunker, keys.gear_table()));
        Self { backend, keys, manifest, cutter, world, cache, locator: OnceLock::new(), reader: OnceLock::new() }
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
        let stored = self.backend.get(place, bytes_max)?;
        objects::verify_name(place, &stored)?;
        objects::open(&self.keys, self.id(), kind, &place.to_string(), &stored)
    }

    /// Where frames and chunks are; brought up to date at first use.
    pub fn locator(&self) -> Result<&Arc<Locator>> {
        if let Some(locator) = self.locator.get() {
            return Ok(locator);
        }
        let locator = Locator::open(self.backend.clone(), self.keys.clone(), self.id(), self.cache.as_deref())?;
        Ok(self.locator.get_or_init(|| Arc::new(locator)))
    }

    /// Reads frames.
    pub fn reader(&self) -> Result<&Arc<Reader>> {
        let locator = self.locator()?.clone();
        Ok(self.reader.get_or_init(|| Arc::new(Reader::new(locator))))
    }

    /// All key slots, readable or not.
    pub fn slots(&self) -> Result<Vec<(String, Result<Slot>)>> {
        slots(&*self.backend)
    }
}

fn slots(backend: &dyn Backend) -> Result<Vec<(String, Result<Slot>)>> {
    let mut names: Vec<String> = backend.list(Area::Keys)?.into_iter().map(|listed| listed.name).collect();
    names.sort();
    names.truncate(KEY_SLOTS_MAX);
    let read = |name: String| {
        let place = Place { area: Area::Keys, name: name.clone() };
        let slot = backend.get(&place, RECORD_BYTES_MAX).map_err(Error::from);
        let slot = slot.and_then(|bytes| Slot::decode(&bytes).map_err(|error| error.of(&place)));
        (name, slot)
    };
    Ok(names.into_iter().map(read).collect())
}

/// The master key of the first slot that the secret opens.
fn unlock(backend: &dyn Backend, repository: RepositoryId, secret: &Secret) -> Result<MasterKey> {
    let mut trouble = None;
    let mut tried = false;
    let all = slots(backend)?;
    if all.is_empty() {
        return Err(Error::damaged("the repository", "it has no key slot; restore the folder keys from a copy"));
    }
    for (_, slot) in all {
        // A damaged slot must not keep the others from being tried.
        match slot {
            Ok(slot) if slot.repository == repository => match open_slot(&slot, secret) {
                Ok(Some((master, _))) => return Ok(master),
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
