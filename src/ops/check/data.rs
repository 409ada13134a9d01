//! Data: whole packs are read from the store, and everything in them is opened, decompressed and hashed again.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use rayon::prelude::*;

use super::structure::{Inventory, condemned, why};
use super::{ReadData, Run};
use crate::backend::{Backend, Place};
use crate::error::{Error, Result};
use crate::format::envelope::{HEADER_BYTES, Header, Kind};
use crate::format::frame::FrameRecord;
use crate::format::pack::{TRAILER_BYTES, decode_trailer};
use crate::id::{FrameId, ObjectName};
use crate::index::IndexedPack;
use crate::limits::*;
use crate::progress::Stage;
use crate::repo::{Contents, Repository, is_not_found};

type Pack = (ObjectName, u64);

/// Reads and verifies the chosen packs.
pub fn check(run: &mut Run, inventory: &Inventory, read_data: ReadData) -> Result<()> {
    let packs = choose(run.repository, inventory, read_data);
    run.progress.stage(Stage::CheckingData, Some(packs.iter().map(|(_, size)| size).sum()), Some(packs.len() as u64));
    let backend = run.repository.backend().clone();
    std::thread::scope(|scope| {
        let (sender, receiver) = bounded(1);
        scope.spawn(move || read_ahead(&*backend, packs, &sender));
        verify_all(run, &receiver)
    })
}

fn choose(repository: &Repository, inventory: &Inventory, read_data: ReadData) -> Vec<Pack> {
    let mut packs: Vec<Pack> = inventory.packs.iter().map(|(name, size)| (*name, *size)).collect();
    let draw = |name: &ObjectName| u64::from_be_bytes(name.0[..8].try_into().expect("eight bytes"));
    match read_data {
        ReadData::None => packs.clear(),
        ReadData::All => {}
        ReadData::Part { number, of } => packs.retain(|(name, _)| draw(name) % of == number - 1),
        ReadData::Percent(_) | ReadData::Bytes(_) => {
            let salt = repository.world().random::<32>();
            packs.sort_by_key(|(name, _)| *blake3::keyed_hash(&salt, &name.0).as_bytes());
            let total: u64 = packs.iter().map(|(_, size)| size).sum();
            let budget = match read_data {
                ReadData::Percent(percent) => (total as f64 * percent / 100.0) as u64,
                ReadData::Bytes(bytes) => bytes,
                _ => total,
            };
            let mut taken = 0;
            packs.retain(|(_, size)| {
                let take = taken < budget;
                taken += if take { *size } else { 0 };
                take
            });
        }
    }
    packs
}

fn read_ahead(backend: &dyn Backend, packs: Vec<Pack>, read: &Sender<(Pack, Result<Vec<u8>>)>) {
    for pack in packs {
        let place = Place::pack(pack.0);
        backend.forget_cached(&place);
        let stored = backend.get(&place, PACK_BYTES_MAX).map_err(Error::from);
        if read.send((pack, stored)).is_err() {
            return;
        }
    }
}

fn verify_all(run: &mut Run, packs: &Receiver<(Pack, Result<Vec<u8>>)>) -> Result<()> {
    for ((name, size), stored) in packs {
        run.stop_if_interrupted()?;
        run.report.packs_read += 1;
        match stored {
            Ok(stored) => {
                run.report.bytes_read += stored.len() as u64;
                verify_pack(run, name, &stored)?;
            }
            // A collection removed it since.
            Err(error) if is_not_found(&error) && condemned(run).contains(&name) => {}
            Err(error) => run.trouble(format!("pack {name}"), &error),
        }
        run.progress.bytes(size);
        run.progress.files(1);
    }
    Ok(())
}

/// Verifies one pack's bytes: its name, its footer, and every frame.
fn verify_pack(run: &mut Run, name: ObjectName, stored: &[u8]) -> Result<()> {
    let object = format!("pack {name}");
    if ObjectName::of(stored) != name {
        run.finding(&object, "Its bytes do not fit its name");
    }
    let (header, contents) = match open_footer(run.repository, name, stored) {
        Ok(opened) => opened,
        Err(error) => {
            run.trouble(&object, &error);
            return verify_listed(run, name);
        }
    };
    let reader = run.repository.reader()?;
    let key = (header.kind, run.repository.keys().seal_key(header.kind, &header.salt));
    let check_frame = |frame: &Arc<FrameRecord>| -> Option<(FrameId, String)> {
        let sealed = stored.get(frame.offset as usize..frame.end() as usize);
        let opened = sealed.ok_or_else(|| Error::damaged("frame", "It lies outside of its pack"));
        let opened = opened.and_then(|sealed| reader.decode(&key, frame, sealed));
        opened.err().map(|error| (frame.id, why(&error)))
    };
    let bad: Vec<_> = contents.frames.par_iter().with_max_len(1).filter_map(check_frame).collect();
    for (id, problem) in bad {
        run.suspects.insert(id);
        // A delta that outlived its base is of no use to anybody; if it is, that is found when the snapshots are followed.
        let is_left_over = contents.frame(&id).is_some_and(|record| !has_base(run, record));
        if !is_left_over {
            run.finding(format!("frame {id} in {object}"), problem);
        }
    }
    Ok(())
}

/// Whether everything that a frame is based on is said to be somewhere.
fn has_base(run: &Run, record: &FrameRecord) -> bool {
    let Ok(locator) = run.repository.locator() else { return true };
    record.base.iter().flat_map(|base| &base.0).all(|part| {
        let has = |record: &FrameRecord| (part.first..part.first + part.count).all(|ordinal| record.has(ordinal as usize));
        let places = locator.places(&part.frame).into_iter().filter(|(_, location)| !location.info.is_delta());
        let records = places.filter_map(|(pack, _)| locator.record_in(&pack, &part.frame).ok());
        records.into_iter().any(|record| has(&record))
    })
}

fn open_footer(repository: &Repository, name: ObjectName, stored: &[u8]) -> Result<(Header, Contents)> {
    let place = Place::pack(name);
    let damaged = || Error::damaged(&place, "Its trailer points outside of it");
    let body_len = stored.len().checked_sub(TRAILER_BYTES).ok_or_else(damaged)?;
    let (body, trailer) = stored.split_at(body_len);
    let footer_len = decode_trailer(trailer).map_err(|error| error.of(&place))? as usize;
    let frames_end = body_len.checked_sub(footer_len).filter(|end| *end >= HEADER_BYTES).ok_or_else(damaged)?;
    repository.locator()?.open_footer(&place, &body[..HEADER_BYTES], frames_end as u64, &body[frames_end..])
}

/// The frames of a pack without a readable footer, where the index says they are.
fn verify_listed(run: &mut Run, name: ObjectName) -> Result<()> {
    let Some(contents) = run.repository.locator()?.listed_contents(name)? else { return Ok(()) };
    let reader = run.repository.reader()?;
    let pack = IndexedPack { number: 0, name, kind: Kind::DataPack, size: 0 };
    for frame in &contents.frames {
        if let Err(error) = reader.read_from(&pack, frame) {
            run.finding(format!("frame {} in pack {name}", frame.id), why(&error));
            run.suspects.insert(frame.id);
        }
    }
    Ok(())
}
