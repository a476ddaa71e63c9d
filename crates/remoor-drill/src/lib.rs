//! The network a failover drill runs in: hosts as network namespaces, the links between them, a balancer
//! that forwards real packets, faults that break a node, and captures of what crossed the wire.
//!
//! Everything is built with rtnetlink and ioctls; no `ip` binary is needed. It works as root and, through a user
//! namespace, as an ordinary user. [`namespace::enter_private`] comes first, before any thread exists.

pub mod attempts;
pub mod balancer;
pub mod capture;
pub mod fault;
pub mod namespace;
pub mod segment;
pub mod topology;

mod link;
mod stop;
mod sys;

pub use link::{End, LinkError, Mac};
