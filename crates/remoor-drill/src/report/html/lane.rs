//! The SYNs of one source port as one lane: a mark for each, shaped by where it went, named by what came back.

use std::time::Duration;

use maud::{Markup, html};

use super::axis::Axis;
use crate::report::AttemptReport;

/// Labels are placed for a picture this wide, a phone's,
const NARROW_PX: f64 = 330.0;
/// and for one this wide. The style sheet has the same limit (`min-width`), the page's margin added.
const WIDE_PX: f64 = 700.0;
/// Upper bound of a letter's width in a label, at the size the style sheet gives it.
const LETTER_PX: f64 = 6.2;
/// Rows of labels below the marks. What fits in none has its mark and its tooltip only.
const MAX_ROWS: usize = 3;
const ROW_PX: f64 = 14.0;
/// From the top of a lane to the middle of its marks, below its name.
const MARKS_PX: f64 = 31.0;
/// From there to the first label's baseline.
const LABELS_PX: f64 = 24.0;
const FOOT_PX: f64 = 8.0;

/// The attempts from one port, in order.
#[derive(Debug)]
pub(super) struct Lane<'a> {
    port: u16,
    /// What the lane's name says of the port.
    about: String,
    attempts: Vec<&'a AttemptReport>,
    /// Accepted a connection before this picture begins, and carried calls when the node broke.
    carried_in: bool,
}

/// The lanes of a picture that shows the attempts of `all` from `from` to before `until`, in order of first use.
pub(super) fn lanes(all: &[AttemptReport], from: Duration, until: Duration) -> Vec<Lane<'_>> {
    let (before, rest) = all.split_at(all.partition_point(|attempt| attempt.at < from));
    let carried = before.iter().rfind(|attempt| attempt.answer == "SYN-ACK");
    let carried = carried.map(|attempt| Lane::new(attempt.port, "in use when the node broke", true));
    let mut lanes: Vec<Lane<'_>> = carried.into_iter().collect();
    for attempt in rest.iter().take_while(|attempt| attempt.at < until) {
        match lanes.iter_mut().find(|lane| lane.port == attempt.port) {
            Some(lane) => lane.attempts.push(attempt),
            None => {
                let mut lane = Lane::new(attempt.port, novelty(all, attempt), false);
                lane.attempts.push(attempt);
                lanes.push(lane);
            }
        }
    }
    lanes
}

fn novelty(all: &[AttemptReport], attempt: &AttemptReport) -> &'static str {
    match all.iter().position(|earlier| earlier.port == attempt.port) {
        Some(0) if std::ptr::eq(&raw const all[0], attempt) => "first connection",
        Some(first) if std::ptr::eq(&raw const all[first], attempt) => "fresh port",
        _ => "used before",
    }
}

impl<'a> Lane<'a> {
    fn new(port: u16, novelty: &str, carried_in: bool) -> Self {
        let range = if port < 1024 { "reserved" } else { "above 1023" };
        Self { port, about: format!("{range}, {novelty}"), attempts: Vec::new(), carried_in }
    }

    /// The lane with its top at `y`, and its height.
    pub(super) fn draw(&self, axis: &Axis, y: f64) -> (Markup, f64) {
        let marks = y + MARKS_PX;
        let narrow = place(&self.attempts, axis, NARROW_PX);
        let wide = place(&self.attempts, axis, WIDE_PX);
        let last_row = narrow.iter().flatten().map(|(_, row)| *row).max().unwrap_or(0);
        let labels = if self.attempts.is_empty() { 0.0 } else { LABELS_PX + ROW_PX * last_row as f64 };
        let height = MARKS_PX + labels + FOOT_PX;
        let drawn = html! {
            rect.lane x="0" y=(y) width="100%" height=(height - 4.0) rx="4" {}
            text.port x="1%" y=(y + 15.0) {
                tspan.number { "port " (self.port) } " " tspan.about { (self.about) } (self.count())
            }
            @if self.carried_in { line.carried x1="0" x2=(percent(axis.fault_x())) y1=(marks) y2=(marks) {} }
            @for (n, attempt) in self.attempts.iter().enumerate() {
                @let labels = [("narrow", &narrow[n]), ("wide", &wide[n])];
                (series(attempt, axis, marks, &labels_of(labels, marks)))
            }
        };
        (drawn, height)
    }

    /// SYNs of the lane, those sent again included.
    pub(super) fn syns(&self) -> usize {
        self.attempts.iter().map(|attempt| 1 + attempt.retransmitted.len()).sum()
    }

    fn count(&self) -> String {
        match self.attempts.len() {
            0 | 1 => String::new(),
            n => format!(", {n} attempts"),
        }
    }
}

