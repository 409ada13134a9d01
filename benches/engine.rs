//! How fast the parts of the engine are, and the whole: `cargo bench`, or `cargo bench -- cut` for one of them.
//!
//! All inputs come from a seed. The whole program against other programs is benches/compare's business.

mod dice;

use std::hint::black_box;
use std::sync::{Arc, LazyLock};

use dice::Dice;
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use snap_backup::backend::Memory;
use snap_backup::chunking::Cutter;
use snap_backup::compression::{Compressor, Decompressor, Level, Texture};
use snap_backup::crypto::{Keys, MasterKey, Sealer, Secret};
use snap_backup::format::envelope::Kind;
use snap_backup::format::frame::{ChunkTable, Codec, FrameRecord};
use snap_backup::format::manifest::ChunkerParameters;
use snap_backup::format::pack::FRAMES_START;
use snap_backup::format::segment::{PackRecord, Segment};
use snap_backup::id::{ChunkId, ObjectName, RepositoryId};
use snap_backup::index::{Index, Scope, Shelter};
use snap_backup::limits::FRAME_BYTES_TARGET;
use snap_backup::ops::backup::{BackupOptions, Input, backup};
use snap_backup::ops::dump::dump;
use snap_backup::progress::Silent;
use snap_backup::repo::{Opening, Repository, SnapshotFilter};
use snap_backup::world::World;

fn main() {
    divan::main();
}

const DUMP_BYTES: usize = 64 << 20;

/// A dump of a table of accounts and one of letters, about as pg_dump writes them.
static NIGHT_0: LazyLock<Vec<u8>> = LazyLock::new(|| rows(DUMP_BYTES, 0));
/// The same with about one row in a hundred changed.
static NIGHT_1: LazyLock<Vec<u8>> = LazyLock::new(|| rows(DUMP_BYTES, 1));

fn rows(len: usize, night: u64) -> Vec<u8> {
    use std::io::Write;
    let mut bytes = Vec::with_capacity(len + 1024);
    let mut row = 0;
    while bytes.len() < len {
        row += 1;
        // A row depends on its number alone, and on the night if it changed.
        let mut dice = Dice(row);
        let changed = dice.below(100) == 0;
        let balance = if changed { dice.below(100_000) + night } else { 0 };
        match dice.below(3) {
            0 => {
                write!(bytes, "{row}\t{}\t{:032x}\t", dice.below(150_000), u128::from(dice.roll()) << 64 | u128::from(dice.roll()))
                    .unwrap();
                for _ in 0..5 + dice.below(30) {
                    // Small numbers come often, as common words do.
                    let rank = dice.below(90) * dice.below(90);
                    write!(bytes, "w{rank:x} ").unwrap();
                }
                writeln!(bytes, "\t{{\"score\": {balance}, \"agent\": \"client/{}\"}}", dice.below(40)).unwrap();
            }
            _ => writeln!(bytes, "{row}\t{}\t{balance}\t{:84}", row / 100_000 + 1, "").unwrap(),
        }
    }
    bytes.truncate(len);
    bytes
}

fn keys() -> Arc<Keys> {
    Arc::new(Keys::derive(&MasterKey::new([1; 32])))
}

/// A source of keys and nonces that is the same in every run.
fn world() -> World {
    let dice = std::sync::Mutex::new(Dice(7));
    World::new(
        || jiff::Timestamp::from_second(1_795_000_000).expect("a moment"),
        move |bytes| bytes.iter_mut().for_each(|byte| *byte = dice.lock().expect("no panic").roll() as u8),
    )
}

fn cuts(bytes: &[u8]) -> Vec<&[u8]> {
    let cutter = Cutter::new(&ChunkerParameters::default(), keys().gear_table());
    let mut chunks = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(cutter.cut(rest));
        chunks.push(chunk);
        rest = after;
    }
    chunks
}

mod parts {
    use super::*;

    #[divan::bench]
    fn cut(bencher: Bencher) {
        let cutter = Cutter::new(&ChunkerParameters::default(), keys().gear_table());
        let bytes = &NIGHT_0[..16 << 20];
        bencher.counter(BytesCount::new(bytes.len())).bench_local(|| {
            let mut at = 0;
            while at < bytes.len() {
                at += cutter.cut(black_box(&bytes[at..]));
            }
            at
        });
    }

    #[divan::bench]
    fn chunk_hash(bencher: Bencher) {
        let keys = keys();
        let bytes = &NIGHT_0[..16 << 20];
        let chunks = cuts(bytes);
        bencher.counter(BytesCount::new(bytes.len())).bench_local(|| {
            chunks.iter().map(|chunk| keys.chunk_id(Kind::DataPack, black_box(chunk)).0[0]).fold(0, |all, byte| all ^ byte)
        });
    }

