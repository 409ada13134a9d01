//! Frames are put into packs, packs into the store, and what they hold into index segments: never before they are durable.
//!
//! Sealers append to an open pack for each kind. A full pack goes to one thread that stores packs and, after enough of them and at the
//! end, an index segment; only then does this host's index hear of it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, Sender};

use super::locate::Locator;
use super::objects;
use super::stock::Stock;
use crate::backend::Place;
use crate::crypto::Sealer;
use crate::error::{Error, Result, StorageErrorKind};
use crate::format::envelope::{Kind, footer_associated_data};
use crate::format::frame::FrameRecord;
use crate::format::pack::{FRAMES_START, TRAILER_BYTES, encode_frames, encode_trailer};
use crate::format::segment::{PackRecord, Segment};
use crate::id::{ChunkId, ObjectName};
use crate::limits::*;

struct OpenPack {
    bytes: Vec<u8>,
    frames: Vec<FrameRecord>,
    chunks: usize,
}

/// A pack on its way to the store.
pub struct ClosedPack {
    kind: Kind,
    bytes: Vec<u8>,
    frames: Vec<FrameRecord>,
}

/// Collects sealed frames into packs.
pub struct Packer {
    data: (Sealer, Mutex<Option<OpenPack>>),
    catalog: (Sealer, Mutex<Option<OpenPack>>),
    uploads: Mutex<Option<Sender<ClosedPack>>>,
}

impl Packer {
    pub fn new(data: Sealer, catalog: Sealer, uploads: Sender<ClosedPack>) -> Self {
        Self { data: (data, Mutex::default()), catalog: (catalog, Mutex::default()), uploads: Mutex::new(Some(uploads)) }
    }

    fn side(&self, kind: Kind) -> &(Sealer, Mutex<Option<OpenPack>>) {
        if kind == Kind::CatalogPack { &self.catalog } else { &self.data }
    }

    pub fn sealer(&self, kind: Kind) -> &Sealer {
        &self.side(kind).0
    }

    /// Appends a sealed frame to the open pack of its kind.
    pub fn add(&self, kind: Kind, mut record: FrameRecord, sealed: Vec<u8>) -> Result<()> {
        let (sealer, open) = self.side(kind);
        let mut open = open.lock().expect("no panic holds it");
        let pack = open.get_or_insert_with(|| OpenPack { bytes: sealer.header().encode(), frames: Vec::new(), chunks: 0 });
        record.offset = pack.bytes.len() as u64;
        assert!(pack.frames.last().map_or(FRAMES_START, FrameRecord::end) == record.offset);
        pack.bytes.extend_from_slice(&sealed);
        pack.chunks += record.table.len();
        pack.frames.push(record);
        match pack.bytes.len() >= PACK_BYTES_TARGET || pack.chunks >= CHECKPOINT_CHUNKS / 4 {
            true => self.close(kind, open.take()),
            false => Ok(()),
        }
    }

    fn close(&self, kind: Kind, open: Option<OpenPack>) -> Result<()> {
        let Some(OpenPack { bytes, frames, .. }) = open else { return Ok(()) };
        let uploads = self.uploads.lock().expect("no panic holds it").clone();
        // The reason is kept by whoever hung up.
        let uploads = uploads.ok_or(Error::Interrupted)?;
        uploads.send(ClosedPack { kind, bytes, frames }).map_err(|_| Error::Interrupted)
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

/// Appends the footer and the trailer to a pack's header and frames.
pub fn end_pack(sealer: &Sealer, bytes: &mut Vec<u8>, frames: &[FrameRecord]) -> Result<()> {
    let plain = encode_frames(frames);
    let associated_data = footer_associated_data(sealer.header(), bytes.len() as u64);
    let sealed = sealer.seal(&associated_data, &plain);
    if sealer.open(&associated_data, &sealed).as_ref() != Some(&plain) {
        return Err(Error::ReadBack("the footer of a pack".into()));
    }
    bytes.reserve(sealed.len() + TRAILER_BYTES);
    bytes.extend_from_slice(&sealed);
    bytes.extend_from_slice(&encode_trailer(sealed.len() as u32));
    Ok(())
}

/// What has been stored.
#[derive(Default)]
pub struct UploadTotals {
    pub data_bytes: AtomicU64,
    pub catalog_bytes: AtomicU64,
    pub segment_bytes: AtomicU64,
    pub packs: AtomicU64,
}

/// Stores packs and index segments on one thread.
pub struct Uploader {
    pub locator: Arc<Locator>,
    pub stock: Arc<Stock>,
    /// Chunks the index has been told of since they were last taken from here.
    pub merged: Arc<Mutex<Vec<ChunkId>>>,
    pub totals: Arc<UploadTotals>,
    /// Packs stored by this run.
    pub stored: Arc<Mutex<HashSet<ObjectName>>>,
    /// Go through all motions but store nothing.
    pub dry_run: bool,
    /// For its sealers: a pack's footer is sealed under the salt in its header.
    pub packer: Arc<Packer>,
    pub segment_sealer: Sealer,
}

impl Uploader {
    /// Stores what comes until the senders hang up, then the last index segment.
    pub fn run(self, packs: &Receiver<ClosedPack>) -> Result<()> {
        let mut stored = Vec::new();
        let mut chunks = 0;
        for pack in packs {
            chunks += pack.frames.iter().map(|frame| frame.table.len()).sum::<usize>();
            match self.store_pack(pack) {
                Ok(pack) => stored.push(pack),
                Err(error) => {
                    // What was stored so far need not be stored again by the next run.
                    let listed = if stored.is_empty() { Ok(()) } else { self.store_segment(stored) };
                    drop(listed);
                    return Err(error);
                }
            }
            if chunks >= CHECKPOINT_CHUNKS {
                self.store_segment(std::mem::take(&mut stored))?;
                chunks = 0;
            }
        }
        match stored.is_empty() {
            true => Ok(()),
            false => self.store_segment(stored),
        }
    }

    fn store_pack(&self, pack: ClosedPack) -> Result<PackRecord> {
        let ClosedPack { kind, mut bytes, frames } = pack;
        end_pack(self.packer.sealer(kind), &mut bytes, &frames)?;
        let name = ObjectName::of(&bytes);
        self.put(&Place::pack(name), &bytes)?;
        let size = bytes.len() as u64;
        let total = if kind == Kind::CatalogPack { &self.totals.catalog_bytes } else { &self.totals.data_bytes };
        total.fetch_add(size, Ordering::Relaxed);
        self.totals.packs.fetch_add(1, Ordering::Relaxed);
        self.stock.add_pack(name, size);
        self.stored.lock().expect("no panic holds it").insert(name);
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
