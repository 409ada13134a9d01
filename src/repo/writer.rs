//! One writing run: the threads between gathered frames and stored packs, and what it relied on.
//!
//! ```text
//! gather -> [jobs] -> sealers (a thread a core) -> packer -> [packs] -> uploader (a few threads) -> store
//! ```
//!
//! Queues are short, so memory is bounded. A run that is asked to use one thread only does all of it on its caller's, frame by frame, so
//! that nothing is started for little, and what it asks of the store comes in one order. The first failure is kept, everything stops, and `finish` returns it.
//! A run that is dropped still writes an index segment for the packs it stored, so that the next one finds them.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, bounded, unbounded};

use super::Repository;
use super::entries::CatalogReader;
use super::gather::{FrameJob, Gather, Jobs, Spare};
use super::leaves::LeafCache;
use super::locate::Presence;
use super::packer::{ClosedPack, Packer, UploadTotals, Uploader};
use super::records::{Records, Rigour};
use super::sealers::{FrameSealer, SealerTotals};
use super::stock::Stock;
use crate::backend::{Area, Place};
use crate::chunking::Cutter;
use crate::compression::Level;
use crate::crypto::Keys;
use crate::error::{Error, Result};
use crate::format::entry::{Entry, Node};
use crate::format::envelope::Kind;
use crate::format::snapshot::Snapshot;
use crate::id::ObjectName;
use crate::index::Scope;
use crate::limits::UPLOADS;

/// How a run writes.
#[derive(Clone, Copy, Debug)]
pub struct WriterOptions {
    pub level: Level,
    /// Compress new chunks against the old ones in their place.
    pub delta: bool,
    /// Store nothing.
    pub dry_run: bool,
    /// Sealing threads; 0 for one a core, 1 for no others than the caller's.
    pub threads: usize,
}

/// What a run stored.
#[derive(Clone, Debug, Default)]
pub struct Cost {
    pub bytes_new: u64,
    pub data_bytes: u64,
    pub catalog_bytes: u64,
    pub segment_bytes: u64,
    pub packs: u64,
    pub delta_frames: u64,
    pub delta_plain_bytes: u64,
    pub delta_stored_bytes: u64,
}

impl Cost {
    /// All bytes added to the store.
    pub fn stored(&self) -> u64 {
        self.data_bytes + self.catalog_bytes + self.segment_bytes
    }
}

/// The first failure of any thread.
type Failure = Arc<Mutex<Option<Error>>>;

/// A writing run.
pub struct Writer {
    stock: Arc<Stock>,
    cutter: Arc<Cutter>,
    keys: Arc<Keys>,
    leaves: Option<LeafCache>,
    options: WriterOptions,
    data: Gather,
    catalog: Gather,
    packer: Arc<Packer>,
    /// There until the run ends.
    jobs: Option<Jobs>,
    sealers: Vec<JoinHandle<()>>,
    uploader: Arc<Uploader>,
    uploads: Vec<JoinHandle<()>>,
    /// Instead of threads.
    bench: Option<Arc<Mutex<Bench>>>,
    failure: Failure,
    sealer_totals: Arc<SealerTotals>,
}

impl Writer {
    /// Reads the condemned lists, then the index, and starts the threads.
    pub fn start(repository: &Repository, options: WriterOptions) -> Result<Self> {
        let condemned = repository.condemned_packs()?;
        let locator = repository.locator_up_to(Scope::Chunks)?.clone();
        let reader = repository.reader()?.clone();
        let presence = Presence::new(locator.list(Area::Packs)?, &condemned);
        let stock = Arc::new(Stock::new(locator.clone(), reader.clone(), presence));
        let (queue, pack_queue) = if options.threads == 1 { unbounded() } else { bounded(0) };
        let (data, catalog) = (repository.sealer(Kind::DataPack), repository.sealer(Kind::CatalogPack));
        let packer = Arc::new(Packer::new(data, catalog, queue));
        let failure = Failure::default();
        let sealer_totals = Arc::<SealerTotals>::default();
        let uploader = Uploader::new(locator, stock.clone(), packer.clone(), repository.sealer(Kind::Segment), options.dry_run);
        let uploader = Arc::new(uploader);
        let spare = Arc::<Spare>::default();
        let sealer = || FrameSealer::new(packer.clone(), reader.clone(), options.level, sealer_totals.clone(), spare.clone());
        let (mut uploads, mut sealers, mut bench) = (Vec::new(), Vec::new(), None);
        let jobs: Jobs = if options.threads == 1 {
            let here = Arc::new(Mutex::new(Bench { sealer: sealer()?, packs: pack_queue, uploader: uploader.clone() }));
            bench = Some(here.clone());
            Arc::new(move |job| here.lock().expect("no panic holds it").work(job))
        } else {
            let cores = || std::thread::available_parallelism().map_or(1, |count| count.get());
            let threads = if options.threads == 0 { cores() } else { options.threads };
            let (jobs, job_queue) = bounded(threads + 2);
            uploads.extend((0..UPLOADS).map(|_| spawn_uploader(uploader.clone(), pack_queue.clone(), failure.clone())));
            for _ in 0..threads {
                sealers.push(spawn_sealer(sealer()?, job_queue.clone(), failure.clone()));
            }
            // The reason is kept by whoever hung up.
            Arc::new(move |job| jobs.send(job).map_err(|_| Error::Interrupted))
        };
        Ok(Self {
            data: Gather::new(Kind::DataPack, repository.keys().clone(), jobs.clone(), spare.clone()),
            catalog: Gather::new(Kind::CatalogPack, repository.keys().clone(), jobs.clone(), spare.clone()),
            cutter: repository.cutter().clone(),
            keys: repository.keys().clone(),
            leaves: LeafCache::of(repository).filter(|_| !options.dry_run),
            jobs: Some(jobs),
            uploader,
            uploads,
            bench,
            stock,
            options,
            packer,
            sealers,
            failure,
            sealer_totals,
        })
    }

