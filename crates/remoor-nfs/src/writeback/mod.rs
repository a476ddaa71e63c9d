//! One file's written data that is not known to be on stable storage: which bytes were never sent, which are on their way
//! and which the server may still lose.
//!
//! Sans-IO: the driver puts data in with [`Writeback::write`], sends what [`Writeback::poll_write`] and
//! [`Writeback::poll_commit`] give out, and tells the answers to [`Writeback::wrote`] and [`Writeback::committed`].
//!
//! ```text
//!   written --> dirty --> in flight --> unstable --> stable: forgotten
//!                 ^           |  rest of a   |  another write verifier
//!                 |           | short WRITE  |
//!                 +-----------+--------------+
//! ```
//!
//! - Where writes overlap, the newest data wins: older pieces are cut out, and never sent again.
//! - A WRITE never overlaps one in flight, because a server may execute them in any order.
//! - A COMMIT covers the WRITEs that were answered before it was sent, if its write verifier is theirs (RFC 1813 sections
//!   3.3.7 and 3.3.21). A new verifier in the answer to an UNSTABLE WRITE or a COMMIT makes all unstable data dirty
//!   again: replies come in any order, so what was sent again needlessly is the price for never losing any.
//! - What a WRITE or COMMIT fails with is kept for whoever asks next through a file that was open then, and the data is
//!   dropped, as Linux does (errseq_t, `nfs_write_error`).
//!
//! | module | subject |
//! |---|---|
//! | `piece` | some bytes and how far they have come |
//! | `pieces` | all pieces of a file, disjoint, with their sums |
//! | `runs` | which ranges are dirty, and which are long enough for a full WRITE |
//! | `errors` | an error is told once to each open file |
//! | `machine` | the machine |

mod errors;
mod machine;
mod piece;
mod pieces;
mod runs;

pub use errors::ErrorMark;
pub use machine::{CommitId, Mark, Urgency, Write, WriteId, Writeback, Wrote};
pub use piece::{CHUNK, OVERHEAD, SMALL};

#[cfg(test)]
mod tests;
