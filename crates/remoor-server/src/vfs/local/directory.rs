//! LOOKUP, READDIR and READLINK.

use std::ops::ControlFlow;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use remoor_nfs::v3::{Fattr, FileType, NfsStat};
use rustix::fs::{OFlags, RawDir, SeekFrom, readlinkat, seek};
use rustix::io::Errno;

use super::super::{Caller, DirEntry, MAX_LINK_TEXT, Node, NodeHandle, Result, is_dot};
use super::LocalVfs;
use super::stat::{Stat, stat_at};
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
        let _as_caller = self.identity.assume(caller)?;
        let when = self.store.cache.now();
        let seen = self.store.in_dir(&dir, stat_at(dir.fd(), name))?;
        if let Some(open) = self.store.known(&seen, when) {
            self.store.saw(&open, &dir, name);
            return Ok(open.node(seen.attr));
        }
        let fd = self.store.in_dir(&dir, open_child(dir.fd(), name))?;
        let (open, attr) = self.store.found(fd, false, &dir, name)?;
        Ok(open.node(attr))
    }

    /// As LOOKUP, but nothing is opened if the name alone tells the handle: most of what is listed is not used.
    pub(super) fn look_at_entry(&self, caller: &Caller, dir: &NodeHandle, name: &[u8]) -> Result<Node> {
        let open = self.store.directory(dir)?;
        let seen = {
            let _as_caller = self.identity.assume(caller)?;
            let when = self.store.cache.now();
            let seen = stat_at(open.fd(), name).map_err(status)?;
            let held = self.store.known(&seen, when).map(|held| held.handle.clone());
            held.or_else(|| self.store.handle_of(&open, name, &seen))
                .map(|handle| Node { handle, attr: seen.attr })
        };
        seen.map_or_else(|| self.look_up(caller, dir, name), Ok)
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

    pub(super) fn read_link(&self, node: &NodeHandle) -> Result<(Bytes, Fattr)> {
        let (open, Stat { attr, .. }) = self.store.get(node)?;
        if open.kind != FileType::Symlink {
            return Err(NfsStat::Inval);
        }
        let buffer = Vec::with_capacity((attr.size as usize).min(MAX_LINK_TEXT) + 1);
        let text = readlinkat(open.fd(), c"", buffer).map_err(status)?;
        Ok((text.into_bytes().into(), attr))
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
