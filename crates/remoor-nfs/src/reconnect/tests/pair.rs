//! A machine, its driver, a balancer with a flow table and two server nodes in virtual time. One seed is one run.
//!
//! Each connection is an ordered byte stream per direction: loss shows as delay and retransmission, as TCP shows it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use remoor_rpc::message::{ReplyStatus, encode_reply, peek_xid};
use remoor_rpc::record::Record;

use super::super::*;
use super::epoch;

/// Length of a NULL call without its record mark: six words and two empty AUTH_NONE.
const NULL_LEN: usize = 40;
/// First retransmission timeout of a kernel (`TCP_RTO_MIN`), and of a SYN.
const RTO: Duration = Duration::from_millis(200);
const SYN_RTO: Duration = Duration::from_secs(1);

/// What a node does with what arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Alive,
    /// No packet comes back.
    Silent,
    /// The kernel acknowledges, nobody answers.
    Stuck,
    /// No listener: RST.
    Refusing,
}

/// How the network behaves.
#[derive(Debug, Clone)]
pub(super) struct Net {
    pub(super) delay: Duration,
    pub(super) jitter: Duration,
    /// Of 100 segments, those that are retransmitted.
    pub(super) loss_percent: u32,
    /// How long a reply lies in the client's socket before the driver reads it.
    pub(super) driver_lag: Duration,
    /// Time a server needs for a call other than NULL.
    pub(super) service: Duration,
    /// Whether a server takes one call at a time per connection, NULL included.
    pub(super) serial: bool,
}

impl Default for Net {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            delay: ms(1),
            jitter: ms(0),
            loss_percent: 0,
            driver_lag: ms(0),
            service: ms(1),
            serial: false,
        }
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Arrival {
    Syn(ConnId, u32),
    SynAck(ConnId),
    Rst(ConnId),
    ToServer(ConnId),
    Ack(ConnId),
    Serve(ConnId, Vec<u8>),
    ToClient(ConnId),
    Read(ConnId),
}

/// One connection, at both ends and between.
struct Pipe {
    port: u16,
    node: usize,
    established: bool,
    to_server: VecDeque<Bytes>,
    to_client: VecDeque<Bytes>,
    inbox: VecDeque<Bytes>,
    in_flight: usize,
    last_ack: Instant,
    retransmits: u32,
    last_to_client: Instant,
    last_to_server: Instant,
    busy_until: Instant,
}

pub(super) struct Attempt {
    pub(super) at: Instant,
    pub(super) port: u16,
}

pub(super) struct Pair {
    pub(super) machine: Machine,
    pub(super) now: Instant,
    pub(super) net: Net,
    pub(super) nodes: [Node; 2],
    /// Where the balancer sends new flows.
    pub(super) active: usize,
    /// Ports another program holds.
    pub(super) held: BTreeSet<u16>,
    pub(super) attempts: Vec<Attempt>,
    pub(super) notices: Vec<(Instant, Notice)>,
    pub(super) replies: BTreeMap<u32, Instant>,
    pub(super) failures: BTreeMap<u32, CallFailure>,
    /// Calls each node executed, in order.
    pub(super) executed: [Vec<u32>; 2],
    pub(super) abandoned: Vec<(ConnId, Abandon)>,
    pub(super) sent: Vec<(ConnId, Record)>,
    rng: StdRng,
    flows: BTreeMap<u16, usize>,
    pipes: BTreeMap<ConnId, Pipe>,
    arrivals: BinaryHeap<Reverse<(Instant, u64, Arrival)>>,
    next_arrival: u64,
    events: VecDeque<Event>,
}

impl Pair {
    pub(super) fn new(config: Config, seed: u64) -> Self {
        let now = epoch();
        Self {
            machine: Machine::new(config, seed, &[]).unwrap(),
            now,
            net: Net::default(),
            nodes: [Node::Alive; 2],
            active: 0,
            held: BTreeSet::new(),
            attempts: Vec::new(),
            notices: Vec::new(),
            replies: BTreeMap::new(),
            failures: BTreeMap::new(),
            executed: [Vec::new(), Vec::new()],
            abandoned: Vec::new(),
            sent: Vec::new(),
            rng: StdRng::seed_from_u64(!seed),
            flows: BTreeMap::new(),
            pipes: BTreeMap::new(),
            arrivals: BinaryHeap::new(),
            next_arrival: 0,
            events: VecDeque::new(),
        }
    }

