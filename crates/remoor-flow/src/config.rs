//! Every knob of the model. A balancer is one value of [`Config`].

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::track::TcpState;

/// How one balancer treats flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How a new flow's backend is chosen.
    pub selection: Selection,
    /// What identifies a flow to the balancer's hash.
    pub hash: Hash,
    /// How the state of a connection is followed.
    pub tracking: Tracking,
    /// What a SYN does that meets a live entry of its five-tuple.
    pub syn_on_entry: SynOnEntry,
    /// What a client's segment other than a SYN does that meets no entry.
    pub without_entry: WithoutEntry,
    /// What a backend's segment does that meets no entry.
    pub reply_without_entry: ReplyWithoutEntry,
    /// Which segments start the idle timer anew.
    pub refresh_on: RefreshOn,
    /// What happens to the flows of a backend that is marked down.
    pub on_backend_down: OnBackendDown,
    /// What happens when no backend is up.
    pub on_all_down: OnAllDown,
    /// How long an entry lives without a refresh, by connection state.
    pub timers: StateTimers,
    /// What the two ends see when an entry expires.
    pub idle_action: IdleAction,
    /// What FIN and RST of each end do to the entry.
    pub close: CloseRules,
    /// The most entries the table holds.
    pub entry_limit: NonZeroUsize,
    /// What a new flow does when the table holds `entry_limit` entries.
    pub when_full: WhenFull,
}

/// How a new flow's backend is chosen among those that are up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The first in the operator's order: active-passive.
    Priority,
    /// By rendezvous hash of the fields of [`Hash`].
    Hash,
}

/// What identifies a flow to the balancer's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash {
    /// The address fields.
    pub tuple: Tuple,
    /// Whether the initial sequence number is part of it. If so, a SYN that repeats the number of its
    /// entry is the same flow whatever [`SynOnEntry`] says, and any other SYN is not.
    pub isn: bool,
}

/// The address fields of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tuple {
    /// Both addresses, both ports, protocol.
    Five,
    /// Both addresses and the protocol. With TCP alone this selects as [`Tuple::Two`] does.
    Three,
    /// Both addresses.
    Two,
}

/// How the state of a connection is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracking {
    /// Handshake, close and reset only; every other segment passes.
    Plain,
    /// As Linux does, by the state table of `nf_conntrack_proto_tcp.c`. Receive windows are not modelled.
    Conntrack {
        /// Whether a retransmitted SYN restarts the SYN_SENT timer, as before Linux 5.14.
        syn_sent_refreshed: bool,
    },
}

/// What a SYN does that meets a live entry of its five-tuple. An entry whose connection has ended
/// (TIME_WAIT, CLOSE) is not live: the SYN decides again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SynOnEntry {
    /// It goes where the entry points.
    Follow,
    /// It is a new flow.
    Reselect,
    /// It is a new flow if the entry's backend is down, else it follows.
    ReselectIfUnhealthy,
    /// It is dropped.
    Drop,
    /// It is answered with a RST.
    Rst,
}

/// What a client's segment other than a SYN does that meets no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithoutEntry {
    /// It makes an entry as a SYN would, if the tracking accepts it in the middle of a connection.
    Pickup,
    /// It is dropped.
    Drop,
    /// It is answered with a RST.
    Rst,
}

/// What a backend's segment does that meets no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyWithoutEntry {
    /// It passes: the balancer can translate it without an entry.
    Pass,
    /// It is dropped.
    Drop,
    /// It is answered with a RST.
    Rst,
}

/// Which segments start the idle timer anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshOn {
    /// All.
    Any,
    /// All but a SYN without ACK.
    NonSyn,
    /// Only those that the backend sent.
    Replied,
}

/// What happens to the flows of a backend that is marked down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBackendDown {
    /// They go on to it.
    Keep,
    /// Both ends get a RST at once.
    RstNow,
    /// The next segment is answered with a RST and the entry is freed.
    RstOnPacket,
    /// The next segment moves the entry to a backend that is up.
    Divert,
    /// Segments are dropped; the entry stays until it expires.
    Drop,
}

/// What happens when no backend is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnAllDown {
    /// All backends are treated as up.
    FailOpen,
    /// Flows that exist go on; new flows are dropped.
    Continue,
    /// Every segment is dropped.
    Drop,
    /// Every segment is answered with a RST.
    Rst,
}

/// What the two ends see when an entry expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleAction {
    /// Nothing.
    Silent,
    /// A RST each.
    RstBoth,
}

/// What one control bit of one end does to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseRule {
    /// Nothing: the segment counts as any other.
    Unseen,
    /// The connection state advances.
    Advance,
    /// The segment passes, then the entry is gone.
    Free,
}

/// What FIN and RST of each end do to the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseRules {
    /// A FIN from the client.
    pub client_fin: CloseRule,
    /// A RST from the client.
    pub client_rst: CloseRule,
    /// A FIN from the backend.
    pub backend_fin: CloseRule,
    /// A RST from the backend.
    pub backend_rst: CloseRule,
}

impl CloseRules {
    /// The same rule for both bits of both ends.
    pub const fn all(rule: CloseRule) -> Self {
        Self { client_fin: rule, client_rst: rule, backend_fin: rule, backend_rst: rule }
    }
}

/// How long an entry lives without a refresh, by connection state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the timer of the state of its name")]
pub struct StateTimers {
    pub syn_sent: Duration,
    pub syn_recv: Duration,
    pub established: Duration,
    pub fin_wait: Duration,
    pub close_wait: Duration,
    pub last_ack: Duration,
    pub time_wait: Duration,
    pub close: Duration,
    /// Upper bound in any state while one end has not acknowledged the other's data ([`Tracking::Conntrack`]).
    pub unacknowledged: Duration,
    /// Upper bound in any state after repeated retransmissions ([`Tracking::Conntrack`]).
    pub retransmitted: Duration,
}

impl StateTimers {
    /// One idle time for every state.
    pub const fn uniform(idle: Duration) -> Self {
        Self {
            syn_sent: idle,
            syn_recv: idle,
            established: idle,
            fin_wait: idle,
            close_wait: idle,
            last_ack: idle,
            time_wait: idle,
            close: idle,
            unacknowledged: idle,
            retransmitted: idle,
        }
    }

    /// The timer of `state`.
    pub const fn of(&self, state: TcpState) -> Duration {
        match state {
            TcpState::New | TcpState::SynSent | TcpState::SynSent2 => self.syn_sent,
            TcpState::SynRecv => self.syn_recv,
            TcpState::Established => self.established,
            TcpState::FinWait => self.fin_wait,
            TcpState::CloseWait => self.close_wait,
            TcpState::LastAck => self.last_ack,
            TcpState::TimeWait => self.time_wait,
            TcpState::Close => self.close,
        }
    }
}

/// What a new flow does when the table is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// It is dropped.
    DropNew,
    /// The entry that was refreshed longest ago makes room.
    EvictLongestIdle,
}
