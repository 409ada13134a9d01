//! Files and folders, walked depth-first in path order.
//!
//! One name at a time is looked at once, through its folder's descriptor, and never through a symlink. A file that the lookup
//! knows is not even opened. What cannot be read, vanishes or changes under our eyes is told as a problem, and the walk goes
//! on; only an interrupt ends it. Files that are one file under several names are read under the first, if that could be
//! read; the other names refer to it and carry no extended attributes of their own.
//!
//! Sockets, pipes and devices are never opened, and neither is one that takes a file's place after it was looked at.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, FileType, OFlags, readlinkat};
use rustix::io::Errno;

use super::file::{OpenFile, Step};
use super::folder::{Folder, Names, Stack, open_at};
use super::links::Links;
use super::patterns::LastMatch;
use super::roots::{Base, Root, Roots, ancestors, is_inside};
use super::stat::{Owners, Stat};
use super::xattrs::{XattrReader, Xattrs};
use super::{Event, Filter, Lookup, More, Slab, Source};
use crate::error::{Error, Result};
use crate::format::entry::{Entry, Flaw, Node, is_path};
use crate::progress::Problem;

/// What of a tree is saved.
#[derive(Clone, Debug)]
pub struct TreeOptions {
    pub filter: Filter,
    /// Folders on file systems that none of the roots is on are kept empty.
    pub one_file_system: bool,
    /// Extended attributes are saved too.
    pub xattrs: bool,
}

impl Default for TreeOptions {
    fn default() -> Self {
        Self { filter: Filter::default(), one_file_system: false, xattrs: true }
    }
}

/// Walks files and folders.
pub struct TreeSource {
    options: TreeOptions,
    lookup: Lookup,
    interrupted: Arc<AtomicBool>,
    base: Base,
    devices: Vec<u64>,
    /// The roots still to walk, the next one last.
    roots: Vec<Root>,
    /// The path of the root before, whose folders above stand in the catalog.
    root_before: Vec<u8>,
    problems: Vec<Problem>,
    stack: Stack,
    /// Where the walk is: the base's prefix and the stored path.
    path: Vec<u8>,
    /// The file that is being read; it stands at `path`.
    reading: Option<(OpenFile, (u64, u64))>,
    links: Links,
    owners: Owners,
    xattrs: XattrReader,
    listing: Vec<MaybeUninit<u8>>,
    /// Who we are: others' files may not be opened without a trace.
    uid: u32,
}

impl Source for TreeSource {
    fn fill(&mut self, slab: &mut Slab) -> Result<More> {
        slab.events.extend(self.problems.drain(..).map(Event::Problem));
        while !slab.is_full() {
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            if self.reading.is_some() {
                self.read(slab);
            } else if let More::No = self.advance(slab) {
                return Ok(More::No);
            }
        }
        Ok(More::Yes)
    }
}

impl TreeSource {
    /// Prepares a walk from `roots`; it is an error when none of them is there.
    ///
    /// The walk stops soon after `interrupted` becomes true.
    pub fn new(roots: Vec<PathBuf>, options: TreeOptions, lookup: Lookup, interrupted: Arc<AtomicBool>) -> Result<Self> {
        Ok(Self::from_roots(Roots::new(&roots)?, Vec::new(), options, lookup, interrupted))
    }

    /// A walk from roots that are sorted out. The folders above `root_before` stand in the catalog already.
    pub(super) fn from_roots(
        roots: Roots,
        root_before: Vec<u8>,
        options: TreeOptions,
        lookup: Lookup,
        interrupted: Arc<AtomicBool>,
    ) -> Self {
        let Roots { base, mut list, devices, problems } = roots;
        list.reverse();
        Self {
            options,
            lookup,
            interrupted,
            base,
            devices,
            roots: list,
            root_before,
            problems,
            stack: Stack::default(),
            path: Vec::new(),
            reading: None,
            links: Links::default(),
            owners: Owners::default(),
            xattrs: XattrReader::new(),
            listing: Vec::new(),
            uid: rustix::process::geteuid().as_raw(),
        }
    }

