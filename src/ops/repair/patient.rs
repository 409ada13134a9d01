//! One pack that may be damaged: read whole, compared with its name, and each frame looked at for what it is still good for.
//!
//! Everything in a pack but its footer hangs on the salt in its header. A header that is damaged is put together again: all
//! of it is known but the salt, and that is tried from other packs, and with each single byte of what is there changed.

use std::collections::BTreeSet;

use rayon::prelude::*;

use super::{Verdict, judge};
use crate::backend::{Area, Place};
use crate::crypto::SealKey;
use crate::error::{Error, Result};
use crate::format::envelope::{HEADER_BYTES, Header, Kind};
use crate::format::frame::FrameRecord;
use crate::format::pack::{TRAILER_BYTES, decode_trailer};
use crate::format::segment::PackRecord;
use crate::id::ObjectName;
use crate::limits::*;
use crate::repo::{Contents, Health, Repository};

/// A pack that is damaged or gone.
pub struct Patient {
    pub name: ObjectName,
    pub why: String,
    pub is_gone: bool,
    /// What a segment says of it.
    pub listed: Option<PackRecord>,
    /// The segments that list it.
    pub segments: Vec<ObjectName>,
}

/// A pack's kind, and its frames as far as they are known.
pub struct Examined {
    pub kind: Kind,
    pub frames: Vec<(FrameRecord, Health)>,
}

/// All bytes of a pack, if they fit its name.
pub fn read_whole(repository: &Repository, name: ObjectName) -> Result<Verdict<Vec<u8>>> {
    let place = Place::pack(name);
    judge(repository, &place, || {
        let stored = repository.backend().get(&place, PACK_BYTES_MAX)?;
        match ObjectName::of(&stored) == name {
            true => Ok(stored),
            false => Err(Error::damaged(&place, "its bytes do not fit its name")),
        }
    })
}

/// What is wrong with a pack whose bytes fit its name: its footer cannot be read or, with `frames`, a frame in it.
pub fn inspect(repository: &Repository, name: ObjectName, stored: &[u8], frames: bool) -> Result<Verdict<()>> {
    let own = stored.get(..HEADER_BYTES).unwrap_or_default();
    let (header, contents) = match open_footer(repository, name, stored, own) {
        Ok(opened) => opened,
        Err(Error::Unsupported { why, .. }) => return Ok(Verdict::Newer(why)),
        Err(Error::Damaged { why, .. }) => return Ok(Verdict::Damaged(why)),
        Err(error) => return Err(error),
    };
    if !frames {
        return Ok(Verdict::Sound(()));
    }
    let examined = look_at_frames(repository, &header, contents.to_records(), stored)?;
    let broken = examined.iter().find(|(_, health)| matches!(health, Health::Broken));
    Ok(match broken {
        None => Verdict::Sound(()),
        Some((frame, _)) => Verdict::Damaged(format!("frame {} in it cannot be read, although its bytes fit its name", frame.id)),
    })
}

/// Looks at every frame of a damaged pack. Without footer and segment nothing is known of them.
pub fn examine(repository: &Repository, patient: &Patient, stored: &[u8]) -> Result<Option<Examined>> {
    let listed = || patient.listed.iter().flat_map(|pack| pack.frames.iter().cloned());
    let opened = find_header(repository, patient, stored)?;
    let Some((header, footer)) = opened else {
        let Some(pack) = &patient.listed else { return Ok(None) };
        let frames = listed().map(|frame| (frame, Health::Broken)).collect();
        return Ok(Some(Examined { kind: pack.kind, frames }));
    };
    let mut records = footer.unwrap_or_default();
    let known: BTreeSet<_> = records.iter().map(|frame| frame.id).collect();
    records.extend(listed().filter(|frame| !known.contains(&frame.id)));
    let frames = look_at_frames(repository, &header, records, stored)?;
    Ok(Some(Examined { kind: header.kind, frames }))
}

fn look_at_frames(
    repository: &Repository,
    header: &Header,
    records: Vec<FrameRecord>,
    stored: &[u8],
) -> Result<Vec<(FrameRecord, Health)>> {
    let reader = repository.reader()?;
    let key = (header.kind, repository.keys().seal_key(header.kind, &header.salt));
    let look = |record: FrameRecord| {
        let sealed = stored.get(record.offset as usize..record.end() as usize);
        let health = sealed.map_or(Ok(Health::Broken), |sealed| reader.health(&key, &record, sealed))?;
        Ok((record, health))
    };
    records.into_par_iter().with_max_len(1).map(look).collect()
}

