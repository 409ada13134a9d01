//! The tables of the index and their rows: fixed-width byte arrays, big-endian where order matters.
//!
//! `frames` is keyed by frame id and pack number, because a frame may lie in several packs. Frames have short numbers so that a row of
//! `chunks`, of which there are tens of millions, is 22 bytes.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageError, TableDefinition, WriteTransaction,
};

use super::{ChunkLocation, FrameLocation, IndexError, IndexedPack, Result, Scope};
use crate::format::codec::{Reader, Write};
use crate::format::envelope::Kind;
use crate::format::frame::{Codec, FrameRecord, SealInfo};
use crate::format::segment::{PackRecord, Segment};
use crate::id::{ChunkId, FrameId, ObjectName, RepositoryId};
use crate::limits::*;

/// Changes with every change of the tables.
const LAYOUT: &[u8] = b"snap index 2";

/// Numbers of frames that are gone which are not worth making the index anew.
const DEAD_FRAMES_MAX: u64 = 64 << 10;

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// Segment name -> scope.
const SEGMENTS: TableDefinition<[u8; 32], u8> = TableDefinition::new("segments");
/// Pack number -> name, size, kind, scope.
const PACKS: TableDefinition<u32, [u8; 42]> = TableDefinition::new("packs");
const PACK_NUMBERS: TableDefinition<[u8; 32], u32> = TableDefinition::new("pack numbers");
/// Frame id, pack number -> offset, stored length, plain length, codec, flags, frame number.
const FRAMES: TableDefinition<[u8; 36], [u8; 18]> = TableDefinition::new("frames");
const FRAME_IDS: TableDefinition<u32, [u8; 32]> = TableDefinition::new("frame ids");
/// Chunk id -> frame number, ordinal.
const CHUNKS: TableDefinition<[u8; 16], [u8; 6]> = TableDefinition::new("chunks");

/// What came of opening a file.
pub enum Opened {
    Ready(Tables),
    /// Another process holds it.
    Busy,
    /// Damaged, foreign or of another layout.
    Unusable,
}

pub struct Tables {
    /// There until it is dropped.
    database: Option<Database>,
    file: Option<PathBuf>,
}

impl Tables {
    pub fn open(file: &Path, repository: RepositoryId) -> Opened {
        let opened = catch_unwind(|| Database::builder().set_cache_size(INDEX_CACHE_BYTES).create(file));
        let database = match opened {
            Ok(Ok(database)) => database,
            Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => return Opened::Busy,
            Ok(Err(DatabaseError::Storage(StorageError::Io(error)))) if error.kind() != std::io::ErrorKind::InvalidData => {
                return Opened::Busy;
            }
            _ => return Opened::Unusable,
        };
        let tables = Self { database: Some(database), file: Some(file.into()) };
        match tables.belongs_to(repository) {
            Ok(true) => Opened::Ready(tables),
            _ => Opened::Unusable,
        }
    }

    pub fn in_memory() -> Self {
        let backend = redb::backends::InMemoryBackend::new();
        let database = Database::builder().set_cache_size(1 << 20).create_with_backend(backend);
        let tables = Self { database: Some(database.expect("an empty database in memory")), file: None };
        tables.belongs_to(RepositoryId([0; 16])).expect("a table in memory");
        tables
    }

    fn database(&self) -> &Database {
        self.database.as_ref().expect("only dropping takes it")
    }

    pub fn remove_file(&self) {
        if let Some(file) = &self.file {
            // Where it cannot be removed, it is started over when its contents are found wanting again.
            let _ = std::fs::remove_file(file);
        }
    }

    /// Marks an empty database as this repository's; says whether another mark was there.
    fn belongs_to(&self, repository: RepositoryId) -> Result<bool> {
        guard(|| {
            let transaction = self.database().begin_write()?;
            let mark = [LAYOUT, &repository.0].concat();
            let fits = {
                let mut meta = transaction.open_table(META)?;
                let found = meta.get("repository")?.map(|value| value.value().to_vec());
                if found.is_none() {
                    meta.insert("repository", &mark[..])?;
                    create_tables(&transaction)?;
                }
                found.is_none_or(|found| found == mark)
            };
            transaction.commit()?;
            Ok(fits)
        })
    }

    pub fn merged(&self) -> Result<Vec<(ObjectName, Scope)>> {
        guard(|| {
            let transaction = self.database().begin_read()?;
            let mut merged = Vec::new();
            for row in transaction.open_table(SEGMENTS)?.iter()? {
                let (name, scope) = row?;
                let scope = if scope.value() >= Scope::Chunks as u8 { Scope::Chunks } else { Scope::Frames };
                merged.push((ObjectName(name.value()), scope));
            }
            Ok(merged)
        })
    }

