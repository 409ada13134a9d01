//! The sources of a job as members of one snapshot.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Course;
use super::hooks::{self, command_line};
use super::said::Said;
use super::secrets::setting;
use super::tables::Opening;
use crate::config::{Source, What, sqlite_copy};
use crate::error::{Error, Result};
use crate::ops::backup::{Member, MemberInput};
use crate::source::{Filter, FilterRules, Patience, Setting};

/// A source as the backup wants it.
pub(super) fn member(source: &Source, course: &mut Course) -> Result<Member> {
    let stall = course.job.stall_timeout;
    let (name, input) = match &source.what {
        What::Command(command) => {
            let said = course.listen_closely(&command.name);
            let setting = setting(command, course.patience(stall), course.options, &said);
            let line = command_line(&command.line)?;
            (command.name.clone(), MemberInput::Command { line, setting, stderr: said.sink() })
        }
        What::Tables(tables) => {
            let said = course.listen_closely(&tables.name);
            let opening = Opening {
                tables: tables.clone(),
                patience: course.patience(stall),
                secrets: course.options.secrets.clone(),
                said: said.clone(),
                interrupted: course.options.interrupted.clone(),
            };
            let input = MemberInput::Streams {
                open: Box::new(move || opening.open()),
                at_once: tables.at_once,
                stderr: Box::new(move || said.sink()),
            };
            (tables.name.clone(), input)
        }
        What::Sqlite { name, database } => {
            let said = course.listen(name);
            let copy = Copy {
                name: name.clone(),
                database: database.clone(),
                scratch: course.repository.world().scratch().unwrap_or(Path::new("/var/tmp")).to_path_buf(),
                number: course.repository.world().random(),
                patience: course.patience(stall),
                interrupted: course.options.interrupted.clone(),
                said,
            };
            (name.clone(), MemberInput::Reader(Box::new(move || copy.make())))
        }
        What::Files { paths, exclude, one_file_system, .. } => {
            let filter = Filter::new(&FilterRules { excludes: exclude.clone(), ..FilterRules::default() })?;
            (String::new(), MemberInput::Tree { roots: paths.clone(), filter, one_file_system: *one_file_system })
        }
    };
    Ok(Member { name, input, expect: source.expect.clone() })
}

/// A consistent copy of a database of SQLite, made by SQLite itself while others may write to it.
struct Copy {
    name: String,
    database: PathBuf,
    scratch: PathBuf,
    number: [u8; 8],
    patience: Patience,
    interrupted: Arc<std::sync::atomic::AtomicBool>,
    said: Arc<Said>,
}

impl Copy {
    fn make(self) -> Result<Box<dyn Read + Send>> {
        // Else SQLite would make an empty one.
        File::open(&self.database).map_err(|error| Error::file("open", &self.database, error))?;
        let number: String = self.number.iter().map(|byte| format!("{byte:02x}")).collect();
        let folder = self.scratch.join(format!("snap-sqlite-{number}"));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&folder);
        made.map_err(|error| Error::file("make", &folder, error))?;
        let copy = folder.join("copy");
        let opened = self.copy_to(&copy).and_then(|()| File::open(&copy).map_err(|error| Error::file("open", &copy, error)));
        // The open file stays; what cannot be removed is only a leftover.
        let _ = std::fs::remove_dir_all(&folder);
        Ok(Box::new(opened?))
    }

    fn copy_to(&self, copy: &Path) -> Result<()> {
        let line = sqlite_copy(&self.database, copy);
        let setting = Setting { patience: self.patience, ..Setting::default() };
        hooks::run(&self.name, &line, setting, self.said.sink(), &self.interrupted)
    }
}
