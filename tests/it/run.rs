//! Jobs: several sources in one snapshot or none, and a report whatever happens. The commands are real ones.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use snap_backup::backend::{Area, Fault, Faulty, Operation};
use snap_backup::config::{Config, Job, Overlap, SecretFrom, Source, StreamCommand, Verify, What, parse};
use snap_backup::error::{Error, Result};
use snap_backup::format::report::{Did, Outcome, Report, Run};
use snap_backup::format::snapshot::{Snapshot, SourceKind};
use snap_backup::ops::browse;
use snap_backup::ops::restore::RestoreOptions;
use snap_backup::ops::run::{Observer, Ran, RunOptions, run};
use snap_backup::progress::{Progress, Silent};
use snap_backup::repo::Repository;
use zeroize::Zeroizing;

use crate::support::*;

/// A repository in memory, and folders for state and files.
struct Night {
    bench: Bench,
    place: tempfile::TempDir,
}

impl Night {
    fn new(seed: u64) -> Self {
        Self { bench: Bench::in_memory(seed).0, place: tempfile::tempdir().unwrap() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.place.path().canonicalize().unwrap().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        fs::write(self.at(name), bytes).unwrap();
        self.at(name)
    }

    /// The job `nightly` of a configuration; HERE is this test's folder.
    fn job(&self, text: &str) -> Job {
        let text = text.replace("HERE", self.at("").to_str().unwrap().trim_end_matches('/'));
        let parsed = parse(text.as_bytes(), &self.at("snap.toml"));
        let errors: Vec<_> = parsed.errors().collect();
        assert!(errors.is_empty(), "{errors:?}");
        let Config { mut jobs, .. } = parsed.config;
        jobs.remove("nightly").unwrap()
    }

    fn options(&self) -> RunOptions {
        RunOptions {
            host: "host".into(),
            user: "user".into(),
            state: Some(self.at("state")),
            zone: jiff::tz::TimeZone::UTC,
            level: Default::default(),
            secrets: Arc::new(|from: &SecretFrom| Err(Error::NotFound(format!("no secret {from:?}")))),
            tell: |error| {
                let code = match error {
                    error if error.is_damage() => 20,
                    Error::Usage(_) => 2,
                    Error::Command { .. } => 4,
                    Error::Conflict(_) => 11,
                    Error::Interrupted => 130,
                    _ => 1,
                };
                (code, error.to_string())
            },
            hook_time: Duration::from_secs(60),
            interrupted: Arc::default(),
        }
    }

    fn run(&self, job: &Job) -> Ran {
        self.run_with(job, &self.options())
    }

    /// Runs a job, and checks what is always so: the report is there, and says what was returned.
    fn run_with(&self, job: &Job, options: &RunOptions) -> Ran {
        let repository = self.bench.open();
        let runs = || self.reports().into_iter().filter(|report| matches!(report.did, Did::Run(_))).collect::<Vec<_>>();
        let before = runs().len();
        let ran = run(&repository, job, options, &Quiet, &Silent);
        let reports = runs();
        assert_eq!(reports.len(), before + 1);
        assert_eq!(*reports.last().unwrap(), ran.report);
        assert_eq!(did(&ran.report).job, "nightly");
        assert_eq!(ran.report.outcome == Outcome::Good, ran.report.exit_code == 0);
        ran
    }

    fn reports(&self) -> Vec<Report> {
        let (found, unreadable) = self.bench.open().reports().unwrap();
        assert!(unreadable.is_empty());
        found.into_iter().map(|stored| stored.report).collect()
    }

    fn snapshots(&self) -> Vec<Snapshot> {
        self.bench.open().snapshots().unwrap().0.into_iter().map(|stored| stored.snapshot).collect()
    }
}

struct Quiet;

impl Observer for Quiet {}

fn did(report: &Report) -> &Run {
    match &report.did {
        Did::Run(run) => run,
        other => panic!("{other:?}"),
    }
}

fn steps(ran: &Ran) -> Vec<String> {
    let step = |step: &snap_backup::format::report::Step| format!("{}{}", step.name, if step.error.is_some() { " failed" } else { "" });
    did(&ran.report).steps.iter().map(step).collect()
}

/// A stream of a shell's output.
fn shell(name: &str, script: &str) -> String {
    format!("[[jobs.nightly.source]]\nname = \"{name}\"\ncommand = [\"sh\", \"-c\", '''{script}''']\n")
}

#[test]
fn streams_and_trees_make_one_snapshot() {
    let night = Night::new(1);
    night.write("data/keep/a", b"a");
    night.write("data/keep/b.tmp", b"b");
    night.write("more/c", &noise(1, 300_000));
    let dump = night.write("dump", &lines(1, 2_000_000));
    let (orders, users) = (shell("orders.sql", "cat HERE/dump"), shell("zz/users.sql", "seq 1 1000"));
    let job =
        night.job(&format!("{users}[[jobs.nightly.source]]\nfiles = [\"HERE/more\", \"HERE/data\"]\nexclude = [\"*.tmp\"]\n{orders}"));
    let ran = night.run(&job);
    assert!(ran.error.is_none(), "{:?}", ran.report);
    assert_eq!(steps(&ran), ["backup"]);
    let repository = night.bench.open();
    let snapshot = &night.snapshots()[0];
    assert_eq!((snapshot.source, snapshot.name.as_str()), (SourceKind::Job, "nightly"));
    let files = format!("{} {}", night.at("data").display(), night.at("more").display());
    let parts: Vec<_> = snapshot.parts.iter().map(|part| (part.name.as_str(), part.bytes, part.files)).collect();
    assert_eq!(parts, [("zz/users.sql", 3893, 1), (files.as_str(), 300_001, 2), ("orders.sql", 2_000_000, 1)]);
    let streams: Vec<_> = did(&ran.report).streams.iter().map(|stream| (stream.name.as_str(), stream.bytes)).collect();
    assert_eq!(streams, [("zz/users.sql", 3893), (files.as_str(), 300_001), ("orders.sql", 2_000_000)]);

    // Restored byte by byte.
    assert!(read(&repository, "latest:orders.sql").unwrap() == fs::read(&dump).unwrap());
    let target = night.at("restored");
    restore_to(&repository, "latest", &target, &RestoreOptions::default());
    assert!(fs::read(target.join("orders.sql")).unwrap() == fs::read(&dump).unwrap());
    assert!(fs::read_to_string(target.join("zz/users.sql")).unwrap().ends_with("\n999\n1000\n"));
    let below = |root: &Path| target.join(root.strip_prefix("/").unwrap());
    fs::remove_file(night.at("data/keep/b.tmp")).unwrap();
    for folder in ["data/keep", "more"] {
        let without_times = |root: &Path| -> Vec<String> {
            describe(root).into_iter().map(|line| line.split(" 1").next().unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(without_times(&below(&night.at(folder))), without_times(&night.at(folder)));
    }
    assert_clean(&repository);

    // The next night costs what changed; what is as it was is not read again, but for streams, which always are.
    fs::write(&dump, [&lines(1, 2_000_000)[..], b"one more line\n"].concat()).unwrap();
    let ran = night.run(&job);
    let report = ran.backup.unwrap();
    assert_eq!((report.totals.files_changed, report.totals.files_unmodified, report.totals.files_new), (1, 3, 0));
    assert!(report.totals.bytes_new < 100_000 && report.totals.bytes_stored < 20_000, "{:?}", report.totals);
    assert!(read(&night.bench.open(), "latest:orders.sql").unwrap().ends_with(b"one more line\n"));
    // And nothing, if nothing did; the streams keep the time since which they are so.
    let totals = night.run(&job).backup.unwrap().totals;
    assert_eq!((totals.files_unmodified, totals.bytes_new), (4, 0));
    let repository = night.bench.open();
    let since = |which: &str| {
        let mut found = Vec::new();
        browse::list(&repository, &select(&repository, which), true, &mut |entry| {
            found.push(entry.meta.mtime);
            Ok(())
        })
        .unwrap();
        found
    };
    assert_eq!(since("latest:orders.sql"), since("latest~1:orders.sql"));
    assert_ne!(since("latest:orders.sql"), since("latest~2:orders.sql"));
}

/// The same name, the same time, the same size: only bytes count.
#[test]
fn a_stream_is_never_taken_for_unchanged_unread() {
    let night = Night::new(2);
    let job = night.job(&shell("a", "cat HERE/x"));
    for text in ["one", "two", "two"] {
        night.write("x", text.as_bytes());
        set_mtime(&night.at("x"), 1_000_000_000, 0);
        night.run(&job);
        assert_eq!(read(&night.bench.open(), "latest").unwrap(), text.as_bytes());
    }
}

#[test]
fn one_bad_stream_and_nothing_is_published() {
    let night = Night::new(3);
    let good = shell("a.sql", "seq 1 100");
    assert!(night.run(&night.job(&good)).error.is_none());
    for (limits, script, code, says) in [
        ("", "exit 3", 4, "b.sql: sh exited with code 3, no snapshot was saved"),
        ("", "echo half; echo no space >&2; exit 1", 4, "b.sql: sh exited with code 1, no snapshot was saved"),
        ("", "seq 1 300000; sleep 0.2; exit 1", 4, "b.sql: sh exited with code 1, no snapshot was saved"),
        ("", "seq 1 10; exec >&-; sleep 0.2; exit 1", 4, "b.sql: sh exited with code 1, no snapshot was saved"),
        ("", "seq 1 10; kill -9 $$", 4, "b.sql: sh was killed by signal 9 (SIGKILL), no snapshot was saved"),
        ("", "true", 1, "b.sql is empty, no snapshot was saved"),
        (
            "stall_timeout = \"2s\"",
            "echo half; sleep 60",
            4,
            "b.sql: sh said nothing for 2 s (stall timeout), and was stopped, no snapshot was saved",
        ),
        (
            "timeout = \"2s\"",
            "while :; do echo x; sleep 0.1; done",
            4,
            "b.sql: sh had not ended after 2 s (timeout), and was stopped, no snapshot was saved",
        ),
    ] {
        // First, last, and with a good one behind it.
        for others in [[good.clone(), String::new()], [String::new(), shell("c.sql", "seq 1 10")]] {
            let [before, behind] = others;
            let job = night.job(&format!("[jobs.nightly]\n{limits}\n{before}{}{behind}", shell("b.sql", script)));
            let ran = night.run(&job);
            assert_eq!((ran.report.outcome, ran.report.exit_code), (Outcome::Failed, code), "{script}: {:?}", ran.report);
            assert_eq!(ran.report.error.as_deref(), Some(says), "{script}");
            assert_eq!(did(&ran.report).snapshot, None);
            assert_eq!(night.snapshots().len(), 1, "{script}");
            if script.contains("no space") {
                assert_eq!((did(&ran.report).streams[0].name.as_str(), did(&ran.report).streams[0].said.as_str()), ("b.sql", "no space"));
            }
        }
    }
    let missing = "[[jobs.nightly.source]]\nname = \"b.sql\"\ncommand = [\"/no/such/program\"]\n";
    let ran = night.run(&night.job(&format!("{good}{missing}")));
    assert!(ran.report.error.unwrap().starts_with("b.sql: /no/such/program could not be started"));
    let ran = night.run(&night.job(&format!("{good}[[jobs.nightly.source]]\nfiles = [\"HERE/missing\"]\n")));
    assert!(ran.report.error.unwrap().starts_with("No such file or folder"));
    assert_eq!(night.snapshots().len(), 1);
    // What the failed nights stored is of use, and nothing is damaged.
    assert!(night.run(&night.job(&good)).error.is_none());
    assert_clean(&night.bench.open());
}

#[test]
fn hooks_run_around_it_and_get_the_report() {
    let night = Night::new(4);
    let hook = |name: &str, end: &str| format!("{name} = [\"sh\", \"-c\", '''echo {name} \"$SNAP_REPORT\" >> HERE/log; {end}''']\n");
    let hooks = |fails: &str, source: &str| {
        let names = ["before", "after", "on_success", "on_failure"];
        let all: String = names.iter().map(|name| hook(name, if *name == fails { "exit 9" } else { "" })).collect();
        night.job(&format!("[jobs.nightly.hooks]\n{all}{}", shell("a", source)))
    };
    let log = || -> Vec<(String, Report)> {
        let text = fs::read_to_string(night.at("log")).unwrap_or_default();
        let _ = fs::remove_file(night.at("log"));
        let parse = |line: &str| {
            let (name, json) = line.split_once(' ').unwrap();
            (name.to_owned(), Report::decode(json.as_bytes()).unwrap())
        };
        text.lines().map(parse).collect()
    };
    let names = |log: &[(String, Report)]| log.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();

    let ran = night.run(&hooks("", "echo x"));
    assert_eq!(steps(&ran), ["before", "backup", "after", "on_success"]);
    let heard = log();
    assert_eq!(names(&heard), ["before", "after", "on_success"]);
    assert_eq!(did(&heard[0].1).snapshot, None);
    let last = &heard[2].1;
    assert_eq!((did(last).snapshot, last.outcome, did(last).streams.len()), (did(&ran.report).snapshot, Outcome::Good, 1));

    // A failing source: what was stopped is started again.
    let ran = night.run(&hooks("", "exit 1"));
    assert_eq!(steps(&ran), ["before", "backup failed", "after", "on_failure"]);
    let heard = log();
    assert_eq!(names(&heard), ["before", "after", "on_failure"]);
    assert_eq!((heard[2].1.outcome, heard[2].1.exit_code), (Outcome::Failed, 4));

    // A failing `before`: nothing is backed up.
    let ran = night.run(&hooks("before", "echo x"));
    assert_eq!(steps(&ran), ["before failed", "after", "on_failure"]);
    assert_eq!((ran.report.exit_code, ran.report.error.unwrap().as_str()), (4, "before: sh exited with code 9, no snapshot was saved"));
    assert_eq!(night.snapshots().len(), 1);

    // The others are warned of.
    for (fails, source, outcome) in
        [("after", "echo y", 0), ("on_success", "echo z", 0), ("on_failure", "exit 1", 4), ("after", "exit 1", 4)]
    {
        let ran = night.run(&hooks(fails, source));
        assert_eq!(ran.report.exit_code, outcome);
        assert_eq!(ran.report.warnings, [format!("{fails}: sh exited with code 9")]);
    }
}

#[test]
fn a_command_before_files_brings_them_about() {
    let night = Night::new(5);
    let source = |script: &str| {
        night.job(&format!("[[jobs.nightly.source]]\nfiles = [\"HERE/export\"]\nbefore = [\"sh\", \"-c\", '''{script}''']\n"))
    };
    let ran = night.run(&source("mkdir -p HERE/export && echo x > HERE/export/f"));
    assert!(ran.error.is_none(), "{:?}", ran.report);
    assert!(steps(&ran)[0].starts_with("before ") && steps(&ran)[1] == "backup");
    let ran = night.run(&source("echo half > HERE/export/f; exit 1"));
    assert_eq!((ran.report.exit_code, night.snapshots().len()), (4, 1));
}

#[test]
fn what_is_not_as_expected_is_saved_and_marked_and_nothing_is_forgotten() {
    let night = Night::new(6);
    let job = |limits: &str, script: &str| {
        night.job(&format!(
            "[jobs.nightly.keep]\nlast = 1\n[jobs.nightly.expect]\n{limits}\n{}{}",
            shell("a", "seq 1 10"),
            shell("b", script)
        ))
    };
    let shrink = "max_shrink = \"50%\"";
    assert!(night.run(&job(shrink, "seq 1 1000")).error.is_none());
    let ran = night.run(&job(shrink, "seq 1 900"));
    assert_eq!((ran.report.exit_code, did(&ran.report).forgotten), (0, 1), "{:?}", ran.report);
    // Twice: it is compared with the last good one, not with the one before.
    for _ in 0..2 {
        let ran = night.run(&job(shrink, "seq 1 300"));
        assert_eq!((ran.report.outcome, ran.report.exit_code, did(&ran.report).forgotten), (Outcome::Partial, 4, 0));
        assert!(ran.report.error.unwrap().starts_with("b has 1092 bytes, 69 % less than the last good one with 3492"));
        assert!(did(&night.reports().pop().unwrap()).snapshot.is_some());
    }
    let ran = night.run(&job("min_size = \"1M\"", "seq 1 900"));
    assert_eq!(ran.report.exit_code, 4);
    let found: Vec<bool> = night.snapshots().iter().map(Snapshot::is_complete).collect();
    assert_eq!(found, [true, false, false, false]);
    assert!(night.snapshots()[3].parts[0].unmet[0].starts_with("a has 21 bytes; at least 1048576"));
}

#[test]
fn only_its_own_snapshots_are_forgotten() {
    let night = Night::new(7);
    let named = |name: &str| snap_backup::ops::backup::BackupOptions { name: Some(name.into()), ..options() };
    // Called the same, but not by the job; of another host; of another job.
    save(&night.bench.open(), b"by hand", &named("nightly")).unwrap();
    let job = night.job(&format!("[jobs.nightly.keep]\nlast = 2\n{}", shell("a", "date +%N")));
    night.run_with(&job, &RunOptions { host: "elsewhere".into(), ..night.options() });
    for _ in 0..4 {
        assert!(night.run(&job).error.is_none());
    }
    let mut left: Vec<(String, SourceKind)> = night.snapshots().into_iter().map(|snapshot| (snapshot.host, snapshot.source)).collect();
    left.sort_by_key(|(host, kind)| (host.clone(), format!("{kind:?}")));
    let own = ("host".to_owned(), SourceKind::Job);
    assert_eq!(left, [("elsewhere".into(), SourceKind::Job), own.clone(), own, ("host".into(), SourceKind::Stream)]);
    assert_eq!(did(night.reports().last().unwrap()).forgotten, 1);
}

#[test]
fn it_reads_back_what_it_wrote_if_asked() {
    let (bench, memory) = Bench::in_memory(8);
    let night = Night { bench, place: tempfile::tempdir().unwrap() };
    night.write("data/x", &noise(3, 100_000));
    night.write("data/y", b"");
    let sources = format!("{}[[jobs.nightly.source]]\nfiles = [\"HERE/data\"]\n", shell("a", "seq 1 100000"));
    let job = Job { verify: Verify { snapshot: true, budget: Some(1 << 20) }, ..night.job(&sources) };
    let ran = night.run(&job);
    assert_eq!(
        (steps(&ran), ran.report.exit_code),
        (["backup", "verify", "verify store"].map(String::from).to_vec(), 0),
        "{:?}",
        ran.report
    );
    let checked = night.reports().into_iter().find(|report| matches!(&report.did, Did::Check(check) if check.bytes_read > 0));
    assert!(checked.is_some_and(|report| report.outcome == Outcome::Good), "what was read is in the ledger");
    // A store that loses bits: the night is not good, and nothing is forgotten.
    let saved = AtomicBool::new(false);
    let rotten = Faulty::new(memory, move |call| {
        saved.fetch_or(call.operation == Operation::Put && call.area == Area::Snapshots, Ordering::SeqCst);
        let reads = matches!(call.operation, Operation::ReadAt | Operation::Get);
        (reads && call.area == Area::Packs && saved.load(Ordering::SeqCst)).then_some(Fault::FlipBit(12_345))
    });
    let night = Night { bench: night.bench.over(Arc::new(rotten)), place: night.place };
    let job = Job { keep: night.job(&format!("[jobs.nightly.keep]\nlast = 1\n{sources}")).keep, ..job };
    let ran = night.run(&job);
    assert_eq!((ran.report.outcome, ran.report.exit_code, did(&ran.report).forgotten), (Outcome::Failed, 20, 0), "{:?}", ran.report);
    assert_eq!(steps(&ran), ["backup", "verify failed", "verify store failed"]);
}

/// The store fails: nothing is published, and the report, which cannot be stored either, is at least returned.
#[test]
fn a_run_ends_with_a_report_even_if_the_store_fails() {
    let (bench, memory) = Bench::in_memory(15);
    let broken = Faulty::new(memory, |call| (call.operation == Operation::Put).then_some(Fault::Crash));
    let night = Night { bench: bench.clone(), place: tempfile::tempdir().unwrap() };
    let job = night.job(&shell("a", "seq 1 10"));
    let repository = bench.over(Arc::new(broken)).open();
    let ran = run(&repository, &job, &night.options(), &Quiet, &Silent);
    assert_eq!((ran.report.outcome, ran.report.exit_code), (Outcome::Failed, 1));
    assert!(ran.report.warnings.iter().any(|warning| warning.starts_with("The report of this run could not be stored")));
    assert!(night.snapshots().is_empty() && night.reports().is_empty());
}

#[test]
fn a_second_run_waits_or_is_refused() {
    let night = Night::new(9);
    let slow = night.job(&shell("a", "echo x; touch HERE/started; while [ ! -e HERE/go ]; do sleep 0.05; done"));
    let go = night.at("go");
    std::thread::scope(|scope| {
        let repository = night.bench.open();
        let options = night.options();
        let first = scope.spawn(move || run(&repository, &slow, &options, &Quiet, &Silent).report.exit_code);
        while !night.at("started").exists() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let refused = night.job(&shell("a", "echo y"));
        let ran = night.run(&refused);
        assert_eq!((ran.report.outcome, ran.report.exit_code), (Outcome::Failed, 11));
        assert!(ran.report.error.as_ref().unwrap().starts_with("The job nightly is running on this host already (process "));
        assert!(steps(&ran).is_empty());
        // Another job may.
        let other = Job { name: "other".into(), ..refused.clone() };
        assert!(run(&night.bench.open(), &other, &night.options(), &Quiet, &Silent).error.is_none());
        let waits = Job { overlap: Overlap::Wait, ..refused };
        let observer = Opens(go.clone());
        let repository = night.bench.open();
        let ran = run(&repository, &waits, &night.options(), &observer, &Silent);
        assert!(ran.error.is_none());
        assert_eq!(first.join().unwrap(), 0);
        // The one that waited came last.
        assert_eq!(read(&night.bench.open(), "latest").unwrap(), b"y\n");
    });
}

/// Lets the first run end as soon as the second one waits.
struct Opens(PathBuf);

impl Observer for Opens {
    fn waiting(&self, _: &str) {
        fs::write(&self.0, b"").unwrap();
    }
}

#[test]
fn a_clock_set_back_loses_nothing() {
    let night = Night::new(10);
    let job = night.job(&format!("[jobs.nightly.keep]\nlast = 1\n{}", shell("a", "date +%N")));
    night.run(&job);
    // A day before, and so before the repository was made: rules of time cannot be trusted.
    let early = Repository::open(night.bench.store.clone(), opening(world(99, FAR - 86_400), None)).unwrap();
    let ran = run(&early, &job, &night.options(), &Quiet, &Silent);
    assert_eq!((ran.report.outcome, ran.report.exit_code), (Outcome::Partial, 3), "{:?}", ran.report);
    assert!(did(&ran.report).snapshot.is_some());
    assert_eq!(night.snapshots().len(), 2);
}

/// Else it would hold the lock for ever, and nobody would hear of this or any later night.
#[test]
fn a_hook_that_hangs_is_stopped_and_the_run_reported() {
    let night = Night::new(12);
    let hooks = "[jobs.nightly.hooks]\nafter = [\"sleep\", \"600\"]\non_success = [\"sleep\", \"600\"]\n";
    let job = night.job(&format!("{hooks}{}", shell("a", "echo x")));
    let ran = night.run_with(&job, &RunOptions { hook_time: Duration::from_secs(1), ..night.options() });
    assert_eq!((ran.report.outcome, night.snapshots().len()), (Outcome::Good, 1));
    assert_eq!(steps(&ran), ["backup", "after failed", "on_success failed"]);
    let stopped = ["after", "on_success"].map(|hook| format!("{hook}: sleep had not ended after 1 s (timeout), and was stopped"));
    assert_eq!(ran.report.warnings, stopped);
}

#[test]
fn secrets_are_fetched_late_and_said_nowhere() {
    let night = Night::new(11);
    let command = StreamCommand {
        name: "a".into(),
        line: ["sh", "-c", "echo error: password $DB_PASSWORD >&2; [ \"$DB_PASSWORD\" = hunter22 ] && echo $DB_HOST"]
            .map(String::from)
            .to_vec(),
        variables: vec![("DB_HOST".into(), "db1".into())],
        secrets: vec![("DB_PASSWORD".into(), SecretFrom::Variable("THE_PASSWORD".into()))],
        made_by: None,
    };
    let mut job = night.job(&shell("a", "true"));
    job.sources = vec![Source { what: What::Command(command), expect: Default::default() }];
    let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
    struct Listens(Arc<Mutex<Vec<u8>>>);
    impl Observer for Listens {
        fn said(&self, _: &str) -> snap_backup::source::Sink {
            let to = self.0.clone();
            Box::new(move |bytes| to.lock().unwrap().extend_from_slice(bytes))
        }
    }
    let fetched = Arc::new(AtomicBool::new(false));
    let seen = fetched.clone();
    let secrets = move |from: &SecretFrom| -> Result<Zeroizing<Vec<u8>>> {
        assert_eq!(*from, SecretFrom::Variable("THE_PASSWORD".into()));
        seen.store(true, Ordering::SeqCst);
        Ok(Zeroizing::new(b"hunter22".to_vec()))
    };
    let options = RunOptions { secrets: Arc::new(secrets), ..night.options() };
    let ran = run(&night.bench.open(), &job, &options, &Listens(heard.clone()), &Silent);
    assert!(ran.error.is_none() && fetched.load(Ordering::SeqCst), "{:?}", ran.report);
    assert_eq!(read(&night.bench.open(), "latest").unwrap(), b"db1\n");
    assert_eq!(did(&ran.report).streams[0].said, "error: password ***");
    assert_eq!(*heard.lock().unwrap(), b"error: password ***\n");
    // What sounds like trouble becomes a warning, which others are told.
    assert_eq!(ran.report.warnings, ["a command said: error: password ***"]);
    assert!(!String::from_utf8(ran.report.encode()).unwrap().contains("hunter22"));

    // One that cannot be fetched: the command is not started.
    let ran = night.run(&job);
    assert!(ran.report.error.unwrap().starts_with("no secret"));
    assert_eq!(night.snapshots().len(), 1);
}

#[test]
fn an_interrupt_ends_a_run_and_what_was_stopped_is_started_again() {
    let night = Night::new(12);
    let hooks = "[jobs.nightly.hooks]\nbefore = [\"touch\", \"HERE/stopped\"]\nafter = [\"rm\", \"HERE/stopped\"]\n";
    let job = night.job(&format!("{hooks}{}", shell("a", "echo x; touch HERE/started; sleep 60")));
    let options = night.options();
    let flag = options.interrupted.clone();
    let started = night.at("started");
    std::thread::spawn(move || {
        while !started.exists() {
            std::thread::sleep(Duration::from_millis(10));
        }
        flag.store(true, Ordering::SeqCst);
    });
    struct Asks(Arc<AtomicBool>);
    impl Progress for Asks {
        fn interrupted(&self) -> bool {
            self.0.load(Ordering::SeqCst)
        }
    }
    let asks = Asks(options.interrupted.clone());
    let ran = run(&night.bench.open(), &job, &options, &Quiet, &asks);
    assert_eq!((ran.report.exit_code, steps(&ran)), (130, ["before", "backup failed", "after"].map(String::from).to_vec()));
    assert!(!night.at("stopped").exists() && night.snapshots().is_empty());
    assert_eq!(night.reports().len(), 1);
}

#[test]
fn files_that_cannot_be_read_make_it_partial() {
    if rustix::process::geteuid().is_root() {
        return;
    }
    let night = Night::new(13);
    let path = night.write("data/x", b"x");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    let ran = night.run(&night.job("[[jobs.nightly.source]]\nfiles = [\"HERE/data\"]\n"));
    assert_eq!((ran.report.outcome, ran.report.exit_code), (Outcome::Partial, 3));
    assert_eq!(ran.report.error.as_deref(), Some("1 path could not be read, or not wholly"));
}

#[test]
fn a_sqlite_database_is_copied_while_it_is_written() {
    let night = Night::new(14);
    let database = night.at("shop.db");
    let sqlite = |sql: &str| std::process::Command::new("sqlite3").arg(&database).arg(sql).output();
    let Ok(made) = sqlite("PRAGMA journal_mode=wal; CREATE TABLE t(x); INSERT INTO t SELECT value FROM generate_series(1, 10000)") else {
        return eprintln!("SKIPPED: there is no sqlite3");
    };
    assert!(made.status.success(), "{made:?}");
    let job = night.job("[[jobs.nightly.source]]\nsqlite = \"HERE/shop.db\"\n");
    let ran = night.run(&job);
    assert!(ran.error.is_none(), "{:?}", ran.report);
    let name = did(&ran.report).streams[0].name.clone();
    let copy = night.write("copy.db", &read(&night.bench.open(), &format!("latest:{name}")).unwrap());
    let counted = std::process::Command::new("sqlite3").arg(copy).arg("SELECT count(*) FROM t").output().unwrap();
    assert_eq!(counted.stdout, b"10000\n");
    let ran = night.run(&night.job("[[jobs.nightly.source]]\nsqlite = \"HERE/missing.db\"\n"));
    assert!(ran.report.error.is_some() && !night.at("missing.db").exists());
}
