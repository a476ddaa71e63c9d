//! Calls in datagrams.
//!
//! A reply leaves from the address that the call came to (IP_PKTINFO): a host with several would otherwise answer from
//! the one its routes prefer, and a client with a connected socket would not hear it.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
};
use remoor_rpc::message::{ReplyStatus, encode_reply, peek_xid};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::retry_on_intr;
use socket2::{Domain, Protocol, Socket, Type};

use super::answer::{Asked, answer};
use super::table::{Table, Transport};
use super::{MAX_CALL, route_to};

/// Datagrams taken before it is looked whether to stop.
const BATCH: usize = 64;

/// A thread that answers what comes to one socket. Dropping it ends it.
pub(super) struct Datagrams {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Datagrams {
    pub(super) fn start(socket: UdpSocket, table: &Arc<Table>) -> io::Result<Self> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (table, ends) = (table.clone(), stop.clone());
        let serve = move || serve(&socket, &table, &ends);
        let thread = thread::Builder::new().name("portmap-udp".to_owned()).spawn(serve)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// An IPv6 socket takes IPv6 only, as those for connections do.
pub(super) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
    } else {
        setsockopt(&socket, Ipv4PacketInfo, &true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn serve(socket: &UdpSocket, table: &Table, stop: &OwnedFd) {
    loop {
        let mut events = [PollFd::new(socket, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        if let Err(e) = retry_on_intr(|| poll(&mut events, None)) {
            return tracing::error!(
                "the portmapper stops answering over UDP: cannot wait for datagrams: {e}"
            );
        }
        if !events[1].revents().is_empty() {
            return;
        }
        for _ in 0..BATCH {
            match receive(socket) {
                Ok(Some(datagram)) => respond(socket, table, datagram),
                Ok(None) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                // Such as an ICMP answer to an earlier reply.
                Err(e) => tracing::debug!("portmapper, UDP: {e}"),
            }
        }
    }
}

/// A call as it came.
struct Datagram {
    bytes: Bytes,
    peer: SocketAddr,
    came_to: Option<Via>,
}

/// The address of this host a datagram came to, as the kernel takes it back for the reply.
#[derive(Clone, Copy)]
enum Via {
    V4(in_pktinfo),
    V6(in6_pktinfo),
}

impl Via {
    fn of(message: &ControlMessageOwned) -> Option<Self> {
        match message {
            // `ipi_addr` may be a broadcast address; `ipi_spec_dst` is one of this host's (ip(7)).
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                Some(Self::V4(in_pktinfo { ipi_ifindex: 0, ipi_addr: in_addr { s_addr: 0 }, ..*info }))
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(Self::V6(*info)),
            _ => None,
        }
    }

    fn ip(&self) -> IpAddr {
        match self {
            Self::V4(info) => Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)).into(),
            Self::V6(in6_pktinfo { ipi6_addr: in6_addr { s6_addr }, .. }) => Ipv6Addr::from(*s6_addr).into(),
        }
    }

    fn control(&self) -> ControlMessage<'_> {
        match self {
            Self::V4(info) => ControlMessage::Ipv4PacketInfo(info),
            Self::V6(info) => ControlMessage::Ipv6PacketInfo(info),
        }
    }
}

/// The next datagram; `None` if it is no call that anybody sends: longer than [`MAX_CALL`].
fn receive(socket: &UdpSocket) -> io::Result<Option<Datagram>> {
    let mut buf = [0; MAX_CALL];
    let mut control = nix::cmsg_space!(in6_pktinfo);
    let mut room = [IoSliceMut::new(&mut buf)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut room, Some(&mut control), flags)?;
    if message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Ok(None);
    }
    let came_to = message.cmsgs()?.find_map(|message| Via::of(&message));
    let Some(peer) = message.address.as_ref().and_then(peer) else { return Ok(None) };
    let len = message.bytes;
    Ok(Some(Datagram { bytes: Bytes::copy_from_slice(&buf[..len]), peer, came_to }))
}

fn peer(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::from((v4.ip(), v4.port())));
    v4.or_else(|| {
        let v6 = address.as_sockaddr_in6()?;
        Some(SocketAddrV6::new(v6.ip(), v6.port(), v6.flowinfo(), v6.scope_id()).into())
    })
}

fn respond(socket: &UdpSocket, table: &Table, call: Datagram) {
    let Some(reply) = reply(table, &call) else { return };
    let control: Vec<ControlMessage<'_>> = call.came_to.iter().map(Via::control).collect();
    let to = SockaddrStorage::from(call.peer);
    let parts = [IoSlice::new(&reply)];
    let sent = sendmsg(socket.as_raw_fd(), &parts, &control, MsgFlags::MSG_DONTWAIT, Some(&to));
    if let Err(e) = sent {
        tracing::debug!(client = %call.peer, "portmapper: reply not sent: {e}");
    }
}

/// The reply, if there is to be one.
fn reply(table: &Table, call: &Datagram) -> Option<Bytes> {
    if is_relay(&call.bytes) {
        return None;
    }
    let came_to = || call.came_to.map(|via| via.ip());
    let local = || came_to().or_else(|| route_to(call.peer).ok()).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let asked = Asked { transport: Transport::Udp, peer: call.peer, local: &local };
    let reply = answer(table, &asked, call.bytes.clone()).ok()?.message();
    bounded(reply, call)
}

