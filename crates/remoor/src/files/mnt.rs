//! The MOUNT program where it is: on the port of NFS, on a port that was named, or where the portmapper says.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::BytesMut;
use remoor_client::{CallError, Client};
use remoor_nfs::mnt;
use remoor_nfs::reconnect::{RESERVED_HI, RESERVED_LO};
use remoor_rpc::auth::{AuthSys, OpaqueAuth};
use remoor_rpc::message::{self, Message, ReplyStatus};
use remoor_rpc::net;
use remoor_rpc::portmap::{self, v2};
use remoor_rpc::program::Procedure;
use remoor_rpc::record::RecordReader;
use remoor_rpc::xdr::Xdr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::OnceCell;

/// How long a server has for one call: it is up, since NFS has answered.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest reply: a list of exports.
const MAX_REPLY: usize = 1 << 20;
/// Reserved ports tried; others use them, too.
const MAX_PORTS: usize = 32;

/// Calls MOUNT.
#[derive(Debug)]
pub(crate) struct Mounter {
    client: Client,
    server: SocketAddr,
    reserved: bool,
    /// Its own port; `None` for that of NFS.
    port: OnceCell<Option<u16>>,
}

impl Mounter {
    /// Of the server that `client` calls at `server`; `port` if one was named.
    pub(crate) fn new(client: Client, server: SocketAddr, port: Option<u16>, reserved: bool) -> Self {
        let port = OnceCell::new_with(port.filter(|port| *port != server.port()).map(Some));
        Self { client, server, reserved, port }
    }

    pub(crate) async fn call<P: Procedure>(&self, args: P::Args) -> Result<P::Res>
    where
        P::Args: Clone,
    {
        let find = || async { find(&self.client, self.server).await };
        match self.port.get_or_try_init(find).await? {
            None => Ok(self.client.call::<P>(args).await?),
            Some(port) => call_at::<P>(SocketAddr::new(self.server.ip(), *port), self.reserved, args).await,
        }
    }
}

/// Where MOUNT is: most servers with one port have it there, and others tell their portmapper.
async fn find(client: &Client, server: SocketAddr) -> Result<Option<u16>> {
    match client.call::<mnt::Null>(()).await {
        Ok(()) => return Ok(None),
        Err(CallError::Status {
            status: ReplyStatus::ProgUnavail | ReplyStatus::ProgMismatch { .. },
            ..
        }) => {}
        Err(error) => return Err(error.into()),
    }
    let mapping =
        v2::Mapping { program: mnt::Null::PROGRAM, version: mnt::Null::VERSION, protocol: v2::TCP, port: 0 };
    let portmapper = SocketAddr::new(server.ip(), portmap::PORT);
    let port = call_at::<v2::GetPort>(portmapper, false, mapping).await.with_context(|| {
        format!("{server} has no MOUNT, and its portmapper does not tell where it is; name it with ?mountport=PORT")
    })?;
    match u16::try_from(port) {
        Ok(port) if port != 0 => Ok(Some(port)),
        _ => bail!("{server} has no MOUNT version 3 over TCP; name its port with ?mountport=PORT"),
    }
}

/// One call over a connection of its own, in limited time.
async fn call_at<P: Procedure>(server: SocketAddr, reserved: bool, args: P::Args) -> Result<P::Res> {
    let called = tokio::time::timeout(PATIENCE, call::<P>(server, reserved, args)).await;
    let called = called.unwrap_or_else(|_| bail!("no answer in {} s", PATIENCE.as_secs()));
    called.with_context(|| format!("{} at {server}", P::NAME))
}

async fn call<P: Procedure>(server: SocketAddr, reserved: bool, args: P::Args) -> Result<P::Res> {
    let mut stream = connect(server, reserved).await?;
    let user = AuthSys::new("", rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let xid = random() as u32;
    let call = message::encode_call::<P>(xid, &OpaqueAuth::sys(&user), &args);
    stream.write_all(&call.segments().concat()).await?;
    let (mut reader, mut part) = (RecordReader::new(MAX_REPLY), BytesMut::new());
    let record = loop {
        if let Some(record) = reader.next_record()? {
            break record;
        }
        part.clear();
        if stream.read_buf(&mut part).await? == 0 {
            bail!("the server closed the connection");
        }
        reader.push(&part);
    };
    let Message::Reply(mut reply) = Message::decode(record)? else {
        bail!("the server answered with a call")
    };
    if reply.xid != xid || reply.status != ReplyStatus::Success {
        bail!("the server answered {}", reply.status);
    }
    let result = P::Res::decode(&mut reply.result)?;
    reply.result.finish(P::NAME)?;
    Ok(result)
}

async fn connect(server: SocketAddr, reserved: bool) -> Result<TcpStream> {
    if !reserved {
        return Ok(connect_from(0, server).await?);
    }
    let excluded = net::excluded_ports();
    let ports: Vec<u16> = (RESERVED_LO..=RESERVED_HI).filter(|port| !excluded.contains(port)).collect();
    let start = random() as usize % ports.len().max(1);
    let mut tried = io::Error::other("every reserved port is excluded");
    for port in ports.iter().cycle().skip(start).take(MAX_PORTS.min(ports.len())) {
        match connect_from(*port, server).await {
            Err(e) if matches!(e.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable) => {
                tried = e
            }
            connected => return Ok(connected?),
        }
    }
    Err(tried).context("cannot find a reserved port that is free; -o noresvport takes another")
}

async fn connect_from(port: u16, server: SocketAddr) -> io::Result<TcpStream> {
    let socket = net::socket_from(port, &server).map_err(|error| error.source)?;
    TcpSocket::from_std_stream(socket.into()).connect(server).await
}

fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}
