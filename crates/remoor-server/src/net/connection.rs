//! One TCP connection: records in, calls that wait, replies out, and what epoll shall report of it.
//!
//! A worker that was told of news *attends* to the connection: epoll is armed again when it is done, or has been taken
//! its attention because it is in a slow call.
//!
//! Locks are taken in the order reader, lane, writer, interest; `interest` is always innermost. Every change of what
//! decides the interest is followed by [`Connection::rearm`], so the last one to arm has seen all changes.

use std::io;
use std::net::{IpAddr, Shutdown};
use std::os::fd::AsFd;
use std::sync::atomic::{
    AtomicBool, AtomicIsize, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst,
};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use remoor_rpc::net::{Acknowledgement, acknowledgement};
use remoor_rpc::record::{self, RecordReader};
use remoor_rpc::xdr::Writer;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::net::connect_unspec;
use socket2::{Socket, TcpKeepalive};

use super::crew::Worker;
use super::lane::{Call, Lane};
use super::lapse::Epoch;
use super::limits::{Limits, MAX_PROBES, MIN_READ_BYTES, PROBE_IDLE, READ_BYTES, REPLY_PAGES_BYTES};
use super::load::{Load, Share};
use super::outgoing::Outgoing;
use super::pace::Pace;
use super::proxy::{NoHeader, is_header};
use super::relay::Relay;
use super::service::{How, Kind, Origin};
use super::{locked, sys};

pub(super) struct Connection {
    /// The other end of the socket; [`Connection::caller`] says who calls.
    pub(super) origin: Origin,
    relay: Option<Relay>,
    /// In which it was accepted.
    pub(super) epoch: Epoch,
    pub(super) pace: Pace,
    socket: Socket,
    reader: Mutex<RecordReader>,
    lane: Mutex<Lane>,
    writer: Mutex<Outgoing>,
    interest: Mutex<Interest>,
    /// The lane takes no more.
    stopped: AtomicBool,
    /// Long records come, of which the inbox shall take little more than the head: the rest is not to be copied.
    long_records: AtomicBool,
    /// NULL calls that were read and not executed.
    nulls: AtomicUsize,
    /// Batches since receiving more at once was last in vain, at most [`EAGER_AFTER`](super::limits::EAGER_AFTER).
    pub(super) eager: AtomicU32,
    pub(super) share: Share,
    /// It is not read because all connections together have too much in flight.
    pub(super) throttled: AtomicBool,
    /// Calls that the service answers later; below 0 while the answer of one is sent before the worker that asked for it
    /// knows that it comes later.
    awaited: AtomicIsize,
    /// The kernel was told to probe it.
    probes: AtomicBool,
    /// Why the socket is dead, once somebody has asked it.
    dead: OnceLock<How>,
    /// The client has ended its side; close when the last reply is out.
    pub(super) ended: AtomicBool,
    /// Written under the lock of `interest`.
    closed: AtomicBool,
    /// Bytes of replies that the socket did not take.
    unsent: AtomicUsize,
    /// Those of them that are in memory.
    in_memory: AtomicUsize,
    max_in_memory: usize,
    /// Milliseconds since the server's start at which bytes last moved.
    pub(super) progress_millis: AtomicU64,
}

#[derive(Default)]
struct Interest {
    /// What the kernel was last told to report; `None` after it reported (EPOLLONESHOT).
    armed: Option<EventFlags>,
    /// The worker that attends.
    attended: Option<Worker>,
}

/// What a look at the socket gave.
#[derive(Debug, Default)]
pub(super) struct Filled {
    /// Calls that were put into the lane.
    pub(super) calls: usize,
    /// NULL calls that were put into the inbox.
    pub(super) nulls: usize,
}

/// What [`Connection::flush`] came to.
#[derive(Debug, Default)]
pub(super) struct Flushed {
    /// The socket took something.
    pub(super) moved: bool,
    /// The connection was choked and is no more: whoever is told so, and nobody else is, ends its hold.
    pub(super) eased: bool,
}

