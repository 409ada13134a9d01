//! Tests of reading `snap.toml`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

fn parsed(text: &str) -> Parsed {
    parse(text.as_bytes(), Path::new("/etc/snap/snap.toml"))
}

/// Complaints as they are printed, without the name of the file.
fn complaints(text: &str) -> Vec<String> {
    let show = |complaint: &Complaint| {
        let word = if complaint.severity == Severity::Warning { "warning: " } else { "" };
        format!("{}:{}: {word}{}", complaint.line, complaint.column, complaint.text)
    };
    parsed(text).complaints.iter().map(show).collect()
}

fn good(text: &str) -> Config {
    let found = parsed(text);
    assert_eq!(found.complaints, [], "{text}");
    found.config
}

/// The visible command line of each stream, with its name and its secrets.
fn lines(source: &str) -> Vec<String> {
    let config = good(&format!("[jobs.a]\n{source}"));
    let show = |source: &Source| match &source.what {
        What::Command(command) => {
            let secrets: Vec<String> = command.secrets.iter().map(|(name, from)| format!("{name}={from:?} ")).collect();
            let clear: Vec<String> = command.variables.iter().map(|(name, value)| format!("{name}={value} ")).collect();
            format!("{}: {}{}{}", command.name, secrets.concat(), clear.concat(), command.line.join(" "))
        }
        What::Sqlite { name, database } => format!("{name}: sqlite {}", database.display()),
        What::Files { paths, exclude, .. } => format!("{paths:?} without {exclude:?}"),
    };
    config.jobs["a"].sources.iter().map(show).collect()
}

#[test]
fn a_few_lines_are_a_configuration() {
    let config = good(
        r#"
        [repository]
        path = "/srv/backup"
        password = { file = "password" }

        [jobs.orders]
        postgres = { database = "orders" }
        "#,
    );
    assert_eq!(config.repository.path.as_deref(), Some(Path::new("/srv/backup")));
    assert_eq!(config.repository.secret, Some(SecretFrom::File(PathBuf::from("/etc/snap/password"))));
    let job = &config.jobs["orders"];
    assert_eq!((job.tier, job.objectives.max_age), (Tier::Important, Duration::from_secs(26 * 3600)));
    assert_eq!(job.schedule, Schedule::Daily { hour: 2, minute: 15 });
    assert!(job.keep.is_empty() && job.prune.is_none() && job.drill.is_none());
    assert_eq!(good(""), Config { file: "/etc/snap/snap.toml".into(), ..config_of_nothing() });
}

fn config_of_nothing() -> Config {
    let (repository, jobs, notify, serve) = Default::default();
    Config { file: PathBuf::new(), repository, jobs, notify, serve }
}

#[test]
fn ready_sources_are_visible_command_lines() {
    assert_eq!(lines(r#"postgres = { database = "orders" }"#), ["orders.sql: pg_dump --no-password --format=plain orders"]);
}
