//! What holds for every preset under any traffic.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use remoor_flow::*;

const BACKENDS: [BackendId; 3] = [BackendId(0), BackendId(1), BackendId(2)];

#[derive(Clone, Debug)]
enum Step {
    FromClient(Segment),
    FromBackend(BackendId, Segment),
    Health(BackendId, Health),
    Timeout,
    Wait(Duration),
}

#[expect(clippy::disallowed_methods, reason = "an Instant has no other origin; the value is never compared")]
fn origin() -> Instant {
    Instant::now()
}

fn flow() -> impl Strategy<Value = FiveTuple> {
    (0u16..6, any::<bool>()).prop_map(|(port, v6)| {
        let (client, service): (IpAddr, IpAddr) = match v6 {
            true => (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(), Ipv6Addr::LOCALHOST.into()),
            false => (Ipv4Addr::new(192, 0, 2, 1).into(), Ipv4Addr::new(192, 0, 2, 100).into()),
        };
        FiveTuple { client: SocketAddr::new(client, 900 + port), service: SocketAddr::new(service, 2049) }
    })
}

/// Numbers that are often near each other and near the point where they wrap.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![0u32..4, (u32::MAX - 3)..=u32::MAX, any::<u32>()]
}

fn flags() -> impl Strategy<Value = TcpFlags> {
    let usual = [TcpFlags::SYN, TcpFlags::ACK, TcpFlags::RST, TcpFlags::SYN | TcpFlags::ACK];
    let fin = TcpFlags::FIN | TcpFlags::ACK;
    prop_oneof![4 => prop::sample::select([&usual[..], &[fin]].concat()), 1 => any::<u8>().prop_map(TcpFlags)]
}

fn segment() -> impl Strategy<Value = Segment> {
    let parts = (flow(), flags(), number(), number(), number());
    parts.prop_map(|(flow, flags, seq, ack, payload_len)| Segment { flow, flags, seq, ack, payload_len })
}

fn backend() -> impl Strategy<Value = BackendId> {
    // One more than the table knows.
    (0u16..4).prop_map(BackendId)
}

fn step() -> impl Strategy<Value = Step> {
    let health = prop_oneof![Just(Health::Up), Just(Health::Down)];
    prop_oneof![
        8 => segment().prop_map(Step::FromClient),
        4 => (backend(), segment()).prop_map(|(from, segment)| Step::FromBackend(from, segment)),
        1 => (backend(), health).prop_map(|(backend, health)| Step::Health(backend, health)),
        1 => Just(Step::Timeout),
        2 => (0u64..400_000).prop_map(|ms| Step::Wait(Duration::from_millis(ms))),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 0..120)
}

/// Every preset alone and with all its variants.
fn config() -> impl Strategy<Value = Config> {
    let mut configs = vec![];
    for preset in preset::ALL {
        let all = preset.variants.iter().map(|variant| variant.name);
        let name: Vec<_> = std::iter::once(preset.name).chain(all).collect();
        configs.push((preset.config)());
        configs.push(preset::find(&name.join("+")).expect("a listed name").config);
    }
    let selection = prop_oneof![Just(Selection::Priority), Just(Selection::Hash)];
    let when_full = prop_oneof![Just(WhenFull::DropNew), Just(WhenFull::EvictLongestIdle)];
    (prop::sample::select(configs), selection, when_full, 1usize..8).prop_map(
        |(config, selection, when_full, limit)| {
            let entry_limit = NonZeroUsize::new(limit).expect("a limit above zero");
            Config { selection, when_full, entry_limit, ..config }
        },
    )
}

/// Takes one step; `now` moves.
fn take(table: &mut FlowTable, step: &Step, now: &mut Instant) -> Option<Decision> {
    match step {
        Step::FromClient(segment) => return Some(table.from_client(segment, *now)),
        Step::FromBackend(from, segment) => return Some(table.from_backend(*from, segment, *now)),
        Step::Health(backend, health) => drop(table.set_health(*backend, *health, *now)),
        Step::Timeout => drop(table.handle_timeout(*now)),
        Step::Wait(duration) => *now += *duration,
    }
    None
}

