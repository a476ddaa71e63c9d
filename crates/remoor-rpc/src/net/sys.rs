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
    /// Window probes sent and not acknowledged.
    pub probes: u32,
    /// Retransmissions or window probes since the last acknowledgement; also the back-off of a window that stays
    /// closed although its probes are acknowledged.
    pub retransmits: u32,
    /// Retransmissions or probes in a row that were not answered at all: without the back-off of a window that stays
    /// closed although its probes are.
    pub unanswered: u32,
    /// Segments sent again since the connection began, tail loss probes included (RFC 8985 section 7), which
    /// `retransmits` leaves out.
    pub retransmitted: u32,
    /// Time since the last acknowledgement arrived.
    pub last_ack_received: Duration,
    /// Smoothed round trip time.
    pub round_trip: Duration,
    /// Bytes in the send queue that were never sent, because the peer's window is closed, for example.
    pub not_sent: u32,
    /// Bytes acknowledged since the connection began; a FIN counts as one.
    pub acked_bytes: u64,
}

/// Reads [`Acknowledgement`] of a TCP socket.
pub fn acknowledgement(socket: &impl AsFd) -> io::Result<Acknowledgement> {
    let info = tcp_info(socket)?;
    Ok(Acknowledgement {
        unacked: info.tcpi_unacked,
        probes: u32::from(info.tcpi_probes),
        retransmits: u32::from(info.tcpi_retransmits.max(info.tcpi_backoff).max(info.tcpi_probes)),
        unanswered: u32::from(info.tcpi_retransmits.max(info.tcpi_probes)),
        retransmitted: info.tcpi_total_retrans,
        last_ack_received: Duration::from_millis(u64::from(info.tcpi_last_ack_recv)),
        round_trip: Duration::from_micros(u64::from(info.tcpi_rtt)),
        not_sent: info.tcpi_notsent_bytes,
        acked_bytes: info.tcpi_bytes_acked,
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

/// Values of `TCP_REPAIR` (include/uapi/linux/tcp.h).
#[derive(Debug, Clone, Copy)]
pub(super) enum Repair {
    /// Close, connect and sequence numbers take effect without a packet.
    On = 1,
    /// Back to a live connection, without the window probe that [`Repair::On`] would end with otherwise.
    OffNoProbe = -1,
}

/// The two queues whose sequence numbers a socket in repair mode shows and takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Queue {
    Receive = 1,
    Send = 2,
}

pub(super) fn set_repair(socket: &impl AsFd, repair: Repair) -> io::Result<()> {
    set_int(socket, libc::TCP_REPAIR, repair as libc::c_int)
}

/// The next sequence number of a queue: of the byte to be written, or to be received.
pub(super) fn queue_seq(socket: &impl AsFd, queue: Queue) -> io::Result<u32> {
    set_int(socket, libc::TCP_REPAIR_QUEUE, queue as libc::c_int)?;
    let mut seq = 0u32;
    let mut len = size_of_val(&seq) as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    let at = (&raw mut seq).cast();
    // SAFETY: the kernel writes at most `len` bytes into `seq`, which is that large.
    let rc = unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_QUEUE_SEQ, at, &mut len) };
    if rc == 0 { Ok(seq) } else { Err(io::Error::last_os_error()) }
}

pub(super) fn set_queue_seq(socket: &impl AsFd, queue: Queue, seq: u32) -> io::Result<()> {
    set_int(socket, libc::TCP_REPAIR_QUEUE, queue as libc::c_int)?;
    set_int(socket, libc::TCP_QUEUE_SEQ, seq.cast_signed())
}

/// Opens both windows of a socket in repair mode, which has none; without a send window not even a FIN leaves.
pub(super) fn open_window(socket: &impl AsFd, receive_next: u32) -> io::Result<()> {
    /// `struct tcp_repair_window` of include/uapi/linux/tcp.h.
    #[repr(C)]
    struct Window {
        snd_wl1: u32,
        snd_wnd: u32,
        max_window: u32,
        rcv_wnd: u32,
        rcv_wup: u32,
    }
    let open = 65_535;
    let window = Window {
        snd_wl1: receive_next,
        snd_wnd: open,
        max_window: open,
        rcv_wnd: open,
        rcv_wup: receive_next,
    };
    let fd = socket.as_fd().as_raw_fd();
    let len = size_of_val(&window) as libc::socklen_t;
    // SAFETY: `window` has the layout the kernel reads and outlives the call.
    let rc = unsafe {
        libc::setsockopt(fd, libc::IPPROTO_TCP, TCP_REPAIR_WINDOW, (&raw const window).cast(), len)
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// include/uapi/linux/tcp.h.
const TCP_REPAIR_WINDOW: libc::c_int = 29;

/// Bytes written and not acknowledged, and those of them that were never sent (`tcp_ioctl`).
pub(super) fn unacknowledged(socket: &impl AsFd) -> io::Result<(u32, u32)> {
    Ok((ioctl_int(socket, libc::TIOCOUTQ)?, ioctl_int(socket, SIOCOUTQNSD)?))
}

/// include/uapi/linux/sockios.h.
const SIOCOUTQNSD: libc::c_ulong = 0x894b;

fn ioctl_int(socket: &impl AsFd, request: libc::c_ulong) -> io::Result<u32> {
    let mut value: libc::c_int = 0;
    // SAFETY: both requests write one C int to the address given.
    let rc = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), request, &raw mut value) };
    if rc == 0 { Ok(value.cast_unsigned()) } else { Err(io::Error::last_os_error()) }
}

fn set_int(socket: &impl AsFd, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` is a C int that outlives the call.
    let rc = unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, option, (&raw const value).cast(), len) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
