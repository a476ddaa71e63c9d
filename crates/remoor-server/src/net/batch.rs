//! Executing the calls of one connection, and sending their replies together.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use bytes::Bytes;

use super::connection::{Connection, Flushed, cause};
use super::crew::{Wake, Worker};
use super::lane::Call;
use super::lapse::boottime_nanos;
use super::limits::{ALIVE_FOR, EAGER_AFTER, GATHER, GATHER_BYTES, TURN, TURN_CALLS};
use super::schedule::ConnectionId;
use super::service::{Answer, How, Origin};
use super::worker::{Hands, Roster};
use super::{Net, Service, locked};

/// A runner's turn with one connection. Times are in nanoseconds since boot.
struct Batch {
    /// When it began.
    begun: u64,
    /// When the last call ended.
    now: u64,
    /// When the connection was last seen alive.
    alive: u64,
    /// When the first reply that is not sent was made.
    gathered: Option<u64>,
    calls: usize,
    /// The client keeps several calls in flight.
    eager: bool,
}

impl Batch {
    fn is_over(&self) -> bool {
        self.calls >= TURN_CALLS || self.now.saturating_sub(self.begun) > TURN.as_nanos() as u64
    }

    fn is_due(&self, bytes: usize) -> bool {
        let since = self.gathered.map_or(0, |first| self.now.saturating_sub(first));
        bytes >= GATHER_BYTES || since > GATHER.as_nanos() as u64
    }
}

impl<S: Service> Net<S> {
    /// Executes calls that this worker has just received, as a runner.
    pub(super) fn run_received(&self, hands: &mut Hands, connection: &Arc<Connection>, calls: usize) {
        self.run(hands, connection, calls > 1);
    }

    /// Executes calls that waited, as a runner.
    pub(super) fn run_waiting(&self, hands: &mut Hands, id: ConnectionId) {
        match self.connection(id) {
            Some(connection) => self.run(hands, &connection, false),
            None => locked(&self.roster).schedule.finish(id, false),
        }
    }

    fn run(&self, hands: &mut Hands, connection: &Arc<Connection>, eager: bool) {
        let slot = &self.slots[hands.worker];
        slot.begin(connection.origin.connection);
        self.dormant.end();
        let now = boottime_nanos();
        let mut batch = Batch { begun: now, now, alive: 0, gathered: None, calls: 0, eager };
        while self.step(hands, connection, &mut batch) {}
        slot.end();
        self.end_turn(hands, connection);
    }

    /// Executes one call, or receives more; false if the turn is over.
    fn step(&self, hands: &mut Hands, connection: &Arc<Connection>, batch: &mut Batch) -> bool {
        let popped = if connection.is_choked() || batch.is_over() { None } else { connection.pop() };
        if let Some((call, resumed)) = popped {
            if resumed {
                self.resume(hands, connection);
            }
            self.execute(hands, connection, batch, call);
            return !connection.is_closed();
        }
        self.flush(connection);
        batch.gathered = None;
        self.receive_more(hands, connection, batch)
    }

    /// After half of a full lane was executed: moves what the reader kept.
    fn resume(&self, hands: &mut Hands, connection: &Arc<Connection>) {
        if self.draining.load(Relaxed) {
            return;
        }
        if let Some(filled) = self.fill(hands, connection, false) {
            self.answer_nulls(hands, connection);
            connection.nulls_done(filled.nulls);
            self.rearm(connection);
        }
    }

    /// A client that keeps calls in flight has often sent more by now, and asking the socket is cheaper than epoll; how
    /// often it pays is learnt.
    fn receive_more(&self, hands: &mut Hands, connection: &Arc<Connection>, batch: &mut Batch) -> bool {
        let asks = batch.eager
            && !batch.is_over()
            && !connection.is_choked()
            && !self.draining.load(Relaxed)
            && connection.is_attended_by(hands.worker)
            && connection.eager.fetch_add(1, Relaxed) >= EAGER_AFTER;
        if !asks {
            return false;
        }
        let Some(filled) = self.fill(hands, connection, true) else { return false };
        let got = filled.calls + filled.nulls > 0;
        connection.eager.store(if got { EAGER_AFTER } else { 0 }, Relaxed);
        self.answer_nulls(hands, connection);
        connection.nulls_done(filled.nulls);
        got
    }

    /// Ends a runner.
    fn end_turn(&self, hands: &Hands, connection: &Arc<Connection>) {
        let id = connection.origin.connection;
        connection.leave(hands.worker);
        let mut roster = locked(&self.roster);
        // Whoever sends enough of its replies (`ease`), or closes it, takes this lock afterwards and finds it held.
        if connection.is_choked() && !connection.is_closed() {
            roster.schedule.hold(id);
        }
        roster.schedule.finish(id, connection.waiting() > 0);
        if self.draining.load(Relaxed) {
            self.drained.notify_all();
        }
        drop(roster);
        self.rearm(connection);
        self.close_if_done(connection);
        self.unthrottle();
    }

