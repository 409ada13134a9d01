//! Index segments.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snap_backup::format::segment::Segment;

fuzz_target!(|bytes: &[u8]| {
    let Ok(segment) = Segment::decode(bytes) else { return };
    assert_eq!(Segment::decode(&segment.encode()).unwrap(), segment);
    for pack in &segment.packs {
        assert!(pack.frames.windows(2).all(|pair| pair[0].end() == pair[1].offset));
    }
});
