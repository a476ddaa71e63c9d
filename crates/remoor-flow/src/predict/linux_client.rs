//! The NFS client of Linux, as far as it decides what a failover does: when a connection counts as dead, from which
//! port the next one leaves, and when.
//!
//! Names of functions are those of `net/sunrpc/xprtsock.c` and `net/sunrpc/clnt.c`. The kernel's timers fire up to an
//! eighth of their time later than they are set (`calc_index` in kernel/time/timer.c), so measured recoveries come up
//! to 4 % later than predicted ones. Only NFS version 3 with default `timeo` and `retrans` is modelled. Its minor
//! timeouts are not: they write the call once more to a connection that keeps it back.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use remoor_nfs::reconnect::{
    Action, Call, ConnId, ConnectError, EPHEMERAL_HI, EPHEMERAL_LO, Event, RESERVED_HI, RESERVED_LO, Transmit,
};
use remoor_rpc::call_table::InsertError;
use remoor_rpc::record::Record;

use super::client::Logic;
use super::world::World;
use super::{Prediction, Scenario, Tcp};

/// `xs_tcp_set_socket_timeouts`: TCP_USER_TIMEOUT is `to_initval` times `to_retries` + 1 of `xs_tcp_default_timeout`,
/// 60 s and 2, whatever `timeo` says.
const USER_TIMEOUT: Duration = Duration::from_secs(180);
/// `net.ipv4.tcp_syn_retries`. `xs_tcp_set_connect_timeout` leaves it (TCP_SYNCNT, from 6.6) as 180 s allow more.
const SYN_RETRIES: u32 = 6;
/// `call_connect_status`: the pause after ECONNREFUSED and its like.
const REFUSED_PAUSE: Duration = Duration::from_secs(3);
/// `XS_TCP_INIT_REEST_TO`: least time from one connect to the next after a connection ended (`xs_connect`,
/// `xprt_reconnect_delay`). Its doubling does not show here: it counts from the connect, and a failed one took longer.
const RECONNECT_MIN: Duration = Duration::from_secs(3);

/// What a transport remembers of its source port (`srcport` of `struct sock_xprt`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortMemory {
    /// Nothing: each connection leaves from a new port. `xs_set_srcport` was reached only if connect(2) succeeded at
    /// once, which it does not; an ephemeral port was therefore not known (4.0 to 5.17).
    None,
    /// The port of the first connection, whatever happens (`xs_bind`, and from 5.18 `xs_set_srcport` at the first
    /// send, commit 3b21f757c309).
    Kept,
    /// The same, until an attempt fails (6.9: `xs_reset_srcport` in `xs_tcp_state_change`).
    KeptUntilFailure,
}

/// One kernel with one port option, for NFS version 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The release, as `5.10`.
    pub kernel: &'static str,
    /// `resvport` or `noresvport`.
    pub resvport: bool,
    /// Which port a reconnect leaves from.
    pub memory: PortMemory,
    /// `net.ipv4.tcp_syn_linear_timeouts`; from 6.5.
    pub syn_linear_timeouts: u32,
}

/// The kernels that were measured.
pub const PROFILES: [Profile; 6] = [
    profile("5.10", true, PortMemory::Kept, 0),
    profile("5.10", false, PortMemory::None, 0),
    profile("6.1", true, PortMemory::Kept, 0),
    profile("6.1", false, PortMemory::Kept, 0),
    profile("6.12", true, PortMemory::KeptUntilFailure, 4),
    profile("6.12", false, PortMemory::KeptUntilFailure, 4),
];

const fn profile(
    kernel: &'static str,
    resvport: bool,
    memory: PortMemory,
    syn_linear_timeouts: u32,
) -> Profile {
    Profile { kernel, resvport, memory, syn_linear_timeouts }
}

impl Profile {
    /// The profile of a measured kernel.
    pub fn find(kernel: &str, resvport: bool) -> Option<&'static Self> {
        PROFILES.iter().find(|profile| profile.kernel == kernel && profile.resvport == resvport)
    }

    /// What the kernel's TCP is set to on a transport's socket.
    pub fn tcp(&self) -> Tcp {
        Tcp {
            syn_retries: SYN_RETRIES,
            syn_linear_timeouts: self.syn_linear_timeouts,
            user_timeout: USER_TIMEOUT,
            ..Tcp::default()
        }
    }
}

/// As [`predict`](super::predict), for a mount of the Linux client. `scenario.client`, its ports and `scenario.tcp` do
/// not matter. The window should be several minutes: it takes the kernel three to doubt a connection.
pub fn predict_linux(scenario: &Scenario, profile: &Profile) -> Prediction {
    let scenario = Scenario { tcp: profile.tcp(), tcp_repair: false, ..scenario.bounded() };
    World::new(&scenario, Transport::new(*profile, scenario.seed)).run()
}

