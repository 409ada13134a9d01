//! Where walks begin: the paths a user names, brought into catalog order without overlap.
//!
//! An absolute path is stored without its leading slash, a relative one as it is, tidied. As soon as one of the paths is
//! absolute, or has `..` in it, all are taken as absolute: otherwise two of them could mean the same stored path. A symlink
//! is followed only when it is named with a slash behind it.

use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;

use super::stat::Stat;
use crate::error::{Error, Result, show};
use crate::format::entry::path_order;
use crate::progress::Problem;

/// Beginnings of a walk.
#[derive(Debug)]
pub(super) struct Roots {
    pub base: Base,
    /// In path order, none inside another.
    pub list: Vec<Root>,
    /// The file systems that roots are on, also those of roots inside others.
    pub devices: Vec<u64>,
    /// Roots that cannot be walked.
    pub problems: Vec<Problem>,
}

/// One beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Root {
    /// Stored path; empty for a folder whose content stands at the top of the catalog.
    pub path: Vec<u8>,
    /// It is a folder to go into even if it is a symlink.
    pub is_followed: bool,
}

/// What stored paths are relative to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base {
    is_absolute: bool,
    /// The current folder without its first slash but with one behind it; nothing for absolute roots.
    pub prefix: Vec<u8>,
}

impl Base {
    pub fn is_absolute(&self) -> bool {
        self.is_absolute
    }

    /// Where a stored path is found in the file system.
    pub fn place(&self, path: &[u8]) -> PathBuf {
        let mut place = if self.is_absolute { b"/".to_vec() } else { Vec::new() };
        place.extend_from_slice(path);
        if place.is_empty() {
            place.push(b'.');
        }
        PathBuf::from(std::ffi::OsString::from_vec(place))
    }
}

impl Roots {
    /// Sorts out what the user named. It is an error when nothing of it is there.
    pub fn new(named: &[PathBuf]) -> Result<Self> {
        if named.is_empty() || named.iter().any(|path| path.as_os_str().is_empty()) {
            return Err(Error::Usage("A path to save is missing or empty".into()));
        }
        let mut failures = Vec::new();
        let mut found: Vec<(&PathBuf, Tidy)> = Vec::new();
        for path in named {
            match Tidy::new(path) {
                Ok(tidy) => found.push((path, tidy)),
                Err(error) => failures.push((path, error)),
            }
        }
        let is_absolute = found.iter().any(|(_, tidy)| tidy.is_absolute);
        let prefix = match found.iter().all(|(_, tidy)| tidy.is_absolute) {
            true => Vec::new(),
            false => current_folder()?,
        };
        let base = Base { is_absolute, prefix: if is_absolute { Vec::new() } else { prefix.clone() } };
        let mut roots = Self { base, list: Vec::new(), devices: Vec::new(), problems: Vec::new() };
        for (named, mut tidy) in found {
            if is_absolute && !tidy.is_absolute {
                tidy.path.splice(0..0, prefix.iter().copied());
                while tidy.path.last() == Some(&b'/') {
                    tidy.path.pop();
                }
            }
            match roots.look_at(tidy) {
                Ok(root) => roots.list.push(root),
                Err(error) => failures.push((named, error.into())),
            }
        }
        roots.judge(failures)?;
        roots.drop_overlap();
        Ok(roots)
    }

    /// Whether there is something to walk.
    fn look_at(&mut self, tidy: Tidy) -> std::result::Result<Root, Errno> {
        let place = self.base.place(&tidy.path);
        let mut stat = Stat::not_following(&place)?;
        let is_link = stat.kind == FileType::Symlink;
        if is_link && tidy.is_folder {
            stat = Stat::following(&place)?;
            if stat.kind != FileType::Directory {
                return Err(Errno::NOTDIR);
            }
        }
        self.devices.push(stat.identity.0);
        Ok(Root { is_followed: tidy.path.is_empty() || (is_link && tidy.is_folder), path: tidy.path })
    }

    fn judge(&mut self, mut failures: Vec<(&PathBuf, io::Error)>) -> Result<()> {
        if self.list.is_empty() {
            let is_missing = |(_, error): &(&PathBuf, io::Error)| error.kind() == io::ErrorKind::NotFound;
            if let Some(other) = failures.iter().position(|failure| !is_missing(failure)) {
                let (path, error) = failures.swap_remove(other);
                return Err(Error::file("read", path, error));
            }
            let names: Vec<_> = failures.iter().map(|(path, _)| show(path)).collect();
            return Err(Error::NotFound(format!("No such file or folder: {}", names.join(", "))));
        }
        let problem = |(path, error): (&PathBuf, io::Error)| Problem::new(path.as_os_str().as_bytes(), format!("Cannot be read: {error}"));
        self.problems.extend(failures.into_iter().map(problem));
        Ok(())
    }

    /// Sorts, and drops what is named twice or lies in another root.
    fn drop_overlap(&mut self) {
        let mut sorted = std::mem::take(&mut self.list);
        sorted.sort_by(|a, b| path_order(&a.path, &b.path).then(b.is_followed.cmp(&a.is_followed)));
        sorted.dedup_by(|a, b| a.path == b.path);
        for root in sorted {
            match self.list.last() {
                Some(outer) if is_inside(&root.path, &outer.path) => {
                    // The walk of the outer root does not pass a symlink, and would silently miss this one.
                    if let Some(link) = self.link_between(outer, &root.path) {
                        let place = self.base.place(&root.path);
                        let message = format!("Left out, since it lies behind the symlink {}", show(&self.base.place(link)));
                        self.problems.push(Problem::new(place.as_os_str().as_bytes(), message));
                    }
                }
                _ => self.list.push(root),
            }
        }
    }

