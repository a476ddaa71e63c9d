//! What a drill reports: one value per case, as a table, a story or JSON.

use std::time::Duration;

use remoor_nfs::reconnect::Notice;
use serde::{Serialize, Serializer};

use crate::case::Case;

pub use replies::{MAX_REPLIES, thinned};

pub mod html;
mod replies;
pub mod story;
pub mod table;

/// Widest line of any report, in columns.
pub const MAX_WIDTH: usize = 100;

/// Everything a drill found out.
#[derive(Debug, Serialize)]
pub struct DrillReport {
    /// The cases, in the order they were asked for.
    pub cases: Vec<CaseReport>,
    /// Wall time of the whole drill.
    #[serde(rename = "wall_ms", serialize_with = "millis")]
    pub wall: Duration,
}

impl DrillReport {
    /// Whether every case met its expectation.
    pub fn passed(&self) -> bool {
        self.cases.iter().all(|case| case.verdict == Verdict::Pass)
    }
}

/// What one case did. Times are milliseconds since the client began to mount, unless they are lengths.
#[derive(Debug, Clone, Serialize)]
pub struct CaseReport {
    /// The balancer's name.
    pub balancer: String,
    /// The mount options as written.
    pub options: String,
    /// The fault's name.
    pub fault: String,
    /// The workload's name.
    pub workload: String,
    /// Whether this ran in virtual time.
    pub simulated: bool,
    /// How long the client might take.
    #[serde(rename = "window_ms", serialize_with = "millis")]
    pub window: Duration,
    /// From the fault until the balancer marked the node down.
    #[serde(rename = "probe_delay_ms", serialize_with = "millis")]
    pub probe_delay: Duration,
    /// The breaks, in order: one, unless rounds were asked for.
    pub breaks: Vec<Break>,
    /// Every connection attempt, the first mount's included.
    pub attempts: Vec<AttemptReport>,
    /// When the client got replies, thinned to at most [`MAX_REPLIES`]; see [`thinned`] for what is kept.
    #[serde(rename = "replies_ms", serialize_with = "all_millis")]
    pub replies: Vec<Duration>,
    /// What the client noticed: that its server was silent, that it moved, and why.
    pub notices: Vec<NoticeReport>,
    /// Whether reconnects left from the first connection's port; `None` if there were none.
    pub rebind: Option<RebindSeen>,
    /// Whether a SYN went to the dead node after the balancer had marked it down.
    pub pinned: bool,
    /// Longest failover gap: last reply before to first reply after. `None`: not recovered in the window.
    #[serde(rename = "gap_ms", serialize_with = "maybe_millis")]
    pub gap: Option<Duration>,
    /// The flow that kept the client from recovering, as the balancer holds it.
    pub pinned_flow: Option<PinnedFlow>,
    /// Files the workload completed.
    pub files: u64,
    /// Acknowledged changes that are not there.
    pub lost: usize,
    /// The first of them, in words.
    pub losses: Vec<String>,
    /// Calls that had succeeded and were reported as failed.
    pub false_errors: usize,
    /// The first of them, and any true errors, in words.
    pub errors: Vec<String>,
    /// Frames the capture missed.
    pub missing_frames: u64,
    /// What the prediction says.
    pub expected: Expected,
    /// Whether it came out as expected and nothing was lost.
    pub verdict: Verdict,
    /// Why not.
    pub reasons: Vec<String>,
}

/// One break of a node and what followed.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Break {
    /// The node: `A` or `B`.
    pub node: String,
    /// When it broke.
    #[serde(rename = "at_ms", serialize_with = "millis")]
    pub at: Duration,
    /// When the balancer marked it down.
    #[serde(rename = "switched_ms", serialize_with = "millis")]
    pub switched: Duration,
    /// Last reply before the gap.
    #[serde(rename = "last_reply_ms", serialize_with = "maybe_millis")]
    pub last_reply: Option<Duration>,
    /// First reply after the gap; `None`: not in the window.
    #[serde(rename = "first_reply_ms", serialize_with = "maybe_millis")]
    pub first_reply: Option<Duration>,
    /// When the node was mended.
    #[serde(rename = "mended_ms", serialize_with = "maybe_millis")]
    pub mended: Option<Duration>,
    /// First reply after it was mended, of a client that had not recovered by itself.
    #[serde(rename = "restored_ms", serialize_with = "maybe_millis")]
    pub restored: Option<Duration>,
}

