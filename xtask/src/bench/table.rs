//! The outcome as tables of at most a hundred columns, and as JSON.

use std::fmt::Write;

use anyhow::Context;
use serde_json::json;

use super::outcome::{Figure, Goal, Outcome};
use super::rows::{LOADS, Row, Unit};

/// Widest line.
pub(super) const COLUMNS: usize = 100;
/// Width of the column of names, and of the goals.
const NAME: usize = 25;
const GOAL: usize = 9;

/// All tables.
pub(crate) fn text(outcome: &Outcome) -> String {
    let mut text = String::new();
    head(outcome, &mut text);
    rates(outcome, &mut text);
    cpu(outcome, &mut text);
    memory(outcome, &mut text);
    slow(outcome, &mut text);
    for note in &outcome.notes {
        line(&mut text, &format!("note: {note}"));
    }
    text
}

pub(super) fn line(text: &mut String, line: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{}", line.trim_end());
}

fn head(outcome: &Outcome, text: &mut String) {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let what = format!(
        "{cores} processors for client and server, {}, median of {} rounds",
        outcome.file_system, outcome.rounds
    );
    line(text, &what);
    for peer in &outcome.servers {
        line(text, &format!("  {:<13} stable: {}", peer.name, peer.durability));
    }
}

/// The rows that were measured on any server.
fn measured(outcome: &Outcome) -> impl Iterator<Item = &'static Row> {
    let is_told = |row: &&Row| {
        (0..outcome.servers.len()).any(|server| outcome.median(server, row, Figure::Rate).is_some())
    };
    LOADS.iter().flat_map(|load| load.rows).filter(is_told)
}

fn width(outcome: &Outcome) -> usize {
    let free = COLUMNS - NAME - 3 * GOAL;
    (free / outcome.servers.len().max(1)).clamp(8, 12)
}

/// A line of names or figures, one for each server, and then goals.
fn columns(outcome: &Outcome, name: &str, cells: &[String], goals: &[String]) -> String {
    let width = width(outcome);
    let cell = |text: &String| {
        let shown: String = text.chars().take(width - 1).collect();
        format!("{shown:>width$}")
    };
    let cells: String = cells.iter().map(cell).collect();
    let goals: String = goals.iter().map(|goal| format!("{goal:>GOAL$}")).collect();
    format!("{name:<NAME$}{cells}{goals}")
}

fn names(outcome: &Outcome) -> Vec<String> {
    outcome.servers.iter().map(|peer| peer.name.clone()).collect()
}

fn goal(goal: Option<Goal>) -> String {
    goal.map_or_else(String::new, |goal| format!("{:.2}{}", goal.ratio, if goal.met { " ok" } else { " --" }))
}

pub(super) fn figure(value: Option<f64>) -> String {
    match value {
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
        None => "-".into(),
    }
}

fn rates(outcome: &Outcome, text: &mut String) {
    if measured(outcome).next().is_none() {
        return;
    }
    line(text, "\nMiB/s of streams, thousands per second of calls and entries; ratios of remoor to");
    let goals = ["best".to_string(), "ganesha".into(), "ceiling".into()];
    line(text, &columns(outcome, "", &names(outcome), &goals));
    line(
        text,
        &columns(
            outcome,
            "goal",
            &vec![String::new(); outcome.servers.len()],
            &[">= 1".into(), ">= 1.5".into()],
        ),
    );
    for row in measured(outcome) {
        let cells: Vec<String> =
            (0..outcome.servers.len()).map(|n| figure(outcome.median(n, row, Figure::Rate))).collect();
        let of_ceiling = outcome.of_ceiling(row).map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        let goals = [goal(outcome.best_peer(row)), goal(outcome.small_calls(row)), of_ceiling];
        line(text, &columns(outcome, row.name, &cells, &goals));
    }
}

fn cpu(outcome: &Outcome, text: &mut String) {
    if measured(outcome).next().is_none() {
        return;
    }
    line(
        text,
        "\nServer's CPU seconds per GiB of streams, per million calls and entries; ratio of remoor to",
    );
    line(text, &columns(outcome, "", &names(outcome), &["ganesha".into()]));
    line(text, &columns(outcome, "goal", &vec![String::new(); outcome.servers.len()], &["<= 0.5".into()]));
    for row in measured(outcome) {
        let cells: Vec<String> =
            (0..outcome.servers.len()).map(|n| figure(outcome.median(n, row, Figure::Cpu))).collect();
        line(text, &columns(outcome, row.name, &cells, &[goal(outcome.cpu(row))]));
    }
}

fn memory(outcome: &Outcome, text: &mut String) {
    let mib = |kib: &Option<u64>| kib.map_or_else(|| "-".into(), |kib| figure(Some(kib as f64 / 1024.0)));
    line(text, "\nResident memory, MiB");
    line(text, &columns(outcome, "", &names(outcome), &[]));
    line(text, &columns(outcome, "after all loads", &outcome.rss.iter().map(mib).collect::<Vec<_>>(), &[]));
    if outcome.idle_connections > 0 {
        let name = format!("{} idle connections", outcome.idle_connections);
        let cells: Vec<String> = outcome.idle_kib.iter().map(|kib| format!("+{}", mib(kib))).collect();
        line(text, &columns(outcome, &name, &cells, &[]));
    }
}

