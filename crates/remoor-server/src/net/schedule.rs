//! Which connection's calls a worker executes: pure, so that fairness and bounds are tested without threads.
//!
//! A worker that executes calls of a connection is one of its *runners*. There are at most `max_running`, one less than
//! there are workers: the worker left over reads sockets and answers NULL, so a server whose every disk is slow still
//! proves that it lives. A connection has at most `per_connection`; connections that want one more take turns.

use std::collections::{HashMap, VecDeque};

/// Names a connection for as long as the server runs.
pub(crate) type ConnectionId = u64;

#[derive(Debug)]
pub(super) struct Schedule {
    max_running: usize,
    per_connection: usize,
    running: usize,
    lanes: HashMap<ConnectionId, Lane>,
    /// Connections that want a runner and may have one more; each at most once.
    ready: VecDeque<ConnectionId>,
}

#[derive(Debug, Default)]
struct Lane {
    runners: usize,
    /// Calls wait that no runner has been found for.
    is_waiting: bool,
    is_ready: bool,
    is_held: bool,
}

impl Schedule {
    pub(super) fn new(max_running: usize, per_connection: usize) -> Self {
        Self { max_running, per_connection, running: 0, lanes: HashMap::new(), ready: VecDeque::new() }
    }

    /// Makes the asking worker a runner; if that may not be, the connection waits for one.
    pub(super) fn start(&mut self, connection: ConnectionId) -> bool {
        let lane = self.lanes.entry(connection).or_default();
        let free = self.running < self.max_running && lane.runners < self.per_connection && !lane.is_held;
        if free {
            lane.runners += 1;
            self.running += 1;
        } else {
            self.want(connection);
        }
        free
    }

    /// Calls wait that the connection's runners shall not be waited for; true if a free worker can take them now.
    pub(super) fn want(&mut self, connection: ConnectionId) -> bool {
        self.lanes.entry(connection).or_default().is_waiting = true;
        self.mark_ready(connection) && self.running < self.max_running
    }

    /// The connection that the asking worker runs from now on.
    pub(super) fn next(&mut self) -> Option<ConnectionId> {
        while self.running < self.max_running {
            let connection = self.ready.pop_front()?;
            let Some(lane) = self.lanes.get_mut(&connection) else { continue };
            lane.is_ready = false;
            if lane.is_held || lane.runners >= self.per_connection {
                continue;
            }
            lane.is_waiting = false;
            lane.runners += 1;
            self.running += 1;
            return Some(connection);
        }
        None
    }

    /// A runner ends; `more`: calls wait.
    pub(super) fn finish(&mut self, connection: ConnectionId, more: bool) {
        self.running -= 1;
        if let Some(lane) = self.lanes.get_mut(&connection) {
            lane.runners -= 1;
            // Not cleared: a reader may have found no free runner since this one looked.
            lane.is_waiting |= more;
        }
        self.mark_ready(connection);
        self.drop_if_empty(connection);
    }

    /// Executes no more calls of a connection that waits for its client to read replies.
    pub(super) fn hold(&mut self, connection: ConnectionId) {
        self.lanes.entry(connection).or_default().is_held = true;
    }

    /// Ends [`Schedule::hold`]; true if a free worker can run the connection now.
    pub(super) fn release(&mut self, connection: ConnectionId) -> bool {
        let Some(lane) = self.lanes.get_mut(&connection) else { return false };
        lane.is_held = false;
        let ready = self.mark_ready(connection);
        self.drop_if_empty(connection);
        ready && self.running < self.max_running
    }

    /// The connection is closed: nobody waits for its calls.
    pub(super) fn forget(&mut self, connection: ConnectionId) {
        if let Some(lane) = self.lanes.get_mut(&connection) {
            (lane.is_waiting, lane.is_held) = (false, false);
        }
        self.drop_if_empty(connection);
    }

    /// Whether a worker that asks is given a connection.
    pub(super) fn has_ready(&self) -> bool {
        self.running < self.max_running && !self.ready.is_empty()
    }

    /// Whether the connection has runners or wants one.
    pub(super) fn is_busy(&self, connection: ConnectionId) -> bool {
        self.lanes.get(&connection).is_some_and(|lane| lane.runners > 0 || lane.is_waiting)
    }

    /// How many workers execute calls of the connection.
    #[cfg(test)]
    pub(super) fn runners(&self, connection: ConnectionId) -> usize {
        self.lanes.get(&connection).map_or(0, |lane| lane.runners)
    }

    /// Whether nothing executes and nothing waits.
    pub(super) fn is_idle(&self) -> bool {
        self.lanes.values().all(|lane| lane.runners == 0 && !lane.is_waiting)
    }

    fn drop_if_empty(&mut self, connection: ConnectionId) {
        let empty = |lane: &Lane| lane.runners == 0 && !lane.is_waiting && !lane.is_held;
        if self.lanes.get(&connection).is_some_and(empty) {
            self.lanes.remove(&connection);
        }
    }