impl Break {
    /// The failover gap.
    pub fn gap(&self) -> Option<Duration> {
        Some(self.first_reply? - self.last_reply?)
    }
}

/// One connection attempt: one SYN series.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AttemptReport {
    /// When its first SYN left.
    #[serde(rename = "t_ms", serialize_with = "millis")]
    pub at: Duration,
    /// Source port.
    pub port: u16,
    /// Initial sequence number.
    pub isn: u32,
    /// SYNs sent again.
    pub retransmissions: usize,
    /// When each of those left.
    #[serde(rename = "retransmitted_ms", serialize_with = "all_millis")]
    pub retransmitted: Vec<Duration>,
    /// The nodes the balancer sent it to.
    pub forwarded_to: Vec<String>,
    /// `A`, `B`, `balancer`, or `none`.
    pub answered_by: String,
    /// `SYN-ACK`, `RST`, `challenge ACK`, or empty.
    pub answer: String,
    /// When the answer reached the client; `None`: there was none.
    #[serde(rename = "answered_ms", serialize_with = "maybe_millis")]
    pub answered: Option<Duration>,
}

/// Something the client noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NoticeReport {
    /// When.
    #[serde(rename = "t_ms", serialize_with = "millis")]
    pub at: Duration,
    /// What, as its log has it.
    pub text: String,
}

impl NoticeReport {
    /// A notice of the machine, at a time since the mount began.
    pub(crate) fn new(at: Duration, notice: &Notice) -> Self {
        Self { at, text: notice.to_string() }
    }
}

/// Whether a reconnect left from the port of the first connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RebindSeen {
    /// From the same port, every time.
    Same,
    /// From a port not used before, every time.
    Fresh,
    /// Some of both.
    Mixed,
}

impl RebindSeen {
    fn words(seen: Option<Self>) -> &'static str {
        match seen {
            None => "no reconnect",
            Some(Self::Same) => "same",
            Some(Self::Fresh) => "fresh",
            Some(Self::Mixed) => "mixed",
        }
    }

    /// From the ports of all attempts, first connection first; `None` without a reconnect.
    pub fn of(ports: impl IntoIterator<Item = u16>) -> Option<Self> {
        let ports: Vec<u16> = ports.into_iter().collect();
        let (first, rest) = ports.split_first()?;
        let mut unique = ports.clone();
        unique.sort_unstable();
        unique.dedup();
        Some(match rest {
            [] => return None,
            rest if rest.iter().all(|port| port == first) => Self::Same,
            _ if unique.len() == ports.len() => Self::Fresh,
            _ => Self::Mixed,
        })
    }
}

/// A flow entry that still leads to the dead node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PinnedFlow {
    /// The client's port.
    pub port: u16,
    /// The node it leads to.
    pub node: String,
    /// State of the connection in the balancer's words.
    pub state: String,
    /// Until it frees, if nothing refreshes it.
    #[serde(rename = "frees_in_ms", serialize_with = "millis")]
    pub frees_in: Duration,
}

/// What the prediction says of a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Expected {
    /// The gap; `None`: no recovery in the window.
    #[serde(rename = "gap_ms", serialize_with = "maybe_millis")]
    pub gap: Option<Duration>,
    /// Ports of the reconnects.
    pub rebind: Option<RebindSeen>,
    /// Whether SYNs go to the dead node.
    pub pinned: bool,
    /// From the fault until the pinned flow frees, if nothing refreshes it.
    #[serde(rename = "flow_frees_ms", serialize_with = "maybe_millis")]
    pub flow_frees: Option<Duration>,
}

/// Whether a case met its expectation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It did.
    Pass,
    /// It did not; the reasons are listed.
    Fail,
}

