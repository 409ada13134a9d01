//! What single rules pick, as far as a few snapshots show it. Years of nights are in `tests/it/retention.rs`.

use super::*;
use crate::id::ObjectName;

/// A snapshot that is not what most are.
fn judge_list(zone: &str, now: &str, list: &[(&str, &[&str], bool)], rules: Vec<Rule>, min_age: &str) -> Vec<String> {
    let tags: Vec<Vec<String>> = list.iter().map(|(_, tags, _)| tags.iter().map(|tag| tag.to_string()).collect()).collect();
    let candidate =
        |i: usize| Candidate { id: ObjectName([i as u8; 32]), time: list[i].0.parse().unwrap(), tags: &tags[i], complete: list[i].2 };
    let group: Vec<Candidate> = (0..list.len()).map(candidate).collect();
    let moment = Moment { now: now.parse().unwrap(), zone: TimeZone::get(zone).unwrap() };
    let policy = Policy::new(rules, min_age.parse().unwrap_or_default());
    let text = |reasons: &Vec<Reason>| reasons.iter().map(Reason::to_string).collect::<Vec<_>>().join("; ");
    judge(&group, &policy, &moment).iter().map(text).collect()
}

fn check(zone: &str, times: &[&str], rules: Vec<Rule>, expected: &[&str]) {
    let list: Vec<(&str, &[&str], bool)> = times.iter().map(|time| (*time, &[][..], true)).collect();
    assert_eq!(judge_list(zone, "2100-01-01T00:00:00Z", &list, rules.clone(), ""), expected, "{rules:?}");
}

fn count(period: Period, number: u32) -> Rule {
    Rule::Count(period, Count::Number(number))
}

#[test]
fn the_newest_of_each_period_is_kept_and_the_oldest_while_picks_are_left() {
    let times = ["2026-11-18T01:00:00Z", "2026-11-18T05:00:00Z", "2026-11-19T01:00:00Z", "2026-11-19T09:00:00Z"];
    let oldest = "oldest daily snapshot";
    check("UTC", &times, vec![count(Period::Day, 1)], &["", "", "", "daily snapshot"]);
    check("UTC", &times, vec![count(Period::Day, 2)], &["", "daily snapshot", "", "daily snapshot"]);
    check("UTC", &times, vec![count(Period::Day, 3)], &[oldest, "daily snapshot", "", "daily snapshot"]);
    check("UTC", &times, vec![Rule::Count(Period::Day, Count::Unlimited)], &[oldest, "daily snapshot", "", "daily snapshot"]);
    check("UTC", &times, vec![count(Period::Each, 2)], &["", "", "last snapshot", "last snapshot"]);
}

#[test]
fn rules_are_joined_and_order_does_not_matter() {
    let times = ["2025-12-31T01:00:00Z", "2026-02-01T05:00:00Z", "2026-02-28T01:00:00Z", "2026-03-01T09:00:00Z"];
    let rules = vec![count(Period::Each, 1), count(Period::Year, 2), count(Period::Month, 2)];
    let newest = "last snapshot; yearly snapshot; monthly snapshot";
    check("UTC", &times, rules.clone(), &["yearly snapshot", "", "monthly snapshot", newest]);
    let mut turned = times;
    turned.reverse();
    check("UTC", &turned, rules, &[newest, "monthly snapshot", "", "yearly snapshot"]);
}

#[test]
fn weeks_are_those_of_the_iso_calendar() {
    // 2026-12-28 to 2027-01-03 is week 53 of 2026; 2025-12-29 begins week 1 of 2026.
    let times = ["2025-12-28T12:00:00Z", "2025-12-29T12:00:00Z", "2026-01-01T12:00:00Z", "2026-12-28T12:00:00Z", "2027-01-03T12:00:00Z"];
    check("UTC", &times, vec![count(Period::Week, 3)], &["weekly snapshot", "", "weekly snapshot", "", "weekly snapshot"]);
}

#[test]
fn periods_are_those_of_the_time_zone() {
    // 23:30 in UTC is the next day in Berlin.
    let times = ["2026-06-30T22:30:00Z", "2026-07-01T08:00:00Z"];
    check("UTC", &times, vec![count(Period::Month, 1), count(Period::Day, 2)], &["daily snapshot", "monthly snapshot; daily snapshot"]);
    check("Europe/Berlin", &times, vec![count(Period::Day, 1)], &["", "daily snapshot"]);
    // On 2026-10-25 the hour from 02:00 to 03:00 came twice in Berlin, on 2026-11-01 the one from 01:00 to 02:00 in New York.
    let twice = ["2026-10-25T00:10:00Z", "2026-10-25T00:50:00Z", "2026-10-25T01:10:00Z", "2026-10-25T01:50:00Z"];
    check("Europe/Berlin", &twice, vec![count(Period::Hour, 2)], &["", "hourly snapshot", "", "hourly snapshot"]);
    let twice = ["2026-11-01T05:10:00Z", "2026-11-01T05:50:00Z", "2026-11-01T06:10:00Z", "2026-11-01T06:50:00Z"];
    check("America/New_York", &twice, vec![count(Period::Hour, 2)], &["", "hourly snapshot", "", "hourly snapshot"]);
}

