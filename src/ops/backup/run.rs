//! The middle of a backup, and of a copy: from a source's slabs to a catalog.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::known::Known;
use crate::error::{Error, Result};
use crate::format::entry::{Node, path_order};
use crate::format::snapshot::Totals;
use crate::progress::Progress;
use crate::repo::{CatalogWriter, Ingest, Ingested, PendingEntry, Writer};
use crate::source::{More, Slab, Source};

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
    /// Takes slab after slab from the source, which reads ahead on a thread of its own until it ends or `stop` is set.
    pub fn work(&mut self, mut source: Box<dyn Source + '_>, slab_bytes: usize, interrupted: &AtomicBool, stop: &AtomicBool) -> Result<()> {
        std::thread::scope(|scope| {
            let (filled, slabs) = bounded::<Result<(Slab, More)>>(1);
            let (spent, empty) = bounded(3);
            for _ in 0..3 {
                spent.send(Slab::new(slab_bytes)).expect("there is room");
            }
            scope.spawn(move || read_ahead(&mut *source, &empty, &filled));
            let result = self.take_slabs(&slabs, &spent, interrupted);
            // A source that waits for bytes must not keep a failure waiting.
            stop.store(true, Ordering::Relaxed);
            result
        })
    }

    fn take_slabs(&mut self, slabs: &Receiver<Result<(Slab, More)>>, spent: &Sender<Slab>, interrupted: &AtomicBool) -> Result<()> {
        let known = self.known;
        let mut ingest = Ingest::new(|path: &[u8]| known.older(path));
        loop {
            if self.progress.interrupted() || interrupted.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            self.writer.check()?;
            let (mut slab, more) = match slabs.recv_timeout(Duration::from_millis(200)) {
                Ok(slab) => slab?,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => unreachable!("the last slab says so"),
            };
            let (bytes, in_order) = (slab.input_bytes(), slab.lane == 0);
            if in_order {
                self.release()?;
            }
            let done = ingest.slab(self.writer, &mut slab)?;
            self.progress.bytes(bytes);
            for ingested in done {
                match ingested {
                    Ingested::Entry(pending) if !in_order => self.held.push(*pending),
                    ingested => self.take(ingested)?,
                }
            }
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
                    Some(older) if Some(older.hash) == pending.content_hash() => {
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

fn read_ahead(source: &mut dyn Source, empty: &Receiver<Slab>, filled: &Sender<Result<(Slab, More)>>) {
    for mut slab in empty {
        slab.clear();
        let result = source.fill(&mut slab);
        let last = !matches!(result, Ok(More::Yes));
        if filled.send(result.map(|more| (slab, more))).is_err() || last {
            return;
        }
    }
}
