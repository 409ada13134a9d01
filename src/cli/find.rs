//! `snap find`.

use std::ffi::OsString;
use std::io::{BufWriter, Write};

use jiff::Timestamp;
use serde_json::Value;

use super::context::Context;
use super::exit::{self, Outcome};
use super::ls::long;
use super::report::{Channel, Reporter};
use super::select::{FilterArgs, select};
use super::{json, output, show, unlock};
use crate::error::{Error, Result, show_bytes};
use crate::format::entry::{Entry, Node};
use crate::id::SnapshotId;
use crate::ops::find::{FindOptions, FindReport, find};
use crate::progress::{Problem, Progress};
use crate::repo::{Repository, Selection};
use crate::source::{Case, Names};

/// Find files in all snapshots
///
/// Patterns are those of excludes: *.conf anywhere, nginx/*.conf in any folder nginx, /etc/fstab from the top, ** for any folders
/// between, a slash behind for folders only. Quote them, so that the shell leaves them alone. A folder that matches is shown, but not
/// what is in it. The newest snapshots come first.
#[derive(clap::Args)]
#[command(after_long_help = exit::help(EXAMPLES, exit::OPENING))]
pub struct Args {
    /// What to look for; paths that match any of them
    #[arg(value_name = "PATTERN", required = true)]
    patterns: Vec<String>,
    /// Upper and lower case are the same
    #[arg(short, long)]
    ignore_case: bool,
    /// Search this snapshot (or folder in it) only: latest, latest~2, or the first digits of an id; may be repeated
    #[arg(short, long, value_name = "SNAPSHOT[:PATH]")]
    snapshot: Vec<OsString>,
    /// Only what was modified at this time or later
    #[arg(short = 'O', long, value_name = "TIME", value_parser = show::parse_time)]
    oldest: Option<Timestamp>,
    /// Only what was modified at this time or earlier
    #[arg(short = 'N', long, value_name = "TIME", value_parser = show::parse_time)]
    newest: Option<Timestamp>,
    /// Print mode and owner too
    #[arg(short, long)]
    long: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

const EXAMPLES: &str = "
  snap find fstab
  snap find -i '*invoice*.pdf' --oldest 2026-11-01
  snap find '/etc/nginx/**/*.conf' -s latest
  snap find '*.sql' --host db1 --json | jq -r '.[].matches[].path'";

impl Args {
    pub fn run(self, context: &Context) -> Result<Outcome> {
        let case = if self.ignore_case { Case::Ignored } else { Case::Exact };
        let names = Names::new(&self.patterns, case)?;
        let repository = unlock::open(context)?;
        let reporter = Reporter::start(context, Channel::Stderr);
        let (selections, mut trouble) = self.selections(&repository, &reporter)?;
        let options = FindOptions { names, oldest: self.oldest, newest: self.newest };
        let out = BufWriter::with_capacity(64 << 10, std::io::stdout().lock());
        let mut printer = Printer { out, long: self.long, is_json: context.options.json, current: None, is_first: true, count: 0 };
        let report = find(&repository, &selections, &options, &mut |selection, entry| printer.hit(selection, entry), &reporter)?;
        drop(reporter);
        printer.finish(&report)?;
        if let Some(error) = report.trouble {
            trouble.get_or_insert(error.again());
        }
        match trouble {
            None => Ok(Outcome::Done),
            Some(error) if error.is_damage() => Ok(Outcome::Damaged),
            Some(error) => Err(error),
        }
    }

    /// What to search, newest first, and the first snapshot that cannot be.
    fn selections(&self, repository: &Repository, reporter: &Reporter) -> Result<(Vec<Selection>, Option<Error>)> {
        let filter = self.filter.filter();
        if !self.snapshot.is_empty() {
            let selections = self.snapshot.iter().map(|text| select(repository, text, None, &filter)).collect::<Result<_>>()?;
            return Ok((selections, None));
        }
        let (found, unreadable) = repository.snapshots_at_hand()?;
        for (name, error) in &unreadable {
            reporter.problem(&Problem::new(format!("snapshot {}", &name[..name.len().min(8)]), exit::message(error)));
        }
        let fitting = found.into_iter().rev().filter(|stored| filter.accepts(&stored.snapshot));
        let selections = fitting.map(|stored| Selection { stored, path: Vec::new() }).collect();
        Ok((selections, unreadable.into_iter().next().map(|(_, error)| error)))
    }
}

/// Prints what is found as it comes: under a heading for each snapshot, or as an array of one object for each.
struct Printer<W: Write> {
    out: W,
    long: bool,
    is_json: bool,
    current: Option<SnapshotId>,
    is_first: bool,
    /// Matches in the current snapshot.
    count: u64,
}

impl<W: Write> Printer<W> {
    fn hit(&mut self, selection: &Selection, entry: &Entry) -> Result<()> {
        self.print_hit(selection, entry).map_err(output::closed)
    }

