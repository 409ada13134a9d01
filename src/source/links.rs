//! Which files were met under another name before.
//!
//! A file is forgotten with the last of its names, so that memory follows the names still to come and not the tree.

use std::collections::HashMap;

use super::stat::Stat;
use crate::format::entry::Time;

/// The first name of a file.
struct First {
    path: Vec<u8>,
    names_left: u32,
    /// A number may be given to another file while the walk goes on: these tell them apart.
    size: u64,
    mtime: Time,
}

/// Files met with more names than one, and how many of their names are still to come.
#[derive(Default)]
pub(super) struct Links {
    firsts: HashMap<(u64, u64), First>,
}

impl Links {
    /// The path under which the file was met first.
    pub fn first_of(&mut self, stat: &Stat) -> Option<Vec<u8>> {
        let same = |first: &&mut First| stat.links > 1 && (first.size, first.mtime) == (stat.size, stat.mtime);
        let first = self.firsts.get_mut(&stat.identity).filter(same)?;
        first.names_left = first.names_left.saturating_sub(1);
        match first.names_left {
            0 => self.firsts.remove(&stat.identity).map(|first| first.path),
            _ => Some(first.path.clone()),
        }
    }

    pub fn remember(&mut self, stat: &Stat, path: &[u8]) {
        if stat.links > 1 {
            let first = First { path: path.to_vec(), names_left: stat.links - 1, size: stat.size, mtime: stat.mtime };
            self.firsts.insert(stat.identity, first);
        }
    }

    pub fn forget(&mut self, identity: (u64, u64)) {
        self.firsts.remove(&identity);
    }
}
