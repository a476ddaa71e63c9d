//! Whether an equal call on another connection is the same call, by what is known of the connection that was answered.

use std::time::{Duration, Instant};

use super::config::{
    Config, HEARD_AFTER, HOLD_LIMIT, HOLD_LOOK, PROBE_ANSWER, PROBE_EVERY, PROBE_IDLE, REPEATS, RETRANSMITS,
};
use super::entry::{Entry, State};

/// A connection of the server. Never used twice by one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Both sides closed, and nothing was lost: the client's FIN was read and no RST came.
    Clean,
    /// A RST, by either side.
    Reset,
    /// The kernel gave up retransmitting or probing.
    TimedOut,
    /// The client made a new connection of the same addresses and ports.
    Superseded,
    /// By the server, or nobody knows how.
    Unknown,
}

/// The end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// How.
    pub how: How,
    /// Bytes of replies, record marks included, that the peer acknowledged over the connection's life.
    pub acked: u64,
}

/// What the kernel knows of a connection now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Neither end was seen, and the socket has no error.
    Open {
        /// Bytes of replies, record marks included, that the *client* acknowledged; `None` through a relay, whose
        /// acknowledgement says nothing of the client.
        acked: Option<u64>,
        /// Retransmissions and probes in a row without an answer (Linux: `tcpi_retransmits`, `tcpi_probes`).
        retransmits: u32,
        /// Time since its TCP was last heard (Linux: `tcpi_last_ack_recv`).
        silent: Duration,
    },
    /// It is gone.
    Ended(End),
    /// It is gone, and its end is about to be told, or was before the call began.
    Gone,
}

/// A call to be judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    pub(super) now: Instant,
    /// When it came, or when the reply was there if that was later.
    pub(super) since: Instant,
    /// How often it came since then.
    pub(super) asked: u32,
    /// There is no room to wait for more evidence.
    pub(super) forced: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// The same call, and its client may not have the reply. `inferred`: no end of the connection was seen.
    Replay { inferred: bool },
    /// Another call. `settled`: nobody will ask for the reply again.
    New { settled: bool },
    /// To be looked at again, then or when something happens.
    Look(Option<Instant>),
    /// Likewise; until then the connection that was answered is to be probed.
    Probe(Instant),
}

/// The table of the module's documentation, for a call on a connection that has not asked for this entry before.
pub(super) fn judge(config: &Config, entry: &Entry, standing: Standing, question: Question) -> Judgement {
    if matches!(entry.state, State::Running) {
        return Judgement::Look(None);
    }
    match standing {
        Standing::Ended(end) if is_settled(entry, end) => Judgement::New { settled: true },
        Standing::Ended(_) => Judgement::Replay { inferred: false },
        Standing::Gone => gone(question),
        Standing::Open { acked, silent, .. } if has_reached(entry, acked) => {
            received(config, silent, question)
        }
        Standing::Open { retransmits, .. } => unacknowledged(retransmits, question),
    }
}

/// Whether nobody will ask for the reply again.
pub(super) fn is_settled(entry: &Entry, end: End) -> bool {
    end.how == How::Clean && has_reached(entry, Some(end.acked))
}

/// Whether the reply is among the bytes that were acknowledged.
pub(super) fn has_reached(entry: &Entry, acked: Option<u64>) -> bool {
    entry.end.zip(acked).is_some_and(|(end, acked)| acked >= end)
}

/// Its end, if it is still to come, tells whether it was clean.
fn gone(question: Question) -> Judgement {
    let late = question.since + HOLD_LOOK;
    if question.forced || question.now >= late {
        return Judgement::Replay { inferred: false };
    }
    Judgement::Look(Some(late))
}

/// A client that lives answers a probe. The kernel of one that does not, or no longer knows the connection, resets it, or
/// nothing comes back from a host that is gone.
fn received(config: &Config, silent: Duration, question: Question) -> Judgement {
    let Question { now, since, forced, .. } = question;
    let ripe = since + config.grace;
    let lives = now.saturating_duration_since(since) >= silent + HEARD_AFTER.min(config.grace);
    let mute = now >= since + PROBE_ANSWER && silent >= PROBE_IDLE + PROBE_ANSWER;
    match (forced || lives, mute) {
        (true, _) if forced || now >= ripe => Judgement::New { settled: false },
        (true, _) => Judgement::Look(Some(ripe)),
        (false, true) => Judgement::Replay { inferred: true },
        (false, false) => Judgement::Probe(now + PROBE_EVERY),
    }
}

