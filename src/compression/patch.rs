//! A frame as copies from its base and the new bytes between them: for frames in which little has changed.
//!
//! Where rows of a dump change here and there, long stretches of a frame stand in its base as they are. Those are found by looking where the
//! last copy left off and, if that fails, for 32 bytes of the frame among those at every 32nd byte of the base (Bentley and McIlroy, "Data
//! Compression with Long Repeated Strings", 1999), which takes a fifth of the time of a compressor that hashes every byte of both. What
//! many rows share is found in wrong places first: so a match somewhere else must be long, and a short one where the last copy left
//! off gives way to a longer one that begins before it ends.

use crate::format::codec::{Reader, Write};
use crate::format::{FormatError, Result};

/// Bytes that are hashed to be found.
const BLOCK_BYTES: usize = 32;
/// A match anywhere in the base has at least so many bytes.
const MATCH_BYTES_MIN: usize = 128;
/// A match near the place where the last copy left off has at least so many.
const NEAR_MATCH_BYTES_MIN: usize = 36;
const NEAR_BYTES: usize = 2048;
/// New bytes after which the base may go on in step with the frame: what was replaced by as much.
const IN_STEP_BYTES: usize = 64;
/// How much longer a match elsewhere must be than one in step.
const ADVANTAGE_BYTES: usize = 16;
/// A frame may be one part in so many new bytes; each copy counts for some.
const NEW_SHARE: usize = 32;
const COPY_BYTES: usize = 16;
/// Where more copies than these, and one for so many bytes, are found, a compressor takes less time, and no more bytes.
const COPIES_FREE: usize = 64;
const BYTES_PER_COPY: usize = 1024;

type Block = [u8; BLOCK_BYTES];

/// Bytes of the frame that stand in the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// New bytes before it.
    pub skipped: usize,
    /// Where it begins in the base.
    pub from: usize,
    pub len: usize,
}

/// Where a match begins in the frame and in the base, and its length.
#[derive(Clone, Copy, Default)]
struct Match {
    at: usize,
    from: usize,
    len: usize,
}

/// Finds copies; its memory is used again.
#[derive(Default)]
pub struct Finder {
    /// By a block's hash, where in the base it was last.
    places: Vec<u32>,
    /// What a hash is shifted by.
    shift: u32,
}

const NOWHERE: u32 = u32::MAX;

impl Finder {
    /// The copies that make most of `plain` of `base`; nothing if too much is left.
    pub fn find(&mut self, base: &[u8], plain: &[u8]) -> Option<Vec<Copy>> {
        self.learn(base);
        let budget = plain.len() / NEW_SHARE;
        let (mut copies, mut spent) = (Vec::new(), 0);
        // The end of the last copy, in the frame and in the base.
        let (mut at, mut from) = (0, 0);
        while let Some(found) = self.next_match(base, plain, at, from, at + budget.saturating_sub(spent)) {
            let copy = Copy { skipped: found.at - at, from: found.from, len: found.len };
            spent += copy.skipped + COPY_BYTES;
            copies.push(copy);
            (at, from) = (found.at + found.len, found.from + found.len);
            if copies.len() > COPIES_FREE + at / BYTES_PER_COPY {
                return None;
            }
        }
        (spent + plain.len() - at <= budget).then_some(copies)
    }

    /// Notes where the base's blocks are.
    fn learn(&mut self, base: &[u8]) {
        let bits = (base.len() / BLOCK_BYTES * 2).max(16).next_power_of_two().ilog2();
        self.shift = u64::BITS - bits;
        self.places.clear();
        self.places.resize(1 << bits, NOWHERE);
        for (i, block) in base.as_chunks::<BLOCK_BYTES>().0.iter().enumerate() {
            self.places[(hash(block) >> self.shift) as usize] = (i * BLOCK_BYTES) as u32;
        }
    }

    /// The next match in the frame at or after `at`, where the base stood at `from`; looked for up to `until`.
    fn next_match(&self, base: &[u8], plain: &[u8], at: usize, from: usize, until: usize) -> Option<Match> {
        let in_step = in_step(base, plain, at, from).unwrap_or_default();
        if in_step.len >= MATCH_BYTES_MIN {
            return Some(in_step);
        }
        let until = if in_step.len > 0 { in_step.at + in_step.len } else { until + 1 };
        let mut next = at;
        while let Some(block) = plain.get(next..).and_then(|rest| rest.first_chunk::<BLOCK_BYTES>()).filter(|_| next < until) {
            let place = self.places[(hash(block) >> self.shift) as usize];
            if place == NOWHERE || base[place as usize..].first_chunk::<BLOCK_BYTES>() != Some(block) {
                next += 1;
                continue;
            }
            let place = place as usize;
            let ahead = common_start(&plain[next..], &base[place..]);
            let behind = common_end(&plain[at..next], &base[..place]);
            let found = Match { at: next - behind, from: place - behind, len: behind + ahead };
            let is_near = place.abs_diff(from + (next - at)) < NEAR_BYTES;
            let enough = if is_near { NEAR_MATCH_BYTES_MIN } else { MATCH_BYTES_MIN };
            if found.len >= enough && found.len > in_step.len + ADVANTAGE_BYTES {
                return Some(found);
            }
            // What begins within this match would be no better.
            next += ahead - BLOCK_BYTES + 1;
        }
        (in_step.len > 0).then_some(in_step)
    }
}

