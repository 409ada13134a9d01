//! Files of this host, outside of any repository, that are written as a whole or not at all: beside their place, and then renamed to it,
//! mostly over what is there. Whoever reads one sees the old or the new one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::{Errno, retry_on_intr};

use crate::error::again;

/// Writes a file that is to outlast a power cut from now on.
pub fn durably(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    replace(path, mode, bytes, File::sync_all, |from, to| again(|| fs::rename(from, to)))?;
    settle_folder(path)
}

/// The same, but what is there is never replaced.
pub fn anew(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    replace(path, mode, bytes, File::sync_all, rename_new)?;
    settle_folder(path)
}

/// Renames a file unless the new name is taken.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match retry_on_intr(|| renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)) {
        // A file system that cannot, as over NFS.
        Err(Errno::INVAL | Errno::NOSYS) => match again(|| fs::hard_link(from, to)) {
            Ok(()) => {
                let _ = fs::remove_file(from);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(error),
            Err(_) => claim(from, to),
        },
        result => Ok(result?),
    }
}

/// The same where there are no hard links either: the name is taken first, and what is renamed replaces that. Only here may whoever is
/// killed in between leave an empty file.
fn claim(from: &Path, to: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).open(to)?;
    again(|| fs::rename(from, to)).inspect_err(|_| {
        let _ = fs::remove_file(to);
    })
}

fn settle_folder(path: &Path) -> io::Result<()> {
    match again(|| File::open(folder(path))?.sync_all()) {
        // Some network file systems cannot sync folders; their servers do it unasked or not at all. And some folders are only to be written to.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported | ErrorKind::PermissionDenied) => Ok(()),
        result => result,
    }
}

/// Writes a file that may be the old one, or broken, after a power cut: for what can be made again.
pub fn lightly(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    replace(path, mode, bytes, |_| Ok(()), |from, to| again(|| fs::rename(from, to)))
}

fn replace(
    path: &Path,
    mode: u32,
    bytes: &[u8],
    settle: impl FnOnce(&File) -> io::Result<()>,
    rename: impl FnOnce(&Path, &Path) -> io::Result<()>,
) -> io::Result<()> {
    let fresh = beside(path);
    // Left behind by a process of the same number.
    let _ = fs::remove_file(&fresh);
    let written = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh).and_then(|mut file| {
        file.write_all(bytes)?;
        settle(&file)
    });
    written.and_then(|()| rename(&fresh, path)).inspect_err(|_| {
        // Nothing else can be done about it.
        let _ = fs::remove_file(&fresh);
    })
}

/// Makes a folder, and those it is in, that only its owner can look into.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A name that no other thread or process uses, and that nobody who looks for files of a kind takes for one.
fn beside(path: &Path) -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}-{number}.new", std::process::id()));
    folder(path).join(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        for (bytes, write) in [(&b"longer than the next"[..], durably as fn(&Path, u32, &[u8]) -> io::Result<()>), (b"short", lightly)] {
            write(&path, 0o600, bytes).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes);
            assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        }
        // It cannot be renamed over a folder: nothing of it is left.
        let taken = folder.path().join("taken");
        fs::create_dir(&taken).unwrap();
        assert!(durably(&taken, 0o600, b"x").is_err());
        assert!(replace(&path, 0o600, b"y", |_| Err(ErrorKind::StorageFull.into()), rename_new).is_err());
        assert_eq!(anew(&path, 0o600, b"z").unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(replace(&path, 0o600, b"z", File::sync_all, claim).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"short");
        let claimed = folder.path().join("claimed");
        replace(&claimed, 0o600, b"whole", File::sync_all, claim).unwrap();
        assert_eq!(fs::read(&claimed).unwrap(), b"whole");
        assert!(claim(&folder.path().join("nowhere"), &folder.path().join("given back")).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }
}
