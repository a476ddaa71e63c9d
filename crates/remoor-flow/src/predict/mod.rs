//! What a failover will do, in virtual time.
//!
//! [`predict`] joins the parts that also work on real packets, the [`FlowTable`](crate::FlowTable) and
//! [`reconnect::Machine`], by a small TCP, two NFS servers and a clock of its own. The same seed gives the same
//! prediction, down to ports and sequence numbers.
//!
//! ```text
//! writers -> Machine -> TCP -- round trip / 4 -- FlowTable -- round trip / 4 -- TCP -> server FAULTY | SPARE
//! ```

mod balancer;
mod client;
pub mod linux_client;
mod node;
mod outcome;
mod queue;
mod tcp;
mod world;

use std::time::{Duration, Instant};

use remoor_nfs::reconnect::{self, Machine, Notice, Rebind};

pub use outcome::Finding;
pub use tcp::Tcp;
pub use world::{EVENT_LIMIT, Sender};

use crate::config::Config;
use crate::packet::BackendId;

/// The node that the client is on when the fault comes; the balancer prefers it.
pub const FAULTY: BackendId = BackendId(0);
/// The other node, healthy and idle.
pub const SPARE: BackendId = BackendId(1);

/// Longest duration of a scenario: a year. Longer ones are taken as this.
pub const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// One failover.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The origin of virtual time. Nothing depends on its value.
    pub start: Instant,
    /// The balancer.
    pub flow: Config,
    /// The client.
    pub client: reconnect::Config,
    /// Source ports that are never used.
    pub excluded_ports: Vec<u16>,
    /// The client's kernel.
    pub tcp: Tcp,
    /// Whether the client may use TCP_REPAIR (CAP_NET_ADMIN). It then leaves a connection by packets of its own: two
    /// RSTs, exact for those that saw none and for those that saw all of the data in flight; or a FIN and its copy,
    /// after which the port is free at once.
    pub tcp_repair: bool,
    /// What happens to the node that serves the client.
    pub fault: Fault,
    /// When, after the start. The mount and some calls should fit before it.
    pub fault_at: Duration,
    /// From the fault, or its end, until the balancer takes note of it.
    pub probe_delay: Duration,
    /// How long after the fault recovery is waited for.
    pub window: Duration,
    /// Between client and node through the balancer.
    pub round_trip: Duration,
    /// How long a server works on a call.
    pub service_time: Duration,
    /// Writers, each with one call outstanding at most.
    pub writers: u32,
    /// A writer's pause between a reply and its next call; at least 1 ms is taken.
    pub call_every: Duration,
    /// Octets of a call's body. Calls that fit into one segment together are retransmitted together, and then the
    /// RST that follows has the sequence number that connection tracking takes for the right one.
    pub call_len: u32,
    /// Decides ports, sequence numbers and jitter.
    pub seed: u64,
}

impl Scenario {
    /// Four writers on a local network whose node goes silent after two seconds, with a balancer that knows at once
    /// and a window of 60 s.
    pub fn new(start: Instant, flow: Config, client: reconnect::Config) -> Self {
        Self {
            start,
            flow,
            client,
            excluded_ports: Vec::new(),
            tcp: Tcp::default(),
            tcp_repair: true,
            fault: Fault::Silent,
            fault_at: Duration::from_secs(2),
            probe_delay: Duration::ZERO,
            window: Duration::from_secs(60),
            round_trip: Duration::from_micros(400),
            service_time: Duration::from_millis(1),
            writers: 4,
            call_every: Duration::from_millis(50),
            call_len: 4096,
            seed: 1,
        }
    }

    /// With every duration at most [`LONGEST`], so that sums of a few of them are instants.
    fn bounded(&self) -> Self {
        let mut scenario = self.clone();
        for duration in [
            &mut scenario.tcp.user_timeout,
            &mut scenario.fault_at,
            &mut scenario.probe_delay,
            &mut scenario.window,
            &mut scenario.round_trip,
            &mut scenario.service_time,
            &mut scenario.call_every,
        ] {
            *duration = LONGEST.min(*duration);
        }
        match &mut scenario.fault {
            Fault::Stop { resume_after: after } | Fault::Flap { back_after: after } => {
                *after = LONGEST.min(*after)
            }
            Fault::None | Fault::Silent | Fault::Kill => {}
        }
        scenario
    }
}

