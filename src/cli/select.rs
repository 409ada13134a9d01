//! Arguments that choose snapshots and paths in them, for all commands the same.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::error::{Error, Result, show_bytes};
use crate::repo::{Repository, Selection, SnapshotFilter};

/// Which snapshots are looked at.
#[derive(clap::Args, Default)]
#[command(next_help_heading = "Which snapshots")]
pub struct FilterArgs {
    /// Only snapshots of this host; may be repeated
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// Only snapshots of this name (of the stream, or as given with backup --name); may be repeated
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
    /// Only snapshots that have all of these tags; repeated: or all of those
    #[arg(long, value_name = "TAG[,TAG...]")]
    tag: Vec<String>,
    /// Let latest mean a snapshot of an incomplete dump too
    #[arg(long)]
    include_incomplete: bool,
}

impl FilterArgs {
    pub fn is_empty(&self) -> bool {
        self.host.is_empty() && self.name.is_empty() && self.tag.is_empty()
    }

    pub fn filter(&self) -> SnapshotFilter {
        let tags = self.tag.iter().map(|list| tags(list)).filter(|tags| !tags.is_empty()).collect();
        SnapshotFilter { hosts: self.host.clone(), names: self.name.clone(), tags, include_incomplete: self.include_incomplete }
    }
}

/// The tags in a list with commas.
pub fn tags(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}

/// The snapshot and path that `SNAPSHOT[:PATH]` and a path of its own mean. Paths need not be text.
pub fn select(repository: &Repository, text: &OsStr, path: Option<&OsString>, filter: &SnapshotFilter) -> Result<Selection> {
    let (which, behind) = split(text)?;
    if behind.is_some() && path.is_some() {
        return Err(Error::Usage(format!("Both {} and a path behind it are given; choose one", show_bytes(text.as_bytes()))));
    }
    let mut selection = repository.select(which, filter)?;
    let path = behind.or(path.map(|path| path.as_bytes()));
    selection.path = trim(path.unwrap_or_default()).to_vec();
    Ok(selection)
}

fn split(text: &OsStr) -> Result<(&str, Option<&[u8]>)> {
    let bytes = text.as_bytes();
    let colon = bytes.iter().position(|byte| *byte == b':').unwrap_or(bytes.len());
    let which = std::str::from_utf8(&bytes[..colon]);
    let which = which.map_err(|_| Error::Usage(format!("{} is not a snapshot", show_bytes(&bytes[..colon]))))?;
    Ok((which, bytes.get(colon + 1..)))
}

fn trim(path: &[u8]) -> &[u8] {
    let start = path.iter().position(|byte| *byte != b'/').unwrap_or(path.len());
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(start, |last| last + 1);
    &path[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_taken_apart_by_bytes() {
        for (text, which, path) in [
            (&b"latest"[..], "latest", None),
            (b"12ab:/a/b", "12ab", Some(&b"/a/b"[..])),
            (b"latest:a:b\xff", "latest", Some(b"a:b\xff")),
            (b"latest:", "latest", Some(b"")),
        ] {
            assert_eq!(split(OsStr::from_bytes(text)).unwrap(), (which, path));
        }
        assert!(split(OsStr::from_bytes(b"\xff:a")).is_err());
        for (path, trimmed) in [("/a/b/", "a/b"), ("//", ""), ("", ""), ("a", "a")] {
            assert_eq!(trim(path.as_bytes()), trimmed.as_bytes());
        }
    }

    #[test]
    fn tags_are_lists_of_lists() {
        let args = FilterArgs { tag: vec!["a, b".into(), "c".into(), ",".into()], ..FilterArgs::default() };
        assert_eq!(args.filter().tags, [vec!["a".to_owned(), "b".into()], vec!["c".into()]]);
    }
}
