//! The file system against real servers.
