//! Which password or key file opens the repository, and reading it.
//!
//! Flags beat variables beat systemd's credentials beat the configuration beat asking. Two secrets on one level are an error, and never a guess.
//! There may be three secrets: one's own, a new one, and that of a repository to copy from.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::context::{Context, Environment, FromOptions, NewSecretOptions, SecretOptions};
use super::fetch::{self, without_line_end};
use super::keyfile::{self, Guard};
use super::location::{self, only_one};
use super::{ask, output, recovery, words};
use crate::config::SecretFrom;
use crate::crypto::Secret;
use crate::error::{Error, Result, show, show_bytes};
use crate::world::World;

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    PasswordFile(PathBuf, Guard),
    PasswordCommand(OsString),
    Password(OsString),
    PasswordDescriptor(OsString),
    KeyFile(PathBuf, Guard),
    /// Recovery words.
    WordsFile(PathBuf),
    /// What the configuration says.
    Configured(SecretFrom),
    Asking,
}

/// Whether the secret opens a repository or is to lock a new slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Open,
    Create,
}

/// Whose secret it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Own,
    New,
    From,
}

/// What the flags of a role say.
pub struct Given {
    role: Role,
    password_file: Option<PathBuf>,
    password_command: Option<OsString>,
    key_file: Option<PathBuf>,
    words: Option<PathBuf>,
}

impl Role {
    fn flag(self, name: &str) -> String {
        let prefix = match self {
            Self::Own => "",
            Self::New => "new-",
            Self::From => "from-",
        };
        format!("--{prefix}{name}")
    }

    fn variable(self, name: &str) -> String {
        let prefix = match self {
            Self::Own => "",
            Self::New => "NEW_",
            Self::From => "FROM_",
        };
        format!("SNAP_{prefix}{name}")
    }
}

impl From<&SecretOptions> for Given {
    fn from(options: &SecretOptions) -> Self {
        Self {
            role: Role::Own,
            password_file: options.password_file.clone(),
            password_command: options.password_command.clone(),
            key_file: options.key_file.clone(),
            words: options.recovery_words.clone(),
        }
    }
}

impl From<&NewSecretOptions> for Given {
    fn from(options: &NewSecretOptions) -> Self {
        Self {
            role: Role::New,
            password_file: options.new_password_file.clone(),
            password_command: options.new_password_command.clone(),
            key_file: options.new_key_file.clone(),
            words: None,
        }
    }
}

impl From<&FromOptions> for Given {
    fn from(options: &FromOptions) -> Self {
        Self {
            role: Role::From,
            password_file: options.from_password_file.clone(),
            password_command: options.from_password_command.clone(),
            key_file: options.from_key_file.clone(),
            words: options.from_recovery_words.clone(),
        }
    }
}

impl Guard {
    fn is_ours(self) -> bool {
        self == Self::Mode
    }
}

/// The secret for the repository at `location`.
pub fn get(context: &Context, given: &Given, location: &str, purpose: Purpose) -> Result<Secret> {
    let variable = |name| given.role.variable(name);
    let mut origin = choose(given, &context.environment)?;
    if origin == Origin::Asking && given.role == Role::Own {
        origin = match location::configured(context)?.and_then(|table| table.secret.clone()) {
            Some(SecretFrom::KeyFile(path)) => Origin::KeyFile(path, Guard::Mode),
            Some(from) => Origin::Configured(from),
            None => Origin::Asking,
        };
    }
    match origin {
        Origin::Password(password) => password_of(&variable("PASSWORD"), Zeroizing::new(password.as_bytes().to_vec())),
        Origin::PasswordFile(path, guard) => {
            let (bytes, is_private) = keyfile::read_secret(&path)?;
            if !is_private && guard.is_ours() && !context.options.quiet {
                output::complain(&format!("warning: others than its owner can read {}; run chmod 600", show(&path)));
            }
            password_of(&show(&path), without_line_end(bytes))
        }
        Origin::PasswordDescriptor(number) => from_descriptor(&variable("PASSWORD_FD"), &number),
        Origin::PasswordCommand(command) => from_command(&command, context),
        Origin::KeyFile(path, guard) => {
            if purpose == Purpose::Create && guard.is_ours() && !path.exists() {
                keyfile::create(&path, &World::system())?;
                let advice = "keep a copy of it elsewhere: without it nothing can be restored";
                output::complain_as_is(&format!("made the key file {}; {advice}\n", show(&path)));
            }
            Ok(Secret::KeyFile(keyfile::read(&path, guard)?))
        }
        Origin::WordsFile(_) if purpose == Purpose::Create => {
            Err(Error::Usage("A repository cannot be made with recovery words; it gets words of its own".into()))
        }
        Origin::WordsFile(path) => recovery::read(&path),
        Origin::Configured(from) => password_of(&fetch::describe(&from), fetch::fetch(&from, context)?),
        Origin::Asking => ask_for(given.role, location, purpose),
    }
}

