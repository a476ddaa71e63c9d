//! Linux destination NAT over connection tracking, with the defaults of `nf_conntrack_proto_tcp.c`.
//!
//! The map of new flows is changed by whoever watches the backends; entries that exist know nothing of it.
//! Deviations: a full table drops the new flow (`early_drop` first looks for an entry that is not
//! assured); invalid segments and replies without an entry are dropped (the kernel leaves them untranslated,
//! and what becomes of them is for the rules to say).

use std::num::NonZeroUsize;
use std::time::Duration;

use super::{Preset, Variant};
use crate::config::*;

/// `nf_conntrack_max` of a host with more than 4 GiB (`nf_conntrack_init_start`).
const ENTRY_LIMIT: NonZeroUsize = NonZeroUsize::new(262_144).unwrap();

/// `tcp_timeouts` of `nf_conntrack_proto_tcp.c`.
const TIMERS: StateTimers = StateTimers {
    syn_sent: Duration::from_secs(120),
    syn_recv: Duration::from_secs(60),
    established: Duration::from_secs(5 * 24 * 3600),
    fin_wait: Duration::from_secs(120),
    close_wait: Duration::from_secs(60),
    last_ack: Duration::from_secs(30),
    time_wait: Duration::from_secs(120),
    close: Duration::from_secs(10),
    unacknowledged: Duration::from_secs(300),
    retransmitted: Duration::from_secs(300),
};

pub(super) const PRESET: Preset = Preset {
    name: "nf-conntrack",
    description: "Linux DNAT with nf_conntrack: SYN follows a live entry and refreshes nothing, 5 d idle",
    source: "Linux net/netfilter/nf_conntrack_proto_tcp.c: nf_conntrack_tcp_packet, tcp_timeouts",
    variants: &[Variant {
        name: "before-5.14",
        description: "a retransmitted SYN keeps a SYN_SENT entry alive, as before Linux 5.14",
        apply: |config| config.tracking = Tracking::Conntrack { syn_sent_refreshed: true },
    }],
    config,
};

fn config() -> Config {
    Config {
        selection: Selection::Priority,
        hash: Hash { tuple: Tuple::Five, isn: false },
        tracking: Tracking::Conntrack { syn_sent_refreshed: false },
        syn_on_entry: SynOnEntry::Follow,
        without_entry: WithoutEntry::Pickup,
        reply_without_entry: ReplyWithoutEntry::Drop,
        refresh_on: RefreshOn::Any,
        on_backend_down: OnBackendDown::Keep,
        on_all_down: OnAllDown::FailOpen,
        timers: TIMERS,
        idle_action: IdleAction::Silent,
        close: CloseRules::all(CloseRule::Advance),
        entry_limit: ENTRY_LIMIT,
        when_full: WhenFull::DropNew,
    }
}

#[cfg(test)]
mod tests {
    use crate::script::*;
    use crate::table::{Decision, DropReason};
    use crate::track::TcpState::{self, *};

    const FIVE_DAYS: f64 = 432_000.0;

    /// Established with A at 0 s; A is down, and the map of new flows points to B.
    fn moved() -> Script {
        let mut script = Script::of("nf-conntrack");
        script.establish().down(A);
        script
    }

    #[test]
    fn nothing_crossed_and_the_same_port_is_pinned_for_five_days() {
        let mut script = moved();
        for secs in [1.0, 3.0, 7.0, 20.0, FIVE_DAYS - 1.0] {
            assert_eq!(script.at(secs).syn(9000), TO_A, "at {secs} s");
            assert_eq!((script.entry().state, script.frees_at()), (Established, FIVE_DAYS));
        }
        assert_eq!(script.at(FIVE_DAYS).syn(9000), TO_B);
    }

    #[test]
    fn a_fresh_port_goes_to_the_other_backend() {
        assert_eq!(moved().at(20.0).syn_from(941), TO_B);
    }

