//! The middle of a backup, and of a copy: from a source's slabs to a catalog.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};

use super::known::Known;
use crate::error::{Error, Result};
use crate::format::entry::{Node, path_order};
use crate::format::snapshot::Totals;
use crate::progress::Progress;
use crate::repo::{CatalogWriter, Ingest, Ingested, OlderContent, PendingEntry, Writer};
use crate::source::{More, Slab, Source};

/// Slabs at most: one is worked on while the next is read, and one waits.
const SLABS: usize = 3;

/// A backup under way.
pub struct Run<'a> {
    pub writer: &'a mut Writer,
    pub catalog: CatalogWriter,
    pub known: &'a Known,
    pub totals: Totals,
    pub progress: &'a dyn Progress,
    /// Entries of streams that were read at once, until all of these have ended.
    pub held: Vec<PendingEntry>,
}

impl Run<'_> {
    /// Takes slab after slab from the source, which reads ahead on a thread of its own, if there may be any, until it ends or `stop` is set.
    pub fn work(&mut self, mut source: Box<dyn Source + '_>, slab_bytes: usize, interrupted: &AtomicBool, stop: &AtomicBool) -> Result<()> {
        if self.writer.options().threads == 1 {
            return self.read_and_take(&mut *source, slab_bytes, interrupted);
        }
        std::thread::scope(|scope| {
            let (filled, slabs) = bounded::<Result<(Slab, More)>>(1);
            let (spent, empty) = bounded(SLABS);
            scope.spawn(move || read_ahead(&mut *source, slab_bytes, &empty, &filled));
            let result = self.take_slabs(&slabs, &spent, interrupted);
            // A source that waits for bytes must not keep a failure waiting.
            stop.store(true, Ordering::Relaxed);
            result
        })
    }

    /// The same on this thread alone.
    fn read_and_take(&mut self, source: &mut dyn Source, slab_bytes: usize, interrupted: &AtomicBool) -> Result<()> {
        let known = self.known;
        let mut ingest = Ingest::new(|path: &[u8]| known.older(path));
        let mut slab = Slab::new(slab_bytes);
        loop {
            self.stop_if_interrupted(interrupted)?;
            slab.clear();
            let more = source.fill(&mut slab)?;
            self.take_slab(&mut ingest, &mut slab)?;
            if more == More::No {
                return self.release();
            }
        }
    }

    fn stop_if_interrupted(&self, interrupted: &AtomicBool) -> Result<()> {
        if self.progress.interrupted() || interrupted.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }

    fn take_slab<F: FnMut(&[u8]) -> Option<OlderContent>>(&mut self, ingest: &mut Ingest<F>, slab: &mut Slab) -> Result<()> {
        let (bytes, in_order) = (slab.input_bytes(), slab.lane == 0);
        if in_order {
            self.release()?;
        }
        let done = ingest.slab(self.writer, slab)?;
        self.progress.bytes(bytes);
        done.into_iter().try_for_each(|ingested| match ingested {
            Ingested::Entry(pending) if !in_order => {
                self.held.push(*pending);
                Ok(())
            }
            ingested => self.take(ingested),
        })
    }

    fn take_slabs(&mut self, slabs: &Receiver<Result<(Slab, More)>>, spent: &Sender<Slab>, interrupted: &AtomicBool) -> Result<()> {
        let known = self.known;
        let mut ingest = Ingest::new(|path: &[u8]| known.older(path));
        loop {
            self.stop_if_interrupted(interrupted)?;
            self.writer.check()?;
            let (mut slab, more) = match slabs.recv_timeout(Duration::from_millis(200)) {
                Ok(slab) => slab?,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => unreachable!("the last slab says so"),
            };
            self.take_slab(&mut ingest, &mut slab)?;
            // The reader may have ended already.
            let _ = spent.send(slab);
            if more == More::No {
                return self.release();
            }
        }
    }

    /// What was held comes before all that comes now.
    fn release(&mut self) -> Result<()> {
        let mut held = std::mem::take(&mut self.held);
        held.sort_by(|a, b| path_order(&a.entry.path, &b.entry.path));
        held.into_iter().try_for_each(|pending| self.take(Ingested::Entry(Box::new(pending))))
    }

    fn take(&mut self, ingested: Ingested) -> Result<()> {
        let mut pending = match ingested {
            Ingested::Problem(problem) => {
                self.totals.flawed += 1;
                self.progress.problem(&problem);
                return Ok(());
            }
            Ingested::Entry(pending) => pending,
        };
        let totals = &mut self.totals;
        match &pending.entry.node {
            Node::File { content } => {
                totals.files += 1;
                totals.bytes += content.as_ref().map_or(pending.bytes_read, |content| content.stored_len());
                match self.known.take_older(&pending.entry.path) {
                    _ if pending.known => totals.files_unmodified += 1,
                    None => totals.files_new += 1,
                    Some(older) if Some(older.content.hash) == pending.content_hash() => {
                        totals.files_unmodified += 1;
                        // The same bytes keep their time, so that an unchanged stream has an unchanged catalog.
                        pending.entry.meta = older.meta.unwrap_or(pending.entry.meta);
                    }
                    Some(_) => totals.files_changed += 1,
                }
            }
            Node::Folder => totals.folders += 1,
            _ => totals.others += 1,
        }
        self.progress.files(1);
        self.catalog.add(self.writer, *pending)
    }
}

/// Slabs are made as they are needed: what is little needs one.
fn read_ahead(source: &mut dyn Source, slab_bytes: usize, empty: &Receiver<Slab>, filled: &Sender<Result<(Slab, More)>>) {
    let mut made = 0;
    loop {
        let mut slab = match empty.try_recv() {
            Err(TryRecvError::Empty) if made < SLABS => {
                made += 1;
                Slab::new(slab_bytes)
            }
            Err(TryRecvError::Empty) => match empty.recv() {
                Ok(slab) => slab,
                Err(_) => return,
            },
            Ok(slab) => slab,
            Err(TryRecvError::Disconnected) => return,
        };
        slab.clear();
        let result = source.fill(&mut slab);
        let last = !matches!(result, Ok(More::Yes));
        if filled.send(result.map(|more| (slab, more))).is_err() || last {
            return;
        }
    }
}
