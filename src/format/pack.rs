//! Packs: a header, frames' boxes end to end, a sealed footer that says what they are, and a clear trailer that finds the footer.
//!
//! ```text
//! header (envelope, kind 3 or 4) | box of frame 0 | box of frame 1 | ... | box of the footer | footer length u32 | "SNAPPACK"
//! ```
//!
//! The frames' lengths stand only in the sealed footer and in sealed index segments.

use super::Result;
use super::codec::{Reader, Write};
use super::envelope::HEADER_BYTES;
use super::frame::FrameRecord;

const TRAILER_MAGIC: &[u8; 8] = b"SNAPPACK";

/// Length of the clear trailer.
pub const TRAILER_BYTES: usize = 12;

/// Where the first frame of a pack begins.
pub const FRAMES_START: u64 = HEADER_BYTES as u64;

/// The list of a pack's frames, as its footer and an index segment hold it.
pub fn encode_frames(frames: &[FrameRecord]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_varint(frames.len() as u64);
    for frame in frames {
        frame.encode(&mut bytes);
    }
    bytes
}

/// Parses a list of frames that lie end to end from the start of a pack.
pub fn decode_frames(reader: &mut Reader) -> Result<Vec<FrameRecord>> {
    let count = reader.count(53, "number of frames")?;
    let mut frames = Vec::with_capacity(count);
    let mut offset = FRAMES_START;
    for _ in 0..count {
        let frame = FrameRecord::decode(reader, offset)?;
        offset = frame.end();
        frames.push(frame);
    }
    Ok(frames)
}

/// The clear end of a pack.
pub fn encode_trailer(footer_len: u32) -> [u8; TRAILER_BYTES] {
    let mut trailer = [0; TRAILER_BYTES];
    trailer[..4].copy_from_slice(&footer_len.to_le_bytes());
    trailer[4..].copy_from_slice(TRAILER_MAGIC);
    trailer
}

/// The length of the footer's box, from the last bytes of a pack.
pub fn decode_trailer(bytes: &[u8]) -> Result<u32> {
    let mut reader = Reader::new(bytes);
    let len = reader.u32("trailer of a pack")?;
    if reader.bytes(8, "trailer of a pack")? != TRAILER_MAGIC {
        return Err(reader.malformed("trailer of a pack"));
    }
    reader.finish()?;
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::super::frame::tests::sample;
    use super::*;

    #[test]
    fn frames_lie_end_to_end() {
        let first = sample(FRAMES_START, 1);
        let frames = [first.clone(), sample(first.end(), 2)];
        let bytes = encode_frames(&frames);
        let mut reader = Reader::new(&bytes);
        assert_eq!(decode_frames(&mut reader).unwrap(), frames);
        reader.finish().unwrap();
        assert_eq!(decode_trailer(&encode_trailer(99)).unwrap(), 99);
        assert!(decode_trailer(b"99999999999").is_err());
    }
}
