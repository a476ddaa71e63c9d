//! The loop of a worker, and the life of a connection.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use remoor_rpc::record::Record;
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::retry_on_intr;
use socket2::Socket;

use super::connection::{Connection, Error, Taken};
use super::lapse::{Epoch, Seen, boottime_millis};
use super::limits::{ACCEPT_PAUSE, LAPSE_TICK, SWEEP};
use super::schedule::Schedule;
use super::{FIRST_CONNECTION, FIRST_LISTENER, Malformed, Net, STOP, Service, Task, locked};

impl<S: Service> Net<S> {
    /// Serves until the server stops.
    pub(super) fn work(&self) {
        crate::vfs::local::keep_identity();
        let tick = Timespec { tv_sec: SWEEP.as_secs().cast_signed(), tv_nsec: 0 };
        while !self.stopping.load(Relaxed) {
            let mut event = [Event { flags: EventFlags::empty(), data: EventData::new_u64(STOP) }];
            match retry_on_intr(|| epoll::wait(&self.epoll, &mut event, Some(&tick))) {
                Ok(1) => {
                    self.attending.fetch_add(1, SeqCst);
                    self.handle(event[0]);
                    self.attending.fetch_sub(1, SeqCst);
                }
                Ok(_) => {}
                Err(e) => return tracing::error!("epoll_wait failed, this worker ends: {e}"),
            }
            self.sweep_when_due();
        }
    }

    /// Notes that the server runs, until it stops.
    pub(super) fn tick(&self) {
        while !self.stopping.load(Relaxed) {
            self.noted(self.heartbeat.beat(boottime_millis));
            std::thread::park_timeout(LAPSE_TICK);
        }
    }

    fn epoch(&self) -> Epoch {
        self.noted(self.heartbeat.look(boottime_millis))
    }

    fn noted(&self, seen: Seen) -> Epoch {
        if let Some(lapse) = seen.lapse {
            self.lapsed(seen.epoch, lapse);
        }
        seen.epoch
    }