fn open_box(repository: &Repository, kind: Kind, key: &SealKey, record: &FrameRecord, stored: &[u8]) -> Option<Vec<u8>> {
    let sealed = stored.get(record.offset as usize..record.end() as usize)?;
    key.open(&record.seal_info().associated_data(&repository.id(), kind), sealed)
}

/// The footer of a pack under a header that may not be the one it has.
fn open_footer(repository: &Repository, name: ObjectName, stored: &[u8], header: &[u8]) -> Result<(Header, Contents)> {
    let place = Place::pack(name);
    let damaged = || Error::damaged(&place, "its trailer points outside of it");
    let body_len = stored.len().checked_sub(TRAILER_BYTES).ok_or_else(damaged)?;
    let (body, trailer) = stored.split_at(body_len);
    let footer_len = decode_trailer(trailer).map_err(|error| error.of(&place))? as usize;
    let frames_end = body_len.checked_sub(footer_len).filter(|end| *end >= HEADER_BYTES).ok_or_else(damaged)?;
    repository.locator()?.open_footer(&place, header, frames_end as u64, &body[frames_end..])
}

/// The header under which a damaged pack's boxes open, and the frames its footer lists, if that opens too.
fn find_header(repository: &Repository, patient: &Patient, stored: &[u8]) -> Result<Option<(Header, Option<Vec<FrameRecord>>)>> {
    let listed: Vec<&FrameRecord> = patient.listed.iter().flat_map(|pack| &pack.frames).collect();
    let fits = |header: Header| {
        if let Ok((header, contents)) = open_footer(repository, patient.name, stored, &header.encode()) {
            return Some((header, Some(contents.to_records())));
        }
        let key = repository.keys().seal_key(header.kind, &header.salt);
        // The first two, for a damage is mostly in one place.
        let opens = listed.iter().take(2).any(|record| open_box(repository, header.kind, &key, record, stored).is_some());
        opens.then_some((header, None))
    };
    let head = stored.get(..HEADER_BYTES).unwrap_or_default();
    let own = Header::decode(&mut crate::format::codec::Reader::new(head)).ok();
    let own = own.filter(|own| own.repository == repository.id() && matches!(own.kind, Kind::DataPack | Kind::CatalogPack));
    if let Some(found) = own.clone().and_then(fits) {
        return Ok(Some(found));
    }
    let kinds = match &patient.listed {
        Some(pack) => vec![pack.kind],
        None => vec![Kind::DataPack, Kind::CatalogPack],
    };
    let header = |version, kind, salt| Header { version, kind, repository: repository.id(), salt };
    let mut salts = other_salts(repository, patient.name)?;
    if let Some(salt) = head.last_chunk::<32>() {
        salts.push(*salt);
        for (at, byte) in (0..32).flat_map(|at| (0..=u8::MAX).map(move |byte| (at, byte))) {
            let mut changed = *salt;
            changed[at] = byte;
            salts.push(changed);
        }
    }
    // A frame's box does not depend on the version, a footer's does.
    let shapes: Vec<(u16, Kind)> = kinds.iter().flat_map(|kind| (1..=kind.version()).rev().map(|version| (version, *kind))).collect();
    let tries: Vec<Header> = salts.iter().flat_map(|salt| shapes.iter().map(|(version, kind)| header(*version, *kind, *salt))).collect();
    let found = tries.into_par_iter().find_map_first(fits);
    // What is further inside may open nevertheless.
    Ok(found.or(own.map(|own| (own, None))))
}

/// The salts of all other packs: one process has the same in all its packs of a kind.
fn other_salts(repository: &Repository, but: ObjectName) -> Result<Vec<[u8; 32]>> {
    let mut salts = BTreeSet::new();
    for (name, _) in repository.locator()?.list(Area::Packs)?.into_iter().filter(|(name, _)| *name != but) {
        let mut head = [0; HEADER_BYTES];
        match repository.backend().read_at(&Place::pack(name), 0, &mut head) {
            Ok(()) => salts.extend(head.last_chunk::<32>()),
            Err(error) => repository.locator()?.pass_over(error.into()),
        }
    }
    Ok(salts.into_iter().collect())
}
