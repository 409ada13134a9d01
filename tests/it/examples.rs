//! The configurations under docs/examples: without a mistake, and complete enough to say what they would run.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cli::{Scene, stderr};

fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples");
    let mut found: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    found.sort();
    found
}

#[test]
fn every_example_is_without_mistakes() {
    let examples = examples();
    assert_eq!(examples.len(), 5);
    for path in examples {
        let name = path.file_name().unwrap().to_str().unwrap();
        let scene = Scene::new();
        let place = scene.at("");
        let place = place.to_str().unwrap().trim_end_matches('/');
        let text = fs::read_to_string(&path).unwrap();
        // Secrets that exist, and are private.
        let (mut secrets, mut rest) = (Vec::new(), &text[..]);
        while let Some(at) = rest.find("/etc/snap/") {
            rest = &rest[at + "/etc/snap/".len()..];
            secrets.push(rest.split(['"', '\'']).next().unwrap().to_owned());
        }
        for secret in &secrets {
            let path = scene.write(&format!("etc/{secret}"), b"correct horse battery staple\n");
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let text = text.replace("/etc/snap/", &format!("{place}/etc/")).replace("/srv/", &format!("{place}/srv/"));
        fs::create_dir_all(scene.at("srv/backup")).unwrap();
        let config = scene.write("example.toml", text.as_bytes());
        fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();

        let run = |args: &[&str]| {
            let mut command = scene.bare(&[&["--config", &config], args].concat());
            crate::cli::expect(command.env_remove("SNAP_REPOSITORY"), 0)
        };
        let checked = run(&["config", "check"]);
        println!("{name}: {}", stderr(&checked));
        let shown = run(&["config", "show", "--json"]);
        let shown: Value = serde_json::from_slice(&shown.stdout).unwrap_or_else(|error| panic!("{name}: {error}"));
        let text = shown.to_string();
        assert!(text.contains("\"keep\"") && !text.contains("correct horse"), "{name}: {text}");
        run(&["init"]);
        let dry = String::from_utf8(run(&["run", "--dry-run"]).stdout).unwrap();
        assert!(!dry.is_empty() && !dry.contains("correct horse"), "{name}: {dry}");
        run(&["schedule"]);
    }
}
