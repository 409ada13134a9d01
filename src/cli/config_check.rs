//! `snap config check`: what is wrong with the file, and with what it speaks of as far as that can be seen without running anything.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::context::{Context, Environment};
use super::{fetch, notices, output, settings, show};
use crate::config::{Complaint, Mention, Mentioned, Severity};
use crate::error::{Error, Result, show as show_path};
use crate::notify::Attempt;
use crate::source::{Filter, FilterRules};

pub fn run(context: &Context, notify: bool) -> Result<()> {
    let parsed = settings::load_some(context)?;
    let mut complaints = parsed.complaints.clone();
    complaints.extend(parsed.mentions.iter().filter_map(|mention| look(mention, &context.environment)));
    complaints.sort();
    complaints.dedup();
    let file = show_path(&parsed.config.file);
    let count = |severity| complaints.iter().filter(|complaint| complaint.severity == severity).count() as u64;
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    // With mistakes, it may be somebody else who hears of it.
    let told = if notify && errors == 0 { notices::test(context, &parsed.config) } else { Vec::new() };
    if context.options.json {
        let list = |severity| {
            let fitting = complaints.iter().filter(|complaint| complaint.severity == severity);
            fitting.map(|one| json!({ "line": one.line, "column": one.column, "message": one.text })).collect::<Vec<Value>>()
        };
        let jobs: Vec<&String> = parsed.config.jobs.keys().collect();
        let (wrong, doubtful) = (list(Severity::Error), list(Severity::Warning));
        let mut answer = json!({ "message_type": "config_check", "file": file, "errors": wrong, "warnings": doubtful, "jobs": jobs });
        if notify {
            let one = |attempt: &Attempt| json!({ "receiver": attempt.whom, "error": attempt.error });
            answer["notified"] = told.iter().map(one).collect();
        }
        output::print_json(&answer)?;
    } else {
        for complaint in &complaints {
            output::print(&line(&file, complaint))?;
        }
    }
    let numbers: Vec<String> = [(errors, "error"), (warnings, "warning")]
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, noun)| show::count(number, noun))
        .collect();
    if errors > 0 {
        return Err(Error::Usage(format!("{} in {file}", numbers.join(" and "))));
    }
    if !context.options.json && !context.options.quiet {
        let jobs = show::count(parsed.config.jobs.len() as u64, "job");
        let but = if warnings > 0 { format!(", with {}", numbers.join("")) } else { String::new() };
        output::print(&format!("{file} is right: {jobs}{but}"))?;
    }
    if notify { tried(context, &told) } else { Ok(()) }
}

/// Says whom the test message reached.
fn tried(context: &Context, told: &[Attempt]) -> Result<()> {
    if told.is_empty() {
        return Err(Error::Usage("There is nobody in [notify] to be told".into()));
    }
    if !context.options.json {
        for attempt in told {
            let whom = output::harmless(&attempt.whom);
            match &attempt.error {
                Some(error) => output::print(&format!("{whom}: FAILED: {}", output::harmless(error)))?,
                None if context.options.quiet => {}
                None => output::print(&format!("{whom}: the test message was taken"))?,
            }
        }
    }
    match told.iter().filter(|attempt| attempt.error.is_some()).count() as u64 {
        0 => Ok(()),
        failed => Err(Error::NotFound(format!("{} of {} could not be told", show::count(failed, "receiver"), told.len()))),
    }
}

/// As compilers print it, so that editors find the place.
fn line(file: &str, complaint: &Complaint) -> String {
    let word = match complaint.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    format!("{file}:{}:{}: {word}: {}", complaint.line, complaint.column, output::harmless(&complaint.text))
}

/// What is wrong with something that the file speaks of.
fn look(mention: &Mention, environment: &Environment) -> Option<Complaint> {
    let (severity, text) = match &mention.what {
        Mentioned::Secret(path) => secret_file(path)?,
        Mentioned::KeyFile(path) => key_file(path)?,
        Mentioned::Credential(name) => {
            let path = environment.path("CREDENTIALS_DIRECTORY")?.join(name);
            (!path.exists()).then(|| (Severity::Warning, format!("systemd handed over no credential {name}")))?
        }
        Mentioned::Variable(name) => {
            environment.get(name).is_none().then(|| (Severity::Warning, format!("the variable {name} is not set here")))?
        }
        Mentioned::Program(program) => (Severity::Warning, missing_program(program, environment)?),
        Mentioned::Source(path) => match path.symlink_metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => (Severity::Warning, format!("{} is not there", show_path(path))),
            _ => return None,
        },
        Mentioned::Pattern(pattern) => {
            let rules = FilterRules { excludes: vec![pattern.clone()], ..FilterRules::default() };
            (Severity::Error, super::exit::message(&Filter::new(&rules).err()?))
        }
        Mentioned::User(user) => {
            uzers::get_user_by_name(user).is_none().then(|| (Severity::Warning, format!("there is no user {user} on this machine")))?
        }
    };
    Some(Complaint { line: mention.line, column: mention.column, severity, text })
}

fn secret_file(path: &Path) -> Option<(Severity, String)> {
    let shown = show_path(path);
    Some(match path.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => (Severity::Error, format!("{shown} is not there")),
        Err(error) => (Severity::Warning, format!("cannot look at {shown}: {}", output::without_numbers(&error.to_string()))),
        Ok(meta) if meta.is_dir() => (Severity::Error, format!("{shown} is a folder and holds no secret")),
        Ok(meta) => (Severity::Error, format!("{shown} holds a secret and {}; run chmod 600 {shown}", fetch::flaw(&meta)?)),
    })
}

fn key_file(path: &Path) -> Option<(Severity, String)> {
    let shown = show_path(path);
    match path.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Some((Severity::Warning, format!("{shown} is not there; snap init makes it")))
        }
        Ok(meta) if meta.is_file() && meta.mode() & 0o077 != 0 => {
            Some((Severity::Error, format!("{shown} can be read by others than its owner; run chmod 600 {shown}")))
        }
        _ => secret_file(path),
    }
}

/// Why a program could not be started.
fn missing_program(program: &str, environment: &Environment) -> Option<String> {
    let is_program = |path: &Path| path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    if program.contains('/') {
        let path = PathBuf::from(program);
        if path.is_relative() {
            return Some(format!("{program} depends on the working folder; write the whole path"));
        }
        return (!is_program(&path)).then(|| format!("{program} is not there, or cannot be run"));
    }
    let path = environment.get("PATH")?;
    let found = std::env::split_paths(path).any(|folder| is_program(&folder.join(program)));
    (!found).then(|| format!("there is no {program} in the PATH; is it installed?"))
}
