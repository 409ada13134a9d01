//! What the library needs of the world besides storage: the time, randomness, and a place for temporary files.
//!
//! All are passed in, so that whole histories can be replayed from a seed. Nothing else in the library
//! looks at a clock or a random source, but for elapsed time that is shown to people and stored nowhere.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;

type Clock = dyn Fn() -> Timestamp + Send + Sync;
type Stopwatch = dyn Fn() -> Duration + Send + Sync;
type RandomSource = dyn Fn(&mut [u8]) + Send + Sync;

/// A clock, a random source, and perhaps a folder for temporary files.
pub struct World {
    now: Box<Clock>,
    elapsed: Box<Stopwatch>,
    fill: Box<RandomSource>,
    scratch: Option<PathBuf>,
}

impl World {
    /// The system's clock and random source.
    pub fn system() -> Self {
        let begun = Instant::now();
        let world = Self::new(Timestamp::now, |bytes| {
            getrandom::fill(bytes).expect("the operating system gives random bytes");
        });
        Self { elapsed: Box::new(move || begun.elapsed()), ..world }
    }

    /// The same with a folder for temporary files.
    pub fn with_scratch(self, folder: PathBuf) -> Self {
        Self { scratch: Some(folder), ..self }
    }

    /// A world of the caller's own, in which nothing takes any time.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static, fill: impl Fn(&mut [u8]) + Send + Sync + 'static) -> Self {
        Self { now: Box::new(now), elapsed: Box::new(Duration::default), fill: Box::new(fill), scratch: None }
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        (self.now)()
    }

    /// Time since some moment, by a clock that is never set.
    pub fn elapsed(&self) -> Duration {
        (self.elapsed)()
    }

    /// Folder for temporary files; without one they are kept in memory.
    pub fn scratch(&self) -> Option<&Path> {
        self.scratch.as_deref()
    }

    /// Fresh random bytes.
    pub fn random<const LEN: usize>(&self) -> [u8; LEN] {
        let mut bytes = [0u8; LEN];
        (self.fill)(&mut bytes);
        bytes
    }
}
