//! Records of removals.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snap_backup::format::record::Record;

fuzz_target!(|bytes: &[u8]| {
    let Ok(record) = Record::decode(bytes) else { return };
    assert_eq!(Record::decode(&record.encode()).unwrap(), record);
});
