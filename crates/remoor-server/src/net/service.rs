//! The seam between sockets and what records mean.

use std::net::SocketAddr;

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
    /// Whether `peer` is a client's. The connection that a relay makes for itself, to see whether the server lives, has
    /// none: no export is for it, whatever the relay's own address may use.
    pub(crate) is_client: bool,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The reply was written.
    Now,
}

/// A record that cannot be answered.
#[derive(Debug, thiserror::Error)]
#[error("not an RPC call: {0}")]
pub(crate) struct Malformed(pub(crate) String);
