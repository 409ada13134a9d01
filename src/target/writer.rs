//! A new file under a temporary name beside its place, and its way to its place.
//!
//! Whatever stands under the final name is whole: the name is given by one rename, after content and metadata.
//! A temporary name that is not given away is removed, on every way out but a kill or a power cut.
//! The file is never read back here; that its bytes are right is for the caller to know before `commit`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::meta::Handle;
use super::tree::TreeTarget;
use crate::error::{Error, Result, show_bytes};
use crate::format::entry::Meta;

/// Zero runs of this length and alignment become holes: the block of most file systems.
const HOLE_BYTES: usize = 4096;
static ZEROS: [u8; HOLE_BYTES] = [0; HOLE_BYTES];

/// A file being written. Dropped without [`FileWriter::commit`], it leaves nothing.
pub struct FileWriter<'a> {
    target: &'a TreeTarget,
    path: Vec<u8>,
    temp: Temp,
    file: File,
    size: u64,
    /// End of the last byte written.
    end: u64,
}

impl<'a> FileWriter<'a> {
    pub(super) fn new(target: &'a TreeTarget, path: &[u8], temp: Temp, file: File, size: u64) -> Self {
        Self { target, path: path.to_vec(), temp, file, size, end: 0 }
    }

    /// Writes bytes at their place, each at most once and in any order; what is never written is a hole.
    pub fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > self.size) {
            return Err(Error::damaged(show_bytes(&self.path), "more bytes than its size"));
        }
        if !self.target.options().sparse {
            return self.write_run(offset, bytes);
        }
        let mut run = 0;
        let mut at = 0;
        while at < bytes.len() {
            let block = HOLE_BYTES - ((offset + at as u64) % HOLE_BYTES as u64) as usize;
            let end = bytes.len().min(at + block);
            if bytes[at..end] == ZEROS {
                self.write_run(offset + run as u64, &bytes[run..at])?;
                run = end;
            }
            at = end;
        }
        self.write_run(offset + run as u64, &bytes[run..])
    }

    /// Gives the file its length, metadata and name, over whatever but a folder has that name.
    pub fn commit(mut self, meta: &Meta) -> Result<()> {
        if self.end < self.size {
            let set = self.file.set_len(self.size);
            set.map_err(|error| self.target.beneath().failed("set the length of", &self.path, error))?;
        }
        self.target.apply_to(Handle::Open(self.file.as_fd()), &self.path, meta);
        self.target.settle(&mut self.temp, &self.path)
    }

    fn write_run(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let written = self.file.write_all_at(bytes, offset);
        written.map_err(|error| self.target.beneath().failed("write", &self.path, error))?;
        self.end = self.end.max(offset + bytes.len() as u64);
        Ok(())
    }
}

/// A temporary name in a folder, removed when dropped.
pub(super) struct Temp {
    parent: Arc<OwnedFd>,
    name: String,
    live: bool,
}

impl Temp {
    /// Makes something under one of the fresh names; `make` must fail if the name is taken.
    pub fn make<T>(
        parent: Arc<OwnedFd>,
        mut fresh: impl FnMut() -> String,
        make: impl Fn(&OwnedFd, &str) -> rustix::io::Result<T>,
    ) -> rustix::io::Result<(Self, T)> {
        // A name is taken only if somebody works against us: the first cannot be guessed.
        for _ in 0..16 {
            let name = fresh();
            match make(&parent, &name) {
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(errno),
                Ok(made) => return Ok((Self { parent, name, live: true }, made)),
            }
        }
        Err(Errno::EXIST)
    }

    pub fn parent(&self) -> &OwnedFd {
        &self.parent
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Renames to the final name; a folder of that name stays and is an error.
    pub fn settle(&mut self, name: &[u8]) -> io::Result<()> {
        match rustix::fs::renameat(&self.parent, &self.name, &self.parent, name) {
            Err(Errno::ISDIR) => Err(io::Error::new(io::ErrorKind::IsADirectory, "is a folder")),
            result => {
                result?;
                self.live = false;
                Ok(())
            }
        }
    }

    /// As `settle`, for a second name of a file: rename does nothing if the final name already is one, so the temporary one stays.
    pub fn settle_link(&mut self, name: &[u8]) -> io::Result<()> {
        self.settle(name)?;
        self.live = true;
        Ok(())
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if self.live {
            // Nothing else can be done about a name that will not go.
            let _ = rustix::fs::unlinkat(&self.parent, &self.name, AtFlags::empty());
        }
    }
}