    #[divan::bench]
    fn compress_auto(bencher: Bencher) {
        let bytes = &NIGHT_0[..FRAME_BYTES_TARGET];
        let mut compressor = Compressor::new(Level::Auto).unwrap();
        let mut out = Vec::new();
        bencher
            .counter(BytesCount::new(bytes.len()))
            .bench_local(|| compressor.compress(Texture::Even, black_box(bytes), &mut out).unwrap());
    }

    #[divan::bench]
    fn compress_delta(bencher: Bencher) {
        let (old, new) = (&NIGHT_0[..FRAME_BYTES_TARGET], &NIGHT_1[..FRAME_BYTES_TARGET]);
        let mut compressor = Compressor::new(Level::Auto).unwrap();
        let mut out = Vec::new();
        bencher.counter(BytesCount::new(new.len())).bench_local(|| compressor.compress_delta(old, black_box(new), &mut out).unwrap());
    }

    #[divan::bench]
    fn decompress(bencher: Bencher) {
        let bytes = &NIGHT_0[..FRAME_BYTES_TARGET];
        let mut stored = Vec::new();
        Compressor::new(Level::Auto).unwrap().compress(Texture::Even, bytes, &mut stored).unwrap();
        let mut decompressor = Decompressor::default();
        bencher
            .counter(BytesCount::new(bytes.len()))
            .bench_local(|| decompressor.decompress(Codec::Zstd, None, black_box(&stored), bytes.len()).unwrap());
    }

    #[divan::bench]
    fn seal(bencher: Bencher) {
        let world = world();
        let sealer = Sealer::new(keys(), Kind::DataPack, RepositoryId([2; 16]), Arc::new(move || world.random()));
        let bytes = &NIGHT_0[..FRAME_BYTES_TARGET / 4];
        bencher.counter(BytesCount::new(bytes.len())).bench_local(|| sealer.seal(b"place", black_box(bytes)));
    }
}

mod index {
    use super::*;

    const CHUNKS: usize = 256 << 10;
    const CHUNKS_A_FRAME: usize = 64;
    const LOOKUPS: u64 = 1000;

    fn id(number: u64) -> ChunkId {
        let mut dice = Dice(number);
        let bytes = u128::from(dice.roll()) << 64 | u128::from(dice.roll());
        ChunkId(bytes.to_le_bytes())
    }

    fn filled(home: &std::path::Path) -> Index {
        let shelter = Shelter { cache: Some(home.into()), scratch: None };
        let mut index = Index::open(shelter, RepositoryId([2; 16]));
        let mut frames: Vec<FrameRecord> = Vec::new();
        for first in (0..CHUNKS).step_by(CHUNKS_A_FRAME) {
            let mut table = ChunkTable::default();
            (first..first + CHUNKS_A_FRAME).for_each(|number| table.push(id(number as u64), 16 << 10));
            let offset = frames.last().map_or(FRAMES_START, FrameRecord::end);
            let id = keys().frame_id(&table);
            frames.push(FrameRecord { id, offset, stored_len: 1000, codec: Codec::Zstd, table, present: None, base: None });
        }
        let packs = vec![PackRecord { name: ObjectName([3; 32]), kind: Kind::DataPack, size: 1 << 20, frames }];
        let segment = Segment { replaces: Vec::new(), packs };
        index.merge(&[(ObjectName([4; 32]), segment)], Scope::Chunks).unwrap();
        index
    }

    fn lookups(bencher: Bencher, first: u64, found: bool) {
        let home = tempfile::tempdir().unwrap();
        let index = filled(home.path());
        let mut dice = Dice(5);
        bencher.counter(ItemsCount::new(LOOKUPS)).bench_local(|| {
            for _ in 0..LOOKUPS {
                let place = index.chunk(&id(first + dice.below(CHUNKS as u64))).unwrap();
                assert_eq!(!place.is_empty(), found);
            }
        });
    }

    #[divan::bench]
    fn hit(bencher: Bencher) {
        lookups(bencher, 0, true);
    }

    #[divan::bench]
    fn miss(bencher: Bencher) {
        lookups(bencher, CHUNKS as u64, false);
    }
}

/// Judging dumps while they stream.
mod dumps {
    use super::*;
    use snap_backup::dumps::Judge;

    fn judge(bencher: Bencher, bytes: &[u8], format: &str) {
        bencher.counter(BytesCount::new(bytes.len())).bench_local(|| {
            let mut judge = Judge::stream(b"db");
            bytes.chunks(4 << 20).for_each(|piece| judge.feed(black_box(piece)));
            assert_eq!(judge.finish().expect("it is recognised").dump.format, format);
        });
    }

    #[divan::bench]
    fn pg_dump(bencher: Bencher) {
        let table = "-- Data for Name: t; Type: TABLE DATA; Schema: public; Owner: o\n--\n\nCOPY public.t (a, b) FROM stdin;\n";
        let head = format!("--\n-- PostgreSQL database dump\n--\n\n--\n{table}");
        judge(bencher, &[head.as_bytes(), &NIGHT_0, b"\n\\.\n"].concat(), "pg_dump");
    }

