//! `snap config show`: what is in force, with every command as it will be run. Secrets are shown as where they come from.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::context::Context;
use super::{fetch, output, settings, show, words};
use crate::config::{
    Answer, Ask, Config, Drill, Expect, Job, Mail, MailSecurity, Overlap, SecretFrom, Source, StreamCommand, Tables, Tier, WebhookForm,
    What, show_duration, show_schedule, sqlite_copy,
};
use crate::error::{Error, Result, show as show_path};

pub fn run(context: &Context, job: Option<&str>) -> Result<()> {
    let config = settings::require(context)?;
    let jobs: Vec<&Job> = match job {
        None => config.jobs.values().collect(),
        Some(name) => vec![config.jobs.get(name).ok_or_else(|| no_job(config, name))?],
    };
    if context.options.json {
        let list: Vec<Value> = jobs.into_iter().map(job_json).collect();
        return output::print_json(&match job {
            Some(_) => list.into_iter().next().unwrap_or_default(),
            None => whole_json(config, list),
        });
    }
    let mut parts = if job.is_none() { vec![whole(config)] } else { Vec::new() };
    parts.extend(jobs.into_iter().map(job_text));
    output::print(&parts.join("\n\n"))
}

/// That there is no job of this name.
pub fn no_job(config: &Config, name: &str) -> Error {
    let jobs: Vec<&str> = config.jobs.keys().map(String::as_str).collect();
    let known = if jobs.is_empty() { "no job at all".into() } else { jobs.join(", ") };
    Error::Usage(format!("There is no job {} in {}; there is {known}", output::harmless(name), show_path(&config.file)))
}

/// Lines of a name and what it is.
#[derive(Default)]
struct Lines {
    indent: &'static str,
    lines: Vec<String>,
}

impl Lines {
    fn add(&mut self, name: &str, value: impl AsRef<str>) {
        self.lines.push(format!("{}{name:<14} {}", self.indent, output::harmless(value.as_ref())).trim_end().to_owned());
    }

