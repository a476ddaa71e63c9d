//! The cases as one table, at most 100 columns wide.

use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::{AttemptReport, CaseReport, DrillReport, MAX_WIDTH, RebindSeen, Verdict, seconds, wrap};

const HEADER: [&str; 10] =
    ["balancer", "options", "fault", "ports", "rebind", "pinned", "gap", "lost", "false\nerrors", "verdict"];
/// Widths at which names are broken, in columns.
const BALANCER_WIDTH: usize = 16;
const OPTIONS_WIDTH: usize = 23;
/// A gap that is so much longer than predicted is pointed out, though it passes up to [`super::GAP_TOLERANCE`].
const NOTABLE: Duration = Duration::from_millis(200);
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
        broken_at(&case.balancer, '+', BALANCER_WIDTH),
        broken_at(&case.options, ',', OPTIONS_WIDTH),
        case.fault.clone(),
        ports(&case.attempts),
        rebind(case.rebind).to_owned(),
        if case.pinned { "yes" } else { "no" }.to_owned(),
        case.gap.map_or_else(|| format!("> {} s", case.window.as_secs_f64()), seconds),
        found(case, case.lost),
        found(case, case.false_errors),
        verdict(case.verdict).to_owned(),
    ]
}

/// What a disk check found; in virtual time there is no disk.
fn found(case: &CaseReport, count: usize) -> String {
    if case.simulated { "–".to_owned() } else { count.to_string() }
}

/// Breaks a name that is wider than its column before `mark`, so that no word is cut.
fn broken_at(name: &str, mark: char, width: usize) -> String {
    let parts = name.split_inclusive(mark);
    let mut lines = vec![String::new()];
    for part in parts {
        let room = lines.last().map_or(0, |line| width.saturating_sub(line.chars().count()));
        if part.trim_end_matches(mark).chars().count() > room
            && lines.last().is_some_and(|line| !line.is_empty())
        {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(part);
        }
    }
    lines.join("\n")
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
        [first, .., last] => format!("{first}…{last}"),
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
    match (case.gap, case.expected.gap) {
        (None, _) => lines.push(stuck(case)),
        (Some(gap), Some(wanted)) if gap > wanted + NOTABLE => {
            lines.push(format!("the gap was {}, predicted {}", seconds(gap), seconds(wanted)));
        }
        _ => {}
    }
    if !case.probe_delay.is_zero() {
        lines.push(format!(
            "the balancer noticed {} after the fault; the gap includes that",
            seconds(case.probe_delay)
        ));
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
    fn long_names_are_broken_between_words() {
        assert_eq!(broken_at("azure-standard", '+', 16), "azure-standard");
        assert_eq!(broken_at("azure-standard+syn-refreshes", '+', 16), "azure-standard+\nsyn-refreshes");
        let text = "resvport,rebind=fresh,abandon=silent";
        assert_eq!(broken_at(text, ',', 23), "resvport,rebind=fresh,\nabandon=silent");
    }

    #[test]
    fn many_ports_are_shortened() {
        let attempts: Vec<_> = (0..5).map(|n| attempt(n, 40_000 + n as u16, "A")).collect();
        assert_eq!(ports(&attempts), "40000…40004");
    }
}