    fn print_hit(&mut self, selection: &Selection, entry: &Entry) -> std::io::Result<()> {
        if self.current != Some(selection.stored.id) {
            self.end_snapshot()?;
            self.current = Some(selection.stored.id);
            match self.is_json {
                true => write!(self.out, "{}", if self.is_first { "[" } else { "," })?,
                false => self.heading(selection)?,
            }
            self.is_first = false;
        }
        self.count += 1;
        match self.is_json {
            true => {
                let separator = if self.count == 1 { r#"{"matches":["# } else { "," };
                write!(self.out, "{separator}{}", match_json(entry))
            }
            false => writeln!(self.out, "{}", self.line(entry)),
        }
    }

    fn heading(&mut self, selection: &Selection) -> std::io::Result<()> {
        let snapshot = &selection.stored.snapshot;
        let (host, name) = (output::harmless(&snapshot.host), output::harmless(&snapshot.name));
        let gap = if self.is_first { "" } else { "\n" };
        writeln!(self.out, "{gap}snapshot {}  {}  {host}  {name}", selection.stored.id.short(), show::time(snapshot.time))
    }

    fn line(&self, entry: &Entry) -> String {
        let path = show_bytes(&entry.path);
        if self.long {
            return format!("{}/{path}", long(entry));
        }
        let size = match entry.node {
            Node::File { .. } => show::size(entry.size()),
            _ => entry.node.name().into(),
        };
        let time = json::time(entry.meta.mtime).map_or_else(|| "?".into(), show::time);
        format!("{size:>10}  {time:<19}  /{path}")
    }

    fn end_snapshot(&mut self) -> std::io::Result<()> {
        let (count, current) = (std::mem::take(&mut self.count), self.current.take());
        match current.filter(|_| self.is_json) {
            Some(id) => write!(self.out, r#"],"hits":{count},"snapshot":"{id}"}}"#),
            None => Ok(()),
        }
    }

    fn finish(&mut self, report: &FindReport) -> Result<()> {
        let mut end = || {
            self.end_snapshot()?;
            match (self.is_json, self.is_first) {
                (true, true) => writeln!(self.out, "[]")?,
                (true, false) => writeln!(self.out, "]")?,
                (false, true) => writeln!(self.out, "nothing was found in {}", show::count(report.snapshots, "snapshot"))?,
                (false, false) => {}
            }
            self.out.flush()
        };
        end().map_err(output::closed)
    }
}

/// The object of `ls`, which says what it is by its place.
fn match_json(entry: &Entry) -> Value {
    let mut value = json::node(entry);
    if let Some(members) = value.as_object_mut() {
        members.remove("message_type");
    }
    value
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::format::entry::{Flaw, Meta};
    use crate::format::snapshot::Snapshot;
    use crate::id::ObjectName;
    use crate::repo::Stored;

    fn printed(is_json: bool, hits: &[(u8, &[u8])]) -> String {
        let text = r#"{"time":"2026-11-21T02:00:00Z","host":"h\u001b","name":"n","source":"tree",
            "catalog":"000000","catalog_len":0,"path_table":"000000"}"#;
        let snapshot = Snapshot::decode(text.as_bytes()).unwrap();
        let mut printer = Printer { out: Vec::new(), long: false, is_json, current: None, is_first: true, count: 0 };
        for (id, path) in hits {
            let stored = Stored { id: ObjectName([*id; 32]), snapshot: snapshot.clone() };
            let entry = Entry { path: path.to_vec(), flaw: Flaw::None, meta: Meta::default(), node: Node::Folder };
            printer.hit(&Selection { stored, path: Vec::new() }, &entry).unwrap();
        }
        printer.finish(&FindReport { snapshots: 2, ..FindReport::default() }).unwrap();
        String::from_utf8(printer.out).unwrap()
    }

    #[test]
    fn json_is_one_array_whatever_is_found() {
        assert_eq!(printed(true, &[]), "[]\n");
        let value: Value = serde_json::from_str(&printed(true, &[(1, b"a"), (1, b"b\n\xff"), (2, b"c")])).unwrap();
        assert_eq!((&value[0]["hits"], &value[1]["hits"], value.as_array().unwrap().len()), (&json!(2), &json!(1), 2));
        assert_eq!((&value[0]["matches"][1]["path_hex"], &value[1]["matches"][0]["path"]), (&json!("2f620aff"), &json!("/c")));
        assert_eq!(value[1]["snapshot"], json!("02".repeat(32)));
    }

    #[test]
    fn people_see_a_heading_for_each_snapshot() {
        assert_eq!(printed(false, &[]), "nothing was found in 2 snapshots\n");
        let text = printed(false, &[(1, b"a\x1b"), (2, b"c")]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("snapshot 01010101  ") && lines[0].ends_with("  h\\u{1b}  n"), "{text}");
        assert!(lines[1].ends_with("  /a\\u{1b}") && lines[2].is_empty() && lines[3].starts_with("snapshot 02020202"), "{text}");
    }
}
