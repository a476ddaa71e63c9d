//! A server in this process, real TCP on loopback, and a small blocking client.

#![allow(clippy::unwrap_used, reason = "a test ends where what it needs is missing")]

mod client;
mod connections;
mod control;
mod exports;
mod fault;
mod interop;
mod lossy;
mod model;
mod nodes;
#[path = "../ops/mod.rs"]
mod ops;
mod ports;
mod procedures;
mod proxy;
mod reload;
mod replay;
mod rpc;
mod streams;