/// Where the secret comes from.
fn choose(given: &Given, environment: &Environment) -> Result<Origin> {
    let role = given.role;
    let flags = [
        (role.flag("password-file"), given.password_file.clone().map(|path| Origin::PasswordFile(path, Guard::Mode))),
        (role.flag("password-command"), given.password_command.clone().map(Origin::PasswordCommand)),
        (role.flag("key-file"), given.key_file.clone().map(|path| Origin::KeyFile(path, Guard::Mode))),
        (role.flag("recovery-words"), given.words.clone().map(Origin::WordsFile)),
    ];
    let variable = |name: &str, origin: &dyn Fn(&OsStr) -> Origin| {
        let name = role.variable(name);
        let origin = environment.get(&name).map(origin);
        (name, origin)
    };
    let password = role.variable("PASSWORD");
    let variables = [
        // An empty password is an error and not the absence of one.
        (password.clone(), environment.get_even_empty(&password).map(|password| Origin::Password(password.to_owned()))),
        variable("PASSWORD_FILE", &|path| Origin::PasswordFile(path.into(), Guard::Mode)),
        variable("PASSWORD_COMMAND", &|command| Origin::PasswordCommand(command.into())),
        variable("PASSWORD_FD", &|number| Origin::PasswordDescriptor(number.into())),
        variable("KEY_FILE", &|path| Origin::KeyFile(path.into(), Guard::Mode)),
    ];
    let folder = environment.path("CREDENTIALS_DIRECTORY").filter(|_| role == Role::Own);
    let credential = |name: &str| folder.as_ref().map(|folder| folder.join(name)).filter(|path| path.exists());
    let credentials = [
        ("the credential snap.password".into(), credential("snap.password").map(|path| Origin::PasswordFile(path, Guard::ServiceManager))),
        ("the credential snap.key".into(), credential("snap.key").map(|path| Origin::KeyFile(path, Guard::ServiceManager))),
    ];
    for level in [&flags[..], &variables, &credentials] {
        if let Some(origin) = only_one(level)? {
            return Ok(origin);
        }
    }
    Ok(Origin::Asking)
}

fn password_of(origin: &str, mut password: Zeroizing<Vec<u8>>) -> Result<Secret> {
    match password.is_empty() {
        true => Err(Error::Usage(format!("The password in {origin} is empty"))),
        false => Ok(Secret::Password(std::mem::take(&mut *password))),
    }
}

fn from_descriptor(variable: &str, number: &OsStr) -> Result<Secret> {
    let number: Option<u32> = number.to_str().and_then(|text| text.parse().ok());
    let number = number.ok_or_else(|| Error::Usage(format!("{variable} is not the number of a file descriptor")))?;
    let (bytes, _) = keyfile::read_secret(Path::new(&format!("/dev/fd/{number}")))?;
    password_of(variable, without_line_end(bytes))
}

/// What the command prints.
fn from_command(text: &OsStr, context: &Context) -> Result<Secret> {
    let words = words::split(text).map_err(|why| Error::Usage(format!("The password command cannot be used: {why}")))?;
    let printed = fetch::printed_by(&words, context)?;
    password_of(&format!("the output of {}", show_bytes(words[0].as_bytes())), without_line_end(printed))
}

fn ask_for(role: Role, location: &str, purpose: Purpose) -> Result<Secret> {
    let location = output::harmless(location);
    let prompt = match purpose {
        Purpose::Open => format!("Password for {location}: "),
        Purpose::Create => format!("New password for {location}: "),
    };
    let hint = || {
        let flags = ["password-file", "password-command", "key-file"].map(|name| role.flag(name)).join(", ");
        format!("No password is given and there is no terminal to ask at; use {flags} or {}", role.variable("PASSWORD"))
    };
    let password = ask::once(&prompt, &hint)?;
    if purpose == Purpose::Create && *ask::once("The same again: ", &hint)? != *password {
        return Err(Error::Usage("The two passwords differ".into()));
    }
    password_of("your answer", password)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(password_file: Option<&str>, key_file: Option<&str>) -> Given {
        let (password_file, key_file) = (password_file.map(Into::into), key_file.map(Into::into));
        (&SecretOptions { password_file, key_file, ..SecretOptions::default() }).into()
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
    fn each_role_has_its_own_names() {
        let variables = Environment::of(&[("SNAP_PASSWORD", "own"), ("SNAP_NEW_PASSWORD", "new"), ("SNAP_FROM_KEY_FILE", "from")]);
        let new = NewSecretOptions::default();
        assert_eq!(choose(&(&new).into(), &variables).unwrap(), Origin::Password("new".into()));
        let from = FromOptions::default();
        assert_eq!(choose(&(&from).into(), &variables).unwrap(), Origin::KeyFile("from".into(), Guard::Mode));
        let both = NewSecretOptions { new_password_file: Some("a".into()), new_key_file: Some("b".into()), ..new };
        let error = choose(&(&both).into(), &variables).unwrap_err().to_string();
        assert_eq!(error, "Both --new-password-file and --new-key-file are given; choose one");
        // The service manager's credentials are for the repository itself.
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("snap.key"), "x").unwrap();
        let variables = Environment::of(&[("CREDENTIALS_DIRECTORY", folder.path().to_str().unwrap())]);
        assert_eq!(choose(&(&from).into(), &variables).unwrap(), Origin::Asking);
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
