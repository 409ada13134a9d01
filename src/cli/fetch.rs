//! Fetching a secret from where the configuration says it is.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::context::Context;
use super::keyfile::{self, Guard};
use crate::config::SecretFrom;
use crate::error::{Error, Result, show, show_bytes};
use crate::limits::SECRET_BYTES_MAX;
use crate::source::SECRET_PREFIXES;

/// The secret, without the line end behind it. Never empty, and never shown in an error.
pub fn fetch(from: &SecretFrom, context: &Context) -> Result<Zeroizing<Vec<u8>>> {
    let secret = match from {
        SecretFrom::File(path) => without_line_end(read_private(path)?),
        SecretFrom::KeyFile(path) => Zeroizing::new(keyfile::read(path, Guard::Mode)?),
        SecretFrom::Command(line) => {
            let words: Vec<OsString> = line.iter().map(OsString::from).collect();
            without_line_end(printed_by(&words, context)?)
        }
        SecretFrom::Credential(name) => {
            let folder = context.environment.path("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                Error::Usage(format!("The credential {name} is not there: this is no service of systemd with LoadCredential={name}:..."))
            })?;
            let (bytes, _) = keyfile::read_secret(&folder.join(name))?;
            without_line_end(bytes)
        }
        SecretFrom::Variable(name) => {
            let value = context.environment.get(name);
            let value = value.ok_or_else(|| Error::Usage(format!("The variable {name}, which should hold a secret, is not set")))?;
            Zeroizing::new(value.as_bytes().to_vec())
        }
    };
    match secret.is_empty() {
        true => Err(Error::Usage(format!("The secret from {} is empty", describe(from)))),
        false => Ok(secret),
    }
}

/// The place of a secret in a sentence.
pub fn describe(from: &SecretFrom) -> String {
    match from {
        SecretFrom::File(path) => format!("the file {}", show(path)),
        SecretFrom::KeyFile(path) => format!("the key file {}", show(path)),
        SecretFrom::Command(line) => format!("the output of {}", show_bytes(line.first().map_or("", String::as_str).as_bytes())),
        SecretFrom::Credential(name) => format!("the credential {name}"),
        SecretFrom::Variable(name) => format!("the variable {name}"),
    }
}

/// Why a file is no place for a secret. Its owner may read it, and group root.
pub fn flaw(meta: &Metadata) -> Option<&'static str> {
    flaw_of(meta.is_file(), meta.mode(), meta.gid())
}

fn flaw_of(is_file: bool, mode: u32, group: u32) -> Option<&'static str> {
    if !is_file {
        return None;
    }
    let is_of_root = group == 0 && mode & 0o030 == 0;
    if mode & 0o007 != 0 {
        return Some("can be read by everybody");
    }
    (mode & 0o070 != 0 && !is_of_root).then_some("can be read by its group")
}

fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let failed = |error| Error::file("read", path, error);
    let file = File::open(path).map_err(failed)?;
    if let Some(flaw) = flaw(&file.metadata().map_err(failed)?) {
        let path = show(path);
        return Err(Error::Usage(format!("{path} holds a secret and {flaw}; run chmod 600 {path}")));
    }
    // Never grows, so that no copy is left behind in freed memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX + 1));
    file.take(SECRET_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() > SECRET_BYTES_MAX {
        true => Err(Error::Usage(format!("{} is too long for a secret", show(path)))),
        false => Ok(bytes),
    }
}

/// How long a command may take that prints a secret. Somebody may have to type something.
const LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked whether it has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// What a command prints. It gets no standard input, which may be the dump, and none of our secrets.
pub fn printed_by(words: &[OsString], context: &Context) -> Result<Zeroizing<Vec<u8>>> {
    printed_within(LIMIT, words, context)
}

