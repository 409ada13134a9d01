//! The system calls under a store in a folder, each tried again when a signal interrupts it.
//!
//! Files are opened without following a link in the last name, are never inherited by commands we run, and are refused
//! unless they are regular (opening a pipe would wait for ever). Folders may be reached through links.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{self, AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::io::{Errno, Result, retry_on_intr};

use super::Listed;

/// One name in a folder.
pub struct Entry {
    pub name: String,
    pub is_folder: bool,
}

impl Entry {
    /// For messages.
    pub fn shown_in(&self, folder: &str) -> String {
        crate::error::show(&Path::new(folder).join(&self.name))
    }
}

pub fn open_file(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    retry_on_intr(|| fs::open(path, flags, Mode::empty()))
}

pub fn create_file(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    retry_on_intr(|| fs::open(path, flags, Mode::RUSR | Mode::WUSR))
}

fn open_folder(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    retry_on_intr(|| fs::open(path, flags, Mode::empty()))
}

/// The size of an open file, which must be a regular one.
pub fn size_of(file: &OwnedFd) -> io::Result<u64> {
    let stat = retry_on_intr(|| fs::fstat(file))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("not a regular file"));
    }
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}

/// Fills the buffer from `offset` on; `UnexpectedEof` where the file ends first.
pub fn read_exact_at(file: &OwnedFd, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    let short = |end: u64| io::Error::new(io::ErrorKind::UnexpectedEof, format!("it ends before byte {end}"));
    let end = offset.saturating_add(buffer.len() as u64);
    // Beyond this the kernel calls the offset invalid.
    if i64::try_from(end).is_err() {
        return Err(short(end));
    }
    let mut filled = 0;
    while filled < buffer.len() {
        match retry_on_intr(|| rustix::io::pread(file, &mut buffer[filled..], offset + filled as u64))? {
            0 => return Err(short(end)),
            count => filled += count,
        }
    }
    Ok(())
}

pub fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match retry_on_intr(|| rustix::io::write(file, bytes))? {
            0 => return Err(Errno::IO),
            count => bytes = &bytes[count..],
        }
    }
    Ok(())
}

/// Waits until a file's bytes are on the medium. Only an interruption is tried again: it says nothing of the bytes.
pub fn sync(file: &OwnedFd) -> Result<()> {
    retry_on_intr(|| fs::fsync(file))
}

/// Waits until the names in a folder are on the medium.
pub fn sync_folder(path: &Path) -> Result<()> {
    let folder = open_folder(path)?;
    match sync(&folder) {
        // Some network file systems cannot sync folders; their servers do it unasked or not at all. Not so ROFS: a file system says that
        // which gave up after an error, with what was put still waiting.
        Err(Errno::INVAL | Errno::NOTSUP) => Ok(()),
        other => other,
    }
}

pub fn sync_file_system(path: &Path) -> Result<()> {
    let folder = open_folder(path)?;
    retry_on_intr(|| fs::syncfs(&folder))
}

/// Renames unless the new name is taken.
pub fn rename_new(from: &Path, to: &Path) -> Result<()> {
    retry_on_intr(|| fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE))
}

/// Gives a file with one name a second one unless that is taken.
pub fn link_new(from: &Path, to: &Path) -> Result<()> {
    match retry_on_intr(|| fs::linkat(CWD, from, CWD, to, AtFlags::empty())) {
        // A network file system that lost the first reply asks again and finds its own work.
        Err(Errno::EXIST) if retry_on_intr(|| fs::lstat(from)).is_ok_and(|stat| stat.st_nlink > 1) => Ok(()),
        other => other,
    }
}

pub fn unlink(path: &Path) -> Result<()> {
    retry_on_intr(|| fs::unlink(path))
}

/// Makes a folder for its owner only, unless there is one.
pub fn make_folder(path: &Path) -> Result<()> {
    match retry_on_intr(|| fs::mkdir(path, Mode::RWXU)) {
        Err(Errno::EXIST) if path.is_dir() => Ok(()),
        other => other,
    }
}

/// Every name in a folder; what is not UTF-8 is replaced, for no name of ours is affected.
pub fn entries(path: &Path) -> Result<Vec<Entry>> {
    retry_on_intr(|| {
        let mut folder = Dir::new(open_folder(path)?)?;
        let mut entries = Vec::new();
        while let Some(entry) = folder.read() {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == "." || name == ".." {
                continue;
            }
            let mut kind = entry.file_type();
            if kind == FileType::Unknown {
                let stat = fs::statat(folder.fd()?, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
                kind = FileType::from_raw_mode(stat.st_mode);
            }
            entries.push(Entry { name, is_folder: kind == FileType::Directory });
        }
        Ok(entries)
    })
}

/// The names of the regular files in a folder, of those that are wanted.
pub fn list_names(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    retry_on_intr(|| {
        let mut folder = Dir::new(open_folder(path)?)?;
        let mut names = Vec::new();
        while let Some(entry) = folder.read() {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().ok().filter(|name| wanted(name)) else { continue };
            let mut kind = entry.file_type();
            if kind == FileType::Unknown {
                kind = match retry_on_intr(|| fs::statat(folder.fd()?, name, AtFlags::SYMLINK_NOFOLLOW)) {
                    // Deleted since.
                    Err(Errno::NOENT) => continue,
                    other => FileType::from_raw_mode(other?.st_mode),
                };
            }
            if kind == FileType::RegularFile {
                names.push(name.into());
            }
        }
        Ok(names)
    })
}

/// The regular files in a folder whose names are wanted.
pub fn list_files(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<Listed>> {
    Ok(list_with_times(path, wanted)?.into_iter().map(|(file, _)| file).collect())
}

/// The same, with the second each was last written to.
pub fn list_with_times(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<(Listed, i64)>> {
    retry_on_intr(|| {
        let mut folder = Dir::new(open_folder(path)?)?;
        let mut listed = Vec::new();
        while let Some(entry) = folder.read() {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().ok().filter(|name| wanted(name)) else { continue };
            let stat = match retry_on_intr(|| fs::statat(folder.fd()?, name, AtFlags::SYMLINK_NOFOLLOW)) {
                // Deleted since.
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                listed.push((Listed { name: name.into(), size: u64::try_from(stat.st_size).unwrap_or(0) }, stat.st_mtime));
            }
        }
        Ok(listed)
    })
}

/// The second a file was last written to.
pub fn modified(path: &Path) -> Result<i64> {
    Ok(retry_on_intr(|| fs::lstat(path))?.st_mtime)
}

pub fn drop_from_page_cache(file: &OwnedFd) {
    let _ = fs::fadvise(file, 0, None, fs::Advice::DontNeed);
}
