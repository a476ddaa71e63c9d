//! remoor-server

pub mod errno;
pub mod handle;
pub mod vfs;
