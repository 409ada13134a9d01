//! Key slots, which are read before any key is known.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snap_backup::format::slot::{Method, Slot};
use snap_backup::limits::*;

fuzz_target!(|bytes: &[u8]| {
    let Ok(slot) = Slot::decode(bytes) else { return };
    assert_eq!(slot.encode(), bytes);
    assert!(bytes.starts_with(&slot.encode_header()) && bytes.starts_with(&slot.encode_committed()));
    if let Method::Password { memory_kib, passes, lanes } = slot.method {
        assert!((ARGON2_MEMORY_KIB_MIN..=ARGON2_MEMORY_KIB_MAX).contains(&memory_kib));
        assert!(passes <= ARGON2_PASSES_MAX && lanes <= ARGON2_LANES_MAX);
    }
});
