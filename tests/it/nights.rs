//! Many nights of one stream: what each costs and how scattered the newest lies must not grow with their number.

use std::collections::HashSet;

use snap_backup::format::frame::FrameRecord;
use snap_backup::limits::*;
use snap_backup::repo::{Repository, Runs};

use crate::support::*;

const NIGHTS: usize = 24;

/// One in so many lines changes in a night, anywhere.
const LINES_FOR_ONE_CHANGE: u64 = 30;

fn a_night_later(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut later = bytes.to_vec();
    for line in later.split_mut(|byte| *byte == b'\n') {
        if rng.below(LINES_FOR_ONE_CHANGE) == 0 && line.len() > 45 {
            let digits = format!("{:08x}", rng.next() as u32);
            line[33..41].copy_from_slice(digits.as_bytes());
        }
    }
    later
}

fn content(repository: &Repository) -> snap_backup::format::content::Content {
    let mut found = None;
    snap_backup::ops::browse::list(repository, &select(repository, "latest"), true, &mut |entry| {
        if let snap_backup::format::entry::Node::File { content } = &entry.node {
            found = content.clone();
        }
        Ok(())
    })
    .unwrap();
    found.unwrap()
}

/// The records of the frames that the newest snapshot is read from, bases left out.
fn records(repository: &Repository) -> Vec<FrameRecord> {
    let reader = repository.reader().unwrap();
    let runs = Runs::new(reader.clone(), content(repository).recipe);
    let ids: HashSet<_> = runs.map(|run| run.unwrap().frame).collect();
    let locator = repository.locator().unwrap();
    let record = |id| {
        let (pack, _) = locator.places(id).remove(0);
        (*locator.record_in(&pack, id).unwrap()).clone()
    };
    ids.iter().map(record).collect()
}

#[test]
fn the_newest_of_many_nights_is_neither_dear_nor_scattered() {
    // Always the same one: how many of a dozen frames become new bases in one night is chance, and so is what a night costs.
    let seed = std::env::var("SEED").map_or(1, |text| text.parse().expect("SEED is a number"));
    let mut rng = Rng::new(seed);
    let (bench, _) = Bench::in_memory(seed);
    let mut bytes = lines(seed, 12 << 20);
    let first = bench.save(&bytes).totals.bytes_stored;
    let mut stored = Vec::new();
    for _ in 0..NIGHTS {
        bytes = a_night_later(&bytes, &mut rng);
        stored.push(bench.save(&bytes).totals.bytes_stored);
    }
    assert!(bench.dump("latest").unwrap() == bytes);

    // Deltas against the first night grow each night. At a quarter to half of what their frame takes alone (each frame at a share of its
    // own) it is stored alone, as a new base: here after 9 to 20 nights, which makes 0.25 to 0.3 of a first night in the mean. Deltas that
    // went on growing would cost 0.45 by then.
    let mean = stored[NIGHTS / 2..].iter().sum::<u64>() as f64 / (NIGHTS / 2) as f64 / first as f64;
    println!("{first}, then {stored:?}, at last {mean:.3} a night");
    assert!(mean < 0.38, "the later of {stored:?}");
    // Should all become new bases in one night, it costs what the first did.
    assert!(stored.iter().all(|&night| night < first + first / 20), "{first}, then {stored:?}");

    // Chunks that did not change for a while are gathered again.
    let records = records(&bench.open());
    let frames = bytes.len() / FRAME_BYTES_TARGET;
    assert!(records.len() < 4 * frames, "{} frames for {frames} MiB", records.len());

    // Stand-ins of stand-ins do not pile up.
    let runs: usize = records.iter().filter_map(|record| record.base.as_ref()).map(|base| base.0.len()).sum();
    let chunks: usize = records.iter().filter(|record| record.is_delta()).map(|record| record.table.len()).sum();
    assert!(chunks > 0 && runs < 3 * chunks, "{runs} runs for {chunks} chunks");

    let again = bench.save(&bytes);
    assert_eq!(again.totals.bytes_new, 0, "what did not change is not gathered again");
}

#[test]
fn a_stream_that_hardly_changes_stays_where_it_is() {
    let (bench, _) = Bench::in_memory(3);
    let mut bytes = lines(3, 6 << 20);
    bench.save(&bytes);
    for night in 0..10u64 {
        let at = 300_000 + night as usize * 500_000;
        bytes[at..at + 8].copy_from_slice(format!("{night:08}").as_bytes());
        let report = bench.save(&bytes);
        assert!(report.totals.bytes_new <= 2 * CHUNK_BYTES_MAX as u64, "{:?}", report.totals);
    }
}
