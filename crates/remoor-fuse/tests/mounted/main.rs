//! Real mounts of a file system in memory, used by real system calls.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod apart;
mod memory;
mod operations;
mod ordinary_user;
mod parallel;
mod served;
mod signals;
mod unmounts;
