//! The list of frames in a pack's footer, and its trailer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snap_backup::format::codec::Reader;
use snap_backup::format::pack::{FRAMES_START, decode_frames, decode_trailer, encode_frames, encode_trailer};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(len) = decode_trailer(bytes) {
        assert_eq!(encode_trailer(len), bytes);
    }
    let mut reader = Reader::new(bytes);
    let Ok(frames) = decode_frames(&mut reader) else { return };
    let mut end = FRAMES_START;
    for frame in &frames {
        assert_eq!(frame.offset, end);
        assert!(frame.present_len() <= frame.table.plain_len());
        end = frame.end();
    }
    let again = encode_frames(&frames);
    assert_eq!(decode_frames(&mut Reader::new(&again)).unwrap(), frames);
});
