//! What is said of dumps: whether they are whole, what is in them, and what makes them dear.

use super::{output, show};
use crate::dumps::{loading, unpacking};
use crate::format::dump::{Dump, Verdict};
use crate::ops::backup::BackupReport;

/// Complaints and warnings of one kind that are told one by one.
const TOLD_MAX: usize = 20;

/// A snapshot's dumps in a word or two: `complete`, `INCOMPLETE`, `2 INCOMPLETE of 9`.
pub fn in_short(dumps: &[Dump]) -> String {
    let count = |verdict| dumps.iter().filter(|dump| dump.verdict == verdict).count();
    match (dumps.len(), count(Verdict::Incomplete), count(Verdict::Complete)) {
        (0, ..) => String::new(),
        (1, 1, _) => "INCOMPLETE".into(),
        (1, _, 1) => "complete".into(),
        (1, ..) => "unknown".into(),
        (all, 0, whole) if whole == all => format!("{all} complete"),
        (all, 0, whole) => format!("{whole} complete of {all}"),
        (all, bad, _) => format!("{bad} INCOMPLETE of {all}"),
    }
}

/// A dump in a line: `shop.sql: pg_dump 15.18, complete, 4 tables, 38 rows`.
pub fn describe(dump: &Dump) -> String {
    let mut format = dump.format.clone();
    if !dump.version.is_empty() {
        format = format!("{format} {}", dump.version);
    } else if !dump.server.is_empty() {
        format = format!("{format} {}", dump.server);
    }
    if !dump.compression.is_empty() && dump.compression != dump.format {
        format = format!("{format} in {}", dump.compression);
    }
    let mut parts = vec![format];
    parts.push(match dump.verdict {
        Verdict::Complete => "complete".into(),
        Verdict::Incomplete => format!("INCOMPLETE ({})", dump.why),
        Verdict::Unknown if dump.why.is_empty() => "unknown whether it is whole".into(),
        Verdict::Unknown => format!("unknown whether it is whole ({})", dump.why),
    });
    if dump.table_count > 0 {
        parts.push(show::count(dump.table_count, "table"));
    }
    parts.extend(dump.rows.map(|rows| show::count(rows, "row")));
    output::harmless(&format!("{}: {}", dump.path, parts.join(", ")))
}

/// The command that loads a dump, or what to do, in a line.
pub fn how_to_load(dump: &Dump) -> Option<String> {
    loading(dump).map(|loading| output::harmless(&loading.text()))
}

/// What must be said loudly: dumps that are not whole.
pub fn complaints(report: &BackupReport) -> Vec<String> {
    let bad: Vec<&Dump> = report.dumps.iter().filter(|dump| dump.verdict == Verdict::Incomplete).collect();
    let told = bad.iter().take(TOLD_MAX).map(|dump| output::harmless(&format!("{} is INCOMPLETE: {}", dump.path, dump.why)));
    let mut lines: Vec<String> = told.collect();
    if bad.len() > TOLD_MAX {
        lines.push(format!("{} more dumps are INCOMPLETE", bad.len() - TOLD_MAX));
    }
    if let (Some(id), false) = (report.snapshot, lines.is_empty()) {
        let short = id.short();
        lines.push(match is_stream(report) {
            true => format!("snapshot {short} keeps what came, but is marked: latest passes over it. Make the dump again"),
            false => format!("snapshot {short} keeps what was there, but is marked"),
        });
    }
    lines
}