    #[test]
    fn data_in_flight_shortens_the_entry_to_300_s_from_the_last_copy() {
        let mut script = moved();
        for secs in [10.0, 10.2, 10.6, 12.0, 40.0] {
            assert_eq!(script.at(secs).data(), TO_A);
            assert_eq!(script.frees_at(), secs + 300.0);
        }
        assert_eq!(script.at(339.0).syn(9000), TO_A);
        assert_eq!(script.at(340.0).syn(9000), TO_B);
    }

    #[test]
    fn acknowledged_data_restores_the_long_timer() {
        let mut script = Script::of("nf-conntrack");
        script.establish().at(10.0).data();
        script.reply(A, ACK, BACKEND_NEXT, CLIENT_NEXT + 100, 0);
        assert_eq!(script.frees_at(), 10.0 + FIVE_DAYS);
    }

    #[test]
    fn a_client_rst_that_crossed_lets_the_next_syn_decide() {
        let mut script = moved();
        assert_eq!(script.at(5.0).client(RST, CLIENT_NEXT, 0, 0), TO_A);
        assert_eq!((script.entry().state, script.frees_at()), (Close, 15.0));
        assert_eq!(script.at(5.001).syn(9000), TO_B);
        assert_eq!(script.entry().state, SynSent);
    }

    #[test]
    fn a_rst_counts_by_its_sequence_number() {
        let after_data = CLIENT_NEXT + 100;
        let cases: [(&str, u32, Decision, TcpState, f64); 3] = [
            ("behind the data just sent", after_data, TO_A, Close, 15.0),
            ("neither acknowledged nor just sent", after_data + 50, TO_A, Established, 15.0),
            ("acknowledged long ago", CLIENT_NEXT - 1, dropped(DropReason::Invalid), Established, 305.0),
        ];
        for (what, seq, decision, state, frees_at) in cases {
            let mut script = moved();
            script.at(4.0).data();
            script.at(5.0).data();
            assert_eq!(script.client(RST, seq, 0, 0), decision, "{what}");
            assert_eq!((script.entry().state, script.frees_at()), (state, frees_at), "{what}");
        }
    }

    #[test]
    fn a_client_fin_that_crossed_pins_the_port_for_30_s_after_its_last_copy() {
        let mut script = moved();
        let fin = |script: &mut Script| script.client(FIN_ACK, CLIENT_NEXT, BACKEND_NEXT, 0);
        assert_eq!(fin(script.at(0.0)), TO_A);
        assert_eq!((script.entry().state, script.frees_at()), (FinWait, 120.0));
        assert_eq!(fin(script.at(0.25)), TO_A);
        assert_eq!((script.entry().state, script.frees_at()), (LastAck, 30.25));
        assert_eq!(fin(script.at(4.0)), TO_A);
        // The client's SYNs back off from 4.5 s on: 1, 2, 4, 8, 16 s.
        for secs in [4.5, 5.5, 7.5, 11.5, 19.5] {
            assert_eq!(script.at(secs).syn(9000), TO_A, "at {secs} s");
            assert_eq!((script.entry().state, script.frees_at()), (LastAck, 34.0));
        }
        assert_eq!(script.at(35.5).syn(9000), TO_B);
    }

    #[test]
    fn an_ack_from_the_side_that_closed_moves_to_close_wait() {
        let mut script = moved();
        script.client(FIN_ACK, CLIENT_NEXT, BACKEND_NEXT, 0);
        script.at(1.0).client(ACK, CLIENT_NEXT, BACKEND_NEXT, 0);
        assert_eq!((script.entry().state, script.frees_at()), (CloseWait, 61.0));
        script.at(2.0).client(FIN_ACK, CLIENT_NEXT, BACKEND_NEXT, 0);
        assert_eq!((script.entry().state, script.frees_at()), (LastAck, 32.0));
    }

    #[test]
    fn a_syn_on_time_wait_decides_again() {
        let mut script = Script::of("nf-conntrack");
        script.establish();
        script.client(FIN_ACK, CLIENT_NEXT, BACKEND_NEXT, 0);
        script.reply(A, FIN_ACK, BACKEND_NEXT, CLIENT_NEXT + 1, 0);
        script.client(ACK, CLIENT_NEXT + 1, BACKEND_NEXT + 1, 0);
        assert_eq!((script.entry().state, script.frees_at()), (TimeWait, 120.0));
        assert_eq!(script.down(A).at(1.0).syn(9000), TO_B);
    }

