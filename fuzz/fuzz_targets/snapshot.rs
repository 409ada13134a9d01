//! Snapshots.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snap_backup::format::snapshot::Snapshot;

fuzz_target!(|bytes: &[u8]| {
    let Ok(snapshot) = Snapshot::decode(bytes) else { return };
    let mut again = Snapshot::decode(&snapshot.encode()).unwrap();
    // The last bit of a fraction may change between decimal and binary.
    assert!((again.seconds - snapshot.seconds).abs() <= snapshot.seconds.abs() * 1e-15);
    again.seconds = snapshot.seconds;
    assert_eq!(again, snapshot);
});
