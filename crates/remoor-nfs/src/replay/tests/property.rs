//! What holds in every run, whatever breaks when.

use proptest::prelude::*;

use super::super::*;
use super::network::{Leave, Network, Wire};

const CLIENTS: usize = 3;
/// Each client has a call of either xid in progress, and may have left one of either that still executes.
const RUNNING: usize = CLIENTS * 4;

#[derive(Debug, Clone)]
enum Step {
    Ask { client: usize, wire: Wire, cost: u32 },
    Retransmit { client: usize },
    MoveOn { client: usize, leave: Leave, same_port: bool },
    Cut { client: usize },
    Pass { ticks: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    let leave = prop::sample::select(vec![Leave::Close, Leave::Reset, Leave::Silent]);
    let cost = prop_oneof![3 => Just(0), 1 => 1..100u32];
    let wire = (0..2u32, 0..2u8).prop_map(|(xid, bytes)| Wire { xid, bytes });
    let ticks = prop_oneof![4 => 0..5u32, 2 => 0..50u32, 1 => 0..200u32];
    prop_oneof![
        6 => (client.clone(), wire, cost).prop_map(|(client, wire, cost)| Step::Ask { client, wire, cost }),
        2 => client.clone().prop_map(|client| Step::Retransmit { client }),
        3 => (client.clone(), leave, any::<bool>())
            .prop_map(|(client, leave, same_port)| Step::MoveOn { client, leave, same_port }),
        1 => client.prop_map(|client| Step::Cut { client }),
        8 => ticks.prop_map(|ticks| Step::Pass { ticks }),
    ]
}

fn run(config: Config, lag: u32, steps: &[Step]) -> Network {
    let sound = config.sound();
    let mut network = Network::new(config, CLIENTS, lag);
    for step in steps {
        match step.clone() {
            Step::Ask { client, wire, cost } => network.ask(client, wire, cost),
            Step::Retransmit { client } => network.retransmit(client),
            Step::MoveOn { client, leave, same_port } => network.move_on(client, leave, same_port),
            Step::Cut { client } => network.cut(client),
            Step::Pass { ticks } => network.pass(ticks),
        }
        network.cache.assert_consistent(&sound);
    }
    network.settle();
    network.cache.assert_consistent(&sound);
    network
}

/// Everything is answered, nobody gets a live client's reply, and nothing is executed twice that can be told apart.
fn check(network: &Network, exactly_once: bool) -> Result<(), TestCaseError> {
    prop_assert_eq!(&network.wrongs, &Vec::<String>::new());
    prop_assert_eq!(network.unanswered(), vec![]);
    for (n, op) in network.ops.iter().enumerate() {
        prop_assert!(op.answer.is_some(), "operation {} is not answered", n);
        let excused = op.confounded || !exactly_once;
        prop_assert!(op.executed <= 1 || excused, "operation {} was executed {} times", n, op.executed);
        let other = op.answer.map(|by| &network.ops[by]).filter(|by| by.client != op.client);
        let handed_over = other.is_some_and(|by| by.confounded);
        prop_assert!(
            other.is_none() || op.confounded || handed_over,
            "operation {} has another client's answer",
            n
        );
    }
    prop_assert_eq!(network.cache.held(), 0);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn calls_are_executed_once_and_told_apart(
        lag in prop_oneof![Just(0), 1..20u32],
        steps in prop::collection::vec(step(), 1..60),
    ) {
        check(&run(Config::default(), lag, &steps), true)?;
    }

    #[test]
    fn with_too_little_room_everything_is_still_answered(
        steps in prop::collection::vec(step(), 1..60),
        entries in 1..9usize,
        held_calls in 1..3usize,
    ) {
        let config = Config { running: RUNNING, entries, client_entries: entries, held_calls, reply_bytes: 200, ..Config::default() };
        check(&run(config, 0, &steps), false)?;
    }
}

/// A cache that could be full of calls in progress refused one of each of two clients, which then came again and pushed out
/// the reply that the other had not read.
#[test]
fn clients_do_not_push_out_each_others_unread_replies_for_ever() {
    let ask = |client, xid, bytes| Step::Ask { client, wire: Wire { xid, bytes }, cost: 0 };
    let all = [
        ask(2, 1, 1),
        ask(0, 1, 0),
        ask(0, 0, 0),
        ask(2, 0, 0),
        Step::Pass { ticks: 1 },
        Step::Cut { client: 2 },
    ];
    let config = Config { running: 4, entries: 1, client_entries: 1, held_calls: 1, ..Config::default() };
    let network = run(config, 0, &all);
    check(&network, true).unwrap();
    assert_eq!(network.cache.counters().refused, 0);
}