/// What is worth a warning: dumps that are dear because they are compressed, and streams that are not what they were.
pub fn warnings(report: &BackupReport) -> Vec<String> {
    let is_dear = |dump: &&Dump| !dump.compression.is_empty() && !is_cheap_anyway(report);
    let packed: Vec<&Dump> = report.dumps.iter().filter(is_dear).collect();
    let mut lines: Vec<String> = packed.iter().take(TOLD_MAX).map(|dump| compressed(dump, report)).collect();
    if packed.len() > TOLD_MAX {
        lines.push(format!("{} more dumps are compressed", packed.len() - TOLD_MAX));
    }
    lines.extend(report.said.iter().map(|line| output::harmless(&format!("the command said: {line}"))));
    let Some((bytes, before)) = report.before.as_ref().filter(|_| is_stream(report)) else { return lines };
    if report.totals.bytes < bytes / 2 {
        let (now, then) = (show::size(report.totals.bytes), show::size(*bytes));
        lines.push(format!("this dump has {now}, less than half of the {then} of the one before"));
    }
    if let ([old], now) = (&before[..], report.dumps.first())
        && now.is_none_or(|now| now.format != old.format)
    {
        let now = now.map_or("of no known format", |now| now.format.as_str());
        lines.push(format!("this dump is {now}, the one before was {}", old.format));
    }
    lines
}

/// What compression costs, in figures of this run where there was an older version to compare with.
fn compressed(dump: &Dump, report: &BackupReport) -> String {
    let totals = &report.totals;
    let cost = match report.before {
        Some(_) if is_stream(report) && totals.bytes > 0 => {
            let (share, new, all) = (percent(totals.bytes_new, totals.bytes), show::size(totals.bytes_new), show::size(totals.bytes));
            let against_plain = against_plain(report).unwrap_or_default();
            format!("so {share} % of it ({new} of {all}) was new and had to be stored{against_plain}")
        }
        _ => "and then each night mostly costs nearly a whole dump".into(),
    };
    let advice = match dump.format.as_str() {
        "pg_dump custom" if unpacking(dump).is_none() => "say pg_dump -Fc -Z0",
        "pg_dump directory" => "say pg_dump -Fd -Z0",
        "mongodump archive" => "leave out --gzip",
        _ => "let it come uncompressed",
    };
    let text =
        format!("{} is compressed ({}), {cost}; {advice}, then only what changed is stored, compressed", dump.path, dump.compression);
    output::harmless(&text)
}

/// Whether there is an older version, and this one hardly differs from it in spite of its compression.
fn is_cheap_anyway(report: &BackupReport) -> bool {
    is_stream(report) && report.before.is_some() && report.totals.bytes_new < report.totals.bytes / 10
}

/// How much less of dumps was new that are not compressed, if this repository knows.
fn against_plain(report: &BackupReport) -> Option<String> {
    let (totals, plain) = (&report.totals, report.plain_nights.as_ref().filter(|plain| plain.bytes > 0)?);
    let nights = show::count(plain.nights, "night");
    if plain.bytes_new == 0 {
        return Some(format!("; of dumps here that are not compressed nothing was new in {nights}"));
    }
    let (share, other) = (totals.bytes_new as f64 / totals.bytes as f64, plain.bytes_new as f64 / plain.bytes as f64);
    let times = share / other;
    let times = if times < 10.0 { format!("{times:.1}") } else { format!("{times:.0}") };
    let is_dearer = share >= 2.0 * other;
    let other = percent(plain.bytes_new, plain.bytes);
    is_dearer.then(|| format!(", {times} times the share of dumps here that are not compressed ({other} % in {nights})"))
}

/// Whole ones, and below ten with one more digit.
fn percent(part: u64, whole: u64) -> String {
    let percent = 100.0 * part as f64 / whole as f64;
    if percent < 10.0 { format!("{percent:.1}") } else { format!("{percent:.0}") }
}

/// How to make the next dumps so that they cost less; said of the first of a name, and whenever more is to be said.
pub fn advice(report: &BackupReport) -> Vec<String> {
    let told = report.advice.iter().take(TOLD_MAX);
    told.map(|(path, advice)| output::harmless(&format!("{path} would cost less with {advice}"))).collect()
}

