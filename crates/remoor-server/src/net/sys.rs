//! Receiving into memory that is not initialised yet.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsFd;

use bytes::BytesMut;
use rustix::net::{RecvFlags, recv};

/// Appends what the socket has, up to the buffer's spare capacity; 0 is the end of the stream.
pub(super) fn recv_into(socket: impl AsFd, buf: &mut BytesMut) -> io::Result<usize> {
    let ((received, _), _) = recv(socket, buf.spare_capacity_mut(), RecvFlags::DONTWAIT)?;
    let n = received.len();
    let len = buf.len() + n;
    // SAFETY: `recv` initialised the first `n` bytes of the spare capacity, which begins at the old length.
    unsafe { buf.set_len(len) };
    Ok(n)
}
