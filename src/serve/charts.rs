//! Drawings: nights as squares, sizes as bars. Plain SVG inside the page, coloured by its style sheet.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use super::html::text;
use super::state::run_of;
use crate::format::report::Outcome;
use crate::id::SnapshotId;
use crate::ops::status::flaw;
use crate::repo::{Stored, StoredReport};
use crate::wording::{count, size};

/// What came of a night, the better the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Night {
    Failed,
    Flawed,
    Good,
}

impl Night {
    fn class(night: Option<Self>) -> &'static str {
        match night {
            None => "none",
            Some(Self::Failed) => "bad",
            Some(Self::Flawed) => "warn",
            Some(Self::Good) => "good",
        }
    }

    fn said(night: Option<Self>) -> &'static str {
        match night {
            None => "nothing",
            Some(Self::Failed) => "failed",
            Some(Self::Flawed) => "with faults",
            Some(Self::Good) => "good",
        }
    }
}

/// The best of every day from `since` on, by the calendar of this machine: one good snapshot makes up for a try that failed before it.
pub fn nights(snapshots: &[&Stored], runs: &[&StoredReport], zone: &TimeZone, since: Timestamp) -> BTreeMap<Date, Night> {
    let mut nights: BTreeMap<Date, Night> = BTreeMap::new();
    let mut add = |time: Timestamp, night: Night| {
        let best = nights.entry(time.to_zoned(zone.clone()).date()).or_insert(night);
        *best = night.max(*best);
    };
    // A run that found fault with its snapshot knows better than the snapshot.
    let faulty = runs.iter().filter(|run| run.report.outcome != Outcome::Good);
    let faulty: HashSet<SnapshotId> = faulty.filter_map(|run| run_of(run).and_then(|run| run.snapshot)).collect();
    for stored in snapshots.iter().filter(|stored| stored.snapshot.time >= since) {
        let (snapshot, is_faulty) = (&stored.snapshot, stored.names().any(|id| faulty.contains(&id)));
        let is_good = flaw(snapshot).is_none() && snapshot.is_good() && snapshot.repaired.is_none() && !is_faulty;
        add(stored.snapshot.time, if is_good { Night::Good } else { Night::Flawed });
    }
    for run in runs.iter().filter(|run| run.report.time >= since) {
        match run.report.outcome {
            // Its snapshot may have been forgotten since.
            Outcome::Good => add(run.report.time, Night::Good),
            Outcome::Partial => add(run.report.time, Night::Flawed),
            Outcome::Failed => add(run.report.time, Night::Failed),
        }
    }
    nights
}

/// The last nights in a row.
pub fn strip(nights: &BTreeMap<Date, Night>, today: Date, days: i32) -> String {
    let width = days * 10 - 2;
    let mut svg = format!("<svg class=\"strip\" viewBox=\"0 0 {width} 12\" role=\"img\" aria-label=\"The last {days} nights\">");
    let (mut good, mut x) = (0, 0);
    for back in (0..days).rev() {
        let Ok(date) = today.checked_sub(i64::from(back).days()) else { continue };
        let night = nights.get(&date).copied();
        good += u32::from(night == Some(Night::Good));
        square(&mut svg, x, 0, 12, date, night);
        x += 10;
    }
    svg.push_str("</svg>");
    let _ = write!(svg, "<span class=\"note\">{good} of the last {days} days good</span>");
    svg
}

fn square(svg: &mut String, x: i32, y: i32, height: i32, date: Date, night: Option<Night>) {
    let (class, said) = (Night::class(night), Night::said(night));
    let _ = write!(
        svg,
        "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"8\" height=\"{height}\" rx=\"1.5\"><title>{date}: {said}</title></rect>"
    );
}

