//! The drill as one HTML page: what happened, to be seen. Nothing on it is fetched, nothing runs.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{DrillReport, seconds};
use outcome::Outcome;

mod axis;
mod case;
mod lane;
mod legend;
mod matrix;
mod outcome;
mod picture;

const STYLE: &str = include_str!("style.css");

/// Forbids what the page does not need, whatever a string in it may hold. Void elements are closed, so that the page
/// is XML, too.
const HEAD: &str = "<meta charset=\"utf-8\"/>\
    <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
    <meta name=\"color-scheme\" content=\"light dark\"/>\
    <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>";

/// The page. The same report gives the same bytes.
pub fn render(report: &DrillReport) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                (PreEscaped(HEAD))
                title { "remoor drill: " (headline(report)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (legend::shapes())
                header {
                    h1 { "NFS failover drill" }
                    p.headline { (headline(report)) }
                    p.how { (how(report)) }
                }
                main {
                    (matrix::render(report))
                    (legend::render())
                    @for (n, case) in report.cases.iter().enumerate() { (case::render(n, case)) }
                }
                footer { "remoor " (env!("CARGO_PKG_VERSION")) " · drill took " (seconds(report.wall)) }
            }
        }
    };
    printable(page)
}

/// HTML has no way to write control characters.
fn printable(page: Markup) -> String {
    let page = page.into_string();
    page.chars().map(|c| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

fn headline(report: &DrillReport) -> String {
    let count = |class: &str| report.cases.iter().filter(|case| Outcome::of(case).class() == class).count();
    let (recovered, hang) = (count("recovered"), count("hangs"));
    let parts = [
        (recovered > 0).then(|| format!("{recovered} recovered")),
        (hang > 0).then(|| format!("{hang} hang{} as predicted", if hang == 1 { "s" } else { "" })),
        Some(match count("failed") {
            0 => "none failed".to_owned(),
            failed => format!("{failed} failed"),
        }),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let cases = if report.cases.len() == 1 { "case" } else { "cases" };
    format!("{} {cases}: {}", report.cases.len(), parts.join(", "))
}

fn how(report: &DrillReport) -> &'static str {
    if report.cases.iter().all(|case| case.simulated) {
        "A client mounts through a stateful balancer, node A or B breaks, and the client tries to come back. \
         Everything here was played in virtual time: no packet was sent."
    } else {
        "A client mounts through a stateful balancer and writes files; node A or B breaks; every SYN on the wire is \
         captured. Each case was also predicted in virtual time; a case fails if it came out otherwise or if \
         acknowledged data is missing."
    }
}

#[cfg(test)]
mod tests;
