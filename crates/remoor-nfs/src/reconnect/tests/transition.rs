//! Every state with every event, the impossible ones too, as one table.
//!
//! After a change that is meant: `INSTA_UPDATE=always cargo test -p remoor-nfs transition`, then read the diff.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use remoor_rpc::message::{ReplyStatus, encode_reply, peek_xid};

use super::super::attempt::{Candidate, Phase};
use super::super::*;
use super::epoch;
use super::pair::test_record;
use super::scenario::fresh;

/// A connection the machine never made.
const STRANGER: ConnId = ConnId(u64::MAX);

/// A machine brought into a state, with what the events need to name.
struct Bench {
    machine: Machine,
    now: Instant,
    call: u32,
    idempotent: bool,
    null: u32,
    inband: u32,
}

impl Bench {
    fn new(config: Config) -> Self {
        let machine = Machine::new(config, 1, &[]).unwrap();
        Self { machine, now: epoch(), call: 0, idempotent: true, null: 0, inband: 0 }
    }

    fn current(&self) -> ConnId {
        self.machine.current.as_ref().map_or(STRANGER, |link| link.conn)
    }

    fn candidate(&self) -> (ConnId, u16) {
        match &self.machine.candidate {
            Candidate::Attempt(attempt) => (attempt.conn, attempt.port),
            Candidate::None | Candidate::Waiting => (STRANGER, 0),
        }
    }

    fn feed(&mut self, event: Event) {
        self.machine.handle_event(self.now, event);
    }

    fn fire(&mut self, timer: Timer) {
        if let Some(at) = self.machine.timers.get(timer) {
            self.now = at;
            self.machine.handle_timeout(at);
        }
    }

    fn make_call(&mut self) {
        let xid = self.machine.next_xid();
        if self.call == 0 {
            self.call = xid;
        }
        let call = Call { xid, record: test_record(xid), idempotent: self.idempotent };
        self.machine.call(self.now, call).unwrap();
    }

    fn reply(&mut self, conn: ConnId, xid: u32, status: ReplyStatus) {
        let reply = encode_reply(xid, &status, &()).message();
        self.feed(Event::Received { conn, xid, reply });
    }

    fn ack(&mut self, unacked_for: Option<u64>, retransmits: u32) {
        let ack = AckState { unacked_for: unacked_for.map(Duration::from_millis), retransmits };
        self.feed(Event::AckState { conn: self.current(), ack });
    }

    /// Takes all output and learns the xids of NULL calls from it.
    fn output(&mut self) -> String {
        let mut text = String::new();
        while let Some(action) = self.machine.poll() {
            describe(&mut text, &action);
        }
        while let Some(Transmit { conn, record }) = self.machine.poll_transmit() {
            let xid = peek_xid(&record.message()).unwrap();
            let is_null = record.message().len() == 40;
            match is_null {
                true if conn == self.current() => self.inband = xid,
                true => self.null = xid,
                false => {}
            }
            let _ = write!(text, "send {} on {conn}; ", if is_null { "NULL" } else { "call" });
        }
        text
    }

    fn summary(&self) -> String {
        let race = match (&self.machine.current, &self.machine.candidate) {
            (None, _) | (_, Candidate::None) => "",
            (_, Candidate::Waiting) => "+BackingOff",
            (_, Candidate::Attempt(attempt)) => match attempt.phase {
                Phase::Connecting => "+Connecting",
                Phase::Proving { .. } => "+Proving",
                Phase::Proven => "+Proven",
            },
        };
        let armed = Timer::ALL.into_iter().filter(|timer| self.machine.timers.get(*timer).is_some());
        let armed: Vec<_> = armed.map(|timer| format!("{timer:?}")).collect();
        format!("{:?}{race} [{}]", self.machine.state(), armed.join(" "))
    }
}

fn describe(text: &mut String, action: &Action) {
    let _ = match action {
        Action::Connect { conn, attempt, .. } => write!(text, "connect {conn} (attempt {attempt}); "),
        Action::QueryAck { conn } => write!(text, "query {conn}; "),
        Action::Drain { conn } => write!(text, "drain {conn}; "),
        Action::Abandon { conn, how } => write!(text, "abandon {conn} {how:?}; "),
        Action::Completed { .. } => write!(text, "complete; "),
        Action::Failed { error, .. } => write!(text, "fail {}; ", first_word(error)),
        Action::Notice(Notice::Moved { reason, .. }) => write!(text, "notice Moved {reason:?}; "),
        Action::Notice(notice) => write!(text, "notice {}; ", first_word(notice)),
    };
}

/// The name of an enum's variant.
fn first_word(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").split([' ', '(']).next().unwrap().to_owned()
}

