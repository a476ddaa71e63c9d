//! A shared mapping.

#![allow(unsafe_code)]

use std::fs::File;
use std::ptr::null_mut;

use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

/// Maps `len` bytes of `file` for reading and writing, lets `change` have them, and writes them back.
pub(crate) fn map_shared(file: &File, len: usize, change: impl FnOnce(&mut [u8])) {
    let both = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address the kernel chooses; it is used below only, and unmapped at the end.
    unsafe {
        let at = mmap(null_mut(), len, both, MapFlags::SHARED, file, 0).unwrap();
        change(std::slice::from_raw_parts_mut(at.cast(), len));
        msync(at, len, MsyncFlags::SYNC).unwrap();
        munmap(at, len).unwrap();
    }
}