    pub fn merge(&self, segments: &[(ObjectName, Segment)], scope: Scope) -> Result<()> {
        guard(|| {
            let transaction = self.database().begin_write()?;
            let mut chunks = Vec::new();
            {
                let mut names = transaction.open_table(SEGMENTS)?;
                for (name, segment) in segments {
                    let done = names.get(name.0)?.map_or(0, |value| value.value());
                    for pack in &segment.packs {
                        merge_pack(&transaction, pack, scope, &mut chunks)?;
                    }
                    names.insert(name.0, done.max(scope as u8))?;
                }
            }
            insert_chunks(&transaction, chunks)?;
            transaction.commit()?;
            Ok(())
        })
    }

    pub fn merge_unnamed(&self, pack: &PackRecord) -> Result<()> {
        guard(|| {
            let transaction = self.database().begin_write()?;
            let mut chunks = Vec::new();
            merge_pack(&transaction, pack, Scope::Chunks, &mut chunks)?;
            insert_chunks(&transaction, chunks)?;
            transaction.commit()?;
            Ok(())
        })
    }

    /// Forgets segments and packs that are no longer in the store. What is left of their chunks does no harm; when that is most of the
    /// table, it is an error, so that the index is made anew.
    pub fn remove(&self, segments: &[ObjectName], packs: &HashSet<ObjectName>) -> Result<()> {
        guard(|| {
            let transaction = self.database().begin_write()?;
            let left = {
                let mut names = transaction.open_table(SEGMENTS)?;
                for segment in segments {
                    names.remove(segment.0)?;
                }
                let mut rows = transaction.open_table(PACKS)?;
                let mut numbers = transaction.open_table(PACK_NUMBERS)?;
                let mut removed = HashSet::new();
                for pack in packs {
                    let number = numbers.remove(pack.0)?.map(|value| value.value());
                    if let Some(number) = number {
                        rows.remove(number)?;
                        removed.insert(number);
                    }
                }
                let mut frames = transaction.open_table(FRAMES)?;
                if !removed.is_empty() {
                    frames.retain(|key, _| !removed.contains(&pack_of(&key)))?;
                }
                (frames.len()?, transaction.open_table(FRAME_IDS)?.len()?)
            };
            transaction.commit()?;
            Ok(left)
        })
        .and_then(|(frames, numbers)| match numbers > 2 * frames + DEAD_FRAMES_MAX {
            true => Err(IndexError("most of it is gone from the store".into())),
            false => Ok(()),
        })
    }

    pub fn frame(&self, id: &FrameId) -> Result<Vec<FrameLocation>> {
        guard(|| {
            let transaction = self.database().begin_read()?;
            let frames = transaction.open_table(FRAMES)?;
            let mut found = Vec::new();
            for row in frames.range(frame_key(id, 0)..=frame_key(id, u32::MAX))? {
                let (key, value) = row?;
                found.extend(decode_location(id, pack_of(&key.value()), &value.value()));
            }
            Ok(found)
        })
    }

    pub fn chunk(&self, id: &ChunkId) -> Result<Option<ChunkLocation>> {
        guard(|| {
            let transaction = self.database().begin_read()?;
            let Some(place) = transaction.open_table(CHUNKS)?.get(id.0)?.map(|value| value.value()) else {
                return Ok(None);
            };
            let mut reader = Reader::new(&place);
            let number = reader.u32("frame number").unwrap_or(u32::MAX);
            let ordinal = reader.u16("ordinal").unwrap_or(0).into();
            let frame = transaction.open_table(FRAME_IDS)?.get(number)?.map(|value| FrameId(value.value()));
            Ok(frame.map(|frame| ChunkLocation { frame, ordinal }))
        })
    }

    pub fn pack(&self, number: u32) -> Result<Option<IndexedPack>> {
        guard(|| {
            let transaction = self.database().begin_read()?;
            let row = transaction.open_table(PACKS)?.get(number)?.map(|value| value.value());
            Ok(row.and_then(|row| decode_pack(number, &row)))
        })
    }

    pub fn packs(&self) -> Result<Vec<IndexedPack>> {
        guard(|| {
            let transaction = self.database().begin_read()?;
            let mut packs = Vec::new();
            for row in transaction.open_table(PACKS)?.iter()? {
                let (number, row) = row?;
                packs.extend(decode_pack(number.value(), &row.value()));
            }
            Ok(packs)
        })
    }
}

impl Drop for Tables {
    /// Closing a database writes to it, at which a damaged one panics too.
    fn drop(&mut self) {
        let database = self.database.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(database)));
    }
}

fn create_tables(transaction: &WriteTransaction) -> std::result::Result<(), redb::Error> {
    transaction.open_table(SEGMENTS)?;
    transaction.open_table(PACKS)?;
    transaction.open_table(PACK_NUMBERS)?;
    transaction.open_table(FRAMES)?;
    transaction.open_table(FRAME_IDS)?;
    transaction.open_table(CHUNKS)?;
    Ok(())
}

type ChunkRow = ([u8; 16], [u8; 6]);

