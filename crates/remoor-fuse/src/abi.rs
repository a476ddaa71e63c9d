//! Numbers and layouts of `linux/fuse.h`.

use std::time::Duration;

use crate::{Attributes, Entry, OpenFlags, Statfs};

/// Lengths of structures, in bytes.
pub(crate) const IN_HEADER: usize = 40;
pub(crate) const OUT_HEADER: usize = 16;
pub(crate) const ENTRY_OUT: usize = 128;
pub(crate) const DIRENT: usize = 24;

/// Operation codes (`enum fuse_opcode`).
pub(crate) mod opcode {
    pub(crate) const LOOKUP: u32 = 1;
    pub(crate) const FORGET: u32 = 2;
    pub(crate) const GETATTR: u32 = 3;
    pub(crate) const SETATTR: u32 = 4;
    pub(crate) const READLINK: u32 = 5;
    pub(crate) const SYMLINK: u32 = 6;
    pub(crate) const MKNOD: u32 = 8;
    pub(crate) const MKDIR: u32 = 9;
    pub(crate) const UNLINK: u32 = 10;
    pub(crate) const RMDIR: u32 = 11;
    pub(crate) const RENAME: u32 = 12;
    pub(crate) const LINK: u32 = 13;
    pub(crate) const OPEN: u32 = 14;
    pub(crate) const READ: u32 = 15;
    pub(crate) const WRITE: u32 = 16;
    pub(crate) const STATFS: u32 = 17;
    pub(crate) const RELEASE: u32 = 18;
    pub(crate) const FSYNC: u32 = 20;
    pub(crate) const SETXATTR: u32 = 21;
    pub(crate) const GETXATTR: u32 = 22;
    pub(crate) const LISTXATTR: u32 = 23;
    pub(crate) const REMOVEXATTR: u32 = 24;
    pub(crate) const FLUSH: u32 = 25;
    pub(crate) const INIT: u32 = 26;
    pub(crate) const OPENDIR: u32 = 27;
    pub(crate) const FSYNCDIR: u32 = 30;
    pub(crate) const RELEASEDIR: u32 = 29;
    pub(crate) const ACCESS: u32 = 34;
    pub(crate) const CREATE: u32 = 35;
    pub(crate) const INTERRUPT: u32 = 36;
    pub(crate) const DESTROY: u32 = 38;
    pub(crate) const NOTIFY_REPLY: u32 = 41;
    pub(crate) const BATCH_FORGET: u32 = 42;
    pub(crate) const FALLOCATE: u32 = 43;
    pub(crate) const READDIRPLUS: u32 = 44;
    pub(crate) const RENAME2: u32 = 45;
    pub(crate) const LSEEK: u32 = 46;
    pub(crate) const COPY_FILE_RANGE: u32 = 47;
    pub(crate) const SYNCFS: u32 = 50;
}

/// Flags of FUSE_INIT; those from bit 32 on are in `flags2`.
pub(crate) mod init {
    pub(crate) const ASYNC_READ: u64 = 1 << 0;
    pub(crate) const ATOMIC_O_TRUNC: u64 = 1 << 3;
    pub(crate) const BIG_WRITES: u64 = 1 << 5;
    pub(crate) const DO_READDIRPLUS: u64 = 1 << 13;
    pub(crate) const ASYNC_DIO: u64 = 1 << 15;
    pub(crate) const PARALLEL_DIROPS: u64 = 1 << 18;
    pub(crate) const ABORT_ERROR: u64 = 1 << 21;
    pub(crate) const MAX_PAGES: u64 = 1 << 22;
    pub(crate) const CACHE_SYMLINKS: u64 = 1 << 23;
    pub(crate) const EXPLICIT_INVAL_DATA: u64 = 1 << 25;
    pub(crate) const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    pub(crate) const INIT_EXT: u64 = 1 << 30;
    pub(crate) const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;
}

/// `fuse_setattr_in.valid`.
pub(crate) mod fattr {
    pub(crate) const MODE: u32 = 1 << 0;
    pub(crate) const UID: u32 = 1 << 1;
    pub(crate) const GID: u32 = 1 << 2;
    pub(crate) const SIZE: u32 = 1 << 3;
    pub(crate) const ATIME: u32 = 1 << 4;
    pub(crate) const MTIME: u32 = 1 << 5;
    pub(crate) const FH: u32 = 1 << 6;
    pub(crate) const ATIME_NOW: u32 = 1 << 7;
    pub(crate) const MTIME_NOW: u32 = 1 << 8;
    pub(crate) const KILL_SUIDGID: u32 = 1 << 11;
}

/// Codes of notifications (`enum fuse_notify_code`).
pub(crate) mod notify {
    pub(crate) const INVAL_INODE: i32 = 2;
    pub(crate) const INVAL_ENTRY: i32 = 3;
    pub(crate) const DELETE: i32 = 6;
}

pub(crate) const GETATTR_FH: u32 = 1 << 0;
pub(crate) const OPEN_KILL_SUIDGID: u32 = 1 << 0;
pub(crate) const WRITE_CACHE: u32 = 1 << 0;
pub(crate) const WRITE_KILL_SUIDGID: u32 = 1 << 2;

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

    pub(crate) fn u32s(&mut self, values: &[u32]) {
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
