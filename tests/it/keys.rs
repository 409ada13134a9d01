//! Key slots and recovery words: whatever goes wrong, a known secret opens the repository; and no secret is seen where it does not belong.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use snap_backup::backend::{Area, Backend, Fault, Faulty, Memory, MemoryState, Operation, Place};
use snap_backup::crypto::Secret;
use snap_backup::error::{Error, Result, StorageErrorKind};
use snap_backup::limits::KEY_SLOTS_MAX;
use snap_backup::ops::keys::{self, Current, Describe};
use snap_backup::repo::{Opening, Repository};

use crate::cli::{Scene, expect, stderr, wait_for};
use crate::support::*;

const SEED: u64 = 91;

fn other() -> Secret {
    Secret::KeyFile(vec![b'o'; 40])
}

fn third() -> Secret {
    Secret::KeyFile(vec![b't'; 40])
}

fn open_with(store: Arc<dyn Backend>, secret: Secret) -> Result<Repository> {
    static OPENED: AtomicU64 = AtomicU64::new(1000);
    Repository::open(store, Opening { secret, cache: None, world: world(OPENED.fetch_add(1, SeqCst), FAR) })
}

fn opens(memory: &Memory, secret: Secret) -> bool {
    open_with(Arc::new(memory.clone()), secret).is_ok()
}

fn describe(label: &str) -> Describe {
    Describe { label: Some(label.into()), by: "me@here".into() }
}

/// A repository with one snapshot that two secrets open.
struct Vault {
    before: MemoryState,
    bytes: Vec<u8>,
}

impl Vault {
    fn new() -> Self {
        let (bench, memory) = Bench::in_memory(SEED);
        let bytes = lines(1, 100_000);
        bench.save(&bytes);
        keys::add(&bench.open(), &other(), &describe("second")).unwrap();
        Self { before: memory.snapshot(), bytes }
    }

    fn memory(&self) -> Memory {
        let memory = Memory::new();
        memory.restore(self.before.clone());
        memory
    }

    /// What opens the repository, after a look at what it holds.
    fn known(&self, memory: &Memory, case: &str) -> (bool, bool, bool) {
        for secret in [secret(), other(), third()] {
            if let Ok(repository) = open_with(Arc::new(memory.clone()), secret) {
                assert!(read(&repository, "latest").unwrap() == self.bytes, "{case}");
                assert_clean(&repository);
            }
        }
        (opens(memory, secret()), opens(memory, other()), opens(memory, third()))
    }
}

type Action = fn(&Repository) -> Result<()>;

fn slot_of(repository: &Repository, label: &str) -> String {
    let slots = repository.key_slots().unwrap();
    slots.into_iter().find(|slot| slot.note.as_ref().is_some_and(|note| note.label == label)).unwrap().name
}

const ADD: Action = |repository| keys::add(repository, &third(), &describe("third")).map(drop);
const REMOVE: Action = |repository| {
    // Looked up before any fault, by who knows it: the second one is the one that is not current.
    let second = repository.key_slots()?.into_iter().find(|slot| !slot.is_current);
    keys::remove(repository, &second.map(|slot| slot.name).unwrap_or_default(), Current::Keep).map(drop)
};
const CHANGE: Action = |repository| {
    let report = keys::change(repository, &secret(), &third(), &Describe::default())?;
    report.left.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
};

