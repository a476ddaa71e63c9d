//! The reply cache between sockets and procedures: [`remoor_nfs::replay`] decides, this module asks and carries out.
//!
//! The cache is spread over shards by call, so that calls seldom wait for each other's lock. No lock is held while
//! something is sent or executed.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use remoor_nfs::replay::{
    self, Action, Caller, ClientId, Config, ConnectionId, Counters, Key, Ticket, Verdict, is_kept,
};
use remoor_rpc::message::Call;
use remoor_rpc::xdr::Writer;

use crate::net::{Answer, End, How, Kind, Origin, Outbox, Standing};
use crate::service::head;
use crate::state::State;

/// Caches that share the limits of [`Config`].
const SHARDS: usize = 16;

/// A call that may have to wait: what is needed to execute it later, and to count it.
struct Held {
    connection: u64,
    client: IpAddr,
    received: Instant,
    called: (u32, u32),
    record: Bytes,
    kind: Kind,
}

type Shard = replay::ReplyCache<Held>;

/// Replies to calls that must not be executed twice.
pub(crate) struct Replies {
    shards: [Mutex<Shard>; SHARDS],
    state: Arc<State>,
    seed: u64,
    outbox: OnceLock<Outbox>,
}

impl Replies {
    /// Of a server in which so many threads execute calls.
    pub(crate) fn new(state: Arc<State>, workers: usize) -> Self {
        // All that execute may be of one shard.
        let config = Config { running: workers, ..Config::default().shared_by(SHARDS) };
        Self {
            state,
            shards: std::array::from_fn(|_| Mutex::new(Shard::new(config))),
            // Nobody else can prepare calls whose keys collide.
            seed: RandomState::new().hash_one(std::process::id()),
            outbox: OnceLock::new(),
        }
    }

    /// The network runs.
    pub(crate) fn started(&self, outbox: Outbox) {
        let _ = self.outbox.set(outbox);
    }

    /// Executes a call unless that was done. `execute` writes the reply and tells whether the call was accepted and
    /// successful at the RPC level; only such a reply is kept.
    pub(crate) fn serve(
        &self,
        origin: &Origin,
        kind: impl FnOnce(&[u8]) -> Kind,
        record: Bytes,
        call: Call,
        reply: &mut Writer,
        execute: impl FnOnce(Call, &mut Writer) -> bool,
    ) -> Answer {
        if let Some(number) = origin.ticket {
            let (shard, ticket, _) = split(number);
            return self.execute(shard, ticket, call, reply, execute);
        }
        let Some(key) = self.key(origin, &call) else {
            execute(call, reply);
            return Answer::Now;
        };
        let shard = key.shard(SHARDS);
        let caller = Caller { conn: ConnectionId(origin.connection), port: origin.peer.port() };
        let held = Held {
            connection: origin.connection,
            client: origin.peer.ip(),
            received: Instant::now(),
            called: (call.header.program, call.header.procedure),
            kind: kind(&record),
            record,
        };
        match self.step(shard, |cache, now| cache.call(now, caller, key, held, &|c| self.standing(c))) {
            Verdict::Execute(ticket, _) => self.execute(shard, ticket, call, reply, execute),
            Verdict::Replay(ticket, kept) => {
                reply.encoded(kept);
                Answer::Tell(number(shard, ticket, Made::Before))
            }
            Verdict::Wait => Answer::Later,
            Verdict::Awaited => Answer::Never,
            Verdict::Refuse(_) => Answer::Reset,
        }
    }

    /// This reply, of [`Answer::Tell`], ends here.
    pub(crate) fn told(&self, origin: &Origin, number: u64, reply: &Writer, end: u64) {
        let (shard, ticket, made) = split(number);
        if made == Made::Before {
            return self.locked(shard).sent(ticket, ConnectionId(origin.connection), end);
        }
        let kept = copy(reply);
        self.step(shard, |cache, now| cache.finish(now, ticket, kept, Some(end), &|c| self.standing(c)));
    }

    /// A call that was held was to be executed, and is not: whoever waits for its reply is next.
    pub(crate) fn dropped(&self, number: u64) {
        let (shard, ticket, _) = split(number);
        self.step(shard, |cache, now| cache.abandon(now, ticket, &|c| self.standing(c)));
    }

    /// A connection ended.
    pub(crate) fn ended(&self, connection: u64, end: End) {
        let end = ending(end);
        for shard in 0..SHARDS {
            let conn = ConnectionId(connection);
            self.step(shard, |cache, now| cache.ended(now, conn, end, &|c| self.standing(c)));
        }
    }

    /// Looks at what waits; when to do so again.
    pub(crate) fn tick(&self, now: Instant) -> Option<Instant> {
        for shard in 0..SHARDS {
            if self.locked(shard).poll_timeout().is_some_and(|at| at <= now) {
                self.step(shard, |cache, now| cache.handle_timeout(now, &|c| self.standing(c)));
            }
        }
        (0..SHARDS).filter_map(|shard| self.locked(shard).poll_timeout()).min()
    }

