//! One socket of the machine: connecting, then records in and records out, without waiting.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use remoor_nfs::reconnect::{AckState, CloseReason, ConnectError};
use remoor_rpc::net::{self, SourceError};
use remoor_rpc::record::{self, RecordReader};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};

use crate::report::Origin;
use crate::spare::Spare;

/// Room made for one read between records, in bytes. A longer record gets a buffer of its own length once its length is
/// known, and what was read of it until then is copied there.
const READ_SIZE: usize = 64 << 10;
/// Least room for a read into a buffer that is there already.
const MIN_ROOM: usize = 16 << 10;
/// Segments of one vectored write; `UIO_MAXIOV` is 1024.
const MAX_SLICES: usize = 64;
/// Segments up to this long are copied behind each other, so that many short calls are one segment.
const COPY_UP_TO: usize = 1024;

/// How often at most the kernel is asked what it has sent again: a busy connection makes many calls in that time.
const LOOK_EVERY: Duration = Duration::from_millis(50);

type Connecting = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

enum State {
    Connecting(Connecting),
    Open(TcpStream),
}

/// Makes a tail loss probe count as a retransmission. Linux sends one about 200 ms into a silence, and its first timed
/// retransmission only some 200 ms after that; `tcpi_retransmits` knows the second alone.
#[derive(Debug, Default)]
struct Settled {
    retransmitted: u32,
    looked: Option<Instant>,
}

impl Settled {
    /// Before something is sent: if all before it is acknowledged, what was sent again so far tells nothing of it.
    fn look(&mut self, stream: &TcpStream) {
        let now = tokio::time::Instant::now().into_std();
        if self.looked.is_some_and(|looked| now < looked + LOOK_EVERY) {
            return;
        }
        self.looked = Some(now);
        match net::acknowledgement(stream) {
            Ok(ack) if ack.unacked == 0 => self.retransmitted = ack.retransmitted,
            _ => {}
        }
    }
}

/// What a connection has to tell the machine.
#[derive(Debug)]
pub(crate) enum Happening {
    Connected { local_port: u16 },
    Failed(ConnectError),
    Received(Vec<Bytes>),
    Closed(CloseReason),
}

pub(crate) struct Connection {
    origin: Origin,
    state: State,
    reader: RecordReader,
    spare: Spare,
    out: Out,
    /// What had been sent again when all that was sent was acknowledged last.
    settled: Settled,
    /// Writing has failed, and what had arrived before is told.
    ended: Option<CloseReason>,
}

impl Connection {
    /// Starts to connect from `port`; it is the `attempt`th attempt in a row.
    pub(crate) fn open(port: u16, dest: SocketAddr, attempt: u32) -> Result<Self, ConnectError> {
        let socket =
            net::socket_from(port, &dest).map_err(|SourceError { source, .. }| bind_error(&source))?;
        let connecting = TcpSocket::from_std_stream(socket.into()).connect(dest);
        let origin = Origin { address: dest, attempt };
        Ok(Self::new(State::Connecting(Box::pin(connecting)), origin))
    }

    fn new(state: State, origin: Origin) -> Self {
        let reader = RecordReader::new(record::DEFAULT_MAX_RECORD);
        Self {
            origin,
            state,
            reader,
            spare: Spare::default(),
            out: Out::default(),
            settled: Settled::default(),
            ended: None,
        }
    }

    /// Where it goes, and how it came to be.
    pub(crate) fn origin(&self) -> Origin {
        self.origin
    }

    /// Queues a record.
    pub(crate) fn send(&mut self, segments: &[Bytes]) {
        if let State::Open(stream) = &self.state {
            self.settled.look(stream);
        }
        segments.iter().for_each(|segment| self.out.push(segment));
    }