#[test]
fn within_goes_back_from_the_newest_snapshot() {
    let times = ["2026-11-01T02:00:00Z", "2026-11-13T02:00:00Z", "2026-11-14T02:00:00Z", "2026-11-14T03:00:00Z", "2026-11-21T02:00:00Z"];
    let week = "7d".parse().unwrap();
    // What is exactly seven days older is not within seven days.
    check("UTC", &times, vec![Rule::Within(Period::Each, week)], &["", "", "", "within 7d", "within 7d"]);
    let year = "1y".parse().unwrap();
    let daily = |first| [first, "daily within 1y", "", "daily within 1y", "daily within 1y"];
    check("UTC", &times, vec![Rule::Within(Period::Day, year)], &daily("daily within 1y"));
    check(
        "UTC",
        &times[1..],
        vec![Rule::Within(Period::Week, year)],
        &["oldest weekly within 1y", "", "weekly within 1y", "weekly within 1y"],
    );
}

#[test]
fn tags_keep_what_has_all_of_them() {
    let list: [(&str, &[&str], bool); 4] = [
        ("2026-11-01T02:00:00Z", &["a", "b"], true),
        ("2026-11-02T02:00:00Z", &["a"], true),
        ("2026-11-03T02:00:00Z", &["c"], true),
        ("2026-11-04T02:00:00Z", &[], true),
    ];
    let tags = |tags: &[&str]| Rule::Tags(tags.iter().map(|tag| tag.to_string()).collect());
    let found = judge_list("UTC", "2026-11-21T00:00:00Z", &list, vec![tags(&["a", "b"]), tags(&["c"]), tags(&[])], "");
    assert_eq!(found, ["has tags a,b", "", "has tags c", "last complete snapshot"]);
}

#[test]
fn the_last_complete_snapshot_stays() {
    let list: [(&str, &[&str], bool); 3] =
        [("2026-11-01T02:00:00Z", &[], true), ("2026-11-02T02:00:00Z", &[], true), ("2026-11-03T02:00:00Z", &[], false)];
    let judge_one = |list: &[_]| judge_list("UTC", "2026-11-21T00:00:00Z", list, vec![count(Period::Each, 1)], "");
    assert_eq!(judge_one(&list), ["", "last complete snapshot", "last snapshot"]);
    let partial: Vec<_> = list.iter().map(|(time, tags, _)| (*time, *tags, false)).collect();
    let tagged = Rule::Tags(vec!["none has this".into()]);
    assert_eq!(judge_list("UTC", "2026-11-21T00:00:00Z", &partial, vec![tagged], ""), ["", "", "last snapshot of its group"]);
}

#[test]
fn the_future_is_kept_and_does_not_count() {
    let list: [(&str, &[&str], bool); 4] = [
        ("2026-11-20T02:00:00Z", &[], true),
        ("2026-11-21T02:00:00Z", &[], true),
        ("2026-11-21T02:09:00Z", &[], true),
        ("2036-11-21T02:00:00Z", &[], true),
    ];
    let within = Rule::Within(Period::Each, "1d".parse().unwrap());
    let found = judge_list("UTC", "2026-11-21T02:00:00Z", &list, vec![count(Period::Each, 1), within], "");
    assert_eq!(found, ["", "within 1d", "last snapshot; within 1d", "in the future"]);
}

#[test]
fn what_is_younger_than_asked_stays() {
    let times = ["2026-11-18T02:00:00Z", "2026-11-19T02:00:00Z", "2026-11-20T02:00:00Z", "2026-11-21T02:00:00Z"];
    let list: Vec<(&str, &[&str], bool)> = times.iter().map(|time| (*time, &[][..], true)).collect();
    let found = judge_list("UTC", "2026-11-21T03:00:00Z", &list, vec![count(Period::Each, 1)], "2d");
    assert_eq!(found, ["", "", "younger than 2d", "last snapshot; younger than 2d"]);
    let found = judge_list("UTC", "2026-11-21T02:00:00Z", &list, vec![count(Period::Each, 1)], "2d");
    assert_eq!(found[1], "", "what is just as old is not younger");
}

#[test]
fn a_policy_without_rules_keeps_all() {
    let policy = Policy::new([count(Period::Day, 0), Rule::Within(Period::Each, Age::default()), Rule::Tags(Vec::new())], Age::default());
    assert!(policy.is_empty());
    check("UTC", &["2026-11-18T02:00:00Z"; 2], vec![count(Period::Day, 0)], &["no rule is given"; 2]);
}

#[test]
fn policies_read_as_they_are_written() {
    let rules = [
        count(Period::Day, 7),
        Rule::Count(Period::Each, "unlimited".parse().unwrap()),
        Rule::Within(Period::Each, "1y6m".parse().unwrap()),
        Rule::Within(Period::Hour, "2d".parse().unwrap()),
        Rule::Tags(vec!["a".into(), "b".into()]),
    ];
    let shown = "keep-daily 7 keep-last unlimited keep-within 1y6m keep-within-hourly 2d keep-tag a,b";
    assert_eq!(Policy::new(rules, Age::default()).to_string(), shown);
    for (text, expected) in [("0", Some(Count::Number(0))), ("-1", Some(Count::Unlimited)), ("-2", None), ("x", None), ("", None)] {
        assert_eq!(text.parse::<Count>().ok(), expected, "{text}");
    }
}
