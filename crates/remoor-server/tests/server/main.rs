//! A server in this process, real TCP on loopback, and a small blocking client.

mod client;
mod connections;
mod exports;
mod fault;
mod interop;
mod ports;
mod procedures;
mod rpc;
