//! Telling people: what is sent, to whom, how often, and what becomes of a night when nobody can be reached.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use snap_backup::config::{Notify, SecretFrom};
use snap_backup::error::Error;
use snap_backup::format::report::{Did, Outcome, Report, Run};
use snap_backup::notify::{Missing, Notifier};

use crate::cli::{Scene, stderr};

const SECRET: &str = "T0pSecretToken";

/// A server on this machine, and what it was sent: a line for each HTTP request, "PATH BODY", or the lines of SMTP.
struct Server {
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(serve: impl Fn(TcpStream, &Mutex<Vec<String>>) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { port: listener.local_addr().unwrap().port(), seen: Arc::default() };
        let seen = server.seen.clone();
        std::thread::spawn(move || listener.incoming().for_each(|stream| serve(stream.unwrap(), &seen)));
        server
    }

    /// One that answers every request with this status.
    fn http(status: &'static str) -> Self {
        Self::start(move |mut stream, seen| {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            let mut length = 0;
            while line != "\r\n" {
                line.clear();
                reader.read_line(&mut line).unwrap();
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            seen.lock().unwrap().push(format!("{path} {}", String::from_utf8(body).unwrap()));
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nLocation: /{SECRET}\r\nConnection: close\r\n\r\n").unwrap();
        })
    }

    /// One that takes requests and never answers.
    fn hanging() -> Self {
        let held = Mutex::new(Vec::new());
        Self::start(move |stream, _| held.lock().unwrap().push(stream))
    }

    /// The port of one that is not there.
    fn refusing() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { port, seen: Arc::default() }
    }

