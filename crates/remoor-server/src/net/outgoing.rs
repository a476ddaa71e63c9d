//! Replies on their way to a socket: gathered, and sent many at a time.
//!
//! Short replies lie behind each other in one buffer that is used again and again, so that a batch of them is one
//! `send` and no allocation. A long payload stays the segment it is.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes, BytesMut};
use remoor_rpc::record::{HEADER, mark};
use remoor_rpc::xdr::Writer;
use rustix::net::SendFlags;
use socket2::Socket;

use super::limits::{KEEP_BYTES, MAX_SEGMENTS, SHARE_FROM};

/// What the client has not been sent yet.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// Before `tail`.
    segments: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
    /// Bytes ever put here: the position in the stream where the next reply begins.
    position: u64,
}

impl Outgoing {
    /// Bytes not sent.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Position in the stream of bytes to the client, of the end of what was put here.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Appends a message with its record mark.
    pub(super) fn put(&mut self, message: &Writer) {
        let (segments, tail) = message.parts();
        let len = message.len() + HEADER;
        self.len += len;
        self.position += len as u64;
        self.tail.extend_from_slice(&mark(message.len()));
        segments.iter().for_each(|segment| self.put_segment(segment));
        self.tail.extend_from_slice(tail);
    }

    fn put_segment(&mut self, segment: &Bytes) {
        if segment.len() < SHARE_FROM {
            return self.tail.extend_from_slice(segment);
        }
        if !self.tail.is_empty() {
            self.segments.push_back(self.tail.split().freeze());
        }
        self.segments.push_back(segment.clone());
    }

    /// Sends what the socket takes.
    pub(super) fn flush(&mut self, socket: &Socket) -> io::Result<()> {
        while self.len > 0 {
            match self.send(socket) {
                Ok(n) => self.advance(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn send(&self, socket: &Socket) -> io::Result<usize> {
        let flags = (SendFlags::NOSIGNAL | SendFlags::DONTWAIT).bits().cast_signed();
        if self.segments.is_empty() {
            return socket.send_with_flags(&self.tail, flags);
        }
        let mut slices = [IoSlice::new(&[]); MAX_SEGMENTS];
        let parts = self.segments.iter().map(|segment| &segment[..]).chain([&self.tail[..]]);
        let filled = slices.iter_mut().zip(parts).map(|(slice, part)| *slice = IoSlice::new(part)).count();
        socket.send_vectored_with_flags(&slices[..filled], flags)
    }

    fn advance(&mut self, mut n: usize) {
        self.len -= n;
        while let Some(front) = self.segments.front_mut() {
            if n < front.len() {
                return front.advance(n);
            }
            n -= front.len();
            self.segments.pop_front();
        }
        if n < self.tail.len() {
            self.tail.advance(n);
        } else if self.tail.capacity() <= KEEP_BYTES {
            self.tail.clear();
        } else {
            self.tail = BytesMut::new();
        }
    }

    /// Gives back the memory of a buffer that holds nothing.
    pub(super) fn shrink(&mut self) {
        if self.len == 0 {
            (self.tail, self.segments) = (BytesMut::new(), VecDeque::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use proptest::prelude::*;
    use remoor_rpc::record::Record;

    use super::*;

    fn message(head: u32, payload: usize) -> Writer {
        let mut w = Writer::new();
        w.u32(head);
        w.opaque(&vec![head as u8; payload].into());
        w
    }

    #[test]
    fn short_replies_use_the_same_memory_again() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let socket = Socket::from(std::os::fd::OwnedFd::from(ours));
        let mut out = Outgoing::default();
        let mut memory = Vec::new();
        for n in 0..10 {
            (0..16).for_each(|_| out.put(&message(n, 40)));
            assert!(out.segments.is_empty());
            memory.push(out.tail.as_ptr());
            let len = out.len();
            out.flush(&socket).unwrap();
            assert_eq!((out.len(), out.position()), (0, u64::from(n + 1) * len as u64));
            theirs.read_exact(&mut vec![0; len]).unwrap();
        }
        assert_eq!(memory[1..], [memory[1]; 9]);
    }

    proptest! {
        /// However the socket takes it, all arrives in order.
        #[test]
        fn nothing_is_lost_or_reordered(
            payloads in proptest::collection::vec(prop_oneof![0usize..300, SHARE_FROM - 2..SHARE_FROM + 50_000], 1..40),
            take in 1usize..70_000,
        ) {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let socket = Socket::from(std::os::fd::OwnedFd::from(ours));
            socket.set_send_buffer_size(4096).unwrap();
            let (mut out, mut expected, mut got) = (Outgoing::default(), Vec::new(), Vec::new());
            for (n, payload) in payloads.into_iter().enumerate() {
                let message = message(n as u32, payload);
                out.put(&message);
                expected.extend(Record::new(message.finish()).segments().concat());
                out.flush(&socket).unwrap();
            }
            while got.len() < expected.len() {
                let mut buf = vec![0; take];
                let n = theirs.read(&mut buf).unwrap();
                got.extend_from_slice(&buf[..n]);
                out.flush(&socket).unwrap();
            }
            prop_assert_eq!(out.len(), 0);
            prop_assert_eq!(out.position(), expected.len() as u64);
            prop_assert!(got == expected);
        }
    }
}
