//! Whether a clock can be believed when it decides what is removed.
//!
//! A machine whose battery is empty begins in the year 2000 or so; one that somebody set wrong lies months off. Both show against what
//! the repository knows: when it was made, and when its snapshots were.

use std::collections::BTreeMap;
use std::fmt;

use jiff::{SignedDuration, Timestamp};

use crate::limits::*;

/// Why a clock is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It lies before the repository was made.
    BeforeRepository { now: Timestamp, created: Timestamp },
    /// Most snapshots would be from the future.
    MostSnapshots { now: Timestamp, future: usize, all: usize },
    /// The newest snapshots of most streams would be from the future.
    MostStreams { now: Timestamp, future: usize, all: usize },
}

/// The last moment that does not count as future: clocks of several machines differ a little.
pub fn horizon(now: Timestamp) -> Timestamp {
    now.saturating_add(SignedDuration::from_secs(CLOCK_TOLERANCE_SECONDS)).unwrap_or(Timestamp::MAX)
}

/// Compares a clock with when the repository was made, and with all its snapshots: stream and time of each.
pub fn doubt<S: Ord>(now: Timestamp, created: Timestamp, snapshots: impl IntoIterator<Item = (S, Timestamp)>) -> Option<Doubt> {
    let horizon = horizon(now);
    if created > horizon {
        return Some(Doubt::BeforeRepository { now, created });
    }
    let mut newest: BTreeMap<S, Timestamp> = BTreeMap::new();
    let (mut future, mut all) = (0, 0);
    for (stream, time) in snapshots {
        all += 1;
        future += usize::from(time > horizon);
        let newest = newest.entry(stream).or_insert(time);
        *newest = time.max(*newest);
    }
    let ahead = newest.values().filter(|time| **time > horizon).count();
    match newest.len() {
        _ if future * 2 > all => Some(Doubt::MostSnapshots { now, future, all }),
        // One stream alone may have been on a machine with a wrong clock.
        streams if streams > 1 && ahead * 2 > streams => Some(Doubt::MostStreams { now, future: ahead, all: streams }),
        _ => None,
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BeforeRepository { now, created } => {
                write!(f, "this machine's clock says {now:.0}, but the repository was made at {created:.0}")
            }
            Self::MostSnapshots { now, future, all } => {
                write!(f, "this machine's clock says {now:.0}, but {future} of {all} snapshots are later than that")
            }
            Self::MostStreams { now, future, all } => {
                write!(f, "this machine's clock says {now:.0}, but the newest snapshots of {future} of {all} streams are later than that")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn wrong_clocks_are_told_from_wrong_snapshots() {
        let now = 1_000_000_000;
        let later = now + CLOCK_TOLERANCE_SECONDS + 1;
        let check = |created: i64, snapshots: &[(&str, i64)], believed: bool| {
            let found = doubt(at(now), at(created), snapshots.iter().map(|(stream, time)| (*stream, at(*time))));
            assert_eq!(found.is_none(), believed, "{snapshots:?}: {found:?}");
        };
        check(now, &[], true);
        check(later - 1, &[], true);
        check(later, &[], false);
        check(0, &[("a", now - 5), ("a", later)], true);
        check(0, &[("a", now - 5), ("a", later - 1), ("a", later - 1)], true);
        check(0, &[("a", now - 5), ("a", later), ("a", later)], false);
        // A clock that went back some days: most snapshots are older, but every stream goes on.
        let old = |stream| (stream, now - 50);
        check(0, &[old("a"), old("a"), old("b"), old("b"), ("a", later), ("b", later)], false);
        check(0, &[old("a"), old("a"), old("b"), old("b"), ("b", later)], true);
        check(0, &[old("a"), old("a"), old("b"), old("b"), ("a", later - 1), ("b", later - 1)], true);
    }

    #[test]
    fn a_doubt_says_what_speaks_against_the_clock() {
        let (now, later) = (at(0), at(90_000));
        let text = |doubt: Doubt| doubt.to_string();
        let created = "this machine's clock says 1970-01-01T00:00:00Z, but the repository was made at 1970-01-02T01:00:00Z";
        assert_eq!(text(Doubt::BeforeRepository { now, created: later }), created);
        assert!(text(Doubt::MostSnapshots { now, future: 3, all: 4 }).ends_with("but 3 of 4 snapshots are later than that"));
        assert!(
            text(Doubt::MostStreams { now, future: 2, all: 3 }).ends_with("the newest snapshots of 2 of 3 streams are later than that")
        );
    }

    #[test]
    fn the_ends_of_time_are_no_trouble() {
        assert_eq!(horizon(Timestamp::MAX), Timestamp::MAX);
        assert!(doubt(Timestamp::MIN, Timestamp::MAX, [("a", Timestamp::MAX)]).is_some());
    }
}
