//! The server's reply cache: a call that was executed once is answered from it when it comes again, from any port, and
//! a live second client that sends the same bytes is not.
//!
//! Sans-IO: the driver owns sockets and clock, tells what happened, and after each step takes [`Action`]s from
//! [`ReplyCache::poll`] until there are none. What the kernel knows of a connection is asked for through a closure, only
//! when the answer depends on it.
//!
//! ```text
//!   new call --> in progress --> done, unsettled --> done, settled (the next such call is new work)
//!                    ^                 |    connection closed cleanly, reply acknowledged
//!                    |                 |
//!          executed as new work     replayed: same connection, or the connection it was sent to is gone
//! ```
//!
//! The same bytes with the same xid, from the same client, on
//!
//! | connection | what is known of the connection the reply was sent to | the call is |
//! |---|---|---|
//! | the same | | answered again; while in progress, answered once when done |
//! | another | in progress | held until done, then as below |
//! | another | reset, timed out, superseded, or ended with the reply unacknowledged | answered from the cache |
//! | another | closed cleanly, reply acknowledged | new work |
//! | another | open, reply acknowledged, heard since, and still open after [`Config::grace`] | new work: another live client |
//! | another | open, reply acknowledged, but silent | held while it is probed: until it is heard (as above), it is reset, or it has not answered for [`PROBE_ANSWER`] (answered from the cache) |
//! | another | open, reply not acknowledged | held: until the acknowledgement (new work), the connection's end, [`RETRANSMITS`] of the reply without an answer, [`REPEATS`] of the held call, or [`HOLD_LIMIT`] (answered from the cache) |
//!
//! The grace is for what an acknowledgement does not say: a client may leave a connection whose reply it has not read,
//! and its RST then comes after the acknowledgement. It also lets the end of an old connection overtake a call that was
//! queued there while the client was already answered elsewhere.
//!
//! What cannot be told apart: two live clients equal in address, machine name, credentials, xid and bytes, of which the
//! first's connection broke, left the reply unacknowledged, or could not be reached for [`PROBE_ANSWER`]; and a client
//! that sends the same xid and bytes on one connection as new work. Both are answered from the cache. The other way round,
//! a client is executed twice only if it comes back while something still answers for the connection it left unread: its
//! own kernel, because the socket was not closed within the grace, or a device that keeps connections alive for a dead
//! host. Through a relay that ends the server's side with a FIN although its client's side was reset, a lost reply looks
//! like one that was read.
//!
//! | module | subject |
//! |---|---|
//! | `key` | what makes two calls the same |
//! | `rule` | the table above |
//! | `hold` | calls that wait for evidence |
//! | `shelf` | in which order replies are forgotten |
//! | `cache` | the machine |

mod cache;
mod config;
mod counters;
mod entry;
mod hold;
mod key;
mod retain;
mod rule;
mod shelf;

pub use cache::{Action, Caller, ReplyCache, Ticket, Verdict};
pub use config::{
    Config, HOLD_LIMIT, HOLD_LOOK, MIN_KEEP, PROBE_ANSWER, PROBE_EVERY, PROBE_IDLE, REPEATS, RETRANSMITS,
};
pub use counters::{Counters, Replayed};
pub use key::{ClientId, Credential, Key, SAMPLED, WHOLE, is_kept};
pub use rule::{ConnectionId, End, How, Standing};

#[cfg(test)]
mod tests;
