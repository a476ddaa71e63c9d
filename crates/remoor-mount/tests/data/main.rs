//! File data through the file system of a mount, against real servers on loopback.

#![allow(clippy::unwrap_used, reason = "tests")]

mod consistency;
mod durability;
mod exerciser;
mod failure;
mod host;
mod reading;
mod writing;
