//! A store that fails when its plan says so. A fault is a parameter of a test: a plan sees every call and may answer with
//! one; without one the call goes to the store inside.
//!
//! The plan runs before the call and without any lock held, so it may also change the store inside, as another host would.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

use super::{Area, Backend, Leftover, Listed, Place, Result};
use crate::error::{StorageError, StorageErrorKind};

/// What a call asks of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    CreateAreas,
    Put,
    Get,
    ReadAt,
    List,
    Delete,
    SetAside,
    Settle,
}

/// One call, as a plan sees it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Counted from 0 over every operation.
    pub number: u64,
    pub operation: Operation,
    /// The top for `CreateAreas`.
    pub area: Area,
    /// None for `CreateAreas`, `List` and `Settle`.
    pub place: Option<&'a Place>,
}

/// What goes wrong with a call. One that does not suit its operation is a mistake of the plan and panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Any: nothing is done.
    Error(StorageErrorKind),
    /// Any: this call and every later one fails, and nothing is done.
    Crash,
    /// Put, delete, set aside, create areas: it is done, but the reply is lost.
    StoredThenError(StorageErrorKind),
    /// Put: a store that breaks its promise shows only this many bytes under the name, and the call fails.
    TornThenError(usize),
    /// Get, range: this bit of what was read is the other one, counted round if there are fewer.
    FlipBit(u64),
    /// Get, list: only this many bytes, or of the names in order, come back. Range: `Short` if it asks for more.
    Truncate(usize),
    /// List: the last so many files of the area that were put through this wrapper are not there yet.
    HideNewest(usize),
}

type Plan = dyn Fn(&Call) -> Option<Fault> + Send + Sync;

/// A store with a plan of faults.
pub struct Faulty<B> {
    inner: B,
    plan: Box<Plan>,
    calls: AtomicU64,
    crashed: AtomicBool,
    /// In the order they were put.
    put: Mutex<Vec<Place>>,
}

impl<B: Backend> Faulty<B> {
    pub fn new(inner: B, plan: impl Fn(&Call) -> Option<Fault> + Send + Sync + 'static) -> Self {
        Self { inner, plan: Box::new(plan), calls: AtomicU64::new(0), crashed: AtomicBool::new(false), put: Mutex::new(Vec::new()) }
    }

    /// A store whose call of that number fails so.
    pub fn at(inner: B, number: u64, fault: Fault) -> Self {
        Self::new(inner, move |call| (call.number == number).then_some(fault))
    }

    /// Calls made so far: the numbers a sweep over every call goes through.
    pub fn calls(&self) -> u64 {
        self.calls.load(SeqCst)
    }

    /// The store inside, without faults.
    pub fn inner(&self) -> &B {
        &self.inner
    }

    /// Asks the plan. A fault that keeps the call from being done at all is an error here.
    fn consult<'a>(&self, operation: Operation, area: Area, place: Option<&'a Place>) -> Result<(Call<'a>, Option<Fault>)> {
        let call = Call { number: self.calls.fetch_add(1, SeqCst), operation, area, place };
        let fault = (self.plan)(&call);
        if fault == Some(Fault::Crash) {
            self.crashed.store(true, SeqCst);
        }
        if self.crashed.load(SeqCst) {
            return Err(self.error(StorageErrorKind::Other, &call, "the store is gone since the crash"));
        }
        match fault {
            Some(Fault::Error(kind)) => Err(self.error(kind, &call, "injected fault")),
            fault => {
                assert!(fault.is_none_or(|fault| fault.suits(operation)), "{fault:?} does not suit {call:?}");
                Ok((call, fault))
            }
        }
    }

    fn error(&self, kind: StorageErrorKind, call: &Call, why: &str) -> StorageError {
        let action = match call.operation {
            Operation::CreateAreas => "create",
            Operation::Put => "write",
            Operation::Get | Operation::ReadAt => "read",
            Operation::List => "list",
            Operation::Delete => "delete",
            Operation::SetAside => "set aside",
            Operation::Settle => "sync",
        };
        let object = call.place.map_or_else(|| format!("folder {}", call.area.folder()), ToString::to_string);
        StorageError { kind, action, object, location: self.inner.location(), source: io::Error::other(why.to_owned()) }
    }

    /// The reply of a call that was done, unless it is lost.
    fn reply(&self, call: &Call, fault: Option<Fault>) -> Result<()> {
        match fault {
            Some(Fault::StoredThenError(kind)) => Err(self.error(kind, call, "injected fault: the reply was lost")),
            _ => Ok(()),
        }
    }

    fn put_order(&self) -> std::sync::MutexGuard<'_, Vec<Place>> {
        self.put.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fault {
    fn suits(self, operation: Operation) -> bool {
        use Operation::{CreateAreas, Delete, Get, List, Put, ReadAt, SetAside};
        match self {
            Self::Error(_) | Self::Crash => true,
            Self::StoredThenError(_) => matches!(operation, Put | Delete | SetAside | CreateAreas),
            Self::TornThenError(_) => operation == Put,
            Self::FlipBit(_) => matches!(operation, Get | ReadAt),
            Self::Truncate(_) => matches!(operation, Get | ReadAt | List),
            Self::HideNewest(_) => operation == List,
        }
    }
}

