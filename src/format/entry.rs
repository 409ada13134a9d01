//! Catalog entries: one file, folder, link or device each, in path order.
//!
//! The catalog is a byte stream of entries. A path is coded as the length it shares with the path before it, and the rest; at
//! restart points, which depend on the path alone, it stands whole. The table of paths lists restart points about every
//! [`CATALOG_STRIDE_BYTES`], so that reading can begin in the middle.
//!
//! Paths are relative, of raw bytes, with `/` between names; no name is empty, `.`, `..` or holds NUL. Path order compares name by
//! name, so that a folder's entries follow it directly.

use std::cmp::Ordering;

use super::codec::{Reader, Write};
use super::content::Content;
use super::{FormatError, Result};
use crate::limits::*;

/// What kind of thing an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A regular file or a stream. No content: it could not be read.
    File {
        content: Option<Content>,
    },
    Folder,
    Symlink {
        target: Vec<u8>,
    },
    /// Another name of the file that stands earlier in the catalog under `target`.
    HardLink {
        target: Vec<u8>,
    },
    Fifo,
    Socket,
    CharDevice {
        device: u64,
    },
    BlockDevice {
        device: u64,
    },
}

impl Node {
    /// One letter as `ls -l` shows it.
    pub fn letter(&self) -> char {
        match self {
            Self::File { .. } => '-',
            Self::Folder => 'd',
            Self::Symlink { .. } => 'l',
            Self::HardLink { .. } => 'h',
            Self::Fifo => 'p',
            Self::Socket => 's',
            Self::CharDevice { .. } => 'c',
            Self::BlockDevice { .. } => 'b',
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::Folder => "dir",
            Self::Symlink { .. } => "symlink",
            Self::HardLink { .. } => "hardlink",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
            Self::CharDevice { .. } => "chardev",
            Self::BlockDevice { .. } => "dev",
        }
    }
}

/// What went wrong with an entry when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Flaw {
    None = 0,
    /// A file that could not be read, or a folder that could not be listed.
    Unreadable = 1,
    /// A file that changed while it was read.
    Changed = 2,
}

/// Seconds since 1970 and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    pub seconds: i64,
    pub nanos: u32,
}

/// Metadata of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// The twelve permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Names of owner and group; empty where unknown.
    pub user: Vec<u8>,
    pub group: Vec<u8>,
    pub mtime: Time,
    pub ctime: Time,
    pub inode: u64,
    /// In order of their names.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// One line of a catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub path: Vec<u8>,
    pub flaw: Flaw,
    pub meta: Meta,
    pub node: Node,
}

impl Entry {
    /// Length of the content in bytes; 0 for everything but files.
    pub fn size(&self) -> u64 {
        match &self.node {
            Node::File { content: Some(content) } => content.size,
            _ => 0,
        }
    }
}

/// Compares two paths name by name.
pub fn path_order(a: &[u8], b: &[u8]) -> Ordering {
    let key = |byte: &u8| if *byte == b'/' { 0 } else { u16::from(*byte) + 1 };
    a.iter().map(key).cmp(b.iter().map(key))
}

/// Whether `path` may stand in a catalog.
pub fn is_path(path: &[u8]) -> bool {
    path.len() <= PATH_BYTES_MAX && path.split(|byte| *byte == b'/').all(is_name)
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name != b"." && name != b".." && !name.contains(&0)
}

/// Whether the catalog restarts at this path: one path in 64, whatever its neighbours are.
pub fn is_restart(path: &[u8]) -> bool {
    // FNV-1a: any fixed function of the path would do.
    let hash = path.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    (hash >> 32) % 64 == 0
}

