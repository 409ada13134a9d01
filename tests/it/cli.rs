//! The program as people and scripts meet it: commands, exit codes, JSON, signals, secrets.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process_group};
use serde_json::Value;

use crate::support::{lines, noise};

/// An empty folder with a home, a repository `r` and a key file.
pub struct Scene {
    place: tempfile::TempDir,
}

impl Scene {
    pub fn new() -> Self {
        Self { place: tempfile::tempdir().unwrap() }
    }

    /// With a repository.
    pub fn ready() -> Self {
        let scene = Self::new();
        scene.check(&["init", "-q"], 0);
        scene
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> String {
        fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        fs::write(self.at(name), bytes).unwrap();
        self.at(name).to_str().unwrap().to_owned()
    }

    /// `snap` with nothing of our own environment.
    pub fn snap(&self, args: &[&str]) -> Command {
        let mut command = self.bare(args);
        command.env("SNAP_KEY_FILE", self.at("key"));
        command
    }

    pub fn bare(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_snap"));
        command.args(args).env_clear().current_dir(self.place.path()).stdin(Stdio::null());
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", self.place.path()).env("SNAP_REPOSITORY", self.at("r"));
        command
    }

    pub fn check(&self, args: &[&str], code: i32) -> Output {
        expect(&mut self.snap(args), code)
    }

    pub fn text(&self, args: &[&str]) -> String {
        String::from_utf8(self.check(args, 0).stdout).unwrap()
    }

    pub fn feed(&self, args: &[&str], bytes: &[u8], code: i32) -> Output {
        let path = self.write("input", bytes);
        expect(self.snap(args).stdin(fs::File::open(path).unwrap()), code)
    }

    pub fn count(&self) -> usize {
        let listed: Value = serde_json::from_str(&self.text(&["snapshots", "--json"])).unwrap();
        listed.as_array().unwrap().len()
    }
}

pub fn expect(command: &mut Command, code: i32) -> Output {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{:?}: {said}", command.get_args().collect::<Vec<_>>());
    assert!(!said.contains("panicked") && !said.contains("Internal error"), "{said}");
    output
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_stream_goes_in_and_comes_out() {
    let scene = Scene::ready();
    let bytes = lines(1, 3_000_000);
    scene.feed(&["backup", "--stdin", "--stdin-filename", "db.sql"], &bytes, 0);
    let path = scene.write("dump.sql", &bytes);
    scene.check(&["backup", "--stdin-from-command", "--stdin-filename", "db.sql", "--", "cat", &path], 0);
    assert_eq!(scene.count(), 2);
    for which in ["latest", "latest~1", "latest:/db.sql"] {
        assert!(scene.check(&["dump", which], 0).stdout == bytes, "{which}");
    }
    assert!(scene.check(&["dump", "latest", "/db.sql"], 0).stdout == bytes);
    assert_eq!(scene.text(&["ls"]), "/db.sql\n");
    scene.check(&["restore", "latest", "-t", "out", "--verify"], 0);
    assert!(fs::read(scene.at("out/db.sql")).unwrap() == bytes);
    scene.check(&["check", "--read-data"], 0);
    scene.check(&["check", "--keyless"], 0);
    for part in ["1/2", "2/2", "50%", "1M"] {
        scene.check(&["check", "--read-data-subset", part], 0);
    }
    assert!(scene.text(&["stats"]).contains("snapshots     2"));
    assert!(scene.text(&["snapshots"]).contains("db.sql"));
}

#[test]
fn a_repository_is_not_made_where_a_disk_is_missing() {
    let scene = Scene::new();
    let output = scene.check(&["init", "-r", "not/mounted"], 1);
    assert!(stderr(&output).contains("the folder not does not exist; make it, or mount what belongs there"), "{}", stderr(&output));
    assert!(!scene.at("not").exists());
}

#[test]
fn a_folder_goes_in_and_comes_out() {
    let scene = Scene::ready();
    scene.write("data/a/x", b"x");
    scene.write("data/a/y.tmp", b"y");
    scene.write("data/b", &noise(1, 100_000));
    scene.check(&["backup", "data", "-e", "*.tmp", "--tag", "t1,t2"], 0);
    assert_eq!(scene.text(&["ls"]), "/data\n/data/a\n/data/a/x\n/data/b\n");
    assert_eq!(scene.text(&["ls", "latest:/data", "--no-recursive"]).lines().count(), 2);
    assert!(scene.text(&["ls", "-l"]).contains("drwx"));
    scene.check(&["restore", "latest:/data", "-t", "out"], 0);
    assert!(fs::read(scene.at("out/b")).unwrap() == noise(1, 100_000));
    assert!(scene.at("out/a/x").exists() && !scene.at("out/a/y.tmp").exists());
    scene.check(&["restore", "latest", "-t", "all", "--include", "x", "--dry-run"], 0);
    assert!(!scene.at("all").exists());
    let again = scene.text(&["backup", "data", "-e", "*.tmp", "--skip-if-unchanged"]);
    println!("{again}");
    scene.check(&["backup", "data", "-n"], 0);
    assert_eq!(scene.text(&["snapshots", "--tag", "t1,t2"]).lines().filter(|line| line.contains("t1,t2")).count(), 1);
    let list = scene.write("list", b"data/b\n");
    scene.check(&["backup", "--files-from", &list], 0);
    assert!(scene.text(&["ls"]).contains("/data/b"));
}

#[test]
fn exit_codes_say_what_happened() {
    let scene = Scene::new();
    scene.check(&["snapshots"], 10);
    scene.check(&["backup", "--stdin"], 10);
    scene.check(&["snapshots", "--no-such-flag"], 2);
    scene.check(&["frobnicate"], 2);
    scene.check(&["init"], 0);
    scene.check(&["init"], 1);
    scene.check(&["backup"], 2);
    scene.check(&["restore", "latest", "-t", "out"], 1);
    scene.feed(&["backup", "--stdin"], b"", 1);
    scene.feed(&["backup", "--stdin", "--allow-empty"], b"", 0);
    scene.feed(&["backup", "--stdin", "--stdin-filename", "../up"], b"x", 2);
    scene.write("there", b"x");
    let output = scene.check(&["backup", "there", "missing"], 3);
    assert!(stderr(&output).contains("missing"), "{}", stderr(&output));
    assert!(scene.text(&["snapshots"]).contains("incomplete"));
    scene.check(&["backup", "--stdin-from-command", "--", "false"], 4);
    scene.check(&["backup", "--stdin-from-command", "--", "/no/such/program"], 4);
    scene.check(&["dump", "latest", "/no/such"], 1);
    scene.check(&["dump", "abcdef01"], 1);
    scene.check(&["cat", "manifest"], 0);
    scene.check(&["version"], 0);
    scene.write("other", &[b'o'; 64]);
    fs::set_permissions(scene.at("other"), fs::Permissions::from_mode(0o600)).unwrap();
    expect(scene.bare(&["snapshots"]).env("SNAP_KEY_FILE", scene.at("other")), 12);
    expect(scene.bare(&["snapshots"]).env("SNAP_PASSWORD", "x"), 12);
    let help = scene.text(&["backup", "--help"]);
    assert!(help.contains("Exit codes:") && help.contains("130"));
}

#[test]
fn damage_ends_with_its_own_code() {
    let scene = Scene::ready();
    scene.feed(&["backup", "--stdin"], &noise(1, 500_000), 0);
    let mut folders = vec![scene.at("r/packs")];
    let mut packs = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() { folders.push(entry) } else { packs.push(entry) }
        }
    }
    let pack = packs.into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&pack, bytes).unwrap();
    scene.check(&["check"], 0);
    let output = scene.check(&["check", "--read-data"], 20);
    assert!(String::from_utf8_lossy(&output.stdout).contains("/stdin"), "{output:?}");
    scene.check(&["check", "--keyless"], 20);
    let output = scene.check(&["dump", "latest"], 20);
    assert!(output.stdout.len() < 500_000 && noise(1, 500_000).starts_with(&output.stdout));
    scene.check(&["restore", "latest", "-t", "out"], 20);
    assert!(!scene.at("out/stdin").exists());
    let found = scene.snap(&["check", "--read-data", "--json"]).output().unwrap();
    let last = String::from_utf8(found.stdout).unwrap().lines().last().unwrap().to_owned();
    let summary: Value = serde_json::from_str(&last).unwrap();
    assert_eq!(summary["affected"][0]["path"], "/stdin");
}

