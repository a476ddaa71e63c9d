//! The file systems behind the server, driven through [`remoor_server::vfs::Vfs`] alone.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod caching;
mod directory;
mod escape;
mod full;
mod handles;
mod identity;
mod model;
#[path = "../ops/mod.rs"]
mod ops;
mod served;
