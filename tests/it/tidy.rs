//! Housekeeping as tests. The table of floors here is the architecture: a module names only modules on lower floors.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Modules by floor.
const FLOORS: &[(u8, &[&str])] = &[
    (0, &["error", "id", "limits", "progress", "replace", "wording", "world"]),
    (1, &["chunking", "compression", "config", "crypto", "dumps", "format", "retention"]),
    (2, &["backend", "index", "source", "target"]),
    (3, &["repo"]),
    (4, &["notify", "ops"]),
    (5, &["serve"]),
    (6, &["cli"]),
];

/// Modules of one floor that may name each other, in this direction only.
const SAME_FLOOR: &[(&str, &str)] = &[
    ("crypto", "format"),
    ("crypto", "chunking"),
    ("chunking", "format"),
    ("compression", "format"),
    ("config", "retention"),
    ("dumps", "format"),
    ("error", "id"),
    ("replace", "error"),
];

const FILE_LINES_MAX: usize = 480;
const FUNCTION_LINES_MAX: usize = 90;
const FUNCTION_PARAMETERS_MAX: usize = 6;

/// Words that belong to `cli/` alone.
const CLI_ONLY: &[&str] = &["println!", "eprintln!", "print!(", "eprint!(", "dbg!(", "std::env::", "env::var", "std::process::exit"];
/// Where the library may nevertheless look at the process: names of variables to take from a command, and where relative paths begin.
const LOOKS_AT_PROCESS: &[(&str, &str)] = &[("source/command.rs", "std::env::vars_os()"), ("source/roots.rs", "std::env::current_dir()")];

/// Nowhere but in tests.
const NEVER: &[&str] = &["todo!(", "unimplemented!(", "unsafe ", "unsafe{", "FIXME", "XXX"];

/// A source file without its tests, comments and texts.
struct Source {
    /// Below `src`.
    name: String,
    whole: String,
    code: Vec<String>,
}

impl Source {
    /// Names from the crate's root down to the module this file is.
    fn module(&self) -> Vec<&str> {
        let path = self.name.trim_end_matches(".rs").trim_end_matches("/mod");
        match path {
            "lib" | "main" => Vec::new(),
            path => path.split('/').collect(),
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // Scripts and examples that are built in have no such head.
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let name = path.strip_prefix(root().join("src")).unwrap().to_str().unwrap().to_owned();
            let whole = fs::read_to_string(&path).unwrap();
            found.push(Source { code: code(&whole), name, whole });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(found.len() > 50, "the sources are not where they were");
    found
}

/// Files that are tests as a whole.
fn is_test(name: &str) -> bool {
    name.contains("/tests/") || ["/tests.rs", "/testing.rs", "/conformance.rs"].iter().any(|end| name.ends_with(end))
}

fn shipped() -> Vec<Source> {
    sources().into_iter().filter(|source| !is_test(&source.name)).collect()
}

/// The lines of code up to the inline tests, without comments and the contents of one-line texts.
fn code(whole: &str) -> Vec<String> {
    let lines: Vec<&str> = whole.lines().collect();
    let tests = lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests {"));
    lines[..tests.unwrap_or(lines.len())].iter().map(|line| plain(line)).collect()
}

fn plain(line: &str) -> String {
    let mut out = String::new();
    let mut in_text = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if in_text => drop(chars.next()),
            '"' => in_text = !in_text,
            '/' if !in_text && chars.peek() == Some(&'/') => break,
            c if !in_text => out.push(c),
            _ => {}
        }
    }
    out
}

fn floor(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(_, modules)| modules.contains(&module)).map(|(floor, _)| *floor)
}

fn identifier(text: &str) -> &str {
    &text[..text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())]
}

