//! Which files were met under another name before.
//!
//! A file is forgotten with the last of its names, so that memory follows the names still to come and not the tree.

use std::collections::HashMap;

use super::stat::Stat;

/// Files met with more names than one, and how many of their names are still to come.
#[derive(Default)]
pub(super) struct Links {
    firsts: HashMap<(u64, u64), (Vec<u8>, u32)>,
}

impl Links {
    /// The path under which the file was met first.
    pub fn first_of(&mut self, stat: &Stat) -> Option<Vec<u8>> {
        let (path, names_left) = self.firsts.get_mut(&stat.identity).filter(|_| stat.links > 1)?;
        *names_left = names_left.saturating_sub(1);
        match names_left {
            0 => self.firsts.remove(&stat.identity).map(|(path, _)| path),
            _ => Some(path.clone()),
        }
    }

    pub fn remember(&mut self, stat: &Stat, path: &[u8]) {
        if stat.links > 1 {
            self.firsts.insert(stat.identity, (path.to_vec(), stat.links - 1));
        }
    }

    pub fn forget(&mut self, identity: (u64, u64)) {
        self.firsts.remove(&identity);
    }
}
