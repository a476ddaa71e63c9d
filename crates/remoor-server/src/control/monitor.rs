//! Looks at the server once a second: for how fast it works, and to tell in the log when an export stops answering.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::health::Health;

/// How often it looks.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks that the rate of calls is taken from.
const LOOKS: usize = 10;

/// What it has seen.
#[derive(Default)]
pub(super) struct Monitor {
    /// When, and calls until then; the oldest first.
    looks: Mutex<VecDeque<(Instant, u64)>>,
    /// Exports that are not well, which was said.
    ill: Mutex<HashMap<String, Instant>>,
}

impl Monitor {
    /// Notes the number of calls until `now`.
    pub(super) fn look(&self, now: Instant, calls: u64) {
        let mut looks = locked(&self.looks);
        if looks.len() > LOOKS {
            looks.pop_front();
        }
        looks.push_back((now, calls));
    }

    /// Calls a second between the oldest look and `now`.
    pub(super) fn rate(&self, now: Instant, calls: u64) -> f64 {
        let looks = locked(&self.looks);
        let Some((then, before)) = looks.front() else { return 0.0 };
        let secs = now.saturating_duration_since(*then).as_secs_f64();
        if secs > 0.0 { calls.saturating_sub(*before) as f64 / secs } else { 0.0 }
    }

    /// Tells what has changed, once.
    pub(super) fn tell(&self, health: &Health, now: Instant) {
        let mut ill = locked(&self.ill);
        for export in &health.exports {
            match (&export.reason, ill.contains_key(&export.path)) {
                (Some(reason), false) => {
                    tracing::error!(export = export.path, "not healthy: {reason}");
                    ill.insert(export.path.clone(), now);
                }
                (None, true) => {
                    let since = ill.remove(&export.path).map_or(Duration::ZERO, |since| now - since);
                    tracing::info!(export = export.path, "healthy again, after {:.0} s", since.as_secs_f64());
                }
                _ => {}
            }
        }
        ill.retain(|path, _| health.exports.iter().any(|export| export.path == *path));
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_of_the_last_seconds() {
        let monitor = Monitor::default();
        let start = Instant::now();
        let at = |n: u32| start + LOOK_EVERY * n;
        assert_eq!(monitor.rate(start, 5), 0.0);
        (0..100).for_each(|n| monitor.look(at(n), if n < 80 { 0 } else { u64::from(n - 80) * 50 }));
        assert_eq!(monitor.rate(at(99), 19 * 50), 50.0);
    }
}
