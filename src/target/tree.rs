//! A folder tree that a restore fills, from several threads at once.
//!
//! Every path is looked up beneath the root (see `beneath.rs`); every name is made new and then renamed into its place
//! (see `writer.rs`), so nothing that stands there, least of all a planted link, is written through.
//! Folders we make are closed to others until `finish`, which gives them their metadata, deepest first, and then makes all of it
//! durable; after a power cut before that, files may be empty or missing. Without `finish` the folders stay closed.
//! Metadata that cannot be set is a problem and not an error: problems are kept for `take_problems`.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::beneath::{Beneath, Missing};
use super::meta::{Applier, Handle, modified};
use super::writer::{FileWriter, Temp};
use crate::error::{Error, Result, again};
use crate::format::entry::{Meta, Node, Time};
use crate::progress::Problem;
use crate::world::World;

/// Mode of folders that nothing describes.
const FOLDER_MODE: u32 = 0o755;

/// What a restore brings back besides names and contents.
#[derive(Clone, Copy, Debug)]
pub struct TargetOptions {
    /// Owners and groups.
    pub owners: bool,
    /// Owners by number even where this machine knows the name.
    pub numeric_ids: bool,
    /// Extended attributes, ACLs and capabilities among them.
    pub xattrs: bool,
    /// Character and block devices.
    pub devices: bool,
    /// Runs of zeros become holes. Saved holes are holes always.
    pub sparse: bool,
    /// setuid, setgid and capabilities of files, where the owner is the saved one.
    pub setuid: bool,
    /// A file, link or device where a folder belongs is removed; otherwise it is an error.
    pub replace: bool,
}

impl TargetOptions {
    /// What the running user may do.
    pub fn for_this_process() -> Self {
        let root = rustix::process::geteuid().is_root();
        Self { owners: root, numeric_ids: false, xattrs: true, devices: root, sparse: false, setuid: root, replace: false }
    }
}

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    File {
        size: u64,
        mtime: Time,
        inode: u64,
        links: u64,
    },
    Folder,
    /// A symbolic link, not followed.
    Symlink,
    /// A FIFO, socket or device.
    Other,
}

/// A folder to restore into.
pub struct TreeTarget {
    beneath: Beneath,
    applier: Applier,
    options: TargetOptions,
    /// What folders get in `finish`.
    folders: Mutex<BTreeMap<Vec<u8>, Meta>>,
    problems: Mutex<Vec<Problem>>,
    temp_prefix: u64,
    temps: AtomicU64,
}

impl TreeTarget {
    /// Opens the target folder, and makes it and its parents if need be, for the owner's eyes only.
    pub fn open(root: &Path, options: TargetOptions, world: &World) -> Result<Self> {
        let made = again(|| DirBuilder::new().recursive(true).mode(0o700).create(root));
        made.map_err(|error| Error::file("create", root, error))?;
        Ok(Self::new(Beneath::open(root)?, options, world))
    }

    pub(super) fn new(beneath: Beneath, options: TargetOptions, world: &World) -> Self {
        Self {
            beneath,
            applier: Applier::new(options),
            options,
            folders: Mutex::default(),
            problems: Mutex::default(),
            temp_prefix: u64::from_le_bytes(world.random()),
            temps: AtomicU64::new(0),
        }
    }

    /// A folder: made, with its parents, or kept if it is there. Its metadata is applied in `finish`.
    pub fn folder(&self, path: &[u8], meta: &Meta) -> Result<()> {
        let (parent, name) = self.beneath.parent(path, Missing::Make)?;
        let folder = match self.beneath.make_folder(path, &parent, name) {
            Err(Error::File { source, .. }) if self.options.replace && source.kind() == io::ErrorKind::NotADirectory => {
                // Without AT_REMOVEDIR no folder can go, and a link goes itself.
                retry_on_intr(|| rustix::fs::unlinkat(&parent, name, AtFlags::empty()))
                    .map_err(|errno| self.beneath.failed("remove", path, errno))?;
                self.beneath.make_folder(path, &parent, name)?
            }
            result => result?,
        };
        if !self.applier.is_privileged() {
            self.open_to_us(&folder);
        }
        self.folders.lock().expect("no thread panics with the folders").insert(path.to_vec(), meta.clone());
        Ok(())
    }

