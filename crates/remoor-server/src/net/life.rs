//! The life of connections: accepted, looked through for idle and stalled ones, closed; and what a lapse ends.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use socket2::Socket;

use super::connection::Connection;
use super::lane::Call;
use super::lapse::{Epoch, Seen, boottime_millis};
use super::limits::{ACCEPT_PAUSE, STALL_WHEN_FULL, SWEEP, YIELD_AFTER};
use super::relay::Relay;
use super::service::{End, How, Origin};
use super::{FIRST_LISTENER, Net, Service, locked};

const LAPSED: &str = "the server was not running";

impl<S: Service> Net<S> {
    fn epoch(&self) -> Epoch {
        self.noted(self.heartbeat.look(boottime_millis))
    }

    pub(super) fn noted(&self, seen: Seen) -> Epoch {
        if let Some(lapse) = seen.lapse {
            self.lapsed(seen.epoch, lapse);
        }
        seen.epoch
    }

    /// Ends what was accepted before `epoch`.
    fn lapsed(&self, epoch: Epoch, lapse: Duration) {
        self.clear(epoch);
        self.snapshot().iter().filter(|c| c.epoch != epoch).for_each(|c| self.reset(c, LAPSED));
        tracing::warn!(
            "the server was not running for {:.1} s: connections are reset so that calls queued meanwhile are not executed",
            lapse.as_secs_f64()
        );
    }

    /// Ends what waited to be accepted when `epoch` began. This goes before every reset, so that a client that sees one
    /// can make a new connection at once.
    fn clear(&self, epoch: Epoch) {
        for listener in &self.listeners {
            // Else the next to accept clears it, and tells why it can't.
            let _ = listener.clear(epoch);
        }
    }

    /// Whether the server has lapsed since the connection was accepted, which is then reset.
    pub(super) fn is_outlived(&self, connection: &Arc<Connection>) -> bool {
        let epoch = self.epoch();
        let outlived = connection.epoch != epoch;
        if outlived {
            self.clear(epoch);
            self.reset(connection, LAPSED);
        }
        outlived
    }

    pub(super) fn accept(&self, n: u64) {
        let listener = &self.listeners[(n - FIRST_LISTENER) as usize];
        loop {
            // Before it is accepted, so that it counts as waiting if the server is stopped in between.
            let epoch = self.epoch();
            match listener.accept(epoch) {
                Ok((socket, peer)) => self.admit(socket, peer, epoch),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                // The client gave up while it waited to be accepted, or a signal came.
                Err(e)
                    if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
                Err(_) if self.draining.load(Relaxed) => return,
                Err(e) => {
                    tracing::warn!(
                        "cannot accept on {}: {e}; raise the limit of open files",
                        listener.address
                    );
                    std::thread::sleep(ACCEPT_PAUSE);
                    break;
                }
            }
        }
        if !self.draining.load(Relaxed) {
            let _ = listener.rearm(&self.epoll, n);
        }
    }

    fn admit(&self, socket: Socket, peer: SocketAddr, epoch: Epoch) {
        if self.connection_count() >= self.limits.connections && !self.evict() {
            if self.counts.refused.fetch_add(1, Relaxed) == 0 {
                tracing::warn!(client = %peer, limit = self.limits.connections, "too many connections, refused");
            }
            return;
        }
        self.counts.accepted.fetch_add(1, Relaxed);
        let id = self.next_id.fetch_add(1, Relaxed);
        let origin = Origin { connection: id, peer, is_client: true, ticket: None };
        let relay = Relay::of(peer, &self.relays);
        let load = self.load.clone();
        let connection = Arc::new(Connection::new(origin, relay, socket, epoch, &self.limits, load));
        self.moved(&connection);
        let mut connections = self.connections.write().unwrap_or_else(PoisonError::into_inner);
        connections.insert(id, connection.clone());
        drop(connections);
        if let Err(e) = connection.register(&self.epoll) {
            self.fail(&connection, &e, How::Closed);
        }
    }

    /// Closes the connection that was idle longest; false if none is idle.
    fn evict(&self) -> bool {
        let now = self.millis();
        let still = |c: &Connection| now.saturating_sub(c.progress_millis.load(Relaxed));
        let idle = |c: &&Arc<Connection>| {
            still(c) >= YIELD_AFTER.as_millis() as u64
                && !self.is_busy(c)
                && c.unsent() == 0
                && !c.is_midway()
        };
        let all = self.snapshot();
        let Some(longest) = all.iter().filter(idle).max_by_key(|c| still(c)) else { return false };
        self.counts.evicted.fetch_add(1, Relaxed);
        tracing::debug!(client = %longest.caller().peer, "connection idle, closed for a new one");
        self.close(longest, How::Closed);
        true
    }

    /// Whether calls of it execute or wait.
    fn is_busy(&self, connection: &Connection) -> bool {
        !connection.is_clear() || locked(&self.roster).schedule.is_busy(connection.origin.connection)
    }

