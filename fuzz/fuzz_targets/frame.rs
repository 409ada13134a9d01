//! What is said of frames: tables, bitmaps, bases. A list of frames is how a pack's footer and an index segment hold it; the first byte
//! says in which layout.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snap_backup::format::codec::Reader;
use snap_backup::format::frame::{ChunkTable, is_known_flags};
use snap_backup::format::list::{decode_frames, encode_frames};
use snap_backup::limits::{DELTA_BASE_RUNS_MAX, FRAME_BYTES_MAX, FRAME_CHUNKS_MAX, FRAME_STORED_BYTES_MAX, LIST_VERSION};

fuzz_target!(|bytes: &[u8]| {
    let Some((version, bytes)) = bytes.split_first() else { return };
    let version = u16::from(*version);
    let mut reader = Reader::new(bytes);
    let Ok(frames) = decode_frames(version, &mut reader) else { return };
    for frame in &frames {
        let table = &frame.table;
        assert!(!table.is_empty() && table.len() <= FRAME_CHUNKS_MAX && table.lens().len() == table.len());
        assert!(table.plain_len() <= FRAME_BYTES_MAX && frame.stored_len as usize <= FRAME_STORED_BYTES_MAX);
        // The frame's id is a hash of these bytes, so a table has one encoding.
        let mut encoded = Vec::new();
        table.encode(&mut encoded);
        assert_eq!(ChunkTable::decode(&mut Reader::new(&encoded)).unwrap(), *table);
        assert!(version != 1 || bytes.windows(encoded.len()).any(|window| window == encoded));
        let info = frame.seal_info();
        assert!(is_known_flags(info.flags));
        assert_eq!(info.is_delta(), frame.is_delta());
        assert_eq!(info.plain_len as usize, frame.present_len());
        assert!(frame.present_len() <= table.plain_len() && !frame.has(table.len()));
        assert!(frame.present.is_some() || frame.present_len() == table.plain_len());
        if let Some(base) = &frame.base {
            assert!(!base.0.is_empty() && base.0.len() <= DELTA_BASE_RUNS_MAX);
            assert!(base.0.is_sorted_by_key(|run| run.at));
            for run in &base.0 {
                assert!((run.at as usize) < table.len() && run.count > 0);
                assert!((run.first + run.count) as usize <= FRAME_CHUNKS_MAX);
            }
        }
    }
    let again = encode_frames(&frames);
    assert_eq!(decode_frames(LIST_VERSION, &mut Reader::new(&again)).unwrap(), frames);
    // In the layout that is written, a list has one encoding.
    if version == LIST_VERSION {
        assert_eq!(again, bytes[..reader.position()]);
    }
});
