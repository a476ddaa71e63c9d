//! Azure Load Balancer, Standard SKU.
//!
//! Documented (Microsoft Learn, "Azure Load Balancer distribution modes", "health probes", "TCP reset and
//! idle timeout"): five-tuple hash, source address kept; when a probe fails, established flows continue to
//! the backend that is down, also when all are; 240 s idle by default (4 to 30 min) and a silent drop of
//! the flow, or a RST both ways if that is configured.
//!
//! Not documented, and therefore variants: whether a lone SYN refreshes the idle timer, and whether FIN or
//! RST of the client frees the entry. That a SYN follows the old entry is field evidence. FIN and RST of a
//! backend are taken to change nothing.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::{Preset, Variant};
use crate::config::*;

/// Default idle timeout.
const IDLE: Duration = Duration::from_secs(240);
/// Not documented for a front end; enough for any drill.
const ENTRY_LIMIT: NonZeroUsize = NonZeroUsize::new(1 << 20).unwrap();

pub(super) const PRESET: Preset = Preset {
    name: "azure-standard",
    description: "Azure Standard Load Balancer: flows stay on a backend that is down, SYN follows, 240 s idle",
    source: "Microsoft Learn: Azure Load Balancer health probes, distribution modes, TCP reset and idle timeout; SYN on an entry: field evidence",
    variants: &[
        Variant {
            name: "syn-refreshes",
            description: "a lone SYN refreshes the idle timer",
            apply: |config| config.refresh_on = RefreshOn::Any,
        },
        Variant {
            name: "close-frees",
            description: "FIN or RST of the client frees the entry",
            apply: |config| {
                config.close.client_fin = CloseRule::Free;
                config.close.client_rst = CloseRule::Free;
            },
        },
        Variant {
            name: "idle-rst",
            description: "TCP reset on idle is enabled: both ends get a RST",
            apply: |config| config.idle_action = IdleAction::RstBoth,
        },
    ],
    config,
};

fn config() -> Config {
    Config {
        selection: Selection::Priority,
        hash: Hash { tuple: Tuple::Five, isn: false },
        tracking: Tracking::Plain,
        syn_on_entry: SynOnEntry::Follow,
        without_entry: WithoutEntry::Pickup,
        reply_without_entry: ReplyWithoutEntry::Pass,
        refresh_on: RefreshOn::NonSyn,
        on_backend_down: OnBackendDown::Keep,
        on_all_down: OnAllDown::Continue,
        timers: StateTimers::uniform(IDLE),
        idle_action: IdleAction::Silent,
        close: CloseRules::all(CloseRule::Unseen),
        entry_limit: ENTRY_LIMIT,
        when_full: WhenFull::DropNew,
    }
}

#[cfg(test)]
mod tests {
    use crate::packet::ResetTo;
    use crate::script::*;
    use crate::table::DropReason;

    const BOTH: &str = "azure-standard+syn-refreshes+close-frees";

    #[test]
    fn established_flows_continue_to_a_backend_that_is_down() {
        let mut script = Script::of("azure-standard");
        script.establish().down(A);
        assert_eq!(script.data(), TO_A);
        assert_eq!(script.syn_from(941), TO_B);
    }

    #[test]
    fn a_syn_on_an_entry_follows_the_backend_that_is_down() {
        let mut script = Script::of("azure-standard");
        script.establish().down(A);
        assert_eq!(script.at(60.0).syn(9000), TO_A);
        assert_eq!(script.table.counters().syn_followed, 1);
    }

    #[test]
    fn when_all_are_down_flows_continue_and_new_ones_are_dropped() {
        let mut script = Script::of("azure-standard");
        script.establish().down(A).down(B);
        assert_eq!(script.data(), TO_A);
        assert_eq!(script.syn_from(941), dropped(DropReason::NoBackend));
    }

    #[test]
    fn an_idle_flow_frees_silently_after_240_s() {
        let mut script = Script::of("azure-standard");
        script.establish().down(A);
        assert_eq!(script.frees_at(), 240.0);
        assert_eq!(script.at(239.9).timeout(), []);
        assert_eq!(script.table.len(), 1);
        assert_eq!(script.at(240.0).timeout(), []);
        assert!(script.table.is_empty());
        assert_eq!(script.syn(9000), TO_B);
    }

    #[test]
    fn only_the_variant_lets_a_lone_syn_refresh_the_idle_timer() {
        for (name, frees_at) in [
            ("azure-standard", 240.0),
            ("azure-standard+close-frees", 240.0),
            ("azure-standard+syn-refreshes", 340.0),
            (BOTH, 340.0),
        ] {
            let mut script = Script::of(name);
            script.establish().at(100.0).syn(9000);
            assert_eq!(script.frees_at(), frees_at, "{name}");
        }
    }

    #[test]
    fn only_the_variant_lets_the_client_free_the_entry() {
        for (name, then) in [
            ("azure-standard", TO_A),
            ("azure-standard+syn-refreshes", TO_A),
            ("azure-standard+close-frees", TO_B),
            (BOTH, TO_B),
        ] {
            for close in [FIN_ACK, RST] {
                let mut script = Script::of(name);
                script.establish().down(A);
                assert_eq!(script.client(close, CLIENT_NEXT, BACKEND_NEXT, 0), TO_A, "{name} {close:?}");
                assert_eq!(script.syn(9000), then, "{name} {close:?}");
            }
        }
    }

    #[test]
    fn a_reset_from_the_backend_changes_nothing() {
        let mut script = Script::of(BOTH);
        script.establish();
        script.reply(A, RST, BACKEND_NEXT, 0, 0);
        assert_eq!(script.down(A).syn(9000), TO_A);
    }

    #[test]
    fn with_tcp_reset_enabled_both_ends_hear_of_the_expiry() {
        let mut script = Script::of("azure-standard+idle-rst");
        script.establish();
        let resets = script.at(240.0).timeout();
        let seen: Vec<_> = resets.iter().map(|reset| (reset.to, reset.seq, reset.ack)).collect();
        assert_eq!(
            seen,
            [
                (ResetTo::Client, BACKEND_NEXT, Some(CLIENT_NEXT)),
                (ResetTo::Backend(A), CLIENT_NEXT, Some(BACKEND_NEXT)),
            ]
        );
    }
}
