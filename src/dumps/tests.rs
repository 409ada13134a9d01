//! Whole dumps of real programs, cut, flipped and in pieces; garbage. What mongodump and Firestore write is made here, after the
//! published descriptions of their formats.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;

/// A dump by its name, and what is to be found in it: format, compression, version, tables, rows.
type Expected = (&'static str, &'static str, &'static str, &'static str, u64, Option<u64>);

const SAMPLES: &[Expected] = &[
    ("pg_dump.sql", "pg_dump", "", "15.18", 4, Some(38)),
    ("pg_dump-inserts.sql", "pg_dump", "", "15.18", 4, None),
    ("pg_dump-schema.sql", "pg_dump", "", "15.18", 0, None),
    ("pg_dumpall.sql", "pg_dumpall", "", "15.18", 4, Some(38)),
    ("pg_dump.custom", "pg_dump custom", "gzip", "15.18", 4, None),
    ("pg_dump-file.custom", "pg_dump custom", "gzip", "15.18", 4, None),
    ("pg_dump-z0.custom", "pg_dump custom", "", "15.18", 4, Some(38)),
    ("pg_dump.tar", "pg_dump tar", "", "15.18", 4, None),
    ("pg_dump.sql.gz", "pg_dump", "gzip", "15.18", 4, Some(38)),
    ("pg_dump.sql.zst", "pg_dump", "zstd", "15.18", 4, Some(38)),
    ("pg_dump.sql.lz4", "lz4", "lz4", "", 0, None),
    ("pg_dump.sql.xz", "xz", "xz", "", 0, None),
    ("pg_dump.sql.bz2", "bzip2", "bzip2", "", 0, None),
    ("mariadb-dump.sql", "mysqldump", "", "10.11.19-MariaDB", 3, Some(29)),
    ("mariadb-dump-no-date.sql", "mysqldump", "", "10.11.19-MariaDB", 3, Some(29)),
    ("redis.rdb", "redis", "", "", 1, None),
    ("redis-diskless.rdb", "redis", "", "", 1, None),
    ("sqlite.db", "sqlite", "", "", 0, None),
    ("files.tar", "tar", "", "", 0, None),
    ("files.zip", "zip", "zip", "", 0, None),
    ("mongodump.archive", "mongodump archive", "", "100.9.4", 3, Some(51)),
    ("people.bson", "bson", "", "", 0, Some(30)),
    ("output-0", "firestore output", "", "", 0, Some(40)),
];

fn sample(name: &str) -> Vec<u8> {
    match name {
        "mongodump.archive" => mongo_archive(),
        "people.bson" => (0..30).flat_map(person).collect(),
        "output-0" => log(&(0..40).map(|at| vec![at as u8; 100 * at]).collect::<Vec<_>>()),
        _ => std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples").join(name)).unwrap(),
    }
}

/// A document of strings, booleans and 64-bit numbers.
fn document(fields: &[(&str, Value)]) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    for (name, value) in fields {
        bytes.push(match value {
            Value::Text(_) => 2,
            Value::Flag(_) => 8,
            Value::Number(_) => 18,
        });
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        match value {
            Value::Text(text) => {
                bytes.extend_from_slice(&(text.len() as u32 + 1).to_le_bytes());
                bytes.extend_from_slice(text.as_bytes());
                bytes.push(0);
            }
            Value::Flag(flag) => bytes.push(u8::from(*flag)),
            Value::Number(number) => bytes.extend_from_slice(&number.to_le_bytes()),
        }
    }
    bytes.push(0);
    let len = bytes.len() as u32;
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    bytes
}