    fn maybe(&mut self, name: &str, value: Option<impl AsRef<str>>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    fn text(self) -> String {
        self.lines.join("\n")
    }
}

fn whole(config: &Config) -> String {
    let (repository, notify) = (&config.repository, &config.notify);
    let mut lines = Lines::default();
    lines.add("configuration", show_path(&config.file));
    lines.add("repository", repository.path.as_deref().map_or("(not said here)".into(), show_path));
    lines.add("opened with", repository.secret.as_ref().map_or("(not said here)".into(), fetch::describe));
    lines.maybe("host", repository.host.as_ref());
    lines.maybe("quota", repository.quota.map(show::size));
    lines.maybe("metrics file", repository.metrics_file.as_deref().map(show_path));
    for webhook in &notify.webhooks {
        lines.add("tell", format!("{} webhook, address from {}", form(webhook.form), fetch::describe(&webhook.url)));
    }
    lines.maybe("tell", notify.mail.as_ref().map(mail_text));
    for (job, address) in &notify.pings {
        let of = if job == "*" { "all jobs".into() } else { format!("job {job}") };
        lines.add("ping", format!("for {of}, address from {}", fetch::describe(address)));
    }
    lines.maybe("tell", notify.command.as_ref().map(|line| command(line)));
    if !notify.webhooks.is_empty() || notify.mail.is_some() || notify.command.is_some() {
        lines.add("when", if notify.on_success { "after every run" } else { "when something is wrong, and when it is right again" });
    }
    lines.maybe("again after", notify.repeat_after.map(show_duration));
    lines.maybe("serve", config.serve.listen.as_ref());
    lines.maybe("serve token", config.serve.token.as_ref().map(fetch::describe));
    lines.text()
}

fn mail_text(mail: &Mail) -> String {
    let port = mail.port.map(|port| format!(":{port}")).unwrap_or_default();
    let user = mail.user.as_ref().map(|user| format!(" as {user}")).unwrap_or_default();
    let password = mail.password.as_ref().map(|from| format!(", password from {}", fetch::describe(from))).unwrap_or_default();
    let (server, security) = (&mail.server, security(mail.security));
    format!("mail to {} from {} by {server}{port} ({security}){user}{password}", mail.to.join(", "), mail.from)
}

/// A job for people.
pub fn job_text(job: &Job) -> String {
    let mut lines = Lines { indent: "  ", lines: vec![format!("job {}", job.name)] };
    lines.add("tier", tier(job.tier));
    if !job.tags.is_empty() {
        lines.add("tags", job.tags.join(", "));
    }
    lines.add("schedule", show_schedule(&job.schedule));
    lines.maybe("timeout", job.timeout.map(show_duration));
    lines.maybe("stall timeout", job.stall_timeout.map(show_duration));
    lines.add("overlap", overlap(job.overlap));
    lines.add("keep", if job.keep.is_empty() { "everything".into() } else { job.keep.to_string() });
    if !job.keep.min_age.is_zero() {
        lines.add("keep min age", job.keep.min_age.to_string());
    }
    lines.maybe(
        "prune",
        job.prune.map(|budget| match budget.max_repack {
            Some(bytes) => format!("after each run, moving {} at most", show::size(bytes)),
            None => "after each run".into(),
        }),
    );
    if job.verify.snapshot {
        lines.add("verify", "every new snapshot, read back");
    }
    lines.maybe("verify", job.verify.budget.map(|bytes| format!("{} of what was longest unverified", show::size(bytes))));
    for (name, limit) in objectives(job) {
        lines.add("objective", format!("{} {}", name.replace('_', " "), show_duration(limit)));
    }
    for (name, line) in hooks(job) {
        lines.add(name, command(line));
    }
    for source in &job.sources {
        source_text(&mut lines, source);
    }
    if let Some(drill) = &job.drill {
        drill_text(&mut lines, drill);
    }
    lines.text()
}

fn source_text(lines: &mut Lines, source: &Source) {
    match &source.what {
        What::Command(stream) => {
            lines.add("stream", &stream.name);
            lines.add("  runs", stream_text(stream));
        }
        What::Tables(tables) => {
            lines.add("streams", format!("{}/, {} at once, of one state of the database", tables.name, tables.at_once));
            lines.add("  holds it", stream_text(&tables.holder));
            for (name, line) in tables.shown() {
                lines.add(&format!("  {name}"), stream_text(&of_portion(tables, &line)));
            }
        }
        What::Sqlite { name, database } => {
            lines.add("stream", name);
            lines.add("  runs", command(&sqlite_copy(database, Path::new("COPY"))));
            lines.add("  reads", "the COPY, which is removed afterwards");
        }
        What::Files { paths, exclude, one_file_system, before } => {
            let paths: Vec<String> = paths.iter().map(|path| words::quote(path.as_os_str())).collect();
            lines.add("files", paths.join(" "));
            lines.maybe("  before", before.as_ref().map(stream_text));
            if !exclude.is_empty() {
                lines.add("  without", exclude.join(" "));
            }
            if *one_file_system {
                lines.add("  only", "the file systems these paths are on");
            }
        }
    }
    let wanted = expected(&source.expect);
    if !wanted.is_empty() {
        lines.add("  expects", wanted.join("; "));
    }
}

/// The command of one of the streams of a database.
fn of_portion(tables: &Tables, line: &[OsString]) -> StreamCommand {
    StreamCommand { line: line.iter().map(|word| word.to_string_lossy().into_owned()).collect(), ..tables.dump.clone() }
}

/// The command as it can be pasted into a shell.
fn stream_text(stream: &StreamCommand) -> String {
    let quote = |word: &OsStr| words::quote(word);
    let secrets = stream.secrets.iter().map(|(name, from)| format!("{name}={} ", fetch::shell_expression(from, quote)));
    let clear = stream.variables.iter().map(|(name, value)| format!("{name}={} ", quote(value.as_ref())));
    secrets.chain(clear).chain([command(&stream.line)]).collect()
}

fn command(line: &[String]) -> String {
    let words: Vec<String> = line.iter().map(|word| words::quote(word.as_ref())).collect();
    words.join(" ")
}

fn expected(expect: &Expect) -> Vec<String> {
    let mut wanted = Vec::new();
    wanted.extend(expect.min_size.map(|bytes| format!("at least {}", show::size(bytes))));
    wanted.extend(expect.max_shrink.map(|share| format!("at most {}% smaller than the last good one", (share * 100.0).round())));
    if !expect.tables.is_empty() {
        wanted.push(format!("tables {}", expect.tables.join(", ")));
    }
    let end = |number: &Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    wanted.extend(expect.rows.iter().map(|(name, (least, greatest))| format!("rows of {name} {}..{}", end(least), end(greatest))));
    wanted
}

fn drill_text(lines: &mut Lines, drill: &Drill) {
    lines.add("drill", drill.place.as_deref().map_or("at a place of its own".into(), |place| format!("in a scratch {place}")));
    for (name, line) in [("  up", &drill.up), ("  load", &drill.load), ("  down", &drill.down)] {
        lines.maybe(name, line.as_ref().map(|line| command(line)));
    }
    for check in &drill.checks {
        let ask = match &check.ask {
            Ask::Sql(sql) => sql.clone(),
            Ask::Command(line) => command(line),
        };
        let name = if check.name == ask { String::new() } else { format!("{}: ", check.name) };
        lines.add("  asks", format!("{name}{ask} -> {}", answer(&check.answer)));
    }
}

fn answer(answer: &Answer) -> String {
    match answer {
        Answer::Success => "success".into(),
        Answer::Text(text) => format!("\"{text}\""),
        Answer::Number { min: Some(min), max: Some(max) } if min == max => format!("{min}"),
        Answer::Number { min, max } => {
            let end = |number: &Option<f64>| number.map(|number| number.to_string()).unwrap_or_default();
            format!("{}..{}", end(min), end(max))
        }
    }
}

fn objectives(job: &Job) -> impl Iterator<Item = (&'static str, Duration)> {
    let objectives = &job.objectives;
    [
        ("max_age", Some(objectives.max_age)),
        ("max_drill_age", objectives.max_drill_age),
        ("max_verify_age", objectives.max_verify_age),
        ("max_restore_time", objectives.max_restore_time),
    ]
    .into_iter()
    .filter_map(|(name, limit)| Some((name, limit?)))
}

fn hooks(job: &Job) -> impl Iterator<Item = (&'static str, &Vec<String>)> {
    let hooks = &job.hooks;
    let all = [("before", &hooks.before), ("after", &hooks.after), ("on_success", &hooks.on_success), ("on_failure", &hooks.on_failure)];
    all.into_iter().filter_map(|(name, line)| Some((name, line.as_ref()?)))
}

fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::Critical => "critical",
        Tier::Important => "important",
        Tier::Recoverable => "recoverable",
    }
}