impl<B: Backend> Backend for Faulty<B> {
    fn put(&self, place: &Place, bytes: &[u8]) -> Result<()> {
        let (call, fault) = self.consult(Operation::Put, place.area, Some(place))?;
        if let Some(Fault::TornThenError(len)) = fault {
            self.inner.put(place, &bytes[..len.min(bytes.len())])?;
            return Err(self.error(StorageErrorKind::Other, &call, "injected fault: torn write"));
        }
        self.inner.put(place, bytes)?;
        self.put_order().push(place.clone());
        self.reply(&call, fault)
    }

    fn get(&self, place: &Place, bytes_max: u64) -> Result<Vec<u8>> {
        let (_, fault) = self.consult(Operation::Get, place.area, Some(place))?;
        let mut bytes = self.inner.get(place, bytes_max)?;
        match fault {
            Some(Fault::FlipBit(bit)) => flip(&mut bytes, bit),
            Some(Fault::Truncate(len)) => bytes.truncate(len),
            _ => {}
        }
        Ok(bytes)
    }

    fn read_at(&self, place: &Place, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let (call, fault) = self.consult(Operation::ReadAt, place.area, Some(place))?;
        self.inner.read_at(place, offset, buffer)?;
        match fault {
            Some(Fault::FlipBit(bit)) => flip(buffer, bit),
            Some(Fault::Truncate(len)) if len < buffer.len() => {
                return Err(self.error(StorageErrorKind::Short, &call, "injected fault: the file ends before the range does"));
            }
            _ => {}
        }
        Ok(())
    }

    fn list(&self, area: Area) -> Result<Vec<Listed>> {
        let (_, fault) = self.consult(Operation::List, area, None)?;
        let mut listed = self.inner.list(area)?;
        match fault {
            Some(Fault::Truncate(len)) => {
                listed.sort();
                listed.truncate(len);
            }
            Some(Fault::HideNewest(count)) => {
                let put = self.put_order();
                let hidden: Vec<_> = put.iter().rev().filter(|place| place.area == area).take(count).collect();
                listed.retain(|file| !hidden.iter().any(|place| place.name == file.name));
            }
            _ => {}
        }
        Ok(listed)
    }

    fn delete(&self, place: &Place) -> Result<()> {
        let (call, fault) = self.consult(Operation::Delete, place.area, Some(place))?;
        self.inner.delete(place)?;
        self.put_order().retain(|put| put != place);
        self.reply(&call, fault)
    }

    fn set_aside(&self, place: &Place) -> Result<String> {
        let (call, fault) = self.consult(Operation::SetAside, place.area, Some(place))?;
        let path = self.inner.set_aside(place)?;
        self.put_order().retain(|put| put != place);
        self.reply(&call, fault).map(|()| path)
    }

    fn settle(&self, area: Area) -> Result<()> {
        self.consult(Operation::Settle, area, None)?;
        self.inner.settle(area)
    }

    fn location(&self) -> String {
        self.inner.location()
    }

    fn create_areas(&self) -> Result<()> {
        let (call, fault) = self.consult(Operation::CreateAreas, Area::Top, None)?;
        self.inner.create_areas()?;
        self.reply(&call, fault)
    }

    fn forget_cached(&self, place: &Place) {
        self.inner.forget_cached(place);
    }

    fn leftovers(&self) -> Result<Vec<Leftover>> {
        self.consult(Operation::List, Area::Top, None)?;
        self.inner.leftovers()
    }