/// Every way to give a password or key.
#[test]
fn secrets_come_from_many_places() {
    let scene = Scene::new();
    let file = scene.write("password", b"hunter2\n");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    expect(scene.bare(&["init", "--password-file", &file]).env_remove("SNAP_PASSWORD"), 0);
    expect(scene.bare(&["snapshots"]).env("SNAP_PASSWORD", "hunter2"), 0);
    expect(&mut scene.bare(&["snapshots", "--password-command", "printf 'hunter2\\n'"]), 0);
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" snapshots 3<password", env!("CARGO_BIN_EXE_snap")]).env_clear().current_dir(scene.place.path());
    shell.env("SNAP_PASSWORD_FD", "3").env("SNAP_REPOSITORY", scene.at("r")).env("HOME", scene.place.path()).env("PATH", "/usr/bin:/bin");
    expect(&mut shell, 0);
    expect(scene.bare(&["snapshots"]).env("SNAP_PASSWORD", "hunter3"), 12);
    expect(scene.bare(&["snapshots"]).env("SNAP_PASSWORD", ""), 2);
    expect(scene.bare(&["snapshots"]).env("SNAP_PASSWORD", "hunter2").env("SNAP_KEY_FILE", "x"), 2);
    expect(&mut scene.bare(&["snapshots", "--password-file", &file, "--key-file", "x"]), 2);
    expect(&mut scene.bare(&["snapshots", "--password-command", "false"]), 1);
    expect(&mut scene.bare(&["snapshots"]), 2);
}

