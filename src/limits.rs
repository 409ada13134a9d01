//! Every limit of the program, named once. `docs/MANUAL.md` states those a user can meet.
//!
//! Sizes are in bytes unless the name says otherwise. Reading code refuses what is beyond these
//! before it allocates; writing code never produces it.

/// The format this build writes, and the newest it reads.
pub const FORMAT_VERSION: u16 = 1;
/// Format version of packs and index segments: they hold lists of frames column by column. Those of version 1 are still read.
pub const LIST_VERSION: u16 = 2;

/// Smallest chunk FastCDC cuts, but for the last of a file.
pub const CHUNK_BYTES_MIN: usize = 4 << 10;
/// Chunk size FastCDC aims at.
pub const CHUNK_BYTES_AVG: usize = 16 << 10;
/// Largest chunk.
pub const CHUNK_BYTES_MAX: usize = 128 << 10;

/// Plain bytes at which a frame is closed.
pub const FRAME_BYTES_TARGET: usize = 1 << 20;
/// Plain bytes a frame may hold.
pub const FRAME_BYTES_MAX: usize = FRAME_BYTES_TARGET + CHUNK_BYTES_MAX;
/// Chunks a frame may hold (many tiny files).
pub const FRAME_CHUNKS_MAX: usize = 4096;
/// Stored bytes a frame's box may have: its bytes and seal.
pub const FRAME_STORED_BYTES_MAX: usize = 8 << 20;
/// Plain bytes of old chunks a delta frame may be compressed against.
pub const DELTA_BASE_BYTES_MAX: usize = 8 << 20;
/// Plain bytes of old chunks after which a frame that is being gathered takes no more.
pub const DELTA_PREFIX_BYTES_TARGET: usize = 3 << 20;
/// Runs in the base of a delta frame.
pub const DELTA_BASE_RUNS_MAX: usize = 4096;

/// Stored bytes at which a pack is closed.
pub const PACK_BYTES_TARGET: usize = 16 << 20;
/// Packs being stored at a time: while one waits for the disk, the next is written.
pub const UPLOADS: usize = 3;
/// Stored bytes a pack may have.
pub const PACK_BYTES_MAX: u64 = 256 << 20;
/// Bytes of a pack's footer.
pub const FOOTER_BYTES_MAX: usize = 64 << 20;
/// How much of a pack's end is read at first to find its footer.
pub const FOOTER_READ_BYTES: u64 = 64 << 10;

/// Stored bytes of a manifest, snapshot, record or key slot.
pub const RECORD_BYTES_MAX: u64 = 16 << 20;
/// Stored bytes of an index segment.
pub const SEGMENT_BYTES_MAX: u64 = 512 << 20;
/// Body of an object after which a thread keeps what compressed it.
pub const SMALL_OBJECT_BYTES: usize = 64 << 10;
/// Snapshots, and reports, that are read from the store again rather than remembered by this host.
pub const READ_AGAIN: usize = 16;
/// What this host remembers of snapshots.
pub const RECALL_BYTES_MAX: u64 = 64 << 20;
/// New chunks after which a running backup writes an index segment (a checkpoint).
pub const CHECKPOINT_CHUNKS: usize = 64 << 10;

/// Stored bytes below which a pack counts as small: many of a kind are merged.
pub const SMALL_PACK_BYTES: u64 = PACK_BYTES_TARGET as u64 / 4;
/// Small packs of a kind that are worth merging, so that a byte is moved only a few times.
pub const SMALL_PACKS_MIN: usize = 10;
/// Stored bytes below which an index segment counts as small.
pub const SMALL_SEGMENT_BYTES: u64 = 256 << 10;
/// Small index segments that are worth merging.
pub const SMALL_SEGMENTS_MIN: usize = 16;
/// Bytes at which a merged index segment is closed.
pub const SEGMENT_BYTES_TARGET: usize = 4 << 20;
/// Packs in one condemned record.
pub const CONDEMNED_PACKS_MAX: usize = 50_000;

