//! `snap forget`.

use serde_json::{Value, json};

use super::context::Context;
use super::exit::{self, Outcome};
use super::report::{Channel, Reporter};
use super::select::{FilterArgs, tags};
use super::show::Column::Left;
use super::{json, output, prune, show, unlock, witness};
use crate::error::{Error, Result};
use crate::ops::forget::{Choice, ForgetOptions, Group, Member, Plan, execute, plan};
use crate::ops::prune::PruneOptions;
use crate::progress::{Problem, Progress};
use crate::retention::{Age, Count, GroupBy, GroupKey, Period, Policy, Rule};

/// Remove snapshots, by rules or by name
///
/// Each rule picks snapshots to keep, on its own; what no rule picks is removed. Rules apply to each group of snapshots, by default
/// those of one host and name. A rule like --keep-daily 7 picks the newest snapshot of each of the last seven days that have one,
/// and the oldest of all while it has picks left. Always kept: the newest complete snapshot of a group, what is dated in the future,
/// and what cannot be read. Forgetting alone frees next to no space.
#[derive(clap::Args)]
#[command(after_long_help = exit::help(EXAMPLES, exit::WITH_FILES))]
pub struct Args {
    /// Remove these: latest~3, or the first digits of ids; no rules then
    #[arg(value_name = "SNAPSHOT", conflicts_with_all = KEEP)]
    snapshots: Vec<String>,
    /// What snapshots of one group have in common: any of host, name, tags, paths; "" for one group of all
    #[arg(short, long, value_name = "LIST", default_value = "host,name")]
    group_by: GroupBy,
    /// Remove the last complete snapshot of a stream too, if it is named
    #[arg(long, requires = "snapshots", conflicts_with_all = KEEP)]
    allow_remove_last: bool,
    /// Free the space of what is removed too, as snap prune does: its first run condemns, a later one deletes
    #[arg(long)]
    prune: bool,
    /// Only say what would be removed
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    keep: KeepArgs,
    #[command(flatten)]
    filter: FilterArgs,
}

/// All that says what to keep, and goes with no named snapshot.
const KEEP: [&str; 15] = [
    "last",
    "hourly",
    "daily",
    "weekly",
    "monthly",
    "yearly",
    "within",
    "within_hourly",
    "within_daily",
    "within_weekly",
    "within_monthly",
    "within_yearly",
    "keep_tag",
    "min_age",
    "group_by",
];

/// The rules.
#[derive(clap::Args, Default)]
#[command(next_help_heading = "What to keep")]
struct KeepArgs {
    /// The last N snapshots (N may be "unlimited" everywhere)
    #[arg(short = 'l', long = "keep-last", value_name = "N", allow_hyphen_values = true)]
    last: Option<Count>,
    /// The newest of each of the last N hours that have one
    #[arg(short = 'H', long = "keep-hourly", value_name = "N", allow_hyphen_values = true)]
    hourly: Option<Count>,
    /// The same for days
    #[arg(short = 'd', long = "keep-daily", value_name = "N", allow_hyphen_values = true)]
    daily: Option<Count>,
    /// The same for weeks, Monday to Sunday
    #[arg(short = 'w', long = "keep-weekly", value_name = "N", allow_hyphen_values = true)]
    weekly: Option<Count>,
    /// The same for months
    #[arg(short = 'm', long = "keep-monthly", value_name = "N", allow_hyphen_values = true)]
    monthly: Option<Count>,
    /// The same for years
    #[arg(short = 'y', long = "keep-yearly", value_name = "N", allow_hyphen_values = true)]
    yearly: Option<Count>,
    /// All that are less than so long older than the newest: 7d, 4w, 2y5m7d3h (m: months)
    #[arg(long = "keep-within", value_name = "DURATION")]
    within: Option<Age>,
    /// The newest of each hour within that time
    #[arg(long = "keep-within-hourly", value_name = "DURATION")]
    within_hourly: Option<Age>,
    /// The same for days
    #[arg(long = "keep-within-daily", value_name = "DURATION")]
    within_daily: Option<Age>,
    /// The same for weeks
    #[arg(long = "keep-within-weekly", value_name = "DURATION")]
    within_weekly: Option<Age>,
    /// The same for months
    #[arg(long = "keep-within-monthly", value_name = "DURATION")]
    within_monthly: Option<Age>,
    /// The same for years
    #[arg(long = "keep-within-yearly", value_name = "DURATION")]
    within_yearly: Option<Age>,
    /// All that have all of these tags; may be repeated
    #[arg(long, value_name = "TAG[,TAG...]")]
    keep_tag: Vec<String>,
    /// Whatever is younger than this by this machine's clock, beside the rules
    #[arg(long = "keep-min-age", value_name = "DURATION")]
    min_age: Option<Age>,
}

