//! What a workload did and what it was told: the truth a case is checked against.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;

/// What must be true of a name, given what was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// It names a file of exactly these bytes.
    Holds(Bytes),
    /// It names a file of the first of these bytes; the second, written but not yet acknowledged as stable, may follow
    /// whole or in part.
    Begins(Bytes, Bytes),
    /// It names nothing.
    Absent,
    /// Its creation was not answered yet: nothing, or an empty file.
    Creating,
    /// Its removal was not answered yet: nothing, or a file of exactly these bytes.
    Removing(Bytes),
    /// Its renaming was not answered yet: a file of exactly these bytes has either this name or the one given here, and
    /// the other names nothing.
    Renaming(String, Bytes),
}

/// A call that was reported as failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The procedure.
    pub procedure: &'static str,
    /// The name it was about.
    pub name: String,
    /// What the client was told.
    pub error: String,
    /// Whether the call had in fact succeeded.
    pub is_false: bool,
}

/// Collects facts from concurrent writers. Each name belongs to one writer.
#[derive(Debug, Default)]
pub struct Journal {
    inner: Mutex<Record>,
}

/// The content of a journal.
#[derive(Debug, Default, Clone)]
pub struct Record {
    /// The facts, by name.
    pub facts: BTreeMap<String, Fact>,
    /// When each reply came.
    pub replies: Vec<Instant>,
    /// Calls that were reported as failed.
    pub failures: Vec<Failure>,
    /// Acknowledged changes that a client found undone while it worked, in words.
    pub losses: Vec<String>,
    /// Files completed: written, committed and named.
    pub files: u64,
}

impl Journal {
    /// A reply came.
    pub fn replied(&self) {
        self.lock().replies.push(Instant::now());
    }

    /// From now on `name` must be as `fact` says: a call was acknowledged, or one is about to be sent.
    pub fn set(&self, name: &str, fact: Fact) {
        self.lock().facts.insert(name.to_owned(), fact);
    }

    /// One more file is complete.
    pub fn completed(&self) {
        self.lock().files += 1;
    }

    /// A call was reported as failed.
    pub fn failed(&self, failure: Failure) {
        self.lock().failures.push(failure);
    }

    /// A client found that an acknowledged change is not there.
    pub fn lost(&self, what: String) {
        self.lock().losses.push(what);
    }

    /// Files completed so far.
    pub fn files(&self) -> u64 {
        self.lock().files
    }

    /// Everything so far.
    pub fn snapshot(&self) -> Record {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        // A writer that panicked left at most its own name in doubt.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    /// The longest silence that ends after `fault`: from the last reply before it to the first after it. `None` if
    /// no reply came after `fault` and before `until`.
    pub fn gap(&self, fault: Instant, until: Instant) -> Option<(Instant, Instant)> {
        let mut replies = self.replies.clone();
        replies.sort_unstable();
        replies.retain(|reply| *reply <= until);
        let silences = replies.windows(2).map(|pair| (pair[0], pair[1])).filter(|(_, end)| *end > fault);
        silences.max_by_key(|(start, end)| *end - *start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn the_gap_is_the_longest_silence_that_ends_after_the_fault() {
        let t = Instant::now();
        let replies = [0, 500, 510, 520, 1400, 1410].map(|n| t + ms(n)).to_vec();
        let record = Record { replies, ..Record::default() };
        assert_eq!(record.gap(t + ms(515), t + ms(2000)), Some((t + ms(520), t + ms(1400))));
        assert_eq!(record.gap(t + ms(1405), t + ms(2000)), Some((t + ms(1400), t + ms(1410))));
        assert_eq!(record.gap(t + ms(1420), t + ms(2000)), None);
    }

    #[test]
    fn replies_after_the_window_are_no_recovery() {
        let t = Instant::now();
        let record = Record { replies: [0, 3000].map(|n| t + ms(n)).to_vec(), ..Record::default() };
        assert_eq!(record.gap(t + ms(10), t + ms(2000)), None);
    }
}
