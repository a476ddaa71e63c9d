//! What a case should come to: the same balancer, the same client machine and the same fault in virtual time.

use std::time::{Duration, Instant};

use remoor_flow::BackendId;
use remoor_flow::predict::{self, AnswerKind, Attempt, FAULTY, Prediction, Scenario, Sender};
use remoor_nfs::reconnect::{ConfigError, EPHEMERAL_HI, EPHEMERAL_LO, Rebind};

use crate::case::Case;
use crate::report::{AttemptReport, Break, CaseReport, Expected, NoticeReport, RebindSeen, thinned};
use crate::topology::Node;

/// Back-offs that are tried: where the balancer learns of the fault late, the next attempt after that decides the gap.
const BACK_OFFS: u64 = 16;

/// Predicts `case`; of several rounds each is expected to come to the same. The gap is the longest of those that the
/// jitter of the client's back-off makes.
///
/// # Errors
/// [`ConfigError`] if the options do not fit a host with the default range of ephemeral ports.
pub fn expect(case: &Case) -> Result<Expected, ConfigError> {
    let scenario = scenario(case)?;
    let mut expected = expected(&predict::predict(&scenario)?, &scenario);
    for n in 1..BACK_OFFS {
        let other = Scenario { seed: case.seed.wrapping_add(n), ..scenario.clone() };
        let gap = predict::predict(&other)?.gap;
        expected.gap = expected.gap.map(|known| gap.map_or(known, |gap| known.max(gap)));
    }
    Ok(expected)
}

/// A report of `case` that ran in virtual time only.
///
/// # Errors
/// As [`expect`].
pub fn simulate(case: &Case) -> Result<CaseReport, ConfigError> {
    let scenario = scenario(case)?;
    let prediction = predict::predict(&scenario)?;
    let expected = expected(&prediction, &scenario);
    let mut report = CaseReport {
        simulated: true,
        breaks: vec![broken(&prediction, &scenario)],
        notices: prediction.notices.iter().map(|(at, notice)| NoticeReport::new(*at, notice)).collect(),
        attempts: attempts(&prediction),
        replies: thinned(prediction.replies.clone()),
        rebind: expected.rebind,
        pinned: expected.pinned,
        gap: expected.gap,
        ..CaseReport::blank(case, expected)
    };
    report.judge();
    Ok(report)
}

fn scenario(case: &Case) -> Result<Scenario, ConfigError> {
    let client = case.options.config((EPHEMERAL_LO, EPHEMERAL_HI))?;
    Ok(Scenario {
        fault: (case.fault.predicted)(case.window),
        probe_delay: case.probe_delay,
        window: case.window,
        seed: case.seed,
        ..Scenario::new(Instant::now(), case.balancer.chosen().config.clone(), client)
    })
}

fn expected(prediction: &Prediction, scenario: &Scenario) -> Expected {
    Expected {
        gap: prediction.gap,
        rebind: prediction.rebind.map(|rebind| match rebind {
            Rebind::Same => RebindSeen::Same,
            Rebind::Fresh => RebindSeen::Fresh,
        }),
        pinned: prediction.pinned,
        flow_frees: prediction.flow_frees_at.map(|at| at.saturating_sub(scenario.fault_at)),
    }
}

fn broken(prediction: &Prediction, scenario: &Scenario) -> Break {
    let at = scenario.fault_at;
    let silence = silence(prediction, at);
    Break {
        node: Node::A.to_string(),
        at,
        switched: at + scenario.probe_delay,
        last_reply: silence.map(|(last, _)| last),
        first_reply: silence.map(|(_, first)| first),
        mended: None,
        restored: None,
    }
}

/// The replies around the gap.
fn silence(prediction: &Prediction, fault_at: Duration) -> Option<(Duration, Duration)> {
    let gap = prediction.gap?;
    let ends = prediction.replies.iter().filter(|reply| **reply > fault_at);
    let starts = ends.filter_map(|first| Some((first.checked_sub(gap)?, *first)));
    starts
        .into_iter()
        .find(|(last, _)| prediction.replies.contains(last))
        .or(Some((fault_at, fault_at + gap)))
}

