//! What a backup leaves out: patterns, and folders that are marked by a file in them.
//!
//! The walk asks step by step on its way down, so that each path is matched once and nothing below an excluded folder is
//! looked at; [`Filter::excludes`] takes the same steps for a lone path. Folders that a tag marks are kept, with the tag
//! alone, so that a restore shows why they are empty.

use std::ffi::CString;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{FileType, OFlags};
use rustix::io::retry_on_intr;

use super::folder::open_at;
use super::patterns::{LastMatch, Patterns, steps};
use super::stat::Stat;
use crate::error::{Error, Result, show_bytes};

/// Name and beginning of the file that marks a cache folder (<https://bford.info/cachedir/>).
const CACHE_TAG: (&str, &[u8]) = ("CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55");

/// What to leave out, as the user says it.
#[derive(Clone, Debug, Default)]
pub struct FilterRules {
    /// Patterns; see [`super::patterns`].
    pub excludes: Vec<String>,
    /// `FILE` or `FILE:BEGINNING`: leaves out the content of folders that hold such a file.
    pub exclude_if_present: Vec<String>,
    /// Leaves out the content of folders that hold a `CACHEDIR.TAG`.
    pub exclude_caches: bool,
}

/// Compiled rules.
#[derive(Clone, Debug)]
pub struct Filter {
    patterns: Patterns,
    tags: Vec<Tag>,
}

/// A file that marks a folder whose content is left out.
#[derive(Clone, Debug)]
struct Tag {
    name: CString,
    beginning: Vec<u8>,
}

impl Default for Filter {
    /// Leaves nothing out.
    fn default() -> Self {
        Self::new(&FilterRules::default()).expect("no rules are valid rules")
    }
}

impl Filter {
    /// Compiles the rules, or says which is wrong.
    pub fn new(rules: &FilterRules) -> Result<Self> {
        let mut tags = rules.exclude_if_present.iter().map(|rule| Tag::parse(rule)).collect::<Result<Vec<_>>>()?;
        if rules.exclude_caches {
            let name = CString::new(CACHE_TAG.0).expect("the name holds no NUL");
            tags.push(Tag { name, beginning: CACHE_TAG.1.to_vec() });
        }
        Ok(Self { patterns: Patterns::new(&rules.excludes)?, tags })
    }

    /// Whether the patterns leave out `path` (as it stands in a catalog of absolute paths) or a folder above it.
    pub fn excludes(&self, path: &[u8], is_folder: bool) -> bool {
        let mut last = None;
        steps(path).any(|part| {
            last = self.step(last, part, is_folder || part.len() < path.len());
            self.is_out(last)
        })
    }

    /// What decides over `path`, when `above` decides over the folder it lies in.
    pub(super) fn step(&self, above: LastMatch, path: &[u8], is_folder: bool) -> LastMatch {
        self.patterns.step(above, path, is_folder)
    }

    /// Whether the deciding pattern leaves the path out.
    pub(super) fn is_out(&self, last: LastMatch) -> bool {
        self.patterns.is_yes(last)
    }

    /// The name of the file that marks a folder's content as to be left out, if there is one.
    pub(super) fn tag_in(&self, folder: BorrowedFd, holds: impl Fn(&[u8]) -> bool) -> Option<&[u8]> {
        let mut tags = self.tags.iter().filter(|tag| holds(tag.name.to_bytes()));
        tags.find(|tag| tag.is_in(folder)).map(|tag| tag.name.to_bytes())
    }
}

impl Tag {
    fn parse(rule: &str) -> Result<Self> {
        let (name, beginning) = rule.split_once(':').unwrap_or((rule, ""));
        let is_name = !name.is_empty() && !name.contains('/') && name != "." && name != "..";
        match CString::new(name) {
            Ok(name) if is_name => Ok(Self { name, beginning: beginning.into() }),
            _ => Err(Error::Usage(format!("Invalid name of a file to look for: \"{}\"", show_bytes(rule.as_bytes())))),
        }
    }