    /// The next thing that happened.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Happening> {
        match &mut self.state {
            State::Connecting(connecting) => {
                let outcome = ready!(connecting.as_mut().poll(cx));
                Poll::Ready(self.opened(outcome))
            }
            State::Open(_) => {
                if let Some(how) = self.ended {
                    return Poll::Ready(Happening::Closed(how));
                }
                if let Poll::Ready(error) = self.poll_write(cx) {
                    return Poll::Ready(self.broken(&error));
                }
                self.poll_read(cx)
            }
        }
    }

    /// All records that have arrived, without waiting for more. It is the kernel that is asked: the runtime knows only
    /// what had arrived when it last waited. What arrives meanwhile is not read, so that this ends.
    pub(crate) fn drain(&mut self) -> Vec<Bytes> {
        let mut records = Vec::new();
        let mut left = self.arrived();
        while left > 0 {
            match self.read_arrived(left) {
                Ok(n) if n > 0 => left = left.saturating_sub(n),
                _ => break,
            }
            if self.take_records(&mut records).is_err() {
                break;
            }
        }
        records
    }

    /// Bytes the kernel holds for us.
    fn arrived(&self) -> usize {
        let State::Open(stream) = &self.state else { return 0 };
        rustix::io::ioctl_fionread(stream).map_or(0, |n| n as usize)
    }

    fn read_arrived(&mut self, most: usize) -> io::Result<usize> {
        let State::Open(stream) = &self.state else { return Ok(0) };
        let mut bytes = vec![0; most.min(READ_SIZE)];
        let n = rustix::io::read(stream, &mut bytes)?;
        self.reader.push(&bytes[..n]);
        Ok(n)
    }

    pub(crate) fn ack_state(&self) -> AckState {
        let State::Open(stream) = &self.state else { return AckState::default() };
        let ack = net::acknowledgement(stream).unwrap_or_default();
        // A closed window keeps its back-off while every probe is acknowledged: that server is stuck, not its path.
        let waiting = ack.unacked > 0 || ack.probes > 0;
        let probed = ack.retransmitted.saturating_sub(self.settled.retransmitted);
        AckState {
            unacked_for: waiting.then_some(ack.last_ack_received),
            retransmits: ack.retransmits.max(probed),
        }
    }

    /// The socket, if it is connected, to be left in one way or another.
    pub(crate) fn into_stream(self) -> Option<TcpStream> {
        match self.state {
            State::Open(stream) => Some(stream),
            State::Connecting(_) => None,
        }
    }

    fn opened(&mut self, outcome: io::Result<TcpStream>) -> Happening {
        let opened = outcome.and_then(|stream| Ok((stream.local_addr()?.port(), stream)));
        match opened {
            Ok((local_port, stream)) => {
                self.state = State::Open(stream);
                Happening::Connected { local_port }
            }
            Err(error) => Happening::Failed(connect_error(&error)),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let State::Open(stream) = &mut self.state else { return Poll::Pending };
        self.out.close();
        while !self.out.queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let used = slices.iter_mut().zip(&self.out.queue).map(|(slice, segment)| {
                *slice = IoSlice::new(segment);
            });
            let used = used.count();
            match ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &slices[..used])) {
                Ok(n) => advance(&mut self.out.queue, n),
                Err(error) => return Poll::Ready(error),
            }
        }
        Poll::Pending
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Happening> {
        match ready!(self.read_some(cx)) {
            Ok(0) => Poll::Ready(Happening::Closed(CloseReason::Fin)),
            Ok(_) => {
                let mut records = Vec::new();
                Poll::Ready(match self.take_records(&mut records) {
                    Err(_) => Happening::Closed(CloseReason::Protocol),
                    Ok(()) => Happening::Received(records),
                })
            }
            Err(error) => Poll::Ready(Happening::Closed(close_reason(&error))),
        }
    }

    /// Reads what has arrived: of a long record no byte beyond its end, so that its buffer is handed on whole.
    fn read_some(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let State::Open(stream) = &mut self.state else { return Poll::Pending };
        let wanted = self.reader.wanted().min(record::DEFAULT_MAX_RECORD + record::HEADER);
        let buffer = self.reader.buffer();
        let room = buffer.capacity() - buffer.len();
        if buffer.len() + wanted > READ_SIZE {
            if room < wanted {
                let mut long = self.spare.take(buffer.len() + wanted);
                long.extend_from_slice(buffer);
                *buffer = long;
            }
            return pin!(stream.read_buf(&mut buffer.limit(wanted))).poll(cx);
        }
        if room < wanted.max(MIN_ROOM) {
            buffer.reserve(READ_SIZE);
        }
        pin!(stream.read_buf(buffer)).poll(cx)
    }

    fn take_records(&mut self, records: &mut Vec<Bytes>) -> Result<(), record::Error> {
        while let Some(record) = self.reader.next_record()? {
            if record.len() > READ_SIZE {
                self.spare.remember(&record);
            }
            records.push(record);
        }
        Ok(())
    }

    /// A write failed: what had arrived before is told first. The error is kept, because the kernel tells it once and
    /// shows readers an ordinary end after it.
    fn broken(&mut self, error: &io::Error) -> Happening {
        self.out = Out::default();
        let (how, records) = (close_reason(error), self.drain());
        self.ended = Some(how);
        if records.is_empty() { Happening::Closed(how) } else { Happening::Received(records) }
    }
}

/// What is to be written.
#[derive(Debug, Default)]
struct Out {
    queue: VecDeque<Bytes>,
    /// Short segments, after all that is queued.
    short: BytesMut,
}

impl Out {
    fn push(&mut self, segment: &Bytes) {
        if segment.len() <= COPY_UP_TO {
            return self.short.extend_from_slice(segment);
        }
        self.close();
        self.queue.push_back(segment.clone());
    }

    /// Queues the short segments.
    fn close(&mut self) {
        if !self.short.is_empty() {
            self.queue.push_back(self.short.split().freeze());
        }
    }
}

fn advance(out: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(first) = out.front_mut() {
        if written < first.len() {
            return first.advance(written);
        }
        written -= first.len();
        out.pop_front();
    }
}

