//! The account of a drill for people who were not there: Markdown, HTML or JSON, by the file's name.

use std::path::Path;

use super::show;
use crate::error::{Error, Result, show as show_path};
use crate::format::report::{Did, Drill, Outcome, Report};
use crate::replace;

/// How an account is written.
enum Form {
    Markdown,
    Html,
    Json,
}

fn form(path: &Path) -> Result<Form> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("md" | "markdown") => Ok(Form::Markdown),
        Some("html" | "htm") => Ok(Form::Html),
        Some("json") => Ok(Form::Json),
        _ => Err(Error::Usage(format!("{} is no kind of report; name a file that ends in .md, .html or .json", show_path(path)))),
    }
}

/// Fails if the name of a file does not say how the account is to be written.
pub fn check_name(path: &Path) -> Result<()> {
    form(path).map(drop)
}

/// Writes the account of drills into a file: `.md`, `.html` or `.json`. As a whole or not at all.
pub fn write(path: &Path, reports: &[Report]) -> Result<()> {
    let text = match form(path)? {
        Form::Markdown => markdown(reports),
        Form::Html => html(reports),
        Form::Json => format!("{}\n", serde_json::to_string_pretty(reports).expect("reports are plain JSON")),
    };
    replace::durably(path, 0o666, text.as_bytes()).map_err(|error| Error::file("write", path, error))
}

/// A row of the account: what it is about, and what is said of it.
type Row = (String, String);

/// What the account of one drill consists of.
struct Account {
    title: String,
    facts: Vec<Row>,
    /// Path, size, BLAKE3.
    contents: Vec<[String; 3]>,
    /// Step, duration, outcome.
    steps: Vec<[String; 3]>,
    /// Question, expected, answer, outcome.
    checks: Vec<[String; 4]>,
}

fn account(report: &Report) -> Option<Account> {
    let Did::Drill(drill) = &report.did else { return None };
    let title = format!("Drill of {}: {}", drill.job, word(report.outcome));
    let mut facts = vec![
        ("Outcome".into(), report.error.clone().unwrap_or_else(|| "The data were restored and answer as expected".into())),
        ("Began".into(), format!("{} ({})", show::time(report.time), report.time)),
        ("By".into(), format!("{} on {}, {}", report.user, report.host, report.program)),
    ];
    if let (Some(id), Some(time)) = (drill.snapshot, drill.snapshot_time) {
        facts.push(("Snapshot".into(), format!("{id}, of {} ({time})", show::time(time))));
    }
    facts.extend(times(drill));
    let contents = drill.contents.iter().map(|content| [content.path.clone(), show::size(content.bytes), content.hash.clone()]);
    let steps = drill.steps.iter().map(|step| {
        let outcome = step.error.clone().unwrap_or_else(|| "done".into());
        [step.name.clone(), show::duration(step.seconds), outcome]
    });
    let checks = drill.checks.iter().map(|check| {
        let passed = if check.passed { "passed" } else { "FAILED" };
        let question = if check.name.is_empty() { check.asked.clone() } else { format!("{}: {}", check.name, check.asked) };
        [question, check.expected.clone(), check.answer.clone(), passed.into()]
    });
    Some(Account { title, facts, contents: contents.collect(), steps: steps.collect(), checks: checks.collect() })
}

fn times(drill: &Drill) -> Vec<Row> {
    let allowed = drill.seconds_allowed.map_or("no objective is set".into(), |seconds| format!("{} are allowed", show::duration(seconds)));
    vec![
        ("Restored".into(), show::size(drill.bytes)),
        ("First byte after".into(), show::duration(drill.seconds_to_first_byte)),
        ("Ready after".into(), format!("{} ({allowed})", show::duration(drill.seconds_to_ready))),
    ]
}

pub fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Good => "passed",
        Outcome::Partial => "not passed",
        Outcome::Failed => "failed",
    }
}

const CONTENTS: [&str; 3] = ["Restored", "Size", "BLAKE3"];
const STEPS: [&str; 3] = ["Step", "Took", "Outcome"];
const CHECKS: [&str; 4] = ["Question", "Expected", "Answer", "Outcome"];