    /// Whether the file, known to be there, begins as it should.
    fn is_in(&self, folder: BorrowedFd) -> bool {
        if self.beginning.is_empty() {
            return true;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        // What cannot be read is no tag: rather keep too much.
        let Ok(file) = open_at(folder, &*self.name, flags) else { return false };
        if !Stat::of(file.as_fd()).is_ok_and(|stat| stat.kind == FileType::RegularFile) {
            return false;
        }
        let mut beginning = vec![0; self.beginning.len()];
        let mut filled = 0;
        while filled < beginning.len() {
            match retry_on_intr(|| rustix::io::read(&file, &mut beginning[filled..])) {
                Ok(0) | Err(_) => return false,
                Ok(count) => filled += count,
            }
        }
        beginning == self.beginning
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(excludes: &[&str], path: &str, expected: bool) {
        let rules = FilterRules { excludes: excludes.iter().map(|text| text.to_string()).collect(), ..FilterRules::default() };
        let filter = Filter::new(&rules).unwrap();
        let (path, is_folder) = match path.strip_suffix('/') {
            Some(path) => (path, true),
            None => (path, false),
        };
        assert_eq!(filter.excludes(path.as_bytes(), is_folder), expected, "{excludes:?} {path}");
    }

    #[test]
    fn patterns_exclude_as_in_restic() {
        for (pattern, out, kept) in [
            ("foo", &["foo", "a/foo", "a/foo/b", "foo/b/c"][..], &["food", "a/afoo", "FOO"][..]),
            ("*.o", &["a.o", "x/y.o", "x/.o"], &["a.oo", "o"]),
            ("a?c", &["abc", "x/a.c"], &["ac", "a/c"]),
            ("[a-c]x", &["ax", "d/cx"], &["dx"]),
            ("[^a]x", &["bx"], &["ax"]),
            ("a/b", &["a/b", "x/a/b", "x/a/b/c"], &["a/x/b", "xa/b", "b"]),
            ("/a/b", &["a/b", "a/b/c"], &["x/a/b", "a/bc"]),
            ("/a/*/c", &["a/b/c", "a/b/c/d"], &["a/b/b/c", "a/c"]),
            ("/a/**/c", &["a/c", "a/b/c", "a/b/b/c/d"], &["x/a/b/c", "a/cc"]),
            ("a/**", &["a/b", "x/a/b/c"], &["a", "x/a"]),
            ("**/a", &["a", "x/y/a"], &["ab"]),
            ("**", &["a", "a/b"], &[]),
            ("./a//b", &["a/b", "x/a/b"], &["a", "b"]),
            ("tmp/", &["tmp/", "x/tmp/", "x/tmp/a"], &["tmp", "x/tmp"]),
            ("/x/tmp/", &["x/tmp/", "x/tmp/a"], &["x/tmp", "y/x/tmp/a"]),
            ("{a,b}", &["{a,b}", "x/{a,b}"], &["a", "b"]),
            ("\\*", &["*", "a/*"], &["a"]),
            ("\\!a", &["!a"], &["a"]),
            ("ä*", &["äb"], &["ab"]),
        ] {
            out.iter().for_each(|path| check(&[pattern], path, true));
            kept.iter().for_each(|path| check(&[pattern], path, false));
        }
    }

    #[test]
    fn later_patterns_win() {
        check(&["*.c", "!keep.c"], "a/keep.c", false);
        check(&["!keep.c", "*.c"], "a/keep.c", true);
        check(&["*.c", "!keep.c", "/b/keep.c"], "b/keep.c", true);
        check(&["/home/**", "!/home/docs"], "home/docs/a/b", false);
        check(&["/home/**", "!/home/docs"], "home/other", true);
        // As in restic, what lies in an excluded folder is not seen again.
        check(&["a", "!a/b"], "a/b", true);
    }

    #[test]
    fn bytes_need_not_be_text() {
        let rules = FilterRules { excludes: vec!["*.tmp".into()], ..FilterRules::default() };
        let filter = Filter::new(&rules).unwrap();
        assert!(filter.excludes(b"\xff\xfe/\x80\n.tmp", false));
        assert!(!filter.excludes(b"\xff\xfe/\x80\n.tm\xff", false));
    }

    #[test]
    fn tags_are_names_with_an_optional_beginning() {
        for (rule, is_valid) in [(".nobackup", true), ("TAG:some: text", true), ("", false), ("a/b", false), (":x", false), ("..", false)] {
            let rules = FilterRules { exclude_if_present: vec![rule.into()], ..FilterRules::default() };
            assert_eq!(Filter::new(&rules).is_ok(), is_valid, "{rule}");
        }
    }
}
