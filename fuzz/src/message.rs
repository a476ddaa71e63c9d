//! Calls and replies: what is decoded encodes to what it was.

use bytes::Bytes;
use remoor_nfs::v3;
use remoor_rpc::auth::{AuthSys, OpaqueAuth};
use remoor_rpc::message::{self, AuthStat, Call, Message, RPC_VERSION, Reply, ReplyStatus};
use remoor_rpc::xdr::{self, Writer, Xdr};

/// Inputs to start from: a call with each credential, a reply with each status.
pub fn seeds() -> Vec<Vec<u8>> {
    let credentials = [OpaqueAuth::none(), OpaqueAuth::sys(&AuthSys::new("client", 1000, 100))];
    let calls = credentials.iter().map(|c| message::encode_call::<v3::Null>(1, c, &()));
    let replies = statuses().into_iter().map(|status| message::encode_reply(1, &status, &()));
    calls.chain(replies).map(|record| record.message().to_vec()).collect()
}

fn statuses() -> Vec<ReplyStatus> {
    vec![
        ReplyStatus::Success,
        ReplyStatus::ProgUnavail,
        ReplyStatus::ProgMismatch { low: 2, high: 4 },
        ReplyStatus::ProcUnavail,
        ReplyStatus::GarbageArgs,
        ReplyStatus::SystemErr,
        ReplyStatus::RpcMismatch { low: 2, high: 2 },
        ReplyStatus::AuthError(AuthStat::TooWeak),
    ]
}

/// Decodes a message, and its credential if it is a call.
pub fn run(data: &[u8]) {
    let data = Bytes::copy_from_slice(data);
    assert_eq!(message::peek_xid(&data).is_some(), data.len() >= 4);
    match Message::decode(data.clone()) {
        Ok(Message::Call(call)) => check_call(&data, &call),
        Ok(Message::Reply(reply)) => check_reply(&data, &reply),
        Err(_) => {}
    }
}

fn check_call(data: &Bytes, call: &Call) {
    let mut w = Writer::new();
    [call.xid, 0, RPC_VERSION].iter().for_each(|v| w.u32(*v));
    call.header.encode(&mut w);
    w.encoded(call.args.rest());
    assert_eq!(w.into_bytes(), data);
    if let Some(Ok(auth)) = call.header.credential.as_sys() {
        assert_eq!(xdr::to_bytes(&auth), call.header.credential.body.0);
    }
}

/// A verifier other than AUTH_NONE is not written by this program, so only replies without one can be compared.
fn check_reply(data: &Bytes, reply: &Reply) {
    if reply.verifier != OpaqueAuth::none() {
        return;
    }
    let mut w = Writer::new();
    message::begin_reply(&mut w, reply.xid, &reply.status);
    w.encoded(reply.result.rest());
    assert_eq!(w.into_bytes(), data);
}
