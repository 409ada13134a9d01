//! Sealing: XChaCha20-Poly1305 with nonces that nobody can choose.
//!
//! A box is `nonce (24) | ciphertext | tag (16)`. The nonce is random, hashed with the associated data and the plain text under a key of
//! its own, so that a random source that repeats itself (a cloned machine) repeats a nonce only for the same object.
//!
//! XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03, part 2.3) is ChaCha20-Poly1305 (RFC 8439) with a key of its own for each box, which
//! HChaCha20 makes of the key and the nonce's first 16 bytes. Both halves in one pass of machine code are nearly twice as fast as one
//! after the other.

use std::sync::Arc;

use chacha20::{R20, hchacha};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::Keys;
use crate::format::envelope::{Header, Kind};
use crate::id::RepositoryId;

const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

/// What a box is longer than its plain text.
pub const SEAL_BYTES: usize = NONCE_BYTES + TAG_BYTES;

/// Gives 32 fresh random bytes.
pub type Entropy = dyn Fn() -> [u8; 32] + Send + Sync;

/// A key that opens boxes.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SealKey([u8; 32]);

impl SealKey {
    pub(super) fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key of one box, and the rest of its nonce. What is left of that key in memory opens this box and no other.
    fn of_box(&self, nonce: &[u8; NONCE_BYTES]) -> (LessSafeKey, Nonce) {
        let (first, last) = nonce.split_first_chunk::<16>().expect("a nonce has 24 bytes");
        let key = Zeroizing::new(<[u8; 32]>::from(hchacha::<R20>((&self.0).into(), first.into())));
        let mut rest = [0; 12];
        rest[4..].copy_from_slice(last);
        let key = UnboundKey::new(&CHACHA20_POLY1305, &key[..]).expect("a key has 32 bytes");
        (LessSafeKey::new(key), Nonce::assume_unique_for_key(rest))
    }

    /// The plain text of a box, or nothing if it was not sealed with this key for this place.
    pub fn open(&self, associated_data: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let mut plain = Vec::new();
        self.open_into(associated_data, sealed, &mut plain)?;
        Some(plain)
    }

    /// As `open`, into memory that is used again: the plain text is the slice. On first use the memory is just as long.
    pub fn open_into<'s>(&self, associated_data: &[u8], sealed: &[u8], scratch: &'s mut Vec<u8>) -> Option<&'s mut [u8]> {
        let copy = room(scratch, sealed.len().saturating_sub(SEAL_BYTES));
        let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        let (ciphertext, tag) = ciphertext.split_last_chunk::<TAG_BYTES>()?;
        copy.copy_from_slice(ciphertext);
        self.decrypt(nonce, associated_data, copy, tag)
    }

    /// As `open`, within the memory of the box itself.
    pub fn open_in_place<'s>(&self, associated_data: &[u8], sealed: &'s mut [u8]) -> Option<&'s mut [u8]> {
        let (nonce, ciphertext) = sealed.split_first_chunk_mut::<NONCE_BYTES>()?;
        let (ciphertext, tag) = ciphertext.split_last_chunk_mut::<TAG_BYTES>()?;
        self.decrypt(nonce, associated_data, ciphertext, tag)
    }

    fn decrypt<'s>(
        &self,
        nonce: &[u8; NONCE_BYTES],
        associated_data: &[u8],
        ciphertext: &'s mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Option<&'s mut [u8]> {
        let (key, nonce) = self.of_box(nonce);
        key.open_in_place_separate_tag(nonce, Aad::from(associated_data), Tag::from(*tag), ciphertext, 0..).ok()
    }

    /// The plain text encrypted, and its tag.
    pub(super) fn seal_with_nonce(&self, nonce: [u8; NONCE_BYTES], associated_data: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut sealed = vec![0; plain.len() + TAG_BYTES];
        self.encrypt(nonce, associated_data, plain, &mut sealed);
        sealed
    }

    /// Writes ciphertext and tag to `sealed`, which is as long as both.
    fn encrypt(&self, nonce: [u8; NONCE_BYTES], associated_data: &[u8], plain: &[u8], sealed: &mut [u8]) {
        let (ciphertext, foot) = sealed.split_at_mut(plain.len());
        ciphertext.copy_from_slice(plain);
        let (key, nonce) = self.of_box(&nonce);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(associated_data), ciphertext);
        foot.copy_from_slice(tag.expect("plain text is far below the cipher's 256 GiB").as_ref());
    }
}

/// So many bytes of memory, which only ever grows, so that it is not filled with zeros each time.
fn room(scratch: &mut Vec<u8>, len: usize) -> &mut [u8] {
    if scratch.len() < len {
        scratch.resize(len, 0);
    }
    &mut scratch[..len]
}

/// Seals objects of one kind for one writing process. Not `Clone`: two would share nothing but the key, and need not exist.
pub struct Sealer {
    key: SealKey,
    header: Header,
    keys: Arc<Keys>,
    entropy: Arc<Entropy>,
}

impl Sealer {
    pub fn new(keys: Arc<Keys>, kind: Kind, repository: RepositoryId, entropy: Arc<Entropy>) -> Self {
        let header = Header { version: kind.version(), kind, repository, salt: entropy() };
        Self { key: keys.seal_key(kind, &header.salt), header, keys, entropy }
    }