fn printed_within(limit: Duration, words: &[OsString], context: &Context) -> Result<Zeroizing<Vec<u8>>> {
    let Some(program) = words.first() else { return Err(Error::Usage("The command that prints a secret is empty".into())) };
    let mut command = Command::new(program);
    command.args(&words[1..]).stdin(Stdio::null()).stderr(Stdio::inherit());
    for (name, _) in std::env::vars_os() {
        if SECRET_PREFIXES.iter().any(|prefix| name.as_bytes().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    let failed = |error| Error::File { action: "run the password command", path: PathBuf::from(program), source: error };
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(failed)?;
    let ended = wait(&mut child, &context.signals.interrupted(), Instant::now() + limit);
    if !matches!(ended, Ok(Some(_))) {
        // Not its children: it is in our group, so that it can ask at the terminal.
        let _ = child.kill();
        let _ = child.wait();
    }
    if context.signals.interrupted().load(Ordering::Relaxed) {
        return Err(Error::Interrupted);
    }
    let late = || std::io::Error::other(format!("it had not ended after {} seconds", limit.as_secs()));
    let (status, printed) = ended.map_err(failed)?.ok_or_else(late).map_err(failed)?;
    if printed.len() > SECRET_BYTES_MAX {
        return Err(Error::Usage("What the password command prints is too long for a password".into()));
    }
    if !status.success() {
        return Err(failed(std::io::Error::other(status.to_string())));
    }
    Ok(printed)
}

/// How a command ended, and what it printed; nothing if it is late, or we are to stop.
fn wait(child: &mut Child, interrupted: &AtomicBool, until: Instant) -> std::io::Result<Option<(ExitStatus, Zeroizing<Vec<u8>>)>> {
    let stdout = child.stdout.take().expect("standard output is piped");
    let (done, read) = crossbeam_channel::bounded(1);
    // Left behind if a child of the command holds the pipe.
    std::thread::spawn(move || {
        // Never grows, so that no copy is left behind in freed memory.
        let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX + 1));
        let result = stdout.take(SECRET_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map(|_| bytes);
        let _ = done.send(result);
    });
    let mut printed = None;
    while Instant::now() < until && !interrupted.load(Ordering::Relaxed) {
        match printed.take() {
            None => printed = read.recv_timeout(POLL_INTERVAL).ok().transpose()?,
            Some(bytes) => match child.try_wait()? {
                Some(status) => return Ok(Some((status, bytes))),
                None => {
                    printed = Some(bytes);
                    std::thread::sleep(POLL_INTERVAL);
                }
            },
        }
    }
    Ok(None)
}

/// Without one line end.
pub fn without_line_end(mut bytes: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
    bytes
}

/// A secret in a command line that people may paste into a shell: where it comes from.
pub fn shell_expression(from: &SecretFrom, quote: impl Fn(&OsStr) -> String) -> String {
    match from {
        SecretFrom::File(path) | SecretFrom::KeyFile(path) => format!("\"$(cat {})\"", quote(path.as_os_str())),
        SecretFrom::Command(line) => {
            let words: Vec<String> = line.iter().map(|word| quote(word.as_ref())).collect();
            format!("\"$({})\"", words.join(" "))
        }
        SecretFrom::Credential(name) => format!("\"$(cat \"$CREDENTIALS_DIRECTORY\"/{name})\""),
        SecretFrom::Variable(name) => format!("\"${name}\""),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::context::{Environment, Options};
    use super::super::signals::Signals;
    use super::*;

    fn context(variables: &[(&str, &str)]) -> Context {
        Context::new(Options::default(), Environment::of(variables), Signals::watch())
    }

    #[test]
    fn secrets_of_others_are_refused() {
        for (mode, group, is_private) in [
            (0o600, 1000, true),
            (0o400, 1000, true),
            (0o640, 0, true),
            (0o640, 1000, false),
            (0o660, 0, false),
            (0o604, 0, false),
            (0o644, 0, false),
            (0o601, 1000, false),
        ] {
            assert_eq!(flaw_of(true, mode, group).is_none(), is_private, "{mode:o} {group}");
        }
        assert_eq!(flaw_of(false, 0o644, 1000), None);
    }

    #[test]
    fn a_command_that_does_not_end_is_ended() {
        let context = context(&[]);
        for script in ["exec sleep 600", "exec >&-; exec sleep 600", "sleep 5 2>&- & echo x"] {
            let words = ["sh", "-c", script].map(OsString::from);
            let error = printed_within(Duration::from_millis(300), &words, &context).unwrap_err();
            assert!(crate::cli::exit::message(&error).contains("had not ended after 0 seconds"), "{error}");
        }
        // One that prints more than it should need not end for that to be said.
        let words = ["sh", "-c", "yes; sleep 1"].map(OsString::from);
        assert!(matches!(printed_within(Duration::from_secs(600), &words, &context), Err(Error::Usage(_))));
    }

    #[test]
    fn secrets_come_from_where_they_are_said_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "geheim\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let credentials = [("CREDENTIALS_DIRECTORY", folder.path().to_str().unwrap()), ("X", "geheim")];
        let context = context(&credentials);
        let echo = SecretFrom::Command(vec!["echo".into(), "geheim".into()]);
        for from in [SecretFrom::File(path.clone()), echo, SecretFrom::Credential("secret".into()), SecretFrom::Variable("X".into())] {
            assert_eq!(&**fetch(&from, &context).unwrap(), b"geheim", "{from:?}");
        }
        for from in [
            SecretFrom::File(folder.path().join("none")),
            SecretFrom::Command(vec!["false".into()]),
            SecretFrom::Command(vec!["true".into()]),
            SecretFrom::Credential("none".into()),
            SecretFrom::Variable("NONE".into()),
        ] {
            assert!(fetch(&from, &context).is_err(), "{from:?}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = fetch(&SecretFrom::File(path.clone()), &context).unwrap_err().to_string();
        let path = path.display();
        assert_eq!(error, format!("{path} holds a secret and can be read by everybody; run chmod 600 {path}"));
    }
}
