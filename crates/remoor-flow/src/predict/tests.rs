//! Failovers whose outcome is known from real kernels or from the vendor.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use remoor_nfs::reconnect::{self, Abandon, PortRange, Rebind, Stuck};

use super::*;
use crate::{preset, script};

const MS: Duration = Duration::from_millis(1);
const SEC: Duration = Duration::from_secs(1);
/// Presets under which a SYN follows its flow's entry to a node that is down.
const FOLLOWING: [&str; 3] = ["azure-standard", "azure-standard+close-frees", "nf-conntrack"];

fn resvport(rebind: Rebind, abandon: Abandon) -> reconnect::Config {
    reconnect::Config { rebind, abandon, stuck: Stuck::After(400 * MS), ..Default::default() }
}

fn noresvport() -> reconnect::Config {
    let range = PortRange::Ephemeral { lo: reconnect::EPHEMERAL_LO, hi: reconnect::EPHEMERAL_HI };
    reconnect::Config { range, ..resvport(Rebind::Fresh, Abandon::Reset) }
}

fn same(abandon: Abandon) -> reconnect::Config {
    resvport(Rebind::Same, abandon)
}

fn scenario(balancer: &str, client: reconnect::Config) -> Scenario {
    Scenario::new(script::origin(), preset::find(balancer).unwrap().config, client)
}

/// One writer of calls that fit into one segment, as an `rm` that waits for its reply.
fn one_small_call(balancer: &str, client: reconnect::Config) -> Scenario {
    Scenario { writers: 1, call_len: 150, ..scenario(balancer, client) }
}

fn after_the_fault<'a>(scenario: &Scenario, prediction: &'a Prediction) -> Vec<&'a Attempt> {
    prediction.attempts.iter().filter(|attempt| attempt.at >= scenario.fault_at).collect()
}

fn assert_recovered(scenario: &Scenario, within: Duration) -> Prediction {
    let prediction = predict(scenario).unwrap();
    let gap = prediction.gap.unwrap_or_else(|| panic!("not recovered: {prediction:#?}"));
    assert!(gap < within, "{gap:?} is not within {within:?}");
    prediction
}

fn assert_pinned(scenario: &Scenario) -> Prediction {
    let prediction = predict(scenario).unwrap();
    assert_eq!((prediction.gap, prediction.pinned), (None, true), "{prediction:#?}");
    assert_eq!(prediction.rebind, Some(Rebind::Same));
    for attempt in after_the_fault(scenario, &prediction) {
        assert_eq!((attempt.reached, attempt.answer), (Some(FAULTY), None), "{attempt:?}");
    }
    prediction
}

#[test]
fn fresh_ports_leave_a_silent_node_within_a_second_behind_every_balancer() {
    for balancer in FOLLOWING.into_iter().chain(["aws-nlb"]) {
        for client in [noresvport(), resvport(Rebind::Fresh, Abandon::Reset)] {
            let (lo, hi) = client.range.bounds();
            let scenario = scenario(balancer, client);
            let prediction = assert_recovered(&scenario, SEC);
            assert_eq!((prediction.rebind, prediction.pinned), (Some(Rebind::Fresh), false), "{balancer}");
            let last = prediction.attempts.last().unwrap();
            assert!((lo..=hi).contains(&last.port) && last.served, "{last:?}");
            assert_eq!(last.reached, Some(SPARE));
            let answer = Answer { by: Sender::Backend(SPARE), kind: AnswerKind::SynAck };
            assert_eq!(last.answer, Some(answer));
        }
    }
}

#[test]
fn azure_pins_the_same_port_until_the_idle_time_after_the_last_retransmission() {
    for abandon in [Abandon::Silent, Abandon::Reset, Abandon::Fin] {
        let scenario = scenario("azure-standard", same(abandon));
        let prediction = assert_pinned(&scenario);
        let frees_after = prediction.flow_frees_at.unwrap() - scenario.fault_at;
        assert!((240 * SEC..243 * SEC).contains(&frees_after), "{abandon:?}: {frees_after:?}");
    }
}

/// The client's kernel, if it is one that lets a FIN out although the congestion window is used up.
fn eager_fin(scenario: Scenario) -> Scenario {
    Scenario { tcp: Tcp { fin_ignores_window: true, ..scenario.tcp }, tcp_repair: false, ..scenario }
}

