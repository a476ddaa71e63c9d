//! The messages that matter for throughput and for directories: GETATTR, READDIRPLUS and WRITE.

use bytes::Bytes;
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use remoor_nfs::v3::*;
use remoor_rpc::auth::{AuthSys, OpaqueAuth};
use remoor_rpc::message::{self, Message, ReplyStatus};
use remoor_rpc::program::Procedure;
use remoor_rpc::record::Record;
use remoor_rpc::xdr::{self, List, Opaque};

const ENTRIES: u64 = 100;

fn main() {
    divan::main();
}

fn attr(fileid: u64) -> Fattr {
    let time = Time { seconds: 1_700_000_000, nanos: 1 };
    Fattr {
        kind: FileType::Regular,
        mode: 0o644,
        nlink: 1,
        uid: 1000,
        gid: 1000,
        size: 4096,
        used: 4096,
        rdev: Device { major: 0, minor: 0 },
        fsid: 1,
        fileid,
        atime: time,
        mtime: time,
        ctime: time,
    }
}

fn handle(fileid: u64) -> FileHandle {
    Opaque(Bytes::from([fileid.to_be_bytes(); 4].concat()))
}

fn getattr() -> Res<HasAttr> {
    Res::Ok(HasAttr { attr: attr(1) })
}

fn readdirplus() -> Res<ReaddirplusOk, PostOpAttr> {
    let entry = |fileid| EntryPlus {
        fileid,
        name: format!("file-{fileid:08}").as_str().into(),
        cookie: fileid,
        attr: Some(attr(fileid)),
        file: Some(handle(fileid)),
    };
    let entries = List((0..ENTRIES).map(entry).collect());
    Res::Ok(ReaddirplusOk { dir_attr: Some(attr(0)), verf: [0; 8], entries, eof: true })
}

fn write() -> WriteArgs {
    let data = Opaque(Bytes::from(vec![7; MAX_IO]));
    WriteArgs { file: handle(1), offset: 0, count: MAX_IO as u32, stable: StableHow::Unstable, data }
}

fn encode_reply(bencher: Bencher<'_, '_>, result: &impl xdr::Xdr, len: usize) {
    let encode = || message::encode_reply(1, &ReplyStatus::Success, black_box(result));
    bencher.counter(BytesCount::new(len)).bench_local(encode);
}

fn decode_reply<P: Procedure>(bencher: Bencher<'_, '_>, record: &Record) {
    let wire = record.message();
    bencher.counter(BytesCount::new(wire.len())).bench_local(|| {
        let Ok(Message::Reply(mut reply)) = Message::decode(black_box(wire.clone())) else {
            panic!("not a reply")
        };
        <P::Res as xdr::Xdr>::decode(&mut reply.result).expect("the result decodes")
    });
}

#[divan::bench]
fn getattr_reply_encode(bencher: Bencher<'_, '_>) {
    let len = message::encode_reply(1, &ReplyStatus::Success, &getattr()).len();
    encode_reply(bencher, &getattr(), len);
}

#[divan::bench]
fn getattr_reply_decode(bencher: Bencher<'_, '_>) {
    decode_reply::<Getattr>(bencher, &message::encode_reply(1, &ReplyStatus::Success, &getattr()));
}

#[divan::bench]
fn readdirplus_reply_of_100_encode(bencher: Bencher<'_, '_>) {
    let len = message::encode_reply(1, &ReplyStatus::Success, &readdirplus()).len();
    encode_reply(bencher, &readdirplus(), len);
}

#[divan::bench]
fn readdirplus_reply_of_100_decode(bencher: Bencher<'_, '_>) {
    decode_reply::<Readdirplus>(bencher, &message::encode_reply(1, &ReplyStatus::Success, &readdirplus()));
}

/// The payload is shared and not copied, so calls are counted: bytes a second would mean nothing.
#[divan::bench]
fn write_call_1_mib_encode(bencher: Bencher<'_, '_>) {
    let (credential, args) = (OpaqueAuth::sys(&AuthSys::new("client", 1000, 100)), write());
    let encode = || message::encode_call::<Write>(1, black_box(&credential), black_box(&args));
    bencher.counter(ItemsCount::new(1usize)).bench_local(encode);
}

#[divan::bench]
fn write_call_1_mib_decode(bencher: Bencher<'_, '_>) {
    let credential = OpaqueAuth::sys(&AuthSys::new("client", 1000, 100));
    let wire = message::encode_call::<Write>(1, &credential, &write()).message();
    bencher.counter(ItemsCount::new(1usize)).bench_local(|| {
        let Ok(Message::Call(mut call)) = Message::decode(black_box(wire.clone())) else {
            panic!("not a call")
        };
        <WriteArgs as xdr::Xdr>::decode(&mut call.args).expect("the arguments decode")
    });
}
