//! What this host remembers of large contents' hashes, so that what is unchanged is hashed once and not twice.
//!
//! One file a content in the cache folder, sealed. It is believed only if its leaves make the hash of the content it is of. A bit that
//! flipped in memory while they were hashed would be handed on from night to night; so after some nights all is hashed anew.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::{Repository, notes};
use crate::crypto::{Keys, Leaves, Sealer};
use crate::format::envelope::Kind;
use crate::id::{ContentHash, RepositoryId};
use crate::limits::*;

/// Sealed as what says which content there is.
const KIND: Kind = Kind::Snapshot;
/// The age, and 32 bytes a leaf.
const NOTE_BYTES_MAX: u64 = 1 + 32 * LEAVES_MAX as u64;

/// The leaves of a content, and for how many runs some may have been handed on.
pub struct Recalled {
    pub leaves: Leaves,
    pub age: u8,
}

/// Where a host keeps the leaves of contents.
pub struct LeafCache {
    folder: PathBuf,
    repository: RepositoryId,
    keys: Arc<Keys>,
    sealer: Sealer,
}

impl LeafCache {
    /// None where nothing is kept from one run to the next.
    pub fn of(repository: &Repository) -> Option<Self> {
        let folder = notes::folder(repository)?.join("leaves");
        Some(Self { folder, repository: repository.id(), keys: repository.keys().clone(), sealer: repository.sealer(KIND) })
    }

    /// The leaves of a content that was read before, if they may be used once more.
    pub fn recall(&self, hash: ContentHash, size: u64) -> Option<Recalled> {
        if !is_worth_it(size) {
            return None;
        }
        let plain = notes::read(&self.file(hash), &self.keys, (self.repository, KIND), &purpose(hash), NOTE_BYTES_MAX)?;
        let (&age, leaves) = plain.split_first().filter(|(age, _)| **age < LEAVES_AGE_MAX)?;
        Some(Recalled { leaves: Leaves::of_content(leaves, hash)?, age })
    }

    /// Remembers the leaves of a content, in the place of those of its older version. Where that fails, it is hashed again.
    pub fn remember(&self, hash: ContentHash, size: u64, recalled: &Recalled, older: Option<ContentHash>) {
        if !is_worth_it(size) {
            return;
        }
        let plain = [&[recalled.age], recalled.leaves.as_bytes()].concat();
        if notes::write(&self.file(hash), &self.sealer, &purpose(hash), &plain).is_ok() {
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

fn purpose(hash: ContentHash) -> Vec<u8> {
    [b"snap1 leaves of a content", &hash.0[..]].concat()
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
        assert_ne!(purpose(hash), purpose(other), "each is sealed for its own");
    }

    #[test]
    fn what_is_said_of_a_content_is_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (cache(folder.path()), cache(folder.path()));
        let (hash, own) = leaves(1);
        one.remember(hash, SIZE, &Recalled { leaves: own.clone(), age: 0 }, None);
        let bytes = fs::read(one.file(hash)).unwrap();
        assert!(!bytes.windows(16).any(|window| own.as_bytes()[..16] == *window || hash.0[..16] == *window));
        assert!(!one.file(hash).to_str().unwrap().contains(&blake3::Hash::from(hash.0).to_hex()[..16]));
        fs::create_dir_all(&other.folder).unwrap();
        fs::write(other.file(hash), &bytes).unwrap();
        assert!(other.recall(hash, SIZE).is_none(), "of another repository");
        // Sealed, but not the leaves of this content.
        let note = |plain: &[u8]| notes::write(&one.file(hash), &one.sealer, &purpose(hash), plain).unwrap();
        note(&[&[0], own.as_bytes()].concat());
        assert!(one.recall(hash, SIZE).is_some());
        for wrong in [&[][..], &[0], &own.as_bytes()[31..], leaves(2).1.as_bytes()] {
            note(wrong);
            assert!(one.recall(hash, SIZE).is_none());
        }
    }
}
