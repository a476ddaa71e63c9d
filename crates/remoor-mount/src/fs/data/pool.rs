//! What is held of all files: bounds, and what is sent because of its age.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use tokio::sync::{Notify, Semaphore};

use super::super::call::now;
use super::super::node::lock;
use super::super::{Fs, Node, NodeId};
use super::file::{self, Held, WRITE_AGE};

/// Bytes of memory for data that is not stable on the server. A writer waits while there is more.
pub(super) const MAX_HELD: usize = 256 << 20;
/// Bytes of memory for data that is read ahead.
const MAX_AHEAD: usize = 64 << 20;
/// WRITEs and COMMITs in flight.
const MAX_CALLS: usize = 32;

/// What is held of all files.
#[derive(Debug)]
pub(crate) struct Pool {
    held: AtomicUsize,
    max_held: usize,
    /// Less is held than before.
    pub(super) less: Notify,
    pub(super) calls: Semaphore,
    files: Mutex<Files>,
    fs: OnceLock<Weak<Fs>>,
    ahead: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Files {
    /// Files of which something is held: they must not be forgotten.
    held: HashMap<NodeId, Arc<Node>>,
    /// Somebody looks after their age.
    watched: bool,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            held: AtomicUsize::new(0),
            max_held: MAX_HELD,
            less: Notify::new(),
            calls: Semaphore::new(MAX_CALLS),
            files: Mutex::default(),
            fs: OnceLock::new(),
            ahead: Arc::default(),
        }
    }
}

impl Pool {
    /// Whether a writer has to wait.
    pub(super) fn is_full(&self) -> bool {
        self.held.load(Relaxed) >= self.max_held
    }

    /// Bytes held in memory that are not stable on the server.
    pub(super) fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// Bytes held in memory that were read ahead.
    pub(super) fn ahead(&self) -> usize {
        self.ahead.load(Relaxed)
    }

    /// Files of which something is held.
    pub(super) fn files(&self) -> Vec<Arc<Node>> {
        lock(&self.files).held.values().cloned().collect()
    }

    /// Bytes of all files that the server has not answered, and those it has not committed.
    pub(in super::super) fn behind(&self) -> (u64, u64) {
        let of = |node: Arc<Node>| node.data().lock().behind();
        self.files().into_iter().map(of).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// The file of this number, if something of it is held.
    pub(super) fn find(&self, node: NodeId) -> Option<Arc<Node>> {
        lock(&self.files).held.get(&node).cloned()
    }

    /// Memory for reading ahead, if there is any left.
    pub(super) fn reserve(&self, bytes: usize) -> Option<Reservation> {
        let reservation = Reservation { sum: self.ahead.clone(), bytes };
        // The reservation gives back what it has taken also when it was too much.
        (self.ahead.fetch_add(bytes, Relaxed) + bytes <= MAX_AHEAD).then_some(reservation)
    }

    /// The file system, for tasks that outlive a call.
    pub(super) fn fs(&self) -> Option<Arc<Fs>> {
        self.fs.get()?.upgrade()
    }
}

/// Memory taken for reading ahead.
#[derive(Debug)]
pub(super) struct Reservation {
    sum: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.sum.fetch_sub(self.bytes, Relaxed);
    }
}

impl Fs {
    /// Changes what is held of a file, and keeps the sums.
    pub(super) fn update<R>(&self, node: &Arc<Node>, change: impl FnOnce(&mut Held) -> R) -> R {
        let mut files = lock(&self.data.files);
        let (result, sum) = file::update(node, change);
        let ends = match sum.stable {
            true => files.held.remove(&node.id).is_some(),
            false => {
                self.hold(&mut files, node);
                false
            }
        };
        let watch = !sum.stable && !files.watched;
        files.watched |= watch;
        drop(files);
        if ends {
            self.forget(node.id, 1);
        }
        self.data.held.fetch_add(sum.after, Relaxed);
        self.data.held.fetch_sub(sum.before, Relaxed);
        if sum.after < sum.before {
            self.data.less.notify_waiters();
        }
        if watch && let Some(fs) = self.data.fs() {
            tokio::spawn(fs.watch_age());
        }
        result
    }

    /// Notes that something of a file is held. If it is looked up again it must be found, though the kernel may have
    /// forgotten it meanwhile.
    fn hold(&self, files: &mut Files, node: &Arc<Node>) {
        if let Entry::Vacant(place) = files.held.entry(node.id) {
            place.insert(node.clone());
            self.nodes.again(node.id);
        }
    }

    /// Lets tasks outlive the calls that begin them.
    pub(super) fn outlive(self: &Arc<Self>) {
        self.data.fs.get_or_init(|| Arc::downgrade(self));
    }

    /// Writes what has been held for long, until nothing is held.
    async fn watch_age(self: Arc<Self>) {
        loop {
            tokio::time::sleep(WRITE_AGE / 2).await;
            let files = self.data.files();
            for node in &files {
                node.data().lock().want_by_age(now());
                self.pump(node);
            }
            let mut files = lock(&self.data.files);
            if files.held.is_empty() {
                files.watched = false;
                return;
            }
        }
    }
}
