//! A store in a folder of this machine, or of a file system mounted on it.
//!
//! - A file is written under a temporary name in `tmp/`, synced, and renamed into place without replacing anything;
//!   then the folder it went to is synced. So a name is never seen without all its bytes, and a `put` that returned holds.
//! - After a failed write or sync the temporary file is thrown away. The kernel forgets what it could not write once it has
//!   reported it, so a second sync of the same file proves nothing; bytes are only written again from memory, to a new file.
//! - Folders are made once, by `create_areas`: a missing one later is damage and never an empty list.
//!
//! Temporary files that a crash left behind are ignored, and removed when another operation asks for it.

mod calls;
#[cfg(test)]
mod tests;

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;
use rayon::prelude::*;
use rustix::io::Errno;

use super::{ASIDE_FOLDER, Area, Backend, Leftover, Listed, Place, Result, name_aside};
use crate::error::{StorageError, StorageErrorKind};

const TEMPORARY_FOLDER: &str = "tmp";
/// Files of one name that can be set aside.
const NAMES_ASIDE_MAX: u32 = 10_000;
/// Packs kept open for the next range.
const OPEN_PACKS: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// A store in a folder.
pub struct Local {
    root: PathBuf,
    open_packs: Mutex<LruCache<String, Arc<OwnedFd>>>,
    /// Set once the file system has said that it cannot rename without replacing.
    link_only: AtomicBool,
}

impl Local {
    /// The store in this folder, which need not exist yet.
    pub fn new(root: PathBuf) -> Self {
        Self { root, open_packs: Mutex::new(LruCache::new(OPEN_PACKS)), link_only: AtomicBool::new(false) }
    }

    /// The store in this folder, as if on a file system that cannot rename without replacing.
    #[cfg(test)]
    pub fn without_rename(root: PathBuf) -> Self {
        Self { link_only: AtomicBool::new(true), ..Self::new(root) }
    }

    fn path(&self, place: &Place) -> PathBuf {
        assert!(place.area.holds(&place.name), "{place:?} is no name of a stored file");
        self.root.join(place.path())
    }

    fn folder_of(&self, place: &Place) -> PathBuf {
        self.path(place).parent().expect("a file lies in a folder").to_path_buf()
    }

    fn error(&self, action: &'static str, object: impl ToString, source: impl Into<io::Error>) -> StorageError {
        let source = source.into();
        StorageError { kind: kind_of(&source), action, object: object.to_string(), location: self.location(), source }
    }

    fn error_of(&self, kind: StorageErrorKind, action: &'static str, object: impl ToString, why: String) -> StorageError {
        let source = io::Error::other(why);
        StorageError { kind, action, object: object.to_string(), location: self.location(), source }
    }

    /// `NotFound` says that the asked object is missing; when a folder is missing for a new one, that is something else.
    fn put_error(&self, place: &Place, folder: &Path, error: Errno) -> StorageError {
        if error == Errno::NOENT {
            let why = format!("the folder {TEMPORARY_FOLDER} or {} is missing", crate::error::show(folder));
            return self.error_of(StorageErrorKind::Other, "write", place, why);
        }
        self.error("write", place, error)
    }

    /// Writes the bytes to a new temporary file, again from the start once if the medium failed.
    fn write_temporary(&self, bytes: &[u8]) -> rustix::io::Result<Temporary> {
        match Temporary::write(&self.root.join(TEMPORARY_FOLDER), bytes) {
            Err(Errno::IO) => Temporary::write(&self.root.join(TEMPORARY_FOLDER), bytes),
            other => other,
        }
    }

    /// Gives the file its final name unless that is taken.
    fn publish(&self, mut temporary: Temporary, path: &Path) -> rustix::io::Result<()> {
        if !self.link_only.load(Ordering::Relaxed) {
            match calls::rename_new(&temporary.path, path) {
                Ok(()) => {
                    temporary.gone = true;
                    return Ok(());
                }
                Err(Errno::INVAL | Errno::NOSYS) => self.link_only.store(true, Ordering::Relaxed),
                Err(error) => return Err(error),
            }
        }
        calls::link_new(&temporary.path, path)
    }

