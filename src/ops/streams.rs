//! Streams that are one dump together: those of a database that was dumped as several at once. Their names tell; read in the order of
//! their paths, they are one.

use crate::config::{DATA_FOLDER, INDEXES_STREAM, SCHEMA_STREAM};
use crate::error::show_bytes;
use crate::format::dump::{Dump, Verdict};
use crate::format::snapshot::Snapshot;
use crate::limits::*;
use crate::ops::browse::below;

/// What is loaded by one command: a stream, or several of one database.
#[derive(Clone, Debug, PartialEq)]
pub struct Whole {
    /// Of the stream, or of the folder of several.
    pub path: Vec<u8>,
    /// What is known of it as a dump.
    pub dump: Option<Dump>,
}

/// Puts together what belongs together, in the order of the first of each.
pub fn wholes(snapshot: &Snapshot, streams: &[Vec<u8>]) -> Vec<Whole> {
    let folders = folders(streams);
    let mut found: Vec<Whole> = Vec::new();
    for stream in streams {
        let folder = folders.iter().find(|folder| is_below(stream, folder));
        let path = folder.unwrap_or(stream);
        if !found.iter().any(|whole| &whole.path == path) {
            found.push(Whole { path: path.clone(), dump: dump_of(&snapshot.dumps, path) });
        }
    }
    found
}

/// Whether these, and nothing else, are the streams of one database; its folder.
pub fn one_database(streams: &[Vec<u8>]) -> Option<Vec<u8>> {
    let found = folders(streams);
    let [folder] = &found[..] else { return None };
    streams.iter().all(|stream| is_below(stream, folder)).then(|| folder.clone())
}

/// What is known of the stream, or of all streams below the folder, of that path.
pub fn dump_of(known: &[Dump], path: &[u8]) -> Option<Dump> {
    let path = show_bytes(path);
    known.iter().find(|dump| dump.path == path).cloned().or_else(|| together(known.iter(), &path))
}

/// The same dumps, but those of one database as one.
pub fn told(dumps: &[Dump]) -> Vec<Dump> {
    let paths: Vec<Vec<u8>> = dumps.iter().map(|dump| dump.path.clone().into_bytes()).collect();
    let folders = folders(&paths);
    let mut told: Vec<Dump> = Vec::new();
    for (dump, path) in dumps.iter().zip(&paths) {
        match folders.iter().find(|folder| is_below(path, folder)) {
            None => told.push(dump.clone()),
            Some(folder) if told.iter().any(|dump| dump.path.as_bytes() == folder) => {}
            Some(folder) => told.extend(dump_of(dumps, folder)),
        }
    }
    told
}

/// Several dumps as one, if there is any below the folder.
fn together<'a>(dumps: impl Iterator<Item = &'a Dump>, folder: &str) -> Option<Dump> {
    let mut all: Option<Dump> = None;
    for dump in dumps.filter(|dump| dump.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))) {
        let Some(all) = &mut all else {
            all = Some(Dump { path: folder.into(), ..dump.clone() });
            continue;
        };
        let is_worse = match dump.verdict {
            Verdict::Complete => false,
            Verdict::Unknown => all.verdict == Verdict::Complete,
            Verdict::Incomplete => all.verdict != Verdict::Incomplete,
        };
        if is_worse {
            (all.verdict, all.why) = (dump.verdict, format!("{}: {}", dump.path, dump.why));
        }
        all.bytes += dump.bytes;
        all.table_count += dump.table_count;
        let room = DUMP_TABLES_MAX.saturating_sub(all.tables.len());
        all.tables.extend(dump.tables.iter().take(room).cloned());
        // The stream of the definitions has no rows to be counted.
        all.rows = match (all.rows, dump.rows) {
            (Some(a), Some(b)) => Some(a + b),
            (rows, None) if dump.table_count == 0 => rows,
            (None, rows) if all.table_count == dump.table_count => rows,
            _ => None,
        };
    }
    all
}

/// Folders in which the first and the last stream of a database lie.
fn folders(streams: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let of_first = |path: &Vec<u8>| path.strip_suffix(SCHEMA_STREAM.as_bytes())?.strip_suffix(b"/").map(<[u8]>::to_vec);
    let has_last = |folder: &Vec<u8>| {
        let last = [&folder[..], b"/", INDEXES_STREAM.as_bytes()].concat();
        streams.contains(&last)
    };
    streams.iter().filter_map(of_first).filter(|folder| !folder.is_empty() && has_last(folder)).collect()
}

/// Whether it is one of the streams of the database in that folder.
fn is_below(stream: &[u8], folder: &[u8]) -> bool {
    let data = [DATA_FOLDER.as_bytes(), b"/"].concat();
    below(stream, folder)
        .is_some_and(|name| [SCHEMA_STREAM, INDEXES_STREAM].iter().any(|own| own.as_bytes() == name) || name.starts_with(&data))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::dump::Table;

    fn paths(names: &[&str]) -> Vec<Vec<u8>> {
        names.iter().map(|name| name.as_bytes().to_vec()).collect()
    }

    #[test]
    fn streams_of_a_database_belong_together() {
        let shop = paths(&["shop/1-schema.sql", "shop/2-data/public.a.sql", "shop/3-indexes.sql"]);
        assert_eq!(one_database(&shop), Some(b"shop".to_vec()));
        let more = [paths(&["globals.sql"]), shop.clone(), paths(&["shop.sql", "x/1-schema.sql"])].concat();
        assert_eq!(one_database(&more), None);
        assert_eq!(one_database(&shop[..2]), None);
        assert_eq!(one_database(&[shop.clone(), paths(&["shop/else"])].concat()), None);
    }

    #[test]
    fn several_dumps_are_told_of_as_one() {
        let dump = |path: &str, verdict, rows: Option<u64>| Dump {
            path: path.into(),
            format: "pg_dump".into(),
            verdict,
            why: "why".into(),
            bytes: 10,
            tables: rows.map(|rows| Table { name: path.into(), rows: Some(rows) }).into_iter().collect(),
            table_count: u64::from(rows.is_some()),
            rows,
            ..Dump::default()
        };
        let dumps = [
            dump("shop/1-schema.sql", Verdict::Complete, None),
            dump("shop/2-data/a.sql", Verdict::Complete, Some(3)),
            dump("shop/2-data/b.sql", Verdict::Incomplete, Some(4)),
            dump("shop/3-indexes.sql", Verdict::Unknown, None),
            dump("shop.sql", Verdict::Complete, Some(9)),
        ];
        let all = together(dumps.iter(), "shop").unwrap();
        assert_eq!((all.path.as_str(), all.bytes, all.table_count, all.rows), ("shop", 40, 2, Some(7)));
        assert_eq!((all.verdict, all.why.as_str()), (Verdict::Incomplete, "shop/2-data/b.sql: why"));
        assert_eq!(together(dumps.iter(), "sho"), None);
        assert_eq!(told(&dumps).iter().map(|dump| dump.path.as_str()).collect::<Vec<_>>(), ["shop", "shop.sql"]);
    }
}
