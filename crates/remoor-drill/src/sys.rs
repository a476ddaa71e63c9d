//! System calls that no safe wrapper in our dependencies covers: unshare, ethtool ioctls, packet sockets
//! and the parent-death signal.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_uint, c_void};
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

/// Room for one SCM_TIMESTAMPING control message (three timespecs), rounded up.
const CONTROL_BYTES: usize = 128;

/// linux/if_packet.h; not in libc for every target.
const PACKET_IGNORE_OUTGOING: c_int = 23;

/// Moves the calling process into new namespaces (`CLONE_NEW*` flags).
pub(crate) fn unshare(flags: c_int) -> io::Result<()> {
    // SAFETY: no pointers are passed; the call changes only this task's namespaces.
    check(unsafe { libc::unshare(flags) }).map(drop)
}

/// Makes the kernel send SIGKILL to the child of `command` when the thread that spawns it ends.
///
/// PR_SET_PDEATHSIG follows the spawning *thread* (prctl(2)), so that thread must outlive the child's use.
pub(crate) fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    let hook = move || {
        // SAFETY: prctl and getppid take no pointers and are async-signal-safe.
        let ppid = unsafe {
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            libc::getppid()
        };
        // A parent that died before prctl would never be noticed.
        if u32::try_from(ppid) == Ok(parent) {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::ESRCH))
        }
    };
    // SAFETY: the hook makes two system calls and allocates nothing, which is allowed between fork and exec.
    unsafe { command.pre_exec(hook) };
}

/// Sets one legacy ethtool switch (`ETHTOOL_S*` commands that take a single value) of an interface.
pub(crate) fn ethtool_set(interface: &str, command: u32, value: u32) -> io::Result<()> {
    #[repr(C)]
    struct EthtoolValue {
        cmd: u32,
        data: u32,
    }
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    let mut request = EthtoolValue { cmd: command, data: value };
    // SAFETY: ifreq is plain data for which all zeroes is a valid value.
    let mut ifreq: libc::ifreq = unsafe { mem::zeroed() };
    if interface.len() >= ifreq.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (slot, byte) in ifreq.ifr_name.iter_mut().zip(interface.bytes()) {
        *slot = byte as libc::c_char;
    }
    ifreq.ifr_ifru.ifru_data = (&raw mut request).cast();
    // SAFETY: the kernel reads `ifreq` and the `request` it points to; both outlive the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut ifreq) }).map(drop)
}

/// A raw packet socket bound to one interface; never blocks.
#[derive(Debug)]
pub(crate) struct PacketSocket {
    fd: OwnedFd,
}

/// What the kernel says about one received frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameInfo {
    /// Bytes of the frame on the wire; the buffer holds at most its own length of them.
    pub(crate) wire_len: usize,
    pub(crate) direction: Direction,
    /// When the kernel handled the frame, since the Unix epoch; `None` if it took no time.
    pub(crate) time: Option<Duration>,
}

/// Which way a frame crosses the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Addressed to this interface.
    In,
    /// Sent by this interface.
    Out,
    /// Addressed to another station; an interface out of promiscuous mode would not see it.
    Stray,
}

