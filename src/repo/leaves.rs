//! What this host remembers of large contents' hashes, so that what is unchanged is hashed once and not twice.
//!
//! One file a content in the cache folder, sealed. It is believed only if its leaves make the hash of the content it is of.

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

    /// The leaves of a content that was read before.
    pub fn recall(&self, hash: ContentHash, size: u64) -> Option<Leaves> {
        if !is_worth_it(size) {
            return None;
        }
        let file = self.file(hash);
        let leaves = self.open(&fs::read(&file).ok()?, hash);
        if leaves.is_none() {
            // It will be written anew.
            let _ = fs::remove_file(file);
        }
        leaves
    }

    fn open(&self, bytes: &[u8], hash: ContentHash) -> Option<Leaves> {
        let header = Header::decode(&mut Reader::new(bytes.get(..HEADER_BYTES)?)).ok()?;
        let key = self.keys.seal_key(KIND, &header.salt);
        let plain = key.open(&associated_data(&header, hash), &bytes[HEADER_BYTES..])?;
        Leaves::of_content(&plain, hash)
    }

    /// Remembers the leaves of a content, in the place of those of its older version. Where that fails, it is hashed again.
    pub fn remember(&self, hash: ContentHash, size: u64, leaves: &Leaves, older: Option<ContentHash>) {
        let file = self.file(hash);
        if !is_worth_it(size) || older == Some(hash) && file.exists() || make_folder(&self.folder).is_err() {
            return;
        }
        let header = self.sealer.header();
        let mut bytes = header.encode();
        bytes.extend(self.sealer.seal(&associated_data(header, hash), leaves.as_bytes()));
        if replace::lightly(&file, 0o600, &bytes).is_ok() {
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
