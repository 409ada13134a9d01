//! Drill: restore a snapshot into a place made for it, ask it questions, take the time, and take the place away again.
//!
//! Whatever happens, the place is taken down and the account of it is complete: a drill that fails is evidence, too. Programs see no
//! variables that lead to a server in production.

mod place;
mod program;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use crate::config::{self, Answer, Ask};
use crate::dumps::unpacking;
use crate::error::{Error, Result, show_bytes};
use crate::format::dump::Dump;
use crate::format::entry::{Entry, Node};
use crate::format::report::{Drill, DrillCheck, DrilledContent, Step};
use crate::limits::*;
use crate::ops::browse;
use crate::ops::dump::{self, DumpReport};
use crate::ops::restore::{RestoreOptions, just_these, restore};
use crate::ops::streams::{Whole, wholes};
use crate::progress::Progress;
use crate::repo::{Repository, Selection, Stored};
use crate::wording::count;
use place::Place;
use program::{Counted, Surroundings};

/// What is tried out.
pub struct Subject<'a> {
    pub job: &'a str,
    pub stored: &'a Stored,
    pub plan: &'a config::Drill,
    /// Names of streams among what the snapshot holds; all others are files.
    pub streams: &'a [String],
    /// Seconds that the restore may take.
    pub seconds_allowed: Option<f64>,
    /// An empty folder of this user alone.
    pub folder: &'a Path,
    pub interrupted: Arc<AtomicBool>,
}

/// How a drill ended.
#[derive(Debug)]
pub enum Ending {
    Passed,
    /// The data came back, and are not as they should be, or too late.
    Missed(String),
    Failed(Error),
}

/// Tries out a restore.
pub fn drill(repository: &Repository, subject: &Subject, progress: &dyn Progress) -> (Drill, Ending) {
    let account = Drill {
        job: subject.job.into(),
        snapshot: Some(subject.stored.id),
        snapshot_time: Some(subject.stored.snapshot.time),
        seconds_allowed: subject.seconds_allowed,
        ..Drill::default()
    };
    let surroundings = Surroundings { folder: subject.folder, variables: Vec::new(), interrupted: subject.interrupted.clone() };
    let mut run = Run { repository, subject, progress, surroundings, account, begun: Instant::now() };
    let ending = match run.all() {
        Err(error) => Ending::Failed(error),
        Ok(()) => run.judge(),
    };
    (run.account, ending)
}

/// A dump, and where it is loaded.
type Load<'p> = (&'p Whole, &'p Place);

/// A drill under way.
struct Run<'a> {
    repository: &'a Repository,
    subject: &'a Subject<'a>,
    progress: &'a dyn Progress,
    surroundings: Surroundings<'a>,
    account: Drill,
    begun: Instant,
}

