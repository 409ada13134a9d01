//! What every command gets: the flags all have in common, the environment, and whether the user asked to stop.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::signals::Signals;

/// What every command gets.
pub struct Context {
    pub options: Options,
    pub environment: Environment,
    pub signals: Signals,
}

/// Flags of all commands.
#[derive(clap::Args, Default)]
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
#[derive(clap::Args, Default)]
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
}

/// Variables of the process. An empty one counts as not set.
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
