//! `snap run` and `snap schedule` as people and scripts meet them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cli::{Scene, expect, stderr};

/// A scene with a configuration; HERE is its folder.
fn scene(jobs: &str) -> Scene {
    let scene = Scene::ready();
    configure(&scene, jobs);
    scene
}

fn configure(scene: &Scene, jobs: &str) {
    let here = scene.at("").to_str().unwrap().trim_end_matches('/').to_owned();
    let text = format!("[repository]\npath = \"HERE/r\"\nkey_file = \"HERE/key\"\n{jobs}").replace("HERE", &here);
    scene.write("snap.toml", text.as_bytes());
    fs::set_permissions(scene.at("snap.toml"), fs::Permissions::from_mode(0o600)).unwrap();
}

/// A job with one stream `NAME.sql` of a shell's output.
fn job(name: &str, script: &str) -> String {
    format!("[jobs.{name}]\nname = \"{name}.sql\"\ncommand = [\"sh\", \"-c\", '''{script}''']\n")
}

fn reports(scene: &Scene) -> usize {
    fs::read_dir(scene.at("r/records"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|end| end == "report"))
        .count()
}

/// Waits for what another process does.
fn wait_for(scene: &Scene, name: &str) {
    while !scene.at(name).exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_failing_job_does_not_stop_the_next() {
    let scene = scene(&format!("{}{}{}", job("a", "seq 1 1000"), job("b", "echo half; echo disk full >&2; exit 3"), job("c", "echo c")));
    let output = scene.check(&["run"], 4);
    let text = String::from_utf8_lossy(&output.stdout);
    for part in ["job a\n", "saved         a.sql: 3.80 KiB", "job b\n", "no snapshot was saved", "job c\n", "next          due by "] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let said = stderr(&output);
    assert!(said.contains("disk full\n") && said.contains("snap: job b: b.sql: sh exited with code 3, no snapshot was saved\n"), "{said}");
    assert_eq!((scene.count(), reports(&scene)), (2, 3));
    assert_eq!(scene.text(&["dump", "latest", "--name", "c"]), "c\n");
    // Silent for cron, unless something is wrong.
    let quiet = scene.check(&["-q", "run", "a", "c"], 0);
    assert!(quiet.stdout.is_empty() && quiet.stderr.is_empty());
    let quiet = scene.check(&["-q", "run"], 4);
    assert!(quiet.stdout.is_empty() && stderr(&quiet).contains("  | disk full\n"));
    // What is asked for must be there, before anything is run.
    let output = scene.check(&["run", "a", "nonesuch"], 2);
    assert!(stderr(&output).contains("There is no job nonesuch"));
    assert_eq!((scene.count(), reports(&scene)), (6, 8));
}

#[test]
fn json_has_a_summary_for_each_job() {
    let scene = scene(&format!("{}{}", job("a", "seq 1 1000"), job("b", "exit 3")));
    let output = scene.check(&["run", "--json"], 4);
    let lines: Vec<Value> = String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summaries: Vec<&Value> = lines.iter().filter(|line| line["message_type"] == "summary").collect();
    assert_eq!(summaries.len(), 2, "{lines:?}");
    assert_eq!((&summaries[0]["job"], &summaries[0]["outcome"], &summaries[0]["exit_code"]), (&"a".into(), &"good".into(), &0.into()));
    assert_eq!(summaries[0]["total_bytes_processed"], 3893);
    assert_eq!(summaries[0]["snapshot_id"].as_str().unwrap().len(), 64);
    assert_eq!((&summaries[1]["outcome"], &summaries[1]["exit_code"]), (&"failed".into(), &4.into()));
    assert!(summaries[1].get("snapshot_id").is_none() && summaries[1]["error"].as_str().unwrap().contains("exited with code 3"));
}

#[test]
fn a_dry_run_runs_nothing_and_shows_all() {
    let scene = scene(&format!(
        "{}[jobs.a.hooks]\nbefore = [\"touch\", \"HERE/hook\"]\n[jobs.a.keep]\nlast = 1\n",
        job("a", "touch HERE/ran; echo x")
    ));
    scene.check(&["run"], 0);
    scene.check(&["run"], 0);
    scene.check(&["run"], 0);
    fs::remove_file(scene.at("ran")).unwrap();
    fs::remove_file(scene.at("hook")).unwrap();
    let (snapshots, reports_before) = (scene.count(), reports(&scene));
    let text = scene.text(&["run", "-n"]);
    assert!(text.contains("touch") && text.contains("0 snapshots would be removed and 1 kept"), "{text}");
    let json: Value = serde_json::from_str(&scene.text(&["run", "-n", "--json"])).unwrap();
    assert_eq!((&json["dry_run"], &json["job"]), (&true.into(), &"a".into()));
    assert!(!scene.at("ran").exists() && !scene.at("hook").exists());
    assert_eq!((scene.count(), reports(&scene)), (snapshots, reports_before));
}

#[test]
fn a_run_that_is_killed_leaves_nothing_in_the_way() {
    let scene = scene(&job("a", "echo x; touch HERE/started; while [ ! -e HERE/go ]; do echo y; sleep 0.05; done"));
    let mut first = scene.snap(&["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for(&scene, "started");
    // While it runs, a second one is refused.
    let refused = scene.check(&["run"], 11);
    assert!(stderr(&refused).contains("The job a is running on this host already (process "), "{}", stderr(&refused));
    kill_process(Pid::from_child(&first), Signal::KILL).unwrap();
    first.wait().unwrap();
    scene.write("go", b"");
    scene.check(&["run"], 0);
    assert_eq!((scene.count(), reports(&scene)), (1, 2));
    scene.check(&["check", "--read-data"], 0);
}

#[test]
fn a_signal_ends_a_run_in_order() {
    let hooks = "[jobs.a.hooks]\nbefore = [\"touch\", \"HERE/stopped\"]\nafter = [\"rm\", \"HERE/stopped\"]\n";
    let scene = scene(&format!("{}{hooks}{}", job("a", "echo x; touch HERE/started; sleep 60"), job("b", "touch HERE/next; echo b")));
    let mut run = scene.snap(&["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for(&scene, "started");
    kill_process(Pid::from_child(&run), Signal::TERM).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(143));
    // What was stopped is started again, and the next job is not begun.
    assert!(!scene.at("stopped").exists() && !scene.at("next").exists());
    assert_eq!((scene.count(), reports(&scene)), (0, 1));
}

#[test]
fn without_a_repository_or_jobs_it_says_so() {
    let empty = scene("");
    assert!(stderr(&empty.check(&["run"], 2)).contains("has no jobs"));
    let scene = Scene::new();
    configure(&scene, &job("a", "echo x"));
    scene.check(&["run"], 10);
    let none = Scene::new();
    none.check(&["run"], 2);
}

#[test]
fn a_job_needs_nothing_but_its_configuration() {
    let scene = scene(
        "[jobs.a]\n[[jobs.a.source]]\nname = \"a\"\ncommand = [\"sh\", \"-c\", 'echo $DB_PASSWORD; echo \"$DB_PASSWORD\" >&2']\nsecrets = { DB_PASSWORD = { file = \"HERE/secret\" } }\n",
    );
    scene.write("secret", b"hunter22\n");
    fs::set_permissions(scene.at("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = scene.bare(&["run", "-v"]);
    command.env_remove("SNAP_REPOSITORY");
    let output = expect(&mut command, 0);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
    assert!(said.contains("***") && !said.contains("hunter22"), "{said}");
    assert_eq!(scene.text(&["dump", "latest"]), "hunter22\n");
    // The secret is gone: the command is not run without it.
    fs::remove_file(scene.at("secret")).unwrap();
    scene.check(&["run"], 1);
    assert_eq!(scene.count(), 1);
}

#[test]
fn units_are_good_in_the_eyes_of_systemd() {
    let scene = scene(&format!(
        "{}schedule = \"weekly sunday 03:00\"\n[jobs.a.hooks]\nbefore = [\"true\"]\n[jobs.b]\nfiles = [\"HERE/data\"]\nbefore = [\"true\"]\n",
        job("a", "echo 100% $x")
    ));
    assert_eq!(scene.text(&["schedule", "--cron"]).lines().count(), 2);
    assert!(scene.text(&["schedule", "b", "--kubernetes"]).contains("kind: CronJob"));
    assert!(scene.text(&["schedule"]).contains("# snap-a.timer\n"));
    scene.check(&["schedule", "--to", "units"], 0);
    let mut files: Vec<_> = fs::read_dir(scene.at("units")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 4);
    let Ok(output) = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&files).output() else {
        return eprintln!("SKIPPED: there is no systemd-analyze");
    };
    let said = stderr(&output);
    // It also speaks of units that this machine lacks.
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("units/snap-") || line.contains("Unknown")).collect();
    assert!(ours.is_empty(), "{said}");
}
