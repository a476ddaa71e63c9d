//! The kernel's side of a FUSE file system: `/dev/fuse` requests and replies, interrupts, notifications, mounting.
//!
//! [`mount()`] gives the descriptor of a mounted connection, [`Session`] serves it with a [`Filesystem`], and a
//! [`Notifier`] tells the kernel what changed elsewhere. The protocol is that of `linux/fuse.h`, version 7.31 and later.
//!
//! A FUSE_INTERRUPT arrives for any signal, but only a fatal one ends a request by default ([`InterruptPolicy`]): a
//! program that takes SIGALRM must not see EINTR from a file system, and one that was killed must not wait for ever.

mod abi;
mod attributes;
mod decode;
mod device;
mod directory;
mod errno;
mod filesystem;
mod interrupt;
mod mount;
mod negotiate;
mod notify;
mod operation;
mod pool;
mod reply;
mod session;
mod sys;

pub use attributes::{Attributes, Entry, NodeId, OpenFlags, Statfs, Time};
pub use directory::{DirectoryBuffer, DirectoryEntry};
pub use errno::Errno;
pub use filesystem::{Caller, Filesystem, Negotiated};
pub use interrupt::InterruptPolicy;
pub use mount::{
    MountError, MountFlags, MountPlan, Mounted, Unmount, abort, mount, mounted, remount, set_read_ahead,
    unmount,
};
pub use notify::Notifier;
pub use operation::{Operation, SetAttributes, TimeOrNow};
pub use reply::Reply;
pub use session::{Config, Ended, Reader, Session};
