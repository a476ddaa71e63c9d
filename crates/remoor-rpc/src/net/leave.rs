//! Ways to leave a connection, by what a stateful device in between sees of it.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::sys::{self, Queue, Repair};

/// A connection cannot be left in the way that was asked for.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot close a connection and free its port at once: {0}; grant CAP_NET_ADMIN, or choose abandon=reset"
)]
pub struct LeaveError(#[from] io::Error);

/// Makes close(2) send nothing, as when TCP_USER_TIMEOUT ends a socket with data in flight (`tcp_write_err` in
/// net/ipv4/tcp_timer.c). Needs CAP_NET_ADMIN in the network namespace of the socket.
pub fn drop_silently(socket: &impl AsFd) -> Result<(), LeaveError> {
    Ok(sys::set_repair(socket, Repair::On)?)
}

/// Whether [`drop_silently`] is permitted here.
pub fn can_leave_silently() -> Result<(), LeaveError> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    Ok(sys::set_repair(&socket, Repair::On)?)
}

/// Closes a connection with RST, so that whatever tracks it forgets it.
///
/// An ordinary reset carries the sequence number after the last byte sent. With data in flight that is not the number
/// the far end acknowledged last, and a stateful device that follows RFC 5961 section 3.2 keeps the flow:
/// nf_conntrack compares with the last acknowledgement and leaves an inexact RST's entry ESTABLISHED
/// (`nf_conntrack_tcp_packet`). With CAP_NET_ADMIN two are sent: one that is exact for a device or server that saw
/// none of the data in flight, one for those that saw all of it. Without it, the ordinary one.
///
/// # Errors
/// The connection then closed without a packet, or with a FIN if not even SO_LINGER could be set.
pub fn reset(socket: OwnedFd) -> io::Result<()> {
    let Ok(remains) = Remains::of(&socket) else {
        return SockRef::from(&socket).set_linger(Some(Duration::ZERO));
    };
    drop(socket);
    for seq in remains.sequence_numbers() {
        remains.send_reset(seq)?;
    }
    Ok(())
}

/// Closes a connection with FIN and forgets it at once, so that its port is free: what a balancer sees of an ordinary
/// close whose FIN is retransmitted. An ordinary close with data in flight may never send its FIN, because Linux holds
/// it back behind retransmissions, and keeps the port until it gives up.
///
/// # Errors
/// [`LeaveError`] without CAP_NET_ADMIN; the connection then closes in the ordinary way. After any later failure it
/// closed without a packet.
pub fn finish_and_forget(socket: OwnedFd) -> Result<(), LeaveError> {
    let remains = Remains::of(&socket)?;
    drop(socket);
    for _ in 0..FIN_COPIES {
        remains.send_fin()?;
    }
    Ok(())
}

/// A FIN and its retransmission.
const FIN_COPIES: usize = 2;

/// What is known of a connection whose socket closes without a packet.
struct Remains {
    local: SockAddr,
    peer: SockAddr,
    /// Oldest byte not acknowledged (SND.UNA).
    unacknowledged: u32,
    /// After the last byte sent (SND.NXT).
    next: u32,
    /// Next byte expected (RCV.NXT).
    receive_next: u32,
}

impl Remains {
    /// Puts `socket` into repair mode; from here on closing it sends nothing. On an error it is as it was before.
    fn of(socket: &OwnedFd) -> io::Result<Self> {
        sys::set_repair(socket, Repair::On)?;
        Self::read(socket).inspect_err(|_| {
            sys::set_repair(socket, Repair::OffNoProbe).ok();
        })
    }

    fn read(socket: &OwnedFd) -> io::Result<Self> {
        let (local, peer) = (SockRef::from(socket).local_addr()?, SockRef::from(socket).peer_addr()?);
        let (queued, unsent) = sys::unacknowledged(socket)?;
        let written = sys::queue_seq(socket, Queue::Send)?;
        let receive_next = sys::queue_seq(socket, Queue::Receive)?;
        Ok(Self {
            local,
            peer,
            unacknowledged: written.wrapping_sub(queued),
            next: written.wrapping_sub(unsent),
            receive_next,
        })
    }

