//! `snap.toml`: found, trusted, obeyed by every command, explained; and no secret is ever shown.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use snap_backup::config::{EXAMPLE, parse};

use crate::cli::{Scene, expect, stderr};

fn private(scene: &Scene, name: &str, text: &str) -> String {
    let path = scene.write(name, text.as_bytes());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// `snap` without any variable that names the repository or its secret.
fn plain(scene: &Scene, args: &[&str]) -> Command {
    let mut command = scene.bare(args);
    command.env_remove("SNAP_REPOSITORY");
    command
}

fn run(scene: &Scene, args: &[&str], code: i32) -> Output {
    expect(&mut plain(scene, args), code)
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A repository that only the configuration knows, with one snapshot.
fn configured() -> Scene {
    let scene = Scene::new();
    private(&scene, "secret", "geheim\n");
    private(&scene, "snap.toml", "[repository]\npath = \"store\"\nhost = \"db1\"\npassword = { file = \"secret\" }\n");
    run(&scene, &["init", "-q"], 0);
    scene.write("data/x", b"x");
    run(&scene, &["backup", "-q", "data"], 0);
    scene
}

#[test]
fn the_repository_of_the_configuration_serves_all_commands() {
    let scene = configured();
    assert!(scene.at("store/manifest").exists(), "paths begin at the folder of the file");
    let listed: Value = serde_json::from_slice(&run(&scene, &["snapshots", "--json"], 0).stdout).unwrap();
    assert_eq!(listed[0]["hostname"], "db1");
    run(&scene, &["check"], 0);
    // From elsewhere, by its name.
    let file = scene.at("snap.toml");
    expect(plain(&scene, &["--config", file.to_str().unwrap(), "snapshots"]).current_dir("/"), 0);
    expect(plain(&scene, &["snapshots"]).current_dir("/").env("SNAP_CONFIG", &file), 0);
    expect(plain(&scene, &["snapshots"]).current_dir("/"), 2);
    // From the user's folder.
    fs::create_dir_all(scene.at(".config/snap")).unwrap();
    let text = fs::read_to_string(&file).unwrap().replace("\"store\"", "\"../../store\"").replace("\"secret\"", "\"../../secret\"");
    private(&scene, ".config/snap/snap.toml", &text);
    expect(plain(&scene, &["snapshots"]).current_dir("/"), 0);
}

#[test]
fn flags_beat_variables_beat_the_configuration() {
    let scene = configured();
    let wrong = private(&scene, "wrong", "wrong");
    let right = scene.at("secret").to_str().unwrap().to_owned();
    // Another secret for the same repository.
    run(&scene, &["snapshots", "-p", &wrong], 12);
    expect(plain(&scene, &["snapshots"]).env("SNAP_PASSWORD_FILE", &wrong), 12);
    expect(plain(&scene, &["snapshots", "-p", &right]).env("SNAP_PASSWORD_FILE", &wrong), 0);
    // A credential of the service manager is closer than the configuration.
    private(&scene, "credentials/snap.password", "wrong");
    expect(plain(&scene, &["snapshots"]).env("CREDENTIALS_DIRECTORY", scene.at("credentials")), 12);
    // Another repository.
    run(&scene, &["snapshots", "-r", "nowhere"], 10);
    expect(plain(&scene, &["snapshots"]).env("SNAP_REPOSITORY", scene.at("nowhere")), 10);
    // The same one, named: its secret is still known.
    run(&scene, &["snapshots", "-r", "store"], 0);
    run(&scene, &["snapshots", "-r", "./store/../store"], 0);
    // The secret of one repository is not tried on another: nobody can be asked here.
    let other = private(&scene, "other", "another");
    run(&scene, &["init", "-q", "-r", "elsewhere", "-p", &other], 0);
    let output = run(&scene, &["snapshots", "-r", "elsewhere"], 2);
    assert!(stderr(&output).contains("No password is given"), "{}", stderr(&output));
    // Two secrets on one level.
    private(&scene, "snap.toml", "[repository]\npath = \"store\"\npassword = { file = \"secret\" }\nkey_file = \"k\"\n");
    let output = run(&scene, &["snapshots"], 2);
    assert!(stderr(&output).contains("snap.toml:4:1: both password and key_file are given; choose one"), "{}", stderr(&output));
}

#[test]
fn a_key_file_of_the_configuration_is_made_by_init() {
    let scene = Scene::new();
    private(&scene, "snap.toml", "[repository]\npath = \"store\"\nkey_file = \"k\"\n");
    assert!(said(&run(&scene, &["config", "check"], 0)).contains("snap init makes it"));
    run(&scene, &["init", "-q"], 0);
    run(&scene, &["snapshots"], 0);
    fs::set_permissions(scene.at("k"), fs::Permissions::from_mode(0o644)).unwrap();
    run(&scene, &["config", "check"], 2);
}

#[test]
fn what_others_could_have_written_is_refused() {
    let scene = configured();
    let file = scene.at("snap.toml");
    for (mode, code) in [(0o666, 2), (0o644, 0), (0o640, 0)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let output = run(&scene, &["snapshots"], code);
        assert_eq!(code == 2, stderr(&output).contains("it names commands to run"), "{mode:o}: {}", stderr(&output));
    }
    // Whoever says what to use is not stopped by it.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    run(&scene, &["snapshots", "-r", "store", "-p", "secret"], 0);
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can make files of others");
        return;
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    chown(&file, Some(54321), None).unwrap();
    let output = run(&scene, &["snapshots"], 2);
    assert!(stderr(&output).contains("belongs to another user (54321"), "{}", stderr(&output));
    run(&scene, &["--config", file.to_str().unwrap(), "snapshots"], 0);
    // A link of somebody else's to a file of ours.
    fs::rename(&file, scene.at("real.toml")).unwrap();
    chown(scene.at("real.toml"), Some(0), None).unwrap();
    std::os::unix::fs::symlink("real.toml", &file).unwrap();
    run(&scene, &["snapshots"], 0);
    std::os::unix::fs::lchown(&file, Some(54321), None).unwrap();
    assert!(stderr(&run(&scene, &["snapshots"], 2)).contains("is a link of another user"));
}

/// A pipe of that name in a folder for all, say, must not hold up whoever works there.
#[test]
fn what_is_no_file_is_passed_over() {
    let scene = Scene::new();
    let made = Command::new("mkfifo").arg(scene.at("snap.toml")).status().unwrap();
    assert!(made.success());
    assert!(stderr(&run(&scene, &["snapshots"], 2)).contains("No repository is given"));
    fs::remove_file(scene.at("snap.toml")).unwrap();
    fs::create_dir(scene.at("snap.toml")).unwrap();
    assert!(stderr(&run(&scene, &["snapshots"], 2)).contains("No repository is given"));
}

#[test]
fn a_mistake_in_a_job_is_not_in_the_way_of_a_restore() {
    let scene = configured();
    let text = fs::read_to_string(scene.at("snap.toml")).unwrap();
    private(&scene, "snap.toml", &format!("{text}[jobs.a]\ntimeout = 5\n"));
    let output = run(&scene, &["restore", "latest", "-t", "out"], 0);
    assert!(stderr(&output).contains("2 mistakes in"), "{}", stderr(&output));
    run(&scene, &["config", "show"], 2);
    private(&scene, "snap.toml", &text.replace("path", "paht"));
    let output = run(&scene, &["snapshots"], 2);
    assert!(stderr(&output).contains("snap.toml:2:1: unknown key \"paht\" in repository; did you mean path?"), "{}", stderr(&output));
}

#[test]
fn check_says_everything_at_once() {
    let scene = Scene::new();
    private(&scene, "good", "geheim");
    scene.write("open", b"geheim");
    fs::set_permissions(scene.at("open"), fs::Permissions::from_mode(0o644)).unwrap();
    let text = r#"
[repository]
path = "store"
password = { file = "open" }
[jobs.a]
postgres = { database = "a", password = { file = "none" } }
timeout = "soon"
[jobs.b]
command = ["no-such-program", "--password=geheim"]
[jobs.c]
command = ["no-such-program"]
run_as = "nobody-of-this-name"
[jobs.d]
files = ["missing"]
exclude = [".."]
secrets = { X = "geheim" }
[jobs.e]
shell = "true"
name = "e"
secrets = { X = { env = "NOT_SET" }, Y = { file = "good" } }
"#;
    private(&scene, "snap.toml", text);
    let output = run(&scene, &["config", "check"], 2);
    let file = scene.at("snap.toml").display().to_string();
    let found: Vec<String> = said(&output).lines().map(|line| line.replacen(&format!("{file}:"), "", 1)).collect();
    let place = |name: &str| scene.at(name).display().to_string();
    let expected = [
        format!("4:21: error: {0} holds a secret and can be read by everybody; run chmod 600 {0}", place("open")),
        format!("6:50: error: {} is not there", place("none")),
        "7:11: error: timeout: write a length of time such as \"90s\", \"15m\", \"26h\" or \"7d\" (m: minutes)".into(),
        "9:11: error: command: there is a password in clear in the command".into(),
        "11:12: warning: there is no no-such-program in the PATH; is it installed?".into(),
        "12:10: warning: there is no user nobody-of-this-name on this machine".into(),
        format!("14:10: warning: {} is not there", place("missing")),
        "15:12: error: ".into(),
        "16:1: error: secrets goes with commands, not with files".into(),
        "16:17: error: X: a secret never stands here in clear".into(),
        "20:25: warning: the variable NOT_SET is not set here".into(),
    ];
    for expected in &expected {
        assert!(found.iter().any(|line| line.starts_with(expected)), "{expected}\nis not in\n{}", found.join("\n"));
    }
    assert!(!said(&output).contains("geheim") && !stderr(&output).contains("geheim"));
    assert!(stderr(&output).contains("errors and"), "{}", stderr(&output));
    let json: Value = serde_json::from_slice(&run(&scene, &["config", "check", "--json"], 2).stdout).unwrap();
    assert_eq!(json["errors"][0]["line"], 4);

    private(&scene, "snap.toml", "[jobs.a]\nfiles = \"good\"\n");
    assert_eq!(said(&run(&scene, &["config", "check"], 0)), format!("{file} is right: 1 job\n"));
    fs::remove_file(scene.at("snap.toml")).unwrap();
    let output = run(&scene, &["config", "check"], 2);
    assert!(stderr(&output).contains("There is no configuration; looked for ./snap.toml, "), "{}", stderr(&output));
}

#[test]
fn show_prints_what_will_be_run_and_no_secret() {
    let scene = Scene::new();
    let text = r#"
[repository]
path = "/srv/backup"
password = { file = "secret" }
[jobs.orders]
keep = { daily = 30 }
timeout = "90m"
postgres = { databases = ["orders", "it's"], host = "db1", password = { file = "secret" } }
environment = { PGSSLMODE = "require" }
[jobs.orders.drill]
place = "postgres"
check = { sql = "select count(*) from orders", min = 1 }
[jobs.app]
sqlite = "/srv/app.db"
[notify]
webhook = { url = { env = "HOOK" } }
[serve]
token = { command = ["pass", "token"] }
"#;
    private(&scene, "secret", "geheim-in-file");
    private(&scene, "snap.toml", text);
    let show = |args: &[&str]| {
        let output = expect(plain(&scene, args).env("HOOK", "https://geheim-in-variable"), 0);
        assert!(!said(&output).contains("geheim") && !stderr(&output).contains("geheim"));
        said(&output)
    };
    let secret = scene.at("secret").display().to_string();
    let shown = show(&["config", "show"]);
    for expected in [
        "repository     /srv/backup\n".to_owned(),
        format!("opened with    the file {secret}\n"),
        "tell           json webhook, address from the variable HOOK\n".into(),
        "serve token    the output of pass\n".into(),
        "job app\n  tier           important\n".into(),
        "  schedule       daily 02:15\n".into(),
        "  objective      max age 26h\n".into(),
        "    runs         sqlite3 -batch -bail -readonly /srv/app.db '.timeout 60000' '.backup main '\\''COPY'\\'''\n".into(),
        "job orders\n".into(),
        "  timeout        1h30m\n".into(),
        "  keep           keep-daily 30\n".into(),
        "  stream         orders.sql\n".into(),
        format!(
            "    runs         PGPASSWORD=\"$(cat {secret})\" PGSSLMODE=require pg_dump --no-password --format=plain --host=db1 'it'\\''s'\n"
        ),
        "    asks         select count(*) from orders -> 1..".into(),
    ] {
        assert!(shown.contains(&expected), "{expected}\nis not in\n{shown}");
    }
    assert!(!show(&["config", "show", "app"]).contains("orders"));
    let json: Value = serde_json::from_str(&show(&["config", "show", "--json"])).unwrap();
    assert_eq!(json["jobs"][1]["sources"][0]["secrets"]["PGPASSWORD"]["file"], *secret);
    assert_eq!(json["jobs"][1]["sources"][0]["command"][0], "pg_dump");
    let json: Value = serde_json::from_str(&show(&["config", "show", "orders", "--json"])).unwrap();
    assert_eq!((&json["name"], &json["timeout_seconds"]), (&"orders".into(), &5400.into()));
    assert!(stderr(&run(&scene, &["config", "show", "ordres"], 2)).contains("there is app, orders"));
}

#[test]
fn the_example_is_printed_and_can_be_used() {
    let scene = Scene::new();
    assert_eq!(said(&run(&scene, &["config", "example"], 0)), EXAMPLE);
    private(&scene, "snap.toml", EXAMPLE);
    let shown = said(&run(&scene, &["config", "show"], 0));
    assert!(shown.contains("job everything\n") && shown.contains("runuser -u postgres -- pg_dumpall"), "{shown}");
}

#[test]
fn the_manual_has_every_key() {
    let manual = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/MANUAL.md")).unwrap();
    let section = manual.split("## The configuration file").nth(1).unwrap().split("\n## ").next().unwrap();
    let found = parse(EXAMPLE.as_bytes(), Path::new("/etc/snap/snap.toml"));
    assert!(found.keys.len() > 80);
    let forms = |key: &str| [format!("`{key}`"), format!("`{key} ="), format!("{{ {key} ="), format!("[{key}]"), format!("`[{key}.")];
    let is_there = |key: &str| forms(key).iter().any(|form| section.contains(form));
    let missing: Vec<_> = found.keys.iter().filter(|(_, key)| !is_there(key)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
