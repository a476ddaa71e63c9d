//! Buffers of long records, used again once nobody holds the record: memory that is there already costs no page faults.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Records that are remembered; each holds up to a little more than 1 MiB.
const MAX_SPARE: usize = 8;

/// Records handed out, in the order they were.
#[derive(Debug, Default)]
pub(crate) struct Spare(VecDeque<Bytes>);

impl Spare {
    /// Remembers the buffer of `record`, in place of the one that was remembered longest.
    pub(crate) fn remember(&mut self, record: &Bytes) {
        if self.0.len() >= MAX_SPARE {
            self.0.pop_front();
        }
        self.0.push_back(record.clone());
    }

    /// An empty buffer for `room` bytes: one that nobody holds any more, or a new one.
    pub(crate) fn take(&mut self, room: usize) -> BytesMut {
        let free = self.0.iter().position(|record| record.len() >= room && record.is_unique());
        let used = free.and_then(|at| self.0.remove(at)).and_then(|record| record.try_into_mut().ok());
        used.map_or_else(
            || BytesMut::with_capacity(room),
            |mut used| {
                used.clear();
                used
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_once_its_record_is_dropped() {
        let mut spare = Spare::default();
        let mut buffer = BytesMut::with_capacity(100);
        buffer.extend_from_slice(&[7; 100]);
        let start = buffer.as_ptr();
        let record = buffer.split().freeze();
        drop(buffer);
        spare.remember(&record);
        assert_ne!(spare.take(50).as_ptr(), start, "somebody reads it");
        drop(record);
        assert_ne!(spare.take(101).as_ptr(), start, "too small");
        let again = spare.take(90);
        assert_eq!((again.as_ptr(), again.len()), (start, 0));
    }

    #[test]
    fn no_more_is_remembered_than_the_limit() {
        let mut spare = Spare::default();
        for _ in 0..3 * MAX_SPARE {
            spare.remember(&Bytes::from(vec![0; 10]));
        }
        assert_eq!(spare.0.len(), MAX_SPARE);
    }
}