    fn open_packs(&self) -> MutexGuard<'_, LruCache<String, Arc<OwnedFd>>> {
        self.open_packs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a file for a range of it. Packs stay open, for readers come back for thousands of ranges.
    fn open_for_ranges(&self, place: &Place) -> rustix::io::Result<Arc<OwnedFd>> {
        if place.area != Area::Packs {
            return Ok(Arc::new(calls::open_file(&self.path(place))?));
        }
        // Held while opening, so that `delete`, which drops the entry after it unlinked the file, cannot pass in between.
        let mut open = self.open_packs();
        if let Some(file) = open.get(&place.name) {
            return Ok(file.clone());
        }
        let file = Arc::new(calls::open_file(&self.path(place))?);
        open.put(place.name.clone(), file.clone());
        Ok(file)
    }

    fn close_pack(&self, place: &Place) {
        if place.area == Area::Packs {
            self.open_packs().pop(&place.name);
        }
    }

    fn list_packs(&self, folder: &Path) -> Result<Vec<Listed>> {
        let list = |shard: &String| {
            let found = calls::list_files(&folder.join(shard), |name| Area::Packs.holds(name) && name.starts_with(shard));
            found.map_err(|error| match error {
                Errno::NOENT => {
                    let why = format!("the folder packs/{shard} is missing");
                    self.error_of(StorageErrorKind::Other, "list", "folder packs", why)
                }
                error => self.error("list", format!("folder packs/{shard}"), error),
            })
        };
        let listed: Result<Vec<Vec<Listed>>> = shards().collect::<Vec<_>>().par_iter().map(list).collect();
        Ok(listed?.into_iter().flatten().collect())
    }

    /// Gives a file its place in `aside/`, which is made when it is first needed.
    fn move_aside(&self, place: &Place) -> rustix::io::Result<String> {
        let (path, aside) = (self.path(place), self.root.join(ASIDE_FOLDER));
        calls::make_folder(&aside)?;
        calls::sync_folder(&self.root)?;
        let mut number = 0;
        let (name, linked) = loop {
            let name = name_aside(place, number);
            let to = aside.join(&name);
            let renamed = match self.link_only.load(Ordering::Relaxed) {
                true => Err(Errno::NOSYS),
                false => calls::rename_new(&path, &to),
            };
            let (moved, linked) = match renamed {
                Err(Errno::INVAL | Errno::NOSYS) => (calls::link_new(&path, &to), true),
                other => (other, false),
            };
            match moved {
                Err(Errno::EXIST) if number < NAMES_ASIDE_MAX => number += 1,
                result => break result.map(|()| (name, linked))?,
            }
        };
        calls::sync_folder(&aside)?;
        if linked {
            calls::unlink(&path)?;
        }
        calls::sync_folder(&self.folder_of(place))?;
        Ok(format!("{ASIDE_FOLDER}/{name}"))
    }

    /// What is in the root that a new repository cannot share it with.
    fn in_the_way(&self) -> rustix::io::Result<Option<String>> {
        let first_strange = |folder: &str, own: &dyn Fn(&str) -> bool| match calls::entries(&self.root.join(folder)) {
            Ok(entries) => Ok(entries.into_iter().find(|entry| !(entry.is_folder && own(&entry.name))).map(|entry| entry.shown_in(folder))),
            // Not reached by the attempt that was cut short.
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        };
        if let Some(strange) = first_strange("", &|name| top_folders().any(|folder| folder == name))? {
            return Ok(Some(strange));
        }
        if let Some(strange) = first_strange("packs", &|name| shards().any(|shard| shard == name))? {
            return Ok(Some(strange));
        }
        let shards = shards().map(|shard| format!("packs/{shard}"));
        for folder in shards.chain(["index", "snapshots", "records"].map(String::from)) {
            if let Some(strange) = first_strange(&folder, &|_| false)? {
                return Ok(Some(strange));
            }
        }
        Ok(None)
    }