    /// A pair whose connection is up.
    pub(super) fn connected(config: Config, seed: u64) -> Self {
        let mut pair = Self::new(config, seed);
        pair.connect();
        pair.run_for(Duration::from_secs(1));
        assert_eq!(pair.machine.state(), State::Ready);
        pair
    }

    pub(super) fn connect(&mut self) {
        self.machine.connect(self.now);
        self.drive();
    }

    pub(super) fn call(&mut self, idempotent: bool) -> u32 {
        let xid = self.machine.next_xid();
        let record = test_record(xid);
        self.machine.call(self.now, Call { xid, record, idempotent }).unwrap();
        self.drive();
        xid
    }

    /// The new flows go to the other node and this one does `fault` from now on.
    pub(super) fn fail_over(&mut self, fault: Node) {
        self.set_node(self.active, fault);
        self.active = 1 - self.active;
    }

    /// A process that dies resets its connections.
    pub(super) fn set_node(&mut self, node: usize, state: Node) {
        self.nodes[node] = state;
        if state == Node::Refusing {
            self.reset_connections(node);
        }
    }

    pub(super) fn reset_connections(&mut self, node: usize) {
        let conns: Vec<_> =
            self.pipes.iter().filter(|(_, pipe)| pipe.node == node).map(|(conn, _)| *conn).collect();
        for conn in conns {
            self.flows.remove(&self.pipes[&conn].port);
            self.send_later(self.net.delay, Arrival::Rst(conn));
        }
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until no call is outstanding. Fails after `limit`.
    pub(super) fn run_until_answered(&mut self, limit: Duration) -> Duration {
        let start = self.now;
        while self.machine.outstanding() > 0 {
            let (state, counters) = (self.machine.state(), self.machine.counters());
            assert!(self.step(start + limit), "calls outstanding after {limit:?}: {state:?}, {counters:?}");
        }
        self.now - start
    }

    /// What the machine said, without times.
    pub(super) fn notices(&self) -> Vec<Notice> {
        self.notices.iter().map(|(_, notice)| notice.clone()).collect()
    }

    pub(super) fn last_move(&self) -> (MoveReason, u16, u16) {
        let moved = |notice: &Notice| match notice {
            Notice::Moved { reason, from_port, to_port, .. } => Some((*reason, *from_port, *to_port)),
            _ => None,
        };
        self.notices.iter().rev().find_map(|(_, notice)| moved(notice)).expect("no move")
    }

    pub(super) fn attempted_ports(&self) -> Vec<u16> {
        self.attempts.iter().map(|attempt| attempt.port).collect()
    }

    /// Handles whatever comes next before `end`.
    fn step(&mut self, end: Instant) -> bool {
        let arrival = self.arrivals.peek().map(|Reverse((at, ..))| *at);
        let timeout = self.machine.poll_timeout();
        let Some(next) = [arrival, timeout].into_iter().flatten().min().filter(|at| *at <= end) else {
            return false;
        };
        assert!(next >= self.now, "time runs forward");
        self.now = next;
        if timeout == Some(next) {
            self.machine.handle_timeout(next);
            let following = self.machine.poll_timeout();
            assert!(following.is_none_or(|at| at > next), "a timeout is left in the past");
        } else if let Some(Reverse((_, _, arrival))) = self.arrivals.pop() {
            self.arrive(arrival);
        }
        self.drive();
        true
    }

    /// The driver: everything the machine wants, in order, until it wants nothing.
    fn drive(&mut self) {
        loop {
            while let Some(action) = self.machine.poll() {
                self.act(action);
            }
            while let Some(transmit) = self.machine.poll_transmit() {
                self.transmit(transmit);
            }
            let Some(event) = self.events.pop_front() else { return };
            self.machine.handle_event(self.now, event);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Connect { conn, port, .. } => self.start_syn(conn, port),
            Action::QueryAck { conn } => {
                if let Some(ack) = self.ack_state(conn) {
                    self.events.push_back(Event::AckState { conn, ack });
                }
            }
            Action::Drain { conn } => {
                self.read(conn);
                self.events.push_back(Event::Drained { conn });
            }
            Action::Abandon { conn, how } => self.abandon(conn, how),
            Action::Completed { xid, reply } => {
                assert_eq!(peek_xid(&reply), Some(xid));
                assert_eq!(self.replies.insert(xid, self.now), None, "{xid} was delivered twice");
            }
            Action::Failed { xid, error } => {
                assert_eq!(self.failures.insert(xid, error), None, "{xid} failed twice");
            }
            Action::Notice(notice) => self.notices.push((self.now, notice)),
        }
    }

    fn start_syn(&mut self, conn: ConnId, port: u16) {
        assert!(
            self.pipes.values().all(|pipe| pipe.port != port),
            "port {port} is still held by an open socket"
        );
        if self.held.contains(&port) {
            self.events.push_back(Event::ConnectFailed { conn, error: ConnectError::PortInUse });
            return;
        }
        self.attempts.push(Attempt { at: self.now, port });
        let node = *self.flows.entry(port).or_insert(self.active);
        let pipe = Pipe {
            port,
            node,
            established: false,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            inbox: VecDeque::new(),
            in_flight: 0,
            last_ack: self.now,
            retransmits: 0,
            last_to_client: self.now,
            last_to_server: self.now,
            busy_until: self.now,
        };
        self.pipes.insert(conn, pipe);
        let delay = self.delay();
        self.send_later(delay, Arrival::Syn(conn, 0));
    }

    fn abandon(&mut self, conn: ConnId, how: Abandon) {
        self.abandoned.push((conn, how));
        self.events.retain(|event| !matches!(event, Event::AckState { conn: of, .. } if *of == conn));
        let Some(pipe) = self.pipes.remove(&conn) else { return };
        if how != Abandon::Silent {
            self.flows.remove(&pipe.port);
        }
    }

    fn transmit(&mut self, Transmit { conn, record }: Transmit) {
        let delay = self.delay();
        let pipe = self.pipes.get_mut(&conn).expect("a record for a connection that is not open");
        assert!(pipe.established, "a record before the connection is established");
        if pipe.in_flight == 0 {
            pipe.last_ack = self.now;
        }
        pipe.in_flight += 1;
        pipe.to_server.push_back(record.message());
        let at = pipe.last_to_server.max(self.now + delay);
        pipe.last_to_server = at;
        self.sent.push((conn, record));
        self.send_at(at, Arrival::ToServer(conn));
    }

    fn ack_state(&self, conn: ConnId) -> Option<AckState> {
        let pipe = self.pipes.get(&conn)?;
        let unacked_for = (pipe.in_flight > 0).then(|| self.now - pipe.last_ack);
        Some(AckState { unacked_for, retransmits: if pipe.in_flight > 0 { pipe.retransmits } else { 0 } })
    }

    fn arrive(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Syn(conn, tries) => self.syn(conn, tries),
            Arrival::SynAck(conn) => self.syn_ack(conn),
            Arrival::Rst(conn) => self.rst(conn),
            Arrival::ToServer(conn) => self.at_server(conn),
            Arrival::Ack(conn) => self.acked(conn),
            Arrival::Serve(conn, message) => self.serve(conn, &message),
            Arrival::ToClient(conn) => self.at_client(conn),
            Arrival::Read(conn) => self.read(conn),
        }
    }