    /// Visits the next name, wherever that is.
    fn advance(&mut self, slab: &mut Slab) -> More {
        let Some(folder) = self.stack.top() else {
            let Some(root) = self.roots.pop() else { return More::No };
            self.begin(root, slab);
            return More::Yes;
        };
        match folder.next() {
            Some(place) => self.visit(place, slab),
            None => {
                for (path_len, error) in self.stack.pop() {
                    self.path.truncate(path_len);
                    self.problem(slab, format!("Was moved while it was read, the rest of it is missing: {error}"));
                }
            }
        }
        More::Yes
    }

    /// Emits the folders above a root and opens the folder it is in.
    fn begin(&mut self, root: Root, slab: &mut Slab) {
        let Root { path, is_followed } = root;
        for above in ancestors(&path) {
            if !is_inside(&self.root_before, above) {
                self.emit_above(above, slab);
            }
        }
        // A followed root is a folder to list; any other one is a name in the folder above it.
        let slash = path.iter().rposition(|byte| *byte == b'/');
        let parent = if is_followed { &path[..] } else { &path[..slash.unwrap_or(0)] };
        self.stand_at(parent);
        let access = if is_followed { OFlags::RDONLY } else { OFlags::PATH };
        let opened = open_at(CWD, &*self.base.place(parent), access | OFlags::DIRECTORY | OFlags::CLOEXEC);
        let opened = opened.and_then(|fd| Stat::of(fd.as_fd()).map(|stat| (fd, stat)));
        match opened {
            Err(error) => {
                self.stand_at(&path);
                self.problem(slab, cannot_read(error));
            }
            Ok((fd, stat)) if is_followed => {
                let folder = self.list(fd, stat, None, slab);
                self.stack.push(folder);
            }
            Ok((fd, stat)) => {
                let names = Names::of(slash.map_or(&path[..], |slash| &path[slash + 1..]));
                self.stack.push(Folder::new(fd, stat.identity, names, self.path.len(), None));
            }
        }
        self.root_before = path;
    }

    fn stand_at(&mut self, path: &[u8]) {
        self.path.clear();
        self.path.extend_from_slice(&self.base.prefix);
        self.path.extend_from_slice(path);
    }

    /// Emits a folder above a root. Symlinks on the way to the root are followed, and stored as the folders they lead to.
    fn emit_above(&mut self, path: &[u8], slab: &mut Slab) {
        self.stand_at(path);
        let place = self.base.place(path);
        match Stat::following(&place) {
            Err(error) => self.problem(slab, cannot_read(error)),
            Ok(stat) => {
                let mut entry = self.entry(&stat, Node::Folder);
                entry.meta.xattrs = self.read_xattrs(slab, |reader, problem| reader.following(&place, problem));
                slab.events.push(Event::Entry { entry, known: false });
            }
        }
    }

    /// Looks at a name in the folder at the top of the stack.
    fn visit(&mut self, place: usize, slab: &mut Slab) {
        // Nothing but the walk itself changes the stack, and the folder comes back before it goes on.
        let mut stack = std::mem::take(&mut self.stack);
        let folder = &*stack.top().expect("a name is in a folder");
        let name = folder.name(place);
        self.path.truncate(folder.path_len);
        if self.path.last().is_some_and(|byte| *byte != b'/') {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name.to_bytes());
        if let Some(child) = self.look_at(folder, name, slab) {
            stack.push(child);
        }
        self.stack = stack;
    }

    fn look_at(&mut self, folder: &Folder, name: &CStr, slab: &mut Slab) -> Option<Folder> {
        let filter = &self.options.filter;
        let last_match = |is_folder| filter.step(folder.last_match, &self.path, is_folder);
        let stat = match Stat::at(folder.fd(), name) {
            Ok(stat) => stat,
            Err(error) => {
                // Whoever excludes it does not want to hear of it, whatever kind of thing it is.
                if !filter.is_out(last_match(true)) && !filter.is_out(last_match(false)) {
                    self.problem(slab, cannot_read(error));
                }
                return None;
            }
        };
        let last_match = last_match(stat.kind == FileType::Directory);
        if filter.is_out(last_match) {
            return None;
        }
        if !is_path(self.stored_path()) {
            self.problem(slab, "Has a path or name that is too long to be stored");
            return None;
        }
        match stat.kind {
            FileType::RegularFile => self.visit_file(folder.fd(), name, stat, slab),
            FileType::Directory => return self.visit_folder(folder.fd(), name, stat, last_match, slab),
            _ => self.visit_other(folder.fd(), name, stat, slab),
        }
        None
    }

