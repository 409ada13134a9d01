//! What `snap run` says of a job: a block for people, a line of JSON for machines.

use serde_json::{Value, json};

use super::context::Context;
use super::{config_show, dumps, exit, output, show, summary};
use crate::config::{Job, Source, What};
use crate::error::{Error, Result};
use crate::format::report::{Did, Outcome, Report, Run};
use crate::ops::run::{Preview, Ran};
use crate::ops::streams::told;

/// Dumps that are described one by one.
const DUMPS_TOLD: usize = 20;

/// Shows how a run went.
pub fn show(context: &Context, job: &Job, ran: &Ran) -> Result<()> {
    if context.options.json {
        return output::print_json(&json(ran));
    }
    if !context.options.quiet {
        output::print(&text(job, ran))?;
    }
    for warning in &ran.report.warnings {
        output::complain(&format!("warning: job {}: {warning}", job.name));
    }
    match (&ran.error, &ran.report.error) {
        (Some(Error::Interrupted), _) | (None, None) => {}
        (Some(error), _) => exit::complain_of(error, &format!("job {}: ", job.name), context.options.quiet),
        (None, Some(message)) => output::complain(&format!("job {}: {message}", job.name)),
    }
    Ok(())
}

fn run_of(report: &Report) -> Run {
    match &report.did {
        Did::Run(run) => run.clone(),
        _ => Run::default(),
    }
}

fn text(job: &Job, ran: &Ran) -> String {
    let run = run_of(&ran.report);
    let mut lines = vec![format!("job {}", output::harmless(&job.name))];
    let mut line = |label: &str, text: String| lines.push(format!("  {:<13} {text}", output::harmless(label)));
    for step in run.steps.iter().filter(|step| step.name != "backup") {
        let how = match &step.error {
            Some(_) => "failed after",
            None => "done in",
        };
        let note = match step.name.as_str() {
            "forget" if step.error.is_none() => format!(", {} removed", show::count(run.forgotten, "snapshot")),
            "prune" if step.error.is_none() => format!(", {} freed", show::size(run.bytes_freed)),
            _ => String::new(),
        };
        line(&step.name, format!("{how} {}{note}", show::duration(step.seconds)));
    }
    if let Some(report) = &ran.backup {
        for (part, seconds) in &report.parts {
            let name = output::harmless(&part.name);
            let files = if job.sources.iter().any(|source| is_files(source, &part.name)) {
                format!(" in {}", show::count(part.files, "file"))
            } else {
                String::new()
            };
            line("saved", format!("{name}: {}{files}, {}", show::size(part.bytes), show::duration(*seconds)));
        }
        told(&report.dumps).iter().take(DUMPS_TOLD).for_each(|dump| line("dump", dumps::describe(dump)));
        line("new", summary::new_data(report, false));
    }
    if let Some(by) = jiff::SignedDuration::try_from(job.objectives.max_age).ok().and_then(|age| ran.report.time.checked_add(age).ok())
        && ran.report.outcome == Outcome::Good
    {
        line("next", format!("due by {}", show::time(by)));
    }
    let took = show::duration(ran.report.seconds);
    lines.push(match run.snapshot {
        Some(id) => format!("  snapshot {} saved, {} in all", id.short(), took),
        None => format!("  no snapshot was saved, {took} in all"),
    });
    lines.join("\n")
}

fn is_files(source: &Source, name: &str) -> bool {
    match &source.what {
        What::Files { paths, .. } => paths.iter().any(|path| name.contains(&crate::error::show(path))),
        _ => false,
    }
}

/// restic's names for what a backup has, and the report's for the rest.
fn json(ran: &Ran) -> Value {
    let report = &ran.report;
    let run = run_of(report);
    let mut value = match &ran.backup {
        Some(backup) => summary::json(backup, false),
        None => json!({ "message_type": "summary", "dry_run": false }),
    };
    value["job"] = json!(run.job);
    value["outcome"] = json!(report.outcome);
    value["exit_code"] = json!(report.exit_code);
    value["time"] = json!(report.time);
    value["total_duration"] = json!(report.seconds);
    value["streams"] = json!(run.streams);
    value["steps"] = json!(run.steps);
    value["snapshots_forgotten"] = json!(run.forgotten);
    value["bytes_freed"] = json!(run.bytes_freed);
    value["warnings"] = json!(report.warnings);
    if let Some(error) = &report.error {
        value["error"] = json!(error);
    }
    value
}

/// Shows what a run would do.
pub fn show_preview(context: &Context, job: &Job, ahead: &Preview) -> Result<()> {
    match context.options.json {
        true => output::print_json(&preview_json(job, ahead)),
        false => output::print(&preview_text(job, ahead)),
    }
}

/// What is in force, and what of it depends on the repository.
fn preview_text(job: &Job, ahead: &Preview) -> String {
    let mut lines = vec![config_show::job_text(job)];
    if let Some(plan) = &ahead.forget {
        let removed: Vec<String> = plan.removed().map(|stored| stored.id.short()).collect();
        let which = if removed.is_empty() { String::new() } else { format!(" ({})", removed.join(", ")) };
        let count = show::count(removed.len() as u64, "snapshot");
        lines.push(format!("  {:<14} {count} would be removed{which} and {} kept, not counting the new one", "as things are", plan.kept()));
    }
    lines.push("  dry run: nothing was run".into());
    lines.join("\n")
}

fn preview_json(job: &Job, ahead: &Preview) -> Value {
    let removed = ahead.forget.as_ref().map(|plan| plan.removed().map(|stored| stored.id).collect::<Vec<_>>());
    json!({ "message_type": "summary", "dry_run": true, "job": job.name, "config": config_show::job_json(job), "would_remove": removed })
}
