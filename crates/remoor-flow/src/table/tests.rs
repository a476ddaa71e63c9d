//! Each knob of [`Config`] on its own, from a plain balancer that keeps everything.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::*;
use crate::config::*;
use crate::packet::ResetTo;
use crate::script::*;

fn plain() -> Config {
    Config {
        selection: Selection::Priority,
        hash: Hash { tuple: Tuple::Five, isn: false },
        tracking: Tracking::Plain,
        syn_on_entry: SynOnEntry::Follow,
        without_entry: WithoutEntry::Pickup,
        reply_without_entry: ReplyWithoutEntry::Pass,
        refresh_on: RefreshOn::Any,
        on_backend_down: OnBackendDown::Keep,
        on_all_down: OnAllDown::Continue,
        timers: StateTimers::uniform(Duration::from_secs(100)),
        idle_action: IdleAction::Silent,
        close: CloseRules::all(CloseRule::Advance),
        entry_limit: NonZeroUsize::new(3).unwrap(),
        when_full: WhenFull::DropNew,
    }
}

/// A script of the plain balancer with one knob turned.
fn turned(turn: impl FnOnce(&mut Config)) -> Script {
    let mut config = plain();
    turn(&mut config);
    Script::with(config)
}

fn reset_to_client(script: &Script, seq: u32, ack: Option<u32>) -> Decision {
    Decision::Reset(Reset { flow: script.flow, to: ResetTo::Client, seq, ack })
}

#[test]
fn syn_on_entry() {
    let cases = [
        (SynOnEntry::Follow, TO_A, TO_A),
        (SynOnEntry::Reselect, TO_B, TO_B),
        (SynOnEntry::ReselectIfUnhealthy, TO_A, TO_B),
        (SynOnEntry::Drop, dropped(DropReason::SynOnEntry), dropped(DropReason::SynOnEntry)),
    ];
    for (rule, while_up, while_down) in cases {
        // B is preferred, so that a new decision shows while A is up.
        let mut script = turned(|config| config.syn_on_entry = rule);
        script.table = FlowTable::new(script.table.config().clone(), &[B, A], 7);
        script.down(B).establish();
        script.health(B, Health::Up);
        assert_eq!(script.syn(9000), while_up, "{rule:?}");
        script.table.remove(&flow(940));
        script.down(B).establish();
        script.health(B, Health::Up);
        assert_eq!(script.down(A).syn(9000), while_down, "{rule:?}");
    }
    let mut script = turned(|config| config.syn_on_entry = SynOnEntry::Rst);
    script.establish();
    assert_eq!(script.syn(9000), reset_to_client(&script, 0, Some(9001)));
}

#[test]
fn a_reselected_flow_counts_and_takes_no_second_entry() {
    let mut script = turned(|config| config.syn_on_entry = SynOnEntry::Reselect);
    script.establish().down(A).syn(9000);
    assert_eq!((script.table.len(), script.table.counters().reselected), (1, 1));
    assert_eq!(script.entry().isn, 9000);
}

#[test]
fn without_entry() {
    let mut script = turned(|_| ());
    assert_eq!(script.data(), TO_A);
    let mut script = turned(|config| config.without_entry = WithoutEntry::Drop);
    assert_eq!(script.data(), dropped(DropReason::NoEntry));
    let mut script = turned(|config| config.without_entry = WithoutEntry::Rst);
    assert_eq!(script.data(), reset_to_client(&script, BACKEND_NEXT, None));
}

#[test]
fn reply_without_entry() {
    let reply = |script: &mut Script| script.reply(A, ACK, BACKEND_NEXT, CLIENT_NEXT, 10);
    assert_eq!(reply(&mut turned(|_| ())), Decision::ToClient);
    let mut script = turned(|config| config.reply_without_entry = ReplyWithoutEntry::Drop);
    assert_eq!(reply(&mut script), dropped(DropReason::NoEntry));
    let mut script = turned(|config| config.reply_without_entry = ReplyWithoutEntry::Rst);
    let rst = Reset { flow: script.flow, to: ResetTo::Backend(A), seq: CLIENT_NEXT, ack: None };
    assert_eq!(reply(&mut script), Decision::Reset(rst));
}

