//! How clients find and reach the server, with Debian's own tools, in a network and mount namespace of each test's own:
//! port 111 and /run are there nobody else's.

#![allow(clippy::unwrap_used, reason = "a test ends where what it needs is missing")]

mod host;
mod portmapper;
mod proxy;
mod registration;
