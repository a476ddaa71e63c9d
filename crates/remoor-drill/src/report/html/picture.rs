//! One break as a picture: what happened when, whether replies came, and every SYN.
//!
//! Places across are percents and sizes are pixels, so that the picture fills a phone's width and a desk's with
//! letters of the same size.

use std::time::Duration;

use maud::{Markup, html};

use super::axis::Axis;
use super::lane::{Lane, lanes, percent};
use super::outcome;
use crate::report::{Break, CaseReport, seconds};

/// What is shown of the time before the break of a later round.
const LEAD_IN: Duration = Duration::from_millis(100);
/// What is shown after the last thing that happened, as a part of all that is shown.
const TAIL: u32 = 20;
/// Silences shorter than this part of the axis are drawn as part of the replies around them.
const FINEST: u32 = 15;

const EVENT_PX: f64 = 17.0;
const BAND_PX: f64 = 24.0;
const OUTLINE_PX: f64 = 12.0;
/// Parts of the band at least this wide, in percent, have a word in them; narrower ones on a phone cut it off.
const WORD_PERCENT: f64 = 20.0;

/// One round of a case.
#[derive(Debug)]
struct Picture<'a> {
    case: &'a CaseReport,
    broken: &'a Break,
    axis: Axis,
    lanes: Vec<Lane<'a>>,
    /// From the last reply before the gap to the first after it, if one came.
    gap: (Duration, Option<Duration>),
    until: Duration,
}

/// The picture of the break `round` of `case`.
pub(super) fn render(case: &CaseReport, round: usize) -> Markup {
    let picture = Picture::new(case, round);
    let (events, top) = picture.events();
    let band = picture.band(top);
    let (lanes, bottom) = picture.draw_lanes(top + BAND_PX + OUTLINE_PX + 30.0);
    let height = bottom + 36.0;
    html! {
        svg.picture width="100%" height=(height) role="img" aria-label=(picture.in_words()) {
            (picture.grid(top - 6.0, bottom))
            (lanes)
            (band)
            (events)
        }
    }
}

impl<'a> Picture<'a> {
    fn new(case: &'a CaseReport, round: usize) -> Self {
        let broken = &case.breaks[round];
        let from = if round == 0 { Duration::ZERO } else { broken.at };
        let until = case.breaks.get(round + 1).map_or(Duration::MAX, |next| next.at);
        let gap = gap(case, broken);
        let end = end(case, broken, gap, until);
        let start = if round == 0 { first_moment(case) } else { broken.at.saturating_sub(LEAD_IN) };
        let axis = Axis::new(broken.at, start, end + end.saturating_sub(start) / TAIL);
        Self { case, broken, axis, lanes: lanes(&case.attempts, from, until), gap, until: end }
    }

    /// Faint lines up and down, and their numbers.
    fn grid(&self, top: f64, bottom: f64) -> Markup {
        html! {
            @for tick in self.axis.ticks() {
                line.grid x1=(percent(tick.x)) x2=(percent(tick.x)) y1=(top) y2=(bottom) {}
                text.tick x=(percent(tick.x)) y=(bottom + 14.0) text-anchor="middle" { (tick.label) }
            }
            text.unit x="99%" y=(bottom + 30.0) text-anchor="end" { "seconds since node " (self.broken.node) " broke" }
        }
    }

    /// What was done to the node, one line of text each, and where the next thing may be drawn.
    fn events(&self) -> (Markup, f64) {
        let (node, at) = (&self.broken.node, self.broken.at);
        let delay = self.broken.switched.saturating_sub(at);
        let mut events = vec![
            ("fault", "✗", at, format!("{node} breaks ({})", self.case.fault)),
            (
                "switch",
                "⇄",
                self.broken.switched,
                format!("balancer marks {node} down, {} later", short(delay)),
            ),
        ];
        let mended = self.broken.mended.map(|at| ("mended", "✓", at, format!("{node} restored")));
        events.extend(mended);
        let top = events.len() as f64 * EVENT_PX + 8.0;
        let rows = events.iter().enumerate();
        let drawn = html! {
            @for (row, (class, sign, at, text)) in rows {
                (self.event(class, *at, (row as f64 * EVENT_PX, top + BAND_PX), &format!("{sign} {text}")))
            }
        };
        (drawn, top)
    }

    fn event(&self, class: &str, at: Duration, (y, bottom): (f64, f64), text: &str) -> Markup {
        let x = self.axis.x(at);
        let (anchor, place) = if x > 50.0 { ("end", x - 0.8) } else { ("start", x + 0.8) };
        html! {
            g.{ "event " (class) } {
                title { (text) ", at " (self.axis.clock(at)) }
                line x1=(percent(x)) x2=(percent(x)) y1=(y + 2.0) y2=(bottom) {}
                text x=(percent(place)) y=(y + 12.0) text-anchor=(anchor) { (text) }
            }
        }
    }

    /// Replies and the gap; below, on the same scale, the predicted gap.
    fn band(&self, y: f64) -> Markup {
        let (start, end) = self.gap;
        let replies = self.replies();
        html! {
            rect.band x="0" y=(y) width="100%" height=(BAND_PX) rx="4" {}
            @let silence = (start, end.unwrap_or(self.until));
            @for span in &replies { (self.part("replies", "replies", *span, y)) }
            (self.reply_lines(y))
            (self.part("gap", "no reply", silence, y))
            @for span in &replies { (self.word("replies", *span, y)) }
            (self.word("no reply", silence, y))
            (self.outline(y + BAND_PX + 4.0))
            text.compare x="1%" y=(y + BAND_PX + OUTLINE_PX + 19.0) { (self.comparison()) }
        }
    }

