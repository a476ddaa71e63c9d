//! Connection attempts, as the captures show them.
//!
//! One attempt is one SYN series: a source port and an initial sequence number. A SYN with the same port and another
//! sequence number is a new attempt; with the same number it is a retransmission (RFC 9293 §3.4.1).

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use remoor_flow::TcpFlags;
use serde::Serialize;

use crate::capture::{Sighting, Tap};
use crate::segment::Segment;
use crate::topology::Node;

/// One attempt of a client to connect to the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// When the first SYN left the client, since the Unix epoch.
    pub time: Duration,
    /// The client's port.
    pub source_port: u16,
    /// Initial sequence number.
    pub isn: u32,
    /// When each retransmission of the SYN left, since the Unix epoch.
    pub retransmissions: Vec<Duration>,
    /// The nodes the balancer sent the SYN to, in order of the first copy; empty when it sent it nowhere.
    pub forwarded_to: Vec<Node>,
    /// The answer that decided the attempt, else the first challenge ACK.
    pub answer: Option<Answer>,
}

/// What the client got for its SYN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// When it reached the client, since the Unix epoch.
    pub time: Duration,
    /// Who sent it.
    pub by: Answerer,
    /// What it was.
    pub kind: AnswerKind,
}

/// Who answered a SYN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Answerer {
    /// A node: the same segment came in on the balancer's interface towards it.
    Node(Node),
    /// The balancer made it up: no node sent such a segment.
    Balancer,
}

/// How a SYN was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum AnswerKind {
    /// SYN-ACK: the attempt succeeded.
    SynAck,
    /// RST: refused.
    Rst,
    /// An ACK for another sequence number, from an end that still holds an older connection (RFC 5961 §4).
    ChallengeAck,
}

impl Attempt {
    /// The node that accepted the connection.
    pub fn connected_to(&self) -> Option<Node> {
        match self.answer {
            Some(Answer { by: Answerer::Node(node), kind: AnswerKind::SynAck, .. }) => Some(node),
            _ => None,
        }
    }
}

/// The attempts from anywhere to `service` in `sightings` (in order of time), in the order of their first SYN at
/// the client.
pub fn attempts(sightings: &[Sighting], service: SocketAddrV4) -> Vec<Attempt> {
    let mut tracker = Tracker {
        service,
        attempts: Vec::new(),
        latest: HashMap::new(),
        from_nodes: answers_of_nodes(sightings),
    };
    for sighting in sightings {
        tracker.see(sighting);
    }
    tracker.attempts
}

struct Tracker {
    service: SocketAddrV4,
    attempts: Vec<Attempt>,
    /// The latest attempt of each client address and port.
    latest: HashMap<SocketAddrV4, usize>,
    /// Which node sent a segment without payload, by what the client will see of it.
    from_nodes: HashMap<AnswerKey, Node>,
}

/// Address translation changes the node's address and nothing of this.
#[derive(PartialEq, Eq, Hash)]
struct AnswerKey {
    client: SocketAddrV4,
    flags: u8,
    seq: u32,
    ack: u32,
}

impl AnswerKey {
    const fn of(segment: &Segment) -> Self {
        Self { client: segment.dst, flags: segment.flags.0, seq: segment.seq, ack: segment.ack }
    }
}

/// Collected ahead of all else: a segment may be stamped on the node's side a little after the client's side, because
/// the kernel hands it to the balancer before it stamps it for a tap.
fn answers_of_nodes(sightings: &[Sighting]) -> HashMap<AnswerKey, Node> {
    let mut answers = HashMap::new();
    for Sighting { tap, outgoing, segment, .. } in sightings {
        if let (Tap::Node(node), false, 0) = (tap, outgoing, segment.payload_len) {
            answers.entry(AnswerKey::of(segment)).or_insert(*node);
        }
    }
    answers
}

impl Tracker {
    fn see(&mut self, sighting: &Sighting) {
        let segment = &sighting.segment;
        match (sighting.tap, sighting.outgoing) {
            (Tap::Client, true) if segment.dst == self.service && segment.flags.is_lone_syn() => {
                self.syn_left(sighting.time, segment);
            }
            (Tap::Client, false) if segment.src == self.service => self.answered(sighting.time, segment),
            (Tap::Node(node), true) if segment.flags.is_lone_syn() => self.forwarded(node, segment),
            _ => {}
        }
    }

