//! A client and its typed calls.

use std::marker::PhantomData;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use remoor_nfs::reconnect::{Abandon, CallFailure, Config, ConfigError, Machine};
use remoor_rpc::auth::{AuthSys, OpaqueAuth};
use remoor_rpc::message::{self, Message, ReplyStatus};
use remoor_rpc::net::{self, LeaveError};
use remoor_rpc::program::Procedure;
use remoor_rpc::xdr::{self, Xdr};
use tokio::sync::{mpsc, oneshot, watch};

use crate::driver::{Driver, Parts};
use crate::file::IoSizes;
use crate::lane::{Failures, Lane, MAX_QUEUED_CALLS, Request, Standing, Word};
use crate::options::{OptionError, Options};
use crate::report::{Observer, Report};
use crate::stats::{Snapshot, Stats};
use crate::target::{Addresses, Target};

/// A call without a usable result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It was never answered.
    #[error("{procedure}: {failure}")]
    Failed {
        /// Its procedure.
        procedure: &'static str,
        /// Why.
        failure: CallFailure,
    },
    /// The server answered, but not with a result.
    #[error("{procedure}: {status}")]
    Status {
        /// Its procedure.
        procedure: &'static str,
        /// What it answered.
        status: ReplyStatus,
    },
    /// The server's answer cannot be decoded.
    #[error("{procedure}: the server's reply is malformed: {error}")]
    Malformed {
        /// Its procedure.
        procedure: &'static str,
        /// Where.
        error: message::Error,
    },
    /// The client's task has ended, because its runtime did.
    #[error("{procedure}: the client was shut down")]
    ShutDown {
        /// Its procedure.
        procedure: &'static str,
    },
}

/// A client that cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The options do not fit this host.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The options do not fit each other.
    #[error(transparent)]
    Options(#[from] OptionError),
    /// `abandon=silent` or `abandon=fin` is not permitted here.
    #[error(transparent)]
    Leave(#[from] LeaveError),
}

/// Calls one server. Cloning shares the connections; when the last clone is dropped they are closed with a FIN.
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    credential: OpaqueAuth,
}

/// What clones share.
pub(crate) struct Shared {
    lanes: Vec<Lane>,
    standings: Vec<Arc<Standing>>,
    /// The lane of the next call.
    turn: AtomicUsize,
    addresses: Arc<Addresses>,
    stats: Arc<Stats>,
    pub(crate) sizes: IoSizes,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("server", &self.server()).finish_non_exhaustive()
    }
}

impl Client {
    /// Starts a client on the current tokio runtime. Returns before any connection is made.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn connect(server: impl Into<Target>, options: Options) -> Result<Self, ConnectError> {
        Self::connect_observed(server, options, Arc::new(|_, _| {}))
    }

    /// As [`Client::connect`]; `observer` is told every reconnect of every connection as it happens.
    pub fn connect_observed(
        server: impl Into<Target>,
        options: Options,
        observer: Observer,
    ) -> Result<Self, ConnectError> {
        options.validate()?;
        if options.abandon != Abandon::Reset {
            net::can_leave_silently()?;
        }
        let mut starting = Starting {
            config: options.config_here()?,
            excluded: net::excluded_ports(),
            addresses: Arc::new(Addresses::new(server.into())),
            stats: Arc::new(Stats::new()),
            observer,
            standings: Vec::new(),
        };
        let lanes = (0..options.nconnect as usize).map(|index| starting.lane(index));
        let lanes = lanes.collect::<Result<_, ConfigError>>()?;
        let Starting { addresses, stats, standings, .. } = starting;
        let (turn, sizes) = (AtomicUsize::new(0), IoSizes::default());
        let shared = Shared { lanes, standings, turn, addresses, stats, sizes };
        Ok(Self { shared: Arc::new(shared), credential: OpaqueAuth::sys(&identity()) })
    }

    /// The same connections on behalf of somebody else.
    pub fn with_identity(&self, identity: &AuthSys) -> Self {
        Self { credential: OpaqueAuth::sys(identity), ..self.clone() }
    }

    /// The server's name, as it was given.
    pub fn server(&self) -> &str {
        self.shared.addresses.name()
    }

    /// The server's addresses, the one that served last first.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.shared.addresses.list()
    }

    /// What happened so far and how things stand. Asks nobody and waits for nothing.
    pub fn snapshot(&self) -> Snapshot {
        let Shared { addresses, stats, standings, .. } = &*self.shared;
        let connections = standings.iter().map(|standing| standing.told().clone()).collect();
        let list = addresses.list().iter().map(ToString::to_string).collect();
        stats.snapshot(addresses.name(), list, connections)
    }

    /// How often calls of `P` were sent again, on the same connection or another. Where this is the same before a call and
    /// after it, the server had that call once.
    pub fn sent_again<P: Procedure>(&self) -> u64 {
        self.shared.stats.sent_again::<P>()
    }

    /// Takes `timeo`, `retrans`, `hard`, `soft`, `softerr`, `suspect` and `stuck` from `options`, as a remount does; the
    /// rest stays. Calls in flight begin their timeouts anew.
    pub async fn reconfigure(&self, options: &Options) -> Result<(), OptionError> {
        options.validate()?;
        let config = options.config_here()?;
        for lane in &self.shared.lanes {
            // A driver that has ended has no calls whose timeouts could change.
            lane.words.send(Word::Reconfigure(Box::new(config.clone()))).await.ok();
        }
        Ok(())
    }

    /// Calls `P` and waits for its result, through as many reconnects as it takes.
    ///
    /// A call whose future is dropped is not sent again. Whether the server executes it is unknown if it was sent.
    pub async fn call<P: Procedure>(&self, args: P::Args) -> Result<P::Res, CallError> {
        self.call_as::<P>(&self.credential, args).await
    }

    /// As [`Client::call`], on behalf of `credential`: a mount's callers share one client, and a credential once made
    /// is shared by all their calls.
    pub async fn call_as<P: Procedure>(
        &self,
        credential: &OpaqueAuth,
        args: P::Args,
    ) -> Result<P::Res, CallError> {
        let lane = self.shared.lane();
        let flight = self.shared.stats.begin::<P>();
        let mut patience = Patience { words: &lane.words, answered: false };
        let (reply, answer) = oneshot::channel();
        let credential = credential.clone();
        let encode = Box::new(move |xid| message::encode_call::<P>(xid, &credential, &args));
        let request = Request { encode, idempotent: P::IDEMPOTENT, reply };
        let answer = match lane.requests.send(request).await {
            Ok(()) => answer.await.ok(),
            Err(_) => None,
        };
        patience.answered = true;
        let Some(record) = answer else {
            flight.failed();
            return Err(CallError::ShutDown { procedure: P::NAME });
        };
        match record {
            Err(failure) => {
                flight.failed();
                Err(CallError::Failed { procedure: P::NAME, failure })
            }
            Ok(record) => {
                let bytes = record.len();
                let result = Decode::<P>::new().result(record);
                flight.answered(bytes, result.is_ok());
                result
            }
        }
    }

    /// The lane whose troubles tell of a mount that cannot be made.
    pub(crate) fn failures(&self) -> watch::Receiver<Failures> {
        self.shared.lanes[0].failures.clone()
    }

    pub(crate) fn credential(&self) -> &OpaqueAuth {
        &self.credential
    }
}

