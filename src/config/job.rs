//! `[jobs.NAME]` and `[defaults]`: what both may say is read by one function, and the job's word goes.
//!
//! `objectives`, `hooks`, `expect` and `verify` are taken key by key; `keep` and `prune` as a whole, since their rules belong together.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::reader::{Table, Value, quoted};
use super::sources::{self, KINDS};
use super::{Expect, Hooks, Job, Objectives, Overlap, PruneBudget, Schedule, Source, Tier, Verify, What, drill, values};
use crate::retention::{Age, Count, Period, Policy, Rule};

/// The name of a job stands in names of files, in addresses and in measured values.
const JOB_NAME_BYTES_MAX: usize = 64;
/// A shorter objective is a mistake about what m means.
const OBJECTIVE_MIN: Duration = Duration::from_secs(600);

/// What a job may say, and the defaults for all.
#[derive(Clone, Default)]
struct Settings {
    tier: Option<Tier>,
    tags: Option<Vec<String>>,
    timeout: Option<Duration>,
    stall_timeout: Option<Duration>,
    overlap: Option<Overlap>,
    schedule: Option<Schedule>,
    keep: Option<Policy>,
    /// Said, and what.
    prune: Option<Option<PruneBudget>>,
    verify: (Option<bool>, Option<u64>),
    hooks: Hooks,
    expect: Expect,
    max_age: Option<Duration>,
    max_drill_age: Option<Duration>,
    max_verify_age: Option<Duration>,
    max_restore_time: Option<Duration>,
}

/// All jobs that can be understood.
pub(super) fn jobs(root: &Table) -> BTreeMap<String, Job> {
    let defaults = match root.table("defaults", "defaults") {
        Some(table) => {
            let settings = settings(&table, "defaults");
            table.finish();
            settings
        }
        None => Settings::default(),
    };
    let mut found = BTreeMap::new();
    let Some(table) = root.table("jobs", "jobs") else { return found };
    for (name, value) in table.entries() {
        if !is_name(name) {
            let rule = "write letters, digits, _, . and -, at most 64, and begin with a letter or digit";
            value.reader.complain(value.key_at, format!("{} cannot be the name of a job; {rule}", quoted(name)));
        }
        let Some(table) = value.table("jobs.NAME", &table.below(name)) else { continue };
        let job = job(name, &table, &defaults);
        if is_name(name) && !job.sources.is_empty() {
            found.insert(name.to_owned(), job);
        }
    }
    found
}

/// Whether there is a table for a job of this name, good or not.
pub(super) fn is_named(root: &Table, name: &str) -> bool {
    root.get("jobs").filter(Value::is_table).and_then(|jobs| jobs.table("jobs", "jobs")).is_some_and(|jobs| jobs.is_there(name))
}

fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    name.len() <= JOB_NAME_BYTES_MAX && name.bytes().all(fits) && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

fn job(name: &str, table: &Table, defaults: &Settings) -> Job {
    let own = settings(table, "jobs.NAME");
    let expect = own.expect.or(&defaults.expect);
    let sources = sources_of(table, &expect);
    let drill = table.table("drill", "jobs.NAME.drill").map(|table| drill::drill(&table));
    table.finish();
    let max_drill_age = own.max_drill_age.or(defaults.max_drill_age);
    if max_drill_age.is_some() && drill.is_none() && !table.is_there("drill") {
        table.warn(format!("job {name} must be drilled every so often (max_drill_age), but says no drill"));
    }
    let timeout = own.timeout.or(defaults.timeout);
    let stall_timeout = own.stall_timeout.or(defaults.stall_timeout);
    if timeout.zip(stall_timeout).is_some_and(|(whole, stall)| stall >= whole) {
        table.warn(format!("stall_timeout of job {name} is not shorter than timeout, so it never counts"));
    }
    Job {
        name: name.to_owned(),
        tier: own.tier.or(defaults.tier).unwrap_or_default(),
        tags: own.tags.or_else(|| defaults.tags.clone()).unwrap_or_default(),
        sources,
        timeout,
        stall_timeout,
        hooks: Hooks {
            before: own.hooks.before.or_else(|| defaults.hooks.before.clone()),
            after: own.hooks.after.or_else(|| defaults.hooks.after.clone()),
            on_success: own.hooks.on_success.or_else(|| defaults.hooks.on_success.clone()),
            on_failure: own.hooks.on_failure.or_else(|| defaults.hooks.on_failure.clone()),
        },
        overlap: own.overlap.or(defaults.overlap).unwrap_or_default(),
        keep: own.keep.or_else(|| defaults.keep.clone()).unwrap_or_default(),
        prune: own.prune.or(defaults.prune).flatten(),
        verify: Verify { snapshot: own.verify.0.or(defaults.verify.0).unwrap_or(false), budget: own.verify.1.or(defaults.verify.1) },
        objectives: Objectives {
            max_age: own.max_age.or(defaults.max_age).unwrap_or(Objectives::default().max_age),
            max_drill_age,
            max_verify_age: own.max_verify_age.or(defaults.max_verify_age),
            max_restore_time: own.max_restore_time.or(defaults.max_restore_time),
        },
        schedule: own.schedule.or_else(|| defaults.schedule.clone()).unwrap_or_default(),
        drill,
    }
}

