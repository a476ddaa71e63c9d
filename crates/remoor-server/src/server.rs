//! Starting and stopping a server.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::mem::take;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use remoor_nfs::v3::WriteVerf;
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::system::uname;
use sha2::{Digest, Sha256};

use crate::control::health::DEFAULT_HEALTH_LIMIT;
use crate::control::{AttendError, Attendance, Desk, NodeLock, Pages, Places, Taken};
use crate::exporter::{Exporter, Source};
use crate::exports::{Export, Exports, ParseError, Storage};
use crate::handle::{KeyError, Signer};
use crate::look::{Directory, Looker};
use crate::net::{self, Connections, DEFAULT_WORKERS, Entrances, Limits};
use crate::opener::Opener;
use crate::service::NfsService;
use crate::state::{State, UserGroups};
use crate::vfs::Vfs;
use crate::vfs::local::{OpenError, state_inside};

/// NFS's own port.
pub const NFS_PORT: u16 = 2049;
/// Longest name of a node, in bytes: as long as a host's (`HOST_NAME_MAX`).
const MAX_NODE_NAME: usize = 64;

/// How long exports may take to tell where they are before the state directory is made.
const INSIDE_PATIENCE: Duration = Duration::from_secs(3);

/// An NFS version 3 and MOUNT version 3 server.
#[derive(Debug)]
pub enum Server {}

