//! Data of regular files: what the rest of the file system asks of it.

use super::node::Node;
use super::open::OpenFile;
use super::{Credential, Fs};
use crate::errno::Errno;

/// Data of one file.
#[derive(Debug, Default)]
pub(crate) struct FileData {}

/// Data of one open file: read-ahead, the errors not reported yet.
#[derive(Debug, Default)]
pub(crate) struct OpenData {}

impl Fs {
    /// Writes what is dirty, so that the attributes asked for next do not change by it later.
    pub(super) async fn data_before_attributes(&self, _node: &Node) -> Result<(), Errno> {
        Ok(())
    }

    /// The size to be shown for `server`, the size on the server.
    pub(super) fn data_size(&self, _node: &Node, server: u64) -> u64 {
        server
    }

    /// Whether something is dirty, so that the kernel must ask again before it shows attributes.
    pub(super) fn data_dirty(&self, _node: &Node) -> bool {
        false
    }

    /// About to set the size to `size`: nothing written before may arrive after.
    pub(super) async fn data_before_size(&self, _node: &Node, _size: u64) -> Result<(), Errno> {
        Ok(())
    }

    /// The size is `size` now on the server.
    pub(super) fn data_after_size(&self, _node: &Node, _size: u64) {}

    /// Somebody else has changed the file: what was read before is not true any more.
    pub(super) fn data_changed(&self, _node: &Node) {}

    /// `open` is about to be closed for the last time; nobody waits for what is still to be written.
    pub(super) async fn data_release(&self, _open: &OpenFile) {}

    /// The file's last name is about to go, or has gone: what was not written need not be.
    pub(super) fn data_discard(&self, _node: &Node, _who: &Credential) {}
}
