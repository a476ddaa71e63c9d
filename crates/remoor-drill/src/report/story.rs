//! One case as the five steps by which people verify a failover: mount, capture, disrupt, observe, restore.

use std::time::Duration;

use super::table::stuck;
use super::{AttemptReport, Break, CaseReport, Verdict, seconds, wrap};
use crate::topology::SERVICE;

/// The story of `case`. Times are seconds since the mount began.
pub fn render(case: &CaseReport) -> String {
    let mut story = Story { text: String::new(), case };
    story.mount();
    story.capture();
    for (round, broken) in case.breaks.iter().enumerate() {
        if case.breaks.len() > 1 {
            story.line(0, &format!("Round {}", round + 1));
        }
        story.disrupt(broken);
        story.observe(round, broken);
        story.restore(broken);
    }
    story.end();
    story.text
}

struct Story<'a> {
    text: String,
    case: &'a CaseReport,
}

impl Story<'_> {
    fn mount(&mut self) {
        let case = self.case;
        let real = if case.simulated { "simulated" } else { "real packets" };
        self.line(0, &format!("{} · {} · fault {} · {real}", case.balancer, case.options, case.fault));
        if let Some(first) = case.attempts.first() {
            let text = format!(
                "mounted {SERVICE} with -o {}: source port {} ({}), sequence number {}, connected to node {}",
                case.options,
                first.port,
                kind(first.port),
                first.isn,
                first.answered_by
            );
            self.step(1, &text);
        }
    }

    fn capture(&mut self) {
        let text = match self.case.simulated {
            true => "nothing to capture in virtual time; the model's packets are listed".to_owned(),
            false => format!(
                "capturing on the client's interface and the balancer's two, frames missed: {}",
                self.case.missing_frames
            ),
        };
        self.step(2, &text);
    }

    fn disrupt(&mut self, broken: &Break) {
        let node = &broken.node;
        let what = match self.case.fault.as_str() {
            "kill" => format!("server process of node {node} killed"),
            "stop" => format!("server process of node {node} stopped, while its kernel still acknowledges,"),
            _ => format!("node {node} silenced"),
        };
        let delay = seconds(broken.switched.saturating_sub(broken.at));
        let text = format!("{what} at {}; the balancer marks it down {delay} later", clock(broken.at));
        self.step(3, &text);
    }

    fn observe(&mut self, round: usize, broken: &Break) {
        let from = broken.at;
        let until = self.case.breaks.get(round + 1).map_or(Duration::MAX, |next| next.at);
        let during = |at: Duration| at >= from && at < until;
        let attempts = &self.case.attempts;
        let syns = attempts.iter().enumerate().filter(|(_, a)| during(a.at));
        let mut events: Vec<(Duration, String)> = syns.map(|(i, a)| (a.at, syn(&attempts[..i], a))).collect();
        let none = events.is_empty();
        let notices = self.case.notices.iter().filter(|notice| during(notice.at));
        events.extend(notices.map(|notice| (notice.at, format!("client: {}", notice.text))));
        events.sort_by_key(|(at, _)| *at);
        self.step(
            4,
            if none {
                "no SYN: the client stayed on its connection"
            } else {
                "every SYN after that, and what the client noticed:"
            },
        );
        for (at, text) in events {
            self.wrapped(&format!("{:>12}  ", clock(at)), &text);
        }
    }

    fn restore(&mut self, broken: &Break) {
        let text = match (broken.first_reply, broken.last_reply, broken.restored) {
            (Some(first), Some(last), _) => {
                format!("client back at {}: no reply for {}", clock(first), seconds(first - last))
            }
            (_, _, Some(back)) => {
                format!("{}; client back at {}, after the node was", stuck(self.case), clock(back))
            }
            _ => format!("{}; not back after the node was either", stuck(self.case)),
        };
        let mended = broken.mended.map(|at| format!("; node {} restored at {}", broken.node, clock(at)));
        self.step(5, &(text + &mended.unwrap_or_default()));
    }

    fn end(&mut self) {
        let case = self.case;
        let data = match case.simulated {
            true => "no data in virtual time".to_owned(),
            false => format!(
                "{} files completed, {} acknowledged changes lost, {} false errors",
                case.files, case.lost, case.false_errors
            ),
        };
        self.line(0, &data);
        for text in case.losses.iter().chain(&case.errors) {
            self.line(2, text);
        }
        match case.verdict {
            Verdict::Pass => self.line(0, "PASS: as predicted"),
            Verdict::Fail => self.line(0, &format!("FAIL: {}", case.reasons.join("; "))),
        }
    }

    fn step(&mut self, number: usize, text: &str) {
        self.wrapped(&format!("({number}) "), text);
    }

    fn line(&mut self, indent: usize, text: &str) {
        self.wrapped(&" ".repeat(indent), text);
    }

    fn wrapped(&mut self, head: &str, text: &str) {
        self.text.push_str(&wrap(head, text));
    }
}

fn clock(at: Duration) -> String {
    format!("{:.3} s", at.as_secs_f64())
}

fn kind(port: u16) -> &'static str {
    if port < 1024 { "reserved" } else { "above 1023" }
}

/// One SYN, compared with those before it.
fn syn(before: &[AttemptReport], attempt: &AttemptReport) -> String {
    let same = before.iter().any(|earlier| earlier.port == attempt.port);
    let port = if same { "same as before" } else { "different" };
    let to = match &attempt.forwarded_to[..] {
        [] => "went nowhere".to_owned(),
        nodes => format!("went to {}", nodes.join(", ")),
    };
    let answer = match (attempt.answered_by.as_str(), attempt.answer.as_str()) {
        ("none", _) => "unanswered".to_owned(),
        (by, answer) => format!("{answer} from {by}"),
    };
    let again = match attempt.retransmissions {
        0 => String::new(),
        1 => ", sent again once".to_owned(),
        n => format!(", sent again {n} times"),
    };
    format!(
        "SYN port {} seq {}: {port}, {}; {to}, {answer}{again}",
        attempt.port,
        attempt.isn,
        kind(attempt.port)
    )
}

#[cfg(test)]
mod tests {
    use super::super::MAX_WIDTH;
    use super::super::tests::recovered;
    use super::*;

    #[test]
    fn the_five_steps_are_told_in_order_and_fit() {
        let text = render(&recovered());
        let parts = [
            "(1) mounted",
            "(2) capturing",
            "(3) node A silenced",
            "(4) every SYN",
            "(5) client back at 1.400 s",
        ];
        let places: Vec<_> =
            parts.iter().map(|part| text.find(part).unwrap_or_else(|| panic!("{part}\n{text}"))).collect();
        assert!(places.is_sorted(), "{text}");
        assert!(text.contains("different, above 1023; went to B, SYN-ACK from B"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= MAX_WIDTH), "{text}");
    }
}