impl PacketSocket {
    /// Opens a socket that receives every frame of interface `index`, in both directions.
    pub(crate) fn open(index: u32) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // Protocol 0: nothing is delivered before bind(2) has named the interface.
        // SAFETY: no pointers are passed; the descriptor returned is owned by nobody else.
        let fd = unsafe {
            let raw = check(libc::socket(libc::AF_PACKET, kind, 0))?;
            OwnedFd::from_raw_fd(raw)
        };
        // SAFETY: sockaddr_ll is plain data for which all zeroes is a valid value.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index as c_int;
        let length = mem::size_of_val(&address) as libc::socklen_t;
        // SAFETY: `address` is a sockaddr_ll of the stated length and outlives the call.
        check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) })?;
        Ok(Self { fd })
    }

    /// Asks for a wall-clock time on every frame. Not by SO_TIMESTAMPNS: that gives a frame without a time the time
    /// of the read (`sock_recv_timestamp`), and frames have none until the kernel has switched stamping on, a while
    /// after the first request (`net_enable_timestamp` defers to a worker).
    pub(crate) fn with_times(self) -> io::Result<Self> {
        let flags = libc::SOF_TIMESTAMPING_RX_SOFTWARE | libc::SOF_TIMESTAMPING_SOFTWARE;
        self.set(libc::SOL_SOCKET, libc::SO_TIMESTAMPING, flags as c_int)?;
        Ok(self)
    }

    /// Leaves out the frames that this host itself sends.
    pub(crate) fn without_outgoing(self) -> io::Result<Self> {
        self.set(libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)?;
        Ok(self)
    }

    /// Asks for a receive buffer of `bytes`, as far as privileges allow.
    pub(crate) fn with_buffer(self, bytes: c_int) -> io::Result<Self> {
        if self.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes).is_err() {
            self.set(libc::SOL_SOCKET, libc::SO_RCVBUF, bytes)?;
        }
        Ok(self)
    }

    /// Reads one frame; `None` when none is waiting.
    pub(crate) fn recv(&self, buffer: &mut [u8]) -> io::Result<Option<FrameInfo>> {
        // SAFETY: sockaddr_ll and msghdr are plain data for which all zeroes is a valid value.
        let (mut from, mut header): (libc::sockaddr_ll, libc::msghdr) =
            unsafe { (mem::zeroed(), mem::zeroed()) };
        let mut control = Control([0; CONTROL_BYTES]);
        let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        header.msg_name = (&raw mut from).cast();
        header.msg_namelen = mem::size_of_val(&from) as libc::socklen_t;
        header.msg_iov = &raw mut iov;
        header.msg_iovlen = 1;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = CONTROL_BYTES;
        // SAFETY: every pointer in `header` refers to a live local of the length stated beside it.
        let got = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut header, libc::MSG_TRUNC) };
        match usize::try_from(got) {
            Ok(wire_len) => Ok(Some(FrameInfo {
                wire_len,
                direction: direction_of(from.sll_pkttype),
                time: time_of(&header),
            })),
            Err(_) => nothing_waiting(io::Error::last_os_error()),
        }
    }

    /// Sends one whole Ethernet frame.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        rustix::net::send(&self.fd, frame, rustix::net::SendFlags::empty())?;
        Ok(())
    }

    /// Frames the kernel dropped for want of buffer space since the last call (PACKET_STATISTICS).
    pub(crate) fn take_drops(&self) -> io::Result<u32> {
        #[repr(C)]
        struct PacketStatistics {
            packets: c_uint,
            drops: c_uint,
        }
        let mut stats = PacketStatistics { packets: 0, drops: 0 };
        let mut length = mem::size_of_val(&stats) as libc::socklen_t;
        let to: *mut c_void = (&raw mut stats).cast();
        // SAFETY: `to` points at `length` writable bytes laid out as struct tpacket_stats.
        let rc = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                to,
                &raw mut length,
            )
        };
        check(rc)?;
        Ok(stats.drops)
    }

    fn set(&self, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
        let from: *const c_void = (&raw const value).cast();
        let length = mem::size_of_val(&value) as libc::socklen_t;
        // SAFETY: `from` points at `length` readable bytes, an int as these options expect.
        check(unsafe { libc::setsockopt(self.fd.as_raw_fd(), level, option, from, length) }).map(drop)
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Control messages must be aligned as `cmsghdr` is.
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

fn time_of(header: &libc::msghdr) -> Option<Duration> {
    // SAFETY: `header` was filled in by recvmsg, so CMSG_FIRSTHDR is null or points into its control buffer.
    let message = unsafe { libc::CMSG_FIRSTHDR(header) };
    if message.is_null() {
        return None;
    }
    // SAFETY: a non-null CMSG_FIRSTHDR is a whole cmsghdr; its data starts with the software
    // timespec (struct scm_timestamping), read unaligned because CMSG_DATA promises no alignment.
    let time = unsafe {
        if (*message).cmsg_level != libc::SOL_SOCKET || (*message).cmsg_type != libc::SCM_TIMESTAMPING {
            return None;
        }
        libc::CMSG_DATA(message).cast::<libc::timespec>().read_unaligned()
    };
    let time = Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?);
    (!time.is_zero()).then_some(time)
}

fn direction_of(pkttype: u8) -> Direction {
    match pkttype {
        libc::PACKET_OTHERHOST => Direction::Stray,
        libc::PACKET_OUTGOING => Direction::Out,
        _ => Direction::In,
    }
}

fn nothing_waiting(error: io::Error) -> io::Result<Option<FrameInfo>> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
        _ => Err(error),
    }
}

fn check(rc: c_int) -> io::Result<c_int> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}
