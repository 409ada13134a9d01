//! Objects of one sealed box: the manifest, index segments, snapshots and records.
//!
//! Inside the box: a codec byte, the length (u64), and the body, compressed where that is shorter. Nothing is stored before it has
//! been opened again and compared.

use std::cell::Cell;
use std::fmt::Display;

use super::stages::{Stage, between};
use crate::backend::{Area, Backend, Place};
use crate::compression::{CompressionError, Compressor, Level, Texture, decompress};
use crate::crypto::{Keys, Sealer};
use crate::error::{Error, Result, StorageErrorKind};
use crate::format::codec::{Reader, Write};
use crate::format::envelope::{HEADER_BYTES, Header, Kind, object_associated_data};
use crate::format::frame::Codec;
use crate::id::{ObjectName, RepositoryId};
use crate::limits::*;

thread_local! {
    /// To make one takes longer than to compress what most objects are.
    static COMPRESSOR: Cell<Option<Compressor>> = const { Cell::new(None) };
}

/// The stored bytes of an object with this body.
pub fn seal(sealer: &Sealer, body: &[u8]) -> Result<Vec<u8>> {
    let read_back = |_: CompressionError| Error::ReadBack(format!("{:?}", sealer.header().kind));
    let plain = to_plain(body).map_err(read_back)?;
    let associated_data = object_associated_data(sealer.header());
    let sealed = sealer.seal(&associated_data, &plain);
    let mut stored = sealer.header().encode();
    stored.put_bytes(&sealed);
    let opened = sealer.open(&associated_data, &stored[HEADER_BYTES..]).and_then(|plain| from_plain(&plain).ok());
    if opened.as_deref() != Some(body) {
        return Err(Error::ReadBack(format!("{:?}", sealer.header().kind)));
    }
    between(Stage::Object, &mut stored);
    Ok(stored)
}

/// A codec byte, the length and the body, compressed if that is shorter: the plain text of a box.
pub(super) fn to_plain(body: &[u8]) -> std::result::Result<Vec<u8>, CompressionError> {
    let mut compressed = Vec::new();
    let codec = compress(body, &mut compressed)?;
    let mut plain = Vec::with_capacity(9 + body.len());
    plain.put_u8(codec as u8);
    plain.put_u64(body.len() as u64);
    plain.put_bytes(if codec == Codec::Zstd { &compressed } else { body });
    Ok(plain)
}

fn compress(body: &[u8], compressed: &mut Vec<u8>) -> std::result::Result<Codec, CompressionError> {
    let mut compressor = COMPRESSOR.take().map_or_else(|| Compressor::new(Level::Auto), Ok)?;
    let codec = compressor.compress(Texture::Mixed, body, compressed)?;
    // One that was used for much holds a lot of memory.
    COMPRESSOR.set((body.len() <= SMALL_OBJECT_BYTES).then_some(compressor));
    Ok(codec)
}

/// The header of an object that should be of `kind`.
pub fn header(stored: &[u8], kind: Kind, what: impl Display) -> Result<Header> {
    let header = Header::decode(&mut Reader::new(stored)).map_err(|error| error.of(&what))?;
    match header.kind == kind {
        true => Ok(header),
        false => Err(Error::damaged(what, format!("it is a {:?} and not a {kind:?}", header.kind))),
    }
}

/// The body of an object.
pub fn open(keys: &Keys, repository: RepositoryId, kind: Kind, what: impl Display, stored: &[u8]) -> Result<Vec<u8>> {
    open_versioned(keys, repository, kind, what, stored).map(|(_, body)| body)
}

/// The format version and the body of an object.
pub fn open_versioned(keys: &Keys, repository: RepositoryId, kind: Kind, what: impl Display, stored: &[u8]) -> Result<(u16, Vec<u8>)> {
    let header = header(stored, kind, &what)?;
    if header.repository != repository {
        return Err(Error::damaged(what, "it belongs to another repository"));
    }
    let sealed = &stored[HEADER_BYTES..];
    let plain = keys.seal_key(kind, &header.salt).open(&object_associated_data(&header), sealed);
    let plain = plain.ok_or_else(|| Error::damaged(&what, "its seal does not fit its bytes"))?;
    Ok((header.version, from_plain(&plain).map_err(|error| error.of(what))?))
}

/// The body of such a plain text.
pub(super) fn from_plain(plain: &[u8]) -> crate::format::Result<Vec<u8>> {
    let mut reader = Reader::new(plain);
    let codec = Codec::from_byte(reader.u8("codec")?)?;
    let len = reader.u64("length of the body")?;
    if len > SEGMENT_BYTES_MAX {
        return Err(reader.malformed("length of the body"));
    }
    let malformed = reader.malformed("compressed body");
    decompress(codec, None, reader.rest(), len as usize).map_err(|_| malformed)
}

/// Every object but the manifest, the key slots and their notes is named by the hash of its bytes.
pub fn verify_name(place: &Place, stored: &[u8]) -> Result<()> {
    let named = !matches!(place.area, Area::Top | Area::Keys | Area::KeyNotes);
    match named && place.hash() != Some(ObjectName::of(stored)) {
        true => Err(Error::damaged(place, "its bytes do not fit its name")),
        false => Ok(()),
    }
}

/// All bytes of an object as they are stored.
pub fn stored_bytes(backend: &dyn Backend, place: &Place, bytes_max: u64) -> Result<Vec<u8>> {
    confirmed(backend, place, || Ok(backend.get(place, bytes_max)?))
}

/// Reads something, and once more from the medium before it is called damaged or unreadable: perhaps it was only the way here.
pub fn confirmed<T>(backend: &dyn Backend, place: &Place, read: impl Fn() -> Result<T>) -> Result<T> {
    let may_work_again = |error: &Error| match error {
        Error::Damaged { .. } | Error::Unsupported { .. } => true,
        Error::Storage(error) => matches!(error.kind, StorageErrorKind::Transient | StorageErrorKind::Other),
        _ => false,
    };
    match read() {
        Err(error) if may_work_again(&error) => {
            backend.forget_cached(place);
            read()
        }
        result => result,
    }
}
