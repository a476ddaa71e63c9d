//! One call over a short connection of its own: to the portmapper, and to a MOUNT program that is not where NFS is.
//! MOUNT goes from a reserved port where NFS does, because a `secure` export looks at both.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use remoor_nfs::reconnect::{RESERVED_HI, RESERVED_LO};
use remoor_rpc::auth::OpaqueAuth;
use remoor_rpc::message::{self, Message, ReplyStatus};
use remoor_rpc::net::{self, SourceError};
use remoor_rpc::program::Procedure;
use remoor_rpc::record::RecordReader;
use remoor_rpc::xdr::Xdr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::call::seed;

/// Longest reply: a list of exports.
const MAX_REPLY: usize = 1 << 20;
/// Source ports tried that somebody else holds.
const MAX_PORTS: usize = 32;
/// Every call has a connection of its own.
const XID: u32 = 1;

/// A call without a result.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message says it")]
pub enum DialError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("cannot connect to {0}: {1}")]
    Connect(SocketAddr, io::Error),
    #[error("{0}: the connection ended before the reply: {1}")]
    Ended(SocketAddr, io::Error),
    #[error("{0} answered {1}")]
    Status(SocketAddr, ReplyStatus),
    #[error("{0} sent a malformed reply: {1}")]
    Malformed(SocketAddr, String),
}

/// Calls `P` at `dest`, from a reserved port or from any. It has all the time in the world: the caller has the clock.
pub async fn call<P: Procedure>(
    dest: SocketAddr,
    reserved: bool,
    credential: &OpaqueAuth,
    args: &P::Args,
) -> Result<P::Res, DialError> {
    let mut stream = if reserved { connect_reserved(dest).await? } else { connect(dest, 0).await? };
    let ended = |error| DialError::Ended(dest, error);
    let record = message::encode_call::<P>(XID, credential, args);
    stream.write_all(&record.segments().concat()).await.map_err(ended)?;
    let reply = receive(&mut stream, dest).await?;
    decode::<P>(reply, dest)
}

async fn connect_reserved(dest: SocketAddr) -> Result<TcpStream, DialError> {
    let excluded = net::excluded_ports();
    let ports: Vec<u16> = (RESERVED_LO..=RESERVED_HI).filter(|port| !excluded.contains(port)).collect();
    let start = seed() as usize % ports.len().max(1);
    let mut outcome = None;
    for port in ports.iter().cycle().skip(start).take(MAX_PORTS.min(ports.len())) {
        match connect(dest, *port).await {
            Err(error) if error.is_port_in_use() => outcome = Some(error),
            other => return other,
        }
    }
    let none = || io::Error::other("every reserved source port is excluded, see /etc/bindresvport.blacklist");
    Err(outcome.unwrap_or_else(|| DialError::Connect(dest, none())))
}

async fn connect(dest: SocketAddr, port: u16) -> Result<TcpStream, DialError> {
    let socket = net::socket_from(port, &dest)?;
    let connecting = TcpSocket::from_std_stream(socket.into()).connect(dest);
    connecting.await.map_err(|error| DialError::Connect(dest, error))
}

async fn receive(stream: &mut TcpStream, dest: SocketAddr) -> Result<Bytes, DialError> {
    let mut reader = RecordReader::new(MAX_REPLY);
    loop {
        let malformed = |error: remoor_rpc::record::Error| DialError::Malformed(dest, error.to_string());
        if let Some(record) = reader.next_record().map_err(malformed)? {
            return Ok(record);
        }
        match stream.read_buf(reader.buffer()).await {
            Ok(0) => return Err(DialError::Ended(dest, io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(error) => return Err(DialError::Ended(dest, error)),
        }
    }
}

fn decode<P: Procedure>(record: Bytes, dest: SocketAddr) -> Result<P::Res, DialError> {
    let malformed = |error: &dyn std::fmt::Display| DialError::Malformed(dest, error.to_string());
    let Message::Reply(mut reply) = Message::decode(record).map_err(|error| malformed(&error))? else {
        return Err(malformed(&"it is a call"));
    };
    if reply.xid != XID {
        return Err(malformed(&"it answers another call"));
    }
    if reply.status != ReplyStatus::Success {
        return Err(DialError::Status(dest, reply.status));
    }
    P::Res::decode(&mut reply.result).map_err(|error| malformed(&error))
}

impl DialError {
    fn is_port_in_use(&self) -> bool {
        let (Self::Source(SourceError { source: error, .. }) | Self::Connect(_, error)) = self else {
            return false;
        };
        matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
    }

    /// No other port and no later time helps.
    pub(crate) fn is_privilege_missing(&self) -> bool {
        matches!(self, Self::Source(error) if error.source.kind() == io::ErrorKind::PermissionDenied)
    }
}
