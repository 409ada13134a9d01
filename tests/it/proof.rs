//! What the tests that hurt the real program share: small repositories in folders, the commands that are hurt, and the judge.
//!
//! The judge asks three things of a place after whatever happened to it: all that could be restored before is restored byte for byte,
//! `check --read-data` finds no damage, and the same command run again ends well. What a command promised by ending well is asked, too.
//!
//! A new command that writes joins with one line in [`SUBJECTS`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use snap_backup::backend::Local;
use snap_backup::crypto::Secret;
use snap_backup::error::Error;
use snap_backup::ops::dump::dump;
use snap_backup::progress::Silent;
use snap_backup::repo::{CatalogReader, Opening, Repository, Selection};
use snap_backup::world::World;

use crate::support::*;

/// What went wrong, for people.
pub type Verdict = Result<(), String>;

/// Files that may be secrets of the repository.
const KEYS: [&str; 4] = ["key", "key2", "key3", "key4"];

/// What a place holds before the command is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Empty,
    /// Streams and a folder, and more to save.
    Ready,
    /// The same, after some snapshots were forgotten.
    Forgotten,
    /// The same as ready, with an index segment missing.
    NoSegment,
    /// The same, with a byte of a pack flipped.
    Damaged,
    /// The same, when a repair knows already what is lost.
    KnownDamaged,
}

/// A command whose every call is made to fail.
pub struct Subject {
    pub name: &'static str,
    pub start: Start,
    /// `SLOT` stands for the id of the second key slot.
    pub args: &'static [&'static str],
    /// How the command may end that is run again after an accident: well, or because it had been done already.
    pub again: &'static [i32],
    /// What holds once the command ended with 0.
    pub promise: fn(&Site) -> Verdict,
}

pub const SUBJECTS: &[Subject] = &[
    Subject { name: "init", start: Start::Empty, args: &["init"], again: &[0, 1], promise: Site::opens },
    Subject {
        name: "backup of a stream",
        start: Start::Ready,
        args: &["backup", "--stdin", "--stdin-filename", "db"],
        again: &[0],
        promise: |site| site.has_file(b"db", &site.read("input")),
    },
    Subject {
        name: "backup of a folder",
        start: Start::Ready,
        args: &["backup", "data"],
        again: &[0],
        promise: |site| site.has_file(b"data/new", &site.read("data/new")),
    },
    Subject { name: "forget", start: Start::Ready, args: &["forget", "--keep-last", "1"], again: &[0], promise: |site| site.counts(2) },
    Subject {
        name: "prune",
        start: Start::Forgotten,
        args: &["prune", "--exclusive", "--max-unused", "0%"],
        again: &[0],
        promise: Site::is_sound,
    },
    Subject { name: "tag", start: Start::Ready, args: &["tag", "--add", "t", "latest"], again: &[0], promise: Site::is_tagged },
    Subject {
        name: "key add",
        start: Start::Ready,
        args: &["key", "add", "--new-key-file", "key3"],
        again: &[0, 1, 2],
        promise: |site| site.opens_with("key3"),
    },
    Subject {
        name: "key remove",
        start: Start::Ready,
        args: &["key", "remove", "SLOT"],
        again: &[0, 1],
        promise: |site| site.opens_no_more("key2"),
    },
    Subject {
        name: "key passwd",
        start: Start::Ready,
        args: &["key", "passwd", "--new-key-file", "key4"],
        again: &[0, 2, 12],
        promise: |site| site.opens_with("key4"),
    },
    Subject {
        name: "copy",
        start: Start::Ready,
        args: &["copy", "-r", "c", "--from-repo", "r", "--from-key-file", "key"],
        again: &[0],
        promise: Site::is_copied,
    },
    Subject { name: "repair index", start: Start::NoSegment, args: &["repair", "index"], again: &[0], promise: Site::is_sound },
    Subject {
        name: "repair packs",
        start: Start::Damaged,
        args: &["repair", "packs", "--read-data"],
        again: &[20, 0],
        promise: Site::opens,
    },
    Subject { name: "repair snapshots", start: Start::KnownDamaged, args: &["repair", "snapshots"], again: &[0], promise: Site::opens },
    Subject {
        name: "restore",
        start: Start::Ready,
        args: &["restore", "latest:/data", "-t", "out"],
        again: &[0],
        promise: Site::is_restored,
    },
];

/// What removes things, to be run beside a backup.
pub const REMOVERS: &[&[&str]] = &[&["forget", "--keep-last", "1"], &["prune"]];