#[test]
fn refresh_on() {
    let cases = [
        (RefreshOn::Any, [110.0, 120.0, 130.0]),
        (RefreshOn::NonSyn, [100.0, 120.0, 130.0]),
        (RefreshOn::Replied, [100.0, 100.0, 130.0]),
    ];
    for (rule, frees_at) in cases {
        let mut script = turned(|config| config.refresh_on = rule);
        script.establish().at(10.0).syn(9000);
        assert_eq!(script.frees_at(), frees_at[0], "{rule:?}, SYN");
        script.at(20.0).data();
        assert_eq!(script.frees_at(), frees_at[1], "{rule:?}, data");
        script.at(30.0).reply(A, ACK, BACKEND_NEXT, CLIENT_NEXT, 10);
        assert_eq!(script.frees_at(), frees_at[2], "{rule:?}, reply");
    }
}

#[test]
fn on_backend_down() {
    let mut script = turned(|config| config.on_backend_down = OnBackendDown::Drop);
    assert_eq!(script.establish().down(A).data(), dropped(DropReason::BackendDown));
    assert_eq!(script.syn(9000), dropped(DropReason::BackendDown));

    let mut script = turned(|config| config.on_backend_down = OnBackendDown::Divert);
    assert_eq!(script.establish().down(A).data(), TO_B);
    assert_eq!(script.entry().backend, B);

    let mut script = turned(|config| config.on_backend_down = OnBackendDown::RstOnPacket);
    script.establish().down(A);
    assert_eq!(script.data(), reset_to_client(&script, BACKEND_NEXT, None));
    assert_eq!(script.syn(9000), TO_B);
}

#[test]
fn rst_now_resets_both_ends_of_that_backends_flows_only() {
    let mut script = turned(|config| config.on_backend_down = OnBackendDown::RstNow);
    script.down(A).syn_from(941);
    script.health(A, Health::Up);
    script.establish();
    let resets = script.health(A, Health::Down);
    let ends: Vec<_> = resets.iter().map(|reset| (reset.flow.client.port(), reset.to)).collect();
    assert_eq!(ends, [(940, ResetTo::Client), (940, ResetTo::Backend(A))]);
    assert_eq!((resets[0].seq, resets[1].seq), (BACKEND_NEXT, CLIENT_NEXT));
    assert!(script.table.entry(&flow(940)).is_none());
    assert!(script.table.entry(&flow(941)).is_some());
}

#[test]
fn on_all_down() {
    let rst_to_data = |script: &Script| reset_to_client(script, BACKEND_NEXT, None);
    for rule in [OnAllDown::FailOpen, OnAllDown::Continue, OnAllDown::Drop, OnAllDown::Rst] {
        let mut script = turned(|config| config.on_all_down = rule);
        script.establish().down(A).down(B);
        let (established, new) = (script.data(), script.syn_from(941));
        let (expected, expected_new) = match rule {
            OnAllDown::FailOpen => (TO_A, TO_A),
            OnAllDown::Continue => (TO_A, dropped(DropReason::NoBackend)),
            OnAllDown::Drop => (dropped(DropReason::BackendDown), dropped(DropReason::NoBackend)),
            OnAllDown::Rst => (
                rst_to_data(&script),
                Decision::Reset(Reset { flow: flow(941), to: ResetTo::Client, seq: 0, ack: Some(78) }),
            ),
        };
        assert_eq!((established, new), (expected, expected_new), "{rule:?}");
    }
}

#[test]
fn close_rules() {
    for (rule, len, then) in
        [(CloseRule::Unseen, 1, TO_A), (CloseRule::Advance, 1, TO_B), (CloseRule::Free, 0, TO_B)]
    {
        for from_client in [true, false] {
            let mut script = turned(|config| config.close = CloseRules::all(rule));
            script.establish();
            match from_client {
                true => script.client(RST, CLIENT_NEXT, 0, 0),
                false => script.reply(A, RST, BACKEND_NEXT, 0, 0),
            };
            assert_eq!(script.table.len(), len, "{rule:?}, client: {from_client}");
            assert_eq!(script.down(A).syn(9000), then, "{rule:?}, client: {from_client}");
        }
    }
}

