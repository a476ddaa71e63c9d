//! The reply cache between sockets and procedures: [`remoor_nfs::replay`] decides, this module asks and carries out.
//!
//! The cache is spread over shards by call, so that calls seldom wait for each other's lock. No lock is held while
//! something is sent or executed.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use remoor_nfs::replay::{
    self, Action, Caller, ClientId, Config, ConnectionId, Counters, Key, Ticket, Verdict, is_kept,
};
use remoor_rpc::message::Call;
use remoor_rpc::xdr::Writer;

use crate::net::{Answer, End, How, Kind, Origin, Outbox, Standing};

/// Caches that share the limits of [`Config`].
const SHARDS: usize = 16;

/// A call that may have to wait: its connection, and what is needed to execute it later.
struct Held {
    connection: u64,
    record: Bytes,
    kind: Kind,
}

type Shard = replay::ReplyCache<Held>;

/// Replies to calls that must not be executed twice.
pub(crate) struct Replies {
    shards: [Mutex<Shard>; SHARDS],
    seed: u64,
    outbox: OnceLock<Outbox>,
}

impl Replies {
    pub(crate) fn new() -> Self {
        let config = Config::default().shared_by(SHARDS);
        Self {
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
            return self.execute(number, call, reply, execute);
        }
        let Some(key) = self.key(origin, &call) else {
            execute(call, reply);
            return Answer::Now;
        };
        let shard = key.shard(SHARDS);
        let caller = Caller { conn: ConnectionId(origin.connection), port: origin.peer.port() };
        let held = Held { connection: origin.connection, kind: kind(&record), record };
        match self.step(shard, |cache, now| cache.call(now, caller, key, held, &|c| self.standing(c))) {
            Verdict::Execute(ticket, _) => self.execute(number(shard, ticket), call, reply, execute),
            Verdict::Replay(ticket, kept) => {
                reply.encoded(kept);
                Answer::Tell(number(shard, ticket))
            }
            Verdict::Wait => Answer::Later,
            Verdict::Awaited => Answer::Never,
            Verdict::Refuse(_) => Answer::Reset,
        }
    }

    /// The reply of [`Answer::Tell`] ends here.
    pub(crate) fn told(&self, origin: &Origin, number: u64, end: u64) {
        let (shard, ticket) = split(number);
        self.locked(shard).sent(ticket, ConnectionId(origin.connection), end);
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
        number: u64,
        call: Call,
        reply: &mut Writer,
        execute: impl FnOnce(Call, &mut Writer) -> bool,
    ) -> Answer {
        let (shard, ticket) = split(number);
        if !execute(call, reply) {
            self.step(shard, |cache, now| cache.abandon(now, ticket, &|c| self.standing(c)));
            return Answer::Now;
        }
        let kept = copy(reply);
        self.step(shard, |cache, now| cache.finish(now, ticket, kept, None, &|c| self.standing(c)));
        Answer::Tell(number)
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
            Action::Replay { conn, ticket, reply } => {
                let mut w = Writer::with_capacity(reply.len());
                w.encoded(reply);
                if let Some(end) = outbox.send(conn.0, &w, true) {
                    self.locked(shard).sent(ticket, conn, end);
                }
            }
            Action::Execute(ticket, held) => {
                let number = number(shard, ticket);
                if !outbox.execute(held.connection, held.record, held.kind, number) {
                    self.step(shard, |cache, now| cache.abandon(now, ticket, &|c| self.standing(c)));
                }
            }
        }
    }

    fn standing(&self, conn: ConnectionId) -> replay::Standing {
        match self.outbox.get().map(|outbox| outbox.standing(conn.0)) {
            Some(Standing::Open { acked, retransmits }) => replay::Standing::Open { acked, retransmits },
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

/// A ticket of any shard as a number.
fn number(shard: usize, ticket: Ticket) -> u64 {
    ticket.number() * SHARDS as u64 + shard as u64
}

fn split(number: u64) -> (usize, Ticket) {
    ((number % SHARDS as u64) as usize, Ticket::from_number(number / SHARDS as u64))
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
        for (shard, ticket) in [(0, 0), (15, 0), (7, 1 << 50)] {
            let (of, back) = split(number(shard, Ticket::from_number(ticket)));
            assert_eq!((of, back.number()), (shard, ticket));
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
