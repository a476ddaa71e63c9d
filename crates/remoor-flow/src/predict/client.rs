//! The client host: its kernel, the writers, and the logic that decides which connection carries their calls.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::RngExt;
use remoor_nfs::reconnect::{
    Abandon, Action, Call, CloseReason, ConnId, ConnectError, Event, Machine, Notice, Transmit,
};
use remoor_rpc::call_table::InsertError;
use remoor_rpc::message::{ReplyStatus, encode_reply, peek_xid};
use remoor_rpc::record::Record;

use super::node::refusal;
use super::tcp::{Io, Message, Packet, Signal, Socket, Tcp};
use super::world::{self, Context, Sender};
use super::{Answer, AnswerKind, Attempt};
use crate::packet::{Direction, FiveTuple, TcpFlags};

/// The client's address (RFC 5737).
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The balancer's address.
const SERVICE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 100)), 2049);
/// What calls carry; only its length matters.
const ZEROES: &[u8] = &[0; CALL_LEN_MAX as usize];
/// Octets of a call at most; the balancer does not look at them.
const CALL_LEN_MAX: u32 = 64 << 10;
/// Least pause of a writer: virtual time must move, and more calls tell no more of a failover.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// How long a socket keeps its port after its FIN at most. An orphan of Linux can hold it for about 100 s
/// (`net.ipv4.tcp_orphan_retries`), but then the machine takes another port.
const FIN_LINGER: Duration = Duration::from_millis(450);

/// What decides for a client: when to connect, from where, and on which connection calls go.
///
/// [`Machine`] is remoor's; [`super::linux_client`] has that of Linux. Both speak the events and actions of
/// [`remoor_nfs::reconnect`].
pub(super) trait Logic {
    fn connect(&mut self, now: Instant);
    fn next_xid(&mut self) -> u32;
    fn call(&mut self, now: Instant, call: Call) -> Result<(), InsertError>;
    fn handle_event(&mut self, now: Instant, event: Event);
    fn handle_timeout(&mut self, now: Instant);
    fn poll_timeout(&self) -> Option<Instant>;
    fn poll_transmit(&mut self) -> Option<Transmit>;
    fn poll(&mut self) -> Option<Action>;
}

impl Logic for Machine {
    fn connect(&mut self, now: Instant) {
        self.connect(now);
    }

    fn next_xid(&mut self) -> u32 {
        self.next_xid()
    }

    fn call(&mut self, now: Instant, call: Call) -> Result<(), InsertError> {
        self.call(now, call)
    }

    fn handle_event(&mut self, now: Instant, event: Event) {
        self.handle_event(now, event);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.poll_timeout()
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.poll_transmit()
    }

    fn poll(&mut self) -> Option<Action> {
        self.poll()
    }
}

/// The kernel's end of one attempt.
#[derive(Debug)]
struct Endpoint {
    port: u16,
    /// `None` while an earlier socket still has the port.
    socket: Option<Socket>,
    established: bool,
    /// The logic has abandoned it; it is there only until its FIN is settled.
    lingers: bool,
    /// The driver drops it then.
    drop_at: Option<Instant>,
    armed: Option<Instant>,
}

pub(super) struct Client<L> {
    logic: L,
    tcp: Tcp,
    tcp_repair: bool,
    /// `abandon=fin`, by TCP_REPAIR: a FIN must free the port at once.
    forget_after_fin: bool,
    round_trip: Duration,
    start: Instant,
    call_every: Duration,
    call_body: Bytes,
    endpoints: BTreeMap<ConnId, Endpoint>,
    /// In order.
    pub(super) attempts: Vec<Attempt>,
    /// SYNs after the first: when, since the start, and the index of the attempt.
    pub(super) repeated_syns: Vec<(Duration, usize)>,
    by_conn: BTreeMap<ConnId, usize>,
    /// By port and initial sequence number.
    by_syn: BTreeMap<(u16, u32), usize>,
    pub(super) notices: Vec<(Instant, Notice)>,
    /// When the replies that writers got since the world last asked were sent.
    pub(super) replies: Vec<Instant>,
    writers: BTreeMap<u32, u32>,
    /// When the reply that is being fed to the logic was sent.
    arriving: Option<Instant>,
    armed: Option<Instant>,
}

