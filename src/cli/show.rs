//! Sizes, durations, times and tables for people, and reading sizes and times that people wrote.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::format::entry::Entry;
pub use crate::wording::{count, duration, size};

/// A rate: `389 MiB/s`.
pub fn rate(bytes: u64, seconds: f64) -> String {
    // A clock's tick, so that nothing is infinitely fast.
    format!("{}/s", size((bytes as f64 / seconds.max(0.001)) as u64))
}

/// How many times smaller: `5.6 times smaller`; nothing if that is not worth a word.
pub fn times_smaller(plain: u64, stored: u64) -> Option<String> {
    let times = plain as f64 / stored.max(1) as f64;
    match times {
        _ if times < 1.05 => None,
        _ if times < 99.5 => Some(format!("{times:.1} times smaller")),
        _ => Some(format!("{times:.0} times smaller")),
    }
}

/// A moment in local time: `2026-11-21 02:00:00`.
pub fn time(time: Timestamp) -> String {
    time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Reads `2026-11-21 02:00:00` (local time), `2026-11-21`, or RFC 3339.
pub fn parse_time(text: &str) -> Result<Timestamp, String> {
    parse_time_in(text, TimeZone::system())
}

fn parse_time_in(text: &str, zone: TimeZone) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let local: Option<DateTime> = text.parse().ok();
    let zoned = local.and_then(|local| local.to_zoned(zone).ok());
    zoned.map(|zoned| zoned.timestamp()).ok_or_else(|| "write \"2026-11-21 02:00:00\" (local time) or 2026-11-21T02:00:00Z".into())
}

pub use crate::config::parse_size;

/// A column of a table.
#[derive(Clone, Copy)]
pub enum Column {
    Left(&'static str),
    Right(&'static str),
}

/// Rows under headings, with a line between; columns two spaces apart.
pub fn table(columns: &[Column], rows: &[Vec<String>]) -> String {
    let headings: Vec<String> = columns.iter().map(|(Column::Left(text) | Column::Right(text))| text.to_string()).collect();
    let widths: Vec<usize> =
        (0..columns.len()).map(|i| rows.iter().chain([&headings]).map(|row| row[i].chars().count()).max().unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(columns).zip(&widths).map(|((cell, column), &width)| match column {
            Column::Left(_) => format!("{cell:<width$}"),
            Column::Right(_) => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let rule = "-".repeat(widths.iter().sum::<usize>() + 2 * columns.len().saturating_sub(1));
    [line(&headings), rule].into_iter().chain(rows.iter().map(line)).collect::<Vec<_>>().join("\n")
}

/// The mode as `ls -l` shows it.
pub fn mode(entry: &Entry) -> String {
    let mode = entry.meta.mode;
    let mut text = String::with_capacity(10);
    text.push(entry.node.letter());
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, false) => 'x',
            (false, false) => '-',
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_shares_are_said() {
        assert_eq!(rate(389 << 20, 1.0), "389 MiB/s");
        assert_eq!(times_smaller(56, 10).as_deref(), Some("5.6 times smaller"));
        assert_eq!(times_smaller(10, 10), None);
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [("512", Some(512)), ("10G", Some(10 << 30)), ("1.5 KiB", Some(1536)), ("0", None), ("10X", None), ("G", None)]
        {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }

    #[test]
    fn times_are_local_unless_they_say_otherwise() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        for (text, utc) in [
            ("2026-11-21 02:00:00", "2026-11-21T00:00:00Z"),
            ("2026-11-21T02:00:00", "2026-11-21T00:00:00Z"),
            ("2026-11-21", "2026-11-20T22:00:00Z"),
            ("2026-11-21T02:00:00Z", "2026-11-21T02:00:00Z"),
            ("2026-11-21 02:00:00+01:00", "2026-11-21T01:00:00Z"),
        ] {
            assert_eq!(parse_time_in(text, zone.clone()).unwrap().to_string(), utc, "{text}");
        }
        assert!(parse_time_in("yesterday", zone).is_err());
    }

    #[test]
    fn tables_align() {
        let rows = vec![vec!["a".into(), "1".into()], vec!["äbc".into(), "100".into()]];
        let shown = table(&[Column::Left("ID"), Column::Right("Size")], &rows);
        assert_eq!(shown, "ID   Size\n---------\na       1\näbc   100");
    }
}
