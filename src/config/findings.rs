//! What is found in a configuration besides what it says: what is wrong, and what can be looked at outside of it.

use std::path::PathBuf;

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
