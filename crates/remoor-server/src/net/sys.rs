//! Receiving, also into memory that is not initialised yet.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsFd;

use bytes::BytesMut;
use rustix::net::RecvFlags;

/// Fills `buf` with what the socket has; 0 is the end of the stream.
pub(super) fn recv(socket: impl AsFd, buf: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::net::recv(socket, buf, RecvFlags::DONTWAIT)?.0)
}

/// Appends at most `max` bytes of what the socket has, up to the buffer's spare capacity; 0 is the end of the stream.
pub(super) fn recv_into(socket: impl AsFd, buf: &mut BytesMut, max: usize) -> io::Result<usize> {
    let spare = buf.spare_capacity_mut();
    let room = spare.len().min(max);
    let ((received, _), _) = rustix::net::recv(socket, &mut spare[..room], RecvFlags::DONTWAIT)?;
    let n = received.len();
    let len = buf.len() + n;
    // SAFETY: `recv` initialised the first `n` bytes of the spare capacity, which begins at the old length.
    unsafe { buf.set_len(len) };
    Ok(n)
}
