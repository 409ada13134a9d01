//! Times, modes, owners and extended attributes, as root and without privileges.

use rustix::fs::XattrFlags;

use super::*;

fn xattr(path: impl AsRef<Path>, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 1 << 12];
    let len = rustix::fs::lgetxattr(path.as_ref(), name, &mut value[..]).ok()?;
    value.truncate(len);
    Some(value)
}

fn attributes(list: &[(&str, &[u8])]) -> Vec<(Vec<u8>, Vec<u8>)> {
    list.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect()
}

/// An ACL that lets uid 1 read, in the kernel's form: version, then tag, permissions and id.
fn acl() -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] = [(1, 6, u32::MAX), (2, 4, 1), (4, 0, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)];
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend([tag.to_le_bytes(), permissions.to_le_bytes()].concat());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

#[test]
fn times_are_exact_in_any_century() {
    let scene = Scene::new();
    let target = scene.target(Walk::Kernel);
    let times = [(0, 0), (-1, 999_999_999), (-2_000_000_000, 1), (1_700_000_000, 123_456_789), (4_300_000_000, 5), (8_589_934_592, 7)];
    for (index, (seconds, nanos)) in times.into_iter().enumerate() {
        let meta = Meta { mtime: Time { seconds, nanos }, ..meta(0o755) };
        write(&target, format!("f{index}").as_bytes(), b"x", &meta).unwrap();
        target.symlink(format!("l{index}").as_bytes(), b"x", &meta).unwrap();
        target.folder(format!("d{index}").as_bytes(), &meta).unwrap();
        write(&target, format!("d{index}/f").as_bytes(), b"x", &meta).unwrap();
    }
    assert_eq!(target.finish().unwrap(), []);
    for (index, (seconds, nanos)) in times.into_iter().enumerate() {
        for kind in ["f", "l", "d"] {
            let stat = fs::symlink_metadata(scene.at(format!("{kind}{index}"))).unwrap();
            assert_eq!((stat.mtime(), stat.mtime_nsec() as u32), (seconds, nanos), "{kind}{index}");
        }
    }
}

#[test]
fn extended_attributes_come_back_and_strange_ones_go() {
    let scene = Scene::new();
    let wanted = Meta { xattrs: attributes(&[("user.a", b"\0value\xff"), ("user.empty", b"")]), ..meta(0o444) };
    let target = scene.target(Walk::Kernel);
    write(&target, b"new", b"x", &wanted).unwrap();
    fs::write(scene.at("old"), "x").unwrap();
    for name in ["user.a", "user.strange"] {
        rustix::fs::setxattr(scene.at("old"), name, b"old", XattrFlags::empty()).unwrap();
    }
    fs::set_permissions(scene.at("old"), fs::Permissions::from_mode(0o400)).unwrap();
    target.apply(b"old", &wanted).unwrap();
    target.folder(b"folder", &Meta { mode: 0o755, ..wanted.clone() }).unwrap();
    // Nothing but complaints about what a file system does not take.
    write(&target, b"odd", b"x", &Meta { xattrs: attributes(&[("nonsense", b""), ("user.big", &[0; 70_000])]), ..meta(0o600) }).unwrap();
    let problems = target.finish().unwrap();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems.iter().all(|problem| problem.subject == b"odd" && problem.message.contains("extended attribute")));
    for path in ["new", "old", "folder"] {
        assert_eq!(xattr(scene.at(path), "user.a").unwrap(), b"\0value\xff", "{path}");
        assert_eq!(xattr(scene.at(path), "user.empty").unwrap(), b"", "{path}");
        assert_eq!(xattr(scene.at(path), "user.strange"), None, "{path}");
    }
    assert_eq!(fs::metadata(scene.at("old")).unwrap().mode() & 0o7777, 0o444);
}

#[test]
fn acls_come_back_and_inherited_ones_do_not_stay() {
    let scene = Scene::new();
    let default = "system.posix_acl_default";
    if rustix::fs::setxattr(scene.at(""), default, &acl(), XattrFlags::empty()).is_err() {
        eprintln!("SKIPPED: no ACLs on this file system");
        return;
    }
    let target = scene.target(Walk::Kernel);
    write(&target, b"plain", b"x", &meta(0o644)).unwrap();
    target.folder(b"folder", &meta(0o755)).unwrap();
    let access = "system.posix_acl_access";
    write(&target, b"acl", b"x", &Meta { xattrs: attributes(&[(access, &acl())]), ..meta(0o640) }).unwrap();
    assert_eq!(target.finish().unwrap(), []);
    assert_eq!((xattr(scene.at("plain"), access), fs::metadata(scene.at("plain")).unwrap().mode() & 0o7777), (None, 0o644));
    assert_eq!((xattr(scene.at("folder"), access), xattr(scene.at("folder"), default)), (None, None));
    assert_eq!(xattr(scene.at("acl"), access).unwrap(), acl());
    assert_eq!(fs::metadata(scene.at("acl")).unwrap().mode() & 0o7777, 0o640);
}

