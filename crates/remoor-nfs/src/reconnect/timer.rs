//! Everything that can fire in a [`super::Machine`].

use std::time::Instant;

/// One timer of the machine. A call's own `timeo` deadline is kept in the call table beside these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// The back-off after a failed attempt is over: the next attempt starts.
    Retry,
    /// The attempt in progress, connecting or proving, has used up its time: it is abandoned and the next starts.
    Attempt,
    /// Calls are outstanding and the connection was silent for the suspicion interval: it becomes suspect.
    Suspicion,
    /// A suspect connection's evidence is looked at again: the driver is asked for the acknowledgement state.
    Evidence,
    /// The driver has not confirmed a drain: the move goes on without it.
    Drain,
}

impl Timer {
    /// All timers, in the order they are handled when several are due.
    pub const ALL: [Self; 5] = [Self::Retry, Self::Attempt, Self::Suspicion, Self::Evidence, Self::Drain];
}

/// When each timer fires.
#[derive(Debug, Default)]
pub(super) struct TimerTable([Option<Instant>; Timer::ALL.len()]);

impl TimerTable {
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize] = Some(at);
    }

    pub(super) fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    pub(super) fn stop_all(&mut self) {
        self.0 = Default::default();
    }

    #[cfg(test)]
    pub(super) fn get(&self, timer: Timer) -> Option<Instant> {
        self.0[timer as usize]
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }

    /// Stops and returns one timer that is due.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<Timer> {
        let timer =
            Timer::ALL.into_iter().find(|timer| self.0[*timer as usize].is_some_and(|at| at <= now))?;
        self.stop(timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::epoch;
    use super::*;

    #[test]
    fn a_due_timer_is_given_out_once() {
        let now = epoch();
        let mut timers = TimerTable::default();
        timers.set(Timer::Drain, now);
        timers.set(Timer::Retry, now + Duration::from_secs(1));
        assert_eq!(timers.next(), Some(now));
        assert_eq!(timers.pop_expired(now), Some(Timer::Drain));
        assert_eq!(timers.pop_expired(now), None);
        assert_eq!(timers.next(), Some(now + Duration::from_secs(1)));
        timers.stop_all();
        assert_eq!(timers.next(), None);
    }
}
