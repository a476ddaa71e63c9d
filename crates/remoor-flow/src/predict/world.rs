//! The hosts on one clock: who gets which segment when, the fault, and when there is nothing more to learn.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use remoor_nfs::reconnect::ConnId;

use super::balancer::{Balancer, Passage};
use super::client::{Client, Logic};
use super::node::{Condition, Node};
use super::queue::Queue;
use super::tcp::{Message, Packet};
use super::{FAULTY, Fault, Prediction, SPARE, Scenario};
use crate::packet::{BackendId, Direction};
use crate::pool::Health;

/// Writers at most; more change nothing about a failover.
const WRITERS_LIMIT: u32 = 64;
/// Events of one prediction at most: some 100 000 calls.
pub const EVENT_LIMIT: u32 = 1_000_000;
/// Least time a segment takes for one of the two hops of a path, so that virtual time always moves.
const HOP_MIN: Duration = Duration::from_micros(1);
/// How long replies come from another node before nothing more can happen.
const SETTLED: Duration = Duration::from_secs(2);

/// Who sent what the client receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A server.
    Backend(BackendId),
    /// The balancer itself.
    Balancer,
}

#[derive(Debug)]
pub(super) enum Event {
    AtBalancer {
        from: Direction,
        packet: Packet,
    },
    AtClient {
        by: Sender,
        packet: Packet,
    },
    AtBackend {
        backend: BackendId,
        packet: Packet,
    },
    ClientTimer {
        conn: ConnId,
    },
    ClientWake,
    NodeTimer {
        backend: BackendId,
        port: u16,
    },
    BalancerTimer,
    /// A server's process is done with a call of the connection with this port and initial sequence number.
    Served {
        backend: BackendId,
        port: u16,
        isn: u32,
        call: Message,
    },
    NextCall {
        writer: u32,
    },
    Break,
    Mend,
    /// The balancer's probes notice what the faulty node is now.
    Probed,
}

/// What a host needs to act.
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) queue: &'a mut Queue<Event>,
    pub(super) rng: &'a mut StdRng,
    hop: Duration,
}

impl Context<'_> {
    pub(super) fn after(&mut self, delay: Duration, event: Event) {
        self.queue.push(self.now + delay, event);
    }

    /// Sends a segment to the balancer.
    pub(super) fn send(&mut self, from: Direction, packet: Packet) {
        self.after(self.hop, Event::AtBalancer { from, packet });
    }

    pub(super) fn deliver_to_client(&mut self, by: Sender, packet: Packet) {
        self.after(self.hop, Event::AtClient { by, packet });
    }

    pub(super) fn deliver_to_backend(&mut self, backend: BackendId, packet: Packet) {
        self.after(self.hop, Event::AtBackend { backend, packet });
    }
}

/// What is known of the failover.
#[derive(Debug, Default)]
struct Ledger {
    /// The last reply that was sent before the fault.
    before: Option<Instant>,
    /// The first one sent after it.
    after: Option<Instant>,
    pinned: bool,
    frees_at: Option<Instant>,
    /// When each reply came.
    replies: Vec<Instant>,
}

pub(super) struct World<'a, L> {
    scenario: &'a Scenario,
    now: Instant,
    fault_at: Instant,
    hop: Duration,
    queue: Queue<Event>,
    rng: StdRng,
    balancer: Balancer,
    client: Client<L>,
    nodes: [Node; 2],
    ledger: Ledger,
}

impl<'a, L: Logic> World<'a, L> {
    pub(super) fn new(scenario: &'a Scenario, logic: L) -> Self {
        let mut rng = StdRng::seed_from_u64(scenario.seed);
        let node = |id| Node::new(id, scenario.service_time, scenario.round_trip);
        Self {
            scenario,
            now: scenario.start,
            fault_at: scenario.start + scenario.fault_at,
            hop: (scenario.round_trip / 4).max(HOP_MIN),
            queue: Queue::new(),
            balancer: Balancer::new(scenario.flow.clone(), &[FAULTY, SPARE], rng.random()),
            client: Client::new(logic, scenario),
            nodes: [node(FAULTY), node(SPARE)],
            ledger: Ledger::default(),
            rng,
        }
    }

    pub(super) fn run(mut self) -> Prediction {
        self.set_out();
        let end = self.fault_at + self.scenario.window;
        for _ in 0..EVENT_LIMIT {
            let next = self.queue.pop().filter(|(at, _)| *at <= end && !self.is_settled());
            let Some((at, event)) = next else { return self.report(true) };
            self.now = at;
            self.handle(event);
            self.note_replies();
        }
        self.report(false)
    }