/// Where one worker receives, for all connections: one that is idle holds no buffer.
pub(super) struct Inbox {
    buffer: Box<[u8]>,
    /// NULL calls that [`Connection::fill`] has found.
    pub(super) nulls: Vec<Bytes>,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; READ_BYTES].into(), nulls: Vec::new() }
    }
}

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Record(#[from] record::Error),
    #[error(transparent)]
    Header(#[from] NoHeader),
}

impl Connection {
    pub(super) fn new(
        origin: Origin,
        relay: Option<Relay>,
        socket: Socket,
        epoch: Epoch,
        limits: &Limits,
        load: Arc<Load>,
    ) -> Self {
        Self {
            origin,
            relay,
            epoch,
            pace: Pace::default(),
            socket,
            reader: Mutex::new(RecordReader::new(limits.record_bytes)),
            lane: Mutex::new(Lane::new(limits.backlog_calls, limits.backlog_bytes)),
            writer: Mutex::default(),
            interest: Mutex::default(),
            stopped: AtomicBool::new(false),
            long_records: AtomicBool::new(false),
            nulls: AtomicUsize::new(0),
            eager: AtomicU32::new(0),
            share: Share::new(load),
            throttled: AtomicBool::new(false),
            awaited: AtomicIsize::new(0),
            probes: AtomicBool::new(false),
            dead: OnceLock::new(),
            ended: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            unsent: AtomicUsize::new(0),
            in_memory: AtomicUsize::new(0),
            max_in_memory: limits.reply_bytes,
            progress_millis: AtomicU64::new(0),
        }
    }

    /// Whose calls these are.
    pub(super) fn caller(&self) -> Origin {
        match &self.relay {
            None => self.origin,
            Some(relay) => {
                let client = relay.client();
                Origin {
                    peer: client.unwrap_or(self.origin.peer),
                    is_client: client.is_some(),
                    ..self.origin
                }
            }
        }
    }

    /// Whether a relay is at the other end, whose TCP says nothing of the client's.
    pub(super) fn is_relayed(&self) -> bool {
        self.relay.is_some()
    }

    /// Whether it is known whose calls these are.
    pub(super) fn is_introduced(&self) -> bool {
        self.relay.as_ref().is_none_or(Relay::has_spoken)
    }

    /// The address of this host that it was made to.
    pub(super) fn local_ip(&self) -> Option<IpAddr> {
        let address = self.socket.local_addr().ok()?.as_socket()?;
        Some(address.ip().to_canonical())
    }

    /// Bytes of replies that wait for the client to read.
    pub(super) fn unsent(&self) -> usize {
        self.unsent.load(Relaxed)
    }

    /// Whether [`Connection::close`] was called: nobody waits for a reply any more.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// Whether the socket is dead, by the client's reset or an error, whatever of its bytes can still be read. `poll`
    /// leaves a pending error where it is, so that every worker sees it; EPOLLHUP is TCP_CLOSE or both sides shut
    /// (`tcp_poll`), and not the end of the client's side alone.
    pub(super) fn is_reset(&self) -> bool {
        let mut socket = [PollFd::new(&self.socket, PollFlags::empty())];
        let polled = retry_on_intr(|| poll(&mut socket, Some(&Timespec::default())));
        polled.is_err() || socket[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
    }

    /// Why a socket that [`Connection::is_reset`] is so. Asking takes the error from the socket, so it is kept.
    pub(super) fn death(&self) -> How {
        let ask = || self.socket.take_error().ok().flatten().map_or(How::Reset, |e| cause(&e));
        *self.dead.get_or_init(ask)
    }

    /// What the kernel knows of the bytes sent to the peer.
    pub(super) fn acknowledged(&self) -> Acknowledgement {
        acknowledgement(&self.socket).unwrap_or_default()
    }

    /// Makes the kernel send a keepalive probe at once if the peer has been silent for a second, else then. A peer that
    /// lives acknowledges it (RFC 9293 section 3.8.4), one that does not know the connection resets it. Setting the time
    /// again begins anew (`tcp_sock_set_keepidle_locked`), so that asking often sends often.
    pub(super) fn probe(&self) {
        let probing = TcpKeepalive::new().with_time(PROBE_IDLE).with_interval(PROBE_IDLE);
        // Silence alone does not end the connection: a host that was unreachable for a while is not reset.
        let _ = self.socket.set_tcp_keepalive(&probing.with_retries(MAX_PROBES));
        self.probes.store(true, Relaxed);
    }

    /// Ends what [`Connection::probe`] began.
    pub(super) fn calm(&self) {
        if self.probes.swap(false, Relaxed) {
            let _ = self.socket.set_keepalive(false);
        }
    }

    /// Whether more replies wait than the limit allows, so that no further call is to be read or executed.
    pub(super) fn is_choked(&self) -> bool {
        let in_memory = self.in_memory.load(Relaxed);
        in_memory > self.max_in_memory || self.unsent().saturating_sub(in_memory) > REPLY_PAGES_BYTES
    }

    /// Whether the stream stands in the middle of a record; `true` also while a worker reads.
    pub(super) fn is_midway(&self) -> bool {
        let named = self.relay.as_ref().is_none_or(|relay| !relay.is_midway());
        !named || self.reader.try_lock().map_or(true, |reader| !reader.is_idle())
    }

    /// Tells epoll of this connection for the first time.
    pub(super) fn register(&self, epoll: impl AsFd) -> io::Result<()> {
        let mut interest = locked(&self.interest);
        let flags = EventFlags::IN;
        let data = EventData::new_u64(self.origin.connection);
        epoll::add(epoll, &self.socket, data, flags | EventFlags::ONESHOT)?;
        interest.armed = Some(flags);
        Ok(())
    }

    /// An event was reported, so epoll reports no more until armed again. The worker attends to the connection unless
    /// another one does; whether it does.
    pub(super) fn attend(&self, worker: Worker) -> bool {
        let mut interest = locked(&self.interest);
        interest.armed = None;
        let free = interest.attended.is_none() && !self.is_closed();
        if free {
            interest.attended = Some(worker);
        }
        free
    }

    /// Whether the worker still attends.
    pub(super) fn is_attended_by(&self, worker: Worker) -> bool {
        locked(&self.interest).attended == Some(worker)
    }

    /// Ends a worker's attention, if it has it; [`Connection::rearm`] must follow.
    pub(super) fn leave(&self, worker: Worker) {
        let mut interest = locked(&self.interest);
        if interest.attended == Some(worker) {
            interest.attended = None;
        }
    }

    /// Asks epoll for what this connection waits for now. `draining`: it is not to be read any more.
    pub(super) fn rearm(&self, epoll: impl AsFd, draining: bool) -> io::Result<()> {
        let mut interest = locked(&self.interest);
        if self.is_closed() {
            return Ok(());
        }
        let wanted = self.wanted(interest.attended.is_some(), draining);
        if interest.armed != Some(wanted) {
            let data = EventData::new_u64(self.origin.connection);
            epoll::modify(epoll, &self.socket, data, wanted | EventFlags::ONESHOT)?;
            interest.armed = Some(wanted);
        }
        Ok(())
    }

    fn wanted(&self, attended: bool, draining: bool) -> EventFlags {
        let paused = draining
            || attended
            || self.ended.load(Relaxed)
            || self.throttled.load(Relaxed)
            || self.stopped.load(Relaxed)
            || self.is_choked();
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, !paused);
        flags.set(EventFlags::OUT, self.unsent() > 0);
        flags
    }

    /// Moves what has arrived into the lane, and NULL calls into the inbox: what was kept, and with `receive` what the
    /// socket has.
    pub(super) fn fill(
        &self,
        inbox: &mut Inbox,
        receive: bool,
        kind: impl Fn(&[u8]) -> Kind,
    ) -> Result<Filled, Error> {
        let mut reader = locked(&self.reader);
        let mut sorter =
            Sorter { connection: self, kind, nulls: &mut inbox.nulls, filled: Filled::default() };
        let mut room = sorter.sort(&mut reader, &mut &[][..])?;
        while room && receive {
            let space = if self.long_records.load(Relaxed) { MIN_READ_BYTES } else { READ_BYTES };
            let received = match receive_into(&self.socket, &mut reader, &mut inbox.buffer[..space]) {
                Ok(Received { bytes: 0, .. }) => {
                    self.ended.store(true, SeqCst);
                    break;
                }
                Ok(received) => received,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e.into()),
            };
            let input = if received.in_place { 0 } else { received.bytes };
            let before = sorter.filled.calls + sorter.filled.nulls;
            let input = &inbox.buffer[..input];
            let stripped = self.relay.as_ref().map(|relay| relay.strip(self.origin.peer, input));
            let stripped = stripped.transpose()?.flatten();
            let sorted = sorter.sort(&mut reader, &mut stripped.as_deref().unwrap_or(input));
            room = sorted.map_err(|e| {
                if self.is_misplaced(input) { NoHeader::Unlisted.into() } else { Error::from(e) }
            })?;
            let short = sorter.filled.calls + sorter.filled.nulls > before;
            if received.in_place || short {
                self.long_records.store(received.in_place, Relaxed);
            }
            // Of what follows epoll tells, unless it is the rest of a long record that is likely there already.
            room &= received.is_full && !reader.is_idle();
        }
        self.share.partial(reader.pending());
        Ok(sorter.filled)
    }

    /// Whether a peer that is no relay speaks as one.
    fn is_misplaced(&self, input: &[u8]) -> bool {
        self.relay.is_none() && is_header(input)
    }

    /// The next call to execute, and whether the connection is to be read again.
    pub(super) fn pop(&self) -> Option<(Call, bool)> {
        let mut lane = locked(&self.lane);
        let popped = lane.pop()?;
        self.stopped.store(lane.is_stopped(), Relaxed);
        Some(popped)
    }

    /// Calls that wait.
    pub(super) fn waiting(&self) -> usize {
        locked(&self.lane).len()
    }

    /// NULL calls that [`Connection::fill`] found are answered.
    pub(super) fn nulls_done(&self, n: usize) {
        if n > 0 {
            self.nulls.fetch_sub(n, SeqCst);
        }
    }

    /// Adds a call that was not received just now.
    pub(super) fn push(&self, call: Call) {
        self.share.received(1, call.record.len());
        locked(&self.lane).push(call);
    }

    /// A call is to be answered later.
    pub(super) fn promise(&self) {
        self.awaited.fetch_add(1, SeqCst);
    }

    /// A call that was to be answered later is.
    pub(super) fn keep_promise(&self) {
        self.awaited.fetch_sub(1, SeqCst);
    }

    /// Whether no call of it waits, but for those that runners execute.
    pub(super) fn is_clear(&self) -> bool {
        self.nulls.load(SeqCst) == 0 && self.awaited.load(SeqCst) == 0 && self.waiting() == 0
    }

    /// Takes out the calls that wait.
    pub(super) fn clear(&self) -> Vec<Call> {
        let mut lane = locked(&self.lane);
        std::iter::from_fn(|| lane.pop()).map(|(call, _)| call).collect()
    }

    /// Keeps a reply until [`Connection::flush`]; bytes that are kept, and the position of its end in the stream.
    pub(super) fn gather(&self, reply: &Writer) -> (usize, u64) {
        let mut out = locked(&self.writer);
        out.put(reply);
        (out.len(), out.position())
    }

    /// Sends what the socket takes.
    pub(super) fn flush(&self) -> io::Result<Flushed> {
        let mut out = locked(&self.writer);
        let before = out.len();
        if before == 0 {
            return Ok(Flushed::default());
        }
        let was_choked = self.is_choked();
        let sent = out.flush(&self.socket);
        self.in_memory.store(out.in_memory(), Relaxed);
        self.unsent.store(out.len(), Relaxed);
        self.share.unsent(out.len());
        sent.map(|()| Flushed { moved: out.len() < before, eased: was_choked && !self.is_choked() })
    }

    /// Gives back the memory of empty buffers.
    pub(super) fn shrink(&self) {
        locked(&self.reader).shrink();
        locked(&self.lane).shrink();
        locked(&self.writer).shrink();
    }

    /// Marks the connection closed; true for the one caller that is to [`Connection::shut_down`] or
    /// [`Connection::reset`] it.
    pub(super) fn close(&self) -> bool {
        let _interest = locked(&self.interest);
        !self.closed.swap(true, Relaxed)
    }

    /// Tells the client. Neither step can fail in a way that matters: the descriptor closes with the last reference.
    pub(super) fn shut_down(&self, epoll: impl AsFd) {
        let _ = epoll::delete(epoll, &self.socket);
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Tells the client with a RST, and drops what either side has sent and the other has not taken (`tcp_disconnect`). This
    /// does not wait for workers that hold the descriptor; should it fail, the last of them to close it resets.
    pub(super) fn reset(&self, epoll: impl AsFd) {
        let _ = epoll::delete(epoll, &self.socket);
        let _ = self.socket.set_linger(Some(Duration::ZERO));
        let _ = connect_unspec(&self.socket);
    }
}

/// What an error of a socket says of its end.
pub(super) fn cause(error: &io::Error) -> How {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut,
    };
    match error.kind() {
        ConnectionReset | ConnectionAborted | BrokenPipe => How::Reset,
        TimedOut | HostUnreachable | NetworkUnreachable => How::TimedOut,
        _ => How::Closed,
    }
}

