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

#[cfg(test)]
mod tests {
    use crate::packet::{Reset, ResetTo};
    use crate::pool::Health;
    use crate::script::*;
    use crate::table::{Decision, DropReason};

    #[test]
    fn a_syn_with_another_sequence_number_is_another_flow() {
        let mut script = Script::of("aws-nlb");
        script.down(A).establish();
        script.health(A, Health::Up);
        assert_eq!(script.entry().backend, B);
        assert_eq!(script.syn(9000), TO_A);
        assert_eq!(script.reply(B, ACK, BACKEND_NEXT, CLIENT_NEXT, 0), dropped(DropReason::NotItsBackend));
    }

    #[test]
    fn a_retransmitted_syn_stays_with_its_backend_while_that_is_up() {
        let mut script = Script::of("aws-nlb");
        script.down(A);
        assert_eq!(script.syn(1000), TO_B);
        script.health(A, Health::Up);
        assert_eq!(script.at(1.0).syn(1000), TO_B);
        script.down(B);
        assert_eq!(script.at(3.0).syn(1000), TO_A);
    }

    #[test]
    fn a_segment_of_a_flow_whose_backend_is_down_gets_an_exact_rst() {
        let mut script = Script::of("aws-nlb");
        script.establish().down(A);
        let rst = Reset { flow: script.flow, to: ResetTo::Client, seq: BACKEND_NEXT, ack: None };
        assert_eq!(script.data(), Decision::Reset(rst));
        assert!(script.table.entry(&script.flow).is_none());
        assert_eq!(script.syn(9000), TO_B);
    }

    #[test]
    fn a_syn_on_a_flow_whose_backend_is_down_is_a_new_flow() {
        let mut script = Script::of("aws-nlb");
        script.establish().down(A);
        assert_eq!(script.syn(9000), TO_B);
    }

    #[test]
    fn after_350_s_without_traffic_a_late_segment_gets_a_rst() {
        let mut script = Script::of("aws-nlb");
        script.establish();
        assert_eq!(script.frees_at(), 350.0);
        assert_eq!(script.at(349.9).data(), TO_A);
        assert_eq!(script.at(700.0).timeout(), []);
        let Decision::Reset(rst) = script.data() else { panic!("a late segment was not reset") };
        assert_eq!((rst.to, rst.seq), (ResetTo::Client, BACKEND_NEXT));
        let late_reply = script.reply(A, ACK, BACKEND_NEXT, CLIENT_NEXT, 10);
        let Decision::Reset(rst) = late_reply else { panic!("a late reply was not reset") };
        assert_eq!((rst.to, rst.seq), (ResetTo::Backend(A), CLIENT_NEXT));
    }

    #[test]
    fn a_late_rst_is_not_answered() {
        let mut script = Script::of("aws-nlb");
        assert_eq!(script.client(RST, CLIENT_NEXT, 0, 0), dropped(DropReason::NoEntry));
    }

    #[test]
    fn when_all_are_down_all_are_taken_as_up() {
        let mut script = Script::of("aws-nlb");
        script.establish().down(A).down(B);
        assert_eq!(script.data(), TO_A);
        assert_eq!(script.syn_from(941), TO_A);
    }
}
