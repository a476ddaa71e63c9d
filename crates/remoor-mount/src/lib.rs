//! NFS version 3 mount in user space, with the options and semantics of nfs(5).

pub mod control;
pub mod errno;
pub mod fs;
pub mod fuse;
pub mod mounting;
pub mod options;
pub mod status;

pub use errno::Errno;