    /// True if the connection has become ready.
    fn mark_ready(&mut self, connection: ConnectionId) -> bool {
        let Some(lane) = self.lanes.get_mut(&connection) else { return false };
        let may_run = !lane.is_held && lane.runners < self.per_connection;
        let becomes = may_run && lane.is_waiting && !lane.is_ready;
        if becomes {
            lane.is_ready = true;
            self.ready.push_back(connection);
        }
        becomes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_connection_has_its_share_and_others_do_not_wait_for_it() {
        let mut s = Schedule::new(8, 2);
        assert_eq!([1, 2, 3].map(|_| s.start(7)), [true, true, false]);
        assert!(s.start(8), "another connection has its own share");
        assert_eq!(s.next(), None);
        s.finish(7, true);
        assert_eq!((s.next(), s.next()), (Some(7), None));
        (0..2).for_each(|_| s.finish(7, false));
        s.finish(8, false);
        assert!(s.is_idle() && s.lanes.is_empty());
    }

    #[test]
    fn one_worker_stays_free() {
        let mut s = Schedule::new(1, 8);
        assert!(s.start(1) && !s.start(2) && !s.want(3), "nobody is to be woken for them");
        assert!(!s.has_ready() && s.next().is_none());
        s.finish(1, false);
        assert!(s.has_ready());
        assert_eq!(s.next(), Some(2));
    }

    #[test]
    fn connections_take_turns() {
        let mut s = Schedule::new(1, 8);
        assert!(s.start(1) && !s.start(2));
        s.finish(1, true);
        assert_eq!(s.next(), Some(2));
        s.finish(2, true);
        assert_eq!(s.next(), Some(1));
    }

    #[test]
    fn a_slow_connection_is_given_more_runners_one_wake_each() {
        let mut s = Schedule::new(3, 8);
        assert!(s.start(1) && s.want(1) && !s.want(1), "it is ready once");
        assert_eq!(s.next(), Some(1));
        assert!(s.want(1));
        assert_eq!((s.next(), s.want(1)), (Some(1), false));
    }

    #[test]
    fn a_held_connection_executes_nothing_until_released() {
        let mut s = Schedule::new(2, 1);
        assert!(s.start(1));
        s.hold(1);
        s.finish(1, true);
        assert_eq!((s.next(), s.start(2)), (None, true));
        assert!(s.release(1));
        assert_eq!(s.next(), Some(1));
        s.finish(1, false);
        s.finish(2, false);
        s.hold(3);
        assert!(!s.release(3) && s.lanes.is_empty(), "nothing is remembered of it");
    }

    #[test]
    fn a_closed_connection_wants_nobody() {
        let mut s = Schedule::new(1, 8);
        assert!(s.start(1) && !s.start(2) && !s.start(3));
        s.forget(2);
        s.finish(1, false);
        assert_eq!((s.next(), s.is_busy(2)), (Some(3), false));
        s.forget(3);
        s.finish(3, false);
        assert!(s.is_idle());
    }

    /// Threads as a model sees them: each connection's calls that wait, and who runs what.
    #[derive(Default)]
    struct Model {
        waiting: [usize; 4],
        runners: Vec<u64>,
        executed: usize,
    }

    impl Model {
        fn check(&self, s: &Schedule) {
            assert!(self.runners.len() <= 3);
            for c in 0..4 {
                assert!(self.runners.iter().filter(|r| **r == c).count() <= 2);
                let waits = self.waiting[c as usize] > 0;
                assert!(!waits || s.is_busy(c), "calls of {c} wait and nobody knows");
            }
        }

        /// A runner executes one call, and ends if there is none.
        fn step(&mut self, s: &mut Schedule, at: usize) {
            let c = self.runners[at];
            match self.waiting[c as usize].checked_sub(1) {
                Some(left) => (self.waiting[c as usize], self.executed) = (left, self.executed + 1),
                None => {
                    self.runners.swap_remove(at);
                    s.finish(c, false);
                }
            }
        }
    }

    proptest! {
        /// Whatever the order of events, the bounds hold, and no call is left to itself.
        #[test]
        fn bounds_hold_and_nothing_is_lost(events in proptest::collection::vec((0u8..6, 0u64..4), 0..400)) {
            let (mut s, mut m, mut offered) = (Schedule::new(3, 2), Model::default(), 0);
            for (what, c) in events {
                match what {
                    0 | 1 => {
                        (m.waiting[c as usize], offered) = (m.waiting[c as usize] + 1, offered + 1);
                        if s.start(c) {
                            m.runners.push(c);
                        }
                    }
                    2 if m.waiting[c as usize] > 0 => _ = s.want(c),
                    3 => m.runners.extend(s.next()),
                    4 if c < 2 => s.hold(c),
                    5 if c < 2 => _ = s.release(c),
                    _ if !m.runners.is_empty() => m.step(&mut s, c as usize % m.runners.len()),
                    _ => {}
                }
                m.check(&s);
            }
            (0..2).for_each(|c| _ = s.release(c));
            loop {
                m.runners.extend(s.next());
                if m.runners.is_empty() { break }
                m.step(&mut s, 0);
            }
            prop_assert!(s.is_idle());
            prop_assert_eq!(offered, m.executed);
        }
    }
}
