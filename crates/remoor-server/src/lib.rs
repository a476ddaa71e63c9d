//! remoor-server

pub mod vfs;
