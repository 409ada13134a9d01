//! What lies in memory between two stages of a backup. Here tests flip bits, as bad memory does; otherwise nothing happens.

/// What has just been done to the bytes that wait for the next stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Input, in its slab: hashed, not yet taken into a frame.
    Hashed,
    /// Input that does not make a chunk yet: waiting for the next slab.
    Carried,
    /// A frame: gathered, not yet compressed.
    Gathered,
    /// A base: gathered, no delta made against it yet.
    Base,
    /// A frame: compressed, not yet sealed.
    Compressed,
    /// A frame: sealed, not yet read back.
    Sealed,
    /// A frame: opened again, not yet decompressed.
    Opened,
    /// A pack: its frames are in it, but it is not ended.
    Packed,
    /// An index segment or snapshot: sealed and read back, not yet stored.
    Object,
}

#[cfg(not(test))]
#[inline(always)]
pub fn between(_: Stage, _: &mut [u8]) {}

#[cfg(test)]
pub use flips::*;

#[cfg(test)]
mod flips {
    use std::cell::RefCell;

    use super::Stage;

    /// One bit to be flipped on this thread: at which visit of which stage, and where (counted round).
    #[derive(Clone, Copy, Debug)]
    pub struct Flip {
        pub stage: Stage,
        pub visit: u64,
        pub bit: u64,
    }

    thread_local! {
        /// What is to be flipped, and how often its stage was visited.
        static PLANNED: RefCell<(Option<Flip>, u64)> = const { RefCell::new((None, 0)) };
    }

    pub fn between(stage: Stage, bytes: &mut [u8]) {
        PLANNED.with_borrow_mut(|(flip, visits)| {
            let Some(planned) = flip.filter(|flip| flip.stage == stage && !bytes.is_empty()) else { return };
            if *visits == planned.visit {
                let bit = planned.bit % (bytes.len() as u64 * 8);
                bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
            }
            *visits += 1;
        });
    }

    impl Flip {
        /// Does something on this thread with the bit flipped, and says whether the moment came.
        pub fn during<T>(self, act: impl FnOnce() -> T) -> (T, bool) {
            PLANNED.set((Some(self), 0));
            let result = act();
            let (_, visits) = PLANNED.take();
            (result, visits > self.visit)
        }
    }
}