    pub fn cutter(&self) -> &Arc<Cutter> {
        &self.cutter
    }

    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    pub(super) fn gather(&mut self, kind: Kind) -> &mut Gather {
        if kind == Kind::CatalogPack { &mut self.catalog } else { &mut self.data }
    }

    /// What is stored already.
    pub fn stock(&self) -> &Arc<Stock> {
        &self.stock
    }

    /// Fails if any thread has; lets go of chunks that the index knows by now.
    pub fn check(&mut self) -> Result<()> {
        if let Some(error) = self.failure.lock().expect("no panic holds it").take() {
            return Err(error);
        }
        let merged = std::mem::take(&mut *self.uploader.merged.lock().expect("no panic holds it"));
        if !merged.is_empty() {
            self.data.forget(&merged);
            self.catalog.forget(&merged);
        }
        Ok(())
    }

    /// Closes the open frames.
    pub fn close_frames(&mut self) -> Result<()> {
        let result = self.data.close().and_then(|()| self.catalog.close());
        result.map_err(|error| self.first_failure(error))
    }

    /// Why a thread hung up, if that is why `error` came.
    pub fn first_failure(&self, error: Error) -> Error {
        self.failure.lock().expect("no panic holds it").take().unwrap_or(error)
    }

    /// Waits until everything is durable.
    pub fn finish(mut self) -> Result<(Cost, Reliance)> {
        let closed = self.close_frames();
        let joined = self.join(closed.is_ok());
        closed?;
        joined?;
        let upload = |total: fn(&UploadTotals) -> &std::sync::atomic::AtomicU64| total(&self.uploader.totals).load(Ordering::Relaxed);
        let cost = Cost {
            bytes_new: self.data.bytes_new,
            data_bytes: upload(|totals| &totals.data_bytes),
            catalog_bytes: upload(|totals| &totals.catalog_bytes),
            segment_bytes: upload(|totals| &totals.segment_bytes),
            packs: upload(|totals| &totals.packs),
            delta_frames: self.sealer_totals.delta_frames.load(Ordering::Relaxed),
            delta_plain_bytes: self.sealer_totals.delta_plain_bytes.load(Ordering::Relaxed),
            delta_stored_bytes: self.sealer_totals.delta_stored_bytes.load(Ordering::Relaxed),
        };
        let stored = std::mem::take(&mut *self.uploader.stored.lock().expect("no panic holds it"));
        let packs = stored.into_iter().chain(self.stock.relied_on()).collect();
        Ok((cost, Reliance { packs }))
    }

    /// Hangs up, waits for all threads, and returns the first failure.
    fn join(&mut self, complete: bool) -> Result<()> {
        self.jobs.take();
        let dead: Jobs = Arc::new(|_| Err(Error::Interrupted));
        // Gathers hold senders of their own.
        self.data = Gather::new(Kind::DataPack, self.keys.clone(), dead.clone(), Arc::default()).with_total(self.data.bytes_new);
        self.catalog = Gather::new(Kind::CatalogPack, self.keys.clone(), dead, Arc::default());
        for sealer in self.sealers.drain(..) {
            sealer.join().map_err(|_| Error::ReadBack("a sealing thread".into()))?;
        }
        let failed = self.failure.lock().expect("no panic holds it").is_some();
        let packed = self.packer.finish(complete && !failed);
        // After a failure nothing more is stored.
        let stored = self.bench.take().filter(|_| complete).map_or(Ok(()), |bench| bench.lock().expect("no panic holds it").store());
        for upload in self.uploads.drain(..) {
            upload.join().map_err(|_| Error::ReadBack("a storing thread".into()))?;
        }
        let listed = self.uploader.finish();
        match self.failure.lock().expect("no panic holds it").take() {
            Some(error) => Err(error),
            None => packed.and(stored).and(listed),
        }
    }

