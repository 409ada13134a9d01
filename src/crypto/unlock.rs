//! Key slots: the master key under a password (Argon2id, RFC 9106) or a key file.
//!
//! The commitment is checked before the box is opened, because ChaCha20-Poly1305 alone can be made to open under many keys
//! (Len, Grubbs, Ristenpart, "Partitioning Oracle Attacks", USENIX Security 2021).

use argon2::{Algorithm, Argon2, Params, Version};
use subtle::ConstantTimeEq;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::MasterKey;
use super::seal::SealKey;
use crate::error::{Error, Result};
use crate::format::slot::{Method, Slot, SlotNote};
use crate::id::{RepositoryId, SlotId};
use crate::limits::*;
use crate::world::World;

/// What a person or machine opens the repository with.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
pub enum Secret {
    Password(Vec<u8>),
    /// The bytes of a key file: random, at least 32.
    KeyFile(Vec<u8>),
    /// Recovery words, as text: the master key itself, which needs no slot.
    Words(Vec<u8>),
}

impl Secret {
    /// Whether a slot of this method can open with such a secret.
    pub fn fits(&self, method: &Method) -> bool {
        matches!((self, method), (Self::Password(_), Method::Password { .. }) | (Self::KeyFile(_), Method::KeyFile))
    }

    fn method(&self) -> Result<Method> {
        match self {
            Self::Password(_) => Ok(Method::Password { memory_kib: ARGON2_MEMORY_KIB, passes: ARGON2_PASSES, lanes: ARGON2_LANES }),
            Self::KeyFile(_) => Ok(Method::KeyFile),
            Self::Words(_) => Err(Error::Usage("Recovery words cannot be the secret of a key slot; they are the key itself".into())),
        }
    }
}

/// Key-encryption key and commitment key of a slot.
struct SlotKeys {
    seal: SealKey,
    commit: Zeroizing<[u8; 32]>,
}

/// A new slot that holds `master`.
pub fn create_slot(master: &MasterKey, secret: &Secret, repository: RepositoryId, note: &SlotNote, world: &World) -> Result<Slot> {
    let mut slot = Slot {
        method: secret.method()?,
        repository,
        id: SlotId(world.random()),
        salt: world.random(),
        nonce: world.random(),
        sealed: Vec::new(),
        commitment: [0; 32],
    };
    let keys = slot_keys(&slot, secret)?;
    let mut plain = Zeroizing::new(master.bytes().to_vec());
    plain.extend_from_slice(&serde_json::to_vec(note).expect("a note is plain JSON"));
    slot.sealed = keys.seal.seal_with_nonce(slot.nonce, &slot.encode_header(), &plain);
    slot.commitment = commitment(&slot, &keys.commit);
    Ok(slot)
}

/// The master key of a slot, or nothing if the secret is not its own.
pub fn open_slot(slot: &Slot, secret: &Secret) -> Result<Option<(MasterKey, SlotNote)>> {
    if !secret.fits(&slot.method) {
        return Ok(None);
    }
    let keys = slot_keys(slot, secret)?;
    if !bool::from(commitment(slot, &keys.commit).ct_eq(&slot.commitment)) {
        return Ok(None);
    }
    let sealed = [&slot.nonce[..], &slot.sealed].concat();
    let damaged = |why: &str| Error::damaged(format!("key slot {}", slot.id), why);
    let plain = keys.seal.open(&slot.encode_header(), &sealed).map(Zeroizing::new);
    let plain = plain.ok_or_else(|| damaged("its seal does not fit"))?;
    let (master, note) = plain.split_at_checked(32).ok_or_else(|| damaged("it is too short"))?;
    let note = serde_json::from_slice(note).unwrap_or_default();
    Ok(Some((MasterKey::new(master.try_into().expect("32 bytes")), note)))
}

fn slot_keys(slot: &Slot, secret: &Secret) -> Result<SlotKeys> {
    let mut output = Zeroizing::new([0u8; 64]);
    match (slot.method, secret) {
        (Method::Password { memory_kib, passes, lanes }, Secret::Password(password)) => {
            let stretch = |error: argon2::Error| Error::damaged(format!("key slot {}", slot.id), error);
            let params = Params::new(memory_kib, passes, lanes, Some(output.len())).map_err(stretch)?;
            let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
            argon2.hash_password_into(password, &slot.salt, &mut output[..]).map_err(stretch)?;
        }
        (_, Secret::KeyFile(key) | Secret::Password(key) | Secret::Words(key)) => {
            let mut hasher = blake3::Hasher::new_derive_key("snap 2026 v1 key-file slot");
            hasher.update(&slot.salt);
            hasher.update(key);
            hasher.finalize_xof().fill(&mut output[..]);
        }
    }
    let (seal, commit) = output.split_at(32);
    let seal = SealKey::new(seal.try_into().expect("32 bytes"));
    Ok(SlotKeys { seal, commit: Zeroizing::new(commit.try_into().expect("32 bytes")) })
}

fn commitment(slot: &Slot, key: &[u8; 32]) -> [u8; 32] {
    *blake3::keyed_hash(key, &slot.encode_committed()).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_file() -> Secret {
        Secret::KeyFile(vec![9; 32])
    }

    fn note(label: &str) -> SlotNote {
        SlotNote { label: label.into(), ..SlotNote::default() }
    }

    #[test]
    fn slots_open_with_their_secret_only() {
        let world = World::system();
        let repository = RepositoryId([1; 16]);
        let master = MasterKey::new([5; 32]);
        for (right, wrong) in
            [(key_file(), Secret::KeyFile(vec![8; 32])), (Secret::Password(b"a".to_vec()), Secret::Password(b"b".to_vec()))]
        {
            let slot = create_slot(&master, &right, repository, &note("nightly"), &world).unwrap();
            let (opened, note) = open_slot(&slot, &right).unwrap().unwrap();
            assert_eq!((opened.bytes(), note.label.as_str()), (master.bytes(), "nightly"));
            assert!(open_slot(&slot, &wrong).unwrap().is_none());
        }
        let slot = create_slot(&master, &key_file(), repository, &note(""), &world).unwrap();
        assert!(open_slot(&slot, &Secret::Password(vec![9; 32])).unwrap().is_none());
    }

    /// A slot whose box was made to open under several guesses must fail at the commitment, not at the box.
    #[test]
    fn any_changed_byte_fails_at_the_commitment() {
        let slot = create_slot(&MasterKey::new([5; 32]), &key_file(), RepositoryId([1; 16]), &note(""), &World::system()).unwrap();
        let bytes = slot.encode();
        for i in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[i] ^= 1;
            if let Ok(slot) = Slot::decode(&damaged) {
                assert!(open_slot(&slot, &key_file()).unwrap().is_none(), "byte {i}");
            }
        }
    }
}
