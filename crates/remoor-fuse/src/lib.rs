//! The kernel's side of a FUSE file system: `/dev/fuse` requests and replies, interrupts, notifications, mounting.
//!
//! The protocol is that of `linux/fuse.h`, version 7.31 and later.
//!
//! A FUSE_INTERRUPT arrives for any signal, but only a fatal one ends a request by default: a
//! program that takes SIGALRM must not see EINTR from a file system, and one that was killed must not wait for ever.

mod abi;
mod attributes;
mod directory;
mod errno;
mod filesystem;
mod operation;
mod reply;

pub use attributes::{Attributes, Entry, NodeId, OpenFlags, Statfs, Time};
pub use directory::{DirectoryBuffer, DirectoryEntry};
pub use errno::Errno;
pub use filesystem::{Caller, Filesystem, Negotiated};
pub use operation::{Operation, SetAttributes, TimeOrNow};
pub use reply::Reply;
