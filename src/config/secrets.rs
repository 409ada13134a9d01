//! Where secrets are, and the variables of commands, in clear or secret.

use super::SecretFrom;
use super::findings::Mentioned;
use super::reader::{Table, Value, quoted};
use super::values::{has_password, is_secret_name};

/// A secret is a table that says where it is, and never the secret.
pub(super) fn secret(table: &Table, key: &'static str) -> Option<SecretFrom> {
    secret_of(&table.get(key)?, &table.below(key))
}

/// The same for a value whose key may be the user's own.
pub(super) fn secret_of(value: &Value, name: &str) -> Option<SecretFrom> {
    const FORMS: &str = "{ file = \"/etc/snap/NAME\" }, { command = [\"PROGRAM\", ...] }, { credential = \"NAME\" } or { env = \"NAME\" }";
    if !value.is_table() {
        value.complain(format!(
            "a secret never stands here in clear; write it into a file that only you can read (chmod 600), and here {FORMS}"
        ));
        return None;
    }
    let table = value.table("SECRET", name)?;
    let file = table.get("file").and_then(|value| {
        let path = value.path()?;
        value.reader.mention(value.at, Mentioned::Secret(path.clone()));
        Some(SecretFrom::File(path))
    });
    let command = table.command("command").map(SecretFrom::Command);
    let named = |key: &'static str| {
        let value = table.get(key)?;
        let text = value.text()?;
        let fits = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) && !text.starts_with(['.', '-']);
        if !fits {
            value.complain("write a name of letters, digits, _, . and -");
        }
        fits.then(|| (value.at, text.to_owned()))
    };
    let credential = named("credential").map(|(at, name)| {
        value.reader.mention(at, Mentioned::Credential(name.clone()));
        SecretFrom::Credential(name)
    });
    let variable = named("env").map(|(at, name)| {
        value.reader.mention(at, Mentioned::Variable(name.clone()));
        SecretFrom::Variable(name)
    });
    table.finish();
    let given = ["file", "command", "credential", "env"].iter().filter(|key| table.is_there(key)).count();
    match given {
        1 => file.or(command).or(credential).or(variable),
        0 => {
            value.complain(format!("write {FORMS}"));
            None
        }
        _ => {
            value.complain("says two places for one secret; choose one");
            None
        }
    }
}

/// Variables for a command, in clear. Those that hold secrets have a table of their own.
pub(super) fn variables(table: &Table) -> Vec<(String, String)> {
    let Some(entries) = table.table("environment", "VARIABLES") else { return Vec::new() };
    let mut found = Vec::new();
    for (name, value) in named(&entries) {
        if is_secret_name(name) {
            value.complain(format!("a secret never stands here in clear; write secrets = {{ {name} = {{ file = \"/etc/snap/NAME\" }} }}"));
        } else if let Some(text) = value.text() {
            match has_password(text) {
                true => value.complain(format!("there is a password in this address; write secrets = {{ {name} = {{ file = ... }} }}")),
                false => found.push((name.to_owned(), text.to_owned())),
            }
        }
    }
    found
}

/// Variables for a command that hold secrets.
pub(super) fn secret_variables(table: &Table) -> Vec<(String, SecretFrom)> {
    let Some(entries) = table.table("secrets", "VARIABLES") else { return Vec::new() };
    let secret = |(name, value): (&str, Value)| Some((name.to_owned(), secret_of(&value, &entries.below(name))?));
    named(&entries).into_iter().filter_map(secret).collect()
}

/// Those entries whose keys can be names of variables.
fn named<'a>(entries: &Table<'a>) -> Vec<(&'a str, Value<'a>)> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_variable = |name: &str| !name.is_empty() && name.bytes().all(fits) && !name.starts_with(|c: char| c.is_ascii_digit());
    let (good, wrong): (Vec<_>, Vec<_>) = entries.entries().into_iter().partition(|(name, _)| is_variable(name));
    for (name, value) in wrong {
        value.reader.complain(value.key_at, format!("{} cannot be the name of a variable", quoted(name)));
    }
    good
}
