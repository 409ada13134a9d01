//! From bytes to a [`Config`], with all complaints; and the tables that are not jobs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::reader::{Found, Places, Reader, Table, Value, quoted};
use super::values::{has_password, is_secret_name};
use super::{Config, Notify, RepositoryTable, SecretFrom, Serve, job, notify};
use crate::limits::CONFIG_BYTES_MAX;

/// What a file says, as far as it could be understood, and what is wrong with it.
#[derive(Debug)]
pub struct Parsed {
    /// Without what is wrong.
    pub config: Config,
    /// By place.
    pub complaints: Vec<Complaint>,
    /// What can be looked at outside the file.
    pub mentions: Vec<Mention>,
    /// The table `[repository]` can be relied on, even if others cannot.
    pub repository_is_good: bool,
    /// The table `[notify]` can be relied on, even if others cannot: it says whom to tell of the mistake.
    pub notify_is_good: bool,
    /// Every key there is, with the table it belongs to.
    pub keys: BTreeSet<(&'static str, &'static str)>,
}

impl Parsed {
    pub fn errors(&self) -> impl Iterator<Item = &Complaint> {
        self.complaints.iter().filter(|complaint| complaint.severity == Severity::Error)
    }
}

/// Something that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Complaint {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub severity: Severity,
    /// Never holds a secret.
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

/// Something outside the file that it speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    pub line: usize,
    pub column: usize,
    pub what: Mentioned,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mentioned {
    /// A file with a secret in it: must be there and be private.
    Secret(PathBuf),
    /// The repository's key file, which `snap init` makes.
    KeyFile(PathBuf),
    /// A credential of systemd.
    Credential(String),
    /// A variable of the environment.
    Variable(String),
    /// A program that will be started.
    Program(String),
    /// A file or folder that will be read.
    Source(PathBuf),
    /// A pattern of files that are left out.
    Pattern(String),
    /// A user that a command runs as.
    User(String),
}

/// Reads a configuration that lies in `file`. Never fails: what cannot be understood is a complaint, and left out.
pub fn parse(bytes: &[u8], file: &Path) -> Parsed {
    let text = match text(bytes) {
        Ok(text) => text,
        Err(complaint) => return Parsed::nothing(file, complaint),
    };
    let (document, wrong) = DeTable::parse_recoverable(text);
    let folder = file.parent().unwrap_or(Path::new(""));
    let places = Places::new(text);
    let reader = Reader::new(&places, folder);
    let root = Table::new(&reader, "", String::new(), document.get_ref(), 0);
    let repository = repository(&root);
    let repository_is_good = reader.errors() == 0 && wrong.is_empty();
    let jobs = job::jobs(&root);
    let before = reader.errors();
    let notify = notify::notify(&root, &jobs);
    let notify_is_good = reader.errors() == before && wrong.iter().all(|error| !lies_in(&places, error, "notify"));
    let serve = serve(&root);
    root.finish();
    let Found { complaints: read, of_tables, mentions, keys } = reader.finish();
    let mut complaints: Vec<Complaint> = wrong.iter().map(|error| grammar(&places, error)).collect();
    if wrong.is_empty() {
        complaints.extend(of_tables);
    }
    // What follows from wrong grammar is noise: on its line, and behind a table that did not begin.
    let lines: Vec<usize> = complaints.iter().map(|complaint| complaint.line).collect();
    let is_header = |line: &usize| places.line(*line).trim_start().starts_with('[');
    let end = lines.iter().copied().filter(is_header).min().unwrap_or(usize::MAX);
    let is_noise = |complaint: &Complaint| !wrong.is_empty() && (complaint.line >= end || lines.contains(&complaint.line));
    complaints.extend(read.into_iter().filter(|complaint| !is_noise(complaint)));
    complaints.sort();
    complaints.dedup();
    let config = Config { file: file.to_owned(), repository, jobs, notify: notify.unwrap_or_default(), serve };
    Parsed { config, complaints, mentions, repository_is_good, notify_is_good, keys }
}

fn text(bytes: &[u8]) -> Result<&str, Complaint> {
    let wrong = |(line, column): (usize, usize), text: &str| Complaint { line, column, severity: Severity::Error, text: text.into() };
    if bytes.len() > CONFIG_BYTES_MAX {
        return Err(wrong((1, 1), "the file is too long for a configuration"));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let (valid, _) = bytes.split_at(error.valid_up_to());
        let valid = std::str::from_utf8(valid).unwrap_or_default();
        wrong(Places::new(valid).of(valid.len()), "this is not UTF-8")
    })
}

