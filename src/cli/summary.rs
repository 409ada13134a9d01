//! What a backup says at its end.

use serde_json::{Value, json};

use super::json::totals;
use super::{dumps, show};
use crate::ops::backup::BackupReport;

/// The summary for people.
pub fn text(report: &BackupReport, bytes_read: u64, dry_run: bool, verbose: u8) -> String {
    let totals = &report.totals;
    let mut lines = Vec::new();
    let rate = show::rate(bytes_read, report.seconds);
    lines.push(format!("read      {} in {} ({rate})", show::size(bytes_read), show::duration(report.seconds)));
    if totals.bytes > bytes_read {
        lines.push(format!("in all    {} in {}", show::size(totals.bytes), show::count(totals.files, "file")));
    }
    lines.push(format!("new       {}", new_data(report, dry_run)));
    let changed = if totals.files_changed > 0 { format!("{} changed, ", totals.files_changed) } else { String::new() };
    lines.push(format!("files     {} new, {changed}{} unmodified", totals.files_new, totals.files_unmodified));
    // A tree may have many; those that are not whole are told of behind the summary.
    if let [dump] = &report.dumps[..] {
        lines.push(format!("dump      {}", dumps::describe(dump)));
    } else if !report.dumps.is_empty() {
        lines.push(format!("dumps     {}", dumps::in_short(&report.dumps)));
    }
    if verbose > 0 {
        lines.extend(details(report));
    }
    lines.push(match (report.snapshot, report.parent) {
        (Some(id), _) => format!("snapshot {} saved", id.short()),
        (None, _) if dry_run => "dry run: nothing was stored".into(),
        (None, Some(parent)) => format!("unchanged since snapshot {}: no snapshot was saved", parent.short()),
        (None, None) => "no snapshot was saved".into(),
    });
    lines.join("\n")
}

/// How much was new, and what it took.
pub fn new_data(report: &BackupReport, dry_run: bool) -> String {
    let totals = &report.totals;
    match report.parent {
        Some(parent) if report.unchanged => return format!("nothing: the same as snapshot {}", parent.short()),
        _ if totals.bytes_new == 0 => return "nothing: all data was there already".into(),
        _ => {}
    }
    let verb = if dry_run { "would be stored" } else { "stored" };
    let smaller = show::times_smaller(totals.bytes_new, totals.bytes_stored).map(|times| format!(" ({times})"));
    format!("{}, {verb} as {}{}", show::size(totals.bytes_new), show::size(totals.bytes_stored), smaller.unwrap_or_default())
}

fn details(report: &BackupReport) -> Vec<String> {
    let cost = &report.cost;
    let mut lines = vec![format!(
        "stored    {} of data, {} of catalog, {} of index, in {}",
        show::size(cost.data_bytes),
        show::size(cost.catalog_bytes),
        show::size(cost.segment_bytes),
        show::count(cost.packs, "pack"),
    )];
    if cost.delta_frames > 0 {
        let (plain, stored) = (show::size(cost.delta_plain_bytes), show::size(cost.delta_stored_bytes));
        lines.push(format!("deltas    {plain} stored as {stored} against older data"));
    }
    if let Some(parent) = report.parent {
        lines.push(format!("parent    {}", parent.short()));
    }
    lines
}

/// The summary for machines.
pub fn json(report: &BackupReport, dry_run: bool) -> Value {
    let mut value = totals(&report.totals);
    value["message_type"] = "summary".into();
    value["dry_run"] = dry_run.into();
    value["unchanged"] = report.unchanged.into();
    value["total_duration"] = json!(report.seconds);
    if !report.dumps.is_empty() {
        value["dumps"] = json!(report.dumps);
    }
    let warnings = dumps::warnings(report);
    if !warnings.is_empty() {
        value["warnings"] = json!(warnings);
    }
    let advice = dumps::advice(report);
    if !advice.is_empty() {
        value["advice"] = json!(advice);
    }
    if let Some(id) = report.snapshot {
        value["snapshot_id"] = json!(id);
    }
    if let Some(parent) = report.parent {
        value["parent"] = json!(parent);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::snapshot::Totals;
    use crate::id::ObjectName;

    fn report() -> BackupReport {
        let totals =
            Totals { files: 1, bytes: 1_181_116_006, bytes_new: 1_095_216_660, bytes_stored: 198 << 20, files_new: 1, ..Totals::default() };
        BackupReport {
            snapshot: Some(ObjectName([0x40; 32])),
            parent: None,
            unchanged: false,
            totals,
            parts: Vec::new(),
            dumps: Vec::new(),
            said: Vec::new(),
            advice: Vec::new(),
            before: None,
            plain_nights: None,
            cost: Default::default(),
            seconds: 2.9,
        }
    }

    #[test]
    fn the_summary_ends_with_the_snapshot() {
        let expected = "\
read      1.10 GiB in 2.9 s (388 MiB/s)
new       1.02 GiB, stored as 198 MiB (5.3 times smaller)
files     1 new, 0 unmodified
snapshot 40404040 saved";
        assert_eq!(text(&report(), 1_181_116_006, false, 0), expected);
    }

    #[test]
    fn nothing_saved_is_said() {
        let dry = BackupReport { snapshot: None, ..report() };
        assert!(text(&dry, 0, true, 0).ends_with("\ndry run: nothing was stored"));
        let same = BackupReport { snapshot: None, parent: Some(ObjectName([1; 32])), unchanged: true, ..report() };
        let said = text(&same, 0, false, 1);
        assert!(said.contains("nothing: the same as snapshot 01010101"), "{said}");
        assert!(said.ends_with("unchanged since snapshot 01010101: no snapshot was saved"), "{said}");
        assert_eq!(json(&same, false).get("snapshot_id"), None);
        assert_eq!(json(&report(), false)["snapshot_id"], json!("40".repeat(32)));
    }
}
