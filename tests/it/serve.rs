//! The pages and answers of `snap serve`, asked over plain sockets as browsers, monitors and worse do.

use std::cell::Cell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use snap_backup::ops::browse::{list, page};

use crate::cli::{Scene, is_ignored};
use crate::support::{Bench, options, save_tree, select};

/// A server, ended with the test.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(scene: &Scene, more: &[&str]) -> Self {
        let args = [&["serve", "--listen", "127.0.0.1:0", "--json"], more].concat();
        let mut child = scene.snap(&args).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
        Self { address: said["address"].as_str().unwrap().parse().unwrap(), child }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        // So that a test that fails ends.
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// Sends bytes as they are, and reads the status and the whole answer.
    fn say(&self, bytes: &[u8]) -> (u16, String) {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        answer(&mut stream)
    }

    fn ask(&self, head: &str) -> (u16, String) {
        self.say(format!("{head}\r\n\r\n").as_bytes())
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: {}", self.address))
    }

    /// Ends it by a signal; its exit code.
    fn end(&mut self, signal: Signal) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answer(stream: &mut TcpStream) -> (u16, String) {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
    (status.unwrap_or_else(|| panic!("{text:?}")), text)
}

fn body(text: &str) -> &str {
    text.split_once("\r\n\r\n").unwrap().1
}

fn back_up(scene: &Scene, name: &str, bytes: &[u8], more: &[&str]) {
    let args = [&["-q", "backup", "--stdin", "--stdin-filename", name, "--host", "db1"], more].concat();
    scene.feed(&args, bytes, 0);
}

const HOSTILE: &str = "<script>alert('1')";

#[test]
fn every_page_is_there_and_harmless() {
    let scene = Scene::ready();
    back_up(&scene, "orders", b"one", &[]);
    back_up(&scene, HOSTILE, b"two", &["--tag", "\"><u>"]);
    scene.write("data/<img src=x>/a&b", b"x");
    scene.write("data/z", b"x");
    scene.check(&["-q", "backup", "data", "--host", "db1"], 0);
    let listed: Value = serde_json::from_str(&scene.text(&["snapshots", "--json"])).unwrap();
    let ids: Vec<&str> = listed.as_array().unwrap().iter().map(|snapshot| snapshot["id"].as_str().unwrap()).collect();
    let server = Server::start(&scene, &[]);
    let (files, folder) = (format!("/snapshot/{}/files", ids[2]), format!("/snapshot/{}/files?in=data", &ids[2][..8]));
    for (path, part) in [
        ("/", "orders"),
        ("/", "&lt;script&gt;alert(&#39;1&#39;)"),
        ("/job/db1/orders", "<h2>Nights</h2>"),
        ("/job/db1/%3Cscript%3Ealert%28%271%27%29", "&lt;script&gt;"),
        ("/job/db1/orders/snapshots", &ids[0][..8]),
        ("/runs", "No run left a report"),
        ("/drills", "No restore was tried out"),
        ("/snapshots", "&quot;&gt;&lt;u&gt;"),
        (&format!("/snapshot/{}", ids[1]), "&lt;script&gt;"),
        (&files, "?in=data\">data/</a>"),
        (&folder, "&lt;img src=x&gt;/</a>"),
        (&format!("{files}?in=data%2F%3Cimg%20src%3Dx%3E"), "a&amp;b"),
        (&format!("{files}?in=data&after=%3Cimg%20src%3Dx%3E"), ">z "),
    ] {
        let (status, text) = server.get(path);
        assert!(status == 200 && body(&text).contains(part), "{path}: {text}");
        for raw in ["<script", "<img", "<u>"] {
            assert!(!body(&text).contains(raw), "{path}: {raw}");
        }
        for header in [
            "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline';",
            "X-Content-Type-Options: nosniff",
            "Referrer-Policy: no-referrer",
            "Cache-Control: no-store",
        ] {
            assert!(text.contains(header), "{path}: {header}");
        }
    }
    for path in
        ["/x", "/job/db1/none", "/job/db1", "/snapshot/zz", "/snapshot/", "/../etc/passwd", "/job/db1/orders/x", "/%ff", "/style.css"]
    {
        assert_eq!(server.get(path).0, 404, "{path}");
    }
    assert_eq!(server.get(&format!("{files}?in=../../etc")).0, 404);
}