impl<L: Logic> Client<L> {
    pub(super) fn new(logic: L, scenario: &super::Scenario) -> Self {
        Self {
            logic,
            tcp: scenario.tcp,
            tcp_repair: scenario.tcp_repair,
            forget_after_fin: scenario.tcp_repair && scenario.client.abandon == Abandon::Fin,
            round_trip: scenario.round_trip,
            start: scenario.start,
            call_every: scenario.call_every.max(PAUSE_MIN),
            call_body: Bytes::from_static(&ZEROES[..scenario.call_len.min(CALL_LEN_MAX) as usize]),
            endpoints: BTreeMap::new(),
            attempts: Vec::new(),
            repeated_syns: Vec::new(),
            by_conn: BTreeMap::new(),
            by_syn: BTreeMap::new(),
            notices: Vec::new(),
            replies: Vec::new(),
            writers: BTreeMap::new(),
            arriving: None,
            armed: None,
        }
    }

    pub(super) fn connect(&mut self, cx: &mut Context<'_>) {
        self.logic.connect(cx.now);
        self.obey(cx);
    }

    /// A writer makes its next call.
    pub(super) fn call(&mut self, writer: u32, cx: &mut Context<'_>) {
        let xid = self.logic.next_xid();
        let record = Record::new(vec![Bytes::copy_from_slice(&xid.to_be_bytes()), self.call_body.clone()]);
        if self.logic.call(cx.now, Call { xid, record, idempotent: false }).is_ok() {
            self.writers.insert(xid, writer);
        }
        self.obey(cx);
    }

    /// The timer of the logic may be due.
    pub(super) fn wake(&mut self, cx: &mut Context<'_>) {
        self.armed = None;
        if self.logic.poll_timeout().is_some_and(|at| at <= cx.now) {
            self.logic.handle_timeout(cx.now);
        }
        self.obey(cx);
    }

    /// The timer of an attempt's socket may be due.
    pub(super) fn handle_timeout(&mut self, conn: ConnId, cx: &mut Context<'_>) {
        let Some(endpoint) = self.endpoints.get_mut(&conn) else { return };
        if endpoint.drop_at.is_some_and(|at| at <= cx.now) {
            self.remove(conn, cx);
            return self.obey(cx);
        }
        let mut io = Io::default();
        endpoint.armed = None;
        if let Some(socket) = &mut endpoint.socket
            && socket.deadline().is_some_and(|at| at <= cx.now)
        {
            socket.handle_timeout(cx.now, &mut io);
        }
        self.note_repeated_syn(conn, &io, cx.now);
        self.carry_out(conn, io, cx);
        self.obey(cx);
    }

    /// A segment has come in.
    pub(super) fn receive(&mut self, by: Sender, packet: &Packet, cx: &mut Context<'_>) {
        let port = packet.segment.flow.client.port();
        let owner = self.endpoints.iter_mut().find(|(_, e)| e.port == port && e.socket.is_some());
        let Some((&conn, endpoint)) = owner else {
            if let Some(answer) = refusal(&packet.segment) {
                cx.send(Direction::FromClient, answer);
            }
            return;
        };
        let mut io = Io::default();
        if let Some(socket) = &mut endpoint.socket {
            let asked = socket.is_connecting();
            socket.receive(packet, cx.now, &mut io);
            if asked {
                self.note_answer(conn, by, packet, cx.now);
            }
        }
        self.carry_out(conn, io, cx);
        self.obey(cx);
    }

    /// Does what the logic wants until it wants nothing.
    fn obey(&mut self, cx: &mut Context<'_>) {
        loop {
            if let Some(action) = self.logic.poll() {
                self.act(action, cx);
            } else if let Some(transmit) = self.logic.poll_transmit() {
                self.transmit(&transmit, cx);
            } else {
                break;
            }
        }
        let due = self.logic.poll_timeout();
        if let Some(at) = due
            && self.armed.is_none_or(|armed| at < armed)
        {
            self.armed = Some(at);
            cx.queue.push(at.max(cx.now), world::Event::ClientWake);
        }
    }

