//! The host's rpcbind, as one who registers with it.
//!
//! Over its Unix socket it knows the caller's user, and lets root register. Where there is none, loopback from a
//! reserved port proves as much as rpcbind asks for.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use remoor_rpc::auth::OpaqueAuth;
use remoor_rpc::message::{self, Message, ReplyStatus, encode_call};
use remoor_rpc::net::{excluded_ports, socket_from};
use remoor_rpc::portmap::rpcb::Rpcb;
use remoor_rpc::portmap::{PORT, v4};
use remoor_rpc::program::Procedure;
use remoor_rpc::record::{self, RecordReader};
use remoor_rpc::xdr::{self, Xdr};
use socket2::{Domain, SockAddr, Socket, Type};

/// Where rpcbind of libtirpc listens (`_PATH_RPCBINDSOCK`).
const SOCKET: &str = "/run/rpcbind.sock";
/// How long one read or write may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Reserved ports tried; another may hold some.
const PORT_TRIES: usize = 16;
/// Longest reply, in bytes: thousands of registrations, where hosts have dozens.
const MAX_REPLY: usize = 1 << 20;

/// Where a host's rpcbind is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) socket: PathBuf,
    pub(super) tcp: SocketAddr,
}

impl Default for Place {
    fn default() -> Self {
        Self { socket: SOCKET.into(), tcp: (Ipv4Addr::LOCALHOST, PORT).into() }
    }
}

/// What rpcbind could not be asked.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message says it")]
pub(super) enum Error {
    #[error(
        "cannot reach rpcbind at {socket} ({unix}) nor at {tcp} ({source}): start it (systemctl start rpcbind), or serve without --rpcbind"
    )]
    Unreachable { socket: String, unix: io::Error, tcp: SocketAddr, source: io::Error },
    #[error("rpcbind: {procedure}: {source}")]
    Io { procedure: &'static str, source: io::Error },
    #[error("rpcbind: {procedure}: {source}")]
    Record { procedure: &'static str, source: record::Error },
    #[error("rpcbind: {procedure}: its answer cannot be read: {source}")]
    Reply { procedure: &'static str, source: message::Error },
    #[error("rpcbind: {procedure}: {status}")]
    Status { procedure: &'static str, status: ReplyStatus },
}

/// A connection to rpcbind.
pub(super) struct Rpcbind {
    stream: Stream,
    reader: RecordReader,
    xid: u32,
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Rpcbind {
    pub(super) fn connect(place: &Place) -> Result<Self, Error> {
        let stream = connect_unix(&place.socket).or_else(|unix| {
            connect_tcp(place.tcp).map_err(|source| Error::Unreachable {
                socket: place.socket.display().to_string(),
                unix,
                tcp: place.tcp,
                source,
            })
        })?;
        Ok(Self { stream, reader: RecordReader::new(MAX_REPLY), xid: 1 })
    }

    /// All that is registered.
    pub(super) fn list(&mut self) -> Result<Vec<Rpcb>, Error> {
        self.call::<v4::Dump>(&()).map(|list| list.0)
    }

    /// Registers; false if rpcbind refuses.
    pub(super) fn set(&mut self, rpcb: &Rpcb) -> Result<bool, Error> {
        self.call::<v4::Set>(rpcb)
    }

    /// Takes a registration back; false if rpcbind refuses.
    pub(super) fn unset(&mut self, rpcb: &Rpcb) -> Result<bool, Error> {
        self.call::<v4::Unset>(rpcb)
    }

    fn call<P: Procedure>(&mut self, args: &P::Args) -> Result<P::Res, Error> {
        let procedure = P::NAME;
        self.xid += 1;
        let record = encode_call::<P>(self.xid, &OpaqueAuth::none(), args);
        let sent = self.stream.write_all(&record.segments().concat());
        sent.map_err(|source| Error::Io { procedure, source })?;
        let unread = |source: xdr::Error| Error::Reply { procedure, source: source.into() };
        loop {
            let record = self.record(procedure)?;
            let message = Message::decode(record).map_err(|source| Error::Reply { procedure, source })?;
            match message {
                Message::Reply(reply) if reply.xid == self.xid && reply.status == ReplyStatus::Success => {
                    return P::Res::decode(&mut reply.result.clone()).map_err(unread);
                }
                Message::Reply(reply) if reply.xid == self.xid => {
                    return Err(Error::Status { procedure, status: reply.status });
                }
                _ => {}
            }
        }
    }

    fn record(&mut self, procedure: &'static str) -> Result<bytes::Bytes, Error> {
        let mut buf = [0; 4096];
        loop {
            match self.reader.next_record().map_err(|source| Error::Record { procedure, source })? {
                Some(record) => return Ok(record),
                None => {
                    let read = self.stream.read(&mut buf).and_then(|n| match n {
                        0 => Err(io::ErrorKind::UnexpectedEof.into()),
                        n => Ok(n),
                    });
                    let n = read.map_err(|source| Error::Io { procedure, source })?;
                    self.reader.push(&buf[..n]);
                }
            }
        }
    }
}

impl Stream {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.write_all(bytes),
            Self::Tcp(stream) => stream.write_all(bytes),
        }
    }

    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buf),
            Self::Tcp(stream) => stream.read(buf),
        }
    }
}

/// The timeouts go first: a connection to one that is stuck waits as a write does (`unix_stream_connect`).
fn connect_unix(path: &Path) -> io::Result<Stream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(Stream::Unix(OwnedFd::from(socket).into()))
}

/// From the highest reserved port that is free and nobody's own.
fn connect_tcp(address: SocketAddr) -> io::Result<Stream> {
    let excluded = excluded_ports();
    let ports = (665..1024).rev().filter(|port| !excluded.contains(port)).take(PORT_TRIES);
    let mut failed = io::Error::from(io::ErrorKind::AddrInUse);
    for port in ports {
        match connect_from(port, address) {
            Err(e) if matches!(e.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable) => {
                failed = e
            }
            done => return done.map(Stream::Tcp),
        }
    }
    Err(failed)
}

fn connect_from(port: u16, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket_from(port, &address).map_err(|e| e.source)?;
    socket.set_nonblocking(false)?;
    socket.connect_timeout(&address.into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_accepts_nobody_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rpcbind.sock");
        let stuck = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        stuck.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        stuck.listen(0).unwrap();
        // Fills the one place there is.
        let _first = UnixStream::connect(&path).unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = Rpcbind::connect(&Place { socket: path, tcp: free }).err().unwrap();
        assert!(
            matches!(&error, Error::Unreachable { unix, .. } if unix.kind() == io::ErrorKind::WouldBlock)
        );
    }
}
