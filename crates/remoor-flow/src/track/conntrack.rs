//! TCP connection tracking as Linux does it.
//!
//! Source: `nf_conntrack_tcp_packet`, `tcp_new` and `tcp_in_window` of
//! `net/netfilter/nf_conntrack_proto_tcp.c`, with `nf_conntrack_tcp_loose=1`. Receive windows are not
//! modelled: a segment with the wrong numbers, other than a RST, counts as a good one.

use super::{Connection, Effect, Kind, Last, TcpState, after};
use crate::config::StateTimers;
use crate::packet::{Direction, Segment};
use TcpState::*;

/// `nf_conntrack_tcp_max_retrans`.
const MAX_RETRANSMISSIONS: u32 = 3;

/// What the state table says of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// It moves the connection to this state, or keeps it there.
    To(TcpState),
    /// It passes and changes neither state nor timer: the tracking may be out of step with the two ends.
    Ignore,
    /// It fits no connection.
    Invalid,
}

use Next::{Ignore, To};

/// For one kind of segment: from these states, this follows. What is not listed is invalid.
type Row = &'static [(&'static [TcpState], Next)];

const CLIENT_SYN: Row = &[
    (&[New, SynSent, TimeWait, Close], To(SynSent)),
    (&[SynRecv, Established, FinWait, CloseWait, LastAck], Ignore),
    (&[SynSent2], To(SynSent2)),
];
const CLIENT_SYN_ACK: Row = &[(&[SynRecv, SynSent2], To(SynRecv))];
const CLIENT_ACK: Row = &[
    (&[New, SynRecv, Established], To(Established)),
    (&[FinWait, CloseWait], To(CloseWait)),
    (&[LastAck, TimeWait], To(TimeWait)),
    (&[Close], To(Close)),
];
const BACKEND_SYN: Row = &[(&[SynSent, SynSent2], To(SynSent2)), (&[TimeWait], To(SynSent))];
const BACKEND_SYN_ACK: Row = &[
    (&[SynSent, SynSent2], To(SynRecv)),
    (&[SynRecv, Established, FinWait, CloseWait, LastAck, TimeWait, Close], Ignore),
];
const BACKEND_ACK: Row = &[
    (&[SynSent, SynSent2], Ignore),
    (&[SynRecv], To(SynRecv)),
    (&[Established], To(Established)),
    (&[FinWait, CloseWait], To(CloseWait)),
    (&[LastAck, TimeWait], To(TimeWait)),
    (&[Close], To(Close)),
];
/// FIN and RST mean the same from either end.
const FIN: Row = &[
    (&[SynRecv, Established], To(FinWait)),
    (&[FinWait, CloseWait, LastAck], To(LastAck)),
    (&[TimeWait], To(TimeWait)),
    (&[Close], To(Close)),
];
const RST: Row =
    &[(&[SynSent, SynRecv, Established, FinWait, CloseWait, LastAck, TimeWait, Close, SynSent2], To(Close))];

fn lookup(state: TcpState, kind: Kind, from_client: bool) -> Next {
    let row = match (kind, from_client) {
        (Kind::Rst, _) => RST,
        (Kind::Fin, _) => FIN,
        (Kind::Syn, true) => CLIENT_SYN,
        (Kind::Syn, false) => BACKEND_SYN,
        (Kind::SynAck, true) => CLIENT_SYN_ACK,
        (Kind::SynAck, false) => BACKEND_SYN_ACK,
        (Kind::Ack, true) => CLIENT_ACK,
        (Kind::Ack, false) => BACKEND_ACK,
        (Kind::Other, _) => return Next::Invalid,
    };
    row.iter().find(|(states, _)| states.contains(&state)).map_or(Next::Invalid, |(_, next)| *next)
}

/// Whether a client's SYN may replace a connection in TIME_WAIT or CLOSE: it was closed by FIN, or the
/// client itself reset it. Else the SYN goes where the old connection went.
pub(super) fn reopens(connection: &Connection) -> bool {
    let reset_by_client = connection.last.is_some_and(|last| last.kind == Kind::Rst && last.from_client);
    connection.client.closing || connection.backend.closing || reset_by_client
}