    fn act(&mut self, action: Action, cx: &mut Context<'_>) {
        match action {
            Action::Connect { conn, port, .. } => self.open(conn, port, cx),
            Action::QueryAck { conn } => {
                let socket = self.endpoints.get(&conn).and_then(|endpoint| endpoint.socket.as_ref());
                let ack = socket.map(|socket| socket.ack_state(cx.now)).unwrap_or_default();
                self.logic.handle_event(cx.now, Event::AckState { conn, ack });
            }
            // Records are fed as they arrive: nothing is ever left to read.
            Action::Drain { conn } => self.logic.handle_event(cx.now, Event::Drained { conn }),
            Action::Abandon { conn, how } => self.abandon(conn, how, cx),
            Action::Completed { xid, .. } => self.completed(xid, cx),
            Action::Failed { xid, .. } => self.rest(xid, cx),
            Action::Notice(notice) => self.notices.push((cx.now, notice)),
        }
    }

    fn open(&mut self, conn: ConnId, port: u16, cx: &mut Context<'_>) {
        let held = self.endpoints.values().any(|endpoint| endpoint.port == port);
        let endpoint =
            Endpoint { port, socket: None, established: false, lingers: false, drop_at: None, armed: None };
        self.endpoints.insert(conn, endpoint);
        if !held {
            self.send_syn(conn, cx);
        }
    }

    fn send_syn(&mut self, conn: ConnId, cx: &mut Context<'_>) {
        let Some(endpoint) = self.endpoints.get_mut(&conn) else { return };
        let (mut io, isn, port) = (Io::default(), cx.rng.random(), endpoint.port);
        let flow = FiveTuple { client: (CLIENT, port).into(), service: SERVICE };
        endpoint.socket = Some(Socket::connect(flow, isn, self.tcp, self.round_trip, cx.now, &mut io));
        let at = cx.now.saturating_duration_since(self.start);
        self.by_conn.insert(conn, self.attempts.len());
        self.by_syn.insert((port, isn), self.attempts.len());
        self.attempts.push(Attempt::new(at, port, isn));
        self.carry_out(conn, io, cx);
    }

    fn abandon(&mut self, conn: ConnId, how: Abandon, cx: &mut Context<'_>) {
        let Some(endpoint) = self.endpoints.get_mut(&conn) else { return };
        let mut io = Io::default();
        match (&mut endpoint.socket, how) {
            (Some(socket), Abandon::Fin) if self.forget_after_fin => {
                socket.finish_and_forget(&mut io);
                self.carry_out(conn, io, cx);
                self.remove(conn, cx);
            }
            (Some(_), Abandon::Fin) => self.close(conn, cx),
            (Some(socket), Abandon::Reset) => {
                socket.reset(self.tcp_repair, &mut io);
                self.carry_out(conn, io, cx);
                self.remove(conn, cx);
            }
            (Some(_), Abandon::Silent) | (None, _) => self.remove(conn, cx),
        }
    }

    /// An ordinary close(2).
    fn close(&mut self, conn: ConnId, cx: &mut Context<'_>) {
        let mut io = Io::default();
        if let Some(socket) = self.endpoints.get_mut(&conn).and_then(|endpoint| endpoint.socket.as_mut()) {
            socket.close(cx.now, &mut io);
            self.linger(conn, cx);
            self.carry_out(conn, io, cx);
        }
    }

    fn linger(&mut self, conn: ConnId, cx: &mut Context<'_>) {
        if let Some(endpoint) = self.endpoints.get_mut(&conn) {
            let at = cx.now + FIN_LINGER;
            endpoint.lingers = true;
            endpoint.drop_at = Some(at);
            cx.queue.push(at, world::Event::ClientTimer { conn });
        }
    }

    /// The kernel has forgotten the socket; whoever waits for its port gets it.
    fn remove(&mut self, conn: ConnId, cx: &mut Context<'_>) {
        let Some(gone) = self.endpoints.remove(&conn) else { return };
        if self.endpoints.values().any(|other| other.port == gone.port && other.socket.is_some()) {
            return;
        }
        let waiting = self.endpoints.iter().find(|(_, other)| other.port == gone.port);
        if let Some((&next, _)) = waiting {
            self.send_syn(next, cx);
        }
    }

    fn transmit(&mut self, transmit: &Transmit, cx: &mut Context<'_>) {
        let Some(endpoint) = self.endpoints.get_mut(&transmit.conn) else { return };
        let Some(socket) = &mut endpoint.socket else { return };
        let xid = transmit.record.segments().get(1).and_then(|bytes| peek_xid(bytes)).unwrap_or_default();
        let mut io = Io::default();
        let len = u32::try_from(transmit.record.len()).unwrap_or(u32::MAX);
        socket.send(Message { xid, len, born: cx.now }, cx.now, &mut io);
        self.carry_out(transmit.conn, io, cx);
    }

