//! Content-defined cutting: FastCDC v2020 (Xia et al., USENIX ATC 2016 and IEEE TPDS 2020), normalization 1, with a gear table of the
//! repository's own.
//!
//! Where a chunk ends depends on its own bytes alone, so the same bytes after the same cut end at the same cut. Two kernels give
//! the same cuts: the scanner of `gearhash` (AVX2, SSE or NEON, chosen at run time) and the loop of `fastcdc`, kept as the reference
//! in tests. Golden vectors pin the cuts.

use gearhash::Hasher;

use crate::format::manifest::ChunkerParameters;

/// One random word for each byte value.
pub type GearTable = [u64; 256];

/// Cuts bytes into chunks.
pub struct Cutter {
    min: usize,
    center: usize,
    max: usize,
    mask_small: u64,
    mask_large: u64,
    gear: Box<GearTable>,
}

impl Cutter {
    /// A cutter for sizes that the manifest's decoder accepted.
    pub fn new(parameters: &ChunkerParameters, gear: Box<GearTable>) -> Self {
        let (min, avg, max) = (parameters.min as usize, parameters.avg as usize, parameters.max as usize);
        assert!(min < avg && avg < max && [min, avg, max].iter().all(|size| size.is_power_of_two()));
        let (mask_small, mask_large) = fastcdc::v2020::select_masks(avg, fastcdc::v2020::Normalization::Level1);
        Self { min, center: avg, max, mask_small, mask_large, gear }
    }

    /// Largest chunk in bytes: with as many bytes at hand a cut does not depend on what follows.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Length of the chunk at the start of `bytes`, which hold at least [`Self::max`] bytes or all that is left of the file.
    pub fn cut(&self, bytes: &[u8]) -> usize {
        let len = bytes.len().min(self.max);
        if len <= self.min {
            return len;
        }
        // FastCDC v2020 looks at bytes in pairs, so an odd last byte is never a cut.
        let end = len & !1;
        let center = self.center.min(end);
        let mut hasher = Hasher::new(&self.gear);
        // The scanner returns how many bytes it took, the matching one included; that one begins the next chunk.
        if let Some(taken) = hasher.next_match(&bytes[self.min..center], self.mask_small) {
            return self.min + taken - 1;
        }
        match hasher.next_match(&bytes[center..end], self.mask_large) {
            Some(taken) => center + taken - 1,
            None => len,
        }
    }

    /// The same with the loop of `fastcdc`.
    #[cfg(test)]
    fn cut_reference(&self, bytes: &[u8]) -> usize {
        let shifted: Vec<u64> = self.gear.iter().map(|word| word << 1).collect();
        let avg = self.center;
        let (small, large) = (self.mask_small, self.mask_large);
        fastcdc::v2020::cut_gear(bytes, self.min, avg, self.max, small, large, small << 1, large << 1, &self.gear[..], &shifted).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(len: usize, key: &str) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new_derive_key(key).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn cutter() -> Cutter {
        let words = random(2048, "snap test gear");
        let mut gear = Box::new([0; 256]);
        for (word, bytes) in gear.iter_mut().zip(words.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().unwrap());
        }
        Cutter::new(&ChunkerParameters::default(), gear)
    }

    fn text(len: usize) -> Vec<u8> {
        (0u64..).flat_map(|i| format!("{i}\trow {}\t{}\n", i * 7919 % 10007, i % 13).into_bytes()).take(len).collect()
    }

    fn cuts(bytes: &[u8], cut: impl Fn(&[u8]) -> usize) -> Vec<usize> {
        let mut at = 0;
        let mut lens = Vec::new();
        while at < bytes.len() {
            let len = cut(&bytes[at..]);
            assert!(len > 0);
            lens.push(len);
            at += len;
        }
        lens
    }

    #[test]
    fn both_kernels_give_the_same_cuts() {
        let cutter = cutter();
        for (name, bytes) in [("random", random(8 << 20, "snap test data")), ("text", text(8 << 20)), ("zeros", vec![0; 1 << 20])] {
            let fast = cuts(&bytes, |bytes| cutter.cut(bytes));
            let reference = cuts(&bytes, |bytes| cutter.cut_reference(bytes));
            assert_eq!(fast, reference, "{name}");
        }
        let bytes = random(300_000, "snap test tails");
        for len in (0..300).chain(4000..4200).chain(130_900..131_200) {
            let tail = &bytes[bytes.len() - len..];
            if len > 0 {
                assert_eq!(cutter.cut(tail), cutter.cut_reference(tail), "{len}");
            }
        }
    }

    /// A changed cut point stores everything again, so these never change.
    #[test]
    fn golden_cut_points() {
        let cutter = cutter();
        let check = |bytes: &[u8], count: usize, first: &[usize]| {
            let lens = cuts(bytes, |bytes| cutter.cut(bytes));
            assert_eq!((lens.len(), &lens[..first.len()]), (count, first));
        };
        check(&random(4 << 20, "snap test data"), 220, &[24410, 26493, 29699, 14140, 27486, 23249, 18924, 10537]);
        check(&text(4 << 20), 203, &[30951, 17418, 4648, 28774, 39220, 22473, 11100, 17640]);
        check(&[0; 1 << 20], 8, &[131072; 8]);
    }
}
