//! The summary: balancers across, mount options down, one cell for what came of each pair.

use maud::{Markup, html};

use super::case::anchor;
use super::outcome::{Outcome, gap, predicted_gap};
use crate::report::{CaseReport, DrillReport, seconds};

type Numbered<'a> = (usize, &'a CaseReport);

/// One grid per fault.
pub(super) fn render(report: &DrillReport) -> Markup {
    let cases: Vec<Numbered<'_>> = report.cases.iter().enumerate().collect();
    html! {
        section.summary aria-label="Summary" {
            @for fault in distinct(&cases, |case| &case.fault) {
                (grid(fault, &cases.iter().copied().filter(|(_, case)| case.fault == fault).collect::<Vec<_>>()))
            }
        }
    }
}

fn grid(fault: &str, cases: &[Numbered<'_>]) -> Markup {
    let balancers = distinct(cases, |case| &case.balancer);
    html! {
        div.scroll {
            table.matrix style=(format!("--columns:{}", balancers.len())) {
                caption { "Fault: " b { (fault) } }
                thead { tr {
                    th.corner scope="col" { "mount options" }
                    @for balancer in &balancers { th scope="col" { (balancer) } }
                } }
                tbody {
                    @for options in distinct(cases, |case| &case.options) {
                        tr {
                            th scope="row" { code { (options) } }
                            @for balancer in &balancers { (cell(cases, options, balancer)) }
                        }
                    }
                }
            }
        }
    }
}

fn cell(cases: &[Numbered<'_>], options: &str, balancer: &str) -> Markup {
    let here = cases.iter().filter(|(_, case)| case.options == options && case.balancer == balancer);
    html! { td { @for (n, case) in here { (entry(*n, case)) } } }
}

fn entry(n: usize, case: &CaseReport) -> Markup {
    let outcome = Outcome::of(case);
    html! {
        a.{ "entry " (outcome.class()) } href=(format!("#{}", anchor(n))) {
            span.verdict { span.sign aria-hidden="true" { (outcome.sign()) } " " (outcome.words()) }
            span.gap { "gap " (gap(case)) }
            span.detail { (detail(case)) }
        }
    }
}

/// What the gap is to be compared with.
fn detail(case: &CaseReport) -> String {
    match (Outcome::of(case), case.expected.flow_frees) {
        (Outcome::Failed, _) => case.reasons.join("; "),
        (Outcome::Hangs, Some(frees)) => format!("flow frees after {}", seconds(frees)),
        _ => format!("predicted {}", predicted_gap(case)),
    }
}

/// The values of `field`, in order of their first case.
fn distinct<'a>(cases: &[Numbered<'a>], field: fn(&CaseReport) -> &String) -> Vec<&'a str> {
    let mut values: Vec<&str> = Vec::new();
    for (_, case) in cases {
        let value = field(case).as_str();
        if !values.contains(&value) {
            values.push(value);
        }
    }
    values
}
