//! What only `unsafe` code can do: one request of ioctl(2), and waiting for a descriptor.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use rustix::ioctl::{Setter, ioctl, opcode};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::device::Device;

/// `FUSE_DEV_IOC_CLONE`: `_IOR(229, 0, uint32_t)`.
const CLONE: rustix::ioctl::Opcode = opcode::read::<u32>(229, 0);

/// Makes `new`, a fresh `/dev/fuse`, one more descriptor of the connection of `device`.
pub(crate) fn attach(new: impl AsFd, device: impl AsFd) -> io::Result<()> {
    let old = device.as_fd().as_raw_fd() as u32;
    // SAFETY: this request reads one u32 from the pointer it is given (`fuse_dev_ioctl_clone`), as `Setter` passes it.
    unsafe { ioctl(new, Setter::<CLONE, u32>::new(old)) }.map_err(io::Error::from)
}

/// Registers a device with this thread's runtime.
pub(crate) fn wait_for(device: Arc<Device>, interest: Interest) -> io::Result<AsyncFd<Arc<Device>>> {
    // SAFETY: a device owns its descriptor, tells the same one at each call, and closes it when it is dropped, which is
    // not before the `AsyncFd` that holds it is.
    unsafe { AsyncFd::register_with_interest(device, interest) }.map_err(io::Error::from)
}
