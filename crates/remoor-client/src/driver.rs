//! The task that owns a reconnect machine and its sockets: it carries out the machine's actions and feeds it what happened.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use remoor_nfs::reconnect::{
    Abandon, Action, Call, CallFailure, CloseReason, ConnId, Event, Machine, Notice,
};
use remoor_rpc::call_table::MAX_OUTSTANDING;
use remoor_rpc::message::peek_xid;
use remoor_rpc::net;
use remoor_rpc::record::Record;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Sleep;

use crate::connection::{Connection, Happening};

/// Calls that may wait for the driver.
pub(crate) const MAX_QUEUED_CALLS: usize = 1024;
/// How long the driver sleeps while the machine has no timer and nothing happens.
const NO_TIMER: Duration = Duration::from_secs(3600);

/// Reads and records in a row after which timers and callers have a turn, however much a server sends.
const MAX_IN_A_ROW: usize = 64;

/// Is told everything the machine notices, with the time.
pub type Observer = Arc<dyn Fn(Instant, &Notice) + Send + Sync>;

/// A call before it has an xid.
pub(crate) struct Request {
    pub(crate) encode: Box<dyn FnOnce(u32) -> Record + Send>,
    pub(crate) idempotent: bool,
    pub(crate) reply: oneshot::Sender<Result<Bytes, CallFailure>>,
}

pub(crate) struct Driver {
    machine: Machine,
    dest: SocketAddr,
    requests: mpsc::Receiver<Request>,
    given_up: mpsc::Receiver<()>,
    waiting: HashMap<u32, oneshot::Sender<Result<Bytes, CallFailure>>>,
    connections: HashMap<ConnId, Connection>,
    /// `abandon=fin`: a FIN must free the port at once. Otherwise a FIN is the polite end of a connection not needed.
    forget_after_fin: bool,
    timer: Pin<Box<Sleep>>,
    /// Reads and records since timers and callers were last asked.
    in_a_row: usize,
    observer: Observer,
}

enum Wake {
    Request(Request),
    NoMoreRequests,
    GivenUp,
    Happening(ConnId, Happening),
    Timer,
}

