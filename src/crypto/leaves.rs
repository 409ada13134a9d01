//! The hash of a large content by the leaves of its tree, so that a leaf known from before need not be hashed again.
//!
//! BLAKE3 hashes a tree (Aumasson, Neves, O'Connor and Wilcox-O'Hearn, "BLAKE3", part 2.1). An aligned stretch of the content is a subtree of
//! it, whose chaining value depends on the bytes and on where they stand, and on nothing else. Whoever has been shown by other means that
//! the same bytes stand in the same place may take the chaining value from before. What comes out is the plain hash of the content.

use blake3::Hasher;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use rayon::prelude::*;

use crate::id::ContentHash;
use crate::limits::{LEAF_BYTES, LEAVES_MAX};

/// The chaining values of a content's leaves of [`LEAF_BYTES`], in order; the last may be shorter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaves(Vec<ChainingValue>);

impl Leaves {
    const VALUE_BYTES: usize = size_of::<ChainingValue>();

    /// Nothing if these are not the leaves of the content with this hash.
    pub fn of_content(bytes: &[u8], hash: ContentHash) -> Option<Self> {
        let (values, []) = bytes.as_chunks::<{ Self::VALUE_BYTES }>() else { return None };
        let mut tree = Tree::default();
        values.iter().for_each(|value| tree.push(*value));
        (tree.root()? == hash).then(|| Self(values.to_vec()))
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_flattened()
    }
}

/// Puts subtrees of one size together, from left to right.
#[derive(Default)]
struct Tree {
    /// Whole subtrees, each at most half as high as the one before.
    stack: Vec<ChainingValue>,
    /// Leaves in `stack`.
    count: u64,
    /// It waits for another one, because the root is made in a way of its own.
    last: Option<ChainingValue>,
}

impl Tree {
    fn push(&mut self, leaf: ChainingValue) {
        let Some(mut value) = self.last.replace(leaf) else { return };
        for _ in 0..self.count.trailing_ones() {
            let left = self.stack.pop().expect("a subtree for each bit of the count");
            value = merge_subtrees_non_root(&left, &value, Mode::Hash);
        }
        self.stack.push(value);
        self.count += 1;
    }

    /// The hash of two leaves or more.
    fn root(mut self) -> Option<ContentHash> {
        let mut value = self.last?;
        let top = (!self.stack.is_empty()).then(|| self.stack.remove(0))?;
        while let Some(left) = self.stack.pop() {
            value = merge_subtrees_non_root(&left, &value, Mode::Hash);
        }
        Some(ContentHash(*merge_subtrees_root(&top, &value, Mode::Hash).as_bytes()))
    }
}

/// Hashes a content whose bytes come one after the other, on all threads.
#[derive(Default)]
pub struct LeafHasher {
    tree: Tree,
    /// Leaves so far, and their values, unless they are too many to remember.
    count: usize,
    leaves: Option<Vec<ChainingValue>>,
    /// What came last: the first leaf, or one that is not full.
    rest: Vec<u8>,
    /// All of `rest` is as it was before.
    rest_same: bool,
    before: Option<Leaves>,
}

impl LeafHasher {
    pub fn new() -> Self {
        Self { leaves: Some(Vec::new()), rest_same: true, ..Self::default() }
    }

    /// The leaves of an older content, for the bytes that come from now on.
    pub fn compare_with(&mut self, before: Option<Leaves>) {
        self.before = before;
    }

    /// Bytes taken so far.
    pub fn taken(&self) -> u64 {
        (self.count * LEAF_BYTES + self.rest.len()) as u64
    }

    /// Takes bytes of which the first `same` stood in the same place of the older content.
    pub fn update(&mut self, bytes: &[u8], same: usize) {
        let (same, new) = bytes.split_at(same);
        self.take(same, true);
        self.take(new, false);
    }

    fn take(&mut self, mut bytes: &[u8], same: bool) {
        if !self.rest.is_empty() || self.count == 0 {
            let (filling, beyond) = bytes.split_at(bytes.len().min(LEAF_BYTES - self.rest.len()));
            self.rest.extend_from_slice(filling);
            self.rest_same &= same || filling.is_empty();
            bytes = beyond;
            // The first leaf may be the only one, and is one and all then.
            if self.rest.len() < LEAF_BYTES || self.count == 0 && bytes.is_empty() {
                return;
            }
            let rest = std::mem::take(&mut self.rest);
            self.take_leaves(&rest, self.rest_same);
            self.rest = rest;
            self.rest.clear();
        }
        let (whole, rest) = bytes.split_at(bytes.len() / LEAF_BYTES * LEAF_BYTES);
        self.take_leaves(whole, same);
        self.rest.extend_from_slice(rest);
        self.rest_same = same || rest.is_empty();
    }

    /// Takes whole leaves, and perhaps a last one that is not.
    fn take_leaves(&mut self, bytes: &[u8], same: bool) {
        let (first, before) = (self.count, self.before.as_ref().filter(|_| same));
        let value = |(at, leaf): (usize, &[u8])| match before.and_then(|before| before.0.get(first + at)) {
            // The last one of the older content may have been shorter.
            Some(value) if leaf.len() == LEAF_BYTES && before.is_some_and(|before| first + at + 1 < before.0.len()) => *value,
            _ => {
                let mut hasher = Hasher::new();
                hasher.set_input_offset(((first + at) * LEAF_BYTES) as u64).update(leaf);
                hasher.finalize_non_root()
            }
        };
        let values: Vec<ChainingValue> = bytes.par_chunks(LEAF_BYTES).enumerate().map(value).collect();
        self.count += values.len();
        values.iter().for_each(|value| self.tree.push(*value));
        self.leaves.take_if(|leaves| leaves.len() + values.len() > LEAVES_MAX);
        self.leaves.iter_mut().for_each(|leaves| leaves.extend_from_slice(&values));
    }