    /// A call whose connection is gone is dropped: its client has sent it again elsewhere, or will.
    ///
    /// The socket is asked before a call that changes something, because Linux hands out what came before a reset
    /// (`tcp_recvmsg` empties the receive queue first): a process that was stopped meanwhile would execute calls that
    /// another node has executed since. An answer less than [`ALIVE_FOR`] old counts: a stop in between shows in
    /// the clock. That there was something to receive is none. A reset may also never have reached this host, and a FIN doesn't say that the client waits no more; so
    /// after a lapse, every connection that was there before is as good as reset. Neither can help a call that executes
    /// at the moment of the stop. The clock comes last: what lies between it and the call is the only time at which a
    /// stop goes unseen.
    fn execute(&self, hands: &mut Hands, connection: &Arc<Connection>, batch: &mut Batch, call: Call) {
        if connection.is_closed() {
            return self.discard(connection, &call);
        }
        if connection.pace.is_slow(call.kind.class) {
            self.step_aside(hands, connection, batch);
        }
        if !call.kind.is_idempotent && !self.is_alive(connection, batch) {
            return self.discard(connection, &call);
        }
        let slot = &self.slots[hands.worker];
        slot.enter(call.kind.class);
        let bytes = call.record.len();
        let replied = self.serve(hands, connection, call.record, call.ticket);
        slot.exit();
        connection.share.executed(1, bytes);
        batch.calls += 1;
        let now = boottime_nanos();
        connection.pace.note(call.kind.class, now.saturating_sub(batch.now), bytes + hands.reply.len());
        batch.now = now;
        if let Some(bytes) = replied {
            batch.gathered.get_or_insert(now);
            if batch.is_due(bytes) {
                self.send(connection, batch);
            }
        }
    }

    fn send(&self, connection: &Arc<Connection>, batch: &mut Batch) {
        self.flush(connection);
        (batch.gathered, batch.now) = (None, boottime_nanos());
    }

    fn is_alive(&self, connection: &Arc<Connection>, batch: &mut Batch) -> bool {
        let now = boottime_nanos();
        if now.saturating_sub(batch.alive) > ALIVE_FOR.as_nanos() as u64 {
            // The time before the socket is asked, so that a stop in between shows.
            batch.alive = now;
            if connection.is_reset() {
                self.hung_up(connection);
                return false;
            }
        }
        !self.is_outlived(connection)
    }

    /// Executes a call and keeps its reply; bytes of replies that are kept.
    fn serve(
        &self,
        hands: &mut Hands,
        connection: &Arc<Connection>,
        record: Bytes,
        ticket: Option<u64>,
    ) -> Option<usize> {
        hands.reply.clear();
        let origin = Origin { ticket, ..connection.caller() };
        match self.service.serve(&origin, record, &mut hands.reply) {
            Ok(Answer::Now) => return Some(connection.gather(&hands.reply).0),
            Ok(Answer::Tell(ticket)) => {
                let (bytes, end) = connection.gather(&hands.reply);
                self.service.told(&origin, ticket, &hands.reply, end);
                return Some(bytes);
            }
            Ok(Answer::Later) => connection.promise(),
            Ok(Answer::Never) => {}
            Ok(Answer::Reset) => self.reset(connection, "the service cannot take its call"),
            Err(e) => self.fail(connection, &e, How::Closed),
        }
        None
    }

    /// NULL calls never wait.
    pub(super) fn answer_nulls(&self, hands: &mut Hands, connection: &Arc<Connection>) {
        let mut nulls = std::mem::take(&mut hands.inbox.nulls);
        nulls
            .drain(..)
            .filter(|_| !connection.is_closed())
            .for_each(|record| _ = self.serve(hands, connection, record, None));
        hands.inbox.nulls = nulls;
    }

    /// Lets others go on with this connection and with all others, because the next call may take long.
    fn step_aside(&self, hands: &Hands, connection: &Arc<Connection>, batch: &mut Batch) {
        if batch.gathered.is_some() {
            self.send(connection, batch);
        }
        let wake = self.detach(hands.worker, Some(connection), || true);
        self.wake(wake);
    }

    /// Takes a worker that is, or may be, in a slow call from its watch and its connection; whom to wake in its stead.
    ///
    /// `in_call` is asked under the lock under which a worker goes to sleep: one that has ended its call and sleeps watches
    /// nothing that could be taken from it.
    pub(super) fn detach(
        &self,
        worker: Worker,
        connection: Option<&Arc<Connection>>,
        in_call: impl FnOnce() -> bool,
    ) -> Wake {
        connection.into_iter().for_each(|connection| connection.leave(worker));
        let mut roster = locked(&self.roster);
        let wake = if in_call() { Self::depart(&mut roster, worker, connection) } else { Wake::Nobody };
        drop(roster);
        connection.into_iter().for_each(|connection| self.rearm(connection));
        wake
    }