/// Appends `entry` to a catalog whose last path was `before` (empty at its start).
pub fn encode_entry(entry: &Entry, before: &[u8], bytes: &mut Vec<u8>) {
    let shared = match is_restart(&entry.path) {
        true => 0,
        false => before.iter().zip(&entry.path).take_while(|(a, b)| a == b).count(),
    };
    bytes.put_varint(shared as u64);
    bytes.put_string(&entry.path[shared..]);
    let (kind, device) = match &entry.node {
        Node::File { content: Some(_) } => (0, None),
        Node::File { content: None } => (1, None),
        Node::Folder => (2, None),
        Node::Symlink { .. } => (3, None),
        Node::HardLink { .. } => (4, None),
        Node::Fifo => (5, None),
        Node::Socket => (6, None),
        Node::CharDevice { device } => (7, Some(*device)),
        Node::BlockDevice { device } => (8, Some(*device)),
    };
    bytes.put_u8(kind);
    bytes.put_u8(entry.flaw as u8);
    encode_meta(&entry.meta, bytes);
    match &entry.node {
        Node::File { content: Some(content) } => content.encode(bytes),
        Node::Symlink { target } | Node::HardLink { target } => bytes.put_string(target),
        _ => {}
    }
    if let Some(device) = device {
        bytes.put_varint(device);
    }
}

fn encode_meta(meta: &Meta, bytes: &mut Vec<u8>) {
    bytes.put_varint(meta.mode.into());
    bytes.put_varint(meta.uid.into());
    bytes.put_varint(meta.gid.into());
    bytes.put_string(&meta.user);
    bytes.put_string(&meta.group);
    for time in [meta.mtime, meta.ctime] {
        bytes.put_signed(time.seconds);
        bytes.put_varint(time.nanos.into());
    }
    bytes.put_varint(meta.inode);
    bytes.put_varint(meta.xattrs.len() as u64);
    for (name, value) in &meta.xattrs {
        bytes.put_string(name);
        bytes.put_string(value);
    }
}

/// Parses the entry after one whose path was `before`, and leaves the reader behind it.
///
/// Whether the path comes after `before` in path order is checked too: a catalog with a path twice is malformed.
pub fn decode_entry(reader: &mut Reader, before: &[u8]) -> Result<Entry> {
    let shared = reader.length(before.len(), "shared length of a path")?;
    let rest = reader.string(PATH_BYTES_MAX, "path")?;
    let path = [&before[..shared], rest].concat();
    if !is_path(&path) {
        return Err(reader.malformed("hostile path"));
    }
    if !before.is_empty() && path_order(before, &path) != Ordering::Less {
        return Err(reader.malformed("path out of order"));
    }
    let kind = reader.u8("kind of an entry")?;
    let flaw = match reader.u8("flaw of an entry")? {
        0 => Flaw::None,
        1 => Flaw::Unreadable,
        2 => Flaw::Changed,
        other => return Err(FormatError::Unknown { what: "flaw of an entry", value: other.into() }),
    };
    let meta = decode_meta(reader)?;
    let node = match kind {
        0 => Node::File { content: Some(Content::decode(reader)?) },
        1 => Node::File { content: None },
        2 => Node::Folder,
        3 => Node::Symlink { target: reader.string(PATH_BYTES_MAX, "target of a symlink")?.to_vec() },
        4 => {
            let target = reader.string(PATH_BYTES_MAX, "target of a hard link")?.to_vec();
            if !is_path(&target) || path_order(&target, &path) != Ordering::Less {
                return Err(reader.malformed("target of a hard link"));
            }
            Node::HardLink { target }
        }
        5 => Node::Fifo,
        6 => Node::Socket,
        7 => Node::CharDevice { device: reader.varint("device number")? },
        8 => Node::BlockDevice { device: reader.varint("device number")? },
        other => return Err(FormatError::Unknown { what: "kind of an entry", value: other.into() }),
    };
    Ok(Entry { path, flaw, meta, node })
}

