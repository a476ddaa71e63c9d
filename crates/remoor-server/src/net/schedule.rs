//! Which call executes now and which waits: pure, so that fairness and bounds are tested without sockets.
//!
//! At most `max_running` calls execute at a time, one less than there are workers: the worker left over reads
//! sockets and answers NULL, so a server whose every disk is slow still proves that it lives. A connection
//! executes at most `per_connection` calls; others wait in order of arrival, connections taking turns.

use std::collections::{HashMap, VecDeque};

/// Names a connection for as long as the server runs.
pub(super) type ConnectionId = u64;

#[derive(Debug)]
pub(super) struct Schedule<T> {
    max_running: usize,
    per_connection: usize,
    running: usize,
    connections: HashMap<ConnectionId, Lane<T>>,
    /// Connections with a backlog that may execute one more call; each at most once.
    ready: VecDeque<ConnectionId>,
}

#[derive(Debug)]
struct Lane<T> {
    running: usize,
    backlog: VecDeque<(T, usize)>,
    backlog_bytes: usize,
    is_ready: bool,
    is_held: bool,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self { running: 0, backlog: VecDeque::new(), backlog_bytes: 0, is_ready: false, is_held: false }
    }
}

impl<T> Schedule<T> {
    pub(super) fn new(max_running: usize, per_connection: usize) -> Self {
        Self { max_running, per_connection, running: 0, connections: HashMap::new(), ready: VecDeque::new() }
    }

    /// Gives the call back if it is to execute now; otherwise it waits.
    pub(super) fn offer(&mut self, connection: ConnectionId, call: T, bytes: usize) -> Option<T> {
        let lane = self.connections.entry(connection).or_default();
        let free = self.running < self.max_running && lane.running < self.per_connection && !lane.is_held;
        if free && lane.backlog.is_empty() {
            lane.running += 1;
            self.running += 1;
            return Some(call);
        }
        lane.backlog.push_back((call, bytes));
        lane.backlog_bytes += bytes;
        self.mark_ready(connection);
        None
    }

    /// A call of this connection has executed; the call to execute next in its stead, if any.
    pub(super) fn finish(&mut self, connection: ConnectionId) -> Option<(ConnectionId, T)> {
        self.running -= 1;
        if let Some(lane) = self.connections.get_mut(&connection) {
            lane.running -= 1;
        }
        self.drop_if_empty(connection);
        self.mark_ready(connection);
        self.next()
    }

    /// Executes no more calls of a connection that waits for its client to read replies.
    pub(super) fn hold(&mut self, connection: ConnectionId) {
        self.connections.entry(connection).or_default().is_held = true;
    }

    /// Ends [`Schedule::hold`]; the call to execute next, if any.
    pub(super) fn release(&mut self, connection: ConnectionId) -> Option<(ConnectionId, T)> {
        let lane = self.connections.get_mut(&connection)?;
        lane.is_held = false;
        self.drop_if_empty(connection);
        self.mark_ready(connection);
        self.next()
    }

    /// Drops the calls of a closed connection that wait: nobody is there for their replies.
    pub(super) fn forget(&mut self, connection: ConnectionId) {
        if let Some(lane) = self.connections.get_mut(&connection) {
            lane.backlog.clear();
            lane.backlog_bytes = 0;
            lane.is_held = false;
        }
        self.drop_if_empty(connection);
    }

    /// Calls of this connection that wait, and their bytes.
    pub(super) fn backlog(&self, connection: ConnectionId) -> (usize, usize) {
        self.connections.get(&connection).map_or((0, 0), |lane| (lane.backlog.len(), lane.backlog_bytes))
    }

    /// Calls of this connection that execute or wait.
    pub(super) fn pending(&self, connection: ConnectionId) -> usize {
        self.connections.get(&connection).map_or(0, |lane| lane.running + lane.backlog.len())
    }

    /// Whether nothing executes and nothing waits.
    pub(super) fn is_idle(&self) -> bool {
        self.connections.values().all(|lane| lane.running == 0 && lane.backlog.is_empty())
    }

    fn drop_if_empty(&mut self, connection: ConnectionId) {
        let empty = |lane: &Lane<T>| lane.running == 0 && lane.backlog.is_empty() && !lane.is_held;
        if self.connections.get(&connection).is_some_and(empty) {
            self.connections.remove(&connection);
        }
    }

