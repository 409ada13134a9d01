//! What a backup reads: from arguments to an [`Input`].

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::report::Reporter;
use crate::error::{Error, Result, show_bytes};
use crate::ops::backup::Input;
use crate::source::{CommandLine, Filter, FilterRules, parse_exclude_file};

/// What to back up, and what to leave out.
#[derive(clap::Args, Default)]
pub struct InputArgs {
    /// Files and folders to back up; with --stdin-from-command, the command and its arguments
    #[arg(value_name = "PATH")]
    pub paths: Vec<OsString>,
    /// Back up what comes on standard input
    #[arg(long, conflicts_with_all = ["paths", "stdin_from_command", "files_from", "files_from0"], help_heading = STREAMS)]
    pub stdin: bool,
    /// Run the command behind --, and back up what it prints; nothing is saved unless it exits with success
    #[arg(long, conflicts_with_all = ["files_from", "files_from0"], help_heading = STREAMS)]
    pub stdin_from_command: bool,
    /// File name of the stream in the snapshot [default: stdin, or the name of the command]
    #[arg(long, value_name = "NAME", help_heading = STREAMS)]
    pub stdin_filename: Option<String>,
    /// Leave out paths that match the pattern: *.tmp, cache/, /var/tmp, "!keep.tmp"; may be repeated
    #[arg(short, long, value_name = "PATTERN", help_heading = FILES)]
    pub exclude: Vec<String>,
    /// Leave out paths that match a pattern in the file, one a line, # for comments; may be repeated
    #[arg(long, value_name = "FILE", help_heading = FILES)]
    pub exclude_file: Vec<PathBuf>,
    /// Leave out what is in folders that hold such a file (that begins so); may be repeated
    #[arg(long, value_name = "FILE[:BEGINNING]", help_heading = FILES)]
    pub exclude_if_present: Vec<String>,
    /// Leave out what is in folders marked by a CACHEDIR.TAG
    #[arg(long, help_heading = FILES)]
    pub exclude_caches: bool,
    /// Stay on the file systems of the given paths
    #[arg(short = 'x', long, help_heading = FILES)]
    pub one_file_system: bool,
    /// Back up the paths in the file too, one a line; - reads them from standard input; may be repeated
    #[arg(long, value_name = "FILE", help_heading = FILES)]
    pub files_from: Vec<PathBuf>,
    /// The same, with a NUL behind each path
    #[arg(long, value_name = "FILE", help_heading = FILES)]
    pub files_from0: Vec<PathBuf>,
}

const STREAMS: &str = "Streams";
const FILES: &str = "Files and folders";

impl InputArgs {
    /// Whether one stream is backed up, and not files.
    pub fn is_stream(&self) -> bool {
        self.stdin || self.stdin_from_command
    }

    /// Finds what can be found wrong without a repository, and reads the lists.
    pub fn prepare(mut self) -> Result<Prepared> {
        let filter = self.filter()?;
        let is_stream = self.stdin || self.stdin_from_command;
        if is_stream && (!filter.is_empty() || self.one_file_system) {
            return usage("Streams have no files to leave out; drop the options for files and folders");
        }
        if self.stdin_filename.is_some() && !is_stream {
            return usage("--stdin-filename goes with --stdin or --stdin-from-command");
        }
        if self.stdin {
            if std::io::stdin().is_terminal() {
                return usage("Standard input is a terminal; pipe the dump in, as in: pg_dump mydb | snap backup --stdin");
            }
            return Ok(Prepared::Stdin { name: self.stdin_filename.unwrap_or_else(|| "stdin".into()) });
        }
        if self.stdin_from_command {
            return self.prepare_command();
        }
        let mut roots: Vec<PathBuf> = std::mem::take(&mut self.paths).into_iter().map(PathBuf::from).collect();
        for (files, separator) in [(&self.files_from, b'\n'), (&self.files_from0, 0)] {
            for file in files {
                roots.extend(paths_in(&read_file(file)?, separator));
            }
        }
        match roots.is_empty() {
            true => usage("Nothing to back up; name files or folders, or use --stdin or --stdin-from-command -- COMMAND"),
            false => Ok(Prepared::Tree { roots, filter: Filter::new(&filter.0)?, one_file_system: self.one_file_system }),
        }
    }

    fn prepare_command(self) -> Result<Prepared> {
        let mut words = self.paths.into_iter();
        let Some(program) = words.next().filter(|program| !program.is_empty()) else {
            return usage("--stdin-from-command needs a command: snap backup --stdin-from-command -- pg_dump mydb");
        };
        let base = Path::new(&program).file_name().unwrap_or(&program);
        let name = self.stdin_filename.unwrap_or_else(|| show_bytes(base.as_bytes()));
        Ok(Prepared::Command { name, line: CommandLine { program, args: words.collect() } })
    }