pub(super) fn observe(
    connection: &mut Connection,
    timers: &StateTimers,
    syn_sent_refreshed: bool,
    segment: &Segment,
    from: Direction,
) -> Effect {
    let kind = Kind::of(segment.flags);
    let from_client = from == Direction::FromClient;
    let old = connection.state;
    let mut next = match lookup(old, kind, from_client) {
        Next::Invalid => return Effect::Invalid,
        Ignore if answers_ignored_syn(connection, segment, kind, from_client) => {
            resynchronize(connection);
            SynRecv
        }
        // A SYN on an ended connection that `reopens` did not allow to replace it.
        To(SynSent) if !matches!(old, New | SynSent) => {
            return ignore(connection, segment, kind, from_client);
        }
        Ignore => return ignore(connection, segment, kind, from_client),
        To(next) => next,
    };
    if old == LastAck && next == TimeWait && takes_challenge_ack(connection, kind, from_client) {
        return Effect::Pass { refresh: false };
    }
    if kind == Kind::Rst {
        match judge_rst(connection, segment, from_client) {
            Rst::Exact => {}
            Rst::Inexact => next = old,
            Rst::Old => return Effect::Invalid,
        }
    }
    accept(connection, segment, kind, from);
    advance(connection, timers, syn_sent_refreshed, next, kind, from)
}

/// A SYN/ACK to a SYN that was let through unheeded: both ends are in step, the entry was not.
fn answers_ignored_syn(connection: &Connection, segment: &Segment, kind: Kind, from_client: bool) -> bool {
    kind == Kind::SynAck
        && connection.last.is_some_and(|last| {
            last.kind == Kind::Syn && last.from_client != from_client && last.end == segment.ack
        })
}

fn resynchronize(connection: &mut Connection) {
    connection.state = SynSent;
    connection.client.end = connection.last.map(|last| last.end);
    connection.client.max_ack = None;
    connection.client.unacknowledged = false;
    connection.backend = super::Peer::default();
}

fn ignore(connection: &mut Connection, segment: &Segment, kind: Kind, from_client: bool) -> Effect {
    let challenge_ack_expected = kind == Kind::Syn && from_client && connection.state == LastAck;
    connection.last = Some(Last {
        kind,
        from_client,
        seq: segment.seq,
        ack: segment.ack,
        end: segment.end(),
        challenge_ack_expected,
    });
    connection.seen_reply |= !from_client;
    Effect::Pass { refresh: false }
}

/// In LAST_ACK, the backend's answer to an unheeded SYN is a challenge ACK (RFC 5961 section 4) and
/// acknowledges no FIN.
fn takes_challenge_ack(connection: &mut Connection, kind: Kind, from_client: bool) -> bool {
    match &mut connection.last {
        Some(last) if kind == Kind::Ack && last.kind == Kind::Syn && last.from_client != from_client => {
            std::mem::take(&mut last.challenge_ack_expected)
        }
        _ => false,
    }
}

/// How a RST fits the connection.
enum Rst {
    /// It ends the connection.
    Exact,
    /// Its receiver may answer with a challenge ACK: the state stays, the timer is that of CLOSE.
    Inexact,
    /// Its sequence number was acknowledged before.
    Old,
}

fn judge_rst(connection: &Connection, segment: &Segment, from_client: bool) -> Rst {
    let receiver = if from_client { &connection.backend } else { &connection.client };
    let Some(expected) = receiver.max_ack else { return Rst::Exact };
    let established = connection.state == Established && connection.assured;
    // Most likely the answer to a SYN that was let through unheeded.
    if segment.seq == 0 && !established {
        return Rst::Exact;
    }
    if after(expected, segment.seq) {
        return Rst::Old;
    }
    let follows_last_segment = connection.last.is_some_and(|last| {
        last.kind == Kind::Ack && last.from_client == from_client && last.end == segment.seq
    });
    match !established || segment.seq == expected || follows_last_segment {
        true => Rst::Exact,
        false => Rst::Inexact,
    }
}

