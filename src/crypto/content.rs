//! The hash of a whole content, whose bytes come in pieces of any length.

use crate::id::ContentHash;

/// BLAKE3 hashes sixteen of its blocks of 1 KiB side by side, but only where they stand together in its tree, that is, begin at a
/// multiple of their length. Pieces that begin anywhere break that up at both ends.
const ALIGNED_BYTES: usize = 64 << 10;

/// Hashes pieces one after the other on this thread, as fast as if they were one.
#[derive(Default)]
pub struct ContentHasher {
    hasher: blake3::Hasher,
    /// What came last and does not fill an aligned stretch yet.
    rest: Vec<u8>,
}

impl ContentHasher {
    pub fn update(&mut self, mut bytes: &[u8]) {
        if !self.rest.is_empty() {
            let (filling, beyond) = bytes.split_at(bytes.len().min(ALIGNED_BYTES - self.rest.len()));
            self.rest.extend_from_slice(filling);
            bytes = beyond;
            if self.rest.len() < ALIGNED_BYTES {
                return;
            }
            self.hasher.update(&self.rest);
            self.rest.clear();
        }
        let (aligned, rest) = bytes.split_at(bytes.len() / ALIGNED_BYTES * ALIGNED_BYTES);
        self.hasher.update(aligned);
        self.rest.extend_from_slice(rest);
    }

    pub fn finish(mut self) -> ContentHash {
        self.hasher.update(&self.rest);
        ContentHash(*self.hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_hash_as_the_whole() {
        let bytes: Vec<u8> = (0..700_000u32).map(|i| ((i / 7) ^ i) as u8).collect();
        let whole = ContentHash(*blake3::hash(&bytes).as_bytes());
        for len in [1000, 1024, 4095, ALIGNED_BYTES - 1, ALIGNED_BYTES, ALIGNED_BYTES + 1, 300_000, 700_000] {
            let mut hasher = ContentHasher::default();
            bytes.chunks(len).for_each(|piece| hasher.update(piece));
            assert_eq!(hasher.finish(), whole, "{len}");
        }
        assert_eq!(ContentHasher::default().finish().0, *blake3::hash(b"").as_bytes());
    }
}