    /// Ends what was accepted before `epoch`.
    fn lapsed(&self, epoch: Epoch, lapse: Duration) {
        self.clear(epoch);
        self.snapshot().iter().filter(|c| c.epoch != epoch).for_each(|c| self.reset(c));
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
    fn is_outlived(&self, connection: &Arc<Connection>) -> bool {
        let epoch = self.epoch();
        let outlived = connection.epoch != epoch;
        if outlived {
            self.clear(epoch);
            self.reset(connection);
        }
        outlived
    }

    fn handle(&self, event: Event) {
        match event.data.u64() {
            STOP => {}
            n if n < FIRST_CONNECTION => self.accept(n),
            id => {
                let connections = self.connections.read().unwrap_or_else(PoisonError::into_inner);
                let connection = connections.get(&id).cloned();
                drop(connections);
                if let Some(connection) = connection {
                    self.attend(&connection, event.flags);
                }
            }
        }
    }

    fn accept(&self, n: u64) {
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
        if self.connection_count() >= self.limits.connections {
            if self.counts.refused.fetch_add(1, Relaxed) == 0 {
                tracing::warn!(client = %peer, limit = self.limits.connections, "too many connections, refused");
            }
            return;
        }
        self.counts.accepted.fetch_add(1, Relaxed);
        let id = self.next_id.fetch_add(1, Relaxed);
        let connection = Arc::new(Connection::new(id, socket, peer, epoch, &self.limits));
        self.moved(&connection);
        let mut connections = self.connections.write().unwrap_or_else(PoisonError::into_inner);
        connections.insert(id, connection.clone());
        drop(connections);
        if let Err(e) = connection.register(&self.epoll) {
            self.fail(&connection, &e);
        }
    }

    /// Looks after a connection of which epoll has news.
    fn attend(&self, connection: &Arc<Connection>, flags: EventFlags) {
        connection.disarmed();
        if self.is_outlived(connection) {
            return;
        }
        if flags.intersects(EventFlags::ERR | EventFlags::HUP) {
            return self.hung_up(connection);
        }
        if flags.contains(EventFlags::OUT) && connection.unsent() > 0 {
            match connection.flush() {
                Ok(true) => self.moved(connection),
                Ok(false) => {}
                Err(e) => return self.fail(connection, &e),
            }
            if !connection.is_choked() {
                self.release(connection);
            }
            self.close_if_done(connection);
        }
        self.read(connection, flags.contains(EventFlags::IN));
    }

    /// Reads and executes until there is no whole record left; looks at the socket at most once.
    fn read(&self, connection: &Arc<Connection>, mut receive: bool) {
        while !self.draining.load(SeqCst) && connection.claim() {
            let taken = connection.take(receive);
            // Before another worker may read on and find the end of the stream.
            match taken {
                Ok(Taken::Record(_)) => _ = connection.undispatched.fetch_add(1, SeqCst),
                Ok(Taken::Ended) => connection.ended.store(true, SeqCst),
                _ => {}
            }
            connection.release();
            self.rearm(connection);
            match taken {
                Ok(Taken::Record(record)) => self.dispatch(connection, record),
                Ok(Taken::Nothing) if receive => return self.moved(connection),
                Ok(Taken::Nothing) => return,
                Ok(Taken::Ended) => return self.close_if_done(connection),
                Err(Error::Io(e)) => return self.fail(connection, &e),
                Err(e @ Error::Record(_)) => return self.fail(connection, &e),
            }
            receive = false;
        }
        self.rearm(connection);
    }

    fn dispatch(&self, connection: &Arc<Connection>, record: Bytes) {
        self.moved(connection);
        if self.service.is_null(&record) {
            self.execute(connection, record);
            connection.undispatched.fetch_sub(1, SeqCst);
            return self.close_if_done(connection);
        }
        let bytes = record.len();
        let task = Task { connection: connection.clone(), record };
        let mut schedule = locked(&self.schedule);
        let next = schedule.offer(connection.id, task, bytes);
        self.note_backlog(&schedule, connection);
        drop(schedule);
        connection.undispatched.fetch_sub(1, SeqCst);
        self.run(next);
    }

    /// Executes a call and those that take its place.
    fn run(&self, mut next: Option<Task>) {
        while let Some(task) = next {
            self.execute(&task.connection, task.record);
            next = self.next_after(&task.connection);
        }
    }

    /// Counts a call of `connection` as executed; the task that takes its place.
    fn next_after(&self, connection: &Arc<Connection>) -> Option<Task> {
        let mut schedule = locked(&self.schedule);
        // Whoever sends enough of its replies, or closes it, takes this lock afterwards and finds it held.
        if connection.is_choked() && !connection.is_closed() {
            schedule.hold(connection.id);
        }
        let next = schedule.finish(connection.id).map(|(_, task)| task);
        self.taken_from_backlog(schedule, next.as_ref());
        if self.draining.load(Relaxed) {
            self.drained.notify_all();
        }
        self.close_if_done(connection);
        next
    }

    fn taken_from_backlog(&self, schedule: MutexGuard<'_, Schedule<Task>>, task: Option<&Task>) {
        let resumed = task.filter(|task| self.note_backlog(&schedule, &task.connection));
        drop(schedule);
        if let Some(task) = resumed {
            self.rearm(&task.connection);
        }
    }

    /// The client has read enough replies for its calls to go on.
    fn release(&self, connection: &Arc<Connection>) {
        let mut schedule = locked(&self.schedule);
        let next = schedule.release(connection.id).map(|(_, task)| task);
        self.taken_from_backlog(schedule, next.as_ref());
        // The call may take long, and meanwhile others look after the connection.
        self.rearm(connection);
        self.run(next);
    }

    /// Updates whether the connection may be read; true if it may again.
    fn note_backlog(&self, schedule: &Schedule<Task>, connection: &Connection) -> bool {
        let (calls, bytes) = schedule.backlog(connection.id);
        let full = calls >= self.limits.backlog_calls || bytes >= self.limits.backlog_bytes;
        connection.backlogged.swap(full, Relaxed) && !full
    }

    /// A call whose connection is gone is dropped: its client has sent it again elsewhere, or will.
    ///
    /// The socket is asked before every call, because Linux hands out what came before a reset (`tcp_recvmsg` empties the
    /// receive queue first): a process that was stopped meanwhile would execute calls that another node has
    /// executed since. The question takes half a microsecond. A reset may also never have reached this host, and a FIN
    /// doesn't say that the client waits no more; so after a lapse, every connection that was there before is as good as
    /// reset. Neither can help a call that executes at the moment of the stop. The clock comes last: what lies
    /// between it and the call is the only time at which a stop goes unseen.
    fn execute(&self, connection: &Arc<Connection>, record: Bytes) {
        if connection.is_closed() {
            return;
        }
        if connection.is_reset() {
            return self.hung_up(connection);
        }
        if self.is_outlived(connection) {
            return;
        }
        match self.service.serve(connection.peer, record) {
            Ok(reply) => self.reply(connection, &reply),
            Err(e) => self.fail::<Malformed>(connection, &e),
        }
    }

    fn reply(&self, connection: &Arc<Connection>, reply: &Record) {
        if self.is_outlived(connection) {
            return;
        }
        match connection.send(reply) {
            Ok(()) if connection.unsent() == 0 => self.moved(connection),
            Ok(()) => self.rearm(connection),
            Err(e) => self.fail(connection, &e),
        }
    }

    /// Arms the connection for what it waits for now.
    pub(super) fn rearm(&self, connection: &Arc<Connection>) {
        if let Err(e) = connection.rearm(&self.epoll, self.draining.load(Relaxed)) {
            self.fail(connection, &e);
        }
    }

    /// A client that ended its side still gets the replies to what it had sent.
    fn close_if_done(&self, connection: &Arc<Connection>) {
        // In the order in which a call moves on: read, scheduled, replied to.
        let all_read = connection.ended.load(SeqCst) && connection.undispatched.load(SeqCst) == 0;
        let all_run = all_read && locked(&self.schedule).pending(connection.id) == 0;
        if all_run && connection.unsent() == 0 {
            tracing::debug!(client = %connection.peer, "connection ended");
            self.close(connection);
        }
    }

    fn hung_up(&self, connection: &Arc<Connection>) {
        tracing::debug!(client = %connection.peer, "connection reset");
        self.close(connection);
    }

    fn fail<E: std::fmt::Display>(&self, connection: &Arc<Connection>, error: &E) {
        if connection.close() {
            self.counts.broken.fetch_add(1, Relaxed);
            tracing::warn!(client = %connection.peer, "connection closed: {error}");
            self.forget(connection);
            connection.shut_down(&self.epoll);
        }
    }

    pub(super) fn close(&self, connection: &Arc<Connection>) {
        if connection.close() {
            self.forget(connection);
            connection.shut_down(&self.epoll);
        }
    }

    fn reset(&self, connection: &Arc<Connection>) {
        if connection.close() {
            tracing::debug!(client = %connection.peer, "connection reset, the server was not running");
            self.forget(connection);
            connection.reset(&self.epoll);
        }
    }

    /// Drops the calls of a closed connection that wait. The client hears of it last, so that what it does next
    /// finds the counts and the limits as they are without this connection.
    fn forget(&self, connection: &Arc<Connection>) {
        self.connections.write().unwrap_or_else(PoisonError::into_inner).remove(&connection.id);
        locked(&self.schedule).forget(connection.id);
    }

    fn moved(&self, connection: &Connection) {
        connection.progress_millis.store(self.millis(), Relaxed);
    }

    fn millis(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// One worker at a time looks for idle and stalled connections.
    fn sweep_when_due(&self) {
        let now = self.millis();
        let last = self.swept_millis.load(Relaxed);
        let due = now.saturating_sub(last) >= SWEEP.as_millis() as u64;
        if due && self.swept_millis.compare_exchange(last, now, Relaxed, Relaxed).is_ok() {
            self.snapshot().iter().for_each(|connection| self.sweep(connection, now));
        }
    }

    fn sweep(&self, connection: &Arc<Connection>, now: u64) {
        let still = now.saturating_sub(connection.progress_millis.load(Relaxed));
        if still < (self.limits.stall.min(self.limits.idle)).as_millis() as u64 {
            return;
        }
        let busy = locked(&self.schedule).pending(connection.id) > 0;
        let stalled = connection.unsent() > 0 || (!busy && connection.is_midway());
        if stalled && still >= self.limits.stall.as_millis() as u64 {
            self.fail(
                connection,
                &format!("no progress for {still} ms in the middle of a record or a reply"),
            );
        } else if still >= self.limits.idle.as_millis() as u64 && !busy {
            tracing::debug!(client = %connection.peer, "connection idle, closed");
            self.close(connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Barrier, Mutex};
    use std::time::Duration;

    use remoor_rpc::xdr::Writer;

    use super::super::{Handle, Limits, start};
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
        fn is_null(&self, record: &[u8]) -> bool {
            record == NULL
        }

        fn serve(&self, _: SocketAddr, record: Bytes) -> Result<Record, Malformed> {
            for (text, gate) in [(NULL, &self.null), (SLOW, &self.slow)] {
                if record == text {
                    self.began.wait();
                    locked(gate).recv().unwrap();
                }
            }
            self.executed.send(record).unwrap();
            Ok(Record::new(Writer::new().finish()))
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
        let mut handle =
            start(service.clone(), &["127.0.0.1:0".parse().unwrap()], 2, Limits::default()).unwrap();
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
