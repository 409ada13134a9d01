//! Packs: a header, frames' boxes end to end, a sealed footer that says what they are, and a clear trailer that finds the footer.
//!
//! ```text
//! header (envelope, kind 3 or 4) | box of frame 0 | box of frame 1 | ... | box of the footer | footer length u32 | "SNAPPACK"
//! ```
//!
//! The frames' lengths stand only in the sealed footer and in sealed index segments.

use super::Result;
use super::codec::Reader;
use super::envelope::HEADER_BYTES;

const TRAILER_MAGIC: &[u8; 8] = b"SNAPPACK";

/// Length of the clear trailer.
pub const TRAILER_BYTES: usize = 12;

/// Where the first frame of a pack begins.
pub const FRAMES_START: u64 = HEADER_BYTES as u64;

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
    use super::*;

    #[test]
    fn a_trailer_is_the_length_and_a_magic() {
        assert_eq!(decode_trailer(&encode_trailer(99)).unwrap(), 99);
        assert!(decode_trailer(b"99999999999").is_err());
    }
}