#[test]
fn azure_that_frees_on_close_lets_the_same_port_through_if_a_rst_or_fin_crossed() {
    let azure = |abandon| scenario("azure-standard+close-frees", same(abandon));
    for crossing in [azure(Abandon::Reset), azure(Abandon::Fin), eager_fin(azure(Abandon::Fin))] {
        let prediction = assert_recovered(&crossing, SEC);
        assert_eq!((prediction.rebind, prediction.pinned), (Some(Rebind::Same), false));
    }
    assert_pinned(&azure(Abandon::Silent));
    assert_pinned(&Scenario { tcp_repair: false, ..azure(Abandon::Fin) });
}

/// Measured on nf_conntrack of Linux 6.18: the entry goes to CLOSE and the next SYN gets through, if what was
/// retransmitted last ends where the RST begins, or one RST is exact.
#[test]
fn conntrack_takes_an_exact_rst_at_once() {
    let small = Scenario { tcp_repair: false, ..one_small_call("nf-conntrack", same(Abandon::Reset)) };
    for scenario in [small, scenario("nf-conntrack", same(Abandon::Reset))] {
        let prediction = assert_recovered(&scenario, SEC);
        assert_eq!((prediction.rebind, prediction.pinned), (Some(Rebind::Same), false));
    }
}

/// Measured on nf_conntrack of Linux 6.18: what was retransmitted last ends before the RST, so the entry stays
/// ESTABLISHED for the 10 s of `nf_conntrack_tcp_timeout_close` (`nf_conntrack_tcp_packet`, case TCP_CONNTRACK_CLOSE).
#[test]
fn conntrack_keeps_a_busy_connection_for_10_s_after_an_ordinary_rst() {
    let scenario = Scenario { tcp_repair: false, ..scenario("nf-conntrack", same(Abandon::Reset)) };
    let prediction = assert_recovered(&scenario, 12 * SEC);
    assert!(prediction.pinned && prediction.gap > Some(10 * SEC), "{prediction:#?}");
    let frees_after = prediction.flow_frees_at.unwrap() - scenario.fault_at;
    assert!((10 * SEC..11 * SEC).contains(&frees_after), "{frees_after:?}");
}

#[test]
fn conntrack_pins_a_port_that_was_left_without_a_packet_for_5_min_after_its_data() {
    let scenario = scenario("nf-conntrack", same(Abandon::Silent));
    let frees_after = assert_pinned(&scenario).flow_frees_at.unwrap() - scenario.fault_at;
    assert!((300 * SEC..302 * SEC).contains(&frees_after), "{frees_after:?}");
}

/// 30 s of LAST_ACK after the last FIN, then the next attempt.
#[test]
fn conntrack_pins_a_port_left_by_fin_for_the_time_of_last_ack() {
    let unprivileged = eager_fin(one_small_call("nf-conntrack", same(Abandon::Fin)));
    for scenario in [unprivileged, scenario("nf-conntrack", same(Abandon::Fin))] {
        let prediction = assert_recovered(&scenario, 40 * SEC);
        assert!(prediction.pinned && prediction.gap > Some(30 * SEC), "{prediction:#?}");
    }
}

/// Measured on Linux 6.18: the entry of a connection whose data was retransmitted stays ESTABLISHED, 300 s.
#[test]
fn a_fin_that_is_kept_back_frees_nothing() {
    let scenario = Scenario { tcp_repair: false, ..one_small_call("nf-conntrack", same(Abandon::Fin)) };
    let frees_after = assert_pinned(&scenario).flow_frees_at.unwrap() - scenario.fault_at;
    assert!((300 * SEC..303 * SEC).contains(&frees_after), "{frees_after:?}");
}

#[test]
fn aws_recovers_whatever_the_client_does() {
    for client in [same(Abandon::Silent), same(Abandon::Reset), same(Abandon::Fin), noresvport()] {
        for probe_delay in [Duration::ZERO, 3 * SEC] {
            let scenario = Scenario { probe_delay, ..scenario("aws-nlb", client.clone()) };
            assert!(!assert_recovered(&scenario, probe_delay + SEC).pinned);
        }
    }
}

#[test]
fn a_stopped_server_is_left_for_a_fresh_port_within_two_seconds() {
    for balancer in FOLLOWING.into_iter().chain(["aws-nlb"]) {
        let fault = Fault::Stop { resume_after: 20 * SEC };
        let scenario = Scenario { fault, ..scenario(balancer, noresvport()) };
        assert_eq!(assert_recovered(&scenario, 2 * SEC).rebind, Some(Rebind::Fresh));
    }
}