type Step = fn(&mut Bench);
type Start = fn() -> Bench;

/// Everything that can be done to a machine. "Candidate" is the attempt in progress or proven; other events are of the
/// connection in use.
const EVENTS: [(&str, Step); 36] = [
    ("connect()", |b| b.machine.connect(b.now)),
    ("disconnect()", |b| b.machine.disconnect(b.now)),
    ("call()", Bench::make_call),
    ("cancel()", |b| b.machine.cancel(b.call)),
    ("Connected", connect_candidate),
    ("Connected from another port", |b| {
        let (conn, port) = b.candidate();
        b.feed(Event::Connected { conn, local_port: port.wrapping_add(1) });
    }),
    ("ConnectFailed Refused", |b| refuse(b, ConnectError::Refused)),
    ("ConnectFailed Reset", |b| refuse(b, ConnectError::Reset)),
    ("ConnectFailed TimedOut", |b| refuse(b, ConnectError::TimedOut)),
    ("ConnectFailed PortInUse", |b| refuse(b, ConnectError::PortInUse)),
    ("ConnectFailed PermissionDenied", |b| refuse(b, ConnectError::PermissionDenied)),
    ("ConnectFailed Unreachable", |b| refuse(b, ConnectError::Unreachable)),
    ("ConnectFailed Other", |b| refuse(b, ConnectError::Other)),
    ("Received NULL on candidate", prove_candidate),
    ("Received PROG_UNAVAIL on candidate", |b| b.reply(b.candidate().0, b.null, ReplyStatus::ProgUnavail)),
    ("Received stray on candidate", |b| b.reply(b.candidate().0, b.null ^ 1, ReplyStatus::Success)),
    ("Closed candidate Reset", |b| b.feed(Event::Closed { conn: b.candidate().0, how: CloseReason::Reset })),
    ("Received reply", |b| b.reply(b.current(), b.call, ReplyStatus::Success)),
    ("Received in-band NULL", |b| b.reply(b.current(), b.inband, ReplyStatus::Success)),
    ("Received stray", |b| b.feed(Event::Received { conn: b.current(), xid: 7, reply: Bytes::new() })),
    ("Progress", |b| b.feed(Event::Progress { conn: b.current() })),
    ("Closed Fin", |b| b.feed(Event::Closed { conn: b.current(), how: CloseReason::Fin })),
    ("Closed Reset", |b| b.feed(Event::Closed { conn: b.current(), how: CloseReason::Reset })),
    ("Closed TimedOut", |b| b.feed(Event::Closed { conn: b.current(), how: CloseReason::TimedOut })),
    ("Closed Protocol", |b| b.feed(Event::Closed { conn: b.current(), how: CloseReason::Protocol })),
    ("AckState all acknowledged", |b| b.ack(None, 0)),
    ("AckState unacknowledged 50 ms", |b| b.ack(Some(50), 0)),
    ("AckState unacknowledged 1 s, retransmitted", |b| b.ack(Some(1000), 2)),
    ("Drained", |b| b.feed(Event::Drained { conn: b.current() })),
    ("Timer Retry", |b| b.fire(Timer::Retry)),
    ("Timer Attempt", |b| b.fire(Timer::Attempt)),
    ("Timer Suspicion", |b| b.fire(Timer::Suspicion)),
    ("Timer Evidence", |b| b.fire(Timer::Evidence)),
    ("Timer Drain", |b| b.fire(Timer::Drain)),
    ("a call's timeo", |b| {
        if let Some(at) = b.machine.calls.next_deadline() {
            b.now = at;
            b.machine.handle_timeout(at);
        }
    }),
    ("anything of an abandoned connection", |b| {
        b.feed(Event::Connected { conn: STRANGER, local_port: 700 });
        b.feed(Event::ConnectFailed { conn: STRANGER, error: ConnectError::Refused });
        b.reply(STRANGER, b.call, ReplyStatus::Success);
        b.feed(Event::Progress { conn: STRANGER });
        b.feed(Event::Closed { conn: STRANGER, how: CloseReason::Reset });
        b.feed(Event::AckState { conn: STRANGER, ack: AckState::default() });
        b.feed(Event::Drained { conn: STRANGER });
    }),
];

fn connect_candidate(b: &mut Bench) {
    let (conn, local_port) = b.candidate();
    b.feed(Event::Connected { conn, local_port });
}

fn refuse(b: &mut Bench, error: ConnectError) {
    b.feed(Event::ConnectFailed { conn: b.candidate().0, error });
}

fn prove_candidate(b: &mut Bench) {
    b.reply(b.candidate().0, b.null, ReplyStatus::Success);
}

