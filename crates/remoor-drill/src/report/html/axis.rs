//! The time axis of a picture: seconds since the fault on a line from left to right.

use std::time::Duration;

/// Left and right of the time line, in percent of the picture's width: room for half a mark.
const MARGIN: f64 = 3.0;
/// Most ticks, so that their labels fit on a phone.
const MAX_TICKS: f64 = 7.0;

/// Where a moment is in a picture. Widths are percents of the picture's, whatever that is on the reader's screen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    fault: Duration,
    from: Duration,
    span: f64,
}

/// A labelled moment of the axis.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tick {
    pub(super) x: f64,
    pub(super) label: String,
}

impl Axis {
    /// From `from` to `until`, numbered from `fault`.
    pub(super) fn new(fault: Duration, from: Duration, until: Duration) -> Self {
        let span = until.saturating_sub(from).as_secs_f64().max(1e-3);
        Self { fault, from, span }
    }

    /// The place of `at`, in percent of the picture's width.
    pub(super) fn x(&self, at: Duration) -> f64 {
        self.x_of(at.as_secs_f64() - self.from.as_secs_f64())
    }

    /// The place of the fault.
    pub(super) fn fault_x(&self) -> f64 {
        self.x(self.fault)
    }

    /// When it begins.
    pub(super) fn start(&self) -> Duration {
        self.from
    }

    /// Length of the axis in time.
    pub(super) fn span(&self) -> Duration {
        Duration::from_secs_f64(self.span)
    }

    /// `at` as seconds since the fault, with sign.
    pub(super) fn clock(&self, at: Duration) -> String {
        format!("{} s", signed(at.as_secs_f64() - self.fault.as_secs_f64(), 3))
    }

    /// Round moments.
    pub(super) fn ticks(&self) -> Vec<Tick> {
        let (step, decimals) = self.step();
        let start = self.from.as_secs_f64() - self.fault.as_secs_f64();
        let first = (start / step).ceil() as i64;
        let last = ((start + self.span) / step).floor() as i64;
        let tick = |n: i64| {
            let at = n as f64 * step;
            Tick { x: self.x_of(at - start), label: signed(at, decimals) }
        };
        (first..=last).map(tick).collect()
    }

    fn x_of(&self, since_start: f64) -> f64 {
        MARGIN + (100.0 - 2.0 * MARGIN) * (since_start / self.span).clamp(0.0, 1.0)
    }

    /// The smallest step of 1, 2 or 5 times a power of ten that gives few enough ticks, and its decimals.
    fn step(&self) -> (f64, usize) {
        let least = self.span / MAX_TICKS;
        let power = least.log10().floor();
        let base = 10_f64.powf(power);
        let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * base >= least).unwrap_or(10.0);
        let decimals = (-(factor * base).log10().floor()).max(0.0);
        (factor * base, decimals as usize)
    }
}

/// Seconds with a sign; zero has none.
fn signed(seconds: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", seconds.abs());
    let zero = text.chars().all(|c| matches!(c, '0' | '.'));
    match (zero, seconds < 0.0) {
        (true, _) => "0".to_owned(),
        (false, true) => format!("\u{2212}{text}"),
        (false, false) => format!("+{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(fault: u64, until: u64) -> Vec<String> {
        let ms = Duration::from_millis;
        Axis::new(ms(fault), ms(0), ms(until)).ticks().into_iter().map(|tick| tick.label).collect()
    }

    #[test]
    fn ticks_are_round_and_zero_is_the_fault() {
        assert_eq!(labels(2000, 8000), ["−2", "0", "+2", "+4", "+6"]);
        assert_eq!(labels(40, 400), ["0", "+0.1", "+0.2", "+0.3"]);
    }

    #[test]
    fn places_are_within_the_picture_and_linear() {
        let ms = Duration::from_millis;
        let axis = Axis::new(ms(1000), ms(0), ms(4000));
        assert_eq!((axis.x(ms(0)), axis.x(ms(2000)), axis.x(ms(4000))), (3.0, 50.0, 97.0));
        assert_eq!(axis.x(ms(9000)), 97.0);
        assert_eq!((axis.clock(ms(750)), axis.clock(ms(1000))), ("−0.250 s".into(), "0 s".into()));
    }

    #[test]
    fn any_length_has_a_few_ticks() {
        for exponent in 0..9 {
            for factor in [1, 3, 7] {
                let ticks = labels(0, factor * 10_u64.pow(exponent));
                assert!((2..=8).contains(&ticks.len()), "{ticks:?}");
            }
        }
    }
}