const EXAMPLES: &str = "
  snap forget --keep-daily 30 --keep-weekly 12 --keep-monthly 12 --keep-yearly 7 --dry-run
  snap forget --name mydb.sql --keep-within 14d --keep-tag before-upgrade
  snap forget --host db1 --group-by host,tags --keep-last 10
  snap forget 40dc1520 3f2a9c01";

impl KeepArgs {
    fn policy(&self) -> Policy {
        let counts = [self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly];
        let counts = Period::ALL.into_iter().zip(counts).filter_map(|(period, count)| Some(Rule::Count(period, count?)));
        let within = [self.within, self.within_hourly, self.within_daily, self.within_weekly, self.within_monthly, self.within_yearly];
        let within = Period::ALL.into_iter().zip(within).filter_map(|(period, age)| Some(Rule::Within(period, age?)));
        let tags = self.keep_tag.iter().map(|list| Rule::Tags(tags(list)));
        Policy::new(counts.chain(within).chain(tags), self.min_age.unwrap_or_default())
    }
}

impl Args {
    pub fn run(self, context: &Context) -> Result<Outcome> {
        let repository = unlock::open(context)?;
        witness::require(context, &repository)?;
        let (options, dry_run, prunes) = (self.options(), self.dry_run, self.prune && !self.dry_run);
        let reporter = Reporter::start(context, Channel::Stderr);
        let plan = plan(&repository, &options, &reporter)?;
        let (is_json, is_silent) = (context.options.json, context.options.quiet);
        for (name, error) in &plan.unreadable {
            let why = format!("{}; it is kept", exit::message(error));
            reporter.problem(&Problem::new(format!("snapshot {}", &name[..name.len().min(8)]), why));
        }
        if !is_json && !is_silent {
            output::print(&text(&plan))?;
        }
        if !dry_run {
            execute(&repository, &plan, &unlock::host(), &reporter)?;
            witness::note(context, &repository);
        }
        drop(reporter);
        if is_json {
            output::print_json(&Value::Array(plan.groups.iter().map(group_json).collect()))?;
        } else if !is_silent {
            output::print(&last_line(&plan, dry_run))?;
        }
        match outcome(&plan) {
            Outcome::Done if prunes => prune::run(context, &repository, &PruneOptions::new(unlock::host())),
            outcome => Ok(outcome),
        }
    }

    fn options(&self) -> ForgetOptions {
        let choice = match self.snapshots.is_empty() {
            true => Choice::Policy { policy: self.keep.policy(), group_by: self.group_by },
            false => Choice::Named { selectors: self.snapshots.clone(), allow_last: self.allow_remove_last },
        };
        ForgetOptions { choice, filter: self.filter.filter(), zone: jiff::tz::TimeZone::system() }
    }
}

/// What a newer version wrote is kept as it should be; damage is worth a code of its own.
fn outcome(plan: &Plan) -> Outcome {
    let trouble = || plan.unreadable.iter().map(|(_, error)| error).filter(|error| !matches!(error, Error::Unsupported { .. }));
    match trouble().next() {
        None => Outcome::Done,
        Some(_) if trouble().any(Error::is_damage) => Outcome::Damaged,
        Some(_) => Outcome::Incomplete,
    }
}

fn text(plan: &Plan) -> String {
    let mut parts: Vec<String> = plan.groups.iter().filter(|group| !group.members.is_empty()).map(group_text).collect();
    for gone in &plan.gone {
        parts.push(format!("snapshot {} was forgotten already, {}", gone.id.short(), show::time(gone.time)));
    }
    // Names with dates in them make each snapshot a group of its own, of which nothing can ever go.
    if plan.groups.len() > 4 && plan.groups.iter().all(|group| group.members.len() == 1) && plan.removed().next().is_none() {
        parts.push("note: every group has a single snapshot; do names carry dates? --group-by host puts them together".into());
    }
    parts.join("\n\n")
}

