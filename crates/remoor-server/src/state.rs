//! What a running server is and has: exports with their file systems, identity, who has mounted.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use remoor_nfs::v3::WriteVerf;

use crate::exports::{Options, Rule, closest};
use crate::handle::Signer;
use crate::vfs::Vfs;

/// Ports from here on can be bound by any process (IPPORT_RESERVED, PROT_SOCK).
const FIRST_UNRESERVED_PORT: u16 = 1024;
/// Mounts that DUMP remembers; the oldest are forgotten.
const MAX_MOUNTS: usize = 4096;
/// Clients whose port refusals are told apart in the log.
const MAX_REFUSED_CLIENTS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// How long a client is not mentioned again after its port was refused.
const REFUSAL_PAUSE: Duration = Duration::from_secs(60);

/// An export that is served.
pub(crate) struct ServedExport {
    /// What clients mount.
    pub(crate) path: PathBuf,
    /// Its identity in handles and attributes.
    pub(crate) id: u64,
    /// Its files.
    pub(crate) vfs: Arc<dyn Vfs>,
    /// Who may use it.
    pub(crate) rules: Vec<Rule>,
}

impl ServedExport {
    pub(crate) fn options_for(&self, client: IpAddr) -> Option<&Options> {
        closest(&self.rules, client)
    }
}

pub(crate) struct State {
    /// In order of their paths, longest first, so that the first that is a prefix is the closest.
    exports: Vec<ServedExport>,
    pub(crate) signer: Signer,
    /// Of this instance of this node.
    pub(crate) write_verf: WriteVerf,
    mounts: Mutex<VecDeque<(IpAddr, PathBuf)>>,
    refused: Mutex<LruCache<(IpAddr, u64), Instant>>,
    port_refusals: AtomicU64,
}

impl State {
    pub(crate) fn new(mut exports: Vec<ServedExport>, signer: Signer, write_verf: WriteVerf) -> Self {
        exports.sort_by_key(|export| std::cmp::Reverse(export.path.components().count()));
        Self {
            exports,
            signer,
            write_verf,
            mounts: Mutex::default(),
            refused: Mutex::new(LruCache::new(MAX_REFUSED_CLIENTS)),
            port_refusals: AtomicU64::new(0),
        }
    }

    pub(crate) fn exports(&self) -> &[ServedExport] {
        &self.exports
    }

    pub(crate) fn export_by_id(&self, id: u64) -> Option<&ServedExport> {
        self.exports.iter().find(|export| export.id == id)
    }

    /// The closest export at or above a path.
    pub(crate) fn export_above(&self, path: &Path) -> Option<&ServedExport> {
        self.exports.iter().find(|export| path.starts_with(&export.path))
    }

    /// The check of `secure`: knfsd's `nfsd_originating_port_ok`, rpc.mountd's `auth_authenticate_internal`.
    pub(crate) fn may_use_port(&self, peer: SocketAddr, export: &ServedExport, options: &Options) -> bool {
        let allowed = !options.secure || peer.port() < FIRST_UNRESERVED_PORT;
        if !allowed {
            self.port_refusals.fetch_add(1, Relaxed);
            self.log_refusal(peer, export);
        }
        allowed
    }

    /// Calls refused because of their source port.
    pub(crate) fn port_refusals(&self) -> u64 {
        self.port_refusals.load(Relaxed)
    }

    fn log_refusal(&self, peer: SocketAddr, export: &ServedExport) {
        let now = Instant::now();
        let key = (peer.ip(), export.id);
        let mut refused = locked(&self.refused);
        if refused.get(&key).is_some_and(|last| now.duration_since(*last) < REFUSAL_PAUSE) {
            return;
        }
        refused.put(key, now);
        drop(refused);
        tracing::warn!(
            client = %peer.ip().to_canonical(),
            port = peer.port(),
            export = %export.path.display(),
            "refused: the source port is not below {FIRST_UNRESERVED_PORT} and the export is secure; \
             mount with resvport, or export with insecure"
        );
    }

    pub(crate) fn mounted(&self, client: IpAddr, path: &Path) {
        let entry = (client.to_canonical(), path.to_path_buf());
        let mut mounts = locked(&self.mounts);
        if !mounts.contains(&entry) {
            if mounts.len() >= MAX_MOUNTS {
                mounts.pop_front();
            }
            mounts.push_back(entry);
        }
    }

    /// Forgets a client's mount of a path, or all of them.
    pub(crate) fn unmounted(&self, client: IpAddr, path: Option<&Path>) {
        let client = client.to_canonical();
        locked(&self.mounts).retain(|(c, p)| *c != client || path.is_some_and(|path| p != path));
    }

    pub(crate) fn mounts(&self) -> Vec<(IpAddr, PathBuf)> {
        locked(&self.mounts).iter().cloned().collect()
    }
}

/// Each value under these locks is whole between statements, so a poisoned lock is used on.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
