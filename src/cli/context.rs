//! What every command gets: the flags all have in common, the environment, and whether the user asked to stop.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use super::signals::Signals;
use crate::config::Parsed;

/// What every command gets.
pub struct Context {
    pub options: Options,
    pub environment: Environment,
    pub signals: Signals,
    /// What `settings` read, once it did.
    pub configuration: OnceLock<Option<Parsed>>,
    /// That there are mistakes in it was said.
    pub configuration_told: AtomicBool,
}

impl Context {
    pub fn new(options: Options, environment: Environment, signals: Signals) -> Self {
        Self { options, environment, signals, configuration: OnceLock::new(), configuration_told: AtomicBool::new(false) }
    }

    /// The same with nothing read yet: for who goes on for long, and looks again. What was told of the configuration is not told again.
    pub fn afresh(&self) -> Self {
        let told = AtomicBool::new(true);
        Self { configuration_told: told, ..Self::new(self.options.clone(), self.environment.clone(), self.signals.clone()) }
    }

    /// The same for a thread of its own, without the flags.
    pub fn for_threads(&self) -> Self {
        Self::new(Options::default(), self.environment.clone(), self.signals.clone())
    }
}

/// Flags of all commands.
#[derive(clap::Args, Clone, Default)]
#[command(next_help_heading = "Global options")]
pub struct Options {
    /// Folder of the repository [env: SNAP_REPOSITORY]
    #[arg(short, long, global = true, value_name = "DIR")]
    pub repo: Option<PathBuf>,
    /// File whose first line is the folder of the repository [env: SNAP_REPOSITORY_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub repository_file: Option<PathBuf>,
    #[command(flatten)]
    pub secret: SecretOptions,
    /// Configuration file [env: SNAP_CONFIG; otherwise ./snap.toml, ~/.config/snap/snap.toml or /etc/snap/snap.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Keep no index on this machine between runs [folder otherwise: SNAP_CACHE_DIR, XDG_CACHE_HOME/snap or ~/.cache/snap]
    #[arg(long, global = true)]
    pub no_cache: bool,
    /// Print errors and nothing else
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more; twice: name every file
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Print JSON: one object a line, or one document for lists
    #[arg(long, global = true)]
    pub json: bool,
}

/// Flags that say where the secret is.
#[derive(clap::Args, Clone, Default)]
pub struct SecretOptions {
    /// File that holds the password [env: SNAP_PASSWORD_FILE, or the password itself in SNAP_PASSWORD]
    #[arg(short, long, global = true, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Command that prints the password; words may be quoted, no shell is involved [env: SNAP_PASSWORD_COMMAND]
    #[arg(long, global = true, value_name = "COMMAND")]
    pub password_command: Option<OsString>,
    /// File that holds the key of a repository made with a key file [env: SNAP_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// File that holds the 24 recovery words of the repository, in the place of password or key file
    #[arg(long, global = true, value_name = "FILE")]
    pub recovery_words: Option<PathBuf>,
}

/// Flags that say where a new secret is.
#[derive(clap::Args, Default)]
#[command(next_help_heading = "The new password or key file")]
pub struct NewSecretOptions {
    /// File that holds the new password [env: SNAP_NEW_PASSWORD_FILE, or the password itself in SNAP_NEW_PASSWORD]
    #[arg(long, value_name = "FILE")]
    pub new_password_file: Option<PathBuf>,
    /// Command that prints the new password [env: SNAP_NEW_PASSWORD_COMMAND]
    #[arg(long, value_name = "COMMAND")]
    pub new_password_command: Option<OsString>,
    /// Key file to open with from now on; made if there is none [env: SNAP_NEW_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    pub new_key_file: Option<PathBuf>,
}

/// Flags that say which repository is read from, and where its secret is.
#[derive(clap::Args, Default)]
#[command(next_help_heading = "The repository to copy from")]
pub struct FromOptions {
    /// Folder of the repository to copy from [env: SNAP_FROM_REPOSITORY]
    #[arg(long, value_name = "DIR")]
    pub from_repo: Option<PathBuf>,
    /// File whose first line is the folder of the repository to copy from [env: SNAP_FROM_REPOSITORY_FILE]
    #[arg(long, value_name = "FILE")]
    pub from_repository_file: Option<PathBuf>,
    /// File that holds its password [env: SNAP_FROM_PASSWORD_FILE, or the password itself in SNAP_FROM_PASSWORD]
    #[arg(long, value_name = "FILE")]
    pub from_password_file: Option<PathBuf>,
    /// Command that prints its password [env: SNAP_FROM_PASSWORD_COMMAND]
    #[arg(long, value_name = "COMMAND")]
    pub from_password_command: Option<OsString>,
    /// File that holds its key [env: SNAP_FROM_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    pub from_key_file: Option<PathBuf>,
    /// File that holds its 24 recovery words
    #[arg(long, value_name = "FILE")]
    pub from_recovery_words: Option<PathBuf>,
}

/// Variables of the process. An empty one counts as not set.
#[derive(Clone)]
pub struct Environment(HashMap<OsString, OsString>);

impl Environment {
    pub fn of_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    #[cfg(test)]
    pub fn of(variables: &[(&str, &str)]) -> Self {
        Self(variables.iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.get_even_empty(name).filter(|value| !value.is_empty())
    }

    pub fn get_even_empty(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }
}
