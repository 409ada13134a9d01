//! The master key and what is derived from it: BLAKE3 `derive_key` with one constant context a purpose.

use blake3::derive_key;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::seal::SealKey;
use crate::chunking::GearTable;
use crate::format::envelope::Kind;
use crate::format::frame::ChunkTable;
use crate::id::{ChunkId, FrameId};

/// 32 random bytes made at `init`, never derived from a password and never changed.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct MasterKey([u8; 32]);

impl MasterKey {
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether both are the same key, in constant time.
    pub fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// The keys of a repository.
#[derive(ZeroizeOnDrop)]
pub struct Keys {
    data_chunk: [u8; 32],
    catalog_chunk: [u8; 32],
    frame: [u8; 32],
    chunker: [u8; 32],
    seal_frames: [u8; 32],
    seal_objects: [u8; 32],
    nonce: [u8; 32],
}

impl Keys {
    pub fn derive(master: &MasterKey) -> Self {
        let derive = |context| derive_key(context, master.bytes());
        Self {
            data_chunk: derive("snap 2026 v1 chunk id of data"),
            catalog_chunk: derive("snap 2026 v1 chunk id of catalogs"),
            frame: derive("snap 2026 v1 frame id"),
            chunker: derive("snap 2026 v1 gear table"),
            seal_frames: derive("snap 2026 v1 sealing of packs"),
            seal_objects: derive("snap 2026 v1 sealing of objects"),
            nonce: derive("snap 2026 v1 nonce hedge"),
        }
    }

    /// Id of a chunk in packs of `kind`; data and catalogs have keys of their own.
    pub fn chunk_id(&self, kind: Kind, plain: &[u8]) -> ChunkId {
        let key = if kind == Kind::CatalogPack { &self.catalog_chunk } else { &self.data_chunk };
        let hash = blake3::keyed_hash(key, plain);
        let mut id = [0; ChunkId::LEN];
        id.copy_from_slice(&hash.as_bytes()[..ChunkId::LEN]);
        ChunkId(id)
    }

    /// Id of the frame with this chunk table.
    pub fn frame_id(&self, table: &ChunkTable) -> FrameId {
        let mut bytes = Vec::with_capacity(table.len() * 19 + 2);
        table.encode(&mut bytes);
        FrameId(*blake3::keyed_hash(&self.frame, &bytes).as_bytes())
    }

    /// The whole gear table of this repository's cutter: 256 little-endian words of BLAKE3's output.
    pub fn gear_table(&self) -> Box<GearTable> {
        let mut bytes = Zeroizing::new([0u8; 2048]);
        blake3::Hasher::new_keyed(&self.chunker).finalize_xof().fill(&mut bytes[..]);
        let mut gear = Box::new([0; 256]);
        for (word, bytes) in gear.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        gear
    }

    /// The sub-key of the process that wrote objects of `kind` with this salt.
    pub fn seal_key(&self, kind: Kind, salt: &[u8; 32]) -> SealKey {
        let root = match kind {
            Kind::DataPack | Kind::CatalogPack => &self.seal_frames,
            _ => &self.seal_objects,
        };
        let mut input = [0; 40];
        input[..7].copy_from_slice(b"sub-key");
        input[7] = kind as u8;
        input[8..].copy_from_slice(salt);
        SealKey::new(*blake3::keyed_hash(root, &input).as_bytes())
    }

    pub(super) fn nonce_key(&self) -> &[u8; 32] {
        &self.nonce
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn master_keys_are_told_apart() {
        let master = MasterKey::new([1; 32]);
        assert!(master.is(&MasterKey::new([1; 32])));
        for at in 0..32 {
            let mut other = [1; 32];
            other[at] = 0;
            assert!(!master.is(&MasterKey::new(other)));
        }
    }

    /// As FORMAT.md has it, so that kinds cannot change places.
    #[test]
    fn chunks_of_data_and_of_catalogs_have_ids_of_their_own() {
        let keys = Keys::derive(&MasterKey::new([1; 32]));
        for (kind, context) in [(Kind::DataPack, "snap 2026 v1 chunk id of data"), (Kind::CatalogPack, "snap 2026 v1 chunk id of catalogs")]
        {
            let hash = blake3::Hasher::new_keyed(&blake3::derive_key(context, &[1; 32])).update(b"chunk").finalize();
            assert_eq!(keys.chunk_id(kind, b"chunk").0, hash.as_bytes()[..16]);
        }
    }
}
