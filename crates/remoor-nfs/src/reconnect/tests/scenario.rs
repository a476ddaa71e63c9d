//! What a mount goes through when a node dies, by port choice and fault.

use std::time::Duration;

use super::super::*;
use super::pair::{Net, Node, Pair, test_record};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

pub(super) fn fresh() -> Config {
    Config { rebind: Rebind::Fresh, ..Config::default() }
}

fn same(abandon: Abandon) -> Config {
    Config { abandon, ..Config::default() }
}

#[test]
fn a_healthy_mount_takes_one_attempt_and_answers_every_call() {
    let mut pair = Pair::connected(fresh(), 1);
    for _ in 0..100 {
        pair.call(true);
        pair.run_until_answered(SECOND);
    }
    assert_eq!(pair.attempts.len(), 1);
    assert_eq!(pair.notices(), [Notice::Mounted { port: pair.attempts[0].port, attempts: 1 }]);
    assert_eq!(pair.machine.poll_timeout(), None, "an idle mount needs no timer");
}

#[test]
fn a_silent_death_is_left_within_a_second_with_fresh_ports() {
    let mut pair = Pair::connected(fresh(), 2);
    pair.fail_over(Node::Silent);
    let xids = [pair.call(true), pair.call(false)];
    let gap = pair.run_until_answered(SECOND);
    assert!(gap < 700 * MS, "{gap:?}");
    assert_eq!(pair.executed[1], xids, "resent in send order with the same xids");
    let (reason, from, to) = pair.last_move();
    assert_eq!(reason, MoveReason::PathDead);
    assert_ne!(from, to);
    assert!((RESERVED_LO..=RESERVED_HI).contains(&to));
}

#[test]
fn a_node_that_dies_after_acknowledging_is_left_within_a_second() {
    let mut pair = Pair::connected(fresh(), 3);
    pair.net.service = 50 * MS;
    pair.call(false);
    pair.run_for(10 * MS);
    pair.fail_over(Node::Silent);
    let gap = pair.run_until_answered(2 * SECOND);
    assert!(gap < SECOND, "{gap:?}");
    assert_eq!(pair.last_move().0, MoveReason::PathDead);
}

#[test]
fn calls_are_resent_byte_for_byte() {
    let mut pair = Pair::connected(fresh(), 4);
    pair.fail_over(Node::Silent);
    let xid = pair.call(true);
    pair.run_until_answered(SECOND);
    let sent: Vec<_> = pair.sent.iter().filter(|(_, record)| *record == test_record(xid)).collect();
    assert_eq!(sent.len(), 2);
    assert_ne!(sent[0].0, sent[1].0);
}

#[test]
fn a_stuck_server_is_left_for_a_proven_one() {
    let mut pair = Pair::connected(fresh(), 5);
    pair.fail_over(Node::Stuck);
    pair.call(true);
    let gap = pair.run_until_answered(3 * SECOND);
    assert!(gap > STUCK_AFTER && gap < 2 * SECOND, "{gap:?}");
    assert_eq!(pair.last_move().0, MoveReason::Stuck);
}

#[test]
fn a_call_that_must_not_run_twice_waits_timeo_for_a_stuck_server() {
    let mut pair = Pair::connected(fresh(), 6);
    pair.fail_over(Node::Stuck);
    pair.call(false);
    pair.run_for(50 * SECOND);
    assert_eq!(pair.machine.state(), State::Suspect);
    pair.run_until_answered(TIMEO);
    assert_eq!(pair.last_move().0, MoveReason::Stuck);
}

#[test]
fn an_explicit_stuck_rule_or_a_replaying_server_does_not_wait() {
    let rules =
        [Config { stuck: Stuck::After(400 * MS), ..fresh() }, Config { server_replays: true, ..fresh() }];
    for (config, most) in rules.into_iter().zip([800 * MS, 1400 * MS]) {
        let mut pair = Pair::connected(config, 7);
        pair.fail_over(Node::Stuck);
        pair.call(false);
        let gap = pair.run_until_answered(3 * SECOND);
        assert!(gap < most, "{gap:?}");
    }
}

