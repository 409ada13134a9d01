//! Many processes on one repository at once, and one that sleeps while others remove things: whatever was reported saved restores.
//!
//! `CROWD_SECONDS` is how long the crowd works; by default a few seconds.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::damage::all;
use crate::proof::*;
use crate::support::*;
use crate::sweep::watched;
use crate::trace::{self, Call, Order};

const PROCESSES: u64 = 8;
/// Calls of a backup at which it falls asleep by default.
const SLEEPS: u64 = 8;

/// Ran again because another process was in the way: the code that says so.
const BUSY: i32 = 11;

/// What one worker saved, by the id that was reported.
struct Worker<'s> {
    site: &'s Site,
    number: u64,
    rng: Rng,
    saved: BTreeMap<String, u64>,
    done: &'s AtomicU64,
}

impl Worker<'_> {
    fn name(&self) -> String {
        format!("w{}", self.number)
    }

    /// What all save at some time, with a few lines of their own.
    fn bytes(seed: u64) -> Vec<u8> {
        let mut bytes = lines(seed % 7, 60_000);
        bytes.splice(20_000..20_000, lines(seed, 3_000));
        bytes
    }

    fn run(&mut self, args: &[&str]) -> std::process::Output {
        let output = self.site.snap(args).stdin(std::process::Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let code = output.status.code();
        let result = String::from_utf8_lossy(&output.stdout);
        assert!(matches!(code, Some(0 | BUSY)), "{args:?} ended with {code:?}: {said}{result:.2000}");
        self.done.fetch_add(1, Ordering::Relaxed);
        output
    }

    fn step(&mut self) {
        match self.rng.below(10) {
            0..4 => self.save(),
            4..7 => self.read_back(),
            7 => drop(self.run(&["check", "--read-data"])),
            8 => self.forget(),
            _ => {
                let args = REMOVERS[self.rng.below(REMOVERS.len() as u64) as usize];
                // Only snapshots of nobody: others must find theirs.
                let args = if args[0] == "forget" { [args, &["--name", "nobody"]].concat() } else { args.to_vec() };
                self.run(&args);
            }
        }
    }

    fn save(&mut self) {
        let seed = self.rng.below(1 << 40);
        let input = format!("in{}", self.number);
        std::fs::write(self.site.at(&input), Self::bytes(seed)).unwrap();
        let name = self.name();
        let path = self.site.at(&input);
        let args = ["backup", "--json", "--stdin-from-command", "--stdin-filename", &name, "--", "/bin/cat", path.to_str().unwrap()];
        let output = self.run(&args);
        if output.status.code() == Some(0) {
            let said = String::from_utf8(output.stdout).unwrap();
            let summary: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
            self.saved.insert(summary["snapshot_id"].as_str().unwrap().to_owned(), seed);
        }
    }

    fn read_back(&mut self) {
        let Some((id, seed)) = self.saved.iter().nth(self.rng.below(self.saved.len() as u64) as usize) else { return };
        let (id, seed) = (id.clone(), *seed);
        let output = self.run(&["dump", &id]);
        assert!(output.stdout == Self::bytes(seed), "snapshot {id} is not what was saved");
    }

    /// Removes one of its own.
    fn forget(&mut self) {
        if let Some(id) = self.saved.keys().next().cloned().filter(|_| self.saved.len() > 2)
            && self.run(&["forget", &id]).status.code() == Some(0)
        {
            self.saved.remove(&id);
        }
    }
}

#[test]
fn many_processes_on_one_repository() {
    let seconds = std::env::var("CROWD_SECONDS").map_or(4, |text| text.parse().expect("CROWD_SECONDS is a number"));
    let origin = Origin::new(&SUBJECTS[1]);
    let (_folder, site) = origin.site();
    let (seed, begun, done) = (seed("crowd"), Instant::now(), AtomicU64::new(0));
    let mut workers: Vec<Worker> = (0..PROCESSES)
        .map(|number| Worker { site: &site, number, rng: Rng::new(seed + number), saved: BTreeMap::new(), done: &done })
        .collect();
    std::thread::scope(|scope| {
        for worker in &mut workers {
            scope.spawn(|| {
                worker.save();
                while begun.elapsed() < Duration::from_secs(seconds) {
                    worker.step();
                }
            });
        }
    });
    let mut snapshots = 0;
    for worker in &mut workers {
        for (id, seed) in worker.saved.clone() {
            assert!(worker.run(&["dump", &id]).stdout == Worker::bytes(seed), "snapshot {id} is not what was saved");
            snapshots += 1;
        }
    }
    origin.judge(&site, None).unwrap();
    println!("{PROCESSES} processes, {} runs, {snapshots} snapshots whole at the end", done.into_inner());
}

/// A backup falls asleep at a call, others save and remove things meanwhile, and it wakes up.
fn asleep_at(origin: &Origin, number: u64) -> Verdict {
    let (_folder, site) = origin.site();
    let mut seen = 0;
    let mut trouble = Vec::new();
    let ran = watched(origin, &site, &mut |call: &Call| {
        if call.what.changes() {
            if seen == number {
                let save: &[&str] = &["backup", "--stdin", "--stdin-filename", "other"];
                for args in [save].iter().chain(REMOVERS) {
                    let (code, said) = site.end_of(&mut site.snap(args));
                    if code != Some(0) {
                        trouble.push(format!("beside it {args:?} ended with {code:?}: {said}"));
                    }
                }
            }
            seen += 1;
        }
        Order::Go
    });
    if let Some(trouble) = trouble.pop() {
        return Err(trouble);
    }
    if !matches!(ran.code, Some(0 | BUSY)) {
        return Err(format!("it ended with {ran:?}"));
    }
    if seen > number {
        site.has_file(b"other", &site.read("input"))?;
    }
    if !site.contents("r")?.iter().any(|files| files.contains_key(&b"db"[..])) {
        return Err("no snapshot of the stream is left".into());
    }
    origin.judge(&site, ran.code)
}

fn asleep(stride: Option<u64>) {
    if !trace::is_possible("asleep") {
        return;
    }
    let first = seed("asleep");
    for subject in SUBJECTS.iter().filter(|subject| subject.name.starts_with("backup")) {
        // The newest of them stays: that, or the one which is being saved.
        let origin = Origin::new(subject).without(b"db");
        let mut calls = 0;
        let (_folder, site) = origin.site();
        watched(&origin, &site, &mut |call: &Call| {
            calls += u64::from(call.what.changes());
            Order::Go
        });
        let stride = stride.unwrap_or(calls.div_ceil(SLEEPS));
        let numbers: Vec<u64> = (first % stride..calls).step_by(stride as usize).collect();
        println!("{}: {calls} calls, asleep at {}", subject.name, numbers.len());
        all(&numbers, |number| asleep_at(&origin, *number));
    }
}

#[test]
fn a_backup_sleeps_while_others_save_and_remove() {
    asleep(None);
}

#[test]
#[ignore = "takes minutes: asleep at every call"]
fn a_backup_sleeps_at_every_call() {
    asleep(Some(1));
}
