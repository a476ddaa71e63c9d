//! What will happen in virtual time, in order.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Events by time; those of one instant come out as they went in, so that a seed replays a run.
#[derive(Debug)]
pub(super) struct Queue<E> {
    heap: BinaryHeap<Entry<E>>,
    pushed: u64,
}

#[derive(Debug)]
struct Entry<E> {
    at: Instant,
    order: u64,
    event: E,
}

impl<E> Queue<E> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new(), pushed: 0 }
    }

    pub(super) fn push(&mut self, at: Instant, event: E) {
        let order = self.pushed;
        self.pushed += 1;
        self.heap.push(Entry { at, order, event });
    }

    pub(super) fn pop(&mut self) -> Option<(Instant, E)> {
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }
}

/// The heap gives out its greatest entry, so the soonest is the greatest.
impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<E> Eq for Entry<E> {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::script::origin;

    #[test]
    fn events_come_by_time_and_then_as_they_went_in() {
        let start = origin();
        let mut queue = Queue::new();
        for (secs, name) in [(2, "c"), (1, "a"), (2, "d"), (1, "b")] {
            queue.push(start + Duration::from_secs(secs), name);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|(_, name)| name).collect();
        assert_eq!(order, ["a", "b", "c", "d"]);
    }
}
