//! What all pages share: escaping, the frame around a page, and small pieces of it.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::http::encode;
use crate::error::show_bytes;
use crate::format::dump::{Dump, Verdict};
use crate::format::report::Outcome;
use crate::limits::SERVE_PAGE_ROWS;
use crate::wording::duration;

/// Where a job's page is.
pub fn link(host: &str, job: &str) -> String {
    format!("/job/{}/{}", encode(host.as_bytes()), encode(job.as_bytes()))
}

/// Text of others as text of a page: neither markup, nor control characters, nor such as change the direction of reading.
pub fn text(raw: &str) -> String {
    bytes(raw.as_bytes())
}

/// The same for names that may be no text at all.
pub fn bytes(raw: &[u8]) -> String {
    let shown = show_bytes(raw);
    let mut escaped = String::with_capacity(shown.len());
    for c in shown.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A moment in local time.
pub fn time(time: Timestamp, zone: &TimeZone) -> String {
    let zoned = time.to_zoned(zone.clone());
    format!("<time datetime=\"{time}\">{}</time>", zoned.strftime("%Y-%m-%d %H:%M"))
}

/// How long ago that was.
pub fn ago(now: Timestamp, time: Timestamp) -> String {
    format!("{} ago", duration(now.duration_since(time).as_secs_f64().max(0.0)))
}

/// A word in a box of its colour.
pub fn badge(class: &str, word: &str) -> String {
    format!("<span class=\"badge {class}\">{word}</span>")
}

pub fn outcome(outcome: Outcome) -> String {
    match outcome {
        Outcome::Good => badge("good", "good"),
        Outcome::Partial => badge("warn", "partial"),
        Outcome::Failed => badge("bad", "failed"),
    }
}

pub fn verdict(dump: &Dump) -> String {
    match dump.verdict {
        Verdict::Complete => badge("good", "complete"),
        Verdict::Incomplete => badge("bad", "INCOMPLETE"),
        Verdict::Unknown => badge("none", "unknown"),
    }
}

/// The verdicts on all dumps of a snapshot.
pub fn verdicts(dumps: &[Dump]) -> String {
    let of = |verdict| dumps.iter().filter(|dump| dump.verdict == verdict).count();
    match (dumps, of(Verdict::Incomplete), of(Verdict::Complete)) {
        ([], ..) => String::new(),
        ([dump], ..) => verdict(dump),
        (all, 0, whole) if whole == all.len() => badge("good", &format!("{whole} complete")),
        (all, 0, whole) => badge("none", &format!("{whole} complete of {}", all.len())),
        (all, bad, _) => badge("bad", &format!("{bad} INCOMPLETE of {}", all.len())),
    }
}

/// A name and what there is to say: not there if nothing.
pub fn fact(list: &mut String, name: &str, value: &str) {
    if !value.is_empty() {
        let _ = write!(list, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    }
}

/// Rows of one page of many, and links to those before and after; `link` ends where the page's number goes.
pub fn paged<T>(rows: Vec<T>, page: usize, link: &str) -> (Vec<T>, String) {
    let all = rows.len();
    let first = page.saturating_mul(SERVE_PAGE_ROWS);
    let shown: Vec<T> = rows.into_iter().skip(first).take(SERVE_PAGE_ROWS).collect();
    let mut links = String::new();
    if page > 0 {
        let _ = write!(links, "<a href=\"{link}{}\">newer</a> ", page.min(all.div_ceil(SERVE_PAGE_ROWS)).saturating_sub(1));
    }
    if first.saturating_add(shown.len()) < all {
        let _ = write!(links, "<a href=\"{link}{}\">older</a>", page + 1);
    }
    match links.is_empty() {
        true => (shown, links),
        false => (shown, format!("<p class=\"pages\">{links} <span class=\"note\">{all} in all</span></p>")),
    }
}

/// A whole page. The title is text of others; the body is a page's own.
pub fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, \
         initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\"><title>{}</title><style>{STYLE}</style></head><body>\
         <header><a href=\"/\"><b>snap</b></a><nav><a href=\"/\">Jobs</a> <a href=\"/runs\">Runs</a> <a href=\"/drills\">Drills</a> \
         <a href=\"/snapshots\">Snapshots</a></nav></header><main>{body}</main></body></html>\n",
        text(title)
    )
}

/// A page that says one thing.
pub fn message(title: &str, said: &str) -> String {
    page(title, &format!("<h1>{}</h1><p>{}</p>", text(title), text(said)))
}

const STYLE: &str = include_str!("style.css");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_and_nothing_else() {
        assert_eq!(text("<script>'\"&\n\u{202e}"), "&lt;script&gt;&#39;&quot;&amp;\\n\\u{202e}");
        assert_eq!(bytes(b"a\xff<"), "a\\xff&lt;");
    }

    #[test]
    fn pages_lead_to_all_rows() {
        let rows: Vec<usize> = (0..SERVE_PAGE_ROWS * 2 + 1).collect();
        let (first, links) = paged(rows.clone(), 0, "/x?page=");
        assert!(first.len() == SERVE_PAGE_ROWS && links.contains("/x?page=1\">older") && !links.contains("newer"));
        let (last, links) = paged(rows.clone(), 2, "/x?page=");
        assert!(last == [SERVE_PAGE_ROWS * 2] && links.contains("/x?page=1\">newer") && !links.contains("older"));
        let (none, links) = paged(rows, usize::MAX, "/x?page=");
        assert!(none.is_empty() && links.contains("/x?page=2\">newer"));
        assert_eq!(paged(vec![1], 0, "").1, "");
        assert!(paged(Vec::<u8>::new(), 1, "/x?page=").1.contains("/x?page=0\">newer"));
    }
}