    /// Takes mail; offers nothing: no TLS, no way to log in.
    fn smtp() -> Self {
        Self::start(|mut stream, seen| {
            let reader = BufReader::new(stream.try_clone().unwrap());
            stream.write_all(b"220 here\r\n").unwrap();
            let mut in_data = false;
            for line in reader.lines().map_while(Result::ok) {
                seen.lock().unwrap().push(line.clone());
                let answer: &[u8] = match line.as_str() {
                    "." => b"250 taken\r\n",
                    _ if in_data => continue,
                    "DATA" => b"354 go on\r\n",
                    "QUIT" => b"221 bye\r\n",
                    line if line.starts_with("EHLO") => b"250-here\r\n250 8BITMIME\r\n",
                    _ => b"250 ok\r\n",
                };
                in_data = line == "DATA";
                if stream.write_all(answer).is_err() {
                    return;
                }
            }
        })
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// Paths only.
    fn paths(&self) -> Vec<String> {
        self.take().iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    }
}

/// A file that only its owner can read, as a configuration names it.
fn secret(scene: &Scene, name: &str, text: &str) -> String {
    let path = scene.write(name, text.as_bytes());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    format!("{{ file = \"{path}\" }}")
}

/// A job `good` that goes well and a job `bad` that does not; and the rest of the configuration.
fn configure(scene: &Scene, rest: &str) {
    let jobs = "[jobs.good]\ncommand = [\"echo\", \"one\"]\n[jobs.bad]\ncommand = [\"false\"]\n";
    scene.write("snap.toml", format!("[repository]\npath = \"r\"\nhost = \"db1\"\n{jobs}{rest}").as_bytes());
}

/// A command that puts each message into a line of `told`.
fn into_file(folder: &Path) -> Vec<String> {
    ["sh".into(), "-c".into(), format!("cat >> {0}; echo >> {0}", folder.join("told").display())].to_vec()
}

/// The events that were told since the last time, and what of.
fn told(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("told")).unwrap_or_default();
    let _ = fs::remove_file(folder.join("told"));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn events(folder: &Path) -> Vec<String> {
    told(folder).iter().map(|message| message["event"].as_str().unwrap().to_owned()).collect()
}

fn later(hours: f64) -> Timestamp {
    "2026-11-21T02:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs_f64(hours * 3600.0)
}

fn report(exit_code: u8) -> Report {
    Report {
        time: later(0.0),
        seconds: 1.0,
        host: "db1".into(),
        user: String::new(),
        program: String::new(),
        outcome: if exit_code == 0 { Outcome::Good } else { Outcome::Failed },
        error: (exit_code != 0).then(|| "pg_dump: exited with code 1".into()),
        exit_code,
        warnings: Vec::new(),
        did: Did::Run(Run { job: "orders".into(), ..Run::default() }),
    }
}

fn notifier(folder: &Path, notify: Notify) -> Notifier {
    let fetch = Arc::new(|from: &SecretFrom| Err(Error::NotFound(format!("no secret {from:?}"))));
    Notifier::new(notify, fetch, Some(folder.join("state")), Path::new("/etc/snap/snap.toml"))
}

#[test]
fn trouble_is_told_once_and_its_end_once() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let notify = Notify { command: Some(into_file(folder)), ..Notify::default() };
    // A new one each time: runs are processes of their own.
    let ended = |exit_code, hours| {
        assert_eq!(notifier(folder, notify.clone()).ended(&report(exit_code), later(hours)), Vec::<String>::new());
        events(folder)
    };
    let none: [&str; 0] = [];
    assert_eq!(ended(0, 0.0), none);
    assert_eq!(ended(4, 0.0), ["failed"]);
    for hours in [0.1, 1.0, 20.0] {
        assert_eq!(ended(4, hours), none, "{hours}");
    }
    // Other trouble is other trouble, but by turns they make no storm.
    assert_eq!(ended(1, 20.5), ["failed"]);
    assert_eq!(ended(4, 20.6), none);
    assert_eq!(ended(1, 20.7), none);
    // The next night, though it failed a little sooner than in the night before.
    assert_eq!(ended(4, 23.9), ["failed"]);
    // A clock that was set back does not silence it.
    assert_eq!(ended(4, 1.0), ["failed"]);
    notifier(folder, notify.clone()).ended(&report(0), later(30.0));
    let message = &told(folder)[0];
    assert_eq!((&message["event"], &message["job"], &message["hostname"]), (&"recovered".into(), &"orders".into(), &"db1".into()));
    assert_eq!(message["since"], "2026-11-21T02:00:00Z");
    assert_eq!(ended(0, 30.1), none);
    assert_eq!(ended(4, 30.2), ["failed"]);
    // A state that is broken or lost costs one message more.
    let file =
        fs::read_dir(folder.join("state")).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.extension().unwrap() == "told");
    fs::write(file.as_ref().unwrap(), b"{\"run").unwrap();
    assert_eq!(ended(4, 30.3), ["failed"]);
    assert_eq!(ended(4, 30.4), none);
    fs::remove_file(file.unwrap()).unwrap();
    assert_eq!(ended(4, 30.5), ["failed"]);
    // Where everything is told.
    let eager = Notify { on_success: true, ..notify };
    for expected in ["recovered", "succeeded", "succeeded"] {
        notifier(folder, eager.clone()).ended(&report(0), later(31.0));
        assert_eq!(events(folder), [expected]);
    }
}

#[test]
fn who_could_not_be_told_is_told_the_next_time() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let deaf = Notify { command: Some(vec!["false".into()]), ..Notify::default() };
    let hears = Notify { command: Some(into_file(folder)), ..Notify::default() };
    let warnings = notifier(folder, deaf.clone()).ended(&report(4), later(0.0));
    assert_eq!(warnings, ["the notify command could not be told: it exited with code 1"]);
    notifier(folder, hears.clone()).ended(&report(4), later(0.1));
    assert_eq!(events(folder), ["failed"]);
    notifier(folder, deaf).ended(&report(0), later(0.2));
    notifier(folder, hears.clone()).ended(&report(0), later(0.3));
    assert_eq!(events(folder), ["recovered"]);
    // Who is added to the configuration hears of what is wrong already.
    assert!(notifier(folder, Notify::default()).ended(&report(4), later(0.4)).is_empty());
    notifier(folder, hears).ended(&report(4), later(0.5));
    assert_eq!(events(folder), ["failed"]);
}

