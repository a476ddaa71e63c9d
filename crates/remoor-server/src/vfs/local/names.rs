//! Everything that changes a directory.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use remoor_nfs::v3::{
    CreateHow, CreateVerf, Device, Fattr, FileType, MknodData, NfsStat, Sattr, SetTime, WccData,
};
use rustix::fs::{
    self, AtFlags, Mode, OFlags, linkat, makedev, mkdirat, mknodat, openat, renameat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::path::DecInt;

use super::super::{
    Caller, Made, NewAttr, Node, NodeHandle, Result, check_link_text, is_dot, made_by, mknod_parts,
};
use super::LocalVfs;
use super::cache::Open;
use super::changes::Change;
use super::stat::{Stat, stat, stat_at};
use super::store::{open_beneath, open_child};
use super::wcc::{Window, wcc};
use crate::errno::status;

/// How often CREATE tries again when the name comes and goes meanwhile.
const MAX_CREATE_TRIES: usize = 8;

impl LocalVfs {
    pub(super) fn create_file(
        &self,
        caller: &Caller,
        dir: &NodeHandle,
        name: &[u8],
        how: &CreateHow,
    ) -> Result<Made> {
        let dir = self.place(dir, name)?;
        for _ in 0..MAX_CREATE_TRIES {
            let made = match how {
                CreateHow::Unchecked(attr) | CreateHow::Guarded(attr) => {
                    self.create_new(caller, &dir, name, attr)
                }
                CreateHow::Exclusive(verf) => self.create_exclusive(caller, &dir, name, *verf),
            };
            if made != Err(NfsStat::Exist) {
                return made;
            }
            let existing = match how {
                CreateHow::Guarded(_) => return Err(NfsStat::Exist),
                CreateHow::Unchecked(attr) => self.reuse(caller, &dir, name, attr),
                CreateHow::Exclusive(verf) => self.recognise(caller, &dir, name, *verf),
            };
            if existing != Err(NfsStat::NoEnt) {
                let node = existing?;
                // Who made it may have been cut off before it was stable.
                self.stabilise(&dir)?;
                let after = Some(self.store.alive(&dir)?.attr);
                return Ok(Made { node, dir: WccData { before: None, after } });
            }
        }
        Err(NfsStat::Jukebox)
    }

    pub(super) fn create_new(&self, caller: &Caller, dir: &Open, name: &[u8], attr: &Sattr) -> Result<Made> {
        let new = self.new_attr(attr, FileType::Regular, caller);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let window = self.window(dir)?;
        let opened = {
            let _as_caller = self.identity.assume(caller)?;
            openat(dir.fd(), name, flags, Mode::from_raw_mode(new.mode))
        };
        let fd = self.store.in_dir(dir, opened)?;
        self.finish(caller, window, name, (fd, true), &new.rest)
    }

    /// CREATE UNCHECKED of a file that exists: only the size counts.
    fn reuse(&self, caller: &Caller, dir: &Open, name: &[u8], attr: &Sattr) -> Result<Node> {
        let node = self.look_up(caller, &dir.handle, name)?;
        if node.attr.kind != FileType::Regular {
            return Err(NfsStat::Exist);
        }
        let size = Sattr { size: attr.size, ..Sattr::default() };
        match attr.size {
            None => Ok(node),
            Some(_) => {
                let attr = self.set_attributes(caller, &node.handle, &size, None)?.after;
                Ok(Node { attr: attr.unwrap_or(node.attr), ..node })
            }
        }
    }

    /// CREATE EXCLUSIVE sent again, maybe to another node or after a restart.
    fn recognise(&self, caller: &Caller, dir: &Open, name: &[u8], verf: CreateVerf) -> Result<Node> {
        let node = self.look_up(caller, &dir.handle, name)?;
        if !made_by(&node.attr, verf) {
            return Err(NfsStat::Exist);
        }
        self.stabilise(&*self.store.held(&node.handle)?)?;
        Ok(node)
    }

    pub(super) fn make_directory(
        &self,
        caller: &Caller,
        dir: &NodeHandle,
        name: &[u8],
        attr: &Sattr,
    ) -> Result<Made> {
        let dir = self.place(dir, name)?;
        let new = self.new_attr(attr, FileType::Directory, caller);
        let mode = Mode::from_raw_mode(new.mode);
        self.make(caller, &dir, name, FileType::Directory, &new, || mkdirat(dir.fd(), name, mode))
    }

    pub(super) fn make_symlink(
        &self,
        caller: &Caller,
        dir: &NodeHandle,
        name: &[u8],
        text: &[u8],
        attr: &Sattr,
    ) -> Result<Made> {
        check_link_text(text)?;
        let dir = self.place(dir, name)?;
        let new = self.new_attr(attr, FileType::Symlink, caller);
        self.make(caller, &dir, name, FileType::Symlink, &new, || symlinkat(text, dir.fd(), name))
    }

    pub(super) fn make_special(
        &self,
        caller: &Caller,
        dir: &NodeHandle,
        name: &[u8],
        what: &MknodData,
    ) -> Result<Made> {
        let (kind, attr, device) = mknod_parts(what)?;
        let dir = self.place(dir, name)?;
        let new = self.new_attr(attr, kind, caller);
        let Device { major, minor } = device.unwrap_or(Device { major: 0, minor: 0 });
        let (raw_kind, mode) = (raw_kind(kind), Mode::from_raw_mode(new.mode));
        let call = || mknodat(dir.fd(), name, raw_kind, mode, makedev(major, minor));
        self.make(caller, &dir, name, kind, &new, call)
    }

    /// Makes an object that is not opened by its making, and finds it again under its name. Someone on the host may have
    /// replaced it in between; attributes are then not for what is there.
    fn make(
        &self,
        caller: &Caller,
        dir: &Open,
        name: &[u8],
        kind: FileType,
        new: &NewAttr,
        call: impl FnOnce() -> std::result::Result<(), Errno>,
    ) -> Result<Made> {
        let window = self.window(dir)?;
        let fd = {
            let _as_caller = self.identity.assume(caller)?;
            self.store.in_dir(dir, call())?;
            self.store.in_dir(dir, self.open_made(dir.fd(), name, kind))?
        };
        if new.rest == Sattr::default() {
            return self.finish(caller, window, name, fd, &new.rest);
        }
        let attr = stat(fd.0.as_fd()).map_err(status)?.attr;
        let ours = attr.kind == kind && (self.identity.is_single() || attr.uid == caller.uid);
        let rest = if ours { new.rest.clone() } else { Sattr::default() };
        self.finish(caller, window, name, fd, &rest)
    }

    /// Opens what was just made to name it only, or a directory that has to be stable to read it, if its maker may: the
    /// server need not become itself to make it stable.
    fn open_made(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        kind: FileType,
    ) -> std::result::Result<(OwnedFd, bool), Errno> {
        if kind == FileType::Directory && self.is_sync() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match open_beneath(dir, name, flags) {
                Err(Errno::ACCESS) => {}
                other => return other.map(|fd| (fd, true)),
            }
        }
        open_child(dir, name).map(|fd| (fd, false))
    }

    /// Sets what could not be given at the making, and makes everything stable.
    pub(super) fn finish(
        &self,
        caller: &Caller,
        window: Window<'_>,
        name: &[u8],
        (fd, for_data): (OwnedFd, bool),
        rest: &Sattr,
    ) -> Result<Made> {
        let dir = window.open();
        let (open, attr) = self.store.found(fd, for_data, dir, name)?;
        let untouched = *rest == Sattr::default();
        if !untouched {
            self.apply(caller, &open, &attr, rest)?;
        }
        let wcc = window.close();
        // Making what can't be opened is stable with its directory; what was set on it later is not.
        if matches!(open.kind, FileType::Regular | FileType::Directory) || !untouched {
            self.stabilise(&open)?;
        }
        self.stabilise(dir)?;
        let attr: Fattr = if untouched { attr } else { self.store.alive(&open)?.attr };
        Ok(Made { node: open.node(attr), dir: wcc })
    }

    pub(super) fn unlink(
        &self,
        caller: &Caller,
        dir: &NodeHandle,
        name: &[u8],
        flags: AtFlags,
    ) -> Result<WccData> {
        let dir = self.store.directory(dir)?;
        if is_dot(name) {
            return Err(NfsStat::Inval);
        }
        let window = self.window(&dir)?;
        let (done, victim, _count) = {
            let _as_caller = self.identity.assume(caller)?;
            let victim = stat_at(dir.fd(), name).ok();
            let count = victim.as_ref().and_then(|victim| self.count_link(victim));
            (unlinkat(dir.fd(), name, flags), victim, count)
        };
        self.store.in_dir(&dir, done)?;
        let wcc = window.close();
        victim.iter().for_each(|victim| self.store.unlinked(victim));
        self.stabilise(&dir)?;
        Ok(wcc)
    }

    pub(super) fn rename_entry(
        &self,
        caller: &Caller,
        from: (&NodeHandle, &[u8]),
        to: (&NodeHandle, &[u8]),
    ) -> Result<(WccData, WccData)> {
        let (old, new) = (self.store.directory(from.0)?, self.store.directory(to.0)?);
        if is_dot(from.1) || is_dot(to.1) {
            return Err(NfsStat::Inval);
        }
        let change = self.changes.begin_both(old.id.ino, new.id.ino);
        let same = Arc::ptr_eq(&old, &new);
        let before = [self.store.alive(&old)?.attr, self.store.alive(&new)?.attr];
        let (done, victim, _count) = {
            let _as_caller = self.identity.assume(caller)?;
            let victim = stat_at(new.fd(), to.1).ok();
            let count = victim.as_ref().and_then(|victim| self.count_link(victim));
            (renameat(old.fd(), from.1, new.fd(), to.1), victim, count)
        };
        done.map_err(status)?;
        let [left, entered] = [(&old, &before[0]), (&new, &before[1])]
            .map(|(dir, before)| wcc(before, stat(dir.fd()).ok().map(|stat| stat.attr), &change));
        drop(change);
        victim.iter().for_each(|victim| self.store.unlinked(victim));
        self.store.moved(&new, to.1);
        self.stabilise(&new)?;
        if !same {
            self.stabilise(&old)?;
        }
        Ok((left, entered))
    }

    pub(super) fn link_file(
        &self,
        caller: &Caller,
        node: &NodeHandle,
        dir: &NodeHandle,
        name: &[u8],
    ) -> Result<(Fattr, WccData)> {
        let (open, _) = self.store.get(node)?;
        if open.kind == FileType::Directory {
            return Err(NfsStat::IsDir);
        }
        let dir = self.place(dir, name)?;
        let window = self.window(&dir)?;
        let done = {
            let _count = self.changes.count(open.id.ino);
            let _as_caller = self.identity.assume(caller)?;
            self.name_file(open.fd(), &dir, name)
        };
        self.store.in_dir(&dir, done)?;
        let wcc = window.close();
        self.store.moved(&dir, name);
        self.stabilise(&dir)?;
        Ok((self.store.alive(&open)?.attr, wcc))
    }

    /// Gives an open file a name. AT_EMPTY_PATH would need CAP_DAC_READ_SEARCH; this link leads to the descriptor's file
    /// itself.
    pub(super) fn name_file(
        &self,
        fd: BorrowedFd<'_>,
        dir: &Open,
        name: &[u8],
    ) -> std::result::Result<(), Errno> {
        let descriptor = DecInt::from_fd(fd);
        linkat(&self.store.descriptors, descriptor, dir.fd(), name, AtFlags::SYMLINK_FOLLOW)
    }

    /// What loses one of several names is changed by that.
    fn count_link(&self, victim: &Stat) -> Option<Change<'_>> {
        let stays = victim.attr.nlink > 1 && victim.attr.kind != FileType::Directory;
        stays.then(|| self.changes.count(victim.attr.fileid))
    }

    /// The directory in which something new gets `name`.
    fn place(&self, dir: &NodeHandle, name: &[u8]) -> Result<Arc<Open>> {
        let dir = self.store.directory(dir)?;
        if is_dot(name) {
            self.store.alive(&dir)?;
            return Err(NfsStat::Exist);
        }
        Ok(dir)
    }

    /// In single-user mode everything belongs to the server's user.
    pub(super) fn new_attr(&self, attr: &Sattr, kind: FileType, caller: &Caller) -> NewAttr {
        let mut new = NewAttr::of(attr, kind, caller);
        if self.identity.is_single() {
            (new.rest.uid, new.rest.gid) = (None, None);
        }
        // What is new has the server's time already.
        for time in [&mut new.rest.atime, &mut new.rest.mtime] {
            if *time == SetTime::Server {
                *time = SetTime::Keep;
            }
        }
        new
    }
}

fn raw_kind(kind: FileType) -> fs::FileType {
    match kind {
        FileType::Regular => fs::FileType::RegularFile,
        FileType::Directory => fs::FileType::Directory,
        FileType::Block => fs::FileType::BlockDevice,
        FileType::Character => fs::FileType::CharacterDevice,
        FileType::Symlink => fs::FileType::Symlink,
        FileType::Socket => fs::FileType::Socket,
        FileType::Fifo => fs::FileType::Fifo,
    }
}