impl Driver {
    pub(crate) fn new(
        machine: Machine,
        dest: SocketAddr,
        requests: mpsc::Receiver<Request>,
        given_up: mpsc::Receiver<()>,
        forget_after_fin: bool,
        observer: Observer,
    ) -> Self {
        Self {
            machine,
            dest,
            requests,
            given_up,
            observer,
            forget_after_fin,
            waiting: HashMap::new(),
            connections: HashMap::new(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            in_a_row: 0,
        }
    }

    /// Runs until every [`crate::Client`] is gone.
    pub(crate) async fn run(mut self) {
        self.machine.connect(now());
        loop {
            self.act();
            self.set_timer();
            match poll_fn(|cx| self.poll_wake(cx)).await {
                Wake::Request(request) => self.begin(request),
                Wake::NoMoreRequests => return,
                Wake::GivenUp => self.forget_given_up(),
                Wake::Happening(conn, happening) => self.feed(conn, happening),
                Wake::Timer => self.machine.handle_timeout(now()),
            }
        }
    }

    /// What has arrived comes first: it may show that a silence is none before its timer says so.
    fn poll_wake(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        let waits = self.in_a_row >= MAX_IN_A_ROW;
        if !waits && let Poll::Ready(wake) = self.poll_connections(cx) {
            return Poll::Ready(wake);
        }
        self.in_a_row = 0;
        if self.timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Wake::Timer);
        }
        match self.poll_callers(cx) {
            Poll::Pending if waits => self.poll_connections(cx),
            wake => wake,
        }
    }

    fn poll_connections(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        for (conn, connection) in &mut self.connections {
            if let Poll::Ready(happening) = connection.poll(cx) {
                return Poll::Ready(Wake::Happening(*conn, happening));
            }
        }
        Poll::Pending
    }

    fn poll_callers(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        if let Poll::Ready(Some(())) = self.given_up.poll_recv(cx) {
            return Poll::Ready(Wake::GivenUp);
        }
        // Beyond what the machine may hold, requests wait in their queue, and callers with them.
        if self.machine.outstanding() >= MAX_OUTSTANDING {
            return Poll::Pending;
        }
        self.requests.poll_recv(cx).map(|request| request.map_or(Wake::NoMoreRequests, Wake::Request))
    }

    fn begin(&mut self, request: Request) {
        if request.reply.is_closed() {
            return;
        }
        let xid = self.machine.next_xid();
        let record = (request.encode)(xid);
        self.waiting.insert(xid, request.reply);
        if let Err(error) = self.machine.call(now(), Call { xid, record, idempotent: request.idempotent }) {
            // Not reached while the queue is held back at the machine's limit.
            tracing::error!(xid, "call not accepted: {error}");
            self.waiting.remove(&xid);
        }
    }

    /// A call nobody waits for must not be sent again: its caller may have done something else since, which a late
    /// execution would undo.
    fn forget_given_up(&mut self) {
        let machine = &mut self.machine;
        self.waiting.extract_if(|_, reply| reply.is_closed()).for_each(|(xid, _)| machine.cancel(xid));
    }

    fn feed(&mut self, conn: ConnId, happening: Happening) {
        match happening {
            Happening::Connected { local_port } => self.event(Event::Connected { conn, local_port }),
            Happening::Received(records) => self.received(conn, records),
            Happening::Failed(error) => {
                self.connections.remove(&conn);
                self.event(Event::ConnectFailed { conn, error });
            }
            Happening::Closed(how) => {
                self.connections.remove(&conn);
                self.event(Event::Closed { conn, how });
            }
        }
    }

    fn received(&mut self, conn: ConnId, records: Vec<Bytes>) {
        self.in_a_row += 1 + records.len();
        if records.is_empty() {
            return self.event(Event::Progress { conn });
        }
        for reply in records {
            match peek_xid(&reply) {
                Some(xid) => self.event(Event::Received { conn, xid, reply }),
                None => {
                    self.connections.remove(&conn);
                    return self.event(Event::Closed { conn, how: CloseReason::Protocol });
                }
            }
        }
    }

    fn event(&mut self, event: Event) {
        self.machine.handle_event(now(), event);
    }

    fn set_timer(&mut self) {
        let next = self.machine.poll_timeout().unwrap_or_else(|| now() + NO_TIMER);
        self.timer.as_mut().reset(next.into());
    }

    /// Carries out everything the machine wants, until it wants nothing more.
    fn act(&mut self) {
        loop {
            while let Some(action) = self.machine.poll() {
                self.carry_out(action);
            }
            let Some(transmit) = self.machine.poll_transmit() else { return };
            if let Some(connection) = self.connections.get_mut(&transmit.conn) {
                connection.send(transmit.record.segments().iter().cloned());
            }
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Connect { conn, port, .. } => self.connect(conn, port),
            Action::QueryAck { conn } => self.query_ack(conn),
            Action::Drain { conn } => self.drain(conn),
            Action::Abandon { conn, how } => self.abandon(conn, how),
            Action::Completed { xid, reply } => self.finish(xid, Ok(reply)),
            Action::Failed { xid, error } => self.finish(xid, Err(error)),
            Action::Notice(notice) => self.tell(&notice),
        }
    }

    fn connect(&mut self, conn: ConnId, port: u16) {
        match Connection::open(port, self.dest) {
            Ok(connection) => drop(self.connections.insert(conn, connection)),
            Err(error) => self.event(Event::ConnectFailed { conn, error }),
        }
    }

    fn query_ack(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.get(&conn) {
            let ack = connection.ack_state();
            self.event(Event::AckState { conn, ack });
        }
    }

    fn drain(&mut self, conn: ConnId) {
        let records = self.connections.get_mut(&conn).map(Connection::drain).unwrap_or_default();
        if !records.is_empty() {
            self.received(conn, records);
        }
        self.event(Event::Drained { conn });
    }

    fn abandon(&mut self, conn: ConnId, how: Abandon) {
        let stream = self.connections.remove(&conn).and_then(Connection::into_stream);
        let left = stream.map_or(Ok(()), |stream| self.leave(stream, how));
        if let Err(error) = left {
            tracing::warn!(server = %self.dest, "the old connection was not closed as the option abandon says: {error}");
        }
    }

    fn leave(&self, stream: TcpStream, how: Abandon) -> io::Result<()> {
        match how {
            Abandon::Reset => net::reset(stream.into_std()?.into()),
            Abandon::Silent => net::drop_silently(&stream).map_err(io::Error::other),
            Abandon::Fin if self.forget_after_fin => {
                net::finish_and_forget(stream.into_std()?.into()).map_err(io::Error::other)
            }
            Abandon::Fin => Ok(()),
        }
    }

    fn finish(&mut self, xid: u32, outcome: Result<Bytes, CallFailure>) {
        if let Some(reply) = self.waiting.remove(&xid) {
            // The caller may have stopped waiting just now.
            drop(reply.send(outcome));
        }
    }

    fn tell(&mut self, notice: &Notice) {
        let server = self.dest;
        match notice {
            Notice::NotResponding => tracing::warn!(%server, "server not responding, still trying"),
            Notice::Ok => tracing::warn!(%server, "server OK"),
            other => tracing::info!(%server, "{other}"),
        }
        (self.observer)(now(), notice);
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
