//! Some bytes of a file and how far they have come.

use bytes::{Bytes, BytesMut};

use super::machine::WriteId;

/// Writes below this many bytes are copied together; larger ones are kept as they came.
pub const SMALL: usize = 16 << 10;
/// Small writes are collected in buffers of at most this many bytes.
pub const CHUNK: usize = 64 << 10;
/// What one piece is reckoned to cost beyond its data, in bytes: its place in the tables and in an allocator.
pub const OVERHEAD: usize = 256;
/// First allocation for small writes; it doubles as they come.
const FIRST_CHUNK: usize = 4 << 10;
/// A part that keeps a buffer this many times its size alive is copied.
const WASTE: usize = 4;

/// How far a piece has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Not sent, or to be sent again.
    Dirty,
    /// Part of a WRITE that is not answered.
    InFlight(WriteId),
    /// Answered with the current write verifier, as the nth of all.
    Unstable(u64),
}

#[derive(Debug)]
enum Buffer {
    Whole(Bytes),
    /// A dirty piece that the next small write may continue.
    Growing(BytesMut),
}

/// Bytes without their place.
#[derive(Debug)]
pub(super) struct Piece {
    buffer: Buffer,
    /// Bytes of memory that `buffer` keeps from being freed.
    backing: usize,
    pub(super) state: State,
    /// The oldest mark (see [`super::Mark`]) that has to wait for these bytes.
    pub(super) born: u64,
}

impl Piece {
    /// Written data. A small write is copied, and can be continued.
    pub(super) fn dirty(data: Bytes, born: u64) -> Self {
        let backing = data.len();
        let buffer = if data.len() < SMALL { Buffer::Growing(data[..].into()) } else { Buffer::Whole(data) };
        Self { buffer, backing, state: State::Dirty, born }
    }

    /// Bytes that are on their way.
    pub(super) fn sent(data: Bytes, id: WriteId, born: u64) -> Self {
        Self { backing: data.len(), buffer: Buffer::Whole(data), state: State::InFlight(id), born }
    }

    pub(super) fn len(&self) -> u64 {
        self.bytes().len() as u64
    }

    /// Bytes of memory.
    pub(super) fn cost(&self) -> usize {
        self.backing + OVERHEAD
    }

    fn bytes(&self) -> &[u8] {
        match &self.buffer {
            Buffer::Whole(data) => data,
            Buffer::Growing(data) => data,
        }
    }

    /// Appends a small write, if there is room.
    pub(super) fn grow(&mut self, data: &[u8]) -> bool {
        let Buffer::Growing(buffer) = &mut self.buffer else { return false };
        let len = buffer.len() + data.len();
        if data.len() >= SMALL || len > CHUNK {
            return false;
        }
        if buffer.capacity() < len {
            buffer.reserve(len.next_power_of_two().max(FIRST_CHUNK) - buffer.len());
        }
        buffer.extend_from_slice(data);
        self.backing = buffer.capacity().max(len);
        true
    }

    /// The bytes, shared where that is possible.
    pub(super) fn share(&self, from: usize, to: usize) -> Bytes {
        match &self.buffer {
            Buffer::Whole(data) => data.slice(from..to),
            Buffer::Growing(data) => Bytes::copy_from_slice(&data[from..to]),
        }
    }

    /// The bytes, without a copy.
    pub(super) fn into_bytes(self) -> Bytes {
        match self.buffer {
            Buffer::Whole(data) => data,
            Buffer::Growing(data) => data.freeze(),
        }
    }

    /// Cuts it in two. A part much smaller than the buffer it would keep gets its own.
    pub(super) fn split(self, at: usize) -> (Self, Self) {
        let Self { backing, state, born, .. } = self;
        let mut head = self.into_bytes();
        let tail = head.split_off(at);
        let part = |data: Bytes| {
            let waste = data.len() * WASTE < backing;
            let (data, backing) =
                if waste { (Bytes::copy_from_slice(&data), data.len()) } else { (data, backing) };
            Self { buffer: Buffer::Whole(data), backing, state, born }
        };
        (part(head), part(tail))
    }
}

/// Joins what lies one after the other, copying only what is small. Gives each part with the oldest mark in it.
pub(super) fn join(pieces: impl Iterator<Item = Piece>) -> Vec<(Bytes, u64)> {
    let mut joined: Vec<(Bytes, u64)> = Vec::new();
    let mut small = Small::default();
    for piece in pieces {
        let born = piece.born;
        let data = piece.into_bytes();
        if data.len() >= SMALL || small.len + data.len() > CHUNK {
            joined.extend(small.take());
        }
        if data.len() >= SMALL {
            joined.push((data, born));
        } else {
            small.push(data, born);
        }
    }
    joined.extend(small.take());
    joined
}

/// Small parts, which are copied together only if there are several.
#[derive(Default)]
struct Small {
    parts: Vec<Bytes>,
    len: usize,
    born: Option<u64>,
}

impl Small {
    fn push(&mut self, data: Bytes, born: u64) {
        self.len += data.len();
        self.parts.push(data);
        self.born = Some(self.born.map_or(born, |other| other.min(born)));
    }

    fn take(&mut self) -> Option<(Bytes, u64)> {
        let Self { mut parts, born, .. } = std::mem::take(self);
        let data = if parts.len() == 1 { parts.pop()? } else { parts.concat().into() };
        Some((data, born?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirty(len: usize) -> Piece {
        Piece::dirty(vec![7; len].into(), 1)
    }

    #[test]
    fn small_writes_fill_a_buffer_and_large_ones_are_not_copied() {
        let mut piece = dirty(1);
        for _ in 1..CHUNK {
            assert!(piece.grow(&[8]));
        }
        assert!(!piece.grow(&[8]));
        assert_eq!((piece.len(), piece.cost()), (CHUNK as u64, CHUNK + OVERHEAD));
        let large = Bytes::from(vec![1; SMALL]);
        let kept = Piece::dirty(large.clone(), 1).into_bytes();
        assert_eq!(kept.as_ptr(), large.as_ptr());
        assert!(!Piece::dirty(large, 1).grow(&[8]));
    }

    #[test]
    fn a_crumb_does_not_keep_the_loaf() {
        let (crumb, loaf) = dirty(1 << 20).split(100);
        assert_eq!(crumb.cost(), 100 + OVERHEAD);
        assert_eq!(loaf.cost(), (1 << 20) + OVERHEAD);
    }

    #[test]
    fn only_small_neighbours_are_copied_together() {
        let large = Bytes::from(vec![1; SMALL]);
        let pieces =
            vec![dirty(10), dirty(20), Piece::dirty(large.clone(), 3), Piece::dirty(vec![2; 5].into(), 4)];
        let joined = join(pieces.into_iter());
        let lens: Vec<_> = joined.iter().map(|(data, born)| (data.len(), *born)).collect();
        assert_eq!(lens, [(30, 1), (SMALL, 3), (5, 4)]);
        assert_eq!(joined[1].0.as_ptr(), large.as_ptr());
    }
}
