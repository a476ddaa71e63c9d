//! Limits, each with the reason for its value.

use std::time::Duration;

/// Least time a reply that may not have been read is kept while there is room. A Linux client with a fixed port was
/// measured to come back after 450 s, and nfs-ganesha keeps 600 s.
pub const MIN_KEEP: Duration = Duration::from_secs(600);
/// How often a held call's evidence is looked at again.
pub const HOLD_LOOK: Duration = Duration::from_millis(50);
/// Longest a call is held for want of evidence; also behind a relay, where an acknowledgement is none.
pub const HOLD_LIMIT: Duration = Duration::from_secs(60);
/// Retransmissions and probes of a reply in a row that nobody answered, from which its client is taken to be gone: 0.6 s
/// with the least retransmission timeout of Linux.
pub const RETRANSMITS: u32 = 2;
/// How long an open connection that acknowledged a reply must be silent before its kernel sends it a probe: the least
/// TCP_KEEPIDLE of tcp(7).
pub const PROBE_IDLE: Duration = Duration::from_secs(1);
/// How often it is asked to.
pub const PROBE_EVERY: Duration = Duration::from_millis(250);
/// How long a connection that is probed is given to answer, before its client is taken to be gone.
pub const PROBE_ANSWER: Duration = Duration::from_secs(1);
/// What a client's TCP was heard to say so soon after the call came on another connection may have been said before: the
/// clock of `tcpi_last_ack_recv` is that of jiffies, and what it tells is rounded.
pub(super) const HEARD_AFTER: Duration = Duration::from_millis(20);
/// Times a held call is sent again, from which its client is taken to be the one that did not get the reply.
pub const REPEATS: u32 = 2;
/// Entries with one key, that is live clients that look the same; the oldest goes first.
pub(super) const MAX_TWINS: usize = 4;
/// Connections an entry remembers to have been asked by, apart from the last.
pub(super) const MAX_ASKERS: usize = 8;

/// How much a cache holds and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Calls that can execute at once, apart from those that were held.
    pub running: usize,
    /// Entries of one client, in progress or done; at least [`Config::least_entries`].
    pub client_entries: usize,
    /// Entries of all clients; at least [`Config::least_entries`].
    pub entries: usize,
    /// Bytes of replies of all clients. The longest reply that is kept, CREATE's, has less than 400.
    pub reply_bytes: usize,
    /// Calls held for evidence, at least one. For a further one, the longest held is decided without.
    pub held_calls: usize,
    /// How long a done entry is kept, at least [`MIN_KEEP`].
    pub keep: Duration,
    /// How long an open connection that acknowledged a reply must stay open after the same call came on another one.
    pub grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            running: 16,
            client_entries: 4096,
            entries: 65536,
            reply_bytes: 32 << 20,
            held_calls: 256,
            keep: Duration::from_secs(3600),
            grace: Duration::from_millis(250),
        }
    }
}

impl Config {
    /// Entries below which a cache could be full of calls in progress, and would have to refuse a call: the client comes again,
    /// to find that a refused other one has pushed out the replies it did not get to read, and so on without end.
    ///
    /// Of the calls that were held, no more than [`Config::held_calls`] are in progress with those that were not, which are
    /// [`Config::running`] at most, both when a held one begins and after it; and one place is for the call that comes.
    pub fn least_entries(&self) -> usize {
        self.most_begun() + self.running + 1
    }

    /// Calls in progress with which no held one begins.
    pub(super) fn most_begun(&self) -> usize {
        self.running + self.held_calls.max(1)
    }

    /// With the limits no lower than they may be.
    pub(super) fn sound(self) -> Self {
        let least = self.least_entries();
        Self { client_entries: self.client_entries.max(least), entries: self.entries.max(least), ..self }
    }

    /// This cache's share if the calls are spread evenly over `shards` caches.
    pub fn shared_by(self, shards: usize) -> Self {
        let share = |limit: usize| limit.div_ceil(shards.max(1));
        Self {
            client_entries: share(self.client_entries),
            entries: share(self.entries),
            reply_bytes: share(self.reply_bytes),
            held_calls: share(self.held_calls),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_no_less_than_the_whole() {
        let whole = Config::default();
        let share = whole.shared_by(7);
        assert!(share.entries * 7 >= whole.entries && share.entries * 7 < whole.entries + 7);
        assert!(share.client_entries * 7 >= whole.client_entries && share.held_calls * 7 >= whole.held_calls);
        assert_eq!((share.keep, share.grace), (whole.keep, whole.grace));
        assert_eq!(whole.shared_by(0), whole);
    }
}