/// How much longer than predicted a gap may be on a busy machine.
pub const GAP_TOLERANCE: Duration = Duration::from_secs(1);

impl CaseReport {
    /// A report of `case` in which nothing happened yet.
    pub(crate) fn blank(case: &Case, expected: Expected) -> Self {
        Self {
            balancer: case.balancer.to_string(),
            options: case.options_text.clone(),
            fault: case.fault.name.to_owned(),
            workload: case.workload.name.to_owned(),
            simulated: false,
            window: case.window,
            probe_delay: case.probe_delay,
            breaks: Vec::new(),
            attempts: Vec::new(),
            notices: Vec::new(),
            replies: Vec::new(),
            rebind: None,
            pinned: false,
            gap: None,
            pinned_flow: None,
            files: 0,
            lost: 0,
            losses: Vec::new(),
            false_errors: 0,
            errors: Vec::new(),
            missing_frames: 0,
            expected,
            verdict: Verdict::Fail,
            reasons: Vec::new(),
        }
    }

    /// Sets verdict and reasons from everything else.
    pub fn judge(&mut self) {
        self.reasons = self.reasons();
        self.verdict = if self.reasons.is_empty() { Verdict::Pass } else { Verdict::Fail };
    }

    fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        let expected = &self.expected;
        match (self.gap, expected.gap) {
            (Some(gap), Some(wanted)) if gap > wanted + GAP_TOLERANCE => {
                reasons.push(format!("the gap was {} but {} was predicted", seconds(gap), seconds(wanted)));
            }
            (Some(gap), None) => {
                reasons.push(format!("recovered after {}, which was not predicted", seconds(gap)))
            }
            (None, Some(wanted)) => {
                reasons.push(format!("not recovered, but a gap of {} was predicted", seconds(wanted)));
            }
            _ => {}
        }
        if self.pinned != expected.pinned {
            reasons.push(format!("pinned: {}, predicted: {}", self.pinned, expected.pinned));
        }
        if self.rebind != expected.rebind {
            reasons.push(format!(
                "source ports: {}, predicted: {}",
                RebindSeen::words(self.rebind),
                RebindSeen::words(expected.rebind)
            ));
        }
        if self.lost > 0 {
            reasons.push(format!("{} acknowledged changes are lost", self.lost));
        }
        if self.errors.len() > self.false_errors {
            reasons.push("calls failed that should not".to_owned());
        }
        if self.missing_frames > 0 {
            reasons.push(format!("the capture missed {} frames", self.missing_frames));
        }
        reasons
    }
}

/// Seconds with as many digits as matter.
pub fn seconds(length: Duration) -> String {
    match length.as_secs() {
        0..100 => format!("{:.2} s", length.as_secs_f64()),
        100..7200 => format!("{} s", length.as_secs()),
        7200..172_800 => format!("{} h", length.as_secs() / 3600),
        _ => format!("{} d", length.as_secs() / 86_400),
    }
}

/// `text` after `head` in lines of at most [`MAX_WIDTH`], those that follow indented as far as the first.
fn wrap(head: &str, text: &str) -> String {
    let (mut out, mut line) = (String::new(), head.to_owned());
    for word in text.split(' ') {
        if line.len() > head.len() && line.chars().count() + word.chars().count() > MAX_WIDTH {
            out = out + line.trim_end() + "\n";
            line = " ".repeat(head.len());
        }
        line = line + word + " ";
    }
    out + line.trim_end() + "\n"
}

fn as_millis(length: &Duration) -> f64 {
    (length.as_secs_f64() * 1e6).round() / 1e3
}

fn millis<S: Serializer>(length: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(as_millis(length))
}

fn all_millis<S: Serializer>(lengths: &[Duration], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(lengths.iter().map(as_millis))
}

