//! remoor-server

pub mod errno;
pub mod handle;
mod sys;
pub mod vfs;
