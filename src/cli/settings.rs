//! Finding `snap.toml`, deciding whether to trust it, and reading it, once.
//!
//! It names commands to run. So a file in the working folder counts only if it is this user's or root's, and no file does that others
//! can write to. What flags and variables say never needs it, and a mistake in a job is not in the way of a restore: commands that only
//! want the repository need that table alone to be right.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::context::{Context, Environment};
use super::{output, show};
use crate::config::{Complaint, Config, Parsed, RepositoryTable, parse};
use crate::error::{Error, Result, show as show_path};
use crate::limits::CONFIG_BYTES_MAX;

/// Its name in every folder.
const NAME: &str = "snap.toml";
const SYSTEM: &str = "/etc/snap/snap.toml";

/// The configuration, which must be there, as far as it can be understood.
pub fn load_some(context: &Context) -> Result<&Parsed> {
    load(context)?.ok_or_else(|| none(&context.environment))
}

/// The configuration, which must be there and be right.
pub fn require(context: &Context) -> Result<&Config> {
    complete(context)?.ok_or_else(|| none(&context.environment))
}

/// The configuration, which must be right if there is one.
pub fn complete(context: &Context) -> Result<Option<&Config>> {
    let Some(parsed) = load(context)? else { return Ok(None) };
    match parsed.errors().next() {
        None => Ok(Some(&parsed.config)),
        Some(first) => Err(wrong(parsed, first)),
    }
}

/// What the configuration says of the repository. Mistakes in other tables are only told.
pub fn repository(context: &Context) -> Result<Option<&RepositoryTable>> {
    let Some(parsed) = load(context)? else { return Ok(None) };
    if let Some(first) = parsed.errors().next() {
        if !parsed.repository_is_good {
            return Err(wrong(parsed, first));
        }
        if !context.options.quiet && !context.configuration_told.swap(true, std::sync::atomic::Ordering::Relaxed) {
            let errors = show::count(parsed.errors().count() as u64, "mistake");
            output::complain(&format!("warning: {errors} in {}; snap config check explains", show_path(&parsed.config.file)));
        }
    }
    Ok(Some(&parsed.config.repository))
}

/// The configuration as far as it can be understood; nothing if there is none.
pub fn load(context: &Context) -> Result<Option<&Parsed>> {
    if let Some(parsed) = context.configuration.get() {
        return Ok(parsed.as_ref());
    }
    let found = find(context.options.config.as_deref(), &context.environment, Path::new("."))?;
    let parsed = match found {
        None => None,
        Some((path, bytes)) => {
            let path = std::path::absolute(&path).map_err(|error| Error::file("find", &path, error))?;
            Some(parse(&bytes, &path))
        }
    };
    Ok(context.configuration.get_or_init(|| parsed).as_ref())
}

/// That there is none, and where it could be.
fn none(environment: &Environment) -> Error {
    let places: Vec<String> = std::iter::once("./snap.toml".into()).chain(places(environment).iter().map(|path| show_path(path))).collect();
    let places = places.join(", ");
    Error::Usage(format!("There is no configuration; looked for {places}; snap config example > snap.toml begins one"))
}

fn wrong(parsed: &Parsed, first: &Complaint) -> Error {
    let more = match parsed.errors().count() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more; snap config check explains all)"),
    };
    Error::Usage(format!("{}:{}:{}: {}{more}", show_path(&parsed.config.file), first.line, first.column, first.text))
}

/// The file that counts, and what is in it.
fn find(flag: Option<&Path>, environment: &Environment, working_folder: &Path) -> Result<Option<(PathBuf, Vec<u8>)>> {
    if let Some(path) = flag.map(PathBuf::from).or_else(|| environment.path("SNAP_CONFIG")) {
        let bytes = read(&path, Finding::Named)?;
        return Ok(bytes.map(|bytes| (path, bytes)));
    }
    let here = working_folder.join(NAME);
    if let Some(bytes) = read(&here, Finding::Here)? {
        return Ok(Some((here, bytes)));
    }
    for path in places(environment) {
        if let Some(bytes) = read(&path, Finding::Place)? {
            return Ok(Some((path, bytes)));
        }
    }
    Ok(None)
}

/// The folders of the user and of the system.
fn places(environment: &Environment) -> Vec<PathBuf> {
    let absolute = |name| environment.path(name).filter(|path: &PathBuf| path.is_absolute());
    let user = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
    user.map(|folder| folder.join("snap").join(NAME)).into_iter().chain([PathBuf::from(SYSTEM)]).collect()
}

/// How a file was come by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Finding {
    /// The user named it.
    Named,
    /// It lies in the working folder, where anybody may have put it.
    Here,
    /// It lies where configurations belong.
    Place,
}

