//! The seam between sockets and what records mean.

use std::net::{IpAddr, SocketAddr};
use std::sync::Weak;
use std::time::{Duration, Instant};

use bytes::Bytes;
use remoor_rpc::xdr::Writer;

use super::schedule::ConnectionId;

/// Answers records.
pub(crate) trait Service: Send + Sync + 'static {
    /// What a look at a call's head tells.
    fn kind(&self, record: &[u8]) -> Kind;
    /// Executes a call, and writes its reply to `reply`, which is empty and may be left half written if the answer is not
    /// [`Answer::Now`]. An error means that the peer does not speak RPC: the connection is closed.
    fn serve(&self, origin: &Origin, record: Bytes, reply: &mut Writer) -> Result<Answer, Malformed>;
    /// The service runs from now on, and can answer calls later.
    fn started(&self, _: Outbox) {}
    /// This reply, of an [`Answer::Tell`], ends at this position in the stream of bytes to the client. It may not have
    /// been sent yet.
    fn told(&self, _: &Origin, _ticket: u64, _reply: &Writer, _end: u64) {}
    /// The call of [`Outbox::execute`] with this ticket was not executed, because its connection was closed before.
    fn dropped(&self, _ticket: u64) {}
    /// A connection has ended; told once. Nothing can be sent to it any more.
    fn ended(&self, _: ConnectionId, _: End) {}
    /// Called at the latest when it last asked to be, or after [`TICK`](super::limits::LAPSE_TICK).
    fn tick(&self, _now: Instant) -> Option<Instant> {
        None
    }
}

/// What can be told of a call before it is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Kind {
    /// A NULL procedure: it is answered at once, whatever waits.
    pub(crate) is_null: bool,
    /// Executing it twice does no harm, so a call of a connection that was reset meanwhile may be executed.
    pub(crate) is_idempotent: bool,
    /// Calls that take about as long, below [`CLASSES`](super::pace::CLASSES).
    pub(crate) class: u8,
}

/// Where a call comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Its connection.
    pub(crate) connection: ConnectionId,
    /// The client's address; behind a relay that which the relay names.
    pub(crate) peer: SocketAddr,
    /// Of [`Outbox::execute`]; `None` for a call that was just received.
    pub(crate) ticket: Option<u64>,
    /// Whether `peer` is a client's. The connection that a relay makes for itself, to see whether the server lives, has
    /// none: no export is for it, whatever the relay's own address may use.
    pub(crate) is_client: bool,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The reply was written.
    Now,
    /// The reply was written, and [`Service::told`] is to be called with this ticket.
    Tell(u64),
    /// The reply comes by way of [`Outbox::send`]: until then the connection is not idle.
    Later,
    /// None: the client has its answer by another call, or is to have none.
    Never,
    /// The connection is reset, so that the client comes again.
    Reset,
}

/// How a connection ended, as far as this host knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// The client ended its side, every call it had sent was answered, and no error was seen.
    Clean,
    /// A RST, by either side.
    Reset,
    /// The kernel gave up on it.
    TimedOut,
    /// This server ended it: it was idle, or malformed, or the server stops.
    Closed,
}

/// The end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// How.
    pub(crate) how: How,
    /// Bytes of replies, record marks included, that the peer's TCP acknowledged.
    pub(crate) acked: u64,
}

/// What the kernel knows of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Its socket has no error, and neither side is known to have left.
    Open {
        /// Bytes of replies, record marks included, that the client's TCP acknowledged; `None` through a relay, of
        /// whose client nothing is known.
        acked: Option<u64>,
        /// Retransmissions and probes in a row that were not answered.
        retransmits: u32,
        /// Time since the peer's TCP was last heard.
        silent: Duration,
    },
    /// It is at its end; [`Service::ended`] was or will be told.
    Ended(End),
    /// It is gone, and [`Service::ended`] was told.
    Gone,
}

/// What a service may do of its own accord. Calls of it do nothing once the server has stopped.
#[derive(Clone)]
pub(crate) struct Outbox(Weak<dyn Network>);

/// The network as an [`Outbox`] sees it.
pub(crate) trait Network: Send + Sync {
    fn send(&self, to: ConnectionId, reply: &Writer, answers: bool) -> Option<u64>;
    fn execute(&self, connection: ConnectionId, record: Bytes, kind: Kind, ticket: u64) -> bool;
    fn standing(&self, connection: ConnectionId) -> Standing;
    fn local_ip(&self, connection: ConnectionId) -> Option<IpAddr>;
    fn probe(&self, connection: ConnectionId);
}

impl Outbox {
    pub(crate) fn new(network: Weak<dyn Network>) -> Self {
        Self(network)
    }

    /// Sends a reply. `answers`: it is that of an [`Answer::Later`] of this connection. Where it ends in the stream of
    /// bytes to the client; `None` if the connection is gone.
    pub(crate) fn send(&self, to: ConnectionId, reply: &Writer, answers: bool) -> Option<u64> {
        self.0.upgrade()?.send(to, reply, answers)
    }

    /// Gives a call to [`Service::serve`] again, by a worker and with this ticket; its answer counts as that of the
    /// [`Answer::Later`] it was given before. False if the connection is gone.
    pub(crate) fn execute(&self, connection: ConnectionId, record: Bytes, kind: Kind, ticket: u64) -> bool {
        self.0.upgrade().is_some_and(|network| network.execute(connection, record, kind, ticket))
    }

    /// What the kernel knows of a connection: two system calls.
    pub(crate) fn standing(&self, connection: ConnectionId) -> Standing {
        self.0.upgrade().map_or(Standing::Gone, |network| network.standing(connection))
    }

    /// The address of this host that a connection was made to: one system call. `None` if it is gone.
    pub(crate) fn local_ip(&self, connection: ConnectionId) -> Option<IpAddr> {
        self.0.upgrade()?.local_ip(connection)
    }

    /// Makes the kernel ask the peer whether it lives, as soon as it has been silent for a second. Its answer shows in
    /// [`Outbox::standing`].
    pub(crate) fn probe(&self, connection: ConnectionId) {
        if let Some(network) = self.0.upgrade() {
            network.probe(connection);
        }
    }
}

/// A record that cannot be answered.
#[derive(Debug, thiserror::Error)]
#[error("not an RPC call: {0}")]
pub(crate) struct Malformed(pub(crate) String);
