//! RFC 5531: every way a call can be refused.

use remoor_nfs::{mnt, v3};
use remoor_rpc::Bytes;
use remoor_rpc::auth::{Flavor, OpaqueAuth};
use remoor_rpc::message::{AuthStat, ReplyStatus};
use remoor_rpc::record::Record;
use remoor_rpc::xdr::Writer;

use crate::client::{Client, memory};

/// A call with AUTH_NONE, word by word.
fn call(client: &mut Client, words: [u32; 6], args: &[u8]) -> ReplyStatus {
    let mut w = Writer::new();
    words.iter().for_each(|word| w.u32(*word));
    [0; 4].iter().for_each(|word| w.u32(*word));
    w.encoded(Bytes::copy_from_slice(args));
    client.write(&Record::new(w.finish()).segments().concat());
    client.status()
}

#[test]
fn null_needs_no_credential() {
    let server = memory();
    let mut client = Client::connect(&server);
    client.credential = OpaqueAuth::none();
    client.call::<v3::Null>(&());
    client.call::<mnt::Null>(&());
    client.credential = OpaqueAuth { flavor: Flavor::Sys, body: Bytes::from_static(b"nonsense").into() };
    client.call::<v3::Null>(&());
    let counters = server.counters();
    assert_eq!(counters.connections.accepted, 1);
    let null = counters.calls.iter().find(|row| (row.program, row.procedure) == ("NFS", "NULL")).unwrap();
    assert_eq!(null.calls, 2);
}

#[test]
fn programs_versions_and_procedures_that_are_not_there() {
    let server = memory();
    let mut client = Client::connect(&server);
    // NLM, NFSACL, RQUOTA, NSM and the portmapper, which has a port of its own.
    for (program, version) in [(100_021, 4), (100_227, 3), (100_011, 2), (100_024, 1), (100_000, 2)] {
        for procedure in [0, 1] {
            let status = call(&mut client, [7, 0, 2, program, version, procedure], &[]);
            assert_eq!(status, ReplyStatus::ProgUnavail, "{program}");
        }
    }
    let three = ReplyStatus::ProgMismatch { low: 3, high: 3 };
    for (program, version) in [(100_003, 2), (100_003, 4), (100_005, 1), (100_005, 2), (100_005, 4)] {
        for procedure in [0, 1] {
            assert_eq!(
                call(&mut client, [7, 0, 2, program, version, procedure], &[]),
                three,
                "{program} {version}"
            );
        }
    }
    assert_eq!(call(&mut client, [7, 0, 2, 100_003, 3, 22], &[]), ReplyStatus::ProcUnavail);
    assert_eq!(call(&mut client, [7, 0, 2, 100_005, 3, 6], &[]), ReplyStatus::ProcUnavail);
    let two = ReplyStatus::RpcMismatch { low: 2, high: 2 };
    for version in [0, 1, 3, u32::MAX] {
        assert_eq!(call(&mut client, [7, 0, version, 100_003, 3, 0], &[]), two);
    }
    client.call::<v3::Null>(&());
}

#[test]
fn arguments_that_are_short_long_or_wrong() {
    let server = memory();
    let mut client = Client::connect(&server);
    assert_eq!(call(&mut client, [7, 0, 2, 100_003, 3, 0], &[0; 4]), ReplyStatus::GarbageArgs, "trailing");
    assert_eq!(call(&mut client, [7, 0, 2, 100_003, 3, 1], &[]), ReplyStatus::GarbageArgs, "missing");
    let handle_of_65_bytes = [&[0, 0, 0, 65][..], &[0; 68]].concat();
    assert_eq!(call(&mut client, [7, 0, 2, 100_003, 3, 1], &handle_of_65_bytes), ReplyStatus::GarbageArgs);
    assert_eq!(server.counters().garbage_args, 3);
    client.call::<v3::Null>(&());
}

#[test]
fn credentials_that_are_not_taken() {
    let server = memory();
    let mut client = Client::connect(&server);
    let root = client.mount("/x").unwrap();
    let mut status = |flavor, body: &'static [u8]| {
        client.credential = OpaqueAuth { flavor, body: Bytes::from_static(body).into() };
        client.send::<v3::Getattr>(&v3::OnFile { file: root.clone() });
        client.status()
    };
    assert_eq!(status(Flavor::Sys, b"nonsense"), ReplyStatus::AuthError(AuthStat::BadCred));
    for flavor in [Flavor::Short, Flavor::Dh, Flavor::Gss, Flavor::Tls, Flavor::Unknown(390_003)] {
        assert_eq!(status(flavor, b""), ReplyStatus::AuthError(AuthStat::RejectedCred), "{flavor}");
    }
    assert_eq!(status(Flavor::None, b""), ReplyStatus::Success);
    client.credential = OpaqueAuth { flavor: Flavor::Tls, body: Bytes::new().into() };
    client.send::<v3::Null>(&());
    assert_eq!(client.status(), ReplyStatus::AuthError(AuthStat::RejectedCred), "RFC 9289 probe");
}

#[test]
fn a_credential_over_the_limit_is_refused_and_not_a_reason_to_close() {
    let server = memory();
    let mut client = Client::connect(&server);
    let bad = ReplyStatus::AuthError(AuthStat::BadCred);
    for (credential, verifier) in [(401, 0), (400, 401)] {
        let opaque = |len: usize| {
            let body = vec![0; len.next_multiple_of(4)];
            [&0u32.to_be_bytes()[..], &(len as u32).to_be_bytes(), &body].concat()
        };
        let head = [7, 0, 2, 100_003, 3, 1].map(u32::to_be_bytes).concat();
        let message = [head, opaque(credential), opaque(verifier)].concat();
        client.write(&Record::new(vec![message.into()]).segments().concat());
        assert_eq!(client.status(), bad);
    }
    client.call::<v3::Null>(&());
    assert_eq!(server.counters().connections.accepted, 1);
}

#[test]
fn what_is_no_call_ends_the_connection() {
    let server = memory();
    for bytes in [
        &b"\x80\0\0\x04\0\0\0\x07"[..],
        b"\x80\0\0\x18\0\0\0\x07\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        b"\x80\0\0\x08\0\0\0\x07\0\0\0\x09",
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut client = Client::connect(&server);
        client.write(bytes);
        assert!(client.reply().is_none(), "{bytes:?}");
    }
    assert_eq!(server.counters().connections.broken, 4);
    Client::connect(&server).call::<v3::Null>(&());
}
