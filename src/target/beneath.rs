//! Reaching folders beneath a root without being led out of it.
//!
//! Promised: a folder returned here was, when it was opened, reached from the root through real folders only; names are joined
//! by the kernel, never by us, and no link is followed, whoever renames what meanwhile. Paths of any length work, in pieces.
//! Not promised: that the folder still stands there. Whoever may move folders out of the target takes with them what is
//! being written there, which is in their power anyway; a folder kept in `recent` only makes that window longer.
//! What happens inside a returned folder is left to others, who name one name and never follow it.

use std::io;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use lru::LruCache;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, retry_on_intr};

use crate::error::{Error, Result, show_bytes};
use crate::format::entry::is_path;

/// Longest piece of a path given to the kernel at once; PATH_MAX is 4096 with its NUL.
const PIECE_BYTES_MAX: usize = 4000;
/// Folders kept open.
const RECENT_FOLDERS: NonZeroUsize = NonZeroUsize::new(64).unwrap();

const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const CONFINED: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// How a path is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walk {
    /// By openat2, many names at once.
    Kernel,
    /// Name by name, for kernels before 5.6 and sandboxes that forbid openat2.
    Names,
}

/// What to do about folders that are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Fail,
    Make,
}

/// A root folder and the way into it.
pub(super) struct Beneath {
    root: Arc<OwnedFd>,
    shown: PathBuf,
    walk: Walk,
    /// The folders used last. A restore goes folder by folder, and several threads each in their own.
    recent: Option<Mutex<LruCache<Vec<u8>, Arc<OwnedFd>>>>,
    /// Folders made only because something below them was asked for.
    made: Mutex<Vec<Vec<u8>>>,
    /// One descriptor a file system, opened before anything is written there, so that syncfs reports every failed write.
    file_systems: Mutex<Vec<(u64, OwnedFd)>>,
}

impl Beneath {
    pub fn open(root: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let failed = |errno: Errno| Error::file("open", root, errno.into());
        let fd = retry_on_intr(|| rustix::fs::open(root, flags, Mode::empty())).map_err(failed)?;
        let walk = match retry_on_intr(|| rustix::fs::openat2(&fd, ".", FOLDER, Mode::empty(), CONFINED)) {
            Err(Errno::NOSYS | Errno::PERM) => Walk::Names,
            _ => Walk::Kernel,
        };
        let beneath = Self {
            root: Arc::new(fd),
            shown: root.to_path_buf(),
            walk,
            recent: Some(Mutex::new(LruCache::new(RECENT_FOLDERS))),
            made: Mutex::default(),
            file_systems: Mutex::default(),
        };
        beneath.note_file_system(beneath.root.as_fd()).map_err(failed)?;
        Ok(beneath)
    }

    #[cfg(test)]
    pub fn walking(mut self, walk: Walk) -> Self {
        self.walk = walk;
        self
    }

    /// Keeps no folder open, so that every use walks again.
    #[cfg(test)]
    pub fn forgetful(mut self) -> Self {
        self.recent = None;
        self
    }

    /// The path for messages.
    pub fn shown(&self, path: &[u8]) -> PathBuf {
        self.shown.join(std::ffi::OsStr::from_bytes(path))
    }

    /// A failed call on `path`.
    pub fn failed(&self, action: &'static str, path: &[u8], source: impl Into<io::Error>) -> Error {
        Error::file(action, self.shown(path), source.into())
    }

