//! Segments per second on flows that exist, and new flows per second, by the number of entries.
//! The balancer is `nf-conntrack`, whose tracking does the most work for each segment.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::num::NonZeroUsize;
use std::time::Instant;

use divan::Bencher;
use divan::counter::ItemsCount;
use remoor_flow::{BackendId, Config, FiveTuple, FlowTable, Segment, TcpFlags, WhenFull, preset};

const ENTRIES: [u32; 3] = [1, 10_000, 1_000_000];
/// Segments in one iteration.
const BATCH: u32 = 1000;

fn main() {
    divan::main();
}

#[expect(clippy::disallowed_methods, reason = "an Instant has no other origin; the value is never compared")]
fn origin() -> Instant {
    Instant::now()
}

fn segment(index: u32, flags: TcpFlags) -> Segment {
    let client = (Ipv4Addr::from(0x0a00_0000 + index / 1000), 1000 + (index % 1000) as u16).into();
    let flow = FiveTuple { client, service: (Ipv4Addr::new(192, 0, 2, 100), 2049).into() };
    Segment { flow, flags, seq: 1000, ack: 5000, payload_len: 100 }
}

/// A full table; a new flow replaces the one that is idle for longest.
fn filled(entries: u32, now: Instant) -> FlowTable {
    let config = preset::find("nf-conntrack").expect("a known preset").config;
    let entry_limit = NonZeroUsize::new(entries as usize).expect("a table of some size");
    let config = Config { entry_limit, when_full: WhenFull::EvictLongestIdle, ..config };
    let mut table = FlowTable::new(config, &[BackendId(0), BackendId(1)], 7);
    for index in 0..entries {
        table.from_client(&segment(index, TcpFlags::ACK), now);
    }
    table
}

#[divan::bench(args = ENTRIES)]
fn segments_of_known_flows(bencher: Bencher<'_, '_>, entries: u32) {
    let now = origin();
    let mut table = filled(entries, now);
    let mut step = 0u32;
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        for _ in 0..BATCH {
            // Neighbours in time are not neighbours in memory.
            step = step.wrapping_add(0x9e37_79b1);
            black_box(table.from_client(&segment(step % entries, TcpFlags::ACK), now));
        }
    });
}

#[divan::bench(args = ENTRIES)]
fn new_flows(bencher: Bencher<'_, '_>, entries: u32) {
    let now = origin();
    let mut table = filled(entries, now);
    let mut next = entries;
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        for _ in 0..BATCH {
            next = next.wrapping_add(1);
            black_box(table.from_client(&segment(next, TcpFlags::SYN), now));
        }
    });
}
