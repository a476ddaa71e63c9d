//! What other servers' reply caches got wrong, and every way a call can come again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::*;
use super::epoch;

/// A cache, its clock, and what the kernel says of each connection.
pub(super) struct Bench {
    pub(super) cache: ReplyCache<u32>,
    pub(super) now: Instant,
    standings: RefCell<BTreeMap<u64, Standing>>,
}

pub(super) const UNREAD: Standing = open(Some(0), 0, Duration::ZERO);
pub(super) const READ: Standing = open(Some(END), 0, Duration::ZERO);
/// Where every reply ends.
pub(super) const END: u64 = 100;
/// The call every test sends, as the driver knows it.
const CALL: u32 = 5;

pub(super) fn key(xid: u32) -> Key {
    let client = ClientId::new([192, 0, 2, 1].into(), b"host", 0);
    Key::new(0, client, xid, [100_003, 3, 12], Some((0, 0)), b"remove it")
}

const fn open(acked: Option<u64>, retransmits: u32, silent: Duration) -> Standing {
    Standing::Open { acked, retransmits, silent }
}

fn caller(conn: u64) -> Caller {
    // Connections 1 and 11, 2 and 12 … come from one port.
    Caller { conn: ConnectionId(conn), port: 700 + (conn % 10) as u16 }
}

fn reply(n: u8) -> Bytes {
    Bytes::from(vec![n; 32])
}

impl Bench {
    pub(super) fn new(config: Config) -> Self {
        Self { cache: ReplyCache::new(config), now: epoch(), standings: RefCell::default() }
    }

    fn with<T>(
        &mut self,
        run: impl FnOnce(&mut ReplyCache<u32>, Instant, &dyn Fn(ConnectionId) -> Standing) -> T,
    ) -> T {
        let standings = self.standings.borrow();
        run(&mut self.cache, self.now, &|conn| standings.get(&conn.0).copied().unwrap_or(UNREAD))
    }

    pub(super) fn call(&mut self, conn: u64, xid: u32) -> Verdict<u32> {
        self.with(|cache, now, probe| cache.call(now, caller(conn), key(xid), CALL, probe))
    }

    pub(super) fn finish(&mut self, ticket: Ticket, n: u8, sent: bool) {
        self.with(|cache, now, probe| cache.finish(now, ticket, reply(n), sent.then_some(END), probe));
    }

    /// A call that is executed and answered.
    pub(super) fn executed(&mut self, conn: u64, xid: u32, n: u8) -> Ticket {
        let Verdict::Execute(ticket, CALL) = self.call(conn, xid) else { panic!("a new call") };
        self.finish(ticket, n, true);
        ticket
    }

    pub(super) fn stands(&mut self, conn: u64, standing: Standing) {
        self.standings.borrow_mut().insert(conn, standing);
    }

    pub(super) fn ends(&mut self, conn: u64, how: How, acked: u64) {
        let end = End { how, acked };
        self.stands(conn, Standing::Ended(end));
        self.with(|cache, now, probe| cache.ended(now, ConnectionId(conn), end, probe));
    }

    /// Lets time pass, with every timer on its way.
    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.cache.poll_timeout().filter(|at| *at <= until) {
            assert!(at >= self.now, "a timer in the past");
            self.now = at;
            self.with(|cache, now, probe| cache.handle_timeout(now, probe));
        }
        self.now = until;
    }

    /// What is to be done, probes apart.
    pub(super) fn actions(&mut self) -> Vec<Action<u32>> {
        std::iter::from_fn(|| self.cache.poll()).filter(|a| !matches!(a, Action::Probe(_))).collect()
    }

    fn probes(&mut self) -> Vec<u64> {
        let of = |action| match action {
            Action::Probe(conn) => conn.0,
            other => panic!("{other:?}"),
        };
        std::iter::from_fn(|| self.cache.poll()).map(of).collect()
    }

    fn replayed(&mut self, conn: u64, xid: u32, n: u8) -> Ticket {
        match self.call(conn, xid) {
            Verdict::Replay(ticket, bytes) if bytes == reply(n) => ticket,
            other => panic!("connection {conn}: {other:?}"),
        }
    }

    fn waits(&mut self, conn: u64, xid: u32) {
        assert!(matches!(self.call(conn, xid), Verdict::Wait | Verdict::Awaited), "connection {conn}");
        assert_eq!(self.actions(), [], "connection {conn}");
    }

    fn given(&mut self, conn: u64, n: u8) {
        match &self.actions()[..] {
            [Action::Replay { conn: to, reply: bytes, .. }] => {
                assert_eq!((to.0, bytes), (conn, &reply(n)));
            }
            other => panic!("{other:?}"),
        }
    }

    fn told_to_execute(&mut self) -> Ticket {
        match &self.actions()[..] {
            [Action::Execute(ticket, CALL)] => *ticket,
            other => panic!("{other:?}"),
        }
    }
}

fn bench() -> Bench {
    Bench::new(Config::default())
}

const GRACE: Duration = Duration::from_millis(250);