/// One attempt: a line from its first SYN to its last one or its answer, a mark for each SYN, a tick for the answer.
fn series(attempt: &AttemptReport, axis: &Axis, y: f64, labels: &Markup) -> Markup {
    let x = axis.x(attempt.at);
    let end = attempt.retransmitted.last().copied().max(attempt.answered).unwrap_or(attempt.at);
    html! {
        g.{ "series " (fate_class(attempt)) } {
            line.wait x1=(percent(x)) x2=(percent(axis.x(end))) y1=(y) y2=(y) {}
            @if let Some(answered) = attempt.answered {
                line.answer x1=(percent(axis.x(answered))) x2=(percent(axis.x(answered))) y1=(y - 9.0) y2=(y + 9.0) {}
            }
            @for at in &attempt.retransmitted { (again(attempt, *at, axis, y)) }
            g.syn {
                title { (tooltip(attempt, attempt.at, "SYN", axis)) }
                use href=(format!("#syn-{}", shape(attempt))) x=(percent(x)) y=(y) {}
                text.node x=(percent(x)) y=(y + 4.0) text-anchor="middle" { (letter(attempt)) }
                (labels)
            }
        }
    }
}

fn again(attempt: &AttemptReport, at: Duration, axis: &Axis, y: f64) -> Markup {
    html! {
        g.syn.again {
            title { (tooltip(attempt, at, "SYN sent again", axis)) }
            use href=(format!("#again-{}", shape(attempt))) x=(percent(axis.x(at))) y=(y) {}
        }
    }
}

fn tooltip(attempt: &AttemptReport, at: Duration, what: &str, axis: &Axis) -> String {
    let to = match &attempt.forwarded_to[..] {
        [] => "reached no node".to_owned(),
        nodes => format!("reached {}", nodes.join(" and ")),
    };
    let answer = match attempt.answered {
        Some(at) => format!("{} from {} at {}", attempt.answer, attempt.answered_by, axis.clock(at)),
        None => "no answer".to_owned(),
    };
    format!(
        "{what} at {}, port {}, sequence number {}: {to}, {answer}",
        axis.clock(at),
        attempt.port,
        attempt.isn
    )
}

/// Which of the shapes of the legend.
fn shape(attempt: &AttemptReport) -> &'static str {
    match &attempt.forwarded_to[..] {
        [] => "none",
        [node] if node == "A" => "a",
        [node] if node == "B" => "b",
        _ => "both",
    }
}

fn letter(attempt: &AttemptReport) -> String {
    if attempt.forwarded_to.is_empty() { "–".to_owned() } else { attempt.forwarded_to.concat() }
}

fn fate_class(attempt: &AttemptReport) -> &'static str {
    match attempt.answer.as_str() {
        "SYN-ACK" => "accepted",
        "" => "unanswered",
        _ => "refused",
    }
}

fn answer_text(attempt: &AttemptReport) -> String {
    let by_balancer = if attempt.answered_by == "balancer" { " by balancer" } else { "" };
    match attempt.answer.as_str() {
        "" => "no answer".to_owned(),
        "SYN-ACK" => format!("✓ SYN-ACK{by_balancer}"),
        "RST" => format!("✗ RST{by_balancer}"),
        other => format!("! {other}{by_balancer}"),
    }
}

/// The words at a mark. Edges are in percent of the picture's width.
#[derive(Debug)]
struct Label {
    text: String,
    x: f64,
    anchor: &'static str,
    left: f64,
    right: f64,
}

impl Label {
    /// Centred at `x` in a picture `width_px` wide, or set off an edge that it would cross.
    fn new(text: String, x: f64, width_px: f64) -> Self {
        let width = text.chars().count() as f64 * LETTER_PX * 100.0 / width_px;
        let (x, anchor, left) = match x {
            x if x - width / 2.0 < 1.0 => (1.0, "start", 1.0),
            x if x + width / 2.0 > 99.0 => (99.0, "end", 99.0 - width),
            x => (x, "middle", x - width / 2.0),
        };
        Self { text, x, anchor, left, right: left + width }
    }

    /// Drawn twice, for the style sheet to show the one that fits the reader's screen.
    fn draw(&self, class: &str, row: usize, marks: f64) -> Markup {
        let y = marks + LABELS_PX + row as f64 * ROW_PX;
        html! { text.{ "fate " (class) } x=(percent(self.x)) y=(y) text-anchor=(self.anchor) { (self.text) } }
    }
}

/// The label of each attempt with its row in a picture `width_px` wide: the first where it meets no other. Without a
/// free row an attempt has none.
fn place(attempts: &[&AttemptReport], axis: &Axis, width_px: f64) -> Vec<Option<(Label, usize)>> {
    let mut ends: Vec<f64> = Vec::new();
    let fit = |attempt: &&AttemptReport| {
        let label = Label::new(answer_text(attempt), axis.x(attempt.at), width_px);
        let free = ends.iter().position(|end| end + 1.0 <= label.left);
        let row = free.or((ends.len() < MAX_ROWS).then_some(ends.len()))?;
        ends.resize(ends.len().max(row + 1), 0.0);
        ends[row] = label.right;
        Some((label, row))
    };
    attempts.iter().map(fit).collect()
}

fn labels_of(placed: [(&str, &Option<(Label, usize)>); 2], marks: f64) -> Markup {
    html! {
        @for (class, label) in placed {
            @if let Some((label, row)) = label { (label.draw(class, *row, marks)) }
        }
    }
}

/// `x` as an attribute.
pub(super) fn percent(x: f64) -> String {
    format!("{x:.2}%")
}