enum Value {
    Text(&'static str),
    Flag(bool),
    Number(u64),
}
use Value::{Flag, Number, Text};

fn person(number: u64) -> Vec<u8> {
    document(&[("_id", Number(number)), ("name", Text("somebody"))])
}

/// Three collections and a view, the first two in turns, of 30 and 21 documents.
fn mongo_archive() -> Vec<u8> {
    mongo_archive_and_documents().0
}

/// The archive, and where in it documents are, which checksums cover.
fn mongo_archive_and_documents() -> (Vec<u8>, Vec<std::ops::Range<usize>>) {
    let mut ranges = Vec::new();
    let mut bytes = vec![0x6d, 0xe2, 0x99, 0x81];
    let end = [0xff; 4];
    bytes.extend(document(&[("version", Text("0.1")), ("server_version", Text("7.0.5")), ("tool_version", Text("100.9.4"))]));
    for (name, kind) in [("people", "collection"), ("letters", ""), ("empty", "collection"), ("recent", "view")] {
        bytes.extend(document(&[("db", Text("shop")), ("collection", Text(name)), ("metadata", Text("{}")), ("type", Text(kind))]));
    }
    bytes.extend(end);
    let head = |name, eof, crc| document(&[("db", Text("shop")), ("collection", Text(name)), ("EOF", Flag(eof)), ("CRC", Number(crc))]);
    let mut checksums = [checksum::ecma(), checksum::ecma()];
    for round in 0..3 {
        for (name, crc) in ["people", "letters"].into_iter().zip(&mut checksums) {
            let count = if name == "people" { 10 } else { 7 };
            let documents: Vec<u8> = (round * 10..round * 10 + count).flat_map(person).collect();
            crc.update(&documents);
            bytes.extend(head(name, false, 0));
            ranges.push(bytes.len()..bytes.len() + documents.len());
            bytes.extend(documents.into_iter().chain(end));
        }
    }
    let [people, letters] = checksums.map(|crc| crc.finalize());
    for (name, crc) in [("letters", letters), ("empty", 0), ("people", people)] {
        bytes.extend(head(name, true, crc).into_iter().chain(end));
    }
    (bytes, ranges)
}

/// A log of these records.
fn log(records: &[Vec<u8>]) -> Vec<u8> {
    const BLOCK: usize = 32 << 10;
    let mut bytes = Vec::new();
    for record in records {
        let (mut rest, mut is_first) = (&record[..], true);
        loop {
            let room = BLOCK - bytes.len() % BLOCK;
            if room < 7 {
                bytes.extend(vec![0; room]);
                continue;
            }
            let (part, after) = rest.split_at(rest.len().min(room - 7));
            let kind = match (is_first, after.is_empty()) {
                (true, true) => 1,
                (true, false) => 2,
                (false, false) => 3,
                (false, true) => 4,
            };
            let mut crc = checksum::castagnoli();
            crc.update(&[kind]);
            crc.update(part);
            let masked = crc.finalize().rotate_right(15).wrapping_add(0xa282_ead8);
            bytes.extend(masked.to_le_bytes());
            bytes.extend((part.len() as u16).to_le_bytes());
            bytes.push(kind);
            bytes.extend(part);
            (rest, is_first) = (after, false);
            if rest.is_empty() {
                break;
            }
        }
    }
    bytes
}

fn judge_in_pieces(name: &str, bytes: &[u8], size: usize) -> Option<Judged> {
    let mut judge = Judge::stream(name.as_bytes());
    bytes.chunks(size).for_each(|piece| judge.feed(piece));
    judge.finish()
}

fn judge(name: &str, bytes: &[u8]) -> Option<Dump> {
    judge_in_pieces(name, bytes, usize::MAX).map(|judged| judged.dump)
}

#[track_caller]
fn check(name: &str, bytes: &[u8], verdict: Verdict, why: &str) {
    let dump = judge(name, bytes).unwrap();
    assert_eq!((dump.verdict, dump.why.contains(why)), (verdict, true), "{name}: {dump:?}");
}

#[test]
fn whole_dumps_are_complete_and_described() {
    for &(name, format, compression, version, tables, rows) in SAMPLES {
        let bytes = sample(name);
        let dump = judge(name, &bytes).unwrap_or_else(|| panic!("{name} is not recognised"));
        assert_eq!(dump.verdict, Verdict::Complete, "{name}: {}", dump.why);
        assert_eq!((dump.format.as_str(), dump.compression.as_str()), (format, compression), "{name}");
        assert_eq!((dump.version.as_str(), dump.table_count, dump.rows), (version, tables, rows), "{name}: {:?}", dump.tables);
        assert_eq!((dump.path.as_str(), dump.bytes, dump.why.as_str()), (name, bytes.len() as u64, ""));
        // Without its name, too, but for what only the name tells.
        if !name.ends_with(".bson") && name != "output-0" {
            assert_eq!(judge("stdin", &bytes).unwrap().format, format);
        }
    }
}

#[test]
fn tables_are_named_and_counted() {
    let names = |name: &str| -> Vec<(String, Option<u64>)> {
        judge(name, &sample(name)).unwrap().tables.into_iter().map(|table| (table.name, table.rows)).collect()
    };
    let postgres = [("other.letters", 7), ("public.empty", 0), ("public.odd \"name\" (x)", 6), ("public.people", 25)];
    let postgres = postgres.map(|(name, rows)| (name.to_owned(), Some(rows)));
    assert_eq!(names("pg_dump.sql"), postgres);
    assert_eq!(names("pg_dump-z0.custom"), postgres);
    assert_eq!(names("pg_dump.sql.gz"), postgres);
    assert_eq!(names("pg_dumpall.sql")[0], ("shop.other.letters".to_owned(), Some(7)));
    assert_eq!(names("pg_dump.tar"), postgres.map(|(name, _)| (name, None)));
    let tables = [("empty", 0), ("odd `name`", 4), ("people", 25)];
    assert_eq!(names("mariadb-dump.sql"), tables.map(|(name, rows)| (name.to_owned(), Some(rows))));
    assert_eq!(names("redis.rdb"), [("db0".to_owned(), Some(23))]);
    let collections = [("shop.people", 30), ("shop.letters", 21), ("shop.empty", 0)];
    assert_eq!(names("mongodump.archive"), collections.map(|(name, rows)| (name.to_owned(), Some(rows))));
    assert_eq!(judge("redis.rdb", &sample("redis.rdb")).unwrap().server, "7.0.15");
}

/// Before the first database stand libraries of functions, long ones compressed.
#[test]
fn keys_behind_functions_are_counted() {
    let plain = [&[0xf5, 0x40 | 5000_u16.to_be_bytes()[0], 5000_u16.to_be_bytes()[1]][..], &[b'x'; 5000]].concat();
    let packed = [&[0xf5, 0xc3, 0x40 | 3000_u16.to_be_bytes()[0], 3000_u16.to_be_bytes()[1], 0x80, 0, 1, 0, 0][..], &[0xfe; 3000]].concat();
    let whole = sample("redis.rdb");
    let at = memchr::memmem::find(&whole, &[0xfe, 0, 0xfb]).unwrap();
    for functions in [plain, packed] {
        let bytes = [&whole[..at], &functions, &functions, &whole[at..]].concat();
        let dump = judge("redis.rdb", &bytes).unwrap();
        let tables: Vec<(&str, Option<u64>)> = dump.tables.iter().map(|table| (table.name.as_str(), table.rows)).collect();
        assert_eq!((tables, dump.server.as_str()), (vec![("db0", Some(23))], "7.0.15"));
    }
}

/// Cuts that are whole dumps themselves, because what is missing says nothing.
fn is_itself_whole(name: &str, bytes: &[u8], len: usize) -> Option<&'static str> {
    let (cut, missing) = bytes.split_at(len);
    match name {
        "pg_dump-inserts.sql"
        | "pg_dump-schema.sql"
        | "pg_dump.sql"
        | "pg_dumpall.sql"
        | "mariadb-dump.sql"
        | "mariadb-dump-no-date.sql"
            if missing.iter().all(|byte| *byte == b'\n') =>
        {
            Some("only newlines are missing")
        }
        "mariadb-dump.sql" if cut.ends_with(b"\n-- Dump completed") => Some("only the date in the closing line is missing"),
        "redis-diskless.rdb" if missing.len() == 40 => Some("without the random mark, it is as other masters send it"),
        "people.bson" if len.is_multiple_of(person(0).len()) => Some("ends with a document; nothing tells how many there are"),
        "output-0" if logs_end_at(bytes).contains(&len) => Some("ends with a record; the export's metadata tells what there must be"),
        "files.tar" | "pg_dump.tar" if cut.ends_with(&[0; 1024]) && missing.iter().all(|byte| *byte == 0) => {
            Some("behind the two empty blocks only padding is missing")
        }
        _ => None,
    }
}

