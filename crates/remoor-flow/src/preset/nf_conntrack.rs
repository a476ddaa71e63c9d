//! Linux destination NAT over connection tracking, with the defaults of `nf_conntrack_proto_tcp.c`.
//!
//! The map of new flows is changed by whoever watches the backends; entries that exist know nothing of it.
//! Two deviations: a full table drops the new flow (`early_drop` first looks for an entry that is not
//! assured), and a reply without an entry is dropped (the kernel forwards it untranslated).

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