    /// Makes every folder and syncs it, the leaves before what holds them.
    fn make_folders(&self) -> rustix::io::Result<()> {
        let shards = shards().map(|shard| format!("packs/{shard}"));
        let folders: Vec<PathBuf> = top_folders().map(String::from).chain(shards).map(|folder| self.root.join(folder)).collect();
        for folder in &folders {
            calls::make_folder(folder)?;
        }
        for folder in folders.iter().rev() {
            calls::sync_folder(folder)?;
        }
        calls::sync_folder(&self.root)?;
        match self.root.parent() {
            None => Ok(()),
            Some(parent) if parent.as_os_str().is_empty() => calls::sync_folder(Path::new(".")),
            Some(parent) => match calls::sync_folder(parent) {
                // A parent that may be passed but not read cannot be synced by itself.
                Err(Errno::ACCESS) => calls::sync_file_system(&self.root),
                other => other,
            },
        }
    }
}

impl Backend for Local {
    fn put(&self, place: &Place, bytes: &[u8]) -> Result<()> {
        let folder = self.folder_of(place);
        let path = self.path(place);
        let temporary = self.write_temporary(bytes).map_err(|error| self.put_error(place, &folder, error))?;
        let published = self.publish(temporary, &path);
        if matches!(published, Ok(()) | Err(Errno::EXIST)) {
            // Also for a file that was there: whoever made it may have died before this step.
            // Should it fail, the file stays, for others may have seen it by now, and it is whole.
            calls::sync_folder(&folder).map_err(|error| self.put_error(place, &folder, error))?;
        }
        published.map_err(|error| self.put_error(place, &folder, error))
    }

    fn get(&self, place: &Place, bytes_max: u64) -> Result<Vec<u8>> {
        let file = calls::open_file(&self.path(place)).map_err(|error| self.error("read", place, error))?;
        let size = calls::size_of(&file).map_err(|error| self.error("read", place, error))?;
        if size > bytes_max {
            let why = format!("it has {size} bytes, which is larger than the {bytes_max} allowed");
            return Err(self.error_of(StorageErrorKind::Other, "read", place, why));
        }
        let mut bytes = vec![0u8; usize::try_from(size).expect("sizes within limits fit in memory")];
        calls::read_exact_at(&file, 0, &mut bytes).map_err(|error| self.error("read", place, error))?;
        Ok(bytes)
    }

    fn read_at(&self, place: &Place, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let file = self.open_for_ranges(place).map_err(|error| self.error("read", place, error))?;
        calls::read_exact_at(&file, offset, buffer).map_err(|error| {
            // A stale handle, or a file that was replaced since, must not fail the next attempt too.
            self.close_pack(place);
            self.error("read", place, error)
        })
    }

    fn list(&self, area: Area) -> Result<Vec<Listed>> {
        let folder = self.root.join(area.folder());
        let object = if area == Area::Top { "the top folder".into() } else { format!("folder {}", area.folder()) };
        let listed = calls::list_files(&folder, |name| area.holds(name)).map_err(|error| self.error("list", object, error))?;
        if area == Area::Packs { self.list_packs(&folder) } else { Ok(listed) }
    }

    fn list_names(&self, area: Area) -> Result<Vec<String>> {
        match area {
            Area::Snapshots | Area::Segments | Area::Records | Area::Reports => {
                let names = calls::list_names(&self.root.join(area.folder()), |name| area.holds(name));
                names.map_err(|error| self.error("list", format!("folder {}", area.folder()), error))
            }
            _ => Ok(self.list(area)?.into_iter().map(|listed| listed.name).collect()),
        }
    }

    fn delete(&self, place: &Place) -> Result<()> {
        let outcome = calls::unlink(&self.path(place)).and_then(|()| calls::sync_folder(&self.folder_of(place)));
        self.close_pack(place);
        outcome.map_err(|error| self.error("delete", place, error))
    }

    fn set_aside(&self, place: &Place) -> Result<String> {
        let moved = self.move_aside(place);
        self.close_pack(place);
        moved.map_err(|error| self.error("set aside", place, error))
    }

    fn settle(&self, area: Area) -> Result<()> {
        let sync = |folder: &str| {
            let synced = calls::sync_folder(&self.root.join(folder));
            synced.map_err(|error| self.error("sync", format!("folder {folder}"), error))
        };
        let shards: Vec<String> = shards().filter(|_| area == Area::Packs).map(|shard| format!("packs/{shard}")).collect();
        shards.par_iter().try_for_each(|shard| sync(shard))?;
        sync(area.folder())
    }

    fn location(&self) -> String {
        crate::error::show(&self.root)
    }

