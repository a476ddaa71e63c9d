//! What the reply cache costs a call that is kept: one lock at its beginning and one at its end, and the hash of a WRITE.

use std::hint::black_box;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use remoor_nfs::replay::{
    Caller, ClientId, Config, ConnectionId, Credential, Key, ReplyCache, Standing, Ticket, Verdict,
};

const SEED: u64 = 7;
const WHO: Credential = Some((1000, 1000));
const CALLER: Caller = Caller { conn: ConnectionId(1), port: 700 };

fn main() {
    divan::main();
}

fn key(xid: u32, args: &[u8]) -> Key {
    let client = ClientId::new([192, 0, 2, 1].into(), b"client.example.org", SEED);
    Key::new(SEED, client, xid, [100_003, 3, 12], WHO, args)
}

/// All replies are acknowledged at once.
fn read(_: ConnectionId) -> Standing {
    Standing::Open { acked: Some(u64::MAX), retransmits: 0, silent: Duration::ZERO }
}

#[allow(clippy::disallowed_methods, reason = "an Instant has no other constructor")]
fn start() -> Instant {
    Instant::now()
}

/// A cache of the default size, a sixteenth of it, or as full as it gets.
fn cache(full: bool) -> Mutex<ReplyCache<()>> {
    let config = Config::default().shared_by(16);
    let mut cache = ReplyCache::new(config);
    for xid in 0..if full { config.client_entries as u32 } else { 0 } {
        let ticket = begin(&mut cache, xid);
        end(&mut cache, ticket, xid.into());
    }
    Mutex::new(cache)
}

fn begin(cache: &mut ReplyCache<()>, xid: u32) -> Ticket {
    match cache.call(start(), CALLER, key(xid, &[0; 64]), (), &read) {
        Verdict::Execute(ticket, ()) => ticket,
        _ => panic!("every xid is new"),
    }
}

fn end(cache: &mut ReplyCache<()>, ticket: Ticket, sent: u64) {
    cache.finish(start(), ticket, Bytes::from_static(&[0; 128]), Some(sent), &read);
}

/// Beginning and end of a call that is kept; `full` forgets an older one for each.
#[divan::bench(args = [false, true])]
fn begin_and_end(bencher: Bencher<'_, '_>, full: bool) {
    let (cache, mut xid) = (cache(full), 1 << 20);
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
        xid += 1;
        let ticket = begin(&mut cache.lock().expect("one thread"), xid);
        end(&mut cache.lock().expect("one thread"), ticket, xid.into());
    });
}

/// A call that comes again on its connection.
#[divan::bench]
fn replay(bencher: Bencher<'_, '_>) {
    let cache = cache(true);
    let again = key(100, &[0; 64]);
    bencher
        .counter(ItemsCount::new(1_usize))
        .bench_local(|| black_box(cache.lock().expect("one thread").call(start(), CALLER, again, (), &read)));
}

/// The key of a call with so many bytes of arguments.
#[divan::bench(args = [64, 4096, 65536, 1 << 20])]
fn hash(bencher: Bencher<'_, '_>, bytes: usize) {
    let args = vec![1; bytes];
    bencher.counter(BytesCount::new(bytes)).bench_local(|| key(black_box(1), black_box(&args)));
}