#[test]
fn a_server_that_answers_out_of_order_is_left_soon_when_it_is_stuck() {
    let mut pair = Pair::connected(fresh(), 7);
    pair.net.service = 200 * MS;
    let slow = pair.call(false);
    pair.run_for(10 * MS);
    pair.net.service = MS;
    let quick = pair.call(false);
    pair.run_until_answered(2 * SECOND);
    assert_eq!(pair.executed[0], [quick, slow]);
    pair.fail_over(Node::Stuck);
    pair.call(false);
    let gap = pair.run_until_answered(3 * SECOND);
    assert!(gap > STUCK_AFTER && gap < 2 * SECOND, "{gap:?}");
    assert_eq!(pair.last_move().0, MoveReason::Stuck);
}

#[test]
fn a_server_that_answers_in_order_is_given_timeo_however_many_calls_it_has() {
    let mut pair = Pair::connected(fresh(), 7);
    (pair.net.serial, pair.net.service) = (true, 20 * MS);
    for _ in 0..20 {
        pair.call(false);
    }
    pair.run_until_answered(SECOND);
    pair.fail_over(Node::Stuck);
    pair.call(false);
    pair.run_for(50 * SECOND);
    assert_eq!(pair.machine.state(), State::Suspect);
}

#[test]
fn a_slow_server_keeps_its_connection() {
    let mut pair = Pair::connected(fresh(), 8);
    pair.net.service = 20 * SECOND;
    let xid = pair.call(false);
    pair.run_until_answered(30 * SECOND);
    assert_eq!(pair.executed, [vec![xid], vec![]]);
    assert_eq!(pair.machine.counters().moves, 0);
    assert!(pair.machine.counters().suspicions <= 13, "suspicion backs off: {:?}", pair.machine.counters());
    let polite = pair.abandoned.iter().all(|(_, how)| *how == Abandon::Fin);
    assert!(polite, "a race that is called off ends with a FIN");
}

#[test]
fn a_server_of_one_call_at_a_time_finishes_what_takes_longer_than_the_stuck_rule() {
    for (timeo, moves) in [(TIMEO, 4), (500 * MS, 8)] {
        let mut pair = Pair::connected(Config { timeo, ..fresh() }, 9);
        (pair.net.serial, pair.net.service) = (true, 5 * SECOND);
        pair.call(true);
        pair.run_until_answered(120 * SECOND);
        assert!(pair.machine.counters().moves <= moves, "{:?}", pair.machine.counters());
    }
}

#[test]
fn a_killed_process_is_left_at_once() {
    let mut pair = Pair::connected(fresh(), 10);
    pair.call(true);
    pair.run_until_answered(SECOND);
    pair.call(true);
    pair.fail_over(Node::Refusing);
    let gap = pair.run_until_answered(SECOND);
    assert!(gap < 20 * MS, "{gap:?}");
    assert_eq!(pair.last_move().0, MoveReason::Closed(CloseReason::Reset));
}

#[test]
fn refused_attempts_back_off_and_find_the_server_when_it_returns() {
    let mut pair = Pair::connected(fresh(), 11);
    pair.call(true);
    pair.set_node(0, Node::Refusing);
    pair.run_for(60 * SECOND);
    let refused = pair.attempts.len();
    assert!((20..=80).contains(&refused), "{refused}");
    pair.set_node(0, Node::Alive);
    let gap = pair.run_until_answered(5 * SECOND);
    assert!(gap <= BACKOFF_MAX + 100 * MS, "{gap:?}");
}

#[test]
fn the_linux_way_stays_pinned_to_the_dead_node() {
    let mut pair = Pair::connected(same(Abandon::Silent), 12);
    pair.fail_over(Node::Silent);
    pair.call(true);
    pair.run_for(300 * SECOND);
    assert_eq!(pair.machine.outstanding(), 1);
    assert!(pair.executed[1].is_empty());
    pair.set_node(0, Node::Alive);
    pair.run_until_answered(60 * SECOND);
    let ports = pair.attempted_ports();
    assert!(ports.len() > 2 && ports.iter().all(|port| *port == ports[0]), "{ports:?}");
}