    fn carry_out(&mut self, conn: ConnId, io: Io, cx: &mut Context<'_>) {
        for packet in io.packets {
            cx.send(Direction::FromClient, packet);
        }
        for signal in io.signals {
            self.take(conn, signal, cx);
        }
        let Some(endpoint) = self.endpoints.get_mut(&conn) else { return };
        let Some(socket) = &endpoint.socket else { return };
        if socket.is_closed() {
            self.remove(conn, cx);
        } else if endpoint.armed != socket.deadline() {
            endpoint.armed = socket.deadline();
            if let Some(at) = endpoint.armed {
                cx.queue.push(at, world::Event::ClientTimer { conn });
            }
        }
    }

    fn take(&mut self, conn: ConnId, signal: Signal, cx: &mut Context<'_>) {
        let Some(endpoint) = self.endpoints.get_mut(&conn) else { return };
        if endpoint.lingers {
            return;
        }
        endpoint.established |= signal == Signal::Connected;
        let (port, established) = (endpoint.port, endpoint.established);
        let event = match signal {
            Signal::Connected => Event::Connected { conn, local_port: port },
            Signal::Refused => Event::ConnectFailed { conn, error: ConnectError::Refused },
            Signal::TimedOut if established => Event::Closed { conn, how: CloseReason::TimedOut },
            Signal::TimedOut => Event::ConnectFailed { conn, error: ConnectError::TimedOut },
            Signal::Reset => Event::Closed { conn, how: CloseReason::Reset },
            Signal::Finished => {
                self.close(conn, cx);
                Event::Closed { conn, how: CloseReason::Fin }
            }
            Signal::Received(message) => self.received(conn, message),
        };
        self.logic.handle_event(cx.now, event);
        while let Some(action) = self.logic.poll() {
            self.act(action, cx);
        }
        self.arriving = None;
    }

    fn received(&mut self, conn: ConnId, message: Message) -> Event {
        self.arriving = Some(message.born);
        if let Some(attempt) = self.attempt_mut(conn) {
            attempt.served = true;
        }
        let reply = encode_reply(message.xid, &ReplyStatus::Success, &()).message();
        Event::Received { conn, xid: message.xid, reply }
    }

    fn completed(&mut self, xid: u32, cx: &mut Context<'_>) {
        self.replies.extend(self.arriving);
        self.rest(xid, cx);
    }

    /// A writer has its result and pauses before its next call.
    fn rest(&mut self, xid: u32, cx: &mut Context<'_>) {
        if let Some(writer) = self.writers.remove(&xid) {
            cx.after(self.call_every, world::Event::NextCall { writer });
        }
    }

    fn attempt_mut(&mut self, conn: ConnId) -> Option<&mut Attempt> {
        self.attempts.get_mut(*self.by_conn.get(&conn)?)
    }

    fn note_repeated_syn(&mut self, conn: ConnId, io: &Io, now: Instant) {
        let is_syn = io.packets.iter().any(|packet| packet.segment.flags.is_lone_syn());
        let Some(&index) = self.by_conn.get(&conn).filter(|_| is_syn) else { return };
        self.attempts[index].retransmissions += 1;
        self.repeated_syns.push((now.saturating_duration_since(self.start), index));
    }

    fn note_answer(&mut self, conn: ConnId, by: Sender, packet: &Packet, now: Instant) {
        let kind = match packet.segment.flags {
            flags if flags.contains(TcpFlags::RST) => AnswerKind::Reset,
            flags if flags.contains(TcpFlags::SYN) => AnswerKind::SynAck,
            _ => AnswerKind::ChallengeAck,
        };
        let at = now.saturating_duration_since(self.start);
        if let Some(attempt) = self.attempt_mut(conn) {
            attempt.answer = Some(Answer { by, kind });
            attempt.answered_at = Some(at);
        }
    }

    /// A SYN of the client went to a backend.
    pub(super) fn note_passage(&mut self, port: u16, isn: u32, backend: crate::BackendId) {
        let index = self.by_syn.get(&(port, isn));
        if let Some(attempt) = index.and_then(|index| self.attempts.get_mut(*index)) {
            attempt.first_reached.get_or_insert(backend);
            attempt.reached = Some(backend);
        }
    }
}