fn decode_meta(reader: &mut Reader) -> Result<Meta> {
    let small = |reader: &mut Reader, what| reader.length(u32::MAX as usize, what).map(|value| value as u32);
    let mode = reader.length(0o7777, "mode")? as u32;
    let uid = small(reader, "uid")?;
    let gid = small(reader, "gid")?;
    let user = reader.string(NAME_BYTES_MAX, "user")?.to_vec();
    let group = reader.string(NAME_BYTES_MAX, "group")?.to_vec();
    let mut time = || -> Result<Time> {
        let seconds = reader.signed("seconds")?;
        let nanos = reader.length(999_999_999, "nanoseconds")? as u32;
        Ok(Time { seconds, nanos })
    };
    let (mtime, ctime) = (time()?, time()?);
    let inode = reader.varint("inode")?;
    let count = reader.count(2, "number of extended attributes")?;
    let mut xattrs = Vec::with_capacity(count);
    for _ in 0..count {
        let name = reader.string(NAME_BYTES_MAX, "name of an extended attribute")?.to_vec();
        let value = reader.string(XATTR_BYTES_MAX, "value of an extended attribute")?.to_vec();
        xattrs.push((name, value));
    }
    Ok(Meta { mode, uid, gid, user, group, mtime, ctime, inode, xattrs })
}

/// A row of the table of paths: a restart point and where it lies in the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRow {
    pub path: Vec<u8>,
    pub offset: u64,
}

pub fn encode_row(row: &PathRow, bytes: &mut Vec<u8>) {
    bytes.put_string(&row.path);
    bytes.put_varint(row.offset);
}

/// Parses a whole table of paths.
pub fn decode_rows(bytes: &[u8]) -> Result<Vec<PathRow>> {
    let mut reader = Reader::new(bytes);
    let mut rows: Vec<PathRow> = Vec::new();
    while reader.remaining() > 0 {
        let path = reader.string(PATH_BYTES_MAX, "path of a row")?.to_vec();
        let offset = reader.varint("offset of a row")?;
        if let Some(last) = rows.last()
            && (path_order(&last.path, &path) != Ordering::Less || last.offset >= offset)
        {
            return Err(reader.malformed("row out of order"));
        }
        rows.push(PathRow { path, offset });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::super::content::{Encoding, Hole};
    use super::super::recipe::Recipe;
    use super::*;
    use crate::id::ContentHash;

    fn entry(path: &str, node: Node) -> Entry {
        let meta = Meta {
            mode: 0o4755,
            uid: 1000,
            user: b"ann".to_vec(),
            mtime: Time { seconds: -5, nanos: 999_999_999 },
            xattrs: vec![(b"user.a".to_vec(), vec![0, 255])],
            ..Meta::default()
        };
        Entry { path: path.into(), flaw: Flaw::Changed, meta, node }
    }

    #[test]
    fn entries_round_trip_in_path_order() {
        let content = Content {
            encoding: Encoding::Plain,
            size: 100,
            hash: ContentHash([3; 32]),
            holes: vec![Hole { offset: 10, len: 20 }, Hole { offset: 90, len: 10 }],
            recipe: Recipe::default(),
        };
        let entries = [
            entry("a", Node::Folder),
            entry("a/b", Node::File { content: Some(content) }),
            entry("a/c", Node::HardLink { target: b"a/b".to_vec() }),
            entry("a-b", Node::Symlink { target: b"../x".to_vec() }),
            entry("a-c", Node::CharDevice { device: 259 }),
        ];
        let mut bytes = Vec::new();
        let mut before = Vec::new();
        for entry in &entries {
            encode_entry(entry, &before, &mut bytes);
            before.clone_from(&entry.path);
        }
        let mut reader = Reader::new(&bytes);
        let mut before = Vec::new();
        for entry in &entries {
            assert_eq!(decode_entry(&mut reader, &before).unwrap(), *entry);
            before.clone_from(&entry.path);
        }
        reader.finish().unwrap();
    }

    #[test]
    fn hostile_paths_are_refused() {
        for path in ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a\0b"] {
            let mut bytes = Vec::new();
            encode_entry(&entry(path, Node::Folder), b"", &mut bytes);
            assert!(decode_entry(&mut Reader::new(&bytes), b"").is_err(), "{path:?}");
        }
        let mut bytes = Vec::new();
        encode_entry(&entry("a", Node::Folder), b"", &mut bytes);
        assert!(decode_entry(&mut Reader::new(&bytes), b"b").is_err());
    }
}
