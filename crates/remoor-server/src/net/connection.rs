//! One TCP connection: records in, replies out, and what epoll shall report of it.
//!
//! Locks are taken in the order reader, writer, interest; `interest` is always innermost. Every change of what
//! decides the interest is followed by [`Connection::rearm`], so the last one to arm has seen all changes.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::{Buf, Bytes};
use remoor_rpc::record::{self, Record, RecordReader};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::net::{SendFlags, connect_unspec};
use socket2::Socket;

use super::lapse::Epoch;
use super::limits::{Limits, MAX_SEGMENTS, MIN_READ_BYTES, READ_BYTES};
use super::schedule::ConnectionId;
use super::{locked, sys};

pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) peer: SocketAddr,
    /// In which it was accepted.
    pub(super) epoch: Epoch,
    socket: Socket,
    reader: Mutex<RecordReader>,
    writer: Mutex<Outgoing>,
    interest: Mutex<Interest>,
    /// A whole record may lie in the reader, of which epoll knows nothing.
    buffered: AtomicBool,
    /// The schedule keeps enough calls of this connection waiting.
    pub(super) backlogged: AtomicBool,
    /// Records read that are neither executed nor known to the schedule yet.
    pub(super) undispatched: AtomicUsize,
    /// The client has ended its side; close when the last reply is out.
    pub(super) ended: AtomicBool,
    /// Written under the lock of `interest`.
    closed: AtomicBool,
    /// Bytes of replies not taken by the socket.
    unsent: AtomicUsize,
    max_unsent: usize,
    /// Milliseconds since the server's start at which bytes last moved.
    pub(super) progress_millis: AtomicU64,
}

#[derive(Default)]
struct Outgoing {
    segments: VecDeque<Bytes>,
}

#[derive(Default)]
struct Interest {
    /// What the kernel was last told to report; `None` after it reported (EPOLLONESHOT).
    armed: Option<EventFlags>,
    /// A worker is reading; it arms again when it has a record.
    reading: bool,
}

/// What a look at the socket gave.
pub(super) enum Taken {
    /// A whole record.
    Record(Bytes),
    /// Not yet a whole record.
    Nothing,
    /// The client ended its side.
    Ended,
}

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Record(#[from] record::Error),
}

impl Connection {
    pub(super) fn new(
        id: ConnectionId,
        socket: Socket,
        peer: SocketAddr,
        epoch: Epoch,
        limits: &Limits,
    ) -> Self {
        Self {
            id,
            peer,
            epoch,
            socket,
            reader: Mutex::new(RecordReader::new(limits.record_bytes)),
            writer: Mutex::default(),
            interest: Mutex::default(),
            buffered: AtomicBool::new(false),
            backlogged: AtomicBool::new(false),
            undispatched: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            unsent: AtomicUsize::new(0),
            max_unsent: limits.reply_bytes,
            progress_millis: AtomicU64::new(0),
        }
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

    /// Whether more replies wait than the limit allows, so that no further call is to be read or executed.
    pub(super) fn is_choked(&self) -> bool {
        self.unsent() > self.max_unsent
    }

    /// Whether the stream stands in the middle of a record; `true` also while a worker reads.
    pub(super) fn is_midway(&self) -> bool {
        self.reader.try_lock().map_or(true, |reader| !reader.is_idle())
    }

    /// Tells epoll of this connection for the first time.
    pub(super) fn register(&self, epoll: impl AsFd) -> io::Result<()> {
        let mut interest = locked(&self.interest);
        let flags = EventFlags::IN;
        epoll::add(epoll, &self.socket, EventData::new_u64(self.id), flags | EventFlags::ONESHOT)?;
        interest.armed = Some(flags);
        Ok(())
    }

    /// An event was reported, so epoll reports no more until armed again.
    pub(super) fn disarmed(&self) {
        locked(&self.interest).armed = None;
    }

    /// Takes the reading side, unless another worker has it.
    pub(super) fn claim(&self) -> bool {
        let mut interest = locked(&self.interest);
        let free = !interest.reading && !self.is_closed();
        interest.reading |= free;
        free
    }

    /// Gives the reading side back; [`Connection::rearm`] must follow.
    pub(super) fn release(&self) {
        locked(&self.interest).reading = false;
    }

    /// Asks epoll for what this connection waits for now. `draining`: it is not to be read any more.
    pub(super) fn rearm(&self, epoll: impl AsFd, draining: bool) -> io::Result<()> {
        let mut interest = locked(&self.interest);
        if self.is_closed() {
            return Ok(());
        }
        let wanted = self.wanted(interest.reading, draining);
        if interest.armed != Some(wanted) {
            let flags = wanted | EventFlags::ONESHOT;
            epoll::modify(epoll, &self.socket, EventData::new_u64(self.id), flags)?;
            interest.armed = Some(wanted);
        }
        Ok(())
    }

    /// A record that lies in the reader needs a worker though the socket has no news: "writable" wakes one.
    fn wanted(&self, reading: bool, draining: bool) -> EventFlags {
        let unsent = self.unsent();
        let paused = draining
            || reading
            || self.ended.load(Relaxed)
            || self.backlogged.load(Relaxed)
            || self.is_choked();
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, !paused);
        flags.set(EventFlags::OUT, unsent > 0 || (!paused && self.buffered.load(Relaxed)));
        flags
    }

