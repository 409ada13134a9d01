//! A database of PostgreSQL as several streams of one state of it: schema, each table, and what comes after the data.
//!
//! A client holds a transaction open whose snapshot the other programs take over, and locks that keep tables from being removed,
//! renamed or emptied before their turn has come. What is in no table's stream is in the first: it leaves out the rows of just those
//! tables. In the order of their paths the streams are one dump.

use std::ffi::OsString;

use super::StreamCommand;

/// Names of the streams below the folder of the database.
pub const SCHEMA_STREAM: &str = "1-schema.sql";
pub const DATA_FOLDER: &str = "2-data";
pub const INDEXES_STREAM: &str = "3-indexes.sql";

/// Takes hold of a state. The answer is its id, and one line.
pub const HOLD: &str = "\
SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET search_path = '';
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT pg_catalog.pg_export_snapshot();
";

/// Tables with rows that this state has: neither those of the system nor of extensions, and not those that a standby cannot read.
const WHICH: &str = "\
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.objsubid = 0 AND d.deptype = 'e')
";

/// Locks the tables as pg_dump does, then lists them, the largest first: pattern, schema and name, in hexadecimal digits, since a name
/// may hold anything.
pub fn list_tables() -> String {
    format!(
        "SELECT pg_catalog.format('LOCK TABLE ONLY %I.%I IN ACCESS SHARE MODE', n.nspname, c.relname)
{WHICH}\\gexec
SELECT pg_catalog.encode(pg_catalog.convert_to(pg_catalog.format('\"%s\".\"%s\"', pg_catalog.replace(n.nspname::text, '\"', '\"\"'),
pg_catalog.replace(c.relname::text, '\"', '\"\"')), pg_catalog.pg_client_encoding()), 'hex'),
pg_catalog.encode(pg_catalog.convert_to(n.nspname::text, 'UTF8'), 'hex'),
pg_catalog.encode(pg_catalog.convert_to(c.relname::text, 'UTF8'), 'hex')
{WHICH}ORDER BY pg_catalog.pg_table_size(c.oid) DESC NULLS LAST, n.nspname, c.relname;
"
    )
}

/// One database as several streams.
#[derive(Clone, Debug, PartialEq)]
pub struct Tables {
    /// Folder of the streams in the snapshot.
    pub name: String,
    /// How many of them are made at a time.
    pub at_once: usize,
    /// psql, which holds the state that all see.
    pub holder: StreamCommand,
    /// pg_dump, without what tells the streams apart and without the database.
    pub dump: StreamCommand,
    pub database: String,
}

/// What a stream holds. Tables are named by patterns, as pg_dump takes them.
#[derive(Clone, Copy, Debug)]
pub enum Portion<'a> {
    /// All definitions that come before the data, and the data of all but these tables: sequences, large objects, and the like.
    Schema(&'a [OsString]),
    Table(&'a OsString),
    /// Indexes, keys and triggers: all definitions that come behind the data.
    Indexes,
}

impl Tables {
    /// The command that makes a stream.
    pub fn line(&self, state: &str, portion: Portion) -> Vec<OsString> {
        let with = |option: &str, value: &OsString| {
            let mut word = OsString::from(option);
            word.push(value);
            word
        };
        let mut line: Vec<OsString> = self.dump.line.iter().map(Into::into).collect();
        line.push(format!("--snapshot={state}").into());
        match portion {
            Portion::Schema(tables) => {
                line.extend(["--section=pre-data", "--section=data"].map(Into::into));
                line.extend(tables.iter().map(|table| with("--exclude-table-data=", table)));
            }
            Portion::Table(table) => line.extend(["--section=data".into(), with("--table=", table)]),
            Portion::Indexes => line.push("--section=post-data".into()),
        }
        line.push((&self.database).into());
        line
    }

    /// What runs, for people: name below the folder, and command.
    pub fn shown(&self) -> [(String, Vec<OsString>); 3] {
        let table = OsString::from("TABLE");
        [
            (SCHEMA_STREAM.into(), self.line("STATE", Portion::Schema(std::slice::from_ref(&table)))),
            (format!("{DATA_FOLDER}/TABLE.sql"), self.line("STATE", Portion::Table(&table))),
            (INDEXES_STREAM.into(), self.line("STATE", Portion::Indexes)),
        ]
    }
}

/// The name of a table's stream below the folder, unless it would be too long for one: letters, digits, `_` and `-` stand for
/// themselves, all other bytes for `%` and two digits.
pub fn table_stream(schema: &str, table: &str) -> Option<String> {
    let name = format!("{}.{}.sql", escaped(schema), escaped(table));
    (name.len() <= 255).then(|| format!("{DATA_FOLDER}/{name}"))
}

fn escaped(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        match c.is_alphanumeric() || c == '_' || c == '-' {
            true => out.push(c),
            false => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| out.push_str(&format!("%{byte:02X}"))),
        }
    }
    out
}

/// Options of pg_dump that go with every stream. All others choose what is dumped, or where it goes.
pub(super) const OPTIONS: [&str; 18] = [
    "--inserts",
    "--column-inserts",
    "--attribute-inserts",
    "--rows-per-insert",
    "--on-conflict-do-nothing",
    "--no-owner",
    "-O",
    "--no-privileges",
    "--no-acl",
    "-x",
    "--no-comments",
    "--no-security-labels",
    "--no-tablespaces",
    "--no-toast-compression",
    "--no-table-access-method",
    "--quote-all-identifiers",
    "--extra-float-digits",
    "--lock-wait-timeout",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_has_a_name_of_its_own() {
        for (schema, table, name) in [
            ("public", "orders", "2-data/public.orders.sql"),
            ("a.b", "c", "2-data/a%2Eb.c.sql"),
            ("a", "b.c", "2-data/a.b%2Ec.sql"),
            ("public", "../Größe \"x\"\n", "2-data/public.%2E%2E%2FGröße%20%22x%22%0A.sql"),
            ("public", "50%", "2-data/public.50%25.sql"),
        ] {
            assert_eq!(table_stream(schema, table).unwrap(), name);
        }
        assert_eq!(table_stream("public", &"'".repeat(100)), None);
    }
}
