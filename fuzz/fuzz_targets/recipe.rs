//! Recipes, and the blocks that long ones consist of.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snap_backup::format::codec::Reader;
use snap_backup::format::recipe::{BLOCK_BYTES_MAX, Recipe, decode_block, encode_block};
use snap_backup::limits::FRAME_CHUNKS_MAX;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(recipe) = Recipe::decode(&mut Reader::new(bytes)) {
        let mut again = Vec::new();
        recipe.encode(&mut again);
        assert_eq!(Recipe::decode(&mut Reader::new(&again)).unwrap(), recipe);
    }
    // A stream of blocks, as a recipe of depth 1 points to.
    let mut reader = Reader::new(bytes);
    while reader.remaining() > 0 {
        let Ok(runs) = decode_block(&mut reader) else { break };
        assert!(runs.iter().all(|run| run.count > 0 && (run.first + run.count) as usize <= FRAME_CHUNKS_MAX));
        let mut again = Vec::new();
        encode_block(&runs, &mut again);
        assert!(again.len() <= BLOCK_BYTES_MAX);
        assert_eq!(decode_block(&mut Reader::new(&again)).unwrap(), runs);
    }
});