    /// What this host remembers of contents' hashes.
    pub fn leaves(&self) -> Option<&LeafCache> {
        self.leaves.as_ref()
    }

    pub fn options(&self) -> &WriterOptions {
        &self.options
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.jobs.is_some() {
            // The run failed or was given up; the reason is with whoever dropped it.
            let _ = self.join(false);
        }
    }
}

/// The work of all threads, for a run that has none.
struct Bench {
    sealer: FrameSealer,
    packs: Receiver<ClosedPack>,
    uploader: Arc<Uploader>,
}

impl Bench {
    fn work(&mut self, job: FrameJob) -> Result<()> {
        self.sealer.work(job)?;
        self.store()
    }

    fn store(&self) -> Result<()> {
        self.packs.try_iter().try_for_each(|pack| self.uploader.work(pack))
    }
}

fn spawn_sealer(mut sealer: FrameSealer, jobs: Receiver<FrameJob>, failure: Failure) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for job in jobs {
            if let Err(error) = sealer.work(job) {
                failure.lock().expect("no panic holds it").get_or_insert(error);
                return;
            }
        }
    })
}

/// Hangs up after the first failure of any thread: what comes after it is not stored.
fn spawn_uploader(uploader: Arc<Uploader>, packs: Receiver<ClosedPack>, failure: Failure) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for pack in packs {
            if failure.lock().expect("no panic holds it").is_some() {
                return;
            }
            if let Err(error) = uploader.work(pack) {
                failure.lock().expect("no panic holds it").get_or_insert(error);
                return;
            }
        }
    })
}

/// The packs a snapshot relies on: those of its own run too, which nothing refers to before the snapshot is listed.
pub struct Reliance {
    packs: BTreeSet<ObjectName>,
}

impl Reliance {
    /// Fails if a collector has meanwhile doomed or removed what the snapshot relies on, and has not
    /// put it elsewhere. That is so for good only if the snapshot is listed.
    ///
    /// Records are read first, and packs listed after: a collector deletes packs before it removes their record. Packs that are
    /// condemned but not finally are safe, because the collector lists the snapshots after it says that it is final.
    pub fn verify(&self, repository: &Repository, snapshot: &[u8]) -> Result<()> {
        let doomed = Records::read(repository, Rigour::Lenient)?.doomed();
        let locator = repository.locator()?;
        let listed = locator.list(Area::Packs)?;
        let there: HashSet<ObjectName> = listed.iter().map(|(name, _)| *name).collect();
        let gone = |pack: &&ObjectName| doomed.contains(*pack) || !there.contains(*pack) && !is_there(repository, **pack);
        let Some(pack) = self.packs.iter().find(gone) else { return Ok(()) };
        locator.refresh(Scope::Frames)?;
        let stock = Stock::new(locator.clone(), repository.reader()?.clone(), Presence::new(listed, &doomed));
        let snapshot = Snapshot::decode(snapshot).map_err(|error| error.of("a new snapshot"))?;
        match covers(repository, &stock, &snapshot) {
            true => Ok(()),
            false => Err(Error::Conflict(format!("Pack {pack} was removed while this backup used it; run the backup again"))),
        }
    }
}

/// Whether a pack can be read at all: a listing may lag behind.
fn is_there(repository: &Repository, pack: ObjectName) -> bool {
    let place = Place::pack(pack);
    // Not through a file that was opened before somebody deleted it.
    repository.backend.forget_cached(&place);
    repository.backend.read_at(&place, 0, &mut [0]).is_ok()
}

/// Whether all that a snapshot refers to is in the stock.
fn covers(repository: &Repository, stock: &Stock, snapshot: &Snapshot) -> bool {
    let covers_entry = |entry: Result<Entry>| match entry {
        Ok(Entry { node: Node::File { content: Some(content) }, .. }) => stock.covers(&content.recipe),
        Ok(_) => true,
        Err(_) => false,
    };
    stock.covers(&snapshot.catalog.0)
        && stock.covers(&snapshot.path_table.0)
        && CatalogReader::open(repository, snapshot).is_ok_and(|mut entries| entries.all(covers_entry))
}
