//! Writes the seeds the fuzzers start from: `cargo run --example seeds`, in the folder `fuzz`. Commit what changes.

use std::fs;
use std::path::Path;

use jiff::Timestamp;
use snap_backup::compression::patch::{Copy, encode};
use snap_backup::format::codec::Write;
use snap_backup::format::content::{Content, Encoding, Hole};
use snap_backup::format::dump::{Dump, Table, Verdict};
use snap_backup::format::entry::*;
use snap_backup::format::envelope::{Header, Kind};
use snap_backup::format::frame::{Base, BaseRun, ChunkTable, Codec, FrameRecord, Present};
use snap_backup::format::list::encode_frames;
use snap_backup::format::manifest::{ChunkerParameters, Manifest};
use snap_backup::format::pack::{FRAMES_START, encode_trailer};
use snap_backup::format::recipe::{Recipe, Run, encode_block};
use snap_backup::format::record::{Condemned, Epoch, Record};
use snap_backup::format::segment::{PackRecord, Segment};
use snap_backup::format::slot::{Method, Slot};
use snap_backup::format::snapshot::{RecipeText, Snapshot, SourceKind, Totals};
use snap_backup::id::*;
use snap_backup::limits::LIST_VERSION;

fn main() {
    let moment = Timestamp::from_second(1_795_000_000).unwrap();
    codec();
    for (name, kind) in [("pack", Kind::DataPack), ("snapshot", Kind::Snapshot)] {
        seed("envelope", name, &Header { version: kind.version(), kind, repository: RepositoryId([1; 16]), salt: [2; 32] }.encode());
    }
    frames();
    patches();
    recipes();
    catalog();
    for (name, method) in [("password", Method::Password { memory_kib: 256 << 10, passes: 3, lanes: 4 }), ("key-file", Method::KeyFile)] {
        let (repository, id) = (RepositoryId([1; 16]), SlotId([2; 16]));
        let slot = Slot { method, repository, id, salt: [3; 32], nonce: [4; 24], sealed: vec![5; 80], commitment: [6; 32] };
        seed("slot", name, &slot.encode());
    }
    let (version, repository, chunker) = (1, RepositoryId([1; 16]), ChunkerParameters::default());
    seed("manifest", "new", &Manifest { version, repository, created: moment, chunker, features: Vec::new() }.encode());
    snapshots(moment);
    dumps();
    let (host, names) = ("db1".to_string(), vec![ObjectName([1; 32]), ObjectName([2; 32])]);
    seed("config", "example", snap_backup::config::EXAMPLE.as_bytes());
    let condemned = |is_final, segments| {
        Record::Condemned(Condemned { time: moment, host: host.clone(), epoch: 3, packs: names.clone(), is_final, segments })
    };
    seed("record", "condemned", &condemned(false, Vec::new()).encode());
    seed("record", "condemned-final", &condemned(true, names.clone()).encode());
    let epoch = |snapshots| Record::Epoch(Epoch { time: moment, host: host.clone(), epoch: u64::MAX, snapshots });
    seed("record", "epoch", &epoch(Vec::new()).encode());
    seed("record", "epoch-with-snapshots", &epoch(names.clone()).encode());
    seed("record", "forget", &Record::Forget { time: moment, host, snapshots: names, reason: "keep 7 \"daily\"".into() }.encode());
}

fn seed(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), bytes).unwrap();
}

fn codec() {
    let mut bytes = Vec::new();
    for (step, value) in [(3, 0), (3, 127), (3, 128), (3, u64::MAX), (4, 300), (8, 20), (9, 1)] {
        bytes.put_u8(step);
        bytes.put_varint(value);
    }
    seed("codec", "varints", &bytes);
    let mut bytes = vec![0, 1, 2, 1, 1, 2, 3, 4, 2, 1, 2, 3, 4, 5, 6, 7, 8, 5];
    bytes.put_string(b"a string");
    bytes.put_u8(6);
    bytes.put_bytes(b"sixsix");
    seed("codec", "fields", &bytes);
}