    /// Reads no more of a connection until others have less in flight.
    pub(super) fn throttle(&self, connection: &Arc<Connection>) {
        // It may be there already: its socket also tells that it takes bytes.
        if !connection.throttled.swap(true, SeqCst) {
            locked(&self.throttled).push(connection.origin.connection);
        }
        self.any_throttled.store(true, SeqCst);
        // What made the load full may have ended just before.
        self.unthrottle();
    }

    /// Goes on reading what was throttled, if there is room.
    pub(super) fn unthrottle(&self) {
        if !self.any_throttled.load(SeqCst) || self.load.is_full() {
            return;
        }
        self.any_throttled.store(false, SeqCst);
        let throttled = std::mem::take(&mut *locked(&self.throttled));
        for connection in throttled.into_iter().filter_map(|id| self.connection(id)) {
            connection.throttled.store(false, SeqCst);
            self.rearm(&connection);
        }
    }

    /// Arms the connection for what it waits for now.
    pub(super) fn rearm(&self, connection: &Arc<Connection>) {
        if let Err(e) = connection.rearm(&self.epoll, self.draining.load(Relaxed)) {
            self.fail(connection, &e, How::Closed);
        }
    }

    pub(super) fn hung_up(&self, connection: &Arc<Connection>) {
        tracing::debug!(client = %connection.caller().peer, "connection reset");
        self.close(connection, connection.death());
    }

    pub(super) fn fail<E: std::fmt::Display>(&self, connection: &Arc<Connection>, error: &E, how: How) {
        if connection.close() {
            self.counts.broken.fetch_add(1, Relaxed);
            tracing::warn!(client = %connection.caller().peer, "connection closed: {error}");
            self.forget(connection, how);
            connection.shut_down(&self.epoll);
        }
    }

    pub(super) fn close(&self, connection: &Arc<Connection>, how: How) {
        if connection.close() {
            self.forget(connection, how);
            connection.shut_down(&self.epoll);
        }
    }

    pub(super) fn reset(&self, connection: &Arc<Connection>, why: &str) {
        if connection.close() {
            tracing::debug!(client = %connection.caller().peer, "connection reset, {why}");
            self.forget(connection, How::Reset);
            connection.reset(&self.epoll);
        }
    }

    /// Drops the calls of a closed connection that wait. The client hears of it last, so that what it does next
    /// finds the counts and the limits as they are without this connection.
    fn forget(&self, connection: &Arc<Connection>, how: How) {
        self.connections
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&connection.origin.connection);
        self.clear_lane(connection);
        locked(&self.roster).schedule.forget(connection.origin.connection);
        connection.share.partial(0);
        connection.share.unsent(0);
        self.unthrottle();
        let acked = connection.acknowledged().acked_bytes;
        self.service.ended(connection.origin.connection, End { how, acked });
    }

    /// Drops the calls of a closed connection that wait.
    pub(super) fn clear_lane(&self, connection: &Connection) {
        connection.clear().into_iter().for_each(|call| self.discard(connection, &call));
    }

    /// A call is not to be executed.
    pub(super) fn discard(&self, connection: &Connection, call: &Call) {
        connection.share.executed(1, call.record.len());
        if let Some(ticket) = call.ticket {
            self.service.dropped(ticket);
        }
    }

    pub(super) fn moved(&self, connection: &Connection) {
        connection.progress_millis.store(self.millis(), Relaxed);
    }

    fn millis(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// One worker at a time looks for idle and stalled connections.
    pub(super) fn sweep_when_due(&self) {
        let now = self.millis();
        let last = self.swept_millis.load(Relaxed);
        let due = now.saturating_sub(last) >= SWEEP.as_millis() as u64;
        if due && self.swept_millis.compare_exchange(last, now, Relaxed, Relaxed).is_ok() {
            self.snapshot().iter().for_each(|connection| self.sweep(connection, now));
            self.unthrottle();
        }
    }

    fn sweep(&self, connection: &Arc<Connection>, now: u64) {
        connection.calm();
        let still = now.saturating_sub(connection.progress_millis.load(Relaxed));
        if still >= SWEEP.as_millis() as u64 {
            connection.shrink();
        }
        let pressed = if self.load.is_full() { STALL_WHEN_FULL } else { Duration::MAX };
        let stall = self.limits.stall.min(pressed);
        if still < (stall.min(self.limits.idle)).as_millis() as u64 {
            return;
        }
        let busy = self.is_busy(connection);
        let stalled = connection.unsent() > 0 || (!busy && connection.is_midway());
        if stalled && still >= stall.as_millis() as u64 {
            self.fail(
                connection,
                &format!("no progress for {still} ms in the middle of a record or a reply"),
                How::TimedOut,
            );
        } else if still >= self.limits.idle.as_millis() as u64 && !busy {
            tracing::debug!(client = %connection.caller().peer, "connection idle, closed");
            self.close(connection, How::Closed);
        }
    }
}