    /// The clear header under which everything sealed here must stand.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Opens what this sealer, or another of the same salt, sealed.
    pub fn open(&self, associated_data: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        self.key.open(associated_data, sealed)
    }

    /// As `open`, into memory that is used again.
    pub fn open_into<'s>(&self, associated_data: &[u8], sealed: &[u8], scratch: &'s mut Vec<u8>) -> Option<&'s mut [u8]> {
        self.key.open_into(associated_data, sealed, scratch)
    }

    /// Seals `plain` for the place that the associated data names.
    pub fn seal(&self, associated_data: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::new();
        self.seal_into(associated_data, plain, &mut sealed);
        sealed
    }

    /// As `seal`, into memory that is used again.
    pub fn seal_into<'s>(&self, associated_data: &[u8], plain: &[u8], scratch: &'s mut Vec<u8>) -> &'s mut [u8] {
        let nonce = self.nonce(associated_data, plain);
        let sealed = room(scratch, plain.len() + SEAL_BYTES);
        sealed[..NONCE_BYTES].copy_from_slice(&nonce);
        self.key.encrypt(nonce, associated_data, plain, &mut sealed[NONCE_BYTES..]);
        sealed
    }

    fn nonce(&self, associated_data: &[u8], plain: &[u8]) -> [u8; NONCE_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(self.keys.nonce_key());
        hasher.update(&(self.entropy)());
        hasher.update(&(associated_data.len() as u64).to_le_bytes());
        hasher.update(associated_data);
        // The plain text too: the same frame may be sealed again, compressed in another way.
        hasher.update(plain);
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&hasher.finalize().as_bytes()[..NONCE_BYTES]);
        nonce
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::crypto::MasterKey;

    fn sealer(kind: Kind) -> Sealer {
        let keys = Arc::new(Keys::derive(&MasterKey::new([1; 32])));
        // A random source that always says the same: the worst clone there is.
        Sealer::new(keys, kind, RepositoryId([2; 16]), Arc::new(|| [3; 32]))
    }

    #[test]
    fn a_box_opens_only_at_its_place_and_unchanged() {
        let sealer = sealer(Kind::Snapshot);
        let sealed = sealer.seal(b"place", b"plain text");
        assert_eq!(sealed.len(), 10 + SEAL_BYTES);
        assert_eq!(sealer.open(b"place", &sealed).unwrap(), b"plain text");
        let mut used_before = b"longer than what is opened here".to_vec();
        assert_eq!(sealer.open_into(b"place", &sealed, &mut used_before).unwrap(), b"plain text");
        assert!(sealer.open(b"other", &sealed).is_none());
        assert!(sealer.open_into(b"other", &sealed, &mut used_before).is_none());
        for i in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[i] ^= 1;
            assert!(sealer.open(b"place", &damaged).is_none());
            assert!(sealer.open(b"place", &sealed[..i]).is_none());
            assert!(sealer.key.open_in_place(b"place", &mut sealed[..i].to_vec()).is_none());
            assert!(sealer.key.open_in_place(b"place", &mut damaged).is_none());
        }
        assert!(self::sealer(Kind::Segment).open(b"place", &sealed).is_none());
    }

    #[test]
    fn nonces_differ_even_when_the_random_source_repeats() {
        let sealer = sealer(Kind::DataPack);
        let mut nonces = HashSet::new();
        for i in 0..1000u32 {
            assert!(nonces.insert(sealer.seal(&i.to_le_bytes(), b"same")[..NONCE_BYTES].to_vec()));
            assert!(nonces.insert(sealer.seal(b"same", &i.to_le_bytes())[..NONCE_BYTES].to_vec()));
        }
    }

    /// Another implementation, of all of XChaCha20-Poly1305, writes and reads the same.
    #[test]
    fn the_same_as_elsewhere() {
        use chacha20poly1305::aead::{Aead, KeyInit, Payload};
        use chacha20poly1305::{XChaCha20Poly1305, XNonce};

        let mut random = blake3::Hasher::new().finalize_xof();
        for len in [0, 1, 15, 16, 17, 63, 64, 65, 255, 256, 1000, 4096, 70_001] {
            let (mut key, mut nonce, mut plain, mut place) = ([0; 32], [0; NONCE_BYTES], vec![0; len], vec![0; len % 90]);
            for bytes in [&mut key[..], &mut nonce, &mut plain, &mut place] {
                random.fill(bytes);
            }
            let other = XChaCha20Poly1305::new((&key).into());
            let sealed = other.encrypt(&XNonce::from(nonce), Payload { msg: &plain, aad: &place }).unwrap();
            assert_eq!(SealKey::new(key).seal_with_nonce(nonce, &place, &plain), sealed);
            let sealed = [&nonce[..], &sealed].concat();
            assert_eq!(SealKey::new(key).open(&place, &sealed).unwrap(), plain);
            assert_eq!(SealKey::new(key).open_in_place(&place, &mut sealed.clone()).unwrap(), plain);
        }
    }

    /// Known answer, so that a change of suite, derivation or layout cannot pass unseen.
    #[test]
    fn known_answer() {
        let sealed = sealer(Kind::DataPack).seal(b"place", b"plain text");
        let hash = blake3::hash(&sealed).to_hex();
        assert_eq!(&hash[..16], "69280447a0f0d284");
    }
}