/// The store dies, or loses a reply, or refuses, at every call of every change of key slots.
#[test]
fn a_known_secret_opens_after_a_fault_at_any_call() {
    let vault = Vault::new();
    let lost_reply = |operation| match operation {
        Operation::Put | Operation::Delete => Fault::StoredThenError(StorageErrorKind::Transient),
        _ => Fault::Error(StorageErrorKind::Transient),
    };
    let faults: [fn(Operation) -> Fault; 4] = [
        |_| Fault::Crash,
        lost_reply,
        |_| Fault::Error(StorageErrorKind::Denied),
        |operation| match operation {
            Operation::Get => Fault::FlipBit(4001),
            _ => Fault::Error(StorageErrorKind::Full),
        },
    ];
    for (name, action) in [("add", ADD), ("remove", REMOVE), ("change", CHANGE)] {
        let mut seen = BTreeSet::new();
        for (which, fault) in faults.iter().enumerate() {
            for number in 0.. {
                let case = format!("{name}, fault {which} at call {number}");
                let memory = vault.memory();
                let fault = *fault;
                let store = Arc::new(Faulty::new(memory.clone(), move |call| (call.number == number).then(|| fault(call.operation))));
                let outcome = open_with(store.clone(), secret()).and_then(|repository| action(&repository));
                let (old, second, new) = vault.known(&memory, &case);
                seen.insert((old, second, new));
                match name {
                    "add" => assert!(old && second && (new || outcome.is_err()), "{case}: {outcome:?}"),
                    "remove" => assert!(old && (!second || outcome.is_err()), "{case}: {outcome:?}"),
                    _ => assert!(second && (old || new) && (outcome.is_err() || !old), "{case}: {outcome:?}"),
                }
                if store.calls() <= number {
                    assert!(outcome.is_ok() && number > 5, "{case}");
                    break;
                }
            }
        }
        println!("{name}: {seen:?}");
        assert!(seen.len() > 1, "no fault came between: {seen:?}");
        // The way out of any such state is to do it again.
        if name == "change" {
            assert!(seen.contains(&(true, true, true)));
        }
    }
}

#[test]
fn the_last_slot_and_the_current_one_stay() {
    let vault = Vault::new();
    let memory = vault.memory();
    let repository = open_with(Arc::new(memory.clone()), secret()).unwrap();
    let (first, second) = (slot_of(&repository, "test"), slot_of(&repository, "second"));
    let refused = |which: &str, current| match keys::remove(&repository, which, current).unwrap_err() {
        Error::Usage(why) => why,
        other => panic!("{other:?}"),
    };
    assert!(refused(&first, Current::Keep).contains("--force"));
    assert!(matches!(keys::remove(&repository, "", Current::Keep), Err(Error::NotFound(_))));
    assert!(matches!(keys::remove(&repository, "zz", Current::Keep), Err(Error::NotFound(_))));
    keys::remove(&repository, &second, Current::Keep).unwrap();
    assert!(refused(&first, Current::Remove).contains("the last one"));
    assert_eq!(vault.known(&memory, "one left"), (true, false, false));

    // A damaged slot does not count as another, but can be removed.
    let memory = vault.memory();
    let repository = open_with(Arc::new(memory.clone()), secret()).unwrap();
    memory.edit(&Place { area: Area::Keys, name: second.clone() }, |bytes| bytes.truncate(20));
    let error = keys::remove(&repository, &first, Current::Remove).unwrap_err();
    assert!(error.to_string().contains("the last one"), "{error}");
    keys::remove(&repository, &second, Current::Keep).unwrap();
    assert!(!memory.places().iter().any(|place| place.name.starts_with(&second)), "neither slot nor note is left");

    // One that a later version understands is not ours to remove.
    let memory = vault.memory();
    let repository = open_with(Arc::new(memory.clone()), secret()).unwrap();
    memory.edit(&Place { area: Area::Keys, name: second.clone() }, |bytes| bytes[7] = 9);
    assert!(matches!(keys::remove(&repository, &second, Current::Keep), Err(Error::Unsupported { .. })));

    let memory = vault.memory();
    let repository = open_with(Arc::new(memory.clone()), secret()).unwrap();
    keys::remove(&repository, &first, Current::Remove).unwrap();
    assert_eq!(vault.known(&memory, "the other one is left"), (false, true, false));
}

