//! The calls of one connection that were received and not begun: pure.

use std::collections::VecDeque;

use bytes::Bytes;

use super::service::Kind;

/// A call that waits.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) kind: Kind,
    pub(super) record: Bytes,
    /// As [`Origin::ticket`](super::Origin::ticket).
    pub(super) ticket: Option<u64>,
}

/// A queue with bounds; whoever puts calls in asks first whether it is full, so one record may go over.
#[derive(Debug)]
pub(super) struct Lane {
    calls: VecDeque<Call>,
    bytes: usize,
    max_calls: usize,
    max_bytes: usize,
    /// It was full, and has not been emptied by half since.
    is_stopped: bool,
}

impl Lane {
    pub(super) fn new(max_calls: usize, max_bytes: usize) -> Self {
        Self { calls: VecDeque::new(), bytes: 0, max_calls, max_bytes, is_stopped: false }
    }

    pub(super) fn push(&mut self, call: Call) {
        self.bytes += call.record.len();
        self.calls.push_back(call);
    }

    /// The next call, and whether the connection may be read again that before was not.
    pub(super) fn pop(&mut self) -> Option<(Call, bool)> {
        let call = self.calls.pop_front()?;
        self.bytes -= call.record.len();
        let half = self.calls.len() <= self.max_calls / 2 && self.bytes <= self.max_bytes / 2;
        let resumed = self.is_stopped && half;
        self.is_stopped &= !half;
        Some((call, resumed))
    }

    /// Whether no more is to be read. Once that is so, it stays until half of it is gone.
    pub(super) fn is_full(&mut self) -> bool {
        self.is_stopped |= self.calls.len() >= self.max_calls || self.bytes >= self.max_bytes;
        self.is_stopped
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Gives back the memory of a queue that holds nothing.
    pub(super) fn shrink(&mut self) {
        if self.calls.is_empty() {
            self.calls = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(n: u8, len: usize) -> Call {
        Call { kind: Kind::default(), record: vec![n; len].into(), ticket: None }
    }

    fn popped(lane: &mut Lane) -> Option<(u8, bool)> {
        lane.pop().map(|(call, resumed)| (call.record[0], resumed))
    }

    #[test]
    fn calls_come_out_in_order_and_reading_resumes_at_half() {
        let mut lane = Lane::new(4, 1000);
        for n in 0..4 {
            assert!(!lane.is_full());
            lane.push(call(n, 10));
        }
        assert!(lane.is_full());
        assert_eq!(popped(&mut lane), Some((0, false)));
        assert!(lane.is_stopped(), "one less is not enough to read for");
        assert_eq!(popped(&mut lane), Some((1, true)));
        assert!(!lane.is_full());
        assert_eq!([(); 3].map(|()| popped(&mut lane)), [Some((2, false)), Some((3, false)), None]);
        assert_eq!((lane.len(), lane.bytes), (0, 0));
    }

    #[test]
    fn bytes_are_bounded_as_calls_are_and_one_record_goes_over() {
        let mut lane = Lane::new(100, 50);
        lane.push(call(1, 49));
        assert!(!lane.is_full());
        lane.push(call(2, 400));
        assert!(lane.is_full());
        assert_eq!(popped(&mut lane), Some((1, false)));
        assert_eq!(popped(&mut lane), Some((2, true)));
    }

    #[test]
    fn a_lane_of_one_call_goes_on_when_it_is_empty() {
        let mut lane = Lane::new(1, 1000);
        lane.push(call(1, 10));
        assert!(lane.is_full());
        assert_eq!(popped(&mut lane), Some((1, true)));
    }
}
