//! The task that owns a reconnect machine and its sockets: it carries out the machine's actions and feeds it what happened.

use std::collections::HashMap;
use std::future::poll_fn;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use remoor_nfs::reconnect::{
    Abandon, Action, Call, CallFailure, CloseReason, Config, ConnId, Event, Machine, State, Transmit,
};
use remoor_rpc::call_table::MAX_OUTSTANDING;
use remoor_rpc::message::peek_xid;
use remoor_rpc::net;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Sleep;

use crate::connection::{Connection, Happening};
use crate::lane::{Request, Word};
use crate::report::Report;
use crate::stats::{Header, Stats};
use crate::target::Addresses;

/// How long the driver sleeps while the machine has no timer and nothing happens.
const NO_TIMER: Duration = Duration::from_secs(3600);

/// Reads and records in a row after which timers and callers have a turn, however much a server sends.
const MAX_IN_A_ROW: usize = 64;
/// Requests taken in a row, to be written together.
const MAX_BATCH: usize = 64;

pub(crate) struct Driver {
    machine: Machine,
    addresses: Arc<Addresses>,
    requests: mpsc::Receiver<Request>,
    words: mpsc::Receiver<Word>,
    waiting: HashMap<u32, oneshot::Sender<Result<Bytes, CallFailure>>, BuildHasherDefault<XidHasher>>,
    /// The one that carries calls, and the one that races it.
    connections: Vec<(ConnId, Connection)>,
    /// `abandon=fin`: a FIN must free the port at once. Otherwise a FIN is the polite end of a connection not needed.
    forget_after_fin: bool,
    timer: Pin<Box<Sleep>>,
    /// When `timer` fires: at or before the time the machine wants.
    armed: Instant,
    /// Reads and records since timers and callers were last asked.
    in_a_row: usize,
    stats: Arc<Stats>,
    /// The call sent last for the first time. Calls are first sent in the order of their xids.
    newest_sent: Option<u32>,
    report: Report,
}

/// What a driver is made of.
pub(crate) struct Parts {
    pub(crate) machine: Machine,
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) words: mpsc::Receiver<Word>,
    pub(crate) forget_after_fin: bool,
    pub(crate) stats: Arc<Stats>,
    pub(crate) report: Report,
}