/// RFC 5961 section 4: the stopped server's kernel still has the connection, challenges the SYN, and the client's
/// RST ends it. The attempt after that is taken into the backlog of a server that does not answer.
#[test]
fn a_stopped_server_challenges_the_same_port() {
    let fault = Fault::Stop { resume_after: 20 * SEC };
    let prediction =
        predict(&Scenario { fault, ..scenario("azure-standard", same(Abandon::Silent)) }).unwrap();
    let kinds: Vec<_> =
        prediction.attempts[1..3].iter().map(|attempt| attempt.answer.unwrap().kind).collect();
    assert_eq!(kinds, [AnswerKind::ChallengeAck, AnswerKind::SynAck]);
    assert!(!prediction.attempts[2].served);
    assert!(prediction.gap.unwrap() >= 20 * SEC, "{prediction:#?}");
}

#[test]
fn a_killed_server_is_left_at_once_by_a_fresh_port_and_refuses_the_pinned_one() {
    let killed = |client| Scenario { fault: Fault::Kill, ..scenario("azure-standard", client) };
    assert_recovered(&killed(noresvport()), 100 * MS);
    let scenario = killed(same(Abandon::Reset));
    let prediction = predict(&scenario).unwrap();
    let refused = Answer { by: Sender::Backend(FAULTY), kind: AnswerKind::Reset };
    assert!(after_the_fault(&scenario, &prediction).iter().all(|attempt| attempt.answer == Some(refused)));
    assert_eq!((prediction.gap, prediction.pinned), (None, true));
}

#[test]
fn a_node_that_comes_back_serves_the_pinned_port_again() {
    let fault = Fault::Flap { back_after: 5 * SEC };
    let prediction =
        assert_recovered(&Scenario { fault, ..scenario("azure-standard", same(Abandon::Silent)) }, 12 * SEC);
    assert!(prediction.pinned);
    assert_eq!(prediction.attempts.last().unwrap().reached, Some(FAULTY));
}

#[test]
fn without_a_fault_nothing_moves() {
    let prediction =
        assert_recovered(&Scenario { fault: Fault::None, ..scenario("aws-nlb", noresvport()) }, SEC);
    assert_eq!((prediction.attempts.len(), prediction.rebind, prediction.pinned), (1, None, false));
}

#[test]
fn a_balancer_that_notices_late_delays_recovery_by_no_more_than_an_attempt() {
    let scenario = Scenario { probe_delay: 5 * SEC, ..scenario("azure-standard", noresvport()) };
    let prediction = assert_recovered(&scenario, 7 * SEC);
    assert!(prediction.gap.unwrap() > 5 * SEC && !prediction.pinned);
    let after = after_the_fault(&scenario, &prediction);
    assert!(
        after[..4].iter().all(|attempt| attempt.retransmissions == 0),
        "one SYN from each port: {after:#?}"
    );
}

#[test]
fn findings_name_the_port_and_when_it_frees() {
    let scenario = scenario("azure-standard", same(Abandon::Silent));
    let prediction = predict(&scenario).unwrap();
    let told: Vec<_> = prediction.findings(&scenario).iter().map(ToString::to_string).collect();
    let port = prediction.attempts[0].port;
    assert_eq!(told[0], "not recovered within 60 s");
    assert_eq!(told[1], format!("port {port} is pinned to the faulty node by its flow entry"));
    assert!(told[2].starts_with("that entry frees 240 s after the fault"), "{}", told[2]);
}

#[test]
fn a_client_that_cannot_be_is_refused() {
    let client = reconnect::Config { range: PortRange::Reserved { lo: 900, hi: 1024 }, ..Default::default() };
    let error = predict(&scenario("aws-nlb", client)).unwrap_err().to_string();
    assert!(error.starts_with("source port range 900-1024"), "{error}");
}

#[test]
fn a_workload_beyond_the_limit_is_cut_short_and_says_so() {
    let heavy = Scenario {
        writers: u32::MAX,
        call_every: Duration::ZERO,
        fault_at: Duration::MAX,
        service_time: Duration::ZERO,
        ..scenario("aws-nlb", noresvport())
    };
    let prediction = predict(&heavy).unwrap();
    assert_eq!((prediction.complete, prediction.gap), (false, None));
    assert!(assert_recovered(&scenario("aws-nlb", noresvport()), SEC).complete);
}

