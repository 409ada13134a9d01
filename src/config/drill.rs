//! `[jobs.NAME.drill]`: how a restore is tried, and what must come out.

use super::reader::{Table, Value};
use super::{Answer, Ask, Drill, DrillCheck};

const PLACES: [&str; 5] = ["postgres", "mariadb", "redis", "sqlite", "folder"];

pub(super) fn drill(table: &Table) -> Drill {
    let place = table.choice("place", &PLACES.map(|place| (place, place))).map(str::to_owned);
    let line = |key| table.get(key).and_then(|value: Value| value.line());
    let (up, load, down) = (line("up"), line("load"), line("down"));
    let checks: Vec<Option<DrillCheck>> = table.tables("check", "jobs.NAME.drill.check").iter().map(check).collect();
    if checks.is_empty() {
        table.complain("a drill without checks proves nothing; write a [[jobs.NAME.drill.check]] with sql or command");
    }
    match (table.is_there("place"), table.is_there("up")) {
        (true, true) => table.complain("both place and up are given; a ready place needs no commands to make it"),
        (false, false) => {
            table.complain("where? write place = \"postgres\" (or mariadb, redis, sqlite, folder), or up and down of your own")
        }
        _ => {}
    }
    if table.is_there("place") && table.is_there("down") {
        table.complain("both place and down are given; a ready place is cleared away by itself");
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
