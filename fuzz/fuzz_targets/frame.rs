//! The opened box of a frame: table, bitmap, base. The first byte is the flags, the second the codec.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snap_backup::format::frame::{Codec, FrameRecord, decode_box, is_known_flags};
use snap_backup::id::FrameId;
use snap_backup::limits::{FRAME_BYTES_MAX, FRAME_CHUNKS_MAX};

fuzz_target!(|bytes: &[u8]| {
    let [flags, codec, plain @ ..] = bytes else { return };
    let Ok(codec) = Codec::from_byte(*codec) else { return };
    let Ok(opened) = decode_box(plain, *flags) else { return };
    assert!(is_known_flags(*flags));
    assert!(!opened.table.is_empty() && opened.table.len() <= FRAME_CHUNKS_MAX);
    assert!(opened.table.plain_len() <= FRAME_BYTES_MAX);
    let id = FrameId([7; 32]);
    let (table, present, base) = (opened.table.clone(), opened.present.clone(), opened.base.clone());
    let record = FrameRecord { id, offset: 99, stored_len: plain.len() as u32, codec, table, present, base };
    assert_eq!(record.seal_info().flags, *flags);
    assert_eq!(record.is_delta(), record.seal_info().is_delta());
    assert!(record.present_len() <= record.table.plain_len());
    assert!(!record.has(record.table.len()));
    let again = record.encode_box(opened.compressed);
    assert_eq!(decode_box(&again, *flags).unwrap(), opened);
});