impl Run<'_> {
    fn all(&mut self) -> Result<()> {
        let (streams, files) = browse::contents(self.repository, self.subject.stored, self.subject.streams)?;
        let wholes = wholes(&self.subject.stored.snapshot, &streams);
        let formats: Vec<&str> = wholes.iter().map(|whole| whole.dump.as_ref().map_or("", |dump| dump.format.as_str())).collect();
        let (places, belongs) = Place::all(self.subject.plan, &formats)?;
        let loads: Vec<Load> = wholes.iter().zip(belongs).map(|(whole, at)| (whole, &places[at])).collect();
        let folder = self.subject.folder.to_string_lossy().into_owned();
        self.surroundings.set("SNAP_DRILL", folder);
        let mut outcome = Ok(());
        for place in &places {
            outcome = outcome.and_then(|()| self.make(place));
        }
        let outcome = outcome.and_then(|()| self.fill_and_ask(&places[0], &loads, files, &streams));
        // Whatever happened, also an interrupt: no server is to be left behind.
        self.surroundings.interrupted = Arc::default();
        let mut cleared = Ok(());
        for (at, place) in places.iter().enumerate().rev() {
            let Some(down) = place.down() else { continue };
            let name = if at == 0 { "down".to_owned() } else { format!("down ({})", place.name) };
            cleared = cleared.and(self.step(&name, |run| run.surroundings.run(&down).map(drop)));
        }
        outcome.and(cleared)
    }

    fn make(&mut self, place: &Place) -> Result<()> {
        let Some(up) = place.up() else { return Ok(()) };
        self.step(&format!("up ({})", place.name), |run| {
            let said = run.surroundings.run(&up)?;
            run.surroundings.adopt(&said);
            Ok(())
        })
    }

    fn fill_and_ask(&mut self, main: &Place, loads: &[Load], files: bool, streams: &[Vec<u8>]) -> Result<()> {
        for (Whole { path, dump }, place) in loads {
            self.step(&format!("load {}", show_bytes(path)), |run| run.load(place, path, dump.as_ref()))?;
        }
        if files {
            self.step("restore files", |run| run.restore_files(streams))?;
        }
        self.account.seconds_to_ready = self.begun.elapsed().as_secs_f64();
        self.step("checks", |run| run.ask_all(main, loads))
    }

    /// Does something, and notes how long it took and how it went.
    fn step(&mut self, name: &str, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let begun = Instant::now();
        let outcome = work(self);
        let error = outcome.as_ref().err().map(with_tail);
        self.account.steps.push(Step { name: name.into(), seconds: begun.elapsed().as_secs_f64(), error });
        outcome
    }

    fn everything(&self) -> Selection {
        Selection { stored: self.subject.stored.clone(), path: Vec::new() }
    }

    fn load(&mut self, place: &Place, path: &[u8], dump_of: Option<&Dump>) -> Result<()> {
        let selection = Selection { stored: self.subject.stored.clone(), path: path.to_vec() };
        let name = show_bytes(path);
        let (begun, mut first) = (self.begun, None);
        let mut note = || first = Some(begun.elapsed().as_secs_f64());
        let report = match place.load() {
            Some(line) => {
                self.surroundings.set("SNAP_STREAM", &name);
                self.surroundings.set("SNAP_FORMAT", dump_of.map_or("", |dump| &dump.format));
                self.surroundings.set("SNAP_UNPACK", dump_of.and_then(unpacking).unwrap_or("cat"));
                let found = dump::find(self.repository, &selection)?;
                let (report, said) = self.surroundings.feed(&line, found.size(), |stdin| {
                    let mut counted = Counted { inner: stdin, first: &mut note, bytes: 0 };
                    dump::write(self.repository, &found, &mut counted, self.progress)
                })?;
                self.surroundings.adopt(&said);
                report
            }
            None => {
                let target = self.subject.folder.join("streams");
                fs::create_dir_all(&target).map_err(|error| Error::file("make", &target, error))?;
                let target = target.join(name.replace('/', "_"));
                let mut file = fs::File::create_new(&target).map_err(|error| Error::file("create", &target, error))?;
                let mut counted = Counted { inner: &mut file, first: &mut note, bytes: 0 };
                dump::dump(self.repository, &selection, &mut counted, self.progress)?
            }
        };
        self.note_first(first);
        self.took(&name, &report);
        Ok(())
    }

    fn took(&mut self, name: &str, report: &DumpReport) {
        self.account.bytes += report.bytes;
        self.account.contents.push(DrilledContent { path: name.into(), bytes: report.bytes, hash: report.hash.to_string() });
    }

    fn note_first(&mut self, seconds: Option<f64>) {
        if self.account.contents.is_empty() {
            self.account.seconds_to_first_byte = seconds.unwrap_or(0.0);
        }
    }

    fn restore_files(&mut self, streams: &[Vec<u8>]) -> Result<()> {
        let target = self.subject.folder.join("files");
        let options = RestoreOptions { exclude: just_these(streams), ..RestoreOptions::default() };
        let report = restore(self.repository, &self.everything(), &target, &options, self.progress)?;
        self.note_first(Some(self.begun.elapsed().as_secs_f64()));
        if report.damaged > 0 {
            return Err(Error::damaged("the snapshot", format!("{} of its files could not be restored", report.damaged)));
        }
        if report.problems > 0 {
            return Err(Error::Conflict(format!("{} paths could not be restored to {}", report.problems, target.display())));
        }
        self.account.bytes += report.bytes_total;
        let content = DrilledContent { path: "files".into(), bytes: report.bytes_total, hash: self.hash_of_files(streams)? };
        self.account.contents.push(content);
        self.surroundings.set("SNAP_FILES", target.to_string_lossy());
        Ok(())
    }

    /// BLAKE3 of a line `HASH  PATH` for every file in path order: what `b3sum` prints for them, hashed.
    fn hash_of_files(&self, streams: &[Vec<u8>]) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        browse::list(self.repository, &self.everything(), true, &mut |entry: &Entry| {
            if let Node::File { content: Some(content) } = &entry.node
                && !streams.contains(&entry.path)
            {
                hasher.update(format!("{}  {}\n", content.hash, show_bytes(&entry.path)).as_bytes());
            }
            Ok(())
        })?;
        Ok(hasher.finalize().to_hex().to_string())
    }

    fn ask_all(&mut self, main: &Place, loads: &[Load]) -> Result<()> {
        for (whole, place) in loads {
            let dump = whole.dump.as_ref().filter(|dump| !dump.tables.is_empty());
            if let (Some(dump), Some(line)) = (dump, place.count()) {
                let check = self.compare(&line, dump)?;
                self.account.checks.push(check);
            }
        }
        for check in &self.subject.plan.checks {
            let answered = self.ask(main, check)?;
            self.account.checks.push(answered);
        }
        Ok(())
    }

    /// Compares rows with what was counted when the dump was saved.
    fn compare(&mut self, line: &[String], dump: &Dump) -> Result<DrillCheck> {
        let tables = &dump.tables[..dump.tables.len().min(DRILL_TABLES_MAX)];
        let names: String = tables.iter().map(|table| format!("{}\n", table.name.replace('\n', " "))).collect();
        self.surroundings.set("SNAP_STREAM", &dump.path);
        self.surroundings.set("SNAP_FORMAT", &dump.format);
        let ((), said) = self.surroundings.feed(line, names.len() as u64, |stdin| {
            use std::io::Write;
            stdin.write_all(names.as_bytes()).map_err(|_| Error::OutputClosed)
        })?;
        let answers: Vec<&str> = said.lines().map(str::trim).collect();
        // Keys of Redis may have expired since: then there are fewer.
        let fits = |answer: &str, rows: Option<u64>| match (answer.parse::<u64>(), rows) {
            (Err(_), _) => false,
            (Ok(_), None) => true,
            (Ok(count), Some(rows)) => count == rows || dump.format == "redis" && count < rows,
        };
        let mut wrong: Vec<String> = Vec::new();
        for (at, table) in tables.iter().enumerate() {
            let answer = answers.get(at).copied().unwrap_or("-");
            if !fits(answer, table.rows) {
                wrong.push(match (table.rows, answer) {
                    (_, "-") => format!("{} is missing", table.name),
                    (Some(rows), answer) => format!("{} has {answer} rows and not {rows}", table.name),
                    (None, answer) => format!("{} says {answer}", table.name),
                });
            }
        }
        let rows: u64 = answers.iter().filter_map(|answer| answer.parse::<u64>().ok()).sum();
        let expected_rows = dump.rows.map_or(String::new(), |rows| format!(" with {}", count(rows, "row")));
        let left = wrong.len().saturating_sub(5);
        let (passed, mut answer) = (wrong.is_empty(), format!("{} with {}", count(answers.len() as u64, "table"), count(rows, "row")));
        wrong.truncate(5);
        if !passed {
            answer = format!("{answer}: {}{}", wrong.join(", "), if left > 0 { format!(", and {left} more") } else { String::new() });
        }
        Ok(DrillCheck {
            name: format!("tables of {}", dump.path),
            asked: "rows of each table, against those counted at backup".into(),
            expected: format!("{}{expected_rows}", count(tables.len() as u64, "table")),
            answer,
            passed,
        })
    }

    fn ask(&mut self, place: &Place, check: &config::DrillCheck) -> Result<DrillCheck> {
        let line = place.ask(&check.ask)?;
        let asked = match &check.ask {
            Ask::Sql(text) => text.clone(),
            Ask::Command(line) => line.join(" "),
        };
        self.surroundings.set("SNAP_ASK", &asked);
        let (answer, succeeded) = match self.surroundings.run(&line) {
            Ok(said) => (said.trim().to_owned(), true),
            Err(error @ Error::Receiver { .. }) => (with_tail(&error), false),
            Err(error) => return Err(error),
        };
        let passed = succeeded && fits(&check.answer, &answer);
        Ok(DrillCheck { name: check.name.clone(), asked, expected: describe(&check.answer), answer, passed })
    }

    fn judge(&self) -> Ending {
        let failed: Vec<&str> = self.account.checks.iter().filter(|check| !check.passed).map(|check| check.name.as_str()).collect();
        if !failed.is_empty() {
            return Ending::Missed(format!("The restored data do not pass: {}", failed.join(", ")));
        }
        match self.subject.seconds_allowed {
            Some(allowed) if self.account.seconds_to_ready > allowed => {
                let seconds = self.account.seconds_to_ready;
                Ending::Missed(format!("The data were back after {seconds:.1} seconds, and {allowed:.1} are allowed"))
            }
            _ => Ending::Passed,
        }
    }
}