/// Where records end, and the zeros behind them.
fn logs_end_at(bytes: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let (mut at, mut is_whole) = (0, true);
    while at < bytes.len() {
        let room = (32 << 10) - at % (32 << 10);
        if room < 7 {
            ends.extend((at..=at + room).filter(|_| is_whole));
            at += room;
            continue;
        }
        is_whole = matches!(bytes[at + 6], 1 | 4);
        at += 7 + usize::from(u16::from_le_bytes([bytes[at + 4], bytes[at + 5]]));
        ends.extend(is_whole.then_some(at));
    }
    ends
}

fn cuts(len: usize) -> impl Iterator<Item = usize> {
    // Every length of what is small; of the rest all near both ends, and many between.
    (0..len).filter(move |at| len < 7000 || *at < 1500 || len - at < 2500 || at % 41 == 0)
}

#[test]
fn cut_dumps_are_never_complete() {
    println!(
        "{:26} {:>8} {:>6} {:>11} {:>8} {:>15} {:>9}",
        "sample", "bytes", "cuts", "incomplete", "unknown", "not recognised", "complete"
    );
    let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
    for &(name, ..) in SAMPLES {
        let bytes = sample(name);
        let first_line = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let (mut incomplete, mut unknown, mut none, mut whole) = (0, 0, 0, 0);
        for len in cuts(bytes.len()) {
            match judge(name, &bytes[..len]) {
                None => none += 1,
                Some(dump) if dump.verdict == Verdict::Incomplete => incomplete += 1,
                Some(dump) if dump.verdict == Verdict::Unknown => {
                    // Only where what a dump without comments has too is all there is.
                    assert!(name.starts_with("mariadb") && len <= first_line, "{name} cut at {len}: {}", dump.why);
                    unknown += 1;
                }
                Some(_) => {
                    let reason = is_itself_whole(name, &bytes, len);
                    *reasons.entry(reason.unwrap_or_else(|| panic!("{name} cut at {len} of {} is complete", bytes.len()))).or_default() +=
                        1;
                    whole += 1;
                }
            }
        }
        let cuts = incomplete + unknown + none + whole;
        println!("{name:26} {:8} {cuts:6} {incomplete:11} {unknown:8} {none:15} {whole:9}", bytes.len());
        assert!(incomplete > (cuts - whole) / 2, "{name}");
    }
    reasons.iter().for_each(|(reason, count)| println!("complete: {count} × {reason}"));
}

