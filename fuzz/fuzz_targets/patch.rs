//! Frames as patches of their bases: any list of copies, and what is found in any two stretches of bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snap_backup::compression::patch::{Finder, apply, decode, encode, new_bytes};

fuzz_target!(|bytes: &[u8]| {
    let Some((&[way, a, b, c, d], rest)) = bytes.split_first_chunk() else { return };
    let (base_len, plain_len) = (usize::from(a) << 8 | usize::from(b), usize::from(c) << 8 | usize::from(d));
    let mut back = Vec::new();
    if way % 2 == 0 {
        let Ok(copies) = decode(rest, base_len, plain_len) else { return };
        assert_eq!(encode(&copies), rest);
        let copied: usize = copies.iter().map(|copy| copy.len).sum();
        apply(&copies, &vec![1; base_len], &vec![2; plain_len - copied], plain_len, &mut back).unwrap();
        assert_eq!((back.len(), back.iter().filter(|byte| **byte == 1).count()), (plain_len, copied));
        return;
    }
    // Stretches that are long enough to be worth a patch, and share much.
    let split = rest.len().min(base_len);
    let base = rest[..split].repeat(1 + usize::from(way / 2 % 8));
    let mut plain = base.clone();
    let at = plain_len.min(plain.len());
    plain.splice(at..plain.len().min(at + usize::from(a)), rest[split..].iter().copied());
    let Some(copies) = Finder::default().find(&base, &plain) else { return };
    assert_eq!(decode(&encode(&copies), base.len(), plain.len()).unwrap(), copies);
    apply(&copies, &base, &new_bytes(&copies, &plain), plain.len(), &mut back).unwrap();
    assert!(back == plain);
});
