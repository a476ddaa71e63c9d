//! LOOKUP, READDIR and READLINK.

use std::ops::ControlFlow;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use remoor_nfs::v3::{FileType, NfsStat};
use rustix::fs::{OFlags, RawDir, SeekFrom, readlinkat, seek};
use rustix::io::Errno;

use super::super::{Caller, DirEntry, Node, NodeHandle, Result, is_dot};
use super::LocalVfs;
use super::store::open_child;
use super::walk::BUFFER;
use crate::errno::status;

impl LocalVfs {
    pub(super) fn look_up(&self, caller: &Caller, dir: &NodeHandle, name: &[u8]) -> Result<Node> {
        let dir = self.store.directory(dir)?;
        if is_dot(name) {
            self.may_search(caller, &dir)?;
            let found = if name == b"." { dir } else { self.store.parent(&dir)? };
            let stat = self.store.alive(&found)?;
            return Ok(found.node(stat.attr));
        }
        let opened = {
            let _as_caller = self.identity.assume(caller)?;
            open_child(dir.fd(), name)
        };
        let fd = self.store.in_dir(&dir, opened)?;
        let (open, attr) = self.store.found(fd, false, &dir, name)?;
        Ok(open.node(attr))
    }

    /// Offers what getdents64 gives, `.` and `..` included, one buffer after the other. A descriptor of its own keeps the position apart from
    /// that of other calls.
    pub(super) fn read_directory(
        &self,
        caller: &Caller,
        dir: &NodeHandle,
        cookie: u64,
        each: &mut dyn FnMut(DirEntry) -> ControlFlow<()>,
    ) -> Result<bool> {
        let dir = self.store.directory(dir)?;
        let fd = {
            let _as_caller = self.identity.assume(caller)?;
            self.store.reopen(dir.fd(), OFlags::RDONLY | OFlags::DIRECTORY).map_err(status)?
        };
        go_to(&fd, cookie)?;
        let mut buffer = Vec::with_capacity(BUFFER);
        let mut entries = RawDir::new(&fd, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = self.store.in_dir(&dir, entry)?;
            let name = entry.file_name().to_bytes();
            let (fileid, cookie) = (entry.ino(), entry.next_entry_cookie());
            if each(DirEntry { name: Bytes::copy_from_slice(name), fileid, cookie }).is_break() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn read_link(&self, node: &NodeHandle) -> Result<Bytes> {
        let (open, stat) = self.store.get(node)?;
        if open.kind != FileType::Symlink {
            return Err(NfsStat::Inval);
        }
        let buffer = Vec::with_capacity(stat.attr.size as usize + 1);
        readlinkat(open.fd(), "", buffer).map(|text| text.into_bytes().into()).map_err(status)
    }
}

fn go_to(fd: &OwnedFd, cookie: u64) -> Result<()> {
    if cookie == 0 {
        return Ok(());
    }
    match seek(fd, SeekFrom::Start(cookie)) {
        Err(Errno::INVAL | Errno::OVERFLOW) => Err(NfsStat::BadCookie),
        other => other.map(drop).map_err(status),
    }
}