    fn depart(roster: &mut Roster, worker: Worker, connection: Option<&Arc<Connection>>) -> Wake {
        let wants = |connection: &Arc<Connection>| {
            connection.waiting() > 0 && roster.schedule.want(connection.origin.connection)
        };
        let more = connection.is_some_and(wants);
        match roster.crew.leave(worker) {
            Wake::Nobody if more || Self::has_arrivals(roster) => roster.crew.call(),
            wake => wake,
        }
    }

    /// Sends the replies that were kept, unless the server was stopped since they were made.
    pub(super) fn flush(&self, connection: &Arc<Connection>) {
        if connection.is_closed() || self.is_outlived(connection) {
            return;
        }
        match connection.flush() {
            Ok(flushed) => {
                if connection.unsent() > 0 {
                    self.rearm(connection);
                } else if flushed.moved {
                    self.moved(connection);
                }
                self.ease(connection, &flushed);
            }
            Err(e) => self.fail(connection, &e, cause(&e)),
        }
    }

    /// Ends the hold of a connection that is choked no more. Not left to the event that its socket takes bytes: who
    /// sends the last of them arms for calls alone, and the event that nobody has taken by then is gone.
    pub(super) fn ease(&self, connection: &Arc<Connection>, flushed: &Flushed) {
        if flushed.eased {
            let mut roster = locked(&self.roster);
            let free = roster.schedule.release(connection.origin.connection);
            let wake = if free { roster.crew.call() } else { Wake::Nobody };
            drop(roster);
            self.wake(wake);
        }
    }

    /// A client that ended its side still gets the replies to what it had sent.
    pub(super) fn close_if_done(&self, connection: &Arc<Connection>) {
        if !connection.ended.load(SeqCst) {
            return;
        }
        let all_run =
            connection.is_clear() && !locked(&self.roster).schedule.is_busy(connection.origin.connection);
        if !all_run || connection.unsent() > 0 {
            return;
        }
        if connection.is_reset() {
            return self.hung_up(connection);
        }
        tracing::debug!(client = %connection.caller().peer, "connection ended");
        self.close(connection, How::Clean);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Barrier, Mutex};
    use std::time::Duration;

    use remoor_rpc::xdr::Writer;
    use socket2::Socket;

    use super::super::{Entrances, Handle, Kind, Limits, Malformed, start};
    use super::*;

    const NULL: &[u8] = b"null";
    const SLOW: &[u8] = b"slow";

    /// Keeps the worker that executes [`NULL`] or [`SLOW`] until told.
    struct Gates {
        began: Barrier,
        null: Mutex<Receiver<()>>,
        slow: Mutex<Receiver<()>>,
        executed: Sender<Bytes>,
    }

    impl Service for Gates {
        fn kind(&self, record: &[u8]) -> Kind {
            Kind { is_null: record == NULL, ..Kind::default() }
        }

        fn serve(&self, _: &Origin, record: Bytes, _: &mut Writer) -> Result<Answer, Malformed> {
            for (text, gate) in [(NULL, &self.null), (SLOW, &self.slow)] {
                if record == text {
                    self.began.wait();
                    locked(gate).recv().unwrap();
                }
            }
            self.executed.send(record).unwrap();
            Ok(Answer::Now)
        }
    }

    fn send(handle: &Handle<Gates>, records: &[&[u8]]) -> Socket {
        let socket: Socket = TcpStream::connect(handle.local_addrs()[0]).unwrap().into();
        let header = |text: &[u8]| (1 << 31 | text.len() as u32).to_be_bytes();
        let bytes: Vec<u8> = records.iter().flat_map(|text| [&header(text), *text].concat()).collect();
        socket.send(&bytes).unwrap();
        socket
    }

    #[test]
    fn calls_that_wait_are_not_executed_after_a_reset_that_nobody_has_seen() {
        let (executed, order) = channel();
        let ((end_null, null), (end_slow, slow)) = (channel(), channel());
        let gates = Gates { began: Barrier::new(2), null: null.into(), slow: slow.into(), executed };
        let service = Arc::new(gates);
        let address = ["127.0.0.1:0".parse().unwrap()];
        let entrances = Entrances { addresses: &address, ..Entrances::default() };
        let mut handle = start(service.clone(), entrances, 2, Limits::default()).unwrap();
        // One worker executes, and the other has read all that waits: nobody looks at sockets.
        let _other = send(&handle, &[SLOW]);
        service.began.wait();
        let client = send(&handle, &[b"first", b"second", NULL]);
        service.began.wait();
        client.set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        end_slow.send(()).unwrap();
        assert_eq!(order.recv().unwrap(), SLOW);
        // The worker that is free again has nothing before it but what waited; then it sees the reset.
        while handle.connections().open > 1 {
            std::thread::yield_now();
        }
        end_null.send(()).unwrap();
        assert!(handle.stop());
        drop((handle, service));
        assert_eq!(order.iter().collect::<Vec<_>>(), [NULL]);
    }
}
