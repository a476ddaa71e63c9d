//! A listening socket.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use socket2::{Domain, Protocol, Socket, Type};

use super::lapse::Epoch;
use super::limits::LISTEN_BACKLOG;
use super::{canonical, locked};

pub(super) struct Listener {
    /// The address bound, with the port the kernel chose if 0 was asked.
    pub(super) address: SocketAddr,
    socket: Socket,
    /// Whoever handed it over keeps it open for the next server.
    shared: bool,
    /// The epoch at whose begin the connections that waited were reset.
    cleared: Mutex<Epoch>,
}

impl Listener {
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Self::open(address).map_err(|e| {
            io::Error::new(e.kind(), format!("cannot listen on {address}: {e}{}", remedy(&e)))
        })?;
        let bound = socket.local_addr()?.as_socket().unwrap_or(address);
        Ok(Self { address: bound, socket, shared: false, cleared: Mutex::default() })
    }

    /// A socket that another process has bound, and hands to every server in turn.
    pub(super) fn adopt(listener: TcpListener) -> io::Result<Self> {
        let socket = Socket::from(listener);
        let address = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        let failed = |e: io::Error| {
            io::Error::new(e.kind(), format!("cannot use the socket handed over for {address}: {e}"))
        };
        // Also where it listens already: [`Listener::clear`] counts on this many.
        socket.listen(LISTEN_BACKLOG).and_then(|()| socket.set_nonblocking(true)).map_err(failed)?;
        Ok(Self { address, socket, shared: true, cleared: Mutex::default() })
    }

    /// An IPv6 socket takes IPv6 only, so that `0.0.0.0` and `[::]` can both be listed.
    fn open(address: SocketAddr) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(LISTEN_BACKLOG)?;
        Ok(socket)
    }

    pub(super) fn register(&self, epoll: impl AsFd, data: u64) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::ONESHOT;
        Ok(epoll::add(epoll, &self.socket, EventData::new_u64(data), flags)?)
    }

    pub(super) fn rearm(&self, epoll: impl AsFd, data: u64) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::ONESHOT;
        Ok(epoll::modify(epoll, &self.socket, EventData::new_u64(data), flags)?)
    }

    /// Resets the connections that waited when `epoch` began: the kernel has taken calls for them meanwhile.
    pub(super) fn clear(&self, epoch: Epoch) -> io::Result<()> {
        let mut cleared = locked(&self.cleared);
        if *cleared == epoch {
            return Ok(());
        }
        // Reset when none is left, because a client that sees its reset connects again and is to be served.
        let mut waiting = Vec::new();
        // The kernel keeps one more than asked (`sk_acceptq_is_full`); all after that came later.
        for _ in 0..=LISTEN_BACKLOG {
            match self.socket.accept() {
                Ok((socket, _)) => waiting.push(socket),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e)
                    if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
                Err(e) => return Err(e),
            }
        }
        *cleared = epoch;
        // Closing it then resets it (`__tcp_close`).
        waiting.iter().for_each(|socket| _ = socket.set_linger(Some(Duration::ZERO)));
        Ok(())
    }

    /// A connection of `epoch` that is ready for use, or `WouldBlock`.
    pub(super) fn accept(&self, epoch: Epoch) -> io::Result<(Socket, SocketAddr)> {
        self.clear(epoch)?;
        let (socket, peer) = self.socket.accept()?;
        socket.set_nonblocking(true)?;
        // Fails if the client is gone already, which the first read tells.
        let _ = socket.set_tcp_nodelay(true);
        let peer = peer.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        Ok((socket, canonical(peer)))
    }

    /// Refuses new connections from now on; those of a shared socket wait for the next server.
    pub(super) fn close(&self, epoll: impl AsFd) {
        let _ = epoll::delete(epoll, &self.socket);
        if !self.shared {
            let _ = self.socket.shutdown(std::net::Shutdown::Both);
        }
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; stop the other NFS server (systemctl stop nfs-server) or choose another port"
        }
        io::ErrorKind::PermissionDenied => "; a port below 1024 needs CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => "; choose an address of this host",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_is_told_with_a_remedy() {
        let first = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = Listener::bind(first.address).err().unwrap().to_string();
        assert!(error.starts_with(&format!("cannot listen on {}: ", first.address)), "{error}");
        assert!(error.ends_with("or choose another port"), "{error}");
    }
}
