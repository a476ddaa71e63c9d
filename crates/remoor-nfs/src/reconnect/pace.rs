//! How long the machine waits: what it learned of the peer's speed, and what failures and false alarms made of it.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::config::{Config, STUCK_AFTER, Stuck, TIMEO};
use super::notice::MoveReason;

/// Attempts that time out before the next ones get twice the time.
pub(super) const ATTEMPTS_PER_ROUND: u32 = 4;
/// Answered calls that take back one doubling of the suspicion interval.
pub(super) const HEALTHY_REPLIES: u32 = 16;
/// Doublings counted at most; every interval has its own limit below this.
const MAX_DOUBLINGS: u32 = 16;

/// Estimates and escalations.
#[derive(Debug)]
pub(super) struct Pace {
    rng: StdRng,
    round_trip: Option<Duration>,
    reply_time: Option<Duration>,
    timeouts: u32,
    failures: u32,
    false_alarms: u32,
    healthy: u32,
    stuck_moves: u32,
    dead_moves: u32,
}

impl Pace {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            round_trip: None,
            reply_time: None,
            timeouts: 0,
            failures: 0,
            false_alarms: 0,
            healthy: 0,
            stuck_moves: 0,
            dead_moves: 0,
        }
    }

    /// A handshake took `sample`.
    pub(super) fn connected(&mut self, sample: Duration) {
        self.round_trip = Some(sample);
    }

    /// A NULL took `sample` from the time it could be sent.
    pub(super) fn proven(&mut self, sample: Duration) {
        self.timeouts = 0;
        self.sample_reply(sample);
    }

    /// A call was answered; `sample` is its time if it was sent only once (Karn's rule: after a retransmission
    /// nobody knows which sending was answered).
    pub(super) fn replied(&mut self, sample: Option<Duration>) {
        if let Some(sample) = sample {
            self.sample_reply(sample);
        }
        self.failures = 0;
        self.stuck_moves = 0;
        self.dead_moves = 0;
        self.healthy += 1;
        if self.healthy >= HEALTHY_REPLIES {
            self.healthy = 0;
            self.false_alarms = self.false_alarms.saturating_sub(1);
        }
    }

    /// The connection in use lasted: its end is no failure of the attempt that made it.
    pub(super) fn lasted(&mut self) {
        self.failures = 0;
    }

    /// A suspect connection spoke again.
    pub(super) fn false_alarm(&mut self) {
        self.healthy = 0;
        self.false_alarms = (self.false_alarms + 1).min(MAX_DOUBLINGS);
    }

    /// Calls are leaving a connection. Until one of them is answered the next verdict of this kind takes twice as
    /// long; else a server or a path slower than the verdict would never finish a call.
    pub(super) fn left(&mut self, reason: MoveReason) {
        let moves = match reason {
            MoveReason::Stuck => &mut self.stuck_moves,
            MoveReason::PathDead => &mut self.dead_moves,
            MoveReason::Closed(_) => return,
        };
        *moves = (*moves + 1).min(MAX_DOUBLINGS);
    }

    /// An attempt used up its time.
    pub(super) fn attempt_timed_out(&mut self) {
        self.timeouts = self.timeouts.saturating_add(1);
    }

    /// Time for one attempt.
    pub(super) fn attempt_timeout(&self, config: &Config) -> Duration {
        let base =
            self.round_trip.map_or(config.attempt_timeout, |trip| config.attempt_timeout.max(trip * 3));
        doubled(base, self.timeouts / ATTEMPTS_PER_ROUND, config.attempt_timeout_max)
    }

    /// Silence after which a connection is suspect.
    pub(super) fn suspect_after(&self, config: &Config) -> Duration {
        let base = self.reply_time.map_or(config.suspect_after, |time| config.suspect_after.max(time * 4));
        doubled(base, self.false_alarms, config.suspect_max.max(base))
    }

    /// Time an acknowledged NULL may stay unanswered. A short `timeo` is no limit to the doubling: a server that takes
    /// one call at a time and needs longer would be left again and again without finishing one.
    pub(super) fn stuck_after(&self, config: &Config, soon: bool) -> Duration {
        let base = match config.stuck {
            Stuck::After(after) => after,
            Stuck::Careful if soon => STUCK_AFTER,
            Stuck::Careful | Stuck::Timeo => config.timeo,
        };
        doubled(base, self.stuck_moves, TIMEO.max(config.timeo).max(base))
    }

    /// Time our bytes may stay unacknowledged.
    pub(super) fn path_dead_after(&self, config: &Config) -> Duration {
        doubled(config.path_dead_after, self.dead_moves, TIMEO.max(config.path_dead_after))
    }

    /// The delay after one more failed attempt, with half of it drawn so that a herd spreads out.
    pub(super) fn next_backoff(&mut self, config: &Config) -> Duration {
        let full = doubled(config.backoff_min, self.failures, config.backoff_max);
        self.failures = (self.failures + 1).min(MAX_DOUBLINGS);
        let half = full / 2;
        (half + self.rng.random_range(Duration::ZERO..=half)).max(Duration::from_micros(1))
    }

    /// Smoothed as in RFC 6298 section 2: one eighth of the new sample.
    fn sample_reply(&mut self, sample: Duration) {
        self.reply_time = Some(self.reply_time.map_or(sample, |smoothed| smoothed * 7 / 8 + sample / 8));
    }

    /// Smoothed time from call to reply.
    pub(super) fn reply_time(&self) -> Option<Duration> {
        self.reply_time
    }
}

