//! What the cache did, for the operator.

/// Why a call was answered from the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    /// It came again on a connection it had come on before.
    SameConnection,
    /// The connection it was answered on is gone; it came from the same port.
    SamePort,
    /// The connection it was answered on is gone; it came from another port.
    OtherPort,
    /// The connection it was answered on is not known to be gone, but did not acknowledge the reply.
    Inferred,
}

/// Counts since the cache was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls executed, the first and any later time.
    pub executed: u64,
    /// Answered from the cache, as [`Replayed::SameConnection`].
    pub same_connection: u64,
    /// Answered from the cache, as [`Replayed::SamePort`].
    pub same_port: u64,
    /// Answered from the cache, as [`Replayed::OtherPort`].
    pub other_port: u64,
    /// Answered from the cache, as [`Replayed::Inferred`].
    pub inferred: u64,
    /// Came again on the connection on which they were in progress.
    pub in_progress: u64,
    /// Held until it was known whose they are.
    pub held: u64,
    /// Held calls decided without evidence, to hold another.
    pub forced: u64,
    /// Executed as new work though an equal call was in the cache: of another live client, or after a clean close.
    pub told_apart: u64,
    /// Refused because too much was in progress or held.
    pub refused: u64,
    /// Not kept because they failed at the RPC level.
    pub abandoned: u64,
    /// Replies forgotten to make room, known to have been received.
    pub evicted_settled: u64,
    /// Replies forgotten to make room that a client may ask for again.
    pub evicted_unsettled: u64,
    /// Of those, kept for less than [`super::MIN_KEEP`].
    pub evicted_young: u64,
    /// Replies forgotten because of their age.
    pub expired: u64,
}

impl Counters {
    pub(super) fn replayed(&mut self, how: Replayed) {
        let count = match how {
            Replayed::SameConnection => &mut self.same_connection,
            Replayed::SamePort => &mut self.same_port,
            Replayed::OtherPort => &mut self.other_port,
            Replayed::Inferred => &mut self.inferred,
        };
        *count += 1;
    }

    /// Calls answered from the cache.
    pub fn hits(&self) -> u64 {
        self.same_connection + self.same_port + self.other_port + self.inferred
    }

    /// The sums of two caches' counts.
    #[must_use]
    pub fn plus(self, other: &Self) -> Self {
        Self {
            executed: self.executed + other.executed,
            same_connection: self.same_connection + other.same_connection,
            same_port: self.same_port + other.same_port,
            other_port: self.other_port + other.other_port,
            inferred: self.inferred + other.inferred,
            in_progress: self.in_progress + other.in_progress,
            held: self.held + other.held,
            forced: self.forced + other.forced,
            told_apart: self.told_apart + other.told_apart,
            refused: self.refused + other.refused,
            abandoned: self.abandoned + other.abandoned,
            evicted_settled: self.evicted_settled + other.evicted_settled,
            evicted_unsettled: self.evicted_unsettled + other.evicted_unsettled,
            evicted_young: self.evicted_young + other.evicted_young,
            expired: self.expired + other.expired,
        }
    }
}
