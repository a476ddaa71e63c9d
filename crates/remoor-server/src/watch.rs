//! Whether an exported file system answers, and how much it is used. A thread of its own asks it, so that nobody who
//! wants to know can be held up by it.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

use remoor_nfs::v3::NfsStat;

use crate::vfs::{Caller, Vfs};

/// How often a file system is asked.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// What is known of an export's file system.
#[derive(Default)]
pub(crate) struct Watch {
    /// NFS calls on its objects.
    pub(crate) calls: AtomicU64,
    probe: Mutex<Probe>,
    thread: OnceLock<Thread>,
}

#[derive(Default)]
struct Probe {
    /// When the question was asked that is not answered yet.
    asked: Option<Instant>,
    /// What it answered last, if that was no good.
    failed: Option<NfsStat>,
}

/// What a file system does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// It answers in time.
    Well,
    /// It has not answered for this long.
    Silent(Duration),
    /// It answers with an error.
    Failing(NfsStat),
}

impl Watch {
    /// Begins to ask `vfs`, until nobody watches any more.
    pub(crate) fn start(name: &str, vfs: Arc<dyn Vfs>) -> Arc<Self> {
        let watch = Arc::new(Self::default());
        let weak = Arc::downgrade(&watch);
        let thread = std::thread::Builder::new().name("nfs-probe".to_owned());
        match thread.spawn(move || ask_on(&weak, &*vfs)) {
            Ok(handle) => _ = watch.thread.set(handle.thread().clone()),
            Err(e) => {
                tracing::warn!(export = name, "its health is not watched, no thread can be started: {e}")
            }
        }
        watch
    }

    /// What is known of its health; silence counts from `limit` on.
    pub(crate) fn health(&self, limit: Duration) -> Health {
        let probe = self.probe();
        let silent = probe.asked.map(|asked| asked.elapsed()).filter(|silence| *silence >= limit);
        match (silent, probe.failed) {
            (Some(silence), _) => Health::Silent(silence),
            (None, Some(status)) => Health::Failing(status),
            (None, None) => Health::Well,
        }
    }

    /// Whether it answers, in time.
    pub(crate) fn is_well(&self, limit: Duration) -> bool {
        self.health(limit) == Health::Well
    }

    fn probe(&self) -> MutexGuard<'_, Probe> {
        self.probe.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

fn ask_on(watch: &Weak<Watch>, vfs: &dyn Vfs) {
    while let Some(watched) = watch.upgrade() {
        watched.probe().asked = Some(Instant::now());
        // Nothing keeps the watch from being dropped while the file system is silent.
        drop(watched);
        let failed = ask(vfs).err();
        let Some(watched) = watch.upgrade() else { return };
        *watched.probe() = Probe { asked: None, failed };
        drop(watched);
        std::thread::park_timeout(PROBE_EVERY);
    }
}

/// The attributes of the root may be cached; the state of the file system is not (`fuse_statfs`, `nfs_statfs`).
fn ask(vfs: &dyn Vfs) -> Result<(), NfsStat> {
    let server = Caller { uid: 0, gid: 0, gids: Vec::new() };
    vfs.getattr(&server, &vfs.root()?)?;
    vfs.fsstat(&server).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(asked: Option<Instant>, failed: Option<NfsStat>) -> Watch {
        let watch = Watch::default();
        *watch.probe() = Probe { asked, failed };
        watch
    }

    #[test]
    fn silence_counts_from_the_limit_on_and_says_more_than_an_old_error() {
        let limit = Duration::from_secs(3);
        let asked = Instant::now().checked_sub(Duration::from_secs(2));
        assert_eq!(watch(None, None).health(limit), Health::Well);
        assert_eq!(watch(asked, None).health(limit), Health::Well);
        assert_eq!(watch(asked, Some(NfsStat::Io)).health(limit), Health::Failing(NfsStat::Io));
        let silent = watch(asked, Some(NfsStat::Io)).health(Duration::from_secs(1));
        assert!(matches!(silent, Health::Silent(silence) if silence >= Duration::from_secs(2)), "{silent:?}");
    }
}