fn faults() -> impl Strategy<Value = Fault> {
    let after = || (0u64..90_000).prop_map(Duration::from_millis);
    prop_oneof![
        Just(Fault::None),
        Just(Fault::Silent),
        Just(Fault::Kill),
        after().prop_map(|resume_after| Fault::Stop { resume_after }),
        after().prop_map(|back_after| Fault::Flap { back_after }),
    ]
}

fn clients() -> impl Strategy<Value = reconnect::Config> {
    let rebind = prop_oneof![Just(Rebind::Same), Just(Rebind::Fresh)];
    let abandon = prop_oneof![Just(Abandon::Reset), Just(Abandon::Silent), Just(Abandon::Fin)];
    let stuck = prop_oneof![Just(Stuck::Careful), Just(Stuck::Timeo), Just(Stuck::After(400 * MS))];
    (rebind, abandon, stuck)
        .prop_map(|(rebind, abandon, stuck)| reconnect::Config { stuck, ..resvport(rebind, abandon) })
}

fn balancers() -> impl Strategy<Value = Config> {
    let names = preset::ALL.iter().flat_map(|preset| {
        let variants = preset.variants.iter().map(|variant| format!("{}+{}", preset.name, variant.name));
        std::iter::once(preset.name.to_owned()).chain(variants)
    });
    proptest::sample::select(names.collect::<Vec<_>>()).prop_map(|name| preset::find(&name).unwrap().config)
}

fn scenarios() -> impl Strategy<Value = Scenario> {
    let times = (0u64..3000, 0u64..10_000, 0u64..400_000, 0u64..300);
    (balancers(), clients(), faults(), times, 0u32..6, 0u32..9000, any::<u64>()).prop_map(
        |(flow, client, fault, (fault_at, probe_delay, round_trip, call_every), writers, call_len, seed)| {
            Scenario {
                fault,
                fault_at: Duration::from_millis(fault_at),
                probe_delay: Duration::from_millis(probe_delay),
                round_trip: Duration::from_micros(round_trip),
                call_every: Duration::from_millis(call_every),
                writers,
                call_len,
                seed,
                ..Scenario::new(script::origin(), flow, client)
            }
        },
    )
}

/// Durations at the ends of what they can be.
fn extremes() -> impl Strategy<Value = Duration> {
    prop_oneof![Just(Duration::ZERO), Just(Duration::from_nanos(1)), Just(SEC), Just(Duration::MAX)]
}

fn extreme_scenarios() -> impl Strategy<Value = Scenario> {
    (scenarios(), [extremes(), extremes(), extremes(), extremes(), extremes(), extremes()], 0u32..2).prop_map(
        |(scenario, [probe_delay, window, round_trip, service_time, call_every, user_timeout], writers)| {
            Scenario {
                probe_delay,
                window: window.min(600 * SEC),
                round_trip,
                service_time,
                call_every,
                tcp: Tcp { user_timeout, ..Tcp::default() },
                fault_at: scenario.fault_at.min(20 * MS),
                fault: match scenario.fault {
                    Fault::Flap { .. } => Fault::Flap { back_after: window },
                    fault => fault,
                },
                writers: writers * scenario.writers,
                call_len: scenario.call_len.wrapping_mul(1_000_000),
                ..scenario
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn no_scenario_panics(scenario in extreme_scenarios(), profile in proptest::sample::select(&linux_client::PROFILES)) {
        let prediction = predict(&scenario).unwrap();
        prop_assert!(prediction.attempts.iter().all(|attempt| attempt.port >= reconnect::RESERVED_LO));
        prop_assert!(!linux_client::predict_linux(&scenario, &profile).attempts.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn one_seed_is_one_prediction(scenario in scenarios()) {
        let later = Scenario { start: scenario.start + 1000 * SEC, ..scenario.clone() };
        prop_assert_eq!(predict(&scenario), predict(&later));
    }

    #[test]
    fn ports_follow_the_rule_and_time_moves(scenario in scenarios()) {
        let prediction = predict(&scenario).unwrap();
        let ports: BTreeSet<_> = prediction.attempts.iter().map(|attempt| attempt.port).collect();
        match scenario.client.rebind {
            Rebind::Fresh => prop_assert_eq!(ports.len(), prediction.attempts.len()),
            Rebind::Same => prop_assert_eq!(ports.len(), 1),
        }
        prop_assert!(prediction.attempts.is_sorted_by_key(|attempt| attempt.at));
        if scenario.client.rebind == Rebind::Fresh {
            prop_assert!(!prediction.pinned || prediction.attempts.iter().any(|a| a.retransmissions > 0));
        }
    }
}
