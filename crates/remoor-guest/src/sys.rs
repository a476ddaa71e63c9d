//! The system calls that only `unsafe` code can make: memory mapped files.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::ptr;

use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

/// A file mapped shared. It must not be truncated below `len` while it is mapped.
pub(crate) struct Mapped {
    start: *mut u8,
    len: usize,
}

impl Mapped {
    /// Maps the first `len` bytes, to read and to write.
    pub(crate) fn new(file: &File, len: usize) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the address is the kernel's choice, so that no other mapping is replaced.
        let start = unsafe { mmap(ptr::null_mut(), len, access, MapFlags::SHARED, file.as_fd(), 0) }?;
        Ok(Self { start: start.cast(), len })
    }

    /// Sets the byte at `at`.
    ///
    /// # Panics
    /// If `at` is not below the length.
    pub(crate) fn set(&mut self, at: usize, byte: u8) {
        assert!(at < self.len, "byte {at} of a mapping of {}", self.len);
        // SAFETY: the address lies within the mapping, which lives as long as `self`; other processes may write to the
        // file at the same time, hence volatile.
        unsafe { self.start.add(at).write_volatile(byte) }
    }

    /// The byte at `at`.
    ///
    /// # Panics
    /// If `at` is not below the length.
    pub(crate) fn get(&self, at: usize) -> u8 {
        assert!(at < self.len, "byte {at} of a mapping of {}", self.len);
        // SAFETY: as in `set`.
        unsafe { self.start.add(at).read_volatile() }
    }

    /// Writes what was changed to the file and waits until it is stable: msync(2) with MS_SYNC.
    pub(crate) fn sync(&self) -> io::Result<()> {
        // SAFETY: the range is this mapping.
        unsafe { msync(self.start.cast(), self.len, MsyncFlags::SYNC) }.map_err(io::Error::from)
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: nothing can reach the mapping after this. It fails only for a range that was never mapped.
        let _ = unsafe { munmap(self.start.cast(), self.len) };
    }
}
