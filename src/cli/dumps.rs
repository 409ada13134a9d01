//! What is said of dumps: whether they are whole, what is in them, and what makes them dear.

use super::{output, show};
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
    let packed: Vec<&Dump> = report.dumps.iter().filter(|dump| !dump.compression.is_empty()).collect();
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
        Some(_) if is_stream(report) && totals.bytes > 0 && !report.unchanged => {
            let share = 100 * totals.bytes_new / totals.bytes;
            format!("{share} % of it ({} of {}) was new and had to be stored", show::size(totals.bytes_new), show::size(totals.bytes))
        }
        _ => "each night costs nearly a whole dump".into(),
    };
    let advice = match dump.format.as_str() {
        "pg_dump custom" => "say pg_dump -Fc -Z0",
        "pg_dump directory" => "say pg_dump -Fd -Z0",
        "mongodump archive" => "leave out --gzip",
        _ => "let it come uncompressed",
    };
    let text =
        format!("{} is compressed ({}), so {cost}; {advice}, then only what changed is stored, compressed", dump.path, dump.compression);
    output::harmless(&text)
}

fn is_stream(report: &BackupReport) -> bool {
    report.totals.files == 1 && report.totals.folders == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::snapshot::Totals;

    fn dump(verdict: Verdict) -> Dump {
        Dump { path: "a.sql".into(), format: "pg_dump".into(), version: "15.18".into(), verdict, why: "why".into(), ..Dump::default() }
    }

    fn report(dumps: Vec<Dump>, before: Option<(u64, Vec<Dump>)>) -> BackupReport {
        let totals = Totals { files: 1, bytes: 1000, bytes_new: 970, ..Totals::default() };
        BackupReport {
            snapshot: None,
            parent: None,
            unchanged: false,
            totals,
            dumps,
            said: Vec::new(),
            before,
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
    }

    #[test]
    fn what_is_wrong_is_said_with_figures() {
        assert_eq!(complaints(&report(vec![dump(Verdict::Complete)], None)), [""; 0]);
        assert_eq!(complaints(&report(vec![dump(Verdict::Incomplete)], None)), ["a.sql is INCOMPLETE: why"]);
        let packed = Dump { compression: "gzip".into(), ..dump(Verdict::Complete) };
        let said = warnings(&report(vec![packed.clone()], Some((1000, vec![packed.clone()]))));
        assert!(said.len() == 1 && said[0].contains("97 % of it (970 B of 1000 B) was new"), "{said:?}");
        assert!(warnings(&report(vec![packed], None))[0].contains("each night costs nearly a whole dump"));
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