#[test]
fn the_same_port_with_a_reset_that_gets_through_recovers() {
    let mut pair = Pair::connected(same(Abandon::Reset), 13);
    pair.fail_over(Node::Silent);
    pair.call(false);
    let gap = pair.run_until_answered(SECOND);
    assert!(gap < 700 * MS, "{gap:?}");
    let (reason, from, to) = pair.last_move();
    assert_eq!((reason, from), (MoveReason::PathDead, to));
}

#[test]
fn every_syn_of_a_long_outage_has_its_own_port() {
    let mut pair = Pair::connected(fresh(), 14);
    (pair.nodes[0], pair.nodes[1]) = (Node::Silent, Node::Silent);
    pair.call(true);
    pair.run_for(120 * SECOND);
    let gaps: Vec<_> = pair.attempts.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    assert!(gaps[1..4].iter().all(|gap| *gap == ATTEMPT_TIMEOUT), "{gaps:?}");
    assert!(gaps.iter().all(|gap| *gap <= ATTEMPT_TIMEOUT_MAX + SECOND), "{gaps:?}");
    let mut ports = pair.attempted_ports();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), pair.attempts.len());
}

#[test]
fn failing_back_and_forth_loses_nothing() {
    let mut pair = Pair::connected(fresh(), 15);
    for _ in 0..10 {
        let restored = 1 - pair.active;
        pair.set_node(restored, Node::Alive);
        pair.fail_over(Node::Silent);
        pair.call(false);
        let gap = pair.run_until_answered(SECOND);
        assert!(gap < 700 * MS, "{gap:?}");
        pair.run_for(SECOND);
    }
    assert_eq!((pair.replies.len(), pair.machine.counters().moves), (10, 10));
}

#[test]
fn a_held_port_is_retried_then_exchanged_within_its_range() {
    let mut pair = Pair::connected(same(Abandon::Reset), 16);
    let port = pair.machine.port().unwrap();
    pair.held.insert(port);
    pair.call(true);
    pair.reset_connections(0);
    pair.run_until_answered(10 * SECOND);
    let (_, from, to) = pair.last_move();
    assert_eq!(from, port);
    assert!(to != port && (RESERVED_LO..=RESERVED_HI).contains(&to));
    assert!(pair.notices().contains(&Notice::PortChanged { from_port: port, to_port: to }));
    let retries =
        pair.notices().iter().filter(|notice| matches!(notice, Notice::AttemptFailed { .. })).count();
    assert_eq!(retries, 5);
}

#[test]
fn a_held_port_costs_fresh_nothing() {
    let mut pair = Pair::new(fresh(), 17);
    pair.held.extend(RESERVED_LO..RESERVED_HI - 30);
    pair.connect();
    pair.run_for(10 * SECOND);
    assert_eq!(pair.machine.state(), State::Ready);
    assert!(pair.machine.port().unwrap() >= RESERVED_HI - 30);
}

#[test]
fn timeo_resends_on_the_live_connection_then_a_hard_mount_says_so() {
    let config = Config { timeo: 2 * SECOND, stuck: Stuck::Timeo, ..same(Abandon::Reset) };
    let mut pair =
        Pair::connected(Config { suspect_after: 100 * SECOND, suspect_max: 100 * SECOND, ..config }, 18);
    pair.set_node(0, Node::Stuck);
    let xid = pair.call(true);
    pair.run_for(10 * SECOND);
    let sent = pair.sent.iter().filter(|(_, record)| *record == test_record(xid)).count();
    assert_eq!(sent, 4, "at 0 s, 2 s (timeo), 6 s (major) and 8 s");
    assert_eq!(pair.notices()[1..], [Notice::NotResponding]);
    pair.set_node(0, Node::Alive);
    pair.run_until_answered(SECOND);
    assert_eq!(pair.notices().last(), Some(&Notice::Ok));
    pair.run_for(10 * SECOND);
    assert_eq!(pair.machine.counters().stray_replies, 3, "each sending is answered, one reply is delivered");
}

