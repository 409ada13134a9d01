//! Data: whole packs are read from the store, and everything in them is opened, decompressed and hashed again.
//!
//! Packs that hold deltas are read first, and their deltas are put aside, as they were stored, until the frames they are based on
//! come by: otherwise each of these would be decoded once for itself and once more for every night that was stored against it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use rayon::prelude::*;

use super::structure::{Inventory, condemned, why};
use super::{Budget, ReadData, Remedy, Run};
use crate::backend::{Backend, Place};
use crate::crypto::SealKey;
use crate::error::{Error, Result};
use crate::format::envelope::{HEADER_BYTES, Header, Kind};
use crate::format::frame::FrameRecord;
use crate::format::pack::{TRAILER_BYTES, decode_trailer};
use crate::id::{FrameId, ObjectName};
use crate::index::IndexedPack;
use crate::limits::*;
use crate::ops::go_on;
use crate::ops::ledger::Ledger;
use crate::progress::Stage;
use crate::repo::{Contents, Health, Reader, Repository, is_not_found, stored_bytes};

/// Bytes of deltas, and of what is known of them, that are put aside at a time.
const ASIDE_BYTES: usize = 48 << 20;
/// About what a chunk of a delta frame takes in memory: its id and length, and its share of the base.
const ASIDE_CHUNK_BYTES: usize = 48;

type Pack = (ObjectName, u64);

/// Reads and verifies the chosen packs.
pub fn check(run: &mut Run, inventory: &Inventory, read_data: ReadData) -> Result<()> {
    let mut packs = choose(run.repository, inventory, read_data)?;
    let deadline = match read_data {
        // In this order, since nobody knows how far it gets.
        ReadData::Oldest(Budget::Time(time)) => Instant::now().checked_add(time),
        _ => {
            packs = deltas_first(packs, inventory);
            None
        }
    };
    // What was found before is found again without reading data.
    let known = run.report.findings.len();
    run.progress.stage(Stage::CheckingData, Some(packs.iter().map(|(_, size)| size).sum()), Some(packs.len() as u64));
    let backend = run.repository.backend().clone();
    std::thread::scope(|scope| {
        let (sender, receiver) = bounded(1);
        let packs = packs.into_iter().take_while(move |_| deadline.is_none_or(|deadline| Instant::now() < deadline));
        scope.spawn(move || read_ahead(&*backend, packs, &sender));
        let mut verifier = Verifier { run, aside: Aside::default(), opened: Vec::new() };
        verifier.packs(&receiver)?;
        let mut verified = verifier.opened;
        let hurt: HashSet<ObjectName> = run.report.findings.iter().filter_map(|finding| finding.pack()).collect();
        verified.retain(|name| !hurt.contains(name));
        run.report.verified = verified;
        let mut hurt: Vec<ObjectName> = run.report.findings[known..].iter().filter_map(|finding| finding.pack()).collect();
        hurt.sort_unstable();
        hurt.dedup();
        run.report.hurt = hurt;
        Ok(())
    })
}

fn choose(repository: &Repository, inventory: &Inventory, read_data: ReadData) -> Result<Vec<Pack>> {
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
            take(&mut packs, budget);
        }
        ReadData::Oldest(budget) => {
            let ledger = Ledger::of(&repository.reports_at_hand()?.0, repository.world().now());
            // Those that were found damaged first, by turns: somebody waits to hear that they are good again. Then those that were never
            // read; names are hashes, so that among equals none is preferred.
            packs.sort_by_cached_key(|(name, _)| {
                let hurt = ledger.hurt(name);
                (hurt.is_none(), hurt.or(ledger.verified(name)), *name)
            });
            if let Budget::Bytes(bytes) = budget {
                take(&mut packs, bytes);
            }
        }
    }
    Ok(packs)
}

/// Keeps the first packs, up to the one that uses the budget up.
fn take(packs: &mut Vec<Pack>, budget: u64) {
    let mut taken = 0;
    packs.retain(|(_, size)| {
        let take = taken < budget;
        taken += if take { *size } else { 0 };
        take
    });
}

/// Packs with deltas, then all others.
fn deltas_first(mut packs: Vec<Pack>, inventory: &Inventory) -> Vec<Pack> {
    packs.sort_by_key(|(name, _)| !inventory.with_deltas.contains(name));
    packs
}

