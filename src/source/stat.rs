//! Metadata of files and the names of their owners.
//!
//! Paths are never followed through symlinks, except by [`Stat::following`]. Owners' names come from the system's database,
//! which may be slow or far away, and are asked for once each.

use std::collections::HashMap;
use std::ffi::CStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fd::BorrowedFd;
use rustix::fs::{AtFlags, CWD, FileType, Statx, StatxFlags, StatxTimestamp, makedev, statx};
use rustix::io::{Result, retry_on_intr};

use crate::format::entry::{Meta, Time};
use crate::limits::NAME_BYTES_MAX;

/// What the system says of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stat {
    pub kind: FileType,
    /// The twelve permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    pub ctime: Time,
    pub size: u64,
    /// Bytes that have space on disk.
    pub allocated: u64,
    /// The file system it is on, and its number there.
    pub identity: (u64, u64),
    pub links: u32,
    /// The device that a device file stands for.
    pub device: u64,
}

impl Stat {
    /// A name in a folder.
    pub fn at(folder: BorrowedFd, name: &CStr) -> Result<Self> {
        retry_on_intr(|| statx(folder, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)).map(Self::from)
    }

    /// An open file.
    pub fn of(file: BorrowedFd) -> Result<Self> {
        retry_on_intr(|| statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)).map(Self::from)
    }

    /// What a path leads to.
    pub fn following(path: &Path) -> Result<Self> {
        retry_on_intr(|| statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS)).map(Self::from)
    }

    /// What stands at a path.
    pub fn not_following(path: &Path) -> Result<Self> {
        retry_on_intr(|| statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)).map(Self::from)
    }

    pub fn meta(&self, owners: &mut Owners) -> Meta {
        Meta {
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            user: owners.user(self.uid),
            group: owners.group(self.gid),
            mtime: self.mtime,
            ctime: self.ctime,
            inode: self.identity.1,
            xattrs: Vec::new(),
        }
    }

    /// Whether the content may have changed between the two looks.
    pub fn is_changed(&self, later: &Self) -> bool {
        (self.size, self.mtime, self.ctime) != (later.size, later.mtime, later.ctime)
    }
}

impl From<Statx> for Stat {
    fn from(stat: Statx) -> Self {
        let mode = u32::from(stat.stx_mode);
        Self {
            kind: FileType::from_raw_mode(mode),
            mode: mode & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            mtime: time(stat.stx_mtime),
            ctime: time(stat.stx_ctime),
            size: stat.stx_size,
            allocated: stat.stx_blocks.saturating_mul(512),
            identity: (makedev(stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino),
            links: stat.stx_nlink,
            device: makedev(stat.stx_rdev_major, stat.stx_rdev_minor),
        }
    }
}

fn time(stamp: StatxTimestamp) -> Time {
    // A broken file system may say anything; a catalog may not.
    Time { seconds: stamp.tv_sec, nanos: stamp.tv_nsec.min(999_999_999) }
}

/// Names of users and groups asked for so far; empty where unknown.
#[derive(Default)]
pub(super) struct Owners {
    users: HashMap<u32, Vec<u8>>,
    groups: HashMap<u32, Vec<u8>>,
}

impl Owners {
    pub fn user(&mut self, uid: u32) -> Vec<u8> {
        let ask = || short(uzers::get_user_by_uid(uid)?.name().as_bytes());
        self.users.entry(uid).or_insert_with(|| ask().unwrap_or_default()).clone()
    }

    pub fn group(&mut self, gid: u32) -> Vec<u8> {
        let ask = || short(uzers::get_group_by_gid(gid)?.name().as_bytes());
        self.groups.entry(gid).or_insert_with(|| ask().unwrap_or_default()).clone()
    }
}

fn short(name: &[u8]) -> Option<Vec<u8>> {
    (name.len() <= NAME_BYTES_MAX).then(|| name.to_vec())
}
