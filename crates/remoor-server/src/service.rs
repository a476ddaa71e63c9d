//! From record to reply: the RPC rules of RFC 5531 around the tables of procedures.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use bytes::Bytes;
use remoor_rpc::auth::{AuthSys, Flavor, OpaqueAuth};
use remoor_rpc::message::{self, AuthStat, Call, Message, RPC_VERSION, ReplyStatus, begin_reply};
use remoor_rpc::program::{Procedure, Program};
use remoor_rpc::xdr::{self, Reader, Writer, Xdr};

use crate::metrics::HEAD;
use crate::net::{Answer, ConnectionId, End, Kind, Malformed, Origin, Outbox, Service};
use crate::replay::Replies;
use crate::state::State;
use crate::table::Table;
use crate::{mnt, v3};

/// A call as a procedure sees it.
pub(crate) struct Request<'a> {
    /// What the server is and has.
    pub(crate) state: &'a State,
    /// What is exported, during the whole call.
    pub(crate) table: &'a Table,
    /// Where the call comes from.
    pub(crate) peer: SocketAddr,
    /// Who calls; `None` is AUTH_NONE.
    pub(crate) credential: Option<AuthSys>,
}

/// A procedure that is served: the row of its table, bound to what executes it.
pub(crate) struct Row {
    name: &'static str,
    number: u32,
    run: Run,
}

