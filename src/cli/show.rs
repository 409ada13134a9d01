//! Sizes, durations, times and tables for people, and reading sizes and times that people wrote.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::format::entry::Entry;

/// A size in IEC units with three significant digits: `1.10 GiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // What would be rounded to 1024 belongs to the next unit.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", three_digits(value), UNITS[unit])
}

fn three_digits(value: f64) -> String {
    match value {
        _ if value < 9.995 => format!("{value:.2}"),
        _ if value < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// A rate: `389 MiB/s`.
pub fn rate(bytes: u64, seconds: f64) -> String {
    // A clock's tick, so that nothing is infinitely fast.
    format!("{}/s", size((bytes as f64 / seconds.max(0.001)) as u64))
}

/// A length of time: `2.9 s`, `5 min 03 s`, `2 h 05 min`, `3 d 04 h`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        _ if seconds < 9.95 => format!("{seconds:.1} s"),
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        3600..86400 => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {:02} h", whole / 86400, whole % 86400 / 3600),
    }
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

/// A count and its noun: `1 file`, `3 files`.
pub fn count(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
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
    fn sizes_have_three_digits() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (10_235, "10.0 KiB"),
            (1_181_116_006, "1.10 GiB"),
            (198 << 20, "198 MiB"),
            ((1 << 20) - 1, "1.00 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), shown);
        }
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
    fn durations_suit_their_length() {
        let cases =
            [(0.04, "0.0 s"), (2.94, "2.9 s"), (9.97, "10 s"), (59.7, "1 min 00 s"), (7509.0, "2 h 05 min"), (273_600.0, "3 d 04 h")];
        for (seconds, shown) in cases {
            assert_eq!(duration(seconds), shown);
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