/// A match that goes on where the last copy left off, after as many bytes in the base as in the frame.
fn in_step(base: &[u8], plain: &[u8], at: usize, from: usize) -> Option<Match> {
    let (plain, base) = (plain.get(at..)?, base.get(from..)?);
    let block = |bytes: &[u8], skipped: usize| bytes.get(skipped..)?.first_chunk::<BLOCK_BYTES>().copied();
    let skipped = (0..IN_STEP_BYTES).find(|&skipped| block(plain, skipped).is_some_and(|own| block(base, skipped) == Some(own)))?;
    let len = common_start(&plain[skipped..], &base[skipped..]);
    Some(Match { at: at + skipped, from: from + skipped, len })
}

fn hash(block: &Block) -> u64 {
    let [a, b, c, d] = [0, 8, 16, 24].map(|at| u64::from_le_bytes(block[at..at + 8].try_into().expect("eight bytes")));
    let (a, b) = (a.wrapping_mul(0x9e37_79b9_7f4a_7c15), b.rotate_left(29).wrapping_mul(0xc2b2_ae3d_27d4_eb4f));
    let (c, d) = (c.wrapping_mul(0x1656_67b1_9e37_79f9), d.rotate_left(31));
    (a ^ b).wrapping_add((c ^ d).wrapping_mul(0x27d4_eb2f_1656_67c5)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn common_start(a: &[u8], b: &[u8]) -> usize {
    let blocks = a.as_chunks::<BLOCK_BYTES>().0.iter().zip(b.as_chunks::<BLOCK_BYTES>().0).take_while(|(a, b)| a == b).count();
    let start = blocks * BLOCK_BYTES;
    start + a[start..].iter().zip(&b[start..]).take_while(|(a, b)| a == b).count()
}

fn common_end(a: &[u8], b: &[u8]) -> usize {
    a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

/// Writes copies column by column: new bytes before each, how far each begins from where it is expected, lengths.
pub fn encode(copies: &[Copy]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_varint(copies.len() as u64);
    copies.iter().for_each(|copy| bytes.put_varint(copy.skipped as u64));
    let mut expected = 0;
    for copy in copies {
        expected += copy.skipped;
        bytes.put_signed(copy.from as i64 - expected as i64);
        expected = copy.from + copy.len;
    }
    copies.iter().for_each(|copy| bytes.put_varint(copy.len as u64));
    bytes
}

/// The bytes of `plain` that no copy brings.
pub fn new_bytes(copies: &[Copy], plain: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = plain;
    for copy in copies {
        bytes.extend_from_slice(&rest[..copy.skipped]);
        rest = &rest[copy.skipped + copy.len..];
    }
    bytes.extend_from_slice(rest);
    bytes
}

/// Parses what [`encode`] wrote. Every copy lies within a base of `base_len` bytes, and all of them with what is skipped between take no
/// more than `plain_len`.
pub fn decode(bytes: &[u8], base_len: usize, plain_len: usize) -> Result<Vec<Copy>> {
    let mut reader = Reader::new(bytes);
    let count = reader.count(3, "number of copies")?;
    let mut copies = Vec::with_capacity(count);
    let mut left = plain_len;
    for _ in 0..count {
        let skipped = reader.length(left, "new bytes before a copy")?;
        left -= skipped;
        copies.push(Copy { skipped, from: 0, len: 0 });
    }
    let mut steps = Vec::with_capacity(count);
    for _ in 0..count {
        steps.push(reader.signed("place of a copy")?);
    }
    let mut expected = 0;
    for (copy, step) in copies.iter_mut().zip(steps) {
        let from = (expected as i64 + copy.skipped as i64).checked_add(step).and_then(|from| usize::try_from(from).ok());
        copy.from = from.filter(|&from| from < base_len).ok_or_else(|| reader.malformed("place of a copy"))?;
        copy.len = reader.length(left.min(base_len - copy.from), "length of a copy")?;
        if copy.len == 0 {
            return Err(reader.malformed("length of a copy"));
        }
        left -= copy.len;
        expected = copy.from + copy.len;
    }
    reader.finish()?;
    Ok(copies)
}

/// Puts copies and new bytes together: exactly `plain_len` bytes, appended to `plain`.
pub fn apply(copies: &[Copy], base: &[u8], mut new: &[u8], plain_len: usize, plain: &mut Vec<u8>) -> Result<()> {
    let wrong = || FormatError::Malformed { what: "new bytes of a patch", at: 0 };
    let copied: usize = copies.iter().map(|copy| copy.len).sum();
    if copied + new.len() != plain_len {
        return Err(wrong());
    }
    for copy in copies {
        let (skipped, rest) = new.split_at_checked(copy.skipped).ok_or_else(wrong)?;
        plain.extend_from_slice(skipped);
        plain.extend_from_slice(&base[copy.from..copy.from + copy.len]);
        new = rest;
    }
    plain.extend_from_slice(new);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(range: std::ops::Range<usize>) -> Vec<u8> {
        range.flat_map(|i| format!("{}\t{}\t0\t{:84}\n", 100_000 + i, i % 50 + 10, "").into_bytes()).collect()
    }

    fn noise(seed: u8, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn patched(base: &[u8], plain: &[u8]) -> Option<Vec<Copy>> {
        let copies = Finder::default().find(base, plain)?;
        let written = decode(&encode(&copies), base.len(), plain.len()).unwrap();
        assert_eq!(written, copies);
        let mut back = Vec::new();
        apply(&copies, base, &new_bytes(&copies, plain), plain.len(), &mut back).unwrap();
        assert!(back == plain);
        Some(copies)
    }

    /// How many copies, and how many new bytes.
    fn cost(base: &[u8], plain: &[u8]) -> (usize, usize) {
        let copies = patched(base, plain).expect("little is new");
        (copies.len(), new_bytes(&copies, plain).len())
    }

    #[test]
    fn what_did_not_change_is_one_copy() {
        for base in [rows(0..5000), noise(1, 500_000), vec![0; 100_000]] {
            assert_eq!(cost(&base, &base), (1, 0));
            assert_eq!(cost(&base, &base[..60_000]), (1, 0));
        }
        let base = noise(1, 500_000);
        assert_eq!(cost(&base, &base[77_777..]), (1, 0), "from somewhere in the base on");
        assert_eq!(cost(&base, &[&base[300_000..], &base[..300_000]].concat()), (2, 0), "halves that changed places");
    }

    #[test]
    fn what_was_replaced_put_in_or_left_out_costs_itself_and_a_copy() {
        let base = noise(1, 500_000);
        let with = |at: usize, out: usize, new: &[u8]| [&base[..at], new, &base[at + out..]].concat();
        for (at, out, new) in [(200_000, 1, 1), (200_001, 7, 7), (200_002, 64, 63), (250_000, 0, 40), (250_000, 400, 0), (1000, 3000, 2500)]
        {
            let new = noise(9, new);
            assert_eq!(cost(&base, &with(at, out, &new)), (2, new.len()), "{at}");
        }
        assert_eq!(cost(&base, &with(0, 100, &[])), (1, 0));
        assert_eq!(cost(&base, &with(499_900, 100, &[])), (1, 0));
        assert_eq!(cost(&base, &with(500_000, 0, b"an end")), (1, 6));
    }

    /// Most of a row is blank, as in all others: what is found there first is the wrong place, and to stay there would cost a copy a row.
    #[test]
    fn rows_that_are_much_alike_are_found_where_they_stood() {
        let base = rows(0..10_000);
        let row = |i: usize| i * 97..(i + 1) * 97;
        assert_eq!(rows(0..1).len(), 97);
        // A number that takes more digits, a row left out, one put in from elsewhere.
        let mut longer = base.clone();
        longer.splice(row(4000).start + 10..row(4000).start + 11, *b"-1234");
        let (copies, new) = cost(&base, &longer);
        assert!(copies <= 3 && new <= 10, "{copies} copies, {new} new bytes");
        let mut fewer = base.clone();
        fewer.drain(row(4000));
        assert_eq!(cost(&base, &fewer), (2, 0));
        let mut moved = base.clone();
        moved.splice(row(4000).start..row(4000).start, base[row(7000)].to_vec());
        let (copies, new) = cost(&base, &moved);
        assert!(copies <= 4 && new <= 97, "{copies} copies, {new} new bytes");
    }

    #[test]
    fn what_is_mostly_new_is_left_to_the_compressor() {
        let base = noise(1, 300_000);
        assert_eq!(patched(&base, &noise(2, 300_000)), None);
        assert_eq!(patched(&base, &[&base[..], &noise(2, 20_000)].concat()), None);
        assert!(patched(&base, &[&base[..], &noise(2, 9_000)].concat()).is_some());
        let base = noise(1, 600_000);
        let scattered = |step: usize, until: usize| {
            let flip = |(at, byte): (usize, &u8)| byte ^ u8::from(at % step == 0 && at < until);
            base.iter().enumerate().map(flip).collect::<Vec<u8>>()
        };
        assert_eq!(patched(&base, &scattered(900, 600_000)), None, "too many copies");
        assert!(patched(&base, &scattered(1025, 600_000)).is_some());
        assert!(patched(&base, &scattered(300, 20_000)).is_some(), "some may stand close together");
        assert_eq!(patched(&base, &scattered(300, 40_000)), None, "that many may not");
        let base = noise(1, 20_000);
        let scattered: Vec<u8> = base.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at % 500 == 0)).collect();
        assert_eq!(patched(&base, &scattered), None, "each copy counts for {COPY_BYTES} new bytes");
        for (base, plain) in [(0, 0), (0, 1), (1, 1), (31, 31), (100, 100), (10, 5000), (5000, 10), (40, 600)] {
            patched(&noise(3, base), &noise(3, plain));
        }
        assert_eq!(patched(&noise(3, 512), &noise(3, 512)).map(|copies| copies.len()), Some(1));
        assert_eq!(patched(&noise(3, 511), &noise(3, 511)), None, "too short to be worth a copy");
    }

    #[test]
    fn what_two_have_in_common_ends_where_they_differ() {
        let one = noise(1, 200);
        for len in [0, 1, 31, 32, 33, 63, 64, 65, 199] {
            let mut other = one.clone();
            other[len] ^= 1;
            assert_eq!((common_start(&one, &other), common_start(&one, &one[..len])), (len, len));
            let back = |bytes: &[u8]| bytes.iter().rev().copied().collect::<Vec<u8>>();
            assert_eq!((common_end(&back(&one), &back(&other)), common_end(&back(&one), &back(&one[..len]))), (len, len));
        }
    }

    #[test]
    fn a_finder_forgets_the_base_before() {
        let (old, new) = (noise(1, 200_000), noise(2, 100_000));
        let mut finder = Finder::default();
        assert!(finder.find(&old, &old).is_some());
        assert_eq!(finder.find(&new, &old[..100_000]), None);
        assert!(finder.find(&new, &new).is_some());
    }

    #[test]
    fn nonsense_is_refused() {
        let list = |copies: &[(usize, usize, usize)]| {
            encode(&copies.iter().map(|&(skipped, from, len)| Copy { skipped, from, len }).collect::<Vec<_>>())
        };
        let good = list(&[(3, 500, 200), (0, 0, 1), (10, 999, 1)]);
        assert_eq!(decode(&good, 1000, 215).unwrap().len(), 3);
        assert!(decode(&good, 999, 215).is_err(), "beyond the base");
        assert!(decode(&good, 1000, 214).is_err(), "more than the frame");
        for len in 0..good.len() {
            assert!(decode(&good[..len], 1000, 215).is_err(), "{len} bytes");
        }
        assert!(decode(&[&good[..], &[0]].concat(), 1000, 215).is_err());
        assert!(decode(&list(&[(0, 5, 0)]), 1000, 215).is_err(), "an empty copy");
        assert!(decode(&list(&[(0, 801, 200)]), 1000, 215).is_err(), "over the base's end");
        assert!(decode(&list(&[(0, 800, 200)]), 1000, 215).is_ok());
        assert!(decode(&list(&[(100, 0, 200)]), 1000, 215).is_err());
        let step = |step: i64| {
            let mut bytes = vec![1, 0];
            bytes.put_signed(step);
            bytes.put_varint(1);
            decode(&bytes, 1000, 215)
        };
        assert!(step(-1).is_err() && step(i64::MIN).is_err() && step(i64::MAX).is_err() && step(1000).is_err() && step(999).is_ok());
        assert!(decode(&[], 0, 0).is_err());
        assert_eq!(decode(&[0], 0, 0).unwrap(), []);
        assert!(decode(&[255, 255, 255, 255, 15], 1000, 215).is_err(), "more copies than bytes");

        let copies = decode(&good, 1000, 215).unwrap();
        let base = noise(4, 1000);
        for new in [0, 12, 14] {
            assert!(apply(&copies, &base, &noise(5, new), 215, &mut Vec::new()).is_err(), "{new} new bytes");
        }
        assert!(apply(&copies, &base, &noise(5, 13), 215, &mut Vec::new()).is_ok());
    }
}
