//! The deletion protocol (FORMAT.md, 21) as a small model, of which every interleaving is tried.
//!
//! One piece of data, needed by an old snapshot that may be forgotten at any moment and by those that two writers are about to make.
//! Two packs hold it; there is room for a third. Two collectors run, one of them twice, announcing or deleting at once, or begin anew at any
//! step. A process that is paused for hours is an interleaving like any other, and one that crashes is one that is paused for ever: every
//! state is looked at. What must hold in each: while a snapshot is there whose writer reported success, some pack has the data.
//!
//! Each rule is also left out in turn: then there must be a counterexample, or the rule is not needed. There is no epoch in this model,
//! and no lease: the protocol does without.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

/// Packs there can ever be.
const SLOTS: u8 = 3;

/// A rule that is left out, or another way to do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    /// As it is.
    Whole,
    /// Writers of version 0.1.0: a condemned pack is one too many, final or not, and nothing is looked for elsewhere.
    OldWriters,
    /// W5 is left out.
    NoSecondLook,
    /// W5 lists packs before it reads records.
    PacksBeforeRecords,
    /// W5 takes a pack that was deleted for present, because a file was open. Records are removed at once.
    StaleFiles,
    /// G4 is left out: what was seen before the final record decides.
    NoLookAfterwards,
    /// G7 comes before G6: the final record is removed before the packs are.
    RecordRemovedFirst,
    /// What is needed again is taken back by removing the final record, and not moved.
    TakenBack,
    /// A collector does not heed what another condemned.
    Blind,
    /// Packs are deleted without a final record: announced is enough.
    NothingFinal,
}

/// Sets of records: bit `m` stands for a record of the packs in mask `m`.
type RecordSet = u8;

