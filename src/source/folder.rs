//! A folder whose entries are being visited, and the way back up.
//!
//! Everything is reached from an open folder by a single name, so that no path can be too long and no link swapped in
//! above leads elsewhere. In a deep tree the folders in the middle are closed, and opened again through `..` of the child,
//! which must lead to the very folder that was left.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::ops::Range;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, RawDir, openat};
use rustix::io::{Errno, Result, retry_on_intr};
use rustix::path::Arg;

use super::patterns::LastMatch;
use super::stat::Stat;

/// Folders kept open at the top of the tree, and again as many where the walk is.
const OPEN_FOLDERS_MAX: usize = 128;
/// Names are fetched in pieces of this size.
const LISTING_BYTES: usize = 64 << 10;

/// Opens a name in a folder, again where a signal interrupts it: on network file systems that happens.
pub(super) fn open_at(folder: impl AsFd + Copy, name: impl Arg + Copy, flags: OFlags) -> Result<OwnedFd> {
    retry_on_intr(|| openat(folder, name, flags, Mode::empty()))
}

/// An open folder and its names.
pub(super) struct Folder {
    /// `None` only in the middle of a deep tree.
    fd: Option<OwnedFd>,
    identity: (u64, u64),
    names: Names,
    next: usize,
    /// Length of the walk's path when it stands at this folder.
    pub path_len: usize,
    /// The pattern that decides over it.
    pub last_match: LastMatch,
}

impl Folder {
    pub fn new(fd: OwnedFd, identity: (u64, u64), names: Names, path_len: usize, last_match: LastMatch) -> Self {
        Self { fd: Some(fd), identity, names, next: 0, path_len, last_match }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect("the folder that the walk is in is open").as_fd()
    }

    /// The place of the next name to visit.
    pub fn next(&mut self) -> Option<usize> {
        let place = self.next;
        self.next += 1;
        (place < self.names.places.len()).then_some(place)
    }

    pub fn name(&self, place: usize) -> &CStr {
        self.names.with_nul(&self.names.places[place])
    }

    /// Opens it again, from a folder in it.
    fn reopen(&mut self, child: BorrowedFd) -> Result<()> {
        let fd = open_at(child, c"..", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC)?;
        match Stat::of(fd.as_fd())?.identity == self.identity {
            true => self.fd = Some(fd),
            false => return Err(Errno::STALE),
        }
        Ok(())
    }
}

/// The folders from the root to where the walk is.
#[derive(Default)]
pub(super) struct Stack {
    folders: Vec<Folder>,
}

impl Stack {
    pub fn top(&mut self) -> Option<&mut Folder> {
        self.folders.last_mut()
    }

    pub fn push(&mut self, folder: Folder) {
        self.folders.push(folder);
        if let Some(middle) = self.folders.len().checked_sub(OPEN_FOLDERS_MAX).filter(|place| *place >= OPEN_FOLDERS_MAX) {
            self.folders[middle].fd = None;
        }
    }

    /// Leaves the folder at the top. An error, with the length of its path, for each folder that cannot be found again.
    pub fn pop(&mut self) -> Vec<(usize, Errno)> {
        let mut lost = Vec::new();
        let Some(child) = self.folders.pop() else { return lost };
        while let Some(parent) = self.folders.last_mut().filter(|parent| parent.fd.is_none()) {
            let Err(error) = parent.reopen(child.fd()) else { break };
            lost.push((parent.path_len, error));
            self.folders.pop();
        }
        lost
    }
}

/// Names in a folder, each followed by NUL, in one piece of memory.
#[derive(Default)]
pub(super) struct Names {
    bytes: Vec<u8>,
    places: Vec<Range<usize>>,
}

impl Names {
    /// Just these.
    pub fn of(name: &[u8]) -> Self {
        let mut names = Self::default();
        names.push(name);
        names
    }

    /// All in an open folder, in byte order, and what kept us from getting more.
    pub fn list(folder: BorrowedFd, buffer: &mut Vec<MaybeUninit<u8>>) -> (Self, Option<Errno>) {
        buffer.resize(LISTING_BYTES, MaybeUninit::uninit());
        let mut names = Self::default();
        let mut listing = RawDir::new(folder, buffer);
        let mut error = None;
        while let Some(entry) = listing.next() {
            match entry {
                Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
                Ok(entry) => names.push(entry.file_name().to_bytes()),
                Err(Errno::INTR) => {}
                Err(errno) => {
                    error = Some(errno);
                    break;
                }
            }
        }
        names.sort();
        (names, error)
    }

    /// Whether it is there; the names are in order.
    pub fn holds(&self, name: &[u8]) -> bool {
        self.places.binary_search_by(|place| self.bytes[place.clone()].cmp(name)).is_ok()
    }

    fn push(&mut self, name: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.places.push(start..self.bytes.len());
        self.bytes.push(0);
    }

    fn sort(&mut self) {
        let Self { bytes, places } = self;
        places.sort_unstable_by(|a, b| bytes[a.clone()].cmp(&bytes[b.clone()]));
        // A folder that changes while it is listed may show a name twice.
        places.dedup_by(|a, b| bytes[a.clone()] == bytes[b.clone()]);
    }

    fn with_nul(&self, place: &Range<usize>) -> &CStr {
        CStr::from_bytes_with_nul(&self.bytes[place.start..=place.end]).expect("names hold no NUL and end with one")
    }
}