    fn link_between<'a>(&self, outer: &Root, inner: &'a [u8]) -> Option<&'a [u8]> {
        let is_link = |path: &[u8]| Stat::not_following(&self.base.place(path)).is_ok_and(|stat| stat.kind == FileType::Symlink);
        let below_outer = |path: &&[u8]| path.len() > outer.path.len() || (path.len() == outer.path.len() && !outer.is_followed);
        ancestors(inner).filter(below_outer).find(|path| is_link(path))
    }
}

/// Whether `path` lies in `folder`.
pub(super) fn is_inside(path: &[u8], folder: &[u8]) -> bool {
    folder.is_empty() && !path.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.first() == Some(&b'/'))
}

/// The folders above a stored path, from the top, without the top itself.
pub(super) fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| &path[..end])
}

/// The current folder as the beginning of a path: no slash before, one behind.
fn current_folder() -> Result<Vec<u8>> {
    let current = std::env::current_dir().map_err(|error| Error::file("find", ".", error))?;
    let mut prefix = tidy(current.as_os_str().as_bytes());
    if !prefix.is_empty() {
        prefix.push(b'/');
    }
    Ok(prefix)
}

/// A named path without what does not matter.
struct Tidy {
    is_absolute: bool,
    path: Vec<u8>,
    /// It was named with a slash behind it.
    is_folder: bool,
}

impl Tidy {
    fn new(named: &Path) -> io::Result<Self> {
        let bytes = named.as_os_str().as_bytes();
        let is_folder = bytes.ends_with(b"/") || bytes.ends_with(b"/.");
        let parts: Vec<_> = bytes.split(|byte| *byte == b'/').collect();
        let Some(last) = parts.iter().rposition(|part| part == b"..") else {
            return Ok(Self { is_absolute: bytes.starts_with(b"/"), path: tidy(bytes), is_folder });
        };
        // What ".." means depends on symlinks before it, so the system has to say.
        let above = std::fs::canonicalize(std::ffi::OsStr::from_bytes(&parts[..=last].join(&b'/')))?;
        let path = [above.as_os_str().as_bytes(), &parts[last + 1..].join(&b'/')].join(&b'/');
        Ok(Self { is_absolute: true, path: tidy(&path), is_folder })
    }
}

/// Names joined by single slashes.
fn tidy(path: &[u8]) -> Vec<u8> {
    let names: Vec<_> = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".").collect();
    names.join(&b'/')
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn paths(roots: &Roots) -> Vec<String> {
        roots.list.iter().map(|root| String::from_utf8(root.path.clone()).unwrap()).collect()
    }

    #[test]
    fn absolute_roots_are_sorted_and_apart() {
        let temp = tempfile::tempdir().unwrap();
        let top = temp.path().canonicalize().unwrap();
        for name in ["a", "a/b", "a-b", "c", "c/d"] {
            fs::create_dir(top.join(name)).unwrap();
        }
        symlink("c", top.join("link")).unwrap();
        symlink("..", top.join("c/up")).unwrap();
        let stored = |names: &[&str]| -> Vec<String> {
            names.iter().map(|name| top.join(name).to_str().unwrap().trim_matches('/').to_owned()).collect()
        };
        for (named, expected, problems) in [
            (&["c/d", "a-b", "a"][..], &["a", "a-b", "c/d"][..], 0),
            (&["a/b", "a", "a", "./a//"], &["a"], 0),
            (&["c/../a/b"], &["a/b"], 0),
            // Not a/../c as the letters have it: the link leads up twice.
            (&["c/up/../c"], &[], 1),
            (&["a", "missing", "also/missing"], &["a"], 2),
            (&["link"], &["link"], 0),
            (&["link", "link/d"], &["link"], 1),
            (&["link/", "link/d"], &["link"], 0),
        ] {
            let result = Roots::new(&named.iter().map(|name| top.join(name)).collect::<Vec<_>>());
            match result {
                Ok(roots) => {
                    assert_eq!(paths(&roots), stored(expected), "{named:?}");
                    assert_eq!(roots.problems.len(), problems, "{named:?} {:?}", roots.problems);
                }
                Err(error) => assert!(expected.is_empty() && matches!(error, Error::NotFound(_)), "{named:?} {error}"),
            }
        }
    }

    #[test]
    fn relative_roots_stay_relative_unless_mixed() {
        // Tests run in the package's folder.
        let current = std::env::current_dir().unwrap();
        let absolute = current.to_str().unwrap().trim_start_matches('/').to_owned();
        for (named, expected) in [
            (&["./src//", "Cargo.toml"][..], vec!["Cargo.toml".into(), "src".into()]),
            (&[".", "src"], vec![String::new()]),
            (&["src/.."], vec![absolute.clone()]),
            (&["src", current.join("Cargo.toml").to_str().unwrap()], vec![format!("{absolute}/Cargo.toml"), format!("{absolute}/src")]),
            (&["."], vec![String::new()]),
            (&["/", "src"], vec![String::new()]),
        ] {
            let roots = Roots::new(&named.iter().map(PathBuf::from).collect::<Vec<_>>()).unwrap();
            assert_eq!(paths(&roots), expected, "{named:?}");
        }
        assert!(matches!(Roots::new(&["".into()]), Err(Error::Usage(_))));
        assert!(matches!(Roots::new(&["no such".into()]), Err(Error::NotFound(_))));
    }
}