fn fits(expected: &Answer, answer: &str) -> bool {
    match expected {
        Answer::Success => true,
        Answer::Text(text) => text.trim() == answer,
        Answer::Number { min, max } => answer
            .parse::<f64>()
            .is_ok_and(|number| number.is_finite() && min.is_none_or(|min| number >= min) && max.is_none_or(|max| number <= max)),
    }
}

fn describe(expected: &Answer) -> String {
    match expected {
        Answer::Success => "success".into(),
        Answer::Text(text) => text.clone(),
        Answer::Number { min: Some(min), max: Some(max) } if min == max => min.to_string(),
        Answer::Number { min: Some(min), max: Some(max) } => format!("{min} to {max}"),
        Answer::Number { min: Some(min), max: None } => format!("at least {min}"),
        Answer::Number { min: None, max: Some(max) } => format!("at most {max}"),
        Answer::Number { min: None, max: None } => "a number".into(),
    }
}

/// An error with the last of what a command said about it.
fn with_tail(error: &Error) -> String {
    match error {
        Error::Receiver { program, outcome, stderr_tail } => {
            let said = String::from_utf8_lossy(stderr_tail);
            let last: Vec<&str> = said.trim().lines().rev().take(3).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            if last.is_empty() { format!("{program} {outcome}") } else { format!("{program} {outcome}: {}", last.join("; ")) }
        }
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_compared_as_they_were_meant() {
        let number = |min, max| Answer::Number { min, max };
        for (expected, answer, passes) in [
            (Answer::Success, "whatever", true),
            (Answer::Text("7\n".into()), "7", true),
            (Answer::Text("7".into()), "7.0", false),
            (number(Some(5.0), None), "7", true),
            (number(Some(5.0), Some(6.0)), "7", false),
            (number(None, Some(7.0)), "7", true),
            (number(None, None), "NaN", false),
            (number(None, None), "", false),
        ] {
            assert_eq!(fits(&expected, answer), passes, "{expected:?} {answer}");
        }
        assert_eq!(describe(&number(Some(5.0), Some(5.0))), "5");
    }
}
