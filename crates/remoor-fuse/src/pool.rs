//! Buffers that requests are received in.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Buffers kept for reuse. More are made while more WRITEs are held, and freed afterwards.
const MAX_IDLE: usize = 8;

/// What is held of a buffer must be at least this part of it, or it is copied: one over this many.
const HELD_PART: usize = 4;

/// Buffers of one length.
#[derive(Debug)]
pub(crate) struct Pool {
    length: usize,
    idle: Mutex<Vec<Box<[u8]>>>,
}

impl Pool {
    pub(crate) fn new(length: usize) -> Arc<Self> {
        Arc::new(Self { length, idle: Mutex::default() })
    }

    /// A buffer with anything in it.
    pub(crate) fn take(self: &Arc<Self>) -> Buffer {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = idle.unwrap_or_else(|| vec![0; self.length].into_boxed_slice());
        Buffer { bytes, pool: self.clone() }
    }
}

/// A buffer that goes back to its pool.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    pool: Arc<Pool>,
}

impl Buffer {
    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// A part of the buffer: without a copy if it is large, and then another buffer is taken from the pool.
    pub(crate) fn detach(&mut self, range: Range<usize>) -> Bytes {
        if range.len() < self.bytes.len() / HELD_PART {
            return Bytes::copy_from_slice(&self.bytes[range]);
        }
        let held = std::mem::replace(self, self.pool.take());
        Bytes::from_owner(held).slice(range)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(pool: &Pool) -> usize {
        pool.idle.lock().unwrap().len()
    }

    #[test]
    fn a_large_part_is_not_copied_and_its_buffer_comes_back() {
        let pool = Pool::new(1000);
        let mut buffer = pool.take();
        buffer.as_mut()[500] = 7;
        let start = buffer.as_ref().as_ptr();
        let held = buffer.detach(500..900);
        assert_eq!(held[0], 7);
        assert_eq!(held.as_ptr(), start.wrapping_add(500));
        assert_ne!(buffer.as_ref().as_ptr(), start);
        assert_eq!(idle(&pool), 0);
        drop(held);
        assert_eq!(idle(&pool), 1);
    }

    #[test]
    fn a_small_part_is_copied() {
        let pool = Pool::new(1000);
        let mut buffer = pool.take();
        let start = buffer.as_ref().as_ptr();
        let held = buffer.detach(0..249);
        buffer.as_mut()[0] = 1;
        assert_eq!(held[0], 0);
        assert_eq!(buffer.as_ref().as_ptr(), start);
    }

    #[test]
    fn few_are_kept() {
        let pool = Pool::new(10);
        drop((0..MAX_IDLE + 5).map(|_| pool.take()).collect::<Vec<_>>());
        assert_eq!(idle(&pool), MAX_IDLE);
    }
}