    fn syn(&mut self, conn: ConnId, tries: u32) {
        let Some(pipe) = self.pipes.get(&conn) else { return };
        match self.nodes[pipe.node] {
            Node::Silent => self.send_later(SYN_RTO * (1 << tries.min(5)), Arrival::Syn(conn, tries + 1)),
            Node::Alive | Node::Stuck => self.send_later(self.net.delay, Arrival::SynAck(conn)),
            Node::Refusing => {
                self.flows.remove(&pipe.port);
                self.send_later(self.net.delay, Arrival::Rst(conn));
            }
        }
    }

    fn syn_ack(&mut self, conn: ConnId) {
        let Some(pipe) = self.pipes.get_mut(&conn) else { return };
        pipe.established = true;
        let local_port = pipe.port;
        self.events.push_back(Event::Connected { conn, local_port });
    }

    fn rst(&mut self, conn: ConnId) {
        let Some(pipe) = self.pipes.remove(&conn) else { return };
        let event = if pipe.established {
            Event::Closed { conn, how: CloseReason::Reset }
        } else {
            Event::ConnectFailed { conn, error: ConnectError::Refused }
        };
        self.events.push_back(event);
    }

    fn at_server(&mut self, conn: ConnId) {
        let (net, now) = (self.net.clone(), self.now);
        let Some(pipe) = self.pipes.get_mut(&conn) else { return };
        match self.nodes[pipe.node] {
            Node::Silent => {
                pipe.retransmits += 1;
                let pause = RTO * (1 << pipe.retransmits.min(8));
                self.send_later(pause, Arrival::ToServer(conn));
            }
            Node::Refusing => self.send_later(net.delay, Arrival::Rst(conn)),
            Node::Alive | Node::Stuck => {
                let Some(message) = pipe.to_server.pop_front() else { return };
                let work = if message.len() == NULL_LEN { Duration::ZERO } else { net.service };
                let start = if net.serial { pipe.busy_until.max(now) } else { now };
                pipe.busy_until = start + work;
                let done = pipe.busy_until;
                self.send_later(net.delay, Arrival::Ack(conn));
                self.send_at(done, Arrival::Serve(conn, message.to_vec()));
            }
        }
    }

