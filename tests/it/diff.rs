//! What changed between snapshots, and where a file is.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use snap_backup::backend::Counting;
use snap_backup::ops::diff::{Change, DiffOptions, DiffReport, Mark, diff};
use snap_backup::progress::Silent;

use crate::cli::{Scene, stderr};
use crate::support::*;

fn marks(text: &str) -> Vec<String> {
    let is_change = |line: &&str| line.split_once(' ').is_some_and(|(mark, _)| mark.len() <= 2 && mark != "to");
    text.lines().filter(is_change).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_kind_of_change_has_its_mark() {
    let scene = Scene::ready();
    for name in ["same", "grown", "gone", "kind", "moved", "mode", "sub/deep/x"] {
        scene.write(&format!("data/{name}"), name.repeat(1000).as_bytes());
    }
    fs::hard_link(scene.at("data/grown"), scene.at("data/grown-too")).unwrap();
    fs::hard_link(scene.at("data/same"), scene.at("data/same-too")).unwrap();
    std::os::unix::fs::symlink("same", scene.at("data/link")).unwrap();
    scene.check(&["backup", "data"], 0);

    scene.write("data/grown", &noise(1, 50_000));
    fs::remove_file(scene.at("data/gone")).unwrap();
    fs::remove_file(scene.at("data/kind")).unwrap();
    fs::create_dir(scene.at("data/kind")).unwrap();
    fs::rename(scene.at("data/moved"), scene.at("data/moved-here")).unwrap();
    fs::set_permissions(scene.at("data/mode"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(scene.at("data/link")).unwrap();
    std::os::unix::fs::symlink("mode", scene.at("data/link")).unwrap();
    fs::remove_dir_all(scene.at("data/sub/deep")).unwrap();
    scene.write("data/new/\u{1b}file", &noise(2, 10_000));
    scene.check(&["backup", "data"], 0);

    let said = scene.text(&["diff", "latest~1", "latest"]);
    let expected = [
        "- /data/gone",
        "M /data/grown",
        "T /data/kind/",
        "M /data/link",
        "- /data/moved",
        "+ /data/moved-here",
        "+ /data/new/",
        "+ /data/new/\\u{1b}file",
        "- /data/sub/deep/",
        "- /data/sub/deep/x",
    ];
    assert_eq!(marks(&said), expected, "{said}");
    // What moved is on both sides.
    assert!(said.contains("only in the second  58.6 KiB") && said.contains("files     2 new, 4 removed, 2 changed"), "{said}");
    let with_metadata = marks(&scene.text(&["diff", "latest~1", "latest", "--metadata"]));
    assert!(with_metadata.contains(&"U /data/mode".into()) && with_metadata.contains(&"U /data/".into()), "{with_metadata:?}");
    assert!(!with_metadata.iter().any(|line| line.ends_with("/data/same")), "{with_metadata:?}");

    let lines = json_lines(&scene.text(&["diff", "latest~1", "latest", "--json"]));
    assert_eq!(lines[7], serde_json::json!({"message_type": "change", "path": "/data/new/\u{1b}file", "modifier": "+"}));
    let totals = lines.last().unwrap();
    assert_eq!((&totals["message_type"], &totals["changed_files"]), (&"statistics".into(), &2.into()));
    assert_eq!((&totals["added"]["bytes"], &totals["added"]["dirs"]), (&60_000.into(), &2.into()));
    // Turned round, all is turned round.
    let turned = json_lines(&scene.text(&["diff", "latest", "latest~1", "--json"]));
    assert_eq!((&turned.last().unwrap()["removed"], &turned.last().unwrap()["added"]), (&totals["added"], &totals["removed"]));

    let below = scene.text(&["diff", "latest~1:/data/sub", "latest:data/sub"]);
    assert_eq!(marks(&below), ["- /deep/", "- /deep/x"]);
    assert_eq!(marks(&scene.text(&["diff", "latest~1:/data/grown", "latest:/data/grown"])), ["M /data/grown"]);
    assert_eq!(marks(&scene.text(&["diff", "latest~1:/data/kind", "latest:/data/kind"])), ["T /data/kind/"]);
    assert_eq!(marks(&scene.text(&["diff", "latest", "latest"])).len(), 0);
    for args in [["diff", "latest~1:/data/new", "latest:/data/new"], ["diff", "latest~1", "latest:/data/gone"]] {
        assert!(stderr(&scene.check(&args, 1)).contains("holds no data/"), "{args:?}");
    }
}

fn compare(bench: &Bench, from: &str, to: &str, metadata: bool) -> (Vec<Change>, DiffReport) {
    let repository = bench.open();
    let (from, to) = (select(&repository, from), select(&repository, to));
    let mut changes = Vec::new();
    let mut each = |change: &Change| {
        changes.push(change.clone());
        Ok(())
    };
    let report = diff(&repository, &from, &to, DiffOptions { metadata }, &mut each, &Silent).unwrap();
    (changes, report)
}

/// A dump that changed in one place: what is told is about as much as the chunks around it, and no data is read for it.
#[test]
fn streams_are_compared_by_their_chunks() {
    let (bench, memory) = Bench::in_memory(1);
    let old = noise(1, 6_000_000);
    let new = [&old[..3_000_000], b"inserted", &old[3_000_000..]].concat();
    bench.save(&old);
    bench.save(&new);
    let (changes, report) = compare(&bench, "latest~1", "latest", false);
    assert_eq!(changes, [Change { path: b"db".to_vec(), is_folder: false, mark: Mark::Modified }]);
    assert_eq!((report.changed_files, report.added.files, report.removed.files), (1, 0, 0));
    for tally in [report.added, report.removed] {
        assert!((4_000..300_000).contains(&tally.bytes) && tally.stored_bytes > 0, "{report:?}");
    }
    assert_eq!(report.added.bytes - report.removed.bytes, 8, "{report:?}");
    let counting = std::sync::Arc::new(Counting::new(memory));
    let counted = bench.over(counting.clone());
    compare(&counted, "latest~1", "latest", false);
    let read = counting.calls().bytes_got;
    assert!(read < 1_000_000, "{read} bytes were read");

    // The same once more: not even a catalog is read.
    bench.save(&new);
    assert_eq!(compare(&bench, "latest~1", "latest", true), (Vec::new(), DiffReport::default()));
    // All of it is other.
    bench.save(&noise(7, 100_000));
    let (_, report) = compare(&bench, "latest~1", "latest", false);
    assert_eq!((report.removed.bytes, report.added.bytes), (new.len() as u64, 100_000));
}

#[test]
fn files_are_found_in_all_snapshots() {
    let scene = Scene::ready();
    for name in ["etc/nginx/a.conf", "etc/B.CONF", "etc/esc\u{1b}.conf", "var/log/x"] {
        scene.write(&format!("data/{name}"), b"12345");
    }
    scene.check(&["backup", "data", "--host", "h1", "--time", "2026-01-01T02:00:00Z"], 0);
    fs::remove_file(scene.at("data/etc/nginx/a.conf")).unwrap();
    scene.check(&["backup", "data", "--host", "h2", "--time", "2026-01-02T02:00:00Z", "--tag", "t"], 0);
    let found = |args: &[&str]| -> Vec<(String, Vec<String>)> {
        let text = scene.text(&[&["find", "--json"], args].concat());
        let value: Value = serde_json::from_str(&text).unwrap();
        let path = |hit: &Value| hit["path"].as_str().unwrap().to_owned();
        let of_one = |one: &Value| {
            let paths: Vec<String> = one["matches"].as_array().unwrap().iter().map(path).collect();
            assert_eq!(one["hits"], paths.len());
            (one["snapshot"].as_str().unwrap().to_owned(), paths)
        };
        value.as_array().unwrap().iter().map(of_one).collect()
    };
    let paths = |args: &[&str]| found(args).into_iter().map(|(_, paths)| paths.join(" ")).collect::<Vec<_>>();
    assert_eq!(paths(&["*.conf"]), ["/data/etc/esc\u{1b}.conf", "/data/etc/esc\u{1b}.conf /data/etc/nginx/a.conf"]);
    assert_eq!(paths(&["b.conf", "-i", "--host", "h1"]), ["/data/etc/B.CONF"]);
    assert_eq!(paths(&["/data/etc/*.CONF", "x", "--tag", "t"]), ["/data/etc/B.CONF /data/var/log/x"]);
    assert_eq!(paths(&["etc"]), ["/data/etc"; 2], "what is in a folder is not listed with it");
    assert_eq!(paths(&["a.conf", "-s", "latest", "-s", "latest~1:/data/etc/nginx"]), ["/data/etc/nginx/a.conf"]);
    assert_eq!(paths(&["*", "-s", "latest:/data/var/log"]), ["/data/var/log /data/var/log/x"]);
    assert_eq!(paths(&["x", "--oldest", "2200-01-01"]).len() + paths(&["x", "--newest", "1999-01-01"]).len(), 0);
    assert_eq!(paths(&["x", "--oldest", "1999-01-01", "--newest", "2200-01-01"]).len(), 2);

    let said = scene.text(&["find", "*.conf"]);
    assert!(said.contains("  h2  ") && said.contains("5 B") && said.contains("/data/etc/esc\\u{1b}.conf"), "{said}");
    assert!(scene.text(&["find", "-l", "a.conf"]).contains("-rw"));
    assert_eq!(scene.text(&["find", "nowhere"]), "nothing was found in 2 snapshots\n");
    assert_eq!(scene.text(&["find", "nowhere", "--json"]), "[]\n");
    scene.check(&["find", "[a"], 2);
    scene.check(&["find", "x", "-s", "abcdef01"], 1);

    let (id, _) = found(&["x", "--host", "h1"]).remove(0);
    let path = scene.at("r/snapshots").join(&id);
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"rotten").unwrap();
    let output = scene.check(&["find", "x"], 20);
    assert!(stderr(&output).contains(&id[..8]) && String::from_utf8_lossy(&output.stdout).contains("/data/var/log/x"));
}