fn unacknowledged(retransmits: u32, question: Question) -> Judgement {
    let limit = question.since + HOLD_LIMIT;
    let given_up = question.forced || question.now >= limit;
    if retransmits >= RETRANSMITS || question.asked > REPEATS || given_up {
        return Judgement::Replay { inferred: true };
    }
    Judgement::Look(Some(limit.min(question.now + HOLD_LOOK)))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::key::{ClientId, Key};
    use super::super::tests::epoch;
    use super::*;

    const END: u64 = 100;

    fn entry(state: State, end: Option<u64>) -> Entry {
        let client = ClientId::new([192, 0, 2, 1].into(), b"host", 0);
        let key = Key::new(0, client, 1, [100_003, 3, 12], None, b"");
        Entry { state, end, ..Entry::new(epoch(), key, ConnectionId(1), 700) }
    }

    fn open(acked: Option<u64>, retransmits: u32) -> Standing {
        Standing::Open { acked, retransmits, silent: Duration::ZERO }
    }

    fn silent(time: Duration) -> Standing {
        Standing::Open { acked: Some(END), retransmits: 0, silent: time }
    }

    fn ended(how: How, acked: u64) -> Standing {
        Standing::Ended(End { how, acked })
    }

    fn told(state: State, end: Option<u64>, standing: Standing, waited: Duration, asked: u32) -> Judgement {
        let since = epoch();
        judge(
            &Config::default(),
            &entry(state, end),
            standing,
            Question { now: since + waited, since, asked, forced: false },
        )
    }

    #[test]
    fn every_row() {
        let ms = Duration::from_millis;
        let grace = Config::default().grace;
        let replay = |inferred| (Some(Judgement::Replay { inferred }), "replay");
        let new = |settled| (Some(Judgement::New { settled }), "new work");
        let held = (None, "held");
        for (standing, waited, asked, (expected, name)) in [
            (ended(How::Reset, END), ms(0), 1, replay(false)),
            (ended(How::TimedOut, END), ms(0), 1, replay(false)),
            (ended(How::Superseded, END), ms(0), 1, replay(false)),
            (ended(How::Unknown, END), ms(0), 1, replay(false)),
            (ended(How::Clean, END - 1), ms(0), 1, replay(false)),
            (ended(How::Clean, END), ms(0), 1, new(true)),
            (open(Some(END), 0), ms(0), 1, held),
            (silent(grace), grace, 1, held),
            (silent(grace - HEARD_AFTER), grace, 1, new(false)),
            (silent(PROBE_IDLE * 60), PROBE_ANSWER - ms(1), 1, held),
            (silent(PROBE_IDLE * 60), PROBE_ANSWER, 1, replay(true)),
            (silent(PROBE_IDLE), PROBE_ANSWER, 1, held),
            (silent(PROBE_IDLE + PROBE_ANSWER), PROBE_IDLE + PROBE_ANSWER, 1, replay(true)),
            (open(Some(END), 0), grace, 1, new(false)),
            (open(Some(END), 0), ms(0), 9, held),
            (open(Some(END), 9), grace, 1, new(false)),
            (open(Some(END - 1), 0), grace, 1, held),
            (open(Some(END - 1), RETRANSMITS - 1), ms(0), 1, held),
            (open(Some(END - 1), RETRANSMITS), ms(0), 1, replay(true)),
            (open(Some(END - 1), 0), ms(0), REPEATS, held),
            (open(Some(END - 1), 0), ms(0), REPEATS + 1, replay(true)),
            (Standing::Gone, ms(0), 1, held),
            (Standing::Gone, HOLD_LOOK, 1, replay(false)),
            (open(None, 0), grace, 1, held),
            (open(None, 0), HOLD_LIMIT - ms(1), 1, held),
            (open(None, 0), HOLD_LIMIT, 1, replay(true)),
        ] {
            let got = told(State::Done(Bytes::new()), Some(END), standing, waited, asked);
            match expected {
                Some(expected) => assert_eq!(got, expected, "{standing:?} {waited:?} {asked}: {name}"),
                None => assert!(
                    matches!(got, Judgement::Look(Some(_)) | Judgement::Probe(_)),
                    "{standing:?} {waited:?}: {got:?}"
                ),
            }
        }
    }

    #[test]
    fn nothing_is_decided_before_the_reply_is_there() {
        for standing in [ended(How::Reset, 0), ended(How::Clean, END), open(Some(END), 9)] {
            let got = told(State::Running, None, standing, HOLD_LIMIT, REPEATS + 1);
            assert_eq!(got, Judgement::Look(None), "{standing:?}");
        }
    }

    #[test]
    fn a_reply_that_was_never_sent_is_not_acknowledged() {
        let done = || State::Done(Bytes::new());
        let replay = Judgement::Replay { inferred: false };
        assert_eq!(told(done(), None, ended(How::Clean, u64::MAX), Duration::ZERO, 1), replay);
        let got = told(done(), None, open(Some(u64::MAX), 0), Config::default().grace, 1);
        assert!(matches!(got, Judgement::Look(Some(_))), "{got:?}");
    }

    #[test]
    fn a_held_call_is_looked_at_again_soon_and_never_after_its_limit() {
        let look = |waited| told(State::Done(Bytes::new()), Some(END), open(None, 0), waited, 1);
        assert_eq!(look(Duration::ZERO), Judgement::Look(Some(epoch_of(HOLD_LOOK))));
        assert_eq!(look(HOLD_LIMIT - Duration::from_millis(1)), Judgement::Look(Some(epoch_of(HOLD_LIMIT))));
    }

    fn epoch_of(after: Duration) -> Instant {
        epoch() + after
    }
}
