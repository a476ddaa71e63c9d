//! A TCP socket bound to the source port the caller chose, and to no other.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::time::Duration;

/// Keep-alive of an idle connection, as the Linux client has it (`xs_tcp_set_socket_timeouts`), seconds.
const KEEPALIVE_SECS: u64 = 60;
const KEEPALIVE_RETRIES: u32 = 3;

/// bind(2) refused the chosen port.
#[derive(Debug, thiserror::Error)]
#[error("cannot bind source port {port}: {source}{}", remedy(*port, source))]
pub struct SourceError {
    /// The port.
    pub port: u16,
    /// The error of the call.
    pub source: io::Error,
}

fn remedy(port: u16, error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied && port < 1024 {
        "; ports below 1024 need CAP_NET_BIND_SERVICE: grant it, or mount with noresvport and export with insecure"
    } else {
        ""
    }
}

/// A non-blocking socket bound to `port` (0: the kernel chooses at connect), ready to connect to `dest`.
///
/// SO_REUSEADDR lets a port be bound again while its last connection is in TIME_WAIT; connect(2) then still refuses
/// with EADDRNOTAVAIL if the old socket is open or timestamps are off.
pub fn socket_from(port: u16, dest: &SocketAddr) -> Result<Socket, SourceError> {
    open_socket(port, dest).map_err(|source| SourceError { port, source })
}

fn open_socket(port: u16, dest: &SocketAddr) -> io::Result<Socket> {
    let socket =
        Socket::new(Domain::for_address(*dest), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    let every = Duration::from_secs(KEEPALIVE_SECS);
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(every).with_interval(every).with_retries(KEEPALIVE_RETRIES),
    )?;
    if port != 0 {
        socket.bind(&SocketAddr::new(any_like(dest), port).into())?;
    }
    Ok(socket)
}

fn any_like(dest: &SocketAddr) -> IpAddr {
    match dest {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn the_chosen_port_is_the_source_port_again_and_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dest = listener.local_addr().unwrap();
        let mut port = 0;
        for _ in 0..3 {
            let socket = socket_from(port, &dest).unwrap();
            socket.set_nonblocking(false).unwrap();
            socket.connect(&dest.into()).unwrap();
            let (_peer, from) = listener.accept().unwrap();
            assert!(port == 0 || from.port() == port);
            port = from.port();
        }
    }

    #[test]
    fn a_refused_reserved_port_names_both_remedies() {
        let source = io::Error::from(io::ErrorKind::PermissionDenied);
        let message = SourceError { port: 700, source }.to_string();
        assert!(message.contains("700") && message.contains("noresvport") && message.contains("insecure"));
    }
}
