//! A driver that says anything in any order: the machine stays consistent and does not panic.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;
use remoor_rpc::message::{ReplyStatus, encode_reply, peek_xid};

use super::super::*;
use super::epoch;
use super::pair::test_record;

#[derive(Debug, Clone)]
enum Input {
    Connect,
    Disconnect,
    Call {
        idempotent: bool,
    },
    Cancel {
        nth: usize,
    },
    Event {
        conn: u64,
        kind: Kind,
    },
    /// The newest attempt connects and answers NULL.
    Prove,
    /// The connections before the newest are dead, and drained when asked.
    Condemn {
        drained: bool,
    },
    Timeout,
    Wait {
        ms: u64,
    },
}

#[derive(Debug, Clone)]
enum Kind {
    Connected { wrong_port: bool },
    ConnectFailed(ConnectError),
    Reply { nth: usize },
    Null { status: ReplyStatus },
    Garbage(Vec<u8>),
    Progress,
    Closed(CloseReason),
    AckState(Option<u64>, u32),
    Drained,
}

fn kind() -> impl Strategy<Value = Kind> {
    use ConnectError::*;
    let errors =
        prop::sample::select(vec![Refused, Reset, TimedOut, PortInUse, PermissionDenied, Unreachable, Other]);
    let reasons = [CloseReason::Fin, CloseReason::Reset, CloseReason::TimedOut, CloseReason::Protocol];
    let status = prop::sample::select(vec![ReplyStatus::Success, ReplyStatus::ProgUnavail]);
    prop_oneof![
        6 => prop::bool::weighted(0.1).prop_map(|wrong_port| Kind::Connected { wrong_port }),
        2 => errors.prop_map(Kind::ConnectFailed),
        4 => (0..8usize).prop_map(|nth| Kind::Reply { nth }),
        6 => status.prop_map(|status| Kind::Null { status }),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Kind::Garbage),
        1 => Just(Kind::Progress),
        1 => prop::sample::select(reasons.to_vec()).prop_map(Kind::Closed),
        2 => (prop::option::of(0..2000u64), 0..3u32).prop_map(|(age, retransmits)| Kind::AckState(age, retransmits)),
        2 => Just(Kind::Drained),
    ]
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        1 => prop::bool::weighted(0.05).prop_map(|now| if now { Input::Disconnect } else { Input::Connect }),
        3 => any::<bool>().prop_map(|idempotent| Input::Call { idempotent }),
        1 => (0..8usize).prop_map(|nth| Input::Cancel { nth }),
        4 => (prop_oneof![3 => Just(0), 1 => 1..4u64], kind()).prop_map(|(conn, kind)| Input::Event { conn, kind }),
        4 => Just(Input::Prove),
        4 => any::<bool>().prop_map(|drained| Input::Condemn { drained }),
        4 => Just(Input::Timeout),
        2 => (0..3000u64).prop_map(|ms| Input::Wait { ms }),
    ]
}

struct Run {
    machine: Machine,
    now: Instant,
    ports: BTreeMap<ConnId, u16>,
    nulls: BTreeMap<ConnId, u32>,
    waiting: BTreeSet<u32>,
}

impl Run {
    fn feed(&mut self, input: &Input) -> Result<(), TestCaseError> {
        match input {
            Input::Connect => self.machine.connect(self.now),
            Input::Disconnect => self.machine.disconnect(self.now),
            Input::Call { idempotent } => self.call(*idempotent),
            Input::Cancel { nth } => {
                if let Some(xid) = self.waiting.iter().nth(*nth).copied() {
                    self.waiting.remove(&xid);
                    self.machine.cancel(xid);
                }
            }
            Input::Event { conn, kind } => self.event(*conn, kind),
            Input::Prove => {
                self.event(0, &Kind::Connected { wrong_port: false });
                self.output()?;
                self.event(0, &Kind::Null { status: ReplyStatus::Success });
            }
            Input::Condemn { drained } => {
                (0..3).for_each(|conn| self.event(conn, &Kind::AckState(Some(1000), 2)));
                (0..3).filter(|_| *drained).for_each(|conn| self.event(conn, &Kind::Drained));
            }
            Input::Timeout => self.now = self.machine.poll_timeout().unwrap_or(self.now).max(self.now),
            Input::Wait { ms } => self.now += Duration::from_millis(*ms),
        }
        self.machine.handle_timeout(self.now);
        self.output()?;
        prop_assert_eq!(self.machine.outstanding(), self.waiting.len());
        prop_assert!(self.machine.poll_timeout().is_none_or(|at| at > self.now), "a timeout in the past");
        Ok(())
    }

