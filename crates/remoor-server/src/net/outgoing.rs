//! Replies on their way to a socket: gathered, and sent many at a time.
//!
//! Short replies lie behind each other in one buffer that is used again and again, so that a batch of them is one
//! `send` and no allocation. A long payload stays the segment it is, and a file's data in the page cache stays there.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use remoor_rpc::record::{HEADER, mark};
use remoor_rpc::xdr::{External, Writer};
use rustix::net::SendFlags;
use socket2::Socket;

use crate::vfs::Pages;

use super::limits::{KEEP_BYTES, MAX_SEGMENTS, SHARE_FROM};

/// What is sent by one system call, or with its neighbours.
#[derive(Debug)]
enum Segment {
    Bytes(Bytes),
    /// Sent from the page cache; so many bytes are left.
    Pages(Arc<Pages>, usize),
}

impl Segment {
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Pages(..) => None,
        }
    }
}

/// What the client has not been sent yet.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// Before `tail`.
    segments: VecDeque<Segment>,
    tail: BytesMut,
    len: usize,
    /// Bytes of `len` that are in the page cache, not in this process.
    in_pages: usize,
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

    /// Bytes not sent that this process holds in memory.
    pub(super) fn in_memory(&self) -> usize {
        self.len - self.in_pages
    }

    /// Appends a message with its record mark.
    pub(super) fn put(&mut self, message: &Writer) {
        let (segments, tail) = message.parts();
        let external = message.external_part();
        let (before, after) = segments.split_at(external.map_or(0, |part| part.after));
        self.len += message.len() + HEADER;
        self.position += (message.len() + HEADER) as u64;
        self.tail.extend_from_slice(&mark(message.len()));
        before.iter().for_each(|segment| self.put_segment(segment));
        if let Some(part) = external {
            self.put_pages(part);
        }
        after.iter().for_each(|segment| self.put_segment(segment));
        self.tail.extend_from_slice(tail);
    }

    fn put_segment(&mut self, segment: &Bytes) {
        if segment.len() < SHARE_FROM {
            return self.tail.extend_from_slice(segment);
        }
        self.end_tail();
        self.segments.push_back(Segment::Bytes(segment.clone()));
    }

    /// The service has no other external parts than pages of that length. Zeros in place of another keep the stream of
    /// records whole.
    fn put_pages(&mut self, part: &External) {
        match part.source.clone().downcast::<Pages>() {
            Ok(_) if part.len == 0 => {}
            Ok(pages) if pages.len() == part.len => {
                self.end_tail();
                self.in_pages += part.len;
                self.segments.push_back(Segment::Pages(pages, part.len));
            }
            _ => self.tail.resize(self.tail.len() + part.len, 0),
        }
    }

    fn end_tail(&mut self) {
        if !self.tail.is_empty() {
            self.segments.push_back(Segment::Bytes(self.tail.split().freeze()));
        }
    }

    /// Sends what the socket, which must not block, takes.
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
        match self.segments.front() {
            None => self.send_bytes(socket, &[IoSlice::new(&self.tail)], false),
            Some(Segment::Pages(pages, left)) => pages.send(socket, self.len > *left),
            Some(Segment::Bytes(_)) => self.send_front(socket),
        }
    }

    /// Sends the segments in memory that come first.
    fn send_front(&self, socket: &Socket) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); MAX_SEGMENTS];
        let front = self.segments.iter().map_while(Segment::bytes);
        let pages_follow = self.segments.iter().any(|segment| segment.bytes().is_none());
        let tail = (!pages_follow).then_some(&self.tail[..]);
        let filled =
            slices.iter_mut().zip(front.chain(tail)).map(|(slice, part)| *slice = IoSlice::new(part)).count();
        self.send_bytes(socket, &slices[..filled], pages_follow)
    }

    fn send_bytes(&self, socket: &Socket, slices: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
        let mut flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        flags.set(SendFlags::MORE, more);
        match slices {
            [one] => socket.send_with_flags(one, flags.bits().cast_signed()),
            many => socket.send_vectored_with_flags(many, flags.bits().cast_signed()),
        }
    }

    fn advance(&mut self, mut n: usize) {
        self.len -= n;
        while let Some(front) = self.segments.front_mut() {
            let in_pages = match front {
                Segment::Bytes(bytes) if n < bytes.len() => return bytes.advance(n),
                Segment::Bytes(bytes) => {
                    n -= bytes.len();
                    0
                }
                Segment::Pages(_, left) if n < *left => {
                    *left -= n;
                    self.in_pages -= n;
                    return;
                }
                Segment::Pages(_, left) => *left,
            };
            n -= in_pages;
            self.in_pages -= in_pages;
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
    use std::io::{Read, Write};
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::net::UnixStream;

    use proptest::prelude::*;
    use remoor_rpc::record::Record;

    use super::*;
    use crate::vfs::local::Pool;

    fn message(head: u32, payload: usize) -> Writer {
        let mut w = Writer::new();
        w.u32(head);
        w.opaque(&vec![head as u8; payload].into());
        w
    }

    fn nonblocking(stream: UnixStream) -> Socket {
        stream.set_nonblocking(true).unwrap();
        Socket::from(OwnedFd::from(stream))
    }

    /// As [`message`], with a payload that is in a file.
    fn message_in_file(head: u32, payload: usize, pool: &Arc<Pool>) -> Writer {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![head as u8; payload]).unwrap();
        let pages = pool.splice(file.as_fd(), 0, payload).unwrap().unwrap().pages;
        let mut w = Writer::new();
        w.u32(head);
        w.external(payload, Arc::new(pages));
        w
    }

    #[test]
    fn file_data_counts_apart_from_what_is_in_memory() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (socket, mut out) = (nonblocking(ours), Outgoing::default());
        out.put(&message_in_file(1, 70_001, &Arc::default()));
        assert_eq!((out.len(), out.in_memory()), (70_016, 15), "mark, head, length, padding");
        let mut got = Vec::new();
        while got.len() < 70_016 {
            out.flush(&socket).unwrap();
            let mut buffer = vec![0; 9_999];
            let n = theirs.read(&mut buffer).unwrap();
            got.extend_from_slice(&buffer[..n]);
        }
        assert_eq!((out.len(), &got[12..12 + 70_001]), (0, &[1; 70_001][..]));
        assert_eq!(out.in_memory(), 0);
    }

    #[test]
    fn a_part_that_is_unknown_breaks_no_record() {
        let mut w = Writer::new();
        w.external(5, Arc::new("not pages"));
        let mut out = Outgoing::default();
        out.put(&w);
        assert_eq!(out.len(), 16);
        assert_eq!(&out.tail[..], b"\x80\0\0\x0c\0\0\0\x05\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn short_replies_use_the_same_memory_again() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let socket = nonblocking(ours);
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
            payloads in proptest::collection::vec((prop_oneof![0usize..300, SHARE_FROM - 2..SHARE_FROM + 50_000], any::<bool>()), 1..40),
            take in 1usize..70_000,
        ) {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let socket = nonblocking(ours);
            socket.set_send_buffer_size(4096).unwrap();
            let pool = Arc::<Pool>::default();
            let (mut out, mut expected, mut got) = (Outgoing::default(), Vec::new(), Vec::new());
            for (n, (payload, in_file)) in payloads.into_iter().enumerate() {
                let in_memory = message(n as u32, payload);
                match in_file {
                    true => out.put(&message_in_file(n as u32, payload, &pool)),
                    false => out.put(&in_memory),
                }
                expected.extend(Record::new(in_memory.finish()).segments().concat());
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