fn overlap(overlap: Overlap) -> &'static str {
    match overlap {
        Overlap::Refuse => "refuse",
        Overlap::Wait => "wait",
    }
}

fn form(form: WebhookForm) -> &'static str {
    match form {
        WebhookForm::Json => "json",
        WebhookForm::Slack => "slack",
        WebhookForm::Discord => "discord",
    }
}

fn security(security: MailSecurity) -> &'static str {
    match security {
        MailSecurity::Tls => "tls",
        MailSecurity::StartTls => "starttls",
        MailSecurity::None => "none",
    }
}

fn secret_json(from: &SecretFrom) -> Value {
    match from {
        SecretFrom::File(path) => json!({ "file": show_path(path) }),
        SecretFrom::KeyFile(path) => json!({ "key_file": show_path(path) }),
        SecretFrom::Command(line) => json!({ "command": line }),
        SecretFrom::Credential(name) => json!({ "credential": name }),
        SecretFrom::Variable(name) => json!({ "env": name }),
    }
}

fn whole_json(config: &Config, jobs: Vec<Value>) -> Value {
    let (repository, notify, serve) = (&config.repository, &config.notify, &config.serve);
    let webhooks = notify.webhooks.iter().map(|webhook| json!({ "url": secret_json(&webhook.url), "form": form(webhook.form) }));
    let mail = notify.mail.as_ref().map(|mail| {
        json!({
            "server": mail.server,
            "port": mail.port,
            "security": security(mail.security),
            "user": mail.user,
            "password": mail.password.as_ref().map(secret_json),
            "from": mail.from,
            "to": mail.to,
        })
    });
    let pings: serde_json::Map<String, Value> = notify.pings.iter().map(|(job, from)| (job.clone(), secret_json(from))).collect();
    json!({
        "message_type": "config",
        "file": show_path(&config.file),
        "repository": {
            "path": repository.path.as_deref().map(show_path),
            "secret": repository.secret.as_ref().map(secret_json),
            "host": repository.host,
            "quota": repository.quota,
            "metrics_file": repository.metrics_file.as_deref().map(show_path),
        },
        "notify": {
            "webhook": webhooks.collect::<Vec<Value>>(),
            "mail": mail,
            "pings": pings,
            "command": notify.command,
            "on_success": notify.on_success,
            "repeat_after_seconds": notify.repeat_after.map(|time| time.as_secs()),
        },
        "serve": { "listen": serve.listen, "token": serve.token.as_ref().map(secret_json) },
        "jobs": jobs,
    })
}

