//! Ways to leave a connection, by what a stateful device in between sees of it.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::sys;

/// A connection cannot be left in the way that was asked for.
#[derive(Debug, thiserror::Error)]
#[error("cannot leave a connection without a packet: {0}; grant CAP_NET_ADMIN, or choose abandon=reset")]
pub struct LeaveError(#[from] io::Error);

/// Makes close(2) send a RST instead of a FIN (SO_LINGER with time 0).
pub fn reset_on_close(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
}

/// Makes close(2) send nothing, as when TCP_USER_TIMEOUT ends a socket with data in flight (`tcp_write_err` in
/// net/ipv4/tcp_timer.c). Needs CAP_NET_ADMIN in the network namespace of the socket.
pub fn drop_silently(socket: &impl AsFd) -> Result<(), LeaveError> {
    Ok(sys::set_repair(socket, true)?)
}

/// Whether [`drop_silently`] is permitted here.
pub fn can_leave_silently() -> Result<(), LeaveError> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    Ok(sys::set_repair(&socket, true)?)
}