    fn remove_leftover(&self, name: &str) -> Result<()> {
        let (call, fault) = self.consult(Operation::Delete, Area::Top, None)?;
        self.inner.remove_leftover(name)?;
        self.reply(&call, fault)
    }
}

fn flip(bytes: &mut [u8], bit: u64) {
    if !bytes.is_empty() {
        let bit = bit % (bytes.len() as u64 * 8);
        bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Memory;
    use super::*;
    use crate::id::ObjectName;

    fn place(number: u8) -> Place {
        Place::pack(ObjectName([number; 32]))
    }

    /// A store with packs 1 to 3 whose next call fails so.
    fn with(fault: Fault) -> (Memory, Faulty<Memory>) {
        let memory = Memory::new();
        let store = Faulty::at(memory.clone(), 4, fault);
        store.create_areas().unwrap();
        for number in 1..=3 {
            store.put(&place(number), b"12345678").unwrap();
        }
        (memory, store)
    }

    fn names(listed: &[Listed]) -> Vec<&str> {
        listed.iter().map(|file| &file.name[..2]).collect()
    }

    #[test]
    fn an_error_keeps_the_call_from_being_done_and_only_that_one() {
        let (memory, store) = with(Fault::Error(StorageErrorKind::Transient));
        assert_eq!(store.put(&place(4), b"4").unwrap_err().kind, StorageErrorKind::Transient);
        assert_eq!(memory.places().len(), 3);
        store.put(&place(4), b"4").unwrap();
        assert_eq!(store.calls(), 6);
    }

    #[test]
    fn after_a_crash_nothing_is_done_any_more() {
        let (memory, store) = with(Fault::Crash);
        store.delete(&place(1)).unwrap_err();
        store.put(&place(4), b"4").unwrap_err();
        store.get(&place(1), 8).unwrap_err();
        store.list(Area::Packs).unwrap_err();
        assert_eq!(memory.places(), [place(1), place(2), place(3)]);
    }

    #[test]
    fn a_lost_reply_and_a_torn_write_leave_something_behind() {
        for (fault, left) in [(Fault::StoredThenError(StorageErrorKind::Transient), "whole"), (Fault::TornThenError(2), "wh")] {
            let (memory, store) = with(fault);
            store.put(&place(4), b"whole").unwrap_err();
            assert_eq!(memory.get(&place(4), 9).unwrap(), left.as_bytes());
        }
        let (memory, store) = with(Fault::StoredThenError(StorageErrorKind::Transient));
        store.delete(&place(1)).unwrap_err();
        assert_eq!(memory.places().len(), 2);
    }

    #[test]
    fn what_is_read_is_wrong_once() {
        let (_, store) = with(Fault::FlipBit(9));
        assert_eq!(store.get(&place(1), 8).unwrap(), b"10345678");
        assert_eq!(store.get(&place(1), 8).unwrap(), b"12345678");
        let (_, store) = with(Fault::FlipBit(16 + 1));
        let mut buffer = [0; 2];
        store.read_at(&place(1), 2, &mut buffer).unwrap();
        assert_eq!(&buffer, b"14", "bit 17 of 16 is bit 1");
        let (_, store) = with(Fault::Truncate(3));
        assert_eq!(store.get(&place(1), 8).unwrap(), b"123");
        let (_, store) = with(Fault::Truncate(3));
        assert_eq!(store.read_at(&place(1), 0, &mut [0; 4]).unwrap_err().kind, StorageErrorKind::Short);
    }

    #[test]
    fn listings_lack_the_newest_or_the_rest() {
        let (_, store) = with(Fault::HideNewest(2));
        assert_eq!(names(&store.list(Area::Packs).unwrap()), ["01"]);
        assert_eq!(names(&store.list(Area::Packs).unwrap()), ["01", "02", "03"]);
        let (_, store) = with(Fault::Truncate(2));
        assert_eq!(names(&store.list(Area::Packs).unwrap()), ["01", "02"]);
    }

    #[test]
    fn a_plan_can_act_as_another_host() {
        let memory = Memory::new();
        let other = memory.clone();
        let store = Faulty::new(memory, move |call| {
            if call.operation == Operation::List {
                other.put(&place(7), b"7").unwrap();
            }
            None
        });
        store.create_areas().unwrap();
        assert_eq!(names(&store.list(Area::Packs).unwrap()), ["07"]);
    }
}
