//! Compression of frames: zstd alone, as a patch of old bytes or by zstd against them (a prefix), or stored as it is.
//!
//! Decompression always goes into a buffer of the exact plain length, which is authenticated, so no input can ask for more.
//! What is written here decides bytes on disk but not ids: a later build may compress better and reads everything older.

pub mod patch;

use std::cell::RefCell;

use zstd_safe::{CCtx, CParameter, DCtx, DParameter, ResetDirective, Strategy};

use crate::format::codec::{Reader, Write};
use crate::format::frame::Codec;
use crate::format::{self, FormatError};
use patch::Finder;

/// How hard to try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    Off,
    Fastest,
    /// As much as keeps compression off the critical path.
    #[default]
    Auto,
    Better,
    Max,
}

impl Level {
    fn zstd(self) -> i32 {
        match self {
            Self::Off | Self::Fastest => 1,
            Self::Auto => 3,
            Self::Better => 9,
            Self::Max => 19,
        }
    }
}

/// The compressor or decompressor failed; the text is zstd's.
#[derive(Debug, thiserror::Error)]
#[error("zstd: {0}")]
pub struct CompressionError(&'static str);

impl CompressionError {
    /// What came out again is not what went in.
    pub fn wrong() -> Self {
        Self("it did not read back as it was written")
    }
}

type Result<T> = std::result::Result<T, CompressionError>;

fn named(code: usize) -> CompressionError {
    CompressionError(zstd_safe::get_error_name(code))
}

/// What is even compresses by one table of long strings nearly as well as by two, and a fifth faster. Against level 3, in frames of
/// 1 MiB, time and bytes are: pg_dump 0.81 and 1.008, mysqldump 0.83 and 1.003, a Firestore export 0.83 and 1.008, a tar of uploads 0.71
/// and 1.002; but the files of Linux, 0.88 and 1.05.
const EVEN: [CParameter; 4] =
    [CParameter::Strategy(Strategy::ZSTD_fast), CParameter::HashLog(17), CParameter::MinMatch(6), CParameter::TargetLength(0)];

/// Matches of at least 128 bytes, looked for from one position in 512, in a table of 64 KiB.
const LONG: [CParameter; 5] = [
    CParameter::EnableLongDistanceMatching(true),
    CParameter::LdmMinMatch(128),
    CParameter::LdmHashRateLog(9),
    CParameter::LdmHashLog(13),
    CParameter::LdmBucketSizeLog(1),
];

/// Bytes of a frame looked at to tell whether it is worth compressing.
const SAMPLE_BYTES: usize = 16 << 10;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Texture {
    /// A stretch of one long file or stream: much of it is alike, as rows of a dump are.
    Even,
    Mixed,
}

/// A reusable context for plain frames.
pub struct Compressor {
    level: Level,
    context: CCtx<'static>,
    /// For what is even.
    even: CCtx<'static>,
    sampler: CCtx<'static>,
    sample: Vec<u8>,
    finder: Finder,
}

impl Compressor {
    pub fn new(level: Level) -> Result<Self> {
        let mut context = CCtx::create();
        set(&mut context, &[CParameter::CompressionLevel(level.zstd()), CParameter::ContentSizeFlag(false)])?;
        let mut even = CCtx::create();
        set(&mut even, &[CParameter::CompressionLevel(level.zstd()), CParameter::ContentSizeFlag(false)])?;
        set(&mut even, &EVEN)?;
        let mut sampler = CCtx::create();
        set(&mut sampler, &[CParameter::CompressionLevel(1)])?;
        Ok(Self { level, context, even, sampler, sample: Vec::new(), finder: Finder::default() })
    }

    /// Compresses `plain` into `out`, or says that it is better stored.
    pub fn compress(&mut self, texture: Texture, plain: &[u8], out: &mut Vec<u8>) -> Result<Codec> {
        out.clear();
        if self.level == Level::Off || self.looks_random(plain)? {
            return Ok(Codec::Stored);
        }
        out.reserve(zstd_safe::compress_bound(plain.len()));
        let quickly = texture == Texture::Even && self.level == Level::Auto;
        let context = if quickly { &mut self.even } else { &mut self.context };
        context.compress2(out, plain).map_err(named)?;
        Ok(if out.len() + plain.len() / 64 < plain.len() { Codec::Zstd } else { Codec::Stored })
    }

    /// Makes `plain` of `prefix` and what is new: as a patch where little is, else compressed against it.
    ///
    /// As a patch, what changes in a night of pg_dump or mysqldump takes half the bytes and a fifth of the time; that is four frames of
    /// five in the first night of a pg_dump. Beyond about three new bytes in a hundred the compressor makes less of it.
    pub fn compress_delta(&mut self, prefix: &[u8], plain: &[u8], out: &mut Vec<u8>) -> Result<Codec> {
        match self.finder.find(prefix, plain) {
            Some(copies) => self.compress_patch(&copies, plain, out).map(|()| Codec::Patch),
            None => self.compress_against(prefix, plain, out).map(|()| Codec::Zstd),
        }
    }

    /// The length of the list of copies, its length compressed, the list compressed, and the new bytes, if any, compressed.
    fn compress_patch(&mut self, copies: &[patch::Copy], plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let list = patch::encode(copies);
        let packed = self.pack(&list)?;
        out.clear();
        out.put_varint(list.len() as u64);
        out.put_string(&packed);
        let new = patch::new_bytes(copies, plain);
        if !new.is_empty() {
            out.put_bytes(&self.pack(&new)?);
        }
        Ok(())
    }

    fn pack(&mut self, plain: &[u8]) -> Result<Vec<u8>> {
        let mut packed = Vec::with_capacity(zstd_safe::compress_bound(plain.len()));
        self.context.compress2(&mut packed, plain).map_err(named)?;
        Ok(packed)
    }

    /// Compresses `plain` against `prefix`: matches of 128 bytes and more are looked for everywhere (zstd's long distance matcher), which
    /// finds the very place a stretch comes from where rows are alike; shorter ones in a table that holds the last two megabytes of the
    /// prefix.
    ///
    /// Against level 3 with tables as large and nothing long, the bytes of deltas are: the first three nights of pg_dump 0.72, 0.96 and
    /// 0.87, and the tenth 0.83; mysqldump 0.93 and 0.99 (first and tenth), a Firestore export 1.00; the time is the same. Level 9 takes up
    /// to 5 % off that, in four times the time; the optimal parsers beyond it are worse for what lies so far away: level 19 makes a third
    /// more of it with long matches, and ten times as much without, in more than a hundred times the time.
    fn compress_against(&self, prefix: &[u8], plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        out.reserve(zstd_safe::compress_bound(plain.len()));
        let mut context = CCtx::create();
        let window = (prefix.len() + plain.len()).next_power_of_two().ilog2().clamp(12, 24);
        let (level, hash, chain) = match self.level {
            Level::Off | Level::Fastest | Level::Auto => (1, 18, 12),
            Level::Better | Level::Max => (9, 18, 17),
        };
        set(
            &mut context,
            &[
                CParameter::CompressionLevel(level),
                CParameter::ContentSizeFlag(false),
                CParameter::WindowLog(window),
                CParameter::HashLog(window.min(hash)),
                CParameter::ChainLog(window.min(chain)),
                CParameter::MinMatch(7),
            ],
        )?;
        set(&mut context, &LONG)?;
        context.ref_prefix(prefix).map_err(named)?;
        context.compress2(out, plain).map_err(named)?;
        Ok(())
    }

    /// Whether a few places of the frame, compressed quickly, do not shrink.
    fn looks_random(&mut self, plain: &[u8]) -> Result<bool> {
        if plain.len() < 4 * SAMPLE_BYTES {
            return Ok(false);
        }
        for part in 0..3 {
            let start = part * (plain.len() - SAMPLE_BYTES) / 2;
            self.sample.clear();
            self.sample.reserve(zstd_safe::compress_bound(SAMPLE_BYTES));
            self.sampler.compress2(&mut self.sample, &plain[start..start + SAMPLE_BYTES]).map_err(named)?;
            if self.sample.len() < SAMPLE_BYTES - SAMPLE_BYTES / 50 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn set(context: &mut CCtx, parameters: &[CParameter]) -> Result<()> {
    parameters.iter().try_for_each(|parameter| context.set_parameter(*parameter).map(drop).map_err(named))
}

/// A reusable context for reading.
pub struct Decompressor(DCtx<'static>);

impl Default for Decompressor {
    fn default() -> Self {
        Self(DCtx::create())
    }
}

impl Decompressor {
    /// Brings back exactly `plain_len` bytes.
    pub fn decompress(&mut self, codec: Codec, prefix: Option<&[u8]>, stored: &[u8], plain_len: usize) -> Result<Vec<u8>> {
        let mut plain = Vec::new();
        self.decompress_into(codec, prefix, stored, plain_len, &mut plain)?;
        Ok(plain)
    }

    /// As `decompress`, in place of what `plain` holds.
    pub fn decompress_into(
        &mut self,
        codec: Codec,
        prefix: Option<&[u8]>,
        stored: &[u8],
        plain_len: usize,
        plain: &mut Vec<u8>,
    ) -> Result<()> {
        plain.clear();
        if codec == Codec::Stored {
            plain.extend_from_slice(stored);
            return match stored.len() == plain_len {
                true => Ok(()),
                false => Err(CompressionError("stored bytes of another length")),
            };
        }
        // zstd writes within the capacity.
        plain.reserve_exact(plain_len);
        match (codec, prefix) {
            (Codec::Patch, Some(prefix)) => self.apply_patch(prefix, stored, plain_len, plain)?,
            (Codec::Patch, None) => return Err(CompressionError("a patch without its base")),
            (_, None) => self.unpack(stored, plain)?,
            (_, Some(prefix)) => {
                let mut context = DCtx::create();
                context.set_parameter(DParameter::WindowLogMax(27)).map_err(named)?;
                context.ref_prefix(prefix).map_err(named)?;
                context.decompress(plain, stored).map_err(named)?;
            }
        }
        match plain.len() == plain_len {
            true => Ok(()),
            false => Err(CompressionError("other length than said")),
        }
    }

    /// Decompresses within the capacity of `plain`.
    fn unpack(&mut self, packed: &[u8], plain: &mut Vec<u8>) -> Result<()> {
        // A corrupt frame must not leave state for the next one.
        self.0.reset(ResetDirective::SessionOnly).map_err(named)?;
        self.0.decompress(plain, packed).map_err(named).map(drop)
    }

    fn apply_patch(&mut self, base: &[u8], stored: &[u8], plain_len: usize, plain: &mut Vec<u8>) -> Result<()> {
        let (list_len, packed, packed_new) = parse_patch(stored, plain_len).map_err(malformed)?;
        let mut list = Vec::with_capacity(list_len);
        self.unpack(packed, &mut list)?;
        if list.len() != list_len {
            return Err(CompressionError("a list of copies of another length than said"));
        }
        let copies = patch::decode(&list, base.len(), plain_len).map_err(malformed)?;
        let new_len = plain_len - copies.iter().map(|copy| copy.len).sum::<usize>();
        let mut new = Vec::with_capacity(new_len);
        if new_len > 0 || !packed_new.is_empty() {
            self.unpack(packed_new, &mut new)?;
        }
        patch::apply(&copies, base, &new, plain_len, plain).map_err(malformed)
    }
}

/// The length of a patch's list of copies, the list and the new bytes, both compressed.
fn parse_patch(stored: &[u8], plain_len: usize) -> format::Result<(usize, &[u8], &[u8])> {
    let mut reader = Reader::new(stored);
    let list_len = reader.length(plain_len, "length of the list of copies")?;
    let packed = reader.string(stored.len(), "list of copies")?;
    Ok((list_len, packed, reader.rest()))
}

fn malformed(error: FormatError) -> CompressionError {
    CompressionError(match error {
        FormatError::Malformed { what, .. } => what,
        _ => "a patch",
    })
}

/// Brings back exactly `plain_len` bytes, with the decompressor of this thread: to make one takes as long as to read a small object.
pub fn decompress(codec: Codec, prefix: Option<&[u8]>, stored: &[u8], plain_len: usize) -> Result<Vec<u8>> {
    thread_local! {
        static OWN: RefCell<Decompressor> = RefCell::default();
    }
    OWN.with_borrow_mut(|own| own.decompress(codec, prefix, stored, plain_len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_round_trips_and_random_bytes_are_stored() {
        let text: Vec<u8> = (0..40_000u32).flat_map(|i| format!("line {}\n", i / 3).into_bytes()).collect();
        let mut random = vec![0; 300_000];
        blake3::Hasher::new().finalize_xof().fill(&mut random);
        for level in [Level::Off, Level::Fastest, Level::Auto, Level::Better, Level::Max] {
            let mut compressor = Compressor::new(level).unwrap();
            let mut out = Vec::new();
            for (plain, expected) in [(&text, Codec::Zstd), (&random, Codec::Stored), (&vec![7], Codec::Stored)] {
                for texture in [Texture::Even, Texture::Mixed] {
                    let codec = compressor.compress(texture, plain, &mut out).unwrap();
                    assert!(codec == expected || level == Level::Off);
                    let stored = if codec == Codec::Zstd { &out } else { plain };
                    assert_eq!(Decompressor::default().decompress(codec, None, stored, plain.len()).unwrap(), *plain);
                }
            }
        }
    }

    #[test]
    fn a_delta_is_small_and_needs_its_prefix() {
        let mut old = vec![0; 1 << 20];
        blake3::Hasher::new().finalize_xof().fill(&mut old);
        let mut new = old.clone();
        for at in (0..new.len()).step_by(9000) {
            new[at] ^= 1;
        }
        let mut out = Vec::new();
        for level in [Level::Max, Level::Auto] {
            let mut compressor = Compressor::new(level).unwrap();
            for codec in [Codec::Zstd, Codec::Patch] {
                match codec {
                    Codec::Patch => assert_eq!(compressor.compress_delta(&old, &new, &mut out).unwrap(), codec),
                    _ => compressor.compress_against(&old, &new, &mut out).unwrap(),
                }
                assert!(out.len() < if codec == Codec::Patch { 700 } else { 5000 }, "{}", out.len());
                let back = |prefix, len| Decompressor::default().decompress(codec, prefix, &out, len);
                assert_eq!(back(Some(&old[..]), new.len()).unwrap(), new);
                assert!(back(None, new.len()).is_err());
                assert!(back(Some(&old), new.len() - 1).is_err());
                assert!(back(Some(&old), new.len() + 1).is_err());
                assert!(back(Some(&old[..old.len() / 2]), new.len()).is_err());
            }
        }
    }

    #[test]
    fn a_patch_that_is_not_what_was_written_never_brings_more_or_less_than_is_asked_for() {
        let old: Vec<u8> = (0..3000u32).flat_map(|i| format!("{i}\t{}\n", i * i % 7919).into_bytes()).collect();
        let mut new = old.clone();
        for at in (500..new.len()).step_by(4000) {
            new.splice(at..at + 3, *b"new bytes");
        }
        let mut good = Vec::new();
        assert_eq!(Compressor::new(Level::Auto).unwrap().compress_delta(&old, &new, &mut good).unwrap(), Codec::Patch);
        let mut decompressor = Decompressor::default();
        let mut back = |bytes: &[u8]| decompressor.decompress(Codec::Patch, Some(&old), bytes, new.len());
        assert_eq!(back(&good).unwrap(), new);
        for len in 0..good.len() {
            assert!(back(&good[..len]).is_err(), "{len} bytes");
        }
        assert!(back(&[&good[..], &[0]].concat()).is_err());
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert!(back(&bad).is_ok_and(|plain| plain.len() == new.len()) || back(&bad).is_err());
            }
        }
        assert_eq!(back(&good).unwrap(), new, "what was wrong leaves nothing behind");
    }

    /// What is written may change, what it means may not: see FORMAT.md.
    #[test]
    fn a_patch_is_what_the_format_says() {
        let stored = |list: &[u8], new: &[u8]| {
            let packed = zstd_safe::WriteBuf::as_slice(&pack(list)).to_vec();
            let mut bytes = vec![list.len() as u8, packed.len() as u8];
            bytes.extend(packed);
            bytes.extend(if new.is_empty() { Vec::new() } else { pack(new) });
            bytes
        };
        fn pack(plain: &[u8]) -> Vec<u8> {
            let mut packed = Vec::with_capacity(100);
            CCtx::create().compress2(&mut packed, plain).unwrap();
            packed
        }
        let base = b"The quick brown fox jumps over the lazy dog.";
        // Two copies; new bytes before them: 0 and 3; places: 4 and, instead of 9 + 3, 16, or 8 further as a zigzag number; lengths 5 and 9.
        let list = [2, 0, 3, 8, 8, 5, 9];
        let back = |bytes: &[u8], len| Decompressor::default().decompress(Codec::Patch, Some(base), bytes, len);
        assert_eq!(back(&stored(&list, b"est!?"), 19).unwrap(), b"quickestfox jumps!?");
        assert_eq!(back(&stored(&[1, 0, 0, 44], b""), 44).unwrap(), base);
        assert_eq!(back(&stored(&[0], b"all new"), 7).unwrap(), b"all new");
        assert!(back(&stored(&[1, 0, 0, 44], b"x"), 44).is_err(), "more than is asked for");
    }

    #[test]
    fn deltas_of_all_sizes_come_back_at_every_level() {
        let line = |i: usize| format!("{i}\t{}\t{:84}\n", i * 7919 % 1000, i % 3).into_bytes();
        let old: Vec<u8> = (0..30_000).flat_map(line).collect();
        let new: Vec<u8> = (0..30_000).flat_map(|i| if i % 50 == 0 { line(i + 1_000_000) } else { line(i) }).collect();
        for level in [Level::Fastest, Level::Auto, Level::Better, Level::Max] {
            let mut compressor = Compressor::new(level).unwrap();
            let mut out = Vec::new();
            for (prefix, plain) in [(1, 1), (10, 5000), (5000, 10), (4000, 4000), (130_000, 90_000), (1 << 20, 1 << 20), (3 << 19, 1 << 20)]
            {
                let (prefix, plain) = (&old[..prefix], &new[..plain]);
                for against in [false, true] {
                    let codec = match against {
                        true => compressor.compress_against(prefix, plain, &mut out).map(|()| Codec::Zstd),
                        false => compressor.compress_delta(prefix, plain, &mut out),
                    };
                    let codec = codec.unwrap();
                    let back = Decompressor::default().decompress(codec, Some(prefix), &out, plain.len());
                    assert_eq!(back.unwrap(), plain, "{level:?}, {codec:?}, {} against {}", plain.len(), prefix.len());
                    // What differs is 200 numbers in a MiB.
                    assert!(plain.len() < 1 << 20 || prefix.len() < 1 << 20 || out.len() < 6000, "{level:?}: {}", out.len());
                }
            }
        }
    }
}
