//! What is forgotten when there is no room.

use std::time::Duration;

use super::super::*;
use super::lessons::{Bench, READ, UNREAD, key};

fn small() -> Config {
    Config { running: 2, client_entries: 8, entries: 8, held_calls: 2, ..Config::default() }
}

#[test]
fn what_was_acknowledged_goes_first() {
    let mut bench = Bench::new(small());
    (0..4).for_each(|xid| _ = bench.executed(1, xid, 1));
    bench.ends(1, How::Reset, 0);
    bench.stands(2, READ);
    (4..100).for_each(|xid| _ = bench.executed(2, xid, 1));
    let counters = bench.cache.counters();
    assert_eq!((counters.evicted_settled, counters.evicted_unsettled), (92, 0));
    for xid in 0..4 {
        assert!(matches!(bench.call(3, xid), Verdict::Replay(..)), "{xid} may not have been read");
    }
    assert_eq!(bench.cache.len(), 8);
}

#[test]
fn what_may_be_asked_for_again_goes_last_and_is_counted() {
    let mut bench = Bench::new(small());
    bench.ends(1, How::Reset, 0);
    (0..4).for_each(|xid| _ = bench.executed(1, xid, 1));
    bench.pass(MIN_KEEP);
    (4..10).for_each(|xid| _ = bench.executed(1, xid, 1));
    let counters = bench.cache.counters();
    assert_eq!((counters.evicted_settled, counters.evicted_unsettled, counters.evicted_young), (0, 2, 0));
    (10..20).for_each(|xid| _ = bench.executed(1, xid, 1));
    let counters = bench.cache.counters();
    assert_eq!((counters.evicted_unsettled, counters.evicted_young), (12, 8));
}

#[test]
fn one_client_does_not_push_out_another() {
    let mut bench = Bench::new(Config { entries: 100, ..small() });
    bench.ends(1, How::Reset, 0);
    bench.ends(2, How::Reset, 0);
    let other = ClientId::new([192, 0, 2, 2].into(), b"host", 0);
    let of_other = Key::new(0, other, 0, [100_003, 3, 12], None, b"");
    let caller = Caller { conn: ConnectionId(2), port: 700 };
    let gone = |_| Standing::Ended(End { how: How::Reset, acked: 0 });
    let now = bench.now;
    let Verdict::Execute(ticket, _) = bench.cache.call(now, caller, of_other, 0, &gone) else {
        panic!("new")
    };
    bench.cache.finish(now, ticket, [0; 8][..].to_vec().into(), None, &gone);
    (0..50).for_each(|xid| _ = bench.executed(1, xid, 1));
    assert_eq!(bench.cache.len(), 9);
    let caller = Caller { conn: ConnectionId(3), port: 700 };
    assert!(matches!(bench.cache.call(now, caller, of_other, 0, &gone), Verdict::Replay(..)));
}

#[test]
fn calls_in_progress_are_never_forgotten() {
    let mut bench = Bench::new(small());
    let tickets: Vec<Ticket> = (0..8)
        .map(|xid| match bench.call(1, xid) {
            Verdict::Execute(ticket, _) => ticket,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(matches!(bench.call(1, 8), Verdict::Refuse(_)));
    bench.finish(tickets[3], 1, true);
    assert!(matches!(bench.call(1, 9), Verdict::Execute(..)));
    assert_eq!((bench.cache.len(), bench.cache.counters().refused), (8, 1));
}

#[test]
fn for_more_calls_than_may_wait_the_longest_held_is_decided() {
    let mut bench = Bench::new(small());
    (0..4).for_each(|xid| _ = bench.executed(1, xid, 1));
    bench.stands(1, UNREAD);
    (0..3).for_each(|xid| assert_eq!(bench.call(2, xid), Verdict::Wait));
    assert_eq!(bench.actions().len(), 1, "the first is taken to be unread");
    bench.stands(1, READ);
    assert_eq!(bench.call(2, 3), Verdict::Wait);
    assert!(matches!(bench.actions()[..], [Action::Execute(..)]), "the second is new work");
    assert_eq!((bench.cache.held(), bench.cache.counters().forced), (2, 2));
}

#[test]
fn more_calls_than_may_wait_for_calls_in_progress_are_refused() {
    let mut bench = Bench::new(small());
    let tickets: Vec<_> = (0..3).map(|xid| bench.call(1, xid)).collect();
    assert!(tickets.iter().all(|verdict| matches!(verdict, Verdict::Execute(..))));
    (0..2).for_each(|xid| assert_eq!(bench.call(2, xid), Verdict::Wait));
    assert!(matches!(bench.call(2, 2), Verdict::Refuse(_)));
    assert_eq!(bench.cache.counters().refused, 1);
}

#[test]
fn replies_are_bounded_in_bytes() {
    let mut bench = Bench::new(Config { reply_bytes: 100, ..Config::default() });
    bench.stands(1, READ);
    (0..10).for_each(|xid| _ = bench.executed(1, xid, 1));
    assert_eq!(bench.cache.len(), 3, "of 32 bytes each");
    assert!(
        matches!(bench.call(1, 9), Verdict::Replay(..)) && matches!(bench.call(1, 0), Verdict::Execute(..))
    );
}

#[test]
fn equal_live_clients_are_bounded() {
    let mut bench = Bench::new(Config { grace: Duration::ZERO, ..Config::default() });
    for conn in 1..=20 {
        bench.executed(conn, 7, conn as u8);
        bench.stands(conn, READ);
    }
    assert_eq!(bench.cache.len(), 4);
    assert!((17..=20).all(|conn| matches!(bench.call(conn, 7), Verdict::Replay(..))));
    assert_eq!(key(7), key(7));
}