    fn visit_file(&mut self, folder: BorrowedFd, name: &CStr, stat: Stat, slab: &mut Slab) {
        if let Some(target) = self.links.first_of(&stat) {
            let entry = self.entry(&stat, Node::HardLink { target });
            slab.events.push(Event::Entry { entry, known: false });
            return;
        }
        let mut entry = self.entry(&stat, Node::File { content: None });
        if let Some(known) = (self.lookup)(&entry, stat.size) {
            self.links.remember(&stat, &entry.path);
            entry.node = Node::File { content: Some(known.content) };
            entry.meta.xattrs = known.xattrs;
            slab.events.push(Event::Entry { entry, known: true });
            return;
        }
        let opened = self.open(folder, name, &stat, OFlags::empty());
        match opened {
            Ok((_, stat)) if stat.kind != FileType::RegularFile => self.problem(slab, REPLACED),
            Ok((fd, stat)) => {
                entry.meta = stat.meta(&mut self.owners);
                entry.meta.xattrs = self.read_xattrs(slab, |reader, problem| reader.of(fd.as_fd(), problem));
                self.links.remember(&stat, &entry.path);
                slab.events.push(Event::Start { entry });
                self.reading = Some((OpenFile::new(fd, stat), stat.identity));
            }
            Err(error) => self.give_up(error, entry, slab),
        }
    }

    fn visit_folder(&mut self, above: BorrowedFd, name: &CStr, stat: Stat, last_match: LastMatch, slab: &mut Slab) -> Option<Folder> {
        if self.options.one_file_system && !self.devices.contains(&stat.identity.0) {
            let mut entry = self.entry(&stat, Node::Folder);
            entry.meta.xattrs = self.read_xattrs(slab, |reader, problem| reader.at(above, name, problem));
            slab.events.push(Event::Entry { entry, known: false });
            return None;
        }
        match self.open(above, name, &stat, OFlags::DIRECTORY) {
            Ok((fd, stat)) => Some(self.list(fd, stat, last_match, slab)),
            Err(error) => {
                let entry = self.entry(&stat, Node::Folder);
                self.give_up(error, entry, slab);
                None
            }
        }
    }

    /// Lists an open folder and emits it; the top of a catalog has no entry.
    fn list(&mut self, fd: OwnedFd, stat: Stat, last_match: LastMatch, slab: &mut Slab) -> Folder {
        let (mut names, error) = Names::list(fd.as_fd(), &mut self.listing);
        if let Some(tag) = self.options.filter.tag_in(fd.as_fd(), |name| names.holds(name)) {
            names = Names::of(tag);
        }
        if !self.stored_path().is_empty() {
            let mut entry = self.entry(&stat, Node::Folder);
            entry.flaw = if error.is_some() { Flaw::Unreadable } else { Flaw::None };
            entry.meta.xattrs = self.read_xattrs(slab, |reader, problem| reader.of(fd.as_fd(), problem));
            slab.events.push(Event::Entry { entry, known: false });
        }
        if let Some(error) = error {
            self.problem(slab, format!("Cannot be listed to its end: {error}"));
        }
        Folder::new(fd, stat.identity, names, self.path.len(), last_match)
    }

