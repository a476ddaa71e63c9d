//! Starting and stopping a server.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use remoor_nfs::v3::WriteVerf;
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::system::uname;
use sha2::{Digest, Sha256};

use crate::exports::{Export, Exports, Storage, export_id};
use crate::handle::{KeyError, Signer};
use crate::net::{self, Connections, DEFAULT_WORKERS, Limits};
use crate::service::NfsService;
use crate::state::{ServedExport, State};
use crate::vfs::local::{Durability, LocalOptions, LocalVfs, OpenError};
use crate::vfs::memory::{DEFAULT_LIMIT_BYTES, MemoryVfs};
use crate::vfs::{MAX_NODE_HANDLE, Vfs};

/// NFS's own port.
pub const NFS_PORT: u16 = 2049;
/// Longest name of a node, in bytes: as long as a host's (`HOST_NAME_MAX`).
const MAX_NODE_NAME: usize = 64;

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
    state_dir: Option<PathBuf>,
    node_name: String,
    workers: Option<usize>,
    limits: Limits,
    vfs: HashMap<PathBuf, Arc<dyn Vfs>>,
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
    #[error("{0:?} and {1:?} are the same directory; export it once")]
    SameDirectory(PathBuf, PathBuf),
    #[error("{0:?} and {1:?} have the same identity {2:#x}; give one of them another fsid=")]
    SameIdentity(PathBuf, PathBuf, u64),
    #[error("cannot export {path:?}: {reason}")]
    Vfs { path: PathBuf, reason: String },
    #[error(transparent)]
    Local(#[from] OpenError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Builder {
    /// What to export.
    pub fn exports(mut self, exports: Exports) -> Self {
        self.exports = exports;
        self
    }

    /// Adds an address to listen on; port 0 lets the kernel choose. Without any it is 127.0.0.1:2049.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen.push(address);
        self
    }

    /// Where the key of file handles and the index of files are kept. Nodes that serve the same directories share
    /// it. Needed unless all exports are in memory.
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

    /// Loads the exports, binds the addresses and serves.
    pub fn start(self) -> Result<Running, StartError> {
        let state = Arc::new(self.state()?);
        let default = [SocketAddr::from((Ipv4Addr::LOCALHOST, NFS_PORT))];
        let listen = if self.listen.is_empty() { &default[..] } else { &self.listen };
        let service = Arc::new(NfsService::new(state));
        let net = net::start(service, listen, self.workers.unwrap_or(DEFAULT_WORKERS), self.limits)?;
        let running = Running { net };
        running.log();
        Ok(running)
    }

    /// What is served, without sockets.
    pub(crate) fn state(&self) -> Result<State, StartError> {
        if self.exports.list.is_empty() {
            return Err(StartError::NoExports);
        }
        let node = self.node();
        if !is_node_name(&node) {
            return Err(StartError::NodeName(node));
        }
        self.exports.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let random = random()?;
        let signer = self.signer(random)?;
        let served: Vec<_> =
            self.exports.list.iter().map(|export| self.open(export, random)).collect::<Result<_, _>>()?;
        refuse_doubles(&served)?;
        Ok(State::new(served, signer, write_verf(&node, random)))
    }

    fn signer(&self, random: [u8; 32]) -> Result<Signer, StartError> {
        match &self.state_dir {
            Some(dir) => Ok(Signer::load_or_create(dir)?),
            None if self.exports.list.iter().any(|export| self.is_local(export)) => {
                Err(StartError::NoStateDir)
            }
            None => Ok(Signer::new(random)),
        }
    }

    fn is_local(&self, export: &Export) -> bool {
        export.storage == Storage::Local && !self.vfs.contains_key(&export.path)
    }

    fn open(&self, export: &Export, random: [u8; 32]) -> Result<ServedExport, StartError> {
        let path = if self.is_local(export) { canonical(export)? } else { export.path.clone() };
        let id = export_id(export.fsid(), &path);
        let vfs = match (self.vfs.get(&export.path), &export.storage) {
            (Some(vfs), _) => vfs.clone(),
            (None, Storage::Memory) => {
                let instance = u64::from_ne_bytes(std::array::from_fn(|n| random[n]));
                Arc::new(MemoryVfs::new(DEFAULT_LIMIT_BYTES, instance))
            }
            (None, Storage::Local) => self.open_local(export, &path)?,
        };
        check_root(&path, &*vfs)?;
        Ok(ServedExport { path, id, vfs, rules: export.rules.clone() })
    }

    fn open_local(&self, export: &Export, path: &Path) -> Result<Arc<dyn Vfs>, StartError> {
        let options = LocalOptions {
            durability: durability(export),
            state_dir: self.state_dir.clone().ok_or(StartError::NoStateDir)?,
            node: self.node(),
            max_open: None,
            scheme: None,
        };
        let vfs = LocalVfs::open(path, &options)?;
        let (scheme, reason) = vfs.scheme();
        tracing::info!(export = %path.display(), "{scheme:?} file handles, because {reason}");
        if vfs.is_single_user() {
            tracing::warn!(
                export = %path.display(),
                "not root, so every file is used and made as the server's own user, whoever the client's is"
            );
        }
        Ok(Arc::new(vfs))
    }

    fn node(&self) -> String {
        if !self.node_name.is_empty() {
            return self.node_name.clone();
        }
        uname().nodename().to_string_lossy().into_owned()
    }
}

