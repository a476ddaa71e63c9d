//! Descriptors by their numbers.

#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use rustix::io::{FdFlags, fcntl_setfd};

/// Has every descriptor but the standard ones close in what is executed, also those that this process was given by
/// whoever runs it: the process of a mount would hold them, and locks on them, for as long as it is mounted.
pub(super) fn keep_from_children() -> io::Result<()> {
    for entry in fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
        if let Some(number) = number.filter(|number| *number > 2) {
            // SAFETY: /proc lists it, so it is open; it is not closed, and only borrowed for this call. Were it closed by
            // another thread meanwhile, the call would fail or set a flag that std sets on all it opens.
            let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
            let _ = fcntl_setfd(descriptor, FdFlags::CLOEXEC);
        }
    }
    Ok(())
}
