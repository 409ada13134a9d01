//! Finding, opening and making the repository that flags and environment mean.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::context::{Context, Environment, FromOptions};
use super::input;
use super::secret::{self, Given, Purpose, only_one};
use super::{exit, output, settings};
use crate::backend::{Backend, Local, Place};
use crate::config::RepositoryTable;
use crate::crypto::Secret;
use crate::error::{Error, Result, StorageErrorKind};
use crate::limits::*;
use crate::ops::keys;
use crate::repo::{Opening, Repository};
use crate::world::World;

/// Opens the repository.
pub fn open(context: &Context) -> Result<Repository> {
    open_store(context, store(context)?, &own(context))
}

/// Opens the repository, and says with what.
pub fn open_and_tell(context: &Context) -> Result<(Repository, Secret)> {
    let store = store(context)?;
    // Before anybody has to type a password.
    require_manifest(&*store)?;
    let secret = secret::get(context, &own(context), &store.location(), Purpose::Open)?;
    Ok((open_with(context, store, secret.clone())?, secret))
}

/// Opens the repository to copy from.
pub fn open_from(context: &Context, from: &FromOptions) -> Result<Repository> {
    let given = [("--from-repo", from.from_repo.clone()), ("--from-repository-file", from.from_repository_file.clone())];
    let missing = "No repository to copy from is given; use --from-repo DIR or set SNAP_FROM_REPOSITORY";
    let location = location(&given, ["SNAP_FROM_REPOSITORY", "SNAP_FROM_REPOSITORY_FILE"], &context.environment)?;
    let location = location.ok_or_else(|| Error::Usage(missing.into()))?;
    open_store(context, Arc::new(Local::new(location)), &from.into())
}

/// Makes the repository.
pub fn create(context: &Context) -> Result<Repository> {
    create_in(context, store(context)?, &own(context))
}

/// Opens the repository, or makes one if there is none.
pub fn open_or_create(context: &Context) -> Result<Repository> {
    open_or_create_in(context, store(context)?, &own(context))
}

/// Opens the repository in a store, or makes one there if there is none.
pub fn open_or_create_in(context: &Context, store: Arc<dyn Backend>, given: &Given) -> Result<Repository> {
    match has_manifest(&*store)? {
        true => open_store(context, store, given),
        false => create_in(context, store, given),
    }
}

/// The store of the repository, not opened.
pub fn store(context: &Context) -> Result<Arc<dyn Backend>> {
    let given = match given(context)? {
        Some(given) => Some(given),
        None => settings::repository(context)?.and_then(|table| table.path.clone()),
    };
    let missing = "No repository is given; use -r DIR, set SNAP_REPOSITORY, or write it into snap.toml (snap config example)";
    Ok(Arc::new(Local::new(given.ok_or_else(|| Error::Usage(missing.into()))?)))
}

/// The folder of the repository that flags and variables name.
fn given(context: &Context) -> Result<Option<PathBuf>> {
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

/// The store in a folder that was named as an argument.
pub fn store_at(folder_name: &OsStr) -> Result<Arc<dyn Backend>> {
    Ok(Arc::new(Local::new(folder(folder_name)?)))
}

fn own(context: &Context) -> Given {
    (&context.options.secret).into()
}

fn open_store(context: &Context, store: Arc<dyn Backend>, given: &Given) -> Result<Repository> {
    // Before anybody has to type a password.
    require_manifest(&*store)?;
    let secret = secret::get(context, given, &store.location(), Purpose::Open)?;
    open_with(context, store, secret)
}

/// Opens the repository in a store with this secret.
pub fn open_with(context: &Context, store: Arc<dyn Backend>, secret: Secret) -> Result<Repository> {
    Repository::open(store, opening(context, secret))
}

fn create_in(context: &Context, store: Arc<dyn Backend>, given: &Given) -> Result<Repository> {
    // Before a key file is made.
    if has_manifest(&*store)? {
        return Err(Error::AlreadyThere { location: store.location(), what: "a repository" });
    }
    let secret = secret::get(context, given, &store.location(), Purpose::Create)?;
    let repository = Repository::create(store, opening(context, secret), &maker())?;
    keys::describe_first(&repository)?;
    Ok(repository)
}

fn opening(context: &Context, secret: Secret) -> Opening {
    let cache = if context.options.no_cache { None } else { cache(&context.environment) };
    // Not /tmp, which is often in memory: without a cache folder, it is there that a large index must not be.
    let scratch = context.environment.path("TMPDIR").unwrap_or_else(|| "/var/tmp".into());
    Opening { secret, cache, world: World::system().with_scratch(scratch) }
}

/// Fails where there is no repository.
pub fn require_manifest(store: &dyn Backend) -> Result<()> {
    match has_manifest(store)? {
        true => Ok(()),
        false => Err(Error::NoRepository { location: store.location() }),
    }
}

fn has_manifest(store: &dyn Backend) -> Result<bool> {
    match store.get(&Place::manifest(), RECORD_BYTES_MAX) {
        Ok(_) => Ok(true),
        Err(error) if error.kind == StorageErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The name of this machine.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The name of the user this process runs as.
pub fn user() -> String {
    let name = uzers::get_user_by_uid(rustix::process::getuid().as_raw());
    name.map_or_else(|| rustix::process::getuid().as_raw().to_string(), |user| user.name().to_string_lossy().into_owned())
}

/// Who is at work here, for notes on key slots.
pub fn maker() -> String {
    format!("{}@{}", user(), host())
}

/// The folder a repository is in: of flags and variables the first names it, the second a file that does.
fn location(flags: &[(&str, Option<PathBuf>); 2], names: [&str; 2], environment: &Environment) -> Result<Option<PathBuf>> {
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

fn folder(text: &OsStr) -> Result<PathBuf> {
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

/// Folder of this host's index; none if there is no home.
fn cache(environment: &Environment) -> Option<PathBuf> {
    let absolute = |name| environment.path(name).filter(|path| path.is_absolute());
    let own = environment.path("SNAP_CACHE_DIR");
    own.or_else(|| Some(absolute("XDG_CACHE_HOME")?.join("snap"))).or_else(|| Some(absolute("HOME")?.join(".cache/snap")))
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

    #[test]
    fn the_cache_has_a_place() {
        for (variables, expected) in [
            (&[("SNAP_CACHE_DIR", "c"), ("HOME", "/h")][..], Some("c")),
            (&[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")], Some("/x/snap")),
            (&[("XDG_CACHE_HOME", "x"), ("HOME", "/h")], Some("/h/.cache/snap")),
            (&[], None),
        ] {
            assert_eq!(cache(&Environment::of(variables)), expected.map(PathBuf::from));
        }
    }
}
