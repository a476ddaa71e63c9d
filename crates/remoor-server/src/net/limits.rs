//! Every bound of the network side, by name.

use std::time::Duration;

use remoor_rpc::record::DEFAULT_MAX_RECORD;

/// What connections may take of this process. [`Limits::default`] is meant for production.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at a time. For a further one the longest idle is closed, or if none is, the new one at once.
    pub connections: usize,
    /// Calls of one connection that execute at a time; the next ones wait in its backlog. NULL never waits.
    pub running_per_connection: usize,
    /// Calls of one connection that wait; at this many the connection is not read further.
    pub backlog_calls: usize,
    /// Bytes of the calls that wait, likewise. One record may go over it.
    pub backlog_bytes: usize,
    /// Bytes of replies, but for file data in the page cache, that the client has not taken; above it the connection is not read further. The replies
    /// of the calls that execute at that moment may go over it.
    pub reply_bytes: usize,
    /// Calls of all connections that execute or wait; at this many no connection is read. NULL does not count.
    pub calls: usize,
    /// Bytes of those calls, of records that are still coming, and of replies not taken, of all connections; likewise.
    pub bytes: usize,
    /// Longest record, in bytes; a longer one ends the connection.
    pub record_bytes: usize,
    /// A connection without a call for this long is closed; knfsd uses 6 minutes (`svc_conn_age_period`).
    pub idle: Duration,
    /// A connection that stands in the middle of a record or a reply without progress for this long is closed.
    pub stall: Duration,
    /// How long [`Running::stop`](crate::Running::stop) waits for calls that execute and replies not yet taken.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16_384,
            running_per_connection: 8,
            backlog_calls: 128,
            backlog_bytes: 4 << 20,
            reply_bytes: 4 << 20,
            calls: 65_536,
            bytes: 512 << 20,
            record_bytes: DEFAULT_MAX_RECORD,
            idle: Duration::from_secs(360),
            stall: Duration::from_secs(60),
            drain: Duration::from_secs(10),
        }
    }
}

/// Threads that serve, unless told otherwise: they mostly wait for disks, so there are more than processors.
pub const DEFAULT_WORKERS: usize = 16;
/// Fewest threads: one executes calls and one stays free to read and to answer NULL.
pub const MIN_WORKERS: usize = 2;
/// What one look at a socket takes, in bytes: a batch of calls.
pub(super) const READ_BYTES: usize = 64 << 10;
/// A record that lacks at least this many bytes is received where it is kept, and not copied there.
pub(super) const MIN_READ_BYTES: usize = 4 << 10;
/// Most segments of one vectored write; Linux refuses more than `UIO_MAXIOV`.
pub(super) const MAX_SEGMENTS: usize = 64;
/// Replies' segments from this many bytes on are sent from where they are; shorter ones are copied behind each other.
pub(crate) const SHARE_FROM: usize = 8 << 10;
/// Bytes of replies in the page cache that a client has not taken, and above which the connection is not read further: as
/// [`Limits::reply_bytes`] for those in memory, but for READs that a client keeps in flight, since they take no memory of this
/// process.
pub(super) const REPLY_PAGES_BYTES: usize = 16 << 20;
/// A connection keeps a buffer of replies of up to this many bytes for the next ones, until it is idle.
pub(super) const KEEP_BYTES: usize = 32 << 10;
/// Bytes of replies that are gathered before they are sent.
pub(super) const GATHER_BYTES: usize = 128 << 10;
/// Replies are sent at the latest when this has passed since the first of them.
pub(super) const GATHER: Duration = Duration::from_micros(200);
/// Calls of one connection that a worker executes before it looks whether others wait.
pub(super) const TURN_CALLS: usize = 64;
/// And the time after which it looks.
pub(super) const TURN: Duration = Duration::from_millis(1);
/// A call that is expected to take longer is executed only after another worker can go on with what follows it. Waking
/// one costs a few microseconds.
pub(super) const SLOW_CALL: Duration = Duration::from_micros(150);
/// Bytes that a call moves in a nanosecond without being slow for that: what copying and hashing come to on a busy machine.
pub(super) const MOVED_BYTES_PER_NANO: u64 = 2;
/// A longer call counts as this long in the average: one alone makes no class of calls slow.
pub(super) const LONGEST_SAMPLE: Duration = Duration::from_millis(1);
/// Calls after a stuck one that are expected to be slow: among cached reads, few that wait for a disk are enough to
/// hold everybody up.
pub(super) const SUSPECT_CALLS: u32 = 64;
/// How often workers are looked at while there are calls; one in the same call at two looks is stuck.
pub(super) const LOOK: Duration = Duration::from_millis(1);
/// Looks at a worker in the same call after which it loses what waits behind that call even if it does not wait but
/// computes, or has no turn on a busy machine.
pub(super) const LOOKS_AT_RUNNING: u32 = 5;
/// Looks without a call after which workers are not looked at until there is one.
pub(super) const LOOKS_IN_VAIN: u32 = 20;
/// Events taken from epoll at a time.
pub(super) const EVENTS: usize = 8;
/// Waits in a row that gave a single event, after which one of several watchers goes to sleep.
pub(super) const SINGLE_EVENTS: u32 = 64;
/// A call that changes something is executed only if its connection was seen alive this shortly before.
pub(super) const ALIVE_FOR: Duration = Duration::from_micros(200);
/// Batches between attempts to receive more at once, while those are in vain.
pub(super) const EAGER_AFTER: u32 = 16;
/// While [`Limits::bytes`] or [`Limits::calls`] are in flight, a stalled connection is closed after this, so that the few
/// that take nothing do not keep out the others for [`Limits::stall`].
pub(super) const STALL_WHEN_FULL: Duration = Duration::from_secs(5);
/// A connection without a call for this long may be closed for a new one.
pub(super) const YIELD_AFTER: Duration = Duration::from_secs(1);
/// Pending connections the kernel keeps for `accept`.
pub(super) const LISTEN_BACKLOG: i32 = 1024;
/// How long a peer must be silent before it is probed; the least that TCP_KEEPIDLE takes (tcp(7)).
pub(super) const PROBE_IDLE: Duration = Duration::from_secs(1);
/// Probes without an answer that end a connection: the most that TCP_KEEPCNT takes.
pub(super) const MAX_PROBES: u32 = 127;
/// How often connections are looked through for idle and stalled ones.
pub(super) const SWEEP: Duration = Duration::from_secs(1);
/// How often the server notes that it runs: twenty times a second is next to nothing for a processor.
pub(super) const LAPSE_TICK: Duration = Duration::from_millis(50);
/// A server that has noted nothing for longer was not running. Several ticks, because a busy machine is late with
/// some, and a false alarm costs every client a reconnect.
pub(super) const LAPSE_AFTER: Duration = Duration::from_millis(500);
/// Pause after `accept` failed for want of descriptors or memory.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