#[test]
fn pieces_do_not_matter() {
    let names: Vec<&str> =
        SAMPLES.iter().map(|sample| sample.0).chain(["mariadb-dump-compact.sql", "mariadb-dump-no-comments.sql"]).collect();
    for name in names {
        let bytes = sample(name);
        for bytes in [&bytes[..], &bytes[..bytes.len() - 7]] {
            let whole = judge(name, bytes);
            for size in [1, 2, 3, 5, 7, 64, 511, 513, 1023, 1024, 1025, 4096, 5000] {
                assert_eq!(judge_in_pieces(name, bytes, size).map(|judged| judged.dump), whole, "{name} in pieces of {size}");
            }
        }
    }
}

#[test]
fn flipped_bytes_are_found_where_there_are_checksums() {
    // Where in each sample a flip may go unnoticed: nothing but the mark of a diskless master.
    for (name, spared) in [("redis.rdb", 0), ("redis-diskless.rdb", 40), ("mongodump.archive", 0), ("output-0", 0), ("pg_dump.sql.gz", 0)] {
        let whole = sample(name);
        let mut unnoticed = Vec::new();
        for at in (0..whole.len() - spared).filter(|at| whole.len() < 7000 || at % 97 == 0 || *at < 1000) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x20;
            if judge(name, &bytes).is_some_and(|dump| dump.verdict == Verdict::Complete) {
                unnoticed.push(at);
            }
        }
        // No checksum covers gzip's header, and what mongodump says of documents.
        let documents = mongo_archive_and_documents().1;
        let is_free = |at: &usize| match name {
            "pg_dump.sql.gz" => (3..10).contains(at),
            "mongodump.archive" => !documents.iter().any(|range| range.contains(at)),
            _ => false,
        };
        unnoticed.retain(|at| !is_free(at));
        assert!(unnoticed.is_empty(), "{name}: {unnoticed:?}");
    }
    // A few bits of zstd mean nothing: then what comes out is the same.
    let whole = sample("pg_dump.sql.zst");
    let unpack = |bytes: &[u8]| {
        let mut text = vec![0; 20_000];
        zstd_safe::decompress(&mut text[..], bytes).map(|len| text[..len].to_vec()).ok()
    };
    let text = unpack(&whole);
    for at in 20..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x20;
        let dump = judge("x.zst", &bytes).unwrap();
        assert!(dump.verdict != Verdict::Complete || unpack(&bytes) == text, "at {at}: {dump:?}");
    }
}

#[test]
fn text_in_rows_does_not_fool_anybody() {
    let whole = sample("pg_dump.sql");
    // The first row of a table is the closing line itself, the second one `--`: a cut behind them.
    let at = memchr::memmem::find(&whole, b"-- PostgreSQL database dump complete\n--\n").unwrap();
    check("x", &whole[..at + 40], Verdict::Incomplete, "in the middle of table public.odd");
    let twice = [&whole[..], &whole[..]].concat();
    check("x", &twice, Verdict::Complete, "");
    check("x", &twice[..twice.len() - 200], Verdict::Incomplete, "closing line is missing");
    check("x", &twice[..whole.len() + 300], Verdict::Incomplete, "closing line is missing");
    let first_cut = [&whole[..whole.len() - 500], b"\n", &whole[..]].concat();
    check("x", &first_cut, Verdict::Unknown, "a second dump begins");
    // Without \restrict, as older versions write it; cut among rows, which go on to the end of the second one's.
    let text = String::from_utf8(whole.clone()).unwrap();
    let old: String = text.lines().filter(|line| !line.contains("restrict ")).map(|line| format!("{line}\n")).collect();
    let row = old.find("\n\\.\n").unwrap();
    for at in [row - 3, row + 1] {
        check("x", &[&old.as_bytes()[..at], old.as_bytes()].concat(), Verdict::Unknown, "a second dump begins");
    }
    check("x", &[&whole[..], b"vacuum analyze;\n"].concat(), Verdict::Unknown, "something follows");
    check("x", old.as_bytes(), Verdict::Complete, "");
    let end = text.rfind("\\unrestrict").unwrap();
    check("x", &text.as_bytes()[..end], Verdict::Incomplete, "its last line is missing");
    check("x", &text.as_bytes()[..end + 20], Verdict::Incomplete, "cut short");
}