/// Whatever ends the program while it tells, nobody is left in the dark for a day.
#[test]
fn it_is_noted_only_when_somebody_was_told() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    // It notes what is noted while it is told.
    let state = folder.join("state");
    let line = format!("cat > {0}/message; cat {1}/*.told > {0}/during 2> {0}/none; true", folder.display(), state.display());
    let notify = Notify { command: Some(["sh".into(), "-c".into(), line].to_vec()), ..Notify::default() };
    let missing = Missing { host: "db1".into(), job: Some("orders".into()), objective: "max_age".into(), message: "old".into() };
    let noted = |what: &str| {
        let during = fs::read_to_string(folder.join("during")).unwrap();
        let file = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.extension().unwrap() == "told");
        [during, fs::read_to_string(file.unwrap()).unwrap()].map(|text| text.contains(what))
    };
    notifier(folder, notify.clone()).ended(&report(4), later(0.0));
    assert_eq!(noted("run"), [false, true]);
    notifier(folder, notify.clone()).missed(std::slice::from_ref(&missing), &[], later(0.1));
    assert_eq!(noted("max_age"), [false, true]);
    notifier(folder, notify.clone()).ended(&report(0), later(0.2));
    assert_eq!(noted("run"), [true, false]);
    notifier(folder, notify).missed(&[], &[], later(0.3));
    assert_eq!(noted("max_age"), [true, false]);
}

#[test]
fn what_is_missed_is_told_together() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let missing = |job: &str| Missing {
        host: "db1".into(),
        job: Some(job.into()).filter(|job: &String| !job.is_empty()),
        objective: "max_age".into(),
        message: format!("{job} is old"),
    };
    let look = |jobs: &[&str], hours, is_whole: bool| {
        let notify = Notify { command: Some(into_file(folder)), ..Notify::default() };
        let missing: Vec<Missing> = jobs.iter().map(|job| missing(job)).collect();
        let notifier = notifier(folder, notify);
        let watched = [("db1", "a b"), ("db1", "c")];
        let warnings = match is_whole {
            true => notifier.missed(&missing, &watched, later(hours)),
            false => notifier.still_missed(&missing, later(hours)),
        };
        assert!(warnings.is_empty());
        let of = |message: &Value| {
            let jobs = message["missed"].as_array().unwrap().iter();
            let jobs: Vec<&str> = jobs.map(|missing| missing["job"].as_str().unwrap_or("-")).collect();
            format!("{} {}", message["event"].as_str().unwrap(), jobs.join(" "))
        };
        told(folder).iter().map(of).collect::<Vec<_>>()
    };
    let none: [&str; 0] = [];
    assert_eq!(look(&["a b", "c"], 0.0, true), ["missed a b c"]);
    assert_eq!(look(&["a b", "c"], 1.0, true), none);
    assert_eq!(look(&["a b", "c", ""], 2.0, true), ["missed -"]);
    // What cannot be seen has not recovered.
    assert_eq!(look(&["c"], 3.0, false), none);
    assert_eq!(look(&["c"], 4.0, true), ["recovered - a b"]);
    assert_eq!(look(&["c"], 30.0, true), ["missed c"]);
    assert_eq!(look(&[], 31.0, true), ["recovered c"]);
    assert_eq!(look(&[], 32.0, true), none);
}

