//! `[jobs.NAME.drill]`: how a restore is tried, and what must come out.

use super::reader::{Table, Value};
use super::{Answer, Ask, Drill, DrillCheck};

const PLACES: [&str; 5] = ["postgres", "mariadb", "redis", "sqlite", "folder"];

pub(super) fn drill(table: &Table) -> Drill {
    let place = table.choice("place", &PLACES.map(|place| (place, place))).map(str::to_owned);
    let line = |key| table.get(key).and_then(|value: Value| value.line());
    let (up, load, down) = (line("up"), line("load"), line("down"));
    let checks: Vec<Option<DrillCheck>> = table.tables("check", "jobs.NAME.drill.check").iter().map(check).collect();
    let (is_own, is_folder) = (table.is_there("up") && !table.is_there("place"), place.as_deref() == Some("folder"));
    if checks.is_empty() && is_own {
        table.complain("without a check, a drill at a place of your own proves nothing; write a [[jobs.NAME.drill.check]] with a command");
    } else if checks.is_empty() {
        table.warn("without a check, this drill only compares what was counted at the backup; write a [[jobs.NAME.drill.check]]");
    }
    if (is_own || is_folder) && checks.iter().flatten().any(|check| matches!(check.ask, Ask::Sql(_))) {
        let place = if is_folder { "a folder" } else { "a place of your own" };
        table.complain(format!("{place} understands no SQL; ask by a command, or name the kind of server in place"));
    }
    match (table.is_there("up"), table.is_there("down")) {
        (false, true) => table.complain("down clears away what up makes, but there is no up"),
        (true, false) => table.warn("there is no down to clear away what up makes"),
        _ => {}
    }
    table.finish();
    Drill { place, up, load, down, checks: checks.into_iter().flatten().collect() }
}

fn check(table: &Table) -> Option<DrillCheck> {
    let sql = table.text("sql");
    let command = table.command("command");
    let name = table.text("name").or_else(|| sql.clone()).or_else(|| command.as_ref().map(|line| line.join(" ")));
    let equals = table.get("equals").and_then(|value| match value.is_number() {
        true => value.number().map(|number| Answer::Number { min: Some(number), max: Some(number) }),
        false => value.text().map(|text| Answer::Text(text.to_owned())),
    });
    let (min, max) = (table.get("min").and_then(|value| value.number()), table.get("max").and_then(|value| value.number()));
    match (table.is_there("sql"), table.is_there("command")) {
        (true, true) => table.complain("both sql and command are given; make two checks of it"),
        (false, false) => table.complain("what is asked? write sql = \"select count(*) from orders\" or command = [...]"),
        _ => {}
    }
    let is_number = table.is_there("min") || table.is_there("max");
    if table.is_there("equals") && is_number {
        table.complain("both equals and min or max are given; choose one");
    }
    if min.zip(max).is_some_and(|(min, max)| min > max) {
        table.complain("min is more than max");
    }
    table.finish();
    let answer = match equals {
        Some(answer) => answer,
        None if is_number => Answer::Number { min, max },
        None => Answer::Success,
    };
    let ask = sql.map(Ask::Sql).or(command.map(Ask::Command))?;
    Some(DrillCheck { name: name?, ask, answer })
}