    fn create_areas(&self) -> Result<()> {
        let failed = |error: Errno| self.error("create", "a repository", error);
        calls::make_folder(&self.root).map_err(|error| match (error, self.root.parent()) {
            // Not made for them: an unmounted disk looks like this.
            (Errno::NOENT, Some(above)) => {
                let why = format!("the folder {} does not exist; make it, or mount what belongs there", crate::error::show(above));
                self.error_of(StorageErrorKind::Other, "create", "a repository", why)
            }
            (error, _) => failed(error),
        })?;
        if let Some(found) = self.in_the_way().map_err(failed)? {
            let why = format!("the folder is not empty: it holds {found}");
            return Err(self.error_of(StorageErrorKind::Exists, "create", "a repository", why));
        }
        self.make_folders().map_err(failed)
    }

    fn forget_cached(&self, place: &Place) {
        self.close_pack(place);
        // Only a request: where it fails, the next read says what is wrong.
        if let Ok(file) = calls::open_file(&self.path(place)) {
            calls::drop_from_page_cache(&file);
        }
    }

    fn leftovers(&self) -> Result<Vec<Leftover>> {
        let folder = self.root.join(TEMPORARY_FOLDER);
        let failed = |error| self.error("list", "folder tmp", error);
        let found = calls::list_with_times(&folder, is_temporary).map_err(failed)?;
        // A file written now says what time it is over there; where there is no room for one, nobody knows.
        let now = Temporary::write(&folder, b"").and_then(|probe| calls::modified(&probe.path)).ok();
        let age = |modified: i64| now.map_or(0, |now| u64::try_from(now.saturating_sub(modified)).unwrap_or(0));
        let leftover =
            |(file, modified): (Listed, i64)| Leftover { name: file.name, size: file.size, age: Duration::from_secs(age(modified)) };
        Ok(found.into_iter().map(leftover).collect())
    }

    fn remove_leftover(&self, name: &str) -> Result<()> {
        assert!(is_temporary(name), "{name:?} is no temporary file");
        let outcome = calls::unlink(&self.root.join(TEMPORARY_FOLDER).join(name));
        outcome.map_err(|error| self.error("delete", format!("file {TEMPORARY_FOLDER}/{name}"), error))
    }
}

/// A whole, synced file in `tmp/`; unlinked when dropped unless it was renamed.
struct Temporary {
    path: PathBuf,
    gone: bool,
}

impl Temporary {
    fn write(folder: &Path, bytes: &[u8]) -> rustix::io::Result<Self> {
        let mut random = [0u8; 16];
        getrandom::fill(&mut random).map_err(|_| Errno::NOSYS)?;
        let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = folder.join(format!("{name}.tmp"));
        let file = calls::create_file(&path)?;
        let temporary = Self { path, gone: false };
        calls::write_all(&file, bytes)?;
        calls::sync(&file)?;
        // What closing reports after this is of no matter: the bytes are on the medium.
        Ok(temporary)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.gone {
            // One that cannot be unlinked is swept later; names in `tmp/` mean nothing.
            let _ = calls::unlink(&self.path);
        }
    }
}

/// Whether a name in `tmp/` is one that we give.
fn is_temporary(name: &str) -> bool {
    name.strip_suffix(".tmp").is_some_and(|digits| digits.len() == 32 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

fn top_folders() -> impl Iterator<Item = &'static str> {
    // Notes lie beside what they speak of.
    let areas = Area::ALL.into_iter().filter(|area| !matches!(area, Area::KeyNotes | Area::Reports));
    areas.map(Area::folder).filter(|folder| !folder.is_empty()).chain([TEMPORARY_FOLDER])
}

fn shards() -> impl Iterator<Item = String> {
    (0..=u8::MAX).map(|shard| format!("{shard:02x}"))
}

fn kind_of(error: &io::Error) -> StorageErrorKind {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return StorageErrorKind::Short;
    }
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) => StorageErrorKind::NotFound,
        Some(Errno::EXIST) => StorageErrorKind::Exists,
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => StorageErrorKind::Denied,
        Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => StorageErrorKind::Full,
        Some(Errno::AGAIN | Errno::TIMEDOUT | Errno::STALE) => StorageErrorKind::Transient,
        _ => StorageErrorKind::Other,
    }
}