fn read_ahead(backend: &dyn Backend, packs: impl Iterator<Item = Pack>, read: &Sender<(Pack, Result<Vec<u8>>)>) {
    for pack in packs {
        let place = Place::pack(pack.0);
        backend.forget_cached(&place);
        let stored = stored_bytes(backend, &place, PACK_BYTES_MAX);
        if read.send((pack, stored)).is_err() {
            return;
        }
    }
}

/// Reads and judges packs, one after the other.
struct Verifier<'a, 'r> {
    run: &'a mut Run<'r>,
    aside: Aside,
    /// Packs whose footers could be read.
    opened: Vec<ObjectName>,
}

impl Verifier<'_, '_> {
    fn packs(&mut self, packs: &Receiver<(Pack, Result<Vec<u8>>)>) -> Result<()> {
        for ((name, size), stored) in packs {
            go_on(self.run.progress)?;
            self.run.report.packs_read += 1;
            match stored {
                Ok(stored) => {
                    self.run.report.bytes_read += stored.len() as u64;
                    let stored = confirm(self.run, name, stored);
                    self.pack(name, &stored)?;
                }
                // A collection removed it since.
                Err(error) if is_not_found(&error) && condemned(self.run).contains(&name) => {}
                Err(error) => self.run.trouble(format!("pack {name}"), &error, Some(Remedy::Pack(name))),
            }
            self.run.progress.bytes(size);
            self.run.progress.files(1);
        }
        self.rest()
    }

    /// Verifies one pack's bytes: its name, its footer, and every frame.
    fn pack(&mut self, name: ObjectName, stored: &[u8]) -> Result<()> {
        let object = format!("pack {name}");
        let repair = Some(Remedy::Pack(name));
        if ObjectName::of(stored) != name {
            self.run.finding(&object, "Its bytes do not fit its name", repair);
        }
        let (header, contents) = match open_footer(self.run.repository, name, stored) {
            Ok(opened) => opened,
            Err(error) => {
                self.run.trouble(&object, &error, repair);
                return verify_listed(self.run, name);
            }
        };
        self.opened.push(name);
        let reader = self.run.repository.reader()?.clone();
        let key = Arc::new((header.kind, self.run.repository.keys().seal_key(header.kind, &header.salt)));
        let sealed = |frame: &FrameRecord| stored.get(frame.offset as usize..frame.end() as usize);
        let (deltas, plain): (Vec<_>, Vec<_>) = contents.frames.iter().cloned().partition(|frame| frame.is_delta());
        for frame in deltas {
            let Some(sealed) = sealed(&frame) else {
                self.bad(&frame.id, name, "It lies outside of its pack".into());
                continue;
            };
            self.aside.add(Delta { sealed: sealed.into(), frame, pack: name, key: key.clone() });
            if self.aside.bytes >= ASIDE_BYTES {
                self.rest()?;
            }
        }
        for window in plain.chunks(FETCH_FRAMES) {
            let decode = |frame: &Arc<FrameRecord>| {
                let sealed = sealed(frame).ok_or_else(|| Error::damaged("frame", "It lies outside of its pack"));
                (frame.clone(), sealed.and_then(|sealed| reader.decode(&key, frame, sealed)))
            };
            let decoded: Vec<_> = window.par_iter().with_max_len(1).map(decode).collect();
            for (record, decoded) in decoded {
                match decoded {
                    Ok(frame) if record.present.is_none() && self.aside.wants(&record.id) => reader.keep_base(record.id, frame),
                    Ok(_) => {}
                    Err(error) => self.bad(&record.id, name, why(&error)),
                }
            }
            let ready = self.aside.ready(window.iter().map(|frame| &frame.id));
            self.deltas(&reader, &ready);
        }
        Ok(())
    }

