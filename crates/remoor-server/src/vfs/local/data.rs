//! READ, WRITE, COMMIT and what makes changes stable.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use bytes::Bytes;
use remoor_nfs::v3::{Fattr, FileType, MAX_IO, NfsStat, StableHow};
use rustix::buffer::spare_capacity;
use rustix::fs::{OFlags, fsync, syncfs};
use rustix::io::{Errno, ReadWriteFlags, pread, pwrite, pwritev2};

use super::super::{Caller, NodeHandle, Result};
use super::LocalVfs;
use super::cache::Open;
use crate::errno::status;
use crate::sys::may_access;

/// What a descriptor is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    Read,
    Write,
}

impl LocalVfs {
    pub(super) fn read_data(
        &self,
        caller: &Caller,
        node: &NodeHandle,
        offset: u64,
        count: u32,
    ) -> Result<(Bytes, bool)> {
        let (open, stat) = self.store.get(node)?;
        regular(open.kind)?;
        self.allow_data(caller, &open, &stat.attr, Want::Read)?;
        let rest = stat.attr.size.saturating_sub(offset);
        let count = u64::from(count).min(MAX_IO as u64).min(rest) as usize;
        let fd = self.data_fd(&open, Want::Read)?;
        let mut buffer = Vec::with_capacity(count);
        while buffer.len() < count {
            let at = offset + buffer.len() as u64;
            match pread(fd, spare_capacity(&mut buffer), at) {
                Ok(0) => return Ok((buffer.into(), true)),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(status(error)),
            }
        }
        // The allocation may be larger than asked, and so may what was read.
        buffer.truncate(count);
        Ok((buffer.into(), count as u64 == rest))
    }

    pub(super) fn write_data(
        &self,
        caller: &Caller,
        node: &NodeHandle,
        offset: u64,
        data: &Bytes,
        stable: StableHow,
    ) -> Result<StableHow> {
        let (open, stat) = self.store.get(node)?;
        regular(open.kind)?;
        self.allow_data(caller, &open, &stat.attr, Want::Write)?;
        offset.checked_add(data.len() as u64).filter(|end| *end <= i64::MAX as u64).ok_or(NfsStat::FBig)?;
        let fd = self.data_fd(&open, Want::Write)?;
        let flags = match stable {
            StableHow::Unstable => ReadWriteFlags::empty(),
            _ if !self.is_sync() => ReadWriteFlags::empty(),
            StableHow::DataSync => ReadWriteFlags::DSYNC,
            StableHow::FileSync => ReadWriteFlags::SYNC,
        };
        // As the caller, so that the kernel takes set-id bits from the file and counts quota as it should.
        let _as_caller = self.identity.assume(caller)?;
        write_all(fd, offset, data, flags)?;
        Ok(stable)
    }

    pub(super) fn commit_data(&self, caller: &Caller, node: &NodeHandle) -> Result<()> {
        let (open, stat) = self.store.get(node)?;
        regular(open.kind)?;
        self.allow_data(caller, &open, &stat.attr, Want::Write)?;
        if !self.is_sync() {
            return Ok(());
        }
        fsync(self.data_fd(&open, Want::Write)?).map_err(status)
    }

    /// Whether the caller may read or write a file's data: as for open(2), with the exceptions of RFC 1813 section 4.4 for
    /// the owner and for programs. In single-user mode opening the file tells.
    pub(super) fn allow_data(&self, caller: &Caller, open: &Open, attr: &Fattr, want: Want) -> Result<()> {
        if self.identity.is_single() || caller.is_root() || caller.uid == attr.uid {
            return Ok(());
        }
        let _as_caller = self.identity.assume(caller)?;
        let may = |mode| may_access(open.fd(), mode);
        match want {
            Want::Write => may(libc::W_OK),
            Want::Read => may(libc::R_OK).or_else(|error| may(libc::X_OK).map_err(|_| error)),
        }
        .map_err(status)
    }

    /// A descriptor for data; opened by the server itself, since [`LocalVfs::allow_data`] decides for the caller.
    pub(super) fn data_fd<'a>(&self, open: &'a Open, want: Want) -> Result<BorrowedFd<'a>> {
        if open.writable {
            return Ok(open.fd());
        }
        let (slot, flags) = match want {
            Want::Read => (&open.read, OFlags::RDONLY),
            Want::Write => (&open.write, OFlags::WRONLY),
        };
        self.opened(open, slot, flags)
    }

    fn opened<'a>(&self, open: &Open, slot: &'a OnceLock<OwnedFd>, flags: OFlags) -> Result<BorrowedFd<'a>> {
        if let Some(fd) = slot.get() {
            return Ok(fd.as_fd());
        }
        // Two threads may open at once; the second descriptor is closed.
        let fd = self.store.reopen(open.fd(), flags).map_err(status)?;
        Ok(slot.get_or_init(|| fd).as_fd())
    }

    /// With `sync`, returns when the object's attributes, or a directory's entries, are on stable storage.
    pub(super) fn stabilise(&self, open: &Open) -> Result<()> {
        if !self.is_sync() {
            return Ok(());
        }
        match open.kind {
            FileType::Regular if open.writable || open.write.get().is_some() => {
                fsync(self.data_fd(open, Want::Write)?).map_err(status)
            }
            FileType::Regular | FileType::Directory => match self.data_fd(open, Want::Read) {
                Ok(fd) => fsync(fd).map_err(status),
                // Single-user mode and a mode that keeps the owner out.
                Err(_) => syncfs(&self.store.root_dir).map_err(status),
            },
            // These can't be opened without side effects, or at all.
            _ => syncfs(&self.store.root_dir).map_err(status),
        }
    }
}

/// Data is a regular file's.
pub(super) fn regular(kind: FileType) -> Result<()> {
    match kind {
        FileType::Regular => Ok(()),
        FileType::Directory => Err(NfsStat::IsDir),
        _ => Err(NfsStat::Inval),
    }
}

/// Writes everything; with RWF_SYNC or RWF_DSYNC only this range is waited for.
fn write_all(fd: BorrowedFd<'_>, offset: u64, data: &[u8], flags: ReadWriteFlags) -> Result<()> {
    let mut done = 0;
    while done < data.len() {
        let (rest, at) = (&data[done..], offset + done as u64);
        let written = match flags.is_empty() {
            true => pwrite(fd, rest, at),
            false => pwritev2(fd, &[IoSlice::new(rest)], at, flags),
        };
        match written {
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP) if !flags.is_empty() => return write_then_sync(fd, offset, data),
            Err(error) => return Err(status(error)),
        }
    }
    Ok(())
}

/// For file systems without per-write flags.
fn write_then_sync(fd: BorrowedFd<'_>, offset: u64, data: &[u8]) -> Result<()> {
    write_all(fd, offset, data, ReadWriteFlags::empty())?;
    fsync(fd).map_err(status)
}