#[test]
fn monitors_get_what_status_says() {
    let scene = Scene::ready();
    back_up(&scene, "orders", b"one", &[]);
    back_up(&scene, "old", b"two", &["--time", "2026-01-01 02:00:00"]);
    let server = Server::start(&scene, &[]);
    let health = |path: &str| {
        let (status, text) = server.get(path);
        (status, serde_json::from_str::<Value>(body(&text)).unwrap())
    };
    let (status, said) = health("/health");
    assert_eq!((status, &said["status"]), (503, &"unhealthy".into()));
    assert!(said["missed"][0].as_str().unwrap().starts_with("old on db1: "));
    let (status, said) = health("/health/orders");
    assert_eq!((status, &said["status"], &said["backupAge"]), (200, &"healthy".into(), &"0 minutes".into()));
    assert_eq!(health("/health/none").0, 404);
    let (status, metrics) = server.get("/metrics");
    assert!(status == 200 && body(&metrics).contains("snap_job_healthy{host=\"db1\",job=\"old\"} 0\n"), "{metrics}");
    let (status, head) = server.ask(&format!("HEAD /health/orders HTTP/1.1\r\nHost: {}", server.address));
    assert!(status == 200 && body(&head).is_empty());
    drop(server);
    let patient = Server::start(&scene, &["--max-age", "36000d"]);
    assert_eq!(patient.get("/health").0, 200);
    // A repository that cannot be read is never healthy.
    std::fs::rename(scene.at("r"), scene.at("elsewhere")).unwrap();
    let gone = Server { address: patient.address, child: std::process::Command::new("true").spawn().unwrap() };
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while gone.get("/health").0 != 503 {
        assert!(std::time::Instant::now() < until, "still said to be healthy");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(gone.get("/").0, 503);
}

#[test]
fn only_who_may_look_does() {
    let scene = Scene::ready();
    let mut server = Server::start(&scene, &[]);
    let host = server.address;
    for (head, code) in [
        ("GET / HTTP/1.1\r\nHost: evil.example".to_owned(), 403),
        ("GET /health HTTP/1.1\r\nHost: evil.example:8077".into(), 403),
        ("GET / HTTP/1.1".into(), 403),
        ("GET / HTTP/1.0".into(), 200),
        ("GET / HTTP/1.1\r\nHost: localhost:1".into(), 200),
        (format!("POST / HTTP/1.1\r\nHost: {host}"), 405),
        (format!("DELETE /snapshot/1 HTTP/1.1\r\nHost: {host}"), 405),
        (format!("GET / HTTP/1.1\r\nHost: {host}\r\nX: {}", "a".repeat(100_000)), 431),
        ("\u{16}\u{3}\u{1}".into(), 400),
    ] {
        assert_eq!(server.ask(&head).0, code, "{}", &head[..head.len().min(60)]);
    }
    assert_eq!(server.end(Signal::TERM), Some(0));

    let token = scene.write("token", b"0123456789abcdef\n");
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut server = Server::start(&scene, &["--token-file", &token]);
    assert_eq!(server.get("/").0, 401);
    assert_eq!(server.get("/metrics").0, 401);
    assert_eq!(server.get("/?token=0123456789abcdee").0, 401);
    assert_eq!(server.ask("GET / HTTP/1.1\r\nHost: any.example\r\nAuthorization: Bearer 0123456789abcdef").0, 200);
    let (status, text) = server.get("/runs?token=0123456789abcdef");
    assert!(status == 303 && text.contains("\r\nLocation: /runs\r\n"), "{text}");
    let cookie = text.split_once("Set-Cookie: ").unwrap().1.split(';').next().unwrap();
    assert!(!cookie.contains("0123456789abcdef"));
    assert_eq!(server.ask(&format!("GET /runs HTTP/1.1\r\nHost: any.example\r\nCookie: {cookie}")).0, 200);
    // In the background of a script nobody hears SIGINT.
    let signal = if is_ignored(Signal::INT) { Signal::TERM } else { Signal::INT };
    assert_eq!(server.end(signal), Some(0));

    // Others are let in with a token only, and not with one that can be guessed.
    scene.check(&["serve", "--listen", "0.0.0.0:0"], 2);
    scene.write("token", b"1234\n");
    scene.check(&["serve", "--token-file", &token], 2);
    scene.check(&["serve", "--listen", "nowhere"], 2);
}

#[test]
fn the_slow_and_the_many_do_not_keep_others_waiting() {
    let scene = Scene::ready();
    back_up(&scene, "orders", b"one", &[]);
    let mut server = Server::start(&scene, &[]);
    // More connections than it has workers, places in the queue, and places at all; some with half a request.
    let mut idle: Vec<TcpStream> = Vec::new();
    for number in 0..300 {
        let mut stream = server.connect();
        if number % 2 == 0 {
            // It may have been shown out already.
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nHos");
        }
        idle.push(stream);
    }
    for _ in 0..5 {
        assert_eq!(server.get("/health").0, 200);
    }
    // Many who ask and never take the answer.
    for stream in &mut idle {
        let _ = stream.write_all(b"t: localhost\r\n\r\n");
    }
    // It may have to say that it is busy (503) until these were answered; nobody waits for them.
    let mut answers = (0..500).map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        server.get("/").0
    });
    assert!(answers.any(|code| code == 200));
    // Many at once all get one.
    let server = &mut server;
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..16).map(|_| scope.spawn(|| server.get("/job/db1/orders").0)).collect();
        assert!(asked.into_iter().all(|asked| asked.join().unwrap() == 200));
    });
    assert_eq!(server.end(Signal::TERM), Some(0));
}

