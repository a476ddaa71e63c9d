//! The portmapper over real sockets of loopback.

use std::io::{Read, Write};
use std::net::TcpStream;

use remoor_rpc::auth::OpaqueAuth;
use remoor_rpc::message::{Message, Reply, ReplyStatus, encode_call};
use remoor_rpc::portmap::rpcb::Rpcb;
use remoor_rpc::portmap::{from_universal, v2, v3, v4};
use remoor_rpc::program::Procedure;
use remoor_rpc::record::RecordReader;
use remoor_rpc::xdr::Xdr;
use remoor_skip::skip;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
const NFS: u32 = 100_003;
const MOUNT: u32 = 100_005;

/// A portmapper of an NFS server on port 2049 of every address.
fn start(ip: &str) -> (Portmapper, SocketAddr) {
    let any = SocketAddr::new(ip.parse().unwrap(), 0);
    let nfs = ["0.0.0.0:2049".parse().unwrap(), "[::]:2049".parse().unwrap()];
    // What the kernel chose for UDP may be taken for TCP.
    let attempts = std::iter::repeat_with(|| Portmapper::start(&[any], &nfs));
    let portmapper = attempts.take(9).find_map(Result::ok).unwrap();
    let address = portmapper.local_addrs()[0];
    (portmapper, address)
}

fn reply(message: Bytes) -> Reply {
    let Message::Reply(reply) = Message::decode(message).unwrap() else { panic!("a call") };
    reply
}

fn over_udp<P: Procedure>(to: SocketAddr, args: &P::Args) -> Reply {
    let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
    let socket = UdpSocket::bind(any).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // Connected, so that a reply from another address would not be heard.
    socket.connect(to).unwrap();
    socket.send(&encode_call::<P>(7, &OpaqueAuth::none(), args).message()).unwrap();
    let mut buf = [0; 4096];
    let n = socket.recv(&mut buf).unwrap();
    reply(Bytes::copy_from_slice(&buf[..n]))
}

fn over_tcp<P: Procedure>(to: SocketAddr, args: &P::Args) -> Reply {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&encode_call::<P>(7, &OpaqueAuth::none(), args).segments().concat()).unwrap();
    let mut reader = RecordReader::new(1 << 16);
    let mut buf = [0; 4096];
    loop {
        match reader.next_record().unwrap() {
            Some(record) => return reply(record),
            None => {
                let n = stream.read(&mut buf).unwrap();
                assert!(n > 0, "closed");
                reader.push(&buf[..n]);
            }
        }
    }
}

fn result<P: Procedure>(mut reply: Reply) -> P::Res {
    assert_eq!(reply.status, ReplyStatus::Success, "{}", P::NAME);
    let result = P::Res::decode(&mut reply.result).unwrap();
    reply.result.finish(P::NAME).unwrap();
    result
}

fn mapping(program: u32, version: u32, protocol: u32) -> v2::Mapping {
    v2::Mapping { program, version, protocol, port: 0 }
}

fn rpcb(program: u32, version: u32, address: &str) -> Rpcb {
    Rpcb { program, version, netid: "tcp".into(), address: address.into(), owner: "".into() }
}

#[test]
fn ports_are_told_over_both_transports() {
    let (_portmapper, to) = start("127.0.0.1");
    for (wanted, port) in [
        (mapping(NFS, 3, v2::TCP), 2049),
        (mapping(MOUNT, 3, v2::TCP), 2049),
        (mapping(MOUNT, 1, v2::TCP), 2049),
        (mapping(NFS, 3, v2::UDP), 0),
        (mapping(100_021, 4, v2::TCP), 0),
        (mapping(100_000, 2, v2::UDP), to.port().into()),
        (mapping(NFS, 3, 132), 0),
    ] {
        assert_eq!(result::<v2::GetPort>(over_udp::<v2::GetPort>(to, &wanted)), port, "{wanted:?}");
        assert_eq!(result::<v2::GetPort>(over_tcp::<v2::GetPort>(to, &wanted)), port, "{wanted:?}");
    }
}

#[test]
fn addresses_are_those_the_caller_asked_at() {
    let (_portmapper, to) = start("0.0.0.0");
    // Linux has all of 127.0.0.0/8, and would choose 127.0.0.1 to answer from.
    let second = SocketAddr::new([127, 0, 0, 2].into(), to.port());
    let own = rpcb(100_000, 4, "");
    let told = result::<v4::GetAddr>(over_udp::<v4::GetAddr>(second, &own));
    assert_eq!(from_universal(&told.0), Some(second));
    let told = result::<v3::GetAddr>(over_tcp::<v3::GetAddr>(to, &rpcb(NFS, 3, "127.0.0.9.0.111")));
    assert_eq!(told, "127.0.0.9.8.1".into(), "the caller's own view of this host");
    let none = result::<v3::GetAddr>(over_udp::<v3::GetAddr>(to, &rpcb(NFS, 3, "")));
    assert_eq!(none, "".into(), "not over UDP");
}

#[test]
fn ipv6_is_told_where_it_was_asked() {
    let Ok(_) = UdpSocket::bind("[::1]:0") else {
        return skip("ipv6_is_told_where_it_was_asked", "this host has no IPv6");
    };
    let (_portmapper, to) = start("::");
    let to = SocketAddr::new("::1".parse().unwrap(), to.port());
    let own = rpcb(100_000, 4, "");
    assert_eq!(from_universal(&result::<v4::GetAddr>(over_udp::<v4::GetAddr>(to, &own)).0), Some(to));
    let told = result::<v4::GetVersAddr>(over_tcp::<v4::GetVersAddr>(to, &rpcb(NFS, 3, "")));
    assert_eq!(told, "::1.8.1".into());
}