    fn call(&mut self, idempotent: bool) {
        let xid = self.machine.next_xid();
        self.waiting.insert(xid);
        self.machine.call(self.now, Call { xid, record: test_record(xid), idempotent }).unwrap();
    }

    /// `conn` counts back from the newest attempt.
    fn event(&mut self, conn: u64, kind: &Kind) {
        let attempts = self.machine.counters().attempts;
        let conn = ConnId(attempts.saturating_sub(1 + conn));
        let port = self.ports.get(&conn).copied().unwrap_or_default();
        let reply = |xid: u32, status: &ReplyStatus| Event::Received {
            conn,
            xid,
            reply: encode_reply(xid, status, &()).message(),
        };
        let event = match kind {
            Kind::Connected { wrong_port } => {
                Event::Connected { conn, local_port: port ^ u16::from(*wrong_port) }
            }
            Kind::ConnectFailed(error) => Event::ConnectFailed { conn, error: *error },
            Kind::Reply { nth } => {
                let xid = self.waiting.iter().nth(*nth).copied().unwrap_or_default();
                reply(xid, &ReplyStatus::Success)
            }
            Kind::Null { status } => reply(self.nulls.get(&conn).copied().unwrap_or_default(), status),
            Kind::Garbage(bytes) => {
                let xid = peek_xid(bytes).unwrap_or_default();
                Event::Received { conn, xid, reply: Bytes::from(bytes.clone()) }
            }
            Kind::Progress => Event::Progress { conn },
            Kind::Closed(how) => Event::Closed { conn, how: *how },
            Kind::AckState(age, retransmits) => {
                let ack = AckState { unacked_for: age.map(Duration::from_millis), retransmits: *retransmits };
                Event::AckState { conn, ack }
            }
            Kind::Drained => Event::Drained { conn },
        };
        self.machine.handle_event(self.now, event);
    }

    /// Takes all output. What is given up must be known, what is finished must be waited for.
    fn output(&mut self) -> Result<(), TestCaseError> {
        while let Some(action) = self.machine.poll() {
            match action {
                Action::Connect { conn, port, .. } => {
                    prop_assert!((RESERVED_LO..=RESERVED_HI).contains(&port));
                    prop_assert_eq!(self.ports.insert(conn, port), None, "a connection id is used twice");
                }
                Action::Abandon { conn, .. } | Action::Drain { conn } | Action::QueryAck { conn } => {
                    prop_assert!(self.ports.contains_key(&conn));
                }
                Action::Completed { xid, .. } | Action::Failed { xid, .. } => {
                    prop_assert!(self.waiting.remove(&xid), "{} is finished twice or was cancelled", xid);
                }
                Action::Notice(_) => {}
            }
        }
        while let Some(Transmit { conn, record }) = self.machine.poll_transmit() {
            let message = record.message();
            let xid = peek_xid(&message).unwrap();
            if !self.waiting.contains(&xid) {
                self.nulls.insert(conn, xid);
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_events_confuses_the_machine(
        fresh: bool, seed: u64, soft: bool, inputs in prop::collection::vec(input(), 0..200),
    ) {
        let rebind = if fresh { Rebind::Fresh } else { Rebind::Same };
        let recovery = if soft { Recovery::Soft } else { Recovery::Hard };
        let config = Config { rebind, recovery, timeo: Duration::from_secs(5), ..Config::default() };
        let machine = Machine::new(config, seed, &[]).unwrap();
        let mut run = Run { machine, now: epoch(), ports: BTreeMap::new(), nulls: BTreeMap::new(), waiting: BTreeSet::new() };
        for input in &inputs {
            run.feed(input)?;
        }
    }
}