/// Two hosts remove each other's slot: at any call of the one, the other does it too. The slot that was to stay is put back.
#[test]
fn hosts_that_remove_each_others_slots_do_not_lock_everybody_out() {
    let vault = Vault::new();
    let calls = {
        let store = Arc::new(Faulty::new(vault.memory(), |_| None));
        REMOVE(&open_with(store.clone(), secret()).unwrap()).unwrap();
        store.calls()
    };
    let mut put_back = 0;
    for number in 0..calls {
        let memory = vault.memory();
        let other_host = memory.clone();
        let store = Faulty::new(memory.clone(), move |call| {
            if call.number == number
                && let Ok(repository) = open_with(Arc::new(other_host.clone()), other())
            {
                let _ = REMOVE(&repository);
            }
            None
        });
        let outcome = open_with(Arc::new(store), secret()).and_then(|repository| REMOVE(&repository));
        let (old, second, _) = vault.known(&memory, &format!("call {number}"));
        assert!(old || second, "call {number}: nobody is left: {outcome:?}");
        if let Err(Error::Conflict(why)) = &outcome {
            put_back += u64::from(why.contains("put back"));
        }
    }
    assert!(put_back > 0, "it never came to that");
}

#[test]
fn a_change_removes_all_that_the_old_secret_opens() {
    let vault = Vault::new();
    let memory = vault.memory();
    let repository = || open_with(Arc::new(memory.clone()), secret()).unwrap();
    // As a change that died half-way leaves it, and was done again.
    keys::add(&repository(), &secret(), &describe("again")).unwrap();
    let report = keys::change(&repository(), &secret(), &third(), &Describe::default()).unwrap();
    assert_eq!((report.removed.len(), report.left.len()), (2, 0));
    assert_eq!(vault.known(&memory, "changed"), (false, true, true));
    let repository = open_with(Arc::new(memory.clone()), third()).unwrap();
    let note = &repository.opened_by().unwrap().1;
    assert!(["test", "again"].contains(&note.label.as_str()), "the label stays: {note:?}");
    let error = keys::change(&repository, &third(), &third(), &Describe::default()).unwrap_err();
    assert!(matches!(error, Error::Usage(_)));
}

#[test]
fn there_are_only_so_many_slots() {
    let vault = Vault::new();
    let memory = vault.memory();
    let repository = open_with(Arc::new(memory.clone()), secret()).unwrap();
    for _ in 2..KEY_SLOTS_MAX {
        keys::add(&repository, &third(), &describe("one more")).unwrap();
    }
    assert!(matches!(keys::add(&repository, &third(), &describe("too many")), Err(Error::Usage(_))));
    assert_eq!(memory.places().iter().filter(|place| place.area == Area::Keys).count(), KEY_SLOTS_MAX);
    // One that another host adds between our look and our slot counts, too.
    keys::remove(&repository, &slot_of(&repository, "second"), Current::Keep).unwrap();
    let before = memory.places();
    let other_host = memory.clone();
    let store = Faulty::new(memory.clone(), move |call| {
        if call.operation == Operation::Put && call.area == Area::Keys {
            let slot = other_host.get(&before.iter().find(|place| place.area == Area::Keys).unwrap().clone(), 9999).unwrap();
            other_host.insert(Place { area: Area::Keys, name: "f".repeat(32) }, slot);
        }
        None
    });
    let repository = open_with(Arc::new(store), secret()).unwrap();
    assert!(matches!(keys::add(&repository, &other(), &describe("late")), Err(Error::Usage(_))));
    assert!(!opens(&memory, other()), "it was taken back");
    assert_eq!(memory.places().iter().filter(|place| place.area == Area::Keys).count(), KEY_SLOTS_MAX);
}