#[test]
fn a_plain_connection_ends_with_a_fin_of_each_end() {
    let mut script = turned(|_| ());
    script.establish();
    script.client(FIN_ACK, CLIENT_NEXT, BACKEND_NEXT, 0);
    script.client(FIN_ACK, CLIENT_NEXT, BACKEND_NEXT, 0);
    assert_eq!(script.entry().state, TcpState::FinWait);
    script.reply(A, FIN_ACK, BACKEND_NEXT, CLIENT_NEXT + 1, 0);
    assert_eq!(script.entry().state, TcpState::TimeWait);
    assert_eq!(script.down(A).syn(9000), TO_B);
}

#[test]
fn a_full_table_drops_the_new_flow_or_the_longest_idle() {
    let fill = |script: &mut Script| {
        for (secs, port) in [(1.0, 941), (2.0, 942), (3.0, 943)] {
            script.at(secs).syn_from(port);
        }
        script.at(4.0).syn_from(941);
    };
    let mut script = turned(|_| ());
    fill(&mut script);
    assert_eq!(script.syn_from(944), dropped(DropReason::TableFull));
    let mut script = turned(|config| config.when_full = WhenFull::EvictLongestIdle);
    fill(&mut script);
    assert_eq!(script.syn_from(944), TO_A);
    let ports: Vec<_> = script.table.entries().map(|entry| entry.flow.client.port()).collect();
    assert_eq!(ports, [944, 941, 943]);
    assert_eq!(script.table.counters().evicted, 1);
}

#[test]
fn an_expiry_that_a_segment_finds_first_is_still_announced() {
    let mut script = turned(|config| config.idle_action = IdleAction::RstBoth);
    script.establish();
    let due = script.entry().expires_at;
    script.at(150.0).syn(9000);
    assert_eq!(script.table.poll_timeout(), Some(due));
    assert_eq!(script.timeout().len(), 2);
    assert_eq!(script.table.poll_timeout(), Some(script.entry().expires_at));
}

#[test]
fn a_segment_of_another_backend_is_dropped() {
    let mut script = turned(|_| ());
    script.establish();
    assert_eq!(script.reply(B, ACK, 1, 1, 0), dropped(DropReason::NotItsBackend));
}

#[test]
fn hash_selection_spreads_flows_and_moves_only_those_of_a_backend_that_leaves() {
    let mut script = turned(|config| {
        config.selection = Selection::Hash;
        config.entry_limit = NonZeroUsize::new(1000).unwrap();
    });
    let first: Vec<_> = (1000..1200).map(|port| script.syn_from(port)).collect();
    let to_a = first.iter().filter(|decision| **decision == TO_A).count();
    assert!((50..150).contains(&to_a), "{to_a} of 200 went to A");
    let mut script = turned(|config| config.selection = Selection::Hash);
    script.table = FlowTable::new(script.table.config().clone(), &[A, B, BackendId(2)], 7);
    script.down(BackendId(2));
    for (port, before) in (1000..1200).zip(first) {
        assert_eq!(script.syn_from(port), before);
        script.table.remove(&flow(port));
    }
}

#[test]
fn the_two_tuple_ignores_ports() {
    let mut script = turned(|config| {
        config.selection = Selection::Hash;
        config.hash.tuple = Tuple::Two;
        config.entry_limit = NonZeroUsize::new(1000).unwrap();
    });
    let first = script.syn_from(1000);
    assert!((1001..1100).all(|port| script.syn_from(port) == first));
}

#[test]
fn a_table_without_backends_drops() {
    let mut script = turned(|_| ());
    script.table = FlowTable::new(plain(), &[], 7);
    assert_eq!(script.syn(1), dropped(DropReason::NoBackend));
}
