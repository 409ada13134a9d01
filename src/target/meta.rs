//! Owner, mode, extended attributes and times, applied to an open file, folder, link or device.
//!
//! The order matters: the owner first, since a change of owner clears setuid bits and capabilities; then extended attributes,
//! as a mode without write permission forbids them; then the mode; then the times.
//! setuid, setgid and capabilities are given only to files of the saved owner: they lend that owner's power, nobody else's.
//! A failure here never loses a file that is whole: it is told, and the rest goes on.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt::Display;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Mutex;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::{Errno, Result};

use super::tree::TargetOptions;
use crate::error::show_bytes;
use crate::format::entry::{Meta, Time};

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
/// Longest list of names Linux gives (XATTR_LIST_MAX).
const XATTR_NAMES_BYTES_MAX: usize = 64 << 10;

/// A descriptor to apply metadata to.
#[derive(Clone, Copy)]
pub(super) enum Handle<'a> {
    /// Opened for reading or writing.
    Open(BorrowedFd<'a>),
    /// Opened with O_PATH: for links, devices, and what we may not read. Its inode is reached through /proc/self/fd.
    Path(BorrowedFd<'a>),
}

/// Applies metadata as the options say.
pub(super) struct Applier {
    options: TargetOptions,
    privileged: bool,
    users: Ids,
    groups: Ids,
}

/// Whether the saved owner and group are the file's now.
struct Owned {
    user: bool,
    group: bool,
}

impl Applier {
    pub fn new(options: TargetOptions) -> Self {
        let lookup_user = |name: &OsStr| uzers::get_user_by_name(name).map(|user| user.uid());
        let lookup_group = |name: &OsStr| uzers::get_group_by_name(name).map(|group| group.gid());
        Self {
            options,
            privileged: rustix::process::geteuid().is_root(),
            users: Ids { lookup: lookup_user, known: Mutex::default() },
            groups: Ids { lookup: lookup_group, known: Mutex::default() },
        }
    }

    /// Whether we run as root.
    pub fn is_privileged(&self) -> bool {
        self.privileged
    }

    /// Makes the file as `meta` says; returns what could not be done.
    pub fn apply(&self, handle: Handle, meta: &Meta) -> Vec<String> {
        let mut failures = Vec::new();
        let mut note = |what: &dyn Display, errno: Errno| failures.push(format!("Cannot set the {what}: {}", std::io::Error::from(errno)));
        let before = match rustix::fs::fstat(handle) {
            Ok(stat) => stat,
            Err(errno) => {
                note(&"metadata", errno);
                return failures;
            }
        };
        let kind = FileType::from_raw_mode(before.st_mode);
        let owned = self.own(handle, &before, meta, &mut note);
        if self.options.xattrs {
            self.set_xattrs(handle, meta, &owned, &mut note);
        }
        if kind != FileType::Symlink {
            let mode = self.mode(kind, meta.mode, &owned);
            // What was just done may have changed the mode: the owner (setuid), an ACL (group bits).
            let now = rustix::fs::fstat(handle).map_or(u32::MAX, |stat| stat.st_mode & 0o7777);
            if mode != now {
                handle.set_mode(mode).unwrap_or_else(|errno| note(&"mode", errno));
            }
        }
        if modified(&before) != meta.mtime {
            handle.set_modified(meta.mtime).unwrap_or_else(|errno| note(&"time", errno));
        }
        failures
    }

    fn own(&self, handle: Handle, now: &Stat, meta: &Meta, note: &mut dyn FnMut(&dyn Display, Errno)) -> Owned {
        let uid = self.users.resolve(&meta.user, meta.uid, self.options.numeric_ids);
        let gid = self.groups.resolve(&meta.group, meta.gid, self.options.numeric_ids);
        let owned = Owned { user: now.st_uid == uid, group: now.st_gid == gid };
        // An id of all ones means "leave it" to the kernel, and nobody's id.
        if !self.options.owners || (owned.user && owned.group) || uid == u32::MAX || gid == u32::MAX {
            return owned;
        }
        match rustix::fs::chownat(handle, "", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH) {
            Ok(()) => Owned { user: true, group: true },
            Err(errno) => {
                // Only root can give files away, so others are not told for each file, as with tar.
                if self.privileged {
                    note(&"owner", errno);
                }
                owned
            }
        }
    }

    fn mode(&self, kind: FileType, saved: u32, owned: &Owned) -> u32 {
        let mut mode = saved & 0o7777;
        // On a folder they say how new files in it are owned and lend nobody's power.
        if kind != FileType::Directory {
            if !self.options.setuid || !owned.user {
                mode &= !SETUID;
            }
            if !self.options.setuid || !owned.group {
                mode &= !SETGID;
            }
        }
        mode
    }

    /// Sets what differs, and removes what is ours to remove (such as an ACL inherited from the folder).
    fn set_xattrs(&self, handle: Handle, meta: &Meta, owned: &Owned, note: &mut dyn FnMut(&dyn Display, Errno)) {
        let allowed = |name: &[u8]| name != b"security.capability" || (self.options.setuid && owned.user);
        let names = handle.xattr_names().unwrap_or_default();
        let present = || names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        for name in present().filter(|name| is_content_of_backups(name)) {
            if !(allowed(name) && meta.xattrs.iter().any(|(wanted, _)| wanted == name)) {
                handle.remove_xattr(name).unwrap_or_else(|errno| note(&Attribute(name), errno));
            }
        }
        for (name, value) in meta.xattrs.iter().filter(|(name, _)| allowed(name)) {
            if !(present().any(|there| there == name) && handle.has_xattr(name, value)) {
                handle.set_xattr(name, value).unwrap_or_else(|errno| note(&Attribute(name), errno));
            }
        }
    }
}

/// Whether an attribute that the backup does not have should go. Labels of security modules are the system's own.
fn is_content_of_backups(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_") || name == b"security.capability"
}

struct Attribute<'a>(&'a [u8]);