#[test]
fn receivers_hear_of_runs_and_no_address_is_ever_said() {
    let scene = Scene::ready();
    let (pings, hook) = (Server::http("200 OK"), Server::http("204 No Content"));
    let ping = secret(&scene, "ping", &pings.url(SECRET));
    let url = secret(&scene, "url", &hook.url(SECRET));
    configure(&scene, &format!("[notify.pings]\n\"*\" = {ping}\n[[notify.webhook]]\nurl = {url}\n"));
    let output = scene.check(&["run", "good"], 0);
    assert_eq!(stderr(&output), "");
    assert_eq!((pings.paths(), hook.take()), (vec![format!("/{SECRET}/start"), format!("/{SECRET}")], vec![]));
    for told in [true, false] {
        scene.check(&["run", "bad"], 4);
        assert_eq!(pings.paths(), [format!("/{SECRET}/start"), format!("/{SECRET}/fail")]);
        let seen = hook.take();
        assert_eq!(seen.len(), usize::from(told));
        let Some(seen) = seen.first() else { continue };
        let (path, body) = seen.split_once(' ').unwrap();
        let message: Value = serde_json::from_str(body).unwrap();
        assert_eq!((path, &message["event"], &message["job"]), (&*format!("/{SECRET}"), &"failed".into(), &"bad".into()));
        assert_eq!((&message["hostname"], &message["report"]["exit_code"]), (&"db1".into(), &4.into()));
        assert!(message["title"].as_str().unwrap().contains("bad on db1") && message["text"].as_str().unwrap().contains("false"), "{body}");
    }
    // A repository that is not there is trouble, too.
    fs::rename(scene.at("r"), scene.at("gone")).unwrap();
    scene.check(&["run", "good"], 10);
    assert_eq!(pings.paths(), [format!("/{SECRET}/fail")]);
    assert_eq!(hook.take().len(), 1);
    fs::rename(scene.at("gone"), scene.at("r")).unwrap();
    scene.check(&["run", "good"], 0);
    assert!(hook.take()[0].contains("\"event\":\"recovered\""));
    // Nothing is told of a run that is only tried.
    pings.take();
    scene.check(&["run", "--dry-run"], 0);
    assert!(pings.take().is_empty());
}

#[test]
fn a_night_goes_on_when_nobody_can_be_reached() {
    let scene = Scene::ready();
    let servers = [Server::hanging(), Server::refusing(), Server::http("500 Oh"), Server::http("302 Found")];
    let mut rest = String::from("[notify]\non_success = true\ncommand = [\"sh\", \"-c\", \"echo T0pSecretToken; exit 3\"]\n");
    for (number, server) in servers.iter().enumerate() {
        rest += &format!("[[notify.webhook]]\nurl = {}\n", secret(&scene, &format!("url{number}"), &server.url(SECRET)));
    }
    rest += &format!("[[notify.webhook]]\nurl = {}\n", secret(&scene, "odd", &format!("gopher://{SECRET}")));
    rest += &format!("[notify.mail]\nserver = \"127.0.0.1\"\nport = {}\nfrom = \"a@b.c\"\nto = \"d@e.f\"\n", servers[1].port);
    rest += &format!("[notify.pings]\ngood = {}\n", secret(&scene, "ping", &servers[0].url(SECRET)));
    configure(&scene, &rest);
    let output = scene.check(&["run", "good", "--json"], 0);
    // Behind lines of progress, where it took longer than a second.
    let said = String::from_utf8_lossy(&output.stdout);
    let summary: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
    assert!(!said.contains(SECRET) && !said.contains("127.0.0.1:"), "{said}");
    for expected in [
        "the ping for good could not be told: it did not answer",
        "webhook 1 could not be told: it did not answer",
        "webhook 2 could not be told: it refused the connection",
        "webhook 3 could not be told: it answered 500",
        "webhook 4 could not be told: it answered 302 (elsewhere)",
        "webhook 5 could not be told: its address does not begin with https://",
        "mail could not be told: it refused the connection",
        "the notify command could not be told: it exited with code 3",
    ] {
        assert!(summary.to_string().contains(expected), "{expected}: {said}");
    }
    assert_eq!(scene.count(), 1);
    // It is in the stored report, which says no address either.
    let audit = scene.text(&["audit", "--json"]);
    assert!(!audit.contains(SECRET), "{audit}");
}