#[test]
fn a_hard_mount_that_becomes_soft_fails_calls_that_were_made_before() {
    let mut pair = Pair::connected(fresh(), 23);
    (pair.nodes[0], pair.nodes[1]) = (Node::Silent, Node::Silent);
    let xid = pair.call(true);
    pair.run_for(400 * SECOND);
    let soft = Config { timeo: 2 * SECOND, retrans: 1, recovery: Recovery::Soft, ..fresh() };
    pair.machine.reconfigure(pair.now, &soft).unwrap();
    assert_eq!(pair.run_until_answered(60 * SECOND), 4 * SECOND, "from the change on");
    assert_eq!(pair.failures.get(&xid), Some(&CallFailure::Soft(4 * SECOND)));
    let wrong = Config { retrans: RETRANS_MAX + 1, ..soft };
    assert!(pair.machine.reconfigure(pair.now, &wrong).is_err());
}

#[test]
fn soft_mounts_fail_after_the_major_timeout() {
    for (recovery, major) in [(Recovery::Soft, 6 * SECOND), (Recovery::SoftErr, 6 * SECOND)] {
        let mut pair = Pair::connected(Config { timeo: 2 * SECOND, recovery, ..fresh() }, 19);
        (pair.nodes[0], pair.nodes[1]) = (Node::Silent, Node::Silent);
        let xid = pair.call(true);
        let took = pair.run_until_answered(60 * SECOND);
        assert_eq!(took, major);
        let expected =
            if recovery == Recovery::Soft { CallFailure::Soft(major) } else { CallFailure::SoftErr(major) };
        assert_eq!(pair.failures[&xid], expected);
    }
}

#[test]
fn what_the_driver_had_not_read_is_no_reason_to_resend() {
    let mut pair = Pair::connected(fresh(), 20);
    let read = pair.call(false);
    pair.net.driver_lag = 10 * SECOND;
    pair.run_for(100 * MS);
    pair.net.driver_lag = Duration::ZERO;
    pair.fail_over(Node::Silent);
    pair.call(true);
    pair.run_for(5 * SECOND);
    assert!(pair.replies.contains_key(&read), "found by the drain");
    assert_eq!(pair.machine.counters().moves, 1);
    assert!(!pair.executed[1].contains(&read), "answered by the drain, so not sent again");
}

#[test]
fn a_lossy_slow_path_settles() {
    let mut pair = Pair::new(fresh(), 21);
    pair.net = Net { delay: 700 * MS, jitter: 300 * MS, loss_percent: 5, ..Net::default() };
    pair.connect();
    for _ in 0..50 {
        pair.call(true);
        pair.run_until_answered(60 * SECOND);
    }
    assert!(pair.machine.counters().moves <= 5, "{:?}", pair.machine.counters());
}

#[test]
fn no_privilege_for_a_reserved_port_fails_the_mount_with_the_remedies() {
    let mut machine = Machine::new(Config::default(), 22, &[]).unwrap();
    let now = super::epoch();
    machine.connect(now);
    let Some(Action::Connect { conn, .. }) = machine.poll() else { panic!() };
    machine.handle_event(now, Event::ConnectFailed { conn, error: ConnectError::PermissionDenied });
    let xid = machine.next_xid();
    machine.call(now, Call { xid, record: test_record(xid), idempotent: true }).unwrap();
    let Some(Action::Failed { error, .. }) = machine.poll() else { panic!() };
    let message = error.to_string();
    assert!(message.contains("noresvport") && message.contains("CAP_NET_BIND_SERVICE"), "{message}");
    assert_eq!(
        (machine.state(), machine.poll()),
        (State::Failed, None),
        "no unprivileged port is tried instead"
    );
}

#[test]
fn an_unprivileged_port_that_is_refused_is_only_retried() {
    let range = PortRange::Ephemeral { lo: EPHEMERAL_LO, hi: EPHEMERAL_HI };
    let mut machine = Machine::new(Config { range, ..fresh() }, 23, &[]).unwrap();
    let now = super::epoch();
    machine.connect(now);
    let Some(Action::Connect { conn, .. }) = machine.poll() else { panic!() };
    machine.handle_event(now, Event::ConnectFailed { conn, error: ConnectError::PermissionDenied });
    assert_eq!(machine.state(), State::BackingOff);
}