    fn set_out(&mut self) {
        if self.scenario.fault != Fault::None {
            self.queue.push(self.fault_at, Event::Break);
        }
        self.with_client(|client, cx| client.connect(cx));
        let writers = self.scenario.writers.min(WRITERS_LIMIT);
        for writer in 0..writers {
            // Spread over one period, as writers of a real workload are.
            let offset = self.scenario.call_every * writer / writers;
            self.queue.push(self.now + offset, Event::NextCall { writer });
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::AtBalancer { from, packet } => self.at_balancer(from, packet),
            Event::AtClient { by, packet } => self.with_client(|client, cx| client.receive(by, &packet, cx)),
            Event::AtBackend { backend, packet } => {
                self.with_node(backend, |node, cx| node.receive(&packet, cx))
            }
            Event::ClientTimer { conn } => self.with_client(|client, cx| client.handle_timeout(conn, cx)),
            Event::ClientWake => self.with_client(|client, cx| client.wake(cx)),
            Event::NodeTimer { backend, port } => {
                self.with_node(backend, |node, cx| node.handle_timeout(port, cx));
            }
            Event::BalancerTimer => self.with_balancer(|balancer, cx| balancer.handle_timeout(cx)),
            Event::Served { backend, port, isn, call } => {
                self.with_node(backend, |node, cx| node.served(port, isn, call, cx));
            }
            Event::NextCall { writer } => self.with_client(|client, cx| client.call(writer, cx)),
            Event::Break => self.break_node(),
            Event::Mend => {
                self.with_node(FAULTY, |node, cx| node.recover(cx));
                self.queue.push(self.now + self.scenario.probe_delay, Event::Probed);
            }
            Event::Probed => self.probed(),
        }
    }

    fn break_node(&mut self) {
        let mends_after = match self.scenario.fault {
            Fault::None => return,
            Fault::Silent => None,
            Fault::Kill => None,
            Fault::Stop { resume_after } => Some(resume_after),
            Fault::Flap { back_after } => Some(back_after),
        };
        match self.scenario.fault {
            Fault::Kill => self.with_node(FAULTY, |node, cx| node.kill(cx)),
            Fault::Stop { .. } => self.nodes[0].condition = Condition::Stopped,
            _ => self.nodes[0].condition = Condition::Silent,
        }
        self.queue.push(self.now + self.scenario.probe_delay, Event::Probed);
        if let Some(after) = mends_after {
            self.queue.push(self.now + after, Event::Mend);
        }
    }

    fn probed(&mut self) {
        let serving = self.nodes[0].condition == Condition::Serving;
        let health = if serving { Health::Up } else { Health::Down };
        self.with_balancer(|balancer, cx| balancer.set_health(FAULTY, health, cx));
    }

    fn at_balancer(&mut self, from: Direction, packet: Packet) {
        let mut passage = None;
        self.with_balancer(|balancer, cx| passage = balancer.receive(from, packet, cx));
        let Some(Passage { backend, by_entry, frees_at }) = passage else { return };
        let segment = packet.segment;
        self.client.note_passage(segment.flow.client.port(), segment.seq, backend);
        let dead = self.nodes[usize::from(backend.0)].condition != Condition::Serving;
        if by_entry && dead {
            self.ledger.pinned = true;
            self.ledger.frees_at = frees_at;
        }
    }

    fn note_replies(&mut self) {
        for born in self.client.replies.drain(..) {
            self.ledger.replies.push(self.now);
            if born < self.fault_at {
                self.ledger.before = Some(self.now);
            } else {
                self.ledger.after.get_or_insert(self.now);
            }
        }
    }

    /// The client is served again, and by a node that works: nothing more will happen to it.
    fn is_settled(&self) -> bool {
        let Some(at) = self.ledger.after else { return false };
        let by_faulty = self.client.attempts.last().is_none_or(|attempt| attempt.reached == Some(FAULTY));
        self.now >= at + SETTLED && (!by_faulty || self.nodes[0].condition == Condition::Serving)
    }

    fn report(self, complete: bool) -> Prediction {
        let since_start = |at: Instant| at.saturating_duration_since(self.scenario.start);
        let attempts = self.client.attempts;
        let gap = self.ledger.before.zip(self.ledger.after);
        Prediction {
            rebind: super::outcome::rebind(&attempts, self.scenario.fault_at),
            attempts,
            repeated_syns: self.client.repeated_syns,
            replies: self.ledger.replies.into_iter().map(since_start).collect(),
            gap: gap.map(|(before, after)| after.saturating_duration_since(before)),
            complete,
            pinned: self.ledger.pinned,
            flow_frees_at: self.ledger.frees_at.map(since_start),
            notices: self.client.notices.into_iter().map(|(at, notice)| (since_start(at), notice)).collect(),
        }
    }

    fn with_client(&mut self, act: impl FnOnce(&mut Client<L>, &mut Context<'_>)) {
        let mut cx = Context { now: self.now, queue: &mut self.queue, rng: &mut self.rng, hop: self.hop };
        act(&mut self.client, &mut cx);
    }

    fn with_node(&mut self, backend: BackendId, act: impl FnOnce(&mut Node, &mut Context<'_>)) {
        let mut cx = Context { now: self.now, queue: &mut self.queue, rng: &mut self.rng, hop: self.hop };
        if let Some(node) = self.nodes.get_mut(usize::from(backend.0)) {
            act(node, &mut cx);
        }
    }

    fn with_balancer(&mut self, act: impl FnOnce(&mut Balancer, &mut Context<'_>)) {
        let mut cx = Context { now: self.now, queue: &mut self.queue, rng: &mut self.rng, hop: self.hop };
        act(&mut self.balancer, &mut cx);
    }
}
