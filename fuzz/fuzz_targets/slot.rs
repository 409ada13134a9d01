//! Key slots, which are read before any key is known; the notes beside them, and recovery words.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snap_backup::crypto::Recovery;
use snap_backup::format::slot::{KeyNote, Method, Slot};
use snap_backup::limits::*;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(note) = KeyNote::decode(bytes) {
        assert_eq!(KeyNote::decode(&note.encode()).unwrap(), note);
    }
    if let Ok(recovery) = std::str::from_utf8(bytes).map_err(drop).and_then(|text| Recovery::parse(text).map_err(drop)) {
        assert!(Recovery::parse(&recovery.master.words()).is_ok_and(|again| again.master.is(&recovery.master)));
    }
    let Ok(slot) = Slot::decode(bytes) else { return };
    assert_eq!(slot.encode(), bytes);
    assert!(bytes.starts_with(&slot.encode_header()) && bytes.starts_with(&slot.encode_committed()));
    if let Method::Password { memory_kib, passes, lanes } = slot.method {
        assert!((ARGON2_MEMORY_KIB_MIN..=ARGON2_MEMORY_KIB_MAX).contains(&memory_kib));
        assert!(passes <= ARGON2_PASSES_MAX && lanes <= ARGON2_LANES_MAX);
    }
});