#[test]
fn dumps_without_a_closing_line_are_unknown() {
    for name in ["mariadb-dump-compact.sql", "mariadb-dump-no-comments.sql"] {
        check(name, &sample(name), Verdict::Unknown, "comments were switched off");
    }
    let whole = sample("mariadb-dump.sql");
    check("x", &[&whole[..], &whole[..]].concat(), Verdict::Complete, "");
    check("x", &[&whole[..], &whole[..2000]].concat(), Verdict::Incomplete, "closing line is missing");
    check("x", &[&whole[..], b"flush tables;\n"].concat(), Verdict::Unknown, "something follows");
    // Several one after the other, of which one was cut.
    for at in [100, 2000, 2001, whole.len() - 100, whole.len() - 40] {
        check("x", &[&whole[..at], &whole[..]].concat(), Verdict::Unknown, "a second dump begins");
        check("x", &[&whole[..], &whole[..at], &whole[..]].concat(), Verdict::Unknown, "a second dump begins");
    }
    let mut redis = sample("redis.rdb");
    let end = redis.len() - 8;
    redis[end..].fill(0);
    check("x", &redis, Verdict::Unknown, "switched off");
}

#[test]
fn a_collection_without_its_end_is_missed() {
    let whole = mongo_archive();
    let last = document(&[("db", Text("shop")), ("collection", Text("people")), ("EOF", Flag(true)), ("CRC", Number(0))]).len() + 4;
    check("x", &whole[..whole.len() - last], Verdict::Incomplete, "collection shop.people has no end");
    let twice = [&whole[..], &whole[whole.len() - last..]].concat();
    check("x", &twice, Verdict::Incomplete, "goes on behind its end");
}

#[test]
fn views_need_no_end_and_all_others_do() {
    let archive = |kind, metadata| {
        let announced = [("db", Text("shop")), ("collection", Text("x")), ("metadata", Text(metadata)), ("type", Text(kind))];
        [vec![0x6d, 0xe2, 0x99, 0x81], document(&[("version", Text("0.1"))]), document(&announced), vec![0xff; 4]].concat()
    };
    let view = r#"{"options":{"viewOn":"orders","pipeline":[]},"indexes":[]}"#;
    let rule = r#"{"options":{"validator":{"viewOn":"x","note":"\"viewOn\""}},"indexes":[]}"#;
    for (kind, metadata, verdict) in [
        ("view", "{}", Verdict::Complete),
        ("", view, Verdict::Complete),
        ("", rule, Verdict::Incomplete),
        ("", "{}", Verdict::Incomplete),
        ("collection", view, Verdict::Incomplete),
    ] {
        check("x", &archive(kind, metadata), verdict, "");
    }
}

#[test]
fn flags_that_are_missing_are_named() {
    let flags = |bytes: &[u8]| {
        let mut found: Vec<Vec<String>> = Vec::new();
        for size in [1, 7, 64, 4096, usize::MAX] {
            let advice = judge_in_pieces("x", bytes, size).unwrap().advice;
            found.push(advice.iter().map(|text| text.split(':').next().unwrap().to_owned()).collect());
        }
        assert!(found.windows(2).all(|pair| pair[0] == pair[1]), "{found:?}");
        found.remove(0).join(" ")
    };
    let text = String::from_utf8(sample("mariadb-dump.sql")).unwrap();
    assert_eq!(flags(text.as_bytes()), "--skip-dump-date");
    assert_eq!(flags(&sample("mariadb-dump-no-date.sql")), "");
    for engine in ["MyISAM", "Aria"] {
        let heap = text.replace("ENGINE=InnoDB", &format!("ENGINE={engine}"));
        assert_eq!(flags(heap.as_bytes()), "--skip-dump-date --order-by-primary");
        let data = "-- Dumping data for table `people`\n--\n";
        let ordered = heap.replace(data, &format!("{data}-- ORDER BY:  `id`\n"));
        assert_ne!(ordered, heap);
        assert_eq!(flags(ordered.as_bytes()), "--skip-dump-date");
        // Without a key there is nothing to order by.
        assert_eq!(flags(heap.replace("PRIMARY KEY (", "KEY (").as_bytes()), "--skip-dump-date");
    }
    assert_eq!(flags(&mongo_archive()), "mongodump --numParallelCollections=1");
    let mut bytes = vec![0x6d, 0xe2, 0x99, 0x81];
    let end = [0xff; 4];
    bytes.extend(document(&[("version", Text("0.1"))]));
    for name in ["people", "letters"] {
        bytes.extend(document(&[("db", Text("shop")), ("collection", Text(name)), ("type", Text("collection"))]));
    }
    bytes.extend(end);
    for name in ["people", "letters"] {
        let mut crc = checksum::ecma();
        crc.update(&person(1));
        let head = |eof, crc| document(&[("db", Text("shop")), ("collection", Text(name)), ("EOF", Flag(eof)), ("CRC", Number(crc))]);
        for part in [head(false, 0), person(1), end.to_vec(), head(true, crc.finalize()), end.to_vec()] {
            bytes.extend(part);
        }
    }
    check("x", &bytes, Verdict::Complete, "");
    assert_eq!(flags(&bytes), "");
    assert_eq!(flags(&sample("pg_dump.sql")), "");
}