/// A typing mistake in one job is no reason for silence: then no job is run at all.
#[test]
fn a_mistake_in_the_configuration_is_told() {
    let scene = Scene::ready();
    let folder = scene.at("");
    let command = into_file(&folder)[2].clone();
    let notify = format!("[notify]\ncommand = [\"sh\", \"-c\", \"{command}\"]\n");
    let wrong = format!("{notify}[jobs.other]\nkeep = 3\n");
    configure(&scene, &wrong);
    let output = scene.check(&["run", "good"], 2);
    assert!(stderr(&output).contains("jobs.other"), "{}", stderr(&output));
    let messages = told(&folder);
    assert_eq!((messages.len(), &messages[0]["event"]), (1, &"missed".into()));
    let missed = &messages[0]["missed"][0];
    assert_eq!((&missed["objective"], &missed["hostname"], &missed["job"]), (&"configuration".into(), &"db1".into(), &Value::Null));
    assert!(missed["message"].as_str().unwrap().contains("snap.toml:"), "{missed}");
    // Once, whoever finds it; a look ahead tells nobody.
    scene.check(&["run", "good"], 2);
    scene.check(&["-q", "status", "--notify"], 2);
    assert!(told(&folder).is_empty());
    configure(&scene, &notify);
    scene.check(&["run", "--dry-run", "good"], 0);
    assert!(told(&folder).is_empty());
    scene.check(&["run", "good"], 0);
    assert_eq!(events(&folder), ["recovered"]);
    configure(&scene, &wrong);
    scene.check(&["-q", "status", "--notify"], 2);
    assert_eq!(events(&folder), ["missed"]);
    // Where it is wrong who is to be told, nobody is.
    configure(&scene, &format!("{notify}on_sucess = true\n"));
    fs::remove_dir_all(scene.at(".local/state")).unwrap();
    scene.check(&["run", "good"], 2);
    assert!(told(&folder).is_empty());
}

#[test]
fn mail_goes_out_as_configured_and_never_with_less() {
    let scene = Scene::ready();
    let server = Server::smtp();
    let mail = |security: &str| {
        let mail = format!("server = \"127.0.0.1\"\nport = {}\nsecurity = \"{security}\"\nfrom = \"snap@b.example\"", server.port);
        configure(&scene, &format!("[notify.mail]\n{mail}\nto = [\"a@c.example\", \"b@c.example\"]\n"));
    };
    mail("none");
    scene.check(&["run", "bad"], 4);
    let seen = server.take();
    for expected in ["EHLO db1", "RCPT TO:<b@c.example>", "Subject: [snap] backup of bad on db1 FAILED"] {
        assert!(seen.iter().any(|line| line.starts_with(expected)), "{expected}: {seen:?}");
    }
    assert!(seen.iter().any(|line| line.contains("false")) && seen.contains(&".".to_owned()), "{seen:?}");
    // Encryption that is wanted and not there: nothing of the message is sent.
    for security in ["starttls", "tls"] {
        mail(security);
        scene.check(&["config", "check", "--notify"], 1);
        let seen = server.take();
        assert!(seen.iter().all(|line| line.starts_with("EHLO") || line == "QUIT" || !line.is_ascii()), "{seen:?}");
        assert!(security == "tls" || !seen.is_empty());
    }
}

