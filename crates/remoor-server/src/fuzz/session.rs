//! Sequences of calls over connections that come and go, with the reply cache, without sockets.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use remoor_rpc::xdr::Writer;

use super::{PEER, service};
use crate::net::{Answer, ConnectionId, End, How, Kind, Network, Origin, Outbox, Service, Standing};
use crate::service::NfsService;

/// What became of a call at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Served {
    /// This reply was sent.
    Reply(Bytes),
    /// Its reply is to come by [`Session::later`].
    Later,
    /// The reply to an equal call of this connection, which is to come, is this one's too.
    Never,
    /// The connection was closed.
    Closed,
}

/// A server of a small, empty memory export at `/x`, and the connections to it.
pub struct Session {
    service: NfsService,
    wires: Arc<Wires>,
    last: ConnectionId,
}

impl Session {
    /// `None` cannot be: the export is a good one.
    pub fn new() -> Option<Self> {
        let (service, wires) = (service()?, Arc::<Wires>::default());
        let network: Weak<dyn Network> = Arc::<Wires>::downgrade(&wires);
        service.started(Outbox::new(network));
        Some(Self { service, wires, last: 0 })
    }

    /// A new connection of the one client there is.
    pub fn connect(&mut self) -> u64 {
        self.last += 1;
        self.wires.locked().open.insert(self.last, 0);
        self.last
    }

    /// Serves a record that came over an open connection.
    pub fn serve(&self, connection: u64, record: &[u8]) -> Served {
        self.execute(connection, Bytes::copy_from_slice(record), None)
    }

    fn execute(&self, connection: u64, record: Bytes, ticket: Option<u64>) -> Served {
        let origin = Origin { connection, peer: PEER, is_client: true, ticket };
        let mut reply = Writer::new();
        let answer = self.service.serve(&origin, record, &mut reply);
        match answer {
            Ok(answer @ (Answer::Now | Answer::Tell(_))) => {
                let end = self.wires.sent(connection, reply.len());
                if let Answer::Tell(ticket) = answer {
                    self.service.told(&origin, ticket, &reply, end);
                }
                Served::Reply(remoor_rpc::xdr::contiguous(reply.finish()))
            }
            Ok(Answer::Later) => Served::Later,
            Ok(Answer::Never) => Served::Never,
            Ok(Answer::Reset) | Err(_) => {
                self.end(connection, false);
                Served::Closed
            }
        }
    }

    /// Executes what was held and may go on; the replies sent meanwhile, with their connections.
    pub fn later(&self) -> Vec<(u64, Bytes)> {
        loop {
            let next = self.wires.locked().held.pop_front();
            let Some((connection, record, ticket)) = next else { break };
            if let Served::Reply(reply) = self.execute(connection, record, Some(ticket)) {
                self.wires.locked().replies.push((connection, reply));
            }
        }
        std::mem::take(&mut self.wires.locked().replies)
    }

    /// A connection ends: cleanly, with everything acknowledged, or by a RST.
    pub fn end(&self, connection: u64, clean: bool) {
        let sent = self.wires.locked().open.remove(&connection);
        let end = match (sent, clean) {
            (None, _) => return,
            (Some(acked), true) => End { how: How::Clean, acked },
            (Some(_), false) => End { how: How::Reset, acked: 0 },
        };
        let mut lines = self.wires.locked();
        let (dropped, held) = lines.held.drain(..).partition(|(owner, ..)| *owner == connection);
        lines.held = held;
        drop(lines);
        VecDeque::into_iter(dropped).for_each(|(_, _, ticket)| self.service.dropped(ticket));
        self.service.ended(connection, end);
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("connections", &self.wires.locked().open).finish_non_exhaustive()
    }
}

/// The network of a [`Session`]: a client acknowledges what it is sent.
#[derive(Default)]
struct Wires(Mutex<Lines>);

#[derive(Default)]
struct Lines {
    /// Bytes sent over each.
    open: BTreeMap<ConnectionId, u64>,
    held: VecDeque<(ConnectionId, Bytes, u64)>,
    replies: Vec<(ConnectionId, Bytes)>,
}

impl Wires {
    fn locked(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sent(&self, to: ConnectionId, bytes: usize) -> u64 {
        let mut lines = self.locked();
        let sent = lines.open.entry(to).or_default();
        *sent += (bytes + remoor_rpc::record::HEADER) as u64;
        *sent
    }
}

impl Network for Wires {
    fn send(&self, to: ConnectionId, reply: &Writer, _: bool) -> Option<u64> {
        if !self.locked().open.contains_key(&to) {
            return None;
        }
        let (segments, tail) = reply.parts();
        let message = segments.iter().flat_map(|segment| segment.iter()).chain(tail).copied().collect();
        self.locked().replies.push((to, message));
        Some(self.sent(to, reply.len()))
    }

    fn execute(&self, connection: ConnectionId, record: Bytes, _: Kind, ticket: u64) -> bool {
        let mut lines = self.locked();
        let is_open = lines.open.contains_key(&connection);
        if is_open {
            lines.held.push_back((connection, record, ticket));
        }
        is_open
    }

    fn standing(&self, connection: ConnectionId) -> Standing {
        let acked = self.locked().open.get(&connection).copied();
        acked.map_or(Standing::Gone, |acked| Standing::Open {
            acked: Some(acked),
            retransmits: 0,
            silent: Duration::ZERO,
        })
    }

    fn local_ip(&self, _: ConnectionId) -> Option<IpAddr> {
        None
    }

    fn probe(&self, _: ConnectionId) {}
}