#[test]
fn root_restores_owners_devices_and_capabilities() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let options = TargetOptions { owners: true, devices: true, setuid: true, ..TargetOptions::for_this_process() };
    let target = scene.target_with(Walk::Kernel, options);
    let theirs = |mode, user: &str| Meta { uid: 4_000_001, gid: 4_000_002, user: user.into(), ..meta(mode) };
    // cap_net_raw=ep
    let capability: &[u8] = &[1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let capable = Meta { xattrs: attributes(&[("security.capability", capability)]), ..theirs(0o755, "") };
    write(&target, b"suid", b"x", &theirs(0o6755, "no-such-user-here")).unwrap();
    write(&target, b"named", b"x", &theirs(0o600, "root")).unwrap();
    write(&target, b"capable", b"x", &capable).unwrap();
    target.folder(b"folder", &theirs(0o2750, "")).unwrap();
    target.symlink(b"link", b"x", &theirs(0o777, "")).unwrap();
    let null = rustix::fs::makedev(1, 3);
    target.special(b"null", &Node::CharDevice { device: null }, &theirs(0o666, "")).unwrap();
    let block = rustix::fs::makedev(259, 300);
    target.special(b"block", &Node::BlockDevice { device: block }, &theirs(0o660, "")).unwrap();
    assert!(target.special(b"wrong", &Node::CharDevice { device: 1 << 40 }, &theirs(0o666, "")).is_err());
    assert_eq!(target.finish().unwrap(), []);
    let stat = |path: &str| fs::symlink_metadata(scene.at(path)).unwrap();
    for path in ["suid", "capable", "folder", "link", "null", "block"] {
        assert_eq!((stat(path).uid(), stat(path).gid()), (4_000_001, 4_000_002), "{path}");
    }
    assert_eq!((stat("named").uid(), stat("named").gid()), (0, 4_000_002));
    assert_eq!(stat("suid").mode() & 0o7777, 0o6755);
    assert_eq!(stat("folder").mode() & 0o7777, 0o2750);
    assert_eq!((stat("null").rdev(), stat("null").mode() & 0o7777), (null, 0o666));
    assert!(stat("null").file_type().is_char_device() && stat("block").file_type().is_block_device());
    assert_eq!(stat("block").rdev(), block);
    assert_eq!(xattr(scene.at("capable"), "security.capability").unwrap(), capability);
    assert!(fs::read(scene.at("null")).unwrap().is_empty());
}

#[test]
fn power_is_lent_only_for_the_saved_owner() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let all = TargetOptions::for_this_process();
    let check = |options: TargetOptions, uid: u32, expected: u32| {
        let target = scene.target_with(Walk::Kernel, options);
        write(&target, b"f", b"x", &Meta { uid, gid: uid, ..meta(0o6755) }).unwrap();
        assert_eq!(target.finish().unwrap(), []);
        assert_eq!(fs::metadata(scene.at("f")).unwrap().mode() & 0o7777, expected, "{options:?} {uid}");
    };
    check(all, 1000, 0o6755);
    check(TargetOptions { setuid: false, ..all }, 1000, 0o755);
    check(TargetOptions { owners: false, ..all }, 1000, 0o755);
    check(TargetOptions { owners: false, ..all }, 0, 0o6755);
    // "Leave the owner" to the kernel, and nobody's number.
    check(all, u32::MAX, 0o755);
}

#[test]
fn without_privileges_the_rest_is_restored() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    fs::set_permissions(scene.place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(scene.at(""), Some(65534), Some(65534)).unwrap();
    as_nobody(|| {
        let mine = |mode| Meta { user: b"root".to_vec(), uid: 0, gid: 0, ..meta(mode) };
        for round in 0..2 {
            let options = TargetOptions { owners: round == 1, setuid: true, ..TargetOptions::for_this_process() };
            let target = scene.target_with(Walk::Kernel, options);
            // Read-only folders: closed to us too the second time, until they are opened.
            target.folder(b"locked", &mine(0o555)).unwrap();
            target.folder(b"locked/in", &mine(0o000)).unwrap();
            write(&target, b"locked/in/suid", format!("round {round}").as_bytes(), &mine(0o6511)).unwrap();
            let read_only = Meta { xattrs: attributes(&[("user.a", b"b"), ("trusted.a", b"b")]), ..mine(0o444) };
            write(&target, b"locked/in/xattr", b"x", &read_only).unwrap();
            target.apply(b"locked/in/xattr", &read_only).unwrap();
            target.special(b"locked/device", &Node::CharDevice { device: 259 }, &mine(0o666)).unwrap();
            target.special(b"locked/fifo", &Node::Fifo, &mine(0o666)).unwrap();
            let mut problems = target.finish().unwrap();
            problems.dedup();
            let denied = "Cannot set the extended attribute trusted.a: Operation not permitted (os error 1)";
            assert_eq!(problems, [Problem::new("locked/in/xattr", denied), Problem::new("locked/device", "Devices are left out")]);
            let locked = fs::metadata(scene.at("locked")).unwrap();
            assert_eq!((locked.mode() & 0o7777, locked.uid(), locked.mtime()), (0o555, 65534, 1_000_000_000));
        }
    });
    let stat = |path: &str| fs::metadata(scene.at(path)).unwrap();
    assert_eq!(stat("locked/in").mode() & 0o7777, 0);
    assert_eq!(stat("locked/in/suid").mode() & 0o7777, 0o511);
    assert_eq!(fs::read(scene.at("locked/in/suid")).unwrap(), b"round 1");
    assert_eq!((stat("locked/in/xattr").mode() & 0o7777, xattr(scene.at("locked/in/xattr"), "user.a")), (0o444, Some(b"b".to_vec())));
    assert_eq!(stat("locked/fifo").mode() & 0o7777, 0o666);
}