/// What happens to the node that serves the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It stops answering: no RST, no ICMP.
    Silent,
    /// The process dies; its kernel sends FIN or RST and refuses SYNs.
    Kill,
    /// The process is stopped; its kernel acknowledges and completes handshakes.
    Stop {
        /// Until the process is continued.
        resume_after: Duration,
    },
    /// It goes silent and comes back with its connections.
    Flap {
        /// Until it is back.
        back_after: Duration,
    },
}

/// One connection attempt: one SYN series from one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When the first SYN left, since the start.
    pub at: Duration,
    /// Source port.
    pub port: u16,
    /// Initial sequence number, that of each SYN of the series.
    pub isn: u32,
    /// SYNs after the first.
    pub retransmissions: u32,
    /// Where the balancer sent the first SYN that it sent anywhere.
    pub first_reached: Option<BackendId>,
    /// Where the balancer sent the last SYN; `None` if it was dropped or answered by the balancer.
    pub reached: Option<BackendId>,
    /// The last answer to a SYN.
    pub answer: Option<Answer>,
    /// When it came, since the start.
    pub answered_at: Option<Duration>,
    /// Whether a reply, that to NULL included, came on the connection.
    pub served: bool,
}

impl Attempt {
    pub(crate) fn new(at: Duration, port: u16, isn: u32) -> Self {
        Self {
            at,
            port,
            isn,
            retransmissions: 0,
            first_reached: None,
            reached: None,
            answer: None,
            answered_at: None,
            served: false,
        }
    }
}

/// An answer to a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who gave it.
    pub by: Sender,
    /// What it was.
    pub kind: AnswerKind,
}

/// What answered a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerKind {
    /// SYN and ACK.
    SynAck,
    /// RST.
    Reset,
    /// The ACK of a connection that the server still holds for the same port (RFC 5961 section 4).
    ChallengeAck,
}

/// What a failover will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prediction {
    /// All connection attempts, that of the mount first.
    pub attempts: Vec<Attempt>,
    /// Every SYN after the first of an attempt: when it left, since the start, and the attempt's index.
    pub repeated_syns: Vec<(Duration, usize)>,
    /// When the client received each reply to a call, since the start.
    pub replies: Vec<Duration>,
    /// From the last reply that was sent before the fault to the first one sent after it, as the client receives
    /// them; `None` if none came within the window.
    pub gap: Option<Duration>,
    /// Whether the attempts after the fault came from the port in use before it; `None` if there was none.
    pub rebind: Option<Rebind>,
    /// Whether an attempt after the fault went to the faulty node because of a flow entry: the balancer sent new
    /// flows elsewhere by then.
    pub pinned: bool,
    /// When the entry that pinned the last such attempt expires, since the start, if nothing refreshes it.
    pub flow_frees_at: Option<Duration>,
    /// Whether it was played to the end of the window, or until the client was served for two seconds by a node that
    /// works. `false` means that [`EVENT_LIMIT`] came first: use fewer writers, a longer pause between calls, or a
    /// fault that comes sooner.
    pub complete: bool,
    /// What the machine had to say, since the start.
    pub notices: Vec<(Duration, Notice)>,
}

/// Plays a failover through in virtual time.
///
/// # Errors
///
/// [`reconnect::ConfigError`] as [`Machine::new`] gives it for `scenario.client` and `scenario.excluded_ports`.
pub fn predict(scenario: &Scenario) -> Result<Prediction, reconnect::ConfigError> {
    let scenario = scenario.bounded();
    let machine = Machine::new(scenario.client.clone(), scenario.seed, &scenario.excluded_ports)?;
    Ok(world::World::new(&scenario, machine).run())
}

#[cfg(test)]
mod tests;
