//! AWS Network Load Balancer, TCP listener.
//!
//! Documented (AWS, "Network Load Balancers" user guide: "What is a Network Load Balancer", "Connection
//! idle timeout", "Target group health"): hash over the five-tuple and the TCP sequence number, so that a
//! SYN with another number is another flow; 350 s idle (60 to 6000 s), then a late packet gets a RST;
//! connections to an unhealthy target are terminated; when all targets are unhealthy, all get traffic.
//! The life of an entry after FIN or RST is not documented and does not matter to a SYN.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::Preset;
use crate::config::*;

/// Default of the TCP idle timeout.
const IDLE: Duration = Duration::from_secs(350);
/// Not documented; enough for any drill.
const ENTRY_LIMIT: NonZeroUsize = NonZeroUsize::new(1 << 20).unwrap();

pub(super) const PRESET: Preset = Preset {
    name: "aws-nlb",
    description: "AWS Network Load Balancer: a new SYN is a new flow, RST for flows of a target that is down",
    source: "AWS Network Load Balancers user guide: overview, connection idle timeout, target group health",
    variants: &[],
    config,
};

fn config() -> Config {
    Config {
        selection: Selection::Priority,
        hash: Hash { tuple: Tuple::Five, isn: true },
        tracking: Tracking::Plain,
        syn_on_entry: SynOnEntry::Reselect,
        without_entry: WithoutEntry::Rst,
        reply_without_entry: ReplyWithoutEntry::Rst,
        refresh_on: RefreshOn::Any,
        on_backend_down: OnBackendDown::RstOnPacket,
        on_all_down: OnAllDown::FailOpen,
        timers: StateTimers::uniform(IDLE),
        idle_action: IdleAction::Silent,
        close: CloseRules::all(CloseRule::Advance),
        entry_limit: ENTRY_LIMIT,
        when_full: WhenFull::EvictLongestIdle,
    }
}
