//! Nothing is ever written outside the target, whatever stands in it, is named or moves meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags};

use super::*;

#[test]
fn hostile_paths_are_refused() {
    let scene = Scene::new();
    let target = scene.target(Walk::Kernel);
    for path in ["", "/", "/etc/x", "../outside/x", "a/../../outside/x", ".", "..", "a//b", "a/", "a\0b"] {
        let path = path.as_bytes();
        assert!(matches!(write(&target, path, b"", &meta(0o600)), Err(Error::Damaged { .. })), "{path:?}");
        assert!(target.folder(path, &meta(0o700)).is_err());
        assert!(target.symlink(path, b"x", &meta(0o777)).is_err());
        assert!(target.special(path, &Node::Fifo, &meta(0o600)).is_err());
        assert!(target.hard_link(path, b"a").is_err() && target.hard_link(b"a", path).is_err());
        assert!(target.find(path).is_err() && target.open_existing(path).is_err() && target.apply(path, &meta(0)).is_err());
    }
    target.finish().unwrap();
    scene.assert_outside_untouched();
    assert_eq!(fs::read_dir(scene.at("")).unwrap().count(), 0);
}

/// Each operation on each path below a planted link.
#[test]
fn planted_links_are_not_followed_at_any_level() {
    for walk in WALKS {
        for planted in ["a", "a/b", "a/b/c"] {
            let scene = Scene::new();
            fs::create_dir_all(scene.at("a/b/c").parent().unwrap()).unwrap();
            let _ = fs::remove_dir_all(scene.at(planted));
            std::os::unix::fs::symlink(scene.outside(), scene.at(planted)).unwrap();
            fs::write(scene.at("plain"), "plain").unwrap();
            let target = scene.target(walk);
            for rest in ["secret", "new", "sub/new", "sub", "d/e/new"] {
                let path = format!("{planted}/{rest}").into_bytes();
                let error = write(&target, &path, b"x", &meta(0o600)).unwrap_err();
                let expected = format!("Cannot enter {}: is a symbolic link, which is not followed", scene.at(planted).display());
                assert_eq!(message(&error), expected);
                assert_eq!(message(&target.folder(&path, &meta(0o700)).unwrap_err()), expected);
                assert!(target.symlink(&path, b"x", &meta(0o777)).is_err());
                assert!(target.special(&path, &Node::Fifo, &meta(0o600)).is_err());
                assert!(target.hard_link(&path, b"plain").is_err() && target.hard_link(b"other", &path).is_err());
                assert!(target.open_existing(&path).is_err() && target.find(&path).is_err());
                assert!(target.apply(&path, &meta(0)).is_err());
            }
            assert!(target.folder(planted.as_bytes(), &meta(0o700)).is_err());
            target.finish().unwrap();
            scene.assert_outside_untouched();
            scene.assert_clean();
        }
    }
}

/// A catalog that makes a link and then writes below it, or gives the link a second name and writes through that.
#[test]
fn links_of_our_own_are_not_followed_either() {
    for walk in WALKS {
        let scene = Scene::new();
        let target = scene.target(walk);
        let outside = scene.outside();
        let secret = outside.join("secret");
        target.symlink(b"a", outside.as_os_str().as_bytes(), &meta(0o777)).unwrap();
        assert!(write(&target, b"a/new", b"x", &meta(0o600)).is_err());
        target.symlink(b"s", secret.as_os_str().as_bytes(), &meta(0o777)).unwrap();
        target.hard_link(b"t", b"s").unwrap();
        assert!(fs::symlink_metadata(scene.at("t")).unwrap().is_symlink());
        assert_eq!(fs::metadata(&secret).unwrap().nlink(), 1);
        target.apply(b"t", &meta(0o7777)).unwrap();
        write(&target, b"t", b"new", &meta(0o600)).unwrap();
        assert_eq!(fs::read(scene.at("t")).unwrap(), b"new");
        assert!(fs::symlink_metadata(scene.at("s")).unwrap().is_symlink());
        assert_ne!(fs::metadata(&secret).unwrap().mode() & 0o7777, 0o7777);
        target.finish().unwrap();
        scene.assert_outside_untouched();
    }
}

/// A folder that became a link before its metadata was due.
#[test]
fn finish_does_not_follow_links() {
    for walk in WALKS {
        let scene = Scene::new();
        let target = scene.target(walk);
        target.folder(b"a", &meta(0o7777)).unwrap();
        target.folder(b"b/c", &meta(0o7777)).unwrap();
        for path in ["a", "b/c", "b"] {
            fs::remove_dir(scene.at(path)).unwrap();
        }
        std::os::unix::fs::symlink(scene.outside(), scene.at("a")).unwrap();
        std::os::unix::fs::symlink(scene.place.path(), scene.at("b")).unwrap();
        fs::create_dir(scene.place.path().join("c")).unwrap();
        let problems = target.finish().unwrap();
        assert_eq!(problems.iter().filter(|problem| problem.subject == b"a").count(), 1, "{problems:?}");
        assert_ne!(fs::metadata(scene.outside()).unwrap().mode() & 0o7777, 0o7777);
        assert_ne!(fs::metadata(scene.place.path().join("c")).unwrap().mode() & 0o7777, 0o7777);
        let link = fs::symlink_metadata(scene.at("a")).unwrap();
        assert!(link.is_symlink() && link.mtime() != meta(0).mtime.seconds);
    }
}

/// Somebody swaps the folder with a link to the outside, again and again, while files, links and folders are made in it.
#[test]
fn a_racing_swap_leads_nowhere() {
    for (walk, forgetful) in [(Walk::Kernel, true), (Walk::Names, true), (Walk::Kernel, false)] {
        let scene = Scene::new();
        fs::create_dir_all(scene.at("d/sub")).unwrap();
        std::os::unix::fs::symlink(scene.outside(), scene.at("l")).unwrap();
        let beneath = Beneath::open(&scene.at("")).unwrap().walking(walk);
        let beneath = if forgetful { beneath.forgetful() } else { beneath };
        let target = TreeTarget::new(beneath, TargetOptions::for_this_process(), &World::system());
        let stop = AtomicBool::new(false);
        let (d, l) = (scene.at("d"), scene.at("l"));
        let (mut made, mut refused) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    rustix::fs::renameat_with(CWD, &d, CWD, &l, RenameFlags::EXCHANGE).unwrap();
                    std::thread::yield_now();
                }
            });
            for index in 0..1_000 {
                let results = [
                    write(&target, format!("d/f{index}").as_bytes(), b"x", &meta(0o600)),
                    write(&target, format!("d/sub/f{index}").as_bytes(), b"x", &meta(0o600)),
                    target.folder(format!("d/n{index}").as_bytes(), &meta(0o755)),
                    target.symlink(format!("d/sub/l{index}").as_bytes(), b"x", &meta(0o777)),
                    target.hard_link(format!("d/h{index}").as_bytes(), b"d/secret"),
                ];
                made += results.iter().filter(|result| result.is_ok()).count();
                refused += results.iter().filter(|result| result.is_err()).count();
            }
            stop.store(true, Ordering::Relaxed);
        });
        eprintln!("{walk:?}, forgetful {forgetful}: {made} made, {refused} refused");
        target.finish().unwrap();
        scene.assert_outside_untouched();
        assert_eq!(fs::metadata(scene.outside().join("secret")).unwrap().nlink(), 1);
        // Everything made stands in the real folder, which bears one of the two names now.
        assert_eq!(fs::read_dir(scene.at("")).unwrap().count(), 2);
        scene.assert_clean();
    }
}
