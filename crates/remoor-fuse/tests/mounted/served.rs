//! The file system in memory, mounted on a temporary directory and served by threads of this process.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use remoor_fuse::{Config, Ended, MountError, MountPlan, Notifier, Session, Unmount, mount, unmount};
use tempfile::TempDir;

use crate::memory::Memory;

/// What must come, comes within this; only a hang is longer.
pub(crate) const SOON: Duration = Duration::from_secs(60);

pub(crate) struct Served {
    pub(crate) memory: Arc<Memory>,
    /// Tells of every gated READ that arrives.
    pub(crate) arrived: Receiver<()>,
    pub(crate) notifier: Notifier,
    pub(crate) root: PathBuf,
    pub(crate) ended: Vec<JoinHandle<io::Result<Ended>>>,
    _dir: TempDir,
}

impl Served {
    /// With so many readers, each on a thread of its own; nothing if FUSE is not there.
    pub(crate) fn with(test: &str, readers: usize) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        Self::on(test, dir, readers, |plan| plan)
    }

    pub(crate) fn on(
        test: &str,
        dir: TempDir,
        readers: usize,
        change: impl Fn(MountPlan) -> MountPlan,
    ) -> Option<Self> {
        // No blank, comma or backslash in a name is lost on the way.
        let root = dir.path().join("a b,c\\d");
        std::fs::create_dir(&root).unwrap();
        let device = match mount(&change(MountPlan::new("server:/a,b c", &root))) {
            Ok(device) => device,
            Err(e @ (MountError::NoDevice | MountError::Device { .. } | MountError::NoFusermount { .. })) => {
                remoor_skip::skip(test, e);
                return None;
            }
            Err(e) => panic!("{e}"),
        };
        let (memory, arrived) = Memory::new();
        let session = Session::new(device, memory.clone(), Config::default()).unwrap();
        let notifier = session.notifier();
        let others: Vec<_> = (1..readers).map(|_| session.reader().unwrap()).collect();
        let mut ended = vec![on_thread(|| session.run())];
        ended.extend(others.into_iter().map(|reader| on_thread(|| reader.run())));
        Some(Self { memory, arrived, notifier, root, ended, _dir: dir })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Waits for a READ of a gated file.
    pub(crate) fn wait_for_read(&self) {
        self.arrived.recv_timeout(SOON).unwrap();
    }

    /// Unmounts. Children that other tests start have copies of all descriptors until they execute their program, so it
    /// may be in use for a moment.
    pub(crate) fn unmount(&self) {
        eventually("it is unmounted", || unmount(&self.root, Unmount::Plain).is_ok());
    }

    /// How the session ended, once it has.
    pub(crate) fn ended(&mut self) -> Vec<Ended> {
        self.ended.drain(..).map(|thread| thread.join().unwrap().unwrap()).collect()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.memory.gate.close();
        let _ = unmount(&self.root, Unmount::Lazy);
    }
}

fn on_thread<R: Future<Output = io::Result<Ended>>>(
    run: impl FnOnce() -> R + Send + 'static,
) -> JoinHandle<io::Result<Ended>> {
    thread::spawn(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run())
    })
}

/// Waits until something is so that nothing tells of.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < SOON, "{what}: not within {SOON:?}");
        thread::yield_now();
    }
}
