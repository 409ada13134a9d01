//! What a job backs up: each ready source becomes the command line that a careful administrator would write, and nothing else.
//!
//! Passwords go to programs in variables or files of their own, never in arguments, which every user of the machine can see. No program
//! may ask at the terminal: at night nobody answers. Dumps are not compressed, in one thread and in a fixed order, so that what did not
//! change looks the same tomorrow.

use std::path::{Path, PathBuf};

use super::common::Common;
use super::reader::{Table, Value, any_of};
use super::{Mentioned, StreamCommand, What, values};

/// All kinds of source, by their keys.
pub(super) const KINDS: [&str; 10] =
    ["postgres", "mysql", "mariadb", "mongodb", "redis", "sqlite", "firestore", "command", "shell", "files"];

/// What one table says is to be backed up: several streams if it is of several databases.
pub(super) fn sources(table: &Table) -> Vec<What> {
    let common = Common::read(table);
    let given: Vec<&'static str> = KINDS.into_iter().filter(|kind| table.is_there(kind)).collect();
    let mut found = Vec::new();
    // All of them are looked at, so that no key is unknown.
    for (kind, value) in KINDS.map(|kind| (kind, table.get(kind))) {
        let Some(value) = value else { continue };
        let made = common.source(kind, &value, &table.below(kind));
        found.extend(made.into_iter().flatten());
    }
    match given[..] {
        [] => {
            table.complain(format!("there is nothing to back up{}; write one of {}", in_place(table), KINDS.join(", ")));
            Vec::new()
        }
        [kind] => {
            common.refuse_others(table, kind);
            found
        }
        [..] => {
            let place = table.get(given[1]).map_or(table.at, |value| value.key_at);
            let kinds = any_of(&given).replace(" or ", " and ");
            table.reader.complain(
                place,
                format!(
                    "{kinds} are several sources{}; write a [[{}.source]] for each",
                    in_place(table),
                    table.name.trim_end_matches(".source")
                ),
            );
            Vec::new()
        }
    }
}

fn in_place(table: &Table) -> String {
    format!(" in {}", table.name)
}

/// The command that makes a consistent copy of an SQLite database, while others use it, in a file that is streamed afterwards.
///
/// Pages are copied as they are, so that those that did not change deduplicate; `VACUUM INTO` would lay all of them out anew. Opened for
/// reading only, since a database that is not there would be made, empty.
pub fn sqlite_copy(database: &Path, scratch: &Path) -> Vec<String> {
    let backup = format!(".backup main '{}'", scratch.to_string_lossy());
    ["sqlite3", "-batch", "-bail", "-readonly", &database.to_string_lossy(), ".timeout 60000", &backup].map(str::to_owned).to_vec()
}