impl Server {
    /// A server that is yet to be told what to serve.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

/// What a server is to serve, and how.
#[derive(Default)]
pub struct Builder {
    exports: Exports,
    listen: Vec<SocketAddr>,
    listeners: Vec<TcpListener>,
    relays: Vec<IpNet>,
    state_dir: Option<PathBuf>,
    node_name: String,
    workers: Option<usize>,
    limits: Limits,
    vfs: HashMap<PathBuf, Arc<dyn Vfs>>,
    source: Option<Source>,
    groups: Option<Box<dyn UserGroups>>,
    exclusive: bool,
    places: Places,
    health_limit: Option<Duration>,
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message says it")]
pub enum StartError {
    #[error("nothing to export; name a directory with --export DIR or a file with --exports FILE")]
    NoExports,
    #[error(
        "node name {0:?}: use letters, digits, \"-\", \"_\" and \".\", not first, at most {MAX_NODE_NAME}: files are named after it"
    )]
    NodeName(String),
    #[error("no state directory is given, so file handles would not survive a restart; name one")]
    NoStateDir,
    #[error("{origin}: cannot export {path:?}: {source}")]
    Path { origin: String, path: PathBuf, source: io::Error },
    #[error("{origin}: cannot export {path:?}: not a directory")]
    NotDirectory { origin: String, path: PathBuf },
    #[error(
        "{origin}: cannot export {path:?}: its file system has not answered for {secs} s; see that it works, then try again"
    )]
    Silent { origin: String, path: PathBuf, secs: u64 },
    #[error("{0:?} and {1:?} are the same directory; export it once")]
    SameDirectory(PathBuf, PathBuf),
    #[error("{0:?} and {1:?} have the same identity {2:#x}; give one of them another fsid=")]
    SameIdentity(PathBuf, PathBuf, u64),
    #[error("{0:?} has two different fsid= options; one export has one identity")]
    TwoFsids(PathBuf),
    #[error("cannot export {path:?}: {reason}")]
    Vfs { path: PathBuf, reason: String },
    #[error(transparent)]
    Local(#[from] OpenError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("cannot make the state directory {path}: {source}; name another with --state")]
    StateDir { path: PathBuf, source: io::Error },
    #[error("{0}; {remedy}", remedy = remedy(.0))]
    NodeTaken(Taken),
    #[error(transparent)]
    Attend(#[from] AttendError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn remedy(taken: &Taken) -> String {
    match taken {
        Taken::Held { .. } => {
            "nodes that share a state directory differ in their names: stop that server or choose another --node"
                .to_owned()
        }
        Taken::Io { .. } => {
            format!("choose a --state that user {} may write", rustix::process::geteuid().as_raw())
        }
    }
}

impl Builder {
    /// What to export.
    pub fn exports(mut self, exports: Exports) -> Self {
        self.exports = exports;
        self
    }

    /// Adds an address to listen on; port 0 lets the kernel choose. Without any, and without
    /// [`Builder::listener`], it is 127.0.0.1:2049.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen.push(address);
        self
    }

    /// Adds a socket that is bound already, for example one of systemd's. When the server stops it stays open for
    /// whoever else has it: connections that come meanwhile wait there for the next server.
    pub fn listener(mut self, listener: TcpListener) -> Self {
        self.listeners.push(listener);
        self
    }

    /// Adds peers that relay connections and name each client first, by the PROXY protocol's version 2. They must do
    /// so: a connection of theirs without the header is closed. What they name decides exports and the port check.
    /// From other peers the header is not understood.
    pub fn proxy_from(mut self, relays: impl IntoIterator<Item = IpNet>) -> Self {
        self.relays.extend(relays);
        self
    }

    /// Where the key of file handles and the index of files are kept. Nodes that serve the same directories share
    /// it. Needed unless all exports are in memory. It is made if needed, for this user alone.
    pub fn state_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(path.into());
        self
    }

    /// The name of this node, by default the host's: letters, digits, `-`, `_` and `.`, because files of the state
    /// directory are named after it. Nodes that share a state directory must differ in it.
    pub fn node_name(mut self, name: impl Into<String>) -> Self {
        self.node_name = name.into();
        self
    }

    /// Number of threads; at least [`MIN_WORKERS`](crate::MIN_WORKERS), by default [`DEFAULT_WORKERS`].
    pub fn workers(mut self, n: usize) -> Self {
        self.workers = Some(n);
        self
    }

    /// Other bounds than the default ones.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Serves the export of this path from `vfs`.
    pub fn vfs(mut self, path: impl Into<PathBuf>, vfs: Arc<dyn Vfs>) -> Self {
        self.vfs.insert(path.into(), vfs);
        self
    }

    /// Where [`Exporter::reload`] finds what is configured; without it that is what the server began with.
    pub fn source(
        mut self,
        source: impl Fn() -> Result<Exports, ParseError> + Send + Sync + 'static,
    ) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Takes the groups of users from the server and not from the client, as `rpc.mountd --manage-gids` does.
    pub fn manage_gids(mut self, groups: impl UserGroups + 'static) -> Self {
        self.groups = Some(Box::new(groups));
        self
    }

    /// Refuses to start while another server of this node's name uses the state directory.
    pub fn exclusive(mut self) -> Self {
        self.exclusive = true;
        self
    }

    /// Answers [`control::call`](crate::control::call) at this path. Where it cannot, the server does not start if
    /// `needed`, and else says so in the log.
    pub fn control(mut self, path: impl Into<PathBuf>, needed: bool) -> Self {
        self.places.control = Some((path.into(), needed));
        self
    }

    /// Tells `/metrics` and `/health` over HTTP at this address.
    pub fn metrics(mut self, address: SocketAddr) -> Self {
        self.places.pages.push((address, Pages::All));
        self
    }

    /// Tells `/health` over HTTP at this address.
    pub fn health(mut self, address: SocketAddr) -> Self {
        self.places.pages.push((address, Pages::Health));
        self
    }

    /// How long a file system may be silent before the server is not healthy; 3 s by default.
    pub fn health_limit(mut self, limit: Duration) -> Self {
        self.health_limit = Some(limit);
        self
    }

    /// Loads the exports, binds the addresses and serves.
    pub fn start(mut self) -> Result<Running, StartError> {
        self.make_state_dir()?;
        let lock = self.lock()?;
        let exporter = Arc::new(self.exporter()?);
        let default = [SocketAddr::from((Ipv4Addr::LOCALHOST, NFS_PORT))];
        let named = !self.listen.is_empty() || !self.listeners.is_empty();
        let listen = if named { &self.listen } else { &default[..] };
        let workers = self.workers.unwrap_or(DEFAULT_WORKERS);
        let service = Arc::new(NfsService::new(exporter.state().clone(), workers));
        let (bound, relays) = (take(&mut self.listeners), take(&mut self.relays));
        let entrances = Entrances { addresses: listen, bound, relays };
        let net = net::start(service, entrances, workers, self.limits.clone())?;
        let limit = self.health_limit.unwrap_or(DEFAULT_HEALTH_LIMIT);
        let replies = net.service().clone();
        let replays = Box::new(move || replies.replays());
        let desk = Desk::new(exporter.clone(), Box::new(net.census()), replays, net.local_addrs(), limit);
        let attendance = Attendance::begin(&self.places, &Arc::new(desk))?;
        let running = Running { net, exporter, attendance, _lock: lock };
        running.log();
        Ok(running)
    }

    /// Whatever the umask is: for the sake of clients' modes it is 0. Nothing is made inside an export.
    fn make_state_dir(&self) -> Result<(), StartError> {
        let Some(dir) = &self.state_dir else { return Ok(()) };
        let failed = |source| StartError::StateDir { path: dir.clone(), source };
        refuse_inside(dir, &self.exports.list)?;
        let make = |dir: &Path, mode| fs::DirBuilder::new().recursive(true).mode(mode).create(dir);
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        parent.map_or(Ok(()), |parent| make(parent, 0o755)).map_err(failed)?;
        make(dir, 0o700).map_err(failed)
    }

    fn lock(&self) -> Result<Option<NodeLock>, StartError> {
        let Some(dir) = self.state_dir.as_ref().filter(|_| self.exclusive) else { return Ok(None) };
        let node = self.checked_node()?;
        NodeLock::take(&dir.join(format!("{node}.lock"))).map(Some).map_err(StartError::NodeTaken)
    }

    /// What is served, without sockets.
    fn exporter(&mut self) -> Result<Exporter, StartError> {
        if self.exports.list.is_empty() {
            return Err(StartError::NoExports);
        }
        let node = self.checked_node()?;
        let random = random()?;
        let instance = u64::from_ne_bytes(std::array::from_fn(|n| random[n]));
        let opener = Opener::new(self.state_dir.clone(), node.clone(), take(&mut self.vfs), instance);
        let signer = match &self.state_dir {
            Some(dir) => Signer::load_or_create(dir)?,
            None => Signer::new(random),
        };
        let mut state = State::new(Vec::new(), signer, write_verf(&node, random));
        state.groups = self.groups.take();
        let exports = take(&mut self.exports);
        let configured = exports.clone();
        let source = self.source.take().unwrap_or_else(|| Box::new(move || Ok(configured.clone())));
        let exporter = Exporter::new(Arc::new(state), opener, source);
        exporter.start(exports)?;
        Ok(exporter)
    }

    fn checked_node(&self) -> Result<String, StartError> {
        let node = self.node();
        if is_node_name(&node) { Ok(node) } else { Err(StartError::NodeName(node)) }
    }

    fn node(&self) -> String {
        if !self.node_name.is_empty() {
            return self.node_name.clone();
        }
        uname().nodename().to_string_lossy().into_owned()
    }
}

