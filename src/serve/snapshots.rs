//! Pages about snapshots: lists of them, what is known of one, and the files in it, folder by folder.

use std::fmt::Write as _;

use jiff::tz::TimeZone;

use super::html::{self, bytes, fact, link, text};
use super::http::encode;
use super::state::View;
use crate::format::entry::{Entry, Flaw, Node};
use crate::format::snapshot::Snapshot;
use crate::ops::browse::Page;
use crate::ops::status::flaw;
use crate::repo::Stored;
use crate::wording::{count, duration, size};

/// Dumps, tables and parts of one snapshot that are shown.
const LINES_MAX: usize = 200;

/// All snapshots, or those of a stream, the newest first.
pub fn list(view: &View, stream: Option<(&str, &str)>, zone: &TimeZone, page: usize) -> String {
    let (title, found, own) = match stream {
        Some((host, name)) => (format!("Snapshots of {name}"), view.snapshots(host, name), format!("{}/snapshots", link(host, name))),
        None => ("Snapshots".to_owned(), view.facts.snapshots.iter().collect(), "/snapshots".to_owned()),
    };
    let (shown, pages) = html::paged(found.into_iter().rev().collect(), page, &format!("{own}?page="));
    let body = format!("<h1>{}</h1>{}{pages}", text(&title), table(&shown, zone, stream.is_none()));
    html::page(&title, &body)
}

/// Those of a stream, if there are any.
pub fn of_stream(view: &View, host: &str, name: &str, zone: &TimeZone, page: usize) -> Option<String> {
    let is_known = !view.snapshots(host, name).is_empty();
    is_known.then(|| list(view, Some((host, name)), zone, page))
}

/// Snapshots in a table.
pub fn table(snapshots: &[&Stored], zone: &TimeZone, of_many: bool) -> String {
    if snapshots.is_empty() {
        return "<p class=\"note\">There is no snapshot.</p>".into();
    }
    let mut rows = String::new();
    for stored in snapshots {
        let snapshot = &stored.snapshot;
        let name = match of_many {
            true => format!("<td>{} <span class=\"note\">{}</span></td>", text(&snapshot.name), text(&snapshot.host)),
            false => String::new(),
        };
        let _ = write!(
            rows,
            "<tr><td><a href=\"/snapshot/{}\"><code>{}</code></a></td><td>{}</td>{name}<td class=\"num\">{}</td>\
             <td class=\"num far\">{}</td><td>{}</td><td class=\"far\">{}</td></tr>",
            stored.id.hex(),
            stored.id.short(),
            html::time(snapshot.time, zone),
            size(snapshot.totals.bytes),
            size(snapshot.totals.bytes_stored),
            judged(snapshot),
            text(&snapshot.tags.join(" ")),
        );
    }
    let name = if of_many { "<th>Name</th>" } else { "" };
    format!(
        "<div class=\"wide\"><table><tr><th>Id</th><th>Time</th>{name}<th class=\"num\">Size</th><th class=\"num far\">Stored</th>\
         <th>Dumps</th><th class=\"far\">Tags</th></tr>{rows}</table></div>"
    )
}

/// Verdicts, and what else is not as it should be.
fn judged(snapshot: &Snapshot) -> String {
    let mut out = html::verdicts(&snapshot.dumps);
    if snapshot.totals.flawed > 0 {
        out.push_str(&html::badge("warn", &format!("{} unreadable", snapshot.totals.flawed)));
    }
    if snapshot.repaired.is_some() {
        out.push_str(&html::badge("bad", "repaired"));
    }
    if !snapshot.is_as_expected() {
        out.push_str(&html::badge("warn", "not as expected"));
    }
    out
}