#[test]
fn the_same_connection_the_same_port_and_a_fresh_port_are_answered() {
    let mut bench = bench();
    bench.executed(1, 7, 1);
    bench.replayed(1, 7, 1);
    bench.ends(1, How::Reset, END);
    bench.replayed(11, 7, 1);
    bench.ends(11, How::TimedOut, 0);
    bench.replayed(2, 7, 1);
    let counters = bench.cache.counters();
    assert_eq!((counters.same_connection, counters.same_port, counters.other_port), (1, 1, 1));
    assert_eq!((counters.executed, counters.hits()), (1, 3));
}

/// Lesson 1: two clients behind one address, with the same xid and bytes.
#[test]
fn a_live_second_client_is_executed() {
    let mut bench = bench();
    bench.executed(1, 7, 1);
    bench.stands(1, READ);
    bench.waits(2, 7);
    bench.pass(GRACE);
    let ticket = bench.told_to_execute();
    bench.finish(ticket, 2, true);
    assert_eq!(bench.cache.counters().told_apart, 1);
    bench.replayed(1, 7, 1);
    bench.replayed(2, 7, 2);
}

/// Lesson 1, later: each of the two comes back to its own reply.
#[test]
fn two_clients_that_look_the_same_each_get_their_own_reply_again() {
    let mut bench = bench();
    bench.executed(1, 7, 1);
    bench.stands(1, READ);
    bench.waits(2, 7);
    bench.pass(GRACE);
    let ticket = bench.told_to_execute();
    bench.finish(ticket, 2, true);
    bench.stands(2, READ);
    bench.ends(1, How::Reset, END);
    bench.replayed(3, 7, 1);
    bench.ends(2, How::Reset, END);
    bench.replayed(4, 7, 2);
}

/// Lesson 2: to another connection only when the first is gone.
#[test]
fn a_reply_that_is_not_acknowledged_is_held_until_something_tells() {
    type Evidence = fn(&mut Bench);
    let rows: [(&str, Evidence, bool); 7] = [
        ("reset", |b| b.ends(1, How::Reset, 0), true),
        ("closed, but the reply was lost", |b| b.ends(1, How::Clean, END - 1), true),
        ("retransmitted in vain", |b| b.stands(1, open(Some(0), RETRANSMITS, Duration::ZERO)), true),
        ("asked for again and again", |b| _ = (0..REPEATS).map(|_| b.call(2, 7)).count(), true),
        ("nothing for a long time", |b| b.pass(HOLD_LIMIT), true),
        ("acknowledged", |b| b.stands(1, READ), false),
        ("closed after the acknowledgement", |b| b.ends(1, How::Clean, END), false),
    ];
    for (evidence, happens, replayed) in rows {
        let mut bench = bench();
        bench.executed(1, 7, 1);
        bench.pass(Duration::from_secs(1));
        bench.waits(2, 7);
        bench.pass(GRACE);
        assert_eq!(bench.actions(), [], "{evidence}");
        happens(&mut bench);
        bench.pass(HOLD_LOOK);
        if replayed {
            bench.given(2, 1);
        } else {
            bench.told_to_execute();
        }
        assert_eq!(bench.cache.held(), 0, "{evidence}");
    }
}

/// Lesson 2: an acknowledgement is no proof that the reply was read.
#[test]
fn a_connection_that_acknowledged_and_then_breaks_is_not_a_live_client() {
    let mut bench = bench();
    bench.executed(1, 7, 1);
    bench.stands(1, READ);
    bench.waits(2, 7);
    bench.pass(GRACE / 2);
    bench.ends(1, How::Reset, END);
    bench.given(2, 1);
}

/// Lesson 2: a client that is gone without a packet has acknowledged too.
#[test]
fn a_silent_connection_is_probed_before_its_client_counts_as_alive() {
    let minute = Duration::from_secs(60);
    for answer in [None, Some(true), Some(false)] {
        let mut bench = bench();
        bench.executed(1, 7, 1);
        bench.stands(1, open(Some(END), 0, minute));
        assert_eq!(bench.call(2, 7), Verdict::Wait);
        assert_eq!(bench.probes(), [1]);
        bench.pass(GRACE * 2);
        assert_eq!(bench.probes(), [1, 1], "again, for it may be lost");
        match answer {
            None => bench.pass(PROBE_ANSWER),
            Some(true) => bench.stands(1, READ),
            Some(false) => bench.ends(1, How::Reset, END),
        }
        bench.pass(PROBE_EVERY);
        if answer == Some(true) {
            bench.told_to_execute();
        } else {
            bench.given(2, 1);
        }
    }
}

#[test]
fn a_call_that_was_queued_on_a_forsaken_connection_is_not_executed() {
    let mut bench = bench();
    // The client moved from connection 1, where its call still lies, and was answered on 2.
    bench.executed(2, 7, 1);
    bench.stands(2, READ);
    bench.waits(1, 7);
    bench.ends(1, How::Clean, 0);
    bench.pass(HOLD_LIMIT);
    assert_eq!((bench.actions(), bench.cache.held()), (vec![], 0));
}

