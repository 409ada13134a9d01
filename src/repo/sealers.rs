//! Frames are compressed, read back and sealed, each by whichever thread is free.
//!
//! Before a sealed frame leaves memory it is opened, decompressed and compared with what went in: bad memory and compressor bugs have
//! ruined other programs' repositories.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::gather::FrameJob;
use super::packer::Packer;
use super::reader::{Bases, Reader};
use crate::compression::{Compressor, Decompressor, Level};
use crate::error::{Error, Result};
use crate::format::frame::{Base, Codec, FrameRecord};

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
    compressed: Vec<u8>,
    delta: Vec<u8>,
}

/// How a frame is best stored.
struct Choice {
    codec: Codec,
    base: Option<(Base, Vec<u8>)>,
}

impl FrameSealer {
    pub fn new(packer: Arc<Packer>, reader: Arc<Reader>, level: Level, totals: Arc<SealerTotals>) -> Result<Self> {
        let compressor = Compressor::new(level).map_err(|error| Error::ReadBack(error.to_string()))?;
        Ok(Self { packer, reader, compressor, decompressor: Decompressor::default(), totals, compressed: Vec::new(), delta: Vec::new() })
    }

    /// Compresses, verifies and seals one frame, and hands it to its pack.
    pub fn work(&mut self, job: FrameJob) -> Result<()> {
        let FrameJob { kind, id, table, present, plain, base } = job;
        let broken = |_| Error::ReadBack(format!("frame {id}"));
        let Choice { codec, base } = self.choose(&plain, base).map_err(broken)?;
        let (base, prefix) = base.unzip();
        let mut record = FrameRecord { id, offset: 0, stored_len: 0, codec, table, present, base };
        let stored = match (codec, &prefix) {
            (Codec::Stored, _) => &plain,
            (Codec::Zstd, None) => &self.compressed,
            (Codec::Zstd, Some(_)) => &self.delta,
        };
        let associated_data = record.seal_info().associated_data(&self.reader.locator().repository(), kind);
        let sealer = self.packer.sealer(kind);
        let sealed = sealer.seal(&associated_data, stored);
        record.stored_len = sealed.len() as u32;

        let opened = sealer.open(&associated_data, &sealed).ok_or_else(|| Error::ReadBack(format!("frame {id}")))?;
        let same = match codec {
            Codec::Stored => opened == plain,
            Codec::Zstd => self.decompressor.decompress(codec, prefix.as_deref(), &opened, plain.len()).map_err(broken)? == plain,
        };
        if !same {
            return Err(Error::ReadBack(format!("frame {id}")));
        }
        if record.is_delta() {
            self.totals.delta_frames.fetch_add(1, Ordering::Relaxed);
            self.totals.delta_plain_bytes.fetch_add(plain.len() as u64, Ordering::Relaxed);
            self.totals.delta_stored_bytes.fetch_add(sealed.len() as u64, Ordering::Relaxed);
        }
        self.packer.add(kind, record, sealed)
    }

    /// Against the old chunks where that is clearly smaller, else alone, else as it is.
    fn choose(&mut self, plain: &[u8], base: Base) -> std::result::Result<Choice, crate::compression::CompressionError> {
        // A base that cannot be read costs only its savings.
        let prefix = if base.0.is_empty() { None } else { self.reader.prefix(&base, Bases::Good).ok() };
        if let Some(prefix) = prefix {
            self.compressor.compress_delta(&prefix, plain, &mut self.delta)?;
            let small = self.delta.len() * 3 < plain.len();
            if small {
                return Ok(Choice { codec: Codec::Zstd, base: Some((base, prefix)) });
            }
            let codec = self.compressor.compress(plain, &mut self.compressed)?;
            let alone = if codec == Codec::Zstd { self.compressed.len() } else { plain.len() };
            return Ok(match self.delta.len() * 10 < alone * 9 {
                true => Choice { codec: Codec::Zstd, base: Some((base, prefix)) },
                false => Choice { codec, base: None },
            });
        }
        let codec = self.compressor.compress(plain, &mut self.compressed)?;
        Ok(Choice { codec, base: None })
    }
}