    fn syn_left(&mut self, time: Duration, syn: &Segment) {
        if let Some(attempt) = self.find(syn.src).filter(|attempt| attempt.isn == syn.seq) {
            attempt.retransmissions.push(time);
            return;
        }
        self.latest.insert(syn.src, self.attempts.len());
        self.attempts.push(Attempt {
            time,
            source_port: syn.src.port(),
            isn: syn.seq,
            retransmissions: Vec::new(),
            forwarded_to: Vec::new(),
            answer: None,
        });
    }

    fn forwarded(&mut self, node: Node, syn: &Segment) {
        let attempt = self.find(syn.src).filter(|attempt| attempt.isn == syn.seq);
        if let Some(attempt) = attempt.filter(|attempt| !attempt.forwarded_to.contains(&node)) {
            attempt.forwarded_to.push(node);
        }
    }

    fn answered(&mut self, time: Duration, segment: &Segment) {
        let by = self
            .from_nodes
            .get(&AnswerKey::of(segment))
            .map_or(Answerer::Balancer, |node| Answerer::Node(*node));
        let Some(attempt) = self.find(segment.dst) else { return };
        let undecided = attempt.answer.is_none_or(|answer| answer.kind == AnswerKind::ChallengeAck);
        let Some(kind) = answer_kind(segment, attempt.isn).filter(|_| undecided) else { return };
        if kind != AnswerKind::ChallengeAck || attempt.answer.is_none() {
            attempt.answer = Some(Answer { time, by, kind });
        }
    }

    fn find(&mut self, client: SocketAddrV4) -> Option<&mut Attempt> {
        self.latest.get(&client).map(|&index| &mut self.attempts[index])
    }
}