/// What goes in a job as well as in the defaults.
fn settings(table: &Table, kind: &'static str) -> Settings {
    let tiers = [("critical", Tier::Critical), ("important", Tier::Important), ("recoverable", Tier::Recoverable)];
    let overlaps = [("refuse", Overlap::Refuse), ("wait", Overlap::Wait)];
    let mut found = Settings {
        tier: table.choice("tier", &tiers),
        tags: table.get("tags").and_then(tags),
        timeout: table.duration("timeout"),
        stall_timeout: table.duration("stall_timeout"),
        overlap: table.choice("overlap", &overlaps),
        schedule: table.get("schedule").and_then(|value| value.parsed("a text such as \"daily 02:15\"", values::parse_schedule)),
        keep: table.table("keep", "keep").map(|table| keep(&table)),
        prune: table.get("prune").and_then(|value| prune(&value, table)),
        ..Settings::default()
    };
    if let Some(table) = table.table("verify", "verify") {
        found.verify = (table.flag("snapshot"), table.size("budget"));
        table.finish();
    }
    if let Some(table) = table.table("hooks", "hooks") {
        let [before, after, on_success, on_failure] = ["before", "after", "on_success", "on_failure"].map(|key| table.command(key));
        found.hooks = Hooks { before, after, on_success, on_failure };
        table.finish();
    }
    if let Some(table) = table.table("objectives", "objectives") {
        let age = |key| {
            let value = table.get(key)?;
            let age = value.duration()?;
            if age < OBJECTIVE_MIN {
                value.complain("this is shorter than ten minutes; m means minutes here, months are written as days (\"90d\")");
                return None;
            }
            Some(age)
        };
        found.max_age = age("max_age");
        found.max_drill_age = age("max_drill_age");
        found.max_verify_age = age("max_verify_age");
        found.max_restore_time = table.duration("max_restore_time");
        table.finish();
    }
    if let Some(table) = table.table("expect", "expect") {
        found.expect = expect(&table, kind != "defaults");
        table.finish();
    }
    found
}

/// The sources of a job: in a list of tables, or, if there is only one, in the job itself.
fn sources_of(table: &Table, expect: &Expect) -> Vec<Source> {
    // A job that says neither gets the complaint that there is nothing to back up.
    let is_list = table.is_there("source");
    let tables = table.tables("source", "SOURCE");
    if !is_list {
        let whats = sources::sources(table);
        return finished(table, whats, expect);
    }
    for kind in ["name", "exclude", "one_file_system", "before", "environment", "secrets", "run_as"].iter().chain(&KINDS) {
        if let Some(value) = table.get(kind) {
            let place = format!("[[{}.source]]", table.name);
            value.reader.complain(value.key_at, format!("{kind} belongs into {place}, where the other sources are"));
        }
    }
    let mut found = Vec::new();
    let mut names: BTreeSet<String> = BTreeSet::new();
    for table in tables {
        let whats = sources::sources(&table);
        let own = match table.table("expect", "expect") {
            Some(below) => {
                let own = self::expect(&below, true);
                below.finish();
                own
            }
            None => Expect::default(),
        };
        table.finish();
        for source in finished(&table, whats, &own.or(expect)) {
            if let Some(name) = stream_name(&source.what).filter(|name| !names.insert((*name).to_owned())) {
                table.complain(format!("two streams of this job are called {}; give one of them another name", quoted(name)));
            }
            found.push(source);
        }
    }
    if found.is_empty() && table.get("source").is_some_and(|value| value.is_list() && value.items().is_empty()) {
        table.complain("there is nothing to back up: the list of sources is empty");
    }
    found
}

fn stream_name(what: &What) -> Option<&str> {
    match what {
        What::Command(command) => Some(&command.name),
        What::Tables(tables) => Some(&tables.name),
        What::Sqlite { name, .. } => Some(name),
        What::Files { .. } => None,
    }
}

