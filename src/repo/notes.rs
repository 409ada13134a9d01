//! Files in the cache folder in which this host notes what it knows of a repository: sealed, and believed only if they are what was
//! written in this place for this purpose. What cannot be read or written is as if nothing had been noted.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::Repository;
use crate::crypto::{Keys, Sealer};
use crate::format::codec::{Reader, Write};
use crate::format::envelope::{HEADER_BYTES, Header, Kind};
use crate::id::RepositoryId;
use crate::replace;

/// Bytes of a seal and what belongs to it.
const SEAL_BYTES_MAX: u64 = 4096;

/// Where the notes about a repository are; nowhere if nothing is kept from one run to the next.
pub fn folder(repository: &Repository) -> Option<PathBuf> {
    Some(repository.cache.as_ref()?.join(repository.id().hex()))
}

/// What was noted, if it is about this repository, sealed as this kind for this purpose, and has at most so many bytes.
pub fn read(path: &Path, keys: &Keys, (repository, kind): (RepositoryId, Kind), purpose: &[u8], len_max: u64) -> Option<Vec<u8>> {
    // A pipe in its place has nobody waiting for its other end.
    let file = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path).ok()?;
    let meta = file.metadata().ok().filter(|meta| meta.is_file() && meta.len() <= len_max + SEAL_BYTES_MAX)?;
    let mut bytes = Vec::with_capacity(meta.len() as usize + 1);
    file.take(meta.len()).read_to_end(&mut bytes).ok()?;
    let header = Header::decode(&mut Reader::new(bytes.get(..HEADER_BYTES)?)).ok()?;
    if header.repository != repository || header.kind != kind {
        return None;
    }
    keys.seal_key(kind, &header.salt).open(&associated_data(&header, purpose), &bytes[HEADER_BYTES..])
}

/// Notes this in the place of what was there.
pub fn write(path: &Path, sealer: &Sealer, purpose: &[u8], plain: &[u8]) -> io::Result<()> {
    replace::make_folder(path.parent().expect("the file is in a folder"))?;
    let header = sealer.header();
    let mut bytes = header.encode();
    bytes.extend(sealer.seal(&associated_data(header, purpose), plain));
    replace::lightly(path, 0o600, &bytes)
}

/// Not that of any object in a store: neither can stand in for the other.
fn associated_data(header: &Header, purpose: &[u8]) -> Vec<u8> {
    let mut bytes = purpose.to_vec();
    bytes.put_bytes(&header.encode());
    bytes
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU8, Ordering};

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;
    use crate::crypto::MasterKey;

    const PURPOSE: &[u8] = b"snap1 test of notes";
    const REPOSITORY: RepositoryId = RepositoryId([1; 16]);

    fn keys() -> Arc<Keys> {
        Arc::new(Keys::derive(&MasterKey::new([7; 32])))
    }

    fn sealer() -> Sealer {
        let drawn = AtomicU8::new(0);
        Sealer::new(keys(), Kind::Report, REPOSITORY, Arc::new(move || [drawn.fetch_add(1, Ordering::Relaxed); 32]))
    }

    fn read_back(path: &Path) -> Option<Vec<u8>> {
        read(path, &keys(), (REPOSITORY, Kind::Report), PURPOSE, 100)
    }

    #[test]
    fn a_note_is_what_was_written_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        assert_eq!(read_back(&path), None);
        for plain in [&b"longer than the next"[..], b"short", b""] {
            write(&path, &sealer(), PURPOSE, plain).unwrap();
            assert_eq!(read_back(&path).unwrap(), plain);
        }
        write(&path, &sealer(), PURPOSE, b"noted").unwrap();
        assert_eq!(read(&path, &keys(), (RepositoryId([2; 16]), Kind::Report), PURPOSE, 100), None);
        assert_eq!(read(&path, &keys(), (REPOSITORY, Kind::Snapshot), PURPOSE, 100), None);
        assert_eq!(read(&path, &keys(), (REPOSITORY, Kind::Report), b"snap1 another test", 100), None);
        let good = fs::read(&path).unwrap();
        assert!(!good.windows(5).any(|window| window == b"noted"));
        for at in 0..good.len() {
            fs::write(&path, &good[..at]).unwrap();
            assert_eq!(read_back(&path), None, "{at} bytes");
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, bad).unwrap();
            assert_eq!(read_back(&path), None, "byte {at}");
        }
        fs::write(&path, &good).unwrap();
        assert_eq!(read_back(&path).unwrap(), b"noted");
    }

    #[test]
    fn what_is_no_note_costs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("note");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert_eq!(read_back(&path), None, "nobody writes into this pipe");
        write(&path, &sealer(), PURPOSE, b"noted").unwrap();
        assert_eq!(read_back(&path).unwrap(), b"noted");
        // More than there is memory.
        fs::File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(read_back(&path), None);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(read_back(&path), None);
        assert!(write(&path, &sealer(), PURPOSE, b"noted").is_err());
        assert!(write(&folder.path().join("note/file"), &sealer(), PURPOSE, b"noted").is_ok());
        assert!(write(&folder.path().join("note/file/below"), &sealer(), PURPOSE, b"noted").is_err(), "a file where a folder should be");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
