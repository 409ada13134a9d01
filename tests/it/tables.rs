//! A database as several streams at once (`parallel`), with programs in the place of psql and pg_dump. With the real ones:
//! `benches/roundtrip-tables`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use crate::cli::{Scene, expect, stderr};

/// Answers as psql does: a state, and the tables in it, whose names lie in files.
const PSQL: &str = r#"#!/bin/sh
echo "psql $*" >> HERE/log
cat HERE/broken >&2 2>/dev/null && exit 3
hex() { od -An -v -tx1 | tr -d ' \n'; }
while IFS= read -r line; do
  case $line in
    *pg_export_snapshot*) echo 00000003-0000001B-1 ;;
    *pg_table_size*)
      while read -r table; do
        printf '"public"."%s"' "$table" | hex
        printf ' '
        printf public | hex
        printf ' '
        printf '%s' "$table" | hex
        echo
      done < HERE/tables
      ;;
    *"(end)"*) echo "(end)" ;;
  esac
done
echo "psql left" >> HERE/log
"#;

/// A dump that says how it was asked for.
const PG_DUMP: &str = r#"#!/bin/sh
echo "pg_dump $*" >> HERE/log
for word; do
  case $word in
    --table=*) table=${word#--table=} ;;
    --section=*) section=${word#--section=} ;;
  esac
done
case $table in *"$(cat HERE/silent 2>/dev/null || echo none)"*) exit 0 ;; esac
if [ -f HERE/together ] && [ -n "$table" ]; then
  # Each waits until another one is there.
  touch "HERE/met/$$"
  until [ "$(ls HERE/met | wc -l)" -gt 1 ]; do sleep 0.01; done
fi
printf -- '--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 15.18\n-- Dumped by pg_dump version 15.18\n\nSET a = 1;\n\n'
if [ -n "$table" ]; then
  name=$(printf %s "$table" | tr -d '"')
  printf -- '--\n-- Data for Name: %s; Type: TABLE DATA; Schema: public; Owner: -\n--\n\nCOPY %s (id) FROM stdin;\n' "${name#*.}" "$table"
  seq 1 ${ROWS:-1000}
  printf '\\.\n\n\n'
else
  echo "$section;"
fi
case $table in *"$(cat HERE/broken-off 2>/dev/null || echo none)"*) exit 0 ;; esac
case $table in *"$(cat HERE/failing 2>/dev/null || echo none)"*) echo "pg_dump: error: no more space" >&2; exit 1 ;; esac
printf -- '--\n-- PostgreSQL database dump complete\n--\n\n'
"#;

struct Place(Scene);

impl Place {
    fn new(tables: &[&str], more: &str) -> Self {
        let place = Self(Scene::ready());
        let here = place.0.at("").to_str().unwrap().trim_end_matches('/').to_owned();
        for (name, text) in [("psql", PSQL), ("pg_dump", PG_DUMP)] {
            let program = place.0.write(&format!("bin/{name}"), text.replace("HERE", &here).as_bytes());
            fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::create_dir(place.0.at("met")).unwrap();
        place.0.write("tables", tables.iter().map(|table| format!("{table}\n")).collect::<String>().as_bytes());
        let config = format!(
            "[repository]\npath = \"{here}/r\"\nkey_file = \"{here}/key\"\n[jobs.shop]\n\
             postgres = {{ database = \"shop\", parallel = 2, program = \"{here}/bin/pg_dump\" }}\n{more}"
        );
        place.0.write("snap.toml", config.as_bytes());
        fs::set_permissions(place.0.at("snap.toml"), fs::Permissions::from_mode(0o600)).unwrap();
        place
    }

    fn run(&self, code: i32) -> std::process::Output {
        expect(&mut self.snap(&["run", "--json"]), code)
    }

    fn snap(&self, args: &[&str]) -> Command {
        self.0.snap(args)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.0.at("log")).unwrap()
    }
}

fn summary(output: &std::process::Output) -> Value {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(said.lines().find(|line| line.contains("\"summary\"")).unwrap_or_else(|| panic!("{said}"))).unwrap()
}