    #[test]
    fn a_rst_of_the_backend_does_not_let_a_syn_decide_for_10_s() {
        let mut script = Script::of("nf-conntrack");
        script.establish();
        assert_eq!(script.reply(A, RST, BACKEND_NEXT, 0, 0), Decision::ToClient);
        assert_eq!((script.entry().state, script.frees_at()), (Close, 10.0));
        assert_eq!(script.down(A).at(9.0).syn(9000), TO_A);
        assert_eq!(script.at(10.0).syn(9000), TO_B);
    }

    #[test]
    fn a_refused_syn_leaves_no_entry() {
        let mut script = Script::of("nf-conntrack");
        script.syn(1000);
        assert_eq!(script.reply(A, RST, 0, 1001, 0), Decision::ToClient);
        assert!(script.table.is_empty());
    }

    #[test]
    fn an_unanswered_syn_is_kept_120_s_and_its_copies_refresh_only_before_5_14() {
        for (name, frees_at) in [("nf-conntrack", 120.0), ("nf-conntrack+before-5.14", 220.0)] {
            let mut script = Script::of(name);
            script.syn(1000);
            script.at(100.0).syn(1000);
            assert_eq!((script.entry().state, script.frees_at()), (SynSent, frees_at), "{name}");
        }
    }

    #[test]
    fn a_handshake_passes_syn_recv_for_60_s() {
        let mut script = Script::of("nf-conntrack");
        script.syn(1000);
        assert_eq!(script.reply(A, SYN_ACK, 5000, 1001, 0), Decision::ToClient);
        assert_eq!((script.entry().state, script.frees_at()), (SynRecv, 60.0));
        assert_eq!(script.down(A).syn(1000), TO_A);
        script.client(ACK, 1001, 5001, 0);
        assert_eq!((script.entry().state, script.frees_at()), (Established, FIVE_DAYS));
    }

    #[test]
    fn an_ack_without_an_entry_is_picked_up_and_kept_300_s() {
        let mut script = Script::of("nf-conntrack");
        script.down(A);
        assert_eq!(script.data(), TO_B);
        assert_eq!((script.entry().state, script.frees_at()), (Established, 300.0));
    }

    #[test]
    fn other_segments_without_an_entry_are_invalid() {
        for flags in [FIN_ACK, RST, SYN_ACK, crate::packet::TcpFlags::default()] {
            let mut script = Script::of("nf-conntrack");
            assert_eq!(script.client(flags, 1, 1, 0), dropped(DropReason::Invalid), "{flags:?}");
            assert!(script.table.is_empty());
        }
    }

    #[test]
    fn a_challenge_ack_in_last_ack_acknowledges_no_fin() {
        let mut script = moved();
        script.client(FIN_ACK, CLIENT_NEXT, BACKEND_NEXT, 0);
        script.client(FIN_ACK, CLIENT_NEXT, BACKEND_NEXT, 0);
        assert_eq!(script.at(1.0).syn(9000), TO_A);
        assert_eq!(script.reply(A, ACK, BACKEND_NEXT, CLIENT_NEXT, 0), Decision::ToClient);
        assert_eq!((script.entry().state, script.frees_at()), (LastAck, 30.0));
    }

    #[test]
    fn a_syn_ack_to_a_syn_that_was_let_through_brings_the_entry_in_step() {
        let mut script = Script::of("nf-conntrack");
        script.establish().at(1.0).syn(9000);
        assert_eq!(script.reply(A, SYN_ACK, 20_000, 9001, 0), Decision::ToClient);
        assert_eq!((script.entry().state, script.frees_at()), (SynRecv, 61.0));
        script.client(ACK, 9001, 20_001, 0);
        assert_eq!(script.entry().state, Established);
        assert_eq!(script.client(RST, 9001, 0, 0), TO_A);
        assert_eq!(script.entry().state, Close);
    }

    #[test]
    fn when_all_are_down_the_map_stays() {
        let mut script = moved();
        assert_eq!(script.down(B).syn_from(941), TO_A);
    }
}
