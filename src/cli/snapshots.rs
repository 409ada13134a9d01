//! `snap snapshots`.

use serde_json::Value;

use super::context::Context;
use super::exit::{self, Outcome};
use super::select::FilterArgs;
use super::show::Column::{Left, Right};
use super::{dumps, json, output, show, unlock};
use crate::error::Result;
use crate::repo::Stored;

/// List the snapshots, oldest first
///
/// Size is what the snapshot holds, New what of it was not in the repository before, Stored what that took after compression.
/// A snapshot some of whose files could not be read is marked incomplete. Dump says whether the dumps in it are whole; -v says
/// more of each, and how it is loaded. Times are local.
#[derive(clap::Args)]
#[command(after_long_help = exit::help(EXAMPLES, exit::OPENING))]
pub struct Args {
    #[command(flatten)]
    filter: FilterArgs,
}

const EXAMPLES: &str = "
  snap snapshots
  snap snapshots --host db1 --tag nightly
  snap snapshots --json | jq -r '.[-1].id'";

impl Args {
    pub fn run(self, context: &Context) -> Result<Outcome> {
        let repository = unlock::open(context)?;
        let filter = self.filter.filter();
        let (mut found, unreadable) = repository.snapshots_at_hand()?;
        found.retain(|stored| filter.accepts(&stored.snapshot));
        if context.options.json {
            output::print_json(&Value::Array(found.iter().map(json::snapshot).collect()))?;
        } else {
            output::print(&text(&found, context.options.verbose > 0))?;
        }
        for (name, error) in &unreadable {
            output::complain(&format!("snapshot {}: {}", &name[..name.len().min(8)], exit::message(error)));
        }
        match unreadable.into_iter().next() {
            None => Ok(Outcome::Done),
            Some((_, error)) if error.is_damage() => Ok(Outcome::Damaged),
            Some((_, error)) => Err(error),
        }
    }
}

fn text(found: &[Stored], verbose: bool) -> String {
    let mut columns =
        vec![Left("ID"), Left("Time"), Left("Host"), Left("Tags"), Right("Size"), Right("New"), Right("Stored"), Left("Name")];
    let has_dumps = found.iter().any(|stored| !stored.snapshot.dumps.is_empty());
    if has_dumps {
        columns.insert(7, Left("Dump"));
    }
    let row = |stored: &Stored| {
        let snapshot = &stored.snapshot;
        let flag = if snapshot.totals.flawed == 0 { "" } else { "  (incomplete)" };
        let mut row = vec![
            stored.id.short(),
            show::time(snapshot.time),
            output::harmless(&snapshot.host),
            output::harmless(&snapshot.tags.join(",")),
            show::size(snapshot.totals.bytes),
            show::size(snapshot.totals.bytes_new),
            show::size(snapshot.totals.bytes_stored),
            format!("{}{flag}", output::harmless(&snapshot.name)),
        ];
        if has_dumps {
            row.insert(7, dumps::in_short(&snapshot.dumps));
        }
        row
    };
    let rows: Vec<Vec<String>> = found.iter().map(row).collect();
    if found.is_empty() {
        return "no snapshots".into();
    }
    let mut lines: Vec<String> = show::table(&columns, &rows).lines().map(str::to_owned).collect();
    if verbose {
        // Below the row of each, from the last up.
        for (at, stored) in found.iter().enumerate().rev() {
            let mut details = Vec::new();
            for dump in &stored.snapshot.dumps {
                details.push(format!("          {}", dumps::describe(dump)));
                details.extend(dumps::how_to_load(dump).map(|how| format!("            to load it: {how}")));
            }
            lines.splice(at + 3..at + 3, details);
        }
    }
    format!("{}\n{}", lines.join("\n"), show::count(found.len() as u64, "snapshot"))
}