/// One snapshot.
pub fn one(stored: &Stored, zone: &TimeZone) -> String {
    let (snapshot, totals) = (&stored.snapshot, &stored.snapshot.totals);
    let mut body = format!(
        "<h1>Snapshot <code>{}</code></h1><p><a href=\"{}/snapshots\">{}</a> <span class=\"note\">on {}</span> {}</p>",
        stored.id.short(),
        link(&snapshot.host, &snapshot.name),
        text(&snapshot.name),
        text(&snapshot.host),
        judged(snapshot),
    );
    if let Some((_, why)) = flaw(snapshot) {
        let _ = write!(body, "<p class=\"say bad\">{}</p>", text(&why));
    }
    let mut list = String::from("<dl>");
    fact(&mut list, "Time", &html::time(snapshot.time, zone));
    fact(&mut list, "Took", &duration(snapshot.seconds));
    fact(&mut list, "Size", &size(totals.bytes));
    fact(&mut list, "New", &size(totals.bytes_new));
    fact(&mut list, "Stored", &size(totals.bytes_stored));
    fact(&mut list, "Files", &totals.files.to_string());
    fact(&mut list, "Folders", &totals.folders.to_string());
    fact(&mut list, "User", &text(&snapshot.user));
    fact(&mut list, "Tags", &text(&snapshot.tags.join(" ")));
    fact(&mut list, "Program", &text(&snapshot.program));
    fact(&mut list, "Paths", &text(&snapshot.paths.iter().take(LINES_MAX).cloned().collect::<Vec<_>>().join(" ")));
    let _ = write!(body, "{list}</dl><p><code class=\"note\">{}</code></p>", stored.id.hex());
    let _ = write!(body, "<p><a href=\"/snapshot/{}/files\">Look through the files</a></p>", stored.id.hex());
    let path = if totals.files > 1 { " PATH" } else { "" };
    let _ = write!(body, "<pre>snap restore {0} -t FOLDER\nsnap dump {0}{path}</pre>", stored.id.short());
    body.push_str(&parts(snapshot));
    body.push_str(&dumps(snapshot));
    body.push_str(&repaired(snapshot, zone));
    html::page(&format!("Snapshot {}", stored.id.short()), &body)
}

fn parts(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    for part in snapshot.parts.iter().take(LINES_MAX) {
        let unmet: String = part.unmet.iter().map(|why| format!("<p class=\"say bad\">{}</p>", text(why))).collect();
        let _ = write!(out, "<li>{}: {} in {}{unmet}</li>", text(&part.name), size(part.bytes), count(part.files, "file"));
    }
    if out.is_empty() { out } else { format!("<h2>Sources</h2><ul>{out}</ul>") }
}

fn dumps(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    for dump in snapshot.dumps.iter().take(LINES_MAX) {
        let made = [&dump.format, &dump.version, &dump.server, &dump.compression];
        let made: Vec<String> = made.into_iter().filter(|word| !word.is_empty()).map(|word| text(word)).collect();
        let why = if dump.why.is_empty() { String::new() } else { format!("<p class=\"say warn\">{}</p>", text(&dump.why)) };
        let _ = write!(out, "<tr><td>{}</td><td class=\"wordy\">{}{why}", html::verdict(dump), text(&dump.path));
        if !dump.tables.is_empty() {
            let row = |table: &crate::format::dump::Table| {
                let rows = table.rows.map(|rows| format!(": {}", count(rows, "row"))).unwrap_or_default();
                format!("<li>{}{rows}</li>", text(&table.name))
            };
            let rows: String = dump.tables.iter().take(LINES_MAX).map(row).collect();
            let _ = write!(out, "<details><summary>{}</summary><ul>{rows}</ul></details>", count(dump.table_count, "table"));
        }
        let rows = dump.rows.map(|rows| rows.to_string()).unwrap_or_default();
        let _ = write!(out, "</td><td class=\"far\">{}</td><td class=\"num\" data-is=\"Rows\">{rows}</td></tr>", made.join(" "));
    }
    if out.is_empty() {
        return out;
    }
    let heads = "<tr><th>Verdict</th><th>Dump</th><th class=\"far\">Made by</th><th class=\"num\">Rows</th></tr>";
    format!("<h2>Dumps</h2><div class=\"wide\"><table>{heads}{out}</table></div>")
}

