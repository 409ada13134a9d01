//! The real program hurt at each of its calls to the kernel: killed, a sync that fails, a disk that is full from there on, calls that
//! are interrupted, writes that stop half-way.
//!
//! By default some calls of each command, which a seed chooses; `SWEEP_STRIDE=1`, or `--ignored`, tries every one.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use nix::libc::{EINTR, EIO, ENOSPC};

use crate::damage::all;
use crate::proof::*;
use crate::support::*;
use crate::trace::{self, Call, Order, Watcher, What};

/// Calls of each command that are tried by default.
const TRIALS: u64 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Killed before the Nth change.
    Kill,
    /// The Nth sync fails once, and what was written is lost with it, as kernels do it.
    SyncFails,
    /// From the Nth call on that takes space there is none.
    Full,
}

/// A fault at the Nth call of its kind.
struct At {
    fault: Fault,
    number: u64,
    seen: u64,
}

impl Watcher for At {
    fn before(&mut self, call: &Call) -> Order {
        let counts = match self.fault {
            Fault::Kill => call.what.changes(),
            Fault::SyncFails => matches!(call.what, What::Sync | What::SyncAll),
            Fault::Full => call.what.needs_space(),
        };
        if !counts {
            return Order::Go;
        }
        let number = self.seen;
        self.seen += 1;
        match self.fault {
            Fault::Kill if number == self.number => Order::Kill,
            Fault::SyncFails if number == self.number => {
                lose(&call.path);
                Order::Fail(EIO)
            }
            Fault::Full if number >= self.number => Order::Fail(ENOSPC),
            _ => Order::Go,
        }
    }
}

/// The pages of a file that could not be written are dropped by the kernel; later syncs say that all is well.
pub fn lose(path: &Path) {
    if path.is_file() {
        let len = fs::metadata(path).unwrap().len() as usize;
        fs::write(path, vec![0; len]).unwrap();
    }
}

/// Runs the command with this watching.
pub fn watched(origin: &Origin, site: &Site, watcher: &mut dyn Watcher) -> trace::Ran {
    let command: Command = origin.command(site);
    trace::run(&command, Some(&site.at("input")), &site.path, watcher)
}

/// How many calls of the fault's kind a run makes.
fn calls(origin: &Origin, fault: Fault) -> u64 {
    let (_folder, site) = origin.site();
    let mut counting = At { fault, number: u64::MAX, seen: 0 };
    let ran = watched(origin, &site, &mut counting);
    assert!(ran.code.is_some_and(|code| origin.subject.again.contains(&code)), "{}: {ran:?}", origin.subject.name);
    counting.seen
}

/// What must hold after one run with one fault.
fn trial(origin: &Origin, fault: Fault, number: u64) -> Verdict {
    let (_folder, site) = origin.site();
    let mut at = At { fault, number, seen: 0 };
    let ran = watched(origin, &site, &mut at);
    let was_hit = at.seen > number;
    match (fault, ran.code) {
        (Fault::Kill, None) => {}
        (Fault::Kill, Some(code)) if was_hit => return Err(format!("it was killed and ended with {code}: {}", ran.said)),
        (_, Some(0)) => {}
        (Fault::Full, Some(1)) if ran.said.contains("No space left") => {}
        // A restore says of each file that it could not be written.
        (Fault::Full, Some(3)) if origin.subject.name == "restore" && ran.said.contains("No space left") => {}
        (Fault::SyncFails, Some(1)) if ran.said.contains("Input/output error") => {}
        // As without any fault.
        (_, Some(code)) if code == origin.subject.again[0] => {}
        (_, code) => return Err(format!("it ended with {code:?}: {}", ran.said)),
    }
    if ran.said.contains("panicked") || ran.said.contains("Internal error") {
        return Err(ran.said);
    }
    site.is_restored_in_part()?;
    origin.judge(&site, ran.code)
}

/// Every call, or some of them.
fn sweep(fault: Fault, stride: Option<u64>) {
    if !trace::is_possible("sweep") {
        return;
    }
    let first = seed(&format!("{fault:?}"));
    let mut total = (0, 0);
    for subject in SUBJECTS {
        let origin = Origin::new(subject);
        let calls = calls(&origin, fault);
        let stride = stride.unwrap_or(calls.div_ceil(TRIALS)).max(1);
        // Threads come in changing order, so a run may make some calls more.
        let numbers: Vec<u64> = (first % stride..calls + 2).step_by(stride as usize).collect();
        println!("{fault:?} {}: {calls} calls, {} tried", subject.name, numbers.len());
        total = (total.0 + calls, total.1 + numbers.len());
        all(&numbers, |number| trial(&origin, fault, *number).map_err(|why| format!("{fault:?} {}: {why}", subject.name)));
    }
    println!("{fault:?}: {} calls, {} tried", total.0, total.1);
}

fn stride() -> Option<u64> {
    std::env::var("SWEEP_STRIDE").ok().map(|text| text.parse().expect("SWEEP_STRIDE is a number"))
}

#[test]
fn killed_at_calls_of_every_command() {
    sweep(Fault::Kill, stride());
}

#[test]
fn a_sync_that_fails_in_every_command() {
    sweep(Fault::SyncFails, stride());
}

#[test]
fn a_disk_that_is_full_from_some_call_on() {
    sweep(Fault::Full, stride());
}

#[test]
#[ignore = "takes minutes: every call"]
fn killed_at_every_call_of_every_command() {
    sweep(Fault::Kill, Some(1));
}

#[test]
#[ignore = "takes minutes: every sync"]
fn every_sync_fails_once() {
    sweep(Fault::SyncFails, Some(1));
}

#[test]
#[ignore = "takes minutes: every call"]
fn a_disk_that_is_full_from_every_call_on() {
    sweep(Fault::Full, Some(1));
}

/// Every call is interrupted by a signal before it did anything, and made again.
#[derive(Default)]
struct Interrupting {
    interrupted: HashSet<i32>,
    count: u64,
}

impl Watcher for Interrupting {
    fn before(&mut self, call: &Call) -> Order {
        if call.what == What::Describe || !self.interrupted.insert(call.thread) {
            self.interrupted.remove(&call.thread);
            return Order::Go;
        }
        self.count += 1;
        Order::Fail(EINTR)
    }
}

#[test]
fn calls_that_are_interrupted_are_made_again() {
    if !trace::is_possible("calls_that_are_interrupted_are_made_again") {
        return;
    }
    for subject in SUBJECTS {
        let origin = Origin::new(subject);
        let (_folder, site) = origin.site();
        let mut interrupting = Interrupting::default();
        let ran = watched(&origin, &site, &mut interrupting);
        assert!(ran.code.is_some_and(|code| subject.again[0] == code), "{}: {ran:?}", subject.name);
        assert!(interrupting.count > 10, "{}: {}", subject.name, interrupting.count);
        origin.judge(&site, ran.code).unwrap_or_else(|why| panic!("{}: {why}", subject.name));
    }
}

/// A write may take less than it was given at any time.
#[test]
fn writes_that_stop_half_way_go_on() {
    if !trace::is_possible("writes_that_stop_half_way_go_on") {
        return;
    }
    for subject in SUBJECTS {
        let origin = Origin::new(subject);
        let (_folder, site) = origin.site();
        let ran = watched(&origin, &site, &mut |call: &Call| if call.what == What::Write { Order::Half } else { Order::Go });
        assert!(ran.code.is_some_and(|code| subject.again[0] == code), "{}: {ran:?}", subject.name);
        origin.judge(&site, ran.code).unwrap_or_else(|why| panic!("{}: {why}", subject.name));
    }
}