/// Age of a temporary file that no write under way can have.
pub const LEFTOVER_AGE: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// What a hook behind the backup has if its job has no time-out: one that hangs must not keep the report and all messages back.
pub const HOOK_TIME: std::time::Duration = std::time::Duration::from_secs(3600);

/// Runs in one recipe block; a recipe with more is a stream of blocks.
pub const RECIPE_BLOCK_RUNS: usize = 256;
/// Runs of a stream that may wait for one open frame before it is closed for them.
pub const RECIPE_RUNS_WAITING_MAX: usize = 16 * RECIPE_BLOCK_RUNS;
/// Levels of indirection of a recipe.
pub const RECIPE_DEPTH_MAX: u8 = 6;

/// Path of an entry, in bytes.
pub const PATH_BYTES_MAX: usize = 1 << 20;
/// One name in a path, in bytes.
pub const NAME_BYTES_MAX: usize = 4096;
/// One encoded catalog entry.
pub const ENTRY_BYTES_MAX: usize = 64 << 20;
/// Bytes of catalog between two rows of its table of paths.
pub const CATALOG_STRIDE_BYTES: u64 = 64 << 10;
/// Entries that may wait for one open frame before it is closed for them.
pub const ENTRIES_WAITING_MAX: usize = 4096;

/// Bytes of input worked on at a time.
pub const SLAB_BYTES: usize = 4 << 20;
/// Bytes of a large content whose hash is remembered by itself: 1,024 times a power of two.
pub const LEAF_BYTES: usize = 256 << 10;
/// Leaves of one content that are remembered at most: those of 64 GiB.
pub const LEAVES_MAX: usize = 1 << 18;
/// Shorter contents are hashed as fast as their leaves are found.
pub const LEAVES_CONTENT_BYTES_MIN: u64 = 64 << 20;
/// Runs in a row that take the leaves of the one before.
pub const LEAVES_AGE_MAX: u8 = 7;
/// Contents whose leaves a host remembers.
pub const LEAVES_CONTENTS_MAX: usize = 256;
/// Files laid end to end in one slab.
pub const SLAB_EVENTS_MAX: usize = 8192;
/// Decoded frames the reader keeps, in plain bytes.
pub const FRAME_CACHE_BYTES: usize = 24 << 20;
/// The same while restoring or dumping: of frames, and of bases, of which one delta may need many from all over a file.
pub const FETCH_CACHE_BYTES: usize = 32 << 20;
pub const FETCH_BASES_BYTES: usize = 72 << 20;
/// Frames fetched together by the reader.
pub const FETCH_FRAMES: usize = 12;
/// Plain bytes that are fetched without starting a thread.
pub const FETCH_ALONE_BYTES: usize = 256 << 10;
/// Footers of packs kept decoded, in chunks of their tables.
pub const FOOTER_CACHE_CHUNKS: usize = 512 << 10;
/// Chunks of broken frames that a repair looks for at a time.
pub const SALVAGED_CHUNKS_MAX: usize = 1 << 20;
/// Chunks that this host's index is told of at once when it lacks segments.
pub const INDEX_BATCH_CHUNKS: usize = 512 << 10;
/// Page cache of this host's index.
pub const INDEX_CACHE_BYTES: usize = 24 << 20;
/// Processes on one host that can have an index file of their own.
pub const INDEX_LANES: usize = 16;

/// Memory of a new password slot's Argon2id, in KiB.
pub const ARGON2_MEMORY_KIB: u32 = 256 << 10;
/// Passes of a new password slot's Argon2id.
pub const ARGON2_PASSES: u32 = 3;
/// Lanes of a new password slot's Argon2id.
pub const ARGON2_LANES: u32 = 4;
/// Least memory a slot may ask for, in KiB (OWASP's minimum).
pub const ARGON2_MEMORY_KIB_MIN: u32 = 19 << 10;
/// Most memory a slot may ask for, in KiB: a hostile slot must not take a small machine down.
pub const ARGON2_MEMORY_KIB_MAX: u32 = 1 << 20;
/// Most passes a slot may ask for.
pub const ARGON2_PASSES_MAX: u32 = 16;
/// Most lanes a slot may ask for.
pub const ARGON2_LANES_MAX: u32 = 16;
/// Key slots of a repository.
pub const KEY_SLOTS_MAX: usize = 64;
/// Length of a password or key file.
pub const SECRET_BYTES_MAX: usize = 64 << 10;