#[test]
fn several_members_frames_and_streams() {
    for name in ["pg_dump.sql.gz", "pg_dump.sql.zst", "pg_dump.sql.xz", "pg_dump.sql.lz4", "pg_dump.sql.bz2"] {
        let whole = sample(name);
        check(name, &[&whole[..], &whole[..]].concat(), Verdict::Complete, "");
        check(name, &[&whole[..], &whole[..whole.len() / 2]].concat(), Verdict::Incomplete, "");
    }
    let whole = sample("pg_dump.sql.gz");
    check("x", &[&whole[..], &[0; 1000]].concat(), Verdict::Complete, "");
    check("x", &[&whole[..], b"rubbish behind it"].concat(), Verdict::Unknown, "something follows");
    // A compressed stream that ended well, of a dump that did not.
    let text = sample("pg_dump.sql");
    let mut inner = zstd_safe::CCtx::create();
    let mut packed = vec![0; 20_000];
    let len = inner.compress(&mut packed[..], &text[..text.len() / 2], 3).unwrap();
    check("x", &packed[..len], Verdict::Incomplete, "its closing line is missing");
}

/// As `zstd` packs a stream of unknown length with a window of that size.
fn with_window(text: &[u8], log: u32) -> Vec<u8> {
    let mut packer = zstd_safe::CCtx::create();
    packer.set_parameter(zstd_safe::CParameter::WindowLog(log)).unwrap();
    let mut packed = vec![0; 40_000];
    let mut output = zstd_safe::OutBuffer::around(&mut packed[..]);
    let mut input = zstd_safe::InBuffer::around(text);
    while input.pos() < text.len() {
        packer.compress_stream(&mut output, &mut input).unwrap();
    }
    while packer.end_stream(&mut output).unwrap() > 0 {}
    let len = output.pos();
    packed.truncate(len);
    packed
}

#[test]
fn what_cannot_be_unpacked_here_is_not_called_wrong() {
    let text = sample("pg_dump.sql");
    let expected = |bytes: &[u8]| {
        let dump = unexpected(judge("x", bytes), b"x", "pg_dump");
        (dump.verdict, dump.why)
    };
    check("x", &with_window(&text, 20), Verdict::Complete, "");
    assert_eq!(judge("x", &with_window(&text, 20)).unwrap().format, "pg_dump");
    // zstd --long
    let large = with_window(&text, 27);
    check("x", &large, Verdict::Unknown, "its window is too large");
    assert_eq!(expected(&large).0, Verdict::Unknown);
    check("x", &large[..large.len() - 1], Verdict::Incomplete, "in the middle of a zstd frame");
    // Of another kind, cut or not.
    let other = with_window(b"an error message", 20);
    assert_eq!(expected(&other), (Verdict::Incomplete, "it is zstd and not pg_dump".into()));
    assert_eq!(expected(&other[..other.len() - 1]), (Verdict::Incomplete, "it ends in the middle of a zstd frame".into()));
    assert_eq!(expected(&sample("pg_dump.sql.gz")[..20]).1, "it ends before the gzip stream does");
    assert_eq!(expected(&sample("mariadb-dump.sql")), (Verdict::Incomplete, "it is mysqldump and not pg_dump".into()));
}