    fn filter(&self) -> Result<Rules> {
        let mut excludes = self.exclude.clone();
        for file in &self.exclude_file {
            let text = String::from_utf8(read_file(file)?);
            let text = text.map_err(|_| Error::Usage(format!("{} is not UTF-8", crate::error::show(file))))?;
            excludes.extend(parse_exclude_file(&text));
        }
        Ok(Rules(FilterRules { excludes, exclude_if_present: self.exclude_if_present.clone(), exclude_caches: self.exclude_caches }))
    }
}

struct Rules(FilterRules);

impl Rules {
    fn is_empty(&self) -> bool {
        self.0.excludes.is_empty() && self.0.exclude_if_present.is_empty() && !self.0.exclude_caches
    }
}

/// What to back up, before anything is opened.
#[derive(Debug)]
pub enum Prepared {
    Stdin { name: String },
    Command { name: String, line: CommandLine },
    Tree { roots: Vec<PathBuf>, filter: Filter, one_file_system: bool },
}

impl Prepared {
    pub fn into_input(self, reporter: &Reporter) -> Result<Input> {
        Ok(match self {
            Self::Stdin { name } => {
                let descriptor = std::io::stdin().as_fd().try_clone_to_owned();
                let descriptor = descriptor.map_err(|error| Error::file("open", "standard input", error))?;
                Input::Descriptor { name, descriptor }
            }
            Self::Command { name, line } => Input::Command { name, line, stderr: reporter.stderr_sink() },
            Self::Tree { roots, filter, one_file_system } => Input::Tree { roots, filter, one_file_system },
        })
    }
}

fn usage<T>(message: &str) -> Result<T> {
    Err(Error::Usage(message.into()))
}

/// All bytes of a file, or of standard input for `-`.
pub fn read_file(path: &Path) -> Result<Vec<u8>> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).map_err(|error| Error::file("read", "standard input", error))?;
        return Ok(bytes);
    }
    std::fs::read(path).map_err(|error| Error::file("read", path, error))
}

fn paths_in(bytes: &[u8], separator: u8) -> Vec<PathBuf> {
    let lines = bytes.split(|byte| *byte == separator).filter(|line| !line.is_empty());
    lines.map(|line| OsString::from_vec(line.to_vec()).into()).collect()
}

/// A host or user name from the environment must be text.
pub fn text_of(name: &str, value: &OsStr) -> Result<String> {
    value.to_str().map(str::to_owned).ok_or_else(|| Error::Usage(format!("{name} is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str], name: Option<&str>) -> Result<Prepared> {
        let paths = words.iter().map(OsString::from).collect();
        InputArgs { paths, stdin_from_command: true, stdin_filename: name.map(Into::into), ..InputArgs::default() }.prepare()
    }

    #[test]
    fn streams_of_commands_are_called_like_the_program() {
        let Prepared::Command { name, line } = command(&["/usr/bin/pg_dump", "--password=x"], None).unwrap() else { panic!() };
        assert_eq!((name.as_str(), line.args.len()), ("pg_dump", 1));
        let Prepared::Command { name, .. } = command(&["pg_dump"], Some("db.sql")).unwrap() else { panic!() };
        assert_eq!(name, "db.sql");
        assert!(command(&[], None).is_err());
    }

    #[test]
    fn senseless_wishes_are_refused() {
        for args in [
            InputArgs::default(),
            InputArgs { stdin_filename: Some("x".into()), paths: vec!["/x".into()], ..InputArgs::default() },
            InputArgs { stdin: true, exclude_caches: true, ..InputArgs::default() },
            InputArgs { stdin: true, exclude: vec!["x".into()], ..InputArgs::default() },
            InputArgs { exclude: vec!["..".into()], paths: vec!["/x".into()], ..InputArgs::default() },
        ] {
            assert!(matches!(args.prepare(), Err(Error::Usage(_))));
        }
    }

    #[test]
    fn lists_hold_paths_as_they_are() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"/a b\n\n #c\n\xff").unwrap();
        let args = InputArgs { files_from: vec![file.path().into()], ..InputArgs::default() };
        let Prepared::Tree { roots, .. } = args.prepare().unwrap() else { panic!() };
        assert_eq!(roots, [Path::new("/a b"), Path::new(" #c"), Path::new(OsStr::from_bytes(b"\xff"))]);
        assert_eq!(paths_in(b"a\nb\0c\0", 0), [Path::new("a\nb"), Path::new("c")]);
    }
}
