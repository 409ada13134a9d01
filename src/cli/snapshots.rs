//! `snap snapshots`.

use serde_json::Value;

use super::context::Context;
use super::exit::{self, Outcome};
use super::select::FilterArgs;
use super::show::Column::{Left, Right};
use super::{json, output, show, unlock};
use crate::error::Result;
use crate::repo::Stored;

/// List the snapshots, oldest first
///
/// Size is what the snapshot holds, New what of it was not in the repository before, Stored what that took after compression.
/// A snapshot some of whose files could not be read is marked incomplete. Times are local.
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
            output::print(&text(&found))?;
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

fn text(found: &[Stored]) -> String {
    let columns = [Left("ID"), Left("Time"), Left("Host"), Left("Tags"), Right("Size"), Right("New"), Right("Stored"), Left("Name")];
    let row = |stored: &Stored| {
        let snapshot = &stored.snapshot;
        let flag = if snapshot.is_complete() { "" } else { "  (incomplete)" };
        vec![
            stored.id.short(),
            show::time(snapshot.time),
            output::harmless(&snapshot.host),
            output::harmless(&snapshot.tags.join(",")),
            show::size(snapshot.totals.bytes),
            show::size(snapshot.totals.bytes_new),
            show::size(snapshot.totals.bytes_stored),
            format!("{}{flag}", output::harmless(&snapshot.name)),
        ]
    };
    let rows: Vec<Vec<String>> = found.iter().map(row).collect();
    match found.is_empty() {
        true => "no snapshots".into(),
        false => format!("{}\n{}", show::table(&columns, &rows), show::count(found.len() as u64, "snapshot")),
    }
}
