//! What this host remembers of large contents' hashes, so that what is unchanged is hashed once and not twice.
//!
//! One file a content in the cache folder, sealed. It is believed only if its leaves make the hash of the content it is of. A bit that
//! flipped in memory while they were hashed would be handed on from night to night; so after some nights all is hashed anew.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::Repository;
use crate::crypto::{Keys, Leaves, Sealer};
use crate::format::codec::{Reader, Write};
use crate::format::envelope::{HEADER_BYTES, Header, Kind};
use crate::id::ContentHash;
use crate::index::make_folder;
use crate::limits::*;
use crate::replace;

/// Sealed as what says which content there is.
const KIND: Kind = Kind::Snapshot;

/// The leaves of a content, and for how many runs some may have been handed on.
pub struct Recalled {
    pub leaves: Leaves,
    pub age: u8,
}

/// Where a host keeps the leaves of contents.
pub struct LeafCache {
    folder: PathBuf,
    keys: Arc<Keys>,
    sealer: Sealer,
}

impl LeafCache {
    /// None where nothing is kept from one run to the next.
    pub fn of(repository: &Repository) -> Option<Self> {
        let folder = repository.cache.as_ref()?.join(repository.id().hex()).join("leaves");
        Some(Self { folder, keys: repository.keys().clone(), sealer: repository.sealer(KIND) })
    }

    /// The leaves of a content that was read before, if they may be used once more.
    pub fn recall(&self, hash: ContentHash, size: u64) -> Option<Recalled> {
        if !is_worth_it(size) {
            return None;
        }
        self.open(&fs::read(self.file(hash)).ok()?, hash).filter(|recalled| recalled.age < LEAVES_AGE_MAX)
    }

    fn open(&self, bytes: &[u8], hash: ContentHash) -> Option<Recalled> {
        let header = Header::decode(&mut Reader::new(bytes.get(..HEADER_BYTES)?)).ok()?;
        let key = self.keys.seal_key(KIND, &header.salt);
        let plain = key.open(&associated_data(&header, hash), &bytes[HEADER_BYTES..])?;
        let (age, leaves) = plain.split_first()?;
        Some(Recalled { leaves: Leaves::of_content(leaves, hash)?, age: *age })
    }

    /// Remembers the leaves of a content, in the place of those of its older version. Where that fails, it is hashed again.
    pub fn remember(&self, hash: ContentHash, size: u64, recalled: &Recalled, older: Option<ContentHash>) {
        if !is_worth_it(size) || make_folder(&self.folder).is_err() {
            return;
        }
        let header = self.sealer.header();
        let mut bytes = header.encode();
        let plain = [&[recalled.age], recalled.leaves.as_bytes()].concat();
        bytes.extend(self.sealer.seal(&associated_data(header, hash), &plain));
        if replace::lightly(&self.file(hash), 0o600, &bytes).is_ok() {
            older.filter(|older| *older != hash).map(|older| fs::remove_file(self.file(older)));
            self.sweep();
        }
    }

    /// Keeps the newest.
    fn sweep(&self) {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let age = |entry: &fs::DirEntry| entry.metadata().and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut files: Vec<(SystemTime, PathBuf)> = entries.map(|entry| (age(&entry), entry.path())).collect();
        files.sort();
        for (_, file) in files.iter().rev().skip(LEAVES_CONTENTS_MAX) {
            let _ = fs::remove_file(file);
        }
    }

    /// Named after the hash under a key, so that the name does not tell which content it is.
    fn file(&self, hash: ContentHash) -> PathBuf {
        self.folder.join(self.keys.chunk_id(Kind::CatalogPack, &hash.0).to_string())
    }
}

fn is_worth_it(size: u64) -> bool {
    (LEAVES_CONTENT_BYTES_MIN..=(LEAVES_MAX * LEAF_BYTES) as u64).contains(&size)
}

/// Not that of any object in a store, nor of what else a host keeps.
fn associated_data(header: &Header, hash: ContentHash) -> Vec<u8> {
    let mut bytes = b"snap1 leaves of a content".to_vec();
    bytes.put_bytes(&header.encode());
    bytes.put_bytes(&hash.0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Memory;
    use crate::crypto::{LeafHasher, Secret};
    use crate::repo::Opening;
    use crate::world::World;

    const SIZE: u64 = LEAVES_CONTENT_BYTES_MIN;

    fn cache(folder: &std::path::Path) -> LeafCache {
        let opening = Opening { secret: Secret::KeyFile(vec![7; 32]), cache: Some(folder.into()), world: World::system() };
        LeafCache::of(&Repository::create(Arc::new(Memory::default()), opening, "test").unwrap()).unwrap()
    }

    fn leaves(byte: u8) -> (ContentHash, Leaves) {
        let mut hasher = LeafHasher::new();
        hasher.update(&vec![byte; 3 * LEAF_BYTES], 0);
        let (hash, leaves) = hasher.finish();
        (hash, leaves.unwrap())
    }

    #[test]
    fn leaves_are_recalled_for_their_content_and_not_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let ((hash, own), (other, _)) = (leaves(1), leaves(2));
        assert!(cache.recall(hash, SIZE).is_none(), "nothing is remembered");
        for age in 0..=LEAVES_AGE_MAX {
            cache.remember(hash, SIZE, &Recalled { leaves: own.clone(), age }, Some(hash));
            let recalled = cache.recall(hash, SIZE).map(|recalled| (recalled.leaves, recalled.age));
            assert_eq!(recalled, (age < LEAVES_AGE_MAX).then(|| (own.clone(), age)));
        }
        cache.remember(hash, SIZE, &Recalled { leaves: own, age: 0 }, None);
        assert!(cache.recall(other, SIZE).is_none());
        assert!(cache.recall(hash, SIZE - 1).is_none() && cache.recall(hash, (LEAVES_MAX * LEAF_BYTES) as u64 + 1).is_none());
        fs::rename(cache.file(hash), cache.file(other)).unwrap();
        assert!(cache.recall(other, SIZE).is_none(), "under another name");
    }

    #[test]
    fn what_is_said_of_a_content_is_sealed_for_its_repository() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (cache(folder.path()), cache(folder.path()));
        let (hash, own) = leaves(1);
        one.remember(hash, SIZE, &Recalled { leaves: own.clone(), age: 0 }, None);
        let bytes = fs::read(one.file(hash)).unwrap();
        assert!(!bytes.windows(16).any(|window| own.as_bytes()[..16] == *window || hash.0[..16] == *window));
        assert!(!one.file(hash).to_str().unwrap().contains(&blake3::Hash::from(hash.0).to_hex()[..16]));
        make_folder(&other.folder).unwrap();
        fs::write(other.file(hash), &bytes).unwrap();
        assert!(other.recall(hash, SIZE).is_none());
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(one.open(&bad, hash).is_none(), "byte {at}");
            assert!(one.open(&bytes[..at], hash).is_none(), "{at} bytes");
        }
    }
}
