//! NFS version 3, RFC 1813: [`types`] shared by the procedures, and the [`procedure`] table with arguments and results.

pub mod procedure;
pub mod types;

pub use procedure::*;
pub use types::*;
