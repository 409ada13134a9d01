//! Frames are put into packs, packs into the store, and what they hold into index segments: never before they are durable.
//!
//! Sealers append to an open pack for each kind. Full packs go to a few threads that store them, since a disk that is asked to make one
//! pack durable at a time is idle for much of it. After enough packs and at the end one of the threads stores an index segment of those
//! that are durable; only then does this host's index hear of them.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crossbeam_channel::Sender;

use super::locate::Locator;
use super::objects;
use super::pack::{OpenPack, SealedPack};
use super::stock::Stock;
use crate::backend::Place;
use crate::crypto::Sealer;
use crate::error::{Error, Result, StorageErrorKind};
use crate::format::envelope::Kind;
use crate::format::frame::FrameRecord;
use crate::format::segment::{PackRecord, Segment};
use crate::id::{ChunkId, ObjectName};
use crate::limits::*;

/// A pack on its way to the store.
pub struct ClosedPack {
    kind: Kind,
    pack: OpenPack,
}

/// Collects sealed frames into packs.
pub struct Packer {
    data: (Sealer, Mutex<Option<OpenPack>>),
    catalog: (Sealer, Mutex<Option<OpenPack>>),
    uploads: Mutex<Option<Sender<ClosedPack>>>,
    /// Memory of packs that are stored, for the next ones: fresh pages cost as much as copying.
    spare: Mutex<Vec<Vec<u8>>>,
}

impl Packer {
    pub fn new(data: Sealer, catalog: Sealer, uploads: Sender<ClosedPack>) -> Self {
        Self {
            data: (data, Mutex::default()),
            catalog: (catalog, Mutex::default()),
            uploads: Mutex::new(Some(uploads)),
            spare: Mutex::default(),
        }
    }

    fn side(&self, kind: Kind) -> &(Sealer, Mutex<Option<OpenPack>>) {
        if kind == Kind::CatalogPack { &self.catalog } else { &self.data }
    }

    pub fn sealer(&self, kind: Kind) -> &Sealer {
        &self.side(kind).0
    }

    /// Appends a sealed frame to the open pack of its kind.
    pub fn add(&self, kind: Kind, record: FrameRecord, sealed: &[u8]) -> Result<()> {
        let (sealer, open) = self.side(kind);
        let mut open = open.lock().expect("no panic holds it");
        let spare = || self.spare.lock().expect("no panic holds it").pop().unwrap_or_default();
        let pack = open.get_or_insert_with(|| OpenPack::new(sealer, spare()));
        pack.add(record, sealed);
        if pack.is_full() { self.close(kind, open.take()) } else { Ok(()) }
    }

    /// Takes back the memory of a pack.
    fn reuse(&self, bytes: Vec<u8>) {
        self.spare.lock().expect("no panic holds it").push(bytes);
    }

    fn close(&self, kind: Kind, open: Option<OpenPack>) -> Result<()> {
        let Some(pack) = open else { return Ok(()) };
        let uploads = self.uploads.lock().expect("no panic holds it").clone();
        // The reason is kept by whoever hung up.
        let uploads = uploads.ok_or(Error::Interrupted)?;
        uploads.send(ClosedPack { kind, pack }).map_err(|_| Error::Interrupted)
    }

    /// Closes the open packs, if `complete`, and hangs up on the uploader.
    pub fn finish(&self, complete: bool) -> Result<()> {
        let mut result = Ok(());
        for kind in [Kind::DataPack, Kind::CatalogPack] {
            let open = self.side(kind).1.lock().expect("no panic holds it").take();
            if complete && result.is_ok() {
                result = self.close(kind, open);
            }
        }
        self.uploads.lock().expect("no panic holds it").take();
        result
    }
}

/// What has been stored.
#[derive(Default)]
pub struct UploadTotals {
    pub data_bytes: AtomicU64,
    pub catalog_bytes: AtomicU64,
    pub segment_bytes: AtomicU64,
    pub packs: AtomicU64,
}

/// Packs that are durable, but that no index segment lists yet.
#[derive(Default)]
struct Unlisted {
    packs: Vec<PackRecord>,
    chunks: usize,
}