/// What is in the file; nothing if there is none. Looked at and read through one descriptor, so that nobody can exchange it between.
fn read(path: &Path, finding: Finding) -> Result<Option<Vec<u8>>> {
    let failed = |error| Error::file("read", path, error);
    let mut options = File::options();
    options.read(true);
    if finding != Finding::Named {
        // A pipe that somebody laid there would wait for a writer for ever.
        options.custom_flags(OFlags::NONBLOCK.bits() as i32);
    }
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && finding != Finding::Named => return Ok(None),
        // Root's own is not for other users.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied && finding == Finding::Place => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let meta = file.metadata().map_err(failed)?;
    match finding {
        Finding::Named if meta.is_dir() => return Err(failed(std::io::ErrorKind::IsADirectory.into())),
        Finding::Here | Finding::Place if !meta.is_file() => return Ok(None),
        _ => {}
    }
    let me = rustix::process::geteuid().as_raw();
    if let Some(why) = distrust(&meta, me, finding) {
        return Err(refused(path, &why));
    }
    // A link that somebody else laid would choose the file.
    if finding == Finding::Here {
        let link = path.symlink_metadata().map_err(failed)?;
        if link.is_symlink() && ![0, me].contains(&link.uid()) {
            return Err(refused(path, "is a link of another user"));
        }
    }
    let mut bytes = Vec::new();
    file.take(CONFIG_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(bytes))
}

fn refused(path: &Path, why: &str) -> Error {
    let path = show_path(path);
    Error::Usage(format!("{path} {why}, so it is not trusted: it names commands to run"))
}

/// Why commands in this file are not run.
fn distrust(meta: &Metadata, me: u32, finding: Finding) -> Option<String> {
    distrust_of(meta.is_file(), meta.mode(), meta.uid(), meta.gid(), (me, finding))
}

fn distrust_of(is_file: bool, mode: u32, owner: u32, group: u32, (me, finding): (u32, Finding)) -> Option<String> {
    if finding == Finding::Here && owner != me && owner != 0 {
        let name = uzers::get_user_by_uid(owner).map_or_else(|| owner.to_string(), |user| user.name().to_string_lossy().into_owned());
        return Some(format!("belongs to another user ({name}; --config FILE uses it all the same)"));
    }
    // Devices and pipes are whoever's who named them.
    if !is_file && finding == Finding::Named {
        return None;
    }
    if mode & 0o002 != 0 {
        return Some("can be written by everybody (chmod go-w)".into());
    }
    (mode & 0o020 != 0 && group != 0).then(|| "can be written by its group (chmod g-w)".into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_that_others_can_write_are_refused() {
        let (me, other) = (1000, 1001);
        for (finding, mode, owner, group, is_trusted) in [
            (Finding::Here, 0o644, me, 1000, true),
            (Finding::Here, 0o600, 0, 0, true),
            (Finding::Here, 0o664, 0, 0, true),
            (Finding::Here, 0o644, other, 1000, false),
            (Finding::Here, 0o664, me, 1000, false),
            (Finding::Here, 0o646, me, 1000, false),
            (Finding::Place, 0o644, other, 1000, true),
            (Finding::Place, 0o666, 0, 0, false),
            (Finding::Named, 0o644, other, 1000, true),
            (Finding::Named, 0o662, me, 1000, false),
        ] {
            let why = distrust_of(true, 0o100000 | mode, owner, group, (me, finding));
            assert_eq!(why.is_none(), is_trusted, "{mode:o} {owner} {group}: {why:?}");
        }
        assert_eq!(distrust_of(false, 0o20666, 0, 0, (me, Finding::Named)), None);
    }

    #[test]
    fn the_nearest_file_counts() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, name).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
            path
        };
        let named = write("named.toml");
        let in_variable = write("variable.toml");
        let here = write("work/snap.toml");
        let own = write("home/.config/snap/snap.toml");
        let xdg = write("xdg/snap/snap.toml");
        let home = folder.path().join("home");
        let xdg_home = folder.path().join("xdg");
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let found = |flag: Option<&Path>, variables: &[(&str, &str)], work: &Path| {
            find(flag, &Environment::of(variables), work).unwrap().map(|(path, _)| path)
        };
        let (home, xdg_home, variable) = (text(&home), text(&xdg_home), text(&in_variable));
        let all = [("SNAP_CONFIG", variable.as_str()), ("HOME", &home), ("XDG_CONFIG_HOME", &xdg_home)];
        let work = folder.path().join("work");
        assert_eq!(found(Some(&named), &all, &work), Some(named));
        assert_eq!(found(None, &all, &work), Some(in_variable));
        assert_eq!(found(None, &all[1..], &work), Some(here.clone()));
        assert_eq!(found(None, &all[1..], folder.path()), Some(xdg));
        assert_eq!(found(None, &all[1..2], folder.path()), Some(own));
        // What is named must be there.
        assert!(find(Some(Path::new("/nowhere/x")), &Environment::of(&[]), folder.path()).is_err());
        // A file that is refused is not passed over in favour of the next.
        std::fs::set_permissions(&here, std::fs::Permissions::from_mode(0o666)).unwrap();
        let error = find(None, &Environment::of(&all[1..]), &work).unwrap_err().to_string();
        assert!(error.ends_with("can be written by everybody (chmod go-w), so it is not trusted: it names commands to run"), "{error}");
    }
}