/// The top modules a line names by `crate::` or by enough of `super::`.
fn named(line: &str, depth: usize) -> Vec<String> {
    let mut found = Vec::new();
    let mut take = |rest: &str| match rest.strip_prefix('{') {
        Some(list) => {
            // `use crate::{a::B, c}`: names at the list's own level.
            let mut level = 0;
            let mut part = String::new();
            for c in list.chars().chain([',']) {
                match c {
                    '{' => level += 1,
                    '}' => level -= 1,
                    ',' if level <= 0 => {
                        found.push(identifier(part.trim()).to_owned());
                        part.clear();
                        continue;
                    }
                    _ => {}
                }
                part.push(c);
            }
        }
        None => found.push(identifier(rest).to_owned()),
    };
    for (at, _) in line.match_indices("crate::") {
        take(&line[at + "crate::".len()..]);
    }
    let mut rest = line;
    while let Some(at) = rest.find("super::") {
        let mut count = 0;
        rest = &rest[at..];
        while let Some(next) = rest.strip_prefix("super::") {
            count += 1;
            rest = next;
        }
        if count >= depth {
            take(rest);
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

#[test]
fn the_table_is_the_one_in_the_library() {
    let mut floor = None;
    let mut written: BTreeMap<u8, BTreeSet<String>> = BTreeMap::new();
    for line in fs::read_to_string(root().join("src/lib.rs")).unwrap().lines() {
        if let Some(number) = line.strip_prefix("// Floor ") {
            floor = number.trim().parse().ok();
        } else if let Some(module) = line.strip_prefix("pub mod ").or(line.strip_prefix("mod ")) {
            let floor = floor.unwrap_or_else(|| panic!("{module} stands on no floor"));
            written.entry(floor).or_default().insert(module.trim_end_matches(';').to_owned());
        }
    }
    let table: BTreeMap<u8, BTreeSet<String>> =
        FLOORS.iter().map(|(floor, modules)| (*floor, modules.iter().map(|module| module.to_string()).collect())).collect();
    assert_eq!(table, written);
}

#[test]
fn modules_name_only_lower_floors() {
    let mut wrong = Vec::new();
    let mut used: BTreeSet<&(&str, &str)> = BTreeSet::new();
    for source in shipped() {
        let module = source.module();
        let Some(&own) = module.first() else { continue };
        let own_floor = floor(own).unwrap_or_else(|| panic!("{} stands on no floor", source.name));
        for (number, line) in source.code.iter().enumerate() {
            for other in named(line, module.len()).iter().filter(|other| *other != own) {
                let Some(other_floor) = floor(other) else {
                    wrong.push(format!("{}:{}: {other} stands on no floor", source.name, number + 1));
                    continue;
                };
                let allowed = SAME_FLOOR.iter().find(|pair| **pair == (own, other.as_str()));
                used.extend(allowed);
                if other_floor > own_floor || other_floor == own_floor && allowed.is_none() {
                    wrong.push(format!("{}:{}: {own} (floor {own_floor}) names {other} ({other_floor})", source.name, number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    for (a, b) in SAME_FLOOR {
        assert_eq!(floor(a), floor(b), "{a} and {b}");
        assert!(!SAME_FLOOR.contains(&(*b, *a)), "{a} and {b} name each other");
        if !used.contains(&(*a, *b)) {
            println!("{a} no longer names {b}: the pair can go");
        }
    }
}

#[test]
fn uses_are_found_in_every_form() {
    for (line, depth, expected) in [
        ("use crate::error::{Error, Result};", 1, &["error"][..]),
        ("use crate::{id, format::{a, b}, ops};", 1, &["id", "format", "ops"]),
        ("let x = crate::ops::backup::f(crate::cli::g());", 2, &["ops", "cli"]),
        ("use super::super::repo::X;", 2, &["repo"]),
        ("use super::super::X;", 3, &[]),
        ("use super::repo;", 1, &["repo"]),
        ("pub(crate) fn f()", 1, &[]),
    ] {
        assert_eq!(named(line, depth), expected, "{line}");
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    let without: Vec<String> = sources().into_iter().filter(|source| !source.whole.starts_with("//! ")).map(|source| source.name).collect();
    assert!(without.is_empty(), "without a //! head: {without:?}");
    for entry in ["tests/it", "tests/sim"].into_iter().flat_map(|folder| fs::read_dir(root().join(folder)).unwrap()) {
        let path = entry.unwrap().path();
        assert!(path.is_dir() || fs::read_to_string(&path).unwrap().starts_with("//! "), "{path:?}");
    }
}

#[test]
fn files_and_functions_are_short() {
    let mut wrong = Vec::new();
    let mut longest = (0, String::new());
    for source in shipped() {
        let lines = source.code.len();
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", source.name));
        }
        for (start, len, head) in functions(&source.code) {
            longest = longest.max((len, format!("{}:{}", source.name, start + 1)));
            if len > FUNCTION_LINES_MAX {
                wrong.push(format!("{}:{}: a function of {len} lines, at most {FUNCTION_LINES_MAX}", source.name, start + 1));
            }
            let parameters = parameters(&head);
            if parameters > FUNCTION_PARAMETERS_MAX {
                wrong.push(format!("{}:{}: {parameters} parameters, at most {FUNCTION_PARAMETERS_MAX}", source.name, start + 1));
            }
        }
    }
    println!("longest function: {} lines, {}", longest.0, longest.1);
    assert!(longest.0 > 20, "functions are no longer found");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// First line, number of lines and head of each function, as rustfmt lays them out.
fn functions(code: &[String]) -> Vec<(usize, usize, String)> {
    let mut found = Vec::new();
    for (start, line) in code.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let mut words = line.trim_start();
        for word in ["pub ", "pub(crate) ", "pub(super) ", "const ", "async "] {
            words = words.strip_prefix(word).unwrap_or(words);
        }
        if !words.starts_with("fn ") || line.trim_end().ends_with('}') || line.trim_end().ends_with(';') {
            continue;
        }
        let end = format!("{}}}", " ".repeat(indent));
        let len = code[start..].iter().position(|line| *line == end).map_or(1, |at| at + 1);
        let body = code[start..start + len].iter().position(|line| line.trim_end().ends_with('{')).unwrap_or(0);
        found.push((start, len, code[start..=start + body].join(" ")));
    }
    found
}

fn parameters(head: &str) -> usize {
    let list = head.find('(').map_or("", |at| &head[at + 1..]);
    let (mut depth, mut count, mut any) = (0, 0, false);
    for c in list.chars() {
        match c {
            ')' if depth == 0 => break,
            '(' | '[' | '<' | '{' => depth += 1,
            ')' | ']' | '>' | '}' => depth -= 1,
            ',' if depth == 0 => {
                count += usize::from(any);
                any = false;
                continue;
            }
            _ => {}
        }
        any |= !c.is_whitespace();
    }
    count + usize::from(any)
}

#[test]
fn only_the_command_line_prints_and_looks_around() {
    let mut wrong = Vec::new();
    for source in shipped().iter().filter(|source| !source.name.starts_with("cli/") && source.name != "main.rs") {
        let allowed: Vec<&str> = LOOKS_AT_PROCESS.iter().filter(|(name, _)| *name == source.name).map(|(_, word)| *word).collect();
        for (number, line) in source.code.iter().enumerate() {
            let line = allowed.iter().fold(line.clone(), |line, word| line.replace(word, ""));
            let words = CLI_ONLY.iter().filter(|word| line.contains(**word));
            wrong.extend(words.map(|word| format!("{}:{}: {word}", source.name, number + 1)));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// `World` is the only clock: `Instant` for elapsed time is allowed, the time of day is not.
#[test]
fn only_the_world_knows_the_time_of_day() {
    let mut wrong = Vec::new();
    for source in shipped().iter().filter(|source| !source.name.starts_with("cli/") && source.name != "world.rs") {
        // Names of temporary files.
        if ["backend/local.rs", "index/mod.rs"].contains(&source.name.as_str()) {
            continue;
        }
        for (number, line) in source.code.iter().enumerate() {
            let words = ["Timestamp::now", "SystemTime::now", "Zoned::now", "getrandom::", "rand::"];
            let words = words.iter().filter(|word| line.contains(**word));
            wrong.extend(words.map(|word| format!("{}:{}: {word}", source.name, number + 1)));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_to_do_and_nothing_is_unsafe() {
    let mut wrong = Vec::new();
    for source in shipped() {
        for (number, line) in source.code.iter().enumerate() {
            let words = NEVER.iter().filter(|word| line.contains(**word));
            wrong.extend(words.map(|word| format!("{}:{}: {word}", source.name, number + 1)));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(fs::read_to_string(root().join("src/lib.rs")).unwrap().contains("#![forbid(unsafe_code)]"));
}

#[test]
fn every_dependency_has_a_reason_in_the_architecture() {
    let Ok(document) = fs::read_to_string(root().join("docs/ARCHITECTURE.md")) else {
        eprintln!("SKIPPED: docs/ARCHITECTURE.md does not exist yet");
        return;
    };
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut in_dependencies = false;
    let mut unnamed = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            in_dependencies = line.contains("dependencies");
        } else if let Some((name, _)) = line.split_once('=').filter(|_| in_dependencies && !line.starts_with('#')) {
            let name = name.trim();
            if !document.contains(&format!("`{name}`")) {
                unnamed.push(name.to_owned());
            }
        }
    }
    assert!(unnamed.is_empty(), "docs/ARCHITECTURE.md does not name {unnamed:?}");
}