#[test]
fn streams_of_a_database_are_one_snapshot_and_come_back_as_one() {
    let place = Place::new(&["orders", "odd \"name/", "users"], "");
    // They are made at once, or nothing ever ends.
    place.0.write("together", b"");
    let first = summary(&place.run(0));
    let names =
        ["1-schema.sql", "2-data/public.odd%20%22name%2F.sql", "2-data/public.orders.sql", "2-data/public.users.sql", "3-indexes.sql"];
    let paths: Vec<String> = names.iter().map(|name| format!("/shop/{name}")).collect();
    assert_eq!(place.0.text(&["ls"]).lines().collect::<Vec<_>>(), paths);
    let log = place.log();
    for part in [
        "--section=pre-data --section=data --exclude-table-data=\"public\".\"orders\" --exclude-table-data=",
        "--section=data --table=\"public\".\"odd \"name/\" shop\n",
        "--section=post-data shop\n",
    ] {
        assert!(log.contains(part), "{part} in {log}");
    }
    assert_eq!(log.matches("--snapshot=00000003-0000001B-1 ").count(), 5, "{log}");
    assert!(log.ends_with("psql left\n"), "the state is held to the end, and no longer: {log}");
    // In the order of their paths they are one dump.
    let parts: Vec<u8> = paths.iter().flat_map(|path| place.0.check(&["dump", "latest", path], 0).stdout).collect();
    for selection in ["latest", "latest:/shop"] {
        assert!(place.0.check(&["dump", selection], 0).stdout == parts, "{selection}");
    }
    let text = String::from_utf8(parts).unwrap();
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what} in {text}"));
    assert!(at("data;") < at("COPY \"public\".\"orders\"") && at("COPY \"public\".\"users\"") < at("post-data;"));
    assert_eq!(first["dumps"].as_array().map(Vec::len), Some(5), "{first}");
    assert_eq!(first["streams"][0]["dump"]["rows"], 3000, "{first}");
    // A whole is loaded by one command, a table by its own.
    let told = place.0.text(&["restore", "--job", "shop"]);
    assert_eq!(told.matches("snap dump").count(), 1, "{told}");
    assert!(told.contains(":/shop --to-command -- psql -X -1 -v ON_ERROR_STOP=1 -d DATABASE\n"), "{told}");
    assert!(told.contains("shop: pg_dump 15.18, complete, 3 tables, 3000 rows"), "{told}");
    place.0.check(&["check", "--read-data"], 0);

    // The same the next night costs nothing, in whatever order the streams end.
    let second = summary(&place.run(0));
    assert_eq!((second["unchanged"].as_bool(), second["files_unmodified"].as_u64()), (Some(true), Some(5)), "{second}");
}

#[test]
fn larger_streams_that_take_turns_come_back_and_cost_what_changed() {
    let place = Place::new(&["a", "b", "c"], "");
    let night = |rows: &str| {
        let mut command = place.snap(&["run", "--json"]);
        let output = expect(command.env("ROWS", rows), 0);
        (place.0.check(&["dump", "latest"], 0).stdout, summary(&output)["data_added"].as_u64().unwrap())
    };
    // Several slabs of each.
    let (first, _) = night("2000000");
    let expected: Vec<u8> = (1..=2_000_000).flat_map(|number: u32| format!("{number}\n").into_bytes()).collect();
    assert_eq!(first.windows(5).filter(|part| part == b"COPY ").count(), 3);
    let rows = &first[first.windows(6).position(|part| part == b"stdin;").unwrap() + 7..];
    assert!(rows.starts_with(&expected));
    let (second, added) = night("2000001");
    assert_eq!(second.len(), first.len() + 3 * "2000001\n".len());
    assert!(added < 1 << 20, "{added}");
}

#[test]
fn one_stream_that_fails_is_the_failure_of_all() {
    let place = Place::new(&["orders", "users", "more"], "");
    place.0.write("failing", b"users");
    let output = expect(&mut place.snap(&["run"]), 4);
    let said = stderr(&output);
    assert!(said.contains("shop: 2-data/public.users.sql: "), "{said}");
    assert!(said.contains("pg_dump exited with code 1, no snapshot was saved") && said.contains("no more space"), "{said}");
    assert_eq!(place.0.count(), 0);
    assert!(place.log().contains("psql left\n"));
    fs::remove_file(place.0.at("failing")).unwrap();
    place.run(0);
    // Without a state there is nothing to dump.
    fs::write(place.0.at("log"), "").unwrap();
    place.0.write("broken", b"psql: error: connection refused\n");
    let said = stderr(&expect(&mut place.snap(&["run"]), 4));
    assert!(said.contains("psql exited with code 3, no snapshot was saved") && said.contains("connection refused"), "{said}");
    assert!(!place.log().contains("pg_dump"));
    assert_eq!(place.0.count(), 1);
}

/// What stands between us and pg_dump may end with success although pg_dump did not.
#[test]
fn a_stream_that_is_not_whole_makes_no_newest_state() {
    let place = Place::new(&["orders", "users"], "");
    place.run(0);
    let good = place.0.check(&["dump", "latest"], 0).stdout;
    place.0.write("silent", b"users");
    let said = stderr(&expect(&mut place.snap(&["run"]), 1));
    assert!(said.contains("shop/2-data/public.users.sql is empty, no snapshot was saved"), "{said}");
    assert_eq!(place.0.count(), 1);
    fs::rename(place.0.at("silent"), place.0.at("broken-off")).unwrap();
    let said = stderr(&expect(&mut place.snap(&["run"]), 4));
    assert!(said.contains("shop/2-data/public.users.sql is INCOMPLETE"), "{said}");
    assert_eq!(place.0.count(), 2);
    assert!(place.0.check(&["dump", "latest"], 0).stdout == good);
}

#[test]
fn what_is_expected_is_that_of_the_whole_database() {
    let place = Place::new(&["orders", "users"], "expect = { tables = [\"users\"], rows = { orders = \"1000..\" }, min_size = \"5K\" }\n");
    place.run(0);
    place.0.write("tables", b"users\n");
    let output = expect(&mut place.snap(&["run"]), 4);
    assert!(stderr(&output).contains("shop has no table orders, of which rows are expected"), "{}", stderr(&output));
}