/// Labels are read with any secret, and cannot be moved from one slot to another.
#[test]
fn notes_are_bound_to_their_slots() {
    let vault = Vault::new();
    let memory = vault.memory();
    let repository = open_with(Arc::new(memory.clone()), secret()).unwrap();
    keys::describe_first(&repository).unwrap();
    for secret in [secret(), other()] {
        let repository = open_with(Arc::new(memory.clone()), secret).unwrap();
        let labels: BTreeSet<String> = repository.key_slots().unwrap().into_iter().map(|slot| slot.note.unwrap().label).collect();
        assert_eq!(labels, ["second".to_owned(), "test".into()].into());
    }
    let (first, second) = (Place::key_note(&slot_of(&repository, "test")), Place::key_note(&slot_of(&repository, "second")));
    let bytes = memory.remove(&first).unwrap();
    memory.insert(second, bytes);
    let swapped = repository.key_slots().unwrap();
    assert_eq!(swapped.iter().filter(|slot| slot.note_trouble.is_some() && slot.note.is_none()).count(), 1);
    let report = check_all(&repository).unwrap();
    assert!(report.findings.len() == 1 && report.findings[0].problem.contains("another key slot"), "{:?}", report.findings);
    // Nothing but the labels depends on them.
    memory.places().into_iter().filter(|place| place.area == Area::KeyNotes).for_each(|place| drop(memory.remove(&place)));
    assert_eq!(vault.known(&memory, "without notes"), (true, true, false));
}

fn words_of(repository: &Repository) -> String {
    repository.master().words().to_string()
}

fn open_with_words(memory: &Memory, words: &str) -> Result<Repository> {
    open_with(Arc::new(memory.clone()), Secret::Words(words.as_bytes().to_vec()))
}

#[test]
fn words_open_their_repository_and_no_other() {
    let vault = Vault::new();
    let memory = vault.memory();
    let words = words_of(&open_with(Arc::new(memory.clone()), secret()).unwrap());
    let repository = open_with_words(&memory, &words).unwrap();
    assert!(read(&repository, "latest").unwrap() == vault.bytes && repository.opened_by().is_none());
    keys::add(&repository, &third(), &describe("after the fire")).unwrap();
    assert_eq!(vault.known(&memory, "recovered"), (true, true, true));
    assert!(matches!(keys::change(&repository, &secret(), &third(), &Describe::default()), Err(Error::Usage(_))));
    let words_again = Secret::Words(words.clone().into_bytes());
    assert!(matches!(keys::add(&repository, &words_again, &describe("no")), Err(Error::Usage(_))));

    let wrong = |text: &str| match open_with_words(&memory, text) {
        Err(Error::WrongWords(why)) => why,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it opened"),
    };
    let (foreign, _) = Bench::in_memory(SEED + 1);
    let foreign = foreign.open();
    assert!(wrong(&words_of(&foreign)).contains("not those of repository"));
    assert!(wrong(&foreign.master().recovery_line(foreign.id())).contains(&foreign.id().short()));
    let list: Vec<&str> = words.split(' ').collect();
    let mut swapped = list.clone();
    swapped.swap(3, 17);
    wrong(&swapped.join(" "));
    wrong(&list[1..].join(" "));
    let typo = words.replacen(list[5], "qwertz", 1);
    assert!(wrong(&typo).contains("word 6") && !wrong(&typo).contains("qwertz"));
    assert!(matches!(open_with(Arc::new(memory.clone()), Secret::Words(vec![0xff; 9])), Err(Error::WrongWords(_))));

    // No key slot is needed, and a damaged manifest is told from wrong words.
    memory.places().into_iter().filter(|place| place.area == Area::Keys).for_each(|place| drop(memory.remove(&place)));
    assert!(matches!(open_with(Arc::new(memory.clone()), secret()), Err(Error::Damaged { .. })));
    assert!(read(&open_with_words(&memory, &words).unwrap(), "latest").unwrap() == vault.bytes);
    memory.edit(&Place::manifest(), |bytes| *bytes.last_mut().unwrap() ^= 1);
    assert!(matches!(open_with_words(&memory, &words), Err(Error::Damaged { .. })));
    assert!(wrong(&words_of(&foreign)).contains("not those of repository"));
}