proptest! {
    #[test]
    fn the_table_never_exceeds_its_limit(config in config(), steps in steps(), seed: u64) {
        let limit = config.entry_limit.get();
        let (mut table, mut now) = (FlowTable::new(config, &BACKENDS, seed), origin());
        for step in &steps {
            take(&mut table, step, &mut now);
            prop_assert!(table.len() <= limit);
            prop_assert_eq!(table.entries().count(), table.len());
        }
    }

    #[test]
    fn an_entry_names_a_backend_that_was_selected_for_its_flow(config in config(), steps in steps(), seed: u64) {
        let (mut table, mut now) = (FlowTable::new(config, &BACKENDS, seed), origin());
        let mut selected: HashSet<(FiveTuple, BackendId)> = HashSet::new();
        for step in &steps {
            let decision = take(&mut table, step, &mut now);
            if let (Step::FromClient(segment), Some(Decision::Forward { backend })) = (step, decision) {
                prop_assert!(BACKENDS.contains(&backend));
                selected.insert((segment.flow, backend));
            }
            for entry in table.entries() {
                prop_assert!(selected.contains(&(entry.flow, entry.backend)));
            }
        }
    }

    #[test]
    fn while_health_stays_a_flow_keeps_its_backend(config in config(), steps in steps(), seed: u64) {
        // With the sequence number in the hash, another number is another flow.
        prop_assume!(!config.hash.isn || config.selection == Selection::Priority);
        let (mut table, mut now) = (FlowTable::new(config, &BACKENDS, seed), origin());
        let mut owner: HashMap<FiveTuple, BackendId> = HashMap::new();
        for step in steps.iter().filter(|step| !matches!(step, Step::Health(..))) {
            let decision = take(&mut table, step, &mut now);
            if let (Step::FromClient(segment), Some(Decision::Forward { backend })) = (step, decision) {
                prop_assert_eq!(*owner.entry(segment.flow).or_insert(backend), backend);
            }
        }
    }

    #[test]
    fn entries_expire_in_order_and_none_outlives_its_time(config in config(), steps in steps(), seed: u64) {
        let (mut table, mut now) = (FlowTable::new(config, &BACKENDS, seed), origin());
        for step in &steps {
            take(&mut table, step, &mut now);
        }
        table.handle_timeout(now);
        while let Some(at) = table.poll_timeout() {
            prop_assert!(at > now, "a timeout in the past");
            prop_assert_eq!(Some(at), table.entries().map(|entry| entry.expires_at).min());
            let before = table.len();
            now = at;
            table.handle_timeout(now);
            prop_assert!(table.len() < before);
            prop_assert!(table.entries().all(|entry| entry.expires_at > now));
        }
        prop_assert!(table.is_empty());
    }

    #[test]
    fn one_seed_is_one_run(config in config(), steps in steps(), seed: u64) {
        let start = origin();
        let run = || {
            let (mut table, mut now) = (FlowTable::new(config.clone(), &BACKENDS, seed), start);
            let decisions: Vec<_> = steps.iter().map(|step| take(&mut table, step, &mut now)).collect();
            (decisions, table.entries().collect::<Vec<_>>(), table.counters())
        };
        prop_assert_eq!(run(), run());
    }

    #[test]
    fn every_segment_is_counted_once(config in config(), steps in steps(), seed: u64) {
        let silent = Config { idle_action: IdleAction::Silent, ..config };
        let (mut table, mut now) = (FlowTable::new(silent, &BACKENDS, seed), origin());
        let decided = steps.iter().filter_map(|step| take(&mut table, step, &mut now)).count() as u64;
        let counters = table.counters();
        prop_assert_eq!(counters.forwarded + counters.to_client + counters.dropped + counters.resets, decided);
    }
}
