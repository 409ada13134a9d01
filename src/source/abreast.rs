//! Several streams read at once, of which none waits for another.
//!
//! A slab holds bytes of one of them and says of which (its lane); a stream's slabs come in order, and those of others between them. So
//! many threads fill slabs side by side. Their streams end in any order: who takes the slabs puts the entries into path order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::{More, Slab, Source};
use crate::error::{Error, Result};

/// Streams in the order in which they are to be begun, and what has to be there until all have ended.
pub struct Streams {
    pub list: Vec<Box<dyn Source>>,
    pub guard: Box<dyn Send>,
}

/// Finds out which streams there are.
pub type OpenStreams = Box<dyn FnOnce() -> Result<Streams> + Send>;

/// Reads streams at once, from the first `fill` on.
pub struct AbreastSource {
    waiting: Option<(OpenStreams, usize)>,
    crew: Option<Crew>,
    /// Ends the streams, too.
    stop: Arc<AtomicBool>,
}

/// Threads that fill slabs.
struct Crew {
    threads: Vec<JoinHandle<()>>,
    filled: Receiver<(u32, Result<(Slab, More)>)>,
    spent: Sender<Slab>,
    /// Streams that have not ended.
    left: usize,
    guard: Box<dyn Send>,
}

type Queue = Arc<Mutex<VecDeque<(u32, Box<dyn Source>)>>>;

impl AbreastSource {
    /// At most `at_once` of the streams are read at a time. `stop` is set when this is dropped before its end.
    pub fn new(open: OpenStreams, at_once: usize, stop: Arc<AtomicBool>) -> Self {
        Self { waiting: Some((open, at_once.max(1))), crew: None, stop }
    }
}

impl Crew {
    fn start(streams: Streams, at_once: usize, capacity: usize) -> Self {
        let left = streams.list.len();
        let queue: Queue = Arc::new(Mutex::new((1..).zip(streams.list).collect()));
        let (spent, empty) = unbounded();
        // One for each thread, and some on their way.
        for _ in 0..at_once + 2 {
            spent.send(Slab::new(capacity)).expect("there is room");
        }
        let (done, filled) = bounded(at_once);
        let worker = |_| {
            let (queue, empty, done) = (queue.clone(), empty.clone(), done.clone());
            std::thread::spawn(move || work(&queue, &empty, &done))
        };
        Self { threads: (0..at_once.min(left)).map(worker).collect(), filled, spent, left, guard: streams.guard }
    }
}

/// Reads one stream after the other to its end.
fn work(queue: &Queue, empty: &Receiver<Slab>, done: &Sender<(u32, Result<(Slab, More)>)>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some((lane, mut source)) = next else { return };
        loop {
            let Ok(mut slab) = empty.recv() else { return };
            slab.clear();
            slab.lane = lane;
            let result = source.fill(&mut slab);
            let (has_failed, is_over) = (result.is_err(), !matches!(result, Ok(More::Yes)));
            if done.send((lane, result.map(|more| (slab, more)))).is_err() || has_failed {
                return;
            }
            if is_over {
                break;
            }
        }
    }
}

impl Source for AbreastSource {
    fn fill(&mut self, slab: &mut Slab) -> Result<More> {
        if let Some((open, at_once)) = self.waiting.take() {
            self.crew = Some(Crew::start(open()?, at_once, slab.room()));
        }
        let Some(crew) = self.crew.as_mut().filter(|crew| crew.left > 0) else { return Ok(More::No) };
        // None of the threads is left only after one of them has failed.
        let (lane, result) = crew.filled.recv().map_err(|_| Error::Interrupted)?;
        let (mut full, more) = result?;
        std::mem::swap(slab, &mut full);
        slab.lane = lane;
        let _ = crew.spent.send(full);
        crew.left -= usize::from(more == More::No);
        if crew.left > 0 {
            return Ok(More::Yes);
        }
        self.crew = None;
        Ok(More::No)
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        // Hung up on, whoever waits to hand something over ends.
        self.filled = crossbeam_channel::never();
        self.spent = unbounded().0;
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
        self.guard = Box::new(());
    }
}

