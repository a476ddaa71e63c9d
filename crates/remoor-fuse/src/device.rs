//! `/dev/fuse`: receiving requests, sending replies.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno as Raw, fcntl_dupfd_cloexec, read, writev};

use crate::abi::{OUT_HEADER, Out};
use crate::session::Ended;
use crate::{Errno, Reply, sys};

/// Its path.
pub(crate) const DEV_FUSE: &str = "/dev/fuse";

/// Pieces of a reply that are sent without allocating.
const FEW_PIECES: usize = 7;

/// Pieces of a reply, at most (writev(2) takes 1024): what comes after is copied into the last.
const MAX_PIECES: usize = 1000;

/// One descriptor of a connection. A request is answered on the descriptor it was received from: the kernel looks for
/// it there only (`fuse_dev_do_write`).
#[derive(Debug)]
pub(crate) struct Device {
    fd: OwnedFd,
    /// The connection is gone: a failed reply is not worth a line.
    gone: AtomicBool,
}

/// What came of a read.
#[derive(Debug)]
pub(crate) enum Received {
    /// So many bytes.
    Message(usize),
    /// Nothing is there.
    Empty,
    /// A request was taken back before it was read, or was too long for its own reply.
    Again,
    /// The connection is gone.
    Ended(Ended),
}

impl Device {
    /// A descriptor of a connection, which is made non-blocking.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        Ok(Self { fd, gone: AtomicBool::new(false) })
    }

    /// One more descriptor with a queue of its own (FUSE_DEV_IOC_CLONE). Where `/dev/fuse` may not be opened, as by an
    /// ordinary user on some systems, a copy of this descriptor, which only shares the work.
    pub(crate) fn another(&self) -> io::Result<Self> {
        Self::new(self.cloned().or_else(|_| fcntl_dupfd_cloexec(&self.fd, 3).map_err(io::Error::from))?)
    }

    fn cloned(&self) -> io::Result<OwnedFd> {
        let new = open()?;
        sys::attach(&new, &self.fd)?;
        Ok(new)
    }

    /// Receives a request. The buffer must hold the longest (`fuse_dev_do_read`).
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        match read(&self.fd, &mut *buffer) {
            Ok(length) => Ok(Received::Message(length)),
            Err(Raw::AGAIN) => Ok(Received::Empty),
            Err(Raw::INTR | Raw::NOENT) => Ok(Received::Again),
            Err(Raw::NODEV) => Ok(self.ended(Ended::Unmounted)),
            Err(Raw::CONNABORTED) => self.aborted(buffer),
            Err(e) => Err(e.into()),
        }
    }

    /// ECONNABORTED is also what a read gets that took a request while an unmount was going on; what ended the
    /// connection shows once no request is taken any more, as by then EPOLLERR does (`fuse_dev_do_read`,
    /// `fuse_dev_poll`).
    fn aborted(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut polled = [PollFd::new(&self.fd, PollFlags::IN)];
        rustix::event::poll(&mut polled, Some(&Timespec::default()))?;
        if !polled[0].revents().contains(PollFlags::ERR) {
            return Ok(Received::Again);
        }
        match read(&self.fd, buffer) {
            Err(Raw::NODEV) => Ok(self.ended(Ended::Unmounted)),
            _ => Ok(self.ended(Ended::Aborted)),
        }
    }

    fn ended(&self, ended: Ended) -> Received {
        self.gone.store(true, Ordering::Relaxed);
        Received::Ended(ended)
    }

    /// Answers a request. What the kernel refuses is logged: it has ended the request with EIO by itself.
    pub(crate) fn reply(&self, unique: u64, name: &str, result: Result<Reply, Errno>) {
        match result {
            Ok(reply) => {
                let mut out = Out::default();
                let pieces = reply.encode(&mut out);
                self.answer(unique, name, 0, out.bytes(), &pieces);
            }
            Err(errno) => self.answer(unique, name, -Errno::from_raw(errno.0).0, &[], &[]),
        }
    }

    /// Answers with what was encoded.
    pub(crate) fn answer(&self, unique: u64, name: &str, error: i32, body: &[u8], pieces: &[Bytes]) {
        match self.send(unique, error, body, pieces) {
            // ENOENT: the request was ended by an abort meanwhile.
            Ok(()) | Err(Raw::NOENT) => {}
            Err(_) if self.gone.load(Ordering::Relaxed) => {}
            Err(e @ (Raw::NODEV | Raw::PERM | Raw::NOTCONN)) => {
                tracing::debug!("the reply to {name} came after the unmount: {e}");
            }
            Err(e) => tracing::warn!("the kernel refused the reply to {name} (request {unique}): {e}"),
        }
    }

    /// Sends a notification: a message without a request, with its code as the error.
    pub(crate) fn notify(&self, code: i32, body: &[u8]) -> Result<(), Raw> {
        self.send(0, code, body, &[])
    }

    fn send(&self, unique: u64, error: i32, body: &[u8], pieces: &[Bytes]) -> Result<(), Raw> {
        let length = OUT_HEADER + body.len() + pieces.iter().map(Bytes::len).sum::<usize>();
        let header = header(u32::try_from(length).map_err(|_| Raw::TOOBIG)?, error, unique);
        if pieces.len() <= FEW_PIECES {
            return self.send_few(&header, body, pieces);
        }
        let (apart, rest) = pieces.split_at(pieces.len().min(MAX_PIECES));
        let rest = rest.concat();
        let mut all = vec![IoSlice::new(&header), IoSlice::new(body)];
        all.extend(apart.iter().map(|piece| IoSlice::new(piece)));
        all.push(IoSlice::new(&rest));
        writev(&self.fd, &all).map(drop)
    }

    fn send_few(&self, header: &[u8], body: &[u8], pieces: &[Bytes]) -> Result<(), Raw> {
        let mut all = [IoSlice::new(&[]); FEW_PIECES + 2];
        all[0] = IoSlice::new(header);
        all[1] = IoSlice::new(body);
        all[2..].iter_mut().zip(pieces).for_each(|(slot, piece)| *slot = IoSlice::new(piece));
        writev(&self.fd, &all[..pieces.len() + 2]).map(drop)
    }
}

