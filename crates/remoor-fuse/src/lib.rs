//! The kernel's side of a FUSE file system: `/dev/fuse` requests and replies, interrupts, notifications, mounting.
