//! What the library needs of the world besides storage: the time and randomness.
//!
//! Both are passed in, so that whole histories can be replayed from a seed. Nothing else in the library
//! looks at a clock or a random source, but for elapsed time shown to people.

use jiff::Timestamp;

type Clock = dyn Fn() -> Timestamp + Send + Sync;
type RandomSource = dyn Fn(&mut [u8]) + Send + Sync;

/// A clock and a random source.
pub struct World {
    now: Box<Clock>,
    fill: Box<RandomSource>,
}

impl World {
    /// The system's clock and random source.
    pub fn system() -> Self {
        Self::new(Timestamp::now, |bytes| {
            getrandom::fill(bytes).expect("the operating system gives random bytes");
        })
    }

    /// A world of the caller's own.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static, fill: impl Fn(&mut [u8]) + Send + Sync + 'static) -> Self {
        Self { now: Box::new(now), fill: Box::new(fill) }
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        (self.now)()
    }

    /// Fresh random bytes.
    pub fn random<const LEN: usize>(&self) -> [u8; LEN] {
        let mut bytes = [0u8; LEN];
        (self.fill)(&mut bytes);
        bytes
    }
}
