//! A whole catalog, entry by entry, and the table of its paths.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snap_backup::format::codec::Reader;
use snap_backup::format::entry::{decode_entry, decode_rows, encode_entry, encode_row, is_path, path_order};

fuzz_target!(|bytes: &[u8]| {
    let mut reader = Reader::new(bytes);
    let mut before = Vec::new();
    while reader.remaining() > 0 {
        let Ok(entry) = decode_entry(&mut reader, &before) else { break };
        assert!(is_path(&entry.path));
        assert!(!entry.path.starts_with(b"/") && entry.path.split(|byte| *byte == b'/').all(|name| name != b".." && !name.is_empty()));
        assert!(before.is_empty() || path_order(&before, &entry.path).is_lt() && path_order(&entry.path, &before).is_gt());
        let mut again = Vec::new();
        encode_entry(&entry, &before, &mut again);
        let mut second = Reader::new(&again);
        assert_eq!(decode_entry(&mut second, &before).unwrap(), entry);
        second.finish().unwrap();
        before = entry.path;
    }
    if let Ok(rows) = decode_rows(bytes) {
        let mut again = Vec::new();
        rows.iter().for_each(|row| encode_row(row, &mut again));
        assert_eq!(again, bytes);
        assert_eq!(decode_rows(&again).unwrap(), rows);
    }
});