/// socket(2) and bind(2): only here does a missing permission mean the port.
fn bind_error(error: &io::Error) -> ConnectError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => ConnectError::PermissionDenied,
        _ => connect_error(error),
    }
}

fn connect_error(error: &io::Error) -> ConnectError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ConnectError::Refused,
        io::ErrorKind::ConnectionReset => ConnectError::Reset,
        io::ErrorKind::TimedOut => ConnectError::TimedOut,
        io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable => ConnectError::PortInUse,
        io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::PermissionDenied => ConnectError::Unreachable,
        _ => ConnectError::Other,
    }
}

fn close_reason(error: &io::Error) -> CloseReason {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            CloseReason::TimedOut
        }
        _ => CloseReason::Reset,
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write;
    use std::time::Duration;

    use socket2::SockRef;

    use super::*;

    const RECORD: &[u8] = b"\x80\0\0\x04abcd";

    /// A connection, and the server's end of it.
    fn pair() -> (Connection, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_nonblocking(true).unwrap();
        let origin = Origin { address: listener.local_addr().unwrap(), attempt: 1 };
        let connection = Connection::new(State::Open(TcpStream::from_std(stream).unwrap()), origin);
        (connection, listener.accept().unwrap().0)
    }

    async fn next(connection: &mut Connection) -> Happening {
        poll_fn(|cx| connection.poll(cx)).await
    }

    #[tokio::test]
    async fn a_drain_reads_what_the_runtime_does_not_know_of_yet() {
        let (mut connection, mut server) = pair();
        server.write_all(&RECORD.repeat(2)).unwrap();
        assert_eq!(connection.drain(), [&b"abcd"[..]; 2]);
        assert!(connection.drain().is_empty());
    }

    #[tokio::test]
    async fn a_reset_is_told_after_what_had_arrived_before_it() {
        let (mut connection, mut server) = pair();
        server.write_all(RECORD).unwrap();
        SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
        drop(server);
        connection.send(&[Bytes::from("call")]);
        let Happening::Received(records) = next(&mut connection).await else { panic!() };
        assert_eq!(records, [&b"abcd"[..]]);
        assert!(matches!(next(&mut connection).await, Happening::Closed(CloseReason::Reset)));
    }

    #[tokio::test]
    async fn a_closed_window_whose_probes_are_answered_is_no_dead_path() {
        let (connection, _server) = pair();
        let State::Open(stream) = &connection.state else { panic!() };
        while stream.writable().await.is_ok() && stream.try_write(&[0; 1 << 16]).is_ok() {}
        let backed_off = || {
            let ack = net::acknowledgement(stream).unwrap();
            ack.unacked == 0 && ack.retransmits > 0
        };
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        while !backed_off() {
            tick.tick().await;
        }
        assert_eq!(connection.ack_state().unacked_for, None);
    }

    #[test]
    fn a_route_or_filter_that_prohibits_the_connection_says_nothing_of_the_port() {
        let refused = io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(bind_error(&refused), ConnectError::PermissionDenied);
        assert_eq!(connect_error(&refused), ConnectError::Unreachable);
    }

    #[tokio::test]
    async fn long_and_short_records_are_told_apart_wherever_they_are_cut() {
        let (mut connection, mut server) = pair();
        let record = |len: usize| {
            let mark = (0x8000_0000 | len as u32).to_be_bytes();
            let bytes: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
            [&mark[..], &bytes].concat()
        };
        let lengths = [3, 1 << 20, 5000, 0, READ_SIZE, READ_SIZE + 1, 3 * READ_SIZE, 17];
        let stream: Vec<u8> = lengths.iter().flat_map(|len| record(*len)).collect();
        let writer = std::thread::spawn(move || server.write_all(&stream).map(|()| server));
        let mut received = Vec::new();
        while received.len() < lengths.len() {
            let Happening::Received(records) = next(&mut connection).await else { panic!() };
            received.extend(records);
        }
        for (len, received) in lengths.iter().zip(&received) {
            assert!(received[..] == record(*len)[4..], "{len}");
        }
        drop(writer.join().unwrap());
    }

    #[test]
    fn short_segments_are_one_and_long_ones_are_not_copied() {
        let (short, long) = (Bytes::from_static(b"call"), Bytes::from(vec![7; COPY_UP_TO + 1]));
        let mut out = Out::default();
        [&short, &short, &long, &short].into_iter().for_each(|segment| out.push(segment));
        out.close();
        assert_eq!(out.queue, [Bytes::from_static(b"callcall"), long.clone(), short]);
        assert_eq!(out.queue[1].as_ptr(), long.as_ptr());
    }

    #[test]
    fn a_partial_write_goes_on_where_it_stopped() {
        let mut out: VecDeque<Bytes> = ["abc", "", "defg"].map(Bytes::from).into();
        advance(&mut out, 0);
        advance(&mut out, 4);
        assert_eq!(out, ["efg"].map(Bytes::from));
        advance(&mut out, 3);
        assert!(out.is_empty());
    }
}
