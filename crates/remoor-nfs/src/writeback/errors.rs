//! What write-behind failed with, told once to each open file: errseq_t of Linux.

/// How much an open file knows of its file's errors: by default nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ErrorMark(u64);

#[derive(Debug)]
pub(super) struct Errors<E> {
    latest: Option<E>,
    /// How many there were.
    count: u64,
    /// Somebody was told of the latest.
    seen: bool,
}

impl<E> Default for Errors<E> {
    fn default() -> Self {
        Self { latest: None, count: 0, seen: true }
    }
}

impl<E: Clone> Errors<E> {
    pub(super) fn record(&mut self, error: E) {
        self.latest = Some(error);
        self.count += 1;
        self.seen = false;
    }

    /// For a file that is opened now. It is told of an error nobody has seen yet, because that error's data may have been
    /// written by somebody who never asks (errseq_sample).
    pub(super) fn mark(&self) -> ErrorMark {
        ErrorMark(self.count - u64::from(!self.seen))
    }

    /// The latest error since `mark`, which moves on.
    pub(super) fn since(&mut self, mark: &mut ErrorMark) -> Option<E> {
        let new = mark.0 < self.count;
        mark.0 = self.count;
        self.seen |= new;
        if new { self.latest.clone() } else { None }
    }

    pub(super) fn peek(&self, mark: ErrorMark) -> Option<&E> {
        if mark.0 < self.count { self.latest.as_ref() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_open_file_is_told_once() {
        let mut errors = Errors::default();
        let (mut a, mut b) = (errors.mark(), errors.mark());
        errors.record("no space");
        assert_eq!(errors.peek(a), Some(&"no space"));
        assert_eq!(errors.since(&mut a), Some("no space"));
        assert_eq!(errors.since(&mut a), None);
        assert_eq!(errors.since(&mut b), Some("no space"));
        assert_eq!(errors.peek(b), None);
    }

    #[test]
    fn a_later_open_is_told_only_of_what_nobody_saw() {
        let mut errors = Errors::default();
        errors.record("no space");
        let mut unseen = errors.mark();
        assert_eq!(errors.since(&mut unseen), Some("no space"));
        let mut seen = errors.mark();
        assert_eq!(errors.since(&mut seen), None);
    }
}