enum Wake {
    Request(Request),
    NoMoreRequests,
    Word(Word),
    Happening(ConnId, Happening),
    Timer,
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            machine: parts.machine,
            addresses: parts.addresses,
            requests: parts.requests,
            words: parts.words,
            waiting: HashMap::default(),
            connections: Vec::new(),
            forget_after_fin: parts.forget_after_fin,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed: now(),
            in_a_row: 0,
            stats: parts.stats,
            newest_sent: None,
            report: parts.report,
        }
    }

    /// Runs until every [`crate::Client`] is gone.
    pub(crate) async fn run(mut self) {
        self.machine.connect(now());
        loop {
            self.act();
            self.set_timer();
            match poll_fn(|cx| self.poll_wake(cx)).await {
                Wake::Request(request) => self.begin_all(request),
                Wake::NoMoreRequests => return,
                Wake::Word(word) => self.take_word(word),
                Wake::Happening(conn, happening) => self.feed(conn, happening),
                Wake::Timer => self.fire(),
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
        if let Poll::Ready(Some(word)) = self.words.poll_recv(cx) {
            return Poll::Ready(Wake::Word(word));
        }
        // Beyond what the machine may hold, requests wait in their queue, and callers with them.
        if self.machine.outstanding() >= MAX_OUTSTANDING {
            return Poll::Pending;
        }
        self.requests.poll_recv(cx).map(|request| request.map_or(Wake::NoMoreRequests, Wake::Request))
    }

    /// Begins this call and those that wait behind it, so that one write takes them all.
    fn begin_all(&mut self, first: Request) {
        let now = now();
        self.begin(now, first);
        for _ in 1..MAX_BATCH {
            if self.machine.outstanding() >= MAX_OUTSTANDING {
                return;
            }
            let Ok(request) = self.requests.try_recv() else { return };
            self.begin(now, request);
        }
    }

    fn begin(&mut self, now: Instant, request: Request) {
        if request.reply.is_closed() {
            return;
        }
        let xid = self.machine.next_xid();
        let record = (request.encode)(xid);
        self.waiting.insert(xid, request.reply);
        if let Err(error) = self.machine.call(now, Call { xid, record, idempotent: request.idempotent }) {
            // Not reached while the queue is held back at the machine's limit.
            tracing::error!(xid, "call not accepted: {error}");
            self.waiting.remove(&xid);
        }
    }

    /// Whatever the word is, some caller may have found no room to say that it is gone.
    fn take_word(&mut self, word: Word) {
        self.forget_given_up();
        if let Word::Reconfigure(config) = word {
            self.reconfigure(&config);
        }
    }

    fn reconfigure(&mut self, config: &Config) {
        if let Err(error) = self.machine.reconfigure(now(), config) {
            // Not reached: the client has checked them.
            tracing::error!("timeouts are not changed: {error}");
        }
    }

    /// A call nobody waits for must not be sent again: its caller may have done something else since, which a late
    /// execution would undo.
    fn forget_given_up(&mut self) {
        let machine = &mut self.machine;
        self.waiting.extract_if(|_, reply| reply.is_closed()).for_each(|(xid, _)| machine.cancel(xid));
    }

    fn fire(&mut self) {
        self.machine.handle_timeout(now());
        self.report.mark();
    }

    fn feed(&mut self, conn: ConnId, happening: Happening) {
        match happening {
            Happening::Connected { local_port } => self.change(Event::Connected { conn, local_port }),
            Happening::Received(records) => self.received(conn, records),
            Happening::Failed(error) => {
                drop(self.take_connection(conn));
                self.change(Event::ConnectFailed { conn, error });
            }
            Happening::Closed(how) => {
                drop(self.take_connection(conn));
                self.change(Event::Closed { conn, how });
            }
        }
    }

    fn received(&mut self, conn: ConnId, records: Vec<Bytes>) {
        self.in_a_row += 1 + records.len();
        let now = now();
        if records.is_empty() {
            return self.machine.handle_event(now, Event::Progress { conn });
        }
        for reply in records {
            let Some(xid) = peek_xid(&reply) else {
                drop(self.take_connection(conn));
                return self.change(Event::Closed { conn, how: CloseReason::Protocol });
            };
            self.machine.handle_event(now, Event::Received { conn, xid, reply });
        }
    }

    /// An event that changes where the connection stands.
    fn change(&mut self, event: Event) {
        self.report.mark();
        self.machine.handle_event(now(), event);
    }

    /// A timer that fires too early costs less than one that is set anew for each call: the machine's own timer moves on
    /// with each reply.
    fn set_timer(&mut self) {
        let next = self.machine.poll_timeout().unwrap_or_else(|| now() + NO_TIMER);
        if next < self.armed || self.timer.is_elapsed() {
            self.armed = next;
            self.timer.as_mut().reset(next.into());
        }
    }

    /// Carries out everything the machine wants, until it wants nothing more.
    fn act(&mut self) {
        loop {
            while let Some(action) = self.machine.poll() {
                self.carry_out(action);
            }
            let Some(transmit) = self.machine.poll_transmit() else { break };
            self.transmit(&transmit);
        }
        self.publish();
    }

    fn transmit(&mut self, transmit: &Transmit) {
        let again = self.is_sent_again(transmit);
        self.stats.sent(&transmit.record, again);
        if let Some(connection) = connection(&mut self.connections, transmit.conn) {
            connection.send(transmit.record.segments());
        }
    }

    /// The machine's own NULL overtakes calls that wait, so NULL tells nothing of their order.
    fn is_sent_again(&mut self, transmit: &Transmit) -> bool {
        let header = Header::of(&transmit.record).filter(|header| header.procedure != 0);
        let Some(Header { xid, .. }) = header else { return false };
        let first = self.newest_sent.is_none_or(|newest| xid.wrapping_sub(newest).cast_signed() > 0);
        if first {
            self.newest_sent = Some(xid);
        }
        !first
    }

    fn carry_out(&mut self, action: Action) {
        if let Action::Completed { xid, reply } = action {
            self.report.call_answered();
            return self.finish(xid, Ok(reply));
        }
        self.report.mark();
        match action {
            Action::Connect { conn, port, attempt } => self.connect(conn, port, attempt),
            Action::QueryAck { conn } => self.query_ack(conn),
            Action::Drain { conn } => self.drain(conn),
            Action::Abandon { conn, how } => self.abandon(conn, how),
            Action::Failed { xid, error } => {
                self.report.call_failed(error);
                self.finish(xid, Err(error));
            }
            Action::Notice(notice) => {
                let carrying = self.machine.conn().and_then(|conn| connection(&mut self.connections, conn));
                self.report.tell(now(), &notice, carrying.as_deref().map(Connection::origin));
            }
            Action::Completed { .. } => {}
        }
    }

    fn connect(&mut self, conn: ConnId, port: u16, attempt: u32) {
        let dest = self.addresses.choose(attempt);
        self.report.trying(dest);
        match Connection::open(port, dest, attempt) {
            Ok(connection) => self.connections.push((conn, connection)),
            Err(error) => self.change(Event::ConnectFailed { conn, error }),
        }
    }

    fn query_ack(&mut self, conn: ConnId) {
        if let Some(connection) = connection(&mut self.connections, conn) {
            let ack = connection.ack_state();
            self.machine.handle_event(now(), Event::AckState { conn, ack });
        }
    }

    fn drain(&mut self, conn: ConnId) {
        let records = connection(&mut self.connections, conn).map(Connection::drain).unwrap_or_default();
        if !records.is_empty() {
            self.received(conn, records);
        }
        self.change(Event::Drained { conn });
    }

    fn abandon(&mut self, conn: ConnId, how: Abandon) {
        let Some(connection) = self.take_connection(conn) else { return };
        let address = connection.origin().address;
        let left = connection.into_stream().map_or(Ok(()), |stream| self.leave(stream, how));
        if let Err(error) = left {
            let server = self.addresses.name();
            tracing::warn!(
                server,
                %address,
                "the old connection was not closed as the option abandon says: {error}"
            );
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

    fn take_connection(&mut self, conn: ConnId) -> Option<Connection> {
        let at = self.connections.iter().position(|(known, _)| *known == conn)?;
        Some(self.connections.swap_remove(at).1)
    }

    fn finish(&mut self, xid: u32, outcome: Result<Bytes, CallFailure>) {
        if let Some(reply) = self.waiting.remove(&xid) {
            // The caller may have stopped waiting just now.
            drop(reply.send(outcome));
        }
    }

    fn publish(&mut self) {
        let connected = matches!(self.machine.state(), State::Ready | State::Suspect);
        self.report.publish(connected, &self.machine);
    }
}

fn connection(connections: &mut [(ConnId, Connection)], conn: ConnId) -> Option<&mut Connection> {
    connections.iter_mut().find(|(known, _)| *known == conn).map(|(_, connection)| connection)
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Spreads xids, which follow each other, by Fibonacci hashing. They are the client's own: nobody can choose them to
/// collide.
#[derive(Default)]
struct XidHasher(u64);

impl Hasher for XidHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(self.0 as u32 ^ u32::from(*byte)));
    }

    fn write_u32(&mut self, xid: u32) {
        self.0 = u64::from(xid).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
