//! Where the repository in use is: as flags, variables or the configuration say.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::context::{Context, Environment};
use super::{exit, input, output, settings};
use crate::config::RepositoryTable;
use crate::error::{Error, Result};

/// The folder of the repository that flags and variables name.
pub fn given(context: &Context) -> Result<Option<PathBuf>> {
    let options = &context.options;
    let flags = [("--repo", options.repo.clone()), ("--repository-file", options.repository_file.clone())];
    location(&flags, ["SNAP_REPOSITORY", "SNAP_REPOSITORY_FILE"], &context.environment)
}

/// What the configuration says of the repository in use: nothing if flags or variables name another, whose secret is another.
pub fn configured(context: &Context) -> Result<Option<&RepositoryTable>> {
    let Some(given) = given(context)? else { return settings::repository(context) };
    match settings::repository(context) {
        Ok(table) => Ok(table.filter(|table| table.path.as_ref().is_none_or(|path| is_same(path, &given)))),
        // It is not needed to find the repository; there may be nothing in it for this one.
        Err(error) => {
            if !context.options.quiet && !context.configuration_told.swap(true, Ordering::Relaxed) {
                output::complain(&format!("warning: the configuration is not used: {}", exit::message(&error)));
            }
            Ok(None)
        }
    }
}

fn is_same(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.into());
    real(a) == real(b)
}

/// The folder a repository is in: of flags and variables the first names it, the second a file that does.
pub fn location(flags: &[(&str, Option<PathBuf>); 2], names: [&str; 2], environment: &Environment) -> Result<Option<PathBuf>> {
    let variables = names.map(|name| (name, environment.path(name)));
    let (level, in_file) = match only_one(flags)? {
        Some(path) => (path, flags[1].1.is_some()),
        None => match only_one(&variables)? {
            Some(path) => (path, variables[0].1.is_none()),
            None => return Ok(None),
        },
    };
    let path = if in_file { first_line(&level)? } else { level };
    folder(path.as_os_str()).map(Some)
}

fn first_line(path: &Path) -> Result<PathBuf> {
    let text = input::read_file(path)?;
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii();
    match line.is_empty() {
        true => Err(Error::Usage(format!("The first line of {} names no repository", crate::error::show(path)))),
        false => Ok(PathBuf::from(OsStr::from_bytes(line))),
    }
}

/// Locations that other tools know and this one does not.
const OTHER_STORES: [&str; 8] = ["s3:", "sftp:", "rest:", "b2:", "azure:", "gs:", "swift:", "rclone:"];

pub fn folder(text: &OsStr) -> Result<PathBuf> {
    if text.is_empty() {
        return Err(Error::Usage("The name of the repository is empty".into()));
    }
    let bytes = text.as_bytes();
    if let Some(scheme) = OTHER_STORES.iter().find(|scheme| bytes.starts_with(scheme.as_bytes())) {
        return Err(Error::Usage(format!(
            "Repositories at {scheme} are not supported; use a folder (write ./{scheme}... if it is called so)"
        )));
    }
    Ok(PathBuf::from(OsStr::from_bytes(bytes.strip_prefix(b"local:").unwrap_or(bytes))))
}

/// The one that is given, if any.
pub fn only_one<N: AsRef<str>, T: Clone>(level: &[(N, Option<T>)]) -> Result<Option<T>> {
    let given: Vec<(&str, &T)> = level.iter().filter_map(|(name, value)| Some((name.as_ref(), value.as_ref()?))).collect();
    match given[..] {
        [] => Ok(None),
        [(_, value)] => Ok(Some(value.clone())),
        [(first, _), (second, _), ..] => Err(Error::Usage(format!("Both {first} and {second} are given; choose one"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(flags: [Option<&str>; 2], environment: &Environment) -> Result<Option<PathBuf>> {
        let flags = [("--repo", flags[0].map(PathBuf::from)), ("--repository-file", flags[1].map(PathBuf::from))];
        location(&flags, ["SNAP_REPOSITORY", "SNAP_REPOSITORY_FILE"], environment)
    }

    #[test]
    fn flags_beat_variables() {
        let variables = Environment::of(&[("SNAP_REPOSITORY", "/env")]);
        let flag = [Some("/flag"), None];
        assert_eq!(own(flag, &variables).unwrap().unwrap(), Path::new("/flag"));
        assert_eq!(own([None; 2], &variables).unwrap().unwrap(), Path::new("/env"));
        assert_eq!(own([None; 2], &Environment::of(&[("SNAP_REPOSITORY", "")])).unwrap(), None);
        let both = Environment::of(&[("SNAP_REPOSITORY", "/a"), ("SNAP_REPOSITORY_FILE", "/b")]);
        let error = own([None; 2], &both).unwrap_err().to_string();
        assert_eq!(error, "Both SNAP_REPOSITORY and SNAP_REPOSITORY_FILE are given; choose one");
        assert!(own(flag, &both).is_ok());
    }

    #[test]
    fn a_file_can_name_the_repository() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), " /srv/backup \nmore\n").unwrap();
        let named = [None, file.path().to_str()];
        assert_eq!(own(named, &Environment::of(&[])).unwrap().unwrap(), Path::new("/srv/backup"));
    }

    #[test]
    fn only_folders_are_repositories() {
        assert_eq!(folder("local:/x".as_ref()).unwrap(), Path::new("/x"));
        assert_eq!(folder("./s3:x".as_ref()).unwrap(), Path::new("./s3:x"));
        assert!(folder("s3:https://x/y".as_ref()).is_err());
        assert!(folder("".as_ref()).is_err());
    }
}