impl Shared {
    /// The next lane in turn that has a connection; if none has, the next.
    fn lane(&self) -> &Lane {
        if let [only] = &self.lanes[..] {
            return only;
        }
        let (turn, n) = (self.turn.fetch_add(1, Relaxed), self.lanes.len());
        let ready = (turn..turn.wrapping_add(n)).map(|at| at % n).find(|at| self.standings[*at].is_ready());
        &self.lanes[ready.unwrap_or(turn % n)]
    }
}

/// A client in the making.
struct Starting {
    config: Config,
    excluded: Vec<u16>,
    addresses: Arc<Addresses>,
    stats: Arc<Stats>,
    observer: Observer,
    standings: Vec<Arc<Standing>>,
}

impl Starting {
    fn lane(&mut self, index: usize) -> Result<Lane, ConfigError> {
        let machine = Machine::new(self.config.clone(), seed(), &self.excluded)?;
        let (requests, queue) = mpsc::channel(MAX_QUEUED_CALLS);
        let (words, told) = mpsc::channel(1);
        let (failed, failures) = watch::channel(Failures::default());
        let standing = Arc::new(Standing::default());
        self.standings.push(Arc::clone(&standing));
        let (addresses, stats) = (Arc::clone(&self.addresses), Arc::clone(&self.stats));
        let observer = Arc::clone(&self.observer);
        let report =
            Report::new(index, Arc::clone(&addresses), Arc::clone(&stats), standing, failed, observer);
        let parts = Parts {
            machine,
            addresses,
            requests: queue,
            words: told,
            forget_after_fin: self.config.abandon == Abandon::Fin,
            stats,
            report,
        };
        tokio::spawn(Driver::new(parts).run());
        Ok(Lane { requests, words, failures })
    }
}

/// Tells the driver if it is dropped before the answer came.
struct Patience<'a> {
    words: &'a mpsc::Sender<Word>,
    answered: bool,
}

impl Drop for Patience<'_> {
    fn drop(&mut self) {
        if !self.answered {
            // If the queue is full the driver has yet to look who has gone, and will find this caller too.
            self.words.try_send(Word::GivenUp).ok();
        }
    }
}

/// Decodes replies of one procedure.
struct Decode<P>(PhantomData<P>);

impl<P: Procedure> Decode<P> {
    fn new() -> Self {
        Self(PhantomData)
    }

    fn malformed(error: impl Into<message::Error>) -> CallError {
        CallError::Malformed { procedure: P::NAME, error: error.into() }
    }

    fn result(self, record: bytes::Bytes) -> Result<P::Res, CallError> {
        let reply = match Message::decode(record).map_err(Self::malformed)? {
            Message::Reply(reply) => reply,
            Message::Call(call) => {
                let kind = xdr::ErrorKind::BadValue { value: 0 };
                return Err(Self::malformed(call.args.error("message type", kind)));
            }
        };
        if reply.status != ReplyStatus::Success {
            return Err(CallError::Status { procedure: P::NAME, status: reply.status });
        }
        let mut reader = reply.result;
        let result = P::Res::decode(&mut reader).map_err(Self::malformed)?;
        reader.finish(P::NAME).map_err(Self::malformed)?;
        Ok(result)
    }
}

/// Start of xids and ports: different for each client, so that two of one host do not share xids.
pub(crate) fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

fn identity() -> AuthSys {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host.trim().chars().take(64).collect();
    AuthSys::new(&host, rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}