/// Where the transport's connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting { until: Instant },
    Connecting(ConnId),
    Connected(ConnId),
    Idle,
}

/// One transport: `struct rpc_xprt`.
struct Transport {
    profile: Profile,
    rng: StdRng,
    state: State,
    srcport: Option<u16>,
    connect_start: Option<Instant>,
    next_conn: u64,
    next_xid: u32,
    /// Outstanding calls by age; xids count up.
    calls: BTreeMap<u32, Record>,
    send: VecDeque<u32>,
    actions: VecDeque<Action>,
}

impl Transport {
    fn new(profile: Profile, seed: u64) -> Self {
        Self {
            profile,
            rng: StdRng::seed_from_u64(seed),
            state: State::Idle,
            srcport: None,
            connect_start: None,
            next_conn: 0,
            next_xid: 1,
            calls: BTreeMap::new(),
            send: VecDeque::new(),
            actions: VecDeque::new(),
        }
    }

    /// `xs_tcp_setup_socket`.
    fn start(&mut self, now: Instant) {
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        let port = self.srcport.unwrap_or_else(|| self.random_port());
        // `xs_bind` notes a port it bound; one that connect(2) chose is noted at the first send.
        if self.profile.resvport && self.profile.memory != PortMemory::None {
            self.srcport = Some(port);
        }
        self.connect_start = Some(now);
        self.state = State::Connecting(conn);
        self.actions.push_back(Action::Connect { conn, port, attempt: 1 });
    }

    /// `xs_get_random_port`; an ephemeral port is what connect(2) would choose.
    fn random_port(&mut self) -> u16 {
        match self.profile.resvport {
            true => self.rng.random_range(RESERVED_LO..=RESERVED_HI),
            false => self.rng.random_range(EPHEMERAL_LO..=EPHEMERAL_HI),
        }
    }

    fn connected(&mut self, conn: ConnId, local_port: u16) {
        if self.profile.memory != PortMemory::None {
            self.srcport = Some(local_port);
        }
        self.state = State::Connected(conn);
        self.send = self.calls.keys().copied().collect();
    }

    fn connect_failed(&mut self, now: Instant, error: ConnectError) {
        if self.profile.memory == PortMemory::KeptUntilFailure {
            self.srcport = None;
        }
        let pause = if error == ConnectError::TimedOut { Duration::ZERO } else { REFUSED_PAUSE };
        self.state = State::Waiting { until: now + pause };
    }

    fn closed(&mut self, now: Instant) {
        self.send.clear();
        let earliest = self.connect_start.map_or(now, |start| start + RECONNECT_MIN);
        self.state = State::Waiting { until: earliest.max(now) };
    }

    fn is_current(&self, conn: ConnId) -> bool {
        self.state == State::Connected(conn) || self.state == State::Connecting(conn)
    }
}

impl Logic for Transport {
    fn connect(&mut self, now: Instant) {
        self.start(now);
    }

    fn next_xid(&mut self) -> u32 {
        self.next_xid += 1;
        self.next_xid
    }

    fn call(&mut self, _now: Instant, call: Call) -> Result<(), InsertError> {
        self.calls.insert(call.xid, call.record);
        if matches!(self.state, State::Connected(_)) {
            self.send.push_back(call.xid);
        }
        Ok(())
    }

    fn handle_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Connected { conn, local_port } if self.is_current(conn) => {
                self.connected(conn, local_port)
            }
            Event::ConnectFailed { conn, error } if self.is_current(conn) => self.connect_failed(now, error),
            Event::Closed { conn, .. } if self.is_current(conn) => self.closed(now),
            Event::Received { xid, reply, .. } if self.calls.remove(&xid).is_some() => {
                self.actions.push_back(Action::Completed { xid, reply });
            }
            _ => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let State::Waiting { until } = self.state
            && until <= now
        {
            self.start(now);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if let State::Waiting { until } = self.state { Some(until) } else { None }
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        let State::Connected(conn) = self.state else { return None };
        let xid = self.send.pop_front()?;
        self.calls.get(&xid).map(|record| Transmit { conn, record: record.clone() })
    }

    fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use remoor_nfs::reconnect;

    use super::super::{Attempt, FAULTY, Fault, SPARE};
    use super::*;
    use crate::{preset, script};

    const SEC: Duration = Duration::from_secs(1);

    fn ten_minutes(balancer: &str) -> Scenario {
        let flow = preset::find(balancer).unwrap().config;
        let scenario = Scenario::new(script::origin(), flow, reconnect::Config::default());
        Scenario { window: 600 * SEC, ..scenario }
    }