impl AsRawFd for Device {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_fd().as_raw_fd()
    }
}

/// A `/dev/fuse` of no connection yet.
pub(crate) fn open() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(rustix::fs::open(DEV_FUSE, flags, Mode::empty())?)
}

/// `struct fuse_out_header`.
fn header(length: u32, error: i32, unique: u64) -> [u8; OUT_HEADER] {
    let mut header = [0; OUT_HEADER];
    header[..4].copy_from_slice(&length.to_ne_bytes());
    header[4..8].copy_from_slice(&error.to_ne_bytes());
    header[8..].copy_from_slice(&unique.to_ne_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    /// A device whose replies can be read.
    fn device() -> (Device, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Device::new(ours.into()).unwrap(), theirs)
    }

    fn message(stream: &mut UnixStream) -> Vec<u8> {
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut bytes = length.to_vec();
        bytes.resize(u32::from_ne_bytes(length) as usize, 0);
        stream.read_exact(&mut bytes[4..]).unwrap();
        bytes
    }

    #[test]
    fn data_is_sent_in_order_whatever_its_pieces() {
        let (device, mut peer) = device();
        for count in [0, 1, FEW_PIECES, FEW_PIECES + 1, MAX_PIECES + 20] {
            let pieces: Vec<_> = (0..count).map(|i| Bytes::from(vec![i as u8; i % 3])).collect();
            let expected = pieces.concat();
            device.reply(5, "READ", Ok(Reply::Data(pieces)));
            let bytes = message(&mut peer);
            assert_eq!(bytes[4..16], [[0; 4], [5, 0, 0, 0], [0; 4]].concat());
            assert_eq!(bytes[16..], expected);
        }
    }

    #[test]
    fn an_error_is_negative_and_has_no_body() {
        let (device, mut peer) = device();
        device.reply(5, "READ", Err(Errno::ENOENT));
        device.reply(6, "READ", Err(Errno(4000)));
        assert_eq!(message(&mut peer)[4..8], (-2_i32).to_ne_bytes());
        assert_eq!(message(&mut peer)[4..8], (-5_i32).to_ne_bytes());
    }
}
