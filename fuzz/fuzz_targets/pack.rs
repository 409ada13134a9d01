//! The list of frames in a pack's footer, of which the first byte says the layout, and the pack's trailer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snap_backup::format::codec::Reader;
use snap_backup::format::list::{decode_frames, encode_frames};
use snap_backup::format::pack::{FRAMES_START, decode_trailer, encode_trailer};
use snap_backup::limits::LIST_VERSION;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(len) = decode_trailer(bytes) {
        assert_eq!(encode_trailer(len), bytes);
    }
    let Some((version, list)) = bytes.split_first() else { return };
    let Ok(frames) = decode_frames((*version).into(), &mut Reader::new(list)) else { return };
    let mut end = FRAMES_START;
    for frame in &frames {
        assert_eq!(frame.offset, end);
        assert!(frame.present_len() <= frame.table.plain_len());
        end = frame.end();
    }
    let again = encode_frames(&frames);
    assert_eq!(decode_frames(LIST_VERSION, &mut Reader::new(&again)).unwrap(), frames);
});