fn attempts(prediction: &Prediction) -> Vec<AttemptReport> {
    let mut reports: Vec<_> = prediction.attempts.iter().map(attempt).collect();
    for (at, index) in &prediction.repeated_syns {
        if let Some(report) = reports.get_mut(*index) {
            report.retransmitted.push(*at);
        }
    }
    reports
}

fn attempt(attempt: &Attempt) -> AttemptReport {
    let (answered_by, answer) = match attempt.answer {
        None => ("none".to_owned(), ""),
        Some(answer) => (sender(answer.by), kind(answer.kind)),
    };
    let mut reached: Vec<_> = attempt.first_reached.into_iter().chain(attempt.reached).collect();
    reached.dedup();
    AttemptReport {
        at: attempt.at,
        port: attempt.port,
        isn: attempt.isn,
        retransmissions: attempt.retransmissions as usize,
        retransmitted: Vec::new(),
        forwarded_to: reached.into_iter().map(node).collect(),
        answered_by,
        answer: answer.to_owned(),
        answered: attempt.answered_at,
    }
}

fn sender(by: Sender) -> String {
    match by {
        Sender::Backend(id) => node(id),
        Sender::Balancer => "balancer".to_owned(),
    }
}

fn node(id: BackendId) -> String {
    if id == FAULTY { Node::A } else { Node::B }.to_string()
}

fn kind(kind: AnswerKind) -> &'static str {
    match kind {
        AnswerKind::SynAck => "SYN-ACK",
        AnswerKind::Reset => "RST",
        AnswerKind::ChallengeAck => "challenge ACK",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Matrix;
    use crate::report::{DrillReport, Verdict, table};

    #[test]
    fn the_gap_expected_is_the_longest_that_jitter_makes() {
        let matrix = |seed| Matrix {
            balancers: vec!["aws-nlb".into()],
            options: vec!["resvport".into()],
            faults: vec!["kill".into()],
            probe_delay: Duration::from_secs(2),
            seed,
            ..Matrix::default()
        };
        let case = matrix(1).cases().unwrap().remove(0);
        let expected = expect(&case).unwrap().gap.unwrap();
        for seed in 1..=BACK_OFFS {
            let one = simulate(&matrix(seed).cases().unwrap()[0]).unwrap().gap.unwrap();
            assert!(one <= expected, "seed {seed}: {one:?} > {expected:?}");
        }
    }

    #[test]
    fn the_default_matrix_comes_to_what_is_known_of_real_balancers() {
        let cases = Matrix::default().cases().unwrap();
        let reports: Vec<_> = cases.iter().map(|case| simulate(case).unwrap()).collect();
        let hangs = |report: &CaseReport| (report.gap.is_none(), report.pinned);
        for report in &reports {
            let pinned = matches!(
                (report.balancer.as_str(), report.options.as_str()),
                ("azure-standard", "resvport" | "resvport,abandon=silent")
                    | ("nf-conntrack", "resvport,abandon=silent")
            );
            assert_eq!(hangs(report), (pinned, pinned), "{} {}", report.balancer, report.options);
            assert_eq!(report.verdict, Verdict::Pass);
        }
        let text = table::render(&DrillReport { cases: reports, wall: Duration::ZERO });
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }

    #[test]
    fn an_attempt_that_outlives_the_flow_went_to_both_nodes() {
        let options = vec!["resvport,abandon=silent".to_owned()];
        let balancers = vec!["azure-standard".to_owned()];
        let window = Duration::from_secs(600);
        let cases = Matrix { balancers, options, window, ..Matrix::default() }.cases().unwrap();
        let report = simulate(&cases[0]).unwrap();
        let last = report.attempts.last().unwrap();
        assert_eq!(
            (&last.forwarded_to[..], &last.answered_by[..]),
            (&["A".to_owned(), "B".to_owned()][..], "B")
        );
        assert_eq!(last.retransmitted.len(), last.retransmissions);
        assert!(last.retransmitted.is_sorted() && last.answered > last.retransmitted.last().copied());
        let broken = &report.breaks[0];
        assert_eq!(broken.gap(), report.gap);
        assert!(report.replies.contains(&broken.first_reply.unwrap()));
    }
}
