//! Looking at a running remoor process, and changing it: lines of JSON on a Unix socket for its administrator, pages over
//! HTTP and the text format of Prometheus for monitoring.
//!
//! On the socket, a request is one line of JSON and so is its answer; then the connection ends. Threads of their own
//! serve everything here, so that it answers whatever else the process waits for.

mod door;
pub mod http;
pub mod prometheus;
mod socket;
#[cfg(any(test, feature = "strict"))]
pub mod strict;

pub use door::Door;
pub use socket::{ControlSocket, Refusal, call, is_abandoned, make_dir_of};
