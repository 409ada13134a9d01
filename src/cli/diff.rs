//! `snap diff`.

use std::ffi::OsString;
use std::io::{BufWriter, Write};

use serde_json::{Value, json};

use super::context::Context;
use super::exit::{self, Outcome};
use super::report::{Channel, Reporter};
use super::select::{FilterArgs, select};
use super::{json, output, show, unlock};
use crate::error::{Result, show_bytes};
use crate::ops::diff::{Change, DiffOptions, DiffReport, Tally, diff};
use crate::repo::Selection;

/// Say what changed from one snapshot to another
///
/// Marks: + added, - removed, M the content changed (M? while size and all times are as before: did the medium change it?), T it is
/// another kind of thing now, U only metadata changed (with --metadata). No stored file is read for it. Of a file with several
/// names, the first in order of paths is shown.
#[derive(clap::Args)]
#[command(after_long_help = exit::help(EXAMPLES, exit::OPENING))]
pub struct Args {
    /// The older: latest, latest~2 (two before it), or the first digits of an id; with a folder or file in it
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    from: OsString,
    /// The newer
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    to: OsString,
    /// Tell of changed modes, owners, times and attributes too
    #[arg(long)]
    metadata: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

const EXAMPLES: &str = "
  snap diff latest~1 latest
  snap diff --name /etc latest~7 latest --metadata
  snap diff 40dc1520:/etc/nginx 3f2a9c01:/etc/nginx
  snap diff latest~1 latest --json | jq -r 'select(.modifier == \"-\").path'";

impl Args {
    pub fn run(self, context: &Context) -> Result<Outcome> {
        let repository = unlock::open(context)?;
        let filter = self.filter.filter();
        let from = select(&repository, &self.from, None, &filter)?;
        let to = select(&repository, &self.to, None, &filter)?;
        let is_json = context.options.json;
        let reporter = Reporter::start(context, Channel::Stderr);
        let mut out = BufWriter::with_capacity(64 << 10, std::io::stdout().lock());
        if !is_json {
            writeln!(out, "from {}\nto   {}", side(&from), side(&to)).map_err(output::closed)?;
        }
        let options = DiffOptions { metadata: self.metadata };
        let report =
            diff(&repository, &from, &to, options, &mut |change| out.write_all(&line(change, is_json)).map_err(output::closed), &reporter)?;
        drop(reporter);
        let end = if is_json { statistics(&from, &to, &report).to_string() } else { text(&report) };
        writeln!(out, "{end}").and_then(|()| out.flush()).map_err(output::closed)?;
        Ok(Outcome::Done)
    }
}

/// What is compared.
fn side(selection: &Selection) -> String {
    let snapshot = &selection.stored.snapshot;
    let path = if selection.path.is_empty() { String::new() } else { format!(":/{}", show_bytes(&selection.path)) };
    let (host, name) = (output::harmless(&snapshot.host), output::harmless(&snapshot.name));
    format!("snapshot {}{path}  {}  {host}  {name}", selection.stored.id.short(), show::time(snapshot.time))
}

fn line(change: &Change, is_json: bool) -> Vec<u8> {
    let mut path = [b"/", &change.path[..]].concat();
    if change.is_folder && !change.path.is_empty() {
        path.push(b'/');
    }
    let modifier = change.mark.text();
    if !is_json {
        return format!("{modifier:<4} {}\n", show_bytes(&path)).into_bytes();
    }
    let mut value = json!({ "message_type": "change", "path": json::text(&path), "modifier": modifier });
    json::exact_path(&mut value, &path);
    format!("{value}\n").into_bytes()
}

fn text(report: &DiffReport) -> String {
    let (added, removed) = (&report.added, &report.removed);
    let only = |tally: &Tally| match tally.bytes {
        0 => "nothing".to_owned(),
        bytes => format!("{}, stored as {}", show::size(bytes), show::size(tally.stored_bytes)),
    };
    let others = match added.others + removed.others {
        0 => String::new(),
        _ => format!("\nothers    {} new, {} removed", added.others, removed.others),
    };
    format!(
        "files     {} new, {} removed, {} changed\nfolders   {} new, {} removed{others}\nonly in the first   {}\nonly in the second  {}",
        added.files,
        removed.files,
        report.changed_files,
        added.folders,
        removed.folders,
        only(removed),
        only(added),
    )
}

fn statistics(from: &Selection, to: &Selection, report: &DiffReport) -> Value {
    let tally = |tally: &Tally| {
        json!({
            "files": tally.files, "dirs": tally.folders, "others": tally.others,
            "bytes": tally.bytes, "stored_bytes": tally.stored_bytes,
        })
    };
    json!({
        "message_type": "statistics",
        "source_snapshot": from.stored.id,
        "target_snapshot": to.stored.id,
        "changed_files": report.changed_files,
        "added": tally(&report.added),
        "removed": tally(&report.removed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::diff::Mark;

    #[test]
    fn changes_are_harmless_for_people_and_exact_for_machines() {
        let change = |path: &[u8], is_folder, mark| Change { path: path.to_vec(), is_folder, mark };
        assert_eq!(line(&change(b"a\x1b/b", true, Mark::Added), false), b"+    /a\\u{1b}/b/\n");
        let value: Value = serde_json::from_slice(&line(&change(b"a\n\xff", false, Mark::Rotten), true)).unwrap();
        assert_eq!(value, json!({"message_type": "change", "path": "/a\\n\\xff", "path_hex": "2f610aff", "modifier": "M?"}));
        let value: Value = serde_json::from_slice(&line(&change(b"a\n", false, Mark::Type), true)).unwrap();
        assert_eq!(value, json!({"message_type": "change", "path": "/a\n", "modifier": "T"}));
    }
}
