//! One case: what came of it, its pictures, its story and its fields.

use maud::{Markup, html};
use serde_json::Value;

use super::outcome::{Outcome, gap, predicted_gap};
use super::picture;
use crate::report::{CaseReport, story, table};

/// Name of the place on the page where case `n` is, counted from 0.
pub(super) fn anchor(n: usize) -> String {
    format!("case-{}", n + 1)
}

/// The section of case `n`.
pub(super) fn render(n: usize, case: &CaseReport) -> Markup {
    let outcome = Outcome::of(case);
    html! {
        section.{ "case " (outcome.class()) } id=(anchor(n)) {
            h2 { (case.balancer) " · " code { (case.options) } " · " (case.fault) }
            p.outcome { span.sign aria-hidden="true" { (outcome.sign()) } " " (outcome.words()) }
            @for reason in &case.reasons { p.reason { (reason) } }
            @if case.gap.is_none() { p.stuck { (table::stuck(case)) } }
            (facts(case))
            @for (round, broken) in case.breaks.iter().enumerate() {
                figure {
                    @if case.breaks.len() > 1 { figcaption { "Round " (round + 1) ": node " (broken.node) " breaks" } }
                    (picture::render(case, round))
                }
            }
            details { summary { "Story, in seconds since the mount began" } pre { (story::render(case)) } }
            details { summary { "All values, as in report.json" } (values(case)) }
        }
    }
}

fn facts(case: &CaseReport) -> Markup {
    let data = if case.simulated { "none in virtual time".to_owned() } else { case.lost.to_string() };
    let facts = [
        ("gap", gap(case)),
        ("predicted", predicted_gap(case)),
        ("source ports", format!("{} {}", table::ports(&case.attempts), table::rebind(case.rebind))),
        ("SYNs to the dead node", if case.pinned { "yes: pinned" } else { "no" }.to_owned()),
        ("acknowledged data lost", data),
        ("false errors", case.false_errors.to_string()),
    ];
    html! { dl.facts { @for (name, value) in facts { div { dt { (name) } dd { (value) } } } } }
}

fn values(case: &CaseReport) -> Markup {
    let mut rows = Vec::new();
    match serde_json::to_value(case) {
        Ok(value) => flatten("", &value, &mut rows),
        Err(error) => rows.push(("error".to_owned(), error.to_string())),
    }
    html! {
        div.scroll { table.values { tbody {
            @for (field, value) in rows { tr { th scope="row" { (field) } td { (value) } } }
        } } }
    }
}

/// A row for each value that is not a container; a list of those is one row.
fn flatten(name: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            let dot = if name.is_empty() { "" } else { "." };
            fields.iter().for_each(|(field, value)| flatten(&format!("{name}{dot}{field}"), value, rows));
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            let numbered = items.iter().enumerate();
            numbered.for_each(|(n, item)| flatten(&format!("{name}[{n}]"), item, rows));
        }
        Value::Array(items) => {
            rows.push((name.to_owned(), items.iter().map(text).collect::<Vec<_>>().join(", ")))
        }
        single => rows.push((name.to_owned(), text(single))),
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
