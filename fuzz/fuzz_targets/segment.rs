//! Index segments; the first byte says in which layout.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snap_backup::format::segment::Segment;
use snap_backup::limits::LIST_VERSION;

fuzz_target!(|bytes: &[u8]| {
    let Some((version, body)) = bytes.split_first() else { return };
    let Ok(segment) = Segment::decode((*version).into(), body) else { return };
    assert_eq!(Segment::decode(LIST_VERSION, &segment.encode()).unwrap(), segment);
    for pack in &segment.packs {
        assert!(pack.frames.windows(2).all(|pair| pair[0].end() == pair[1].offset));
    }
});
