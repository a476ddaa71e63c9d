//! fsync, close, sync, and everything that waits for data to be written.

use std::pin::pin;
use std::sync::Arc;

use super::super::open::{OpenFile, OpenId};
use super::super::{Fs, Node};
use super::file::Held;
use crate::errno::Errno;

impl Fs {
    /// Makes everything written to the file stable, by whomever it was written.
    ///
    /// # Errors
    /// What a WRITE or COMMIT of it failed with, told once to each open file.
    pub async fn fsync(&self, open: OpenId) -> Result<(), Errno> {
        let open = self.opens.get(open)?;
        self.stable(&open.node).await;
        self.take_error(&open.node, &open.data.errors)
    }

    /// One of the descriptors of an open file is closed: what was written is stable when this returns, as close-to-open
    /// consistency asks.
    ///
    /// # Errors
    /// As [`Fs::fsync`].
    pub async fn flush(&self, open: OpenId) -> Result<(), Errno> {
        let open = self.opens.get(open)?;
        if !open.flags.write() {
            return Ok(());
        }
        self.stable(&open.node).await;
        self.take_error(&open.node, &open.data.errors)
    }

    /// Makes everything written to any file stable.
    ///
    /// # Errors
    /// EIO if something was not, for whatever reason.
    pub async fn sync_all(&self) -> Result<(), Errno> {
        let mut result = Ok(());
        let files = self.data.files();
        let marks: Vec<_> = files.iter().map(|node| node.data().lock().error_mark()).collect();
        self.relieve();
        for (node, mark) in files.iter().zip(marks) {
            self.stable(node).await;
            if node.data().lock().peek_error(mark).is_some() {
                result = Err(Errno::IO);
            }
        }
        result
    }

    /// Bytes of memory that hold data which is not stable on the server.
    pub fn held_bytes(&self) -> usize {
        self.data.held()
    }

    /// Bytes of memory that hold data which was read ahead.
    pub fn ahead_bytes(&self) -> usize {
        self.data.ahead()
    }

    /// Waits until `done`, which only the answer to a WRITE or COMMIT or the opening of the gate can bring about.
    pub(super) async fn wait(&self, node: &Node, done: impl Fn(&Held) -> bool) {
        let data = node.data();
        loop {
            let mut progress = pin!(data.progress.notified());
            progress.as_mut().enable();
            if done(&data.lock()) {
                return;
            }
            progress.await;
        }
    }

    /// Waits until everything written before has been answered by the server.
    async fn written(&self, node: &Node) {
        let Some(data) = node.data_if_opened() else { return };
        let Some(mark) = data.lock().want_written() else { return };
        self.pump_held(node);
        self.wait(node, |held| held.is_written(mark)).await;
    }

    fn pump_held(&self, node: &Node) {
        if let Some(node) = self.data.find(node.id) {
            self.pump(&node);
        }
    }

    /// Writes what is dirty, so that the attributes asked for next do not change by it later.
    pub(in super::super) async fn data_before_attributes(&self, node: &Node) {
        self.written(node).await;
    }

    /// Before the size is set: nothing written before may arrive after, and nothing is sent or taken over as long as the
    /// gate is kept. One size is set at a time.
    pub(in super::super) async fn close_gate(self: &Arc<Self>, node: &Arc<Node>) -> SizeGate {
        while !node.data().lock().close_gate() {
            self.written(node).await;
            self.wait(node, |held| !held.is_gated()).await;
            tokio::task::yield_now().await;
        }
        SizeGate { fs: self.clone(), node: node.clone() }
    }

    /// The last descriptor of `open` is closed. What a killed process left is written without anybody waiting.
    pub(in super::super) fn data_release(&self, open: &OpenFile) {
        if !open.node.data().lock().is_stable() {
            open.node.data().lock().want_stable();
            self.pump(&open.node);
        }
    }

    /// `open` was the last way to a file without a name: what was not written need not be, unless the file has another
    /// name.
    pub(in super::super) fn data_discard(&self, open: &OpenFile) {
        let only = open.node.state().attributes.held().is_some_and(|attr| attr.nlink == 1);
        if !only {
            return self.data_release(open);
        }
        self.update(&open.node, |held| held.truncate(0));
    }
}

/// Nothing of a file is sent or taken over while somebody has this.
#[derive(Debug)]
#[must_use = "opens when dropped"]
pub(crate) struct SizeGate {
    fs: Arc<Fs>,
    node: Arc<Node>,
}

impl SizeGate {
    /// The size is `size` now on the server.
    pub(crate) fn set(&self, size: u64) {
        self.fs.update(&self.node, |held| held.truncate(size));
    }
}

impl Drop for SizeGate {
    fn drop(&mut self) {
        self.node.data().lock().open_gate();
        self.fs.pump_held(&self.node);
        self.node.data().progress.notify_waiters();
    }
}