#[test]
fn a_test_message_reaches_everybody() {
    let scene = Scene::ready();
    let server = Server::http("200 OK");
    let url = |name: &str| secret(&scene, name, &server.url(name));
    let webhooks: String =
        ["json", "slack", "discord"].map(|form| format!("[[notify.webhook]]\nurl = {}\nform = \"{form}\"\n", url(form))).concat();
    configure(&scene, &format!("[notify]\ncommand = [\"true\"]\n{webhooks}[notify.pings]\ngood = {}\n", url("ping")));
    let output = scene.check(&["config", "check", "--notify"], 0);
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(said.contains("webhook 2 (Slack): the test message was taken") && said.contains("ping for good: the test"), "{said}");
    let mut seen = server.take();
    seen.sort();
    let (paths, bodies): (Vec<&str>, Vec<&str>) = seen.iter().map(|line| line.split_once(' ').unwrap()).unzip();
    assert_eq!(paths, ["/discord", "/json", "/ping/log", "/slack"]);
    let json = |body: &str| serde_json::from_str::<Value>(body).unwrap();
    assert_eq!(json(bodies[1])["event"], "test");
    for (body, key) in [(bodies[0], "content"), (bodies[3], "text")] {
        assert!(json(body)[key].as_str().unwrap().starts_with("snap on db1: this is a test\n"), "{body}");
    }
    // Without the flag nothing is sent; what does not arrive is said.
    scene.check(&["config", "check"], 0);
    assert!(server.take().is_empty());
    secret(&scene, "json", &Server::http("403 Forbidden").url(SECRET));
    let output = scene.check(&["config", "check", "--notify", "--json"], 1);
    let answer = json(&String::from_utf8(output.stdout.clone()).unwrap());
    assert_eq!(answer["notified"][0]["error"], "it answered 403");
    assert_eq!(answer["notified"][1]["error"], Value::Null);
    assert!(!stderr(&output).contains(SECRET));
    configure(&scene, "");
    scene.check(&["config", "check", "--notify"], 2);
}

#[test]
fn status_tells_what_is_missed_and_runs_write_metrics() {
    let scene = Scene::ready();
    let folder = scene.at("");
    let command = into_file(&folder)[2].clone();
    let config = |jobs: &str| {
        let file = scene.at("snap.prom");
        let text = format!("[repository]\npath = \"r\"\nhost = \"db1\"\nmetrics_file = \"{}\"\n{jobs}", file.display());
        scene.write("snap.toml", format!("{text}[notify]\ncommand = [\"sh\", \"-c\", \"{command}\"]\n").as_bytes());
    };
    config("[jobs.orders]\ncommand = [\"echo\", \"one\"]\n");
    scene.check(&["-q", "status"], 30);
    assert!(told(&folder).is_empty());
    for expected in [&["missed"][..], &[]] {
        scene.check(&["-q", "status", "--notify"], 30);
        assert_eq!(events(&folder), expected);
    }
    for other in ["orders", "--all", "--max-age=8d"] {
        scene.check(&["status", "--notify", other], 2);
    }
    // Nothing can be seen: that is told, and nothing has recovered.
    fs::rename(scene.at("r"), scene.at("gone")).unwrap();
    scene.check(&["-q", "status", "--notify"], 10);
    let message = &told(&folder)[0];
    assert_eq!((&message["event"], &message["missed"][0]["objective"]), (&"missed".into(), &"readable".into()));
    fs::rename(scene.at("gone"), scene.at("r")).unwrap();
    assert!(!scene.at("snap.prom").exists());
    scene.check(&["run"], 0);
    let metrics = fs::read_to_string(scene.at("snap.prom")).unwrap();
    assert!(metrics.contains("snap_job_last_try_success{host=\"db1\",job=\"orders\"} 1"), "{metrics}");
    scene.check(&["-q", "status", "--notify"], 0);
    let messages = told(&folder);
    assert_eq!((messages.len(), &messages[0]["event"]), (1, &"recovered".into()));
    assert_eq!(messages[0]["missed"].as_array().unwrap().len(), 3);
    // A file that cannot be written is a warning.
    fs::remove_file(scene.at("snap.prom")).unwrap();
    fs::create_dir(scene.at("snap.prom")).unwrap();
    assert!(stderr(&scene.check(&["run"], 0)).contains("warning: the metrics were not written"));
}
