//! What the reconnect machine costs: per call on a healthy connection, and per move.

use std::time::{Duration, Instant};

use bytes::Bytes;
use divan::Bencher;
use divan::counter::ItemsCount;
use remoor_nfs::reconnect::{AckState, Action, Call, Config, ConnId, Event, Machine, Rebind, Transmit};
use remoor_rpc::message::{ReplyStatus, encode_reply, peek_xid};
use remoor_rpc::record::Record;

/// Time between two calls in virtual time.
const TICK: Duration = Duration::from_micros(10);
const MOVED_CALLS: u64 = 1024;

fn main() {
    divan::main();
}

/// Calls through a healthy connection with `window` of them outstanding: call, transmit, reply, completion.
#[divan::bench(args = [1, 64, 1024])]
fn calls(bencher: Bencher<'_, '_>, window: usize) {
    let mut bed = Bed::ready(window);
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| bed.turn_over());
}

/// From the evidence that the path is dead to the last of 1024 calls sent again.
#[divan::bench]
fn move_1024_calls(bencher: Bencher<'_, '_>) {
    bencher
        .counter(ItemsCount::new(MOVED_CALLS))
        .with_inputs(|| Bed::raced(MOVED_CALLS as usize))
        .bench_local_refs(|bed| bed.move_away());
}

struct Bed {
    machine: Machine,
    now: Instant,
    record: Record,
    reply: Bytes,
    window: std::collections::VecDeque<u32>,
}

impl Bed {
    fn ready(window: usize) -> Self {
        let config = Config { rebind: Rebind::Fresh, ..Config::default() };
        let machine = Machine::new(config, 1, &[]).expect("the default is valid");
        let mut bed = Self {
            machine,
            now: start(),
            record: Record::new(vec![Bytes::from_static(&[0; 64]), Bytes::from_static(&[0; 4096])]),
            reply: Bytes::from_static(&[0; 128]),
            window: std::collections::VecDeque::new(),
        };
        bed.machine.connect(bed.now);
        bed.prove_next();
        (0..window).for_each(|_| bed.call());
        bed
    }

    /// With `window` calls outstanding, suspect, and a proven connection at hand.
    fn raced(window: usize) -> Self {
        let mut bed = Self::ready(window);
        while let Some(due) = bed.machine.poll_timeout().filter(|_| bed.machine.counters().suspicions == 0) {
            bed.now = due;
            bed.machine.handle_timeout(due);
        }
        bed.prove_next();
        bed
    }

    fn turn_over(&mut self) -> Option<Action> {
        self.now += TICK;
        let xid = self.window.pop_front()?;
        let reply = self.reply.clone();
        self.machine.handle_event(self.now, Event::Received { conn: ConnId(0), xid, reply });
        let completed = self.machine.poll();
        self.call();
        completed
    }

    fn move_away(&mut self) -> usize {
        let conn = ConnId(0);
        let ack = AckState { unacked_for: Some(Duration::from_secs(1)), retransmits: 2 };
        self.machine.handle_event(self.now, Event::AckState { conn, ack });
        self.machine.handle_event(self.now, Event::Drained { conn });
        std::iter::from_fn(|| self.machine.poll_transmit()).count()
    }

    fn call(&mut self) {
        let xid = self.machine.next_xid();
        let call = Call { xid, record: self.record.clone(), idempotent: true };
        self.machine.call(self.now, call).expect("there is room");
        self.window.push_back(xid);
        divan::black_box(self.machine.poll_transmit());
    }

    /// Connects what the machine asks for and answers its NULL.
    fn prove_next(&mut self) {
        while let Some(action) = self.machine.poll() {
            let Action::Connect { conn, port, .. } = action else { continue };
            while self.machine.poll_transmit().is_some() {}
            self.machine.handle_event(self.now, Event::Connected { conn, local_port: port });
            let Some(Transmit { conn, record }) = self.machine.poll_transmit() else { continue };
            let xid = peek_xid(&record.message()).expect("a call has an xid");
            let reply = encode_reply(xid, &ReplyStatus::Success, &()).message();
            self.machine.handle_event(self.now, Event::Received { conn, xid, reply });
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "an Instant has no other constructor")]
fn start() -> Instant {
    Instant::now()
}