    fn deltas(&mut self, reader: &Reader, deltas: &[Delta]) {
        let decode = |delta: &Delta| reader.decode(&delta.key, &delta.frame, &delta.sealed).err();
        let errors: Vec<_> = deltas.par_iter().with_max_len(1).map(decode).collect();
        for (delta, error) in deltas.iter().zip(errors) {
            let Some(error) = error else { continue };
            let id = delta.frame.id;
            match reader.health(&delta.key, &delta.frame, &delta.sealed) {
                // About to be deleted, and what it was made against sooner.
                Ok(Health::Baseless(_)) if condemned(self.run).contains(&delta.pack) => drop(self.run.suspects.insert(id)),
                // Its own bytes are as they were written. If a snapshot needs it, that is found there.
                Ok(Health::Baseless(_)) => {
                    let note = "is a difference to data that is lost";
                    self.run.report.notes.push(format!("frame {id} in pack {} {note}", delta.pack));
                    self.run.suspects.insert(id);
                }
                _ => self.bad(&id, delta.pack, why(&error)),
            }
        }
    }

    /// The deltas that are aside, in the order of what they are based on, so that each base is decoded once.
    fn rest(&mut self) -> Result<()> {
        let reader = self.run.repository.reader()?.clone();
        let mut deltas: Vec<Delta> = std::mem::take(&mut self.aside).deltas.into_iter().flatten().collect();
        let first_base = |delta: &Delta| {
            let base = delta.frame.base.as_ref()?.0.first()?.frame;
            let (pack, location) = reader.locator().places(&base).into_iter().next()?;
            Some((pack.number, location.offset))
        };
        deltas.sort_by_cached_key(first_base);
        for window in deltas.chunks(FETCH_FRAMES) {
            go_on(self.run.progress)?;
            self.deltas(&reader, window);
        }
        Ok(())
    }

    fn bad(&mut self, id: &FrameId, pack: ObjectName, problem: String) {
        self.run.finding(format!("frame {id} in pack {pack}"), problem, Some(Remedy::Pack(pack)));
        self.run.suspects.insert(*id);
    }
}

/// What a pack holds, read once more where the first bytes do not fit its name: perhaps it was only the way here.
fn confirm(run: &mut Run, name: ObjectName, stored: Vec<u8>) -> Vec<u8> {
    if ObjectName::of(&stored) == name {
        return stored;
    }
    let (backend, place) = (run.repository.backend(), Place::pack(name));
    backend.forget_cached(&place);
    match backend.get(&place, PACK_BYTES_MAX) {
        Ok(again) if ObjectName::of(&again) == name => {
            run.report.notes.push(format!("{place} was read wrongly once and rightly then: suspect the disk, its cable, or the memory"));
            again
        }
        Ok(again) => again,
        Err(_) => stored,
    }
}

/// A delta frame that waits for its bases.
struct Delta {
    frame: Arc<FrameRecord>,
    sealed: Box<[u8]>,
    pack: ObjectName,
    key: Arc<(Kind, SealKey)>,
}

/// Deltas that wait for their bases.
#[derive(Default)]
struct Aside {
    deltas: Vec<Option<Delta>>,
    /// How many bases of each have not come by yet.
    missing: Vec<usize>,
    waiting: HashMap<FrameId, Vec<usize>>,
    bytes: usize,
}

impl Aside {
    fn add(&mut self, delta: Delta) {
        let bases: HashSet<FrameId> = delta.frame.base.iter().flat_map(|base| &base.0).map(|run| run.frame).collect();
        self.bytes += delta.sealed.len() + delta.frame.table.len() * ASIDE_CHUNK_BYTES;
        self.missing.push(bases.len());
        for base in bases {
            self.waiting.entry(base).or_default().push(self.deltas.len());
        }
        self.deltas.push(Some(delta));
    }

    fn wants(&self, base: &FrameId) -> bool {
        self.waiting.contains_key(base)
    }

    /// Takes those that wait for none any more, now that these frames have come by.
    fn ready<'f>(&mut self, bases: impl Iterator<Item = &'f FrameId>) -> Vec<Delta> {
        let mut ready = Vec::new();
        for index in bases.filter_map(|base| self.waiting.remove(base)).flatten() {
            self.missing[index] -= 1;
            if self.missing[index] == 0 {
                ready.extend(self.deltas[index].take());
            }
        }
        ready
    }
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
            run.finding(format!("frame {} in pack {name}", frame.id), why(&error), Some(Remedy::Pack(name)));
            run.suspects.insert(frame.id);
        }
    }
    Ok(())
}
