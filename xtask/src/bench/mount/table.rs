//! The outcome as tables of at most a hundred columns, and as JSON.

use anyhow::Context;
use serde_json::{Value, json};

use super::outcome::{Figure, Goal, MEASURE, Outcome};
use super::rows::{ROWS, Row, Unit};
use crate::bench::table::{COLUMNS, figure, line};

/// Widths of the columns of names and of goals.
const NAME: usize = 22;
const GOAL: usize = 16;

/// The tables of every server.
pub(crate) fn text(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    line(&mut text, &format!("{cores} processors for load, client and server; tmpfs; loopback"));
    for outcome in outcomes {
        rates(outcome, &mut text);
        cpu(outcome, &mut text);
        outcome.notes.iter().for_each(|note| line(&mut text, &format!("note: {note}")));
    }
    text
}

fn columns(outcome: &Outcome, name: &str, cells: &[String], goals: &[String]) -> String {
    let free = COLUMNS - NAME - 2 * GOAL;
    let width = (free / outcome.columns.len().max(1)).clamp(7, 13);
    let cell = |text: &String| format!("{:>width$}", text.chars().take(width - 1).collect::<String>());
    let cells: String = cells.iter().map(cell).collect();
    let goals: String = goals.iter().map(|goal| format!("{goal:>GOAL$}")).collect();
    let whole = format!("{name:<NAME$}{cells}{goals}");
    whole.chars().take(COLUMNS).collect()
}

fn rates(outcome: &Outcome, text: &mut String) {
    line(text, &format!("\nServer {}, median of {} rounds", outcome.server, outcome.rounds));
    line(text, "MiB/s of streams, thousands per second, or seconds; on the right remoor's speed by that of");
    let names: Vec<String> = outcome.columns.iter().map(|column| column.name.clone()).collect();
    line(text, &columns(outcome, "", &names, &[MEASURE.into(), "passthrough".into()]));
    for row in measured(outcome) {
        let goals = [goal(outcome.of_peer(row)), goal(outcome.of_ceiling(row))];
        line(text, &columns(outcome, row.name, &figures(outcome, row, Figure::Rate), &goals));
    }
}

fn cpu(outcome: &Outcome, text: &mut String) {
    line(text, "CPU seconds of the mount's processes per GiB, per 100 thousand, or each time");
    for row in measured(outcome) {
        line(text, &columns(outcome, row.name, &figures(outcome, row, Figure::Cpu), &[]));
    }
}

fn measured(outcome: &Outcome) -> impl Iterator<Item = &'static Row> {
    ROWS.iter()
        .filter(|row| (0..outcome.columns.len()).any(|n| outcome.median(n, row, Figure::Rate).is_some()))
}

fn figures(outcome: &Outcome, row: &Row, what: Figure) -> Vec<String> {
    (0..outcome.columns.len()).map(|n| figure(outcome.median(n, row, what))).collect()
}

fn goal(goal: Option<Goal>) -> String {
    let Some(goal) = goal else { return String::new() };
    let wanted = goal.wanted.map_or_else(String::new, |wanted| format!(" >= {wanted}"));
    let mark = goal.met().map_or("", |met| if met { " ok" } else { " --" });
    format!("{:.2}{wanted}{mark}", goal.ratio)
}

/// Every sample, and what follows.
pub(crate) fn json(outcomes: &[Outcome]) -> anyhow::Result<String> {
    let told: Vec<Value> = outcomes.iter().map(json_server).collect();
    serde_json::to_string_pretty(&json!({ "servers": told })).context("cannot write the outcome as JSON")
}

fn json_server(outcome: &Outcome) -> Value {
    let clients: Vec<Value> = outcome
        .columns
        .iter()
        .map(|column| json!({ "name": column.name, "samples": column.cells }))
        .collect();
    let rows: Vec<Value> = measured(outcome).map(|row| json_row(outcome, row)).collect();
    json!({
        "name": outcome.server, "rounds": outcome.rounds, "clients": clients, "rows": rows,
        "notes": outcome.notes,
    })
}

fn json_row(outcome: &Outcome, row: &Row) -> Value {
    let all = |what| (0..outcome.columns.len()).map(|n| outcome.median(n, row, what)).collect::<Vec<_>>();
    let goal =
        |goal: Option<Goal>| goal.map(|g| json!({ "ratio": g.ratio, "wanted": g.wanted, "met": g.met() }));
    let (rate, cpu) = match row.unit {
        Unit::Bytes => ("MiB/s", "CPU seconds per GiB"),
        Unit::Thousands => ("thousand/s", "CPU seconds per 100 thousand"),
        Unit::Seconds => ("seconds", "CPU seconds"),
    };
    json!({
        "name": row.name, "rate_unit": rate, "rates": all(Figure::Rate), "cpu_unit": cpu,
        "cpu": all(Figure::Cpu), "peer": goal(outcome.of_peer(row)), "ceiling": goal(outcome.of_ceiling(row)),
    })
}

#[cfg(test)]
mod tests {
    use super::super::outcome::tests::outcome;
    use super::*;
    use crate::bench::server::Role;

    fn told() -> Outcome {
        outcome(
            "rand read 4 KiB warm",
            &[
                ("remoor", Role::Subject, &[30_000]),
                (MEASURE, Role::Peer, &[10_000]),
                ("passthrough", Role::Ceiling, &[60_000]),
                ("a-peer-with-a-long-name", Role::Peer, &[]),
            ],
        )
    }

    #[test]
    fn tables_fit_a_hundred_columns_and_mark_the_goals() {
        let text = text(&[told()]);
        assert!(text.lines().all(|line| line.len() <= COLUMNS), "{text}");
        let row = text.lines().find(|line| line.starts_with("rand read")).unwrap();
        let words: Vec<&str> = row.split_whitespace().skip(5).collect();
        let told = ["30.0", "10.0", "60.0", "-", "3.00", ">=", "2", "ok", "0.50", ">=", "0.7", "--"];
        assert_eq!(words, told);
    }

    #[test]
    fn json_has_samples_medians_and_goals() {
        let value: Value = serde_json::from_str(&json(&[told()]).unwrap()).unwrap();
        let row = &value["servers"][0]["rows"][0];
        assert_eq!((&row["peer"]["met"], &row["ceiling"]["met"]), (&json!(true), &json!(false)));
        assert_eq!(value["servers"][0]["clients"][0]["samples"][0]["done"], 30_000);
    }
}
