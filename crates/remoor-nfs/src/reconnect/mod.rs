//! The client reconnect machine: which connection carries a mount's calls, and what happens when it fails.
//!
//! Sans-IO in the style of quinn-proto. A driver owns the sockets and the clock; it feeds [`Event`]s, calls
//! [`Machine::handle_timeout`] when [`Machine::poll_timeout`] says so, and after each of these (and after
//! [`Machine::call`]) takes [`Action`]s and [`Transmit`]s until there are none, in order.
//!
//! ```text
//!          connect            Connected          NULL answered
//!   Idle ----------> Connecting ------> Proving ---------------> Ready <--------------+
//!                     ^  |  ^ time used up |                       |  silent          | any byte
//!                     |  |  +--------------+                       v                  |
//!              Retry  |  | failed                               Suspect -------------+
//!                     |  v                                         |  path dead or stuck,
//!                   BackingOff                                     v  and (fresh) race proven
//!                                                               Draining --> Ready on the new connection
//! ```
//!
//! Every connection, the first of a mount included, must answer NULL before it carries calls. That costs one round
//! trip and finds a peer that accepts but does not serve, or that is no NFS server.
//!
//! With [`Rebind::Fresh`] a suspect connection is raced by a second one from another port, and calls move only to a
//! proven connection. With [`Rebind::Same`] there can be no race: the port is free only after the old socket is
//! closed, so the old connection is abandoned on evidence alone.

mod attempt;
mod config;
mod event;
mod machine;
mod notice;
mod pace;
mod port;
mod probe;
mod suspect;
mod timer;

pub use config::*;
pub use event::*;
pub use machine::{Counters, Machine, State};
pub use notice::{MoveReason, Notice};
pub use port::LONGEST_BALANCER_IDLE;
pub use timer::Timer;

#[cfg(test)]
mod tests;
