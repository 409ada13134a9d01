//! A blocked Bloom filter: whether a run may hold a chunk, answered from one block of 64 bytes.
//!
//! Blocks are in the order of the keys they stand for, so that a filter is written from its start to its end while the rows of its run
//! go by in order, and nothing of it has to stay in memory.

/// Bytes of a block: what one question reads.
pub const BLOCK_BYTES: usize = 64;
const BLOCK_BITS: u64 = BLOCK_BYTES as u64 * 8;
/// Bits a key takes up.
const KEY_BITS: u64 = 10;
/// Bits of a block that a key sets: seven of nine bits each make up a word.
const PROBES: u32 = 7;

/// A block.
pub type Block = [u8; BLOCK_BYTES];

/// Blocks of a filter for so many keys.
pub fn blocks_for(keys: u64) -> u64 {
    (keys * KEY_BITS).div_ceil(BLOCK_BITS).max(1)
}

/// The block of a key; never decreases with the key.
pub fn block_of(key: u64, blocks: u64) -> u64 {
    ((u128::from(key) * u128::from(blocks)) >> 64) as u64
}

pub fn add(block: &mut Block, key: u64) {
    for bit in bits(key) {
        block[bit / 8] |= 1 << (bit % 8);
    }
}

/// Whether the key may have been added.
pub fn may_hold(block: &Block, key: u64) -> bool {
    bits(key).all(|bit| block[bit / 8] >> (bit % 8) & 1 == 1)
}

/// Keys of one block have their first bits in common; mixing makes use of the others (the last steps of SplitMix64).
fn bits(key: u64) -> impl Iterator<Item = usize> {
    let mixed = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let mixed = mixed ^ (mixed >> 31);
    (0..PROBES).map(move |probe| (mixed >> (9 * probe)) as usize % BLOCK_BITS as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_may_be_there_and_nearly_all_else_is_not() {
        let key = |number: u64| u64::from_le_bytes(blake3::hash(&number.to_le_bytes()).as_bytes()[..8].try_into().unwrap());
        let count = 100_000;
        let blocks = blocks_for(count);
        assert_eq!(blocks * BLOCK_BITS / count, KEY_BITS);
        let mut filter = vec![[0; BLOCK_BYTES]; blocks as usize];
        (0..count).for_each(|number| add(&mut filter[block_of(key(number), blocks) as usize], key(number)));
        let asked = |number| may_hold(&filter[block_of(key(number), blocks) as usize], key(number));
        assert!((0..count).all(asked));
        let wrong = (count..2 * count).filter(|number| asked(*number)).count();
        assert!((100..2000).contains(&wrong), "{wrong} of {count}");
    }

    #[test]
    fn blocks_are_in_the_order_of_keys() {
        for blocks in [1, 2, 3, 1000, 1 << 40] {
            let keys = [0, 1, u64::MAX / 3, u64::MAX / 2, u64::MAX - 1, u64::MAX];
            let found = keys.map(|key| block_of(key, blocks));
            assert!(found.is_sorted() && found[0] == 0 && found[5] == blocks - 1, "{blocks}: {found:?}");
        }
        assert_eq!(blocks_for(0), 1);
    }
}
