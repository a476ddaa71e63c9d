//! Which workers watch sockets and which sleep: pure.
//!
//! A worker *watches* when it waits for epoll, or executes calls that are expected to be quick and then waits again. It is
//! *away* while it executes a slow call: somebody else must watch. All others sleep, the last to fall asleep is woken
//! first, because its stack and its buffers are still in the processor's caches.

/// A worker's number.
pub(super) type Worker = usize;

#[derive(Debug)]
pub(super) struct Crew {
    asleep: Vec<Worker>,
    away: Vec<bool>,
    watching: usize,
    /// More than this many at a time only get into each other's way.
    max_watching: usize,
}

/// Whom to wake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// A worker that sleeps.
    Sleeper(Worker),
    /// One of those that wait for epoll.
    Watcher,
    /// All execute; the first to be done looks for work.
    Nobody,
}

impl Crew {
    /// All sleep but worker 0, which watches.
    pub(super) fn new(workers: usize, max_watching: usize) -> Self {
        Self {
            asleep: (1..workers).rev().collect(),
            away: vec![false; workers],
            watching: 1,
            max_watching: max_watching.max(1),
        }
    }

    /// There is work for one more.
    pub(super) fn call(&mut self) -> Wake {
        match self.asleep.pop() {
            Some(worker) => {
                self.watching += 1;
                Wake::Sleeper(worker)
            }
            None if self.watching > 0 => Wake::Watcher,
            None => Wake::Nobody,
        }
    }

    /// More sockets have news than one worker can look after at a time.
    pub(super) fn call_watcher(&mut self) -> Wake {
        if self.watching < self.max_watching && !self.asleep.is_empty() { self.call() } else { Wake::Nobody }
    }

    /// This worker is in a slow call; whom to wake if nobody watches now.
    pub(super) fn leave(&mut self, worker: Worker) -> Wake {
        if !std::mem::replace(&mut self.away[worker], true) {
            self.watching -= 1;
        }
        if self.watching == 0 { self.call() } else { Wake::Nobody }
    }

    /// Whether this worker is in a slow call.
    pub(super) fn is_away(&self, worker: Worker) -> bool {
        self.away[worker]
    }

    #[cfg(test)]
    pub(super) fn is_asleep(&self, worker: Worker) -> bool {
        self.asleep.contains(&worker)
    }

    /// This worker has nothing to execute: true if it shall watch, false if it shall sleep. `needless`: it thinks that
    /// the others are enough.
    pub(super) fn settle(&mut self, worker: Worker, needless: bool) -> bool {
        let was_away = std::mem::replace(&mut self.away[worker], false);
        self.watching -= usize::from(!was_away);
        let enough = self.watching > 0 && (was_away || needless || self.watching >= self.max_watching);
        if enough {
            self.asleep.push(worker);
        } else {
            self.watching += 1;
        }
        !enough
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_watches_and_the_last_to_sleep_wakes_first() {
        let mut crew = Crew::new(4, 2);
        assert_eq!(crew.leave(0), Wake::Sleeper(1));
        assert_eq!(crew.leave(0), Wake::Nobody, "it is away already");
        assert_eq!(crew.leave(1), Wake::Sleeper(2));
        assert!(!crew.settle(0, false), "2 watches");
        assert_eq!(crew.leave(2), Wake::Sleeper(0));
    }

    #[test]
    fn a_second_watcher_comes_when_called_and_goes_when_needless() {
        let mut crew = Crew::new(4, 2);
        assert_eq!(crew.call_watcher(), Wake::Sleeper(1));
        assert_eq!(crew.call_watcher(), Wake::Nobody, "two are the most");
        assert!(crew.settle(0, false) && crew.settle(1, false));
        assert!(!crew.settle(1, true));
        assert!(crew.settle(0, true), "the last one stays");
    }

    #[test]
    fn when_all_are_away_nobody_is_woken() {
        let mut crew = Crew::new(2, 2);
        assert_eq!((crew.leave(0), crew.leave(1)), (Wake::Sleeper(1), Wake::Nobody));
        assert!(crew.settle(0, false));
        assert_eq!(crew.call(), Wake::Watcher);
    }

    proptest! {
        /// Somebody watches unless all are away, nobody is in two places, and nobody is woken twice.
        #[test]
        fn somebody_watches(events in proptest::collection::vec((0u8..4, 0usize..5), 0..200)) {
            let mut crew = Crew::new(5, 2);
            let mut awake = [true, false, false, false, false];
            for (what, worker) in events {
                let woken = match what {
                    0 if awake[worker] => crew.leave(worker),
                    1 if awake[worker] => {
                        awake[worker] = crew.settle(worker, worker % 2 == 0);
                        Wake::Nobody
                    }
                    2 => crew.call(),
                    _ => crew.call_watcher(),
                };
                if let Wake::Sleeper(worker) = woken {
                    prop_assert!(!std::mem::replace(&mut awake[worker], true), "{} was awake", worker);
                }
                let watching = (0..5).filter(|w| awake[*w] && !crew.is_away(*w)).count();
                prop_assert_eq!(watching, crew.watching);
                prop_assert!(watching > 0 || awake.iter().all(|awake| *awake));
                prop_assert_eq!(crew.asleep.len(), awake.iter().filter(|awake| !**awake).count());
            }
        }
    }
}