#[test]
fn a_key_file_that_others_can_read_is_refused() {
    let scene = Scene::ready();
    let key = scene.at("key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let output = scene.check(&["snapshots"], 2);
    assert!(stderr(&output).contains("chmod 600"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
    scene.check(&["snapshots"], 0);
}

/// A command that fails after gigabytes leaves nothing in the list.
#[test]
fn a_command_that_fails_late_saves_nothing() {
    let scene = Scene::ready();
    let script = "head -c 3000000 /dev/urandom; echo broken pipe of doom >&2; exit 7";
    let output = scene.check(&["backup", "--stdin-from-command", "--", "sh", "-c", script], 4);
    let said = stderr(&output);
    assert!(said.contains("code 7") && said.contains("broken pipe of doom"), "{said}");
    scene.check(&["backup", "--stdin-from-command", "--", "sh", "-c", "echo x; kill -9 $$"], 4);
    assert_eq!(scene.count(), 0);
    scene.check(&["check", "--read-data"], 0);
}

/// The command and what it runs see none of our secrets.
#[test]
fn commands_do_not_see_secrets() {
    let scene = Scene::new();
    let script = "tr '\\0' '\\n' </proc/self/environ; for p in $$ $PPID; do tr '\\0' ' ' </proc/$p/cmdline; done";
    let args = ["backup", "--init", "--stdin-from-command", "--stdin-filename", "seen", "--", "sh", "-c", script];
    expect(scene.bare(&args).env("SNAP_PASSWORD", "s3cret-word").env("OTHER", "passed on"), 0);
    let seen = expect(scene.bare(&["dump", "latest"]).env("SNAP_PASSWORD", "s3cret-word"), 0).stdout;
    let seen = String::from_utf8_lossy(&seen);
    assert!(seen.contains("OTHER=passed on"), "{seen}");
    assert!(!seen.contains("s3cret-word") && !seen.contains("SNAP_PASSWORD"), "{seen}");
    // Nor does the password command see the other variables.
    let print = "sh -c 'env >seen-by-command; echo s3cret-word'";
    expect(scene.bare(&["snapshots", "--password-command", print]).env("SNAP_PASSWORD", "wrong-but-secret"), 0);
    assert!(!fs::read_to_string(scene.at("seen-by-command")).unwrap().contains("wrong-but-secret"));
}

pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what} does not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn interrupt(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn an_interrupted_backup_ends_its_command_and_saves_nothing() {
    let scene = Scene::ready();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        if is_ignored(signal) {
            eprintln!("SKIPPED: {signal:?} is ignored where this test runs, and so by what it starts");
            continue;
        }
        let _ = fs::remove_file(scene.at("pid"));
        let script = "echo $$ >pid.new; mv pid.new pid; echo data; sleep 1000 & sleep 1000; wait";
        let mut command = scene.snap(&["backup", "--stdin-from-command", "--", "sh", "-c", script]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for("the command's start", || scene.at("pid").exists());
        let group: i32 = fs::read_to_string(scene.at("pid")).unwrap().trim().parse().unwrap();
        interrupt(&child, signal);
        assert_eq!(child.wait().unwrap().code(), Some(code));
        let group = Pid::from_raw(group).unwrap();
        wait_for("the end of the command's group", || test_kill_process_group(group).is_err());
    }
    assert_eq!(scene.count(), 0);
    scene.check(&["check"], 0);

    // The same while waiting for standard input.
    let mut child =
        scene.snap(&["backup", "--stdin", "--json"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // More than fits into the pipe: when it is gone, snap listens to signals and reads.
    stdin.write_all(&noise(1, 300_000)).unwrap();
    interrupt(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert_eq!(scene.count(), 0);
}

/// Whether this process, and so what it starts, ignores a signal: in the background of a script, SIGINT; under nohup, SIGHUP.
pub fn is_ignored(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() >> (signal.as_raw() - 1) & 1 == 1
}

#[test]
fn output_that_nobody_reads_is_no_crash() {
    let scene = Scene::ready();
    scene.feed(&["backup", "--stdin"], &noise(1, 2_000_000), 0);
    let mut child = scene.snap(&["dump", "latest"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 1000]).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert!(!stderr(&output).contains("panic"), "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    for args in [&["ls"][..], &["snapshots"], &["stats"], &["completions", "bash"], &["--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = scene.snap(args).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert!(!stderr(&output).contains("panic") && output.status.code().is_some(), "{args:?}: {}", stderr(&output));
    }
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = scene.snap(&["dump", "latest"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn json_is_json_on_every_line() {
    let scene = Scene::ready();
    scene.write("data/a", b"a");
    scene.write("data/new\nline\u{1b}", b"b");
    let check = |args: &[&str], code: i32| -> Vec<Value> {
        let output = scene.check(args, code);
        let mut found = Vec::new();
        for bytes in [&output.stdout, &output.stderr] {
            for line in String::from_utf8(bytes.clone()).unwrap().lines() {
                found.push(serde_json::from_str(line).unwrap_or_else(|error| panic!("{args:?}: {error}: {line}")));
            }
        }
        found
    };
    let found = check(&["backup", "data", "--json"], 0);
    let id = found.last().unwrap()["snapshot_id"].as_str().unwrap().to_owned();
    assert_eq!(found.last().unwrap()["message_type"], "summary");
    assert_eq!(check(&["snapshots", "--json"], 0)[0][0]["id"], id);
    assert_eq!(check(&["ls", "--json"], 0).len(), 3);
    assert_eq!(check(&["stats", "--json"], 0)[0]["snapshots"], 1);
    assert_eq!(check(&["check", "--json"], 0).last().unwrap()["num_errors"], 0);
    assert_eq!(check(&["restore", "latest", "-t", "out", "--json"], 0).last().unwrap()["error_count"], 0);
    check(&["backup", "missing", "data", "--json"], 3);
    check(&["backup", "data", "--json", "--dry-run"], 0);
    assert_eq!(check(&["dump", "abcdef01", "--json"], 1)[0]["code"], 1);
    assert_eq!(check(&["snapshots", "--json", "--frob"], 2)[0]["code"], 2);
    assert_eq!(check(&["backup", "--json", "--stdin-from-command", "--", "false"], 4).last().unwrap()["code"], 4);
    for args in [
        &["cat", "manifest"][..],
        &["cat", "snapshot", "latest"],
        &["cat", "snapshot", &id[..8]],
        &["cat", "index", ""],
        &["cat", "key", ""],
    ] {
        let output = scene.snap(args).output().unwrap();
        if output.status.success() {
            let text = String::from_utf8(output.stdout).unwrap();
            serde_json::from_str::<Value>(&text).unwrap();
            assert!(!text.contains("sealed"), "no secrets: {text}");
        }
    }
}

#[test]
fn hostile_names_are_shown_harmless() {
    let scene = Scene::ready();
    let name = "data/\u{1b}]52;c;x\u{7}\r\u{202e}gpj";
    scene.write(name, b"x");
    let outputs = [
        scene.check(&["backup", "data", "-vv"], 0),
        scene.check(&["backup", "data", "-vv", "--name", "esc\u{1b}[2J", "--tag", "t\u{7}", "--host", "h\u{1b}"], 0),
        scene.check(&["ls", "-l"], 0),
        scene.check(&["snapshots"], 0),
        scene.check(&["restore", "latest", "-t", "out\u{1b}", "-vv"], 0),
        scene.check(&["dump", "latest", "no\u{1b}such"], 1),
        scene.check(&["backup", "no\u{1b}[2Jsuch"], 1),
    ];
    for output in outputs {
        let said = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&said);
        assert!(!text.contains(['\u{1b}', '\u{7}', '\r', '\u{202e}']), "{text:?}");
    }
    let exact = scene.check(&["ls", "latest~1", "-0"], 0).stdout;
    assert!(exact.windows(5).any(|bytes| bytes == b"\x1b]52;"), "--null is exact: {}", exact.escape_ascii());
}

#[test]
fn completions_and_versions_need_no_repository() {
    let scene = Scene::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(scene.text(&["completions", shell]).contains("snap"));
    }
    assert!(scene.text(&["version"]).contains(env!("CARGO_PKG_VERSION")));
    assert!(scene.text(&["--version"]).contains(env!("CARGO_PKG_VERSION")));
    assert!(fs::read_dir(scene.place.path()).unwrap().next().is_none(), "nothing was written");
}

/// The largest file below a folder of the repository.
fn largest(folder: PathBuf) -> PathBuf {
    let mut found: Vec<PathBuf> = Vec::new();
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

/// Changes a byte of a file behind everybody's back.
fn rot(path: &PathBuf, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// The way from damage to a sound repository, as somebody who follows what is said on the screen goes it.
#[test]
fn repair_from_the_command_line() {
    let scene = Scene::ready();
    let bytes = [noise(1, 1_500_000), lines(2, 1_500_000)].concat();
    let backup = ["backup", "-q", "--stdin", "--stdin-filename", "db"];
    scene.feed(&backup, &bytes, 0);
    let pack = largest(scene.at("r/packs"));
    rot(&pack, 300);
    let said = String::from_utf8(scene.check(&["check", "--read-data"], 20).stdout).unwrap();
    let name = pack.file_name().unwrap().to_str().unwrap();
    assert!(said.contains(&format!("next: snap repair packs {}\n", &name[..12])), "{said}");
    assert!(said.contains("next: snap repair snapshots (after a new backup"), "{said}");
    let found: Value = serde_json::from_slice(
        scene.check(&["check", "--read-data", "--json", "-q"], 20).stdout.split(|b| *b == b'\n').nth_back(1).unwrap(),
    )
    .unwrap();
    assert_eq!(found["next"][0], format!("snap repair packs {}", &name[..12]));
    assert!(found["findings"].as_array().unwrap().iter().all(|finding| finding["repair"].is_string()), "{found}");

    scene.check(&["repair", "packs", &name[..12], "--dry-run"], 20);
    assert!(pack.exists() && !scene.at("r/aside").exists());
    let said = String::from_utf8(scene.check(&["repair", "packs", &name[..12]], 20).stdout).unwrap();
    assert!(said.contains("1 lost") && said.contains("still lost:") && said.contains(&format!("moved to aside/pack-{name}")), "{said}");
    assert!(!pack.exists() && scene.at(&format!("r/aside/pack-{name}")).exists());
    scene.check(&["repair", "packs", "ffffffffffff"], 1);
    // What is lost is stored again, and serves the old snapshot.
    scene.feed(&backup, &bytes, 0);
    let said = scene.text(&["repair", "packs", "--read-data"]);
    assert!(said.contains("none is damaged"), "{said}");
    assert!(scene.check(&["dump", "latest~1"], 0).stdout == bytes);
    scene.check(&["check", "--read-data"], 0);

    fs::remove_file(largest(scene.at("r/index"))).unwrap();
    let said = scene.text(&["repair", "index"]);
    assert!(said.contains("that no index segment listed were listed"), "{said}");
    assert!(scene.text(&["repair", "index"]).contains("nothing to repair"));

    // Now without a backup in between.
    rot(&largest(scene.at("r/packs")), 400);
    scene.check(&["repair", "packs", "--read-data", "--json"], 20);
    let cut: Value = serde_json::from_str(scene.text(&["repair", "snapshots", "--json", "-q"]).lines().last().unwrap()).unwrap();
    assert_eq!(cut["repaired"].as_array().unwrap().len(), 2, "{cut}");
    scene.check(&["check", "--read-data"], 0);
    assert_eq!(scene.count(), 2);
    let said = scene.check(&["dump", "latest"], 2);
    assert!(said.stdout.is_empty());
    let left = scene.check(&["dump", "latest", "db.damaged"], 0).stdout;
    assert!(left.len() == bytes.len() && left != bytes);
    let said = scene.text(&["snapshots"]);
    assert!(said.lines().count() > 2, "{said}");
}

#[test]
fn prune_frees_what_is_forgotten() {
    let scene = Scene::ready();
    let folder_size = || -> u64 {
        let mut sizes = Vec::new();
        for shard in fs::read_dir(scene.at("r/packs")).unwrap() {
            sizes.extend(fs::read_dir(shard.unwrap().path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()));
        }
        sizes.iter().sum()
    };
    let (old, new) = (noise(1, 2_000_000), noise(2, 1_000_000));
    scene.feed(&["backup", "--stdin", "--stdin-filename", "a", "-q"], &old, 0);
    scene.feed(&["backup", "--stdin", "--stdin-filename", "b", "-q"], &new, 0);
    // In other programs prune applies retention.
    let output = scene.check(&["prune", "--keep-daily", "7"], 2);
    assert!(stderr(&output).contains("snap forget --keep-daily"), "{}", stderr(&output));
    scene.check(&["prune", "--grace", "soon"], 2);
    let first: Value = serde_json::from_str(&scene.text(&["snapshots", "--json"])).unwrap();
    let id = first[0]["short_id"].as_str().unwrap().to_owned();
    scene.check(&["forget", &id, "--allow-remove-last", "-q"], 0);
    let plan = scene.text(&["prune", "-n"]);
    assert!(plan.contains("to delete") && plan.contains("dry run: nothing was changed"), "{plan}");
    let before = folder_size();
    let said = scene.text(&["prune"]);
    assert!(said.contains("condemned ") && said.contains("20 h"), "{said}");
    assert_eq!(folder_size(), before, "a grace for those who read or write it now");
    let output = scene.check(&["prune", "--grace", "0"], 2);
    assert!(stderr(&output).contains("--exclusive"), "{}", stderr(&output));
    scene.check(&["prune", "--exclusive", "--grace", "2h"], 2);
    let said = scene.text(&["prune", "--exclusive", "--grace", "0", "--json"]);
    let summary: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!((&summary["message_type"], &summary["dry_run"]), (&"summary".into(), &false.into()));
    assert!(summary["packs_deleted"].as_u64().unwrap() >= 1, "{summary}");
    assert!(folder_size() < before - 1_900_000);
    assert!(scene.check(&["dump", "latest"], 0).stdout == new);
    scene.check(&["check", "--read-data", "-q"], 0);
    // Temporary files of a write that was cut short go when nobody else is there, or when they are old.
    let leftover = scene.write(&format!("r/tmp/{}.tmp", "ab".repeat(16)), &[7; 5000]);
    scene.check(&["prune", "-q"], 0);
    assert!(fs::exists(&leftover).unwrap(), "somebody may be writing it");
    let old = std::time::SystemTime::now() - Duration::from_secs(25 * 3600);
    fs::File::options().write(true).open(&leftover).unwrap().set_modified(old).unwrap();
    let said = scene.text(&["prune"]);
    assert!(said.contains("1 file of writes that were cut short") && !fs::exists(&leftover).unwrap(), "{said}");
    scene.write(&format!("r/tmp/{}.tmp", "cd".repeat(16)), &[7; 5000]);
    scene.check(&["prune", "--exclusive", "-q"], 0);
    assert_eq!(fs::read_dir(scene.at("r/tmp")).unwrap().count(), 0);
    // And forget can do it in one go.
    scene.feed(&["backup", "--stdin", "--stdin-filename", "b", "-q"], &noise(3, 500_000), 0);
    let said = scene.text(&["forget", "--keep-last", "1", "--prune"]);
    assert!(said.contains("1 snapshot removed") && said.contains("condemned "), "{said}");
}

/// A snapshot that is damaged, or not ours to read, ends a prune with a code of its own.
#[test]
fn prune_says_what_it_cannot_read() {
    let scene = Scene::ready();
    scene.feed(&["backup", "--stdin", "-q"], &noise(1, 100_000), 0);
    let file = fs::read_dir(scene.at("r/snapshots")).unwrap().next().unwrap().unwrap().path();
    let bytes = fs::read(&file).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&file, &bytes[..100]).unwrap();
    let output = scene.check(&["prune"], 20);
    assert!(stderr(&output).contains(file.file_name().unwrap().to_str().unwrap()), "{}", stderr(&output));
    assert!(stderr(&output).contains("hint:"), "{}", stderr(&output));
}

#[test]
fn a_dump_that_is_cut_is_said_loudly() {
    let scene = Scene::ready();
    let whole = include_bytes!("../samples/pg_dump.sql");
    let args = ["backup", "--stdin", "--stdin-filename", "shop.sql"];
    let said = String::from_utf8(scene.feed(&args, whole, 0).stdout).unwrap();
    assert!(said.contains("dump      shop.sql: pg_dump 15.18, complete, 4 tables, 38 rows"), "{said}");
    let output = scene.feed(&args, &whole[..5000], 4);
    let said = stderr(&output);
    assert!(said.contains("shop.sql is INCOMPLETE: its closing line is missing") && said.contains("latest passes over it"), "{said}");
    assert!(said.contains("warning: this dump has 4.88 KiB, less than half of the 13.6 KiB of the one before"), "{said}");
    let listed = scene.text(&["snapshots", "-v"]);
    assert!(listed.contains("  Dump  ") && listed.contains("  INCOMPLETE  ") && listed.contains("          shop.sql: pg_dump"), "{listed}");
    assert_eq!(scene.check(&["dump", "latest"], 0).stdout, whole);
    assert_eq!(scene.check(&["dump", "latest", "--include-incomplete"], 0).stdout, &whole[..5000]);
    let listed: Value = serde_json::from_str(&scene.text(&["snapshots", "--json"])).unwrap();
    assert_eq!((&listed[0]["dumps"][0]["verdict"], &listed[1]["dumps"][0]["verdict"]), (&"complete".into(), &"incomplete".into()));
    assert_eq!((&listed[0]["complete"], &listed[1]["complete"]), (&true.into(), &false.into()));

    // Removing all but one keeps the last complete one, too.
    scene.check(&["forget", "--keep-last", "1"], 0);
    assert_eq!(scene.count(), 2);

    // A command that speaks of errors and ends with success.
    let script = "echo 'mysqldump: Error: 1045, no VIEW privilege' >&2; echo fine";
    let said = stderr(&scene.check(&["backup", "-q", "--stdin-from-command", "--", "sh", "-c", script], 0));
    assert!(said.contains("warning: the command said: mysqldump: Error: 1045"), "{said}");

    scene.feed(&[&args[..], &["--expect", "redis"]].concat(), whole, 4);
    scene.feed(&[&args[..], &["--expect", "none"]].concat(), &whole[..4000], 0);
    scene.check(&["backup", "input", "--expect", "redis"], 2);
    let packed = include_bytes!("../samples/pg_dump.sql.gz");
    let output = scene.feed(&["backup", "--stdin", "--stdin-filename", "shop.sql.gz", "--json"], packed, 0);
    let said = String::from_utf8(output.stdout).unwrap();
    let summary: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!((&summary["dumps"][0]["format"], &summary["dumps"][0]["compression"]), (&"pg_dump".into(), &"gzip".into()));
    assert!(summary["warnings"][0].as_str().unwrap().contains("shop.sql.gz is compressed (gzip)"), "{said}");
}
