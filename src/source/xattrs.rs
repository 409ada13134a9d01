//! Extended attributes, which hold access control lists and capabilities too.
//!
//! Files and folders are asked through their descriptors. Links and special files must not be opened; they are asked through
//! `/proc/self/fd`, and have none where that is missing. A file system without extended attributes is no problem, an
//! attribute that cannot be read is one.

use std::ffi::CStr;
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use rustix::io::{Errno, Result};

use crate::error::show_bytes;
use crate::limits::*;

/// Names and values, in order of their names.
pub(super) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Reads extended attributes, with buffers that serve again.
pub(super) struct XattrReader {
    names: Vec<u8>,
    value: Vec<u8>,
    path: Vec<u8>,
}

/// Enough for most; the kernel allocates as much as it is offered, so that a larger first try would be slow.
const FIRST_TRY_BYTES: usize = 512;
/// The most that Linux gives.
const SECOND_TRY_BYTES: usize = 64 << 10;

impl XattrReader {
    pub fn new() -> Self {
        Self { names: vec![0; FIRST_TRY_BYTES], value: vec![0; FIRST_TRY_BYTES], path: Vec::new() }
    }

    /// Those of an open file or folder. What cannot be read is said to `problem`.
    pub fn of(&mut self, file: BorrowedFd, problem: impl FnMut(String)) -> Xattrs {
        let list = |bytes: &mut [u8]| rustix::fs::flistxattr(file, bytes);
        self.collect(list, |name, bytes| rustix::fs::fgetxattr(file, name, bytes), problem)
    }

    /// Those of a name in a folder, which is not followed.
    pub fn at(&mut self, folder: BorrowedFd, name: &CStr, problem: impl FnMut(String)) -> Xattrs {
        let mut path = std::mem::take(&mut self.path);
        path.clear();
        write!(path, "/proc/self/fd/{}/", folder.as_raw_fd()).expect("memory takes what is written");
        path.extend_from_slice(name.to_bytes());
        let list = |bytes: &mut [u8]| rustix::fs::llistxattr(&*path, bytes);
        let xattrs = self.collect(list, |name, bytes| rustix::fs::lgetxattr(&*path, name, bytes), problem);
        self.path = path;
        xattrs
    }

    /// Those of what a path leads to.
    pub fn following(&mut self, path: &Path, problem: impl FnMut(String)) -> Xattrs {
        let list = |bytes: &mut [u8]| rustix::fs::listxattr(path, bytes);
        self.collect(list, |name, bytes| rustix::fs::getxattr(path, name, bytes), problem)
    }

    fn collect(
        &mut self,
        list: impl FnMut(&mut [u8]) -> Result<usize>,
        mut get: impl FnMut(&[u8], &mut [u8]) -> Result<usize>,
        mut problem: impl FnMut(String),
    ) -> Xattrs {
        let len = match grow(&mut self.names, list) {
            Ok(len) => len,
            // Not there any more, or no `/proc`: the entry's own fate is told elsewhere.
            Err(Errno::NOTSUP | Errno::NOENT | Errno::NOSYS) => 0,
            Err(error) => {
                problem(format!("Cannot list its extended attributes: {error}"));
                0
            }
        };
        let mut xattrs = Vec::new();
        for name in self.names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            match grow(&mut self.value, |bytes| get(name, bytes)) {
                Ok(len) if len <= XATTR_BYTES_MAX && name.len() <= NAME_BYTES_MAX => {
                    xattrs.push((name.to_vec(), self.value[..len].to_vec()));
                }
                Ok(_) => problem(format!("Extended attribute {} is too large", show_bytes(name))),
                // Removed since it was listed.
                Err(Errno::NODATA) => {}
                Err(error) => problem(format!("Cannot read extended attribute {}: {error}", show_bytes(name))),
            }
        }
        xattrs.sort_unstable();
        xattrs
    }
}

/// Calls with a larger buffer when the first is too small.
fn grow(buffer: &mut Vec<u8>, mut call: impl FnMut(&mut [u8]) -> Result<usize>) -> Result<usize> {
    match call(&mut buffer[..FIRST_TRY_BYTES]) {
        Err(Errno::RANGE) => {
            buffer.resize(SECOND_TRY_BYTES, 0);
            call(buffer)
        }
        result => result,
    }
}
