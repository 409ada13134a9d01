//! The header of every sealed object.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snap_backup::format::codec::Reader;
use snap_backup::format::envelope::{Header, Kind, decode_start, encode_start, footer_associated_data, object_associated_data};

fuzz_target!(|bytes: &[u8]| {
    let mut reader = Reader::new(bytes);
    if let Ok(header) = Header::decode(&mut reader) {
        let again = header.encode();
        assert_eq!(again, bytes[..reader.position()]);
        assert_eq!(Header::decode(&mut Reader::new(&again)).unwrap(), header);
        assert_ne!(object_associated_data(&header), footer_associated_data(&header, 0));
    }
    if let Ok((version, kind)) = decode_start(&mut Reader::new(bytes)) {
        let mut again = Vec::new();
        encode_start(&mut again, kind);
        assert_eq!(Kind::from_byte(kind as u8).unwrap(), kind);
        assert!((1..=kind.version()).contains(&version));
        assert_eq!(decode_start(&mut Reader::new(&again)).unwrap(), (kind.version(), kind));
    }
});
