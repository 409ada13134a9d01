//! `snap ls`.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{BufWriter, Write};
use std::sync::atomic::Ordering;

use super::context::Context;
use super::exit::{self, Outcome};
use super::select::{FilterArgs, select};
use super::{json, output, show, unlock};
use crate::error::{Error, Result, show_bytes};
use crate::format::entry::{Entry, Flaw, Node};
use crate::ops::browse::list;

/// List the files in a snapshot
///
/// Paths are printed with a leading slash, below the folder if one is given. Names with control characters or invalid UTF-8
/// are printed escaped, so that they cannot harm a terminal; --null prints them as they are, with a NUL behind each.
#[derive(clap::Args)]
#[command(after_long_help = exit::help(EXAMPLES, exit::OPENING))]
pub struct Args {
    /// Snapshot: latest, latest~2 (two before it), or the first digits of an id; with a folder or file in it
    #[arg(value_name = "SNAPSHOT[:PATH]", default_value = "latest")]
    snapshot: OsString,
    /// Print mode, owner, size and time too
    #[arg(short, long)]
    long: bool,
    /// List what is in folders too, which is the default
    #[arg(long, overrides_with = "no_recursive")]
    recursive: bool,
    /// List one folder only
    #[arg(long, overrides_with = "recursive")]
    no_recursive: bool,
    /// Print exact names with a NUL behind each
    #[arg(short = '0', long, conflicts_with_all = ["long", "json"])]
    null: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

const EXAMPLES: &str = "
  snap ls
  snap ls -l latest:/etc --no-recursive
  snap ls 40dc1520 --json
  snap ls latest~3 -0 | xargs -0 -n1 echo";

impl Args {
    pub fn run(self, context: &Context) -> Result<Outcome> {
        let repository = unlock::open(context)?;
        let selection = select(&repository, &self.snapshot, None, &self.filter.filter())?;
        let interrupted = context.signals.interrupted();
        let mut out = BufWriter::with_capacity(64 << 10, std::io::stdout().lock());
        list(&repository, &selection, !self.no_recursive, &mut |entry| {
            if interrupted.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            let line = self.line(entry, context.options.json);
            out.write_all(&line).map_err(output::closed)
        })?;
        out.flush().map_err(output::closed)?;
        Ok(Outcome::Done)
    }

    fn line(&self, entry: &Entry, as_json: bool) -> Vec<u8> {
        if as_json {
            return format!("{}\n", json::node(entry)).into_bytes();
        }
        if self.null {
            return [b"/", &entry.path[..], &[0]].concat();
        }
        let mut line = String::new();
        if self.long {
            line = long(entry);
        }
        let _ = write!(line, "/{}", show_bytes(&entry.path));
        if let (true, Node::Symlink { target } | Node::HardLink { target }) = (self.long, &entry.node) {
            let _ = write!(line, " -> {}", show_bytes(target));
        }
        line.push('\n');
        line.into_bytes()
    }
}

/// Mode, owner, size and time.
pub fn long(entry: &Entry) -> String {
    let meta = &entry.meta;
    let owner = |name: &[u8], id: u32| if name.is_empty() { id.to_string() } else { show_bytes(name) };
    let time = json::time(meta.mtime).map_or_else(|| "?".into(), show::time);
    let flaw = match entry.flaw {
        Flaw::None => ' ',
        Flaw::Unreadable => '!',
        Flaw::Changed => '~',
    };
    let (user, group) = (owner(&meta.user, meta.uid), owner(&meta.group, meta.gid));
    format!("{}{flaw} {user:<8} {group:<8} {:>12} {time:<19} ", show::mode(entry), entry.size())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::entry::Meta;

    fn entry(path: &[u8], mode: u32, node: Node) -> Entry {
        Entry { path: path.to_vec(), flaw: Flaw::None, meta: Meta { mode, ..Meta::default() }, node }
    }

    #[test]
    fn modes_look_as_in_ls() {
        for (bits, shown) in [(0o755, "drwxr-xr-x"), (0o1777, "drwxrwxrwt"), (0o4640, "drwSr-----"), (0o2711, "drwx--s--x")] {
            assert_eq!(show::mode(&entry(b"x", bits, Node::Folder)), shown);
        }
    }

    #[test]
    fn names_are_harmless_or_exact() {
        let mut args = Args {
            snapshot: "latest".into(),
            long: false,
            recursive: false,
            no_recursive: false,
            null: false,
            filter: FilterArgs::default(),
        };
        let link = entry(b"a\x1b\xff", 0o777, Node::Symlink { target: b"b".to_vec() });
        assert_eq!(args.line(&link, false), b"/a\\u{1b}\\xff\n");
        args.null = true;
        assert_eq!(args.line(&link, false), b"/a\x1b\xff\0");
        (args.null, args.long) = (false, true);
        let line = String::from_utf8(args.line(&link, false)).unwrap();
        assert!(line.starts_with("lrwxrwxrwx") && line.ends_with("/a\\u{1b}\\xff -> b\n"), "{line}");
    }
}