/// A connection that has lasted long enough for its end to be no fault of the attempt that made it.
fn ready(config: Config) -> Bench {
    let mut bench = just_proven(config);
    bench.now += Duration::from_secs(2);
    bench
}

fn just_proven(config: Config) -> Bench {
    let mut bench = Bench::new(config);
    bench.machine.connect(bench.now);
    bench.output();
    connect_candidate(&mut bench);
    bench.output();
    prove_candidate(&mut bench);
    bench.output();
    bench
}

fn owing(config: Config) -> Bench {
    let mut bench = ready(config);
    bench.make_call();
    bench.output();
    bench
}

fn suspect(config: Config) -> Bench {
    let mut bench = owing(config);
    bench.fire(Timer::Suspicion);
    bench.output();
    bench
}

fn after(mut bench: Bench, steps: &[Step]) -> Bench {
    for step in steps {
        step(&mut bench);
        bench.output();
    }
    bench
}

/// Every state, each under the name of what is in it.
fn states() -> Vec<(&'static str, Start)> {
    const PROVEN: [Step; 2] = [connect_candidate, prove_candidate];
    const DEAD: Step = |b| b.ack(Some(1000), 2);
    const START: Step = |b| b.machine.connect(b.now);
    const REFUSED: Step = |b| refuse(b, ConnectError::Refused);
    vec![
        ("Idle", || Bench::new(fresh())),
        ("Connecting", || after(Bench::new(fresh()), &[START])),
        ("Connecting, with a call", || after(Bench::new(fresh()), &[START, Bench::make_call])),
        ("Proving", || after(Bench::new(fresh()), &[START, connect_candidate])),
        ("BackingOff", || after(Bench::new(fresh()), &[START, REFUSED])),
        ("Connecting again, with a call", || {
            after(owing(fresh()), &[|b| b.feed(Event::Closed { conn: b.current(), how: CloseReason::Reset })])
        }),
        ("Ready, just proven", || just_proven(fresh())),
        ("Ready", || ready(fresh())),
        ("Ready, with a call", || owing(fresh())),
        ("Suspect, race connecting", || suspect(fresh())),
        ("Suspect, race proving", || after(suspect(fresh()), &[connect_candidate])),
        ("Suspect, race proven", || after(suspect(fresh()), &PROVEN)),
        ("Suspect for long, race proven", || {
            after(after(suspect(fresh()), &PROVEN), &[|b| b.now += STUCK_AFTER])
        }),
        ("Suspect, race backing off", || after(suspect(fresh()), &[REFUSED])),
        ("Suspect, same port", || suspect(Config::default())),
        ("Draining, race proven", || after(after(suspect(fresh()), &PROVEN), &[DEAD])),
        ("Draining, race lost", || {
            let lost: Step = |b| b.feed(Event::Closed { conn: b.candidate().0, how: CloseReason::Reset });
            after(after(suspect(fresh()), &PROVEN), &[DEAD, lost])
        }),
        ("Draining as stuck", || {
            after(after(suspect(fresh()), &PROVEN), &[|b| b.now += STUCK_AFTER, |b| b.ack(None, 0)])
        }),
        ("Draining as stuck, something was read", || {
            let read: Step = |b| b.feed(Event::Progress { conn: b.current() });
            after(after(suspect(fresh()), &PROVEN), &[|b| b.now += STUCK_AFTER, |b| b.ack(None, 0), read])
        }),
        ("Draining, same port", || after(suspect(Config::default()), &[DEAD])),
        ("Failed", || after(Bench::new(fresh()), &[START, |b| refuse(b, ConnectError::PermissionDenied)])),
    ]
}

#[test]
fn every_state_with_every_event() {
    let mut table = String::new();
    for (name, state) in states() {
        let _ = writeln!(table, "\n{name}: {}", state().summary());
        for (event, step) in EVENTS {
            let mut bench = state();
            let before = bench.summary();
            step(&mut bench);
            let output = bench.output();
            let after = bench.summary();
            if output.is_empty() && before == after {
                continue;
            }
            let state = if before == after { "unchanged" } else { &after };
            let _ = writeln!(table, "  {event} -> {state}: {}", output.trim_end_matches("; "));
        }
    }
    insta::with_settings!({ description => "State: event -> state [timers]: output. Events not listed change nothing." }, {
        insta::assert_snapshot!(table);
    });
}

#[test]
fn no_event_leaves_a_timeout_in_the_past() {
    for (name, state) in states() {
        for (event, step) in EVENTS {
            let mut bench = state();
            step(&mut bench);
            bench.machine.handle_timeout(bench.now);
            let next = bench.machine.poll_timeout();
            assert!(next.is_none_or(|at| at > bench.now), "{name}, {event}");
        }
    }
}