/// The reply to a datagram that came to `local`.
pub(super) fn reply_at(table: &Table, local: Ipv4Addr, peer: SocketAddr, bytes: Bytes) -> Option<Bytes> {
    let came_to = in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: in_addr { s_addr: u32::from(local).to_be() },
        ipi_addr: in_addr { s_addr: 0 },
    };
    reply(table, &Datagram { bytes, peer, came_to: Some(Via::V4(came_to)) })
}

/// Whether it asks for a call in the caller's name, which is never answered over UDP: a broadcast answered by many, or
/// with a forged sender, is an attack on that sender.
fn is_relay(call: &[u8]) -> bool {
    let word = |n: usize| call.get(4 * n..4 * n + 4).and_then(|w| w.try_into().ok()).map(u32::from_be_bytes);
    // xid, direction, RPC version, program, version, procedure.
    matches!((word(4), word(5)), (Some(2..=4), Some(5)) | (Some(4), Some(10)))
}

/// Another host never gets more than it sent, because its address may be forged: DUMP and GETADDRLIST are for TCP. The
/// kernel takes no forged loopback address from a wire.
fn bounded(reply: Bytes, call: &Datagram) -> Option<Bytes> {
    let fits = |reply: &Bytes| call.peer.ip().is_loopback() || reply.len() <= call.bytes.len();
    if fits(&reply) {
        return Some(reply);
    }
    let refused = encode_reply(peek_xid(&call.bytes)?, &ReplyStatus::ProcUnavail, &()).message();
    Some(refused).filter(fits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use remoor_rpc::auth::OpaqueAuth;
    use remoor_rpc::message::{Message, encode_call};
    use remoor_rpc::portmap::rpcb::Rpcb;
    use remoor_rpc::portmap::{RelayedCall, v2, v4};
    use remoor_rpc::program::Procedure;

    use super::*;

    fn table() -> Table {
        Table::new(&["0.0.0.0:2049".parse().unwrap()], &["0.0.0.0:111".parse().unwrap()])
    }

    fn replied(peer: &str, bytes: Bytes) -> Option<Bytes> {
        reply_at(&table(), Ipv4Addr::new(192, 0, 2, 1), peer.parse().unwrap(), bytes)
    }

    fn call<P: Procedure>(args: &P::Args) -> Bytes {
        encode_call::<P>(7, &OpaqueAuth::none(), args).message()
    }

    fn status(reply: Bytes) -> ReplyStatus {
        let Message::Reply(reply) = Message::decode(reply).unwrap() else { panic!("a call") };
        reply.status
    }

    const FAR: &str = "198.51.100.1:700";
    const NEAR: &str = "127.0.0.1:700";

    #[test]
    fn relayed_calls_are_never_answered() {
        let args = RelayedCall { program: 100_003, version: 3, procedure: 0, args: Bytes::new().into() };
        for peer in [FAR, NEAR] {
            assert_eq!(replied(peer, call::<v2::CallIt>(&args)), None);
            assert_eq!(replied(peer, call::<v4::Bcast>(&args)), None);
            assert_eq!(replied(peer, call::<v4::Indirect>(&args)), None);
        }
    }

    #[test]
    fn a_dump_is_for_this_host_or_for_tcp() {
        assert_eq!(status(replied(NEAR, call::<v2::Dump>(&())).unwrap()), ReplyStatus::Success);
        assert_eq!(status(replied(FAR, call::<v2::Dump>(&())).unwrap()), ReplyStatus::ProcUnavail);
        assert_eq!(status(replied(FAR, call::<v4::Dump>(&())).unwrap()), ReplyStatus::ProcUnavail);
    }

    #[test]
    fn what_clients_ask_is_answered_to_other_hosts() {
        let wanted = v2::Mapping { program: 100_003, version: 3, protocol: v2::UDP, port: 0 };
        assert_eq!(status(replied(FAR, call::<v2::GetPort>(&wanted)).unwrap()), ReplyStatus::Success);
        // No call for an address is shorter.
        let text = |text: &str| text.into();
        let wanted =
            Rpcb { program: 100_000, version: 4, netid: text(""), address: text(""), owner: text("") };
        assert_eq!(status(replied(FAR, call::<v4::GetAddr>(&wanted)).unwrap()), ReplyStatus::Success);
        assert_eq!(status(replied(FAR, call::<v4::GetTime>(&())).unwrap()), ReplyStatus::Success);
    }

    #[test]
    fn what_is_no_call_gets_no_reply() {
        let reply = replied(FAR, call::<v2::Null>(&())).unwrap();
        assert_eq!(replied(FAR, reply), None, "a reply");
        assert_eq!(replied(FAR, Bytes::from_static(b"x")), None);
        let other_rpc = Bytes::from_static(b"\0\0\0\x07\0\0\0\0\0\0\0\x03");
        assert_eq!(replied(FAR, other_rpc.clone()), None, "the answer is longer");
        assert!(replied(NEAR, other_rpc).is_some());
    }

    proptest! {
        #[test]
        fn another_host_never_gets_more_than_it_sent(
            version in 0..6u32,
            procedure in 0..14u32,
            program in prop_oneof![Just(100_000), Just(100_003), any::<u32>()],
            mut body: Vec<u8>,
        ) {
            body.truncate(body.len() / 4 * 4);
            let head = [7, 0, 2, program, version, procedure, 0, 0, 0, 0].map(u32::to_be_bytes).concat();
            let call = Bytes::from([head, body].concat());
            if let Some(reply) = replied(FAR, call.clone()) {
                prop_assert!(reply.len() <= call.len());
            }
        }
    }
}
