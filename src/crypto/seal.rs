//! Sealing: XChaCha20-Poly1305 with nonces that nobody can choose.
//!
//! A box is `nonce (24) | ciphertext | tag (16)`. The nonce is random, hashed with the associated data and the plain text under a key of
//! its own, so that a random source that repeats itself (a cloned machine) repeats a nonce only for the same object.

use std::sync::Arc;

use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use zeroize::{Zeroize, ZeroizeOnDrop};

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

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&self.0).into())
    }

    /// The plain text of a box, or nothing if it was not sealed with this key for this place.
    pub fn open(&self, associated_data: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let mut plain = Vec::new();
        self.open_into(associated_data, sealed, &mut plain)?;
        Some(plain)
    }

    /// As `open`, into memory that is used again: the plain text is the slice. On first use the memory is just as long.
    pub fn open_into<'s>(&self, associated_data: &[u8], sealed: &[u8], scratch: &'s mut Vec<u8>) -> Option<&'s [u8]> {
        let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        let (ciphertext, tag) = ciphertext.split_last_chunk::<TAG_BYTES>()?;
        let plain = room(scratch, ciphertext.len());
        let buffer = InOutBuf::new(ciphertext, plain).expect("the same length");
        self.cipher().decrypt_inout_detached(&XNonce::from(*nonce), associated_data, buffer, &Tag::from(*tag)).ok()?;
        Some(plain)
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
        let buffer = InOutBuf::new(plain, ciphertext).expect("the same length");
        let tag = self.cipher().encrypt_inout_detached(&XNonce::from(nonce), associated_data, buffer);
        foot.copy_from_slice(&tag.expect("plain text is far below the cipher's 256 GiB"));
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
        let header = Header { kind, repository, salt: entropy() };
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
    pub fn open_into<'s>(&self, associated_data: &[u8], sealed: &[u8], scratch: &'s mut Vec<u8>) -> Option<&'s [u8]> {
        self.key.open_into(associated_data, sealed, scratch)
    }

    /// Seals `plain` for the place that the associated data names.
    pub fn seal(&self, associated_data: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::new();
        self.seal_into(associated_data, plain, &mut sealed);
        sealed
    }

    /// As `seal`, into memory that is used again.
    pub fn seal_into<'s>(&self, associated_data: &[u8], plain: &[u8], scratch: &'s mut Vec<u8>) -> &'s [u8] {
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
        assert!(sealer.open(b"other", &sealed).is_none());
        for i in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[i] ^= 1;
            assert!(sealer.open(b"place", &damaged).is_none());
            assert!(sealer.open(b"place", &sealed[..i]).is_none());
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

    /// Known answer, so that a change of suite, derivation or layout cannot pass unseen.
    #[test]
    fn known_answer() {
        let sealed = sealer(Kind::DataPack).seal(b"place", b"plain text");
        let hash = blake3::hash(&sealed).to_hex();
        assert_eq!(&hash[..16], "69280447a0f0d284");
    }
}