/// Whether something is wrong with the grammar of a table, or of one below it.
fn lies_in(places: &Places, error: &toml::de::Error, table: &str) -> bool {
    let (line, _) = places.of(error.span().map_or(0, |span| span.start));
    let header = (1..=line).rev().map(|line| places.line(line).trim_start()).find(|line| line.starts_with('['));
    header.is_some_and(|header| header.trim_start_matches(['[', ' ', '"']).starts_with(table))
}

/// What the parser says, as a complaint. It names what it expected, never what is there.
fn grammar(places: &Places, error: &toml::de::Error) -> Complaint {
    let (line, column) = places.of(error.span().map_or(0, |span| span.start));
    Complaint { line, column, severity: Severity::Error, text: crate::error::show_bytes(error.message().trim().as_bytes()) }
}

impl Parsed {
    fn nothing(file: &Path, complaint: Complaint) -> Self {
        let config = Config {
            file: file.to_owned(),
            repository: RepositoryTable::default(),
            jobs: Default::default(),
            notify: Notify::default(),
            serve: Serve::default(),
        };
        Self {
            config,
            complaints: vec![complaint],
            mentions: Vec::new(),
            repository_is_good: false,
            notify_is_good: false,
            keys: BTreeSet::new(),
        }
    }
}

fn repository(root: &Table) -> RepositoryTable {
    let Some(table) = root.table("repository", "repository") else { return RepositoryTable::default() };
    let path = table.get("path").and_then(|value| {
        let text = value.text()?;
        let text = text.strip_prefix("local:").unwrap_or(text);
        let scheme = text.split_once(':').map(|(scheme, _)| scheme);
        if scheme.is_some_and(|scheme| !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())) {
            value.complain("only folders are repositories (write ./a:b for a folder of such a name)");
            return None;
        }
        value.joined(text)
    });
    let password = secret(&table, "password");
    let key_file = table.get("key_file").and_then(|value| {
        let path = value.path()?;
        value.reader.mention(value.at, Mentioned::KeyFile(path.clone()));
        Some((value.key_at, SecretFrom::KeyFile(path)))
    });
    if let (Some(_), Some((at, _))) = (&password, &key_file) {
        table.reader.complain(*at, "both password and key_file are given; choose one");
    }
    let host = table.get("host").and_then(|value| value.plain());
    let found = RepositoryTable {
        path,
        secret: password.or(key_file.map(|(_, secret)| secret)),
        host,
        quota: table.size("quota"),
        metrics_file: table.path("metrics_file"),
    };
    table.finish();
    found
}

fn serve(root: &Table) -> Serve {
    let Some(table) = root.table("serve", "serve") else { return Serve::default() };
    let listen = table.get("listen");
    let token = secret(&table, "token");
    let address = listen.as_ref().and_then(|value| {
        let text = value.text()?;
        let is_local = match (text.parse::<std::net::SocketAddr>(), text.strip_prefix("localhost:")) {
            (Ok(address), _) => address.ip().is_loopback(),
            (Err(_), Some(port)) if port.parse::<u16>().is_ok() => true,
            _ => {
                value.complain("write an address and a port, as in \"127.0.0.1:8077\" or \"[::1]:8077\"");
                return None;
            }
        };
        if !is_local && !table.is_there("token") {
            value.complain("whoever reaches this address could look in; give a token too, as in token = { file = \"/etc/snap/token\" }");
        }
        Some(text.to_owned())
    });
    table.finish();
    Serve { listen: address, token }
}

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
    for (name, value) in entries.entries() {
        if !is_variable(name) {
            value.reader.complain(value.key_at, format!("{} cannot be the name of a variable", quoted(name)));
        } else if is_secret_name(name) {
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
    let mut found = Vec::new();
    for (name, value) in entries.entries() {
        if !is_variable(name) {
            value.reader.complain(value.key_at, format!("{} cannot be the name of a variable", quoted(name)));
        } else if let Some(secret) = secret_of(&value, &entries.below(name)) {
            found.push((name.to_owned(), secret));
        }
    }
    found
}

fn is_variable(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(fits) && !name.starts_with(|c: char| c.is_ascii_digit())
}