type Run = Box<dyn Fn(&Request<'_>, Reader, &mut Writer) -> xdr::Result<()> + Send + Sync>;

/// Binds procedure `P` to its handler.
pub(crate) fn row<P: Procedure>(handle: fn(&Request<'_>, P::Args) -> P::Res) -> Row {
    bound::<P>(move |request, args, w| handle(request, args).encode(w))
}

/// Binds procedure `P` to a handler that writes the result, which must be a `P::Res`.
pub(crate) fn written_row<P: Procedure>(handle: fn(&Request<'_>, P::Args, &mut Writer)) -> Row {
    bound::<P>(handle)
}

fn bound<P: Procedure>(handle: impl Fn(&Request<'_>, P::Args, &mut Writer) + Send + Sync + 'static) -> Row {
    let run = move |request: &Request<'_>, mut args: Reader, w: &mut Writer| {
        let decoded = P::Args::decode(&mut args)?;
        args.finish(P::NAME)?;
        handle(request, decoded, w);
        Ok(())
    };
    Row { name: P::NAME, number: P::NUMBER, run: Box::new(run) }
}

/// A program that is served.
struct Served {
    program: &'static Program,
    rows: Vec<Row>,
}

impl Served {
    fn new(program: &'static Program, rows: Vec<Row>) -> Self {
        let bound: Vec<u32> = rows.iter().map(|row| row.number).collect();
        let declared: Vec<u32> = program.procedures.iter().map(|row| row.number).collect();
        assert_eq!(bound, declared, "every procedure of {} has its handler, in order", program.name);
        Self { program, rows }
    }
}

/// Program and procedure of a call that cannot be read so far.
const UNKNOWN: (u32, u32) = (0, 0);

/// NFS and MOUNT on one port.
pub(crate) struct NfsService {
    state: Arc<State>,
    programs: [Served; 2],
    garbage: AtomicU64,
    replies: Replies,
}

impl NfsService {
    /// For so many threads.
    pub(crate) fn new(state: Arc<State>, workers: usize) -> Self {
        let programs = [
            Served::new(&remoor_nfs::v3::PROGRAM, v3::rows()),
            Served::new(&remoor_nfs::mnt::PROGRAM, mnt::rows()),
        ];
        let replies = Replies::new(state.clone(), workers);
        Self { state, programs, garbage: AtomicU64::new(0), replies }
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Calls whose arguments could not be decoded.
    pub(crate) fn garbage(&self) -> u64 {
        self.garbage.load(Relaxed)
    }

    /// What the reply cache did.
    pub(crate) fn replays(&self) -> remoor_nfs::replay::Counters {
        self.replies.counters()
    }

    /// Writes the reply; whether the call was successful at the RPC level.
    fn answer(&self, peer: SocketAddr, call: Call, w: &mut Writer) -> bool {
        let xid = call.xid;
        let done = self.find(&call).and_then(|row| self.execute(peer, call, row, w));
        if let Err(status) = &done {
            w.clear();
            begin_reply(w, xid, status);
        }
        done.is_ok()
    }

    fn find(&self, call: &Call) -> Result<&Row, ReplyStatus> {
        let number = call.header.program;
        let served = self.programs.iter().find(|s| s.program.number == number);
        let served = served.ok_or(ReplyStatus::ProgUnavail)?;
        let version = served.program.version;
        if call.header.version != version {
            return Err(ReplyStatus::ProgMismatch { low: version, high: version });
        }
        served.rows.get(call.header.procedure as usize).ok_or(ReplyStatus::ProcUnavail)
    }

    fn execute(&self, peer: SocketAddr, call: Call, row: &Row, w: &mut Writer) -> Result<(), ReplyStatus> {
        let credential = credential(&call.header.credential, row.number)?;
        let table = self.state.table();
        let request = Request { state: &self.state, table: &table, peer, credential };
        begin_reply(w, call.xid, &ReplyStatus::Success);
        match catch_unwind(AssertUnwindSafe(|| (row.run)(&request, call.args, w))) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(self.garbage_args(peer, row, &e)),
            Err(_) => {
                tracing::error!(client = %peer, "{} panicked and is answered with SYSTEM_ERR: this is a bug", row.name);
                Err(ReplyStatus::SystemErr)
            }
        }
    }

    fn garbage_args(&self, peer: SocketAddr, row: &Row, error: &xdr::Error) -> ReplyStatus {
        self.garbage.fetch_add(1, Relaxed);
        tracing::debug!(client = %peer, "arguments of {} cannot be decoded: {error}", row.name);
        ReplyStatus::GarbageArgs
    }
}

/// AUTH_SYS and AUTH_NONE are taken. NULL reads no AUTH_SYS body, but other flavors are refused there too: RPCSEC_GSS
/// and AUTH_TLS begin their handshakes with NULL, and must hear that nobody answers them. AUTH_REJECTEDCRED is what
/// libtirpc and ntirpc say to a flavor they do not know.
fn credential(credential: &OpaqueAuth, procedure: u32) -> Result<Option<AuthSys>, ReplyStatus> {
    match credential.flavor {
        Flavor::None => Ok(None),
        Flavor::Sys if procedure == 0 => Ok(None),
        Flavor::Sys => match credential.as_sys() {
            Some(Ok(sys)) => Ok(Some(sys)),
            _ => Err(ReplyStatus::AuthError(AuthStat::BadCred)),
        },
        _ => Err(ReplyStatus::AuthError(AuthStat::RejectedCred)),
    }
}

/// What of a reply tells how the call ended.
pub(crate) fn head(reply: &Writer) -> &[u8] {
    let (segments, tail) = reply.parts();
    let first = segments.first().map_or(tail, |segment| &segment[..]);
    &first[..HEAD.min(first.len())]
}

impl Service for NfsService {
    fn kind(&self, record: &[u8]) -> Kind {
        let word =
            |n: usize| record.get(4 * n..).and_then(|at| at.first_chunk()).map(|b| u32::from_be_bytes(*b));
        // xid, direction, RPC version, program, version, procedure.
        let (Some(0), Some(program), Some(procedure)) = (word(1), word(3), word(5)) else {
            return Kind::default();
        };
        let served = self.programs.iter().find(|served| served.program.number == program);
        let row = served.and_then(|served| served.program.procedure(procedure));
        Kind {
            is_null: procedure == 0,
            is_idempotent: row.is_none_or(|row| row.idempotent),
            // Those of MOUNT are few and rare, and share with those of NFS.
            class: procedure as u8,
        }
    }

    fn serve(&self, origin: &Origin, record: Bytes, reply: &mut Writer) -> Result<Answer, Malformed> {
        let (received, bytes) = (Instant::now(), record.len());
        let (called, answer) = match Message::decode(record.clone()) {
            Ok(Message::Call(call)) if !origin.is_client && call.header.procedure != 0 => {
                begin_reply(reply, call.xid, &ReplyStatus::AuthError(AuthStat::TooWeak));
                ((call.header.program, call.header.procedure), Answer::Now)
            }
            Ok(Message::Call(call)) => {
                let called = (call.header.program, call.header.procedure);
                let kind = |record: &[u8]| self.kind(record);
                let execute = |call, reply: &mut Writer| self.answer(origin.peer, call, reply);
                (called, self.replies.serve(origin, kind, record, call, reply, execute))
            }
            Ok(Message::Reply(reply)) => {
                return Err(Malformed(format!("a reply, to xid {:#010x}", reply.xid)));
            }
            Err(message::Error::RpcVersion { xid, .. }) => {
                let status = ReplyStatus::RpcMismatch { low: RPC_VERSION, high: RPC_VERSION };
                begin_reply(reply, xid, &status);
                (UNKNOWN, Answer::Now)
            }
            Err(message::Error::Auth { xid, stat, .. }) => {
                begin_reply(reply, xid, &ReplyStatus::AuthError(stat));
                (UNKNOWN, Answer::Now)
            }
            Err(message::Error::Xdr(e)) => return Err(Malformed(e.to_string())),
        };
        if matches!(answer, Answer::Now | Answer::Tell(_)) {
            let bytes = (bytes, reply.len());
            self.state.metrics.answered(origin.peer.ip(), called, head(reply), bytes, received);
        }
        Ok(answer)
    }

    fn started(&self, outbox: Outbox) {
        self.replies.started(outbox);
    }

    fn told(&self, origin: &Origin, ticket: u64, reply: &Writer, end: u64) {
        self.replies.told(origin, ticket, reply, end);
    }

    fn dropped(&self, ticket: u64) {
        self.replies.dropped(ticket);
    }

    fn ended(&self, connection: ConnectionId, end: End) {
        self.replies.ended(connection, end);
    }

    fn tick(&self, now: Instant) -> Option<Instant> {
        self.replies.tick(now)
    }
}
