//! What goes for every kind of source: its name, its variables, and as whom its command runs.

use super::findings::Mentioned;
use super::reader::{Table, Value};
use super::secrets::{secret_variables, variables};
use super::{SecretFrom, StreamCommand, What};

/// What goes for every kind of source.
pub(super) struct Common<'a> {
    pub name: Option<Value<'a>>,
    environment: Vec<(String, String)>,
    secrets: Vec<(String, SecretFrom)>,
    run_as: Option<String>,
    pub before: Option<Vec<String>>,
    pub exclude: Option<Vec<String>>,
    pub one_file_system: Option<bool>,
}

/// A variable that a ready source sets.
#[derive(Clone)]
pub(super) enum Variable {
    Clear(&'static str, String),
    Secret(&'static str, SecretFrom),
}

impl<'a> Common<'a> {
    pub(super) fn read(table: &Table<'a>) -> Self {
        let run_as = table.get("run_as").and_then(|value| {
            let user = value.plain()?;
            value.reader.mention(value.at, Mentioned::User(user.clone()));
            Some(user)
        });
        let exclude = table.get("exclude").map(|value| {
            let items = if value.is_list() { value.items() } else { vec![value] };
            let patterns = items.iter().filter_map(|item| {
                let pattern = item.text()?.to_owned();
                item.reader.mention(item.at, Mentioned::Pattern(pattern.clone()));
                Some(pattern)
            });
            patterns.collect()
        });
        Self {
            name: table.get("name"),
            environment: variables(table),
            secrets: secret_variables(table),
            run_as,
            before: table.command("before"),
            exclude,
            one_file_system: table.flag("one_file_system"),
        }
    }

    /// A stream, with the variables and the user that go for all.
    pub(super) fn stream(&self, name: String, line: Vec<String>, own: Vec<Variable>, made_by: Option<&'static str>) -> What {
        let mut variables = Vec::new();
        let mut secrets = Vec::new();
        for variable in own {
            match variable {
                Variable::Clear(name, value) => variables.push((name.to_owned(), value)),
                Variable::Secret(name, from) => secrets.push((name.to_owned(), from)),
            }
        }
        // What the user writes wins.
        variables.retain(|(name, _)| !self.environment.iter().any(|(own, _)| own == name));
        secrets.retain(|(name, _)| !self.secrets.iter().any(|(own, _)| own == name));
        variables.extend(self.environment.iter().cloned());
        secrets.extend(self.secrets.iter().cloned());
        let line = match &self.run_as {
            Some(user) => ["runuser", "-u", user, "--"].map(str::to_owned).into_iter().chain(line).collect(),
            None => line,
        };
        What::Command(StreamCommand { name, line, variables, secrets, made_by })
    }

    /// The name the user gives, or this one.
    pub(super) fn stream_name(&self, default: &str, value: &Value) -> Option<String> {
        stream_name(self.name.as_ref(), default, value)
    }

    /// The name the user gives, or this one, which is good.
    pub(super) fn fixed_name(&self, default: &str) -> Option<String> {
        self.name.as_ref().map_or(Some(default.to_owned()), |value| self.stream_name(default, value))
    }
}

/// The name of a stream that the user gives, or the one that a value suggests.
pub(super) fn stream_name(given: Option<&Value>, default: &str, value: &Value) -> Option<String> {
    let (name, at) = match given {
        Some(given) => (given.text()?, given),
        None => (default, value),
    };
    let is_part = |part: &str| !part.is_empty() && part != "." && part != ".." && part.len() <= 255;
    if name.split('/').all(is_part) && !name.contains(['\n', '\t']) {
        return Some(name.to_owned());
    }
    at.complain("this cannot be the name of a stream; write name = \"orders.sql\" or the like");
    None
}