/// Bits of `shape`: 1 thinned, 2 delta.
fn frame(offset: u64, shape: u8) -> FrameRecord {
    let mut table = ChunkTable::default();
    for i in 0..9 {
        table.push(ChunkId([shape * 16 + i; 16]), 1000 * (usize::from(i) + 1));
    }
    let run = |at, frame, first, count| BaseRun { at, frame: FrameId([frame; 32]), first, count };
    FrameRecord {
        id: FrameId([shape; 32]),
        offset,
        stored_len: 777,
        codec: Codec::Zstd,
        table,
        present: (shape & 1 == 1).then(|| Present::from_flags((0..9).map(|i| i % 3 != 0))),
        base: (shape & 2 == 2).then(|| Base(vec![run(0, 1, 3, 2), run(0, 2, 0, 1), run(4, 1, 9, 9)])),
    }
}

/// What is written now, behind the version of its layout. Seeds of version 1, which nobody writes any more, are named so.
fn in_layout(bytes: &[u8]) -> Vec<u8> {
    [&[LIST_VERSION as u8], bytes].concat()
}

fn frames() {
    let mut list = Vec::new();
    for shape in 0..4 {
        let offset = list.last().map_or(FRAMES_START, FrameRecord::end);
        let record = frame(offset, shape);
        let name = ["plain", "thinned", "delta", "thinned-delta"][usize::from(shape)];
        seed("frame", name, &in_layout(&encode_frames(std::slice::from_ref(&record))));
        list.push(record);
    }
    seed("pack", "footer", &in_layout(&encode_frames(&list)));
    seed("pack", "trailer", &encode_trailer(1234));
    let pack = |name, kind, frames| PackRecord { name: ObjectName([name; 32]), kind, size: 12345, frames };
    let packs = vec![pack(1, Kind::DataPack, list), pack(2, Kind::CatalogPack, Vec::new())];
    seed("segment", "two-packs", &in_layout(&Segment { replaces: Vec::new(), packs }.encode()));
    seed(
        "segment",
        "replaces",
        &in_layout(&Segment { replaces: vec![ObjectName([7; 32]), ObjectName([8; 32])], packs: Vec::new() }.encode()),
    );
}

fn recipe(depth: u8) -> Recipe {
    let run = |frame, first, count| Run { frame: FrameId([frame; 32]), first, count };
    Recipe { depth, runs: vec![run(1, 0, 9), run(2, 5, 1), run(1, 300, 3796)] }
}

fn patches() {
    let copies = [Copy { skipped: 0, from: 4, len: 5 }, Copy { skipped: 3, from: 20, len: 9 }, Copy { skipped: 0, from: 0, len: 40 }];
    for (name, copies) in [("copies", &copies[..]), ("nothing-old", &[])] {
        seed("patch", name, &[&[0, 0, 44, 0, 60][..], &encode(copies)].concat());
    }
    let rows: Vec<u8> = (0..100).flat_map(|i| format!("{i}\tname\t{:20}\n", i * i % 7).into_bytes()).collect();
    seed("patch", "rows", &[&[1, 1, 0, 2, 0][..], &rows].concat());
    seed("patch", "many-rows", &[&[21, 4, 0, 2, 0][..], &rows, b"what is new"].concat());
}

fn recipes() {
    for (name, recipe) in [("direct", recipe(0)), ("indirect", recipe(2)), ("empty", Recipe::default())] {
        let mut bytes = Vec::new();
        recipe.encode(&mut bytes);
        seed("recipe", name, &bytes);
    }
    let mut blocks = Vec::new();
    encode_block(&recipe(0).runs, &mut blocks);
    encode_block(&recipe(0).runs[..2], &mut blocks);
    seed("recipe", "blocks", &blocks);
}

fn content(holes: Vec<Hole>) -> Content {
    Content { encoding: Encoding::Plain, size: 100_000, hash: ContentHash([3; 32]), holes, recipe: recipe(0) }
}