/// A slot that asks for the moon is refused before any memory is taken, and one that asks for much is tried last.
#[test]
fn planted_slots_cost_little() {
    let vault = Vault::new();
    for (memory_kib, passes, lanes) in [(1 << 30, 1, 1), (u32::MAX, u32::MAX, 1 << 24), ((1 << 20) + 1, 3, 4), (256 << 10, 1 << 20, 4)] {
        let memory = vault.memory();
        let own = memory.places().into_iter().find(|place| place.area == Area::Keys).unwrap();
        let mut slot = memory.get(&own, 9999).unwrap();
        slot[7] = 1;
        for (at, number) in [(40, memory_kib), (44, passes), (48, lanes)] {
            slot[at..at + 4].copy_from_slice(&u32::to_le_bytes(number));
        }
        memory.insert(Place { area: Area::Keys, name: "0".repeat(32) }, slot);
        assert!(opens(&memory, secret()), "the right one still opens");
        match open_with(Arc::new(memory), Secret::Password(b"x".to_vec())).err().unwrap() {
            Error::Damaged { why, .. } => assert!(why.contains("beyond the limits"), "{why}"),
            other => panic!("{other}"),
        }
    }
}

fn ids(scene: &Scene) -> Vec<(String, bool, String)> {
    let listed: Value = serde_json::from_str(&scene.text(&["key", "list", "--json"])).unwrap();
    let slots = listed.as_array().unwrap().iter();
    slots.map(|slot| (slot["id"].as_str().unwrap().into(), slot["current"] == true, slot["label"].as_str().unwrap().into())).collect()
}

