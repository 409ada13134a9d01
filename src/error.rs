//! The library's errors. Each variant answers what the caller can do now; `cli/exit.rs` turns them
//! into a message, a hint and an exit code.
//!
//! Messages begin with a capital, have no full stop, name the file or object, and hold no secret.
//! The cause is chained as the source and not printed into the message.

use std::io;
use std::path::PathBuf;

/// What the operations return.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request itself makes no sense; change it.
    #[error("{0}")]
    Usage(String),
    /// There is no repository at this place; make one or look elsewhere.
    #[error("No repository at {location}")]
    NoRepository { location: String },
    /// There is a repository, or something else, already.
    #[error("{location} already holds {what}")]
    AlreadyThere { location: String, what: &'static str },
    /// No key slot opens with the given secret.
    #[error("Wrong password or key file")]
    WrongKey,
    /// Recovery words that are none, or another repository's. Never says what they are.
    #[error("{0}")]
    WrongWords(String),
    /// Nothing in the repository matches what was asked for.
    #[error("{0}")]
    NotFound(String),
    /// Stored bytes are not what they should be.
    #[error("{what} is damaged: {why}")]
    Damaged { what: String, why: String },
    /// Written by a newer version or with a feature this build lacks.
    #[error("{what} needs a newer snap: {why}")]
    Unsupported { what: String, why: String },
    /// The store refused or failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A file outside the repository could not be read or written.
    #[error("Cannot {action} {}", show(.path))]
    File { action: &'static str, path: PathBuf, source: io::Error },
    /// The captured command failed, so nothing was saved.
    #[error("{program} {outcome}, no snapshot was saved")]
    Command { program: String, outcome: String, stderr_tail: Vec<u8> },
    /// It took longer than was allowed. Says what, and for how long.
    #[error("{0}")]
    TimedOut(String),
    /// A command that was given data failed, or did not take all of it.
    #[error("{program} {outcome}")]
    Receiver { program: String, outcome: String, stderr_tail: Vec<u8> },
    /// The stream had no bytes.
    #[error("{name} is empty, no snapshot was saved")]
    EmptyStream { name: String },
    /// It would do harm, so nothing was done.
    #[error("{why}; nothing was removed")]
    Refused { why: String, hint: &'static str },
    /// The repository changed under a running operation; run it again.
    #[error("{0}")]
    Conflict(String),
    /// What was compressed or sealed did not come back the same: bad memory or a bug.
    #[error("{0} did not read back as it was written; suspect this machine's memory")]
    ReadBack(String),
    /// The user asked to stop.
    #[error("Interrupted")]
    Interrupted,
    /// The reader of our output went away.
    #[error("Output was closed")]
    OutputClosed,
}

impl Error {
    /// Stored bytes that are not what they should be.
    pub fn damaged(what: impl ToString, why: impl ToString) -> Self {
        Self::Damaged { what: what.to_string(), why: why.to_string() }
    }

    /// A failed call on a file outside the repository.
    pub fn file(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::File { action, path: path.into(), source }
    }

    /// The same error for another of those it concerns; its cause becomes text.
    pub fn again(&self) -> Self {
        match self {
            Self::Damaged { what, why } => Self::Damaged { what: what.clone(), why: why.clone() },
            Self::Unsupported { what, why } => Self::Unsupported { what: what.clone(), why: why.clone() },
            Self::Storage(error) => Self::Storage(StorageError {
                kind: error.kind,
                action: error.action,
                object: error.object.clone(),
                location: error.location.clone(),
                source: io::Error::new(error.source.kind(), error.source.to_string()),
            }),
            Self::Interrupted => Self::Interrupted,
            other => Self::Conflict(other.to_string()),
        }
    }

    /// Whether stored bytes are gone or wrong, so that another copy is worth trying.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Storage(error) => matches!(error.kind, StorageErrorKind::NotFound | StorageErrorKind::Short),
            _ => false,
        }
    }
}

/// What a failed call on a store means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageErrorKind {
    /// The object is not there.
    NotFound,
    /// An object of that name is there already.
    Exists,
    /// Permission, read-only store.
    Denied,
    /// No space, quota or file size limit.
    Full,
    /// The object ends before the asked range does.
    Short,
    /// May work when tried again.
    Transient,
    /// Anything else.
    Other,
}

/// A failed call on a store: kind, object, source.
#[derive(Debug, thiserror::Error)]
#[error("Cannot {action} {object} in {location}")]
pub struct StorageError {
    pub kind: StorageErrorKind,
    pub action: &'static str,
    pub object: String,
    pub location: String,
    #[source]
    pub source: io::Error,
}

/// Makes a call again that a signal interrupted.
pub fn again(mut call: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// A path for people: control characters and invalid UTF-8 escaped.
pub fn show(path: &std::path::Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    show_bytes(path.as_os_str().as_bytes())
}

/// Bytes for people: printable text as it is; control and direction-changing characters and invalid UTF-8 escaped.
pub fn show_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for part in bytes.utf8_chunks() {
        for c in part.valid().chars() {
            let hostile =
                c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
            match c {
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                '\r' => text.push_str("\\r"),
                '\\' => text.push_str("\\\\"),
                c if hostile => text.push_str(&format!("\\u{{{:x}}}", c as u32)),
                c => text.push(c),
            }
        }
        for byte in part.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_shown_harmless() {
        for (bytes, shown) in [
            (&b"plain name"[..], "plain name"),
            (b"a\x1b]52;c;x\x07", "a\\u{1b}]52;c;x\\u{7}"),
            ("x\u{202e}gpj".as_bytes(), "x\\u{202e}gpj"),
            (b"\xff\n\r\\", "\\xff\\n\\r\\\\"),
        ] {
            assert_eq!(show_bytes(bytes), shown);
        }
    }
}
