//! What a running server is and has: what it exports now, identity, who has mounted.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use lru::LruCache;
use remoor_nfs::v3::WriteVerf;

use crate::exports::Options;
use crate::handle::Signer;
use crate::metrics::Metrics;
use crate::names::groups::Groups;
use crate::names::{self, Names, Pending};
use crate::table::{ServedExport, Snapshot, Table};

/// Ports from here on can be bound by any process (IPPORT_RESERVED, PROT_SOCK).
pub(crate) const FIRST_UNRESERVED_PORT: u16 = 1024;
/// Mounts that DUMP remembers; the oldest are forgotten.
const MAX_MOUNTS: usize = 4096;
/// Clients whose refusals are told apart in the log.
const MAX_REFUSED_CLIENTS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// How long a client is not mentioned again after a refusal.
const REFUSAL_PAUSE: Duration = Duration::from_secs(60);

/// Subject of [`State::is_news`] for mounts of what is not exported.
pub(crate) const ANY_MOUNT: u64 = u64::MAX;

/// Knows the supplementary groups of users, as `rpc.mountd --manage-gids` does: AUTH_SYS carries 16 at most.
pub trait UserGroups: Send + Sync {
    /// Those of a user; `None` if the server does not know it, so that those the client tells hold. Does not wait for the
    /// name service: the call is answered NFS3ERR_JUKEBOX.
    fn groups_of(&self, uid: u32) -> Result<Option<Arc<[u32]>>, Pending>;
}

impl UserGroups for Groups {
    fn groups_of(&self, uid: u32) -> Result<Option<Arc<[u32]>>, Pending> {
        self.look_up(uid)
    }
}

pub(crate) struct State {
    table: ArcSwap<Table>,
    pub(crate) signer: Signer,
    /// Of this instance of this node.
    pub(crate) write_verf: WriteVerf,
    mounts: Mutex<VecDeque<(IpAddr, PathBuf)>>,
    refused: Mutex<LruCache<(IpAddr, u64), Instant>>,
    port_refusals: AtomicU64,
    pub(crate) metrics: Metrics,
    /// `--manage-gids`: who asks the server, not the client, for a user's groups.
    pub(crate) groups: Option<Box<dyn UserGroups>>,
    /// Who tells which clients the rules of exports name.
    pub(crate) names: &'static dyn Names,
    stopping: AtomicBool,
}

impl State {
    pub(crate) fn new(exports: Vec<ServedExport>, signer: Signer, write_verf: WriteVerf) -> Self {
        Self {
            table: ArcSwap::from_pointee(Table::new(exports, Vec::new())),
            signer,
            write_verf,
            mounts: Mutex::default(),
            refused: Mutex::new(LruCache::new(MAX_REFUSED_CLIENTS)),
            port_refusals: AtomicU64::new(0),
            metrics: Metrics::new(),
            groups: None,
            names: names::system(),
            stopping: AtomicBool::new(false),
        }
    }

    /// From now on the server answers what it has taken and takes no more.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Relaxed);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    /// What is exported at this moment. A call takes it once, so that it sees one table from its beginning to its end.
    pub(crate) fn table(&self) -> Snapshot {
        self.table.load()
    }

    /// Calls that begin from now on see `table`; those that have begun go on with theirs.
    pub(crate) fn export(&self, table: Table) {
        self.table.store(Arc::new(table));
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

    /// Whether a refusal of this client is to be logged: once in [`REFUSAL_PAUSE`] for each `subject`, an export's id or
    /// [`ANY_MOUNT`].
    pub(crate) fn is_news(&self, client: IpAddr, subject: u64) -> bool {
        let now = Instant::now();
        let mut refused = locked(&self.refused);
        let recent = |last: &Instant| now.duration_since(*last) < REFUSAL_PAUSE;
        let news = !refused.get(&(client, subject)).is_some_and(recent);
        if news {
            refused.put((client, subject), now);
        }
        news
    }

    fn log_refusal(&self, peer: SocketAddr, export: &ServedExport) {
        if !self.is_news(peer.ip(), export.id) {
            return;
        }
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

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{self, Write};

    use super::*;
    use crate::exports::Exports;
    use crate::vfs::memory::MemoryVfs;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(buf)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged while this runs.
    pub(crate) fn logged(run: impl FnOnce()) -> String {
        let log = Log::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(move || writer.clone());
        tracing::subscriber::with_default(subscriber.finish(), run);
        String::from_utf8(log.0.lock().unwrap().clone()).unwrap()
    }

    fn state(text: &str) -> State {
        let exports = Exports::parse(Path::new("exports"), text.as_bytes()).unwrap();
        let served = |(id, export): (u64, crate::exports::Export)| {
            ServedExport::of(export.path, id, Arc::new(MemoryVfs::new(1 << 20, id)), export.rules)
        };
        State::new((1..).zip(exports.list).map(served).collect(), Signer::new([0; 32]), [0; 8])
    }

    #[test]
    fn a_refused_port_is_logged_once_with_both_remedies() {
        let state = state("/srv/data *(rw)\n/open *(insecure)");
        let try_port = |path: &str, port: u16| {
            let table = state.table();
            let export = table.above(Path::new(path)).unwrap();
            let peer = SocketAddr::from(([192, 0, 2, 7], port));
            state.may_use_port(peer, export, export.options_for(peer.ip(), state.names).unwrap().unwrap())
        };
        let text = logged(|| {
            assert!(!try_port("/srv/data", 1024) && !try_port("/srv/data", 40001));
            assert!(try_port("/srv/data", 1023) && try_port("/open", 40001));
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        for part in
            ["client=192.0.2.7", "port=1024", "export=/srv/data", "mount with resvport", "with insecure"]
        {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert_eq!(state.port_refusals(), 2);
    }

    #[test]
    fn a_call_keeps_the_table_it_began_with() {
        let state = state("/a *");
        let begun = state.table();
        state.export(Table::default());
        assert!(begun.above(Path::new("/a")).is_some());
        assert!(state.table().above(Path::new("/a")).is_none());
    }

    #[test]
    fn mounts_are_bounded() {
        let state = state("/a *");
        let client = IpAddr::from([192, 0, 2, 7]);
        (0..MAX_MOUNTS + 10).for_each(|n| state.mounted(client, Path::new(&format!("/a/{n}"))));
        assert_eq!(state.mounts().len(), MAX_MOUNTS);
        state.unmounted(client, None);
        assert!(state.mounts().is_empty());
    }
}
