//! Finding, opening and making the repository that flags and environment mean.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;

use super::context::{Context, Environment, FromOptions};
use super::input;
use super::location::{folder, given, location};
use super::secret::{self, Given, Purpose};
use super::settings;
use crate::backend::{Backend, Local, Place};
use crate::config::Config;
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

/// The name of this host in snapshots: of the flag, the environment, the configuration or the system.
pub fn named_host(flag: Option<&String>, environment: &Environment, configured: impl FnOnce() -> Result<Option<String>>) -> Result<String> {
    let named = match (flag, environment.get("SNAP_HOST")) {
        (Some(host), _) => Some(host.clone()),
        (None, Some(host)) => Some(input::text_of("SNAP_HOST", host)?),
        (None, None) => configured()?,
    };
    match named.unwrap_or_else(host) {
        host if host.is_empty() => Err(Error::Usage("The name of the host is empty".into())),
        host => Ok(host),
    }
}

/// The same where the configuration is known to be that of the repository.
pub fn configured_host(flag: Option<&String>, environment: &Environment, config: &Config) -> Result<String> {
    named_host(flag, environment, || Ok(config.repository.host.clone()))
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

/// Folder of this host's index; none if there is no home.
fn cache(environment: &Environment) -> Option<PathBuf> {
    let absolute = |name| environment.path(name).filter(|path| path.is_absolute());
    let own = environment.path("SNAP_CACHE_DIR");
    own.or_else(|| Some(absolute("XDG_CACHE_HOME")?.join("snap"))).or_else(|| Some(absolute("HOME")?.join(".cache/snap")))
}

#[cfg(test)]
mod tests {
    use super::*;

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