    /// What stands at a path now; links are not followed.
    pub fn find(&self, path: &[u8]) -> Result<Option<Found>> {
        let (parent, name) = match self.beneath.parent(path, Missing::Fail) {
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result?,
        };
        let stat = match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            result => result.map_err(|errno| self.beneath.failed("look at", path, errno))?,
        };
        Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Found::File {
                size: stat.st_size as u64,
                mtime: modified(&stat),
                inode: stat.st_ino,
                #[allow(clippy::useless_conversion, reason = "not u64 on every architecture")]
                links: stat.st_nlink.into(),
            },
            FileType::Directory => Found::Folder,
            FileType::Symlink => Found::Symlink,
            _ => Found::Other,
        }))
    }

    /// Opens an existing regular file for reading.
    pub fn open_existing(&self, path: &[u8]) -> Result<File> {
        let (parent, name) = self.beneath.parent(path, Missing::Fail)?;
        let failed = |errno: Errno| self.beneath.failed("open", path, errno);
        // A FIFO must not make us wait.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = retry_on_intr(|| rustix::fs::openat(&parent, name, flags, Mode::empty())).map_err(failed)?;
        let stat = rustix::fs::fstat(&fd).map_err(failed)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(File::from(fd)),
            _ => Err(self.beneath.failed("open", path, io::Error::other("is not a regular file"))),
        }
    }

    /// A new file of `size` bytes, which gets its name in [`FileWriter::commit`].
    pub fn create(&self, path: &[u8], size: u64) -> Result<FileWriter<'_>> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (temp, fd) = self.make_temp(path, |parent, name| rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR))?;
        Ok(FileWriter::new(self, path, temp, File::from(fd), size))
    }

    pub fn symlink(&self, path: &[u8], target: &[u8], meta: &Meta) -> Result<()> {
        let (temp, ()) = self.make_temp(path, |parent, name| rustix::fs::symlinkat(target, parent, name))?;
        self.settle_node(temp, FileType::Symlink, path, meta)
    }

    /// Another name of what stands at `existing`; of a link itself, if it is one.
    pub fn hard_link(&self, path: &[u8], existing: &[u8]) -> Result<()> {
        let (from, from_name) = self.beneath.parent(existing, Missing::Fail)?;
        let link = |parent: &OwnedFd, name: &str| rustix::fs::linkat(&from, from_name, parent, name, AtFlags::empty());
        let (mut temp, ()) = self.make_temp(path, link)?;
        temp.settle_link(last_name(path)).map_err(|error| self.beneath.failed("replace", path, error))
    }

    /// A FIFO, socket or device.
    pub fn special(&self, path: &[u8], node: &Node, meta: &Meta) -> Result<()> {
        let (kind, device) = match node {
            Node::Fifo => (FileType::Fifo, 0),
            Node::Socket => (FileType::Socket, 0),
            Node::CharDevice { device } => (FileType::CharacterDevice, *device),
            Node::BlockDevice { device } => (FileType::BlockDevice, *device),
            _ => return Err(self.beneath.failed("create", path, io::Error::other("is not a device, FIFO or socket"))),
        };
        if matches!(node, Node::CharDevice { .. } | Node::BlockDevice { .. }) && !self.options.devices {
            self.note(path, "Devices are left out");
            return Ok(());
        }
        // The kernel takes 32 bits and would drop the rest, which makes another device of it.
        if u32::try_from(device).is_err() {
            return Err(self.beneath.failed("create", path, io::Error::other(format!("no device has the number {device}"))));
        }
        let (temp, ()) = self.make_temp(path, |parent, name| rustix::fs::mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, device))?;
        self.settle_node(temp, kind, path, meta)
    }

    /// Applies metadata to what stands at a path already, such as an unchanged file.
    pub fn apply(&self, path: &[u8], meta: &Meta) -> Result<()> {
        self.with_handle(path, OFlags::empty(), |handle| self.apply_to(handle, path, meta))
    }

    /// What went wrong since the last call while the restore went on; subjects are paths below the root.
    pub fn take_problems(&self) -> Vec<Problem> {
        std::mem::take(&mut self.problems.lock().expect("no thread panics with the problems"))
    }

    /// Applies the folders' metadata and waits until everything is durable. Returns the problems not taken yet.
    pub fn finish(self) -> Result<Vec<Problem>> {
        let mut folders = std::mem::take(&mut *self.folders.lock().expect("no thread panics with the folders"));
        let undescribed = self.beneath.take_made().into_iter().filter(|path| !folders.contains_key(path)).collect::<Vec<_>>();
        for path in undescribed {
            self.finish_folder(&path, |handle| {
                if let Err(errno) = handle.set_mode(FOLDER_MODE) {
                    self.note(&path, &format!("Cannot set the mode: {}", io::Error::from(errno)));
                }
            });
        }
        // A path sorts before everything below it, so this is deepest first.
        while let Some((path, meta)) = folders.pop_last() {
            self.finish_folder(&path, |handle| self.apply_to(handle, &path, &meta));
        }
        self.beneath.sync()?;
        Ok(self.take_problems())
    }

    pub(super) fn options(&self) -> &TargetOptions {
        &self.options
    }

    pub(super) fn beneath(&self) -> &Beneath {
        &self.beneath
    }

    pub(super) fn apply_to(&self, handle: Handle, path: &[u8], meta: &Meta) {
        for message in self.applier.apply(handle, meta) {
            self.note(path, &message);
        }
    }

    pub(super) fn settle(&self, temp: &mut Temp, path: &[u8]) -> Result<()> {
        temp.settle(last_name(path)).map_err(|error| self.beneath.failed("replace", path, error))
    }

    fn make_temp<T>(&self, path: &[u8], make: impl Fn(&OwnedFd, &str) -> rustix::io::Result<T>) -> Result<(Temp, T)> {
        let (parent, _) = self.beneath.parent(path, Missing::Make)?;
        let fresh = || format!(".snap-restore-{:016x}-{:x}.tmp", self.temp_prefix, self.temps.fetch_add(1, Ordering::Relaxed));
        Temp::make(parent, fresh, make).map_err(|errno| self.beneath.failed("create", path, errno))
    }

    /// Metadata and name of something that has no descriptor of its own.
    fn settle_node(&self, mut temp: Temp, kind: FileType, path: &[u8], meta: &Meta) -> Result<()> {
        let failed = |errno: Errno| self.beneath.failed("create", path, errno);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = retry_on_intr(|| rustix::fs::openat(temp.parent(), temp.name(), flags, Mode::empty())).map_err(failed)?;
        let stat = rustix::fs::fstat(&fd).map_err(failed)?;
        // Somebody may have put another file's second name there, to have us give them that file.
        if FileType::from_raw_mode(stat.st_mode) != kind || stat.st_nlink != 1 {
            return Err(failed(Errno::STALE));
        }
        self.apply_to(Handle::Path(fd.as_fd()), path, meta);
        self.settle(&mut temp, path)
    }

    /// Lets us write into an existing folder of ours until `finish` sets its mode.
    fn open_to_us(&self, folder: &OwnedFd) {
        let mode = rustix::fs::fstat(folder).map_or(0o700, |stat| stat.st_mode & 0o7777);
        if mode & 0o700 != 0o700 {
            // If it fails, so does what is written there, with a better message.
            let _ = Handle::Path(folder.as_fd()).set_mode(mode | 0o700);
        }
    }

    fn finish_folder(&self, path: &[u8], act: impl FnOnce(Handle)) {
        if let Err(error) = self.with_handle(path, OFlags::DIRECTORY, act) {
            let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
            self.note(path, &format!("{error}{cause}"));
        }
    }

    /// Opens what stands at `path` for its metadata to be changed.
    fn with_handle(&self, path: &[u8], flags: OFlags, act: impl FnOnce(Handle)) -> Result<()> {
        let (parent, name) = self.beneath.parent(path, Missing::Fail)?;
        let failed = |errno: Errno| self.beneath.failed("open", path, errno);
        let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::Directory) {
            // Works without /proc, but only if we may read it.
            let flags = flags | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
            if let Ok(fd) = retry_on_intr(|| rustix::fs::openat(&parent, name, flags, Mode::empty())) {
                act(Handle::Open(fd.as_fd()));
                return Ok(());
            }
        }
        let fd = retry_on_intr(|| rustix::fs::openat(&parent, name, flags | OFlags::PATH, Mode::empty())).map_err(failed)?;
        act(Handle::Path(fd.as_fd()));
        Ok(())
    }

    fn note(&self, path: &[u8], message: &str) {
        self.problems.lock().expect("no thread panics with the problems").push(Problem::new(path, message));
    }
}

fn last_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}