fn doubled(base: Duration, times: u32, most: Duration) -> Duration {
    base.saturating_mul(1 << times.min(MAX_DOUBLINGS)).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_attempt_timeout_follows_the_round_trip_and_doubles_after_a_full_round() {
        let (config, mut pace) = (Config::default(), Pace::new(1));
        assert_eq!(pace.attempt_timeout(&config), 900 * MS);
        pace.connected(400 * MS);
        assert_eq!(pace.attempt_timeout(&config), 1200 * MS);
        for _ in 0..ATTEMPTS_PER_ROUND {
            assert_eq!(pace.attempt_timeout(&config), 1200 * MS);
            pace.attempt_timed_out();
        }
        assert_eq!(pace.attempt_timeout(&config), 2400 * MS);
        (0..1000).for_each(|_| pace.attempt_timed_out());
        assert_eq!(pace.attempt_timeout(&config), config.attempt_timeout_max);
        pace.proven(MS);
        assert_eq!(pace.attempt_timeout(&config), 1200 * MS);
    }

    #[test]
    fn suspicion_adapts_to_slow_servers_and_false_alarms_and_decays() {
        let (config, mut pace) = (Config::default(), Pace::new(1));
        assert_eq!(pace.suspect_after(&config), 300 * MS);
        pace.false_alarm();
        assert_eq!(pace.suspect_after(&config), 600 * MS);
        (0..40).for_each(|_| pace.false_alarm());
        assert_eq!(pace.suspect_after(&config), config.suspect_max);
        (0..HEALTHY_REPLIES * MAX_DOUBLINGS).for_each(|_| pace.replied(Some(200 * MS)));
        assert_eq!(pace.suspect_after(&config), 4 * 200 * MS);
    }

    #[test]
    fn a_retransmitted_call_teaches_nothing_about_speed() {
        let mut pace = Pace::new(1);
        pace.replied(None);
        assert_eq!(pace.reply_time(), None);
        pace.replied(Some(80 * MS));
        pace.replied(Some(160 * MS));
        assert_eq!(pace.reply_time(), Some(90 * MS));
    }

    #[test]
    fn back_off_grows_within_its_bounds_and_starts_over_after_a_reply() {
        let (config, mut pace) = (Config::default(), Pace::new(7));
        assert!(pace.next_backoff(&config) <= config.backoff_min);
        let later: Vec<_> = (0..20).map(|_| pace.next_backoff(&config)).collect();
        assert!(later.iter().all(|delay| *delay <= config.backoff_max && *delay >= config.backoff_min));
        assert!(later[19] >= config.backoff_max / 2);
        pace.replied(None);
        assert!(pace.next_backoff(&config) <= config.backoff_min);
    }

    #[test]
    fn leaving_a_stuck_server_in_vain_doubles_the_next_verdict() {
        let (config, mut pace) = (Config::default(), Pace::new(1));
        assert_eq!(pace.stuck_after(&config, true), STUCK_AFTER);
        assert_eq!(pace.stuck_after(&config, false), config.timeo);
        pace.left(MoveReason::Stuck);
        assert_eq!(pace.stuck_after(&config, true), 2 * STUCK_AFTER);
        (0..99).for_each(|_| pace.left(MoveReason::Stuck));
        assert_eq!(pace.stuck_after(&config, true), config.timeo);
        pace.replied(None);
        assert_eq!(pace.stuck_after(&config, true), STUCK_AFTER);
        pace.left(MoveReason::PathDead);
        assert_eq!(pace.stuck_after(&config, true), STUCK_AFTER, "each verdict has its own count");
        assert_eq!(pace.path_dead_after(&config), 2 * config.path_dead_after);
        let drill = Config { stuck: Stuck::After(400 * MS), ..config };
        assert_eq!(pace.stuck_after(&drill, false), 400 * MS);
    }
}