fn catalog() {
    let holes = vec![Hole { offset: 10, len: 20 }, Hole { offset: 99_000, len: 1000 }];
    for (name, content) in [("whole", content(Vec::new())), ("sparse", content(holes.clone()))] {
        let mut bytes = Vec::new();
        content.encode(&mut bytes);
        seed("content", name, &bytes);
    }
    let meta = Meta {
        mode: 0o4755,
        uid: 1000,
        gid: u32::MAX,
        user: b"ann".to_vec(),
        group: b"staff".to_vec(),
        mtime: Time { seconds: -5, nanos: 999_999_999 },
        inode: 1 << 40,
        xattrs: vec![(b"user.a".to_vec(), vec![0, 255]), (b"user.b".to_vec(), Vec::new())],
        ..Meta::default()
    };
    let nodes = [
        ("a", Node::Folder),
        ("a/b", Node::File { content: Some(content(holes)) }),
        ("a/c", Node::HardLink { target: b"a/b".to_vec() }),
        ("a/unreadable", Node::File { content: None }),
        ("a-b", Node::Symlink { target: b"../x".to_vec() }),
        ("a-c", Node::CharDevice { device: 259 }),
        ("a-d", Node::BlockDevice { device: 7 << 20 }),
        ("b", Node::Fifo),
        ("c", Node::Socket),
    ];
    let (mut bytes, mut rows, mut before) = (Vec::new(), Vec::new(), Vec::new());
    for (path, node) in nodes {
        encode_row(&PathRow { path: path.into(), offset: bytes.len() as u64 }, &mut rows);
        let entry = Entry { path: path.into(), flaw: Flaw::Changed, meta: meta.clone(), node };
        encode_entry(&entry, &before, &mut bytes);
        before = entry.path;
    }
    seed("entry", "catalog", &bytes);
    seed("entry", "rows", &rows);
    let mut bytes = Vec::new();
    let entry = Entry {
        path: b"db.sql".to_vec(),
        flaw: Flaw::None,
        meta: Meta::default(),
        node: Node::File { content: Some(content(Vec::new())) },
    };
    encode_entry(&entry, b"", &mut bytes);
    seed("entry", "stream", &bytes);
}

fn snapshots(moment: Timestamp) {
    let mut snapshot = Snapshot {
        time: moment,
        started: Some(moment),
        seconds: 12.5,
        host: "db1".into(),
        user: "root".into(),
        name: "db.sql".into(),
        tags: vec!["nightly".into()],
        source: SourceKind::Stream,
        paths: vec!["db.sql".into()],
        parent: Some(ObjectName([9; 32])),
        original: None,
        totals: Totals { files: 1, bytes: 1 << 30, ..Totals::default() },
        program: "snap 0.1.0".into(),
        catalog: RecipeText(recipe(0)),
        catalog_len: 321,
        dumps: Vec::new(),
        path_table: RecipeText(Recipe::default()),
        repaired: None,
        parts: Vec::new(),
    };
    seed("snapshot", "stream", &snapshot.encode());
    let table = Table { name: "public.people".into(), rows: Some(25) };
    let verdict = Verdict::Incomplete;
    snapshot.dumps = vec![Dump { path: "db.sql".into(), verdict, tables: vec![table], table_count: 1, ..Dump::default() }];
    seed("snapshot", "dump", &snapshot.encode());
    (snapshot.source, snapshot.parent, snapshot.started) = (SourceKind::Tree, None, None);
    snapshot.paths = vec!["/etc".into(), "/home \\u{1b}".into()];
    seed("snapshot", "tree", &snapshot.encode());
}

/// Small samples of the tests, behind a byte for no other beginning and one for pieces of 64 bytes.
fn dumps() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/samples");
    for name in [
        "pg_dump-schema.sql",
        "pg_dump.custom",
        "pg_dump.sql.gz",
        "pg_dump.sql.zst",
        "pg_dump.sql.lz4",
        "pg_dump.sql.xz",
        "pg_dump.sql.bz2",
        "mariadb-dump.sql",
        "redis.rdb",
        "redis-diskless.rdb",
        "files.zip",
    ] {
        let bytes = fs::read(samples.join(name)).unwrap();
        seed("dumps_judge", name, &[&[0, 63], &bytes[..]].concat());
    }
}
