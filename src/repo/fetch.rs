//! Fetching: the frames of what is wanted, decoded ahead on all cores, and handed on in order.
//!
//! What is little is decoded by whoever wants it: to start a thread would take longer.
//!
//! Of a frame, only the chunks that are wanted are verified, since much may be read for a few of them, or for what was stored as a
//! delta, which is verified itself.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::frames::Frame;
use super::reader::{Reader, Verify};
use crate::error::{Error, Result};
use crate::format::recipe::Run;
use crate::id::FrameId;
use crate::limits::*;

/// A run that somebody wants, and what for.
pub struct Wanted<T> {
    pub tag: T,
    pub run: Run,
}

/// A run and its frame; the error is shared by all runs of the frame.
pub struct Fetched<T> {
    pub tag: T,
    pub run: Run,
    pub frame: std::result::Result<Arc<Frame>, Arc<Error>>,
}

impl<T> Fetched<T> {
    /// The bytes of the run. What is damaged is the error that `lost` makes of why.
    pub fn bytes(&self, lost: impl Fn(String) -> Error) -> Result<&[u8]> {
        let frame = match &self.frame {
            Err(error) if !error.is_damage() => return Err(error.again()),
            frame => frame.as_ref().map_err(|error| lost(error.to_string()))?,
        };
        frame.chunks(&self.run).ok_or_else(|| lost(frame.damage.clone().unwrap_or_default()))
    }
}

/// What became of a frame; the error is shared by all runs of it.
type Decoded = OnceLock<std::result::Result<Arc<Frame>, Arc<Error>>>;

/// Runs of a few frames, and what becomes of these.
type Batch<T> = Vec<(Wanted<T>, Arc<Decoded>)>;

/// A frame to be decoded.
struct Job {
    id: FrameId,
    /// The chunks that are wanted.
    ordinals: Vec<Range<usize>>,
    decoded: Arc<Decoded>,
}

impl Job {
    fn done(&self, result: Result<Arc<Frame>>) {
        let _ = self.decoded.set(result.map_err(Arc::new));
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // Whoever waits must not wait for ever if the decoding thread is gone.
        self.decoded.get_or_init(|| Err(Arc::new(Error::ReadBack(format!("frame {}", self.id)))));
    }
}

impl Reader {
    /// Hands the wanted runs with their frames to `each`, in order, a batch at a time. Up to three batches are under way: while one is
    /// used, frames of the next are decoded, by as many threads as there are cores.
    pub fn fetch<T: Send>(
        &self,
        wanted: impl Iterator<Item = Result<Wanted<T>>> + Send,
        mut each: impl FnMut(Vec<Fetched<T>>) -> Result<()>,
    ) -> Result<()> {
        self.widen();
        let mut wanted = wanted.peekable();
        let (first, first_jobs) = self.batch(&mut wanted)?;
        if wanted.peek().is_none() && self.is_little(&first_jobs) {
            first_jobs.into_iter().for_each(|job| job.done(self.wanted(&job)));
            return each(self.fetched(first));
        }
        let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
        std::thread::scope(|scope| {
            let (jobs, queue) = crossbeam_channel::unbounded::<Job>();
            for _ in 0..threads {
                let queue = queue.clone();
                scope.spawn(move || queue.into_iter().for_each(|job| job.done(self.wanted(&job))));
            }
            let (sender, receiver) = crossbeam_channel::bounded(1);
            scope.spawn(move || {
                let mut next = Ok((first, first_jobs));
                loop {
                    let batch = next.map(|(batch, batch_jobs)| {
                        // Nobody hangs up before this thread does.
                        batch_jobs.into_iter().for_each(|job| drop(jobs.send(job)));
                        batch
                    });
                    let failed = batch.is_err();
                    if sender.send(batch).is_err() || failed || wanted.peek().is_none() {
                        return;
                    }
                    next = self.batch(&mut wanted);
                }
            });
            for batch in receiver {
                each(self.fetched(batch?))?;
            }
            Ok(())
        })
    }

    /// Waits for the frames of a batch.
    fn fetched<T>(&self, batch: Batch<T>) -> Vec<Fetched<T>> {
        let fetched = |(Wanted { tag, run }, decoded): (Wanted<T>, Arc<Decoded>)| {
            let frame = match decoded.wait() {
                Ok(frame) if !frame.has(&run) => self.frame_with(&run).map_err(Arc::new),
                decoded => decoded.clone(),
            };
            Fetched { tag, run, frame }
        };
        batch.into_iter().map(fetched).collect()
    }

    /// Takes what the next few frames hold of what is wanted, and says which frames these are.
    fn batch<T>(&self, wanted: &mut impl Iterator<Item = Result<Wanted<T>>>) -> Result<(Batch<T>, Vec<Job>)> {
        let mut frames: HashMap<FrameId, usize> = HashMap::new();
        let mut order: Vec<Job> = Vec::new();
        let mut batch = Vec::new();
        while order.len() < FETCH_FRAMES && batch.len() < FRAME_CHUNKS_MAX {
            let Some(item) = wanted.next().transpose()? else { break };
            let index = *frames.entry(item.run.frame).or_insert(order.len());
            if index == order.len() {
                order.push(Job { id: item.run.frame, ordinals: Vec::new(), decoded: Arc::default() });
            }
            order[index].ordinals.push(item.run.first as usize..(item.run.first + item.run.count) as usize);
            batch.push((item, order[index].decoded.clone()));
        }
        // Frames stored as deltas come after the others, which are likely to be their bases.
        let is_delta = |job: &Job| self.locator().places(&job.id).first().is_some_and(|(_, location)| location.info.is_delta());
        order.sort_by_cached_key(is_delta);
        Ok((batch, order))
    }

    fn is_little(&self, jobs: &[Job]) -> bool {
        let plain_len = |job: &Job| self.locator().places(&job.id).first().map_or(0, |(_, location)| location.info.plain_len as usize);
        jobs.iter().map(plain_len).sum::<usize>() <= FETCH_ALONE_BYTES
    }

    /// A frame whose wanted chunks are verified; if one does not fit, all of the frame and its bases are verified, and other copies tried.
    fn wanted(&self, job: &Job) -> Result<Arc<Frame>> {
        let frame = self.shelved(&job.id, Verify::Later)?;
        let mut ordinals = job.ordinals.iter().cloned();
        if ordinals.all(|ordinals| self.fits(&frame, ordinals)) { Ok(frame) } else { self.frame(&job.id) }
    }
}
