//! What goes into the machine and what comes out of it.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use remoor_rpc::record::Record;

use super::config::Abandon;
use super::notice::Notice;

/// One connection attempt and, if it succeeds, its connection. Never used twice by one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.0)
    }
}

/// A call to be carried out.
#[derive(Debug, Clone)]
pub struct Call {
    /// From [`super::Machine::next_xid`], and encoded in `record`.
    pub xid: u32,
    /// The encoded call. The same bytes are sent every time, so that a reply cache knows them again.
    pub record: Record,
    /// Whether executing the call twice does no harm (READ, GETATTR), unlike REMOVE or CREATE.
    pub idempotent: bool,
}

/// A record to write to a connection, whole and in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub conn: ConnId,
    /// What.
    pub record: Record,
}

/// What the kernel knows about our bytes on a connection (Linux: `TCP_INFO`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AckState {
    /// Time since the peer last acknowledged anything, while bytes or window probes of ours are unacknowledged;
    /// `None` when all that was put on the wire is acknowledged. Linux: `tcpi_last_ack_recv` if `tcpi_unacked` or
    /// `tcpi_probes` is not zero.
    pub unacked_for: Option<Duration>,
    /// Retransmissions and probes since then (`tcpi_backoff`, `tcpi_retransmits`).
    pub retransmits: u32,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A connection is established.
    Connected {
        /// Which.
        conn: ConnId,
        /// Its local port as getsockname(2) gives it.
        local_port: u16,
    },
    /// A connection was not established; the driver has closed its socket.
    ConnectFailed {
        /// Which.
        conn: ConnId,
        /// Why.
        error: ConnectError,
    },
    /// A whole record arrived.
    Received {
        /// Where.
        conn: ConnId,
        /// Its first word.
        xid: u32,
        /// The record without its mark, xid included.
        reply: Bytes,
    },
    /// Bytes arrived that complete no record yet; a long READ over a slow path is no silence.
    Progress {
        /// Where.
        conn: ConnId,
    },
    /// An established connection ended. All that arrived before was fed first; the driver has closed its socket.
    Closed {
        /// Which.
        conn: ConnId,
        /// How.
        how: CloseReason,
    },
    /// The answer to [`Action::QueryAck`].
    AckState {
        /// Which.
        conn: ConnId,
        /// What the kernel knows.
        ack: AckState,
    },
    /// The answer to [`Action::Drain`]: all that had arrived has been fed.
    Drained {
        /// Which.
        conn: ConnId,
    },
}

/// Why a connection was not established.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// ECONNREFUSED.
    #[error("connection refused")]
    Refused,
    /// ECONNRESET.
    #[error("connection reset")]
    Reset,
    /// ETIMEDOUT.
    #[error("timed out")]
    TimedOut,
    /// EADDRINUSE from bind(2), EADDRNOTAVAIL from connect(2).
    #[error("source port in use")]
    PortInUse,
    /// EACCES or EPERM from bind(2).
    #[error("permission denied")]
    PermissionDenied,
    /// ENETUNREACH, EHOSTUNREACH, ENETDOWN; EACCES or EPERM from connect(2), when a local route or filter prohibits it.
    #[error("unreachable")]
    Unreachable,
    /// Anything else.
    #[error("failed")]
    Other,
}

/// How an established connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The peer closed.
    #[error("closed by the server")]
    Fin,
    /// The peer or something between reset it.
    #[error("reset by the server")]
    Reset,
    /// The kernel gave up.
    #[error("timed out")]
    TimedOut,
    /// The peer sent what is not ONC RPC.
    #[error("sent what is not an RPC record")]
    Protocol,
}

/// Why an attempt did not lead to a proven connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AttemptError {
    /// No connection.
    #[error("{0}")]
    Connect(#[from] ConnectError),
    /// The connection ended before NULL was answered.
    #[error("{0} before NULL was answered")]
    Closed(#[from] CloseReason),
    /// The answer to NULL says that the peer does not serve the program, or is no RPC reply.
    #[error(
        "the peer's answer to NULL shows that it does not serve the program; check the server's address and port"
    )]
    NotServed,
    /// The driver connected from another port than the machine chose.
    #[error("the connection has local port {0}, not the one chosen")]
    WrongPort(u16),
}

/// What the driver has to do, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Bind `port` and connect. Every earlier [`Action::Abandon`] must be complete, all descriptors closed: bind(2)
    /// and connect(2) refuse a port that any descriptor still holds.
    Connect {
        /// Id for all events of this attempt.
        conn: ConnId,
        /// Source port.
        port: u16,
        /// 1 for the first attempt since the last usable connection.
        attempt: u32,
    },
    /// Feed [`Event::AckState`].
    QueryAck {
        /// Of which connection.
        conn: ConnId,
    },
    /// Read all that has already arrived without waiting for more, feed it, then feed [`Event::Drained`].
    Drain {
        /// Which connection.
        conn: ConnId,
    },
    /// Close the connection or stop the attempt; no event of it counts from here on.
    Abandon {
        /// Which.
        conn: ConnId,
        /// How.
        how: Abandon,
    },
    /// A call was answered.
    Completed {
        /// Which.
        xid: u32,
        /// The record without its mark, xid included.
        reply: Bytes,
    },
    /// A call will not be answered.
    Failed {
        /// Which.
        xid: u32,
        /// Why.
        error: CallFailure,
    },
    /// For the log, status output and the drill.
    Notice(Notice),
}

/// Why a call failed without a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallFailure {
    /// `soft`: becomes EIO.
    #[error(
        "no reply within timeo x (retrans + 1) = {0:?} on a soft mount; raise timeo or retrans, or mount hard"
    )]
    Soft(Duration),
    /// `softerr`: becomes ETIMEDOUT.
    #[error(
        "no reply within timeo x (retrans + 1) = {0:?} on a softerr mount; raise timeo or retrans, or mount hard"
    )]
    SoftErr(Duration),
    /// No reserved port can be bound at all.
    #[error("{0}")]
    Terminal(#[from] Terminal),
    /// [`super::Machine::disconnect`] was called.
    #[error("the mount was disconnected before the reply came")]
    Disconnected,
}

/// An error no retry can cure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Terminal {
    /// bind(2) refused a reserved port for want of privilege.
    #[error(
        "cannot bind reserved source port {port}: permission denied; grant CAP_NET_BIND_SERVICE, or mount with \
         noresvport (the export must then have the insecure option)"
    )]
    NoReservedPort {
        /// The port tried.
        port: u16,
    },
}
