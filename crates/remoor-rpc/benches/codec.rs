//! Record marking and message headers.

use bytes::Bytes;
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use remoor_rpc::auth::{AuthSys, OpaqueAuth};
use remoor_rpc::message::{self, Message};
use remoor_rpc::record::{DEFAULT_MAX_RECORD, Record, RecordReader};

remoor_rpc::program! {
    /// A program with a procedure that carries nothing, so that only headers are measured.
    pub BENCH = "BENCH" 0x2000_0001 version 1;
    0 Null "NULL" idempotent () => (),
}

/// Bytes that one read brings, as from a socket.
const READ: usize = 64 << 10;
/// Bytes of a stream.
const STREAM: usize = 4 << 20;

fn main() {
    divan::main();
}

/// Records of `len` bytes each, read as a connection reads them.
#[divan::bench(args = [128, 1 << 20])]
fn record_read(bencher: Bencher<'_, '_>, len: usize) {
    let record = Record::new(vec![Bytes::from(vec![7; len])]).segments().concat();
    let count = STREAM / record.len();
    let wire = record.repeat(count);
    let bencher = bencher.counter(BytesCount::new(wire.len())).counter(ItemsCount::new(count));
    bencher.bench_local(|| {
        let mut reader = RecordReader::new(DEFAULT_MAX_RECORD);
        let mut records = 0;
        for piece in wire.chunks(READ) {
            reader.push(black_box(piece));
            while let Some(record) = reader.next_record().expect("the records are within the limit") {
                black_box(record);
                records += 1;
            }
        }
        assert_eq!(records, count);
    });
}

/// A record from its message; the payload is shared, so this is the cost of the mark and
/// records are counted.
#[divan::bench(args = [128, 1 << 20])]
fn record_mark(bencher: Bencher<'_, '_>, len: usize) {
    let message = Bytes::from(vec![7; len]);
    bencher.counter(ItemsCount::new(1usize)).bench_local(|| Record::new(vec![black_box(&message).clone()]));
}

#[divan::bench]
fn call_header_encode(bencher: Bencher<'_, '_>) {
    let credential = OpaqueAuth::sys(&AuthSys::new("client", 1000, 100));
    let encode = || message::encode_call::<Null>(1, black_box(&credential), &());
    bencher.counter(BytesCount::new(encode().len())).bench_local(encode);
}

#[divan::bench]
fn call_header_decode(bencher: Bencher<'_, '_>) {
    let credential = OpaqueAuth::sys(&AuthSys::new("client", 1000, 100));
    let wire = message::encode_call::<Null>(1, &credential, &()).message();
    bencher.counter(BytesCount::new(wire.len())).bench_local(|| Message::decode(black_box(wire.clone())));
}