/// Whether a file can be named after it, in any directory and beside files of other kinds.
fn is_node_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= MAX_NODE_NAME && !name.starts_with('.') && name.chars().all(allowed)
}

/// `async` only if no client is promised `sync`.
fn durability(export: &Export) -> Durability {
    let sync = export.rules.iter().any(|rule| rule.options.sync);
    if sync { Durability::Sync } else { Durability::Async }
}

/// The directory without symbolic links, so that one directory has one path and one identity.
fn canonical(export: &Export) -> Result<PathBuf, StartError> {
    let origin = || export.rules.first().map_or_else(String::new, |rule| rule.origin.to_string());
    let path = export.path.clone();
    let failed = |source| StartError::Path { origin: origin(), path: path.clone(), source };
    let real = export.path.canonicalize().map_err(failed)?;
    if real.is_dir() { Ok(real) } else { Err(StartError::NotDirectory { origin: origin(), path }) }
}

/// An export whose handles do not fit, or that has no root, is refused at the start and not at the first mount.
fn check_root(path: &Path, vfs: &dyn Vfs) -> Result<(), StartError> {
    let refused = |reason| StartError::Vfs { path: path.into(), reason };
    let root = vfs.root().map_err(|status| refused(status.to_string()))?;
    if root.len() > MAX_NODE_HANDLE {
        return Err(refused(format!(
            "its file handles have {} bytes, more than {MAX_NODE_HANDLE}",
            root.len()
        )));
    }
    Ok(())
}

fn refuse_doubles(served: &[ServedExport]) -> Result<(), StartError> {
    for (n, a) in served.iter().enumerate() {
        for b in &served[n + 1..] {
            if a.path == b.path {
                return Err(StartError::SameDirectory(a.path.clone(), b.path.clone()));
            }
            if a.id == b.id {
                return Err(StartError::SameIdentity(a.path.clone(), b.path.clone(), a.id));
            }
        }
    }
    Ok(())
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
}

/// What a server has done so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters {
    /// Its connections.
    pub connections: Connections,
    /// Calls by program and procedure; those refused before execution are not among them.
    pub calls: Vec<ProcedureCalls>,
    /// Calls whose arguments could not be decoded.
    pub garbage_args: u64,
    /// Calls refused because a `secure` export was used from a port of 1024 or above.
    pub port_refusals: u64,
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

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        let service = self.net.service();
        let row = |(program, procedure, calls)| ProcedureCalls { program, procedure, calls };
        Counters {
            connections: self.net.connections(),
            calls: service.calls().into_iter().map(row).collect(),
            garbage_args: service.garbage(),
            port_refusals: service.state().port_refusals(),
        }
    }

    /// This instance's write verifier.
    pub fn write_verf(&self) -> WriteVerf {
        self.net.service().state().write_verf
    }

    /// Stops accepting and reading, lets the calls that execute finish and be answered, and closes. True if all
    /// were answered within [`Limits::drain`].
    pub fn stop(mut self) -> bool {
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
        for export in self.net.service().state().exports() {
            for rule in &export.rules {
                let path = export.path.display();
                tracing::info!(
                    fsid = format_args!("{:#x}", export.id),
                    "exporting {path} to {} ({})",
                    rule.client,
                    rule.options
                );
            }
        }
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("local_addrs", &self.local_addrs()).finish_non_exhaustive()
    }
}
