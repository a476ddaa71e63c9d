//! NFS version 3 and MOUNT version 3 (RFC 1813) as types, and the machine that brings a client back after its
//! server went away. No I/O, no clock, no randomness but from a seed.
//!
//! | module | subject |
//! |---|---|
//! | [`v3`] | the 22 procedures of NFS version 3 and their types |
//! | [`mnt`] | the MOUNT program, version 3 |
//! | [`reconnect`] | which connection carries a mount's calls, and what happens when it fails |
//! | [`replay`] | which call a server has executed already, and what it answered |
//! | [`writeback`] | which written data a server may still lose, and what is sent to it when |

pub mod mnt;
pub mod reconnect;
pub mod replay;
pub mod v3;
pub mod writeback;
