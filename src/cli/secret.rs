//! Which password or key file opens the repository, and reading it.
//!
//! Flags beat variables beat systemd's credentials beat asking. Two secrets on one level are an error, and never a guess.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

use super::context::{Context, Environment, SecretOptions};
use super::keyfile::{self, Guard};
use super::{output, words};
use crate::crypto::Secret;
use crate::error::{Error, Result, show, show_bytes};
use crate::limits::*;
use crate::world::World;

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    PasswordFile(PathBuf, Guard),
    PasswordCommand(OsString),
    Password(OsString),
    PasswordDescriptor(OsString),
    KeyFile(PathBuf, Guard),
    Asking,
}

/// Whether the secret opens a repository or is to lock a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Open,
    Create,
}

impl Guard {
    fn is_ours(self) -> bool {
        self == Self::Mode
    }
}

/// The secret for the repository at `location`.
pub fn get(context: &Context, location: &str, purpose: Purpose) -> Result<Secret> {
    match choose(&context.options.secret, &context.environment)? {
        Origin::Password(password) => password_of("SNAP_PASSWORD", Zeroizing::new(password.as_bytes().to_vec())),
        Origin::PasswordFile(path, guard) => {
            let (bytes, is_private) = keyfile::read_secret(&path)?;
            if !is_private && guard.is_ours() && !context.options.quiet {
                output::complain(&format!("warning: others than its owner can read {}; run chmod 600", show(&path)));
            }
            password_of(&show(&path), without_line_end(bytes))
        }
        Origin::PasswordDescriptor(number) => from_descriptor(&number),
        Origin::PasswordCommand(command) => from_command(&command, context),
        Origin::KeyFile(path, guard) => {
            if purpose == Purpose::Create && guard.is_ours() && !path.exists() {
                keyfile::create(&path, &World::system())?;
                let advice = "keep a copy of it elsewhere: without it nothing can be restored";
                output::complain_as_is(&format!("made the key file {}; {advice}\n", show(&path)));
            }
            Ok(Secret::KeyFile(keyfile::read(&path, guard)?))
        }
        Origin::Asking => ask(location, purpose),
    }
}

/// Where the secret comes from.
fn choose(options: &SecretOptions, environment: &Environment) -> Result<Origin> {
    let flags = [
        ("--password-file", options.password_file.clone().map(|path| Origin::PasswordFile(path, Guard::Mode))),
        ("--password-command", options.password_command.clone().map(Origin::PasswordCommand)),
        ("--key-file", options.key_file.clone().map(|path| Origin::KeyFile(path, Guard::Mode))),
    ];
    let text = |name| environment.get(name).map(OsStr::to_owned);
    let variables = [
        // An empty password is an error and not the absence of one.
        ("SNAP_PASSWORD", environment.get_even_empty("SNAP_PASSWORD").map(|password| Origin::Password(password.to_owned()))),
        ("SNAP_PASSWORD_FILE", environment.path("SNAP_PASSWORD_FILE").map(|path| Origin::PasswordFile(path, Guard::Mode))),
        ("SNAP_PASSWORD_COMMAND", text("SNAP_PASSWORD_COMMAND").map(Origin::PasswordCommand)),
        ("SNAP_PASSWORD_FD", text("SNAP_PASSWORD_FD").map(Origin::PasswordDescriptor)),
        ("SNAP_KEY_FILE", environment.path("SNAP_KEY_FILE").map(|path| Origin::KeyFile(path, Guard::Mode))),
    ];
    let folder = environment.path("CREDENTIALS_DIRECTORY");
    let credential = |name: &str| folder.as_ref().map(|folder| folder.join(name)).filter(|path| path.exists());
    let credentials = [
        ("the credential snap.password", credential("snap.password").map(|path| Origin::PasswordFile(path, Guard::ServiceManager))),
        ("the credential snap.key", credential("snap.key").map(|path| Origin::KeyFile(path, Guard::ServiceManager))),
    ];
    for level in [&flags[..], &variables, &credentials] {
        if let Some(origin) = only_one(level)? {
            return Ok(origin);
        }
    }
    Ok(Origin::Asking)
}

/// The one that is given, if any.
pub fn only_one<T: Clone>(level: &[(&str, Option<T>)]) -> Result<Option<T>> {
    let given: Vec<(&str, &T)> = level.iter().filter_map(|(name, value)| Some((*name, value.as_ref()?))).collect();
    match given[..] {
        [] => Ok(None),
        [(_, value)] => Ok(Some(value.clone())),
        [(first, _), (second, _), ..] => Err(Error::Usage(format!("Both {first} and {second} are given; choose one"))),
    }
}

fn password_of(origin: &str, mut password: Zeroizing<Vec<u8>>) -> Result<Secret> {
    match password.is_empty() {
        true => Err(Error::Usage(format!("The password in {origin} is empty"))),
        false => Ok(Secret::Password(std::mem::take(&mut *password))),
    }
}

fn without_line_end(mut bytes: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
    bytes
}

