//! A new file under a temporary name beside its place, and its way to its place.
//!
//! Whatever stands under the final name is whole: the name is given by one rename, after content and metadata.
//! A temporary name that is not given away is removed, on every way out but a kill or a power cut.
//! The file is never read back here; that its bytes are right is for the caller to know before `commit`.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::AtFlags;
use rustix::io::{Errno, retry_on_intr};

use super::meta::Handle;
use super::tree::TreeTarget;
use crate::error::{Error, Result, show_bytes};
use crate::format::entry::Meta;

/// Zero runs of this length and alignment become holes: the block of most file systems.
const HOLE_BYTES: usize = 4096;
/// Bytes of a file after which the disk is to begin with them.
const WRITE_BACK_BYTES: u64 = 8 << 20;
static ZEROS: [u8; HOLE_BYTES] = [0; HOLE_BYTES];

/// A file being written. Dropped without [`FileWriter::commit`], it leaves nothing.
pub struct FileWriter<'a> {
    target: &'a TreeTarget,
    path: Vec<u8>,
    temp: Temp,
    file: File,
    size: u64,
    /// End of the last byte written.
    end: AtomicU64,
    /// Up to where the system was asked to write to the disk.
    written_back: u64,
}

impl<'a> FileWriter<'a> {
    pub(super) fn new(target: &'a TreeTarget, path: &[u8], temp: Temp, file: File, size: u64) -> Self {
        Self { target, path: path.to_vec(), temp, file, size, end: AtomicU64::new(0), written_back: 0 }
    }

    /// Writes bytes at their place, each at most once and in any order, from any thread; what is never written is a hole.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
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

    /// Has the disk begin with what was written, so that it is not idle until the sync at the end.
    pub fn write_back(&mut self) {
        let end = *self.end.get_mut();
        if let Some(len) = end.checked_sub(self.written_back).filter(|len| *len >= WRITE_BACK_BYTES) {
            // Linux starts to write dirty pages that are said not to be needed, without waiting for them, and these stay.
            let _ = rustix::fs::fadvise(&self.file, self.written_back, NonZeroU64::new(len), rustix::fs::Advice::DontNeed);
            self.written_back = end;
        }
    }

    /// Gives the file its length, metadata and name, over whatever but a folder has that name.
    pub fn commit(mut self, meta: &Meta) -> Result<()> {
        if *self.end.get_mut() < self.size {
            let set = self.file.set_len(self.size);
            set.map_err(|error| self.target.beneath().failed("set the length of", &self.path, error))?;
        }
        self.target.apply_to(Handle::Open(self.file.as_fd()), &self.path, meta);
        self.target.settle(&mut self.temp, &self.path)
    }

    /// Gives the file another name than was planned: the same with `suffix`, or more of it where that is taken. Returns the path.
    pub fn commit_beside(mut self, suffix: &[u8], meta: &Meta) -> Result<Vec<u8>> {
        self.path.extend_from_slice(suffix);
        while self.target.find(&self.path)?.is_some() {
            self.path.push(b'+');
        }
        let path = self.path.clone();
        self.commit(meta)?;
        Ok(path)
    }

    fn write_run(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let written = self.file.write_all_at(bytes, offset);
        written.map_err(|error| self.target.beneath().failed("write", &self.path, error))?;
        self.end.fetch_max(offset + bytes.len() as u64, Ordering::Relaxed);
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
            match retry_on_intr(|| make(&parent, &name)) {
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
        match retry_on_intr(|| rustix::fs::renameat(&self.parent, &self.name, &self.parent, name)) {
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
            let _ = retry_on_intr(|| rustix::fs::unlinkat(&self.parent, &self.name, AtFlags::empty()));
        }
    }
}