    /// Counts so far.
    pub(crate) fn counters(&self) -> Counters {
        (0..SHARDS).fold(Counters::default(), |sum, shard| sum.plus(&self.locked(shard).counters()))
    }

    /// `None` for a call that may be executed twice, or that is refused for its credential.
    fn key(&self, origin: &Origin, call: &Call) -> Option<Key> {
        let header = &call.header;
        if !is_kept(header.program, header.version, header.procedure) {
            return None;
        }
        let sys = header.credential.as_sys().transpose().ok()?;
        let who = sys.as_ref().map(|sys| (sys.uid, sys.gid));
        let name = sys.as_ref().map_or(&[][..], |sys| &sys.machine_name.0);
        let client = ClientId::new(origin.peer.ip(), name, self.seed);
        let program = [header.program, header.version, header.procedure];
        Some(Key::new(self.seed, client, call.xid, program, who, &call.args.rest()))
    }

    fn execute(
        &self,
        shard: usize,
        ticket: Ticket,
        call: Call,
        reply: &mut Writer,
        execute: impl FnOnce(Call, &mut Writer) -> bool,
    ) -> Answer {
        if !execute(call, reply) {
            self.step(shard, |cache, now| cache.abandon(now, ticket, &|c| self.standing(c)));
            return Answer::Now;
        }
        Answer::Tell(number(shard, ticket, Made::Now))
    }

    /// One step of a shard, and what follows from it.
    fn step<T>(&self, shard: usize, step: impl FnOnce(&mut Shard, Instant) -> T) -> T {
        let mut cache = self.locked(shard);
        let told = step(&mut cache, Instant::now());
        let actions: Vec<_> = std::iter::from_fn(|| cache.poll()).collect();
        drop(cache);
        actions.into_iter().for_each(|action| self.act(shard, action));
        told
    }

    fn act(&self, shard: usize, action: Action<Held>) {
        let Some(outbox) = self.outbox.get() else { return };
        match action {
            Action::Probe(conn) => outbox.probe(conn.0),
            Action::Replay { call, conn, ticket, reply } => {
                let mut w = Writer::with_capacity(reply.len());
                w.encoded(reply);
                if let Some(end) = outbox.send(conn.0, &w, true) {
                    self.locked(shard).sent(ticket, conn, end);
                    let bytes = (call.record.len(), w.len());
                    self.state.metrics.answered(call.client, call.called, head(&w), bytes, call.received);
                }
            }
            Action::Execute(ticket, held) => {
                let number = number(shard, ticket, Made::Now);
                if !outbox.execute(held.connection, held.record, held.kind, number) {
                    self.step(shard, |cache, now| cache.abandon(now, ticket, &|c| self.standing(c)));
                }
            }
        }
    }

    fn standing(&self, conn: ConnectionId) -> replay::Standing {
        match self.outbox.get().map(|outbox| outbox.standing(conn.0)) {
            Some(Standing::Open { acked, retransmits, silent }) => {
                replay::Standing::Open { acked, retransmits, silent }
            }
            Some(Standing::Ended(end)) => replay::Standing::Ended(ending(end)),
            Some(Standing::Gone) | None => replay::Standing::Gone,
        }
    }

    /// A panic under the lock is a bug of the cache, which is consistent between its steps.
    fn locked(&self, shard: usize) -> MutexGuard<'_, Shard> {
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ending(end: End) -> replay::End {
    let how = match end.how {
        How::Clean => replay::How::Clean,
        How::Reset => replay::How::Reset,
        How::TimedOut => replay::How::TimedOut,
        How::Closed => replay::How::Unknown,
    };
    replay::End { how, acked: end.acked }
}

/// When a reply was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    /// For this call, and the cache does not have it yet.
    Now,
    Before,
}

/// A ticket of any shard as a number.
fn number(shard: usize, ticket: Ticket, made: Made) -> u64 {
    (ticket.number() * SHARDS as u64 + shard as u64) << 1 | u64::from(made == Made::Before)
}

fn split(number: u64) -> (usize, Ticket, Made) {
    let (made, of_shard) = (if number & 1 == 0 { Made::Now } else { Made::Before }, number >> 1);
    ((of_shard % SHARDS as u64) as usize, Ticket::from_number(of_shard / SHARDS as u64), made)
}

/// The reply as it stands, in memory of its own.
fn copy(reply: &Writer) -> Bytes {
    let (segments, tail) = reply.parts();
    let mut bytes = Vec::with_capacity(reply.len());
    segments.iter().for_each(|segment| bytes.extend_from_slice(segment));
    bytes.extend_from_slice(tail);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_names_its_shard() {
        for (shard, ticket, made) in [(0, 0, Made::Now), (15, 0, Made::Before), (7, 1 << 50, Made::Now)] {
            assert_eq!(
                split(number(shard, Ticket::from_number(ticket), made)),
                (shard, Ticket::from_number(ticket), made)
            );
        }
    }

    #[test]
    fn a_reply_is_copied_whole() {
        let mut w = Writer::new();
        w.u32(1);
        w.opaque(&Bytes::from(vec![2; 5000]));
        w.u32(3);
        assert_eq!(copy(&w), w.into_bytes());
    }
}
