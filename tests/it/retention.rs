//! Retention over years of nights, against a table that another implementation computed; and what must hold for any rules at all.

use std::collections::BTreeSet;

use jiff::civil::{Date, DateTime, date};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use snap_backup::id::ObjectName;
use snap_backup::retention::{Age, Candidate, Count, Moment, Period, Policy, Rule, judge};

use crate::support::{Rng, seed};

/// A snapshot of one night.
#[derive(Clone, Debug)]
struct Night {
    id: ObjectName,
    time: Timestamp,
    tags: Vec<String>,
    complete: bool,
}

fn id(number: u64) -> ObjectName {
    ObjectName(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

/// What the policy keeps, in the order given.
fn kept(nights: &[Night], policy: &Policy, moment: &Moment) -> Vec<Night> {
    let group: Vec<Candidate> =
        nights.iter().map(|night| Candidate { id: night.id, time: night.time, tags: &night.tags, complete: night.complete }).collect();
    let reasons = judge(&group, policy, moment);
    nights.iter().zip(reasons).filter(|(_, reasons)| !reasons.is_empty()).map(|(night, _)| night.clone()).collect()
}

fn ids(nights: &[Night]) -> BTreeSet<ObjectName> {
    nights.iter().map(|night| night.id).collect()
}

fn golden() -> Vec<(Date, String)> {
    let text = include_str!("../golden/retention");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once(": ").unwrap()).map(|(night, left)| (night.parse().unwrap(), left.to_owned())).collect()
}

/// Eight years with leap days, changes of the clocks, and years that begin in a week of the year before.
#[test]
fn eight_years_of_nights_leave_what_the_table_says() {
    let number = |period, number| Rule::Count(period, Count::Number(number));
    let rules = [number(Period::Day, 30), number(Period::Week, 12), number(Period::Month, 12), number(Period::Year, 7)];
    let policy = Policy::new(rules, Age::default());
    let golden = golden();
    assert_eq!(golden.len(), 11);
    // At 02:30 clocks are put forward in both places; the others are on another day than in UTC.
    for (name, hour, minute) in
        [("UTC", 2, 30), ("Europe/Berlin", 2, 30), ("Europe/Berlin", 0, 30), ("America/New_York", 2, 30), ("America/New_York", 22, 0)]
    {
        let zone = TimeZone::get(name).unwrap();
        let mut expected = golden.iter().peekable();
        let mut left: Vec<Night> = Vec::new();
        let mut night = date(2024, 1, 1);
        while night <= date(2031, 12, 31) {
            let time = DateTime::from_parts(night, jiff::civil::time(hour, minute, 0, 0)).to_zoned(zone.clone()).unwrap().timestamp();
            left.push(Night { id: id(time.as_second() as u64), time, tags: Vec::new(), complete: true });
            let moment = Moment { now: time + SignedDuration::from_hours(1), zone: zone.clone() };
            left = kept(&left, &policy, &moment);
            if let Some((_, expected)) = expected.next_if(|(day, _)| *day == night) {
                let days: Vec<String> = left.iter().rev().map(|night| night.time.to_zoned(zone.clone()).date().to_string()).collect();
                assert_eq!(days.join(" "), *expected, "{name} {hour}:{minute}, {night}");
            }
            night = night.checked_add(1.day()).unwrap();
        }
        assert!(expected.next().is_none(), "every line was compared");
    }
}

/// Rules at random: small numbers, so that they run out.
fn any_rules(rng: &mut Rng) -> Vec<Rule> {
    let rule = |rng: &mut Rng| {
        let period = Period::ALL[rng.below(6) as usize];
        match rng.below(8) {
            0..4 => Rule::Count(period, Count::Number(rng.below(6) as u32)),
            4 => Rule::Count(period, Count::Unlimited),
            5 => Rule::Tags(vec![["a", "b"][rng.below(2) as usize].to_owned()]),
            _ => Rule::Within(
                period,
                Age { months: rng.below(3) as u32, days: rng.below(9) as u32, hours: rng.below(30) as u32, ..Age::default() },
            ),
        }
    };
    (0..1 + rng.below(4)).map(|_| rule(rng)).collect()
}

fn any_nights(rng: &mut Rng, now: Timestamp) -> Vec<Night> {
    let span = [40, 24 * 30, 24 * 900][rng.below(3) as usize];
    let night = |rng: &mut Rng| Night {
        id: id(rng.next()),
        // Some at the same time, some in the future.
        time: now - SignedDuration::from_mins(30 * (rng.below(2 * span) as i64 - 10)),
        tags: [vec![], vec!["a".to_owned()], vec!["b".to_owned(), "a".into()]][rng.below(3) as usize].clone(),
        complete: rng.below(4) > 0,
    };
    (0..rng.below(40)).map(|_| night(rng)).collect()
}

#[test]
fn whatever_the_rules_some_things_always_hold() {
    let mut rng = Rng::new(seed("retention"));
    let now: Timestamp = "2028-10-29T12:34:00Z".parse().unwrap();
    for case in 0..3000 {
        let zone = TimeZone::get(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"][case % 4]).unwrap();
        let moment = Moment { now, zone };
        let nights = any_nights(&mut rng, now);
        let mut rules = any_rules(&mut rng);
        let min_age = Age { days: (rng.below(4) * rng.below(10)) as u32, ..Age::default() };
        let policy = Policy::new(rules.clone(), min_age);
        let left = kept(&nights, &policy, &moment);
        let case = format!("case {case}: {policy} of {nights:#?}");

        // Applying it twice removes nothing more.
        assert_eq!(ids(&kept(&left, &policy, &moment)), ids(&left), "{case}");
        // Cut short after the newest of what goes, or anywhere on the way to the oldest, it ends the same.
        let mut going: Vec<&Night> = nights.iter().filter(|night| !ids(&left).contains(&night.id)).collect();
        going.sort_by_key(|night| std::cmp::Reverse((night.time, night.id)));
        let gone = ids(&going.iter().take(rng.below(1 + going.len() as u64) as usize).map(|night| (*night).clone()).collect::<Vec<_>>());
        let rest: Vec<Night> = nights.iter().filter(|night| !gone.contains(&night.id)).cloned().collect();
        assert_eq!(ids(&kept(&rest, &policy, &moment)), ids(&left), "{case}");
        // The order of snapshots and of rules does not matter.
        let mut turned = nights.clone();
        turned.reverse();
        let middle = rng.below(1 + turned.len() as u64) as usize;
        turned.rotate_left(middle);
        rules.reverse();
        assert_eq!(ids(&kept(&turned, &Policy::new(rules.clone(), min_age), &moment)), ids(&left), "{case}");
        // More rules never remove more, nor does a minimum age.
        let alone = kept(&nights, &Policy::new(rules.clone(), Age::default()), &moment);
        assert!(ids(&alone).is_subset(&ids(&left)), "{case}");
        if !policy.is_empty() {
            rules.extend(any_rules(&mut rng));
            assert!(ids(&left).is_subset(&ids(&kept(&nights, &Policy::new(rules, min_age), &moment))), "{case}");
        }
        // The newest complete one stays, and something always does.
        let newest = nights.iter().filter(|night| night.complete && night.time <= now).max_by_key(|night| (night.time, night.id));
        assert!(newest.is_none_or(|newest| left.iter().any(|night| night.complete && night.time >= newest.time)), "{case}");
        assert_eq!(left.is_empty(), nights.is_empty(), "{case}");
        // What is lost or unreadable never makes others go.
        let missing = rng.below(1 + nights.len() as u64) as usize;
        let fewer: Vec<Night> = nights.iter().enumerate().filter(|(i, _)| *i != missing).map(|(_, night)| night.clone()).collect();
        let still: BTreeSet<ObjectName> = ids(&fewer).intersection(&ids(&left)).copied().collect();
        assert!(still.is_subset(&ids(&kept(&fewer, &policy, &moment))), "{case}");
    }
}