/// Exports that do not tell soon where they are, or are not there, are refused when they are opened.
fn refuse_inside(state_dir: &Path, exports: &[Export]) -> Result<(), StartError> {
    let (looker, deadline) = (Looker::default(), Instant::now() + INSIDE_PATIENCE);
    let local = exports.iter().filter(|export| export.storage == Storage::Local);
    let looks: Vec<_> = local.map(|export| looker.begin(export)).collect();
    let failed = |source| StartError::StateDir { path: state_dir.into(), source };
    for seen in looks.into_iter().filter_map(|look| look.until(deadline)) {
        let Ok(Directory { path: export, .. }) = seen.directory else { continue };
        if let Some(state) = state_inside(&export, state_dir).map_err(failed)? {
            return Err(OpenError::StateInside { state, export }.into());
        }
    }
    Ok(())
}

/// Whether a file can be named after it, in any directory and beside files of other kinds.
fn is_node_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= MAX_NODE_NAME && !name.starts_with('.') && name.chars().all(allowed)
}

fn random() -> io::Result<[u8; 32]> {
    let mut out = [0; 32];
    getrandom(&mut out, GetRandomFlags::empty())?;
    Ok(out)
}

/// Different for every start of every node (RFC 1813 section 3.3.7), even if two nodes' random numbers were equal.
fn write_verf(node_name: &str, random: [u8; 32]) -> WriteVerf {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let hash = Sha256::new()
        .chain_update(random)
        .chain_update(now.as_nanos().to_be_bytes())
        .chain_update(std::process::id().to_be_bytes())
        .chain_update(node_name);
    let digest: [u8; 32] = hash.finalize().into();
    std::array::from_fn(|n| digest[n])
}

