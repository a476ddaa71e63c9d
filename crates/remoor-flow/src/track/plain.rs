//! Handshake, close and reset, for balancers of whose tracking no more is known.

use super::{Connection, Effect, Kind, TcpState};
use crate::config::Config;
use crate::packet::{Direction, Segment};

pub(super) fn observe(
    connection: &mut Connection,
    config: &Config,
    segment: &Segment,
    from: Direction,
) -> Effect {
    let kind = Kind::of(segment.flags);
    let first_fin = connection.state != TcpState::FinWait;
    connection.state = next(connection, kind, from);
    if kind != Kind::Rst {
        connection.note_numbers(segment, from);
    }
    if kind == Kind::Fin && first_fin {
        connection.peers_mut(from).0.closing = true;
    }
    connection.timeout = config.timers.of(connection.state);
    Effect::Pass { refresh: true }
}

fn next(connection: &Connection, kind: Kind, from: Direction) -> TcpState {
    use TcpState::*;
    let other_end_closing = match from {
        Direction::FromClient => connection.backend.closing,
        Direction::FromBackend(_) => connection.client.closing,
    };
    match (connection.state, kind) {
        (_, Kind::Rst) => Close,
        (New, Kind::Syn) => SynSent,
        (SynSent, Kind::SynAck) => SynRecv,
        (FinWait, Kind::Fin) if other_end_closing => TimeWait,
        (New | SynSent | SynRecv | Established, Kind::Fin) => FinWait,
        (New | SynRecv, Kind::Ack | Kind::Other | Kind::SynAck) => Established,
        (state, _) => state,
    }
}
