//! What a worker does next.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, PoisonError};
use std::thread::available_parallelism;

use remoor_rpc::xdr::Writer;
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::retry_on_intr;

use super::connection::{Connection, Error, Filled, Inbox, cause};
use super::crew::{Crew, Wake, Worker};
use super::limits::{EVENTS, SINGLE_EVENTS, SWEEP};
use super::schedule::{ConnectionId, Schedule};
use super::service::How;
use super::{FIRST_CONNECTION, KNOCK, Net, STOP, Service, locked};

/// Who does what.
pub(super) struct Roster {
    pub(super) schedule: Schedule,
    pub(super) crew: Crew,
    /// Events that were taken from epoll together with another one.
    arrivals: VecDeque<(u64, EventFlags)>,
}

impl Roster {
    pub(super) fn new(workers: usize, per_connection: usize) -> Self {
        let processors = available_parallelism().map_or(1, usize::from);
        Self {
            schedule: Schedule::new(workers - 1, per_connection),
            crew: Crew::new(workers, processors.min(workers)),
            arrivals: VecDeque::new(),
        }
    }
}

/// What a worker has of its own.
pub(super) struct Hands {
    pub(super) worker: Worker,
    pub(super) inbox: Inbox,
    pub(super) reply: Writer,
    /// Waits that gave one event, in a row.
    single_events: u32,
    /// It executed calls that had waited, so sockets are next.
    has_run: bool,
}

enum Duty {
    /// Execute calls of a connection, as one of its runners.
    Run(ConnectionId),
    /// Look after an event.
    Attend(u64, EventFlags),
    /// Look for events; `block` if there is nothing else to do.
    Watch {
        block: bool,
    },
    Sleep,
}

impl<S: Service> Net<S> {
    /// Serves until the server stops.
    pub(super) fn work(&self, worker: Worker) {
        crate::vfs::local::keep_identity();
        let mut hands = Hands {
            worker,
            inbox: Inbox::new(),
            reply: Writer::with_capacity(4096),
            single_events: 0,
            has_run: false,
        };
        self.slots[worker].started();
        if worker != 0 {
            self.slots[worker].sleep();
        }
        while !self.stopping.load(Relaxed) {
            match self.duty(&mut hands) {
                Duty::Run(id) => self.run_waiting(&mut hands, id),
                Duty::Attend(data, flags) => self.handle(&mut hands, data, flags),
                Duty::Watch { block } => self.watch(&mut hands, block),
                Duty::Sleep => self.slots[worker].sleep(),
            }
        }
    }

    /// Sockets and calls that wait take turns.
    fn duty(&self, hands: &mut Hands) -> Duty {
        let mut roster = locked(&self.roster);
        if !std::mem::take(&mut hands.has_run)
            && let Some(id) = roster.schedule.next()
        {
            hands.has_run = true;
            return Duty::Run(id);
        }
        if let Some((data, flags)) = roster.arrivals.pop_front() {
            return Duty::Attend(data, flags);
        }
        let block = !roster.schedule.has_ready();
        if !block {
            return Duty::Watch { block };
        }
        let needless = hands.single_events > SINGLE_EVENTS;
        if roster.crew.settle(hands.worker, needless) { Duty::Watch { block } } else { Duty::Sleep }
    }

