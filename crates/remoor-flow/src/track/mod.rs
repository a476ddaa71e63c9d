//! What a balancer knows of one TCP connection, and how segments change it.

mod conntrack;
mod plain;

use std::time::Duration;

use serde::Serialize;

use crate::config::{CloseRule, Config, Tracking};
use crate::packet::{BackendId, Direction, FiveTuple, Reset, ResetTo, Segment, TcpFlags};

/// State of a connection as a middlebox sees it; the names are those of Linux connection tracking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TcpState {
    /// Before the first segment; no entry in a table has it.
    New,
    /// The client sent a SYN.
    SynSent,
    /// The backend answered it.
    SynRecv,
    /// Data may flow.
    Established,
    /// One FIN was seen.
    FinWait,
    /// That FIN was acknowledged.
    CloseWait,
    /// A second FIN was seen, or the first one again.
    LastAck,
    /// All FINs are acknowledged.
    TimeWait,
    /// A RST was seen.
    Close,
    /// Both ends sent a SYN.
    SynSent2,
}

/// What the tracking makes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It belongs to the connection.
    Pass {
        /// Whether the idle timer starts anew.
        refresh: bool,
    },
    /// It belongs to the connection and ends the entry.
    Free,
    /// It fits no connection.
    Invalid,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    /// The sequence number after the last octet this end sent.
    end: Option<u32>,
    /// The highest acknowledgment this end sent: what it expects next.
    max_ack: Option<u32>,
    /// It has sent what the other end has not acknowledged.
    unacknowledged: bool,
    /// It sent the first FIN.
    closing: bool,
}

impl Peer {
    fn sent(&mut self, segment: &Segment) {
        let end = segment.end();
        if let Some(before) = self.end
            && after(end, before)
        {
            self.unacknowledged = true;
        }
        if segment.flags.contains(TcpFlags::SYN) || self.end.is_none_or(|before| after(end, before)) {
            self.end = Some(end);
        }
        if segment.flags.contains(TcpFlags::ACK) && self.max_ack.is_none_or(|max| after(segment.ack, max)) {
            self.max_ack = Some(segment.ack);
        }
    }

    fn received(&mut self, segment: &Segment) {
        if segment.flags.contains(TcpFlags::ACK) && self.end.is_none_or(|end| end == segment.ack) {
            self.end = Some(segment.ack);
            self.unacknowledged = false;
        }
    }
}

/// The last segment that the tracking took note of.
#[derive(Clone, Copy, Debug)]
struct Last {
    kind: Kind,
    from_client: bool,
    seq: u32,
    ack: u32,
    end: u32,
    challenge_ack_expected: bool,
}

/// What a segment is to a state table; the first that applies, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rst,
    SynAck,
    Syn,
    Fin,
    Ack,
    Other,
}

impl Kind {
    fn of(flags: TcpFlags) -> Self {
        match flags {
            f if f.contains(TcpFlags::RST) => Self::Rst,
            f if f.contains(TcpFlags::SYN | TcpFlags::ACK) => Self::SynAck,
            f if f.contains(TcpFlags::SYN) => Self::Syn,
            f if f.contains(TcpFlags::FIN) => Self::Fin,
            f if f.contains(TcpFlags::ACK) => Self::Ack,
            _ => Self::Other,
        }
    }
}

/// A connection under observation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection {
    pub(crate) state: TcpState,
    /// How long the entry lives after its last refresh.
    pub(crate) timeout: Duration,
    client: Peer,
    backend: Peer,
    last: Option<Last>,
    seen_reply: bool,
    assured: bool,
    retransmissions: u32,
}

impl Connection {
    pub(crate) fn new() -> Self {
        Self {
            state: TcpState::New,
            timeout: Duration::ZERO,
            client: Peer::default(),
            backend: Peer::default(),
            last: None,
            seen_reply: false,
            assured: false,
            retransmissions: 0,
        }
    }

    /// Whether a client's SYN meets a connection that has ended, so that its flow is decided again.
    pub(crate) fn reopens(&self, config: &Config) -> bool {
        let ended = matches!(self.state, TcpState::TimeWait | TcpState::Close);
        match config.tracking {
            Tracking::Plain => ended,
            Tracking::Conntrack { .. } => ended && conntrack::reopens(self),
        }
    }

    /// Takes note of a segment.
    pub(crate) fn observe(&mut self, config: &Config, segment: &Segment, from: Direction) -> Effect {
        let (visible, frees) = apply_close_rules(config, segment, from);
        let effect = match config.tracking {
            Tracking::Plain => plain::observe(self, config, &visible, from),
            Tracking::Conntrack { syn_sent_refreshed } => {
                conntrack::observe(self, &config.timers, syn_sent_refreshed, &visible, from)
            }
        };
        match effect {
            Effect::Pass { .. } if frees => Effect::Free,
            effect => effect,
        }
    }

    /// One RST for each end, with the numbers that it expects.
    pub(crate) fn resets(&self, flow: FiveTuple, backend: BackendId) -> [Reset; 2] {
        let reset = |to, peer: &Peer| Reset { flow, to, seq: peer.max_ack.unwrap_or(0), ack: peer.end };
        [reset(ResetTo::Client, &self.client), reset(ResetTo::Backend(backend), &self.backend)]
    }

    /// Sender and receiver of a segment.
    fn peers_mut(&mut self, from: Direction) -> (&mut Peer, &mut Peer) {
        match from {
            Direction::FromClient => (&mut self.client, &mut self.backend),
            Direction::FromBackend(_) => (&mut self.backend, &mut self.client),
        }
    }

    fn note_numbers(&mut self, segment: &Segment, from: Direction) {
        let (sender, receiver) = self.peers_mut(from);
        sender.sent(segment);
        receiver.received(segment);
    }
}

/// The segment as the balancer sees it, and whether it frees the entry.
fn apply_close_rules(config: &Config, segment: &Segment, from: Direction) -> (Segment, bool) {
    let close = &config.close;
    let (fin, rst) = match from {
        Direction::FromClient => (close.client_fin, close.client_rst),
        Direction::FromBackend(_) => (close.backend_fin, close.backend_rst),
    };
    let mut visible = *segment;
    let mut frees = false;
    for (bit, rule) in [(TcpFlags::FIN, fin), (TcpFlags::RST, rst)] {
        if segment.flags.contains(bit) {
            frees |= rule == CloseRule::Free;
            if rule == CloseRule::Unseen {
                visible.flags = visible.flags.without(bit);
            }
        }
    }
    (visible, frees)
}

/// Whether sequence number `a` is later than `b` (RFC 9293 section 3.4).
fn after(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) < 0
}