    /// The folder that holds `path`, and its last name.
    pub fn parent<'p>(&self, path: &'p [u8], missing: Missing) -> Result<(Arc<OwnedFd>, &'p [u8])> {
        if !is_path(path) {
            return Err(Error::damaged(show_bytes(path), "hostile path"));
        }
        let (folder, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&path[..0], path),
        };
        Ok((self.folder(folder, missing)?, name))
    }

    /// An existing or, if asked, a new folder; the root for an empty path.
    fn folder(&self, path: &[u8], missing: Missing) -> Result<Arc<OwnedFd>> {
        if path.is_empty() {
            return Ok(self.root.clone());
        }
        if let Some(fd) = self.recent().and_then(|mut recent| recent.get(path).cloned()) {
            return Ok(fd);
        }
        let opened = match self.walk(path) {
            Err(Errno::NOENT) if missing == Missing::Make => self.make(path),
            other => other,
        };
        match opened {
            Ok(fd) => self.keep(path, fd),
            Err(errno) => Err(self.explain(path, errno)),
        }
    }

    /// Makes the folder `name` in `parent`, or takes the one that is there.
    pub fn make_folder(&self, path: &[u8], parent: &OwnedFd, name: &[u8]) -> Result<Arc<OwnedFd>> {
        match make_one(parent.as_fd(), name) {
            Ok((fd, _)) => self.keep(path, fd),
            Err(errno) => Err(self.explain(path, errno)),
        }
    }

    /// Folders made on the way, which nobody may have described.
    pub fn take_made(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.made.lock().expect("no thread panics with the list"))
    }

    /// Waits until everything written beneath the root is durable.
    pub fn sync(&self) -> Result<()> {
        let file_systems = self.file_systems.lock().expect("no thread panics with the list");
        for (_, fd) in file_systems.iter() {
            retry_on_intr(|| rustix::fs::syncfs(fd)).map_err(|errno| Error::file("sync", &self.shown, errno.into()))?;
        }
        Ok(())
    }

    fn recent(&self) -> Option<MutexGuard<'_, LruCache<Vec<u8>, Arc<OwnedFd>>>> {
        self.recent.as_ref().map(|recent| recent.lock().expect("no thread panics with the cache"))
    }

    fn keep(&self, path: &[u8], fd: OwnedFd) -> Result<Arc<OwnedFd>> {
        self.note_file_system(fd.as_fd()).map_err(|errno| self.failed("open", path, errno))?;
        let fd = Arc::new(fd);
        if let Some(mut recent) = self.recent() {
            recent.put(path.to_vec(), fd.clone());
        }
        Ok(fd)
    }

    /// Other file systems may be mounted beneath the root.
    fn note_file_system(&self, folder: BorrowedFd) -> rustix::io::Result<()> {
        let device = rustix::fs::fstat(folder)?.st_dev;
        let mut file_systems = self.file_systems.lock().expect("no thread panics with the list");
        if file_systems.iter().all(|(known, _)| *known != device) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            file_systems.push((device, retry_on_intr(|| rustix::fs::openat(folder, ".", flags, Mode::empty()))?));
        }
        Ok(())
    }

    fn walk(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let len_max = if self.walk == Walk::Kernel { PIECE_BYTES_MAX } else { 0 };
        let mut at = None;
        for piece in pieces(path, len_max) {
            let from = at.as_ref().unwrap_or(&*self.root);
            at = Some(match self.walk {
                Walk::Kernel => retry_on_intr(|| rustix::fs::openat2(from, piece, FOLDER, Mode::empty(), CONFINED))?,
                Walk::Names => retry_on_intr(|| rustix::fs::openat(from, piece, FOLDER, Mode::empty()))?,
            });
        }
        at.ok_or(Errno::INVAL)
    }

    /// Walks name by name and makes what is missing.
    fn make(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let mut at = None;
        let mut end = 0;
        for name in path.split(|byte| *byte == b'/') {
            let from = at.as_ref().unwrap_or(&*self.root).as_fd();
            end += name.len();
            at = Some(match retry_on_intr(|| rustix::fs::openat(from, name, FOLDER, Mode::empty())) {
                Err(Errno::NOENT) => {
                    let (fd, made) = make_one(from, name)?;
                    if made {
                        self.made.lock().expect("no thread panics with the list").push(path[..end].to_vec());
                    }
                    fd
                }
                other => other?,
            });
            end += 1;
        }
        at.ok_or(Errno::INVAL)
    }

    /// Names the first thing in the way, which the kernel does not.
    fn explain(&self, path: &[u8], errno: Errno) -> Error {
        if !matches!(errno, Errno::LOOP | Errno::NOTDIR) {
            return self.failed("enter", path, errno);
        }
        let mut at = None;
        let mut end = 0;
        for name in path.split(|byte| *byte == b'/') {
            let from = at.as_ref().unwrap_or(&*self.root);
            end += name.len();
            match retry_on_intr(|| rustix::fs::openat(from, name, FOLDER, Mode::empty())) {
                Ok(fd) => at = Some(fd),
                Err(_) => {
                    let kind = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| FileType::from_raw_mode(stat.st_mode));
                    let why = match kind {
                        Ok(FileType::Symlink) => "is a symbolic link, which is not followed",
                        Ok(FileType::Directory) | Err(_) => break,
                        Ok(_) => "is not a folder",
                    };
                    return self.failed("enter", &path[..end], io::Error::new(io::ErrorKind::NotADirectory, why));
                }
            }
            end += 1;
        }
        self.failed("enter", path, errno)
    }
}

/// Makes a folder only we can enter until its metadata is applied; says whether it was not there.
fn make_one(parent: BorrowedFd, name: &[u8]) -> rustix::io::Result<(OwnedFd, bool)> {
    let made = match retry_on_intr(|| rustix::fs::mkdirat(parent, name, Mode::RWXU)) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(errno) => return Err(errno),
    };
    Ok((retry_on_intr(|| rustix::fs::openat(parent, name, FOLDER, Mode::empty()))?, made))
}

/// Cuts a path between names, into the longest pieces of at most `len_max` bytes, or of one name.
fn pieces(mut rest: &[u8], len_max: usize) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let slash = |byte: &u8| *byte == b'/';
        let end = match rest.len() <= len_max {
            true => rest.len(),
            false => rest[..=len_max].iter().rposition(slash).or(rest.iter().position(slash)).unwrap_or(rest.len()),
        };
        let piece = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cut_between_names() {
        let check = |path: &str, len_max: usize, expected: &[&str]| {
            let cut: Vec<&str> = pieces(path.as_bytes(), len_max).map(|piece| std::str::from_utf8(piece).unwrap()).collect();
            assert_eq!(cut, expected, "{path} {len_max}");
        };
        check("", 3, &[]);
        check("a/b/c", 0, &["a", "b", "c"]);
        check("a/b/c", 3, &["a/b", "c"]);
        check("a/b/c", 4, &["a/b", "c"]);
        check("a/b/c", 5, &["a/b/c"]);
        check("long/name", 3, &["long", "name"]);
        check("ab/c/longer/d", 4, &["ab/c", "longer", "d"]);
    }
}