    /// The next record: from the buffer, or with one look at the socket if `receive` is set.
    pub(super) fn take(&self, receive: bool) -> Result<Taken, Error> {
        let mut reader = locked(&self.reader);
        let taken = take(&mut reader, receive.then_some(&self.socket));
        self.buffered.store(reader.wanted() == 0, Relaxed);
        taken
    }

    /// Sends as much of a reply as the socket takes and keeps the rest.
    pub(super) fn send(&self, reply: &Record) -> io::Result<()> {
        let mut out = locked(&self.writer);
        out.segments.extend(reply.segments().iter().cloned());
        let mut unsent = self.unsent() + reply.len();
        let sent = out.flush(&self.socket, &mut unsent);
        self.unsent.store(unsent, Relaxed);
        sent
    }

    /// Sends what the socket takes of what was kept; whether that was anything.
    pub(super) fn flush(&self) -> io::Result<bool> {
        let mut out = locked(&self.writer);
        let before = self.unsent();
        let mut unsent = before;
        let sent = out.flush(&self.socket, &mut unsent);
        self.unsent.store(unsent, Relaxed);
        sent.map(|()| unsent < before)
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

fn take(reader: &mut RecordReader, socket: Option<&Socket>) -> Result<Taken, Error> {
    if let Some(record) = reader.next_record()? {
        return Ok(Taken::Record(record));
    }
    let Some(socket) = socket else { return Ok(Taken::Nothing) };
    loop {
        let room = make_room(reader);
        let got = match sys::recv_into(socket, reader.buffer()) {
            Ok(0) => return Ok(Taken::Ended),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Taken::Nothing),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e.into()),
        };
        if let Some(record) = reader.next_record()? {
            return Ok(Taken::Record(record));
        }
        if got < room {
            return Ok(Taken::Nothing);
        }
    }
}

/// Room for the rest of the record, whose length the reader has checked, or for one read.
fn make_room(reader: &mut RecordReader) -> usize {
    let wanted = reader.wanted();
    let buf = reader.buffer();
    if buf.capacity() - buf.len() < wanted.max(MIN_READ_BYTES) {
        buf.reserve(wanted.max(READ_BYTES));
    }
    buf.capacity() - buf.len()
}

impl Outgoing {
    fn flush(&mut self, socket: &Socket, unsent: &mut usize) -> io::Result<()> {
        while !self.segments.is_empty() {
            let slices: Vec<IoSlice<'_>> =
                self.segments.iter().take(MAX_SEGMENTS).map(|s| IoSlice::new(s)).collect();
            let flags = (SendFlags::NOSIGNAL | SendFlags::DONTWAIT).bits();
            match socket.send_vectored_with_flags(&slices, flags.cast_signed()) {
                Ok(n) => {
                    *unsent -= n;
                    self.advance(n);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn advance(&mut self, mut n: usize) {
        while let Some(front) = self.segments.front_mut() {
            if n < front.len() {
                return front.advance(n);
            }
            n -= front.len();
            self.segments.pop_front();
        }
    }
}