    fn acked(&mut self, conn: ConnId) {
        let Some(pipe) = self.pipes.get_mut(&conn).filter(|pipe| self.nodes[pipe.node] != Node::Silent)
        else {
            return;
        };
        pipe.in_flight = pipe.to_server.len();
        pipe.retransmits = 0;
        pipe.last_ack = self.now;
    }

    /// A stuck server keeps what it was sent and serves it when it goes on.
    fn serve(&mut self, conn: ConnId, message: &[u8]) {
        let Some(node) = self.pipes.get(&conn).map(|pipe| pipe.node) else { return };
        if self.nodes[node] == Node::Stuck {
            return self.send_later(RTO, Arrival::Serve(conn, message.to_vec()));
        }
        let xid = peek_xid(message).unwrap();
        if message.len() != NULL_LEN {
            self.executed[node].push(xid);
        }
        let delay = self.delay();
        let Some(pipe) = self.pipes.get_mut(&conn) else { return };
        pipe.to_client.push_back(encode_reply(xid, &ReplyStatus::Success, &()).message());
        let at = pipe.last_to_client.max(self.now + delay);
        pipe.last_to_client = at;
        self.send_at(at, Arrival::ToClient(conn));
    }

    fn at_client(&mut self, conn: ConnId) {
        let Some(pipe) = self.pipes.get_mut(&conn) else { return };
        if self.nodes[pipe.node] == Node::Silent {
            return self.send_later(RTO, Arrival::ToClient(conn));
        }
        pipe.inbox.extend(pipe.to_client.pop_front());
        self.send_later(self.net.driver_lag, Arrival::Read(conn));
    }

    fn read(&mut self, conn: ConnId) {
        let Some(pipe) = self.pipes.get_mut(&conn) else { return };
        for reply in pipe.inbox.drain(..) {
            let xid = peek_xid(&reply).unwrap();
            self.events.push_back(Event::Received { conn, xid, reply });
        }
    }

    fn delay(&mut self) -> Duration {
        let mut delay = self.net.delay + self.rng.random_range(Duration::ZERO..=self.net.jitter);
        let mut rto = RTO;
        while self.rng.random_range(0..100) < self.net.loss_percent {
            delay += rto;
            rto *= 2;
        }
        delay
    }

    fn send_later(&mut self, delay: Duration, arrival: Arrival) {
        self.send_at(self.now + delay, arrival);
    }

    fn send_at(&mut self, at: Instant, arrival: Arrival) {
        self.next_arrival += 1;
        self.arrivals.push(Reverse((at, self.next_arrival, arrival)));
    }
}

/// A call that the model server executes.
pub(super) fn test_record(xid: u32) -> Record {
    Record::new(vec![Bytes::copy_from_slice(&xid.to_be_bytes()), Bytes::from_static(b"a call")])
}
