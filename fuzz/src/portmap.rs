//! The portmapper, from a call to its reply: over a connection every call is answered, and over UDP another host never
//! gets more than it sent.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use remoor_rpc::auth::OpaqueAuth;
use remoor_rpc::message::{Message, ReplyStatus, encode_call};
use remoor_rpc::portmap::rpcb::{Netbuf, Rpcb};
use remoor_rpc::portmap::{RelayedCall, v2, v3, v4};
use remoor_rpc::program::Procedure;
use remoor_rpc::xdr;
use remoor_server::fuzz;

const NEAR: Ipv4Addr = Ipv4Addr::LOCALHOST;
const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// All that is listed, with room.
const LONGEST_REPLY: usize = 4096;

/// Inputs to start from: a call of each kind of arguments.
pub fn seeds() -> Vec<Vec<u8>> {
    let mapping = v2::Mapping { program: 100_003, version: 3, protocol: v2::TCP, port: 0 };
    let rpcb = || Rpcb {
        program: 100_003,
        version: 3,
        netid: "tcp".into(),
        address: "192.0.2.1.0.111".into(),
        owner: "".into(),
    };
    let relayed = || RelayedCall {
        program: 100_003,
        version: 3,
        procedure: 0,
        args: Bytes::from_static(b"args").into(),
    };
    let sockaddr = Bytes::from_static(b"\x02\0\x08\x01\xc0\0\x02\x01\0\0\0\0\0\0\0\0");
    vec![
        call::<v2::Null>(()),
        call::<v2::Set>(mapping.clone()),
        call::<v2::GetPort>(mapping),
        call::<v2::Dump>(()),
        call::<v2::CallIt>(relayed()),
        call::<v3::GetAddr>(rpcb()),
        call::<v4::Unset>(rpcb()),
        call::<v4::GetTime>(()),
        call::<v4::UaddrToTaddr>("2001:db8::1.8.1".into()),
        call::<v4::TaddrToUaddr>(Netbuf { max_len: 16, bytes: sockaddr.into() }),
        call::<v4::GetVersAddr>(rpcb()),
        call::<v4::Indirect>(relayed()),
        call::<v4::GetAddrList>(rpcb()),
    ]
}

fn call<P: Procedure>(args: P::Args) -> Vec<u8> {
    encode_call::<P>(7, &OpaqueAuth::none(), &args).message().to_vec()
}

/// Asks from another host and from this one, over UDP and over a connection.
pub fn run(data: &[u8]) {
    let call = Message::decode(Bytes::copy_from_slice(data));
    for (ip, datagram) in [(NEAR, false), (NEAR, true), (FAR, true), (FAR, false)] {
        let reply = fuzz::portmap(SocketAddr::from((ip, 700)), data, datagram);
        if let Some(reply) = &reply {
            assert!(reply.len() <= LONGEST_REPLY, "{} bytes", reply.len());
            assert!(!datagram || ip == NEAR || reply.len() <= data.len(), "an amplifier");
            check(data, reply);
        }
        assert!(datagram || reply.is_some() || call.as_ref().map_or(true, is_reply), "not answered");
    }
}

fn is_reply(message: &Message) -> bool {
    matches!(message, Message::Reply(_))
}

/// It is a reply to that call, with the result of its procedure and nothing more.
fn check(call: &[u8], reply: &Bytes) {
    let Ok(Message::Reply(reply)) = Message::decode(reply.clone()) else { panic!("no reply: {reply:?}") };
    assert_eq!(reply.xid.to_be_bytes(), call[..4]);
    let result = reply.result.rest();
    if reply.status != ReplyStatus::Success {
        return assert!(result.is_empty());
    }
    let Ok(Message::Call(call)) = Message::decode(Bytes::copy_from_slice(call)) else {
        panic!("no call succeeds")
    };
    let decoded = match (call.header.version, call.header.procedure) {
        (2, 0) | (3, 0) | (4, 0) => decodes::<v4::Null>(result),
        (2, 3) => decodes::<v2::GetPort>(result),
        (2, 4) => decodes::<v2::Dump>(result),
        (_, 1 | 2) => decodes::<v4::Set>(result),
        (_, 3 | 8 | 9) => decodes::<v4::GetAddr>(result),
        (_, 4) => decodes::<v4::Dump>(result),
        (_, 6) => decodes::<v4::GetTime>(result),
        (_, 7) => decodes::<v4::UaddrToTaddr>(result),
        (4, 11) => decodes::<v4::GetAddrList>(result),
        other => panic!("a result of {other:?}"),
    };
    assert!(decoded, "the result of {:?} cannot be read", call.header);
}

fn decodes<P: Procedure>(result: Bytes) -> bool {
    xdr::from_bytes::<P::Res>(result, P::NAME).is_ok()
}