/// Weeks side by side, Monday on top.
pub fn calendar(nights: &BTreeMap<Date, Night>, today: Date, weeks: i32) -> String {
    let (width, height) = (weeks * 10 - 2, 68);
    let mut svg =
        format!("<svg class=\"calendar\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"The nights of {weeks} weeks\">");
    let monday = today.weekday().since(Weekday::Monday);
    let first = today.checked_sub((i64::from(weeks - 1) * 7 + i64::from(monday)).days()).unwrap_or(today);
    for day in 0..weeks * 7 {
        match first.checked_add(i64::from(day).days()) {
            Ok(date) if date <= today => square(&mut svg, day / 7 * 10, day % 7 * 10, 8, date, nights.get(&date).copied()),
            _ => break,
        }
    }
    svg.push_str("</svg>");
    let legend = [Some(Night::Good), Some(Night::Flawed), Some(Night::Failed), None].map(|night| {
        format!(
            "<span class=\"key\"><svg viewBox=\"0 0 8 8\"><rect class=\"{}\" width=\"8\" height=\"8\" rx=\"1.5\"/></svg>{}</span>",
            Night::class(night),
            Night::said(night)
        )
    });
    let _ = write!(svg, "<p class=\"note\">{first} to {today} {}</p>", legend.concat());
    svg
}

/// Sizes over time: a bar for each snapshot, and in it what it added to the store.
pub fn sizes(snapshots: &[&Stored], zone: &TimeZone) -> String {
    const HEIGHT: f64 = 100.0;
    let Some(highest) = snapshots.iter().map(|stored| stored.snapshot.totals.bytes.max(stored.snapshot.totals.bytes_stored)).max() else {
        return String::new();
    };
    let scale = HEIGHT / highest.max(1) as f64;
    let pitch = (400.0 / snapshots.len().max(20) as f64).max(1.0);
    let width = pitch * snapshots.len().max(20) as f64;
    let mut svg = format!(
        "<svg class=\"sizes\" viewBox=\"0 0 {width:.1} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"Sizes over time\">"
    );
    for (at, stored) in snapshots.iter().enumerate() {
        let (totals, x) = (&stored.snapshot.totals, at as f64 * pitch);
        let day = stored.snapshot.time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M");
        let mut bar = |class: &str, bytes: u64| {
            let height = (bytes as f64 * scale).max(0.5);
            let _ = write!(
                svg,
                "<rect class=\"{class}\" x=\"{x:.2}\" y=\"{:.2}\" width=\"{:.2}\" height=\"{height:.2}\"/>",
                HEIGHT - height,
                pitch * 0.8
            );
        };
        bar("whole", totals.bytes);
        bar("added", totals.bytes_stored);
        let said = text(&format!("{day}: {}, {} stored", size(totals.bytes), size(totals.bytes_stored)));
        let _ =
            write!(svg, "<rect class=\"over\" x=\"{x:.2}\" y=\"0\" width=\"{pitch:.2}\" height=\"{HEIGHT}\"><title>{said}</title></rect>");
    }
    let stored: u64 = snapshots.iter().map(|stored| stored.snapshot.totals.bytes_stored).sum();
    let _ = write!(
        svg,
        "</svg><p class=\"note\">{}, the largest {}; {} stored for all <span class=\"key\"><svg viewBox=\"0 0 8 8\"><rect class=\"whole\" width=\"8\" height=\"8\"/></svg>size</span><span class=\"key\"><svg viewBox=\"0 0 8 8\"><rect class=\"added\" width=\"8\" height=\"8\"/></svg>stored</span></p>",
        count(snapshots.len() as u64, "snapshot"),
        size(highest),
        size(stored)
    );
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calendar_has_every_day_once() {
        let today = Date::new(2026, 11, 21).unwrap();
        let nights = BTreeMap::from([(today, Night::Good), (Date::new(2026, 11, 20).unwrap(), Night::Failed)]);
        let drawn = calendar(&nights, today, 26);
        // A Saturday: Sunday is still to come.
        assert_eq!(drawn.matches("<title>").count(), 26 * 7 - 1);
        assert!(drawn.contains("2026-11-21: good") && drawn.contains("2026-11-20: failed") && !drawn.contains("2026-11-22"));
        let row = strip(&nights, today, 30);
        assert_eq!((row.matches("<rect").count(), row.matches("class=\"good\"").count()), (30, 1));
        assert!(row.contains("1 of the last 30 days good"));
    }
}