#[test]
fn what_is_new_is_seen_without_a_restart() {
    let scene = Scene::ready();
    back_up(&scene, "orders", b"one", &[]);
    let server = Server::start(&scene, &[]);
    assert!(!server.get("/snapshots").1.contains("fresh"));
    scene.write("fresh/a", b"x");
    scene.check(&["-q", "backup", "fresh", "--host", "db1"], 0);
    let listed: Value = serde_json::from_str(&scene.text(&["snapshots", "--json"])).unwrap();
    let files = format!("/snapshot/{}/files?in=fresh", listed[1]["id"].as_str().unwrap());
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while server.get(&files).0 != 200 {
        assert!(std::time::Instant::now() < until, "the new snapshot is not seen");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn objectives_are_read_again_and_a_broken_file_changes_nothing() {
    let scene = Scene::ready();
    back_up(&scene, "orders", b"one", &[]);
    let job = |name: &str| format!("[jobs.{name}]\ncommand = [\"true\"]\n");
    let table = "[repository]\nhost = \"db1\"\n";
    scene.write("snap.toml", format!("{table}{}", job("orders")).as_bytes());
    let server = Server::start(&scene, &["--config", scene.at("snap.toml").to_str().unwrap()]);
    let shows = |parts: [(&str, bool); 2]| {
        let until = std::time::Instant::now() + Duration::from_secs(60);
        loop {
            let (_, text) = server.get("/");
            if parts.iter().all(|(part, is_there)| body(&text).contains(part) == *is_there) {
                return;
            }
            assert!(std::time::Instant::now() < until, "{parts:?}: {text}");
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    shows([("/job/db1/orders", true), ("/job/db1/shop", false)]);
    scene.write("snap.toml", format!("{table}{}{}", job("orders"), job("shop")).as_bytes());
    shows([("/job/db1/shop", true), ("cannot be used", false)]);
    scene.write("snap.toml", b"[jobs.orders]\nnonsense = 1\n");
    shows([("/job/db1/shop", true), ("cannot be used", true)]);
    scene.write("snap.toml", format!("{table}{}", job("orders")).as_bytes());
    shows([("/job/db1/shop", false), ("cannot be used", false)]);
}

#[test]
fn folders_are_paged_without_reading_all_that_lies_deeper() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("data");
    for name in ["many/deep", "many.x", "a/b"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    for number in 0..12_000 {
        // Names that have nothing in common, so that the catalog is long.
        let name = blake3::hash(&u32::to_le_bytes(number));
        std::fs::write(root.join(format!("many/{name}")), b"").unwrap();
    }
    for name in ["many!", "many0", "z", "a/b/c"] {
        std::fs::write(root.join(name), b"").unwrap();
    }
    let (bench, _) = Bench::in_memory(1);
    let repository = bench.open();
    save_tree(&repository, &root, &options()).unwrap();
    for (path, names) in [("/", 6), ("/many", 12_001), ("/a", 1), ("/z", 1), ("", 1)] {
        let whole = if path.is_empty() { String::new() } else { format!("{}{path}", root.display()) };
        let selection = select(&repository, &format!("latest:{whole}"));
        let mut listed = Vec::new();
        list(&repository, &selection, false, &mut |entry| {
            listed.push(entry.path.clone());
            Ok(())
        })
        .unwrap();
        assert_eq!(listed.len(), names, "{path}");
        for max in [1, 100, 20_000] {
            // One by one through a large folder says no more.
            if max == 1 && names > 100 {
                continue;
            }
            let (mut paged, mut after, looked_at) = (Vec::new(), Vec::new(), Cell::new(0));
            loop {
                let count = || {
                    looked_at.set(looked_at.get() + 1);
                    Ok(())
                };
                let found = page(&repository, &selection, &after, max, &count).unwrap();
                paged.extend(found.entries.iter().map(|entry| entry.path.clone()));
                if !found.goes_on {
                    break;
                }
                assert_eq!(found.entries.len(), max);
                after = paged.last().unwrap().rsplit(|byte| *byte == b'/').next().unwrap().to_vec();
            }
            assert!(paged == listed, "{path} by {max}");
            if path == "/" && max == 100 {
                assert!(looked_at.get() < 10_000, "all {} entries were looked at", looked_at.get());
            }
        }
    }
    let nowhere = select(&repository, &format!("latest:{}/none", root.display()));
    assert!(page(&repository, &nowhere, b"", 10, &|| Ok(())).is_err());
}