    /// The hash of all bytes, and the leaves it has, if there are several and not too many.
    pub fn finish(mut self) -> (ContentHash, Option<Leaves>) {
        if self.count == 0 {
            return (ContentHash(*blake3::hash(&self.rest).as_bytes()), None);
        }
        let rest = std::mem::take(&mut self.rest);
        self.take_leaves(&rest, false);
        (self.tree.root().expect("more than one leaf"), self.leaves.map(Leaves))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    /// In pieces of these lengths, over and over; `same` says how many of a piece's bytes stood there before.
    fn hash(
        bytes: &[u8],
        before: Option<&Leaves>,
        lens: &[usize],
        same: impl Fn(std::ops::Range<usize>) -> usize,
    ) -> (ContentHash, Option<Leaves>) {
        let mut hasher = LeafHasher::new();
        hasher.compare_with(before.cloned());
        let mut at = 0;
        for len in lens.iter().cycle() {
            let end = bytes.len().min(at + len);
            hasher.update(&bytes[at..end], same(at..end));
            at = end;
            assert_eq!(hasher.taken(), at as u64);
            if at == bytes.len() {
                return hasher.finish();
            }
        }
        unreachable!("lengths are above zero")
    }

    fn plain(bytes: &[u8]) -> ContentHash {
        ContentHash(*blake3::hash(bytes).as_bytes())
    }

    #[test]
    fn leaves_make_the_plain_hash() {
        for leaves in [0, 1, 2, 3, 4, 5, 8, 11] {
            for len in [(leaves * LEAF_BYTES).saturating_sub(1), leaves * LEAF_BYTES, leaves * LEAF_BYTES + 1] {
                let bytes = content(len);
                for lens in [&[1 << 30][..], &[LEAF_BYTES], &[LEAF_BYTES - 1, 3], &[4 * LEAF_BYTES + 7, 1000], &[70_000]] {
                    let (found, remembered) = hash(&bytes, None, lens, |_| 0);
                    assert_eq!(found, plain(&bytes), "{len} bytes in pieces of {lens:?}");
                    assert_eq!(remembered.is_some(), len > LEAF_BYTES);
                    let again = remembered.as_ref().map(|leaves| Leaves::of_content(leaves.as_bytes(), found));
                    assert_eq!(again, remembered.map(Some));
                }
            }
        }
    }

    #[test]
    fn only_what_is_the_same_is_taken_from_before() {
        let old = content(9 * LEAF_BYTES + 5);
        let (_, leaves) = hash(&old, None, &[1 << 20], |_| 0);
        let leaves = leaves.unwrap();
        for changed in [0, 1, LEAF_BYTES, 4 * LEAF_BYTES - 1, 9 * LEAF_BYTES, 9 * LEAF_BYTES + 4] {
            for len in [changed + 1, old.len() - 1, old.len(), old.len() + 1, 10 * LEAF_BYTES, 11 * LEAF_BYTES] {
                let mut new = content(len.max(changed + 1));
                new[changed] ^= 1;
                // Of a piece in which something changed, or that is longer, as much as stands before that.
                let first_other = |at: usize| if at <= changed { changed } else { usize::MAX }.min(old.len());
                let same = |range: std::ops::Range<usize>| first_other(range.start).clamp(range.start, range.end) - range.start;
                for lens in [&[1 << 30][..], &[LEAF_BYTES + 1], &[100_000, 3], &[2 * LEAF_BYTES]] {
                    let (found, remembered) = hash(&new, Some(&leaves), lens, same);
                    assert_eq!(found, plain(&new), "byte {changed} of {} in pieces of {lens:?}", new.len());
                    assert_eq!(remembered, hash(&new, None, lens, |_| 0).1);
                }
            }
        }
    }

    /// With leaves from elsewhere the hash is another one: this is how the test above can see what is taken from before.
    #[test]
    fn what_is_said_to_be_the_same_is_not_hashed() {
        let (old, new) = (content(5 * LEAF_BYTES), vec![0; 5 * LEAF_BYTES]);
        let (_, leaves) = hash(&old, None, &[1 << 30], |_| 0);
        let (found, _) = hash(&new, leaves.as_ref(), &[700_000], |range| range.len());
        assert_ne!(found, plain(&new));
        // All but the last leaf, which may have been shorter.
        let mut mixed = old.clone();
        mixed[4 * LEAF_BYTES..].fill(0);
        assert_eq!(found, plain(&mixed));
    }

    #[test]
    fn leaves_of_another_content_are_refused() {
        let bytes = content(3 * LEAF_BYTES);
        let (found, leaves) = hash(&bytes, None, &[1 << 30], |_| 0);
        let leaves = leaves.unwrap().as_bytes().to_vec();
        assert!(Leaves::of_content(&leaves, found).is_some());
        assert_eq!(Leaves::of_content(&leaves, plain(b"")), None);
        for len in [0, 1, 32, 64, leaves.len() - 1] {
            assert_eq!(Leaves::of_content(&leaves[..len], found), None, "{len}");
        }
        for at in 0..leaves.len() {
            let mut other = leaves.clone();
            other[at] ^= 1;
            assert_eq!(Leaves::of_content(&other, found), None, "{at}");
        }
    }
}