/// A server at work. Dropping it stops it.
pub struct Running {
    net: net::Handle<NfsService>,
    exporter: Arc<Exporter>,
    attendance: Attendance,
    _lock: Option<NodeLock>,
}

/// What a server has done so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters {
    /// Its connections.
    pub connections: Connections,
    /// Calls that were answered, by program and procedure; those refused before execution are not among them.
    pub calls: Vec<ProcedureCalls>,
    /// Calls whose arguments could not be decoded.
    pub garbage_args: u64,
    /// Calls refused because a `secure` export was used from a port of 1024 or above.
    pub port_refusals: u64,
    /// What the reply cache did.
    pub replays: remoor_nfs::replay::Counters,
}

/// Calls of one procedure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcedureCalls {
    /// Name of the program, as in its RFC.
    pub program: &'static str,
    /// Name of the procedure, as in its RFC.
    pub procedure: &'static str,
    /// Calls since the start.
    pub calls: u64,
}

impl Running {
    /// The addresses listened on, with the ports the kernel chose.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.net.local_addrs()
    }

    /// The addresses that tell metrics and health, with the ports the kernel chose.
    pub fn page_addrs(&self) -> Vec<SocketAddr> {
        self.attendance.page_addrs()
    }

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        let service = self.net.service();
        let rows = service.state().metrics.procedures.counts();
        let row = |(program, procedure, calls)| ProcedureCalls { program, procedure, calls };
        Counters {
            connections: self.net.connections(),
            calls: rows.into_iter().map(row).collect(),
            garbage_args: service.garbage(),
            port_refusals: service.state().port_refusals(),
            replays: service.replays(),
        }
    }

    /// Changes what is exported.
    pub fn exporter(&self) -> &Arc<Exporter> {
        &self.exporter
    }

    /// This instance's write verifier.
    pub fn write_verf(&self) -> WriteVerf {
        self.net.service().state().write_verf
    }

    /// Stops accepting and reading, lets the calls that execute finish and be answered, and closes. True if all
    /// were answered within [`Limits::drain`].
    pub fn stop(mut self) -> bool {
        self.exporter.state().stop();
        let drained = self.net.stop();
        if drained {
            tracing::info!("stopped; every call that was taken is answered");
        } else {
            tracing::warn!(
                "stopped; calls that took too long are not answered, their clients will send them again"
            );
        }
        drained
    }

    fn log(&self) {
        for address in self.local_addrs() {
            tracing::info!(
                "listening on {address} (TCP): NFS version 3, MOUNT version 3; no locking, mount with nolock"
            );
        }
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("local_addrs", &self.local_addrs()).finish_non_exhaustive()
    }
}