/// What `segment` says about a SYN with sequence number `isn`; `None` for segments of an earlier connection.
fn answer_kind(segment: &Segment, isn: u32) -> Option<AnswerKind> {
    let flags = segment.flags;
    let acknowledges = flags.contains(TcpFlags::ACK) && segment.ack == isn.wrapping_add(1);
    if flags.contains(TcpFlags::RST) {
        // A RST that acknowledges nothing answers a segment with an ACK (RFC 9293 §3.10.7.1), never a SYN.
        return acknowledges.then_some(AnswerKind::Rst);
    }
    if flags.contains(TcpFlags::SYN) {
        return acknowledges.then_some(AnswerKind::SynAck);
    }
    let bare_ack =
        flags.contains(TcpFlags::ACK) && !flags.contains(TcpFlags::FIN) && segment.payload_len == 0;
    (bare_ack && !acknowledges).then_some(AnswerKind::ChallengeAck)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    use crate::topology::{SERVICE, Topology};

    /// Builds sightings a millisecond apart.
    #[derive(Default)]
    struct Wire {
        seen: Vec<Sighting>,
    }

    const SYN_ACK: TcpFlags = TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0);
    const RST_ACK: TcpFlags = TcpFlags(TcpFlags::RST.0 | TcpFlags::ACK.0);

    impl Wire {
        fn add(&mut self, tap: Tap, outgoing: bool, segment: Segment) {
            let time = Duration::from_millis(self.seen.len() as u64);
            self.seen.push(Sighting { time, tap, outgoing, segment });
        }

        fn syn(&mut self, port: u16, isn: u32, to: Option<Node>) {
            let client = SocketAddrV4::new(Ipv4Addr::new(10, 81, 1, 2), port);
            let syn =
                Segment { src: client, dst: SERVICE, flags: TcpFlags::SYN, seq: isn, ack: 0, payload_len: 0 };
            self.add(Tap::Client, true, syn);
            if let Some(node) = to {
                self.add(Tap::Node(node), true, Segment { dst: Topology::node_service(node), ..syn });
            }
        }

        fn answer(&mut self, port: u16, from: Option<Node>, flags: TcpFlags, ack: u32) {
            let client = SocketAddrV4::new(Ipv4Addr::new(10, 81, 1, 2), port);
            let answer = Segment { src: SERVICE, dst: client, flags, seq: 77, ack, payload_len: 0 };
            if let Some(node) = from {
                self.add(Tap::Node(node), false, Segment { src: Topology::node_service(node), ..answer });
            }
            self.add(Tap::Client, false, answer);
        }

        fn attempts(&self) -> Vec<Attempt> {
            attempts(&self.seen, SERVICE)
        }
    }

    #[test]
    fn a_plain_connect_is_one_attempt_answered_by_its_node() {
        let mut wire = Wire::default();
        wire.syn(700, 10, Some(Node::A));
        wire.answer(700, Some(Node::A), SYN_ACK, 11);
        let [attempt] = &wire.attempts()[..] else { panic!("one attempt") };
        assert_eq!((attempt.source_port, attempt.isn, &attempt.forwarded_to[..]), (700, 10, &[Node::A][..]));
        assert_eq!(attempt.connected_to(), Some(Node::A));
        assert_eq!(attempt.answer.unwrap().time, Duration::from_millis(3));
    }

    #[test]
    fn a_retransmission_is_no_new_attempt_and_a_new_isn_is() {
        let mut wire = Wire::default();
        wire.syn(700, 10, Some(Node::A));
        wire.syn(700, 10, Some(Node::A));
        wire.syn(700, 99, Some(Node::A));
        let found = wire.attempts();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].retransmissions, [Duration::from_millis(2)]);
        assert_eq!(found[1].isn, 99);
        assert!(found.iter().all(|attempt| attempt.answer.is_none()));
    }

    #[test]
    fn a_syn_diverted_on_retransmission_names_both_nodes() {
        let mut wire = Wire::default();
        wire.syn(700, 10, Some(Node::A));
        wire.syn(700, 10, Some(Node::B));
        wire.answer(700, Some(Node::B), SYN_ACK, 11);
        let [attempt] = &wire.attempts()[..] else { panic!("one attempt") };
        assert_eq!(attempt.forwarded_to, [Node::A, Node::B]);
        assert_eq!(attempt.connected_to(), Some(Node::B));
    }

    #[test]
    fn a_rst_no_node_sent_is_the_balancers() {
        let mut wire = Wire::default();
        wire.syn(700, 10, None);
        wire.answer(700, None, RST_ACK, 11);
        wire.syn(701, 20, Some(Node::B));
        wire.answer(701, Some(Node::B), RST_ACK, 21);
        let found = wire.attempts();
        assert_eq!(found[0].answer.map(|a| (a.by, a.kind)), Some((Answerer::Balancer, AnswerKind::Rst)));
        assert!(found[0].forwarded_to.is_empty());
        assert_eq!(found[1].answer.map(|a| (a.by, a.kind)), Some((Answerer::Node(Node::B), AnswerKind::Rst)));
    }

    #[test]
    fn a_challenge_ack_gives_way_to_the_syn_ack_that_follows() {
        let mut wire = Wire::default();
        wire.syn(700, 10, Some(Node::A));
        wire.answer(700, Some(Node::A), TcpFlags::ACK, 5000);
        assert_eq!(wire.attempts()[0].answer.unwrap().kind, AnswerKind::ChallengeAck);
        wire.syn(700, 10, Some(Node::A));
        wire.answer(700, Some(Node::A), SYN_ACK, 11);
        assert_eq!(wire.attempts()[0].answer.unwrap().kind, AnswerKind::SynAck);
        assert_eq!(wire.attempts()[0].retransmissions.len(), 1);
    }

    #[test]
    fn later_segments_do_not_change_a_decided_attempt() {
        let mut wire = Wire::default();
        wire.syn(700, 10, Some(Node::A));
        wire.answer(700, Some(Node::A), SYN_ACK, 11);
        wire.answer(700, Some(Node::A), TcpFlags::ACK, 400);
        wire.answer(700, None, RST_ACK, 11);
        assert_eq!(wire.attempts()[0].connected_to(), Some(Node::A));
    }

    #[test]
    fn a_bare_rst_belongs_to_the_connection_before() {
        let mut wire = Wire::default();
        wire.syn(700, 10, Some(Node::A));
        wire.answer(700, None, TcpFlags::RST, 0);
        assert_eq!(wire.attempts()[0].answer, None);
    }

    #[test]
    fn an_answer_stamped_late_on_the_nodes_side_is_still_the_nodes() {
        let mut wire = Wire::default();
        wire.syn(700, 10, Some(Node::A));
        wire.answer(700, Some(Node::A), SYN_ACK, 11);
        wire.seen.swap(2, 3);
        assert_eq!(wire.attempts()[0].connected_to(), Some(Node::A));
    }

    #[test]
    fn an_isn_at_the_end_of_the_space_wraps() {
        let mut wire = Wire::default();
        wire.syn(700, u32::MAX, Some(Node::A));
        wire.answer(700, Some(Node::A), SYN_ACK, 0);
        assert_eq!(wire.attempts()[0].connected_to(), Some(Node::A));
    }
}