    /// Links, pipes, sockets and devices.
    fn visit_other(&mut self, folder: BorrowedFd, name: &CStr, stat: Stat, slab: &mut Slab) {
        let device = stat.device;
        let node = match stat.kind {
            FileType::Symlink => match readlinkat(folder, name, Vec::new()) {
                Ok(target) => Node::Symlink { target: target.into_bytes() },
                Err(Errno::INVAL) => return self.problem(slab, REPLACED),
                Err(error) => return self.problem(slab, cannot_read(error)),
            },
            FileType::Fifo => Node::Fifo,
            FileType::Socket => Node::Socket,
            FileType::CharacterDevice => Node::CharDevice { device },
            FileType::BlockDevice => Node::BlockDevice { device },
            _ => return self.problem(slab, "Is of a kind that cannot be stored"),
        };
        let mut entry = self.entry(&stat, node);
        entry.meta.xattrs = self.read_xattrs(slab, |reader, problem| reader.at(folder, name, problem));
        slab.events.push(Event::Entry { entry, known: false });
    }
    /// Opens what was looked at, if it is still of that kind, and looks at it again.
    fn open(&self, folder: BorrowedFd, name: &CStr, stat: &Stat, flags: OFlags) -> rustix::io::Result<(OwnedFd, Stat)> {
        // Non-blocking, so that a pipe put in a file's place does not hold us up.
        let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let may_hide = self.uid == 0 || self.uid == stat.uid;
        let quietly = if may_hide { OFlags::NOATIME } else { OFlags::empty() };
        let fd = match open_at(folder, name, flags | quietly) {
            Err(Errno::PERM) if may_hide => open_at(folder, name, flags)?,
            Err(Errno::AGAIN) => open_leased(folder, name)?,
            result => result?,
        };
        let stat = Stat::of(fd.as_fd())?;
        Ok((fd, stat))
    }

    /// Emits what could be looked at but not opened.
    fn give_up(&mut self, error: Errno, mut entry: Entry, slab: &mut Slab) {
        if matches!(error, Errno::LOOP | Errno::NOTDIR | Errno::NXIO | Errno::NODEV) {
            return self.problem(slab, REPLACED);
        }
        self.problem(slab, cannot_read(error));
        if error != Errno::NOENT {
            entry.flaw = Flaw::Unreadable;
            slab.events.push(Event::Entry { entry, known: false });
        }
    }

    /// Reads the next bytes of the open file, or ends it.
    fn read(&mut self, slab: &mut Slab) {
        let Some((mut file, identity)) = self.reading.take() else { return };
        let outcome = match file.step(slab) {
            Ok(Step::Read) => {
                self.reading = Some((file, identity));
                return;
            }
            Ok(Step::Ended) => file.finish(),
            Err(error) => Err(error),
        };
        match outcome {
            Ok(outcome) => {
                slab.events.push(Event::End { flaw: outcome.flaw, size: outcome.size, holes: outcome.holes });
                if outcome.flaw == Flaw::Changed {
                    self.problem(slab, "Changed while it was read");
                }
            }
            Err(error) => {
                self.links.forget(identity);
                slab.events.push(Event::End { flaw: Flaw::Unreadable, size: 0, holes: Vec::new() });
                self.problem(slab, cannot_read(error));
            }
        }
    }

    fn stored_path(&self) -> &[u8] {
        // At the top of the catalog the path lacks the prefix's last slash.
        self.path.get(self.base.prefix.len()..).unwrap_or_default()
    }

    fn entry(&mut self, stat: &Stat, node: Node) -> Entry {
        let meta = stat.meta(&mut self.owners);
        Entry { path: self.stored_path().to_vec(), flaw: Flaw::None, meta, node }
    }

    fn problem(&self, slab: &mut Slab, message: impl ToString) {
        let place = self.base.place(self.stored_path());
        slab.events.push(Event::Problem(Problem::new(place.as_os_str().as_bytes(), message)));
    }

    fn read_xattrs(&mut self, slab: &mut Slab, read: impl FnOnce(&mut XattrReader, &mut dyn FnMut(String)) -> Xattrs) -> Xattrs {
        if !self.options.xattrs {
            return Vec::new();
        }
        let mut messages = Vec::new();
        let xattrs = read(&mut self.xattrs, &mut |message| messages.push(message));
        messages.into_iter().for_each(|message| self.problem(slab, message));
        xattrs
    }
}

const REPLACED: &str = "Became another kind of thing while its folder was read";

fn cannot_read(error: Errno) -> String {
    match error {
        Errno::NOENT => "Vanished while its folder was read".into(),
        error => format!("Cannot be read: {error}"),
    }
}

/// Opens a file that a file server holds a lease on: that takes waiting, and what we wait for must be a regular file.
fn open_leased(folder: BorrowedFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let fd = open_at(folder, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC)?;
    if Stat::of(fd.as_fd())?.kind != FileType::RegularFile {
        return Err(Errno::NXIO);
    }
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    open_at(CWD, path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC)
}
