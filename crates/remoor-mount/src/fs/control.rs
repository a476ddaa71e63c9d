//! What the command around a mount sees of the file system, and changes of it.

use std::sync::Arc;
use std::time::Duration;

use super::{Config, Fs};
use crate::status::{Counted, Kept};

impl Fs {
    /// How it caches at the moment.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// Caches in this way from now on. What was given to the kernel keeps the time it was given for.
    pub fn reconfigure(&self, config: Config) {
        self.config.store(Arc::new(config));
    }

    /// What was counted since it was mounted.
    pub fn counted(&self) -> Counted {
        self.counters.told()
    }

    /// What is kept at the moment.
    pub fn kept(&self) -> Kept {
        let (dirty_bytes, uncommitted_bytes) = self.data.behind();
        Kept {
            dirty_bytes,
            uncommitted_bytes,
            nodes: self.nodes.len() as u64,
            unstable_bytes: self.held_bytes() as u64,
            read_ahead_bytes: self.ahead_bytes() as u64,
        }
    }

    /// Writes everything back, for at most this long. Tells whether all of it is stable on the server.
    pub async fn write_back(&self, within: Duration) -> bool {
        matches!(tokio::time::timeout(within, self.sync_all()).await, Ok(Ok(())))
    }
}
