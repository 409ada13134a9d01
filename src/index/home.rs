//! Where an index keeps its files: in a lane of this host's cache folder, without names among temporary files, or in memory.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::MemfdFlags;

use super::run::Tag;

/// Where an index keeps its files.
#[derive(Clone, Debug)]
pub enum Home {
    /// A database `index-0.redb` and runs `index-0.TAG.run` in a folder.
    Lane {
        folder: PathBuf,
        lane: usize,
    },
    /// Files in a folder for temporary ones, which are gone with the process.
    Unnamed(PathBuf),
    Memory,
}

impl Home {
    /// The database's file, where it has a name.
    pub fn database(&self) -> Option<PathBuf> {
        match self {
            Self::Lane { folder, lane } => Some(folder.join(format!("index-{lane}.redb"))),
            _ => None,
        }
    }

    fn run(&self, tag: &Tag) -> Option<PathBuf> {
        match self {
            Self::Lane { folder, lane } => Some(folder.join(format!("index-{lane}.{}.run", hex(tag)))),
            _ => None,
        }
    }

    /// A new file without a name.
    pub fn unnamed(&self) -> io::Result<File> {
        match self {
            Self::Unnamed(folder) => unnamed_in(folder),
            _ => Ok(rustix::fs::memfd_create("snap index", MemfdFlags::CLOEXEC)?.into()),
        }
    }

    /// A file for a new run, for reading too.
    pub fn create_run(&self, tag: &Tag) -> io::Result<File> {
        match self.run(tag) {
            Some(path) => create(&path),
            None => self.unnamed(),
        }
    }

    pub fn open_run(&self, tag: &Tag) -> io::Result<File> {
        match self.run(tag) {
            Some(path) => File::open(path),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// What cannot be removed is swept later.
    pub fn remove_run(&self, tag: &Tag) {
        self.run(tag).map(fs::remove_file);
    }

    /// Whether runs must outlive a crash.
    pub fn lasts(&self) -> bool {
        matches!(self, Self::Lane { .. })
    }

    /// Makes the names of new runs last.
    pub fn sync(&self) -> io::Result<()> {
        match self {
            Self::Lane { folder, .. } => File::open(folder)?.sync_all(),
            _ => Ok(()),
        }
    }

    /// Removes this lane's runs but those to keep: what a crash, or an index that was started over, left behind.
    pub fn sweep(&self, keep: &HashSet<Tag>) {
        let Self::Lane { folder, lane } = self else { return };
        let keep: HashSet<PathBuf> = keep.iter().filter_map(|tag| self.run(tag)).collect();
        let prefix = format!("index-{lane}.");
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let ours = name.to_str().is_some_and(|name| name.starts_with(&prefix) && name.ends_with(".run"));
            if ours && !keep.contains(&entry.path()) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Removes the database; runs are swept with the next one.
    pub fn discard(&self) {
        // Where it cannot be removed, it is started over when its contents are found wanting again.
        self.database().map(fs::remove_file);
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

fn unnamed_in(folder: &Path) -> io::Result<File> {
    let path = folder.join(format!("snap-{}", hex(&super::random())));
    let file = create(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

fn hex(tag: &Tag) -> String {
    tag.iter().map(|byte| format!("{byte:02x}")).collect()
}