impl Drop for AbreastSource {
    fn drop(&mut self) {
        if self.crew.is_some() {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::mpsc;

    use super::super::{Event, StreamSource};
    use super::*;
    use crate::format::entry::Meta;

    fn stream(name: &str, bytes: Vec<u8>) -> Box<dyn Source> {
        Box::new(StreamSource::new(name.into(), Box::new(std::io::Cursor::new(bytes)), Meta::default()))
    }

    /// Says when it is dropped.
    struct Guard(Arc<AtomicBool>);

    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    fn abreast(list: Vec<Box<dyn Source>>, at_once: usize) -> (AbreastSource, Arc<AtomicBool>, Arc<AtomicBool>) {
        let (gone, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let guard = Box::new(Guard(gone.clone()));
        (AbreastSource::new(Box::new(move || Ok(Streams { list, guard })), at_once, stop.clone()), gone, stop)
    }

    #[test]
    fn every_stream_comes_whole_in_a_lane_of_its_own() {
        let content = |number: u8| vec![number; 1000 * usize::from(number)];
        for at_once in [1, 2, 3, 9] {
            let list = (1..=5).map(|number| stream(&number.to_string(), content(number))).collect();
            let (mut source, gone, _) = abreast(list, at_once);
            let (mut found, mut ended) = (BTreeMap::<u32, Vec<u8>>::new(), 0);
            let mut slab = Slab::new(777);
            loop {
                slab.clear();
                let more = source.fill(&mut slab).unwrap();
                for event in &slab.events {
                    match event {
                        Event::Bytes { range } => found.entry(slab.lane).or_default().extend_from_slice(&slab.bytes[range.clone()]),
                        Event::End { .. } => ended += 1,
                        _ => {}
                    }
                }
                assert_eq!(gone.load(Ordering::SeqCst), more == More::No, "the guard stays until all have ended");
                if more == More::No {
                    break;
                }
            }
            assert_eq!(ended, 5);
            assert!((1..=5).all(|number| found[&number.into()] == content(number)) && found.len() == 5);
        }
    }

    /// Two that each wait for the other to be begun end only if they are read at once.
    #[test]
    fn they_are_read_at_once() {
        struct Pair(mpsc::Sender<()>, mpsc::Receiver<()>);
        impl std::io::Read for Pair {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                let _ = self.0.send(());
                let _ = self.1.recv();
                Ok(0)
            }
        }
        let ((a, b), (c, d)) = (mpsc::channel(), mpsc::channel());
        let pair = |name: &str, pair: Pair| Box::new(StreamSource::new(name.into(), Box::new(pair), Meta::default())) as Box<dyn Source>;
        let (mut source, ..) = abreast(vec![pair("a", Pair(a, d)), pair("b", Pair(c, b))], 2);
        let mut slab = Slab::new(100);
        while source.fill(&mut slab).unwrap() == More::Yes {
            slab.clear();
        }
    }

    #[test]
    fn a_failure_ends_all() {
        struct Fails;
        impl Source for Fails {
            fn fill(&mut self, _: &mut Slab) -> Result<More> {
                Err(Error::NotFound("it".into()))
            }
        }
        struct Endless(Arc<AtomicBool>);
        impl std::io::Read for Endless {
            fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
                if self.0.load(Ordering::Relaxed) { Err(std::io::Error::other("stopped")) } else { Ok(bytes.len().min(10)) }
            }
        }
        let (gone, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let endless = StreamSource::new(b"e".to_vec(), Box::new(Endless(stop.clone())), Meta::default());
        let list: Vec<Box<dyn Source>> = vec![Box::new(endless), Box::new(Fails)];
        let guard = Box::new(Guard(gone.clone()));
        let mut source = AbreastSource::new(Box::new(move || Ok(Streams { list, guard })), 2, stop);
        let mut slab = Slab::new(100);
        let error = loop {
            slab.clear();
            match source.fill(&mut slab) {
                Ok(more) => assert_eq!(more, More::Yes),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::NotFound(_)));
        drop(source);
        assert!(gone.load(Ordering::SeqCst));
    }
}