impl Display for Attribute<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "extended attribute {}", show_bytes(self.0))
    }
}

/// When a file was modified.
pub(super) fn modified(stat: &Stat) -> Time {
    Time { seconds: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 }
}

/// Ids of names on this machine.
struct Ids {
    lookup: fn(&OsStr) -> Option<u32>,
    known: Mutex<HashMap<Vec<u8>, Option<u32>>>,
}

impl Ids {
    /// The id that this machine gives the name; the saved one where it knows no such name.
    fn resolve(&self, name: &[u8], saved: u32, numeric: bool) -> u32 {
        if numeric || name.is_empty() {
            return saved;
        }
        let mut known = self.known.lock().expect("no thread panics with the names");
        if let Some(id) = known.get(name) {
            return id.unwrap_or(saved);
        }
        let id = (self.lookup)(OsStr::from_bytes(name));
        known.insert(name.to_vec(), id);
        id.unwrap_or(saved)
    }
}

impl AsFd for Handle<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Open(fd) | Self::Path(fd) => *fd,
        }
    }
}

impl Handle<'_> {
    /// The name under which the kernel leads to the very inode, a link's own included.
    fn magic(fd: BorrowedFd) -> String {
        format!("/proc/self/fd/{}", fd.as_raw_fd())
    }

    pub fn set_mode(self, mode: u32) -> Result<()> {
        let mode = Mode::from_raw_mode(mode);
        match self {
            Self::Open(fd) => rustix::fs::fchmod(fd, mode),
            Self::Path(fd) => rustix::fs::chmod(Self::magic(fd), mode),
        }
    }

    fn set_modified(self, time: Time) -> Result<()> {
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() },
        };
        match self {
            Self::Open(fd) => rustix::fs::futimens(fd, &times),
            Self::Path(fd) => match rustix::fs::utimensat(fd, "", &times, AtFlags::EMPTY_PATH) {
                // Kernels before 5.8.
                Err(Errno::INVAL) => rustix::fs::utimensat(rustix::fs::CWD, Self::magic(fd), &times, AtFlags::empty()),
                result => result,
            },
        }
    }

    /// Names, each followed by NUL.
    fn xattr_names(self) -> Result<Vec<u8>> {
        let list = |room: &mut Vec<u8>| match self {
            Self::Open(fd) => rustix::fs::flistxattr(fd, rustix::buffer::spare_capacity(room)),
            Self::Path(fd) => rustix::fs::listxattr(Self::magic(fd), rustix::buffer::spare_capacity(room)),
        };
        let mut names = Vec::with_capacity(256);
        match list(&mut names) {
            Err(Errno::RANGE) => {
                names.reserve(XATTR_NAMES_BYTES_MAX);
                list(&mut names)?;
            }
            result => {
                result?;
            }
        }
        Ok(names)
    }

    fn has_xattr(self, name: &[u8], value: &[u8]) -> bool {
        let mut there = Vec::with_capacity(value.len() + 1);
        let room = rustix::buffer::spare_capacity(&mut there);
        let read = match self {
            Self::Open(fd) => rustix::fs::fgetxattr(fd, name, room),
            Self::Path(fd) => rustix::fs::getxattr(Self::magic(fd), name, room),
        };
        read.is_ok() && there == value
    }

    fn set_xattr(self, name: &[u8], value: &[u8]) -> Result<()> {
        self.writable(|| match self {
            Self::Open(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            Self::Path(fd) => rustix::fs::setxattr(Self::magic(fd), name, value, XattrFlags::empty()),
        })
    }

    fn remove_xattr(self, name: &[u8]) -> Result<()> {
        self.writable(|| match self {
            Self::Open(fd) => rustix::fs::fremovexattr(fd, name),
            Self::Path(fd) => rustix::fs::removexattr(Self::magic(fd), name),
        })
    }

    /// Tries again with write permission, which user attributes need; the right mode is set afterwards.
    fn writable(self, act: impl Fn() -> Result<()>) -> Result<()> {
        match act() {
            Err(Errno::ACCESS) => {
                let mode = rustix::fs::fstat(self)?.st_mode & 0o7777;
                self.set_mode(mode | 0o200)?;
                act()
            }
            result => result,
        }
    }
}
