//! Socket options the standard crates do not have.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// What the kernel knows of our bytes on a connection: tcp(7), `TCP_INFO`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Acknowledgement {
    /// Segments sent and not acknowledged.
    pub unacked: u32,
    /// Retransmissions or window probes since the last acknowledgement.
    pub retransmits: u32,
    /// Time since the last acknowledgement arrived.
    pub last_ack_received: Duration,
    /// Smoothed round trip time.
    pub round_trip: Duration,
    /// Bytes in the send queue that were never sent, because the peer's window is closed, for example.
    pub not_sent: u32,
}

/// Reads [`Acknowledgement`] of a TCP socket.
pub fn acknowledgement(socket: &impl AsFd) -> io::Result<Acknowledgement> {
    let info = tcp_info(socket)?;
    Ok(Acknowledgement {
        unacked: info.tcpi_unacked,
        retransmits: u32::from(info.tcpi_retransmits.max(info.tcpi_backoff).max(info.tcpi_probes)),
        last_ack_received: Duration::from_millis(u64::from(info.tcpi_last_ack_recv)),
        round_trip: Duration::from_micros(u64::from(info.tcpi_rtt)),
        not_sent: info.tcpi_notsent_bytes,
    })
}

fn tcp_info(socket: &impl AsFd) -> io::Result<libc::tcp_info> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `len` bytes into `info`, which is that large.
    let rc = unsafe {
        libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &mut len)
    };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: every bit pattern is a `tcp_info`, and what an older kernel left out is zero.
    Ok(unsafe { info.assume_init() })
}

/// `TCP_REPAIR`: while it is on, close(2) sends nothing (`tcp_close` in net/ipv4/tcp.c).
pub(super) fn set_repair(socket: &impl AsFd, on: bool) -> io::Result<()> {
    let value = libc::c_int::from(on);
    let fd = socket.as_fd().as_raw_fd();
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` is a C int that outlives the call.
    let rc =
        unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR, (&raw const value).cast(), len) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
