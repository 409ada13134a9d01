//! The tables of the index and their rows: fixed-width byte arrays, big-endian where order matters.
//!
//! `frames` is keyed by frame id and pack number, because a frame may lie in several packs. Frames have short numbers, by which the
//! rows of chunks name them. Those, of which there are tens of millions, are not in tables but in runs (see `shelf`); here stands
//! which runs there are.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition, TableError, WriteTransaction};

use super::home::Home;
use super::run::{Row, Shape, Tag};
use super::shelf::{Change, Shelf};
use super::{ChunkLocation, FrameLocation, IndexError, IndexedPack, Result, Scope};
use crate::format::codec::{Reader, Write};
use crate::format::envelope::Kind;
use crate::format::frame::{Codec, FrameRecord, SealInfo};
use crate::format::segment::{PackRecord, Segment};
use crate::id::{ChunkId, FrameId, ObjectName, RepositoryId};
use crate::limits::*;

/// Changes with every change of the tables or runs.
const LAYOUT: &[u8] = b"snap index 3";

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// Segment name -> scope.
const SEGMENTS: TableDefinition<[u8; 32], u8> = TableDefinition::new("segments");
/// Pack number -> name, size, kind, scope.
const PACKS: TableDefinition<u32, [u8; 42]> = TableDefinition::new("packs");
const PACK_NUMBERS: TableDefinition<[u8; 32], u32> = TableDefinition::new("pack numbers");
/// Frame id, pack number -> offset, stored length, plain length, codec, flags, frame number.
const FRAMES: TableDefinition<[u8; 36], [u8; 18]> = TableDefinition::new("frames");
const FRAME_IDS: TableDefinition<u32, [u8; 32]> = TableDefinition::new("frame ids");
/// Tag -> shape.
const RUNS: TableDefinition<Tag, [u8; Shape::BYTES]> = TableDefinition::new("runs");

type Redb<T> = std::result::Result<T, redb::Error>;

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
    shelf: Shelf,
}

impl Tables {
    /// Opens or makes a database that has a name.
    pub fn open(home: Home, repository: RepositoryId) -> Opened {
        let Some(file) = home.database() else { return Opened::Unusable };
        let opened = catch_unwind(|| Database::builder().set_cache_size(INDEX_CACHE_BYTES).create(file));
        let database = match opened {
            Ok(Ok(database)) => database,
            Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => return Opened::Busy,
            Ok(Err(DatabaseError::Storage(StorageError::Io(error)))) if error.kind() != std::io::ErrorKind::InvalidData => {
                return Opened::Busy;
            }
            _ => return Opened::Unusable,
        };
        let mut tables = Self { database: Some(database), shelf: Shelf::empty(home.clone()) };
        let shapes = match tables.belongs_to(repository).and_then(|fits| if fits { tables.shapes() } else { Ok(None) }) {
            Ok(Some(shapes)) => shapes,
            _ => return Opened::Unusable,
        };
        match Shelf::open(home, shapes) {
            Ok(shelf) => {
                tables.shelf = shelf;
                Opened::Ready(tables)
            }
            Err(_) => Opened::Unusable,
        }
    }

    /// An empty database in a file of that folder that is gone with the process.
    pub fn passing(folder: &std::path::Path, repository: RepositoryId) -> Option<Self> {
        let home = Home::Unnamed(folder.into());
        let file = home.unnamed().ok()?;
        let database = catch_unwind(|| Database::builder().set_cache_size(INDEX_CACHE_BYTES).create_file(file)).ok()?.ok()?;
        let tables = Self { database: Some(database), shelf: Shelf::empty(home) };
        tables.belongs_to(repository).is_ok().then_some(tables)
    }

    fn database(&self) -> &Database {
        self.database.as_ref().expect("only dropping takes it")
    }

    /// Keeps others, and later processes, from using it.
    pub fn discard(&self) {
        self.shelf.home().discard();
    }