fn group_text(group: &Group) -> String {
    let mut columns = vec![Left(""), Left("ID"), Left("Time")];
    let is_named = group.key == GroupKey::default();
    let (with_host, with_name) = (group.key.host.is_none(), group.key.name.is_none());
    columns.extend(with_host.then_some(Left("Host")));
    columns.extend(with_name.then_some(Left("Name")));
    columns.extend([Left("Tags"), Left("Reason")]);
    let row = |member: &Member| {
        let snapshot = &member.stored.snapshot;
        let action = if member.reasons.is_empty() { "remove" } else { "keep" };
        let mut row = vec![action.into(), member.stored.id.short(), show::time(snapshot.time)];
        row.extend(with_host.then(|| output::harmless(&snapshot.host)));
        row.extend(with_name.then(|| output::harmless(&snapshot.name)));
        let flag = if snapshot.is_complete() { "" } else { "(incomplete)" };
        let reasons = member.reasons.iter().map(|reason| output::harmless(&reason.to_string())).collect::<Vec<_>>().join(", ");
        row.extend([output::harmless(&snapshot.tags.join(",")), format!("{reasons} {flag}").trim().to_owned()]);
        row
    };
    let rows: Vec<Vec<String>> = group.members.iter().map(row).collect();
    let table = show::table(&columns, &rows);
    let removed = group.members.iter().filter(|member| member.reasons.is_empty()).count();
    match is_named && removed == rows.len() {
        true => table,
        false => format!("{}: keep {}, remove {removed}\n{table}", output::harmless(&group.key.to_string()), rows.len() - removed),
    }
}

fn last_line(plan: &Plan, dry_run: bool) -> String {
    let removed = show::count(plan.removed().count() as u64, "snapshot");
    let kept = match plan.kept() {
        0 => String::new(),
        kept => format!(", {} kept", show::count(kept as u64, "snapshot")),
    };
    match dry_run {
        true => format!("dry run: {removed} would be removed{kept}"),
        false => format!("{removed} removed{kept}"),
    }
}

/// As restic has it; what a group was not made by is null.
fn group_json(group: &Group) -> Value {
    let list = |keep: bool| {
        let fitting = group.members.iter().filter(|member| member.reasons.is_empty() != keep);
        fitting.map(|member| json::snapshot(&member.stored)).collect::<Vec<_>>()
    };
    let reasons = group.members.iter().filter(|member| !member.reasons.is_empty()).map(|member| {
        let matches: Vec<String> = member.reasons.iter().map(ToString::to_string).collect();
        json!({ "snapshot": json::snapshot(&member.stored), "matches": matches })
    });
    json!({
        "host": group.key.host,
        "name": group.key.name,
        "tags": group.key.tags,
        "paths": group.key.paths,
        "keep": list(true),
        "remove": list(false),
        "reasons": reasons.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn rules_are_read_as_users_of_other_tools_write_them() {
        let policy = |line: &str| Line::try_parse_from(line.split(' ')).map(|line| line.args.keep.policy().to_string());
        for (line, expected) in [
            ("forget", ""),
            (
                "forget --keep-daily 7 --keep-weekly 5 -m 12 -y unlimited",
                "keep-daily 7 keep-weekly 5 keep-monthly 12 keep-yearly unlimited",
            ),
            ("forget --keep-last -1 -H -1", "keep-last unlimited keep-hourly unlimited"),
            ("forget --keep-daily 0 --keep-last=3", "keep-last 3"),
            ("forget --keep-within 2y5m7d3h --keep-within-weekly 8w", "keep-within 2y5m7d3h keep-within-weekly 8w"),
            ("forget --keep-tag a,b --keep-tag c --group-by host,tags -n", "keep-tag a,b keep-tag c"),
            ("forget 40dc1520 latest~3 --allow-remove-last", ""),
        ] {
            assert_eq!(policy(line).unwrap(), expected, "{line}");
        }
        for line in [
            "forget --keep-daily x",
            "forget --keep-daily -2",
            "forget --keep-within 7",
            "forget 40dc1520 --keep-daily 7",
            "forget 40dc1520 --keep-min-age 7d",
            "forget --allow-remove-last --keep-last 1",
            "forget --group-by user",
        ] {
            assert!(policy(line).is_err(), "{line}");
        }
    }
}
