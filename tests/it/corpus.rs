//! A small repository with every byte wrong in turn, and cut short at every length: nothing panics, no wrong byte is restored, and
//! `check` names exactly what is hurt.
//!
//! By default a sample that a seed chooses; `CORPUS_STRIDE=1`, or `--ignored`, tries every byte.

use std::collections::BTreeSet;

use snap_backup::backend::{Area, Place};

use crate::damage::{Expected, Victim, all};
use crate::support::*;

/// Of how many bytes one is tried by default.
const STRIDE: u64 = 150;

/// The bytes of every object to be tried, and the number of a bit.
fn sample(victim: &Victim, stride: u64, seed: u64) -> Vec<(Place, usize, usize)> {
    let mut rng = Rng::new(seed);
    let mut trials = Vec::new();
    for place in &victim.places {
        let len = victim.bytes(place).len();
        let chosen: Vec<usize> = (0..len).filter(|_| stride == 1 || rng.below(stride) == 0).collect();
        trials.extend(chosen.into_iter().map(|at| (place.clone(), at, rng.below(8) as usize)));
        if stride == 1 {
            // Every bit of what stands in clear: the header and, of a pack, the trailer.
            let clear = (0..len.min(58)).chain(len.saturating_sub(12)..len);
            trials.extend(clear.flat_map(|at| (0..8).map(move |bit| (at, bit))).map(|(at, bit)| (place.clone(), at, bit)));
        }
    }
    println!("{} objects, {} trials, stride {stride}", victim.places.len(), trials.len());
    trials
}

fn stride() -> u64 {
    std::env::var("CORPUS_STRIDE").map_or(STRIDE, |text| text.parse().expect("CORPUS_STRIDE is a number"))
}

fn expected(place: &Place) -> Expected {
    match place.area {
        // The manifest and the one key slot: opening fails, or it does not matter.
        Area::Top | Area::Keys => Expected::Either,
        _ => Expected::Told,
    }
}

fn flip(stride: u64) {
    let victim = Victim::new();
    all(&sample(&victim, stride, seed("flip")), |(place, at, bit)| {
        victim.judge(expected(place), &|memory| memory.edit(place, |bytes| bytes[*at] ^= 1 << bit))
    });
}

fn truncate(stride: u64) {
    let victim = Victim::new();
    let trials: BTreeSet<(Place, usize)> =
        sample(&victim, stride, seed("truncate")).into_iter().map(|(place, at, _)| (place, at)).collect();
    let trials: Vec<_> = trials.into_iter().collect();
    all(&trials, |(place, len)| victim.judge(Expected::Told, &|memory| memory.edit(place, |bytes| bytes.truncate(*len))));
}

#[test]
fn bytes_flipped() {
    flip(stride());
}

#[test]
fn cut_short() {
    truncate(stride());
}

#[test]
#[ignore = "takes minutes: every byte"]
fn every_byte_flipped() {
    flip(1);
}

#[test]
#[ignore = "takes minutes: every length"]
fn cut_short_at_every_length() {
    truncate(1);
}

/// Under another name than its own, and twice.
#[test]
fn every_object_renamed() {
    let victim = Victim::new();
    let named: Vec<&Place> = victim.places.iter().filter(|place| !matches!(place.area, Area::Top | Area::Keys)).collect();
    all(&named, |place| {
        // A snapshot that is not listed under its name cannot be missed.
        let is_snapshot = place.area == Area::Snapshots;
        let other = Place { area: place.area, name: place.name.chars().rev().collect() };
        let bytes = victim.bytes(place);
        let renamed = victim.judge(Expected::Told, &|memory| {
            memory.remove(place);
            memory.insert(other.clone(), bytes.clone());
        });
        if !is_snapshot {
            renamed?;
        }
        victim.judge(Expected::Told, &|memory| memory.insert(other.clone(), bytes.clone()))
    });
}