impl<'a> Common<'a> {
    /// Keys that mean nothing for this kind.
    fn refuse_others(&self, table: &Table, kind: &str) {
        let wrong = |key: &'static str, what: &str| {
            if let Some(value) = table.get(key) {
                table.reader.complain(value.key_at, format!("{key} goes with {what}, not with {kind}"));
            }
        };
        let is_tree = matches!(kind, "files" | "firestore");
        if kind != "files" {
            wrong("exclude", "files");
            wrong("one_file_system", "files");
        }
        if is_tree {
            wrong("name", "streams");
        } else {
            wrong("before", "files and firestore (hooks.before runs ahead of a whole job)");
        }
        if is_tree && self.before.is_none() && !table.is_there("before") || kind == "sqlite" {
            ["environment", "secrets", "run_as"].into_iter().for_each(|key| wrong(key, "commands"));
        }
    }

    fn source(&self, kind: &'static str, value: &Value<'a>, name: &str) -> Option<Vec<What>> {
        match kind {
            "postgres" => self.postgres(&value.table("postgres", name)?),
            "mysql" => self.mysql(&value.table("mysql", name)?, "mysql", "mysqldump"),
            "mariadb" => self.mysql(&value.table("mysql", name)?, "mariadb", "mariadb-dump"),
            "mongodb" => self.mongodb(&value.table("mongodb", name)?),
            "redis" => self.redis(&value.table("redis", name)?),
            "sqlite" => self.sqlite(value, name),
            "firestore" => self.firestore(value, name),
            "command" => {
                let line = value.command()?;
                let program = Path::new(&line[0]).file_name().map_or(line[0].clone(), |name| name.to_string_lossy().into_owned());
                let name = self.stream_name(&program, value)?;
                Some(vec![self.stream(name, line, Vec::new(), None)])
            }
            "shell" => {
                let text = value.text()?.to_owned();
                values::refuse_secrets(std::slice::from_ref(&text)).map_err(|why| value.complain(why)).ok()?;
                if self.name.is_none() {
                    value.complain("a stream of a shell needs a name, as in name = \"orders.sql\"");
                    return None;
                }
                let name = self.stream_name("", value)?;
                value.reader.mention(value.at, Mentioned::Program("bash".into()));
                let line = ["bash", "-o", "pipefail", "-c", &text].map(str::to_owned).to_vec();
                Some(vec![self.stream(name, line, Vec::new(), None)])
            }
            _ => {
                let paths = paths(value)?;
                Some(vec![self.tree(paths, None)])
            }
        }
    }

    fn tree(&self, paths: Vec<PathBuf>, made_by: Option<&'static str>) -> What {
        let before = self.before.clone().map(|line| match self.stream(String::new(), line, Vec::new(), made_by) {
            What::Command(command) => command,
            _ => StreamCommand::default(),
        });
        let exclude = self.exclude.clone().unwrap_or_default();
        What::Files { paths, exclude, one_file_system: self.one_file_system.unwrap_or(false), before }
    }

    fn sqlite(&self, value: &Value<'a>, name: &str) -> Option<Vec<What>> {
        let value = match value.is_text() {
            true => value.clone(),
            false => {
                let table = value.table("sqlite", name)?;
                let database = table.get("database");
                table.finish();
                if database.is_none() {
                    table.complain("which file? write sqlite = \"/srv/app/app.db\"");
                }
                database?
            }
        };
        let database = value.path()?;
        value.reader.mention(value.at, Mentioned::Source(database.clone()));
        value.reader.mention(value.at, Mentioned::Program("sqlite3".into()));
        let file = database.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Some(vec![What::Sqlite { name: self.stream_name(&file, &value)?, database }])
    }

    fn firestore(&self, value: &Value<'a>, name: &str) -> Option<Vec<What>> {
        let (folder, accounts) = match value.is_text() {
            true => (Some(value.clone()), None),
            false => {
                let table = value.table("firestore", name)?;
                let found = (table.get("folder"), table.get("accounts"));
                table.finish();
                if found.0.is_none() {
                    table.complain("which folder? write folder = \"/srv/exports/orders\"");
                }
                found
            }
        };
        let mut paths = Vec::new();
        for value in folder.into_iter().chain(accounts) {
            let path = value.path()?;
            // A command may be about to make it.
            if self.before.is_none() {
                value.reader.mention(value.at, Mentioned::Source(path.clone()));
            }
            paths.push(path);
        }
        (!paths.is_empty()).then(|| vec![self.tree(paths, Some("firestore"))])
    }
}

/// Files and folders to back up.
fn paths(value: &Value) -> Option<Vec<PathBuf>> {
    let items = if value.is_list() { value.items() } else { vec![value.clone()] };
    if items.is_empty() {
        value.complain("there is no file or folder in it");
    }
    let mut paths = Vec::new();
    for item in items {
        let path = item.path()?;
        item.reader.mention(item.at, Mentioned::Source(path.clone()));
        paths.push(path);
    }
    (!paths.is_empty()).then_some(paths)
}
