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
