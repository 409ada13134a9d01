//! A store that counts what is asked of the one inside, so that tests can assert the work an operation causes
//! and reports can state it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Area, Backend, Leftover, Listed, Place, Result};

/// A store that counts.
pub struct Counting<B> {
    inner: B,
    puts: AtomicU64,
    gets: AtomicU64,
    ranges: AtomicU64,
    lists: AtomicU64,
    deletes: AtomicU64,
    asides: AtomicU64,
    bytes_put: AtomicU64,
    bytes_got: AtomicU64,
}

/// Calls made of a store, failed ones included, and the bytes of those that succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    pub puts: u64,
    pub gets: u64,
    pub ranges: u64,
    pub lists: u64,
    pub deletes: u64,
    /// Files that were set aside.
    pub asides: u64,
    pub bytes_put: u64,
    /// By whole files and by ranges.
    pub bytes_got: u64,
}

/// The calls between two counts.
impl std::ops::Sub for Calls {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            puts: self.puts - earlier.puts,
            gets: self.gets - earlier.gets,
            ranges: self.ranges - earlier.ranges,
            lists: self.lists - earlier.lists,
            deletes: self.deletes - earlier.deletes,
            asides: self.asides - earlier.asides,
            bytes_put: self.bytes_put - earlier.bytes_put,
            bytes_got: self.bytes_got - earlier.bytes_got,
        }
    }
}

impl<B: Backend> Counting<B> {
    pub fn new(inner: B) -> Self {
        let zero = || AtomicU64::new(0);
        let (puts, gets, ranges, lists) = (zero(), zero(), zero(), zero());
        Self { inner, puts, gets, ranges, lists, deletes: zero(), asides: zero(), bytes_put: zero(), bytes_got: zero() }
    }

    /// The counts so far.
    pub fn calls(&self) -> Calls {
        Calls {
            puts: self.puts.load(Relaxed),
            gets: self.gets.load(Relaxed),
            ranges: self.ranges.load(Relaxed),
            lists: self.lists.load(Relaxed),
            deletes: self.deletes.load(Relaxed),
            asides: self.asides.load(Relaxed),
            bytes_put: self.bytes_put.load(Relaxed),
            bytes_got: self.bytes_got.load(Relaxed),
        }
    }

    /// The store inside, uncounted.
    pub fn inner(&self) -> &B {
        &self.inner
    }
}

impl<B: Backend> Backend for Counting<B> {
    fn put(&self, place: &Place, bytes: &[u8]) -> Result<()> {
        self.puts.fetch_add(1, Relaxed);
        self.inner.put(place, bytes)?;
        self.bytes_put.fetch_add(bytes.len() as u64, Relaxed);
        Ok(())
    }

    fn get(&self, place: &Place, bytes_max: u64) -> Result<Vec<u8>> {
        self.gets.fetch_add(1, Relaxed);
        let bytes = self.inner.get(place, bytes_max)?;
        self.bytes_got.fetch_add(bytes.len() as u64, Relaxed);
        Ok(bytes)
    }

    fn read_at(&self, place: &Place, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.ranges.fetch_add(1, Relaxed);
        self.inner.read_at(place, offset, buffer)?;
        self.bytes_got.fetch_add(buffer.len() as u64, Relaxed);
        Ok(())
    }

    fn list(&self, area: Area) -> Result<Vec<Listed>> {
        self.lists.fetch_add(1, Relaxed);
        self.inner.list(area)
    }

    fn delete(&self, place: &Place) -> Result<()> {
        self.deletes.fetch_add(1, Relaxed);
        self.inner.delete(place)
    }

    fn set_aside(&self, place: &Place) -> Result<String> {
        self.asides.fetch_add(1, Relaxed);
        self.inner.set_aside(place)
    }

    fn settle(&self, area: Area) -> Result<()> {
        self.inner.settle(area)
    }

    fn location(&self) -> String {
        self.inner.location()
    }

    fn create_areas(&self) -> Result<()> {
        self.inner.create_areas()
    }

    fn forget_cached(&self, place: &Place) {
        self.inner.forget_cached(place);
    }

    fn leftovers(&self) -> Result<Vec<Leftover>> {
        self.lists.fetch_add(1, Relaxed);
        self.inner.leftovers()
    }

    fn remove_leftover(&self, name: &str) -> Result<()> {
        self.deletes.fetch_add(1, Relaxed);
        self.inner.remove_leftover(name)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Memory;
    use super::*;
    use crate::id::ObjectName;

    #[test]
    fn counts_every_call_and_the_bytes_of_those_that_succeed() {
        let store = Counting::new(Memory::new());
        store.create_areas().unwrap();
        let place = Place::pack(ObjectName::of(b"12345"));
        store.put(&place, b"12345").unwrap();
        store.put(&place, b"12345").unwrap_err();
        let before = store.calls();
        assert_eq!(before, Calls { puts: 2, bytes_put: 5, ..Calls::default() });

        store.get(&place, 5).unwrap();
        store.get(&place, 4).unwrap_err();
        store.read_at(&place, 1, &mut [0; 3]).unwrap();
        store.list(Area::Packs).unwrap();
        store.set_aside(&place).unwrap();
        store.delete(&place).unwrap_err();
        let after = Calls { gets: 2, ranges: 1, lists: 1, deletes: 1, asides: 1, bytes_got: 8, ..Calls::default() };
        assert_eq!(store.calls() - before, after);
    }
}
