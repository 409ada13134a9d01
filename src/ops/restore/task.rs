//! A file to be written, and what a batch of fetched runs holds of it.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::format::content::Content;
use crate::format::entry::Meta;

/// A file to be written.
pub struct FileTask {
    pub path: Vec<u8>,
    pub meta: Meta,
    pub content: Content,
}

/// What a fetched run belongs to.
pub struct Tag {
    pub task: Arc<FileTask>,
    pub is_last: bool,
}

/// Groups what a batch holds of each file.
pub fn groups<T>(batch: Vec<(Tag, T)>) -> Vec<(Arc<FileTask>, Vec<T>, bool)> {
    let mut groups: Vec<(Arc<FileTask>, Vec<T>, bool)> = Vec::new();
    let mut queue: VecDeque<(Tag, T)> = batch.into();
    while let Some((tag, item)) = queue.pop_front() {
        match groups.last_mut() {
            Some((task, items, ended)) if Arc::ptr_eq(task, &tag.task) && !*ended => {
                items.push(item);
                *ended = tag.is_last;
            }
            _ => groups.push((tag.task, vec![item], tag.is_last)),
        }
    }
    groups
}