    fn failover(kernel: &str, resvport: bool) -> (u16, Vec<Attempt>, f64) {
        let scenario = ten_minutes("nf-conntrack");
        let prediction = predict_linux(&scenario, Profile::find(kernel, resvport).unwrap());
        let (before, after): (Vec<Attempt>, Vec<Attempt>) =
            prediction.attempts.iter().copied().partition(|attempt: &Attempt| attempt.at < scenario.fault_at);
        (before[0].port, after, prediction.gap.unwrap().as_secs_f64())
    }

    fn syn_times(attempt: &Attempt) -> u32 {
        attempt.retransmissions + 1
    }

    /// Measured in virtual machines: client, kernel DNAT, node A blackholed, new flows to node B, NFS version 3.
    #[test]
    fn recovery_behind_conntrack_takes_what_was_measured() {
        for (kernel, resvport, measured) in [
            ("5.10", true, 449.0),
            ("5.10", false, 183.0),
            ("6.1", true, 450.0),
            ("6.1", false, 450.0),
            ("6.12", true, 323.0),
            ("6.12", false, 323.0),
        ] {
            let (_, _, gap) = failover(kernel, resvport);
            let off = (gap - measured) / measured;
            assert!(off.abs() < 0.05, "{kernel} resvport={resvport}: {gap} s, measured {measured} s");
        }
    }

    #[test]
    fn the_same_port_is_pinned_until_the_entry_expires() {
        for resvport in [true, false] {
            let (port, attempts, _) = failover("6.1", resvport);
            assert_eq!((port < 1024, attempts.len()), (resvport, 3));
            assert!(attempts.iter().all(|attempt| attempt.port == port));
            let reached: Vec<_> = attempts.iter().map(|attempt| attempt.reached).collect();
            assert_eq!(reached, [Some(FAULTY), Some(FAULTY), Some(SPARE)]);
            assert_eq!(syn_times(&attempts[0]), 7);
        }
    }

    #[test]
    fn noresvport_of_5_10_takes_a_fresh_port_at_once() {
        let (port, attempts, _) = failover("5.10", false);
        assert_eq!(attempts.len(), 1);
        assert!(attempts[0].port != port && attempts[0].port >= EPHEMERAL_LO);
    }

    #[test]
    fn a_failed_attempt_of_6_12_drops_the_port() {
        for resvport in [true, false] {
            let (port, attempts, _) = failover("6.12", resvport);
            assert_eq!(attempts.len(), 2);
            assert_eq!((attempts[0].port == port, attempts[1].port == port), (true, false));
            assert_eq!(syn_times(&attempts[0]), 11);
            assert_eq!(attempts[1].port < 1024, resvport);
        }
    }

    /// Measured: one SYN every 3.07 s while the server refuses; 6.12 from another port each time.
    #[test]
    fn a_refusal_is_tried_again_every_three_seconds() {
        let scenario = Scenario { fault: Fault::Kill, probe_delay: 20 * SEC, ..ten_minutes("nf-conntrack") };
        for (kernel, same) in [("6.1", true), ("6.12", false)] {
            let prediction = predict_linux(&scenario, Profile::find(kernel, true).unwrap());
            let refused: Vec<_> =
                prediction.attempts.iter().filter(|a| a.reached == Some(FAULTY)).skip(1).collect();
            assert!(refused.len() >= 2, "{prediction:#?}");
            for pair in refused.windows(2) {
                let pause = (pair[1].at - pair[0].at).as_secs_f64();
                assert!((3.0..3.1).contains(&pause), "{pause}");
                assert_eq!(pair[0].port == pair[1].port, same);
            }
        }
    }

    /// Measured: under a second.
    #[test]
    fn a_killed_server_is_left_at_once_if_the_other_is_ready() {
        let scenario = Scenario { fault: Fault::Kill, fault_at: 5 * SEC, ..ten_minutes("nf-conntrack") };
        for profile in &PROFILES {
            let prediction = predict_linux(&scenario, profile);
            assert!(prediction.gap.unwrap() < SEC, "{profile:?}: {:?}", prediction.gap);
        }
    }

    /// Measured: no SYN in 330 s, because the stopped server's kernel acknowledges everything.
    #[test]
    fn a_stopped_server_is_never_left() {
        let fault = Fault::Stop { resume_after: 3600 * SEC };
        let scenario = Scenario { fault, ..ten_minutes("nf-conntrack") };
        for profile in &PROFILES {
            let prediction = predict_linux(&scenario, profile);
            assert_eq!((prediction.attempts.len(), prediction.gap), (1, None), "{profile:?}");
        }
    }
}