/// Sources with what is expected of them.
fn finished(table: &Table, whats: Vec<What>, expect: &Expect) -> Vec<Source> {
    let has_tables = !expect.tables.is_empty() || !expect.rows.is_empty();
    let is_globals = |what: &What| matches!(what, What::Command(command) if command.line.iter().any(|word| word == "--globals-only"));
    let streams = whats.iter().filter(|what| !is_globals(what)).count();
    if has_tables && streams > 1 {
        table.complain("tables and rows are those of one database; write a [[jobs.NAME.source]] for each database");
    }
    if has_tables && whats.iter().any(|what| matches!(what, What::Files { before: None, .. })) && !table.is_there("firestore") {
        table.complain("tables and rows go with dumps, not with files");
    }
    let mut names = BTreeSet::new();
    for name in whats.iter().filter_map(stream_name) {
        if !names.insert(name) {
            table.complain(format!("two streams of this job are called {}; give one of them another name", quoted(name)));
        }
    }
    let expected = |what: &What| match is_globals(what) {
        true => Expect::default(),
        false => expect.clone(),
    };
    whats.iter().map(|what| Source { what: what.clone(), expect: expected(what) }).collect()
}

fn tags(value: Value) -> Option<Vec<String>> {
    let mut tags = value.texts()?;
    if tags.iter().any(|tag| tag.contains(',') || tag.trim() != tag) {
        value.complain("tags have no commas in them, and no spaces around");
        return None;
    }
    tags.sort();
    tags.dedup();
    Some(tags)
}

fn prune(value: &Value, table: &Table) -> Option<Option<PruneBudget>> {
    if value.is_flag() {
        return Some(value.flag()?.then(PruneBudget::default));
    }
    let table = value.table("prune", &table.below("prune"))?;
    let budget = PruneBudget { max_repack: table.size("max_repack") };
    table.finish();
    Some(Some(budget))
}

/// What must be there.
fn expect(table: &Table, with_tables: bool) -> Expect {
    let mut found = Expect {
        min_size: table.size("min_size"),
        max_shrink: table.get("max_shrink").and_then(|value| value.parsed("a share in quotes, such as \"50%\"", values::parse_share)),
        ..Expect::default()
    };
    if !with_tables {
        return found;
    }
    found.tables = table.texts("tables").unwrap_or_default();
    if let Some(rows) = table.table("rows", "TABLES") {
        for (name, value) in rows.entries() {
            let range = match value.is_number() {
                true => value.count().map(|least| (Some(least), None)),
                false => value.parsed("a range in quotes, such as \"1000..\" or \"10..20\"", values::parse_range),
            };
            if let Some(range) = range {
                found.rows.insert(name.to_owned(), range);
            }
        }
    }
    found
}

impl Expect {
    /// This, and where it says nothing, the other.
    fn or(&self, other: &Self) -> Self {
        Self {
            min_size: self.min_size.or(other.min_size),
            max_shrink: self.max_shrink.or(other.max_shrink),
            tables: if self.tables.is_empty() { other.tables.clone() } else { self.tables.clone() },
            rows: if self.rows.is_empty() { other.rows.clone() } else { self.rows.clone() },
        }
    }
}

/// The rules of `snap forget`.
fn keep(table: &Table) -> Policy {
    const COUNTS: [&str; 6] = ["last", "hourly", "daily", "weekly", "monthly", "yearly"];
    const WITHIN: [&str; 6] = ["within", "within_hourly", "within_daily", "within_weekly", "within_monthly", "within_yearly"];
    let count = |value: Value| match value.is_text() {
        true => value.parsed("a number, or \"unlimited\"", |text| text.parse::<Count>()),
        false => {
            let number = value.count()?;
            let fits = u32::try_from(number).ok().map(Count::Number);
            if fits.is_none() {
                value.complain("write \"unlimited\" for so many");
            }
            fits
        }
    };
    let age =
        |value: Value| value.parsed("a length of time in quotes, such as \"14d\" or \"2y6m\" (m: months)", |text| text.parse::<Age>());
    let errors = table.reader.errors();
    let mut rules = Vec::new();
    for (period, key) in Period::ALL.into_iter().zip(COUNTS) {
        rules.extend(table.get(key).and_then(count).map(|count| Rule::Count(period, count)));
    }
    for (period, key) in Period::ALL.into_iter().zip(WITHIN) {
        rules.extend(table.get(key).and_then(age).map(|age| Rule::Within(period, age)));
    }
    for value in table.get("tags").into_iter().flat_map(|value| if value.is_list() { value.items() } else { vec![value] }) {
        // One text keeps what has all of its tags, as on the command line.
        let list = value.text().map(|text| text.split(',').map(|tag| tag.trim().to_owned()).filter(|tag| !tag.is_empty()).collect());
        rules.extend(list.map(Rule::Tags));
    }
    let min_age = table.get("min_age").and_then(age).unwrap_or_default();
    table.finish();
    let policy = Policy::new(rules, min_age);
    if policy.is_empty() && table.reader.errors() == errors {
        table.complain("keeps nothing; write rules such as { daily = 30, weekly = 12, monthly = 12 }, or leave keep out to keep all");
    }
    policy
}