    /// Lines that are no rows, as of `pg_dump --inserts`.
    #[divan::bench]
    fn pg_dump_inserts(bencher: Bencher) {
        judge(bencher, &[b"--\n-- PostgreSQL database dump\n--\n", &NIGHT_0[..]].concat(), "pg_dump");
    }

    fn mysqldump(bencher: Bencher, row: &str) {
        use std::io::Write;
        let mut text = b"-- MySQL dump 10.13  Distrib 8.0.36, for Linux (x86_64)\n-- Dumping data for table `t`\n--\n\n".to_vec();
        while text.len() < DUMP_BYTES {
            writeln!(text, "INSERT INTO `t` VALUES {};", vec![row; (1 << 20) / row.len()].join(",")).expect("memory takes all");
        }
        judge(bencher, &text, "mysqldump");
    }

    /// Rows of numbers and short texts, in statements of a megabyte.
    #[divan::bench]
    fn mysqldump_short_rows(bencher: Bencher) {
        mysqldump(bencher, "(4711,'2026-11-21 13:31:28','paid',1999,NULL,'a remark of some words','db1.example')");
    }

    /// A few hundred bytes of text, in which something is escaped.
    #[divan::bench]
    fn mysqldump_long_rows(bencher: Bencher) {
        let words = "words of a letter that somebody wrote, (with an aside) it goes on for a while. ";
        mysqldump(bencher, &format!("(4711,'{}','it\\'s {words}\\n{}')", words.repeat(2), words.repeat(3)));
    }

    #[divan::bench]
    fn redis(bencher: Bencher) {
        judge(bencher, &[b"REDIS0011", &NIGHT_0[..]].concat(), "redis");
    }

    #[divan::bench]
    fn mongodump(bencher: Bencher) {
        let document = |len: usize| [&(len as u32).to_le_bytes()[..], &NIGHT_0[..len - 5], &[0]].concat();
        // A header, an end of what is announced, a segment's head, and documents of 500 bytes.
        let head = [b"\x6d\xe2\x99\x81", &[5, 0, 0, 0, 0][..], &[0xff; 4], &[5, 0, 0, 0, 0]].concat();
        let documents = document(500).repeat(DUMP_BYTES / 500);
        judge(bencher, &[head, documents].concat(), "mongodump archive");
    }

    /// Of compressed bytes; unpacking them takes most of it.
    #[divan::bench]
    fn zstd(bencher: Bencher) {
        let mut packed = Vec::new();
        Compressor::new(Level::Auto).unwrap().compress(Texture::Even, &NIGHT_0[..FRAME_BYTES_TARGET], &mut packed).unwrap();
        judge(bencher, &packed.repeat(16), "zstd");
    }
}

mod whole {
    use super::*;

    fn repository() -> Repository {
        let opening = Opening { secret: Secret::KeyFile(vec![9; 32]), cache: None, world: world() };
        Repository::create(Arc::new(Memory::new()), opening, "bench").unwrap()
    }

    fn save(repository: &Repository, bytes: &'static [u8]) {
        let input = Input::Reader { name: "db.sql".into(), reader: Box::new(bytes) };
        let options = BackupOptions::new("bench");
        assert!(backup(repository, input, &options, &Silent).unwrap().snapshot.is_some());
    }

    #[divan::bench(sample_count = 5, sample_size = 1)]
    fn backup_first(bencher: Bencher) {
        let night = &**LazyLock::force(&NIGHT_0);
        bencher.counter(BytesCount::new(night.len())).with_inputs(repository).bench_local_refs(|repository| save(repository, night));
    }

    #[divan::bench(sample_count = 5, sample_size = 1)]
    fn backup_again(bencher: Bencher) {
        let night = &**LazyLock::force(&NIGHT_0);
        let prepare = || {
            let repository = repository();
            save(&repository, night);
            repository
        };
        bencher.counter(BytesCount::new(night.len())).with_inputs(prepare).bench_local_refs(|repository| save(repository, night));
    }

    #[divan::bench(sample_count = 5, sample_size = 1)]
    fn backup_next_night(bencher: Bencher) {
        let (night_0, night_1) = (&**LazyLock::force(&NIGHT_0), &**LazyLock::force(&NIGHT_1));
        let prepare = || {
            let repository = repository();
            save(&repository, night_0);
            repository
        };
        bencher.counter(BytesCount::new(night_1.len())).with_inputs(prepare).bench_local_refs(|repository| save(repository, night_1));
    }

    #[divan::bench(sample_count = 5, sample_size = 1)]
    fn dump_latest(bencher: Bencher) {
        let night = &**LazyLock::force(&NIGHT_0);
        let repository = repository();
        save(&repository, night);
        let selection = repository.select("latest", &SnapshotFilter::default()).unwrap();
        bencher.counter(BytesCount::new(night.len())).bench_local(|| {
            let report = dump(&repository, &selection, &mut std::io::sink(), &Silent).unwrap();
            assert_eq!(report.bytes, night.len() as u64);
        });
    }
}