    fn mark_ready(&mut self, connection: ConnectionId) {
        let Some(lane) = self.connections.get_mut(&connection) else { return };
        let may_run = !lane.is_held && lane.running < self.per_connection;
        if may_run && !lane.is_ready && !lane.backlog.is_empty() {
            lane.is_ready = true;
            self.ready.push_back(connection);
        }
    }

    fn next(&mut self) -> Option<(ConnectionId, T)> {
        while self.running < self.max_running {
            let connection = self.ready.pop_front()?;
            let Some(lane) = self.connections.get_mut(&connection) else { continue };
            lane.is_ready = false;
            if lane.is_held {
                continue;
            }
            let Some((call, bytes)) = lane.backlog.pop_front() else { continue };
            lane.backlog_bytes -= bytes;
            lane.running += 1;
            self.running += 1;
            self.mark_ready(connection);
            return Some((connection, call));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_its_share_and_the_rest_waits_in_order() {
        let mut s = Schedule::new(8, 2);
        assert_eq!([1, 2, 3, 4].map(|call| s.offer(7, call, 10)), [Some(1), Some(2), None, None]);
        assert_eq!(s.backlog(7), (2, 20));
        assert_eq!(s.offer(8, 5, 10), Some(5), "another connection does not wait for this one");
        assert_eq!(s.finish(7), Some((7, 3)));
        assert_eq!(s.finish(7), Some((7, 4)));
        assert_eq!(s.finish(7), None);
        assert_eq!((s.finish(7), s.finish(8)), (None, None));
        assert!(s.is_idle());
    }

    #[test]
    fn connections_take_turns() {
        let mut s = Schedule::new(1, 8);
        s.offer(1, 'a', 0);
        for call in ['b', 'c', 'd'] {
            s.offer(1, call, 0);
        }
        s.offer(2, 'x', 0);
        assert_eq!(s.finish(1), Some((1, 'b')));
        assert_eq!(s.finish(1), Some((2, 'x')));
        assert_eq!(s.finish(2), Some((1, 'c')));
    }

    #[test]
    fn calls_of_a_closed_connection_are_dropped_unexecuted() {
        let mut s = Schedule::new(1, 8);
        s.offer(1, 'a', 0);
        s.offer(2, 'b', 9);
        s.offer(3, 'c', 9);
        s.forget(2);
        assert_eq!(s.backlog(2), (0, 0));
        s.forget(1);
        assert_eq!(s.finish(1), Some((3, 'c')));
        assert_eq!(s.finish(3), None);
        assert!(s.is_idle());
    }

    #[test]
    fn a_held_connection_executes_nothing_until_released() {
        let mut s = Schedule::new(2, 1);
        assert_eq!((s.offer(1, 'a', 1), s.offer(1, 'b', 1)), (Some('a'), None));
        s.hold(1);
        assert_eq!(s.finish(1), None);
        assert_eq!(s.offer(2, 'x', 1), Some('x'), "others go on");
        assert_eq!(s.release(1), Some((1, 'b')));
        assert_eq!((s.finish(1), s.finish(2)), (None, None));
        assert!(s.is_idle());
        s.hold(3);
        assert_eq!(s.release(3), None);
        assert!(s.connections.is_empty(), "nothing is remembered of it");
    }

    /// Whatever the order of events, the bounds hold, each connection's calls start in order, and none is lost.
    #[test]
    fn bounds_hold_and_nothing_is_lost() {
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut draw = move |n: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % n
        };
        let mut s = Schedule::new(3, 2);
        let mut running: Vec<u64> = Vec::new();
        let (mut offered, mut started) = ([0u64; 4], [0u64; 4]);
        let mut start = |running: &mut Vec<u64>, c: u64, call: u64| {
            assert_eq!(call, started[c as usize], "in order");
            started[c as usize] += 1;
            running.push(c);
            assert!(running.len() <= 3 && running.iter().filter(|x| **x == c).count() <= 2);
        };
        for step in 0..20_000 {
            let c = draw(4);
            if step < 15_000 && draw(2) == 0 {
                let call = offered[c as usize];
                offered[c as usize] += 1;
                if s.offer(c, call, 1).is_some() {
                    start(&mut running, c, call);
                }
            } else if !running.is_empty() {
                let at = draw(running.len() as u64) as usize;
                let done = running.swap_remove(at);
                if let Some((c, call)) = s.finish(done) {
                    start(&mut running, c, call);
                }
            }
        }
        while let Some(done) = running.pop() {
            if let Some((c, call)) = s.finish(done) {
                start(&mut running, c, call);
            }
        }
        assert!(s.is_idle());
        assert_eq!(offered, started);
    }
}
