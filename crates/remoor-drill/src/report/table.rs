//! The cases as one table, at most 100 columns wide.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::{AttemptReport, CaseReport, DrillReport, MAX_WIDTH, RebindSeen, Verdict, seconds, wrap};

const HEADER: [&str; 10] =
    ["balancer", "options", "fault", "ports", "rebind", "pinned", "gap", "lost", "false\nerrors", "verdict"];
/// Columns of numbers.
const RIGHT_ALIGNED: [usize; 3] = [6, 7, 8];

/// The table, then what needs more words than a cell has.
pub fn render(report: &DrillReport) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(MAX_WIDTH as u16);
    table.set_header(HEADER);
    table.add_row(HEADER.map(|name| "─".repeat(name.lines().map(|l| l.chars().count()).max().unwrap_or(0))));
    for case in &report.cases {
        table.add_row(row(case));
    }
    for (n, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 1));
        if RIGHT_ALIGNED.contains(&n) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let notes: Vec<String> = report.cases.iter().filter_map(note).collect();
    let mut text = trimmed(&table);
    text.push('\n');
    for note in notes {
        text.push_str(&note);
    }
    text
}

fn trimmed(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn row(case: &CaseReport) -> [String; 10] {
    [
        case.balancer.clone(),
        case.options.clone(),
        case.fault.clone(),
        ports(&case.attempts),
        rebind(case.rebind).to_owned(),
        if case.pinned { "yes" } else { "no" }.to_owned(),
        case.gap.map_or_else(|| format!("> {} s", case.window.as_secs_f64()), seconds),
        case.lost.to_string(),
        case.false_errors.to_string(),
        verdict(case.verdict).to_owned(),
    ]
}

/// The ports in order of their first use, shortened in the middle.
pub(super) fn ports(attempts: &[AttemptReport]) -> String {
    let mut ports: Vec<u16> = Vec::new();
    for attempt in attempts {
        if !ports.contains(&attempt.port) {
            ports.push(attempt.port);
        }
    }
    match &ports[..] {
        [] => "none".to_owned(),
        [one] => one.to_string(),
        [first, last] => format!("{first}→{last}"),
        [first, .., last] => format!("{first}→…→{last}"),
    }
}

pub(super) fn rebind(seen: Option<RebindSeen>) -> &'static str {
    match seen {
        None => "–",
        Some(RebindSeen::Same) => "same",
        Some(RebindSeen::Fresh) => "fresh",
        Some(RebindSeen::Mixed) => "mixed",
    }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Fail => "FAIL",
        Verdict::Pass => "pass",
    }
}

/// What a reader asks next about a case that did not simply recover.
fn note(case: &CaseReport) -> Option<String> {
    let mut lines = Vec::new();
    lines.extend(case.reasons.iter().map(|reason| format!("FAIL: {reason}")));
    lines.extend(case.losses.iter().take(3).map(|loss| format!("lost: {loss}")));
    lines.extend(case.errors.iter().take(3).map(|error| format!("error: {error}")));
    if case.gap.is_none() {
        lines.push(stuck(case));
    }
    let head = format!("{} · {} · {}\n", case.balancer, case.options, case.fault);
    (!lines.is_empty()).then(|| head + &lines.iter().map(|line| wrap("  ", line)).collect::<String>())
}

/// Why a client did not recover, and until when.
pub(super) fn stuck(case: &CaseReport) -> String {
    let window = seconds(case.window);
    let model = case
        .expected
        .flow_frees
        .map(|frees| format!("; the model frees it {} after the fault", seconds(frees)));
    let model = model.unwrap_or_default();
    match &case.pinned_flow {
        Some(flow) => format!(
            "not recovered in {window}: port {} is pinned to node {} ({}); left alone the entry frees in {}{model}",
            flow.port,
            flow.node,
            flow.state,
            seconds(flow.frees_in)
        ),
        None => format!("not recovered in {window}{model}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{attempt, recovered};
    use super::super::{DrillReport, PinnedFlow};
    use super::*;
    use std::time::Duration;

    fn pinned() -> CaseReport {
        let flow = PinnedFlow {
            port: 721,
            node: "A".into(),
            state: "ESTABLISHED".into(),
            frees_in: Duration::from_secs(234),
        };
        let mut case = CaseReport {
            options: "resvport,abandon=silent".into(),
            attempts: vec![attempt(0, 721, "A"), attempt(1300, 721, "none")],
            rebind: Some(RebindSeen::Same),
            pinned: true,
            gap: None,
            pinned_flow: Some(flow),
            ..recovered()
        };
        case.expected.gap = None;
        case.expected.pinned = true;
        case.expected.rebind = Some(RebindSeen::Same);
        case.expected.flow_frees = Some(Duration::from_secs(240));
        case.judge();
        case
    }

    #[test]
    fn the_table_fits_and_says_what_happened() {
        let cases = vec![
            recovered(),
            pinned(),
            CaseReport { balancer: "azure-standard+syn-refreshes".into(), ..pinned() },
        ];
        let text = render(&DrillReport { cases, wall: Duration::from_secs(9) });
        assert!(text.lines().all(|line| line.chars().count() <= MAX_WIDTH), "{text}");
        for part in ["40001→50123", "0.41 s", "> 6 s", "port 721 is pinned to node A", "frees it 240 s"] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn many_ports_are_shortened() {
        let attempts: Vec<_> = (0..5).map(|n| attempt(n, 40_000 + n as u16, "A")).collect();
        assert_eq!(ports(&attempts), "40000→…→40004");
    }
}
