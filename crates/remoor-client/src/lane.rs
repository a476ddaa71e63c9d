//! The callers' side of one connection: requests go in, and its standing can be read at any time.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use remoor_nfs::reconnect::{CallFailure, Config};
use remoor_rpc::record::Record;
use tokio::sync::{mpsc, oneshot, watch};

use crate::stats;

/// Calls that may wait for a driver.
pub(crate) const MAX_QUEUED_CALLS: usize = 1024;

/// A call before it has an xid.
pub(crate) struct Request {
    pub(crate) encode: Box<dyn FnOnce(u32) -> Record + Send>,
    pub(crate) idempotent: bool,
    pub(crate) reply: oneshot::Sender<Result<Bytes, CallFailure>>,
}

/// What else a driver is told.
#[derive(Debug)]
pub(crate) enum Word {
    /// Somebody has stopped waiting for a call.
    GivenUp,
    /// Timeouts have changed.
    Reconfigure(Box<Config>),
}

/// One connection, as callers see it.
pub(crate) struct Lane {
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) words: mpsc::Sender<Word>,
    pub(crate) failures: watch::Receiver<Failures>,
}

/// Attempts that failed since the last that succeeded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Failures {
    /// Attempts in a row that failed, those that timed out not counted.
    pub(crate) told: usize,
    /// What the last failure was.
    pub(crate) last: Option<String>,
    /// The first connection of all was made.
    pub(crate) connected: bool,
}

/// One connection's standing: written by its driver, read by everybody.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    ready: AtomicBool,
    told: Mutex<stats::Connection>,
}

impl Standing {
    /// Whether new calls are better sent here than to a connection that is being made.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Relaxed)
    }

    pub(crate) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Relaxed);
    }

    pub(crate) fn told(&self) -> MutexGuard<'_, stats::Connection> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
