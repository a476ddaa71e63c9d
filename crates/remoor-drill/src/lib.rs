//! The failover drill: a client, a stateful balancer and two NFS nodes as separate hosts, real I/O, a node that
//! breaks, every SYN on the wire, and what was lost.
//!
//! | module | subject |
//! |---|---|
//! | [`case`] | what to run: balancer, options, fault; the default matrix |
//! | [`run`](mod@run) | one case on real hosts |
//! | [`expect`] | the same case in virtual time: what should come out |
//! | [`report`] | what came out, as table, story and JSON |
//! | [`workload`], [`journal`], [`check`](mod@check) | what applications do, what they were told, what is on disk |
//! | [`fault`] | ways to break a node |
//! | [`topology`], [`namespace`] | hosts as network namespaces, and the links between them |
//! | [`balancer`] | the flow-table model that forwards real packets, and the kernel's own NAT |
//! | [`capture`], [`attempts`], [`segment`] | what crossed the wire |
//! | [`nodes`], [`session`] | the servers' processes, and the client with its workload |
//!
//! Everything is built with rtnetlink and ioctls; no `ip` binary is needed. It works as root and, through a user
//! namespace, as an ordinary user. [`namespace::enter_private`] comes first, before any thread exists.

pub mod attempts;
pub mod balancer;
pub mod capture;
pub mod case;
pub mod check;
pub mod expect;
pub mod fault;
pub mod journal;
pub mod namespace;
pub mod nodes;
pub mod report;
pub mod run;
pub mod segment;
pub mod session;
pub mod topology;
pub mod workload;

mod link;
mod stop;
mod sys;

pub use link::{End, LinkError, Mac};