    /// Marks an empty database as this repository's; says whether it is.
    fn belongs_to(&self, repository: RepositoryId) -> Result<bool> {
        guard(|| {
            let mark = [LAYOUT, &repository.0].concat();
            // A commit waits for the disk, so there is none where nothing has to be written.
            match self.database().begin_read()?.open_table(META) {
                Err(TableError::TableDoesNotExist(_)) => {}
                meta => return Ok(meta?.get("repository")?.is_some_and(|found| found.value() == mark)),
            }
            let transaction = self.database().begin_write()?;
            transaction.open_table(META)?.insert("repository", &mark[..])?;
            create_tables(&transaction)?;
            transaction.commit()?;
            Ok(true)
        })
    }

    /// The runs that there should be; nothing if one cannot be right.
    fn shapes(&self) -> Result<Option<Vec<Shape>>> {
        guard(|| {
            let transaction = self.database().begin_read()?;
            let mut shapes = Vec::new();
            for row in transaction.open_table(RUNS)?.iter()? {
                let (tag, shape) = row?;
                shapes.push(Shape::decode(tag.value(), &shape.value()));
            }
            Ok(shapes.into_iter().collect())
        })
    }

    pub fn verify(&self) -> Result<()> {
        self.shelf.verify().map_err(|error| IndexError(error.to_string()))
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

    pub fn merge(&mut self, segments: &[(ObjectName, Segment)], scope: Scope) -> Result<()> {
        self.write(|transaction, shelf| {
            let mut rows = Vec::new();
            let mut names = transaction.open_table(SEGMENTS)?;
            for (name, segment) in segments {
                let done = names.get(name.0)?.map_or(0, |value| value.value());
                for pack in &segment.packs {
                    merge_pack(transaction, pack, scope, &mut rows)?;
                }
                names.insert(name.0, done.max(scope as u8))?;
            }
            shelf.add(rows).map_err(redb::Error::Io)
        })
    }

    pub fn merge_packs(&mut self, packs: &[PackRecord]) -> Result<()> {
        self.write(|transaction, shelf| {
            let mut rows = Vec::new();
            packs.iter().try_for_each(|pack| merge_pack(transaction, pack, Scope::Chunks, &mut rows))?;
            shelf.add(rows).map_err(redb::Error::Io)
        })
    }

    pub fn remove(&mut self, segments: &[ObjectName], packs: &HashSet<ObjectName>) -> Result<()> {
        self.write(|transaction, shelf| {
            let mut names = transaction.open_table(SEGMENTS)?;
            for segment in segments {
                names.remove(segment.0)?;
            }
            let dead = remove_packs(transaction, packs)?;
            match dead.is_empty() {
                true => Ok(None),
                false => shelf.retain(&|row| !dead.contains(&row.frame)).map(Some).map_err(redb::Error::Io),
            }
        })
    }

    /// One transaction, of which a change of the runs is part: a new run is durable before it, an old one goes after it.
    fn write(&mut self, call: impl FnOnce(&WriteTransaction, &Shelf) -> Redb<Option<Change>>) -> Result<()> {
        let change = guard(|| {
            let transaction = self.database().begin_write()?;
            let change = call(&transaction, &self.shelf)?;
            if let Some(change) = &change {
                let mut runs = transaction.open_table(RUNS)?;
                for tag in &change.old {
                    runs.remove(tag)?;
                }
                if let Some(shape) = change.new_shape() {
                    runs.insert(shape.tag, shape.encode())?;
                }
            }
            transaction.commit()?;
            Ok(change)
        })?;
        change.into_iter().for_each(|change| self.shelf.apply(change));
        Ok(())
    }

    pub fn frame(&self, id: &FrameId) -> Result<Vec<FrameLocation>> {
        guard(|| {
            let transaction = self.database().begin_read()?;
            let frames = transaction.open_table(FRAMES)?;
            let mut found = Vec::new();
            for row in frames.range(frame_key(id, 0)..=frame_key(id, u32::MAX))? {
                let (key, value) = row?;
                let pack = pack_number(&key.value());
                found.extend(decode_location(id, pack, &value.value()));
            }
            Ok(found)
        })
    }

    pub fn chunk(&self, id: &ChunkId) -> Result<Vec<ChunkLocation>> {
        guard(|| {
            let rows = self.shelf.find(key_of(id)).map_err(redb::Error::Io)?;
            if rows.is_empty() {
                return Ok(Vec::new());
            }
            let transaction = self.database().begin_read()?;
            let ids = transaction.open_table(FRAME_IDS)?;
            let mut found = Vec::new();
            for row in rows {
                let frame = ids.get(row.frame)?.map(|value| FrameId(value.value()));
                found.extend(frame.map(|frame| ChunkLocation { frame, ordinal: row.ordinal.into() }));
            }
            Ok(found)
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

fn create_tables(transaction: &WriteTransaction) -> Redb<()> {
    transaction.open_table(SEGMENTS)?;
    transaction.open_table(PACKS)?;
    transaction.open_table(PACK_NUMBERS)?;
    transaction.open_table(FRAMES)?;
    transaction.open_table(FRAME_IDS)?;
    transaction.open_table(RUNS)?;
    Ok(())
}

/// Adds a pack, its frames, and to `rows` its chunks. What was merged before is passed over: packs never change.
fn merge_pack(transaction: &WriteTransaction, pack: &PackRecord, scope: Scope, rows: &mut Vec<Row>) -> Redb<()> {
    let mut packs = transaction.open_table(PACKS)?;
    let mut numbers = transaction.open_table(PACK_NUMBERS)?;
    let known = numbers.get(pack.name.0)?.map(|value| value.value());
    let number = match known {
        Some(number) => number,
        None => packs.last()?.map_or(0, |(last, _)| last.value() + 1),
    };
    let done = packs.get(number)?.map_or(0, |row| row.value()[41]);
    if done >= scope as u8 {
        return Ok(());
    }
    numbers.insert(pack.name.0, number)?;
    packs.insert(number, encode_pack(pack, scope))?;
    let mut frames = transaction.open_table(FRAMES)?;
    let mut ids = transaction.open_table(FRAME_IDS)?;
    for frame in &pack.frames {
        let known = {
            let mut rows = frames.range(frame_key(&frame.id, 0)..=frame_key(&frame.id, u32::MAX))?;
            rows.next().transpose()?.map(|(_, row)| frame_number(&row.value()))
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
            let there = frame.table.ids().iter().enumerate().filter(|(ordinal, _)| frame.has(*ordinal));
            rows.extend(there.map(|(ordinal, id)| Row { key: key_of(id), frame: frame_number, ordinal: ordinal as u16 }));
        }
    }
    Ok(())
}

/// Removes packs, and returns the numbers of frames that are nowhere else.
fn remove_packs(transaction: &WriteTransaction, packs_gone: &HashSet<ObjectName>) -> Redb<HashSet<u32>> {
    let mut packs = transaction.open_table(PACKS)?;
    let mut numbers = transaction.open_table(PACK_NUMBERS)?;
    let mut gone_numbers = HashSet::new();
    for name in packs_gone {
        let Some(number) = numbers.remove(name.0)?.map(|value| value.value()) else { continue };
        packs.remove(number)?;
        gone_numbers.insert(number);
    }
    let mut frames = transaction.open_table(FRAMES)?;
    let mut gone = Vec::new();
    if !gone_numbers.is_empty() {
        for row in frames.iter()? {
            let (key, row) = row?;
            if gone_numbers.contains(&pack_number(&key.value())) {
                gone.push((key.value(), frame_number(&row.value())));
            }
        }
    }
    let mut ids = transaction.open_table(FRAME_IDS)?;
    let mut dead = HashSet::new();
    for (key, frame) in gone {
        frames.remove(key)?;
        let id = FrameId(*key.first_chunk().expect("a key is longer"));
        if frames.range(frame_key(&id, 0)..=frame_key(&id, u32::MAX))?.next().is_none() {
            ids.remove(frame)?;
            dead.insert(frame);
        }
    }
    Ok(dead)
}

/// What rows of chunks are in the order of.
pub fn key_of(id: &ChunkId) -> u64 {
    u64::from_be_bytes(*id.0.first_chunk().expect("an id is longer"))
}

fn frame_key(id: &FrameId, pack: u32) -> [u8; 36] {
    let mut key = [0; 36];
    key[..32].copy_from_slice(&id.0);
    key[32..].copy_from_slice(&pack.to_be_bytes());
    key
}

fn pack_number(key: &[u8; 36]) -> u32 {
    u32::from_be_bytes(*key.last_chunk().expect("a key is longer"))
}

fn frame_number(row: &[u8; 18]) -> u32 {
    u32::from_le_bytes(*row.last_chunk().expect("a row is longer"))
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
