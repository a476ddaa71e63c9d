//! The file systems behind the server, driven through [`remoor_server::vfs::Vfs`] alone.

mod directory;
mod escape;
mod handles;
mod identity;
mod model;
mod served;
