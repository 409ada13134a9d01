//! Any fields off any bytes; varints have one encoding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snap_backup::format::codec::{Reader, Write};

// The first byte of each step chooses what is read next.
fuzz_target!(|bytes: &[u8]| {
    let mut reader = Reader::new(bytes);
    while let Ok(step) = reader.u8("step") {
        let (start, left) = (reader.position(), reader.remaining());
        let mut again = Vec::new();
        let max = usize::from(step) * 3;
        let ok = match step % 10 {
            0 => reader.u16("u16").map(|value| again.put_u16(value)),
            1 => reader.u32("u32").map(|value| again.put_u32(value)),
            2 => reader.u64("u64").map(|value| again.put_u64(value)),
            3 => reader.varint("varint").map(|value| again.put_varint(value)),
            4 => reader.signed("signed").map(|value| again.put_signed(value)),
            5 => reader.string(max, "string").map(|value| {
                assert!(value.len() <= max);
                again.put_string(value);
            }),
            6 => reader.bytes(usize::from(step), "bytes").map(|value| again.put_bytes(value)),
            7 => reader.array::<16>("array").map(|value| again.put_bytes(&value)),
            8 => reader.length(max, "length").map(|value| {
                assert!(value <= max);
                again.put_varint(value as u64);
            }),
            _ => reader.count(7, "count").map(|value| {
                assert!(value <= left / 7);
                again.put_varint(value as u64);
            }),
        };
        if ok.is_err() {
            break;
        }
        assert_eq!(again, bytes[start..reader.position()]);
        assert_eq!(reader.position() + reader.remaining(), bytes.len());
    }
    assert_eq!(reader.clone().finish().is_ok(), reader.remaining() == 0);
    assert_eq!(reader.remaining(), reader.rest().len());
});