#[test]
fn rows_of_mysqldump_are_counted() {
    let head = "-- MySQL dump 10.13  Distrib 8.0.36, for Linux (x86_64)\n--\n-- Server version\t8.0.36\n\n";
    let (end, section) = ("-- Dump completed\n", |what: &str, name: &str| format!("\n--\n-- {what} for table `{name}`\n--\n\n"));
    let (define, fill) = (|name: &str| section("Table structure", name), |name: &str| section("Dumping data", name));
    let tables = |parts: &[&str]| {
        let text = [head, &parts.concat(), end].concat();
        let dump = judge("x", text.as_bytes()).unwrap();
        assert_eq!(dump.verdict, Verdict::Complete);
        (dump.tables.into_iter().map(|table| (table.name, table.rows)).collect::<Vec<_>>(), dump.table_count, dump.rows)
    };
    let named = |list: &[(&str, Option<u64>)]| list.iter().map(|(name, rows)| ((*name).to_owned(), *rows)).collect::<Vec<_>>();
    let row = "INSERT INTO `t` VALUES (1,'a'),(2,'),(');\n";
    assert_eq!(tables(&[&define("t"), &fill("t"), row, row]), (named(&[("t", Some(4))]), 1, Some(4)));
    assert_eq!(tables(&[&define("e"), &fill("e"), &define("t"), &fill("t"), row]), (named(&[("e", Some(0)), ("t", Some(2))]), 2, Some(2)));
    // Without definitions, and without data of one table.
    assert_eq!(tables(&[&fill("t"), row]), (named(&[("t", Some(2))]), 1, Some(2)));
    assert_eq!(tables(&[&define("s"), &define("t"), &fill("t"), row]), (named(&[("s", None), ("t", Some(2))]), 2, None));
    // Comments that belong to the data.
    let ordered = "-- ORDER BY:  `id`\n-- WHERE:  id > 0\nINSERT INTO `t` VALUES (1);\n";
    assert_eq!(tables(&[&define("t"), &fill("t"), ordered, row]).2, Some(3));
    // Of several databases.
    let databases =
        ["\n--\n-- Current Database: `a`\n--\n", &define("t"), &fill("t"), row, "\n--\n-- Current Database: `b`\n--\n", &define("t")];
    assert_eq!(tables(&databases).0, named(&[("a.t", Some(2)), ("b.t", None)]));
    // What breaks off in a row, and goes on with another dump.
    let cut = [head, &define("t"), &fill("t"), "INSERT INTO `t` VALUES (1,'a", "\n", head, &define("t"), &fill("t"), row, end].concat();
    let cut = judge("x", cut.as_bytes()).unwrap();
    assert_eq!((cut.verdict, cut.tables[0].rows), (Verdict::Unknown, None));
}

/// A folder of the samples as a backup sees it.
fn folder(name: &str, change: impl Fn(&str, &mut Vec<u8>) -> bool) -> Option<Dump> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples").join(name);
    let mut files: Vec<_> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut folder = Folder::default();
    for path in files {
        let name = path.file_name().unwrap().to_str().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        if !change(name, &mut bytes) {
            continue;
        }
        let mut judge = Judge::file(name.as_bytes());
        judge.feed(&bytes);
        match judge.finish() {
            Some(judged) => assert!(folder.add(name, judged).is_none()),
            None => folder.add_unjudged(name, bytes.len() as u64),
        }
    }
    folder.finish()
}

#[test]
fn a_folder_of_pg_dump_needs_all_its_files() {
    for name in ["pg_dump.d", "pg_dump-z0.d"] {
        let whole = folder(name, |_, _| true).unwrap();
        assert_eq!((whole.verdict, whole.format.as_str(), whole.rows), (Verdict::Complete, "pg_dump directory", Some(38)), "{whole:?}");
        let without = folder(name, |name, _| !name.starts_with("3357")).unwrap();
        assert_eq!(without.verdict, Verdict::Incomplete);
        assert!(without.why.contains("3357.dat the first"), "{}", without.why);
        // A large object, which only the list of these names, and that list itself.
        let without = folder(name, |name, _| !name.starts_with("blob_16410")).unwrap();
        assert_eq!((without.verdict, without.why.as_str()), (Verdict::Incomplete, "1 of its files missing, blob_16410.dat the first"));
        let cut_objects = |name: &str, bytes: &mut Vec<u8>| {
            bytes.truncate(if name == "blobs.toc" { bytes.len() - 1 } else { bytes.len() });
            true
        };
        let cut = folder(name, cut_objects).unwrap();
        assert!(cut.why.contains("blobs.toc: it ends in the middle of a line"), "{cut:?}");
        let cut = |name: &str, bytes: &mut Vec<u8>| {
            if name.starts_with("3356") {
                bytes.truncate(bytes.len() - 3);
            }
            true
        };
        let cut = folder(name, cut).unwrap();
        assert_eq!(cut.verdict, Verdict::Incomplete, "{cut:?}");
        assert_eq!(folder(name, |name, _| name != "toc.dat"), None);
        let cut_list = |name: &str, bytes: &mut Vec<u8>| {
            bytes.truncate(if name == "toc.dat" { bytes.len() - 1 } else { bytes.len() });
            true
        };
        assert_eq!(folder(name, cut_list).unwrap().verdict, Verdict::Incomplete);
    }
}

