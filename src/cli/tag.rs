//! `snap tag`.

use serde_json::json;

use super::context::Context;
use super::exit::{self, Outcome};
use super::report::{Channel, Reporter};
use super::select::{FilterArgs, tags};
use super::{output, show, unlock, witness};
use crate::error::{Error, Result};
use crate::ops::tag::{Retagged, TagChange, tag};
use crate::progress::{Problem, Progress};
use crate::repo::{Repository, Stored};

/// Change the tags of snapshots
///
/// A snapshot with other tags is written anew and so gets another id; the old one is removed after that. What it holds, its time and
/// its host stay as they are. Without --set, tags are added first and then removed.
#[derive(clap::Args)]
#[command(after_long_help = exit::help(EXAMPLES, exit::OPENING))]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true).args(["set", "add", "remove"]))]
pub struct Args {
    /// Snapshots: latest, latest~2 (two before it), or the first digits of ids [default: all that the filters below let pass]
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// Add these tags; may be repeated
    #[arg(long, value_name = "TAG[,TAG...]")]
    add: Vec<String>,
    /// Remove these tags; may be repeated
    #[arg(long, value_name = "TAG[,TAG...]")]
    remove: Vec<String>,
    /// Replace all tags by these; "" for none
    #[arg(long, value_name = "TAG[,TAG...]", conflicts_with_all = ["add", "remove"])]
    set: Vec<String>,
    /// Change all snapshots of the repository
    #[arg(long, conflicts_with_all = ["snapshots", "host", "name", "tag"])]
    all: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

const EXAMPLES: &str = "
  snap tag latest --name mydb.sql --add before-upgrade
  snap tag 40dc1520 3f2a9c01 --remove nightly --add keep
  snap tag --host db1 --tag nightly --set weekly";

impl Args {
    pub fn run(self, context: &Context) -> Result<Outcome> {
        if self.snapshots.is_empty() && self.filter.is_empty() && !self.all {
            let message = "No snapshot is chosen; name some, choose by --host, --name or --tag, or say --all";
            return Err(Error::Usage(message.into()));
        }
        let repository = unlock::open(context)?;
        witness::require(context, &repository)?;
        let reporter = Reporter::start(context, Channel::Stderr);
        let (chosen, is_damaged) = self.choose(&repository, &reporter)?;
        let report = tag(&repository, chosen, &self.change(), &unlock::host(), &reporter)?;
        drop(reporter);
        witness::note(context, &repository);
        if context.options.json {
            report.changed.iter().try_for_each(|changed| output::print_json(&changed_json(changed)))?;
            let summary = json!({
                "message_type": "summary",
                "changed_snapshots": report.changed.len(),
                "unchanged_snapshots": report.unchanged,
            });
            output::print_json(&summary)?;
        } else if !context.options.quiet {
            for Retagged { old, new, tags } in &report.changed {
                let tags = if tags.is_empty() { "no tags".into() } else { format!("tags {}", tags.join(",")) };
                output::print(&format!("snapshot {} is now {}, {}", old.id.short(), new.short(), output::harmless(&tags)))?;
            }
            let changed = show::count(report.changed.len() as u64, "snapshot");
            output::print(&format!("{changed} changed, {} as before", report.unchanged))?;
        }
        Ok(if is_damaged { Outcome::Damaged } else { Outcome::Done })
    }

    /// Whom it concerns, each once, and whether there are any that cannot be read.
    fn choose(&self, repository: &Repository, reporter: &Reporter) -> Result<(Vec<Stored>, bool)> {
        let filter = self.filter.filter();
        if self.snapshots.is_empty() {
            let (mut found, unreadable) = repository.snapshots()?;
            found.retain(|stored| filter.accepts(&stored.snapshot));
            for (name, error) in &unreadable {
                reporter.problem(&Problem::new(format!("snapshot {}", &name[..name.len().min(8)]), exit::message(error)));
            }
            return Ok((found, unreadable.iter().any(|(_, error)| error.is_damage())));
        }
        let mut chosen: Vec<Stored> = Vec::new();
        for text in &self.snapshots {
            let selection = repository.select(text, &filter)?;
            if !selection.path.is_empty() {
                return Err(Error::Usage(format!("{text} names a path, but only whole snapshots have tags")));
            }
            if !chosen.iter().any(|other| other.id == selection.stored.id) {
                chosen.push(selection.stored);
            }
        }
        Ok((chosen, false))
    }

    fn change(&self) -> TagChange {
        let list = |lists: &[String]| lists.iter().flat_map(|list| tags(list)).collect();
        match self.set.is_empty() {
            false => TagChange::Set(list(&self.set)),
            true => TagChange::Edit { add: list(&self.add), remove: list(&self.remove) },
        }
    }
}

fn changed_json(changed: &Retagged) -> serde_json::Value {
    json!({ "message_type": "changed", "old_snapshot_id": changed.old.id, "new_snapshot_id": changed.new, "tags": changed.tags })
}