fn maybe_millis<S: Serializer>(length: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match length {
        Some(length) => millis(length, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A case that recovered as predicted.
    pub(crate) fn recovered() -> CaseReport {
        let ms = Duration::from_millis;
        CaseReport {
            balancer: "azure-standard".into(),
            options: "noresvport".into(),
            fault: "silent".into(),
            workload: "writers".into(),
            simulated: false,
            window: ms(6000),
            probe_delay: ms(0),
            breaks: vec![Break {
                node: "A".into(),
                at: ms(1000),
                switched: ms(1001),
                last_reply: Some(ms(990)),
                first_reply: Some(ms(1400)),
                mended: Some(ms(2000)),
                restored: None,
            }],
            attempts: vec![attempt(1, 40_001, "A"), attempt(1305, 50_123, "B")],
            replies: [3, 500, 990, 1400, 1500, 2300].map(ms).to_vec(),
            notices: vec![NoticeReport { at: ms(1300), text: "no byte for 300ms".into() }],
            rebind: Some(RebindSeen::Fresh),
            pinned: false,
            gap: Some(ms(410)),
            pinned_flow: None,
            files: 77,
            lost: 0,
            losses: Vec::new(),
            false_errors: 0,
            errors: Vec::new(),
            missing_frames: 0,
            expected: Expected {
                gap: Some(ms(350)),
                rebind: Some(RebindSeen::Fresh),
                pinned: false,
                flow_frees: None,
            },
            verdict: Verdict::Pass,
            reasons: Vec::new(),
        }
    }

    pub(crate) fn attempt(at_ms: u64, port: u16, by: &str) -> AttemptReport {
        AttemptReport {
            at: Duration::from_millis(at_ms),
            port,
            isn: 0x1234_5678,
            retransmissions: 0,
            retransmitted: Vec::new(),
            forwarded_to: vec![by.into()],
            answered_by: by.into(),
            answer: "SYN-ACK".into(),
            answered: Some(Duration::from_millis(at_ms + 1)),
        }
    }

    #[test]
    fn ports_tell_the_rebind_rule() {
        assert_eq!(RebindSeen::of([700]), None);
        assert_eq!(RebindSeen::of([700, 700, 700]), Some(RebindSeen::Same));
        assert_eq!(RebindSeen::of([700, 701, 702]), Some(RebindSeen::Fresh));
        assert_eq!(RebindSeen::of([700, 701, 700]), Some(RebindSeen::Mixed));
    }

    #[test]
    fn each_deviation_from_the_prediction_fails_the_case() {
        type Deviation = (&'static str, fn(&mut CaseReport));
        let deviations: [Deviation; 7] = [
            ("not recovered", |case| case.gap = None),
            ("the gap was 3.00 s", |case| case.gap = Some(Duration::from_secs(3))),
            ("which was not predicted", |case| case.expected.gap = None),
            ("pinned: true", |case| case.pinned = true),
            ("ports: same, predicted: fresh", |case| case.rebind = Some(RebindSeen::Same)),
            ("2 acknowledged changes are lost", |case| case.lost = 2),
            ("calls failed", |case| case.errors.push("WRITE: NFS3ERR_STALE".into())),
        ];
        for (reason, deviate) in deviations {
            let mut case = recovered();
            case.judge();
            assert_eq!((case.verdict, case.reasons.len()), (Verdict::Pass, 0));
            deviate(&mut case);
            case.judge();
            assert_eq!(case.verdict, Verdict::Fail);
            assert!(case.reasons[0].contains(reason), "{:?}", case.reasons);
        }
    }

    #[test]
    fn json_has_the_documented_fields() {
        let json = serde_json::to_value(recovered()).unwrap();
        for field in [
            "balancer",
            "options",
            "fault",
            "attempts",
            "rebind",
            "pinned",
            "gap_ms",
            "lost",
            "false_errors",
            "verdict",
            "expected",
        ] {
            assert!(json.get(field).is_some(), "{field}");
        }
        assert_eq!(json["gap_ms"], 410.0);
        assert_eq!((&json["rebind"], &json["verdict"]), (&"fresh".into(), &"pass".into()));
        assert_eq!(json["replies_ms"][0], 3.0);
        for field in ["t_ms", "port", "isn", "retransmitted_ms", "answered_by", "answered_ms"] {
            assert!(json["attempts"][0].get(field).is_some(), "{field}");
        }
    }
}
