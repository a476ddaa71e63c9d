//! What a client tells of itself. Every field has its unit in its name or its description; the shape is that of the
//! JSON.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

pub use super::histogram::Latency;

/// A client at one moment. Made from memory alone: no server is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The server's name, as it was given.
    pub server: String,
    /// Its addresses with the port, in the order in which attempts take them.
    pub addresses: Vec<String>,
    /// Seconds since the client was made.
    pub age_secs: f64,
    /// One for each connection (`nconnect`).
    pub connections: Vec<Connection>,
    /// Each procedure that was called, in the order of its program and number.
    pub procedures: Vec<Procedure>,
    /// Calls not answered yet.
    pub in_flight_calls: u64,
    /// The oldest of them first, at most 1024.
    pub in_flight: Vec<InFlight>,
    /// The last 64 times a connection's calls went to another, the oldest first.
    pub reconnects: Vec<Reconnect>,
}

/// One connection of a client, as its machine has it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Connection {
    /// `idle`, `connecting`, `proving`, `backing-off`, `ready`, `suspect`, `draining` or `failed`.
    pub state: Cow<'static, str>,
    /// False from "server not responding" to "server OK".
    pub responding: bool,
    /// Address and port of the server that carries the calls, or that was tried last.
    pub server_address: Option<String>,
    /// Source port of the connection that carries the calls.
    pub source_port: Option<u16>,
    /// When that connection took over, milliseconds since 1970.
    pub connected_unix_ms: Option<u64>,
    /// Connection attempts, since the client was made.
    pub attempts: u64,
    /// Attempts that failed or used up their time.
    pub failed_attempts: u64,
    /// Why the last of them failed.
    pub last_failure: Option<String>,
    /// Times the calls went to another connection.
    pub reconnects: u64,
    /// Times the connection was silent for the suspicion interval with calls in flight.
    pub suspicions: u64,
    /// Suspicions that the connection ended by speaking.
    pub false_alarms: u64,
    /// Calls sent again on another connection.
    pub resent_calls: u64,
    /// Calls sent again on the same connection after `timeo`.
    pub retransmitted_calls: u64,
    /// Replies to no call in flight.
    pub stray_replies: u64,
    /// Smoothed time from a sending to its reply, microseconds.
    pub reply_time_us: Option<u64>,
}

/// One procedure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Procedure {
    /// `NFS` or `MOUNT`; `other` for anything else.
    pub program: Cow<'static, str>,
    /// Its name as in its RFC.
    pub name: Cow<'static, str>,
    /// Calls made.
    pub calls: u64,
    /// Calls that were answered with a result, whatever its status.
    pub answered: u64,
    /// Calls that failed without a result: a soft mount's timeout, an RPC error, a malformed reply.
    pub errors: u64,
    /// Calls whose caller stopped waiting.
    pub given_up: u64,
    /// Sendings beyond the first of a call, on the same or another connection.
    pub retransmissions: u64,
    /// Bytes of the calls, record marks included, each sending counted.
    pub sent_bytes: u64,
    /// Bytes of the replies, record marks included.
    pub received_bytes: u64,
    /// Time from call to reply.
    pub latency: Latency,
}

/// A call that is not answered yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InFlight {
    /// Its program.
    pub program: Cow<'static, str>,
    /// Its procedure.
    pub name: Cow<'static, str>,
    /// Seconds since it was made.
    pub age_secs: f64,
}

/// A connection's calls went to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reconnect {
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// Which connection of `nconnect`, from 0.
    pub connection: usize,
    /// Why.
    pub reason: String,
    /// Source port left.
    pub from_port: u16,
    /// Source port taken.
    pub to_port: u16,
    /// Server address left, with its port.
    pub from_address: String,
    /// Server address taken, with its port.
    pub to_address: String,
    /// From the last byte of the old connection to the proof of the new one, milliseconds.
    pub gap_ms: f64,
    /// Calls sent again.
    pub resent_calls: usize,
    /// Attempts it took.
    pub attempts: u32,
}
