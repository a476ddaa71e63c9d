//! Writing.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;

use super::super::call::now;
use super::super::open::{OpenFile, OpenFlags, OpenId};
use super::super::{Fs, Node};
use super::file::Busy;
use crate::errno::Errno;

impl Fs {
    /// Writes `data` at `offset` of an open file, whose flags are `flags` now (fcntl(2) changes O_APPEND and O_DIRECT).
    /// Returns how many bytes were written, always all. They are in memory then, and on the server later; with O_SYNC,
    /// O_DSYNC, O_DIRECT, `sync` or `noac` they are stable there.
    ///
    /// With O_APPEND the data goes to the end of the file as far as that is known here, and `offset` is ignored.
    ///
    /// # Errors
    /// EBADF if it is not open for writing, EFBIG beyond what the server can store, and what earlier writes failed with
    /// for lack of space, told once.
    pub async fn write(
        self: &Arc<Self>,
        open: OpenId,
        offset: u64,
        data: Bytes,
        flags: OpenFlags,
    ) -> Result<usize, Errno> {
        self.outlive();
        let open = self.opens.get(open)?;
        if !open.flags.write() {
            return Err(Errno::BADF);
        }
        self.no_space_before(&open)?;
        let offset = if flags.append() { self.append_at(&open, offset).await? } else { offset };
        let count = data.len();
        if offset.checked_add(count as u64).is_none_or(|end| end > self.limits.file) {
            return Err(Errno::FBIG);
        }
        self.take(&open, offset, data).await;
        self.pump(&open.node);
        if self.is_synchronous(&open, flags) {
            self.stable(&open.node).await;
            self.take_error(&open.node, &open.data.errors)?;
        }
        Ok(count)
    }

    fn is_synchronous(&self, open: &OpenFile, flags: OpenFlags) -> bool {
        let asked = open.flags.sync() || flags.sync() || flags.direct();
        asked || self.config().sync || !self.config().attribute_cache
    }

    /// Once a write has failed for lack of space, the next ones are told before they pile up (`nfs_file_write` of Linux).
    fn no_space_before(&self, open: &OpenFile) -> Result<(), Errno> {
        let mark = *super::lock(&open.data.errors);
        let error = open.node.data().lock().peek_error(mark);
        match error {
            Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => self.take_error(&open.node, &open.data.errors),
            _ => Ok(()),
        }
    }

    /// Where the file ends. The kernel may have an older idea of it, and has put the data there.
    async fn append_at(&self, open: &OpenFile, offset: u64) -> Result<u64, Errno> {
        let node = &open.node;
        self.fresh_attributes(node, &open.who).await?;
        // In this order: see `Fs::shown`.
        let held = self.data_end(node);
        let end = held.max(node.state().attributes.held().map_or(0, |attr| attr.size));
        if end != offset {
            self.kernel.invalidate_data(node.id);
        }
        Ok(end)
    }

    /// Takes data over as soon as there is room.
    async fn take(&self, open: &OpenFile, offset: u64, data: Bytes) {
        let node = &open.node;
        loop {
            self.room().await;
            let at = (offset, data.clone());
            match self.update(node, |held| held.write(&open.who, self.limits.write, at, now())) {
                Ok(()) => return,
                Err(Busy::OfAnother) => self.stable(node).await,
                Err(Busy::Gated) => self.wait(node, |held| !held.is_gated()).await,
            }
            // Others may have gone on writing: they get their turn, and then it is ours.
            tokio::task::yield_now().await;
        }
    }

    /// Waits until less is held than may be.
    async fn room(&self) {
        loop {
            let mut less = pin!(self.data.less.notified());
            less.as_mut().enable();
            if !self.data.is_full() {
                return;
            }
            self.relieve();
            less.await;
        }
    }

    /// Makes everything held stable, so that it need not be held.
    pub(super) fn relieve(&self) {
        for node in self.data.files() {
            node.data().lock().want_stable();
            self.pump(&node);
        }
    }

    /// Waits until everything written to `node` before is stable or has failed.
    pub(super) async fn stable(&self, node: &Arc<Node>) {
        let Some(mark) = node.data().lock().want_stable() else { return };
        self.pump(node);
        self.wait(node, |held| held.is_stable_since(mark)).await;
    }
}