fn markdown(reports: &[Report]) -> String {
    let cell = |text: &str| -> String {
        let escape = |c: char| match c {
            '\n' | '\r' => " ".into(),
            '|' | '\\' | '`' | '*' | '_' | '<' | '>' | '[' | ']' | '#' => format!("\\{c}"),
            c => c.to_string(),
        };
        text.chars().map(escape).collect()
    };
    let row = |cells: &[String]| format!("| {} |\n", cells.iter().map(|text| cell(text)).collect::<Vec<_>>().join(" | "));
    let table = |headings: &[&str], rows: &[Vec<String>]| -> String {
        if rows.is_empty() {
            return String::new();
        }
        let headings: Vec<String> = headings.iter().map(|text| text.to_string()).collect();
        let rule = format!("|{}\n", " --- |".repeat(headings.len()));
        format!("\n{}{rule}{}", row(&headings), rows.iter().map(|cells| row(cells)).collect::<String>())
    };
    let mut text = String::new();
    for account in reports.iter().filter_map(account) {
        text.push_str(&format!("# {}\n", cell(&account.title)));
        let facts: Vec<Vec<String>> = account.facts.into_iter().map(|(name, value)| vec![name, value]).collect();
        text.push_str(&table(&["", ""], &facts));
        text.push_str(&table(&CONTENTS, &rows(&account.contents)));
        text.push_str(&table(&STEPS, &rows(&account.steps)));
        text.push_str(&table(&CHECKS, &rows(&account.checks)));
        text.push('\n');
    }
    text
}

fn rows<const N: usize>(rows: &[[String; N]]) -> Vec<Vec<String>> {
    rows.iter().map(|cells| cells.to_vec()).collect()
}

fn html(reports: &[Report]) -> String {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    let table = |headings: &[&str], rows: &[Vec<String>]| -> String {
        if rows.is_empty() {
            return String::new();
        }
        let cells = |cells: &mut dyn Iterator<Item = String>, tag: &str| -> String {
            format!("<tr>{}</tr>\n", cells.map(|cell| format!("<{tag}>{}</{tag}>", escape(&cell))).collect::<String>())
        };
        let mut headings = headings.iter().map(|text| text.to_string()).filter(|text| !text.is_empty()).peekable();
        let head = if headings.peek().is_some() { cells(&mut headings, "th") } else { String::new() };
        format!("<table>\n{head}{}</table>\n", rows.iter().map(|row| cells(&mut row.iter().cloned(), "td")).collect::<String>())
    };
    let mut body = String::new();
    for account in reports.iter().filter_map(account) {
        body.push_str(&format!("<h1>{}</h1>\n", escape(&account.title)));
        let facts: Vec<Vec<String>> = account.facts.into_iter().map(|(name, value)| vec![name, value]).collect();
        body.push_str(&table(&["", ""], &facts));
        body.push_str(&table(&CONTENTS, &rows(&account.contents)));
        body.push_str(&table(&STEPS, &rows(&account.steps)));
        body.push_str(&table(&CHECKS, &rows(&account.checks)));
    }
    const STYLE: &str = "body{font:16px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em}table{border-collapse:collapse;\
        margin:1em 0}td,th{border:1px solid #bbb;padding:.3em .6em;text-align:left;vertical-align:top;overflow-wrap:anywhere}";
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>Drills</title><style>{STYLE}</style></head><body>\n{body}</body></html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::report::{DrillCheck, DrilledContent, Step};

    fn report() -> Report {
        let check = DrillCheck {
            name: "orders".into(),
            asked: "select count(*) from orders where note = '<b>|x|</b>'".into(),
            expected: "at least 5".into(),
            answer: "3".into(),
            passed: false,
        };
        let drill = Drill {
            job: "orders".into(),
            contents: vec![DrilledContent { path: "orders.sql".into(), bytes: 5 << 20, hash: "ab".into() }],
            steps: vec![Step { name: "up (postgres)".into(), seconds: 2.0, error: None }],
            checks: vec![check],
            seconds_to_ready: 90.0,
            ..Drill::default()
        };
        Report {
            time: "2026-11-21T02:00:00Z".parse().unwrap(),
            seconds: 95.0,
            host: "db1".into(),
            user: "root".into(),
            program: "snap".into(),
            outcome: Outcome::Partial,
            error: Some("The restored data do not pass: orders".into()),
            exit_code: 30,
            warnings: Vec::new(),
            did: Did::Drill(drill),
        }
    }

    #[test]
    fn accounts_are_complete_and_harmless() {
        let folder = tempfile::tempdir().unwrap();
        for (name, parts) in [
            ("r.md", &["# Drill of orders: not passed", "1 min 30 s", "\\<b\\>\\|x\\|", "| 3 | FAILED |", "5.00 MiB"][..]),
            ("r.html", &["<h1>Drill of orders: not passed</h1>", "&lt;b&gt;|x|", "<td>FAILED</td>", "up (postgres)"]),
            ("r.json", &["\"exit_code\": 30", "\"passed\": false"]),
        ] {
            let path = folder.path().join(name);
            write(&path, &[report()]).unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            for part in parts {
                assert!(text.contains(part), "{name}: {part} in {text}");
            }
            assert!(!text.contains("<b>") || name.ends_with("json"), "{name}");
        }
        assert!(write(&folder.path().join("r.pdf"), &[]).unwrap_err().to_string().contains(".md, .html or .json"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    }
}