    /// A line for each reply, in one path whose unit across is a hundredth of a percent.
    fn reply_lines(&self, y: f64) -> Markup {
        let shown = self.case.replies.iter().filter(|at| **at >= self.axis.start() && **at <= self.until);
        let path: String = shown.map(|at| format!("M{:.0} 0V1", self.axis.x(*at) * 100.0)).collect();
        html! {
            svg.lines x="0" y=(y) width="100%" height=(BAND_PX) viewBox="0 0 10000 1" preserveAspectRatio="none" {
                path d=(path) {}
            }
        }
    }

    fn part(&self, class: &str, word: &str, (from, until): (Duration, Duration), y: f64) -> Markup {
        let (left, right) = (self.axis.x(from), self.axis.x(until));
        html! {
            g.{ "part " (class) } {
                title { (word) " from " (self.axis.clock(from)) " to " (self.axis.clock(until)) }
                rect x=(percent(left)) y=(y) width=(percent((right - left).max(0.3))) height=(BAND_PX) {}
            }
        }
    }

    /// Drawn after everything that would cross it.
    fn word(&self, word: &str, (from, until): (Duration, Duration), y: f64) -> Markup {
        let (left, right) = (self.axis.x(from), self.axis.x(until));
        html! {
            @if right - left > WORD_PERCENT {
                text.word x=(percent((left + right) / 2.0)) y=(y + 16.0) text-anchor="middle" { (word) }
            }
        }
    }

    fn outline(&self, y: f64) -> Markup {
        let left = self.axis.x(self.gap.0);
        let right = self.axis.x(predicted_end(self.case, self.broken, self.gap.0));
        html! {
            g.predicted {
                title { "predicted gap: " (outcome::predicted_gap(self.case)) }
                rect x=(percent(left)) y=(y) width=(percent((right - left).max(0.3))) height=(OUTLINE_PX) rx="2" {}
            }
        }
    }

    fn comparison(&self) -> String {
        if self.case.simulated {
            return format!("gap: {}, in virtual time", outcome::gap(self.case));
        }
        let measured = match self.gap {
            (last, Some(first)) if self.broken.gap().is_some() => short(first - last),
            _ => format!("over {}", seconds(self.case.window)),
        };
        format!("gap: measured {measured}, predicted (dashed) {}", outcome::predicted_gap(self.case))
    }

    /// Spans of time in which replies came without a silence worth drawing.
    fn replies(&self) -> Vec<(Duration, Duration)> {
        let finest = self.axis.span() / FINEST;
        let shown = self.case.replies.iter().filter(|at| **at <= self.until);
        let times: Vec<Duration> = shown.copied().collect();
        let apart = |a: &Duration, b: &Duration| *b - *a > finest || (*a <= self.gap.0 && *b > self.gap.0);
        let spans = times.chunk_by(|a, b| !apart(a, b));
        let from = self.axis.start();
        spans.map(|span| (span[0], span[span.len() - 1])).filter(|(_, end)| *end >= from).collect()
    }

    fn draw_lanes(&self, top: f64) -> (Markup, f64) {
        let mut y = top;
        let drawn = html! {
            @for lane in &self.lanes {
                @let (drawn, height) = lane.draw(&self.axis, y);
                @let () = y += height;
                (drawn)
            }
        };
        (drawn, y)
    }

    /// For those who do not see it.
    fn in_words(&self) -> String {
        let syns: usize = self.lanes.iter().map(Lane::syns).sum();
        let ports = self.lanes.len();
        format!(
            "Node {} breaks; {}; {syns} SYNs from {ports} ports; told in full in the story",
            self.broken.node,
            self.comparison()
        )
    }
}

fn first_moment(case: &CaseReport) -> Duration {
    let attempt = case.attempts.first().map(|attempt| attempt.at);
    attempt.into_iter().chain(case.replies.first().copied()).min().unwrap_or_default()
}

/// The gap as measured; else the longest silence until the client was back; else all after the last reply.
fn gap(case: &CaseReport, broken: &Break) -> (Duration, Option<Duration>) {
    if let (Some(last), Some(first)) = (broken.last_reply, broken.first_reply) {
        return (last, Some(first));
    }
    let Some(back) = broken.restored else {
        let before = broken.mended.unwrap_or(Duration::MAX);
        let last = case.replies.iter().rfind(|reply| **reply < before);
        return (last.copied().unwrap_or(broken.at), None);
    };
    let silences = case.replies.windows(2).map(|pair| (pair[0], pair[1]));
    let during = silences.filter(|(_, end)| *end > broken.at && *end <= back);
    let longest = during.max_by_key(|(start, end)| *end - *start);
    longest.map_or((broken.at, Some(back)), |(start, end)| (start, Some(end)))
}

fn predicted_end(case: &CaseReport, broken: &Break, start: Duration) -> Duration {
    case.expected.gap.map_or(broken.at + case.window, |gap| start + gap)
}

/// The last thing to be shown before `until`, where the next picture begins.
fn end(case: &CaseReport, broken: &Break, gap: (Duration, Option<Duration>), until: Duration) -> Duration {
    let syns =
        case.attempts.iter().flat_map(|a| a.retransmitted.iter().copied().chain([a.at]).chain(a.answered));
    let moments = [gap.1, broken.mended, broken.restored, Some(broken.switched)].into_iter().flatten();
    let last = syns.chain(moments).chain(case.replies.iter().copied()).filter(|at| *at < until).max();
    last.unwrap_or(broken.at).max(predicted_end(case, broken, gap.0))
}

/// A length for a label: milliseconds if it is short.
fn short(length: Duration) -> String {
    match length.as_millis() {
        0 => "under 1 ms".to_owned(),
        ms @ 1..100 => format!("{ms} ms"),
        _ => seconds(length),
    }
}