fn from_descriptor(number: &OsStr) -> Result<Secret> {
    let number: Option<u32> = number.to_str().and_then(|text| text.parse().ok());
    let number = number.ok_or_else(|| Error::Usage("SNAP_PASSWORD_FD is not the number of a file descriptor".into()))?;
    let (bytes, _) = keyfile::read_secret(Path::new(&format!("/dev/fd/{number}")))?;
    password_of("SNAP_PASSWORD_FD", without_line_end(bytes))
}

/// What the command prints. It gets no standard input, which may be the dump, and none of our secrets.
fn from_command(text: &OsStr, context: &Context) -> Result<Secret> {
    let words = words::split(text).map_err(|why| Error::Usage(format!("The password command cannot be used: {why}")))?;
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stderr(Stdio::inherit());
    for (name, _) in std::env::vars_os() {
        if [&b"SNAP_PASSWORD"[..], b"SNAP_KEY"].iter().any(|prefix| name.as_bytes().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    let failed = |error| Error::File { action: "run the password command", path: PathBuf::from(&words[0]), source: error };
    let output = command.output().map_err(failed)?;
    let printed = Zeroizing::new(output.stdout);
    if context.signals.interrupted().load(std::sync::atomic::Ordering::Relaxed) {
        return Err(Error::Interrupted);
    }
    if !output.status.success() {
        return Err(failed(std::io::Error::other(output.status.to_string())));
    }
    if printed.len() > SECRET_BYTES_MAX {
        return Err(Error::Usage("What the password command prints is too long for a password".into()));
    }
    password_of(&format!("the output of {}", show_bytes(words[0].as_bytes())), without_line_end(printed))
}

fn ask(location: &str, purpose: Purpose) -> Result<Secret> {
    let location = output::harmless(location);
    let prompt = match purpose {
        Purpose::Open => format!("Password for {location}: "),
        Purpose::Create => format!("New password for {location}: "),
    };
    let password = ask_once(&prompt)?;
    if purpose == Purpose::Create && *ask_once("The same again: ")? != *password {
        return Err(Error::Usage("The two passwords differ".into()));
    }
    password_of("your answer", password)
}

fn ask_once(prompt: &str) -> Result<Zeroizing<Vec<u8>>> {
    let config = rpassword::ConfigBuilder::new().build();
    match rpassword::prompt_password_with_config(prompt, config) {
        Ok(password) => Ok(Zeroizing::new(password.into_bytes())),
        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Err(Error::Interrupted),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(Error::Usage("No password was entered".into())),
        // There is no terminal.
        Err(_) => Err(Error::Usage(
            "No password is given and there is no terminal to ask at; use --password-file, --password-command, --key-file or SNAP_PASSWORD"
                .into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(password_file: Option<&str>, key_file: Option<&str>) -> SecretOptions {
        SecretOptions { password_file: password_file.map(Into::into), key_file: key_file.map(Into::into), password_command: None }
    }

    #[test]
    fn flags_beat_variables() {
        let variables = Environment::of(&[("SNAP_PASSWORD", "x"), ("SNAP_KEY_FILE", "")]);
        let file = |path: &str| Origin::PasswordFile(path.into(), Guard::Mode);
        assert_eq!(choose(&options(Some("f"), None), &variables).unwrap(), file("f"));
        assert_eq!(choose(&options(None, None), &variables).unwrap(), Origin::Password("x".into()));
        assert_eq!(choose(&options(None, None), &Environment::of(&[])).unwrap(), Origin::Asking);
    }

    #[test]
    fn two_secrets_on_one_level_are_an_error_that_names_both() {
        let error = choose(&options(Some("f"), Some("k")), &Environment::of(&[])).unwrap_err().to_string();
        assert_eq!(error, "Both --password-file and --key-file are given; choose one");
        let variables = Environment::of(&[("SNAP_PASSWORD", "x"), ("SNAP_PASSWORD_FD", "3")]);
        let error = choose(&options(None, None), &variables).unwrap_err().to_string();
        assert_eq!(error, "Both SNAP_PASSWORD and SNAP_PASSWORD_FD are given; choose one");
    }

    #[test]
    fn credentials_of_the_service_manager_come_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snap.key");
        std::fs::write(&path, "x").unwrap();
        let credentials = ("CREDENTIALS_DIRECTORY", folder.path().to_str().unwrap());
        let found = choose(&options(None, None), &Environment::of(&[credentials])).unwrap();
        assert_eq!(found, Origin::KeyFile(path, Guard::ServiceManager));
        let found = choose(&options(None, None), &Environment::of(&[credentials, ("SNAP_PASSWORD", "x")])).unwrap();
        assert_eq!(found, Origin::Password("x".into()));
    }

    #[test]
    fn one_line_end_is_dropped() {
        for (bytes, password) in [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" a ", " a "), ("\n", ""), ("a\r", "a\r")] {
            assert_eq!(*without_line_end(Zeroizing::new(bytes.into())), password.as_bytes());
        }
        assert!(password_of("x", Zeroizing::new(Vec::new())).is_err());
    }
}
