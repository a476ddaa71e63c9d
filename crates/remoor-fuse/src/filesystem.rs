//! What a file system implements.

use std::sync::Arc;

use crate::{Errno, NodeId, Operation, Reply};

/// Who asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The user on whose behalf (fsuid).
    pub uid: u32,
    /// The group on whose behalf (fsgid).
    pub gid: u32,
    /// The thread; 0 if it is not visible from the process that mounted, and for the kernel's own read-ahead and
    /// write-back.
    pub pid: u32,
}

/// What was agreed with the kernel at FUSE_INIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// Minor version of protocol 7.
    pub minor: u32,
    /// Longest WRITE, in bytes.
    pub max_write: u32,
    /// Longest READ, in bytes, unless the mount has a smaller `max_read`.
    pub max_read: u32,
    /// Most that is read ahead, in bytes; the mount's bdi may be given more.
    pub max_readahead: u32,
    /// Truncation arrives as O_TRUNC of OPEN instead of as SETATTR.
    pub atomic_o_trunc: bool,
    /// The file system must clear setuid and setgid bits itself where SETATTR, WRITE or OPEN says `kill_suidgid`.
    pub handle_killpriv: bool,
    /// READDIRPLUS is used.
    pub readdirplus: bool,
}

/// A file system, driven by a [`crate::Session`].
///
/// An operation's future may be dropped at any await: its caller was killed, or the file system was unmounted. Only
/// [`Operation::is_kept`] ones always run to their end.
pub trait Filesystem: Send + Sync + 'static {
    /// Called once, before any operation.
    fn init(&self, negotiated: &Negotiated) {
        let _ = negotiated;
    }

    /// Executes an operation. What is not implemented answers [`Errno::ENOSYS`]; the kernel remembers that for most
    /// operations, and takes it as success for FLUSH, FSYNC, ACCESS, OPEN and RELEASE.
    fn call(
        self: Arc<Self>,
        caller: Caller,
        operation: Operation,
    ) -> impl Future<Output = Result<Reply, Errno>> + Send;

    /// The kernel gives back `lookups` of the entries it was given for `node`; at none left it will not name it again.
    fn forget(&self, node: NodeId, lookups: u64);

    /// Called once, when the last reader of the session has ended.
    fn destroy(&self) {}
}
