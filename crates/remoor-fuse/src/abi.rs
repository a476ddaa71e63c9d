//! Numbers and layouts of `linux/fuse.h`.

use std::time::Duration;

use crate::{Attributes, Entry, OpenFlags, Statfs};

/// Lengths of structures, in bytes.
pub(crate) const IN_HEADER: usize = 40;
pub(crate) const OUT_HEADER: usize = 16;
pub(crate) const ENTRY_OUT: usize = 128;
pub(crate) const DIRENT: usize = 24;

/// A reply that is being encoded: native byte order, as all of the protocol.
#[derive(Debug, Default)]
pub(crate) struct Out(Vec<u8>);

impl From<Vec<u8>> for Out {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Out {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_ne_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_ne_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_ne_bytes());
    }

    fn u32s(&mut self, values: &[u32]) {
        values.iter().for_each(|&value| self.u32(value));
    }

    fn u64s(&mut self, values: &[u64]) {
        values.iter().for_each(|&value| self.u64(value));
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Zeroes up to a multiple of 8 (`FUSE_REC_ALIGN`).
    pub(crate) fn align(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
    }

    /// `struct fuse_entry_out`.
    pub(crate) fn entry(&mut self, entry: &Entry) {
        self.u64(entry.node.0);
        self.u64(entry.generation);
        self.u64(entry.entry_valid.as_secs());
        self.u64(entry.attributes_valid.as_secs());
        self.u32(entry.entry_valid.subsec_nanos());
        self.u32(entry.attributes_valid.subsec_nanos());
        self.attributes(&entry.attributes);
    }

    /// `struct fuse_attr_out`.
    pub(crate) fn attributes_valid(&mut self, attributes: &Attributes, valid: Duration) {
        self.u64(valid.as_secs());
        self.u32(valid.subsec_nanos());
        self.u32(0);
        self.attributes(attributes);
    }

    /// `struct fuse_attr`.
    fn attributes(&mut self, a: &Attributes) {
        self.u64s(&[a.ino, a.size, a.blocks]);
        self.u64s(&[a.atime, a.mtime, a.ctime].map(|t| t.seconds as u64));
        self.u32s(&[a.atime, a.mtime, a.ctime].map(|t| t.nanoseconds));
        self.u32s(&[a.mode, a.nlink, a.uid, a.gid, a.rdev, a.blksize, 0]);
    }

    /// `struct fuse_open_out`.
    pub(crate) fn opened(&mut self, fh: u64, flags: OpenFlags) {
        let bits = [
            flags.direct_io,
            flags.keep_cache,
            flags.nonseekable,
            flags.cache_dir,
            flags.stream,
            flags.noflush,
            flags.parallel_direct_writes,
        ];
        self.u64(fh);
        self.u32(bits.iter().enumerate().map(|(bit, &on)| u32::from(on) << bit).sum());
        self.u32(0);
    }

    /// `struct fuse_statfs_out`.
    pub(crate) fn statfs(&mut self, s: &Statfs) {
        self.u64s(&[s.blocks, s.bfree, s.bavail, s.files, s.ffree]);
        self.u32s(&[s.bsize, s.namelen, s.frsize]);
        self.u32s(&[0; 7]);
    }
}