#[test]
fn an_export_of_firestore_needs_all_its_outputs() {
    let metadata = log(&[b"\x0a\x08output-0\x12\x09output-12".to_vec()]);
    let outputs = [("output-0", log(&[b"entity".to_vec()])), ("output-12", log(&[vec![7; 70_000], b"another".to_vec()]))];
    let verdict = |outputs: &[(&str, Vec<u8>)]| {
        let mut folder = Folder::default();
        for (name, bytes) in [("all.export_metadata", metadata.clone())].iter().chain(outputs) {
            let mut judge = Judge::file(name.as_bytes());
            judge.feed(bytes);
            assert!(folder.add(name, judge.finish().unwrap()).is_none());
        }
        folder.finish().unwrap()
    };
    let whole = verdict(&outputs);
    assert_eq!((whole.verdict, whole.format.as_str()), (Verdict::Complete, "firestore"), "{whole:?}");
    assert!(verdict(&outputs[..1]).why.contains("output-12"));
    let mut cut = outputs.clone();
    cut[1].1.truncate(40_000);
    assert_eq!(verdict(&cut).verdict, Verdict::Incomplete);
}

#[test]
fn all_outputs_of_an_export_are_kept_track_of_or_it_is_unknown() {
    let judged = |count: usize| {
        let names: Vec<u8> = (0..count).chain(0..count).flat_map(|number| format!("output-{number} ").into_bytes()).collect();
        let mut judge = Judge::file(b"all.export_metadata");
        judge.feed(&log(&[names]));
        judge.finish().unwrap()
    };
    let many = judged(10_000);
    assert_eq!((many.dump.verdict, many.wanted.as_ref().unwrap().len()), (Verdict::Complete, 10_000));
    let mut folder = Folder::default();
    folder.add("all.export_metadata", many);
    (0..9_999).for_each(|number| folder.add_unjudged(&format!("output-{number}"), 1));
    let dump = folder.finish().unwrap();
    assert_eq!((dump.verdict, dump.why.as_str()), (Verdict::Incomplete, "1 of its files missing, output-9999 the first"));
    let dump = judged(DUMP_PARTS_MAX + 1).dump;
    assert!(dump.verdict == Verdict::Unknown && dump.why.contains("more outputs"), "{dump:?}");
}

#[test]
fn garbage_is_judged_without_panic() {
    let mut state = 1u64;
    let mut roll = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    for &(name, ..) in SAMPLES {
        let whole = sample(name);
        for head in [4, 12, 30, 100, 600] {
            let mut bytes = whole[..head.min(whole.len())].to_vec();
            bytes.extend((0..5000).map(|_| roll()));
            if let Some(dump) = judge(name, &bytes) {
                assert_ne!(dump.verdict, Verdict::Complete, "{name}, {head} bytes and noise");
            }
            // Noise that looks like lengths and ends.
            bytes.truncate(head);
            bytes.extend((0..3000).map(|_| [0, 0, 0, 1, 255, b'\n', 4, 0x80][usize::from(roll() & 7)]));
            judge_in_pieces(name, &bytes, 13);
        }
    }
}

#[test]
fn files_are_judged_if_they_are_dumps() {
    let judged = |path: &str, name: &str| {
        let mut judge = Judge::file(path.as_bytes());
        judge.feed(&sample(name));
        judge.finish().is_some()
    };
    for (path, name, expected) in [
        ("var/anything", "pg_dump.sql", true),
        ("x", "redis.rdb", true),
        ("usr/share/man/ls.1.gz", "pg_dump.sql.gz", false),
        ("var/shop.sql.gz", "pg_dump.sql.gz", true),
        ("var/backups/shop.gz", "pg_dump.sql.gz", false),
        ("home/.mozilla/places.sqlite", "sqlite.db", false),
        ("var/app-backup.db", "sqlite.db", true),
        ("home/project.tar", "files.tar", false),
        ("home/project-dump.tar", "files.tar", true),
        ("var/shop.tar", "pg_dump.tar", true),
    ] {
        assert_eq!(judged(path, name), expected, "{path}");
    }
    assert!(judge("note.txt", b"-- PostgreSQL is a database").is_none() && judge("empty", b"").is_none());
}