#[test]
fn after_a_clean_close_the_same_bytes_are_new_work() {
    let mut bench = bench();
    bench.executed(1, 7, 1);
    bench.ends(1, How::Clean, END);
    bench.executed(2, 7, 2);
    assert_eq!((bench.cache.len(), bench.cache.counters().told_apart), (1, 1));
}

/// Lesson 3: what failed at the RPC level is not kept.
#[test]
fn a_call_that_failed_at_the_rpc_level_is_executed_again() {
    let mut bench = bench();
    let Verdict::Execute(ticket, CALL) = bench.call(1, 7) else { panic!("a new call") };
    bench.waits(2, 7);
    bench.with(|cache, now, probe| cache.abandon(now, ticket, probe));
    let ticket = bench.told_to_execute();
    bench.with(|cache, now, probe| cache.abandon(now, ticket, probe));
    assert!(bench.cache.is_empty());
    assert_eq!(bench.cache.counters().abandoned, 2);
}

/// Lesson 4: the entry is there before the call executes, and the reply goes to the newest connection.
#[test]
fn the_answer_to_a_call_in_progress_goes_to_the_newest_connection() {
    let mut bench = bench();
    let Verdict::Execute(ticket, CALL) = bench.call(1, 7) else { panic!("a new call") };
    bench.waits(1, 7);
    bench.ends(1, How::Reset, 0);
    bench.waits(2, 7);
    bench.waits(2, 7);
    bench.ends(2, How::Reset, 0);
    bench.waits(3, 7);
    bench.pass(HOLD_LIMIT * 2);
    assert_eq!(bench.actions(), [], "however long it takes");
    bench.finish(ticket, 1, false);
    bench.given(3, 1);
    bench.replayed(3, 7, 1);
    let counters = bench.cache.counters();
    assert_eq!((counters.executed, counters.in_progress, counters.held), (1, 2, 2));
}

/// Lesson 4 with both alive: the first gets its reply, the second is told apart by the acknowledgement.
#[test]
fn a_call_in_progress_on_a_live_connection_is_not_stolen() {
    for (standing, replayed) in [(READ, false), (open(Some(0), 2, Duration::ZERO), true)] {
        let mut bench = bench();
        let Verdict::Execute(ticket, CALL) = bench.call(1, 7) else { panic!("a new call") };
        (0..5).for_each(|_| bench.waits(2, 7));
        bench.finish(ticket, 1, true);
        assert_eq!(bench.actions(), [], "what was asked before the reply was there says nothing");
        bench.stands(1, standing);
        bench.pass(GRACE + HOLD_LOOK);
        if replayed {
            bench.given(2, 1);
        } else {
            bench.told_to_execute();
        }
    }
}

/// Lesson 5: nothing is dropped silently.
#[test]
fn every_connection_that_waits_is_answered() {
    let mut bench = bench();
    let Verdict::Execute(ticket, CALL) = bench.call(1, 7) else { panic!("a new call") };
    bench.ends(1, How::Reset, 0);
    (2..6).for_each(|conn| bench.waits(conn, 7));
    bench.finish(ticket, 1, false);
    let to: Vec<u64> = bench
        .actions()
        .iter()
        .map(|action| match action {
            Action::Replay { conn, .. } => conn.0,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(to, [2, 3, 4, 5]);
    (2..6).for_each(|conn| _ = bench.replayed(conn, 7, 1));
}

/// Lesson 6: longer than the client needs to come back.
#[test]
fn a_reply_is_kept_for_an_hour_after_it_was_last_asked_for() {
    let mut bench = bench();
    bench.executed(1, 7, 1);
    bench.ends(1, How::Reset, 0);
    bench.pass(Duration::from_secs(450));
    bench.replayed(2, 7, 1);
    bench.ends(2, How::Reset, 0);
    bench.pass(Duration::from_secs(3599));
    bench.replayed(3, 7, 1);
    bench.ends(3, How::Reset, 0);
    bench.pass(Duration::from_secs(3601));
    assert!(bench.cache.is_empty() && bench.cache.poll_timeout().is_none());
    assert_eq!(bench.cache.counters().expired, 1);
}

/// Lesson 8: a relay's acknowledgement is not its client's.
#[test]
fn through_a_relay_only_the_end_of_a_connection_tells() {
    let relayed = open(None, 0, Duration::ZERO);
    let mut bench = bench();
    bench.executed(1, 7, 1);
    bench.stands(1, relayed);
    bench.waits(2, 7);
    bench.pass(Duration::from_secs(10));
    assert_eq!(bench.actions(), []);
    bench.ends(1, How::Reset, END);
    bench.given(2, 1);
}

#[test]
fn a_reply_is_where_it_was_sent_last() {
    let mut bench = bench();
    let ticket = bench.executed(1, 7, 1);
    bench.ends(1, How::Reset, 0);
    assert_eq!(bench.replayed(2, 7, 1), ticket);
    bench.cache.sent(ticket, ConnectionId(1), 1);
    bench.cache.sent(ticket, ConnectionId(2), END + 1);
    bench.ends(2, How::Clean, END);
    bench.replayed(3, 7, 1);
    bench.cache.sent(ticket, ConnectionId(3), END);
    bench.ends(3, How::Clean, END);
    bench.executed(4, 7, 2);
}