/// Tail of a command's standard error that is kept.
pub const STDERR_TAIL_BYTES: usize = 4 << 10;
/// Answer of a program of a drill that is kept.
pub const DRILL_ANSWER_BYTES_MAX: usize = 64 << 10;
/// Tables of a stream whose rows a drill counts.
pub const DRILL_TABLES_MAX: usize = 1000;
/// Answer of a client of a database that is asked what there is.
pub const SESSION_ANSWER_BYTES_MAX: usize = 64 << 20;
/// Tables of a database that are streams of their own, and streams that are read at once.
pub const TABLE_STREAMS_MAX: usize = 500;
pub const STREAMS_AT_ONCE_MAX: usize = 32;
/// Pipe between a command and us.
pub const PIPE_BYTES: usize = 1 << 20;
/// An extended attribute's value.
pub const XATTR_BYTES_MAX: usize = 16 << 20;

/// How far ahead of this machine's clock a snapshot may be and not count as one from the future.
pub const CLOCK_TOLERANCE_SECONDS: i64 = 600;
/// Snapshots that one record names and that are removed together.
pub const FORGET_BATCH: usize = 1024;
/// How much a restore is taken to bring back in a second, where no drill has measured it.
pub const RESTORE_BYTES_A_SECOND: u64 = 100 << 20;

/// A configuration file.
pub const CONFIG_BYTES_MAX: usize = 1 << 20;

/// Tables of a dump that a snapshot names; more are only counted.
pub const DUMP_TABLES_MAX: usize = 1000;
/// Tables that a snapshot names of all its dumps together.
pub const SNAPSHOT_TABLES_MAX: usize = 10_000;
/// Dumps that a snapshot tells of.
pub const SNAPSHOT_DUMPS_MAX: usize = 1000;
/// A table's name, a version or a reason that is noted of a dump.
pub const DUMP_TEXT_BYTES_MAX: usize = 256;
/// Path of a dump in a snapshot's list of them.
pub const DUMP_PATH_BYTES_MAX: usize = 4096;
/// Beginning of a stream or file by which a dump is recognised.
pub const DUMP_HEAD_BYTES: usize = 1024;
/// Beginning of a file of Redis in which its first database must begin, so that the keys of it are known: libraries of functions stand before.
pub const REDIS_HEAD_BYTES: usize = 256 << 10;
/// End of a dump in which its closing line is looked for.
pub const DUMP_TAIL_BYTES: usize = 64 << 10;
/// Parts of one dump (entries, files, collections) that are kept track of; a dump with more is not judged.
pub const DUMP_PARTS_MAX: usize = 1 << 18;
/// Lines of a command's standard error that are told again because they speak of an error.
pub const OVERHEARD_LINES_MAX: usize = 5;
/// What is looked at of such a line.
pub const OVERHEARD_LINE_BYTES: usize = 300;
/// Window of a zstd frame that is decompressed to look at what is in it.
pub const DUMP_WINDOW_LOG_MAX: u32 = 25;

/// Connections that `snap serve` has at a time.
pub const SERVE_CONNECTIONS_MAX: usize = 256;
/// Questions to it that wait for an answer.
pub const SERVE_WAITING_MAX: usize = 64;
/// Answers it makes at a time.
pub const SERVE_WORKERS: usize = 4;
/// Of these, how many may look into snapshots, which may take long.
pub const SERVE_BROWSING_MAX: usize = 2;
/// Head of a request to it.
pub const SERVE_HEAD_BYTES_MAX: usize = 16 << 10;
/// Headers of a request to it.
pub const SERVE_HEADERS_MAX: usize = 64;
/// Jobs, snapshots, runs or files on one page of it.
pub const SERVE_PAGE_ROWS: usize = 100;
/// Length of a token of `snap serve`.
pub const SERVE_TOKEN_BYTES_MIN: usize = 16;