/// The files that a snapshot brings back, with their hashes.
pub type Files = BTreeMap<Vec<u8>, blake3::Hash>;

/// A place before anything happened to it, and what it holds.
pub struct Origin {
    folder: tempfile::TempDir,
    pub subject: &'static Subject,
    args: Vec<String>,
    /// What must still be there afterwards, in `r` and in `c`.
    earlier: Vec<Files>,
    earlier_copies: Vec<Files>,
}

impl Origin {
    pub fn new(subject: &'static Subject) -> Self {
        let folder = new_folder();
        let site = Site { path: folder.path().to_path_buf() };
        let slot = site.fill(subject.start);
        let args = subject.args.iter().map(|arg| if *arg == "SLOT" { slot.clone() } else { arg.to_string() }).collect();
        let mut earlier = if subject.start == Start::Empty { Vec::new() } else { site.contents("r").unwrap() };
        let earlier_copies = if subject.start == Start::Empty { Vec::new() } else { site.contents("c").unwrap() };
        if subject.name == "forget" {
            // The first of the stream goes: it is either there or it is not.
            earlier.remove(0);
        }
        Self { folder, subject, args, earlier, earlier_copies }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Snapshots with this file need not be there any more.
    pub fn without(mut self, path: &[u8]) -> Self {
        self.earlier.retain(|files| !files.contains_key(path));
        self
    }

    /// A copy to be hurt.
    pub fn site(&self) -> (tempfile::TempDir, Site) {
        let folder = new_folder();
        copy_below(self.path(), folder.path());
        let path = folder.path().to_path_buf();
        (folder, Site { path })
    }

    /// The command itself.
    pub fn command(&self, site: &Site) -> Command {
        site.snap(&self.args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// What must hold after a run that ended with `code`, or was killed, or lost its power.
    pub fn judge(&self, site: &Site, code: Option<i32>) -> Verdict {
        if code == Some(0) {
            (self.subject.promise)(site).map_err(|why| format!("it ended with 0, but {why}"))?;
        }
        self.judge_earlier(site)?;
        let (code, said) = site.end_of(&mut self.command(site));
        if !code.is_some_and(|code| self.subject.again.contains(&code)) {
            return Err(format!("run again, it ends with {code:?}: {said}"));
        }
        if code == Some(0) {
            (self.subject.promise)(site).map_err(|why| format!("run again it ended with 0, but {why}"))?;
        }
        if matches!(self.subject.start, Start::Damaged | Start::KnownDamaged) {
            for step in [&["repair", "index"][..], &["repair", "packs", "--read-data"], &["repair", "snapshots"]] {
                site.end_of(&mut site.snap(step));
            }
        }
        self.judge_earlier(site)?;
        site.is_sound()
    }

    fn judge_earlier(&self, site: &Site) -> Verdict {
        if self.subject.start == Start::Empty {
            return Ok(());
        }
        for (repository, earlier) in [("r", &self.earlier), ("c", &self.earlier_copies)] {
            let found = site.contents(repository)?;
            for files in earlier {
                let is_there = |found: &Files| files.iter().all(|(path, hash)| found.get(path) == Some(hash));
                if !found.iter().any(is_there) {
                    return Err(format!("of {repository} an earlier snapshot of {} files is lost: {} are there", files.len(), found.len()));
                }
            }
            if self.subject.start == Start::Ready {
                site.is_clean(repository)?;
            }
        }
        Ok(())
    }
}

/// A folder with `r`, a repository, `c`, another, keys, and what is to be saved.
pub struct Site {
    pub path: PathBuf,
}

impl Site {
    pub fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.at(name)).unwrap_or_default()
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        fs::write(self.at(name), bytes).unwrap();
    }

    /// `snap` at this place, with the first of the keys.
    pub fn snap(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_snap"));
        command.args(args).current_dir(&self.path).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", &self.path);
        command.env("SNAP_REPOSITORY", "r").env("SNAP_KEY_FILE", "key").env("SNAP_HOST", "h").env("TMPDIR", &self.path);
        command
    }

    /// Runs a command that is left alone; `input`, if there is one, is its standard input.
    pub fn end_of(&self, command: &mut Command) -> (Option<i32>, String) {
        let input = fs::File::open(self.at("input")).map_or(Stdio::null(), Stdio::from);
        let output = command.stdin(input).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    pub fn well(&self, args: &[&str]) {
        let (code, said) = self.end_of(&mut self.snap(args));
        assert_eq!(code, Some(0), "{args:?}: {said}");
    }

    /// Makes what a place begins with; returns the id of the second key slot.
    fn fill(&self, start: Start) -> String {
        self.write("input", &lines(1, 20_000));
        if start == Start::Empty {
            return String::new();
        }
        for repository in ["r", "c"] {
            self.well(&["init", "-r", repository]);
        }
        let first = fs::read_dir(self.at("r/keys")).unwrap().map(|entry| entry.unwrap().file_name()).collect::<BTreeSet<_>>();
        self.well(&["key", "add", "--new-key-file", "key2"]);
        let mut slots = fs::read_dir(self.at("r/keys")).unwrap().map(|entry| entry.unwrap().file_name());
        let slot = slots.find(|name| name.len() == first.iter().next().unwrap().len() && !first.contains(name)).unwrap();
        let stream = [lines(1, 60_000), noise(1, 40_000)].concat();
        self.write("input", &stream);
        self.well(&["backup", "--stdin", "--stdin-filename", "db", "--time", "2026-01-01T00:00:00Z"]);
        self.well(&["copy", "-r", "c", "--from-repo", "r", "--from-key-file", "key"]);
        self.write("input", &[&stream[..30_000], b"another line\n", &stream[30_000..]].concat());
        self.well(&["backup", "--stdin", "--stdin-filename", "db", "--time", "2026-01-02T00:00:00Z"]);
        for (name, bytes) in [("a", noise(3, 9_000)), ("b", b"small".to_vec()), ("sub/c", stream[..20_000].to_vec()), ("e", Vec::new())] {
            self.write(&format!("data/{name}"), &bytes);
        }
        self.well(&["backup", "data", "--time", "2026-01-03T00:00:00Z"]);
        self.write("data/new", &noise(4, 30_000));
        self.write("input", &[&stream[..50_000], &noise(5, 30_000)[..], &stream[50_000..]].concat());
        let files = |folder: &str| {
            let mut found = Vec::new();
            files_below(&self.at(folder), &mut found);
            found.sort_by_key(|path| fs::metadata(path).unwrap().len());
            found
        };
        match start {
            Start::Forgotten => self.well(&["forget", "--keep-last", "1"]),
            Start::NoSegment => fs::remove_file(files("r/index").last().unwrap()).unwrap(),
            Start::Damaged | Start::KnownDamaged => {
                let largest = files("r/packs").pop().unwrap();
                let mut bytes = fs::read(&largest).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(&largest, bytes).unwrap();
                if start == Start::KnownDamaged {
                    let (code, said) = self.end_of(&mut self.snap(&["repair", "packs", "--read-data"]));
                    assert_eq!(code, Some(20), "{said}");
                }
            }
            _ => {}
        }
        slot.into_string().unwrap()
    }

    /// Opens a repository with any of the keys that are there.
    pub fn open(&self, repository: &str) -> Result<Repository, String> {
        let mut said = String::from("there is no key");
        for key in KEYS.iter().filter(|key| self.at(key).exists()) {
            match self.open_with(repository, key) {
                Ok(repository) => return Ok(repository),
                Err(error) => said = error.to_string(),
            }
        }
        Err(format!("{repository} does not open: {said}"))
    }

    fn open_with(&self, repository: &str, key: &str) -> snap_backup::error::Result<Repository> {
        let secret = Secret::KeyFile(self.read(key).trim_ascii_end().to_vec());
        let store = Arc::new(Local::new(self.at(repository)));
        Repository::open(store, Opening { secret, cache: None, world: World::system() })
    }

    /// What each snapshot that is listed brings back; files that cannot be read are left out. An error of any other kind is one.
    pub fn contents(&self, repository: &str) -> Result<Vec<Files>, String> {
        let repository = self.open(repository)?;
        let (found, unreadable) = repository.snapshots().map_err(|error| error.to_string())?;
        if !unreadable.is_empty() {
            return Err(format!("unreadable snapshots: {unreadable:?}"));
        }
        let mut all = Vec::new();
        for stored in found {
            let mut files = Files::new();
            let catalog = CatalogReader::open(&repository, &stored.snapshot).map_err(|error| error.to_string())?;
            for entry in catalog.filter_map(|entry| entry.ok()) {
                let selection = Selection { stored: stored.clone(), path: entry.path.clone() };
                let mut bytes = Vec::new();
                if entry.node.letter() == '-' && dump(&repository, &selection, &mut bytes, &Silent).is_ok() {
                    files.insert(entry.path, blake3::hash(&bytes));
                }
            }
            all.push(files);
        }
        Ok(all)
    }

    pub fn opens(&self) -> Verdict {
        self.open("r").map(drop)
    }

    fn opens_with(&self, key: &str) -> Verdict {
        self.open_with("r", key).map(drop).map_err(|error| format!("{key} does not open: {error}"))
    }

    fn opens_no_more(&self, key: &str) -> Verdict {
        match self.open_with("r", key) {
            Err(Error::WrongKey) => Ok(()),
            _ => Err(format!("{key} opens still")),
        }
    }

    pub fn has_file(&self, path: &[u8], bytes: &[u8]) -> Verdict {
        let hash = blake3::hash(bytes);
        let there = self.contents("r")?.iter().any(|files| files.get(path) == Some(&hash));
        there.then_some(()).ok_or_else(|| format!("no snapshot has {}", path.escape_ascii()))
    }

    fn counts(&self, count: usize) -> Verdict {
        let found = self.contents("r")?.len();
        (found == count).then_some(()).ok_or_else(|| format!("there are {found} snapshots"))
    }

    fn is_tagged(&self) -> Verdict {
        let (found, _) = self.open("r")?.snapshots().map_err(|error| error.to_string())?;
        let tagged = found.iter().filter(|stored| stored.snapshot.tags.iter().any(|tag| tag == "t")).count();
        (tagged == 1 && found.len() >= 3).then_some(()).ok_or_else(|| format!("{tagged} of {} snapshots have the tag", found.len()))
    }

    fn is_copied(&self) -> Verdict {
        let (from, to) = (self.contents("r")?, self.contents("c")?);
        let missing = from.iter().filter(|files| !to.contains(files)).count();
        (missing == 0).then_some(()).ok_or_else(|| format!("{missing} snapshots were not copied"))
    }

    fn is_restored(&self) -> Verdict {
        // What was added to the folder after the backup is not in it.
        let wrong: Vec<&str> = ["a", "b", "sub/c", "e"]
            .into_iter()
            .filter(|name| !self.at("out").join(name).exists() || self.read(&format!("out/{name}")) != self.read(&format!("data/{name}")))
            .collect();
        wrong.is_empty().then_some(()).ok_or_else(|| format!("{wrong:?} are not as they were"))
    }

    /// What has its name in the folder that is restored to is whole.
    pub fn is_restored_in_part(&self) -> Verdict {
        let wrong: Vec<&str> = ["a", "b", "sub/c", "e"]
            .into_iter()
            .filter(|name| self.at("out").join(name).exists() && self.read(&format!("out/{name}")) != self.read(&format!("data/{name}")))
            .collect();
        wrong.is_empty().then_some(()).ok_or_else(|| format!("{wrong:?} are half there"))
    }

    fn is_clean(&self, repository: &str) -> Verdict {
        let report = check_all(&self.open(repository)?).map_err(|error| format!("check: {error}"))?;
        let clean = report.findings.is_empty() && report.affected.is_empty();
        clean.then_some(()).ok_or_else(|| format!("check of {repository}: {:?} {:?}", report.findings, report.affected))
    }

    /// No damage in either repository.
    pub fn is_sound(&self) -> Verdict {
        for repository in ["r", "c"].iter().filter(|name| self.at(name).exists()) {
            self.is_clean(repository)?;
        }
        Ok(())
    }
}

/// In memory where that is to be had: nothing here depends on the disk.
pub fn new_folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = tempfile::Builder::new().prefix("snap-proof").tempdir_in(memory);
    let made = made.or_else(|_| tempfile::Builder::new().prefix("snap-proof").tempdir());
    made.unwrap()
}

pub fn copy_below(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_below(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

pub fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// A judge who finds nothing wrong with anything would be no use.
#[test]
fn the_judge_notices_what_is_lost_or_broken() {
    let origin = Origin::new(&SUBJECTS[1]);
    type Hurt = fn(&[u8]) -> Option<Vec<u8>>;
    let hurts: [(&str, Hurt); 3] =
        [("r/packs", |_| None), ("r/snapshots", |_| None), ("c/packs", |bytes| Some(bytes[..bytes.len() - 1].to_vec()))];
    for (folder, hurt) in hurts {
        let (_folder, site) = origin.site();
        let mut found = Vec::new();
        files_below(&site.at(folder), &mut found);
        for file in found {
            match hurt(&fs::read(&file).unwrap()) {
                None => fs::remove_file(&file).unwrap(),
                Some(bytes) => fs::write(&file, bytes).unwrap(),
            }
        }
        assert!(origin.judge(&site, None).is_err(), "{folder}");
    }
    let (_folder, site) = origin.site();
    assert!(origin.judge(&site, Some(0)).is_err_and(|why| why.contains("it ended with 0")), "nothing was saved");
}