fn merge_pack(
    transaction: &WriteTransaction,
    pack: &PackRecord,
    scope: Scope,
    chunks: &mut Vec<ChunkRow>,
) -> std::result::Result<(), redb::Error> {
    let mut packs = transaction.open_table(PACKS)?;
    let mut numbers = transaction.open_table(PACK_NUMBERS)?;
    let known = numbers.get(pack.name.0)?.map(|value| value.value());
    let number = match known {
        Some(number) => number,
        None => {
            let number = packs.last()?.map_or(0, |(last, _)| last.value() + 1);
            numbers.insert(pack.name.0, number)?;
            number
        }
    };
    // Every segment that lists a pack says the same of it.
    let done = packs.get(number)?.map_or(0, |row| row.value()[41]);
    if done >= scope as u8 {
        return Ok(());
    }
    packs.insert(number, encode_pack(pack, scope))?;
    let mut frames = transaction.open_table(FRAMES)?;
    let mut ids = transaction.open_table(FRAME_IDS)?;
    for frame in &pack.frames {
        let known = {
            let mut rows = frames.range(frame_key(&frame.id, 0)..=frame_key(&frame.id, u32::MAX))?;
            rows.next().transpose()?.and_then(|(_, row)| row.value()[14..].try_into().ok().map(u32::from_le_bytes))
        };
        let frame_number = match known {
            Some(number) => number,
            None => {
                let next = ids.last()?.map_or(0, |(last, _)| last.value() + 1);
                ids.insert(next, frame.id.0)?;
                next
            }
        };
        frames.insert(frame_key(&frame.id, number), encode_location(frame, frame_number))?;
        if scope >= Scope::Chunks {
            for (ordinal, id) in frame.table.ids().iter().enumerate().filter(|(ordinal, _)| frame.has(*ordinal)) {
                let mut place = [0; 6];
                place[..4].copy_from_slice(&frame_number.to_le_bytes());
                place[4..].copy_from_slice(&(ordinal as u16).to_le_bytes());
                chunks.push((id.0, place));
            }
        }
    }
    Ok(())
}

/// Inserts rows in order of their key, so that the tree is filled and not scattered.
fn insert_chunks(transaction: &WriteTransaction, mut chunks: Vec<ChunkRow>) -> std::result::Result<(), redb::Error> {
    chunks.sort_unstable_by_key(|(id, _)| *id);
    let mut table = transaction.open_table(CHUNKS)?;
    for (id, place) in chunks {
        table.insert(id, place)?;
    }
    Ok(())
}

fn pack_of(key: &[u8; 36]) -> u32 {
    u32::from_be_bytes(key[32..].try_into().expect("four bytes"))
}

fn frame_key(id: &FrameId, pack: u32) -> [u8; 36] {
    let mut key = [0; 36];
    key[..32].copy_from_slice(&id.0);
    key[32..].copy_from_slice(&pack.to_be_bytes());
    key
}

fn encode_location(frame: &FrameRecord, number: u32) -> [u8; 18] {
    let info = frame.seal_info();
    let mut row = Vec::with_capacity(18);
    row.put_u32(frame.offset as u32);
    row.put_u32(frame.stored_len);
    row.put_u32(info.plain_len);
    row.put_u8(info.codec as u8);
    row.put_u8(info.flags);
    row.put_u32(number);
    row.try_into().expect("18 bytes")
}

fn decode_location(id: &FrameId, pack: u32, row: &[u8]) -> Option<FrameLocation> {
    let mut reader = Reader::new(row);
    let offset = reader.u32("offset").ok()?.into();
    let stored_len = reader.u32("stored length").ok()?;
    let plain_len = reader.u32("plain length").ok()?;
    let codec = Codec::from_byte(reader.u8("codec").ok()?).ok()?;
    let flags = reader.u8("flags").ok()?;
    Some(FrameLocation { pack, offset, stored_len, info: SealInfo { id: *id, codec, flags, plain_len } })
}

fn encode_pack(pack: &PackRecord, scope: Scope) -> [u8; 42] {
    let mut row = Vec::with_capacity(42);
    row.put_bytes(&pack.name.0);
    row.put_u64(pack.size);
    row.put_u8(pack.kind as u8);
    row.put_u8(scope as u8);
    row.try_into().expect("42 bytes")
}

fn decode_pack(number: u32, row: &[u8]) -> Option<IndexedPack> {
    let mut reader = Reader::new(row);
    let name = ObjectName(reader.array("name").ok()?);
    let size = reader.u64("size").ok()?;
    let kind = Kind::from_byte(reader.u8("kind").ok()?).ok()?;
    Some(IndexedPack { number, name, kind, size })
}

/// Runs a database call; an error or a panic (a damaged file can cause both) becomes an [`IndexError`].
fn guard<T>(call: impl FnOnce() -> std::result::Result<T, redb::Error>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(IndexError(error.to_string())),
        Err(_) => Err(IndexError("the database is damaged".into())),
    }
}
