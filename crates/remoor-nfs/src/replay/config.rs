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
/// Times a held call is sent again, from which its client is taken to be the one that did not get the reply.
pub const REPEATS: u32 = 2;
/// Entries with one key, that is live clients that look the same; the oldest goes first.
pub(super) const MAX_TWINS: usize = 4;
/// Connections an entry remembers to have been asked by, apart from the last.
pub(super) const MAX_ASKERS: usize = 8;

/// How much a cache holds and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Entries of one client, in progress or done. More than its calls that can execute at once.
    pub client_entries: usize,
    /// Entries of all clients. More than the calls that can execute at once.
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