fn slow(outcome: &Outcome, text: &mut String) {
    if outcome.slow.is_empty() {
        return;
    }
    line(text, "\nSeven clients that read 4 KiB, while an eighth waits for a disk that does not answer");
    line(text, &columns(outcome, "", &names(outcome), &[]));
    let told = |f: fn(&super::outcome::Slow) -> f64| -> Vec<String> {
        outcome.slow.iter().map(|slow| figure(slow.as_ref().map(f))).collect()
    };
    line(
        text,
        &columns(outcome, "without, thousand/s", &told(|s| Figure::Rate.of(&s.without, Unit::Calls)), &[]),
    );
    line(text, &columns(outcome, "with, thousand/s", &told(|s| Figure::Rate.of(&s.with, Unit::Calls)), &[]));
    line(text, &columns(outcome, "without, p99 ms", &told(|s| s.without.p99_us / 1e3), &[]));
    line(text, &columns(outcome, "with, p99 ms", &told(|s| s.with.p99_us / 1e3), &[]));
    line(text, &columns(outcome, "with, longest ms", &told(|s| s.with.max_us / 1e3), &[]));
}

/// Every sample, and what follows.
pub(crate) fn json(outcome: &Outcome) -> anyhow::Result<String> {
    let at = |list: &[Option<u64>], n: usize| list.get(n).copied().flatten();
    let server = |n: usize| {
        json!({
            "name": outcome.servers[n].name,
            "durability": outcome.servers[n].durability,
            "rss_kib": at(&outcome.rss, n),
            "idle_growth_kib": at(&outcome.idle_kib, n),
            "slow_disk": outcome.slow.get(n),
            "samples": outcome.cells[n],
        })
    };
    let told = json!({
        "file_system": outcome.file_system,
        "rounds": outcome.rounds,
        "idle_connections": outcome.idle_connections,
        "servers": (0..outcome.servers.len()).map(server).collect::<Vec<_>>(),
        "rows": measured(outcome).map(|row| json_row(outcome, row)).collect::<Vec<_>>(),
        "notes": outcome.notes,
    });
    serde_json::to_string_pretty(&told).context("cannot write the outcome as JSON")
}

fn json_row(outcome: &Outcome, row: &Row) -> serde_json::Value {
    let all = |figure| (0..outcome.servers.len()).map(|n| outcome.median(n, row, figure)).collect::<Vec<_>>();
    let goal = |goal: Option<Goal>| goal.map(|goal| json!({ "ratio": goal.ratio, "met": goal.met }));
    let (rate, cpu) = match row.unit {
        Unit::Bytes => ("MiB/s", "CPU seconds per GiB"),
        Unit::Calls => ("thousand calls/s", "CPU seconds per million calls"),
        Unit::Entries => ("thousand entries/s", "CPU seconds per million entries"),
    };
    json!({
        "name": row.name, "rate_unit": rate, "rates": all(Figure::Rate), "cpu_unit": cpu, "cpu": all(Figure::Cpu),
        "goals": { "best_peer": goal(outcome.best_peer(row)), "small_calls": goal(outcome.small_calls(row)),
                   "cpu": goal(outcome.cpu(row)) },
        "of_ceiling": outcome.of_ceiling(row),
    })
}

#[cfg(test)]
mod tests {
    use super::super::outcome::tests::outcome;
    use super::super::server::Role;
    use super::*;

    fn told() -> Outcome {
        outcome(
            "GETATTR d16",
            &[
                ("remoor", Role::Subject, &[(60.0, 0.6)]),
                ("a-server-with-a-long-name", Role::Variant, &[(1.0, 1.0)]),
                ("ganesha", Role::Peer, &[(80.0, 1.0)]),
                ("nfs3_server", Role::Peer, &[]),
                ("ceiling", Role::Ceiling, &[(120.0, 0.1)]),
            ],
        )
    }

    #[test]
    fn tables_fit_a_hundred_columns_and_mark_the_goals() {
        let text = text(&told());
        assert!(text.lines().all(|line| line.len() <= COLUMNS), "{text}");
        let row: Vec<&str> =
            text.lines().find(|l| l.starts_with("GETATTR")).unwrap().split_whitespace().collect();
        assert_eq!(row[2..], ["60.0", "1.00", "80.0", "-", "120", "0.75", "--", "0.75", "--", "0.50"]);
        assert!(!text.contains("NULL"), "what was not measured has no line");
    }

    #[test]
    fn json_has_samples_medians_and_goals() {
        let value: serde_json::Value = serde_json::from_str(&json(&told()).unwrap()).unwrap();
        assert_eq!(value["rows"][0]["goals"]["small_calls"]["met"], false);
        assert_eq!(value["rows"][0]["rates"][3], serde_json::Value::Null);
        assert_eq!(value["servers"][0]["samples"][0]["sample"]["calls"], 120_000);
    }
}
