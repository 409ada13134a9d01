//! The verdict on any dump is the same for any pieces, and nothing panics. The first byte picks a format's beginning, the second
//! the size of the pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snap_backup::dumps::Judge;

const BEGINNINGS: &[(&str, &[u8])] = &[
    ("stdin", b""),
    ("stdin", b"--\n-- PostgreSQL database dump\n--\n"),
    ("stdin", b"--\n-- PostgreSQL database cluster dump\n--\n"),
    ("stdin", b"PGDMP\x01\x0e\x00\x04\x08\x01"),
    ("stdin", b"PGDMP\x01\x10\x00\x04\x08\x01"),
    ("toc.dat", b"PGDMP\x01\x0f\x00\x04\x08\x05"),
    ("stdin", b"-- MySQL dump "),
    ("stdin", b"\x6d\xe2\x99\x81"),
    ("a.bson", b""),
    ("stdin", b"REDIS0011"),
    ("output-0", b""),
    ("all.export_metadata", b""),
    ("stdin", b"SQLite format 3\0"),
    ("stdin", b"\x1f\x8b\x08"),
    ("stdin", b"PK\x03\x04"),
    ("stdin", b"\x28\xb5\x2f\xfd"),
    ("stdin", b"\x04\x22\x4d\x18"),
    ("stdin", b"\xfd7zXZ\x00"),
    ("stdin", b"BZh91AY&SY"),
];

fuzz_target!(|bytes: &[u8]| {
    let [first, second, rest @ ..] = bytes else { return };
    let (name, beginning) = BEGINNINGS[usize::from(*first) % BEGINNINGS.len()];
    let bytes = [beginning, rest].concat();
    let verdict = |size: usize| {
        let mut judge = Judge::stream(name.as_bytes());
        bytes.chunks(size).for_each(|piece| judge.feed(piece));
        judge.finish().map(|judged| (judged.dump, judged.wanted))
    };
    let whole = verdict(usize::MAX);
    assert_eq!(verdict(usize::from(*second) + 1), whole);
    if let Some((dump, _)) = whole {
        assert!(dump.tables.len() as u64 <= dump.table_count);
        assert_eq!(dump.bytes, bytes.len() as u64);
    }
});