/// Tells NULL calls from those that wait for their turn.
struct Sorter<'a, K> {
    connection: &'a Connection,
    kind: K,
    nulls: &'a mut Vec<Bytes>,
    filled: Filled,
}

impl<K: Fn(&[u8]) -> Kind> Sorter<'_, K> {
    /// Takes the whole records of what the reader has and of `input`; false if the lane takes no more.
    fn sort(&mut self, reader: &mut RecordReader, input: &mut &[u8]) -> Result<bool, record::Error> {
        let mut lane = locked(&self.connection.lane);
        loop {
            if lane.is_full() {
                self.connection.stopped.store(true, Relaxed);
                reader.keep_all(input);
                return Ok(false);
            }
            let Some(record) = reader.next_record_in(input)? else { return Ok(true) };
            let kind = (self.kind)(&record);
            if kind.is_null {
                self.connection.nulls.fetch_add(1, SeqCst);
                self.filled.nulls += 1;
                self.nulls.push(record);
            } else {
                self.filled.calls += 1;
                self.connection.share.received(1, record.len());
                lane.push(Call { kind, record, ticket: None });
            }
        }
    }
}

/// What a socket gave.
struct Received {
    bytes: usize,
    /// No more was asked for.
    is_full: bool,
    /// It is in the reader's buffer already.
    in_place: bool,
}

/// Receives into the inbox, or straight into the reader's buffer if that waits for the rest of a long record.
fn receive_into(socket: &Socket, reader: &mut RecordReader, inbox: &mut [u8]) -> io::Result<Received> {
    let wanted = reader.wanted();
    if reader.is_idle() || wanted < MIN_READ_BYTES {
        let bytes = sys::recv(socket, inbox)?;
        return Ok(Received { bytes, is_full: bytes == inbox.len(), in_place: false });
    }
    // The reader has checked the length.
    let buffer = reader.buffer();
    buffer.reserve(wanted);
    let bytes = sys::recv_into(socket, buffer, wanted)?;
    Ok(Received { bytes, is_full: bytes == wanted, in_place: true })
}