fn repaired(snapshot: &Snapshot, zone: &TimeZone) -> String {
    let Some(repaired) = &snapshot.repaired else { return String::new() };
    let lost: String = repaired.lost.iter().take(LINES_MAX).map(|lost| format!("<li>{}</li>", text(&lost.path))).collect();
    format!("<h2>Repaired {}</h2><p>These paths lost something:</p><ul>{lost}</ul>", html::time(repaired.time, zone))
}

/// The files of one folder in a snapshot.
pub fn files(stored: &Stored, folder: &[u8], page: &Page, zone: &TimeZone) -> String {
    let own = format!("/snapshot/{}/files", stored.id.hex());
    let mut way = format!("<a href=\"{own}\">/</a>");
    let mut end = 0;
    for name in folder.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        end += name.len() + usize::from(end > 0);
        let _ = write!(way, " <a href=\"{own}?in={}\">{}</a> /", encode(&folder[..end]), bytes(name));
    }
    let mut rows = String::new();
    for entry in &page.entries {
        rows.push_str(&file(entry, folder, &own, zone));
    }
    let mut body = format!(
        "<h1>Files</h1><p>Snapshot <a href=\"/snapshot/{}\"><code>{}</code></a> of {}, {}</p><p>{way}</p>",
        stored.id.hex(),
        stored.id.short(),
        text(&stored.snapshot.name),
        html::time(stored.snapshot.time, zone)
    );
    let heads = "<tr><th>Name</th><th class=\"num\">Size</th><th>Changed</th><th class=\"far\">Mode</th></tr>";
    let _ = write!(body, "<div class=\"wide\"><table>{heads}{rows}</table></div>");
    if let (true, Some(last)) = (page.goes_on, page.entries.last()) {
        let after = encode(name_in(&last.path, folder));
        let _ = write!(body, "<p class=\"pages\"><a href=\"{own}?in={}&amp;after={after}\">more</a></p>", encode(folder));
    }
    html::page(&format!("Files of {}", stored.id.short()), &body)
}

fn name_in<'p>(path: &'p [u8], folder: &[u8]) -> &'p [u8] {
    let name = path.strip_prefix(folder).unwrap_or(path);
    match name.strip_prefix(b"/").unwrap_or(name) {
        // The file that was asked for.
        [] => path.rsplit(|byte| *byte == b'/').next().unwrap_or(path),
        name => name,
    }
}

fn file(entry: &Entry, folder: &[u8], own: &str, zone: &TimeZone) -> String {
    let name = bytes(name_in(&entry.path, folder));
    let shown = match &entry.node {
        Node::Folder => format!("<a href=\"{own}?in={}\">{name}/</a>", encode(&entry.path)),
        Node::Symlink { target } | Node::HardLink { target } => format!("{name} <span class=\"note\">&rarr; {}</span>", bytes(target)),
        _ => name,
    };
    let flawed = match entry.flaw {
        Flaw::None => String::new(),
        Flaw::Unreadable => html::badge("bad", "unreadable"),
        Flaw::Changed => html::badge("warn", "changed while it was read"),
    };
    let length = if matches!(entry.node, Node::File { .. }) { size(entry.size()) } else { String::new() };
    let nanos = i32::try_from(entry.meta.mtime.nanos).ok();
    let time = nanos.and_then(|nanos| jiff::Timestamp::new(entry.meta.mtime.seconds, nanos).ok());
    let time = time.map(|time| html::time(time, zone)).unwrap_or_default();
    let mode = format!("{}{:04o}", entry.node.letter(), entry.meta.mode & 0o7777);
    format!(
        "<tr><td class=\"rest\">{shown} {flawed}</td><td class=\"num\">{length}</td><td>{time}</td><td class=\"far\"><code>{mode}</code></td></tr>"
    )
}
