//! The file system over NFS version 3, which knows nothing of FUSE.

pub mod config;

pub use config::Config;