    fn watch(&self, hands: &mut Hands, block: bool) {
        let tick = Timespec { tv_sec: if block { SWEEP.as_secs().cast_signed() } else { 0 }, tv_nsec: 0 };
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(STOP) }; EVENTS];
        let n = match retry_on_intr(|| epoll::wait(&self.epoll, &mut events, Some(&tick))) {
            Ok(n) => n,
            Err(e) => return tracing::error!("epoll_wait failed: {e}"),
        };
        hands.single_events = if n > 1 { 0 } else { hands.single_events.saturating_add(1) };
        if n > 1 {
            self.share(&events[1..n]);
        }
        if n > 0 {
            self.handle(hands, events[0].data.u64(), events[0].flags);
        }
        self.sweep_when_due();
    }

    /// Leaves events to whoever has time first.
    fn share(&self, events: &[Event]) {
        let mut roster = locked(&self.roster);
        roster.arrivals.extend(events.iter().map(|event| (event.data.u64(), event.flags)));
        let wake = roster.crew.call_watcher();
        drop(roster);
        self.wake(wake);
    }

    pub(super) fn wake(&self, wake: Wake) {
        match wake {
            Wake::Sleeper(worker) => self.slots[worker].wake(),
            Wake::Watcher => _ = rustix::io::write(&self.knock, &1u64.to_ne_bytes()),
            Wake::Nobody => {}
        }
    }

    /// Whether there is work that the workers awake may not come to; used when one of them gets stuck.
    pub(super) fn has_arrivals(roster: &Roster) -> bool {
        !roster.arrivals.is_empty() || roster.schedule.has_ready()
    }

    fn handle(&self, hands: &mut Hands, data: u64, flags: EventFlags) {
        self.attending.fetch_add(1, SeqCst);
        match data {
            STOP | KNOCK => {}
            n if n < FIRST_CONNECTION => self.accept(n),
            id => {
                if let Some(connection) = self.connection(id) {
                    self.attend(hands, &connection, flags);
                }
            }
        }
        self.attending.fetch_sub(1, SeqCst);
    }

    pub(super) fn connection(&self, id: ConnectionId) -> Option<Arc<Connection>> {
        self.connections.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Looks after a connection of which epoll has news.
    fn attend(&self, hands: &mut Hands, connection: &Arc<Connection>, flags: EventFlags) {
        let attends = connection.attend(hands.worker);
        if self.is_outlived(connection) {
            return;
        }
        if flags.intersects(EventFlags::ERR | EventFlags::HUP) {
            return self.hung_up(connection);
        }
        if flags.contains(EventFlags::OUT) && !self.drain_replies(connection) {
            return;
        }
        // Not in the middle of a record, whose bytes count from its begin.
        if self.load.is_full() && !connection.is_midway() {
            self.throttle(connection);
        } else if attends && flags.contains(EventFlags::IN) && !self.draining.load(SeqCst) {
            return self.receive(hands, connection);
        }
        connection.leave(hands.worker);
        self.rearm(connection);
    }

    /// The socket takes bytes again; false if the connection is at an end.
    fn drain_replies(&self, connection: &Arc<Connection>) -> bool {
        match connection.flush() {
            Ok(flushed) => {
                if flushed.moved {
                    self.moved(connection);
                }
                self.ease(connection, &flushed);
            }
            Err(e) => {
                self.fail(connection, &e, cause(&e));
                return false;
            }
        }
        self.close_if_done(connection);
        self.unthrottle();
        !connection.is_closed()
    }

    /// Receives calls, and executes them if this worker may.
    fn receive(&self, hands: &mut Hands, connection: &Arc<Connection>) {
        let Some(filled) = self.fill(hands, connection, true) else { return };
        // Before NULL calls are executed, so that others can be by another worker.
        let runs = filled.calls > 0 && locked(&self.roster).schedule.start(connection.origin.connection);
        self.answer_nulls(hands, connection);
        if runs {
            connection.nulls_done(filled.nulls);
            return self.run_received(hands, connection, filled.calls);
        }
        self.flush(connection);
        // Not before: they are what keeps the connection open.
        connection.nulls_done(filled.nulls);
        connection.leave(hands.worker);
        self.rearm(connection);
        self.close_if_done(connection);
    }

    /// Moves calls into the connection's lane; `None` if the connection had to be closed.
    pub(super) fn fill(
        &self,
        hands: &mut Hands,
        connection: &Arc<Connection>,
        receive: bool,
    ) -> Option<Filled> {
        match connection.fill(&mut hands.inbox, receive, |record| self.service.kind(record)) {
            Ok(filled) => {
                // A relay that sends its header byte by byte does not get on.
                if connection.is_introduced() {
                    self.moved(connection);
                }
                return Some(filled);
            }
            Err(Error::Io(e)) => self.fail(connection, &e, cause(&e)),
            Err(e @ (Error::Record(_) | Error::Header(_))) => self.fail(connection, &e, How::Closed),
        }
        hands.inbox.nulls.clear();
        None
    }
}