fn all_packs(records: RecordSet) -> u8 {
    (0..8).filter(|mask| records >> mask & 1 == 1).fold(0, |all, mask| all | mask)
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum WriterStep {
    #[default]
    Start,
    RecordsRead,
    Chosen,
    NothingChosen,
    Visible,
    HalfChecked,
    Conflict,
    Success,
    Withdrawn,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Writer {
    step: WriterStep,
    /// Packs that count as absent, or are doomed, or are listed, as last read.
    read: u8,
    relies_on: u8,
    visible: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum CollectorStep {
    #[default]
    Idle,
    Planned,
    Doomed,
    RecordsRead,
    SnapshotsListed,
    Deleting,
    Deleted,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Collector {
    step: CollectorStep,
    runs: u8,
    /// What was announced when this run began: the records, and which of their packs are still not needed.
    announced: RecordSet,
    ripe: u8,
    /// Packs to be deleted.
    victims: u8,
    /// What is condemned, as last read, and final records.
    condemned: u8,
    finals: RecordSet,
    needed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    /// Packs that are in the store; all that were ever.
    there: u8,
    ever: u8,
    announced: RecordSet,
    finals: RecordSet,
    old_snapshot: bool,
    writers: [Writer; 2],
    collectors: [Collector; 2],
}

impl State {
    fn is_sound(&self) -> bool {
        let success = self.writers.iter().any(|writer| writer.visible && writer.step == WriterStep::Success);
        self.there != 0 || !self.old_snapshot && !success
    }

    fn needed(&self) -> bool {
        self.old_snapshot || self.writers.iter().any(|writer| writer.visible)
    }

    fn free_slot(&self) -> Option<u8> {
        (0..SLOTS).map(|slot| 1 << slot).find(|slot| self.ever & slot == 0)
    }

    fn store(&mut self) -> Option<u8> {
        let slot = self.free_slot()?;
        self.ever |= slot;
        self.there |= slot;
        Some(slot)
    }
}

type Next = Vec<(&'static str, State)>;

fn writer_steps(state: &State, who: usize, variant: Variant, next: &mut Next) {
    let mut go = |label, change: &dyn Fn(&mut State, &mut Writer)| {
        let mut state = *state;
        let mut writer = state.writers[who];
        change(&mut state, &mut writer);
        state.writers[who] = writer;
        next.push((label, state));
    };
    let writer = state.writers[who];
    let ends = |pack_is_there: bool, doomed: bool, elsewhere: bool| match (pack_is_there && !doomed) || elsewhere {
        true => WriterStep::Success,
        false => WriterStep::Conflict,
    };
    match writer.step {
        WriterStep::Start => go("W1 records", &|state, writer| {
            writer.read = all_packs(state.announced | state.finals);
            writer.step = WriterStep::RecordsRead;
        }),
        WriterStep::RecordsRead => {
            let usable = state.there & !writer.read;
            for slot in (0..SLOTS).map(|slot| 1 << slot).filter(|slot| usable & slot != 0) {
                go("W1 packs", &|_, writer| {
                    writer.relies_on = slot;
                    writer.step = WriterStep::Chosen;
                });
            }
            if usable == 0 {
                go("W1 packs", &|_, writer| writer.step = WriterStep::NothingChosen);
            }
        }
        WriterStep::NothingChosen if state.free_slot().is_some() => go("W2", &|state, writer| {
            writer.relies_on = state.store().expect("there is room");
            writer.step = WriterStep::Chosen;
        }),
        WriterStep::Chosen => go("W4", &|_, writer| {
            writer.visible = true;
            writer.step = if variant == Variant::NoSecondLook { WriterStep::Success } else { WriterStep::Visible };
        }),
        WriterStep::Visible => go("W5 first", &|state, writer| {
            writer.read = match variant {
                Variant::PacksBeforeRecords => state.there,
                Variant::OldWriters => all_packs(state.announced | state.finals),
                _ => all_packs(state.finals),
            };
            writer.step = WriterStep::HalfChecked;
        }),
        WriterStep::HalfChecked => go("W5 second", &|state, writer| {
            let (there, doomed) = match variant {
                Variant::PacksBeforeRecords => (writer.read, all_packs(state.finals)),
                _ => (state.there, writer.read),
            };
            let elsewhere = there & !doomed != 0 && variant != Variant::OldWriters;
            let is_there = there & writer.relies_on != 0 || variant == Variant::StaleFiles;
            writer.step = ends(is_there, doomed & writer.relies_on != 0, elsewhere);
        }),
        WriterStep::Conflict => go("withdraws", &|_, writer| {
            writer.visible = false;
            writer.step = WriterStep::Withdrawn;
        }),
        WriterStep::NothingChosen | WriterStep::Success | WriterStep::Withdrawn => {}
    }
}

/// Which packs a collector may want to delete: what is not needed, all copies but one, or all after moving the data.
fn plans(healthy: u8, needed: bool) -> Vec<(u8, bool)> {
    let slots = (0..SLOTS).map(|slot| 1u8 << slot).filter(|slot| healthy & slot != 0);
    match (healthy, needed) {
        (0, _) => vec![(0, false)],
        (_, false) => vec![(healthy, false)],
        (_, true) => slots.map(|kept| (healthy & !kept, false)).chain([(healthy, true)]).collect(),
    }
}

fn collector_steps(state: &State, who: usize, variant: Variant, next: &mut Next) {
    let mut go = |label, change: &dyn Fn(&mut State, &mut Collector)| {
        let mut state = *state;
        let mut collector = state.collectors[who];
        change(&mut state, &mut collector);
        state.collectors[who] = collector;
        next.push((label, state));
    };
    let collector = state.collectors[who];
    match collector.step {
        CollectorStep::Idle if collector.runs == 0 => {}
        // At once, because what comes of it is only a wish: between it and the final record anything can happen.
        CollectorStep::Idle => {
            let (needed, condemned) = (state.needed(), all_packs(state.announced | state.finals));
            let healthy = state.there & if variant == Variant::Blind { !0 } else { !condemned };
            for (victims, moves) in plans(healthy, needed).into_iter().filter(|(_, moves)| !moves || state.free_slot().is_some()) {
                go("G2 and G3 move", &|state, collector| {
                    if moves {
                        state.store();
                    }
                    let is_elsewhere = moves || healthy & !victims != 0;
                    collector.runs -= 1;
                    collector.announced = state.announced;
                    collector.ripe = if needed && !is_elsewhere { 0 } else { all_packs(state.announced) & state.there };
                    collector.victims = victims;
                    collector.step = CollectorStep::Planned;
                });
            }
        }
        CollectorStep::Planned => {
            if collector.victims != 0 {
                go("G3 announces", &|state, collector| {
                    state.announced |= 1 << collector.victims;
                    collector.step = CollectorStep::Idle;
                });
            }
            go("G3 dooms", &|state, collector| {
                collector.victims |= collector.ripe;
                match variant {
                    Variant::NothingFinal => state.announced |= 1 << collector.victims & !1,
                    _ => {
                        state.finals |= 1 << collector.victims & !1;
                        state.announced &= !collector.announced;
                    }
                }
                collector.step = CollectorStep::Doomed;
            });
        }
        CollectorStep::Doomed if variant == Variant::NoLookAfterwards => go("G4 left out", &|state, collector| {
            collector.victims &= state.there;
            collector.step = CollectorStep::Deleting;
        }),
        CollectorStep::Doomed => go("G4 records", &|state, collector| {
            match variant {
                Variant::Blind => collector.condemned = collector.victims,
                _ => {
                    collector.condemned = all_packs(state.announced | state.finals);
                    collector.victims |= all_packs(state.finals);
                }
            }
            collector.finals = state.finals;
            collector.step = CollectorStep::RecordsRead;
        }),
        CollectorStep::RecordsRead => go("G4 snapshots", &|state, collector| {
            collector.needed = state.needed();
            collector.step = CollectorStep::SnapshotsListed;
        }),
        CollectorStep::SnapshotsListed => {
            let victims = collector.victims & state.there;
            let survivors = state.there & !collector.condemned & !victims;
            let lacks = collector.needed && survivors == 0 && victims != 0;
            if lacks && variant == Variant::TakenBack {
                go("G4 packs, takes back", &|state, collector| {
                    state.finals &= !collector.finals;
                    collector.step = CollectorStep::Idle;
                });
            } else if lacks && state.free_slot().is_none() {
                go("G4 packs, keeps them", &|_, collector| collector.step = CollectorStep::Idle);
            } else {
                go("G4 packs, moves", &|state, collector| {
                    if lacks {
                        state.store();
                    }
                    if variant == Variant::RecordRemovedFirst {
                        state.finals &= !collector.finals;
                    }
                    collector.victims = victims;
                    collector.step = CollectorStep::Deleting;
                });
            }
        }
        CollectorStep::Deleting => {
            let first = collector.victims & collector.victims.wrapping_neg();
            go("G6", &|state, collector| {
                state.there &= !first;
                collector.victims &= !first;
                if collector.victims == 0 {
                    collector.step = CollectorStep::Deleted;
                }
            });
        }
        CollectorStep::Deleted => go("G7", &|state, collector| {
            let ended = (1..8).filter(|mask| state.there & mask == 0).fold(0, |all, mask| all | 1 << mask);
            state.finals &= !ended;
            if variant == Variant::NothingFinal {
                state.announced &= !ended;
            }
            collector.step = CollectorStep::Idle;
        }),
    }
    if collector.runs > 0 && collector.step != CollectorStep::Idle {
        go("a collector crashes and begins anew", &|_, collector| collector.step = CollectorStep::Idle);
    }
}

/// The standard library's hash is meant for keys that others choose.
#[derive(Default)]
struct QuickHasher(u64);

impl Hasher for QuickHasher {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(byte.into());
    }

    fn write_isize(&mut self, number: isize) {
        self.write_u64(number as u64);
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

/// Every state that can be reached, breadth first; the way to the first unsound one, if there is any.
fn explore(variant: Variant, runs: [u8; 2]) -> (usize, Option<Vec<&'static str>>) {
    let start = State {
        there: 0b0011,
        ever: 0b0011,
        announced: 0,
        finals: 0,
        old_snapshot: true,
        writers: Default::default(),
        collectors: runs.map(|runs| Collector { runs, ..Collector::default() }),
    };
    let mut known: HashSet<State, BuildHasherDefault<QuickHasher>> = HashSet::from_iter([start]);
    let mut order: Vec<(State, u32, &'static str)> = vec![(start, 0, "")];
    let mut at = 0;
    let mut next = Vec::new();
    while at < order.len() {
        let state = order[at].0;
        if !state.is_sound() {
            let mut way = Vec::new();
            let mut here = at;
            while here != 0 {
                way.push(order[here].2);
                here = order[here].1 as usize;
            }
            way.reverse();
            return (order.len(), Some(way));
        }
        next.clear();
        for who in 0..2 {
            writer_steps(&state, who, variant, &mut next);
            collector_steps(&state, who, variant, &mut next);
        }
        if state.old_snapshot {
            next.push(("the old snapshot is forgotten", State { old_snapshot: false, ..state }));
        }
        for (label, state) in next.drain(..) {
            let state = canonical(state, variant);
            if known.insert(state) {
                order.push((state, at as u32, label));
            }
        }
        at += 1;
    }
    (order.len(), None)
}

/// The same state, without what nobody will look at any more, and with two of a kind in order.
fn canonical(mut state: State, variant: Variant) -> State {
    for writer in &mut state.writers {
        if matches!(writer.step, WriterStep::Success | WriterStep::Withdrawn | WriterStep::Conflict) {
            *writer = Writer { step: writer.step, visible: writer.visible, ..Writer::default() };
        } else if matches!(writer.step, WriterStep::Chosen | WriterStep::NothingChosen | WriterStep::Visible) {
            writer.read = 0;
        }
    }
    for collector in &mut state.collectors {
        let Collector { step, runs, victims, .. } = *collector;
        match step {
            CollectorStep::Idle | CollectorStep::Deleted => *collector = Collector { step, runs, ..Collector::default() },
            CollectorStep::Doomed | CollectorStep::Deleting => *collector = Collector { step, runs, victims, ..Collector::default() },
            CollectorStep::Planned | CollectorStep::RecordsRead | CollectorStep::SnapshotsListed => {}
        }
        if !matches!(variant, Variant::TakenBack | Variant::RecordRemovedFirst) {
            collector.finals = 0;
        }
        if !matches!(step, CollectorStep::Planned) {
            (collector.announced, collector.ripe) = (0, 0);
        }
    }
    let writer = |writer: &Writer| (writer.step as u8, writer.read, writer.relies_on, writer.visible);
    if writer(&state.writers[0]) > writer(&state.writers[1]) {
        state.writers.swap(0, 1);
    }
    let collector = |c: &Collector| (c.step as u8, c.runs, c.announced, c.ripe, c.victims, c.condemned, c.finals, c.needed);
    if collector(&state.collectors[0]) > collector(&state.collectors[1]) {
        state.collectors.swap(0, 1);
    }
    state
}

fn must_hold(variant: Variant, runs: [u8; 2]) {
    let (states, way) = explore(variant, runs);
    println!("{variant:?}: {states} states");
    assert!(states > 10_000, "{states}");
    assert_eq!(way, None, "{variant:?}");
}

#[test]
fn nothing_is_lost_in_any_interleaving() {
    must_hold(Variant::Whole, [2, 1]);
}

#[test]
fn nothing_is_lost_with_writers_of_version_0_1_0() {
    must_hold(Variant::OldWriters, [1, 1]);
}

/// Some 25 million states each: minutes, and gigabytes.
#[test]
#[ignore = "takes minutes and gigabytes"]
fn nothing_is_lost_when_both_collectors_run_twice() {
    must_hold(Variant::Whole, [2, 2]);
    must_hold(Variant::OldWriters, [2, 2]);
}

#[test]
fn each_rule_is_needed() {
    for variant in [
        Variant::NoSecondLook,
        Variant::PacksBeforeRecords,
        Variant::StaleFiles,
        Variant::NoLookAfterwards,
        Variant::RecordRemovedFirst,
        Variant::TakenBack,
        Variant::Blind,
        Variant::NothingFinal,
    ] {
        let (states, way) = explore(variant, [2, 1]);
        let way = way.unwrap_or_else(|| panic!("{variant:?}: {states} states and no counterexample"));
        println!("{variant:?}, after {states} states: {}", way.join(", "));
    }
}
