//! Program 100000 for hosts without rpcbind, and registration with rpcbind where there is one.
//!
//! A client that is told no port asks port 111 of the server where NFS and MOUNT are. [`Portmapper`] answers there, for
//! this server alone. [`Registration`] leaves it to the host's rpcbind to answer. They exclude each other: there is one
//! port 111.
//!
//! | module | subject |
//! |---|---|
//! | `table` | what is where: which service a client means, at which address it sees it |
//! | `answer` | from call to reply; no sockets |
//! | `udp` | datagrams, answered from the address they came to |
//! | `plan`, `registration`, `rpcbind` | what to register, when, and how |
//!
//! Nothing here makes a good amplifier of a spoofed address: over UDP another host never gets more bytes than it sent,
//! and nobody's calls are relayed (CALLIT, BCAST, INDIRECT).

mod answer;
mod plan;
mod registration;
mod rpcbind;
mod table;
mod udp;

use std::fmt::Display;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use remoor_rpc::xdr::Writer;

use crate::net::{self, Answer, Entrances, Kind, Limits, Malformed, Origin, Outbox, Service};
use answer::{Asked, answer};
use table::{Table, Transport};
use udp::Datagrams;

pub use registration::Registration;
pub use remoor_rpc::portmap::PORT;

/// Threads for the connections of one address: one answers, one reads.
const WORKERS: usize = net::MIN_WORKERS;
/// Connections of one address, open at a time.
const MAX_CONNECTIONS: usize = 256;
/// Longest call, in bytes: the longest credential and verifier, and the longest arguments of SET.
const MAX_CALL: usize = 2048;

/// The built-in portmapper at work: program 100000, versions 2 to 4, over TCP and UDP. Dropping it stops it.
pub struct Portmapper {
    tcp: Vec<net::Handle<Calls>>,
    udp: Vec<Datagrams>,
}

impl Portmapper {
    /// Tells at these addresses, TCP and UDP, that NFS version 3 and MOUNT version 3 are served over TCP at `nfs`. Port
    /// 0 lets the kernel choose one.
    ///
    /// # Errors
    /// An address cannot be bound; the message says what may be done.
    pub fn start(listen: &[SocketAddr], nfs: &[SocketAddr]) -> io::Result<Self> {
        let bound = listen.iter().map(|address| bind_udp(*address)).collect::<io::Result<Vec<_>>>()?;
        let own: Vec<SocketAddr> = bound.iter().map(UdpSocket::local_addr).collect::<io::Result<_>>()?;
        let table = Arc::new(Table::new(nfs, &own));
        let tcp = own.iter().map(|address| listen_tcp(&table, *address)).collect::<io::Result<_>>()?;
        let udp =
            bound.into_iter().map(|socket| Datagrams::start(socket, &table)).collect::<io::Result<_>>()?;
        for address in &own {
            tracing::info!(
                "portmapper listening on {address} (TCP and UDP): NFS and MOUNT version 3 over TCP"
            );
        }
        Ok(Self { tcp, udp })
    }

    /// Where it answers, with the ports the kernel chose.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.tcp.iter().flat_map(net::Handle::local_addrs).collect()
    }
}

impl std::fmt::Debug for Portmapper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sockets = self.tcp.len() + self.udp.len();
        f.debug_struct("Portmapper").field("sockets", &sockets).finish_non_exhaustive()
    }
}

fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    udp::bind(address).map_err(|e| cannot_listen(address, "UDP", &e, &e))
}

fn cannot_listen(address: SocketAddr, transport: &str, why: &dyn Display, error: &io::Error) -> io::Error {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; rpcbind or another portmapper seems to run: register with rpcbind (--rpcbind), or stop it (systemctl stop rpcbind.socket rpcbind)"
        }
        io::ErrorKind::PermissionDenied => "; a port below 1024 needs CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => "; choose an address of this host",
        _ => "",
    };
    let told = format!("the portmapper cannot listen on {address} ({transport}): {why}{remedy}");
    io::Error::new(error.kind(), told)
}

fn listen_tcp(table: &Arc<Table>, address: SocketAddr) -> io::Result<net::Handle<Calls>> {
    let limits = Limits {
        connections: MAX_CONNECTIONS,
        record_bytes: MAX_CALL,
        backlog_calls: 8,
        backlog_bytes: 8 * MAX_CALL,
        idle: Duration::from_secs(60),
        stall: Duration::from_secs(10),
        drain: Duration::from_secs(1),
        ..Limits::default()
    };
    let calls = Arc::new(Calls { table: table.clone(), address: address.ip(), outbox: OnceLock::new() });
    let told = |e: io::Error| cannot_listen(address, "TCP", &e.kind(), &e);
    let entrances = Entrances { addresses: &[address], ..Entrances::default() };
    net::start(calls, entrances, WORKERS, limits).map_err(told)
}

/// Calls that come over the connections of one address.
struct Calls {
    table: Arc<Table>,
    address: IpAddr,
    outbox: OnceLock<Outbox>,
}

impl Calls {
    /// The address of this host that the caller is connected to.
    fn local(&self, origin: &Origin) -> IpAddr {
        let of_connection = || self.outbox.get()?.local_ip(origin.connection);
        if self.address.is_unspecified() { of_connection().unwrap_or(self.address) } else { self.address }
    }
}

impl Service for Calls {
    /// All are alike: none waits for anything, and none changes anything.
    fn kind(&self, _: &[u8]) -> Kind {
        Kind { is_idempotent: true, ..Kind::default() }
    }

    fn serve(&self, origin: &Origin, record: Bytes, reply: &mut Writer) -> Result<Answer, Malformed> {
        let asked = Asked { transport: Transport::Tcp, peer: origin.peer, local: &|| self.local(origin) };
        let answered = answer(&self.table, &asked, record).map_err(|e| Malformed(e.to_string()))?;
        reply.encoded(answered.message());
        Ok(Answer::Now)
    }

    fn started(&self, outbox: Outbox) {
        let _ = self.outbox.set(outbox);
    }
}

/// For fuzzing: the reply to a call, over UDP or over a connection, of the portmapper of a host with one address.
pub(crate) fn answered(peer: SocketAddr, call: Bytes, datagram: bool) -> Option<Bytes> {
    let local = Ipv4Addr::new(192, 0, 2, 1);
    let table = Table::new(&[(local, crate::NFS_PORT).into()], &[(local, PORT).into()]);
    if datagram {
        return udp::reply_at(&table, local, peer, call);
    }
    let asked = Asked { transport: Transport::Tcp, peer, local: &|| local.into() };
    answer(&table, &asked, call).ok().map(|reply| reply.message())
}

/// The address from which this host would speak to `peer`; sends nothing.
fn route_to(peer: SocketAddr) -> io::Result<IpAddr> {
    let any: SocketAddr = if peer.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(peer)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests;