#[test]
fn disconnecting_fails_what_is_outstanding_and_leaves_nothing_to_do() {
    let mut pair = Pair::connected(fresh(), 24);
    pair.set_node(0, Node::Stuck);
    let xid = pair.call(true);
    pair.run_for(500 * MS);
    pair.machine.disconnect(pair.now);
    pair.run_for(SECOND);
    assert_eq!(pair.failures[&xid], CallFailure::Disconnected);
    assert_eq!((pair.machine.state(), pair.machine.poll_timeout()), (State::Idle, None));
    assert_eq!(pair.abandoned.len(), 2, "the connection and its race");
    pair.set_node(0, Node::Alive);
    pair.connect();
    pair.run_for(SECOND);
    assert_eq!(pair.machine.state(), State::Ready);
}

#[test]
fn a_server_that_dies_of_a_call_is_not_called_in_a_tight_loop() {
    let mut pair = Pair::connected(fresh(), 25);
    pair.net.service = 2 * MS;
    pair.call(true);
    for _ in 0..6000 {
        if pair.machine.state() == State::Ready {
            pair.reset_connections(pair.active);
        }
        pair.run_for(5 * MS);
        pair.net.service = 10 * SECOND;
    }
    assert!(pair.attempts.len() < 60, "{} attempts in 30 s", pair.attempts.len());
}

#[test]
fn a_long_reply_that_trickles_in_is_no_silence() {
    let mut pair = Pair::connected(fresh(), 26);
    pair.set_node(0, Node::Stuck);
    pair.call(true);
    for _ in 0..100 {
        pair.run_for(200 * MS);
        let conn = ConnId(0);
        pair.machine.handle_event(pair.now, Event::Progress { conn });
    }
    assert_eq!(pair.machine.counters().suspicions, 0);
}

#[test]
fn a_cancelled_call_is_never_sent_again_and_its_reply_is_dropped() {
    let mut pair = Pair::connected(fresh(), 27);
    let xid = pair.call(true);
    pair.machine.cancel(xid);
    pair.run_for(SECOND);
    assert!(pair.replies.is_empty());
    assert_eq!(pair.machine.counters().stray_replies, 1);
    pair.call(true);
    pair.run_until_answered(SECOND);
    assert_eq!(pair.executed[0].len(), 2);
}

#[test]
fn a_flap_loses_nothing() {
    for config in [fresh(), same(Abandon::Silent), same(Abandon::Reset), same(Abandon::Fin)] {
        let mut pair = Pair::connected(config, 28);
        let xids: Vec<_> = (0..20).map(|n| pair.call(n % 2 == 0)).collect();
        pair.set_node(0, Node::Silent);
        pair.run_for(3 * SECOND);
        pair.set_node(0, Node::Alive);
        pair.run_until_answered(20 * SECOND);
        assert_eq!(pair.replies.keys().copied().collect::<Vec<_>>(), xids);
    }
}

#[test]
fn a_connection_that_lasted_is_replaced_at_once_and_back_off_starts_over() {
    let mut pair = Pair::new(fresh(), 29);
    pair.set_node(0, Node::Refusing);
    pair.connect();
    pair.run_for(20 * SECOND);
    pair.set_node(0, Node::Alive);
    pair.run_for(20 * SECOND);
    assert_eq!(pair.machine.state(), State::Ready);
    let before = pair.attempts.len();
    pair.set_node(0, Node::Refusing);
    pair.run_for(500 * MS);
    let tries = pair.attempts.len() - before;
    assert!((4..=8).contains(&tries), "{tries} attempts in half a second");
}

#[test]
fn retries_of_a_held_port_are_counted_anew_for_each_connection() {
    let mut pair = Pair::connected(same(Abandon::Reset), 30);
    let port = pair.machine.port().unwrap();
    for _ in 0..4 {
        pair.call(true);
        pair.run_until_answered(SECOND);
        pair.held.insert(port);
        pair.reset_connections(0);
        pair.run_for(100 * MS);
        assert_ne!(pair.machine.state(), State::Ready);
        pair.held.clear();
        pair.run_for(SECOND);
        assert_eq!(pair.machine.port(), Some(port));
    }
}
