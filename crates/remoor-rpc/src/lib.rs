//! ONC RPC version 2 (RFC 5531) and XDR (RFC 4506), as data: nothing here opens a socket or reads a clock.
//!
//! | module | subject |
//! |---|---|
//! | [`xdr`] | bounded decoding and segment-wise encoding; payloads are never copied |
//! | [`record`] | record marking on a byte stream, incremental |
//! | [`message`] | calls and replies with every accept and reject status |
//! | [`auth`] | AUTH_NONE and AUTH_SYS credentials |
//! | [`program`] | program tables: one row declares a procedure |
//! | [`portmap`] | the port mapper and rpcbind, program 100000, RFC 1833 |
//! | [`call_table`] | xid to outstanding call, with deadlines that take `now` |
//! | `net` | sockets: source ports, leaving a connection, record I/O (feature `net`) |

pub mod auth;
pub mod call_table;
pub mod message;
#[cfg(feature = "net")]
pub mod net;
pub mod portmap;
pub mod program;
pub mod record;
pub mod xdr;

pub use bytes::Bytes;