/// Stores packs and index segments, on several threads.
pub struct Uploader {
    pub locator: Arc<Locator>,
    pub stock: Arc<Stock>,
    /// Chunks the index has been told of since they were last taken from here.
    pub merged: Mutex<Vec<ChunkId>>,
    pub totals: UploadTotals,
    /// Packs stored by this run.
    pub stored: Mutex<HashSet<ObjectName>>,
    /// Go through all motions but store nothing.
    pub dry_run: bool,
    /// For its sealers: a pack's footer is sealed under the salt in its header.
    pub packer: Arc<Packer>,
    pub segment_sealer: Sealer,
    unlisted: Mutex<Unlisted>,
}

impl Uploader {
    pub fn new(locator: Arc<Locator>, stock: Arc<Stock>, packer: Arc<Packer>, segment_sealer: Sealer, dry_run: bool) -> Self {
        Self {
            locator,
            stock,
            packer,
            segment_sealer,
            dry_run,
            merged: Mutex::default(),
            totals: UploadTotals::default(),
            stored: Mutex::default(),
            unlisted: Mutex::default(),
        }
    }

    /// Stores one pack, and a segment if it is time for one.
    pub fn work(&self, pack: ClosedPack) -> Result<()> {
        let pack = self.store_pack(pack)?;
        let due = {
            let mut unlisted = self.unlisted.lock().expect("no panic holds it");
            unlisted.chunks += pack.frames.iter().map(|frame| frame.table.len()).sum::<usize>();
            unlisted.packs.push(pack);
            (unlisted.chunks >= CHECKPOINT_CHUNKS).then(|| std::mem::take(&mut *unlisted))
        };
        due.map_or(Ok(()), |unlisted| self.store_segment(unlisted.packs))
    }

    /// Stores the last index segment; after a failure too, since what was stored so far need not be stored again by the next run.
    pub fn finish(&self) -> Result<()> {
        let unlisted = std::mem::take(&mut *self.unlisted.lock().expect("no panic holds it"));
        match unlisted.packs.is_empty() {
            true => Ok(()),
            false => self.store_segment(unlisted.packs),
        }
    }

    fn store_pack(&self, pack: ClosedPack) -> Result<PackRecord> {
        let ClosedPack { kind, pack } = pack;
        let SealedPack { name, bytes, frames } = pack.end(self.packer.sealer(kind))?;
        self.put(&Place::pack(name), &bytes)?;
        let size = bytes.len() as u64;
        let total = if kind == Kind::CatalogPack { &self.totals.catalog_bytes } else { &self.totals.data_bytes };
        total.fetch_add(size, Ordering::Relaxed);
        self.totals.packs.fetch_add(1, Ordering::Relaxed);
        self.stock.add_pack(name, size);
        self.stored.lock().expect("no panic holds it").insert(name);
        self.packer.reuse(bytes);
        Ok(PackRecord { name, kind, size, frames })
    }

    fn store_segment(&self, packs: Vec<PackRecord>) -> Result<()> {
        let segment = Segment { replaces: Vec::new(), packs };
        let stored = objects::seal(&self.segment_sealer, &segment.encode())?;
        let name = ObjectName::of(&stored);
        self.put(&Place::segment(name), &stored)?;
        self.totals.segment_bytes.fetch_add(stored.len() as u64, Ordering::Relaxed);
        if self.dry_run {
            return Ok(());
        }
        let frames = segment.packs.iter().flat_map(|pack| &pack.frames);
        let ids: Vec<ChunkId> = frames.flat_map(|frame| frame.table.ids()).copied().collect();
        self.locator.add_segment(name, segment);
        self.merged.lock().expect("no panic holds it").extend(ids);
        Ok(())
    }

    fn put(&self, place: &Place, bytes: &[u8]) -> Result<()> {
        if self.dry_run {
            return Ok(());
        }
        match self.locator.backend().put(place, bytes) {
            // The name is the hash of the bytes: it is there, if it is whole.
            Err(error) if error.kind == StorageErrorKind::Exists => match self.locator.backend().get(place, bytes.len() as u64) {
                Ok(there) if there == bytes => Ok(()),
                _ => Err(error.into()),
            },
            result => Ok(result?),
        }
    }
}