fn is_stream(report: &BackupReport) -> bool {
    report.totals.files == 1 && report.totals.folders == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::snapshot::Totals;
    use crate::ops::backup::PlainNights;

    fn dump(verdict: Verdict) -> Dump {
        Dump { path: "a.sql".into(), format: "pg_dump".into(), version: "15.18".into(), verdict, why: "why".into(), ..Dump::default() }
    }

    fn totals() -> Totals {
        Totals { files: 1, bytes: 1000, bytes_new: 970, ..Totals::default() }
    }

    fn report(dumps: Vec<Dump>, before: Option<(u64, Vec<Dump>)>) -> BackupReport {
        BackupReport {
            snapshot: None,
            parent: None,
            unchanged: false,
            totals: totals(),
            parts: Vec::new(),
            dumps,
            said: Vec::new(),
            advice: Vec::new(),
            before,
            plain_nights: None,
            cost: Default::default(),
            seconds: 1.0,
        }
    }

    #[test]
    fn dumps_are_told_of_in_short_and_in_full() {
        use Verdict::*;
        for (verdicts, expected) in [
            (&[][..], ""),
            (&[Complete], "complete"),
            (&[Incomplete], "INCOMPLETE"),
            (&[Unknown], "unknown"),
            (&[Complete, Complete], "2 complete"),
            (&[Complete, Unknown], "1 complete of 2"),
            (&[Complete, Incomplete, Unknown], "1 INCOMPLETE of 3"),
        ] {
            assert_eq!(in_short(&verdicts.iter().map(|verdict| dump(*verdict)).collect::<Vec<_>>()), expected);
        }
        assert_eq!(describe(&dump(Incomplete)), "a.sql: pg_dump 15.18, INCOMPLETE (why)");
        let whole = Dump { table_count: 1, rows: Some(2), compression: "gzip".into(), ..dump(Complete) };
        assert_eq!(describe(&whole), "a.sql: pg_dump 15.18 in gzip, complete, 1 table, 2 rows");
        assert!(how_to_load(&Dump { compression: String::new(), ..whole }).unwrap().starts_with("psql "));
    }

    #[test]
    fn what_is_wrong_is_said_with_figures() {
        assert_eq!(complaints(&report(vec![dump(Verdict::Complete)], None)), [""; 0]);
        assert_eq!(complaints(&report(vec![dump(Verdict::Incomplete)], None)), ["a.sql is INCOMPLETE: why"]);
        let packed = Dump { compression: "gzip".into(), ..dump(Verdict::Complete) };
        let said = warnings(&report(vec![packed.clone()], Some((1000, vec![packed.clone()]))));
        assert!(said.len() == 1 && said[0].contains("97 % of it (970 B of 1000 B) was new"), "{said:?}");
        let plain_nights = |bytes_new| Some(PlainNights { nights: 14, bytes: 100_000, bytes_new });
        for (new, expected) in [
            (2000, ", 48 times the share of dumps here that are not compressed (2.0 % in 14 nights); let it"),
            (30_000, ", 3.2 times the share of dumps here that are not compressed (30 % in 14 nights); let it"),
            (60_000, "had to be stored; let it"),
            (0, "; of dumps here that are not compressed nothing was new in 14 nights; let it"),
        ] {
            let known = BackupReport { plain_nights: plain_nights(new), ..report(vec![packed.clone()], Some((1000, Vec::new()))) };
            assert!(warnings(&known)[0].contains(expected), "{:?}", warnings(&known));
        }
        assert!(warnings(&report(vec![packed.clone()], None))[0].contains("each night mostly costs nearly a whole dump"));
        let cheap = BackupReport { totals: Totals { bytes_new: 20, ..totals() }, ..report(vec![packed.clone()], Some((1000, Vec::new()))) };
        assert_eq!(warnings(&cheap), [""; 0]);
        let said = warnings(&report(Vec::new(), Some((2002, vec![dump(Verdict::Complete)]))));
        let expected = [
            "this dump has 1000 B, less than half of the 1.96 KiB of the one before",
            "this dump is of no known format, the one before was pg_dump",
        ];
        assert_eq!(said, expected);
        let loud = BackupReport { said: vec!["pg_dump: error\x1b".into()], ..report(Vec::new(), None) };
        assert_eq!(warnings(&loud), ["the command said: pg_dump: error\\u{1b}"]);
        assert_eq!(warnings(&report(vec![dump(Verdict::Complete)], Some((2000, vec![dump(Verdict::Complete)])))), [""; 0]);
    }
}
