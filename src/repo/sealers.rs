//! Frames are compressed, read back and sealed, each by whichever thread is free.
//!
//! Before a sealed frame leaves memory it is opened and decompressed, and its chunks must have the ids that they got when they came in:
//! bad memory and compressor bugs have ruined other programs' repositories.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::gather::{FrameJob, Spare};
use super::packer::Packer;
use super::reader::Reader;
use super::stages::{Stage, between};
use crate::compression::{CompressionError, Compressor, Decompressor, Level};
use crate::crypto::Keys;
use crate::error::{Error, Result};
use crate::format::envelope::Kind;
use crate::format::frame::{ChunkTable, Codec, FrameRecord};
use crate::id::FrameId;

/// What the sealers did.
#[derive(Default)]
pub struct SealerTotals {
    pub delta_frames: AtomicU64,
    pub delta_plain_bytes: AtomicU64,
    pub delta_stored_bytes: AtomicU64,
}

/// Works on frames on one thread.
pub struct FrameSealer {
    packer: Arc<Packer>,
    reader: Arc<Reader>,
    compressor: Compressor,
    decompressor: Decompressor,
    totals: Arc<SealerTotals>,
    spare: Arc<Spare>,
    // Memory that is used again for each frame.
    prefix: Vec<u8>,
    compressed: Vec<u8>,
    delta: Vec<u8>,
    sealed: Vec<u8>,
    opened: Vec<u8>,
}

/// How a frame is best stored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Choice {
    Alone(Codec),
    /// Against what is in `prefix`.
    Delta(Codec),
}

impl FrameSealer {
    pub fn new(packer: Arc<Packer>, reader: Arc<Reader>, level: Level, totals: Arc<SealerTotals>, spare: Arc<Spare>) -> Result<Self> {
        let compressor = Compressor::new(level).map_err(|error| Error::ReadBack(error.to_string()))?;
        let [prefix, compressed, delta, sealed, opened] = Default::default();
        Ok(Self {
            packer,
            reader,
            compressor,
            decompressor: Decompressor::default(),
            totals,
            spare,
            prefix,
            compressed,
            delta,
            sealed,
            opened,
        })
    }

    /// Compresses, verifies and seals one frame, and hands it to its pack.
    pub fn work(&mut self, mut job: FrameJob) -> Result<()> {
        between(Stage::Gathered, &mut job.plain);
        let broken = |_| Error::ReadBack(format!("frame {}", job.id));
        let choice = self.choose(&job).map_err(broken)?;
        let FrameJob { kind, id, table, mut plain, base, .. } = job;
        let broken = |_| Error::ReadBack(format!("frame {id}"));
        let (codec, base, prefix, stored) = match choice {
            Choice::Alone(Codec::Stored) => (Codec::Stored, None, None, &mut plain),
            Choice::Alone(codec) => (codec, None, None, &mut self.compressed),
            Choice::Delta(codec) => (codec, Some(base), Some(&self.prefix[..]), &mut self.delta),
        };
        let mut record = FrameRecord { id, offset: 0, stored_len: 0, codec, table, present: None, base };
        between(Stage::Compressed, stored);
        let associated_data = record.seal_info().associated_data(&self.reader.locator().repository(), kind);
        let sealer = self.packer.sealer(kind);
        let sealed = sealer.seal_into(&associated_data, stored, &mut self.sealed);
        between(Stage::Sealed, sealed);
        record.stored_len = sealed.len() as u32;

        let opened = sealer.open_into(&associated_data, sealed, &mut self.opened);
        let opened = opened.ok_or_else(|| Error::ReadBack(format!("frame {id}")))?;
        between(Stage::Opened, opened);
        let plain_len = plain.len();
        let came_back: &[u8] = match codec {
            Codec::Stored => opened,
            Codec::Zstd | Codec::Patch => {
                self.decompressor.decompress_into(codec, prefix, opened, plain_len, &mut plain).map_err(broken)?;
                &plain
            }
        };
        if !fits(self.reader.locator().keys(), kind, &record.table, came_back) {
            return Err(Error::ReadBack(format!("frame {id}")));
        }
        if record.is_delta() {
            self.totals.delta_frames.fetch_add(1, Ordering::Relaxed);
            self.totals.delta_plain_bytes.fetch_add(plain_len as u64, Ordering::Relaxed);
            self.totals.delta_stored_bytes.fetch_add(sealed.len() as u64, Ordering::Relaxed);
        }
        self.packer.add(kind, record, sealed)?;
        self.spare.give(plain);
        Ok(())
    }

    /// Against the old chunks where that is clearly smaller, else alone, else as it is.
    fn choose(&mut self, job: &FrameJob) -> std::result::Result<Choice, CompressionError> {
        let plain = &job.plain;
        // A base that cannot be read costs only its savings.
        let table = if job.base.0.is_empty() { None } else { self.reader.unverified_prefix(&job.base, &mut self.prefix).ok() };
        let Some(table) = table else { return self.alone(job) };
        between(Stage::Base, &mut self.prefix);
        let codec = self.compressor.compress_delta(&self.prefix, plain, &mut self.delta)?;
        // After, so that nobody reads what was made against something else than the base. What flips from here on is found when the
        // frame is read back.
        if !fits(self.reader.locator().keys(), job.kind, &table, &self.prefix) {
            return self.alone(job);
        }
        let expected = self.reader.ratio(&job.base) * plain.len() as f64;
        if job.drifts && self.delta.len() as f64 > drift_share(&job.id) * expected {
            return self.alone(job);
        }
        if self.delta.len() * 3 < plain.len() {
            return Ok(Choice::Delta(codec));
        }
        let alone = self.alone(job)?;
        let len = if alone == Choice::Alone(Codec::Zstd) { self.compressed.len() } else { plain.len() };
        Ok(if self.delta.len() * 10 < len * 9 { Choice::Delta(codec) } else { alone })
    }

    fn alone(&mut self, job: &FrameJob) -> std::result::Result<Choice, CompressionError> {
        Ok(Choice::Alone(self.compressor.compress(job.texture, &job.plain, &mut self.compressed)?))
    }
}

/// Whether chunks have the ids of a table.
fn fits(keys: &Keys, kind: Kind, table: &ChunkTable, mut plain: &[u8]) -> bool {
    let fits = table.ids().iter().zip(table.lens()).all(|(id, len)| {
        let Some((chunk, rest)) = plain.split_at_checked(*len as usize) else { return false };
        plain = rest;
        keys.chunk_id(kind, chunk) == *id
    });
    fits && plain.is_empty()
}

/// Which share of what a frame would take alone its delta may take, if it is made against something older than the last version.
///
/// Such a delta holds all that changed since its base, and so is larger every night. If it grows by a share d of a plain frame each
/// night, a new base after √(2/d) nights costs least in all, when deltas have grown to √(2d): 0.14 for d = 0.01. Over thirty nights of
/// dumps the sum hardly depends on it from 0.15 to 0.6. It is another for each frame, so that frames that drift alike do not all become
/// new bases in one night.
fn drift_share(id: &FrameId) -> f64 {
    0.25 + 0.25 * f64::from(id.0[0]) / 255.0
}