#[test]
fn lists_have_everything_that_is_served() {
    let (_portmapper, to) = start("127.0.0.1");
    let two = result::<v2::Dump>(over_tcp::<v2::Dump>(to, &())).0;
    let listed: Vec<_> = two.iter().map(|m| (m.program, m.version, m.protocol)).collect();
    for expected in [(100_000, 2, 17), (100_000, 4, 6), (NFS, 3, 6), (MOUNT, 3, 6)] {
        assert!(listed.contains(&expected), "{expected:?} in {listed:?}");
    }
    assert!(!listed.contains(&(NFS, 3, 17)), "{listed:?}");
    let four = result::<v4::Dump>(over_udp::<v4::Dump>(to, &())).0;
    assert!(four.iter().any(|r| r.program == MOUNT && r.netid == "tcp6".into()), "{four:?}");
    assert_eq!(result::<v3::Dump>(over_tcp::<v3::Dump>(to, &())).0, four);
    let ways = result::<v4::GetAddrList>(over_tcp::<v4::GetAddrList>(to, &rpcb(NFS, 3, ""))).0;
    assert_eq!(ways.len(), 1);
    assert_eq!((&ways[0].address, &ways[0].netid), (&"127.0.0.1.8.1".into(), &"tcp".into()));
}

#[test]
fn nobody_registers_and_nothing_is_relayed() {
    let (_portmapper, to) = start("127.0.0.1");
    let own = mapping(NFS, 3, v2::TCP);
    assert!(!result::<v2::Set>(over_udp::<v2::Set>(to, &mapping(7, 1, v2::TCP))));
    assert!(!result::<v2::Unset>(over_udp::<v2::Unset>(to, &own)));
    assert!(!result::<v4::Set>(over_tcp::<v4::Set>(to, &rpcb(7, 1, "127.0.0.1.0.7"))));
    assert!(!result::<v4::Unset>(over_tcp::<v4::Unset>(to, &rpcb(NFS, 3, ""))));
    assert_eq!(result::<v2::GetPort>(over_udp::<v2::GetPort>(to, &own)), 2049);
    let call = remoor_rpc::portmap::RelayedCall {
        program: NFS,
        version: 3,
        procedure: 0,
        args: Bytes::new().into(),
    };
    assert_eq!(over_tcp::<v2::CallIt>(to, &call).status, ReplyStatus::ProcUnavail);
    assert_eq!(over_tcp::<v4::Indirect>(to, &call).status, ReplyStatus::ProcUnavail);
}

#[test]
fn the_range_of_versions_is_told() {
    // As `rpcinfo` asks: a version that cannot be.
    remoor_rpc::program! { pub ZERO = "PORTMAP" 100_000 version 0; 0 Zero "NULL" idempotent () => (), }
    // Another program.
    remoor_rpc::program! { pub LOCKS = "NLM" 100_021 version 4; 0 Locks "NULL" idempotent () => (), }
    let (_portmapper, to) = start("127.0.0.1");
    assert_eq!(over_udp::<Zero>(to, &()).status, ReplyStatus::ProgMismatch { low: 2, high: 4 });
    assert_eq!(over_tcp::<Zero>(to, &()).status, ReplyStatus::ProgMismatch { low: 2, high: 4 });
    assert_eq!(over_udp::<Locks>(to, &()).status, ReplyStatus::ProgUnavail);
    for null in [over_udp::<v2::Null>(to, &()), over_udp::<v3::Null>(to, &()), over_udp::<v4::Null>(to, &())]
    {
        assert_eq!(null.status, ReplyStatus::Success);
    }
    assert!(result::<v4::GetTime>(over_udp::<v4::GetTime>(to, &())) > 1_700_000_000);
}

#[test]
fn a_port_in_use_is_told_with_a_remedy() {
    let (_portmapper, to) = start("127.0.0.1");
    let error = Portmapper::start(&[to], &[]).unwrap_err().to_string();
    assert!(error.contains(&to.to_string()) && error.contains("--rpcbind"), "{error}");
}

#[test]
fn a_port_in_use_by_tcp_alone_is_told_too() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let error = Portmapper::start(&[taken.local_addr().unwrap()], &[]).unwrap_err().to_string();
    assert!(error.contains("(TCP): address in use; ") && error.contains("--rpcbind"), "{error}");
}

/// The routes of loopback prefer 127.0.0.1.
#[test]
fn a_server_on_one_of_several_addresses_is_found_there() {
    let (any, nfs) = ("0.0.0.0:0".parse().unwrap(), "127.0.0.2:2049".parse().unwrap());
    let attempts = std::iter::repeat_with(|| Portmapper::start(&[any], &[nfs]));
    let portmapper = attempts.take(9).find_map(Result::ok).unwrap();
    let at = |last| SocketAddr::new([127, 0, 0, last].into(), portmapper.local_addrs()[0].port());
    let wanted = mapping(NFS, 3, v2::TCP);
    for (last, port) in [(2, 2049), (1, 0)] {
        assert_eq!(result::<v2::GetPort>(over_udp::<v2::GetPort>(at(last), &wanted)), port);
        assert_eq!(result::<v2::GetPort>(over_tcp::<v2::GetPort>(at(last), &wanted)), port);
    }
}

#[test]
fn it_ends_when_dropped() {
    let (portmapper, to) = start("127.0.0.1");
    drop(portmapper);
    UdpSocket::bind(to).unwrap();
    assert!(TcpStream::connect(to).is_err());
}
