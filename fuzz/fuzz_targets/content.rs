//! What a file's bytes are: size, hash, holes, recipe.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snap_backup::format::codec::Reader;
use snap_backup::format::content::Content;

fuzz_target!(|bytes: &[u8]| {
    let Ok(content) = Content::decode(&mut Reader::new(bytes)) else { return };
    assert!(content.stored_len() <= content.size);
    let mut again = Vec::new();
    content.encode(&mut again);
    assert_eq!(Content::decode(&mut Reader::new(&again)).unwrap(), content);
});