    fn sequence_numbers(&self) -> impl Iterator<Item = u32> {
        let second = (self.next != self.unacknowledged).then_some(self.next);
        [self.unacknowledged].into_iter().chain(second)
    }

    /// A socket of the same ends, set to `seq`, is reset in the ordinary way.
    fn send_reset(&self, seq: u32) -> io::Result<()> {
        self.revived(seq)?.set_linger(Some(Duration::ZERO))
    }

    fn send_fin(&self) -> io::Result<()> {
        let socket = self.revived(self.next)?;
        socket.shutdown(Shutdown::Write)?;
        sys::set_repair(&socket, Repair::On)
    }

    /// The connection again, with nothing in its queues, about to send `seq`.
    fn revived(&self, seq: u32) -> io::Result<Socket> {
        let socket = Socket::new(self.peer.domain(), Type::STREAM.nonblocking().cloexec(), None)?;
        socket.set_reuse_address(true)?;
        sys::set_repair(&socket, Repair::On)?;
        socket.bind(&self.local)?;
        sys::set_queue_seq(&socket, Queue::Send, seq)?;
        sys::set_queue_seq(&socket, Queue::Receive, self.receive_next)?;
        socket.connect(&self.peer)?;
        sys::open_window(&socket, self.receive_next)?;
        sys::set_repair(&socket, Repair::OffNoProbe)?;
        Ok(socket)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use remoor_skip::skip;

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        pair_over("127.0.0.1", "127.0.0.1")
    }

    fn pair_over(server: &str, as_client_names_it: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((server, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect((as_client_names_it, port)).unwrap();
        let server = listener.accept().unwrap().0;
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        (client, server)
    }

    #[test]
    fn a_reset_reaches_the_peer_and_frees_the_port() {
        let (mut client, mut server) = pair();
        client.write_all(b"in flight").unwrap();
        let (local, peer) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        reset(client.into()).unwrap();
        let error = server.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(super::super::socket_from(local.port(), &peer).is_ok());
    }

    #[test]
    fn ipv6_connections_are_left_in_the_same_ways() {
        let test = "ipv6_connections_are_left_in_the_same_ways";
        if let Err(error) = can_leave_silently() {
            return skip(test, &error);
        }
        if let Err(error) = TcpListener::bind("[::1]:0") {
            return skip(test, format!("IPv6 is off (net.ipv6.conf.lo.disable_ipv6): {error}"));
        }
        for (server, name) in [("::1", "::1"), ("127.0.0.1", "::ffff:127.0.0.1")] {
            let (mut client, mut peer) = pair_over(server, name);
            client.write_all(b"in flight").unwrap();
            reset(client.into()).unwrap();
            let error = peer.read_to_end(&mut Vec::new()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{name}");
            let (client, mut peer) = pair_over(server, name);
            finish_and_forget(client.into()).unwrap();
            assert_eq!(peer.read(&mut [0]).unwrap(), 0, "{name}: the FIN arrived");
        }
    }

    #[test]
    fn a_forgotten_connection_has_ended_for_the_peer_and_frees_the_port() {
        if let Err(error) = can_leave_silently() {
            return skip("a_forgotten_connection_has_ended_for_the_peer_and_frees_the_port", &error);
        }
        let (client, mut server) = pair();
        let (local, peer) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        finish_and_forget(client.into()).unwrap();
        assert_eq!(server.read(&mut [0]).unwrap(), 0, "the FIN arrived");
        assert!(super::super::socket_from(local.port(), &peer).is_ok());
    }

    #[test]
    fn a_connection_left_silently_is_still_open_for_the_peer() {
        if let Err(error) = can_leave_silently() {
            return skip("a_connection_left_silently_is_still_open_for_the_peer", &error);
        }
        let (client, server) = pair();
        drop_silently(&client).unwrap();
        drop(client);
        server.set_nonblocking(true).unwrap();
        let error = (&server).read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "neither FIN nor RST");
    }
}
