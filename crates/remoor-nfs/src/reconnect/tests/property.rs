//! What holds in every run, whatever breaks when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::super::*;
use super::pair::{Net, Node, Pair};

/// Longest time a run may take once both nodes are back, with the loss there is. The slowest case waits for a retransmission timeout of a
/// connection that was silent, or for a stuck verdict that was doubled up to `timeo`.
const SETTLE: Duration = Duration::from_secs(30 * 60);

#[derive(Debug, Clone)]
enum Step {
    Call { idempotent: bool },
    Cancel,
    Node { node: usize, state: Node },
    Switch,
    Reset { node: usize },
    Wait { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let state = prop_oneof![
        2 => Just(Node::Alive), 1 => Just(Node::Silent), 1 => Just(Node::Stuck), 1 => Just(Node::Refusing)
    ];
    prop_oneof![
        4 => any::<bool>().prop_map(|idempotent| Step::Call { idempotent }),
        1 => Just(Step::Cancel),
        2 => (0..2usize, state).prop_map(|(node, state)| Step::Node { node, state }),
        1 => Just(Step::Switch),
        1 => (0..2usize).prop_map(|node| Step::Reset { node }),
        4 => (0..4000u64).prop_map(|ms| Step::Wait { ms }),
    ]
}

fn net() -> impl Strategy<Value = Net> {
    let ms = |range: std::ops::Range<u64>| range.prop_map(Duration::from_millis);
    (ms(0..200), ms(0..200), 0..20u32, ms(0..100), ms(0..2000), any::<bool>()).prop_map(
        |(delay, jitter, loss_percent, driver_lag, service, serial)| Net {
            delay,
            jitter,
            loss_percent,
            driver_lag,
            service,
            serial,
        },
    )
}

fn config(rebind: Rebind) -> impl Strategy<Value = Config> {
    let abandon = prop_oneof![Just(Abandon::Reset), Just(Abandon::Silent), Just(Abandon::Fin)];
    let stuck =
        prop_oneof![Just(Stuck::Careful), Just(Stuck::Timeo), Just(Stuck::After(Duration::from_millis(400)))];
    let range = prop_oneof![
        Just(PortRange::default()),
        Just(PortRange::Ephemeral { lo: EPHEMERAL_LO, hi: EPHEMERAL_HI })
    ];
    let ms = Duration::from_millis;
    let timeo = prop_oneof![3 => Just(TIMEO), 1 => Just(ms(500))];
    let suspect_after = prop_oneof![3 => Just(SUSPECT_AFTER), 1 => Just(ms(1))];
    (abandon, stuck, range, timeo, suspect_after).prop_map(
        move |(abandon, stuck, range, timeo, suspect_after)| Config {
            rebind,
            abandon,
            stuck,
            range,
            timeo,
            suspect_after,
            ..Config::default()
        },
    )
}

fn any_config() -> impl Strategy<Value = Config> {
    prop_oneof![config(Rebind::Fresh), config(Rebind::Same)]
}

/// A run and the calls that were not cancelled. The pair itself asserts that no reply is delivered twice, that no
/// timeout stays in the past, that a port is never bound while a socket holds it, and that nothing is written to a
/// connection that is not open.
fn run(config: Config, net: Net, seed: u64, steps: &[Step]) -> (Pair, BTreeSet<u32>) {
    let mut pair = Pair::new(config, seed);
    let mut wanted = BTreeSet::new();
    pair.net = net;
    pair.connect();
    for step in steps {
        match *step {
            Step::Call { idempotent } => drop(wanted.insert(pair.call(idempotent))),
            Step::Cancel => {
                if let Some(xid) = wanted.iter().find(|xid| !pair.replies.contains_key(xid)).copied() {
                    wanted.remove(&xid);
                    pair.machine.cancel(xid);
                }
            }
            Step::Node { node, state } => pair.set_node(node, state),
            Step::Switch => pair.active = 1 - pair.active,
            Step::Reset { node } => pair.reset_connections(node),
            Step::Wait { ms } => pair.run_for(Duration::from_millis(ms)),
        }
    }
    (pair, wanted)
}

fn restore(pair: &mut Pair) {
    pair.set_node(0, Node::Alive);
    pair.set_node(1, Node::Alive);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_outstanding_call_is_ever_lost(
        config in any_config(), net in net(), seed: u64, steps in prop::collection::vec(step(), 0..40),
    ) {
        let (mut pair, wanted) = run(config, net, seed, &steps);
        restore(&mut pair);
        pair.run_until_answered(SETTLE);
        let answered: BTreeSet<u32> = pair.replies.keys().copied().collect();
        prop_assert!(wanted.is_subset(&answered), "lost {:?}", wanted.difference(&answered).collect::<Vec<_>>());
        prop_assert!(pair.failures.is_empty());
    }

    #[test]
    fn with_fresh_no_two_attempts_share_a_port(
        config in config(Rebind::Fresh), net in net(), seed: u64, steps in prop::collection::vec(step(), 0..40),
    ) {
        let (pair, _) = run(config, net, seed, &steps);
        let mut last = BTreeMap::new();
        let exhausted: BTreeSet<u16> = pair.notices().iter().filter_map(|notice| match notice {
            Notice::PortExhausted { port, .. } => Some(*port),
            _ => None,
        }).collect();
        for attempt in pair.attempts {
            let before = last.insert(attempt.port, attempt.at);
            prop_assert!(before.is_none() || exhausted.contains(&attempt.port), "port {} twice", attempt.port);
        }
    }

    #[test]
    fn with_same_all_attempts_share_one_port(
        config in config(Rebind::Same), net in net(), seed: u64, steps in prop::collection::vec(step(), 0..40),
    ) {
        let (pair, _) = run(config, net, seed, &steps);
        let ports: BTreeSet<u16> = pair.attempted_ports().into_iter().collect();
        prop_assert_eq!(ports.len(), 1);
    }

    #[test]
    fn every_port_is_of_the_range_asked_for(
        config in any_config(), net in net(), seed: u64, held in prop::collection::btree_set(RESERVED_LO..=RESERVED_HI, 0..350),
        steps in prop::collection::vec(step(), 0..20),
    ) {
        let (lo, hi) = config.range.bounds();
        let mut pair = Pair::new(config, seed);
        pair.net = net;
        pair.held = held;
        pair.connect();
        for step in &steps {
            if let Step::Reset { node } = step {
                pair.reset_connections(*node);
            }
            pair.run_for(Duration::from_secs(1));
        }
        prop_assert!(pair.attempts.iter().all(|attempt| (lo..=hi).contains(&attempt.port)));
    }

    #[test]
    fn one_seed_is_one_run(config in any_config(), net in net(), seed: u64, steps in prop::collection::vec(step(), 0..20)) {
        let (first, _) = run(config.clone(), net.clone(), seed, &steps);
        let (second, _) = run(config, net, seed, &steps);
        prop_assert_eq!(first.attempted_ports(), second.attempted_ports());
        prop_assert_eq!(first.notices(), second.notices());
        prop_assert_eq!(first.sent, second.sent);
    }
}
