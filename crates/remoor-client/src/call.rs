//! A client and its typed calls.

use std::marker::PhantomData;
use std::net::SocketAddr;
use std::sync::Arc;

use remoor_nfs::reconnect::{Abandon, CallFailure, ConfigError, Machine};
use remoor_rpc::auth::{AuthSys, OpaqueAuth};
use remoor_rpc::message::{self, Message, ReplyStatus};
use remoor_rpc::net::{self, LeaveError};
use remoor_rpc::program::Procedure;
use remoor_rpc::xdr::{self, Xdr};
use tokio::sync::{mpsc, oneshot};

use crate::driver::{Driver, MAX_QUEUED_CALLS, Observer, Request};
use crate::file::IoSizes;
use crate::options::Options;

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
    /// `abandon=silent` or `abandon=fin` is not permitted here.
    #[error(transparent)]
    Leave(#[from] LeaveError),
}

/// Calls one server. Cloning shares the connection; when the last clone is dropped it is closed with a FIN.
#[derive(Clone)]
pub struct Client {
    requests: mpsc::Sender<Request>,
    given_up: mpsc::Sender<()>,
    credential: OpaqueAuth,
    pub(crate) sizes: Arc<IoSizes>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Starts a client on the current tokio runtime. Returns before the connection is made.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn connect(server: SocketAddr, options: Options) -> Result<Self, ConnectError> {
        Self::connect_observed(server, options, Arc::new(|_, _| {}))
    }

    /// As [`Client::connect`]; `observer` is told every reconnect as it happens.
    pub fn connect_observed(
        server: SocketAddr,
        options: Options,
        observer: Observer,
    ) -> Result<Self, ConnectError> {
        if options.abandon != Abandon::Reset {
            net::can_leave_silently()?;
        }
        let forget_after_fin = options.abandon == Abandon::Fin;
        let machine = Machine::new(options.config_here()?, seed(), &net::excluded_ports())?;
        let (requests, queue) = mpsc::channel(MAX_QUEUED_CALLS);
        let (given_up, given_up_queue) = mpsc::channel(1);
        let driver = Driver::new(machine, server, queue, given_up_queue, forget_after_fin, observer);
        tokio::spawn(driver.run());
        let credential = OpaqueAuth::sys(&identity());
        Ok(Self { requests, given_up, credential, sizes: Arc::default() })
    }

    /// The same connection on behalf of somebody else.
    pub fn with_identity(&self, identity: &AuthSys) -> Self {
        Self { credential: OpaqueAuth::sys(identity), ..self.clone() }
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
        let mut patience = Patience { given_up: &self.given_up, answered: false };
        let (reply, answer) = oneshot::channel();
        let credential = credential.clone();
        let encode = Box::new(move |xid| message::encode_call::<P>(xid, &credential, &args));
        let request = Request { encode, idempotent: P::IDEMPOTENT, reply };
        let shut_down = || CallError::ShutDown { procedure: P::NAME };
        self.requests.send(request).await.map_err(|_| shut_down())?;
        let record = answer.await.map_err(|_| shut_down())?;
        patience.answered = true;
        let record = record.map_err(|failure| CallError::Failed { procedure: P::NAME, failure })?;
        Decode::<P>::new().result(record)
    }
}

/// Tells the driver if it is dropped before the answer came.
struct Patience<'a> {
    given_up: &'a mpsc::Sender<()>,
    answered: bool,
}

impl Drop for Patience<'_> {
    fn drop(&mut self) {
        if !self.answered {
            // If the queue is full the driver has yet to look who has gone, and will find this caller too.
            self.given_up.try_send(()).ok();
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
fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

fn identity() -> AuthSys {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host.trim().chars().take(64).collect();
    AuthSys::new(&host, rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}