/// A job for machines.
pub fn job_json(job: &Job) -> Value {
    let objectives: serde_json::Map<String, Value> =
        objectives(job).map(|(name, limit)| (format!("{name}_seconds"), limit.as_secs().into())).collect();
    let hooks: serde_json::Map<String, Value> = hooks(job).map(|(name, line)| (name.to_owned(), line.clone().into())).collect();
    json!({
        "name": job.name,
        "tier": job.tier,
        "tags": job.tags,
        "schedule": show_schedule(&job.schedule),
        "timeout_seconds": job.timeout.map(|time| time.as_secs()),
        "stall_timeout_seconds": job.stall_timeout.map(|time| time.as_secs()),
        "overlap": overlap(job.overlap),
        "keep": job.keep.to_string(),
        "keep_min_age": (!job.keep.min_age.is_zero()).then(|| job.keep.min_age.to_string()),
        "prune": job.prune.map(|budget| json!({ "max_repack": budget.max_repack })),
        "verify": { "snapshot": job.verify.snapshot, "budget": job.verify.budget },
        "objectives": objectives,
        "hooks": hooks,
        "sources": job.sources.iter().map(source_json).collect::<Vec<Value>>(),
        "drill": job.drill.as_ref().map(drill_json),
    })
}

fn source_json(source: &Source) -> Value {
    let mut value = match &source.what {
        What::Command(stream) => stream_json(stream),
        What::Tables(tables) => {
            let streams = tables.shown().map(|(name, line)| {
                let command = stream_json(&of_portion(tables, &line));
                json!({ "name": name, "command": command["command"] })
            });
            let mut value = stream_json(&tables.dump);
            value["command"] = json!(null);
            value["parallel"] = json!(tables.at_once);
            value["holder"] = json!(tables.holder.line);
            value["streams"] = json!(streams);
            value
        }
        What::Sqlite { name, database } => {
            json!({ "name": name, "made_by": "sqlite", "database": show_path(database), "command": sqlite_copy(database, Path::new("COPY")) })
        }
        What::Files { paths, exclude, one_file_system, before } => json!({
            "files": paths.iter().map(|path| show_path(path)).collect::<Vec<String>>(),
            "exclude": exclude,
            "one_file_system": one_file_system,
            "before": before.as_ref().map(stream_json),
        }),
    };
    let expect = &source.expect;
    let rows: serde_json::Map<String, Value> =
        expect.rows.iter().map(|(name, (min, max))| (name.clone(), json!({ "min": min, "max": max }))).collect();
    value["expect"] = json!({ "min_size": expect.min_size, "max_shrink": expect.max_shrink, "tables": expect.tables, "rows": rows });
    value
}

fn stream_json(stream: &StreamCommand) -> Value {
    let variables: serde_json::Map<String, Value> =
        stream.variables.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    let secrets: serde_json::Map<String, Value> = stream.secrets.iter().map(|(name, from)| (name.clone(), secret_json(from))).collect();
    json!({
        "name": stream.name,
        "made_by": stream.made_by,
        "command": stream.line,
        "variables": variables,
        "secrets": secrets,
    })
}

fn drill_json(drill: &Drill) -> Value {
    let checks = drill.checks.iter().map(|check| {
        let (kind, ask): (&str, Value) = match &check.ask {
            Ask::Sql(sql) => ("sql", sql.clone().into()),
            Ask::Command(line) => ("command", line.clone().into()),
        };
        let expected = match &check.answer {
            Answer::Success => json!({}),
            Answer::Text(text) => json!({ "equals": text }),
            Answer::Number { min, max } => json!({ "min": min, "max": max }),
        };
        json!({ "name": check.name, kind: ask, "answer": expected })
    });
    let checks: Vec<Value> = checks.collect();
    json!({ "place": drill.place, "up": drill.up, "load": drill.load, "down": drill.down, "checks": checks })
}