/// Notes the numbers of a segment that is part of the connection.
fn accept(connection: &mut Connection, segment: &Segment, kind: Kind, from: Direction) {
    let from_client = from == Direction::FromClient;
    if kind != Kind::Rst {
        connection.note_numbers(segment, from);
    }
    let (seq, ack, end) = (segment.seq, segment.ack, segment.end());
    let same = connection
        .last
        .is_some_and(|last| (last.from_client, last.seq, last.ack, last.end) == (from_client, seq, ack, end));
    if kind == Kind::Ack {
        connection.retransmissions = if same { connection.retransmissions.saturating_add(1) } else { 0 };
    }
    connection.last = match connection.last {
        Some(last) if kind != Kind::Ack => Some(Last { kind, from_client, ..last }),
        _ => Some(Last { kind, from_client, seq, ack, end, challenge_ack_expected: false }),
    };
}

fn advance(
    connection: &mut Connection,
    timers: &StateTimers,
    syn_sent_refreshed: bool,
    next: TcpState,
    kind: Kind,
    from: Direction,
) -> Effect {
    let old = std::mem::replace(&mut connection.state, next);
    if old != next && next == FinWait {
        connection.peers_mut(from).0.closing = true;
    }
    let from_client = from == Direction::FromClient;
    if !connection.seen_reply {
        if kind == Kind::Rst {
            return Effect::Free;
        }
        if kind == Kind::Syn && old == SynSent && from_client && !syn_sent_refreshed {
            return Effect::Pass { refresh: false };
        }
    } else if matches!(old, SynRecv | Established) && next == Established {
        connection.assured = true;
    }
    connection.timeout = timeout(connection, timers, kind);
    connection.seen_reply |= !from_client;
    Effect::Pass { refresh: true }
}

/// The timer that a segment starts. Unanswered data and repeated retransmissions shorten it, so that the
/// entry of a dead connection does not last as long as that of an idle one.
fn timeout(connection: &Connection, timers: &StateTimers, kind: Kind) -> std::time::Duration {
    let of_state = timers.of(connection.state);
    let unanswered_pickup = !connection.seen_reply && connection.state == Established;
    if connection.retransmissions >= MAX_RETRANSMISSIONS {
        of_state.min(timers.retransmitted)
    } else if kind == Kind::Rst {
        timers.close
    } else if connection.client.unacknowledged || connection.backend.unacknowledged || unanswered_pickup {
        of_state.min(timers.unacknowledged)
    } else {
        of_state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [TcpState; 10] =
        [New, SynSent, SynRecv, Established, FinWait, CloseWait, LastAck, TimeWait, Close, SynSent2];

    fn grid() -> String {
        let kinds = [Kind::Syn, Kind::SynAck, Kind::Ack, Kind::Fin, Kind::Rst, Kind::Other];
        let mut lines = vec![];
        for (end, from_client) in [("client", true), ("backend", false)] {
            for kind in kinds {
                let cells: Vec<_> =
                    STATES.iter().map(|state| cell(lookup(*state, kind, from_client))).collect();
                lines.push(format!("{end} {kind:?}: {}", cells.join(" ")));
            }
        }
        lines.join("\n")
    }

    fn cell(next: Next) -> String {
        match next {
            Ignore => "ignore".into(),
            Next::Invalid => "-".into(),
            To(state) => format!("{state:?}"),
        }
    }

    /// Columns: New, SynSent, SynRecv, Established, FinWait, CloseWait, LastAck, TimeWait, Close, SynSent2.
    #[test]
    fn every_state_and_segment() {
        let expected = "\
client Syn: SynSent SynSent ignore ignore ignore ignore ignore SynSent SynSent SynSent2
client SynAck: - - SynRecv - - - - - - SynRecv
client Ack: Established - Established Established CloseWait CloseWait TimeWait TimeWait Close -
client Fin: - - FinWait FinWait LastAck LastAck LastAck TimeWait Close -
client Rst: - Close Close Close Close Close Close Close Close Close
client Other: - - - - - - - - - -
backend Syn: - SynSent2 - - - - - SynSent - SynSent2
backend SynAck: - SynRecv ignore ignore ignore ignore ignore ignore ignore SynRecv
backend Ack: - ignore SynRecv Established CloseWait CloseWait TimeWait TimeWait Close ignore
backend Fin: - - FinWait FinWait LastAck LastAck LastAck TimeWait Close -
backend Rst: - Close Close Close Close Close Close Close Close Close
backend Other: - - - - - - - - - -";
        assert_eq!(grid(), expected);
    }
}
