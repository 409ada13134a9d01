//! The manifest. What it says must be fit to cut with.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snap_backup::chunking::Cutter;
use snap_backup::format::manifest::Manifest;

fuzz_target!(|bytes: &[u8]| {
    let Ok(manifest) = Manifest::decode(bytes) else { return };
    assert_eq!(Manifest::decode(&manifest.encode()).unwrap(), manifest);
    let cutter = Cutter::new(&manifest.chunker, Box::new([7; 256]));
    assert!((1..=cutter.max()).contains(&cutter.cut(bytes)));
});