fn private(scene: &Scene, name: &str, text: &str) -> String {
    let path = scene.write(name, text.as_bytes());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[test]
fn keys_are_managed_from_the_command_line() {
    let scene = Scene::ready();
    scene.feed(&["backup", "--stdin"], b"precious", 0);
    assert_eq!(ids(&scene).len(), 1);
    scene.check(&["key", "remove", &ids(&scene)[0].0[..8]], 2);
    scene.check(&["key", "remove", &ids(&scene)[0].0[..8], "--force"], 2);
    let said = scene.text(&["key", "add", "--new-key-file", "key2", "--label", "nightly"]);
    assert!(said.starts_with("key slot "), "{said}");
    assert_eq!(fs::metadata(scene.at("key2")).unwrap().mode() & 0o777, 0o600);
    let slots = ids(&scene);
    assert_eq!(slots.len(), 2);
    let table = scene.text(&["key", "list"]);
    assert!(table.contains("nightly") && table.contains("key file") && table.contains("2 key slots"), "{table}");
    let second = slots.iter().find(|slot| slot.2 == "nightly").unwrap();
    assert!(!second.1);
    // The label is there for whoever opens with the other one, too.
    let with_second = |args: &[&str], code| expect(scene.bare(args).env("SNAP_KEY_FILE", scene.at("key2")), code);
    assert!(String::from_utf8(with_second(&["key", "list"], 0).stdout).unwrap().lines().any(|line| line.starts_with('*')));
    with_second(&["key", "passwd", "--new-key-file", "key2"], 2);
    with_second(&["key", "passwd", "--new-key-file", "key3"], 0);
    with_second(&["snapshots"], 12);
    assert_eq!(expect(scene.bare(&["dump", "latest"]).env("SNAP_KEY_FILE", scene.at("key3")), 0).stdout, b"precious");
    let third = ids(&scene).into_iter().find(|slot| slot.2 == "nightly").unwrap().0;
    let said = scene.text(&["key", "remove", &third[..8]]);
    assert!(said.contains("does not change the master key") && said.contains("rekey"), "{said}");
    scene.check(&["key", "remove", &third[..8]], 1);
    assert_eq!(ids(&scene).len(), 1);
    // Two new secrets at once, none at all, an empty one.
    let file = private(&scene, "new", "hunter2\n");
    scene.check(&["key", "add", "--new-key-file", "k", "--new-password-file", &file], 2);
    scene.check(&["key", "add"], 2);
    scene.check(&["key", "add", "--new-password-file", &private(&scene, "empty", "\n")], 2);
}

#[test]
fn passwords_are_added_and_changed() {
    let scene = Scene::ready();
    scene.check(&["key", "add", "--new-password-file", &private(&scene, "new", "hunter2\n")], 0);
    expect(scene.bare(&["key", "passwd", "--json"]).env("SNAP_PASSWORD", "hunter2").env("SNAP_NEW_PASSWORD", "hunter3"), 0);
    expect(scene.bare(&["snapshots"]).env("SNAP_PASSWORD", "hunter2"), 12);
    expect(scene.bare(&["snapshots"]).env("SNAP_PASSWORD", "hunter3"), 0);
    let listed: Value = serde_json::from_str(&scene.text(&["key", "list", "--json"])).unwrap();
    let password = listed.as_array().unwrap().iter().find(|slot| slot["kind"] == "password").unwrap();
    assert_eq!((&password["memory_kib"], &password["passes"]), (&(256 << 10).into(), &3.into()));
}

/// The words on a sheet of text.
fn words_on(sheet: &str) -> String {
    let lines = sheet.lines().skip_while(|line| !line.starts_with("The words")).skip(2).take_while(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_recovery_sheet_brings_everything_back() {
    let scene = Scene::ready();
    scene.feed(&["backup", "--stdin"], b"precious", 0);
    for (name, html) in [("sheet.txt", None), ("sheet.html", Some("--html"))] {
        let args: Vec<&str> = ["key", "export", name].into_iter().chain(html).collect();
        let said = scene.text(&args);
        assert!(said.contains("remove the file"), "{said}");
        assert_eq!(fs::metadata(scene.at(name)).unwrap().mode() & 0o777, 0o600);
        scene.check(&args, 1);
    }
    let sheet = fs::read_to_string(scene.at("sheet.txt")).unwrap();
    let words = words_on(&sheet);
    assert_eq!(words.split_whitespace().count(), 48, "24 words and their numbers: {words}");
    for word in words.split_whitespace().filter(|word| word.parse::<u8>().is_err()) {
        assert!(fs::read_to_string(scene.at("sheet.html")).unwrap().contains(&format!("<li>{word}</li>")));
    }
    // Not into a pipe, and not into the repository.
    scene.check(&["key", "export", "--show"], 2);
    scene.check(&["key", "export", "r/sheet"], 2);
    scene.check(&["key", "export", "r/keys/sheet"], 2);

    // The key file burnt; the sheet is typed into a file, numbers and all.
    fs::remove_file(scene.at("key")).unwrap();
    let file = private(&scene, "words", &words);
    let restored = expect(&mut scene.bare(&["dump", "latest", "--recovery-words", &file]), 0);
    assert_eq!(restored.stdout, b"precious");
    expect(scene.bare(&["key", "recover", "--recovery-words", &file]).env("SNAP_NEW_PASSWORD", "after the fire"), 0);
    assert_eq!(expect(scene.bare(&["dump", "latest"]).env("SNAP_PASSWORD", "after the fire"), 0).stdout, b"precious");

    // Wrong ones.
    let mut list: Vec<&str> = words.split_whitespace().filter(|word| word.parse::<u8>().is_err()).collect();
    let typo = private(&scene, "typo", &words.replacen(list[0], "qwertz", 1));
    let output = expect(&mut scene.bare(&["snapshots", "--recovery-words", &typo]), 12);
    assert!(stderr(&output).contains("word 1 ") && !stderr(&output).contains("qwertz"), "{}", stderr(&output));
    let at = (1..24).find(|at| list[*at] != list[0]).unwrap();
    list.swap(0, at);
    expect(&mut scene.bare(&["snapshots", "--recovery-words", &private(&scene, "order", &list.join(" "))]), 12);
    let foreign = Scene::ready();
    foreign.check(&["key", "export", "sheet"], 0);
    let foreign = words_on(&fs::read_to_string(foreign.at("sheet")).unwrap());
    let output = expect(&mut scene.bare(&["snapshots", "--recovery-words", &private(&scene, "foreign", &foreign)]), 12);
    assert!(stderr(&output).contains("not those of repository"), "{}", stderr(&output));
    expect(&mut scene.bare(&["key", "recover"]), 2);
    expect(&mut scene.bare(&["init", "-r", "new", "--recovery-words", &file]), 2);
}

/// At a terminal: a password typed twice, words typed with a slip, the sheet shown.
#[test]
fn secrets_are_asked_for_at_a_terminal() {
    if !fs::exists("/usr/bin/script").unwrap() {
        eprintln!("SKIPPED: script is not there to make a terminal");
        return;
    }
    let scene = Scene::ready();
    let at_terminal = |command: &str, typed: &str| {
        let line = format!("{} {command}", env!("CARGO_BIN_EXE_snap"));
        let environment = scene.bare(&[]);
        let mut child = std::process::Command::new("/usr/bin/script");
        child.args(["-qec", &line, "/dev/null"]).env_clear().envs(environment.get_envs().filter_map(|(name, value)| Some((name, value?))));
        child.current_dir(scene.at("")).env("SNAP_KEY_FILE", scene.at("key")).env("TERM", "dumb");
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, said) = at_terminal("key add --label typed", "hunter2\nhunter2\n");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("New password") && said.contains("The same again"), "{said}");
    assert_eq!(at_terminal("key add", "hunter2\nhunter3\n").0, Some(2));
    expect(scene.bare(&["snapshots"]).env("SNAP_PASSWORD", "hunter2"), 0);

    let (code, sheet) = at_terminal("key export --show", "");
    assert_eq!(code, Some(0), "{sheet}");
    let sheet = sheet.replace('\r', "");
    let words: Vec<String> = words_on(&sheet).split_whitespace().filter(|word| word.parse::<u8>().is_err()).map(str::to_owned).collect();
    assert_eq!(words.len(), 24, "{sheet}");
    fs::remove_file(scene.at("key")).unwrap();
    // Three on the first line, a slip on the next, then one a line.
    let typed = format!("{}\n{} nonsense {}\n{}\nback\nback\n", words[..3].join(" "), words[3], words[4], words[4..].join("\n"));
    let (code, said) = at_terminal("key recover", &typed);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("Word 5 is not in the list"), "{said}");
    expect(scene.bare(&["snapshots"]).env("SNAP_PASSWORD", "back"), 0);
}

/// No secret in arguments, messages, the cache or the repository; key files and passwords least of all in what a sheet is not.
#[test]
fn no_secret_is_left_anywhere() {
    let scene = Scene::new();
    let password = "s3cret-passphrase-of-the-test";
    let snap = |args: &[&str], code| {
        let output = expect(scene.bare(args).env("SNAP_PASSWORD", password), code);
        format!("{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output))
    };
    let mut said = snap(&["init"], 0);
    scene.write("data/file", b"content");
    said += &snap(&["backup", "data", "-vv"], 0);
    said += &snap(&["key", "export", "sheet"], 0);
    let words = words_on(&fs::read_to_string(scene.at("sheet")).unwrap());
    let list: Vec<String> = words.split_whitespace().filter(|word| word.parse::<u8>().is_err()).map(str::to_owned).collect();
    // A run of three words; single ones are English.
    let run = list[..3].join(" ");
    let file = private(&scene, "words", &format!("{} qwertz", list[..23].join(" ")));
    said += &snap(&["key", "list", "-vv"], 0);
    said += &snap(&["key", "list", "--json"], 0);
    said += &snap(&["cat", "key", ""], 0);
    said += &snap(&["cat", "manifest"], 0);
    said += &snap(&["check", "-vv"], 0);
    said += &snap(&["dump", "nothing"], 2);
    said += &snap(&["key", "add", "--new-password-file", &file, "--label", "x"], 0);
    let wrong = expect(&mut scene.bare(&["snapshots", "--recovery-words", &file, "-vv"]), 12);
    said += &stderr(&wrong);
    let wrong = expect(scene.bare(&["snapshots", "--json"]).env("SNAP_PASSWORD", format!("{password}-x")), 12);
    said += &stderr(&wrong);
    assert!(!said.contains(password) && !said.contains(&run) && !said.contains("qwertz"), "{said}");
    for (name, bytes) in files_below(&scene.at("")) {
        if name.ends_with("/sheet") || name.ends_with("/words") {
            continue;
        }
        let holds = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        assert!(!holds(password) && !holds(&run), "{name}");
    }
    assert!(scene.at(".cache/snap").exists(), "there is a cache to look into");
}

fn files_below(folder: &std::path::Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.is_dir() {
            true => found.extend(files_below(&entry)),
            false => found.push((entry.to_str().unwrap().to_owned(), fs::read(&entry).unwrap())),
        }
    }
    found
}

/// A process of ours that waits for its standard input, with secrets in memory.
fn waiting(scene: &Scene, user: Option<u32>) -> std::process::Child {
    let mut command = scene.bare(&["backup", "--stdin", "--init"]);
    command.env("SNAP_PASSWORD", "s3cret").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Some(user) = user {
        command.uid(user);
    }
    let child = command.spawn().unwrap();
    wait_for("the repository", || scene.at("r/manifest").exists());
    child
}

#[test]
fn memory_is_kept_from_core_dumps_and_from_others() {
    let is_root = rustix::process::geteuid().is_root();
    let nobody = is_root.then_some(65534);
    let scene = Scene::new();
    if is_root {
        fs::set_permissions(scene.at(""), fs::Permissions::from_mode(0o777)).unwrap();
        let reachable = std::process::Command::new(env!("CARGO_BIN_EXE_snap")).arg("version").uid(65534).output();
        if !reachable.is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED: another user cannot run the program where it lies");
            return;
        }
    }
    // Where a process may not be dumped, its files below /proc belong to root.
    let mut child = waiting(&scene, nobody);
    let proc = |file: &str| format!("/proc/{}/{file}", child.id());
    assert_eq!(fs::metadata(proc("environ")).unwrap().uid(), 0);
    assert!(!fs::read_to_string(proc("cmdline")).unwrap().contains("s3cret"));
    let mut control = std::process::Command::new("sleep");
    if is_root {
        control.uid(65534);
    }
    let mut control = control.arg("60").spawn().unwrap();
    let own = nobody.unwrap_or_else(|| rustix::process::geteuid().as_raw());
    wait_for("the other process", || fs::metadata(format!("/proc/{}/environ", control.id())).is_ok_and(|meta| meta.uid() == own));
    control.kill().unwrap();
    control.wait().unwrap();
    kill_process(Pid::from_child(&child), Signal::ABORT).unwrap();
    let status = child.wait().unwrap();
    assert_eq!((status.signal(), status.core_dumped()), (Some(Signal::ABORT.as_raw()), false));

    // Unless one who looks for a mistake asks for it.
    let scene = Scene::new();
    if is_root {
        fs::set_permissions(scene.at(""), fs::Permissions::from_mode(0o777)).unwrap();
    }
    let mut command = scene.bare(&["backup", "--stdin", "--init"]);
    command.env("SNAP_PASSWORD", "s3cret").env("SNAP_ALLOW_CORE_DUMPS", "1").stdin(Stdio::piped()).stdout(Stdio::null());
    if let Some(user) = nobody {
        command.uid(user);
    }
    let mut child = command.spawn().unwrap();
    wait_for("the repository", || scene.at("r/manifest").exists());
    assert_eq!(fs::metadata(format!("/proc/{}/environ", child.id())).unwrap().uid(), own);
    child.kill().unwrap();
    child.wait().unwrap();
}
